//! `cinnabar ca` and `cinnabar cert`: authorities, and the certificates of credentials.

use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::crl::Reason;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, TenantName};

use super::operate::send;
use super::{print_json, print_line};
use crate::admin::certificates::{CertificateOrder, NewStanding};
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
            transcript,
        } => {
            let text = format!(
                "made authority {name}; wrote {0} and {0}.sig",
                transcript.display()
            );
            // Before anything is made that could not be written down.
            let mut file = create(&transcript)?;
            let mut beside = create(&signature_path(&transcript))?;
            let order = CertificateOrder::Found {
                name,
                role,
                kind,
                subject,
                issuer,
                days,
            };
            let answer = send(config, Order::Certificate(order)).inspect_err(|_| {
                // Nothing was made: empty files would only be in the way.
                let _ = std::fs::remove_file(&transcript);
                let _ = std::fs::remove_file(signature_path(&transcript));
            })?;
            let unreadable = || Refusal::new(Code::BadAnswer, "the engine's answer has no transcript");
            let words = answer["transcript"].as_str().ok_or_else(unreadable)?;
            let signature = answer["signature"]
                .as_str()
                .and_then(|text| STANDARD.decode(text).ok());
            write(&transcript, &mut file, words.as_bytes())?;
            write(&transcript, &mut beside, &signature.ok_or_else(unreadable)?)?;
            print_line(&text)
        }
        CaCommand::List => print_json(&send(config, Order::Certificate(CertificateOrder::Authorities))?),
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
        CertCommand::List { tenant } => print_json(&send(
            config,
            Order::Certificate(CertificateOrder::List { tenant }),
        )?),
        CertCommand::Suspend(name) => set(config, name, NewStanding::Suspended),
        CertCommand::Resume(name) => set(config, name, NewStanding::Resumed),
        CertCommand::Revoke { name, reason } => {
            let mut all = Reason::ALL.into_iter();
            let known = all.find(|known| known.name().eq_ignore_ascii_case(&reason));
            let number = known.map(Reason::number).ok_or_else(|| {
                let text = format!(
                    "'{reason}' is not a reason of RFC 5280 5.3.1, such as keyCompromise or superseded"
                );
                Refusal::new(Code::Usage, text)
            })?;
            set(config, name, NewStanding::Revoked(number))
        }
    }
}

fn set(config: &Config, name: CertName, to: NewStanding) -> Result<(), Refusal> {
    let (tenant, credential): (TenantName, CredentialId) = (name.tenant, name.credential);
    let order = CertificateOrder::Set {
        tenant,
        credential,
        serial: name.serial,
        to,
    };
    print_json(&send(config, Order::Certificate(order))?)
}
