//! Verification in the order of the standard (GM/T 0031-2014 6.1.2 and 6.2.3, with what versions 4 and 5 add).
//! The first step that fails is the verdict; what is odd without being wrong is collected as warnings.

use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;

use super::asn1::ReadError;
use super::check::{Value, is_over_bare_digest, verify_value};
use super::report::{SealReport, SignatureReport, SigningTime, TimeSource, subject};
use super::trust::{CertificateFault, TimeStampFault, Trust, judge};
use super::{Extension, Generation, Policy, Seal, Signature, TimeInfo};
use crate::time;
use crate::x509::Certificate;

/// How far ahead of ours another's clock may be, in milliseconds.
const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;

/// Why a seal is not valid, by the step of GM/T 0031-2014 6.1.2 that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// a) The structure.
    #[error("step a, structure: {0}")]
    Structure(#[from] ReadError),
    /// a) An extension that is critical and not understood.
    #[error("step a, structure: a critical extension that is not understood: {0}")]
    CriticalExtension(ObjectIdentifier),
    /// b) The maker's signature.
    #[error("step b, maker's signature: it does not verify")]
    MakerSignature,
    /// b) Made after its validity.
    #[error("step b, creation: the seal was made after its own validity")]
    Created,
    /// c) The maker's certificate.
    #[error("step c, maker's certificate: {0}")]
    MakerCertificate(#[from] CertificateFault),
    /// d) The validity of the seal.
    #[error("step d, validity: the seal is not valid at that time")]
    NotValidThen,
    /// e) The time stamp (version 5).
    #[error("step e, time stamp: {0}")]
    TimeStamp(#[from] TimeStampFault),
    /// e) Stamped before it was made (version 5).
    #[error("step e, time stamp: earlier than the seal's creation")]
    StampedBefore,
}

/// Why a seal signature is not valid, by the step of GM/T 0031-2014 6.2.3 that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// a) The structure.
    #[error("step a, structure: {0}")]
    Structure(#[from] ReadError),
    /// a) An extension that is critical and not understood.
    #[error("step a, structure: a critical extension that is not understood: {0}")]
    CriticalExtension(ObjectIdentifier),
    /// b) The signer's signature.
    #[error("step b, signer's signature: it does not verify")]
    SignerSignature,
    /// b) A signature over the digest alone, as one vendor makes them: time, seal and certificate are not signed.
    #[error("step b, signer's signature: only the digest is signed; time, seal and certificate are not")]
    DigestOnly,
    /// c), d) The signer's certificate.
    #[error("steps c and d, signer's certificate: {0}")]
    SignerCertificate(CertificateFault),
    /// d) The time stamp from which the signing time comes.
    #[error("step d, time stamp: {0}")]
    TimeStamp(TimeStampFault),
    /// d) No signing time.
    #[error("step d, signing time: it cannot be read")]
    SigningTime,
    /// d) A signing time that has not come yet.
    #[error("step d, signing time: it lies in the future")]
    InFuture,
    /// d) The time stamp is earlier than the time that the signer claims.
    #[error("step d, time stamp: earlier than the time that the signer claims")]
    StampedBefore,
    /// e) The digest of what is sealed.
    #[error("step e, digest: what is sealed has changed")]
    DataHash,
    /// f) The seal.
    #[error("step f, seal: {0}")]
    Seal(SealFault),
    /// g) The signer's certificate is not in the seal (versions 4 and 5 ask for it; so do we for version 1).
    #[error("step g, certificate list: the seal does not allow the signer's certificate")]
    NotAllowed,
}

/// Extensions that are critical are not understood: the standards define none.
fn check_extensions(
    extensions: &[Extension<'_>],
    policy: Policy,
    warnings: &mut Vec<String>,
) -> Result<(), ObjectIdentifier> {
    for extension in extensions.iter().filter(|extension| extension.critical) {
        if policy.refuse_unknown_critical {
            return Err(extension.id);
        }
        warnings.push(format!(
            "a critical extension that is not understood: {}",
            extension.id
        ));
    }
    Ok(())
}

/// Verifies a seal by itself; `now` is when it is to be used.
pub fn verify_seal(
    der: &[u8],
    trust: &dyn Trust,
    policy: Policy,
    now: UnixMillis,
) -> Result<SealReport, SealFault> {
    judge_seal(&Seal::read(der)?, trust, policy, (now, now))
}

/// `at` is when the seal is or was used.
fn judge_seal(
    seal: &Seal<'_>,
    trust: &dyn Trust,
    policy: Policy,
    (at, now): (UnixMillis, UnixMillis),
) -> Result<SealReport, SealFault> {
    let mut warnings = Vec::new();
    check_extensions(&seal.extensions, policy, &mut warnings).map_err(SealFault::CriticalExtension)?;
    let maker = Certificate::parse(seal.maker()?).map_err(CertificateFault::from)?;
    let signed = seal
        .signed_bytes()
        .map_err(|error| ReadError::Malformed("SESeal", error))?;
    let value = Value {
        algorithm: seal.algorithm()?,
        bytes: seal.value(),
    };
    verify_value(&maker, value, &signed, policy).map_err(|_| SealFault::MakerSignature)?;
    if seal.created.seconds() > seal.validity.1.seconds() {
        return Err(SealFault::Created);
    }
    judge(
        "the seal maker's",
        &maker,
        (seal.created, now),
        trust,
        &mut warnings,
    )?;
    if !time::is_within(seal.validity, at) {
        return Err(SealFault::NotValidThen);
    }
    check_seal_stamp(seal, trust, &mut warnings)?;
    Ok(SealReport::new(seal, &maker, warnings))
}

fn check_seal_stamp(seal: &Seal<'_>, trust: &dyn Trust, warnings: &mut Vec<String>) -> Result<(), SealFault> {
    let Some(token) = seal.time_stamp else {
        return Ok(());
    };
    match trust.time_stamp(token, seal.value()) {
        Ok(time) if time.seconds() < seal.created.seconds() => Err(SealFault::StampedBefore),
        Ok(_) => Ok(()),
        Err(TimeStampFault::NoJudge) => {
            warnings.push("the time stamp of the seal was not looked at".into());
            Ok(())
        }
        Err(fault) => Err(fault.into()),
    }
}

/// Verifies a seal signature over something whose SM3 digest is `data_hash`.
pub fn verify_signature(
    der: &[u8],
    data_hash: &[u8],
    trust: &dyn Trust,
    policy: Policy,
    now: UnixMillis,
) -> Result<SignatureReport, SignatureFault> {
    let signature = Signature::read(der)?;
    let mut warnings = Vec::new();
    check_extensions(&signature.extensions, policy, &mut warnings)
        .map_err(SignatureFault::CriticalExtension)?;
    let signer = Certificate::parse(signature.certificate)
        .map_err(|error| SignatureFault::SignerCertificate(error.into()))?;
    check_value(&signature, &signer, policy)?;
    let time = signing_time(&signature, trust, now, &mut warnings)?;
    judge("the signer's", &signer, (time.at, now), trust, &mut warnings)
        .map_err(SignatureFault::SignerCertificate)?;
    if signature.data_hash != data_hash {
        return Err(SignatureFault::DataHash);
    }
    let seal = judge_seal(&signature.seal, trust, policy, (time.at, now)).map_err(SignatureFault::Seal)?;
    if !signature.seal.holders.contains(signer.der()) {
        return Err(SignatureFault::NotAllowed);
    }
    Ok(SignatureReport {
        signer: subject(&signer),
        signed_ms: time.at.0,
        time_source: time.source,
        property_info: signature.property_info,
        seal,
        warnings,
    })
}

fn check_value(
    signature: &Signature<'_>,
    signer: &Certificate<'_>,
    policy: Policy,
) -> Result<(), SignatureFault> {
    let value = Value {
        algorithm: signature.algorithm()?,
        bytes: signature.value,
    };
    match verify_value(signer, value, signature.signed_bytes(), policy) {
        Ok(()) => Ok(()),
        Err(_) if is_over_bare_digest(signer, signature.value, signature.data_hash) => {
            Err(SignatureFault::DigestOnly)
        }
        Err(_) => Err(SignatureFault::SignerSignature),
    }
}

/// The time of the token where there is one that can be judged; else what the signer claims.
fn signing_time(
    signature: &Signature<'_>,
    trust: &dyn Trust,
    now: UnixMillis,
    warnings: &mut Vec<String>,
) -> Result<SigningTime, SignatureFault> {
    let (claimed, token, stamped) = match (&signature.time, signature.time_stamp) {
        (TimeInfo::Claimed(at), token) => (Some(*at), token, signature.value),
        // Version 1 puts the token inside what is signed, so it can only be over the digest.
        (TimeInfo::Token(token), _) => (None, Some(*token), signature.data_hash),
        (TimeInfo::Unreadable, token) => (None, token, signature.value),
    };
    let proved = token.map(|token| trust.time_stamp(token, stamped));
    let time = match (proved, claimed) {
        (Some(Ok(at)), Some(claimed)) if at.0 + CLOCK_SKEW_MS < claimed.0 => {
            return Err(SignatureFault::StampedBefore);
        }
        (Some(Ok(at)), _) => SigningTime {
            at,
            source: TimeSource::TimeStamp,
        },
        (Some(Err(TimeStampFault::NoJudge)) | None, Some(at)) => {
            warnings.push("the signing time is what the signer claims; no time stamp proves it".into());
            SigningTime {
                at,
                source: TimeSource::Claimed,
            }
        }
        (Some(Err(fault)), _) => return Err(SignatureFault::TimeStamp(fault)),
        (None, None) => return Err(SignatureFault::SigningTime),
    };
    if time.at.0 > now.0.saturating_add(CLOCK_SKEW_MS) {
        return Err(SignatureFault::InFuture);
    }
    if signature.seal.generation == Generation::V1 {
        warnings.push("a seal after GM/T 0031-2014, which has been replaced".into());
    }
    Ok(time)
}
