//! The committing thread: the only writer. It takes whatever has piled up while it was writing, writes it as one
//! batch with one sync, and only then tells those who wait (DESIGN "durable before release").
//!
//! A crash before the commit: nobody got the signature, nobody pays, the key is absent.
//! A crash after it: the retry finds the entry, gets the same bytes, and pays once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{Sequence, TenantRow};
use protocol::seal::SealState;
use protocol::stages::{Mark, Marks};
use rusqlite::Connection;

use crate::archive;
use crate::background::{self, Committed};
use crate::directory::{App, Credential, Directory};
use crate::error::{Result, StoreError};
use crate::fence::Epoch;
use crate::index::{self, Delivery, KeyIndex, Outcome, Pending, Settled, State};
use crate::journal::Batch;
use crate::ledger::book::Books;
use crate::ledger::change::Moment;
use crate::ledger::{PackageRow, rows};
use crate::minutes::{self, ObservedRecords};
use crate::operations::{self, OperationWrite};
use crate::outbox::{self, OutboxWrite};
use crate::record::{DiscardReason, Fingerprint, Item, ItemRecord, Record, Released};
use crate::registry::{self, Change, Effect};
use crate::seals::SealUse;
use crate::seals::uses::SealTally;
use crate::space::Reserve;
use crate::stamps::StampDraft;
use crate::tail::{ChainPoint, Tail};
use crate::tenancy::TenantState;
use crate::usage::Tally;

/// One try to sign one item: admitted by the gate, carried through the pool, judged here.
#[derive(Debug)]
pub struct Attempt {
    /// Its key in the index.
    pub fingerprint: Fingerprint,
    /// What was asked.
    pub item: Item,
    /// Who asked, and the epoch under which that was allowed.
    pub app: (Arc<App>, Epoch),
    /// With which credential, and the epoch under which that was allowed.
    pub credential: (Arc<Credential>, Epoch),
    /// Under which seal, if under one.
    pub seal: Option<Box<SealUse>>,
    /// When a unit was held for it.
    pub held: HoldTime,
    /// How far it has come, and when.
    pub marks: Marks,
}

/// When a unit was held in memory, in Unix milliseconds; zero: not yet.
#[derive(Debug, Default)]
pub struct HoldTime(AtomicU64);

impl HoldTime {
    /// A unit is held from now on.
    pub fn set(&self, now: UnixMillis) {
        self.0.store(now.0, Ordering::Release);
    }

    /// The time that decides from which package the unit is paid.
    fn or(&self, now: UnixMillis) -> UnixMillis {
        match self.0.load(Ordering::Acquire) {
            0 => now,
            ms => UnixMillis(ms),
        }
    }
}

/// Something to be written about an attempt.
#[derive(Debug)]
pub enum Draft {
    /// It was signed.
    Signed(Arc<Attempt>, Released),
    /// Its caller has to be answered while it still runs.
    Pending(Arc<Attempt>),
    /// It failed after it was recorded as pending.
    Failed(Arc<Attempt>, Refusal),
}

impl Draft {
    const fn attempt(&self) -> &Arc<Attempt> {
        match self {
            Self::Signed(attempt, _) | Self::Pending(attempt) | Self::Failed(attempt, _) => attempt,
        }
    }
}

/// Hears whether something was written. Called by the committing thread, so it must not wait itself.
pub(crate) type OperationReply = Box<dyn FnOnce(Result<()>) + Send>;

/// What the committing thread is asked to do.
pub(crate) enum Command {
    Drafts(Vec<Draft>),
    Minutes(ObservedRecords),
    Outbox {
        writes: Vec<OutboxWrite>,
        reply: Sender<Result<()>>,
    },
    Operations {
        writes: Vec<OperationWrite>,
        reply: OperationReply,
    },
    Changes {
        actor: String,
        changes: Vec<Change>,
        reply: Sender<Result<()>>,
    },
    Stamp(StampDraft),
    /// Takes a piece of what is archived out of the database.
    Trim {
        reply: Sender<Result<bool>>,
    },
    /// Stands still for so long, as a disk does that does not answer.
    Stall(Duration),
    Stop,
}

