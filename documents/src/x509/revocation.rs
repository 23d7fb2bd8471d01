//! Whether the certificates of a path are revoked, by lists that were fetched before (RFC 5280 6.3) and OCSP
//! responses.

use const_oid::db::rfc6960::ID_PKIX_OCSP_NOCHECK;
use der::Encode;
use der::flagset::FlagSet;
use protocol::clock::UnixMillis;
use x509_cert::ext::pkix::crl::dp::{DistributionPoint, Reasons};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints, CrlDistributionPoints};
use x509_cert::name::RelativeDistinguishedName;

use super::name::names_match;
use super::{Certificate, ReadError};
use crate::crl::{Crl, Entry, Idp, Reason};
use crate::ocsp::{Response, Status};

/// What is known of revocations. Of every certificate below the anchor it must say whether it is good.
#[derive(Clone, Copy)]
pub struct Revocation<'a> {
    /// Revocation lists, full and delta.
    pub lists: &'a [Crl<'a>],
    /// OCSP responses.
    pub responses: &'a [Response<'a>],
    /// When lists and responses must be current: now, even for a signature made long ago.
    pub now: UnixMillis,
}

/// What is found out about one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Good,
    Revoked(UnixMillis, Reason),
    Unknown,
}

/// Who may have signed a list: gives the first certificate under which `crl` verifies and which leads to an
/// anchor.
pub(super) trait ListSigners {
    fn accepts(&mut self, crl: &Crl<'_>) -> bool;
}

/// All reasons but `unused` and the two that are not of this kind of certificate: what a list must cover.
fn all_reasons() -> FlagSet<Reasons> {
    FlagSet::<Reasons>::full() - Reasons::Unused
}

impl Revocation<'_> {
    /// How `certificate`, issued by `issuer`, stands.
    pub(super) fn look_up(
        &self,
        certificate: &Certificate<'_>,
        issuer: &Certificate<'_>,
        signers: &mut dyn ListSigners,
    ) -> Result<Found, ReadError> {
        let mut all = certificate.extensions().iter();
        if all.any(|extension| extension.extn_id == ID_PKIX_OCSP_NOCHECK) {
            return Ok(Found::Good);
        }
        for response in self.responses {
            match response.status_of(issuer.der(), certificate.serial(), self.now) {
                Ok(Status::Good) => return Ok(Found::Good),
                Ok(Status::Revoked { at, reason }) => return Ok(Found::Revoked(at, reason)),
                // One that is about others, or does not hold, says nothing.
                Ok(Status::Unknown) | Err(_) => {}
            }
        }
        self.in_lists(certificate, signers)
    }

    /// RFC 5280 6.3.3: point after point, until every reason is covered.
    fn in_lists(
        &self,
        certificate: &Certificate<'_>,
        signers: &mut dyn ListSigners,
    ) -> Result<Found, ReadError> {
        let points = certificate.extension::<CrlDistributionPoints>()?;
        let mut points = points.map_or(Vec::new(), |CrlDistributionPoints(points)| points);
        // At last whatever the issuer published elsewhere.
        points.push(DistributionPoint {
            distribution_point: None,
            reasons: None,
            crl_issuer: None,
        });
        let subject = Subject {
            certificate,
            is_authority: certificate
                .extension::<BasicConstraints>()?
                .is_some_and(|constraints| constraints.ca),
        };
        let mut covered = FlagSet::<Reasons>::default();
        for point in &points {
            for list in self.lists.iter().filter(|list| list.base_number().is_none()) {
                let reasons = subject.reasons(point, list);
                if (reasons - covered).is_empty() || !list.is_current(self.now) || !signers.accepts(list) {
                    continue;
                }
                if let Some((at, reason)) = self.entry(&subject, list, signers) {
                    return Ok(Found::Revoked(at, reason));
                }
                covered |= reasons;
                if covered.contains(all_reasons()) {
                    return Ok(Found::Good);
                }
            }
        }
        Ok(Found::Unknown)
    }

    /// The certificate's entry in the newest delta to `list`, else in the list itself.
    fn entry(
        &self,
        subject: &Subject<'_, '_>,
        list: &Crl<'_>,
        signers: &mut dyn ListSigners,
    ) -> Option<(UnixMillis, Reason)> {
        let mut deltas: Vec<_> = self
            .lists
            .iter()
            .filter(|delta| is_delta_to(delta, list))
            .collect();
        deltas.sort_by_key(|delta| padded(delta.number()));
        let newest = deltas
            .into_iter()
            .rev()
            .find(|delta| delta.is_current(self.now) && signers.accepts(delta));
        let found = newest
            .and_then(|delta| subject.on(delta))
            .or_else(|| subject.on(list))?;
        (found.reason != Reason::RemoveFromCrl).then_some((found.at, found.reason))
    }
}

