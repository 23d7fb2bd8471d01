//! The registry on disk: tenants, apps, keys, credentials. A [`Change`] is applied inside one transaction together
//! with its journal entry, and takes effect in the [`Directory`] after that transaction's commit.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{
    AppId, AppRow, AuthorityName, CredentialId, CredentialRow, KeyRow, TenantName, TenantRow,
};
use protocol::verify::PublicKey;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::approvals::{self, ApprovalChange};
use crate::audit::AuditChange;
use crate::certificates::{self, CertificateChange};
use crate::directory::{Account, App, Credential, Directory, Place, Tenant, Validity};
use crate::error::{Result, StoreError};
use crate::fence::Fence;
use crate::incidents::{self, IncidentChange};
use crate::keep::{self, KeepChange};
use crate::ledger::change::{self, LedgerChange, Moment};
use crate::ledger::{book, kind, rows};
use crate::operators::{self, OperatorChange, OperatorEffect};
use crate::outbox::{self, OutboxChange};
use crate::renewal::{self, Renewal};
use crate::seals::rows::SealEffect;
use crate::seals::{self, SealChange};
use crate::subjects::{self, SubjectChange};
use crate::tenancy::{
    self, Allowance, Contract, Environment, SecretCell, Secrets, TenancyChange, TenancyEffect,
};

/// A new app.
#[derive(Debug)]
pub struct NewApp {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: AppId,
    /// For what it is used.
    pub environment: Environment,
    /// Its shared secret, wrapped under the tenant's key.
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
    /// For what it is used.
    pub environment: Environment,
    /// The key's kind.
    pub kind: KeyKind,
    /// SubjectPublicKeyInfo.
    pub public_key: Box<[u8]>,
    /// Where the private key is.
    pub place: Place,
    /// The private key: wrapped under the tenant's key where the place is software, as a device wrapped it otherwise.
    pub wrapped: Option<Box<[u8]>>,
    /// The spare pair that it is made of, if it is.
    pub spare: Option<SpareRow>,
    /// Certificates in DER, the credential's own first; may be empty.
    pub chain: Vec<Vec<u8>>,
    /// When they are valid; `None` without certificates.
    pub validity: Option<Validity>,
}

/// A key that is about to be recorded.
pub(crate) struct NewKey<'a> {
    pub(crate) kind: KeyKind,
    pub(crate) public_key: &'a [u8],
    pub(crate) place: &'a Place,
    pub(crate) wrapped: Option<&'a [u8]>,
    pub(crate) spare: Option<SpareRow>,
}

impl NewCredential {
    fn key(&self) -> NewKey<'_> {
        NewKey {
            kind: self.kind,
            public_key: &self.public_key,
            place: &self.place,
            wrapped: self.wrapped.as_deref(),
            spare: self.spare,
        }
    }
}

/// A spare key pair's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareRow(pub i64);

/// A key pair made ahead of need.
#[derive(Debug)]
pub struct SpareKey {
    /// Its kind.
    pub kind: KeyKind,
    /// The device that made it; `None`: software.
    pub device: Option<String>,
    /// SubjectPublicKeyInfo.
    pub public_key: Box<[u8]>,
    /// CKA_ID, where it is in the device.
    pub object: Option<Box<[u8]>>,
    /// The private key, wrapped under the master key, where it is software.
    pub wrapped: Option<Box<[u8]>>,
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
        /// Its own key, wrapped under the master key.
        data_key: Box<[u8]>,
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
    /// One more device has a credential's key.
    AddHome {
        /// Whose.
        tenant: TenantName,
        /// Which.
        id: CredentialId,
        /// Where it is now, too.
        device: String,
    },
    /// A credential's private key has been destroyed, or will not be used again.
    DestroyKey {
        /// Whose.
        tenant: TenantName,
        /// Which.
        id: CredentialId,
    },
    /// A key pair made ahead of need.
    AddSpare(SpareKey),
    /// Packages and their units.
    Ledger(LedgerChange),
    /// Tenants and apps beyond their names.
    Tenancy(TenancyChange),
    /// What calibration has found out about a device.
    SetCalibration {
        /// Which device.
        device: String,
        /// What, as JSON.
        found: String,
    },
    /// Something about certificates.
    Certificates(CertificateChange),
    /// A credential gets another certificate, and another key with it if it shall.
    Renew(Renewal),
    /// Those whose identities are checked.
    Subjects(SubjectChange),
    /// Seals and their grants.
    Seals(SealChange),
    /// Something done with the audit log.
    Audit(AuditChange),
    /// Operators.
    Operators(OperatorChange),
    /// What needs two operators.
    Approvals(ApprovalChange),
    /// Incidents.
    Incidents(IncidentChange),
    /// Webhooks, and messages to all tenants.
    Outbox(OutboxChange),
    /// How the data are kept.
    Keep(KeepChange),
}

