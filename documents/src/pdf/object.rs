//! The objects of ISO 32000-2 7.3, as values.
//!
//! A value that was read knows where its text lay only where that matters: strings, because a signature covers a
//! file but for one string, and streams, whose data stays in the file.

use std::ops::Range;

/// The number and generation of an indirect object (7.3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ref {
    pub(crate) number: u32,
    pub(crate) generation: u16,
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    Null,
    Boolean(bool),
    Integer(i64),
    /// As written, so that writing it back changes nothing.
    Real(Box<[u8]>),
    String(PdfString),
    Name(Box<[u8]>),
    Array(Vec<Self>),
    Dictionary(Dictionary),
    Stream(Box<Stream>),
    Reference(Ref),
}

/// A string (7.3.4), decoded, and where in the file it was written; nowhere if it was not read from the file itself.
#[derive(Clone, Debug)]
pub(crate) struct PdfString {
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: Range<usize>,
    pub(crate) is_hexadecimal: bool,
}

impl PartialEq for PdfString {
    /// Two strings are the same if they say the same.
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// A stream (7.3.8): its dictionary, and where in the file its encoded data lies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stream {
    /// The object that it is; its key depends on it where a file is encrypted.
    pub(crate) reference: Ref,
    pub(crate) dictionary: Dictionary,
    pub(crate) data: Range<usize>,
}

/// A dictionary (7.3.7) in the order of its text. Readers disagree about a key that is there twice; here the last
/// one counts, as with most of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Dictionary(pub(crate) Vec<(Box<[u8]>, Object)>);

impl Dictionary {
    pub(crate) fn get(&self, key: &str) -> Option<&Object> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| **name == *key.as_bytes())
            .map(|(_, value)| value)
    }

    pub(crate) fn set(&mut self, key: &str, value: Object) {
        self.remove(key);
        self.0.push((key.as_bytes().into(), value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.retain(|(name, _)| **name != *key.as_bytes());
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Whether two readers may see two different dictionaries here.
    pub(crate) fn has_repeated_keys(&self) -> bool {
        let mut names: Vec<_> = self.keys().collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }

    pub(crate) fn is_name(&self, key: &str, value: &str) -> bool {
        self.get(key).is_some_and(|found| found.is_name(value))
    }

    pub(crate) fn reference(&self, key: &str) -> Option<Ref> {
        self.get(key).and_then(Object::as_reference)
    }
}

impl<const N: usize> From<[(&str, Object); N]> for Dictionary {
    fn from(entries: [(&str, Object); N]) -> Self {
        Self(
            entries
                .into_iter()
                .map(|(key, value)| (key.as_bytes().into(), value))
                .collect(),
        )
    }
}

impl Object {
    pub(crate) fn name(text: &str) -> Self {
        Self::Name(text.as_bytes().into())
    }

    /// A string of bytes that has no place in a file yet.
    pub(crate) fn string(bytes: &[u8]) -> Self {
        Self::String(PdfString {
            bytes: bytes.to_vec(),
            at: 0..0,
            is_hexadecimal: false,
        })
    }

    /// A text string (7.9.2.2): ASCII as it is, anything else in UTF-16BE.
    pub(crate) fn text(text: &str) -> Self {
        if text.is_ascii() {
            return Self::string(text.as_bytes());
        }
        let mut bytes = vec![0xfe, 0xff];
        text.encode_utf16()
            .for_each(|unit| bytes.extend(unit.to_be_bytes()));
        Self::string(&bytes)
    }

    /// A number with at most four decimals; a ten-thousandth of a point is beyond what anybody sees.
    pub(crate) fn number(value: f64) -> Self {
        let rounded = (value * 1e4).round() / 1e4;
        let text = format!("{rounded:.4}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        let text = if text == "-0" { "0" } else { text };
        match text.parse() {
            Ok(whole) => Self::Integer(whole),
            Err(_) => Self::Real(text.as_bytes().into()),
        }
    }

    pub(crate) fn numbers(values: impl IntoIterator<Item = f64>) -> Self {
        Self::Array(values.into_iter().map(Self::number).collect())
    }

    pub(crate) fn is_name(&self, value: &str) -> bool {
        matches!(self, Self::Name(name) if **name == *value.as_bytes())
    }

    pub(crate) const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(crate) const fn as_reference(&self) -> Option<Ref> {
        match self {
            Self::Reference(reference) => Some(*reference),
            _ => None,
        }
    }

    pub(crate) const fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_index(&self) -> Option<usize> {
        usize::try_from(self.as_integer()?).ok()
    }

    /// A number (7.3.3) that is neither infinite nor absurd.
    pub(crate) fn as_number(&self) -> Option<f64> {
        const ABSURD: f64 = 1e9;
        #[expect(clippy::cast_precision_loss, reason = "what is above 1e9 is refused anyway")]
        let value = match self {
            Self::Integer(value) => *value as f64,
            Self::Real(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
            _ => return None,
        };
        (value.is_finite() && value.abs() < ABSURD).then_some(value)
    }

    pub(crate) fn as_name(&self) -> Option<&[u8]> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) const fn as_string(&self) -> Option<&PdfString> {
        match self {
            Self::String(string) => Some(string),
            _ => None,
        }
    }

    /// A text string (7.9.2.2) for people to read.
    pub(crate) fn as_text(&self) -> Option<String> {
        let bytes = &self.as_string()?.bytes;
        let text = match bytes.as_slice() {
            [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
            [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
            [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
            // PDFDocEncoding, which is Latin-1 but for a few signs that no name needs.
            latin => latin.iter().copied().map(char::from).collect(),
        };
        Some(text)
    }

    pub(crate) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// A dictionary, be it that of a stream.
    pub(crate) const fn as_dictionary(&self) -> Option<&Dictionary> {
        match self {
            Self::Dictionary(dictionary) => Some(dictionary),
            Self::Stream(stream) => Some(&stream.dictionary),
            _ => None,
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| unit([pair[0], pair[1]]))
        .collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_short() {
        let text = |value| match Object::number(value) {
            Object::Integer(whole) => whole.to_string(),
            Object::Real(text) => String::from_utf8(text.into()).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(42.0), "42");
        assert_eq!(text(119.055_118), "119.0551");
        assert_eq!(text(-0.000_01), "0");
        assert_eq!(text(-0.5), "-0.5");
    }

    #[test]
    fn text_goes_both_ways() {
        for text in ["Signature1", "印章 ✓", ""] {
            assert_eq!(Object::text(text).as_text().unwrap(), text);
        }
    }
}
