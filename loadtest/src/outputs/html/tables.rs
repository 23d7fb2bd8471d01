//! The tables of a page.

use crate::compare::Comparison;
use crate::report::{Group, Percentiles, Report};
use crate::search::Limit;
use crate::sla::Check;

use super::{Words, escape, words};

const YES: Words = words("✓ kept", "✓ 达到");
const NO: Words = words("✗ broken", "✗ 未达到");

/// A heading and a table; cells are markup.
fn table(title: Words, head: &[Words], rows: &[Vec<String>]) -> String {
    let head: String = head
        .iter()
        .map(|cell| format!(r#"<th scope="col">{}</th>"#, cell.html()))
        .collect();
    format!(
        r#"<section><h2>{}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{}</tbody></table></div></section>"#,
        title.html(),
        body(rows)
    )
}

fn body(rows: &[Vec<String>]) -> String {
    let row = |cells: &Vec<String>| {
        let (first, rest) = cells
            .split_first()
            .map_or((String::new(), &[][..]), |(first, rest)| (first.clone(), rest));
        let rest: String = rest.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!(r#"<tr><th scope="row">{first}</th>{rest}</tr>"#)
    };
    rows.iter().map(row).collect()
}

/// A table that opens when asked for.
pub(super) fn folded(head: &[Words], rows: &[Vec<String>]) -> String {
    let head: String = head
        .iter()
        .map(|cell| format!(r#"<th scope="col">{}</th>"#, cell.html()))
        .collect();
    format!(
        r#"<details><summary>{}</summary><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{}</tbody></table></div></details>"#,
        words("The figures", "数据").html(),
        body(rows)
    )
}

/// A figure with so many digits, or a dash.
fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
}

pub(super) fn key_figures(report: &Report) -> String {
    let row = |name: Words, value: String| vec![name.html(), value];
    let missing = format!(
        "{} ({:.3} %)",
        report.offered.saturating_sub(report.ok),
        report.missing_share() * 100.0
    );
    let mut rows = vec![
        row(
            words("Signatures asked for", "请求的签名"),
            report.offered.to_string(),
        ),
        row(words("Signatures received", "收到的签名"), report.ok.to_string()),
        row(words("Signatures missing", "未收到的签名"), missing),
        row(
            words("Signatures verified here", "本端验证的签名"),
            report.verified.to_string(),
        ),
        row(words("Seconds", "时长(秒)"), format!("{:.2}", report.seconds)),
        row(
            words("Signatures per second", "每秒签名"),
            format!("{:.1}", report.signatures_per_second),
        ),
        row(
            words("Server CPU per signature, µs", "服务端每签名 CPU(µs)"),
            figure(report.server_cpu_us, 1),
        ),
        row(
            words("Client CPU per signature, µs", "压测端每签名 CPU(µs)"),
            figure(report.client_cpu_us, 1),
        ),
        row(
            words("Seconds in which capacity was being extended", "扩容中的秒数"),
            figure(report.extending_seconds, 0),
        ),
        row(
            words("Connections opened / failed", "建立 / 失败的连接"),
            format!("{} / {}", report.connections.opened, report.connections.failed),
        ),
    ];
    if let Some(metered) = report.metered {
        let name = words("Booked by the engine / received here", "引擎计费 / 本端收到");
        rows.push(row(name, format!("{} / {}", metered.booked, metered.received)));
    }
    if let Some(maximum) = report.maximum {
        let limit = limit(maximum.limited_by).html();
        let name = words(
            "Highest rate that kept the SLA, requests/s",
            "满足 SLA 的最高速率(请求/秒)",
        );
        rows.push(row(name, format!("{:.0} · {limit}", maximum.rate)));
    }
    table(
        words("Key figures", "关键数据"),
        &[words("Figure", "指标"), words("Value", "值")],
        &rows,
    )
}

fn limit(limit: Limit) -> Words {
    match limit {
        Limit::Sla => words("limited by the SLA", "受 SLA 限制"),
        Limit::Generator => words("limited by the generator", "受压测端限制"),
        Limit::Ceiling => words("limited by the highest rate allowed", "受允许的最高速率限制"),
    }
}

pub(super) fn checks(report: &Report) -> String {
    let row = |check: &Check| {
        let verdict = if check.kept { YES } else { NO };
        vec![
            escape(&check.name),
            format!("{}", check.limit),
            figure(check.found, 4),
            verdict.html(),
        ]
    };
    let rows: Vec<_> = report.checks.iter().map(row).collect();
    let head = [
        words("Limit", "限制"),
        words("Promised", "承诺"),
        words("Found", "实测"),
        words("Verdict", "结论"),
    ];
    table(words("Held against the SLA", "与 SLA 对照"), &head, &rows)
}

const PERCENTILES: [Words; 6] = [
    words("average", "平均"),
    words("p50", "p50"),
    words("p90", "p90"),
    words("p99", "p99"),
    words("p99.9", "p99.9"),
    words("max", "最大"),
];

fn cells(p: &Percentiles) -> impl Iterator<Item = String> {
    [p.avg, p.p50, p.p90, p.p99, p.p999, p.max]
        .into_iter()
        .map(|ms| format!("{ms:.2}"))
}

pub(super) fn latencies(report: &Report) -> String {
    let rows: Vec<Vec<String>> = [
        (
            words("Latency, all requests", "延迟(全部请求)"),
            &report.latency_ms,
        ),
        (
            words("Latency with signatures", "延迟(成功)"),
            &report.ok_latency_ms,
        ),
        (words("Latency without", "延迟(失败)"), &report.failed_latency_ms),
        (words("Service time", "服务时间"), &report.service_ms),
        (
            words("Send lag of the generator", "压测端发送滞后"),
            &report.send_lag_ms,
        ),
        (words("Handshake", "握手"), &report.connections.handshake_ms),
    ]
    .into_iter()
    // A row of nothing but zeros says that there was none.
    .filter(|(_, percentiles)| percentiles.max > 0.0)
    .map(|(name, percentiles)| std::iter::once(name.html()).chain(cells(percentiles)).collect())
    .collect();
    let head: Vec<Words> = std::iter::once(words("Milliseconds", "毫秒"))
        .chain(PERCENTILES)
        .collect();
    table(words("Latency", "延迟"), &head, &rows)
}

/// Groups, where there are several.
pub(super) fn groups(title: Words, groups: &[Group]) -> String {
    if groups.len() < 2 {
        return String::new();
    }
    let row = |group: &Group| {
        let rate = group.seconds.map(|seconds| group.ok as f64 / seconds.max(0.001));
        let mut row = vec![
            escape(&group.name),
            group.offered.to_string(),
            group.ok.to_string(),
            figure(rate, 0),
        ];
        row.extend(cells(&group.latency_ms));
        row
    };
    let rows: Vec<_> = groups.iter().map(row).collect();
    let head = [
        words("Name", "名称"),
        words("asked for", "请求"),
        words("received", "收到"),
        words("per second", "每秒"),
    ];
    let head: Vec<Words> = head.into_iter().chain(PERCENTILES).collect();
    table(title, &head, &rows)
}

pub(super) fn trials(report: &Report) -> String {
    if report.trials.is_empty() {
        return String::new();
    }
    let row = |trial: &crate::search::Trial| {
        let outcome = trial.failed_by.map_or(words("✓ passed", "✓ 通过"), limit).html();
        let mut row = vec![
            format!("{:.0}", trial.rate),
            outcome,
            format!("{:.0}", trial.signatures_per_second),
        ];
        row.extend(cells(&trial.latency_ms));
        row
    };
    let rows: Vec<_> = report.trials.iter().map(row).collect();
    let head = [
        words("Requests/s", "请求/秒"),
        words("Outcome", "结果"),
        words("Signatures/s", "签名/秒"),
    ];
    let head: Vec<Words> = head.into_iter().chain(PERCENTILES).collect();
    table(words("Rates tried", "尝试过的速率"), &head, &rows)
}

pub(super) fn errors(report: &Report) -> String {
    if report.errors.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = report
        .errors
        .iter()
        .map(|(code, count)| vec![escape(code), count.to_string()])
        .collect();
    let head = [words("Code", "错误码"), words("Signatures", "签名数")];
    table(words("Errors by code", "按错误码统计"), &head, &rows)
}

pub(super) fn comparison(comparison: &Comparison) -> String {
    let rows: Vec<Vec<String>> = comparison
        .rows
        .iter()
        .map(|row| {
            let verdict = if row.too_much {
                words("✗ worse", "✗ 变差")
            } else {
                words("✓", "✓")
            };
            let (before, after) = (figure(row.before, 3), figure(row.after, 3));
            vec![
                escape(row.name),
                before,
                after,
                figure(row.times_worse, 2),
                verdict.html(),
            ]
        })
        .collect();
    let head = [
        words("Figure", "指标"),
        words("Before", "之前"),
        words("After", "之后"),
        words("Times worse", "变差倍数"),
        words("Verdict", "结论"),
    ];
    table(words("Comparison", "对比"), &head, &rows)
}
