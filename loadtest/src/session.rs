//! One use of the tool: the threads that send, with connections that last over every load it sends, and the figures that
//! are read beside them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use protocol::client::{Client, Profile, Transport};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::message::CredentialInfo;
use tokio::sync::mpsc;

use crate::args::{Common, Share};
use crate::collect::Collector;
use crate::files;
use crate::fleet::LanePlan;
use crate::hlog::HlogWriter;
use crate::live::Live;
use crate::mix::Mix;
use crate::report::{Facts, Metered, Report};
use crate::schedule::Schedule;
use crate::server::Reading;
use crate::tally::Totals;
use crate::work::Work;
use crate::worker::{self, Crew, Lines, Loop, News, Orders};

/// How often the view moves.
const LOOK: Duration = Duration::from_millis(100);
/// News that may wait; a thread that finds it full keeps its figures for the next second.
const NEWS_MAX: usize = 1024;
/// What the threads need to get going.
const HEAD_START: Duration = Duration::from_millis(50);
/// How long the questions before and after a load may take.
const ASK_PATIENCE: Duration = Duration::from_secs(10);
/// A load that is not over this long after its time has lost a thread.
const OVERDUE: Duration = Duration::from_secs(30);

/// Requests of one load, at most: ten thousand million, which no run lasts for.
const NUMBERS_MAX: u64 = 10_000_000_000;

/// A load, and what it is called.
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) schedule: Schedule,
    /// Name and length in seconds of each phase.
    pub(crate) phases: Vec<(String, f64)>,
    pub(crate) share: Share,
    /// When to start, in seconds since 1970; `None`: now.
    pub(crate) start_at: Option<f64>,
}

/// The threads, and what they do together.
pub(crate) struct Session {
    orders: Vec<mpsc::Sender<Orders>>,
    news: Receiver<News>,
    threads: Vec<JoinHandle<()>>,
    labels: Vec<String>,
    profiles: Vec<(Arc<Profile>, Transport)>,
    admins: Vec<SocketAddr>,
    booked_before: Option<u64>,
    /// Loads sent so far.
    loads: u64,
    /// The first second, from `epoch`, that no load has told of.
    next_second: u64,
    /// Signatures received so far, warm-ups included.
    received: u64,
    /// When the first load began to count.
    epoch: Option<Instant>,
    grace: Duration,
    stop: Arc<AtomicBool>,
    log_wanted: Option<(PathBuf, String)>,
    log: Option<HlogWriter>,
}

impl Session {
    /// Asks the engine for the credentials, starts the threads, and waits until they are connected.
    pub(crate) fn open(common: &Common, mix: &Mix, stop: Arc<AtomicBool>) -> Result<Self, Refusal> {
        let profiles = with_transports(mix);
        let mut credentials = Vec::new();
        let mut booked = Some(0);
        for (profile, transport) in &profiles {
            let (list, signatures) = ask(profile, *transport)?;
            credentials.push(list);
            booked = booked.zip(signatures).map(|(sum, more)| sum + more);
        }
        let work = Arc::new(Work::new(mix, &credentials, common.verify_every)?);
        let labels = work.labels(mix);
        let crew = crew(common, mix, &profiles, work, Arc::clone(&stop));
        let (tell, news) = crossbeam_channel::bounded(NEWS_MAX);
        let mut session = Self {
            orders: Vec::new(),
            news,
            threads: Vec::new(),
            labels,
            admins: admins(&profiles),
            profiles,
            booked_before: booked,
            loads: 0,
            next_second: 0,
            received: 0,
            epoch: None,
            grace: common.grace,
            stop,
            log_wanted: None,
            log: None,
        };
        for index in 0..usize::from(common.threads) {
            let (orders, receive) = mpsc::channel(1);
            let lines = Lines {
                index,
                orders: receive,
                news: tell.clone(),
            };
            let crew = crew.clone();
            let thread = std::thread::Builder::new().name(format!("load-{index}"));
            let thread = thread.spawn(move || worker::live(crew, lines));
            session
                .threads
                .push(thread.map_err(|error| files::failed("thread", error))?);
            session.orders.push(orders);
        }
        session.wait_ready()?;
        Ok(session)
    }

    fn wait_ready(&self) -> Result<(), Refusal> {
        for _ in &self.orders {
            match self.news.recv_timeout(OVERDUE) {
                Ok(News::Failed(refusal)) => return Err(refusal),
                Ok(_) => {}
                Err(_) => return Err(Refusal::new(Code::Connection, "not connected within 30 s")),
            }
        }
        Ok(())
    }

