//! Worked examples for each clause of the two agreements on availability and latency.

use jiff::civil::date;
use sla::answer::Outcome;
use sla::calendar::{MinuteIndex, Span};
use sla::minute::UserId;
use sla::notice::{Declared, Lead, judge as judge_notices};
use sla::percent::Ratio;
use sla::policy::{Cause, Counted, Overlap, Policy, RunAtMonthEnd, WithoutRecord};
use sla::state::NotCovered;
use sla::verdict::JudgeError;

use crate::support::{History, Was};

const DAY: u32 = 1_440;

/// A 4.3: 99.95 % of the 43,200 minutes of June is 43,178.4.
#[test]
fn bjca_june_bears_21_minutes() {
    let policy = Policy::bjca();
    let mut june = History::of("2026-06");
    let verdict = june.paint(5_000, 21, Was::SigningDown).judge(&policy);
    assert_eq!(verdict.promise.availability, Some(true));
    assert_eq!(
        verdict.availability.of_cycle,
        Ratio {
            part: 43_179,
            whole: 43_200
        }
    );
    assert_eq!(
        (
            verdict.budget.minutes,
            verdict.budget.spent,
            verdict.budget.remaining
        ),
        (21, 21, 0)
    );
    let verdict = june.paint(9_000, 1, Was::Missing).judge(&policy);
    assert_eq!(verdict.promise.availability, Some(false));
    assert!(verdict.is_final && !verdict.partial);
    assert_eq!(verdict.longest_stop_minutes, 21);
    assert_eq!(verdict.minutes.no_record, 1);
}

/// A 4.3(2): 每服务周期不可用时间 = 签名服务不可用时间 + 企业数字证书服务不可用时间.
#[test]
fn bjca_adds_both_services_or_takes_their_union() {
    let mut policy = Policy::bjca();
    let mut june = History::of("2026-06");
    june.paint(100, 10, Was::BothDown)
        .paint(900, 1, Was::CertificatesDown);
    let verdict = june.judge(&policy);
    assert_eq!(
        (
            verdict.down.signing,
            verdict.down.certificates,
            verdict.down.either
        ),
        (10, 11, 11)
    );
    assert_eq!(
        verdict.availability.of_cycle,
        Ratio {
            part: 43_189,
            whole: 43_210
        }
    );
    assert_eq!(
        verdict.availability.by_union,
        Ratio {
            part: 43_189,
            whole: 43_200
        }
    );
    assert_eq!(verdict.promise.availability, Some(true));
    // One more minute of both: 22 of sum, beyond the budget; 12 of union, well inside it.
    june.paint(1_500, 1, Was::BothDown);
    assert_eq!(june.judge(&policy).promise.availability, Some(false));
    policy.availability.overlap = Overlap::Union;
    assert_eq!(june.judge(&policy).promise.availability, Some(true));
}

/// A dead engine leaves no records; both services were down.
#[test]
fn minutes_without_a_record_count_for_both_services() {
    let mut june = History::of("2026-06");
    let verdict = june.paint(0, 7, Was::Missing).judge(&Policy::bjca());
    assert_eq!(
        (
            verdict.down.signing,
            verdict.down.certificates,
            verdict.down.either
        ),
        (7, 7, 7)
    );
    assert_eq!(verdict.budget.spent, 14);
    let verdict = june.judge(&Policy::bestsign());
    assert_eq!(
        (verdict.down.certificates, verdict.budget.spent),
        (0, 7),
        "bestsign knows one service"
    );
}

/// B 4.8(2): 服务连续5分钟或更长时间不可用方计为不可用时间.
#[test]
fn bestsign_counts_runs_of_five_minutes_only() {
    let policy = Policy::bestsign();
    let mut june = History::of("2026-06");
    for hour in 0..100 {
        june.paint(hour * 60, 4, Was::SigningDown);
    }
    let verdict = june.judge(&policy);
    assert_eq!(
        verdict.availability.of_cycle,
        Ratio {
            part: 43_200,
            whole: 43_200
        }
    );
    assert_eq!(
        (verdict.minutes.unavailable, verdict.outages, verdict.runs.len()),
        (400, 0, 100)
    );
    assert_eq!(verdict.longest_stop_minutes, 0);
    let verdict = june.paint(20_000, 5, Was::SigningDown).judge(&policy);
    assert_eq!(
        verdict.availability.of_cycle,
        Ratio {
            part: 43_195,
            whole: 43_200
        }
    );
    assert_eq!(verdict.promise.availability, Some(false), "99.9884 % < 99.99 %");
    assert_eq!((verdict.outages, verdict.longest_stop_minutes), (1, 5));
}

