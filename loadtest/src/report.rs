//! What came of a run: percentiles, errors by code, and the verdict.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use protocol::error_code::{Code, Refusal};
use serde::Serialize;

/// Average latency promised (SLA A 4.2), in milliseconds.
const AVERAGE_MS_MAX: f64 = 100.0;
/// Longest latency promised, in milliseconds.
const LONGEST_MS_MAX: f64 = 3_000.0;
/// A generator that sends this late, at the 99th percentile, measures itself and not the server.
const LAG_MS_MAX: f64 = 10.0;

/// A failure of the tool's own.
pub(crate) fn failed(what: &str, error: impl fmt::Display) -> Refusal {
    Refusal::new(Code::File, format!("{what}: {error}"))
}

/// Latencies as they come in, in microseconds.
pub(crate) struct Tally {
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    offered: u64,
    ok: u64,
    verified: u64,
    errors: BTreeMap<Code, u64>,
}

/// Microseconds a histogram holds; a minute is far beyond any promise.
const HIGHEST_US: u64 = 60_000_000;

impl Tally {
    pub(crate) fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("bounds and precision are valid");
        let (latency, lag) = (histogram(), histogram());
        Self {
            latency,
            lag,
            offered: 0,
            ok: 0,
            verified: 0,
            errors: BTreeMap::new(),
        }
    }

    /// A request was meant to leave, and left `lag` later.
    pub(crate) fn sent(&mut self, signatures: u64, lag: std::time::Duration) {
        self.offered += signatures;
        self.lag.saturating_record(micros(lag));
    }

    /// A request was answered.
    pub(crate) fn answered(&mut self, latency: std::time::Duration, ok: u64, failed: &[Code], verified: u64) {
        self.latency.saturating_record(micros(latency));
        self.ok += ok;
        self.verified += verified;
        for code in failed {
            *self.errors.entry(*code).or_insert(0) += 1;
        }
    }

    /// A request was not answered before the run was over.
    pub(crate) fn unanswered(&mut self, signatures: u64) {
        if signatures == 0 {
            return;
        }
        *self.errors.entry(Code::Connection).or_insert(0) += signatures;
    }

    pub(crate) fn report(&self, seconds: f64, server_cpu_seconds: Option<f64>) -> Report {
        let errors: u64 = self.errors.values().sum();
        let latency_ms = Percentiles::of(&self.latency);
        let send_lag_ms = Percentiles::of(&self.lag);
        let kept = errors == 0
            && self.ok == self.offered
            && latency_ms.avg <= AVERAGE_MS_MAX
            && latency_ms.max <= LONGEST_MS_MAX;
        Report {
            offered: self.offered,
            ok: self.ok,
            errors: self
                .errors
                .iter()
                .map(|(code, count)| (code.name(), *count))
                .collect(),
            verified: self.verified,
            seconds,
            signatures_per_second: self.ok as f64 / seconds,
            saturated: send_lag_ms.p99 > LAG_MS_MAX,
            latency_ms,
            send_lag_ms,
            server_cpu_us: server_cpu_seconds.map(|cpu| cpu * 1e6 / self.ok.max(1) as f64),
            kept,
        }
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    avg: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Self {
            avg: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
        }
    }
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Signatures asked for.
    offered: u64,
    /// Signatures that came back.
    ok: u64,
    /// Signatures that did not, by code.
    errors: BTreeMap<&'static str, u64>,
    /// Signatures that were verified here.
    verified: u64,
    /// From the first counted request to the last answer.
    seconds: f64,
    signatures_per_second: f64,
    /// From the moment a request was meant to leave to its answer.
    latency_ms: Percentiles,
    /// From the moment a request was meant to leave to the moment it left.
    send_lag_ms: Percentiles,
    /// The generator could not keep its own schedule: the latencies include its own delay.
    saturated: bool,
    /// The server's CPU time for each signature, in microseconds.
    server_cpu_us: Option<f64>,
    /// Average at most 100 ms, none over 3 s, no errors.
    pub(crate) kept: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offered,
            ok,
            verified,
            seconds,
            signatures_per_second,
            ..
        } = self;
        writeln!(
            f,
            "offered {offered}   ok {ok}   verified {verified}   in {seconds:.2} s"
        )?;
        writeln!(f, "signatures/s {signatures_per_second:.0}")?;
        for (name, p) in [
            ("latency ms ", &self.latency_ms),
            ("send lag ms", &self.send_lag_ms),
        ] {
            let Percentiles {
                avg,
                p50,
                p90,
                p99,
                p999,
                max,
            } = p;
            writeln!(
                f,
                "{name} avg {avg:.2}  p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}"
            )?;
        }
        if let Some(cpu) = self.server_cpu_us {
            writeln!(f, "server CPU {cpu:.1} µs per signature")?;
        }
        for (code, count) in &self.errors {
            writeln!(f, "error {code}: {count}")?;
        }
        if self.saturated {
            writeln!(f, "the generator could not keep its schedule: it was saturated")?;
        }
        let verdict = if self.kept { "kept" } else { "NOT kept" };
        writeln!(f, "SLA (average ≤ 100 ms, none over 3 s, no errors): {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_verdict_needs_every_answer_in_time_and_on_average() {
        let ms = Duration::from_millis;
        let mut good = Tally::new();
        for _ in 0..100 {
            good.sent(1, ms(0));
            good.answered(ms(5), 1, &[], 0);
        }
        assert!(good.report(1.0, None).kept);

        let mut late = Tally::new();
        late.sent(1, ms(0));
        late.answered(ms(3_100), 1, &[], 0);
        assert!(!late.report(1.0, None).kept);

        let mut slow = Tally::new();
        slow.sent(1, ms(0));
        slow.answered(ms(150), 1, &[], 0);
        assert!(!slow.report(1.0, None).kept);

        let mut refused = Tally::new();
        refused.sent(1, ms(0));
        refused.answered(ms(1), 0, &[Code::Overloaded], 0);
        let report = refused.report(1.0, None);
        assert!(!report.kept);
        assert_eq!(report.errors["overloaded"], 1);

        let mut lost = Tally::new();
        lost.sent(3, ms(0));
        lost.unanswered(3);
        assert!(!lost.report(1.0, None).kept);
    }
}
