//! Archives: months of the journal that are kept no longer in the database, each in a file of its own. A file names its
//! first and last entry and the chain values before and after it, so it can be checked by itself, and the archives and
//! the journal that is left are still one chain.
//!
//! Layout of a file: 8 bytes magic; first entry, last entry and number of batches, 64 bits big-endian each; the chain
//! values before and after, 32 bytes each; then, compressed (zlib, RFC 1950), each batch: first entry (64 bits), count
//! (32 bits), time in Unix milliseconds (64 bits), length of the records (32 bits), all big-endian, and the records as
//! they lay in the database (`docs/store-format.md`).

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use aws_lc_rs::digest;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use protocol::clock::UnixMillis;
use protocol::ids::Sequence;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::journal;
use crate::record::month_of;
use crate::tail::ChainPoint;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE archive (            -- parts of the journal that are in files
        first   INTEGER PRIMARY KEY,  -- first entry
        last    INTEGER NOT NULL,     -- last entry
        month   INTEGER NOT NULL,     -- YYYYMM, Asia/Shanghai
        before  BLOB NOT NULL,        -- chain value before the first batch
        chain   BLOB NOT NULL,        -- chain value of the last batch
        bytes   INTEGER NOT NULL,
        sha256  BLOB NOT NULL,        -- of the file
        archived_ms INTEGER NOT NULL
    );
";

/// Where the files are, in the data folder and in a backup.
pub(crate) const FOLDER: &str = "archive";
const MAGIC: &[u8; 8] = b"CNBRARC1";
const HEADER_BYTES: usize = 96;
const BATCH_HEADER_BYTES: usize = 24;
/// No batch of records is larger: entries in a commit and bytes of an entry are bounded far below.
const RECORDS_BYTES_MAX: u32 = 1 << 30;

/// A part of the journal that is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// Its first entry.
    pub first: u64,
    /// Its last entry.
    pub last: u64,
    /// The month of its entries, YYYYMM in Asia/Shanghai.
    pub month: u32,
    /// The chain value before its first batch.
    pub before: [u8; 32],
    /// The chain value of its last batch.
    pub chain: [u8; 32],
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256.
    pub sha256: [u8; 32],
}

impl Archived {
    /// The file, within the data folder.
    pub fn path(&self) -> String {
        format!("{FOLDER}/{}-{}-{}.arc", self.month, self.first, self.last)
    }

    pub(crate) fn subject(&self) -> String {
        format!("month={} first={} last={}", self.month, self.first, self.last)
    }
}

/// The month that lies so many months before another, YYYYMM.
const fn months_before(month: u32, count: u32) -> u32 {
    let number = (month / 100) * 12 + month % 100 - 1;
    let earlier = number.saturating_sub(count);
    earlier / 12 * 100 + earlier % 12 + 1
}

/// A stretch of the journal in one month: its first entry, up to but without the next stretch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    month: u32,
    from: u64,
    to: u64,
}

/// The stretches from the journal's beginning on that are older than what is kept: `retention` whole months before the
/// running one. The last stretch always stays, because the journal goes on behind it.
fn due(stretches: &[Stretch], now: UnixMillis, retention: u32) -> &[Stretch] {
    let kept_from = months_before(month_of(now), retention);
    let all_but_last = &stretches[..stretches.len().saturating_sub(1)];
    let old = all_but_last
        .iter()
        .take_while(|stretch| stretch.month < kept_from)
        .count();
    &all_but_last[..old]
}

