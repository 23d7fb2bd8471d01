//! The log that grows: takes journal entries in rounds, writes tiles, signs a checkpoint.
//!
//! | the process dies … | on disk | the next start |
//! |---|---|---|
//! | before the salts are synced | nothing of the round | a new round |
//! | before the checkpoint is renamed | salts, and tiles that no checkpoint speaks of | the same leaves are made from the same salts, over the same files |
//! | after it | the round | goes on from there |
//!
//! A checkpoint that is forgotten does no harm either: what follows from journal and salts is the same tree. What does not
//! follow from them any more is never signed.

use std::path::Path;
use std::sync::Arc;

use protocol::ids::Sequence;

use super::checkpoint::Checkpoint;
use super::edge::Edge;
use super::error::{AuditError, Result};
use super::folder::Folder;
use super::leaf::{self, Entry, LOST, Salt};
use super::note::SigningKey;
use super::salts::{Salts, Supply};
use super::tile::{Tile, TilePath, WIDTH};
use super::tree::{Hash, Nodes, complete_root};
use crate::reader::Reader;

/// Entries in a round: some 8 MB of memory, and a tenth of a second of work.
const ROUND_MAX: usize = 131_072;
/// Tiles of each level that are looked at when the log is opened: a power cut can only have taken what was written in the
/// last minute or so, and at 30,000 leaves a second this is more than two.
const LOOKED_AT: u64 = 16_384;

/// A checkpoint and the note that it is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// As it is served.
    pub note: String,
}

/// The log, for the one who makes it grow.
#[derive(Debug)]
pub struct Log {
    folder: Folder,
    salts: Salts,
    key: Arc<SigningKey>,
    edge: Edge,
    /// The bundle that is not full yet.
    bundle: Vec<u8>,
    /// Partial tiles of the last checkpoint.
    partials: Vec<TilePath>,
    signed: Arc<Signed>,
}

