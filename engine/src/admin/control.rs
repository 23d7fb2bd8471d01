//! What each order is called in the journal, and which of them need two operators. An order that does becomes a
//! proposal; it is carried out in the same transaction as a second operator's approval.

use std::collections::BTreeSet;

use actors::call::Ticket;
use actors::registrar::Ledger;
use aws_lc_rs::rand;
use parking_lot::Mutex;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use serde_json::{Value, json};
use store::{ApprovalChange, Change, Directory, Proposal, StoreHandle, SubjectStep, TenantState};

use super::audit::AuditOrder;
use super::certificates::{CertificateOrder, NewStanding};
use super::devices::DeviceOrder;
use super::incidents::IncidentOrder;
use super::keep::KeepOrder;
use super::keys::KeyOrder;
use super::ledger::LedgerOrder;
use super::messages::MessageOrder;
use super::operator::Order;
use super::operators::OperatorOrder;
use super::subjects::SubjectOrder;

/// Every action that may need two operators.
pub(crate) const ACTIONS: &[&str] = &[
    "app.contract",
    "app.create",
    "app.enable",
    "app.revoke",
    "app.rotate-secret",
    "archive.run",
    "audit.erase",
    "audit.export",
    "ca.create",
    "ca.renew",
    "ca.revoke",
    "certificate.import",
    "certificate.issue",
    "certificate.renew",
    "certificate.resume",
    "certificate.revoke",
    "certificate.suspend",
    "device.add",
    "device.calibrate",
    "device.drain",
    "device.lanes",
    "device.make-kek",
    "device.remove",
    "device.resume",
    "device.scale",
    "device.share-kek",
    "grant.create",
    "grant.revoke",
    "incident.close",
    "incident.open",
    "incident.repair",
    "incident.respond",
    "key.attach",
    "key.create",
    "key.destroy",
    "key.disable",
    "key.enable",
    "key.import",
    "key.replicate",
    "notice.publish",
    "operator.create",
    "operator.disable",
    "operator.enable",
    "operator.link",
    "package-kind.set",
    "package.correct",
    "package.grant",
    "package.use",
    "seal.approve",
    "seal.destroy",
    "seal.freeze",
    "seal.remake",
    "seal.revoke",
    "seal.unfreeze",
    "sla.circumstance",
    "statement.freeze",
    "statement.thaw",
    "subject.erase",
    "subject.reject",
    "tenant.activate",
    "tenant.agreement",
    "tenant.close",
    "tenant.create",
    "tenant.destroy",
    "tenant.prepaid",
    "tenant.resume",
    "tenant.suspend",
    "webhook.remove",
    "webhook.set",
];

/// Bytes of an order that may be proposed: the journal keeps it.
const PROPOSED_BYTES_MAX: usize = 64 * 1024;

/// Which actions need two operators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Control {
    pub(crate) dual: BTreeSet<String>,
    /// How long a proposal waits.
    pub(crate) proposal_ms: u64,
}

/// What became of an order.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was carried out.
    Done(Value),
    /// It waits for a second operator.
    Proposed(Value),
}

