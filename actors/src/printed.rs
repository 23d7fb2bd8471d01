//! Statements and reports of the service agreement on paper, in Chinese or English: what [`crate::bill`] and the `sla` crate
//! have found, put into words. Pure; `documents::paper` draws it.

use documents::paper::{Bars, Block, Colour, Column, Paper, Table};
use protocol::clock::UnixMillis;
use sla::calendar::MINUTES_A_DAY;
use sla::html::{Language, clock, colour, credit_text, lead, milliseconds, word};
use sla::report::Report;
use sla::state::State;
use sla::strip::{self, StripError};

use crate::bill::{LineBody, StatementBody, moment};

/// A table of names and values.
fn facts(rows: Vec<(&str, String)>) -> Block {
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    Block::Table(Table {
        columns: vec![Column::words("", 2.0), Column::words("", 3.0)],
        rows: rows.collect(),
    })
}

/// A tenant's statement of a month.
pub fn statement(made: &StatementBody, language: Language, now: UnixMillis) -> Paper {
    let say = |chinese, english| language.pick(chinese, english);
    let standing = match (&made.frozen, made.is_final) {
        (Some(reason), _) => format!("{}: {reason}", say("已冻结，不得使用", "frozen, not to be used")),
        (None, true) => say("最终", "final").to_owned(),
        (None, false) => say("未最终：本月未结束", "not final: the month is not over").to_owned(),
    };
    let entries = made
        .entries
        .map_or("-".to_owned(), |(first, last)| format!("{first} - {last}"));
    let title = say("签名服务对账单", "Statement of signatures");
    Paper {
        title: format!("{title} {}", made.month),
        language: language.tag(),
        blocks: vec![
            facts(vec![
                (say("客户", "Customer"), made.tenant.clone()),
                (say("月份（北京时间）", "Month (Asia/Shanghai)"), made.month.clone()),
                (say("状态", "Standing"), standing),
                (say("计费签名（次）", "Signatures charged"), made.charged.to_string()),
                (say("免费签名（沙箱，次）", "Signatures free (sandbox)"), made.free.to_string()),
                (say("日志条目", "Journal entries"), entries),
            ]),
            Block::Heading(say("明细", "By app, credential, operation and package").to_owned()),
            lines(&made.lines, language),
            Block::Text(
                say(
                    "每一次签名均可凭日志条目追溯到其请求；本对账单由日志汇总而成，并带有数字签名。",
                    "Every unit is traceable to its request by its journal entry. This statement is added up from the \
                     journal and carries a digital signature.",
                )
                .to_owned(),
            ),
        ],
        foot: format!("Cinnabar  {}  {}  {}", made.tenant, made.month, moment(now)),
    }
}

fn lines(lines: &[LineBody], language: Language) -> Block {
    let say = |chinese, english| language.pick(chinese, english);
    let row = |line: &LineBody| {
        let package = line.package.map_or("-".to_owned(), |package| package.to_string());
        vec![
            line.app.clone(),
            line.credential.clone(),
            line.operation.clone(),
            package,
            line.units.to_string(),
        ]
    };
    Block::Table(Table {
        columns: vec![
            Column::words(say("应用", "App"), 3.0),
            Column::words(say("证书", "Credential"), 3.0),
            Column::words(say("操作", "Operation"), 2.0),
            Column::numbers(say("套餐", "Package"), 1.2),
            Column::numbers(say("次数", "Units"), 1.6),
        ],
        rows: lines.iter().map(row).collect(),
    })
}

