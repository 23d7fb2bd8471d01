//! Software keys: generated, read and used in this process.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use der::Decode;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::verify::{BadSignature, PublicKey, SM2_DEFAULT_USER_ID, SignatureBytes, import_digest, sm2_z};
use sm2::elliptic_curve::Generate;
use sm2::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use zeroize::Zeroizing;

use crate::multi::Numbers;
use crate::sm2_key::Sm2Key;

/// Why a software key cannot be made, read or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoftKeyError {
    /// The library could not make one.
    #[error("the key could not be generated")]
    Generate,
    /// Not PKCS#8 of this kind.
    #[error("the private key is not a {0} key in PKCS#8")]
    Malformed(KeyKind),
    /// The key cannot do that.
    #[error("the key cannot do {0}")]
    Unsupported(Algorithm),
    /// The input does not fit, or the library failed.
    #[error("signing failed")]
    Sign,
    /// What was just signed does not verify.
    #[error("the signature does not verify")]
    Rejected,
}

/// A freshly generated key.
pub struct Generated {
    /// PKCS#8, unencrypted.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

/// Makes a key pair.
pub fn generate(kind: KeyKind) -> Result<Generated, SoftKeyError> {
    let failed = |_| SoftKeyError::Generate;
    let (pkcs8, public_key) = match kind {
        KeyKind::P256 | KeyKind::P384 => {
            let key = EcdsaKeyPair::generate(ecdsa(kind)).map_err(failed)?;
            (
                key.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
                spki_of(key.public_key())?,
            )
        }
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
            let size = match kind {
                KeyKind::Rsa2048 => KeySize::Rsa2048,
                KeyKind::Rsa3072 => KeySize::Rsa3072,
                _ => KeySize::Rsa4096,
            };
            let key = RsaKeyPair::generate(size).map_err(failed)?;
            let der: Pkcs8V1Der<'_> = key.as_der().map_err(failed)?;
            (der.as_ref().to_vec(), spki_of(key.public_key())?)
        }
        KeyKind::Ed25519 => {
            let key = Ed25519KeyPair::generate().map_err(failed)?;
            (
                key.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
                spki_of(key.public_key())?,
            )
        }
        KeyKind::Sm2 => {
            let key = sm2::SecretKey::generate();
            let pkcs8 = key.to_pkcs8_der().map_err(|_| SoftKeyError::Generate)?;
            let public_key = key
                .public_key()
                .to_public_key_der()
                .map_err(|_| SoftKeyError::Generate)?;
            (pkcs8.as_bytes().to_vec(), public_key.into_vec())
        }
    };
    Ok(Generated {
        pkcs8: Zeroizing::new(pkcs8),
        public_key,
    })
}

fn spki_of<'a>(key: &impl AsDer<aws_lc_rs::encoding::PublicKeyX509Der<'a>>) -> Result<Vec<u8>, SoftKeyError> {
    Ok(key
        .as_der()
        .map_err(|_| SoftKeyError::Generate)?
        .as_ref()
        .to_vec())
}

