//! Where a certificate says that more can be learned, and the way from it to its root.

use const_oid::db::rfc5280::{ID_AD_CA_ISSUERS, ID_AD_OCSP};
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, CrlDistributionPoints};

use super::{Certificate, ReadError, names_match, verify_issued_by};

/// Longest way that is followed.
const STEPS_MAX: usize = 12;

/// URLs in a certificate (RFC 5280 4.2.1.13 and 4.2.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// OCSP responders.
    pub ocsp: Vec<String>,
    /// The issuer's certificate, or those that lead to it.
    pub issuers: Vec<String>,
    /// Revocation lists.
    pub lists: Vec<String>,
}

/// Where a certificate (DER) says that more can be learned.
pub fn sources(certificate: &[u8]) -> Result<Sources, ReadError> {
    let certificate = Certificate::parse(certificate)?;
    let mut sources = Sources::default();
    if let Some(AuthorityInfoAccessSyntax(access)) = certificate.extension()? {
        for description in access {
            let url = url(&description.access_location);
            match description.access_method {
                ID_AD_OCSP => sources.ocsp.extend(url),
                ID_AD_CA_ISSUERS => sources.issuers.extend(url),
                _ => {}
            }
        }
    }
    if let Some(CrlDistributionPoints(points)) = certificate.extension()? {
        sources.lists.extend(points.iter().flat_map(full_names));
    }
    Ok(sources)
}

fn url(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(url) => Some(url.to_string()),
        _ => None,
    }
}

fn full_names(point: &DistributionPoint) -> Vec<String> {
    match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => names.iter().filter_map(url).collect(),
        _ => Vec::new(),
    }
}

/// The way up from a certificate through a pool: each certificate below a root with its issuer, `None` where the pool
/// does not have it. Nothing is verified but that each issuer signed the one below it; a root alone has no way.
pub(crate) fn climb<'p>(start: &'p [u8], pool: &[&'p [u8]]) -> Vec<(&'p [u8], Option<&'p [u8]>)> {
    let mut steps = Vec::new();
    let mut current = start;
    while steps.len() < STEPS_MAX && !is_root(current) {
        let issuer = pool
            .iter()
            .copied()
            .find(|candidate| is_issuer(candidate, current));
        steps.push((current, issuer));
        match issuer {
            Some(issuer) if steps.iter().all(|(seen, _)| *seen != issuer) => current = issuer,
            _ => break,
        }
    }
    steps
}

fn is_root(certificate: &[u8]) -> bool {
    Certificate::parse(certificate).is_ok_and(|certificate| certificate.is_self_issued())
}

fn is_issuer(candidate: &[u8], certificate: &[u8]) -> bool {
    let (Ok(issuer), Ok(parsed)) = (Certificate::parse(candidate), Certificate::parse(certificate)) else {
        return false;
    };
    names_match(issuer.subject().0, parsed.issuer().0) && verify_issued_by(certificate, candidate).is_ok()
}
