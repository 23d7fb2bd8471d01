//! Somebody's time stamp: does it hold, and what does it say?

use const_oid::db::rfc5280::ID_KP_TIME_STAMPING;
use der::asn1::{BitStringRef, GeneralizedTime, IntRef};
use der::{Decode, Encode, Reader, Sequence, SliceReader, Tag};
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::request::MessageImprint;
use super::{Failure, Request, TST_INFO};
use crate::cms::{self, DigestBytes, SignedAttributes, SignedData, SignerInfo};
use crate::element::{Element, Members};
use crate::identifier;
use crate::signed::{self, SignatureError};
use crate::x509::{Certificate, Name, PathError, ReadError, verify_path};

/// Why a response holds no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Not a TimeStampResp.
    #[error("not a time-stamp response in DER")]
    Malformed,
    /// The authority says no.
    #[error("the authority rejected the request{}", .0.map_or(String::new(), |failure| format!(": {failure}")))]
    Rejected(Option<Failure>),
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a token, or not in DER.
    #[error("not a time-stamp token in DER: {0}")]
    Malformed(#[from] der::Error),
    /// Not SignedData over TSTInfo.
    #[error("not a signature over a time stamp")]
    ContentType,
    /// What is wrong with the signature around it.
    #[error(transparent)]
    Cms(#[from] cms::VerifyError),
    /// A digest that is not the stamped data's.
    #[error("the stamp is over something else")]
    Imprint,
    /// A hash that is none of ours.
    #[error("stamped with a hash that is not supported")]
    Hash,
    /// Not the nonce of the request: an older response that was played back.
    #[error("the stamp answers another request")]
    Nonce,
    /// Not what the authority signed.
    #[error("the content is not what was signed")]
    ContentDigest,
    /// The certificate's purpose is another (RFC 3161 2.3).
    #[error("the signer's certificate is not for time stamping")]
    Purpose,
    /// The signature is not the authority's over these attributes.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// The certificate does not lead to a trust anchor.
    #[error("the authority's certificate: {0}")]
    Path(#[from] PathError),
}

impl From<ReadError> for VerifyError {
    fn from(error: ReadError) -> Self {
        Self::Path(error.into())
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the data existed; tokens may state it to the millisecond and finer, which is cut off.
    pub time: UnixMillis,
    /// The serial number as the INTEGER has it.
    pub serial: Vec<u8>,
    /// Under which policy.
    pub policy: ObjectIdentifier,
    /// The hash of the stamped data.
    pub hash: Hash,
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// The authority, as RFC 4514 writes names.
    pub authority: String,
    /// The authority's certificate, in DER.
    pub certificate: Vec<u8>,
}

/// PKIStatusInfo.
#[derive(Sequence)]
struct Status<'a> {
    status: u8,
    text: Option<StatusText<'a>>,
    failure: Option<BitStringRef<'a>>,
}

type StatusText<'a> = crate::element::Body<'a>;

/// The TimeStampToken in a TimeStampResp, both in DER.
pub fn token_of(response: &[u8]) -> Result<&[u8], ResponseError> {
    let body = crate::element::Body::from_der(response).map_err(|_| ResponseError::Malformed)?;
    let elements = body.elements(2).map_err(|_| ResponseError::Malformed)?;
    let (status, token) = match &elements[..] {
        [status] => (status, None),
        [status, token] => (status, Some(token.0)),
        _ => return Err(ResponseError::Malformed),
    };
    let status = Status::from_der(status.0).map_err(|_| ResponseError::Malformed)?;
    // granted and grantedWithMods.
    match (status.status, token) {
        (0 | 1, Some(token)) => Ok(token),
        (0 | 1, None) => Err(ResponseError::Malformed),
        _ => Err(ResponseError::Rejected(status.failure.and_then(failure_of))),
    }
}

fn failure_of(bits: BitStringRef<'_>) -> Option<Failure> {
    let set = |failure: &Failure| {
        let bit = *failure as u8;
        let byte = bits.raw_bytes().get(usize::from(bit / 8));
        byte.is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0)
    };
    Failure::ALL.into_iter().find(set)
}

/// TSTInfo, as far as it is looked at: what follows the time is optional and comes in any combination.
struct Info<'a> {
    policy: ObjectIdentifier,
    imprint: Element<'a>,
    serial: Element<'a>,
    time: UnixMillis,
    nonce: Option<Element<'a>>,
}

