//! The registry on disk: tenants, apps, keys, credentials. A [`Change`] is applied inside one transaction together
//! with its journal entry, and takes effect in the [`Directory`] after that transaction's commit.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, AppRow, CredentialId, CredentialRow, KeyRow, TenantName, TenantRow};
use protocol::verify::PublicKey;
use rusqlite::{Connection, OptionalExtension, params};

use crate::directory::{Account, App, Credential, Directory, Place, Tenant};
use crate::error::{Result, StoreError};
use crate::fence::Fence;

/// A new app.
#[derive(Debug)]
pub struct NewApp {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: AppId,
    /// Its shared secret, wrapped under the master key.
    pub secret: Option<Box<[u8]>>,
    /// Its public key for HTTP message signatures, SubjectPublicKeyInfo.
    pub public_key: Option<Box<[u8]>>,
    /// SHA-256 of its TLS client certificate.
    pub client_certificate: Option<[u8; 32]>,
    /// Whether its native sessions must be bound to the TLS exporter.
    pub binding_required: bool,
}

/// A new credential and its key.
#[derive(Debug)]
pub struct NewCredential {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: CredentialId,
    /// The key's kind.
    pub kind: KeyKind,
    /// SubjectPublicKeyInfo.
    pub public_key: Box<[u8]>,
    /// Where the private key is.
    pub place: Place,
    /// The private key, wrapped under the master key, where the place is software.
    pub wrapped: Option<Box<[u8]>>,
    /// Certificates in DER, the credential's own first; may be empty.
    pub chain: Vec<Vec<u8>>,
}

/// A change of the registry.
#[derive(Debug)]
pub enum Change {
    /// A new tenant.
    CreateTenant {
        /// Its name.
        name: TenantName,
        /// Units it may use; `None`: no limit.
        prepaid: Option<u64>,
    },
    /// More, or fewer, units for a tenant.
    SetPrepaid {
        /// Whose.
        tenant: TenantName,
        /// Units granted in all; `None`: no limit.
        prepaid: Option<u64>,
    },
    /// A new app.
    CreateApp(NewApp),
    /// Revokes an app, or lets it in again.
    SetApp {
        /// Which.
        id: AppId,
        /// May it ask?
        active: bool,
    },
    /// A new credential.
    CreateCredential(NewCredential),
    /// Disables a credential, or enables it again.
    SetCredential {
        /// Whose.
        tenant: TenantName,
        /// Which.
        id: CredentialId,
        /// Does it sign?
        active: bool,
    },
}

impl Change {
    /// What the journal calls it, and what it is about.
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::CreateTenant { name, prepaid } => ("tenant.create", format!("{name} prepaid={prepaid:?}")),
            Self::SetPrepaid { tenant, prepaid } => {
                ("tenant.prepaid", format!("{tenant} prepaid={prepaid:?}"))
            }
            Self::CreateApp(new) => ("app.create", format!("{}/{}", new.tenant, new.id)),
            Self::SetApp { id, active: true } => ("app.enable", id.to_string()),
            Self::SetApp { id, active: false } => ("app.revoke", id.to_string()),
            Self::CreateCredential(new) => ("key.create", format!("{}/{}", new.tenant, new.id)),
            Self::SetCredential {
                tenant,
                id,
                active: true,
            } => ("key.enable", format!("{tenant}/{id}")),
            Self::SetCredential {
                tenant,
                id,
                active: false,
            } => ("key.disable", format!("{tenant}/{id}")),
        }
    }
}

/// What takes effect in memory after the commit.
pub(crate) enum Effect {
    Tenant(Arc<Tenant>),
    Grant(Arc<Tenant>, Option<u64>),
    App(Arc<App>),
    TurnApp(Arc<App>, bool),
    Credential(Arc<Tenant>, Arc<Credential>),
    TurnCredential(Arc<Credential>, bool),
}

