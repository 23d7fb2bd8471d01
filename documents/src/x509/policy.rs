//! Certificate policies along a path (RFC 5280 6.1.2 to 6.1.5).
//!
//! The standard speaks of a tree. Nodes of one depth with the same policy have the same descendants, so one node
//! for each policy and depth says the same, and a path cannot make it grow beyond the policies it names (with the
//! tree it could, CVE-2023-0464). Each node remembers under which policies of the first authorities it stands;
//! qualifiers are not kept.

use std::collections::{BTreeMap, BTreeSet};

use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{ANY_POLICY, ID_CE_INHIBIT_ANY_POLICY};
use der::Decode;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::{CertificatePolicies, PolicyConstraints, PolicyMappings};

use super::{Certificate, ReadError};

/// Most policies that are looked at in one certificate.
const POLICIES_MAX: usize = 64;

/// What is demanded of the policies of a path (RFC 5280 6.1.1 c, e, f, g).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRules {
    /// The acceptable ones; empty: any.
    pub acceptable: Vec<ObjectIdentifier>,
    /// Whether the path must be valid for one of them.
    pub required: bool,
    /// Whether authorities may not map policies.
    pub no_mapping: bool,
    /// Whether any-policy counts for nothing.
    pub no_any: bool,
}

/// A policy that is valid down to some certificate of the path.
#[derive(Clone, Default)]
struct Node {
    /// What the next certificate may call it.
    expected: BTreeSet<ObjectIdentifier>,
    /// Its names in the domain of the first authorities.
    origins: BTreeSet<ObjectIdentifier>,
}

type Level = BTreeMap<ObjectIdentifier, Node>;

/// The state between two certificates.
pub(super) struct Policies<'r> {
    rules: &'r PolicyRules,
    /// Empty: no policy is valid.
    level: Level,
    explicit: usize,
    mapping: usize,
    any: usize,
}

/// A path that is valid for no acceptable policy.
pub(super) struct NoPolicy;

/// What a step can fail with.
pub(super) enum Fault {
    Unreadable(ReadError),
    NoPolicy,
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

fn node(policy: ObjectIdentifier, origins: BTreeSet<ObjectIdentifier>) -> (ObjectIdentifier, Node) {
    let expected = [policy].into();
    (policy, Node { expected, origins })
}

impl<'r> Policies<'r> {
    /// Before the first of `length` certificates below the anchor (6.1.2).
    pub(super) fn new(rules: &'r PolicyRules, length: usize) -> Self {
        let unless = |set| if set { 0 } else { length + 1 };
        Self {
            rules,
            level: [node(ANY_POLICY, [ANY_POLICY].into())].into(),
            explicit: unless(rules.required),
            mapping: unless(rules.no_mapping),
            any: unless(rules.no_any),
        }
    }

    /// One certificate, from the anchor's side (6.1.3 d to f, 6.1.4).
    pub(super) fn step(&mut self, certificate: &Certificate<'_>, is_last: bool) -> Result<(), Fault> {
        let self_issued = certificate.is_self_issued();
        let any_counts = self.any > 0 || (!is_last && self_issued);
        let above = std::mem::take(&mut self.level);
        if let Some(CertificatePolicies(listed)) = certificate.extension()? {
            let listed: Vec<_> = listed.iter().map(|policy| policy.policy_identifier).collect();
            if listed.len() > POLICIES_MAX {
                return Err(Fault::NoPolicy);
            }
            self.level = below(&above, &listed, any_counts);
        }
        if self.explicit == 0 && self.level.is_empty() {
            return Err(Fault::NoPolicy);
        }
        if is_last {
            return Ok(self.last(certificate)?);
        }
        self.map(certificate)?;
        self.count_down(certificate, self_issued)
    }

    /// 6.1.4 (a) and (b).
    fn map(&mut self, certificate: &Certificate<'_>) -> Result<(), Fault> {
        let Some(PolicyMappings(mappings)) = certificate.extension()? else {
            return Ok(());
        };
        let mut mapped: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for mapping in mappings {
            let (from, to) = (mapping.issuer_domain_policy, mapping.subject_domain_policy);
            if from == ANY_POLICY || to == ANY_POLICY {
                return Err(Fault::NoPolicy);
            }
            mapped.entry(from).or_default().insert(to);
        }
        for (from, to) in mapped {
            if self.mapping == 0 {
                self.level.remove(&from);
            } else if let Some(node) = self.level.get_mut(&from) {
                node.expected = to;
            } else if self.level.contains_key(&ANY_POLICY) {
                let origins = [from].into();
                self.level.insert(
                    from,
                    Node {
                        expected: to,
                        origins,
                    },
                );
            }
        }
        Ok(())
    }

