//! What is sent: every shape, both transports, mixes, churn, recorded logs, several agents; and what is refused.

use serde_json::json;

use crate::support::{Engine, PATIENT, sum};

const WHO: &str = "--profile var/dev/app.toml --sla sla.toml --progress none --warm-up 200ms";

/// The engine, and an SLA that only asks for every signature.
fn engine() -> Engine {
    let engine = Engine::start();
    engine.file("sla.toml", &format!("errors_max_share = 0\n{PATIENT}"));
    engine
}

#[test]
fn every_shape_offers_what_it_says_and_the_engine_books_it_once() {
    let engine = engine();
    for (shape, signatures, phases) in [
        ("--rate 200", 200, 1),
        ("--rate 200 --shape soak", 200, 10),
        ("--rate 100 --to 300 --shape ramp --threads 2", 200, 10),
        ("--rate 100 --to 300 --shape step --steps 4", 200, 4),
        ("--rate 100 --to 600 --shape spike", 200, 3),
        ("--rate 100 --batch 2 --transport both", 200, 1),
    ] {
        let ran = engine.load(&format!(
            "run {WHO} --credential demo-p256 {shape} --duration 1s --verify-every 1 --json r.json"
        ));
        ran.exits(0);
        let report = engine.json("r.json");
        assert_eq!(
            (&report["offered"], &report["ok"]),
            (&json!(signatures), &json!(signatures)),
            "{shape}"
        );
        assert_eq!(report["verified"], json!(signatures), "{shape}");
        assert_eq!(report["phases"].as_array().unwrap().len(), phases, "{shape}");
        assert_eq!(sum(&report["phases"], "ok"), signatures, "{shape}");
        assert_eq!(sum(&report["timeline"], "ok"), signatures, "{shape}");
        assert_eq!(
            report["metered"]["booked"], report["metered"]["received"],
            "{shape}"
        );
        assert!(report["server_cpu_us"].as_f64().unwrap() > 0.0, "{shape}");
        assert!(report["client_cpu_us"].as_f64().unwrap() > 0.0, "{shape}");
    }
}

#[test]
fn a_mix_asks_for_each_class_by_its_weight() {
    let engine = engine();
    let mix = r#"
[[class]]
credential = "demo-p256"
weight = 6
[[class]]
credential = "demo-rsa2048"
algorithm = "rsa-pss-sha256"
transport = "https"
weight = 2
[[class]]
profile = "var/dev/app.toml"
credential = "demo-sm2"
format = "pair"
batch = 3
"#;
    engine.file("mix.toml", mix);
    let ran = engine.load(&format!(
        "run {WHO} --mix mix.toml --rate 300 --duration 1s --verify-every 1 --json r.json"
    ));
    ran.exits(0);
    let report = engine.json("r.json");
    let classes = report["classes"].as_array().unwrap();
    let names: Vec<_> = classes
        .iter()
        .map(|class| class["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "demo-p256 ecdsa-p256-sha256 quic",
            "demo-rsa2048 rsa-pss-sha256 https",
            "demo-sm2 sm2-sm3-e quic pair ×3"
        ]
    );
    // Of 300 requests 200, 67 and 33 are expected; five standard deviations are 41, 36 and 27.
    let requests: Vec<u64> = classes
        .iter()
        .zip([1, 1, 3])
        .map(|(class, batch)| class["ok"].as_u64().unwrap() / batch)
        .collect();
    assert_eq!(requests.iter().sum::<u64>(), 300);
    for (found, (expected, deviation)) in requests.iter().zip([(200, 41), (67, 36), (33, 27)]) {
        assert!(found.abs_diff(expected) <= deviation, "{requests:?}");
    }
    assert_eq!(report["verified"], report["ok"]);
}

