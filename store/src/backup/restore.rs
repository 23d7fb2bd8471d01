//! A restore makes a data folder of a backup and opens a new epoch in it: what the lost folder has done after the backup
//! is not known here, so none of its numbers is used again (SEMANTICS 1.7).

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use protocol::clock::UnixMillis;
use protocol::error_code::Refusal;
use rusqlite::Connection;
use serde::Serialize;

use super::verify::{Depth, Verified, verify};
use super::{BackupError, INDEX, Result, copy_file, make_folder, sync};
use crate::archive;
use crate::certificates;
use crate::epoch::{self, DataEpoch};
use crate::error::StoreError;
use crate::journal::{self, Batch};
use crate::lock::FolderLock;
use crate::open::DATABASE;
use crate::record::Record;
use crate::tail::{ChainPoint, Tail};

/// Its name until the new epoch is written in it.
const UNOPENED: &str = "cinnabar.db.restoring";

/// Numbers of entries that are left out unless more are wanted: each is a leaf of the audit log that stands for nothing.
pub const ENTRIES_SKIPPED: u64 = 1 << 20;

/// What may lie in a folder that is restored into: the key that its data will need, and our own lock.
const ALLOWED: [&str; 2] = ["master.key", "lock"];

/// What is to be restored, and where.
pub struct RestoreRequest<'a> {
    /// The backup.
    pub from: &'a Path,
    /// The new data folder: missing, or empty but for the master key.
    pub home: &'a Path,
    /// The `tail` file of the lost folder, if it is left: it knows where the lost journal ended.
    pub tail: Option<&'a Path>,
    /// Numbers of entries that are left out, beyond where the lost journal is known to have ended.
    pub skip: u64,
    /// Who restores.
    pub actor: &'a str,
    /// Now.
    pub now: UnixMillis,
    /// Opens the manifest's seal with the master key.
    pub open_seal: &'a dyn Fn(&[u8], &[u8]) -> std::result::Result<(), Refusal>,
}

/// What a restore found and did.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// The epoch that begins.
    pub epoch: u32,
    /// The last entry of the backup.
    pub last_entry: u64,
    /// When that was committed, Unix milliseconds.
    pub last_entry_ms: u64,
    /// The first entry of the new epoch. Numbers between the two are never used again.
    pub first_entry: u64,
    /// Where the lost journal ended, if its tail is known.
    pub lost_journal_ended: Option<u64>,
    /// Entries that are lost for certain: from the backup's end to there.
    pub lost_entries: Option<u64>,
    /// Time-stamping authorities, and the first serial number that each uses from now on.
    pub first_serials: Vec<(String, u64)>,
    /// Issuers, and the number of the revocation list that each publishes next.
    pub next_lists: Vec<(String, u64)>,
}

/// Restores a backup into a new data folder.
///
/// The tail is written first and the database gets its name last: a folder whose restore did not end has a tail and no
/// journal, and an engine refuses to serve from it.
pub fn restore(request: &RestoreRequest<'_>) -> Result<RestoreReport> {
    let home = request.home;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)
        .map_err(BackupError::file(home))?;
    check_empty(home)?;
    let _lock = FolderLock::take(home)?;
    let verified = verify(request.from, Depth::Files, request.open_seal)?;
    let known = request.tail.map(read_tail).transpose()?;
    let (mut tail, _) = Tail::open(&home.join("tail"))?;
    tail.note(known.unwrap_or_default().max_of(&verified))?;
    sync(&home.join("tail"))?;
    copy_all(request.from, home, &verified)?;
    let database = home.join(UNOPENED);
    let (report, end) = open_epoch(&database, request, known)?;
    sync(&database)?;
    let name = home.join(DATABASE);
    std::fs::rename(&database, &name).map_err(BackupError::file(name))?;
    // Both slots: what the lost folder knew is not on this chain.
    for _ in 0..2 {
        tail.note(end)?;
    }
    sync(&home.join("tail"))?;
    sync(home)?;
    Ok(report)
}

impl ChainPoint {
    /// A tail that no journal without the backup reaches.
    fn max_of(self, verified: &Verified) -> Self {
        Self {
            sequence: self.sequence.max(verified.last_entry),
            ..self
        }
    }
}

fn check_empty(home: &Path) -> Result<()> {
    for entry in std::fs::read_dir(home).map_err(BackupError::file(home))? {
        let name = entry.map_err(BackupError::file(home))?.file_name();
        if !ALLOWED.iter().any(|allowed| *allowed == name) {
            return Err(BackupError::NotEmpty(home.into()));
        }
    }
    Ok(())
}

fn read_tail(path: &Path) -> Result<ChainPoint> {
    if !path.is_file() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(BackupError::File(path.into(), missing));
    }
    Ok(Tail::open(path)?.1)
}

fn copy_all(from: &Path, home: &Path, verified: &Verified) -> Result<()> {
    make_folder(&home.join(INDEX))?;
    make_folder(&home.join(archive::FOLDER))?;
    for file in &verified.manifest.files {
        let name = if file.path == DATABASE {
            UNOPENED
        } else {
            &file.path
        };
        let to = home.join(name);
        copy_file(&from.join(&file.path), &to)?;
        sync(&to)?;
    }
    sync(&home.join(INDEX))?;
    sync(&home.join(archive::FOLDER))
}

/// Writes the new epoch into the copy, in one transaction.
fn open_epoch(
    database: &Path,
    request: &RestoreRequest<'_>,
    known: Option<ChainPoint>,
) -> Result<(RestoreReport, ChainPoint)> {
    let mut db = Connection::open(database)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let (end, end_at) = journal::end_and_time(&db)?;
    let known = known.filter(|known| known.sequence > end.sequence);
    let epoch = epoch::read(&db)?.next();
    let lost_upto = known.map_or(end.sequence, |known| known.sequence);
    let first = lost_upto + 1 + request.skip;
    let change = db.transaction()?;
    epoch::write(&change, epoch)?;
    let first_serials = certificates::skip_serials(&change, epoch, request.now)?;
    let next_lists = certificates::next_lists(&change, epoch)?;
    let report = RestoreReport {
        epoch: epoch.0,
        last_entry: end.sequence,
        last_entry_ms: end_at.0,
        first_entry: first,
        lost_journal_ended: known.map(|known| known.sequence),
        lost_entries: known.map(|known| known.sequence - end.sequence),
        first_serials,
        next_lists,
    };
    let batch = entries(request, &report, epoch);
    let point = batch.chain_point(&end);
    batch.insert(&change, request.now, &point.chain)?;
    change.commit()?;
    db.close().map_err(|(_, error)| StoreError::from(error))?;
    Ok((report, point))
}

/// What the journal says of it: who restored what, and which numbers are lost.
fn entries(request: &RestoreRequest<'_>, report: &RestoreReport, epoch: DataEpoch) -> Batch {
    let mut batch = Batch::starting_at(report.first_entry);
    let lost = report
        .lost_journal_ended
        .map_or_else(|| "unknown".to_owned(), |last| last.to_string());
    batch.push(&Record::Change {
        actor: request.actor.into(),
        action: "store.restore".into(),
        subject: format!(
            "epoch={} last={} lost_journal_ended={lost}",
            epoch.0, report.last_entry
        )
        .into(),
    });
    batch.push(&Record::LossAccepted {
        first: report.last_entry + 1,
        last: report.first_entry - 1,
    });
    batch
}
