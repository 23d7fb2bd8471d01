//! What is written: read by strangers, and by the tool itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Engine, PATIENT};

fn python() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let given = std::env::var_os("TEST_PYTHON").map(PathBuf::from);
    let path = given.unwrap_or_else(|| workspace.join("target/venv/bin/python"));
    assert!(
        path.exists(),
        "no {}; `scripts/install.sh test target/venv` makes it",
        path.display()
    );
    path
}

/// What the Python implementation of HdrHistogram makes of an interval log and a percentile distribution.
fn read_by_a_stranger(log: &Path, distribution: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/read_hlog.py");
    let output = Command::new(python())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .args([log, distribution])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_stranger_reads_the_same_figures_from_the_histograms() {
    let engine = Engine::start();
    engine.file("sla.toml", PATIENT);
    engine.load("run --profile var/dev/app.toml --credential demo-p256 --rate 400 --duration 3s --sla sla.toml --out r").exits(0);
    let report = engine.json("r.json");
    let read = read_by_a_stranger(&engine.path("r.hlog"), &engine.path("r.hgrm"));

    let started = report["run"]["started_unix_ms"].as_f64().unwrap() / 1000.0;
    assert!(
        (read["base_time"].as_f64().unwrap() - started).abs() < 0.01,
        "{read}"
    );
    for (series, member) in [
        ("latency", "latency_ms"),
        ("service", "service_ms"),
        ("lag", "send_lag_ms"),
    ] {
        let (read, ours) = (&read[series], &report[member]);
        assert_eq!(read["count"], 1_200, "{series}");
        for figure in ["p50", "p99", "p999", "max"] {
            let (theirs, ours) = (
                read[figure].as_f64().unwrap() / 1000.0,
                ours[figure].as_f64().unwrap(),
            );
            // Three digits are what the histogram keeps.
            assert!(
                (theirs - ours).abs() <= ours * 0.001 + 0.001,
                "{series} {figure}: {theirs} {ours}"
            );
        }
    }
    let points: Vec<u64> = report["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["ok"].as_u64().unwrap())
        .collect();
    assert_eq!(read["counts"], serde_json::json!(points));

    let rows = read["distribution"].as_array().unwrap();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        assert_eq!(row[0], row[1], "{rows:?}");
    }
    assert_eq!(rows[rows.len() - 1][1], 1_200);
}

#[test]
fn a_report_is_compared_with_another_by_exit_code() {
    let engine = Engine::start();
    engine.file("sla.toml", PATIENT);
    let who =
        "--profile var/dev/app.toml --credential demo-p256 --sla sla.toml --progress none --warm-up 200ms";
    engine
        .load(&format!("run {who} --rate 200 --duration 1s --out before"))
        .exits(0);
    engine.load("compare before.json before.json").exits(0);

    // The same figures, and every one of them worse.
    let mut worse = engine.json("before.json");
    for figure in ["avg", "p50", "p90", "p99", "p999", "max"] {
        worse["latency_ms"][figure] = (worse["latency_ms"][figure].as_f64().unwrap() * 3.0 + 100.0).into();
    }
    engine.file("after.json", &worse.to_string());
    let ran = engine
        .load("compare before.json after.json --html compare.html --json compare.json")
        .exits(1);
    assert!(
        ran.stdout.contains("latency_ms.p99") && ran.stdout.contains("WORSE"),
        "{ran:?}"
    );
    assert!(
        std::fs::read_to_string(engine.path("compare.html"))
            .unwrap()
            .contains("<svg")
    );
    assert_eq!(engine.json("compare.json")["as_good"], false);
    engine.load("compare after.json before.json").exits(0);
    engine
        .load("compare before.json after.json --threshold 1000")
        .exits(0);

    worse["schema"] = 99.into();
    engine.file("after.json", &worse.to_string());
    engine
        .load("compare before.json after.json")
        .refused(2, "usage", "schema 99");
    engine.file("after.json", "{}");
    engine
        .load("compare before.json after.json")
        .refused(2, "usage", "after.json");
}

#[test]
fn a_saturated_generator_makes_the_run_invalid() {
    let engine = Engine::start();
    // Nothing leaves within a microsecond of its time.
    engine.file("sla.toml", "generator_lag_p99_ms = 0.0001\n");
    let who = "--profile var/dev/app.toml --credential demo-p256 --sla sla.toml --progress none";
    let ran = engine
        .load(&format!("run {who} --rate 100 --duration 1s --out r"))
        .exits(5);
    assert!(
        ran.stdout.contains("invalid: the generator was saturated"),
        "{ran:?}"
    );
    let report = engine.json("r.json");
    assert_eq!(
        (&report["verdict"], &report["saturated"]),
        (&"invalid".into(), &true.into())
    );
    assert!(
        std::fs::read_to_string(engine.path("r.xml"))
            .unwrap()
            .contains(r#"errors="1""#)
    );
    assert!(
        std::fs::read_to_string(engine.path("r.html"))
            .unwrap()
            .contains("压测端已饱和")
    );
    engine.load("compare r.json r.json").exits(5);
}
