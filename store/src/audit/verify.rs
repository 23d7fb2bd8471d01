//! Judging a copy of the log, without the engine and without trusting it: signature, every tile, the root, an older
//! checkpoint, and every leaf that a copy of the journal still lets us make.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::cosign::WitnessKey;
use super::edge::Edge;
use super::error::{AuditError, Result};
use super::folder::Folder;
use super::leaf::{self, Entry, LOST};
use super::note::{Note, NoteError, VerifierKey};
use super::salts::Salts;
use super::tile::{Tile, TilePath, WIDTH};
use super::tree::{self, Hash};
use crate::reader::Reader;
use protocol::ids::Sequence;

/// What became of the leaves when they were made again from the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LeafCount {
    /// Made again, and the same.
    pub recomputed: u64,
    /// Their salts are erased: the tree vouches for what was logged, and nobody can say any more what that was.
    pub erased: u64,
    /// Entries that were lost, which an operator accepted.
    pub lost: u64,
    /// Entries in archives that the journal names and that are not beside it.
    pub archived: u64,
}

/// What was found to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// What witnesses have signed.
    pub cosigned: Option<Cosigned>,
    /// Tiles and bundles that were read.
    pub files: u64,
    /// The older checkpoint that this one begins with.
    pub since: Option<Checkpoint>,
    /// Where the journal was given.
    pub leaves: Option<LeafCount>,
}

/// The last checkpoint that was cosigned, with which the log begins.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cosigned {
    /// Its leaves.
    pub leaves: u64,
    /// Witnesses that were named and whose signatures are there and hold, and when each has seen it, in seconds since
    /// 1970-01-01T00:00Z.
    pub valid: BTreeMap<String, u64>,
    /// Witnesses that were named and have not signed.
    pub missing: Vec<String>,
    /// Others whose signatures are there. Nobody has checked them here.
    pub unchecked: Vec<String>,
}

/// Checks everything that can be checked. `since`: an older checkpoint, as signed; `witnesses`: those whose signatures
/// are to be checked.
pub fn verify(
    folder: &Folder,
    key: &VerifierKey,
    since: Option<&str>,
    journal: Option<&Reader>,
    witnesses: &[WitnessKey],
) -> Result<Verified> {
    let note = folder
        .checkpoint()?
        .ok_or_else(|| AuditError::NoCheckpoint(folder.path().into()))?;
    let checkpoint = Checkpoint::verify(&note, key).map_err(AuditError::Checkpoint)?;
    let mut walk = Walk::new(folder, checkpoint.size);
    let leaves = match journal {
        Some(journal) => Some(walk.hold_against(journal)?),
        None => {
            walk.skip_to(checkpoint.size)?;
            None
        }
    };
    let files = walk.finish(checkpoint.root)?;
    let since = since.map(|old| begins_with(folder, &checkpoint, old, key));
    Ok(Verified {
        since: since.transpose()?,
        cosigned: cosigned(folder, &checkpoint, key, witnesses)?,
        checkpoint,
        files,
        leaves,
    })
}

fn cosigned(
    folder: &Folder,
    now: &Checkpoint,
    key: &VerifierKey,
    witnesses: &[WitnessKey],
) -> Result<Option<Cosigned>> {
    let Some(note) = folder.cosigned()? else {
        return Ok(None);
    };
    let leaves = begins_with(folder, now, &note, key)?.size;
    let note = Note::parse(&note).map_err(|error| AuditError::Checkpoint(error.into()))?;
    let (mut valid, mut missing) = (BTreeMap::new(), Vec::new());
    for witness in witnesses {
        match witness.verify(&note) {
            Ok(time) => drop(valid.insert(witness.name().to_owned(), time)),
            Err(NoteError::NotSigned) => missing.push(witness.name().to_owned()),
            Err(error) => return Err(AuditError::Cosignature(witness.name().to_owned(), error)),
        }
    }
    let mut unchecked = note.others(key);
    unchecked.retain(|name| !valid.contains_key(name));
    Ok(Some(Cosigned {
        leaves,
        valid,
        missing,
        unchecked,
    }))
}

