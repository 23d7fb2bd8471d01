//! From who is revoked to a list: prepare, let sign, assemble.

use std::collections::HashSet;

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{
    ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS, ID_CE_DELTA_CRL_INDICATOR, ID_CE_FRESHEST_CRL,
    ID_CE_INVALIDITY_DATE, ID_CE_ISSUING_DISTRIBUTION_POINT,
};
use der::asn1::GeneralizedTime;
use der::{DateTime, Encode};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;
use protocol::verify::{PublicKey, PublicKeyError};
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::DistributionPointName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, KeyUsage, SubjectKeyIdentifier};

use super::Reason;
use crate::element::{append, element, integer, tag};
use crate::signed::{AssembleError, Unsigned, fits};
use crate::x509::{self, Certificate, SpecError, distribution_point, key_identifier, location};
use crate::{identifier, time};

/// Longest serial number, in bytes of its value.
const SERIAL_BYTES_MAX: usize = 20;
/// v2, the version that has extensions (RFC 5280 5.1.2.1).
const V2: u8 = 1;
/// About what one entry takes.
const ENTRY_BYTES: usize = 48;

/// A certificate that is no longer good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked<'a> {
    /// Its serial number, unsigned and big-endian.
    pub serial: &'a [u8],
    /// Since when, in whole seconds.
    pub at: UnixMillis,
    /// Why.
    pub reason: Reason,
    /// Since when it could not be trusted, if that was earlier (RFC 5280 5.3.2).
    pub invalid_since: Option<UnixMillis>,
}

/// Whether a list says everything or only what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All that are revoked.
    Full,
    /// What changed since the full list with the number `base` (RFC 5280 5.2.4).
    Delta {
        /// The number of that full list.
        base: u64,
    },
}

/// A list that does not cover everything its issuer certified (RFC 5280 5.2.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Where this list is, as the certificates it covers say.
    pub locations: Vec<String>,
    /// Whether it covers only subjects that are no authorities.
    pub only_subjects: bool,
    /// Whether it covers only authorities.
    pub only_authorities: bool,
}

/// What kind of list to make.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// The issuer's certificate, in DER.
    pub issuer: &'a [u8],
    /// Grows with every list of this issuer; full and delta lists share one sequence (RFC 5280 5.2.3).
    pub number: u64,
    /// Full or delta.
    pub kind: Kind,
    /// When it is made, in whole seconds.
    pub this_update: UnixMillis,
    /// When the next one is there at the latest.
    pub next_update: UnixMillis,
    /// What it covers; `None`: everything.
    pub scope: Option<Scope>,
    /// Where the delta lists to this full list are (RFC 5280 5.2.6).
    pub delta_locations: Vec<String>,
}