impl Control {
    /// The action of an order, if it needs two operators.
    pub(crate) fn needs_two(&self, order: &Order) -> Option<&'static str> {
        action(order).filter(|action| self.dual.contains(*action))
    }

    /// The proposal that an order becomes.
    pub(crate) fn propose(
        &self,
        actor: &str,
        action: &str,
        order: &Order,
        now: UnixMillis,
    ) -> Result<ApprovalChange, Refusal> {
        let failed = |error: &dyn std::fmt::Display| Refusal::new(Code::Internal, error.to_string());
        let asked = serde_json::to_string(order).map_err(|error| failed(&error))?;
        if asked.len() > PROPOSED_BYTES_MAX {
            let text = format!("an order that needs two operators has at most {PROPOSED_BYTES_MAX} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let mut id = [0; 8];
        rand::fill(&mut id).map_err(|error| failed(&error))?;
        Ok(ApprovalChange::Propose {
            id: format!("p-{:016x}", u64::from_be_bytes(id)),
            action: action.to_owned(),
            asked,
            proposer: actor.to_owned(),
            expires: UnixMillis(now.0 + self.proposal_ms),
        })
    }
}

/// What an order is called; nothing where it only reads or rehearses.
pub(crate) fn action(order: &Order) -> Option<&'static str> {
    Some(match order {
        Order::CreateTenant { .. } => "tenant.create",
        Order::SetPrepaid { .. } => "tenant.prepaid",
        Order::CreateApp { .. } => "app.create",
        Order::SetApp { active: true, .. } => "app.enable",
        Order::SetApp { active: false, .. } => "app.revoke",
        Order::Key(order) => return key_action(order),
        Order::Device(order) => return device_action(order),
        Order::Ledger(order) => ledger_action(order),
        Order::Certificate(order) => return certificate_action(order),
        Order::Subject(order) => return subject_action(order),
        Order::Seal(order) => return super::seals::action(order),
        Order::Operators(order) => return operator_action(order),
        Order::Incidents(order) => return incident_action(order),
        Order::Messages(order) => return message_action(order),
        Order::Keep(KeepOrder::Archive { .. }) => "archive.run",
        Order::Keep(KeepOrder::Destroy { .. }) => "tenant.destroy",
        // The backup has been made; this only says so.
        Order::Keep(KeepOrder::BackedUp { .. }) => return None,
        Order::Audit(AuditOrder::Export(_)) => super::audit::EXPORT,
        // Whether that is allowed was decided when the export was asked for; it is checked again there.
        Order::Audit(AuditOrder::SignCase { .. }) => return None,
        Order::Audit(AuditOrder::Erase { .. }) => "audit.erase",
        Order::ListTenants
        | Order::ListApps
        | Order::ListProposals
        | Order::Latency(_)
        | Order::PoisonShard { .. }
        | Order::PoisonMetering
        | Order::EndCore { .. }
        | Order::StallJournal { .. } => return None,
    })
}

const fn key_action(order: &KeyOrder) -> Option<&'static str> {
    Some(match order {
        KeyOrder::Create { .. } => "key.create",
        KeyOrder::Attach { .. } => "key.attach",
        KeyOrder::Import { .. } => "key.import",
        KeyOrder::Replicate { .. } => "key.replicate",
        KeyOrder::Destroy { .. } => "key.destroy",
        KeyOrder::Set { active: true, .. } => "key.enable",
        KeyOrder::Set { active: false, .. } => "key.disable",
        KeyOrder::List { .. } => return None,
    })
}

const fn device_action(order: &DeviceOrder) -> Option<&'static str> {
    Some(match order {
        DeviceOrder::Add { .. } => "device.add",
        DeviceOrder::Drain { .. } => "device.drain",
        DeviceOrder::Resume { .. } => "device.resume",
        DeviceOrder::Remove { .. } => "device.remove",
        DeviceOrder::Scale { .. } => "device.scale",
        DeviceOrder::Calibrate { .. } => "device.calibrate",
        DeviceOrder::MakeKek { .. } => "device.make-kek",
        DeviceOrder::ShareKek { .. } => "device.share-kek",
        DeviceOrder::Lanes { .. } => "device.lanes",
        DeviceOrder::List | DeviceOrder::Objects { .. } => return None,
    })
}

