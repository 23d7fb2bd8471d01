//! The signed attributes (RFC 5652 5.3 and 11, RFC 5035).

use const_oid::db::rfc5911::{
    ID_AA_SIGNING_CERTIFICATE, ID_AA_SIGNING_CERTIFICATE_V_2, ID_CONTENT_TYPE, ID_DATA, ID_MESSAGE_DIGEST,
    ID_SIGNING_TIME,
};
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode, Sequence};
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use spki::{AlgorithmIdentifierRef, ObjectIdentifier};
use x509_cert::time::Time;

use super::VerifyError;
use crate::element::{Element, Members, in_set_order};
use crate::x509::{Certificate, IssuerAndSerial};
use crate::{identifier, time};

/// id-aa-timeStampToken (RFC 3161 Appendix A).
const ID_AA_TIME_STAMP_TOKEN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.14");

/// Most signed attributes that are looked at.
const ATTRIBUTES_MAX: usize = 32;

/// Attribute (RFC 5652 5.3).
#[derive(Sequence)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    values: Members<'a>,
}

/// SigningCertificateV2 (RFC 5035 3).
#[derive(Sequence)]
struct SigningCertificateV2<'a> {
    certificates: Vec<CertificateIdV2<'a>>,
    policies: Option<AnyRef<'a>>,
}

/// ESSCertIDv2 (RFC 5035 4); the hash is SHA-256 where none is named. Issuer and serial number are not read:
/// the digest says it all.
#[derive(Sequence)]
struct CertificateIdV2<'a> {
    hash: Option<AlgorithmIdentifierRef<'a>>,
    digest: &'a OctetStringRef,
    issuer_and_serial: Option<AnyRef<'a>>,
}

/// IssuerSerial (RFC 5035 4): IssuerAndSerialNumber, but with a list of general names.
#[derive(Sequence)]
struct IssuerSerial<'a> {
    issuer: GeneralNames<'a>,
    serial: Element<'a>,
}

/// GeneralNames (RFC 5280 4.2.1.6) that hold exactly one directory name.
#[derive(Sequence)]
struct GeneralNames<'a> {
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT")]
    directory: AnyRef<'a>,
}

/// The attribute that names the signer's certificate; it is the same in every signature under that
/// certificate.
pub(super) fn signing_certificate(leaf: &Certificate<'_>) -> der::Result<Vec<u8>> {
    let digest = Hash::Sha256.digest(leaf.der());
    let IssuerAndSerial { issuer, serial } = leaf.issuer_and_serial();
    let issuer = GeneralNames {
        directory: AnyRef::from_der(issuer.0)?,
    };
    let issuer_and_serial = IssuerSerial { issuer, serial }.to_der()?;
    let id = CertificateIdV2 {
        hash: None,
        digest: OctetStringRef::new(&digest)?,
        issuer_and_serial: Some(AnyRef::from_der(&issuer_and_serial)?),
    };
    let value = SigningCertificateV2 {
        certificates: vec![id],
        policies: None,
    };
    attribute(ID_AA_SIGNING_CERTIFICATE_V_2, &value)
}

/// The members of the SET of signed attributes, in DER order. Without a signing time where the document says it.
pub(super) fn write(
    content_digest: &[u8],
    signing_time: Option<UnixMillis>,
    signing_certificate: &[u8],
) -> der::Result<Vec<u8>> {
    let content_type = attribute(ID_CONTENT_TYPE, &ID_DATA)?;
    let digest = attribute(ID_MESSAGE_DIGEST, &OctetStringRef::new(content_digest)?)?;
    let time = signing_time
        .map(|at| attribute(ID_SIGNING_TIME, &time::to_asn1(at)?))
        .transpose()?;
    let mut attributes = vec![&content_type[..], &digest, signing_certificate];
    attributes.extend(time.as_deref());
    Ok(in_set_order(&mut attributes))
}

/// The unsigned attribute that carries a time-stamp token over the signature (RFC 3161 Appendix A).
pub(super) fn time_stamp(token: &[u8]) -> der::Result<Vec<u8>> {
    attribute(ID_AA_TIME_STAMP_TOKEN, &Element(token))
}

/// The time-stamp tokens among unsigned attributes, each a ContentInfo in DER.
pub(super) fn time_stamps<'a>(unsigned: Members<'a>) -> der::Result<Vec<&'a [u8]>> {
    let SignedAttributes(attributes) = SignedAttributes::parse(unsigned)?;
    let mut tokens = Vec::new();
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.kind == ID_AA_TIME_STAMP_TOKEN)
    {
        let values = attribute.values.elements(ATTRIBUTES_MAX)?;
        tokens.extend(values.into_iter().map(|value| value.0));
    }
    Ok(tokens)
}

