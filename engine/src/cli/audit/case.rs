//! Cases: the request records of a tenant and a period and what operators did, each with its proof, under a manifest that
//! the log's key has signed. Whoever has the folder and the key can check all of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use actors::audit::{Prover, check_receipt};
use actors::bill;
use actors::vault::Vault;
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{Sequence, TenantName};
use protocol::json::InclusionBody;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::audit::{AuditError, Note};
use store::{Entry, Reader, Record, StoreError, Tenant};

use super::super::journal::show;
use super::super::ledger::{millis, moment};
use super::super::operate::send;
use super::super::{print_json, read_file};
use super::{Trusted, failed, read_text, signed};
use crate::admin::audit::{AuditOrder, CaseScope, approvers, case_text, check_operators};
use crate::admin::operator::Order;
use crate::args::AuditExportArguments;
use crate::config::Config;
use crate::{master_key, telemetry};

const REQUESTS: &str = "requests.jsonl";
const OPERATORS: &str = "operators.jsonl";
const LOGS: &str = "component-logs.jsonl";
const MANIFEST: &str = "manifest.json";
const NOTE: &str = "manifest.note";

/// A file of the case.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Listed {
    name: String,
    lines: u64,
    /// Base64.
    sha256: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Manifest {
    case: String,
    tenant: TenantName,
    /// From, and until without, as moments in Asia/Shanghai.
    period: [String; 2],
    operators: Vec<String>,
    operators_are: String,
    made: String,
    engine: String,
    log: String,
    leaves: u64,
    files: Vec<Listed>,
    includes: Vec<String>,
    lacks: Vec<String>,
}

/// A line of a file: the record for people, the signature that it released, and the proof of it.
#[derive(Deserialize, Serialize)]
struct Line {
    entry: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    inclusion: InclusionBody,
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Refusal + '_ {
    move |error| Refusal::new(Code::File, format!("{}: {error}", path.display()))
}

/// What belongs to a case.
struct Scope<'a> {
    tenant: &'a Tenant,
    /// The tenant and its apps, as operators' entries name them.
    names: BTreeSet<String>,
    from: UnixMillis,
    to: UnixMillis,
}

impl Scope<'_> {
    /// The file that an entry belongs into.
    fn file_of(&self, entry: &Entry) -> Option<&'static str> {
        if !(self.from..self.to).contains(&entry.at) {
            return None;
        }
        match &entry.record {
            Record::Change { subject, .. } => self.is_named_in(subject).then_some(OPERATORS),
            Record::Opened { .. } | Record::LossAccepted { .. } => Some(OPERATORS),
            Record::TimeStamp { stamp, .. } => (stamp.tenant == self.tenant.row).then_some(REQUESTS),
            record => {
                let item = record.item()?;
                (item.tenant == self.tenant.row).then_some(REQUESTS)
            }
        }
    }

    fn is_named_in(&self, subject: &str) -> bool {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        subject
            .split(|c| !is_name(c))
            .any(|word| self.names.contains(word))
    }
}

/// A file that is being written.
struct Writing {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Context,
    listed: Listed,
}

impl Writing {
    fn create(folder: &Path, name: &str) -> Result<Self, Refusal> {
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(file_error(&path))?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
            hash: Context::new(&SHA256),
            listed: Listed {
                name: name.into(),
                lines: 0,
                sha256: String::new(),
            },
        })
    }

    fn write(&mut self, line: &Line) -> Result<(), Refusal> {
        let text = serde_json::to_string(line);
        self.write_text(&text.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?)
    }

    fn write_text(&mut self, line: &str) -> Result<(), Refusal> {
        for part in [line.as_bytes(), b"\n"] {
            self.hash.update(part);
            self.file.write_all(part).map_err(file_error(&self.path))?;
        }
        self.listed.lines += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Listed, Refusal> {
        self.file.flush().map_err(file_error(&self.path))?;
        self.listed.sha256 = STANDARD.encode(self.hash.finish());
        Ok(self.listed)
    }
}

