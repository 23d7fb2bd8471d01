//! Orders about tenants' states, packages, statements and the service agreement, and what carries them out.

use std::sync::atomic::Ordering;

use actors::call::Ticket;
use actors::outgoing;
use actors::registrar::{self, Ledger};
use actors::services::Services;
use actors::vault::Vault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sla::calendar::{MinuteIndex, Span};
use sla::notice::Notice;
use store::{
    Change, Contract, LedgerChange, OutboxChange, PackageKind, PackageRow, StoreHandle, TenancyChange,
    TenantState, Unit,
};

/// What tenants' webhooks call a notice of maintenance.
const NOTICE_KIND: &str = "maintenance.notice";

/// What an operator wants done with the books.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "ledger", rename_all = "kebab-case")]
pub(crate) enum LedgerOrder {
    SetState {
        tenant: TenantName,
        state: TenantState,
    },
    Activate {
        tenant: TenantName,
        at_ms: u64,
    },
    BindAgreement {
        tenant: TenantName,
        policy: String,
        signed: String,
        clause: Option<String>,
    },
    SetContract {
        app: AppId,
        contract: Contract,
    },
    RotateSecret {
        app: AppId,
        overlap_ms: u64,
    },
    SetKind {
        kind: PackageKind,
    },
    Grant {
        tenant: TenantName,
        kind: String,
        units: u64,
        activated_ms: Option<u64>,
        reference: String,
    },
    Correct {
        package: u32,
        units: i64,
        reason: String,
    },
    Use {
        tenant: TenantName,
        unit: Unit,
        units: u64,
        reference: String,
    },
    Freeze {
        month: u32,
        reason: String,
    },
    Thaw {
        month: u32,
    },
    /// The engine says when it is announced.
    Announce {
        id: String,
        window: Span,
        text: String,
        replaces: Option<String>,
    },
    Circumstance {
        what: Circumstance,
        on: bool,
    },
}

/// Something that is the case for a while.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Circumstance {
    Maintenance,
    Extension,
}

/// Carries the orders out.
pub(crate) struct Clerk<'a> {
    pub(crate) store: &'a StoreHandle<Ticket>,
    pub(crate) vault: &'a Vault,
    /// Of a running engine.
    pub(crate) services: Option<&'a Services>,
    pub(crate) ledger: &'a dyn Ledger,
    /// How long messages to tenants are tried.
    pub(crate) give_up_ms: u64,
}

