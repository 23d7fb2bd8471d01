//! The key index: which idempotency keys are running, and which are settled in which journal entry (SEMANTICS 1.4).
//!
//! Recent keys are in memory, in one map that all cores share. Settled keys move to sorted [`run`] files beside
//! the journal, which need no fsync: whatever is missing from them is read from the journal again at start.
//! We measured a general LSM store for the older keys at 3.7 µs per insert and 15 µs per absent look-up, more than
//! a P-256 signature costs; sorted runs with a filter in memory cost a tenth (docs/decisions/0002-key-index.md).

mod bloom;
mod run;
mod runs;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use protocol::error_code::Refusal;
use protocol::ids::Sequence;
use protocol::verify::SignatureBytes;
use smallvec::SmallVec;

use crate::error::Result;
use crate::record::{Fingerprint, RequestHash};
pub(crate) use runs::Runs;

/// What the journal says of a settled key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Signed and charged.
    Done,
    /// It was pending; whether it still runs is in memory.
    Pending,
    /// It was pending and will not be signed; the key may be used again.
    Failed,
}

/// A key's last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The journal entry.
    pub sequence: Sequence,
    /// What it says.
    pub state: State,
}

impl Settled {
    pub(crate) const fn to_bits(self) -> u64 {
        self.sequence.0 << 2 | self.state as u64
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        let state = match bits & 3 {
            0 => State::Done,
            1 => State::Pending,
            _ => State::Failed,
        };
        Self {
            sequence: Sequence(bits >> 2),
            state,
        }
    }
}

/// What those who wait for an item are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Signed, durable and charged.
    Done {
        /// The journal entry.
        sequence: Sequence,
        /// The signature in the format asked for.
        signature: SignatureBytes,
    },
    /// Durably recorded as still running.
    Pending,
    /// Not signed and not charged.
    Failed(Refusal),
}

/// An outcome and one of those who wait for it.
#[derive(Debug)]
pub struct Delivery<W> {
    /// Who waits.
    pub waiter: W,
    /// What for.
    pub outcome: Outcome,
}

/// The answer to a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has this key: it is now running and the caller must see it through.
    Fresh,
    /// The same request is running; the caller is told when it ends.
    Joined,
    /// Recorded: read the entry. Whether it was the same request shows there.
    Recorded(Sequence),
    /// Another request is running under this key.
    Reused,
    /// Too many already wait for this one.
    Crowded,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Absent,
    /// Running; not in the journal.
    Running,
    /// In the journal. `Pending` here means that it still runs.
    Settled(Settled),
}

/// What became of a failure report.
#[derive(Debug)]
pub enum Release<W> {
    /// The key is absent again; these wait for the news.
    Absent(Waiters<W>),
    /// It was recorded as pending, so its failure has to be recorded as well.
    MustRecord,
}

/// Those who wait for one item; nearly always one.
pub type Waiters<W> = SmallVec<[W; 1]>;

/// Callers that may wait for one running item; more of them is abuse.
const WAITERS_MAX: usize = 64;
const SHARDS: usize = 64;

enum Slot<W> {
    Running {
        request: RequestHash,
        waiters: Waiters<W>,
        pending: Pending,
        committing: bool,
    },
    Settled(Settled),
}

/// How far the record of a running item's being pending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    No,
    /// The record is on its way to the disk.
    Asked,
    Recorded(Sequence),
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The item number is in the last bytes; fold it in so that the items of a call spread.
        let (front, back) = bytes.split_at(bytes.len().min(8));
        let part = |b: &[u8]| b.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.0 ^= part(front) ^ part(back).rotate_left(29);
    }
}

type Shard<W> = Mutex<HashMap<Fingerprint, Slot<W>, BuildHasherDefault<Prehashed>>>;

/// The index. `W` is whatever the caller uses to find those who wait.
pub struct KeyIndex<W> {
    shards: Box<[Shard<W>]>,
    running: AtomicUsize,
    older: Runs,
}

impl<W> std::fmt::Debug for KeyIndex<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyIndex")
            .field("older", &self.older)
            .finish_non_exhaustive()
    }
}

