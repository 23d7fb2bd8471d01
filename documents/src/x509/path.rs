//! From a certificate to whoever answers for it (RFC 5280 6).
//!
//! What is checked: signatures over the bytes received, names, basic constraints with path lengths, key
//! usage, extended key usage, validity, and that no critical extension goes unheeded. What is not:
//! revocation, which needs lists from outside, and name constraints and policy constraints; where those are
//! critical the path is refused.

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_CE_CERTIFICATE_POLICIES};
use protocol::algorithm::{Algorithm, InputKind};
use protocol::clock::UnixMillis;
use protocol::verify::PublicKey;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use super::{Certificate, Name, ReadError};
use crate::time;

/// Critical extensions that are understood. Certificate policies are among them because no policy is
/// demanded, and then every policy is accepted (RFC 5280 6.1.1 (c), any-policy).
const UNDERSTOOD: [ObjectIdentifier; 5] = [
    BasicConstraints::OID,
    KeyUsage::OID,
    ExtendedKeyUsage::OID,
    SubjectAltName::OID,
    ID_CE_CERTIFICATE_POLICIES,
];

/// Why a certificate is not accepted under another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A certificate that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The issuer's name in the certificate is not the subject of the other.
    #[error("issued under another name than the issuer's")]
    IssuerName,
    /// The issuer is not an authority, or may not have so many below it (RFC 5280 4.2.1.9, 4.2.1.3).
    #[error("issued by a certificate that may not issue it")]
    NotAnAuthority,
    /// A signature algorithm that is none of ours, or that the issuer's key cannot do.
    #[error("signed with an algorithm or key that is not supported")]
    UnsupportedAlgorithm,
    /// The signature is not the issuer's over this certificate.
    #[error("the issuer's signature does not verify")]
    BadSignature,
    /// A critical extension that is not understood (RFC 5280 4.2).
    #[error("a critical extension that is not understood: {0}")]
    CriticalExtension(ObjectIdentifier),
    /// Outside its validity at the time that counts.
    #[error("the certificate of '{subject}' was not valid at that time")]
    NotValidThen {
        /// Whose certificate.
        subject: String,
    },
    /// Extended key usages that exclude this use (RFC 5280 4.2.1.12).
    #[error("a certificate whose extended key usage is another")]
    Purpose,
    /// The path ends before it reaches a trust anchor.
    #[error("no path to a trust anchor")]
    NoTrustAnchor,
}

/// Checks that `certificate` was issued by the holder of `issuer`: its signature over the bytes received, the
/// names byte for byte (stricter than RFC 5280 7.1 has to be), and that `issuer` may issue certificates.
/// Validity is a matter of time and not checked here.
pub fn verify_issued_by(certificate: &[u8], issuer: &[u8]) -> Result<(), PathError> {
    let certificate = Certificate::parse(certificate)?;
    let issuer = Certificate::parse(issuer)?;
    check_critical_extensions(&certificate)?;
    check_critical_extensions(&issuer)?;
    check_issuer(&certificate, &issuer, 0)
}

/// Follows `leaf` through `others` to one of `anchors`, every certificate valid at `at` and, below the
/// anchor, free to be used for one of `purposes`.
///
/// At each step the first issuer that fits is taken and never reconsidered: real hierarchies are trees, and
/// an attacker's mesh of certificates cannot ask for more than one look at each pair.
pub(crate) fn verify_path<'p, 'a>(
    leaf: &'p Certificate<'a>,
    mut others: Vec<&'p Certificate<'a>>,
    anchors: &'p [Certificate<'a>],
    at: UnixMillis,
    purposes: &[ObjectIdentifier],
) -> Result<(), PathError> {
    let anchors: Vec<_> = anchors.iter().collect();
    let mut current = leaf;
    let mut authorities_below = 0;
    loop {
        check_alone(current, at)?;
        check_purpose(current, purposes)?;
        if anchors.iter().any(|anchor| anchor.der() == current.der()) {
            return Ok(());
        }
        match issuer_among(&anchors, current, authorities_below) {
            Ok(anchor) => return check_alone(anchor, at),
            Err(PathError::NoTrustAnchor) => current = issuer_among(&others, current, authorities_below)?,
            // An anchor of that name was found wanting, which says more than any fault of the others.
            Err(fault) => current = issuer_among(&others, current, authorities_below).map_err(|_| fault)?,
        }
        others.retain(|other| other.der() != current.der());
        authorities_below += usize::from(current.subject() != current.issuer());
    }
}

