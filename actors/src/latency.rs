//! How long requests take, and where: plain histograms of each core, without a lock or an atomic on the way of a request.
//! Once a second a core swaps its own for an empty one, and a thread beside the path brings them together ([`book`]).

pub mod book;

use std::time::Duration;

use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;
use protocol::ids::AppId;
use protocol::latency::{Latencies, add, micros, small_histogram};
use protocol::stages::{Stage, StageTimes};
use serde::Serialize;
use sla::answer::Outcome;

/// Upper bounds of the buckets, in microseconds. 100 ms and 3 s are exact, because they are promised.
pub const BUCKETS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 3_000_000,
];

/// A request that takes longer is kept with its stage times: as long as the average may be (A 4.2).
pub const SLOW: Duration = Duration::from_millis(100);
/// Slow requests, and sampled ones, that a core keeps until they are collected.
const SLOW_MAX: usize = 64;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Signatures.
    Sign,
    /// What became of an earlier call.
    Lookup,
    /// The app's credentials.
    Credentials,
    /// The app's usage.
    Usage,
    /// Certificates: issued, renewed, changed, listed.
    Certificates,
    /// Those whose identities are checked.
    Subjects,
    /// Time stamps (RFC 3161).
    TimeStamp,
    /// How certificates stand (RFC 6960).
    Status,
    /// Revocation lists.
    Lists,
    /// A document sealed.
    Seal,
    /// A document verified.
    Verify,
    /// A job: documents put in, its standing, documents fetched.
    Job,
}

/// The way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The native protocol.
    Quic,
    /// JSON.
    Https,
    /// The standard bindings of the pki listener.
    Http,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// With what was asked for.
    Ok,
    /// Refused for the caller's fault.
    Caller,
    /// Refused with 429.
    Throttled,
    /// Refused with 503.
    Busy,
    /// The caller was told that it still runs.
    Pending,
    /// Ours.
    Failed,
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Result => Self::Ok,
            Outcome::CallerFault => Self::Caller,
            Outcome::ThrottledByContract | Outcome::ThrottledWithinContract => Self::Throttled,
            Outcome::Busy => Self::Busy,
            Outcome::Pending => Self::Pending,
            Outcome::Failed | Outcome::Reset => Self::Failed,
        }
    }
}

impl Operation {
    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Lookup => "lookup",
            Self::Credentials => "credentials",
            Self::Usage => "usage",
            Self::Certificates => "certificates",
            Self::Subjects => "subjects",
            Self::TimeStamp => "timestamp",
            Self::Status => "status",
            Self::Lists => "lists",
            Self::Seal => "seal",
            Self::Verify => "verify",
            Self::Job => "job",
        }
    }
}

impl Transport {
    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

impl Ending {
    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Caller => "caller",
            Self::Throttled => "throttled",
            Self::Busy => "busy",
            Self::Pending => "pending",
            Self::Failed => "failed",
        }
    }
}

/// What requests are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// What was asked for.
    pub operation: Operation,
    /// The way it came.
    pub transport: Transport,
    /// How it is signed, once that is known.
    pub algorithm: Option<Algorithm>,
    /// How it ended.
    pub ending: Ending,
}

impl Series {
    /// The algorithm's name, or `none`.
    pub const fn algorithm_name(&self) -> &'static str {
        match self.algorithm {
            Some(algorithm) => algorithm.name(),
            None => "none",
        }
    }
}

/// Many durations: a histogram, and beside it what must be exact.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// All of them.
    pub histogram: Latencies,
    /// Counts per bucket of [`BUCKETS_US`]; the last: above all bounds.
    pub buckets: [u64; BUCKETS_US.len() + 1],
    /// The sum, in nanoseconds.
    pub sum_ns: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self::new()
    }
}

impl Distribution {
    /// An empty one.
    pub fn new() -> Self {
        // There are many, on every core; two digits are enough where sum, maximum and promised bounds are exact.
        Self {
            histogram: small_histogram(),
            buckets: [0; BUCKETS_US.len() + 1],
            sum_ns: 0,
            max_us: 0,
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Notes one.
    pub fn record(&mut self, duration: Duration) {
        let us = micros(duration);
        self.histogram.saturating_record(us);
        self.buckets[BUCKETS_US.partition_point(|bound| *bound < us)] += 1;
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_us = self.max_us.max(us);
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.histogram, &other.histogram);
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_us = self.max_us.max(other.max_us);
    }

    fn reset(&mut self) {
        if self.count() > 0 {
            self.histogram.reset();
            self.buckets = [0; BUCKETS_US.len() + 1];
            (self.sum_ns, self.max_us) = (0, 0);
        }
    }
}

/// One request, as an operator sees it. No digest, no key, nobody's name but the app's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// The core that had it.
    pub core: u16,
    /// Whose it was.
    pub app: AppId,
    /// What was asked for.
    pub operation: Operation,
    /// The way it came.
    pub transport: Transport,
    /// How it was to be signed.
    pub algorithm: Option<&'static str>,
    /// How many digests.
    pub items: usize,
    /// How it ended.
    pub ending: Ending,
    /// All in all, in microseconds.
    pub total_us: u64,
    /// By stage, in microseconds, as far as it came. Of a batch: of the item that was last.
    pub stages_us: std::collections::BTreeMap<&'static str, u64>,
}

