//! The worker process: loads one module, opens one token, and signs what it is sent until its socket closes.
//!
//! It takes its orders on standard input, which is a socket. Each of its threads has a session of its own; they take
//! turns at the socket: whoever finds nothing to do reads, so that an op costs no hand-over between threads.
//! Errors that leave a session in doubt end the process: a new one is cheaper than a wrong key.

mod cache;
mod module;
mod pkcs11;
mod sandbox;
mod sdf;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::algorithm::Algorithm;
use protocol::clock;
use protocol::frame::FrameReader;

use self::module::{Made, ModuleError, Session};
use super::ckr::Class;
use super::wire::{
    FRAME_BYTES_MAX, FromWorker, Op, OpKey, Order, Ordered, Setup, Signed, ToWorker, TokenFacts, to_frame,
};

/// Results are held back at most this long, so that a call that hangs does not take finished ones with it.
const HOLD_BACK: Duration = Duration::from_micros(300);
/// Device errors in a row after which a process is of no more use.
const DEVICE_ERRORS_MAX: u32 = 3;

/// Why a worker ends.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Standard input is not the socket the engine passes.
    #[error("standard input: {0}")]
    Io(#[from] std::io::Error),
    /// The engine sent something else than a worker expects.
    #[error("an order that cannot be read")]
    Order,
    /// The token could not be opened.
    #[error("{0}")]
    Setup(String),
}

/// Runs a worker until the engine closes the socket.
pub fn main() -> Result<(), WorkerError> {
    sandbox::seal();
    let mut engine =
        UnixStream::from(rustix::io::dup(rustix::stdio::stdin().as_fd()).map_err(std::io::Error::from)?);
    let mut frames = FrameReader::default();
    let Some(first) = read_frame(&mut engine, &mut frames)? else {
        return Ok(());
    };
    let opened = minicbor::decode(&first)
        .map_err(|_| WorkerError::Order)
        .map(|message| match message {
            ToWorker::Setup(setup) => open(&setup),
            _ => Err(ModuleError::new(Class::Request, "the first frame is no setup")),
        })?;
    drop(zeroize::Zeroizing::new(first));
    let (facts, sessions) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            engine.write_all(&to_frame(&FromWorker::SetupFailed(error.to_wire())))?;
            return Err(WorkerError::Setup(error.text));
        }
    };
    engine.write_all(&to_frame(&FromWorker::Ready(facts)))?;
    let desk = Desk::new(engine, frames)?;
    let mut sessions = sessions.into_iter();
    let first = sessions.next();
    std::thread::scope(|scope| {
        for session in sessions {
            scope.spawn(|| desk.work(session));
        }
        // The first has this thread, whose heap costs the library less than another thread's.
        if let Some(session) = first {
            desk.work(session);
        }
    });
    Ok(())
}

type Opened = (TokenFacts, Vec<Box<dyn Session>>);

fn open(setup: &Setup<'_>) -> Result<Opened, ModuleError> {
    let opened = if setup.sdf {
        sdf::open(setup)
    } else {
        pkcs11::open(setup)
    }?;
    sandbox::confine(setup.writable.as_deref());
    Ok(opened)
}

fn read_frame(engine: &mut UnixStream, frames: &mut FrameReader) -> Result<Option<Vec<u8>>, WorkerError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        if let Some(frame) = frames
            .next_frame(FRAME_BYTES_MAX)
            .map_err(|_| WorkerError::Order)?
        {
            return Ok(Some(frame.to_vec()));
        }
        match engine.read(&mut buffer)? {
            0 => return Ok(None),
            count => frames.extend(&buffer[..count]),
        }
    }
}

/// Something to do.
enum Job {
    Sign(OwnedOp),
    Order(Order),
}

/// An op that outlives the frame it came in.
struct OwnedOp {
    id: u64,
    algorithm: u8,
    input: Vec<u8>,
    key: OwnedKey,
}

enum OwnedKey {
    Object(Vec<u8>),
    Wrapped {
        row: u32,
        tenant: u32,
        kind: String,
        mechanism: u64,
        vendor: String,
        kek: Vec<u8>,
        blob: Vec<u8>,
    },
}

impl From<&Op<'_>> for OwnedOp {
    fn from(op: &Op<'_>) -> Self {
        let key = match &op.key {
            OpKey::Object(id) => OwnedKey::Object(id.to_vec()),
            OpKey::Wrapped {
                row,
                tenant,
                kind,
                mechanism,
                vendor,
                kek,
                blob,
            } => OwnedKey::Wrapped {
                row: *row,
                tenant: *tenant,
                kind: (*kind).to_owned(),
                mechanism: *mechanism,
                vendor: (*vendor).to_owned(),
                kek: kek.to_vec(),
                blob: blob.to_vec(),
            },
        };
        Self {
            id: op.id,
            algorithm: op.algorithm,
            input: op.input.to_vec(),
            key,
        }
    }
}

impl OwnedKey {
    fn borrow(&self) -> OpKey<'_> {
        match self {
            Self::Object(id) => OpKey::Object(id),
            Self::Wrapped {
                row,
                tenant,
                kind,
                mechanism,
                vendor,
                kek,
                blob,
            } => OpKey::Wrapped {
                row: *row,
                tenant: *tenant,
                kind,
                mechanism: *mechanism,
                vendor,
                kek,
                blob,
            },
        }
    }
}

fn sign_op(session: &mut dyn Session, op: &OwnedOp) -> Result<Made, ModuleError> {
    let algorithm = Algorithm::from_wire(op.algorithm)
        .ok_or_else(|| ModuleError::new(Class::Request, "an algorithm this worker does not know"))?;
    session.sign(&op.key.borrow(), algorithm, &op.input)
}

