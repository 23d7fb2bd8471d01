//! Wires the operators' side of a running engine: sessions and console, the watch, the courier.

use std::net::TcpListener;
use std::sync::Arc;

use actors::call::Ticket;
use actors::outgoing::destination::Allowed;
use actors::registrar::Ledger;
use actors::services::Services;
use crossbeam_channel::{Receiver, bounded};
use protocol::clock;
use protocol::error_code::Refusal;
use store::{Change, NewMessage, OperatorChange, StoreHandle};

use crate::admin::metrics::outgoing::Outgoing as OutgoingMetrics;
use crate::admin::operator::{AsActor, Operator, Outgoing};
use crate::alerts::{self, Alarms};
use crate::config::Config;
use crate::console::session::Sessions;
use crate::console::{self, Console};
use crate::dev;
use crate::outgoing::{self, ASIDE_MAX, Counters, Plan, witnesses};

/// What the operators' side is made of before anything of it runs.
pub(crate) struct Operations {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) outgoing: Outgoing,
    counters: Arc<Counters>,
    aside: Receiver<NewMessage>,
}

impl Operations {
    pub(crate) fn new(config: &Config, store: &Arc<StoreHandle<Ticket>>, dev: bool) -> Self {
        let origin = console::origin(config.console.address, &config.console);
        let (sender, aside) = bounded(ASIDE_MAX);
        let email = config.outgoing.email.is_some();
        let give_up_ms = config.outgoing.give_up_ms;
        Self {
            sessions: Arc::new(Sessions::new(origin)),
            alarms: Arc::new(Alarms::new(Arc::clone(store), email, give_up_ms, sender)),
            outgoing: Outgoing {
                allowed: Allowed { loopback: dev },
                give_up_ms,
            },
            counters: Arc::default(),
            aside,
        }
    }

    /// What metrics show of it.
    pub(crate) fn metrics(&self) -> OutgoingMetrics {
        OutgoingMetrics {
            counters: Arc::clone(&self.counters),
            alarms: Arc::clone(&self.alarms),
        }
    }

    /// A login link for the operator of a development engine.
    pub(crate) fn dev_link(&self, store: &StoreHandle<Ticket>) -> Result<Option<String>, Refusal> {
        let operator = store.directory().operators.get(dev::OPERATOR);
        let Some(operator) = operator.filter(|operator| operator.is_active()) else {
            return Ok(None);
        };
        let name = operator.name.clone();
        let link = Change::Operators(OperatorChange::Link { name: name.clone() });
        AsActor(store, dev::ACTOR).change(link)?;
        self.sessions.make_link(name, clock::wall()).map(Some)
    }

    /// Starts the console.
    pub(crate) fn open(
        &self,
        operator: Arc<Operator>,
        config: &Config,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
    ) -> Result<(), Refusal> {
        let console = Console::new(operator, Arc::clone(&self.sessions), &config.console);
        console::start(listener, tls, console)
    }

    /// Starts the watch, the courier and the witnesses' thread, once the engine serves.
    pub(crate) fn watch(self, services: &Arc<Services>, config: &Config) -> Result<(), Refusal> {
        let warn_days = config.pki.settings(false).warn_days;
        alerts::start(services, &self.alarms, warn_days)?;
        let plan = Plan {
            services: Arc::clone(services),
            allowed: self.outgoing.allowed,
            counters: self.counters,
            aside: self.aside,
        };
        witnesses::start(services, config, self.outgoing.allowed)?;
        outgoing::start(plan, &config.outgoing)
    }
}