/// Why a list cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The issuer's certificate cannot be read.
    #[error("the issuer: {0}")]
    Issuer(#[from] x509::ReadError),
    /// The issuer's key cannot be used.
    #[error("the issuer's key: {0}")]
    IssuerKey(#[from] PublicKeyError),
    /// The issuer's key usage excludes revocation lists (RFC 5280 4.2.1.3).
    #[error("the issuer's certificate is not for signing revocation lists")]
    NotForLists,
    /// The issuer's key does not sign with this algorithm.
    #[error("the issuer's key does not sign with {0}")]
    Algorithm(Algorithm),
    /// A list that would be out of date when it is made.
    #[error("the next list must come after this one")]
    Updates,
    /// A delta to a list that comes later.
    #[error("a delta list must have a higher number than its base")]
    Base,
    /// A list that covers nothing.
    #[error("a list cannot be only for subjects and only for authorities")]
    Scope,
    /// A serial number that is zero or too long.
    #[error("a serial number must be positive and at most {SERIAL_BYTES_MAX} bytes long")]
    Serial,
    /// A certificate that is there twice.
    #[error("a certificate is on the list twice")]
    Twice,
    /// A reason that only delta lists have.
    #[error("a full list has no entries that remove")]
    Removal,
    /// A location that is not a URL.
    #[error(transparent)]
    Location(#[from] SpecError),
    /// A time after the year 9999.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// A list that lacks its signature.
#[derive(Debug)]
pub struct PreparedCrl {
    unsigned: Unsigned,
    issuer: PublicKey,
}

/// Writes everything of the list but its signature, which the issuer's key is to make with `algorithm`.
pub fn prepare<'r>(
    spec: &Spec<'_>,
    revoked: impl IntoIterator<Item = Revoked<'r>>,
    algorithm: Algorithm,
) -> Result<PreparedCrl, PrepareError> {
    let certificate = Certificate::parse(spec.issuer)?;
    let issuer = PublicKey::from_spki(certificate.public_key())?;
    check(spec, &certificate)?;
    if !fits(&issuer, algorithm) {
        return Err(PrepareError::Algorithm(algorithm));
    }
    let entries = entries(revoked, spec.kind)?;
    let mut part = Vec::with_capacity(entries.len() + 1024);
    append(
        &mut part,
        tag::SEQUENCE,
        &[
            &integer(&[V2]),
            &identifier::signature_identifier(algorithm)?,
            certificate.subject().0,
            &time::to_asn1(spec.this_update)?.to_der()?,
            &time::to_asn1(spec.next_update)?.to_der()?,
            &entries,
            &extensions(spec, &certificate)?,
        ],
    );
    Ok(PreparedCrl {
        unsigned: Unsigned::new(part, &issuer, algorithm),
        issuer,
    })
}

fn check(spec: &Spec<'_>, issuer: &Certificate<'_>) -> Result<(), PrepareError> {
    if issuer
        .extension::<KeyUsage>()?
        .is_some_and(|usage| !usage.crl_sign())
    {
        return Err(PrepareError::NotForLists);
    }
    if spec.next_update.seconds() <= spec.this_update.seconds() {
        return Err(PrepareError::Updates);
    }
    if matches!(spec.kind, Kind::Delta { base } if base >= spec.number) {
        return Err(PrepareError::Base);
    }
    match &spec.scope {
        Some(scope) if scope.only_subjects && scope.only_authorities => Err(PrepareError::Scope),
        _ => Ok(()),
    }
}

/// revokedCertificates; absent where nobody is revoked (RFC 5280 5.1.2.6).
fn entries<'r>(revoked: impl IntoIterator<Item = Revoked<'r>>, kind: Kind) -> Result<Vec<u8>, PrepareError> {
    let revoked = revoked.into_iter();
    let expected = revoked.size_hint().0;
    let mut seen = HashSet::with_capacity(expected);
    let mut list = Vec::with_capacity(expected * ENTRY_BYTES);
    for entry in revoked {
        let zeros = entry.serial.iter().take_while(|byte| **byte == 0).count();
        let serial = &entry.serial[zeros..];
        if serial.is_empty() || serial.len() > SERIAL_BYTES_MAX {
            return Err(PrepareError::Serial);
        }
        if !seen.insert(serial) {
            return Err(PrepareError::Twice);
        }
        if kind == Kind::Full && entry.reason == Reason::RemoveFromCrl {
            return Err(PrepareError::Removal);
        }
        append_entry(&mut list, serial, &entry)?;
    }
    if list.is_empty() {
        return Ok(list);
    }
    Ok(element(tag::SEQUENCE, &[&list]))
}

fn append_entry(list: &mut Vec<u8>, serial: &[u8], entry: &Revoked<'_>) -> Result<(), PrepareError> {
    let mut extensions = Vec::new();
    if entry.reason != Reason::Unspecified {
        let reason = element(tag::ENUMERATED, &[&[entry.reason.number()]]);
        extensions = extension(ID_CE_CRL_REASONS, false, &reason)?;
    }
    if let Some(at) = entry.invalid_since {
        // Always GeneralizedTime (RFC 5280 5.3.2).
        let at = std::time::Duration::from_secs(at.seconds());
        let at = GeneralizedTime::from_date_time(DateTime::from_unix_duration(at)?).to_der()?;
        extensions.extend(extension(ID_CE_INVALIDITY_DATE, false, &at)?);
    }
    if !extensions.is_empty() {
        extensions = element(tag::SEQUENCE, &[&extensions]);
    }
    let at = time::to_asn1(entry.at)?.to_der()?;
    append(list, tag::SEQUENCE, &[&integer(serial), &at, &extensions]);
    Ok(())
}

fn extension(oid: ObjectIdentifier, critical: bool, value: &[u8]) -> der::Result<Vec<u8>> {
    let critical: &[u8] = if critical { &[tag::BOOLEAN, 1, 0xff] } else { &[] };
    let value = element(tag::OCTET_STRING, &[value]);
    Ok(element(tag::SEQUENCE, &[&oid.to_der()?, critical, &value]))
}

/// RFC 5280 5.2.
fn extensions(spec: &Spec<'_>, issuer: &Certificate<'_>) -> Result<Vec<u8>, PrepareError> {
    let key_identifier = match issuer.extension::<SubjectKeyIdentifier>()? {
        Some(SubjectKeyIdentifier(named)) => named.as_bytes().to_vec(),
        None => key_identifier(issuer.public_key())?,
    };
    let authority = element(tag::SEQUENCE, &[&element(tag::primitive(0), &[&key_identifier])]);
    let number = |number: u64| integer(&number.to_be_bytes());
    let mut list = extension(AuthorityKeyIdentifier::OID, false, &authority)?;
    list.extend(extension(ID_CE_CRL_NUMBER, false, &number(spec.number))?);
    if let Kind::Delta { base } = spec.kind {
        list.extend(extension(ID_CE_DELTA_CRL_INDICATOR, true, &number(base))?);
    }
    if let Some(scope) = &spec.scope {
        let value = issuing_distribution_point(scope)?.to_der()?;
        list.extend(extension(ID_CE_ISSUING_DISTRIBUTION_POINT, true, &value)?);
    }
    if !spec.delta_locations.is_empty() {
        let value = distribution_point(&spec.delta_locations)?.to_der()?;
        list.extend(extension(ID_CE_FRESHEST_CRL, false, &value)?);
    }
    let list = element(tag::SEQUENCE, &[&list]);
    Ok(element(tag::constructed(0), &[&list]))
}

fn issuing_distribution_point(scope: &Scope) -> Result<IssuingDistributionPoint, PrepareError> {
    let names: Vec<_> = scope
        .locations
        .iter()
        .map(|url| location(url))
        .collect::<Result<_, _>>()?;
    Ok(IssuingDistributionPoint {
        distribution_point: (!names.is_empty()).then_some(DistributionPointName::FullName(names)),
        only_contains_user_certs: scope.only_subjects,
        only_contains_ca_certs: scope.only_authorities,
        only_some_reasons: None,
        indirect_crl: false,
        only_contains_attribute_certs: false,
    })
}

impl PreparedCrl {
    /// The TBSCertList, in DER.
    pub fn tbs(&self) -> &[u8] {
        self.unsigned.part()
    }

    /// What to give to a signer of the issuer's algorithm, as with certificates.
    pub fn to_sign(&self) -> &[u8] {
        self.unsigned.to_sign()
    }

    /// The CertificateList, in DER. The signature is verified, so that no list leaves that nobody would
    /// accept.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        self.unsigned.assemble(&self.issuer, signature)
    }
}
