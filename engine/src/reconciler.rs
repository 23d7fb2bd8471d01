//! Reconciliation once an hour: the journal of the running month, and of the one before, against ledger and counters, and
//! the whole of it against the leaves of the audit log. A
//! difference freezes the month's statements and is an error with a stable name, for whoever is paged. Then months that are older than the
//! retention are archived.

use std::sync::Arc;
use std::time::Duration;

use actors::services::Services;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use store::audit::Folder;
use store::{Change, LedgerChange, Reader, Reconciliation, StoreError};

use crate::admin::keep;
use crate::config::Config;

const EVERY: Duration = Duration::from_secs(3_600);
/// Months looked at each time; what is older does not change any more and was looked at when it did.
const MONTHS: usize = 2;

/// An entry without a leaf after this long is a difference.
const LEAF_MS_MAX: u64 = 60_000;

/// Starts the thread. It ends with the process.
pub(crate) fn start(services: &Arc<Services>, config: &Config) -> Result<(), Refusal> {
    let log = config.audit_log();
    let services = Arc::clone(services);
    let (home, retention) = (config.home.clone(), config.retention_months);
    std::thread::Builder::new()
        .name("reconciler".into())
        .spawn(move || {
            while services.closed().is_none() {
                std::thread::sleep(EVERY);
                if let Err(error) = reconcile(&services, &log) {
                    tracing::error!(%error, "reconciliation_failed");
                }
                if let Err(error) = keep::archive_due(&services.store, &home, retention, clock::wall()) {
                    tracing::error!(%error, "archive_failed");
                }
            }
        })
        .map(drop)
        .map_err(|error| Refusal::new(Code::Internal, format!("the reconciler's thread: {error}")))
}

fn reconcile(services: &Services, log: &Folder) -> Result<(), StoreError> {
    let reader = services.store.reader()?;
    let mut months = reader.months()?;
    months.drain(..months.len().saturating_sub(MONTHS));
    let mut found = reader.reconcile(&months)?;
    let due = UnixMillis(clock::wall().0.saturating_sub(LEAF_MS_MAX));
    add_leaves(&mut found, &reader, log, Some(due))?;
    services.reconciled.note(found.differences.len(), clock::wall());
    for change in freezes(&found) {
        services.store.change("reconciler", change)?;
    }
    for difference in &found.differences {
        tracing::error!(?difference, "reconciliation_difference");
    }
    Ok(())
}

/// Journal = audit leaves, beside what the ledger says.
pub(crate) fn add_leaves(
    found: &mut Reconciliation,
    reader: &Reader,
    folder: &Folder,
    logged_by: Option<UnixMillis>,
) -> Result<(), StoreError> {
    let leaves = reader.reconcile_leaves(folder, logged_by)?;
    found.audit_leaves = leaves.leaves;
    found.differences.extend(leaves.differences);
    Ok(())
}

fn freezes(found: &Reconciliation) -> Vec<Change> {
    let reason = found.differences.first().map(|first| {
        format!(
            "{}: {}: {} and {}",
            first.between, first.subject, first.first, first.second
        )
    });
    let freeze = |month| {
        Change::Ledger(LedgerChange::Freeze {
            month,
            reason: reason.clone().unwrap_or_default(),
        })
    };
    frozen_by(found).into_iter().map(freeze).collect()
}

/// The months whose statements differences freeze: those they are in; one that is in no month freezes all.
pub(crate) fn frozen_by(found: &Reconciliation) -> Vec<u32> {
    let mut months: Vec<u32> = found
        .differences
        .iter()
        .map(|difference| difference.month)
        .collect();
    if months.contains(&0) {
        months.clone_from(&found.months);
    }
    months.sort_unstable();
    months.dedup();
    months
}

#[cfg(test)]
mod tests {
    use store::Difference;

    use super::*;

    fn months(differences: &[u32]) -> Vec<u32> {
        let difference = |month: &u32| Difference {
            between: "journal = ledger",
            month: *month,
            subject: "package 1".into(),
            first: 1,
            second: 2,
        };
        let found = Reconciliation {
            months: vec![202610, 202611],
            differences: differences.iter().map(difference).collect(),
            ..Reconciliation::default()
        };
        frozen_by(&found)
    }

    #[test]
    fn a_difference_freezes_its_month_and_one_without_a_month_freezes_all() {
        assert!(months(&[]).is_empty());
        assert_eq!(months(&[202611, 202611]), [202611]);
        assert_eq!(months(&[202611, 0]), [202610, 202611]);
    }
}
