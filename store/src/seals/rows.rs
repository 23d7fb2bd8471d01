//! Seals, grants, steps and uses on disk.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{
    AppId, AppRow, CredentialId, GrantId, GrantRow, SealId, SealRow, Sequence, SubjectId, TenantName,
    TenantRow,
};
use protocol::seal::{DocumentKind, DocumentKinds, SealState};
use rusqlite::{Connection, ErrorCode, Row, params};

use super::{Grant, GrantTerms, NewGrant, NewSeal, Seal, SealChange, SealError, SealKind, SealStep, step};
use crate::directory::{Credential, Directory, Tenant, Validity};
use crate::error::Result;
use crate::fence::Fence;
use crate::ledger::change::Moment;
use crate::registry::{Effect, corrupt, credential_of, exists, refuse, tenant_of, turn};
use crate::subjects::{self, SubjectKind, SubjectState};
use crate::tenancy::Environment;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE seal (
        row     INTEGER PRIMARY KEY,
        tenant  INTEGER NOT NULL REFERENCES tenant,
        id      TEXT NOT NULL,
        kind    INTEGER NOT NULL,     -- 1 an organisation's, 2 a person's
        credential INTEGER NOT NULL REFERENCES credential,
        maker   INTEGER REFERENCES credential, -- who signs the seal itself; NULL: nobody
        state   INTEGER NOT NULL,     -- 0 draft, 1 in review, 2 active, 3 frozen, 4 revoked, 5 destroyed
        epoch   INTEGER NOT NULL,
        name    BLOB,                 -- under the tenant's key; NULL: destroyed, here and below
        picture BLOB,                 -- PNG, under the tenant's key
        made    BLOB,                 -- SESeal (GB/T 38540), under the tenant's key; NULL: not made
        width_mm INTEGER NOT NULL,
        height_mm INTEGER NOT NULL,
        from_ms INTEGER NOT NULL,     -- when it may be used
        to_ms   INTEGER NOT NULL,
        uses    INTEGER NOT NULL DEFAULT 0, -- signatures under it
        created_ms INTEGER NOT NULL,
        changed_ms INTEGER NOT NULL,
        UNIQUE (tenant, id)
    );
    CREATE TABLE seal_step (          -- what was done with seals and their grants
        seal    INTEGER NOT NULL REFERENCES seal,
        number  INTEGER NOT NULL,     -- from 1 on
        action  TEXT NOT NULL,        -- as the journal calls it
        grant_id TEXT,                -- where it was about a grant
        state   INTEGER NOT NULL,     -- of the seal, afterwards
        actor   TEXT NOT NULL,        -- as the journal names it
        reason  TEXT NOT NULL,
        at_ms   INTEGER NOT NULL,
        PRIMARY KEY (seal, number)
    ) WITHOUT ROWID;
    CREATE TABLE seal_grant (
        row     INTEGER PRIMARY KEY,
        tenant  INTEGER NOT NULL REFERENCES tenant,
        id      TEXT NOT NULL,
        seal    INTEGER NOT NULL REFERENCES seal,
        app     INTEGER NOT NULL REFERENCES app,
        agent   TEXT,                 -- a subject who acts through the app; NULL: the app itself
        documents INTEGER NOT NULL,   -- 1 digest, 2 PDF, 4 OFD, added up
        from_ms INTEGER NOT NULL,
        to_ms   INTEGER NOT NULL,
        uses_max INTEGER,             -- NULL: no limit
        uses    INTEGER NOT NULL DEFAULT 0,
        active  INTEGER NOT NULL,     -- 0: revoked
        epoch   INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        UNIQUE (tenant, id)
    );
    CREATE TABLE seal_use (           -- each signature under a seal
        seal    INTEGER NOT NULL REFERENCES seal,
        sequence INTEGER NOT NULL,    -- its journal entry
        grant_row INTEGER NOT NULL REFERENCES seal_grant,
        app     INTEGER NOT NULL,
        document INTEGER NOT NULL,    -- 0 digest, 1 PDF, 2 OFD
        at_ms   INTEGER NOT NULL,
        month   INTEGER NOT NULL,     -- YYYYMM, Asia/Shanghai
        PRIMARY KEY (seal, sequence)
    ) WITHOUT ROWID;
    CREATE INDEX seal_use_by_grant ON seal_use (grant_row, sequence);
    CREATE INDEX seal_use_by_month ON seal_use (month, seal, grant_row);
