//! Subjects: those whose identities are checked before they are certified. What is known of them is sealed under their
//! tenant's key before it comes here; this chapter knows ids, states, and a hash of the evidence. [`SubjectRow::step`] is
//! the whole state machine; the rest writes down what it says.

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{SubjectId, TenantName};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::error::{Result, StoreError};
use crate::ledger::Unit;
use crate::ledger::change::{self, Moment};
use crate::registry::{Effect, corrupt, exists, refuse, tenant_of};
use crate::seals;
use crate::tenancy::Environment;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE subject (            -- whose identities are checked
        tenant  TEXT NOT NULL,
        id      TEXT NOT NULL,
        sandbox INTEGER NOT NULL,     -- whether it is for trying only
        kind    INTEGER NOT NULL,     -- 0 enterprise, 1 agent, 2 legal representative
        state   INTEGER NOT NULL,     -- 0 submitted, 1 checked, 2 approved, 3 rejected, 4 erased
        sealed  BLOB,                 -- what is known of it, under the tenant's key; NULL: erased
        evidence BLOB,                -- SHA-256 of the evidence, which is kept elsewhere; NULL: erased
        checker TEXT,                 -- who checked, and who decided, as the journal names an actor
        decider TEXT,
        submitted_ms INTEGER NOT NULL,
        changed_ms INTEGER NOT NULL,
        counted INTEGER NOT NULL DEFAULT FALSE,  -- whether it was counted as a user
        PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID;
    CREATE TABLE challenge (          -- questions to verification services, each to be answered once
        nonce   TEXT PRIMARY KEY,
        tenant  TEXT NOT NULL,
        subject TEXT NOT NULL,
        details BLOB NOT NULL,        -- SHA-256 of the nonce and what is known of the subject
        expires_ms INTEGER NOT NULL,
        answered_ms INTEGER
    ) WITHOUT ROWID;
";

/// Questions that may be open for a subject at a time.
const CHALLENGES_OPEN_MAX: u32 = 16;

/// What a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SubjectKind {
    /// An enterprise (企业).
    Enterprise = 0,
    /// A person who acts for an enterprise (经办人).
    Agent = 1,
    /// An enterprise's legal representative (法定代表人).
    LegalRepresentative = 2,
}

impl SubjectKind {
    const ALL: [Self; 3] = [Self::Enterprise, Self::Agent, Self::LegalRepresentative];
}

/// Where a subject stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum SubjectState {
    /// Nobody has looked yet.
    Submitted = 0,
    /// An operator has checked the evidence; another one has to approve.
    Checked = 1,
    /// It is who it says.
    Approved = 2,
    /// It is not, or that could not be found out.
    Rejected = 3,
    /// Nothing is known of it any more.
    Erased = 4,
}

impl SubjectState {
    const ALL: [Self; 5] = [
        Self::Submitted,
        Self::Checked,
        Self::Approved,
        Self::Rejected,
        Self::Erased,
    ];

    /// The name in lists and refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Checked => "checked",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Erased => "erased",
        }
    }
}

/// What is done with a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectStep {
    /// An operator has checked the evidence.
    Check,
    /// A second operator approves.
    Approve,
    /// An operator rejects.
    Reject,
    /// A verification service says that it is so: no second operator is needed (SEMANTICS 2.7).
    Confirm,
    /// A verification service says that it is not so.
    Refute,
    /// What is known of it is erased.
    Erase,
}

impl SubjectStep {
    const fn action(self) -> &'static str {
        match self {
            Self::Check => "subject.check",
            Self::Approve => "subject.approve",
            Self::Reject => "subject.reject",
            Self::Confirm => "subject.confirm",
            Self::Refute => "subject.refute",
            Self::Erase => "subject.erase",
        }
    }
}

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It is not in a state for this.
    #[error("it is {}, which does not allow this", .0.name())]
    State(SubjectState),
    /// Whoever checked approves.
    #[error(
        "who checked it cannot approve it as well; without a verification service that takes two operators"
    )]
    SameOperator,
    /// Whoever checks or approves has no name of its own: two names could be one person's.
    #[error(
        "without a verification service it is checked and approved by two operators with names of their own, on the console"
    )]
    Unnamed,
}

