//! The store's second thread: what must happen soon, but not inside anybody's commit. It moves settled keys from
//! memory to run files, copies the WAL into the database, and syncs the tail.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use protocol::clock;
use rusqlite::Connection;

use crate::error::{Result, StoreError};
use crate::index::{Entry, KeyIndex};

/// Settled keys of one commit, and the last sequence number it reached.
pub(crate) struct Committed {
    pub(crate) keys: Vec<Entry>,
    pub(crate) last: u64,
}

const TICK: Duration = Duration::from_millis(250);
/// Above this many WAL frames the committing thread finishes a checkpoint itself, so that the WAL starts over.
const WAL_FRAMES_MAX: i64 = 16_384;

pub(crate) struct Background<W> {
    pub(crate) index: Arc<KeyIndex<W>>,
    pub(crate) commits: Receiver<Committed>,
    pub(crate) db: Connection,
    pub(crate) tail: File,
    pub(crate) flush_keys: usize,
    /// Asks the committing thread to restart the WAL.
    pub(crate) restart_wal: Arc<AtomicBool>,
    pub(crate) collected: Vec<Entry>,
    pub(crate) last: u64,
}

impl<W> Background<W> {
    /// Runs until the committing thread ends. An error here costs memory or disk, never an entry: it is logged
    /// and tried again.
    pub(crate) fn run(mut self) {
        let mut due = clock::monotonic() + TICK;
        loop {
            match self.commits.recv_deadline(due) {
                Ok(committed) => self.collect(committed),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            due = self.tick_if(due);
        }
        log(self.sync_tail());
        log(checkpoint(&self.db).map(|_| ()));
    }

    fn tick_if(&mut self, due: Instant) -> Instant {
        if clock::monotonic() < due {
            return due;
        }
        log(self.sync_tail());
        log(self.checkpoint());
        clock::monotonic() + TICK
    }

    fn collect(&mut self, committed: Committed) {
        self.collected.extend(committed.keys);
        self.last = committed.last;
        if self.collected.len() >= self.flush_keys {
            log(self.flush());
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.index.older().add(&mut self.collected, self.last)?;
        self.index.forget_settled(&self.collected);
        self.collected.clear();
        while self.index.older().merge_once()? {}
        Ok(())
    }

    fn sync_tail(&self) -> Result<()> {
        self.tail.sync_data().map_err(StoreError::file(Path::new("tail")))
    }

    fn checkpoint(&self) -> Result<()> {
        let frames = checkpoint(&self.db)?;
        if frames > WAL_FRAMES_MAX {
            self.restart_wal.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Copies what it can of the WAL into the database without making anybody wait; returns the WAL's frames.
pub(crate) fn checkpoint(db: &Connection) -> Result<i64> {
    Ok(db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?)
}

fn log(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "store housekeeping will be tried again");
    }
}
