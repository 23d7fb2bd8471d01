//! Making a seal signature: what its signer signs, and the SES_Signature itself.

use der::Encode;
use der::asn1::Ia5StringRef;
use protocol::clock::UnixMillis;

use super::asn1::{ReadError, bit_string, generalized_time, integer, wrap};
use super::check::{Value, verify_value};
use super::make::{SM2_WITH_SM3, SignerError, Sm2Signer, check_form, octet_string, stamp_slot};
use super::{AssembleError, Generation, Policy, Seal};
use crate::time;
use crate::x509::Certificate;

/// What is to be sealed, with which seal, by whom and when.
#[derive(Clone, Copy, Debug)]
pub struct SignatureRequest<'a> {
    /// The seal, in DER, version 4 or 5. It goes into the signature byte for byte.
    pub seal: &'a [u8],
    /// The signer's certificate, in DER.
    pub certificate: &'a [u8],
    /// SM3 of what is sealed, without Z.
    pub data_hash: [u8; 32],
    /// What is sealed; in OFD the absolute path of `Signature.xml`. ASCII.
    pub property_info: &'a str,
    /// When it is signed.
    pub at: UnixMillis,
}

/// Why a seal signature cannot be prepared, in the order in which the standard checks (GM/T 0031-2014 6.2.2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The signer cannot sign.
    #[error("the signer: {0}")]
    Signer(#[from] SignerError),
    /// Not a seal.
    #[error("the seal: {0}")]
    Seal(#[from] ReadError),
    /// A version that is only read.
    #[error("seals of version 1 are not used any more; have it made anew after GB/T 38540-2020")]
    Generation,
    /// The maker's signature over the seal does not verify.
    #[error("the seal is not what its maker signed")]
    MakerSignature,
    /// Outside the seal's validity.
    #[error("the seal is not valid at the signing time")]
    SealNotValidThen,
    /// The signer's certificate is not in the seal.
    #[error("the seal does not allow this certificate; if it was renewed, have the seal made anew")]
    NotAllowed,
    /// The range that is sealed cannot be named.
    #[error("the name of what is sealed must be ASCII")]
    PropertyInfo,
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// The most bytes that a seal signature will have without a time stamp, for a name of `property_bytes` at most.
pub(crate) const fn signature_bytes_max(seal: &[u8], certificate: &[u8], property_bytes: usize) -> usize {
    /// Version, time, digest, algorithm and signature with their heads and those around everything: less than 200.
    const REST_BYTES_MAX: usize = 256;
    seal.len() + certificate.len() + property_bytes + REST_BYTES_MAX
}

/// A seal signature that lacks the signature itself.
#[derive(Clone, Debug)]
pub struct PreparedSignature {
    to_sign: Vec<u8>,
    signer: Sm2Signer,
}

/// Checks signer and seal and writes TBS_Sign.
pub fn prepare_signature(request: &SignatureRequest<'_>) -> Result<PreparedSignature, PrepareError> {
    let signer = Sm2Signer::new(request.certificate, request.at)?;
    let seal = Seal::read(request.seal)?;
    check_seal(&seal, request)?;
    let property = Ia5StringRef::new(request.property_info)
        .map_err(|_| PrepareError::PropertyInfo)?
        .to_der()?;
    let to_sign = wrap(&[
        &integer(seal.generation.number())?,
        request.seal,
        &generalized_time(request.at)?,
        &bit_string(&request.data_hash)?,
        &property,
    ])?;
    Ok(PreparedSignature { to_sign, signer })
}

fn check_seal(seal: &Seal<'_>, request: &SignatureRequest<'_>) -> Result<(), PrepareError> {
    if seal.generation == Generation::V1 {
        return Err(PrepareError::Generation);
    }
    let maker = Certificate::parse(seal.maker()?).map_err(|_| PrepareError::MakerSignature)?;
    let value = Value {
        algorithm: seal.algorithm()?,
        bytes: seal.value(),
    };
    verify_value(
        &maker,
        value,
        &seal.signed_bytes()?,
        Policy {
            accept_raw_pairs: true,
            ..Policy::default()
        },
    )
    .map_err(|_| PrepareError::MakerSignature)?;
    if !time::is_within(seal.validity, request.at) {
        return Err(PrepareError::SealNotValidThen);
    }
    if seal.holders.contains(request.certificate) {
        Ok(())
    } else {
        Err(PrepareError::NotAllowed)
    }
}

impl PreparedSignature {
    /// What to give to a signer of `sm2-sm3`: TBS_Sign.
    pub fn message(&self) -> &[u8] {
        &self.to_sign
    }

    /// What to give to a signer of `sm2-sm3-e`.
    pub fn e(&self) -> [u8; 32] {
        self.signer.e(&self.to_sign)
    }

    /// The SES_Signature, in DER. `time_stamp` is a token (RFC 3161, GB/T 20520) over the signature's bytes.
    pub fn assemble(self, signature: &[u8], time_stamp: Option<&[u8]>) -> Result<Vec<u8>, AssembleError> {
        check_form(signature)?;
        Ok(wrap(&[
            &self.to_sign,
            &octet_string(self.signer.certificate())?,
            &SM2_WITH_SM3.to_der()?,
            &bit_string(signature)?,
            &time_stamp.map_or(Ok(Vec::new()), stamp_slot)?,
        ])?)
    }
}
