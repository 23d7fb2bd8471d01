//! Seals and signatures cut off or with a bit flipped: never a panic, never valid with another meaning.

use documents::ses::{Policy, Seal, Signature, verify_seal, verify_signature};

use super::support::Parties;
use crate::support::NOW;

const HASH: [u8; 32] = [7; 32];
const LENIENT: Policy = Policy {
    refuse_unknown_critical: false,
    accept_raw_pairs: true,
};

#[test]
fn cut_off_anywhere_it_is_refused() {
    let parties = Parties::new();
    let seal = parties.seal();
    let signature = parties.signature(&seal);
    for length in 0..seal.len() {
        assert!(Seal::read(&seal[..length]).is_err(), "{length} bytes");
    }
    for length in 0..signature.len() {
        assert!(Signature::read(&signature[..length]).is_err(), "{length} bytes");
    }
    assert!(
        Seal::read(&[&seal[..], &[0]].concat()).is_err(),
        "a byte too many"
    );
    assert!(
        Signature::read(&[&signature[..], &[0]].concat()).is_err(),
        "a byte too many"
    );
}

/// One bit of every byte, another one each time.
fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len()).map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        (at, flipped)
    })
}

#[test]
fn a_flipped_bit_breaks_a_seal() {
    let parties = Parties::new();
    let (seal, trust) = (parties.seal(), parties.trust());
    let genuine = verify_seal(&seal, &trust, LENIENT, NOW).unwrap();
    for (at, flipped) in flips(&seal) {
        // The name of the algorithm is not signed; one spelling of it may become another.
        if let Ok(report) = verify_seal(&flipped, &trust, LENIENT, NOW) {
            assert_eq!(report, genuine, "byte {at}");
            assert!(
                Seal::read(&flipped).unwrap().value() == Seal::read(&seal).unwrap().value(),
                "byte {at}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_breaks_a_signature() {
    let parties = Parties::new();
    let (seal, trust) = (parties.seal(), parties.trust());
    let signature = parties.signature(&seal);
    let mut still_valid = 0;
    for (_, flipped) in flips(&signature) {
        still_valid += u32::from(verify_signature(&flipped, &HASH, &trust, LENIENT, NOW).is_ok());
    }
    assert_eq!(still_valid, 0);
}

#[test]
fn deep_and_long_nests_are_refused() {
    let nested = (0..10_000).fold(Vec::new(), |inner: Vec<u8>, _| match inner.len() {
        0..=100 => [&[0x30, u8::try_from(inner.len()).unwrap()][..], &inner].concat(),
        _ => inner,
    });
    assert!(Seal::read(&nested).is_err() && Signature::read(&nested).is_err());
    let huge = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30];
    assert!(Seal::read(&huge).is_err() && Signature::read(&huge).is_err());
    let many = super::sequence(&[&[0x30, 0].repeat(50_000)]);
    assert!(Seal::read(&many).is_err() && Signature::read(&many).is_err());
}
