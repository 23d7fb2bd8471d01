//! The engine from outside: the real binary, real QUIC and TLS, real files.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

mod raw;
mod support;

mod device;
mod hostile;
mod signing;
mod strangers;
mod tidy;
mod trouble;