impl<W> KeyIndex<W> {
    pub(crate) fn new(older: Runs) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            running: AtomicUsize::new(0),
            older,
        }
    }

    pub(crate) const fn older(&self) -> &Runs {
        &self.older
    }

    fn shard(&self, key: Fingerprint) -> &Shard<W> {
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }

    /// Claims a key for a request. Refused and failed attempts do not use a key up (SEMANTICS 1.2), so a failed
    /// one can be claimed afresh.
    pub fn claim(&self, key: Fingerprint, request: RequestHash, waiter: W) -> Claim {
        let mut shard = self.shard(key).lock();
        let settled = match shard.get_mut(&key) {
            Some(Slot::Running { request: running, .. }) if *running != request => return Claim::Reused,
            Some(Slot::Running { waiters, .. }) if waiters.len() >= WAITERS_MAX => return Claim::Crowded,
            Some(Slot::Running { waiters, .. }) => {
                waiters.push(waiter);
                return Claim::Joined;
            }
            Some(Slot::Settled(settled)) => {
                Some(*settled).filter(|settled| !self.older.is_forgotten(*settled))
            }
            None => self.older.find(key),
        };
        match settled {
            Some(Settled {
                sequence,
                state: State::Done,
            }) => Claim::Recorded(sequence),
            _ => {
                let waiters = Waiters::from_iter([waiter]);
                self.running.fetch_add(1, Ordering::Relaxed);
                shard.insert(
                    key,
                    Slot::Running {
                        request,
                        waiters,
                        pending: Pending::No,
                        committing: false,
                    },
                );
                Claim::Fresh
            }
        }
    }

    /// What is known of a key.
    pub fn look_up(&self, key: Fingerprint) -> Known {
        let settled = match self.shard(key).lock().get(&key) {
            Some(Slot::Running {
                pending: Pending::Recorded(sequence),
                ..
            }) => {
                return Known::Settled(Settled {
                    sequence: *sequence,
                    state: State::Pending,
                });
            }
            Some(Slot::Running { .. }) => return Known::Running,
            Some(Slot::Settled(settled)) if !self.older.is_forgotten(*settled) => Some(*settled),
            _ => None,
        };
        settled
            .or_else(|| self.older.find(key))
            .map_or(Known::Absent, Known::Settled)
    }

    /// Says that a record of "pending" is about to be written. `None`: the key is no longer running.
    /// `Some(true)`: write it. `Some(false)`: it is written, or about to be.
    pub fn ask_pending(&self, key: Fingerprint) -> Option<bool> {
        match self.shard(key).lock().get_mut(&key) {
            Some(Slot::Running {
                pending: pending @ Pending::No,
                ..
            }) => {
                *pending = Pending::Asked;
                Some(true)
            }
            Some(Slot::Running { .. }) => Some(false),
            _ => None,
        }
    }

    /// Takes one waiter off a running key: it has been answered.
    pub fn forget_waiter(&self, key: Fingerprint, is_it: impl Fn(&W) -> bool) {
        if let Some(Slot::Running { waiters, .. }) = self.shard(key).lock().get_mut(&key) {
            waiters.retain(|waiter| !is_it(waiter));
        }
    }

    /// Reports that a running item failed before it reached the journal.
    pub fn release(&self, key: Fingerprint) -> Release<W> {
        let mut shard = self.shard(key).lock();
        match shard.get(&key) {
            Some(Slot::Running {
                pending: Pending::No, ..
            }) => match shard.remove(&key) {
                Some(Slot::Running { waiters, .. }) => {
                    self.running.fetch_sub(1, Ordering::Relaxed);
                    Release::Absent(waiters)
                }
                _ => Release::Absent(Waiters::new()),
            },
            Some(Slot::Running { .. }) => Release::MustRecord,
            _ => Release::Absent(Waiters::new()),
        }
    }

    /// Takes a running item for writing its final entry. `None`: it is not running, or its final entry is in this
    /// very batch; so of two racers one is written.
    pub(crate) fn begin_commit(&self, key: Fingerprint) -> Option<Pending> {
        match self.shard(key).lock().get_mut(&key) {
            Some(Slot::Running {
                pending, committing, ..
            }) if !*committing => {
                *committing = true;
                Some(*pending)
            }
            _ => None,
        }
    }

    /// How far the pending record of a running item is; `None` if its final entry is written or being written.
    pub(crate) fn pendency(&self, key: Fingerprint) -> Option<Pending> {
        match self.shard(key).lock().get(&key) {
            Some(Slot::Running {
                pending,
                committing: false,
                ..
            }) => Some(*pending),
            _ => None,
        }
    }

    /// Settles a key after its entry's commit and returns those who wait for it.
    pub(crate) fn settle(&self, key: Fingerprint, settled: Settled) -> Waiters<W> {
        match self.shard(key).lock().insert(key, Slot::Settled(settled)) {
            Some(Slot::Running { waiters, .. }) => {
                self.running.fetch_sub(1, Ordering::Relaxed);
                waiters
            }
            _ => Waiters::new(),
        }
    }

    /// Marks a running key as durably pending and returns those who were waiting; they hear "pending". Once
    /// somebody has heard that, nobody is kept waiting for the device any longer.
    pub(crate) fn mark_pending(&self, key: Fingerprint, sequence: Sequence) -> Waiters<W> {
        match self.shard(key).lock().get_mut(&key) {
            Some(Slot::Running { pending, waiters, .. }) => {
                *pending = Pending::Recorded(sequence);
                std::mem::take(waiters)
            }
            _ => Waiters::new(),
        }
    }

    /// Makes a running key absent again because nothing could be written, and returns those who wait. True: it was
    /// recorded as pending, so it stays running, and its failure is owed to the journal.
    pub(crate) fn give_back(&self, key: Fingerprint) -> (Waiters<W>, bool) {
        let mut shard = self.shard(key).lock();
        match shard.get_mut(&key) {
            Some(Slot::Running {
                waiters,
                pending: Pending::Recorded(_),
                committing,
                ..
            }) => {
                *committing = false;
                (std::mem::take(waiters), true)
            }
            Some(Slot::Running { waiters, .. }) => {
                let waiters = std::mem::take(waiters);
                shard.remove(&key);
                self.running.fetch_sub(1, Ordering::Relaxed);
                (waiters, false)
            }
            _ => (Waiters::new(), false),
        }
    }

    /// Notes a settled key while the journal is read at start.
    pub(crate) fn restore(&self, key: Fingerprint, settled: Settled) {
        self.shard(key).lock().insert(key, Slot::Settled(settled));
    }

    /// Forgets settled keys that a run file holds now, unless something newer is known of them.
    pub(crate) fn forget_settled(&self, flushed: &[Entry]) {
        for entry in flushed {
            let mut shard = self.shard(entry.key).lock();
            if let Some(Slot::Settled(settled)) = shard.get(&entry.key)
                && *settled == entry.settled
            {
                shard.remove(&entry.key);
            }
        }
        // A hash map marks the places of what was removed, and doubles when too many are marked. What is left moves into
        // one of the same size, so that memory stays what one round of keys needs.
        let room = flushed.len() * 5 / 4 / SHARDS;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut anew =
                HashMap::with_capacity_and_hasher(room.max(shard.len()), BuildHasherDefault::default());
            anew.extend(shard.drain());
            *shard = anew;
        }
    }

    /// Items that are running now.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Forgets the keys of entries that are archived.
    pub(crate) fn forget_upto(&self, archived: u64) -> Result<()> {
        self.older.forget_upto(archived)?;
        let stays = |slot: &mut Slot<W>| match slot {
            Slot::Settled(settled) => settled.sequence.0 > archived,
            Slot::Running { .. } => true,
        };
        for shard in &self.shards {
            shard.lock().retain(|_, slot| stays(slot));
        }
        Ok(())
    }

    /// Keys held in memory now.
    pub fn len_in_memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