/// A number of at most 20 bytes, so that numbers of different lengths compare.
fn padded(number: Option<&[u8]>) -> Vec<u8> {
    let number = number.unwrap_or_default();
    let mut bytes = vec![0; 20_usize.saturating_sub(number.len())];
    bytes.extend_from_slice(number);
    bytes
}

/// RFC 5280 5.2.4: the same issuer, scope and key; based on this list or an older one; newer than it.
fn is_delta_to(delta: &Crl<'_>, list: &Crl<'_>) -> bool {
    let Some(base) = delta.base_number() else {
        return false;
    };
    names_match(delta.issuer().0, list.issuer().0)
        && delta.idp() == list.idp()
        && delta.key_identifier() == list.key_identifier()
        && padded(Some(base)) <= padded(list.number())
        && padded(delta.number()) > padded(list.number())
}

struct Subject<'s, 'a> {
    certificate: &'s Certificate<'a>,
    is_authority: bool,
}

impl Subject<'_, '_> {
    fn on<'l>(&self, list: &'l Crl<'_>) -> Option<&'l Entry<'l>> {
        let issuer = Some(self.certificate.issuer().0);
        list.find_of(self.certificate.serial(), issuer)
    }

    /// For which reasons `list` speaks of this certificate under `point`; none if it does not (6.3.3 b, d).
    fn reasons(&self, point: &DistributionPoint, list: &Crl<'_>) -> FlagSet<Reasons> {
        let none = FlagSet::<Reasons>::default();
        let indirect = list.idp().is_some_and(|idp| idp.indirect_crl);
        let by_issuer = match &point.crl_issuer {
            None => names_match(list.issuer().0, self.certificate.issuer().0),
            Some(names) => indirect && names.iter().any(|name| is_directory(name, list.issuer().0)),
        };
        if !by_issuer || !list.idp().is_none_or(|idp| self.is_in_scope(point, idp, list)) {
            return none;
        }
        let of_point = point.reasons.unwrap_or_else(all_reasons);
        let of_list = list.idp().and_then(|idp| idp.only_some_reasons);
        of_point & of_list.unwrap_or_else(all_reasons) & all_reasons()
    }

    fn is_in_scope(&self, point: &DistributionPoint, idp: &Idp, list: &Crl<'_>) -> bool {
        if (idp.only_contains_user_certs && self.is_authority)
            || (idp.only_contains_ca_certs && !self.is_authority)
            || idp.only_contains_attribute_certs
        {
            return false;
        }
        let Some(of_list) = &idp.distribution_point else {
            return true;
        };
        let of_list = full_names(of_list, list.issuer().0);
        let of_point = match (&point.distribution_point, &point.crl_issuer) {
            (Some(name), issuers) => {
                let directory = issuers
                    .as_ref()
                    .and_then(|names| names.iter().find_map(directory_of));
                full_names(name, directory.as_deref().unwrap_or(self.certificate.issuer().0))
            }
            (None, Some(issuers)) => issuers.clone(),
            (None, None) => vec![],
        };
        of_point
            .iter()
            .any(|name| of_list.iter().any(|other| same_name(name, other)))
    }
}

/// The names of a distribution point, a relative one completed under `issuer` (4.2.1.13).
fn full_names(name: &DistributionPointName, issuer: &[u8]) -> Vec<GeneralName> {
    match name {
        DistributionPointName::FullName(names) => names.clone(),
        DistributionPointName::NameRelativeToCRLIssuer(rdn) => under(issuer, rdn)
            .map(GeneralName::DirectoryName)
            .into_iter()
            .collect(),
    }
}

fn under(issuer: &[u8], rdn: &RelativeDistinguishedName) -> Option<x509_cert::name::Name> {
    use crate::element::{Body, element, tag};
    use der::Decode;
    let body = Body::from_der(issuer).ok()?;
    let name = element(tag::SEQUENCE, &[body.0, &rdn.to_der().ok()?]);
    x509_cert::name::Name::from_der(&name).ok()
}

fn directory_of(name: &GeneralName) -> Option<Vec<u8>> {
    match name {
        GeneralName::DirectoryName(name) => name.to_der().ok(),
        _ => None,
    }
}

fn is_directory(name: &GeneralName, der: &[u8]) -> bool {
    directory_of(name).is_some_and(|name| names_match(&name, der))
}

fn same_name(a: &GeneralName, b: &GeneralName) -> bool {
    match (directory_of(a), directory_of(b)) {
        (Some(a), Some(b)) => names_match(&a, &b),
        _ => a == b,
    }
}