/// A tenant's month under its agreement. Fails when the strip of the report cannot be read.
pub fn agreement(report: &Report, language: Language) -> Result<Paper, StripError> {
    let say = |chinese, english| language.pick(chinese, english);
    let verdict = &report.verdict;
    let kept = match (verdict.promise.kept, verdict.is_final) {
        (true, true) => say("达标", "kept"),
        (true, false) => say("目前达标（未最终）", "kept so far (not final)"),
        (false, true) => say("未达标", "broken"),
        (false, false) => say("未达标（未最终）", "broken (not final)"),
    };
    let mut blocks = vec![
        facts(vec![
            (say("客户", "Customer"), report.customer.name.clone()),
            (
                say("协议", "Agreement"),
                format!("{} {}", report.policy.title, report.policy.version),
            ),
            (say("承诺", "Promise"), kept.to_owned()),
        ]),
        Block::Heading(say("可用性", "Availability").to_owned()),
        availability(report, language),
        Block::Heading(say("时延", "Latency").to_owned()),
        latency(report, language),
        Block::Heading(say("分钟带", "Minute strip").to_owned()),
        minutes(&report.states()?, language),
        Block::Heading(say("可申请的赔偿", "Eligible credit").to_owned()),
        Block::Text(credit_text(&report.credit, language)),
    ];
    blocks.extend(runs(report, language));
    blocks.extend(notices(report, language));
    blocks.extend(incidents(report, language));
    let title = say("服务等级月报", "Service level report");
    Ok(Paper {
        title: format!("{title} {}", verdict.month),
        language: language.tag(),
        blocks,
        foot: format!(
            "Cinnabar  {}  {}  {}",
            report.customer.name, verdict.month, report.made
        ),
    })
}

fn availability(report: &Report, language: Language) -> Block {
    let say = |chinese, english| language.pick(chinese, english);
    let verdict = &report.verdict;
    let (minutes, down, budget) = (&verdict.minutes, verdict.down, verdict.budget);
    facts(vec![
        (
            say("考核周期", "Cycle"),
            format!("{} - {}", verdict.cycle.from, verdict.cycle.to),
        ),
        (
            say("可用性", "Availability"),
            format!(
                "{} (≥ {})",
                verdict.availability.of_cycle, report.policy.availability.promise
            ),
        ),
        (
            say(
                "分钟：周期 / 已过 / 可用 / 不可用 / 无记录 / 不计入",
                "Minutes: cycle / elapsed / available / unavailable / no record / excluded",
            ),
            format!(
                "{} / {} / {} / {} / {} / {}",
                minutes.cycle,
                minutes.elapsed,
                minutes.available,
                minutes.unavailable,
                minutes.no_record,
                minutes.excluded
            ),
        ),
        (
            say(
                "计入不可用：签名 / 证书 / 并集",
                "Counted down: signing / certificates / either",
            ),
            format!("{} / {} / {}", down.signing, down.certificates, down.either),
        ),
        (
            say("最长停服（分钟）", "Longest stop (min)"),
            verdict.longest_stop_minutes.to_string(),
        ),
        (
            say(
                "预算：总 / 已用 / 剩余（分钟）",
                "Budget: all / spent / remaining (min)",
            ),
            format!("{} / {} / {}", budget.minutes, budget.spent, budget.remaining),
        ),
    ])
}

fn latency(report: &Report, language: Language) -> Block {
    let say = |chinese, english| language.pick(chinese, english);
    let latency = &report.verdict.latency;
    let mut rows = vec![
        (
            say("平均", "Average"),
            latency.average_us.map_or("-".to_owned(), milliseconds),
        ),
        (say("最长", "Longest"), milliseconds(latency.maximum_us)),
        (
            say("扩容分钟", "Minutes of extension"),
            latency.extension_minutes.to_string(),
        ),
    ];
    let percentiles = report.percentiles.iter();
    let names: Vec<(String, String)> = percentiles
        .map(|one| {
            (
                format!("p{}", one.percent.to_string().trim_end_matches('%')),
                milliseconds(one.us),
            )
        })
        .collect();
    rows.extend(names.iter().map(|(name, value)| (&name[..], value.clone())));
    facts(rows)
}

/// `#rrggbb`.
fn rgb(text: &str) -> Colour {
    let digits = text.trim_start_matches('#');
    // `#444` stands for `#444444`.
    let doubled: String = match digits.len() {
        3 => digits.chars().flat_map(|digit| [digit, digit]).collect(),
        _ => digits.to_owned(),
    };
    let part = |at: usize| {
        doubled
            .get(at..at + 2)
            .and_then(|two| u8::from_str_radix(two, 16).ok())
    };
    [0, 2, 4].map(|at| part(at).unwrap_or(0))
}

