//! Opening the store: check what is there, finish what a crash left, start the threads.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::Sequence;
use rusqlite::Connection;

use crate::archive;
use crate::audit;
use crate::background::Background;
use crate::committer::{Command, Committer, Draft, Erased, Pace};
use crate::directory::Directory;
use crate::error::{Result, StoreError};
use crate::index::{self, Delivery, KeyIndex, Runs, Settled, State};
use crate::journal::{self, Batch};
use crate::ledger::{PackageRow, rows};
use crate::lock::FolderLock;
use crate::minutes::ObservedRecords;
use crate::operations::OperationWrite;
use crate::outbox::OutboxWrite;
use crate::reader::Reader;
use crate::record::{Fingerprint, Item, ItemRecord, Record};
use crate::registry::{self, Change};
use crate::space::Reserve;
use crate::sqlite;
use crate::stamps::StampDraft;
use crate::tail::{ChainPoint, Tail};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the engine calls itself in the journal.
    pub version: String,
    /// Bytes the database may take; `None`: as many as the disk has.
    pub bytes_max: Option<u64>,
    /// Settled keys in memory before they are written to a run.
    pub flush_keys: usize,
    /// Whether missing entries are accepted, and recorded as missing.
    pub accept_loss: bool,
    /// What tells the time of entries.
    pub clock: fn() -> UnixMillis,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: String::new(),
            bytes_max: None,
            flush_keys: 1 << 18,
            accept_loss: false,
            clock: clock::wall,
        }
    }
}

/// The database's name in the data folder.
pub(crate) const DATABASE: &str = "cinnabar.db";
/// The audit log's name in the data folder.
pub(crate) const AUDIT: &str = "audit";
/// Batches of drafts that may wait for the committing thread. Requests in flight bound it far more tightly.
const COMMANDS_MAX: usize = 4096;
/// How long a rehearsed stall may last.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Changes in one commit: more would hold up the signatures behind them.
pub const CHANGES_MAX: usize = 1_000;
/// Batches of the chain that are checked at every start; `cinnabar journal check` checks all.
const CHECKED_AT_START: u32 = 1000;

/// An open store without its threads.
#[derive(Debug)]
pub struct Store<W> {
    folder: PathBuf,
    db: Connection,
    tail: Tail,
    end: ChainPoint,
    index: Arc<KeyIndex<W>>,
    directory: Arc<Directory>,
    unflushed: Vec<index::Entry>,
    /// The entry with which this life of the engine began.
    life: Sequence,
    options: Options,
    lock: FolderLock,
}

