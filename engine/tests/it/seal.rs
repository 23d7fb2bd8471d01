//! Sealing PDFs from the command line: the document stays on the machine, and strangers accept what comes out.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::strangers::{python, workspace};
use crate::support::{Engine, Ran, run};

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

/// An engine with a fixture as `in.pdf` and a picture as `seal.png` in its folder.
fn engine_with(fixture: &str) -> Engine {
    let engine = Engine::start();
    let fixtures = workspace().join("documents/tests/fixtures/pdf");
    std::fs::copy(fixtures.join(fixture), folder(&engine).join("in.pdf")).unwrap();
    std::fs::copy(fixtures.join("seal.png"), folder(&engine).join("seal.png")).unwrap();
    engine
}

fn cinnabar(engine: &Engine, line: &str) -> Ran {
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

fn seal(engine: &Engine, options: &str) -> Ran {
    let profile = "--profile var/dev/app.toml";
    cinnabar(engine, &format!("seal {profile} {options}"))
}

fn verify(engine: &Engine, pdf: &str) -> Ran {
    cinnabar(engine, &format!("verify --pdf {pdf} --ca var/dev/ca.pem"))
}

/// Another program in the engine's folder.
fn stranger(engine: &Engine, program: impl AsRef<std::ffi::OsStr>, line: &str) -> Ran {
    run(Command::new(program)
        .current_dir(folder(engine))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(line.split_whitespace()))
}

fn pyhanko(engine: &Engine, pdf: &str) -> Vec<String> {
    let script = workspace().join("documents/tests/strangers/pyhanko_judge.py");
    let said = stranger(
        engine,
        python(),
        &format!("{} {pdf} var/dev/ca.pem", script.display()),
    )
    .ok();
    said.lines().map(str::to_owned).collect()
}

#[test]
fn strangers_accept_a_visible_seal_by_every_key_over_both_transports() {
    let engine = engine_with("latex.pdf");
    let place = "--image seal.png --at page=2,x=100,y=100,w=42,unit=mm";
    for (credential, transport) in [
        ("demo-p256", "quic"),
        ("demo-rsa2048 --algorithm rsa-pss-sha256", "https"),
        ("demo-rsa2048 --algorithm rsa-pkcs1-sha384", "quic"),
    ] {
        let options =
            format!("--pdf in.pdf --credential {credential} --transport {transport} {place} --out out.pdf");
        seal(&engine, &options).ok();
        let (before, after) = (read(&engine, "in.pdf"), read(&engine, "out.pdf"));
        assert!(after.starts_with(&before), "every original byte is where it was");
        let judged = pyhanko(&engine, "out.pdf");
        assert!(
            judged.len() == 1 && judged[0].contains("bottom_line=True"),
            "{judged:?}"
        );
        assert!(
            stranger(&engine, "pdfsig", "-nocert out.pdf")
                .ok()
                .contains("Signature is Valid.")
        );
        stranger(&engine, "qpdf", "--check out.pdf").ok();
        let said = verify(&engine, "out.pdf").ok();
        assert!(said.starts_with("valid: Signature1 by CN=demo demo-"), "{said}");
    }
}

fn read(engine: &Engine, name: &str) -> Vec<u8> {
    std::fs::read(folder(engine).join(name)).unwrap()
}

#[test]
fn a_seal_on_a_word_and_one_across_the_pages_are_one_signature_each() {
    let engine = engine_with("latex.pdf");
    for place in [
        "--keyword Party --which all",
        "--keyword Party --which 2 --width 30",
        "--paging --width 40",
    ] {
        let options = format!("--pdf in.pdf --credential demo-p256 --image seal.png {place} --out out.pdf");
        seal(&engine, &options).ok();
        let judged = pyhanko(&engine, "out.pdf");
        assert!(
            judged.len() == 1 && judged[0].contains("bottom_line=True"),
            "{place}: {judged:?}"
        );
        verify(&engine, "out.pdf").ok();
    }
    let nowhere = "--pdf in.pdf --credential demo-p256 --image seal.png --keyword Nobody --out none.pdf";
    seal(&engine, nowhere).refused(2, "document_refused");
}

#[test]
fn several_seals_and_a_certification_are_told_apart() {
    let engine = engine_with("pyhanko-fields.pdf");
    seal(
        &engine,
        "--pdf in.pdf --credential demo-p256 --certify 2 --reason approved --out one.pdf",
    )
    .ok();
    seal(
        &engine,
        "--pdf one.pdf --credential demo-rsa2048 --field PartyA --image seal.png --out two.pdf",
    )
    .ok();
    let judged = pyhanko(&engine, "two.pdf");
    assert_eq!(judged.len(), 2);
    assert!(
        judged.iter().all(|line| line.contains("bottom_line=True")),
        "{judged:?}"
    );
    let json = cinnabar(&engine, "verify --pdf two.pdf --ca var/dev/ca.pem --json").ok();
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["verdict"], "valid");
    let signatures = report["signatures"].as_array().unwrap();
    let certifying: Vec<_> = signatures
        .iter()
        .filter(|found| found["certifies"] == "form-filling")
        .collect();
    assert_eq!(certifying.len(), 1);
    assert_eq!(certifying[0]["later_changes"][0]["kind"], "signature");
    let visible = "--credential demo-p256 --image seal.png --at x=10,y=10 --out three.pdf";
    seal(&engine, &format!("--pdf two.pdf {visible}")).refused(2, "document_refused");
    assert!(!folder(&engine).join("three.pdf").exists());
}