impl Log {
    /// Opens the log in `folder`, and begins it if there is none. Tiles that are missing or damaged are made again.
    pub fn open(folder: &Path, key: Arc<SigningKey>, reader: &Reader) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(AuditError::file(folder))?;
        let salts = Salts::open(folder)?;
        let folder = Folder::at(folder);
        let note = match folder.checkpoint()? {
            Some(note) => note,
            None => begin(&folder, &key)?,
        };
        let checkpoint = Checkpoint::verify(&note, key.verifier()).map_err(AuditError::Checkpoint)?;
        let signed = Arc::new(Signed { checkpoint, note });
        let mut log = Self {
            folder,
            salts,
            key,
            edge: Edge::default(),
            bundle: Vec::new(),
            partials: Vec::new(),
            signed,
        };
        if let Err(error) = log.load() {
            tracing::warn!(%error, "the tiles of the audit log are made again from the journal");
            log.rebuild(reader)?;
        }
        log.check_last(reader)?;
        Ok(log)
    }

    /// The last checkpoint.
    pub const fn signed(&self) -> &Arc<Signed> {
        &self.signed
    }

    fn load(&mut self) -> Result<()> {
        let Checkpoint { size, root, .. } = self.signed.checkpoint;
        self.edge = Edge::read(size, |tile| self.folder.hashes(tile))?;
        self.bundle.clear();
        if let Some(tile) = Tile::new(0, size / WIDTH as u64, (size % WIDTH as u64) as u16) {
            let entries = self.folder.entries(tile)?;
            if !entries.iter().map(leaf::leaf_of).eq(self.folder.hashes(tile)?) {
                return Err(AuditError::Tile(TilePath::Entries(tile)));
            }
            entries
                .iter()
                .for_each(|entry| leaf::push_bundled(&mut self.bundle, entry));
        }
        self.partials = self.partial_paths();
        if self.edge.root() != root {
            return Err(AuditError::Root { size });
        }
        check_tiles(&self.folder, &self.edge, LOOKED_AT)
    }

    /// The last journal entry that was logged must still be the one that is there.
    fn check_last(&self, reader: &Reader) -> Result<()> {
        let size = self.edge.size();
        let Some(index) = size.checked_sub(1) else {
            return Ok(());
        };
        let (Some(salt), Some((at, record))) = (self.salts.get(index)?, reader.raw_entry(Sequence(size))?)
        else {
            return Ok(());
        };
        let logged = self.folder.nodes(size).node(0, index)?;
        match logged == leaf::leaf_of(&leaf::commitment(salt, at, &record)) {
            true => Ok(()),
            false => Err(AuditError::Contradiction { size }),
        }
    }

    /// Takes in what the journal has gained, up to a round, and signs. Returns the number of leaves added. After an error
    /// the log must be opened again.
    pub fn grow(&mut self, reader: &Reader) -> Result<u64> {
        let first = self.edge.size();
        let (entries, salts) = self.collect(reader)?;
        if entries.is_empty() {
            return Ok(0);
        }
        self.salts.write(first, &salts)?;
        for entry in &entries {
            self.push(entry)?;
        }
        self.publish()?;
        Ok(self.edge.size() - first)
    }

    /// Whether a round was as large as a round may be, so that there may be more to do.
    pub const fn is_behind(added: u64) -> bool {
        added >= ROUND_MAX as u64
    }

    fn collect(&self, reader: &Reader) -> Result<(Vec<Entry>, Vec<Salt>)> {
        let first = self.edge.size();
        let mut supply = Supply::new(self.salts.read_from(first, 2 * ROUND_MAX)?);
        let (mut entries, mut salts) = (Vec::new(), Vec::new());
        reader.follow_all(Sequence(first + 1), |sequence, at, record| -> Result<bool> {
            // Numbers of lost entries are never used again, and their leaves stand for nothing.
            while first + (entries.len() as u64) + 1 < sequence.0 {
                supply.skip();
                entries.push(LOST);
                salts.push(Salt::ERASED);
            }
            let salt = supply.next()?;
            entries.push(leaf::commitment(salt, at, record));
            salts.push(salt);
            Ok(entries.len() < ROUND_MAX)
        })?;
        Ok((entries, salts))
    }

    fn push(&mut self, entry: &Entry) -> Result<()> {
        let index = self.edge.size();
        leaf::push_bundled(&mut self.bundle, entry);
        if (index + 1).is_multiple_of(WIDTH as u64) {
            let tile = Tile::full(0, index / WIDTH as u64);
            self.write_bundle(tile)?;
            self.bundle.clear();
        }
        let folder = &self.folder;
        self.edge.push(leaf::leaf_of(entry), |tile, hashes| {
            folder.write_hashes(tile, hashes)
        })
    }

    fn partial_paths(&self) -> Vec<TilePath> {
        let tiles = self.edge.partial_tiles().map(|(tile, _)| tile);
        tiles
            .flat_map(|tile| {
                let entries = (tile.level() == 0).then_some(TilePath::Entries(tile));
                entries.into_iter().chain([TilePath::Hashes(tile)])
            })
            .collect()
    }

    fn write_partials(&self) -> Result<()> {
        for (tile, hashes) in self.edge.partial_tiles() {
            self.folder.write_hashes(tile, hashes)?;
            if tile.level() == 0 {
                self.write_bundle(tile)?;
            }
        }
        Ok(())
    }

    /// A bundle with an entry whose salt was erased is the only one that says what was logged.
    fn write_bundle(&self, tile: Tile) -> Result<()> {
        let path = TilePath::Entries(tile);
        let salts = self.salts.read_from(tile.index() * WIDTH as u64, tile.width())?;
        if salts.contains(&Salt::ERASED) {
            self.folder.write_synced(path, &self.bundle)
        } else {
            self.folder.write(path, &self.bundle)
        }
    }

    /// Tiles first, then the checkpoint that speaks of them, then away with what nobody needs any more.
    fn publish(&mut self) -> Result<()> {
        self.write_partials()?;
        let checkpoint = Checkpoint {
            origin: self.key.verifier().name().into(),
            size: self.edge.size(),
            root: self.edge.root(),
        };
        let note = self.key.sign(&checkpoint.to_text());
        self.folder.write_checkpoint(&note)?;
        self.signed = Arc::new(Signed { checkpoint, note });
        let partials = self.partial_paths();
        let old = std::mem::replace(&mut self.partials, partials);
        for path in old.into_iter().filter(|path| !self.partials.contains(path)) {
            self.folder.remove(path);
        }
        Ok(())
    }

    /// Makes every tile of the last checkpoint again: from journal and salts, and where a salt was erased or the entry is
    /// in an archive, from the bundle.
    fn rebuild(&mut self, reader: &Reader) -> Result<()> {
        let Checkpoint { size, root, .. } = self.signed.checkpoint;
        self.edge = Edge::default();
        self.bundle.clear();
        let mut old = OldEntries::new(self.folder.clone(), size);
        let salts = Salts::open(self.folder.path())?;
        let mut salts = salts.in_order();
        reader.follow(Sequence(1), |sequence, at, record| -> Result<bool> {
            while self.edge.size() + 1 < sequence.0.min(size + 1) {
                self.push(&old.entry(self.edge.size())?)?;
            }
            let index = sequence.0 - 1;
            if index >= size {
                return Ok(false);
            }
            let entry = match salts.get(index)? {
                Some(salt) => leaf::commitment(salt, at, record),
                None => old.entry(index)?,
            };
            self.push(&entry)?;
            Ok(true)
        })?;
        if self.edge.size() < size {
            return Err(AuditError::EntryMissing(self.edge.size() + 1));
        }
        if self.edge.root() != root {
            return Err(AuditError::Contradiction { size });
        }
        self.write_partials()?;
        self.partials = self.partial_paths();
        Ok(())
    }
}

