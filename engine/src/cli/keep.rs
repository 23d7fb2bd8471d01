//! `cinnabar backup`, `restore`, `archive` and `tenant destroy`. They read and copy beside a running engine; what is to be recorded goes
//! where every change goes.

use std::io::Write;
use std::path::Path;

use actors::vault::Vault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::TenantName;
use serde_json::{Value, json};
use store::{Archived, BackupRequest, Depth, Reader, RestoreRequest, StoreError, SubjectStep};

use super::operate::send;
use super::{print_json, print_line};
use crate::admin::keep::KeepOrder;
use crate::admin::operator::Order;
use crate::admin::subjects::SubjectOrder;
use crate::args::{ArchiveCommand, RestoreArguments};
use crate::config::Config;
use crate::erasures::{self, Erasure};
use crate::master_key;

/// What a manifest's seal is wrapped for.
const SEALED_FOR: &[u8] = b"backup-manifest";

fn failed(error: StoreError) -> Refusal {
    error.refusal()
}

fn hash(text: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text)
}

fn seal(vault: &Vault, text: &[u8]) -> Result<Vec<u8>, Refusal> {
    let sealed = vault.wrap(hash(text).as_ref(), SEALED_FOR);
    sealed.map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}

fn open_seal(vault: &Vault, text: &[u8], sealed: &[u8]) -> Result<(), Refusal> {
    let usage = |text: String| Refusal::new(Code::Usage, text);
    let sealed = vault
        .unwrap(sealed, SEALED_FOR)
        .map_err(|error| usage(error.to_string()))?;
    if sealed[..] == *hash(text).as_ref() {
        Ok(())
    } else {
        Err(usage("another manifest was sealed".to_owned()))
    }
}

/// `cinnabar backup`.
pub(super) fn backup(config: &Config, to: &Path) -> Result<(), Refusal> {
    let vault = master_key::read(&config.master_key)?;
    master_key::check_beside(&config.home, &vault)?;
    let request = BackupRequest {
        home: &config.home,
        to,
        version: env!("CARGO_PKG_VERSION"),
        now: clock::wall(),
        seal: &|text| seal(&vault, text),
    };
    let manifest = store::backup(&request).map_err(|error| error.refusal())?;
    let order = KeepOrder::BackedUp {
        to: to.display().to_string(),
        last: manifest.last_entry,
    };
    send(config, Order::Keep(order)).map_err(|refusal| {
        let text = format!(
            "the backup is made, but that could not be recorded: {}",
            refusal.message
        );
        Refusal::new(refusal.code, text)
    })?;
    print_json(&json!({
        "backup": to.display().to_string(),
        "last_entry": manifest.last_entry,
        "chain": manifest.chain,
        "epoch": manifest.epoch,
        "files": manifest.files.len(),
        "bytes": manifest.bytes(),
    }))
}

/// `cinnabar restore`.
pub(super) fn restore(config: &Config, arguments: &RestoreArguments) -> Result<(), Refusal> {
    let vault = master_key::read(&config.master_key)?;
    let open_seal = |text: &[u8], sealed: &[u8]| open_seal(&vault, text, sealed);
    if arguments.verify {
        let verified = store::verify(&arguments.from, Depth::Everything, &open_seal);
        return print_json(&verified.map_err(|error| error.refusal())?);
    }
    let user = rustix::process::getuid().as_raw();
    let request = RestoreRequest {
        from: &arguments.from,
        home: &config.home,
        tail: arguments.tail.as_deref(),
        skip: arguments.skip,
        actor: &format!("uid {user}"),
        now: clock::wall(),
        open_seal: &open_seal,
    };
    // Before anything is restored: a list that cannot be read is no list.
    let erasures = arguments.erasures.as_deref().map(erasures::read).transpose()?;
    let report = store::restore(&request).map_err(|error| error.refusal())?;
    let erased = erase_again(config, erasures.unwrap_or_default())?;
    if arguments.erasures.is_some() {
        eprintln!("{erased} subjects that were erased after the backup are erased again");
    }
    let lost = match report.lost_entries {
        Some(count) => format!("{count} entries are lost"),
        None => "how many entries are lost is not known".to_owned(),
    };
    eprintln!(
        "entries after {} (committed {}) are not in the backup; {lost}. What was revoked, rotated or bought after \
         it must be done again: docs/backup.md",
        report.last_entry,
        actors::bill::moment(clock::UnixMillis(report.last_entry_ms))
    );
    print_json(&report)
}

