//! Signatures as others write them: relative paths, other names of files, bare numbers as ids, another order of
//! children, no prefix, and both shapes of CMS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use documents::ofd::{Kind, SignatureKind};
use documents::ses::{SignatureRequest, prepare_signature};
use protocol::algorithm::{Algorithm, Hash};

use super::support::{Files, assert_invalid, assert_valid, files, pack, provider, sign};
use crate::seals::support::Parties;
use crate::seals::{SM2_WITH_SM3, element, octets, sequence};

const LIST: &str = "<Signatures xmlns=\"http://www.ofdspec.org\"><Signature BaseLoc=\"S1/sig.xml\" ID=\"1\" Type=\"KIND\"/>\
                    <MaxSignId>1</MaxSignId></Signatures>";

/// The files of a package with a foreign signature that lacks its value, and the bytes of its Signature.xml.
fn foreign(kind: &str) -> (Files, Vec<u8>) {
    let mut files = files(1);
    let root = String::from_utf8(files[0].1.clone()).unwrap();
    let with_list = "</ofd:DocRoot><ofd:Signatures>Doc_0/Sig/list.xml</ofd:Signatures>";
    files[0].1 = root.replace("</ofd:DocRoot>", with_list).into_bytes();
    let references: String = files
        .iter()
        .map(|(name, bytes)| {
            let value = STANDARD.encode(Hash::Sm3.digest(bytes));
            format!("<Reference FileRef=\"/{name}\"><CheckValue>\n{value}\n</CheckValue></Reference>")
        })
        .collect();
    let xml = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Signature xmlns=\"http://www.ofdspec.org\">\
         <SignedValue>SignValue.dat</SignedValue><SignedInfo><References CheckMethod=\"SM3\">{references}</References>\
         <StampAnnot Boundary=\"0 0 30 20\" ID=\"2\" PageRef=\"100\"/><Provider ProviderName=\"other\"/></SignedInfo></Signature>"
    );
    files.push((
        "Doc_0/Sig/list.xml".into(),
        LIST.replace("KIND", kind).into_bytes(),
    ));
    files.push(("Doc_0/Sig/S1/sig.xml".into(), xml.clone().into_bytes()));
    (files, xml.into_bytes())
}

fn with_value(mut files: Files, value: Vec<u8>) -> Vec<u8> {
    files.push(("Doc_0/Sig/S1/SignValue.dat".into(), value));
    pack(&files)
}

fn sealed(parties: &Parties) -> Vec<u8> {
    let (files, xml) = foreign("Seal");
    let seal = parties.seal();
    let data_hash = Hash::Sm3.digest(&xml).to_vec().try_into().unwrap();
    let prepared = prepare_signature(&SignatureRequest {
        data_hash,
        ..parties.request(&seal)
    })
    .unwrap();
    let value = parties.signer.key.sign(Algorithm::Sm2Sm3, prepared.message());
    with_value(files, prepared.assemble(&value, None).unwrap())
}

#[test]
fn a_foreign_seal_signature_holds_and_ours_follows() {
    let parties = Parties::new();
    let foreign = sealed(&parties);
    let verdict = parties.verdict(&foreign);
    assert_valid(&verdict, &[SignatureKind::Seal]);
    assert_eq!(
        (
            verdict.signatures[0].id.as_str(),
            verdict.signatures[0].stamps[0].page
        ),
        ("1", Some(1))
    );
    let both = parties.sealed(&foreign);
    let verdict = parties.verdict(&both);
    assert_valid(&verdict, &[SignatureKind::Seal, SignatureKind::Seal]);
    assert_eq!(verdict.signatures[1].path, "Doc_0/Sig/Sign_0/Signature.xml");
    let provider = provider();
    let third = sign(
        &both,
        &parties.ofd_request(Kind::Sign, &provider),
        &parties.signer,
    );
    assert_eq!(parties.verdict(&third).signatures.len(), 3);
}

const SM3: &[u8] = &[
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x83, 0x11,
];
/// 1.2.156.10197.6.1.4.2.1 and .2.
const DATA: &[u8] = &[
    0x06, 0x0a, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x06, 0x01, 0x04, 0x02, 0x01,
];
const SIGNED_DATA: &[u8] = &[
    0x06, 0x0a, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x06, 0x01, 0x04, 0x02, 0x02,
];

