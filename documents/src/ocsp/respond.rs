//! Who answers, and the answers (RFC 6960 4.2).

use const_oid::db::rfc5280::ID_KP_OCSP_SIGNING;
use const_oid::db::rfc6960::ID_PKIX_OCSP_BASIC;
use der::asn1::GeneralizedTime;
use der::{DateTime, Encode};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;
use protocol::verify::{PublicKey, PublicKeyError};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::id::key_bits;
use super::request::nonce_extension;
use super::{CertId, IdHash, Named, Status};
use crate::crl::Reason;
use crate::element::{append, element, tag};
use crate::signed::{AssembleError, Unsigned, fits, is_well_formed};
use crate::time;
use crate::x509::{Certificate, PathError, ReadError, verify_issued_by};

/// Why a certificate does not make a responder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponderError {
    /// A certificate that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// A key that cannot be used.
    #[error("the responder's key: {0}")]
    Key(#[from] PublicKeyError),
    /// The key does not sign with this algorithm.
    #[error("the responder's key does not sign with {0}")]
    Algorithm(Algorithm),
    /// Neither the issuer nor its delegate (RFC 6960 4.2.2.2).
    #[error("the certificate is not for OCSP signing")]
    Purpose,
    /// A delegate of somebody else.
    #[error("the responder's certificate: {0}")]
    NotDelegated(#[from] PathError),
}

/// Why a response cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// A response about nothing.
    #[error("a response is about at least one certificate")]
    Nothing,
    /// The responder's certificate is not valid now; no client would accept the response.
    #[error("the responder's certificate is not valid at the time of the response")]
    NotValidThen,
    /// A certificate of another issuer.
    #[error("a certificate of another issuer than the responder's")]
    OtherIssuer,
    /// An update that comes before this one.
    #[error("the next update must come after this one")]
    Updates,
    /// A time after the year 9999.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// What is said of one certificate.
#[derive(Clone, Copy, Debug)]
pub struct Single<'a> {
    /// Which, as the request names it.
    pub id: &'a CertId,
    /// How it stands.
    pub status: Status,
    /// When this was known to be so.
    pub this_update: UnixMillis,
    /// When more will be known; `None`: at any time.
    pub next_update: Option<UnixMillis>,
}

/// Who answers for an issuer, with all that the answers repeat.
#[derive(Debug)]
pub struct Responder {
    issuer: Named,
    key: PublicKey,
    algorithm: Algorithm,
    validity: (UnixMillis, UnixMillis),
    /// ResponderID by key, in DER.
    id: Vec<u8>,
    /// The certificates that come with a response, tagged; empty where the issuer answers itself.
    certificates: Vec<u8>,
}

/// A response that lacks its signature.
#[derive(Debug)]
pub struct PreparedResponse<'a> {
    responder: &'a Responder,
    unsigned: Unsigned,
}

impl Responder {
    /// `certificate` is the issuer's own or that of its delegate, whose extended key usage is OCSP signing.
    /// Both certificates are in DER.
    pub fn new(certificate: &[u8], issuer: &[u8], algorithm: Algorithm) -> Result<Self, ResponderError> {
        let responder = Certificate::parse(certificate)?;
        let itself = certificate == issuer;
        if !itself {
            check_delegate(&responder, issuer)?;
        }
        let key = PublicKey::from_spki(responder.public_key())?;
        if !fits(&key, algorithm) {
            return Err(ResponderError::Algorithm(algorithm));
        }
        // SHA-1, whatever the request uses (RFC 6960 4.2.1).
        let hash = IdHash::Sha1.digest(&key_bits(&responder)?);
        let by_key = element(tag::OCTET_STRING, &[&hash]);
        let enclosed = element(tag::SEQUENCE, &[certificate]);
        Ok(Self {
            issuer: Named::new(issuer)?,
            key,
            algorithm,
            validity: responder.validity(),
            id: element(tag::constructed(2), &[&by_key]),
            certificates: if itself {
                Vec::new()
            } else {
                element(tag::constructed(0), &[&enclosed])
            },
        })
    }

    /// The issuer it answers for.
    pub const fn issuer(&self) -> &Named {
        &self.issuer
    }

