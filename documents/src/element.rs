//! Pieces of DER kept exactly as they came.
//!
//! A signature covers bytes, not the values that one parser makes of them. Whatever is signed, compared or
//! copied is therefore carried as a slice of the input, and these two types put such slices into the
//! structures of the other modules, for reading and for writing.

use der::{
    Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Result, SliceReader, Tag,
    Writer,
};
use spki::ObjectIdentifier;

/// One whole element: tag, length and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a>(pub(crate) &'a [u8]);

impl<'a> Decode<'a> for Element<'a> {
    type Error = der::Error;

    fn decode<R: Reader<'a>>(reader: &mut R) -> Result<Self> {
        reader.tlv_bytes().map(Self)
    }
}

impl Encode for Element<'_> {
    fn encoded_len(&self) -> Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode(&self, writer: &mut impl Writer) -> Result<()> {
        writer.write(self.0)
    }
}

/// The members of a SET, in the order in which they came. Tagged implicitly (RFC 5652 uses `[0]` and `[1]`)
/// it reads and writes the same members under the other tag, and encoded by itself it is the SET again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Members<'a>(pub(crate) &'a [u8]);

impl<'a> Members<'a> {
    /// The members one by one. At most `limit`, so that a small input cannot ask for much work.
    pub(crate) fn elements(self, limit: usize) -> Result<Vec<Element<'a>>> {
        let mut reader = SliceReader::new(self.0)?;
        let mut elements = Vec::new();
        while !reader.is_finished() {
            if elements.len() == limit {
                return Err(reader.error(der::ErrorKind::Overlength));
            }
            elements.push(Element::decode(&mut reader)?);
        }
        Ok(elements)
    }
}

impl FixedTag for Members<'_> {
    const TAG: Tag = Tag::Set;
}

impl<'a> DecodeValue<'a> for Members<'a> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> Result<Self> {
        reader.read_slice(header.length()).map(Self)
    }
}

impl EncodeValue for Members<'_> {
    fn value_len(&self) -> Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> Result<()> {
        writer.write(self.0)
    }
}

/// The members of a SEQUENCE OF, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body<'a>(pub(crate) &'a [u8]);

impl<'a> Body<'a> {
    /// The members one by one, at most `limit`.
    pub(crate) fn elements(self, limit: usize) -> Result<Vec<Element<'a>>> {
        Members(self.0).elements(limit)
    }
}

impl FixedTag for Body<'_> {
    const TAG: Tag = Tag::Sequence;
}

impl<'a> DecodeValue<'a> for Body<'a> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> Result<Self> {
        reader.read_slice(header.length()).map(Self)
    }
}

impl EncodeValue for Body<'_> {
    fn value_len(&self) -> Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> Result<()> {
        writer.write(self.0)
    }
}

/// Elements one after the other, as DER orders the members of a SET OF (X.690 11.6).
pub(crate) fn in_set_order<T: AsRef<[u8]> + Ord>(elements: &mut [T]) -> Vec<u8> {
    // No element is a prefix of another, so comparing slices is comparing padded encodings.
    elements.sort_unstable();
    let length = elements.iter().map(|element| element.as_ref().len()).sum();
    let mut bytes = Vec::with_capacity(length);
    elements
        .iter()
        .for_each(|element| bytes.extend_from_slice(element.as_ref()));
    bytes
}

/// Tags of what is written piece by piece (X.690 8.1.2).
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// `[number]` around a whole element, or in place of a constructed one's own tag.
    pub(crate) const fn constructed(number: u8) -> u8 {
        0xa0 | number
    }

    /// `[number]` in place of the tag of a primitive type.
    pub(crate) const fn primitive(number: u8) -> u8 {
        0x80 | number
    }
}

/// Writes one element whose value is `parts` one after the other. The structures with a thousand pieces, or
/// made a thousand times a second, are written this way; the others by `der`.
pub(crate) fn append(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(tag);
    append_length(out, length);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The shortest form, as DER has it (X.690 10.1).
fn append_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            // At most 8 bytes.
            out.push(0x80 | (bytes.len() - zeros) as u8);
            out.extend_from_slice(&bytes[zeros..]);
        }
    }
}

/// [`append`] into bytes of its own.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(6 + parts.iter().map(|part| part.len()).sum::<usize>());
    append(&mut out, tag, parts);
    out
}

/// An OBJECT IDENTIFIER.
pub(crate) fn object_identifier(oid: ObjectIdentifier) -> Vec<u8> {
    element(tag::OBJECT_IDENTIFIER, &[oid.as_bytes()])
}

/// An INTEGER that is not negative, from its bytes (X.690 8.3).
pub(crate) fn integer(unsigned: &[u8]) -> Vec<u8> {
    let zeros = unsigned.iter().take_while(|byte| **byte == 0).count();
    let significant = &unsigned[zeros..];
    let sign: &[u8] = match significant.first() {
        Some(0..=0x7f) => &[],
        _ => &[0],
    };
    element(tag::INTEGER, &[sign, significant])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_the_shortest_length() {
        assert_eq!(element(tag::SET, &[b"a", b"b"]), [0x31, 2, b'a', b'b']);
        assert_eq!(element(4, &[&[0; 127]])[..2], [4, 127]);
        assert_eq!(element(4, &[&[0; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[&[0; 256]])[..4], [4, 0x82, 1, 0]);
        for (unsigned, expected) in [
            (&[][..], &[2, 1, 0][..]),
            (&[0, 0], &[2, 1, 0]),
            (&[0, 1], &[2, 1, 1]),
            (&[0x80], &[2, 2, 0, 0x80]),
        ] {
            assert_eq!(integer(unsigned), expected);
        }
    }

    #[test]
    fn a_set_is_written_back_with_the_bytes_it_had() {
        // Not in DER order on purpose: a signature over it was made over this order.
        let set = [0x31, 6, 2, 1, 9, 2, 1, 1];
        let members = Members::from_der(&set).unwrap();
        assert_eq!(members.to_der().unwrap(), set);
        assert_eq!(members.elements(2).unwrap()[1], Element(&[2, 1, 1]));
        assert!(members.elements(1).is_err(), "one more than the limit");
        assert!(Members(&set[..5]).elements(9).is_err(), "cut off");
    }

    #[test]
    fn members_are_ordered_by_their_encodings() {
        let mut elements = [vec![4, 2, 0, 0], vec![2, 1, 9], vec![4, 1, 5]];
        assert_eq!(in_set_order(&mut elements), [2, 1, 9, 4, 1, 5, 4, 2, 0, 0]);
    }
}
