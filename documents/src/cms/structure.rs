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
pub(super) struct ContentInfo<'a> {
    pub(super) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) content: SignedData<'a>,
}

/// SignedData (5.1).
#[derive(Sequence)]
pub(super) struct SignedData<'a> {
    pub(super) version: u8,
    pub(super) digest_algorithms: Members<'a>,
    pub(super) content: EncapsulatedContentInfo<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) certificates: Option<Members<'a>>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) crls: Option<Members<'a>>,
    pub(super) signers: Members<'a>,
}

/// EncapsulatedContentInfo (5.2); without content the signature is detached.
#[derive(Sequence)]
pub(super) struct EncapsulatedContentInfo<'a> {
    pub(super) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) content: Option<&'a OctetStringRef>,
}

/// SignerInfo (5.3). The signer is either an IssuerAndSerialNumber or, tagged `[0]`, a key identifier.
#[derive(Sequence)]
pub(super) struct SignerInfo<'a> {
    pub(super) version: u8,
    pub(super) signer: AnyRef<'a>,
    pub(super) digest_algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) signed_attributes: Option<Members<'a>>,
    pub(super) signature_algorithm: AlgorithmIdentifierRef<'a>,
    pub(super) signature: &'a OctetStringRef,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) unsigned_attributes: Option<Members<'a>>,
}

impl<'a> SignedData<'a> {
    /// Reads a detached signature over content of type id-data.
    pub(super) fn detached(cms: &'a [u8]) -> Result<Self, VerifyError> {
        let signed = Self::over(cms, ID_DATA)?;
        if signed.content.content.is_some() {
            return Err(VerifyError::NotDetached);
        }
        Ok(signed)
    }

    /// Reads a signature over content of a type, enclosed or not.
    pub(super) fn over(cms: &'a [u8], kind: ObjectIdentifier) -> Result<Self, VerifyError> {
        let ContentInfo {
            content_type,
            content: signed,
        } = ContentInfo::from_der(cms)?;
        if content_type != ID_SIGNED_DATA || signed.content.content_type != kind {
            return Err(VerifyError::ContentType);
        }
        Ok(signed)
    }

    /// The one signer.
    pub(super) fn signer(&self) -> Result<SignerInfo<'a>, VerifyError> {
        match self.signers.elements(1).as_deref() {
            Ok([signer]) => Ok(SignerInfo::from_der(signer.0)?),
            _ => Err(VerifyError::NotOneSigner),
        }
    }
}
