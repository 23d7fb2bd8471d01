//! Files in and out, with errors that say which file, which line and why.

use std::path::{Path, PathBuf};

use protocol::error_code::{Code, Refusal};
use serde::de::DeserializeOwned;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// It cannot be written.
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    /// What is in it is not what it should be.
    #[error("{path}: {message}")]
    Content { path: PathBuf, message: String },
    /// One line of it is wrong.
    #[error("{path} line {line}: {message}")]
    Line {
        path: PathBuf,
        line: usize,
        message: String,
    },
}

impl From<protocol::latency::LogError> for FileError {
    fn from(error: protocol::latency::LogError) -> Self {
        Self::Write {
            path: error.path,
            source: error.source,
        }
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        let code = match error {
            FileError::Read { .. } | FileError::Write { .. } => Code::File,
            FileError::Content { .. } | FileError::Line { .. } => Code::Usage,
        };
        Self::new(code, error.to_string())
    }
}

pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), FileError> {
    std::fs::write(path, content).map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    toml::from_str(&read(path)?).map_err(|error: toml::de::Error| FileError::Content {
        path: path.to_owned(),
        message: error.message().to_owned(),
    })
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    serde_json::from_str(&read(path)?).map_err(|error| FileError::Content {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// A failure of the tool's own.
pub(crate) fn failed(what: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::File, format!("{what}: {error}"))
}