/// How the journal names operators that are known by name.
const NAMED: &str = "operator ";

impl SubjectError {
    /// The code that a caller hears.
    pub const fn code(self) -> Code {
        match self {
            Self::SameOperator | Self::Unnamed => Code::SecondOperatorNeeded,
            Self::State(_) => Code::WrongState,
        }
    }
}

/// A subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRow {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: SubjectId,
    /// For what its tenant uses it.
    pub environment: Environment,
    /// What it is.
    pub kind: SubjectKind,
    /// Where it stands.
    pub state: SubjectState,
    /// What is known of it, under the tenant's key; `None`: erased.
    pub sealed: Option<Vec<u8>>,
    /// SHA-256 of the evidence; `None`: erased.
    pub evidence: Option<[u8; 32]>,
    /// Who has checked the evidence.
    pub checker: Option<String>,
    /// Who has decided.
    pub decider: Option<String>,
    /// When it was submitted.
    pub submitted: UnixMillis,
    /// When it changed last.
    pub changed: UnixMillis,
}

impl SubjectRow {
    /// What a step makes of it.
    pub fn step(&self, step: SubjectStep, by: &str) -> std::result::Result<SubjectState, SubjectError> {
        use SubjectState::{Approved, Checked, Erased, Rejected, Submitted};
        match (self.state, step) {
            (Submitted, SubjectStep::Check) => Ok(Checked),
            // Whoever is named checks again what was checked by somebody of whom no name is known.
            (Checked, SubjectStep::Check) if by.starts_with(NAMED) && !self.is_checked_by_name() => {
                Ok(Checked)
            }
            (Checked, SubjectStep::Approve) if self.checker.as_deref() == Some(by) => {
                Err(SubjectError::SameOperator)
            }
            (Checked, SubjectStep::Approve) if !by.starts_with(NAMED) || !self.is_checked_by_name() => {
                Err(SubjectError::Unnamed)
            }
            (Checked, SubjectStep::Approve) => Ok(Approved),
            (Submitted | Checked, SubjectStep::Confirm) => Ok(Approved),
            // What was approved can turn out to be wrong.
            (Submitted | Checked | Approved, SubjectStep::Reject) => Ok(Rejected),
            (Submitted | Checked, SubjectStep::Refute) => Ok(Rejected),
            (Submitted | Checked | Approved | Rejected, SubjectStep::Erase) => Ok(Erased),
            (state, _) => Err(SubjectError::State(state)),
        }
    }

    fn is_checked_by_name(&self) -> bool {
        self.checker
            .as_deref()
            .is_some_and(|checker| checker.starts_with(NAMED))
    }
}

/// A question to a verification service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Whose subject.
    pub tenant: TenantName,
    /// Which subject.
    pub subject: SubjectId,
    /// SHA-256 of the nonce and what is known of the subject.
    pub details: [u8; 32],
    /// Until when it can be answered.
    pub expires: UnixMillis,
    /// Whether it was answered.
    pub answered: bool,
}

