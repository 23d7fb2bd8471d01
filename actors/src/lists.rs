//! Revocation lists (RFC 5280 5): made in time, kept before they are public, numbered without ever going back. Where
//! delta lists are configured, a change is published in a delta, and the full list goes on until half of its life is
//! over; without them each change makes a full list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use documents::crl::{self, Crl, Reason};
use parking_lot::RwLock;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use store::{CertificateChange, Change, KeptCrl, Reader, RevokedRow};

use crate::certificates::{Authorities, Authority, internal, store_failed};
use crate::registrar::Ledger;

/// How long a full list is good, in milliseconds.
const LIST_MS: u64 = 24 * 3_600_000;
/// From this age on a full list is replaced, in milliseconds: half of its life is left for those who fetch it late.
const LIST_RENEWED_MS: u64 = LIST_MS / 2;
/// Whoever revokes publishes that himself, and has done so after this time, in milliseconds, or could not.
const PUBLISHING_MS_MAX: u64 = 5_000;
/// Tries to make a list while others make some, too.
const TRIES: usize = 3;

/// Which list of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// Everything that is revoked.
    Full,
    /// What has changed since the newest full list.
    Delta,
}

/// What has changed since a full list was made: who is revoked now and was not, or was for another reason; and who is on
/// the list and should not be any more, because it is in force again or expired (RFC 5280 5.2.4).
fn changes<'a>(base: &'a Crl<'_>, rows: &'a [RevokedRow], now: UnixMillis) -> Vec<crl::Revoked<'a>> {
    let is_known = |row: &crl::Revoked<'_>| {
        let entry = base.find(row.serial);
        entry.is_some_and(|entry| entry.reason == row.reason && entry.at.seconds() == row.at.seconds())
    };
    let mut list: Vec<_> = revoked(rows).filter(|row| !is_known(row)).collect();
    let now_revoked: HashSet<&[u8]> = rows.iter().map(|row| &row.serial[..]).collect();
    let unsigned = |serial: &'a [u8]| serial.strip_prefix(&[0]).unwrap_or(serial);
    let gone = base.entries().iter().map(|entry| unsigned(entry.serial));
    list.extend(
        gone.filter(|serial| !now_revoked.contains(serial))
            .map(|serial| crl::Revoked {
                serial,
                at: now,
                reason: Reason::RemoveFromCrl,
                invalid_since: None,
            }),
    );
    list
}

/// Revoked certificates that have ended since then are listed, too: each is on a regular list that was made after its end
/// (RFC 5280 3.3).
fn listed_from(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(LIST_MS))
}

fn revoked(rows: &[RevokedRow]) -> impl Iterator<Item = crl::Revoked<'_>> {
    rows.iter().map(|row| crl::Revoked {
        serial: &row.serial,
        at: row.at,
        reason: Reason::from_number(row.reason).unwrap_or(Reason::Unspecified),
        invalid_since: None,
    })
}

/// What the next list says of when it was made: never earlier than the one before it, where the clock was set back a little.
/// Where it was set back by more than a list lives, one of the two times is wrong, and nothing is published before somebody
/// has looked.
fn this_update(last: Option<&KeptCrl>, now: UnixMillis) -> Result<UnixMillis, Refusal> {
    let last = last.map_or(UnixMillis(0), |last| last.made_at);
    if last.0.saturating_sub(now.0) > LIST_MS {
        let text = format!(
            "the clock is {} ms behind the last revocation list: none is made",
            last.0 - now.0
        );
        return Err(Refusal::new(Code::ClockBehind, text));
    }
    Ok(now.max(last))
}

/// Whether a list is there that needs no successor yet. One that was made before the store was restored does: its
/// number is below what the new epoch begins with.
fn is_current(list: &KeptCrl, next: u64, life_ms: u64, now: UnixMillis) -> bool {
    now.0.abs_diff(list.made_at.0) < life_ms && list.number >> 32 == next >> 32
}

