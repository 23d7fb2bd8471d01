//! The package: a ZIP archive, read within limits (GB/T 33190-2016 6).

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::limits::{ENTRY_BYTES_MAX, INFLATED_BYTES_MAX, PACKAGE_BYTES_MAX};
use super::{ReadError, location};

/// A package whose directory has been read.
pub(super) struct Package<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    /// Paths without a leading `/`, in the order of the directory; folders are left out.
    paths: Vec<String>,
    indices: HashMap<String, usize>,
}

impl<'a> Package<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ReadError> {
        if bytes.len() > PACKAGE_BYTES_MAX {
            return Err(ReadError::Limit("bytes of a package"));
        }
        let names = super::zip::names(bytes)?;
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| ReadError::NotZip)?;
        let (mut paths, mut indices) = (Vec::new(), HashMap::new());
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            let path = location::entry(name).ok_or_else(|| ReadError::Name(name.clone()))?;
            // Some file systems hold two such names to be one.
            if !seen.insert(path.trim_end_matches('/').to_lowercase()) {
                return Err(ReadError::Duplicate(name.clone()));
            }
            if !path.ends_with('/') {
                paths.push(path.to_owned());
                indices.insert(path.to_owned(), index);
            }
        }
        check_sizes(&mut archive, &names)?;
        Ok(Self {
            archive,
            paths,
            indices,
        })
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> &[String] {
        &self.paths
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.indices.contains_key(path)
    }

    /// The file that `location`, as it stands in the file `base`, leads to. Some writers leave out the `/` in
    /// front of a path from the root.
    pub(super) fn resolve(&self, base: &str, location: &str) -> Result<Option<String>, ReadError> {
        let outside = || ReadError::Outside {
            path: base.to_owned(),
            location: location.to_owned(),
        };
        let path = location::resolve(base, location).ok_or_else(outside)?;
        if self.contains(&path) {
            return Ok(Some(path));
        }
        let from_root = location::resolve("", location).ok_or_else(outside)?;
        Ok(Some(from_root).filter(|path| self.contains(path)))
    }

    /// A file, inflated; its checksum is verified.
    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        let broken = || ReadError::Broken(path.to_owned());
        let index = *self
            .indices
            .get(path)
            .ok_or_else(|| ReadError::Missing(path.to_owned()))?;
        let mut archive = self.archive.clone();
        let file = archive.by_index(index).map_err(|_| broken())?;
        let size = file.size();
        let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| broken())?.min(1 << 20));
        // One byte more than was declared is enough to know that it lied.
        file.take(size + 1)
            .read_to_end(&mut bytes)
            .map_err(|_| broken())?;
        if u64::try_from(bytes.len()) == Ok(size) {
            Ok(bytes)
        } else {
            Err(broken())
        }
    }

    /// The same package with some files in another form, and new ones at the end. All others are copied as they
    /// lie, without being inflated.
    pub(super) fn with(&self, changed: &[(String, Vec<u8>)]) -> zip::result::ZipResult<Vec<u8>> {
        let mut archive = self.archive.clone();
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index)?;
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            let path = location::entry(&name).unwrap_or(&name);
            match changed.iter().find(|(changed, _)| changed == path) {
                Some((_, bytes)) => {
                    drop(entry);
                    add(&mut writer, &name, bytes)?;
                }
                // Renamed to the same name, because without its flag the library takes UTF-8 for CP437.
                None => writer.raw_copy_file_rename(entry, name)?,
            }
        }
        for (path, bytes) in changed.iter().filter(|(path, _)| !self.contains(path)) {
            add(&mut writer, path, bytes)?;
        }
        Ok(writer.finish()?.into_inner())
    }
}

/// The time of an entry is left at its default, so that the same input gives the same bytes.
fn add(writer: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, bytes: &[u8]) -> zip::result::ZipResult<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    writer.start_file(name, options)?;
    Ok(writer.write_all(bytes)?)
}

/// The library sees the same entries, and they promise not to be too large.
fn check_sizes(archive: &mut ZipArchive<Cursor<&[u8]>>, names: &[String]) -> Result<(), ReadError> {
    if archive.len() != names.len() {
        return Err(ReadError::NotZip);
    }
    let mut sum = 0;
    for (index, name) in names.iter().enumerate() {
        let file = archive.by_index_raw(index).map_err(|_| ReadError::NotZip)?;
        if file.name_raw() != name.as_bytes() {
            return Err(ReadError::NotZip);
        }
        if name.ends_with('/') && file.size() > 0 {
            return Err(ReadError::Inconsistent(name.clone()));
        }
        if file.size() > ENTRY_BYTES_MAX {
            return Err(ReadError::Limit("bytes of a file in a package"));
        }
        sum += file.size();
    }
    if sum > INFLATED_BYTES_MAX {
        Err(ReadError::Limit("bytes of all files in a package"))
    } else {
        Ok(())
    }
}
