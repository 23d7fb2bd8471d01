//! Operators' orders as they travel over the admin socket, and what carries them out: the same code in a running
//! engine and in an offline command that holds the store itself.

use std::sync::Arc;
use std::time::Duration;

use actors::bill;
use actors::call::Ticket;
use actors::outgoing::destination::Allowed;
use actors::registrar::{self, AppProof, Ledger};
use actors::seals::Seals;
use actors::subjects::Subjects;
use actors::vault::Vault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsm_pool::pool::Pool;
use parking_lot::Mutex;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{ApprovalChange, Change, Decision, Directory, Environment, Proposal, StoreHandle};

use super::audit::{self, AuditOrder};
use super::certificates::{CertificateOrder, Certificates};
use super::control::{self, Approving, Control, Outcome};
use super::devices::{DeviceOrder, DeviceSource, Devices};
use super::incidents::{self, IncidentOrder};
use super::keep::{self, KeepOrder};
use super::keys::{KeyOrder, Keys};
use super::latency::{self, LatencyOrder};
use super::ledger::{Clerk, LedgerOrder};
use super::messages::{MessageOrder, Messages};
use super::operators::{OperatorOrder, Operators};
use super::seals::{self, SealOrder};
use super::subjects::{self, SubjectOrder};
use crate::alerts::Alarms;
use crate::console::session::Sessions;
use crate::pki::Pki;

/// Proposals in a list.
const PROPOSALS_LISTED_MAX: u32 = 1_000;

/// What an operator wants done.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(crate) enum Order {
    CreateTenant {
        name: TenantName,
        prepaid: Option<u64>,
    },
    SetPrepaid {
        name: TenantName,
        units: Option<u64>,
    },
    ListTenants,
    CreateApp {
        tenant: TenantName,
        id: AppId,
        /// SubjectPublicKeyInfo, base64.
        public_key: Option<String>,
        /// SHA-256 of the certificate.
        client_certificate: Option<[u8; 32]>,
        binding_optional: bool,
        #[serde(default)]
        environment: Environment,
    },
    SetApp {
        id: AppId,
        active: bool,
    },
    ListApps,
    Key(KeyOrder),
    Device(DeviceOrder),
    /// Packages, statements, contracts, the service agreement.
    Ledger(LedgerOrder),
    Certificate(CertificateOrder),
    /// Those whose identities are checked.
    Subject(SubjectOrder),
    /// Seals, and who may use them.
    Seal(SealOrder),
    /// How long requests take, and where.
    Latency(LatencyOrder),
    /// Evidence out of the audit log.
    Audit(AuditOrder),
    Operators(OperatorOrder),
    Incidents(IncidentOrder),
    /// Webhooks, messages and alerts.
    Messages(MessageOrder),
    ListProposals,
    /// Backups and archives.
    Keep(KeepOrder),
    /// Rehearsals, in a development engine only.
    PoisonShard {
        core: u16,
    },
    PoisonMetering,
    EndCore {
        core: u16,
    },
    StallJournal {
        ms: u64,
    },
}

/// An answer over the socket.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Done(Value),
    Refused(Refusal),
}

/// What only a running engine can do.
pub(crate) trait Rehearsals: Send + Sync {
    fn poison_shard(&self, core: u16) -> bool;
    fn poison_metering(&self) -> bool;
    fn end_core(&self, core: u16) -> bool;
    fn stall_journal(&self, long: Duration) -> bool;
}

/// Carries orders out.
pub(crate) struct Operator {
    pub(crate) store: Arc<StoreHandle<Ticket>>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) pool: Option<Arc<Pool<actors::task::Task>>>,
    pub(crate) device_source: Option<Arc<dyn DeviceSource>>,
    /// Of a running engine.
    pub(crate) services: Option<Arc<actors::services::Services>>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) audit: store::audit::Folder,
    pub(crate) rehearsals: Option<Arc<dyn Rehearsals>>,
    /// What needs two operators.
    pub(crate) control: Control,
    /// Where webhooks may be.
    pub(crate) outgoing: Outgoing,
    /// Of a running engine.
    pub(crate) sessions: Option<Arc<Sessions>>,
    /// Of a running engine.
    pub(crate) alarms: Option<Arc<Alarms>>,
    /// Proposals are decided one at a time: what one carries out twice is carried out once.
    pub(crate) deciding: Mutex<()>,
}

