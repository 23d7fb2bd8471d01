//! What one second of the engine shows: pure, from what was seen. Names are short because five minutes of them are sent at once.

use std::collections::{BTreeMap, VecDeque};

use actors::latency::{Distribution, Ending, Recorded};
use protocol::clock::UnixMillis;
use protocol::stages::Stage;
use serde::Serialize;

/// Seconds over which refusals are counted as recent.
const RECENT: usize = 60;

/// Shares of answers at which the distribution is shown.
const QUANTILES: [f64; 14] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0,
];

/// Counters that only rise, by when they were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) signatures: u64,
    pub(super) answered: u64,
    /// By code, those that are not zero.
    pub(super) refused: BTreeMap<&'static str, u64>,
}

/// Latencies in microseconds. Percentiles are of answers that carry a result; the longest is of all answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
    pub(super) avg: u64,
}

/// A second, as it is kept for those who come later.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    /// Milliseconds since 1970.
    t: u64,
    /// `None`: nothing was answered with a result.
    latency: Option<Percentiles>,
    /// A second, each of them.
    signatures: f64,
    answered: f64,
    refused: f64,
    extending: bool,
}

/// One stage over the last minute or two, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct StageView {
    stage: &'static str,
    avg: u64,
    p50: u64,
    p99: u64,
    max: u64,
}

/// Refusals with one code.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct RefusalView {
    code: &'static str,
    /// In the last minute.
    recent: u64,
    /// Since the engine started.
    total: u64,
}

/// One device, or the software lanes.
#[derive(Debug, Serialize)]
pub(super) struct DeviceView {
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) reason: String,
    /// Percent of the jobs that would be its own.
    pub(super) share: u8,
    pub(super) up: usize,
    pub(super) wanted: usize,
    pub(super) waiting: usize,
    pub(super) in_flight: usize,
    pub(super) limit: u16,
    /// Since its first process; the page makes a rate of it.
    pub(super) signed: u64,
    pub(super) faults: u64,
    /// The smoothed time of a call.
    pub(super) call_us: u64,
}

/// One tenant's load.
#[derive(Debug, Serialize)]
pub(super) struct TenantView {
    pub(super) name: String,
    /// Requests a second that count under the agreement.
    pub(super) rate: f64,
    /// Those with a normal response, as a share.
    pub(super) normal: f64,
}

/// Everything that is true now.
#[derive(Debug, Serialize)]
pub(super) struct Gauges {
    /// Why new requests cannot be taken; empty: they can.
    pub(super) not_ready: Vec<String>,
    pub(super) maintenance: bool,
    pub(super) storage_full: bool,
    pub(super) audit_stopped: bool,
    pub(super) differences: u64,
    pub(super) in_flight: usize,
    pub(super) journal_backlog: usize,
    pub(super) lanes: usize,
    pub(super) lane_queue: usize,
    pub(super) busy_ratio: f64,
}

/// What is sent each second, but for the tenants.
#[derive(Debug, Serialize)]
pub(super) struct Now {
    pub(super) point: Point,
    pub(super) gauges: Gauges,
    pub(super) stages: Vec<StageView>,
    /// Share of answers, and how long they took at most.
    pub(super) spread: Vec<(f64, u64)>,
    pub(super) refusals: Vec<RefusalView>,
    pub(super) devices: Vec<DeviceView>,
}

fn is_result(series: &actors::latency::Series) -> bool {
    series.ending == Ending::Ok
}

fn percentiles(second: &Recorded) -> Option<Percentiles> {
    let results = second.total(is_result);
    let count = results.count();
    let at = |quantile| results.histogram.value_at_quantile(quantile);
    (count > 0).then(|| Percentiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: longest(second),
        avg: results.sum_ns / 1_000 / count,
    })
}

fn longest(second: &Recorded) -> u64 {
    let all = second.series().iter();
    all.map(|(_, distribution)| distribution.max_us)
        .max()
        .unwrap_or(0)
}

/// The stages of the signing calls of some time.
pub(super) fn stages(recent: &Recorded) -> Vec<StageView> {
    let view = |stage: Stage| {
        let times = recent.stage(stage);
        let at = |quantile| times.histogram.value_at_quantile(quantile);
        StageView {
            stage: stage.name(),
            avg: times.sum_ns / 1_000 / times.count().max(1),
            p50: at(0.5),
            p99: at(0.99),
            max: times.max_us,
        }
    };
    Stage::ALL.map(view).into()
}

