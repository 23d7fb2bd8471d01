//! Orders about operators.

use actors::bill;
use actors::registrar::Ledger;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::OperatorName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Change, Directory, OperatorChange, OperatorRole};

use crate::console::session::Sessions;

/// What is wanted of operators.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "operator-order", rename_all = "kebab-case")]
pub(crate) enum OperatorOrder {
    /// One role each: who manages does not audit.
    Create {
        name: OperatorName,
        role: OperatorRole,
        /// SHA-256 of the TLS client certificate.
        certificate: Option<[u8; 32]>,
    },
    Set {
        name: OperatorName,
        active: bool,
    },
    /// A login link, which serves once.
    Link {
        name: OperatorName,
    },
    List,
}

/// Carries the orders out.
pub(crate) struct Operators<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) ledger: &'a dyn Ledger,
    /// Of a running engine.
    pub(crate) sessions: Option<&'a Sessions>,
}

impl Operators<'_> {
    pub(crate) fn obey(&self, order: OperatorOrder) -> Result<Value, Refusal> {
        let change = match order {
            OperatorOrder::Create {
                name,
                role,
                certificate,
            } => OperatorChange::Create {
                name,
                roles: role.into(),
                certificate,
            },
            OperatorOrder::Set { name, active } => OperatorChange::Set { name, active },
            OperatorOrder::Link { name } => return self.link(name),
            OperatorOrder::List => return Ok(self.list()),
        };
        self.ledger.change(Change::Operators(change))?;
        Ok(json!({}))
    }

    fn link(&self, name: OperatorName) -> Result<Value, Refusal> {
        let sessions = self.sessions.ok_or_else(|| {
            Refusal::new(
                Code::Usage,
                "a login link needs a running engine; none runs in this data folder",
            )
        })?;
        let change = OperatorChange::Link { name: name.clone() };
        self.ledger.change(Change::Operators(change))?;
        Ok(json!({ "link": sessions.make_link(name, clock::wall())? }))
    }

    fn list(&self) -> Value {
        let show = |operator: &std::sync::Arc<store::Operator>| {
            json!({
                "name": operator.name,
                "roles": operator.roles.names(),
                "certificate": operator.certificate.is_some(),
                "active": operator.is_active(),
                "created": bill::moment(operator.created),
            })
        };
        let list = self.directory.operators.list();
        Value::Array(list.iter().map(show).collect())
    }
}
