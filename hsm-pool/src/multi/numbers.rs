//! The private numbers of a key, read out of its PKCS#8 in the shape that the library takes.

use der::asn1::{AnyRef, ContextSpecific, OctetStringRef, UintRef};
use der::{Decode, Sequence};
use protocol::algorithm::KeyKind;
use zeroize::Zeroizing;

use super::library::RsaNumbers;
use crate::nonce::words;

/// A private key as numbers.
pub(crate) enum Numbers {
    P256 {
        bytes: Zeroizing<[u8; 32]>,
        words: Zeroizing<[u64; 4]>,
    },
    P384 {
        bytes: Zeroizing<[u8; 48]>,
        words: Zeroizing<[u64; 6]>,
    },
    Ed25519 {
        seed: Zeroizing<[u8; 32]>,
        public: [u8; 32],
    },
    Rsa(Box<RsaNumbers>),
}

/// ECPrivateKey (RFC 5915, 3); what follows the key is optional and not needed.
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    #[allow(dead_code, reason = "it has to be there")]
    version: u8,
    key: &'a OctetStringRef,
    #[asn1(optional = "true")]
    #[allow(dead_code, reason = "it may be there")]
    parameters: Option<ContextSpecific<AnyRef<'a>>>,
    #[asn1(optional = "true")]
    #[allow(dead_code, reason = "it may be there")]
    public: Option<ContextSpecific<AnyRef<'a>>>,
}

/// RSAPrivateKey (RFC 8017, A.1.2).
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    #[allow(dead_code, reason = "it has to be there")]
    version: u8,
    modulus: UintRef<'a>,
    #[allow(dead_code, reason = "it has to be there")]
    public_exponent: UintRef<'a>,
    #[allow(dead_code, reason = "it has to be there")]
    private_exponent: UintRef<'a>,
    p: UintRef<'a>,
    q: UintRef<'a>,
    dp: UintRef<'a>,
    dq: UintRef<'a>,
    q_inverse: UintRef<'a>,
}

impl Numbers {
    /// Reads them; `None` for keys that the library cannot take, which are signed with one at a time.
    pub(crate) fn read(kind: KeyKind, pkcs8: &[u8], public_key: &[u8]) -> Option<Self> {
        let info = sm2::pkcs8::PrivateKeyInfoRef::from_der(pkcs8).ok()?;
        let inner = info.private_key.as_bytes();
        match kind {
            KeyKind::P256 => {
                let bytes = scalar::<32>(inner)?;
                Some(Self::P256 {
                    words: words(&*bytes),
                    bytes,
                })
            }
            KeyKind::P384 => {
                let bytes = scalar::<48>(inner)?;
                Some(Self::P384 {
                    words: words(&*bytes),
                    bytes,
                })
            }
            // Its key has what it takes.
            KeyKind::Sm2 => None,
            KeyKind::Ed25519 => {
                let seed = <&OctetStringRef>::from_der(inner).ok()?.as_bytes();
                let info = spki::SubjectPublicKeyInfoRef::from_der(public_key).ok()?;
                let public = info.subject_public_key.as_bytes()?.try_into().ok()?;
                Some(Self::Ed25519 {
                    seed: Zeroizing::new(seed.try_into().ok()?),
                    public,
                })
            }
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => rsa(inner),
        }
    }
}

/// The private key of an ECPrivateKey, of the curve's fixed length.
fn scalar<const N: usize>(inner: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let key = EcPrivateKey::from_der(inner).ok()?.key.as_bytes();
    let mut bytes = Zeroizing::new([0; N]);
    bytes.get_mut(N.checked_sub(key.len())?..)?.copy_from_slice(key);
    Some(bytes)
}

/// Only keys whose primes have half of the modulus each: the library knows no others.
fn rsa(inner: &[u8]) -> Option<Numbers> {
    let key = RsaPrivateKey::from_der(inner).ok()?;
    let modulus = key.modulus.as_bytes();
    let words = modulus.len() / 16;
    let full = modulus.first()? & 0x80 != 0;
    let read = |number: UintRef<'_>| long(number.as_bytes(), words);
    let numbers = RsaNumbers {
        p: read(key.p)?,
        q: read(key.q)?,
        dp: read(key.dp)?,
        dq: read(key.dq)?,
        q_inverse: read(key.q_inverse)?,
    };
    full.then(|| Numbers::Rsa(Box::new(numbers)))
}

fn long(bytes: &[u8], count: usize) -> Option<Zeroizing<Vec<u64>>> {
    if bytes.len() > count * 8 {
        return None;
    }
    let mut words = Zeroizing::new(vec![0; count]);
    for (word, chunk) in words.iter_mut().zip(bytes.rchunks(8)) {
        *word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    Some(words)
}
