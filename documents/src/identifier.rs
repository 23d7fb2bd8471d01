//! Algorithms as certificates and signatures name them: the AlgorithmIdentifier, written and read.

use const_oid::db::{rfc5912, rfc8410};
use der::asn1::AnyRef;
use der::{Encode, Sequence};
use protocol::algorithm::{Algorithm, Hash, InputKind};
use spki::{AlgorithmIdentifier, AlgorithmIdentifierRef, ObjectIdentifier};

/// SM2 with SM3 over Z ‖ M (GB/T 33560; the signature algorithm of GB/T 20518 certificates).
const SM2_WITH_SM3: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.501");
/// SM3 without a key (GB/T 33560).
const SM3: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.401");

/// The algorithms that an OID names by itself. SM2 reads as the kind that takes the message, which is what
/// there is to verify a certificate with.
const READABLE: [Algorithm; 7] = [
    Algorithm::EcdsaP256Sha256,
    Algorithm::EcdsaP384Sha384,
    Algorithm::RsaPkcs1Sha256,
    Algorithm::RsaPkcs1Sha384,
    Algorithm::RsaPkcs1Sha512,
    Algorithm::Ed25519,
    Algorithm::Sm2Sm3,
];

const RSA_PKCS1: [Algorithm; 3] = [
    Algorithm::RsaPkcs1Sha256,
    Algorithm::RsaPkcs1Sha384,
    Algorithm::RsaPkcs1Sha512,
];

const RSA_PSS: [Algorithm; 3] = [
    Algorithm::RsaPssSha256,
    Algorithm::RsaPssSha384,
    Algorithm::RsaPssSha512,
];

const HASHES: [Hash; 4] = [Hash::Sha256, Hash::Sha384, Hash::Sha512, Hash::Sm3];

/// RFC 5758 3.2, RFC 4055 3 and 5, RFC 8410 3, GB/T 20518.
const fn signature_oid(algorithm: Algorithm) -> ObjectIdentifier {
    use Algorithm as A;
    match algorithm {
        A::EcdsaP256Sha256 => rfc5912::ECDSA_WITH_SHA_256,
        A::EcdsaP384Sha384 => rfc5912::ECDSA_WITH_SHA_384,
        A::RsaPkcs1Sha256 => rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
        A::RsaPkcs1Sha384 => rfc5912::SHA_384_WITH_RSA_ENCRYPTION,
        A::RsaPkcs1Sha512 => rfc5912::SHA_512_WITH_RSA_ENCRYPTION,
        A::RsaPssSha256 | A::RsaPssSha384 | A::RsaPssSha512 => rfc5912::ID_RSASSA_PSS,
        A::Ed25519 => rfc8410::ID_ED_25519,
        // Who computed e makes no difference to the signature.
        A::Sm2Sm3E | A::Sm2Sm3 => SM2_WITH_SM3,
    }
}

/// RFC 5754 2, GB/T 33560.
const fn hash_oid(hash: Hash) -> ObjectIdentifier {
    match hash {
        Hash::Sha256 => rfc5912::ID_SHA_256,
        Hash::Sha384 => rfc5912::ID_SHA_384,
        Hash::Sha512 => rfc5912::ID_SHA_512,
        Hash::Sm3 => SM3,
    }
}

/// RSASSA-PSS-params (RFC 4055 3.1). The defaults are those of SHA-1, which we neither make nor accept, so
/// every field that matters is there.
#[derive(Sequence)]
struct PssParameters<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    hash: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    mask: AlgorithmIdentifier<AlgorithmIdentifierRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    salt_bytes: u8,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", default = "trailer_bc")]
    trailer: u8,
}

/// trailerFieldBC, the only trailer there is.
const fn trailer_bc() -> u8 {
    1
}

/// The DER of the identifier for signatures made with `algorithm`.
pub(crate) fn signature_identifier(algorithm: Algorithm) -> der::Result<Vec<u8>> {
    use Algorithm as A;
    // RFC 4055 5 wants NULL with RSA, all the others want nothing.
    let parameters = match (algorithm, algorithm.input()) {
        (A::RsaPssSha256 | A::RsaPssSha384 | A::RsaPssSha512, InputKind::Digest(hash)) => {
            return pss_identifier(hash);
        }
        (A::RsaPkcs1Sha256 | A::RsaPkcs1Sha384 | A::RsaPkcs1Sha512, _) => Some(AnyRef::NULL),
        _ => None,
    };
    AlgorithmIdentifierRef {
        oid: signature_oid(algorithm),
        parameters,
    }
    .to_der()
}