/// The certificate service is no part of B 4.8.
#[test]
fn bestsign_does_not_hear_of_certificates() {
    let verdict = History::of("2026-06")
        .paint(0, 300, Was::CertificatesDown)
        .judge(&Policy::bestsign());
    assert_eq!(
        (verdict.promise.availability, verdict.down.either),
        (Some(true), 0)
    );
}

/// A run of 3 + 3 minutes over the end of June counts, three minutes in each month.
#[test]
fn a_run_over_midnight_is_judged_whole_and_booked_to_both_months() {
    let mut policy = Policy::bestsign();
    let mut june = History::of("2026-06");
    june.paint(june.end() - 3, 6, Was::SigningDown);
    let mut july = History::of("2026-07");
    july.paint(-3, 6, Was::SigningDown);
    for month in [&june, &july] {
        let verdict = month.judge(&policy);
        assert_eq!(
            (verdict.down.either, verdict.outages, verdict.longest_stop_minutes),
            (3, 1, 6)
        );
    }
    policy.availability.run_at_month_end = RunAtMonthEnd::Cut;
    for month in [&june, &july] {
        let verdict = month.judge(&policy);
        assert_eq!(
            (verdict.down.either, verdict.outages, verdict.longest_stop_minutes),
            (0, 0, 0)
        );
    }
}

/// The last minute of a month that is over, while its run is not: the verdict can still change.
#[test]
fn a_month_is_not_final_while_its_last_run_is_open() {
    let policy = Policy::bestsign();
    let mut june = History::of("2026-06");
    june.paint(june.end() - 3, 30, Was::SigningDown);
    june.now = june.at(june.end() + 1);
    let verdict = june.judge(&policy);
    assert_eq!((verdict.is_final, verdict.down.either), (false, 0));
    assert_eq!(verdict.budget.until_breach, None, "the cycle is over");
    june.now = june.at(june.end() + 2);
    let verdict = june.judge(&policy);
    assert_eq!((verdict.is_final, verdict.down.either), (false, 3));
    june.now = june.at(june.end() + 31);
    assert!(june.judge(&policy).is_final);
}

/// SEMANTICS 4.4: an excluded minute neither breaks nor extends a run.
#[test]
fn excluded_minutes_neither_break_nor_extend_a_run() {
    let policy = Policy::bestsign();
    let mut june = History::of("2026-06");
    june.paint(100, 2, Was::SigningDown)
        .paint(102, 10, Was::SigningDown)
        .paint(112, 3, Was::SigningDown)
        .maintain(102, 10)
        .announce(102, 10, 60);
    let verdict = june.judge(&policy);
    assert_eq!(
        (
            verdict.outages,
            verdict.longest_stop_minutes,
            verdict.minutes.excluded
        ),
        (1, 5, 10)
    );
    assert_eq!(
        verdict.availability.of_cycle,
        Ratio {
            part: 43_185,
            whole: 43_190
        }
    );
    // Without its last minute the run is four long, whatever lies between.
    june.paint(114, 1, Was::Good);
    assert_eq!(june.judge(&policy).outages, 0);
}

/// The same over the end of a month: two bad minutes, maintenance through midnight, three bad minutes.
#[test]
fn maintenance_at_midnight_joins_what_it_parts() {
    let policy = Policy::bestsign();
    let mut july = History::of("2026-07");
    july.paint(-6, 2, Was::SigningDown)
        .paint(-4, 8, Was::BothDown)
        .maintain(-4, 8)
        .announce(-4, 8, 60)
        .paint(4, 3, Was::SigningDown);
    let verdict = july.judge(&policy);
    assert_eq!(
        (verdict.outages, verdict.longest_stop_minutes, verdict.down.either),
        (1, 5, 3)
    );
    let mut june = History::of("2026-06");
    let end = june.end();
    june.paint(end - 6, 2, Was::SigningDown)
        .paint(end - 4, 8, Was::BothDown)
        .maintain(end - 4, 8)
        .announce(end - 4, 8, 60)
        .paint(end + 4, 3, Was::SigningDown);
    let verdict = june.judge(&policy);
    assert_eq!(
        (verdict.outages, verdict.longest_stop_minutes, verdict.down.either),
        (1, 5, 2)
    );
}

