//! The last look at a certificate before its issuer's key signs it.
//!
//! The signed part is read back from its bytes, as a relying party will, and held against RFC 5280 and the
//! house's own rules. Only what passes becomes a [`Linted`], and only a [`Linted`] can be signed: a
//! certificate that nobody should accept never reaches the key.

mod strict;

use std::fmt;

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{ID_CE_CERTIFICATE_POLICIES, ID_KP_OCSP_SIGNING, ID_KP_TIME_STAMPING};
use const_oid::db::rfc6960::ID_PKIX_OCSP_NOCHECK;
use der::asn1::AnyRef;
use der::{Decode, Encode};
use protocol::algorithm::KeyKind;
use spki::ObjectIdentifier;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies,
    CrlDistributionPoints, ExtendedKeyUsage, FreshestCrl, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::time::Time;

use crate::time;
use crate::x509::{Certificate, KeyError, NameError, Tbs, V3, check_dns_name, check_name, check_public_key};

/// Longest serial number, in bytes of its value (RFC 5280 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;
/// Shortest serial number that leaves room for 64 random bits.
const SERIAL_BYTES_MIN: usize = 8;
/// From this year on times are GeneralizedTime (RFC 5280 4.1.2.5).
const GENERALIZED_FROM: u16 = 2050;

/// Extensions that we put into certificates, and whether they must be critical (`None`: as the case may be).
const KNOWN: [(ObjectIdentifier, Option<bool>); 11] = [
    (BasicConstraints::OID, Some(true)),
    (KeyUsage::OID, Some(true)),
    (ExtendedKeyUsage::OID, None),
    (SubjectAltName::OID, None),
    (SubjectKeyIdentifier::OID, Some(false)),
    (AuthorityKeyIdentifier::OID, Some(false)),
    (ID_CE_CERTIFICATE_POLICIES, Some(false)),
    (CrlDistributionPoints::OID, Some(false)),
    (FreshestCrl::OID, Some(false)),
    (AuthorityInfoAccessSyntax::OID, Some(false)),
    (ID_PKIX_OCSP_NOCHECK, Some(false)),
];

/// Something that is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Not DER (X.690).
    #[error("not DER: {0}")]
    NotDer(&'static str),
    /// Not a TBSCertificate.
    #[error("not the signed part of a certificate: {0}")]
    Unreadable(der::Error),
    /// Not version 3, or with unique identifiers (RFC 5280 4.1.2.1, 4.1.2.8).
    #[error("not version 3, or with unique identifiers")]
    Version,
    /// A serial number that is not positive, above 20 bytes, or too short to hold 64 random bits.
    #[error("the serial number must be positive, and of {SERIAL_BYTES_MIN} to {SERIAL_BYTES_MAX} bytes")]
    Serial,
    /// A signature algorithm that the issuer's key cannot do.
    #[error("the signature algorithm is none of ours")]
    Algorithm,
    /// UTCTime from 2050 on, or GeneralizedTime before (RFC 5280 4.1.2.5).
    #[error("a time before 2050 must be UTCTime, a later one GeneralizedTime")]
    TimeEncoding,
    /// A validity that ends before it begins.
    #[error("the validity ends before it begins")]
    Validity,
    /// A validity that its issuer's does not contain.
    #[error("the validity reaches beyond the issuer's")]
    BeyondIssuer,
    /// Another issuer name than the issuer's subject.
    #[error("the issuer is not the subject of the issuer's certificate")]
    IssuerName,
    /// An issuer that may not issue, or no authority where this is one (RFC 5280 4.2.1.9).
    #[error("the issuer may not issue this certificate")]
    IssuerNotAllowed,
    /// A subject that breaks the limits of names.
    #[error("the subject: {0}")]
    Subject(NameError),
    /// Nobody is named: no subject and no alternative name, or an authority without a subject.
    #[error("no subject is named")]
    NoSubject,
    /// An alternative name that is no DNS name, or deceives.
    #[error("the alternative name: {0}")]
    AlternativeName(NameError),
    /// A key that must not be certified.
    #[error("the subject's key: {0}")]
    Key(KeyError),
    /// An extension that is there twice (RFC 5280 4.2).
    #[error("two extensions {0}")]
    RepeatedExtension(ObjectIdentifier),
    /// An extension that is none of ours.
    #[error("an extension that we do not issue: {0}")]
    UnknownExtension(ObjectIdentifier),
    /// An extension whose value cannot be read, or is not in DER.
    #[error("the extension {0} is not in DER")]
    ExtensionValue(ObjectIdentifier),
    /// Critical where it must not be, or not critical where it must be.
    #[error("the extension {0} has the wrong criticality")]
    Criticality(ObjectIdentifier),
    /// An extension that must be there and is not.
    #[error("the extension {0} is missing")]
    Missing(ObjectIdentifier),
    /// Key usage that does not agree with basic constraints, the purposes or the kind of key.
    #[error("key usage, basic constraints, purposes and key do not agree")]
    Usage,
    /// A path length where there is no authority, or one that the issuer's does not allow.
    #[error("the path length constraint is not allowed")]
    PathLength,
    /// A purpose that must stand alone or be critical and does not (RFC 3161 2.3, RFC 6960 4.2.2.2).
    #[error("time stamping and OCSP signing must be the only purpose, time stamping critical")]
    Purpose,
    /// A key identifier that is empty or not the issuer's.
    #[error("the authority key identifier is not the issuer's subject key identifier")]
    KeyIdentifier,
    /// A location that is not an absolute http URL.
    #[error("'{0}' is not a location that everybody can reach: an http URL")]
    Location(String),
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

/// The signed part of a certificate in which nothing was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linted(Vec<u8>);

impl Linted {
    /// The TBSCertificate, in DER.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_der(self) -> Vec<u8> {
        self.0
    }
}

