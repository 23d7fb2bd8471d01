//! Coordinated omission: a server that stalls on purpose. A tool that waits for an answer before it asks again would see
//! one slow request; the load goes on, and every request that should have left during the stall is late.

use std::time::Duration;

use crate::support::{Engine, PATIENT};

const RATE: u64 = 500;
const STALL: Duration = Duration::from_millis(300);

#[test]
fn a_stall_of_the_server_is_told_in_full() {
    let engine = Engine::start();
    engine.file("sla.toml", &format!("max_ms = 200\n{PATIENT}"));
    let arguments = format!(
        "run --profile var/dev/app.toml --credential demo-p256 --rate {RATE} --duration 3s --sla sla.toml \
         --progress plain --json stall.json"
    );
    let mut running = engine.spawn(&arguments);
    // The first second of the counted time is over.
    running.wait_for("1 s  offered");
    engine.signal("STOP");
    std::thread::sleep(STALL);
    engine.signal("CONT");
    running.wait().exits(1);

    let report = engine.json("stall.json");
    assert_eq!(
        (&report["offered"], &report["ok"]),
        (&(RATE * 3).into(), &(RATE * 3).into())
    );
    let max = report["latency_ms"]["max"].as_f64().unwrap();
    assert!(max >= 250.0, "{max}");
    // Half of the requests of the stall waited at least half of it: 75 of 1,500, which the 96th percentile is among. A
    // closed loop of four connections would have four late requests, and see them from the 99.7th on.
    let p99 = report["latency_ms"]["p99"].as_f64().unwrap();
    assert!(p99 >= 150.0, "{p99}");
    let timeline = report["timeline"].as_array().unwrap();
    let stalled = timeline
        .iter()
        .find(|point| point["max_ms"].as_f64().unwrap() >= 250.0)
        .unwrap();
    assert!(stalled["second"].as_u64().unwrap() >= 1, "{timeline:?}");
}