impl Example {
    pub(crate) fn stages(times: &StageTimes) -> std::collections::BTreeMap<&'static str, u64> {
        let us = |(stage, time): (Stage, Duration)| (stage.name(), micros(time));
        times.iter().map(us).collect()
    }
}

/// The stages of the calls of one algorithm.
pub type Stages = [Distribution; Stage::ALL.len()];

/// What was recorded over some time.
#[derive(Debug, Default)]
pub struct Recorded {
    series: Vec<(Series, Distribution)>,
    stages: Vec<(Algorithm, Box<Stages>)>,
    slow: Vec<Example>,
    sampled: Vec<Example>,
}

impl Recorded {
    /// Requests that took too long.
    pub fn slow(&self) -> &[Example] {
        &self.slow
    }

    /// One request in so many, those that are slow left out.
    pub fn sampled(&self) -> &[Example] {
        &self.sampled
    }

    /// Whole requests.
    pub fn series(&self) -> &[(Series, Distribution)] {
        &self.series
    }

    /// Stages of the signing calls that reached the pool, by algorithm.
    pub fn stages(&self) -> &[(Algorithm, Box<Stages>)] {
        &self.stages
    }

    /// One stage of all algorithms together.
    pub fn stage(&self, stage: Stage) -> Distribution {
        let mut all = Distribution::new();
        for (_, stages) in &self.stages {
            all.merge(&stages[stage as usize]);
        }
        all
    }

    /// All requests for which `wanted` is so, together.
    pub fn total(&self, wanted: impl Fn(&Series) -> bool) -> Distribution {
        let mut all = Distribution::new();
        for (_, distribution) in self.series.iter().filter(|(series, _)| wanted(series)) {
            all.merge(distribution);
        }
        all
    }

    /// Notes how long a request took.
    pub fn record(&mut self, series: Series, latency: Duration) {
        self.of(series).record(latency);
    }

    /// Notes where a signing call spent its time.
    pub fn record_stages(&mut self, algorithm: Algorithm, times: &StageTimes) {
        let stages = self.stages_of(algorithm);
        for (stage, time) in times.iter() {
            stages[stage as usize].record(time);
        }
    }

    // There are few series, and the one that is wanted is nearly always among the first.
    fn of(&mut self, series: Series) -> &mut Distribution {
        let known = self.series.iter().position(|(known, _)| *known == series);
        let at = known.unwrap_or_else(|| {
            self.series.push((series, Distribution::new()));
            self.series.len() - 1
        });
        &mut self.series[at].1
    }

    fn stages_of(&mut self, algorithm: Algorithm) -> &mut Stages {
        let known = self.stages.iter().position(|(known, _)| *known == algorithm);
        let at = known.unwrap_or_else(|| {
            let stages = Stage::ALL.map(|_| Distribution::new());
            self.stages.push((algorithm, Box::new(stages)));
            self.stages.len() - 1
        });
        &mut self.stages[at].1
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.series
            .iter()
            .all(|(_, distribution)| distribution.count() == 0)
    }

    /// Adds what was recorded elsewhere, but for the slow requests.
    pub fn merge(&mut self, other: &Self) {
        for (series, distribution) in &other.series {
            if distribution.count() > 0 {
                self.of(*series).merge(distribution);
            }
        }
        for (algorithm, stages) in &other.stages {
            let own = self.stages_of(*algorithm);
            own.iter_mut()
                .zip(&**stages)
                .for_each(|(own, more)| own.merge(more));
        }
    }

    /// Empties it, and keeps its memory for the next time.
    fn reset(&mut self) {
        self.series
            .iter_mut()
            .for_each(|(_, distribution)| distribution.reset());
        for (_, stages) in &mut self.stages {
            stages.iter_mut().for_each(Distribution::reset);
        }
        self.slow.clear();
        self.sampled.clear();
    }
}

