//! Operations on documents: what is asked once and takes several steps, so that a retry, a restart or a crash in between
//! brings the same document and charges nothing twice. A *call* is one document whose answer is awaited; a *job* is many,
//! whose bytes lie in files of their own (`engine/src/blobs.rs`).
//!
//! Signatures are not here: the journal has them, by the operation's idempotency key and the number of the signature.
//! What cannot be asked for again with the same answer is: the time that a document states, the certificates it was
//! prepared for, time stamps and validation data.

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{AppRow, TenantRow};
use rusqlite::{Connection, OptionalExtension, params};

use crate::directory::Directory;
use crate::error::{Result, StoreError};
use crate::registry::{corrupt, refuse};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE operation (
        row     INTEGER PRIMARY KEY,  -- random; names it in its URL and its folder
        tenant  INTEGER NOT NULL REFERENCES tenant,
        app     INTEGER NOT NULL REFERENCES app,
        key     TEXT NOT NULL,        -- the idempotency key
        request BLOB NOT NULL,        -- SHA-256 of what makes the request the same
        state   INTEGER NOT NULL,     -- 0 open, 1 running, 2 ended, 3 cancelled
        plan    BLOB,                 -- a job's order, wrapped under the tenant's key; NULL: a call, whose caller has it
        items   INTEGER NOT NULL,     -- documents
        created_ms INTEGER NOT NULL,
        until_ms INTEGER NOT NULL,    -- erased then
        UNIQUE (app, key)
    );
    CREATE INDEX operation_running ON operation (created_ms) WHERE plan IS NOT NULL;
    CREATE INDEX operation_until ON operation (until_ms);
    CREATE TABLE operation_item (
        operation INTEGER NOT NULL REFERENCES operation,
        item    INTEGER NOT NULL,     -- counted from 0
        state   INTEGER NOT NULL,     -- 0 waiting, 1 done, 2 failed, 3 cancelled
        at_ms   INTEGER,              -- the time that the document states; NULL: not begun
        chains  BLOB,                 -- SHA-256 of the certificate chain of each signature
        data_key BLOB,                -- the document's own key, wrapped under the tenant's; NULL: nothing of it is kept
        bytes   INTEGER,              -- of the document
        sha256  BLOB,                 -- of the document
        result_bytes INTEGER,         -- of the sealed document
        code    INTEGER,              -- why it failed
        detail  TEXT,
        PRIMARY KEY (operation, item)
    ) WITHOUT ROWID;
    CREATE TABLE operation_step (     -- answers that have to be the same at every try, wrapped under the tenant's key
        operation INTEGER NOT NULL REFERENCES operation,
        item    INTEGER NOT NULL,
        step    INTEGER NOT NULL,
        answer  BLOB NOT NULL,
        PRIMARY KEY (operation, item, step)
    ) WITHOUT ROWID;
    CREATE TABLE operation_chain (    -- certificate chains that documents were prepared for
        sha256  BLOB PRIMARY KEY,
        chain   BLOB NOT NULL         -- CBOR array of certificates, DER, the credential's own first
    ) WITHOUT ROWID;
";

/// Documents in one job.
pub const OPERATION_ITEMS_MAX: u32 = 1_000;
/// Open and running jobs of one tenant.
pub const JOBS_OPEN_MAX: u32 = 64;
/// Bytes of the documents in a tenant's jobs, together.
pub const JOB_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes of the reason of a failure.
const DETAIL_BYTES_MAX: usize = 500;

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// Its documents are still being uploaded; a call is open for as long as it exists.
    Open,
    /// Its documents are being worked on.
    Running,
    /// Every document has its outcome.
    Ended,
    /// What had not begun when that was ordered is not done.
    Cancelled,
}

impl OperationState {
    const ALL: [Self; 4] = [Self::Open, Self::Running, Self::Ended, Self::Cancelled];

    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_number(number: u8) -> Result<Self> {
        let known = Self::ALL.get(usize::from(number)).copied();
        known.ok_or_else(|| corrupt("the state of an operation"))
    }
}

/// Where one document of an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// It has no outcome.
    Waiting,
    /// It was sealed.
    Done,
    /// It was refused, or failed.
    Failed,
    /// The operation was cancelled before its turn.
    Cancelled,
}