    /// 6.1.4 (h) to (j).
    fn count_down(&mut self, certificate: &Certificate<'_>, self_issued: bool) -> Result<(), Fault> {
        if !self_issued {
            for counter in [&mut self.explicit, &mut self.mapping, &mut self.any] {
                *counter = counter.saturating_sub(1);
            }
        }
        let lower = |counter: &mut usize, limit: Option<u32>| {
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            *counter = limit.map_or(*counter, |limit| limit.min(*counter));
        };
        if let Some(constraints) = certificate.extension::<PolicyConstraints>()? {
            lower(&mut self.explicit, constraints.require_explicit_policy);
            lower(&mut self.mapping, constraints.inhibit_policy_mapping);
        }
        lower(&mut self.any, inhibit_any(certificate)?);
        Ok(())
    }

    /// 6.1.5 (a) and (b).
    fn last(&mut self, certificate: &Certificate<'_>) -> Result<(), ReadError> {
        self.explicit = self.explicit.saturating_sub(1);
        let constraints = certificate.extension::<PolicyConstraints>()?;
        if constraints.is_some_and(|constraints| constraints.require_explicit_policy == Some(0)) {
            self.explicit = 0;
        }
        Ok(())
    }

    /// The acceptable policies the path is valid for (6.1.5 g); `any-policy` stands for all.
    pub(super) fn outcome(self) -> Result<BTreeSet<ObjectIdentifier>, NoPolicy> {
        let origins: BTreeSet<_> = self
            .level
            .values()
            .flat_map(|node| node.origins.iter().copied())
            .collect();
        let acceptable = &self.rules.acceptable;
        let valid = if acceptable.is_empty() || acceptable.contains(&ANY_POLICY) {
            origins
        } else if self.level.contains_key(&ANY_POLICY) {
            acceptable.iter().copied().collect()
        } else {
            origins
                .into_iter()
                .filter(|policy| acceptable.contains(policy))
                .collect()
        };
        if self.explicit == 0 && valid.is_empty() {
            return Err(NoPolicy);
        }
        Ok(valid)
    }
}

/// The nodes that a certificate with the policies `listed` puts below those `above` (6.1.3 d).
fn below(above: &Level, listed: &[ObjectIdentifier], any_counts: bool) -> Level {
    let mut level = Level::new();
    for policy in listed.iter().filter(|policy| **policy != ANY_POLICY) {
        let parents = above.values().filter(|parent| parent.expected.contains(policy));
        let origins: BTreeSet<_> = parents
            .flat_map(|parent| parent.origins.iter().copied())
            .collect();
        if !origins.is_empty() {
            level.extend([node(*policy, origins)]);
        } else if above.contains_key(&ANY_POLICY) {
            level.extend([node(*policy, [*policy].into())]);
        }
    }
    if !(any_counts && listed.contains(&ANY_POLICY)) {
        return level;
    }
    let named: BTreeSet<_> = level.keys().copied().collect();
    for parent in above.values() {
        for policy in parent.expected.difference(&named) {
            let (policy, fresh) = node(*policy, parent.origins.clone());
            level
                .entry(policy)
                .or_insert(fresh)
                .origins
                .extend(parent.origins.iter().copied());
        }
    }
    level
}

fn inhibit_any(certificate: &Certificate<'_>) -> Result<Option<u32>, ReadError> {
    let mut all = certificate.extensions().iter();
    let found = all.find(|extension| extension.extn_id == ID_CE_INHIBIT_ANY_POLICY);
    Ok(found
        .map(|extension| u32::from_der(extension.extn_value.as_bytes()))
        .transpose()?)
}

/// The critical extensions that this file understands.
pub(super) const UNDERSTOOD: [ObjectIdentifier; 3] = [
    PolicyConstraints::OID,
    PolicyMappings::OID,
    ID_CE_INHIBIT_ANY_POLICY,
];
