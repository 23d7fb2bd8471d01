//! What to certify.

use std::net::IpAddr;

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{ID_AD_CA_ISSUERS, ID_AD_OCSP};
use const_oid::db::rfc6960::ID_PKIX_OCSP_NOCHECK;
use der::asn1::{AnyRef, Ia5String, OctetString};
use der::{Decode, Encode};
use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::UnixMillis;
use protocol::verify::PublicKeyError;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::certpolicy::PolicyInformation;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints,
    CertificatePolicies, CrlDistributionPoints, ExtendedKeyUsage, FreshestCrl, KeyUsage, SubjectAltName,
    SubjectKeyIdentifier,
};

use super::{Certificate, Name, Profile, ReadError};
use crate::lint::Findings;

/// What an issuer says in the certificates it makes of itself: where it publishes, and under which policies it
/// certifies. The locations are http URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Certificate policies (RFC 5280 4.2.1.4).
    pub policies: Vec<ObjectIdentifier>,
    /// Where its revocation list is (RFC 5280 4.2.1.13).
    pub crl: Vec<String>,
    /// Where its delta list is (RFC 5280 4.2.1.15).
    pub delta_crl: Vec<String>,
    /// Where its OCSP responder is (RFC 5280 4.2.2.1).
    pub ocsp: Vec<String>,
    /// Where its own certificate is (RFC 5280 4.2.2.1).
    pub issuer_certificate: Vec<String>,
}

/// Who certifies. The name, the key and its identifier all come from one certificate, so they cannot
/// disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// The subject itself: a root.
    Itself,
    /// The holder of this certificate, in DER.
    Holder(Vec<u8>),
}

/// What to certify.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The serial number, unsigned and big-endian: positive, and at most 20 bytes in DER (RFC 5280 4.1.2.2),
    /// so with 20 bytes the first must be below 128.
    pub serial: Vec<u8>,
    /// Who certifies.
    pub issuer: Issuer,
    /// Who is certified.
    pub subject: Name,
    /// First instant of validity, rounded down to the second.
    pub not_before: UnixMillis,
    /// Last instant of validity, rounded down to the second, which still counts.
    pub not_after: UnixMillis,
    /// The subject's SubjectPublicKeyInfo, in DER.
    pub subject_public_key: Vec<u8>,
    /// What it is for.
    pub profile: Profile,
    /// What the issuer says of itself.
    pub terms: Terms,
}

