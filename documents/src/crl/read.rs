//! A revocation list as it lies in its bytes.

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{
    ID_CE_CERTIFICATE_ISSUER, ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS, ID_CE_DELTA_CRL_INDICATOR,
    ID_CE_INVALIDITY_DATE, ID_CE_ISSUING_DISTRIBUTION_POINT,
};
use der::asn1::{AnyRef, GeneralizedTime, IntRef, UintRef};
use der::{Decode, Encode, Sequence};
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::{CrlReason, IssuingDistributionPoint};
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, KeyUsage};
use x509_cert::time::Time;

use super::Reason;
use crate::element::{Body, Element, integer};
use crate::signed::{SignatureError, verify_envelope};
use crate::time;
use crate::x509::{self, Certificate, Envelope, names_match};

/// Most entries that are read: a list of this length is about 400 MB.
const ENTRIES_MAX: usize = 10_000_000;

/// Critical extensions of a list that are understood.
const UNDERSTOOD: [ObjectIdentifier; 4] = [
    ID_CE_CRL_NUMBER,
    ID_CE_DELTA_CRL_INDICATOR,
    ID_CE_ISSUING_DISTRIBUTION_POINT,
    AuthorityKeyIdentifier::OID,
];

/// Why a list is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not a list, or not in DER.
    #[error("not a certificate revocation list in DER: {0}")]
    Malformed(#[from] der::Error),
    /// A critical extension that is not understood (RFC 5280 5.2).
    #[error("a critical extension that is not understood: {0}")]
    CriticalExtension(ObjectIdentifier),
    /// An extension that is there twice.
    #[error("a list with two extensions {0}")]
    RepeatedExtension(ObjectIdentifier),
    /// The issuer's certificate cannot be read.
    #[error("the issuer: {0}")]
    Issuer(#[from] x509::ReadError),
    /// Another issuer.
    #[error("the list was issued under another name than the issuer's")]
    IssuerName,
    /// The issuer's key usage excludes revocation lists.
    #[error("the issuer's certificate is not for signing revocation lists")]
    NotForLists,
    /// The algorithm inside is not the one outside (RFC 5280 5.1.1.2).
    #[error("the list names two signature algorithms")]
    TwoAlgorithms,
    /// The signature does not hold.
    #[error("{0}")]
    Signature(#[from] SignatureError),
}

/// TBSCertList (RFC 5280 5.1).
#[derive(Sequence)]
struct Tbs<'a> {
    version: Option<u8>,
    algorithm: Element<'a>,
    issuer: Element<'a>,
    this_update: Time,
    next_update: Option<Time>,
    revoked: Option<Body<'a>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<AnyRef<'a>>,
}

/// One of revokedCertificates.
#[derive(Sequence)]
struct RawEntry<'a> {
    serial: IntRef<'a>,
    at: Time,
    extensions: Option<AnyRef<'a>>,
}

/// IssuingDistributionPoint (RFC 5280 5.2.5).
pub(crate) type Idp = IssuingDistributionPoint;

/// A certificate on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its serial number as the INTEGER has it: two's complement, big-endian, the shortest form. There are
    /// authorities that number below zero.
    pub serial: &'a [u8],
    /// Since when.
    pub at: UnixMillis,
    /// Why.
    pub reason: Reason,
    /// Since when it could not be trusted.
    pub invalid_since: Option<UnixMillis>,
    /// The name of the certificate's issuer, in DER, where it is not the list's own (indirect lists).
    pub(crate) issuer: Option<Vec<u8>>,
}

/// A list that has been read. Its signature is another matter: [`Crl::verify`].
pub struct Crl<'a> {
    envelope: Envelope<'a>,
    tbs: Tbs<'a>,
    extensions: Vec<Extension>,
    idp: Option<Idp>,
    numbers: [Option<Vec<u8>>; 2],
    /// Sorted by serial number.
    entries: Vec<Entry<'a>>,
}

impl<'a> Crl<'a> {
    /// Reads a CertificateList, in DER.
    pub fn parse(der: &'a [u8]) -> Result<Self, ReadError> {
        let envelope = Envelope::from_der(der)?;
        let tbs = Tbs::from_der(envelope.tbs.0)?;
        let extensions = list_of(tbs.extensions)?;
        check_extensions(&extensions)?;
        let number = |oid| -> Result<Option<Vec<u8>>, ReadError> {
            let number = value::<UintRef<'_>>(&extensions, oid)?;
            Ok(number.map(|number| number.as_bytes().to_vec()))
        };
        let numbers = [number(ID_CE_CRL_NUMBER)?, number(ID_CE_DELTA_CRL_INDICATOR)?];
        let idp = value(&extensions, ID_CE_ISSUING_DISTRIBUTION_POINT)?;
        let entries = entries(tbs.revoked.unwrap_or(Body(&[])))?;
        Ok(Self {
            envelope,
            tbs,
            extensions,
            idp,
            numbers,
            entries,
        })
    }

    /// Checks that the holder of `issuer` (a certificate, in DER) issued this list.
    pub fn verify(&self, issuer: &[u8]) -> Result<(), ReadError> {
        let issuer = Certificate::parse(issuer)?;
        self.verify_by(&issuer)
    }

    pub(crate) fn verify_by(&self, issuer: &Certificate<'_>) -> Result<(), ReadError> {
        if !names_match(self.tbs.issuer.0, issuer.subject().0) {
            return Err(ReadError::IssuerName);
        }
        if issuer
            .extension::<KeyUsage>()?
            .is_some_and(|usage| !usage.crl_sign())
        {
            return Err(ReadError::NotForLists);
        }
        if self.envelope.algorithm != self.tbs.algorithm {
            return Err(ReadError::TwoAlgorithms);
        }
        verify_envelope(&self.envelope, issuer.public_key())?;
        Ok(())
    }

