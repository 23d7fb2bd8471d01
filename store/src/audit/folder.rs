//! The log on disk, laid out as c2sp.org/tlog-tiles serves it: `checkpoint`, `tile/L/N`, `tile/entries/N`. A name stands
//! for a whole file: each is written beside and then renamed.
//!
//! Tiles are not synced: they can be made again from journal and salts, and the log looks at its youngest ones when it is
//! opened. Of partial tiles only the newest is kept; narrower ones are its beginnings.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::error::{AuditError, Result};
use super::leaf::{self, BUNDLED_BYTES, Entry};
use super::note::VerifierKey;
use super::tile::{Tile, TilePath, WIDTH};
use super::tree::{Hash, Nodes, complete_root};
use crate::epoch::DataEpoch;

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

const CHECKPOINT: &str = "checkpoint";
const PUBLIC_KEY: &str = "vkey";
const WRAPPED_KEY: &str = "key";
const EPOCH: &str = "epoch";
const COSIGNED: &str = "cosigned";
const STAMPS: &str = "stamps";

impl Folder {
    /// The log in this folder.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The last checkpoint, as signed.
    pub fn checkpoint(&self) -> Result<Option<String>> {
        self.text(CHECKPOINT)
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        let path = self.0.join(name);
        match std::fs::read_to_string(&path) {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(AuditError::file(path)(error)),
        }
    }

    /// The log's public key, as written beside it, and its private key, wrapped; `None` if it has none yet.
    pub fn key(&self) -> Result<Option<(String, Vec<u8>)>> {
        let (public, wrapped) = (self.0.join(PUBLIC_KEY), self.0.join(WRAPPED_KEY));
        match std::fs::read(&wrapped) {
            Ok(key) => {
                let text = std::fs::read_to_string(&public).map_err(AuditError::file(public))?;
                Ok(Some((text, key)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(AuditError::file(wrapped)(error)),
        }
    }

    /// The log's public key, as written beside it. It says which key to expect, not that it is the right one.
    pub fn public_key(&self) -> Result<VerifierKey> {
        let path = self.0.join(PUBLIC_KEY);
        let text = std::fs::read_to_string(&path).map_err(AuditError::file(path))?;
        let key = text.parse::<VerifierKey>();
        key.map_err(|error| AuditError::Checkpoint(CheckpointError::Note(error)))
    }

    /// The epoch of the store in which the log was begun.
    pub fn epoch(&self) -> Result<DataEpoch> {
        let path = self.0.join(EPOCH);
        let text = std::fs::read_to_string(&path).map_err(AuditError::file(&path))?;
        let number = text.trim_end().parse().map_err(std::io::Error::other);
        number.map(DataEpoch).map_err(AuditError::file(&path))
    }

    /// Keeps the key of a new log, and in which epoch it begins. The log has a key once the private half is there.
    pub fn write_key(&self, public: &VerifierKey, wrapped: &[u8], epoch: DataEpoch) -> Result<()> {
        std::fs::create_dir_all(&self.0).map_err(AuditError::file(&self.0))?;
        self.write_durably(EPOCH, format!("{}\n", epoch.0).as_bytes())?;
        self.write_durably(PUBLIC_KEY, format!("{public}\n").as_bytes())?;
        self.write_durably(WRAPPED_KEY, wrapped)
    }

    /// How many leaves the checkpoint states, whoever signed it; 0 where there is none that can be read.
    pub fn stated_size(&self) -> u64 {
        let note = self.checkpoint().ok().flatten().unwrap_or_default();
        Checkpoint::parse(&note).map_or(0, |checkpoint| checkpoint.size)
    }

    /// The last checkpoint that a witness has cosigned, with what all of them have signed.
    pub fn cosigned(&self) -> Result<Option<String>> {
        self.text(COSIGNED)
    }

    /// Keeps a checkpoint with cosignatures.
    pub fn write_cosigned(&self, note: &str) -> Result<()> {
        self.write_durably(COSIGNED, note.as_bytes())
    }

    /// Keeps what an authority for time stamps has said of the checkpoint of so many leaves.
    pub fn write_stamp(&self, size: u64, text: &str) -> Result<()> {
        let folder = self.0.join(STAMPS);
        std::fs::create_dir_all(&folder).map_err(AuditError::file(&folder))?;
        // So many digits that names are in the order of sizes.
        self.write_durably(&format!("{STAMPS}/{size:020}.json"), text.as_bytes())
    }

    /// What authorities for time stamps have said, in the order of sizes.
    pub fn stamps(&self) -> Result<Vec<String>> {
        let folder = self.0.join(STAMPS);
        let files = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(AuditError::file(&folder))?,
        };
        let is_stamp = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
        let mut paths = Vec::new();
        for file in files {
            paths.push(file.map_err(AuditError::file(&folder))?.path());
        }
        paths.retain(is_stamp);
        paths.sort();
        let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(AuditError::file(path));
        paths.iter().map(read).collect()
    }

    /// Replaces the checkpoint. After a power cut there is the old one or the new one.
    pub(super) fn write_checkpoint(&self, note: &str) -> Result<()> {
        self.write_durably(CHECKPOINT, note.as_bytes())
    }

    fn write_durably(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(name);
        let beside = path.with_extension("new");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(AuditError::file(&path))
    }

    pub(super) fn write_hashes(&self, tile: Tile, hashes: &[Hash]) -> Result<()> {
        let mut bytes = Vec::with_capacity(hashes.len() * Hash::BYTES);
        hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.0));
        self.write(TilePath::Hashes(tile), &bytes)
    }

