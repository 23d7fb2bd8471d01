//! The ledger on disk. `transfer` is the record and only grows; `balance` is derived from it, written beside it in the
//! same transaction, and checked against it by reconciliation.

use std::collections::BTreeMap;

use protocol::clock::UnixMillis;
use protocol::ids::TenantRow;
use rusqlite::{Connection, OptionalExtension, params};

use super::book::{Books, Held};
use super::kind::{self, PackageKind};
use super::{Balance, LedgerAccount, Package, PackageRow, Transfer, Unit};
use crate::directory::Directory;
use crate::error::{Result, StoreError};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE package_kind (name TEXT PRIMARY KEY, definition TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE package (
        row     INTEGER PRIMARY KEY,
        tenant  INTEGER NOT NULL REFERENCES tenant,
        kind    TEXT NOT NULL,
        unit    INTEGER NOT NULL,
        unlimited INTEGER NOT NULL,
        activated_ms INTEGER NOT NULL,
        expires_ms INTEGER,           -- NULL: no end
        price_li INTEGER,             -- paid, in 0.001 yuan; NULL: no price was known
        reference TEXT NOT NULL,
        created_ms INTEGER NOT NULL
    );
    CREATE INDEX package_of_tenant ON package (tenant);
    CREATE TABLE transfer (           -- units from one account of a package to another
        row     INTEGER PRIMARY KEY,
        batch   INTEGER NOT NULL,     -- journal.first of the commit
        at_ms   INTEGER NOT NULL,     -- of that commit
        package INTEGER NOT NULL,
        unit    INTEGER NOT NULL,
        source  INTEGER NOT NULL,
        target  INTEGER NOT NULL,
        units   INTEGER NOT NULL CHECK (units > 0)
    );
    CREATE TABLE used_by_order (      -- units that an operator has booked, for reconciliation
        tenant  INTEGER NOT NULL,
        unit    INTEGER NOT NULL,
        units   INTEGER NOT NULL,
        PRIMARY KEY (tenant, unit)
    ) WITHOUT ROWID;
    CREATE TABLE balance (            -- derived from the transfers, in their transaction
        package INTEGER NOT NULL,
        unit    INTEGER NOT NULL,
        account INTEGER NOT NULL,
        units   INTEGER NOT NULL,
        PRIMARY KEY (package, unit, account)
    ) WITHOUT ROWID;
";

fn corrupt(what: &'static str) -> StoreError {
    StoreError::Corrupt { sequence: 0, what }
}

/// Puts the built-in kinds into a new store.
pub(crate) fn seed(db: &Connection) -> Result<()> {
    kind::builtin().iter().try_for_each(|kind| set_kind(db, kind))
}

pub(crate) fn set_kind(db: &Connection, kind: &PackageKind) -> Result<()> {
    let definition = serde_json::to_string(kind).map_err(|_| corrupt("a package kind"))?;
    db.execute(
        "INSERT OR REPLACE INTO package_kind (name, definition) VALUES (?, ?)",
        [&kind.name, &definition],
    )?;
    Ok(())
}

fn read_definition(text: &str) -> Result<PackageKind> {
    serde_json::from_str(text).map_err(|_| corrupt("a package kind"))
}

/// A kind by name.
pub(crate) fn kind(db: &Connection, name: &str) -> Result<Option<PackageKind>> {
    let sql = "SELECT definition FROM package_kind WHERE name = ?";
    let text: Option<String> = db.query_row(sql, [name], |row| row.get(0)).optional()?;
    text.map(|text| read_definition(&text)).transpose()
}

/// All kinds, by name.
pub(crate) fn kinds(db: &Connection) -> Result<Vec<PackageKind>> {
    let mut statement = db.prepare("SELECT definition FROM package_kind ORDER BY name")?;
    let texts = statement.query_map([], |row| row.get::<_, String>(0))?;
    texts.map(|text| read_definition(&text?)).collect()
}

/// Inserts a package; its `row` is ignored.
pub(crate) fn insert_package(db: &Connection, at: UnixMillis, package: &Package) -> Result<PackageRow> {
    let sql = "INSERT INTO package (tenant, kind, unit, unlimited, activated_ms, expires_ms, price_li, reference, \
               created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    db.execute(
        sql,
        params![
            package.tenant.0,
            package.kind,
            package.unit as u8,
            package.unlimited,
            package.activated.0.cast_signed(),
            package.expires.map(|at| at.0.cast_signed()),
            package.price_li.map(u64::cast_signed),
            package.reference,
            at.0.cast_signed()
        ],
    )?;
    let row = u32::try_from(db.last_insert_rowid()).map_err(|_| corrupt("too many packages"))?;
    Ok(PackageRow(row))
}

/// Ends a package before its time.
pub(crate) fn end_package(db: &Connection, package: PackageRow, at: UnixMillis) -> Result<()> {
    let sql = "UPDATE package SET expires_ms = ? WHERE row = ?";
    db.execute(sql, params![at.0.cast_signed(), package.0])?;
    Ok(())
}

const PACKAGE: &str =
    "SELECT row, tenant, kind, unit, unlimited, activated_ms, expires_ms, price_li, reference FROM package";

