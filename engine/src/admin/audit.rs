//! Orders about the audit log: evidence is signed, salts are erased. Both are journaled before they take effect.

use std::collections::BTreeSet;

use actors::audit::signing_key;
use actors::registrar::Ledger;
use actors::vault::Vault;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{Sequence, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Change;
use store::audit::{AuditChange, Folder, Salts};

/// What an operator wants done with the audit log.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "audit", rename_all = "kebab-case")]
pub(crate) enum AuditOrder {
    /// Sign the manifest of a case.
    SignCase {
        case: String,
        tenant: TenantName,
        operators: Vec<String>,
        /// SHA-256, base64.
        manifest: String,
    },
    /// Erase the salts of entries.
    Erase { entries: Vec<u64>, reason: String },
}

/// Entries in one order.
const ENTRIES_MAX: usize = 1_000;
/// Operators that must have agreed to an export.
const OPERATORS_MIN: usize = 2;

/// What the manifest of a case is signed as: a note that no checkpoint can be mistaken for.
pub(crate) fn case_text(case: &str, manifest: &str) -> String {
    format!("cinnabar audit case\n{case}\n{manifest}\n")
}

/// Carries an order out.
pub(crate) fn obey(
    folder: &Folder,
    vault: &Vault,
    ledger: &dyn Ledger,
    order: AuditOrder,
) -> Result<Value, Refusal> {
    match order {
        AuditOrder::SignCase {
            case,
            tenant,
            operators,
            manifest,
        } => {
            check_name("case", &case)?;
            check_operators(&operators)?;
            let key = signing_key(folder, vault, None)?;
            let note = key.sign(&case_text(&case, &manifest));
            ledger.change(Change::Audit(AuditChange::Export {
                case,
                tenant,
                operators,
                manifest,
            }))?;
            Ok(json!({ "note": note }))
        }
        AuditOrder::Erase { entries, reason } => erase(folder, ledger, &entries, reason),
    }
}

fn check_name(what: &str, text: &str) -> Result<(), Refusal> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@');
    if text.is_empty() || text.chars().count() > 64 || !text.chars().all(plain) {
        let text = format!("{what} '{text}': 1 to 64 letters, digits and - _ . / @");
        return Err(Refusal::new(Code::Usage, text));
    }
    Ok(())
}

/// Two different names.
pub(crate) fn check_operators(operators: &[String]) -> Result<(), Refusal> {
    for name in operators {
        check_name("operator", name)?;
    }
    let distinct: BTreeSet<_> = operators.iter().collect();
    if distinct.len() < OPERATORS_MIN {
        let text = "evidence is taken out by two operators: --operator NAME twice, with different names";
        return Err(Refusal::new(Code::Usage, text));
    }
    Ok(())
}

/// What the tree holds is made durable first: without its salt a leaf cannot be made again.
fn erase(folder: &Folder, ledger: &dyn Ledger, entries: &[u64], reason: String) -> Result<Value, Refusal> {
    if entries.is_empty() || entries.len() > ENTRIES_MAX || reason.is_empty() {
        let text = format!("1 to {ENTRIES_MAX} entries and a reason are needed");
        return Err(Refusal::new(Code::Usage, text));
    }
    let logged = folder.stated_size();
    if let Some(entry) = entries.iter().find(|entry| !(1..=logged).contains(*entry)) {
        let text = format!("journal entry {entry} is not in the audit log, which has {logged}");
        return Err(Refusal::new(Code::NotFound, text));
    }
    folder.sync().map_err(|error| error.refusal())?;
    ledger.change(Change::Audit(AuditChange::Erase {
        entries: entries.iter().copied().map(Sequence).collect(),
        reason,
    }))?;
    let salts = Salts::writable(folder.path()).map_err(|error| error.refusal())?;
    let indices = entries.iter().map(|entry| entry - 1);
    salts.erase(indices).map_err(|error| error.refusal())?;
    Ok(json!({ "erased": entries.len() }))
}
