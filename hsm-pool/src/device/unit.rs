//! One device as its threads share it: what waits for it, its life, its limits, its spare process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use protocol::clock;
use protocol::verify::PublicKey;

use super::DeviceConfig;
use super::life::{Life, State, Transition};
use super::limiter::{Limiter, Second};
use super::process::{Process, ProcessEnd};
use super::rest::{Appetite, Rest};
use super::seat::Bell;
use super::state::DeviceState;
use super::wire::{Order, Ordered};
use crate::job::{JobError, Work};
use crate::queue::{FairQueue, Offer, Offered};

/// A job on its way, and whether another device has had it already.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) work: T,
    pub(crate) tried: bool,
}

/// What jobs left behind: those to be sent, and those that nobody waits for any more.
pub(crate) struct Taken<T> {
    pub(crate) alive: Vec<Queued<T>>,
    pub(crate) expired: Vec<Queued<T>>,
}

/// The key of probe signatures.
#[derive(Clone)]
pub(crate) struct ProbeKey {
    pub(crate) object: Vec<u8>,
    pub(crate) public: Arc<PublicKey>,
}

/// An order may take this long: RSA-4096 in a slow device.
const ORDER: Duration = Duration::from_secs(60);

pub(crate) struct Unit<T> {
    pub(crate) config: DeviceConfig,
    pub(crate) state: Arc<DeviceState>,
    queue: Mutex<FairQueue<Queued<T>>>,
    queue_max: usize,
    life: Mutex<Life>,
    limiter: Mutex<Limiter>,
    rest: Mutex<Rest>,
    /// Whether the knee has been measured; if not, it is as many calls as there are sessions.
    calibrated: AtomicBool,
    bells: RwLock<Vec<Arc<Bell>>>,
    /// One process at a time is started: modules that are initialised many times at once do not always see their
    /// tokens, and a wrong PIN must be tried once.
    starting: Mutex<()>,
    spare: Mutex<Option<Process>>,
    /// Rung when the warden has something to do at once.
    warden: (Mutex<bool>, Condvar),
    /// The process that carries out operators' orders, started when there is one.
    operator: Mutex<Option<Process>>,
    probe_key: Mutex<Option<ProbeKey>>,
    /// It was given more processes, and not all of them serve yet.
    growing: AtomicBool,
    stopping: AtomicBool,
}

