//! Time stamps that apps were given: each is recorded and charged in one commit, and released after it, as signatures
//! are. They have no idempotency key: a token carries a serial number and a time of its own, so a retry is another one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialRow, Sequence, TenantRow};
use rusqlite::Connection;

use crate::committer::Committer;
use crate::directory::App;
use crate::error::Result;
use crate::fence::Epoch;
use crate::journal::Batch;
use crate::ledger::{LedgerAccount, Package, PackageRow, Transfer, Unit, rows};
use crate::operations::{self, KeptStep};
use crate::record::{Record, Stamped};
use crate::tail::ChainPoint;
use crate::tenancy::TenantState;
use crate::usage::Tally;

/// Hears what became of a time stamp: the entry, or why it must not be released.
type Reply = Box<dyn FnOnce(std::result::Result<Sequence, Refusal>) + Send>;

/// A time stamp that was made and is to be recorded.
pub struct StampDraft {
    /// Who asked, and the epoch under which that was allowed.
    pub app: (Arc<App>, Epoch),
    /// What was made.
    pub stamp: Stamped,
    /// The token as a sealed document needs it, kept in the same commit: a retry finds it and is not charged.
    pub kept: Option<KeptStep>,
    /// Who waits. Called by the committing thread, so it must not wait itself.
    pub reply: Reply,
}

impl std::fmt::Debug for StampDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StampDraft")
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}

/// What a tenant has for time stamps, while one commit is planned.
#[derive(Debug, Default)]
struct Purse {
    /// In order of expiry, with the time stamps that are left of each.
    packages: Vec<(Package, u64)>,
    used: BTreeMap<PackageRow, u64>,
}

impl Purse {
    fn open(db: &Connection, tenant: TenantRow) -> Result<Self> {
        let left = |package: Package| {
            let available = match package.unit {
                Unit::TimeStamp => rows::balance(db, package.row, Unit::TimeStamp, LedgerAccount::Available)?,
                _ => 0,
            };
            Ok((package, available.max(0).cast_unsigned()))
        };
        let packages = rows::packages(db, tenant)?;
        Ok(Self {
            packages: packages.into_iter().map(left).collect::<Result<_>>()?,
            used: BTreeMap::new(),
        })
    }

    /// The package that pays for a time stamp: one without a limit, else the one that ends first and has some left.
    fn pay(&mut self, now: UnixMillis) -> Option<PackageRow> {
        let is_live = |package: &Package| {
            package.activated <= now && package.expires.is_none_or(|expires| now < expires)
        };
        let mut all = self.packages.iter();
        let free = all.position(|(package, _)| is_live(package) && package.carries_stamps());
        let mut all = self.packages.iter();
        let place = free.or_else(|| all.position(|(package, left)| is_live(package) && *left > 0))?;
        let (package, left) = &mut self.packages[place];
        *left = left.saturating_sub(1);
        *self.used.entry(package.row).or_default() += 1;
        Some(package.row)
    }

    fn transfers(&self) -> Vec<Transfer> {
        let used = |(package, _): &(Package, u64)| {
            let from = if package.carries_stamps() {
                LedgerAccount::Unlimited
            } else {
                LedgerAccount::Available
            };
            Some(Transfer {
                tenant: package.tenant,
                package: package.row,
                unit: Unit::TimeStamp,
                from,
                to: LedgerAccount::Used,
                units: *self.used.get(&package.row)?,
            })
        };
        self.packages.iter().filter_map(used).collect()
    }
}

/// Why a time stamp must not be released, if there is a reason: something was revoked, and that was committed before it.
fn revoked(app: &App, epoch: Epoch) -> Option<Refusal> {
    match app.tenant.standing.state() {
        TenantState::Active if app.fence.holds(epoch) => None,
        TenantState::Active => Some(Refusal::new(
            Code::AppRevoked,
            "the app was revoked while the request ran",
        )),
        TenantState::Suspended => Some(Refusal::new(Code::TenantSuspended, "the tenant is suspended")),
        TenantState::Closed => Some(Refusal::new(Code::TenantClosed, "the tenant is closed")),
    }
}

/// A commit of time stamps that is being planned.
struct Plan {
    at: UnixMillis,
    batch: Batch,
    tally: Tally,
    purses: BTreeMap<TenantRow, Purse>,
    /// For each draft, in order.
    verdicts: Vec<std::result::Result<Sequence, Refusal>>,
}

impl Plan {
    fn judge(&mut self, db: &Connection, draft: &StampDraft) -> Result<()> {
        let (app, epoch) = &draft.app;
        let package = match revoked(app, *epoch) {
            Some(refusal) => Err(refusal),
            None if app.environment.is_sandbox() => Ok(None),
            None => self.pay(db, app.tenant.row)?.map(Some).ok_or_else(exhausted),
        };
        let verdict = package.map(|package| {
            self.tally.count(app.row, CredentialRow(0));
            self.batch.push(&Record::TimeStamp {
                stamp: draft.stamp.clone(),
                package: package.map(|package| package.0),
            })
        });
        self.verdicts.push(verdict);
        Ok(())
    }

    fn pay(&mut self, db: &Connection, tenant: TenantRow) -> Result<Option<PackageRow>> {
        let purse = match self.purses.entry(tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Purse::open(db, tenant)?),
        };
        Ok(purse.pay(self.at))
    }
}