";

/// Seals that a tenant may have, and grants of one seal: memory holds all of them.
const SEALS_MAX: u32 = 100_000;
const GRANTS_MAX: u32 = 1_000;

/// What takes effect in memory after the commit.
pub(crate) enum SealEffect {
    Created(Arc<Tenant>, Arc<Seal>, Vec<Arc<Credential>>),
    Turned(Arc<Seal>, SealState),
    Remade(Arc<Seal>, Validity),
    Granted(Arc<Seal>, Arc<Grant>),
    Ended(Arc<Grant>),
}

impl SealEffect {
    pub(crate) fn take(self) {
        match self {
            Self::Created(tenant, seal, reserved) => {
                reserved.iter().for_each(|credential| credential.reserve());
                tenant.add_seal(seal);
            }
            Self::Turned(seal, state) => seal.turn(state),
            Self::Remade(seal, validity) => seal.set_validity(validity),
            Self::Granted(seal, grant) => seal.add_grant(grant),
            Self::Ended(grant) => grant.fence.turn(false),
        }
    }
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    moment: Moment,
    change: SealChange,
) -> Result<Effect> {
    let at = moment.at;
    match change {
        SealChange::Create(new) => create(db, directory, at, &new),
        SealChange::Step {
            tenant,
            id,
            step,
            made,
            by,
            reason,
        } => {
            let seal = seal_of(directory, &tenant, &id)?;
            take_step(db, at, seal, (step, made.as_deref()), (&by, &reason))
        }
        SealChange::Remake {
            tenant,
            id,
            made,
            validity,
            by,
            reason,
        } => {
            let seal = seal_of(directory, &tenant, &id)?;
            remake(db, at, seal, (made.as_deref(), validity), (&by, &reason))
        }
        SealChange::Grant(new) => grant(db, directory, at, new),
        SealChange::RevokeGrant {
            tenant,
            id,
            by,
            reason,
        } => {
            let (seal, grant) = grant_of(directory, &tenant, &id)?;
            end(db, at, &seal, grant, (&by, &reason))
        }
    }
}

/// A seal of a tenant.
fn seal_of(directory: &Directory, tenant: &TenantName, id: &SealId) -> Result<Arc<Seal>> {
    let missing = || refuse(Code::UnknownSeal, format!("tenant '{tenant}' has no seal '{id}'"));
    tenant_of(directory, tenant)?
        .seal(id.as_str())
        .ok_or_else(missing)
}

fn grant_of(directory: &Directory, tenant: &TenantName, id: &GrantId) -> Result<(Arc<Seal>, Arc<Grant>)> {
    let missing = || refuse(Code::NotFound, format!("tenant '{tenant}' has no grant '{id}'"));
    for seal in tenant_of(directory, tenant)?.seals() {
        if let Some(grant) = seal.grants().into_iter().find(|grant| grant.id == *id) {
            return Ok((seal, grant));
        }
    }
    Err(missing())
}

fn new_row(db: &Connection) -> Result<u32> {
    u32::try_from(db.last_insert_rowid())
        .map_err(|_| refuse(Code::StorageFull, "no row numbers are left".into()))
}

fn check_validity(validity: Validity) -> Result<()> {
    if validity.from >= validity.to {
        return Err(refuse(
            Code::Usage,
            "the validity must end after it begins".into(),
        ));
    }
    Ok(())
}