impl Clerk<'_> {
    pub(crate) fn obey(&self, order: LedgerOrder) -> Result<Value, Refusal> {
        match order {
            LedgerOrder::RotateSecret { app, overlap_ms } => return self.rotate(app, overlap_ms),
            LedgerOrder::Circumstance { what, on } => self.set_circumstance(what, on)?,
            LedgerOrder::Announce {
                id,
                window,
                text,
                replaces,
            } => return self.announce(id, window, text, replaces),
            LedgerOrder::BindAgreement { .. }
            | LedgerOrder::SetState { .. }
            | LedgerOrder::Activate { .. }
            | LedgerOrder::SetContract { .. } => self.ledger.change(Change::Tenancy(tenancy(order)?))?,
            order => self.ledger.change(Change::Ledger(booking(order)?))?,
        }
        Ok(json!({}))
    }

    /// The old secret counts until the time that is told.
    fn rotate(&self, app: AppId, overlap_ms: u64) -> Result<Value, Refusal> {
        let old_until = UnixMillis(clock::wall().0.saturating_add(overlap_ms));
        let secret = registrar::rotate_secret(self.ledger, self.vault, app, old_until)?;
        Ok(json!({
            "secret": STANDARD.encode(&secret[..]),
            "old_until": actors::bill::moment(old_until),
        }))
    }

    fn set_circumstance(&self, what: Circumstance, on: bool) -> Result<(), Refusal> {
        let services = self
            .services
            .ok_or_else(|| Refusal::new(Code::Usage, "no engine runs in this data folder"))?;
        let flag = match what {
            Circumstance::Maintenance => &services.circumstances.maintenance,
            Circumstance::Extension => &services.circumstances.extension,
        };
        flag.store(on, Ordering::Release);
        tracing::info!(?what, on, "circumstances");
        Ok(())
    }

    /// A notice counts from the minute in which it is published, whoever wrote it when.
    fn announce(
        &self,
        id: String,
        window: Span,
        text: String,
        replaces: Option<String>,
    ) -> Result<Value, Refusal> {
        if window.is_empty() {
            return Err(Refusal::new(Code::Usage, "the maintenance ends before it begins"));
        }
        if let Some(old) = &replaces {
            let reader = self.store.reader().map_err(|error| error.refusal())?;
            let known = actors::agreement::notices(&reader)?;
            if !known.iter().any(|notice| notice.id == *old) {
                return Err(Refusal::new(
                    Code::NotFound,
                    format!("no notice '{old}' to replace"),
                ));
            }
        }
        let notice = Notice {
            id: id.clone(),
            announced: MinuteIndex::of_unix_seconds(clock::wall().seconds()),
            window,
            text,
            replaces,
            withdrawn: false,
        };
        let to_json = |error: serde_json::Error| Refusal::new(Code::Internal, error.to_string());
        let value = serde_json::to_value(&notice).map_err(to_json)?;
        let now = clock::wall();
        let broadcast = OutboxChange::Broadcast {
            id: outgoing::new_id()?,
            kind: NOTICE_KIND.to_owned(),
            body: outgoing::payload(NOTICE_KIND, now, &value),
            give_up: UnixMillis(now.0 + self.give_up_ms),
        };
        let notice = value.to_string();
        let publish = TenancyChange::PublishNotice { id, notice };
        // Published and on its way to every tenant's webhook, or neither.
        self.ledger
            .changes(vec![Change::Tenancy(publish), Change::Outbox(broadcast)])?;
        Ok(value)
    }
}

fn other() -> Refusal {
    Refusal::new(Code::Internal, "an order of another kind")
}

fn tenancy(order: LedgerOrder) -> Result<TenancyChange, Refusal> {
    Ok(match order {
        LedgerOrder::SetState { tenant, state } => TenancyChange::SetState { tenant, state },
        LedgerOrder::Activate { tenant, at_ms } => TenancyChange::Activate {
            tenant,
            at: UnixMillis(at_ms),
        },
        LedgerOrder::BindAgreement {
            tenant,
            policy,
            signed,
            clause,
        } => {
            check_agreement(&policy, &signed)?;
            TenancyChange::BindAgreement {
                tenant,
                policy,
                signed,
                clause,
            }
        }
        LedgerOrder::SetContract { app, contract } => TenancyChange::SetContract { app, contract },
        _ => return Err(other()),
    })
}

fn check_agreement(policy: &str, signed: &str) -> Result<(), Refusal> {
    let date = signed
        .parse()
        .map_err(|_| Refusal::new(Code::Usage, format!("'{signed}' is not a date, YYYY-MM-DD")))?;
    let policies = sla::policy::Policy::builtin();
    let known = sla::policy::Policy::binding(&policies, policy, date);
    known.map(|_| ()).ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            format!("no policy '{policy}' was in force on {signed}"),
        )
    })
}

fn booking(order: LedgerOrder) -> Result<LedgerChange, Refusal> {
    Ok(match order {
        LedgerOrder::SetKind { kind } => LedgerChange::SetKind(kind),
        LedgerOrder::Grant {
            tenant,
            kind,
            units,
            activated_ms,
            reference,
        } => LedgerChange::Grant {
            tenant,
            kind,
            units,
            activated: activated_ms.map(UnixMillis),
            reference,
        },
        LedgerOrder::Correct {
            package,
            units,
            reason,
        } => LedgerChange::Correct {
            package: PackageRow(package),
            units,
            reason,
        },
        LedgerOrder::Use {
            tenant,
            unit,
            units,
            reference,
        } => LedgerChange::Use {
            tenant,
            unit,
            units,
            reference,
        },
        LedgerOrder::Freeze { month, reason } => LedgerChange::Freeze { month, reason },
        LedgerOrder::Thaw { month } => LedgerChange::Thaw { month },
        _ => return Err(other()),
    })
}
