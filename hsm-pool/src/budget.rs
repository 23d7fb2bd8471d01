//! The retry budget: retries may add at most a tenth to the load, so that a sick device cannot double it.

/// Tokens, in tenths: a first try earns one, a retry costs ten.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    tenths: std::sync::atomic::AtomicU32,
}

/// A quiet spell does not save up for a storm beyond this many retries.
const RETRIES_MAX: u32 = 100;
const COST: u32 = 10;

use std::sync::atomic::Ordering::Relaxed;

impl RetryBudget {
    /// A first try was made.
    pub(crate) fn earn(&self) {
        let more = |tenths: u32| (tenths < RETRIES_MAX * COST).then_some(tenths + 1);
        // At the ceiling there is nothing to add.
        let _ = self.tenths.fetch_update(Relaxed, Relaxed, more);
    }

    /// Whether a retry may be made now; it is paid for if so.
    pub(crate) fn spend(&self) -> bool {
        self.tenths
            .fetch_update(Relaxed, Relaxed, |tenths| tenths.checked_sub(COST))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_first_tries_and_do_not_pile_up() {
        let budget = RetryBudget::default();
        assert!(!budget.spend());
        (0..100).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 100);
    }
}
