//! The salts: one flat file, 16 bytes a leaf, beside the tree and not in it. Erasing an entry's salt makes its commitment
//! one that nobody can open any more, and changes nothing in the tree.
//!
//! A salt is on disk, synced, before anything is made from it: after a crash the same leaf is made again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{AuditError, Result};
use super::leaf::Salt;

/// The open file.
#[derive(Debug)]
pub struct Salts {
    file: File,
    path: PathBuf,
}

const BYTES: u64 = Salt::BYTES as u64;

impl Salts {
    /// Opens the file, and makes it if there is none.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, OpenOptions::new().read(true).write(true).create(true))
    }

    /// Opens the file for reading; `None` if there is none.
    pub fn existing(folder: &Path) -> Result<Option<Self>> {
        match Self::open_with(folder, OpenOptions::new().read(true)) {
            Err(AuditError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens the file of a log, to erase from it.
    pub fn writable(folder: &Path) -> Result<Self> {
        Self::open_with(folder, OpenOptions::new().read(true).write(true))
    }

    fn open_with(folder: &Path, options: &mut OpenOptions) -> Result<Self> {
        let path = folder.join("salts");
        let file = options.mode(0o600).open(&path).map_err(AuditError::file(&path))?;
        Ok(Self { file, path })
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> AuditError {
        AuditError::file(&self.path)
    }

    /// The salts of `count` leaves from `first` on, or of as many as there are.
    pub(super) fn read_from(&self, first: u64, count: usize) -> Result<Vec<Salt>> {
        let bytes = self.file.metadata().map_err(self.failed())?.len();
        let there = (bytes / BYTES).saturating_sub(first);
        let count = usize::try_from(there).unwrap_or(usize::MAX).min(count);
        let mut buffer = vec![0; count * Salt::BYTES];
        self.file
            .read_exact_at(&mut buffer, first * BYTES)
            .map_err(self.failed())?;
        let (salts, _) = buffer.as_chunks();
        Ok(salts.iter().copied().map(Salt).collect())
    }

    /// A leaf's salt; `None` if it was erased or never was.
    pub fn get(&self, index: u64) -> Result<Option<Salt>> {
        let found = self.read_from(index, 1)?;
        Ok(found.first().copied().filter(|salt| *salt != Salt::ERASED))
    }

    /// The same for many leaves in order.
    pub(super) const fn in_order(&self) -> InOrder<'_> {
        InOrder {
            salts: self,
            first: 0,
            block: Vec::new(),
        }
    }

    /// Writes salts and waits until they are on disk.
    pub(super) fn write(&self, first: u64, salts: &[Salt]) -> Result<()> {
        let bytes: Vec<u8> = salts.iter().flat_map(|salt| salt.0).collect();
        self.file
            .write_all_at(&bytes, first * BYTES)
            .map_err(self.failed())?;
        self.file.sync_data().map_err(self.failed())
    }

    /// Erases the salts of leaves, and waits until they are gone from the disk. The bundles and tiles that hold what
    /// was made from them must be on disk: they cannot be made again ([`super::Folder::sync`]).
    pub fn erase(&self, indices: impl IntoIterator<Item = u64>) -> Result<()> {
        let bytes = self.file.metadata().map_err(self.failed())?.len();
        for index in indices.into_iter().filter(|index| index * BYTES < bytes) {
            self.file
                .write_all_at(&Salt::ERASED.0, index * BYTES)
                .map_err(self.failed())?;
        }
        self.file.sync_data().map_err(self.failed())
    }
}

/// Reads salts a block at a time.
pub(super) struct InOrder<'s> {
    salts: &'s Salts,
    first: u64,
    block: Vec<Salt>,
}

/// Salts in a block.
const BLOCK: usize = 4_096;

impl InOrder<'_> {
    /// A leaf's salt; `None` if it was erased or never was.
    pub(super) fn get(&mut self, index: u64) -> Result<Option<Salt>> {
        if !(self.first..self.first + self.block.len() as u64).contains(&index) {
            self.block = self.salts.read_from(index, BLOCK)?;
            self.first = index;
        }
        let at = usize::try_from(index - self.first).unwrap_or(usize::MAX);
        Ok(self.block.get(at).copied().filter(|salt| *salt != Salt::ERASED))
    }
}

/// Salts for a round: those that a crashed round has left, then new ones.
pub(super) struct Supply {
    left: std::vec::IntoIter<Salt>,
    fresh: Vec<Salt>,
}

/// New salts drawn at once.
const DRAW: usize = 256;

impl Supply {
    pub(super) fn new(left: Vec<Salt>) -> Self {
        Self {
            left: left.into_iter(),
            fresh: Vec::new(),
        }
    }

    /// The next leaf's salt.
    pub(super) fn next(&mut self) -> Result<Salt> {
        match self.left.next() {
            Some(salt) if salt != Salt::ERASED => Ok(salt),
            _ => self.draw(),
        }
    }

    /// The next leaf has none.
    pub(super) fn skip(&mut self) {
        self.left.next();
    }

    fn draw(&mut self) -> Result<Salt> {
        loop {
            match self.fresh.pop() {
                Some(salt) if salt != Salt::ERASED => return Ok(salt),
                Some(_) => {}
                None => {
                    let mut bytes = [0; DRAW * Salt::BYTES];
                    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AuditError::Randomness)?;
                    self.fresh.extend(bytes.as_chunks().0.iter().copied().map(Salt));
                }
            }
        }
    }
}
