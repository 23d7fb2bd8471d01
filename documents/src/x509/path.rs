//! From a certificate to whoever answers for it (RFC 5280 6).
//!
//! What is checked: signatures over the bytes received, names, basic constraints with path lengths, key
//! usage, extended key usage, validity, policies and name constraints, and that no critical extension goes
//! unheeded; revocation where lists and OCSP responses are given.

use std::collections::BTreeSet;

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{
    ANY_EXTENDED_KEY_USAGE, ID_CE_CERTIFICATE_POLICIES, ID_CE_CRL_DISTRIBUTION_POINTS,
};
use protocol::algorithm::{Algorithm, InputKind};
use protocol::clock::UnixMillis;
use protocol::verify::PublicKey;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};

use super::constraints::{self, Constraints};
use super::policy::{self, NoPolicy, Policies, PolicyRules};
use super::revocation::{Found, ListSigners, Revocation};
use super::{Certificate, Name, ReadError, names_match};
use crate::crl::{Crl, Reason};
use crate::time;

/// Critical extensions that are understood by themselves. Certificate policies are among them because between
/// two certificates no policy is demanded, and then every policy is accepted (RFC 5280 6.1.1 (c), any-policy).
const UNDERSTOOD: [ObjectIdentifier; 5] = [
    BasicConstraints::OID,
    KeyUsage::OID,
    ExtendedKeyUsage::OID,
    SubjectAltName::OID,
    ID_CE_CERTIFICATE_POLICIES,
];

/// Most signatures that are verified for one path: an attacker's mesh of certificates cannot ask for more.
const SIGNATURES_MAX: usize = 64;
/// Longest path, the anchor not counted.
const PATH_MAX: usize = 12;
/// How often the signer of a list may need a list whose signer needs a list.
const LIST_SIGNERS_MAX: usize = 3;

/// Why a certificate is not accepted under another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A certificate that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The issuer's name in the certificate is not the subject of the other.
    #[error("issued under another name than the issuer's")]
    IssuerName,
    /// The issuer is not an authority, or may not have so many below it (RFC 5280 4.2.1.9, 4.2.1.3).
    #[error("issued by a certificate that may not issue it")]
    NotAnAuthority,
    /// A signature algorithm that is none of ours, or that the issuer's key cannot do.
    #[error("signed with an algorithm or key that is not supported")]
    UnsupportedAlgorithm,
    /// The signature is not the issuer's over this certificate.
    #[error("the issuer's signature does not verify")]
    BadSignature,
    /// A critical extension that is not understood (RFC 5280 4.2).
    #[error("a critical extension that is not understood: {0}")]
    CriticalExtension(ObjectIdentifier),
    /// Outside its validity at the time that counts.
    #[error("the certificate of '{subject}' was not valid at that time")]
    NotValidThen {
        /// Whose certificate.
        subject: String,
    },
    /// Extended key usages that exclude this use (RFC 5280 4.2.1.12).
    #[error("a certificate whose extended key usage is another")]
    Purpose,
    /// A policy that nobody accepts, or a mapping that is not allowed (RFC 5280 6.1.5).
    #[error("a path that is valid for no acceptable policy")]
    Policy,
    /// A name that an authority above may not certify (RFC 5280 4.2.1.10).
    #[error("the certificate of '{subject}' holds a name that its authorities may not certify")]
    NameConstraints {
        /// Whose certificate.
        subject: String,
    },
    /// Revoked by then.
    #[error("the certificate of '{subject}' was revoked ({})", reason.name())]
    Revoked {
        /// Whose certificate.
        subject: String,
        /// Since when.
        at: UnixMillis,
        /// Why.
        reason: Reason,
    },
    /// Neither a list nor a response that is current says how it stands.
    #[error("it cannot be told whether the certificate of '{subject}' is revoked")]
    RevocationUnknown {
        /// Whose certificate.
        subject: String,
    },
    /// More certificates than anybody needs.
    #[error("too many certificates to look for a path")]
    TooComplex,
    /// The path ends before it reaches a trust anchor.
    #[error("no path to a trust anchor")]
    NoTrustAnchor,
}

/// Checks that `certificate` was issued by the holder of `issuer`: its signature over the bytes received, the
/// names (RFC 5280 7.1), and that `issuer` may issue certificates.
/// Validity is a matter of time and not checked here.
pub fn verify_issued_by(certificate: &[u8], issuer: &[u8]) -> Result<(), PathError> {
    let certificate = Certificate::parse(certificate)?;
    let issuer = Certificate::parse(issuer)?;
    check_critical_extensions(&certificate, &UNDERSTOOD)?;
    check_critical_extensions(&issuer, &UNDERSTOOD)?;
    check_issuer(&certificate, &issuer, 0)
}

