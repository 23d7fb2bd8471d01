//! What to certify.

use std::net::IpAddr;

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::ID_KP_SERVER_AUTH;
use der::asn1::{Ia5String, OctetString};
use der::flagset::FlagSet;
use der::{Decode, Encode};
use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::UnixMillis;
use protocol::verify::PublicKeyError;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};

use super::{Certificate, Name, ReadError};

/// What a certificate is for; this decides its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// An authority that issues signers' certificates, and may have other authorities below it.
    Root,
    /// A signer of documents and digests: digitalSignature and nonRepudiation, and no extended key usage, so
    /// that plain `openssl cms -verify` accepts its signatures (SEMANTICS 6.3).
    Signer,
    /// An authority that issues the certificates of TLS servers and nothing below them.
    TlsRoot,
    /// A TLS server, by the names and addresses it is reached at.
    TlsServer {
        /// DNS names.
        dns: Vec<String>,
        /// Addresses.
        ips: Vec<IpAddr>,
    },
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
}

impl Spec {
    pub(super) fn issuer_parts(&self) -> Result<IssuerParts, SpecError> {
        let (name, public_key, named) = match &self.issuer {
            Issuer::Itself => (
                self.subject.as_der().to_vec(),
                self.subject_public_key.clone(),
                None,
            ),
            Issuer::Holder(certificate) => {
                let issuer = Certificate::parse(certificate)?;
                let named = issuer.extension::<SubjectKeyIdentifier>()?;
                (issuer.subject().0.to_vec(), issuer.public_key().to_vec(), named)
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
        })
    }
}

/// The extensions of the certificate, in the order in which they are usually shown (RFC 5280 4.2.1).
pub(super) fn extensions(spec: &Spec, issuer: &IssuerParts) -> Result<Vec<Extension>, SpecError> {
    let mut list = vec![
        extension(true, &spec.profile.basic_constraints())?,
        extension(true, &KeyUsage(spec.profile.key_usage()))?,
    ];
    if let Profile::TlsServer { dns, ips } = &spec.profile {
        list.push(extension(false, &ExtendedKeyUsage(vec![ID_KP_SERVER_AUTH]))?);
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

impl Profile {
    const fn basic_constraints(&self) -> BasicConstraints {
        let (ca, path_len_constraint) = match self {
            Self::Root => (true, None),
            Self::TlsRoot => (true, Some(0)),
            Self::Signer | Self::TlsServer { .. } => (false, None),
        };
        BasicConstraints {
            ca,
            path_len_constraint,
        }
    }

    fn key_usage(&self) -> FlagSet<KeyUsages> {
        match self {
            Self::Root | Self::TlsRoot => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            Self::Signer => KeyUsages::DigitalSignature | KeyUsages::NonRepudiation,
            Self::TlsServer { .. } => KeyUsages::DigitalSignature.into(),
        }
    }
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
fn key_identifier(public_key: &[u8]) -> der::Result<Vec<u8>> {
    let info = SubjectPublicKeyInfoRef::from_der(public_key)?;
    Ok(Hash::Sha256.digest(info.subject_public_key.raw_bytes())[..20].to_vec())
}