impl<'a> Info<'a> {
    fn parse(der: &'a [u8]) -> der::Result<Self> {
        let body = crate::element::Body::from_der(der)?;
        let mut reader = SliceReader::new(body.0)?;
        let version = u8::decode(&mut reader)?;
        if version != 1 {
            return Err(reader.error(der::ErrorKind::Value { tag: Tag::Integer }));
        }
        let policy = ObjectIdentifier::decode(&mut reader)?;
        let imprint = Element::decode(&mut reader)?;
        let serial = Element::decode(&mut reader)?;
        IntRef::from_der(serial.0)?;
        let time = generalized_time(Element::decode(&mut reader)?)?;
        let mut nonce = None;
        while !reader.is_finished() {
            let field = Element::decode(&mut reader)?;
            if field.0.first() == Some(&crate::element::tag::INTEGER) {
                nonce = Some(field);
            }
        }
        Ok(Self {
            policy,
            imprint,
            serial,
            time,
            nonce,
        })
    }
}

/// GeneralizedTime with or without a fraction (RFC 3161 2.4.2), which `der` does not read.
fn generalized_time(element: Element<'_>) -> der::Result<UnixMillis> {
    const DIGITS: usize = 14;
    let wrong = || der::Error::from(Tag::GeneralizedTime.value_error());
    let [0x18, _, text @ .., b'Z'] = element.0 else {
        return Err(wrong());
    };
    let (whole, fraction) = text.split_at_checked(DIGITS).ok_or_else(wrong)?;
    let whole = element_of(whole);
    let seconds = GeneralizedTime::from_der(&whole)?.to_unix_duration().as_secs();
    let millis = match fraction {
        [] => 0,
        [b'.', digits @ .., b'1'..=b'9'] if digits.iter().all(u8::is_ascii_digit) => {
            let three = fraction[1..].iter().chain(b"000").take(3);
            three.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
        }
        _ => return Err(wrong()),
    };
    Ok(UnixMillis(seconds * 1000 + millis))
}

fn element_of(digits: &[u8]) -> Vec<u8> {
    use crate::element::{element, tag};
    element(tag::GENERALIZED_TIME, &[digits, b"Z"])
}

/// Verifies a TimeStampToken, in DER, against what was stamped: the digest for the hash the authority chose
/// (`digest`), the request it answers, if it is at hand, and `trust_anchors` (certificates, in DER), under
/// which the authority's certificate must have been valid at the stated time. Revocation is not looked at.
pub fn verify_token(
    token: &[u8],
    digest: &dyn Fn(Hash) -> DigestBytes,
    request: Option<&Request>,
    trust_anchors: &[impl AsRef<[u8]>],
) -> Result<Stamp, VerifyError> {
    let signed = SignedData::any(token)?.ok_or(VerifyError::ContentType)?;
    if signed.content.content_type != TST_INFO {
        return Err(VerifyError::ContentType);
    }
    let content = signed.content.content.ok_or(VerifyError::ContentType)?.as_bytes();
    let info = Info::parse(content)?;
    let imprint = MessageImprint::from_der(info.imprint.0)?;
    let hash = imprint.hash().map_err(|_| VerifyError::Hash)?;
    if *imprint.digest.as_bytes() != *digest(hash) {
        return Err(VerifyError::Imprint);
    }
    if let Some(request) = request {
        check_answers(request, &info)?;
    }
    let signer = signed.signer()?;
    let certificates = cms::enclosed_certificates(&signed)?;
    let leaf = cms::find_signer(&certificates, signer.signer)?;
    let algorithm = check_signature(&signer, content, leaf)?;
    check_purpose(leaf)?;
    let anchors: Vec<_> = trust_anchors
        .iter()
        .map(|anchor| Certificate::parse(anchor.as_ref()))
        .collect::<Result<_, _>>()?;
    let others = certificates
        .iter()
        .filter(|other| other.der() != leaf.der())
        .collect();
    verify_path(leaf, others, &anchors, info.time, &[ID_KP_TIME_STAMPING])?;
    Ok(Stamp {
        time: info.time,
        serial: info.serial.0[2..].to_vec(),
        policy: info.policy,
        hash,
        algorithm,
        authority: Name::from_der(leaf.subject().0)?.to_string(),
        certificate: leaf.der().to_vec(),
    })
}