/// Entries in one commit. Larger batches cost latency and save nothing more.
const BATCH_MAX: usize = 1024;
/// While so many entries and more come in the time of [`GATHER`], a commit waits that long for those that are on their
/// way, and looks now and then whether they have come: it costs as much for ten entries as for fifty, and so does telling
/// the cores.
const DENSE: f64 = 8.0;
const GATHER: Duration = Duration::from_millis(1);
const GATHER_LOOK: Duration = Duration::from_micros(250);
/// Settled keys that are handed to the background thread in one go, so that a commit does not wake it.
const SETTLED_MAX: usize = 1024;
/// Tries to empty the WAL at once, and how long each may wait for a reader: signatures wait as long.
const WAL_TRIES: usize = 10;
const WAL_PATIENCE: Duration = Duration::from_millis(20);
/// How long the writer waits for a lock otherwise, which is rusqlite's own value.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// The WAL is emptied at most so often, however much is erased: while it is, signatures wait.
const WAL_EMPTIED: Duration = Duration::from_secs(5);

/// How fast entries come.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
    per_second: f64,
}

impl Pace {
    /// Entries of a commit that began at `now`.
    fn note(&mut self, now: Instant, entries: usize) {
        if let Some(last) = self.last.replace(now) {
            let seconds = now.saturating_duration_since(last).as_secs_f64().max(1e-6);
            self.per_second += (entries as f64 / seconds - self.per_second) / 4.0;
        }
    }

    /// How long the next commit should wait for company.
    fn gather(&self) -> Option<Duration> {
        (self.per_second * GATHER.as_secs_f64() >= DENSE).then_some(GATHER)
    }
}

/// Whether the WAL holds what was destroyed, and when it was emptied last.
#[derive(Debug, Default)]
pub(crate) struct Erased {
    owed: bool,
    emptied: Option<Instant>,
}

impl Erased {
    /// Whether the WAL is to be emptied now.
    fn is_due(&self, now: Instant) -> bool {
        let since = |last: Instant| now.saturating_duration_since(last) >= WAL_EMPTIED;
        self.owed && self.emptied.is_none_or(since)
    }
}

pub(crate) struct Committer<W> {
    pub(crate) db: Connection,
    pub(crate) tail: Tail,
    pub(crate) end: ChainPoint,
    pub(crate) index: Arc<KeyIndex<W>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) books: Books,
    /// The entry with which this life of the engine began.
    pub(crate) life: Sequence,
    pub(crate) clock: fn() -> UnixMillis,
    pub(crate) reserve: Reserve,
    /// Failures that could not be recorded while the disk was full.
    pub(crate) owed: Vec<Draft>,
    pub(crate) full: Arc<AtomicBool>,
    pub(crate) restart_wal: Arc<AtomicBool>,
    pub(crate) pace: Pace,
    pub(crate) erased: Erased,
    /// Settled keys that the background thread has not been given yet.
    pub(crate) settled: Vec<index::Entry>,
    pub(crate) background: Sender<Committed>,
    pub(crate) deliver: Box<dyn FnMut(Vec<Delivery<W>>) + Send>,
    pub(crate) fatal: Box<dyn Fn(&StoreError) + Send>,
}

/// What a draft becomes, decided before anything is written.
enum Verdict {
    /// Released, and paid from a package where one is named.
    Sign(Option<PackageRow>),
    Discard(DiscardReason),
    /// Pending, with a unit held in a package.
    Pend(Option<PackageRow>),
    Fail,
}

/// A draft that is written.
struct Written {
    /// Its place among the drafts.
    place: usize,
    verdict: Verdict,
    sequence: Sequence,
    /// Whether its row among the pending items goes.
    clears_pending: bool,
}

/// A batch that is ready to be written.
struct Plan {
    at: UnixMillis,
    batch: Batch,
    tally: Tally,
    seals: SealTally,
    written: Vec<Written>,
}

