//! What certificates, certificate requests, revocation lists and OCSP responses have in common: a part that
//! is signed, the algorithm, and the signature (SIGNED{} of X.509; RFC 5280 4.1.1).

use der::Decode;
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::verify::{PublicKey, SM2_DEFAULT_USER_ID, der_to_pair};
use spki::AlgorithmIdentifierRef;

use crate::element::{Element, element, tag};
use crate::identifier;
use crate::x509::Envelope;

/// Why a signature does not complete what was prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// It is not the signer's over these bytes, or not in the algorithm's usual encoding.
    #[error("the signature is not the signer's over these bytes, or not in {0}'s usual encoding")]
    Signature(Algorithm),
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// What a signer of `algorithm` is given so that the signature covers `message`: the digest for ECDSA and
/// RSA, e = SM3(Z ‖ message) with the default user id for `sm2-sm3-e` (GB/T 32918.2 6.1), the whole message
/// for the others.
pub(crate) fn signer_input(key: &PublicKey, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    match algorithm.input() {
        InputKind::Message(_) => message.to_vec(),
        InputKind::Digest(Hash::Sm3) => key
            .sm2_e(SM2_DEFAULT_USER_ID, message)
            .map_or_else(|| Hash::Sm3.digest(message).to_vec(), |e| e.to_vec()),
        InputKind::Digest(hash) => hash.digest(message).to_vec(),
    }
}

/// Whether `signature` has the form that signatures of `algorithm` by `key` have. That it verifies is for the
/// pool to see to where that would cost more than everything else here.
pub(crate) fn is_well_formed(key: &PublicKey, algorithm: Algorithm, signature: &[u8]) -> bool {
    match key.kind().rsa_bits() {
        Some(bits) => u32::try_from(signature.len() * 8) == Ok(bits),
        None if algorithm == Algorithm::Ed25519 => signature.len() == 64,
        None => der_to_pair(signature, algorithm.pair_half_bytes()).is_some(),
    }
}

/// Whether `key` signs with `algorithm`.
pub(crate) fn fits(key: &PublicKey, algorithm: Algorithm) -> bool {
    key.kind().algorithms().contains(&algorithm)
}

/// A part that waits for its signature.
#[derive(Clone, Debug)]
pub(crate) struct Unsigned {
    part: Vec<u8>,
    to_sign: Vec<u8>,
    algorithm: Algorithm,
}

impl Unsigned {
    pub(crate) fn new(part: Vec<u8>, key: &PublicKey, algorithm: Algorithm) -> Self {
        let to_sign = signer_input(key, algorithm, &part);
        Self {
            part,
            to_sign,
            algorithm,
        }
    }

    pub(crate) fn part(&self) -> &[u8] {
        &self.part
    }

    pub(crate) fn to_sign(&self) -> &[u8] {
        &self.to_sign
    }

    /// Verifies the signature, so that nothing leaves that nobody would accept.
    pub(crate) fn verify(&self, key: &PublicKey, signature: &[u8]) -> Result<(), AssembleError> {
        key.verify(self.algorithm, &self.to_sign, signature)
            .map_err(|_| AssembleError::Signature(self.algorithm))
    }

    /// The signed part, the algorithm and the signature, and whatever follows them.
    pub(crate) fn around(&self, signature: &[u8], rest: &[u8]) -> Result<Vec<u8>, AssembleError> {
        let algorithm = identifier::signature_identifier(self.algorithm)?;
        let signature = element(tag::BIT_STRING, &[&[0], signature]);
        Ok(element(
            tag::SEQUENCE,
            &[&self.part, &algorithm, &signature, rest],
        ))
    }

    /// [`Self::verify`], then [`Self::around`] with nothing more.
    pub(crate) fn assemble(&self, key: &PublicKey, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        self.verify(key, signature)?;
        self.around(signature, &[])
    }
}

/// Why a signature on something that was read does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// An algorithm that is none of ours, or that the signer's key cannot do.
    #[error("signed with an algorithm or key that is not supported")]
    Unsupported,
    /// Not the signer's over these bytes.
    #[error("the signature does not verify")]
    Bad,
}

/// The algorithm of an AlgorithmIdentifier, in DER; `None` if it is none of ours.
pub(crate) fn algorithm_of(identifier: Element<'_>) -> Option<Algorithm> {
    let identifier = AlgorithmIdentifierRef::from_der(identifier.0).ok()?;
    identifier::read_signature(&identifier, None)
}

/// Verifies `signature` over `message` with the key in `spki`, a SubjectPublicKeyInfo.
pub(crate) fn verify(
    algorithm: Option<Algorithm>,
    spki: &[u8],
    message: &[u8],
    signature: Option<&[u8]>,
) -> Result<Algorithm, SignatureError> {
    let algorithm = algorithm.ok_or(SignatureError::Unsupported)?;
    let key = PublicKey::from_spki(spki).map_err(|_| SignatureError::Unsupported)?;
    if !fits(&key, algorithm) {
        return Err(SignatureError::Unsupported);
    }
    let signature = signature.ok_or(SignatureError::Bad)?;
    // SM2 is read as the kind that takes the message, so the key hashes it with the default user id.
    let verified = match algorithm.input() {
        InputKind::Digest(hash) => key.verify(algorithm, &hash.digest(message), signature),
        InputKind::Message(_) => key.verify(algorithm, message, signature),
    };
    verified.map_err(|_| SignatureError::Bad)?;
    Ok(algorithm)
}

/// Verifies the signature in an [`Envelope`].
pub(crate) fn verify_envelope(envelope: &Envelope<'_>, spki: &[u8]) -> Result<Algorithm, SignatureError> {
    let algorithm = algorithm_of(envelope.algorithm);
    verify(algorithm, spki, envelope.tbs.0, envelope.signature.as_bytes())
}
