//! The operators' side from outside: who may do what on the console, what needs two of them, incidents, webhooks, alerts.
//! The console is asked by curl; messages arrive at a receiver and a mail server of the test's own.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::client::{Client, Transport};
use protocol::error_code::Code;
use serde_json::{Value, json};
use sla::calendar::{MinuteIndex, Month};

use crate::devices_support::Site;
use crate::raw::Http1;
use crate::receivers::{Heard, MailServer, Receiver};
use crate::support::{Engine, Setup, block_on, run, sign_one, wait_until};

/// How somebody comes to the console.
#[derive(Clone)]
pub(crate) struct Asker<'a> {
    engine: &'a Engine,
    /// Arguments of curl that say who it is.
    words: Vec<String>,
}

/// An answer of the console.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.body
    }

    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, &self.body["code"]),
            (status, &json!(code)),
            "{self:?}"
        );
    }
}

impl Asker<'_> {
    fn with(&self, words: &[&str]) -> Self {
        let mut with = self.clone();
        with.words.extend(words.iter().map(|word| (*word).to_owned()));
        with
    }

    fn curl(&self, path: &str, words: &[&str]) -> crate::support::Ran {
        let port = self.engine.console.port();
        let mut command = Command::new("curl");
        command
            .current_dir(self.engine.folder.as_ref().unwrap().path())
            .args(["-sS", "--cacert", "var/dev/tls-ca.pem", "-w", "\n%{http_code}"])
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .args(&self.words)
            .args(words)
            .arg(format!("https://localhost:{port}{path}"));
        run(&mut command)
    }

    #[track_caller]
    fn ask(&self, path: &str, words: &[&str]) -> Answer {
        let said = self.curl(path, words).ok();
        let (body, status) = said.rsplit_once('\n').unwrap();
        Answer {
            status: status.parse().unwrap(),
            body: serde_json::from_str(body).unwrap_or_else(|_| body.into()),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("/operator/v1{path}"), &[])
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let words = ["-H", "content-type: application/json", "-d", &body];
        self.ask(&format!("/operator/v1{path}"), &words)
    }
}

fn stranger(engine: &Engine) -> Asker<'_> {
    let words = Vec::new();
    Asker { engine, words }
}

/// Makes an operator with a certificate of its own.
pub(crate) fn operator<'a>(engine: &'a Engine, name: &str, role: &str) -> Asker<'a> {
    let subject = format!("/CN={name}");
    let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
    let line = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let mut make = Command::new("openssl");
    make.current_dir(engine.folder.as_ref().unwrap().path())
        .args(line.split(' '))
        .args(["-subj", &subject, "-keyout", &key, "-out", &certificate]);
    run(&mut make).ok();
    engine.operate(&format!(
        "operator create {name} --role {role} --certificate {certificate}"
    ));
    stranger(engine).with(&["--cert", &certificate, "--key", &key])
}

#[test]
fn roles_are_kept_apart_and_every_refusal_is_named() {
    let engine = Engine::start();
    let alice = operator(&engine, "alice", "manage");
    let carol = operator(&engine, "carol", "audit");
    let dave = operator(&engine, "dave", "use");
    alice
        .post("/tenants", &json!({ "name": "acme", "prepaid": 5 }))
        .ok();
    for path in [
        "/operators",
        "/tenants",
        "/apps",
        "/devices",
        "/notices",
        "/incidents",
        "/proposals",
        "/webhooks",
        "/messages",
        "/alerts",
        "/authorities",
        "/tenants/acme/credentials",
        "/tenants/acme/certificates",
        "/tenants/acme/packages",
    ] {
        for reader in [&alice, &carol] {
            reader.get(path).ok();
        }
        dave.get(path).refused(403, "role_missing");
        stranger(&engine).get(path).refused(401, "unauthenticated");
    }
    // Who audits changes nothing, who manages does not audit, and each knows who it is.
    carol
        .post("/tenants", &json!({ "name": "other" }))
        .refused(403, "role_missing");
    carol.get("/actions").ok();
    alice.get("/actions").refused(403, "role_missing");
    assert_eq!(dave.get("/me").ok(), json!({ "name": "dave", "roles": ["use"] }));
    // What cannot be done says why.
    alice
        .post("/tenants", &json!({ "name": "acme" }))
        .refused(409, "already_exists");
    alice
        .post("/tenants", &json!({ "nmae": "acme" }))
        .refused(400, "malformed_request");
    alice.get("/tenants/nobody/packages").refused(404, "not_found");
    alice
        .get("/tenants/no%20name/packages")
        .refused(400, "malformed_request");
    let form = alice.ask("/operator/v1/tenants", &["-d", "name=acme"]);
    form.refused(415, "unsupported_media_type");
    alice.get("/nothing").refused(404, "unknown_path");
    // Everything is on record under its operator's name.
    let actions = carol.get("/actions").ok();
    let mut made = actions["actions"].as_array().unwrap().iter();
    let made = made.rfind(|action| action["action"] == "tenant.create").unwrap();
    assert_eq!(made["actor"], "operator alice");
    // A disabled operator is a stranger at once.
    alice
        .post("/operators/carol/state", &json!({ "active": false }))
        .ok();
    carol.get("/tenants").refused(401, "unauthenticated");
    engine.operate("operator enable carol");
    carol.get("/tenants").ok();
}

