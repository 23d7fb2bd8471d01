//! What a signature is checked against. The pool checks what devices return, clients check what the engine
//! returns, the load tool checks what it measures: one meaning of "valid" for all of them.

use std::sync::OnceLock;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{self as sig, ParsedPublicKey, VerificationAlgorithm};
use der::asn1::UintRef;
use der::{Decode, Encode, Sequence};
use sm2::dsa::signature::hazmat::PrehashVerifier;
use sm3::Digest as _;
use smallvec::SmallVec;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::algorithm::{Algorithm, KeyKind};

/// The SM2 user id everybody uses unless told otherwise (GM/T 0009 section 10).
pub const SM2_DEFAULT_USER_ID: &[u8] = b"1234567812345678";

/// A DER-encoded pair or plain signature bytes; no allocation up to P-384.
pub type SignatureBytes = SmallVec<[u8; 112]>;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const CURVE_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const CURVE_P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// The SM2 curve in SubjectPublicKeyInfo parameters (GB/T 33560).
pub const CURVE_SM2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.301");

/// Why a public key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a SubjectPublicKeyInfo.
    #[error("not a SubjectPublicKeyInfo in DER")]
    Malformed,
    /// An algorithm, curve or modulus size that is none of ours.
    #[error("a key of a kind that is not supported")]
    UnsupportedKind,
    /// The key's numbers are wrong (a point off its curve, say).
    #[error("a key that its own algorithm rejects")]
    Rejected,
}

/// A signature that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// A public key, parsed once and used often.
pub struct PublicKey {
    kind: KeyKind,
    spki: Box<[u8]>,
    inner: Inner,
}

enum Inner {
    Parsed(ParsedPublicKey),
    /// One parsed form per RSA algorithm, made when first used.
    Rsa(Box<[OnceLock<Option<ParsedPublicKey>>; RSA.len()]>),
    Sm2(Box<Sm2Key>),
}

struct Sm2Key {
    verifier: sm2::dsa::VerifyingKey,
    point: Box<[u8]>,
}

const RSA: [(Algorithm, &dyn VerificationAlgorithm); 6] = [
    (Algorithm::RsaPkcs1Sha256, &sig::RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RsaPkcs1Sha384, &sig::RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RsaPkcs1Sha512, &sig::RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::RsaPssSha256, &sig::RSA_PSS_2048_8192_SHA256),
    (Algorithm::RsaPssSha384, &sig::RSA_PSS_2048_8192_SHA384),
    (Algorithm::RsaPssSha512, &sig::RSA_PSS_2048_8192_SHA512),
];

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| PublicKeyError::Malformed)?;
        let kind = kind_of(&info)?;
        let parse = |algorithm| ParsedPublicKey::new(algorithm, der).map_err(|_| PublicKeyError::Rejected);
        let inner = match kind {
            KeyKind::P256 => Inner::Parsed(parse(&sig::ECDSA_P256_SHA256_ASN1)?),
            KeyKind::P384 => Inner::Parsed(parse(&sig::ECDSA_P384_SHA384_ASN1)?),
            KeyKind::Ed25519 => Inner::Parsed(parse(&sig::ED25519)?),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
                parse(&sig::RSA_PKCS1_2048_8192_SHA256)?;
                Inner::Rsa(Box::new([const { OnceLock::new() }; RSA.len()]))
            }
            KeyKind::Sm2 => Inner::Sm2(Box::new(
                Sm2Key::new(point_of(&info)?).ok_or(PublicKeyError::Rejected)?,
            )),
        };
        Ok(Self {
            kind,
            spki: der.into(),
            inner,
        })
    }

    /// The kind of key.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Checks `signature`, in the algorithm's usual encoding (DER for pairs), over `input`: the digest, or the
    /// message where the algorithm takes one. SM2 messages are hashed with the default user id; for another,
    /// compute e with [`Self::sm2_e`] and check with `sm2-sm3-e`.
    pub fn verify(&self, algorithm: Algorithm, input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if !self.kind.algorithms().contains(&algorithm) {
            return Err(BadSignature);
        }
        match &self.inner {
            Inner::Parsed(key) if algorithm == Algorithm::Ed25519 => {
                key.verify_sig(input, signature).map_err(|_| BadSignature)
            }
            Inner::Parsed(key) => verify_digest(key, algorithm, input, signature),
            Inner::Rsa(forms) => self.verify_rsa(forms, algorithm, input, signature),
            Inner::Sm2(key) => {
                let hashed;
                let e = if algorithm == Algorithm::Sm2Sm3 {
                    hashed = key.e(SM2_DEFAULT_USER_ID, input);
                    &hashed[..]
                } else {
                    input
                };
                key.verify(e, signature)
            }
        }
    }

    fn verify_rsa(
        &self,
        forms: &[OnceLock<Option<ParsedPublicKey>>; RSA.len()],
        algorithm: Algorithm,
        input: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let at = RSA
            .iter()
            .position(|(a, _)| *a == algorithm)
            .ok_or(BadSignature)?;
        let form = forms[at].get_or_init(|| ParsedPublicKey::new(RSA[at].1, &self.spki).ok());
        verify_digest(form.as_ref().ok_or(BadSignature)?, algorithm, input, signature)
    }

    /// e = SM3(Z ‖ M) for an SM2 key (GB/T 32918.2 6.1, A1 and A2); `None` for other kinds.
    pub fn sm2_e(&self, user_id: &[u8], message: &[u8]) -> Option<[u8; 32]> {
        match &self.inner {
            Inner::Sm2(key) => Some(key.e(user_id, message)),
            _ => None,
        }
    }
}

