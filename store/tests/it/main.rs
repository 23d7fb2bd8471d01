//! The store from outside: what survives, what is refused, what is noticed.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

mod support;

mod archive;
mod audit;
mod backup;
mod durability;
mod judgement;
mod life;
mod seals;
mod trouble;