pub(crate) use run::Entry;

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::error_code::Code;
    use protocol::ids::AppRow;

    const SAME: RequestHash = RequestHash([1; 16]);
    const OTHER: RequestHash = RequestHash([2; 16]);

    fn index() -> KeyIndex<u32> {
        KeyIndex::new(Runs::in_memory())
    }

    fn key(text: &str) -> Fingerprint {
        Fingerprint::of_call(AppRow(1), text)
    }

    fn done(sequence: u64) -> Settled {
        Settled {
            sequence: Sequence(sequence),
            state: State::Done,
        }
    }

    #[test]
    fn one_runs_the_same_joins_another_is_refused() {
        let index = index();
        assert_eq!(index.claim(key("a"), SAME, 1), Claim::Fresh);
        assert_eq!(index.claim(key("a"), SAME, 2), Claim::Joined);
        assert_eq!(index.claim(key("a"), OTHER, 3), Claim::Reused);
        assert_eq!(index.look_up(key("a")), Known::Running);
        assert_eq!(index.running(), 1);
        assert_eq!(index.settle(key("a"), done(9))[..], [1, 2]);
        assert_eq!(index.running(), 0);
        assert_eq!(index.claim(key("a"), OTHER, 4), Claim::Recorded(Sequence(9)));
    }

    #[test]
    fn a_failure_frees_the_key_and_tells_all() {
        let index = index();
        index.claim(key("a"), SAME, 1);
        index.claim(key("a"), SAME, 2);
        let Release::Absent(waiters) = index.release(key("a")) else {
            panic!("must record")
        };
        assert_eq!(waiters[..], [1, 2]);
        assert_eq!(index.look_up(key("a")), Known::Absent);
        assert_eq!(index.claim(key("a"), OTHER, 3), Claim::Fresh);
        assert_eq!(index.running(), 1);
    }

    #[test]
    fn pending_is_recorded_once_and_then_its_failure_must_be() {
        let index = index();
        index.claim(key("a"), SAME, 1);
        assert_eq!(index.ask_pending(key("a")), Some(true));
        assert_eq!(index.ask_pending(key("a")), Some(false));
        assert!(matches!(index.release(key("a")), Release::MustRecord));
        assert_eq!(index.mark_pending(key("a"), Sequence(5))[..], [1]);
        let pending = Settled {
            sequence: Sequence(5),
            state: State::Pending,
        };
        assert_eq!(index.look_up(key("a")), Known::Settled(pending));
        let failed = Settled {
            sequence: Sequence(6),
            state: State::Failed,
        };
        assert!(index.settle(key("a"), failed).is_empty());
        assert_eq!(
            index.claim(key("a"), OTHER, 2),
            Claim::Fresh,
            "a failed key may be used again"
        );
    }

    #[test]
    fn a_full_disk_frees_what_was_not_recorded() {
        let index = index();
        index.claim(key("a"), SAME, 1);
        let (waiters, owed) = index.give_back(key("a"));
        assert_eq!((&waiters[..], owed), (&[1][..], false));
        assert_eq!(index.look_up(key("a")), Known::Absent);
        index.claim(key("b"), SAME, 2);
        index.ask_pending(key("b"));
        index.mark_pending(key("b"), Sequence(3));
        assert!(index.give_back(key("b")).1);
        assert!(matches!(index.look_up(key("b")), Known::Settled(_)));
    }

    #[test]
    fn flushed_keys_leave_memory_unless_they_changed() {
        let index = index();
        for text in ["a", "b"] {
            index.claim(key(text), SAME, 1);
            index.settle(key(text), done(1));
        }
        index.settle(key("b"), done(2));
        let flushed = [key("a"), key("b")].map(|key| Entry {
            key,
            settled: done(1),
        });
        index.forget_settled(&flushed);
        assert_eq!(index.len_in_memory(), 1);
        assert_eq!(index.look_up(key("b")), Known::Settled(done(2)));
    }

    #[test]
    fn waiting_is_bounded() {
        let index = index();
        index.claim(key("a"), SAME, 0);
        for waiter in 1..64 {
            assert_eq!(index.claim(key("a"), SAME, waiter), Claim::Joined);
        }
        assert_eq!(index.claim(key("a"), SAME, 64), Claim::Crowded);
        index.forget_waiter(key("a"), |waiter| *waiter == 3);
        assert_eq!(index.claim(key("a"), SAME, 65), Claim::Joined);
    }

    #[test]
    fn bits_hold_sequence_and_state() {
        for state in [State::Done, State::Pending, State::Failed] {
            let settled = Settled {
                sequence: Sequence(1 << 60),
                state,
            };
            assert_eq!(Settled::from_bits(settled.to_bits()), settled);
        }
        let _ = Outcome::Failed(Refusal::new(Code::Internal, ""));
    }
}
