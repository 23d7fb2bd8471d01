//! A core: one thread, its calls in flight, and what other threads may send it.
//!
//! The calls belong to the thread, not to the shard actor that works on them: a panic in the actor costs no call and
//! no connection (SEMANTICS 3.5). Fronts hand calls in by [`Core::submit`]; the shard is only told that there is work
//! ("nudged"), so no message can be lost with a mailbox. Deadlines are kept by the core's own clock task, so they
//! hold while the shard is down.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::Addr;
use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::TenantRow;
use protocol::message::{Answer, ItemOutcome};
use sla::minute::Asked;
use store::{App, Environment, Outcome, Tenant};
use tokio::sync::{Notify, oneshot};

use crate::call::{Arrival, Ask, Call, CallTable, ItemState, ReplyTo, SignCall, Ticket};
use crate::latency::book::Outbox;
use crate::latency::{Answered, Operation, Recorded, Series, Transport};
use crate::metering::LeaseCells;
use crate::minutes::{self, MinuteLog};
use crate::services::Services;
use crate::shard::{self, Poison, Shard, Work};
use crate::stats::Stats;
use crate::wheel::TURN;

/// How long the last words of a core that ends may take. It is part of the 100 ms in which its clients are served again;
/// one that misses the words hears a stateless reset instead.
const GOODBYE: Duration = Duration::from_millis(20);

/// How often a core hands over what it has recorded.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Signatures for documents that may wait for a core to take them in.
const INSIDE_MAX: usize = 256;

/// A signature that work on a document needs: it takes the ordinary road.
pub(crate) struct InsideCall {
    pub(crate) sign: Box<SignCall>,
    pub(crate) received: Instant,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Answer, Refusal>>,
}

impl std::fmt::Debug for InsideCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InsideCall(..)")
    }
}

/// Something that happened elsewhere to a call of this core.
#[derive(Debug)]
pub(crate) enum Event {
    /// Items have their outcomes.
    Outcomes(Vec<(Ticket, Outcome)>),
    /// A question was answered.
    Answer(Ticket, Result<Answer, Refusal>),
    /// What the call waited for is there now; go on with it.
    Resume(Ticket),
    /// The metering actor has answered a request for units; `Ok`: try again to take them.
    Leased(Ticket, Result<(), Refusal>),
}

/// The part of a core that other threads see. It outlives the thread.
#[derive(Debug)]
pub struct CoreRemote {
    number: u16,
    events: ArrayQueue<Event>,
    /// Signatures that documents need; more are refused.
    inside: ArrayQueue<InsideCall>,
    wake: Notify,
    alive: AtomicBool,
    beat_ms: AtomicU64,
    in_flight: AtomicUsize,
    generation: AtomicU32,
    shard: Mutex<Option<Addr<Shard>>>,
    /// What the core has answered.
    pub stats: Stats,
    /// The same by the minute, for the service agreement.
    pub(crate) minutes: MinuteLog,
    /// How long its requests took, since it was asked last.
    pub(crate) latency: Outbox,
}

impl CoreRemote {
    /// A core that has not started. `in_flight_max` bounds what can be underway to it.
    pub fn new(number: u16, in_flight_max: usize) -> Self {
        Self {
            number,
            events: ArrayQueue::new(in_flight_max.max(1)),
            inside: ArrayQueue::new(INSIDE_MAX),
            wake: Notify::new(),
            alive: AtomicBool::new(false),
            beat_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            generation: AtomicU32::new(0),
            shard: Mutex::new(None),
            stats: Stats::default(),
            minutes: MinuteLog::default(),
            latency: Outbox::default(),
        }
    }

    /// Sends an event. There is one place for every item in flight, so a full queue means that the core is stalled
    /// or gone; the sender then waits, because an outcome must not be dropped.
    pub(crate) fn send(&self, event: Event) {
        let mut event = event;
        while let Err(back) = self.events.push(event) {
            event = back;
            self.wake.notify_one();
            std::thread::yield_now();
            if !self.is_alive() {
                return;
            }
        }
        self.wake.notify_one();
    }

    /// Hands a call over to be taken in; given back where too many wait.
    pub(crate) fn send_inside(&self, call: InsideCall) -> Result<(), InsideCall> {
        self.inside.push(call)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Whether the core's thread runs.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Whether the core's shard takes messages.
    pub fn shard_is_up(&self) -> bool {
        self.shard.lock().as_ref().is_some_and(Addr::connected)
    }

    /// Makes the core's shard panic, for rehearsals. False: there is none to panic.
    pub fn poison_shard(&self) -> bool {
        self.shard
            .lock()
            .as_ref()
            .is_some_and(|shard| shard.try_send(Poison).is_ok())
    }

    /// The core's number.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// When the core last looked at its clock, in milliseconds of the wall clock.
    pub fn beat_ms(&self) -> u64 {
        self.beat_ms.load(Ordering::Relaxed)
    }
}

/// Marks the remote dead when the thread ends, however it ends.
struct AliveGuard(Arc<CoreRemote>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
    }
}

