//! Incidents: faults with two clocks, until somebody responds and until it is repaired. Their times are minutes since
//! 1970-01-01T00:00Z, as the service agreement counts.

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::registry::{exists, refuse};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE incident (           -- times are minutes since 1970-01-01T00:00Z
        id      TEXT PRIMARY KEY,
        grade   INTEGER NOT NULL,     -- under the agreement; 1 is the gravest
        text    TEXT NOT NULL,
        began   INTEGER NOT NULL,
        responded INTEGER,
        repaired INTEGER,
        closed  INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX incident_by_time ON incident (began);
";

/// Bytes of an incident's name.
pub(crate) const INCIDENT_ID_BYTES_MAX: usize = 64;
/// Bytes of its description.
pub(crate) const INCIDENT_TEXT_BYTES_MAX: usize = 4_096;

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRow {
    /// Its name.
    pub id: String,
    /// Its grade under the agreement; 1 is the gravest.
    pub grade: u8,
    /// What happened.
    pub text: String,
    /// The minute in which it began.
    pub began: u32,
    /// The minute in which somebody worked on it.
    pub responded: Option<u32>,
    /// The minute in which it was repaired.
    pub repaired: Option<u32>,
    /// The minute in which it was closed: nothing about it changes any more.
    pub closed: Option<u32>,
}

/// What happens to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentStep {
    /// Somebody works on it: the first clock stops.
    Respond,
    /// It is repaired: the second clock stops.
    Repair,
    /// It is over and looked into.
    Close,
}

/// Why a step is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncidentError {
    /// It is closed.
    #[error("it is closed")]
    Closed,
    /// The step was taken before.
    #[error("that is on record already")]
    Twice,
    /// Nobody has responded yet.
    #[error("nobody has responded to it yet")]
    NotResponded,
    /// It is not repaired yet.
    #[error("it is not repaired yet")]
    NotRepaired,
    /// The time is before the step before.
    #[error("that would be before what happened earlier")]
    TooEarly,
    /// The time is not there yet.
    #[error("that would be in the future")]
    TooLate,
}

impl IncidentRow {
    /// The incident after a step at a minute. A clock that has stopped stays so.
    pub fn advance(&self, step: IncidentStep, at: u32, now: u32) -> std::result::Result<Self, IncidentError> {
        if self.closed.is_some() {
            return Err(IncidentError::Closed);
        }
        let (done, earlier) = match step {
            IncidentStep::Respond => (self.responded, Some(self.began)),
            IncidentStep::Repair => (self.repaired, self.responded),
            IncidentStep::Close => (self.closed, self.repaired),
        };
        let earlier = earlier.ok_or(match step {
            IncidentStep::Close => IncidentError::NotRepaired,
            _ => IncidentError::NotResponded,
        })?;
        if done.is_some() {
            return Err(IncidentError::Twice);
        }
        if at < earlier {
            return Err(IncidentError::TooEarly);
        }
        if at > now {
            return Err(IncidentError::TooLate);
        }
        let mut next = self.clone();
        match step {
            IncidentStep::Respond => next.responded = Some(at),
            IncidentStep::Repair => next.repaired = Some(at),
            IncidentStep::Close => next.closed = Some(at),
        }
        Ok(next)
    }
}

/// A change of incidents.
#[derive(Debug)]
pub enum IncidentChange {
    /// A new one.
    Open {
        /// Its name.
        id: String,
        /// Its grade.
        grade: u8,
        /// What happened.
        text: String,
        /// The minute in which it began.
        began: u32,
    },
    /// Something happens to one.
    Step {
        /// Which.
        id: String,
        /// What.
        step: IncidentStep,
        /// In which minute.
        at: u32,
    },
}

impl IncidentChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Open { id, grade, began, .. } => {
                ("incident.open", format!("{id} grade={grade} began={began}"))
            }
            Self::Step { id, step, at } => {
                let action = match step {
                    IncidentStep::Respond => "incident.respond",
                    IncidentStep::Repair => "incident.repair",
                    IncidentStep::Close => "incident.close",
                };
                (action, format!("{id} at={at}"))
            }
        }
    }
}

fn minute_of(at: UnixMillis) -> u32 {
    u32::try_from(at.seconds() / 60).unwrap_or(u32::MAX)
}

/// Writes a change into the open transaction.
pub(crate) fn apply(db: &Connection, at: UnixMillis, change: IncidentChange) -> Result<()> {
    match change {
        IncidentChange::Open {
            id,
            grade,
            text,
            began,
        } => {
            check(&id, grade, &text, began, at)?;
            open(db, &id, grade, &text, began)
        }
        IncidentChange::Step { id, step, at: minute } => advance(db, &id, step, minute, minute_of(at)),
    }
}

fn check(id: &str, grade: u8, text: &str, began: u32, now: UnixMillis) -> Result<()> {
    let wrong = |text: String| Err(refuse(Code::Usage, text));
    if id.is_empty() || id.len() > INCIDENT_ID_BYTES_MAX {
        return wrong(format!(
            "an incident's name has 1 to {INCIDENT_ID_BYTES_MAX} bytes"
        ));
    }
    if text.len() > INCIDENT_TEXT_BYTES_MAX {
        return wrong(format!(
            "an incident's text has at most {INCIDENT_TEXT_BYTES_MAX} bytes"
        ));
    }
    if grade == 0 {
        return wrong("an incident's grade is at least 1, which is the gravest".into());
    }
    if began > minute_of(now) {
        return wrong("an incident cannot begin in the future".into());
    }
    Ok(())
}

fn open(db: &Connection, id: &str, grade: u8, text: &str, began: u32) -> Result<()> {
    if read(db, id)?.is_some() {
        return Err(exists("incident", id));
    }
    let sql = "INSERT INTO incident (id, grade, text, began) VALUES (?, ?, ?, ?)";
    db.execute(sql, params![id, grade, text, began])?;
    Ok(())
}