    /// Its key.
    pub const fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Writes a response that repeats `nonce`. Without one it can be made before anybody asks, and given to
    /// everybody until its next update.
    pub fn prepare(
        &self,
        singles: &[Single<'_>],
        produced_at: UnixMillis,
        nonce: Option<&[u8]>,
    ) -> Result<PreparedResponse<'_>, PrepareError> {
        if singles.is_empty() {
            return Err(PrepareError::Nothing);
        }
        if !time::is_within(self.validity, produced_at) {
            return Err(PrepareError::NotValidThen);
        }
        let mut list = Vec::with_capacity(singles.len() * 160);
        for single in singles {
            self.append_single(&mut list, single)?;
        }
        let extensions = nonce.map_or(Vec::new(), |nonce| {
            element(
                tag::constructed(1),
                &[&element(tag::SEQUENCE, &[&nonce_extension(nonce)])],
            )
        });
        let part = element(
            tag::SEQUENCE,
            &[
                &self.id,
                &generalized(produced_at)?,
                &element(tag::SEQUENCE, &[&list]),
                &extensions,
            ],
        );
        Ok(PreparedResponse {
            responder: self,
            unsigned: Unsigned::new(part, &self.key, self.algorithm),
        })
    }

    fn append_single(&self, list: &mut Vec<u8>, single: &Single<'_>) -> Result<(), PrepareError> {
        // Of somebody else's certificates it can be said that they are not known, and nothing more.
        if single.status != Status::Unknown && !single.id.is_of(&self.issuer) {
            return Err(PrepareError::OtherIssuer);
        }
        let next = match single.next_update {
            None => Vec::new(),
            Some(next) if next.seconds() <= single.this_update.seconds() => {
                return Err(PrepareError::Updates);
            }
            Some(next) => element(tag::constructed(0), &[&generalized(next)?]),
        };
        let status = status(single.status)?;
        let this = generalized(single.this_update)?;
        append(list, tag::SEQUENCE, &[single.id.as_der(), &status, &this, &next]);
        Ok(())
    }
}

fn check_delegate(responder: &Certificate<'_>, issuer: &[u8]) -> Result<(), ResponderError> {
    let purposes = responder.extension::<ExtendedKeyUsage>()?;
    if !purposes.is_some_and(|ExtendedKeyUsage(all)| all.contains(&ID_KP_OCSP_SIGNING)) {
        return Err(ResponderError::Purpose);
    }
    Ok(verify_issued_by(responder.der(), issuer)?)
}

/// CertStatus.
fn status(status: Status) -> der::Result<Vec<u8>> {
    Ok(match status {
        Status::Good => vec![tag::primitive(0), 0],
        Status::Unknown => vec![tag::primitive(2), 0],
        Status::Revoked { at, reason } => {
            let reason = match reason {
                Reason::Unspecified => Vec::new(),
                other => element(tag::constructed(0), &[&[tag::ENUMERATED, 1, other.number()]]),
            };
            element(tag::constructed(1), &[&generalized(at)?, &reason])
        }
    })
}

/// Whole seconds, as RFC 5280 has them.
fn generalized(at: UnixMillis) -> der::Result<Vec<u8>> {
    let at = DateTime::from_unix_duration(std::time::Duration::from_secs(at.seconds()))?;
    GeneralizedTime::from_date_time(at).to_der()
}

impl PreparedResponse<'_> {
    /// ResponseData, in DER.
    pub fn data(&self) -> &[u8] {
        self.unsigned.part()
    }

    /// What to give to a signer of the responder's algorithm, as with certificates.
    pub fn to_sign(&self) -> &[u8] {
        self.unsigned.to_sign()
    }

    /// The OCSPResponse, in DER. The form of the signature is checked; that it verifies is for the pool to see
    /// to.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        const SUCCESSFUL: [u8; 3] = [tag::ENUMERATED, 1, 0];
        let Responder { key, algorithm, .. } = self.responder;
        if !is_well_formed(key, *algorithm, signature) {
            return Err(AssembleError::Signature(*algorithm));
        }
        let basic = self.unsigned.around(signature, &self.responder.certificates)?;
        let basic = element(tag::OCTET_STRING, &[&basic]);
        let bytes = element(tag::SEQUENCE, &[&ID_PKIX_OCSP_BASIC.to_der()?, &basic]);
        let bytes = element(tag::constructed(0), &[&bytes]);
        Ok(element(tag::SEQUENCE, &[&SUCCESSFUL, &bytes]))
    }
}
