//! Who is believed, and what is known of revocations: what every verification of a document needs to be told.
//!
//! [`Known`] holds it, in DER; [`Known::judge`] reads it once. Lists and responses say how certificates stood at some
//! time. They count when they were current now, or, for a signature that is proved to be older, at any time after it
//! for which the document itself keeps them (ETSI EN 319 102-1 5.6).

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_EMAIL_PROTECTION};
use protocol::clock::UnixMillis;
use serde::{Deserialize, Serialize};
use spki::ObjectIdentifier;

use crate::crl::{Crl, Reason};
use crate::ocsp::Response;
use crate::ses::{Revocation as Standing, TimeStampFault, Trust};
use crate::tsp;
use crate::x509::{
    self, Certificate, ID_KP_DOCUMENT_SIGNING, PathError, PathRules, PolicyRules, Revocation, validate_path,
};

/// Whether it has to be known how certificates stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationRule {
    /// It is not looked at.
    Ignore,
    /// Who is known to be revoked is not believed; what is not known is said.
    #[default]
    IfKnown,
    /// What is not known is not valid.
    Required,
}

/// What a verifier knows before it looks at a document; all in DER.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Certificates that are believed as they are.
    pub anchors: Vec<Vec<u8>>,
    /// Certificates between them and signers.
    pub intermediates: Vec<Vec<u8>>,
    /// Revocation lists. Those that cannot be read say nothing.
    pub crls: Vec<Vec<u8>>,
    /// OCSP responses. Those that cannot be read say nothing.
    pub ocsps: Vec<Vec<u8>>,
    /// Whether it has to be known how certificates stand.
    pub revocation: RevocationRule,
}

/// Extended key usages that may stand in certificates of sealers: mail, clients, documents (RFC 9336). They are what
/// the field has; the standards name none.
const PURPOSES: [ObjectIdentifier; 3] = [ID_KP_EMAIL_PROTECTION, ID_KP_CLIENT_AUTH, ID_KP_DOCUMENT_SIGNING];

impl Known {
    /// Whoever believes these certificates and does not look at revocations.
    pub fn anchored(anchors: &[impl AsRef<[u8]>]) -> Self {
        Self {
            anchors: anchors.iter().map(|anchor| anchor.as_ref().to_vec()).collect(),
            revocation: RevocationRule::Ignore,
            ..Self::default()
        }
    }

    /// The same after having read everything. `now` counts where no time stamp proves an earlier time.
    pub fn judge(&self, now: UnixMillis) -> Judge<'_> {
        Judge {
            known: self,
            others: self.intermediates.iter().map(Vec::as_slice).collect(),
            lists: self
                .crls
                .iter()
                .filter_map(|list| Crl::parse(list).ok())
                .collect(),
            responses: self
                .ocsps
                .iter()
                .filter_map(|response| Response::parse(response).ok())
                .collect(),
            kept_at: Vec::new(),
            now,
        }
    }
}

/// How a certificate and those above it stood at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Good,
    Revoked(UnixMillis, Reason),
    Unknown,
}

/// A [`Known`] that has been read.
pub struct Judge<'k> {
    known: &'k Known,
    others: Vec<&'k [u8]>,
    lists: Vec<Crl<'k>>,
    responses: Vec<Response<'k>>,
    /// Times for which a document keeps lists and responses.
    kept_at: Vec<UnixMillis>,
    now: UnixMillis,
}

impl<'k> Judge<'k> {
    /// Adds what a document holds for its own verification.
    pub(crate) fn add(&mut self, certificates: &'k [Vec<u8>], crls: &'k [Vec<u8>], ocsps: &'k [Vec<u8>]) {
        self.others.extend(certificates.iter().map(Vec::as_slice));
        let lists: Vec<_> = crls.iter().filter_map(|list| Crl::parse(list).ok()).collect();
        let responses: Vec<_> = ocsps
            .iter()
            .filter_map(|response| Response::parse(response).ok())
            .collect();
        // All of it was gathered at one time, when the newest of it was made.
        let made = lists
            .iter()
            .map(|list| list.updates().0)
            .chain(responses.iter().map(Response::produced_at));
        self.kept_at.extend(made.max().filter(|made| *made <= self.now));
        self.lists.extend(lists);
        self.responses.extend(responses);
    }

