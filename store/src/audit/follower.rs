//! The thread that keeps the log behind the journal: once a second it takes in what was committed, and signs. No request
//! and no commit waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::{Mutex, RwLock};

use super::error::{AuditError, Result};
use super::log::{Log, Signed};
use super::note::SigningKey;
use crate::error::StoreError;
use crate::reader::Reader;

/// How often it looks.
const PACE: Duration = Duration::from_secs(1);
/// How long it waits after a failure, as of a full disk.
const PACE_OF_FAILURE: Duration = Duration::from_secs(5);

/// How the log stands, for everybody who asks.
#[derive(Debug, Default)]
pub struct State {
    signed: RwLock<Option<Arc<Signed>>>,
    size: AtomicU64,
    fault: RwLock<Option<String>>,
}

impl State {
    /// The last checkpoint; `None` until the log has been opened.
    pub fn signed(&self) -> Option<Arc<Signed>> {
        self.signed.read().clone()
    }

    /// Leaves under the last checkpoint.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Why it does not grow, if it does not.
    pub fn fault(&self) -> Option<String> {
        self.fault.read().clone()
    }

    fn publish(&self, signed: &Arc<Signed>) {
        *self.signed.write() = Some(Arc::clone(signed));
        self.size.store(signed.checkpoint.size, Ordering::Release);
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Follower {
    state: Arc<State>,
    stop: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Follower {
    /// Starts it for the log in `folder`.
    pub fn start(
        folder: PathBuf,
        key: Arc<SigningKey>,
        reader: Reader,
    ) -> std::result::Result<Self, StoreError> {
        let state = Arc::new(State::default());
        let (stop, stopped) = bounded(1);
        let shown = Arc::clone(&state);
        let run = move || {
            let mut work = Work {
                folder,
                key,
                reader,
                state: shown,
                log: None,
            };
            work.run(&stopped);
        };
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(run)
            .map_err(StoreError::file("audit"))?;
        Ok(Self {
            state,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// How the log stands.
    pub const fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Takes in what there still is, and ends.
    pub fn stop(&self) {
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the audit thread panicked");
        }
    }
}

struct Work {
    folder: PathBuf,
    key: Arc<SigningKey>,
    reader: Reader,
    state: Arc<State>,
    log: Option<Log>,
}

impl Work {
    fn run(&mut self, stop: &Receiver<()>) {
        let mut pause = Duration::ZERO;
        loop {
            let stopping = stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
            pause = match self.step() {
                Ok(added) if Log::is_behind(added) => Duration::ZERO,
                Ok(_) => PACE,
                Err(error) => {
                    self.note_fault(&error);
                    if error.is_for_good() {
                        return;
                    }
                    PACE_OF_FAILURE
                }
            };
            if stopping {
                return;
            }
        }
    }

    fn step(&mut self) -> Result<u64> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => Log::open(&self.folder, Arc::clone(&self.key), &self.reader)?,
        };
        let added = log.grow(&self.reader)?;
        self.state.publish(log.signed());
        if self.state.fault.write().take().is_some() {
            tracing::info!("the audit log grows again");
        }
        // After an error the log is opened anew: what it had in memory may be ahead of the disk.
        self.log = Some(log);
        Ok(added)
    }

    fn note_fault(&self, error: &AuditError) {
        let text = error.to_string();
        let known = self.state.fault.write().replace(text.clone());
        if known.as_deref() != Some(&text) {
            tracing::error!(%error, "audit_log_stopped");
        }
    }
}