/// What was committed.
struct WrittenStamps {
    verdicts: Vec<std::result::Result<Sequence, Refusal>>,
    /// Where the journal ends now, and whose books have changed, when; `None`: nothing was written.
    settled: Option<(ChainPoint, BTreeSet<TenantRow>, UnixMillis)>,
}

fn exhausted() -> Refusal {
    Refusal::new(
        Code::QuotaExhausted,
        "no package for time stamps is in force, or all of them are used",
    )
}

impl<W: Clone> Committer<W> {
    /// Records and charges time stamps in one commit, and tells those who wait.
    pub(crate) fn commit_stamps(&mut self, drafts: Vec<StampDraft>) {
        if drafts.is_empty() {
            return;
        }
        match self.write_stamps(&drafts) {
            Ok(written) => {
                // They are recorded and charged: from here on no error is an answer.
                if let Err(error) = self.settle_stamps(&written) {
                    (self.fatal)(&error);
                    return;
                }
                for (draft, verdict) in drafts.into_iter().zip(written.verdicts) {
                    (draft.reply)(verdict);
                }
            }
            Err(error) => {
                if error.is_full() {
                    self.full.store(true, Ordering::Release);
                } else {
                    (self.fatal)(&error);
                }
                let refusal = error.refusal();
                for draft in drafts {
                    (draft.reply)(Err(refusal.clone()));
                }
            }
        }
    }

    /// Judges and writes them. An error means that nothing is written.
    fn write_stamps(&mut self, drafts: &[StampDraft]) -> Result<WrittenStamps> {
        let mut plan = Plan {
            at: (self.clock)(),
            batch: Batch::starting_at(self.end.sequence + 1),
            tally: Tally::default(),
            purses: BTreeMap::new(),
            verdicts: Vec::with_capacity(drafts.len()),
        };
        let transaction = self.db.transaction()?;
        for draft in drafts {
            plan.judge(&transaction, draft)?;
        }
        if plan.batch.is_empty() {
            return Ok(WrittenStamps {
                verdicts: plan.verdicts,
                settled: None,
            });
        }
        let point = plan.batch.chain_point(&self.end);
        plan.batch.insert(&transaction, plan.at, &point.chain)?;
        plan.tally.write(&transaction, plan.at)?;
        for (draft, verdict) in drafts.iter().zip(&plan.verdicts) {
            if let (Some(step), Ok(_)) = (&draft.kept, verdict) {
                operations::keep(&transaction, step)?;
            }
        }
        let transfers: Vec<Transfer> = plan.purses.values().flat_map(Purse::transfers).collect();
        rows::post(&transaction, plan.batch.first(), plan.at, &transfers)?;
        transaction.commit()?;
        // What is left of packages with a limit is in the books, too, which let it lapse.
        let limited = transfers
            .iter()
            .filter(|moved| moved.from == LedgerAccount::Available);
        let tenants: BTreeSet<TenantRow> = limited.map(|moved| moved.tenant).collect();
        Ok(WrittenStamps {
            verdicts: plan.verdicts,
            settled: Some((point, tenants, plan.at)),
        })
    }

    /// What was written is durable: remember it.
    fn settle_stamps(&mut self, written: &WrittenStamps) -> Result<()> {
        if let Some((point, tenants, at)) = &written.settled {
            self.end = *point;
            self.tail.note(*point)?;
            self.read_books(tenants, *at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(row: u32, unit: Unit, unlimited: bool, expires: Option<u64>) -> Package {
        Package {
            row: PackageRow(row),
            tenant: TenantRow(1),
            kind: "some".into(),
            unit,
            unlimited,
            activated: UnixMillis(10),
            expires: expires.map(UnixMillis),
            price_li: None,
            reference: String::new(),
        }
    }

    fn purse(packages: Vec<(Package, u64)>) -> Purse {
        Purse {
            packages,
            used: BTreeMap::new(),
        }
    }

    #[test]
    fn signatures_do_not_pay_for_time_stamps() {
        let mut purse = purse(vec![
            (package(1, Unit::Signature, false, None), 0),
            (package(2, Unit::TimeStamp, false, Some(50)), 1),
            (package(3, Unit::TimeStamp, false, Some(90)), 1),
        ]);
        assert_eq!(purse.pay(UnixMillis(9)), None, "nothing has begun");
        assert_eq!(purse.pay(UnixMillis(20)), Some(PackageRow(2)), "it ends first");
        assert_eq!(purse.pay(UnixMillis(20)), Some(PackageRow(3)));
        assert_eq!(purse.pay(UnixMillis(20)), None, "used up");
        let moved = purse.transfers();
        assert_eq!(moved.len(), 2);
        assert!(
            moved
                .iter()
                .all(|moved| (moved.from, moved.units) == (LedgerAccount::Available, 1))
        );
    }

    #[test]
    fn what_has_no_limit_pays_while_it_lives() {
        let mut purse = purse(vec![
            (package(1, Unit::TimeStamp, false, Some(50)), 5),
            (package(2, Unit::Signature, true, Some(60)), 0),
        ]);
        assert_eq!(purse.pay(UnixMillis(20)), Some(PackageRow(2)));
        assert_eq!(purse.pay(UnixMillis(55)), Some(PackageRow(2)));
        assert_eq!(purse.pay(UnixMillis(60)), None, "both are over");
        let moved = purse.transfers();
        assert_eq!(moved.len(), 1);
        assert_eq!((moved[0].from, moved[0].units), (LedgerAccount::Unlimited, 2));
    }
}
