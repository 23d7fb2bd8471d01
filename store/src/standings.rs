//! How often the standing of certificates has changed, for whoever keeps answers about them: an answer that was made
//! under another count is not given any more. Moved by the committing thread after the change's own commit and before
//! anybody hears of it, so whoever was told of a revocation finds no older answer.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::ids::AuthorityName;

/// Counters. Certificates share them, so that memory does not grow with them: a change costs the answers about its
/// neighbours, too, which are made anew.
const COUNTERS: usize = 4096;

/// The counters of all certificates.
#[derive(Debug)]
pub struct Standings(Box<[AtomicU64]>);

impl Default for Standings {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Standings {
    fn counter(&self, issuer: &AuthorityName, serial: &[u8]) -> &AtomicU64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        // Truncation is what a table of this size needs.
        &self.0[hasher.hash_one((issuer.as_str(), serial)) as usize % COUNTERS]
    }

    /// The count of a certificate. To be read before the standing itself.
    pub fn count(&self, issuer: &AuthorityName, serial: &[u8]) -> u64 {
        self.counter(issuer, serial).load(Ordering::Acquire)
    }

    pub(crate) fn moved(&self, issuer: &AuthorityName, serial: &[u8]) {
        self.counter(issuer, serial).fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_its_own_certificate() {
        let standings = Standings::default();
        let issuer = AuthorityName::new("ca").unwrap();
        let before = standings.count(&issuer, &[1, 2]);
        standings.moved(&issuer, &[1, 2]);
        assert_ne!(standings.count(&issuer, &[1, 2]), before);
        let others = (0..200_u8).filter(|n| standings.count(&issuer, &[9, *n]) != 0);
        assert!(others.count() < 10, "most others do not notice");
    }
}
