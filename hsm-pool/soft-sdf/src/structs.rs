//! The structures of GM/T 0018-2012, 5.2 and 5.3: packed, numbers of at most 512 bits in fields of 64 bytes.

use std::ffi::{c_uchar, c_uint};

/// Numbers are 64 bytes wide, and those of 256 bits stand on the right.
const FIELD: usize = 64;
/// A coordinate or half of a signature of SM2.
pub(crate) const NUMBER: usize = 32;

/// SGD_SM2_1: signing with SM2.
const SGD_SM2_1: c_uint = 0x0002_0200;

/// ECCrefPublicKey.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct EccPublicKey {
    bits: c_uint,
    x: [c_uchar; FIELD],
    y: [c_uchar; FIELD],
}

/// ECCSignature.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct EccSignature {
    r: [c_uchar; FIELD],
    s: [c_uchar; FIELD],
}

/// DEVICEINFO.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo {
    issuer_name: [c_uchar; 40],
    device_name: [c_uchar; 16],
    device_serial: [c_uchar; 16],
    device_version: c_uint,
    standard_version: c_uint,
    /// Algorithms, and lengths of their keys.
    asym_alg_ability: [c_uint; 2],
    sym_alg_ability: c_uint,
    hash_alg_ability: c_uint,
    buffer_size: c_uint,
}

const _: () = assert!(size_of::<EccPublicKey>() == 132);
const _: () = assert!(size_of::<EccSignature>() == 128);
const _: () = assert!(size_of::<DeviceInfo>() == 100);

fn right_aligned(number: [u8; NUMBER]) -> [c_uchar; FIELD] {
    let mut field = [0; FIELD];
    field[FIELD - NUMBER..].copy_from_slice(&number);
    field
}

/// The number in a field; `None` where something stands to the left of it.
fn number(field: &[c_uchar; FIELD]) -> Option<[u8; NUMBER]> {
    let (left, right) = field.split_at(FIELD - NUMBER);
    left.iter()
        .all(|byte| *byte == 0)
        .then(|| right.try_into().ok())?
}

impl EccPublicKey {
    pub(crate) fn new(x: [u8; NUMBER], y: [u8; NUMBER]) -> Self {
        Self {
            bits: 256,
            x: right_aligned(x),
            y: right_aligned(y),
        }
    }
}

impl EccSignature {
    pub(crate) fn new(r: [u8; NUMBER], s: [u8; NUMBER]) -> Self {
        Self {
            r: right_aligned(r),
            s: right_aligned(s),
        }
    }

    /// r and s.
    pub(crate) fn numbers(&self) -> Option<([u8; NUMBER], [u8; NUMBER])> {
        Some((number(&self.r)?, number(&self.s)?))
    }

    pub(crate) fn flip_a_bit(&mut self) {
        self.s[FIELD - 1] ^= 1;
    }
}

impl DeviceInfo {
    pub(crate) fn of_this_library() -> Self {
        Self {
            issuer_name: padded("Cinnabar"),
            device_name: padded("soft-sdf"),
            // Date, batch and number, by the standard's own pattern.
            device_serial: padded("2026112400100001"),
            device_version: 1,
            standard_version: 1,
            asym_alg_ability: [SGD_SM2_1, 256],
            sym_alg_ability: 0,
            hash_alg_ability: 0,
            buffer_size: 0,
        }
    }
}

/// Text in a field, with zeros behind it.
fn padded<const N: usize>(text: &str) -> [c_uchar; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_on_the_right() {
        let signature = EccSignature::new([1; NUMBER], [2; NUMBER]);
        assert_eq!(signature.r[..NUMBER], [0; NUMBER]);
        assert_eq!(signature.r[NUMBER..], [1; NUMBER]);
        assert_eq!(signature.numbers(), Some(([1; NUMBER], [2; NUMBER])));
    }

    #[test]
    fn a_number_on_the_left_is_none_of_sm2() {
        let mut signature = EccSignature::new([1; NUMBER], [2; NUMBER]);
        signature.s.rotate_left(NUMBER);
        assert_eq!(signature.numbers(), None);
    }

    #[test]
    fn text_is_padded_and_cut() {
        assert_eq!(padded::<4>("ab"), [b'a', b'b', 0, 0]);
        assert_eq!(padded::<1>("ab"), [b'a']);
    }
}
