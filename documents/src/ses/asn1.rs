//! The elements of a seal, read one level at a time and written from parts.
//!
//! Which fields are there depends on the version, optional ones are tagged by some vendors and not by others,
//! and strings come in every type. So elements are counted and looked at, not matched with one fixed structure.

use std::time::Duration;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, UintRef};
use der::{Decode, Encode, Tag, TagNumber, Tagged};
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;

use super::moment;
use crate::element::{Element, Members};

/// Why bytes are not a seal or a seal signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not DER where a field should be.
    #[error("{0} is not well-formed: {1}")]
    Malformed(&'static str, der::Error),
    /// Members missing or too many.
    #[error("{0} has {1} members, which no version of the standard has")]
    Members(&'static str, usize),
    /// A version that is none of 1, 4 and 5, or not the one that the structure has.
    #[error("version {0} does not go with the structure")]
    Version(u64),
    /// A value that the standard does not allow.
    #[error("{0} has a value that the standard does not allow")]
    Value(&'static str),
}

/// Turns errors of the decoder into ours.
pub(super) fn malformed(field: &'static str) -> impl Fn(der::Error) -> ReadError {
    move |error| ReadError::Malformed(field, error)
}

pub(super) fn any<'a>(field: &'static str, element: Element<'a>) -> Result<AnyRef<'a>, ReadError> {
    AnyRef::from_der(element.0).map_err(malformed(field))
}

/// The members of a SEQUENCE, at most `limit`.
pub(crate) fn sequence<'a>(
    field: &'static str,
    element: Element<'a>,
    limit: usize,
) -> Result<Vec<Element<'a>>, ReadError> {
    let any = any(field, element)?;
    if any.tag() != Tag::Sequence {
        return Err(ReadError::Value(field));
    }
    Members(any.value()).elements(limit).map_err(malformed(field))
}

/// A string of any type.
pub(super) fn text(field: &'static str, element: Element<'_>) -> Result<String, ReadError> {
    let any = any(field, element)?;
    let is_string = matches!(
        any.tag(),
        Tag::Ia5String | Tag::Utf8String | Tag::PrintableString | Tag::VisibleString | Tag::TeletexString
    );
    match std::str::from_utf8(any.value()) {
        Ok(text) if is_string => Ok(text.to_owned()),
        _ => Err(ReadError::Value(field)),
    }
}

pub(super) fn number(field: &'static str, element: Element<'_>) -> Result<u64, ReadError> {
    u64::from_der(element.0).map_err(malformed(field))
}

pub(crate) fn octets<'a>(field: &'static str, element: Element<'a>) -> Result<&'a [u8], ReadError> {
    let any = any(field, element)?;
    if any.tag() == Tag::OctetString {
        Ok(any.value())
    } else {
        Err(ReadError::Value(field))
    }
}

pub(crate) fn object_identifier(
    field: &'static str,
    element: Element<'_>,
) -> Result<ObjectIdentifier, ReadError> {
    ObjectIdentifier::from_der(element.0).map_err(malformed(field))
}

/// The bytes of a BIT STRING without unused bits.
pub(crate) fn bits<'a>(field: &'static str, element: Element<'a>) -> Result<&'a [u8], ReadError> {
    let bits = BitStringRef::from_der(element.0).map_err(malformed(field))?;
    bits.as_bytes().ok_or(ReadError::Value(field))
}

/// The same where it is tagged `[0]`, around the BIT STRING or in place of its tag.
pub(super) fn tagged_bits<'a>(field: &'static str, element: Element<'a>) -> Result<&'a [u8], ReadError> {
    let any = any(field, element)?;
    match any.tag() {
        Tag::ContextSpecific {
            constructed: true,
            number: TagNumber(0),
        } => bits(field, Element(any.value())),
        Tag::ContextSpecific {
            constructed: false,
            number: TagNumber(0),
        } => match any.value() {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(ReadError::Value(field)),
        },
        _ => Err(ReadError::Value(field)),
    }
}

/// A time of either type, to the second.
pub(super) fn time(field: &'static str, element: Element<'_>) -> Result<UnixMillis, ReadError> {
    let any = any(field, element)?;
    let text = std::str::from_utf8(any.value()).map_err(|_| ReadError::Value(field))?;
    let moment = match any.tag() {
        Tag::GeneralizedTime => moment::from_text(text),
        Tag::UtcTime => moment::from_utc_time(text),
        _ => None,
    };
    moment.ok_or(ReadError::Value(field))
}

/// A SEQUENCE of encoded members.
pub(crate) fn wrap(members: &[&[u8]]) -> der::Result<Vec<u8>> {
    tagged(Tag::Sequence, &members.concat())
}

pub(super) fn tagged(tag: Tag, value: &[u8]) -> der::Result<Vec<u8>> {
    AnyRef::new(tag, value)?.to_der()
}

/// A non-negative INTEGER.
pub(super) fn integer(number: u32) -> der::Result<Vec<u8>> {
    UintRef::new(&number.to_be_bytes())?.to_der()
}

pub(crate) fn bit_string(bytes: &[u8]) -> der::Result<Vec<u8>> {
    BitStringRef::from_bytes(bytes)?.to_der()
}

/// A GeneralizedTime in UTC.
pub(super) fn generalized_time(at: UnixMillis) -> der::Result<Vec<u8>> {
    GeneralizedTime::from_unix_duration(Duration::from_secs(at.seconds()))?.to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_tag_a_bit_string_are_read() {
        let inside = bit_string(b"\x01\x02").unwrap();
        let explicit = [&[0xa0, 5][..], &inside].concat();
        assert_eq!(tagged_bits("x", Element(&explicit)), Ok(&[1, 2][..]));
        assert_eq!(tagged_bits("x", Element(&[0x80, 3, 0, 1, 2])), Ok(&[1, 2][..]));
        assert_eq!(
            tagged_bits("x", Element(&[0x80, 3, 1, 1, 2])),
            Err(ReadError::Value("x"))
        );
        assert_eq!(tagged_bits("x", Element(&inside)), Err(ReadError::Value("x")));
    }

    #[test]
    fn integers_and_times_are_written_as_der() {
        assert_eq!(integer(4).unwrap(), [2, 1, 4]);
        assert_eq!(integer(200).unwrap(), [2, 2, 0, 200]);
        assert_eq!(
            generalized_time(UnixMillis(1_800_000_000_000)).unwrap(),
            b"\x18\x0f20270115080000Z"
        );
    }
}