/// What a path has to satisfy.
#[derive(Clone)]
pub struct PathRules<'r> {
    /// When every certificate must be valid.
    pub at: UnixMillis,
    /// The purposes of which one must be allowed (RFC 5280 4.2.1.12); empty: any.
    pub purposes: &'r [ObjectIdentifier],
    /// Which policies are acceptable.
    pub policies: PolicyRules,
    /// What is known of revocations; `None`: they are not looked at.
    pub revocation: Option<Revocation<'r>>,
}

/// A path that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidPath {
    /// The certificates, in DER, from the leaf to the anchor.
    pub certificates: Vec<Vec<u8>>,
    /// The acceptable policies it is valid for; any-policy stands for all.
    pub policies: Vec<ObjectIdentifier>,
}

/// Looks for a path from `leaf` through `others` to one of `anchors` that satisfies `rules`. All are
/// certificates in DER; those among `others` that cannot be read are left out.
pub fn validate_path(
    leaf: &[u8],
    others: &[impl AsRef<[u8]>],
    anchors: &[impl AsRef<[u8]>],
    rules: &PathRules<'_>,
) -> Result<ValidPath, PathError> {
    let leaf = Certificate::parse(leaf)?;
    let others: Vec<_> = others
        .iter()
        .filter_map(|other| Certificate::parse(other.as_ref()).ok())
        .collect();
    let anchors: Vec<_> = anchors
        .iter()
        .map(|anchor| Certificate::parse(anchor.as_ref()))
        .collect::<Result<_, _>>()?;
    let others: Vec<_> = others.iter().collect();
    let (path, policies) = Search::new(&others, &anchors, rules).from(&leaf)?;
    Ok(ValidPath {
        certificates: path
            .iter()
            .map(|certificate| certificate.der().to_vec())
            .collect(),
        policies: policies.into_iter().collect(),
    })
}

/// The same for certificates that have been read, without revocation and with every policy accepted.
pub(crate) fn verify_path<'p, 'a>(
    leaf: &'p Certificate<'a>,
    others: Vec<&'p Certificate<'a>>,
    anchors: &'p [Certificate<'a>],
    at: UnixMillis,
    purposes: &[ObjectIdentifier],
) -> Result<(), PathError> {
    let rules = PathRules {
        at,
        purposes,
        policies: PolicyRules::default(),
        revocation: None,
    };
    Search::new(&others, anchors, &rules).from(leaf).map(|_| ())
}

type Path<'p, 'a> = Vec<&'p Certificate<'a>>;

/// Depth first, each certificate once in a path.
struct Search<'s, 'p, 'a> {
    others: &'s [&'p Certificate<'a>],
    anchors: &'p [Certificate<'a>],
    rules: &'s PathRules<'s>,
    signatures: usize,
    /// Why the first way that looked good did not lead there.
    fault: Option<PathError>,
    /// Whose lists are being looked into: a list may say how its own signer stands.
    signers: Vec<&'p [u8]>,
}

