//! The pool from outside: software lanes, a real SoftHSM2 behind worker processes, and a device that misbehaves.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

mod support;

mod traffic;

mod device;
mod devices;
mod elastic;
mod failover;
mod software;
mod together;
