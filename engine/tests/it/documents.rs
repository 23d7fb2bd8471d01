//! Documents over HTTPS, as a Python client sends them: sealed, verified, and in jobs. Strangers judge what comes back.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::strangers::{python, workspace};
use crate::support::{Engine, Ran, Setup, run, wait_until};

const PROFILE: &str = "var/dev/app.toml";
const TLS_CA: &str = "var/dev/tls-ca.pem";

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

/// An engine with a fixture as `in.pdf` in its folder.
fn engine_with(fixture: &str) -> Engine {
    let engine = Engine::start();
    put(&engine, fixture, "in.pdf");
    engine
}

fn put(engine: &Engine, fixture: &str, name: &str) {
    let fixtures = workspace().join("documents/tests/fixtures/pdf");
    std::fs::copy(fixtures.join(fixture), folder(engine).join(name)).unwrap();
}

/// What the Python client saw.
#[track_caller]
fn sees(engine: &Engine, arguments: &[&str]) -> Value {
    sees_as(engine, PROFILE, arguments)
}

#[track_caller]
fn sees_as(engine: &Engine, profile: &str, arguments: &[&str]) -> Value {
    let ran = client(engine, profile, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}:\n{}{}", ran.stdout, ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn client(engine: &Engine, profile: &str, arguments: &[&str]) -> Ran {
    let script = workspace().join("engine/tests/strangers/documents_client.py");
    let (scenario, rest) = arguments.split_first().unwrap();
    run(Command::new(python())
        .current_dir(folder(engine))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args([scenario, profile, TLS_CA])
        .args(rest))
}

/// Another program in the engine's folder.
fn stranger(engine: &Engine, program: impl AsRef<std::ffi::OsStr>, line: &str) -> String {
    run(Command::new(program)
        .current_dir(folder(engine))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(line.split_whitespace()))
    .ok()
}

