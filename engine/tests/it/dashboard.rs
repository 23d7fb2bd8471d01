//! The dashboard: its stream by curl, and the whole page in headless Chromium while there is load.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::client::{SignRequest, Transport};
use serde_json::Value;

use crate::devices_support::{Site, cinnabar};
use crate::strangers::{python, workspace};
use crate::support::{Engine, block_on, request, run};

/// Logs an operator in; curl's arguments for the session.
fn session(engine: &Engine, name: &str, role: &str) -> Vec<String> {
    engine.operate(&format!("operator create {name} --role {role}"));
    let link = engine.operate(&format!("operator login {name}"));
    let token = link.trim().split_once("link=").unwrap().1.to_owned();
    let jar = format!("{name}.jar");
    let port = engine.console.port();
    let origin = format!("origin: https://localhost:{port}");
    let entered = curl(engine, "/login")
        .args(["-H", &origin, "-d", &format!("link={token}"), "-c", &jar])
        .output()
        .unwrap();
    assert!(entered.status.success(), "{entered:?}");
    ["-b".to_owned(), jar].into()
}

fn curl(engine: &Engine, path: &str) -> Command {
    let port = engine.console.port();
    let mut command = Command::new("curl");
    command
        .current_dir(engine.folder.as_ref().unwrap().path())
        .args(["-sSN", "--cacert", "var/dev/tls-ca.pem"])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .arg(format!("https://localhost:{port}{path}"));
    command
}

/// A stream of events that is being read.
struct Listening {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listening {
    fn start(engine: &Engine, who: &[String]) -> Self {
        let mut process = curl(engine, "/operator/v1/live")
            .args(who)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Name and data of the next event; `None` when the stream has ended.
    fn next(&mut self) -> Option<(String, String)> {
        let mut name = String::new();
        loop {
            let line = self.lines.next()?.unwrap();
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, data.to_owned()));
            }
        }
    }

    #[track_caller]
    fn wait_for(&mut self, wanted: &str) -> String {
        std::iter::from_fn(|| self.next())
            .find_map(|(name, data)| (name == wanted).then_some(data))
            .unwrap_or_else(|| panic!("no {wanted}"))
    }
}

impl Listening {
    /// The first event of each of these names, in whatever order they come.
    fn wait_for_each<const N: usize>(&mut self, wanted: [&str; N]) -> BTreeMap<String, String> {
        let mut seen = BTreeMap::new();
        while !wanted.iter().all(|name| seen.contains_key(*name)) {
            let (name, data) = self.next().expect("the stream goes on");
            seen.entry(name).or_insert(data);
        }
        seen
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

#[test]
fn tenants_are_shown_to_the_roles_that_may_see_them() {
    let engine = Engine::start();
    for (role, sees) in [("manage", true), ("audit", true), ("use", false)] {
        let who = session(&engine, role, role);
        let mut listening = Listening::start(&engine, &who);
        let mut seen = listening.wait_for_each(["hello", "history", "now", "month"]);
        let mut said = |name: &str| -> Value { serde_json::from_str(&seen.remove(name).unwrap()).unwrap() };
        let hello = said("hello");
        assert_eq!((&hello["name"], &hello["tenants"]), (&role.into(), &sees.into()));
        let now = said("now");
        assert_eq!(now.get("tenants").is_some(), sees, "{role}: {now}");
        assert!(now["point"]["t"].as_u64().is_some() && now["stages"].as_array().unwrap().len() == 6);
        assert!(said("history").is_array());
        let month = said("month");
        assert_eq!(month["month"].as_str().unwrap().len(), 7, "{month}");
    }
    let nobody = curl(&engine, "/dashboard")
        .args(["-w", "%{http_code}"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&nobody.stdout).ends_with("401"),
        "{nobody:?}"
    );
}

#[test]
fn a_stream_ends_with_its_session_its_operator_and_the_engine() {
    let mut engine = Engine::start();
    let begin = |name: &str| {
        let who = session(&engine, name, "audit");
        let mut listening = Listening::start(&engine, &who);
        listening.wait_for("now");
        (who, listening)
    };
    let (alice, mut first) = begin("alice");
    let (_, mut second) = begin("bob");
    let (_, mut third) = begin("carol");
    let origin = format!("origin: https://localhost:{}", engine.console.port());
    let left = curl(&engine, "/operator/v1/logout")
        .args(&alice)
        .args(["-X", "POST", "-H", &origin])
        .output()
        .unwrap();
    assert!(left.status.success(), "{left:?}");
    assert_eq!(first.wait_for("end"), "session");
    assert_eq!(first.next(), None);
    engine.operate("operator disable bob");
    assert_eq!(second.wait_for("end"), "session");
    engine.ask_to_stop();
    // The process may be gone before the stream has said so; then the connection has ended with it.
    let last = std::iter::from_fn(|| third.next()).last();
    assert!(matches!(last, Some((name, _)) if name == "end" || name == "now"));
    assert!(engine.terminate().success());
}

/// Signs with lanes and with a device, and asks for a credential that is not there, until told to stop.
async fn keep_busy(engine: &Engine, stop: &AtomicBool) {
    let client = engine.client(Transport::Quic).await;
    let mut clock = tokio::time::interval(Duration::from_millis(10));
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        number += 1;
        let credential = ["demo-p256", "demo-p256", "seal", "nothing"][number % 4];
        let wanted = SignRequest {
            credential: credential.into(),
            ..request(&format!("busy-{number}"), "x")
        };
        let answer = client.sign(&wanted).await;
        assert_eq!(answer.is_err(), credential == "nothing", "{answer:?}");
    }
}

#[test]
fn an_operators_browser_shows_everything_in_both_languages() {
    let engine = Site::new().faulty("hsm-1").start();
    cinnabar(
        &engine,
        "key create --tenant demo --kind p256 --device hsm-1 seal",
    )
    .ok();
    let link = cinnabar(&engine, "operator login dev").ok();
    let pictures = workspace().join("target/dashboard");
    std::fs::create_dir_all(&pictures).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let busy = scope.spawn(|| block_on(keep_busy(&engine, &stop)));
        let mut look = Command::new(python());
        look.arg(workspace().join("engine/tests/browser/dashboard.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(link.trim())
            .arg(&pictures);
        let ran = run(&mut look);
        stop.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        ran.ok()
    });
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert!(seen["controls"].as_u64().unwrap() >= 12, "{seen}");
}
