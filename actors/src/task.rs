//! A task: one attempt on its way through the pool, and the sink that takes it from there to the journal.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use documents::cms::PreparedCms;
use hsm_pool::device::ckr::Class;
use hsm_pool::job::{Finished, Home, JobError, Sink, Work};
use parking_lot::Mutex;
use protocol::algorithm::{Algorithm, Format, KeyKind};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{KeyRow, TenantRow};
use protocol::stages::Mark;
use protocol::verify::{SM2_DEFAULT_USER_ID, SignatureBytes, der_to_pair};
use store::{Attempt, Draft, Outcome, Place, Release, Released, StoreHandle};

use crate::call::{Input, Ticket};
use crate::core::CoreRemote;
use crate::services::route;
use crate::vault::Vault;

/// One attempt in the pool.
#[derive(Debug)]
pub struct Task {
    pub(crate) attempt: Arc<Attempt>,
    /// Whether another item of the same call has just been taken.
    pub(crate) follows: bool,
    /// Where the key was when the task was made.
    pub(crate) place: Place,
    /// What is signed: for CMS the digest of the signed attributes, not of the content.
    pub(crate) input: Input,
    pub(crate) user_id: Option<Box<[u8]>>,
    pub(crate) deadline: Instant,
    pub(crate) cms: Option<Box<PreparedCms>>,
}

impl Work for Task {
    fn key(&self) -> KeyRow {
        self.attempt.credential.0.key
    }

    fn kind(&self) -> KeyKind {
        self.attempt.credential.0.kind
    }

    fn algorithm(&self) -> Algorithm {
        self.attempt.item.algorithm
    }

    fn input(&self) -> &[u8] {
        &self.input
    }

    fn user_id(&self) -> &[u8] {
        self.user_id.as_deref().unwrap_or(SM2_DEFAULT_USER_ID)
    }

    fn home(&self) -> Home<'_> {
        match &self.place {
            Place::Software => Home::Software,
            Place::Device { devices, object } => Home::Devices {
                names: devices,
                object,
            },
            Place::Wrapped { kek } => Home::Wrapped { kek },
            Place::Destroyed => Home::Devices {
                names: &[],
                object: &[],
            },
        }
    }

    fn tenant(&self) -> TenantRow {
        self.attempt.item.tenant
    }

    fn follows(&self) -> bool {
        self.follows
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn mark(&self, mark: Mark, now: Instant) {
        self.attempt.marks.set(mark, now);
    }
}

impl Task {
    /// The signature in the format asked for.
    fn finish(
        self,
        signature: SignatureBytes,
    ) -> Result<(Arc<Attempt>, SignatureBytes), (Arc<Attempt>, Refusal)> {
        let item = &self.attempt.item;
        let finished = match (item.format, self.cms) {
            (Format::Raw, _) => Some(signature),
            (Format::Pair, _) => der_to_pair(&signature, item.algorithm.pair_half_bytes()),
            (Format::Cms, Some(prepared)) => prepared.assemble(&signature).ok().map(SignatureBytes::from_vec),
            (Format::Cms, None) => None,
        };
        match finished {
            Some(bytes) => Ok((self.attempt, bytes)),
            None => Err((
                self.attempt,
                Refusal::new(Code::Internal, "the signature could not be put into its format"),
            )),
        }
    }
}

/// Takes finished tasks: signatures go to the committing thread, failures free their keys.
#[derive(Debug)]
pub struct ToJournal {
    /// The store.
    pub store: Arc<StoreHandle<Ticket>>,
    /// The cores, by number.
    pub cores: Arc<[Arc<CoreRemote>]>,
    /// Seals what the journal keeps.
    pub vault: Arc<Vault>,
    /// What was said of failed jobs.
    pub said: Said,
}

impl Sink<Task> for ToJournal {
    fn finished(&self, batch: Vec<Finished<Task>>) {
        let mut drafts = Vec::with_capacity(batch.len());
        for Finished { work, result } in batch {
            let ended = match result {
                Ok(signature) => {
                    (work.finish(signature)).and_then(|(attempt, signature)| self.seal(attempt, signature))
                }
                Err(error) => {
                    self.log(&work.place, &error);
                    Err((work.attempt, refusal_of(&error)))
                }
            };
            match ended {
                Ok((attempt, released)) => drafts.push(Draft::Signed(attempt, released)),
                Err((attempt, refusal)) => drafts.extend(self.fail(attempt, refusal)),
            }
        }
        if !drafts.is_empty() && self.store.commit(drafts).is_err() {
            // The engine is going down; nothing was recorded, so nothing is released.
            tracing::warn!("signatures were made after the store had stopped and are dropped");
        }
    }
}

