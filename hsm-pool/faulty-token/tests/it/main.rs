//! The faulty module in front of SoftHSM2, as its callers meet it: through cryptoki, and in processes that it ends.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod calls;
mod crashes;
mod support;