/// Checks that the log of a checkpoint begins with an older one, as signed, and returns that.
pub fn begins_with(folder: &Folder, now: &Checkpoint, old: &str, key: &VerifierKey) -> Result<Checkpoint> {
    let old = Checkpoint::verify(old, key).map_err(AuditError::Checkpoint)?;
    let inconsistent = AuditError::Inconsistent {
        old: old.size,
        size: now.size,
    };
    if old.size > now.size {
        return Err(inconsistent);
    }
    let mut nodes = folder.nodes(now.size);
    let path = tree::consistency(&mut nodes, old.size, now.size)?;
    tree::check_consistency((old.size, old.root), &path, (now.size, now.root)).map_err(|_| inconsistent)?;
    Ok(old)
}

/// Reads every leaf in order, and grows the tree anew beside the files.
struct Walk<'f> {
    folder: &'f Folder,
    size: u64,
    edge: Edge,
    hashes: Vec<Hash>,
    entries: Vec<Entry>,
    files: u64,
}

impl<'f> Walk<'f> {
    fn new(folder: &'f Folder, size: u64) -> Self {
        Self {
            folder,
            size,
            edge: Edge::default(),
            hashes: Vec::new(),
            entries: Vec::new(),
            files: 0,
        }
    }

    /// The next leaf's entry; what is in the files about it must fit together.
    fn next(&mut self) -> Result<Entry> {
        let index = self.edge.size();
        let (number, at) = (index / WIDTH as u64, (index % WIDTH as u64) as usize);
        if at == 0 {
            let tile = Tile::in_tree(0, number, self.size).ok_or(AuditError::NotLogged(index + 1))?;
            self.hashes = self.folder.hashes(tile)?;
            self.entries = self.folder.entries(tile)?;
            self.files += 2;
        }
        let (entry, hash) = (self.entries[at], self.hashes[at]);
        if leaf::leaf_of(&entry) != hash {
            return Err(AuditError::Tile(TilePath::Hashes(Tile::full(0, number))));
        }
        let (folder, files) = (self.folder, &mut self.files);
        self.edge.push(hash, |tile, hashes| {
            *files += u64::from(tile.level() > 0);
            compare(folder, tile, hashes)
        })?;
        Ok(entry)
    }

    fn skip_to(&mut self, size: u64) -> Result<()> {
        while self.edge.size() < size {
            self.next()?;
        }
        Ok(())
    }

    fn hold_against(&mut self, journal: &Reader) -> Result<LeafCount> {
        let salts = Salts::existing(self.folder.path())?;
        let mut salts = salts.as_ref().map(Salts::in_order);
        let mut count = LeafCount::default();
        let size = self.size;
        let archives = journal.archives()?;
        let is_archived = |number: u64| {
            let mut all = archives.iter();
            all.any(|archived| (archived.first..=archived.last).contains(&number))
        };
        journal.follow_there(Sequence(1), |sequence, at, record| -> Result<bool> {
            if self.edge.size() >= size {
                return Ok(false);
            }
            while self.edge.size() + 1 < sequence.0.min(size + 1) {
                let number = self.edge.size() + 1;
                match self.next()? == LOST {
                    true => count.lost += 1,
                    false if is_archived(number) => count.archived += 1,
                    false => return Err(AuditError::EntryMissing(number)),
                }
            }
            if sequence.0 > size {
                return Ok(false);
            }
            let entry = self.next()?;
            let salt = match &mut salts {
                Some(salts) => salts.get(sequence.0 - 1)?,
                None => None,
            };
            match salt {
                None => count.erased += 1,
                Some(salt) if leaf::commitment(salt, at, record) == entry => count.recomputed += 1,
                Some(_) => return Err(AuditError::Entry(sequence.0)),
            }
            Ok(true)
        })?;
        if self.edge.size() < size {
            return Err(AuditError::EntryMissing(self.edge.size() + 1));
        }
        Ok(count)
    }

    fn finish(self, root: Hash) -> Result<u64> {
        let mut files = self.files;
        for (tile, hashes) in self.edge.partial_tiles() {
            files += u64::from(tile.level() > 0);
            compare(self.folder, tile, hashes)?;
        }
        if self.edge.root() != root {
            return Err(AuditError::Root { size: self.size });
        }
        Ok(files)
    }
}

fn compare(folder: &Folder, tile: Tile, hashes: &[Hash]) -> Result<()> {
    if folder.hashes(tile)? == hashes {
        Ok(())
    } else {
        Err(AuditError::Tile(TilePath::Hashes(tile)))
    }
}