impl<'s, 'p, 'a> Search<'s, 'p, 'a> {
    const fn new(
        others: &'s [&'p Certificate<'a>],
        anchors: &'p [Certificate<'a>],
        rules: &'s PathRules<'s>,
    ) -> Self {
        Self {
            others,
            anchors,
            rules,
            signatures: 0,
            fault: None,
            signers: Vec::new(),
        }
    }

    fn from(
        &mut self,
        leaf: &'p Certificate<'a>,
    ) -> Result<(Path<'p, 'a>, BTreeSet<ObjectIdentifier>), PathError> {
        check_alone(leaf, self.rules.at)?;
        check_purpose(leaf, self.rules.purposes)?;
        if self.anchors.iter().any(|anchor| anchor.der() == leaf.der()) {
            return Ok((vec![leaf], BTreeSet::new()));
        }
        let mut path = vec![leaf];
        match self.search(&mut path) {
            Some(policies) => Ok((path, policies)),
            None => Err(self.fault.take().unwrap_or(PathError::NoTrustAnchor)),
        }
    }

    /// Completes `path` to an anchor, if that can be done.
    fn search(&mut self, path: &mut Path<'p, 'a>) -> Option<BTreeSet<ObjectIdentifier>> {
        let current = *path.last()?;
        for anchor in self.anchors {
            if self.may_follow(path, anchor) {
                path.push(anchor);
                match self.walk(path) {
                    Ok(policies) => return Some(policies),
                    // What is wrong with a whole path says more than where others broke off.
                    Err(fault) => self.fault = Some(fault),
                }
                path.pop();
            }
        }
        if path.len() > PATH_MAX {
            self.note(PathError::TooComplex);
            return None;
        }
        for candidate in self.others {
            let is_used = path.iter().any(|used| used.der() == candidate.der());
            let is_anchor = self.anchors.iter().any(|anchor| anchor.der() == candidate.der());
            if !is_used && !is_anchor && current.der() != candidate.der() && self.may_follow(path, candidate)
            {
                path.push(candidate);
                if let Some(policies) = self.search(path) {
                    return Some(policies);
                }
                path.pop();
            }
        }
        None
    }

    fn note(&mut self, fault: PathError) {
        self.fault.get_or_insert(fault);
    }

    /// Whether `issuer` issued the last of `path` and may be there.
    fn may_follow(&mut self, path: &[&Certificate<'a>], issuer: &Certificate<'a>) -> bool {
        let Some(current) = path.last() else { return false };
        if !names_match(current.issuer().0, issuer.subject().0) {
            return false;
        }
        self.signatures += 1;
        if self.signatures > SIGNATURES_MAX {
            self.fault = Some(PathError::TooComplex);
            return false;
        }
        let between = path.iter().skip(1);
        let authorities_below = between
            .filter(|certificate| !certificate.is_self_issued())
            .count();
        let checked = check_issuer(current, issuer, authorities_below)
            .and_then(|()| check_alone(issuer, self.rules.at))
            .and_then(|()| {
                let is_anchor = self.anchors.iter().any(|anchor| anchor.der() == issuer.der());
                if is_anchor {
                    Ok(())
                } else {
                    check_purpose(issuer, self.rules.purposes)
                }
            });
        checked.map_err(|fault| self.note(fault)).is_ok()
    }

    /// From the anchor down to the leaf: policies, names, revocation.
    fn walk(&mut self, path: &[&'p Certificate<'a>]) -> Result<BTreeSet<ObjectIdentifier>, PathError> {
        let Some((anchor, below)) = path.split_last() else {
            return Err(PathError::NoTrustAnchor);
        };
        let mut policies = Policies::new(&self.rules.policies, below.len());
        let mut names = Constraints::default();
        names.add(anchor).map_err(|fault| name_fault(fault, anchor))?;
        for (at, certificate) in below.iter().enumerate().rev() {
            policies.step(certificate, at == 0)?;
            names
                .step(certificate, at == 0)
                .map_err(|fault| name_fault(fault, certificate))?;
        }
        let valid = policies.outcome().map_err(|NoPolicy| PathError::Policy)?;
        for pair in path.windows(2).rev() {
            self.check_revocation(pair[0], pair[1])?;
        }
        Ok(valid)
    }

    fn check_revocation(
        &mut self,
        certificate: &'p Certificate<'a>,
        issuer: &'p Certificate<'a>,
    ) -> Result<(), PathError> {
        let Some(revocation) = self.rules.revocation else {
            return Ok(());
        };
        let mut signers = SignersOf { issuer, search: self };
        match revocation.look_up(certificate, issuer, &mut signers)? {
            Found::Good => Ok(()),
            // Revoked later than the time that counts.
            Found::Revoked(at, _) if at.seconds() > self.rules.at.seconds() => Ok(()),
            Found::Revoked(at, reason) => Err(PathError::Revoked {
                subject: subject_of(certificate),
                at,
                reason,
            }),
            Found::Unknown => Err(PathError::RevocationUnknown {
                subject: subject_of(certificate),
            }),
        }
    }
}

/// The issuer of a certificate, and whoever else leads to an anchor.
struct SignersOf<'w, 's, 'p, 'a> {
    issuer: &'p Certificate<'a>,
    search: &'w mut Search<'s, 'p, 'a>,
}

impl ListSigners for SignersOf<'_, '_, '_, '_> {
    fn accepts(&mut self, list: &Crl<'_>) -> bool {
        if list.verify_by(self.issuer).is_ok() {
            return true;
        }
        if self.search.signers.len() == LIST_SIGNERS_MAX {
            return false;
        }
        let anchors = self.search.anchors.iter();
        if anchors.into_iter().any(|anchor| list.verify_by(anchor).is_ok()) {
            return true;
        }
        let candidates = self.search.others.iter().copied();
        let named = candidates.filter(|other| names_match(other.subject().0, list.issuer().0));
        for signer in named.take(LIST_SIGNERS_MAX) {
            if list.verify_by(signer).is_ok() && self.leads_to_anchor(signer) {
                return true;
            }
        }
        false
    }
}

impl<'p, 'a> SignersOf<'_, '_, 'p, 'a> {
    /// RFC 5280 6.3.3 (f): by a path of its own, revocation included.
    fn leads_to_anchor(&mut self, signer: &'p Certificate<'a>) -> bool {
        if self.search.signers.contains(&signer.der()) {
            return true;
        }
        let rules = PathRules {
            purposes: &[],
            policies: PolicyRules::default(),
            ..self.search.rules.clone()
        };
        let mut signers = self.search.signers.clone();
        signers.push(signer.der());
        let mut search = Search {
            signatures: self.search.signatures,
            signers,
            ..Search::new(self.search.others, self.search.anchors, &rules)
        };
        let found = search.from(signer).is_ok();
        self.search.signatures = search.signatures;
        found
    }
}

