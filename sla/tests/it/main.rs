//! The verdict against the text of the agreements, and against a naive reference.

mod credits;
mod late;
mod model;
mod reports;
mod support;
mod worked;
