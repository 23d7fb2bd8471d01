//! Opening the database: pragmas, schema, format version.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::error::{Result, StoreError};
use crate::ledger::rows;
use crate::{
    approvals, archive, incidents, keep, minutes, operations, operators, outbox, seals, statement, subjects,
    tenancy,
};

/// What this version reads and writes (`docs/store-format.md`).
const FORMAT: i64 = 3;

/// The WAL-reset corruption bug is in every SQLite before this one.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

const SCHEMA: &str = "
    CREATE TABLE journal (
        first  INTEGER PRIMARY KEY,   -- sequence number of the batch's first entry
        count  INTEGER NOT NULL,      -- entries in the batch
        at_ms  INTEGER NOT NULL,      -- when it was committed, Unix milliseconds
        records BLOB NOT NULL,        -- the entries: 32-bit little-endian length, then CBOR, each
        chain  BLOB NOT NULL          -- SHA-256 over the previous chain value and this batch
    );
    CREATE TABLE pending (            -- items whose last entry is Pending
        key    BLOB PRIMARY KEY,
        item   BLOB NOT NULL,
        package INTEGER               -- the package in which a unit is held for it; NULL: none
    ) WITHOUT ROWID;
    CREATE TABLE usage (
        app        INTEGER NOT NULL,
        credential INTEGER NOT NULL,
        month      INTEGER NOT NULL,  -- YYYYMM, Asia/Shanghai
        units      INTEGER NOT NULL,
        PRIMARY KEY (app, credential, month)
    ) WITHOUT ROWID;
    CREATE TABLE tenant (
        row     INTEGER PRIMARY KEY,
        name    TEXT NOT NULL UNIQUE,
        state   INTEGER NOT NULL DEFAULT 0, -- 0 active, 1 suspended, 2 closed
        activated_ms INTEGER NOT NULL,      -- production calls are taken from then on
        data_key BLOB,                      -- its own key, wrapped under the master key; NULL: destroyed
        destruction TEXT,                   -- the order by which it was destroyed
        created_ms INTEGER NOT NULL
    );
    CREATE TABLE app (
        row     INTEGER PRIMARY KEY,
        tenant  INTEGER NOT NULL REFERENCES tenant,
        id      TEXT NOT NULL UNIQUE,
        active  INTEGER NOT NULL,
        epoch   INTEGER NOT NULL,
        sandbox INTEGER NOT NULL DEFAULT FALSE,
        secret  BLOB,                 -- wrapped under the tenant's key; NULL: no shared secret
        previous_secret BLOB,         -- the one before, until the time below
        previous_until_ms INTEGER,
        generation INTEGER NOT NULL DEFAULT 0, -- how often the secret was changed
        rate    INTEGER NOT NULL,     -- signatures a second; 0: no limit, here and below
        burst   INTEGER NOT NULL,
        concurrency INTEGER NOT NULL, -- calls in flight
        public_key BLOB,              -- SubjectPublicKeyInfo for HTTP message signatures
        client_certificate BLOB,      -- SHA-256 of the TLS client certificate
        binding_required INTEGER NOT NULL,
        created_ms INTEGER NOT NULL
    );
    CREATE TABLE key (
        row     INTEGER PRIMARY KEY,
        tenant  INTEGER NOT NULL REFERENCES tenant,
        kind    TEXT NOT NULL,
        public_key BLOB NOT NULL,     -- SubjectPublicKeyInfo
        object  BLOB,                 -- CKA_ID, where it is an object in devices
        kek     BLOB,                 -- CKA_ID of the wrapping key, where it exists only wrapped
        wrapped BLOB,                 -- software: PKCS#8 encrypted under the tenant's key; otherwise as a device wrapped it
        destroyed INTEGER NOT NULL DEFAULT FALSE,
        created_ms INTEGER NOT NULL
    );
    CREATE TABLE key_home (           -- the devices that hold a key as an object
        key     INTEGER NOT NULL REFERENCES key,
        device  TEXT NOT NULL,
        UNIQUE (key, device)
    );
    CREATE TABLE spare_key (          -- key pairs made ahead of need
        row     INTEGER PRIMARY KEY,
        kind    TEXT NOT NULL,
        device  TEXT,                 -- NULL: software
        public_key BLOB NOT NULL,
        object  BLOB,
        wrapped BLOB,
        created_ms INTEGER NOT NULL
    );
    CREATE TABLE calibration (device TEXT PRIMARY KEY, found TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE credential (
        row     INTEGER PRIMARY KEY,
        tenant  INTEGER NOT NULL REFERENCES tenant,
        id      TEXT NOT NULL,
        key     INTEGER NOT NULL REFERENCES key,
        sandbox INTEGER NOT NULL DEFAULT FALSE,
        active  INTEGER NOT NULL,
        epoch   INTEGER NOT NULL,
        chain   BLOB NOT NULL,        -- CBOR array of certificates, DER, the credential's own first
        not_before_ms INTEGER,        -- when they are valid; NULL: no certificate
        not_after_ms INTEGER,
        reserved INTEGER NOT NULL DEFAULT FALSE, -- whether it signs under seals only
        created_ms INTEGER NOT NULL,
        UNIQUE (tenant, id)
    );
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE probe (n INTEGER PRIMARY KEY);
";

/// Tables that chapters of their own describe.
const PARTS: [&str; 13] = [
    rows::SCHEMA,
    tenancy::SCHEMA,
    minutes::SCHEMA,
    statement::SCHEMA,
    operators::SCHEMA,
    approvals::SCHEMA,
    incidents::SCHEMA,
    outbox::SCHEMA,
    archive::SCHEMA,
    keep::SCHEMA,
    subjects::SCHEMA,
    operations::SCHEMA,
    seals::rows::SCHEMA,
];

/// Opens the database for the one writer, and makes it if it is new.
pub(crate) fn open_writer(path: &Path, bytes_max: Option<u64>) -> Result<Connection> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(StoreError::SqliteVersion(rusqlite::version()));
    }
    let mut db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: every commit is synced before it returns. This is the promise "durable before release".
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // Checkpoints run beside the writer (checkpoint.rs), not inside somebody's commit.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "mmap_size", 0)?;
    // What is deleted or moved is overwritten: a destroyed key must not be found in what is left of a page.
    db.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
    db.set_prepared_statement_cache_capacity(64);
    if let Some(bytes) = bytes_max {
        let page: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page;
        // The pragma answers with a row, which `pragma_update` would take for an error.
        db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    check_format(&mut db)?;
    // Stores that were made before there were certificates get the tables when they are opened.
    db.execute_batch(crate::certificates::SCHEMA)?;
    Ok(db)
}

fn check_format(db: &mut Connection) -> Result<()> {
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        FORMAT => Ok(()),
        0 => {
            let change = db.transaction()?;
            change.execute_batch(SCHEMA)?;
            for part in PARTS {
                change.execute_batch(part)?;
            }
            rows::seed(&change)?;
            change.pragma_update(None, "user_version", FORMAT)?;
            Ok(change.commit()?)
        }
        _ => Err(StoreError::Format { found, known: FORMAT }),
    }
}

/// A new database that is gone with its connection.
#[cfg(test)]
pub(crate) fn in_memory() -> Result<Connection> {
    let mut db = Connection::open_in_memory()?;
    check_format(&mut db)?;
    Ok(db)
}

/// Whether a database is one that this version reads.
pub(crate) fn check_readable(db: &Connection) -> Result<()> {
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        FORMAT => Ok(()),
        _ => Err(StoreError::Format { found, known: FORMAT }),
    }
}

/// Opens the database for reading beside the writer.
pub(crate) fn open_reader(path: &Path) -> Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(std::time::Duration::from_secs(1))?;
    db.pragma_update(None, "mmap_size", 0)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}
