//! Seals that others make: GM/T 0031-2014, and the liberties that the field takes.

use der::asn1::{GeneralizedTime, Ia5StringRef, UtcTime, Utf8StringRef};
use der::{DateTime, Encode};
use documents::ses::{
    Generation, Policy, Seal, SealFault, Signature, SignatureFault, TimeInfo, verify_seal, verify_signature,
};
use protocol::algorithm::Algorithm;

use super::support::{PNG, Parties, judge};
use super::{SM2_WITH_SM3, bits, element, octets, sequence};
use crate::support::{Bench, NOW};

const HASH: [u8; 32] = [7; 32];

fn utc(year: u16) -> Vec<u8> {
    UtcTime::from_date_time(DateTime::new(year, 1, 1, 0, 0, 0).unwrap())
        .unwrap()
        .to_der()
        .unwrap()
}

fn generalized(year: u16) -> Vec<u8> {
    GeneralizedTime::from_date_time(DateTime::new(year, 1, 1, 0, 0, 0).unwrap())
        .to_der()
        .unwrap()
}

fn ia5(text: &str) -> Vec<u8> {
    Ia5StringRef::new(text).unwrap().to_der().unwrap()
}

fn integer(number: u8) -> Vec<u8> {
    number.to_der().unwrap()
}

fn header(version: u8) -> Vec<u8> {
    sequence(&[&ia5("ES"), &integer(version), &ia5("OTHER")])
}

fn picture() -> Vec<u8> {
    sequence(&[&ia5("png"), &octets(PNG), &integer(40), &integer(30)])
}

fn name() -> Vec<u8> {
    Utf8StringRef::new("某某公司").unwrap().to_der().unwrap()
}

/// A seal of version 1.
fn first(parties: &Parties) -> Vec<u8> {
    let list = sequence(&[&octets(&parties.signer.certificate)]);
    let property = sequence(&[&integer(1), &name(), &list, &utc(2024), &utc(2024), &utc(2030)]);
    let info = sequence(&[&header(1), &ia5("E1"), &property, &picture()]);
    let (maker, algorithm) = (octets(&parties.maker.certificate), SM2_WITH_SM3);
    let value = parties
        .maker
        .key
        .sign(Algorithm::Sm2Sm3, &sequence(&[&info, &maker, algorithm]));
    sequence(&[&info, &sequence(&[&maker, algorithm, &bits(&value)])])
}

fn first_to_sign(parties: &Parties, seal: &[u8], time: &[u8]) -> Vec<u8> {
    sequence(&[
        &integer(1),
        seal,
        &bits(time),
        &bits(&HASH),
        &ia5("/Doc_0/Signs/Sign_0/Signature.xml"),
        &octets(&parties.signer.certificate),
        SM2_WITH_SM3,
    ])
}

#[test]
fn version_1_is_read_and_verified() {
    let parties = Parties::new();
    let der = first(&parties);
    let seal = Seal::read(&der).unwrap();
    assert_eq!((seal.generation, seal.picture.height_mm), (Generation::V1, 30));
    assert!(verify_seal(&der, &parties.trust(), Policy::default(), NOW).is_ok());
    let bench = Bench::new();
    let verdict = judge("seal_check.py", &[&bench.write("v1.esl", &der)]);
    assert!(
        verdict.contains("seal sig: OK[seq(info,cert,alg),z=True]"),
        "{verdict}"
    );
    for time in [
        "2027-01-15 16:00:00",
        "2027-01-15T08:00:00.377Z",
        "20270115080000Z",
    ] {
        let to_sign = first_to_sign(&parties, &der, time.as_bytes());
        let value = parties.signer.key.sign(Algorithm::Sm2Sm3, &to_sign);
        let signature = sequence(&[&to_sign, &bits(&value)]);
        assert_eq!(Signature::read(&signature).unwrap().time, TimeInfo::Claimed(NOW));
        let report = verify_signature(&signature, &HASH, &parties.trust(), Policy::default(), NOW).unwrap();
        assert!(
            report.warnings.iter().any(|text| text.contains("0031-2014")),
            "{:?}",
            report.warnings
        );
    }
}

