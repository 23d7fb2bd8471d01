//! The only place that asks the operating system what time it is. Everything else takes `now`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z, as recorded in the journal and shown to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds, rounded down, as RFC 9421 `created` and X.509 times count.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The same instant as the standard library's type.
    pub fn system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// The monotonic clock: for deadlines and latencies, never for records.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place the rule sends everybody to"
)]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The wall clock: for records and certificates, never for deadlines.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place the rule sends everybody to"
)]
pub fn wall() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
