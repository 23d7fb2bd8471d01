//! Operators' commands. With an engine running they go through its socket; with none, the store is opened here, under
//! its own lock.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::audit;
use actors::call::Ticket;
use actors::outgoing::destination::Allowed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use protocol::client::Profile;
use protocol::error_code::{Code, Refusal};
use protocol::ids::AppId;
use serde_json::Value;
use store::StoreHandle;

use super::{keep, ledger};
use super::{print_json, print_line, read_file, verify};
use crate::admin::operator::{Operator, Order, Outgoing};
use crate::admin::socket;
use crate::args::{AppCommand, Part, TenantCommand};
use crate::config::{Config, MasterKeySource};
use crate::pki::Pki;
use crate::{master_key, serve};

/// `cinnabar init`.
pub(super) fn init(config: &Config) -> Result<(), Refusal> {
    let MasterKeySource::File(path) = &config.master_key else {
        return Err(Refusal::new(
            Code::Usage,
            "the master key comes from a descriptor; there is nothing to make",
        ));
    };
    if !master_key::make(path)? {
        return Err(Refusal::new(
            Code::AlreadyExists,
            format!("{} exists already", path.display()),
        ));
    }
    let vault = master_key::read(&config.master_key)?;
    master_key::check(&serve::open_store(config, false)?, &vault)?;
    print_line(&format!(
        "made {} and an empty store in {}",
        path.display(),
        config.home.display()
    ))
}

pub(super) fn send(config: &Config, order: Order) -> Result<Value, Refusal> {
    match socket::send(&config.home, &order) {
        Some(answer) => answer,
        None => offline(config, order),
    }
}

/// Carries an order out without an engine.
fn offline(config: &Config, order: Order) -> Result<Value, Refusal> {
    let vault = Arc::new(master_key::read(&config.master_key)?);
    let store = serve::open_store(config, false)?;
    master_key::check(&store, &vault)?;
    let handle = store
        .start(|_| {}, |error| tracing::error!(%error, "store"))
        .map_err(|error| error.refusal())?;
    let store = Arc::new(handle);
    let pki = Pki::open(
        Arc::clone(&store),
        Arc::clone(&vault),
        None,
        config.pki.settings(false),
    )?;
    let operator = Operator {
        store: Arc::clone(&store),
        vault,
        pool: None,
        device_source: None,
        services: None,
        pki: Arc::new(pki),
        audit: config.audit_log(),
        rehearsals: None,
        control: config.console.control(),
        outgoing: Outgoing {
            allowed: Allowed { loopback: false },
            give_up_ms: config.outgoing.give_up_ms,
        },
        sessions: None,
        alarms: None,
        deciding: Mutex::default(),
    };
    let user = rustix::process::getuid().as_raw();
    let result = operator.obey(&format!("uid {user}"), order);
    store.stop();
    log_offline(config, &operator.vault, &store);
    result
}

/// The audit log takes in what was done. What it cannot take in now, the next engine will.
fn log_offline(config: &Config, vault: &actors::vault::Vault, store: &StoreHandle<Ticket>) {
    let folder = config.audit_log();
    let grow = || {
        let reader = store.reader().map_err(|error| error.refusal())?;
        let epoch = reader.epoch().map_err(|error| error.refusal())?;
        let key = audit::signing_key(&folder, vault, config.audit_origin.as_deref(), epoch)?;
        audit::catch_up(folder.path(), key, &reader).map_err(|error| error.refusal())
    };
    if let Err(error) = grow() {
        tracing::warn!(%error, "the audit log");
    }
}

/// `cinnabar tenant`.
pub(super) fn tenant(config: &Config, command: TenantCommand) -> Result<(), Refusal> {
    match command {
        TenantCommand::Create { name, prepaid } => {
            let text = format!("made tenant {name}");
            send(config, Order::CreateTenant { name, prepaid })?;
            print_line(&text)
        }
        TenantCommand::Prepaid { name, units } => {
            let text = format!("set the balance of tenant {name}");
            send(config, Order::SetPrepaid { name, units })?;
            print_line(&text)
        }
        TenantCommand::Suspend { name } => ledger::set_state(config, name, store::TenantState::Suspended),
        TenantCommand::Resume { name } => ledger::set_state(config, name, store::TenantState::Active),
        TenantCommand::Close { name, confirm } => {
            if name != confirm {
                return Err(Refusal::new(
                    Code::Usage,
                    "--confirm names another tenant; nothing was closed",
                ));
            }
            ledger::set_state(config, name, store::TenantState::Closed)
        }
        TenantCommand::Destroy {
            name,
            order,
            certificate,
        } => keep::destroy(config, name, order, &certificate),
        TenantCommand::Activate { name, at } => ledger::activate(config, name, at),
        TenantCommand::Agreement {
            name,
            policy,
            signed,
            clause,
        } => ledger::bind(config, name, policy, signed, clause),
        TenantCommand::List => print_json(&send(config, Order::ListTenants)?),
    }
}

