//! Fences: how a revocation wins by commit order (SEMANTICS 1.5).
//!
//! An app or credential has a fence. The gate reads its epoch when it admits a request; a freeze or revocation
//! moves the epoch when *its* commit is done; the committing thread, which does both, compares just before it
//! writes. A signature admitted under an older epoch is not released.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of state changes so far, and whether the thing may be used now.
#[derive(Debug)]
pub struct Fence(AtomicU64);

/// The epoch under which a request was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Fence {
    /// A fence as the registry has it.
    pub const fn new(epoch: u64, active: bool) -> Self {
        Self(AtomicU64::new(epoch << 1 | active as u64))
    }

    /// The current epoch, if the thing may be used.
    pub fn pass(&self) -> Option<Epoch> {
        let value = self.0.load(Ordering::Acquire);
        (value & 1 == 1).then_some(Epoch(value >> 1))
    }

    /// Whether what was admitted under `epoch` may still be released.
    pub fn holds(&self, epoch: Epoch) -> bool {
        self.pass() == Some(epoch)
    }

    /// Moves to the next epoch. Only the committing thread does this, after the change's own commit.
    pub(crate) fn turn(&self, active: bool) {
        let epoch = (self.0.load(Ordering::Acquire) >> 1) + 1;
        self.0.store(epoch << 1 | u64::from(active), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_cuts_off_what_was_admitted_before_it() {
        let fence = Fence::new(3, true);
        let before = fence.pass().unwrap();
        assert!(fence.holds(before));
        fence.turn(false);
        assert!(!fence.holds(before));
        assert_eq!(fence.pass(), None);
        fence.turn(true);
        assert!(
            !fence.holds(before),
            "enabled again, but what was admitted earlier stays cut off"
        );
        assert!(fence.holds(fence.pass().unwrap()));
    }
}
