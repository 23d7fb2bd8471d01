//! Electronic seals and seal signatures: made and read, judged by the checkers in `tests/judges`, and tampered
//! with.

pub(crate) mod support;

mod hostile;
mod make;
mod old;
mod verify;

use der::Encode;
use der::asn1::{AnyRef, BitStringRef, OctetStringRef};

/// An element of any tag around encoded members.
pub(crate) fn element(tag: der::Tag, members: &[&[u8]]) -> Vec<u8> {
    AnyRef::new(tag, &members.concat()).unwrap().to_der().unwrap()
}

pub(crate) fn sequence(members: &[&[u8]]) -> Vec<u8> {
    element(der::Tag::Sequence, members)
}

pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    OctetStringRef::new(bytes).unwrap().to_der().unwrap()
}

pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    BitStringRef::from_bytes(bytes).unwrap().to_der().unwrap()
}

/// The OID of SM2 with SM3, in DER.
pub(crate) const SM2_WITH_SM3: &[u8] = &[0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x83, 0x75];

/// An SES_Signature of versions 4 and 5, from whatever is put together.
pub(crate) fn support_signature(to_sign: &[u8], certificate: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[to_sign, &octets(certificate), SM2_WITH_SM3, &bits(value)])
}

/// A TBS_Sign with another seal in it.
pub(crate) fn support_swap(to_sign: &[u8], seal: &[u8], other: &[u8]) -> Vec<u8> {
    use der::Decode;
    let value = AnyRef::from_der(to_sign).unwrap().value();
    // version INTEGER has three bytes.
    assert_eq!(&value[3..3 + seal.len()][..20], &seal[..20]);
    sequence(&[&value[..3], other, &value[3 + seal.len()..]])
}
