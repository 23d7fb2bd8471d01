//! When requests are meant to leave: an open loop. Request *i* leaves at `start + i / rate`, whatever became of those
//! before it; a server that stalls finds the requests waiting at its door, and their latency counts from the moment
//! they were meant to leave (coordinated omission: Tene, "How NOT to Measure Latency").

use std::time::{Duration, Instant};

/// A constant arrival rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: Instant,
    rate: f64,
    count: u64,
    /// Requests that are meant to leave before this are not counted.
    counted_from: Instant,
}

impl Schedule {
    pub(crate) fn new(start: Instant, rate: f64, warm_up: Duration, duration: Duration) -> Self {
        let count = ((warm_up + duration).as_secs_f64() * rate).round() as u64;
        Self {
            start,
            rate,
            count,
            counted_from: start + warm_up,
        }
    }

    /// When request `number` is meant to leave; `None` after the last.
    pub(crate) fn intended(&self, number: u64) -> Option<Instant> {
        (number < self.count).then(|| self.start + Duration::from_secs_f64(number as f64 / self.rate))
    }

    /// Whether a request meant to leave then is counted.
    pub(crate) fn counts(&self, intended: Instant) -> bool {
        intended >= self.counted_from
    }

    /// When counting begins.
    pub(crate) const fn counted_from(&self) -> Instant {
        self.counted_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn requests_leave_evenly_and_the_warm_up_is_not_counted() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 200.0, Duration::from_secs(1), Duration::from_secs(2));
        let times: Vec<_> = (0..).map_while(|number| schedule.intended(number)).collect();
        assert_eq!(times.len(), 600);
        assert_eq!(times[1] - times[0], Duration::from_millis(5));
        assert_eq!(times[599] - start, Duration::from_millis(2995));
        assert_eq!(times.iter().filter(|time| schedule.counts(**time)).count(), 400);
    }
}