/// The first of `pool` that may have issued `certificate`; else why the last with that name did not.
fn issuer_among<'p, 'a>(
    pool: &[&'p Certificate<'a>],
    certificate: &Certificate<'_>,
    authorities_below: usize,
) -> Result<&'p Certificate<'a>, PathError> {
    let mut fault = PathError::NoTrustAnchor;
    for candidate in pool
        .iter()
        .filter(|candidate| candidate.subject() == certificate.issuer())
    {
        match check_issuer(certificate, candidate, authorities_below) {
            Ok(()) => return Ok(candidate),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

/// The cheap checks first: a signature is verified only under a certificate that may have made it.
fn check_issuer(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
    authorities_below: usize,
) -> Result<(), PathError> {
    if certificate.issuer() != issuer.subject() {
        return Err(PathError::IssuerName);
    }
    if !may_issue(issuer, authorities_below)? {
        return Err(PathError::NotAnAuthority);
    }
    check_signature(certificate, issuer.public_key())
}

/// RFC 5280 6.1.4 (k) to (n).
fn may_issue(issuer: &Certificate<'_>, authorities_below: usize) -> Result<bool, ReadError> {
    let Some(constraints) = issuer.extension::<BasicConstraints>()? else {
        return Ok(false);
    };
    let usage = issuer.extension::<KeyUsage>()?;
    let fits = constraints
        .path_len_constraint
        .is_none_or(|most| authorities_below <= usize::from(most));
    Ok(constraints.ca && fits && usage.is_none_or(|usage| usage.key_cert_sign()))
}

fn check_signature(certificate: &Certificate<'_>, issuer_key: &[u8]) -> Result<(), PathError> {
    let algorithm = certificate
        .signature_algorithm()
        .ok_or(PathError::UnsupportedAlgorithm)?;
    let key = PublicKey::from_spki(issuer_key).map_err(|_| PathError::UnsupportedAlgorithm)?;
    if !key.kind().algorithms().contains(&algorithm) {
        return Err(PathError::UnsupportedAlgorithm);
    }
    let signature = certificate.signature().ok_or(PathError::BadSignature)?;
    verify(&key, algorithm, certificate.signed_bytes(), signature)
}

fn verify(key: &PublicKey, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Result<(), PathError> {
    let verified = match algorithm.input() {
        InputKind::Digest(hash) => key.verify(algorithm, &hash.digest(signed), signature),
        // SM2 comes here too: the key hashes the message itself, with the default user id (GB/T 20518 asks
        // for it).
        InputKind::Message(_) => key.verify(algorithm, signed, signature),
    };
    verified.map_err(|_| PathError::BadSignature)
}

/// What can be said of a certificate without its neighbours.
fn check_alone(certificate: &Certificate<'_>, at: UnixMillis) -> Result<(), PathError> {
    check_critical_extensions(certificate)?;
    if time::is_within(certificate.validity(), at) {
        return Ok(());
    }
    let subject = Name::from_der(certificate.subject().0).map_err(ReadError::from)?;
    Err(PathError::NotValidThen {
        subject: subject.to_string(),
    })
}

fn check_critical_extensions(certificate: &Certificate<'_>) -> Result<(), PathError> {
    let mut critical = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.critical);
    match critical.find(|extension| !UNDERSTOOD.contains(&extension.extn_id)) {
        Some(extension) => Err(PathError::CriticalExtension(extension.extn_id)),
        None => Ok(()),
    }
}

fn check_purpose(certificate: &Certificate<'_>, purposes: &[ObjectIdentifier]) -> Result<(), PathError> {
    let Some(ExtendedKeyUsage(allowed)) = certificate.extension::<ExtendedKeyUsage>()? else {
        return Ok(());
    };
    if allowed
        .iter()
        .any(|usage| *usage == ANY_EXTENDED_KEY_USAGE || purposes.contains(usage))
    {
        return Ok(());
    }
    Err(PathError::Purpose)
}
