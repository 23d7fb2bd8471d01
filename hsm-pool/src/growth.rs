//! When the pool has grown last, for those who have to know that capacity is being extended.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Growth is shown for so long at least, so that whoever looks once a second sees it.
const SHOWN: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Growth(Mutex<Option<Instant>>);

impl Growth {
    pub(crate) fn note(&self, now: Instant) {
        *self.0.lock() = Some(now);
    }

    pub(crate) fn is_recent(&self, now: Instant) -> bool {
        let is_shown = |grown: Instant| now.saturating_duration_since(grown) < SHOWN;
        self.0.lock().is_some_and(is_shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn growth_is_shown_for_a_while() {
        let (now, growth) = (Instant::now(), Growth::default());
        assert!(!growth.is_recent(now));
        growth.note(now);
        assert!(growth.is_recent(now + Duration::from_millis(1_999)));
        assert!(!growth.is_recent(now + SHOWN));
    }
}