fn kind_of(info: &SubjectPublicKeyInfoRef<'_>) -> Result<KeyKind, PublicKeyError> {
    let oid = info.algorithm.oid;
    if oid == ED25519 {
        return Ok(KeyKind::Ed25519);
    }
    if oid == RSA_ENCRYPTION {
        return rsa_kind(info);
    }
    let curve = info
        .algorithm
        .parameters_oid()
        .map_err(|_| PublicKeyError::UnsupportedKind)?;
    match (oid, curve) {
        (EC_PUBLIC_KEY, CURVE_P256) => Ok(KeyKind::P256),
        (EC_PUBLIC_KEY, CURVE_P384) => Ok(KeyKind::P384),
        (EC_PUBLIC_KEY, CURVE_SM2) => Ok(KeyKind::Sm2),
        _ => Err(PublicKeyError::UnsupportedKind),
    }
}

/// RSAPublicKey (RFC 8017 A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn rsa_kind(info: &SubjectPublicKeyInfoRef<'_>) -> Result<KeyKind, PublicKeyError> {
    let key = RsaPublicKey::from_der(point_of(info)?).map_err(|_| PublicKeyError::Malformed)?;
    let modulus = key.modulus.as_bytes();
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    KeyKind::ALL
        .into_iter()
        .find(|kind| kind.rsa_bits() == u32::try_from(bits).ok() && kind.rsa_bits().is_some())
        .ok_or(PublicKeyError::UnsupportedKind)
}

fn point_of<'a>(info: &SubjectPublicKeyInfoRef<'a>) -> Result<&'a [u8], PublicKeyError> {
    info.subject_public_key
        .as_bytes()
        .ok_or(PublicKeyError::Malformed)
}

fn verify_digest(
    key: &ParsedPublicKey,
    algorithm: Algorithm,
    input: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let digest = import_digest(algorithm, input).ok_or(BadSignature)?;
    key.verify_digest_sig(&digest, signature)
        .map_err(|_| BadSignature)
}

/// Wraps a digest the caller made, for the library's digest interfaces; `None` if its length is wrong.
pub fn import_digest(algorithm: Algorithm, input: &[u8]) -> Option<Digest> {
    use crate::algorithm::{Hash, InputKind};
    let hash = match algorithm.input() {
        InputKind::Digest(Hash::Sha256) => &aws_lc_rs::digest::SHA256,
        InputKind::Digest(Hash::Sha384) => &aws_lc_rs::digest::SHA384,
        InputKind::Digest(Hash::Sha512) => &aws_lc_rs::digest::SHA512,
        InputKind::Digest(Hash::Sm3) | InputKind::Message(_) => return None,
    };
    Digest::import_less_safe(input, hash).ok()
}

impl Sm2Key {
    fn new(point: &[u8]) -> Option<Self> {
        // Only the uncompressed form is found in certificates, and Z needs both coordinates.
        if point.len() != 65 || point[0] != 4 {
            return None;
        }
        // The library's user id is fixed per key; ours comes with each request, so Z is computed here.
        let verifier = sm2::dsa::VerifyingKey::from_sec1_bytes("", point).ok()?;
        Some(Self {
            verifier,
            point: point.into(),
        })
    }

    fn e(&self, user_id: &[u8], message: &[u8]) -> [u8; 32] {
        let z = sm2_z(user_id, &self.point[1..]);
        sm3::Sm3::new()
            .chain_update(z)
            .chain_update(message)
            .finalize()
            .into()
    }

    fn verify(&self, e: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let pair = der_to_pair(signature, 32).ok_or(BadSignature)?;
        let signature = sm2::dsa::Signature::from_slice(&pair).map_err(|_| BadSignature)?;
        self.verifier
            .verify_prehash(e, &signature)
            .map_err(|_| BadSignature)
    }
}

/// a ‖ b ‖ xG ‖ yG of the SM2 curve (GB/T 32918.5-2017, 4).
const SM2_CURVE: [u8; 128] = hex_128(
    b"FFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFC\
      28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93\
      32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7\
      BC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0",
);