const fn ecdsa(kind: KeyKind) -> &'static sig::EcdsaSigningAlgorithm {
    match kind {
        KeyKind::P384 => &sig::ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => &sig::ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

enum Private {
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
    Sm2(Box<Sm2>),
}

struct Sm2 {
    key: Sm2Key,
    /// xA ‖ yA, for Z.
    point: [u8; 64],
}

/// A private key, ready to sign, and its public half.
pub struct SoftKey {
    kind: KeyKind,
    private: Private,
    public: PublicKey,
    /// For signing eight at a time.
    numbers: Option<Numbers>,
}

impl std::fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftKey")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl SoftKey {
    /// Reads a private key (PKCS#8) and its public half (SubjectPublicKeyInfo).
    pub fn new(kind: KeyKind, pkcs8: &[u8], public_key: &[u8]) -> Result<Self, SoftKeyError> {
        let malformed = SoftKeyError::Malformed(kind);
        let public = PublicKey::from_spki(public_key).map_err(|_| malformed.clone())?;
        let private = match kind {
            KeyKind::P256 | KeyKind::P384 => EcdsaKeyPair::from_private_key_der(ecdsa(kind), pkcs8)
                .map(Private::Ecdsa)
                .ok(),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => RsaKeyPair::from_pkcs8(pkcs8)
                .map(|key| Private::Rsa(Box::new(key)))
                .ok(),
            KeyKind::Ed25519 => Ed25519KeyPair::from_pkcs8(pkcs8).map(Private::Ed25519).ok(),
            KeyKind::Sm2 => Sm2::new(pkcs8, public_key).map(|key| Private::Sm2(Box::new(key))),
        };
        let private = private.filter(|_| public.kind() == kind).ok_or(malformed)?;
        Ok(Self {
            kind,
            private,
            public,
            numbers: None,
        })
    }

    /// The same key, ready to sign together with others as well.
    pub fn with_numbers(mut self, pkcs8: &[u8], public_key: &[u8]) -> Self {
        self.numbers = Numbers::read(self.kind, pkcs8, public_key);
        self
    }

    pub(crate) const fn numbers(&self) -> Option<&Numbers> {
        self.numbers.as_ref()
    }

    /// The private key, if it is an SM2 key.
    pub(crate) fn sm2(&self) -> Option<&Sm2Key> {
        match &self.private {
            Private::Sm2(key) => Some(&key.key),
            _ => None,
        }
    }

    /// What an SM2 signature is made of: e, given or computed from the message.
    pub(crate) fn sm2_e(&self, algorithm: Algorithm, input: &[u8], user_id: &[u8]) -> Option<[u8; 32]> {
        match &self.private {
            Private::Sm2(key) if algorithm == Algorithm::Sm2Sm3 => Some(key.e(user_id, input)),
            Private::Sm2(_) => input.try_into().ok(),
            _ => None,
        }
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a digest, or a message where the algorithm takes one. `user_id` counts for `sm2-sm3` only.
    pub fn sign(
        &self,
        algorithm: Algorithm,
        input: &[u8],
        user_id: &[u8],
    ) -> Result<SignatureBytes, SoftKeyError> {
        if !self.kind.algorithms().contains(&algorithm) {
            return Err(SoftKeyError::Unsupported(algorithm));
        }
        match &self.private {
            Private::Ecdsa(key) => {
                let digest = import_digest(algorithm, input).ok_or(SoftKeyError::Sign)?;
                let signature = key.sign_digest(&digest).map_err(|_| SoftKeyError::Sign)?;
                Ok(SignatureBytes::from_slice(signature.as_ref()))
            }
            Private::Rsa(key) => sign_rsa(key, algorithm, input),
            Private::Ed25519(key) => Ok(SignatureBytes::from_slice(key.sign(input).as_ref())),
            Private::Sm2(key) if algorithm == Algorithm::Sm2Sm3 => key.sign(&key.e(user_id, input)),
            Private::Sm2(key) => key.sign(input),
        }
    }

    /// Checks a signature this key just made.
    pub fn check(
        &self,
        algorithm: Algorithm,
        input: &[u8],
        user_id: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        match &self.private {
            Private::Sm2(key) if algorithm == Algorithm::Sm2Sm3 && user_id != SM2_DEFAULT_USER_ID => self
                .public
                .verify(Algorithm::Sm2Sm3E, &key.e(user_id, input), signature),
            _ => self.public.verify(algorithm, input, signature),
        }
    }
}

fn sign_rsa(key: &RsaKeyPair, algorithm: Algorithm, input: &[u8]) -> Result<SignatureBytes, SoftKeyError> {
    let padding: &'static dyn sig::RsaEncoding = match algorithm {
        Algorithm::RsaPkcs1Sha256 => &sig::RSA_PKCS1_SHA256,
        Algorithm::RsaPkcs1Sha384 => &sig::RSA_PKCS1_SHA384,
        Algorithm::RsaPkcs1Sha512 => &sig::RSA_PKCS1_SHA512,
        Algorithm::RsaPssSha256 => &sig::RSA_PSS_SHA256,
        Algorithm::RsaPssSha384 => &sig::RSA_PSS_SHA384,
        _ => &sig::RSA_PSS_SHA512,
    };
    let digest = import_digest(algorithm, input).ok_or(SoftKeyError::Sign)?;
    let mut signature = SignatureBytes::from_elem(0, key.public_modulus_len());
    key.sign_digest(padding, &digest, &mut signature)
        .map_err(|_| SoftKeyError::Sign)?;
    Ok(signature)
}

