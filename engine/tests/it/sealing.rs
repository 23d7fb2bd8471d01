//! Sealing from the command line up to every level, in one step and in three, PDF and OFD, with time stamps of the engine
//! and what its certificates name; verification with revocation.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use documents::ses::{Allowed, Generation, PictureSpec, SealSpec, prepare_seal};
use protocol::clock::{self, UnixMillis};
use serde_json::Value;

use crate::strangers::{python, workspace};
use crate::support::{Engine, Ran, Setup, run};

const DAY_MS: u64 = 86_400_000;
const PROFILE: &str = "--profile var/dev/app.toml";

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

/// An engine with a PDF, an OFD and a picture in its folder.
fn engine() -> Engine {
    with_files(Engine::start())
}

fn with_files(engine: Engine) -> Engine {
    let fixtures = workspace().join("documents/tests/fixtures");
    for (from, to) in [
        ("pdf/libreoffice.pdf", "in.pdf"),
        ("ofd/two-pages.ofd", "in.ofd"),
        ("pdf/seal.png", "seal.png"),
    ] {
        std::fs::copy(fixtures.join(from), folder(&engine).join(to)).unwrap();
    }
    engine
}

fn cinnabar(engine: &Engine, line: &str) -> Ran {
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

fn read(engine: &Engine, name: &str) -> Vec<u8> {
    std::fs::read(folder(engine).join(name)).unwrap()
}

fn python_says(engine: &Engine, script: &Path, line: &str) -> String {
    run(Command::new(python())
        .current_dir(folder(engine))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONIOENCODING", "utf-8")
        .arg(script)
        .args(line.split_whitespace()))
    .ok()
}

fn pyhanko(engine: &Engine, pdf: &str) -> Vec<String> {
    let script = workspace().join("documents/tests/strangers/pyhanko_judge.py");
    let said = python_says(engine, &script, &format!("{pdf} var/dev/ca.pem"));
    said.lines().map(str::to_owned).collect()
}

fn judge(engine: &Engine, script: &str, file: &str) -> String {
    python_says(
        engine,
        &workspace().join("documents/tests/judges").join(script),
        file,
    )
}

/// All that was found of a document whose verdict is this.
fn verdict(engine: &Engine, what: &str, expected: &str) -> Value {
    let ran = cinnabar(engine, &format!("verify {PROFILE} {what} --json"));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
    let said = report.get("verdict").or_else(|| report.get("standing"));
    assert_eq!(said.unwrap(), expected, "{report:#}");
    assert_eq!(ran.code == 0, expected == "valid", "{ran:?}");
    report
}

/// An electronic seal that the credential `demo-sm2` makes for itself.
fn make_seal(engine: &Engine) {
    let json = cinnabar(engine, &format!("credentials {PROFILE} --json")).ok();
    let listed: Value = serde_json::from_str(&json).unwrap();
    let mut credentials = listed["credentials"].as_array().unwrap().iter();
    let sm2 = credentials
        .find(|credential| credential["id"] == "demo-sm2")
        .unwrap();
    let certificate = pem::parse(sm2["chain"][0].as_str().unwrap())
        .unwrap()
        .into_contents();
    let now = clock::wall().0;
    let spec = SealSpec {
        generation: Generation::V4,
        id: "50011200000323".into(),
        vendor: "Cinnabar".into(),
        kind: 1,
        name: "朱砂科技有限公司".into(),
        allowed: Allowed::Certificates(vec![certificate.clone()]),
        created: UnixMillis(now - 1000),
        validity: (UnixMillis(now - 1000), UnixMillis(now + 30 * DAY_MS)),
        picture: PictureSpec {
            kind: "PNG".into(),
            data: read(engine, "seal.png"),
            width_mm: 40,
            height_mm: 40,
        },
    };
    let prepared = prepare_seal(&spec, &certificate).unwrap();
    let e: String = prepared.e().iter().map(|byte| format!("{byte:02x}")).collect();
    let sign =
        format!("sign {PROFILE} --credential demo-sm2 --algorithm sm2-sm3-e --digest {e} --out seal.sig");
    cinnabar(engine, &sign).ok();
    let seal = prepared.assemble(&read(engine, "seal.sig"), None).unwrap();
    std::fs::write(folder(engine).join("seal.esl"), seal).unwrap();
}

#[test]
fn every_level_stands_before_strangers_and_before_us() {
    let engine = engine();
    for (level, answers) in [("b-t", 1), ("b-lt", 1), ("b-lta", 2)] {
        let seal = format!(
            "seal {PROFILE} --pdf in.pdf --credential demo-p256 --level {level} --image seal.png \
             --at page=1,x=100,y=100,unit=mm --out {level}.pdf"
        );
        cinnabar(&engine, &seal).ok();
        let pdf = read(&engine, &format!("{level}.pdf"));
        assert!(pdf.starts_with(&read(&engine, "in.pdf")));
        let judged = pyhanko(&engine, &format!("{level}.pdf"));
        assert_eq!(judged.len(), answers, "{judged:?}");
        assert!(
            judged[0].contains("bottom_line=True") && judged[0].contains("stamp=True"),
            "{judged:?}"
        );
        run(Command::new("qpdf")
            .current_dir(folder(&engine))
            .args(["--check", &format!("{level}.pdf")]))
        .ok();
        let required = if level == "b-t" { "if-known" } else { "required" };
        let report = verdict(
            &engine,
            &format!("--pdf {level}.pdf --revocation {required}"),
            "valid",
        );
        let signature = &report["signatures"][0];
        let stands = if level == "b-t" { "unknown" } else { "good" };
        assert_eq!(signature["revocation"], stands, "{report:#}");
        assert!(signature["time_stamp"]["time_ms"].is_u64(), "{report:#}");
    }
}

#[test]
fn a_revoked_signer_is_found_out_and_what_was_stamped_before_stays_good() {
    let engine = engine();
    for level in ["b-b", "b-t"] {
        let seal =
            format!("seal {PROFILE} --pdf in.pdf --credential demo-p256 --level {level} --out {level}.pdf");
        cinnabar(&engine, &seal).ok();
    }
    verdict(&engine, "--pdf b-b.pdf --revocation required", "indeterminate");
    let asked = verdict(&engine, "--pdf b-b.pdf --revocation required --fetch", "valid");
    assert_eq!(asked["signatures"][0]["revocation"], "good");
    // The second in which it is revoked begins after that of the time stamp.
    let stamped = asked_time(&verdict(&engine, "--pdf b-t.pdf", "valid"));
    while clock::wall().0 / 1000 <= stamped / 1000 {
        std::thread::yield_now();
    }
    engine.operate("cert revoke --tenant demo --credential demo-p256 --reason keyCompromise");
    let revoked = verdict(&engine, "--pdf b-b.pdf --fetch", "invalid");
    assert_eq!(revoked["signatures"][0]["revocation"], "revoked");
    let older = verdict(&engine, "--pdf b-t.pdf --fetch", "valid");
    assert_eq!(older["signatures"][0]["revocation"], "good");
    let again = format!("seal {PROFILE} --pdf in.pdf --credential demo-p256 --out none.pdf");
    assert_ne!(cinnabar(&engine, &again).code, 0);
}

fn asked_time(report: &Value) -> u64 {
    report["signatures"][0]["time_stamp"]["time_ms"].as_u64().unwrap()
}

/// Passes every connection on to an address that is known later.
fn relay() -> (
    std::net::SocketAddr,
    std::sync::mpsc::SyncSender<std::net::SocketAddr>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let Ok(to) = receiver.recv() else { return };
        for from in listener.incoming() {
            let (from, to) = (from.unwrap(), TcpStream::connect(to).unwrap());
            let (mut from_2, mut to_2) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let (mut from, mut to) = (from, to);
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut to_2, &mut from_2));
        }
    });
    (address, sender)
}

