//! Puts the seconds of several threads together: a second is whole when every thread has told of a later one.

use std::collections::BTreeMap;

use crate::files::FileError;
use crate::hlog::HlogWriter;
use crate::report::Point;
use crate::tally::Interval;

/// Seconds that are not whole yet, and what has become of those that are.
pub(crate) struct Collector {
    pending: BTreeMap<u64, Interval>,
    /// The second up to which each thread has told everything.
    told: Vec<u64>,
    /// Seconds of the runs before this one, in a log that goes on.
    offset: u64,
    pub(crate) timeline: Vec<Point>,
}

impl Collector {
    pub(crate) fn new(threads: usize, offset: u64) -> Self {
        Self {
            pending: BTreeMap::new(),
            told: vec![0; threads],
            offset,
            timeline: Vec::new(),
        }
    }

    /// A thread tells of a second; `last`: it has nothing more to tell. Gives the seconds that are whole now.
    pub(crate) fn take(&mut self, thread: usize, interval: Interval, last: bool) -> Vec<Interval> {
        self.told[thread] = if last { u64::MAX } else { interval.second + 1 };
        if last && interval.is_empty() {
            return self.whole();
        }
        match self.pending.entry(interval.second) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(interval);
            }
            std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().merge(&interval),
        }
        self.whole()
    }

    fn whole(&mut self) -> Vec<Interval> {
        let whole = self.told.iter().copied().min().unwrap_or(0);
        let later = self.pending.split_off(&whole);
        std::mem::replace(&mut self.pending, later)
            .into_values()
            .collect()
    }

    /// Books whole seconds.
    pub(crate) fn book(
        &mut self,
        whole: Vec<Interval>,
        log: Option<&mut HlogWriter>,
    ) -> Result<(), FileError> {
        let mut log = log;
        for mut interval in whole {
            interval.second += self.offset;
            self.timeline.push(Point::of(&interval));
            if let Some(log) = &mut log {
                log.second(&interval)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(second: u64, ok: u64) -> Interval {
        Interval {
            ok,
            ..Interval::new(second)
        }
    }

    fn seconds(whole: &[Interval]) -> Vec<(u64, u64)> {
        whole
            .iter()
            .map(|interval| (interval.second, interval.ok))
            .collect()
    }

    #[test]
    fn a_second_waits_for_the_slowest_thread() {
        let mut collector = Collector::new(2, 0);
        assert!(collector.take(0, interval(0, 1), false).is_empty());
        assert!(collector.take(0, interval(1, 2), false).is_empty());
        // The second thread could not tell of second 0 in time, and tells of both at once.
        assert_eq!(
            seconds(&collector.take(1, interval(1, 10), false)),
            [(0, 1), (1, 12)]
        );
        assert!(collector.take(0, interval(2, 4), true).is_empty());
        assert_eq!(
            seconds(&collector.take(1, interval(3, 20), true)),
            [(2, 4), (3, 20)]
        );
    }
}
