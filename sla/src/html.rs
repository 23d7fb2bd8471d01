//! The report for people, in Chinese or English: one page without scripts that asks no network for anything.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::calendar::{MINUTES_A_DAY, MinuteIndex, Span};
use crate::credit::Credit;
use crate::incident::Clock;
use crate::notice::Lead;
use crate::policy::Cause;
use crate::report::{Report, options};
use crate::state::State;
use crate::strip::{self, StripError};
use crate::verdict::Verdict;

/// The language of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// 简体中文.
    Chinese,
    /// English.
    English,
}

impl Language {
    /// The text in this language.
    pub fn pick(self, chinese: &'static str, english: &'static str) -> &'static str {
        match self {
            Self::Chinese => chinese,
            Self::English => english,
        }
    }

    /// Its tag (RFC 5646).
    pub fn tag(self) -> &'static str {
        self.pick("zh-CN", "en")
    }
}

const STYLE: &str = "body{font:14px/1.5 system-ui,'Noto Sans CJK SC','Microsoft YaHei',sans-serif;max-width:60em;\
margin:2em auto;padding:0 1em;color:#222}table{border-collapse:collapse;margin:.5em 0 1.5em}\
td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left;vertical-align:top}\
.kept{color:#1a7f37}.broken{color:#b3261e}svg{width:100%;height:auto}.legend{border:1px solid #999;\
padding:0 .6em;margin:0 .3em 0 1em}small{color:#666}";

/// Draws the page. Fails when the strip of the report cannot be read.
pub fn page(report: &Report, language: Language) -> Result<String, StripError> {
    let states = report.states()?;
    let title = language.pick("服务等级月报", "Service level report");
    let page = html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                title { (title) " " (report.verdict.month) " " (report.customer.name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) " " (report.verdict.month) }
                (heading(report, language))
                (figures(report, language))
                (minute_strip(report.verdict.month.span(), &states, language))
                (runs(&report.verdict, language))
                (credit(&report.credit, language))
                (exclusions(report, language))
                (incidents(report, language))
                (policy(report, language))
            }
        }
    };
    Ok(page.into_string())
}

fn heading(report: &Report, language: Language) -> Markup {
    let verdict = &report.verdict;
    let (class, word) = match (verdict.promise.kept, verdict.is_final) {
        (true, true) => ("kept", language.pick("达标", "kept")),
        (true, false) => (
            "kept",
            language.pick("目前达标（未最终）", "kept so far (not final)"),
        ),
        (false, true) => ("broken", language.pick("未达标", "broken")),
        (false, false) => ("broken", language.pick("未达标（未最终）", "broken (not final)")),
    };
    html! {
        p {
            strong { (report.customer.name) } " · " (report.policy.title) " · "
            (report.policy.name) " " (report.policy.version)
        }
        p { strong class=(class) { (language.pick("承诺：", "Promise: ")) (word) } }
        p { small { (language.pick("生成于", "Made")) " " (report.made) } }
    }
}

fn row(name: &str, value: impl maud::Render) -> Markup {
    html! { tr { th { (name) } td { (value) } } }
}

