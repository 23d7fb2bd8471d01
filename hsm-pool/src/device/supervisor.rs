//! The engine's side of a worker process: one thread that starts it, feeds it, checks every signature, kills it
//! when it hangs, and starts another.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use protocol::algorithm::KeyKind;
use protocol::clock;
use protocol::frame::FrameReader;
use protocol::limits::DEVICE_HANG_MS_MAX;
use protocol::verify::SignatureBytes;
use secrecy::ExposeSecret;

use super::wire::{FRAME_BYTES_MAX, FromWorker, Op, Signed, ToWorker, to_frame};
use super::{DeviceConfig, DeviceKey, DeviceState, WORKER_ARGUMENT};
use crate::job::{Finished, JobError, Sink, Work};
use crate::keys::Keys;

/// What a device is asked to do.
pub(crate) enum DeviceJob<T> {
    Sign(T),
    Generate {
        kind: KeyKind,
        label: String,
        reply: Sender<Result<DeviceKey, JobError>>,
    },
}

/// Jobs sent to a worker in one frame. Small, so that a hang takes few with it.
const BATCH_MAX: usize = 16;
const HANG: Duration = Duration::from_millis(DEVICE_HANG_MS_MAX);
const SETUP: Duration = Duration::from_secs(10);
const GENERATE: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(1);
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Supervisor<T> {
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) state: Arc<DeviceState>,
    pub(crate) jobs: Receiver<DeviceJob<T>>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) sink: Arc<dyn Sink<T>>,
}

/// Why a worker process is of no more use.
#[derive(Debug, thiserror::Error)]
enum WorkerEnd {
    #[error("it could not be started: {0}")]
    Start(std::io::Error),
    #[error("it could not open the token: {0}")]
    Setup(String),
    #[error("the PIN was refused: {0}")]
    Pin(String),
    #[error("it hung and was killed")]
    Hung,
    #[error("it ended")]
    Gone,
    #[error("it sent something that cannot be read")]
    Unreadable,
    #[error("a signature it made does not verify")]
    Lied,
    #[error("the pool is closed")]
    Closed,
}

