//! The system's clocks, with what the kernel thinks of them.
#![expect(unsafe_code, reason = "adjtimex has no safe wrapper")]

use std::time::Instant;

use actors::time_stamps::{Kernel, Reading, TimeSource};
use protocol::clock;

/// What `adjtimex(2)` returns for a clock that follows nothing.
const TIME_ERROR: i32 = 5;

/// The system's clocks.
#[derive(Debug)]
pub(crate) struct SystemClock {
    started: Instant,
}

impl SystemClock {
    pub(crate) fn new() -> Self {
        Self {
            started: clock::monotonic(),
        }
    }
}

impl TimeSource for SystemClock {
    fn read(&self) -> Reading {
        let since = clock::monotonic().saturating_duration_since(self.started);
        Reading {
            wall: clock::wall(),
            monotonic_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            kernel: kernel(),
        }
    }
}

fn kernel() -> Kernel {
    // SAFETY: all fields of `timex` are integers, for which zero is a value; `modes` 0 asks and sets nothing.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `timex` of our own, which the kernel fills.
    let state = unsafe { libc::adjtimex(&raw mut asked) };
    if state < 0 || state == TIME_ERROR || asked.status & libc::STA_UNSYNC != 0 {
        return Kernel::Unsynchronised;
    }
    // maxerror is in microseconds.
    Kernel::Synchronised {
        error_ms: u64::try_from(asked.maxerror).unwrap_or(u64::MAX).div_ceil(1000),
    }
}