/// A run that is cut at midnight is over then, whatever follows.
#[test]
fn a_run_that_is_cut_cannot_grow() {
    let mut policy = Policy::bestsign();
    let mut june = History::of("2026-06");
    june.paint(june.end() - 3, 30, Was::SigningDown);
    june.now = june.at(june.end());
    assert!(!june.judge(&policy).is_final);
    policy.availability.run_at_month_end = RunAtMonthEnd::Cut;
    assert!(june.judge(&policy).is_final);
}

/// A 3.5 and 4.3(4): only what was announced three working days ahead, and only while it is under way.
#[test]
fn maintenance_is_excluded_when_announced_in_time_and_under_way() {
    let policy = Policy::bjca();
    let mut june = History::of("2026-06");
    // Window on Wednesday 10 June, 02:00 to 04:00; maintenance for the first hour of it.
    let offset = i64::from(9 * DAY + 120);
    june.paint(offset, 120, Was::BothDown).maintain(offset, 60);
    assert_eq!(june.judge(&policy).minutes.excluded, 0, "nothing was announced");
    june.announce(offset, 120, 2 * DAY);
    assert_eq!(june.judge(&policy).minutes.excluded, 0, "announced on Monday");
    june.announce(offset, 120, 6 * DAY);
    let verdict = june.judge(&policy);
    assert_eq!(verdict.minutes.excluded, 60);
    assert_eq!(
        verdict.down.either, 60,
        "an outage after the maintenance is an outage"
    );
    let leads = judge_notices(&june.notices, &policy.exclusion, &june.days);
    assert_eq!(
        leads[0].lead,
        Lead::Late {
            working_days: 1,
            needed: 3
        }
    );
    assert_eq!(leads[1].lead, Lead::InTime);
}

/// An engine that is stopped for maintenance writes nothing; what that means is an option.
#[test]
fn announced_maintenance_without_a_record_is_unavailable_by_default() {
    let mut policy = Policy::bjca();
    let mut june = History::of("2026-06");
    june.paint(13_000, 60, Was::Missing).announce(13_000, 60, 9 * DAY);
    assert_eq!(june.judge(&policy).minutes.excluded, 0);
    policy.exclusion.maintenance_without_record = WithoutRecord::Excluded;
    assert_eq!(june.judge(&policy).minutes.excluded, 60);
}

/// A 4.3(5), (6), 7(1)e: what the customer, a third party or force majeure caused, once it is declared.
#[test]
fn declared_causes_are_excluded_where_the_policy_accepts_them() {
    let mut policy = Policy::bjca();
    let mut june = History::of("2026-06");
    june.paint(2_000, 90, Was::SigningDown);
    june.declared = vec![Declared {
        cause: Cause::ThirdParty,
        window: june.span(2_000, 80),
        evidence: "report of the network provider".to_owned(),
    }];
    let verdict = june.judge(&policy);
    assert_eq!((verdict.minutes.excluded, verdict.down.either), (80, 10));
    policy.exclusion.causes = vec![Cause::ForceMajeure];
    assert_eq!(june.judge(&policy).down.either, 90);
}

/// A 4.3(1): 自服务开通之日起计算，不满一个月按照一个服务周期计算; B 4.8(1): 如不满一个月不计算为一个服务周期.
#[test]
fn a_partial_month_counts_for_bjca_and_not_for_bestsign() {
    let mut june = History::of("2026-06");
    june.term.from = june.at(i64::from(29 * DAY));
    june.paint(i64::from(28 * DAY), DAY + 8, Was::Missing);
    let verdict = june.judge(&Policy::bjca());
    assert!(verdict.partial);
    assert_eq!(
        (verdict.minutes.cycle, verdict.down.either),
        (DAY, 8),
        "the day before counts for nobody"
    );
    assert_eq!(
        verdict.longest_stop_minutes, 8,
        "a run does not reach beyond the term"
    );
    assert_eq!(verdict.promise.availability, Some(false));
    let verdict = june.judge(&Policy::bestsign());
    assert_eq!((verdict.promise.availability, verdict.promise.kept), (None, true));
}