impl<W: Clone> Committer<W> {
    /// Runs until told to stop, or until the store fails.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        self.lapse();
        let mut due = clock::monotonic() + HOUSEKEEPING;
        loop {
            let first = match commands.recv_deadline(due) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(command) = first
                && !self.take(command, commands)
            {
                return;
            }
            due = self.housekeep_if(due);
        }
    }

    /// Handles a command and what has piled up behind it. False: stop.
    fn take(&mut self, first: Command, commands: &Receiver<Command>) -> bool {
        let gather_until = self.pace.gather().map(|pause| clock::monotonic() + pause);
        let mut next = Some(first);
        let mut drafts = Vec::new();
        let mut stamps = Vec::new();
        while let Some(command) = next {
            match command {
                Command::Drafts(more) => drafts.extend(more),
                Command::Stamp(stamp) => stamps.push(stamp),
                Command::Changes {
                    actor,
                    changes,
                    reply,
                } => {
                    self.commit(std::mem::take(&mut drafts));
                    let result = self.change(&actor, changes);
                    // A package may be granted whose term is over.
                    self.lapse();
                    // Whoever asked may have gone; the change stands all the same.
                    let _ = reply.send(result);
                }
                Command::Minutes(records) => {
                    self.commit(std::mem::take(&mut drafts));
                    self.write_minutes(&records);
                }
                Command::Outbox { writes, reply } => {
                    self.commit(std::mem::take(&mut drafts));
                    // Whoever sends messages may have gone.
                    let _ = reply.send(self.write_outbox(&writes));
                }
                Command::Operations { writes, reply } => {
                    self.commit(std::mem::take(&mut drafts));
                    reply(self.write_operations(writes));
                }
                Command::Trim { reply } => {
                    self.commit(std::mem::take(&mut drafts));
                    let _ = reply.send(self.trim());
                }
                Command::Stall(long) => {
                    tracing::warn!(ms = long.as_millis() as u64, "the committing thread stands still");
                    std::thread::sleep(long);
                }
                Command::Stop => {
                    self.commit(drafts);
                    self.commit_stamps(stamps);
                    self.hand_over_settled();
                    return false;
                }
            }
            next = (drafts.len() + stamps.len() < BATCH_MAX)
                .then(|| self.next(commands, drafts.len(), gather_until))
                .flatten();
        }
        self.commit(drafts);
        self.commit_stamps(stamps);
        true
    }

    /// What has piled up; while entries come fast, also what is on its way.
    fn next(&self, commands: &Receiver<Command>, drafts: usize, until: Option<Instant>) -> Option<Command> {
        loop {
            if let Ok(command) = commands.try_recv() {
                return Some(command);
            }
            let in_time = until.is_some_and(|until| clock::monotonic() < until);
            if !in_time || drafts == 0 || self.index.running() <= drafts {
                return None;
            }
            std::thread::sleep(GATHER_LOOK);
        }
    }

    /// Writes drafts and tells those who wait.
    fn commit(&mut self, drafts: Vec<Draft>) {
        if drafts.is_empty() {
            return;
        }
        self.pace.note(clock::monotonic(), drafts.len());
        let plan = self.plan(&drafts);
        let point = plan.batch.chain_point(&self.end);
        let mut result = if plan.batch.is_empty() {
            Ok(())
        } else {
            self.write(&plan, &drafts, &point)
        };
        if result.as_ref().is_err_and(StoreError::is_full) {
            self.full.store(true, Ordering::Release);
            tracing::error!("the disk is full; new requests are refused");
            if self.reserve.give_up() {
                result = self.write(&plan, &drafts, &point);
            }
        }
        match result {
            Ok(()) => self.settle(plan, drafts, point),
            Err(error) if error.is_full() => {
                self.books.revert();
                plan.seals.revert();
                self.give_back(&drafts, &error.refusal());
            }
            Err(error) => (self.fatal)(&error),
        }
    }

    fn plan(&mut self, drafts: &[Draft]) -> Plan {
        let mut plan = Plan {
            at: (self.clock)(),
            batch: Batch::starting_at(self.end.sequence + 1),
            tally: Tally::default(),
            seals: SealTally::default(),
            written: Vec::with_capacity(drafts.len()),
        };
        for (place, draft) in drafts.iter().enumerate() {
            // The journal may have it already, or nobody asked: then there is nothing to write.
            let Some((verdict, pending)) = self.judge(draft, plan.at) else {
                continue;
            };
            let sequence = plan.record(draft, &verdict);
            let clears_pending = !matches!(verdict, Verdict::Pend(_)) && pending != Pending::No;
            plan.written.push(Written {
                place,
                verdict,
                sequence,
                clears_pending,
            });
        }
        plan
    }

    fn judge(&mut self, draft: &Draft, now: UnixMillis) -> Option<(Verdict, Pending)> {
        let attempt = draft.attempt();
        let key = attempt.fingerprint;
        Some(match draft {
            Draft::Pending(_) => match self.index.pendency(key)? {
                Pending::Recorded(_) => return None,
                pending => (Verdict::Pend(self.hold(attempt, now)), pending),
            },
            Draft::Failed(..) => {
                let pending = self.index.begin_commit(key)?;
                self.books.settle_hold(key, false);
                (Verdict::Fail, pending)
            }
            Draft::Signed(..) => {
                let pending = self.index.begin_commit(key)?;
                (self.pay(attempt, now), pending)
            }
        })
    }

    /// A finished signature is paid and released, or there is a reason why not. Nothing is charged on a sandbox.
    fn pay(&mut self, attempt: &Attempt, now: UnixMillis) -> Verdict {
        let (app, key) = (&attempt.app.0, attempt.fingerprint);
        if let Some(reason) = revoked(attempt, now) {
            self.books.settle_hold(key, false);
            return Verdict::Discard(reason);
        }
        if app.environment.is_sandbox() {
            return Verdict::Sign(None);
        }
        let held = self.books.settle_hold(key, true);
        let paid = held.or_else(|| self.books.pay(app.tenant.row, attempt.held.or(now)));
        paid.map_or(Verdict::Discard(DiscardReason::Balance), |package| {
            Verdict::Sign(Some(package))
        })
    }

    fn hold(&mut self, attempt: &Attempt, now: UnixMillis) -> Option<PackageRow> {
        let app = &attempt.app.0;
        if app.environment.is_sandbox() {
            return None;
        }
        self.books
            .hold(attempt.fingerprint, app.tenant.row, attempt.held.or(now))
    }

    fn write(&mut self, plan: &Plan, drafts: &[Draft], point: &ChainPoint) -> Result<()> {
        let change = self.db.transaction()?;
        plan.batch.insert(&change, plan.at, &point.chain)?;
        plan.tally.write(&change, plan.at)?;
        plan.seals.write(&change, plan.at)?;
        rows::post(&change, plan.batch.first(), plan.at, self.books.moved())?;
        for written in &plan.written {
            write_pending(&change, written, drafts[written.place].attempt())?;
        }
        Ok(change.commit()?)
    }

    /// The batch is durable: remember it, then release it.
    fn settle(&mut self, plan: Plan, drafts: Vec<Draft>, point: ChainPoint) {
        self.books.settle(plan.at);
        if !plan.batch.is_empty() {
            self.end = point;
            if let Err(error) = self.tail.note(point) {
                (self.fatal)(&error);
                return;
            }
        }
        let mut deliveries = Vec::with_capacity(plan.written.len());
        let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
        let durable = clock::monotonic();
        for Written {
            place,
            verdict,
            sequence,
            ..
        } in plan.written
        {
            let Some(draft) = drafts[place].take() else {
                continue;
            };
            let key = draft.attempt().fingerprint;
            if let Draft::Signed(attempt, _) = &draft {
                attempt.marks.set(Mark::Committed, durable);
            }
            let (state, outcome) = outcome(&verdict, draft, sequence);
            let waiters = match state {
                State::Pending => self.index.mark_pending(key, sequence),
                _ => self.index.settle(key, Settled { sequence, state }),
            };
            self.settled.push(index::Entry {
                key,
                settled: Settled { sequence, state },
            });
            deliver_to(&mut deliveries, waiters, outcome);
        }
        (self.deliver)(deliveries);
        if self.settled.len() >= SETTLED_MAX {
            self.hand_over_settled();
        }
    }

    /// The background thread lags only when the disk does; then waiting here is the back-pressure.
    fn hand_over_settled(&mut self) {
        if self.settled.is_empty() {
            return;
        }
        let _ = self.background.send(Committed {
            keys: std::mem::take(&mut self.settled),
            last: self.end.sequence,
        });
    }

    /// Nothing could be written: every key is free again, and its waiters hear why. What is on disk as pending
    /// will be recorded as failed when there is room.
    fn give_back(&mut self, drafts: &[Draft], refusal: &Refusal) {
        let mut deliveries = Vec::new();
        for draft in drafts {
            let (waiters, owed) = self.index.give_back(draft.attempt().fingerprint);
            deliver_to(&mut deliveries, waiters, Outcome::Failed(refusal.clone()));
            if owed {
                self.owed
                    .push(Draft::Failed(Arc::clone(draft.attempt()), refusal.clone()));
            }
        }
        (self.deliver)(deliveries);
    }

    fn change(&mut self, actor: &str, changes: Vec<Change>) -> Result<()> {
        let result = self.write_changes(actor, changes);
        match &result {
            Err(StoreError::Refused(_)) | Ok(()) => {}
            Err(error) if error.is_full() => self.full.store(true, Ordering::Release),
            Err(error) => (self.fatal)(error),
        }
        result
    }

    /// All of them in one transaction, or none; each with an entry of its own.
    fn write_changes(&mut self, actor: &str, changes: Vec<Change>) -> Result<()> {
        let at = (self.clock)();
        let mut batch = Batch::starting_at(self.end.sequence + 1);
        let moment = Moment {
            at,
            batch: batch.first(),
        };
        let mut effects = Vec::with_capacity(changes.len());
        let transaction = self.db.transaction()?;
        for change in changes {
            let (action, subject) = change.describe();
            batch.push(&Record::Change {
                actor: actor.into(),
                action: action.into(),
                subject: subject.into(),
            });
            effects.push(registry::apply(&transaction, &self.directory, moment, change)?);
        }
        let point = batch.chain_point(&self.end);
        batch.insert(&transaction, at, &point.chain)?;
        transaction.commit()?;
        self.end = point;
        self.tail.note(point)?;
        let tenants: BTreeSet<_> = effects.iter().filter_map(Effect::books_of).collect();
        if let Some(archived) = effects.iter().filter_map(Effect::archived).max() {
            self.index.forget_upto(archived)?;
        }
        let destroyed = effects.iter().any(Effect::destroys);
        effects
            .into_iter()
            .for_each(|effect| effect.take(&self.directory));
        self.erased.owed |= destroyed;
        self.empty_wal_if_due();
        self.read_books(&tenants, at)
    }

    /// At once for what is destroyed now and then, and later where much is.
    fn empty_wal_if_due(&mut self) {
        let now = clock::monotonic();
        if self.erased.is_due(now) {
            self.empty_wal();
            self.erased = Erased {
                owed: false,
                emptied: Some(now),
            };
        }
    }

    /// What was destroyed is still in the WAL until that begins anew. Readers may keep it from that for a while; then the
    /// next checkpoint does it.
    fn empty_wal(&self) {
        let _ = self.db.busy_timeout(WAL_PATIENCE);
        let try_once = |_| {
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy = self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
            matches!(busy, Ok(0))
        };
        let emptied = (0..WAL_TRIES).any(try_once);
        let _ = self.db.busy_timeout(BUSY_PATIENCE);
        if !emptied {
            tracing::warn!(
                "a reader keeps the WAL, which still holds what was destroyed; it is overwritten by and by"
            );
        }
    }

    fn trim(&mut self) -> Result<bool> {
        let result = archive::trim(&self.db);
        match &result {
            Ok(_) => {}
            Err(error) if error.is_full() => self.full.store(true, Ordering::Release),
            Err(error) => (self.fatal)(error),
        }
        result
    }

    pub(crate) fn read_books(&mut self, tenants: &BTreeSet<TenantRow>, now: UnixMillis) -> Result<()> {
        if tenants.is_empty() {
            return Ok(());
        }
        for tenant in self.directory.tenants() {
            if tenants.contains(&tenant.row) {
                self.books
                    .put(&tenant, rows::read_held(&self.db, tenant.row)?, now);
            }
        }
        Ok(())
    }

    /// Lets lapse what has to, and sees to packages that have begun or ended.
    fn lapse(&mut self) {
        match self.write_lapses((self.clock)()) {
            Ok(()) => {}
            Err(error) if error.is_full() => self.full.store(true, Ordering::Release),
            Err(error) => (self.fatal)(&error),
        }
    }

    fn write_lapses(&mut self, now: UnixMillis) -> Result<()> {
        let turned = self.books.turned(now);
        let mut batch = Batch::starting_at(self.end.sequence + 1);
        let mut lapses = Vec::new();
        for tenant in &turned {
            for lapse in self.books.lapses(tenant.row, now) {
                batch.push(&Record::Change {
                    actor: "engine".into(),
                    action: "package.lapse".into(),
                    subject: format!("{} {} units={}", tenant.name, lapse.package.0, lapse.units).into(),
                });
                lapses.push(lapse);
            }
        }
        if !lapses.is_empty() {
            let point = batch.chain_point(&self.end);
            let transaction = self.db.transaction()?;
            batch.insert(&transaction, now, &point.chain)?;
            rows::post(&transaction, batch.first(), now, &lapses)?;
            transaction.commit()?;
            self.end = point;
            self.tail.note(point)?;
        }
        let tenants = turned.iter().map(|tenant| tenant.row).collect();
        self.read_books(&tenants, now)
    }

    /// Minutes are written for themselves; what cannot be written now is written with the next ones.
    fn write_minutes(&mut self, records: &ObservedRecords) {
        let mut write = || -> Result<()> {
            let transaction = self.db.transaction()?;
            minutes::write(&transaction, self.life.0, (self.clock)(), records)?;
            Ok(transaction.commit()?)
        };
        match write() {
            Ok(()) => {}
            Err(error) if error.is_full() => self.full.store(true, Ordering::Release),
            Err(error) => (self.fatal)(&error),
        }
    }

    /// Messages are written for themselves, too; whoever sends them hears whether they were.
    fn write_outbox(&mut self, writes: &[OutboxWrite]) -> Result<()> {
        let mut write = || -> Result<()> {
            let transaction = self.db.transaction()?;
            outbox::write(&transaction, clock::wall(), writes)?;
            Ok(transaction.commit()?)
        };
        let result = write();
        match &result {
            Ok(()) | Err(StoreError::Refused(_)) => {}
            Err(error) if error.is_full() => self.full.store(true, Ordering::Release),
            Err(error) => (self.fatal)(error),
        }
        result
    }

    /// So is what is known of operations.
    fn write_operations(&mut self, writes: Vec<OperationWrite>) -> Result<()> {
        let now = (self.clock)();
        let write = || -> Result<()> {
            let transaction = self.db.transaction()?;
            operations::write(&transaction, &self.directory, now, writes)?;
            Ok(transaction.commit()?)
        };
        let result = write();
        match &result {
            Ok(()) | Err(StoreError::Refused(_)) => {}
            Err(error) if error.is_full() => self.full.store(true, Ordering::Release),
            Err(error) => (self.fatal)(error),
        }
        result
    }

    fn housekeep_if(&mut self, due: Instant) -> Instant {
        if self.restart_wal.swap(false, Ordering::AcqRel)
            && let Err(error) = background::checkpoint(&self.db)
        {
            tracing::warn!(%error, "checkpoint");
        }
        if clock::monotonic() < due {
            return due;
        }
        if self.full.load(Ordering::Acquire) && self.has_room() {
            self.full.store(false, Ordering::Release);
            tracing::info!("there is room on the disk again");
            let owed = std::mem::take(&mut self.owed);
            self.commit(owed);
        }
        self.lapse();
        self.hand_over_settled();
        self.empty_wal_if_due();
        clock::monotonic() + HOUSEKEEPING
    }

    /// Whether the reserve fits and a commit goes through.
    fn has_room(&mut self) -> bool {
        self.reserve.retake() && self.db.execute("INSERT INTO probe DEFAULT VALUES", []).is_ok() && {
            // The probe row is only there to be written.
            self.db.execute("DELETE FROM probe", []).is_ok()
        }
    }
}