#[test]
fn the_whole_registry_can_be_managed_from_the_console() {
    let engine = Engine::start();
    let alice = operator(&engine, "alice", "manage");
    alice
        .post("/tenants", &json!({ "name": "acme", "prepaid": 1 }))
        .ok();
    engine.operate("key create --tenant acme --kind p256 seal");
    let app = alice
        .post("/apps", &json!({ "tenant": "acme", "id": "erp" }))
        .ok();
    let mut profile = engine.profile();
    profile.app_id = protocol::ids::AppId::new("erp").unwrap();
    profile.secret = app["secret"].as_str().unwrap().to_owned();
    let sign = |key: &str| {
        let mut wanted = crate::support::request(key, key);
        wanted.credential = "seal".into();
        block_on(async {
            let client = Client::connect(&profile, Transport::Https, 1).await?;
            sign_one(&client, &wanted).await
        })
    };
    let code = |key: &str| sign(key).unwrap_err().code;
    sign("a").unwrap();
    assert_eq!(code("b"), Code::QuotaExhausted);
    alice.post("/tenants/acme/prepaid", &json!({ "units": 100 })).ok();
    sign("b").unwrap();
    alice
        .post("/tenants/acme/state", &json!({ "state": "suspended" }))
        .ok();
    assert_eq!(code("c"), Code::TenantSuspended);
    alice
        .post("/tenants/acme/state", &json!({ "state": "active" }))
        .ok();
    let off = json!({ "active": false });
    alice.post("/tenants/acme/credentials/seal/state", &off).ok();
    assert_eq!(code("c"), Code::CredentialDisabled);
    let on = json!({ "active": true });
    alice.post("/tenants/acme/credentials/seal/state", &on).ok();
    sign("c").unwrap();
    alice.post("/apps/erp/state", &off).ok();
    assert_eq!(code("d"), Code::AppRevoked);
    let listed = alice.get("/apps").ok();
    let erp = listed.as_array().unwrap().iter().find(|app| app["id"] == "erp");
    assert_eq!(erp.unwrap()["active"], false);
}

