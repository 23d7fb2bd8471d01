//! What a client wants stamped (RFC 3161 2.4.1).

use der::asn1::{IntRef, OctetStringRef};
use der::{Decode, Encode, Sequence};
use protocol::algorithm::Hash;
use spki::{AlgorithmIdentifierRef, ObjectIdentifier};

use super::Failure;
use crate::element::{Body, Element};
use crate::identifier;

/// Longest request, in bytes of DER. Without extensions none is longer than 150.
const REQUEST_BYTES_MAX: usize = 1024;
/// Longest nonce, in bytes.
const NONCE_BYTES_MAX: usize = 64;

/// TimeStampReq.
#[derive(Sequence)]
struct TimeStampReq<'a> {
    version: u8,
    imprint: Element<'a>,
    policy: Option<ObjectIdentifier>,
    nonce: Option<IntRef<'a>>,
    #[asn1(default = "Default::default")]
    certificate: bool,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    extensions: Option<Body<'a>>,
}

/// MessageImprint.
#[derive(Sequence)]
pub(super) struct MessageImprint<'a> {
    pub(super) hash: AlgorithmIdentifierRef<'a>,
    pub(super) digest: &'a OctetStringRef,
}

impl MessageImprint<'_> {
    pub(super) fn hash(&self) -> Result<Hash, Failure> {
        let hash = identifier::read_hash(&self.hash).ok_or(Failure::BadAlgorithm)?;
        if self.digest.as_bytes().len() == hash.bytes() {
            Ok(hash)
        } else {
            Err(Failure::BadDataFormat)
        }
    }
}

/// A request in which nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The hash of the imprint.
    pub hash: Hash,
    /// The policy asked for.
    pub policy: Option<ObjectIdentifier>,
    /// Whether the token is to carry the authority's certificates.
    pub certificates: bool,
    /// MessageImprint, in DER; it comes back as it was.
    pub(super) imprint: Vec<u8>,
    /// The nonce as an INTEGER, in DER; empty without one.
    pub(super) nonce: Vec<u8>,
}

impl Request {
    /// The digest to be stamped.
    pub fn digest(&self) -> &[u8] {
        MessageImprint::from_der(&self.imprint).map_or(&[], |imprint| imprint.digest.as_bytes())
    }

    /// Reads a TimeStampReq, in DER.
    pub fn parse(der: &[u8]) -> Result<Self, Failure> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(Failure::BadDataFormat);
        }
        let request = TimeStampReq::from_der(der).map_err(|_| Failure::BadDataFormat)?;
        if request.version != 1 {
            return Err(Failure::BadRequest);
        }
        if request.extensions.is_some() {
            return Err(Failure::UnacceptedExtension);
        }
        let imprint = request.imprint.0;
        let hash = MessageImprint::from_der(imprint)
            .map_err(|_| Failure::BadDataFormat)?
            .hash()?;
        let nonce = request.nonce.map(|nonce| nonce.to_der()).transpose();
        let nonce = nonce.map_err(|_| Failure::BadDataFormat)?.unwrap_or_default();
        if nonce.len() > 2 + NONCE_BYTES_MAX {
            return Err(Failure::BadRequest);
        }
        Ok(Self {
            hash,
            policy: request.policy,
            certificates: request.certificate,
            imprint: imprint.to_vec(),
            nonce,
        })
    }

    /// A request for a digest made with `hash`, for stamps by other authorities: no policy, with the
    /// authority's certificates. The nonce is unsigned and big-endian; empty: none. `None` if the digest has
    /// the wrong length.
    pub fn new(hash: Hash, digest: &[u8], nonce: &[u8]) -> Option<Self> {
        let imprint = MessageImprint {
            hash: identifier::hash_identifier(hash),
            digest: OctetStringRef::new(digest).ok()?,
        };
        imprint.hash().ok()?;
        let nonce = if nonce.is_empty() {
            Vec::new()
        } else {
            crate::element::integer(nonce)
        };
        Some(Self {
            hash,
            policy: None,
            certificates: true,
            imprint: imprint.to_der().ok()?,
            nonce,
        })
    }

    /// TimeStampReq, in DER.
    pub fn to_der(&self) -> der::Result<Vec<u8>> {
        let nonce = if self.nonce.is_empty() {
            None
        } else {
            Some(IntRef::from_der(&self.nonce)?)
        };
        TimeStampReq {
            version: 1,
            imprint: Element(&self.imprint),
            policy: self.policy,
            nonce,
            certificate: self.certificates,
            extensions: None,
        }
        .to_der()
    }
}