/// The part of a core that only its own thread sees.
pub struct Core {
    pub(crate) number: u16,
    pub(crate) services: Arc<Services>,
    pub(crate) remote: Arc<CoreRemote>,
    pub(crate) table: RefCell<CallTable>,
    /// Calls that nobody has looked at yet.
    pub(crate) fresh: RefCell<VecDeque<Ticket>>,
    /// Events taken over from other threads.
    pub(crate) events: RefCell<VecDeque<Event>>,
    /// The call the shard is working on: if the shard panics, this is the one to blame.
    pub(crate) in_hand: Cell<Option<Ticket>>,
    pub(crate) leases: RefCell<HashMap<TenantRow, Arc<LeaseCells>>>,
    recorded: RefCell<Recorded>,
    handed_over: Cell<Instant>,
    answers: Cell<u32>,
    shard: RefCell<Option<Addr<Shard>>>,
    nudged: Cell<bool>,
    ending: Notify,
    _alive: AliveGuard,
}

thread_local! {
    static CORE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Makes this thread a core: called once on a fresh arbiter. Starts the shard and the core's own two tasks.
    pub fn install(services: Arc<Services>, number: u16) -> Rc<Self> {
        let remote = Arc::clone(&services.cores[usize::from(number)]);
        let generation = remote.generation.load(Ordering::Acquire);
        remote.alive.store(true, Ordering::Release);
        remote.in_flight.store(0, Ordering::Relaxed);
        let now = clock::monotonic();
        let core = Rc::new(Self {
            number,
            table: RefCell::new(CallTable::new(number, generation, now)),
            fresh: RefCell::default(),
            events: RefCell::default(),
            in_hand: Cell::new(None),
            leases: RefCell::default(),
            recorded: RefCell::default(),
            handed_over: Cell::new(now),
            answers: Cell::new(0),
            shard: RefCell::new(None),
            nudged: Cell::new(false),
            ending: Notify::new(),
            _alive: AliveGuard(Arc::clone(&remote)),
            remote,
            services,
        });
        CORE.set(Some(Rc::clone(&core)));
        core.start_shard();
        actix_rt::spawn(take_events(Rc::clone(&core)));
        actix_rt::spawn(keep_time(Rc::clone(&core)));
        core
    }

    /// The core of the current thread.
    pub fn current() -> Option<Rc<Self>> {
        CORE.with_borrow(Clone::clone)
    }

    /// Its number.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Everything that is not the core's own.
    pub const fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The counters of this core.
    pub fn stats(&self) -> &Stats {
        &self.remote.stats
    }

    /// Takes a call in, or answers it at once when the core has as many as it can hold.
    pub fn submit(&self, call: Call) {
        let mut table = self.table.borrow_mut();
        if table.len() >= self.services.limits.calls_per_core_max {
            let refusal = Refusal::new(Code::Overloaded, "too many requests in flight").retry_after_ms(100);
            drop(table);
            self.refuse(call, refusal);
            return;
        }
        let ticket = table.insert(call);
        self.remote.in_flight.store(table.len(), Ordering::Relaxed);
        self.remote
            .generation
            .store(table.generation(), Ordering::Release);
        drop(table);
        self.fresh.borrow_mut().push_back(ticket);
        self.nudge();
    }

    /// Takes in what work on a document needs.
    fn take_in(&self, inside: InsideCall) {
        let arrival = Arrival {
            received: inside.received,
            decoded: inside.received,
        };
        let reply = ReplyTo::Inside(inside.reply);
        self.submit(Call::new(reply, Ask::Sign(inside.sign), arrival, inside.deadline));
    }

    /// Tells the shard that there is work. One message at most is underway.
    pub(crate) fn nudge(&self) {
        if self.nudged.replace(true) {
            return;
        }
        let sent = self
            .shard
            .borrow()
            .as_ref()
            .is_some_and(|shard| shard.try_send(Work).is_ok());
        if !sent {
            // No shard: the keeper starts one, and it begins by looking for work.
            self.nudged.set(false);
        }
    }

    pub(crate) fn begin_work(&self) {
        self.nudged.set(false);
    }

    /// Starts a shard on this thread, at first and whenever the keeper finds it gone.
    pub(crate) fn start_shard(self: &Rc<Self>) {
        let core = Rc::clone(self);
        let shard = actix::Supervisor::start(move |_| Shard::new(core));
        *self.remote.shard.lock() = Some(shard.clone());
        *self.shard.borrow_mut() = Some(shard);
        self.nudged.set(false);
        self.nudge();
    }

    /// Answers a call and forgets it.
    pub(crate) fn answer(&self, ticket: Ticket, result: Result<Answer, Refusal>) {
        let Some(call) = self.table.borrow_mut().remove(ticket) else {
            return;
        };
        self.remote
            .in_flight
            .store(self.table.borrow().len(), Ordering::Relaxed);
        self.note_answer(&call, &result);
        call.reply.answer(result);
    }

    /// Answers a call that the core does not even take in.
    fn refuse(&self, call: Call, refusal: Refusal) {
        let result = Err(refusal);
        self.note_answer(&call, &result);
        call.reply.answer(result);
    }

    fn note_answer(&self, call: &Call, result: &Result<Answer, Refusal>) {
        let latency = clock::monotonic().saturating_duration_since(call.received);
        let (outcome, now) = (minutes::outcome(result), clock::wall());
        if matches!(call.reply, ReplyTo::Inside(_)) {
            let signatures = result.as_ref().map_or(0, |answer| count(answer).0);
            self.remote.stats.count_inside(signatures);
            return;
        }
        self.note_minute(Some(&call.app), outcome, latency, now);
        let (signatures, items) = match result {
            Ok(answer) => count(answer),
            Err(_) => (0, call.items.len()),
        };
        match result {
            Ok(_) => self.remote.stats.count_answer(signatures),
            Err(refusal) => self.remote.stats.count_refusal(refusal.code),
        }
        let answered = Answered {
            series: call.series(outcome.into()),
            latency,
            times: call.stage_times(latency),
            app: &call.app.id,
            core: self.number,
            items,
        };
        let is_sampled = self.is_sampled();
        self.recorded.borrow_mut().answered(&answered, is_sampled, now);
    }

    /// Whether this answer is one of those that are kept for a trace.
    fn is_sampled(&self) -> bool {
        let every = self.services.limits.trace_every;
        let number = self.answers.get().wrapping_add(1);
        self.answers.set(number);
        every > 0 && number.is_multiple_of(every)
    }

    /// Counts the answer to a proved app's request about a document, as that of a call is counted: how long it took, in
    /// histograms and in the minutes of the service agreement.
    pub fn note_document(
        &self,
        app: &App,
        operation: Operation,
        received: Instant,
        result: Result<(), &Refusal>,
    ) {
        let latency = clock::monotonic().saturating_duration_since(received);
        let outcome = match result {
            Ok(()) => sla::answer::Outcome::Result,
            Err(refusal) => minutes::outcome(&Err(refusal.clone())),
        };
        match result {
            Ok(()) => self.remote.stats.count_answer(0),
            Err(refusal) => self.remote.stats.count_refusal(refusal.code),
        }
        self.note_minute(Some(app), outcome, latency, clock::wall());
        let series = Series {
            operation,
            transport: Transport::Https,
            algorithm: None,
            ending: outcome.into(),
        };
        self.recorded.borrow_mut().record(series, latency);
    }

    /// Counts a refusal of a request that never became a call, and of which it is not known whose it is.
    pub fn count_refusal(&self, refusal: &Refusal) {
        self.remote.stats.count_refusal(refusal.code);
        let outcome = minutes::outcome(&Err(refusal.clone()));
        self.note_minute(None, outcome, Duration::ZERO, clock::wall());
    }

    /// Counts a refusal of a proved app's request that never became a call.
    pub fn count_refused(
        &self,
        app: &App,
        refusal: &Refusal,
        received: Instant,
        asked: (Operation, Transport),
    ) {
        self.remote.stats.count_refusal(refusal.code);
        let latency = clock::monotonic().saturating_duration_since(received);
        let outcome = minutes::outcome(&Err(refusal.clone()));
        self.note_minute(Some(app), outcome, latency, clock::wall());
        let series = Series {
            operation: asked.0,
            transport: asked.1,
            algorithm: None,
            ending: outcome.into(),
        };
        self.recorded.borrow_mut().record(series, latency);
    }

    /// Notes an answer of the certificate service to a proved app.
    pub fn note_certificates(
        &self,
        app: &App,
        outcome: sla::answer::Outcome,
        received: Instant,
        asked: (Operation, Transport),
    ) {
        let latency = clock::monotonic().saturating_duration_since(received);
        if app.environment != Environment::Sandbox {
            let log = &self.remote.minutes;
            log.note_certificates(clock::wall(), Asked::ByApp, outcome, latency);
        }
        let series = Series {
            operation: asked.0,
            transport: asked.1,
            algorithm: None,
            ending: outcome.into(),
        };
        self.recorded.borrow_mut().record(series, latency);
    }

    /// Notes an answer in its minute. Only production counts (agreement A 7(4)).
    fn note_minute(
        &self,
        app: Option<&App>,
        outcome: sla::answer::Outcome,
        latency: Duration,
        now: UnixMillis,
    ) {
        if app.is_some_and(|app| app.environment == Environment::Sandbox) {
            return;
        }
        let user = app.map(|app| app.tenant.row);
        self.remote.minutes.note(now, user, outcome, latency);
    }

    /// Hands what has been recorded to whoever brings it together.
    fn hand_over(&self) {
        self.remote.latency.swap(&mut self.recorded.borrow_mut());
    }

    /// Notes an item's outcome, and answers the call if it was the last one. True: this call had claimed the item.
    pub(crate) fn finish_item(&self, ticket: Ticket, outcome: ItemOutcome) -> bool {
        let (ours, items) = {
            let mut table = self.table.borrow_mut();
            let Some(call) = table.get(ticket) else {
                return false;
            };
            let Some(ours) = call.finish_item(ticket.item, outcome) else {
                return false;
            };
            (ours, (call.open == 0).then(|| call.take_items()))
        };
        if let Some(items) = items {
            self.answer(ticket, Call::result(items));
        }
        ours
    }

    /// Takes units of a tenant's balance for calls of this core, from the core's own lease. Without a limit there is
    /// nothing to take. False: the lease is too small, and metering must be asked.
    pub(crate) fn take_units(&self, tenant: &Tenant, units: u64) -> bool {
        match tenant.account.left() {
            None => return true,
            // Packages may have lapsed with units in the leases; metering says so.
            Some(0) => return false,
            Some(_) => {}
        }
        let mut leases = self.leases.borrow_mut();
        let cells = leases
            .entry(tenant.row)
            .or_insert_with(|| self.services.metering.cells(tenant.row));
        cells.take(self.number, units)
    }

    pub(crate) fn waits_for_units(&self, ticket: Ticket) -> bool {
        let mut table = self.table.borrow_mut();
        table.get(ticket).is_some_and(|call| call.waits_for_units())
    }

    /// The lease from which the unit of an item of ours was taken, if one was.
    pub(crate) fn lease_of(&self, ticket: Ticket) -> Option<Arc<LeaseCells>> {
        let mut table = self.table.borrow_mut();
        let ItemState::Open {
            attempt: Some(attempt),
            ours: true,
            ..
        } = table.get(ticket)?.items.get(usize::from(ticket.item))?
        else {
            return None;
        };
        let app = &attempt.app.0;
        if app.environment == Environment::Sandbox {
            return None;
        }
        let tenant = &app.tenant;
        tenant.account.left()?;
        self.leases.borrow().get(&tenant.row).cloned()
    }

    /// Ends the core on purpose: everybody who waits here hears that a retry will find the outcome, the fronts hear
    /// it through [`Self::ending`], and a little later the thread is gone. The keeper then starts another.
    pub fn end(self: &Rc<Self>) {
        let refusal = Refusal::new(
            Code::Restarted,
            "this part of the engine restarts; retry with the same key",
        );
        let tickets = self.table.borrow().tickets();
        for ticket in tickets {
            // What the pool has goes on and is recorded. What it does not have yet would never be handed over.
            if self.waits_for_units(ticket) {
                shard::fail_call(self, ticket, &refusal);
            } else {
                self.answer(ticket, Err(refusal.clone()));
            }
        }
        self.hand_over();
        CORE.set(None);
        self.ending.notify_waiters();
        actix_rt::spawn(async {
            tokio::time::sleep(GOODBYE).await;
            actix_rt::Arbiter::current().stop();
        });
    }

    /// Returns when the core is about to end.
    pub async fn ending(&self) {
        self.ending.notified().await;
    }
}