/// February has 29 days in 2024, so it bears a minute more than in 2025: 20.88 and 20.16 minutes are both 20.
#[test]
fn a_leap_day_is_a_day_of_the_cycle() {
    for (month, minutes) in [("2024-02", 29 * DAY), ("2025-02", 28 * DAY)] {
        let verdict = History::of(month).judge(&Policy::bjca());
        assert_eq!((verdict.minutes.cycle, verdict.budget.minutes), (minutes, 20));
    }
    let mut february = History::of("2024-02");
    let verdict = february
        .paint(i64::from(28 * DAY), DAY, Was::SigningDown)
        .judge(&Policy::bjca());
    assert_eq!(verdict.down.either, DAY);
    assert_eq!(verdict.runs[0].first.civil().date(), date(2024, 2, 29));
}

/// While the month runs: 21 of 43,200 minutes, each of a full outage counts for both services.
#[test]
fn minutes_until_breach_are_counted_from_now() {
    let mut policy = Policy::bjca();
    let mut june = History::of("2026-06");
    june.now = june.at(10_000);
    let budget = june.judge(&policy).budget;
    assert_eq!((budget.remaining, budget.until_breach), (21, Some(11)));
    policy.availability.overlap = Overlap::Union;
    assert_eq!(june.judge(&policy).budget.until_breach, Some(22));
    assert_eq!(
        june.judge(&Policy::bestsign()).budget.until_breach,
        Some(5),
        "a run of five breaks it"
    );
    june.paint(9_997, 3, Was::SigningDown);
    assert_eq!(
        june.judge(&Policy::bestsign()).budget.until_breach,
        Some(2),
        "three are there"
    );
    june.now = june.at(june.end() - 4);
    june.paint(9_997, 3, Was::Good);
    assert_eq!(
        june.judge(&Policy::bestsign()).budget.until_breach,
        None,
        "four minutes are left"
    );
}

/// So far and of the cycle: at noon of the first day, six bad minutes are below 99.95 % of what has passed.
#[test]
fn the_promise_is_made_for_the_cycle() {
    let policy = Policy::bjca();
    let mut june = History::of("2026-06");
    june.paint(0, 6, Was::SigningDown);
    june.now = june.at(720);
    let verdict = june.judge(&policy);
    assert_eq!(
        verdict.availability.so_far,
        Ratio {
            part: 714,
            whole: 720
        }
    );
    assert_eq!(
        verdict.availability.of_cycle,
        Ratio {
            part: 43_194,
            whole: 43_200
        }
    );
    assert_eq!(
        (verdict.promise.availability, verdict.is_final),
        (Some(true), false)
    );
}

/// A 4.2: 平均服务处理时间不大于100ms，最长处理时间不超过3s, exactly.
#[test]
fn latency_is_judged_over_the_month_and_controlled_by_the_minute() {
    let policy = Policy::bjca();
    let mut june = History::of("2026-06");
    for minute in june.minutes.values_mut() {
        (minute.latency.sum_us, minute.latency.max_us) = (100_000, 3_000_000);
    }
    let verdict = june.judge(&policy);
    assert_eq!(
        (verdict.promise.average_latency, verdict.promise.maximum_latency),
        (Some(true), Some(true))
    );
    assert_eq!(verdict.control.minutes_above_average, 0);
    let slow = june.at(4_000);
    june.minutes.get_mut(&slow).unwrap().latency.sum_us += 1;
    let verdict = june.judge(&policy);
    assert_eq!(
        verdict.promise.average_latency,
        Some(false),
        "by one microsecond in a month"
    );
    assert_eq!(verdict.control.minutes_above_average, 1);
    assert_eq!(verdict.control.worst_average, Some((slow, 100_001)));
    assert!(!verdict.promise.kept);
    june.minutes.get_mut(&slow).unwrap().latency.max_us += 1;
    assert_eq!(june.judge(&policy).promise.maximum_latency, Some(false));
    let verdict = june.judge(&Policy::bestsign());
    assert_eq!(
        (verdict.promise.average_latency, verdict.promise.kept),
        (None, true),
        "B promises none"
    );
}

