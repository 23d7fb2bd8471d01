//! What an operator may do with packages. Each change is applied inside one transaction with its journal entry; the
//! books are read anew after the commit.

use std::sync::Arc;

use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{TenantName, TenantRow};
use rusqlite::{Connection, params};

use super::kind::{self, PackageKind};
use super::{LedgerAccount, Package, PackageRow, Transfer, Unit, rows};
use crate::directory::{Directory, Tenant};
use crate::error::{Result, StoreError};
use crate::statement;

/// A change of the ledger.
#[derive(Debug)]
pub enum LedgerChange {
    /// A kind of package, new or changed. Packages that were bought keep their terms.
    SetKind(PackageKind),
    /// A package for a tenant. The first that is bought ends the limitless one it began with.
    Grant {
        /// Whose.
        tenant: TenantName,
        /// Which kind.
        kind: String,
        /// How many units; none where the kind has no limit.
        units: u64,
        /// When its term begins; `None`: now.
        activated: Option<UnixMillis>,
        /// A contract's or an incident's number.
        reference: String,
    },
    /// Puts a package right: gives back units that were used, or takes away units that are there.
    Correct {
        /// Which package.
        package: PackageRow,
        /// Units: above zero given, below zero taken.
        units: i64,
        /// Why.
        reason: String,
    },
    /// Uses units that no signature uses: an enterprise account created, a contract begun.
    Use {
        /// Whose.
        tenant: TenantName,
        /// Which.
        unit: Unit,
        /// How many.
        units: u64,
        /// What for.
        reference: String,
    },
    /// A month's statements are not to be used.
    Freeze {
        /// YYYYMM.
        month: u32,
        /// Why.
        reason: String,
    },
    /// They may be used again.
    Thaw {
        /// YYYYMM.
        month: u32,
    },
}

impl LedgerChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::SetKind(kind) => ("package-kind.set", kind.name.clone()),
            Self::Grant {
                tenant,
                kind,
                units,
                reference,
                ..
            } => (
                "package.grant",
                format!("{tenant} {kind} units={units} {reference}"),
            ),
            Self::Correct {
                package,
                units,
                reason,
            } => ("package.correct", format!("{} units={units} {reason}", package.0)),
            Self::Freeze { month, reason } => ("statement.freeze", format!("{month} {reason}")),
            Self::Thaw { month } => ("statement.thaw", month.to_string()),
            Self::Use {
                tenant,
                unit,
                units,
                reference,
            } => (
                "package.use",
                format!("{tenant} {unit:?} units={units} {reference}"),
            ),
        }
    }
}

/// When and in which batch a change is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: UnixMillis,
    pub(crate) batch: u64,
}

fn refuse(code: Code, text: String) -> StoreError {
    StoreError::Refused(Refusal::new(code, text))
}

fn tenant_of(directory: &Directory, name: &TenantName) -> Result<Arc<Tenant>> {
    directory
        .tenant(name.as_str())
        .ok_or_else(|| refuse(Code::NotFound, format!("no tenant '{name}'")))
}

/// Writes a change into the open transaction; returns whose books it changes.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    moment: Moment,
    change: LedgerChange,
) -> Result<Option<TenantRow>> {
    match change {
        LedgerChange::SetKind(kind) => {
            kind.check()
                .map_err(|error| refuse(Code::Usage, error.to_string()))?;
            rows::set_kind(db, &kind)?;
            Ok(None)
        }
        LedgerChange::Grant {
            tenant,
            kind,
            units,
            activated,
            reference,
        } => {
            let tenant = tenant_of(directory, &tenant)?.row;
            let kind = rows::kind(db, &kind)?
                .ok_or_else(|| refuse(Code::NotFound, format!("no package kind '{kind}'")))?;
            end_free(db, moment, tenant, kind.unit)?;
            let wanted = Wanted {
                units,
                activated,
                reference,
            };
            grant(db, moment, tenant, &kind, wanted)?;
            Ok(Some(tenant))
        }
        LedgerChange::Freeze { month, reason } => {
            statement::freeze(db, month, &reason, moment.at)?;
            Ok(None)
        }
        LedgerChange::Thaw { month } => {
            statement::thaw(db, month)?;
            Ok(None)
        }
        LedgerChange::Correct { package, units, .. } => correct(db, moment, package, units).map(Some),
        LedgerChange::Use {
            tenant, unit, units, ..
        } => {
            let tenant = tenant_of(directory, &tenant)?.row;
            use_units(db, moment, tenant, unit, units)?;
            let sql = "INSERT INTO used_by_order (tenant, unit, units) VALUES (?, ?, ?) \
                       ON CONFLICT DO UPDATE SET units = units + excluded.units";
            db.execute(sql, params![tenant.0, unit as u8, units.cast_signed()])?;
            Ok(Some(tenant))
        }
    }
}

