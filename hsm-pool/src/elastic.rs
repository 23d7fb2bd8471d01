//! How many lanes or processes there should be, from how busy they are. Pure.
//!
//! Growing is quick, because a queue costs the promise; shrinking is slow, because the next burst is like the last.

use std::time::{Duration, Instant};

/// Between which sizes load may move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Never fewer.
    pub min: usize,
    /// Never more.
    pub max: usize,
}

/// A queue longer than this makes it grow.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// For so long, so that a single burst does not count.
const GROW_AFTER: Duration = Duration::from_millis(300);
/// Less busy than this makes it shrink.
const IDLE: f64 = 0.3;
const SHRINK_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Sizer {
    bounds: Bounds,
    waiting_since: Option<Instant>,
    idle_since: Option<Instant>,
}

/// How it goes now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Lanes or processes.
    pub(crate) size: usize,
    /// The part of their time that they worked, 0 to 1.
    pub(crate) busy: f64,
    /// How long the newest job will wait.
    pub(crate) wait: Duration,
}

impl Sizer {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            waiting_since: None,
            idle_since: None,
        }
    }

    /// The size it should have, if another one than it has.
    pub(crate) fn decide(&mut self, now: Instant, load: Load) -> Option<usize> {
        let lasts = |since: &mut Option<Instant>, is_so: bool, long: Duration| {
            if !is_so {
                *since = None;
                return false;
            }
            now.saturating_duration_since(*since.get_or_insert(now)) >= long
        };
        let grow = lasts(&mut self.waiting_since, load.wait > WAIT_MAX, GROW_AFTER);
        let shrink = lasts(&mut self.idle_since, load.busy < IDLE, SHRINK_AFTER);
        let wanted = if grow {
            load.size + load.size.div_ceil(2)
        } else if shrink {
            self.idle_since = Some(now);
            load.size - 1
        } else {
            return None;
        };
        // Its own minimum is a promise even when somebody has set a smaller size by hand.
        let wanted = wanted.clamp(self.bounds.min.min(load.size), self.bounds.max.max(load.size));
        (wanted != load.size).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: f64 = 0.95;

    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    fn load(size: usize, busy: f64, wait_ms: u64) -> Load {
        Load {
            size,
            busy,
            wait: Duration::from_millis(wait_ms),
        }
    }

    #[test]
    fn a_queue_that_lasts_makes_it_grow_by_half_up_to_the_bound() {
        let (now, mut sizer) = (start(), Sizer::new(Bounds { min: 2, max: 6 }));
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(sizer.decide(at(0), load(4, BUSY, 50)), None, "a burst");
        assert_eq!(sizer.decide(at(100), load(4, BUSY, 5)), None, "which has gone");
        assert_eq!(sizer.decide(at(200), load(4, BUSY, 50)), None);
        assert_eq!(sizer.decide(at(500), load(4, BUSY, 50)), Some(6));
        assert_eq!(
            sizer.decide(at(900), load(6, BUSY, 50)),
            None,
            "it is at its bound"
        );
    }

    #[test]
    fn a_quiet_minute_takes_one_away_down_to_the_bound() {
        let (now, mut sizer) = (start(), Sizer::new(Bounds { min: 2, max: 6 }));
        let at = |s| now + Duration::from_secs(s);
        assert_eq!(sizer.decide(at(0), load(3, 0.1, 0)), None);
        assert_eq!(sizer.decide(at(59), load(3, 0.1, 0)), None);
        assert_eq!(sizer.decide(at(60), load(3, 0.1, 0)), Some(2));
        assert_eq!(sizer.decide(at(61), load(2, 0.1, 0)), None);
        assert_eq!(sizer.decide(at(200), load(2, 0.1, 0)), None, "it is at its bound");
    }
}
