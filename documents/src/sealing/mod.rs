//! Sealing a document, PDF or OFD, up to any level: *prepare → sign → assemble* as one sequence of questions.
//!
//! An [`Order`] says what is wanted. [`Sealing`] takes it and the document, and from then on asks for one thing after
//! the other ([`Step`]): have this signed, have this time-stamped, tell how these certificates stand. Each [`Answer`]
//! is bytes, is checked, and brings the next step, until the document is done. So whoever drives it may be the
//! command line with a client's profile, a service with keys of its own, or three programs on three machines that
//! pass a file; the document stays with the one who has it.
//!
//! Everything here is a function of document, order and answers: [`Sealing::replay`] brings a sealing back to where
//! it was from those three, byte for byte, after a crash or in another process.
//!
//! - `order.rs`: what is wanted. `run.rs`: the sequence. `place.rs`: where a seal goes, in OFD's words.
//! - `paused.rs`: a sealing between two programs, as a file of JSON; the document is not in it.
//! - `evidence.rs`: what is needed to verify a signature later (levels B-LT and B-LTA), and whether it is enough.
//!   [`Wanted::sources`] tells where certificates say that it can be had.
//! - `error.rs`: what can go wrong, and whose fault it is.

mod error;
mod evidence;
mod order;
mod paused;
mod place;
mod run;

pub use error::SealingError;
pub use evidence::{Asked, Evidence, EvidenceError, Wanted};
pub use order::{
    Appearance, Form, Level, Octets, Order, SIGNERS_MAX, Signer, TOKEN_BYTES_DEFAULT, TOKEN_BYTES_MAX,
};
pub use paused::{Paused, PausedError};
pub use run::{Answer, Sealing, Step};
