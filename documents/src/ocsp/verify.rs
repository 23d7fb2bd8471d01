//! Somebody's answer: does it hold, and what does it say?

use std::cell::LazyCell;

use const_oid::db::rfc5280::ID_KP_OCSP_SIGNING;
use const_oid::db::rfc6960::ID_PKIX_OCSP_BASIC;
use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, OctetStringRef};
use der::{Decode, Enumerated, Sequence, Tag, TagNumber, Tagged};
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::ext::pkix::crl::CrlReason;
use x509_cert::time::Time;

use super::id::key_bits;
use super::request::nonce;
use super::{CertId, IdHash, Named, Refusal, RequestError, Status};
use crate::crl::Reason;
use crate::element::{Body, Element};
use crate::signed::{self, SignatureError, algorithm_of};
use crate::time;
use crate::x509::{Certificate, PathError, ReadError, names_match, verify_issued_by};

/// Most certificates that are looked at in a response.
const CERTIFICATES_MAX: usize = 8;
/// Most statuses in a response.
const SINGLES_MAX: usize = 64;

/// Why a response is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a response, or not in DER.
    #[error("not an OCSP response in DER: {0}")]
    Malformed(#[from] der::Error),
    /// The responder does not answer.
    #[error("the responder does not answer: {0:?}")]
    Refused(Option<Refusal>),
    /// Not id-pkix-ocsp-basic.
    #[error("a kind of response that is not supported")]
    Kind,
    /// A certificate that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// Signed by somebody who is neither the issuer nor its delegate.
    #[error("the response is signed by nobody who may: neither the issuer nor its delegate")]
    Responder,
    /// A delegate that the issuer did not appoint.
    #[error("the responder's certificate: {0}")]
    Delegate(#[from] PathError),
    /// The signature does not hold.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// An extension that cannot be read.
    #[error(transparent)]
    Extension(#[from] RequestError),
    /// Not the nonce of the request: an older response that was played back.
    #[error("the response answers another request")]
    Nonce,
    /// Nothing is said of the certificate.
    #[error("the response is about other certificates")]
    OtherCertificate,
    /// From before or after the time that counts.
    #[error("the response is not current")]
    NotCurrent,
}

#[derive(Clone, Copy, PartialEq, Eq, Enumerated)]
#[repr(u8)]
enum ResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SignatureRequired = 5,
    Unauthorized = 6,
}

#[derive(Sequence)]
struct OcspResponse<'a> {
    status: ResponseStatus,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    bytes: Option<ResponseBytes<'a>>,
}

#[derive(Sequence)]
struct ResponseBytes<'a> {
    kind: ObjectIdentifier,
    response: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Basic<'a> {
    data: Element<'a>,
    algorithm: Element<'a>,
    signature: BitStringRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certificates: Option<Body<'a>>,
}

#[derive(Sequence)]
struct Data<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "Default::default")]
    version: u8,
    responder: AnyRef<'a>,
    produced_at: GeneralizedTime,
    singles: Body<'a>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct RawSingle<'a> {
    id: Element<'a>,
    status: AnyRef<'a>,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct RevokedInfo {
    at: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    reason: Option<CrlReason>,
}

/// A response that has been read. Whether it holds is another matter: [`Response::verify`].
pub struct Response<'a> {
    basic: Basic<'a>,
    data: Data<'a>,
    nonce: Option<Vec<u8>>,
    singles: Vec<ReadSingle>,
}

struct ReadSingle {
    id: CertId,
    status: Status,
    updates: (UnixMillis, Option<UnixMillis>),
}

impl<'a> Response<'a> {
    /// Reads an OCSPResponse, in DER.
    pub fn parse(der: &'a [u8]) -> Result<Self, VerifyError> {
        let response = OcspResponse::from_der(der)?;
        if response.status != ResponseStatus::Successful {
            return Err(VerifyError::Refused(Refusal::from_number(response.status as u8)));
        }
        let bytes = response.bytes.ok_or(VerifyError::Refused(None))?;
        if bytes.kind != ID_PKIX_OCSP_BASIC {
            return Err(VerifyError::Kind);
        }
        let basic = Basic::from_der(bytes.response.as_bytes())?;
        let data = Data::from_der(basic.data.0)?;
        let singles = data.singles.elements(SINGLES_MAX)?.into_iter().map(single);
        let singles = singles.collect::<Result<_, _>>()?;
        let extensions: Vec<Extension> = data.extensions.map_or(Ok(Vec::new()), AnyRef::decode_as)?;
        Ok(Self {
            nonce: nonce(&extensions)?,
            basic,
            data,
            singles,
        })
    }

