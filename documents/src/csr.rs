//! Certificate requests (PKCS#10, RFC 2986): read with suspicion, and made for other authorities.
//!
//! - [`Request::parse`] takes whatever a stranger sends and gives back only what is sound: the requester holds
//!   the private key, the key is not weak, the name does not deceive, and nothing is asked for that we do not
//!   grant. What a certificate will hold is for its profile to say; a request can only wish.
//! - [`prepare`] makes a request for a key of ours, so that another authority certifies it, and
//!   [`check_chain`] looks at what comes back.

mod chain;
mod prepare;
mod read;

pub use chain::{ChainError, ImportedChain, check_chain, check_chain_of_key};
pub use prepare::{PrepareError, PreparedRequest, prepare, to_pem};
pub use read::{Request, RequestError};

use der::asn1::BitStringRef;
use der::{Decode, Sequence};
use spki::ObjectIdentifier;

use crate::element::{Element, Members};

/// extensionRequest (RFC 2985 5.4.2).
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
/// challengePassword (RFC 2985 5.4.1).
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");

/// CertificationRequestInfo (RFC 2986 4.1). The attributes must be there, but some leave them out.
#[derive(Sequence)]
struct Info<'a> {
    version: u8,
    subject: Element<'a>,
    public_key: Element<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    attributes: Option<Members<'a>>,
}

/// CertificationRequest (RFC 2986 4.2).
#[derive(Sequence)]
struct Raw<'a> {
    info: Element<'a>,
    algorithm: Element<'a>,
    signature: BitStringRef<'a>,
}

/// Attribute (RFC 2986 4.1).
#[derive(Sequence)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    values: Members<'a>,
}

/// The SubjectPublicKeyInfo in a request that was read before.
fn public_key_of(der: &[u8]) -> der::Result<Vec<u8>> {
    let raw = Raw::from_der(der)?;
    Ok(Info::from_der(raw.info.0)?.public_key.0.to_vec())
}