impl ItemState {
    const ALL: [Self; 4] = [Self::Waiting, Self::Done, Self::Failed, Self::Cancelled];

    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_number(number: u8) -> Result<Self> {
        let known = Self::ALL.get(usize::from(number)).copied();
        known.ok_or_else(|| corrupt("the state of a document of an operation"))
    }
}

/// A new operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOperation {
    /// Its number, random and positive.
    pub row: i64,
    /// Whose.
    pub tenant: TenantRow,
    /// Which app asked.
    pub app: AppRow,
    /// The idempotency key.
    pub key: String,
    /// What makes the request the same.
    pub request: [u8; 32],
    /// A job's order, wrapped under the tenant's key; `None`: a call.
    pub plan: Option<Vec<u8>>,
    /// Documents.
    pub items: u32,
    /// When it is erased.
    pub until: UnixMillis,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// What was asked.
    pub new: NewOperation,
    /// Where it stands.
    pub state: OperationState,
    /// When it was made.
    pub created: UnixMillis,
}

/// One document of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationItem {
    /// Its number, counted from 0.
    pub item: u32,
    /// Where it stands.
    pub state: ItemState,
    /// The time that the document states, and SHA-256 of the chain of each signature, once it has begun.
    pub begun: Option<(UnixMillis, Vec<[u8; 32]>)>,
    /// The document's own key, wrapped under the tenant's.
    pub data_key: Option<Vec<u8>>,
    /// Bytes and SHA-256 of the document.
    pub document: Option<(u64, [u8; 32])>,
    /// Bytes of the sealed document.
    pub result_bytes: Option<u64>,
    /// Why it failed.
    pub failure: Option<(Code, String)>,
}

/// How many documents of an operation stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Uploaded, without an outcome.
    pub waiting: u32,
    /// Sealed.
    pub done: u32,
    /// Failed.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
}

impl OperationCounts {
    /// All that were uploaded.
    pub const fn uploaded(&self) -> u32 {
        self.waiting + self.done + self.failed + self.cancelled
    }
}

/// Names one document of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemName {
    /// The operation's number in the store.
    pub operation: i64,
    /// The document's number, counted from 0.
    pub item: u32,
}

/// An answer that has to be the same at every try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptStep {
    /// Of which document.
    pub of: ItemName,
    /// Which step, counted from 0.
    pub step: u32,
    /// The answer, wrapped under the tenant's key.
    pub answer: Vec<u8>,
}

/// Something to be written about operations, without an entry in the journal.
#[derive(Clone, Debug)]
pub enum OperationWrite {
    /// A new operation; one that exists under the same key stays as it is.
    Open(NewOperation),
    /// A document was uploaded, again perhaps.
    Upload {
        /// Which.
        of: ItemName,
        /// Its own key, wrapped under the tenant's.
        data_key: Vec<u8>,
        /// Its bytes.
        bytes: u64,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
    /// A document is prepared for this time and these certificates from now on.
    Begin {
        /// Which.
        of: ItemName,
        /// The time that it states.
        at: UnixMillis,
        /// The chain of each signature.
        chains: Vec<Vec<Vec<u8>>>,
    },
    /// An answer that is kept.
    Keep(KeptStep),
    /// Every document was uploaded.
    Start {
        /// The operation.
        operation: i64,
    },
    /// What has not begun is not done.
    Cancel {
        /// The operation.
        operation: i64,
    },
    /// A document has its outcome.
    Finish {
        /// Which.
        of: ItemName,
        /// Bytes of the result, or why there is none.
        outcome: std::result::Result<u64, (Code, String)>,
    },
    /// Its time is over, and its files are gone.
    Erase {
        /// The operation.
        operation: i64,
    },
}

/// SHA-256 of a chain as it is kept.
pub fn chain_digest(chain: &[Vec<u8>]) -> [u8; 32] {
    crate::record::sha256(&encode_chain(chain))
}

fn encode_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut out);
    let written = encoder.array(chain.len() as u64).and_then(|encoder| {
        chain
            .iter()
            .try_for_each(|certificate| encoder.bytes(certificate).map(drop))
    });
    written.expect("writing to a Vec cannot fail");
    out
}

fn decode_chain(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let unreadable = |_| corrupt("a chain of certificates cannot be read");
    let mut decoder = minicbor::Decoder::new(bytes);
    let chain = decoder
        .array_iter::<minicbor::bytes::ByteVec>()
        .map_err(unreadable)?;
    chain.map(|one| one.map(Into::into).map_err(unreadable)).collect()
}

