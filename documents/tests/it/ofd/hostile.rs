//! Archives and XML made to deceive or to exhaust: refused by name, never a panic, never valid.

use documents::ofd::{ReadError, Standing, pages, verify};
use documents::ses::Policy;

use super::support::{files, pack, unpack, with_file};
use crate::seals::support::Parties;
use crate::support::NOW;

fn refusal(package: &[u8]) -> ReadError {
    pages(package, 0).expect_err("must be refused")
}

/// All places where a text stands, changed into another of the same length.
fn replaced(package: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut changed = package.to_vec();
    let at: Vec<_> = package
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from.as_bytes())
        .collect();
    assert!(!at.is_empty());
    at.iter()
        .for_each(|(at, _)| changed[*at..at + to.len()].copy_from_slice(to.as_bytes()));
    changed
}

fn with_extra(name: &str) -> Vec<u8> {
    let mut files = files(1);
    files.push((name.into(), b"extra".to_vec()));
    pack(&files)
}

#[test]
fn two_entries_with_one_name_are_refused() {
    let package = replaced(&with_extra("OFX.xml"), "OFX.xml", "OFD.xml");
    assert_eq!(refusal(&package), ReadError::Duplicate("OFD.xml".into()));
    let package = replaced(&with_extra("OFX.xml"), "OFX.xml", "ofd.XML");
    assert_eq!(refusal(&package), ReadError::Duplicate("ofd.XML".into()));
}

#[test]
fn names_that_lead_out_of_the_package_are_refused() {
    for name in ["../a", "a/../../b", "a\\..\\b", "c:/windows", "./a", "a//b"] {
        let placeholder = "x".repeat(name.len());
        let package = replaced(&with_extra(&placeholder), &placeholder, name);
        assert_eq!(refusal(&package), ReadError::Name(name.into()));
    }
}

#[test]
fn a_header_that_contradicts_the_directory_is_refused() {
    let package = with_extra("Extra.txt");
    let at = package
        .windows(9)
        .position(|window| window == b"Extra.txt")
        .unwrap();
    let mut changed = package.clone();
    changed[at] = b'A';
    assert_eq!(refusal(&changed), ReadError::Inconsistent("Extra.txt".into()));
}

#[test]
fn bytes_before_behind_and_between_are_refused() {
    let package = pack(&files(1));
    assert_eq!(refusal(&[b"MZ", &package[..]].concat()), ReadError::NotZip);
    assert_eq!(refusal(&[&package[..], b"x"].concat()), ReadError::NotZip);
    assert_eq!(refusal(&[&package[..], &package[..]].concat()), ReadError::NotZip);
    let end = package.len() - 22;
    assert_eq!(
        refusal(&[&package[..end], b"hidden", &package[end..]].concat()),
        ReadError::NotZip
    );
}

#[test]
fn encrypted_and_oddly_compressed_entries_are_refused() {
    let package = with_extra("Extra.txt");
    let record = package
        .windows(9)
        .rposition(|window| window == b"Extra.txt")
        .unwrap()
        - 46;
    let mut encrypted = package.clone();
    encrypted[record + 8] |= 1;
    assert_eq!(refusal(&encrypted), ReadError::Encrypted("Extra.txt".into()));
    let mut odd = package.clone();
    odd[record + 10] = 12;
    assert_eq!(refusal(&odd), ReadError::Method("Extra.txt".into()));
}

#[test]
fn a_bomb_is_refused_before_it_is_inflated() {
    let mut package = with_extra("Extra.txt");
    let record = package
        .windows(9)
        .rposition(|window| window == b"Extra.txt")
        .unwrap()
        - 46;
    package[record + 24..record + 28].copy_from_slice(&u32::to_le_bytes(0x7fff_ffff));
    assert!(matches!(refusal(&package), ReadError::Limit(_)));
}

#[test]
fn a_size_that_lies_is_refused_when_it_is_read() {
    let files = files(1);
    let package = pack(&files);
    let record = package
        .windows(18)
        .rposition(|window| window == b"Doc_0/Document.xml")
        .unwrap()
        - 46;
    let size = u32::try_from(files[1].1.len()).unwrap();
    for wrong in [size - 1, size + 1, 1] {
        let mut changed = package.clone();
        changed[record + 24..record + 28].copy_from_slice(&wrong.to_le_bytes());
        assert_eq!(
            refusal(&changed),
            ReadError::Broken("Doc_0/Document.xml".into()),
            "{wrong}"
        );
    }
}

#[test]
fn entities_and_document_types_are_refused() {
    let package = pack(&files(1));
    let laughs = "<!DOCTYPE a [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><a>&b;</a>";
    let outside = "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>";
    let latin = "<?xml version='1.0' encoding='ISO-8859-1'?><a/>";
    for text in [laughs, outside, latin, "<a", "", "\u{0}"] {
        let changed = with_file(&package, "OFD.xml", Some(text.as_bytes()));
        assert!(matches!(refusal(&changed), ReadError::Xml { .. }), "{text}");
    }
    let not_utf8 = with_file(&package, "OFD.xml", Some(b"<a>\xff</a>"));
    assert!(matches!(refusal(&not_utf8), ReadError::Xml { .. }));
}

#[test]
fn deep_nests_and_missing_parts_are_refused() {
    let package = pack(&files(1));
    let deep = ["<a>".repeat(200_000), "</a>".repeat(200_000)].concat();
    let refused = refusal(&with_file(&package, "OFD.xml", Some(deep.as_bytes())));
    assert!(
        matches!(refused, ReadError::Structure { .. } | ReadError::Xml { .. }),
        "{refused}"
    );
    assert_eq!(
        refusal(&with_file(&package, "OFD.xml", None)),
        ReadError::Missing("OFD.xml".into())
    );
    let gone = refusal(&with_file(&package, "Doc_0/Document.xml", None));
    assert_eq!(gone, ReadError::Missing("Doc_0/Document.xml".into()));
    let root = String::from_utf8(unpack(&package)[0].1.clone()).unwrap();
    let outside = root.replace("Doc_0/Document.xml", "../../etc/passwd");
    let refused = refusal(&with_file(&package, "OFD.xml", Some(outside.as_bytes())));
    assert!(matches!(refused, ReadError::Outside { .. }), "{refused}");
    let loops = root.replace("Doc_0/Document.xml", "OFD.xml");
    assert!(pages(&with_file(&package, "OFD.xml", Some(loops.as_bytes())), 0).is_err());
}

#[test]
fn a_package_cut_off_anywhere_is_refused() {
    let package = pack(&files(1));
    for length in 0..package.len() {
        assert!(pages(&package[..length], 0).is_err(), "{length} bytes");
    }
}

#[test]
fn a_flipped_bit_never_changes_what_a_verdict_says() {
    let parties = Parties::new();
    let sealed = parties.sealed(&pack(&files(1)));
    let genuine = parties.verdict(&sealed);
    let contents = unpack(&sealed);
    let (mut refused, mut harmless) = (0, 0);
    for at in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1 << (at % 8);
        match verify(&flipped, &parties.trust(), Policy::default(), NOW) {
            // Times and attributes of entries, which nobody reads.
            Ok(verdict) if verdict.standing == Some(Standing::Valid) => {
                assert_eq!(
                    verdict.signatures[0].references, genuine.signatures[0].references,
                    "byte {at}"
                );
                assert_eq!(unpack(&flipped), contents, "byte {at}");
                harmless += 1;
            }
            _ => refused += 1,
        }
    }
    assert!(refused > harmless, "{refused} refused, {harmless} harmless");
}
