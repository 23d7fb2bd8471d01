//! How the data are kept: what was copied, what was put into archives, what was destroyed. Each is a change with an
//! entry of its own.

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{TenantName, TenantRow};
use rusqlite::{Connection, params};

use crate::archive::{self, Archived};
use crate::directory::{Directory, Place, Tenant};
use crate::error::Result;
use crate::registry::{Effect, refuse};
use crate::tenancy::TenantState;

/// A change of how the data are kept.
#[derive(Debug)]
pub enum KeepChange {
    /// A backup was made.
    BackedUp {
        /// Where it was put.
        to: String,
        /// The last entry that is in it.
        last: u64,
    },
    /// A part of the journal is in a file from now on, and its keys are forgotten.
    Archive(Archived),
    /// A closed tenant's own key is destroyed, and with it everything that was wrapped under it.
    DestroyTenant {
        /// Which.
        tenant: TenantName,
        /// The order by which that is done.
        order: String,
    },
}

/// What a destruction takes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Private keys that are there, in software, wrapped, or as objects in devices.
    pub keys: u64,
    /// Shared secrets of apps, current and previous ones.
    pub secrets: u64,
    /// Secrets of webhooks.
    pub webhooks: u64,
    /// Messages to its webhook, those that wait and those that were sent.
    pub messages: u64,
    /// Whether the tenant has a key of its own.
    pub data_key: bool,
}

/// What there is of a tenant that can be destroyed.
pub(crate) fn holdings(db: &Connection, tenant: TenantRow) -> Result<Holdings> {
    let count = |sql: &str| -> Result<u64> {
        Ok(db
            .query_row(sql, [tenant.0], |row| row.get::<_, i64>(0))?
            .cast_unsigned())
    };
    Ok(Holdings {
        keys: count(
            "SELECT count(*) FROM key WHERE tenant = ? AND (wrapped IS NOT NULL OR object IS NOT NULL)",
        )?,
        secrets: count("SELECT count(secret) + count(previous_secret) FROM app WHERE tenant = ?")?,
        webhooks: count("SELECT count(*) FROM webhook WHERE owner = ?")?,
        messages: count("SELECT count(*) FROM outbox WHERE owner = ?")?,
        data_key: count("SELECT count(data_key) FROM tenant WHERE row = ?")? > 0,
    })
}

impl KeepChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::BackedUp { to, last } => ("store.backup", format!("{to} last={last}")),
            Self::Archive(archived) => ("store.archive", archived.subject()),
            Self::DestroyTenant { tenant, order } => ("tenant.destroy", format!("{tenant} order={order}")),
        }
    }
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    change: KeepChange,
) -> Result<Effect> {
    match change {
        KeepChange::BackedUp { .. } => Ok(Effect::None),
        KeepChange::Archive(archived) => {
            archive::take_over(db, at, &archived)?;
            Ok(Effect::Archived(archived.last))
        }
        KeepChange::DestroyTenant { tenant, order } => destroy(db, directory, &tenant, &order),
    }
}

fn destroy(db: &Connection, directory: &Directory, name: &TenantName, order: &str) -> Result<Effect> {
    let tenant = directory
        .tenant(name.as_str())
        .ok_or_else(|| refuse(Code::NotFound, format!("no tenant '{name}'")))?;
    if tenant.standing.state() != TenantState::Closed {
        let text = format!("tenant '{name}' is not closed; only a closed tenant is destroyed");
        return Err(refuse(Code::Usage, text));
    }
    if tenant.data_key().is_none() {
        return Err(refuse(
            Code::AlreadyExists,
            format!("tenant '{name}' is destroyed already"),
        ));
    }
    let row = tenant.row.0;
    db.execute(
        "UPDATE tenant SET data_key = NULL, destruction = ? WHERE row = ?",
        params![order, row],
    )?;
    db.execute(
        "DELETE FROM key_home WHERE key IN (SELECT row FROM key WHERE tenant = ?)",
        [row],
    )?;
    let keys = "UPDATE key SET wrapped = NULL, kek = NULL, object = NULL, destroyed = TRUE WHERE tenant = ?";
    db.execute(keys, [row])?;
    let apps = "UPDATE app SET secret = NULL, previous_secret = NULL, previous_until_ms = NULL, active = FALSE, \
                epoch = epoch + 1, generation = generation + 1 WHERE tenant = ?";
    db.execute(apps, [row])?;
    db.execute(
        "UPDATE credential SET active = FALSE, epoch = epoch + 1 WHERE tenant = ?",
        [row],
    )?;
    db.execute("DELETE FROM webhook WHERE owner = ?", [row])?;
    db.execute("DELETE FROM outbox WHERE owner = ?", [row])?;
    Ok(Effect::DestroyedTenant(tenant))
}

/// Takes what was destroyed out of memory.
pub(crate) fn forget(directory: &Directory, tenant: &Tenant) {
    tenant.destroy_data_key();
    for app in directory.apps().iter().filter(|app| app.tenant.row == tenant.row) {
        app.fence.turn(false);
        app.secrets.destroy();
    }
    for credential in tenant.credentials() {
        credential.fence.turn(false);
        credential.set_place(Place::Destroyed);
    }
}