    /// Adds a time at which what the document holds was there, as a time stamp over it proves.
    pub(crate) fn add_time(&mut self, at: UnixMillis) {
        self.kept_at.push(at);
    }

    pub(crate) const fn now(&self) -> UnixMillis {
        self.now
    }

    pub(crate) const fn rule(&self) -> RevocationRule {
        self.known.revocation
    }

    pub(crate) fn anchors(&self) -> &'k [Vec<u8>] {
        &self.known.anchors
    }

    /// Whether the first of these certificates leads to an anchor now.
    pub fn believes(&self, chain: &[Vec<u8>]) -> bool {
        let Some((leaf, others)) = chain.split_first() else {
            return false;
        };
        let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
        self.check_path(leaf, &others, self.now, &[]).is_ok()
    }

    /// The path of a certificate to an anchor, by way of those that came with it and those that are known.
    pub(crate) fn check_path(
        &self,
        leaf: &[u8],
        enclosed: &[&[u8]],
        at: UnixMillis,
        purposes: &[ObjectIdentifier],
    ) -> Result<(), PathError> {
        let rules = PathRules {
            at,
            purposes,
            policies: PolicyRules::default(),
            revocation: None,
        };
        self.validate(leaf, enclosed, &rules)
    }

    fn validate(&self, leaf: &[u8], enclosed: &[&[u8]], rules: &PathRules<'_>) -> Result<(), PathError> {
        let others: Vec<&[u8]> = enclosed
            .iter()
            .chain(&self.others)
            .copied()
            .filter(|other| *other != leaf)
            .collect();
        validate_path(leaf, &others, &self.known.anchors, rules).map(|_| ())
    }

    /// How a certificate stood at `at`, whose path holds. What is current now counts first; of what was kept only what
    /// was current at `at` or later says something about it.
    pub(crate) fn find(&self, leaf: &[u8], enclosed: &[&[u8]], at: UnixMillis) -> Found {
        let kept = self
            .kept_at
            .iter()
            .copied()
            .chain([at])
            .filter(|kept| *kept >= at);
        for now in [self.now].into_iter().chain(kept) {
            let rules = PathRules {
                at,
                purposes: &[],
                policies: PolicyRules::default(),
                revocation: Some(Revocation {
                    lists: &self.lists,
                    responses: &self.responses,
                    now,
                }),
            };
            match self.validate(leaf, enclosed, &rules) {
                Ok(()) => return Found::Good,
                Err(PathError::Revoked { at, reason, .. }) => return Found::Revoked(at, reason),
                Err(_) => {}
            }
        }
        Found::Unknown
    }
}

impl Trust for Judge<'_> {
    fn path(&self, certificate: &[u8], at: UnixMillis) -> Result<(), PathError> {
        self.check_path(certificate, &[], at, &PURPOSES)
    }

    fn revocation(&self, certificate: &[u8], at: UnixMillis) -> Standing {
        if self.rule() == RevocationRule::Ignore {
            return Standing::Unknown;
        }
        // The last moment at which the certificate itself can be asked about: what happened after the time that counts
        // is told as well.
        let last = x509::validity(certificate).map_or(self.now, |(_, last)| last.min(self.now));
        let found = match self.find(certificate, &[], last) {
            Found::Unknown => self.find(certificate, &[], at),
            found => found,
        };
        match found {
            Found::Good => Standing::Good,
            Found::Revoked(since, _) => Standing::Since(since),
            Found::Unknown => Standing::Unknown,
        }
    }

    fn must_be_known(&self) -> bool {
        self.rule() == RevocationRule::Required
    }

    fn time_stamp(&self, token: &[u8], stamped: &[u8]) -> Result<UnixMillis, TimeStampFault> {
        match tsp::verify_token(token, &|hash| hash.digest(stamped), None, self.anchors()) {
            Ok(stamp) => Ok(stamp.time),
            Err(error) => Err(TimeStampFault::Refused(error.to_string())),
        }
    }
}

/// The certificates of a list, as slices.
pub(crate) fn slices<'a>(certificates: &[Certificate<'a>]) -> Vec<&'a [u8]> {
    certificates.iter().map(Certificate::der).collect()
}
