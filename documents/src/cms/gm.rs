//! SignedData with the object identifiers of GB/T 35275, over an SM3 digest: plain signatures (`Type="Sign"`) of OFD, where
//! it is that of Signature.xml, and signatures of some vendors in PDF.
//!
//! Two shapes are met, and both are read: (A) the digest is the content, without signed attributes, and is what is
//! signed; (B) the content is left out and the digest is a signed attribute. We make (B).

use const_oid::db::rfc5911::{ID_CONTENT_TYPE, ID_MESSAGE_DIGEST, ID_SIGNED_DATA, ID_SIGNING_TIME};
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode, Sequence};
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use spki::{AlgorithmIdentifierRef, ObjectIdentifier};
use x509_cert::time::Time;

use crate::element::{Element, Members, in_set_order};
use crate::ses::{
    AssembleError, CertificateFault, Policy, Sm2Signer, Trust, Value, check_form, verify_value,
};
use crate::x509::Certificate;
use crate::{identifier, time};

/// signedData of GB/T 35275.
const GM_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.6.1.4.2.2");
/// data of GB/T 35275.
const GM_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.6.1.4.2.1");
const SM2_WITH_SM3: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.501");

/// Most certificates that are looked at.
const CERTIFICATES_MAX: usize = 10;
/// Most signed attributes that are looked at.
const ATTRIBUTES_MAX: usize = 32;

#[derive(Sequence)]
struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: SignedData<'a>,
}

#[derive(Sequence)]
struct SignedData<'a> {
    version: u8,
    digest_algorithms: Members<'a>,
    content: Content<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    certificates: Option<Members<'a>>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    crls: Option<Members<'a>>,
    signers: Members<'a>,
}

#[derive(Sequence)]
struct Content<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    content: Option<&'a OctetStringRef>,
}

#[derive(Sequence)]
struct SignerInfo<'a> {
    version: u8,
    issuer_and_serial: Element<'a>,
    digest_algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    attributes: Option<Members<'a>>,
    signature_algorithm: AlgorithmIdentifierRef<'a>,
    signature: &'a OctetStringRef,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    unsigned_attributes: Option<Members<'a>>,
}

#[derive(Sequence)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    values: Members<'a>,
}

/// A plain signature that lacks the signature itself.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    signer: Sm2Signer,
    attributes: Vec<u8>,
    message: Vec<u8>,
}

/// Writes the signed attributes.
pub(crate) fn prepare(digest: &[u8; 32], signer: Sm2Signer, at: UnixMillis) -> der::Result<Prepared> {
    let attributes = in_set_order(&mut [
        attribute(ID_CONTENT_TYPE, &GM_DATA)?,
        attribute(ID_MESSAGE_DIGEST, &OctetStringRef::new(digest)?)?,
        attribute(ID_SIGNING_TIME, &time::to_asn1(at)?)?,
    ]);
    let message = Members(&attributes).to_der()?;
    Ok(Prepared {
        signer,
        attributes,
        message,
    })
}

fn attribute(kind: ObjectIdentifier, value: &impl Encode) -> der::Result<Vec<u8>> {
    let value = value.to_der()?;
    Attribute {
        kind,
        values: Members(&value),
    }
    .to_der()
}

impl Prepared {
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    pub(crate) fn e(&self) -> [u8; 32] {
        self.signer.e(&self.message)
    }

    pub(crate) fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        check_form(signature)?;
        let digest_algorithm = identifier::hash_identifier(Hash::Sm3);
        let names = match Certificate::parse(self.signer.certificate()) {
            Ok(certificate) => certificate.issuer_and_serial().to_der()?,
            Err(_) => unreachable!("`Sm2Signer::new` has read this certificate"),
        };
        let signer = SignerInfo {
            version: 1,
            issuer_and_serial: Element(&names),
            digest_algorithm,
            attributes: Some(Members(&self.attributes)),
            signature_algorithm: AlgorithmIdentifierRef {
                oid: SM2_WITH_SM3,
                parameters: None,
            },
            signature: OctetStringRef::new(signature)?,
            unsigned_attributes: None,
        };
        let content = SignedData {
            version: 1,
            digest_algorithms: Members(&digest_algorithm.to_der()?),
            content: Content {
                content_type: GM_DATA,
                content: None,
            },
            certificates: Some(Members(self.signer.certificate())),
            crls: None,
            signers: Members(&signer.to_der()?),
        };
        Ok(ContentInfo {
            content_type: GM_SIGNED_DATA,
            content,
        }
        .to_der()?)
    }
}

/// The signer's certificate, in DER, and then the other ones that are enclosed.
pub(crate) fn signer(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    let signed = ContentInfo::from_der(der).ok()?.content;
    let elements = signed.signers.elements(1).ok()?;
    let [info] = elements.as_slice() else { return None };
    let named = SignerInfo::from_der(info.0).ok()?.issuer_and_serial;
    let certificates = signed.certificates?.elements(CERTIFICATES_MAX).ok()?;
    let mut chain: Vec<Vec<u8>> = certificates.iter().map(|element| element.0.to_vec()).collect();
    let is_named = |der: &Vec<u8>| {
        let names = Certificate::parse(der).ok()?.issuer_and_serial().to_der().ok()?;
        Some(names == named.0)
    };
    let at = chain.iter().position(|der| is_named(der) == Some(true))?;
    chain.swap(0, at);
    Some(chain)
}

