//! Tenants and apps beyond their names: state, activation, environment, contract, secrets; and what binds them, the
//! dated agreement and the notices of maintenance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, TenantName, TenantRow};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::directory::{App, Directory, Tenant};
use crate::error::{Result, StoreError};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE agreement (          -- the dated version of an agreement that binds a tenant, from a day on
        row     INTEGER PRIMARY KEY,
        tenant  INTEGER NOT NULL REFERENCES tenant,
        policy  TEXT NOT NULL,
        signed  TEXT NOT NULL,        -- YYYY-MM-DD, Asia/Shanghai
        clause  TEXT,                 -- the contract's own clause on compensation
        bound_ms INTEGER NOT NULL
    );
    CREATE TABLE notice (             -- announcements of maintenance, as JSON
        id      TEXT PRIMARY KEY,
        notice  TEXT NOT NULL,
        announced_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// For what an app is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// For trying: keys of its own, a small rate, nothing charged or promised.
    Sandbox,
    /// For real.
    #[default]
    Production,
}

impl Environment {
    /// Whether nothing is charged in it.
    pub const fn is_sandbox(self) -> bool {
        matches!(self, Self::Sandbox)
    }

    pub(crate) const fn of_sandbox(sandbox: bool) -> Self {
        if sandbox { Self::Sandbox } else { Self::Production }
    }
}

/// How a tenant stands by decision of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum TenantState {
    /// It is served.
    Active = 0,
    /// It may look, and sign nothing.
    Suspended = 1,
    /// It is gone, for good.
    Closed = 2,
}

impl TenantState {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Active,
            1 => Self::Suspended,
            // Whatever is not known is not served.
            _ => Self::Closed,
        }
    }
}

/// A tenant's state and activation as the gate sees them.
#[derive(Debug)]
pub struct Standing {
    state: AtomicU8,
    activated_ms: AtomicU64,
}

impl Standing {
    pub(crate) const fn new(state: u8, activated: UnixMillis) -> Self {
        Self {
            state: AtomicU8::new(state),
            activated_ms: AtomicU64::new(activated.0),
        }
    }

    /// Its state.
    pub fn state(&self) -> TenantState {
        TenantState::from_number(self.state.load(Ordering::Acquire))
    }

    /// From when on production calls are taken.
    pub fn activated(&self) -> UnixMillis {
        UnixMillis(self.activated_ms.load(Ordering::Acquire))
    }
}

/// What an app may ask for at a time. Zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// Signatures a second.
    pub rate: u32,
    /// Signatures at once after a pause.
    pub burst: u32,
    /// Calls in flight.
    pub concurrency: u32,
}

/// Signatures a second on a sandbox app without a contract of its own: enough to try, too few to load.
pub const SANDBOX_RATE: u32 = 10;

impl Contract {
    /// What applies to an app that has none of its own.
    pub const fn default_of(environment: Environment) -> Self {
        match environment {
            Environment::Production => Self {
                rate: 0,
                burst: 0,
                concurrency: 0,
            },
            Environment::Sandbox => Self {
                rate: SANDBOX_RATE,
                burst: 2 * SANDBOX_RATE,
                concurrency: SANDBOX_RATE,
            },
        }
    }
}

/// An app's contract, and how much of it is used at the moment: shared by all cores.
#[derive(Debug, Default)]
pub struct Allowance {
    rate: AtomicU32,
    burst: AtomicU32,
    concurrency: AtomicU32,
    /// Until when the signatures admitted so far fill the rate, in microseconds (GCRA's theoretical arrival time).
    full_until_us: AtomicU64,
    in_flight: AtomicU32,
}

impl Allowance {
    /// All of what was agreed is there to be used.
    pub fn new(contract: Contract) -> Self {
        let allowance = Self::default();
        allowance.set(contract);
        allowance
    }

    pub(crate) fn set(&self, contract: Contract) {
        self.rate.store(contract.rate, Ordering::Relaxed);
        self.burst.store(contract.burst, Ordering::Relaxed);
        self.concurrency.store(contract.concurrency, Ordering::Relaxed);
    }

    /// What was agreed.
    pub fn contract(&self) -> Contract {
        Contract {
            rate: self.rate.load(Ordering::Relaxed),
            burst: self.burst.load(Ordering::Relaxed),
            concurrency: self.concurrency.load(Ordering::Relaxed),
        }
    }