    /// The entry of a certificate of the list's own issuer, by its serial number, unsigned and big-endian;
    /// `None` if it is not on the list.
    pub fn find(&self, serial: &[u8]) -> Option<&Entry<'a>> {
        let integer = integer(serial);
        let header = if integer.len() < 0x82 { 2 } else { integer.len() };
        self.find_of(&integer[header..], None)
    }

    /// The entry of a certificate by its serial number as the INTEGER has it and by the issuer's name; `None`
    /// stands for the list's own issuer.
    pub(crate) fn find_of(&self, serial: &[u8], issuer: Option<&[u8]>) -> Option<&Entry<'a>> {
        let own = |entry: &Entry<'_>| {
            let named = entry.issuer.as_deref().unwrap_or(self.tbs.issuer.0);
            names_match(named, issuer.unwrap_or(self.tbs.issuer.0))
        };
        let first = self.entries.partition_point(|entry| entry.serial < serial);
        let candidates = self.entries[first..].iter();
        candidates
            .take_while(|entry| entry.serial == serial)
            .find(|entry| own(entry))
    }

    /// Everybody on the list, by serial number.
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// The CRL number, unsigned and big-endian.
    pub fn number(&self) -> Option<&[u8]> {
        self.numbers[0].as_deref()
    }

    /// The number of the list that this one is a delta to; `None` for a full list.
    pub fn base_number(&self) -> Option<&[u8]> {
        self.numbers[1].as_deref()
    }

    /// thisUpdate, and nextUpdate where there is one.
    pub fn updates(&self) -> (UnixMillis, Option<UnixMillis>) {
        (
            time::from_asn1(self.tbs.this_update),
            self.tbs.next_update.map(time::from_asn1),
        )
    }

    /// Whether the list is there at `at` and the next one is not yet due. A list that does not say when the
    /// next one comes is never current: nobody could tell how old it may be.
    pub fn is_current(&self, at: UnixMillis) -> bool {
        let (this, next) = self.updates();
        this.seconds() <= at.seconds() && next.is_some_and(|next| at.seconds() <= next.seconds())
    }

    pub(crate) const fn issuer(&self) -> Element<'a> {
        self.tbs.issuer
    }

    pub(crate) const fn idp(&self) -> Option<&Idp> {
        self.idp.as_ref()
    }

    /// The keyIdentifier of the authority key identifier.
    pub(crate) fn key_identifier(&self) -> Option<Vec<u8>> {
        let id: AuthorityKeyIdentifier = value(&self.extensions, AuthorityKeyIdentifier::OID).ok()??;
        id.key_identifier.map(|id| id.as_bytes().to_vec())
    }
}

fn list_of(extensions: Option<AnyRef<'_>>) -> der::Result<Vec<Extension>> {
    extensions.map_or(Ok(Vec::new()), AnyRef::decode_as)
}

fn check_extensions(extensions: &[Extension]) -> Result<(), ReadError> {
    for (at, extension) in extensions.iter().enumerate() {
        if extensions[..at]
            .iter()
            .any(|other| other.extn_id == extension.extn_id)
        {
            return Err(ReadError::RepeatedExtension(extension.extn_id));
        }
        if extension.critical && !UNDERSTOOD.contains(&extension.extn_id) {
            return Err(ReadError::CriticalExtension(extension.extn_id));
        }
    }
    Ok(())
}

fn value<'e, T: Decode<'e, Error = der::Error>>(
    extensions: &'e [Extension],
    oid: ObjectIdentifier,
) -> der::Result<Option<T>> {
    let mut all = extensions.iter();
    let found = all.find(|extension| extension.extn_id == oid);
    found
        .map(|extension| T::from_der(extension.extn_value.as_bytes()))
        .transpose()
}

fn entries(list: Body<'_>) -> Result<Vec<Entry<'_>>, ReadError> {
    let elements = list.elements(ENTRIES_MAX)?;
    let mut entries = Vec::with_capacity(elements.len());
    // In an indirect list a certificate issuer holds for all that follow (RFC 5280 5.3.3).
    let mut issuer: Option<Vec<u8>> = None;
    for element in elements {
        let raw = RawEntry::from_der(element.0)?;
        let extensions = list_of(raw.extensions)?;
        if let Some(named) = certificate_issuer(&extensions)? {
            issuer = Some(named);
        }
        entries.push(entry(&raw, &extensions, issuer.clone())?);
    }
    entries.sort_by(|a, b| a.serial.cmp(b.serial));
    Ok(entries)
}

fn entry<'a>(
    raw: &RawEntry<'a>,
    extensions: &[Extension],
    issuer: Option<Vec<u8>>,
) -> der::Result<Entry<'a>> {
    let reason = value::<CrlReason>(extensions, ID_CE_CRL_REASONS)?;
    let invalid_since = value::<GeneralizedTime>(extensions, ID_CE_INVALIDITY_DATE)?;
    Ok(Entry {
        serial: raw.serial.as_bytes(),
        at: time::from_asn1(raw.at),
        reason: reason.map_or(Reason::Unspecified, Reason::of),
        invalid_since: invalid_since.map(|at| time::from_asn1(Time::GeneralTime(at))),
        issuer,
    })
}

fn certificate_issuer(extensions: &[Extension]) -> der::Result<Option<Vec<u8>>> {
    let names: Option<GeneralNames> = value(extensions, ID_CE_CERTIFICATE_ISSUER)?;
    let directory = |name| match name {
        GeneralName::DirectoryName(name) => Some(name),
        _ => None,
    };
    let name = names.into_iter().flatten().find_map(directory);
    name.map(|name| name.to_der()).transpose()
}
