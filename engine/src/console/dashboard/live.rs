//! Keeps the last five minutes and hands each second out to whoever looks. It is written down once, however many look; who
//! reads too slowly misses seconds, and costs no memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actors::latency::Recorded;
use actors::minutes::judged::LOAD_BEATS;
use actors::services::Services;
use parking_lot::Mutex;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::TenantRow;
use serde::Serialize;
use sla::minute::{Tally, UserId};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::frame::{Counters, DeviceView, Gauges, Now, Point, TenantView, Ticker, spread, stages};
use super::month;
use crate::admin::http::not_ready;

/// Seconds kept for those who come later.
const KEPT: usize = 300;
/// Who may look at once.
const VIEWERS_MAX: usize = 32;
/// Seconds that wait for a slow reader, for all readers together.
const WAITING_MAX: usize = 8;
/// Tenants shown, by load.
const TENANTS_MAX: usize = 10;
/// How long after a minute the month is judged again while somebody looks: its last answers may be three seconds late, and its
/// record is written two seconds after them.
const MINUTE_SETTLED_MS: u64 = 7_000;

/// A second as JSON.
#[derive(Debug)]
pub(super) struct Second {
    pub(super) whole: String,
    pub(super) without_tenants: String,
}

/// What viewers are sent.
#[derive(Clone, Debug)]
pub(super) enum News {
    Second(Arc<Second>),
    Month(Arc<str>),
}

#[derive(Default)]
struct Kept {
    points: VecDeque<Point>,
    month: Option<Arc<str>>,
}

/// The dashboard's side of a running engine.
pub(crate) struct Live {
    services: Arc<Services>,
    news: Sender<News>,
    kept: Mutex<Kept>,
    places: Arc<Semaphore>,
    /// Somebody came, and may need the month.
    came: Notify,
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    now: &'a Now,
    tenants: Vec<TenantView>,
}

fn unwritable(error: serde_json::Error) -> Refusal {
    Refusal::new(Code::Internal, error.to_string())
}

impl Live {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            news: broadcast::channel(WAITING_MAX).0,
            kept: Mutex::default(),
            places: Arc::new(Semaphore::new(VIEWERS_MAX)),
            came: Notify::new(),
        }
    }

    /// A place among the viewers.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let full = |_| {
            let text = format!("{VIEWERS_MAX} dashboards are open; close one");
            Refusal::new(Code::Overloaded, text).retry_after_ms(10_000)
        };
        Arc::clone(&self.places).try_acquire_owned().map_err(full)
    }

    pub(super) fn subscribe(&self) -> Receiver<News> {
        let receiver = self.news.subscribe();
        self.came.notify_one();
        receiver
    }

    /// The last minutes as JSON.
    pub(super) fn history(&self) -> Result<String, Refusal> {
        serde_json::to_string(&self.kept.lock().points).map_err(unwritable)
    }

    pub(super) fn month(&self) -> Option<Arc<str>> {
        self.kept.lock().month.clone()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.services.closed().is_some()
    }

    /// Follows the seconds for as long as the engine lives.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut seconds = self.services.latency.seconds();
        let mut ticker = Ticker::default();
        while seconds.changed().await.is_ok() {
            let second = Arc::clone(&seconds.borrow_and_update());
            match self.second(&mut ticker, &second) {
                // Nobody may be there to see it.
                Ok(second) => drop(self.news.send(News::Second(Arc::new(second)))),
                Err(refusal) => tracing::error!(%refusal, "a second of the dashboard was not written"),
            }
        }
    }

    /// Judges the month once a minute while somebody looks.
    pub(crate) async fn follow_month(self: Arc<Self>) {
        loop {
            self.came.notified().await;
            while self.news.receiver_count() > 0 {
                self.judge().await;
                tokio::time::sleep(until_next_minute(clock::wall())).await;
            }
        }
    }

    async fn judge(self: &Arc<Self>) {
        let services = Arc::clone(&self.services);
        let judged = tokio::task::spawn_blocking(move || month::judged(&services, clock::wall())).await;
        match judged {
            Ok(Ok(text)) => {
                let month: Arc<str> = text.into();
                self.kept.lock().month = Some(Arc::clone(&month));
                drop(self.news.send(News::Month(month)));
            }
            Ok(Err(refusal)) => tracing::warn!(%refusal, "the month cannot be shown"),
            Err(error) => tracing::error!(%error, "judging the month ended early"),
        }
    }

    fn second(&self, ticker: &mut Ticker, second: &Recorded) -> Result<Second, Refusal> {
        let services = &self.services;
        let extending = services.is_extending(clock::monotonic());
        let point = ticker.tick(clock::wall(), second, counters(services), extending);
        self.keep(point);
        if self.news.receiver_count() == 0 {
            return Ok(Second {
                whole: String::new(),
                without_tenants: String::new(),
            });
        }
        let recent = services.latency.look().recent();
        let now = Now {
            point,
            gauges: gauges(services),
            stages: stages(&recent),
            spread: spread(&recent),
            refusals: ticker.refusals(),
            devices: devices(services),
        };
        let tenants = tenants(services);
        Ok(Second {
            whole: serde_json::to_string(&Whole { now: &now, tenants }).map_err(unwritable)?,
            without_tenants: serde_json::to_string(&now).map_err(unwritable)?,
        })
    }

    fn keep(&self, point: Point) {
        let points = &mut self.kept.lock().points;
        if points.len() == KEPT {
            points.pop_front();
        }
        points.push_back(point);
    }
}

