//! `cinnabar latency`: where a running engine's requests spend their time.

use protocol::error_code::Refusal;
use protocol::stages::Stage;
use serde_json::Value;

use super::device::{aligned, show, text};
use super::operate::send;
use crate::admin::latency::LatencyOrder;
use crate::admin::operator::Order;
use crate::args::LatencyCommand;
use crate::config::Config;

pub(super) fn run(config: &Config, command: LatencyCommand) -> Result<(), Refusal> {
    let ask = |order| send(config, Order::Latency(order));
    match command {
        LatencyCommand::Stages { json } => show(&ask(LatencyOrder::Stages)?, json, stages),
        LatencyCommand::Slow { json } => show(&ask(LatencyOrder::Slow)?, json, slow),
    }
}

/// Microseconds as milliseconds.
fn ms(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |us| format!("{:.2}", us / 1e3))
}

fn row(name: &str, times: &Value) -> [String; 7] {
    [
        name.to_owned(),
        text(times, "count"),
        ms(&times["average_us"]),
        ms(&times["p50_us"]),
        ms(&times["p99_us"]),
        ms(&times["p999_us"]),
        ms(&times["max_us"]),
    ]
}

/// The last minute or two; what is older is in the JSON.
fn stages(value: &Value) -> String {
    let note = if value["extending"] == true {
        "capacity is being extended: the average may rise, the maximum may not\n"
    } else {
        ""
    };
    note.to_owned() + &table(value)
}

fn table(value: &Value) -> String {
    let recent = &value["recent"];
    let titles = ["", "COUNT", "AVG MS", "P50", "P99", "P99.9", "MAX"].map(str::to_owned);
    let mut rows = vec![titles];
    for request in recent["requests"].as_array().into_iter().flatten() {
        let name = ["operation", "transport", "algorithm", "outcome"].map(|part| text(request, part));
        rows.push(row(&name.join(" "), request));
    }
    for (algorithm, of_stages) in recent["stages"].as_object().into_iter().flatten() {
        for stage in Stage::ALL {
            rows.push(row(
                &format!("{algorithm}: {}", stage.name()),
                &of_stages[stage.name()],
            ));
        }
    }
    aligned(&rows)
}

fn slow(value: &Value) -> String {
    let stages = Stage::ALL.map(|stage| stage.name().to_uppercase());
    let [decode, gate, queue, sign, commit, reply] = stages;
    let what = ["APP", "ALGORITHM", "ITEMS", "OUTCOME", "TOTAL MS"].map(str::to_owned);
    let [app, algorithm, items, outcome, total] = what;
    let titles = [
        "UNIX MS".to_owned(),
        app,
        algorithm,
        items,
        outcome,
        total,
        decode,
        gate,
        queue,
        sign,
        commit,
        reply,
    ];
    let mut rows = vec![titles];
    for request in value.as_array().into_iter().flatten() {
        let [decode, gate, queue, sign, commit, reply] =
            Stage::ALL.map(|stage| ms(&request["stages_us"][stage.name()]));
        rows.push([
            text(request, "at"),
            text(request, "app"),
            text(request, "algorithm"),
            text(request, "items"),
            text(request, "ending"),
            ms(&request["total_us"]),
            decode,
            gate,
            queue,
            sign,
            commit,
            reply,
        ]);
    }
    aligned(&rows)
}
