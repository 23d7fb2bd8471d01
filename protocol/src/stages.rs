//! Where the time of a request goes: six stages, from its last byte to its answer, and the marks between them.
//!
//! A mark is one relaxed store by whichever thread has the work in hand at that moment; nothing waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of a request's way through the engine, in the order of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// From the last byte to a request that is proved and read.
    Decode,
    /// Checked, its key claimed and its units held, until it is handed to the pool.
    Gate,
    /// Waiting for a lane or a device.
    Queue,
    /// Being signed and verified, the way to a device's process included.
    Sign,
    /// Waiting for the committing thread, being written, and on the disk.
    Commit,
    /// From there to the answer.
    Reply,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Decode,
        Self::Gate,
        Self::Queue,
        Self::Sign,
        Self::Commit,
        Self::Reply,
    ];

    /// Its name in metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Gate => "gate",
            Self::Queue => "queue",
            Self::Sign => "sign",
            Self::Commit => "commit",
            Self::Reply => "reply",
        }
    }
}

/// A moment at which one stage ends and the next begins, after a request has been decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// Handed to the pool: the gate is behind it.
    Queued,
    /// A lane or a device has begun it.
    Begun,
    /// It is signed, and verified where that is due.
    Signed,
    /// It is on the disk.
    Committed,
}

/// The marks of one piece of work, in nanoseconds after its request was received. Zero: not reached.
#[derive(Debug)]
pub struct Marks {
    received: Instant,
    at: [AtomicU64; 4],
}

impl Marks {
    /// No marks yet.
    pub const fn new(received: Instant) -> Self {
        Self {
            received,
            at: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// Sets a mark; work that is tried again sets it again.
    pub fn set(&self, mark: Mark, now: Instant) {
        let ns = now.saturating_duration_since(self.received).as_nanos();
        let ns = u64::try_from(ns).unwrap_or(u64::MAX).max(1);
        self.at[mark as usize].store(ns, Ordering::Relaxed);
    }

    /// The marks, in order, as far as they were reached.
    pub fn read(&self) -> [Option<Duration>; 4] {
        std::array::from_fn(|mark| match self.at[mark].load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        })
    }
}

/// How long each stage took. A request that ended on the way has only the stages that it reached; the one in which it
/// was when its answer came has the rest of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    times: [Duration; 6],
    reached: usize,
}

impl StageTimes {
    /// From the times after receipt at which it was decoded, at which the marks were set, and at which it was answered.
    pub fn of(decoded: Duration, marks: [Option<Duration>; 4], answered: Duration) -> Self {
        let mut found = Self::default();
        let mut before = Duration::ZERO;
        for end in std::iter::once(Some(decoded)).chain(marks) {
            let Some(end) = end else { break };
            // A mark that is older than the one before it is of an earlier try.
            let end = end.min(answered).max(before);
            found.times[found.reached] = end - before;
            found.reached += 1;
            before = end;
        }
        found.times[found.reached] = answered.saturating_sub(before);
        found
    }

    /// The stages that were reached, with their times.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> {
        Stage::ALL.into_iter().zip(self.times).take(self.reached + 1)
    }

    /// Whether it came as far as the pool.
    pub const fn was_queued(&self) -> bool {
        self.reached >= Stage::Queue as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn times(marks: [Option<u64>; 4], answered: u64) -> Vec<(Stage, u128)> {
        let times = StageTimes::of(ms(1), marks.map(|mark| mark.map(ms)), ms(answered));
        times
            .iter()
            .map(|(stage, time)| (stage, time.as_millis()))
            .collect()
    }

    #[test]
    fn the_stages_of_a_request_add_up_to_its_latency() {
        use Stage::{Commit, Decode, Gate, Queue, Reply, Sign};
        let all = times([Some(3), Some(10), Some(14), Some(20)], 21);
        assert_eq!(
            all,
            [
                (Decode, 1),
                (Gate, 2),
                (Queue, 7),
                (Sign, 4),
                (Commit, 6),
                (Reply, 1)
            ]
        );
    }

    #[test]
    fn what_ended_on_the_way_spent_the_rest_where_it_was() {
        use Stage::{Decode, Gate, Queue, Sign};
        assert_eq!(times([None; 4], 9), [(Decode, 1), (Gate, 8)]);
        assert_eq!(
            times([Some(2), None, None, None], 60),
            [(Decode, 1), (Gate, 1), (Queue, 58)]
        );
        assert_eq!(
            times([Some(2), Some(4), None, None], 2_500),
            [(Decode, 1), (Gate, 1), (Queue, 2), (Sign, 2_496)]
        );
    }

    #[test]
    fn a_mark_of_an_earlier_try_makes_no_negative_time() {
        let total: u128 = times([Some(5), Some(40), Some(20), None], 50)
            .iter()
            .map(|(_, time)| time)
            .sum();
        assert_eq!(total, 50);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn marks_are_read_as_they_were_set() {
        let start = Instant::now();
        let marks = Marks::new(start);
        marks.set(Mark::Queued, start);
        marks.set(Mark::Begun, start + ms(7));
        marks.set(Mark::Begun, start + ms(9));
        assert_eq!(
            marks.read(),
            [Some(Duration::from_nanos(1)), Some(ms(9)), None, None]
        );
    }
}
