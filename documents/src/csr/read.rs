//! A stranger's request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_EMAIL_PROTECTION, ID_KP_SERVER_AUTH};
use der::Decode;
use spki::ObjectIdentifier;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
};

use super::{Attribute, CHALLENGE_PASSWORD, EXTENSION_REQUEST, Info, Raw};
use crate::element::Members;
use crate::signed::{self, SignatureError, algorithm_of};
use crate::x509::{
    ID_KP_DOCUMENT_SIGNING, KeyError, Name, NameError, check_dns_name, check_name, check_public_key,
};

/// Longest request, in bytes of DER. One for RSA-4096 with a long name takes 2,000.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Most attributes.
const ATTRIBUTES_MAX: usize = 8;
/// Most alternative names.
const NAMES_MAX: usize = 100;
/// Longest mail address (RFC 5321 4.5.3.1.3).
const MAIL_BYTES_MAX: usize = 254;

/// Purposes that may be asked for. Time stamping and OCSP signing are ours to give.
const GRANTABLE: [ObjectIdentifier; 4] = [
    ID_KP_SERVER_AUTH,
    ID_KP_CLIENT_AUTH,
    ID_KP_EMAIL_PROTECTION,
    ID_KP_DOCUMENT_SIGNING,
];

/// Why a request is refused; all of it is the requester's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than anybody needs.
    #[error("a certificate request of more than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// Not a request, or not in DER.
    #[error("not a PKCS#10 certificate request in DER: {0}")]
    Malformed(#[from] der::Error),
    /// Another version than 0.
    #[error("a certificate request of version {0}; only v1 (0) is known")]
    Version(u8),
    /// A key that is weak or none of ours.
    #[error("the key: {0}")]
    Key(#[from] KeyError),
    /// The requester does not prove to hold the private key.
    #[error("the request's own signature: {0} (SM2 with the user id 1234567812345678)")]
    Possession(#[from] SignatureError),
    /// The subject is not a name that we certify.
    #[error("the subject: {0}")]
    Subject(#[source] NameError),
    /// Nobody is named.
    #[error("neither a subject nor an alternative name")]
    NoSubject,
    /// Attributes that are too many or there twice.
    #[error("more than {ATTRIBUTES_MAX} attributes, or two of a kind")]
    Attributes,
    /// An attribute that means nothing here.
    #[error("the attribute {0} is not allowed in a request")]
    ForbiddenAttribute(ObjectIdentifier),
    /// An extension that is not the requester's to ask for.
    #[error("the extension {0} is not granted on request")]
    ForbiddenExtension(ObjectIdentifier),
    /// An extension that is there twice.
    #[error("two extensions {0}")]
    RepeatedExtension(ObjectIdentifier),
    /// A request to become an authority.
    #[error("a request cannot ask for an authority: no CA, and no certificate or CRL signing")]
    Authority,
    /// A purpose that is not the requester's to ask for.
    #[error("the purpose {0} is not granted on request")]
    ForbiddenPurpose(ObjectIdentifier),
    /// An alternative name that is not a name we certify.
    #[error("the alternative name: {0}")]
    AlternativeName(#[source] NameError),
    /// A kind of alternative name that we do not certify, or too many.
    #[error("alternative names are DNS names, IP addresses and mail addresses, {NAMES_MAX} at most")]
    AlternativeNames,
}

/// A request that is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub subject: Name,
    /// The SubjectPublicKeyInfo, in DER.
    pub public_key: Vec<u8>,
    /// DNS names asked for, in small letters.
    pub dns: Vec<String>,
    /// Addresses asked for.
    pub ips: Vec<IpAddr>,
    /// Mail addresses asked for.
    pub mail: Vec<String>,
    /// Purposes asked for.
    pub purposes: Vec<ObjectIdentifier>,
}

impl Request {
    /// Reads a CertificationRequest, in DER.
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        let raw = Raw::from_der(der)?;
        let info = Info::from_der(raw.info.0)?;
        if info.version != 0 {
            return Err(RequestError::Version(info.version));
        }
        // The cheap checks first: a signature is verified only under a key worth certifying.
        check_name(info.subject.0).map_err(RequestError::Subject)?;
        check_public_key(info.public_key.0)?;
        let mut request = Self {
            subject: Name::from_der(info.subject.0)?,
            public_key: info.public_key.0.to_vec(),
            dns: Vec::new(),
            ips: Vec::new(),
            mail: Vec::new(),
            purposes: Vec::new(),
        };
        request.read_wishes(&extensions(info.attributes.unwrap_or(Members(&[])))?)?;
        if request.subject.is_empty() && request.dns.is_empty() && request.ips.is_empty() {
            return Err(RequestError::NoSubject);
        }
        let algorithm = algorithm_of(raw.algorithm);
        signed::verify(algorithm, info.public_key.0, raw.info.0, raw.signature.as_bytes())?;
        Ok(request)
    }

    fn read_wishes(&mut self, extensions: &[Extension]) -> Result<(), RequestError> {
        for (at, extension) in extensions.iter().enumerate() {
            let oid = extension.extn_id;
            if extensions[..at].iter().any(|other| other.extn_id == oid) {
                return Err(RequestError::RepeatedExtension(oid));
            }
            self.read_wish(oid, extension.extn_value.as_bytes())?;
        }
        Ok(())
    }

    fn read_wish(&mut self, oid: ObjectIdentifier, value: &[u8]) -> Result<(), RequestError> {
        match oid {
            BasicConstraints::OID if BasicConstraints::from_der(value)?.ca => Err(RequestError::Authority),
            KeyUsage::OID => check_usage(&KeyUsage::from_der(value)?),
            ExtendedKeyUsage::OID => {
                self.purposes = purposes(ExtendedKeyUsage::from_der(value)?)?;
                Ok(())
            }
            SubjectAltName::OID => self.read_names(SubjectAltName::from_der(value)?),
            // We compute the identifier ourselves; and whoever asks to be no authority is not one anyhow.
            SubjectKeyIdentifier::OID | BasicConstraints::OID => Ok(()),
            other => Err(RequestError::ForbiddenExtension(other)),
        }
    }

    fn read_names(&mut self, SubjectAltName(names): SubjectAltName) -> Result<(), RequestError> {
        if names.len() > NAMES_MAX {
            return Err(RequestError::AlternativeNames);
        }
        for name in names {
            match name {
                GeneralName::DnsName(name) => {
                    check_dns_name(name.as_str()).map_err(RequestError::AlternativeName)?;
                    self.dns.push(name.as_str().to_ascii_lowercase());
                }
                GeneralName::IpAddress(bytes) => {
                    self.ips
                        .push(address(bytes.as_bytes()).ok_or(RequestError::AlternativeNames)?);
                }
                GeneralName::Rfc822Name(name) => {
                    check_mail(name.as_str()).map_err(RequestError::AlternativeName)?;
                    self.mail.push(name.as_str().to_owned());
                }
                _ => return Err(RequestError::AlternativeNames),
            }
        }
        Ok(())
    }
}

fn extensions(attributes: Members<'_>) -> Result<Vec<Extension>, RequestError> {
    let elements = attributes
        .elements(ATTRIBUTES_MAX)
        .map_err(|_| RequestError::Attributes)?;
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for element in elements {
        let Attribute { kind, values } = Attribute::from_der(element.0)?;
        if seen.contains(&kind) {
            return Err(RequestError::Attributes);
        }
        seen.push(kind);
        match kind {
            EXTENSION_REQUEST => found = Vec::<Extension>::from_der(values.0)?,
            // Many tools write one. It is a secret between others, and not looked at.
            CHALLENGE_PASSWORD => {}
            other => return Err(RequestError::ForbiddenAttribute(other)),
        }
    }
    Ok(found)
}

fn check_usage(usage: &KeyUsage) -> Result<(), RequestError> {
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(RequestError::Authority);
    }
    Ok(())
}

fn purposes(ExtendedKeyUsage(all): ExtendedKeyUsage) -> Result<Vec<ObjectIdentifier>, RequestError> {
    match all.iter().find(|purpose| !GRANTABLE.contains(purpose)) {
        Some(purpose) => Err(RequestError::ForbiddenPurpose(*purpose)),
        None => Ok(all),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).into());
    v4.or(v6).ok()
}

/// local@domain in plain ASCII.
fn check_mail(text: &str) -> Result<(), NameError> {
    let wrong = || NameError::Text(text.to_owned());
    let (local, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !br#"@"(),:;<>[\]"#.contains(&byte);
    if local.is_empty() || text.len() > MAIL_BYTES_MAX || !local.bytes().all(plain) || domain.starts_with('*')
    {
        return Err(wrong());
    }
    check_dns_name(domain)
}