impl Change {
    /// What the journal calls it, and what it is about.
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::CreateTenant { name, prepaid, .. } => {
                ("tenant.create", format!("{name} prepaid={prepaid:?}"))
            }
            Self::SetPrepaid { tenant, prepaid } => {
                ("tenant.prepaid", format!("{tenant} prepaid={prepaid:?}"))
            }
            Self::CreateApp(new) => ("app.create", format!("{}/{}", new.tenant, new.id)),
            Self::SetApp { id, active: true } => ("app.enable", id.to_string()),
            Self::SetApp { id, active: false } => ("app.revoke", id.to_string()),
            Self::CreateCredential(new) => ("key.create", format!("{}/{}", new.tenant, new.id)),
            Self::AddHome { tenant, id, device } => {
                ("key.replicate", format!("{tenant}/{id} device={device}"))
            }
            Self::DestroyKey { tenant, id } => ("key.destroy", format!("{tenant}/{id}")),
            Self::AddSpare(spare) => {
                let place = spare.device.as_deref().unwrap_or("software");
                ("key.spare", format!("{} {place}", spare.kind))
            }
            Self::Ledger(change) => change.describe(),
            Self::Tenancy(change) => change.describe(),
            Self::SetCalibration { device, .. } => ("device.calibrate", device.clone()),
            Self::Certificates(change) => change.describe(),
            Self::Renew(renewal) => renewal.describe(),
            Self::Subjects(change) => change.describe(),
            Self::Seals(change) => change.describe(),
            Self::Audit(change) => change.describe(),
            Self::Operators(change) => change.describe(),
            Self::Approvals(change) => change.describe(),
            Self::Incidents(change) => change.describe(),
            Self::Outbox(change) => change.describe(),
            Self::Keep(change) => change.describe(),
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
    /// A tenant's books are to be read anew.
    Books(TenantRow),
    Tenancy(TenancyEffect),
    Operator(OperatorEffect),
    App(Arc<App>),
    TurnApp(Arc<App>, bool),
    Credential(Arc<Tenant>, Arc<Credential>),
    /// Takes the place of the one of the same id, with this certificate.
    Renewed(Arc<Tenant>, Arc<Credential>, Validity),
    TurnCredential(Arc<Credential>, bool),
    Place(Arc<Credential>, Place),
    Destroyed(Arc<Credential>),
    Seal(SealEffect),
    /// The journal is archived up to here.
    Archived(u64),
    DestroyedTenant(Arc<Tenant>),
    /// Something was erased that must not be found on the disk any more.
    Erased,
    /// One after the other.
    Several(Vec<Self>),
    /// How a certificate stands has changed, and with it what the other effect says.
    Standing(AuthorityName, Vec<u8>, Box<Self>),
    None,
}

impl Effect {
    pub(crate) fn take(self, directory: &Directory) {
        match self {
            Self::Tenant(tenant) => directory.add_tenant(tenant),
            Self::Tenancy(effect) => effect.take(directory),
            Self::Operator(effect) => effect.take(directory),
            Self::App(app) => directory.add_app(app),
            Self::TurnApp(app, active) => app.fence.turn(active),
            Self::Credential(tenant, credential) => directory.add_credential(&tenant, credential),
            Self::Renewed(tenant, credential, validity) => {
                credential.take_certificate(validity);
                directory.add_credential(&tenant, credential);
            }
            Self::TurnCredential(credential, active) => credential.fence.turn(active),
            Self::Place(credential, place) => credential.set_place(place),
            Self::Destroyed(credential) => {
                credential.fence.turn(false);
                credential.set_place(Place::Destroyed);
            }
            Self::Seal(effect) => effect.take(),
            Self::DestroyedTenant(tenant) => keep::forget(directory, &tenant),
            Self::Several(effects) => effects.into_iter().for_each(|effect| effect.take(directory)),
            Self::Standing(issuer, serial, effect) => {
                effect.take(directory);
                directory.standings.moved(&issuer, &serial);
            }
            Self::Books(_) | Self::Archived(_) | Self::Erased | Self::None => {}
        }
    }