impl From<policy::Fault> for PathError {
    fn from(fault: policy::Fault) -> Self {
        match fault {
            policy::Fault::Unreadable(error) => error.into(),
            policy::Fault::NoPolicy => Self::Policy,
        }
    }
}

fn name_fault(fault: constraints::Fault, certificate: &Certificate<'_>) -> PathError {
    match fault {
        constraints::Fault::Unreadable(error) => error.into(),
        constraints::Fault::Name => PathError::NameConstraints {
            subject: subject_of(certificate),
        },
    }
}

/// The subject, as RFC 4514 writes names; empty where it cannot be read.
fn subject_of(certificate: &Certificate<'_>) -> String {
    Name::from_der(certificate.subject().0).map_or(String::new(), |name| name.to_string())
}

/// The cheap checks first: a signature is verified only under a certificate that may have made it.
fn check_issuer(
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
    authorities_below: usize,
) -> Result<(), PathError> {
    if !names_match(certificate.issuer().0, issuer.subject().0) {
        return Err(PathError::IssuerName);
    }
    if !may_issue(issuer, authorities_below)? {
        return Err(PathError::NotAnAuthority);
    }
    check_signature(certificate, issuer.public_key())
}

/// RFC 5280 6.1.4 (k) to (n).
fn may_issue(issuer: &Certificate<'_>, authorities_below: usize) -> Result<bool, ReadError> {
    let Some(constraints) = issuer.extension::<BasicConstraints>()? else {
        return Ok(false);
    };
    let usage = issuer.extension::<KeyUsage>()?;
    let fits = constraints
        .path_len_constraint
        .is_none_or(|most| authorities_below <= usize::from(most));
    Ok(constraints.ca && fits && usage.is_none_or(|usage| usage.key_cert_sign()))
}

fn check_signature(certificate: &Certificate<'_>, issuer_key: &[u8]) -> Result<(), PathError> {
    let algorithm = certificate
        .signature_algorithm()
        .ok_or(PathError::UnsupportedAlgorithm)?;
    let key = PublicKey::from_spki(issuer_key).map_err(|_| PathError::UnsupportedAlgorithm)?;
    if !key.kind().algorithms().contains(&algorithm) {
        return Err(PathError::UnsupportedAlgorithm);
    }
    let signature = certificate.signature().ok_or(PathError::BadSignature)?;
    verify(&key, algorithm, certificate.signed_bytes(), signature)
}

fn verify(key: &PublicKey, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Result<(), PathError> {
    let verified = match algorithm.input() {
        InputKind::Digest(hash) => key.verify(algorithm, &hash.digest(signed), signature),
        // SM2 comes here too: the key hashes the message itself, with the default user id (GB/T 20518 asks
        // for it).
        InputKind::Message(_) => key.verify(algorithm, signed, signature),
    };
    verified.map_err(|_| PathError::BadSignature)
}

/// What can be said of a certificate without its neighbours.
fn check_alone(certificate: &Certificate<'_>, at: UnixMillis) -> Result<(), PathError> {
    let along_paths = [NameConstraints::OID, ID_CE_CRL_DISTRIBUTION_POINTS];
    let understood = [&UNDERSTOOD[..], &along_paths, &policy::UNDERSTOOD].concat();
    check_critical_extensions(certificate, &understood)?;
    if time::is_within(certificate.validity(), at) {
        return Ok(());
    }
    Err(PathError::NotValidThen {
        subject: subject_of(certificate),
    })
}

fn check_critical_extensions(
    certificate: &Certificate<'_>,
    understood: &[ObjectIdentifier],
) -> Result<(), PathError> {
    let mut critical = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.critical);
    match critical.find(|extension| !understood.contains(&extension.extn_id)) {
        Some(extension) => Err(PathError::CriticalExtension(extension.extn_id)),
        None => Ok(()),
    }
}

fn check_purpose(certificate: &Certificate<'_>, purposes: &[ObjectIdentifier]) -> Result<(), PathError> {
    let Some(ExtendedKeyUsage(allowed)) = certificate.extension::<ExtendedKeyUsage>()? else {
        return Ok(());
    };
    if allowed
        .iter()
        .any(|usage| *usage == ANY_EXTENDED_KEY_USAGE || purposes.contains(usage))
        || purposes.is_empty()
    {
        return Ok(());
    }
    Err(PathError::Purpose)
}