fn create(db: &Connection, directory: &Directory, at: UnixMillis, new: &NewSeal) -> Result<Effect> {
    check_validity(new.validity)?;
    let tenant = tenant_of(directory, &new.tenant)?;
    let credential = credential_of(directory, &new.tenant, &new.credential)?;
    let maker = new.maker.as_ref();
    let maker = maker.map(|maker| credential_of(directory, &new.tenant, maker));
    let maker = maker.transpose()?;
    if tenant.seals().len() >= SEALS_MAX as usize {
        let text = format!("a tenant has at most {SEALS_MAX} seals");
        return Err(refuse(Code::WrongState, text));
    }
    let row = insert(db, at, (&tenant, &credential, maker.as_deref()), new)?;
    // A maker signs nothing but seals.
    let used = new.reserve.then(|| Arc::clone(&credential));
    let reserved: Vec<_> = used.into_iter().chain(maker).collect();
    for credential in &reserved {
        let sql = "UPDATE credential SET reserved = TRUE WHERE row = ?";
        db.execute(sql, [credential.row.0])?;
    }
    let seal = Arc::new(Seal::new(
        (row, new.id.clone()),
        (credential.environment, credential.id.clone()),
        (SealState::Draft, 0),
        new.validity,
        0,
    ));
    note(
        db,
        at,
        &seal,
        ("seal.create", None, SealState::Draft),
        (&new.by, ""),
    )?;
    Ok(Effect::Seal(SealEffect::Created(tenant, seal, reserved)))
}

fn insert(
    db: &Connection,
    at: UnixMillis,
    (tenant, credential, maker): (&Tenant, &Credential, Option<&Credential>),
    new: &NewSeal,
) -> Result<SealRow> {
    let sql = "INSERT INTO seal (tenant, id, kind, credential, maker, state, epoch, name, picture, width_mm, height_mm, \
               from_ms, to_ms, created_ms, changed_ms) VALUES (?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?)";
    let at_ms = at.0.cast_signed();
    let inserted = db.execute(
        sql,
        params![
            tenant.row.0,
            new.id.as_str(),
            new.kind as u8,
            credential.row.0,
            maker.map(|maker| maker.row.0),
            new.name,
            new.picture,
            new.size_mm.0,
            new.size_mm.1,
            new.validity.from.0.cast_signed(),
            new.validity.to.0.cast_signed(),
            at_ms,
            at_ms
        ],
    );
    match inserted {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(exists("seal", &new.id))
        }
        other => {
            other?;
            Ok(SealRow(new_row(db)?))
        }
    }
}

/// Writes down what was done.
fn note(
    db: &Connection,
    at: UnixMillis,
    seal: &Seal,
    (action, grant, state): (&str, Option<&GrantId>, SealState),
    (by, reason): (&str, &str),
) -> Result<()> {
    let sql = "INSERT INTO seal_step (seal, number, action, grant_id, state, actor, reason, at_ms) \
               SELECT ?1, 1 + coalesce(max(number), 0), ?2, ?3, ?4, ?5, ?6, ?7 FROM seal_step WHERE seal = ?1";
    db.prepare_cached(sql)?.execute(params![
        seal.row.0,
        action,
        grant.map(GrantId::as_str),
        state as u8,
        by,
        reason,
        at.0.cast_signed()
    ])?;
    Ok(())
}

/// The state that this transaction has for it: another change of the same commit may have moved it.
fn state_of(db: &Connection, seal: &Seal) -> Result<SealState> {
    let sql = "SELECT state FROM seal WHERE row = ?";
    let number = db
        .prepare_cached(sql)?
        .query_row([seal.row.0], |row| row.get(0))?;
    SealState::from_number(number).ok_or_else(|| corrupt("a seal's state"))
}

fn take_step(
    db: &Connection,
    at: UnixMillis,
    seal: Arc<Seal>,
    (what, made): (SealStep, Option<&[u8]>),
    who: (&str, &str),
) -> Result<Effect> {
    let refused = |error: SealError| refuse(Code::WrongState, format!("seal '{}': {error}", seal.id));
    let state = step(state_of(db, &seal)?, what, seal.uses()).map_err(refused)?;
    let sql = "UPDATE seal SET state = ?, epoch = epoch + 1, changed_ms = ?, made = coalesce(?, made) WHERE row = ?";
    db.execute(sql, params![state as u8, at.0.cast_signed(), made, seal.row.0])?;
    note(db, at, &seal, (what.action(), None, state), who)?;
    let turned = Effect::Seal(SealEffect::Turned(Arc::clone(&seal), state));
    if state != SealState::Destroyed {
        return Ok(turned);
    }
    let sql = "UPDATE seal SET name = NULL, picture = NULL, made = NULL WHERE row = ?";
    db.execute(sql, [seal.row.0])?;
    Ok(Effect::Several(vec![turned, Effect::Erased]))
}

