//! Statements and reconciliation: the journal of a month, added up. The journal is the source of truth; the ledger and
//! the usage counters must say the same (SEMANTICS 4.7), and where they do not, the month's statements are frozen.
//!
//! Everything streams: memory holds one commit's entries and the totals, however long the month is.

use std::collections::BTreeMap;

use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppRow, CredentialRow, Sequence, TenantRow};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use crate::archive;
use crate::error::{Result, StoreError};
use crate::journal;
use crate::ledger::{LedgerAccount, PackageRow, Unit};
use crate::record::{Signed, month_of};
use crate::seals;
use crate::usage;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE journal_span (       -- from which batch on the journal's entries belong to which month
        first   INTEGER PRIMARY KEY,  -- journal.first
        month   INTEGER NOT NULL      -- YYYYMM, Asia/Shanghai
    );
    CREATE TABLE statement_freeze (   -- months whose statements are not to be used
        month   INTEGER PRIMARY KEY,
        reason  TEXT NOT NULL,
        frozen_ms INTEGER NOT NULL
    );
";

/// Notes where a month begins in the journal; also when the clock was set back over the end of one.
pub(crate) fn note_month(db: &Connection, first: u64, at: UnixMillis) -> Result<()> {
    let mut last = db.prepare_cached("SELECT month FROM journal_span ORDER BY first DESC LIMIT 1")?;
    let known: Option<u32> = last.query_row([], |row| row.get(0)).optional()?;
    if known != Some(month_of(at)) {
        db.prepare_cached("INSERT INTO journal_span (first, month) VALUES (?, ?)")?
            .execute(params![first.cast_signed(), month_of(at)])?;
    }
    Ok(())
}

/// The parts of the journal that belong to a month, as first entries: from, and up to but without.
fn spans(db: &Connection, month: u32) -> Result<Vec<(u64, u64)>> {
    let sql = "SELECT first, month, lead(first, 1, ?) OVER (ORDER BY first) FROM journal_span ORDER BY first";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([i64::MAX])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, u32>(1)? == month {
            found.push((
                row.get::<_, i64>(0)?.cast_unsigned(),
                row.get::<_, i64>(2)?.cast_unsigned(),
            ));
        }
    }
    match archive::of_month(db, month)? {
        Some(file) if found.is_empty() => {
            let (year, month) = (month / 100, month % 100);
            let text = format!("the journal of {year:04}-{month:02} is archived, in {file}");
            Err(StoreError::Refused(Refusal::new(Code::MonthInvalid, text)))
        }
        _ => Ok(found),
    }
}

