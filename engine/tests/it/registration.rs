//! What apps ask of the certificate service: within its deadline, for their own certificates only, counted like signing;
//! and what a kill leaves of it.

use std::collections::BTreeMap;

use documents::tsp;
use documents::x509::{self, Issuer, Profile};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Hash, KeyKind};
use protocol::client::{Client, Profile as AppProfile, Transport};
use protocol::error_code::Code;
use serde_json::{Value, json};
use sla::minute::{Minute, Tally};
use sla::observed::Sample;
use sla::policy::Policy;

use crate::life::{KINDS, call, counted, make_request, orders, signed, spec};
use crate::operators::operator;
use crate::pki::{folder, get, post};
use crate::support::{Engine, Setup, block_on, request, run_in, sign_one, wait_until};

/// All minutes on record, added up.
fn minutes(engine: &Engine) -> Minute {
    let mut sum = Minute::default();
    let reader = store::Reader::beside(&engine.home()).unwrap();
    let visit = |record: store::MinuteRecord| {
        sum.merge(&Minute::decode(&record.record).unwrap());
        Ok(())
    };
    reader.minutes(0, u32::MAX, visit).unwrap();
    sum
}

/// Requests since the start, by operation, transport and outcome.
fn requests(engine: &Engine) -> BTreeMap<String, u64> {
    let text = engine.operate("latency stages --json");
    let shown: Value = serde_json::from_str(&text).unwrap();
    let all = shown["since_start"]["requests"].as_array().unwrap();
    let word = |request: &Value, part: &str| request[part].as_str().unwrap().to_owned();
    let name = |request: &Value| {
        ["operation", "transport", "outcome"]
            .map(|part| word(request, part))
            .join(" ")
    };
    all.iter()
        .map(|request| (name(request), request["count"].as_u64().unwrap()))
        .collect()
}

fn query() -> Vec<u8> {
    let query = tsp::Request::new(Hash::Sha256, &[7; 32], &[]).unwrap();
    query.to_der().unwrap()
}

