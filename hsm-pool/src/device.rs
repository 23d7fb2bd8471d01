//! PKCS#11 devices. The engine's side is a [`supervisor`] thread for each worker process; the process's side is
//! [`worker`], which owns one module, one session and the handles it has looked up. They speak [`wire`] frames over a
//! Unix socket that the process inherits as its standard input, and the PIN travels in the first of them: never in
//! an argument, the environment or a file of ours.

pub mod ckr;
pub(crate) mod supervisor;
pub(crate) mod token;
pub(crate) mod wire;
pub mod worker;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use secrecy::SecretString;

/// A device as configured.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// What credentials and operators call it.
    pub name: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The token's label. Slot numbers change; labels and serials do not.
    pub token_label: Option<String>,
    /// The token's serial number.
    pub token_serial: Option<String>,
    /// The user PIN.
    pub pin: SecretString,
    /// Worker processes.
    pub processes: usize,
    /// The program that runs [`worker::main`] when called with [`WORKER_ARGUMENT`].
    pub program: PathBuf,
}

/// The argument that makes the program a worker.
pub const WORKER_ARGUMENT: &str = "hsm-worker";

/// How a device is doing, written by its supervisors and read by everybody.
#[derive(Debug, Default)]
pub struct DeviceState {
    up: AtomicUsize,
    latch: AtomicU8,
    /// Signatures released.
    pub signed: AtomicU64,
    /// Jobs that brought no signature.
    pub failed: AtomicU64,
    /// Processes killed because they hung.
    pub kills: AtomicU64,
    /// Processes started.
    pub starts: AtomicU64,
}

const LATCH_NONE: u8 = 0;
const LATCH_STARTING: u8 = 1;
const LATCH_PIN: u8 = 2;

impl DeviceState {
    pub(crate) fn starting() -> Self {
        Self {
            latch: AtomicU8::new(LATCH_STARTING),
            ..Self::default()
        }
    }

    /// Worker processes that take jobs now.
    pub fn workers_up(&self) -> usize {
        self.up.load(Ordering::Acquire)
    }

    /// Whether the PIN was refused; it is not tried again until an operator restarts the engine.
    pub fn pin_refused(&self) -> bool {
        self.latch.load(Ordering::Acquire) == LATCH_PIN
    }

    /// Whether jobs may be queued: a worker is up, or the first ones are still starting.
    pub fn takes_jobs(&self) -> bool {
        match self.latch.load(Ordering::Acquire) {
            LATCH_PIN => false,
            LATCH_STARTING => true,
            _ => self.workers_up() > 0,
        }
    }

    pub(crate) fn worker_up(&self) {
        self.up.fetch_add(1, Ordering::AcqRel);
        self.clear_starting();
    }

    pub(crate) fn worker_down(&self) {
        self.up.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn clear_starting(&self) {
        let _ = self
            .latch
            .compare_exchange(LATCH_STARTING, LATCH_NONE, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn latch_pin(&self) {
        self.latch.store(LATCH_PIN, Ordering::Release);
    }
}

/// A key pair made in a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKey {
    /// CKA_ID.
    pub object: Vec<u8>,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}
