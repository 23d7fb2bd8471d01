//! The engine from outside: the real binary, real QUIC and TLS, real files.
#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

mod devices_support;
mod ledger;
mod raw;
mod receivers;
mod support;

mod alerts;
mod audit;
mod authorities;
mod chaos;
mod crash;
mod dashboard;
mod device;
mod documents;
mod hostile;
mod isolation;
mod keep;
mod life;
mod metering;
mod monitoring;
mod operators;
mod panics;
mod paper;
mod pki;
mod pool;
mod prepaid;
mod registration;
mod seal;
mod sealing;
mod seals;
mod signing;
mod stalls;
mod status;
mod stop;
mod strangers;
mod tidy;
mod trouble;
mod witnesses;
