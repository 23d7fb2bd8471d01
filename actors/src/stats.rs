//! What one core has answered, counted without locks and read by whoever wants to know.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::error_code::Code;

/// Counters of one core.
#[derive(Debug)]
pub struct Stats {
    /// Signatures released.
    pub signatures: AtomicU64,
    /// Calls answered with a result.
    pub answered: AtomicU64,
    refused: Box<[AtomicU64]>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            signatures: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refused: Code::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Stats {
    pub(crate) fn count_answer(&self, signatures: u64) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.signatures.fetch_add(signatures, Ordering::Relaxed);
    }

    /// Counts the signatures in a document, whose answer is counted by itself.
    pub(crate) fn count_inside(&self, signatures: u64) {
        self.signatures.fetch_add(signatures, Ordering::Relaxed);
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
}
