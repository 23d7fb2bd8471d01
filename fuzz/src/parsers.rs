//! A function for each parser of what strangers send. None may panic, hang or take memory out of proportion; what they
//! return does not matter. Both the fuzz targets and the plain tests of the corpus run these.

use documents::trust::{Known, RevocationRule};
use documents::{cms, crl, csr, ocsp, ofd, pdf, seal_image, sealing, ses, tsp, x509};
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use protocol::frame::FrameReader;
use protocol::{http_proof, limits, message};

/// 2026-11-24, when the seeds were made.
const NOW: UnixMillis = UnixMillis(1_795_500_000_000);
/// The certificate of the root under which the seeds were made.
const ROOT: &[u8] = include_bytes!("../corpus/x509/root.der");

/// A parser under its name, which is that of its target and its folder in the corpus.
pub type Parser = (&'static str, fn(&[u8]));

/// Every parser.
pub const ALL: [Parser; 17] = [
    ("cms", cms),
    ("crl", crl),
    ("csr", csr),
    ("evidence", evidence),
    ("frame", frame),
    ("http_proof", http_proof),
    ("image", image),
    ("message", message),
    ("ocsp_request", ocsp_request),
    ("ocsp_response", ocsp_response),
    ("ofd", ofd),
    ("pdf", pdf),
    ("pdf_update", pdf_update),
    ("ses", ses),
    ("tsp_request", tsp_request),
    ("tsp_response", tsp_response),
    ("x509", x509),
];

fn known() -> Known {
    Known {
        anchors: vec![ROOT.to_vec()],
        revocation: RevocationRule::Required,
        ..Known::default()
    }
}

/// CMS in DER (RFC 5652).
pub fn cms(data: &[u8]) {
    let _ = cms::verify_detached(data, &|hash: Hash| hash.digest(b"content"), &[ROOT]);
}

/// Revocation lists in DER (RFC 5280 5).
pub fn crl(data: &[u8]) {
    if let Ok(list) = crl::Crl::parse(data) {
        let _ = (list.verify(ROOT), list.find(&[1]), list.number(), list.updates());
    }
}

/// Certificate requests in DER (PKCS#10).
pub fn csr(data: &[u8]) {
    let _ = csr::Request::parse(data);
}

/// Certificates, lists and responses as evidence of a sealing: JSON.
pub fn evidence(data: &[u8]) {
    let _: Result<sealing::Order, _> = serde_json::from_slice(data);
    let _: Result<sealing::Paused, _> = serde_json::from_slice(data);
}

/// Frames of the native protocol, as the bytes of a stream.
pub fn frame(data: &[u8]) {
    let mut reader = FrameReader::default();
    for chunk in data.chunks(7) {
        reader.extend(chunk);
        while let Ok(Some(payload)) = reader.next_frame(limits::FRAME_BYTES_MAX) {
            let _ = message::ClientFrame::decode(payload);
        }
    }
}

/// HTTP message signatures (RFC 9421): the two header fields, on a line each.
pub fn http_proof(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (input, signature) = text.split_once('\n').unwrap_or((&text, ""));
    let parts = http_proof::Parts {
        method: "POST",
        authority: "localhost:8443",
        path: "/v1/signatures",
        query: None,
        content_digest: Some("sha-256=:AA==:"),
        idempotency_key: Some("key"),
    };
    let _ = http_proof::read(&parts, input, signature);
    let _ = http_proof::check_content_digest(&text, b"body");
}

/// Pictures of seals: PNG and JPEG.
pub fn image(data: &[u8]) {
    let _ = pdf::SealImage::from_png(data);
    let _ = seal_image::accept(data, true);
}

/// Messages of the native protocol, in both directions.
pub fn message(data: &[u8]) {
    let _ = message::ClientFrame::decode(data);
    let _ = message::Request::decode(data);
    let _ = message::ServerFrame::decode(data);
}

/// OCSP requests in DER and as paths (RFC 6960 4.1).
pub fn ocsp_request(data: &[u8]) {
    let _ = ocsp::Request::parse(data);
    let _ = std::str::from_utf8(data).map(ocsp::Request::from_path);
}

/// OCSP responses in DER (RFC 6960 4.2).
pub fn ocsp_response(data: &[u8]) {
    if let Ok(response) = ocsp::Response::parse(data) {
        let named = ocsp::Named::new(ROOT).expect("a certificate of ours");
        let id = ocsp::CertId::new(&named, &[1], ocsp::IdHash::Sha1);
        let _ = (response.verify(ROOT, &id, None, NOW), response.certificates());
    }
}

/// OFD packages: ZIP and XML (GB/T 33190).
pub fn ofd(data: &[u8]) {
    let known = known();
    let _ = ofd::verify(data, &known.judge(NOW), ses::Policy::default(), NOW);
    let _ = (ofd::pages(data, 0), ofd::signers(data));
}

/// PDF files, verified (ISO 32000-2).
pub fn pdf(data: &[u8]) {
    let _ = pdf::verify_with(data, &known(), NOW);
    let _ = pdf::signers(data);
}

/// PDF files, to which something is added.
pub fn pdf_update(data: &[u8]) {
    let _ = pdf::prepare_time_stamp(data, Hash::Sha256, 64, NOW);
    let _ = pdf::add_validation_data(data, &pdf::ValidationData::default(), NOW);
}

/// Electronic seals and seal signatures in DER (GB/T 38540, GM/T 0031).
pub fn ses(data: &[u8]) {
    let known = known();
    let lenient = ses::Policy {
        refuse_unknown_critical: false,
        accept_raw_pairs: true,
    };
    let _ = ses::verify_seal(data, &known.judge(NOW), lenient, NOW);
    let _ = ses::verify_signature(data, &[7; 32], &known.judge(NOW), lenient, NOW);
}

/// Time-stamp requests in DER (RFC 3161 2.4.1).
pub fn tsp_request(data: &[u8]) {
    let _ = tsp::Request::parse(data);
}

/// Time-stamp responses in DER (RFC 3161 2.4.2).
pub fn tsp_response(data: &[u8]) {
    let token = tsp::token_of(data).unwrap_or(data);
    let _ = tsp::verify_token(token, &|hash: Hash| hash.digest(b"content"), None, &[ROOT]);
    let _ = tsp::certificates_of(token);
}

/// Certificates in DER (RFC 5280).
pub fn x509(data: &[u8]) {
    let _ = (
        x509::subject(data),
        x509::validity(data),
        x509::issuer_and_serial(data),
    );
    let _ = (x509::sources(data), x509::check_public_key(data));
    let rules = x509::PathRules {
        at: NOW,
        purposes: &[],
        policies: x509::PolicyRules::default(),
        revocation: None,
    };
    let _ = x509::validate_path(data, &[data], &[ROOT], &rules);
    let _ = x509::verify_issued_by(ROOT, data);
}
