//! The tail: the last committed sequence number and chain value, in a file of its own (SEMANTICS 1.6).
//!
//! Written after every commit and synced once a second, so after a crash of the process it is exact and after a
//! power cut it may lag, never lead. At start the journal must reach at least as far. Two slots are written in
//! turn, each with a checksum, so that a torn write leaves the other.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Result, StoreError};

const SLOT_BYTES: usize = 64;
/// A slot a sector, so that a torn write cannot touch both.
const SLOT_STRIDE: u64 = 4096;

/// A place in the journal and the chain value there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainPoint {
    /// Last entry.
    pub sequence: u64,
    /// Chain value of the batch that ends with it.
    pub chain: [u8; 32],
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Tail {
    file: File,
    path: PathBuf,
    turn: u64,
}

impl Tail {
    /// Opens or makes the file, and reads the later sound slot.
    pub(crate) fn open(path: &Path) -> Result<(Self, ChainPoint)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(StoreError::file(path))?;
        let last = (0..2)
            .filter_map(|turn| read_slot(&file, turn))
            .max_by_key(|point| point.sequence);
        Ok((
            Self {
                file,
                path: path.into(),
                turn: 0,
            },
            last.unwrap_or_default(),
        ))
    }

    /// Notes a commit. Reaches the page cache, not yet the disk.
    pub(crate) fn note(&mut self, point: ChainPoint) -> Result<()> {
        self.turn += 1;
        let at = self.turn % 2 * SLOT_STRIDE;
        self.file
            .write_all_at(&to_slot(point), at)
            .map_err(StoreError::file(&self.path))
    }

    /// A second handle on the same file, for the thread that syncs it.
    pub(crate) fn syncer(&self) -> Result<File> {
        self.file.try_clone().map_err(StoreError::file(&self.path))
    }
}

fn to_slot(point: ChainPoint) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&point.sequence.to_be_bytes());
    slot[8..40].copy_from_slice(&point.chain);
    let check = checksum(&slot[..40]);
    slot[40..56].copy_from_slice(&check);
    slot
}

fn read_slot(file: &File, turn: u64) -> Option<ChainPoint> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, turn * SLOT_STRIDE).ok()?;
    if slot[40..56] != checksum(&slot[..40]) {
        return None;
    }
    Some(ChainPoint {
        sequence: u64::from_be_bytes(std::array::from_fn(|i| slot[i])),
        chain: std::array::from_fn(|i| slot[8 + i]),
    })
}

fn checksum(bytes: &[u8]) -> [u8; 16] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    std::array::from_fn(|i| digest.as_ref()[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_sound_slot_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tail");
        let (mut tail, empty) = Tail::open(&path).unwrap();
        assert_eq!(empty, ChainPoint::default());
        for sequence in 1..=3 {
            tail.note(ChainPoint {
                sequence,
                chain: [sequence as u8; 32],
            })
            .unwrap();
        }
        assert_eq!(
            Tail::open(&path).unwrap().1,
            ChainPoint {
                sequence: 3,
                chain: [3; 32]
            }
        );
        // Entry 3 was in slot 1; a torn write there leaves entry 2.
        tail.file.write_all_at(&[0xff; 8], SLOT_STRIDE + 10).unwrap();
        assert_eq!(Tail::open(&path).unwrap().1.sequence, 2);
    }
}
