//! Orders about the audit log: evidence is taken out and signed, salts are erased. All are journaled before they take effect.

use std::collections::BTreeSet;

use actors::audit::signing_key;
use actors::registrar::Ledger;
use actors::vault::Vault;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{Sequence, TenantName, TenantRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::audit::{AuditChange, AuditError, Folder, Salts};
use store::{Change, Proposal, ProposalState, Reader};

use super::control::Control;
use super::operator::Order;

/// What an operator wants done with the audit log.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "audit", rename_all = "kebab-case")]
pub(crate) enum AuditOrder {
    /// Take evidence out. Where that needs two operators this is what the second one approves.
    Export(CaseScope),
    /// Sign the manifest of a case.
    SignCase {
        scope: CaseScope,
        /// Who is said to have agreed; nobody where a proposal says it.
        operators: Vec<String>,
        /// The approved proposal.
        proposal: Option<String>,
        /// SHA-256, base64.
        manifest: String,
    },
    /// Erase the salts of entries.
    Erase { entries: Vec<u64>, reason: String },
}

/// What belongs to a case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct CaseScope {
    /// What it is called.
    pub(crate) case: String,
    pub(crate) tenant: TenantName,
    /// From when on, in Unix milliseconds.
    pub(crate) from_ms: u64,
    /// Until when, without.
    pub(crate) to_ms: u64,
}

/// What taking evidence out is called.
pub(crate) const EXPORT: &str = "audit.export";
/// Entries in one order.
const ENTRIES_MAX: usize = 1_000;
/// Operators that must have agreed to an export.
const OPERATORS_MIN: usize = 2;

/// What the manifest of a case is signed as: a note that no checkpoint can be mistaken for.
pub(crate) fn case_text(case: &str, manifest: &str) -> String {
    format!("cinnabar audit case\n{case}\n{manifest}\n")
}

/// Carries the orders out.
pub(crate) struct Registry<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) vault: &'a Vault,
    pub(crate) ledger: &'a dyn Ledger,
    pub(crate) reader: &'a Reader,
    pub(crate) control: &'a Control,
}

impl Registry<'_> {
    pub(crate) fn obey(&self, order: AuditOrder) -> Result<Value, Refusal> {
        match order {
            AuditOrder::Export(scope) => {
                check_name("case", &scope.case)?;
                Ok(json!({}))
            }
            AuditOrder::SignCase {
                scope,
                operators,
                proposal,
                manifest,
            } => {
                check_name("case", &scope.case)?;
                let operators = match proposal {
                    Some(id) => self.approved_by(&id, &scope)?,
                    None => self.stated(operators)?,
                };
                self.sign(scope, operators, manifest)
            }
            AuditOrder::Erase { entries, reason } => erase(self.folder, self.ledger, &entries, reason),
        }
    }

    fn sign(&self, scope: CaseScope, operators: Vec<String>, manifest: String) -> Result<Value, Refusal> {
        let epoch = self.reader.epoch().map_err(|error| error.refusal())?;
        let key = signing_key(self.folder, self.vault, None, epoch)?;
        let note = key.sign(&case_text(&scope.case, &manifest));
        self.ledger.change(Change::Audit(AuditChange::Export {
            case: scope.case,
            tenant: scope.tenant,
            operators,
            manifest,
        }))?;
        Ok(json!({ "note": note }))
    }

    /// Names that are stated count only where nobody has to approve.
    fn stated(&self, operators: Vec<String>) -> Result<Vec<String>, Refusal> {
        if self.control.dual.contains(EXPORT) {
            let text =
                "evidence is taken out under a proposal that a second operator has approved: --proposal ID";
            return Err(Refusal::new(Code::ApprovalNeeded, text));
        }
        check_operators(&operators)?;
        Ok(operators)
    }

    fn approved_by(&self, id: &str, scope: &CaseScope) -> Result<Vec<String>, Refusal> {
        let found = self.reader.proposal(id).map_err(|error| error.refusal())?;
        let found = found.ok_or_else(|| Refusal::new(Code::NotFound, format!("no proposal '{id}'")))?;
        approvers(&found, scope, clock::wall())
    }
}

