//! The metrics of the promise: how long requests take and where, what share of a minute was refused with 503, and how the
//! minutes stand with the agreements.

use std::fmt::Error;

use actors::latency::book::LatencyBook;
use actors::latency::{BUCKETS_US, Distribution};
use actors::services::Services;
use prometheus_client::encoding::{
    EncodeLabelSet, MetricEncoder, NativeHistogram, NativeHistogramBuckets, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use protocol::clock;
use protocol::stages::Stage;

use super::Families;
use super::native::{SCHEMA, Sparse};

pub(super) fn encode(families: &mut Families<'_>, services: &Services) -> Result<(), Error> {
    encode_requests(families, &services.latency)?;
    encode_stages(families, &services.latency)?;
    encode_minutes(families, services)
}

fn encode_requests(families: &mut Families<'_>, book: &LatencyBook) -> Result<(), Error> {
    let unit = Some(&Unit::Seconds);
    let help = "From the last byte of a request to its answer";
    let book = book.look();
    let mut metric =
        families
            .0
            .encode_descriptor("cinnabar_request_duration", help, unit, MetricType::Histogram)?;
    for (series, distribution) in book.total.series() {
        let labels = [
            ("operation", series.operation.name()),
            ("transport", series.transport.name()),
            ("algorithm", series.algorithm_name()),
            ("outcome", series.ending.name()),
        ];
        encode_distribution(&mut metric, &labels, distribution)?;
    }
    let longest = book.recent_max_us() as f64 / 1e6;
    drop(book);
    let help = "Longest request duration of the minute that runs and the one before it";
    families.gauge("cinnabar_request_duration_max", help, unit, longest)
}

fn encode_stages(families: &mut Families<'_>, book: &LatencyBook) -> Result<(), Error> {
    let all = {
        let book = book.look();
        Stage::ALL.map(|stage| (stage, book.total.stage(stage)))
    };
    let unit = Some(&Unit::Seconds);
    let help = "Time of signing calls in each stage";
    let mut metric =
        families
            .0
            .encode_descriptor("cinnabar_stage_duration", help, unit, MetricType::Histogram)?;
    for (stage, distribution) in &all {
        encode_distribution(&mut metric, &[("stage", stage.name())], distribution)?;
    }
    Ok(())
}

/// Classic buckets for every scraper, and native ones for those that ask in protobuf.
fn encode_distribution(
    metric: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    distribution: &Distribution,
) -> Result<(), Error> {
    let bounds = BUCKETS_US
        .iter()
        .map(|us| *us as f64 / 1e6)
        .chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(distribution.buckets).collect();
    let sparse = Sparse::of(&distribution.histogram);
    let none = NativeHistogramBuckets {
        spans: &[],
        deltas: &[],
    };
    let native = NativeHistogram {
        schema: SCHEMA,
        zero_threshold: f64::MIN_POSITIVE,
        zero_count: 0,
        negative: none,
        positive: NativeHistogramBuckets {
            spans: &sparse.spans,
            deltas: &sparse.deltas,
        },
        created: None,
    };
    metric
        .encode_family(labels)?
        .encode_histogram_with_native::<NoLabelSet>(
            distribution.sum_ns as f64 / 1e9,
            distribution.count(),
            &buckets,
            None,
            native,
        )
}

fn encode_minutes(families: &mut Families<'_>, services: &Services) -> Result<(), Error> {
    let judged = services.minutes.look();
    families.counter(
        "cinnabar_promise_requests",
        "Production requests that count for the agreements",
        judged.requests.asked,
    )?;
    families.counter(
        "cinnabar_promise_failed",
        "Of those, the ones without a normal response: 5xx, pending, or later than 3 s",
        judged.requests.asked - judged.requests.normal,
    )?;
    families.gauge(
        "cinnabar_minute_busy_ratio",
        "Share of the last full minute's requests that were refused with 503",
        None,
        judged.busy_ratio,
    )?;
    families.counter(
        "cinnabar_capacity_extending_seconds",
        "Seconds in which capacity was being extended, to the second",
        judged.extending_seconds,
    )?;
    let help = "Verdicts on the minutes since the start, by agreement";
    let mut metric =
        families
            .0
            .encode_descriptor("cinnabar_sla_verdicts", help, None, MetricType::Counter)?;
    for policy in &judged.policies {
        for (verdict, count) in [
            ("available", policy.available),
            ("unavailable", policy.unavailable),
        ] {
            let labels = [("policy", &*policy.name), ("verdict", verdict)];
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    drop(judged);
    let extending = services.is_extending(clock::monotonic());
    families.gauge(
        "cinnabar_capacity_extending",
        "1 while capacity is being extended; the average may rise then, the maximum may not",
        None,
        f64::from(u8::from(extending)),
    )
}
