//! `cinnabar device`: devices of a running engine.

use protocol::error_code::Refusal;
use serde_json::Value;

use super::operate::send;
use super::{print, print_json, print_line};
use crate::admin::devices::DeviceOrder;
use crate::admin::operator::Order;
use crate::args::DeviceCommand;
use crate::config::Config;

pub(super) fn run(config: &Config, command: DeviceCommand) -> Result<(), Refusal> {
    let ask = |order| send(config, Order::Device(order));
    match command {
        DeviceCommand::List { json } => show(&ask(DeviceOrder::List)?, json, list),
        DeviceCommand::Calibrate { name, json } => {
            show(&ask(DeviceOrder::Calibrate { name })?, json, calibration)
        }
        DeviceCommand::Objects { name } => print_json(&ask(DeviceOrder::Objects { name })?),
        DeviceCommand::Kek { name, label } => print_json(&ask(DeviceOrder::MakeKek { name, label })?),
        DeviceCommand::ShareKek { label, from, to } => {
            print_json(&ask(DeviceOrder::ShareKek { from, to, label })?)
        }
        DeviceCommand::Add { name } => done(&format!("added {name}"), ask(DeviceOrder::Add { name })),
        DeviceCommand::Drain { name } => done(&format!("{name} drains"), ask(DeviceOrder::Drain { name })),
        DeviceCommand::Resume { name } => done(
            &format!("{name} proves itself again"),
            ask(DeviceOrder::Resume { name }),
        ),
        DeviceCommand::Remove { name } => done(&format!("removed {name}"), ask(DeviceOrder::Remove { name })),
        DeviceCommand::Scale { name, processes } => {
            let text = format!("{name} has {processes} processes");
            done(&text, ask(DeviceOrder::Scale { name, processes }))
        }
        DeviceCommand::Lanes { lanes } => done(
            &format!("{lanes} software lanes"),
            ask(DeviceOrder::Lanes { lanes }),
        ),
    }
}

fn done(text: &str, answer: Result<Value, Refusal>) -> Result<(), Refusal> {
    answer?;
    print_line(text)
}

pub(super) fn show(value: &Value, json: bool, table: impl Fn(&Value) -> String) -> Result<(), Refusal> {
    if json {
        print_json(value)
    } else {
        print(&table(value))
    }
}

/// A member as people read it.
pub(super) fn text(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

const COLUMNS: [(&str, &str); 12] = [
    ("name", "DEVICE"),
    ("state", "STATE"),
    ("share_percent", "SHARE%"),
    ("processes_up", "UP"),
    ("in_flight", "FLIGHT"),
    ("in_flight_limit", "LIMIT"),
    ("waiting", "WAIT"),
    ("signed", "SIGNED"),
    ("faults", "FAULTS"),
    ("kills", "KILLS"),
    ("service_us", "US/CALL"),
    ("reason", "REASON"),
];

fn list(value: &Value) -> String {
    let lanes = &value["lanes"];
    let mut rows = vec![COLUMNS.map(|(_, title)| title.to_owned())];
    for device in value["devices"].as_array().into_iter().flatten() {
        rows.push(COLUMNS.map(|(name, _)| text(device, name)));
    }
    format!(
        "software: {} lanes, {} waiting, {} signed, {} failed\n{}",
        text(lanes, "size"),
        text(lanes, "waiting"),
        text(lanes, "signed"),
        text(lanes, "failed"),
        aligned(&rows)
    )
}

fn calibration(value: &Value) -> String {
    let mut rows = vec![["IN FLIGHT", "PER SECOND", "AVERAGE MS", "P99 MS"].map(str::to_owned)];
    for point in value["points"].as_array().into_iter().flatten() {
        let ms = |name: &str| format!("{:.2}", point[name].as_f64().unwrap_or_default());
        rows.push([
            text(point, "in_flight"),
            text(point, "per_second"),
            ms("average_ms"),
            ms("p99_ms"),
        ]);
    }
    let promise = match value["promise_per_second"].as_f64() {
        Some(rate) => format!("it can promise {rate:.0} signatures/s at an average of at most 100 ms"),
        None => "it can promise nothing at an average of at most 100 ms: even one call at a time is too slow"
            .into(),
    };
    format!(
        "{}knee: {} in flight, {} signatures/s; {promise}\n",
        aligned(&rows),
        text(value, "knee"),
        text(value, "per_second_at_knee")
    )
}

/// Columns as wide as their widest cell.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