const fn ledger_action(order: &LedgerOrder) -> &'static str {
    match order {
        LedgerOrder::SetState { state, .. } => match state {
            TenantState::Active => "tenant.resume",
            TenantState::Suspended => "tenant.suspend",
            TenantState::Closed => "tenant.close",
        },
        LedgerOrder::Activate { .. } => "tenant.activate",
        LedgerOrder::BindAgreement { .. } => "tenant.agreement",
        LedgerOrder::SetContract { .. } => "app.contract",
        LedgerOrder::RotateSecret { .. } => "app.rotate-secret",
        LedgerOrder::SetKind { .. } => "package-kind.set",
        LedgerOrder::Grant { .. } => "package.grant",
        LedgerOrder::Correct { .. } => "package.correct",
        LedgerOrder::Use { .. } => "package.use",
        LedgerOrder::Freeze { .. } => "statement.freeze",
        LedgerOrder::Thaw { .. } => "statement.thaw",
        LedgerOrder::Announce { .. } => "notice.publish",
        LedgerOrder::Circumstance { .. } => "sla.circumstance",
    }
}

const fn certificate_action(order: &CertificateOrder) -> Option<&'static str> {
    Some(match order {
        CertificateOrder::Found { .. } => "ca.create",
        CertificateOrder::RenewAuthority { .. } => "ca.renew",
        CertificateOrder::RevokeAuthority { .. } => "ca.revoke",
        CertificateOrder::Set { to, .. } => match to {
            NewStanding::Suspended => "certificate.suspend",
            NewStanding::Resumed => "certificate.resume",
            NewStanding::Revoked(_) => "certificate.revoke",
        },
        CertificateOrder::Issue { .. } => "certificate.issue",
        CertificateOrder::Renew { .. } => "certificate.renew",
        CertificateOrder::Import { .. } => "certificate.import",
        CertificateOrder::Authorities
        | CertificateOrder::List { .. }
        | CertificateOrder::Ending { .. }
        | CertificateOrder::Request { .. } => return None,
    })
}

/// A check and its approval are two orders of two operators by themselves.
const fn subject_action(order: &SubjectOrder) -> Option<&'static str> {
    Some(match order {
        SubjectOrder::Step { step, .. } => match step {
            SubjectStep::Erase => "subject.erase",
            SubjectStep::Reject => "subject.reject",
            SubjectStep::Check | SubjectStep::Approve | SubjectStep::Confirm | SubjectStep::Refute => {
                return None;
            }
        },
        SubjectOrder::Submit { .. }
        | SubjectOrder::Challenge { .. }
        | SubjectOrder::Answer { .. }
        | SubjectOrder::List { .. } => return None,
    })
}

const fn operator_action(order: &OperatorOrder) -> Option<&'static str> {
    Some(match order {
        OperatorOrder::Create { .. } => "operator.create",
        OperatorOrder::Set { active: true, .. } => "operator.enable",
        OperatorOrder::Set { active: false, .. } => "operator.disable",
        OperatorOrder::Link { .. } => "operator.link",
        OperatorOrder::List => return None,
    })
}

const fn incident_action(order: &IncidentOrder) -> Option<&'static str> {
    Some(match order {
        IncidentOrder::Open { .. } => "incident.open",
        IncidentOrder::Step { step, .. } => match step {
            store::IncidentStep::Respond => "incident.respond",
            store::IncidentStep::Repair => "incident.repair",
            store::IncidentStep::Close => "incident.close",
        },
        IncidentOrder::List => return None,
    })
}

const fn message_action(order: &MessageOrder) -> Option<&'static str> {
    Some(match order {
        MessageOrder::SetWebhook { .. } => "webhook.set",
        MessageOrder::RemoveWebhook { .. } => "webhook.remove",
        MessageOrder::Webhooks | MessageOrder::Outbox | MessageOrder::Alerts | MessageOrder::Test => {
            return None;
        }
    })
}

/// The store, where an approval goes into the transaction of the first change it allows: the one is not without the
/// other.
pub(crate) struct Approving<'a> {
    store: &'a StoreHandle<Ticket>,
    actor: String,
    decision: Mutex<Option<Change>>,
}

impl<'a> Approving<'a> {
    pub(crate) const fn new(store: &'a StoreHandle<Ticket>, actor: String, decision: Change) -> Self {
        Self {
            store,
            actor,
            decision: Mutex::new(Some(decision)),
        }
    }

