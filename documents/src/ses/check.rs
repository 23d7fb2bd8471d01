//! One signature value under one certificate.

use const_oid::db::rfc5912::{RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION};
use protocol::algorithm::{Algorithm, Hash, KeyKind};
use protocol::verify::{PublicKey, pair_to_der};
use spki::ObjectIdentifier;

use super::Policy;
use super::make::SM2_WITH_SM3;
use crate::x509::Certificate;

/// Names under which SM2 with SM3 is met: the algorithm's own, the curve's signature OID, and a slip of the pen
/// that a widespread library made.
const SM2: [ObjectIdentifier; 3] = [
    SM2_WITH_SM3,
    ObjectIdentifier::new_unwrap("1.2.156.10197.1.301.1"),
    ObjectIdentifier::new_unwrap("1.2.156.10197.501"),
];
const RSA: [ObjectIdentifier; 2] = [RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION];

/// A signature and what its algorithm is said to be.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) algorithm: ObjectIdentifier,
    pub(crate) bytes: &'a [u8],
}

/// Does not verify, or is of an algorithm that is none of ours (SHA-1 among them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadValue;

/// Verifies SM2 over SM3(Z ‖ message) with the default user id, or RSA PKCS#1 v1.5 with SHA-256.
pub(crate) fn verify_value(
    certificate: &Certificate<'_>,
    value: Value<'_>,
    message: &[u8],
    policy: Policy,
) -> Result<(), BadValue> {
    let key = PublicKey::from_spki(certificate.public_key()).map_err(|_| BadValue)?;
    let verified = if key.kind() == KeyKind::Sm2 && SM2.contains(&value.algorithm) {
        let pair = match value.bytes.len() {
            64 if policy.accept_raw_pairs => pair_to_der(value.bytes),
            _ => None,
        };
        key.verify(Algorithm::Sm2Sm3, message, pair.as_deref().unwrap_or(value.bytes))
    } else if key.kind().rsa_bits().is_some() && RSA.contains(&value.algorithm) {
        key.verify(
            Algorithm::RsaPkcs1Sha256,
            &Hash::Sha256.digest(message),
            value.bytes,
        )
    } else {
        return Err(BadValue);
    };
    verified.map_err(|_| BadValue)
}

/// Whether the signature is over `e` itself: then neither Z nor anything around the digest is signed.
pub(super) fn is_over_bare_digest(certificate: &Certificate<'_>, value: &[u8], e: &[u8]) -> bool {
    let key = PublicKey::from_spki(certificate.public_key());
    let pair = if value.len() == 64 {
        pair_to_der(value)
    } else {
        None
    };
    let value = pair.as_deref().unwrap_or(value);
    e.len() == 32 && key.is_ok_and(|key| key.verify(Algorithm::Sm2Sm3E, e, value).is_ok())
}
