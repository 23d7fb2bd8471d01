//! Software lanes: OS threads that take what has piled up, sign it, and hand it on in one go.

mod together;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::clock;
use protocol::stages::Mark;
use protocol::verify::SignatureBytes;

use crate::elastic::{Load, Sizer};
use crate::growth::Growth;
use crate::inbox::{Inbox, Taken};
use crate::job::{Finished, JobError, Sink, Work, cost_us};
use crate::keys::Keys;
use crate::multi::{Multi, WIDTH};
use crate::pool::{PoolConfig, SubmitError};
use crate::queue::{Offer, Offered, Priority};
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
    /// Signatures of these that were made together with others.
    pub together: AtomicU64,
    /// Signatures verified before they left.
    pub verified: AtomicU64,
    /// Jobs that brought no signature.
    pub failed: AtomicU64,
    /// Time the lanes worked, in microseconds.
    pub busy_us: AtomicU64,
}

/// Lanes there can be at most, by configuration or command.
const LANES_MAX: usize = 1024;
/// Jobs that have waited this part of what they may have to wait are begun; the estimate may be off by half.
const PATIENCE_PERCENT: u64 = 150;
/// How often load may change their number.
const LOOK: Duration = Duration::from_millis(100);

/// A job and when it began to wait.
struct Waiting<T> {
    work: T,
    since: Instant,
}

/// What a signature of each kind takes on a lane now, in nanoseconds: it moves with the machine and its load.
struct Costs([AtomicU64; KeyKind::ALL.len()]);

impl Costs {
    fn new() -> Self {
        Self(KeyKind::ALL.map(|kind| AtomicU64::new(cost_us(kind) * 1_000)))
    }

    fn of(&self, kind: KeyKind) -> &AtomicU64 {
        &self.0[kind as usize]
    }

    fn us(&self, kind: KeyKind) -> u64 {
        (self.of(kind).load(Ordering::Relaxed) / 1_000).max(1)
    }

    /// Lanes that learn at the same moment lose a sample, which is no matter.
    fn learn(&self, kind: KeyKind, ns: u64) {
        let known = self.of(kind).load(Ordering::Relaxed);
        self.of(kind).store(known - known / 8 + ns / 8, Ordering::Relaxed);
    }
}

/// The lanes together: their queue, and how many there are.
pub(crate) struct Lanes<T> {
    crew: Arc<Crew<T>>,
    len_max: usize,
    wait_us_max: u64,
    /// Dropped to end the thread that moves their number.
    sizer: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

/// What starts lanes and ends them.
struct Crew<T> {
    lane: Lane<T>,
    size: AtomicUsize,
    started: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    growth: Arc<Growth>,
}

impl<T: Work> Lanes<T> {
    pub(crate) fn start(
        config: &PoolConfig,
        keys: &Arc<Keys>,
        sink: &Arc<dyn Sink<T>>,
        growth: Arc<Growth>,
    ) -> std::io::Result<Self> {
        let wait_us_max = config.queue_ms_max * 1000;
        let lane = Lane {
            inbox: Arc::default(),
            keys: Arc::clone(keys),
            sink: Arc::clone(sink),
            verify: config.verify,
            multi: config.multi.clone(),
            counters: Arc::default(),
            costs: Arc::new(Costs::new()),
            patience: Duration::from_micros(wait_us_max * PATIENCE_PERCENT / 100),
        };
        let crew = Arc::new(Crew {
            lane,
            size: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            threads: Mutex::default(),
            growth,
        });
        crew.resize(config.lanes.min)?;
        let sizer = if config.lanes.max > config.lanes.min {
            Some(crew.start_sizer(Sizer::new(config.lanes))?)
        } else {
            None
        };
        Ok(Self {
            crew,
            len_max: config.queue,
            wait_us_max,
            sizer: Mutex::new(sizer),
        })
    }