#[test]
fn what_the_certificate_service_answers_is_in_the_minutes_and_in_the_histograms() {
    let engine = Engine::start();
    let profile = engine.profile();
    for _ in 0..3 {
        post(&engine, "/tsa", tsp::QUERY_TYPE, &query());
        get(&engine, "/crl/dev-p256.crl");
    }
    get(&engine, "/ocsp/!!");
    assert_eq!(get(&engine, "/crl/nobody.crl").status, 404);
    assert_eq!(call(&profile, "GET /v1/certificates", None, None).0, 200);
    assert_eq!(call(&profile, "GET /v1/certificates/00ff", None, None).0, 404);
    assert_eq!(call(&profile, "GET /v1/subjects", None, None).0, 200);
    let wanted: BTreeMap<String, u64> = [
        ("certificates https caller", 1),
        ("certificates https ok", 1),
        ("lists http caller", 1),
        ("lists http ok", 3),
        ("status http caller", 1),
        ("subjects https ok", 1),
        ("timestamp http ok", 3),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .into();
    wait_until("all of it is measured", || {
        let found = requests(&engine);
        wanted.iter().all(|(name, count)| found.get(name) == Some(count))
    });
    wait_until("all of it is on record", || {
        minutes(&engine).published == Tally { asked: 8, normal: 8 }
    });
    let minute = minutes(&engine);
    assert!(
        minute.certificates.asked > 3,
        "probes, and what the app has asked: {minute:?}"
    );
    assert_eq!(minute.certificates.asked, minute.certificates.normal);
    assert_eq!(minute.requests, Tally::default(), "nothing of it is signing");
    assert!(Sample::of(&minute, &Policy::bjca()).certificates);
}

#[test]
fn a_certificate_service_that_fails_makes_its_minute_bad() {
    // No clock is known to the millisecond, so no time is stamped: our fault, whoever asks.
    let engine = Setup::default()
        .set("tsa_clock", "verified")
        .set("tsa_accuracy_ms", 0)
        .start();
    for _ in 0..4 {
        assert_eq!(post(&engine, "/tsa", tsp::QUERY_TYPE, &query()).status, 200);
    }
    wait_until("it is on record", || {
        minutes(&engine).published == Tally { asked: 4, normal: 0 }
    });
    let sample = Sample::of(&minutes(&engine), &Policy::bjca());
    assert!(sample.signing && !sample.certificates);
    assert_eq!(requests(&engine).get("timestamp http failed"), Some(&4));
}

fn sign(profile: &AppProfile, credential: &str, key: &str) -> Result<(), Code> {
    block_on(async {
        let client = Client::connect(profile, Transport::Quic, 1).await.unwrap();
        let mut wanted = request(key, key);
        wanted.credential = credential.into();
        let signed = sign_one(&client, &wanted).await;
        signed.map(drop).map_err(|refusal| refusal.code)
    })
}

fn newest(profile: &AppProfile, credential: &str) -> Value {
    let (_, list) = call(profile, "GET /v1/certificates", None, None);
    let all = list["certificates"].as_array().unwrap();
    let mut its = all.iter().rev().filter(|one| one["credential"] == credential);
    its.next().unwrap().clone()
}

#[test]
fn an_app_suspends_and_resumes_what_is_its_own_but_not_what_an_operator_holds() {
    let engine = Engine::start();
    let profile = engine.profile();
    let serial = newest(&profile, "demo-p256")["serial"]
        .as_str()
        .unwrap()
        .to_owned();
    let set = |what: &str| {
        let line = format!("POST /v1/certificates/{serial}/{what}");
        let (status, body) = call(&profile, &line, None, None);
        let said = if status == 200 { "standing" } else { "code" };
        (status, body[said].as_str().unwrap().to_owned())
    };
    let is = |status, said: &str| (status, said.to_owned());
    assert_eq!(set("resumption"), is(409, "wrong_state"));
    assert_eq!(set("suspension"), is(200, "suspended"));
    assert_eq!(sign(&profile, "demo-p256", "held"), Err(Code::CredentialDisabled));
    assert_eq!(set("suspension"), is(409, "wrong_state"));
    assert_eq!(set("resumption"), is(200, "issued"));
    sign(&profile, "demo-p256", "held").unwrap();
    // An operator takes over what the app holds, or holds it at once: both are the operator's to resume.
    set("suspension");
    engine.operate("cert suspend --tenant demo --credential demo-p256");
    assert_eq!(set("resumption"), is(409, "wrong_state"));
    assert_eq!(
        sign(&profile, "demo-p256", "held-on"),
        Err(Code::CredentialDisabled)
    );
    engine.operate("cert resume --tenant demo --credential demo-p256");
    sign(&profile, "demo-p256", "held-on").unwrap();
    let journal = orders(&engine).join("\n");
    assert!(journal.contains("app demo-app certificate.suspend"), "{journal}");
}

#[test]
fn an_app_has_its_key_certified_by_another_authority_by_itself() {
    let engine = Engine::start();
    let profile = engine.profile();
    let wanted = json!({ "credential": "demo-p256" });
    let (status, made) = call(&profile, "POST /v1/certificates/requests", None, Some(&wanted));
    assert_eq!(status, 200, "{made}");
    let request = pem::parse(made["request"].as_str().unwrap()).unwrap();
    let request = documents::csr::Request::parse(request.contents()).unwrap();
    let journal = orders(&engine).join("\n");
    assert!(
        journal.contains("app demo-app certificate.request demo/demo-p256 sha256="),
        "{journal}"
    );

    let key = soft::generate(KeyKind::P256).unwrap();
    let theirs = SoftKey::new(KeyKind::P256, &key.pkcs8, &key.public_key).unwrap();
    let root = signed(
        &theirs,
        &spec(
            "their root",
            Issuer::Itself,
            &key.public_key,
            (Profile::Root, 3_600_000),
        ),
    );
    let leaf = spec(
        "their customer",
        Issuer::Holder(root.clone()),
        &request.public_key,
        (Profile::Signer, 3_000_000),
    );
    let leaf = signed(&theirs, &leaf);
    let import = |chain: &[u8], credential: &str| {
        let body =
            json!({ "credential": credential, "chain": x509::to_pem(chain), "root": x509::to_pem(&root) });
        call(&profile, "POST /v1/certificates/imports", None, Some(&body))
    };
    assert_eq!(import(&leaf, "demo-sm2").1["code"], "certificate_chain_refused");
    assert_eq!(import(&leaf, "nobodys").1["code"], "unknown_credential");
    let (status, imported) = import(&leaf, "demo-p256");
    assert_eq!(
        (status, &imported["certificate"]),
        (200, &json!(x509::to_pem(&leaf))),
        "{imported}"
    );
    assert_eq!(newest(&profile, "demo-p256")["issuer"], "external");
    sign(&profile, "demo-p256", "under-their-root").unwrap();
}

#[test]
fn a_call_that_takes_too_long_is_answered_and_found_again() {
    let engine = Engine::start();
    let profile = engine.profile();
    make_request(&engine, "late", (KINDS[0].1, ""), "/CN=late", &[]).ok();
    let csr = std::fs::read_to_string(folder(&engine).join("late.csr")).unwrap();
    let wanted = json!({ "profile": "enterprise-signing", "subject": "demo-enterprise", "request": csr });
    let before = counted(&engine, "demo", "counted-certificates");
    let place = "/v1/certificates/calls/late-1";
    assert_eq!(
        call(&profile, &format!("GET {place}"), None, None).1["code"],
        "not_found"
    );
    run_in(folder(&engine), &["rehearse", "disk", "--ms", "4000"]).ok();
    let (status, late) = call(&profile, "POST /v1/certificates", Some("late-1"), Some(&wanted));
    assert_eq!(
        (status, &late["code"]),
        (504, &json!("outcome_unknown")),
        "{late}"
    );
    assert_eq!(late["operation"], place);
    let look = || call(&profile, &format!("GET {place}"), None, None);
    let (status, running) = look();
    assert!(
        status == 200 || running["code"] == "outcome_pending",
        "neither running nor there: {running}"
    );
    wait_until("it is there", || look().0 == 200);
    let (_, again) = call(&profile, "POST /v1/certificates", Some("late-1"), Some(&wanted));
    assert_eq!(again["serial"], look().1["serial"]);
    assert_eq!(counted(&engine, "demo", "counted-certificates"), before + 1);
}

#[test]
fn certificates_are_counted_by_app_and_the_books_agree() {
    let engine = Engine::start();
    let profile = engine.profile();
    make_request(&engine, "app", (KINDS[0].1, ""), "/CN=a", &[]).ok();
    let csr = std::fs::read_to_string(folder(&engine).join("app.csr")).unwrap();
    let wanted = json!({ "profile": "enterprise-signing", "subject": "demo-enterprise", "request": csr });
    for key in ["one", "two", "two"] {
        assert_eq!(
            call(&profile, "POST /v1/certificates", Some(key), Some(&wanted)).0,
            200
        );
    }
    let (_, usage) = call(&profile, "GET /v1/usage", None, None);
    assert!(usage.to_string().contains("#certificate"), "{usage}");
    engine.operate("package use --tenant demo --unit user --units 3 --reference by-hand");
    engine.operate("reconcile");
}

#[test]
fn an_operator_ends_a_certificate_whose_key_is_not_here_and_lists_go_on_where_they_ended() {
    let engine = Engine::start();
    let alice = operator(&engine, "alice", "manage");
    let profile = engine.profile();
    make_request(&engine, "far", (KINDS[0].1, ""), "/CN=far", &[]).ok();
    let csr = std::fs::read_to_string(folder(&engine).join("far.csr")).unwrap();
    let wanted = json!({ "profile": "credential", "request": csr });
    for number in 0..260 {
        let key = format!("far-{number}");
        assert_eq!(
            call(&profile, "POST /v1/certificates", Some(&key), Some(&wanted)).0,
            200
        );
    }
    let page = |after: &str| {
        let page = alice.get(&format!("/tenants/demo/certificates{after}")).ok();
        page.as_array().unwrap().clone()
    };
    let first = page("");
    assert_eq!(first.len(), 256);
    let last = first[255]["serial"].as_str().unwrap();
    let rest = page(&format!("?after={last}"));
    assert!(!rest.is_empty() && rest.len() < 256);
    assert!(rest.iter().all(|one| one["serial"] != *last));
    let all: Value = serde_json::from_str(&engine.operate("cert list --tenant demo")).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 256 + rest.len());
    let serial = rest[0]["serial"].as_str().unwrap();
    let path = format!("/tenants/demo/certificates/{serial}");
    for (state, standing) in [
        ("suspended", "suspended"),
        ("resumed", "issued"),
        ("revoked", "revoked"),
    ] {
        let said = alice
            .post(&path, &json!({ "state": state, "reason": "superseded" }))
            .ok();
        assert_eq!(said["standing"], standing, "{said}");
    }
    alice
        .post(&path, &json!({ "state": "resumed" }))
        .refused(409, "wrong_state");
    let subjects = alice.get("/tenants/demo/subjects?after=demo-enterprise").ok();
    assert_eq!(subjects, json!([]));
}