#[test]
fn what_certificates_name_is_asked_by_those_who_have_no_profile() {
    let (address, engine_is_at) = relay();
    let engine = with_files(
        Setup::default()
            .set("pki_url", format!("http://{address}"))
            .start(),
    );
    engine_is_at.send(engine.pki).unwrap();
    cinnabar(
        &engine,
        &format!("seal {PROFILE} --pdf in.pdf --credential demo-p256 --out out.pdf"),
    )
    .ok();
    let ask = "verify --pdf out.pdf --ca var/dev/ca.pem --revocation required";
    cinnabar(&engine, ask).refused(2, "signature_invalid");
    cinnabar(&engine, &format!("{ask} --fetch")).ok();
    engine.operate("cert revoke --tenant demo --credential demo-p256 --reason superseded");
    let revoked = cinnabar(&engine, &format!("{ask} --fetch --json"));
    let report: Value = serde_json::from_str(&revoked.stdout).unwrap();
    assert_eq!(report["signatures"][0]["revocation"], "revoked", "{report:#}");
    // Another's authority is another address.
    let stamped = format!(
        "seal {PROFILE} --pdf in.pdf --credential demo-rsa2048 --level b-lt --tsa-url http://{}/tsa --out url.pdf",
        engine.pki
    );
    cinnabar(&engine, &stamped).ok();
    verdict(&engine, "--pdf url.pdf --revocation required", "valid");
}

