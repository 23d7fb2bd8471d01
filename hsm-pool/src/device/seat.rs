//! A seat: a thread that feeds one worker process, checks every signature, kills the process when it hangs, and takes
//! another. It waits for its process and for work at once, and never for more than one thing.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::algorithm::Algorithm;
use protocol::clock;
use protocol::stages::Mark;
use protocol::verify::SignatureBytes;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::ckr::Class;
use super::life::Life;
use super::process::{HANG, Process, ProcessEnd};
use super::rest::Appetite;
use super::unit::{Queued, Unit};
use super::wire::{FromWorker, Op, OpKey, Signed, ToWorker, to_frame};
use crate::job::{Finished, Home, JobError, Work};
use crate::keys::DeviceKeyFacts;
use crate::pool::Inner;

const IDLE: Duration = Duration::from_millis(500);
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// Work sent ahead of a process whose calls are short, in microseconds: it never waits for us, and a hang takes
/// little with it.
const AHEAD_US: f64 = 4_000.0;
const AHEAD_MAX: f64 = 32.0;

/// How a seat is told that there is work.
#[derive(Debug)]
pub(crate) struct Bell {
    event: OwnedFd,
    wanted: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            wanted: AtomicBool::new(false),
        })
    }

    pub(crate) fn ring(&self) {
        self.wanted.store(false, Ordering::Release);
        // A counter that is full has been rung often enough.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(crate) fn ring_if_wanted(&self) -> bool {
        let wanted = self.wanted.swap(false, Ordering::AcqRel);
        if wanted {
            self.ring();
        }
        wanted
    }

    fn clear(&self) {
        // Nothing to read means nobody rang.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// Waits until it is rung, or for a while.
    fn wait(&self, long: Duration) {
        let mut fds = [PollFd::new(&self.event, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timespec(long)));
        self.clear();
    }
}

fn timespec(long: Duration) -> Timespec {
    Timespec {
        tv_sec: long.as_secs().cast_signed(),
        tv_nsec: i64::from(long.subsec_nanos()),
    }
}

pub(crate) struct Seat<T> {
    pub(crate) inner: Arc<Inner<T>>,
    pub(crate) unit: Arc<Unit<T>>,
    pub(crate) bell: Arc<Bell>,
    /// Whether the seat counts among the processes that serve.
    pub(crate) up: Cell<bool>,
}

/// What a process has been sent and has not answered.
struct Flight<T> {
    jobs: HashMap<u64, Sent<T>>,
    next: u64,
    /// The process has said that it ends.
    leaving: bool,
}

struct Sent<T> {
    job: Queued<T>,
    facts: Arc<DeviceKeyFacts>,
    algorithm: Algorithm,
    /// e of an SM2 message; `None`: what the job brought is signed.
    e: Option<[u8; 32]>,
    at: Instant,
}

impl<T> Flight<T> {
    fn new() -> Self {
        Self {
            jobs: HashMap::new(),
            next: 0,
            leaving: false,
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.jobs.values().map(|sent| sent.at).min()
    }
}

impl<T: Work> Seat<T> {
    /// Runs until the seat is taken away or the pool stops.
    pub(crate) fn run(self) {
        let mut back_off = Duration::ZERO;
        let mut spare = None;
        while self.is_kept() {
            let since = clock::monotonic();
            match spare.take().map_or_else(|| self.process(), Ok) {
                Ok(process) => {
                    let end = self.serve(process);
                    if matches!(end, ProcessEnd::Retired) {
                        break;
                    }
                    tracing::warn!(device = &*self.unit.config.name, reason = %end, "worker process ended");
                }
                Err(end) => {
                    self.tell_none(&end);
                    back_off = back_off.max(BACK_OFF_MIN);
                }
            }
            // One that served for a while is replaced at once.
            back_off = if since.elapsed() > BACK_OFF_MAX {
                Duration::ZERO
            } else {
                back_off
            };
            spare = self.replace(back_off);
            back_off = (back_off * 2).clamp(BACK_OFF_MIN, BACK_OFF_MAX);
        }
        self.stand_down();
    }