#[test]
fn a_signature_over_the_bare_digest_is_named_and_not_valid() {
    let parties = Parties::new();
    let to_sign = first_to_sign(&parties, &first(&parties), b"2027-01-15 16:00:00");
    let value = parties.signer.key.sign(Algorithm::Sm2Sm3E, &HASH);
    let pair = protocol::verify::der_to_pair(&value, 32).unwrap();
    let lenient = Policy {
        accept_raw_pairs: true,
        refuse_unknown_critical: false,
    };
    for value in [&value[..], &pair] {
        let signature = sequence(&[&to_sign, &bits(value)]);
        let verdict = verify_signature(&signature, &HASH, &parties.trust(), lenient, NOW);
        assert_eq!(verdict, Err(SignatureFault::DigestOnly));
    }
}

/// A seal of version 4 with an extension, written as it stands.
fn with_extension(parties: &Parties, extensions: &[u8]) -> Vec<u8> {
    let list = sequence(&[&octets(&parties.signer.certificate)]);
    let times = [generalized(2024), generalized(2024), generalized(2030)].concat();
    let property = sequence(&[&integer(3), &name(), &integer(1), &list, &times]);
    let info = sequence(&[&header(4), &ia5("E4"), &property, &picture(), extensions]);
    let value = parties.maker.key.sign(Algorithm::Sm2Sm3, &info);
    sequence(&[
        &info,
        &octets(&parties.maker.certificate),
        SM2_WITH_SM3,
        &bits(&value),
    ])
}

/// 1.2.156.10197.6.7.2.2.1 with the value "2.1"; the flag is written as it is given.
fn extension(critical: &[u8]) -> Vec<u8> {
    let id = [
        0x06, 0x0a, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x06, 0x07, 0x02, 0x02, 0x01,
    ];
    sequence(&[&sequence(&[&id, critical, &octets(b"2.1")])])
}

#[test]
fn an_explicit_false_is_not_der_but_signed_and_holds() {
    let parties = Parties::new();
    let seal = with_extension(&parties, &extension(&[1, 1, 0]));
    let read = Seal::read(&seal).unwrap();
    assert_eq!(
        (read.extensions[0].critical, read.extensions[0].value),
        (false, &b"2.1"[..])
    );
    assert!(verify_seal(&seal, &parties.trust(), Policy::default(), NOW).is_ok());
    let signature = parties.signature(&seal);
    assert!(verify_signature(&signature, &HASH, &parties.trust(), Policy::default(), NOW).is_ok());
}

#[test]
fn extensions_are_found_under_any_tag() {
    let parties = Parties::new();
    let plain = extension(&[]);
    let explicit = element(
        der::Tag::ContextSpecific {
            constructed: true,
            number: der::TagNumber(0),
        },
        &[&plain],
    );
    let mut implicit = plain.clone();
    implicit[0] = 0xa1;
    for written in [plain.clone(), explicit, implicit, octets(&plain)] {
        let seal = with_extension(&parties, &written);
        assert_eq!(
            Seal::read(&seal).unwrap().extensions.len(),
            1,
            "{:02x?}",
            &written[..4]
        );
    }
}

#[test]
fn unknown_critical_extensions_are_a_matter_of_policy() {
    let parties = Parties::new();
    let seal = with_extension(&parties, &extension(&[1, 1, 0xff]));
    let strict = verify_seal(&seal, &parties.trust(), Policy::default(), NOW);
    assert!(
        matches!(strict, Err(SealFault::CriticalExtension(_))),
        "{strict:?}"
    );
    let lenient = Policy {
        refuse_unknown_critical: false,
        ..Policy::default()
    };
    let report = verify_seal(&seal, &parties.trust(), lenient, NOW).unwrap();
    assert!(
        report.warnings[0].contains("1.2.156.10197.6.7.2.2.1"),
        "{:?}",
        report.warnings
    );
}
