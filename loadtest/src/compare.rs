//! One report against another: how many times worse each figure is. Pure, but for the printing.

use std::fmt;

use serde::Serialize;

use crate::report::Report;

/// How much worse is too much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    /// How many times worse a figure may be.
    pub(crate) ratio: f64,
    /// Differences of latency below this are noise.
    pub(crate) noise_ms: f64,
}

/// One figure of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) before: Option<f64>,
    pub(crate) after: Option<f64>,
    /// Above 1 is worse, below better; `None` where one of them is unknown or zero.
    pub(crate) times_worse: Option<f64>,
    pub(crate) too_much: bool,
}

/// The comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) rows: Vec<Row>,
    /// Nothing got worse by more than the tolerance.
    pub(crate) as_good: bool,
    /// The generator was saturated in one of them: nothing follows from its figures.
    pub(crate) invalid: bool,
}

/// Which way is worse, and from where on a difference counts.
#[derive(Clone, Copy)]
enum Kind {
    LatencyMs,
    Cost,
    Gain,
    Share,
}

/// A share of errors that grows by less than one in ten thousand is noise.
const SHARE_NOISE: f64 = 0.0001;

pub(crate) fn compare(before: &Report, after: &Report, tolerance: Tolerance) -> Comparison {
    let row = |name, kind, figure: fn(&Report) -> Option<f64>| {
        judge(name, kind, figure(before), figure(after), tolerance)
    };
    let rows = vec![
        row("latency_ms.avg", Kind::LatencyMs, |report| {
            Some(report.latency_ms.avg)
        }),
        row("latency_ms.p50", Kind::LatencyMs, |report| {
            Some(report.latency_ms.p50)
        }),
        row("latency_ms.p90", Kind::LatencyMs, |report| {
            Some(report.latency_ms.p90)
        }),
        row("latency_ms.p99", Kind::LatencyMs, |report| {
            Some(report.latency_ms.p99)
        }),
        row("latency_ms.p999", Kind::LatencyMs, |report| {
            Some(report.latency_ms.p999)
        }),
        row("latency_ms.max", Kind::LatencyMs, |report| {
            Some(report.latency_ms.max)
        }),
        row("signatures_per_second", Kind::Gain, |report| {
            Some(report.signatures_per_second)
        }),
        row("maximum", Kind::Gain, |report| {
            report.maximum.map(|maximum| maximum.rate)
        }),
        row("errors_share", Kind::Share, |report| Some(report.missing_share())),
        row("server_cpu_us", Kind::Cost, |report| report.server_cpu_us),
        row("client_cpu_us", Kind::Cost, |report| report.client_cpu_us),
    ];
    Comparison {
        // What the generator costs says nothing about the server.
        as_good: rows
            .iter()
            .all(|row| !row.too_much || row.name == "client_cpu_us"),
        invalid: before.saturated || after.saturated,
        rows,
    }
}

fn judge(
    name: &'static str,
    kind: Kind,
    before: Option<f64>,
    after: Option<f64>,
    tolerance: Tolerance,
) -> Row {
    let both = before.zip(after);
    let times_worse = both.and_then(|(before, after)| {
        let (worse, better) = if matches!(kind, Kind::Gain) {
            (before, after)
        } else {
            (after, before)
        };
        (better > 0.0).then(|| worse / better)
    });
    let difference = both.map_or(0.0, |(before, after)| after - before);
    let beyond_ratio = times_worse.is_some_and(|ratio| ratio > tolerance.ratio);
    let too_much = match kind {
        Kind::LatencyMs => beyond_ratio && difference > tolerance.noise_ms,
        Kind::Cost => beyond_ratio,
        // Nothing left of a gain is infinitely worse.
        Kind::Gain => beyond_ratio || both.is_some_and(|(before, after)| before > 0.0 && after <= 0.0),
        // From no errors to some is infinitely worse.
        Kind::Share => difference > SHARE_NOISE && times_worse.is_none_or(|ratio| ratio > tolerance.ratio),
    };
    Row {
        name,
        before,
        after,
        times_worse,
        too_much,
    }
}

impl Comparison {
    /// 0 as good, 1 worse, 5 nothing follows.
    pub(crate) const fn exit_code(&self) -> u8 {
        match (self.invalid, self.as_good) {
            (true, _) => 5,
            (false, true) => 0,
            (false, false) => 1,
        }
    }

    pub(crate) const fn words(&self) -> &'static str {
        match (self.invalid, self.as_good) {
            (true, _) => "invalid: a generator was saturated",
            (false, true) => "as good",
            (false, false) => "WORSE",
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>12} {:>12} {:>9}", "", "before", "after", "× worse")?;
        let cell = |value: Option<f64>, digits| {
            value.map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
        };
        for row in &self.rows {
            let mark = if row.too_much { "  WORSE" } else { "" };
            let (before, after) = (cell(row.before, 3), cell(row.after, 3));
            writeln!(
                f,
                "{:<24} {before:>12} {after:>12} {:>9}{mark}",
                row.name,
                cell(row.times_worse, 2)
            )?;
        }
        writeln!(f, "{}", self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::tests::{SECOND, ms, totals};

    const TOLERANCE: Tolerance = Tolerance {
        ratio: 1.1,
        noise_ms: 0.5,
    };

    fn report(latency: u64, errors: usize) -> Report {
        let requests: Vec<(u64, bool)> = (0..1_000).map(|number| (latency, number >= errors)).collect();
        Report::of(&totals(&requests, ms(0)), SECOND)
    }

    fn exit(before: &Report, after: &Report) -> u8 {
        compare(before, after, TOLERANCE).exit_code()
    }

    #[test]
    fn worse_is_worse_and_better_is_as_good() {
        assert_eq!(exit(&report(20, 0), &report(20, 0)), 0);
        assert_eq!(exit(&report(20, 0), &report(21, 0)), 0);
        assert_eq!(exit(&report(20, 0), &report(25, 0)), 1);
        assert_eq!(exit(&report(25, 0), &report(20, 0)), 0);
    }

    #[test]
    fn errors_count_from_the_first() {
        assert_eq!(exit(&report(20, 0), &report(20, 5)), 1);
        assert_eq!(exit(&report(20, 5), &report(20, 0)), 0);
    }

    #[test]
    fn costs_are_compared_where_both_are_known() {
        let (mut before, mut after) = (report(20, 0), report(20, 0));
        after.server_cpu_us = Some(40.0);
        assert_eq!(exit(&before, &after), 0);
        before.server_cpu_us = Some(20.0);
        let comparison = compare(&before, &after, TOLERANCE);
        let row = comparison
            .rows
            .iter()
            .find(|row| row.name == "server_cpu_us")
            .unwrap();
        assert_eq!(
            (row.times_worse, row.too_much, comparison.exit_code()),
            (Some(2.0), true, 1)
        );
    }

    #[test]
    fn nothing_follows_from_a_saturated_generator() {
        let mut saturated = report(20, 0);
        saturated.saturated = true;
        assert_eq!(exit(&saturated, &report(50, 0)), 5);
    }
}
