//! The words everyone speaks.
//!
//! A request enters as bytes and leaves as bytes; this crate says what those bytes mean and nothing about what
//! is done with them. Read it in the order a request uses it:
//!
//! - [`ids`] and [`algorithm`]: what a request names (app, credential, idempotency key, algorithm).
//! - [`limits`]: every bound, with its unit in its name.
//! - [`frame`] and [`message`]: the native protocol, length-prefixed CBOR (`docs/wire.cddl`).
//! - [`session`]: the proof on the native protocol, a key both sides derive and a MAC on each request.
//! - [`http_proof`]: the proof on HTTPS, RFC 9421 HTTP message signatures.
//! - [`error_code`]: every code, sorted by who is to blame.
//! - [`verify`]: what a signature is checked against; used by the pool, the clients and the load tool.
//! - [`seal`]: how a seal stands, what it is used for, and what an app may know of it.
//! - [`clock`]: the only place that asks the operating system what time it is.
//! - [`stages`]: where the time of a request goes. `latency` (feature `latency`): histograms of it, and their log.
//! - `json` (feature `json`): the bodies of the HTTPS interface, for both sides of it.
//! - `client` (feature `client`): the Rust client for both transports.
//!
//! It is not a place for state: nothing here remembers a request, and outside `client` nothing opens a socket.

pub mod algorithm;
pub mod clock;
pub mod error_code;
pub mod frame;
pub mod http_proof;
pub mod ids;
pub mod limits;
pub mod message;
pub mod seal;
pub mod session;
pub mod stages;
pub mod verify;

#[cfg(feature = "json")]
pub mod json;

#[cfg(feature = "latency")]
pub mod latency;

#[cfg(feature = "client")]
pub mod client;