fn figures(report: &Report, language: Language) -> Markup {
    let verdict = &report.verdict;
    let say = |chinese, english| language.pick(chinese, english);
    let (minutes, down, budget) = (&verdict.minutes, verdict.down, verdict.budget);
    let availability = html! {
        (verdict.availability.of_cycle) " (" (verdict.availability.of_cycle.part) "/"
        (verdict.availability.of_cycle.whole) ", ≥ " (report.policy.availability.promise) ") "
        (judged(verdict.promise.availability, language))
    };
    html! {
        table {
            (row(say("考核周期", "Cycle"), format!("{} – {}", verdict.cycle.from, verdict.cycle.to)))
            (row(say("可用性", "Availability"), availability))
            (row(say("截至目前", "So far"), verdict.availability.so_far.to_string()))
            (row(say("按相加 / 按并集", "By sum / by union"),
                format!("{} / {}", verdict.availability.by_sum, verdict.availability.by_union)))
            (row(say("分钟：周期 / 已过 / 可用 / 不可用 / 无记录 / 不计入",
                    "Minutes: cycle / elapsed / available / unavailable / no record / excluded"),
                format!("{} / {} / {} / {} / {} / {}", minutes.cycle, minutes.elapsed, minutes.available,
                    minutes.unavailable, minutes.no_record, minutes.excluded)))
            (row(say("计入不可用：签名 / 证书 / 并集", "Counted down: signing / certificates / either"),
                format!("{} / {} / {}", down.signing, down.certificates, down.either)))
            (row(say("最长停服（分钟）", "Longest stop (min)"), verdict.longest_stop_minutes))
            (row(say("计入的停服次数", "Outages that count"), verdict.outages))
            (row(say("预算：总 / 已用 / 剩余（分钟）", "Budget: all / spent / remaining (min)"),
                format!("{} / {} / {}", budget.minutes, budget.spent, budget.remaining)))
            (row(say("若全停，距违约（分钟）", "Minutes until breach, were everything down"),
                budget.until_breach.map_or("–".to_owned(), |minutes| minutes.to_string())))
        }
        (latency(report, language))
    }
}

fn judged(kept: Option<bool>, language: Language) -> Markup {
    match kept {
        None => html! { (language.pick("不考核", "not judged")) },
        Some(true) => html! { span.kept { (language.pick("达标", "kept")) } },
        Some(false) => html! { span.broken { (language.pick("未达标", "broken")) } },
    }
}

/// A time in milliseconds.
pub fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

fn latency(report: &Report, language: Language) -> Markup {
    let say = |chinese, english| language.pick(chinese, english);
    let (latency, control) = (&report.verdict.latency, &report.verdict.control);
    let or_dash = |us: Option<u64>| us.map_or("–".to_owned(), milliseconds);
    let promise = &report.verdict.promise;
    html! {
        h2 { (say("时延", "Latency")) }
        table {
            (row(say("平均", "Average"),
                html! { (or_dash(latency.average_us)) " " (judged(promise.average_latency, language)) }))
            (row(say("平均（含扩容期间）", "Average with minutes of extension"),
                or_dash(latency.average_with_extension_us)))
            (row(say("最长", "Longest"),
                html! { (milliseconds(latency.maximum_us)) " " (judged(promise.maximum_latency, language)) }))
            @for percentile in &report.percentiles {
                (row(&format!("p{}", percentile.percent.to_string().trim_end_matches('%')),
                    milliseconds(percentile.us)))
            }
            (row(say("扩容分钟", "Minutes of extension"), latency.extension_minutes))
            (row(say("平均超限的分钟", "Minutes above the average"), control.minutes_above_average))
            (row(say("503 告警的分钟", "Minutes paged for 503"), control.minutes_paged))
            @if let Some((minute, share)) = control.worst_busy {
                (row(say("503 最高占比", "Highest share of 503"), format!("{share} ({minute})")))
            }
        }
    }
}

/// The colour of a minute, `#rrggbb`.
pub fn colour(state: State) -> &'static str {
    match state {
        State::Available => "#9fd8ab",
        State::Signing => "#d93025",
        State::Certificates => "#f29900",
        State::Both => "#7b1712",
        State::NoRecord => "#444",
        State::Excluded => "#8ab4f8",
        State::OutsideTerm => "#e8e8e8",
        State::Future => "#fff",
    }
}

/// The word for a minute.
pub fn word(state: State, language: Language) -> &'static str {
    match state {
        State::Available => language.pick("可用", "available"),
        State::Signing => language.pick("签名不可用", "signing down"),
        State::Certificates => language.pick("证书服务不可用", "certificates down"),
        State::Both => language.pick("均不可用", "both down"),
        State::NoRecord => language.pick("无记录（计为不可用）", "no record (unavailable)"),
        State::Excluded => language.pick("不计入", "excluded"),
        State::OutsideTerm => language.pick("服务期外", "outside the term"),
        State::Future => language.pick("未到", "not over yet"),
    }
}

