//! Distinguished names (X.501; RFC 5280 4.1.2.4).

use std::fmt;
use std::str::FromStr;

use const_oid::db::rfc4519;
use der::asn1::{Ia5String, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::{Any, Decode, Encode, Tag, Tagged};
use spki::ObjectIdentifier;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

use super::script;

/// Longest text of an attribute, in characters, where the table below says nothing else (RFC 5280 A.1:
/// ub-common-name, ub-organization-name, ub-organizational-unit-name, ub-title, ub-serial-number).
const TEXT_CHARACTERS_MAX: usize = 64;
/// Most attributes in a name that we certify.
const ATTRIBUTES_MAX: usize = 16;

/// The other upper bounds of RFC 5280 A.1.
const BOUNDS: [(ObjectIdentifier, usize); 7] = [
    (rfc4519::L, 128),
    (rfc4519::ST, 128),
    (rfc4519::STREET, 128),
    (rfc4519::NAME, 128),
    (rfc4519::SN, 128),
    (rfc4519::GIVEN_NAME, 128),
    (EMAIL_ADDRESS, 255),
];

/// emailAddress (PKCS #9, RFC 2985 5.2.1).
pub(crate) const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

/// Why a name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an RFC 4514 string.
    #[error("'{0}' is not a distinguished name in the form of RFC 4514, such as CN=Li Lei,O=Example,C=CN")]
    Syntax(String),
    /// A country that is not two capital letters.
    #[error("'{0}' is not a country code of two capital letters")]
    Country(String),
    /// A text that is empty, too long, or not of the characters its kind of string allows.
    #[error("'{0}' is empty, longer than its attribute may be, or not text its attribute can hold")]
    Text(String),
    /// Characters that are not seen, turn the text around, or come from scripts that are not written
    /// together.
    #[error("'{}' holds characters that are invisible, or of scripts that are not written together", .0.escape_default())]
    Deceptive(String),
    /// More attributes than a name needs.
    #[error("a name of more than {ATTRIBUTES_MAX} attributes")]
    TooManyAttributes,
    /// Not a name in DER.
    #[error("not a distinguished name in DER")]
    Malformed,
    /// Not a DNS name (RFC 1034 3.5, RFC 5890).
    #[error("'{0}' is not a DNS name; names in other scripts are written as xn--...")]
    Dns(String),
}

/// A distinguished name. A name taken from a certificate keeps the bytes it has there, because names are
/// compared by their bytes when certificates are chained.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    der: Vec<u8>,
    parsed: RdnSequence,
}

/// The three attributes our own certificates use. Names that come from customers are put here, never pasted
/// into an RFC 4514 string, where a comma would start another attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameParts<'a> {
    /// Two capital letters (ISO 3166-1).
    pub country: Option<&'a str>,
    /// The organization.
    pub organization: Option<&'a str>,
    /// The common name.
    pub common_name: Option<&'a str>,
}

impl Name {
    /// The name as DER.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// Whether there is no attribute at all.
    pub fn is_empty(&self) -> bool {
        self.parsed.is_empty()
    }

    pub(crate) fn from_der(der: &[u8]) -> der::Result<Self> {
        Ok(Self {
            der: der.to_vec(),
            parsed: RdnSequence::from_der(der)?,
        })
    }

    fn checked(parsed: RdnSequence) -> Result<Self, NameError> {
        check(&parsed)?;
        let der = parsed
            .to_der()
            .map_err(|_| NameError::Syntax(parsed.to_string()))?;
        Ok(Self { der, parsed })
    }
}

impl TryFrom<NameParts<'_>> for Name {
    type Error = NameError;

    /// From the general to the particular: C, O, CN, as certificates are usually written.
    fn try_from(parts: NameParts<'_>) -> Result<Self, NameError> {
        let mut names = RdnSequence::default();
        for (oid, tag, value) in [
            (rfc4519::C, Tag::PrintableString, parts.country),
            (rfc4519::O, Tag::Utf8String, parts.organization),
            (rfc4519::CN, Tag::Utf8String, parts.common_name),
        ] {
            let Some(text) = value else { continue };
            names.push(attribute(oid, tag, text).ok_or_else(|| NameError::Text(text.to_owned()))?);
        }
        Self::checked(names)
    }
}

fn attribute(oid: ObjectIdentifier, tag: Tag, text: &str) -> Option<RelativeDistinguishedName> {
    let value = Any::new(tag, text.as_bytes()).ok()?;
    let mut attributes = SetOfVec::new();
    attributes.insert(AttributeTypeAndValue { oid, value }).ok()?;
    RelativeDistinguishedName::try_from(attributes.into_vec()).ok()
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads the string form of RFC 4514, the most particular attribute first: `CN=Li Lei,O=Example,C=CN`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        // x509-cert 0.3 takes the comma in `\\\,` for a separator, so an escaped backslash is not accepted at
        // all.
        let parsed = if text.contains(r"\\") {
            None
        } else {
            RdnSequence::from_str(text).ok()
        };
        Self::checked(parsed.ok_or_else(|| NameError::Syntax(text.to_owned()))?)
    }
}

/// What neither the string form nor the DER types see to: that each value is what its attribute allows.
fn check(names: &RdnSequence) -> Result<(), NameError> {
    let attributes = || names.iter().flat_map(RelativeDistinguishedName::iter);
    if attributes().count() > ATTRIBUTES_MAX {
        return Err(NameError::TooManyAttributes);
    }
    attributes().try_for_each(check_attribute)
}