/// What pyHanko says of each signature of a file.
fn pyhanko(engine: &Engine, pdf: &str) -> Vec<String> {
    let script = workspace().join("documents/tests/strangers/pyhanko_judge.py");
    let said = stranger(
        engine,
        python(),
        &format!("{} {pdf} var/dev/ca.pem", script.display()),
    );
    said.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_believed(engine: &Engine, pdf: &str, signatures: usize) {
    let judged = pyhanko(engine, pdf);
    assert_eq!(judged.len(), signatures, "{judged:?}");
    for line in &judged {
        assert!(line.contains("bottom_line=True"), "{judged:?}");
    }
}

fn signatures(engine: &Engine) -> u64 {
    sees(engine, &["usage"])["signatures"].as_u64().unwrap()
}

fn order(fields: &Value) -> String {
    let mut order = json!({ "signers": [{ "credential": "demo-p256" }] });
    for (name, value) in fields.as_object().unwrap() {
        order[name] = value.clone();
    }
    order.to_string()
}

fn plain() -> String {
    order(&json!({}))
}

fn read(engine: &Engine, name: &str) -> Vec<u8> {
    std::fs::read(folder(engine).join(name)).unwrap()
}

/// How long such calls take is in a histogram of their own; the cores hand theirs over once a second.
#[track_caller]
fn is_measured(engine: &Engine, operation: &str) {
    let label = format!("operation=\"{operation}\"");
    wait_until("it is measured", || {
        engine.admin_get("/metrics").1.contains(&label)
    });
}

#[test]
fn a_sealed_document_is_accepted_by_strangers_and_a_retry_brings_the_same_bytes_at_no_cost() {
    let engine = engine_with("latex.pdf");
    let before = signatures(&engine);
    let saw = sees(&engine, &["seal", &plain(), "in.pdf", "order-1", "out.pdf"]);
    assert_eq!(saw["type"], "application/pdf");
    assert_eq!(saw["begins_with_the_document"], true);
    assert_believed(&engine, "out.pdf", 1);
    assert!(stranger(&engine, "pdfsig", "-nocert out.pdf").contains("Signature is Valid."));
    stranger(&engine, "qpdf", "--check out.pdf");
    let again = sees(&engine, &["seal", &plain(), "in.pdf", "order-1", "again.pdf"]);
    assert_eq!(saw, again);
    assert_eq!(signatures(&engine), before + 1);
    // The same key for anything else is refused.
    put(&engine, "reportlab.pdf", "other.pdf");
    let reused = json!([422, "idempotency_key_reused"]);
    assert_eq!(
        sees(&engine, &["refused", &plain(), "other.pdf", "order-1"]),
        reused
    );
    let other = order(&json!({ "reason": "another" }));
    assert_eq!(sees(&engine, &["refused", &other, "in.pdf", "order-1"]), reused);
    // After a kill -9 it is still the same document, and charged once.
    let engine = Setup::default().start_in(engine.kill());
    let later = sees(&engine, &["seal", &plain(), "in.pdf", "order-1", "later.pdf"]);
    assert_eq!(saw, later);
    assert_eq!(signatures(&engine), before + 1);
    is_measured(&engine, "seal");
}

#[test]
fn every_level_is_made_and_believed_and_comes_back_the_same() {
    let engine = engine_with("reportlab.pdf");
    for (level, fields) in [("b-t", 1), ("b-lt", 1), ("b-lta", 2)] {
        let wanted = order(&json!({ "level": level }));
        let (key, out) = (format!("level-{level}"), format!("{level}.pdf"));
        let saw = sees(&engine, &["seal", &wanted, "in.pdf", &key, &out]);
        let judged = pyhanko(&engine, &out);
        assert_eq!(judged.len(), fields, "{level}: {judged:?}");
        for line in &judged {
            assert!(
                line.contains("intact=True\tvalid=True\ttrusted=True"),
                "{level}: {judged:?}"
            );
        }
        assert!(judged[0].contains("stamp=True"), "{level}: {judged:?}");
        let again = sees(&engine, &["seal", &wanted, "in.pdf", &key, &out]);
        assert_eq!(saw, again, "{level}");
        let verified = sees(&engine, &["verify", "", &out]);
        assert_eq!(verified["verdict"], "valid", "{level}: {verified:#}");
    }
    // Four time stamps, each counted once, and four tries at none of them.
    let statement = sees(&engine, &["usage"]);
    assert_eq!(statement["signatures"].as_u64(), Some(3 + 4), "{statement}");
}

#[test]
fn two_sign_one_document_and_that_is_two_units() {
    let engine = engine_with("latex.pdf");
    let before = signatures(&engine);
    let wanted = json!({ "signers": [{ "credential": "demo-rsa2048" }, { "credential": "demo-p256" }] });
    let saw = sees(
        &engine,
        &["seal", &wanted.to_string(), "in.pdf", "dual", "out.pdf"],
    );
    assert_believed(&engine, "out.pdf", 2);
    assert_eq!(signatures(&engine), before + 2);
    let again = sees(
        &engine,
        &["seal", &wanted.to_string(), "in.pdf", "dual", "out.pdf"],
    );
    assert_eq!((saw, signatures(&engine)), (again, before + 2));
}

#[test]
fn a_document_is_judged_with_reasons() {
    let engine = engine_with("latex.pdf");
    sees(&engine, &["seal", &plain(), "in.pdf", "to-verify", "out.pdf"]);
    let verdict = |order: &str, file: &str| sees(&engine, &["verify", order, file]);
    let good = verdict("", "out.pdf");
    assert_eq!(
        (&good["form"], &good["verdict"]),
        (&json!("pdf"), &json!("valid")),
        "{good:#}"
    );
    assert!(good["report"]["signatures"][0]["signer"].is_string(), "{good:#}");
    assert_eq!(verdict("", "in.pdf")["verdict"], "unsigned");
    let nobody = verdict(r#"{"platform":false}"#, "out.pdf");
    assert_eq!(nobody["verdict"], "indeterminate", "{nobody:#}");
    let anchors = std::fs::read_to_string(engine.dev("ca.pem")).unwrap();
    let first = anchors
        .split_inclusive("-----END CERTIFICATE-----")
        .next()
        .unwrap();
    let trusted = json!({ "platform": false, "trust_anchors": [first] }).to_string();
    assert_eq!(verdict(&trusted, "out.pdf")["verdict"], "valid");
    let mut bytes = read(&engine, "out.pdf");
    bytes[100] ^= 1;
    std::fs::write(folder(&engine).join("changed.pdf"), &bytes).unwrap();
    let changed = verdict("", "changed.pdf");
    assert_eq!(changed["verdict"], "invalid", "{changed:#}");
    is_measured(&engine, "verify");
}

#[test]
fn a_detached_signature_is_judged_beside_what_it_is_over() {
    let engine = engine_with("latex.pdf");
    let sign =
        "sign --profile var/dev/app.toml --credential demo-rsa2048 --file in.pdf --format cms --out in.p7s";
    engine.cli(&sign.split_whitespace().collect::<Vec<_>>()).ok();
    let signature = base64(&read(&engine, "in.p7s"));
    let wanted = json!({ "form": "cms", "signature": signature }).to_string();
    let good = sees(&engine, &["verify", &wanted, "in.pdf"]);
    assert_eq!(good["verdict"], "valid", "{good:#}");
    put(&engine, "reportlab.pdf", "other.pdf");
    let other = sees(&engine, &["verify", &wanted, "other.pdf"]);
    assert_eq!(other["verdict"], "invalid", "{other:#}");
    assert!(other["report"]["reason"].is_string(), "{other:#}");
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[test]
fn mistakes_hear_stable_codes_and_cost_nothing() {
    let engine = engine_with("latex.pdf");
    let before = signatures(&engine);
    let saw = sees(&engine, &["mistakes", "in.pdf"]);
    let expected = json!({
        "not signed": [401, "unauthenticated"],
        "another body": [400, "content_digest_mismatch"],
        "no digest": [401, "unauthenticated"],
        "no key": [400, "idempotency_key_invalid"],
        "no order": [400, "malformed_request"],
        "no form": [415, "unsupported_media_type"],
        "an order that is none": [400, "malformed_request"],
        "an order with a member too many": [400, "malformed_request"],
        "no signer": [400, "malformed_request"],
        "unknown credential": [404, "unknown_credential"],
        "no document": [422, "document_unreadable"],
        "half a document": [422, "document_unreadable"],
        "a page that is not there": [400, "usage"],
        "a picture that is none": [422, "image_unusable"],
        "a word that is nowhere": [422, "document_refused"],
        "SM2 without an electronic seal": [422, "unsupported_format"],
        "verify: no document": [422, "document_unreadable"],
        "verify: an order that is none": [400, "malformed_request"],
        "a job of none": [422, "batch_too_large"],
        "a job of too many": [422, "batch_too_large"],
        "unknown operation": [404, "not_found"],
        "a name that is none": [404, "not_found"],
    });
    for (what, answer) in expected.as_object().unwrap() {
        assert_eq!(&saw[what], answer, "{what}");
    }
    assert_eq!(signatures(&engine), before);
}

#[track_caller]
fn start_job(engine: &Engine, count: usize, key: &str) -> String {
    let count = count.to_string();
    let started = sees(engine, &["job", &plain(), &count, key, "in.pdf"]);
    started["operation"].as_str().unwrap().to_owned()
}

fn standing(engine: &Engine, operation: &str) -> Value {
    sees(engine, &["operation", operation])
}

fn wait_for_end(engine: &Engine, operation: &str) -> Value {
    let mut last = Value::Null;
    wait_until("the job ends", || {
        last = standing(engine, operation);
        last["state"] == "ended"
    });
    last
}

#[test]
fn a_job_survives_a_kill_and_every_document_ends_exactly_once() {
    const COUNT: usize = 300;
    let engine = engine_with("latex.pdf");
    let before = signatures(&engine);
    let operation = start_job(&engine, COUNT, "job-1");
    let mut last = Value::Null;
    wait_until("some are done", || {
        last = standing(&engine, &operation);
        last["done"].as_u64().unwrap() > 2
    });
    assert!(last["waiting"].as_u64().unwrap() > 0, "killed too late: {last}");
    let folder_before = engine.kill();
    let engine = Setup::default().start_in(folder_before);
    let ended = wait_for_end(&engine, &operation);
    assert_eq!(
        (&ended["done"], &ended["waiting"]),
        (&json!(COUNT), &json!(0)),
        "{ended}"
    );
    assert_eq!(signatures(&engine), before + COUNT as u64);
    std::fs::create_dir(folder(&engine).join("sealed")).unwrap();
    let saw = sees(&engine, &["fetch", &operation, &COUNT.to_string(), "sealed"]);
    assert_eq!(saw["outcomes"], json!(vec!["done"; COUNT]));
    let original = read(&engine, "in.pdf");
    for number in 0..COUNT {
        let sealed = read(&engine, &format!("sealed/{number}.pdf"));
        let own = format!("% number {number}\n");
        assert!(sealed.starts_with(&original) && sealed[original.len()..].starts_with(own.as_bytes()));
    }
    for number in [0, COUNT / 2, COUNT - 1] {
        assert_believed(&engine, &format!("sealed/{number}.pdf"), 1);
    }
    // No document can be read where it is kept.
    let kept = files(&engine.home().join("documents"));
    assert_eq!(kept.len(), 2 * COUNT);
    for path in &kept {
        let bytes = std::fs::read(path).unwrap();
        assert!(
            !bytes.windows(5).any(|window| window == b"%PDF-"),
            "{}",
            path.display()
        );
    }
    // Erased when its owner says so.
    sees(&engine, &["erase", &operation]);
    assert!(files(&engine.home().join("documents")).is_empty());
    let unknown = json!(vec![json!([404, "not_found"]); 7]);
    assert_eq!(sees(&engine, &["unknown", &operation]), unknown);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

#[test]
fn documents_of_a_job_have_their_own_outcomes() {
    let engine = engine_with("latex.pdf");
    // A word that the documents do not have: each is refused for itself, and nothing is charged.
    let before = signatures(&engine);
    let picture = base64(&read_fixture("seal.png"));
    let wanted =
        order(&json!({ "picture": picture, "place": { "keyword": { "text": "nowhere to be found" } } }));
    let started = sees(&engine, &["job", &wanted, "3", "bad-job", "in.pdf"]);
    let operation = started["operation"].as_str().unwrap();
    let ended = wait_for_end(&engine, operation);
    assert_eq!(
        (&ended["failed"], &ended["done"]),
        (&json!(3), &json!(0)),
        "{ended}"
    );
    let saw = sees(&engine, &["fetch", operation, "3", "."]);
    assert_eq!(saw["outcomes"], json!(vec![json!([422, "document_refused"]); 3]));
    assert_eq!(signatures(&engine), before);
}

fn read_fixture(name: &str) -> Vec<u8> {
    std::fs::read(workspace().join("documents/tests/fixtures/pdf").join(name)).unwrap()
}

#[test]
fn a_cancelled_job_charges_what_it_has_done_and_nothing_else() {
    const COUNT: usize = 200;
    let engine = engine_with("latex.pdf");
    let before = signatures(&engine);
    let operation = start_job(&engine, COUNT, "cancelled");
    let cancelled = sees(&engine, &["cancel", &operation]);
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    let mut last = Value::Null;
    wait_until("what had begun has ended", || {
        last = standing(&engine, &operation);
        last["waiting"] == 0
    });
    let (done, not_done) = (
        last["done"].as_u64().unwrap(),
        last["cancelled"].as_u64().unwrap(),
    );
    assert_eq!(done + not_done, COUNT as u64, "{last}");
    assert!(not_done > 0, "{last}");
    assert_eq!(signatures(&engine), before + done);
}

#[test]
fn a_document_that_is_too_large_to_be_waited_for_is_a_job_of_its_own() {
    let engine = engine_with("latex.pdf");
    let mut large = read(&engine, "in.pdf");
    // A comment behind the end, as long as it takes.
    large.extend(std::iter::once(b'%').chain(std::iter::repeat_n(b'.', 33 * 1024 * 1024)));
    large.push(b'\n');
    large.extend_from_slice(&startxref(&large));
    std::fs::write(folder(&engine).join("large.pdf"), &large).unwrap();
    let before = signatures(&engine);
    let accepted = sees(&engine, &["later", &plain(), "large.pdf", "large"]);
    let operation = accepted["operation"].as_str().unwrap();
    let again = sees(&engine, &["later", &plain(), "large.pdf", "large"]);
    assert_eq!(again["operation"], accepted["operation"]);
    let ended = wait_for_end(&engine, operation);
    assert_eq!(ended["done"], 1, "{ended}");
    assert_eq!(signatures(&engine), before + 1);
    sees(&engine, &["fetch", operation, "1", "."]);
    let sealed = read(&engine, "0.pdf");
    assert!(sealed.starts_with(&large));
    assert_believed(&engine, "0.pdf", 1);
}

/// The file's own end once more, so that readers find it where they look.
fn startxref(pdf: &[u8]) -> Vec<u8> {
    let at = pdf.windows(9).rposition(|window| window == b"startxref").unwrap();
    let end = pdf[at..]
        .windows(5)
        .position(|window| window == b"%%EOF")
        .unwrap();
    [&pdf[at..at + end], b"%%EOF\n"].concat()
}

#[test]
fn nobody_sees_another_tenants_operation_and_a_destroyed_tenants_are_gone() {
    let engine = engine_with("latex.pdf");
    let operation = start_job(&engine, 2, "mine");
    wait_for_end(&engine, &operation);
    engine.make_prepaid(10);
    let unknown = json!(vec![json!([404, "not_found"]); 7]);
    assert_eq!(sees_as(&engine, "erp.toml", &["unknown", &operation]), unknown);
    let own = json!({ "signers": [{ "credential": "seal" }] }).to_string();
    let started = sees_as(&engine, "erp.toml", &["job", &own, "2", "theirs", "in.pdf"]);
    let theirs = started["operation"].as_str().unwrap().to_owned();
    let mut last = Value::Null;
    wait_until("their job ends", || {
        last = sees_as(&engine, "erp.toml", &["operation", &theirs]);
        last["state"] == "ended"
    });
    assert_eq!(last["done"], 2, "{last}");
    assert_eq!(files(&engine.home().join("documents")).len(), 8);
    engine.operate("tenant close acme --confirm acme");
    engine.operate("tenant destroy acme --order letter-1 --certificate gone.json");
    let gone: Value = serde_json::from_slice(&read(&engine, "gone.json")).unwrap();
    assert_eq!(gone["destroyed"]["document_operations"], 1, "{gone}");
    wait_until("their files are gone", || {
        files(&engine.home().join("documents")).len() == 4
    });
    assert_eq!(
        standing(&engine, &operation)["done"],
        2,
        "other tenants' are still there"
    );
}