fn attribute(kind: ObjectIdentifier, value: &impl Encode) -> der::Result<Vec<u8>> {
    let value = value.to_der()?;
    Attribute {
        kind,
        values: Members(&value),
    }
    .to_der()
}

/// The signed attributes of a signature, looked up by kind.
pub(crate) struct SignedAttributes<'a>(Vec<Attribute<'a>>);

impl<'a> SignedAttributes<'a> {
    pub(crate) fn parse(members: Members<'a>) -> der::Result<Self> {
        let elements = members.elements(ATTRIBUTES_MAX)?;
        elements
            .into_iter()
            .map(|element| Attribute::from_der(element.0))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// contentType, which must be there and agree with the content signed (RFC 5652 11.1).
    pub(crate) fn check_content_type_is(&self, expected: ObjectIdentifier) -> Result<(), VerifyError> {
        if self.value::<ObjectIdentifier>(ID_CONTENT_TYPE, "contentType")? == expected {
            return Ok(());
        }
        Err(VerifyError::ContentType)
    }

    /// messageDigest (RFC 5652 11.2).
    pub(crate) fn message_digest(&self) -> Result<&'a [u8], VerifyError> {
        let digest: &OctetStringRef = self.value(ID_MESSAGE_DIGEST, "messageDigest")?;
        Ok(digest.as_bytes())
    }

    /// Whether it says a signing time.
    pub(super) fn has_signing_time(&self) -> bool {
        self.0.iter().any(|attribute| attribute.kind == ID_SIGNING_TIME)
    }

    /// signingTime (RFC 5652 11.3): what the signer says, and nobody else.
    pub(crate) fn signing_time(&self) -> Result<UnixMillis, VerifyError> {
        self.value::<Time>(ID_SIGNING_TIME, "signingTime")
            .map(time::from_asn1)
    }

    /// signingCertificateV2 (RFC 5035 3): the first entry must be the certificate the signature is verified
    /// with.
    pub(crate) fn check_signing_certificate(&self, leaf: &Certificate<'_>) -> Result<(), VerifyError> {
        let value: SigningCertificateV2<'_> =
            self.value(ID_AA_SIGNING_CERTIFICATE_V_2, "signingCertificateV2")?;
        let id = value.certificates.first().ok_or(VerifyError::OtherCertificate)?;
        let hash = match &id.hash {
            None => Hash::Sha256,
            Some(named) => identifier::read_hash(named).ok_or(VerifyError::UnsupportedAlgorithm)?,
        };
        if *hash.digest(leaf.der()) != *id.digest.as_bytes() {
            return Err(VerifyError::OtherCertificate);
        }
        Ok(())
    }

    /// signingCertificateV2, or the older signingCertificate with its SHA-1 (RFC 2634 5.4), which time-stamping
    /// authorities still write (RFC 3161 2.4.2 knows no other): it binds a certificate that has to hold by
    /// itself, and a second one with the same SHA-1 is out of everybody's reach.
    pub(crate) fn check_either_signing_certificate(&self, leaf: &Certificate<'_>) -> Result<(), VerifyError> {
        if self
            .0
            .iter()
            .any(|attribute| attribute.kind == ID_AA_SIGNING_CERTIFICATE_V_2)
        {
            return self.check_signing_certificate(leaf);
        }
        let value: SigningCertificateV2<'_> = self.value(ID_AA_SIGNING_CERTIFICATE, "signingCertificate")?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, leaf.der());
        match value.certificates.first() {
            Some(id) if id.hash.is_none() && id.digest.as_bytes() == digest.as_ref() => Ok(()),
            _ => Err(VerifyError::OtherCertificate),
        }
    }

    /// The one value of the one attribute of this kind.
    fn value<T>(&self, kind: ObjectIdentifier, name: &'static str) -> Result<T, VerifyError>
    where
        T: Decode<'a, Error = der::Error>,
    {
        let mut found = self.0.iter().filter(|attribute| attribute.kind == kind);
        match (found.next(), found.next()) {
            (Some(attribute), None) => Ok(T::from_der(attribute.values.0)?),
            _ => Err(VerifyError::Attribute(name)),
        }
    }
}