fn remake(
    db: &Connection,
    at: UnixMillis,
    seal: Arc<Seal>,
    (made, validity): (Option<&[u8]>, Validity),
    who: (&str, &str),
) -> Result<Effect> {
    check_validity(validity)?;
    let state = state_of(db, &seal)?;
    if !matches!(state, SealState::Active | SealState::Frozen) {
        let text = format!(
            "seal '{}' is {}: only what is in use is made anew",
            seal.id,
            state.name()
        );
        return Err(refuse(Code::WrongState, text));
    }
    let sql = "UPDATE seal SET made = ?, from_ms = ?, to_ms = ?, changed_ms = ? WHERE row = ?";
    let (from, to) = (validity.from.0.cast_signed(), validity.to.0.cast_signed());
    db.execute(sql, params![made, from, to, at.0.cast_signed(), seal.row.0])?;
    note(db, at, &seal, ("seal.remake", None, state), who)?;
    Ok(Effect::Seal(SealEffect::Remade(seal, validity)))
}

fn grant(db: &Connection, directory: &Directory, at: UnixMillis, new: NewGrant) -> Result<Effect> {
    check_validity(new.validity)?;
    let seal = seal_of(directory, &new.tenant, &new.seal)?;
    let state = state_of(db, &seal)?;
    if matches!(state, SealState::Revoked | SealState::Destroyed) {
        let text = format!("seal '{}' is {}: it is granted to nobody", seal.id, state.name());
        return Err(refuse(Code::WrongState, text));
    }
    let app = app_of(directory, &new, &seal)?;
    if let Some(agent) = &new.agent {
        check_agent(db, &new.tenant, agent, seal.environment)?;
    }
    if new.uses_max == Some(0) {
        return Err(refuse(Code::Usage, "a grant allows one use at least".into()));
    }
    if seal.grants().len() >= GRANTS_MAX as usize {
        let text = format!("a seal has at most {GRANTS_MAX} grants");
        return Err(refuse(Code::WrongState, text));
    }
    let terms = GrantTerms {
        app,
        agent: new.agent,
        documents: new.documents,
        validity: new.validity,
        uses_max: new.uses_max,
    };
    let tenant = tenant_of(directory, &new.tenant)?.row;
    let row = insert_grant(db, at, (tenant, &seal), (&new.id, &terms))?;
    let who = (new.by.as_str(), "");
    note(db, at, &seal, ("grant.create", Some(&new.id), state), who)?;
    let grant = Grant::new(row, new.id, terms, Fence::new(0, true), 0);
    Ok(Effect::Seal(SealEffect::Granted(seal, Arc::new(grant))))
}

fn app_of(directory: &Directory, new: &NewGrant, seal: &Seal) -> Result<AppRow> {
    let found = directory.app(new.app.as_str());
    let theirs = found.filter(|app| app.tenant.name == new.tenant && app.environment == seal.environment);
    let missing = || {
        let text = format!(
            "tenant '{}' has no app '{}' of the seal's environment",
            new.tenant, new.app
        );
        refuse(Code::NotFound, text)
    };
    Ok(theirs.ok_or_else(missing)?.row)
}

/// An agent is a person whose identity is approved.
fn check_agent(
    db: &Connection,
    tenant: &TenantName,
    agent: &SubjectId,
    environment: Environment,
) -> Result<()> {
    let found = subjects::read(db, tenant, agent)?.filter(|row| row.environment == environment);
    let missing = || refuse(Code::NotFound, format!("no subject '{agent}'"));
    let row = found.ok_or_else(missing)?;
    if row.kind == SubjectKind::Enterprise {
        let text = format!("subject '{agent}' is an enterprise; agents are persons");
        return Err(refuse(Code::Usage, text));
    }
    if row.state != SubjectState::Approved {
        let text = format!("subject '{agent}' is {}", row.state.name());
        return Err(refuse(Code::SubjectNotApproved, text));
    }
    Ok(())
}

