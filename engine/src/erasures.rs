//! The list of erased subjects, kept outside of the data folder: a backup that was made before an erasure still holds the
//! subject, and whoever restores it erases again what is on the list. Names and numbers are not in it, only ids.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use actors::bill::moment;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{SubjectId, TenantName};
use serde::{Deserialize, Serialize};
use store::Reader;

/// An erasure: a line of JSON.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erasure {
    pub(crate) tenant: TenantName,
    pub(crate) subject: SubjectId,
    /// When.
    pub(crate) at: String,
}

impl Erasure {
    fn new((tenant, subject, at): (TenantName, SubjectId, UnixMillis)) -> Self {
        Self {
            tenant,
            subject,
            at: moment(at),
        }
    }
}

/// Where the list is, and how much of it is written.
#[derive(Debug)]
pub(crate) struct ErasureList {
    path: PathBuf,
    written: Option<usize>,
}

impl ErasureList {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// Writes the list anew if it has grown: what has been erased stays so.
    pub(crate) fn keep(&mut self, reader: &Reader) -> Result<(), Refusal> {
        let erased = reader.erased_subjects().map_err(|error| error.refusal())?;
        if self.written == Some(erased.len()) {
            return Ok(());
        }
        let count = erased.len();
        let mut text = String::new();
        for one in erased {
            let line = serde_json::to_string(&Erasure::new(one));
            text += &line.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
            text.push('\n');
        }
        write(&self.path, text.as_bytes()).map_err(|error| failed(&self.path, &error))?;
        self.written = Some(count);
        Ok(())
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(Code::File, format!("{}: {error}", path.display()))
}

/// The old list or the new one, never half of one.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Reads a list.
pub(crate) fn read(path: &Path) -> Result<Vec<Erasure>, Refusal> {
    let text = std::fs::read_to_string(path).map_err(|error| failed(path, &error))?;
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let text = format!("{}: line {}: {error}", path.display(), number + 1);
            Refusal::new(Code::File, text)
        })
    };
    text.lines().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_a_line_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erasures");
        let one = Erasure::new((
            TenantName::new("acme").unwrap(),
            SubjectId::new("e-1").unwrap(),
            UnixMillis(1_800_000_000_000),
        ));
        let line = serde_json::to_string(&one).unwrap();
        write(&path, format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(read(&path).unwrap(), [one]);
        write(&path, format!("{line}\nnonsense\n").as_bytes()).unwrap();
        assert!(read(&path).unwrap_err().message.contains("line 2"));
    }
}