impl Effect {
    pub(crate) fn take(self, directory: &Directory) {
        match self {
            Self::Tenant(tenant) => directory.add_tenant(tenant),
            Self::Grant(tenant, prepaid) => tenant.account.grant(prepaid),
            Self::App(app) => directory.add_app(app),
            Self::TurnApp(app, active) => app.fence.turn(active),
            Self::Credential(tenant, credential) => directory.add_credential(&tenant, credential),
            Self::TurnCredential(credential, active) => credential.fence.turn(active),
        }
    }
}

fn refuse(code: Code, message: String) -> StoreError {
    StoreError::Refused(Refusal::new(code, message))
}

fn exists(what: &str, id: impl std::fmt::Display) -> StoreError {
    refuse(Code::AlreadyExists, format!("{what} '{id}' exists already"))
}

fn tenant_of(directory: &Directory, name: &TenantName) -> Result<Arc<Tenant>> {
    directory
        .tenant(name.as_str())
        .ok_or_else(|| refuse(Code::NotFound, format!("no tenant '{name}'")))
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    change: Change,
) -> Result<Effect> {
    match change {
        Change::CreateTenant { name, prepaid } => create_tenant(db, directory, at, name, prepaid),
        Change::SetPrepaid { tenant, prepaid } => {
            let tenant = tenant_of(directory, &tenant)?;
            db.execute(
                "UPDATE tenant SET prepaid = ? WHERE row = ?",
                params![signed(prepaid), tenant.row.0],
            )?;
            Ok(Effect::Grant(tenant, prepaid))
        }
        Change::CreateApp(new) => create_app(db, directory, at, new),
        Change::SetApp { id, active } => {
            let app = directory
                .app(id.as_str())
                .ok_or_else(|| refuse(Code::NotFound, format!("no app '{id}'")))?;
            turn(db, "app", app.row.0, active)?;
            Ok(Effect::TurnApp(app, active))
        }
        Change::CreateCredential(new) => create_credential(db, directory, at, new),
        Change::SetCredential { tenant, id, active } => {
            let missing = || {
                refuse(
                    Code::NotFound,
                    format!("tenant '{tenant}' has no credential '{id}'"),
                )
            };
            let credential = tenant_of(directory, &tenant)?
                .credential(id.as_str())
                .ok_or_else(missing)?;
            turn(db, "credential", credential.row.0, active)?;
            Ok(Effect::TurnCredential(credential, active))
        }
    }
}

fn signed(units: Option<u64>) -> Option<i64> {
    units.map(|units| i64::try_from(units).unwrap_or(i64::MAX))
}

fn turn(db: &Connection, table: &'static str, row: u32, active: bool) -> Result<()> {
    let sql = format!("UPDATE {table} SET active = ?, epoch = epoch + 1 WHERE row = ?");
    db.execute(&sql, params![active, row])?;
    Ok(())
}

fn new_row(db: &Connection) -> Result<u32> {
    u32::try_from(db.last_insert_rowid())
        .map_err(|_| refuse(Code::StorageFull, "no row numbers are left".into()))
}

fn create_tenant(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    name: TenantName,
    prepaid: Option<u64>,
) -> Result<Effect> {
    if directory.tenant(name.as_str()).is_some() {
        return Err(exists("tenant", &name));
    }
    let sql = "INSERT INTO tenant (name, prepaid, created_ms) VALUES (?, ?, ?)";
    db.execute(sql, params![name.as_str(), signed(prepaid), at.0.cast_signed()])?;
    let row = TenantRow(new_row(db)?);
    Ok(Effect::Tenant(Arc::new(Tenant::new(
        row,
        name,
        Account::new(prepaid, 0),
    ))))
}