fn check_attribute(attribute: &AttributeTypeAndValue) -> Result<(), NameError> {
    let shown = || String::from_utf8_lossy(attribute.value.value()).into_owned();
    let text = text_of(&attribute.value).ok_or_else(|| NameError::Text(shown()))?;
    if attribute.oid == rfc4519::C && !(text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase())) {
        return Err(NameError::Country(shown()));
    }
    let bound = BOUNDS.iter().find(|(oid, _)| *oid == attribute.oid);
    let most = bound.map_or(TEXT_CHARACTERS_MAX, |(_, most)| *most);
    if text.trim().is_empty() || text.chars().count() > most {
        return Err(NameError::Text(shown()));
    }
    if script::is_deceptive(text) {
        return Err(NameError::Deceptive(text.to_owned()));
    }
    Ok(())
}

/// Checks a name, in DER, as our own are checked.
pub(crate) fn check_name(der: &[u8]) -> Result<(), NameError> {
    check(&RdnSequence::from_der(der).map_err(|_| NameError::Malformed)?)
}

/// Letters, digits and hyphens, with an asterisk for the first label at most; labels in other scripts must be
/// what IDNA (UTS #46) makes of their text, and that text must not deceive.
pub(crate) fn check_dns_name(name: &str) -> Result<(), NameError> {
    let error = || NameError::Dns(name.to_owned());
    let base = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !base.split('.').all(is_label) {
        return Err(error());
    }
    let number = base
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if number || (base.len() < name.len() && !base.contains('.')) {
        return Err(error());
    }
    let (text, sound) = idna::domain_to_unicode(base);
    sound.map_err(|_| error())?;
    if text.split('.').any(script::is_deceptive) {
        return Err(NameError::Deceptive(text));
    }
    Ok(())
}

/// Whether two names, in DER, are the same by RFC 5280 7.1: letter case, runs of spaces and the kind of string
/// do not matter. Names of the same bytes are the same without being read.
pub(crate) fn names_match(a: &[u8], b: &[u8]) -> bool {
    a == b || matches!((canonical(a), canonical(b)), (Some(a), Some(b)) if a == b)
}

/// The mail addresses among the attributes of a name, in DER.
pub(crate) fn email_addresses(name: &[u8]) -> der::Result<Vec<GeneralName>> {
    let names = RdnSequence::from_der(name)?;
    let attributes = names.iter().flat_map(RelativeDistinguishedName::iter);
    let addresses = attributes.filter(|attribute| attribute.oid == EMAIL_ADDRESS);
    let text = |attribute: &AttributeTypeAndValue| {
        let text = text_of(&attribute.value).unwrap_or_default();
        Ia5String::new(text).map(GeneralName::Rfc822Name)
    };
    addresses.map(text).collect()
}

/// Each RDN as the sorted list of its attributes.
type Canonical = Vec<Vec<(ObjectIdentifier, Vec<u8>)>>;

pub(crate) fn canonical(der: &[u8]) -> Option<Canonical> {
    let names = RdnSequence::from_der(der).ok()?;
    let attribute = |attribute: &AttributeTypeAndValue| (attribute.oid, folded(&attribute.value));
    let rdn = |rdn: &RelativeDistinguishedName| {
        let mut attributes: Vec<_> = rdn.iter().map(attribute).collect();
        attributes.sort();
        attributes
    };
    Some(names.iter().map(rdn).collect())
}

fn folded(value: &Any) -> Vec<u8> {
    match text_of(value) {
        Some(text) => {
            let words: Vec<_> = text.split_whitespace().collect();
            words.join(" ").to_lowercase().into_bytes()
        }
        None => value.to_der().unwrap_or_default(),
    }
}

fn text_of(value: &Any) -> Option<&str> {
    match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok().map(|text| text.as_str()),
        Tag::PrintableString => PrintableStringRef::try_from(value).ok().map(|text| text.as_str()),
        Tag::Ia5String => der::asn1::Ia5StringRef::try_from(value)
            .ok()
            .map(|text| text.as_str()),
        _ => None,
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parsed.fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_strings_say_the_same() {
        let parts = NameParts {
            country: Some("CN"),
            organization: Some("北京示例公司"),
            common_name: Some("测试"),
        };
        let name = Name::try_from(parts).unwrap();
        assert_eq!(name.to_string(), "CN=测试,O=北京示例公司,C=CN");
        assert_eq!("CN=测试,O=北京示例公司,C=CN".parse::<Name>().unwrap(), name);
        assert_eq!(Name::from_der(name.as_der()).unwrap(), name);
        assert!(Name::try_from(NameParts::default()).unwrap().is_empty());
    }

    #[test]
    fn a_comma_in_a_part_starts_nothing() {
        let parts = NameParts {
            common_name: Some("Evil,O=Bank"),
            ..NameParts::default()
        };
        let name = Name::try_from(parts).unwrap();
        assert_eq!(name.to_string(), "CN=Evil\\,O=Bank");
        assert_eq!(name.parsed.len(), 1);
    }

    #[test]
    fn unusable_names_are_refused_with_the_part_at_fault() {
        let country = |code| {
            Name::try_from(NameParts {
                country: Some(code),
                ..NameParts::default()
            })
        };
        assert_eq!(country("China"), Err(NameError::Country("China".into())));
        assert_eq!(country("cn"), Err(NameError::Country("cn".into())));
        assert_eq!(
            country("中国"),
            Err(NameError::Text("中国".into())),
            "not a PrintableString"
        );
        let long = "x".repeat(65);
        assert_eq!(format!("CN={long}").parse::<Name>(), Err(NameError::Text(long)));
        for bad in [
            "",
            "Li Lei",
            "CN=a,,C=CN",
            "XX=a",
            "CN=\\ff",
            "CN=#0403",
            r"CN=a\\\,O=b",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
