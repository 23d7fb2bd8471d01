//! Eight signatures at a time, where the processor and the library allow it.
//!
//! A lane hands over up to eight jobs of one kind of key, whatever has piled up; it never waits for the eighth. How many
//! jobs make it worth while is measured at the start, for each kind, and so is whether what comes out verifies: a kind
//! that fails either is signed one at a time, as everything is without the library.
//!
//! The order to read in: [`library`] calls C, [`numbers`] reads keys for it, [`encode`] and `crate::nonce`
//! prepare what is signed.

mod encode;
mod library;
mod measure;
mod numbers;

use std::path::Path;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::verify::{SignatureBytes, pair_to_der};
use zeroize::Zeroizing;

use crate::nonce::{self, Fresh, words};
use crate::sm2_key::Sm2Key;
use crate::soft::SoftKey;
use library::{EcdsaJob, Ed25519Job, Library, Pair, Results, RsaJob};
pub use library::{LoadError, PINNED, WIDTH};
pub use measure::Gain;
pub(crate) use numbers::Numbers;

/// One signature to be made; all of a call are of one kind of key.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The key.
    pub key: &'a SoftKey,
    /// How.
    pub algorithm: Algorithm,
    /// The digest, or the message where the algorithm takes one.
    pub input: &'a [u8],
    /// The SM2 user id for `sm2-sm3`.
    pub user_id: &'a [u8],
}

/// The library, and what it is worth here.
pub struct Multi {
    library: Library,
    gains: [Gain; KeyKind::ALL.len()],
}

impl std::fmt::Debug for Multi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multi")
            .field("gains", &self.gains)
            .finish_non_exhaustive()
    }
}

impl Multi {
    /// Loads the library, which must be a pinned one or have the SHA-256 digest that is named, and measures it.
    pub fn load(path: &Path, named: Option<&str>) -> Result<Self, LoadError> {
        let library = Library::load(path, named)?;
        let mut multi = Self {
            library,
            gains: KeyKind::ALL.map(Gain::none),
        };
        multi.gains = KeyKind::ALL.map(|kind| measure::measure(&multi, kind));
        Ok(multi)
    }

    /// What was measured, for each kind of key.
    pub const fn gains(&self) -> &[Gain; KeyKind::ALL.len()] {
        &self.gains
    }

    /// Whether so many jobs are made faster together than one after another.
    pub(crate) fn pays(&self, kind: KeyKind, jobs: usize) -> bool {
        self.gains[kind as usize].pays(jobs)
    }

