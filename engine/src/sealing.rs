//! The document service: seals documents and verifies them, one at a time for callers who wait, many at a time as jobs.
//!
//! - `order.rs`: what an app orders. `carry.rs`: how a document comes from its order to its seal.
//! - `call.rs`: one document, whose caller waits. `job.rs`: many, put in and fetched one by one; `runner.rs` works on them.
//! - `room.rs`: the threads. `blobs.rs`: the files of jobs. `verify.rs`: what signatures of a document are worth.
//!
//! `docs/documents-api.md` is what apps are told.

pub(crate) mod blobs;
pub(crate) mod call;
mod carry;
pub(crate) mod job;
pub(crate) mod order;
pub(crate) mod room;
mod runner;
pub(crate) mod verify;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Instant;

use actors::services::Services;
use parking_lot::Mutex;
use protocol::error_code::{Code, Refusal};
use protocol::ids::AppRow;
use store::OperationWrite;
use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};

use self::blobs::Blobs;
pub(crate) use self::carry::SPARE_BYTES;
use self::room::{Room, Waiting};
use crate::pki::Pki;

/// Work that may wait for the threads.
const PLACES: usize = 64;
/// Bytes in which memory for documents is counted.
const MEMORY_GRAIN: usize = 64 * 1024;
/// Memory for documents that are being received, worked on or sent, in bytes.
const MEMORY_BYTES_MAX: usize = 768 * 1024 * 1024;

/// Calls that are being worked on, by app and idempotency key.
type Locks = HashMap<(AppRow, String), Weak<tokio::sync::Mutex<()>>>;

/// The document service.
pub(crate) struct Sealer {
    pub(crate) services: Arc<Services>,
    /// For those who wait.
    pub(crate) room: Room,
    /// For jobs, which must not keep those who wait from the threads.
    job_room: Room,
    blobs: Blobs,
    memory: Arc<Semaphore>,
    locks: Mutex<Locks>,
    /// Told when a job may have work.
    work: Notify,
}

/// The rooms before they are opened.
pub(crate) struct Closed {
    room: Waiting,
    job_room: Waiting,
}

/// The service before its threads run: the fronts are built before there is a certificate service.
pub(crate) fn new(services: &Arc<Services>, home: &Path) -> (Arc<Sealer>, Closed) {
    let ((room, waiting), (job_room, waiting_jobs)) = (Room::new(PLACES), Room::new(PLACES));
    let sealer = Sealer {
        services: Arc::clone(services),
        room,
        job_room,
        blobs: Blobs::of(home),
        memory: Arc::new(Semaphore::new(MEMORY_BYTES_MAX / MEMORY_GRAIN)),
        locks: Mutex::default(),
        work: Notify::new(),
    };
    let closed = Closed {
        room: waiting,
        job_room: waiting_jobs,
    };
    (Arc::new(sealer), closed)
}

/// Starts the threads, and goes on with the jobs that an earlier life has left.
pub(crate) fn open(sealer: &Arc<Sealer>, closed: Closed, pki: &Arc<Pki>, cores: u16) -> Result<(), Refusal> {
    let services = &sealer.services;
    let threads = usize::from(cores).div_ceil(2);
    closed.room.open("document", threads, services, pki)?;
    closed.job_room.open("document-job", 1, services, pki)?;
    runner::start(Arc::clone(sealer))
}

/// Memory for a document; given back when dropped.
pub(crate) struct Memory(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Sealer {
    /// Takes memory for so many bytes, if there is some.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Memory, Refusal> {
        let full = |_| {
            let text = "the memory for documents is in use";
            Refusal::new(Code::Overloaded, text).retry_after_ms(1_000)
        };
        let memory = Arc::clone(&self.memory);
        memory
            .try_acquire_many_owned(grains(bytes))
            .map(Memory)
            .map_err(full)
    }

    /// Waits for memory.
    async fn wait_for_memory(&self, bytes: usize) -> Result<Memory, Refusal> {
        let memory = Arc::clone(&self.memory).acquire_many_owned(grains(bytes)).await;
        memory
            .map(Memory)
            .map_err(|_| Refusal::new(Code::ShuttingDown, "the engine is stopping"))
    }

    /// Writes about operations and returns when it is durable.
    async fn write(&self, writes: Vec<OperationWrite>) -> Result<(), Refusal> {
        let (told, heard) = oneshot::channel();
        // Whoever asked may have gone.
        self.services
            .store
            .write_operations(writes, move |result| drop(told.send(result)));
        let stopped = |_| Refusal::new(Code::ShuttingDown, "the store has stopped");
        heard.await.map_err(stopped)?.map_err(|error| error.refusal())
    }

    /// One after the other: two who retry the same call at once must not both prepare its document.
    async fn lock(&self, app: AppRow, key: &str, deadline: Instant) -> Result<OwnedMutexGuard<()>, Refusal> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let place = locks.entry((app, key.to_owned())).or_default();
            place.upgrade().unwrap_or_else(|| {
                let lock = Arc::default();
                *place = Arc::downgrade(&lock);
                lock
            })
        };
        let wait = tokio::time::timeout(carry::left(deadline), lock.lock_owned());
        wait.await.map_err(|_| {
            let text = "the same call is being worked on; retry with the same key";
            Refusal::new(Code::DeadlineExceeded, text).retry_after_ms(1_000)
        })
    }
}

fn grains(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(MEMORY_GRAIN)).unwrap_or(u32::MAX)
}

/// A number for a new operation.
fn new_number() -> Result<i64, Refusal> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
    Ok(i64::from_be_bytes(bytes) & i64::MAX)
}