/// Writes into the open transaction.
pub(crate) fn write(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    writes: Vec<OperationWrite>,
) -> Result<()> {
    writes
        .into_iter()
        .try_for_each(|write| apply(db, directory, at, write))
}

fn apply(db: &Connection, directory: &Directory, now: UnixMillis, write: OperationWrite) -> Result<()> {
    match write {
        OperationWrite::Open(new) => open(db, directory, now, &new),
        OperationWrite::Upload {
            of,
            data_key,
            bytes,
            sha256,
        } => upload(db, of, &data_key, (bytes, &sha256)),
        OperationWrite::Begin { of, at, chains } => begin(db, of, at, &chains),
        OperationWrite::Keep(step) => keep(db, &step),
        OperationWrite::Start { operation } => start(db, operation),
        OperationWrite::Cancel { operation } => cancel(db, operation),
        OperationWrite::Finish { of, outcome } => finish(db, of, outcome),
        OperationWrite::Erase { operation } => erase(db, operation),
    }
}

fn open(db: &Connection, directory: &Directory, now: UnixMillis, new: &NewOperation) -> Result<()> {
    // A tenant that was destroyed meanwhile gets nothing new that its key would have to protect.
    let tenants = directory.tenants();
    let tenant = tenants.iter().find(|tenant| tenant.row == new.tenant);
    if tenant.is_none_or(|tenant| tenant.data_key().is_none()) {
        return Err(refuse(
            Code::TenantClosed,
            "the tenant's key was destroyed".into(),
        ));
    }
    if new.plan.is_some() {
        check_jobs(db, new)?;
    }
    let sql = "INSERT OR IGNORE INTO operation (row, tenant, app, key, request, state, plan, items, created_ms, until_ms) \
               VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?)";
    db.prepare_cached(sql)?.execute(params![
        new.row,
        new.tenant.0,
        new.app.0,
        new.key,
        new.request,
        new.plan,
        new.items,
        now.0.cast_signed(),
        new.until.0.cast_signed()
    ])?;
    Ok(())
}

fn check_jobs(db: &Connection, new: &NewOperation) -> Result<()> {
    let sql = "SELECT count(*) FROM operation WHERE tenant = ? AND state < 2 AND plan IS NOT NULL AND NOT (app = ? AND key = ?)";
    let open: u32 = db
        .prepare_cached(sql)?
        .query_row(params![new.tenant.0, new.app.0, new.key], |row| row.get(0))?;
    if open >= JOBS_OPEN_MAX {
        let text =
            format!("the tenant has {JOBS_OPEN_MAX} jobs that have not ended; start or cancel one of them");
        return Err(refuse(Code::WrongState, text));
    }
    Ok(())
}

