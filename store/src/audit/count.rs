//! Reconciliation of the journal with the log (SEMANTICS 4.7): a leaf for each entry, none without one.

use protocol::clock::UnixMillis;
use protocol::ids::Sequence;
use rusqlite::Connection;

use super::folder::Folder;
use crate::error::Result;
use crate::journal;
use crate::record::Record;
use crate::statement::Difference;

/// What a comparison of the journal with the log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafReconciliation {
    /// Leaves under the checkpoint.
    pub leaves: u64,
    /// What does not agree.
    pub differences: Vec<Difference>,
}

/// Numbers without an entry, from and to.
type Gap = (u64, u64);

/// Holds the journal against the checkpoint of the log. `logged_by`: entries that were committed before then must be in it;
/// `None` where no engine runs, so that nobody has taken them in.
pub(crate) fn reconcile(
    db: &Connection,
    folder: &Folder,
    logged_by: Option<UnixMillis>,
) -> Result<LeafReconciliation> {
    // Read before the journal: what is under a checkpoint was committed before it.
    let leaves = folder.stated_size();
    let snapshot = db.unchecked_transaction()?;
    let mut found = LeafReconciliation {
        leaves,
        ..LeafReconciliation::default()
    };
    let last = journal::end(&snapshot)?.sequence;
    if last < leaves {
        found.differ("the last entry and leaf", last, leaves);
    }
    if let Some(by) = logged_by {
        let due: Option<i64> = snapshot.query_row(
            "SELECT max(first + count - 1) FROM journal WHERE at_ms < ? AND first + count - 1 > ?",
            [by.0.cast_signed(), leaves.cast_signed()],
            |row| row.get(0),
        )?;
        if let Some(due) = due {
            found.differ("entries that wait for their leaves", due.cast_unsigned(), leaves);
        }
    }
    for (from, to) in gaps(&snapshot)? {
        if !is_accepted(&snapshot, from, to)? {
            found.differ(&format!("entries {from} to {to}"), 0, to - from + 1);
        }
    }
    Ok(found)
}

impl LeafReconciliation {
    fn differ(&mut self, subject: &str, first: u64, second: u64) {
        self.differences.push(Difference {
            between: "journal = audit leaves",
            month: 0,
            subject: subject.into(),
            first: first.cast_signed(),
            second: second.cast_signed(),
        });
    }
}

/// Numbers that no entry has, between the first and the last that there are.
fn gaps(db: &Connection) -> Result<Vec<Gap>> {
    let sql = "SELECT due, first - 1 FROM
        (SELECT first, lag(first + count) OVER (ORDER BY first) AS due FROM journal) WHERE first <> due";
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)?.cast_unsigned(),
            row.get::<_, i64>(1)?.cast_unsigned(),
        ))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether an operator accepted that these are missing: the engine records it as soon as it opens after them.
fn is_accepted(db: &Connection, from: u64, to: u64) -> Result<bool> {
    let entry = journal::read(db, Sequence(to + 2))?;
    Ok(entry.is_some_and(|entry| {
        entry.record
            == Record::LossAccepted {
                first: from,
                last: to,
            }
    }))
}