    /// Makes up to eight signatures with keys of one kind. `None` stands where the library would not: such a job is
    /// signed by itself, which also tells what was wrong with it.
    pub fn sign(&self, kind: KeyKind, tasks: &[Task<'_>]) -> Vec<Option<SignatureBytes>> {
        let made = match kind {
            KeyKind::P256 => self.p256(tasks),
            KeyKind::P384 => self.p384(tasks),
            KeyKind::Ed25519 => self.ed25519(tasks),
            KeyKind::Sm2 => self.sm2(tasks),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => self.rsa(kind, tasks),
        };
        made.unwrap_or_else(|| vec![None; tasks.len()])
    }

    fn p256(&self, tasks: &[Task<'_>]) -> Option<Vec<Option<SignatureBytes>>> {
        let run = |jobs: &[_]| self.library.p256(jobs);
        gather(tasks, &*fresh()?, p256_job, run, |pair| der(pair, 32))
    }

    fn p384(&self, tasks: &[Task<'_>]) -> Option<Vec<Option<SignatureBytes>>> {
        let run = |jobs: &[_]| self.library.p384(jobs);
        gather(tasks, &*fresh()?, p384_job, run, |pair| der(pair, 48))
    }

    fn ed25519(&self, tasks: &[Task<'_>]) -> Option<Vec<Option<SignatureBytes>>> {
        let run = |jobs: &[_]| self.library.ed25519(jobs);
        let joined = |pair: &[[u8; 32]; 2]| Some(SignatureBytes::from_slice(pair.as_flattened()));
        gather(tasks, &[(); WIDTH], ed25519_job, run, joined)
    }

    /// The library makes the points; what follows is arithmetic in constant time (GB/T 32918.2, 6.1).
    fn sm2(&self, tasks: &[Task<'_>]) -> Option<Vec<Option<SignatureBytes>>> {
        let fresh = fresh()?;
        let mut inputs = Vec::with_capacity(tasks.len());
        let mut nonces = Vec::with_capacity(tasks.len());
        for (task, fresh) in tasks.iter().zip(&*fresh) {
            let key = task.key.sm2()?;
            let e = task.key.sm2_e(task.algorithm, task.input, task.user_id)?;
            let nonce = key.nonce(&e, fresh);
            nonces.push(words(&*nonce));
            inputs.push((e, nonce, key));
        }
        let points = self.library.sm2_points(&nonces);
        let finish = |((e, nonce, key), point): (&Sm2Input<'_>, &Option<_>)| {
            key.finish(e, nonce, &uncompressed(point.as_ref()?))
        };
        Some(inputs.iter().zip(&points).map(finish).collect())
    }

    fn rsa(&self, kind: KeyKind, tasks: &[Task<'_>]) -> Option<Vec<Option<SignatureBytes>>> {
        let bits = usize::try_from(kind.rsa_bits()?).ok()?;
        let mut encoded = Vec::with_capacity(tasks.len());
        for task in tasks {
            encoded.push(encode::encode(task.algorithm, task.input, bits / 8)?);
        }
        let run = |jobs: &[_]| self.library.rsa(bits, jobs);
        gather(tasks, &encoded, rsa_job, run, |bytes| {
            Some(SignatureBytes::from_slice(bytes))
        })
    }
}

fn p256_job<'a>(task: &Task<'a>, fresh: &Fresh) -> Option<EcdsaJob<'a, 4>> {
    let Numbers::P256 { bytes, words: key } = task.key.numbers()? else {
        return None;
    };
    let nonce = words(&*nonce::p256(bytes, task.input, fresh));
    Some(EcdsaJob {
        digest: digest(task.input, 32)?,
        nonce,
        key,
    })
}

fn p384_job<'a>(task: &Task<'a>, fresh: &Fresh) -> Option<EcdsaJob<'a, 6>> {
    let Numbers::P384 { bytes, words: key } = task.key.numbers()? else {
        return None;
    };
    let nonce = words(&*nonce::p384(bytes, task.input, fresh));
    Some(EcdsaJob {
        digest: digest(task.input, 48)?,
        nonce,
        key,
    })
}

fn ed25519_job<'a>(task: &Task<'a>, (): &()) -> Option<Ed25519Job<'a>> {
    let Numbers::Ed25519 { seed, public } = task.key.numbers()? else {
        return None;
    };
    let message = task.input;
    // The library takes an empty message for none.
    (!message.is_empty()).then_some(Ed25519Job {
        message,
        seed,
        public,
    })
}

fn rsa_job<'a>(task: &Task<'a>, encoded: &'a Vec<u8>) -> Option<RsaJob<'a>> {
    let Numbers::Rsa(key) = task.key.numbers()? else {
        return None;
    };
    Some(RsaJob { encoded, key })
}

type Sm2Input<'a> = ([u8; 32], Zeroizing<[u8; 32]>, &'a Sm2Key);

/// Prepares each task, runs the library, and shapes what comes out.
fn gather<'a, W, J, R>(
    tasks: &[Task<'a>],
    with: &'a [W],
    job: impl Fn(&Task<'a>, &'a W) -> Option<J>,
    run: impl FnOnce(&[J]) -> Results<R>,
    shape: impl Fn(&R) -> Option<SignatureBytes>,
) -> Option<Vec<Option<SignatureBytes>>> {
    // Room for all from the start: jobs hold nonces, and a vector that grows leaves copies behind.
    let mut jobs = Vec::with_capacity(tasks.len());
    for (task, with) in tasks.iter().zip(with) {
        jobs.push(job(task, with)?);
    }
    let made = run(&jobs);
    Some(
        made.iter()
            .take(jobs.len())
            .map(|made| shape(made.as_ref()?))
            .collect(),
    )
}

/// Randomness for eight nonces.
fn fresh() -> Option<Zeroizing<[Fresh; WIDTH]>> {
    let mut fresh = Zeroizing::new([[0; 32]; WIDTH]);
    SystemRandom::new().fill(fresh.as_flattened_mut()).ok()?;
    Some(fresh)
}

fn digest(input: &[u8], size: usize) -> Option<[u8; 48]> {
    let mut digest = [0; 48];
    if input.len() != size {
        return None;
    }
    digest[..size].copy_from_slice(input);
    Some(digest)
}

fn der([r, s]: &Pair, half: usize) -> Option<SignatureBytes> {
    let mut pair = [0; 96];
    pair[..half].copy_from_slice(&r[..half]);
    pair[half..2 * half].copy_from_slice(&s[..half]);
    pair_to_der(&pair[..2 * half])
}

/// 4 ‖ x ‖ y (SEC 1, 2.3.3) of words that come least significant first.
fn uncompressed(point: &[[u64; 4]; 2]) -> [u8; 65] {
    let mut bytes = [4; 65];
    for (chunk, word) in bytes[1..]
        .chunks_mut(8)
        .zip(point.iter().flat_map(|words| words.iter().rev()))
    {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}
