//! Where the cores' latencies come together: the last second, the running minute and the one before it, everything since
//! the engine started, and the slow requests. Written by one thread once a second; read by whoever measures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use protocol::clock::UnixMillis;
use tokio::sync::watch;

use super::{Example, Recorded, Series};

/// Slow requests kept; of more, the latest.
const SLOW_MAX: usize = 512;

/// What one core has handed over and nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<Recorded>);

impl Outbox {
    /// Hands over what was recorded, for an empty one; nothing is lost when the last one has not been taken.
    pub(crate) fn swap(&self, recorded: &mut Recorded) {
        let mut waiting = self.0.lock();
        if waiting.is_empty() {
            std::mem::swap(&mut *waiting, recorded);
        }
    }

    /// Notes one answer of a thread that has nothing of its own to hand over.
    pub(crate) fn record(&self, series: Series, latency: Duration) {
        self.0.lock().record(series, latency);
    }

    fn take_into(&self, second: &mut Recorded) {
        let mut waiting = self.0.lock();
        second.merge(&waiting);
        second.slow.append(&mut waiting.slow);
        second.sampled.append(&mut waiting.sampled);
        waiting.reset();
    }
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Since the engine started.
    pub total: Recorded,
    /// The minute that is running.
    pub minute: Recorded,
    /// The one before it.
    pub last_minute: Recorded,
    /// Slow requests, the latest last.
    pub slow: VecDeque<Example>,
    minute_number: u64,
}

impl Remembered {
    /// The last minute and what there is of the running one.
    pub fn recent(&self) -> Recorded {
        let mut recent = Recorded::default();
        recent.merge(&self.last_minute);
        recent.merge(&self.minute);
        recent
    }

    /// The longest of the last minute and the running one, in microseconds.
    pub fn recent_max_us(&self) -> u64 {
        let parts = [&self.last_minute, &self.minute];
        let all = parts.into_iter().flat_map(Recorded::series);
        all.map(|(_, distribution)| distribution.max_us)
            .max()
            .unwrap_or(0)
    }

    fn add(&mut self, second: &Recorded, now: UnixMillis) {
        let number = now.seconds() / 60;
        if number != self.minute_number {
            let over = std::mem::take(&mut self.minute);
            // After a minute without anybody to collect it, the one before it is not the last one.
            self.last_minute = if number == self.minute_number + 1 {
                over
            } else {
                Recorded::default()
            };
            self.minute_number = number;
        }
        self.minute.merge(second);
        self.total.merge(second);
        self.slow.extend(second.slow.iter().cloned());
        let surplus = self.slow.len().saturating_sub(SLOW_MAX);
        self.slow.drain(..surplus);
    }
}

/// The book.
#[derive(Debug, Default)]
pub struct LatencyBook {
    remembered: Mutex<Remembered>,
    seconds: watch::Sender<Arc<Recorded>>,
}

impl LatencyBook {
    /// Takes what the cores have handed over, once a second; returns it.
    pub(crate) fn collect<'a>(
        &self,
        outboxes: impl Iterator<Item = &'a Outbox>,
        now: UnixMillis,
    ) -> Arc<Recorded> {
        let mut second = Recorded::default();
        outboxes.for_each(|outbox| outbox.take_into(&mut second));
        let second = Arc::new(second);
        self.remembered.lock().add(&second, now);
        self.seconds.send_replace(Arc::clone(&second));
        second
    }

    /// Each second as it is collected; who is late sees the latest only.
    pub fn seconds(&self) -> watch::Receiver<Arc<Recorded>> {
        self.seconds.subscribe()
    }

    /// Everything, for a short look: the collecting thread waits for it.
    pub fn look(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::{Ending, Operation, Transport};

    fn series(ending: Ending) -> Series {
        Series {
            operation: Operation::Usage,
            transport: Transport::Https,
            algorithm: None,
            ending,
        }
    }

    fn hand_over(outbox: &Outbox, core: &mut Recorded, ms: u64) {
        core.record(series(Ending::Ok), Duration::from_millis(ms));
        outbox.swap(core);
    }

    fn count(recorded: &Recorded) -> u64 {
        recorded.total(|_| true).count()
    }

    #[test]
    fn nothing_is_lost_when_nobody_collects_for_a_while() {
        let (outbox, mut core, book) = (Outbox::default(), Recorded::default(), LatencyBook::default());
        let at = |second: u64| UnixMillis(second * 1_000);
        hand_over(&outbox, &mut core, 1);
        hand_over(&outbox, &mut core, 2);
        hand_over(&outbox, &mut core, 3);
        assert_eq!(count(&book.collect([&outbox].into_iter(), at(60))), 1);
        outbox.swap(&mut core);
        assert_eq!(count(&book.collect([&outbox].into_iter(), at(61))), 2);
        assert!(core.is_empty());
        assert_eq!(count(&book.look().total), 3);
    }

    #[test]
    fn minutes_follow_one_another_and_the_longest_is_forgotten_after_two() {
        let (outbox, mut core, book) = (Outbox::default(), Recorded::default(), LatencyBook::default());
        let mut beat = |second: u64, ms: Option<u64>| {
            if let Some(ms) = ms {
                hand_over(&outbox, &mut core, ms);
            }
            book.collect([&outbox].into_iter(), UnixMillis(second * 1_000));
            book.look().recent_max_us()
        };
        assert_eq!(beat(600, Some(900)), 900_000);
        assert_eq!(beat(659, None), 900_000);
        assert_eq!(beat(660, Some(5)), 900_000, "it is the last minute's");
        assert_eq!(beat(720, None), 5_000);
        assert_eq!(beat(1_200, None), 0, "minutes that nobody saw lie between");
        assert_eq!(count(&book.look().total), 2);
        assert_eq!(count(&book.look().recent()), 0);
    }
}
