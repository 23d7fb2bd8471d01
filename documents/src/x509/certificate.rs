//! A certificate as it lies in its bytes.

use const_oid::AssociatedOid;
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Sequence};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;
use spki::AlgorithmIdentifierRef;
use x509_cert::ext::Extension;
use x509_cert::time::Validity;

use super::ReadError;
use super::name::names_match;
use crate::element::Element;
use crate::{identifier, time};

/// v3, the only version that has extensions (RFC 5280 4.1.2.1).
pub(crate) const V3: u8 = 2;

/// Certificate (RFC 5280 4.1), for writing and reading.
#[derive(Sequence)]
pub(crate) struct Envelope<'a> {
    pub(crate) tbs: Element<'a>,
    pub(crate) algorithm: Element<'a>,
    pub(crate) signature: BitStringRef<'a>,
}

/// TBSCertificate (RFC 5280 4.1), for writing and reading.
#[derive(Sequence)]
pub(crate) struct Tbs<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "Default::default")]
    pub(crate) version: u8,
    pub(crate) serial: Element<'a>,
    pub(crate) algorithm: Element<'a>,
    pub(crate) issuer: Element<'a>,
    pub(crate) validity: Validity,
    pub(crate) subject: Element<'a>,
    pub(crate) public_key: Element<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(crate) issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    pub(crate) subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(crate) extensions: Option<AnyRef<'a>>,
}

/// IssuerAndSerialNumber (RFC 5652 10.2.4): what a signature names a certificate by.
#[derive(Clone, Copy, PartialEq, Eq, Sequence)]
pub(crate) struct IssuerAndSerial<'a> {
    pub(crate) issuer: Element<'a>,
    pub(crate) serial: Element<'a>,
}

/// A certificate that has been read; its parts are slices of the bytes that came in.
pub(crate) struct Certificate<'a> {
    der: &'a [u8],
    envelope: Envelope<'a>,
    tbs: Tbs<'a>,
    extensions: Vec<Extension>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, ReadError> {
        let envelope = Envelope::from_der(der)?;
        let tbs = Tbs::from_der(envelope.tbs.0)?;
        let extensions = tbs.extensions.map_or(Ok(Vec::new()), AnyRef::decode_as)?;
        Ok(Self {
            der,
            envelope,
            tbs,
            extensions,
        })
    }

    /// The whole certificate.
    pub(crate) const fn der(&self) -> &'a [u8] {
        self.der
    }

    /// What its issuer signed.
    pub(crate) const fn signed_bytes(&self) -> &'a [u8] {
        self.envelope.tbs.0
    }

    pub(crate) fn signature(&self) -> Option<&'a [u8]> {
        self.envelope.signature.as_bytes()
    }

    /// `None` if it is none of ours, or if the signed part names another than the unsigned part (RFC 5280
    /// 4.1.1.2).
    pub(crate) fn signature_algorithm(&self) -> Option<Algorithm> {
        if self.envelope.algorithm != self.tbs.algorithm {
            return None;
        }
        let identifier = AlgorithmIdentifierRef::from_der(self.tbs.algorithm.0).ok()?;
        identifier::read_signature(&identifier, None)
    }

    pub(crate) const fn subject(&self) -> Element<'a> {
        self.tbs.subject
    }

    pub(crate) const fn issuer(&self) -> Element<'a> {
        self.tbs.issuer
    }

    pub(crate) const fn issuer_and_serial(&self) -> IssuerAndSerial<'a> {
        IssuerAndSerial {
            issuer: self.tbs.issuer,
            serial: self.tbs.serial,
        }
    }

    /// SubjectPublicKeyInfo.
    pub(crate) const fn public_key(&self) -> &'a [u8] {
        self.tbs.public_key.0
    }

    pub(crate) fn validity(&self) -> (UnixMillis, UnixMillis) {
        let Validity {
            not_before,
            not_after,
            ..
        } = self.tbs.validity;
        (time::from_asn1(not_before), time::from_asn1(not_after))
    }

    pub(crate) fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// Whether subject and issuer are one (RFC 5280 6.1).
    pub(crate) fn is_self_issued(&self) -> bool {
        names_match(self.tbs.subject.0, self.tbs.issuer.0)
    }

    /// Whether there is a critical extension of type `T`.
    pub(crate) fn is_critical<T: AssociatedOid>(&self) -> bool {
        self.extensions
            .iter()
            .any(|extension| extension.extn_id == T::OID && extension.critical)
    }

    /// The serial number as the INTEGER has it.
    pub(crate) fn serial(&self) -> &'a [u8] {
        // Longer serial numbers than 127 bytes are nobody's.
        self.tbs.serial.0.get(2..).unwrap_or_default()
    }

    /// The extension of type `T`, if there is one. Two of a kind are an error (RFC 5280 4.2).
    pub(crate) fn extension<T>(&self) -> Result<Option<T>, ReadError>
    where
        T: AssociatedOid + for<'b> Decode<'b, Error = der::Error>,
    {
        let mut found = self
            .extensions
            .iter()
            .filter(|extension| extension.extn_id == T::OID);
        let Some(extension) = found.next() else {
            return Ok(None);
        };
        if found.next().is_some() {
            return Err(ReadError::RepeatedExtension(T::OID));
        }
        Ok(Some(T::from_der(extension.extn_value.as_bytes())?))
    }
}
