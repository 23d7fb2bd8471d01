//! The promise a run is held to: a TOML file, or the agreement's own figures. Pure.

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Limits. What is not given is not checked; without a file, the agreement's (SLA A 4.2) apply.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sla {
    /// Average of the answers that brought signatures, in milliseconds: refusals cannot flatter it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) average_ms: Option<f64>,
    /// Longest of all answers, and of those that never came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p90_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p999_ms: Option<f64>,
    /// 99th percentile of the answers that brought none: a refusal must be quick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed_p99_ms: Option<f64>,
    /// Signatures that did not come, as a share of those asked for: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errors_max_share: Option<f64>,
    /// Signatures per second at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signatures_per_second_min: Option<f64>,
    /// CPU time of the server for each signature, in microseconds; fails where it cannot be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_us_max: Option<f64>,
    /// How late the generator itself may send, at the 99th percentile, before the run is invalid.
    #[serde(default = "lag_p99_ms")]
    pub(crate) generator_lag_p99_ms: f64,
    /// And at the longest.
    #[serde(default = "lag_max_ms")]
    pub(crate) generator_lag_max_ms: f64,
}

/// A tenth of the average promised: beyond it a run tells more about the generator than about the server.
const fn lag_p99_ms() -> f64 {
    10.0
}

/// A third of the longest latency promised.
const fn lag_max_ms() -> f64 {
    1_000.0
}

impl Default for Sla {
    fn default() -> Self {
        Self {
            average_ms: Some(100.0),
            max_ms: Some(3_000.0),
            p50_ms: None,
            p90_ms: None,
            p99_ms: None,
            p999_ms: None,
            failed_p99_ms: None,
            errors_max_share: Some(0.0),
            signatures_per_second_min: None,
            server_cpu_us_max: None,
            generator_lag_p99_ms: lag_p99_ms(),
            generator_lag_max_ms: lag_max_ms(),
        }
    }
}

/// One limit, and what was found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Check {
    /// The limit's name in the SLA file.
    pub(crate) name: String,
    pub(crate) limit: f64,
    /// `None`: it could not be seen.
    pub(crate) found: Option<f64>,
    pub(crate) kept: bool,
}

impl Check {
    fn at_most(name: &str, limit: Option<f64>, found: Option<f64>) -> Option<Self> {
        limit.map(|limit| Self {
            name: name.into(),
            limit,
            found,
            kept: found.is_some_and(|found| found <= limit),
        })
    }

    fn at_least(name: &str, limit: Option<f64>, found: f64) -> Option<Self> {
        limit.map(|limit| Self {
            name: name.into(),
            limit,
            found: Some(found),
            kept: found >= limit,
        })
    }
}

/// What a run is worth.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Every limit was kept.
    Kept,
    /// One was not.
    NotKept,
    /// The generator was saturated: the figures are its own, not the server's.
    Invalid,
}

impl Verdict {
    /// The exit code: 0, 1, or 5.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Kept => 0,
            Self::NotKept => 1,
            Self::Invalid => 5,
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::NotKept => "NOT kept",
            Self::Invalid => "invalid: the generator was saturated",
        }
    }
}

