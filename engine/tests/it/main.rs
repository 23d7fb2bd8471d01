//! The engine from outside: the real binary, real QUIC and TLS, real files.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

mod ledger;
mod raw;
mod support;

mod crash;
mod device;
mod hostile;
mod panics;
mod pki;
mod prepaid;
mod signing;
mod stop;
mod strangers;
mod tidy;
mod trouble;
