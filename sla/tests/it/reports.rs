//! The report: complete, readable by machines and people, and deaf to what customers write into it.

use sla::calendar::MinuteIndex;
use sla::credit::{Customer, Purchase};
use sla::html::{Language, page};
use sla::incident::Incident;
use sla::policy::Policy;
use sla::report::{Particulars, Percentile, Report, options, report};
use sla::state::State;

use crate::support::{History, Was};

fn june(name: &str, policy: &Policy) -> Report {
    let mut june = History::of("2026-06");
    june.paint(100, 40, Was::SigningDown)
        .paint(2_000, 3, Was::CertificatesDown)
        .paint(5_000, 2, Was::Missing)
        .paint(13_000, 30, Was::BothDown)
        .maintain(13_000, 30)
        .announce(13_000, 30, 20 * 1_440);
    june.term.from = june.at(60);
    let customer = Customer {
        name: name.to_owned(),
        purchase: Purchase::Unlimited,
        contract_clause: None,
    };
    let incident = Incident {
        id: "i-7".to_owned(),
        grade: 1,
        text: "a lane hung".to_owned(),
        began: june.at(100),
        responded: Some(june.at(110)),
        repaired: Some(june.at(140)),
    };
    let percentile = Percentile {
        percent: "99.9%".parse().unwrap(),
        us: 12_345,
    };
    let observed = june.observed(policy);
    let particulars = Particulars {
        customer: &customer,
        percentiles: &[percentile],
        incidents: &[incident],
    };
    report(&june.case(&observed), &particulars).unwrap()
}

#[test]
fn the_report_comes_back_from_json() {
    for policy in Policy::builtin() {
        let report = june("acme", &policy);
        let read: Report = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(read, report);
    }
}

#[test]
fn the_strip_holds_every_minute_of_the_month() {
    let report = june("acme", &Policy::bjca());
    assert_eq!(report.strip, "o60a40s40a1860c3a2997n2a7998x30a30170");
    let states = report.states().unwrap();
    assert_eq!(states.len(), 43_200);
    let unavailable = states.iter().filter(|state| state.is_unavailable()).count();
    assert_eq!(unavailable, report.verdict.minutes.unavailable as usize);
    assert_eq!(states[0], State::OutsideTerm);
}

/// The JSON names the exact numbers and what people read.
#[test]
fn the_json_says_what_a_reader_looks_for() {
    let value: serde_json::Value = serde_json::from_str(&june("acme", &Policy::bjca()).to_json()).unwrap();
    assert_eq!(value["verdict"]["month"], "2026-06");
    assert_eq!(value["verdict"]["availability"]["of_cycle"]["part"], 43_110 - 45);
    assert_eq!(value["verdict"]["availability"]["of_cycle"]["whole"], 43_110 + 2);
    assert_eq!(value["policy"]["availability"]["overlap"], "sum");
    assert_eq!(value["credit"]["kind"], "days");
    assert_eq!(value["notices"][0]["lead"]["is"], "in_time");
    assert_eq!(value["incidents"][0]["repair"]["is"], "kept");
    assert_eq!(value["made"], "2026-07-03T18:40+08:00");
}

#[test]
fn every_option_is_printed() {
    for policy in Policy::builtin() {
        let page = page(&june("acme", &policy), Language::English).unwrap();
        let options = options(&policy);
        assert!(options.len() > 25, "{}", options.len());
        for (name, value) in options {
            assert!(page.contains(&format!("<code>{name}</code>")), "{name}");
            assert!(page.contains(&value), "{name} = {value}");
        }
        for name in ["overlap", "idle", "users", "partial_month", "run_at_month_end"] {
            assert!(
                page.contains(&format!("<code>availability.{name}</code>")),
                "{name}"
            );
        }
    }
}

#[test]
fn both_languages_draw_the_same_strip() {
    let report = june("acme", &Policy::bjca());
    let chinese = page(&report, Language::Chinese).unwrap();
    let english = page(&report, Language::English).unwrap();
    assert!(
        chinese.contains("lang=\"zh-CN\"") && chinese.contains("服务等级月报") && chinese.contains("未达标")
    );
    assert!(english.contains("lang=\"en\"") && english.contains("Service level report"));
    assert_eq!(chinese.matches("<rect").count(), english.matches("<rect").count());
    // 30 days of one stretch each, and eight more where a day has several.
    assert_eq!(english.matches("<rect").count(), 30 + 9);
}

#[test]
fn a_page_runs_nothing_and_loads_nothing() {
    let page = page(
        &june("<script>alert(1)</script>", &Policy::bjca()),
        Language::English,
    )
    .unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)"));
    for word in ["<script", "http://", "https://", "src=", "href=", "url("] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn a_strip_that_was_tampered_with_is_not_drawn() {
    let mut report = june("acme", &Policy::bjca());
    report.strip.push('z');
    assert!(page(&report, Language::English).is_err());
}

/// Minutes are written with their offset, so that no reader has to guess a time zone.
#[test]
fn minutes_are_written_in_the_time_of_the_agreement() {
    let minute: MinuteIndex = serde_json::from_str("\"2026-06-01T00:00+08:00\"").unwrap();
    assert_eq!(
        serde_json::to_string(&minute).unwrap(),
        "\"2026-06-01T00:00+08:00\""
    );
    assert_eq!(minute.number() % 60, 0);
}
