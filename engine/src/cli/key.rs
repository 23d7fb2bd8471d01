//! `cinnabar key`: keys and their credentials.

use std::path::Path;

use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, TenantName};
use serde_json::Value;

use super::operate::{environment, send};
use super::{print_json, print_line, read_file};
use crate::admin::keys::KeyOrder;
use crate::admin::operator::Order;
use crate::args::KeyCommand;
use crate::config::Config;

fn ask(config: &Config, order: KeyOrder) -> Result<Value, Refusal> {
    send(config, Order::Key(order))
}

pub(super) fn run(config: &Config, command: KeyCommand) -> Result<(), Refusal> {
    let (text, order) = match command {
        KeyCommand::Import { tenant, file, sample } => return import_keys(config, &tenant, &file, !sample),
        KeyCommand::Destroy { tenant, id, confirm } => return destroy_key(config, tenant, id, &confirm),
        KeyCommand::List { tenant } => return print_json(&ask(config, KeyOrder::List { tenant })?),
        KeyCommand::Create {
            tenant,
            id,
            kind,
            device: devices,
            wrapped,
            sandbox,
            profile,
            subject,
        } => (
            format!("made credential {tenant}/{id} with a {kind} key"),
            KeyOrder::Create {
                tenant,
                id,
                kind,
                devices,
                wrapped,
                environment: environment(sandbox),
                profile,
                subject,
            },
        ),
        KeyCommand::Attach {
            tenant,
            id,
            kind,
            device,
            name,
        } => (
            format!("made credential {tenant}/{id} for '{name}' in {device}"),
            KeyOrder::Attach {
                tenant,
                id,
                kind,
                device,
                name,
            },
        ),
        KeyCommand::Replicate { tenant, id, device } => (
            format!("{tenant}/{id} is in {device}, too"),
            KeyOrder::Replicate { tenant, id, device },
        ),
        KeyCommand::Disable { tenant, id } => set(tenant, id, false),
        KeyCommand::Enable { tenant, id } => set(tenant, id, true),
    };
    ask(config, order)?;
    print_line(&text)
}

fn set(tenant: TenantName, id: CredentialId, active: bool) -> (String, KeyOrder) {
    let word = if active { "enabled" } else { "disabled" };
    (
        format!("{word} credential {tenant}/{id}"),
        KeyOrder::Set { tenant, id, active },
    )
}

/// Wrapped keys from a file, so many in one commit.
fn import_keys(config: &Config, tenant: &TenantName, file: &Path, prove: bool) -> Result<(), Refusal> {
    let text = String::from_utf8(read_file(file)?)
        .map_err(|_| Refusal::new(Code::File, format!("{}: not text", file.display())))?;
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    for part in lines.chunks(store::CHANGES_MAX) {
        let read = |(at, line): &(usize, &str)| {
            let text = |error| format!("{}, line {}: {error}", file.display(), at + 1);
            serde_json::from_str(line).map_err(|error| Refusal::new(Code::MalformedRequest, text(error)))
        };
        let keys = part.iter().map(read).collect::<Result<_, _>>()?;
        let tenant = tenant.clone();
        ask(config, KeyOrder::Import { tenant, keys, prove })?;
    }
    print_line(&format!("made {} credentials of {tenant}", lines.len()))
}

fn destroy_key(
    config: &Config,
    tenant: TenantName,
    id: CredentialId,
    confirm: &CredentialId,
) -> Result<(), Refusal> {
    if id != *confirm {
        return Err(Refusal::new(
            Code::Usage,
            "--confirm names another credential; nothing was destroyed",
        ));
    }
    let name = format!("{tenant}/{id}");
    let answer = ask(config, KeyOrder::Destroy { tenant, id })?;
    let left: Vec<&str> = answer["still_in"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if left.is_empty() {
        return print_line(&format!("destroyed the key of {name}"));
    }
    let text = format!(
        "{name} will not sign any more, but its key is still in {}",
        left.join(", ")
    );
    Err(Refusal::new(Code::DeviceFailed, text))
}
