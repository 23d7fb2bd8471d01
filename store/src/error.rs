//! Why the store cannot do what was asked.

use std::path::PathBuf;

use protocol::error_code::{Code, Refusal};

/// A failure of the store. [`StoreError::is_full`] is the only one that work goes on after.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the data folder {0} is in use by another process")]
    Locked(PathBuf),
    /// Entries that were committed are missing.
    #[error(
        "the journal ends at entry {journal}, but entry {tail} was committed: entries are missing. \
         `cinnabar recover --accept-loss` opens it without them"
    )]
    EntriesLost {
        /// Last entry in the journal.
        journal: u64,
        /// Last entry that the separately kept tail knows of.
        tail: u64,
    },
    /// The journal contradicts itself.
    #[error("the journal is corrupt at entry {sequence}: {what}")]
    Corrupt {
        /// Where it was noticed.
        sequence: u64,
        /// What was wrong.
        what: &'static str,
    },
    /// Written by a version that we do not know.
    #[error("the store has format {found}, and this version reads format {known}")]
    Format {
        /// Format on disk.
        found: i64,
        /// Format of this version.
        known: i64,
    },
    /// The bundled SQLite is too old to be safe (the WAL-reset bug fixed in 3.51.3).
    #[error("SQLite {0} is too old; 3.51.3 or later is needed")]
    SqliteVersion(&'static str),
    /// The database said no.
    #[error("database: {0}")]
    Sql(#[from] rusqlite::Error),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The committing thread has ended; nothing can be written any more.
    #[error("the store has stopped")]
    Stopped,
    /// An operator's change that cannot be made.
    #[error("{0}")]
    Refused(Refusal),
}

impl StoreError {
    /// Whether the disk, or the space we were given on it, is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Sql(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// The code and sentence a caller hears.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            _ if self.is_full() => Refusal::new(Code::StorageFull, "the disk is full; reading goes on"),
            Self::Stopped => Refusal::new(Code::ShuttingDown, "the store has stopped"),
            Self::EntriesLost { .. } | Self::Corrupt { .. } | Self::Format { .. } => {
                Refusal::new(Code::DataCorrupt, self.to_string())
            }
            Self::Sql(error) if contradicts_itself(error) => {
                Refusal::new(Code::DataCorrupt, self.to_string())
            }
            Self::Locked(_) => Refusal::new(Code::Usage, self.to_string()),
            _ => Refusal::new(Code::Internal, self.to_string()),
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// Whether the database file is damaged, or none at all.
fn contradicts_itself(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// The store's result.
pub type Result<T> = std::result::Result<T, StoreError>;
