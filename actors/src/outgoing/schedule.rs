//! When a message is tried again, and when no more: exponential back-off with jitter, until it is given up.

use protocol::clock::UnixMillis;

/// The pause after the first failure, in milliseconds.
pub const FIRST_PAUSE_MS: u64 = 1_000;
/// The longest pause, in milliseconds.
pub const PAUSE_MS_MAX: u64 = 15 * 60_000;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has taken it.
    Delivered,
    /// Not now.
    Later,
    /// Never: the receiver says that it wants no more.
    Never,
}

/// What an HTTP status means. Redirects are not followed; 410 is how a receiver says that it wants no more (Standard
/// Webhooks 1.0, "deliverability and reliability").
pub const fn judge(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        410 => Verdict::Never,
        _ => Verdict::Later,
    }
}

/// When to try again after `failures` attempts; `None`: it is given up. `dice` is any number: the same failures of many
/// messages must not lead to the same moment.
pub fn next(failures: u32, now: UnixMillis, give_up: UnixMillis, dice: u32) -> Option<UnixMillis> {
    let doubled = FIRST_PAUSE_MS << failures.saturating_sub(1).min(20);
    let pause = doubled.min(PAUSE_MS_MAX);
    // Half of the pause is certain, half is left to chance.
    let jitter = (pause / 2) * u64::from(dice) / u64::from(u32::MAX);
    let at = UnixMillis(now.0 + pause - pause / 2 + jitter);
    (at < give_up).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour() {
        let never = UnixMillis(u64::MAX);
        let span = |failures| {
            let at = |dice| next(failures, UnixMillis(0), never, dice).unwrap().0;
            (at(0), at(u32::MAX))
        };
        assert_eq!(span(1), (500, 1_000));
        assert_eq!(span(2), (1_000, 2_000));
        assert_eq!(span(8), (64_000, 128_000));
        assert_eq!(span(11), (450_000, 900_000));
        assert_eq!(span(4_000_000_000), (450_000, 900_000));
    }

    #[test]
    fn it_is_given_up_when_its_time_is_over() {
        let again = |give_up| next(1, UnixMillis(10_000), UnixMillis(give_up), 0);
        assert_eq!(again(10_501), Some(UnixMillis(10_500)));
        assert_eq!(again(10_500), None);
    }

    #[test]
    fn a_status_is_an_answer() {
        let judged = [200, 204, 302, 400, 410, 429, 500].map(judge);
        use Verdict::{Delivered, Later, Never};
        assert_eq!(judged, [Delivered, Delivered, Later, Later, Never, Later, Later]);
    }
}