    /// Takes signatures out of the rate; otherwise milliseconds after which it makes sense to come back.
    pub fn take_rate(&self, now: UnixMillis, signatures: u32) -> std::result::Result<(), u32> {
        let contract = self.contract();
        if contract.rate == 0 {
            return Ok(());
        }
        let mut wait = 0;
        let take = |full_until| match next_full_until(full_until, now.0 * 1000, contract, signatures) {
            Ok(next) => Some(next),
            Err(wait_us) => {
                wait = wait_us;
                None
            }
        };
        let taken = self
            .full_until_us
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken
            .map(|_| ())
            .map_err(|_| u32::try_from(wait.div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// Takes a place among the calls in flight. False: there is none.
    pub fn enter(&self) -> bool {
        let limit = self.concurrency.load(Ordering::Relaxed);
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let fits = limit == 0 || before < limit;
        if !fits {
            self.leave();
        }
        fits
    }

    /// Calls that have a place now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Gives the place back.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The generic cell rate algorithm (ITU-T I.371) in microseconds. A batch is let in whole when its first signature is,
/// and what it takes beyond is missing afterwards. The error: microseconds until the next one fits.
fn next_full_until(
    full_until: u64,
    now: u64,
    contract: Contract,
    signatures: u32,
) -> std::result::Result<u64, u64> {
    let interval = 1_000_000 / u64::from(contract.rate).max(1);
    let tolerance = interval * u64::from(contract.burst.max(1) - 1);
    // A clock that was set back must not lock an app out for longer than its rate can explain.
    let longest = tolerance + interval * protocol::limits::BATCH_ITEMS_MAX as u64;
    let full_until = full_until.max(now).min(now + longest);
    let earliest = full_until.saturating_sub(tolerance);
    if earliest > now {
        return Err(earliest - now);
    }
    Ok(full_until + interval * u64::from(signatures))
}

/// An app's shared secrets, wrapped under its tenant's key.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// How often the secret was changed.
    pub generation: u32,
    /// The one that counts.
    pub current: Option<Arc<[u8]>>,
    /// The one before, and until when it counts, too.
    pub previous: Option<(Arc<[u8]>, UnixMillis)>,
}

/// The same, where it can be changed.
#[derive(Debug, Default)]
pub struct SecretCell(RwLock<Secrets>);

impl SecretCell {
    pub(crate) const fn new(secrets: Secrets) -> Self {
        Self(RwLock::new(secrets))
    }

    /// The secrets now.
    pub fn get(&self) -> Secrets {
        self.0.read().clone()
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.read().current.is_some()
    }

    /// There is none any more.
    pub(crate) fn destroy(&self) {
        let mut secrets = self.0.write();
        (secrets.current, secrets.previous) = (None, None);
        secrets.generation += 1;
    }

    fn rotate(&self, secret: Arc<[u8]>, until: UnixMillis) {
        let mut secrets = self.0.write();
        secrets.previous = secrets.current.replace(secret).map(|old| (old, until));
        secrets.generation += 1;
    }
}

/// A change of tenants and apps, and of what binds them.
#[derive(Debug)]
pub enum TenancyChange {
    /// Suspends a tenant, closes it, or lets it in again.
    SetState {
        /// Which.
        tenant: TenantName,
        /// How it stands from now on.
        state: TenantState,
    },
    /// Sets from when on production calls are taken.
    Activate {
        /// Whose.
        tenant: TenantName,
        /// From when on.
        at: UnixMillis,
    },
    /// Sets an app's contract.
    SetContract {
        /// Whose.
        app: AppId,
        /// What was agreed.
        contract: Contract,
    },
    /// Gives an app a new secret; the old one counts a while longer.
    RotateSecret {
        /// Whose.
        app: AppId,
        /// The new secret, wrapped under the tenant's key.
        secret: Box<[u8]>,
        /// Until when the old one counts.
        old_until: UnixMillis,
    },
    /// Binds a tenant to a dated version of an agreement.
    BindAgreement {
        /// Whose.
        tenant: TenantName,
        /// The policy's name.
        policy: String,
        /// When it was signed, YYYY-MM-DD: the version in force on that day binds.
        signed: String,
        /// The contract's own clause on compensation.
        clause: Option<String>,
    },
    /// Publishes a notice of maintenance.
    PublishNotice {
        /// Its name.
        id: String,
        /// It, as JSON.
        notice: String,
    },
}

impl TenancyChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::SetState { tenant, state } => {
                ("tenant.state", format!("{tenant} {state:?}").to_lowercase())
            }
            Self::Activate { tenant, at } => ("tenant.activate", format!("{tenant} at_ms={}", at.0)),
            Self::SetContract { app, contract } => (
                "app.contract",
                format!(
                    "{app} rate={} burst={} concurrency={}",
                    contract.rate, contract.burst, contract.concurrency
                ),
            ),
            Self::RotateSecret { app, old_until, .. } => {
                ("app.rotate-secret", format!("{app} old_until_ms={}", old_until.0))
            }
            Self::BindAgreement {
                tenant,
                policy,
                signed,
                ..
            } => ("tenant.agreement", format!("{tenant} {policy} signed={signed}")),
            Self::PublishNotice { id, .. } => ("notice.publish", id.clone()),
        }
    }
}

