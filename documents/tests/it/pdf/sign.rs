//! Signatures in files of many producers, judged by strangers.

use documents::pdf::{Permission, Placement, Position, PrepareError, Request, Seal};
use protocol::algorithm::Algorithm;

use super::judge::{Picture, pdfsig, pyhanko, qpdf_accepts};
use super::verify::{is_valid, report};
use super::{PRODUCERS, Signer, at, fixture, seal_image};

/// pyHanko's words for a signature that is good in every way.
#[track_caller]
fn is_good(line: &str) {
    for word in [
        "intact=True",
        "valid=True",
        "trusted=True",
        "bottom_line=True",
        "docmdp=True",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[test]
fn strangers_accept_a_signature_in_the_file_of_every_producer() {
    let signer = Signer::p256();
    for name in PRODUCERS {
        let pdf = fixture(name);
        let signed = signer.sign(&pdf, &Request::default());
        assert!(signed.starts_with(&pdf), "{name}");
        qpdf_accepts(&signed);
        let judged = pyhanko(&signed, &signer.root.certificate);
        assert_eq!(judged.len(), 1, "{name}: {judged:?}");
        is_good(&judged[0]);
        assert!(judged[0].contains("coverage=ENTIRE_FILE"), "{name}: {judged:?}");
        let said = pdfsig(&signed);
        assert!(said.contains("Signature is Valid."), "{name}: {said}");
        assert!(said.contains("Total document signed"), "{name}: {said}");
        assert!(said.contains("ETSI.CAdES.detached"), "{name}: {said}");
    }
}

#[test]
fn every_algorithm_that_makes_cms_makes_pdf_signatures() {
    let pdf = fixture("reportlab");
    let supported = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| documents::cms::supports(*algorithm));
    for algorithm in supported {
        let signer = Signer::new(algorithm);
        let signed = signer.sign(&pdf, &Request::default());
        let judged = pyhanko(&signed, &signer.root.certificate);
        is_good(&judged[0]);
    }
    let sm2 = Signer::new(Algorithm::Sm2Sm3);
    let refused = sm2.prepare(&pdf, &Request::default()).unwrap_err();
    assert!(matches!(refused, PrepareError::Signer(_)), "{refused}");
}

#[test]
fn several_signatures_stand_one_after_another() {
    let signer = Signer::p256();
    for name in ["reportlab", "latex", "hybrid"] {
        let mut pdf = fixture(name);
        for _ in 0..3 {
            pdf = signer.sign(&pdf, &Request::default());
            qpdf_accepts(&pdf);
        }
        let judged = pyhanko(&pdf, &signer.root.certificate);
        assert_eq!(judged.len(), 3, "{name}");
        for (line, field) in judged.iter().zip(["Signature1", "Signature2", "Signature3"]) {
            assert!(line.starts_with(field), "{line}");
            is_good(line);
        }
        assert!(judged[0].contains("coverage=ENTIRE_REVISION"), "{judged:?}");
        assert!(judged[2].contains("coverage=ENTIRE_FILE"), "{judged:?}");
    }
}

#[test]
fn fields_that_wait_are_filled_and_nothing_else_is() {
    let signer = Signer::p256();
    let image = seal_image();
    let placement = Placement::InField;
    let seal = Some(Seal {
        image: &image,
        placement: &placement,
    });
    let request = |field| Request {
        field: Some(field),
        seal,
        ..Request::default()
    };
    let mut pdf = fixture("pyhanko-fields");
    for field in ["PartyB", "PartyA"] {
        pdf = signer.sign(&pdf, &request(field));
    }
    qpdf_accepts(&pdf);
    let judged = pyhanko(&pdf, &signer.root.certificate);
    assert_eq!(judged.len(), 2);
    judged.iter().for_each(|line| is_good(line));
    let refused = |field| signer.prepare(&pdf, &request(field)).unwrap_err();
    assert_eq!(refused("PartyA"), PrepareError::AlreadySigned("PartyA".into()));
    assert_eq!(refused("PartyC"), PrepareError::NoPlace("PartyC".into()));
    assert_eq!(refused("Party.C"), PrepareError::FieldName("Party.C".into()));
    let form = fixture("reportlab-form");
    let other = signer.prepare(&form, &request("name")).unwrap_err();
    assert_eq!(other, PrepareError::NotASignatureField("name".into()));
}

#[test]
fn a_certification_is_kept_by_those_who_sign_later() {
    let signer = Signer::p256();
    let certify = |permission| Request {
        certify: Some(permission),
        ..Request::default()
    };
    let pdf = fixture("pyhanko-fields");
    let closed = signer.sign(&pdf, &certify(Permission::NoChanges));
    is_good(&pyhanko(&closed, &signer.root.certificate)[0]);
    assert_eq!(
        signer.prepare(&closed, &Request::default()).unwrap_err(),
        PrepareError::Certified
    );

    let open = signer.sign(&pdf, &certify(Permission::FormFilling));
    assert_eq!(
        signer
            .prepare(&open, &certify(Permission::FormFilling))
            .unwrap_err(),
        PrepareError::NotFirst
    );
    let image = seal_image();
    let placement = at(1, Position::default());
    let seal = Some(Seal {
        image: &image,
        placement: &placement,
    });
    let beside = Request {
        seal,
        ..Request::default()
    };
    assert_eq!(
        signer.prepare(&open, &beside).unwrap_err(),
        PrepareError::NewFieldAfterCertification
    );
    let field = Request {
        field: Some("PartyA"),
        ..Request::default()
    };
    let both = signer.sign(&signer.sign(&open, &field), &Request::default());
    let judged = pyhanko(&both, &signer.root.certificate);
    assert_eq!(judged.len(), 3);
    judged.iter().for_each(|line| is_good(line));
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    let signer = Signer::p256();
    let refused = |pdf: &[u8]| signer.prepare(pdf, &Request::default()).unwrap_err().to_string();
    assert_eq!(refused(b"no PDF at all"), "not a PDF file");
    assert_eq!(
        refused(b"%PDF-1.7\n"),
        "the end of the PDF is missing: no startxref"
    );
    let pdf = fixture("reportlab");
    assert!(refused(&pdf[..pdf.len() / 2]).contains("no startxref"));
    let shifted = [b"%PDF-1.7\n", &pdf[..]].concat();
    assert!(
        refused(&shifted).contains("cross-reference"),
        "{}",
        refused(&shifted)
    );
}

#[test]
fn a_signature_larger_than_its_room_is_not_written() {
    let signer = Signer::p256();
    let pdf = fixture("reportlab");
    let request = Request {
        time_stamp_bytes: 10,
        ..Request::default()
    };
    let prepared = signer.prepare(&pdf, &request).unwrap();
    let signature = signer
        .holder
        .key
        .sign(signer.holder.algorithm, prepared.to_sign());
    let token = [&[0x04, 0x81, 200][..], &[0; 200]].concat();
    let error = prepared.assemble_time_stamped(&signature, &token).unwrap_err();
    assert!(
        matches!(error, documents::pdf::AssembleError::NoRoom { .. }),
        "{error}"
    );
}

#[test]
fn files_that_are_encrypted_but_open_are_signed_within_what_they_permit() {
    let signer = Signer::p256();
    let image = seal_image();
    let placement = at(1, Position::default());
    let seal = Some(Seal {
        image: &image,
        placement: &placement,
    });
    let request = Request {
        seal,
        reason: Some("同意"),
        ..Request::default()
    };
    for name in [
        "qpdf-encrypted-128",
        "qpdf-encrypted-256",
        "qpdf-encrypted-objstm",
    ] {
        let pdf = fixture(name);
        let once = signer.sign(&pdf, &request);
        let twice = signer.sign(&once, &request);
        assert!(twice.starts_with(&pdf));
        qpdf_accepts(&twice);
        let judged = pyhanko(&twice, &signer.root.certificate);
        assert_eq!(judged.len(), 2, "{name}: {judged:?}");
        judged.iter().for_each(|line| is_good(line));
        assert!(Picture::of(&twice, 1).red_box().is_some(), "{name}");
        assert!(pdfsig(&twice).contains("Signature is Valid."), "{name}");
        report(&signer, &twice).signatures.iter().for_each(is_valid);
        assert!(
            !twice.windows(10).any(|window| window == b"Signature1"),
            "{name}: in the clear"
        );
    }
    let refused =
        |name: &str, request: &Request<'_>| signer.prepare(&fixture(name), request).unwrap_err().to_string();
    let open = Request::default();
    assert_eq!(
        refused("qpdf-password", &open),
        "the PDF is encrypted and asks for a password"
    );
    assert!(refused("qpdf-rc4", &open).contains("RC4"));
    let field = Request {
        field: Some("PartyA"),
        ..Request::default()
    };
    for request in [open, field] {
        assert!(refused("qpdf-no-modify", &request).contains("does not permit"));
    }
}
