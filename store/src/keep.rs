//! How the data are kept: what was copied, what was put into archives, what was destroyed. Each is a change with an
//! entry of its own.

use std::sync::Arc;

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{KeyRow, TenantName, TenantRow};
use rusqlite::{Connection, params};

use crate::archive::{self, Archived};
use crate::directory::{Directory, Place, Tenant};
use crate::error::Result;
use crate::open::read_pending;
use crate::operations;
use crate::registry::{Effect, refuse};
use crate::seals;
use crate::tenancy::TenantState;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE left_object (        -- key pairs of destroyed keys, until each is known to be out of its device
        tenant  INTEGER NOT NULL REFERENCES tenant,
        device  TEXT NOT NULL,
        object  BLOB NOT NULL,        -- CKA_ID
        PRIMARY KEY (tenant, device, object)
    ) WITHOUT ROWID;
";

/// A key pair in a device whose key is destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftObject {
    /// The device.
    pub device: String,
    /// CKA_ID.
    pub object: Vec<u8>,
}

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
    /// Key pairs of destroyed keys were taken out of their devices.
    ObjectsGone {
        /// Whose they were.
        tenant: TenantName,
        /// Which.
        objects: Vec<LeftObject>,
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
    /// Operations on documents, with the documents that are kept of them.
    pub operations: u64,
    /// Pictures of seals.
    pub seals: u64,
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
        operations: count("SELECT count(*) FROM operation WHERE tenant = ?")?,
        seals: count("SELECT count(picture) FROM seal WHERE tenant = ?")?,
        data_key: count("SELECT count(data_key) FROM tenant WHERE row = ?")? > 0,
    })
}

impl KeepChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::BackedUp { to, last } => ("store.backup", format!("{to} last={last}")),
            Self::Archive(archived) => ("store.archive", archived.subject()),
            Self::DestroyTenant { tenant, order } => ("tenant.destroy", format!("{tenant} order={order}")),
            Self::ObjectsGone { tenant, objects } => {
                ("key.objects-gone", format!("{tenant} objects={}", objects.len()))
            }
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
        KeepChange::ObjectsGone { tenant, objects } => {
            let tenant = known(directory, &tenant)?;
            let sql = "DELETE FROM left_object WHERE tenant = ? AND device = ? AND object = ?";
            for gone in objects {
                db.prepare_cached(sql)?
                    .execute(params![tenant.row.0, gone.device, gone.object])?;
            }
            Ok(Effect::None)
        }
    }
}