#[test]
fn connections_are_replaced_under_load_and_nothing_is_lost() {
    let engine = engine();
    let ran = engine.load(&format!(
        "run {WHO} --credential demo-p256 --rate 300 --duration 2s --transport both --churn 20 --json r.json"
    ));
    ran.exits(0);
    let report = engine.json("r.json");
    let connections = &report["connections"];
    // Five at the start; of the 44 in 2.2 seconds a busy machine may make fewer.
    assert!(connections["opened"].as_u64().unwrap() >= 15, "{connections}");
    assert_eq!(connections["failed"], json!(0));
    assert_eq!(report["ok"], json!(600));
}

#[test]
fn a_search_stops_where_it_may_go_no_further_and_repeats_no_request() {
    let engine = engine();
    let ran = engine.load(&format!(
        "find-max {WHO} --credential demo-p256 --rate 100 --highest 200 --duration 500ms --confirm 1 --json r.json"
    ));
    ran.exits(0);
    let report = engine.json("r.json");
    assert_eq!(report["maximum"], json!({"rate": 200.0, "limited_by": "ceiling"}));
    assert_eq!(report["trials"].as_array().unwrap().len(), 3);
    // A key used twice would be answered and not booked.
    assert_eq!(report["metered"], json!({"booked": 350, "received": 350}));
}

#[test]
fn a_search_under_an_impossible_promise_finds_nothing() {
    let engine = engine();
    engine.file("sla.toml", &format!("max_ms = 0.001\n{PATIENT}"));
    let ran = engine.load(&format!(
        "find-max {WHO} --credential demo-p256 --rate 4 --duration 300ms --json r.json"
    ));
    ran.exits(1);
    let report = engine.json("r.json");
    assert_eq!(report["maximum"], json!({"rate": 0.0, "limited_by": "sla"}));
}