/// A change of subjects.
#[derive(Debug)]
pub enum SubjectChange {
    /// A new one.
    Submit {
        /// Whose.
        tenant: TenantName,
        /// Its id.
        id: SubjectId,
        /// For what its tenant uses it.
        environment: Environment,
        /// What it is.
        kind: SubjectKind,
        /// What is known of it, under the tenant's key.
        sealed: Box<[u8]>,
        /// SHA-256 of the evidence.
        evidence: [u8; 32],
    },
    /// An operator does something.
    Step {
        /// Whose.
        tenant: TenantName,
        /// Which.
        id: SubjectId,
        /// What.
        step: SubjectStep,
        /// Who.
        by: String,
        /// Why: the order of an erasure, the reason of a rejection. The journal keeps it.
        reason: String,
    },
    /// A question to a verification service.
    Challenge {
        /// Its name, never used twice.
        nonce: String,
        /// Whose subject.
        tenant: TenantName,
        /// Which subject.
        subject: SubjectId,
        /// SHA-256 of the nonce and what is known of the subject: whoever answers has to have seen the same.
        details: [u8; 32],
        /// Until when it can be answered.
        expires: UnixMillis,
    },
    /// A verification service answers, which it can once.
    Answer {
        /// The question.
        nonce: String,
        /// The subject that it speaks of,
        subject: SubjectId,
        /// the evidence,
        evidence: [u8; 32],
        /// and what is known of it, as in the question.
        details: [u8; 32],
        /// Whether it is so.
        confirmed: bool,
        /// Which service.
        by: String,
    },
}

impl SubjectChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Submit { tenant, id, kind, .. } => ("subject.submit", format!("{tenant}/{id} {kind:?}")),
            Self::Step {
                tenant,
                id,
                step,
                reason,
                ..
            } => (
                step.action(),
                format!("{tenant}/{id} {reason}").trim_end().to_owned(),
            ),
            Self::Challenge {
                tenant,
                subject,
                nonce,
                ..
            } => ("subject.challenge", format!("{tenant}/{subject} {nonce}")),
            Self::Answer {
                nonce,
                subject,
                confirmed,
                by,
                ..
            } => {
                let step = match confirmed {
                    true => SubjectStep::Confirm,
                    false => SubjectStep::Refute,
                };
                (step.action(), format!("{subject} {nonce} by {by}"))
            }
        }
    }
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    moment: Moment,
    change: SubjectChange,
) -> Result<Effect> {
    match change {
        SubjectChange::Submit {
            tenant,
            id,
            environment,
            kind,
            sealed,
            evidence,
        } => {
            tenant_of(directory, &tenant)?;
            submit(
                db,
                moment.at,
                (&tenant, &id),
                (environment, kind),
                &sealed,
                evidence,
            )?;
            Ok(Effect::None)
        }
        SubjectChange::Step {
            tenant, id, step, by, ..
        } => {
            let row = found(db, &tenant, &id)?;
            take_step(db, directory, moment, &row, step, &by)
        }
        SubjectChange::Challenge {
            nonce,
            tenant,
            subject,
            details,
            expires,
        } => {
            found(db, &tenant, &subject)?;
            ask(db, moment.at, &nonce, (&tenant, &subject, details), expires)?;
            Ok(Effect::None)
        }
        SubjectChange::Answer {
            nonce,
            subject,
            evidence,
            details,
            confirmed,
            by,
        } => {
            let row = answered(db, moment.at, &nonce, (&subject, evidence, details))?;
            let step = match confirmed {
                true => SubjectStep::Confirm,
                false => SubjectStep::Refute,
            };
            take_step(db, directory, moment, &row, step, &by)
        }
    }
}

fn submit(
    db: &Connection,
    at: UnixMillis,
    (tenant, id): (&TenantName, &SubjectId),
    (environment, kind): (Environment, SubjectKind),
    sealed: &[u8],
    evidence: [u8; 32],
) -> Result<()> {
    let sql = "INSERT INTO subject (tenant, id, kind, state, sealed, evidence, submitted_ms, changed_ms, sandbox) \
               VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?)";
    let at = at.0.cast_signed();
    let row = params![
        tenant.as_str(),
        id.as_str(),
        kind as u8,
        sealed,
        evidence,
        at,
        at,
        environment.is_sandbox()
    ];
    match db.execute(sql, row) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(exists("subject", id))
        }
        other => Ok(other.map(drop)?),
    }
}