/// What is granted.
pub(crate) struct Wanted {
    pub(crate) units: u64,
    pub(crate) activated: Option<UnixMillis>,
    pub(crate) reference: String,
}

/// Makes a package of a kind and puts its units into it.
pub(crate) fn grant(
    db: &Connection,
    moment: Moment,
    tenant: TenantRow,
    kind: &PackageKind,
    wanted: Wanted,
) -> Result<PackageRow> {
    let Wanted {
        units,
        activated,
        reference,
    } = wanted;
    if kind.unlimited && units > 0 {
        return Err(refuse(
            Code::Usage,
            format!("a package '{}' has no units", kind.name),
        ));
    }
    if !kind.unlimited && units < kind.units_min {
        let text = format!(
            "a package '{}' has at least {} units, not {units}",
            kind.name, kind.units_min
        );
        return Err(refuse(Code::Usage, text));
    }
    if i64::try_from(units).is_err() {
        return Err(refuse(Code::Usage, "more units than can be counted".into()));
    }
    let activated = activated.unwrap_or(moment.at);
    let package = Package {
        row: PackageRow(0),
        tenant,
        kind: kind.name.clone(),
        unit: kind.unit,
        unlimited: kind.unlimited,
        activated,
        expires: kind.expires(activated),
        price_li: kind.price_li(units),
        reference,
    };
    let row = rows::insert_package(db, moment.at, &package)?;
    let is_credit = kind.name == kind::CREDIT;
    let from = if is_credit {
        LedgerAccount::Credited
    } else {
        LedgerAccount::Sold
    };
    let transfer = Transfer {
        tenant,
        package: row,
        unit: kind.unit,
        from,
        to: LedgerAccount::Available,
        units,
    };
    post(db, moment, transfer)?;
    Ok(row)
}

/// What a tenant had for nothing ends when it buys the same.
fn end_free(db: &Connection, moment: Moment, tenant: TenantRow, unit: Unit) -> Result<()> {
    if let Some(counting) = kind::counting(unit) {
        end_of_kind(db, moment, tenant, counting)?;
    }
    match unit {
        // Whoever buys these has said nothing of signatures.
        Unit::TimeStamp | Unit::Certificate => Ok(()),
        Unit::Signature | Unit::User | Unit::Contract => end_of_kind(db, moment, tenant, kind::OPEN),
    }
}

/// Ends every package of a kind that a tenant has; what is left of it is taken back.
fn end_of_kind(db: &Connection, moment: Moment, tenant: TenantRow, kind: &str) -> Result<()> {
    let is_over = |package: &Package| package.expires.is_some_and(|at| at <= moment.at);
    for package in rows::packages(db, tenant)? {
        if package.kind != kind || is_over(&package) {
            continue;
        }
        let left = rows::balance(db, package.row, package.unit, LedgerAccount::Available)?;
        rows::end_package(db, package.row, moment.at)?;
        correction(db, moment, &package, -left)?;
    }
    Ok(())
}

/// Sets how many units a tenant may use in all, as `tenant prepaid` says: a balance without a term.
pub(crate) fn set_prepaid(
    db: &Connection,
    moment: Moment,
    tenant: TenantRow,
    prepaid: Option<u64>,
) -> Result<()> {
    let live = rows::packages(db, tenant)?;
    let current = live
        .iter()
        .find(|package| package.kind == kind::PREPAID && package.expires.is_none());
    match (prepaid, current) {
        (None, _) => {
            end_of_kind(db, moment, tenant, kind::PREPAID)?;
            end_of_kind(db, moment, tenant, kind::OPEN)?;
            begin(db, moment, tenant, kind::OPEN, 0)
        }
        (Some(units), None) => {
            end_of_kind(db, moment, tenant, kind::OPEN)?;
            begin(db, moment, tenant, kind::PREPAID, units)
        }
        (Some(units), Some(package)) => {
            let balance = |account| rows::balance(db, package.row, Unit::Signature, account);
            let used = balance(LedgerAccount::Used)? + balance(LedgerAccount::Held)?;
            let wanted = units.cast_signed().saturating_sub(used).max(0);
            correction(db, moment, package, wanted - balance(LedgerAccount::Available)?)
        }
    }
}