impl Authorities {
    /// Makes and keeps a full list, and only then returns its number.
    pub fn publish(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<u64, Refusal> {
        self.publish_as(ListKind::Full, ledger, reader, issuer, now)
    }

    /// Publishes a change: in a delta where there are some and the full list is current, else in a full list.
    pub fn publish_change(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<u64, Refusal> {
        let next = reader.next_crl(&issuer.name).map_err(store_failed)?;
        let full = reader.crl(&issuer.name).map_err(store_failed)?;
        let current = full.is_some_and(|full| is_current(&full, next, LIST_RENEWED_MS, now));
        let kind = if self.delta_ms.is_some() && current {
            ListKind::Delta
        } else {
            ListKind::Full
        };
        self.publish_as(kind, ledger, reader, issuer, now)
    }

    fn publish_as(
        &self,
        kind: ListKind,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<u64, Refusal> {
        let once = || match kind {
            ListKind::Full => self.publish_full(ledger, reader, issuer, now),
            ListKind::Delta => self.publish_delta(ledger, reader, issuer, now),
        };
        let mut result = once();
        for _ in 1..TRIES {
            match &result {
                // Somebody else's list came first, and may not know what this one has to say.
                Err(refusal) if refusal.code == Code::AlreadyExists => result = once(),
                _ => break,
            }
        }
        result
    }

    fn publish_full(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<u64, Refusal> {
        // The number is read before the entries: a list with a higher number never knows less.
        let number = reader.next_crl(&issuer.name).map_err(store_failed)?;
        let rows = reader
            .revoked(&issuer.name, listed_from(now))
            .map_err(store_failed)?;
        let last = reader.crl(&issuer.name).map_err(store_failed)?;
        let now = this_update(last.as_ref(), now)?;
        let delta_url = || format!("{}/delta/{}.crl", self.base_url, issuer.name);
        let spec = crl::Spec {
            issuer: &issuer.certificate,
            number,
            kind: crl::Kind::Full,
            this_update: now,
            next_update: UnixMillis(now.0 + LIST_MS),
            scope: None,
            delta_locations: self.delta_ms.map(|_| delta_url()).into_iter().collect(),
        };
        keep(ledger, issuer, &spec, revoked(&rows))
    }

    fn publish_delta(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<u64, Refusal> {
        let number = reader.next_crl(&issuer.name).map_err(store_failed)?;
        let rows = reader
            .revoked(&issuer.name, listed_from(now))
            .map_err(store_failed)?;
        let full = reader.crl(&issuer.name).map_err(store_failed)?;
        let full = full.ok_or_else(|| internal("a delta list needs a full list"))?;
        let last = reader.delta(&issuer.name, full.number).map_err(store_failed)?;
        let now = this_update(last.as_ref().or(Some(&full)), now)?;
        let base = Crl::parse(&full.der).map_err(internal)?;
        let spec = crl::Spec {
            issuer: &issuer.certificate,
            number,
            kind: crl::Kind::Delta { base: full.number },
            this_update: now,
            next_update: UnixMillis(now.0 + 2 * self.delta_ms.unwrap_or(LIST_RENEWED_MS)),
            scope: None,
            delta_locations: Vec::new(),
        };
        keep(ledger, issuer, &spec, changes(&base, &rows, now))
    }

    /// Publishes every list that is missing or has lived half of its life, and those of a store that was restored. One that
    /// cannot be made, because its device does not work, say, keeps no other waiting; the first such error is told.
    pub fn publish_due(&self, ledger: &dyn Ledger, reader: &Reader, now: UnixMillis) -> Result<(), Refusal> {
        let issuers = self.list.iter().filter(|authority| authority.role.certifies());
        let published = issuers.map(|issuer| self.publish_due_of(ledger, reader, issuer, now));
        published.fold(Ok(()), Result::and)
    }

    fn publish_due_of(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let next = reader.next_crl(&issuer.name).map_err(store_failed)?;
        let mut full = reader.crl(&issuer.name).map_err(store_failed)?;
        if !full
            .as_ref()
            .is_some_and(|full| is_current(full, next, LIST_RENEWED_MS, now))
        {
            self.publish(ledger, reader, issuer, now)?;
            full = reader.crl(&issuer.name).map_err(store_failed)?;
        }
        if let (Some(delta_ms), Some(full)) = (self.delta_ms, full) {
            let delta = reader.delta(&issuer.name, full.number).map_err(store_failed)?;
            let is_current = |delta: KeptCrl| now.0.abs_diff(delta.made_at.0) < delta_ms;
            if !delta.is_some_and(is_current) {
                self.publish_as(ListKind::Delta, ledger, reader, issuer, now)?;
            }
        }
        self.publish_missed(ledger, reader, issuer, now)
    }

    /// Publishes a revocation whose own list could not be made.
    fn publish_missed(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let Some(full) = reader.crl(&issuer.name).map_err(store_failed)? else {
            return Ok(());
        };
        let delta = reader.delta(&issuer.name, full.number).map_err(store_failed)?;
        let newest = delta.map_or(full.made_at, |delta| delta.made_at.max(full.made_at));
        let last = reader.last_revocation(&issuer.name).map_err(store_failed)?;
        match is_missed(last, newest, now) {
            true => self.publish_change(ledger, reader, issuer, now).map(drop),
            false => Ok(()),
        }
    }
}

/// Whether a revocation is on no list, and whoever has revoked will not publish it any more.
fn is_missed(revoked: Option<UnixMillis>, newest: UnixMillis, now: UnixMillis) -> bool {
    revoked.is_some_and(|at| at > newest && now.0.saturating_sub(at.0) > PUBLISHING_MS_MAX)
}

/// Signs a list and keeps it.
fn keep<'r>(
    ledger: &dyn Ledger,
    issuer: &Authority,
    spec: &crl::Spec<'_>,
    entries: impl IntoIterator<Item = crl::Revoked<'r>>,
) -> Result<u64, Refusal> {
    let prepared = crl::prepare(spec, entries, issuer.algorithm).map_err(internal)?;
    let signature = issuer.sign(prepared.to_sign())?;
    ledger.change(Change::Certificates(CertificateChange::KeepCrl {
        issuer: issuer.name.clone(),
        number: spec.number,
        base: match spec.kind {
            crl::Kind::Full => None,
            crl::Kind::Delta { base } => Some(base),
        },
        der: prepared.assemble(&signature).map_err(internal)?,
    }))?;
    Ok(spec.number)
}

/// The lists as they are served: read once, and again when there is a newer one.
#[derive(Debug, Default)]
pub struct Shelf(RwLock<HashMap<(AuthorityName, ListKind), Shelved>>);

/// A list as it is served.
#[derive(Debug)]
pub struct ServedList {
    /// The list.
    pub list: KeptCrl,
    /// When there is a newer one at the latest (nextUpdate).
    pub ends: Option<UnixMillis>,
}

#[derive(Debug)]
struct Shelved {
    /// The number of the next list when this one was read: while that holds, there is no newer one.
    next: u64,
    list: Arc<ServedList>,
}

impl Shelf {
    /// The newest list of an issuer; `None` where there is none of this kind.
    pub fn get(
        &self,
        reader: &Reader,
        issuer: &AuthorityName,
        kind: ListKind,
    ) -> Result<Option<Arc<ServedList>>, store::StoreError> {
        let place = (issuer.clone(), kind);
        let next = reader.next_crl(issuer)?;
        if let Some(shelved) = self.0.read().get(&place).filter(|shelved| shelved.next == next) {
            return Ok(Some(Arc::clone(&shelved.list)));
        }
        let full = reader.crl(issuer)?;
        let list = match (kind, full) {
            (ListKind::Full, full) => full,
            (ListKind::Delta, Some(full)) => reader.delta(issuer, full.number)?,
            (ListKind::Delta, None) => None,
        };
        let Some(list) = list else {
            return Ok(None);
        };
        let ends = Crl::parse(&list.der).ok().and_then(|list| list.updates().1);
        let list = Arc::new(ServedList { list, ends });
        let shelved = Shelved {
            next,
            list: Arc::clone(&list),
        };
        self.0.write().insert(place, shelved);
        Ok(Some(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(number: u64, made_at: u64) -> KeptCrl {
        KeptCrl {
            number,
            base: None,
            der: Vec::new(),
            made_at: UnixMillis(made_at),
        }
    }

    #[test]
    fn a_revocation_that_is_on_no_list_is_published_by_whoever_looks_next() {
        let at = UnixMillis;
        assert!(!is_missed(None, at(50_000), at(99_000)));
        assert!(
            !is_missed(Some(at(50_000)), at(50_000), at(99_000)),
            "it is on it"
        );
        assert!(
            !is_missed(Some(at(60_000)), at(50_000), at(61_000)),
            "it is being made"
        );
        assert!(is_missed(Some(at(60_000)), at(50_000), at(66_000)));
    }

    #[test]
    fn a_list_says_never_that_it_is_older_than_the_one_before_it() {
        let now = UnixMillis(10 * LIST_MS);
        let of = |made_at| this_update(Some(&list(7, made_at)), now).map_err(|refusal| refusal.code);
        assert_eq!(this_update(None, now).unwrap(), now);
        assert_eq!(of(now.0 - 5), Ok(now));
        assert_eq!(of(now.0 + 5), Ok(UnixMillis(now.0 + 5)), "the clock was set back");
        assert_eq!(of(now.0 + LIST_MS), Ok(UnixMillis(now.0 + LIST_MS)));
        assert_eq!(of(now.0 + LIST_MS + 1), Err(Code::ClockBehind));
    }

    #[test]
    fn a_list_is_replaced_at_half_of_its_life_and_in_a_new_epoch() {
        let now = UnixMillis(10 * LIST_MS);
        let young = list(7, now.0 - LIST_RENEWED_MS + 1);
        assert!(is_current(&young, 8, LIST_RENEWED_MS, now));
        assert!(
            is_current(&young, 9, LIST_RENEWED_MS, now),
            "deltas have come since"
        );
        assert!(!is_current(
            &list(7, now.0 - LIST_RENEWED_MS),
            8,
            LIST_RENEWED_MS,
            now
        ));
        // The clock was set back by a day.
        assert!(!is_current(&list(7, now.0 + LIST_MS), 8, LIST_RENEWED_MS, now));
        // The store was restored: its numbers begin at 2^32.
        assert!(!is_current(&young, 1 << 32, LIST_RENEWED_MS, now));
        assert!(is_current(
            &list(1 << 32, now.0),
            (1 << 32) + 1,
            LIST_RENEWED_MS,
            now
        ));
    }
}