/// Height of a day in the strip, and the part of it that is drawn.
const DAY_HEIGHT: usize = 16;
const DAY_DRAWN: usize = 12;

/// A day a row, a minute a unit of width.
fn minute_strip(month: Span, states: &[State], language: Language) -> Markup {
    let days: Vec<&[State]> = states.chunks(MINUTES_A_DAY as usize).collect();
    html! {
        h2 { (language.pick("分钟带", "Minute strip")) }
        svg viewBox=(format!("-40 0 1480 {}", DAY_HEIGHT * days.len())) role="img" {
            @for (number, day) in days.iter().enumerate() {
                text x="-34" y=(number * DAY_HEIGHT + 11) font-size="11" { (number + 1) }
                (day_strip(month.from, number, day, language))
            }
        }
        p { @for state in State::ALL {
            span.legend style=(format!("background:{}", colour(state))) {}
            (word(state, language)) " "
        } }
    }
}

fn day_strip(from: MinuteIndex, number: usize, day: &[State], language: Language) -> Markup {
    let mut begins = 0;
    let mut stretches = Vec::new();
    for (state, count) in strip::stretches(day) {
        stretches.push((state, begins, count));
        begins += count;
    }
    let at = |minute: usize| {
        let offset = number * MINUTES_A_DAY as usize + minute;
        from.plus(u32::try_from(offset).unwrap_or(u32::MAX))
    };
    html! {
        @for (state, begins, count) in stretches {
            rect x=(begins) y=(number * DAY_HEIGHT) width=(count) height=(DAY_DRAWN) fill=(colour(state)) {
                title { (at(begins)) " · " (count) " min · " (word(state, language)) }
            }
        }
    }
}

fn runs(verdict: &Verdict, language: Language) -> Markup {
    let say = |chinese, english| language.pick(chinese, english);
    html! {
        @if !verdict.runs.is_empty() {
            h2 { (say("连续不可用", "Unavailable runs")) }
            table {
                tr {
                    th { (say("开始", "First")) } th { (say("结束", "Last")) }
                    th { (say("分钟（全部 / 本月）", "Minutes (all / this month)")) }
                    th { (say("计入", "Counted")) }
                }
                @for run in &verdict.runs {
                    tr {
                        td { (run.first) } td { (run.last) @if run.open { " …" } }
                        td { (run.minutes) " / " (run.in_month.either) }
                        td { (if run.counted { say("是", "yes") } else { say("否", "no") }) }
                    }
                }
            }
        }
    }
}

/// What is eligible, in words.
pub fn credit_text(credit: &Credit, language: Language) -> String {
    let say = |chinese, english| language.pick(chinese, english);
    match credit {
        Credit::Kept => say("无（可用性达标）", "none: availability is kept").to_owned(),
        Credit::NotCounted => say("无（本周期不考核）", "none: this cycle is not judged").to_owned(),
        Credit::ContractClause { clause } => {
            format!("{}: {clause}", say("按合同条款", "by the clause of the contract"))
        }
        Credit::Signatures {
            row,
            percent,
            base,
            cap,
            signatures,
            ..
        } => format!(
            "{signatures} {} ({} {row}; {percent} × {base}; ≤ {cap})",
            say("次免费签名", "free signatures"),
            say("档", "row"),
        ),
        Credit::Days { row, days, .. } => {
            format!(
                "{days} {} ({} {row})",
                say("天免费服务", "free days"),
                say("档", "row")
            )
        }
        Credit::Choice {
            outages,
            months,
            contracts,
        } => {
            let contracts = contracts.map_or("–".to_owned(), |contracts| contracts.to_string());
            format!(
                "{} {outages}: {months} {} {} {contracts} {}",
                say("停服次数", "outages"),
                say("个月服务", "months of service"),
                say("或", "or"),
                say("份合同", "contracts"),
            )
        }
    }
}