/// Until the minute that is running is over, and settled.
fn until_next_minute(now: UnixMillis) -> Duration {
    let into = now.0.saturating_sub(MINUTE_SETTLED_MS) % 60_000;
    Duration::from_millis(60_000 - into)
}

fn counters(services: &Services) -> Counters {
    let mut counters = Counters::default();
    for core in services.cores.iter() {
        counters.signatures += core.stats.signatures.load(Ordering::Relaxed);
        counters.answered += core.stats.answered.load(Ordering::Relaxed);
        for (code, count) in core.stats.refusals().filter(|(_, count)| *count > 0) {
            *counters.refused.entry(code.name()).or_default() += count;
        }
    }
    counters
}

fn gauges(services: &Services) -> Gauges {
    let audit_stopped = |audit: &actors::audit::Audit| audit.state().fault().is_some();
    Gauges {
        not_ready: not_ready(services, clock::wall().0),
        maintenance: services.circumstances.maintenance.load(Ordering::Acquire),
        storage_full: services.store.is_full(),
        audit_stopped: services.audit.get().is_some_and(audit_stopped),
        differences: services.reconciled.differences.load(Ordering::Relaxed),
        in_flight: services.in_flight(),
        journal_backlog: services.store.backlog(),
        lanes: services.pool.lanes(),
        lane_queue: services.pool.waiting(),
        busy_ratio: services.minutes.look().busy_ratio,
    }
}

fn devices(services: &Services) -> Vec<DeviceView> {
    let view = |device: &hsm_pool::pool::DeviceView| {
        let state = &device.state;
        DeviceView {
            name: device.name.to_string(),
            state: state.state().name(),
            reason: state.reason(),
            share: state.share(),
            up: state.workers_up(),
            wanted: device.processes,
            waiting: device.waiting,
            in_flight: state.in_flight.load(Ordering::Relaxed),
            limit: state.limit.load(Ordering::Relaxed),
            signed: state.signed.load(Ordering::Relaxed),
            faults: state.faults.load(Ordering::Relaxed),
            call_us: state.service_us() as u64,
        }
    };
    services.pool.devices().iter().map(view).collect()
}

/// The tenants with most requests, those with most first.
fn tenants(services: &Services) -> Vec<TenantView> {
    let load = services.minutes.look().load();
    let known = services.store.directory().tenants();
    let view = |(row, tally): (TenantRow, Tally)| {
        let tenant = known.iter().find(|tenant| tenant.row == row)?;
        Some(TenantView {
            name: tenant.name.to_string(),
            rate: tally.asked as f64 / LOAD_BEATS as f64,
            normal: tally.normal as f64 / tally.asked.max(1) as f64,
        })
    };
    busiest(load).into_iter().filter_map(view).collect()
}

fn busiest(load: BTreeMap<UserId, Tally>) -> Vec<(TenantRow, Tally)> {
    let mut all: Vec<_> = load
        .into_iter()
        .map(|(UserId(row), tally)| (TenantRow(row), tally))
        .collect();
    all.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.asked));
    all.truncate(TENANTS_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_tenants_are_shown_and_no_more_than_fit() {
        let tally = |asked| Tally { asked, normal: asked };
        let load = (1..=20).map(|user| (UserId(user), tally(u64::from(user) % 7)));
        let shown = busiest(load.collect());
        assert_eq!(shown.len(), TENANTS_MAX);
        assert_eq!((shown[0].0, shown[0].1), (TenantRow(6), tally(6)));
        assert!(shown.is_sorted_by_key(|(_, tally)| std::cmp::Reverse(tally.asked)));
    }

    #[test]
    fn a_minute_is_judged_once_it_is_settled() {
        let seconds = |at: u64| until_next_minute(UnixMillis(at * 1_000)).as_secs();
        assert_eq!((seconds(600), seconds(606), seconds(607)), (7, 1, 60));
        assert_eq!(seconds(650), 17);
    }

    #[test]
    fn a_slow_reader_misses_seconds_and_memory_does_not_grow() {
        let (sender, mut slow) = broadcast::channel::<News>(WAITING_MAX);
        for number in 0..1_000 {
            let month: Arc<str> = number.to_string().into();
            sender.send(News::Month(month)).unwrap();
        }
        assert!(matches!(
            slow.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(missed)) if missed >= 1_000 - 2 * WAITING_MAX as u64
        ));
        let Ok(News::Month(next)) = slow.try_recv() else {
            panic!("the latest seconds are still there")
        };
        assert!(next.parse::<u64>().unwrap() >= 1_000 - 2 * WAITING_MAX as u64);
    }
}
