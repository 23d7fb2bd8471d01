//! Checkpoints (c2sp.org/tlog-checkpoint): the text that says how large a log is and what its root is. We write no
//! extension lines, and read past those of others.

use super::note::{Note, NoteError, VerifierKey};
use super::tree::Hash;

/// Why a checkpoint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not a checkpoint.
    #[error("the note is not a checkpoint (c2sp.org/tlog-checkpoint)")]
    Malformed,
    /// Of another log than its key's.
    #[error("the checkpoint is of another log than the key")]
    Origin,
}

/// A log at a certain size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty());
        let (Some(origin), Some(size), Some(root)) = (next(), next(), next()) else {
            return Err(CheckpointError::Malformed);
        };
        let size = size.parse::<u64>().ok().filter(|n| n.to_string() == size);
        match (size, Hash::from_base64(root)) {
            (Some(size), Some(root)) => Ok(Self {
                origin: origin.into(),
                size,
                root,
            }),
            _ => Err(CheckpointError::Malformed),
        }
    }

    /// Reads a note that the log itself has signed: its key is named as the log is.
    pub fn verify(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(Note::parse(note)?.verify(key)?)?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin);
        }
        Ok(checkpoint)
    }
}
