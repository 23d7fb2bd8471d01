//! A device that says it is busy rests. Pure.
//!
//! Busy is not sick, so the breaker stays closed; but a device that refuses at once looks like the least loaded one, and
//! would draw every job to itself. So it gets nothing for a moment, then one job on trial: a signature ends the rest,
//! another refusal doubles it.

use std::time::{Duration, Instant};

const REST_MIN: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_secs(1);

/// What a device may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appetite {
    /// As much as its limit allows.
    Usual,
    /// One job, to see how it does.
    Trial,
    /// Nothing for so long.
    None(Duration),
}

#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// The last pause; zero while it is not known to be busy.
    pause: Duration,
    until: Option<Instant>,
}

impl Rest {
    /// A call came back as busy. True: a rest begins.
    pub(crate) fn handle_busy(&mut self, now: Instant) -> bool {
        if matches!(self.appetite(now), Appetite::None(_)) {
            // Sent before the rest began.
            return false;
        }
        self.pause = (self.pause * 2).clamp(REST_MIN, REST_MAX);
        self.until = Some(now + self.pause);
        true
    }

    /// A signature came back.
    pub(crate) fn handle_signed(&mut self, now: Instant) {
        if self.appetite(now) == Appetite::Trial {
            *self = Self::default();
        }
    }

    pub(crate) fn appetite(&self, now: Instant) -> Appetite {
        match self.until {
            None => Appetite::Usual,
            Some(until) if now < until => Appetite::None(until - now),
            Some(_) => Appetite::Trial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn rests_grow_while_trials_fail_and_end_with_a_signature() {
        let (now, mut rest) = (start(), Rest::default());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(rest.appetite(now), Appetite::Usual);
        assert!(rest.handle_busy(now));
        assert_eq!(rest.appetite(at(5)), Appetite::None(Duration::from_millis(15)));
        assert!(!rest.handle_busy(at(5)), "it was sent before");
        rest.handle_signed(at(6));
        assert_eq!(rest.appetite(at(6)), Appetite::None(Duration::from_millis(14)));
        assert_eq!(rest.appetite(at(20)), Appetite::Trial);
        assert!(rest.handle_busy(at(20)));
        assert_eq!(rest.appetite(at(20)), Appetite::None(Duration::from_millis(40)));
        rest.handle_signed(at(60));
        assert_eq!(rest.appetite(at(60)), Appetite::Usual);
        assert!(rest.handle_busy(at(61)));
        assert_eq!(
            rest.appetite(at(61)),
            Appetite::None(REST_MIN),
            "and it starts over"
        );
    }

    #[test]
    fn a_rest_is_never_longer_than_a_second() {
        let (mut now, mut rest) = (start(), Rest::default());
        for _ in 0..20 {
            assert!(rest.handle_busy(now));
            let Appetite::None(pause) = rest.appetite(now) else {
                panic!("it rests")
            };
            assert!(pause <= REST_MAX);
            now += pause;
        }
    }
}
