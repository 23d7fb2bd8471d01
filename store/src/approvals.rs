//! Approvals: what needs two operators. An action becomes a proposal; a second operator approves or rejects it before it
//! expires. [`Proposal::decide`] is the whole state machine; the rest writes down what it says.

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::registry::{corrupt, exists, refuse};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE proposal (           -- actions that wait for a second operator, and what became of them
        id      TEXT PRIMARY KEY,
        action  TEXT NOT NULL,        -- as the journal calls it
        asked   TEXT NOT NULL,        -- the order as it is carried out once approved, JSON
        proposer TEXT NOT NULL,       -- who, as the journal names an actor
        proposed_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        state   INTEGER NOT NULL,     -- 0 open, 1 approved, 2 rejected, 3 expired
        decider TEXT,
        decided_ms INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX proposal_by_time ON proposal (proposed_ms);
";

/// Proposals that may be open at a time.
pub(crate) const PROPOSALS_OPEN_MAX: u32 = 1_000;

/// Where a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ProposalState {
    /// It waits.
    Open = 0,
    /// A second operator has approved it, and it was carried out.
    Approved = 1,
    /// An operator has rejected it, or its proposer has withdrawn it.
    Rejected = 2,
    /// Nobody decided in time.
    Expired = 3,
}

impl ProposalState {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Open),
            1 => Some(Self::Approved),
            2 => Some(Self::Rejected),
            3 => Some(Self::Expired),
            _ => None,
        }
    }

    /// The name in lists and refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

/// What is done with a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Carry it out.
    Approve,
    /// Do not.
    Reject,
    /// Its time is over.
    Expire,
}

/// Why a decision is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// It was decided before.
    #[error("it is {} already", .0.name())]
    Decided(ProposalState),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time is not over.
    #[error("it has not expired yet")]
    NotExpired,
    /// The proposer approves.
    #[error("who proposed it cannot approve it as well")]
    SameOperator,
}

impl ApprovalError {
    /// The code that a caller hears.
    pub const fn code(self) -> Code {
        match self {
            Self::SameOperator => Code::SecondOperatorNeeded,
            _ => Code::WrongState,
        }
    }
}

/// An action that waits for a second operator, or has waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its name.
    pub id: String,
    /// What shall be done, as the journal calls it.
    pub action: String,
    /// The order as it is carried out once approved, JSON.
    pub asked: String,
    /// Who proposed it, as the journal names an actor.
    pub proposer: String,
    /// When.
    pub proposed: UnixMillis,
    /// Until when it may be decided.
    pub expires: UnixMillis,
    /// Where it stands.
    pub state: ProposalState,
    /// Who decided, and when.
    pub decided: Option<(String, UnixMillis)>,
}

impl Proposal {
    /// What a decision makes of it.
    pub fn decide(
        &self,
        decision: Decision,
        by: &str,
        now: UnixMillis,
    ) -> std::result::Result<ProposalState, ApprovalError> {
        if self.state != ProposalState::Open {
            return Err(ApprovalError::Decided(self.state));
        }
        let is_over = now >= self.expires;
        match decision {
            Decision::Expire if is_over => Ok(ProposalState::Expired),
            Decision::Expire => Err(ApprovalError::NotExpired),
            _ if is_over => Err(ApprovalError::Expired),
            Decision::Approve if by == self.proposer => Err(ApprovalError::SameOperator),
            Decision::Approve => Ok(ProposalState::Approved),
            Decision::Reject => Ok(ProposalState::Rejected),
        }
    }
}

/// A change of proposals.
#[derive(Debug)]
pub enum ApprovalChange {
    /// A new one.
    Propose {
        /// Its name.
        id: String,
        /// What shall be done, as the journal calls it.
        action: String,
        /// The order, JSON.
        asked: String,
        /// Who proposes.
        proposer: String,
        /// Until when it may be decided.
        expires: UnixMillis,
    },
    /// Somebody decides.
    Decide {
        /// Which.
        id: String,
        /// How.
        decision: Decision,
        /// Who.
        by: String,
    },
}