impl<W: Clone + Send + 'static> Store<W> {
    /// Opens the store in `folder`, makes it if it is new, and settles what a crash left pending.
    pub fn open(folder: &Path, options: Options) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(StoreError::file(folder))?;
        let lock = FolderLock::take(folder)?;
        let db = sqlite::open_writer(&database(folder), options.bytes_max)?;
        let (tail, known) = Tail::open(&folder.join("tail"))?;
        journal::check_chain(&db, CHECKED_AT_START, &known)?;
        let end = journal::end(&db)?;
        // What the audit log has signed was committed, too, and the tail lags it after a power cut.
        let logged = audit::Folder::at(folder.join(AUDIT)).stated_size();
        let committed = known.sequence.max(logged);
        let lost = (end.sequence < committed).then_some(committed);
        if let Some(tail) = lost
            && !options.accept_loss
        {
            return Err(StoreError::EntriesLost {
                journal: end.sequence,
                tail,
            });
        }
        let archived = archive::end(&db)?.sequence;
        let runs = Runs::open(&folder.join("index"), archived, end.sequence)?;
        let index = Arc::new(KeyIndex::new(runs));
        let directory = Arc::new(registry::load(&db, (options.clock)())?);
        let mut store = Self {
            folder: folder.into(),
            db,
            tail,
            end,
            index,
            directory,
            unflushed: Vec::new(),
            life: Sequence(0),
            options,
            lock,
        };
        store.read_unflushed()?;
        store.record_opening(lost)?;
        store.fail_pending()?;
        Ok(store)
    }

    /// A named value that the engine keeps beside the registry.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        use rusqlite::OptionalExtension;
        let sql = "SELECT value FROM meta WHERE name = ?";
        Ok(self.db.query_row(sql, [name], |row| row.get(0)).optional()?)
    }

    /// Sets a named value, durably.
    pub fn set_meta(&self, name: &str, value: &[u8]) -> Result<()> {
        self.db.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
            rusqlite::params![name, value],
        )?;
        Ok(())
    }

    /// The registry in memory.
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Reads the journal beyond what the runs hold into the key index.
    fn read_unflushed(&mut self) -> Result<()> {
        let from = Sequence(self.index.older().covered() + 1);
        let (index, unflushed) = (&self.index, &mut self.unflushed);
        journal::scan(&self.db, from, |entry| {
            if let Some((key, state)) = settled_state(&entry.record) {
                let settled = Settled {
                    sequence: entry.sequence,
                    state,
                };
                index.restore(key, settled);
                unflushed.push(index::Entry { key, settled });
            }
            Ok(())
        })
    }

    fn record_opening(&mut self, lost_upto: Option<u64>) -> Result<()> {
        let first = self.end.sequence + 1;
        // Numbers of lost entries are never used again.
        let mut batch = Batch::starting_at(lost_upto.map_or(first, |last| last + 1));
        self.life = batch.push(&Record::Opened {
            version: self.options.version.as_str().into(),
        });
        if let Some(last) = lost_upto {
            batch.push(&Record::LossAccepted { first, last });
        }
        self.write(&batch, |_, _| Ok(()))
    }

    /// What was pending when the process died will never be delivered: its worker died with it (SEMANTICS 1.3).
    fn fail_pending(&mut self) -> Result<()> {
        let items = read_pending(&self.db)?;
        if items.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::starting_at(self.end.sequence + 1);
        let mut settled = Vec::with_capacity(items.len());
        let held = items.iter().filter_map(|(_, package)| *package);
        let releases = rows::releases(&self.db, held)?;
        for (item, _) in &items {
            let sequence = batch.push(&ItemRecord::Failed {
                item,
                code: Code::Restarted.wire(),
            });
            settled.push((
                item.fingerprint(),
                Settled {
                    sequence,
                    state: State::Failed,
                },
            ));
        }
        let first = batch.first();
        self.write(&batch, |db, at| {
            db.execute("DELETE FROM pending", [])?;
            rows::post(db, first, at, &releases)
        })?;
        for (key, settled) in settled {
            self.index.restore(key, settled);
            self.unflushed.push(index::Entry { key, settled });
        }
        Ok(())
    }

    fn write(
        &mut self,
        batch: &Batch,
        also: impl FnOnce(&Connection, UnixMillis) -> Result<()>,
    ) -> Result<()> {
        let at = (self.options.clock)();
        let point = batch.chain_point(&self.end);
        let change = self.db.transaction()?;
        batch.insert(&change, at, &point.chain)?;
        also(&change, at)?;
        change.commit()?;
        self.end = point;
        self.tail.note(point)
    }

    /// Starts the threads. `deliver` is called on the committing thread after each commit; `fatal` when the store
    /// has failed and the process must end.
    pub fn start(
        self,
        deliver: impl FnMut(Vec<Delivery<W>>) + Send + 'static,
        fatal: impl Fn(&StoreError) + Send + 'static,
    ) -> Result<StoreHandle<W>> {
        let (commands, receiver) = bounded(COMMANDS_MAX);
        let (background, commits) = bounded(COMMANDS_MAX);
        let full = Arc::new(AtomicBool::new(false));
        let restart_wal = Arc::new(AtomicBool::new(false));
        let second = Background {
            index: Arc::clone(&self.index),
            commits,
            db: Connection::open(database(&self.folder))?,
            tail: self.tail.syncer()?,
            flush_keys: self.options.flush_keys,
            restart_wal: Arc::clone(&restart_wal),
            last: self.end.sequence,
            collected: self.unflushed,
        };
        let books = rows::load(&self.db, &self.directory, (self.options.clock)())?;
        let committer = Committer {
            books,
            life: self.life,
            clock: self.options.clock,
            db: self.db,
            tail: self.tail,
            end: self.end,
            index: Arc::clone(&self.index),
            directory: Arc::clone(&self.directory),
            reserve: Reserve::take(&self.folder.join("reserve")),
            owed: Vec::new(),
            full: Arc::clone(&full),
            restart_wal,
            pace: Pace::default(),
            erased: Erased::default(),
            settled: Vec::new(),
            background,
            deliver: Box::new(deliver),
            fatal: Box::new(fatal),
        };
        let threads = vec![
            spawn("journal", move || committer.run(&receiver))?,
            spawn("store-tidy", move || second.run())?,
        ];
        Ok(StoreHandle {
            commands,
            index: self.index,
            directory: self.directory,
            full,
            database: database(&self.folder),
            threads: Mutex::new(threads),
            _lock: self.lock,
        })
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(StoreError::file(name))
}