/// What orders have to know of messages to the outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) allowed: Allowed,
    /// How long a message is tried.
    pub(crate) give_up_ms: u64,
}

/// The store, with the name of whoever makes the change.
pub(crate) struct AsActor<'a>(pub(crate) &'a StoreHandle<Ticket>, pub(crate) &'a str);

impl Ledger for AsActor<'_> {
    fn changes(&self, changes: Vec<Change>) -> Result<(), Refusal> {
        self.0.changes(self.1, changes).map_err(|error| error.refusal())
    }

    fn directory(&self) -> &Directory {
        self.0.directory()
    }
}

impl Operator {
    /// Carries an order out for `actor` and returns when it is durable. One that needs two operators is proposed, and
    /// that is told as a refusal.
    pub(crate) fn obey(&self, actor: &str, order: Order) -> Result<Value, Refusal> {
        match self.submit(actor, order)? {
            Outcome::Done(value) => Ok(value),
            Outcome::Proposed(proposal) => {
                let id = proposal["id"].as_str().unwrap_or_default();
                let text =
                    format!("recorded as proposal {id}; a second operator has to approve it on the console");
                Err(Refusal::new(Code::ApprovalNeeded, text))
            }
        }
    }

    /// Carries an order out for `actor`, or proposes it where it needs two operators.
    pub(crate) fn submit(&self, actor: &str, order: Order) -> Result<Outcome, Refusal> {
        let ledger = AsActor(&self.store, actor);
        let Some(action) = self.control.needs_two(&order) else {
            return self.carry_out(&ledger, actor, order).map(Outcome::Done);
        };
        let change = self.control.propose(actor, action, &order, clock::wall())?;
        let ApprovalChange::Propose { id, .. } = &change else {
            return Err(Refusal::new(Code::Internal, "a proposal of another kind"));
        };
        let id = id.clone();
        ledger.change(Change::Approvals(change))?;
        Ok(Outcome::Proposed(control::show(&self.proposal(&id)?)))
    }

    fn reader(&self) -> Result<store::Reader, Refusal> {
        self.store.reader().map_err(|error| error.refusal())
    }

    fn proposal(&self, id: &str) -> Result<Proposal, Refusal> {
        let found = self.reader()?.proposal(id).map_err(|error| error.refusal())?;
        found.ok_or_else(|| Refusal::new(Code::NotFound, format!("no proposal '{id}'")))
    }

    /// Decides a proposal for an operator; what is approved is carried out.
    pub(crate) fn decide(&self, by: &str, id: &str, decision: Decision) -> Result<Value, Refusal> {
        let _one_at_a_time = self.deciding.lock();
        let proposal = self.proposal(id)?;
        proposal
            .decide(decision, by, clock::wall())
            .map_err(|error| Refusal::new(error.code(), format!("proposal '{id}': {error}")))?;
        let change = Change::Approvals(ApprovalChange::Decide {
            id: id.to_owned(),
            decision,
            by: by.to_owned(),
        });
        if decision != Decision::Approve {
            AsActor(&self.store, by).change(change)?;
            return Ok(json!({}));
        }
        let order = serde_json::from_str(&proposal.asked).map_err(|error| {
            let text = format!("proposal '{id}' holds an order of another version: {error}");
            Refusal::new(Code::WrongState, text)
        })?;
        let actor = format!("{}, approved by {by}", proposal.proposer);
        let ledger = Approving::new(&self.store, actor, change);
        let value = self.carry_out(&ledger, ledger.actor(), order)?;
        ledger.finish()?;
        Ok(value)
    }

