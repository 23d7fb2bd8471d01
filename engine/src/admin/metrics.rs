//! /metrics, in the form a scraper asks for. Counters live where things happen; this file only reads and names them.
//! No tenant, app or credential appears in a name or a label.

mod exposition;
mod latency;
mod native;
pub(crate) mod outgoing;

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::keeper::KeeperCounters;
use actors::services::Services;
use exposition::{Form, to_prometheus};
use hsm_pool::device::DeviceState;
use hsm_pool::device::life::State;
use hsm_pool::device::state;
use hsm_pool::pool::DeviceView;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, prometheus_protobuf, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use rustix::time::{ClockId, clock_gettime};

/// The registry and what it reads.
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(services: Arc<Services>, keeper: Arc<KeeperCounters>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(EngineCollector { services, keeper }));
        Self(registry)
    }

    /// Shows something besides.
    pub(crate) fn with(mut self, collector: impl Collector) -> Self {
        self.0.register_collector(Box::new(collector));
        self
    }

    /// In the form that an Accept header asks for: its media type, and the bytes.
    pub(crate) fn accepted(&self, accept: Option<&str>) -> Result<(&'static str, Vec<u8>), MetricsError> {
        let form = Form::accepted(accept);
        let bytes = match form {
            Form::OpenMetrics => self.text()?.into_bytes(),
            Form::Prometheus => to_prometheus(&self.text()?).into_bytes(),
            Form::Protobuf => prometheus_protobuf::encode_to_vec(&self.0).map_err(|_| MetricsError)?,
        };
        Ok((form.content_type(), bytes))
    }

    fn text(&self) -> Result<String, MetricsError> {
        let mut out = String::new();
        text::encode(&mut out, &self.0).map_err(|Error| MetricsError)?;
        Ok(out)
    }
}

/// The metrics could not be written down. Half of them would look like all of them.
#[derive(Debug, thiserror::Error)]
#[error("the metrics could not be encoded")]
pub(crate) struct MetricsError;

#[derive(Debug)]
struct EngineCollector {
    services: Arc<Services>,
    keeper: Arc<KeeperCounters>,
}

type Labels<'a> = [(&'a str, &'a str); 1];

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Writes families one by one.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Labels<'l>, u64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> Result<(), Error> {
        self.0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, f64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

impl Collector for EngineCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        self.encode_requests(&mut families)?;
        latency::encode(&mut families, &self.services)?;
        self.encode_pool(&mut families)?;
        self.encode_state(&mut families)?;
        encode_process(&mut families)
    }
}

impl EngineCollector {
    fn sum(&self, value: impl Fn(&actors::stats::Stats) -> u64) -> u64 {
        self.services.cores.iter().map(|core| value(&core.stats)).sum()
    }

    fn encode_requests(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let signatures = self.sum(|stats| load(&stats.signatures));
        families.counter(
            "cinnabar_signatures",
            "Signatures released, replays included",
            signatures,
        )?;
        let answered = self.sum(|stats| load(&stats.answered));
        families.counter(
            "cinnabar_requests_answered",
            "Requests answered with a result",
            answered,
        )?;
        let mut refused = std::collections::BTreeMap::new();
        for (code, count) in self.services.cores.iter().flat_map(|core| core.stats.refusals()) {
            *refused.entry(code).or_insert(0) += count;
        }
        let refused = refused
            .into_iter()
            .map(|(code, count)| ([("code", code.name())], count));
        families.counters(
            "cinnabar_requests_refused",
            "Requests refused or failed, by code",
            refused,
        )
    }

    fn encode_pool(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let pool = &self.services.pool;
        let lanes = pool.counters();
        families.counter(
            "cinnabar_lane_signatures",
            "Signatures made by software lanes",
            load(&lanes.signed),
        )?;
        families.counter(
            "cinnabar_lane_signatures_together",
            "Of those, made up to eight at a time",
            load(&lanes.together),
        )?;
        families.counter(
            "cinnabar_lane_verified",
            "Of those, verified before release",
            load(&lanes.verified),
        )?;
        families.counter(
            "cinnabar_lane_failures",
            "Jobs of software lanes without a signature",
            load(&lanes.failed),
        )?;
        families.gauge(
            "cinnabar_lane_queue",
            "Jobs waiting for software lanes",
            None,
            pool.waiting() as f64,
        )?;
        families.gauge("cinnabar_lanes", "Software lanes", None, pool.lanes() as f64)?;
        encode_devices(families, &pool.devices())
    }

    fn encode_state(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let services = &self.services;
        families.gauge(
            "cinnabar_requests_in_flight",
            "Requests in flight",
            None,
            services.in_flight() as f64,
        )?;
        let backlog = services.store.backlog() as f64;
        families.gauge(
            "cinnabar_journal_backlog",
            "Batches waiting for the committing thread",
            None,
            backlog,
        )?;
        let keys = services.store.index().len_in_memory() as f64;
        families.gauge(
            "cinnabar_keys_in_memory",
            "Idempotency keys held in memory",
            None,
            keys,
        )?;
        let full = f64::from(u8::from(services.store.is_full()));
        families.gauge("cinnabar_storage_full", "1 while the disk is full", None, full)?;
        let reconciled = &services.reconciled;
        families.gauge(
            "cinnabar_reconciliation_differences",
            "Differences between journal, ledger and counters, found by the last reconciliation",
            None,
            load(&reconciled.differences) as f64,
        )?;
        families.gauge(
            "cinnabar_reconciliation_time",
            "When the last reconciliation was, in seconds since 1970; 0 before the first",
            Some(&Unit::Seconds),
            load(&reconciled.at_ms) as f64 / 1e3,
        )?;
        let (leaves, stopped) = services.audit.get().map_or((0, false), |audit| {
            (audit.state().size(), audit.state().fault().is_some())
        });
        families.gauge(
            "cinnabar_audit_leaves",
            "Leaves of the audit log under its last checkpoint",
            None,
            leaves as f64,
        )?;
        families.gauge(
            "cinnabar_audit_stopped",
            "1 while the audit log does not grow",
            None,
            f64::from(u8::from(stopped)),
        )?;
        families.counter(
            "cinnabar_actor_restarts",
            "Actors started anew",
            load(&self.keeper.actors),
        )?;
        families.counter(
            "cinnabar_core_restarts",
            "Cores started anew",
            load(&self.keeper.cores),
        )
    }
}

