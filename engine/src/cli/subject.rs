//! `cinnabar subject`: those whose identities are checked before they are certified.

use actors::subjects::Details;
use protocol::algorithm::Hash;
use protocol::error_code::{Code, Refusal};
use serde_json::Value;
use store::SubjectStep;

use super::operate::send;
use super::{print_json, print_line, read_file};
use crate::admin::operator::Order;
use crate::admin::subjects::{NewSubject, SubjectOrder};
use crate::args::{SubjectCommand, SubjectName};
use crate::config::Config;

fn ask(config: &Config, order: SubjectOrder) -> Result<Value, Refusal> {
    send(config, Order::Subject(order))
}

pub(super) fn run(config: &Config, command: SubjectCommand) -> Result<(), Refusal> {
    match command {
        SubjectCommand::List { tenant, after } => {
            print_json(&ask(config, SubjectOrder::List { tenant, after })?)
        }
        SubjectCommand::Challenge(SubjectName { tenant, id }) => {
            print_json(&ask(config, SubjectOrder::Challenge { tenant, id })?)
        }
        SubjectCommand::Submit {
            name: SubjectName { tenant, id },
            kind,
            details,
            evidence,
        } => {
            let malformed = |error| {
                let text = format!("{}: {error}", details.display());
                Refusal::new(Code::MalformedRequest, text)
            };
            let known: Details = serde_json::from_slice(&read_file(&details)?).map_err(malformed)?;
            let hash = Hash::Sha256.digest(&read_file(&evidence)?);
            let text = format!("took subject {tenant}/{id} in");
            let new = NewSubject {
                id,
                kind,
                name: known.name,
                registration: known.registration,
                enterprise: known.enterprise,
                evidence_sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            };
            ask(config, SubjectOrder::Submit { tenant, new })?;
            print_line(&text)
        }
        SubjectCommand::Check(name) => step(config, name, SubjectStep::Check, String::new()),
        SubjectCommand::Approve(name) => step(config, name, SubjectStep::Approve, String::new()),
        SubjectCommand::Reject { name, reason } => step(config, name, SubjectStep::Reject, reason),
        SubjectCommand::Erase { name, order } => step(config, name, SubjectStep::Erase, order),
    }
}

fn step(config: &Config, name: SubjectName, step: SubjectStep, reason: String) -> Result<(), Refusal> {
    let SubjectName { tenant, id } = name;
    let done = match step {
        SubjectStep::Check => "checked",
        SubjectStep::Approve => "approved",
        SubjectStep::Reject => "rejected",
        _ => "erased",
    };
    let text = format!("{done} subject {tenant}/{id}");
    let order = SubjectOrder::Step {
        tenant,
        id,
        step,
        reason,
    };
    ask(config, order)?;
    print_line(&text)
}
