//! What the library is worth on this machine: a call against so many signatures one after another, for each kind of
//! key, with keys that exist for this only. What it makes is verified by other code before it is trusted with more.

use std::time::Duration;

use protocol::algorithm::{InputKind, KeyKind};
use protocol::clock;
use protocol::verify::SM2_DEFAULT_USER_ID;

use super::{Multi, Task, WIDTH};
use crate::soft::{self, SoftKey};

/// Moduli take long to find, so these are kept: PKCS#8 and SubjectPublicKeyInfo.
const RSA: [(&[u8], &[u8]); 3] = [
    (
        include_bytes!("measure/rsa2048.pk8"),
        include_bytes!("measure/rsa2048.spki"),
    ),
    (
        include_bytes!("measure/rsa3072.pk8"),
        include_bytes!("measure/rsa3072.spki"),
    ),
    (
        include_bytes!("measure/rsa4096.pk8"),
        include_bytes!("measure/rsa4096.spki"),
    ),
];

/// Calls that are timed, of quick kinds and of RSA; the fastest counts, because everything else that runs only makes them
/// slower.
const ROUNDS: [usize; 2] = [20, 3];

/// What was measured for a kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    /// The kind.
    pub kind: KeyKind,
    /// A signature by itself.
    pub single: Duration,
    /// A call with eight.
    pub call: Duration,
    /// Jobs from which a call is faster; none, if it never is or its signatures do not verify.
    pub from: Option<usize>,
}

impl Gain {
    pub(super) const fn none(kind: KeyKind) -> Self {
        Self {
            kind,
            single: Duration::ZERO,
            call: Duration::ZERO,
            from: None,
        }
    }

    /// A call takes as long with one job as with eight.
    fn new(kind: KeyKind, single: Duration, call: Duration) -> Self {
        let from = (1..=WIDTH).find(|jobs| single * u32::try_from(*jobs).unwrap_or(0) > call);
        Self {
            kind,
            single,
            call,
            from,
        }
    }

    /// Whether a call with so many jobs is faster.
    pub fn pays(&self, jobs: usize) -> bool {
        self.from.is_some_and(|from| jobs >= from)
    }
}

/// Measures a kind. Without a key, or when anything fails to verify, the library is not used for it.
pub(super) fn measure(multi: &Multi, kind: KeyKind) -> Gain {
    try_measure(multi, kind).unwrap_or_else(|| {
        tracing::warn!(%kind, "multi-buffer signatures do not verify; this kind is signed one at a time");
        Gain::none(kind)
    })
}

fn try_measure(multi: &Multi, kind: KeyKind) -> Option<Gain> {
    let key = key(kind)?;
    let algorithm = *kind.algorithms().first()?;
    let input = match algorithm.input() {
        InputKind::Digest(hash) => hash.digest(b"measure"),
        InputKind::Message(_) => smallvec::SmallVec::from_slice(b"measure"),
    };
    let task = Task {
        key: &key,
        algorithm,
        input: &input,
        user_id: SM2_DEFAULT_USER_ID,
    };
    let verifies = |signature: &[u8]| {
        key.check(algorithm, &input, SM2_DEFAULT_USER_ID, signature)
            .is_ok()
    };
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS[usize::from(kind.rsa_bits().is_some())] {
        let begun = clock::monotonic();
        let single = key.sign(algorithm, &input, SM2_DEFAULT_USER_ID).ok()?;
        let between = clock::monotonic();
        let made = multi.sign(kind, &[task; WIDTH]);
        let call = between.elapsed();
        best = (best.0.min(between - begun), best.1.min(call));
        let good = made.len() == WIDTH && made.iter().all(|made| made.as_deref().is_some_and(verifies));
        if !good || !verifies(&single) {
            return None;
        }
    }
    Some(Gain::new(kind, best.0, best.1))
}

fn key(kind: KeyKind) -> Option<SoftKey> {
    let kept = match kind {
        KeyKind::Rsa2048 => Some(RSA[0]),
        KeyKind::Rsa3072 => Some(RSA[1]),
        KeyKind::Rsa4096 => Some(RSA[2]),
        _ => None,
    };
    let read = |pkcs8: &[u8], public: &[u8]| {
        let key = SoftKey::new(kind, pkcs8, public).ok()?;
        Some(key.with_numbers(pkcs8, public))
    };
    match kept {
        Some((pkcs8, public)) => read(pkcs8, public),
        None => soft::generate(kind)
            .ok()
            .and_then(|made| read(&made.pkcs8, &made.public_key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_pays_from_the_number_that_takes_longer_one_by_one() {
        let us = Duration::from_micros;
        let gain = Gain::new(KeyKind::P256, us(15), us(29));
        assert_eq!(gain.from, Some(2));
        assert!(gain.pays(8) && gain.pays(2) && !gain.pays(1));
        let never = Gain::new(KeyKind::Rsa4096, us(15), us(120));
        assert_eq!(never.from, None);
        assert!(!never.pays(8));
    }
}