    pub(super) fn write(&self, path: TilePath, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(path.to_string());
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let write = || std::fs::write(&beside, bytes);
        let written = match write() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(&self.0);
                std::fs::create_dir_all(parent).and_then(|()| write())
            }
            written => written,
        };
        written
            .and_then(|()| std::fs::rename(&beside, &path))
            .map_err(AuditError::file(path))
    }

    /// The same, and waits until it is on disk: for what cannot be made again.
    pub(super) fn write_synced(&self, path: TilePath, bytes: &[u8]) -> Result<()> {
        self.write(path, bytes)?;
        let path = self.0.join(path.to_string());
        let sync = || {
            File::open(&path)?.sync_data()?;
            let parent = path.parent().unwrap_or(&self.0);
            File::open(parent)?.sync_data()
        };
        sync().map_err(AuditError::file(&path))
    }

    /// Removes a partial tile that a wider one has replaced.
    pub(super) fn remove(&self, path: TilePath) {
        let path = self.0.join(path.to_string());
        // What is left over is no harm; the folder goes with its last file.
        let _ = std::fs::remove_file(&path);
        let _ = path.parent().map(std::fs::remove_dir);
    }

    /// A tile's bytes, as many as it has hashes, out of the file that has them; `None` if none has.
    pub fn read(&self, path: TilePath) -> Result<Option<Vec<u8>>> {
        let tile = path.tile();
        let bytes = tile.width() * unit_bytes(path);
        let full = path.with(Tile::full(tile.level(), tile.index()));
        for candidate in [path, full] {
            if let Some(found) = self.read_file(&self.0.join(candidate.to_string()), bytes)? {
                return Ok(Some(found));
            }
        }
        let partials = self.0.join(format!("{full}.p"));
        let Ok(files) = std::fs::read_dir(&partials) else {
            return Ok(None);
        };
        for file in files.flatten() {
            let name = file.file_name();
            let width = name.to_str().and_then(|name| name.parse::<usize>().ok());
            if width.is_some_and(|width| width > tile.width() && width < WIDTH)
                && let Some(found) = self.read_file(&file.path(), bytes)?
            {
                return Ok(Some(found));
            }
        }
        // It may have become full while we looked.
        self.read_file(&self.0.join(full.to_string()), bytes)
    }

    fn read_file(&self, path: &Path, bytes: usize) -> Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(mut found) if found.len() >= bytes => {
                found.truncate(bytes);
                Ok(Some(found))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(AuditError::file(path)(error)),
        }
    }

    /// The hashes of a tile.
    pub fn hashes(&self, tile: Tile) -> Result<Vec<Hash>> {
        let path = TilePath::Hashes(tile);
        let bytes = self.read(path)?.ok_or(AuditError::Missing(path))?;
        Ok(bytes.as_chunks().0.iter().copied().map(Hash).collect())
    }

    /// The entries beside a tile of level 0.
    pub(super) fn entries(&self, tile: Tile) -> Result<Vec<Entry>> {
        let path = TilePath::Entries(tile);
        let bytes = self.read(path)?.ok_or(AuditError::Missing(path))?;
        leaf::read_bundle(&bytes).ok_or(AuditError::Missing(path))
    }

    /// The subtrees of the log at a size.
    pub fn nodes(&self, size: u64) -> FolderNodes<'_> {
        FolderNodes {
            folder: self,
            size,
            tiles: HashMap::new(),
        }
    }

    /// Writes everything that is not on disk yet, tiles too.
    pub fn sync(&self) -> Result<()> {
        let sync = || {
            let folder = File::open(&self.0)?;
            rustix::fs::syncfs(&folder)?;
            Ok(())
        };
        sync().map_err(AuditError::file(&self.0))
    }
}

/// Bytes that stand for one leaf or subtree in a file.
const fn unit_bytes(path: TilePath) -> usize {
    match path {
        TilePath::Hashes(_) => Hash::BYTES,
        TilePath::Entries(_) => BUNDLED_BYTES,
    }
}

/// Tiles that are kept: 8 MB.
const TILES_MAX: usize = 1_024;

/// Subtrees out of tiles; each tile is read once, or once in a while.
#[derive(Debug)]
pub struct FolderNodes<'f> {
    folder: &'f Folder,
    size: u64,
    tiles: HashMap<(u8, u64), Vec<Hash>>,
}

impl Nodes for FolderNodes<'_> {
    type Error = AuditError;

    fn node(&mut self, height: u8, index: u64) -> Result<Hash> {
        let (tile, range) = Tile::of_node(height, index);
        let key = (tile.level(), tile.index());
        if !self.tiles.contains_key(&key) {
            if self.tiles.len() >= TILES_MAX {
                self.tiles.clear();
            }
            let there = Tile::in_tree(tile.level(), tile.index(), self.size).unwrap_or(tile);
            self.tiles.insert(key, self.folder.hashes(there)?);
        }
        let hashes = self.tiles.get(&key).and_then(|hashes| hashes.get(range));
        let missing = AuditError::Missing(TilePath::Hashes(tile));
        hashes.map(complete_root).ok_or(missing)
    }
}
