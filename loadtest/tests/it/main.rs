//! The load tool from outside: the real binary against the real engine, and a stranger that reads what it writes.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

mod reports;
mod runs;
mod stall;
mod support;