/// A line about failed jobs is written once in this time for each device; the others are counted in the next one.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A device, or none, and the line about it.
type About = (Box<str>, &'static str);

/// When lines about failed jobs were written, by device and what they say.
#[derive(Debug, Default)]
pub struct Said(Mutex<HashMap<About, (Instant, u64)>>);

impl Said {
    /// Whether a line is written now, and how many others it stands for.
    fn admit(&self, device: &str, what: &'static str, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock();
        let (last, others) = match lines.entry((device.into(), what)) {
            Entry::Vacant(place) => {
                place.insert((now, 0));
                return Some(0);
            }
            Entry::Occupied(known) => known.into_mut(),
        };
        if now.saturating_duration_since(*last) < SAID_AGAIN_AFTER {
            *others += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(others))
    }
}

/// What a line about a failed job says, where one is due.
const fn line_about(error: &JobError) -> Option<&'static str> {
    match error {
        JobError::Key(_) => Some("a key cannot be used"),
        JobError::Device { .. } => Some("a device has answered with an error"),
        JobError::Rejected => Some("a signature did not verify and was not released"),
        _ => None,
    }
}

impl ToJournal {
    /// The pool's own words stay in the log: they may name modules and tokens.
    fn log(&self, place: &Place, error: &JobError) {
        let Some(what) = line_about(error) else { return };
        let device = match place {
            Place::Device { devices, .. } => devices.first().map_or("none", |name| name),
            Place::Wrapped { .. } => "any with the wrapping key",
            Place::Software | Place::Destroyed => "software",
        };
        let admitted = self.said.admit(device, what, clock::monotonic());
        let Some(others) = admitted else { return };
        match error {
            JobError::Device { .. } => tracing::warn!(device, %error, others, "{what}"),
            _ => tracing::error!(device, %error, others, "{what}"),
        }
    }

    /// The signature with the form that the journal keeps: it must go with the tenant's key.
    fn seal(
        &self,
        attempt: Arc<Attempt>,
        signature: SignatureBytes,
    ) -> Result<(Arc<Attempt>, Released), (Arc<Attempt>, Refusal)> {
        let tenant = &attempt.app.0.tenant;
        match self.vault.seal_signature(tenant, &attempt.item, &signature) {
            Ok(sealed) => Ok((attempt, Released::new(signature, sealed))),
            Err(error) => Err((attempt, error.refusal())),
        }
    }

    /// Frees the key of a failed attempt, or, if somebody was told that it is pending, has its failure recorded.
    pub(crate) fn fail(&self, attempt: Arc<Attempt>, refusal: Refusal) -> Option<Draft> {
        match self.store.index().release(attempt.fingerprint) {
            Release::Absent(waiters) => {
                let outcome = Outcome::Failed(refusal);
                route(
                    &self.cores,
                    waiters.into_iter().map(|waiter| (waiter, outcome.clone())),
                );
                None
            }
            Release::MustRecord => Some(Draft::Failed(attempt, refusal)),
        }
    }
}

/// What the caller hears when the pool brings no signature.
fn refusal_of(error: &JobError) -> Refusal {
    match error {
        JobError::Expired => Refusal::new(
            Code::DeadlineExceeded,
            "the deadline passed before a lane was free",
        ),
        JobError::Shed => {
            Refusal::new(Code::Overloaded, "the queue for this kind of key was too long").retry_after_ms(100)
        }
        JobError::Unsupported(algorithm) => Refusal::new(
            Code::UnsupportedAlgorithm,
            format!("the credential's key cannot do {algorithm}"),
        ),
        JobError::Key(_) => Refusal::new(Code::DataCorrupt, "the credential's key cannot be used"),
        JobError::Device {
            class: Class::Busy, ..
        } => Refusal::new(Code::Overloaded, "the device that holds the key has no room").retry_after_ms(100),
        JobError::Device { .. } => Refusal::new(
            Code::DeviceFailed,
            "the device that holds the key answered with an error",
        ),
        JobError::WorkerLost => {
            Refusal::new(Code::DeviceFailed, "the device that holds the key did not answer")
        }
        JobError::Unavailable => Refusal::new(
            Code::DeviceUnavailable,
            "the device that holds the key is not available",
        )
        .retry_after_ms(1_000),
        JobError::Rejected => Refusal::new(
            Code::SignatureRejected,
            "the signature did not verify and was not released",
        ),
        JobError::Internal => Refusal::new(Code::Internal, "signing failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_a_device_is_written_once_a_second_and_counts_the_others() {
        let (said, from) = (Said::default(), clock::monotonic());
        let admit = |device, ms| said.admit(device, "what", from + Duration::from_millis(ms));
        assert_eq!(admit("left", 0), Some(0));
        assert_eq!(admit("left", 1), None);
        assert_eq!(admit("right", 2), Some(0), "another device");
        assert_eq!(admit("left", 999), None);
        assert_eq!(admit("left", 1_000), Some(2));
        assert_eq!(admit("left", 2_000), Some(0));
    }
}