    /// Whose books are not as the committing thread has them any more.
    pub(crate) fn books_of(&self) -> Option<TenantRow> {
        match self {
            Self::Tenant(tenant) => Some(tenant.row),
            Self::Books(tenant) => Some(*tenant),
            _ => None,
        }
    }

    /// Whether something was destroyed that must not be found on the disk any more.
    pub(crate) fn destroys(&self) -> bool {
        match self {
            Self::Several(effects) => effects.iter().any(Self::destroys),
            other => matches!(other, Self::DestroyedTenant(_) | Self::Erased),
        }
    }

    /// Up to where the journal is archived.
    pub(crate) const fn archived(&self) -> Option<u64> {
        match self {
            Self::Archived(upto) => Some(*upto),
            _ => None,
        }
    }
}

pub(crate) fn refuse(code: Code, message: String) -> StoreError {
    StoreError::Refused(Refusal::new(code, message))
}

pub(crate) fn exists(what: &str, id: impl std::fmt::Display) -> StoreError {
    refuse(Code::AlreadyExists, format!("{what} '{id}' exists already"))
}

pub(crate) fn tenant_of(directory: &Directory, name: &TenantName) -> Result<Arc<Tenant>> {
    directory
        .tenant(name.as_str())
        .ok_or_else(|| refuse(Code::NotFound, format!("no tenant '{name}'")))
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    moment: Moment,
    change: Change,
) -> Result<Effect> {
    let at = moment.at;
    match change {
        Change::Audit(_) => Ok(Effect::None),
        Change::CreateTenant {
            name,
            prepaid,
            data_key,
        } => create_tenant(db, directory, moment, name, prepaid, data_key),
        Change::Ledger(change) => {
            let tenant = change::apply(db, directory, moment, change)?;
            Ok(tenant.map_or(Effect::None, Effect::Books))
        }
        Change::Tenancy(change) => tenancy::apply(db, directory, at, change).map(Effect::Tenancy),
        Change::SetPrepaid { tenant, prepaid } => {
            let tenant = tenant_of(directory, &tenant)?.row;
            change::set_prepaid(db, moment, tenant, prepaid)?;
            Ok(Effect::Books(tenant))
        }
        Change::CreateApp(new) => create_app(db, directory, at, new),
        Change::SetApp { id, active } => turn_app(db, directory, &id, active),
        Change::CreateCredential(new) => create_credential(db, directory, at, new),
        Change::SetCredential { tenant, id, active } => {
            let credential = credential_of(directory, &tenant, &id)?;
            if active && credential.place() == Place::Destroyed {
                return Err(refuse(
                    Code::CredentialDisabled,
                    format!("the key of '{tenant}/{id}' is destroyed"),
                ));
            }
            if active {
                certificates::check_in_force(db, &tenant, &id)?;
            }
            turn(db, "credential", credential.row.0, active)?;
            Ok(Effect::TurnCredential(credential, active))
        }
        Change::AddHome { tenant, id, device } => {
            let credential = credential_of(directory, &tenant, &id)?;
            add_home(db, credential, &device)
        }
        Change::DestroyKey { tenant, id } => {
            let credential = credential_of(directory, &tenant, &id)?;
            destroy_key(db, credential)
        }
        Change::AddSpare(spare) => add_spare(db, at, &spare),
        Change::SetCalibration { device, found } => {
            db.execute(
                "INSERT OR REPLACE INTO calibration (device, found) VALUES (?, ?)",
                [device, found],
            )?;
            Ok(Effect::None)
        }
        Change::Certificates(change) => certificates::apply(db, directory, moment, change),
        Change::Renew(renewal) => renewal::apply(db, directory, at, renewal),
        Change::Subjects(change) => subjects::apply(db, directory, moment, change),
        Change::Seals(change) => seals::rows::apply(db, directory, moment, change),
        Change::Operators(change) => operators::apply(db, directory, at, change).map(Effect::Operator),
        Change::Approvals(change) => approvals::apply(db, at, change).map(|()| Effect::None),
        Change::Incidents(change) => incidents::apply(db, at, change).map(|()| Effect::None),
        Change::Outbox(change) => outbox::apply(db, directory, at, change).map(|()| Effect::None),
        Change::Keep(change) => keep::apply(db, directory, at, change),
    }
}