    /// The spare, if a process may be replaced at once: then the seat has not been empty for anybody. Otherwise the seat
    /// is empty, and waits.
    fn replace(&self, back_off: Duration) -> Option<Process> {
        let spare = back_off.is_zero().then(|| self.unit.take_spare()).flatten();
        if spare.is_none() {
            self.stand_down();
            self.pause(back_off);
        }
        spare
    }

    fn stand_up(&self) {
        if !self.up.replace(true) {
            self.unit.state.worker_up();
        }
    }

    fn stand_down(&self) {
        if self.up.replace(false) {
            self.unit.state.worker_down();
        }
    }

    /// There is no process to be had: what waits for the device must not wait for that.
    fn tell_none(&self, end: &ProcessEnd) {
        if !self.unit.state.is_latched() {
            tracing::warn!(device = &*self.unit.config.name, reason = %end, "no worker process");
        }
        self.unit.state.set_seated();
        if self.unit.state.workers_up() == 0 {
            self.inner.reroute(&self.unit);
        }
    }

    fn is_kept(&self) -> bool {
        !self.unit.is_stopping() && self.unit.place_of(&self.bell).is_some()
    }

    /// Waits; a bell that means work is no reason to start sooner, but an end is.
    fn pause(&self, long: Duration) {
        let until = clock::monotonic() + long;
        loop {
            let left = until.saturating_duration_since(clock::monotonic());
            if left.is_zero() || !self.is_kept() {
                return;
            }
            self.bell.wait(left.min(BACK_OFF_MIN));
        }
    }

    /// The spare, or a new process. The first of a device is the warden's, so that a wrong PIN is tried once.
    fn process(&self) -> Result<Process, ProcessEnd> {
        while !self.unit.state.is_probed() && self.is_kept() {
            self.bell.wait(IDLE);
        }
        if !self.is_kept() {
            return Err(ProcessEnd::Retired);
        }
        match self.unit.take_spare() {
            Some(process) => Ok(process),
            None => self.unit.start_process(),
        }
    }

    fn serve(&self, mut process: Process) -> ProcessEnd {
        tracing::info!(
            device = &*self.unit.config.name,
            token = process.facts.label,
            process = process.id(),
            "worker process serves"
        );
        let mut flight = Flight::new();
        self.stand_up();
        let end = loop {
            if let Err(end) = self.turn(&mut process, &mut flight) {
                break end;
            }
        };
        match end {
            ProcessEnd::Retired => process.retire(),
            _ => drop(process),
        }
        let in_flight = flight.jobs.len();
        self.unit.state.in_flight.fetch_sub(in_flight, Ordering::Relaxed);
        let (begun, not_begun) = self.split(flight);
        self.tell_end(&end, begun.len() as u64);
        for job in begun {
            self.inner.again(&self.unit, job, JobError::WorkerLost);
        }
        self.inner.route_again(&self.unit, not_begun);
        end
    }

    /// What a process that has ended may have been working on, and what was only lying with it: its sessions take jobs in
    /// the order in which they were sent.
    fn split(&self, flight: Flight<T>) -> (Vec<Queued<T>>, Vec<Queued<T>>) {
        let mut jobs: Vec<(u64, Sent<T>)> = flight.jobs.into_iter().collect();
        jobs.sort_unstable_by_key(|(id, _)| *id);
        let sessions = usize::from(self.unit.config.sessions.max(1));
        let mut begun: Vec<_> = jobs.into_iter().map(|(_, sent)| sent.job).collect();
        let not_begun = begun.split_off(sessions.min(begun.len()));
        (begun, not_begun)
    }

