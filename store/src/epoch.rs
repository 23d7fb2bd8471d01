//! The epoch of a data folder: how often it was restored. Whatever must never be used twice (journal entries, serial
//! numbers of time stamps, numbers of revocation lists) begins anew in each epoch, far above all that the folder which
//! was lost can have used after its last backup (SEMANTICS 1.7).

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::Result;

/// The name among the named values.
const NAME: &str = "epoch";
/// Serial numbers of time stamps in an epoch: 100,000 a second for four months.
const SERIALS_BITS: u32 = 40;
/// Revocation lists of an issuer in an epoch.
const LISTS_BITS: u32 = 32;

/// How often a data folder was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataEpoch(pub u32);

impl DataEpoch {
    /// The epoch that a restore opens.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The first serial number of time stamps in this epoch, where `next` would be the next one.
    pub(crate) const fn first_serial(self, next: u64) -> u64 {
        larger(next, (self.0 as u64) << SERIALS_BITS)
    }

    /// The number of the revocation list that comes after `last` in this epoch.
    pub(crate) const fn next_list(self, last: u64) -> u64 {
        larger(last + 1, (self.0 as u64) << LISTS_BITS)
    }
}

const fn larger(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

/// The epoch of a database.
pub(crate) fn read(db: &Connection) -> Result<DataEpoch> {
    let sql = "SELECT value FROM meta WHERE name = ?";
    let value: Option<[u8; 4]> = db
        .prepare_cached(sql)?
        .query_row([NAME], |row| row.get(0))
        .optional()?;
    Ok(DataEpoch(value.map_or(0, u32::from_be_bytes)))
}

pub(crate) fn write(db: &Connection, epoch: DataEpoch) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)";
    db.execute(sql, params![NAME, epoch.0.to_be_bytes()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_within_an_epoch_and_leap_at_its_beginning() {
        let first = DataEpoch::default();
        assert_eq!((first.first_serial(7), first.next_list(7)), (7, 8));
        let second = first.next();
        assert_eq!(second.first_serial(10_001), 1 << 40);
        assert_eq!(
            (second.next_list(7), second.next_list(1 << 32)),
            (1 << 32, (1 << 32) + 1)
        );
        // A folder that is restored twice leaps twice.
        assert_eq!(second.next().first_serial(1 << 40), 2 << 40);
    }

    #[test]
    fn an_epoch_reads_back_and_begins_at_none() {
        let db = crate::sqlite::in_memory().unwrap();
        assert_eq!(read(&db).unwrap(), DataEpoch(0));
        write(&db, DataEpoch(3)).unwrap();
        assert_eq!(read(&db).unwrap(), DataEpoch(3));
    }
}