/// One request that has been answered.
pub(crate) struct Answered<'a> {
    pub(crate) series: Series,
    pub(crate) latency: Duration,
    pub(crate) times: StageTimes,
    pub(crate) app: &'a AppId,
    pub(crate) core: u16,
    pub(crate) items: usize,
}

impl Recorded {
    /// Notes an answer. `is_sampled`: it is one of those that are kept although they are not slow.
    pub(crate) fn answered(&mut self, answered: &Answered<'_>, is_sampled: bool, now: UnixMillis) {
        self.record(answered.series, answered.latency);
        if let Some(algorithm) = answered.series.algorithm
            && answered.times.was_queued()
        {
            self.record_stages(algorithm, &answered.times);
        }
        let kept = if answered.latency > SLOW {
            &mut self.slow
        } else if is_sampled {
            &mut self.sampled
        } else {
            return;
        };
        // Of very many in one second, the first.
        if kept.len() < SLOW_MAX {
            kept.push(answered.example(now));
        }
    }
}

impl Answered<'_> {
    fn example(&self, now: UnixMillis) -> Example {
        Example {
            at: now.0,
            core: self.core,
            app: self.app.clone(),
            operation: self.series.operation,
            transport: self.series.transport,
            algorithm: self.series.algorithm.map(Algorithm::name),
            items: self.items,
            ending: self.series.ending,
            total_us: micros(self.latency),
            stages_us: Example::stages(&self.times),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: Series = Series {
        operation: Operation::Sign,
        transport: Transport::Quic,
        algorithm: Some(Algorithm::EcdsaP256Sha256),
        ending: Ending::Ok,
    };

    #[test]
    fn the_promised_bounds_are_exact() {
        let mut some = Distribution::new();
        let bucket = |us: u64| BUCKETS_US.iter().position(|bound| *bound == us).unwrap();
        for us in [100_000, 100_001, 3_000_000, 3_000_001] {
            some.record(Duration::from_micros(us));
        }
        assert_eq!(some.buckets[bucket(100_000)], 1);
        assert_eq!(some.buckets[bucket(100_000) + 1], 1);
        assert_eq!(some.buckets[bucket(3_000_000)], 1);
        assert_eq!(some.buckets[BUCKETS_US.len()], 1);
        assert_eq!((some.count(), some.max_us), (4, 3_000_001));
        assert_eq!(some.sum_ns, 6_200_002_000);
    }

    #[test]
    fn what_cores_recorded_adds_up() {
        let (mut first, mut second) = (Recorded::default(), Recorded::default());
        let busy = Series {
            ending: Ending::Busy,
            ..SERIES
        };
        let ms = Duration::from_millis;
        first.record(SERIES, ms(5));
        second.record(SERIES, ms(7));
        second.record(busy, ms(1));
        let marks = [Some(ms(2)), Some(ms(3)), Some(ms(4)), Some(ms(5))];
        second.record_stages(Algorithm::EcdsaP256Sha256, &StageTimes::of(ms(1), marks, ms(7)));
        first.merge(&second);
        assert_eq!(first.total(|_| true).count(), 3);
        assert_eq!(first.total(|series| series.ending == Ending::Ok).max_us, 7_000);
        assert_eq!(first.stage(Stage::Reply).max_us, 2_000);
        second.reset();
        assert!(second.is_empty() && !first.is_empty());
        first.merge(&second);
        assert_eq!(first.total(|_| true).count(), 3);
    }

    #[test]
    fn a_slow_request_is_kept_with_its_stages_and_only_so_many() {
        let mut some = Recorded::default();
        let ms = Duration::from_millis;
        let app: AppId = "erp".parse().unwrap();
        for latency in [ms(100), ms(101)].into_iter().chain([ms(200); 2 * SLOW_MAX]) {
            let answered = Answered {
                series: SERIES,
                latency,
                times: StageTimes::of(ms(1), [Some(ms(2)), None, None, None], latency),
                app: &app,
                core: 1,
                items: 1,
            };
            some.answered(&answered, latency == ms(100), UnixMillis(7));
        }
        assert_eq!(some.slow.len(), SLOW_MAX);
        assert_eq!((some.sampled.len(), some.sampled[0].total_us), (1, 100_000));
        assert_eq!(some.slow[0].total_us, 101_000);
        assert_eq!(some.slow[0].stages_us["queue"], 99_000);
        assert_eq!(some.stage(Stage::Queue).count(), 2 + 2 * SLOW_MAX as u64);
    }
}
