//! Backups, made beside a running engine: one snapshot of the database, the run files of the key index, the archives,
//! and a [`Manifest`] over all of them. What is secret is in it as it lies in the data folder, wrapped; the master key is
//! not. `docs/backup.md` says how to keep and restore them.

mod manifest;
mod restore;
mod verify;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::archive;
use crate::error::StoreError;
use crate::open::DATABASE;
use crate::{epoch, journal, sqlite};

pub use manifest::Manifest;
pub use restore::{ENTRIES_SKIPPED, RestoreReport, RestoreRequest, restore};
pub use verify::{Depth, Verified, verify};

/// Where the run files are, in the data folder and in a backup.
const INDEX: &str = "index";
/// A run may be merged away while it is copied; so often the list is read again.
const TRIES: usize = 10;

/// Why a backup cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something already.
    #[error("{0} exists and is not empty")]
    NotEmpty(PathBuf),
    /// An earlier backup has not ended.
    #[error("{0} is left of a backup that did not end; remove it")]
    Unfinished(PathBuf),
    /// The manifest is missing, damaged, or of another version.
    #[error("{0}: {1}")]
    Manifest(PathBuf, String),
    /// A file is not as it was when the backup was made.
    #[error("{0} is not as the manifest says")]
    Changed(PathBuf),
    /// What is in it contradicts the manifest or itself.
    #[error("the backup contradicts itself: {0}")]
    Contradiction(String),
    /// The manifest was not sealed with this master key, or was changed since.
    #[error("the manifest was not sealed with this master key, or was changed since")]
    Seal,
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl BackupError {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File(path, source)
    }

    /// The code and sentence an operator hears.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::NotEmpty(_) | Self::Unfinished(_) => Code::AlreadyExists,
            Self::File(..) => Code::File,
            Self::Manifest(..) | Self::Changed(_) | Self::Contradiction(_) => Code::DataCorrupt,
            Self::Seal => Code::Usage,
            Self::Store(error) => return error.refusal(),
        };
        Refusal::new(code, self.to_string())
    }
}

type Result<T> = std::result::Result<T, BackupError>;

/// Seals bytes with the master key.
pub type SealManifest<'a> = dyn Fn(&[u8]) -> std::result::Result<Vec<u8>, Refusal> + 'a;
/// Whether bytes and their seal belong together under the master key.
pub type OpenSeal<'a> = dyn Fn(&[u8], &[u8]) -> std::result::Result<(), Refusal> + 'a;

/// What a backup is made of and for.
pub struct BackupRequest<'a> {
    /// The data folder.
    pub home: &'a Path,
    /// A folder that does not exist yet, or is empty.
    pub to: &'a Path,
    /// The engine's version.
    pub version: &'a str,
    /// Now.
    pub now: UnixMillis,
    /// Seals the manifest's bytes with the master key.
    pub seal: &'a SealManifest<'a>,
}

/// Makes a backup. It has its name only when it is complete and on the disk.
pub fn backup(request: &BackupRequest<'_>) -> Result<Manifest> {
    check_new(request.to)?;
    let part = beside(request.to, "partial");
    std::fs::create_dir(&part).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => BackupError::Unfinished(part.clone()),
        _ => BackupError::File(part.clone(), error),
    })?;
    let made = fill(request, &part).and_then(|manifest| {
        std::fs::rename(&part, request.to).map_err(BackupError::file(request.to))?;
        sync(folder_of(request.to))?;
        Ok(manifest)
    });
    if made.is_err() {
        // What is left of it is named as unfinished the next time, should even this fail.
        let _ = std::fs::remove_dir_all(&part);
    }
    made
}

fn check_new(folder: &Path) -> Result<()> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(BackupError::NotEmpty(folder.into())),
            None => Ok(()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::File(folder.into(), error)),
    }
}

