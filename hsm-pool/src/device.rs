//! Devices: PKCS#11 tokens and SDF cards, each behind worker processes, because a hung or crashing vendor library
//! cannot be cured inside a thread.
//!
//! In the order a job meets them:
//!
//! - [`unit`]: one device, its queue and its life, shared by its threads.
//! - [`seat`]: a thread that feeds one worker process, checks what it returns, and replaces it when it hangs or dies.
//! - [`process`] and [`wire`]: that process as the engine sees it, and the frames between them. The PIN travels in the
//!   first frame over an inherited socket: never in an argument, the environment or a file of ours.
//! - [`worker`]: what the process runs.
//! - [`warden`]: a thread a device that probes it, keeps a warm spare process, and moves its limits.
//! - [`life`], [`limiter`], [`rest`], [`ckr`]: the rules, without devices or clocks.
//! - [`state`]: how a device is doing, for whoever asks. [`calibrate`]: what it can do.

pub mod calibrate;
pub mod ckr;
pub mod life;
pub(crate) mod limiter;
pub(crate) mod process;
pub(crate) mod rest;
pub(crate) mod seat;
pub mod state;
pub(crate) mod unit;
pub(crate) mod warden;
pub(crate) mod wire;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

pub use self::state::DeviceState;
pub use self::wire::{DeviceObject, Kek, TokenFacts};
use crate::keys::WrappedKey;

/// The interface of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// PKCS#11 2.40 and 3.x.
    #[default]
    Pkcs11,
    /// GM/T 0018, the interface of Chinese cryptographic devices.
    Sdf,
}

/// A device as configured.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// What credentials and operators call it.
    pub name: Arc<str>,
    /// Its interface.
    pub kind: Kind,
    /// The library.
    pub module: PathBuf,
    /// The token's label. Slot numbers change; labels and serials do not.
    pub token_label: Option<String>,
    /// The token's serial number.
    pub token_serial: Option<String>,
    /// The user PIN.
    pub pin: SecretString,
    /// Worker processes.
    pub processes: usize,
    /// Worker processes at most, when load asks for more.
    pub processes_max: usize,
    /// Sessions of each process, each on a thread of its own.
    pub sessions: u16,
    /// Calls in flight at most; `None`: one for each session.
    pub in_flight_max: Option<u16>,
    /// Unwrapped keys kept by each process.
    pub unwrapped_max: usize,
    /// The key of probe signatures, by CKA_LABEL or SDF index; `None`: one of our own, or the lowest index.
    pub probe_key: Option<String>,
    /// Folders that the library may write to; `None`: wherever its user may.
    pub writable: Option<Vec<PathBuf>>,
    /// Environment variables for the library.
    pub environment: Vec<(String, String)>,
    /// The program that runs [`worker::main`] when called with [`WORKER_ARGUMENT`].
    pub program: PathBuf,
}

/// The argument that makes the program a worker.
pub const WORKER_ARGUMENT: &str = "hsm-worker";

/// A key pair made in a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKey {
    /// CKA_ID; empty for a pair that exists only wrapped.
    pub object: Vec<u8>,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The private key, where it was made to be wrapped.
    pub wrapped: Option<WrappedKey>,
}
