//! The pool of key workers. A [`Job`](job::Work) goes in with a key's row number and comes back, on some lane's
//! thread, with a signature or the reason why there is none.
//!
//! - [`job`]: what a job is, and where finished ones go.
//! - [`soft`] and [`keys`]: software keys, and the cache of those in use.
//! - [`lanes`]: OS threads that sign with software keys.
//! - [`device`]: PKCS#11 devices, each behind worker processes, because a hung or crashing vendor library cannot be
//!   cured inside a thread. [`device::worker::main`] is what such a process runs.
//! - [`pool`]: the handle that routes a job to its lanes and never waits.
//!
//! The pool knows no tenants, requests or stores, and nothing here is async: it is threads and bounded queues.

pub mod device;
pub mod job;
pub mod keys;
pub mod lanes;
pub mod pool;
pub mod soft;
