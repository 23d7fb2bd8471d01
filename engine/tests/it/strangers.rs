//! Strangers: clients that share no code with ours, and OpenSSL on what we make. The Python clients are in
//! `engine/tests/strangers`; `native_client.py` is written from `docs/wire.cddl` alone.

mod openssl;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Engine, Ran, run};

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn python() -> PathBuf {
    let given = std::env::var_os("TEST_PYTHON").map(PathBuf::from);
    let path = given.unwrap_or_else(|| workspace().join("target/venv/bin/python"));
    assert!(
        path.exists(),
        "no {}; `scripts/install.sh test target/venv` makes it",
        path.display()
    );
    path
}

/// A stranger at work: a Python client and what it is told.
struct Stranger<'a> {
    engine: &'a Engine,
    script: &'static str,
}

impl<'a> Stranger<'a> {
    fn native(engine: &'a Engine) -> Self {
        Self {
            engine,
            script: "native_client.py",
        }
    }

    fn https(engine: &'a Engine) -> Self {
        Self {
            engine,
            script: "https_client.py",
        }
    }

    /// Runs it in the engine's folder and returns what it saw.
    #[track_caller]
    fn sees(&self, arguments: &[&str]) -> Value {
        let script = workspace().join("engine/tests/strangers").join(self.script);
        let mut command = Command::new(python());
        command
            .current_dir(folder(self.engine))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(script)
            .args(arguments);
        let ran = run(&mut command);
        assert_eq!(
            ran.code, 0,
            "{} {arguments:?}:\n{}{}",
            self.script, ran.stdout, ran.stderr
        );
        serde_json::from_str(&ran.stdout).unwrap()
    }
}

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

const PROFILE: &str = "var/dev/app.toml";
const TLS_CA: &str = "var/dev/tls-ca.pem";
const SIGNING_CA: &str = "var/dev/ca.pem";

/// Every algorithm of the development credentials.
const ALGORITHMS: [&str; 10] = [
    "demo-ed25519 ed25519",
    "demo-p256 ecdsa-p256-sha256",
    "demo-rsa2048 rsa-pkcs1-sha256",
    "demo-rsa2048 rsa-pkcs1-sha384",
    "demo-rsa2048 rsa-pkcs1-sha512",
    "demo-rsa2048 rsa-pss-sha256",
    "demo-rsa2048 rsa-pss-sha384",
    "demo-rsa2048 rsa-pss-sha512",
    "demo-sm2 sm2-sm3-e",
    "demo-sm2 sm2-sm3",
];

#[track_caller]
fn assert_members(saw: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&saw[name], value, "{name}: {saw:#}");
    }
}

#[test]
fn a_client_written_from_the_page_alone_signs_in_every_way_and_is_charged_once_for_each() {
    let engine = Engine::start();
    let saw = Stranger::native(&engine).sees(&["full", PROFILE]);
    assert_members(
        &saw,
        &json!({
            "limits": { "frame_bytes": 262_144, "inputs": 64, "in_flight": 4096 },
            "verified": ALGORITHMS,
            "batch": 64,
            "pipelined": 200,
            "retry_same_bytes": true,
            "at_once_same_bytes": true,
            "formats_same_bytes": [true, true, true],
            "reused": [107, "idempotency_key_reused"],
            "never_used": [115, "not_found"],
        }),
    );
    assert!(
        saw["overtaken"].as_u64().unwrap() > 0,
        "all replies came in the order of the requests: {saw:#}"
    );
    assert_eq!(saw["signed"], saw["charged"], "{saw:#}");
}