fn found(db: &Connection, tenant: &TenantName, id: &SubjectId) -> Result<SubjectRow> {
    let missing = || refuse(Code::NotFound, format!("no subject '{id}'"));
    read(db, tenant, id)?.ok_or_else(missing)
}

/// An enterprise that is approved is an account created: one user unit (SEMANTICS 4.1), in the same transaction; nothing
/// is charged for those that are for trying only.
fn take_step(
    db: &Connection,
    directory: &Directory,
    moment: Moment,
    row: &SubjectRow,
    step: SubjectStep,
    by: &str,
) -> Result<Effect> {
    let refused = |error: SubjectError| refuse(error.code(), format!("subject '{}': {error}", row.id));
    let state = row.step(step, by).map_err(refused)?;
    let column = if step == SubjectStep::Check {
        "checker"
    } else {
        "decider"
    };
    let sql =
        format!("UPDATE subject SET state = ?, changed_ms = ?, {column} = ? WHERE tenant = ? AND id = ?");
    let key = (row.tenant.as_str(), row.id.as_str());
    db.execute(
        &sql,
        params![state as u8, moment.at.0.cast_signed(), by, key.0, key.1],
    )?;
    match state {
        SubjectState::Approved if row.kind == SubjectKind::Enterprise && !row.environment.is_sandbox() => {
            let tenant = tenant_of(directory, &row.tenant)?.row;
            change::count(db, moment, tenant, Unit::User)?;
            let sql = "UPDATE subject SET counted = TRUE WHERE tenant = ? AND id = ?";
            db.execute(sql, [key.0, key.1])?;
            Ok(Effect::Books(tenant))
        }
        SubjectState::Rejected => {
            let of = (&row.tenant, &row.id);
            Ok(Effect::Several(seals::rows::end_agent(
                db, directory, moment.at, of, by,
            )?))
        }
        SubjectState::Erased => {
            let sql = "UPDATE subject SET sealed = NULL, evidence = NULL WHERE tenant = ? AND id = ?";
            db.execute(sql, [key.0, key.1])?;
            db.execute(
                "DELETE FROM challenge WHERE tenant = ? AND subject = ?",
                [key.0, key.1],
            )?;
            let of = (&row.tenant, &row.id);
            let mut effects = seals::rows::end_agent(db, directory, moment.at, of, by)?;
            effects.push(Effect::Erased);
            Ok(Effect::Several(effects))
        }
        _ => Ok(Effect::None),
    }
}

fn ask(
    db: &Connection,
    at: UnixMillis,
    nonce: &str,
    (tenant, subject, details): (&TenantName, &SubjectId, [u8; 32]),
    expires: UnixMillis,
) -> Result<()> {
    let now = at.0.cast_signed();
    // Those that nobody can answer any more are of no use.
    db.execute(
        "DELETE FROM challenge WHERE expires_ms <= ? AND answered_ms IS NULL",
        [now],
    )?;
    let sql = "SELECT count(*) FROM challenge WHERE tenant = ? AND subject = ? AND answered_ms IS NULL";
    let open: u32 = db.query_row(sql, [tenant.as_str(), subject.as_str()], |row| row.get(0))?;
    if open >= CHALLENGES_OPEN_MAX {
        let text = format!("{open} questions about subject '{subject}' are open already");
        return Err(refuse(Code::WrongState, text));
    }
    let sql = "INSERT INTO challenge (nonce, tenant, subject, details, expires_ms) VALUES (?, ?, ?, ?, ?)";
    db.execute(
        sql,
        params![
            nonce,
            tenant.as_str(),
            subject.as_str(),
            details,
            expires.0.cast_signed()
        ],
    )?;
    Ok(())
}