fn pss_identifier(hash: Hash) -> der::Result<Vec<u8>> {
    // Inside PSS parameters the hashes carry NULL (RFC 4055 2.1, sha256Identifier), unlike in CMS.
    let hash_identifier = AlgorithmIdentifierRef {
        oid: hash_oid(hash),
        parameters: Some(AnyRef::NULL),
    };
    let parameters = PssParameters {
        hash: hash_identifier,
        mask: AlgorithmIdentifier {
            oid: rfc5912::ID_MGF_1,
            parameters: Some(hash_identifier),
        },
        salt_bytes: salt_bytes(hash),
        trailer: trailer_bc(),
    };
    AlgorithmIdentifier {
        oid: rfc5912::ID_RSASSA_PSS,
        parameters: Some(parameters),
    }
    .to_der()
}

/// The salt is as long as the hash (SEMANTICS 2.2).
fn salt_bytes(hash: Hash) -> u8 {
    u8::try_from(hash.bytes()).unwrap_or(u8::MAX)
}

/// The algorithm an identifier names, `None` if it is none of ours. `digest` is what a CMS signer hashed
/// with: it completes `rsaEncryption`, which many signers write there instead of a full name (RFC 3370 3.2).
pub(crate) fn read_signature(
    identifier: &AlgorithmIdentifierRef<'_>,
    digest: Option<Hash>,
) -> Option<Algorithm> {
    match identifier.oid {
        rfc5912::ID_RSASSA_PSS => read_pss(identifier.parameters?),
        rfc5912::RSA_ENCRYPTION => with_hash(RSA_PKCS1, digest?),
        // Some signers write NULL where it should be left out; it means nothing.
        oid if is_plain(identifier) => READABLE
            .into_iter()
            .find(|algorithm| signature_oid(*algorithm) == oid),
        _ => None,
    }
}

/// No parameters, in either of the two ways to say so (RFC 5754 2).
fn is_plain(identifier: &AlgorithmIdentifierRef<'_>) -> bool {
    identifier.parameters.is_none_or(AnyRef::is_null)
}

fn with_hash(candidates: [Algorithm; 3], hash: Hash) -> Option<Algorithm> {
    candidates
        .into_iter()
        .find(|algorithm| algorithm.input() == InputKind::Digest(hash))
}

/// Accepts exactly what we make ourselves: MGF1 with the same hash and a salt of its length.
fn read_pss(parameters: AnyRef<'_>) -> Option<Algorithm> {
    let parameters: PssParameters<'_> = parameters.decode_as().ok()?;
    let hash = read_hash(&parameters.hash)?;
    let mask_hash = read_hash(&parameters.mask.parameters?)?;
    let ours = parameters.mask.oid == rfc5912::ID_MGF_1
        && mask_hash == hash
        && parameters.salt_bytes == salt_bytes(hash)
        && parameters.trailer == trailer_bc();
    if ours { with_hash(RSA_PSS, hash) } else { None }
}

/// A hash by itself, without parameters (RFC 5754 2).
pub(crate) const fn hash_identifier(hash: Hash) -> AlgorithmIdentifierRef<'static> {
    AlgorithmIdentifierRef {
        oid: hash_oid(hash),
        parameters: None,
    }
}

/// The hash an identifier names.
pub(crate) fn read_hash(identifier: &AlgorithmIdentifierRef<'_>) -> Option<Hash> {
    HASHES
        .into_iter()
        .find(|hash| is_plain(identifier) && hash_oid(*hash) == identifier.oid)
}

#[cfg(test)]
mod tests {
    use der::Decode;

    use super::*;

    #[test]
    fn every_algorithm_reads_back() {
        for algorithm in Algorithm::ALL {
            let bytes = signature_identifier(algorithm).unwrap();
            let identifier = AlgorithmIdentifierRef::from_der(&bytes).unwrap();
            let expected = if algorithm == Algorithm::Sm2Sm3E {
                Algorithm::Sm2Sm3
            } else {
                algorithm
            };
            assert_eq!(read_signature(&identifier, None), Some(expected), "{algorithm}");
        }
        for hash in HASHES {
            assert_eq!(read_hash(&hash_identifier(hash)), Some(hash));
        }
    }

    #[test]
    fn a_bare_rsa_needs_the_digest_to_be_understood() {
        let bare = AlgorithmIdentifierRef {
            oid: rfc5912::RSA_ENCRYPTION,
            parameters: Some(AnyRef::NULL),
        };
        assert_eq!(read_signature(&bare, None), None);
        assert_eq!(
            read_signature(&bare, Some(Hash::Sha384)),
            Some(Algorithm::RsaPkcs1Sha384)
        );
        assert_eq!(read_signature(&bare, Some(Hash::Sm3)), None);
    }

    #[test]
    fn pss_with_another_salt_is_not_ours() {
        let mut bytes = signature_identifier(Algorithm::RsaPssSha256).unwrap();
        *bytes.last_mut().unwrap() = 20;
        let identifier = AlgorithmIdentifierRef::from_der(&bytes).unwrap();
        assert_eq!(read_signature(&identifier, None), None);
    }
}