/// Who has proposed and approved that this case is taken out.
pub(crate) fn approvers(
    proposal: &Proposal,
    scope: &CaseScope,
    now: UnixMillis,
) -> Result<Vec<String>, Refusal> {
    let refuse = |code, what: &str| Err(Refusal::new(code, format!("proposal '{}' {what}", proposal.id)));
    let order: Option<Order> = serde_json::from_str(&proposal.asked).ok();
    let same = matches!(&order, Some(Order::Audit(AuditOrder::Export(asked))) if asked == scope);
    match &proposal.decided {
        _ if !same => refuse(Code::Usage, "is not about this case, tenant and period"),
        Some((by, _)) if proposal.state == ProposalState::Approved => {
            if now >= proposal.expires {
                return refuse(Code::WrongState, "was approved, and its time is over");
            }
            Ok(vec![proposal.proposer.clone(), by.clone()])
        }
        _ => refuse(Code::ApprovalNeeded, "is not approved"),
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

/// What became of a tenant's entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Erased {
    /// Salts that were there, and are erased.
    pub(crate) salts: u64,
    /// Signatures in the journal, which lie there sealed.
    pub(crate) signatures: u64,
}

/// Leaves whose salts are erased at once.
const ERASED_AT_ONCE: usize = 65_536;
/// Entries that are read in one view of the database: while one is open its log cannot be cut short.
const READ_AT_ONCE: u64 = 262_144;

/// Erases the salts of every entry about a request of a tenant, in the journal and in archives. All of them must be
/// logged, and the tiles on disk.
pub(crate) fn erase_tenant(
    folder: &Folder,
    reader: &Reader,
    tenant: TenantRow,
) -> Result<Erased, AuditError> {
    let mut erasure = Erasure {
        salts: Salts::writable(folder.path())?,
        tenant,
        erased: Erased::default(),
        some: Vec::new(),
    };
    // Archives are read whole: they are files.
    let archived = reader.archives()?.last().map_or(0, |archived| archived.last);
    let (mut from, mut read) = (Sequence(1), READ_AT_ONCE);
    while read >= READ_AT_ONCE {
        read = 0;
        reader.follow_all(from, |sequence, _, record| -> Result<bool, AuditError> {
            erasure.take(sequence, record)?;
            from = Sequence(sequence.0 + 1);
            read += 1;
            Ok(read < READ_AT_ONCE || sequence.0 < archived)
        })?;
    }
    erasure.salts.erase(erasure.some)?;
    Ok(erasure.erased)
}

/// An erasure under way.
struct Erasure {
    salts: Salts,
    tenant: TenantRow,
    erased: Erased,
    /// Leaves whose salts are to be erased next.
    some: Vec<u64>,
}

impl Erasure {
    fn take(&mut self, sequence: Sequence, record: &[u8]) -> Result<(), AuditError> {
        let about = store::tenant_of(record).map_err(|_| AuditError::EntryMissing(sequence.0))?;
        let Some((_, signed)) = about.filter(|(row, _)| *row == self.tenant) else {
            return Ok(());
        };
        self.erased.signatures += u64::from(signed);
        let index = sequence.0 - 1;
        if self.salts.get(index)?.is_some() {
            self.erased.salts += 1;
            self.some.push(index);
        }
        if self.some.len() >= ERASED_AT_ONCE {
            self.salts.erase(self.some.drain(..))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(case: &str) -> CaseScope {
        CaseScope {
            case: case.into(),
            tenant: TenantName::new("acme").unwrap(),
            from_ms: 1,
            to_ms: 2,
        }
    }

    fn proposal(state: ProposalState) -> Proposal {
        Proposal {
            id: "p-1".into(),
            action: EXPORT.into(),
            asked: serde_json::to_string(&Order::Audit(AuditOrder::Export(scope("c-1")))).unwrap(),
            proposer: "operator alice".into(),
            proposed: UnixMillis(0),
            expires: UnixMillis(100),
            state,
            decided: Some(("operator bob".into(), UnixMillis(50))),
        }
    }

    #[test]
    fn evidence_is_taken_out_only_as_it_was_approved_and_in_time() {
        let judge = |state, case, now| approvers(&proposal(state), &scope(case), UnixMillis(now));
        let approved = ProposalState::Approved;
        assert_eq!(
            judge(approved, "c-1", 99).unwrap(),
            ["operator alice", "operator bob"]
        );
        let refused = |state, case, now| judge(state, case, now).unwrap_err().code;
        assert_eq!(refused(approved, "c-2", 99), Code::Usage);
        assert_eq!(refused(approved, "c-1", 100), Code::WrongState);
        assert_eq!(refused(ProposalState::Rejected, "c-1", 99), Code::ApprovalNeeded);
        assert_eq!(refused(ProposalState::Open, "c-1", 99), Code::ApprovalNeeded);
    }
}