fn credit(credit: &Credit, language: Language) -> Markup {
    let say = |chinese, english| language.pick(chinese, english);
    let text = credit_text(credit, language);
    html! {
        h2 { (say("可申请的赔偿", "Eligible credit")) }
        p { (text) }
        p { small { (say("核算为可申请；经申请、核查后发放。", "Eligible by calculation; granted on claim, after checking.")) } }
    }
}

/// The word for how early a notice was.
pub fn lead(lead: &Lead, language: Language) -> String {
    let say = |chinese, english| language.pick(chinese, english);
    match lead {
        Lead::InTime => say("及时", "in time").to_owned(),
        Lead::Void => say("作废", "void").to_owned(),
        Lead::Late { needed: 0, .. } => say("未提前", "not beforehand").to_owned(),
        Lead::Late { working_days, needed } => {
            format!(
                "{}: {working_days} < {needed}",
                say("过晚（工作日）", "late (working days)")
            )
        }
        Lead::UnknownYear { year } => format!("{} {year}", say("节假日未知", "holidays not known:")),
    }
}

fn cause(cause: Cause, language: Language) -> &'static str {
    match cause {
        Cause::Customer => language.pick("用户原因", "customer"),
        Cause::ThirdParty => language.pick("第三方", "third party"),
        Cause::ForceMajeure => language.pick("不可抗力", "force majeure"),
    }
}

fn exclusions(report: &Report, language: Language) -> Markup {
    let say = |chinese, english| language.pick(chinese, english);
    html! {
        @if !report.notices.is_empty() || !report.declared.is_empty() {
            h2 { (say("公告与不计入", "Notices and exclusions")) }
            table {
                @for judged in &report.notices {
                    tr {
                        td { (judged.notice.id) } td { (judged.notice.announced) }
                        td { (judged.notice.window.from) " – " (judged.notice.window.to) }
                        td { (lead(&judged.lead, language)) } td { (judged.notice.text) }
                    }
                }
                @for declared in &report.declared {
                    tr {
                        td { (cause(declared.cause, language)) } td {}
                        td { (declared.window.from) " – " (declared.window.to) }
                        td { @if !report.policy.exclusion.causes.contains(&declared.cause) {
                            (say("本协议不排除", "not excluded by this policy"))
                        } }
                        td { (declared.evidence) }
                    }
                }
            }
        }
    }
}

/// A clock of an incident, in words.
pub fn clock(clock: Clock, language: Language) -> String {
    match clock {
        Clock::Kept { minutes } => format!("{minutes} min ✓"),
        Clock::Missed { minutes } => format!("{minutes} min ✗"),
        Clock::Running { minutes } => format!("{minutes} min …"),
        Clock::NoClock => language.pick("无约定", "none agreed").to_owned(),
    }
}

fn incidents(report: &Report, language: Language) -> Markup {
    let say = |chinese, english| language.pick(chinese, english);
    html! {
        @if !report.incidents.is_empty() {
            h2 { (say("故障", "Incidents")) }
            table {
                tr {
                    th {} th { (say("级别", "Grade")) } th { (say("开始", "Began")) }
                    th { (say("响应", "Response")) } th { (say("恢复", "Repair")) } th {}
                }
                @for timed in &report.incidents {
                    tr {
                        td { (timed.incident.id) } td { (timed.incident.grade) } td { (timed.incident.began) }
                        td { (clock(timed.response, language)) } td { (clock(timed.repair, language)) }
                        td { (timed.incident.text) }
                    }
                }
            }
        }
    }
}

fn policy(report: &Report, language: Language) -> Markup {
    html! {
        h2 { (language.pick("协议与选项", "Agreement and options")) }
        table { @for (name, value) in options(&report.policy) { tr { td { code { (name) } } td { (value) } } } }
    }
}