    fn carry_out(&self, ledger: &dyn Ledger, actor: &str, order: Order) -> Result<Value, Refusal> {
        match order {
            Order::CreateTenant { name, prepaid } => {
                registrar::create_tenant(ledger, &self.vault, name, prepaid)?;
            }
            Order::SetPrepaid { name, units } => {
                ledger.change(Change::SetPrepaid {
                    tenant: name,
                    prepaid: units,
                })?;
            }
            Order::CreateApp {
                tenant,
                id,
                public_key,
                client_certificate,
                binding_optional,
                environment,
            } => {
                let public_key = public_key.map(|text| decode(&text)).transpose()?;
                let proof = AppProof {
                    public_key,
                    client_certificate,
                    binding_optional,
                    environment,
                };
                let secret = registrar::create_app(ledger, &self.vault, tenant, id, proof)?;
                return Ok(json!({ "secret": STANDARD.encode(&secret[..]) }));
            }
            Order::SetApp { id, active } => ledger.change(Change::SetApp { id, active })?,
            Order::Key(order) => return self.keys(ledger).obey(order),
            Order::Device(order) => return self.device(ledger, order),
            Order::Ledger(order) => return self.book(ledger, order),
            Order::Certificate(order) => return self.certificates(ledger, actor).obey(order),
            Order::Subject(order) => return self.subject(ledger, actor, order),
            Order::Seal(order) => return self.seal(ledger, actor, order),
            Order::Latency(order) => return self.latency(order),
            Order::Audit(order) => return self.audit(ledger, order),
            Order::Operators(order) => {
                let directory = self.store.directory();
                let sessions = self.sessions.as_deref();
                let operators = Operators {
                    directory,
                    ledger,
                    sessions,
                };
                return operators.obey(order);
            }
            Order::Incidents(order) => return incidents::obey(ledger, &self.reader()?, order),
            Order::Messages(order) => return self.messages(ledger, order),
            Order::ListProposals => return self.proposals(),
            Order::Keep(order) => return keep::obey(self, ledger, actor, order),
            Order::ListTenants => return Ok(self.tenants()),
            Order::ListApps => return Ok(self.apps()),
            Order::PoisonShard { core } => return self.rehearse(|engine| engine.poison_shard(core)),
            Order::PoisonMetering => return self.rehearse(|engine| engine.poison_metering()),
            Order::EndCore { core } => return self.rehearse(|engine| engine.end_core(core)),
            Order::StallJournal { ms } => {
                let long = Duration::from_millis(ms);
                return self.rehearse(|engine| engine.stall_journal(long));
            }
        }
        Ok(json!({}))
    }