fn insert_grant(
    db: &Connection,
    at: UnixMillis,
    (tenant, seal): (TenantRow, &Seal),
    (id, terms): (&GrantId, &GrantTerms),
) -> Result<GrantRow> {
    let sql = "INSERT INTO seal_grant (tenant, id, seal, app, agent, documents, from_ms, to_ms, uses_max, active, epoch, \
               created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, TRUE, 0, ?)";
    let inserted = db.execute(
        sql,
        params![
            tenant.0,
            id.as_str(),
            seal.row.0,
            terms.app.0,
            terms.agent.as_ref().map(SubjectId::as_str),
            terms.documents.bits(),
            terms.validity.from.0.cast_signed(),
            terms.validity.to.0.cast_signed(),
            terms.uses_max.map(u64::cast_signed),
            at.0.cast_signed()
        ],
    );
    match inserted {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(exists("grant", id))
        }
        other => {
            other?;
            Ok(GrantRow(new_row(db)?))
        }
    }
}

fn end(db: &Connection, at: UnixMillis, seal: &Seal, grant: Arc<Grant>, who: (&str, &str)) -> Result<Effect> {
    if grant.fence.pass().is_none() {
        let text = format!("grant '{}' is revoked already", grant.id);
        return Err(refuse(Code::WrongState, text));
    }
    turn(db, "seal_grant", grant.row.0, false)?;
    let state = state_of(db, seal)?;
    note(db, at, seal, ("grant.revoke", Some(&grant.id), state), who)?;
    Ok(Effect::Seal(SealEffect::Ended(grant)))
}

/// Whoever is rejected or erased acts for nobody any more: every grant to this agent ends.
pub(crate) fn end_agent(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    (tenant, agent): (&TenantName, &SubjectId),
    by: &str,
) -> Result<Vec<Effect>> {
    let mut effects = Vec::new();
    for seal in tenant_of(directory, tenant)?.seals() {
        for grant in seal.grants() {
            if grant.terms.agent.as_ref() == Some(agent) && grant.fence.pass().is_some() {
                let who = (by, "the agent's identity is not approved any more");
                effects.push(end(db, at, &seal, grant, who)?);
            }
        }
    }
    Ok(effects)
}

/// Takes the seals of a tenant that is destroyed off the disk.
pub(crate) fn destroy(db: &Connection, tenant: TenantRow) -> Result<()> {
    let seals = "UPDATE seal SET name = NULL, picture = NULL, made = NULL, state = ?, epoch = epoch + 1 WHERE tenant = ?";
    db.execute(seals, params![SealState::Revoked as u8, tenant.0])?;
    let grants = "UPDATE seal_grant SET active = FALSE, epoch = epoch + 1 WHERE tenant = ?";
    db.execute(grants, [tenant.0])?;
    Ok(())
}

fn validity_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Validity> {
    let millis = |ms: i64| UnixMillis(ms.cast_unsigned());
    Ok(Validity {
        from: millis(row.get(column)?),
        to: millis(row.get(column + 1)?),
    })
}

