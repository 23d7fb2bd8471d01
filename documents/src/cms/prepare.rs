//! From a digest to a signature file: prepare, let sign, assemble.

use std::sync::Arc;

use const_oid::db::rfc5911::{ID_DATA, ID_SIGNED_DATA};
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode};
use protocol::algorithm::{Algorithm, Hash, InputError, InputKind};
use protocol::clock::UnixMillis;
use protocol::verify::der_to_pair;
use spki::AlgorithmIdentifierRef;

use super::structure::{ContentInfo, EncapsulatedContentInfo, SignedData, SignerInfo, V1};
use super::{Chain, DigestBytes, attributes};
use crate::element::Members;
use crate::{identifier, time};

/// Why a signature cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// An algorithm that CMS signatures are not made with.
    #[error("CMS signatures are not made with {0} yet; the supported ones are ECDSA and RSA")]
    UnsupportedAlgorithm(Algorithm),
    /// An algorithm that the signer's key cannot do.
    #[error("the key in the signer's certificate does not sign with {0}")]
    Key(Algorithm),
    /// A digest of the wrong length.
    #[error(transparent)]
    Digest(#[from] InputError),
    /// The signer's certificate is not valid at the signing time; no verifier would accept the signature.
    #[error("the signer's certificate is not valid at the signing time")]
    NotValidThen,
    /// A signing time after the year 9999.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// Why a signature does not complete a [`PreparedCms`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// Not in the algorithm's usual encoding.
    #[error("not a signature in the usual encoding of {0}")]
    Signature(Algorithm),
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// Whether CMS signatures can be made and verified with `algorithm`.
pub const fn supports(algorithm: Algorithm) -> bool {
    hash_of(algorithm).is_some()
}

/// The hash of both content and signed attributes; `None` where CMS is not supported.
const fn hash_of(algorithm: Algorithm) -> Option<Hash> {
    match algorithm.input() {
        // SM2 needs the object identifiers and content of GB/T 35275, Ed25519 the rules of RFC 8419.
        InputKind::Digest(Hash::Sm3) | InputKind::Message(_) => None,
        InputKind::Digest(hash) => Some(hash),
    }
}

/// A CMS signature that lacks the signature itself: the signed attributes and a share of the chain.
#[derive(Clone, Debug)]
pub struct PreparedCms {
    chain: Arc<Chain>,
    algorithm: Algorithm,
    hash: Hash,
    signed_attributes: Vec<u8>,
    to_sign: DigestBytes,
}

/// Writes the signed attributes for content whose digest, made with the algorithm's hash, is
/// `content_digest`.
pub fn prepare(
    content_digest: &[u8],
    algorithm: Algorithm,
    chain: &Arc<Chain>,
    signing_time: UnixMillis,
) -> Result<PreparedCms, PrepareError> {
    check_validity(chain, signing_time)?;
    prepare_with(content_digest, algorithm, chain, Some(signing_time))
}

/// The same for a signature in a document that says the signing time itself, where the attribute must not be (ETSI
/// EN 319 142-1 5.3, Table 1).
pub(crate) fn prepare_for_document(
    content_digest: &[u8],
    algorithm: Algorithm,
    chain: &Arc<Chain>,
    signing_time: UnixMillis,
) -> Result<PreparedCms, PrepareError> {
    check_validity(chain, signing_time)?;
    prepare_with(content_digest, algorithm, chain, None)
}

/// The hash that content and attributes are digested with, once it is clear that the key can sign.
pub(crate) fn check_algorithm(algorithm: Algorithm, chain: &Chain) -> Result<Hash, PrepareError> {
    let hash = hash_of(algorithm).ok_or(PrepareError::UnsupportedAlgorithm(algorithm))?;
    if !chain.public_key().kind().algorithms().contains(&algorithm) {
        return Err(PrepareError::Key(algorithm));
    }
    Ok(hash)
}

fn check_validity(chain: &Chain, signing_time: UnixMillis) -> Result<(), PrepareError> {
    if time::is_within(chain.validity(), signing_time) {
        return Ok(());
    }
    Err(PrepareError::NotValidThen)
}

fn prepare_with(
    content_digest: &[u8],
    algorithm: Algorithm,
    chain: &Arc<Chain>,
    signing_time: Option<UnixMillis>,
) -> Result<PreparedCms, PrepareError> {
    let hash = check_algorithm(algorithm, chain)?;
    algorithm.check_input(content_digest)?;
    let signed_attributes = attributes::write(content_digest, signing_time, chain.signing_certificate())?;
    // The signature covers the encoding as a SET, not the tagged form that is stored (RFC 5652 5.4).
    let to_sign = hash.digest(&Members(&signed_attributes).to_der()?);
    Ok(PreparedCms {
        chain: Arc::clone(chain),
        algorithm,
        hash,
        signed_attributes,
        to_sign,
    })
}

/// The most bytes that a signature in a document will have under this chain, without a time stamp.
pub(crate) fn bytes_max(algorithm: Algorithm, chain: &Arc<Chain>) -> Result<usize, PrepareError> {
    let hash = check_algorithm(algorithm, chain)?;
    let digest = vec![0; hash.bytes()];
    let prepared = prepare_with(&digest, algorithm, chain, None)?;
    // ECDSA in DER: two integers of a half and a sign byte each, with their heads and that of the sequence.
    let longest = match chain.public_key().kind().rsa_bits() {
        Some(bits) => bits as usize / 8,
        None => 2 * (algorithm.pair_half_bytes() + 3) + 3,
    };
    Ok(prepared.around_signature(&vec![0; longest], None)?.len())
}

impl PreparedCms {
    /// What to give to a signer of the algorithm: the digest of the signed attributes.
    pub fn to_sign(&self) -> &[u8] {
        &self.to_sign
    }

    /// The ContentInfo, in DER. `signature` is in the algorithm's usual encoding: DER for ECDSA, plain bytes
    /// for RSA. Its form is checked; that it verifies is for the pool to see to.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        self.check(signature)?;
        Ok(self.around_signature(signature, None)?)
    }

    /// The same with a time-stamp token over the signature as an unsigned attribute (CAdES-T, PAdES B-T). The token, a
    /// ContentInfo in DER, is over [`Self::hash`] of the signature's bytes.
    pub fn assemble_time_stamped(self, signature: &[u8], token: &[u8]) -> Result<Vec<u8>, AssembleError> {
        self.check(signature)?;
        let attribute = attributes::time_stamp(token)?;
        Ok(self.around_signature(signature, Some(&attribute))?)
    }

    /// The hash that everything here is digested with.
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    fn check(&self, signature: &[u8]) -> Result<(), AssembleError> {
        if self.is_well_formed(signature) {
            return Ok(());
        }
        Err(AssembleError::Signature(self.algorithm))
    }

    fn around_signature(&self, signature: &[u8], unsigned: Option<&[u8]>) -> der::Result<Vec<u8>> {
        let digest_algorithm = identifier::hash_identifier(self.hash);
        let signature_algorithm = identifier::signature_identifier(self.algorithm)?;
        let signer = SignerInfo {
            version: V1,
            signer: AnyRef::from_der(self.chain.issuer_and_serial())?,
            digest_algorithm,
            signed_attributes: Some(Members(&self.signed_attributes)),
            signature_algorithm: AlgorithmIdentifierRef::from_der(&signature_algorithm)?,
            signature: OctetStringRef::new(signature)?,
            unsigned_attributes: unsigned.map(Members),
        };
        self.around(&signer.to_der()?, &digest_algorithm.to_der()?)
    }

    fn around(&self, signer: &[u8], digest_algorithm: &[u8]) -> der::Result<Vec<u8>> {
        let content = SignedData {
            version: V1,
            digest_algorithms: Members(digest_algorithm),
            content: EncapsulatedContentInfo {
                content_type: ID_DATA,
                content: None,
            },
            certificates: Some(Members(self.chain.certificates())),
            crls: None,
            signers: Members(signer),
        };
        ContentInfo {
            content_type: ID_SIGNED_DATA,
            content,
        }
        .to_der()
    }

    fn is_well_formed(&self, signature: &[u8]) -> bool {
        match self.chain.public_key().kind().rsa_bits() {
            Some(bits) => u32::try_from(signature.len() * 8) == Ok(bits),
            None => der_to_pair(signature, self.algorithm.pair_half_bytes()).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supported_algorithms() {
        let supported = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| supports(*algorithm))
            .count();
        assert_eq!(supported, 8);
        for algorithm in [Algorithm::Ed25519, Algorithm::Sm2Sm3, Algorithm::Sm2Sm3E] {
            assert!(!supports(algorithm), "{algorithm}");
        }
    }

    #[test]
    fn prepared_signatures_move_between_threads() {
        fn is_send_and_sync<T: Send + Sync>() {}
        is_send_and_sync::<PreparedCms>();
        is_send_and_sync::<Chain>();
    }
}
