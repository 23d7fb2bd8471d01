//! `cinnabar ca` and `cinnabar cert`: authorities, and the certificates of credentials.

use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::crl::Reason;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, TenantName};
use serde_json::Value;

use super::operate::send;
use super::{print_json, print_line, read_file};
use crate::admin::certificates::{Certifiable, CertificateOrder, LISTED_MAX, NewStanding};
use crate::admin::operator::Order;
use crate::args::{CaCommand, CertCommand, CertName};
use crate::config::Config;

/// `cinnabar ca`.
pub(super) fn authority(config: &Config, command: CaCommand) -> Result<(), Refusal> {
    match command {
        CaCommand::Create {
            name,
            role,
            kind,
            subject,
            issuer,
            days,
            device,
            transcript,
        } => {
            let done = format!("made authority {name}");
            let order = CertificateOrder::Found {
                name,
                role,
                kind,
                subject,
                issuer,
                days,
                device,
            };
            ceremony(config, order, &transcript, &done)
        }
        CaCommand::Renew {
            name,
            days,
            transcript,
        } => {
            let done = format!("renewed authority {name}");
            ceremony(
                config,
                CertificateOrder::RenewAuthority { name, days },
                &transcript,
                &done,
            )
        }
        CaCommand::Revoke { name, reason } => {
            let reason = revocation(&reason)?;
            let order = CertificateOrder::RevokeAuthority { name, reason };
            print_json(&send(config, Order::Certificate(order))?)
        }
        CaCommand::List => print_json(&send(config, Order::Certificate(CertificateOrder::Authorities))?),
    }
}

/// Has something done that leaves a signed transcript.
fn ceremony(config: &Config, order: CertificateOrder, transcript: &Path, done: &str) -> Result<(), Refusal> {
    let text = format!("{done}; wrote {0} and {0}.sig", transcript.display());
    // Before anything is made that could not be written down.
    let mut file = create(transcript)?;
    let mut beside = create(&signature_path(transcript))?;
    let answer = send(config, Order::Certificate(order)).inspect_err(|_| {
        // Nothing was made: empty files would only be in the way.
        let _ = std::fs::remove_file(transcript);
        let _ = std::fs::remove_file(signature_path(transcript));
    })?;
    let unreadable = || Refusal::new(Code::BadAnswer, "the engine's answer has no transcript");
    let words = answer["transcript"].as_str().ok_or_else(unreadable)?;
    let signature = answer["signature"]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok());
    write(transcript, &mut file, words.as_bytes())?;
    write(transcript, &mut beside, &signature.ok_or_else(unreadable)?)?;
    print_line(&text)
}

/// A reason's number (RFC 5280 5.3.1).
fn revocation(reason: &str) -> Result<u8, Refusal> {
    let mut all = Reason::ALL.into_iter();
    let known = all.find(|known| known.name().eq_ignore_ascii_case(reason));
    known.map(Reason::number).ok_or_else(|| {
        let text =
            format!("'{reason}' is not a reason of RFC 5280 5.3.1, such as keyCompromise or superseded");
        Refusal::new(Code::Usage, text)
    })
}

/// All certificates of a tenant, page after page.
fn list(config: &Config, tenant: &TenantName) -> Result<Value, Refusal> {
    let mut all = Vec::new();
    loop {
        let last: Option<&Value> = all.last();
        let after = last.and_then(|last| last["serial"].as_str()).map(str::to_owned);
        let order = CertificateOrder::List {
            tenant: tenant.clone(),
            after,
        };
        let Value::Array(page) = send(config, Order::Certificate(order))? else {
            return Err(Refusal::new(Code::BadAnswer, "the engine's answer is no list"));
        };
        let is_last = page.len() < LISTED_MAX as usize;
        all.extend(page);
        if is_last {
            return Ok(Value::Array(all));
        }
    }
}

fn signature_path(transcript: &Path) -> std::path::PathBuf {
    let mut path = transcript.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

fn create(path: &Path) -> Result<std::fs::File, Refusal> {
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    made.map_err(|error| Refusal::new(Code::File, format!("{}: {error}", path.display())))
}

fn write(path: &Path, file: &mut std::fs::File, bytes: &[u8]) -> Result<(), Refusal> {
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| Refusal::new(Code::File, format!("{}: {error}", path.display())))
}