#[test]
fn a_retry_with_its_key_and_time_brings_the_same_file_and_is_counted_once() {
    let engine = engine_with("reportlab.pdf");
    let usage = || cinnabar(&engine, "usage --profile var/dev/app.toml --json").ok();
    let before = usage();
    let now = protocol::clock::wall().seconds();
    let call = format!("--pdf in.pdf --credential demo-p256 --idempotency-key once --signing-time {now}");
    seal(&engine, &format!("{call} --out one.pdf")).ok();
    let after = usage();
    assert_ne!(before, after);
    seal(&engine, &format!("{call} --out two.pdf")).ok();
    assert_eq!(read(&engine, "one.pdf"), read(&engine, "two.pdf"));
    assert_eq!(usage(), after);
}

#[test]
fn what_cannot_be_sealed_is_refused_and_not_charged() {
    let engine = engine_with("reportlab.pdf");
    let usage = || cinnabar(&engine, "usage --profile var/dev/app.toml --json").ok();
    let before = usage();
    std::fs::write(folder(&engine).join("text.pdf"), "not a PDF").unwrap();
    let by = "--credential demo-p256 --out out.pdf";
    seal(&engine, &format!("--pdf text.pdf {by}")).refused(2, "document_unreadable");
    seal(&engine, &format!("--pdf none.pdf {by}")).refused(2, "file");
    seal(&engine, &format!("--pdf in.pdf {by} --image in.pdf --at x=1,y=1")).refused(2, "image_unusable");
    seal(
        &engine,
        &format!("--pdf in.pdf {by} --image seal.png --at page=9,x=1,y=1"),
    )
    .refused(2, "usage");
    seal(&engine, &format!("--pdf in.pdf {by} --at x=1")).refused(2, "usage");
    seal(&engine, "--pdf in.pdf --credential demo-sm2 --out out.pdf").refused(2, "unsupported_format");
    seal(&engine, "--pdf in.pdf --credential nobody --out out.pdf").refused(2, "unknown_credential");
    verify(&engine, "in.pdf").refused(2, "signature_invalid");
    assert_eq!(usage(), before);
    assert!(!folder(&engine).join("out.pdf").exists());
}

#[test]
fn a_changed_file_is_not_valid() {
    let engine = engine_with("reportlab.pdf");
    seal(&engine, "--pdf in.pdf --credential demo-p256 --out out.pdf").ok();
    let mut pdf = read(&engine, "out.pdf");
    pdf[100] ^= 1;
    std::fs::write(folder(&engine).join("changed.pdf"), pdf).unwrap();
    let ran = verify(&engine, "changed.pdf");
    ran.refused(2, "signature_invalid");
    assert!(ran.stdout.starts_with("invalid: Signature1"), "{ran:?}");
    // By another CA than those that are trusted.
    let other = cinnabar(&engine, "verify --pdf out.pdf --ca var/dev/tls-ca.pem");
    other.refused(2, "signature_invalid");
    assert!(other.stdout.contains("no-trust-anchor"), "{other:?}");
}
