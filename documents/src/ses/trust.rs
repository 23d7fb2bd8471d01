//! Who is believed: the questions that verification asks about certificates and time stamps.
//!
//! Revocation lists, responses and time stamp authorities come from outside and change. So verification is
//! given somebody to ask, and keeps the rules of the standard to itself.

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_EMAIL_PROTECTION};
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsage;

use crate::x509::{Certificate, PathError, ReadError, verify_path};
use crate::{time, tsp};

/// What is known of a certificate's revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Nobody says.
    Unknown,
    /// Not revoked.
    Good,
    /// Revoked at that time.
    Since(UnixMillis),
}

/// Why a time stamp is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeStampFault {
    /// Nobody was given who could judge it.
    #[error("there is nobody to judge it")]
    NoJudge,
    /// It does not hold.
    #[error("{0}")]
    Refused(String),
}

/// Who is believed.
pub trait Trust {
    /// Whether the path from `certificate` (DER) to an anchor holds at `at`.
    fn path(&self, certificate: &[u8], at: UnixMillis) -> Result<(), PathError>;

    /// How it stands with a certificate (DER), as far as is known now; `at` is the time that counts.
    fn revocation(&self, certificate: &[u8], at: UnixMillis) -> Revocation;

    /// Whether a certificate of which nobody says how it stands is not believed.
    fn must_be_known(&self) -> bool {
        false
    }

    /// The time in a token over `stamped`: its imprint, its signature and its authority's path hold.
    fn time_stamp(&self, token: &[u8], stamped: &[u8]) -> Result<UnixMillis, TimeStampFault>;
}

/// The plain [`Trust`]: anchors, also for time stamp authorities, and nothing else. Revocation stays unknown.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    /// Certificates (DER) that are believed as they are.
    pub anchors: Vec<Vec<u8>>,
    /// Certificates (DER) between them and signers.
    pub intermediates: Vec<Vec<u8>>,
}

/// Extended key usages that may stand in certificates of sealers: mail, clients, documents (RFC 9336). They are
/// what the field has; the standards name none.
const PURPOSES: [ObjectIdentifier; 3] = [
    ID_KP_EMAIL_PROTECTION,
    ID_KP_CLIENT_AUTH,
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.36"),
];

impl Trust for Anchors {
    fn path(&self, certificate: &[u8], at: UnixMillis) -> Result<(), PathError> {
        let leaf = Certificate::parse(certificate)?;
        let parse = |list: &'_ [Vec<u8>]| -> Result<Vec<_>, ReadError> {
            list.iter()
                .map(|der| Certificate::parse(der).map(|_| der.clone()))
                .collect()
        };
        let (anchors, others) = (parse(&self.anchors)?, parse(&self.intermediates)?);
        let anchors = anchors
            .iter()
            .map(|der| Certificate::parse(der))
            .collect::<Result<Vec<_>, _>>()?;
        let others = others
            .iter()
            .map(|der| Certificate::parse(der))
            .collect::<Result<Vec<_>, _>>()?;
        let others = others.iter().filter(|other| other.der() != leaf.der()).collect();
        verify_path(&leaf, others, &anchors, at, &PURPOSES)
    }

    fn revocation(&self, _certificate: &[u8], _at: UnixMillis) -> Revocation {
        Revocation::Unknown
    }

    fn time_stamp(&self, token: &[u8], stamped: &[u8]) -> Result<UnixMillis, TimeStampFault> {
        match tsp::verify_token(token, &|hash| hash.digest(stamped), None, &self.anchors) {
            Ok(stamp) => Ok(stamp.time),
            Err(error) => Err(TimeStampFault::Refused(error.to_string())),
        }
    }
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Not a certificate.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The key usage excludes signatures (RFC 5280 4.2.1.3).
    #[error("not for signing")]
    KeyUsage,
    /// Outside its validity at the time that counts.
    #[error("not valid at the time that counts")]
    NotValidThen,
    /// It does not lead to a trust anchor.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Revoked before the time that counts.
    #[error("revoked before the time that counts")]
    RevokedBefore,
    /// Nobody says whether it is revoked, and it has to be known.
    #[error("nobody says whether it is revoked")]
    RevocationUnknown,
}

/// Whether the certificate may make signatures: digitalSignature or nonRepudiation, where a usage is named.
pub(crate) fn check_key_usage(certificate: &Certificate<'_>) -> Result<bool, ReadError> {
    let usage = certificate.extension::<KeyUsage>()?;
    Ok(usage.is_none_or(|usage| usage.digital_signature() || usage.non_repudiation()))
}

/// Judges a certificate at the time that counts; what happened to it later goes into `warnings`.
pub(crate) fn judge(
    whose: &str,
    certificate: &Certificate<'_>,
    (at, now): (UnixMillis, UnixMillis),
    trust: &dyn Trust,
    warnings: &mut Vec<String>,
) -> Result<(), CertificateFault> {
    if !check_key_usage(certificate)? {
        return Err(CertificateFault::KeyUsage);
    }
    if !time::is_within(certificate.validity(), at) {
        return Err(CertificateFault::NotValidThen);
    }
    trust.path(certificate.der(), at)?;
    match trust.revocation(certificate.der(), at) {
        Revocation::Since(since) if since <= at => return Err(CertificateFault::RevokedBefore),
        Revocation::Since(_) => warnings.push(format!("{whose} certificate was revoked later")),
        Revocation::Unknown if trust.must_be_known() => return Err(CertificateFault::RevocationUnknown),
        Revocation::Unknown => warnings.push(format!("nobody says whether {whose} certificate is revoked")),
        Revocation::Good => {}
    }
    if !time::is_within(certificate.validity(), now) {
        warnings.push(format!("{whose} certificate has expired since"));
    }
    Ok(())
}
