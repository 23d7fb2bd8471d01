//! Public keys that must not be certified, and why.

use std::sync::LazyLock;

use num_bigint::BigUint;
use protocol::verify::{PublicKey, PublicKeyError};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use der::asn1::{AnyRef, UintRef};
use der::{Decode, Sequence};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Shortest RSA modulus (NIST SP 800-131A).
const RSA_BITS_MIN: u64 = 2048;
/// Rounds of Fermat's factorization: finds primes that lie closer together than chance puts them.
const FERMAT_ROUNDS: usize = 100;
/// Largest small prime that a modulus is divided by.
const SMALL_PRIME_MAX: u32 = 751;
/// Largest prime of the ROCA fingerprint (CVE-2017-15361).
const ROCA_PRIME_MAX: u32 = 167;

/// Why a key is not certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a SubjectPublicKeyInfo.
    #[error("not a SubjectPublicKeyInfo in DER")]
    Malformed,
    /// An algorithm that is none of ours.
    #[error("keys of algorithm {0} are not certified")]
    Algorithm(ObjectIdentifier),
    /// A curve that is weak or none of ours.
    #[error("keys on the curve {0} are not certified; P-256, P-384 and SM2 are")]
    Curve(ObjectIdentifier),
    /// A curve given by its numbers, which may be anybody's (CVE-2020-0601).
    #[error("the key's curve is not given by its name")]
    ExplicitCurve,
    /// A modulus too short to be safe.
    #[error("an RSA key of {0} bits is too weak; 2048, 3072 and 4096 are certified")]
    RsaTooShort(u64),
    /// A modulus of another length.
    #[error("an RSA key of {0} bits is not certified; 2048, 3072 and 4096 are")]
    RsaLength(u64),
    /// A public exponent that is even, below 65537 or above 2^256 (FIPS 186-5 5.1).
    #[error("the RSA public exponent must be odd and between 65537 and 2^256")]
    RsaExponent,
    /// A modulus with a small factor.
    #[error("the RSA modulus can be divided by {0}")]
    RsaSmallFactor(u32),
    /// A modulus made by the library of CVE-2017-15361.
    #[error("the RSA key bears the mark of a generator that is known to be weak (ROCA)")]
    Roca,
    /// Two primes too close together.
    #[error("the RSA modulus is easily factored: its primes are too close together")]
    RsaClosePrimes,
    /// A point of small order on Ed25519, for which signatures can be made without a key.
    #[error("the Ed25519 key is a point of small order")]
    SmallOrder,
    /// The key's numbers are wrong (a point off its curve, say).
    #[error("a key that its own algorithm rejects")]
    Rejected,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// Reads a SubjectPublicKeyInfo and refuses keys that are weak or not of our kinds.
pub fn check_public_key(spki: &[u8]) -> Result<PublicKey, KeyError> {
    let info = SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| KeyError::Malformed)?;
    let bits = info.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
    match info.algorithm.oid {
        RSA_ENCRYPTION => check_rsa(bits)?,
        EC_PUBLIC_KEY => check_curve(info.algorithm.parameters)?,
        ED25519 => check_ed25519(bits)?,
        other => return Err(KeyError::Algorithm(other)),
    }
    PublicKey::from_spki(spki).map_err(|error| match (error, info.algorithm.parameters_oid()) {
        (PublicKeyError::Malformed, _) => KeyError::Malformed,
        (PublicKeyError::UnsupportedKind, Ok(curve)) => KeyError::Curve(curve),
        _ => KeyError::Rejected,
    })
}

fn check_curve(parameters: Option<AnyRef<'_>>) -> Result<(), KeyError> {
    match parameters.map(AnyRef::decode_as::<ObjectIdentifier>) {
        Some(Ok(_)) => Ok(()),
        _ => Err(KeyError::ExplicitCurve),
    }
}

fn check_rsa(key: &[u8]) -> Result<(), KeyError> {
    let key = RsaPublicKey::from_der(key).map_err(|_| KeyError::Malformed)?;
    let modulus = BigUint::from_bytes_be(key.modulus.as_bytes());
    match modulus.bits() {
        short if short < RSA_BITS_MIN => return Err(KeyError::RsaTooShort(short)),
        2048 | 3072 | 4096 => {}
        other => return Err(KeyError::RsaLength(other)),
    }
    let exponent = BigUint::from_bytes_be(key.exponent.as_bytes());
    if !exponent.bit(0) || exponent < BigUint::from(65_537_u32) || exponent.bits() > 256 {
        return Err(KeyError::RsaExponent);
    }
    check_modulus(&modulus)
}

