//! What operators do with the audit log, as the journal records it. It changes nothing in the registry.

use protocol::ids::{Sequence, TenantName};

/// Something an operator did.
#[derive(Clone, Debug)]
pub enum AuditChange {
    /// Evidence was taken out.
    Export {
        /// What the case is called.
        case: String,
        /// Whose records.
        tenant: TenantName,
        /// Who is said to have agreed.
        operators: Vec<String>,
        /// SHA-256 of the manifest, base64.
        manifest: String,
    },
    /// The salts of entries were erased.
    Erase {
        /// Which.
        entries: Vec<Sequence>,
        /// Why: an order's number.
        reason: String,
    },
}

impl AuditChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Export {
                case,
                tenant,
                operators,
                manifest,
            } => (
                "audit.export",
                format!(
                    "{tenant} case={case} operators={} manifest={manifest}",
                    operators.join(",")
                ),
            ),
            Self::Erase { entries, reason } => {
                let numbers: Vec<String> = entries.iter().map(|entry| entry.0.to_string()).collect();
                (
                    "audit.erase",
                    format!("entries={} reason={reason}", numbers.join(",")),
                )
            }
        }
    }
}