/// The package that a tenant begins with: a balance without a term, or no limit at all.
pub(crate) fn begin(
    db: &Connection,
    moment: Moment,
    tenant: TenantRow,
    kind: &str,
    units: u64,
) -> Result<()> {
    let known = rows::kind(db, kind)?.ok_or(StoreError::Corrupt {
        sequence: 0,
        what: "a built-in package kind is missing",
    })?;
    let wanted = Wanted {
        units,
        activated: None,
        reference: String::new(),
    };
    grant(db, moment, tenant, &known, wanted)?;
    Ok(())
}

/// Gives (above zero) or takes (below zero) units of a package.
fn correct(db: &Connection, moment: Moment, package: PackageRow, units: i64) -> Result<TenantRow> {
    let missing = || refuse(Code::NotFound, format!("no package {}", package.0));
    let package = rows::package(db, package)?.ok_or_else(missing)?;
    let available = rows::balance(db, package.row, package.unit, LedgerAccount::Available)?;
    if package.unlimited {
        return Err(refuse(
            Code::Usage,
            "a package without a limit has no units to correct".into(),
        ));
    }
    if units == 0 || available.checked_add(units).is_none_or(|left| left < 0) {
        let text = format!("the package has {available} units; {units} cannot be added to them");
        return Err(refuse(Code::Usage, text));
    }
    correction(db, moment, &package, units)?;
    Ok(package.tenant)
}

fn correction(db: &Connection, moment: Moment, package: &Package, units: i64) -> Result<()> {
    let (from, to) = if units > 0 {
        (LedgerAccount::Corrected, LedgerAccount::Available)
    } else {
        (LedgerAccount::Available, LedgerAccount::Corrected)
    };
    let transfer = Transfer {
        tenant: package.tenant,
        package: package.row,
        unit: package.unit,
        from,
        to,
        units: units.unsigned_abs(),
    };
    post(db, moment, transfer)
}

/// Counts something that is not a signature and has just been made: from what the tenant has bought of it, or, where it
/// never bought any, in a package that only counts.
pub(crate) fn count(db: &Connection, moment: Moment, tenant: TenantRow, unit: Unit) -> Result<()> {
    let has_some = rows::packages(db, tenant)?
        .iter()
        .any(|package| package.unit == unit);
    if let Some(counting) = kind::counting(unit).filter(|_| !has_some) {
        begin(db, moment, tenant, counting, 0)?;
    }
    use_units(db, moment, tenant, unit, 1)
}

/// Whether [`count`] would find a unit now.
pub(crate) fn check(db: &Connection, moment: Moment, tenant: TenantRow, unit: Unit) -> Result<()> {
    let mut has_some = false;
    for package in rows::packages(db, tenant)? {
        if package.unit != unit {
            continue;
        }
        has_some = true;
        let live = is_live(&package, moment.at);
        if live && (package.unlimited || rows::balance(db, package.row, unit, LedgerAccount::Available)? > 0)
        {
            return Ok(());
        }
    }
    match has_some {
        false => Ok(()),
        true => Err(missing(1, 1)),
    }
}

fn is_live(package: &Package, at: UnixMillis) -> bool {
    package.activated <= at && package.expires.is_none_or(|expires| at < expires)
}

fn missing(wanted: u64, units: u64) -> StoreError {
    let text = format!("{wanted} of {units} units are missing; nothing was booked");
    refuse(Code::QuotaExhausted, text)
}

/// Uses units of packages in order of expiry, all or none.
fn use_units(db: &Connection, moment: Moment, tenant: TenantRow, unit: Unit, units: u64) -> Result<()> {
    if matches!(unit, Unit::Signature | Unit::TimeStamp) {
        let text = "signatures and time stamps are counted when they are made";
        return Err(refuse(Code::Usage, text.into()));
    }
    let mut wanted = units;
    for package in rows::packages(db, tenant)? {
        if package.unit != unit || !is_live(&package, moment.at) {
            continue;
        }
        let available = rows::balance(db, package.row, unit, LedgerAccount::Available)?;
        let (from, taken) = if package.unlimited {
            (LedgerAccount::Unlimited, wanted)
        } else {
            (
                LedgerAccount::Available,
                wanted.min(available.max(0).cast_unsigned()),
            )
        };
        wanted -= taken;
        let transfer = Transfer {
            tenant,
            package: package.row,
            unit,
            from,
            to: LedgerAccount::Used,
            units: taken,
        };
        post(db, moment, transfer)?;
    }
    if wanted > 0 {
        return Err(missing(wanted, units));
    }
    Ok(())
}

fn post(db: &Connection, moment: Moment, transfer: Transfer) -> Result<()> {
    if transfer.units == 0 {
        return Ok(());
    }
    rows::post(db, moment.batch, moment.at, &[transfer])
}