/// The folder that something is in; the current one, where its path names none.
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// A name beside another one.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or(OsStr::new("backup")).to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// Run files before the database, so that none knows more than the journal beside it; archives after it, because the
/// database names those that it has given its entries to.
fn fill(request: &BackupRequest<'_>, part: &Path) -> Result<Manifest> {
    let mut files = copy_runs(&request.home.join(INDEX), &part.join(INDEX))?;
    let copy = snapshot(&request.home.join(DATABASE), &part.join(DATABASE))?;
    files.push(DATABASE.to_owned());
    let archives = archive::list(&copy)?;
    let (end, end_at) = journal::end_and_time(&copy)?;
    let epoch = epoch::read(&copy)?;
    copy.close().map_err(|(_, error)| error)?;
    if !archives.is_empty() {
        make_folder(&part.join(archive::FOLDER))?;
    }
    for archived in &archives {
        let path = archived.path();
        copy_file(&request.home.join(&path), &part.join(&path))?;
        files.push(path);
    }
    let mut manifest = Manifest {
        format: manifest::FORMAT,
        made_ms: request.now.0,
        version: request.version.to_owned(),
        epoch: epoch.0,
        last_entry: end.sequence,
        chain: manifest::hex(&end.chain),
        last_entry_ms: end_at.0,
        files: Vec::with_capacity(files.len()),
    };
    for path in files {
        sync(&part.join(&path))?;
        manifest.files.push(manifest::record(part, &path)?);
    }
    write_manifest(request, part, &manifest)?;
    Ok(manifest)
}

fn write_manifest(request: &BackupRequest<'_>, part: &Path, manifest: &Manifest) -> Result<()> {
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| BackupError::Manifest(part.into(), error.to_string()))?;
    let seal = (request.seal)(&text).map_err(StoreError::Refused)?;
    for (name, bytes) in [(manifest::MANIFEST, &text), (manifest::SEAL, &seal)] {
        let path = part.join(name);
        std::fs::write(&path, bytes).map_err(BackupError::file(&path))?;
        sync(&path)?;
    }
    for folder in [INDEX, archive::FOLDER] {
        let folder = part.join(folder);
        if folder.is_dir() {
            sync(&folder)?;
        }
    }
    sync(part)
}

/// Makes what was written to a file or a folder durable.
fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(BackupError::file(path))?;
    file.sync_all().map_err(BackupError::file(path))
}

fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir(path).map_err(BackupError::file(path))
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(drop).map_err(BackupError::file(from))
}

/// Copies the run files; they never change, but may be merged into another one meanwhile.
fn copy_runs(from: &Path, to: &Path) -> Result<Vec<String>> {
    make_folder(to)?;
    for _ in 1..TRIES {
        match try_copy_runs(from, to) {
            Err(BackupError::File(path, error)) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::debug!(path = %path.display(), "merged away while it was copied");
            }
            other => return other,
        }
    }
    try_copy_runs(from, to)
}

fn try_copy_runs(from: &Path, to: &Path) -> Result<Vec<String>> {
    let mut copied = Vec::new();
    for entry in std::fs::read_dir(from).map_err(BackupError::file(from))? {
        let path = entry.map_err(BackupError::file(from))?.path();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            continue;
        };
        if name.ends_with(".run") {
            copy_file(&path, &to.join(name))?;
            copied.push(format!("{INDEX}/{name}"));
        }
    }
    copied.sort();
    Ok(copied)
}

/// Copies the database as it is at one moment. All pages in one step: one reading transaction, which does not hold up
/// the writer and which no commit makes begin anew.
fn snapshot(from: &Path, to: &Path) -> Result<Connection> {
    let source = sqlite::open_reader(from)?;
    sqlite::check_readable(&source)?;
    let mut target = Connection::open(to)?;
    // The file is synced as a whole when it is complete.
    target.pragma_update(None, "synchronous", "OFF")?;
    let step = Backup::new(&source, &mut target)?.step(-1)?;
    if step != StepResult::Done {
        let busy = Refusal::new(Code::Overloaded, "the database is busy; try again");
        return Err(StoreError::Refused(busy).into());
    }
    // A single file without a WAL beside it; opening it as a store turns WAL on again.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    Ok(target)
}
