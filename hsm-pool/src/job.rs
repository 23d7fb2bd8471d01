//! A job: one signature to be made, and what comes of it. The pool knows nothing of requests; whatever a job belongs
//! to travels with it and comes back with the result.

use std::sync::Arc;
use std::time::Instant;

use protocol::algorithm::{Algorithm, KeyKind};
use protocol::ids::{KeyRow, TenantRow};
use protocol::stages::Mark;
use protocol::verify::SignatureBytes;

use crate::device::ckr::Class;
use crate::queue::Priority;

/// Where a job's key is.
#[derive(Clone, Copy, Debug)]
pub enum Home<'a> {
    /// In the store, and signed with by the software lanes.
    Software,
    /// An object in each of these devices, under one CKA_ID.
    Devices {
        /// The devices, by name.
        names: &'a [Arc<str>],
        /// CKA_ID.
        object: &'a [u8],
    },
    /// In the store, wrapped under a wrapping key; any device that holds that one can sign.
    Wrapped {
        /// The wrapping key's CKA_ID.
        kek: &'a [u8],
    },
}

/// What the pool must know of a piece of work.
pub trait Work: Send + 'static {
    /// The key to sign with.
    fn key(&self) -> KeyRow;
    /// The key's kind.
    fn kind(&self) -> KeyKind;
    /// How.
    fn algorithm(&self) -> Algorithm;
    /// The digest, or the message where the algorithm takes one.
    fn input(&self) -> &[u8];
    /// The SM2 user id for `sm2-sm3`.
    fn user_id(&self) -> &[u8];
    /// Where the key is.
    fn home(&self) -> Home<'_>;
    /// Whose it is: a tenant's share of the cache of unwrapped keys is bounded.
    fn tenant(&self) -> TenantRow;
    /// Whether somebody waits for the answer now.
    fn priority(&self) -> Priority {
        Priority::Interactive
    }
    /// Whether it belongs to a call whose first job has been taken.
    fn follows(&self) -> bool {
        false
    }
    /// After this nobody waits for it, and it is not started any more.
    fn deadline(&self) -> Instant;
    /// Is told when it is begun and when it is signed; it brings that back with the result. Work that is tried again is
    /// begun again.
    fn mark(&self, _mark: Mark, _now: Instant) {}
}

/// About what a signature costs on one core, in microseconds (scalar code, measured and rounded up). Only
/// for deciding how many to take at once and how many may wait; the results do not depend on it.
pub const fn cost_us(kind: KeyKind) -> u64 {
    match kind {
        KeyKind::P256 => 14,
        KeyKind::P384 => 70,
        KeyKind::Rsa2048 => 260,
        KeyKind::Rsa3072 => 750,
        KeyKind::Rsa4096 => 1_600,
        KeyKind::Ed25519 => 45,
        KeyKind::Sm2 => 80,
    }
}

/// Why a job brought no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Its deadline passed before it was started.
    #[error("its deadline passed before it was started")]
    Expired,
    /// It had waited too long, or had to make room for a tenant that was below its share.
    #[error("it would have been answered too late")]
    Shed,
    /// The key does not exist, or cannot be read or unwrapped.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// The key cannot do what was asked.
    #[error("the key cannot do {0}")]
    Unsupported(Algorithm),
    /// The device said no.
    #[error("the device answered {text}")]
    Device {
        /// The function and the code.
        text: String,
        /// What the code calls for.
        class: Class,
    },
    /// The device took too long and its process was killed, or the process died.
    #[error("the device's worker process ended")]
    WorkerLost,
    /// No worker of the device is up.
    #[error("the device is not available")]
    Unavailable,
    /// The signature did not verify.
    #[error("the signature does not verify")]
    Rejected,
    /// A fault of ours.
    #[error("the lane failed")]
    Internal,
}

impl JobError {
    /// Whether another device may be tried: the device is to blame, not the request.
    pub const fn is_device_fault(&self) -> bool {
        match self {
            Self::Device { class, .. } => !matches!(class, Class::Request),
            Self::WorkerLost | Self::Rejected => true,
            _ => false,
        }
    }
}

/// A job that has ended.
#[derive(Debug)]
pub struct Finished<T> {
    /// What it belonged to.
    pub work: T,
    /// What came of it; in the algorithm's usual encoding (DER for pairs).
    pub result: Result<SignatureBytes, JobError>,
}

/// Where finished jobs go. Called on lane threads, with everything a lane finished in one go.
pub trait Sink<T>: Send + Sync + 'static {
    /// Takes them; may wait, which holds back only this lane.
    fn finished(&self, batch: Vec<Finished<T>>);
}