/// `cinnabar cert`.
pub(super) fn certificate(config: &Config, command: CertCommand) -> Result<(), Refusal> {
    match command {
        CertCommand::List { tenant } => print_json(&list(config, &tenant)?),
        CertCommand::Ending { days } => print_json(&send(
            config,
            Order::Certificate(CertificateOrder::Ending { days }),
        )?),
        command @ (CertCommand::Issue { .. }
        | CertCommand::Renew { .. }
        | CertCommand::Request { .. }
        | CertCommand::Import { .. }) => enrol(config, command),
        CertCommand::Suspend(name) => set(config, name, NewStanding::Suspended),
        CertCommand::Resume(name) => set(config, name, NewStanding::Resumed),
        CertCommand::Revoke { name, reason } => {
            let number = revocation(&reason)?;
            set(config, name, NewStanding::Revoked(number))
        }
    }
}

/// How somebody comes to a certificate.
fn enrol(config: &Config, command: CertCommand) -> Result<(), Refusal> {
    match command {
        CertCommand::Issue {
            tenant,
            profile,
            subject,
            issuer,
            csr,
            credential,
            out,
        } => {
            let what = certifiable(csr.as_deref(), credential)?;
            let order = CertificateOrder::Issue {
                tenant,
                profile,
                subject,
                issuer,
                what,
            };
            put_chain(&send(config, Order::Certificate(order))?, out.as_deref())
        }
        CertCommand::Renew {
            tenant,
            credential,
            new_key,
            out,
        } => {
            let order = CertificateOrder::Renew {
                tenant,
                credential,
                new_key,
            };
            put_chain(&send(config, Order::Certificate(order))?, out.as_deref())
        }
        CertCommand::Request {
            tenant,
            credential,
            subject,
            out,
        } => {
            let order = CertificateOrder::Request {
                tenant,
                credential,
                subject,
            };
            let answer = send(config, Order::Certificate(order))?;
            put(answer["request"].as_str().unwrap_or_default(), out.as_deref())
        }
        CertCommand::Import {
            tenant,
            credential,
            chain,
            root,
        } => {
            let text = format!("credential {tenant}/{credential} has this certificate from now on");
            let order = CertificateOrder::Import {
                tenant,
                credential,
                chain: read_text(&chain)?,
                root: root.map(|root| read_text(&root)).transpose()?,
            };
            send(config, Order::Certificate(order))?;
            print_line(&text)
        }
        _ => Err(Refusal::new(Code::Internal, "a command of another kind")),
    }
}

fn certifiable(csr: Option<&Path>, credential: Option<CredentialId>) -> Result<Certifiable, Refusal> {
    match (csr, credential) {
        (Some(file), None) => Ok(Certifiable::Request(read_text(file)?)),
        (None, Some(credential)) => Ok(Certifiable::Credential(credential)),
        _ => Err(Refusal::new(Code::Usage, "give either --csr or --credential")),
    }
}

fn read_text(path: &Path) -> Result<String, Refusal> {
    let text = String::from_utf8(read_file(path)?);
    text.map_err(|_| Refusal::new(Code::File, format!("{}: not text", path.display())))
}

/// The certificate and those of its issuers, as TLS servers and others take them.
fn put_chain(answer: &Value, out: Option<&Path>) -> Result<(), Refusal> {
    let chain = answer["chain"].as_array().into_iter().flatten();
    let text: String = chain.filter_map(Value::as_str).collect();
    put(&text, out)
}

fn put(text: &str, out: Option<&Path>) -> Result<(), Refusal> {
    match out {
        None => print_line(text.trim_end()),
        Some(path) => std::fs::write(path, text)
            .map_err(|error| Refusal::new(Code::File, format!("{}: {error}", path.display()))),
    }
}

fn set(config: &Config, name: CertName, to: NewStanding) -> Result<(), Refusal> {
    let order = CertificateOrder::Set {
        tenant: name.tenant,
        credential: name.credential,
        serial: name.serial,
        to,
    };
    print_json(&send(config, Order::Certificate(order))?)
}