fn minutes(states: &[State], language: Language) -> Block {
    let days = states.chunks(MINUTES_A_DAY as usize);
    let day = |(number, day): (usize, &[State])| {
        let parts = strip::stretches(day);
        let parts = parts.map(|(state, count)| (rgb(colour(state)), u32::try_from(count).unwrap_or(0)));
        ((number + 1).to_string(), parts.collect())
    };
    Block::Bars(Bars {
        units: MINUTES_A_DAY,
        rows: days.enumerate().map(day).collect(),
        legend: State::ALL
            .into_iter()
            .map(|state| (rgb(colour(state)), word(state, language).to_owned()))
            .collect(),
    })
}

fn runs(report: &Report, language: Language) -> Vec<Block> {
    let say = |chinese, english| language.pick(chinese, english);
    let row = |run: &sla::run::Run| {
        let counted = if run.counted {
            say("是", "yes")
        } else {
            say("否", "no")
        };
        vec![
            run.first.to_string(),
            run.last.to_string(),
            run.minutes.to_string(),
            counted.to_owned(),
        ]
    };
    let columns = vec![
        Column::words(say("开始", "First"), 3.0),
        Column::words(say("结束", "Last"), 3.0),
        Column::numbers(say("分钟", "Minutes"), 1.0),
        Column::words(say("计入", "Counted"), 1.0),
    ];
    let rows = report.verdict.runs.iter().map(row).collect();
    section(say("连续不可用", "Unavailable runs"), columns, rows)
}

fn notices(report: &Report, language: Language) -> Vec<Block> {
    let say = |chinese, english| language.pick(chinese, english);
    let row = |judged: &sla::notice::Judged| {
        vec![
            judged.notice.id.clone(),
            judged.notice.announced.to_string(),
            format!("{} - {}", judged.notice.window.from, judged.notice.window.to),
            lead(&judged.lead, language),
        ]
    };
    let columns = vec![
        Column::words(say("编号", "Notice"), 1.5),
        Column::words(say("公告时间", "Announced"), 2.5),
        Column::words(say("维护时间", "Window"), 3.0),
        Column::words(say("提前", "Lead"), 1.5),
    ];
    let rows = report.notices.iter().map(row).collect();
    section(say("维护公告", "Notices of maintenance"), columns, rows)
}

fn incidents(report: &Report, language: Language) -> Vec<Block> {
    let say = |chinese, english| language.pick(chinese, english);
    let row = |timed: &sla::incident::Timed| {
        vec![
            timed.incident.id.clone(),
            timed.incident.grade.to_string(),
            timed.incident.began.to_string(),
            clock(timed.response, language),
            clock(timed.repair, language),
            timed.incident.text.clone(),
        ]
    };
    let columns = vec![
        Column::words(say("故障", "Incident"), 1.5),
        Column::words(say("级别", "Grade"), 1.0),
        Column::words(say("开始", "Began"), 2.5),
        Column::words(say("响应", "Response"), 1.5),
        Column::words(say("恢复", "Repair"), 1.5),
        Column::words("", 2.5),
    ];
    let rows = report.incidents.iter().map(row).collect();
    section(say("故障", "Incidents"), columns, rows)
}

/// A heading and a table, where there are rows.
fn section(heading: &str, columns: Vec<Column>, rows: Vec<Vec<String>>) -> Vec<Block> {
    if rows.is_empty() {
        return Vec::new();
    }
    vec![
        Block::Heading(heading.to_owned()),
        Block::Table(Table { columns, rows }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read_as_the_page_writes_them() {
        assert_eq!(rgb("#9fd8ab"), [0x9f, 0xd8, 0xab]);
        assert_eq!(rgb("#444"), [0x44; 3]);
        assert_eq!(rgb("#fff"), [0xff; 3]);
    }

    #[test]
    fn a_statement_that_must_not_be_used_says_so_in_both_languages() {
        let mut made = StatementBody {
            tenant: "acme".into(),
            month: "2026-10".into(),
            is_final: true,
            frozen: None,
            charged: 3,
            free: 0,
            entries: Some((5, 9)),
            lines: Vec::new(),
        };
        let words = |made: &StatementBody, language| {
            format!(
                "{:?}",
                statement(made, language, UnixMillis(1_793_462_399_000)).blocks
            )
        };
        assert!(words(&made, Language::English).contains("\"final\""));
        made.frozen = Some("package 4".into());
        for (language, word) in [(Language::English, "frozen"), (Language::Chinese, "已冻结")] {
            let text = words(&made, language);
            assert!(text.contains(word) && text.contains("package 4"), "{text}");
        }
    }
}
