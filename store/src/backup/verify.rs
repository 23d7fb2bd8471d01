//! Whether a backup can be restored: its seal, its files, its database, the chain of its journal and of its archives.

use std::path::{Path, PathBuf};

use protocol::clock::UnixMillis;
use protocol::error_code::Refusal;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::manifest::{self, Manifest};
use super::{BackupError, Result};
use crate::archive;
use crate::open::DATABASE;
use crate::statement;
use crate::tail::ChainPoint;
use crate::{journal, registry, sqlite};

/// How closely a backup is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Seal, lengths and hashes of all files, where the journal ends.
    Files,
    /// Besides: the database's own check, every link of the chain, every archive, and the books.
    Everything,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// What the backup says of itself.
    #[serde(skip)]
    pub manifest: Manifest,
    /// The last journal entry that is in it.
    pub last_entry: u64,
    /// How often the data folder had been restored.
    pub epoch: u32,
    /// Its files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Archives among them.
    pub archives: usize,
    /// Signatures in the journal; 0 where only the files were looked at.
    pub signatures: u64,
}

/// Opens the seal: the sealed manifest must be this one.
pub(super) type OpenSeal<'a> = &'a dyn Fn(&[u8], &[u8]) -> std::result::Result<(), Refusal>;

/// Checks a backup and changes nothing.
pub fn verify(
    from: &Path,
    depth: Depth,
    open_seal: &dyn Fn(&[u8], &[u8]) -> std::result::Result<(), Refusal>,
) -> Result<Verified> {
    let manifest = read_sealed(from, open_seal)?;
    for file in &manifest.files {
        manifest::check(from, file)?;
    }
    let db = open_frozen(&from.join(DATABASE))?;
    let end = journal::end(&db)?;
    if !manifest.ends_at(&end) {
        let text = format!(
            "its journal ends at entry {}, and the manifest says {}",
            end.sequence, manifest.last_entry
        );
        return Err(BackupError::Contradiction(text));
    }
    let archives = archive::list(&db)?;
    let signatures = match depth {
        Depth::Files => 0,
        Depth::Everything => look_at_everything(from, &db, manifest.made_at())?,
    };
    Ok(Verified {
        last_entry: manifest.last_entry,
        epoch: manifest.epoch,
        files: manifest.files.len(),
        bytes: manifest.bytes(),
        archives: archives.len(),
        signatures,
        manifest,
    })
}

/// The manifest, if its seal opens.
pub(super) fn read_sealed(from: &Path, open_seal: OpenSeal<'_>) -> Result<Manifest> {
    let read = |name: &str| {
        let path: PathBuf = from.join(name);
        std::fs::read(&path).map_err(BackupError::file(path))
    };
    let (text, seal) = (read(manifest::MANIFEST)?, read(manifest::SEAL)?);
    open_seal(&text, &seal).map_err(|_| BackupError::Seal)?;
    Manifest::read(&text, &from.join(manifest::MANIFEST))
}

/// Opens a database that nobody changes, and leaves nothing beside it.
fn open_frozen(path: &Path) -> Result<Connection> {
    let uri = format!("file:{}?immutable=1", path.display());
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(uri, flags)?;
    sqlite::check_readable(&db)?;
    Ok(db)
}

/// Everything that a start would only stumble over later. Returns the signatures in the journal.
fn look_at_everything(from: &Path, db: &Connection, now: UnixMillis) -> Result<u64> {
    let said: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if said != "ok" {
        return Err(BackupError::Contradiction(format!("database: {said}")));
    }
    journal::check_chain(db, u32::MAX, &ChainPoint::default())?;
    archive::verify_all(db, from)?;
    registry::load(db, now)?;
    let found = statement::reconcile(db, &statement::months(db)?)?;
    match found.differences.first() {
        None => Ok(found.signatures),
        Some(first) => Err(BackupError::Contradiction(format!(
            "{}: {}: {} and {}",
            first.between, first.subject, first.first, first.second
        ))),
    }
}