/// Loads seals and grants into memory.
pub(crate) fn load(db: &Connection, tenants: &HashMap<u32, Arc<Tenant>>) -> Result<()> {
    let mut grants = load_grants(db)?;
    let sql = "SELECT s.row, s.tenant, s.id, s.state, s.epoch, s.from_ms, s.to_ms, s.uses, c.id, c.sandbox \
               FROM seal s JOIN credential c ON c.row = s.credential";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number: u32 = row.get(0)?;
        let tenant = tenants.get(&row.get(1)?);
        let tenant = tenant.ok_or_else(|| corrupt("a seal without its tenant"))?;
        let id = SealId::new(&row.get::<_, String>(2)?).map_err(|_| corrupt("a seal's id"))?;
        let state = SealState::from_number(row.get(3)?).ok_or_else(|| corrupt("a seal's state"))?;
        let credential = CredentialId::new(&row.get::<_, String>(8)?);
        let credential = credential.map_err(|_| corrupt("a credential's id"))?;
        let seal = Seal::new(
            (SealRow(number), id),
            (Environment::of_sandbox(row.get(9)?), credential),
            (state, row.get::<_, i64>(4)?.cast_unsigned()),
            validity_of(row, 5)?,
            row.get::<_, i64>(7)?.cast_unsigned(),
        );
        let granted = grants.remove(&number).unwrap_or_default();
        granted.into_iter().for_each(|grant| seal.add_grant(grant));
        tenant.add_seal(Arc::new(seal));
    }
    Ok(())
}

fn load_grants(db: &Connection) -> Result<HashMap<u32, Vec<Arc<Grant>>>> {
    let sql = "SELECT row, id, seal, app, agent, documents, from_ms, to_ms, uses_max, uses, active, epoch \
               FROM seal_grant ORDER BY row";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut grants: HashMap<u32, Vec<Arc<Grant>>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let id = GrantId::new(&row.get::<_, String>(1)?).map_err(|_| corrupt("a grant's id"))?;
        let agent = row.get::<_, Option<String>>(4)?;
        let agent = agent.map(|agent| SubjectId::new(&agent)).transpose();
        let terms = GrantTerms {
            app: AppRow(row.get(3)?),
            agent: agent.map_err(|_| corrupt("a grant's agent"))?,
            documents: DocumentKinds::from_bits(row.get(5)?)
                .ok_or_else(|| corrupt("a grant's kinds of document"))?,
            validity: validity_of(row, 6)?,
            uses_max: row.get::<_, Option<i64>>(8)?.map(i64::cast_unsigned),
        };
        let fence = Fence::new(row.get::<_, i64>(11)?.cast_unsigned(), row.get(10)?);
        let uses = row.get::<_, i64>(9)?.cast_unsigned();
        let grant = Grant::new(GrantRow(row.get(0)?), id, terms, fence, uses);
        grants.entry(row.get(2)?).or_default().push(Arc::new(grant));
    }
    Ok(grants)
}

/// What the registry keeps of a seal beside what is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRecord {
    /// Whose seal it is.
    pub kind: SealKind,
    /// Who signs it when it is made.
    pub maker: Option<CredentialId>,
    /// Its name, under the tenant's key; `None`: destroyed, here and below.
    pub name: Option<Vec<u8>>,
    /// Its picture (PNG), under the tenant's key.
    pub picture: Option<Vec<u8>>,
    /// As its maker has signed it (SESeal in DER), under the tenant's key; `None`: not made, too.
    pub made: Option<Vec<u8>>,
    /// Displayed width and height, in millimetres.
    pub size_mm: (u32, u32),
    /// When it was created.
    pub created: UnixMillis,
    /// When something was done with it last.
    pub changed: UnixMillis,
}

/// Reads it; without the pictures where only a list is made.
pub(crate) fn read(db: &Connection, seal: SealRow, whole: bool) -> Result<SealRecord> {
    let sql = "SELECT s.kind, m.id, s.name, iif(?2, s.picture, NULL), iif(?2, s.made, NULL), s.width_mm, s.height_mm, \
               s.created_ms, s.changed_ms FROM seal s LEFT JOIN credential m ON m.row = s.maker WHERE s.row = ?1";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![seal.0, whole])?;
    let row = rows.next()?.ok_or_else(|| corrupt("a seal that is not there"))?;
    let maker = row.get::<_, Option<String>>(1)?;
    let maker = maker.map(|maker| CredentialId::new(&maker)).transpose();
    let time = |column| -> Result<UnixMillis> { Ok(UnixMillis(row.get::<_, i64>(column)?.cast_unsigned())) };
    Ok(SealRecord {
        kind: match row.get::<_, u8>(0)? {
            1 => SealKind::Organisation,
            2 => SealKind::Personal,
            _ => return Err(corrupt("a seal's kind")),
        },
        maker: maker.map_err(|_| corrupt("a seal's maker"))?,
        name: row.get(2)?,
        picture: row.get(3)?,
        made: row.get(4)?,
        size_mm: (row.get(5)?, row.get(6)?),
        created: time(7)?,
        changed: time(8)?,
    })
}

