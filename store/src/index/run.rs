//! One run: the settled keys of a range of journal entries, sorted by fingerprint, in one file that never changes.
//!
//! Layout: 8 bytes magic; entries of 24 bytes (fingerprint, then sequence and state as a big-endian number); the
//! filter's words, little-endian; a footer of 40 bytes (count, first entry, last entry, filter words, magic).
//! The file is written under another name, synced in the background and renamed, so a name ending in `.run` is
//! complete. Fingerprints are uniform, so a look-up guesses the place and reads one or two small pieces.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Settled;
use super::bloom::Bloom;
use crate::error::{Result, StoreError};
use crate::record::Fingerprint;

const MAGIC: &[u8; 8] = b"CNBRRUN1";
const ENTRY_BYTES: usize = 24;
const FOOTER_BYTES: usize = 40;
/// Entries read in one piece around the guessed place.
const WINDOW: usize = 128;

/// A settled key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Fingerprint,
    pub(crate) settled: Settled,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..16].copy_from_slice(&self.key.0);
        bytes[16..].copy_from_slice(&self.settled.to_bits().to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (key, bits) = bytes.split_at(16);
        Self {
            key: Fingerprint(key.try_into().expect("split at 16")),
            settled: Settled::from_bits(u64::from_be_bytes(bits.try_into().expect("8 of 24 remain"))),
        }
    }
}

/// The two halves of a fingerprint as numbers.
pub(super) fn halves(key: &[u8; 16]) -> (u64, u64) {
    let number = u128::from_be_bytes(*key);
    ((number >> 64) as u64, number as u64)
}

/// The range of journal entries a run stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// An open run.
pub(super) struct Run {
    file: File,
    path: PathBuf,
    count: usize,
    range: Range,
    bloom: Bloom,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("range", &self.range)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Run {
    pub(super) const fn range(&self) -> Range {
        self.range
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a finished run; any doubt about it is an error, and the caller then reads the journal instead.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(StoreError::file(path))?;
        let unsound = |what| StoreError::Corrupt { sequence: 0, what };
        let read =
            |offset: u64, bytes: &mut [u8]| file.read_exact_at(bytes, offset).map_err(StoreError::file(path));
        let length = file.metadata().map_err(StoreError::file(path))?.len();
        let mut footer = [0; FOOTER_BYTES];
        let footer_at = length
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or_else(|| unsound("a run without a footer"))?;
        read(footer_at, &mut footer)?;
        let field = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| footer[8 * i + b]));
        let (count, words) = (field(0) as usize, field(3) as usize);
        let expected = (MAGIC.len() + count * ENTRY_BYTES + words * 8 + FOOTER_BYTES) as u64;
        if &footer[32..] != MAGIC || expected != length {
            return Err(unsound("a run whose footer does not fit"));
        }
        let words = read_words(&file, (MAGIC.len() + count * ENTRY_BYTES) as u64, words)
            .map_err(StoreError::file(path))?;
        let bloom = Bloom::from_words(words).ok_or_else(|| unsound("a run without a filter"))?;
        let range = Range {
            first: field(1),
            last: field(2),
        };
        Ok(Self {
            path: path.into(),
            count,
            range,
            bloom,
            file,
        })
    }

    /// Writes a run. `entries` must be sorted by key and hold each key once.
    pub(super) fn write(
        folder: &Path,
        range: Range,
        count_max: usize,
        entries: impl Iterator<Item = Result<Entry>>,
    ) -> Result<Self> {
        let name = format!("{:020}-{:020}", range.first, range.last);
        let unfinished = folder.join(format!("{name}.new"));
        let finished = folder.join(format!("{name}.run"));
        let file = File::create(&unfinished).map_err(StoreError::file(&unfinished))?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        write_all(&mut out, range, count_max, entries, &unfinished)?;
        let file = out
            .into_inner()
            .map_err(|error| StoreError::file(&unfinished)(error.into_error()))?;
        file.sync_data().map_err(StoreError::file(&unfinished))?;
        std::fs::rename(&unfinished, &finished).map_err(StoreError::file(&finished))?;
        Self::open(&finished)
    }

    /// The key's last entry in this run.
    pub(super) fn find(&self, key: Fingerprint) -> Option<Settled> {
        if !self.bloom.may_hold(&key.0) {
            return None;
        }
        // A read error here must not turn into "never seen": that could sign twice.
        self.search(key).unwrap_or_else(|error| {
            tracing::error!(%error, path = %self.path.display(), "key index cannot be read");
            std::process::abort()
        })
    }

    fn search(&self, key: Fingerprint) -> std::io::Result<Option<Settled>> {
        let (mut low, mut high) = (0, self.count);
        let mut guess = ((u128::from(halves(&key.0).0) * self.count as u128) >> 64) as usize;
        while low < high {
            let from = guess
                .saturating_sub(WINDOW / 2)
                .clamp(low, high.saturating_sub(1));
            let window = self.read(from, WINDOW.min(high - from))?;
            let (first, last) = (window[0].key, window[window.len() - 1].key);
            if key < first {
                high = from;
                guess = from.saturating_sub(WINDOW);
            } else if key > last {
                low = from + window.len();
                guess = low + WINDOW / 2;
            } else {
                let found = window.binary_search_by_key(&key, |entry| entry.key);
                return Ok(found.ok().map(|at| window[at].settled));
            }
        }
        Ok(None)
    }

    fn read(&self, from: usize, count: usize) -> std::io::Result<Vec<Entry>> {
        let mut bytes = vec![0; count * ENTRY_BYTES];
        self.file
            .read_exact_at(&mut bytes, (MAGIC.len() + from * ENTRY_BYTES) as u64)?;
        Ok(entries_of(&bytes).collect())
    }

    /// All entries in order.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
        let file = File::open(&self.path).map_err(StoreError::file(&self.path))?;
        let mut reader = std::io::BufReader::with_capacity(1 << 18, file);
        reader
            .seek_relative(MAGIC.len() as i64)
            .map_err(StoreError::file(&self.path))?;
        let path = self.path.clone();
        Ok((0..self.count).map(move |_| {
            let mut bytes = [0; ENTRY_BYTES];
            reader.read_exact(&mut bytes).map_err(StoreError::file(&path))?;
            Ok(Entry::from_bytes(&bytes))
        }))
    }
}

