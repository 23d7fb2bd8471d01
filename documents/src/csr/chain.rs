//! What another authority sends back.

use protocol::clock::UnixMillis;

use super::public_key_of;
use crate::time;
use crate::x509::{Certificate, KeyError, Name, PathError, ReadError, check_public_key, verify_issued_by};

/// Most certificates in a chain.
const CERTIFICATES_MAX: usize = 10;

/// Why a chain is not taken. Certificates are numbered from 1, the subject's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// None, or too many.
    #[error("a chain has 1 to {CERTIFICATES_MAX} certificates, not {0}")]
    Count(usize),
    /// One that cannot be read.
    #[error("certificate {0} of the chain: {1}")]
    Unreadable(usize, ReadError),
    /// The request cannot be read.
    #[error("not a PKCS#10 certificate request in DER: {0}")]
    Request(#[from] der::Error),
    /// The first certificate is about another key than the request's.
    #[error("the first certificate is not about the requested key")]
    OtherKey,
    /// A key that must not be certified.
    #[error("certificate {0} of the chain: {1}")]
    Key(usize, KeyError),
    /// One that was not issued by the next.
    #[error("certificate {0} of the chain under the next one: {1}")]
    Link(usize, PathError),
    /// One that is not valid now.
    #[error("certificate {0} of the chain is not valid now")]
    NotValidNow(usize),
}

/// A chain that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedChain {
    /// The certificates, in DER: the subject's first, each followed by its issuer's.
    pub certificates: Vec<Vec<u8>>,
    /// The subject, as the other authority names it.
    pub subject: Name,
    /// When the first certificate is valid.
    pub validity: (UnixMillis, UnixMillis),
    /// Whether the last certificate certifies itself.
    pub reaches_root: bool,
}

/// Checks that `certificates` (in DER; the subject's first, each followed by its issuer's) are the answer to
/// `request` (in DER) and valid at `now`. Whether their root is trusted is for an operator to say.
pub fn check_chain(
    request: &[u8],
    certificates: &[impl AsRef<[u8]>],
    now: UnixMillis,
) -> Result<ImportedChain, ChainError> {
    check_chain_of_key(&public_key_of(request)?, certificates, now)
}

/// The same for a key whose request is not at hand, by its SubjectPublicKeyInfo, in DER.
pub fn check_chain_of_key(
    key: &[u8],
    certificates: &[impl AsRef<[u8]>],
    now: UnixMillis,
) -> Result<ImportedChain, ChainError> {
    if certificates.is_empty() || certificates.len() > CERTIFICATES_MAX {
        return Err(ChainError::Count(certificates.len()));
    }
    let parsed: Vec<_> = (1..)
        .zip(certificates)
        .map(|(number, der)| {
            Certificate::parse(der.as_ref()).map_err(|error| ChainError::Unreadable(number, error))
        })
        .collect::<Result<_, _>>()?;
    let (first, last) = (&parsed[0], &parsed[parsed.len() - 1]);
    if first.public_key() != key {
        return Err(ChainError::OtherKey);
    }
    check_links(&parsed, now)?;
    let subject =
        Name::from_der(first.subject().0).map_err(|error| ChainError::Unreadable(1, error.into()))?;
    Ok(ImportedChain {
        certificates: certificates.iter().map(|der| der.as_ref().to_vec()).collect(),
        subject,
        validity: first.validity(),
        reaches_root: last.subject() == last.issuer(),
    })
}

fn check_links(chain: &[Certificate<'_>], now: UnixMillis) -> Result<(), ChainError> {
    for (number, certificate) in (1..).zip(chain) {
        check_public_key(certificate.public_key()).map_err(|error| ChainError::Key(number, error))?;
        if !time::is_within(certificate.validity(), now) {
            return Err(ChainError::NotValidNow(number));
        }
    }
    for (number, pair) in (1..).zip(chain.windows(2)) {
        verify_issued_by(pair[0].der(), pair[1].der()).map_err(|error| ChainError::Link(number, error))?;
    }
    Ok(())
}
