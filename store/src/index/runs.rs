//! The set of runs: adjoining ranges of the journal from its first entry on, small ones merged into larger ones.

use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::Settled;
use super::run::{Entry, Range, Run};
use crate::error::{Result, StoreError};
use crate::record::Fingerprint;

/// Neighbouring runs of about the same size that are merged into one.
const MERGE_FAN_IN: usize = 8;

/// The runs of one store, oldest first.
#[derive(Debug)]
pub(crate) struct Runs {
    folder: Option<PathBuf>,
    runs: RwLock<Vec<Arc<Run>>>,
    /// The last entry that is archived: no key is remembered from there or before.
    forgotten: AtomicU64,
}

impl Runs {
    /// No runs and nowhere to put any: for tests of what lies above.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self {
            folder: None,
            runs: RwLock::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Opens the runs in `folder` that adjoin from the first entry behind `archived` and do not reach beyond
    /// `journal_last`. All others are deleted: the journal is read again for what they held, or it is forgotten.
    pub(crate) fn open(folder: &Path, archived: u64, journal_last: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(StoreError::file(folder))?;
        let mut found = Vec::new();
        for path in files(folder)? {
            match Run::open(&path) {
                Ok(run) => found.push(run),
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "a key index file is dropped and rebuilt");
                    remove(&path)?;
                }
            }
        }
        // Of two runs that start together the longer is the merged one.
        found.sort_by_key(|run| (run.range().first, std::cmp::Reverse(run.range().last)));
        let (mut kept, mut next) = (Vec::new(), archived + 1);
        for run in found {
            let Range { first, last } = run.range();
            // The first one may reach back into what is archived.
            let adjoins = first == next || kept.is_empty() && first < next && last >= next;
            if adjoins && last <= journal_last {
                next = last + 1;
                kept.push(Arc::new(run));
            } else {
                remove(run.path())?;
            }
        }
        Ok(Self {
            folder: Some(folder.into()),
            runs: RwLock::new(kept),
            forgotten: AtomicU64::new(archived),
        })
    }

    /// The last journal entry that the runs stand for.
    pub(crate) fn covered(&self) -> u64 {
        let forgotten = self.forgotten.load(Ordering::Acquire);
        self.runs.read().last().map_or(forgotten, |run| run.range().last)
    }

    /// Whether an entry is archived, so that its key is not remembered any more.
    pub(crate) fn is_forgotten(&self, settled: Settled) -> bool {
        settled.sequence.0 <= self.forgotten.load(Ordering::Acquire)
    }

    /// Forgets what is archived: the runs that hold nothing else are deleted.
    pub(crate) fn forget_upto(&self, archived: u64) -> Result<()> {
        self.forgotten.fetch_max(archived, Ordering::AcqRel);
        let mut runs = self.runs.write();
        let past = runs.iter().take_while(|run| run.range().last <= archived).count();
        let past: Vec<_> = runs.drain(..past).collect();
        drop(runs);
        past.iter().try_for_each(|run| remove(run.path()))
    }

    /// The key's last entry, as far as the runs know.
    pub(crate) fn find(&self, key: Fingerprint) -> Option<Settled> {
        let found = self.runs.read().iter().rev().find_map(|run| run.find(key));
        found.filter(|settled| !self.is_forgotten(*settled))
    }

    /// Adds a run for the entries after [`Self::covered`] up to `last`, in the order they were committed.
    pub(crate) fn add(&self, entries: &mut [Entry], last: u64) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        // The sort is stable, so of equal keys the newest is last, and only that one is kept.
        entries.sort_by_key(|entry| entry.key);
        let newest = dedup_newest(entries);
        let range = Range {
            first: self.covered() + 1,
            last,
        };
        let run = Run::write(folder, range, entries.len(), newest.into_iter().map(Ok))?;
        self.runs.write().push(Arc::new(run));
        Ok(())
    }

    /// Merges the newest runs while enough of them are of about one size. True if something was merged.
    pub(crate) fn merge_once(&self) -> Result<bool> {
        let Some(folder) = &self.folder else {
            return Ok(false);
        };
        let tail: Vec<Arc<Run>> = {
            let runs = self.runs.read();
            let from = runs.len().saturating_sub(MERGE_FAN_IN);
            runs[from..].to_vec()
        };
        if tail.len() < MERGE_FAN_IN || !same_tier(&tail) {
            return Ok(false);
        }
        let range = Range {
            first: tail[0].range().first,
            last: tail[MERGE_FAN_IN - 1].range().last,
        };
        let count_max = tail.iter().map(|run| run.len()).sum();
        let merged = Run::write(folder, range, count_max, Merge::of(&tail)?)?;
        {
            let mut runs = self.runs.write();
            let from = runs.len() - MERGE_FAN_IN;
            runs.splice(from.., [Arc::new(merged)]);
        }
        tail.iter().try_for_each(|run| remove(run.path()))?;
        Ok(true)
    }
}

