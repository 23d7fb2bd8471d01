//! The life of a device: pending → active → draining → quarantined, and back. Pure: events and `now` in, transitions
//! out, so that every rule can be tested without a device or a clock.
//!
//! ```text
//!  pending ──probe ok──► active ──drain──► draining ──resume──► pending
//!     ▲                  │  ▲
//!     │                  │  └── probe ok, then 10 % → 50 % → 100 % of its share (slow start)
//!   resume               ▼                │
//!     └──────────── quarantined ◄─────────┘ an error while it is warming up
//! ```
//!
//! The breaker opens on two hangs within 30 s, on half of at least 20 calls failing for the device's fault within 10 s,
//! on three failed probes in a row, and at once on a signature that does not verify. A refused PIN latches: only an
//! operator's `resume` leads out.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not proven yet: it gets probes and nothing else.
    Pending,
    /// It takes jobs, its whole share or, while it warms up, part of it.
    Active,
    /// It finishes what it has; an operator wants it out.
    Draining,
    /// It does not work; it gets probes with growing pauses.
    Quarantined,
}

impl State {
    /// The name in lists, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Why a device changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A probe signature verified.
    Probed,
    /// An operator asked for it.
    Command,
    /// Two worker processes hung within 30 s.
    Hangs,
    /// Half of its calls failed for its own fault.
    Errors,
    /// Three probes in a row failed.
    Probes,
    /// A signature did not verify.
    Lied,
    /// The PIN was refused.
    Pin,
    /// An error while it was warming up.
    WarmUp,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probed => "a probe signature verified",
            Self::Command => "an operator asked for it",
            Self::Hangs => "worker processes hung",
            Self::Errors => "half of its calls failed",
            Self::Probes => "probes failed",
            Self::Lied => "a signature did not verify",
            Self::Pin => "the PIN was refused",
            Self::WarmUp => "it failed while warming up",
        })
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// Pauses between probes of a device that works.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES_FAILED_MAX: u32 = 3;
const HANGS_WINDOW: Duration = Duration::from_secs(30);
const HANGS_MAX: usize = 2;
const CALLS_WINDOW: Duration = Duration::from_secs(10);
const CALLS_MIN: u64 = 20;
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// Shares while warming up, in percent, and how long each lasts.
const WARM_UP: [u8; 2] = [10, 50];
const WARM_UP_STEP: Duration = Duration::from_secs(1);

/// Calls of one second.
#[derive(Clone, Copy, Debug)]
struct Second {
    start: Instant,
    calls: u64,
    faults: u64,
}

/// The life of one device.
#[derive(Debug)]
pub struct Life {
    state: State,
    /// When it last became active after not working: the beginning of its warm-up.
    warming_since: Option<Instant>,
    /// A device that never failed starts at its whole share.
    proven: bool,
    latched: bool,
    probes_failed: u32,
    hangs: VecDeque<Instant>,
    calls: VecDeque<Second>,
    back_off: Duration,
    next_probe: Instant,
}