    /// Tells the device's life how a process ended.
    fn tell_end(&self, end: &ProcessEnd, lost: u64) {
        let closed = match end {
            ProcessEnd::Retired => false,
            ProcessEnd::Hung => {
                self.unit.state.kills.fetch_add(1, Ordering::Relaxed);
                self.unit.live(Life::handle_hang)
            }
            ProcessEnd::Lied => self.unit.live(Life::handle_lie),
            ProcessEnd::Pin(_) => self.unit.live(Life::handle_pin_refused),
            _ => lost > 0 && self.unit.live(|life, now| life.handle_calls(now, lost, lost)),
        };
        if closed {
            self.inner.reroute(&self.unit);
        }
    }

    /// Sends what may be sent, waits for whatever comes first, takes what has come.
    fn turn(&self, process: &mut Process, flight: &mut Flight<T>) -> Result<(), ProcessEnd> {
        if flight.leaving {
            if flight.jobs.is_empty() {
                return Err(ProcessEnd::Gone);
            }
        } else if self.is_kept() || self.unit.waiting() > 0 && self.unit.is_stopping() {
            self.feed(process, flight)?;
        } else if flight.jobs.is_empty() {
            return Err(ProcessEnd::Retired);
        }
        if self.wait(process, flight)? {
            process.read(HANG)?;
        }
        while let Some(message) = process.next()? {
            match message {
                FromWorker::Signed(results) => self.take(results, process, flight)?,
                FromWorker::Leaving(not_begun) => self.take_back(&not_begun, flight),
                _ => return Err(ProcessEnd::Unreadable),
            }
        }
        Ok(())
    }

    /// How many more jobs the process may be sent.
    fn room(&self, flight: &Flight<T>) -> usize {
        let state = &self.unit.state;
        let Some((place, seats)) = self.unit.place_of(&self.bell) else {
            return 0;
        };
        if !state.takes_jobs() {
            return 0;
        }
        match self.unit.appetite() {
            Appetite::Usual => {}
            Appetite::Trial => return usize::from(place == 0 && flight.jobs.is_empty()),
            Appetite::None(_) => return 0,
        }
        let limit = usize::from(state.limit.load(Ordering::Relaxed));
        let mine = limit / seats + usize::from(place < limit % seats);
        let sessions = usize::from(self.unit.config.sessions.max(1));
        let service_us = state.service_us();
        let ahead = if mine >= sessions && service_us > 0.0 {
            (AHEAD_US * sessions as f64 / service_us).min(AHEAD_MAX)
        } else {
            // More than it may work on at once must not be lying with it, and before its first call nobody knows how much that is.
            0.0
        };
        (mine + ahead as usize).saturating_sub(flight.jobs.len())
    }