/// Whether the largest is less than `MERGE_FAN_IN` times the smallest.
fn same_tier(runs: &[Arc<Run>]) -> bool {
    let sizes = || runs.iter().map(|run| run.len());
    sizes().max().unwrap_or(0) < MERGE_FAN_IN * sizes().min().unwrap_or(0).max(1)
}

fn dedup_newest(sorted: &[Entry]) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::with_capacity(sorted.len());
    for entry in sorted {
        match kept.last_mut() {
            Some(last) if last.key == entry.key => *last = *entry,
            _ => kept.push(*entry),
        }
    }
    kept
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StoreError::file(folder))? {
        let path = entry.map_err(StoreError::file(folder))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("run") => runs.push(path),
            Some("new") => remove(&path)?,
            _ => {}
        }
    }
    Ok(runs)
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(StoreError::file(path))
}

type Source = Peekable<Box<dyn Iterator<Item = Result<Entry>>>>;

/// Entries of several runs in key order; of equal keys only the newest.
struct Merge(Vec<Source>);

impl Merge {
    fn of(runs: &[Arc<Run>]) -> Result<Self> {
        let source = |run: &Arc<Run>| -> Result<Source> {
            let entries: Box<dyn Iterator<Item = Result<Entry>>> = Box::new(run.entries()?);
            Ok(entries.peekable())
        };
        Ok(Self(runs.iter().map(source).collect::<Result<_>>()?))
    }
}

impl Iterator for Merge {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        // A read error anywhere ends the merge with that error.
        let mut least: Option<Fingerprint> = None;
        for at in 0..self.0.len() {
            match self.0[at].peek() {
                Some(Ok(entry)) => least = Some(least.map_or(entry.key, |key| key.min(entry.key))),
                Some(Err(_)) => return self.0[at].next(),
                None => {}
            }
        }
        let least = least?;
        let mut newest = None;
        for source in &mut self.0 {
            if let Some(entry) = source.next_if(|entry| entry.as_ref().is_ok_and(|entry| entry.key == least))
            {
                newest = Some(entry);
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::State;
    use protocol::ids::{AppRow, Sequence};

    fn entry(n: u64) -> Entry {
        let key = Fingerprint::of_call(AppRow(1), &(n % 5000).to_string());
        Entry {
            key,
            settled: Settled {
                sequence: Sequence(n),
                state: State::Done,
            },
        }
    }

    #[test]
    fn runs_find_the_newest_before_and_after_merging_and_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::open(folder.path(), 0, 0).unwrap();
        let check = |runs: &Runs, upto: u64| {
            for n in 0..5000 {
                let newest = (1..=upto).rev().find(|at| at % 5000 == n);
                assert_eq!(runs.find(entry(n).key).map(|s| s.sequence.0), newest, "key {n}");
            }
        };
        for batch in 0..9 {
            let (first, last) = (batch * 1000 + 1, (batch + 1) * 1000);
            runs.add(&mut (first..=last).map(entry).collect::<Vec<_>>(), last)
                .unwrap();
            while runs.merge_once().unwrap() {}
        }
        assert_eq!(runs.runs.read().len(), 2, "eight merged, one new");
        check(&runs, 9000);
        let reopened = Runs::open(folder.path(), 0, 9000).unwrap();
        assert_eq!(reopened.covered(), 9000);
        check(&reopened, 9000);
        let older = Runs::open(folder.path(), 0, 8500).unwrap();
        assert_eq!(older.covered(), 8000, "a run beyond the journal is dropped");
    }

    #[test]
    fn a_damaged_run_is_dropped_with_all_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::open(folder.path(), 0, 0).unwrap();
        for last in [100, 200, 300] {
            runs.add(&mut (last - 99..=last).map(entry).collect::<Vec<_>>(), last)
                .unwrap();
        }
        let second = runs.runs.read()[1].path().to_owned();
        let bytes = std::fs::read(&second).unwrap();
        std::fs::write(&second, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(Runs::open(folder.path(), 0, 300).unwrap().covered(), 100);
        assert_eq!(files(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_archived_is_forgotten_also_within_a_run_that_stays() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::open(folder.path(), 0, 0).unwrap();
        for last in [100, 200, 300] {
            runs.add(&mut (last - 99..=last).map(entry).collect::<Vec<_>>(), last)
                .unwrap();
        }
        runs.forget_upto(150).unwrap();
        let reopened = Runs::open(folder.path(), 150, 300).unwrap();
        for runs in [&runs, &reopened] {
            assert_eq!(runs.runs.read().len(), 2);
            assert_eq!(runs.covered(), 300);
            for number in [1, 100, 101, 150] {
                assert_eq!(runs.find(entry(number).key), None, "{number}");
            }
            for number in [151, 300] {
                assert!(runs.find(entry(number).key).is_some(), "{number}");
            }
        }
        runs.forget_upto(300).unwrap();
        assert_eq!((files(folder.path()).unwrap().len(), runs.covered()), (0, 300));
        assert_eq!(Runs::open(folder.path(), 300, 400).unwrap().covered(), 300);
    }
}