fn turn_app(db: &Connection, directory: &Directory, id: &AppId, active: bool) -> Result<Effect> {
    let app = directory
        .app(id.as_str())
        .ok_or_else(|| refuse(Code::NotFound, format!("no app '{id}'")))?;
    turn(db, "app", app.row.0, active)?;
    Ok(Effect::TurnApp(app, active))
}

pub(crate) fn credential_of(
    directory: &Directory,
    tenant: &TenantName,
    id: &CredentialId,
) -> Result<Arc<Credential>> {
    tenant_of(directory, tenant)?
        .credential(id.as_str())
        .ok_or_else(|| {
            refuse(
                Code::NotFound,
                format!("tenant '{tenant}' has no credential '{id}'"),
            )
        })
}

fn add_home(db: &Connection, credential: Arc<Credential>, device: &str) -> Result<Effect> {
    let Place::Device { devices, object } = credential.place() else {
        return Err(refuse(
            Code::Usage,
            "only a key that is an object in devices has more than one home".into(),
        ));
    };
    if devices.iter().any(|known| &**known == device) {
        return Err(exists("key in device", device));
    }
    insert_home(db, credential.key, device)?;
    let devices = devices.iter().cloned().chain([Arc::from(device)]).collect();
    Ok(Effect::Place(credential, Place::Device { devices, object }))
}

fn insert_home(db: &Connection, key: KeyRow, device: &str) -> Result<()> {
    db.prepare_cached("INSERT INTO key_home (key, device) VALUES (?, ?)")?
        .execute(params![key.0, device])?;
    Ok(())
}

fn destroy_key(db: &Connection, credential: Arc<Credential>) -> Result<Effect> {
    keep::leave_objects(db, keep::KeyOrTenant::Key(credential.key))?;
    let sql = "UPDATE key SET wrapped = NULL, kek = NULL, object = NULL, destroyed = TRUE WHERE row = ?";
    db.execute(sql, [credential.key.0])?;
    turn(db, "credential", credential.row.0, false)?;
    Ok(Effect::Destroyed(credential))
}

fn add_spare(db: &Connection, at: UnixMillis, spare: &SpareKey) -> Result<Effect> {
    let sql = "INSERT INTO spare_key (kind, device, public_key, object, wrapped, created_ms) VALUES (?, ?, ?, ?, ?, ?)";
    let at_ms = at.0.cast_signed();
    db.prepare_cached(sql)?.execute(params![
        spare.kind.name(),
        spare.device,
        spare.public_key,
        spare.object,
        spare.wrapped,
        at_ms
    ])?;
    Ok(Effect::None)
}

/// A spare pair, oldest first.
pub(crate) fn read_spare(
    db: &Connection,
    kind: KeyKind,
    device: Option<&str>,
) -> Result<Option<(SpareRow, SpareKey)>> {
    let sql = "SELECT row, public_key, object, wrapped FROM spare_key WHERE kind = ? AND device IS ? ORDER BY row LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        let spare = SpareKey {
            kind,
            device: device.map(str::to_owned),
            public_key: row.get::<_, Vec<u8>>(1)?.into(),
            object: row.get::<_, Option<Vec<u8>>>(2)?.map(Into::into),
            wrapped: row.get::<_, Option<Vec<u8>>>(3)?.map(Into::into),
        };
        Ok((SpareRow(row.get(0)?), spare))
    };
    Ok(db
        .prepare_cached(sql)?
        .query_row(params![kind.name(), device], read)
        .optional()?)
}