impl Sm2 {
    fn new(pkcs8: &[u8], public_key: &[u8]) -> Option<Self> {
        let secret = sm2::SecretKey::from_pkcs8_der(pkcs8).ok()?;
        let info = spki::SubjectPublicKeyInfoRef::from_der(public_key).ok()?;
        let point = info
            .subject_public_key
            .as_bytes()?
            .strip_prefix(&[4])?
            .try_into()
            .ok()?;
        let key = Sm2Key::new(Zeroizing::new(secret.to_bytes().into()))?;
        Some(Self { key, point })
    }

    fn e(&self, user_id: &[u8], message: &[u8]) -> [u8; 32] {
        let joined = [&sm2_z(user_id, &self.point)[..], message].concat();
        let digest = protocol::algorithm::Hash::Sm3.digest(&joined);
        std::array::from_fn(|i| digest[i])
    }

    /// Hedged: the nonce comes from RFC 6979 with fresh randomness mixed in (SEMANTICS 3.2).
    fn sign(&self, e: &[u8]) -> Result<SignatureBytes, SoftKeyError> {
        let e = e.try_into().map_err(|_| SoftKeyError::Sign)?;
        let random = SystemRandom::new();
        // A nonce gives no signature once in 2^32; a second try has another.
        for _ in 0..4 {
            let mut fresh = Zeroizing::new([0; 32]);
            random.fill(&mut *fresh).map_err(|_| SoftKeyError::Sign)?;
            if let Some(signature) = self.key.sign(e, &fresh) {
                return Ok(signature);
            }
        }
        Err(SoftKeyError::Sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input_for(algorithm: Algorithm) -> Vec<u8> {
        match algorithm.input() {
            protocol::algorithm::InputKind::Digest(hash) => hash.digest(b"text").to_vec(),
            protocol::algorithm::InputKind::Message(_) => b"a whole message".to_vec(),
        }
    }

    #[test]
    fn every_kind_signs_with_each_of_its_algorithms_and_the_public_half_agrees() {
        for kind in KeyKind::ALL {
            let made = generate(kind).unwrap();
            let key = SoftKey::new(kind, &made.pkcs8, &made.public_key).unwrap();
            for &algorithm in kind.algorithms() {
                let input = input_for(algorithm);
                let signature = key.sign(algorithm, &input, SM2_DEFAULT_USER_ID).unwrap();
                let public = PublicKey::from_spki(&made.public_key).unwrap();
                assert!(
                    public.verify(algorithm, &input, &signature).is_ok(),
                    "{algorithm}"
                );
                let mut other = input.clone();
                other[0] ^= 1;
                assert!(
                    public.verify(algorithm, &other, &signature).is_err(),
                    "{algorithm}"
                );
            }
        }
    }

    #[test]
    fn an_sm2_user_id_matters() {
        let made = generate(KeyKind::Sm2).unwrap();
        let key = SoftKey::new(KeyKind::Sm2, &made.pkcs8, &made.public_key).unwrap();
        let signature = key.sign(Algorithm::Sm2Sm3, b"m", b"alice").unwrap();
        assert!(key.check(Algorithm::Sm2Sm3, b"m", b"alice", &signature).is_ok());
        assert!(
            key.check(Algorithm::Sm2Sm3, b"m", SM2_DEFAULT_USER_ID, &signature)
                .is_err()
        );
    }

    #[test]
    fn keys_of_another_kind_and_other_algorithms_are_refused() {
        let made = generate(KeyKind::P256).unwrap();
        assert!(SoftKey::new(KeyKind::P384, &made.pkcs8, &made.public_key).is_err());
        assert!(SoftKey::new(KeyKind::P256, b"junk", &made.public_key).is_err());
        let key = SoftKey::new(KeyKind::P256, &made.pkcs8, &made.public_key).unwrap();
        let error = key.sign(Algorithm::Ed25519, b"m", b"").unwrap_err();
        assert_eq!(error, SoftKeyError::Unsupported(Algorithm::Ed25519));
        assert_eq!(
            key.sign(Algorithm::EcdsaP256Sha256, b"short", b"").unwrap_err(),
            SoftKeyError::Sign
        );
    }
}