fn advance(db: &Connection, id: &str, step: IncidentStep, at: u32, now: u32) -> Result<()> {
    let missing = || refuse(Code::NotFound, format!("no incident '{id}'"));
    let incident = read(db, id)?.ok_or_else(missing)?;
    let next = incident
        .advance(step, at, now)
        .map_err(|error| refuse(Code::WrongState, format!("incident '{id}': {error}")))?;
    let sql = "UPDATE incident SET responded = ?, repaired = ?, closed = ? WHERE id = ?";
    db.execute(sql, params![next.responded, next.repaired, next.closed, id])?;
    Ok(())
}

const COLUMNS: &str = "id, grade, text, began, responded, repaired, closed";

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<IncidentRow> {
    Ok(IncidentRow {
        id: row.get(0)?,
        grade: row.get(1)?,
        text: row.get(2)?,
        began: row.get(3)?,
        responded: row.get(4)?,
        repaired: row.get(5)?,
        closed: row.get(6)?,
    })
}

fn read(db: &Connection, id: &str) -> Result<Option<IncidentRow>> {
    let sql = format!("SELECT {COLUMNS} FROM incident WHERE id = ?");
    Ok(db.query_row(&sql, [id], from_row).optional()?)
}

/// Those that were not over before `from` and began before `to`, in order.
pub(crate) fn during(db: &Connection, from: u32, to: u32) -> Result<Vec<IncidentRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM incident WHERE began < ? AND (repaired IS NULL OR repaired >= ?) \
         ORDER BY began, id"
    );
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([to, from], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The newest, at most so many.
pub(crate) fn list(db: &Connection, count: u32) -> Result<Vec<IncidentRow>> {
    let sql = format!("SELECT {COLUMNS} FROM incident ORDER BY began DESC, id LIMIT ?");
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([count], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::in_memory;

    fn incident(responded: Option<u32>, repaired: Option<u32>, closed: Option<u32>) -> IncidentRow {
        IncidentRow {
            id: "i1".into(),
            grade: 1,
            text: "signing fails".into(),
            began: 100,
            responded,
            repaired,
            closed,
        }
    }

    #[test]
    fn steps_come_in_order_once_and_never_from_the_future() {
        use IncidentError as E;
        use IncidentStep::{Close, Repair, Respond};
        let (fresh, answered) = (incident(None, None, None), incident(Some(110), None, None));
        let (repaired, closed) = (
            incident(Some(110), Some(150), None),
            incident(Some(110), Some(150), Some(160)),
        );
        let cases = [
            (&fresh, Respond, 110, Ok(&answered)),
            (&fresh, Respond, 99, Err(E::TooEarly)),
            (&fresh, Respond, 201, Err(E::TooLate)),
            (&fresh, Repair, 150, Err(E::NotResponded)),
            (&fresh, Close, 150, Err(E::NotRepaired)),
            (&answered, Respond, 120, Err(E::Twice)),
            (&answered, Repair, 109, Err(E::TooEarly)),
            (&answered, Repair, 150, Ok(&repaired)),
            (&answered, Close, 160, Err(E::NotRepaired)),
            (&repaired, Repair, 155, Err(E::Twice)),
            (&repaired, Close, 149, Err(E::TooEarly)),
            (&repaired, Close, 160, Ok(&closed)),
            (&closed, Respond, 170, Err(E::Closed)),
            (&closed, Close, 170, Err(E::Closed)),
        ];
        for (before, step, at, wanted) in cases {
            let after = before.advance(step, at, 200);
            assert_eq!(after.as_ref().map_err(|error| *error), wanted, "{step:?} at {at}");
        }
    }

    fn open(id: &str, began: u32) -> IncidentChange {
        IncidentChange::Open {
            id: id.into(),
            grade: 2,
            text: "t".into(),
            began,
        }
    }

    #[test]
    fn an_incident_belongs_to_every_month_it_touches() {
        let db = in_memory().unwrap();
        let now = UnixMillis(1_000 * 60_000);
        let step = |id: &str, step, at| {
            let change = IncidentChange::Step {
                id: id.into(),
                step,
                at,
            };
            apply(&db, now, change).unwrap();
        };
        apply(&db, now, open("a", 100)).unwrap();
        apply(&db, now, open("b", 300)).unwrap();
        step("a", IncidentStep::Respond, 110);
        step("a", IncidentStep::Repair, 199);
        let ids = |from, to| -> Vec<String> {
            let found = during(&db, from, to).unwrap();
            found.into_iter().map(|incident| incident.id).collect()
        };
        assert_eq!(ids(0, 100), Vec::<String>::new());
        assert_eq!(ids(100, 200), ["a"]);
        assert_eq!(ids(199, 301), ["a", "b"]);
        // Nobody has repaired it: it goes on.
        assert_eq!(ids(200, 900), ["b"]);
        assert_eq!(list(&db, 1).unwrap()[0].id, "b");
    }

    #[test]
    fn what_cannot_be_an_incident_is_refused_by_name() {
        let db = in_memory().unwrap();
        let now = UnixMillis(1_000 * 60_000);
        apply(&db, now, open("a", 1_000)).unwrap();
        let code = |change| apply(&db, now, change).unwrap_err().refusal().code;
        assert_eq!(code(open("a", 100)), Code::AlreadyExists);
        assert_eq!(code(open("", 100)), Code::Usage);
        assert_eq!(code(open("b", 1_001)), Code::Usage);
        let step = IncidentStep::Respond;
        let id = "c".into();
        assert_eq!(code(IncidentChange::Step { id, step, at: 1 }), Code::NotFound);
    }
}