/// Why a plain signature is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("not SignedData in DER: {0}")]
    Malformed(#[from] der::Error),
    #[error("not SignedData of GB/T 35275 or RFC 5652")]
    ContentType,
    #[error("a signature with exactly one signer, whose certificate is enclosed, is needed")]
    Signer,
    #[error("the signed attribute {0} must be there, once")]
    Attribute(&'static str),
    #[error("the content is not what was signed")]
    Digest,
    #[error("the signature does not verify")]
    Signature,
    #[error("the signer's certificate: {0}")]
    Certificate(#[from] CertificateFault),
}

/// A plain signature that holds.
pub(crate) struct Verified {
    pub(crate) signer: String,
    pub(crate) at: UnixMillis,
    pub(crate) warnings: Vec<String>,
}

/// Verifies a plain signature over something whose SM3 digest is `digest`. Where it says no time, `now` counts.
pub(crate) fn verify(
    der: &[u8],
    digest: &[u8],
    trust: &dyn Trust,
    policy: Policy,
    now: UnixMillis,
) -> Result<Verified, Fault> {
    let ContentInfo {
        content_type,
        content: signed,
    } = ContentInfo::from_der(der)?;
    if ![GM_SIGNED_DATA, ID_SIGNED_DATA].contains(&content_type) {
        return Err(Fault::ContentType);
    }
    let signer = match signed.signers.elements(1).as_deref() {
        Ok([signer]) => SignerInfo::from_der(signer.0)?,
        _ => return Err(Fault::Signer),
    };
    let certificates = signed
        .certificates
        .unwrap_or(Members(&[]))
        .elements(CERTIFICATES_MAX)?;
    let certificate = certificates
        .iter()
        .filter_map(|element| Certificate::parse(element.0).ok())
        .find(|candidate| {
            candidate
                .issuer_and_serial()
                .to_der()
                .is_ok_and(|names| names == signer.issuer_and_serial.0)
        })
        .ok_or(Fault::Signer)?;
    let (message, claimed) = signed_message(&signed, &signer, digest)?;
    let value = Value {
        algorithm: signer.signature_algorithm.oid,
        bytes: signer.signature.as_bytes(),
    };
    verify_value(&certificate, value, &message, policy).map_err(|_| Fault::Signature)?;
    let at = claimed.unwrap_or(now);
    let mut warnings = vec!["the signing time is what the signer claims; no time stamp proves it".to_owned()];
    crate::ses::judge("the signer's", &certificate, (at, now), trust, &mut warnings)?;
    Ok(Verified {
        signer: crate::ses::subject(&certificate),
        at,
        warnings,
    })
}

/// What the signature is over, after seeing that it says `digest`; and the signing time.
fn signed_message(
    signed: &SignedData<'_>,
    signer: &SignerInfo<'_>,
    digest: &[u8],
) -> Result<(Vec<u8>, Option<UnixMillis>), Fault> {
    let Some(members) = signer.attributes else {
        let content = signed.content.content.ok_or(Fault::Digest)?.as_bytes();
        return if content == digest {
            Ok((content.to_vec(), None))
        } else {
            Err(Fault::Digest)
        };
    };
    let elements = members.elements(ATTRIBUTES_MAX)?;
    let attributes = elements
        .iter()
        .map(|element| Attribute::from_der(element.0))
        .collect::<der::Result<Vec<_>>>()?;
    let one = |kind, name| match attributes
        .iter()
        .filter(|attribute| attribute.kind == kind)
        .collect::<Vec<_>>()[..]
    {
        [attribute] => Ok(attribute.values.0),
        _ => Err(Fault::Attribute(name)),
    };
    one(ID_CONTENT_TYPE, "contentType")?;
    let said = <&OctetStringRef>::from_der(one(ID_MESSAGE_DIGEST, "messageDigest")?)?;
    // Content that is there as well would be read by others as what was signed.
    let content_agrees = signed
        .content
        .content
        .is_none_or(|content| content.as_bytes() == digest);
    if said.as_bytes() != digest || !content_agrees {
        return Err(Fault::Digest);
    }
    let claimed = one(ID_SIGNING_TIME, "signingTime")
        .ok()
        .and_then(|value| Time::from_der(value).ok());
    Ok((members.to_der()?, claimed.map(time::from_asn1)))
}

/// Whether bytes are a bare SM2 signature, which some writers put in place of CMS: nobody's certificate is with it.
pub(crate) fn is_bare_signature(der: &[u8]) -> bool {
    check_form(der).is_ok()
}

/// Whether bytes are ContentInfo whose type is signedData of GB/T 35275.
pub(crate) fn is_gm_signed_data(der: &[u8]) -> bool {
    ContentInfo::from_der(der).is_ok_and(|info| info.content_type == GM_SIGNED_DATA)
}

/// Whether bytes begin like ContentInfo: a SEQUENCE around an OBJECT IDENTIFIER.
pub(crate) fn is_content_info(der: &[u8]) -> bool {
    AnyRef::from_der(der).is_ok_and(|any| any.value().first() == Some(&0x06))
}
