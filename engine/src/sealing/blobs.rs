//! The files of jobs: documents that were put in and those that came out, each encrypted under its own key
//! (`actors/src/document_vault.rs`). `HOME/documents/<operation>/<number>-<key>.in` and `.out`; a file has its name only when it
//! is whole and on the disk.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use actors::document_vault::{CHUNK_BYTES, Chunks, DocumentKey, HEADER_BYTES, TAG_BYTES};
use aws_lc_rs::digest;
use protocol::error_code::{Code, Refusal};
use store::ItemName;

/// The folder's name in the data folder.
const FOLDER: &str = "documents";

/// Which of a document's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// As it was put in.
    In,
    /// Sealed.
    Out,
}

/// A document's files. What is put in again has other files, so that a crash leaves whole ones in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobName {
    of: ItemName,
    tag: u64,
}

impl BlobName {
    /// The files that are encrypted under this key, in its wrapped form.
    pub(crate) fn new(of: ItemName, data_key: &[u8]) -> Self {
        let digest = store::sha256(data_key);
        let head = std::array::from_fn(|at| digest[at]);
        let tag = u64::from_be_bytes(head);
        Self { of, tag }
    }
}

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Blobs(PathBuf);

/// An operation's name in its URL and on the disk.
pub(crate) fn operation_name(operation: i64) -> String {
    format!("{operation:016x}")
}

/// The operation of a name; a name that cannot be anybody's is like one of nobody.
pub(crate) fn operation_of(name: &str) -> Option<i64> {
    let is_name = name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_name.then(|| i64::from_str_radix(name, 16).ok()).flatten()
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Refusal + '_ {
    move |error| {
        tracing::error!(path = %path.display(), %error, "a document's file");
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                let text = "the disk is full; recorded signatures can still be read";
                Refusal::new(Code::StorageFull, text).retry_after_ms(5_000)
            }
            std::io::ErrorKind::NotFound => Refusal::new(Code::NotFound, "the document is not kept any more"),
            _ => Refusal::new(Code::Internal, "a document's file cannot be read or written"),
        }
    }
}

impl Blobs {
    pub(crate) fn of(home: &Path) -> Self {
        Self(home.join(FOLDER))
    }

    fn folder(&self, operation: i64) -> PathBuf {
        self.0.join(operation_name(operation))
    }

    fn path(&self, name: BlobName, side: Side) -> PathBuf {
        let ending = match side {
            Side::In => "in",
            Side::Out => "out",
        };
        let file = format!("{}-{:016x}.{ending}", name.of.item, name.tag);
        self.folder(name.of.operation).join(file)
    }

    /// Begins a file.
    pub(crate) fn create(
        &self,
        name: BlobName,
        side: Side,
        key: &DocumentKey,
    ) -> Result<BlobWriter, Refusal> {
        let path = self.path(name, side);
        let folder = self.folder(name.of.operation);
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        made.map_err(failed(&folder))?;
        let partial = path.with_extension("part");
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial);
        let mut file = opened.map_err(failed(&partial))?;
        let (header, chunks) = key.begin().map_err(actors::vault::VaultError::refusal)?;
        file.write_all(&header).map_err(failed(&partial))?;
        Ok(BlobWriter {
            file,
            partial: Partial(Some(partial)),
            path,
            chunks,
            chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES),
            bytes: 0,
            hash: digest::Context::new(&digest::SHA256),
        })
    }

    /// Opens a file to be read from its beginning.
    pub(crate) fn open(&self, name: BlobName, side: Side, key: &DocumentKey) -> Result<BlobReader, Refusal> {
        let path = self.path(name, side);
        let mut file = File::open(&path).map_err(failed(&path))?;
        let length = file.metadata().map_err(failed(&path))?.len();
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).map_err(failed(&path))?;
        Ok(BlobReader {
            left: length.saturating_sub(HEADER_BYTES as u64),
            chunks: key.chunks(&header).map_err(actors::vault::VaultError::refusal)?,
            file,
            path,
            ended: false,
        })
    }

    /// A whole document as it was put in; `spare` bytes are kept free behind it.
    pub(crate) fn read(&self, name: BlobName, key: &DocumentKey, spare: usize) -> Result<Vec<u8>, Refusal> {
        let mut reader = self.open(name, Side::In, key)?;
        let mut whole = Vec::with_capacity(usize::try_from(reader.left).unwrap_or(0) + spare);
        while let Some(chunk) = reader.next()? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// Removes everything of an operation.
    pub(crate) fn remove(&self, operation: i64) -> Result<(), Refusal> {
        let folder = self.folder(operation);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&folder)(error)),
            _ => Ok(()),
        }
    }

    /// The operations that have files.
    pub(crate) fn operations(&self) -> Vec<i64> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| operation_of(entry.file_name().to_str()?));
        named.collect()
    }
}

/// A file that is not whole; removed unless it becomes so.
struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // What is left of it goes with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file being written.
pub(crate) struct BlobWriter {
    file: File,
    partial: Partial,
    path: PathBuf,
    chunks: Chunks,
    chunk: Vec<u8>,
    bytes: u64,
    hash: digest::Context,
}

