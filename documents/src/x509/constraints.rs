//! Name constraints along a path (RFC 5280 4.2.1.10, 6.1.3 b and c, 6.1.4 g).

use std::mem::discriminant;

use der::{Decode, Encode};
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};

use super::name::{canonical, email_addresses};
use super::{Certificate, ReadError};

/// Most names and subtrees of a path that are held against one another.
const COMPARISONS_MAX: usize = 10_000;

/// What a step can fail with.
pub(super) enum Fault {
    Unreadable(ReadError),
    /// A name outside what an authority above may certify.
    Name,
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

/// The state between two certificates.
#[derive(Default)]
pub(super) struct Constraints {
    /// One list for each authority that has any; a name must be in every list that speaks of its kind.
    permitted: Vec<Vec<GeneralSubtree>>,
    excluded: Vec<GeneralSubtree>,
}

impl Constraints {
    /// One certificate, from the anchor's side.
    pub(super) fn step(&mut self, certificate: &Certificate<'_>, is_last: bool) -> Result<(), Fault> {
        if is_last || !certificate.is_self_issued() {
            self.check(certificate)?;
        }
        self.add(certificate)
    }

    /// 6.1.4 (g).
    pub(super) fn add(&mut self, certificate: &Certificate<'_>) -> Result<(), Fault> {
        let Some(constraints) = certificate.extension::<NameConstraints>()? else {
            return Ok(());
        };
        let permitted = constraints.permitted_subtrees.unwrap_or_default();
        let excluded = constraints.excluded_subtrees.unwrap_or_default();
        // minimum and maximum are not used (4.2.1.10).
        let odd = |tree: &GeneralSubtree| tree.minimum != 0 || tree.maximum.is_some();
        if permitted.iter().chain(&excluded).any(odd) {
            return Err(Fault::Name);
        }
        if !permitted.is_empty() {
            self.permitted.push(permitted);
        }
        self.excluded.extend(excluded);
        Ok(())
    }

    fn check(&self, certificate: &Certificate<'_>) -> Result<(), Fault> {
        if self.permitted.is_empty() && self.excluded.is_empty() {
            return Ok(());
        }
        let names = names(certificate)?;
        let trees = self.excluded.len() + self.permitted.iter().map(Vec::len).sum::<usize>();
        if names.len() * trees > COMPARISONS_MAX {
            return Err(Fault::Name);
        }
        if names.iter().all(|name| self.allows(name)) {
            return Ok(());
        }
        Err(Fault::Name)
    }