fn stretches(db: &Connection) -> Result<Vec<Stretch>> {
    let sql = "SELECT month, first, lead(first, 1, ?) OVER (ORDER BY first) FROM journal_span ORDER BY first";
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([i64::MAX], |row| {
        Ok(Stretch {
            month: row.get(0)?,
            from: row.get::<_, i64>(1)?.cast_unsigned(),
            to: row.get::<_, i64>(2)?.cast_unsigned(),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes the files of all months that are kept no longer, beside a running engine. Nothing is taken out of the journal
/// before its store is told ([`crate::KeepChange::Archive`]).
pub(crate) fn write_due(
    db: &Connection,
    home: &Path,
    now: UnixMillis,
    retention: u32,
) -> Result<Vec<Archived>> {
    let stretches = stretches(db)?;
    let mut before = end(db)?.chain;
    let mut written = Vec::new();
    for stretch in due(&stretches, now, retention) {
        let archived = write(db, home, *stretch, before)?;
        before = archived.chain;
        written.push(archived);
    }
    Ok(written)
}

fn write(db: &Connection, home: &Path, stretch: Stretch, before: [u8; 32]) -> Result<Archived> {
    let folder = home.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(StoreError::file(&folder))?;
    let (end, batches) = end_of(db, stretch)?;
    let mut archived = Archived {
        first: stretch.from,
        last: end.sequence,
        month: stretch.month,
        before,
        chain: end.chain,
        bytes: 0,
        sha256: [0; 32],
    };
    let path = home.join(archived.path());
    let part = path.with_extension("new");
    let file = File::create(&part).map_err(StoreError::file(&part))?;
    let measured = fill(db, &archived, stretch, batches, Measured::new(file), &part)?;
    (archived.bytes, archived.sha256) = measured;
    std::fs::rename(&part, &path).map_err(StoreError::file(&path))?;
    let synced = File::open(&folder).and_then(|folder| folder.sync_all());
    synced.map_err(StoreError::file(&folder))?;
    Ok(archived)
}

/// Where a stretch ends, and how many batches it has.
fn end_of(db: &Connection, stretch: Stretch) -> Result<(ChainPoint, u64)> {
    let range = params![stretch.from.cast_signed(), stretch.to.cast_signed()];
    let sql = "SELECT first + count - 1, chain, count(*) OVER () FROM journal \
               WHERE first >= ? AND first < ? ORDER BY first DESC LIMIT 1";
    let read = |row: &Row<'_>| {
        let point = ChainPoint {
            sequence: row.get::<_, i64>(0)?.cast_unsigned(),
            chain: row.get(1)?,
        };
        Ok((point, row.get::<_, i64>(2)?.cast_unsigned()))
    };
    let found = db.query_row(sql, range, read).optional()?;
    found.ok_or(StoreError::Corrupt {
        sequence: stretch.from,
        what: "a month without entries",
    })
}

fn fill(
    db: &Connection,
    archived: &Archived,
    stretch: Stretch,
    batches: u64,
    mut out: Measured,
    path: &Path,
) -> Result<(u64, [u8; 32])> {
    let failed = |error| StoreError::file(path)(error);
    out.write_all(&header(archived, batches)).map_err(failed)?;
    let mut out = ZlibEncoder::new(BufWriter::new(out), Compression::default());
    let mut previous = archived.before;
    journal::scan_rows(db, stretch.from, stretch.to, |row| {
        journal::check_link(&row, &previous)?;
        previous = row.chain;
        write_batch(&mut out, &row).map_err(failed)
    })?;
    let buffered = out.finish().map_err(failed)?;
    let measured = buffered
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    measured.finish().map_err(failed)
}

fn header(archived: &Archived, batches: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    for (at, number) in [archived.first, archived.last, batches].into_iter().enumerate() {
        header[8 + 8 * at..16 + 8 * at].copy_from_slice(&number.to_be_bytes());
    }
    header[32..64].copy_from_slice(&archived.before);
    header[64..].copy_from_slice(&archived.chain);
    header
}

fn write_batch(out: &mut impl Write, row: &journal::Row) -> std::io::Result<()> {
    let length = u32::try_from(row.records.len()).map_err(std::io::Error::other)?;
    out.write_all(&row.first.to_be_bytes())?;
    out.write_all(&row.count.to_be_bytes())?;
    out.write_all(&row.at.0.to_be_bytes())?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&row.records)
}

/// A file that is measured while it is written.
struct Measured {
    file: File,
    hash: digest::Context,
    bytes: u64,
}

impl Measured {
    fn new(file: File) -> Self {
        Self {
            file,
            hash: digest::Context::new(&digest::SHA256),
            bytes: 0,
        }
    }

    fn finish(self) -> std::io::Result<(u64, [u8; 32])> {
        self.file.sync_all()?;
        let hash = self.hash.finish();
        Ok((self.bytes, std::array::from_fn(|at| hash.as_ref()[at])))
    }
}

impl Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// What an archive's file says, and whether that is so: every batch is linked to the one before it. Length and hash of
/// the file are left at zero.
pub fn check_file(path: &Path) -> Result<Archived> {
    let unsound = |sequence, what| StoreError::Corrupt { sequence, what };
    let failed = |error| StoreError::file(path)(error);
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(failed)?;
    if &header[..8] != MAGIC {
        return Err(unsound(0, "not an archive"));
    }
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| header[8 + 8 * at + byte]));
    let (first, last, batches) = (number(0), number(1), number(2));
    let before: [u8; 32] = std::array::from_fn(|at| header[32 + at]);
    let chain: [u8; 32] = std::array::from_fn(|at| header[64 + at]);
    let mut batch = ZlibDecoder::new(file);
    let (mut previous, mut reached, mut month) = (before, first, 0);
    for number in 0..batches {
        let row = read_batch(&mut batch, previous).map_err(failed)?;
        if row.first < reached || number == 0 && row.first != first {
            return Err(unsound(row.first, "an archive's batch is out of order"));
        }
        (previous, reached, month) = (row.chain, row.last() + 1, month_of(row.at));
    }
    if previous != chain || reached != last + 1 {
        return Err(unsound(last, "an archive does not fit its own chain"));
    }
    if batch.read(&mut [0]).map_err(failed)? != 0 {
        return Err(unsound(last, "an archive goes on behind its end"));
    }
    Ok(Archived {
        first,
        last,
        month,
        before,
        chain,
        bytes: 0,
        sha256: [0; 32],
    })
}

/// The next batch, linked to the one before it.
fn read_batch(from: &mut impl Read, previous: [u8; 32]) -> std::io::Result<journal::Row> {
    let mut header = [0; BATCH_HEADER_BYTES];
    from.read_exact(&mut header)?;
    let long = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| header[at + byte]));
    let short = |at: usize| u32::from_be_bytes(std::array::from_fn(|byte| header[at + byte]));
    let (first, count, at, length) = (long(0), short(8), UnixMillis(long(12)), short(20));
    if count == 0 || first > i64::MAX as u64 || length > RECORDS_BYTES_MAX {
        return Err(std::io::Error::other("a batch that cannot be"));
    }
    let mut records = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut records)?;
    if records.len() != length as usize {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(journal::Row {
        first,
        count,
        at,
        chain: journal::link(&previous, first, count, &records),
        records,
    })
}

