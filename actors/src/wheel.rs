//! A timer wheel: which calls are due. Setting a timer costs a push; timers of calls that have ended are left where
//! they are and found stale when their turn comes. No clock of its own.

use std::time::{Duration, Instant};

use protocol::limits::ANSWER_HARD_MS_MAX;

/// A turn is this long; timers fire up to one turn late.
pub(crate) const TURN: Duration = Duration::from_millis(10);
const SLOTS: usize = 512;

const _: () = assert!(SLOTS as u64 * TURN.as_millis() as u64 > ANSWER_HARD_MS_MAX + 1_000);

pub(crate) struct Wheel<T> {
    slots: Vec<Vec<T>>,
    start: Instant,
    /// Turns since `start` whose timers have fired.
    turned: u64,
}

impl<T> Wheel<T> {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            start: now,
            turned: 0,
        }
    }

    /// Sets a timer. A time further away than the wheel reaches fires at the wheel's end.
    pub(crate) fn set(&mut self, due: Instant, timer: T) {
        let turn = due.saturating_duration_since(self.start).as_millis() as u64 / TURN.as_millis() as u64 + 1;
        let turn = turn.clamp(self.turned + 1, self.turned + SLOTS as u64 - 1);
        self.slots[turn as usize % SLOTS].push(timer);
    }

    /// Takes out what is due at `now`.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<T> {
        let upto = now.saturating_duration_since(self.start).as_millis() as u64 / TURN.as_millis() as u64;
        let mut due = Vec::new();
        // After a stall longer than the wheel every slot is due once.
        let from = self.turned.max(upto.saturating_sub(SLOTS as u64 - 1));
        for turn in from + 1..=upto {
            due.append(&mut self.slots[turn as usize % SLOTS]);
        }
        self.turned = self.turned.max(upto);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn timers_fire_at_most_one_turn_late_and_never_early() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut wheel = Wheel::new(start);
        for ms in [0, 5, 100, 2500, 2800] {
            wheel.set(at(ms), ms);
        }
        let mut fired = Vec::new();
        for now in (0..4000).step_by(5) {
            for ms in wheel.due(at(now)) {
                assert!(now >= ms && now <= ms + 20, "{ms} fired at {now}");
                fired.push(ms);
            }
        }
        assert_eq!(fired, [0, 5, 100, 2500, 2800]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn a_stall_loses_no_timer() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for ms in 0..300 {
            wheel.set(start + Duration::from_millis(ms * 10), ms);
        }
        assert_eq!(wheel.due(start + Duration::from_secs(60)).len(), 300);
        wheel.set(start + Duration::from_secs(61), 1);
        assert_eq!(wheel.due(start + Duration::from_secs(62)).len(), 1);
    }
}
