//! What a signature covers: is its /ByteRange what it says it is?
//!
//! The attacks on PDF signatures live here (universal forgery, wrapping, incremental saving; Mladenov and others, "1
//! Trillion Dollar Refund", 2019): a range that leaves more out than the value of /Contents, or that ends where no
//! revision ends. So there is exactly one form that is accepted.

use std::ops::Range;

use super::document::Document;
use super::object::{Dictionary, Object};

/// Why a /ByteRange is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoverageError {
    #[error("the signature dictionary has a key twice")]
    RepeatedKey,
    #[error("/ByteRange is not four numbers, or there is none")]
    NotARange,
    #[error("/ByteRange does not begin with the first byte of the file")]
    NotFromTheStart,
    #[error("/ByteRange reaches beyond the end of the file, or its parts overlap")]
    NotInTheFile,
    #[error("/Contents is no hexadecimal string in the file itself")]
    NoContents,
    #[error("what /ByteRange leaves out is not exactly the value of /Contents")]
    OtherGap,
    #[error("/ByteRange does not end where a revision of the file ends")]
    NotARevision,
    #[error("there is other data behind the signature in /Contents")]
    DataBehind,
    #[error("/Contents holds no DER")]
    NotDer,
}

/// The two parts of a file that a signature covers, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Coverage {
    pub(crate) gap: Range<usize>,
    /// End of the revision that it covers.
    pub(crate) end: usize,
    /// /Contents, with the zeros behind the signature.
    pub(crate) contents: Vec<u8>,
    /// Bytes of the signature in /Contents.
    pub(crate) length: usize,
}

impl Coverage {
    pub(crate) fn read(document: &Document<'_>, signature: &Dictionary) -> Result<Self, CoverageError> {
        if signature.has_repeated_keys() {
            return Err(CoverageError::RepeatedKey);
        }
        let [first, second] = byte_range(signature).ok_or(CoverageError::NotARange)?;
        let bytes = document.bytes();
        if first.start != 0 {
            return Err(CoverageError::NotFromTheStart);
        }
        if first.end > second.start || second.end > bytes.len() {
            return Err(CoverageError::NotInTheFile);
        }
        let contents = match signature.get("Contents") {
            Some(Object::String(contents)) if contents.is_hexadecimal && !contents.at.is_empty() => contents,
            _ => return Err(CoverageError::NoContents),
        };
        // White space in the string would be room to hide something in.
        let digits = contents.bytes.len() * 2 + "<>".len();
        if contents.at != (first.end..second.start) || contents.at.len() != digits {
            return Err(CoverageError::OtherGap);
        }
        if !ends_revision(&bytes[..second.end]) {
            return Err(CoverageError::NotARevision);
        }
        let length = der_length(&contents.bytes).ok_or(CoverageError::NotDer)?;
        if contents.bytes[length..].iter().any(|byte| *byte != 0) {
            return Err(CoverageError::DataBehind);
        }
        Ok(Self {
            gap: first.end..second.start,
            end: second.end,
            contents: contents.bytes.clone(),
            length,
        })
    }

    /// The signature without the zeros behind it.
    pub(crate) fn value(&self) -> &[u8] {
        &self.contents[..self.length]
    }
}

fn byte_range(signature: &Dictionary) -> Option<[Range<usize>; 2]> {
    let numbers = signature.get("ByteRange")?.as_array()?;
    let numbers: Vec<usize> = numbers.iter().map(Object::as_index).collect::<Option<_>>()?;
    let [start, length, second_start, second_length] = *numbers.as_slice() else {
        return None;
    };
    Some([
        start..start.checked_add(length)?,
        second_start..second_start.checked_add(second_length)?,
    ])
}

/// Whether the bytes end as a revision does: with `%%EOF` and perhaps an end of line.
pub(crate) fn ends_revision(bytes: &[u8]) -> bool {
    const MARK: &[u8] = b"%%EOF";
    [&b""[..], b"\n", b"\r", b"\r\n"].iter().any(|end| {
        bytes
            .strip_suffix(*end)
            .is_some_and(|bytes| bytes.ends_with(MARK))
    })
}

/// Length of the one DER element that the bytes begin with.
pub(crate) fn der_length(bytes: &[u8]) -> Option<usize> {
    use der::{Decode, Header, Reader, SliceReader};
    let mut reader = SliceReader::new(bytes).ok()?;
    let header = Header::decode(&mut reader).ok()?;
    let length = (reader.position() + header.length()).ok()?;
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_element_counts() {
        assert_eq!(der_length(&[0x30, 1, 5, 0, 0]), Some(3));
        assert_eq!(der_length(&[0x30, 4, 5]), None);
        assert_eq!(der_length(&[]), None);
        assert_eq!(der_length(&[0x30, 0x80, 0, 0]), None, "BER");
    }

    #[test]
    fn a_revision_ends_with_its_mark() {
        for (bytes, ends) in [
            (&b"x%%EOF"[..], true),
            (b"x%%EOF\r\n", true),
            (b"x%%EOF\n\n", false),
            (b"x%%EO", false),
            (b"%%EOF ", false),
        ] {
            assert_eq!(ends_revision(bytes), ends);
        }
    }
}
