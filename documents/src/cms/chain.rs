//! A signer's certificates, read once.

use der::Encode;
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use protocol::verify::{PublicKey, PublicKeyError};

use super::{CERTIFICATES_MAX, DigestBytes, attributes};
use crate::element::in_set_order;
use crate::x509::{Certificate, ReadError};

/// Why certificates do not make a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// None, or too many.
    #[error("a chain has 1 to {CERTIFICATES_MAX} certificates, not {0}")]
    Count(usize),
    /// One that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The signer's key cannot be used.
    #[error("the signer's key: {0}")]
    Key(#[from] PublicKeyError),
    /// One that was not issued under the next one's name.
    #[error("certificate {0} of the chain was not issued by the next one")]
    Order(usize),
}

/// A signer's certificates and what every signature under them repeats. Made once per credential and shared.
#[derive(Debug)]
pub struct Chain {
    certificates: Vec<u8>,
    issuer_and_serial: Vec<u8>,
    leaf_digest: DigestBytes,
    signing_certificate: Vec<u8>,
    public_key: PublicKey,
    validity: (UnixMillis, UnixMillis),
}

impl Chain {
    /// Reads the certificates, in DER: the signer's first, each followed by its issuer's, the root or not as
    /// you like. Names are checked, signatures are not.
    pub fn new(certificates: &[impl AsRef<[u8]>]) -> Result<Self, ChainError> {
        if certificates.is_empty() || certificates.len() > CERTIFICATES_MAX {
            return Err(ChainError::Count(certificates.len()));
        }
        let parsed: Vec<_> = certificates
            .iter()
            .map(|der| Certificate::parse(der.as_ref()))
            .collect::<Result<_, _>>()?;
        if let Some(at) = parsed
            .windows(2)
            .position(|pair| pair[0].issuer() != pair[1].subject())
        {
            return Err(ChainError::Order(at + 1));
        }
        let mut elements: Vec<_> = parsed.iter().map(Certificate::der).collect();
        Self::under(&parsed[0], in_set_order(&mut elements))
    }

    fn under(leaf: &Certificate<'_>, certificates: Vec<u8>) -> Result<Self, ChainError> {
        Ok(Self {
            certificates,
            issuer_and_serial: leaf.issuer_and_serial().to_der().map_err(ReadError::from)?,
            leaf_digest: Hash::Sha256.digest(leaf.der()),
            signing_certificate: attributes::signing_certificate(leaf).map_err(ReadError::from)?,
            public_key: PublicKey::from_spki(leaf.public_key())?,
            validity: leaf.validity(),
        })
    }

    /// All certificates one after the other, as a SET OF orders them (RFC 5652 10.2.3).
    pub fn certificates(&self) -> &[u8] {
        &self.certificates
    }

    /// The signer's IssuerAndSerialNumber, in DER (RFC 5652 10.2.4).
    pub fn issuer_and_serial(&self) -> &[u8] {
        &self.issuer_and_serial
    }

    /// SHA-256 of the signer's certificate.
    pub fn leaf_digest(&self) -> &[u8] {
        &self.leaf_digest
    }

    /// The signer's key.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// notBefore and notAfter of the signer's certificate.
    pub const fn validity(&self) -> (UnixMillis, UnixMillis) {
        self.validity
    }

    /// The attribute that names the signer's certificate.
    pub(crate) fn signing_certificate(&self) -> &[u8] {
        &self.signing_certificate
    }
}
