//! Packages, statements and reconciliation in the form in which people and programs get them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write;

use protocol::algorithm::{Algorithm, Format};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use serde::Serialize;
use sla::calendar::{MinuteIndex, Month};
use store::{
    Balance, Directory, LedgerAccount, Package, Reader, Statement, StatementItem, StatementKey, StoreError,
    Tenant, Unit,
};

/// A month as the journal counts them: YYYYMM.
pub fn month_number(month: Month) -> u32 {
    store::month_of(UnixMillis(u64::from(month.span().from.number()) * 60_000))
}

/// Reads a month, YYYY-MM; one that has not begun cannot be asked for.
pub fn read_month(text: &str, now: UnixMillis) -> Result<Month, Refusal> {
    let refuse = |text: String| Refusal::new(Code::MonthInvalid, text);
    let month: Month = text
        .parse()
        .map_err(|_| refuse("a month is YYYY-MM".to_owned()))?;
    if month > Month::of(MinuteIndex::of_unix_seconds(now.seconds())) {
        return Err(refuse(format!("{month} has not begun")));
    }
    Ok(month)
}

/// A moment as people read it: RFC 3339 with the offset of Asia/Shanghai.
pub fn moment(at: UnixMillis) -> String {
    MinuteIndex::of_unix_seconds(at.seconds()).to_string()
}

/// A package and what it holds.
#[derive(Clone, Debug, Serialize)]
pub struct PackageBody {
    /// Its number.
    pub package: u32,
    /// The name of its kind.
    pub kind: String,
    /// What it counts.
    pub unit: Unit,
    /// Whether it counts without a limit.
    pub unlimited: bool,
    /// `active`, `not-begun`, `used-up` or `expired`.
    pub state: &'static str,
    /// From when on it can be used.
    pub activated: String,
    /// From when on it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What was paid, in li (0.001 yuan).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_li: Option<u64>,
    /// A contract's or an incident's number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Units by account, those of its own unit first; where units come from is below zero.
    pub balances: BTreeMap<String, i64>,
}

fn state(package: &Package, balances: &[Balance], now: UnixMillis) -> &'static str {
    let is_left = |balance: &Balance| balance.account == LedgerAccount::Available && balance.units > 0;
    if now < package.activated {
        "not-begun"
    } else if package.expires.is_some_and(|expires| expires <= now) {
        "expired"
    } else if package.unlimited || balances.iter().any(is_left) {
        "active"
    } else {
        "used-up"
    }
}

fn name_of(balance: &Balance) -> String {
    let text = |value: Result<serde_json::Value, _>| {
        value
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let unit = text(serde_json::to_value(balance.unit));
    let account = text(serde_json::to_value(balance.account));
    format!("{unit}.{account}")
}

/// A tenant's packages, in order of expiry.
pub fn packages(reader: &Reader, tenant: &Tenant, now: UnixMillis) -> Result<Vec<PackageBody>, StoreError> {
    let show = |(package, balances): (Package, Vec<Balance>)| PackageBody {
        package: package.row.0,
        state: state(&package, &balances, now),
        unit: package.unit,
        unlimited: package.unlimited,
        activated: moment(package.activated),
        expires: package.expires.map(moment),
        price_li: package.price_li,
        balances: balances
            .iter()
            .map(|balance| (name_of(balance), balance.units))
            .collect(),
        kind: package.kind,
        reference: package.reference,
    };
    Ok(reader.packages(tenant.row)?.into_iter().map(show).collect())
}

/// One line of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineBody {
    /// The app.
    pub app: String,
    /// The credential; empty for time stamps.
    pub credential: String,
    /// `sign.raw`, `sign.pair`, `sign.cms` or `time_stamp`.
    pub operation: String,
    /// The package that paid; none on a sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<u32>,
    /// Units.
    pub units: u64,
}

/// A tenant's month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatementBody {
    /// Whose.
    pub tenant: String,
    /// YYYY-MM, Asia/Shanghai.
    pub month: String,
    /// Whether the month is over.
    pub is_final: bool,
    /// Why it must not be used, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
    /// Units that were charged.
    pub charged: u64,
    /// Signatures that cost nothing: those on a sandbox.
    pub free: u64,
    /// The journal entries between which every unit lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<(u64, u64)>,
    /// Units by app, credential, operation and package.
    pub lines: Vec<LineBody>,
}

