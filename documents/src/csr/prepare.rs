//! A request for a key of ours: prepare, let sign, assemble.

use der::Encode;
use protocol::algorithm::Algorithm;
use protocol::verify::PublicKey;

use crate::element::{element, tag};
use crate::signed::{AssembleError, Unsigned, fits};
use crate::x509::{KeyError, Name, check_public_key};

/// Why a request cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// A key that nobody should certify.
    #[error("the key: {0}")]
    Key(#[from] KeyError),
    /// The key does not sign with this algorithm.
    #[error("the key does not sign with {0}")]
    Algorithm(Algorithm),
    /// A request that names nobody.
    #[error("a request names a subject")]
    NoSubject,
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// A request that lacks its signature.
#[derive(Debug)]
pub struct PreparedRequest {
    unsigned: Unsigned,
    key: PublicKey,
}

/// Writes everything of the request but its signature, which the key itself is to make with `algorithm`. It
/// asks for no extensions: the other authority knows what it certifies.
pub fn prepare(
    subject: &Name,
    public_key: &[u8],
    algorithm: Algorithm,
) -> Result<PreparedRequest, PrepareError> {
    let key = check_public_key(public_key)?;
    if !fits(&key, algorithm) {
        return Err(PrepareError::Algorithm(algorithm));
    }
    if subject.is_empty() {
        return Err(PrepareError::NoSubject);
    }
    let version = 0_u8.to_der()?;
    let attributes = element(tag::constructed(0), &[]);
    let info = element(
        tag::SEQUENCE,
        &[&version, subject.as_der(), public_key, &attributes],
    );
    Ok(PreparedRequest {
        unsigned: Unsigned::new(info, &key, algorithm),
        key,
    })
}

impl PreparedRequest {
    /// What to give to a signer of the key's algorithm, as with certificates.
    pub fn to_sign(&self) -> &[u8] {
        self.unsigned.to_sign()
    }

    /// The CertificationRequest, in DER. The signature is verified.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        self.unsigned.assemble(&self.key, signature)
    }
}

/// A request as text (RFC 7468 7).
pub fn to_pem(request: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE REQUEST", der::pem::LineEnding::LF, request)
        .expect("the label is well-formed, and nothing else can be refused")
}