impl Sla {
    /// Every limit that is set, held against a report.
    pub(crate) fn checks(&self, report: &Report) -> Vec<Check> {
        let all = &report.latency_ms;
        let missing = report.offered.saturating_sub(report.ok);
        let share = missing as f64 / report.offered.max(1) as f64;
        [
            Check::at_most("average_ms", self.average_ms, Some(report.ok_latency_ms.avg)),
            Check::at_most("max_ms", self.max_ms, Some(all.max)),
            Check::at_most("p50_ms", self.p50_ms, Some(all.p50)),
            Check::at_most("p90_ms", self.p90_ms, Some(all.p90)),
            Check::at_most("p99_ms", self.p99_ms, Some(all.p99)),
            Check::at_most("p999_ms", self.p999_ms, Some(all.p999)),
            Check::at_most(
                "failed_p99_ms",
                self.failed_p99_ms,
                Some(report.failed_latency_ms.p99),
            ),
            Check::at_most("errors_max_share", self.errors_max_share, Some(share)),
            Check::at_least(
                "signatures_per_second_min",
                self.signatures_per_second_min,
                report.signatures_per_second,
            ),
            Check::at_most("server_cpu_us_max", self.server_cpu_us_max, report.server_cpu_us),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether the generator kept its own schedule.
    pub(crate) fn is_saturated(&self, report: &Report) -> bool {
        let lag = &report.send_lag_ms;
        lag.p99 > self.generator_lag_p99_ms || lag.max > self.generator_lag_max_ms
    }

    /// Fills in what the report is held to, and what it is worth. A run without a single signature keeps nothing.
    pub(crate) fn judge(&self, report: &mut Report) {
        report.checks = self.checks(report);
        report.saturated = self.is_saturated(report);
        report.kept = report.ok > 0 && report.checks.iter().all(|check| check.kept);
        report.verdict = match (report.saturated, report.kept) {
            (true, _) => Verdict::Invalid,
            (false, true) => Verdict::Kept,
            (false, false) => Verdict::NotKept,
        };
        report.sla = self.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::tests::{SECOND, ms, totals};

    fn judged(sla: &Sla, requests: &[(u64, bool)], lag_ms: u64) -> Report {
        let mut report = Report::of(&totals(requests, ms(lag_ms)), SECOND);
        sla.judge(&mut report);
        report
    }

    fn verdict(sla: &Sla, requests: &[(u64, bool)]) -> Verdict {
        judged(sla, requests, 0).verdict
    }

    #[test]
    fn without_a_file_the_agreement_applies() {
        let sla = Sla::default();
        assert_eq!(verdict(&sla, &[(5, true); 100]), Verdict::Kept);
        assert_eq!(verdict(&sla, &[(5, true), (3_100, true)]), Verdict::NotKept);
        assert_eq!(verdict(&sla, &[(150, true)]), Verdict::NotKept);
        assert_eq!(verdict(&sla, &[(5, true), (1, false)]), Verdict::NotKept);
        assert_eq!(verdict(&sla, &[]), Verdict::NotKept);
    }

    #[test]
    fn quick_refusals_do_not_flatter_the_average() {
        let sla = Sla {
            errors_max_share: Some(0.9),
            ..Sla::default()
        };
        let requests = [(150, true), (1, false), (1, false), (1, false)];
        let report = judged(&sla, &requests, 0);
        assert!(report.latency_ms.avg < 100.0);
        assert_eq!(report.verdict, Verdict::NotKept);
        let broken: Vec<_> = report.checks.iter().filter(|check| !check.kept).collect();
        assert_eq!(broken[0].name, "average_ms");
    }

    #[test]
    fn a_generator_that_is_late_proves_nothing() {
        assert_eq!(
            judged(&Sla::default(), &[(5, true); 100], 11).verdict,
            Verdict::Invalid
        );
        assert_eq!(
            judged(&Sla::default(), &[(500, true); 100], 11)
                .verdict
                .exit_code(),
            5
        );
        assert_eq!(
            judged(&Sla::default(), &[(5, true); 100], 9).verdict,
            Verdict::Kept
        );
    }

    #[test]
    fn each_limit_can_be_broken_alone() {
        let requests: Vec<(u64, bool)> = (1..=100).map(|ms| (ms, ms != 50)).collect();
        for (limit, breaks) in [
            ("average_ms = 50", true),
            ("average_ms = 51", false),
            ("max_ms = 99", true),
            ("max_ms = 101", false),
            ("p50_ms = 49", true),
            ("p90_ms = 89", true),
            ("p99_ms = 98", true),
            ("p999_ms = 99", true),
            ("failed_p99_ms = 49", true),
            ("failed_p99_ms = 51", false),
            ("errors_max_share = 0.009", true),
            ("errors_max_share = 0.01", false),
            ("signatures_per_second_min = 100", true),
            ("signatures_per_second_min = 99", false),
            // The server's CPU time cannot be seen here.
            ("server_cpu_us_max = 1000", true),
        ] {
            let sla: Sla = toml::from_str(limit).unwrap();
            assert_eq!(verdict(&sla, &requests) == Verdict::NotKept, breaks, "{limit}");
        }
        assert!(
            toml::from_str::<Sla>("average = 5")
                .unwrap_err()
                .message()
                .contains("average")
        );
    }
}