/// Key pairs of a tenant's destroyed keys that may still be in devices.
pub(crate) fn left_objects(db: &Connection, tenant: TenantRow) -> Result<Vec<LeftObject>> {
    let sql = "SELECT device, object FROM left_object WHERE tenant = ? ORDER BY device, object";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([tenant.0], |row| {
        Ok(LeftObject {
            device: row.get(0)?,
            object: row.get(1)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Moves the places of a key, or of all keys of a tenant, to what is to be taken out of devices.
pub(crate) fn leave_objects(db: &Connection, of: KeyOrTenant) -> Result<()> {
    let (column, row) = match of {
        KeyOrTenant::Key(key) => ("row", key.0),
        KeyOrTenant::Tenant(tenant) => ("tenant", tenant.0),
    };
    let left = format!(
        "INSERT OR IGNORE INTO left_object (tenant, device, object) \
         SELECT k.tenant, h.device, k.object FROM key k JOIN key_home h ON h.key = k.row \
         WHERE k.object IS NOT NULL AND k.{column} = ?"
    );
    db.execute(&left, [row])?;
    let homes = format!("DELETE FROM key_home WHERE key IN (SELECT row FROM key WHERE {column} = ?)");
    db.execute(&homes, [row])?;
    Ok(())
}

/// What is destroyed.
pub(crate) enum KeyOrTenant {
    Key(KeyRow),
    Tenant(TenantRow),
}

fn known(directory: &Directory, name: &TenantName) -> Result<Arc<Tenant>> {
    let missing = || refuse(Code::NotFound, format!("no tenant '{name}'"));
    directory.tenant(name.as_str()).ok_or_else(missing)
}

fn destroy(db: &Connection, directory: &Directory, name: &TenantName, order: &str) -> Result<Effect> {
    let tenant = known(directory, name)?;
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
    // What becomes of them would be an entry whose salt nobody erases.
    let pending = read_pending(db)?;
    if pending.iter().any(|(item, _)| item.tenant == tenant.row) {
        let text = format!("tenant '{name}' has pending items; it is destroyed when they have ended");
        return Err(refuse(Code::WrongState, text));
    }
    let row = tenant.row.0;
    db.execute(
        "UPDATE tenant SET data_key = NULL, destruction = ? WHERE row = ?",
        params![order, row],
    )?;
    leave_objects(db, KeyOrTenant::Tenant(tenant.row))?;
    let keys = "UPDATE key SET wrapped = NULL, kek = NULL, object = NULL, destroyed = TRUE WHERE tenant = ?";
    db.execute(keys, [row])?;
    let apps = "UPDATE app SET secret = NULL, previous_secret = NULL, previous_until_ms = NULL, active = FALSE, \
                epoch = epoch + 1, generation = generation + 1 WHERE tenant = ?";
    db.execute(apps, [row])?;
    db.execute(
        "UPDATE credential SET active = FALSE, epoch = epoch + 1 WHERE tenant = ?",
        [row],
    )?;
    seals::rows::destroy(db, tenant.row)?;
    db.execute("DELETE FROM webhook WHERE owner = ?", [row])?;
    db.execute("DELETE FROM outbox WHERE owner = ?", [row])?;
    operations::destroy(db, tenant.row)?;
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
    tenant.seals().iter().for_each(|seal| seal.forget());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use crate::sqlite;

    const CLOSED: &str = "
        INSERT INTO tenant (row, name, state, activated_ms, data_key, created_ms) VALUES (1, 'acme', 2, 0, x'01', 0);
        INSERT INTO key (row, tenant, kind, public_key, object, created_ms) VALUES (1, 1, 'p256', x'02', x'0a', 0);
        INSERT INTO key_home (key, device) VALUES (1, 'left'), (1, 'right');";

    fn change(db: &Connection, change: KeepChange) -> Result<Effect> {
        let directory = registry::load(db, UnixMillis(0))?;
        apply(db, &directory, UnixMillis(0), change)
    }

    fn acme() -> TenantName {
        TenantName::new("acme").unwrap()
    }

    fn destroy_acme(db: &Connection) -> Result<Effect> {
        let (tenant, order) = (acme(), "letter".into());
        change(db, KeepChange::DestroyTenant { tenant, order })
    }

    #[test]
    fn places_of_destroyed_keys_are_known_until_they_are_cleared() {
        let db = sqlite::in_memory().unwrap();
        db.execute_batch(CLOSED).unwrap();
        destroy_acme(&db).unwrap();
        let homes: u32 = db
            .query_row("SELECT count(*) FROM key_home", [], |row| row.get(0))
            .unwrap();
        let left = left_objects(&db, TenantRow(1)).unwrap();
        let devices: Vec<_> = left.iter().map(|left| (&*left.device, &*left.object)).collect();
        assert_eq!((homes, devices), (0, vec![("left", &[10][..]), ("right", &[10])]));
        assert!(destroy_acme(&db).is_err(), "it is destroyed already");
        let (tenant, objects) = (acme(), left[..1].to_vec());
        change(&db, KeepChange::ObjectsGone { tenant, objects }).unwrap();
        assert_eq!(left_objects(&db, TenantRow(1)).unwrap(), left[1..]);
    }

    #[test]
    fn a_tenant_with_pending_items_is_not_destroyed() {
        let db = sqlite::in_memory().unwrap();
        db.execute_batch(CLOSED).unwrap();
        let item = minicbor::to_vec(crate::record::tests::item(1, "key-1", 0)).unwrap();
        let sql = "INSERT INTO pending (key, item) VALUES (x'01', ?)";
        db.execute(sql, [item]).unwrap();
        let refused = destroy_acme(&db).err().unwrap().refusal();
        assert_eq!(refused.code, Code::WrongState, "{refused}");
        db.execute("DELETE FROM pending", []).unwrap();
        destroy_acme(&db).unwrap();
    }
}