fn check_modulus(modulus: &BigUint) -> Result<(), KeyError> {
    let residue = |prime: u32| u32::try_from(modulus % prime).unwrap_or(0);
    if let Some(factor) = primes(SMALL_PRIME_MAX).find(|prime| residue(*prime) == 0) {
        return Err(KeyError::RsaSmallFactor(factor));
    }
    if ROCA_RESIDUES
        .iter()
        .all(|(prime, possible)| possible.contains(&residue(*prime)))
    {
        return Err(KeyError::Roca);
    }
    if has_close_primes(modulus) {
        return Err(KeyError::RsaClosePrimes);
    }
    Ok(())
}

fn primes(most: u32) -> impl Iterator<Item = u32> {
    (2..=most).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
}

/// The weak generator makes primes that are powers of 65537 modulo each of these; so are their products.
static ROCA_RESIDUES: LazyLock<Vec<(u32, Vec<u32>)>> = LazyLock::new(|| {
    primes(ROCA_PRIME_MAX)
        .map(|prime| {
            let mut powers = vec![1 % prime];
            let mut next = 65_537 % prime;
            while !powers.contains(&next) {
                powers.push(next);
                next = next * (65_537 % prime) % prime;
            }
            (prime, powers)
        })
        .collect()
});

/// Fermat: if the primes are close, a² − N is a square for some a just above √N.
fn has_close_primes(modulus: &BigUint) -> bool {
    let mut a = modulus.sqrt();
    if &a * &a == *modulus {
        return true;
    }
    (0..FERMAT_ROUNDS).any(|_| {
        a += 1_u32;
        let difference = &a * &a - modulus;
        let root = difference.sqrt();
        &root * &root == difference
    })
}

/// The y coordinates of the points whose order divides 8, with those that are not reduced.
const SMALL_ORDER: [[u8; 32]; 7] = [
    little_endian(0, 0),
    little_endian(1, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    little_endian(0xec, 0xff),
    little_endian(0xed, 0xff),
    little_endian(0xee, 0xff),
];

/// The numbers near 0 and near p = 2^255 − 19.
const fn little_endian(first: u8, others: u8) -> [u8; 32] {
    let mut bytes = [others; 32];
    bytes[0] = first;
    bytes[31] = others & 0x7f;
    bytes
}

fn check_ed25519(point: &[u8]) -> Result<(), KeyError> {
    let mut y: [u8; 32] = point.try_into().map_err(|_| KeyError::Malformed)?;
    // The top bit is the sign of x.
    y[31] &= 0x7f;
    if SMALL_ORDER.contains(&y) {
        return Err(KeyError::SmallOrder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next number above `n` that no small prime divides.
    fn without_small_factors(n: BigUint) -> BigUint {
        let divided = |n: &BigUint| primes(SMALL_PRIME_MAX).any(|p| n % p == BigUint::ZERO);
        let mut n = n;
        while divided(&n) {
            n += 1_u32;
        }
        n
    }

    #[test]
    fn moduli_that_are_easily_factored() {
        let p = without_small_factors((BigUint::from(3_u32) << 1022_u32) + 1_u32);
        let close = without_small_factors(&p + 100_000_u32);
        assert_eq!(check_modulus(&(&p * close)), Err(KeyError::RsaClosePrimes));
        assert_eq!(check_modulus(&(&p * &p)), Err(KeyError::RsaClosePrimes));
        let far = without_small_factors((BigUint::from(7_u32) << 1021_u32) + 1_u32);
        assert_eq!(check_modulus(&(&p * &far)), Ok(()));
        assert_eq!(check_modulus(&(p * 751_u32)), Err(KeyError::RsaSmallFactor(751)));
    }

    #[test]
    fn powers_of_65537_bear_the_mark() {
        let modulus = primes(ROCA_PRIME_MAX).fold(BigUint::from(1_u32), |m, p| m * p);
        let power = BigUint::from(65_537_u32).modpow(&BigUint::from(12_345_u32), &modulus);
        // Times the product of the primes it is still such a power modulo each of them.
        let marked = (0_u32..)
            .map(|n| &power + &modulus * n)
            .find(|n| primes(SMALL_PRIME_MAX).all(|p| n % p != BigUint::ZERO))
            .unwrap();
        assert_eq!(check_modulus(&marked), Err(KeyError::Roca));
    }
}
