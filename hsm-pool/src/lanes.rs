//! Software lanes: OS threads that take what has piled up, sign it, and hand it on in one go.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::Receiver;
use protocol::algorithm::Algorithm;
use protocol::clock;
use protocol::verify::SignatureBytes;

use crate::job::{Finished, JobError, Sink, Work, cost_us};
use crate::keys::Keys;
use crate::soft::{SoftKey, SoftKeyError};

/// Which signatures of software lanes are verified before they leave (SEMANTICS 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// RSA and Ed25519 always; one in 64 of ECDSA and SM2.
    #[default]
    Sampled,
    /// Every one.
    All,
}

/// One in this many ECDSA and SM2 signatures is verified.
const SAMPLE: u64 = 64;
/// A lane stops collecting when what it holds takes about this long, in microseconds: enough to spread the cost of
/// handing over, too little to keep anybody waiting.
const BATCH_US_MAX: u64 = 400;

/// Counters of the software lanes.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// Signatures made.
    pub signed: AtomicU64,
    /// Signatures verified before they left.
    pub verified: AtomicU64,
    /// Jobs that brought no signature.
    pub failed: AtomicU64,
}

pub(crate) struct Lane<T> {
    pub(crate) jobs: Receiver<T>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) sink: Arc<dyn Sink<T>>,
    pub(crate) verify: Verify,
    pub(crate) counters: Arc<LaneCounters>,
    /// What waits in the queue, in microseconds of one core.
    pub(crate) waiting_us: Arc<AtomicU64>,
}

impl<T: Work> Lane<T> {
    /// Runs until the pool lets go of the queue.
    pub(crate) fn run(self) {
        let mut made = 0;
        while let Ok(first) = self.jobs.recv() {
            let batch = self.collect(first);
            let now = clock::monotonic();
            let finished = batch
                .into_iter()
                .map(|work| self.finish(work, now, &mut made))
                .collect();
            self.sink.finished(finished);
        }
    }

    fn collect(&self, first: T) -> Vec<T> {
        let mut cost = cost_us(first.kind());
        let mut batch = vec![first];
        while cost < BATCH_US_MAX {
            let Ok(next) = self.jobs.try_recv() else { break };
            cost += cost_us(next.kind());
            batch.push(next);
        }
        self.waiting_us.fetch_sub(cost, Ordering::Relaxed);
        batch
    }

    fn finish(&self, work: T, now: Instant, made: &mut u64) -> Finished<T> {
        *made += 1;
        let check = self.must_verify(work.algorithm(), *made);
        // A panic in a library must cost one job, not the lane.
        let result = catch_unwind(AssertUnwindSafe(|| self.sign(&work, now, check)));
        let result = result.unwrap_or(Err(JobError::Internal));
        let counter = if result.is_ok() {
            &self.counters.signed
        } else {
            &self.counters.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Finished { work, result }
    }

    fn must_verify(&self, algorithm: Algorithm, made: u64) -> bool {
        self.verify == Verify::All || !algorithm.is_pair() || made.is_multiple_of(SAMPLE)
    }

    fn sign(&self, work: &T, now: Instant, check: bool) -> Result<SignatureBytes, JobError> {
        if now >= work.deadline() {
            return Err(JobError::Expired);
        }
        let key = self.keys.software(work.key()).map_err(JobError::Key)?;
        let signature = sign_with(&key, work)?;
        if check {
            self.counters.verified.fetch_add(1, Ordering::Relaxed);
            key.check(work.algorithm(), work.input(), work.user_id(), &signature)
                .map_err(|_| JobError::Rejected)?;
        }
        Ok(signature)
    }
}

fn sign_with<T: Work>(key: &SoftKey, work: &T) -> Result<SignatureBytes, JobError> {
    key.sign(work.algorithm(), work.input(), work.user_id())
        .map_err(|error| match error {
            SoftKeyError::Unsupported(algorithm) => JobError::Unsupported(algorithm),
            other => JobError::Key(other.to_string()),
        })
}