#[test]
fn a_login_link_serves_once_and_its_session_only_our_own_pages() {
    let engine = Engine::start();
    engine.operate("operator create alice --role manage");
    let link = engine.operate("operator login alice");
    let port = engine.console.port();
    let prefix = format!("https://localhost:{port}/login?link=");
    let token = link.trim().strip_prefix(&prefix).unwrap();
    let nobody = stranger(&engine);
    // Looking at the link does not use it up.
    let page = nobody.ask(&format!("/login?link={token}"), &[]).ok();
    assert!(page.as_str().unwrap().contains("<form"), "{page}");
    let origin = format!("origin: https://localhost:{port}");
    let body = format!("link={token}");
    let enter = ["-H", &origin, "-d", &body, "-c", "jar", "-D", "head"];
    let folder = engine.folder.as_ref().unwrap().path();
    assert_eq!(nobody.ask("/login", &enter).status, 303);
    let head = std::fs::read_to_string(folder.join("head"))
        .unwrap()
        .to_lowercase();
    for part in [
        "__host-cinnabar=",
        "; secure",
        "; httponly",
        "; samesite=strict",
        "; path=/",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
    assert!(head.contains("cache-control: no-store") && head.contains("content-security-policy:"));
    nobody.ask("/login", &enter[..4]).refused(401, "unauthenticated");

    let alice = nobody.with(&["-b", "jar"]);
    assert_eq!(alice.get("/me").ok()["name"], "alice");
    let new = json!({ "name": "acme" });
    // A browser that shows another site's page, or hides where it comes from, changes nothing.
    alice.post("/tenants", &new).refused(403, "origin_refused");
    let foreign = alice.with(&["-H", "origin: https://evil.example"]);
    foreign.post("/tenants", &new).refused(403, "origin_refused");
    foreign.get("/tenants").refused(403, "origin_refused");
    let own = alice.with(&["-H", &origin]);
    own.post("/tenants", &new).ok();
    // A name that somebody has pointed here is not ours.
    let rebound = alice.with(&["-H", &format!("host: evil.example:{port}")]);
    rebound.get("/tenants").refused(403, "origin_refused");

    own.post("/logout", &json!({})).ok();
    alice.get("/me").refused(401, "unauthenticated");
    // A session does not outlive its operator.
    let link = engine.operate("operator login alice");
    let body = format!("link={}", link.trim().strip_prefix(&prefix).unwrap());
    nobody.ask("/login", &["-H", &origin, "-d", &body, "-c", "jar"]);
    alice.get("/me").ok();
    engine.operate("operator disable alice");
    alice.get("/me").refused(401, "unauthenticated");
    let run = engine.cli(&["operator", "login", "alice"]);
    run.refused(2, "wrong_state");
}

/// What needs two operators in these tests.
const TWO: &str = "dual_control = [\"app.revoke\", \"app.rotate-secret\"]\n";

#[test]
fn what_needs_two_operators_waits_for_the_second() {
    let engine = Setup::default().config(TWO).start();
    engine.make_prepaid(10);
    let alice = operator(&engine, "alice", "manage");
    let bob = operator(&engine, "bob", "manage");
    let carol = operator(&engine, "carol", "audit");
    let is_active = || {
        let apps = alice.get("/apps").ok();
        let erp = apps.as_array().unwrap().iter().find(|app| app["id"] == "erp");
        erp.unwrap()["active"] == true
    };
    let off = json!({ "active": false });
    let approve = json!({ "decision": "approve" });
    let proposed = alice.post("/apps/erp/state", &off);
    assert_eq!(proposed.status, 202, "{proposed:?}");
    assert_eq!(proposed.body["state"], "open");
    let path = format!("/proposals/{}/decision", proposed.body["id"].as_str().unwrap());
    alice.post(&path, &approve).refused(403, "second_operator_needed");
    carol.post(&path, &approve).refused(403, "role_missing");
    alice
        .post(&path, &json!({ "decision": "expire" }))
        .refused(400, "malformed_request");
    assert!(is_active());
    let console = engine.console.to_string();
    let words = ["proposal", "approve", proposed.body["id"].as_str().unwrap()];
    let of = |name: &str| [format!("{name}.pem"), format!("{name}.key")];
    let decide = |[certificate, key]: [String; 2]| {
        let who = [
            "--console",
            &console,
            "--certificate",
            &certificate,
            "--key",
            &key,
        ];
        engine.cli(&[&words[..], &who[..]].concat())
    };
    decide(of("alice")).refused(2, "second_operator_needed");
    decide(of("bob")).ok();
    assert!(!is_active());
    bob.post(&path, &approve).refused(409, "wrong_state");

    // What is rejected does not happen, and what does not need two happens at once.
    alice.post("/apps/erp/state", &json!({ "active": true })).ok();
    let again = alice.post("/apps/erp/state", &off).body;
    let path = format!("/proposals/{}/decision", again["id"].as_str().unwrap());
    bob.post(&path, &json!({ "decision": "reject" })).ok();
    bob.post(&path, &approve).refused(409, "wrong_state");
    assert!(is_active());
    let actions = carol.get("/actions").ok();
    let actions: Vec<_> = actions["actions"].as_array().unwrap().iter().collect();
    let at = actions
        .iter()
        .position(|action| action["action"] == "app.revoke")
        .unwrap();
    assert_eq!(actions[at]["actor"], "operator alice, approved by operator bob");
    assert_eq!(actions[at - 1]["action"], "approval.approve");
    assert_eq!(actions[at - 1]["time"], actions[at]["time"]);
}

#[test]
fn the_command_line_is_no_way_round_the_second_operator() {
    let engine = Setup::default().config(TWO).start();
    engine.make_prepaid(10);
    let alice = operator(&engine, "alice", "manage");
    let old = engine.prepaid_profile();
    engine
        .cli(&["app", "rotate-secret", "erp", "--overlap-days", "0"])
        .refused(2, "approval_needed");
    let open = alice.get("/proposals").ok()[0].clone();
    assert_eq!(open["action"], "app.rotate-secret");
    assert!(open["proposer"].as_str().unwrap().starts_with("uid "), "{open}");
    let path = format!("/proposals/{}/decision", open["id"].as_str().unwrap());
    let secret = alice.post(&path, &json!({ "decision": "approve" })).ok()["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut new = old.clone();
    new.secret = secret;
    block_on(async {
        for (profile, wanted) in [(&old, Some(Code::Unauthenticated)), (&new, None)] {
            let client = Client::connect(profile, Transport::Https, 1).await.unwrap();
            assert_eq!(client.usage().await.err().map(|refusal| refusal.code), wanted);
        }
    });
}

#[test]
fn an_action_that_does_not_exist_cannot_need_two_operators() {
    let engine = Engine::start();
    let run = engine.cli(&["--set", "dual_control=[\"app.revok\"]", "config", "print"]);
    run.refused(2, "usage");
    assert!(run.stderr.contains("app.revok") && run.stderr.contains("app.revoke"));
}

/// So many minutes before now.
fn ago(minutes: u32) -> MinuteIndex {
    let now = MinuteIndex::of_unix_seconds(protocol::clock::wall().seconds());
    MinuteIndex::new(now.number() - minutes)
}

#[test]
fn incidents_have_two_clocks_and_are_in_the_months_report() {
    let engine = Engine::start();
    engine.make_prepaid(1);
    // The month in which the first of them is repaired, even on the night in which another one begins.
    let month = Month::of(ago(41));
    engine.operate(&format!("tenant activate acme --at {month}-01"));
    let alice = operator(&engine, "alice", "manage");
    let began = ago(100);
    let new = json!({ "id": "i-1", "grade": 1, "text": "signing fails", "began": began });
    alice.post("/incidents", &new).ok();
    alice.post("/incidents", &new).refused(409, "already_exists");
    let step = |id: &str, step: &str, minutes| {
        let body = json!({ "step": step, "at": ago(minutes) });
        alice.post(&format!("/incidents/{id}/steps"), &body)
    };
    step("i-1", "repair", 50).refused(409, "wrong_state");
    step("i-1", "respond", 90).ok();
    step("i-1", "respond", 80).refused(409, "wrong_state");
    step("nothing", "respond", 80).refused(404, "not_found");
    engine.operate(&format!(
        "incident open i-2 --grade 1 --text slow --began {began}"
    ));
    engine.operate("incident respond i-2");
    step("i-1", "repair", 40).ok();
    engine.operate("incident close i-1");
    step("i-1", "close", 0).refused(409, "wrong_state");
    let listed = alice.get("/incidents").ok();
    let minutes = |id: &str| {
        let all = listed.as_array().unwrap().iter();
        let one = all.clone().find(|incident| incident["id"] == id).unwrap();
        (one["response_minutes"].as_u64(), one["repair_minutes"].as_u64())
    };
    assert_eq!(minutes("i-1"), (Some(10), Some(60)));
    let (response, repair) = minutes("i-2");
    assert!((100..=102).contains(&response.unwrap()) && repair.is_none());
    // 15 minutes until somebody responds, 120 until it is repaired: agreement A 4.1.
    let report = alice.get(&format!("/tenants/acme/sla/{month}")).ok();
    let clock = |id: &str, name: &str| {
        let all = report["incidents"].as_array().unwrap().iter();
        let one = all.clone().find(|timed| timed["incident"]["id"] == id).unwrap();
        one[name]["is"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (clock("i-1", "response"), clock("i-1", "repair")),
        ("kept".into(), "kept".into())
    );
    assert_eq!(
        (clock("i-2", "response"), clock("i-2", "repair")),
        ("missed".into(), "running".into())
    );
}

#[test]
fn evidence_is_taken_out_after_two_operators_have_proved_that_they_agree() {
    let engine = Setup::default()
        .config("dual_control = [\"audit.export\"]\n")
        .start();
    engine.make_prepaid(10);
    let alice = operator(&engine, "alice", "manage");
    let export = |line: &str| {
        let words = format!("audit export --tenant acme --from 2020-01-01 --to 2099-01-01 --out case {line}");
        engine.cli(&words.split_whitespace().collect::<Vec<_>>())
    };
    export("--case c-1 --operator ann --operator bob").refused(2, "approval_needed");
    let case = engine.folder.as_ref().unwrap().path().join("case");
    assert!(!case.exists(), "nothing is taken out before it is approved");
    let open = alice.get("/proposals").ok()[0].clone();
    assert_eq!(open["action"], "audit.export");
    let id = open["id"].as_str().unwrap();
    export(&format!("--case c-1 --proposal {id}")).refused(2, "approval_needed");
    let path = format!("/proposals/{id}/decision");
    alice.post(&path, &json!({ "decision": "approve" })).ok();
    export(&format!("--case c-2 --proposal {id}")).refused(2, "usage");
    let mut made = Value::Null;
    wait_until("all of it is under a checkpoint", || {
        let ran = export(&format!("--case c-1 --proposal {id}"));
        if ran.stderr.starts_with("cinnabar: proof_pending: ") {
            std::fs::remove_dir_all(&case).unwrap();
            return false;
        }
        made = serde_json::from_str(&ran.ok()).unwrap();
        true
    });
    assert!(made["component_log_lines"].as_u64().unwrap() > 0, "{made}");
    let logs = std::fs::read_to_string(case.join("component-logs.jsonl")).unwrap();
    assert!(
        logs.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let vkey = engine.operate("audit key").trim().to_owned();
    let verify = || engine.cli(&["audit", "verify", "--case", "case", "--key", &vkey]);
    let manifest: Value = serde_json::from_str(&verify().ok()).unwrap();
    let operators = &manifest["manifest"]["operators"];
    assert_eq!(
        (&operators[0], &operators[1]),
        (&open["proposer"], &"operator alice".into())
    );
    std::fs::write(case.join("component-logs.jsonl"), logs + "{}\n").unwrap();
    verify().refused(2, "signature_invalid");
}

/// What a webhook's signature must be (Standard Webhooks 1.0), as OpenSSL computes it.
fn signature(secret: &str, heard: &Heard) -> String {
    let key = STANDARD.decode(secret).unwrap();
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signed");
    let (id, time) = (heard.field("webhook-id"), heard.field("webhook-timestamp"));
    std::fs::write(&path, format!("{id}.{time}.{}", heard.body)).unwrap();
    let line = format!(
        "openssl dgst -sha256 -mac HMAC -macopt hexkey:{} -binary {} | base64",
        key,
        path.display()
    );
    format!("v1,{}", run(Command::new("sh").args(["-c", &line])).ok().trim())
}

fn messages(engine: &Engine) -> Vec<Value> {
    serde_json::from_str(&engine.operate("message list")).unwrap()
}

const NOTICE: &str = "--from 2099-01-02T02:00+08:00 --to 2099-01-02T04:00+08:00 --text upgrade";

#[test]
fn a_notice_reaches_webhooks_signed_and_until_it_is_taken() {
    let engine = Engine::start();
    engine.make_prepaid(1);
    let elsewhere = Receiver::start(&[]);
    let receiver = Receiver::start(&[
        "500 Oops".into(),
        format!("302 Found\r\nlocation: {}", elsewhere.url()),
    ]);
    let url = format!("{}/hook?token=abc", receiver.url());
    let told = engine.operate(&format!("webhook set --tenant acme {url}"));
    let secret = told.trim().strip_prefix("whsec_").unwrap();
    // Nobody is told where exactly it is.
    assert!(!engine.operate("webhook list").contains("abc"));
    engine.operate(&format!("notice create n1 {NOTICE}"));
    wait_until("it is taken", || messages(&engine)[0]["state"] == "delivered");
    let heard = receiver.heard();
    assert_eq!(
        heard.len(),
        3,
        "an error, a redirect, and then it was taken: {heard:?}"
    );
    assert!(elsewhere.heard().is_empty(), "a redirect was followed");
    for one in &heard {
        assert_eq!(one.target, "POST /hook?token=abc HTTP/1.1");
        assert_eq!(one.field("webhook-id"), heard[0].field("webhook-id"));
        assert_eq!(one.field("webhook-signature"), signature(secret, one));
        assert_eq!(one.body, heard[0].body);
    }
    let body: Value = serde_json::from_str(&heard[0].body).unwrap();
    assert_eq!(
        (&body["type"], &body["data"]["id"]),
        (&"maintenance.notice".into(), &"n1".into())
    );
    assert_eq!(messages(&engine)[0]["attempts"], 3);
    // The tenant demo has no webhook, and the operators have none.
    assert_eq!(messages(&engine).len(), 1);
    let sample = |outcome| {
        let name = format!("cinnabar_outgoing_attempts_total{{channel=\"webhook\",outcome=\"{outcome}\"}}");
        engine.metric(&name)
    };
    assert_eq!((sample("delivered"), sample("failed")), (1.0, 2.0));
}

#[test]
fn what_was_not_sent_before_the_end_is_sent_after_the_next_start() {
    let engine = Engine::start();
    engine.make_prepaid(1);
    let receiver = Receiver::start(&["503 Later".into()]);
    engine.operate(&format!("webhook set --tenant acme {}", receiver.url()));
    engine.operate(&format!("notice create n1 {NOTICE}"));
    wait_until("it was tried", || !receiver.heard().is_empty());
    let folder = engine.kill();
    let engine = Setup::default().start_in(folder);
    wait_until("it is taken", || messages(&engine)[0]["state"] == "delivered");
    let heard = receiver.heard();
    assert_eq!(heard[0].field("webhook-id"), heard[1].field("webhook-id"));
}

#[test]
fn a_message_that_nobody_takes_is_given_up_and_says_why() {
    let engine = Setup::default().set("outgoing_give_up_s", 2).start();
    engine.make_prepaid(1);
    // A port on which nobody listens any more.
    let gone = Receiver::start(&[]).url();
    engine.operate(&format!("webhook set --tenant acme {gone}"));
    engine.operate(&format!("notice create n1 {NOTICE}"));
    wait_until("it is given up", || messages(&engine)[0]["state"] == "given-up");
    let message = messages(&engine).remove(0);
    assert!(
        message["error"].as_str().unwrap().contains("connecting"),
        "{message}"
    );
    // A receiver that wants no more is not asked again.
    let closed = Receiver::start(&["410 Gone".into()]);
    engine.operate(&format!("webhook set --tenant acme {}", closed.url()));
    engine.operate(&format!("notice create n2 {NOTICE}"));
    wait_until("it is given up", || messages(&engine)[0]["state"] == "given-up");
    assert_eq!(messages(&engine)[0]["attempts"], 1);
}

#[test]
fn webhooks_lead_to_public_addresses_only() {
    let engine = Engine::start();
    engine.make_prepaid(1);
    for url in [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/",
        "http://example.com/",
        "https://user:secret@example.com/",
        "ftp://example.com/",
    ] {
        let run = engine.cli(&["webhook", "set", "--tenant", "acme", url]);
        run.refused(2, "usage");
    }
    let folder = engine.stop();
    // Without `--dev` not even loopback is.
    let run = crate::support::run_in(folder.path(), &["webhook", "set", "https://127.0.0.1/"]);
    run.refused(2, "usage");
    assert!(
        run.stderr.contains("127.0.0.1 is not a public address"),
        "{run:?}"
    );
}

#[test]
fn alerts_reach_the_operators_by_webhook_and_by_mail() {
    let mail = MailServer::start();
    let receiver = Receiver::start(&[]);
    let text = format!(
        "smtp = \"smtp://{}\"\nemail_from = \"cinnabar@example.com\"\nemail_to = [\"ops@example.com\"]\n",
        mail.address
    );
    let site = Site::new().config(&text).softhsm("hsm-1");
    // A PIN that the token refuses: only an operator may try again.
    std::fs::write(site.path("hsm-1.pin"), "1111\n").unwrap();
    let (folder, config) = site.into_parts();
    let engine = Setup::default().config(&config).start_in(folder);
    let latched = || {
        let mut letters = mail.heard().into_iter();
        letters.find(|letter| letter.text.contains("alert.raised: pin-latched hsm-1"))
    };
    wait_until("the mail arrives", || latched().is_some());
    let letter = latched().unwrap();
    assert_eq!(
        (letter.from.as_str(), letter.to.as_str()),
        ("cinnabar@example.com", "ops@example.com")
    );
    let alerts: Value = serde_json::from_str(&engine.operate("alert list")).unwrap();
    let names: Vec<_> = alerts
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| &alert["alert"])
        .collect();
    assert!(names.contains(&&json!("pin-latched")), "{alerts}");
    assert_eq!(engine.metric("cinnabar_alerts{alert=\"pin-latched\"}"), 1.0);

    // Set later, the webhook hears what comes later.
    engine.operate(&format!("webhook set {}", receiver.url()));
    engine.operate("alert test");
    wait_until("the webhook hears it", || !receiver.heard().is_empty());
    let body: Value = serde_json::from_str(&receiver.heard()[0].body).unwrap();
    assert_eq!(
        (&body["type"], &body["data"]["alert"]),
        (&"alert.test".into(), &"test".into())
    );
    wait_until("so does the mail", || {
        mail.heard()
            .iter()
            .any(|letter| letter.text.contains("alert.test"))
    });
}

#[test]
fn an_alert_without_anybody_to_tell_says_so() {
    let engine = Engine::start();
    engine.cli(&["alert", "test"]).refused(2, "wrong_state");
}

#[test]
fn tenants_are_told_where_their_data_lies_once_it_is_stated() {
    let engine = Engine::start();
    let answer = block_on(proved_get(&engine, "/v1/data-location"));
    assert_eq!(answer.problem(), (404, "not_found".to_owned()));
    drop(engine);
    let place = |holds, place, copies| {
        format!(
            "[[location]]\nholds = \"{holds}\"\nplace = \"{place}\"\ncountry = \"CN\"\ncopies = {copies}\n"
        )
    };
    let text = place("data", "Beijing", 1) + &place("backup", "Shanghai", 2);
    let engine = Setup::default().config(&text).start();
    let answer = block_on(proved_get(&engine, "/v1/data-location"));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&body["data_copies"], &body["backup_copies"]),
        (&1.into(), &2.into())
    );
    assert_eq!(body["locations"][1]["place"], "Shanghai");
    let run = engine.cli(&[
        "--set",
        "location=[{holds=\"data\",place=\"x\",country=\"China\",copies=1}]",
        "config",
        "print",
    ]);
    run.refused(2, "usage");
}

async fn proved_get(engine: &Engine, path: &str) -> crate::raw::Heard {
    use protocol::http_proof::{self, Parts, SignKey};
    let profile = engine.profile();
    let authority = format!("{}:{}", profile.server_name, profile.address.port());
    let parts = Parts {
        method: "GET",
        authority: &authority,
        path,
        query: None,
        content_digest: None,
        idempotency_key: None,
    };
    let key = SignKey::from_secret(&profile.secret().unwrap());
    let now = protocol::clock::wall();
    let signed = http_proof::sign(&parts, profile.app_id.as_str(), now, &key).unwrap();
    let text = format!(
        "GET {path} HTTP/1.1\r\nhost: {authority}\r\nsignature-input: {}\r\nsignature: {}\r\n\r\n",
        signed.signature_input, signed.signature
    );
    Http1::dial(&profile).await.exchange(text.as_bytes()).await
}

#[test]
fn the_console_describes_itself() {
    let engine = Engine::start();
    let document = stranger(&engine).ask("/openapi.json", &[]).ok();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 30, "{}", paths.len());
    // Nothing of it is reached by a stranger.
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let concrete = path
                .replace("{tenant}", "demo")
                .replace("{id}", "x")
                .replace("{name}", "x")
                .replace("{month}", "2026-01")
                .replace("{package}", "1");
            let words = [
                "-X",
                &method.to_uppercase(),
                "-H",
                "content-type: application/json",
            ];
            stranger(&engine)
                .ask(&concrete, &words)
                .refused(401, "unauthenticated");
        }
    }
}