/// The distribution of the answers of some time that carry a result.
pub(super) fn spread(recent: &Recorded) -> Vec<(f64, u64)> {
    let results: Distribution = recent.total(is_result);
    if results.count() == 0 {
        return Vec::new();
    }
    let at = |quantile| match quantile {
        1.0 => results.max_us,
        quantile => results.histogram.value_at_quantile(quantile).min(results.max_us),
    };
    QUANTILES
        .iter()
        .map(|quantile| (*quantile, at(*quantile)))
        .collect()
}

/// Makes seconds of counters.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    /// Refusals as they were, the oldest first.
    before: VecDeque<BTreeMap<&'static str, u64>>,
    last: Option<(UnixMillis, Counters)>,
}

impl Ticker {
    /// The second that ends now.
    pub(super) fn tick(
        &mut self,
        now: UnixMillis,
        second: &Recorded,
        counters: Counters,
        extending: bool,
    ) -> Point {
        let (then, last) = self.last.take().unwrap_or_else(|| (now, counters.clone()));
        // A clock that was set must not make a rate that nobody saw.
        let seconds = now.0.saturating_sub(then.0).clamp(500, 10_000) as f64 / 1e3;
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let sum = |counters: &Counters| counters.refused.values().sum::<u64>();
        let point = Point {
            t: now.0,
            latency: percentiles(second),
            signatures: rate(counters.signatures, last.signatures),
            answered: rate(counters.answered, last.answered),
            refused: rate(sum(&counters), sum(&last)),
            extending,
        };
        if self.before.len() == RECENT {
            self.before.pop_front();
        }
        self.before.push_back(last.refused);
        self.last = Some((now, counters));
        point
    }

    /// Refusals by code, the most frequent of the last minute first.
    pub(super) fn refusals(&self) -> Vec<RefusalView> {
        let (Some((_, counters)), Some(then)) = (&self.last, self.before.front()) else {
            return Vec::new();
        };
        let view = |(code, total): (&&'static str, &u64)| RefusalView {
            code,
            recent: total - then.get(code).unwrap_or(&0),
            total: *total,
        };
        let mut views: Vec<_> = counters.refused.iter().map(view).collect();
        views.sort_by_key(|view| std::cmp::Reverse((view.recent, view.total)));
        views
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actors::latency::{Operation, Series, Transport};

    use super::*;

    fn recorded(answers: &[(Ending, u64)]) -> Recorded {
        let mut recorded = Recorded::default();
        for (ending, us) in answers {
            let series = Series {
                operation: Operation::Sign,
                transport: Transport::Quic,
                algorithm: None,
                ending: *ending,
            };
            recorded.record(series, Duration::from_micros(*us));
        }
        recorded
    }

    fn counters(signatures: u64, overloaded: u64) -> Counters {
        Counters {
            signatures,
            answered: signatures,
            refused: BTreeMap::from([("overloaded", overloaded)]),
        }
    }

    #[test]
    fn rates_are_by_the_time_between_two_looks_and_begin_at_nothing() {
        let (mut ticker, none) = (Ticker::default(), Recorded::default());
        let first = ticker.tick(UnixMillis(10_000), &none, counters(1_000, 7), false);
        assert_eq!((first.signatures, first.refused, first.latency), (0.0, 0.0, None));
        let second = ticker.tick(UnixMillis(12_000), &none, counters(1_600, 17), true);
        assert_eq!((second.signatures, second.refused), (300.0, 5.0));
        assert!(second.extending);
        let back = ticker.tick(UnixMillis(1_000), &none, counters(1_700, 17), true);
        assert_eq!(
            back.signatures, 200.0,
            "the clock went back; half a second is the least"
        );
    }

    #[test]
    fn percentiles_are_of_results_and_the_longest_is_of_everything() {
        let second = recorded(&[(Ending::Ok, 1_000), (Ending::Ok, 1_000), (Ending::Busy, 9_000)]);
        let found = percentiles(&second).unwrap();
        assert!((990..=1_010).contains(&found.p99), "{found:?}");
        assert_eq!((found.max, found.avg), (9_000, 1_000));
        assert_eq!(percentiles(&recorded(&[(Ending::Busy, 5)])), None);
        let spread = spread(&second);
        assert_eq!(spread.last(), Some(&(1.0, 1_000)));
        assert!(spread.is_sorted_by_key(|(quantile, _)| *quantile));
    }

    #[test]
    fn refusals_of_the_last_minute_are_told_from_those_before() {
        let (mut ticker, none) = (Ticker::default(), Recorded::default());
        for second in 0..=2 * RECENT as u64 {
            ticker.tick(UnixMillis(second * 1_000), &none, counters(0, 5 * second), false);
        }
        let expected = RefusalView {
            code: "overloaded",
            recent: 5 * RECENT as u64,
            total: 10 * RECENT as u64,
        };
        assert_eq!(ticker.refusals(), [expected]);
    }
}
