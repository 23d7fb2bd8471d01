//! The model test: random grants, uses, holds, lapses, corrections and crashes on books and rows, against a reference
//! that keeps every unit by itself and is too simple to be wrong. `TEST_LEDGER_STEPS` says how many steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::clock::UnixMillis;
use protocol::ids::TenantName;
use rusqlite::Connection;

use super::book::Books;
use super::change::{self, LedgerChange, Moment};
use super::{LedgerAccount, PackageRow, Unit, kind, rows};
use crate::directory::{Account, Directory, Tenant};
use crate::ledger::book;
use crate::record::Fingerprint;
use crate::{sqlite, tenancy};

/// Dice that fall the same way each time (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Free,
    Held,
    Used,
    Lapsed,
    Taken,
}

/// A package as a heap of units.
#[derive(Clone, Debug)]
struct Heap {
    row: u32,
    begins: u64,
    ends: u64,
    limitless: bool,
    units: Vec<Place>,
}

impl Heap {
    fn count(&self, place: Place) -> i64 {
        self.units.iter().filter(|unit| **unit == place).count() as i64
    }

    fn turn(&mut self, from: Place, to: Place) -> bool {
        let found = self.units.iter_mut().find(|unit| **unit == from);
        found.map(|unit| *unit = to).is_some()
    }
}

/// The reference.
#[derive(Clone, Debug, Default)]
struct Reference {
    heaps: Vec<Heap>,
    holds: BTreeMap<u64, u32>,
}

impl Reference {
    fn heap(&mut self, row: u32) -> &mut Heap {
        self.heaps.iter_mut().find(|heap| heap.row == row).unwrap()
    }

    fn draw(&mut self, held_at: u64, to: Place) -> Option<u32> {
        let mut order: Vec<usize> = (0..self.heaps.len()).collect();
        order.sort_by_key(|at| (self.heaps[*at].ends, self.heaps[*at].row));
        order.retain(|at| self.heaps[*at].begins <= held_at && held_at < self.heaps[*at].ends);
        if let Some(at) = order.iter().find(|at| self.heaps[**at].limitless) {
            self.heaps[*at].units.push(to);
            return Some(self.heaps[*at].row);
        }
        let paid = order.into_iter().find(|at| {
            let heap = &mut self.heaps[*at];
            heap.turn(Place::Free, to) || heap.turn(Place::Lapsed, to)
        });
        paid.map(|at| self.heaps[at].row)
    }

    fn settle(&mut self, key: u64, used: bool) {
        let Some(row) = self.holds.remove(&key) else {
            return;
        };
        let heap = self.heap(row);
        let back = if heap.limitless { Place::Taken } else { Place::Free };
        assert!(heap.turn(Place::Held, if used { Place::Used } else { back }));
    }

    fn lapse(&mut self, now: u64) {
        for heap in self.heaps.iter_mut().filter(|heap| heap.ends <= now) {
            while heap.turn(Place::Free, Place::Lapsed) {}
        }
    }

    fn left(&self, now: u64) -> Option<u64> {
        let live = || {
            self.heaps
                .iter()
                .filter(|heap| heap.begins <= now && now < heap.ends)
        };
        (!live().any(|heap| heap.limitless)).then(|| live().map(|heap| heap.count(Place::Free) as u64).sum())
    }
}