impl Plan {
    /// Adds the entry for a draft and returns its sequence number.
    fn record(&mut self, draft: &Draft, verdict: &Verdict) -> Sequence {
        let attempt = draft.attempt();
        let item = &attempt.item;
        match (verdict, draft) {
            (Verdict::Sign(package), Draft::Signed(_, released)) => {
                self.tally.count(item.app, item.credential);
                let sequence = self.batch.push(&ItemRecord::Signature {
                    item,
                    sealed: &released.sealed,
                    package: package.map(|package| package.0),
                    sha256: released.sha256,
                });
                if let Some(used) = &attempt.seal {
                    self.seals.count(used, item, sequence);
                }
                sequence
            }
            (Verdict::Discard(reason), _) => self.batch.push(&ItemRecord::Discarded {
                item,
                reason: *reason,
            }),
            (_, Draft::Failed(_, refusal)) => self.batch.push(&ItemRecord::Failed {
                item,
                code: refusal.code.wire(),
            }),
            _ => self.batch.push(&ItemRecord::Pending { item }),
        }
    }
}

/// Why a finished signature must not be released, if there is a reason: something was revoked, and that was committed
/// before it.
fn revoked(attempt: &Attempt, now: UnixMillis) -> Option<DiscardReason> {
    let (app, app_epoch) = &attempt.app;
    let (credential, credential_epoch) = &attempt.credential;
    if app.tenant.standing.state() != TenantState::Active {
        return Some(DiscardReason::Tenant);
    }
    if !app.fence.holds(*app_epoch) {
        return Some(DiscardReason::App);
    }
    if !credential.fence.holds(*credential_epoch) {
        return Some(DiscardReason::Credential);
    }
    if credential.certificate.check(now).is_err() {
        return Some(DiscardReason::Certificate);
    }
    attempt.seal.as_ref()?.lost(now)
}

