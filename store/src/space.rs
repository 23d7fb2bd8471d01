//! Disk space: a reserve file that is given up when the disk is full, so that what is in flight can still be
//! recorded, and is taken back when there is room again (SEMANTICS 1.6).

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

const RESERVE_BYTES: u64 = 16 << 20;

/// The reserve.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Takes the reserve if there is room; a disk that is full already is found out by the first write.
    pub(crate) fn take(path: &Path) -> Self {
        let mut reserve = Self {
            path: path.into(),
            held: false,
        };
        reserve.retake();
        reserve
    }

    /// Takes the reserve back. False while there is no room for it.
    pub(crate) fn retake(&mut self) -> bool {
        self.held = self.held || allocate(&self.path).is_ok();
        if !self.held {
            let _ = std::fs::remove_file(&self.path);
        }
        self.held
    }

    /// Gives the reserve up. False if it was given up before.
    pub(crate) fn give_up(&mut self) -> bool {
        let was_held = std::mem::take(&mut self.held);
        was_held && std::fs::remove_file(&self.path).is_ok()
    }
}

fn allocate(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_given_up_once_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reserve");
        let mut reserve = Reserve::take(&path);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), RESERVE_BYTES);
        assert!(reserve.give_up());
        assert!(!reserve.give_up());
        assert!(!path.exists());
        assert!(reserve.retake());
        assert!(path.exists());
    }
}