/// Visits the encoded records of an archive from `from` on, in order. False: the visitor has enough.
pub(crate) fn follow<E: From<StoreError>>(
    path: &Path,
    from: Sequence,
    visit: &mut impl FnMut(Sequence, UnixMillis, &[u8]) -> std::result::Result<bool, E>,
) -> std::result::Result<bool, E> {
    let failed = |error| StoreError::file(path)(error);
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(failed)?;
    let batches = u64::from_be_bytes(std::array::from_fn(|byte| header[24 + byte]));
    let mut batch = ZlibDecoder::new(file);
    for _ in 0..batches {
        // The chain is not followed here: `verify_all` does.
        let row = read_batch(&mut batch, [0; 32]).map_err(failed)?;
        for (at, record) in (0u64..).zip(row.slices()) {
            let (sequence, record) = (Sequence(row.first + at), record?);
            if sequence >= from && !visit(sequence, row.at, record)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Checks every archive that the database names: the file's hash, its chain, and that it goes on where the one before
/// it ended. That the journal goes on where the last one ends is what checking the journal's chain shows.
pub(crate) fn verify_all(db: &Connection, home: &Path) -> Result<Vec<Archived>> {
    let archives = list(db)?;
    let mut previous = [0; 32];
    for archived in &archives {
        let path = home.join(archived.path());
        let unsound = |what| StoreError::Corrupt {
            sequence: archived.first,
            what,
        };
        if hash_file(&path)? != (archived.bytes, archived.sha256) {
            return Err(unsound("an archive's file was changed"));
        }
        let found = check_file(&path)?;
        let same = (found.first, found.last, found.before, found.chain)
            == (archived.first, archived.last, archived.before, archived.chain);
        if !same || archived.before != previous {
            return Err(unsound("an archive is not where the chain has it"));
        }
        previous = archived.chain;
    }
    Ok(archives)
}

fn hash_file(path: &Path) -> Result<(u64, [u8; 32])> {
    let mut file = File::open(path).map_err(StoreError::file(path))?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(StoreError::file(path))?;
        if count == 0 {
            let hash = hash.finish();
            return Ok((bytes, std::array::from_fn(|at| hash.as_ref()[at])));
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// All archives, in order.
pub(crate) fn list(db: &Connection) -> Result<Vec<Archived>> {
    let sql = "SELECT first, last, month, before, chain, bytes, sha256 FROM archive ORDER BY first";
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Archived {
            first: row.get::<_, i64>(0)?.cast_unsigned(),
            last: row.get::<_, i64>(1)?.cast_unsigned(),
            month: row.get(2)?,
            before: row.get(3)?,
            chain: row.get(4)?,
            bytes: row.get::<_, i64>(5)?.cast_unsigned(),
            sha256: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Where the last archive ends; the journal goes on from there.
pub(crate) fn end(db: &Connection) -> Result<ChainPoint> {
    let sql = "SELECT last, chain FROM archive ORDER BY first DESC LIMIT 1";
    let read = |row: &Row<'_>| {
        Ok(ChainPoint {
            sequence: row.get::<_, i64>(0)?.cast_unsigned(),
            chain: row.get(1)?,
        })
    };
    Ok(db.query_row(sql, [], read).optional()?.unwrap_or_default())
}

/// The file in which a month is, if it is in one.
pub(crate) fn of_month(db: &Connection, month: u32) -> Result<Option<String>> {
    let archives = list(db)?;
    Ok(archives
        .iter()
        .find(|archived| archived.month == month)
        .map(Archived::path))
}

/// Takes an archive over: from now on its entries are in the file. It must go on where the last one ended and end where
/// a batch of the journal does, and something must be left behind it.
pub(crate) fn take_over(db: &Connection, at: UnixMillis, archived: &Archived) -> Result<()> {
    let before = end(db)?;
    let sql = "SELECT first + count - 1, chain FROM journal WHERE first <= ?1 \
               AND EXISTS (SELECT 1 FROM journal WHERE first > ?1) ORDER BY first DESC LIMIT 1";
    let ends: Option<(i64, [u8; 32])> = db
        .query_row(sql, [archived.last.cast_signed()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let fits = ends == Some((archived.last.cast_signed(), archived.chain));
    if before.chain != archived.before || !fits || archived.first <= before.sequence {
        return Err(StoreError::Corrupt {
            sequence: archived.first,
            what: "an archive does not fit the journal",
        });
    }
    let insert = "INSERT INTO archive (first, last, month, before, chain, bytes, sha256, archived_ms) \
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    db.execute(
        insert,
        params![
            archived.first.cast_signed(),
            archived.last.cast_signed(),
            archived.month,
            archived.before,
            archived.chain,
            archived.bytes.cast_signed(),
            archived.sha256,
            at.0.cast_signed()
        ],
    )?;
    let past = "DELETE FROM journal_span WHERE first <= ?";
    db.execute(past, [archived.last.cast_signed()])?;
    Ok(())
}

/// Batches and bytes of records that are taken out of the database in one commit: few enough not to hold up the
/// signatures behind it.
const TRIM_BATCHES: u32 = 2_000;
const TRIM_BYTES: i64 = 8 << 20;

/// Takes a piece of what is archived out of the database. False: nothing of it is left there.
pub(crate) fn trim(db: &Connection) -> Result<bool> {
    let archived = end(db)?.sequence.cast_signed();
    let sql = "SELECT max(first) FROM (SELECT first, sum(length(records)) OVER (ORDER BY first) - length(records) AS before \
               FROM (SELECT first, records FROM journal WHERE first <= ? ORDER BY first LIMIT ?)) WHERE before < ?";
    let upto: Option<i64> =
        db.query_row(sql, params![archived, TRIM_BATCHES, TRIM_BYTES], |row| row.get(0))?;
    let Some(upto) = upto else { return Ok(false) };
    db.execute("DELETE FROM journal WHERE first <= ?", [upto])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Batch;
    use crate::record::Record;

    const DAY: u64 = 24 * 3_600_000;
    /// Noon of a day in the middle of January 2020.
    const START: u64 = 1_579_060_800_000;

    #[test]
    fn months_are_counted_back_over_years() {
        assert_eq!(months_before(202_611, 0), 202_611);
        assert_eq!(months_before(202_611, 10), 202_601);
        assert_eq!(months_before(202_611, 11), 202_512);
        assert_eq!(months_before(202_611, 37), 202_310);
        assert_eq!(months_before(1, 500), 1);
    }

    fn stretch(month: u32, from: u64) -> Stretch {
        Stretch {
            month,
            from,
            to: from + 10,
        }
    }

    #[test]
    fn what_is_older_than_the_retention_is_due_but_never_the_last() {
        let all = [stretch(202_001, 1), stretch(202_002, 11), stretch(202_003, 21)];
        let at = |days: u64| UnixMillis(START + days * DAY);
        // 37 whole months before March 2023 begin with February 2020.
        assert_eq!(due(&all, at(1_150), 37), &all[..1]);
        assert_eq!(due(&all, at(1_140), 37), &[], "February 2023 keeps January 2020");
        assert_eq!(due(&all, at(4_000), 37), &all[..2], "the last one stays");
        assert_eq!(due(&[], at(4_000), 37), &[]);
        // A clock that was set back: what lies behind a month that is kept stays with it.
        let back = [
            stretch(202_001, 1),
            stretch(202_302, 11),
            stretch(202_001, 21),
            stretch(202_303, 31),
        ];
        assert_eq!(due(&back, at(1_150), 37), &back[..1]);
    }

    /// A journal with five batches of three entries in each of four months.
    fn journal_of_months() -> (Connection, ChainPoint) {
        let db = crate::sqlite::in_memory().unwrap();
        let mut end = ChainPoint::default();
        for month in 0..4 {
            for number in 0..5 {
                let mut batch = Batch::starting_at(end.sequence + 1);
                for entry in 0..3 {
                    batch.push(&Record::Opened {
                        version: format!("{month}.{number}.{entry}").into(),
                    });
                }
                let point = batch.chain_point(&end);
                let at = UnixMillis(START + month * 31 * DAY + number * 60_000);
                batch.insert(&db, at, &point.chain).unwrap();
                end = point;
            }
        }
        (db, end)
    }

    const LATER: UnixMillis = UnixMillis(START + 1_150 * DAY);

    #[test]
    fn archived_months_leave_the_database_and_the_chain_still_holds() {
        let home = tempfile::tempdir().unwrap();
        let (db, end_of_journal) = journal_of_months();
        let written = write_due(&db, home.path(), LATER, 36).unwrap();
        assert_eq!(
            written
                .iter()
                .map(|one| (one.month, one.first, one.last))
                .collect::<Vec<_>>(),
            [(202_001, 1, 15), (202_002, 16, 30)]
        );
        for archived in &written {
            take_over(&db, LATER, archived).unwrap();
        }
        journal::check_chain(&db, u32::MAX, &end_of_journal).unwrap();
        while trim(&db).unwrap() {}
        let left: i64 = db
            .query_row("SELECT min(first) FROM journal", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 31);
        journal::check_chain(&db, u32::MAX, &end_of_journal).unwrap();
        assert_eq!(verify_all(&db, home.path()).unwrap(), written);
        assert_eq!(crate::statement::months(&db).unwrap(), [202_003, 202_004]);
        assert_eq!(
            write_due(&db, home.path(), LATER, 36).unwrap(),
            [],
            "nothing is due twice"
        );
        // A batch of the journal that does not go on from the archives is noticed.
        db.execute("UPDATE archive SET chain = zeroblob(32) WHERE first = 16", [])
            .unwrap();
        assert!(journal::check_chain(&db, u32::MAX, &end_of_journal).is_err());
    }

    #[test]
    fn a_changed_archive_is_noticed_wherever_it_was_changed() {
        let home = tempfile::tempdir().unwrap();
        let (db, _) = journal_of_months();
        let written = write_due(&db, home.path(), LATER, 37).unwrap();
        let path = home.path().join(written[0].path());
        let sound = std::fs::read(&path).unwrap();
        assert!(check_file(&path).is_ok());
        for at in 0..sound.len() {
            let mut changed = sound.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            // The compressed stream has bits that mean nothing; what is read must never be something else.
            if let Ok(found) = check_file(&path) {
                assert_eq!(
                    (found.before, found.chain),
                    (written[0].before, written[0].chain),
                    "byte {at}"
                );
            }
            assert_ne!(hash_file(&path).unwrap().1, written[0].sha256);
        }
        for end in 0..sound.len() {
            std::fs::write(&path, &sound[..end]).unwrap();
            let found = check_file(&path);
            assert!(found.is_err() || end > sound.len() - 5, "cut at {end}");
        }
    }

    #[test]
    fn only_what_goes_on_from_the_chain_is_taken_over() {
        let home = tempfile::tempdir().unwrap();
        let (db, _) = journal_of_months();
        let written = write_due(&db, home.path(), LATER, 36).unwrap();
        assert!(
            take_over(&db, LATER, &written[1]).is_err(),
            "the second before the first"
        );
        let mut other = written[0].clone();
        other.chain = [1; 32];
        assert!(take_over(&db, LATER, &other).is_err());
        take_over(&db, LATER, &written[0]).unwrap();
        assert!(take_over(&db, LATER, &written[0]).is_err(), "once only");
    }
}