#[test]
fn three_steps_make_what_one_does_and_the_document_stays() {
    let engine = engine();
    let options = "--pdf in.pdf --credential demo-rsa2048 --level b-lt --reason agreed";
    let prepared = cinnabar(
        &engine,
        &format!("prepare {PROFILE} {options} --state state.json"),
    )
    .ok();
    assert_eq!(prepared.trim(), "next: sign --state (a signature)");
    let mut rounds = 0;
    loop {
        let state = read(&engine, "state.json");
        assert!(
            !state.windows(6).any(|window| window == b"stream"),
            "nothing of the document is in it"
        );
        cinnabar(&engine, &format!("sign {PROFILE} --state state.json")).ok();
        // Once more changes nothing and is not charged.
        let answered = read(&engine, "state.json");
        cinnabar(&engine, &format!("sign {PROFILE} --state state.json")).ok();
        assert_eq!(read(&engine, "state.json"), answered);
        let said = cinnabar(&engine, "assemble --state state.json --pdf in.pdf --out out.pdf").ok();
        rounds += 1;
        if said.is_empty() {
            break;
        }
    }
    assert_eq!(rounds, 3, "a signature, a time stamp, how the certificates stand");
    let judged = pyhanko(&engine, "out.pdf");
    assert!(judged[0].contains("bottom_line=True"), "{judged:?}");
    verdict(&engine, "--pdf out.pdf --revocation required", "valid");
    let usage = cinnabar(&engine, &format!("usage {PROFILE} --json")).ok();
    let usage: Value = serde_json::from_str(&usage).unwrap();
    assert_eq!(usage["by_credential"]["demo-rsa2048"], 1, "{usage}");
    std::fs::write(folder(&engine).join("other.pdf"), b"%PDF-1.4").unwrap();
    cinnabar(
        &engine,
        "assemble --state state.json --pdf other.pdf --out none.pdf",
    )
    .refused(2, "usage");
    cinnabar(&engine, &format!("sign {PROFILE} --state in.pdf")).refused(2, "usage");
}

