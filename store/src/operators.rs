//! Operators: the people who manage, use or audit. Each is known by a TLS client certificate, by a one-time login link,
//! or by both; which roles one has decides what it may do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::OperatorName;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::error::Result;
use crate::registry::{corrupt, exists, refuse};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE operator (
        name    TEXT PRIMARY KEY,
        roles   INTEGER NOT NULL,     -- sum of 1 manage, 2 use, 4 audit
        certificate BLOB UNIQUE,      -- SHA-256 of the TLS client certificate; NULL: none
        active  INTEGER NOT NULL,
        created_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum OperatorRole {
    /// Reads and changes the registry.
    Manage = 1,
    /// Uses what others have set up; reads nothing of the registry.
    Use = 2,
    /// Reads everything and changes nothing.
    Audit = 4,
}

impl OperatorRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Manage, Self::Use, Self::Audit];

    /// The name in lists and refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manage => "manage",
            Self::Use => "use",
            Self::Audit => "audit",
        }
    }
}

/// The roles of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Every role: for a development engine only.
    pub const ALL: Self = Self(7);

    /// Whether a role is among them.
    pub const fn has(self, role: OperatorRole) -> bool {
        self.0 & role as u8 != 0
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let has = |role: &OperatorRole| self.has(*role);
        let names = OperatorRole::ALL.into_iter().filter(has);
        names.map(OperatorRole::name).collect()
    }
}

impl From<OperatorRole> for Roles {
    fn from(role: OperatorRole) -> Self {
        Self(role as u8)
    }
}

/// An operator.
#[derive(Debug)]
pub struct Operator {
    /// Its name.
    pub name: OperatorName,
    /// What it may do.
    pub roles: Roles,
    /// SHA-256 of its TLS client certificate.
    pub certificate: Option<[u8; 32]>,
    /// Since when it is known.
    pub created: UnixMillis,
    active: AtomicBool,
}

impl Operator {
    /// Whether it is let in.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }
}

/// All operators, in memory. They are few: a certificate is found by looking at each.
#[derive(Debug, Default)]
pub struct Operators(RwLock<BTreeMap<OperatorName, Arc<Operator>>>);

impl Operators {
    /// One by name, active or not.
    pub fn get(&self, name: &str) -> Option<Arc<Operator>> {
        self.0.read().get(name).cloned()
    }

    /// The one that registered a TLS client certificate, by the certificate's SHA-256.
    pub fn by_certificate(&self, hash: &[u8; 32]) -> Option<Arc<Operator>> {
        let operators = self.0.read();
        let has = |operator: &&Arc<Operator>| operator.certificate.as_ref() == Some(hash);
        operators.values().find(has).cloned()
    }

    /// Whether any has registered a TLS client certificate.
    pub fn have_certificates(&self) -> bool {
        let operators = self.0.read();
        operators.values().any(|operator| operator.certificate.is_some())
    }

    /// All, by name.
    pub fn list(&self) -> Vec<Arc<Operator>> {
        self.0.read().values().cloned().collect()
    }

    fn add(&self, operator: Arc<Operator>) {
        self.0.write().insert(operator.name.clone(), operator);
    }
}

/// A change of the operators, or something that one of them did and that must be on record.
#[derive(Debug)]
pub enum OperatorChange {
    /// A new one.
    Create {
        /// Its name.
        name: OperatorName,
        /// What it may do.
        roles: Roles,
        /// SHA-256 of its TLS client certificate.
        certificate: Option<[u8; 32]>,
    },
    /// Lets one in no more, or again.
    Set {
        /// Which.
        name: OperatorName,
        /// Is it let in?
        active: bool,
    },
    /// A login link was made for one.
    Link {
        /// For whom.
        name: OperatorName,
    },
    /// One has logged in by its link.
    Login {
        /// Who.
        name: OperatorName,
    },
}

impl OperatorChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Create { name, roles, .. } => (
                "operator.create",
                format!("{name} roles={}", roles.names().join(",")),
            ),
            Self::Set { name, active: true } => ("operator.enable", name.to_string()),
            Self::Set { name, active: false } => ("operator.disable", name.to_string()),
            Self::Link { name } => ("operator.link", name.to_string()),
            Self::Login { name } => ("operator.login", name.to_string()),
        }
    }
}

/// What takes effect in memory after the commit.
pub(crate) enum OperatorEffect {
    Add(Arc<Operator>),
    Set(Arc<Operator>, bool),
    None,
}

impl OperatorEffect {
    pub(crate) fn take(self, directory: &Directory) {
        match self {
            Self::Add(operator) => directory.operators.add(operator),
            Self::Set(operator, active) => operator.active.store(active, Ordering::Release),
            Self::None => {}
        }
    }
}

