//! `cinnabar audit`: the log verified offline, entries proved, evidence taken out and checked, salts erased.

mod case;
mod stamps;

use std::path::Path;

use actors::audit::{Prover, check_receipt};
use protocol::error_code::{Code, Refusal};
use protocol::ids::Sequence;
use protocol::json::{InclusionBody, ItemBody, ItemsBody};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Reader;
use store::audit::{self, AuditError, Checkpoint, Folder, Signed, VerifierKey, WitnessKey};

use super::operate::send;
use super::{print_json, print_line, read_anchors, read_file};
use crate::admin::audit::AuditOrder;
use crate::admin::operator::Order;
use crate::args::{AuditCommand, AuditVerifyArguments};
use crate::config::{self, Config, Layers};

pub(super) fn run(layers: &Layers, command: AuditCommand) -> Result<(), Refusal> {
    match command {
        // Whoever verifies needs no engine, and no configuration of one.
        AuditCommand::Verify(arguments) => verify(&arguments),
        AuditCommand::Proof { sequence } => proof(&config::load(layers)?, Sequence(sequence)),
        AuditCommand::Key => {
            let key = config::load(layers)?.audit_log().public_key();
            print_line(&key.map_err(failed)?.to_string())
        }
        AuditCommand::Export(arguments) => case::export(&config::load(layers)?, &arguments),
        AuditCommand::Erase { sequences, reason } => {
            let erase = AuditOrder::Erase {
                entries: sequences,
                reason,
            };
            print_json(&send(&config::load(layers)?, Order::Audit(erase))?)
        }
    }
}

fn failed(error: AuditError) -> Refusal {
    error.refusal()
}

/// The last checkpoint of a log, signed by its key.
fn signed(folder: &Folder, key: &VerifierKey) -> Result<Signed, Refusal> {
    let missing = || AuditError::NoCheckpoint(folder.path().into());
    let note = folder.checkpoint().and_then(|note| note.ok_or_else(missing));
    let note = note.map_err(failed)?;
    let checkpoint = Checkpoint::verify(&note, key).map_err(|error| failed(AuditError::Checkpoint(error)))?;
    Ok(Signed { checkpoint, note })
}

fn proof(config: &Config, entry: Sequence) -> Result<(), Refusal> {
    let folder = config.audit_log();
    let signed = signed(&folder, &folder.public_key().map_err(failed)?)?;
    let reader = Reader::beside(&config.home).map_err(|error| error.refusal())?;
    let mut prover = Prover::new(&folder, &signed, &reader).map_err(failed)?;
    print_json(&prover.prove(entry).map_err(failed)?)
}

/// A key, and whether it is one that the caller trusts.
struct Trusted {
    key: VerifierKey,
    given: bool,
}

impl Trusted {
    /// The key that was given, or the one beside the files.
    fn of(given: Option<&str>, beside: Option<&Folder>) -> Result<Self, Refusal> {
        match (given, beside) {
            (Some(text), _) => {
                let key = text.parse::<VerifierKey>();
                let key = key.map_err(|error| Refusal::new(Code::Usage, format!("--key: {error}")))?;
                Ok(Self { key, given: true })
            }
            (None, Some(folder)) => Ok(Self {
                key: folder.public_key().map_err(failed)?,
                given: false,
            }),
            (None, None) => {
                let text = "--key is needed: there is none beside a receipt, and it would prove nothing";
                Err(Refusal::new(Code::Usage, text))
            }
        }
    }

    fn show(&self) -> Value {
        let trust = if self.given {
            "given"
        } else {
            "found beside the files: whoever made them may have made it"
        };
        json!({ "key": self.key.to_string(), "trust": trust })
    }
}

fn verify(arguments: &AuditVerifyArguments) -> Result<(), Refusal> {
    let given = arguments.key.as_deref();
    let what = &arguments.what;
    if let Some(folder) = &what.dir {
        verify_log(folder, arguments)
    } else if let Some(file) = &what.receipt {
        verify_receipts(file, given)
    } else if let Some(folder) = &what.case {
        case::verify(folder, given)
    } else {
        // The command line asks for one of them.
        Err(Refusal::new(Code::Usage, "nothing to verify"))
    }
}

fn verify_log(copy: &Path, arguments: &AuditVerifyArguments) -> Result<(), Refusal> {
    let below = copy.join("audit");
    let is_home = below.join("checkpoint").is_file();
    let folder = Folder::at(if is_home { &below } else { copy });
    let trusted = Trusted::of(arguments.key.as_deref(), Some(&folder))?;
    let journal = (is_home && copy.join("cinnabar.db").is_file()).then(|| Reader::beside(copy));
    let journal = journal.transpose().map_err(|error| error.refusal())?;
    let since = arguments.since.as_deref().map(read_text).transpose()?;
    let witness = |text: &String| {
        let key = text.parse::<WitnessKey>();
        key.map_err(|error| Refusal::new(Code::Usage, format!("--witness: {error}")))
    };
    let witnesses: Vec<WitnessKey> = (arguments.witnesses.iter())
        .map(witness)
        .collect::<Result<_, _>>()?;
    let (key, journal) = (&trusted.key, journal.as_ref());
    let found = audit::verify(&folder, key, since.as_deref(), journal, &witnesses).map_err(failed)?;
    let stamps = match &arguments.tsa_ca {
        Some(ca) => stamps::verify(&folder, &found.checkpoint, key, &read_anchors(ca)?)?,
        None => json!({ "there": folder.stamps().map_err(failed)?.len(), "checked": false }),
    };
    print_json(&json!({
        "log": found.checkpoint.origin,
        "leaves": found.checkpoint.size,
        "root": found.checkpoint.root.to_string(),
        "signature": trusted.show(),
        "cosigned": found.cosigned,
        "time_stamps": stamps,
        "files": found.files,
        "begins_with": found.since.map(|old| old.size),
        "journal": found.leaves,
    }))
}

fn read_text(path: &Path) -> Result<String, Refusal> {
    let not_text = |_| Refusal::new(Code::File, format!("{}: not text", path.display()));
    String::from_utf8(read_file(path)?).map_err(not_text)
}

/// What a file with receipts may hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum Receipts {
    Answer(ItemsBody),
    One(InclusionBody),
    Item(Box<ItemBody>),
}

fn verify_receipts(file: &Path, given: Option<&str>) -> Result<(), Refusal> {
    let trusted = Trusted::of(given, None)?;
    let unreadable = |text: &str| Refusal::new(Code::MalformedRequest, format!("{}: {text}", file.display()));
    let receipts: Receipts = serde_json::from_slice(&read_file(file)?)
        .map_err(|_| unreadable("neither a receipt nor an answer with receipts"))?;
    let receipts: Vec<InclusionBody> = match receipts {
        Receipts::One(receipt) => vec![receipt],
        Receipts::Item(item) => item.inclusion.into_iter().collect(),
        Receipts::Answer(answer) => answer
            .items
            .into_iter()
            .filter_map(|item| item.inclusion)
            .collect(),
    };
    if receipts.is_empty() {
        return Err(unreadable("no item has a proof"));
    }
    let check = |receipt: &InclusionBody| {
        let size = check_receipt(receipt, &trusted.key)?;
        Ok(json!({ "sequence": receipt.sequence, "committed_ms": receipt.committed_ms, "leaves": size }))
    };
    let entries: Vec<Value> = receipts.iter().map(check).collect::<Result<_, Refusal>>()?;
    print_json(&json!({ "signature": trusted.show(), "entries": entries }))
}