/// Looks at a TBSCertificate, in DER, that the holder of `issuer` (a certificate, in DER; `None`: the subject
/// itself) is about to sign.
pub fn certificate(tbs: Vec<u8>, issuer: Option<&[u8]>) -> Result<Linted, Findings> {
    let found = findings(&tbs, issuer);
    if found.is_empty() {
        Ok(Linted(tbs))
    } else {
        Err(Findings(found))
    }
}

fn findings(bytes: &[u8], issuer: Option<&[u8]>) -> Vec<Finding> {
    if let Err(what) = strict::check(bytes) {
        return vec![Finding::NotDer(what)];
    }
    let read = Tbs::from_der(bytes).and_then(|tbs| {
        let extensions = tbs.extensions.map_or(Ok(Vec::new()), AnyRef::decode_as)?;
        Ok((tbs, extensions))
    });
    let issuer = issuer.map(Certificate::parse).transpose();
    if let Ok((tbs, extensions)) = &read
        && !is_written_back(bytes, tbs, extensions)
    {
        return vec![Finding::NotDer(
            "a default that is written out, or a kind of string that is not needed",
        )];
    }
    match (read, issuer) {
        (Ok((tbs, extensions)), Ok(issuer)) => Look {
            tbs: &tbs,
            extensions: &extensions,
            issuer: issuer.as_ref(),
            found: Vec::new(),
        }
        .everything(),
        (Err(error), _) => vec![Finding::Unreadable(error)],
        (_, Err(_)) => vec![Finding::IssuerNotAllowed],
    }
}

/// Defaults that are written out are all that [`strict`] cannot see.
fn is_written_back(bytes: &[u8], tbs: &Tbs<'_>, extensions: &[Extension]) -> bool {
    let list = extensions.to_vec().to_der();
    let same_list = match tbs.extensions {
        None => extensions.is_empty(),
        Some(any) => any.to_der() == list,
    };
    same_list && tbs.to_der().as_deref() == Ok(bytes)
}

struct Look<'l, 'a> {
    tbs: &'l Tbs<'a>,
    extensions: &'l [Extension],
    issuer: Option<&'l Certificate<'a>>,
    found: Vec<Finding>,
}

impl Look<'_, '_> {
    fn everything(mut self) -> Vec<Finding> {
        self.fields();
        self.validity();
        self.subject_and_key();
        self.each_extension();
        self.usage();
        self.purposes();
        self.identifiers();
        self.locations();
        self.under_issuer();
        self.found
    }

    fn when(&mut self, wrong: bool, finding: Finding) {
        if wrong && !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }

    fn value<T>(&self) -> Option<T>
    where
        T: AssociatedOid + for<'b> Decode<'b, Error = der::Error>,
    {
        let mut all = self.extensions.iter();
        let extension = all.find(|extension| extension.extn_id == T::OID)?;
        T::from_der(extension.extn_value.as_bytes()).ok()
    }

    fn fields(&mut self) {
        let unique = self.tbs.issuer_unique_id.is_some() || self.tbs.subject_unique_id.is_some();
        self.when(self.tbs.version != V3 || unique, Finding::Version);
        // Tag and length are one byte each for numbers this short.
        let value = self.tbs.serial.0.get(2..).unwrap_or_default();
        let length = value.len() - usize::from(value.first() == Some(&0));
        let negative = value.first().is_none_or(|first| *first >= 0x80);
        let fits = (SERIAL_BYTES_MIN..=SERIAL_BYTES_MAX).contains(&length) && value.len() <= SERIAL_BYTES_MAX;
        self.when(negative || !fits, Finding::Serial);
    }