    fn allows(&self, name: &GeneralName) -> bool {
        let same_kind = |tree: &&GeneralSubtree| discriminant(&tree.base) == discriminant(name);
        let excluded = self.excluded.iter().filter(same_kind);
        // Where it cannot be told whether a name is inside, it is excluded and not permitted.
        if excluded
            .into_iter()
            .any(|tree| contains(&tree.base, name).unwrap_or(true))
        {
            return false;
        }
        self.permitted.iter().all(|list| {
            let mut trees = list.iter().filter(same_kind).peekable();
            trees.peek().is_none() || trees.any(|tree| contains(&tree.base, name) == Some(true))
        })
    }
}

/// The subject and its alternatives, with mail addresses in the subject where the alternatives have none.
fn names(certificate: &Certificate<'_>) -> Result<Vec<GeneralName>, ReadError> {
    let alternatives = certificate.extension::<SubjectAltName>()?;
    let mut names = alternatives.map_or(Vec::new(), |SubjectAltName(names)| names);
    let subject = x509_cert::name::Name::from_der(certificate.subject().0)?;
    if !names
        .iter()
        .any(|name| matches!(name, GeneralName::Rfc822Name(_)))
    {
        names.extend(email_addresses(certificate.subject().0)?);
    }
    if !subject.is_empty() {
        names.push(GeneralName::DirectoryName(subject));
    }
    Ok(names)
}

/// Whether `name` is inside the subtree; `None` for kinds of name that are not understood.
fn contains(base: &GeneralName, name: &GeneralName) -> Option<bool> {
    match (base, name) {
        (GeneralName::DirectoryName(base), GeneralName::DirectoryName(name)) => {
            let base = canonical(&base.to_der().ok()?)?;
            let name = canonical(&name.to_der().ok()?)?;
            Some(name.starts_with(&base))
        }
        (GeneralName::DnsName(base), GeneralName::DnsName(name)) => {
            Some(is_below(base.as_str(), name.as_str(), true))
        }
        (GeneralName::Rfc822Name(base), GeneralName::Rfc822Name(name)) => {
            mailbox_within(base.as_str(), name.as_str())
        }
        (GeneralName::UniformResourceIdentifier(base), GeneralName::UniformResourceIdentifier(name)) => {
            let host = host_of(name.as_str())?;
            Some(is_below(base.as_str(), host, false))
        }
        (GeneralName::IpAddress(base), GeneralName::IpAddress(name)) => {
            Some(is_in_network(base.as_bytes(), name.as_bytes()))
        }
        _ => None,
    }
}

/// DNS constraints hold for the name and all below it; host constraints of mail and URIs hold for the host
/// alone, or, with a leading dot, for all below it and not for itself.
fn is_below(base: &str, name: &str, with_children: bool) -> bool {
    let (base, name) = (base.to_ascii_lowercase(), name.to_ascii_lowercase());
    if base.is_empty() {
        return true;
    }
    match base.strip_prefix('.') {
        Some(_) => name.len() > base.len() && name.ends_with(&base),
        None => name == base || (with_children && name.ends_with(&format!(".{base}"))),
    }
}

fn mailbox_within(base: &str, name: &str) -> Option<bool> {
    let (local, host) = name.rsplit_once('@')?;
    Some(match base.rsplit_once('@') {
        Some((base_local, base_host)) => local == base_local && host.eq_ignore_ascii_case(base_host),
        None => is_below(base, host, false),
    })
}

/// The host of scheme://user@host:port/path; `None` where there is none, or an address (4.2.1.10).
fn host_of(uri: &str) -> Option<&str> {
    let authority = uri.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    if host.starts_with('[') {
        return None;
    }
    let host = host.split(':').next()?;
    let number = host.rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    (!host.is_empty() && !number).then_some(host)
}

/// `network` is an address and a mask.
fn is_in_network(network: &[u8], address: &[u8]) -> bool {
    if network.len() != 2 * address.len() {
        return false;
    }
    let (base, mask) = network.split_at(address.len());
    let masked = base.iter().zip(mask).zip(address);
    masked
        .into_iter()
        .all(|((base, mask), byte)| base & mask == byte & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_mailboxes_and_networks() {
        assert!(is_below("example.com", "a.Example.com", true));
        assert!(!is_below("example.com", "anexample.com", true));
        assert!(is_below(".example.com", "a.example.com", false));
        assert!(!is_below(".example.com", "example.com", false));
        assert!(!is_below("example.com", "a.example.com", false));
        assert_eq!(mailbox_within("a@example.com", "a@EXAMPLE.com"), Some(true));
        assert_eq!(mailbox_within("a@example.com", "A@example.com"), Some(false));
        assert_eq!(mailbox_within("example.com", "nobody"), None);
        assert_eq!(host_of("http://u@a.example:80/b@c"), Some("a.example"));
        for none in ["mailto:a@b", "http://192.0.2.1/", "http://[::1]/", "http:///a"] {
            assert_eq!(host_of(none), None, "{none}");
        }
        assert!(is_in_network(&[192, 0, 2, 0, 255, 255, 255, 0], &[192, 0, 2, 9]));
        assert!(!is_in_network(&[192, 0, 2, 0, 255, 255, 255, 0], &[192, 0, 3, 9]));
        assert!(!is_in_network(&[0; 8], &[0; 16]), "another family");
    }
}
