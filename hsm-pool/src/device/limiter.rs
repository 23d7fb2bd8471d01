//! How many calls a device may have in flight: never more than its knee, and fewer while fewer do as much. Pure.
//!
//! A device that gets slower may be overloaded (then fewer calls in flight cost nothing and shorten its queue) or just
//! slow (then fewer calls only waste it). So a cut is a trial: it stays if throughput stays.

/// What a device did in one second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Second {
    /// Calls that came back.
    pub(crate) calls: u64,
    /// Their average time inside the device, in microseconds.
    pub(crate) average_us: f64,
}

/// Calls take this many times as long as they should: something is wrong.
const SLOW: f64 = 2.0;
const CUT: f64 = 0.8;
/// A cut that costs more than this part of the throughput is taken back.
const LOSS: f64 = 0.05;
/// What "as long as they should" forgets, each second.
const DRIFT: f64 = 1.002;
/// Fewer calls than this in a second say nothing.
const CALLS_MIN: u64 = 10;

#[derive(Debug)]
pub(crate) struct Limiter {
    knee: f64,
    limit: f64,
    usual_us: Option<f64>,
    /// The limit and the calls in a second before the last cut, while it is on trial.
    trial: Option<(f64, u64)>,
}

impl Limiter {
    pub(crate) fn new(knee: u16) -> Self {
        let knee = f64::from(knee.max(1));
        Self {
            knee,
            limit: knee,
            usual_us: None,
            trial: None,
        }
    }

    /// The knee has been measured, or the device has another size.
    pub(crate) fn set_knee(&mut self, knee: u16) {
        *self = Self {
            usual_us: self.usual_us,
            ..Self::new(knee)
        };
    }

    pub(crate) fn limit(&self) -> u16 {
        self.limit as u16
    }

    pub(crate) fn step(&mut self, second: Second) {
        if second.calls < CALLS_MIN {
            return;
        }
        let usual = self
            .usual_us
            .map_or(second.average_us, |usual| (usual * DRIFT).min(second.average_us));
        self.usual_us = Some(usual);
        if let Some((limit, calls)) = self.trial.take()
            && (second.calls as f64) < calls as f64 * (1.0 - LOSS)
        {
            // It is slow, not overloaded: this is what it takes now.
            self.limit = limit;
            self.usual_us = Some(second.average_us);
        } else if second.average_us > usual * SLOW && self.limit > 1.0 {
            self.trial = Some((self.limit, second.calls));
            self.limit = (self.limit * CUT).max(1.0);
        } else {
            self.limit = (self.limit + 1.0).min(self.knee);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(calls: u64, average_us: f64) -> Second {
        Second { calls, average_us }
    }

    #[test]
    fn an_overloaded_device_gets_fewer_calls_and_then_its_knee_again() {
        let mut limiter = Limiter::new(16);
        limiter.step(second(1000, 1000.0));
        for _ in 0..5 {
            // As many calls however few are in flight: the rest was queueing inside the device.
            limiter.step(second(1000, 3000.0));
        }
        assert!(limiter.limit() < 8, "{}", limiter.limit());
        for _ in 0..20 {
            limiter.step(second(1000, 1000.0));
        }
        assert_eq!(limiter.limit(), 16);
    }

    #[test]
    fn a_device_that_is_merely_slow_keeps_its_calls() {
        let mut limiter = Limiter::new(10);
        limiter.step(second(10_000, 1000.0));
        limiter.step(second(1_000, 10_000.0));
        assert_eq!(limiter.limit(), 8, "a trial");
        limiter.step(second(800, 10_000.0));
        assert_eq!(limiter.limit(), 10, "which cost throughput and is taken back");
        limiter.step(second(1_000, 10_000.0));
        assert_eq!(limiter.limit(), 10);
    }

    #[test]
    fn a_quiet_second_says_nothing_and_the_limit_is_at_least_one() {
        let mut limiter = Limiter::new(1);
        limiter.step(second(3, 1e9));
        limiter.step(second(100, 1.0));
        limiter.step(second(100, 100.0));
        assert_eq!(limiter.limit(), 1);
        limiter.set_knee(4);
        assert_eq!(limiter.limit(), 4);
    }
}