const fn hex_128(text: &[u8; 256]) -> [u8; 128] {
    const fn digit(c: u8) -> u8 {
        if c.is_ascii_digit() {
            c - b'0'
        } else {
            c - b'A' + 10
        }
    }
    let mut out = [0; 128];
    let mut i = 0;
    while i < 128 {
        out[i] = digit(text[2 * i]) << 4 | digit(text[2 * i + 1]);
        i += 1;
    }
    out
}

/// Z = SM3(ENTL ‖ ID ‖ a ‖ b ‖ xG ‖ yG ‖ xA ‖ yA) (GB/T 32918.2 5.5); `point` is xA ‖ yA.
pub fn sm2_z(user_id: &[u8], point: &[u8]) -> [u8; 32] {
    let entl = u16::try_from(user_id.len() * 8).expect("limits.rs bounds user ids to 128 bytes");
    sm3::Sm3::new()
        .chain_update(entl.to_be_bytes())
        .chain_update(user_id)
        .chain_update(SM2_CURVE)
        .chain_update(point)
        .finalize()
        .into()
}

/// Ecdsa-Sig-Value (RFC 3279 2.2.3), also the form of SM2 signatures (GB/T 35276 7.3).
#[derive(Sequence)]
struct Pair<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// r ‖ s, of fixed length, as DER. `None` if the halves are not equal in length.
pub fn pair_to_der(pair: &[u8]) -> Option<SignatureBytes> {
    if pair.is_empty() || !pair.len().is_multiple_of(2) {
        return None;
    }
    let (r, s) = pair.split_at(pair.len() / 2);
    let value = Pair {
        r: UintRef::new(r).ok()?,
        s: UintRef::new(s).ok()?,
    };
    let mut out = [0; 144];
    Some(SignatureBytes::from_slice(value.encode_to_slice(&mut out).ok()?))
}

/// DER as r ‖ s, each of `half` bytes. `None` if it is not DER or a number is too long.
pub fn der_to_pair(der: &[u8], half: usize) -> Option<SignatureBytes> {
    let value = Pair::from_der(der).ok()?;
    let mut pair = SignatureBytes::new();
    for number in [value.r.as_bytes(), value.s.as_bytes()] {
        pair.resize(pair.len() + half.checked_sub(number.len())?, 0);
        pair.extend_from_slice(number);
    }
    Some(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_convert_both_ways_with_leading_zeros() {
        let mut pair = [0u8; 64];
        pair[31] = 1;
        pair[32] = 0x80;
        let der = pair_to_der(&pair).unwrap();
        assert_eq!(der[..5], [0x30, 0x26, 0x02, 0x01, 0x01]);
        assert_eq!(&der_to_pair(&der, 32).unwrap()[..], &pair);
        assert!(der_to_pair(&der, 16).is_none(), "number longer than half");
        assert!(der_to_pair(&der[1..], 32).is_none());
        assert!(pair_to_der(&pair[..63]).is_none());
    }

    /// GB/T 32918.5-2017 A.2: the standard's own key, message and signature.
    #[test]
    fn the_sm2_example_of_the_standard() {
        let x = "09F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020";
        let y = "CCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13";
        let r = "F5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3";
        let s = "B1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA";
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
                .collect()
        };
        let point = [vec![4], hex(x), hex(y)].concat();
        let key = PublicKey::from_spki(&sm2_spki(&point)).unwrap();
        let der = pair_to_der(&[hex(r), hex(s)].concat()).unwrap();
        assert!(key.verify(Algorithm::Sm2Sm3, b"message digest", &der).is_ok());
        assert_eq!(
            key.verify(Algorithm::Sm2Sm3, b"message digesT", &der),
            Err(BadSignature)
        );
        let e = key.sm2_e(SM2_DEFAULT_USER_ID, b"message digest").unwrap();
        assert!(key.verify(Algorithm::Sm2Sm3E, &e, &der).is_ok());
    }

    fn sm2_spki(point: &[u8]) -> Vec<u8> {
        let info = spki::SubjectPublicKeyInfo {
            algorithm: spki::AlgorithmIdentifier {
                oid: EC_PUBLIC_KEY,
                parameters: Some(CURVE_SM2),
            },
            subject_public_key: der::asn1::BitString::from_bytes(point).unwrap(),
        };
        info.to_der().unwrap()
    }

    #[test]
    fn keys_of_other_kinds_are_refused_with_the_reason() {
        assert_eq!(
            PublicKey::from_spki(b"\x30\x00").unwrap_err(),
            PublicKeyError::Malformed
        );
        let mut point = vec![4; 65];
        point[5] = 0xff;
        assert_eq!(
            PublicKey::from_spki(&sm2_spki(&point)).unwrap_err(),
            PublicKeyError::Rejected
        );
    }
}