fn create_app(db: &Connection, directory: &Directory, at: UnixMillis, new: NewApp) -> Result<Effect> {
    if directory.app(new.id.as_str()).is_some() {
        return Err(exists("app", &new.id));
    }
    if new
        .client_certificate
        .is_some_and(|hash| directory.app_by_certificate(&hash).is_some())
    {
        return Err(refuse(
            Code::AlreadyExists,
            "another app has registered this client certificate".into(),
        ));
    }
    let tenant = tenant_of(directory, &new.tenant)?;
    let public_key = new.public_key.as_deref().map(read_public_key).transpose()?;
    let sql = "INSERT INTO app (tenant, id, active, epoch, secret, public_key, client_certificate, \
               binding_required, created_ms) VALUES (?, ?, TRUE, 0, ?, ?, ?, ?, ?)";
    db.execute(
        sql,
        params![
            tenant.row.0,
            new.id.as_str(),
            new.secret,
            new.public_key,
            new.client_certificate,
            new.binding_required,
            at.0.cast_signed()
        ],
    )?;
    Ok(Effect::App(Arc::new(App {
        row: AppRow(new_row(db)?),
        id: new.id,
        tenant,
        fence: Fence::new(0, true),
        secret: new.secret,
        public_key,
        client_certificate: new.client_certificate,
        binding_required: new.binding_required,
    })))
}

fn read_public_key(der: &[u8]) -> Result<PublicKey> {
    PublicKey::from_spki(der).map_err(|error| refuse(Code::Usage, format!("the app's public key: {error}")))
}

fn create_credential(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    new: NewCredential,
) -> Result<Effect> {
    let tenant = tenant_of(directory, &new.tenant)?;
    if tenant.credential(new.id.as_str()).is_some() {
        return Err(exists("credential", &new.id));
    }
    let (device, object) = match &new.place {
        Place::Software => (None, None),
        Place::Device { device, object } => (Some(&**device), Some(&**object)),
    };
    let sql =
        "INSERT INTO key (kind, public_key, device, object, wrapped, created_ms) VALUES (?, ?, ?, ?, ?, ?)";
    db.execute(
        sql,
        params![
            new.kind.name(),
            new.public_key,
            device,
            object,
            new.wrapped,
            at.0.cast_signed()
        ],
    )?;
    let key = KeyRow(new_row(db)?);
    let sql = "INSERT INTO credential (tenant, id, key, active, epoch, chain, created_ms) \
               VALUES (?, ?, ?, TRUE, 0, ?, ?)";
    let chain = encode_chain(&new.chain);
    db.execute(
        sql,
        params![tenant.row.0, new.id.as_str(), key.0, chain, at.0.cast_signed()],
    )?;
    let credential = Credential {
        row: CredentialRow(new_row(db)?),
        id: new.id,
        key,
        kind: new.kind,
        place: new.place,
        fence: Fence::new(0, true),
    };
    Ok(Effect::Credential(tenant, Arc::new(credential)))
}

fn encode_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let chain: Vec<&minicbor::bytes::ByteSlice> = chain.iter().map(|der| der.as_slice().into()).collect();
    minicbor::to_vec(chain).expect("writing to a Vec cannot fail")
}

/// The certificates of a credential, its own first.
pub(crate) fn read_chain(db: &Connection, credential: CredentialRow) -> Result<Vec<Vec<u8>>> {
    let bytes: Vec<u8> = db
        .prepare_cached("SELECT chain FROM credential WHERE row = ?")?
        .query_row([credential.0], |row| row.get(0))?;
    let chain: Vec<minicbor::bytes::ByteVec> = minicbor::decode(&bytes).map_err(|_| StoreError::Corrupt {
        sequence: 0,
        what: "a certificate chain cannot be read",
    })?;
    Ok(chain.into_iter().map(Into::into).collect())
}

/// A key's public half, and its private half as stored.
#[derive(Debug)]
pub struct StoredKey {
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The private key, wrapped under the master key, where it is a software key.
    pub wrapped: Option<Vec<u8>>,
}

/// Reads a key.
pub(crate) fn read_key(db: &Connection, key: KeyRow) -> Result<Option<StoredKey>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(StoredKey {
            public_key: row.get(0)?,
            wrapped: row.get(1)?,
        })
    };
    let mut statement = db.prepare_cached("SELECT public_key, wrapped FROM key WHERE row = ?")?;
    Ok(statement.query_row([key.0], read).optional()?)
}