/// Something that was done with a seal or a grant of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealStepRow {
    /// As the journal calls it.
    pub action: String,
    /// Where it was about a grant.
    pub grant: Option<String>,
    /// How the seal stood afterwards.
    pub state: SealState,
    /// Who, as the journal names an actor.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: UnixMillis,
}

/// What was done with a seal, the first first.
pub(crate) fn steps(db: &Connection, seal: SealRow) -> Result<Vec<SealStepRow>> {
    let sql =
        "SELECT action, grant_id, state, actor, reason, at_ms FROM seal_step WHERE seal = ? ORDER BY number";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([seal.0])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(SealStepRow {
            action: row.get(0)?,
            grant: row.get(1)?,
            state: SealState::from_number(row.get(2)?).ok_or_else(|| corrupt("a seal's state"))?,
            actor: row.get(3)?,
            reason: row.get(4)?,
            at: UnixMillis(row.get::<_, i64>(5)?.cast_unsigned()),
        });
    }
    Ok(list)
}

/// A signature under a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealUseRow {
    /// Its journal entry.
    pub sequence: Sequence,
    /// The grant by which it was made.
    pub grant: GrantId,
    /// The agent to whom that is granted.
    pub agent: Option<String>,
    /// The app that asked.
    pub app: AppId,
    /// On what.
    pub document: DocumentKind,
    /// When it was committed.
    pub at: UnixMillis,
}

/// The uses of a seal, or of one of its grants, after a journal entry; at most `count`.
pub(crate) fn uses(
    db: &Connection,
    (seal, grant): (SealRow, Option<GrantRow>),
    after: Sequence,
    count: u32,
) -> Result<Vec<SealUseRow>> {
    let of = if grant.is_some() {
        "u.grant_row = ?2"
    } else {
        "u.seal = ?1 AND ?2 IS NULL"
    };
    let sql = format!(
        "SELECT u.sequence, g.id, g.agent, a.id, u.document, u.at_ms FROM seal_use u \
         JOIN seal_grant g ON g.row = u.grant_row JOIN app a ON a.row = u.app \
         WHERE {of} AND u.seal = ?1 AND u.sequence > ?3 ORDER BY u.sequence LIMIT ?4"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let asked = params![
        seal.0,
        grant.map(|grant| grant.0),
        after.0.min(i64::MAX.cast_unsigned()).cast_signed(),
        count
    ];
    let mut rows = statement.query(asked)?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(SealUseRow {
            sequence: Sequence(row.get::<_, i64>(0)?.cast_unsigned()),
            grant: GrantId::new(&row.get::<_, String>(1)?).map_err(|_| corrupt("a grant's id"))?,
            agent: row.get(2)?,
            app: AppId::new(&row.get::<_, String>(3)?).map_err(|_| corrupt("an app's id"))?,
            document: DocumentKind::from_wire(row.get(4)?)
                .ok_or_else(|| corrupt("a use's kind of document"))?,
            at: UnixMillis(row.get::<_, i64>(5)?.cast_unsigned()),
        });
    }
    Ok(list)
}

/// Uses by month, seal and grant.
pub(crate) type Counts = Vec<((u32, u32, u32), i64)>;

/// How often seals were used in some months, by month, seal and grant.
pub(crate) fn counted(db: &Connection, months: &[u32]) -> Result<Counts> {
    let sql =
        "SELECT month, seal, grant_row, count(*) FROM seal_use WHERE month = ? GROUP BY seal, grant_row";
    let mut statement = db.prepare_cached(sql)?;
    let mut counted = Vec::new();
    for month in months {
        let mut rows = statement.query([month])?;
        while let Some(row) = rows.next()? {
            counted.push(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?));
        }
    }
    Ok(counted)
}