    fn validity(&mut self) {
        let validity = self.tbs.validity;
        let wrong = |at: Time| {
            let generalized = matches!(at, Time::GeneralTime(_));
            generalized != (at.to_date_time().year() >= GENERALIZED_FROM)
        };
        self.when(
            wrong(validity.not_before) || wrong(validity.not_after),
            Finding::TimeEncoding,
        );
        let (from, to) = (
            time::from_asn1(validity.not_before),
            time::from_asn1(validity.not_after),
        );
        self.when(to < from, Finding::Validity);
        let beyond = self.issuer.is_some_and(|issuer| {
            let (earliest, latest) = issuer.validity();
            from < earliest || to > latest
        });
        self.when(beyond, Finding::BeyondIssuer);
    }

    fn subject_and_key(&mut self) {
        if let Err(error) = check_name(self.tbs.subject.0) {
            self.found.push(Finding::Subject(error));
        }
        if let Err(error) = check_public_key(self.tbs.public_key.0) {
            self.found.push(Finding::Key(error));
        }
        let nameless = self.tbs.subject.0 == [0x30, 0];
        let alternatives = self.value::<SubjectAltName>();
        for name in alternatives.iter().flat_map(|names| &names.0) {
            if let GeneralName::DnsName(name) = name
                && let Err(error) = check_dns_name(name.as_str())
            {
                self.found.push(Finding::AlternativeName(error));
            }
        }
        let nobody = nameless && (self.is_authority() || alternatives.is_none_or(|names| names.0.is_empty()));
        self.when(nobody, Finding::NoSubject);
    }

    fn is_authority(&self) -> bool {
        self.value::<BasicConstraints>()
            .is_some_and(|constraints| constraints.ca)
    }

    fn each_extension(&mut self) {
        for (at, extension) in self.extensions.iter().enumerate() {
            let oid = extension.extn_id;
            let twice = self.extensions[..at].iter().any(|other| other.extn_id == oid);
            self.when(twice, Finding::RepeatedExtension(oid));
            match KNOWN.iter().find(|(known, _)| *known == oid) {
                None => self.found.push(Finding::UnknownExtension(oid)),
                Some((_, critical)) => self.when(
                    critical.is_some_and(|critical| critical != extension.critical),
                    Finding::Criticality(oid),
                ),
            }
            self.when(!is_canonical(extension), Finding::ExtensionValue(oid));
        }
        // Without a subject the alternative name is all there is to go by (RFC 5280 4.2.1.6).
        let nameless = self.tbs.subject.0 == [0x30, 0];
        let mut all = self.extensions.iter();
        let names = all.find(|extension| extension.extn_id == SubjectAltName::OID);
        let wrong = names.is_some_and(|names| names.critical != nameless);
        self.when(wrong, Finding::Criticality(SubjectAltName::OID));
    }

    fn usage(&mut self) {
        let (Some(constraints), Some(usage)) = (self.value::<BasicConstraints>(), self.value::<KeyUsage>())
        else {
            for oid in [BasicConstraints::OID, KeyUsage::OID] {
                let missing = self.extensions.iter().all(|extension| extension.extn_id != oid);
                self.when(missing, Finding::Missing(oid));
            }
            return;
        };
        let certifies = usage.key_cert_sign() || usage.crl_sign();
        let agrees = match (constraints.ca, self.issuer) {
            (true, _) => usage.key_cert_sign() && usage.crl_sign(),
            (false, Some(_)) => !certifies && !usage.0.is_empty(),
            // Who certifies itself and is no authority certifies nothing.
            (false, None) => false,
        };
        let kind = check_public_key(self.tbs.public_key.0).ok().map(|key| key.kind());
        let rsa = kind.is_some_and(|kind| kind.rsa_bits().is_some());
        let fits_key = rsa || !(usage.key_encipherment() || usage.data_encipherment());
        let fits_agreement = !usage.key_agreement() || matches!(kind, Some(KeyKind::P256 | KeyKind::P384));
        self.when(!(agrees && fits_key && fits_agreement), Finding::Usage);
        let length = constraints.path_len_constraint.is_some();
        self.when(length && !constraints.ca, Finding::PathLength);
    }

    fn purposes(&mut self) {
        let Some(ExtendedKeyUsage(purposes)) = self.value::<ExtendedKeyUsage>() else {
            return;
        };
        self.when(purposes.is_empty() || self.is_authority(), Finding::Usage);
        let mut all = self.extensions.iter();
        let critical = all.any(|extension| extension.extn_id == ExtendedKeyUsage::OID && extension.critical);
        let stamps = purposes.contains(&ID_KP_TIME_STAMPING);
        let alone = stamps || purposes.contains(&ID_KP_OCSP_SIGNING);
        self.when(
            (alone && purposes.len() > 1) || (stamps && !critical),
            Finding::Purpose,
        );
    }

