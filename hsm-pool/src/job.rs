//! A job: one signature to be made, and what comes of it. The pool knows nothing of requests; whatever a job belongs
//! to travels with it and comes back with the result.

use std::time::Instant;

use protocol::algorithm::{Algorithm, KeyKind};
use protocol::ids::KeyRow;
use protocol::verify::SignatureBytes;

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
    /// CKA_ID of the key, where it is in a device.
    fn object(&self) -> &[u8];
    /// After this nobody waits for it, and it is not started any more.
    fn deadline(&self) -> Instant;
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
    /// The key does not exist, or cannot be read or unwrapped.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// The key cannot do what was asked.
    #[error("the key cannot do {0}")]
    Unsupported(Algorithm),
    /// The device said no.
    #[error("the device answered {0}")]
    Device(String),
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
