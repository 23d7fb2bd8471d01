//! Electronic seals and what is signed with them: GB/T 38540-2020 (version 4) and its neighbours GM/T 0031-2014
//! (version 1) and GM/T 0031-2025 (version 5).
//!
//! A seal is a picture, a list of the certificates that may use it and a validity, signed by a seal maker. A seal
//! signature (`SES_Signature`) holds a whole seal, the digest of what is sealed and a time, signed by a holder.
//!
//! - [`SealSpec`] and [`prepare_seal`]: what a maker signs; [`PreparedSeal`] becomes the seal.
//! - [`Seal`] reads any of the three versions, [`verify_seal`] judges it.
//! - [`SignatureRequest`] and [`prepare_signature`]: what a holder signs; [`PreparedSignature`] becomes the
//!   `SES_Signature`.
//! - [`Signature`] reads one, [`verify_signature`] judges it in the order of the standard.
//! - [`Trust`] is who is believed: certificates, revocations and time stamps. [`Anchors`] is the plain one.
//!
//! Seals found in the field are not always DER in every detail, so what was signed is always a slice of what
//! came in. Sizes are in whole millimetres, as the standard has them.

mod asn1;
mod check;
mod make;
mod moment;
mod report;
mod seal;
mod sign;
mod signature;
mod trust;
mod verify;

pub(crate) use check::{Value, verify_value};
pub(crate) use make::check_form;
pub(crate) use report::subject;
pub(crate) use sign::signature_bytes_max;
pub(crate) use signature::{is_seal_signature, signers};
pub(crate) use trust::judge;

pub use asn1::ReadError;
pub use make::{
    Allowed, AssembleError, PictureSpec, PreparedSeal, SealSpec, SealSpecError, SignerError, Sm2Signer,
    prepare_seal,
};
pub use report::{SealReport, SignatureReport, TimeSource};
pub use seal::{Extension, Generation, Holders, Picture, Seal};
pub use sign::{PrepareError, PreparedSignature, SignatureRequest, prepare_signature};
pub use signature::{Signature, TimeInfo};
pub use trust::{Anchors, CertificateFault, Revocation, TimeStampFault, Trust};
pub use verify::{SealFault, SignatureFault, verify_seal, verify_signature};

/// Where the standards leave room, or the field takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether an extension that is critical and not understood makes a seal or signature invalid. Seals in the
    /// field carry such extensions; then they are named in the warnings.
    pub refuse_unknown_critical: bool,
    /// Whether an SM2 signature may be the 64 bytes of r ‖ s instead of DER (GM/T 0009 asks for DER).
    pub accept_raw_pairs: bool,
}

impl Default for Policy {
    /// As the standards have it.
    fn default() -> Self {
        Self {
            refuse_unknown_critical: true,
            accept_raw_pairs: false,
        }
    }
}