#[test]
fn an_electronic_seal_goes_on_ofd_and_pdf() {
    let engine = engine();
    make_seal(&engine);
    let by = "--credential demo-sm2 --esl seal.esl";
    for (place, level) in [
        ("--at page=2,x=120,y=200,unit=mm", "b-b"),
        ("--paging", "b-t"),
        ("--at page=last,x=0.5,y=0.5,unit=fraction,anchor=centre", "b-b"),
    ] {
        let seal = format!("seal {PROFILE} --ofd in.ofd {by} {place} --level {level} --out out.ofd");
        cinnabar(&engine, &seal).ok();
        let judged = judge(&engine, "ofd_check.py", "out.ofd");
        assert!(
            judged.contains("SIG: OK[tbs,z=True]") && judged.contains("seal sig: OK[info,z=True]"),
            "{judged}"
        );
        let report = verdict(&engine, "--ofd out.ofd", "valid");
        let source = &report["signatures"][0]["seal"]["time_source"];
        assert_eq!(
            source,
            if level == "b-t" { "time-stamp" } else { "claimed" },
            "{report:#}"
        );
        assert_eq!(
            report["signatures"][0]["stamps"].as_array().unwrap().len(),
            if place == "--paging" { 2 } else { 1 }
        );
    }
    verdict(&engine, "--ofd out.ofd --revocation required", "invalid");
    verdict(&engine, "--ofd out.ofd --revocation required --fetch", "valid");
    let seal =
        format!("seal {PROFILE} --pdf in.pdf {by} --at page=1,x=100,y=100 --level b-lta --out sm2.pdf");
    cinnabar(&engine, &seal).ok();
    let judged = judge(&engine, "pdf_seal_check.py", "sm2.pdf");
    assert!(
        judged.contains("gmssl: OK") && judged.contains("SIG: OK[tbs,z=True]"),
        "{judged}"
    );
    verdict(&engine, "--pdf sm2.pdf --revocation required", "valid");
    // RSA for readers abroad, SM2 for those at home.
    let dual =
        format!("seal {PROFILE} --pdf in.pdf --credential demo-rsa2048 {by} --level b-t --out dual.pdf");
    cinnabar(&engine, &dual).ok();
    let judged = pyhanko(&engine, "dual.pdf");
    assert!(judged[0].contains("bottom_line=True"), "{judged:?}");
    let report = verdict(&engine, "--pdf dual.pdf", "valid");
    assert_eq!(report["signatures"].as_array().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_sealed_so_is_refused_with_the_reason() {
    let engine = engine();
    make_seal(&engine);
    let usage = || cinnabar(&engine, &format!("usage {PROFILE} --json")).ok();
    let before = usage();
    let refused = |line: &str, code: &str| {
        cinnabar(&engine, &format!("seal {PROFILE} --out none {line}")).refused(2, code);
    };
    refused(
        "--ofd in.ofd --credential demo-sm2 --esl seal.esl --level b-lt",
        "usage",
    );
    refused("--ofd in.ofd --credential demo-p256", "usage");
    refused(
        "--ofd in.pdf --credential demo-sm2 --esl seal.esl",
        "document_unreadable",
    );
    refused("--pdf in.pdf --credential demo-p256 --esl seal.esl", "usage");
    refused(
        "--pdf in.pdf --credential demo-sm2 --esl seal.png",
        "seal_unusable",
    );
    refused("--pdf in.pdf --credential demo-p256 --at x=1,y=1", "usage");
    refused(
        "--ofd in.ofd --credential demo-sm2 --esl seal.esl --keyword word",
        "usage",
    );
    refused(
        "--ofd in.ofd --credential demo-sm2 --esl seal.esl --at page=9,x=1,y=1",
        "usage",
    );
    assert_eq!(usage(), before, "nothing was charged");
    cinnabar(
        &engine,
        &format!("seal {PROFILE} --ofd in.ofd --credential demo-sm2 --esl seal.esl --last --out last.ofd"),
    )
    .ok();
    refused(
        "--ofd last.ofd --credential demo-sm2 --esl seal.esl",
        "document_refused",
    );
    assert!(!folder(&engine).join("none").exists());
}
