//! What is logged of a journal entry: a salted commitment. It says nothing about the record to whoever lacks the salt, and
//! binds to it whoever has it.

use aws_lc_rs::digest;
use protocol::clock::UnixMillis;

use super::tree::Hash;

/// Sixteen random bytes that belong to one entry. All zero: erased, or there was never an entry to be salted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub [u8; Self::BYTES]);

impl Salt {
    /// Bytes of a salt.
    pub const BYTES: usize = 16;
    /// What is in an erased one's place.
    pub const ERASED: Self = Self([0; Self::BYTES]);
}

/// An entry of the log: what its leaf is the hash of.
pub(super) type Entry = [u8; 32];
/// The entry in the place of a journal entry that was lost (SEMANTICS 1.6); no commitment is likely to be that.
pub(super) const LOST: Entry = [0; 32];
/// An entry in a bundle: its length in 16 bits, big-endian, and its bytes.
pub(super) const BUNDLED_BYTES: usize = 2 + 32;

/// SHA-256 over salt, time of commit (Unix milliseconds, 64 bits big-endian) and the record as it is in the journal.
pub fn commitment(salt: Salt, at: UnixMillis, record: &[u8]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&salt.0);
    hash.update(&at.0.to_be_bytes());
    hash.update(record);
    let digest = hash.finish();
    std::array::from_fn(|i| digest.as_ref()[i])
}

/// The leaf of a commitment.
pub fn leaf_of(commitment: &[u8; 32]) -> Hash {
    Hash::of_leaf(commitment)
}

pub(super) fn push_bundled(bundle: &mut Vec<u8>, entry: &Entry) {
    bundle.extend_from_slice(&32u16.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// The entries of a bundle; `None` if it is none of ours.
pub(super) fn read_bundle(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (chunks, []) = bytes.as_chunks::<BUNDLED_BYTES>() else {
        return None;
    };
    let entry = |chunk: &[u8; BUNDLED_BYTES]| {
        let (length, entry) = chunk.split_first_chunk::<2>()?;
        (*length == 32u16.to_be_bytes()).then(|| std::array::from_fn(|i| entry[i]))
    };
    chunks.iter().map(entry).collect()
}