/// `cinnabar audit export`.
pub(super) fn export(config: &Config, arguments: &AuditExportArguments) -> Result<(), Refusal> {
    let reader = Reader::beside(&config.home).map_err(|error| error.refusal())?;
    let asked = CaseScope {
        case: arguments.case.clone(),
        tenant: arguments.tenant.clone(),
        from_ms: millis(moment(&arguments.from)?),
        to_ms: millis(moment(&arguments.to)?),
    };
    // Before anything is written.
    let agreed = agreed(config, &reader, arguments, &asked)?;
    let directory = reader.directory(clock::wall()).map_err(|error| error.refusal())?;
    let missing = || Refusal::new(Code::NotFound, format!("no tenant '{}'", arguments.tenant));
    let tenant = directory.tenant(arguments.tenant.as_str()).ok_or_else(missing)?;
    let apps = directory.apps();
    let own = apps.iter().filter(|app| app.tenant.row == tenant.row);
    let names = own.map(|app| app.id.to_string()).chain([tenant.name.to_string()]);
    let scope = Scope {
        tenant: &tenant,
        names: names.collect(),
        from: UnixMillis(asked.from_ms),
        to: UnixMillis(asked.to_ms),
    };
    std::fs::create_dir_all(&arguments.out).map_err(file_error(&arguments.out))?;
    let (mut listed, log, leaves) = write_records(config, &reader, &scope, &arguments.out)?;
    let (logs, kept) = write_logs(&config.home, &scope, &arguments.out)?;
    listed.push(logs);
    let manifest = Manifest {
        case: arguments.case.clone(),
        tenant: arguments.tenant.clone(),
        period: [bill::moment(scope.from), bill::moment(scope.to)],
        operators: agreed.operators,
        operators_are: agreed.how,
        made: bill::moment(clock::wall()),
        engine: env!("CARGO_PKG_VERSION").into(),
        log,
        leaves,
        files: listed,
        includes: includes(&kept),
        lacks: lacks(&kept),
    };
    sign(config, (&manifest, asked), arguments)
}

/// Who has agreed, and how that is known.
struct Agreed {
    operators: Vec<String>,
    how: String,
}

/// Asks the engine whether the case may be taken out. Where that needs two operators the first time makes a proposal.
fn agreed(
    config: &Config,
    reader: &Reader,
    arguments: &AuditExportArguments,
    asked: &CaseScope,
) -> Result<Agreed, Refusal> {
    if let Some(id) = &arguments.proposal {
        let found = reader.proposal(id).map_err(|error| error.refusal())?;
        let found = found.ok_or_else(|| Refusal::new(Code::NotFound, format!("no proposal '{id}'")))?;
        return Ok(Agreed {
            operators: approvers(&found, asked, clock::wall())?,
            how: format!("who proposed and who approved proposal {id}, as the engine knew them"),
        });
    }
    if !arguments.operators.is_empty() {
        check_operators(&arguments.operators)?;
    }
    send(config, Order::Audit(AuditOrder::Export(asked.clone())))?;
    check_operators(&arguments.operators)?;
    Ok(Agreed {
        operators: arguments.operators.clone(),
        how: "stated on the command line, not proved".into(),
    })
}

/// The component logs of the period, as they were written, and the days of which there are some.
fn write_logs(home: &Path, scope: &Scope<'_>, out: &Path) -> Result<(Listed, Vec<String>), Refusal> {
    let mut logs = Writing::create(out, LOGS)?;
    let mut kept = Vec::new();
    for path in telemetry::log_files(home) {
        let file = File::open(&path).map_err(file_error(&path))?;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(file_error(&path))?;
            let at = telemetry::moment_of(&line);
            if at.is_some_and(|at| (scope.from..scope.to).contains(&at)) {
                logs.write_text(&line)?;
            }
        }
        let day = path.file_stem().unwrap_or_default();
        kept.push(day.to_string_lossy().into_owned());
    }
    Ok((logs.finish()?, kept))
}