impl ApprovalChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Propose {
                id, action, asked, ..
            } => ("approval.propose", format!("{id} {action} {asked}")),
            Self::Decide { id, decision, .. } => {
                let action = match decision {
                    Decision::Approve => "approval.approve",
                    Decision::Reject => "approval.reject",
                    Decision::Expire => "approval.expire",
                };
                (action, id.clone())
            }
        }
    }
}

/// Writes a change into the open transaction.
pub(crate) fn apply(db: &Connection, at: UnixMillis, change: ApprovalChange) -> Result<()> {
    match change {
        ApprovalChange::Propose {
            id,
            action,
            asked,
            proposer,
            expires,
        } => propose(db, at, [&id, &action, &asked, &proposer], expires),
        ApprovalChange::Decide { id, decision, by } => decide(db, at, &id, decision, &by),
    }
}

fn propose(
    db: &Connection,
    at: UnixMillis,
    [id, action, asked, proposer]: [&str; 4],
    expires: UnixMillis,
) -> Result<()> {
    if read(db, id)?.is_some() {
        return Err(exists("proposal", id));
    }
    let sql = "SELECT count(*) FROM proposal WHERE state = 0";
    let open: u32 = db.query_row(sql, [], |row| row.get(0))?;
    if open >= PROPOSALS_OPEN_MAX {
        let text = format!("{open} proposals are open; decide some of them first");
        return Err(refuse(Code::WrongState, text));
    }
    let sql = "INSERT INTO proposal (id, action, asked, proposer, proposed_ms, expires_ms, state) \
               VALUES (?, ?, ?, ?, ?, ?, 0)";
    let (at_ms, expires_ms) = (at.0.cast_signed(), expires.0.cast_signed());
    db.execute(sql, params![id, action, asked, proposer, at_ms, expires_ms])?;
    Ok(())
}

fn decide(db: &Connection, at: UnixMillis, id: &str, decision: Decision, by: &str) -> Result<()> {
    let missing = || refuse(Code::NotFound, format!("no proposal '{id}'"));
    let proposal = read(db, id)?.ok_or_else(missing)?;
    let state = proposal.decide(decision, by, at);
    let state = state.map_err(|error| refuse(error.code(), format!("proposal '{id}': {error}")))?;
    let sql = "UPDATE proposal SET state = ?, decider = ?, decided_ms = ? WHERE id = ?";
    db.execute(sql, params![state as u8, by, at.0.cast_signed(), id])?;
    Ok(())
}

const COLUMNS: &str = "id, action, asked, proposer, proposed_ms, expires_ms, state, decider, decided_ms";

fn millis(ms: i64) -> UnixMillis {
    UnixMillis(ms.cast_unsigned())
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Proposal, u8)> {
    let decider: Option<String> = row.get(7)?;
    let decided_at: Option<i64> = row.get(8)?;
    let proposal = Proposal {
        id: row.get(0)?,
        action: row.get(1)?,
        asked: row.get(2)?,
        proposer: row.get(3)?,
        proposed: millis(row.get(4)?),
        expires: millis(row.get(5)?),
        state: ProposalState::Open,
        decided: decider.zip(decided_at.map(millis)),
    };
    Ok((proposal, row.get(6)?))
}

fn checked((mut proposal, state): (Proposal, u8)) -> Result<Proposal> {
    proposal.state = ProposalState::from_number(state).ok_or_else(|| corrupt("the state of a proposal"))?;
    Ok(proposal)
}

/// One by its name.
pub(crate) fn read(db: &Connection, id: &str) -> Result<Option<Proposal>> {
    let sql = format!("SELECT {COLUMNS} FROM proposal WHERE id = ?");
    let found = db.query_row(&sql, [id], from_row).optional()?;
    found.map(checked).transpose()
}

/// The newest, at most so many.
pub(crate) fn list(db: &Connection, count: u32) -> Result<Vec<Proposal>> {
    let sql = format!("SELECT {COLUMNS} FROM proposal ORDER BY proposed_ms DESC, id LIMIT ?");
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([count], from_row)?;
    rows.map(|row| row.map_err(StoreError::from).and_then(checked))
        .collect()
}