/// Issues, and renews what was issued, until the engine is gone. Says which calls were answered with which serial number.
fn enrol_until_gone(engine: &AppProfile, csr: &str, name: &str) -> Vec<(String, String)> {
    let mut told = Vec::new();
    for number in 0.. {
        let key = format!("{name}-{number}");
        let body = match number % 2 {
            0 => json!({ "profile": "enterprise-signing", "subject": "demo-enterprise", "request": csr }),
            _ => json!({ "profile": "credential", "credential": "demo-p256" }),
        };
        let asked =
            std::panic::catch_unwind(|| call(engine, "POST /v1/certificates", Some(&key), Some(&body)));
        match asked {
            Ok((200, made)) => told.push((key, made["serial"].as_str().unwrap().to_owned())),
            // Two calls for the same credential came together, or the engine is on its way out.
            Ok(_) => {}
            Err(_) => return told,
        }
    }
    told
}

#[test]
fn what_an_app_was_told_of_its_certificates_is_so_after_a_kill() {
    let rounds = std::env::var("TEST_CRASH_ROUNDS").map_or(3, |text| text.parse().unwrap());
    let mut engine = Engine::start();
    make_request(&engine, "far", (KINDS[0].1, ""), "/CN=far", &[]).ok();
    let csr = std::fs::read_to_string(folder(&engine).join("far.csr")).unwrap();
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..rounds {
        let profile = engine.profile();
        let clients = [0, 1].map(|client| {
            let (profile, csr) = (profile.clone(), csr.clone());
            std::thread::spawn(move || enrol_until_gone(&profile, &csr, &format!("{round}-{client}")))
        });
        let issued = |engine: &Engine| counted(engine, "demo", "counted-certificates");
        let enough = issued(&engine) + 10;
        wait_until("certificates are issued", || issued(&engine) >= enough);
        let folder = engine.kill();
        for client in clients {
            all.extend(client.join().unwrap());
        }
        engine = Setup::default().start_in(folder);
        let (profile, mut serials) = (engine.profile(), std::collections::BTreeSet::new());
        for (key, serial) in &all {
            let place = format!("GET /v1/certificates/calls/{key}");
            let (status, found) = call(&profile, &place, None, None);
            assert_eq!(
                (status, found["serial"].as_str()),
                (200, Some(&**serial)),
                "{key}"
            );
            assert!(serials.insert(serial), "a serial number came twice");
        }
        engine.operate("reconcile");
    }
    assert!(all.len() >= rounds);
}