    /// The nonce it repeats.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// The certificates in it, in DER: the responder's, where that is not the issuer.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>, VerifyError> {
        let enclosed = self.basic.certificates.unwrap_or(Body(&[]));
        let elements = enclosed.elements(CERTIFICATES_MAX)?;
        Ok(elements.iter().map(|element| element.0.to_vec()).collect())
    }

    /// When it was signed.
    pub fn produced_at(&self) -> UnixMillis {
        time::from_asn1(Time::GeneralTime(self.data.produced_at))
    }

    /// Checks that the holder of `issuer` (a certificate, in DER) or its delegate signed it, and tells how the
    /// certificate stood at `at`. With `nonce` the response must repeat it.
    pub fn verify(
        &self,
        issuer: &[u8],
        id: &CertId,
        nonce: Option<&[u8]>,
        at: UnixMillis,
    ) -> Result<Status, VerifyError> {
        if nonce.is_some() && nonce != self.nonce() {
            return Err(VerifyError::Nonce);
        }
        self.current(issuer, |single| single.id.is_same(id), at)
    }

    /// How the certificate of `issuer` with this serial number (as the INTEGER has it) stood at `at`.
    pub(crate) fn status_of(
        &self,
        issuer: &[u8],
        serial: &[u8],
        at: UnixMillis,
    ) -> Result<Status, VerifyError> {
        // The hashes of the issuer are computed only where a serial number fits.
        let named = LazyCell::new(|| Named::new(issuer));
        let fits = |single: &ReadSingle| {
            single.id.raw_serial() == serial && matches!(&*named, Ok(named) if single.id.is_of(named))
        };
        self.current(issuer, fits, at)
    }

    fn current(
        &self,
        issuer: &[u8],
        fits: impl Fn(&ReadSingle) -> bool,
        at: UnixMillis,
    ) -> Result<Status, VerifyError> {
        let mut singles = self.singles.iter();
        let single = singles
            .find(|single| fits(single))
            .ok_or(VerifyError::OtherCertificate)?;
        self.verify_signature(issuer, at)?;
        let (this, next) = single.updates;
        let late = next.is_some_and(|next| next.seconds() < at.seconds());
        if late || this.seconds() > at.seconds() {
            return Err(VerifyError::NotCurrent);
        }
        Ok(single.status)
    }

    fn verify_signature(&self, issuer: &[u8], at: UnixMillis) -> Result<(), VerifyError> {
        let issuer_certificate = Certificate::parse(issuer)?;
        let by = |signer: &Certificate<'_>| {
            let algorithm = algorithm_of(self.basic.algorithm);
            let signature = self.basic.signature.as_bytes();
            signed::verify(algorithm, signer.public_key(), self.basic.data.0, signature)
        };
        if self.is_responder(&issuer_certificate)? {
            by(&issuer_certificate)?;
            return Ok(());
        }
        let enclosed = self
            .basic
            .certificates
            .unwrap_or(Body(&[]))
            .elements(CERTIFICATES_MAX)?;
        for element in enclosed {
            let delegate = Certificate::parse(element.0)?;
            if self.is_responder(&delegate)? {
                check_delegate(&delegate, issuer, at)?;
                by(&delegate)?;
                return Ok(());
            }
        }
        Err(VerifyError::Responder)
    }

    /// Whether the responder's id is of this certificate.
    fn is_responder(&self, certificate: &Certificate<'_>) -> Result<bool, VerifyError> {
        const BY_NAME: Tag = Tag::ContextSpecific {
            constructed: true,
            number: TagNumber(1),
        };
        let responder = self.data.responder;
        if responder.tag() == BY_NAME {
            return Ok(names_match(responder.value(), certificate.subject().0));
        }
        let named = <&OctetStringRef>::from_der(responder.value())?;
        Ok(named.as_bytes() == IdHash::Sha1.digest(&key_bits(certificate)?))
    }
}

/// RFC 6960 4.2.2.2: the issuer itself must have issued the delegate's certificate.
fn check_delegate(delegate: &Certificate<'_>, issuer: &[u8], at: UnixMillis) -> Result<(), VerifyError> {
    let purposes = delegate.extension::<ExtendedKeyUsage>()?;
    let appointed = purposes.is_some_and(|ExtendedKeyUsage(all)| all.contains(&ID_KP_OCSP_SIGNING));
    if !appointed || !time::is_within(delegate.validity(), at) {
        return Err(VerifyError::Responder);
    }
    Ok(verify_issued_by(delegate.der(), issuer)?)
}

fn single(element: Element<'_>) -> Result<ReadSingle, VerifyError> {
    let raw = RawSingle::from_der(element.0)?;
    let list: Vec<Extension> = raw.extensions.map_or(Ok(Vec::new()), AnyRef::decode_as)?;
    if let Some(extension) = list.iter().find(|extension| extension.critical) {
        return Err(RequestError::CriticalExtension(extension.extn_id).into());
    }
    let general = |at| time::from_asn1(Time::GeneralTime(at));
    Ok(ReadSingle {
        id: CertId::parse(raw.id.0)?,
        status: status(raw.status)?,
        updates: (general(raw.this_update), raw.next_update.map(general)),
    })
}

fn status(any: AnyRef<'_>) -> der::Result<Status> {
    match any.tag() {
        Tag::ContextSpecific {
            number: TagNumber(0), ..
        } => Ok(Status::Good),
        Tag::ContextSpecific {
            number: TagNumber(1), ..
        } => {
            let bytes = crate::element::element(crate::element::tag::SEQUENCE, &[any.value()]);
            let info = RevokedInfo::from_der(&bytes)?;
            Ok(Status::Revoked {
                at: time::from_asn1(Time::GeneralTime(info.at)),
                reason: info.reason.map_or(Reason::Unspecified, Reason::of),
            })
        }
        Tag::ContextSpecific {
            number: TagNumber(2), ..
        } => Ok(Status::Unknown),
        other => Err(other.value_error().into()),
    }
}