/// A 4.2: 服务动态扩容期间平均服务处理时间可能大于100ms，但不超过最长处理时间; A 4.1: within 60 minutes.
#[test]
fn an_extension_excuses_the_average_for_an_hour_and_the_maximum_never() {
    let policy = Policy::bjca();
    let mut june = History::of("2026-06");
    let span = june.span(6_000, 60);
    for (_, minute) in june.minutes.range_mut(span.from..span.to) {
        (minute.extension, minute.latency.sum_us, minute.latency.max_us) = (true, 900_000_000, 2_900_000);
    }
    let verdict = june.judge(&policy);
    assert_eq!(
        (verdict.promise.average_latency, verdict.latency.extension_minutes),
        (Some(true), 60)
    );
    assert!(verdict.latency.average_with_extension_us > Some(1_000_000));
    let next = june.minutes.get_mut(&span.to).unwrap();
    (next.extension, next.latency.sum_us) = (true, 9_000_000_000);
    let verdict = june.judge(&policy);
    assert_eq!(
        (verdict.promise.average_latency, verdict.latency.extension_minutes),
        (Some(false), 60)
    );
    june.minutes.get_mut(&span.from).unwrap().latency.max_us = 3_000_001;
    assert_eq!(june.judge(&policy).promise.maximum_latency, Some(false));
}

/// SEMANTICS 4.3: each minute's share of 503, and a page at 5 %.
#[test]
fn the_share_of_503_is_reported_by_the_minute() {
    let mut june = History::of("2026-06");
    let busy = june.at(77);
    let minute = june.minutes.get_mut(&busy).unwrap();
    for _ in 0..18 {
        minute.record(Some(UserId(1)), Outcome::Result, 2_000);
    }
    minute.record(Some(UserId(1)), Outcome::Busy, 10);
    let control = june.judge(&Policy::bjca()).control;
    assert_eq!(control.minutes_paged, 1);
    assert_eq!(control.worst_busy, Some((busy, Ratio { part: 1, whole: 20 })));
    assert_eq!(
        june.judge(&Policy::bjca()).promise.availability,
        Some(true),
        "95 % were answered"
    );
}

/// Everything excluded: nothing was promised, and nothing is broken.
#[test]
fn a_month_of_excluded_minutes_breaks_no_promise() {
    let mut june = History::of("2026-06");
    june.declared = vec![Declared {
        cause: Cause::ForceMajeure,
        window: june.month.span(),
        evidence: "earthquake".to_owned(),
    }];
    let verdict = june.judge(&Policy::bjca());
    assert_eq!(verdict.availability.of_cycle, Ratio { part: 0, whole: 0 });
    assert_eq!(
        (verdict.promise.availability, verdict.budget.remaining),
        (Some(true), 0)
    );
}

#[test]
fn a_verdict_that_would_need_more_minutes_asks_for_them() {
    let policy = Policy::bestsign();
    let mut june = History::of("2026-06");
    june.paint(-1, 3, Was::SigningDown);
    june.covered = june.month.span();
    june.minutes
        .retain(|minute, _| june.month.span().contains(*minute));
    let before = june.month.span().from.before().unwrap();
    assert_eq!(june.try_judge(&policy), Err(NotCovered(before).into()));
    june.paint(0, 1, Was::Good);
    assert!(
        june.try_judge(&policy).is_ok(),
        "a run that begins inside needs nothing"
    );
    june.covered.to = june.at(june.end() - 1);
    june.minutes.retain(|minute, _| june.covered.contains(*minute));
    assert_eq!(june.try_judge(&policy), Err(JudgeError::Unread(june.covered.to)));
}

#[test]
fn there_is_no_verdict_before_the_beginning_or_outside_the_term() {
    let policy = Policy::bjca();
    let mut june = History::of("2026-06");
    june.now = june.at(0);
    assert_eq!(june.try_judge(&policy), Err(JudgeError::NotBegun(june.month)));
    june.now = june.at(1);
    assert!(june.try_judge(&policy).is_ok());
    june.term.to = Some(june.at(0));
    assert_eq!(june.try_judge(&policy), Err(JudgeError::OutsideTerm(june.month)));
}

/// The end of a contract ends its last cycle, and the runs in it.
#[test]
fn the_end_of_the_term_ends_cycle_and_run() {
    let mut policy = Policy::bjca();
    policy.availability.partial_month = Counted::Counted;
    let mut june = History::of("2026-06");
    june.term.to = Some(june.at(i64::from(10 * DAY)));
    june.paint(i64::from(10 * DAY) - 2, 500, Was::SigningDown);
    let verdict = june.judge(&policy);
    assert_eq!(
        verdict.cycle,
        Span {
            from: june.at(0),
            to: june.at(i64::from(10 * DAY))
        }
    );
    assert_eq!((verdict.longest_stop_minutes, verdict.is_final), (2, true));
    assert_eq!(
        MinuteIndex::new(verdict.runs[0].last.number() + 1),
        verdict.cycle.to
    );
}
