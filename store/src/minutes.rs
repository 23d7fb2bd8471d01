//! The minutes of the service agreement on disk: what the engine observed, one record a minute and life of the engine.
//! The records are opaque here; whoever reads them adds up the parts of a minute.

use protocol::clock::UnixMillis;
use rusqlite::{Connection, params};

use crate::error::Result;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE minute (             -- what was observed of a minute, by one life of the engine
        minute  INTEGER NOT NULL,     -- since 1970-01-01T00:00Z
        life    INTEGER NOT NULL,     -- sequence number of the entry with which that life began
        record  BLOB NOT NULL,
        written_ms INTEGER NOT NULL,
        PRIMARY KEY (minute, life)
    ) WITHOUT ROWID;
    CREATE TABLE latency_day (        -- response times of a day of Asia/Shanghai, as one life of the engine saw them
        day     INTEGER NOT NULL,     -- since 1970-01-01
        life    INTEGER NOT NULL,
        record  BLOB NOT NULL,
        PRIMARY KEY (day, life)
    ) WITHOUT ROWID;
";

/// What was observed of a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinuteRecord {
    /// Minutes since 1970-01-01T00:00Z.
    pub minute: u32,
    /// The record so far.
    pub record: Vec<u8>,
}

/// Response times of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayRecord {
    /// Days since 1970-01-01, of Asia/Shanghai.
    pub day: u32,
    /// The record so far.
    pub record: Vec<u8>,
}

/// What is observed and written together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedRecords {
    /// Of minutes.
    pub minutes: Vec<MinuteRecord>,
    /// Of days.
    pub days: Vec<DayRecord>,
}

/// Writes records of this life; what was there of it before is replaced.
pub(crate) fn write(db: &Connection, life: u64, at: UnixMillis, records: &ObservedRecords) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO minute (minute, life, record, written_ms) VALUES (?, ?, ?, ?)";
    let mut statement = db.prepare_cached(sql)?;
    for record in &records.minutes {
        statement.execute(params![
            record.minute,
            life.cast_signed(),
            record.record,
            at.0.cast_signed()
        ])?;
    }
    let sql = "INSERT OR REPLACE INTO latency_day (day, life, record) VALUES (?, ?, ?)";
    let mut statement = db.prepare_cached(sql)?;
    for record in &records.days {
        statement.execute(params![record.day, life.cast_signed(), record.record])?;
    }
    Ok(())
}

/// The response times of a span of days, a record for each life of the engine.
pub(crate) fn days(db: &Connection, from: u32, to: u32) -> Result<Vec<DayRecord>> {
    let sql = "SELECT day, record FROM latency_day WHERE day >= ? AND day < ? ORDER BY day, life";
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(DayRecord {
            day: row.get(0)?,
            record: row.get(1)?,
        })
    };
    let rows = statement.query_map([from, to], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Visits the records of a span of minutes in order; those of one minute follow each other.
pub(crate) fn visit(
    db: &Connection,
    from: u32,
    to: u32,
    mut visit: impl FnMut(MinuteRecord) -> Result<()>,
) -> Result<()> {
    let sql = "SELECT minute, record FROM minute WHERE minute >= ? AND minute < ? ORDER BY minute, life";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([from, to])?;
    while let Some(row) = rows.next()? {
        visit(MinuteRecord {
            minute: row.get(0)?,
            record: row.get(1)?,
        })?;
    }
    Ok(())
}

/// When the last record was written: the engine lived at least until then.
pub(crate) fn last_written(db: &Connection) -> Result<Option<UnixMillis>> {
    let sql = "SELECT max(written_ms) FROM (SELECT written_ms FROM minute ORDER BY minute DESC LIMIT 8)";
    let ms: Option<i64> = db.query_row(sql, [], |row| row.get(0))?;
    Ok(ms.map(|ms| UnixMillis(ms.cast_unsigned())))
}