type DeviceCounter = (&'static str, &'static str, fn(&DeviceState) -> &AtomicU64);

const DEVICE_COUNTERS: [DeviceCounter; 12] = [
    ("cinnabar_device_signatures", "Signatures by device", |state| {
        &state.signed
    }),
    (
        "cinnabar_device_refused",
        "Calls that failed for the request's fault",
        |state| &state.refused,
    ),
    (
        "cinnabar_device_faults",
        "Calls that failed for the device's fault",
        |state| &state.faults,
    ),
    (
        "cinnabar_device_rejected",
        "Signatures that did not verify and were not released",
        |state| &state.rejected,
    ),
    (
        "cinnabar_device_expired",
        "Jobs whose deadline passed while they waited",
        |state| &state.expired,
    ),
    (
        "cinnabar_device_failovers",
        "Jobs given to another device after a fault",
        |state| &state.failovers,
    ),
    ("cinnabar_device_kills", "Processes killed for hanging", |state| {
        &state.kills
    }),
    ("cinnabar_device_starts", "Processes started", |state| {
        &state.starts
    }),
    (
        "cinnabar_device_probes",
        "Probe signatures that verified",
        |state| &state.probes,
    ),
    (
        "cinnabar_device_probes_failed",
        "Probe signatures that did not come",
        |state| &state.probes_failed,
    ),
    (
        "cinnabar_device_unwrap_hits",
        "Wrapped keys that were there already",
        |state| &state.cache_hits,
    ),
    (
        "cinnabar_device_unwrap_misses",
        "Wrapped keys that had to be unwrapped",
        |state| &state.cache_misses,
    ),
];

type DeviceGauge = (&'static str, &'static str, fn(&DeviceView) -> f64);

const DEVICE_GAUGES: [DeviceGauge; 6] = [
    ("cinnabar_device_workers", "Processes that serve", |view| {
        view.state.workers_up() as f64
    }),
    ("cinnabar_device_queue", "Jobs waiting for a device", |view| {
        view.waiting as f64
    }),
    ("cinnabar_device_in_flight", "Calls in flight", |view| {
        view.state.in_flight.load(Ordering::Relaxed) as f64
    }),
    (
        "cinnabar_device_in_flight_limit",
        "Calls it may have in flight now",
        |view| f64::from(view.state.limit.load(Ordering::Relaxed)),
    ),
    (
        "cinnabar_device_share_percent",
        "Part of its share of jobs that it may take",
        |view| f64::from(view.state.share()),
    ),
    (
        "cinnabar_device_pin_latched",
        "1 while its PIN is refused and nobody has resumed it",
        |view| f64::from(u8::from(view.state.is_latched())),
    ),
];

const DEVICE_STATES: [State; 4] = [State::Pending, State::Active, State::Draining, State::Quarantined];

fn encode_devices(families: &mut Families<'_>, devices: &[DeviceView]) -> Result<(), Error> {
    for (name, help, value) in DEVICE_COUNTERS {
        let values = devices
            .iter()
            .map(|view| ([("device", &*view.name)], load(value(&view.state))));
        families.counters(name, help, values)?;
    }
    for (name, help, value) in DEVICE_GAUGES {
        families.gauges(
            name,
            help,
            devices
                .iter()
                .map(|view| ([("device", &*view.name)], value(view))),
        )?;
    }
    let states = devices.iter().flat_map(|view| {
        let now = view.state.state();
        DEVICE_STATES.map(|state| {
            (
                [("device", &*view.name), ("state", state.name())],
                f64::from(u8::from(state == now)),
            )
        })
    });
    families.gauges("cinnabar_device_state", "1 for the state it is in", states)?;
    let unit = Some(&Unit::Seconds);
    let help = "Time of a call inside the device";
    let mut metric =
        families
            .0
            .encode_descriptor("cinnabar_device_call", help, unit, MetricType::Histogram)?;
    for view in devices {
        let (counts, sum_us) = view.state.service_times();
        let bounds = state::BUCKETS_US
            .iter()
            .map(|us| *us as f64 / 1e6)
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        metric
            .encode_family(&[("device", &*view.name)])?
            .encode_histogram::<NoLabelSet>(sum_us as f64 / 1e6, counts.iter().sum(), &buckets, None)?;
    }
    Ok(())
}

fn encode_process(families: &mut Families<'_>) -> Result<(), Error> {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let unit = Some(&Unit::Seconds);
    let mut metric = families.0.encode_descriptor(
        "process_cpu",
        "CPU time of this process",
        unit,
        MetricType::Counter,
    )?;
    metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
    let memory = resident_bytes().unwrap_or(0.0);
    families.gauge(
        "process_resident_memory",
        "Resident memory of this process",
        Some(&Unit::Bytes),
        memory,
    )
}

/// The second number in /proc/self/statm is pages.
fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as f64)
}
