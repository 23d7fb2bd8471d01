//! What somebody asks (RFC 6960 4.1 and A.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use const_oid::db::rfc6960::ID_PKIX_OCSP_NONCE;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Sequence};
use spki::ObjectIdentifier;
use x509_cert::ext::Extension;

use super::CertId;
use crate::element::{Body, Element, element, object_identifier, tag};

/// Longest request, in bytes of DER.
const REQUEST_BYTES_MAX: usize = 8192;
/// Most certificates in one request.
const CERTIFICATES_MAX: usize = 64;
/// Longest nonce (RFC 9654 2.1).
const NONCE_BYTES_MAX: usize = 128;
/// acceptableResponses and prefSigAlgs may be critical and make no difference: we have one kind of response,
/// and sign with the key we have.
const IGNORED: [ObjectIdentifier; 2] = [
    const_oid::db::rfc6960::ID_PKIX_OCSP_RESPONSE,
    const_oid::db::rfc6960::ID_PKIX_OCSP_PREF_SIG_ALGS,
];

/// Why a request is not answered; all of these are [`super::Refusal::MalformedRequest`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than anybody needs.
    #[error("the request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// A path that is not base64.
    #[error("the path is not a request in base64")]
    Path,
    /// Not a request, or not in DER.
    #[error("not an OCSP request in DER: {0}")]
    Malformed(#[from] der::Error),
    /// None, or too many.
    #[error("a request names 1 to {CERTIFICATES_MAX} certificates, not {0}")]
    Count(usize),
    /// A nonce that is empty or too long (RFC 9654 2.1).
    #[error("a nonce has 1 to {NONCE_BYTES_MAX} bytes")]
    Nonce,
    /// A critical extension that is not understood.
    #[error("a critical extension that is not understood: {0}")]
    CriticalExtension(ObjectIdentifier),
}

#[derive(Sequence)]
struct OcspRequest<'a> {
    tbs: TbsRequest<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    signature: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct TbsRequest<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "Default::default")]
    version: u8,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    requestor: Option<AnyRef<'a>>,
    list: Body<'a>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct Single<'a> {
    id: Element<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<AnyRef<'a>>,
}

/// Which certificates somebody asks for. Who asks is not looked at: signatures of requests prove nothing that
/// a responder needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The certificates.
    pub ids: Vec<CertId>,
    /// What the response must repeat, so that it cannot be an older one.
    pub nonce: Option<Vec<u8>>,
}

impl Request {
    /// Reads an OCSPRequest, in DER.
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        let request = OcspRequest::from_der(der)?;
        let count = request.tbs.list.elements(REQUEST_BYTES_MAX)?;
        if count.is_empty() || count.len() > CERTIFICATES_MAX {
            return Err(RequestError::Count(count.len()));
        }
        let ids = count.into_iter().map(single).collect::<Result<_, _>>()?;
        let extensions = read_extensions(request.tbs.extensions)?;
        Ok(Self {
            ids,
            nonce: nonce(&extensions)?,
        })
    }

    /// Reads the last part of a GET path: base64 of the DER, with `%XX` for what paths do not hold. Clients
    /// that forget to escape are understood too.
    pub fn from_path(path: &str) -> Result<Self, RequestError> {
        if path.len() > 3 * REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        let text: Vec<u8> = percent_encoding::percent_decode_str(path.trim_start_matches('/')).collect();
        let der = STANDARD.decode(text).map_err(|_| RequestError::Path)?;
        Self::parse(&der)
    }

    /// OCSPRequest, in DER.
    pub fn to_der(&self) -> der::Result<Vec<u8>> {
        let list: Vec<u8> = self
            .ids
            .iter()
            .flat_map(|id| element(tag::SEQUENCE, &[id.as_der()]))
            .collect();
        let extensions = match &self.nonce {
            None => Vec::new(),
            Some(nonce) => {
                let list = element(tag::SEQUENCE, &[&nonce_extension(nonce)]);
                element(tag::constructed(2), &[&list])
            }
        };
        let tbs = element(tag::SEQUENCE, &[&element(tag::SEQUENCE, &[&list]), &extensions]);
        let request = element(tag::SEQUENCE, &[&tbs]);
        // Whoever makes one that nobody would answer hears of it here.
        OcspRequest::from_der(&request)?;
        Ok(request)
    }
}

fn single(request: Element<'_>) -> Result<CertId, RequestError> {
    let single = Single::from_der(request.0)?;
    read_extensions(single.extensions)?;
    Ok(CertId::parse(single.id.0)?)
}

fn read_extensions(extensions: Option<AnyRef<'_>>) -> Result<Vec<Extension>, RequestError> {
    let list: Vec<Extension> = extensions.map_or(Ok(Vec::new()), AnyRef::decode_as)?;
    let mut critical = list.iter().filter(|extension| extension.critical);
    match critical.find(|e| e.extn_id != ID_PKIX_OCSP_NONCE && !IGNORED.contains(&e.extn_id)) {
        Some(extension) => Err(RequestError::CriticalExtension(extension.extn_id)),
        None => Ok(list),
    }
}

/// RFC 9654 2.1.
pub(super) fn nonce(extensions: &[Extension]) -> Result<Option<Vec<u8>>, RequestError> {
    let mut all = extensions.iter();
    let Some(extension) = all.find(|extension| extension.extn_id == ID_PKIX_OCSP_NONCE) else {
        return Ok(None);
    };
    let nonce = <&OctetStringRef>::from_der(extension.extn_value.as_bytes())?.as_bytes();
    if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX {
        return Err(RequestError::Nonce);
    }
    Ok(Some(nonce.to_vec()))
}

/// The extension of requests and responses, in DER.
pub(super) fn nonce_extension(nonce: &[u8]) -> Vec<u8> {
    let value = element(tag::OCTET_STRING, &[nonce]);
    let value = element(tag::OCTET_STRING, &[&value]);
    let oid = object_identifier(ID_PKIX_OCSP_NONCE);
    element(tag::SEQUENCE, &[&oid, &value])
}