fn lacks(kept: &[String]) -> Vec<String> {
    vec![match kept.first() {
        Some(day) => format!("component logs before {day} (UTC): none are kept"),
        None => "component logs: none are kept (log_days = 0, or no engine has run)".into(),
    }]
}

fn includes(kept: &[String]) -> Vec<String> {
    vec![
        format!(
            "{LOGS}: what the engine's components logged in the period, of all tenants, out of the files of the days {}",
            kept.join(" ")
        ),
        format!("{REQUESTS}: every journal entry about a request of the tenant in the period"),
        format!(
            "{OPERATORS}: what operators did in the period that names the tenant or one of its apps, and every start of the engine"
        ),
    ]
}

fn write_records(
    config: &Config,
    reader: &Reader,
    scope: &Scope<'_>,
    out: &Path,
) -> Result<(Vec<Listed>, String, u64), Refusal> {
    let folder = &config.audit_log();
    let vault = master_key::read(&config.master_key)?;
    let signed = signed(folder, &folder.public_key().map_err(failed)?)?;
    let mut prover = Prover::new(folder, &signed, reader).map_err(failed)?;
    let mut requests = Writing::create(out, REQUESTS)?;
    let mut operators = Writing::create(out, OPERATORS)?;
    let mut result = Ok(());
    let visit = |entry: Entry| {
        let write = match scope.file_of(&entry) {
            Some(REQUESTS) => Some(&mut requests),
            Some(_) => Some(&mut operators),
            None => None,
        };
        if let (Some(file), true) = (write, result.is_ok()) {
            result = prove(&mut prover, &entry).and_then(|mut line| {
                line.signature = opened(&vault, reader, &entry);
                file.write(&line)
            });
        }
        Ok(())
    };
    reader
        .entries(Sequence(1), visit)
        .map_err(|error: StoreError| error.refusal())?;
    result?;
    let listed = vec![requests.finish()?, operators.finish()?];
    Ok((listed, signed.checkpoint.origin, signed.checkpoint.size))
}

/// The signature as it was released; `None`: there is none, or its tenant was destroyed.
fn opened(vault: &Vault, reader: &Reader, entry: &Entry) -> Option<String> {
    let Record::Signature { item, sealed, .. } = &entry.record else {
        return None;
    };
    let opened = vault.open_signature(reader, item, sealed).ok()?;
    Some(STANDARD.encode(opened))
}

fn prove(prover: &mut Prover<'_>, entry: &Entry) -> Result<Line, Refusal> {
    match prover.prove(entry.sequence) {
        Ok(inclusion) => Ok(Line {
            entry: show(entry),
            signature: None,
            inclusion,
        }),
        Err(AuditError::NotLogged(number)) => {
            let text = format!(
                "journal entry {number} is not in the audit log yet; a running engine takes a second"
            );
            Err(Refusal::new(Code::ProofPending, text))
        }
        Err(error) => Err(failed(error)),
    }
}

fn sign(
    config: &Config,
    (manifest, scope): (&Manifest, CaseScope),
    arguments: &AuditExportArguments,
) -> Result<(), Refusal> {
    let text = serde_json::to_string_pretty(manifest)
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?
        + "\n";
    let order = AuditOrder::SignCase {
        scope,
        operators: arguments.operators.clone(),
        proposal: arguments.proposal.clone(),
        manifest: sha256(text.as_bytes()),
    };
    let answer = send(config, Order::Audit(order))?;
    let note = answer["note"].as_str().unwrap_or_default();
    for (name, text) in [(MANIFEST, text.as_str()), (NOTE, note)] {
        let path = arguments.out.join(name);
        std::fs::write(&path, text).map_err(file_error(&path))?;
    }
    let lines = |at: usize| manifest.files.get(at).map_or(0, |file| file.lines);
    print_json(&json!({
        "case": manifest.case,
        "requests": lines(0),
        "operator_actions": lines(1),
        "component_log_lines": lines(2),
    }))
}