/// Why something cannot be certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A serial number that is zero or too long.
    #[error("a serial number must be positive and at most 20 bytes long in DER")]
    Serial,
    /// A certificate that would end before it begins.
    #[error("a validity that ends before it begins")]
    Validity,
    /// A certificate that would be valid when its issuer's is not.
    #[error("a validity that reaches beyond the issuer's")]
    BeyondIssuer,
    /// The finished certificate would break a rule, and is not signed.
    #[error("the certificate would not be sound: {0}")]
    Lint(#[from] Findings),
    /// A location that is not ASCII.
    #[error("'{0}' is not a URL; other characters are written as %XX")]
    Location(String),
    /// A TLS server without a name or address.
    #[error("a TLS server needs at least one DNS name or address")]
    NoServerName,
    /// A DNS name that is not ASCII.
    #[error("'{0}' is not a DNS name; names in other scripts are written as xn--...")]
    DnsName(String),
    /// The subject's key cannot be used.
    #[error("the subject's key: {0}")]
    SubjectKey(#[source] PublicKeyError),
    /// The issuer's certificate cannot be read.
    #[error("the issuer: {0}")]
    IssuerCertificate(#[from] ReadError),
    /// The issuer's key cannot be used.
    #[error("the issuer's key: {0}")]
    IssuerKey(#[source] PublicKeyError),
    /// The issuer's key does not sign with this algorithm.
    #[error("the issuer's key does not sign with {0}")]
    IssuerAlgorithm(Algorithm),
    /// Something is too large for DER, or a time after the year 9999.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// What a certificate says of its issuer.
pub(super) struct IssuerParts {
    pub(super) name: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    key_identifier: Vec<u8>,
    /// `None` where the subject certifies itself.
    pub(super) validity: Option<(UnixMillis, UnixMillis)>,
}

impl Spec {
    pub(super) fn issuer_parts(&self) -> Result<IssuerParts, SpecError> {
        let (name, public_key, named, validity) = match &self.issuer {
            Issuer::Itself => (
                self.subject.as_der().to_vec(),
                self.subject_public_key.clone(),
                None,
                None,
            ),
            Issuer::Holder(certificate) => {
                let issuer = Certificate::parse(certificate)?;
                let named = issuer.extension::<SubjectKeyIdentifier>()?;
                let validity = Some(issuer.validity());
                (
                    issuer.subject().0.to_vec(),
                    issuer.public_key().to_vec(),
                    named,
                    validity,
                )
            }
        };
        // An authority that we did not make may name its key in another way, and both must match (RFC 5280
        // 4.2.1.1).
        let key_identifier = match named {
            Some(SubjectKeyIdentifier(named)) => named.as_bytes().to_vec(),
            None => key_identifier(&public_key)?,
        };
        Ok(IssuerParts {
            name,
            public_key,
            key_identifier,
            validity,
        })
    }
}

/// The extensions of the certificate, in the order in which they are usually shown (RFC 5280 4.2.1).
pub(super) fn extensions(spec: &Spec, issuer: &IssuerParts) -> Result<Vec<Extension>, SpecError> {
    let rules = spec.profile.rules();
    let constraints = BasicConstraints {
        ca: rules.authority,
        path_len_constraint: rules.authorities_below,
    };
    let mut list = vec![
        extension(true, &constraints)?,
        extension(true, &KeyUsage(rules.key_usage))?,
    ];
    if !rules.purposes.is_empty() {
        let purposes = ExtendedKeyUsage(rules.purposes.to_vec());
        list.push(extension(rules.purposes_critical, &purposes)?);
    }
    let names = match &spec.profile {
        Profile::TlsServer { dns, ips } => Some((dns, ips)),
        Profile::Custom(custom) if !(custom.dns.is_empty() && custom.ips.is_empty()) => {
            Some((&custom.dns, &custom.ips))
        }
        _ => None,
    };
    if let Some((dns, ips)) = names {
        // Without a subject the alternative name is all there is to go by (RFC 5280 4.2.1.6).
        list.push(extension(spec.subject.is_empty(), &alternative_names(dns, ips)?)?);
    }
    let subject_key = OctetString::new(key_identifier(&spec.subject_public_key)?)?;
    let issuer_key = OctetString::new(&issuer.key_identifier[..])?;
    list.push(extension(false, &SubjectKeyIdentifier(subject_key))?);
    let authority = AuthorityKeyIdentifier {
        key_identifier: Some(issuer_key),
        ..Default::default()
    };
    list.push(extension(false, &authority)?);
    terms(&spec.terms, &mut list)?;
    if rules.no_check {
        list.push(no_check()?);
    }
    Ok(list)
}

fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> der::Result<Extension> {
    let extn_id: ObjectIdentifier = T::OID;
    Ok(Extension {
        extn_id,
        critical,
        extn_value: OctetString::new(value.to_der()?)?,
    })
}

fn no_check() -> der::Result<Extension> {
    Ok(Extension {
        extn_id: ID_PKIX_OCSP_NOCHECK,
        critical: false,
        extn_value: OctetString::new(AnyRef::NULL.to_der()?)?,
    })
}

fn terms(terms: &Terms, list: &mut Vec<Extension>) -> Result<(), SpecError> {
    if !terms.policies.is_empty() {
        let policy = |oid: &ObjectIdentifier| PolicyInformation {
            policy_identifier: *oid,
            policy_qualifiers: None,
        };
        let policies = terms.policies.iter().map(policy).collect();
        list.push(extension(false, &CertificatePolicies(policies))?);
    }
    if !terms.crl.is_empty() {
        list.push(extension(
            false,
            &CrlDistributionPoints(distribution_point(&terms.crl)?),
        )?);
    }
    if !terms.delta_crl.is_empty() {
        list.push(extension(
            false,
            &FreshestCrl(distribution_point(&terms.delta_crl)?),
        )?);
    }
    let described = |method| move |url: &String| access(method, url);
    let access: Vec<_> = terms
        .ocsp
        .iter()
        .map(described(ID_AD_OCSP))
        .chain(terms.issuer_certificate.iter().map(described(ID_AD_CA_ISSUERS)))
        .collect::<Result<_, _>>()?;
    if !access.is_empty() {
        list.push(extension(false, &AuthorityInfoAccessSyntax(access))?);
    }
    Ok(())
}

fn access(method: ObjectIdentifier, url: &str) -> Result<AccessDescription, SpecError> {
    Ok(AccessDescription {
        access_method: method,
        access_location: location(url)?,
    })
}

pub(crate) fn location(url: &str) -> Result<GeneralName, SpecError> {
    let text = Ia5String::new(url).map_err(|_| SpecError::Location(url.to_owned()))?;
    Ok(GeneralName::UniformResourceIdentifier(text))
}

/// One distribution point: the same list under all these locations.
pub(crate) fn distribution_point(urls: &[String]) -> Result<Vec<DistributionPoint>, SpecError> {
    let names = urls.iter().map(|url| location(url)).collect::<Result<_, _>>()?;
    Ok(vec![DistributionPoint {
        distribution_point: Some(DistributionPointName::FullName(names)),
        reasons: None,
        crl_issuer: None,
    }])
}

fn alternative_names(dns: &[String], ips: &[IpAddr]) -> Result<SubjectAltName, SpecError> {
    if dns.is_empty() && ips.is_empty() {
        return Err(SpecError::NoServerName);
    }
    let mut names = Vec::with_capacity(dns.len() + ips.len());
    for name in dns {
        let text = Ia5String::new(name).map_err(|_| SpecError::DnsName(name.clone()))?;
        names.push(GeneralName::DnsName(text));
    }
    names.extend(ips.iter().copied().map(GeneralName::from));
    Ok(SubjectAltName(names))
}

/// The first 160 bits of SHA-256 over the bits of the key (RFC 7093 2, method 1).
pub(crate) fn key_identifier(public_key: &[u8]) -> der::Result<Vec<u8>> {
    let info = SubjectPublicKeyInfoRef::from_der(public_key)?;
    Ok(Hash::Sha256.digest(info.subject_public_key.raw_bytes())[..20].to_vec())
}
