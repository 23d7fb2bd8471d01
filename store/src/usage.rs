//! Usage counters: how many signatures each app has had, by credential and month, and how many time stamps. Written in the same transaction
//! as the entries they count, so they cannot differ from the journal.

use protocol::clock::UnixMillis;
use protocol::ids::{AppRow, CredentialRow};
use rusqlite::{Connection, params};

use crate::error::Result;
use crate::record::month_of;

/// Stands for certificates, which are of many credentials or none. Time stamps have the number 0.
pub(crate) const CERTIFICATES: CredentialRow = CredentialRow(u32::MAX);

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The credential's id; `#time_stamp`: time stamps, which need none; `#certificate`: certificates that the app was issued.
    pub credential: String,
    /// YYYYMM, Asia/Shanghai.
    pub month: u32,
    /// Signatures, time stamps, or certificates.
    pub units: u64,
}

/// The counts of one commit. A batch seldom spans more than a few apps and credentials, so a list serves.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    credentials: Vec<((AppRow, CredentialRow), u64)>,
}

fn add<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K) {
    match counts.iter_mut().find(|(counted, _)| *counted == key) {
        Some((_, units)) => *units += 1,
        None => counts.push((key, 1)),
    }
}

impl Tally {
    pub(crate) fn count(&mut self, app: AppRow, credential: CredentialRow) {
        add(&mut self.credentials, (app, credential));
    }

    /// Writes the counts into the open transaction.
    pub(crate) fn write(&self, db: &Connection, at: UnixMillis) -> Result<()> {
        let sql = "INSERT INTO usage (app, credential, month, units) VALUES (?, ?, ?, ?) \
                   ON CONFLICT DO UPDATE SET units = units + excluded.units";
        let mut statement = db.prepare_cached(sql)?;
        for ((app, credential), units) in &self.credentials {
            statement.execute(params![app.0, credential.0, month_of(at), units.cast_signed()])?;
        }
        Ok(())
    }
}

/// An app's counters.
pub(crate) fn read(db: &Connection, app: AppRow) -> Result<Vec<UsageRow>> {
    // No credential has a number sign in its name.
    let sql = "SELECT CASE u.credential WHEN ?2 THEN '#certificate' ELSE coalesce(c.id, '#time_stamp') END AS id, \
               u.month, u.units FROM usage u \
               LEFT JOIN credential c ON c.row = u.credential WHERE u.app = ?1 ORDER BY u.month, id";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([app.0, CERTIFICATES.0], |row| {
        Ok(UsageRow {
            credential: row.get(0)?,
            month: row.get(1)?,
            units: row.get::<_, i64>(2)?.cast_unsigned(),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
