//! The books in memory: what each tenant's packages hold, as of the last commit and the one being planned. Only the
//! committing thread has them. What is drawn while a commit is planned is either settled with it or put back.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::clock::UnixMillis;
use protocol::ids::TenantRow;

use super::{LedgerAccount, Package, PackageRow, Transfer, Unit};
use crate::directory::Tenant;
use crate::record::Fingerprint;

/// A package as far as signatures are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) package: Package,
    pub(crate) available: u64,
    pub(crate) held: u64,
    pub(crate) used: u64,
    pub(crate) lapsed: u64,
}

impl Held {
    /// Whether it can pay for what was held at `at`.
    pub(crate) fn is_live(&self, at: UnixMillis) -> bool {
        self.package.activated <= at && self.package.expires.is_none_or(|expires| at < expires)
    }

    fn carries(&self) -> bool {
        self.package.carries_signatures()
    }

    /// Whether it has to do with signatures at all.
    fn counts(&self) -> bool {
        self.package.concerns_signatures()
    }

    /// Whether its units are signatures, and there is an end to them.
    fn is_counted(&self) -> bool {
        self.package.unit == Unit::Signature && !self.package.unlimited
    }

    const fn account(&mut self, account: LedgerAccount) -> Option<&mut u64> {
        match account {
            LedgerAccount::Available => Some(&mut self.available),
            LedgerAccount::Held => Some(&mut self.held),
            LedgerAccount::Used => Some(&mut self.used),
            LedgerAccount::Lapsed => Some(&mut self.lapsed),
            _ => None,
        }
    }

    fn take(&mut self, account: LedgerAccount, units: u64) {
        if let Some(balance) = self.account(account) {
            *balance -= units;
        }
    }

    fn put(&mut self, account: LedgerAccount, units: u64) {
        if let Some(balance) = self.account(account) {
            *balance += units;
        }
    }
}

/// From which package, and which of its accounts, a signature is paid whose unit was held at `at`: from one that has
/// no limit, else from the one that ends first. Units that lapsed after they were held are honoured (SEMANTICS 4.6).
/// `packages` are in order of expiry.
pub(crate) fn choose(packages: &[Held], at: UnixMillis) -> Option<(usize, LedgerAccount)> {
    let counts = |(_, held): &(usize, &Held)| held.counts() && held.is_live(at);
    let live = || packages.iter().enumerate().filter(counts);
    let free = live().find(|(_, held)| held.carries());
    let paid = || {
        let has_units = |held: &Held| held.is_counted() && held.available + held.lapsed > 0;
        let (place, held) = live().find(|(_, held)| has_units(held))?;
        let is_over = held.available == 0;
        Some((
            place,
            if is_over {
                LedgerAccount::Lapsed
            } else {
                LedgerAccount::Available
            },
        ))
    };
    free.map(|(place, _)| (place, LedgerAccount::Unlimited))
        .or_else(paid)
}

/// What has to lapse at `now`: units nobody used, of packages whose term is over. Asking again after they have lapsed
/// finds nothing.
pub(crate) fn lapses(packages: &[Held], now: UnixMillis) -> impl Iterator<Item = Transfer> {
    let over =
        move |held: &&Held| held.available > 0 && held.package.expires.is_some_and(|expires| expires <= now);
    packages.iter().filter(over).map(|held| Transfer {
        tenant: held.package.tenant,
        package: held.package.row,
        unit: held.package.unit,
        from: LedgerAccount::Available,
        to: LedgerAccount::Lapsed,
        units: held.available,
    })
}

/// What a tenant may still use, for the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Units of signatures; `None`: no limit.
    pub(crate) left: Option<u64>,
    /// Used and held of limited packages, ever.
    pub(crate) used: u64,
    /// It has packages, and the term of each of them is over.
    pub(crate) expired: bool,
}

pub(crate) fn standing(packages: &[Held], now: UnixMillis) -> Standing {
    let all = || packages.iter().filter(|held| held.counts());
    let live = || all().filter(|held| held.is_live(now));
    let limited = live().all(|held| !held.carries());
    let is_over = |held: &Held| held.package.expires.is_some_and(|expires| expires <= now);
    let counted = |held: &&Held| held.is_counted();
    Standing {
        left: limited.then(|| live().map(|held| held.available).sum()),
        used: all().filter(counted).map(|held| held.used + held.held).sum(),
        expired: all().next().is_some() && all().all(is_over),
    }
}

/// When a tenant has to be looked at next: a package begins or ends, or something is to lapse already.
fn next_turn(packages: &[Held], now: UnixMillis) -> Option<UnixMillis> {
    if lapses(packages, now).next().is_some() {
        return Some(now);
    }
    let turns = |held: &Held| [Some(held.package.activated), held.package.expires];
    packages
        .iter()
        .flat_map(turns)
        .flatten()
        .filter(|at| *at > now)
        .min()
}

#[derive(Debug)]
struct Book {
    tenant: Arc<Tenant>,
    packages: Vec<Held>,
    next_turn: Option<UnixMillis>,
}

/// A unit held for a pending item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) tenant: TenantRow,
    pub(crate) package: PackageRow,
}

impl Book {
    /// Works out how the tenant stands, and when that changes by itself.
    fn look(&mut self, now: UnixMillis) {
        self.next_turn = next_turn(&self.packages, now);
        self.tenant.account.set(standing(&self.packages, now));
    }
}

type Way = (PackageRow, LedgerAccount, LedgerAccount);