/// Keeps the table of pending items in step: what a crash leaves in it is failed at the next start.
fn write_pending(db: &Connection, written: &Written, attempt: &Attempt) -> Result<()> {
    if let Verdict::Pend(package) = written.verdict {
        let item = minicbor::to_vec(&attempt.item).expect("writing to a Vec cannot fail");
        let package = package.map(|package| package.0);
        db.prepare_cached("INSERT OR REPLACE INTO pending (key, item, package) VALUES (?, ?, ?)")?
            .execute(rusqlite::params![attempt.fingerprint.0, item, package])?;
    } else if written.clears_pending {
        db.prepare_cached("DELETE FROM pending WHERE key = ?")?
            .execute([attempt.fingerprint.0])?;
    }
    Ok(())
}

/// What the waiters hear.
fn outcome(verdict: &Verdict, draft: Draft, sequence: Sequence) -> (State, Outcome) {
    match (verdict, draft) {
        (Verdict::Sign(_), Draft::Signed(_, released)) => {
            let signature = released.signature;
            (State::Done, Outcome::Done { sequence, signature })
        }
        (Verdict::Discard(reason), draft) => (
            State::Failed,
            Outcome::Failed(discarded(*reason, draft.attempt())),
        ),
        (_, Draft::Failed(_, refusal)) => (State::Failed, Outcome::Failed(refusal)),
        _ => (State::Pending, Outcome::Pending),
    }
}

