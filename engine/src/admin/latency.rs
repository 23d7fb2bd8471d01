//! Operators' questions about latency: where the time went, and which requests took too long.

use std::collections::BTreeMap;
use std::time::Instant;

use actors::latency::book::LatencyBook;
use actors::latency::{Distribution, Example, Recorded};
use actors::services::Services;
use protocol::stages::Stage;
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(tag = "latency", rename_all = "kebab-case")]
pub(crate) enum LatencyOrder {
    /// Stages of the signing calls.
    Stages,
    /// Requests that took longer than 100 ms.
    Slow,
}

/// Percentiles, in microseconds.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    count: u64,
    average_us: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Percentiles {
    fn of(distribution: &Distribution) -> Self {
        let count = distribution.count();
        let at = |quantile| distribution.histogram.value_at_quantile(quantile);
        Self {
            count,
            average_us: distribution.sum_ns as f64 / 1e3 / count.max(1) as f64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: distribution.max_us,
        }
    }
}

/// Of some time: whole requests by operation, transport, algorithm and outcome; stages by algorithm, `all` among them.
#[derive(Debug, Serialize)]
pub(crate) struct Breakdown {
    requests: Vec<Request>,
    stages: BTreeMap<String, BTreeMap<&'static str, Percentiles>>,
}

#[derive(Debug, Serialize)]
struct Request {
    operation: &'static str,
    transport: &'static str,
    algorithm: &'static str,
    outcome: &'static str,
    #[serde(flatten)]
    percentiles: Percentiles,
}

fn breakdown(recorded: &Recorded) -> Breakdown {
    let requests = recorded.series().iter().map(|(series, distribution)| Request {
        operation: series.operation.name(),
        transport: series.transport.name(),
        algorithm: series.algorithm_name(),
        outcome: series.ending.name(),
        percentiles: Percentiles::of(distribution),
    });
    let mut stages = BTreeMap::new();
    for (algorithm, of_stages) in recorded.stages() {
        let named = Stage::ALL
            .iter()
            .zip(&**of_stages)
            .map(|(stage, distribution)| (stage.name(), Percentiles::of(distribution)));
        stages.insert(algorithm.name().to_owned(), named.collect());
    }
    let all = Stage::ALL.map(|stage| (stage.name(), Percentiles::of(&recorded.stage(stage))));
    stages.insert("all".to_owned(), all.into());
    Breakdown {
        requests: requests.filter(|request| request.percentiles.count > 0).collect(),
        stages,
    }
}

/// The last one to two minutes, and everything since the engine started.
#[derive(Debug, Serialize)]
pub(crate) struct Breakdowns {
    /// Capacity is being extended: the average may rise, the maximum may not.
    extending: bool,
    /// Seconds since the start in which it was.
    extending_seconds: u64,
    recent: Breakdown,
    since_start: Breakdown,
}

pub(crate) fn stages(services: &Services, now: Instant) -> Breakdowns {
    let extending_seconds = services.minutes.look().extending_seconds;
    let book = services.latency.look();
    Breakdowns {
        extending: services.is_extending(now),
        extending_seconds,
        recent: breakdown(&book.recent()),
        since_start: breakdown(&book.total),
    }
}

/// The latest last.
pub(crate) fn slow(book: &LatencyBook) -> Vec<Example> {
    book.look().slow.iter().cloned().collect()
}
