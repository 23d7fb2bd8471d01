//! Subjects: who approves them, what is seen of them, and what is left when they are erased.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::KeyKind;
use protocol::client::Profile as AppProfile;
use serde_json::{Value, json};

use super::{KINDS, call, counted, folder, issue, make_request, openssl, orders};
use crate::operators::operator;
use crate::raw::Http1;
use crate::support::{Engine, Ran, Setup, block_on};

/// Names that must be seen nowhere.
const NAME: &str = "上海秘密贸易有限公司";
const NUMBER: &str = "91310000SECRET0001";

fn submit(engine: &Engine, id: &str, kind: &str, details: &Value) -> Ran {
    std::fs::write(folder(engine).join("details.json"), details.to_string()).unwrap();
    std::fs::write(folder(engine).join("evidence"), "a licence, scanned").unwrap();
    let line =
        format!("subject submit --tenant acme {id} --kind {kind} --details details.json --evidence evidence");
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

fn subject(engine: &Engine, what: &str, id: &str) -> Ran {
    engine.cli(&["subject", what, "--tenant", "acme", id])
}

fn state(engine: &Engine, id: &str) -> Value {
    let list: Value = serde_json::from_str(&engine.operate("subject list --tenant acme")).unwrap();
    let mut all = list.as_array().unwrap().iter();
    all.find(|one| one["id"] == id).unwrap().clone()
}

fn is_in_store(engine: &Engine, text: &str) -> bool {
    let files = ["cinnabar.db", "cinnabar.db-wal"].map(|name| engine.home().join(name));
    files.iter().any(|file| {
        let bytes = std::fs::read(file).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn an_enterprise_is_certified_after_two_operators_have_approved_it() {
    let engine = Engine::start();
    engine.operate("tenant create acme");
    let alice = operator(&engine, "alice", "manage");
    let bob = operator(&engine, "bob", "manage");
    let carol = operator(&engine, "carol", "audit");
    let details = json!({ "name": NAME, "registration": NUMBER });
    submit(&engine, "s-1", "enterprise", &details).ok();
    submit(&engine, "s-1", "enterprise", &details).refused(2, "already_exists");
    let nameless = json!({ "name": "", "registration": "1" });
    submit(&engine, "s-2", "enterprise", &nameless).refused(2, "usage");
    let alone = json!({ "name": "李雷", "registration": "1" });
    submit(&engine, "s-2", "agent", &alone).refused(2, "usage");
    let agent = json!({ "name": "李雷", "registration": "110101199001011234", "enterprise": "s-1" });
    submit(&engine, "s-2", "agent", &agent).ok();

    make_request(&engine, "acme", (KINDS[0].1, ""), "/CN=a", &[]).ok();
    let signing = "--tenant acme --profile enterprise-signing --subject s-1";
    issue(&engine, signing, "acme").refused(2, "subject_not_approved");
    subject(&engine, "approve", "s-1").refused(2, "wrong_state");
    subject(&engine, "check", "s-1").ok();
    subject(&engine, "approve", "s-1").refused(2, "second_operator_needed");
    // The user of the socket may be either of them: who checks and who approves have names.
    issue(&engine, signing, "acme").refused(2, "subject_not_approved");
    let step = |who: &crate::operators::Asker<'_>, id: &str, step: &str| {
        who.post(
            &format!("/tenants/acme/subjects/{id}/step"),
            &json!({ "step": step }),
        )
    };
    step(&carol, "s-1", "approve").refused(403, "role_missing");
    step(&alice, "s-1", "confirm").refused(400, "usage");
    step(&alice, "s-1", "approve").refused(403, "second_operator_needed");
    step(&alice, "s-1", "check").ok();
    subject(&engine, "approve", "s-1").refused(2, "second_operator_needed");
    step(&alice, "s-1", "approve").refused(403, "second_operator_needed");
    step(&bob, "s-1", "approve").ok();
    assert_eq!(state(&engine, "s-1")["state"], "approved");
    assert_eq!(state(&engine, "s-1")["decided_by"], "operator bob");
    assert_eq!(
        counted(&engine, "acme", "counted-users"),
        1,
        "an enterprise is an account"
    );
    step(&alice, "s-2", "check").ok();
    step(&bob, "s-2", "approve").ok();
    assert_eq!(counted(&engine, "acme", "counted-users"), 1, "a person is none");

    issue(&engine, signing, "acme").ok();
    let shown = openssl(&engine, "x509 -in acme.pem -noout -subject -nameopt utf8").ok();
    assert!(shown.contains(NAME), "{shown}");
    issue(&engine, "--tenant acme --profile agent --subject s-2", "acme").ok();
    let shown = openssl(&engine, "x509 -in acme.pem -noout -subject -nameopt utf8").ok();
    assert!(shown.contains(NAME) && shown.contains("CN=李雷"), "{shown}");
    issue(
        &engine,
        "--tenant acme --profile enterprise-seal --subject s-2",
        "acme",
    )
    .refused(2, "certificate_request_refused");
    a_rejected_one_is_not_certified(&engine);
}

/// What is rejected later is not certified any more.
fn a_rejected_one_is_not_certified(engine: &Engine) {
    let line = ["subject", "reject", "--tenant", "acme", "s-2", "--reason", "left"];
    engine.cli(&line).ok();
    issue(engine, "--tenant acme --profile agent --subject s-2", "acme").refused(2, "subject_not_approved");
}

#[test]
fn what_is_known_of_a_subject_is_sealed_masked_and_erased() {
    let engine = Engine::start();
    engine.operate("tenant create acme");
    submit(
        &engine,
        "s-1",
        "enterprise",
        &json!({ "name": NAME, "registration": NUMBER }),
    )
    .ok();
    let shown = state(&engine, "s-1");
    assert_eq!(
        (&shown["name"], &shown["registration"]),
        (&json!("上**"), &json!("****0001"))
    );
    assert!(
        !is_in_store(&engine, NAME) && !is_in_store(&engine, NUMBER),
        "sealed"
    );
    let line = [
        "subject",
        "erase",
        "--tenant",
        "acme",
        "s-1",
        "--order",
        "request-17",
    ];
    engine.cli(&line).ok();
    let erased = state(&engine, "s-1");
    assert_eq!(
        (&erased["state"], &erased["name"]),
        (&json!("erased"), &Value::Null)
    );
    subject(&engine, "check", "s-1").refused(2, "wrong_state");
    let orders = orders(&engine);
    let is_recorded = orders
        .iter()
        .any(|order| order.ends_with("subject.erase acme/s-1 request-17"));
    assert!(is_recorded, "{orders:?}");
    assert!(!is_in_store(&engine, NUMBER));
}

/// A verification service of the test's own.
struct Service {
    key: SoftKey,
    public_key: Vec<u8>,
}

impl Service {
    fn new() -> Self {
        let made = soft::generate(KeyKind::Ed25519).unwrap();
        let key = SoftKey::new(KeyKind::Ed25519, &made.pkcs8, &made.public_key).unwrap();
        Self {
            key,
            public_key: made.public_key,
        }
    }

    fn token(&self, statement: &Value) -> Value {
        let header = json!({ "alg": "EdDSA", "kid": "checks" }).to_string();
        let parts = [header, statement.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = parts.join(".");
        let signature = self
            .key
            .sign(protocol::algorithm::Algorithm::Ed25519, signed.as_bytes(), b"");
        json!({ "token": format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.unwrap())) })
    }
}

/// Nobody proves it but its own signature.
fn answer(profile: &AppProfile, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let text = format!(
        "POST /v1/verifications HTTP/1.1\r\nhost: {}:{}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        profile.server_name,
        profile.address.port(),
        body.len()
    );
    let heard = block_on(async { Http1::dial(profile).await.exchange(text.as_bytes()).await });
    (heard.status, serde_json::from_slice(&heard.body).unwrap())
}

fn start_with_service(service: &Service) -> Engine {
    let home = tempfile::tempdir().unwrap();
    let public = pem::encode(&pem::Pem::new("PUBLIC KEY", service.public_key.clone()));
    std::fs::write(home.path().join("checks.pem"), public).unwrap();
    start_in(home)
}

fn start_in(folder: tempfile::TempDir) -> Engine {
    Setup::default()
        .config("[[verifier]]\nname = \"checks\"\npublic_key = \"checks.pem\"\n")
        .start_in(folder)
}

/// SHA-256 of the evidence of every subject here.
fn evidence() -> String {
    "ab".repeat(32)
}

fn submit_over_https(profile: &AppProfile, id: &str) {
    let new = json!({
        "id": id, "kind": "enterprise", "name": NAME, "registration": NUMBER, "evidence_sha256": evidence(),
    });
    let (status, made) = call(profile, "POST /v1/subjects", None, Some(&new));
    assert_eq!(
        (status, &made["state"], &made["name"]),
        (200, &json!("submitted"), &json!("上**")),
        "{made}"
    );
}

fn challenge(profile: &AppProfile, id: &str) -> Value {
    call(profile, &format!("POST /v1/subjects/{id}/challenge"), None, None).1
}

fn shown(profile: &AppProfile, id: &str) -> Value {
    call(profile, &format!("GET /v1/subjects/{id}"), None, None).1
}

/// What the service says of an enterprise that it knows as [`NAME`]. It computes the hash as docs/pki.md says.
fn statement(nonce: &Value, subject: &str, evidence: &str, confirmed: bool) -> Value {
    named_statement(NAME, nonce, subject, evidence, confirmed)
}

fn named_statement(name: &str, nonce: &Value, subject: &str, evidence: &str, confirmed: bool) -> Value {
    let known = format!("{}\nenterprise\n{name}\n{NUMBER}\n", nonce.as_str().unwrap());
    let hash = protocol::algorithm::Hash::Sha256.digest(known.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "nonce": nonce, "subject": subject, "evidence_sha256": evidence, "details_sha256": hash, "confirmed": confirmed,
    })
}

#[track_caller]
fn is_refused(profile: &AppProfile, body: &Value) {
    let (status, refused) = answer(profile, body);
    let expected = (403, &json!("verification_refused"));
    assert_eq!((status, &refused["code"]), expected, "{body}");
}

#[test]
fn a_verification_service_approves_once_for_what_it_was_asked() {
    let (service, stranger) = (Service::new(), Service::new());
    let engine = start_with_service(&service);
    let profile = engine.profile();
    submit_over_https(&profile, "e-1");
    submit_over_https(&profile, "e-2");
    let users = counted(&engine, "demo", "counted-users");
    let question = challenge(&profile, "e-1");
    assert_eq!(question["evidence_sha256"], json!(evidence()));
    let nonce = &question["nonce"];
    let good = statement(nonce, "e-1", &evidence(), true);
    assert_eq!(question["details_sha256"], good["details_sha256"]);
    is_refused(&profile, &stranger.token(&good));
    let other = named_statement("Another Ltd", nonce, "e-1", &evidence(), true);
    is_refused(&profile, &service.token(&other));
    for (nonce, subject, evidence) in [
        (nonce, "e-2", evidence()),
        (nonce, "e-1", "cd".repeat(32)),
        (&json!("00"), "e-1", evidence()),
    ] {
        is_refused(
            &profile,
            &service.token(&statement(nonce, subject, &evidence, true)),
        );
    }
    is_refused(&profile, &json!({ "token": "nonsense" }));
    assert_eq!(shown(&profile, "e-1")["state"], "submitted");
    assert_eq!(answer(&profile, &service.token(&good)).0, 200);
    assert_eq!(shown(&profile, "e-1")["state"], "approved");
    assert_eq!(counted(&engine, "demo", "counted-users"), users + 1);
    // Once: also after a restart.
    is_refused(&profile, &service.token(&good));
    let engine = start_in(engine.stop());
    is_refused(&engine.profile(), &service.token(&good));
    assert_eq!(counted(&engine, "demo", "counted-users"), users + 1);
}

#[test]
fn a_verification_service_can_say_no_and_all_of_it_is_on_record() {
    let service = Service::new();
    let engine = start_with_service(&service);
    let profile = engine.profile();
    submit_over_https(&profile, "e-2");
    let question = challenge(&profile, "e-2");
    let no = service.token(&statement(&question["nonce"], "e-2", &evidence(), false));
    assert_eq!(answer(&profile, &no).0, 200);
    let rejected = shown(&profile, "e-2");
    assert_eq!(
        (&rejected["state"], &rejected["decided_by"]),
        (&json!("rejected"), &json!("verifier checks"))
    );
    // Who is decided is not asked about again.
    assert_eq!(challenge(&profile, "e-2")["code"], "wrong_state");
    assert_eq!(challenge(&profile, "demo-enterprise")["code"], "wrong_state");
    let erased = json!({ "order": "request-18" });
    let (_, gone) = call(&profile, "POST /v1/subjects/e-2/erasure", None, Some(&erased));
    assert_eq!(
        (&gone["state"], &gone["registration"]),
        (&json!("erased"), &Value::Null)
    );
    let journal = orders(&engine).join("\n");
    for word in [
        "subject.challenge",
        "subject.refute",
        "subject.erase",
        "app demo-app",
    ] {
        assert!(journal.contains(word), "{word}: {journal}");
    }
}