impl<T: Work> Unit<T> {
    pub(crate) fn new(config: DeviceConfig, queue_max: usize, knee: Option<u16>) -> Self {
        let calibrated = knee.is_some();
        let knee = capped(
            &config,
            knee.unwrap_or_else(|| sessions(&config, config.processes)),
        );
        let unit = Self {
            state: Arc::new(DeviceState::default()),
            queue: Mutex::default(),
            queue_max,
            life: Mutex::new(Life::new(clock::monotonic())),
            limiter: Mutex::new(Limiter::new(knee)),
            rest: Mutex::default(),
            calibrated: AtomicBool::new(calibrated),
            bells: RwLock::default(),
            starting: Mutex::new(()),
            spare: Mutex::new(None),
            warden: (Mutex::new(false), Condvar::new()),
            operator: Mutex::new(None),
            probe_key: Mutex::new(None),
            growing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            config,
        };
        unit.publish(clock::monotonic());
        unit
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    // ── the queue ──

    /// Takes a job in while what waits takes less than `bound_us`; what had to go for it, or itself, comes back.
    pub(crate) fn push(&self, job: Queued<T>, bound_us: f64) -> Offered<Queued<T>> {
        let offer = Offer {
            tenant: job.work.tenant(),
            priority: job.work.priority(),
            follows: job.work.follows(),
            cost_us: (self.state.service_us() as u64).max(1),
            job,
        };
        let bound_us = (bound_us * self.places()) as u64;
        let offered = self.queue.lock().offer(offer, bound_us, self.queue_max);
        if !matches!(offered, Offered::Refused(_)) {
            self.ring();
        }
        offered
    }

    /// Calls it may work on at once.
    fn places(&self) -> f64 {
        f64::from(self.state.limit.load(Ordering::Relaxed).max(1))
    }

    /// Takes out what may be sent now. If more is left, another seat hears of it.
    pub(crate) fn take(&self, room: usize, now: Instant) -> Taken<T> {
        let mut taken = Taken {
            alive: Vec::new(),
            expired: Vec::new(),
        };
        let mut queue = self.queue.lock();
        while taken.alive.len() < room
            && let Some(job) = queue.pop()
        {
            if now < job.work.deadline() {
                taken.alive.push(job);
            } else {
                taken.expired.push(job);
            }
        }
        let more = queue.len() > 0;
        drop(queue);
        if more && !taken.alive.is_empty() {
            self.ring();
        }
        taken
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().len()
    }

    pub(crate) fn empty_queue(&self) -> Vec<Queued<T>> {
        self.queue.lock().drain()
    }

    /// Tells one seat that wants work that there is some.
    fn ring(&self) {
        // Any seat that wants one will do.
        let _ = self.bells.read().iter().any(|bell| bell.ring_if_wanted());
    }

    /// How long a new job would wait, in microseconds.
    pub(crate) fn wait_us(&self) -> f64 {
        self.queue.lock().waiting_us() as f64 / self.places()
    }

    /// How loaded it is for what it may take; the least loaded of several gets the next job.
    pub(crate) fn load(&self) -> f64 {
        let jobs = self.waiting() + self.state.in_flight.load(Ordering::Relaxed);
        let places = match self.appetite() {
            Appetite::Usual => self.places(),
            Appetite::Trial | Appetite::None(_) => 1.0,
        };
        (jobs as f64 + 1.0) / places
    }

    /// What it may be given now.
    pub(crate) fn appetite(&self) -> Appetite {
        self.rest.lock().appetite(clock::monotonic())
    }

    /// Calls came back. True: it is busy and rests, and what waits for it must go elsewhere.
    pub(crate) fn rest_or_go_on(&self, signed: bool, busy: bool) -> bool {
        let now = clock::monotonic();
        let mut rest = self.rest.lock();
        if busy {
            return rest.handle_busy(now);
        }
        if signed {
            rest.handle_signed(now);
        }
        false
    }

    // ── its life ──

    /// Tells its life what happened. True: it takes no jobs any more, and those that wait must go elsewhere.
    pub(crate) fn live(&self, tell: impl FnOnce(&mut Life, Instant) -> Option<Transition>) -> bool {
        let now = clock::monotonic();
        let mut life = self.life.lock();
        let transition = tell(&mut life, now);
        drop(life);
        self.publish(now);
        let Some(Transition { from, to, reason }) = transition else {
            return false;
        };
        let (device, from, to_name) = (&*self.config.name, from.name(), to.name());
        match to {
            State::Quarantined => tracing::error!(device, from, to = to_name, %reason, "device"),
            _ => tracing::info!(device, from, to = to_name, %reason, "device"),
        }
        self.state.explain(reason.to_string());
        self.ring_all();
        self.ring_warden();
        to != State::Active
    }

    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.life.lock().next_probe()
    }

    /// Makes what its life and its limiter say visible.
    pub(crate) fn publish(&self, now: Instant) {
        let life = self.life.lock();
        let (state, share, latched) = (life.state(), life.share(now), life.is_latched());
        drop(life);
        self.state.publish(state, share, latched);
        let limit = u32::from(self.limiter.lock().limit());
        // While it has not been proven it has nothing else to go by than its whole limit.
        let share = if state == State::Active {
            u32::from(share)
        } else {
            100
        };
        let limit = (limit * share / 100).max(1);
        self.state
            .limit
            .store(u16::try_from(limit).unwrap_or(u16::MAX), Ordering::Relaxed);
    }

    pub(crate) fn adapt(&self, second: Second) {
        self.limiter.lock().step(second);
    }

    /// The knee has been measured.
    pub(crate) fn set_knee(&self, knee: u16) {
        self.calibrated.store(true, Ordering::Release);
        self.limiter.lock().set_knee(capped(&self.config, knee));
        self.publish(clock::monotonic());
    }

    /// It has another number of processes.
    pub(crate) fn resized(&self) {
        if !self.calibrated.load(Ordering::Acquire) {
            let knee = capped(&self.config, sessions(&self.config, self.seats()));
            self.limiter.lock().set_knee(knee);
        }
        self.publish(clock::monotonic());
    }

    // ── its seats ──

    pub(crate) fn add_bell(&self, bell: Arc<Bell>) {
        self.bells.write().push(bell);
    }

    /// Takes the youngest seat's bell away.
    pub(crate) fn remove_bell(&self) -> Option<Arc<Bell>> {
        self.bells.write().pop()
    }

    /// A seat's place among them, and how many there are; `None`: it has been taken away.
    pub(crate) fn place_of(&self, bell: &Arc<Bell>) -> Option<(usize, usize)> {
        let bells = self.bells.read();
        let at = bells.iter().position(|other| Arc::ptr_eq(other, bell))?;
        Some((at, bells.len()))
    }

    pub(crate) fn seats(&self) -> usize {
        self.bells.read().len()
    }