fn to_signed(id: u64, us: u32, result: Result<Made, ModuleError>) -> Signed {
    let unwrapped = result.as_ref().is_ok_and(|made| made.unwrapped);
    let (signature, error) = match result {
        Ok(made) => (made.signature, None),
        Err(error) => (Vec::new(), Some(error.to_wire())),
    };
    Signed {
        id,
        signature,
        error,
        us,
        unwrapped,
    }
}

/// What the sessions share: where work comes in and results go out.
struct Desk {
    inbox: Mutex<Inbox>,
    outbox: Mutex<Outbox>,
    /// Jobs in the inbox: while there are some, results may wait a moment for company.
    waiting: AtomicUsize,
    leaving: AtomicBool,
    wake: UnixStream,
}

struct Inbox {
    engine: UnixStream,
    frames: FrameReader,
    buffer: Vec<u8>,
    jobs: VecDeque<Job>,
}

struct Outbox {
    engine: UnixStream,
    held: Vec<Signed>,
    since: Instant,
}

impl Desk {
    fn new(engine: UnixStream, frames: FrameReader) -> Result<Self, WorkerError> {
        let outbox = Outbox {
            engine: engine.try_clone()?,
            held: Vec::new(),
            since: clock::monotonic(),
        };
        Ok(Self {
            wake: engine.try_clone()?,
            inbox: Mutex::new(Inbox {
                engine,
                frames,
                buffer: vec![0; 1 << 16],
                jobs: VecDeque::new(),
            }),
            outbox: Mutex::new(outbox),
            waiting: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
        })
    }

    /// One session's life.
    fn work(&self, mut session: Box<dyn Session>) {
        let mut device_errors = 0;
        while let Some(job) = self.next() {
            let error = match job {
                Job::Sign(op) => self.sign(&mut *session, &op),
                Job::Order(order) => self.obey(&mut *session, &order),
            };
            let Some(error) = error else {
                device_errors = 0;
                continue;
            };
            device_errors += u32::from(error.class == Class::Device);
            let in_doubt = matches!(error.class, Class::Session | Class::Token | Class::Auth)
                || device_errors >= DEVICE_ERRORS_MAX;
            if in_doubt || session.renew().is_err() {
                self.leave();
                return;
            }
        }
    }

    /// The next job; reads for everybody when there is none. `None`: the process ends.
    fn next(&self) -> Option<Job> {
        let mut inbox = self.inbox.lock();
        loop {
            if self.leaving.load(Ordering::Acquire) {
                return None;
            }
            if let Some(job) = inbox.jobs.pop_front() {
                self.waiting.store(inbox.jobs.len(), Ordering::Relaxed);
                return Some(job);
            }
            if !inbox.read().is_ok_and(|open| open) {
                self.leaving.store(true, Ordering::Release);
                return None;
            }
        }
    }

    fn sign(&self, session: &mut dyn Session, op: &OwnedOp) -> Option<ModuleError> {
        let begun = clock::monotonic();
        let result = sign_op(session, op);
        let us = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        let error = result.as_ref().err().cloned();
        self.hand_in(to_signed(op.id, us, result));
        error
    }

    fn obey(&self, session: &mut dyn Session, order: &Order) -> Option<ModuleError> {
        let result = session.order(order);
        let error = result.as_ref().err().cloned();
        let answer = result.unwrap_or_else(|error| Ordered::Failed(error.to_wire()));
        let mut outbox = self.outbox.lock();
        outbox.flush();
        outbox.send(&FromWorker::Ordered(answer));
        error
    }

    fn hand_in(&self, signed: Signed) {
        let mut outbox = self.outbox.lock();
        if outbox.held.is_empty() {
            outbox.since = clock::monotonic();
        }
        outbox.held.push(signed);
        let more = self.waiting.load(Ordering::Relaxed) > 0;
        if !more || outbox.since.elapsed() > HOLD_BACK {
            outbox.flush();
        }
    }

    /// The session is in doubt: hands in what is done, says what was not begun, and ends the process.
    fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        // Whoever reads from the socket wakes up and lets go of the inbox.
        let _ = self.wake.shutdown(Shutdown::Read);
        let mut inbox = self.inbox.lock();
        // What is still in the socket was not begun either.
        while inbox.read().is_ok_and(|open| open) {}
        let not_begun = inbox.jobs.drain(..).filter_map(|job| match job {
            Job::Sign(op) => Some(op.id),
            Job::Order(_) => None,
        });
        let mut outbox = self.outbox.lock();
        outbox.flush();
        outbox.send(&FromWorker::Leaving(not_begun.collect()));
    }
}

impl Inbox {
    /// Reads once. False: the engine has closed the socket.
    fn read(&mut self) -> Result<bool, WorkerError> {
        match self.engine.read(&mut self.buffer)? {
            0 => return Ok(false),
            count => self.frames.extend(&self.buffer[..count]),
        }
        while let Some(frame) = self
            .frames
            .next_frame(FRAME_BYTES_MAX)
            .map_err(|_| WorkerError::Order)?
        {
            match minicbor::decode(frame).map_err(|_| WorkerError::Order)? {
                ToWorker::Sign(ops) => {
                    self.jobs.extend(ops.iter().map(|op| Job::Sign(op.into())));
                }
                ToWorker::Order(order) => self.jobs.push_back(Job::Order(order)),
                ToWorker::Setup(_) => return Err(WorkerError::Order),
            }
        }
        Ok(true)
    }
}

impl Outbox {
    fn flush(&mut self) {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.send(&FromWorker::Signed(held));
        }
    }

    fn send(&mut self, message: &FromWorker) {
        // An engine that has gone needs no answers, and its closed socket ends the process.
        let _ = self.engine.write_all(&to_frame(message));
    }
}