fn state_of(db: &Connection, operation: i64) -> Result<(OperationState, u32)> {
    let sql = "SELECT state, items FROM operation WHERE row = ?";
    let found = db
        .prepare_cached(sql)?
        .query_row([operation], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (state, items): (u8, u32) =
        found.ok_or_else(|| refuse(Code::NotFound, "no such operation".into()))?;
    Ok((OperationState::from_number(state)?, items))
}

fn upload(db: &Connection, of: ItemName, data_key: &[u8], (bytes, sha256): (u64, &[u8; 32])) -> Result<()> {
    let (state, items) = state_of(db, of.operation)?;
    if state != OperationState::Open {
        let text = format!(
            "the operation is {}; documents are taken while it is open",
            state.name()
        );
        return Err(refuse(Code::WrongState, text));
    }
    if of.item >= items {
        let text = format!("the operation has {items} documents, counted from 0");
        return Err(refuse(Code::NotFound, text));
    }
    let sql = "SELECT coalesce(sum(i.bytes), 0) FROM operation_item i JOIN operation o ON o.row = i.operation \
               WHERE o.tenant = (SELECT tenant FROM operation WHERE row = ?1) AND NOT (i.operation = ?1 AND i.item = ?2)";
    let kept: i64 = db
        .prepare_cached(sql)?
        .query_row(params![of.operation, of.item], |row| row.get(0))?;
    if kept.cast_unsigned().saturating_add(bytes) > JOB_BYTES_MAX {
        let text = format!("the documents of a tenant's jobs have at most {JOB_BYTES_MAX} bytes together");
        return Err(refuse(Code::TooLarge, text));
    }
    let sql = "INSERT OR REPLACE INTO operation_item (operation, item, state, data_key, bytes, sha256) \
               VALUES (?, ?, 0, ?, ?, ?)";
    db.prepare_cached(sql)?.execute(params![
        of.operation,
        of.item,
        data_key,
        bytes.cast_signed(),
        sha256
    ])?;
    Ok(())
}

fn begin(db: &Connection, of: ItemName, at: UnixMillis, chains: &[Vec<Vec<u8>>]) -> Result<()> {
    // It may have been erased meanwhile, or cancelled: nothing is signed before this is written.
    state_of(db, of.operation)?;
    if item(db, of)?.is_some_and(|item| item.state != ItemState::Waiting) {
        let text = "the operation was cancelled before its turn";
        return Err(refuse(Code::OperationCancelled, text.into()));
    }
    let mut digests = Vec::with_capacity(32 * chains.len());
    for chain in chains {
        let encoded = encode_chain(chain);
        let digest = crate::record::sha256(&encoded);
        let sql = "INSERT OR IGNORE INTO operation_chain (sha256, chain) VALUES (?, ?)";
        db.prepare_cached(sql)?.execute(params![digest, encoded])?;
        digests.extend_from_slice(&digest);
    }
    let sql = "INSERT INTO operation_item (operation, item, state, at_ms, chains) VALUES (?1, ?2, 0, ?3, ?4) \
               ON CONFLICT (operation, item) DO UPDATE SET at_ms = ?3, chains = ?4";
    db.prepare_cached(sql)?
        .execute(params![of.operation, of.item, at.0.cast_signed(), digests])?;
    let sql = "DELETE FROM operation_step WHERE operation = ? AND item = ?";
    db.prepare_cached(sql)?.execute(params![of.operation, of.item])?;
    Ok(())
}

/// Also in the commit that records and charges a time stamp.
pub(crate) fn keep(db: &Connection, step: &KeptStep) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO operation_step (operation, item, step, answer) \
               SELECT row, ?, ?, ? FROM operation WHERE row = ?";
    db.prepare_cached(sql)?
        .execute(params![step.of.item, step.step, step.answer, step.of.operation])?;
    Ok(())
}

fn start(db: &Connection, operation: i64) -> Result<()> {
    let (state, items) = state_of(db, operation)?;
    match state {
        // Whoever asks again hears the same.
        OperationState::Running | OperationState::Ended => return Ok(()),
        OperationState::Cancelled => {
            return Err(refuse(Code::WrongState, "the operation is cancelled".into()));
        }
        OperationState::Open => {}
    }
    let uploaded = counts(db, operation)?.uploaded();
    if uploaded < items {
        let text = format!("{uploaded} of {items} documents are uploaded");
        return Err(refuse(Code::WrongState, text));
    }
    db.prepare_cached("UPDATE operation SET state = 1 WHERE row = ?")?
        .execute([operation])?;
    Ok(())
}

fn cancel(db: &Connection, operation: i64) -> Result<()> {
    let (state, _) = state_of(db, operation)?;
    if matches!(state, OperationState::Ended | OperationState::Cancelled) {
        return Ok(());
    }
    db.prepare_cached("UPDATE operation SET state = 3 WHERE row = ?")?
        .execute([operation])?;
    // What has begun may be signed already; it goes on to its outcome.
    let sql = "UPDATE operation_item SET state = 3 WHERE operation = ? AND state = 0 AND at_ms IS NULL";
    db.prepare_cached(sql)?.execute([operation])?;
    Ok(())
}

fn finish(db: &Connection, of: ItemName, outcome: std::result::Result<u64, (Code, String)>) -> Result<()> {
    match outcome {
        Ok(bytes) => {
            let sql = "UPDATE operation_item SET state = 1, result_bytes = ? WHERE operation = ? AND item = ? AND state = 0";
            db.prepare_cached(sql)?
                .execute(params![bytes.cast_signed(), of.operation, of.item])?;
        }
        Err((code, detail)) => {
            let detail = &detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)];
            let sql = "UPDATE operation_item SET state = 2, code = ?, detail = ? WHERE operation = ? AND item = ? AND state = 0";
            db.prepare_cached(sql)?
                .execute(params![code.wire(), detail, of.operation, of.item])?;
        }
    }
    let sql = "UPDATE operation SET state = 2 WHERE row = ?1 AND state = 1 \
               AND NOT EXISTS (SELECT 1 FROM operation_item WHERE operation = ?1 AND state = 0)";
    db.prepare_cached(sql)?.execute([of.operation])?;
    Ok(())
}

