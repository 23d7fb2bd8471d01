//! What we sign: the judges accept it, nothing else is touched, and others may follow or not.

use std::io::{Cursor, Read};

use documents::ofd::{
    AssembleError, Coverage, Kind, PagingSide, Placement, PrepareError, SignRequest, SignatureKind, pages,
    prepare,
};
use documents::ses::{self, Allowed, SealSpec};
use documents::x509::Profile;
use protocol::algorithm::Algorithm;
use zip::ZipArchive;

use super::support::{assert_valid, files, pack, provider, sign, unpack};
use crate::seals::support::{Parties, gmssl_accepts, holder, judge};
use crate::support::Bench;

#[test]
fn the_judge_accepts_a_sealed_package() {
    let parties = Parties::new();
    let sealed = parties.sealed(&pack(&files(2)));
    let bench = Bench::new();
    let verdict = judge("ofd_check.py", &[&bench.write("sealed.ofd", &sealed)]);
    for words in [
        "refs ok=6 bad=0 miss=[]",
        "dataHash==SM3(Signature.xml): True",
        "SIG: OK[tbs,z=True]",
        "seal sig: OK[info,z=True]",
        "Seal.esl equals embedded: True",
        "unprotected=['Doc_0/Signs/Signatures.xml', 'Doc_0/Signs/Sign_0/Signature.xml', 'Doc_0/Signs/Sign_0/SignedValue.dat']",
        "'Boundary': '120.5 200 42 42'",
    ] {
        assert!(verdict.contains(words), "{words}: {verdict}");
    }
    assert_valid(&parties.verdict(&sealed), &[SignatureKind::Seal]);
}

/// Names and compressed bytes of all entries.
fn raw(package: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(Cursor::new(package)).unwrap();
    let count = archive.len();
    let read = |index| {
        let mut entry = archive.by_index_raw(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.name().unwrap().into_owned(), bytes)
    };
    (0..count).map(read).collect()
}

#[test]
fn every_other_entry_stays_byte_for_byte() {
    let parties = Parties::new();
    let mut names = files(3);
    names.push(("Doc_0/附件/说明.txt".into(), b"plain".repeat(50)));
    let original = pack(&names);
    let sealed = parties.sealed(&original);
    let (before, after) = (raw(&original), raw(&sealed));
    for (old, new) in before.iter().zip(&after).filter(|(old, _)| old.0 != "OFD.xml") {
        assert_eq!(old, new);
    }
    // OFD.xml keeps its text but for the one element.
    let root = |package: &[u8]| String::from_utf8(unpack(package)[0].1.clone()).unwrap();
    let element = "<ofd:Signatures>/Doc_0/Signs/Signatures.xml</ofd:Signatures>";
    assert_eq!(root(&sealed).replace(element, ""), root(&original));
    assert_eq!(after.len(), before.len() + 4);
}

#[test]
fn signing_is_reproducible() {
    let parties = Parties::new();
    let (package, seal, provider) = (pack(&files(1)), parties.seal(), provider());
    let request = parties.ofd_request(
        Kind::Seal {
            seal: &seal,
            placements: &[],
        },
        &provider,
    );
    let first = prepare(&package, &request).unwrap();
    let second = prepare(&package, &request).unwrap();
    assert_eq!(first.message(), second.message());
    let signature = parties.signer.key.sign(Algorithm::Sm2Sm3, first.message());
    assert_eq!(
        first.assemble(&signature, None),
        second.assemble(&signature, None)
    );
}

#[test]
fn several_parties_sign_one_after_the_other() {
    let mut parties = Parties::new();
    let once = parties.sealed(&pack(&files(2)));
    parties.signer = holder(&parties.root, "Second", 5, Profile::Signer);
    let twice = parties.sealed(&once);
    let provider = provider();
    let thrice = sign(
        &twice,
        &parties.ofd_request(Kind::Sign, &provider),
        &parties.signer,
    );
    let verdict = parties.verdict(&thrice);
    assert_valid(
        &verdict,
        &[SignatureKind::Seal, SignatureKind::Seal, SignatureKind::Sign],
    );
    let later: Vec<_> = verdict
        .signatures
        .iter()
        .map(|signature| signature.later.len())
        .collect();
    assert_eq!(later, [5, 2, 0]);
    // A stamp takes a number too.
    let ids: Vec<_> = verdict
        .signatures
        .iter()
        .map(|signature| signature.id.as_str())
        .collect();
    assert_eq!(ids, ["s001", "s003", "s005"]);
    let bench = Bench::new();
    let judged = judge("ofd_check.py", &[&bench.write("three.ofd", &thrice)]);
    assert_eq!(judged.matches("bad=0 miss=[]").count(), 3, "{judged}");
    assert_eq!(judged.matches("SIG: OK[tbs,z=True]").count(), 2, "{judged}");
}