    /// RFC 5280 4.2.1.1 and 4.2.1.2.
    fn identifiers(&mut self) {
        let subject = self.value::<SubjectKeyIdentifier>();
        let authority = self
            .value::<AuthorityKeyIdentifier>()
            .and_then(|id| id.key_identifier);
        self.when(subject.is_none(), Finding::Missing(SubjectKeyIdentifier::OID));
        self.when(authority.is_none(), Finding::Missing(AuthorityKeyIdentifier::OID));
        let issuers = match self.issuer {
            None => subject.clone(),
            Some(issuer) => issuer.extension().ok().flatten(),
        };
        let empty = subject.is_some_and(|SubjectKeyIdentifier(id)| id.as_bytes().is_empty());
        let other = matches!((issuers, authority), (Some(SubjectKeyIdentifier(a)), Some(b)) if a != b);
        self.when(empty || other, Finding::KeyIdentifier);
    }

    fn locations(&mut self) {
        let lists = [
            self.value::<CrlDistributionPoints>().map(|points| points.0),
            self.value::<FreshestCrl>().map(|points| points.0),
        ];
        let points = lists.into_iter().flatten().flatten();
        let mut names: Vec<GeneralName> = points
            .flat_map(|point| match point.distribution_point {
                Some(DistributionPointName::FullName(names)) => names,
                _ => Vec::new(),
            })
            .collect();
        let access = self.value::<AuthorityInfoAccessSyntax>();
        names.extend(
            access
                .into_iter()
                .flat_map(|access| access.0)
                .map(|description| description.access_location),
        );
        for name in names {
            match name {
                GeneralName::UniformResourceIdentifier(url) if is_reachable(url.as_str()) => {}
                GeneralName::UniformResourceIdentifier(url) => {
                    self.found.push(Finding::Location(url.to_string()));
                }
                other => self.found.push(Finding::Location(format!("{other:?}"))),
            }
        }
    }

    fn under_issuer(&mut self) {
        let Some(issuer) = self.issuer else {
            self.when(self.tbs.issuer != self.tbs.subject, Finding::IssuerName);
            return;
        };
        self.when(self.tbs.issuer != issuer.subject(), Finding::IssuerName);
        let constraints: Option<BasicConstraints> = issuer.extension().ok().flatten();
        let usage: Option<KeyUsage> = issuer.extension().ok().flatten();
        let may = constraints.as_ref().is_some_and(|constraints| constraints.ca)
            && usage.is_none_or(|usage| usage.key_cert_sign());
        self.when(!may, Finding::IssuerNotAllowed);
        let ours = self.value::<BasicConstraints>().filter(|ours| ours.ca);
        let most = constraints.and_then(|constraints| constraints.path_len_constraint);
        if let (Some(ours), Some(most)) = (ours, most) {
            let fits = most > 0 && ours.path_len_constraint.is_some_and(|length| length < most);
            self.when(!fits, Finding::PathLength);
        }
    }
}

/// Whether what is read from the value is written again with the same bytes.
fn is_canonical(extension: &Extension) -> bool {
    fn same<T: Encode + for<'b> Decode<'b, Error = der::Error>>(bytes: &[u8]) -> bool {
        T::from_der(bytes).and_then(|value| value.to_der()).as_deref() == Ok(bytes)
    }
    let bytes = extension.extn_value.as_bytes();
    let readable = match extension.extn_id {
        BasicConstraints::OID => same::<BasicConstraints>(bytes),
        KeyUsage::OID => same::<KeyUsage>(bytes),
        ExtendedKeyUsage::OID => same::<ExtendedKeyUsage>(bytes),
        SubjectAltName::OID => same::<SubjectAltName>(bytes),
        SubjectKeyIdentifier::OID => same::<SubjectKeyIdentifier>(bytes),
        AuthorityKeyIdentifier::OID => same::<AuthorityKeyIdentifier>(bytes),
        ID_CE_CERTIFICATE_POLICIES => same::<CertificatePolicies>(bytes),
        CrlDistributionPoints::OID => same::<CrlDistributionPoints>(bytes),
        FreshestCrl::OID => same::<FreshestCrl>(bytes),
        AuthorityInfoAccessSyntax::OID => same::<AuthorityInfoAccessSyntax>(bytes),
        ID_PKIX_OCSP_NOCHECK => bytes == [5, 0],
        _ => true,
    };
    readable && strict::check(bytes).is_ok()
}

/// An absolute http URL with a host and without spaces or controls. Not https: whoever checks that
/// certificate would have to check another (RFC 5280 8).
fn is_reachable(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split(['/', ':', '?', '#']).next().unwrap_or_default();
    !host.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic())
}
