//! What verification says of good files: ours and pyHanko's.

use documents::pdf::{ChangeKind, Permission, Report, Request, SignatureReport, Verdict, verify};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use super::judge::pyhanko_signs;
use super::{PRODUCERS, Signer, fixture};
use crate::support::{NOT_AFTER, NOW};

pub(super) fn report(signer: &Signer, pdf: &[u8]) -> Report {
    verify(pdf, &[&signer.root.certificate], NOW).unwrap()
}

#[track_caller]
pub(super) fn is_valid(signature: &SignatureReport) {
    assert_eq!(signature.verdict, Verdict::Valid, "{signature:#?}");
    assert_eq!(
        (signature.digest_ok, signature.signature_ok, signature.chain_ok),
        (Some(true), Some(true), Some(true))
    );
}

#[test]
fn a_signature_in_the_file_of_every_producer_is_valid() {
    let signer = Signer::p256();
    for name in PRODUCERS {
        let pdf = fixture(name);
        assert_eq!(report(&signer, &pdf).verdict, None, "{name}");
        let signed = signer.sign(&pdf, &Request::default());
        let report = report(&signer, &signed);
        let [signature] = report.signatures.as_slice() else {
            panic!("{name}: {report:#?}")
        };
        is_valid(signature);
        assert_eq!(signature.signer.as_deref(), Some("CN=Signer,O=朱砂,C=CN"));
        assert_eq!(signature.algorithm.as_deref(), Some("ecdsa-p256-sha256"));
        assert_eq!(signature.claimed_time_ms, Some(NOW.0));
        assert!(signature.later_changes.is_empty());
        let [(from, to)] = signature.not_covered[..] else {
            panic!("{:?}", signature.not_covered)
        };
        assert_eq!(
            (signed[from], signed[to - 1]),
            (b'<', b'>'),
            "only the value is left out"
        );
    }
}

#[test]
fn later_signatures_are_named_and_permitted() {
    let signer = Signer::p256();
    for name in ["reportlab", "latex", "hybrid", "qpdf-linearized"] {
        let first = signer.sign(&fixture(name), &Request::default());
        let second = signer.sign(&first, &Request::default());
        let report = report(&signer, &second);
        assert_eq!(report.signatures.len(), 2);
        report.signatures.iter().for_each(is_valid);
        let [change] = &report.signatures[0].later_changes[..] else {
            panic!("{report:#?}")
        };
        assert_eq!(
            (change.kind, change.what.as_str()),
            (ChangeKind::Signature, "Signature2")
        );
        let tail = report.signatures[0].not_covered[1];
        assert_eq!(tail, (first.len(), second.len()), "{name}");
    }
}

#[test]
fn a_certification_is_shown_with_what_it_permits() {
    let signer = Signer::p256();
    let request = Request {
        certify: Some(Permission::FormFilling),
        ..Request::default()
    };
    let certified = signer.sign(&fixture("pyhanko-fields"), &request);
    let field = Request {
        field: Some("PartyA"),
        ..Request::default()
    };
    let signed = signer.sign(&certified, &field);
    let report = report(&signer, &signed);
    report.signatures.iter().for_each(is_valid);
    let certifies: Vec<_> = report
        .signatures
        .iter()
        .map(|signature| signature.certifies)
        .collect();
    assert!(certifies.contains(&Some(Permission::FormFilling)) && certifies.contains(&None));
}

#[test]
fn what_is_not_known_is_not_valid_and_not_invalid() {
    let signer = Signer::p256();
    let stranger = Signer::new(Algorithm::EcdsaP384Sha384);
    let signed = signer.sign(&fixture("reportlab"), &Request::default());
    let code = |root: &[u8], now| {
        let report = verify(&signed, &[root], now).unwrap();
        assert_eq!(report.verdict, Some(Verdict::Indeterminate));
        report.signatures[0].findings[0].code
    };
    let nobody = stranger.root.certify(&stranger.root.spec(
        "Nobody",
        &stranger.root.key,
        documents::x509::Profile::Root,
    ));
    assert_eq!(code(&nobody, NOW), "no-trust-anchor");
    let later = UnixMillis(NOT_AFTER.0 + 1000);
    assert_eq!(code(&signer.root.certificate, later), "certificate-not-valid");
}

#[test]
fn what_pyhanko_signs_is_valid() {
    for algorithm in [Algorithm::EcdsaP256Sha256, Algorithm::RsaPkcs1Sha256] {
        let signer = Signer::new(algorithm);
        for name in ["reportlab", "latex", "pyhanko-fields"] {
            let once = pyhanko_signs(&signer, &fixture(name), "First");
            let ours = signer.sign(&once, &Request::default());
            let thrice = pyhanko_signs(&signer, &ours, "Third");
            let report = report(&signer, &thrice);
            assert_eq!(report.signatures.len(), 3);
            report.signatures.iter().for_each(is_valid);
        }
    }
}