#[test]
fn a_whole_signature_is_the_last() {
    let parties = Parties::new();
    let (package, seal, provider) = (pack(&files(1)), parties.seal(), provider());
    let kind = Kind::Seal {
        seal: &seal,
        placements: &[],
    };
    let request = parties.ofd_request(kind, &provider);
    let whole = SignRequest {
        coverage: Coverage::Whole,
        ..request
    };
    let last = sign(&package, &whole, &parties.signer);
    let verdict = parties.verdict(&last);
    assert_valid(&verdict, &[SignatureKind::Seal]);
    let list = "Doc_0/Signs/Signatures.xml";
    assert!(
        verdict.signatures[0]
            .references
            .iter()
            .any(|reference| reference.file == format!("/{list}"))
    );
    let refused = prepare(&last, &request).err().unwrap();
    assert_eq!(
        refused,
        PrepareError::Forbidden {
            id: "s001".into(),
            path: list.into()
        }
    );
}

#[test]
fn a_plain_signature_is_sm2_cms() {
    let parties = Parties::new();
    let (package, provider) = (pack(&files(1)), provider());
    let request = parties.ofd_request(Kind::Sign, &provider);
    let prepared = prepare(&package, &request).unwrap();
    let signature = parties.signer.key.sign(Algorithm::Sm2Sm3E, &prepared.e());
    assert!(gmssl_accepts(
        &parties.signer.certificate,
        prepared.message(),
        &signature
    ));
    let signed = prepared.assemble(&signature, None).unwrap();
    let verdict = parties.verdict(&signed);
    assert_valid(&verdict, &[SignatureKind::Sign]);
    assert!(verdict.signatures[0].signer.as_ref().unwrap().contains("Sealer"));
    let bench = Bench::new();
    let judged = judge("ofd_check.py", &[&bench.write("plain.ofd", &signed)]);
    assert!(
        judged.contains("CMS contentType 1.2.156.10197.6.1.4.2.2") && judged.contains("bad=0"),
        "{judged}"
    );
    let again = prepare(&package, &request).unwrap();
    assert_eq!(
        again.assemble(&signature, Some(b"token")),
        Err(AssembleError::TimeStamp)
    );
}

#[test]
fn a_paging_seal_lies_across_all_pages() {
    let parties = Parties::new();
    let (package, seal, provider) = (pack(&files(5)), parties.seal(), provider());
    let paging = Placement::Paging {
        side: PagingSide::Right,
        margin: 0.0,
        y: None,
        pages_per_seal: 100,
    };
    let placements = [
        paging,
        Placement::At {
            page: 5,
            x: 10.0,
            y: 10.0,
        },
    ];
    let kind = Kind::Seal {
        seal: &seal,
        placements: &placements,
    };
    let signed = sign(&package, &parties.ofd_request(kind, &provider), &parties.signer);
    let verdict = parties.verdict(&signed);
    assert_valid(&verdict, &[SignatureKind::Seal]);
    let stamps = &verdict.signatures[0].stamps;
    let on: Vec<_> = stamps.iter().map(|place| place.page.unwrap()).collect();
    assert_eq!(on, [1, 2, 3, 4, 5, 5]);
    let strip = &stamps[1].stamp;
    assert_eq!(
        (strip.boundary.x, strip.boundary.y, strip.clip.unwrap().x),
        (193.2, 127.5, 8.4)
    );
    assert!(stamps[5].stamp.clip.is_none());
}

#[test]
fn what_cannot_be_signed_is_refused_by_name() {
    let parties = Parties::new();
    let (package, seal, provider) = (pack(&files(1)), parties.seal(), provider());
    let refused = |request: SignRequest<'_>| prepare(&package, &request).err().unwrap();
    let good = parties.ofd_request(
        Kind::Seal {
            seal: &seal,
            placements: &[],
        },
        &provider,
    );
    assert_eq!(
        refused(SignRequest { document: 1, ..good }),
        PrepareError::Document { asked: 1, count: 1 }
    );
    let nowhere = [Placement::At {
        page: 2,
        x: 0.0,
        y: 0.0,
    }];
    let kind = Kind::Seal {
        seal: &seal,
        placements: &nowhere,
    };
    assert!(matches!(
        refused(SignRequest { kind, ..good }),
        PrepareError::Placement(_)
    ));
    let other = SealSpec {
        allowed: Allowed::Certificates(vec![parties.maker.certificate.clone()]),
        ..parties.spec()
    };
    let other = parties.seal_of(&other);
    let kind = Kind::Seal {
        seal: &other,
        placements: &[],
    };
    assert_eq!(
        refused(SignRequest { kind, ..good }),
        PrepareError::Seal(ses::PrepareError::NotAllowed)
    );
    let kind = Kind::Seal {
        seal: b"no seal",
        placements: &[],
    };
    assert!(matches!(
        refused(SignRequest { kind, ..good }),
        PrepareError::Seal(ses::PrepareError::Seal(_))
    ));
    assert!(matches!(
        prepare(b"no zip", &good).err().unwrap(),
        PrepareError::Read(_)
    ));
}

#[test]
fn pages_tell_their_size() {
    let mut files = files(2);
    let own = "<ofd:Content>";
    let page = String::from_utf8(files[4].1.clone()).unwrap();
    let area = "<ofd:Area><ofd:PhysicalBox>0 0 148 210</ofd:PhysicalBox></ofd:Area><ofd:Content>";
    files[4].1 = page.replacen(own, area, 1).into_bytes();
    let pages = pages(&pack(&files), 0).unwrap();
    assert_eq!(
        pages.iter().map(|page| page.size).collect::<Vec<_>>(),
        [(210.0, 297.0), (148.0, 210.0)]
    );
    assert_eq!(pages[1].id, "101");
}