fn read_package(row: &rusqlite::Row<'_>) -> rusqlite::Result<Package> {
    Ok(Package {
        row: PackageRow(row.get(0)?),
        tenant: TenantRow(row.get(1)?),
        kind: row.get(2)?,
        unit: Unit::from_number(row.get(3)?).unwrap_or(Unit::Signature),
        unlimited: row.get(4)?,
        activated: UnixMillis(row.get::<_, i64>(5)?.cast_unsigned()),
        expires: row
            .get::<_, Option<i64>>(6)?
            .map(|ms| UnixMillis(ms.cast_unsigned())),
        price_li: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
        reference: row.get(8)?,
    })
}

/// A package.
pub(crate) fn package(db: &Connection, row: PackageRow) -> Result<Option<Package>> {
    let sql = format!("{PACKAGE} WHERE row = ?");
    Ok(db.query_row(&sql, [row.0], read_package).optional()?)
}

/// A tenant's packages, in order of expiry.
pub(crate) fn packages(db: &Connection, tenant: TenantRow) -> Result<Vec<Package>> {
    let sql = format!("{PACKAGE} WHERE tenant = ? ORDER BY expires_ms IS NULL, expires_ms, row");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([tenant.0], read_package)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What one account of a package holds.
pub(crate) fn balance(
    db: &Connection,
    package: PackageRow,
    unit: Unit,
    account: LedgerAccount,
) -> Result<i64> {
    let sql = "SELECT units FROM balance WHERE package = ? AND unit = ? AND account = ?";
    let mut statement = db.prepare_cached(sql)?;
    let units = statement.query_row(params![package.0, unit as u8, account as u8], |row| row.get(0));
    Ok(units.optional()?.unwrap_or(0))
}

/// Every account of a package that holds or held something.
pub(crate) fn balances(db: &Connection, package: PackageRow) -> Result<Vec<Balance>> {
    let sql = "SELECT unit, account, units FROM balance WHERE package = ? ORDER BY unit, account";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([package.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Balance {
            package,
            unit: Unit::from_number(row.get(0)?).ok_or_else(|| corrupt("a unit"))?,
            account: LedgerAccount::from_number(row.get(1)?).ok_or_else(|| corrupt("an account"))?,
            units: row.get(2)?,
        });
    }
    Ok(found)
}

/// Writes transfers into the open transaction, and the balances with them.
pub(crate) fn post(db: &Connection, batch: u64, at: UnixMillis, transfers: &[Transfer]) -> Result<()> {
    if transfers.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO transfer (batch, at_ms, package, unit, source, target, units) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let mut insert = db.prepare_cached(sql)?;
    let sql = "INSERT INTO balance (package, unit, account, units) VALUES (?, ?, ?, ?) \
               ON CONFLICT DO UPDATE SET units = units + excluded.units";
    let mut update = db.prepare_cached(sql)?;
    for transfer in transfers {
        let Transfer {
            package,
            unit,
            from,
            to,
            ..
        } = *transfer;
        let units = transfer.units.cast_signed();
        insert.execute(params![
            batch.cast_signed(),
            at.0.cast_signed(),
            package.0,
            unit as u8,
            from as u8,
            to as u8,
            units
        ])?;
        for (account, units) in [(from, -units), (to, units)] {
            update.execute(params![package.0, unit as u8, account as u8, units])?;
        }
    }
    Ok(())
}

/// A tenant's packages with what they hold, for the books.
pub(crate) fn read_held(db: &Connection, tenant: TenantRow) -> Result<Vec<Held>> {
    let held = |package: Package| {
        let units =
            |unit, account| balance(db, package.row, unit, account).map(|units| units.max(0).cast_unsigned());
        Ok(Held {
            available: units(package.unit, LedgerAccount::Available)?,
            lapsed: units(package.unit, LedgerAccount::Lapsed)?,
            held: units(Unit::Signature, LedgerAccount::Held)?,
            used: units(Unit::Signature, LedgerAccount::Used)?,
            package,
        })
    };
    packages(db, tenant)?.into_iter().map(held).collect()
}

/// Reads all books. Nothing is pending yet, so nothing is held.
pub(crate) fn load(db: &Connection, directory: &Directory, now: UnixMillis) -> Result<Books> {
    let mut books = Books::default();
    for tenant in directory.tenants() {
        books.put(&tenant, read_held(db, tenant.row)?, now);
    }
    Ok(books)
}

/// What gives back the units held for items that will never be done.
pub(crate) fn releases(db: &Connection, held: impl Iterator<Item = PackageRow>) -> Result<Vec<Transfer>> {
    let mut counts: BTreeMap<PackageRow, u64> = BTreeMap::new();
    held.for_each(|package| *counts.entry(package).or_default() += 1);
    let release = |(row, units)| {
        let package =
            package(db, row)?.ok_or_else(|| corrupt("a unit is held in a package that is not there"))?;
        let carries = package.carries_signatures();
        Ok(Transfer {
            tenant: package.tenant,
            package: row,
            unit: Unit::Signature,
            from: LedgerAccount::Held,
            to: if carries {
                LedgerAccount::Unlimited
            } else {
                LedgerAccount::Available
            },
            units,
        })
    };
    counts.into_iter().map(release).collect()
}