fn deliver_to<W>(deliveries: &mut Vec<Delivery<W>>, mut waiters: index::Waiters<W>, outcome: Outcome) {
    let Some(last) = waiters.pop() else { return };
    for waiter in waiters {
        deliveries.push(Delivery {
            waiter,
            outcome: outcome.clone(),
        });
    }
    deliveries.push(Delivery {
        waiter: last,
        outcome,
    });
}

fn discarded(reason: DiscardReason, attempt: &Attempt) -> Refusal {
    match reason {
        DiscardReason::App => Refusal::new(Code::AppRevoked, "the app was revoked while the request ran"),
        DiscardReason::Credential => Refusal::new(
            Code::CredentialDisabled,
            "the credential was disabled while the request ran",
        ),
        DiscardReason::Certificate => Refusal::new(
            Code::CertificateExpired,
            "the credential's certificate was not valid any more when the signature was recorded",
        ),
        DiscardReason::Tenant => match attempt.app.0.tenant.standing.state() {
            TenantState::Closed => {
                Refusal::new(Code::TenantClosed, "the tenant was closed while the request ran")
            }
            _ => Refusal::new(
                Code::TenantSuspended,
                "the tenant was suspended while the request ran",
            ),
        },
        DiscardReason::Balance => attempt.app.0.tenant.account.exhausted(),
        DiscardReason::Seal => {
            let revoked = attempt.seal.as_ref().map(|used| used.seal.0.state()) == Some(SealState::Revoked);
            let (code, text) = match revoked {
                true => (Code::SealRevoked, "the seal was revoked while the request ran"),
                false => (Code::SealFrozen, "the seal was frozen while the request ran"),
            };
            Refusal::new(code, text)
        }
        DiscardReason::Grant => {
            Refusal::new(Code::GrantRevoked, "the grant was revoked while the request ran")
        }
        DiscardReason::SealTime => Refusal::new(
            Code::GrantExpired,
            "the seal or its grant did not count any more when the signature was recorded",
        ),
        DiscardReason::GrantUses => Refusal::new(
            Code::GrantUsedUp,
            "others have used the grant up while the request ran",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_wait_for_company_only_while_there_is_some() {
        let mut pace = Pace::default();
        let mut now = clock::monotonic();
        let mut come = |pace: &mut Pace, entries: usize| {
            for _ in 0..50 {
                now += Duration::from_millis(2);
                pace.note(now, entries);
            }
        };
        assert_eq!(pace.gather(), None);
        come(&mut pace, 2);
        assert_eq!(pace.gather(), None, "a thousand a second");
        come(&mut pace, 40);
        assert_eq!(pace.gather(), Some(GATHER), "twenty thousand a second");
        come(&mut pace, 2);
        assert_eq!(pace.gather(), None);
    }
}