    /// Writes the seconds of every load into a log from now on.
    pub(crate) fn log_to(&mut self, path: PathBuf, title: &str) {
        self.log_wanted = Some((path, title.to_owned()));
    }

    /// Sends a load and reports; what it is held to is up to the caller.
    pub(crate) fn send(&mut self, load: &Load, live: &mut Live) -> Result<Report, Refusal> {
        let warm_up = load.schedule.warm_up();
        let mut counted_from = start_time(load.start_at)? + warm_up;
        let epoch = *self.epoch.get_or_insert(counted_from);
        // A later load begins with a second of its own, so that no second belongs to two loads.
        let offset = whole_seconds(counted_from.saturating_duration_since(epoch)).max(self.next_second);
        counted_from = epoch + Duration::from_secs(offset);
        let start = counted_from - warm_up;
        let ahead = counted_from.saturating_duration_since(clock::monotonic());
        let started = clock::wall().system_time() + ahead;
        if let Some((path, title)) = self.log_wanted.take() {
            self.log = Some(HlogWriter::create(&path, &title, started)?);
        }
        live.begin(&load.name, warm_up + load.schedule.length());
        self.give_orders(load, start, counted_from)?;
        let mut watch = Watch {
            start,
            counted_from,
            until: counted_from + load.schedule.length() + self.grace + OVERDUE,
            collector: Collector::new(self.orders.len(), offset),
            totals: Totals::new(load.phases.len(), self.labels.len()),
            working: self.orders.len(),
            cpu: None,
        };
        while watch.working > 0 {
            self.watch(&mut watch, live)?;
        }
        self.loads += 1;
        self.next_second = watch
            .collector
            .timeline
            .last()
            .map_or(offset, |point| point.second + 1);
        self.received += watch.totals.warm_up_ok + watch.totals.all().ok;
        Ok(self.report(load, watch, started))
    }

    fn give_orders(&self, load: &Load, start: Instant, counted_from: Instant) -> Result<(), Refusal> {
        let threads = self.orders.len() as u64;
        for (index, line) in (0..).zip(&self.orders) {
            let Share { which, of } = load.share;
            let orders = Orders {
                departures: load.schedule.share(which + of * index, of * threads),
                first_number: self.loads * NUMBERS_MAX,
                start,
                counted_from,
                closed: load.schedule.is_closed().then(|| Loop {
                    first: index,
                    stride: threads,
                    end: counted_from + load.schedule.length(),
                }),
                phases: load.phases.len(),
                classes: self.labels.len(),
            };
            line.try_send(orders).map_err(|_| gone())?;
        }
        Ok(())
    }

    /// Takes one piece of news, or lets a little time pass.
    fn watch(&mut self, watch: &mut Watch, live: &mut Live) -> Result<(), Refusal> {
        let now = clock::monotonic();
        if now > watch.until {
            return Err(gone());
        }
        if watch.cpu.is_none() && now >= watch.counted_from {
            watch.cpu = Some(Reading::take(&self.admins));
        }
        live.tick(now.saturating_duration_since(watch.start));
        let patience = match watch.cpu {
            None => watch.counted_from.saturating_duration_since(now).min(LOOK),
            Some(_) => LOOK,
        };
        let (thread, interval, last) = match self.news.recv_timeout(patience) {
            Ok(News::Second(thread, interval)) => (thread, interval, false),
            Ok(News::Done(thread, interval, totals)) => {
                watch.working -= 1;
                watch.totals.merge(&totals);
                (thread, interval, true)
            }
            Ok(News::Failed(refusal)) => return Err(refusal),
            Ok(News::Ready) | Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(gone()),
        };
        let before = watch.collector.timeline.len();
        let whole = watch.collector.take(thread, interval, last);
        watch.collector.book(whole, self.log.as_mut())?;
        for point in &watch.collector.timeline[before..] {
            live.second(point);
        }
        Ok(())
    }

    fn report(&self, load: &Load, watch: Watch, started: SystemTime) -> Report {
        let interrupted = self.stop.load(Ordering::Relaxed);
        let lasted = clock::monotonic().saturating_duration_since(watch.counted_from);
        let length = if interrupted {
            lasted.min(load.schedule.length())
        } else {
            load.schedule.length()
        };
        let mut report =
            Report::of(&watch.totals, length).with_groups(&watch.totals, &load.phases, &self.labels);
        if let Some(before) = &watch.cpu {
            let after = Reading::take(&self.admins);
            (report.server_cpu_us, report.client_cpu_us) = after.per_signature(before, report.ok);
            report.extending_seconds = after.extending_since(before);
        }
        report.timeline = watch.collector.timeline;
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        report.run = Facts {
            started_unix_ms: u64::try_from(started.as_millis()).unwrap_or_default(),
            warm_up_seconds: load.schedule.warm_up().as_secs_f64(),
            threads: self.orders.len(),
            agents: 1,
            interrupted,
            ..Facts::default()
        };
        report
    }