/// What takes effect in memory after the commit.
pub(crate) enum TenancyEffect {
    State(Arc<Tenant>, TenantState),
    Activated(Arc<Tenant>, UnixMillis),
    Contract(Arc<App>, Contract),
    Secret(Arc<App>, Arc<[u8]>, UnixMillis),
    None,
}

impl TenancyEffect {
    pub(crate) fn take(self, directory: &Directory) {
        match self {
            Self::State(tenant, state) => {
                tenant.standing.state.store(state as u8, Ordering::Release);
                // What was admitted before is cut off: each of its apps moves to its next epoch.
                let apps = directory.apps();
                for app in apps.iter().filter(|app| app.tenant.row == tenant.row) {
                    app.fence.turn(app.fence.pass().is_some());
                }
            }
            Self::Activated(tenant, at) => tenant.standing.activated_ms.store(at.0, Ordering::Release),
            Self::Contract(app, contract) => app.allowance.set(contract),
            Self::Secret(app, secret, until) => app.secrets.rotate(secret, until),
            Self::None => {}
        }
    }
}

fn refuse(code: Code, text: String) -> StoreError {
    StoreError::Refused(Refusal::new(code, text))
}

fn tenant_of(directory: &Directory, name: &TenantName) -> Result<Arc<Tenant>> {
    directory
        .tenant(name.as_str())
        .ok_or_else(|| refuse(Code::NotFound, format!("no tenant '{name}'")))
}

fn app_of(directory: &Directory, id: &AppId) -> Result<Arc<App>> {
    directory
        .app(id.as_str())
        .ok_or_else(|| refuse(Code::NotFound, format!("no app '{id}'")))
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    change: TenancyChange,
) -> Result<TenancyEffect> {
    match change {
        TenancyChange::SetState { tenant, state } => set_state(db, tenant_of(directory, &tenant)?, state),
        TenancyChange::Activate { tenant, at } => {
            let tenant = tenant_of(directory, &tenant)?;
            db.execute(
                "UPDATE tenant SET activated_ms = ? WHERE row = ?",
                params![at.0.cast_signed(), tenant.row.0],
            )?;
            Ok(TenancyEffect::Activated(tenant, at))
        }
        TenancyChange::SetContract { app, contract } => {
            let app = app_of(directory, &app)?;
            let sql = "UPDATE app SET rate = ?, burst = ?, concurrency = ? WHERE row = ?";
            let Contract {
                rate,
                burst,
                concurrency,
            } = contract;
            db.execute(sql, params![rate, burst, concurrency, app.row.0])?;
            Ok(TenancyEffect::Contract(app, contract))
        }
        TenancyChange::RotateSecret {
            app,
            secret,
            old_until,
        } => rotate(db, app_of(directory, &app)?, secret, old_until),
        TenancyChange::BindAgreement {
            tenant,
            policy,
            signed,
            clause,
        } => {
            let tenant = tenant_of(directory, &tenant)?.row.0;
            let sql =
                "INSERT INTO agreement (tenant, policy, signed, clause, bound_ms) VALUES (?, ?, ?, ?, ?)";
            db.execute(sql, params![tenant, policy, signed, clause, at.0.cast_signed()])?;
            Ok(TenancyEffect::None)
        }
        TenancyChange::PublishNotice { id, notice } => publish(db, at, &id, &notice),
    }
}