/// Marks a question as answered, if the answer fits it and comes in time.
fn answered(
    db: &Connection,
    at: UnixMillis,
    nonce: &str,
    (subject, evidence, details): (&SubjectId, [u8; 32], [u8; 32]),
) -> Result<SubjectRow> {
    let refused = |text: &str| refuse(Code::VerificationRefused, text.to_owned());
    let challenge = read_challenge(db, nonce)?.ok_or_else(|| refused("no question has this nonce"))?;
    if challenge.answered {
        return Err(refused("the question has been answered"));
    }
    if at >= challenge.expires {
        return Err(refused("the answer came too late"));
    }
    let row = found(db, &challenge.tenant, &challenge.subject)?;
    if challenge.subject != *subject || row.evidence != Some(evidence) {
        return Err(refused("the answer is about another subject, or other evidence"));
    }
    if challenge.details != details {
        let text = "the answer is about a subject of another name or number (details_sha256)";
        return Err(refused(text));
    }
    let sql = "UPDATE challenge SET answered_ms = ? WHERE nonce = ?";
    db.execute(sql, params![at.0.cast_signed(), nonce])?;
    Ok(row)
}

const SUBJECT: &str = "SELECT tenant, id, kind, state, sealed, evidence, checker, decider, submitted_ms, changed_ms, sandbox \
                       FROM subject WHERE tenant = ?";

fn subject_of(row: &Row<'_>) -> Result<SubjectRow> {
    let time = |column| -> Result<UnixMillis> { Ok(UnixMillis(row.get::<_, i64>(column)?.cast_unsigned())) };
    let (kind, state): (u8, u8) = (row.get(2)?, row.get(3)?);
    let kinds = SubjectKind::ALL.into_iter().find(|known| *known as u8 == kind);
    let states = SubjectState::ALL.into_iter().find(|known| *known as u8 == state);
    Ok(SubjectRow {
        tenant: TenantName::new(&row.get::<_, String>(0)?).map_err(|_| corrupt("a subject's tenant"))?,
        id: SubjectId::new(&row.get::<_, String>(1)?).map_err(|_| corrupt("a subject's id"))?,
        kind: kinds.ok_or_else(|| corrupt("a subject's kind"))?,
        state: states.ok_or_else(|| corrupt("a subject's state"))?,
        sealed: row.get(4)?,
        evidence: row.get(5)?,
        checker: row.get(6)?,
        decider: row.get(7)?,
        submitted: time(8)?,
        changed: time(9)?,
        environment: Environment::of_sandbox(row.get(10)?),
    })
}

/// A subject.
pub(crate) fn read(db: &Connection, tenant: &TenantName, id: &SubjectId) -> Result<Option<SubjectRow>> {
    let mut statement = db.prepare_cached(&format!("{SUBJECT} AND id = ?"))?;
    let mut rows = statement.query([tenant.as_str(), id.as_str()])?;
    rows.next()?.map(subject_of).transpose()
}

/// All subjects that were erased, and when.
pub(crate) fn erased(db: &Connection) -> Result<Vec<(TenantName, SubjectId, UnixMillis)>> {
    let sql = "SELECT tenant, id, changed_ms FROM subject WHERE state = ? ORDER BY tenant, id";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([SubjectState::Erased as u8])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push((
            TenantName::new(&row.get::<_, String>(0)?).map_err(|_| corrupt("a subject's tenant"))?,
            SubjectId::new(&row.get::<_, String>(1)?).map_err(|_| corrupt("a subject's id"))?,
            UnixMillis(row.get::<_, i64>(2)?.cast_unsigned()),
        ));
    }
    Ok(list)
}

/// A tenant's subjects of an environment, or of all, by id.
pub(crate) fn list(
    db: &Connection,
    tenant: &TenantName,
    environment: Option<Environment>,
    after: Option<&SubjectId>,
    count: u32,
) -> Result<Vec<SubjectRow>> {
    let mut statement = db.prepare_cached(&format!(
        "{SUBJECT} AND id > ? AND sandbox = coalesce(?, sandbox) ORDER BY id LIMIT ?"
    ))?;
    let after = after.map_or("", SubjectId::as_str);
    let mut rows = statement.query(params![
        tenant.as_str(),
        after,
        environment.map(Environment::is_sandbox),
        count
    ])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(subject_of(row)?);
    }
    Ok(list)
}

