//! New key pairs: what a token is asked for, and its public keys as SubjectPublicKeyInfo (RFC 5280 4.1.2.7).

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType};
use der::asn1::{BitString, ObjectIdentifier, OctetString, UintRef};
use der::{Decode, Encode, Sequence};
use protocol::algorithm::KeyKind;

use super::TokenError;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

fn curve(kind: KeyKind) -> Result<ObjectIdentifier, TokenError> {
    match kind {
        KeyKind::P256 => Ok(P256),
        KeyKind::P384 => Ok(P384),
        _ => Err(TokenError::Unsupported),
    }
}

fn to_der(value: &impl Encode) -> Result<Vec<u8>, TokenError> {
    value.to_der().map_err(|_| TokenError::Unreadable)
}

/// The mechanism and the public template's attributes for a new pair of this kind.
pub(super) fn generation(kind: KeyKind) -> Result<(Mechanism<'static>, Vec<Attribute>), TokenError> {
    if let Some(bits) = kind.rsa_bits() {
        let attributes = vec![
            Attribute::ModulusBits(u64::from(bits).into()),
            Attribute::PublicExponent(vec![1, 0, 1]),
        ];
        return Ok((Mechanism::RsaPkcsKeyPairGen, attributes));
    }
    if kind == KeyKind::Ed25519 {
        let attributes = vec![
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::EcParams(to_der(&ED25519)?),
        ];
        return Ok((Mechanism::EccEdwardsKeyPairGen, attributes));
    }
    Ok((
        Mechanism::EccKeyPairGen,
        vec![Attribute::EcParams(to_der(&curve(kind)?)?)],
    ))
}

pub(super) fn ec_spki(kind: KeyKind, point: &[u8]) -> Result<Vec<u8>, TokenError> {
    // CKA_EC_POINT is the point in an OCTET STRING (PKCS#11 3.0, 6.3.3).
    let point = OctetString::from_der(point).map_err(|_| TokenError::Unreadable)?;
    to_der(&spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier {
            oid: EC_PUBLIC_KEY,
            parameters: Some(curve(kind)?),
        },
        subject_public_key: bits(point.as_bytes())?,
    })
}

pub(super) fn ed25519_spki(point: &[u8]) -> Result<Vec<u8>, TokenError> {
    let point = OctetString::from_der(point).map_err(|_| TokenError::Unreadable)?;
    to_der(&spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier::<der::asn1::Null> {
            oid: ED25519,
            parameters: None,
        },
        subject_public_key: bits(point.as_bytes())?,
    })
}

/// RSAPublicKey (RFC 8017 A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

pub(super) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>, TokenError> {
    let number = |bytes| UintRef::new(bytes).map_err(|_| TokenError::Unreadable);
    let key = RsaPublicKey {
        modulus: number(modulus)?,
        public_exponent: number(exponent)?,
    };
    to_der(&spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier {
            oid: RSA_ENCRYPTION,
            parameters: Some(der::asn1::Null),
        },
        subject_public_key: bits(&to_der(&key)?)?,
    })
}

fn bits(bytes: &[u8]) -> Result<BitString, TokenError> {
    BitString::from_bytes(bytes).map_err(|_| TokenError::Unreadable)
}

/// Modulus and exponent of an RSA SubjectPublicKeyInfo.
pub(super) fn rsa_parts(spki: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TokenError> {
    let unreadable = |_| TokenError::Unreadable;
    let info = spki::SubjectPublicKeyInfoRef::from_der(spki).map_err(unreadable)?;
    let bytes = info.subject_public_key.as_bytes().ok_or(TokenError::Unreadable)?;
    let key = RsaPublicKey::from_der(bytes).map_err(unreadable)?;
    Ok((
        key.modulus.as_bytes().to_vec(),
        key.public_exponent.as_bytes().to_vec(),
    ))
}

/// CKA_KEY_TYPE of a kind.
pub(super) fn key_type(kind: KeyKind) -> Result<KeyType, TokenError> {
    match kind {
        KeyKind::P256 | KeyKind::P384 => Ok(KeyType::EC),
        KeyKind::Ed25519 => Ok(KeyType::EC_EDWARDS),
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Ok(KeyType::RSA),
        KeyKind::Sm2 => Err(TokenError::Unsupported),
    }
}
