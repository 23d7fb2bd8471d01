//! The pool of key workers. A [`Job`](job::Work) goes in with a key's row number and comes back, on some lane's
//! thread, with a signature or the reason why there is none.
//!
//! - [`job`]: what a job is, where its key is, and where finished ones go.
//! - [`pool`]: the handle that routes a job to the lanes or to the least loaded device that holds its key, tries
//!   another one after a fault ([`budget`]), and never waits.
//! - [`soft`] and [`keys`]: software keys, wrapped keys, and the cache of those in use.
//! - [`queue`]: what waits: fair between tenants by lane time, and never longer than the promise allows.
//! - [`lanes`]: OS threads that sign with software keys, [`multi`] of them at a time where the processor can.
//! - [`device`]: PKCS#11 and SDF devices behind worker processes. [`device::worker::main`] is what such a process runs.
//! - [`calibration`] and [`elastic`]: what a device can do, and how many lanes and processes there should be.
//!
//! The pool knows no tenants, requests or stores, and nothing here is async: it is threads and bounded queues.

mod budget;
pub mod calibration;
pub mod device;
pub mod elastic;
mod growth;
mod inbox;
pub mod job;
pub mod keys;
pub mod lanes;
pub mod multi;
mod nonce;
pub mod pool;
pub mod queue;
mod sm2_key;
pub mod soft;