fn erase(db: &Connection, operation: i64) -> Result<()> {
    for sql in [
        "DELETE FROM operation_step WHERE operation = ?",
        "DELETE FROM operation_item WHERE operation = ?",
        "DELETE FROM operation WHERE row = ?",
    ] {
        db.prepare_cached(sql)?.execute([operation])?;
    }
    Ok(())
}

/// Everything of a tenant that is destroyed goes.
pub(crate) fn destroy(db: &Connection, tenant: TenantRow) -> Result<()> {
    let of_tenant = "SELECT row FROM operation WHERE tenant = ?";
    for table in ["operation_step", "operation_item"] {
        let sql = format!("DELETE FROM {table} WHERE operation IN ({of_tenant})");
        db.execute(&sql, [tenant.0])?;
    }
    db.execute("DELETE FROM operation WHERE tenant = ?", [tenant.0])?;
    Ok(())
}

const COLUMNS: &str = "row, tenant, app, key, request, state, plan, items, created_ms, until_ms";

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(OperationRow, u8)> {
    let millis = |at: usize| Ok::<_, rusqlite::Error>(UnixMillis(row.get::<_, i64>(at)?.cast_unsigned()));
    let new = NewOperation {
        row: row.get(0)?,
        tenant: TenantRow(row.get(1)?),
        app: AppRow(row.get(2)?),
        key: row.get(3)?,
        request: row.get(4)?,
        plan: row.get(6)?,
        items: row.get(7)?,
        until: millis(9)?,
    };
    let operation = OperationRow {
        new,
        state: OperationState::Open,
        created: millis(8)?,
    };
    Ok((operation, row.get(5)?))
}

fn with_state((mut operation, state): (OperationRow, u8)) -> Result<OperationRow> {
    operation.state = OperationState::from_number(state)?;
    Ok(operation)
}

/// An operation by its app and key.
pub(crate) fn by_key(db: &Connection, app: AppRow, key: &str) -> Result<Option<OperationRow>> {
    let sql = format!("SELECT {COLUMNS} FROM operation WHERE app = ? AND key = ?");
    let found = db
        .prepare_cached(&sql)?
        .query_row(params![app.0, key], read_row)
        .optional()?;
    found.map(with_state).transpose()
}

/// An operation by its number.
pub(crate) fn by_row(db: &Connection, row: i64) -> Result<Option<OperationRow>> {
    let sql = format!("SELECT {COLUMNS} FROM operation WHERE row = ?");
    let found = db.prepare_cached(&sql)?.query_row([row], read_row).optional()?;
    found.map(with_state).transpose()
}

/// Jobs with documents that have no outcome, the oldest first.
pub(crate) fn unfinished(db: &Connection, limit: u32) -> Result<Vec<OperationRow>> {
    // Those that were cancelled may have documents that had begun before.
    let sql = format!(
        "SELECT {COLUMNS} FROM operation WHERE plan IS NOT NULL AND state IN (1, 3) AND EXISTS \
         (SELECT 1 FROM operation_item WHERE operation = operation.row AND operation_item.state = 0) \
         ORDER BY created_ms LIMIT ?"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([limit], read_row)?;
    rows.map(|row| with_state(row?)).collect()
}

/// Operations whose time is over.
pub(crate) fn expired(db: &Connection, now: UnixMillis, limit: u32) -> Result<Vec<OperationRow>> {
    let sql = format!("SELECT {COLUMNS} FROM operation WHERE until_ms <= ? ORDER BY until_ms LIMIT ?");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![now.0.cast_signed(), limit], read_row)?;
    rows.map(|row| with_state(row?)).collect()
}