    /// Hands over a job, or gives it back when the wait would be too long.
    pub(crate) fn submit(&self, work: T) -> Result<(), (T, SubmitError)> {
        let lane = &self.crew.lane;
        let offer = Offer {
            tenant: work.tenant(),
            priority: work.priority(),
            cost_us: lane.costs.us(work.kind()),
            follows: work.follows(),
            job: Waiting {
                work,
                since: clock::monotonic(),
            },
        };
        let bound = self.wait_us_max * self.size() as u64;
        match lane.inbox.offer(offer, bound, self.len_max) {
            Offered::Taken => Ok(()),
            Offered::Refused(job) => Err((job.work, SubmitError::Full)),
            Offered::Instead(job) => {
                lane.counters.failed.fetch_add(1, Ordering::Relaxed);
                let result = Err(JobError::Shed);
                lane.sink.finished(vec![Finished {
                    work: job.work,
                    result,
                }]);
                Ok(())
            }
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.crew.lane.inbox.len()
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
        self.crew.lane.inbox.close();
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
        // The first ones are no extension.
        if (1..size).contains(&self.size.load(Ordering::Relaxed)) {
            self.growth.note(clock::monotonic());
        }
        while self.size.load(Ordering::Relaxed) > size {
            self.lane.inbox.retire_one();
            self.size.fetch_sub(1, Ordering::Relaxed);
        }
        while self.size.load(Ordering::Relaxed) < size {
            // One that was told to end and has not noticed yet stays.
            if !self.lane.inbox.keep_one() {
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
                wait: Duration::from_micros(self.lane.inbox.waiting_us() / size.max(1) as u64),
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

struct Lane<T> {
    inbox: Arc<Inbox<Waiting<T>>>,
    keys: Arc<Keys>,
    sink: Arc<dyn Sink<T>>,
    verify: Verify,
    multi: Option<Arc<Multi>>,
    counters: Arc<LaneCounters>,
    costs: Arc<Costs>,
    /// A job that has waited longer is not begun any more: the answer would break the promise.
    patience: Duration,
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self {
            inbox: Arc::clone(&self.inbox),
            keys: Arc::clone(&self.keys),
            sink: Arc::clone(&self.sink),
            verify: self.verify,
            multi: self.multi.clone(),
            counters: Arc::clone(&self.counters),
            costs: Arc::clone(&self.costs),
            patience: self.patience,
        }
    }
}

impl<T: Work> Lane<T> {
    /// Runs until the pool lets go of the queue, or has too many lanes.
    fn run(self) {
        let mut made = 0;
        let mut done_us = 0;
        self.inbox.enter();
        while let Some(Taken { jobs: batch, cost_us }) =
            self.inbox
                .take(BATCH_US_MAX, |jobs| self.wants_more(jobs), done_us)
        {
            done_us = cost_us;
            let now = clock::monotonic();
            let kind = one_kind(&batch);
            let count = batch.len() as u64;
            let finished = match &self.multi {
                Some(multi) => self.finish_together(multi, batch, now, &mut made),
                None => batch
                    .into_iter()
                    .map(|job| self.finish_single(job, now, &mut made))
                    .collect(),
            };
            let ns = u64::try_from(now.elapsed().as_nanos()).unwrap_or(0);
            if let Some(kind) = kind
                && finished.iter().all(|job| job.result.is_ok())
            {
                self.costs.learn(kind, ns / count);
            }
            self.counters.busy_us.fetch_add(ns / 1_000, Ordering::Relaxed);
            self.sink.finished(finished);
        }
    }

    /// A call that signs eight is not begun with two because they are dear.
    fn wants_more(&self, jobs: &[Waiting<T>]) -> bool {
        let Some(multi) = &self.multi else {
            return false;
        };
        jobs.len() < WIDTH && one_kind(jobs).is_some_and(|kind| multi.pays(kind, WIDTH))
    }

    /// Signs one job, and notes when.
    fn finish_single(&self, job: Waiting<T>, now: Instant, made: &mut u64) -> Finished<T> {
        job.work.mark(Mark::Begun, clock::monotonic());
        let finished = self.finish_waiting(job, now, made);
        if finished.result.is_ok() {
            finished.work.mark(Mark::Signed, clock::monotonic());
        }
        finished
    }

    /// Whether it has waited for so long that its answer would break the promise.
    fn is_overdue(&self, job: &Waiting<T>, now: Instant) -> bool {
        let may_wait = job.work.follows() || job.work.priority() == Priority::Batch;
        now.saturating_duration_since(job.since) > self.patience && !may_wait
    }

    fn finish_waiting(&self, job: Waiting<T>, now: Instant, made: &mut u64) -> Finished<T> {
        if self.is_overdue(&job, now) {
            return self.counted(job.work, Err(JobError::Shed));
        }
        *made += 1;
        let check = self.must_verify(job.work.algorithm(), *made);
        // A panic in a library must cost one job, not the lane.
        let result = catch_unwind(AssertUnwindSafe(|| self.sign(&job.work, now, check)));
        self.counted(job.work, result.unwrap_or(Err(JobError::Internal)))
    }

    fn counted(&self, work: T, result: Result<SignatureBytes, JobError>) -> Finished<T> {
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
            self.check(&key, work, &signature)?;
        }
        Ok(signature)
    }

    fn check(&self, key: &SoftKey, work: &T, signature: &[u8]) -> Result<(), JobError> {
        self.counters.verified.fetch_add(1, Ordering::Relaxed);
        key.check(work.algorithm(), work.input(), work.user_id(), signature)
            .map_err(|_| JobError::Rejected)
    }
}

/// The kind of all jobs of a batch, if there is one.
fn one_kind<T: Work>(batch: &[Waiting<T>]) -> Option<KeyKind> {
    let kind = batch.first()?.work.kind();
    batch.iter().all(|job| job.work.kind() == kind).then_some(kind)
}

fn sign_with<T: Work>(key: &SoftKey, work: &T) -> Result<SignatureBytes, JobError> {
    key.sign(work.algorithm(), work.input(), work.user_id())
        .map_err(|error| match error {
            SoftKeyError::Unsupported(algorithm) => JobError::Unsupported(algorithm),
            other => JobError::Key(other.to_string()),
        })
}