/// The names of a tenant's rows.
struct Names {
    apps: HashMap<u32, String>,
    credentials: HashMap<u32, String>,
}

impl Names {
    fn of(directory: &Directory, tenant: &Tenant) -> Self {
        let of_tenant = directory
            .apps()
            .into_iter()
            .filter(|app| app.tenant.row == tenant.row);
        Self {
            apps: of_tenant.map(|app| (app.row.0, app.id.to_string())).collect(),
            credentials: tenant
                .credentials()
                .iter()
                .map(|credential| (credential.row.0, credential.id.to_string()))
                .collect(),
        }
    }

    fn line(&self, key: &StatementKey, units: u64) -> LineBody {
        let name = |names: &HashMap<u32, String>, row: u32| {
            names.get(&row).cloned().unwrap_or_else(|| format!("#{row}"))
        };
        LineBody {
            app: name(&self.apps, key.app.0),
            credential: match key.format {
                store::TIME_STAMP => String::new(),
                _ => name(&self.credentials, key.credential.0),
            },
            operation: operation(key.format),
            package: key.package.map(|package| package.0),
            units,
        }
    }
}

fn operation(format: u8) -> String {
    if format == store::TIME_STAMP {
        return "time_stamp".to_owned();
    }
    Format::from_wire(format).map_or_else(|| "sign".to_owned(), |format| format!("sign.{format}"))
}

/// Makes a tenant's statement.
pub fn statement(
    reader: &Reader,
    directory: &Directory,
    tenant: &Tenant,
    month: Month,
    now: UnixMillis,
) -> Result<StatementBody, StoreError> {
    let made: Statement = reader.statement(tenant.row, month_number(month))?;
    let names = Names::of(directory, tenant);
    let lines = made.lines.iter().map(|(key, units)| names.line(key, *units));
    Ok(StatementBody {
        tenant: tenant.name.to_string(),
        month: month.to_string(),
        is_final: month.span().to <= MinuteIndex::of_unix_seconds(now.seconds()),
        charged: made.charged(),
        free: made.free(),
        entries: made.entries.map(|(first, last)| (first.0, last.0)),
        lines: lines.collect(),
        frozen: made.frozen,
    })
}

impl StatementBody {
    /// The statement as CSV (RFC 4180), with a line for the totals.
    pub fn to_csv(&self) -> String {
        let mut text = String::from("tenant,month,app,credential,operation,package,units\r\n");
        for line in &self.lines {
            let package = line
                .package
                .map(|package| package.to_string())
                .unwrap_or_default();
            // Names are of letters, digits and marks that need no quotes.
            let _ = write!(
                text,
                "{},{},{},{},{},{package},{}\r\n",
                self.tenant, self.month, line.app, line.credential, line.operation, line.units
            );
        }
        let _ = write!(
            text,
            "{},{},,,charged,,{}\r\n{},{},,,free,,{}\r\n",
            self.tenant, self.month, self.charged, self.tenant, self.month, self.free
        );
        text
    }
}

/// Writes every unit of a statement with the request it belongs to, as CSV (RFC 4180).
pub fn write_items(
    out: &mut dyn Write,
    reader: &Reader,
    directory: &Directory,
    tenant: &Tenant,
    month: Month,
) -> Result<(), StoreError> {
    let names = Names::of(directory, tenant);
    let failed = |source| StoreError::File {
        path: "the statement's items".into(),
        source,
    };
    writeln!(
        out,
        "entry,time_ms,app,credential,operation,algorithm,package,request,item\r"
    )
    .map_err(failed)?;
    reader.statement_items(tenant.row, month_number(month), |item| {
        write_item(out, &names, &item).map_err(failed)
    })
}

fn write_item(out: &mut dyn Write, names: &Names, item: &StatementItem) -> std::io::Result<()> {
    let line = names.line(&item.key, 1);
    let algorithm = Algorithm::from_wire(item.algorithm).map_or("", |algorithm| algorithm.name());
    let package = line
        .package
        .map(|package| package.to_string())
        .unwrap_or_default();
    // A request's key may hold anything visible but a quotation mark.
    writeln!(
        out,
        "{},{},{},{},{},{algorithm},{package},\"{}\",{}\r",
        item.sequence, item.at.0, line.app, line.credential, line.operation, item.request, item.item
    )
}
