//! The directory of a ZIP archive, walked by ourselves where the library is too kind: it keeps the last of two
//! entries with one name, believes the directory where an entry's own header says something else, and accepts
//! bytes before, between and behind. Each of these makes two readers see two documents.

use super::ReadError;
use super::limits::{ENTRIES_MAX, NAME_BYTES_MAX};

/// End of central directory record, without its comment (APPNOTE 4.3.16).
const END_BYTES: usize = 22;
/// Central directory file header, without its variable fields (APPNOTE 4.3.12).
const RECORD_BYTES: usize = 46;
/// Local file header, without its variable fields (APPNOTE 4.3.7).
const LOCAL_BYTES: usize = 30;

const END: [u8; 4] = *b"PK\x05\x06";
const RECORD: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";

const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).and_then(|number| usize::try_from(number).ok())
}

/// The names of all entries, in the order of the directory.
pub(super) fn names(archive: &[u8]) -> Result<Vec<String>, ReadError> {
    let end = find_end(archive).ok_or(ReadError::NotZip)?;
    let field = |at| {
        u16_at(archive, end + at)
            .map(usize::from)
            .ok_or(ReadError::NotZip)
    };
    let (disk, start_disk, here, count) = (field(4)?, field(6)?, field(8)?, field(10)?);
    if disk != 0 || start_disk != 0 || here != count {
        return Err(ReadError::NotZip);
    }
    if count > ENTRIES_MAX {
        return Err(ReadError::Limit("entries of a package"));
    }
    let size = usize_at(archive, end + 12).ok_or(ReadError::NotZip)?;
    let start = usize_at(archive, end + 16).ok_or(ReadError::NotZip)?;
    // The directory ends where the end record begins: nothing is hidden between them, or before the archive.
    if start.checked_add(size) != Some(end) {
        return Err(ReadError::NotZip);
    }
    walk(archive, start..end, count)
}

/// The end record, whose comment must fill the rest.
fn find_end(archive: &[u8]) -> Option<usize> {
    let last = archive.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    (first..=last).rev().find(|&at| {
        archive[at..].starts_with(&END)
            && u16_at(archive, at + 20).is_some_and(|comment| usize::from(comment) == last - at)
    })
}

fn walk(archive: &[u8], directory: std::ops::Range<usize>, count: usize) -> Result<Vec<String>, ReadError> {
    let mut names = Vec::with_capacity(count);
    let mut at = directory.start;
    for _ in 0..count {
        let (name, next) = record(archive, at).ok_or(ReadError::NotZip)??;
        if next > directory.end {
            return Err(ReadError::NotZip);
        }
        names.push(name);
        at = next;
    }
    if at == directory.end {
        Ok(names)
    } else {
        Err(ReadError::NotZip)
    }
}

/// The name in a record, and where the next record begins; `None` where the archive ends first.
fn record(archive: &[u8], at: usize) -> Option<Result<(String, usize), ReadError>> {
    let header = archive.get(at..at.checked_add(RECORD_BYTES)?)?;
    if !header.starts_with(&RECORD) {
        return None;
    }
    let length = |offset| u16_at(header, offset).map(usize::from);
    let (name_bytes, extra, comment) = (length(28)?, length(30)?, length(32)?);
    let raw = archive.get(at + RECORD_BYTES..at + RECORD_BYTES + name_bytes)?;
    let name = match std::str::from_utf8(raw) {
        Ok(name) if name_bytes <= NAME_BYTES_MAX => name.to_owned(),
        _ => {
            return Some(Err(ReadError::Name(
                String::from_utf8_lossy(raw).chars().take(80).collect(),
            )));
        }
    };
    let (flags, method) = (u16_at(header, 8)?, u16_at(header, 10)?);
    let local = usize_at(header, 42)?;
    if flags & ENCRYPTED != 0 {
        return Some(Err(ReadError::Encrypted(name)));
    }
    if !matches!(method, STORED | DEFLATED) {
        return Some(Err(ReadError::Method(name)));
    }
    if !agrees(archive, local, raw, method) {
        return Some(Err(ReadError::Inconsistent(name)));
    }
    Some(Ok((name, at + RECORD_BYTES + name_bytes + extra + comment)))
}

/// Whether the entry's own header says the same name and method.
fn agrees(archive: &[u8], local: usize, name: &[u8], method: u16) -> bool {
    let Some(rest) = archive.get(local..) else {
        return false;
    };
    let name_bytes = u16_at(rest, 26).map(usize::from);
    rest.starts_with(&LOCAL)
        && u16_at(rest, 8) == Some(method)
        && name_bytes == Some(name.len())
        && rest.get(LOCAL_BYTES..LOCAL_BYTES + name.len()) == Some(name)
}