/// The words of a filter, a piece at a time: a copy of the whole of it would be the largest block this process ever asks for.
fn read_words(file: &File, from: u64, count: usize) -> std::io::Result<Vec<u64>> {
    let mut words = Vec::with_capacity(count);
    let mut piece = [0; 1 << 13];
    while words.len() < count {
        let length = piece.len().min((count - words.len()) * 8);
        file.read_exact_at(&mut piece[..length], from + words.len() as u64 * 8)?;
        let whole = piece[..length].chunks_exact(8);
        words.extend(whole.map(|b| u64::from_le_bytes(std::array::from_fn(|i| b[i]))));
    }
    Ok(words)
}

fn entries_of(bytes: &[u8]) -> impl Iterator<Item = Entry> {
    bytes
        .chunks_exact(ENTRY_BYTES)
        .map(|b| Entry::from_bytes(b.try_into().expect("chunks are exact")))
}

fn write_all(
    out: &mut impl Write,
    range: Range,
    count_max: usize,
    entries: impl Iterator<Item = Result<Entry>>,
    path: &Path,
) -> Result<()> {
    let mut bloom = Bloom::with_keys(count_max);
    let mut count: u64 = 0;
    out.write_all(MAGIC).map_err(StoreError::file(path))?;
    for entry in entries {
        let entry = entry?;
        bloom.insert(&entry.key.0);
        count += 1;
        out.write_all(&entry.to_bytes()).map_err(StoreError::file(path))?;
    }
    for word in bloom.words() {
        out.write_all(&word.to_le_bytes())
            .map_err(StoreError::file(path))?;
    }
    let mut rest = Vec::with_capacity(FOOTER_BYTES);
    for field in [count, range.first, range.last, bloom.words().len() as u64] {
        rest.extend_from_slice(&field.to_le_bytes());
    }
    rest.extend_from_slice(MAGIC);
    out.write_all(&rest)
        .and_then(|()| out.flush())
        .map_err(StoreError::file(path))
}