/// Erases what a backup still holds of subjects that were erased after it; says how many.
fn erase_again(config: &Config, erasures: Vec<Erasure>) -> Result<usize, Refusal> {
    let mut count = 0;
    for Erasure { tenant, subject, at } in erasures {
        let order = SubjectOrder::Step {
            tenant,
            id: subject,
            step: SubjectStep::Erase,
            reason: format!("erased at {at}; restored from a backup that was made before"),
        };
        match send(config, Order::Subject(order)) {
            Ok(_) => count += 1,
            // It came after the backup, or was erased before it.
            Err(refusal) if matches!(refusal.code, Code::NotFound | Code::WrongState) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(count)
}

/// `cinnabar tenant destroy`.
pub(super) fn destroy(
    config: &Config,
    tenant: TenantName,
    order: String,
    certificate: &Path,
) -> Result<(), Refusal> {
    let beside = |ending: &str| {
        let mut name = certificate.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        certificate.with_file_name(name)
    };
    // Before anything is destroyed that could not be certified.
    let mut files = Vec::new();
    for path in [certificate.to_owned(), beside(".sig"), beside(".pem")] {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path);
        files.push((file.map_err(file_failed(&path))?, path));
    }
    let text = format!(
        "destroyed tenant {tenant}; wrote {0}, {0}.sig and {0}.pem",
        certificate.display()
    );
    let answer = send(
        config,
        Order::Keep(KeepOrder::Destroy {
            tenant,
            reference: order,
        }),
    )
    .inspect_err(|_| {
        // Nothing is in them.
        files
            .iter()
            .for_each(|(_, path)| drop(std::fs::remove_file(path)));
    })?;
    let field = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let signature = STANDARD
        .decode(field("signature"))
        .map_err(|_| Refusal::new(Code::BadAnswer, "the signature is not base64"))?;
    let contents = [
        field("certificate").into_bytes(),
        signature,
        field("signer").into_bytes(),
    ];
    for ((file, path), bytes) in files.iter_mut().zip(contents) {
        file.write_all(&bytes).map_err(file_failed(path))?;
    }
    print_line(&text)
}

fn file_failed(path: &Path) -> impl FnOnce(std::io::Error) -> Refusal + use<> {
    let path = path.to_owned();
    move |error| Refusal::new(Code::File, format!("{}: {error}", path.display()))
}

/// `cinnabar archive`.
pub(super) fn archive(config: &Config, command: &ArchiveCommand) -> Result<(), Refusal> {
    match command {
        ArchiveCommand::Run => run(config),
        ArchiveCommand::List => print_json(&list(&beside(config)?.archives().map_err(failed)?)),
        ArchiveCommand::Verify { file: None } => {
            let archives = beside(config)?.verify_archives(&config.home).map_err(failed)?;
            print_json(&list(&archives))
        }
        ArchiveCommand::Verify { file: Some(file) } => {
            let archived = store::check_archive(file).map_err(failed)?;
            print_json(&show(&archived))
        }
    }
}

fn beside(config: &Config) -> Result<Reader, Refusal> {
    Reader::beside(&config.home).map_err(failed)
}

/// The files are written here, beside an engine; that they take the place of their entries is the store's to record.
fn run(config: &Config) -> Result<(), Refusal> {
    let reader = beside(config)?;
    let written = reader.write_archives(&config.home, clock::wall(), config.retention_months);
    let archives = written.map_err(failed)?;
    let shown = list(&archives);
    if archives.is_empty() {
        let months = config.retention_months;
        return print_line(&format!("nothing is older than {months} months"));
    }
    send(config, Order::Keep(KeepOrder::Archive { archives }))?;
    print_json(&shown)
}

fn list(archives: &[Archived]) -> Value {
    archives.iter().map(show).collect()
}

fn show(archived: &Archived) -> Value {
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut value = json!({
        "month": format!("{:04}-{:02}", archived.month / 100, archived.month % 100),
        "first_entry": archived.first,
        "last_entry": archived.last,
        "chain_before": hex(&archived.before),
        "chain_after": hex(&archived.chain),
    });
    // A file that is looked at by itself has no place in a store.
    if archived.bytes > 0 {
        value["file"] = archived.path().into();
        value["bytes"] = archived.bytes.into();
        value["sha256"] = hex(&archived.sha256).into();
    }
    value
}
