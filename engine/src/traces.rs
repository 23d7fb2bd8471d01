//! Traces for an OpenTelemetry collector (OTLP over HTTP, protobuf), where one is set: of slow requests, and of one in so
//! many. A trace is made after the request has been answered, from its stage times, so that it costs the request nothing:
//! a span for the request and one for each stage. Traces that a caller has begun are not continued.
//!
//! A collector that does not answer costs traces and nothing else.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use actors::latency::{Ending, Example, Recorded};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::stages::Stage;

/// Seconds' worth of traces that may wait for the collector.
const WAITING_MAX: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the thread that sends traces.
#[derive(Debug)]
pub(crate) struct Traces(Sender<Vec<Example>>);

impl Traces {
    /// Starts it. `url`: where the collector takes traces, `http://HOST:PORT/v1/traces`.
    pub(crate) fn start(url: &str) -> Result<Self, Refusal> {
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::new(Code::Usage, format!("configuration: traces '{url}': {error}"))
        };
        let exporter = exporter(url).map_err(|error| failed(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let (sender, waiting) = bounded(WAITING_MAX);
        std::thread::Builder::new()
            .name("traces".into())
            .spawn(move || runtime.block_on(send(&exporter, &waiting)))
            .map_err(|error| failed(&error))?;
        Ok(Self(sender))
    }

    /// Hands over what was recorded in a second. When the collector is too slow for it, it is dropped.
    pub(crate) fn offer(&self, second: &Recorded) {
        let examples: Vec<Example> = second.slow().iter().chain(second.sampled()).cloned().collect();
        if examples.is_empty() {
            return;
        }
        match self.0.try_send(examples) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::debug!("the collector is too slow; traces are dropped"),
            Err(TrySendError::Disconnected(_)) => tracing::debug!("the thread that sends traces has ended"),
        }
    }
}

fn exporter(url: &str) -> Result<SpanExporter, opentelemetry_otlp::ExporterBuildError> {
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(HyperClient::with_default_connector(PATIENCE, None))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(PATIENCE)
        .with_endpoint(url)
        .build()?;
    let attributes = [
        KeyValue::new("service.name", "cinnabar"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    exporter.set_resource(&Resource::builder_empty().with_attributes(attributes).build());
    Ok(exporter)
}

async fn send(exporter: &SpanExporter, waiting: &Receiver<Vec<Example>>) {
    let mut failed = false;
    while let Ok(examples) = waiting.recv() {
        let spans = examples
            .iter()
            .flat_map(|example| spans(example, random()))
            .collect();
        match exporter.export(spans).await {
            Ok(()) => failed = false,
            Err(error) => {
                // Once for each time that it breaks off.
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(%error, "the collector takes no traces");
                }
            }
        }
    }
}

/// Random bits for a trace and its spans. Without randomness the collector takes them for one.
fn random() -> [u8; 24] {
    let mut bytes = [0; 24];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

/// The spans of one request: the whole, then its stages one behind the other.
fn spans(example: &Example, random: [u8; 24]) -> Vec<SpanData> {
    let (trace, first) = random.split_at(16);
    let trace = TraceId::from_bytes(std::array::from_fn(|at| trace[at]));
    let first = u64::from_be_bytes(std::array::from_fn(|at| first[at])).max(1);
    let id = |number: u64| SpanId::from(first.wrapping_add(number).max(1));
    let end = UnixMillis(example.at).system_time();
    let start = end - Duration::from_micros(example.total_us);
    let whole = Span {
        name: example.operation.name().into(),
        parent: SpanId::INVALID,
        from: start,
        to: end,
        kind: SpanKind::Server,
    };
    let mut all = vec![whole.data(trace, id(0), attributes(example), status(example.ending))];
    let mut from = start;
    let stages = Stage::ALL.iter().zip(1..);
    for (stage, number) in stages {
        let Some(us) = example.stages_us.get(stage.name()) else {
            break;
        };
        let to = (from + Duration::from_micros(*us)).min(end);
        let span = Span {
            name: stage.name().into(),
            parent: id(0),
            from,
            to,
            kind: SpanKind::Internal,
        };
        all.push(span.data(trace, id(number), Vec::new(), Status::Unset));
        from = to;
    }
    all
}

struct Span {
    name: Cow<'static, str>,
    parent: SpanId,
    from: SystemTime,
    to: SystemTime,
    kind: SpanKind,
}

impl Span {
    fn data(self, trace: TraceId, id: SpanId, attributes: Vec<KeyValue>, status: Status) -> SpanData {
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: self.parent,
            parent_span_is_remote: false,
            span_kind: self.kind,
            name: self.name,
            start_time: self.from,
            end_time: self.to,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("cinnabar").build(),
        }
    }
}

/// What is known of it; nobody's name but the app's.
fn attributes(example: &Example) -> Vec<KeyValue> {
    let items = i64::try_from(example.items).unwrap_or(i64::MAX);
    let mut all = vec![
        KeyValue::new("cinnabar.app", example.app.to_string()),
        KeyValue::new("cinnabar.transport", example.transport.name()),
        KeyValue::new("cinnabar.outcome", example.ending.name()),
        KeyValue::new("cinnabar.items", items),
        KeyValue::new("cinnabar.core", i64::from(example.core)),
    ];
    all.extend(
        example
            .algorithm
            .map(|name| KeyValue::new("cinnabar.algorithm", name)),
    );
    all
}

/// A refusal for the caller's fault is no error of a server (OpenTelemetry semantic conventions for spans, "Status").
fn status(ending: Ending) -> Status {
    match ending {
        Ending::Ok | Ending::Caller | Ending::Throttled => Status::Unset,
        Ending::Busy | Ending::Pending | Ending::Failed => Status::error(ending.name()),
    }
}

#[cfg(test)]
mod tests {
    use actors::latency::{Operation, Transport};

    use super::*;

    #[test]
    fn a_trace_is_a_request_with_its_stages_one_behind_the_other() {
        let example = Example {
            at: 1_000_000,
            core: 1,
            app: "erp".parse().unwrap(),
            operation: Operation::Sign,
            transport: Transport::Quic,
            algorithm: Some("ed25519"),
            items: 1,
            ending: Ending::Busy,
            total_us: 60_000,
            stages_us: [("decode", 10), ("gate", 20), ("queue", 59_970)].into(),
        };
        let all = spans(&example, [7; 24]);
        let names: Vec<&str> = all.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["sign", "decode", "gate", "queue"]);
        let us = |span: &SpanData| span.end_time.duration_since(span.start_time).unwrap().as_micros();
        assert_eq!(all.iter().map(us).collect::<Vec<_>>(), [60_000, 10, 20, 59_970]);
        assert_eq!(all[3].end_time, all[0].end_time);
        assert_eq!(all[1].parent_span_id, all[0].span_context.span_id());
        assert!(
            all[1..]
                .windows(2)
                .all(|two| two[0].end_time == two[1].start_time)
        );
        assert!(all[0].span_context.is_valid());
        assert_eq!(all[0].status, Status::error("busy"));
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let refusal = Traces::start("not an address").unwrap_err();
        assert_eq!(refusal.code, Code::Usage);
        assert!(refusal.message.contains("'not an address'"), "{refusal}");
    }
}