#[test]
fn a_recorded_log_is_sent_as_it_was() {
    let engine = engine();
    let log = r#"{"offset_ms": 0, "credential": "demo-p256"}
{"offset_ms": 10, "credential": "demo-rsa2048", "algorithm": "rsa-pkcs1-sha512", "items": 3}
{"offset_ms": 600, "credential": "demo-ed25519", "transport": "https", "app": "demo"}
"#;
    let app = std::fs::read_to_string(engine.path("var/dev/app.toml")).unwrap();
    let app = app
        .lines()
        .find_map(|line| line.strip_prefix("app_id = "))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    engine.file(
        "log.jsonl",
        &log.replace(r#""app": "demo""#, &format!(r#""app": "{app}""#)),
    );
    let who = WHO.replace("--warm-up 200ms", "");
    engine
        .load(&format!(
            "replay {who} --log log.jsonl --speed 2 --verify-every 1 --json r.json"
        ))
        .exits(0);
    let report = engine.json("r.json");
    assert_eq!((&report["ok"], &report["verified"]), (&json!(5), &json!(5)));
    // The last leaves after 300 ms.
    assert!(report["seconds"].as_f64().unwrap() >= 0.3);
    engine.file("log.jsonl", "{\"offset_ms\": 0}\n");
    engine.load(&format!("replay {who} --log log.jsonl")).refused(
        2,
        "usage",
        "log.jsonl line 1: missing field `credential`",
    );
}

#[test]
fn agents_share_a_load_and_their_reports_add_up() {
    let engine = engine();
    let agent = |number| {
        format!(
            "run {WHO} --credential demo-p256 --rate 300 --duration 2s --agent {number}/2 --out agent{number} --title night"
        )
    };
    let (one, two) = (engine.spawn(&agent(1)), engine.spawn(&agent(2)));
    one.wait().exits(0);
    two.wait().exits(0);
    engine
        .load("merge agent1.json agent2.json --out both --title night")
        .exits(0);
    let [one, two, both] = ["agent1.json", "agent2.json", "both.json"].map(|name| engine.json(name));
    assert_eq!(
        (&one["offered"], &two["offered"], &both["offered"]),
        (&json!(300), &json!(300), &json!(600))
    );
    assert_eq!(both["run"]["agents"], json!(2));
    let max = |report: &serde_json::Value| report["latency_ms"]["max"].as_f64().unwrap();
    assert_eq!(max(&both), max(&one).max(max(&two)));
    assert_eq!(sum(&both["timeline"], "ok"), 600);
    assert!(engine.path("both.hlog").exists() && engine.path("both.html").exists());

    std::fs::remove_file(engine.path("agent2.hlog")).unwrap();
    engine
        .load("merge agent1.json agent2.json")
        .refused(2, "file", "agent2.hlog");
}

#[test]
fn a_run_that_is_interrupted_reports_what_came_until_then() {
    let engine = engine();
    let who = WHO.replace("--progress none", "--progress plain");
    let mut running = engine.spawn(&format!(
        "run {who} --credential demo-p256 --rate 100 --duration 60s --json r.json"
    ));
    running.wait_for("1 s  offered");
    running.interrupt();
    running.wait().exits(0);
    let report = engine.json("r.json");
    assert_eq!(report["run"]["interrupted"], json!(true));
    let offered = report["offered"].as_u64().unwrap();
    assert!(
        (100..5_000).contains(&offered) && report["ok"] == json!(offered),
        "{offered}"
    );
}

#[test]
fn a_server_that_is_gone_costs_errors_and_not_the_report() {
    let engine = engine();
    let who = WHO.replace("--progress none", "--progress plain");
    let mut running = engine.spawn(&format!(
        "run {who} --credential demo-p256 --rate 100 --duration 2s --grace 1s --json r.json"
    ));
    running.wait_for("1 s  offered");
    engine.signal("KILL");
    running.wait().exits(1);
    let report = engine.json("r.json");
    let errors = report["errors"].as_object().unwrap();
    let missing: u64 = errors.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(report["ok"].as_u64().unwrap() + missing, 200, "{errors:?}");
    assert!(missing > 0 && report["metered"].is_null());
}

#[test]
fn bad_input_is_named_and_costs_nothing() {
    let engine = engine();
    let app = std::fs::read_to_string(engine.path("var/dev/app.toml")).unwrap();
    let address = app.lines().find(|line| line.starts_with("address")).unwrap();
    engine.file("far.toml", &app.replace(address, "address = \"192.0.2.7:8443\""));
    engine.file("bad-sla.toml", "average = 3\n");
    engine.file(
        "bad-mix.toml",
        "[[class]]\ncredential = \"demo-p256\"\nweight = 0\n",
    );
    let run = "run --rate 10 --duration 1s --progress none";
    for (arguments, code, says) in [
        ("--credential demo-p256", "usage", "no --profile"),
        ("--profile var/dev/app.toml", "usage", "required"),
        ("--profile none.toml --credential a", "file", "none.toml"),
        (
            "--profile var/dev/app.toml --credential nobody",
            "unknown_credential",
            "'nobody'",
        ),
        (
            "--profile var/dev/app.toml --credential demo-p256 --algorithm ed25519",
            "unsupported_algorithm",
            "p256",
        ),
        (
            "--profile var/dev/app.toml --credential demo-p256 --shape spike",
            "usage",
            "--to",
        ),
        (
            "--profile var/dev/app.toml --credential demo-p256 --sla bad-sla.toml",
            "usage",
            "average",
        ),
        (
            "--profile var/dev/app.toml --mix bad-mix.toml",
            "usage",
            "weight 0",
        ),
        (
            "--profile var/dev/app.toml --credential demo-p256 --start-at 1",
            "usage",
            "--start-at",
        ),
        (
            "--profile far.toml --credential demo-p256",
            "usage",
            "--allow-target 192.0.2.7:8443",
        ),
        (
            "--profile far.toml --credential demo-p256 --allow-target 192.0.2.7:8443",
            "usage",
            "--yes",
        ),
    ] {
        engine.load(&format!("{run} {arguments}")).refused(2, code, says);
    }
}
