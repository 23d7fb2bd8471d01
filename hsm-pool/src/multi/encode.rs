//! RSA encodings (RFC 8017, 9): what the private-key operation is applied to.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use protocol::algorithm::{Algorithm, Hash};

/// The part of a DigestInfo before the digest (RFC 8017, 9.2, note 1).
const fn prefix(hash: Hash) -> Option<&'static [u8]> {
    match hash {
        Hash::Sha256 => Some(b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"),
        Hash::Sha384 => Some(b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"),
        Hash::Sha512 => Some(b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"),
        _ => None,
    }
}

/// Encodes a digest for a modulus of `size` bytes. `None`: not an RSA algorithm, or too little room.
pub(super) fn encode(algorithm: Algorithm, digest: &[u8], size: usize) -> Option<Vec<u8>> {
    let (hash, pss) = match algorithm {
        Algorithm::RsaPkcs1Sha256 => (Hash::Sha256, false),
        Algorithm::RsaPkcs1Sha384 => (Hash::Sha384, false),
        Algorithm::RsaPkcs1Sha512 => (Hash::Sha512, false),
        Algorithm::RsaPssSha256 => (Hash::Sha256, true),
        Algorithm::RsaPssSha384 => (Hash::Sha384, true),
        Algorithm::RsaPssSha512 => (Hash::Sha512, true),
        _ => return None,
    };
    if pss {
        emsa_pss(hash, digest, size)
    } else {
        emsa_pkcs1(hash, digest, size)
    }
}

/// EMSA-PKCS1-v1_5 (9.2).
fn emsa_pkcs1(hash: Hash, digest: &[u8], size: usize) -> Option<Vec<u8>> {
    let prefix = prefix(hash)?;
    let padding = size.checked_sub(prefix.len() + digest.len() + 3)?;
    if padding < 8 {
        return None;
    }
    let mut encoded = vec![0, 1];
    encoded.resize(2 + padding, 0xff);
    encoded.push(0);
    encoded.extend_from_slice(prefix);
    encoded.extend_from_slice(digest);
    Some(encoded)
}

/// EMSA-PSS (9.1.1) with a salt as long as the hash, for moduli whose bits fill their bytes.
fn emsa_pss(hash: Hash, digest: &[u8], size: usize) -> Option<Vec<u8>> {
    let length = digest.len();
    let masked = size.checked_sub(length + 1)?;
    let padding = masked.checked_sub(length + 1)?;
    let mut salt = [0; 64];
    let salt = salt.get_mut(..length)?;
    SystemRandom::new().fill(salt).ok()?;
    let h = hash.digest_of(&[&[0; 8], digest, salt]);
    let mut encoded = vec![0; padding];
    encoded.push(1);
    encoded.extend_from_slice(salt);
    mask(hash, &h, &mut encoded);
    // The modulus has a multiple of eight bits, so that the encoded message has one bit less than its bytes.
    encoded[0] &= 0x7f;
    encoded.extend_from_slice(&h);
    encoded.push(0xbc);
    Some(encoded)
}

/// MGF1 (B.2.1), exclusive-or'ed onto `block`.
fn mask(hash: Hash, seed: &[u8], block: &mut [u8]) {
    for (counter, chunk) in (0_u32..).zip(block.chunks_mut(seed.len())) {
        let piece = hash.digest_of(&[seed, &counter.to_be_bytes()]);
        chunk.iter_mut().zip(piece).for_each(|(byte, with)| *byte ^= with);
    }
}