/// A question.
pub(crate) fn read_challenge(db: &Connection, nonce: &str) -> Result<Option<Challenge>> {
    let sql =
        "SELECT tenant, subject, expires_ms, answered_ms IS NOT NULL, details FROM challenge WHERE nonce = ?";
    let read = |row: &Row<'_>| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get(3)?,
            row.get(4)?,
        ))
    };
    let found = db.prepare_cached(sql)?.query_row([nonce], read).optional()?;
    let read = |(tenant, subject, expires, answered, details): (String, String, i64, bool, [u8; 32])| {
        Ok::<_, StoreError>(Challenge {
            tenant: TenantName::new(&tenant).map_err(|_| corrupt("a question's tenant"))?,
            subject: SubjectId::new(&subject).map_err(|_| corrupt("a question's subject"))?,
            details,
            expires: UnixMillis(expires.cast_unsigned()),
            answered,
        })
    };
    found.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: SubjectState) -> SubjectRow {
        SubjectRow {
            tenant: TenantName::new("acme").unwrap(),
            id: SubjectId::new("s-1").unwrap(),
            environment: Environment::Production,
            kind: SubjectKind::Enterprise,
            state,
            sealed: Some(vec![1]),
            evidence: Some([7; 32]),
            checker: (state == SubjectState::Checked).then(|| "operator alice".to_owned()),
            decider: None,
            submitted: UnixMillis(0),
            changed: UnixMillis(0),
        }
    }

    #[test]
    fn only_two_operators_or_a_service_approve() {
        use SubjectState::{Approved, Checked, Erased, Rejected, Submitted};
        let allowed = [
            (Submitted, SubjectStep::Check, Checked),
            (Submitted, SubjectStep::Confirm, Approved),
            (Submitted, SubjectStep::Reject, Rejected),
            (Submitted, SubjectStep::Refute, Rejected),
            (Submitted, SubjectStep::Erase, Erased),
            (Checked, SubjectStep::Approve, Approved),
            (Checked, SubjectStep::Confirm, Approved),
            (Checked, SubjectStep::Reject, Rejected),
            (Checked, SubjectStep::Refute, Rejected),
            (Checked, SubjectStep::Erase, Erased),
            (Approved, SubjectStep::Reject, Rejected),
            (Approved, SubjectStep::Erase, Erased),
            (Rejected, SubjectStep::Erase, Erased),
        ];
        let steps = [
            SubjectStep::Check,
            SubjectStep::Approve,
            SubjectStep::Reject,
            SubjectStep::Confirm,
            SubjectStep::Refute,
            SubjectStep::Erase,
        ];
        for state in SubjectState::ALL {
            for step in steps {
                let next = allowed.iter().find(|(from, by, _)| (*from, *by) == (state, step));
                let next = next.map(|(.., to)| *to).ok_or(SubjectError::State(state));
                assert_eq!(row(state).step(step, "operator bob"), next, "{state:?} {step:?}");
            }
        }
        let same = row(Checked).step(SubjectStep::Approve, "operator alice");
        assert_eq!(same, Err(SubjectError::SameOperator));
        // The user of the socket may be the operator who checked, and the other way round.
        let unnamed = row(Checked).step(SubjectStep::Approve, "uid 0");
        assert_eq!(unnamed, Err(SubjectError::Unnamed));
        let by_uid = SubjectRow {
            checker: Some("uid 0".to_owned()),
            ..row(Checked)
        };
        assert_eq!(
            by_uid.step(SubjectStep::Approve, "operator bob"),
            Err(SubjectError::Unnamed)
        );
        assert_eq!(by_uid.step(SubjectStep::Check, "operator bob"), Ok(Checked));
    }
}