/// Loads everything into memory.
pub(crate) fn load(db: &Connection) -> Result<Directory> {
    let directory = Directory::default();
    let tenants = load_tenants(db, &directory)?;
    load_apps(db, &directory, &tenants)?;
    load_credentials(db, &directory, &tenants)?;
    Ok(directory)
}

type Tenants = HashMap<u32, Arc<Tenant>>;

/// A row that breaks what the writer guarantees.
fn corrupt(what: &'static str) -> StoreError {
    StoreError::Corrupt { sequence: 0, what }
}

fn load_tenants(db: &Connection, directory: &Directory) -> Result<Tenants> {
    let mut statement = db.prepare("SELECT row, name, prepaid, used FROM tenant")?;
    let mut rows = statement.query([])?;
    let mut tenants = Tenants::new();
    while let Some(row) = rows.next()? {
        let name = TenantName::new(&row.get::<_, String>(1)?).map_err(|_| corrupt("a tenant's name"))?;
        let account = Account::new(
            row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
            row.get::<_, i64>(3)?.cast_unsigned(),
        );
        let tenant = Arc::new(Tenant::new(TenantRow(row.get(0)?), name, account));
        tenants.insert(tenant.row.0, Arc::clone(&tenant));
        directory.add_tenant(tenant);
    }
    Ok(tenants)
}

fn load_apps(db: &Connection, directory: &Directory, tenants: &Tenants) -> Result<()> {
    let sql = "SELECT row, tenant, id, active, epoch, secret, public_key, client_certificate, binding_required FROM app";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let public_key: Option<Vec<u8>> = row.get(6)?;
        let public_key = public_key.map(|der| PublicKey::from_spki(&der)).transpose();
        directory.add_app(Arc::new(App {
            row: AppRow(row.get(0)?),
            tenant: Arc::clone(
                tenants
                    .get(&row.get(1)?)
                    .ok_or_else(|| corrupt("an app without its tenant"))?,
            ),
            id: AppId::new(&row.get::<_, String>(2)?).map_err(|_| corrupt("an app's id"))?,
            fence: Fence::new(row.get::<_, i64>(4)?.cast_unsigned(), row.get(3)?),
            secret: row.get::<_, Option<Vec<u8>>>(5)?.map(Into::into),
            public_key: public_key.map_err(|_| corrupt("an app's public key"))?,
            client_certificate: row.get(7)?,
            binding_required: row.get(8)?,
        }));
    }
    Ok(())
}

fn load_credentials(db: &Connection, directory: &Directory, tenants: &Tenants) -> Result<()> {
    let sql = "SELECT c.row, c.tenant, c.id, c.key, c.active, c.epoch, k.kind, k.device, k.object \
               FROM credential c JOIN key k ON k.row = c.key";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut devices: HashMap<String, Arc<str>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let place = match row.get::<_, Option<String>>(7)? {
            None => Place::Software,
            Some(name) => Place::Device {
                device: Arc::clone(devices.entry(name.clone()).or_insert_with(|| name.into())),
                object: row.get::<_, Vec<u8>>(8)?.into(),
            },
        };
        let tenant = tenants
            .get(&row.get(1)?)
            .ok_or_else(|| corrupt("a credential without its tenant"))?;
        let credential = Credential {
            row: CredentialRow(row.get(0)?),
            id: CredentialId::new(&row.get::<_, String>(2)?).map_err(|_| corrupt("a credential's id"))?,
            key: KeyRow(row.get(3)?),
            kind: row
                .get::<_, String>(6)?
                .parse()
                .map_err(|_| corrupt("a key's kind"))?,
            place,
            fence: Fence::new(row.get::<_, i64>(5)?.cast_unsigned(), row.get(4)?),
        };
        directory.add_credential(tenant, Arc::new(credential));
    }
    Ok(())
}
