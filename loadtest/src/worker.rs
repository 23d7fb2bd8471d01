//! One thread that sends its share of the requests and books what comes back. It never waits for an answer before it
//! sends the next, and it counts each request from the moment it was meant to leave.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::message::ItemOutcome;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::fleet::{Fleet, LanePlan};
use crate::schedule::{Departure, Departures};
use crate::tally::{Answer, Connections, Group, Interval, Recorder, Totals};
use crate::timer::Sleeper;
use crate::work::{Wanted, Work};

/// The sender wakes at most this often; requests that fall between leave together, each counted from its own time.
const TURN: Duration = Duration::from_micros(500);
/// A sender that is behind its schedule must still let answers in.
const SENT_BEFORE_YIELD: u32 = 64;
/// How often broken connections are looked for.
const REPAIR_EVERY: Duration = Duration::from_millis(100);

/// What every run of a worker has in common.
#[derive(Clone)]
pub(crate) struct Crew {
    pub(crate) work: Arc<Work>,
    pub(crate) lanes: Vec<LanePlan>,
    /// The lane of each class.
    pub(crate) lane_of: Vec<usize>,
    /// Connections replaced each second by this thread; 0 for none.
    pub(crate) churn: f64,
    /// Requests without an answer at once, at most.
    pub(crate) open_max: usize,
    /// How long answers are waited for after the last request.
    pub(crate) grace: Duration,
    /// Set when the run is to end early.
    pub(crate) stop: Arc<AtomicBool>,
}

/// One load to send.
pub(crate) struct Orders {
    pub(crate) departures: Departures,
    /// Added to the numbers of the departures: a number used before would be an idempotency key used before.
    pub(crate) first_number: u64,
    pub(crate) start: Instant,
    pub(crate) counted_from: Instant,
    /// Set when requests follow on answers; then there are no departures.
    pub(crate) closed: Option<Loop>,
    pub(crate) phases: usize,
    pub(crate) classes: usize,
}

/// A load without a schedule: `open_max` requests in flight until it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loop {
    /// The number of this thread's first request, and how far apart its numbers are.
    pub(crate) first: u64,
    pub(crate) stride: u64,
    pub(crate) end: Instant,
}

/// What a worker says.
pub(crate) enum News {
    /// Its connections stand.
    Ready,
    /// A second is over.
    Second(usize, Interval),
    /// The load was sent, and everything about it is known.
    Done(usize, Interval, Box<Totals>),
    /// It cannot work.
    Failed(Refusal),
}

/// A worker's end of its channels.
pub(crate) struct Lines {
    pub(crate) index: usize,
    pub(crate) orders: mpsc::Receiver<Orders>,
    pub(crate) news: Sender<News>,
}

/// The life of a worker: connects, does one load after the other, and closes. Ends when nobody gives or hears orders.
pub(crate) fn live(crew: Crew, mut lines: Lines) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(serve(Rc::new(crew), &mut lines)),
        Err(error) => Err(crate::files::failed("runtime", error)),
    };
    if let Err(refusal) = result {
        // Whoever gave the orders is gone when this fails, and then nobody needs to hear.
        let _ = lines.news.send(News::Failed(refusal));
    }
}

async fn serve(crew: Rc<Crew>, lines: &mut Lines) -> Result<(), Refusal> {
    let mut made = Connections::default();
    let fleet = Fleet::connect(&crew.lanes, |length| {
        made.opened += 1;
        made.handshake.saturating_record(crate::tally::micros(length));
    });
    let fleet = Rc::new(fleet.await?);
    let sleeper = Sleeper::new().map_err(|error| crate::files::failed("timer", error))?;
    if lines.news.send(News::Ready).is_err() {
        return Ok(());
    }
    while let Some(orders) = lines.orders.recv().await {
        let trip = Rc::new(Trip {
            crew: Rc::clone(&crew),
            fleet: Rc::clone(&fleet),
            recorder: RefCell::new(Recorder::new(orders.counted_from, orders.phases, orders.classes)),
            open: Cell::new(0),
        });
        let local = LocalSet::new();
        let sent = match orders.closed {
            None => local.run_until(send_all(&trip, orders, &sleeper, lines)).await,
            Some(order) => {
                local
                    .run_until(send_in_loops(&trip, &orders, order, &sleeper, lines))
                    .await
            }
        };
        // Requests without an answer are booked as lost when their tasks go.
        drop(local);
        sent?;
        let trip =
            Rc::try_unwrap(trip).map_err(|_| Refusal::new(Code::Internal, "a task outlived its run"))?;
        let mut recorder = trip.recorder.into_inner();
        let last = recorder.take_interval(clock::monotonic());
        let mut totals = recorder.into_totals();
        totals.connections.merge(&std::mem::take(&mut made));
        if lines
            .news
            .send(News::Done(lines.index, last, Box::new(totals)))
            .is_err()
        {
            break;
        }
    }
    if let Ok(fleet) = Rc::try_unwrap(fleet) {
        fleet.close().await;
    }
    Ok(())
}

