//! Pieces of DER kept exactly as they came.
//!
//! A signature covers bytes, not the values that one parser makes of them. Whatever is signed, compared or
//! copied is therefore carried as a slice of the input, and these two types put such slices into the
//! structures of the other modules, for reading and for writing.

use der::{
    Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Result, SliceReader, Tag,
    Writer,
};

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

#[cfg(test)]
mod tests {
    use super::*;

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