fn database(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

fn settled_state(record: &Record) -> Option<(Fingerprint, State)> {
    let state = match record {
        Record::Signature { .. } => State::Done,
        Record::Pending { .. } => State::Pending,
        Record::Failed { .. } | Record::Discarded { .. } => State::Failed,
        _ => return None,
    };
    Some((record.item()?.fingerprint(), state))
}

/// Items that somebody was told are pending.
pub(crate) fn read_pending(db: &Connection) -> Result<Vec<(Item, Option<PackageRow>)>> {
    let mut statement = db.prepare("SELECT item, package FROM pending")?;
    let rows = statement.query_map([], |row| {
        let package = row.get::<_, Option<u32>>(1)?.map(PackageRow);
        Ok((row.get::<_, Vec<u8>>(0)?, package))
    })?;
    rows.map(|row| {
        let (bytes, package) = row?;
        let corrupt = |_| StoreError::Corrupt {
            sequence: 0,
            what: "a pending item cannot be read",
        };
        Ok((minicbor::decode(&bytes).map_err(corrupt)?, package))
    })
    .collect()
}

/// A running store.
#[derive(Debug)]
pub struct StoreHandle<W> {
    commands: Sender<Command>,
    index: Arc<KeyIndex<W>>,
    directory: Arc<Directory>,
    full: Arc<AtomicBool>,
    database: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: FolderLock,
}

impl<W> StoreHandle<W> {
    /// The key index.
    pub const fn index(&self) -> &Arc<KeyIndex<W>> {
        &self.index
    }

    /// The registry in memory.
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Whether the disk is full, so that new requests should be refused.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// A new view for reading.
    pub fn reader(&self) -> Result<Reader> {
        Reader::open(&self.database)
    }

    /// Hands drafts to the committing thread, waiting if it is far behind: for lane threads, not for a core.
    pub fn commit(&self, drafts: Vec<Draft>) -> Result<()> {
        self.commands
            .send(Command::Drafts(drafts))
            .map_err(|_| StoreError::Stopped)
    }

    /// Hands over drafts without waiting; gives them back if the committing thread is that far behind.
    pub fn try_commit(&self, drafts: Vec<Draft>) -> std::result::Result<(), Vec<Draft>> {
        self.commands
            .try_send(Command::Drafts(drafts))
            .map_err(|error| match error.into_inner() {
                Command::Drafts(drafts) => drafts,
                _ => Vec::new(),
            })
    }

    /// Hands over a time stamp to be recorded and charged, without waiting: whoever asked hears of it, also when the
    /// committing thread is too far behind.
    pub fn stamp(&self, draft: StampDraft) {
        let Err(error) = self.commands.try_send(Command::Stamp(draft)) else {
            return;
        };
        if let Command::Stamp(draft) = error.into_inner() {
            let text = "too many time stamps wait to be recorded";
            (draft.reply)(Err(Refusal::new(Code::Overloaded, text).retry_after_ms(100)));
        }
    }

    /// Hands over what was observed to be written, unless the committing thread is far behind; then false.
    pub fn record_minutes(&self, records: ObservedRecords) -> bool {
        self.commands.try_send(Command::Minutes(records)).is_ok()
    }

    /// Writes about messages and returns when it is durable.
    pub fn write_outbox(&self, writes: Vec<OutboxWrite>) -> Result<()> {
        let (reply, answer) = bounded(1);
        let command = Command::Outbox { writes, reply };
        self.commands.send(command).map_err(|_| StoreError::Stopped)?;
        answer.recv().map_err(|_| StoreError::Stopped)?
    }

    /// Hands over what is to be written about operations, without waiting; `reply` hears when it is durable, or why it is
    /// not. Called by the committing thread, so it must not wait itself.
    pub fn write_operations(
        &self,
        writes: Vec<OperationWrite>,
        reply: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let reply = Box::new(reply);
        let Err(error) = self.commands.try_send(Command::Operations { writes, reply }) else {
            return;
        };
        if let Command::Operations { reply, .. } = error.into_inner() {
            let text = "too much waits to be recorded";
            let refusal = Refusal::new(Code::Overloaded, text).retry_after_ms(100);
            reply(Err(StoreError::Refused(refusal)));
        }
    }

    /// Makes a change of the registry and returns when it is durable.
    pub fn change(&self, actor: &str, change: Change) -> Result<()> {
        self.changes(actor, vec![change])
    }

    /// Makes changes of the registry, all of them or none, at most [`CHANGES_MAX`] at a time.
    pub fn changes(&self, actor: &str, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        if changes.len() > CHANGES_MAX {
            let text = format!("at most {CHANGES_MAX} changes at a time");
            return Err(StoreError::Refused(Refusal::new(Code::BatchTooLarge, text)));
        }
        let (reply, answer) = bounded(1);
        let command = Command::Changes {
            actor: actor.to_owned(),
            changes,
            reply,
        };
        self.commands.send(command).map_err(|_| StoreError::Stopped)?;
        answer.recv().map_err(|_| StoreError::Stopped)?
    }

    /// Takes a piece of what is archived out of the database, between the commits of others. False: nothing of it is
    /// left there.
    pub fn trim_journal(&self) -> Result<bool> {
        let (reply, answer) = bounded(1);
        let sent = self.commands.send(Command::Trim { reply });
        sent.map_err(|_| StoreError::Stopped)?;
        answer.recv().map_err(|_| StoreError::Stopped)?
    }

    /// For rehearsals: the committing thread stands still for so long, at most a minute, with what it has in hand not
    /// written, as if the disk did not answer. False: it is too far behind already.
    pub fn stall(&self, long: Duration) -> bool {
        let long = long.min(STALL_MAX);
        self.commands.try_send(Command::Stall(long)).is_ok()
    }

    /// Batches waiting for the committing thread.
    pub fn backlog(&self) -> usize {
        self.commands.len()
    }

    /// Writes what has been handed over, and ends; nothing can be committed afterwards.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a store thread panicked");
            }
        }
    }
}