/// What the tasks of one load share.
struct Trip {
    crew: Rc<Crew>,
    fleet: Rc<Fleet>,
    recorder: RefCell<Recorder>,
    /// Counted requests without an answer.
    open: Cell<usize>,
}

impl Trip {
    /// What a departure asks for, booked as offered.
    fn prepare(&self, departure: &Departure) -> (Wanted, Group) {
        let work = &self.crew.work;
        let wanted = work.wanted(departure);
        let group = Group {
            phase: departure.phase,
            class: wanted.class,
            signatures: work.signatures(wanted),
        };
        self.recorder.borrow_mut().offered(group);
        (wanted, group)
    }
}

async fn send_all(trip: &Rc<Trip>, orders: Orders, sleeper: &Sleeper, lines: &Lines) -> Result<(), Refusal> {
    let keeper = tokio::task::spawn_local(keep_connected(Rc::clone(trip)));
    let slept = |error| crate::files::failed("timer", error);
    let mut in_a_row = 0;
    let mut woke = orders.start;
    for departure in orders.departures {
        let intended = orders.start + departure.at;
        loop {
            let now = clock::monotonic();
            hand_on(trip, lines, now);
            if intended <= now {
                break;
            }
            if trip.crew.stop.load(Ordering::Relaxed) {
                return finish(trip, sleeper, lines, keeper).await;
            }
            let wake = intended
                .max(woke + TURN)
                .saturating_duration_since(now)
                .min(REPAIR_EVERY);
            sleeper.sleep(wake).await.map_err(slept)?;
            woke = clock::monotonic();
            in_a_row = 0;
        }
        let number = orders.first_number + departure.number;
        send(trip, &Departure { number, ..departure }, intended);
        in_a_row += 1;
        if in_a_row % SENT_BEFORE_YIELD == 0 {
            tokio::task::yield_now().await;
            if trip.crew.stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    finish(trip, sleeper, lines, keeper).await
}

/// As many callers as may be in flight, each of which asks again as soon as it is answered.
async fn send_in_loops(
    trip: &Rc<Trip>,
    orders: &Orders,
    order: Loop,
    sleeper: &Sleeper,
    lines: &Lines,
) -> Result<(), Refusal> {
    let keeper = tokio::task::spawn_local(keep_connected(Rc::clone(trip)));
    let number = Rc::new(Cell::new(orders.first_number + order.first));
    for _ in 0..trip.crew.open_max {
        let caller = call_again(Rc::clone(trip), Rc::clone(&number), order, orders.counted_from);
        tokio::task::spawn_local(caller);
    }
    while clock::monotonic() < order.end && !trip.crew.stop.load(Ordering::Relaxed) {
        hand_on(trip, lines, clock::monotonic());
        let slept = sleeper.sleep(REPAIR_EVERY).await;
        slept.map_err(|error| crate::files::failed("timer", error))?;
    }
    finish(trip, sleeper, lines, keeper).await
}

async fn call_again(trip: Rc<Trip>, number: Rc<Cell<u64>>, order: Loop, counted_from: Instant) {
    loop {
        let now = clock::monotonic();
        if now >= order.end || trip.crew.stop.load(Ordering::Relaxed) {
            return;
        }
        let departure = Departure {
            number: number.replace(number.get() + order.stride),
            at: Duration::ZERO,
            phase: (now >= counted_from).then_some(0),
            class: None,
        };
        let (wanted, group) = trip.prepare(&departure);
        one(Open::new(Rc::clone(&trip), group, now), wanted).await;
    }
}

/// Waits for the answers that are still to come.
async fn finish(
    trip: &Rc<Trip>,
    sleeper: &Sleeper,
    lines: &Lines,
    keeper: tokio::task::JoinHandle<()>,
) -> Result<(), Refusal> {
    let until = clock::monotonic() + trip.crew.grace;
    loop {
        let now = clock::monotonic();
        hand_on(trip, lines, now);
        if trip.open.get() == 0 || now >= until {
            break;
        }
        sleeper
            .sleep(TURN * 2)
            .await
            .map_err(|error| crate::files::failed("timer", error))?;
    }
    keeper.abort();
    // Cancelled or not, it is over; waiting lets it go of what it holds.
    let _ = keeper.await;
    Ok(())
}

/// Hands on the second that is over, unless whoever takes them is behind: then it stays in the book.
fn hand_on(trip: &Trip, lines: &Lines, now: Instant) {
    let mut recorder = trip.recorder.borrow_mut();
    if recorder.is_over(now) {
        let news = News::Second(lines.index, recorder.take_interval(now));
        if let Err(refused) = lines.news.try_send(news)
            && let News::Second(_, interval) = refused.into_inner()
        {
            recorder.put_back(&interval);
        }
    }
}

fn send(trip: &Rc<Trip>, departure: &Departure, intended: Instant) {
    let (wanted, group) = trip.prepare(departure);
    if trip.open.get() >= trip.crew.open_max {
        trip.recorder.borrow_mut().lost(group, None);
        return;
    }
    let open = Open::new(Rc::clone(trip), group, intended);
    tokio::task::spawn_local(one(open, wanted));
}

/// A request on its way. Dropped without an answer, it is booked as lost with the time it had waited: leaving it out
/// would hide the very requests that fared worst.
struct Open {
    trip: Rc<Trip>,
    group: Group,
    intended: Instant,
    settled: bool,
}

impl Open {
    /// Counted here and not when its task starts, which may be after the last one was sent.
    fn new(trip: Rc<Trip>, group: Group, intended: Instant) -> Self {
        trip.open.set(trip.open.get() + 1);
        Self {
            trip,
            group,
            intended,
            settled: false,
        }
    }

    fn left(&self, now: Instant) {
        let lag = now.saturating_duration_since(self.intended);
        self.trip.recorder.borrow_mut().left(self.group, lag);
    }

    fn answered(mut self, now: Instant, answer: &Answer<'_>) {
        self.settled = true;
        self.trip.recorder.borrow_mut().answered(self.group, now, answer);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.trip.open.set(self.trip.open.get() - 1);
        if !self.settled {
            let age = clock::monotonic().saturating_duration_since(self.intended);
            self.trip.recorder.borrow_mut().lost(self.group, Some(age));
        }
    }
}

async fn one(open: Open, wanted: Wanted) {
    let trip = Rc::clone(&open.trip);
    let work = &trip.crew.work;
    let request = work.request(wanted);
    let ride = trip.fleet.ride(trip.crew.lane_of[wanted.class], wanted.number);
    let left = clock::monotonic();
    open.left(left);
    let result = ride.client.sign(&request).await;
    let now = clock::monotonic();
    if matches!(&result, Err(refusal) if refusal.code == Code::Connection) {
        trip.fleet.report_broken(&ride);
    }
    let (mut ok, mut failed) = sort(open.group.signatures, result.as_deref());
    let mut verified = 0;
    if work.is_sampled(wanted)
        && let Ok(items) = &result
    {
        match work.check(wanted, items) {
            Ok(checked) => verified = checked,
            Err(refusal) => {
                failed.extend(std::iter::repeat_n(refusal.code.name(), ok as usize));
                ok = 0;
            }
        }
    }
    let answer = Answer {
        latency: now.saturating_duration_since(open.intended),
        service: now.saturating_duration_since(left),
        ok,
        verified,
        failed: &failed,
    };
    open.answered(now, &answer);
}

/// How many items are done, and the codes of those that are not.
fn sort(signatures: u64, result: Result<&[ItemOutcome], &Refusal>) -> (u64, Vec<&'static str>) {
    let items = match result {
        Err(refusal) => return (0, vec![refusal.code.name(); signatures as usize]),
        Ok(items) => items,
    };
    let code = |item: &ItemOutcome| match item {
        ItemOutcome::Done { .. } => None,
        ItemOutcome::Pending => Some(Code::OutcomePending.name()),
        ItemOutcome::Failed(refusal) => Some(refusal.code.name()),
    };
    let failed: Vec<_> = items.iter().filter_map(code).collect();
    (items.len() as u64 - failed.len() as u64, failed)
}

/// Repairs connections that broke, and replaces whole ones as often as the run asks.
async fn keep_connected(trip: Rc<Trip>) {
    let period = match trip.crew.churn {
        rate if rate > 0.0 => Duration::from_secs_f64(1.0 / rate),
        _ => REPAIR_EVERY,
    };
    let mut turns = tokio::time::interval(period.min(REPAIR_EVERY));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = clock::monotonic() + period;
    loop {
        turns.tick().await;
        if let Some(result) = trip.fleet.repair().await {
            trip.recorder.borrow_mut().connected(result.ok());
        }
        if trip.crew.churn > 0.0 && clock::monotonic() >= next {
            next += period;
            let result = trip.fleet.churn().await;
            trip.recorder.borrow_mut().connected(result.ok());
        }
    }
}
