//! What one core has answered, counted without locks and read by whoever wants to know.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::error_code::Code;

/// Upper bounds of the latency buckets, in microseconds. 100 ms and 3 s are exact, because they are promised.
pub const BUCKETS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    3_000_000,
];

/// Counters of one core.
#[derive(Debug)]
pub struct Stats {
    /// Signatures released.
    pub signatures: AtomicU64,
    /// Calls answered with a result.
    pub answered: AtomicU64,
    refused: Box<[AtomicU64]>,
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    latency_us_sum: AtomicU64,
    latency_us_max: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            signatures: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refused: Code::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            buckets: [const { AtomicU64::new(0) }; BUCKETS_US.len() + 1],
            latency_us_sum: AtomicU64::new(0),
            latency_us_max: AtomicU64::new(0),
        }
    }
}

impl Stats {
    pub(crate) fn count_answer(&self, latency: Duration, signatures: u64) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.signatures.fetch_add(signatures, Ordering::Relaxed);
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.latency_us_sum.fetch_add(us, Ordering::Relaxed);
        self.latency_us_max.fetch_max(us, Ordering::Relaxed);
    }

    /// Counts a refusal, also of a request that never became a call.
    pub fn count_refusal(&self, code: Code) {
        if let Some(place) = Code::ALL.iter().position(|known| *known == code) {
            self.refused[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals and failures by code.
    pub fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        Code::ALL
            .iter()
            .zip(&self.refused)
            .map(|(code, count)| (*code, count.load(Ordering::Relaxed)))
    }

    /// Counts per latency bucket (the last: above all bounds), and the sum in microseconds.
    pub fn latencies(&self) -> ([u64; BUCKETS_US.len() + 1], u64) {
        let counts = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        (counts, self.latency_us_sum.load(Ordering::Relaxed))
    }

    /// The longest latency since the last call of this function, in microseconds.
    pub fn take_max_us(&self) -> u64 {
        self.latency_us_max.swap(0, Ordering::Relaxed)
    }
}
