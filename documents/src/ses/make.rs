//! Making a seal: what is put in it, what its maker signs, and the seal itself.

use der::asn1::{Ia5StringRef, OctetStringRef, PrintableStringRef, Utf8StringRef};
use der::{Encode, Tag};
use protocol::algorithm::{Algorithm, Hash, KeyKind};
use protocol::clock::UnixMillis;
use protocol::verify::{PublicKey, SM2_DEFAULT_USER_ID, der_to_pair};
use spki::ObjectIdentifier;

use super::Generation;
use super::asn1::{bit_string, generalized_time, integer, wrap};
use super::trust::check_key_usage;
use crate::time;
use crate::x509::{Certificate, ReadError};

/// SM2 with SM3 (GB/T 33560).
pub(super) const SM2_WITH_SM3: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.501");
/// How digests in certDigestList are named: SM3.
const SM3_NAME: &str = "1.2.156.10197.1.401";

/// Largest picture of a seal, in bytes: it travels in every signature.
pub(super) const PICTURE_BYTES_MAX: usize = 1024 * 1024;
/// Largest width and height of a seal, in millimetres.
const SIZE_MM_MAX: u32 = 200;

/// Who may use a seal that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// These certificates (DER), written out.
    Certificates(Vec<Vec<u8>>),
    /// These certificates (DER), of which the seal holds the SM3 digests.
    Digests(Vec<Vec<u8>>),
}

/// The picture of a seal that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureSpec {
    /// `PNG`, `JPG`, `SVG` or another that readers know.
    pub kind: String,
    /// The file.
    pub data: Vec<u8>,
    /// Displayed width in millimetres.
    pub width_mm: u32,
    /// Displayed height in millimetres.
    pub height_mm: u32,
}

/// What is put in a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealSpec {
    /// Version 4 or 5.
    pub generation: Generation,
    /// Its unique code.
    pub id: String,
    /// The vendor of the software.
    pub vendor: String,
    /// Of what kind it is.
    pub kind: u32,
    /// Its name.
    pub name: String,
    /// Who may use it.
    pub allowed: Allowed,
    /// When it is made.
    pub created: UnixMillis,
    /// From when it may be used, and until when.
    pub validity: (UnixMillis, UnixMillis),
    /// What it looks like.
    pub picture: PictureSpec,
}

/// Why somebody cannot sign with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Not a certificate.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The key is not an SM2 key.
    #[error("the key in the certificate is not an SM2 key")]
    NotSm2,
    /// The key usage excludes signatures.
    #[error("the certificate is not for signing")]
    KeyUsage,
    /// Outside the certificate's validity.
    #[error("the certificate is not valid at that time")]
    NotValidThen,
}