fn known(directory: &Directory, name: &OperatorName) -> Result<Arc<Operator>> {
    let missing = || refuse(Code::NotFound, format!("no operator '{name}'"));
    directory.operators.get(name.as_str()).ok_or_else(missing)
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    change: OperatorChange,
) -> Result<OperatorEffect> {
    match change {
        OperatorChange::Create {
            name,
            roles,
            certificate,
        } => create(db, directory, at, (name, roles, certificate)),
        OperatorChange::Set { name, active } => {
            let operator = known(directory, &name)?;
            let sql = "UPDATE operator SET active = ? WHERE name = ?";
            db.execute(sql, params![active, name.as_str()])?;
            Ok(OperatorEffect::Set(operator, active))
        }
        OperatorChange::Link { name } | OperatorChange::Login { name } => {
            if known(directory, &name)?.is_active() {
                return Ok(OperatorEffect::None);
            }
            Err(refuse(Code::WrongState, format!("operator '{name}' is disabled")))
        }
    }
}

fn create(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    (name, roles, certificate): (OperatorName, Roles, Option<[u8; 32]>),
) -> Result<OperatorEffect> {
    if directory.operators.get(name.as_str()).is_some() {
        return Err(exists("operator", &name));
    }
    if certificate.is_some_and(|hash| directory.operators.by_certificate(&hash).is_some()) {
        let text = "another operator has registered this certificate";
        return Err(refuse(Code::AlreadyExists, text.into()));
    }
    let sql = "INSERT INTO operator (name, roles, certificate, active, created_ms) VALUES (?, ?, ?, TRUE, ?)";
    let at_ms = at.0.cast_signed();
    db.execute(sql, params![name.as_str(), roles.0, certificate, at_ms])?;
    Ok(OperatorEffect::Add(Arc::new(Operator {
        name,
        roles,
        certificate,
        created: at,
        active: AtomicBool::new(true),
    })))
}

/// Loads all of them into memory.
pub(crate) fn load(db: &Connection, directory: &Directory) -> Result<()> {
    let mut statement = db.prepare("SELECT name, roles, certificate, active, created_ms FROM operator")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name = OperatorName::new(&row.get::<_, String>(0)?).map_err(|_| corrupt("an operator's name"))?;
        directory.operators.add(Arc::new(Operator {
            name,
            roles: Roles(row.get(1)?),
            certificate: row.get(2)?,
            active: AtomicBool::new(row.get(3)?),
            created: UnixMillis(row.get::<_, i64>(4)?.cast_unsigned()),
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::in_memory;

    fn name(text: &str) -> OperatorName {
        OperatorName::new(text).unwrap()
    }

    fn take(db: &Connection, directory: &Directory, change: OperatorChange) -> Result<()> {
        apply(db, directory, UnixMillis(7), change)?.take(directory);
        Ok(())
    }

    fn create(text: &str, role: OperatorRole, certificate: Option<[u8; 32]>) -> OperatorChange {
        OperatorChange::Create {
            name: name(text),
            roles: role.into(),
            certificate,
        }
    }

    #[test]
    fn operators_are_found_again_as_they_were() {
        let db = in_memory().unwrap();
        let directory = Directory::default();
        take(
            &db,
            &directory,
            create("alice", OperatorRole::Manage, Some([1; 32])),
        )
        .unwrap();
        take(&db, &directory, create("bob", OperatorRole::Audit, None)).unwrap();
        let off = OperatorChange::Set {
            name: name("bob"),
            active: false,
        };
        take(&db, &directory, off).unwrap();
        let read = Directory::default();
        load(&db, &read).unwrap();
        for directory in [&directory, &read] {
            let alice = directory.operators.by_certificate(&[1; 32]).unwrap();
            assert!(alice.is_active() && alice.roles.has(OperatorRole::Manage));
            assert!(!alice.roles.has(OperatorRole::Audit));
            assert!(!directory.operators.get("bob").unwrap().is_active());
            assert_eq!(directory.operators.list().len(), 2);
        }
    }

    #[test]
    fn a_name_and_a_certificate_are_of_one_operator_only() {
        let db = in_memory().unwrap();
        let directory = Directory::default();
        take(
            &db,
            &directory,
            create("alice", OperatorRole::Manage, Some([1; 32])),
        )
        .unwrap();
        let refused = |change| take(&db, &directory, change).unwrap_err().refusal().code;
        assert_eq!(
            refused(create("alice", OperatorRole::Use, None)),
            Code::AlreadyExists
        );
        assert_eq!(
            refused(create("eve", OperatorRole::Use, Some([1; 32]))),
            Code::AlreadyExists
        );
        assert_eq!(
            refused(OperatorChange::Link { name: name("nobody") }),
            Code::NotFound
        );
    }

    #[test]
    fn nobody_logs_in_who_is_disabled() {
        let db = in_memory().unwrap();
        let directory = Directory::default();
        take(&db, &directory, create("alice", OperatorRole::Manage, None)).unwrap();
        let login = || OperatorChange::Login { name: name("alice") };
        let set = |active| OperatorChange::Set {
            name: name("alice"),
            active,
        };
        take(&db, &directory, login()).unwrap();
        take(&db, &directory, set(false)).unwrap();
        let error = take(&db, &directory, login()).unwrap_err();
        assert_eq!(error.refusal().code, Code::WrongState);
        take(&db, &directory, set(true)).unwrap();
        take(&db, &directory, login()).unwrap();
    }
}
