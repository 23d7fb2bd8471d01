//! Software lanes: OS threads that take what has piled up, sign it, and hand it on in one go.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded, select};
use parking_lot::Mutex;
use protocol::algorithm::Algorithm;
use protocol::clock;
use protocol::verify::SignatureBytes;

use crate::elastic::{Load, Sizer};
use crate::job::{Finished, JobError, Sink, Work, cost_us};
use crate::keys::Keys;
use crate::pool::{PoolConfig, SubmitError};
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
    /// Time the lanes worked, in microseconds.
    pub busy_us: AtomicU64,
}

/// Lanes there can be at most, by configuration or command.
const LANES_MAX: usize = 1024;
/// How often load may change their number.
const LOOK: Duration = Duration::from_millis(100);

/// The lanes together: their queue, and how many there are.
pub(crate) struct Lanes<T> {
    crew: Arc<Crew<T>>,
    jobs: Option<Sender<T>>,
    wait_us_max: u64,
    /// Dropped to end the thread that moves their number.
    sizer: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

/// What starts lanes and ends them.
struct Crew<T> {
    lane: Lane<T>,
    retire: Sender<()>,
    size: AtomicUsize,
    started: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<T: Work> Lanes<T> {
    pub(crate) fn start(
        config: &PoolConfig,
        keys: &Arc<Keys>,
        sink: &Arc<dyn Sink<T>>,
    ) -> std::io::Result<Self> {
        let (sender, jobs) = bounded(config.queue);
        let (retire, retired) = bounded(LANES_MAX);
        let lane = Lane {
            jobs,
            retired,
            keys: Arc::clone(keys),
            sink: Arc::clone(sink),
            verify: config.verify,
            counters: Arc::default(),
            waiting_us: Arc::default(),
        };
        let crew = Arc::new(Crew {
            lane,
            retire,
            size: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            threads: Mutex::default(),
        });
        crew.resize(config.lanes.min)?;
        let sizer = if config.lanes.max > config.lanes.min {
            Some(crew.start_sizer(Sizer::new(config.lanes))?)
        } else {
            None
        };
        let wait_us_max = config.queue_ms_max * 1000;
        Ok(Self {
            crew,
            jobs: Some(sender),
            wait_us_max,
            sizer: Mutex::new(sizer),
        })
    }

    /// Hands over a job, or gives it back when the wait would be too long.
    pub(crate) fn submit(&self, work: T) -> Result<(), (T, SubmitError)> {
        let Some(jobs) = &self.jobs else {
            return Err((work, SubmitError::Unavailable));
        };
        let waiting_us = &self.crew.lane.waiting_us;
        let cost = cost_us(work.kind());
        let before = waiting_us.fetch_add(cost, Ordering::Relaxed);
        let result = if before > self.wait_us_max * self.size() as u64 {
            Err(work)
        } else {
            jobs.try_send(work).map_err(TrySendError::into_inner)
        };
        result.map_err(|work| {
            waiting_us.fetch_sub(cost, Ordering::Relaxed);
            (work, SubmitError::Full)
        })
    }

    pub(crate) fn waiting(&self) -> usize {
        self.crew.lane.jobs.len()
    }

    pub(crate) fn counters(&self) -> &LaneCounters {
        &self.crew.lane.counters
    }

    pub(crate) fn size(&self) -> usize {
        self.crew.size.load(Ordering::Relaxed)
    }

    pub(crate) fn resize(&self, size: usize) -> std::io::Result<()> {
        self.crew.resize(size)
    }

    /// Lets go of the queue and waits until the lanes have finished what was in it.
    pub(crate) fn stop(&mut self) {
        let sizer = self.sizer.lock().take();
        if let Some((bell, thread)) = sizer {
            drop(bell);
            join(thread);
        }
        self.jobs = None;
        std::mem::take(&mut *self.crew.threads.lock())
            .into_iter()
            .for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a lane's thread panicked");
    }
}

impl<T: Work> Crew<T> {
    /// Starts lanes, or tells some to end after what they have in hand.
    fn resize(&self, size: usize) -> std::io::Result<()> {
        let size = size.clamp(1, LANES_MAX);
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        while self.size.load(Ordering::Relaxed) > size {
            // There is a place for every lane there can be.
            let _ = self.retire.try_send(());
            self.size.fetch_sub(1, Ordering::Relaxed);
        }
        while self.size.load(Ordering::Relaxed) < size {
            // One that was told to end and has not noticed yet stays.
            if self.lane.retired.try_recv().is_err() {
                let lane = self.lane.clone();
                let name = format!("lane-{}", self.started.fetch_add(1, Ordering::Relaxed));
                threads.push(std::thread::Builder::new().name(name).spawn(move || lane.run())?);
            }
            self.size.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn start_sizer(self: &Arc<Self>, sizer: Sizer) -> std::io::Result<(Sender<()>, JoinHandle<()>)> {
        let (bell, ended) = bounded(0);
        let crew = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("lanes".into())
            .spawn(move || crew.keep_size(sizer, &ended))?;
        Ok((bell, thread))
    }

    fn keep_size(&self, mut sizer: Sizer, ended: &Receiver<()>) {
        let mut busy_us = 0;
        let mut looked = clock::monotonic();
        while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let now = clock::monotonic();
            let size = self.size.load(Ordering::Relaxed);
            let busy = self.lane.counters.busy_us.load(Ordering::Relaxed);
            let time_us = (now - looked).as_micros() as f64 * size as f64;
            let load = Load {
                size,
                busy: (busy - busy_us) as f64 / time_us.max(1.0),
                wait: Duration::from_micros(
                    self.lane.waiting_us.load(Ordering::Relaxed) / size.max(1) as u64,
                ),
            };
            (busy_us, looked) = (busy, now);
            if let Some(wanted) = sizer.decide(now, load) {
                tracing::info!(from = size, to = wanted, "software lanes");
                if let Err(error) = self.resize(wanted) {
                    tracing::error!(%error, "a lane could not be started");
                }
            }
        }
    }
}

pub(crate) struct Lane<T> {
    jobs: Receiver<T>,
    retired: Receiver<()>,
    keys: Arc<Keys>,
    sink: Arc<dyn Sink<T>>,
    verify: Verify,
    counters: Arc<LaneCounters>,
    /// What waits in the queue, in microseconds of one core.
    waiting_us: Arc<AtomicU64>,
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self {
            jobs: self.jobs.clone(),
            retired: self.retired.clone(),
            keys: Arc::clone(&self.keys),
            sink: Arc::clone(&self.sink),
            verify: self.verify,
            counters: Arc::clone(&self.counters),
            waiting_us: Arc::clone(&self.waiting_us),
        }
    }
}

impl<T: Work> Lane<T> {
    /// Runs until the pool lets go of the queue, or has too many lanes.
    fn run(self) {
        let mut made = 0;
        while let Some(first) = self.next() {
            let batch = self.collect(first);
            let now = clock::monotonic();
            let finished = batch
                .into_iter()
                .map(|work| self.finish(work, now, &mut made))
                .collect();
            let busy = u64::try_from(now.elapsed().as_micros()).unwrap_or(0);
            self.counters.busy_us.fetch_add(busy, Ordering::Relaxed);
            self.sink.finished(finished);
        }
    }

    fn next(&self) -> Option<T> {
        if self.retired.try_recv().is_ok() {
            return None;
        }
        match self.jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => select! {
                recv(self.jobs) -> job => job.ok(),
                recv(self.retired) -> _ => None,
            },
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