/// How many spare pairs there are.
pub(crate) fn count_spares(db: &Connection, kind: KeyKind, device: Option<&str>) -> Result<usize> {
    let sql = "SELECT COUNT(*) FROM spare_key WHERE kind = ? AND device IS ?";
    let count: i64 = db
        .prepare_cached(sql)?
        .query_row(params![kind.name(), device], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// What calibration has found out about a device, as JSON.
pub(crate) fn read_calibration(db: &Connection, device: &str) -> Result<Option<String>> {
    let sql = "SELECT found FROM calibration WHERE device = ?";
    Ok(db
        .prepare_cached(sql)?
        .query_row([device], |row| row.get(0))
        .optional()?)
}

pub(crate) fn turn(db: &Connection, table: &'static str, row: u32, active: bool) -> Result<()> {
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
    moment: Moment,
    name: TenantName,
    prepaid: Option<u64>,
    data_key: Box<[u8]>,
) -> Result<Effect> {
    if directory.tenant(name.as_str()).is_some() {
        return Err(exists("tenant", &name));
    }
    let sql = "INSERT INTO tenant (name, activated_ms, created_ms, data_key) VALUES (?, ?, ?, ?)";
    let at_ms = moment.at.0.cast_signed();
    db.execute(sql, params![name.as_str(), at_ms, at_ms, data_key])?;
    let row = TenantRow(new_row(db)?);
    let kind = if prepaid.is_some() {
        kind::PREPAID
    } else {
        kind::OPEN
    };
    change::begin(db, moment, row, kind, prepaid.unwrap_or(0))?;
    let account = Account::new(book::standing(&rows::read_held(db, row)?, moment.at));
    let standing = tenancy::Standing::new(0, moment.at);
    Ok(Effect::Tenant(Arc::new(Tenant::new(
        row,
        name,
        account,
        standing,
        Some(data_key.into()),
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
    let contract = Contract::default_of(new.environment);
    let sql = "INSERT INTO app (tenant, id, active, epoch, secret, public_key, client_certificate, \
               binding_required, created_ms, sandbox, rate, burst, concurrency) \
               VALUES (?, ?, TRUE, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    db.execute(
        sql,
        params![
            tenant.row.0,
            new.id.as_str(),
            new.secret,
            new.public_key,
            new.client_certificate,
            new.binding_required,
            at.0.cast_signed(),
            new.environment.is_sandbox(),
            contract.rate,
            contract.burst,
            contract.concurrency
        ],
    )?;
    let secrets = Secrets {
        current: new.secret.map(Into::into),
        ..Secrets::default()
    };
    Ok(Effect::App(Arc::new(App {
        row: AppRow(new_row(db)?),
        id: new.id,
        tenant,
        fence: Fence::new(0, true),
        environment: new.environment,
        allowance: Allowance::new(contract),
        secrets: SecretCell::new(secrets),
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
    let key = insert_key(db, at, tenant.row, &new.key())?;
    let sql = "INSERT INTO credential (tenant, id, key, active, epoch, chain, created_ms, sandbox, \
               not_before_ms, not_after_ms) VALUES (?, ?, ?, TRUE, 0, ?, ?, ?, ?, ?)";
    let chain = encode_chain(&new.chain);
    let inserted = db.prepare_cached(sql)?.execute(params![
        tenant.row.0,
        new.id.as_str(),
        key.0,
        chain,
        at.0.cast_signed(),
        new.environment.is_sandbox(),
        new.validity.map(|validity| validity.from.0.cast_signed()),
        new.validity.map(|validity| validity.to.0.cast_signed())
    ]);
    match inserted {
        // Another change of the same commit has made it.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            return Err(exists("credential", &new.id));
        }
        other => other?,
    };
    let row = CredentialRow(new_row(db)?);
    let life = (new.environment, Fence::new(0, true));
    let credential = Credential::new(row, new.id, (key, new.kind), new.place, life, new.validity);
    Ok(Effect::Credential(tenant, Arc::new(credential)))
}

pub(crate) fn insert_key(
    db: &Connection,
    at: UnixMillis,
    tenant: TenantRow,
    new: &NewKey<'_>,
) -> Result<KeyRow> {
    let (object, kek) = match &new.place {
        Place::Software => (None, None),
        Place::Device { object, .. } => (Some(&**object), None),
        Place::Wrapped { kek } => (None, Some(&**kek)),
        Place::Destroyed => {
            return Err(refuse(
                Code::Usage,
                "a new key cannot be destroyed already".into(),
            ));
        }
    };
    let sql = "INSERT INTO key (kind, public_key, object, kek, wrapped, created_ms, tenant) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let at_ms = at.0.cast_signed();
    db.prepare_cached(sql)?.execute(params![
        new.kind.name(),
        new.public_key,
        object,
        kek,
        new.wrapped,
        at_ms,
        tenant.0
    ])?;
    let key = KeyRow(new_row(db)?);
    if let Some(spare) = new.spare
        && db.execute("DELETE FROM spare_key WHERE row = ?", [spare.0])? == 0
    {
        return Err(refuse(
            Code::AlreadyExists,
            "the spare key has been taken meanwhile".into(),
        ));
    }
    if let Place::Device { devices, .. } = &new.place {
        for device in devices.iter() {
            insert_home(db, key, device)?;
        }
    }
    Ok(key)
}

pub(crate) fn encode_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let chain: Vec<&minicbor::bytes::ByteSlice> = chain.iter().map(|der| der.as_slice().into()).collect();
    minicbor::to_vec(chain).expect("writing to a Vec cannot fail")
}

/// The certificates of a credential, its own first.
pub(crate) fn read_chain(db: &Connection, credential: CredentialRow) -> Result<Vec<Vec<u8>>> {
    let bytes: Vec<u8> = db
        .prepare_cached("SELECT chain FROM credential WHERE row = ?")?
        .query_row([credential.0], |row| row.get(0))?;
    decode_chain(&bytes)
}

/// The same, if the credential still has this key.
pub(crate) fn read_chain_of_key(
    db: &Connection,
    credential: CredentialRow,
    key: KeyRow,
) -> Result<Option<Vec<Vec<u8>>>> {
    let bytes: Option<Vec<u8>> = db
        .prepare_cached("SELECT chain FROM credential WHERE row = ? AND key = ?")?
        .query_row([credential.0, key.0], |row| row.get(0))
        .optional()?;
    bytes.map(|bytes| decode_chain(&bytes)).transpose()
}

fn decode_chain(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let chain: Vec<minicbor::bytes::ByteVec> = minicbor::decode(bytes).map_err(|_| StoreError::Corrupt {
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
    /// The private key: wrapped under its tenant's key where it is a software key, as a device wrapped it otherwise.
    pub wrapped: Option<Vec<u8>>,
    /// Whether it is a software key.
    pub software: bool,
    /// Whose it is.
    pub tenant: TenantName,
    /// The tenant's own key, wrapped under the master key; `None`: destroyed.
    pub data_key: Option<Vec<u8>>,
}

/// Reads a key.
pub(crate) fn read_key(db: &Connection, key: KeyRow) -> Result<Option<StoredKey>> {
    let sql = "SELECT k.public_key, k.wrapped, k.object IS NULL AND k.kek IS NULL AND NOT k.destroyed, t.name, t.data_key \
               FROM key k JOIN tenant t ON t.row = k.tenant WHERE k.row = ?";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([key.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(StoredKey {
        public_key: row.get(0)?,
        wrapped: row.get(1)?,
        software: row.get(2)?,
        tenant: TenantName::new(&row.get::<_, String>(3)?).map_err(|_| corrupt("a tenant's name"))?,
        data_key: row.get(4)?,
    }))
}

/// A tenant's name, and its own key, wrapped under the master key; `None` in its place: destroyed.
pub(crate) fn read_data_key(
    db: &Connection,
    tenant: TenantRow,
) -> Result<Option<(TenantName, Option<Vec<u8>>)>> {
    let mut statement = db.prepare_cached("SELECT name, data_key FROM tenant WHERE row = ?")?;
    let mut rows = statement.query([tenant.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let name = TenantName::new(&row.get::<_, String>(0)?).map_err(|_| corrupt("a tenant's name"))?;
    Ok(Some((name, row.get(1)?)))
}

/// Loads everything into memory.
pub(crate) fn load(db: &Connection, now: UnixMillis) -> Result<Directory> {
    let directory = Directory::default();
    let tenants = load_tenants(db, &directory, now)?;
    load_apps(db, &directory, &tenants)?;
    load_credentials(db, &directory, &tenants)?;
    seals::rows::load(db, &tenants)?;
    operators::load(db, &directory)?;
    Ok(directory)
}

type Tenants = HashMap<u32, Arc<Tenant>>;

/// A row that breaks what the writer guarantees.
pub(crate) fn corrupt(what: &'static str) -> StoreError {
    StoreError::Corrupt { sequence: 0, what }
}

fn load_tenants(db: &Connection, directory: &Directory, now: UnixMillis) -> Result<Tenants> {
    let mut statement = db.prepare("SELECT row, name, state, activated_ms, data_key FROM tenant")?;
    let mut rows = statement.query([])?;
    let mut tenants = Tenants::new();
    while let Some(row) = rows.next()? {
        let name = TenantName::new(&row.get::<_, String>(1)?).map_err(|_| corrupt("a tenant's name"))?;
        let standing = tenancy::Standing::new(row.get(2)?, millis(row.get(3)?));
        let data_key = row.get(4)?;
        let row = TenantRow(row.get(0)?);
        let account = Account::new(book::standing(&rows::read_held(db, row)?, now));
        let tenant = Arc::new(Tenant::new(row, name, account, standing, data_key));
        tenants.insert(tenant.row.0, Arc::clone(&tenant));
        directory.add_tenant(tenant);
    }
    Ok(tenants)
}

fn millis(ms: i64) -> UnixMillis {
    UnixMillis(ms.cast_unsigned())
}

fn read_secrets(row: &rusqlite::Row<'_>) -> rusqlite::Result<Secrets> {
    let secret = |at: usize| row.get(at).map(|secret: Option<Vec<u8>>| secret.map(Arc::from));
    let until: Option<i64> = row.get(10)?;
    Ok(Secrets {
        generation: row.get(11)?,
        current: secret(5)?,
        previous: secret(9)?.zip(until.map(millis)),
    })
}

fn load_apps(db: &Connection, directory: &Directory, tenants: &Tenants) -> Result<()> {
    let sql = "SELECT row, tenant, id, active, epoch, secret, public_key, client_certificate, binding_required, \
               previous_secret, previous_until_ms, generation, sandbox, rate, burst, concurrency FROM app";
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
            environment: Environment::of_sandbox(row.get(12)?),
            allowance: Allowance::new(Contract {
                rate: row.get(13)?,
                burst: row.get(14)?,
                concurrency: row.get(15)?,
            }),
            secrets: SecretCell::new(read_secrets(row)?),
            public_key: public_key.map_err(|_| corrupt("an app's public key"))?,
            client_certificate: row.get(7)?,
            binding_required: row.get(8)?,
        }));
    }
    Ok(())
}

type Homes = HashMap<u32, Vec<Arc<str>>>;

fn load_homes(db: &Connection) -> Result<Homes> {
    let mut statement = db.prepare("SELECT key, device FROM key_home ORDER BY key, rowid")?;
    let mut rows = statement.query([])?;
    let mut names: HashMap<String, Arc<str>> = HashMap::new();
    let mut homes = Homes::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let name = Arc::clone(names.entry(name.clone()).or_insert_with(|| name.into()));
        homes.entry(row.get(0)?).or_default().push(name);
    }
    Ok(homes)
}

fn load_credentials(db: &Connection, directory: &Directory, tenants: &Tenants) -> Result<()> {
    let sql = "SELECT c.row, c.tenant, c.id, c.key, c.active, c.epoch, k.kind, k.object, k.kek, k.destroyed, c.sandbox, \
               c.not_before_ms, c.not_after_ms, c.reserved FROM credential c JOIN key k ON k.row = c.key";
    let mut homes = load_homes(db)?;
    let mut keks: HashMap<Vec<u8>, Arc<[u8]>> = HashMap::new();
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key: u32 = row.get(3)?;
        let object: Option<Vec<u8>> = row.get(7)?;
        let kek: Option<Vec<u8>> = row.get(8)?;
        let place = match (object, kek, row.get(9)?) {
            (_, _, true) => Place::Destroyed,
            (Some(object), _, _) => Place::Device {
                devices: homes.remove(&key).unwrap_or_default().into(),
                object: object.into(),
            },
            (None, Some(kek), _) => Place::Wrapped {
                kek: Arc::clone(keks.entry(kek.clone()).or_insert_with(|| kek.into())),
            },
            (None, None, _) => Place::Software,
        };
        let tenant = tenants
            .get(&row.get(1)?)
            .ok_or_else(|| corrupt("a credential without its tenant"))?;
        let id = CredentialId::new(&row.get::<_, String>(2)?).map_err(|_| corrupt("a credential's id"))?;
        let kind = row
            .get::<_, String>(6)?
            .parse()
            .map_err(|_| corrupt("a key's kind"))?;
        let fence = Fence::new(row.get::<_, i64>(5)?.cast_unsigned(), row.get(4)?);
        let life = (Environment::of_sandbox(row.get(10)?), fence);
        let ends: (Option<i64>, Option<i64>) = (row.get(11)?, row.get(12)?);
        let validity = ends.0.zip(ends.1).map(|(from, to)| Validity {
            from: millis(from),
            to: millis(to),
        });
        let credential = Credential::new(
            CredentialRow(row.get(0)?),
            id,
            (KeyRow(key), kind),
            place,
            life,
            validity,
        );
        if row.get(13)? {
            credential.reserve();
        }
        directory.add_credential(tenant, Arc::new(credential));
    }
    Ok(())
}
