//! Time stamps (RFC 3161; GB/T 20520 for SM3 and SM2): requests read, tokens made, tokens read.
//!
//! - [`Request`]: what a client wants stamped. Whatever is wrong with it is a [`Failure`], and [`rejection`]
//!   makes the answer.
//! - [`Authority`]: a time-stamping authority with everything that its tokens repeat, written once. Its
//!   [`Authority::prepare`] gives a [`PreparedToken`], which says what to sign and, given the signature,
//!   becomes the response.
//! - [`token_of`] and [`verify_token`]: somebody's response, and whether its token holds.

mod authority;
mod request;
mod verify;

use spki::ObjectIdentifier;

use crate::element::{element, tag};

pub use authority::{Accuracy, Authority, AuthorityError, PreparedToken};
pub use request::Request;
pub use verify::{ResponseError, Stamp, VerifyError, certificates_of, token_of, verify_token};

/// id-ct-TSTInfo (RFC 3161 2.4.2).
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// The media type of requests over HTTP (RFC 3161 3.4).
pub const QUERY_TYPE: &str = "application/timestamp-query";
/// The media type of responses over HTTP (RFC 3161 3.4).
pub const REPLY_TYPE: &str = "application/timestamp-reply";

/// Why a request gets no token: PKIFailureInfo (RFC 3161 2.4.2), the bit's number as the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Failure {
    /// A hash algorithm that is unknown or no longer safe.
    #[error("the hash algorithm is not supported; SHA-256, SHA-384, SHA-512 and SM3 are")]
    BadAlgorithm = 0,
    /// A request that is not allowed.
    #[error("the request is not permitted or not supported")]
    BadRequest = 2,
    /// Not a request, or a digest of the wrong length.
    #[error("the request is not in the right format")]
    BadDataFormat = 5,
    /// The clock cannot be relied on.
    #[error("the time source is not available")]
    TimeNotAvailable = 14,
    /// Another policy than the authority's.
    #[error("the requested policy is not supported")]
    UnacceptedPolicy = 15,
    /// An extension; none is supported.
    #[error("the requested extension is not supported")]
    UnacceptedExtension = 16,
    /// Something about the token cannot be told.
    #[error("the additional information is not available")]
    AddInfoNotAvailable = 17,
    /// The authority is broken.
    #[error("the request cannot be handled due to a system failure")]
    SystemFailure = 25,
}

impl Failure {
    /// Every failure.
    pub const ALL: [Self; 8] = [
        Self::BadAlgorithm,
        Self::BadRequest,
        Self::BadDataFormat,
        Self::TimeNotAvailable,
        Self::UnacceptedPolicy,
        Self::UnacceptedExtension,
        Self::AddInfoNotAvailable,
        Self::SystemFailure,
    ];
}

/// The response that says no: TimeStampResp with status rejection (RFC 3161 2.4.2), in DER.
pub fn rejection(failure: Failure) -> Vec<u8> {
    const REJECTION: u8 = 2;
    const UTF8_STRING: u8 = 0x0c;
    let text = element(UTF8_STRING, &[failure.to_string().as_bytes()]);
    let bit = failure as u8;
    let mut bits = vec![7 - bit % 8; usize::from(bit / 8) + 2];
    bits[1..].fill(0);
    if let Some(last) = bits.last_mut() {
        *last = 0x80 >> (bit % 8);
    }
    let status = element(
        tag::SEQUENCE,
        &[
            &[tag::INTEGER, 1, REJECTION],
            &element(tag::SEQUENCE, &[&text]),
            &element(tag::BIT_STRING, &[&bits]),
        ],
    );
    element(tag::SEQUENCE, &[&status])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_its_bit() {
        let bits = |failure| {
            let response = rejection(failure);
            let at = response
                .iter()
                .rposition(|byte| *byte == tag::BIT_STRING)
                .unwrap();
            response[at + 2..].to_vec()
        };
        assert_eq!(bits(Failure::BadAlgorithm), [7, 0x80]);
        assert_eq!(bits(Failure::BadRequest), [5, 0x20]);
        assert_eq!(bits(Failure::SystemFailure), [6, 0, 0, 0, 0x40]);
        for failure in Failure::ALL {
            assert_eq!(
                token_of(&rejection(failure)),
                Err(ResponseError::Rejected(Some(failure)))
            );
        }
    }
}