impl Life {
    /// A device that has just been added.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Pending,
            warming_since: None,
            proven: false,
            latched: false,
            probes_failed: 0,
            hangs: VecDeque::new(),
            calls: VecDeque::new(),
            back_off: BACK_OFF_MIN,
            next_probe: now,
        }
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether only an operator can bring it back.
    pub const fn is_latched(&self) -> bool {
        self.latched
    }

    /// The part of its share of jobs that it may take now, in percent.
    pub fn share(&self, now: Instant) -> u8 {
        match (self.state, self.warming_since) {
            (State::Active, None) => 100,
            (State::Active, Some(since)) => {
                let step = now.saturating_duration_since(since).as_secs_f64() / WARM_UP_STEP.as_secs_f64();
                WARM_UP.get(step as usize).copied().unwrap_or(100)
            }
            _ => 0,
        }
    }

    /// When the next probe is due; `None` while there is no point.
    pub const fn next_probe(&self) -> Option<Instant> {
        if self.latched { None } else { Some(self.next_probe) }
    }

    fn is_warming(&self, now: Instant) -> bool {
        self.state == State::Active && self.share(now) < 100
    }

    fn go(&mut self, to: State, reason: Reason) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        Transition { from, to, reason }
    }

    fn quarantine(&mut self, now: Instant, reason: Reason) -> Option<Transition> {
        if self.state == State::Quarantined {
            return None;
        }
        self.proven = false;
        self.hangs.clear();
        self.calls.clear();
        self.probes_failed = 0;
        self.next_probe = now + self.back_off;
        // Draining goes on: nobody wants it back.
        (self.state != State::Draining).then(|| self.go(State::Quarantined, reason))
    }

    /// A probe came back. `jitter` in 0..=255 spreads the pauses of several devices.
    pub fn handle_probe(&mut self, now: Instant, worked: bool, jitter: u8) -> Option<Transition> {
        if worked {
            self.probe_worked(now)
        } else {
            self.probe_failed(now, jitter)
        }
    }

    fn probe_worked(&mut self, now: Instant) -> Option<Transition> {
        self.probes_failed = 0;
        self.next_probe = now + PROBE_EVERY;
        match self.state {
            State::Pending | State::Quarantined => {
                self.warming_since = (self.state == State::Quarantined).then_some(now);
                Some(self.go(State::Active, Reason::Probed))
            }
            State::Active if !self.is_warming(now) => {
                // It has worked for a while: a later failure starts over at the shortest pause.
                self.proven = true;
                self.back_off = BACK_OFF_MIN;
                self.warming_since = None;
                None
            }
            _ => None,
        }
    }

    fn probe_failed(&mut self, now: Instant, jitter: u8) -> Option<Transition> {
        self.probes_failed += 1;
        match self.state {
            State::Quarantined | State::Pending => {
                let spread = self.back_off.mul_f64(f64::from(jitter) / 1024.0);
                self.next_probe = now + self.back_off + spread;
                self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
                None
            }
            _ if self.is_warming(now) => self.quarantine(now, Reason::WarmUp),
            _ if self.probes_failed >= PROBES_FAILED_MAX => self.quarantine(now, Reason::Probes),
            _ => {
                // Look again soon: three in a row decide.
                self.next_probe = now + BACK_OFF_MIN;
                None
            }
        }
    }

    /// Calls came back; `faults` of them failed for the device's own fault.
    pub fn handle_calls(&mut self, now: Instant, calls: u64, faults: u64) -> Option<Transition> {
        if faults > 0 && self.is_warming(now) {
            return self.quarantine(now, Reason::WarmUp);
        }
        match self.calls.back_mut() {
            Some(last) if now.saturating_duration_since(last.start) < Duration::from_secs(1) => {
                last.calls += calls;
                last.faults += faults;
            }
            _ => self.calls.push_back(Second {
                start: now,
                calls,
                faults,
            }),
        }
        while self
            .calls
            .front()
            .is_some_and(|first| now.saturating_duration_since(first.start) > CALLS_WINDOW)
        {
            self.calls.pop_front();
        }
        let calls: u64 = self.calls.iter().map(|second| second.calls).sum();
        let faults: u64 = self.calls.iter().map(|second| second.faults).sum();
        let opens = calls >= CALLS_MIN && faults * 2 >= calls;
        if opens {
            self.quarantine(now, Reason::Errors)
        } else {
            None
        }
    }

    /// A worker process hung and was killed.
    pub fn handle_hang(&mut self, now: Instant) -> Option<Transition> {
        if self.is_warming(now) {
            return self.quarantine(now, Reason::WarmUp);
        }
        self.hangs.push_back(now);
        while self
            .hangs
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) > HANGS_WINDOW)
        {
            self.hangs.pop_front();
        }
        let opens = self.hangs.len() >= HANGS_MAX;
        if opens {
            self.quarantine(now, Reason::Hangs)
        } else {
            None
        }
    }

    /// A signature did not verify: nothing it says can be trusted until a probe proves otherwise.
    pub fn handle_lie(&mut self, now: Instant) -> Option<Transition> {
        self.quarantine(now, Reason::Lied)
    }

    /// The PIN was refused: another try could lock the token.
    pub fn handle_pin_refused(&mut self, now: Instant) -> Option<Transition> {
        self.latched = true;
        self.quarantine(now, Reason::Pin)
    }

    /// An operator wants it out.
    pub fn command_drain(&mut self) -> Option<Transition> {
        (self.state != State::Draining).then(|| self.go(State::Draining, Reason::Command))
    }

    /// An operator wants it back, or has mended its PIN.
    pub fn command_resume(&mut self, now: Instant) -> Option<Transition> {
        if matches!(self.state, State::Active | State::Pending) {
            return None;
        }
        self.latched = false;
        self.back_off = BACK_OFF_MIN;
        self.next_probe = now;
        Some(self.go(State::Pending, Reason::Command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock(Instant);

    impl Clock {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        fn new() -> Self {
            Self(Instant::now())
        }

        fn after(&mut self, ms: u64) -> Instant {
            self.0 += Duration::from_millis(ms);
            self.0
        }
    }

    fn active() -> (Life, Clock) {
        let mut clock = Clock::new();
        let mut life = Life::new(clock.0);
        assert_eq!(life.share(clock.0), 0);
        let transition = life.handle_probe(clock.after(1), true, 0).unwrap();
        assert_eq!((transition.from, transition.to), (State::Pending, State::Active));
        assert_eq!(
            life.share(clock.0),
            100,
            "a device that never failed starts at once"
        );
        (life, clock)
    }

    #[test]
    fn two_hangs_open_the_breaker_and_slow_start_leads_back() {
        let (mut life, mut clock) = active();
        assert_eq!(life.handle_hang(clock.after(1)), None);
        let transition = life.handle_hang(clock.after(29_000)).unwrap();
        assert_eq!(
            (transition.to, transition.reason),
            (State::Quarantined, Reason::Hangs)
        );
        assert_eq!(life.share(clock.0), 0);
        assert_eq!(life.next_probe(), Some(clock.0 + BACK_OFF_MIN));
        life.handle_probe(clock.after(1_000), true, 0).unwrap();
        let shares: Vec<u8> = (0..3)
            .map(|_| {
                let share = life.share(clock.0);
                clock.after(1_000);
                share
            })
            .collect();
        assert_eq!(shares, [10, 50, 100]);
    }

    #[test]
    fn hangs_far_apart_are_forgiven() {
        let (mut life, mut clock) = active();
        assert_eq!(life.handle_hang(clock.after(1)), None);
        assert_eq!(life.handle_hang(clock.after(31_000)), None);
    }

    #[test]
    fn half_of_twenty_calls_open_it_and_fewer_do_not() {
        let (mut life, mut clock) = active();
        assert_eq!(
            life.handle_calls(clock.after(1), 19, 19),
            None,
            "too few to judge"
        );
        let (mut life, mut clock2) = active();
        assert_eq!(life.handle_calls(clock2.after(1), 100, 49), None);
        assert_eq!(
            life.handle_calls(clock2.after(1), 2, 2).unwrap().reason,
            Reason::Errors
        );
        let (mut life, _) = active();
        assert_eq!(life.handle_calls(clock.after(1), 15, 15), None);
        assert_eq!(
            life.handle_calls(clock.after(11_000), 15, 0),
            None,
            "old faults are forgotten"
        );
    }

    #[test]
    fn an_error_while_warming_up_sends_it_back() {
        let (mut life, mut clock) = active();
        life.handle_lie(clock.after(1)).unwrap();
        life.handle_probe(clock.after(1_000), true, 0).unwrap();
        assert_eq!(
            life.handle_calls(clock.after(100), 1, 1).unwrap().reason,
            Reason::WarmUp
        );
    }

    #[test]
    fn probes_fail_three_times_and_pauses_grow_to_half_a_minute() {
        let (mut life, mut clock) = active();
        assert_eq!(life.handle_probe(clock.after(5_000), false, 0), None);
        assert_eq!(life.handle_probe(clock.after(1_000), false, 0), None);
        assert_eq!(
            life.handle_probe(clock.after(1_000), false, 0).unwrap().reason,
            Reason::Probes
        );
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let due = life.next_probe().unwrap();
            pauses.push((due - clock.0).as_secs());
            clock.0 = due;
            life.handle_probe(due, false, 0);
        }
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 30]);
    }

    #[test]
    fn a_refused_pin_waits_for_an_operator() {
        let (mut life, mut clock) = active();
        life.handle_pin_refused(clock.after(1)).unwrap();
        assert!(life.is_latched());
        assert_eq!(life.next_probe(), None, "not even a probe tries the PIN again");
        life.command_resume(clock.after(1)).unwrap();
        assert_eq!((life.state(), life.is_latched()), (State::Pending, false));
        assert!(life.next_probe().is_some());
    }

    #[test]
    fn draining_is_an_operators_word_and_failures_do_not_undo_it() {
        let (mut life, mut clock) = active();
        life.command_drain().unwrap();
        assert_eq!(life.share(clock.0), 0);
        assert_eq!(life.handle_lie(clock.after(1)), None);
        assert_eq!(life.handle_probe(clock.after(1), true, 0), None);
        assert_eq!(life.state(), State::Draining);
        assert_eq!(life.command_resume(clock.after(1)).unwrap().to, State::Pending);
    }
}