    /// Ends the threads, and asks the engine what it has booked.
    pub(crate) fn close(mut self) -> Result<Option<Metered>, Refusal> {
        self.orders.clear();
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| Refusal::new(Code::Internal, "a thread of the load tool panicked"))?;
        }
        if let Some(log) = self.log.take() {
            log.finish()?;
        }
        let mut booked = self.booked_before.map(|_| 0);
        for (profile, transport) in &self.profiles {
            // An engine that is gone by now can still be reported on.
            let now = ask(profile, *transport)
                .ok()
                .and_then(|(_, signatures)| signatures);
            booked = booked.zip(now).map(|(sum, more)| sum + more);
        }
        let metered = booked.zip(self.booked_before).map(|(after, before)| Metered {
            booked: after.saturating_sub(before),
            received: self.received,
        });
        Ok(metered)
    }
}

/// A load under way.
struct Watch {
    start: Instant,
    counted_from: Instant,
    until: Instant,
    collector: Collector,
    totals: Totals,
    working: usize,
    cpu: Option<Reading>,
}

fn gone() -> Refusal {
    Refusal::new(Code::Internal, "a thread of the load tool is gone")
}

/// Seconds, rounded up.
const fn whole_seconds(length: Duration) -> u64 {
    length.as_secs() + (length.subsec_nanos() > 0) as u64
}

/// The monotonic time of a wall-clock start.
fn start_time(start_at: Option<f64>) -> Result<Instant, Refusal> {
    let now = clock::monotonic();
    let Some(seconds) = start_at else {
        return Ok(now + HEAD_START);
    };
    let ahead = seconds - clock::wall().0 as f64 / 1000.0;
    if !(0.0..86_400.0).contains(&ahead) {
        let text = format!("--start-at {seconds} is not within the next day");
        return Err(Refusal::new(Code::Usage, text));
    }
    Ok(now + Duration::from_secs_f64(ahead))
}

/// Each profile, with a transport that its classes use.
fn with_transports(mix: &Mix) -> Vec<(Arc<Profile>, Transport)> {
    let transport = |at| {
        let class = mix.classes.iter().find(|class| class.profile == at);
        class.map_or(Transport::Quic, |class| class.transport)
    };
    let profiles = mix.profiles.iter().enumerate();
    profiles
        .map(|(at, profile)| (Arc::new(profile.clone()), transport(at)))
        .collect()
}

/// Each engine's admin listener once; none of them when one is unknown, because half a sum is no figure.
fn admins(profiles: &[(Arc<Profile>, Transport)]) -> Vec<SocketAddr> {
    let all: Option<Vec<_>> = profiles.iter().map(|(profile, _)| profile.admin).collect();
    let mut all = all.unwrap_or_default();
    all.sort_unstable();
    all.dedup();
    all
}

fn crew(
    common: &Common,
    mix: &Mix,
    profiles: &[(Arc<Profile>, Transport)],
    work: Arc<Work>,
    stop: Arc<AtomicBool>,
) -> Crew {
    let mut keys: Vec<(usize, Transport)> = Vec::new();
    let mut lane_of = Vec::new();
    for class in &mix.classes {
        let key = (class.profile, class.transport);
        let lane = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        });
        lane_of.push(lane);
    }
    let lane = |&(profile, transport): &(usize, Transport)| LanePlan {
        profile: Arc::clone(&profiles[profile].0),
        transport,
        connections: common.connections(transport),
    };
    Crew {
        work,
        lanes: keys.iter().map(lane).collect(),
        lane_of,
        churn: common.churn / f64::from(common.threads),
        open_max: common.open_max.div_ceil(u32::from(common.threads)) as usize,
        grace: common.grace,
        stop,
    }
}

/// An app's credentials, and how many signatures it has used so far, if that can be known.
fn ask(profile: &Profile, transport: Transport) -> Result<(Vec<CredentialInfo>, Option<u64>), Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| files::failed("runtime", error))?;
    let asking = async {
        let client = Client::connect(profile, transport, 1).await?;
        let credentials = client.credentials().await?;
        let usage = client.usage().await.ok();
        client.close().await;
        Ok((credentials, usage.map(|usage| usage.signatures)))
    };
    let late = |_| {
        Refusal::new(
            Code::Connection,
            format!("no answer from {} within 10 s", profile.address),
        )
    };
    runtime.block_on(async { tokio::time::timeout(ASK_PATIENCE, asking).await.map_err(late)? })
}
