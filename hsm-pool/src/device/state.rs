//! How a device is doing: written by its threads, read by whoever chooses, lists or measures.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::life::State;
use super::wire::TokenFacts;

/// Upper bounds of the histogram of times inside a device, in microseconds.
pub const BUCKETS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 2_000_000,
];

/// Counters and gauges of one device.
#[derive(Debug)]
pub struct DeviceState {
    state: AtomicU8,
    share: AtomicU8,
    latched: AtomicBool,
    /// Whether its first probe has come back, whatever it brought.
    probed: AtomicBool,
    /// Whether one of its seats has had a process, or could not get one.
    seated: AtomicBool,
    up: AtomicUsize,
    /// Calls in flight.
    pub in_flight: AtomicUsize,
    /// Calls it may have in flight now.
    pub limit: AtomicU16,
    /// Signatures released.
    pub signed: AtomicU64,
    /// Calls that failed for the request's fault.
    pub refused: AtomicU64,
    /// Calls that failed for the device's fault.
    pub faults: AtomicU64,
    /// Signatures that did not verify; never released.
    pub rejected: AtomicU64,
    /// Jobs whose deadline passed while they waited.
    pub expired: AtomicU64,
    /// Jobs that were given to another device after a fault.
    pub failovers: AtomicU64,
    /// Processes killed because they hung.
    pub kills: AtomicU64,
    /// Processes started.
    pub starts: AtomicU64,
    /// Probe signatures that verified, and those that did not come.
    pub probes: AtomicU64,
    /// Failed probes.
    pub probes_failed: AtomicU64,
    /// Signatures with a wrapped key that was there already.
    pub cache_hits: AtomicU64,
    /// Signatures with a wrapped key that had to be unwrapped.
    pub cache_misses: AtomicU64,
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    service_us_sum: AtomicU64,
    /// Smoothed time inside the device, in nanoseconds.
    service_ns: AtomicU64,
    facts: Mutex<TokenFacts>,
    reason: Mutex<String>,
}

impl Default for DeviceState {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            state: AtomicU8::new(0),
            share: AtomicU8::new(0),
            latched: AtomicBool::new(false),
            probed: AtomicBool::new(false),
            seated: AtomicBool::new(false),
            up: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            limit: AtomicU16::new(1),
            signed: zero(),
            refused: zero(),
            faults: zero(),
            rejected: zero(),
            expired: zero(),
            failovers: zero(),
            kills: zero(),
            starts: zero(),
            probes: zero(),
            probes_failed: zero(),
            cache_hits: zero(),
            cache_misses: zero(),
            buckets: [const { AtomicU64::new(0) }; BUCKETS_US.len() + 1],
            service_us_sum: zero(),
            service_ns: zero(),
            facts: Mutex::default(),
            reason: Mutex::new("starting".into()),
        }
    }
}

const STATES: [State; 4] = [State::Pending, State::Active, State::Draining, State::Quarantined];

impl DeviceState {
    /// Where it stands.
    pub fn state(&self) -> State {
        STATES[usize::from(self.state.load(Ordering::Acquire)) % STATES.len()]
    }

    /// Why it stands there.
    pub fn reason(&self) -> String {
        self.reason.lock().clone()
    }

    /// The part of its share of jobs that it may take now, in percent.
    pub fn share(&self) -> u8 {
        self.share.load(Ordering::Acquire)
    }

    /// Whether only an operator can bring it back: its PIN was refused.
    pub fn is_latched(&self) -> bool {
        self.latched.load(Ordering::Acquire)
    }

    /// Worker processes that serve.
    pub fn workers_up(&self) -> usize {
        self.up.load(Ordering::Acquire)
    }

    /// What the token says of itself; empty before it has been opened.
    pub fn facts(&self) -> TokenFacts {
        self.facts.lock().clone()
    }

    /// Whether the device can unwrap what is wrapped under this wrapping key.
    pub fn has_kek(&self, id: &[u8]) -> bool {
        self.facts.lock().keks.iter().any(|kek| kek.id == id)
    }

    /// Whether it takes jobs: it works, or it is so new that nobody knows yet.
    pub fn takes_jobs(&self) -> bool {
        match self.state() {
            // The first process of its seats may be on its way: jobs wait for it.
            State::Active => self.workers_up() > 0 || !self.is_seated(),
            State::Pending => !self.is_probed(),
            _ => false,
        }
    }

    /// Whether it is known if the device works: its first probe has come back, and where that went well, a process serves
    /// or could not be started.
    pub fn is_settled(&self) -> bool {
        self.is_probed() && (self.state() != State::Active || self.is_seated())
    }

    pub(crate) fn is_probed(&self) -> bool {
        self.probed.load(Ordering::Acquire) || self.is_latched()
    }

    fn is_seated(&self) -> bool {
        self.seated.load(Ordering::Acquire)
    }

    /// One of its seats has had a process, or could not get one.
    pub(crate) fn set_seated(&self) {
        self.seated.store(true, Ordering::Release);
    }

    /// Smoothed time of one call inside the device, in microseconds; 0 before the first.
    pub fn service_us(&self) -> f64 {
        self.service_ns.load(Ordering::Relaxed) as f64 / 1e3
    }

    /// Counts per bucket of the time inside the device (the last: above all bounds), and the sum in microseconds.
    pub fn service_times(&self) -> ([u64; BUCKETS_US.len() + 1], u64) {
        let counts = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        (counts, self.service_us_sum.load(Ordering::Relaxed))
    }

    pub(crate) fn publish(&self, state: State, share: u8, latched: bool) {
        let number = STATES.iter().position(|known| *known == state).unwrap_or(0);
        self.state.store(number as u8, Ordering::Release);
        self.share.store(share, Ordering::Release);
        self.latched.store(latched, Ordering::Release);
    }

    pub(crate) fn explain(&self, reason: String) {
        *self.reason.lock() = reason;
    }

    pub(crate) fn set_probed(&self) {
        self.probed.store(true, Ordering::Release);
    }

    pub(crate) fn set_facts(&self, facts: &TokenFacts) {
        self.facts.lock().clone_from(facts);
    }

    pub(crate) fn worker_up(&self) {
        self.up.fetch_add(1, Ordering::AcqRel);
        self.set_seated();
    }

    pub(crate) fn worker_down(&self) {
        self.up.fetch_sub(1, Ordering::AcqRel);
    }

    /// Counts one call's time inside the device.
    pub(crate) fn count_service(&self, us: u64) {
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.service_us_sum.fetch_add(us, Ordering::Relaxed);
        let old = self.service_ns.load(Ordering::Relaxed);
        let ns = us * 1_000;
        // A sixteenth of each call; two threads that meet here lose one sample, which is no matter.
        let new = if old == 0 { ns } else { old - old / 16 + ns / 16 };
        self.service_ns.store(new, Ordering::Relaxed);
    }

    /// Calls that have come back, and the sum of their times inside the device in microseconds.
    pub(crate) fn served(&self) -> (u64, u64) {
        let (counts, sum) = self.service_times();
        (counts.iter().sum(), sum)
    }
}
