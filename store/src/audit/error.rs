//! Why the audit log cannot go on, or does not verify.

use std::path::PathBuf;

use protocol::error_code::{Code, Refusal};

use super::checkpoint::CheckpointError;
use super::note::NoteError;
use super::proof::ProofTextError;
use super::tile::TilePath;
use crate::error::StoreError;

/// A failure of the audit log. [`AuditError::is_for_good`] says which ones trying again does not cure.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] StoreError),
    /// There is no randomness for salts.
    #[error("the system has no randomness for salts")]
    Randomness,
    /// The checkpoint.
    #[error("the checkpoint: {0}")]
    Checkpoint(CheckpointError),
    /// What a witness has signed.
    #[error("the cosignature of {0}: {1}")]
    Cosignature(String, NoteError),
    /// There is none.
    #[error("{0} holds no checkpoint")]
    NoCheckpoint(PathBuf),
    /// A proof.
    #[error(transparent)]
    Proof(#[from] ProofTextError),
    /// A tile is missing or cut short.
    #[error("{0} is missing or cut short")]
    Missing(TilePath),
    /// A tile holds something else than what lies below it.
    #[error("{0} does not follow from what lies below it")]
    Tile(TilePath),
    /// The tiles have another root than the checkpoint says.
    #[error("the tiles of {size} leaves have another root than the checkpoint")]
    Root {
        /// Leaves.
        size: u64,
    },
    /// The tree that was signed does not follow from the journal: nothing will be signed that contradicts it.
    #[error("the log that was signed at {size} leaves does not follow from the journal any more")]
    Contradiction {
        /// Leaves.
        size: u64,
    },
    /// The log does not begin with the older one.
    #[error("the log of {size} leaves does not begin with the checkpoint of {old} leaves")]
    Inconsistent {
        /// Leaves of the older checkpoint.
        old: u64,
        /// Leaves now.
        size: u64,
    },
    /// A journal entry is not what was logged.
    #[error("journal entry {0} is not what was logged")]
    Entry(u64),
    /// A journal entry that was logged is missing.
    #[error("journal entry {0} was logged and is missing")]
    EntryMissing(u64),
    /// Not in the log.
    #[error("journal entry {0} is not in the log")]
    NotLogged(u64),
}

impl AuditError {
    /// Whether only an operator can help.
    pub const fn is_for_good(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(_) | Self::Contradiction { .. } | Self::Entry(_) | Self::EntryMissing(_)
        )
    }

    /// The code and sentence a caller hears.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Journal(error) => return error.refusal(),
            Self::File { .. } | Self::NoCheckpoint(_) => Code::File,
            Self::Randomness => Code::Internal,
            Self::Checkpoint(_) | Self::Cosignature(..) | Self::Proof(_) => Code::SignatureInvalid,
            Self::NotLogged(_) => Code::NotFound,
            _ => Code::DataCorrupt,
        };
        Refusal::new(code, self.to_string())
    }

    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// The audit log's result.
pub(super) type Result<T> = std::result::Result<T, AuditError>;