/// Those that are open and whose time is over.
pub(crate) fn overdue(db: &Connection, now: UnixMillis) -> Result<Vec<String>> {
    let mut statement = db.prepare("SELECT id FROM proposal WHERE state = 0 AND expires_ms <= ?")?;
    let rows = statement.query_map([now.0.cast_signed()], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::in_memory;

    const ALICE: &str = "operator alice";
    const BOB: &str = "operator bob";

    fn proposal(state: ProposalState) -> Proposal {
        Proposal {
            id: "p1".into(),
            action: "app.revoke".into(),
            asked: "{}".into(),
            proposer: ALICE.into(),
            proposed: UnixMillis(1_000),
            expires: UnixMillis(2_000),
            state,
            decided: None,
        }
    }

    #[test]
    fn every_decision_in_every_state() {
        use ApprovalError::{Decided, Expired, NotExpired, SameOperator};
        use ProposalState as S;
        let open = proposal(S::Open);
        let (early, late) = (UnixMillis(1_999), UnixMillis(2_000));
        let cases = [
            (Decision::Approve, BOB, early, Ok(S::Approved)),
            (Decision::Approve, ALICE, early, Err(SameOperator)),
            (Decision::Approve, BOB, late, Err(Expired)),
            (Decision::Approve, ALICE, late, Err(Expired)),
            (Decision::Reject, BOB, early, Ok(S::Rejected)),
            (Decision::Reject, ALICE, early, Ok(S::Rejected)),
            (Decision::Reject, BOB, late, Err(Expired)),
            (Decision::Expire, "engine", early, Err(NotExpired)),
            (Decision::Expire, "engine", late, Ok(S::Expired)),
        ];
        for (decision, by, now, wanted) in cases {
            assert_eq!(open.decide(decision, by, now), wanted, "{decision:?} by {by}");
        }
        for state in [S::Approved, S::Rejected, S::Expired] {
            for decision in [Decision::Approve, Decision::Reject, Decision::Expire] {
                for now in [early, late] {
                    let decided = proposal(state).decide(decision, BOB, now);
                    assert_eq!(decided, Err(Decided(state)));
                }
            }
        }
    }

    fn propose_at(db: &Connection, id: &str, at: u64) -> Result<()> {
        let change = ApprovalChange::Propose {
            id: id.into(),
            action: "app.revoke".into(),
            asked: "{\"order\":1}".into(),
            proposer: ALICE.into(),
            expires: UnixMillis(at + 1_000),
        };
        apply(db, UnixMillis(at), change)
    }

    fn decide_at(db: &Connection, id: &str, decision: Decision, by: &str, at: u64) -> Result<()> {
        let (id, by) = (id.into(), by.into());
        apply(db, UnixMillis(at), ApprovalChange::Decide { id, decision, by })
    }

    #[test]
    fn what_was_decided_is_kept_and_decided_once() {
        let db = in_memory().unwrap();
        propose_at(&db, "a", 1_000).unwrap();
        propose_at(&db, "b", 2_000).unwrap();
        let refused = |result: Result<()>| result.unwrap_err().refusal().code;
        assert_eq!(refused(propose_at(&db, "a", 3_000)), Code::AlreadyExists);
        let own = decide_at(&db, "a", Decision::Approve, ALICE, 1_500);
        assert_eq!(refused(own), Code::SecondOperatorNeeded);
        decide_at(&db, "a", Decision::Approve, BOB, 1_500).unwrap();
        let again = decide_at(&db, "a", Decision::Reject, BOB, 1_600);
        assert_eq!(refused(again), Code::WrongState);
        assert_eq!(
            refused(decide_at(&db, "c", Decision::Reject, BOB, 1)),
            Code::NotFound
        );
        let kept = read(&db, "a").unwrap().unwrap();
        assert_eq!(kept.state, ProposalState::Approved);
        assert_eq!(kept.decided, Some((BOB.into(), UnixMillis(1_500))));
        assert_eq!(overdue(&db, UnixMillis(2_999)).unwrap(), Vec::<String>::new());
        assert_eq!(overdue(&db, UnixMillis(3_000)).unwrap(), ["b"]);
        let ids = |count| -> Vec<String> {
            list(&db, count)
                .unwrap()
                .into_iter()
                .map(|proposal| proposal.id)
                .collect()
        };
        assert_eq!(ids(10), ["b", "a"]);
        assert_eq!(ids(1), ["b"]);
    }
}