fn sha256(bytes: &[u8]) -> String {
    STANDARD.encode(aws_lc_rs::digest::digest(&SHA256, bytes))
}

fn wrong(text: impl Into<String>) -> Refusal {
    Refusal::new(Code::SignatureInvalid, text.into())
}

/// `cinnabar audit verify --case`.
pub(super) fn verify(folder: &Path, given: Option<&str>) -> Result<(), Refusal> {
    let trusted = Trusted::of(given, None)?;
    let text = read_file(&folder.join(MANIFEST))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| Refusal::new(Code::MalformedRequest, format!("{MANIFEST}: {error}")))?;
    let note = read_text(&folder.join(NOTE))?;
    let signed = Note::parse(&note).and_then(|note| note.verify(&trusted.key).map(str::to_owned));
    let signed = signed.map_err(|error| wrong(format!("{NOTE}: {error}")))?;
    if signed != case_text(&manifest.case, &sha256(&text)) {
        return Err(wrong(format!("{MANIFEST} is not the one that was signed")));
    }
    for listed in &manifest.files {
        if !matches!(&*listed.name, REQUESTS | OPERATORS | LOGS) {
            return Err(wrong(format!("{MANIFEST} names a file that no case has")));
        }
        check_file(folder, listed, &trusted)?;
    }
    let mut value = json!({ "signature": trusted.show() });
    value["manifest"] = serde_json::to_value(&manifest).unwrap_or_default();
    print_json(&value)
}

fn check_file(folder: &Path, listed: &Listed, trusted: &Trusted) -> Result<(), Refusal> {
    let path = folder.join(&listed.name);
    let file = File::open(&path).map_err(file_error(&path))?;
    let mut hash = Context::new(&SHA256);
    let mut lines = 0;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(file_error(&path))?;
        hash.update(line.as_bytes());
        hash.update(b"\n");
        lines += 1;
        // What components logged is vouched for by the manifest alone.
        if listed.name == LOGS {
            continue;
        }
        let read: Line = serde_json::from_str(&line)
            .map_err(|error| Refusal::new(Code::MalformedRequest, format!("{}: {error}", path.display())))?;
        // What was erased since is vouched for by the manifest alone.
        if read.inclusion.salt.is_some() {
            check_receipt(&read.inclusion, &trusted.key)?;
            check_shown(&read)?;
        }
    }
    let found = Listed {
        name: listed.name.clone(),
        lines,
        sha256: STANDARD.encode(hash.finish()),
    };
    if found == *listed {
        Ok(())
    } else {
        Err(wrong(format!("{} is not the file that was signed", listed.name)))
    }
}

/// What is shown to people is what the proved record says.
fn check_shown(line: &Line) -> Result<(), Refusal> {
    let number = line.inclusion.sequence;
    let unreadable = || wrong(format!("the record of entry {number} cannot be read"));
    let record = STANDARD
        .decode(&line.inclusion.record)
        .map_err(|_| unreadable())?;
    let entry = Entry {
        sequence: Sequence(number),
        at: UnixMillis(line.inclusion.committed_ms),
        record: Record::decode_from(&record).map_err(|_| unreadable())?,
    };
    if let (Record::Signature { sha256, .. }, Some(signature)) = (&entry.record, &line.signature) {
        let signature = STANDARD.decode(signature).map_err(|_| unreadable())?;
        if store::sha256(&signature) != *sha256 {
            return Err(wrong(format!(
                "the signature of entry {number} is not the one that was released"
            )));
        }
    }
    if show(&entry) == line.entry {
        Ok(())
    } else {
        Err(wrong(format!(
            "entry {number} is shown otherwise than it was recorded"
        )))
    }
}
