//! Orders about webhooks, messages and alerts.

use actors::bill;
use actors::outgoing::destination::{Allowed, Destination};
use actors::outgoing::signature;
use actors::registrar::Ledger;
use actors::vault::{Vault, VaultError};
use aws_lc_rs::rand;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{TenantName, TenantRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Change, Directory, Message, OutboxChange, Owner, Reader};
use zeroize::Zeroizing;

use crate::alerts::Alarms;

/// Messages in a list.
const LISTED_MAX: u32 = 1_000;

/// What is wanted.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "message-order", rename_all = "kebab-case")]
pub(crate) enum MessageOrder {
    /// Sets a webhook: a tenant's, or the operators' where none is named.
    SetWebhook {
        tenant: Option<TenantName>,
        url: String,
    },
    RemoveWebhook {
        tenant: Option<TenantName>,
    },
    Webhooks,
    /// The newest messages, sent or not.
    Outbox,
    /// What is wrong now.
    Alerts,
    /// Tells the operators something that is not wrong, to see whether it arrives.
    Test,
}

/// Carries the orders out.
pub(crate) struct Messages<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) vault: &'a Vault,
    pub(crate) ledger: &'a dyn Ledger,
    pub(crate) reader: &'a Reader,
    pub(crate) allowed: Allowed,
    /// Of a running engine.
    pub(crate) alarms: Option<&'a Alarms>,
}

/// What a webhook's secret is wrapped for.
pub(crate) fn secret_label(owner: Owner) -> String {
    format!("webhook/{}", owner.number())
}

impl Messages<'_> {
    pub(crate) fn obey(&self, order: MessageOrder) -> Result<Value, Refusal> {
        match order {
            MessageOrder::SetWebhook { tenant, url } => self.set(tenant, url),
            MessageOrder::RemoveWebhook { tenant } => {
                let change = Change::Outbox(OutboxChange::RemoveWebhook { tenant });
                self.ledger.change(change)?;
                Ok(json!({}))
            }
            MessageOrder::Webhooks => self.webhooks(),
            MessageOrder::Outbox => self.outbox(),
            MessageOrder::Alerts => Ok(self.alarms()?.show()),
            MessageOrder::Test => {
                self.alarms()?.test(clock::wall())?;
                Ok(json!({}))
            }
        }
    }

    fn alarms(&self) -> Result<&Alarms, Refusal> {
        let missing = || Refusal::new(Code::Usage, "no engine runs in this data folder");
        self.alarms.ok_or_else(missing)
    }

    /// The secret is told here and never again.
    fn set(&self, tenant: Option<TenantName>, url: String) -> Result<Value, Refusal> {
        let destination = Destination::parse(&url, self.allowed)
            .map_err(|error| Refusal::new(Code::Usage, error.to_string()))?;
        let mut secret = Zeroizing::new([0; signature::SECRET_BYTES]);
        let failed = |_| Refusal::new(Code::Internal, "no randomness");
        rand::fill(&mut *secret).map_err(failed)?;
        let wrapped = match &tenant {
            None => {
                let label = secret_label(Owner::Operators);
                self.vault.wrap(&*secret, label.as_bytes())
            }
            Some(name) => {
                let missing = || Refusal::new(Code::NotFound, format!("no tenant '{name}'"));
                let tenant = self.directory.tenant(name.as_str()).ok_or_else(missing)?;
                let label = secret_label(Owner::Tenant(tenant.row));
                let own = self.vault.of_tenant(&tenant);
                own.and_then(|own| own.wrap(&*secret, label.as_bytes()))
            }
        };
        let change = OutboxChange::SetWebhook {
            tenant,
            url,
            host: destination.to_string(),
            secret: wrapped.map_err(VaultError::refusal)?.into(),
        };
        self.ledger.change(Change::Outbox(change))?;
        Ok(json!({ "secret": *signature::written(&*secret) }))
    }

    fn name_of(&self, owner: Owner) -> Value {
        let of = |row: TenantRow| {
            let tenants = self.directory.tenants();
            tenants
                .iter()
                .find(|tenant| tenant.row == row)
                .map(|tenant| tenant.name.to_string())
        };
        match owner {
            Owner::Operators => Value::Null,
            Owner::Tenant(row) => of(row).into(),
        }
    }

    fn webhooks(&self) -> Result<Value, Refusal> {
        let list = self.reader.webhooks().map_err(|error| error.refusal())?;
        let show = |webhook: &store::Webhook| {
            // A path may be a secret: only where it goes is shown.
            let shown = Destination::parse(&webhook.url, Allowed { loopback: true });
            json!({
                "tenant": self.name_of(webhook.owner),
                "host": shown.map(|destination| destination.to_string()).unwrap_or_default(),
            })
        };
        Ok(Value::Array(list.iter().map(show).collect()))
    }

    fn outbox(&self) -> Result<Value, Refusal> {
        let list = self
            .reader
            .messages(LISTED_MAX)
            .map_err(|error| error.refusal())?;
        Ok(Value::Array(
            list.iter().map(|message| self.show(message)).collect(),
        ))
    }

    fn show(&self, message: &Message) -> Value {
        let next = (message.state == store::MessageState::Waiting).then(|| bill::moment(message.next));
        json!({
            "id": message.message.id,
            "channel": message.message.channel,
            "tenant": self.name_of(message.message.owner),
            "kind": message.message.kind,
            "created": bill::moment(message.created),
            "state": message.state,
            "attempts": message.attempts,
            "next": next,
            "given_up_after": bill::moment(message.message.give_up),
            "error": message.error,
        })
    }
}