    fn certificates<'a>(&'a self, ledger: &'a dyn Ledger, actor: &'a str) -> Certificates<'a> {
        Certificates {
            pki: &self.pki,
            pool: self.pool.as_deref(),
            ledger,
            actor,
        }
    }

    fn subject(&self, ledger: &dyn Ledger, actor: &str, order: SubjectOrder) -> Result<Value, Refusal> {
        let reader = self.reader()?;
        let subjects = Subjects {
            ledger,
            vault: &self.vault,
            reader: &reader,
        };
        subjects::obey(&subjects, &self.pki.settings.verifiers, actor, order)
    }

    fn seal(&self, ledger: &dyn Ledger, actor: &str, order: SealOrder) -> Result<Value, Refusal> {
        let office = self.pki.office(self.pool.as_deref())?;
        let enrolment = office.enrolment(ledger);
        let seals = Seals {
            enrolment: &enrolment,
        };
        seals::obey(&seals, actor, order)
    }

    fn audit(&self, ledger: &dyn Ledger, order: AuditOrder) -> Result<Value, Refusal> {
        let registry = audit::Registry {
            folder: &self.audit,
            vault: &self.vault,
            ledger,
            reader: &self.reader()?,
            control: &self.control,
        };
        registry.obey(order)
    }

    fn messages(&self, ledger: &dyn Ledger, order: MessageOrder) -> Result<Value, Refusal> {
        let messages = Messages {
            directory: self.store.directory(),
            vault: &self.vault,
            ledger,
            reader: &self.reader()?,
            allowed: self.outgoing.allowed,
            alarms: self.alarms.as_deref(),
        };
        messages.obey(order)
    }

    fn proposals(&self) -> Result<Value, Refusal> {
        let list = self.reader()?.proposals(PROPOSALS_LISTED_MAX);
        let list = list.map_err(|error| error.refusal())?;
        Ok(Value::Array(list.iter().map(control::show).collect()))
    }

    fn book(&self, ledger: &dyn Ledger, order: LedgerOrder) -> Result<Value, Refusal> {
        let clerk = Clerk {
            store: &self.store,
            vault: &self.vault,
            services: self.services.as_deref(),
            ledger,
            give_up_ms: self.outgoing.give_up_ms,
        };
        clerk.obey(order)
    }

    fn keys<'a>(&'a self, ledger: &'a dyn Ledger) -> Keys<'a> {
        Keys {
            store: &self.store,
            vault: &self.vault,
            pool: self.pool.as_deref(),
            pki: &self.pki,
            ledger,
        }
    }

    fn latency(&self, order: LatencyOrder) -> Result<Value, Refusal> {
        let none = "latencies are in a running engine; none runs in this data folder";
        let services = self
            .services
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Usage, none))?;
        let answer = match order {
            LatencyOrder::Stages => serde_json::to_value(latency::stages(services, clock::monotonic())),
            LatencyOrder::Slow => serde_json::to_value(latency::slow(&services.latency)),
        };
        answer.map_err(|error| Refusal::new(Code::Internal, error.to_string()))
    }

    fn device(&self, ledger: &dyn Ledger, order: DeviceOrder) -> Result<Value, Refusal> {
        let reader = self.store.reader().map_err(|error| error.refusal())?;
        match (&self.pool, &self.device_source) {
            (Some(pool), Some(source)) => Devices {
                pool,
                source: &**source,
                ledger,
                reader: &reader,
            }
            .obey(order),
            _ => Err(Refusal::new(
                Code::Usage,
                "devices are in a running engine; none runs in this data folder",
            )),
        }
    }

    fn tenants(&self) -> Value {
        let list = self.store.directory().tenants();
        let show = |tenant: &Arc<store::Tenant>| json!({ "name": tenant.name, "state": tenant.standing.state(), "activated": bill::moment(tenant.standing.activated()), "prepaid": tenant.account.granted(), "left": tenant.account.left(), "expired": tenant.account.is_expired() });
        Value::Array(list.iter().map(show).collect())
    }

    fn apps(&self) -> Value {
        let list = self.store.directory().apps();
        let show = |app: &Arc<store::App>| {
            json!({
                "id": app.id,
                "tenant": app.tenant.name,
                "active": app.fence.pass().is_some(),
                "environment": app.environment,
                "contract": app.allowance.contract(),
                "secret": app.secrets.is_set(),
                "public_key": app.public_key.is_some(),
                "client_certificate": app.client_certificate.is_some(),
                "binding_required": app.binding_required,
            })
        };
        Value::Array(list.iter().map(show).collect())
    }

    fn rehearse(&self, what: impl FnOnce(&dyn Rehearsals) -> bool) -> Result<Value, Refusal> {
        let Some(engine) = &self.rehearsals else {
            return Err(Refusal::new(
                Code::Usage,
                "rehearsals need a running engine with --dev",
            ));
        };
        if what(&**engine) {
            Ok(json!({}))
        } else {
            Err(Refusal::new(Code::NotFound, "there is no such part to make fail"))
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD
        .decode(text)
        .map_err(|_| Refusal::new(Code::MalformedRequest, "the public key is not base64"))
}
