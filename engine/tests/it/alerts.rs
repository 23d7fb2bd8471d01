//! Alerts from end to end: what goes wrong in an engine reaches a webhook or a mailbox, over TLS that is checked.
//! A full disk is told of in `trouble`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::receivers::{MailServer, Receiver, Security, certified};
use crate::support::{Engine, Setup, run, wait_until};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The matter of an alert that was raised, once the receiver has heard it.
fn raised(receiver: &Receiver, name: &str) -> Option<Value> {
    let bodies = receiver.heard().into_iter().map(|heard| json(&heard.body));
    let mut alerts = bodies.filter(|body| body["type"] == "alert.raised");
    alerts
        .find(|body| body["data"]["alert"] == name)
        .map(|body| body["data"].clone())
}

#[test]
fn a_difference_in_the_books_reaches_the_operators_webhook() {
    let engine = Engine::start();
    let receiver = Receiver::start(&[]);
    engine.operate(&format!("webhook set {}", receiver.url()));
    engine.make_prepaid(5);
    let folder = engine.stop();
    // A unit that nobody has used.
    let month = store::month_of(protocol::clock::wall());
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute('INSERT INTO usage (app, credential, month, units) VALUES (1, 1, ?, 1)', [int(sys.argv[2])])\n\
        db.commit()";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .arg(folder.path().join("var/cinnabar.db"));
    run(python.arg(month.to_string())).ok();
    let engine = Setup::default().start_in(folder);
    engine.cli(&["reconcile"]);
    wait_until("the webhook hears of it", || {
        raised(&receiver, "reconciliation-difference").is_some()
    });
    let data = raised(&receiver, "reconciliation-difference").unwrap();
    assert_eq!(data["subject"], format!("{}-{:02}", month / 100, month % 100));
}

/// The library that tells a process another wall clock.
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
fn a_minute_in_which_nobody_was_there_reaches_the_operators_webhook() {
    let receiver = Receiver::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let engine = Setup::default()
        .environment("LD_PRELOAD", FAKETIME)
        .environment("FAKETIME_TIMESTAMP_FILE", &clock)
        .environment("FAKETIME_NO_CACHE", Path::new("1"))
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1"))
        .start_in(folder);
    engine.operate(&format!("webhook set {}", receiver.url()));
    assert_eq!(raised(&receiver, "bad-minute"), None);
    // The machine sleeps for five minutes.
    std::fs::write(&clock, "+300").unwrap();
    wait_until("the webhook hears of it", || {
        raised(&receiver, "bad-minute").is_some()
    });
    let data = raised(&receiver, "bad-minute").unwrap();
    assert!(
        data["text"]
            .as_str()
            .unwrap()
            .contains("was unavailable under policy"),
        "{data}"
    );
    // The engine does not outlive the file that its clock reads.
    drop(engine);
}

fn messages(engine: &Engine) -> Vec<Value> {
    json(&engine.operate("message list")).as_array().unwrap().clone()
}

#[test]
fn a_webhook_behind_tls_is_believed_only_by_a_ca_that_is_trusted() {
    let place = tempfile::tempdir().unwrap();
    let receiver = Receiver::with_tls(certified(place.path()));
    let url = receiver.url().replacen("http:", "https:", 1);
    let engine = Engine::start();
    engine.operate(&format!("webhook set {url}"));
    engine.operate("alert test");
    wait_until("it was tried", || messages(&engine)[0]["attempts"] != 0);
    let error = messages(&engine)[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert!(receiver.heard().is_empty());
    let ca = place.path().join("ca.pem");
    let engine = Setup::default()
        .set("outgoing_ca", ca.display())
        .start_in(engine.stop());
    wait_until("it is taken", || messages(&engine)[0]["state"] == "delivered");
    assert_eq!(json(&receiver.heard()[0].body)["type"], "alert.test");
}

#[test]
fn mail_goes_over_tls_from_the_first_byte_or_after_starttls() {
    let place = tempfile::tempdir().unwrap();
    let config = certified(place.path());
    let ca = place.path().join("ca.pem");
    let ways = [
        (Security::Implicit(config.clone()), "smtps://", ""),
        (Security::Upgraded(config), "smtp://", "?tls=required"),
    ];
    for (security, scheme, query) in ways {
        let mail = MailServer::secured(security);
        let text = format!(
            "smtp = \"{scheme}{}{query}\"\nemail_from = \"cinnabar@example.com\"\nemail_to = [\"ops@example.com\"]\n",
            mail.address
        );
        // A relay that nobody vouches for gets nothing.
        let engine = Setup::default().config(&text).start();
        engine.operate("alert test");
        wait_until("it was tried", || messages(&engine)[0]["attempts"] != 0);
        assert_eq!(messages(&engine)[0]["state"], "waiting", "{scheme}");
        assert!(mail.heard().is_empty());
        let trusting = Setup::default().config(&text).set("outgoing_ca", ca.display());
        let engine = trusting.start_in(engine.stop());
        wait_until("it is taken", || messages(&engine)[0]["state"] == "delivered");
        assert_eq!(mail.heard()[0].to, "ops@example.com");
    }
}