fn set_state(db: &Connection, tenant: Arc<Tenant>, state: TenantState) -> Result<TenancyEffect> {
    if tenant.standing.state() == TenantState::Closed {
        let text = format!("tenant '{}' is closed for good", tenant.name);
        return Err(refuse(Code::TenantClosed, text));
    }
    let sql = "UPDATE tenant SET state = ? WHERE row = ?";
    db.execute(sql, params![state as u8, tenant.row.0])?;
    Ok(TenancyEffect::State(tenant, state))
}

fn rotate(db: &Connection, app: Arc<App>, secret: Box<[u8]>, until: UnixMillis) -> Result<TenancyEffect> {
    let sql = "UPDATE app SET previous_secret = secret, previous_until_ms = ?, secret = ?, \
               generation = generation + 1 WHERE row = ?";
    db.execute(sql, params![until.0.cast_signed(), secret, app.row.0])?;
    Ok(TenancyEffect::Secret(app, secret.into(), until))
}

fn publish(db: &Connection, at: UnixMillis, id: &str, notice: &str) -> Result<TenancyEffect> {
    let sql = "INSERT OR IGNORE INTO notice (id, notice, announced_ms) VALUES (?, ?, ?)";
    if db.execute(sql, params![id, notice, at.0.cast_signed()])? == 0 {
        return Err(refuse(
            Code::AlreadyExists,
            format!("notice '{id}' is published; what is published stays"),
        ));
    }
    Ok(TenancyEffect::None)
}

/// Which agreement binds a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The policy's name.
    pub policy: String,
    /// When it was signed, YYYY-MM-DD.
    pub signed: String,
    /// The contract's own clause on compensation.
    pub clause: Option<String>,
}

/// The agreement that was bound last.
pub(crate) fn agreement(db: &Connection, tenant: TenantRow) -> Result<Option<Agreement>> {
    let sql = "SELECT policy, signed, clause FROM agreement WHERE tenant = ? ORDER BY row DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Agreement {
            policy: row.get(0)?,
            signed: row.get(1)?,
            clause: row.get(2)?,
        })
    };
    Ok(db.query_row(sql, [tenant.0], read).optional()?)
}

/// All notices as JSON, in the order in which they were published.
pub(crate) fn notices(db: &Connection) -> Result<Vec<String>> {
    let mut statement = db.prepare("SELECT notice FROM notice ORDER BY announced_ms, id")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(rate: u32, burst: u32, concurrency: u32) -> Contract {
        Contract {
            rate,
            burst,
            concurrency,
        }
    }

    #[test]
    fn a_rate_lets_in_what_was_agreed_over_any_time() {
        let allowance = Allowance::new(contract(10, 20, 0));
        let start = 1_000_000;
        let mut admitted = 0;
        for ms in 0..10_000 {
            admitted += u32::from(allowance.take_rate(UnixMillis(start + ms), 1).is_ok());
        }
        // The burst, and 10 a second for 10 seconds.
        assert!((119..=120).contains(&admitted), "{admitted}");
        let wait = allowance.take_rate(UnixMillis(start + 9_999), 1).unwrap_err();
        assert!((1..=100).contains(&wait), "{wait}");
        assert!(
            allowance
                .take_rate(UnixMillis(start + 9_999 + u64::from(wait)), 1)
                .is_ok()
        );
    }

    #[test]
    fn a_batch_is_let_in_whole_and_paid_for_afterwards() {
        let allowance = Allowance::new(contract(10, 1, 0));
        assert_eq!(allowance.take_rate(UnixMillis(5_000), 64), Ok(()));
        assert_eq!(allowance.take_rate(UnixMillis(5_000), 1), Err(6_400));
        // A clock that was set back by a day locks nobody out for longer.
        assert_eq!(allowance.take_rate(UnixMillis(100), 1), Err(6_400));
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let allowance = Allowance::new(contract(0, 0, 2));
        assert!(allowance.enter() && allowance.enter());
        assert!(!allowance.enter());
        allowance.leave();
        assert!(allowance.enter());
        let open = Allowance::default();
        assert!((0..1_000).all(|_| open.enter()));
        assert!(open.take_rate(UnixMillis(0), 1_000_000).is_ok());
    }
}
