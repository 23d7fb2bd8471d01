//! The uses of one commit: counted when they are decided, written with the signatures they belong to, taken back where
//! nothing could be written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::clock::UnixMillis;
use protocol::ids::{AppRow, Sequence};
use rusqlite::{Connection, params};

use super::{Grant, Seal, SealUse};
use crate::error::Result;
use crate::record::{Item, month_of};

/// A use that is about to be written.
#[derive(Debug)]
struct Used {
    seal: Arc<Seal>,
    grant: Arc<Grant>,
    sequence: Sequence,
    app: AppRow,
    document: u8,
}

/// The uses of one commit; empty, and of no cost, where nothing is signed under a seal.
#[derive(Debug, Default)]
pub(crate) struct SealTally(Vec<Used>);

impl SealTally {
    /// Counts a use: whoever is judged next already sees it.
    pub(crate) fn count(&mut self, used: &SealUse, item: &Item, sequence: Sequence) {
        used.seal.0.uses.fetch_add(1, Ordering::AcqRel);
        used.grant.0.uses.fetch_add(1, Ordering::AcqRel);
        self.0.push(Used {
            seal: Arc::clone(&used.seal.0),
            grant: Arc::clone(&used.grant.0),
            sequence,
            app: item.app,
            document: used.document.wire(),
        });
    }

    /// Writes the uses into the open transaction. The counters are set to what memory says, which only this thread
    /// changes: writing twice counts once.
    pub(crate) fn write(&self, db: &Connection, at: UnixMillis) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO seal_use (seal, sequence, grant_row, app, document, at_ms, month) \
                   VALUES (?, ?, ?, ?, ?, ?, ?)";
        let mut uses = db.prepare_cached(sql)?;
        let mut seals = db.prepare_cached("UPDATE seal SET uses = ? WHERE row = ?")?;
        let mut grants = db.prepare_cached("UPDATE seal_grant SET uses = ? WHERE row = ?")?;
        for (place, used) in self.0.iter().enumerate() {
            uses.execute(params![
                used.seal.row.0,
                used.sequence.0.cast_signed(),
                used.grant.row.0,
                used.app.0,
                used.document,
                at.0.cast_signed(),
                month_of(at)
            ])?;
            let later = &self.0[place + 1..];
            if later.iter().all(|other| other.grant.row != used.grant.row) {
                grants.execute(params![used.grant.uses().cast_signed(), used.grant.row.0])?;
            }
            if later.iter().all(|other| other.seal.row != used.seal.row) {
                seals.execute(params![used.seal.uses().cast_signed(), used.seal.row.0])?;
            }
        }
        Ok(())
    }

    /// Takes the counts back: nothing was written.
    pub(crate) fn revert(&self) {
        for used in &self.0 {
            used.seal.uses.fetch_sub(1, Ordering::AcqRel);
            used.grant.uses.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