#[test]
fn a_client_written_from_the_page_alone_hears_the_numbers_of_the_page() {
    let engine = Engine::start();
    let saw = Stranger::native(&engine).sees(&["mistakes", PROFILE]);
    let unauthenticated = json!({ "frame": [109, "unauthenticated"], "connection": 109 });
    let malformed = json!({ "frame": [100, "malformed_request"], "connection": 100 });
    assert_members(
        &saw,
        &json!({
            "a digest too short": [103, "digest_length"],
            "an algorithm of another key": [104, "unsupported_algorithm"],
            "an algorithm of no key": [104, "unsupported_algorithm"],
            "no such credential": [105, "unknown_credential"],
            "a key with a space": [108, "idempotency_key_invalid"],
            "a batch of 65": [113, "batch_too_large"],
            "a message too long": [114, "message_too_long"],
            "no such format": [117, "unsupported_format"],
            "wrong MAC of a request": unauthenticated,
            "wrong MAC of the session": unauthenticated,
            "no such app": unauthenticated,
            "no such version": { "frame": [101, "unsupported_version"], "connection": 101 },
            "a frame too large": { "frame": [102, "too_large"], "connection": 102 },
            "a frame too large for a hello": { "frame": [102, "too_large"], "connection": 102 },
            "a frame that is no CBOR": malformed,
            "a frame of no bytes": malformed,
            "a second hello": malformed,
        }),
    );
}

#[test]
fn a_client_of_other_libraries_signs_over_https_in_every_way() {
    let engine = Engine::start();
    let saw = Stranger::https(&engine).sees(&["full", PROFILE, TLS_CA, SIGNING_CA]);
    assert_members(
        &saw,
        &json!({
            "verified": ALGORITHMS,
            "user_id": true,
            "batch": 64,
            "cms": true,
            "retries": {
                "same_bytes": true,
                "same_bytes_quoted": true,
                "reused": [422, "idempotency_key_reused"],
                "never_used": [404, "not_found"],
            },
            "openapi": {
                "/audit/checkpoint": ["get"],
                "/audit/cosigned": ["get"],
                "/audit/tile/{path}": ["get"],
                "/crl/{name}.crl": ["get"],
                "/delta/{name}.crl": ["get"],
                "/ocsp": ["post"],
                "/ocsp/{request}": ["get"],
                "/tsa": ["post"],
                "/tsa/{token}": ["post"],
                "/v1/certificates": ["get", "post"],
                "/v1/certificates/calls/{idempotency_key}": ["get"],
                "/v1/certificates/imports": ["post"],
                "/v1/certificates/requests": ["post"],
                "/v1/certificates/{serial}": ["get"],
                "/v1/certificates/{serial}/renewal": ["post"],
                "/v1/certificates/{serial}/resumption": ["post"],
                "/v1/certificates/{serial}/revocation": ["post"],
                "/v1/certificates/{serial}/suspension": ["post"],
                "/v1/credentials": ["get"],
                "/v1/data-location": ["get"],
                "/v1/documents/jobs": ["post"],
                "/v1/documents/seal": ["post"],
                "/v1/documents/verify": ["post"],
                "/v1/grants": ["get"],
                "/v1/notices": ["get"],
                "/v1/operations/{id}": ["delete", "get"],
                "/v1/operations/{id}/cancellation": ["post"],
                "/v1/operations/{id}/documents": ["get"],
                "/v1/operations/{id}/documents/{number}": ["get", "put"],
                "/v1/operations/{id}/start": ["post"],
                "/v1/packages": ["get"],
                "/v1/seals": ["get"],
                "/v1/seals/{id}": ["get"],
                "/v1/signatures": ["post"],
                "/v1/signatures/{idempotency_key}": ["get"],
                "/v1/sla/{month}": ["get"],
                "/v1/statements/{month}": ["get"],
                "/v1/subjects": ["get", "post"],
                "/v1/subjects/{id}": ["get"],
                "/v1/subjects/{id}/challenge": ["post"],
                "/v1/subjects/{id}/erasure": ["post"],
                "/v1/usage": ["get"],
                "/v1/verifications": ["post"],
            },
            "signed": 1,
        }),
    );
}

