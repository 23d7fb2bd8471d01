//! The ASN.1 of RFC 5652, as far as detached signatures by one signer need it, for writing and reading.

use const_oid::db::rfc5911::{ID_DATA, ID_SIGNED_DATA};
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Sequence};
use spki::{AlgorithmIdentifierRef, ObjectIdentifier};

use super::VerifyError;
use crate::element::Members;

/// The version of SignedData and SignerInfo that name the signer by issuer and serial number (5.1, 5.3).
pub(super) const V1: u8 = 1;

/// ContentInfo (3) around SignedData.
#[derive(Sequence)]
pub(crate) struct ContentInfo<'a> {
    pub(crate) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(crate) content: SignedData<'a>,
}

/// SignedData (5.1).
#[derive(Sequence)]
pub(crate) struct SignedData<'a> {
    pub(crate) version: u8,
    pub(crate) digest_algorithms: Members<'a>,
    pub(crate) content: EncapsulatedContentInfo<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(crate) certificates: Option<Members<'a>>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(crate) crls: Option<Members<'a>>,
    pub(crate) signers: Members<'a>,
}

/// EncapsulatedContentInfo (5.2); without content the signature is detached.
#[derive(Sequence)]
pub(crate) struct EncapsulatedContentInfo<'a> {
    pub(crate) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(crate) content: Option<&'a OctetStringRef>,
}

/// SignerInfo (5.3). The signer is either an IssuerAndSerialNumber or, tagged `[0]`, a key identifier.
#[derive(Sequence)]
pub(crate) struct SignerInfo<'a> {
    pub(crate) version: u8,
    pub(crate) signer: AnyRef<'a>,
    pub(crate) digest_algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(crate) signed_attributes: Option<Members<'a>>,
    pub(crate) signature_algorithm: AlgorithmIdentifierRef<'a>,
    pub(crate) signature: &'a OctetStringRef,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(crate) unsigned_attributes: Option<Members<'a>>,
}

impl<'a> SignedData<'a> {
    /// Reads SignedData over any content; `None` if the content is no SignedData.
    pub(crate) fn any(cms: &'a [u8]) -> der::Result<Option<Self>> {
        let info = ContentInfo::from_der(cms)?;
        Ok((info.content_type == ID_SIGNED_DATA).then_some(info.content))
    }

    /// Reads a detached signature over content of type id-data.
    pub(crate) fn detached(cms: &'a [u8]) -> Result<Self, VerifyError> {
        let ContentInfo {
            content_type,
            content: signed,
        } = ContentInfo::from_der(cms)?;
        if content_type != ID_SIGNED_DATA || signed.content.content_type != ID_DATA {
            return Err(VerifyError::ContentType);
        }
        if signed.content.content.is_some() {
            return Err(VerifyError::NotDetached);
        }
        Ok(signed)
    }

    /// The one signer.
    pub(crate) fn signer(&self) -> Result<SignerInfo<'a>, VerifyError> {
        match self.signers.elements(1).as_deref() {
            Ok([signer]) => Ok(SignerInfo::from_der(signer.0)?),
            _ => Err(VerifyError::NotOneSigner),
        }
    }
}