/// The numbers of all jobs.
pub(crate) fn jobs(db: &Connection) -> Result<std::collections::HashSet<i64>> {
    let mut statement = db.prepare_cached("SELECT row FROM operation WHERE plan IS NOT NULL")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many documents stand where.
pub(crate) fn counts(db: &Connection, operation: i64) -> Result<OperationCounts> {
    let sql = "SELECT state, count(*) FROM operation_item WHERE operation = ? GROUP BY state";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([operation], |row| {
        Ok((row.get::<_, u8>(0)?, row.get::<_, u32>(1)?))
    })?;
    let mut counts = OperationCounts::default();
    for row in rows {
        let (state, count) = row?;
        match ItemState::from_number(state)? {
            ItemState::Waiting => counts.waiting = count,
            ItemState::Done => counts.done = count,
            ItemState::Failed => counts.failed = count,
            ItemState::Cancelled => counts.cancelled = count,
        }
    }
    Ok(counts)
}

/// An item before its state, chains and code are read.
struct RawItem {
    item: OperationItem,
    state: u8,
    begun: Option<(i64, Vec<u8>)>,
    failure: Option<(u16, String)>,
}

fn read_item(row: &rusqlite::Row<'_>) -> rusqlite::Result<RawItem> {
    let pair = |(left, right): (Option<i64>, Option<Vec<u8>>)| left.zip(right);
    let document = (row.get::<_, Option<i64>>(5)?).zip(row.get::<_, Option<[u8; 32]>>(6)?);
    Ok(RawItem {
        item: OperationItem {
            item: row.get(0)?,
            state: ItemState::Waiting,
            begun: None,
            data_key: row.get(4)?,
            document: document.map(|(bytes, sha256)| (bytes.cast_unsigned(), sha256)),
            result_bytes: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
            failure: None,
        },
        state: row.get(1)?,
        begun: pair((row.get(2)?, row.get(3)?)),
        failure: row
            .get::<_, Option<u16>>(8)?
            .zip(row.get::<_, Option<String>>(9)?),
    })
}

impl RawItem {
    fn read(self) -> Result<OperationItem> {
        let mut item = self.item;
        item.state = ItemState::from_number(self.state)?;
        item.begun = self
            .begun
            .map(|(at, chains)| {
                let (digests, rest) = chains.as_chunks::<32>();
                match rest {
                    [] => Ok((UnixMillis(at.cast_unsigned()), digests.to_vec())),
                    _ => Err(corrupt("the chains of a document")),
                }
            })
            .transpose()?;
        item.failure = self
            .failure
            .map(|(code, detail)| (Code::from_wire(code).unwrap_or(Code::Internal), detail));
        Ok(item)
    }
}

const ITEM_COLUMNS: &str = "item, state, at_ms, chains, data_key, bytes, sha256, result_bytes, code, detail";

/// One document.
pub(crate) fn item(db: &Connection, of: ItemName) -> Result<Option<OperationItem>> {
    let sql = format!("SELECT {ITEM_COLUMNS} FROM operation_item WHERE operation = ? AND item = ?");
    let found = db
        .prepare_cached(&sql)?
        .query_row(params![of.operation, of.item], read_item)
        .optional()?;
    found.map(RawItem::read).transpose()
}

/// Documents from `from` on, at most `limit`.
pub(crate) fn items(db: &Connection, operation: i64, from: u32, limit: u32) -> Result<Vec<OperationItem>> {
    let sql = format!(
        "SELECT {ITEM_COLUMNS} FROM operation_item WHERE operation = ? AND item >= ? ORDER BY item LIMIT ?"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![operation, from, limit], read_item)?;
    rows.map(|row| row.map_err(StoreError::from).and_then(RawItem::read))
        .collect()
}

/// The numbers of the documents without an outcome.
pub(crate) fn waiting(db: &Connection, operation: i64) -> Result<Vec<u32>> {
    let sql = "SELECT item FROM operation_item WHERE operation = ? AND state = 0 ORDER BY item";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([operation], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What is kept of a document's steps, by number.
pub(crate) fn steps(db: &Connection, of: ItemName) -> Result<Vec<(u32, Vec<u8>)>> {
    let sql = "SELECT step, answer FROM operation_step WHERE operation = ? AND item = ? ORDER BY step";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params![of.operation, of.item], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A chain by its digest.
pub(crate) fn chain(db: &Connection, sha256: &[u8; 32]) -> Result<Option<Vec<Vec<u8>>>> {
    let sql = "SELECT chain FROM operation_chain WHERE sha256 = ?";
    let found: Option<Vec<u8>> = db
        .prepare_cached(sql)?
        .query_row([sha256], |row| row.get(0))
        .optional()?;
    found.map(|bytes| decode_chain(&bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use crate::sqlite;

    const TENANTS: &str = "
        INSERT INTO tenant (row, name, state, activated_ms, data_key, created_ms) VALUES (1, 'acme', 0, 0, x'01', 0);
        INSERT INTO app (row, tenant, id, active, epoch, rate, burst, concurrency, binding_required, created_ms)
            VALUES (1, 1, 'erp', TRUE, 1, 0, 0, 0, FALSE, 0);";

    fn store() -> Connection {
        let db = sqlite::in_memory().unwrap();
        db.execute_batch(TENANTS).unwrap();
        db
    }

    fn change(db: &Connection, write: OperationWrite) -> Result<()> {
        let directory = registry::load(db, UnixMillis(0))?;
        super::write(db, &directory, UnixMillis(5), vec![write])
    }

    fn new(row: i64, key: &str, plan: Option<Vec<u8>>, items: u32) -> NewOperation {
        NewOperation {
            row,
            tenant: TenantRow(1),
            app: AppRow(1),
            key: key.into(),
            request: [7; 32],
            plan,
            items,
            until: UnixMillis(100),
        }
    }

    fn job(row: i64, items: u32) -> NewOperation {
        new(row, &format!("job-{row}"), Some(vec![1]), items)
    }

    const fn of(operation: i64, item: u32) -> ItemName {
        ItemName { operation, item }
    }

    fn put(db: &Connection, of: ItemName, bytes: u64) -> Result<()> {
        change(
            db,
            OperationWrite::Upload {
                of,
                data_key: vec![2],
                bytes,
                sha256: [3; 32],
            },
        )
    }

    fn begin(db: &Connection, of: ItemName, at: u64) -> Result<()> {
        let chains = vec![vec![vec![9; 5], vec![8; 3]]];
        let at = UnixMillis(at);
        change(db, OperationWrite::Begin { of, at, chains })
    }

    fn code(result: Result<()>) -> Code {
        result.unwrap_err().refusal().code
    }

    #[test]
    fn a_call_is_found_by_its_key_with_its_time_its_certificates_and_its_steps() {
        let db = store();
        change(&db, OperationWrite::Open(new(11, "k", None, 1))).unwrap();
        // Another one under the same key changes nothing.
        change(&db, OperationWrite::Open(new(12, "k", None, 1))).unwrap();
        let known = by_key(&db, AppRow(1), "k").unwrap().unwrap();
        assert_eq!(
            (known.new.row, known.state, known.created),
            (11, OperationState::Open, UnixMillis(5))
        );
        assert_eq!(by_key(&db, AppRow(2), "k").unwrap(), None);
        begin(&db, of(11, 0), 40).unwrap();
        let kept = KeptStep {
            of: of(11, 0),
            step: 1,
            answer: vec![4],
        };
        change(&db, OperationWrite::Keep(kept.clone())).unwrap();
        let found = item(&db, of(11, 0)).unwrap().unwrap();
        let (at, digests) = found.begun.unwrap();
        assert_eq!(at, UnixMillis(40));
        let certificates = chain(&db, &digests[0]).unwrap().unwrap();
        assert_eq!(certificates, [vec![9; 5], vec![8; 3]]);
        assert_eq!(digests, [chain_digest(&certificates)]);
        assert_eq!(steps(&db, of(11, 0)).unwrap(), [(1, vec![4])]);
        // Beginning anew forgets what belonged to the try before.
        begin(&db, of(11, 0), 50).unwrap();
        assert!(steps(&db, of(11, 0)).unwrap().is_empty());
        // What was erased meanwhile stays erased.
        change(&db, OperationWrite::Erase { operation: 11 }).unwrap();
        change(&db, OperationWrite::Keep(kept)).unwrap();
        assert!(steps(&db, of(11, 0)).unwrap().is_empty());
        assert_eq!(code(begin(&db, of(11, 0), 60)), Code::NotFound);
    }

    #[test]
    fn a_job_goes_from_open_to_running_to_ended() {
        let db = store();
        change(&db, OperationWrite::Open(job(1, 2))).unwrap();
        put(&db, of(1, 0), 10).unwrap();
        assert_eq!(
            code(change(&db, OperationWrite::Start { operation: 1 })),
            Code::WrongState
        );
        assert_eq!(code(put(&db, of(1, 2), 10)), Code::NotFound);
        put(&db, of(1, 1), 10).unwrap();
        put(&db, of(1, 1), 20).unwrap();
        assert!(unfinished(&db, 9).unwrap().is_empty(), "it is not started");
        change(&db, OperationWrite::Start { operation: 1 }).unwrap();
        change(&db, OperationWrite::Start { operation: 1 }).unwrap();
        assert_eq!(code(put(&db, of(1, 1), 10)), Code::WrongState);
        assert_eq!(unfinished(&db, 9).unwrap().len(), 1);
        assert_eq!(waiting(&db, 1).unwrap(), [0, 1]);
        let done = OperationWrite::Finish {
            of: of(1, 0),
            outcome: Ok(77),
        };
        change(&db, done).unwrap();
        let failed = OperationWrite::Finish {
            of: of(1, 1),
            outcome: Err((Code::DocumentRefused, "é".repeat(400))),
        };
        change(&db, failed).unwrap();
        let ended = by_row(&db, 1).unwrap().unwrap();
        assert_eq!(ended.state, OperationState::Ended);
        let all = items(&db, 1, 0, 9).unwrap();
        assert_eq!((all[0].state, all[0].result_bytes), (ItemState::Done, Some(77)));
        let (code, detail) = all[1].failure.clone().unwrap();
        assert_eq!((code, detail.len()), (Code::DocumentRefused, DETAIL_BYTES_MAX));
        let counted = counts(&db, 1).unwrap();
        assert_eq!((counted.done, counted.failed, counted.uploaded()), (1, 1, 2));
        assert!(unfinished(&db, 9).unwrap().is_empty());
    }

    #[test]
    fn what_has_begun_when_a_job_is_cancelled_goes_on_to_its_end() {
        let db = store();
        change(&db, OperationWrite::Open(job(1, 3))).unwrap();
        (0..3).for_each(|number| put(&db, of(1, number), 10).unwrap());
        change(&db, OperationWrite::Start { operation: 1 }).unwrap();
        begin(&db, of(1, 1), 40).unwrap();
        change(&db, OperationWrite::Cancel { operation: 1 }).unwrap();
        change(&db, OperationWrite::Cancel { operation: 1 }).unwrap();
        assert_eq!(waiting(&db, 1).unwrap(), [1]);
        assert_eq!(code(begin(&db, of(1, 2), 40)), Code::OperationCancelled);
        begin(&db, of(1, 1), 41).unwrap();
        assert_eq!(unfinished(&db, 9).unwrap().len(), 1);
        let done = OperationWrite::Finish {
            of: of(1, 1),
            outcome: Ok(1),
        };
        change(&db, done).unwrap();
        let counted = counts(&db, 1).unwrap();
        assert_eq!((counted.done, counted.cancelled), (1, 2));
        assert!(unfinished(&db, 9).unwrap().is_empty());
        assert_eq!(by_row(&db, 1).unwrap().unwrap().state, OperationState::Cancelled);
        assert_eq!(
            code(change(&db, OperationWrite::Start { operation: 1 })),
            Code::WrongState
        );
    }

    #[test]
    fn a_tenant_has_so_many_jobs_and_so_many_bytes() {
        let db = store();
        for row in 1..=i64::from(JOBS_OPEN_MAX) {
            change(&db, OperationWrite::Open(job(row, 2))).unwrap();
        }
        assert_eq!(
            code(change(&db, OperationWrite::Open(job(99, 2)))),
            Code::WrongState
        );
        // A retry is no new one, and calls are no jobs.
        change(&db, OperationWrite::Open(job(1, 2))).unwrap();
        change(&db, OperationWrite::Open(new(98, "call", None, 1))).unwrap();
        put(&db, of(1, 0), JOB_BYTES_MAX - 5).unwrap();
        assert_eq!(code(put(&db, of(2, 0), 6)), Code::TooLarge);
        put(&db, of(2, 0), 5).unwrap();
        // The same document again takes the place of itself.
        put(&db, of(1, 0), JOB_BYTES_MAX - 5).unwrap();
    }

    #[test]
    fn operations_end_with_their_time_and_with_their_tenant() {
        let db = store();
        change(&db, OperationWrite::Open(job(1, 1))).unwrap();
        put(&db, of(1, 0), 10).unwrap();
        assert!(expired(&db, UnixMillis(99), 9).unwrap().is_empty());
        assert_eq!(expired(&db, UnixMillis(100), 9).unwrap().len(), 1);
        assert!(jobs(&db).unwrap().contains(&1));
        destroy(&db, TenantRow(1)).unwrap();
        assert_eq!(
            (by_row(&db, 1).unwrap(), item(&db, of(1, 0)).unwrap()),
            (None, None)
        );
        db.execute("UPDATE tenant SET data_key = NULL", []).unwrap();
        assert_eq!(
            code(change(&db, OperationWrite::Open(job(2, 1)))),
            Code::TenantClosed
        );
    }
}