/// The months there are, in order.
pub(crate) fn months(db: &Connection) -> Result<Vec<u32>> {
    let mut statement = db.prepare("SELECT DISTINCT month FROM journal_span ORDER BY month")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Visits every signature and time stamp of a month, in order.
fn signatures(
    db: &Connection,
    month: u32,
    mut visit: impl FnMut(Sequence, UnixMillis, &Signed<'_>) -> Result<()>,
) -> Result<()> {
    for (from, to) in spans(db, month)? {
        journal::scan_raw(db, from, to, |sequence, at, record| {
            let corrupt = |_| StoreError::Corrupt {
                sequence: sequence.0,
                what: "a record cannot be read",
            };
            match Signed::read(record).map_err(corrupt)? {
                Some(signed) => visit(sequence, at, &signed),
                None => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// What signatures are added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementKey {
    /// The app that asked.
    pub app: AppRow,
    /// The credential that signed; 0: none, as for time stamps.
    pub credential: CredentialRow,
    /// The operation: signing, by the number of the result's format; or [`crate::TIME_STAMP`].
    pub format: u8,
    /// The package that paid; `None`: nothing was charged.
    pub package: Option<PackageRow>,
}

/// A tenant's month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Units, in order.
    pub lines: BTreeMap<StatementKey, u64>,
    /// The first and the last entry that is in it.
    pub entries: Option<(Sequence, Sequence)>,
    /// Why it is not to be used, if it is not.
    pub frozen: Option<String>,
}

impl Statement {
    /// Units that were charged.
    pub fn charged(&self) -> u64 {
        let charged = self.lines.iter().filter(|(key, _)| key.package.is_some());
        charged.map(|(_, units)| units).sum()
    }

    /// Signatures that cost nothing: those on a sandbox.
    pub fn free(&self) -> u64 {
        self.lines.values().sum::<u64>() - self.charged()
    }
}

/// Adds up a tenant's month.
pub(crate) fn statement(db: &Connection, tenant: TenantRow, month: u32) -> Result<Statement> {
    let mut statement = Statement {
        frozen: frozen(db, month)?,
        ..Statement::default()
    };
    // Neighbours are alike more often than not.
    let mut run: Option<(StatementKey, u64)> = None;
    signatures(db, month, |sequence, _, signed| {
        if signed.tenant != tenant.0 {
            return Ok(());
        }
        let first = statement.entries.map_or(sequence, |(first, _)| first);
        statement.entries = Some((first, sequence));
        let key = key_of(signed);
        match &mut run {
            Some((same, units)) if *same == key => *units += 1,
            _ => {
                if let Some((key, units)) = run.replace((key, 1)) {
                    *statement.lines.entry(key).or_default() += units;
                }
            }
        }
        Ok(())
    })?;
    if let Some((key, units)) = run {
        *statement.lines.entry(key).or_default() += units;
    }
    Ok(statement)
}

fn key_of(signed: &Signed<'_>) -> StatementKey {
    StatementKey {
        app: AppRow(signed.app),
        credential: CredentialRow(signed.credential),
        format: signed.format,
        package: signed.package.map(PackageRow),
    }
}

/// One unit of a statement and the request it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementItem {
    /// The journal entry.
    pub sequence: Sequence,
    /// When it was committed.
    pub at: UnixMillis,
    /// What it is added up by.
    pub key: StatementKey,
    /// The request's idempotency key.
    pub request: String,
    /// The item's place in its request.
    pub item: u16,
    /// The number of the algorithm.
    pub algorithm: u8,
}

/// Visits every unit of a tenant's month.
pub(crate) fn items(
    db: &Connection,
    tenant: TenantRow,
    month: u32,
    mut visit: impl FnMut(StatementItem) -> Result<()>,
) -> Result<()> {
    signatures(db, month, |sequence, at, signed| {
        if signed.tenant != tenant.0 {
            return Ok(());
        }
        visit(StatementItem {
            sequence,
            at,
            key: key_of(signed),
            request: signed.key.to_owned(),
            item: signed.item,
            algorithm: signed.algorithm,
        })
    })
}

/// Why a month's statements are not to be used.
pub(crate) fn frozen(db: &Connection, month: u32) -> Result<Option<String>> {
    let sql = "SELECT reason FROM statement_freeze WHERE month = ?";
    Ok(db.query_row(sql, [month], |row| row.get(0)).optional()?)
}

/// Every frozen month, and why.
pub(crate) fn all_frozen(db: &Connection) -> Result<Vec<(u32, String)>> {
    let mut statement = db.prepare_cached("SELECT month, reason FROM statement_freeze ORDER BY month")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn freeze(db: &Connection, month: u32, reason: &str, at: UnixMillis) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO statement_freeze (month, reason, frozen_ms) VALUES (?, ?, ?)";
    db.execute(sql, params![month, reason, at.0.cast_signed()])?;
    Ok(())
}

pub(crate) fn thaw(db: &Connection, month: u32) -> Result<()> {
    db.execute("DELETE FROM statement_freeze WHERE month = ?", [month])?;
    Ok(())
}

/// Two records that should say the same and do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which two.
    pub between: &'static str,
    /// The month, YYYYMM; 0: all of them.
    pub month: u32,
    /// Of what.
    pub subject: String,
    /// What the first says.
    pub first: i64,
    /// What the second says.
    pub second: i64,
}

/// What a reconciliation found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// The months it looked at.
    pub months: Vec<u32>,
    /// Signatures and time stamps in the journal.
    pub signatures: u64,
    /// Those that were charged.
    pub charged: u64,
    /// Transfers in the ledger.
    pub transfers: u64,
    /// Leaves of the audit log; 0 where it was not looked at.
    pub audit_leaves: u64,
    /// What does not agree.
    pub differences: Vec<Difference>,
}

type Booked = BTreeMap<(u32, u32, u8), i64>;
type Counted = BTreeMap<(u32, u32, u32), i64>;

/// Holds the journal of some months against the ledger and the usage counters, and the ledger against itself. One
/// snapshot of the database: what is committed meanwhile is in none of them.
pub(crate) fn reconcile(db: &Connection, months: &[u32]) -> Result<Reconciliation> {
    let snapshot = db.unchecked_transaction()?;
    let mut found = Reconciliation {
        months: months.to_vec(),
        ..Reconciliation::default()
    };
    let mut paid = Booked::new();
    let mut counted = Counted::new();
    let mut sealed = Counted::new();
    for &month in months {
        signatures(&snapshot, month, |_, _, signed| {
            found.signatures += 1;
            if let Some((seal, grant)) = signed.seal {
                *sealed.entry((month, seal, grant)).or_default() += 1;
            }
            *counted.entry((month, signed.app, signed.credential)).or_default() += 1;
            if let Some(package) = signed.package {
                found.charged += 1;
                *paid.entry((month, package, signed.unit() as u8)).or_default() += 1;
            }
            Ok(())
        })?;
    }
    let posted = posted(&snapshot, months)?;
    found.transfers = posted.transfers;
    let package = |(_, package, unit): &(u32, u32, u8)| format!("package {package}, unit {unit}");
    compare(
        "journal = ledger",
        &paid,
        &posted.booked,
        |key| key.0,
        package,
        &mut found.differences,
    );
    let usage = |(_, app, credential): &(u32, u32, u32)| format!("app {app}, credential {credential}");
    let counters = counters(&snapshot, months)?;
    compare(
        "journal = usage",
        &counted,
        &counters,
        |key| key.0,
        usage,
        &mut found.differences,
    );
    let uses: Counted = seals::rows::counted(&snapshot, months)?.into_iter().collect();
    let grant = |(_, seal, grant): &(u32, u32, u32)| format!("seal {seal}, grant {grant}");
    compare(
        "journal = uses of seals",
        &sealed,
        &uses,
        |key| key.0,
        grant,
        &mut found.differences,
    );
    check_balances(&snapshot, &posted.accounts, &mut found.differences)?;
    check_holds(&snapshot, &mut found.differences)?;
    check_registry(&snapshot, &mut found.differences)?;
    Ok(found)
}

fn compare<K: Ord + Copy>(
    between: &'static str,
    first: &BTreeMap<K, i64>,
    second: &BTreeMap<K, i64>,
    month: impl Fn(&K) -> u32,
    subject: impl Fn(&K) -> String,
    differences: &mut Vec<Difference>,
) {
    let keys: std::collections::BTreeSet<K> = first.keys().chain(second.keys()).copied().collect();
    for key in keys {
        let of = |map: &BTreeMap<K, i64>| map.get(&key).copied().unwrap_or(0);
        if of(first) != of(second) {
            differences.push(Difference {
                between,
                month: month(&key),
                subject: subject(&key),
                first: of(first),
                second: of(second),
            });
        }
    }
}

type Accounts = BTreeMap<(u32, u8, u8), i64>;

/// What the transfers come to.
#[derive(Default)]
struct Posted {
    transfers: u64,
    /// Signatures and time stamps used, by month, package and unit.
    booked: Booked,
    /// Balances, by package, unit and account.
    accounts: Accounts,
}

fn posted(db: &Connection, months: &[u32]) -> Result<Posted> {
    let used = LedgerAccount::Used as u8;
    let mut statement = db.prepare("SELECT at_ms, package, unit, source, target, units FROM transfer")?;
    let mut rows = statement.query([])?;
    let mut posted = Posted::default();
    while let Some(row) = rows.next()? {
        let (package, unit, units): (u32, u8, i64) = (row.get(1)?, row.get(2)?, row.get(5)?);
        let month = month_of(UnixMillis(row.get::<_, i64>(0)?.cast_unsigned()));
        posted.transfers += 1;
        for (account, units) in [(row.get(3)?, -units), (row.get(4)?, units)] {
            *posted.accounts.entry((package, unit, account)).or_default() += units;
            let counted = unit == Unit::Signature as u8 || unit == Unit::TimeStamp as u8;
            if account == used && counted && months.contains(&month) {
                *posted.booked.entry((month, package, unit)).or_default() += units;
            }
        }
    }
    Ok(posted)
}

fn counters(db: &Connection, months: &[u32]) -> Result<Counted> {
    let sql = "SELECT month, app, credential, units FROM usage WHERE month = ? AND credential <> ?";
    let mut statement = db.prepare(sql)?;
    let mut counted = Counted::new();
    for month in months {
        let mut rows = statement.query([*month, usage::CERTIFICATES.0])?;
        while let Some(row) = rows.next()? {
            counted.insert((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?);
        }
    }
    Ok(counted)
}

/// Every derived balance is the sum of its transfers, their sum is zero, and what is counted is never below it.
fn check_balances(db: &Connection, posted: &Accounts, differences: &mut Vec<Difference>) -> Result<()> {
    let mut statement = db.prepare("SELECT package, unit, account, units FROM balance")?;
    let rows = statement.query_map([], |row| {
        Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?))
    })?;
    let derived: Accounts = rows.collect::<rusqlite::Result<_>>()?;
    let account = |(package, unit, account): &(u32, u8, u8)| {
        format!("package {package}, unit {unit}, account {account}")
    };
    compare(
        "transfers = balance",
        posted,
        &derived,
        |_| 0,
        account,
        differences,
    );
    let mut sums: BTreeMap<u32, i64> = BTreeMap::new();
    derived
        .iter()
        .for_each(|((package, ..), units)| *sums.entry(*package).or_default() += units);
    let zero = sums.keys().map(|package| (*package, 0)).collect();
    let package = |package: &u32| format!("package {package}");
    compare("sum of balances = 0", &sums, &zero, |_| 0, package, differences);
    for (key, units) in derived
        .iter()
        .filter(|((_, _, account), units)| *account >= 4 && **units < 0)
    {
        differences.push(Difference {
            between: "balance >= 0",
            month: 0,
            subject: account(key),
            first: *units,
            second: 0,
        });
    }
    Ok(())
}

/// Certificates that were issued and enterprises that were approved, with what operators have booked besides, are what the
/// ledger says was used; and the certificates that apps were issued are what their counters say. Of all time: these tables
/// are not by month.
fn check_registry(db: &Connection, differences: &mut Vec<Difference>) -> Result<()> {
    let read = |sql: &str| -> Result<BTreeMap<(u32, u8), i64>> {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    let (certificate, user) = (Unit::Certificate as u8, Unit::User as u8);
    let made = format!(
        "SELECT tenant, unit, sum(units) FROM (\
         SELECT t.row AS tenant, {certificate} AS unit, count(*) AS units FROM certificate c \
         JOIN tenant t ON t.name = c.tenant WHERE c.counted AND c.standing > 0 GROUP BY t.row \
         UNION ALL SELECT t.row, {user}, count(*) FROM subject s JOIN tenant t ON t.name = s.tenant \
         WHERE s.counted GROUP BY t.row \
         UNION ALL SELECT tenant, unit, units FROM used_by_order WHERE unit IN ({certificate}, {user})) \
         GROUP BY tenant, unit"
    );
    let used = format!(
        "SELECT p.tenant, b.unit, sum(b.units) FROM balance b JOIN package p ON p.row = b.package \
         WHERE b.account = {} AND b.unit IN ({certificate}, {user}) GROUP BY p.tenant, b.unit HAVING sum(b.units) <> 0",
        LedgerAccount::Used as u8
    );
    let tenant = |(tenant, unit): &(u32, u8)| format!("tenant {tenant}, unit {unit}");
    let (made, used) = (read(&made)?, read(&used)?);
    compare("registry = ledger", &made, &used, |_| 0, tenant, differences);
    let issued = format!(
        "SELECT a.row, {certificate}, count(*) FROM certificate c JOIN app a ON a.id = c.app \
         WHERE c.counted AND c.standing > 0 GROUP BY a.row"
    );
    let counted = format!(
        "SELECT app, {certificate}, sum(units) FROM usage WHERE credential = {} GROUP BY app",
        usage::CERTIFICATES.0
    );
    let app = |(app, _): &(u32, u8)| format!("app {app}, certificates");
    let (issued, counted) = (read(&issued)?, read(&counted)?);
    compare("registry = usage", &issued, &counted, |_| 0, app, differences);
    Ok(())
}

/// What is held is what pending items hold.
fn check_holds(db: &Connection, differences: &mut Vec<Difference>) -> Result<()> {
    let read = |sql: &str| -> Result<BTreeMap<u32, i64>> {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    let pending = read("SELECT package, count(*) FROM pending WHERE package IS NOT NULL GROUP BY package")?;
    let held = format!(
        "SELECT package, units FROM balance WHERE account = {} AND units <> 0",
        LedgerAccount::Held as u8
    );
    let package = |package: &u32| format!("package {package}");
    compare(
        "pending = held",
        &pending,
        &read(&held)?,
        |_| 0,
        package,
        differences,
    );
    Ok(())
}