#[test]
fn a_client_of_other_libraries_hears_stable_codes_over_https() {
    let engine = Engine::start();
    let saw = Stranger::https(&engine).sees(&["mistakes", PROFILE, TLS_CA]);
    assert_members(
        &saw,
        &json!({
            "not signed": [401, "unauthenticated"],
            "signed with another secret": [401, "unauthenticated"],
            "signed long ago": [401, "stale_request"],
            "signed for another service": [401, "unauthenticated"],
            "key not covered": [401, "unauthenticated"],
            "another body": [400, "content_digest_mismatch"],
            "no digest": [401, "unauthenticated"],
            "no key": [400, "idempotency_key_invalid"],
            "short digest": [422, "digest_length"],
            "unknown member": [400, "malformed_request"],
            "unknown credential": [404, "unknown_credential"],
            "too many": [422, "batch_too_large"],
            "unknown path": [404, "unknown_path"],
            "wrong method": [405, "method_not_allowed"],
        }),
    );
}

/// Runs a command of the binary.
fn cinnabar(engine: &Engine, line: &str) -> Ran {
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

/// Makes an app with an additional proof; the name of its profile.
fn create_app(engine: &Engine, id: &str, proof: &str) -> String {
    let known = format!("--listen {} --admin {}", engine.listen, engine.admin);
    let line = format!("{known} app create --tenant demo {id} {proof} --profile-out {id}.toml");
    cinnabar(engine, &line).ok();
    format!("{id}.toml")
}

#[test]
fn an_app_may_prove_its_requests_with_a_private_key_of_its_own() {
    let engine = Engine::start();
    let stranger = Stranger::https(&engine);
    let p256 = "EC -pkeyopt ec_paramgen_curve:P-256";
    for (name, kind) in [("ecdsa-p256-sha256", p256), ("ed25519", "ED25519")] {
        openssl::succeeds(&engine, &format!("genpkey -algorithm {kind} -out {name}.key"));
        openssl::succeeds(&engine, &format!("pkey -in {name}.key -pubout -out {name}.pub"));
        let profile = create_app(&engine, name, &format!("--public-key {name}.pub"));
        let saw = stranger.sees(&["brief", &profile, TLS_CA, name, &format!("{name}.key")]);
        assert_members(&saw, &json!({ "signed": 1 }));
    }
}

/// A client certificate that no CA stands behind.
fn make_certificate(engine: &Engine, name: &str) {
    let wanted = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem \
         -subj /CN={name} -days 2"
    );
    openssl::succeeds(engine, &wanted);
}

#[test]
fn a_client_certificate_is_proof_enough_on_both_transports_and_disturbs_nobody_else() {
    let engine = Engine::start();
    let (native, https) = (Stranger::native(&engine), Stranger::https(&engine));
    let unasked = native.sees(&["brief", PROFILE]);
    assert_members(&unasked, &json!({ "signed": 1, "asked_for_certificate": false }));
    for name in ["known", "unknown"] {
        make_certificate(&engine, name);
    }
    let profile = create_app(&engine, "certified", "--client-certificate known.pem");
    let saw = native.sees(&["brief", &profile, "known.pem", "known.key"]);
    assert_members(&saw, &json!({ "signed": 1, "asked_for_certificate": true }));
    assert_members(
        &https.sees(&["certificate", &profile, TLS_CA, "known.pem", "known.key"]),
        &json!({ "signed": 1 }),
    );

    let saw = native.sees(&["refused", &profile, "unknown.pem", "unknown.key"]);
    assert_members(
        &saw,
        &json!({ "frame": [109, "unauthenticated"], "connection": 109 }),
    );
    let saw = https.sees(&["refused", &profile, TLS_CA, "unknown.pem", "unknown.key"]);
    assert_eq!(saw, json!([401, "unauthenticated"]));

    // Clients without a certificate are asked for one from now on, and go on without.
    let asked = native.sees(&["brief", PROFILE]);
    assert_members(&asked, &json!({ "signed": 1, "asked_for_certificate": true }));
    assert_members(&https.sees(&["brief", PROFILE, TLS_CA]), &json!({ "signed": 1 }));
}