/// Why a seal cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealSpecError {
    /// Only versions 4 and 5 are made.
    #[error("seals are made after GB/T 38540-2020 and GM/T 0031-2025 only")]
    Generation,
    /// A field with a value that the standard does not allow.
    #[error("{0}")]
    Value(&'static str),
    /// A certificate of a holder that cannot be read.
    #[error("a holder's certificate: {0}")]
    Holder(ReadError),
    /// The maker cannot sign.
    #[error("the seal maker: {0}")]
    Maker(#[from] SignerError),
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// Why a signature does not complete what was prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// Not SM2Signature.
    #[error("not an SM2 signature in DER (GM/T 0009)")]
    Signature,
    /// A time stamp where the version has no place for one.
    #[error("seals of this version have no place for a time stamp")]
    TimeStamp,
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// A certificate with an SM2 key, and what such a key signs: the message, or e of the message.
#[derive(Clone, Debug)]
pub struct Sm2Signer {
    certificate: Vec<u8>,
    spki: Vec<u8>,
}

impl Sm2Signer {
    /// Checks that a certificate (DER) is one that can sign at `at`.
    pub fn new(certificate: &[u8], at: UnixMillis) -> Result<Self, SignerError> {
        let parsed = Certificate::parse(certificate)?;
        let key = PublicKey::from_spki(parsed.public_key()).map_err(|_| SignerError::NotSm2)?;
        if key.kind() != KeyKind::Sm2 {
            return Err(SignerError::NotSm2);
        }
        if !check_key_usage(&parsed)? {
            return Err(SignerError::KeyUsage);
        }
        if !time::is_within(parsed.validity(), at) {
            return Err(SignerError::NotValidThen);
        }
        Ok(Self {
            certificate: certificate.to_vec(),
            spki: parsed.public_key().to_vec(),
        })
    }

    /// The certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// e = SM3(Z ‖ message) with the default user id, what `sm2-sm3-e` signs.
    pub(crate) fn e(&self, message: &[u8]) -> [u8; 32] {
        PublicKey::from_spki(&self.spki)
            .ok()
            .and_then(|key| key.sm2_e(SM2_DEFAULT_USER_ID, message))
            .expect("`new` has seen that this is an SM2 key")
    }
}

/// Whether bytes have the form of an SM2 signature.
pub(crate) fn check_form(signature: &[u8]) -> Result<(), AssembleError> {
    der_to_pair(signature, Algorithm::Sm2Sm3.pair_half_bytes())
        .map(|_| ())
        .ok_or(AssembleError::Signature)
}

/// A seal that lacks its maker's signature.
#[derive(Clone, Debug)]
pub struct PreparedSeal {
    generation: Generation,
    info: Vec<u8>,
    maker: Sm2Signer,
}

/// Writes what `maker` (a certificate in DER) signs to make a seal.
pub fn prepare_seal(spec: &SealSpec, maker: &[u8]) -> Result<PreparedSeal, SealSpecError> {
    check(spec)?;
    let maker = Sm2Signer::new(maker, spec.created)?;
    let info = wrap(&[
        &wrap(&[
            &Ia5StringRef::new("ES")?.to_der()?,
            &integer(spec.generation.number())?,
            &ia5(&spec.vendor, "the vendor must be ASCII")?,
        ])?,
        &ia5(&spec.id, "the seal's code must be ASCII")?,
        &property(spec)?,
        &wrap(&[
            &ia5(&spec.picture.kind, "the picture's type must be ASCII")?,
            &OctetStringRef::new(&spec.picture.data)?.to_der()?,
            &integer(spec.picture.width_mm)?,
            &integer(spec.picture.height_mm)?,
        ])?,
    ])?;
    Ok(PreparedSeal {
        generation: spec.generation,
        info,
        maker,
    })
}

fn check(spec: &SealSpec) -> Result<(), SealSpecError> {
    let (Allowed::Certificates(holders) | Allowed::Digests(holders)) = &spec.allowed;
    let size = 1..=SIZE_MM_MAX;
    let faults = [
        (spec.id.is_empty(), "a seal needs a code"),
        (spec.name.is_empty(), "a seal needs a name"),
        (holders.is_empty(), "a seal needs a certificate that may use it"),
        (
            spec.validity.0 >= spec.validity.1,
            "the validity must end after it begins",
        ),
        (
            spec.created > spec.validity.1,
            "a seal cannot be made after its validity",
        ),
        (spec.picture.data.is_empty(), "a seal needs a picture"),
        (
            spec.picture.data.len() > PICTURE_BYTES_MAX,
            "a seal's picture may have 1 MiB at most",
        ),
        (
            !size.contains(&spec.picture.width_mm),
            "a seal is 1 to 200 mm wide",
        ),
        (
            !size.contains(&spec.picture.height_mm),
            "a seal is 1 to 200 mm high",
        ),
    ];
    if spec.generation == Generation::V1 {
        return Err(SealSpecError::Generation);
    }
    if let Some((_, fault)) = faults.iter().find(|(is_fault, _)| *is_fault) {
        return Err(SealSpecError::Value(fault));
    }
    for holder in holders {
        Certificate::parse(holder).map_err(SealSpecError::Holder)?;
    }
    Ok(())
}

fn ia5(text: &str, fault: &'static str) -> Result<Vec<u8>, SealSpecError> {
    let string = Ia5StringRef::new(text).map_err(|_| SealSpecError::Value(fault))?;
    Ok(string.to_der()?)
}

/// SES_ESPropertyInfo.
fn property(spec: &SealSpec) -> der::Result<Vec<u8>> {
    let (list_kind, list) = match &spec.allowed {
        Allowed::Certificates(holders) => {
            let members = holders.iter().map(|holder| octet_string(holder));
            (1, members.collect::<der::Result<Vec<_>>>()?)
        }
        Allowed::Digests(holders) => {
            let members = holders.iter().map(|holder| digest_object(holder));
            (2, members.collect::<der::Result<Vec<_>>>()?)
        }
    };
    wrap(&[
        &integer(spec.kind)?,
        &Utf8StringRef::new(&spec.name)?.to_der()?,
        &integer(list_kind)?,
        &super::asn1::tagged(Tag::Sequence, &list.concat())?,
        &generalized_time(spec.created)?,
        &generalized_time(spec.validity.0)?,
        &generalized_time(spec.validity.1)?,
    ])
}

pub(super) fn octet_string(bytes: &[u8]) -> der::Result<Vec<u8>> {
    OctetStringRef::new(bytes)?.to_der()
}

fn digest_object(certificate: &[u8]) -> der::Result<Vec<u8>> {
    wrap(&[
        &PrintableStringRef::new(SM3_NAME)?.to_der()?,
        &octet_string(&Hash::Sm3.digest(certificate))?,
    ])
}

impl PreparedSeal {
    /// What to give to a signer of `sm2-sm3`.
    pub fn message(&self) -> &[u8] {
        &self.info
    }

    /// What to give to a signer of `sm2-sm3-e`.
    pub fn e(&self) -> [u8; 32] {
        self.maker.e(&self.info)
    }

    /// The seal, in DER. `time_stamp` is a token (RFC 3161, GB/T 20520) over the signature's bytes; only version
    /// 5 has a place for it.
    pub fn assemble(self, signature: &[u8], time_stamp: Option<&[u8]>) -> Result<Vec<u8>, AssembleError> {
        check_form(signature)?;
        if time_stamp.is_some() && self.generation != Generation::V5 {
            return Err(AssembleError::TimeStamp);
        }
        Ok(wrap(&[
            &self.info,
            &octet_string(&self.maker.certificate)?,
            &SM2_WITH_SM3.to_der()?,
            &bit_string(signature)?,
            &time_stamp.map_or(Ok(Vec::new()), stamp_slot)?,
        ])?)
    }
}

/// `[0] EXPLICIT BIT STRING`, the place of a time stamp.
pub(super) fn stamp_slot(token: &[u8]) -> der::Result<Vec<u8>> {
    const SLOT: Tag = Tag::ContextSpecific {
        constructed: true,
        number: der::TagNumber(0),
    };
    super::asn1::tagged(SLOT, &bit_string(token)?)
}