    /// Who, as the journal names it.
    pub(crate) fn actor(&self) -> &str {
        &self.actor
    }

    /// Records the approval on its own, where what it allows changes nothing that is recorded.
    pub(crate) fn finish(&self) -> Result<(), Refusal> {
        self.changes(Vec::new())
    }
}

impl Ledger for Approving<'_> {
    fn changes(&self, mut changes: Vec<Change>) -> Result<(), Refusal> {
        let mut decision = self.decision.lock();
        if let Some(change) = decision.take() {
            changes.insert(0, change);
        }
        self.store
            .changes(&self.actor, changes)
            .map_err(|error| error.refusal())
    }

    fn directory(&self) -> &Directory {
        self.store.directory()
    }
}

/// A proposal as operators see it.
pub(crate) fn show(proposal: &Proposal) -> Value {
    let asked: Value = serde_json::from_str(&proposal.asked).unwrap_or_default();
    let (decider, decided) = proposal.decided.clone().unzip();
    json!({
        "id": proposal.id,
        "action": proposal.action,
        "order": asked,
        "proposer": proposal.proposer,
        "proposed": actors::bill::moment(proposal.proposed),
        "expires": actors::bill::moment(proposal.expires),
        "state": proposal.state,
        "decider": decider,
        "decided": decided.map(actors::bill::moment),
    })
}

#[cfg(test)]
mod tests {
    use protocol::ids::AppId;

    use super::*;

    fn revoke() -> Order {
        Order::SetApp {
            id: AppId::new("erp").unwrap(),
            active: false,
        }
    }

    fn control(actions: &[&str]) -> Control {
        Control {
            dual: actions.iter().map(|action| (*action).to_owned()).collect(),
            proposal_ms: 1_000,
        }
    }

    #[test]
    fn only_what_is_configured_needs_two() {
        let control = control(&["app.revoke", "tenant.close"]);
        assert_eq!(control.needs_two(&revoke()), Some("app.revoke"));
        assert_eq!(control.needs_two(&Order::ListApps), None);
        assert_eq!(control.needs_two(&Order::PoisonMetering), None);
        let tenant = protocol::ids::TenantName::new("acme").unwrap();
        let state = |state| {
            let tenant = tenant.clone();
            Order::Ledger(LedgerOrder::SetState { tenant, state })
        };
        assert_eq!(
            control.needs_two(&state(TenantState::Closed)),
            Some("tenant.close")
        );
        assert_eq!(control.needs_two(&state(TenantState::Suspended)), None);
    }

    #[test]
    fn a_proposal_holds_the_order_and_its_time() {
        let control = control(&["app.revoke"]);
        let change = control
            .propose("operator alice", "app.revoke", &revoke(), UnixMillis(5_000))
            .unwrap();
        let ApprovalChange::Propose { asked, expires, .. } = change else {
            panic!("not a proposal");
        };
        assert_eq!(expires, UnixMillis(6_000));
        let order: Order = serde_json::from_str(&asked).unwrap();
        assert_eq!(action(&order), Some("app.revoke"));
    }

    #[test]
    fn an_order_too_large_for_the_journal_is_not_proposed() {
        let order = Order::CreateApp {
            tenant: protocol::ids::TenantName::new("acme").unwrap(),
            id: AppId::new("erp").unwrap(),
            public_key: Some("A".repeat(PROPOSED_BYTES_MAX)),
            client_certificate: None,
            binding_optional: false,
            environment: store::Environment::Production,
        };
        let refusal = control(&[]).propose("uid 0", "app.create", &order, UnixMillis(0));
        assert_eq!(refusal.unwrap_err().code, Code::TooLarge);
    }

    #[test]
    fn the_names_are_in_order_and_each_stands_once() {
        assert!(ACTIONS.is_sorted_by(|a, b| a < b));
    }
}