impl BlobWriter {
    /// Adds bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        while !bytes.is_empty() {
            // The last chunk is known only in the end, so a full one waits for what follows it.
            if self.chunk.len() == CHUNK_BYTES {
                self.put(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn put(&mut self, is_last: bool) -> Result<(), Refusal> {
        let sealed = self.chunks.seal(&mut self.chunk, is_last);
        sealed.map_err(actors::vault::VaultError::refusal)?;
        self.file.write_all(&self.chunk).map_err(failed(&self.path))?;
        self.chunk.clear();
        Ok(())
    }

    /// Makes the file durable under its name; says how many bytes were put in, and their SHA-256.
    pub(crate) fn finish(mut self) -> Result<(u64, [u8; 32]), Refusal> {
        self.put(true)?;
        self.file.sync_all().map_err(failed(&self.path))?;
        if let Some(partial) = &self.partial.0 {
            std::fs::rename(partial, &self.path).map_err(failed(&self.path))?;
        }
        self.partial.0 = None;
        if let Some(folder) = self.path.parent() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(failed(folder))?;
        }
        let hash = self.hash.finish();
        Ok((self.bytes, std::array::from_fn(|at| hash.as_ref()[at])))
    }
}

/// A file being read.
pub(crate) struct BlobReader {
    file: File,
    path: PathBuf,
    chunks: Chunks,
    left: u64,
    ended: bool,
}

impl BlobReader {
    /// The next chunk; `None` behind the last one. A file that was changed or cut short is an error.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        if self.ended {
            return Ok(None);
        }
        let whole = (CHUNK_BYTES + TAG_BYTES) as u64;
        let take = self.left.min(whole);
        let mut chunk = vec![0; take as usize];
        self.file.read_exact(&mut chunk).map_err(failed(&self.path))?;
        self.left -= take;
        self.ended = self.left == 0;
        self.chunks.open(&mut chunk, self.ended).map_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "a document's file");
            Refusal::new(Code::DataCorrupt, "a document's file is not as it was written")
        })?;
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actors::vault::Vault;
    use protocol::ids::TenantName;

    const OF: ItemName = ItemName {
        operation: 0x0123_4567_89ab_cdef,
        item: 7,
    };

    fn name() -> BlobName {
        BlobName::new(OF, b"wrapped")
    }

    fn key() -> DocumentKey {
        let vault = Vault::new(&[1; 32]).unwrap();
        let name = TenantName::new("acme").unwrap();
        let wrapped = vault.new_data_key(&name).unwrap();
        let own = vault.open_data_key(&name, &wrapped).unwrap();
        DocumentKey::make(&own, OF).unwrap().0
    }

    #[test]
    fn names_are_those_of_operations_and_nothing_else() {
        assert_eq!(operation_of(&operation_name(OF.operation)), Some(OF.operation));
        for bad in [
            "",
            "..",
            "0123",
            "0123456789abcdeF",
            "0123456789abcdeg",
            "ffffffffffffffff",
        ] {
            assert_eq!(operation_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn documents_of_every_length_come_back_and_are_not_seen_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (blobs, key) = (Blobs::of(folder.path()), key());
        for length in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES,
        ] {
            let document: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut writer = blobs.create(name(), Side::In, &key).unwrap();
            document
                .chunks(10_000)
                .for_each(|piece| writer.write(piece).unwrap());
            let (bytes, sha256) = writer.finish().unwrap();
            assert_eq!((bytes, sha256), (length as u64, store::sha256(&document)));
            assert_eq!(blobs.read(name(), &key, 0).unwrap(), document);
            let raw = std::fs::read(blobs.path(name(), Side::In)).unwrap();
            assert!(
                !raw.windows(16)
                    .any(|window| document.windows(16).next() == Some(window))
            );
        }
        let other = BlobName::new(OF, b"put in again");
        assert_eq!(blobs.read(other, &key, 0).unwrap_err().code, Code::NotFound);
        assert_eq!(blobs.operations(), [OF.operation]);
        blobs.remove(OF.operation).unwrap();
        blobs.remove(OF.operation).unwrap();
        assert!(blobs.operations().is_empty());
        let gone = blobs.read(name(), &key, 0).unwrap_err();
        assert_eq!(gone.code, Code::NotFound);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_does_not_open_and_one_that_was_given_up_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let (blobs, key) = (Blobs::of(folder.path()), key());
        let mut writer = blobs.create(name(), Side::In, &key).unwrap();
        writer.write(&[7; 2 * CHUNK_BYTES + 5]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(blobs.folder(OF.operation)).unwrap().count(), 0);
        let mut writer = blobs.create(name(), Side::In, &key).unwrap();
        writer.write(&[7; 2 * CHUNK_BYTES + 5]).unwrap();
        writer.finish().unwrap();
        let path = blobs.path(name(), Side::In);
        let whole = std::fs::read(&path).unwrap();
        let first = HEADER_BYTES + CHUNK_BYTES + TAG_BYTES;
        let mut changed = whole.clone();
        changed[first + 3] ^= 1;
        for bad in [&whole[..first], &whole[..whole.len() - 1], &changed] {
            std::fs::write(&path, bad).unwrap();
            let refused = blobs.read(name(), &key, 0).unwrap_err();
            assert_eq!(refused.code, Code::DataCorrupt);
        }
    }
}