/// The certificates in a TimeStampToken, in DER, its authority's first.
pub fn certificates_of(token: &[u8]) -> Result<Vec<Vec<u8>>, VerifyError> {
    let signed = SignedData::any(token)?.ok_or(VerifyError::ContentType)?;
    let certificates = cms::enclosed_certificates(&signed)?;
    let leaf = cms::find_signer(&certificates, signed.signer()?.signer)?.der();
    let others = certificates
        .iter()
        .map(Certificate::der)
        .filter(|other| *other != leaf);
    Ok([leaf].into_iter().chain(others).map(<[u8]>::to_vec).collect())
}

fn check_answers(request: &Request, info: &Info<'_>) -> Result<(), VerifyError> {
    let nonce = info.nonce.map(|nonce| nonce.0).unwrap_or_default();
    if nonce != request.nonce || request.policy.is_some_and(|policy| policy != info.policy) {
        return Err(VerifyError::Nonce);
    }
    Ok(())
}

/// The signed attributes cover the content and name the certificate, and the signature covers them.
fn check_signature(
    signer: &SignerInfo<'_>,
    content: &[u8],
    leaf: &Certificate<'_>,
) -> Result<Algorithm, VerifyError> {
    let members = signer
        .signed_attributes
        .ok_or(cms::VerifyError::Attribute("signedAttrs"))?;
    let attributes = SignedAttributes::parse(members)?;
    attributes.check_content_type_is(TST_INFO)?;
    let hash = identifier::read_hash(&signer.digest_algorithm).ok_or(VerifyError::Hash)?;
    if *attributes.message_digest()? != *hash.digest(content) {
        return Err(VerifyError::ContentDigest);
    }
    attributes.check_either_signing_certificate(leaf)?;
    let algorithm = identifier::read_signature(&signer.signature_algorithm, Some(hash))
        .filter(|algorithm| hash_of(*algorithm).is_none_or(|signed| signed == hash));
    let set: Vec<u8> = Members(members.0).to_der()?;
    let signature = Some(signer.signature.as_bytes());
    Ok(signed::verify(algorithm, leaf.public_key(), &set, signature)?)
}

const fn hash_of(algorithm: Algorithm) -> Option<Hash> {
    match algorithm.input() {
        InputKind::Digest(hash) => Some(hash),
        InputKind::Message(_) => None,
    }
}

/// RFC 3161 2.3.
fn check_purpose(leaf: &Certificate<'_>) -> Result<(), VerifyError> {
    let purposes = leaf.extension::<ExtendedKeyUsage>()?;
    let alone = purposes.is_some_and(|ExtendedKeyUsage(all)| all == [ID_KP_TIME_STAMPING]);
    if alone && leaf.is_critical::<ExtendedKeyUsage>() {
        return Ok(());
    }
    Err(VerifyError::Purpose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_fractions() {
        let time = |text: &[u8]| {
            let bytes = crate::element::element(0x18, &[text]);
            generalized_time(Element(&bytes)).ok().map(|time| time.0)
        };
        assert_eq!(time(b"20270115080000Z"), Some(1_800_000_000_000));
        assert_eq!(time(b"20270115080000.1Z"), Some(1_800_000_000_100));
        assert_eq!(time(b"20270115080000.0079Z"), Some(1_800_000_000_007));
        for wrong in [
            &b"20270115080000"[..],
            b"20270115080000.Z",
            b"20270115080000.10Z",
            b"2027Z",
            b"20270115080000.+1Z",
        ] {
            assert_eq!(time(wrong), None, "{wrong:?}");
        }
    }
}
