//! The status of single certificates (RFC 6960): requests read, responses made, responses read.
//!
//! - [`Request`]: which certificates somebody asks for, from a POST body or a GET path.
//! - [`Responder`]: who answers, with everything its responses repeat. [`Responder::prepare`] gives a
//!   [`PreparedResponse`], which says what to sign and, given the signature, becomes the response. Without a
//!   nonce it can be made before anybody asks.
//! - [`Refusal`]: the answers that need no signature.
//! - [`Response`]: somebody's response, and whether it holds.

mod id;
mod request;
mod respond;
mod verify;

pub use id::{CertId, IdHash, Named};
pub use request::{Request, RequestError};
pub use respond::{PrepareError, PreparedResponse, Responder, ResponderError, Single};
pub use verify::{Response, VerifyError};

use protocol::clock::UnixMillis;

use crate::crl::Reason;

/// The media type of requests over HTTP (RFC 6960 A.1).
pub const REQUEST_TYPE: &str = "application/ocsp-request";
/// The media type of responses over HTTP (RFC 6960 A.2).
pub const RESPONSE_TYPE: &str = "application/ocsp-response";

/// Whether a certificate is good (RFC 6960 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not revoked.
    Good,
    /// Revoked or suspended.
    Revoked {
        /// Since when.
        at: UnixMillis,
        /// Why.
        reason: Reason,
    },
    /// Not a certificate that the responder knows.
    Unknown,
}

/// Why there is no answer: OCSPResponseStatus (RFC 6960 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Not a request.
    MalformedRequest = 1,
    /// The responder is broken.
    InternalError = 2,
    /// Not now.
    TryLater = 3,
    /// Only signed requests are answered.
    SignatureRequired = 5,
    /// Not a certificate that this responder answers for, or not a client that it answers.
    Unauthorized = 6,
}

impl Refusal {
    /// The OCSPResponse, in DER. It is not signed.
    pub const fn to_der(self) -> [u8; 5] {
        [0x30, 3, 0x0a, 1, self as u8]
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::MalformedRequest),
            2 => Some(Self::InternalError),
            3 => Some(Self::TryLater),
            5 => Some(Self::SignatureRequired),
            6 => Some(Self::Unauthorized),
            _ => None,
        }
    }
}