/// Signatures in an answer, and items.
fn count(answer: &Answer) -> (u64, usize) {
    let Answer::Items(items) = answer else {
        return (0, 0);
    };
    let is_done = |item: &&ItemOutcome| matches!(item, ItemOutcome::Done { .. });
    (items.iter().filter(is_done).count() as u64, items.len())
}

/// Takes events over from the other threads, as many as have piled up at a time.
async fn take_events(core: Rc<Core>) {
    loop {
        core.remote.wake.notified().await;
        while let Some(inside) = core.remote.inside.pop() {
            core.take_in(inside);
        }
        let mut events = core.events.borrow_mut();
        while let Some(event) = core.remote.events.pop() {
            events.push_back(event);
        }
        drop(events);
        core.nudge();
    }
}

/// Answers what is due, and shows that the core is alive.
async fn keep_time(core: Rc<Core>) {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        core.remote.beat_ms.store(clock::wall().0, Ordering::Relaxed);
        core.turn(clock::monotonic());
    }
}

impl Core {
    fn turn(&self, now: Instant) {
        let due = self.table.borrow_mut().due(now);
        for ticket in due {
            crate::deadline::expire(self, ticket);
        }
        if now.saturating_duration_since(self.handed_over.get()) >= HAND_OVER {
            self.handed_over.set(now);
            self.hand_over();
        }
    }
}