/// Shape A: the digest is the content and what is signed.
fn shape_a(parties: &Parties, digest: &[u8], signed: &[u8]) -> Vec<u8> {
    let tagged = |inner: &[u8]| {
        let tag = der::Tag::ContextSpecific {
            constructed: true,
            number: der::TagNumber(0),
        };
        element(tag, &[inner])
    };
    let certificate = &parties.signer.certificate;
    let names = documents::x509::issuer_and_serial(certificate).unwrap();
    let value = parties.signer.key.sign(Algorithm::Sm2Sm3, signed);
    let signer = sequence(&[
        &[2, 1, 1],
        &names,
        SM3,
        &sequence(&[SM2_WITH_SM3]),
        &octets(&value),
    ]);
    let content = sequence(&[DATA, &tagged(&octets(digest))]);
    let body = sequence(&[
        &[2, 1, 1],
        &element(der::Tag::Set, &[SM3]),
        &content,
        &tagged(certificate),
        &element(der::Tag::Set, &[&signer]),
    ]);
    sequence(&[SIGNED_DATA, &tagged(&body)])
}

#[test]
fn a_foreign_plain_signature_over_the_digest_holds() {
    let parties = Parties::new();
    let (files, xml) = foreign("Sign");
    let digest = Hash::Sm3.digest(&xml);
    let good = with_value(files.clone(), shape_a(&parties, &digest, &digest));
    assert_valid(&parties.verdict(&good), &[SignatureKind::Sign]);
    let bad = with_value(files.clone(), shape_a(&parties, &digest, &[1; 32]));
    assert_invalid(&parties.verdict(&bad), "signature");
    let other = with_value(files, shape_a(&parties, &[1; 32], &[1; 32]));
    assert_invalid(&parties.verdict(&other), "signature");
}

#[test]
fn a_bare_signature_is_nobodys() {
    let parties = Parties::new();
    let (files, xml) = foreign("Sign");
    let value = parties
        .signer
        .key
        .sign(Algorithm::Sm2Sm3, &Hash::Sm3.digest(&xml));
    assert_invalid(&parties.verdict(&with_value(files, value)), "bare-signature");
}

#[test]
fn weak_digests_are_not_accepted() {
    let parties = Parties::new();
    let (mut files, _) = foreign("Seal");
    let xml = String::from_utf8(files.last().unwrap().1.clone()).unwrap();
    for method in ["CheckMethod=\"MD5\"", "CheckMethod=\"SHA1\"", ""] {
        files.last_mut().unwrap().1 = xml.replace("CheckMethod=\"SM3\"", method).into_bytes();
        assert_invalid(
            &parties.verdict(&with_value(files.clone(), vec![0x30, 0])),
            "check-method",
        );
    }
}

/// An attacker signs with a page as "signature value", so that it would pass for a file of the signature.
#[test]
fn a_page_cannot_hide_as_part_of_a_signature() {
    let parties = Parties::new();
    let sealed = parties.sealed(&pack(&files(1)));
    let mut files = super::support::unpack(&sealed);
    let page = "Doc_0/Pages/Page_1/Content.xml";
    for (name, bytes) in &mut files {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if name == "Doc_0/Signs/Signatures.xml" {
            let added =
                "<ofd:Signature ID=\"s009\" Type=\"Sign\" BaseLoc=\"/Doc_0/Signs/x.xml\"/></ofd:Signatures>";
            *bytes = text.replace("</ofd:Signatures>", added).into_bytes();
        }
        // The attacker's own document, in which everything but the new page is as signed.
        if name == "Doc_0/Document.xml" {
            *bytes = text
                .replace(
                    "</ofd:Pages>",
                    "<ofd:Page ID=\"7\" BaseLoc=\"Pages/Page_1/Content.xml\"/></ofd:Pages>",
                )
                .into_bytes();
        }
    }
    files.push((page.into(), b"<ofd:Page xmlns:ofd=\"u\"/>".to_vec()));
    let hiding = format!(
        "<S><SignedInfo><References CheckMethod=\"SM3\"/></SignedInfo><SignedValue>/{page}</SignedValue></S>"
    );
    files.push(("Doc_0/Signs/x.xml".into(), hiding.into_bytes()));
    let verdict = parties.verdict(&pack(&files));
    assert_invalid(&verdict, "not-covered");
    assert!(
        verdict.signatures[0].not_covered.contains(&page.to_owned()),
        "{verdict:#?}"
    );
}