/// All books.
#[derive(Debug, Default)]
pub(crate) struct Books {
    tenants: HashMap<TenantRow, Book>,
    /// What the commit being planned moves.
    moved: Vec<Transfer>,
    ways: HashMap<Way, usize>,
    /// Units held for pending items.
    holds: HashMap<Fingerprint, Hold>,
    /// Holds as they were before the commit being planned changed them.
    holds_before: Vec<(Fingerprint, Option<Hold>)>,
}

impl Books {
    /// Takes a tenant's packages as they are on disk, in order of expiry. Nothing may be moved at the time.
    pub(crate) fn put(&mut self, tenant: &Arc<Tenant>, packages: Vec<Held>, now: UnixMillis) {
        let mut book = Book {
            tenant: Arc::clone(tenant),
            packages,
            next_turn: None,
        };
        book.look(now);
        self.tenants.insert(tenant.row, book);
    }

    /// Pays for a signature whose unit was held at `at`.
    pub(crate) fn pay(&mut self, tenant: TenantRow, at: UnixMillis) -> Option<PackageRow> {
        self.draw(tenant, at, LedgerAccount::Used)
    }

    /// Holds a unit for a pending item. Where there is none the item goes on without, and is judged when it is done.
    pub(crate) fn hold(&mut self, key: Fingerprint, tenant: TenantRow, at: UnixMillis) -> Option<PackageRow> {
        let package = self.draw(tenant, at, LedgerAccount::Held)?;
        let before = self.holds.insert(key, Hold { tenant, package });
        self.holds_before.push((key, before));
        Some(package)
    }

    /// Settles what is held for an item, if something is: it is used, or goes back. Returns the package it is held in.
    pub(crate) fn settle_hold(&mut self, key: Fingerprint, used: bool) -> Option<PackageRow> {
        let hold = self.holds.remove(&key)?;
        self.holds_before.push((key, Some(hold)));
        let Hold { tenant, package } = hold;
        let carries = self.package(tenant, package).is_some_and(|held| held.carries());
        let to = match (used, carries) {
            (true, _) => LedgerAccount::Used,
            (false, true) => LedgerAccount::Unlimited,
            (false, false) => LedgerAccount::Available,
        };
        self.transfer(tenant, package, LedgerAccount::Held, to);
        Some(package)
    }

    fn draw(&mut self, tenant: TenantRow, at: UnixMillis, to: LedgerAccount) -> Option<PackageRow> {
        let book = self.tenants.get(&tenant)?;
        let (place, from) = choose(&book.packages, at)?;
        let package = book.packages[place].package.row;
        self.transfer(tenant, package, from, to);
        Some(package)
    }

    fn package(&mut self, tenant: TenantRow, package: PackageRow) -> Option<&mut Held> {
        let book = self.tenants.get_mut(&tenant)?;
        book.packages.iter_mut().find(|held| held.package.row == package)
    }

    fn transfer(&mut self, tenant: TenantRow, package: PackageRow, from: LedgerAccount, to: LedgerAccount) {
        let Some(held) = self.package(tenant, package) else {
            return;
        };
        held.take(from, 1);
        held.put(to, 1);
        let place = *self.ways.entry((package, from, to)).or_insert_with(|| {
            self.moved.push(Transfer {
                tenant,
                package,
                unit: Unit::Signature,
                from,
                to,
                units: 0,
            });
            self.moved.len() - 1
        });
        self.moved[place].units += 1;
    }

    /// What the commit being planned moves.
    pub(crate) fn moved(&self) -> &[Transfer] {
        &self.moved
    }

    /// The commit is durable: everybody may see how the accounts stand now.
    pub(crate) fn settle(&mut self, now: UnixMillis) {
        for moved in std::mem::take(&mut self.moved) {
            let Some(book) = self.tenants.get_mut(&moved.tenant) else {
                continue;
            };
            book.look(now);
            if (moved.from, moved.to) == (LedgerAccount::Held, LedgerAccount::Available) {
                book.tenant.account.put_back(moved.units);
            }
        }
        self.ways.clear();
        self.holds_before.clear();
    }

    /// The commit did not happen: everything goes back.
    pub(crate) fn revert(&mut self) {
        let moved = std::mem::take(&mut self.moved);
        // A unit may have gone on from where it was put: what is put back comes first.
        for Transfer {
            tenant,
            package,
            from,
            units,
            ..
        } in &moved
        {
            if let Some(held) = self.package(*tenant, *package) {
                held.put(*from, *units);
            }
        }
        for Transfer {
            tenant,
            package,
            to,
            units,
            ..
        } in &moved
        {
            if let Some(held) = self.package(*tenant, *package) {
                held.take(*to, *units);
            }
        }
        self.ways.clear();
        for (key, before) in std::mem::take(&mut self.holds_before).into_iter().rev() {
            match before {
                Some(hold) => self.holds.insert(key, hold),
                None => self.holds.remove(&key),
            };
        }
    }

    /// Tenants with a package that has begun or ended since it was last looked at.
    pub(crate) fn turned(&self, now: UnixMillis) -> Vec<Arc<Tenant>> {
        let has_turned = |book: &Book| book.next_turn.is_some_and(|at| at <= now);
        let turned = self.tenants.values().filter(|book| has_turned(book));
        turned.map(|book| Arc::clone(&book.tenant)).collect()
    }

    /// What has to lapse, of one tenant.
    pub(crate) fn lapses(&self, tenant: TenantRow, now: UnixMillis) -> Vec<Transfer> {
        self.tenants
            .get(&tenant)
            .map_or_else(Vec::new, |book| lapses(&book.packages, now).collect())
    }
}