impl<T: Work> Supervisor<T> {
    /// Runs until the pool lets go of the queue.
    pub(crate) fn run(self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let since = clock::monotonic();
            let end = self.one_worker();
            let name = &self.config.name;
            match end {
                WorkerEnd::Closed => return,
                WorkerEnd::Pin(_) => {
                    tracing::error!(device = name, reason = %end, "device latched; an operator must look");
                    self.state.latch_pin();
                    self.refuse_until_closed();
                    return;
                }
                _ => tracing::warn!(device = name, reason = %end, "worker process ended"),
            }
            // A worker that served for a while starts over at the shortest wait.
            back_off = if since.elapsed() > BACK_OFF_MAX {
                BACK_OFF_MIN
            } else {
                back_off
            };
            if !self.wait(back_off) {
                return;
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// Starts a worker and serves with it until it ends.
    fn one_worker(&self) -> WorkerEnd {
        self.state.starts.fetch_add(1, Ordering::Relaxed);
        let mut worker = match Worker::start(&self.config) {
            Ok(worker) => worker,
            Err(end) => {
                self.state.clear_starting();
                return end;
            }
        };
        self.state.worker_up();
        let end = self.serve(&mut worker);
        self.state.worker_down();
        if matches!(end, WorkerEnd::Hung) {
            self.state.kills.fetch_add(1, Ordering::Relaxed);
        }
        worker.kill();
        end
    }

    fn serve(&self, worker: &mut Worker) -> WorkerEnd {
        loop {
            let first = match self.jobs.recv_timeout(IDLE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) if worker.is_alive() => continue,
                Err(RecvTimeoutError::Timeout) => return WorkerEnd::Gone,
                Err(RecvTimeoutError::Disconnected) => return WorkerEnd::Closed,
            };
            if let Err(end) = self.serve_one(worker, first) {
                return end;
            }
        }
    }

    /// Serves a job and those that have piled up behind it.
    fn serve_one(&self, worker: &mut Worker, first: DeviceJob<T>) -> Result<(), WorkerEnd> {
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                DeviceJob::Sign(work) => batch.push(work),
                DeviceJob::Generate { kind, label, reply } => {
                    self.sign(worker, std::mem::take(&mut batch))?;
                    generate(worker, kind, &label, &reply)?;
                }
            }
            next = (batch.len() < BATCH_MAX)
                .then(|| self.jobs.try_recv().ok())
                .flatten();
        }
        self.sign(worker, batch)
    }

    fn sign(&self, worker: &mut Worker, batch: Vec<T>) -> Result<(), WorkerEnd> {
        let now = clock::monotonic();
        let (alive, expired): (Vec<T>, Vec<T>) = batch.into_iter().partition(|work| now < work.deadline());
        self.fail(expired, &JobError::Expired);
        if alive.is_empty() {
            return Ok(());
        }
        let mut open: HashMap<u64, T> = (0..).zip(alive).collect();
        let result = worker
            .send(&sign_order(&open))
            .and_then(|()| self.collect(worker, &mut open));
        if let Err(end) = &result {
            let error = if matches!(end, WorkerEnd::Lied) {
                JobError::Rejected
            } else {
                JobError::WorkerLost
            };
            self.fail(open.into_values(), &error);
        }
        result
    }

    /// Takes results until every job of the batch has one.
    fn collect(&self, worker: &mut Worker, open: &mut HashMap<u64, T>) -> Result<(), WorkerEnd> {
        while !open.is_empty() {
            let FromWorker::Signed(results) = worker.receive(HANG)? else {
                return Err(WorkerEnd::Unreadable);
            };
            let mut lied = false;
            let mut finished = Vec::with_capacity(results.len());
            for signed in results {
                let work = open.remove(&signed.id).ok_or(WorkerEnd::Unreadable)?;
                let result = self.check(&work, signed);
                lied |= matches!(result, Err(JobError::Rejected));
                finished.push(Finished { work, result });
            }
            self.deliver(finished);
            if lied {
                return Err(WorkerEnd::Lied);
            }
        }
        Ok(())
    }

    /// A device's signature counts only when it verifies with the key we expect.
    fn check(&self, work: &T, signed: Signed) -> Result<SignatureBytes, JobError> {
        if let Some(error) = signed.error {
            return Err(JobError::Device(error.text));
        }
        let key = self.keys.public(work.key()).map_err(JobError::Key)?;
        key.verify(work.algorithm(), work.input(), &signed.signature)
            .map_err(|_| JobError::Rejected)?;
        Ok(SignatureBytes::from_vec(signed.signature))
    }

    fn deliver(&self, finished: Vec<Finished<T>>) {
        for job in &finished {
            let counter = if job.result.is_ok() {
                &self.state.signed
            } else {
                &self.state.failed
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.sink.finished(finished);
    }

    fn fail(&self, works: impl IntoIterator<Item = T>, error: &JobError) {
        let finished: Vec<_> = works
            .into_iter()
            .map(|work| Finished {
                work,
                result: Err(error.clone()),
            })
            .collect();
        if !finished.is_empty() {
            self.deliver(finished);
        }
    }

    /// Waits before the next start. Jobs wait along for a short back-off; in a longer one, with no other worker up,
    /// they are refused at once. False: the pool is closed.
    fn wait(&self, back_off: Duration) -> bool {
        let until = clock::monotonic() + back_off;
        loop {
            let left = until.saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                return true;
            }
            if self.state.workers_up() > 0 || back_off <= BACK_OFF_MIN {
                std::thread::sleep(left);
                continue;
            }
            match self.jobs.recv_timeout(left) {
                Ok(job) => self.refuse(job),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn refuse_until_closed(&self) {
        while let Ok(job) = self.jobs.recv() {
            self.refuse(job);
        }
    }

    fn refuse(&self, job: DeviceJob<T>) {
        match job {
            DeviceJob::Sign(work) => self.fail([work], &JobError::Unavailable),
            DeviceJob::Generate { reply, .. } => {
                let _ = reply.send(Err(JobError::Unavailable));
            }
        }
    }
}

fn sign_order<T: Work>(open: &HashMap<u64, T>) -> Vec<u8> {
    let ops = open.iter().map(|(id, work)| Op {
        id: *id,
        object: work.object(),
        algorithm: work.algorithm().wire(),
        input: work.input(),
    });
    to_frame(&ToWorker::Sign(ops.collect()))
}

fn generate(
    worker: &mut Worker,
    kind: KeyKind,
    label: &str,
    reply: &Sender<Result<DeviceKey, JobError>>,
) -> Result<(), WorkerEnd> {
    let order = to_frame(&ToWorker::Generate {
        kind: kind.name(),
        label,
    });
    let made = worker.send(&order).and_then(|()| worker.receive(GENERATE));
    let (answer, end) = match made {
        Ok(FromWorker::Generated { object, public_key }) => (Ok(DeviceKey { object, public_key }), Ok(())),
        Ok(FromWorker::GenerateFailed(error)) => (Err(JobError::Device(error.text)), Ok(())),
        Ok(_) => (Err(JobError::WorkerLost), Err(WorkerEnd::Unreadable)),
        Err(end) => (Err(JobError::WorkerLost), Err(end)),
    };
    // The operator who asked may have gone.
    let _ = reply.send(answer);
    end
}

/// A running worker process.
struct Worker {
    process: Child,
    socket: UnixStream,
    frames: FrameReader,
    buffer: Vec<u8>,
}

impl Worker {
    fn start(config: &DeviceConfig) -> Result<Self, WorkerEnd> {
        let (socket, theirs) = UnixStream::pair().map_err(WorkerEnd::Start)?;
        let process = Command::new(&config.program)
            .arg(WORKER_ARGUMENT)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(WorkerEnd::Start)?;
        let mut worker = Self {
            process,
            socket,
            frames: FrameReader::default(),
            buffer: vec![0; 1 << 16],
        };
        match worker.set_up(config) {
            Ok(()) => Ok(worker),
            Err(end) => {
                worker.kill();
                Err(end)
            }
        }
    }

    fn set_up(&mut self, config: &DeviceConfig) -> Result<(), WorkerEnd> {
        let module = config.module.to_string_lossy();
        let order = zeroize::Zeroizing::new(to_frame(&ToWorker::Setup {
            module: &module,
            label: config.token_label.as_deref(),
            serial: config.token_serial.as_deref(),
            pin: config.pin.expose_secret(),
        }));
        self.send(&order)?;
        match self.receive(SETUP)? {
            FromWorker::Ready(token) => {
                tracing::info!(device = config.name, token, "worker process ready");
                Ok(())
            }
            FromWorker::SetupFailed(error) if error.auth => Err(WorkerEnd::Pin(error.text)),
            FromWorker::SetupFailed(error) => Err(WorkerEnd::Setup(error.text)),
            _ => Err(WorkerEnd::Unreadable),
        }
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), WorkerEnd> {
        // A worker that does not even read is as hung as one that does not answer.
        self.socket
            .set_write_timeout(Some(HANG))
            .map_err(|_| WorkerEnd::Gone)?;
        self.socket.write_all(frame).map_err(|error| end_of(&error))
    }

    /// The next message, if one comes within `patience`.
    fn receive(&mut self, patience: Duration) -> Result<FromWorker, WorkerEnd> {
        let until = clock::monotonic() + patience;
        loop {
            match self.frames.next_frame(FRAME_BYTES_MAX) {
                Ok(Some(frame)) => return minicbor::decode(frame).map_err(|_| WorkerEnd::Unreadable),
                Ok(None) => {}
                Err(_) => return Err(WorkerEnd::Unreadable),
            }
            let left = until.saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                return Err(WorkerEnd::Hung);
            }
            self.socket
                .set_read_timeout(Some(left))
                .map_err(|_| WorkerEnd::Gone)?;
            match self
                .socket
                .read(&mut self.buffer)
                .map_err(|error| end_of(&error))?
            {
                0 => return Err(WorkerEnd::Gone),
                count => self.frames.extend(&self.buffer[..count]),
            }
        }
    }

    fn kill(&mut self) {
        // It may have ended by itself; either way it is reaped here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn end_of(error: &std::io::Error) -> WorkerEnd {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => WorkerEnd::Hung,
        _ => WorkerEnd::Gone,
    }
}