fn begin(folder: &Folder, key: &SigningKey) -> Result<String> {
    let nothing = Checkpoint {
        origin: key.verifier().name().into(),
        size: 0,
        root: Hash::of_nothing(),
    };
    let note = key.sign(&nothing.to_text());
    folder.write_checkpoint(&note)?;
    Ok(note)
}

/// Entries out of the bundles there were.
struct OldEntries {
    folder: Folder,
    size: u64,
    bundle: Option<(u64, Vec<Entry>)>,
}

impl OldEntries {
    const fn new(folder: Folder, size: u64) -> Self {
        Self {
            folder,
            size,
            bundle: None,
        }
    }

    fn entry(&mut self, index: u64) -> Result<Entry> {
        let (number, at) = (index / WIDTH as u64, (index % WIDTH as u64) as usize);
        let gone = |_| AuditError::EntryMissing(index + 1);
        if self.bundle.as_ref().is_none_or(|(known, _)| *known != number) {
            let tile = Tile::in_tree(0, number, self.size).ok_or(AuditError::NotLogged(index + 1))?;
            self.bundle = Some((number, self.folder.entries(tile).map_err(gone)?));
        }
        let entries = self.bundle.as_ref().map(|(_, entries)| entries);
        entries
            .and_then(|entries| entries.get(at))
            .copied()
            .ok_or(AuditError::EntryMissing(index + 1))
    }
}

/// Holds the last full tiles of each level against the level above, and the bundles against level 0.
fn check_tiles(folder: &Folder, edge: &Edge, last: u64) -> Result<()> {
    let size = edge.size();
    let mut above = folder.nodes(size);
    for level in 0u8.. {
        let count = size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
        if count == 0 {
            return Ok(());
        }
        for index in count.saturating_sub(last)..count {
            let tile = Tile::full(level, index);
            let hashes = folder.hashes(tile)?;
            let known = above.node(8 * (level + 1), index)?;
            let entries_fit = level > 0 || {
                let entries = folder.entries(tile)?;
                entries.iter().map(leaf::leaf_of).eq(hashes.iter().copied())
            };
            if complete_root(&hashes) != known || !entries_fit {
                return Err(AuditError::Tile(TilePath::Hashes(tile)));
            }
        }
    }
    Ok(())
}
