//! The blank in a file that a signature is written into when it is there.

use std::ops::Range;

use super::ReadError;
use super::object::{Dictionary, Ref};
use super::sign::AssembleError;
use super::update::Appended;
use super::write::{push, write_dictionary, write_hexadecimal};

/// The text of a signature dictionary with blanks in it.
pub(crate) struct Blank {
    pub(crate) text: Vec<u8>,
    byte_range: usize,
    digits: Range<usize>,
}

/// Places in the text of a signature dictionary.
pub(crate) struct Places {
    byte_range: usize,
    digits: Range<usize>,
}

/// `[0 a b c]` with room for numbers of ten digits.
const BYTE_RANGE_BYTES: usize = 4 + 3 * 11;

impl Blank {
    /// Appends /ByteRange and /Contents to the entries of a dictionary and closes it.
    pub(crate) fn new(entries: &Dictionary, contents_bytes: usize) -> Self {
        let mut text = Vec::with_capacity(contents_bytes * 2 + 512);
        write_dictionary(&mut text, entries);
        text.truncate(text.len() - b">>".len());
        text.extend(b"/ByteRange ");
        let byte_range = text.len();
        text.resize(byte_range + BYTE_RANGE_BYTES, b' ');
        text.extend(b"/Contents <");
        let start = text.len();
        text.resize(start + contents_bytes * 2, b'0');
        let digits = start..text.len();
        text.extend(b">>>");
        Self {
            text,
            byte_range,
            digits,
        }
    }

    pub(crate) fn places(&self) -> Places {
        Places {
            byte_range: self.byte_range,
            digits: self.digits.clone(),
        }
    }
}

/// Fills /ByteRange in; returns the update and where its /Contents digits are.
pub(crate) fn fill_in(
    appended: Appended,
    signature: Ref,
    places: &Places,
    base: usize,
) -> Result<(Vec<u8>, Range<usize>), ReadError> {
    let body = appended
        .body(signature)
        .ok_or(ReadError::Wrong("the signature"))?;
    let mut bytes = appended.bytes;
    let digits = body + places.digits.start..body + places.digits.end;
    // The brackets around the digits are not covered either.
    let (before, after) = (base + digits.start - 1, base + digits.end + 1);
    let mut range = Vec::new();
    push(
        &mut range,
        format_args!("[0 {before} {after} {}]", base + bytes.len() - after),
    );
    let at = body + places.byte_range;
    bytes[at..at + range.len()].copy_from_slice(&range);
    Ok((bytes, digits))
}

/// Writes the value of /Contents over the zeros that were kept for it.
pub(crate) fn put_contents(
    mut update: Vec<u8>,
    digits: Range<usize>,
    contents: &[u8],
) -> Result<Vec<u8>, AssembleError> {
    let reserved = digits.len() / 2;
    if contents.len() > reserved {
        return Err(AssembleError::NoRoom {
            needed: contents.len(),
            reserved,
        });
    }
    let mut text = Vec::with_capacity(contents.len() * 2);
    write_hexadecimal(&mut text, contents);
    update[digits.start..digits.start + text.len()].copy_from_slice(&text);
    Ok(update)
}
