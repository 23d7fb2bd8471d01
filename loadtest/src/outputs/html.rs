//! The report as one page: no script, no font, no picture from anywhere else. English and Chinese are both in it; a switch
//! shows one of them. Every plot has its figures in a table beneath it, and no meaning is carried by colour alone.

mod charts;
mod tables;

use crate::args::Language;
use crate::compare::Comparison;
use crate::report::{Report, UnpackError};
use crate::sla::Verdict;

const STYLE: &str = include_str!("html/style.css");

/// The same words in both languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) en: &'static str,
    pub(super) zh: &'static str,
}

pub(super) const fn words(en: &'static str, zh: &'static str) -> Words {
    Words { en, zh }
}

impl Words {
    fn html(self) -> String {
        format!(
            r#"<span lang="en">{}</span><span lang="zh">{}</span>"#,
            escape(self.en),
            escape(self.zh)
        )
    }

    pub(super) fn tspans(self) -> String {
        format!(
            r#"<tspan lang="en">{}</tspan><tspan lang="zh">{}</tspan>"#,
            escape(self.en),
            escape(self.zh)
        )
    }
}

/// Text that cannot be taken for markup.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// The page of one report.
pub(super) fn page(report: &Report, language: Language) -> Result<String, UnpackError> {
    let mut body = header(report);
    body += &tables::key_figures(report);
    body += &tables::checks(report);
    body += &tables::latencies(report);
    body += &charts::of_report(report)?;
    body += &tables::groups(words("Phases", "阶段"), &report.phases);
    body += &tables::groups(words("Classes of requests", "请求类别"), &report.classes);
    body += &tables::trials(report);
    body += &tables::errors(report);
    body += &how_it_was_measured();
    Ok(shell(&report.run.title, language, &body))
}

/// The page of a comparison.
pub(crate) fn comparison_page(
    before: &Report,
    after: &Report,
    comparison: &Comparison,
    language: Language,
) -> Result<String, UnpackError> {
    let verdict = match comparison.exit_code() {
        0 => badge("good", '✓', words("as good as before", "不逊于之前")),
        5 => badge(
            "invalid",
            '?',
            words("invalid: a generator was saturated", "无效:压测端已饱和"),
        ),
        _ => badge("bad", '✗', words("worse than before", "比之前差")),
    };
    let names = format!("{} → {}", escape(&before.run.title), escape(&after.run.title));
    let mut body = format!("<h1>{names}</h1>{verdict}");
    body += &tables::comparison(comparison);
    body += &charts::of_two(before, after)?;
    Ok(shell("cinnabar-load compare", language, &body))
}

fn shell(title: &str, language: Language, body: &str) -> String {
    let (code, en, zh) = match language {
        Language::En => ("en", " checked", ""),
        Language::Zh => ("zh", "", " checked"),
    };
    format!(
        r#"<!doctype html>
<html lang="{code}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{}</title><style>{STYLE}</style></head><body>
<input type="radio" name="language" id="show-en"{en}><label for="show-en" lang="en">English</label>
<input type="radio" name="language" id="show-zh"{zh}><label for="show-zh" lang="zh">中文</label>
<main>{body}</main></body></html>
"#,
        escape(title)
    )
}

fn badge(class: &str, sign: char, text: Words) -> String {
    format!(
        r#"<p class="verdict {class}"><span aria-hidden="true">{sign}</span> {}</p>"#,
        text.html()
    )
}

fn header(report: &Report) -> String {
    let verdict = match report.verdict {
        Verdict::Kept => badge("good", '✓', words("SLA kept", "达到 SLA")),
        Verdict::NotKept => badge("bad", '✗', words("SLA not kept", "未达到 SLA")),
        Verdict::Invalid => badge(
            "invalid",
            '?',
            words(
                "Invalid: the generator was saturated, these figures are its own",
                "无效:压测端已饱和,数据反映的是压测端自身",
            ),
        ),
    };
    let run = &report.run;
    let mut out = format!("<h1>{}</h1>{verdict}", escape(&run.title));
    out += &format!(
        r#"<p class="facts">{} · {} · {} {} · {} {}</p>"#,
        date(run.started_unix_ms),
        escape(&run.shape),
        run.agents,
        words("agent(s)", "个压测端").html(),
        "cinnabar-load",
        escape(&run.version),
    );
    if run.interrupted {
        let text = words(
            "The run was interrupted: this is what came until then.",
            "压测被中断:以下为中断前的结果。",
        );
        out += &format!("<p>{}</p>", text.html());
    }
    out
}

/// A time as ISO 8601, UTC.
fn date(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms)
        .ok()
        .and_then(chrono::DateTime::from_timestamp_millis);
    time.map_or_else(String::new, |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn how_it_was_measured() -> String {
    let text = words(
        "Requests leave at times that were fixed before the run; a slow server does not slow the load down. Latency counts \
         from the moment a request was meant to leave, so that a server that stalls is charged with every request that came \
         to its door meanwhile (a tool that waits for answers leaves them out: coordinated omission). Service time counts \
         from the moment a request left; the difference is the generator's own lag. Requests that were never answered count \
         with the time they were waited for. Answers are booked in the second in which they came. The warm-up is not counted.",
        "请求的发送时刻在压测开始前就已确定,服务端变慢不会使负载变慢。延迟从请求应当发出的时刻算起,因此服务端停顿期间到达的每个请求都计入\
         (等待应答的工具会漏掉它们:协调遗漏)。服务时间从实际发出的时刻算起,两者之差是压测端自身的滞后。始终没有应答的请求按已等待的时间计入。\
         应答记入到达的那一秒。预热不计入。",
    );
    let title = words("How this was measured", "测量方法");
    format!(
        "<section><h2>{}</h2><p>{}</p></section>",
        title.html(),
        text.html()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Point;
    use crate::sla::Sla;
    use crate::tally::tests::{SECOND, ms, totals};

    fn report() -> Report {
        let requests: Vec<(u64, bool)> = (1..=500).map(|ms| (ms, ms % 50 != 0)).collect();
        let totals = totals(&requests, ms(1));
        let classes = ["a <b> & 'c'".to_owned(), "d".to_owned()];
        let phases = [("constant".to_owned(), 1.0)];
        let mut report = Report::of(&totals, SECOND).with_groups(&totals, &phases, &classes);
        report.run.title = "<script>alert(1)</script>".into();
        report.run.started_unix_ms = 1_700_000_000_000;
        report.timeline = (0..1_000)
            .map(|second| Point {
                second,
                offered: 10,
                ok: 9,
                failed: 1,
                p50_ms: 1.0,
                p99_ms: 5.0,
                max_ms: 9.0,
            })
            .collect();
        Sla::default().judge(&mut report);
        report
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_lets_no_name_become_markup() {
        let page = page(&report(), Language::En).unwrap();
        for foreign in ["<script", "http://", "https://", "@import", "url(", "<b>"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(page.contains("2023-11-14T22:13:20Z"));
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.len() < 400_000, "{} bytes", page.len());
    }

    #[test]
    fn everything_is_said_in_both_languages() {
        for language in [Language::En, Language::Zh] {
            let page = page(&report(), language).unwrap();
            let said = |code: &str| page.matches(&format!(r#"span lang="{code}""#)).count();
            let (en, zh) = (said("en"), said("zh"));
            assert_eq!(en, zh);
            assert!(en > 50, "{en}");
        }
        assert!(
            page(&report(), Language::Zh)
                .unwrap()
                .contains(r#"id="show-zh" checked"#)
        );
    }
}
