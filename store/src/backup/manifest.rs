//! What a backup says of itself: where its journal ends, and the length and hash of each of its files.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest;
use protocol::clock::UnixMillis;
use serde::{Deserialize, Serialize};

use super::BackupError;
use crate::tail::ChainPoint;

/// What this version writes and reads.
pub(super) const FORMAT: u32 = 2;
pub(super) const MANIFEST: &str = "manifest.json";
/// The manifest's hash, sealed by whoever holds the master key.
pub(super) const SEAL: &str = "manifest.seal";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path within the backup.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this form.
    pub format: u32,
    /// When it was made, Unix milliseconds.
    pub made_ms: u64,
    /// By which version of the engine.
    pub version: String,
    /// How often the data folder had been restored.
    pub epoch: u32,
    /// The last journal entry that is in it.
    pub last_entry: u64,
    /// The journal's chain value there, in hexadecimal.
    pub chain: String,
    /// When that entry was committed, Unix milliseconds.
    pub last_entry_ms: u64,
    /// Its files.
    pub files: Vec<FileRecord>,
}

impl Manifest {
    /// When it was made.
    pub const fn made_at(&self) -> UnixMillis {
        UnixMillis(self.made_ms)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether the journal ends here.
    pub(super) fn ends_at(&self, end: &ChainPoint) -> bool {
        self.last_entry == end.sequence && self.chain == hex(&end.chain)
    }

    /// Reads a manifest and checks that what it names lies within the backup.
    pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Self, BackupError> {
        let unreadable = |what: String| BackupError::Manifest(path.into(), what);
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(unreadable(format!(
                "format {}, and this version reads {FORMAT}",
                manifest.format
            )));
        }
        let plain = |file: &&FileRecord| {
            let mut parts = Path::new(&file.path).components();
            !file.path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        match manifest.files.iter().find(|file| !plain(file)) {
            Some(file) => Err(unreadable(format!("'{}' is not a path within it", file.path))),
            None => Ok(manifest),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Length and SHA-256 of a file.
pub(super) fn measure(path: &Path) -> Result<(u64, String), BackupError> {
    let failed = |source| BackupError::File(path.to_owned(), source);
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok((bytes, hex(hash.finish().as_ref())));
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// The record of a file that lies at `path` in `folder`.
pub(super) fn record(folder: &Path, path: &str) -> Result<FileRecord, BackupError> {
    let (bytes, sha256) = measure(&folder.join(path))?;
    Ok(FileRecord {
        path: path.to_owned(),
        bytes,
        sha256,
    })
}

/// Whether a file is as the manifest says.
pub(super) fn check(folder: &Path, file: &FileRecord) -> Result<(), BackupError> {
    let path: PathBuf = folder.join(&file.path);
    let (bytes, sha256) = measure(&path)?;
    if bytes == file.bytes && sha256 == file.sha256 {
        Ok(())
    } else {
        Err(BackupError::Changed(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str) -> Vec<u8> {
        let manifest = Manifest {
            format: FORMAT,
            made_ms: 5,
            version: "1".into(),
            epoch: 0,
            last_entry: 9,
            chain: hex(&[7; 32]),
            last_entry_ms: 4,
            files: vec![FileRecord {
                path: path.into(),
                bytes: 1,
                sha256: String::new(),
            }],
        };
        serde_json::to_vec(&manifest).unwrap()
    }

    #[test]
    fn a_manifest_names_nothing_outside_its_folder() {
        let read = |path: &str| Manifest::read(&manifest(path), Path::new("m"));
        assert!(read("index/1-2.run").is_ok());
        for path in ["../x", "/etc/passwd", "a/../../x", "", "./x"] {
            assert!(matches!(read(path), Err(BackupError::Manifest(..))), "{path}");
        }
        assert!(Manifest::read(b"{}", Path::new("m")).is_err());
    }

    #[test]
    fn a_file_is_known_by_its_length_and_hash() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"one").unwrap();
        let known = record(folder.path(), "a").unwrap();
        assert!(check(folder.path(), &known).is_ok());
        for other in [&b"two"[..], b"ones", b""] {
            std::fs::write(folder.path().join("a"), other).unwrap();
            assert!(matches!(
                check(folder.path(), &known),
                Err(BackupError::Changed(_))
            ));
        }
    }
}