    pub(crate) fn set_growing(&self, growing: bool) {
        self.growing.store(growing, Ordering::Release);
    }

    /// Whether more processes are on their way. One that cannot work extends nothing.
    pub(crate) fn is_growing(&self) -> bool {
        if !self.growing.load(Ordering::Acquire) {
            return false;
        }
        let state = &self.state;
        let hopeless = state.is_latched() || state.is_settled() && state.state() != State::Active;
        let growing = !hopeless && state.workers_up() < self.seats();
        self.set_growing(growing);
        growing
    }

    fn ring_all(&self) {
        self.bells.read().iter().for_each(|bell| bell.ring());
    }

    // ── its processes ──

    /// Starts a process, one at a time, and never with a PIN that has been refused.
    pub(crate) fn start_process(&self) -> Result<Process, ProcessEnd> {
        self.start_with(self.config.sessions)
    }

    pub(crate) fn start_with(&self, sessions: u16) -> Result<Process, ProcessEnd> {
        let _one_at_a_time = self.starting.lock();
        if self.state.is_latched() {
            return Err(ProcessEnd::Pin(
                "it was refused before, and an operator has not resumed the device".into(),
            ));
        }
        self.state.starts.fetch_add(1, Ordering::Relaxed);
        let started = Process::start(&self.config, sessions);
        match &started {
            Ok(process) => self.state.set_facts(&process.facts),
            Err(ProcessEnd::Pin(_)) => {
                self.live(Life::handle_pin_refused);
            }
            Err(_) => {}
        }
        started
    }

    pub(crate) fn take_spare(&self) -> Option<Process> {
        let spare = self.spare.lock().take();
        if spare.is_some() {
            self.ring_warden();
        }
        spare
    }

    /// Ends the processes that serve nobody.
    pub(crate) fn retire_spares(&self) {
        let spare = self.spare.lock().take();
        let operator = self.operator.lock().take();
        spare.into_iter().chain(operator).for_each(Process::retire);
    }

    pub(crate) fn put_spare(&self, process: Process) {
        *self.spare.lock() = Some(process);
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.spare.lock().is_some()
    }

    /// Has an order carried out, in a process of its own, so that it holds up nobody. Blocking: for operators.
    pub(crate) fn order(&self, order: Order) -> Result<Ordered, JobError> {
        let mut operator = self.operator.lock();
        let mut process = match operator.take() {
            Some(process) => process,
            None => self.start_process().map_err(|end| lost(&end))?,
        };
        let answer = process.order(order, ORDER).map_err(|end| lost(&end))?;
        if let Ordered::Failed(error) = answer {
            return Err(JobError::Device {
                text: error.text,
                class: error.class,
            });
        }
        // What it knows of wrapping keys may have changed, so its next order looks again.
        *operator = Some(process);
        Ok(answer)
    }

    /// What processes know of the token is out of date: keys have come or gone by another one.
    pub(crate) fn refresh(&self) -> Result<(), JobError> {
        if let Some(old) = self.operator.lock().take() {
            old.retire();
        }
        *self.operator.lock() = Some(self.start_process().map_err(|end| lost(&end))?);
        Ok(())
    }

    pub(crate) fn probe_key(&self) -> Option<ProbeKey> {
        self.probe_key.lock().clone()
    }

    pub(crate) fn set_probe_key(&self, key: ProbeKey) {
        *self.probe_key.lock() = Some(key);
    }

    // ── its warden ──

    pub(crate) fn ring_warden(&self) {
        *self.warden.0.lock() = true;
        self.warden.1.notify_all();
    }

    /// Waits until somebody rings, or for a while.
    pub(crate) fn wait_for_bell(&self, long: Duration) {
        let mut rung = self.warden.0.lock();
        if !*rung {
            self.warden.1.wait_for(&mut rung, long);
        }
        *rung = false;
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.ring_all();
        self.ring_warden();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Sessions of so many processes.
fn sessions(config: &DeviceConfig, processes: usize) -> u16 {
    u16::try_from(processes)
        .unwrap_or(u16::MAX)
        .saturating_mul(config.sessions.max(1))
}

fn capped(config: &DeviceConfig, knee: u16) -> u16 {
    knee.min(config.in_flight_max.unwrap_or(u16::MAX))
}

fn lost(end: &ProcessEnd) -> JobError {
    tracing::warn!(reason = %end, "an operator's process");
    match end {
        ProcessEnd::Hung | ProcessEnd::Gone => JobError::WorkerLost,
        other => JobError::Device {
            text: other.to_string(),
            class: super::ckr::Class::Device,
        },
    }
}
