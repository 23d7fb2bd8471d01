//! The verdict against the text of the agreements, and against a naive reference.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod credits;
mod late;
mod model;
mod reports;
mod support;
mod worked;