/// `cinnabar app`.
pub(super) fn app(config: &Config, command: AppCommand) -> Result<(), Refusal> {
    match command {
        AppCommand::Create {
            tenant,
            id,
            public_key,
            client_certificate,
            binding_optional,
            sandbox,
            profile_out,
        } => {
            let order = Order::CreateApp {
                tenant,
                id: id.clone(),
                public_key: public_key.as_deref().map(app_key).transpose()?,
                client_certificate: client_certificate.as_deref().map(certificate_hash).transpose()?,
                binding_optional,
                environment: environment(sandbox),
            };
            let answer = send(config, order)?;
            let secret = answer["secret"].as_str().unwrap_or_default();
            match profile_out {
                Some(path) => write_profile(config, &path, id, secret),
                None => print_line(secret),
            }
        }
        AppCommand::RotateSecret { id, overlap_days } => ledger::rotate_secret(config, id, overlap_days),
        AppCommand::Contract {
            id,
            rate,
            burst,
            concurrency,
        } => {
            let contract = store::Contract {
                rate,
                burst: burst.unwrap_or_else(|| rate.max(64)),
                concurrency,
            };
            ledger::set_contract(config, id, contract)
        }
        AppCommand::Revoke { id } => set_app(config, id, false),
        AppCommand::Enable { id } => set_app(config, id, true),
        AppCommand::List => print_json(&send(config, Order::ListApps)?),
    }
}

pub(super) const fn environment(sandbox: bool) -> store::Environment {
    if sandbox {
        store::Environment::Sandbox
    } else {
        store::Environment::Production
    }
}

fn set_app(config: &Config, id: AppId, active: bool) -> Result<(), Refusal> {
    let text = format!("{} app {id}", if active { "enabled" } else { "revoked" });
    send(config, Order::SetApp { id, active })?;
    print_line(&text)
}

/// The public key for HTTP message signatures: P-256 or Ed25519, because RFC 9421 names no others that we take.
fn app_key(path: &Path) -> Result<String, Refusal> {
    let key = verify::from_file(path)?;
    protocol::http_proof::http_algorithm(&key).map_err(|_| {
        Refusal::new(
            Code::Usage,
            format!(
                "{}: an app's key is P-256 or Ed25519, not {}",
                path.display(),
                key.kind()
            ),
        )
    })?;
    Ok(STANDARD.encode(key.spki()))
}

pub(super) fn certificate_hash(path: &Path) -> Result<[u8; 32], Refusal> {
    let refuse = |text: String| Refusal::new(Code::Usage, format!("{}: {text}", path.display()));
    let block = pem::parse(read_file(path)?).map_err(|error| refuse(error.to_string()))?;
    if block.tag() != "CERTIFICATE" {
        return Err(refuse(format!("a certificate is needed, not '{}'", block.tag())));
    }
    Ok(protocol::session::certificate_hash(block.contents()))
}

/// The CA certificates by which the engine's own certificate is known, as far as this configuration knows.
pub(super) fn server_ca(config: &Config) -> PathBuf {
    match &config.tls {
        Some((chain, _)) => chain.clone(),
        None => config.home.join("dev/tls-ca.pem"),
    }
}

/// A profile for the new app, from what this configuration knows of the server.
fn write_profile(config: &Config, path: &Path, app_id: AppId, secret: &str) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| Refusal::new(Code::File, format!("{}: {error}", path.display()));
    let ca = server_ca(config);
    let server_ca = String::from_utf8(read_file(&ca)?)
        .map_err(|_| Refusal::new(Code::Usage, format!("{}: not PEM", ca.display())))?;
    let profile = Profile {
        address: config.listen,
        server_name: "localhost".into(),
        server_ca,
        app_id,
        secret: secret.to_owned(),
        document_ca: None,
        admin: Some(config.admin),
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(profile.to_toml().as_bytes()).map_err(failed)?;
    print_line(&format!(
        "wrote {}; set server_name and server_ca if clients see the server differently",
        path.display()
    ))
}

/// `cinnabar rehearse`.
pub(super) fn rehearse(config: &Config, part: Part, core: u16, ms: u64) -> Result<(), Refusal> {
    let order = match part {
        Part::Shard => Order::PoisonShard { core },
        Part::Metering => Order::PoisonMetering,
        Part::Core => Order::EndCore { core },
        Part::Disk => Order::StallJournal { ms },
    };
    let answer = socket::send(&config.home, &order);
    answer.unwrap_or_else(|| Err(Refusal::new(Code::Usage, "no engine runs in this data folder")))?;
    print_line("done; the log says how it came back")
}
