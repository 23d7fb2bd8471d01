//! What was changed after signing, and what the verdict says of it.

use documents::ofd::verify;
use documents::ses::{Anchors, Policy};
use protocol::clock::UnixMillis;

use super::support::{assert_invalid, assert_valid, files, pack, unpack, with_file};
use crate::seals::support::{DAY, Parties};
use crate::support::NOW;
use documents::ofd::SignatureKind;

const PAGE: &str = "Doc_0/Pages/Page_0/Content.xml";

#[test]
fn repacking_changes_nothing() {
    let parties = Parties::new();
    let sealed = parties.sealed(&pack(&files(1)));
    assert_valid(&parties.verdict(&pack(&unpack(&sealed))), &[SignatureKind::Seal]);
}

#[test]
fn every_change_is_seen() {
    let parties = Parties::new();
    let sealed = parties.sealed(&pack(&files(1)));
    let find = |name: &str| {
        unpack(&sealed)
            .into_iter()
            .find(|(found, _)| found == name)
            .unwrap()
            .1
    };
    let other_seal = parties.seal_of(&documents::ses::SealSpec {
        id: "other".into(),
        ..parties.spec()
    });
    let sign = "Doc_0/Signs/Sign_0/";
    let changed = |name: &str, bytes: &[u8]| parties.verdict(&with_file(&sealed, name, Some(bytes)));
    assert_invalid(&changed(PAGE, &[&find(PAGE)[..], b" "].concat()), "file-changed");
    assert_invalid(
        &parties.verdict(&with_file(&sealed, "Doc_0/PublicRes.xml", None)),
        "file-missing",
    );
    assert_invalid(&changed("Doc_0/Annots.xml", b"<a/>"), "not-covered");
    assert_invalid(&changed(&format!("{sign}Seal.esl"), &other_seal), "seal-file");
    let xml = String::from_utf8(find(&format!("{sign}Signature.xml"))).unwrap();
    let moved = xml.replace("120.5 200 42 42", "10 10 42 42");
    assert_ne!(moved, xml);
    assert_invalid(
        &changed(&format!("{sign}Signature.xml"), moved.as_bytes()),
        "seal",
    );
    let list = String::from_utf8(find("Doc_0/Signs/Signatures.xml")).unwrap();
    let kind = list.replace("Type=\"Seal\"", "Type=\"Sign\"");
    assert_invalid(&changed("Doc_0/Signs/Signatures.xml", kind.as_bytes()), "kind");
    let nothing = parties.verdict(&with_file(&sealed, &format!("{sign}SignedValue.dat"), Some(b"0")));
    assert_invalid(&nothing, "kind");
}

/// The value is lifted from another document that the signer did sign.
#[test]
fn a_signature_cannot_be_moved_to_another_document() {
    let parties = Parties::new();
    let sealed = parties.sealed(&pack(&files(1)));
    let mut target = files(2);
    let taken = unpack(&sealed)
        .into_iter()
        .filter(|(name, _)| name.contains("Signs/") || name == "OFD.xml");
    target.retain(|(name, _)| name != "OFD.xml");
    target.extend(taken);
    assert_invalid(&parties.verdict(&pack(&target)), "file-changed");
}

#[test]
fn whom_to_believe_decides() {
    let parties = Parties::new();
    let sealed = parties.sealed(&pack(&files(1)));
    let nobody = verify(&sealed, &Anchors::default(), Policy::default(), NOW).unwrap();
    assert_invalid(&nobody, "seal");
    let before = verify(
        &sealed,
        &parties.trust(),
        Policy::default(),
        UnixMillis(NOW.0 - DAY),
    )
    .unwrap();
    assert_invalid(&before, "seal");
}

#[test]
fn an_unsigned_package_has_no_verdict() {
    let parties = Parties::new();
    let verdict = parties.verdict(&pack(&files(1)));
    assert_eq!((verdict.standing, verdict.signatures.len()), (None, 0));
}

#[test]
fn the_verdict_is_json() {
    let parties = Parties::new();
    let json = serde_json::to_value(parties.verdict(&parties.sealed(&pack(&files(1))))).unwrap();
    let signature = &json["signatures"][0];
    assert_eq!(
        (json["standing"].as_str(), signature["kind"].as_str()),
        (Some("valid"), Some("seal"))
    );
    assert_eq!(signature["seal"]["seal"]["name"], "朱砂科技有限公司");
    assert_eq!(signature["stamps"][0]["page"], 1);
    assert_eq!(signature["stamps"][0]["boundary"]["x"], 120.5);
    assert_eq!(signature["references"][0]["state"], "intact");
    assert_eq!(signature["provider"], "Cinnabar 0.1 朱砂 & <Co>");
}