    fn feed(&self, process: &mut Process, flight: &mut Flight<T>) -> Result<(), ProcessEnd> {
        let room = self.room(flight);
        if room == 0 {
            return Ok(());
        }
        let now = clock::monotonic();
        let taken = self.unit.take(room, now);
        self.unit
            .state
            .expired
            .fetch_add(taken.expired.len() as u64, Ordering::Relaxed);
        self.inner.fail(taken.expired, &JobError::Expired);
        let mut ids = Vec::with_capacity(taken.alive.len());
        for job in taken.alive {
            match self.prepare(job, now) {
                Ok(sent) => {
                    flight.jobs.insert(flight.next, sent);
                    ids.push(flight.next);
                    flight.next += 1;
                }
                Err((job, error)) => self.inner.fail([job], &error),
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        self.unit.state.in_flight.fetch_add(ids.len(), Ordering::Relaxed);
        let ops = ids
            .iter()
            .filter_map(|id| Some(op(*id, flight.jobs.get(id)?)))
            .collect();
        process.send(&to_frame(&ToWorker::Sign(ops)))
    }

    fn prepare(&self, job: Queued<T>, at: Instant) -> Result<Sent<T>, (Queued<T>, JobError)> {
        let facts = match self.inner.keys.device(job.work.key()) {
            Ok(facts) => facts,
            Err(text) => return Err((job, JobError::Key(text))),
        };
        job.work.mark(Mark::Begun, at);
        let mut algorithm = job.work.algorithm();
        // Devices sign e; what it is computed from is ours to know.
        let e = if algorithm == Algorithm::Sm2Sm3 {
            algorithm = Algorithm::Sm2Sm3E;
            facts.public.sm2_e(job.work.user_id(), job.work.input())
        } else {
            None
        };
        Ok(Sent {
            job,
            facts,
            algorithm,
            e,
            at,
        })
    }

    /// Waits for the process or the bell. True: the process has something to say.
    fn wait(&self, process: &Process, flight: &Flight<T>) -> Result<bool, ProcessEnd> {
        let now = clock::monotonic();
        let mut patience = match flight.oldest() {
            Some(at) => (at + HANG).saturating_duration_since(now),
            None => IDLE,
        };
        if patience.is_zero() {
            return Err(ProcessEnd::Hung);
        }
        if let Appetite::None(rest) = self.unit.appetite() {
            // At its end this seat may want a job again.
            patience = patience.min(rest);
        }
        if self.room(flight) > 0 && !flight.leaving {
            self.bell.wanted.store(true, Ordering::Release);
            // Work that came before the bell was wanted rang nobody.
            if self.unit.waiting() > 0 {
                self.bell.wanted.store(false, Ordering::Release);
                return Ok(false);
            }
        }
        let mut fds = [
            PollFd::new(process.socket(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.bell.event.as_fd(), PollFlags::IN),
        ];
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timespec(patience)));
        let speaks = !fds[0].revents().is_empty();
        if !fds[1].revents().is_empty() {
            self.bell.clear();
        }
        Ok(speaks)
    }

    /// Takes results off the flight. False: there was one among them that nobody had asked for.
    fn land(&self, results: Vec<Signed>, flight: &mut Flight<T>) -> (Vec<(Sent<T>, Signed)>, bool) {
        let mut landed = Vec::with_capacity(results.len());
        for signed in results {
            let Some(sent) = flight.jobs.remove(&signed.id) else {
                return (landed, false);
            };
            self.unit.state.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.unit.state.count_service(u64::from(signed.us));
            landed.push((sent, signed));
        }
        (landed, true)
    }

    /// Takes results, and gives the process its next jobs before it looks at them: it signs while we verify.
    fn take(
        &self,
        results: Vec<Signed>,
        process: &mut Process,
        flight: &mut Flight<T>,
    ) -> Result<(), ProcessEnd> {
        let (landed, readable) = self.land(results, flight);
        let goes_on = readable && !flight.leaving && self.is_kept();
        let fed = if goes_on && landed.iter().all(|(_, signed)| signed.error.is_none()) {
            self.feed(process, flight)
        } else {
            Ok(())
        };
        self.settle(landed)?;
        fed?;
        readable.then_some(()).ok_or(ProcessEnd::Unreadable)
    }

    /// Signatures that verify are released, faults may be tried elsewhere.
    fn settle(&self, landed: Vec<(Sent<T>, Signed)>) -> Result<(), ProcessEnd> {
        let mut finished = Vec::with_capacity(landed.len());
        let (mut calls, mut faults, mut lied, mut pin, mut busy) = (0, 0, false, false, false);
        for (sent, signed) in landed {
            calls += 1;
            let unwrapped = signed.unwrapped;
            let inside = Duration::from_micros(u64::from(signed.us));
            match check(&sent, signed) {
                Ok(signature) => {
                    self.count_signed(&sent, unwrapped);
                    mark_signed(&sent, inside);
                    finished.push(Finished {
                        work: sent.job.work,
                        result: Ok(signature),
                    });
                }
                Err(error) => {
                    faults += u64::from(self.count_failed(&error));
                    lied |= error == JobError::Rejected;
                    busy |= is_of(&error, Class::Busy);
                    pin |= is_of(&error, Class::Auth);
                    self.inner.again(&self.unit, sent.job, error);
                }
            }
        }
        let signed = !finished.is_empty();
        self.inner.deliver(finished);
        if self.unit.rest_or_go_on(signed, busy) {
            self.inner.reroute(&self.unit);
        }
        if lied {
            return Err(ProcessEnd::Lied);
        }
        if pin {
            return Err(ProcessEnd::Pin("while signing".into()));
        }
        if self.unit.live(|life, now| life.handle_calls(now, calls, faults)) {
            self.inner.reroute(&self.unit);
        }
        Ok(())
    }

    fn count_signed(&self, sent: &Sent<T>, unwrapped: bool) {
        let state = &self.unit.state;
        state.signed.fetch_add(1, Ordering::Relaxed);
        if matches!(sent.job.work.home(), Home::Wrapped { .. }) {
            let counter = if unwrapped {
                &state.cache_misses
            } else {
                &state.cache_hits
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a failure. True: the device is to blame.
    fn count_failed(&self, error: &JobError) -> bool {
        let state = &self.unit.state;
        let (counter, blame) = match error {
            JobError::Rejected => (&state.rejected, true),
            JobError::Device {
                class: Class::Busy, ..
            } => (&state.faults, false),
            JobError::Device {
                class: Class::Request,
                ..
            } => (&state.refused, false),
            _ => (&state.faults, true),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        blame
    }

    /// The process ends in order, and has not begun these: they lose nothing but time.
    fn take_back(&self, not_begun: &[u64], flight: &mut Flight<T>) {
        flight.leaving = true;
        let back: Vec<_> = not_begun.iter().filter_map(|id| flight.jobs.remove(id)).collect();
        self.unit.state.in_flight.fetch_sub(back.len(), Ordering::Relaxed);
        self.inner
            .route_again(&self.unit, back.into_iter().map(|sent| sent.job));
    }
}

/// What was lying with the process before it was begun was still waiting.
fn mark_signed<T: Work>(sent: &Sent<T>, inside: Duration) {
    let now = clock::monotonic();
    let begun = now
        .checked_sub(inside)
        .map_or(sent.at, |begun| begun.max(sent.at));
    sent.job.work.mark(Mark::Begun, begun);
    sent.job.work.mark(Mark::Signed, now);
}

fn is_of(error: &JobError, wanted: Class) -> bool {
    matches!(error, JobError::Device { class, .. } if *class == wanted)
}

fn op<T: Work>(id: u64, sent: &Sent<T>) -> Op<'_> {
    let work = &sent.job.work;
    let key = match (work.home(), &sent.facts.wrapped) {
        (Home::Wrapped { .. }, Some(wrapped)) => OpKey::Wrapped {
            row: work.key().0,
            tenant: work.tenant().0,
            kind: sent.facts.public.kind().name(),
            mechanism: wrapped.mechanism,
            vendor: &wrapped.vendor,
            kek: &wrapped.kek,
            blob: &wrapped.blob,
        },
        (Home::Devices { object, .. }, _) => OpKey::Object(object),
        _ => OpKey::Object(&[]),
    };
    let input = sent.e.as_ref().map_or_else(|| work.input(), |e| &e[..]);
    Op {
        id,
        algorithm: sent.algorithm.wire(),
        input,
        key,
    }
}

/// A device's signature counts only when it verifies with the key we expect.
fn check<T: Work>(sent: &Sent<T>, signed: Signed) -> Result<SignatureBytes, JobError> {
    if let Some(error) = signed.error {
        return Err(JobError::Device {
            text: error.text,
            class: error.class,
        });
    }
    let input = sent.e.as_ref().map_or_else(|| sent.job.work.input(), |e| &e[..]);
    sent.facts
        .public
        .verify(sent.algorithm, input, &signed.signature)
        .map_err(|_| JobError::Rejected)?;
    Ok(SignatureBytes::from_vec(signed.signature))
}
