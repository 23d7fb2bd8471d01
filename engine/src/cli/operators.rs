//! `cinnabar operator`, `proposal`, `incident`, `webhook`, `message` and `alert`.

use protocol::error_code::{Code, Refusal};
use serde_json::{Value, json};
use sla::calendar::MinuteIndex;
use store::{Decision, IncidentStep};

use super::operate::{certificate_hash, send};
use super::{block_on, console, print_json, print_line};
use crate::admin::incidents::IncidentOrder;
use crate::admin::messages::MessageOrder;
use crate::admin::operator::Order;
use crate::admin::operators::OperatorOrder;
use crate::args::operators::{
    AlertCommand, Decided, IncidentCommand, MessageCommand, OperatorCommand, ProposalCommand, WebhookCommand,
};
use crate::config::Config;
use crate::front::tls::Identity;

fn done(config: &Config, order: Order, text: &str) -> Result<(), Refusal> {
    send(config, order)?;
    print_line(text)
}

fn line_of(answer: &Value, name: &str) -> Result<(), Refusal> {
    print_line(answer[name].as_str().unwrap_or_default())
}

/// `cinnabar operator`.
pub(super) fn operator(config: &Config, command: OperatorCommand) -> Result<(), Refusal> {
    let ask = |order| send(config, Order::Operators(order));
    match command {
        OperatorCommand::Create {
            name,
            role,
            certificate,
        } => {
            let text = format!("made operator {name}");
            let order = OperatorOrder::Create {
                name,
                role: role.into(),
                certificate: certificate.as_deref().map(certificate_hash).transpose()?,
            };
            done(config, Order::Operators(order), &text)
        }
        OperatorCommand::Login { name } => line_of(&ask(OperatorOrder::Link { name })?, "link"),
        OperatorCommand::Disable { name } => {
            let text = format!("operator {name} is let in no more");
            let order = OperatorOrder::Set { name, active: false };
            done(config, Order::Operators(order), &text)
        }
        OperatorCommand::Enable { name } => {
            let text = format!("operator {name} is let in again");
            let order = OperatorOrder::Set { name, active: true };
            done(config, Order::Operators(order), &text)
        }
        OperatorCommand::List => print_json(&ask(OperatorOrder::List)?),
    }
}

/// `cinnabar proposal`.
pub(super) fn proposal(config: &Config, command: ProposalCommand) -> Result<(), Refusal> {
    match command {
        ProposalCommand::List => print_json(&send(config, Order::ListProposals)?),
        ProposalCommand::Approve(of) => decide(config, &of, Decision::Approve),
        ProposalCommand::Reject(of) => decide(config, &of, Decision::Reject),
    }
}

fn decide(config: &Config, of: &Decided, decision: Decision) -> Result<(), Refusal> {
    let identity = Identity::read(&of.certificate, &of.key)?;
    let path = format!("/operator/v1/proposals/{}/decision", of.id);
    let body = json!({ "decision": decision });
    print_json(&block_on(console::post(config, &identity, &path, &body))?)
}

fn minute(text: Option<String>) -> Result<Option<MinuteIndex>, Refusal> {
    let read = |text: String| {
        text.parse().map_err(|_| {
            let text = format!("'{text}' is not a minute, YYYY-MM-DDThh:mm+08:00");
            Refusal::new(Code::Usage, text)
        })
    };
    text.map(read).transpose()
}

/// `cinnabar incident`.
pub(super) fn incident(config: &Config, command: IncidentCommand) -> Result<(), Refusal> {
    let step = |id: String, step, at, word: &str| {
        let text = format!("incident {id} {word}");
        let order = IncidentOrder::Step {
            id,
            step,
            at: minute(at)?,
        };
        done(config, Order::Incidents(order), &text)
    };
    match command {
        IncidentCommand::Open {
            id,
            grade,
            text,
            began,
        } => {
            let told = format!("incident {id} is open");
            let began = minute(began)?;
            let order = IncidentOrder::Open {
                id,
                grade,
                text,
                began,
            };
            done(config, Order::Incidents(order), &told)
        }
        IncidentCommand::Respond { id, at } => step(id, IncidentStep::Respond, at, "is being worked on"),
        IncidentCommand::Repair { id, at } => step(id, IncidentStep::Repair, at, "is repaired"),
        IncidentCommand::Close { id, at } => step(id, IncidentStep::Close, at, "is closed"),
        IncidentCommand::List => print_json(&send(config, Order::Incidents(IncidentOrder::List))?),
    }
}

/// `cinnabar webhook`.
pub(super) fn webhook(config: &Config, command: WebhookCommand) -> Result<(), Refusal> {
    let ask = |order| send(config, Order::Messages(order));
    match command {
        WebhookCommand::Set { tenant, url } => {
            line_of(&ask(MessageOrder::SetWebhook { tenant, url })?, "secret")
        }
        WebhookCommand::Remove { tenant } => {
            ask(MessageOrder::RemoveWebhook { tenant })?;
            print_line("removed the webhook")
        }
        WebhookCommand::List => print_json(&ask(MessageOrder::Webhooks)?),
    }
}

/// `cinnabar message`.
pub(super) fn message(config: &Config, command: &MessageCommand) -> Result<(), Refusal> {
    match command {
        MessageCommand::List => print_json(&send(config, Order::Messages(MessageOrder::Outbox))?),
    }
}

/// `cinnabar alert`.
pub(super) fn alert(config: &Config, command: &AlertCommand) -> Result<(), Refusal> {
    match command {
        AlertCommand::List => print_json(&send(config, Order::Messages(MessageOrder::Alerts))?),
        AlertCommand::Test => done(config, Order::Messages(MessageOrder::Test), "on its way"),
    }
}