struct Trial {
    db: Connection,
    directory: Directory,
    tenant: Arc<Tenant>,
    books: Books,
    reference: Reference,
    /// The reference as of the last commit, for crashes.
    durable: Reference,
    dice: Dice,
    now: u64,
    batch: u64,
    key: u64,
    refused: u64,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let db = sqlite::in_memory().unwrap();
        let directory = Directory::default();
        let name = TenantName::new("t").unwrap();
        db.execute(
            "INSERT INTO tenant (row, name, activated_ms, created_ms) VALUES (1, 't', 0, 0)",
            [],
        )
        .unwrap();
        let account = Account::new(book::standing(&[], UnixMillis(0)));
        let standing = tenancy::Standing::new(0, UnixMillis(0));
        let tenant = Arc::new(Tenant::new(
            protocol::ids::TenantRow(1),
            name,
            account,
            standing,
            None,
        ));
        directory.add_tenant(Arc::clone(&tenant));
        let books = rows::load(&db, &directory, UnixMillis(0)).unwrap();
        Self {
            db,
            directory,
            tenant,
            books,
            reference: Reference::default(),
            durable: Reference::default(),
            dice: Dice(seed),
            now: 1_000_000,
            batch: 1,
            key: 0,
            refused: 0,
        }
    }

    fn at(&self) -> UnixMillis {
        UnixMillis(self.now)
    }

    fn fingerprint(key: u64) -> Fingerprint {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        Fingerprint(bytes)
    }

    fn moment(&mut self) -> Moment {
        self.batch += 1;
        Moment {
            at: self.at(),
            batch: self.batch,
        }
    }

    fn pay(&mut self) {
        // Held now, or a moment before something may have lapsed.
        let held = self.now - self.dice.below(2_000);
        let paid = self.books.pay(self.tenant.row, UnixMillis(held));
        let expected = self.reference.draw(held, Place::Used);
        assert_eq!(paid.map(|package| package.0), expected);
        self.refused += u64::from(paid.is_none());
    }

    fn hold(&mut self) {
        self.key += 1;
        let held = self
            .books
            .hold(Self::fingerprint(self.key), self.tenant.row, self.at());
        let expected = self.reference.draw(self.now, Place::Held);
        assert_eq!(held.map(|package| package.0), expected);
        if let Some(row) = expected {
            self.reference.holds.insert(self.key, row);
        }
    }

    fn settle_hold(&mut self) {
        let keys: Vec<u64> = self.reference.holds.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.dice.below(keys.len() as u64) as usize];
        let used = self.dice.below(2) == 0;
        let package = self.books.settle_hold(Self::fingerprint(key), used);
        assert_eq!(
            package.map(|package| package.0),
            self.reference.holds.get(&key).copied()
        );
        self.reference.settle(key, used);
    }

    fn commit(&mut self) {
        let moment = self.moment();
        rows::post(&self.db, moment.batch, moment.at, self.books.moved()).unwrap();
        self.books.settle(moment.at);
        self.durable = self.reference.clone();
        self.compare();
    }

    /// The commit fails: everything since the last one is undone.
    fn fail(&mut self) {
        self.books.revert();
        self.reference = self.durable.clone();
    }

    /// The process dies: memory is gone, and pending items are failed at the next start.
    fn crash(&mut self) {
        self.reference = self.durable.clone();
        let held = self.reference.holds.values().map(|row| PackageRow(*row));
        let releases = rows::releases(&self.db, held).unwrap();
        let moment = self.moment();
        rows::post(&self.db, moment.batch, moment.at, &releases).unwrap();
        for key in self.reference.holds.keys().copied().collect::<Vec<_>>() {
            self.reference.settle(key, false);
        }
        self.books = rows::load(&self.db, &self.directory, self.at()).unwrap();
        self.durable = self.reference.clone();
        self.lapse();
    }

    fn lapse(&mut self) {
        self.commit();
        let moment = self.moment();
        for tenant in self.books.turned(moment.at) {
            let lapses = self.books.lapses(tenant.row, moment.at);
            rows::post(&self.db, moment.batch, moment.at, &lapses).unwrap();
        }
        self.reread();
        assert_eq!(self.books.lapses(self.tenant.row, moment.at), [], "lapsing twice");
        self.reference.lapse(self.now);
        self.durable = self.reference.clone();
        self.compare();
    }

    fn reread(&mut self) {
        let packages = rows::read_held(&self.db, self.tenant.row).unwrap();
        self.books.put(&self.tenant, packages, self.at());
    }

    fn change(&mut self, change: LedgerChange) -> bool {
        self.commit();
        let moment = self.moment();
        let done = change::apply(&self.db, &self.directory, moment, change).is_ok();
        self.reread();
        done
    }

    fn grant(&mut self) {
        let limitless = self.dice.below(20) == 0;
        let units = if limitless { 0 } else { self.dice.below(60) };
        let begins = self.now + self.dice.below(3) * 1_000;
        let length = 2_000 + self.dice.below(30_000);
        let name = TenantName::new("t").unwrap();
        let known = if limitless { "unlimited" } else { kind::PREPAID };
        let granted = self.change(LedgerChange::Grant {
            tenant: name,
            kind: known.into(),
            units,
            activated: Some(UnixMillis(begins)),
            reference: String::new(),
        });
        assert!(granted);
        // Terms of kinds are months; here they are seconds, so that many of them pass.
        let row = u32::try_from(self.db.last_insert_rowid()).unwrap();
        let last: u32 = self
            .db
            .query_row("SELECT max(row) FROM package", [], |row| row.get(0))
            .unwrap();
        assert!(row >= 1);
        let ends = begins + length;
        rows::end_package(&self.db, PackageRow(last), UnixMillis(ends)).unwrap();
        self.reread();
        self.reference.heaps.push(Heap {
            row: last,
            begins,
            ends,
            limitless,
            units: vec![Place::Free; units as usize],
        });
        self.durable = self.reference.clone();
        self.compare();
    }

    fn correct(&mut self) {
        if self.reference.heaps.is_empty() {
            return;
        }
        let place = self.dice.below(self.reference.heaps.len() as u64) as usize;
        let units = self.dice.below(40) as i64 - 20;
        let heap = &self.reference.heaps[place];
        let fits = !heap.limitless && units != 0 && heap.count(Place::Free) + units >= 0;
        let change = LedgerChange::Correct {
            package: PackageRow(heap.row),
            units,
            reason: "by hand".into(),
        };
        assert_eq!(self.change(change), fits);
        let heap = &mut self.reference.heaps[place];
        if fits {
            for _ in 0..units {
                heap.units.push(Place::Free);
            }
            for _ in units..0 {
                assert!(heap.turn(Place::Free, Place::Taken));
            }
        }
        self.durable = self.reference.clone();
        self.compare();
    }

    /// Balances on disk, and what the gate sees, are what the reference has.
    fn compare(&self) {
        for heap in &self.reference.heaps {
            let balance =
                |account| rows::balance(&self.db, PackageRow(heap.row), Unit::Signature, account).unwrap();
            let found = [
                balance(LedgerAccount::Available),
                balance(LedgerAccount::Held),
                balance(LedgerAccount::Used),
                balance(LedgerAccount::Lapsed),
            ];
            let places = [Place::Free, Place::Held, Place::Used, Place::Lapsed];
            assert_eq!(
                found,
                places.map(|place| heap.count(place)),
                "package {}",
                heap.row
            );
        }
        let sum: i64 = self
            .db
            .query_row("SELECT coalesce(sum(units), 0) FROM balance", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(sum, 0);
        let packages = rows::read_held(&self.db, self.tenant.row).unwrap();
        let seen = book::standing(&packages, self.at()).left;
        assert_eq!(seen, self.reference.left(self.now));
    }

    fn step(&mut self) {
        match self.dice.below(1_000) {
            0..600 => self.pay(),
            600..660 => self.hold(),
            660..720 => self.settle_hold(),
            720..900 => self.commit(),
            900..930 => self.fail(),
            930..935 => self.crash(),
            935..960 => self.now += self.dice.below(1_500),
            960..980 => self.lapse(),
            980..988 => self.grant(),
            _ => self.correct(),
        }
    }

    /// What is long over and has nothing held is of no more interest.
    fn forget(&mut self) {
        self.lapse();
        let now = self.now;
        let is_over = |heap: &Heap| heap.ends + 10_000 < now && heap.count(Place::Held) == 0;
        for heap in self.reference.heaps.iter().filter(|heap| is_over(heap)) {
            self.db
                .execute("DELETE FROM balance WHERE package = ?", [heap.row])
                .unwrap();
            self.db
                .execute("DELETE FROM package WHERE row = ?", [heap.row])
                .unwrap();
        }
        self.reference.heaps.retain(|heap| !is_over(heap));
        self.durable = self.reference.clone();
        self.reread();
    }
}

#[test]
fn the_books_agree_with_a_reference_that_keeps_every_unit_by_itself() {
    let steps: u64 = std::env::var("TEST_LEDGER_STEPS").map_or(100_000, |text| text.parse().unwrap());
    let mut refused = 0;
    for seed in 1..=steps.div_ceil(20_000) {
        let mut trial = Trial::new(seed);
        for step in 0..20_000.min(steps) {
            trial.step();
            if step % 1_000 == 999 {
                trial.forget();
            }
        }
        trial.commit();
        refused += trial.refused;
    }
    assert!(refused > 0, "no balance was ever used up");
}
