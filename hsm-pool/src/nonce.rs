//! Nonces of ECDSA and SM2: RFC 6979 with fresh randomness mixed in (its section 3.6), so that neither a bad random
//! generator nor a fault that repeats a signature gives the key away.

use rfc6979::KGenerator;
use rfc6979::bigint::{U256, U384};
use sha2::{Sha256, Sha384};
use zeroize::Zeroizing;

const P256_ORDER: U256 =
    U256::from_be_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
const SM2_ORDER: U256 = U256::from_be_hex("fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123");
const P384_ORDER: U384 = U384::from_be_hex(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
);

/// Fresh randomness for one nonce.
pub(crate) type Fresh = [u8; 32];

pub(crate) fn p256(key: &[u8; 32], digest: &[u8], fresh: &Fresh) -> Zeroizing<[u8; 32]> {
    let mut nonce = Zeroizing::new([0; 32]);
    KGenerator::<Sha256, _>::new(key, digest, fresh, &P256_ORDER).fill_next_k(&mut *nonce);
    nonce
}

pub(crate) fn sm2(key: &[u8; 32], e: &[u8], fresh: &Fresh) -> Zeroizing<[u8; 32]> {
    let mut nonce = Zeroizing::new([0; 32]);
    KGenerator::<Sha256, _>::new(key, e, fresh, &SM2_ORDER).fill_next_k(&mut *nonce);
    nonce
}

pub(crate) fn p384(key: &[u8; 48], digest: &[u8], fresh: &Fresh) -> Zeroizing<[u8; 48]> {
    let mut nonce = Zeroizing::new([0; 48]);
    KGenerator::<Sha384, _>::new(key, digest, fresh, &P384_ORDER).fill_next_k(&mut *nonce);
    nonce
}

/// The words of a big-endian number, least significant first.
pub(crate) fn words<const W: usize>(bytes: &[u8]) -> Zeroizing<[u64; W]> {
    let mut words = Zeroizing::new([0; W]);
    for (word, chunk) in words.iter_mut().zip(bytes.rchunks(8)) {
        *word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_fresh_randomness_they_would_be_those_of_rfc_6979() {
        // RFC 6979, A.2.5, SHA-256, "sample".
        let key = hex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
        let expected = hex("a6e3c57dd01abe90086538398355dd4c3b17aa873382b0f24d6129493d8aad60");
        let digest = protocol::algorithm::Hash::Sha256.digest(b"sample");
        let mut nonce = [0; 32];
        KGenerator::<Sha256, _>::new(&key, &digest, b"", &P256_ORDER).fill_next_k(&mut nonce);
        assert_eq!(nonce.as_slice(), expected);
    }

    #[test]
    fn the_same_digest_has_another_nonce_each_time() {
        let one = p256(&[7; 32], &[1; 32], &[1; 32]);
        assert_ne!(*one, *p256(&[7; 32], &[1; 32], &[2; 32]));
        assert_eq!(*one, *p256(&[7; 32], &[1; 32], &[1; 32]));
    }

    #[test]
    fn words_come_least_significant_first() {
        let mut bytes = [0; 32];
        bytes[31] = 1;
        bytes[0] = 0x80;
        assert_eq!(*words::<4>(&bytes), [1, 0, 0, 0x8000_0000_0000_0000]);
        assert_eq!(*words::<4>(&[1, 2]), [0x0102, 0, 0, 0]);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }
}
