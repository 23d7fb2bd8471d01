//! The outbox: messages that have to reach somebody outside, kept until they have or until it is given up. A message is
//! sent at least once: it leaves the table of what waits only after the receiver has taken it.
//!
//! What is sent belongs to a change (a notice of maintenance) and is written in its transaction, or stands for itself (an
//! alert). Receivers are webhooks, of a tenant or of the operators, and the operators' e-mail addresses.

use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{TenantName, TenantRow};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::error::{Result, StoreError};
use crate::registry::{corrupt, refuse};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE webhook (
        owner   INTEGER PRIMARY KEY,  -- the tenant; 0: the operators
        url     TEXT NOT NULL,
        secret  BLOB NOT NULL,        -- wrapped under the tenant's key; the operators': under the master key
        created_ms INTEGER NOT NULL
    );
    CREATE TABLE outbox (
        row     INTEGER PRIMARY KEY AUTOINCREMENT,
        id      TEXT NOT NULL UNIQUE, -- the same at every attempt: receivers know repetitions by it
        channel INTEGER NOT NULL,     -- 0 webhook, 1 e-mail
        owner   INTEGER NOT NULL,     -- the tenant; 0: the operators
        kind    TEXT NOT NULL,
        body    TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        give_up_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_ms INTEGER NOT NULL,     -- not before
        state   INTEGER NOT NULL DEFAULT 0, -- 0 waiting, 1 delivered, 2 given up
        error   TEXT                  -- how the last attempt failed
    );
    CREATE INDEX outbox_due ON outbox (owner > 0, next_ms) WHERE state = 0;
    CREATE INDEX outbox_finished ON outbox (row) WHERE state <> 0;
";

/// Messages that may wait at a time.
pub(crate) const OUTBOX_WAITING_MAX: u32 = 10_000;
/// Finished messages that are kept to be looked at.
pub(crate) const OUTBOX_FINISHED_MAX: u32 = 1_000;
/// Bytes of a message.
pub(crate) const OUTBOX_BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the reason of a failure.
const ERROR_BYTES_MAX: usize = 500;

/// For whom something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The operators.
    Operators,
    /// A tenant. Rows of tenants begin at 1.
    Tenant(TenantRow),
}

impl Owner {
    /// Its number in the store: the row of a tenant, 0 for the operators.
    pub const fn number(self) -> u32 {
        match self {
            Self::Operators => 0,
            Self::Tenant(row) => row.0,
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Operators,
            row => Self::Tenant(TenantRow(row)),
        }
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Channel {
    /// A POST to the owner's webhook.
    Webhook = 0,
    /// E-mail.
    Email = 1,
}

impl Channel {
    /// The name in lists and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Email => "email",
        }
    }
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum MessageState {
    /// It has not been taken yet.
    Waiting = 0,
    /// The receiver has taken it.
    Delivered = 1,
    /// It was not taken in time.
    GivenUp = 2,
}

/// A new message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Its name, the same at every attempt.
    pub id: String,
    /// Which way it goes.
    pub channel: Channel,
    /// For whom it is.
    pub owner: Owner,
    /// What it is about.
    pub kind: String,
    /// What it says.
    pub body: String,
    /// Until when it is tried.
    pub give_up: UnixMillis,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its row.
    pub row: i64,
    /// What it is.
    pub message: NewMessage,
    /// When it was written.
    pub created: UnixMillis,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next.
    pub next: UnixMillis,
    /// Where it stands.
    pub state: MessageState,
    /// How the last attempt failed.
    pub error: Option<String>,
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Whose.
    pub owner: Owner,
    /// Where.
    pub url: String,
    /// The secret that signs, wrapped under the tenant's key; the operators', under the master key.
    pub secret: Vec<u8>,
}

/// Something to be written about messages, without an entry in the journal.
#[derive(Clone, Debug)]
pub enum OutboxWrite {
    /// A new message.
    Post(NewMessage),
    /// One was taken.
    Delivered {
        /// Which.
        row: i64,
    },
    /// One was not taken.
    Failed {
        /// Which.
        row: i64,
        /// Why.
        error: String,
        /// When to try again; `None`: never.
        next: Option<UnixMillis>,
    },
}

/// A change of webhooks, or a message to every tenant.
#[derive(Debug)]
pub enum OutboxChange {
    /// Sets a webhook; messages that wait go there.
    SetWebhook {
        /// Whose; `None`: the operators'.
        tenant: Option<TenantName>,
        /// Where.
        url: String,
        /// What the journal may say of it.
        host: String,
        /// The secret, wrapped under the tenant's key; the operators', under the master key.
        secret: Box<[u8]>,
    },
    /// Removes a webhook.
    RemoveWebhook {
        /// Whose; `None`: the operators'.
        tenant: Option<TenantName>,
    },
    /// A message to every tenant that has a webhook.
    Broadcast {
        /// Begins the names of the messages.
        id: String,
        /// What it is about.
        kind: String,
        /// What it says.
        body: String,
        /// Until when it is tried.
        give_up: UnixMillis,
    },
    /// A message to one tenant, if it has a webhook.
    Tell {
        /// Whom.
        tenant: TenantName,
        /// The message's name.
        id: String,
        /// What it is about.
        kind: String,
        /// What it says.
        body: String,
        /// Until when it is tried.
        give_up: UnixMillis,
    },
}

fn whose(tenant: Option<&TenantName>) -> &str {
    tenant.map_or("operators", TenantName::as_str)
}

impl OutboxChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::SetWebhook { tenant, host, .. } => {
                ("webhook.set", format!("{} host={host}", whose(tenant.as_ref())))
            }
            Self::RemoveWebhook { tenant } => ("webhook.remove", whose(tenant.as_ref()).to_owned()),
            Self::Broadcast { id, kind, .. } => ("message.broadcast", format!("{id} {kind}")),
            Self::Tell { tenant, id, kind, .. } => ("message.tell", format!("{tenant} {id} {kind}")),
        }
    }
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    change: OutboxChange,
) -> Result<()> {
    match change {
        OutboxChange::SetWebhook {
            tenant, url, secret, ..
        } => {
            let owner = owner_of(directory, tenant.as_ref())?.number();
            let sql = "INSERT OR REPLACE INTO webhook (owner, url, secret, created_ms) VALUES (?, ?, ?, ?)";
            db.execute(sql, params![owner, url, secret, at.0.cast_signed()])?;
            Ok(())
        }
        OutboxChange::RemoveWebhook { tenant } => {
            let owner = owner_of(directory, tenant.as_ref())?.number();
            if db.execute("DELETE FROM webhook WHERE owner = ?", [owner])? == 0 {
                let text = format!("{}: no webhook is set", whose(tenant.as_ref()));
                return Err(refuse(Code::NotFound, text));
            }
            Ok(())
        }
        OutboxChange::Broadcast {
            id,
            kind,
            body,
            give_up,
        } => broadcast(db, at, [&id, &kind, &body], give_up),
        OutboxChange::Tell {
            tenant,
            id,
            kind,
            body,
            give_up,
        } => {
            let owner = owner_of(directory, Some(&tenant))?;
            if webhook(db, owner)?.is_none() {
                return Ok(());
            }
            let message = NewMessage {
                id,
                channel: Channel::Webhook,
                owner,
                kind,
                body,
                give_up,
            };
            post(db, at, &message)
        }
    }
}

fn owner_of(directory: &Directory, tenant: Option<&TenantName>) -> Result<Owner> {
    let Some(name) = tenant else {
        return Ok(Owner::Operators);
    };
    let missing = || refuse(Code::NotFound, format!("no tenant '{name}'"));
    let tenant = directory.tenant(name.as_str()).ok_or_else(missing)?;
    Ok(Owner::Tenant(tenant.row))
}

fn broadcast(
    db: &Connection,
    at: UnixMillis,
    [id, kind, body]: [&str; 3],
    give_up: UnixMillis,
) -> Result<()> {
    let tenants: Vec<u32> = db
        .prepare("SELECT owner FROM webhook WHERE owner > 0 ORDER BY owner")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for owner in tenants {
        let message = NewMessage {
            id: format!("{id}_{owner}"),
            channel: Channel::Webhook,
            owner: Owner::from_number(owner),
            kind: kind.to_owned(),
            body: body.to_owned(),
            give_up,
        };
        post(db, at, &message)?;
    }
    Ok(())
}

fn post(db: &Connection, at: UnixMillis, message: &NewMessage) -> Result<()> {
    if message.body.len() > OUTBOX_BODY_BYTES_MAX {
        let text = format!("a message has at most {OUTBOX_BODY_BYTES_MAX} bytes");
        return Err(refuse(Code::TooLarge, text));
    }
    if waiting(db)? >= OUTBOX_WAITING_MAX {
        let text = format!("{OUTBOX_WAITING_MAX} messages wait to be sent; no more are taken");
        return Err(StoreError::Refused(
            Refusal::new(Code::Overloaded, text).retry_after_ms(60_000),
        ));
    }
    let sql = "INSERT OR IGNORE INTO outbox (id, channel, owner, kind, body, created_ms, give_up_ms, next_ms) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let (at_ms, give_up_ms) = (at.0.cast_signed(), message.give_up.0.cast_signed());
    db.prepare_cached(sql)?.execute(params![
        message.id,
        message.channel as u8,
        message.owner.number(),
        message.kind,
        message.body,
        at_ms,
        give_up_ms,
        at_ms
    ])?;
    Ok(())
}

/// Writes what stands for itself into the open transaction.
pub(crate) fn write(db: &Connection, at: UnixMillis, writes: &[OutboxWrite]) -> Result<()> {
    for write in writes {
        match write {
            OutboxWrite::Post(message) => post(db, at, message)?,
            OutboxWrite::Delivered { row } => finish(db, *row, MessageState::Delivered, None)?,
            OutboxWrite::Failed {
                row,
                error,
                next: None,
            } => finish(db, *row, MessageState::GivenUp, Some(cut(error)))?,
            OutboxWrite::Failed {
                row,
                error,
                next: Some(next),
            } => {
                let sql = "UPDATE outbox SET attempts = attempts + 1, next_ms = ?, error = ? WHERE row = ?";
                db.prepare_cached(sql)?
                    .execute(params![next.0.cast_signed(), cut(error), row])?;
            }
        }
    }
    forget(db)
}

fn finish(db: &Connection, row: i64, state: MessageState, error: Option<&str>) -> Result<()> {
    let sql = "UPDATE outbox SET attempts = attempts + 1, state = ?, error = ? WHERE row = ? AND state = 0";
    db.prepare_cached(sql)?
        .execute(params![state as u8, error, row])?;
    Ok(())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_BYTES_MAX)]
}

/// Lets go of what has been finished for long.
fn forget(db: &Connection) -> Result<()> {
    let sql = "DELETE FROM outbox WHERE state <> 0 AND row <= \
               (SELECT row FROM outbox WHERE state <> 0 ORDER BY row DESC LIMIT 1 OFFSET ?)";
    db.prepare_cached(sql)?.execute([OUTBOX_FINISHED_MAX])?;
    Ok(())
}

const COLUMNS: &str =
    "row, id, channel, owner, kind, body, created_ms, give_up_ms, attempts, next_ms, state, error";

fn millis(ms: i64) -> UnixMillis {
    UnixMillis(ms.cast_unsigned())
}

/// A message, with the numbers of its channel and of its state still to be read.
type Raw = (Message, u8, u8);

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Raw> {
    let message = NewMessage {
        id: row.get(1)?,
        channel: Channel::Webhook,
        owner: Owner::from_number(row.get(3)?),
        kind: row.get(4)?,
        body: row.get(5)?,
        give_up: millis(row.get(7)?),
    };
    let message = Message {
        row: row.get(0)?,
        message,
        created: millis(row.get(6)?),
        attempts: row.get(8)?,
        next: millis(row.get(9)?),
        state: MessageState::Waiting,
        error: row.get(11)?,
    };
    Ok((message, row.get(2)?, row.get(10)?))
}

fn checked((mut message, channel, state): Raw) -> Result<Message> {
    message.message.channel = match channel {
        0 => Channel::Webhook,
        1 => Channel::Email,
        _ => return Err(corrupt("the channel of a message")),
    };
    message.state = match state {
        0 => MessageState::Waiting,
        1 => MessageState::Delivered,
        2 => MessageState::GivenUp,
        _ => return Err(corrupt("the state of a message")),
    };
    Ok(message)
}

fn collect(db: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<Message>> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(parameters, from_row)?;
    rows.map(|row| row.map_err(StoreError::from).and_then(checked))
        .collect()
}

/// What is to be sent now, at most so many; what is for the operators comes first.
pub(crate) fn due(db: &Connection, now: UnixMillis, count: u32) -> Result<Vec<Message>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM outbox WHERE state = 0 AND next_ms <= ? ORDER BY owner > 0, next_ms LIMIT ?"
    );
    collect(db, &sql, params![now.0.cast_signed(), count])
}

/// The newest, at most so many.
pub(crate) fn list(db: &Connection, count: u32) -> Result<Vec<Message>> {
    let sql = format!("SELECT {COLUMNS} FROM outbox ORDER BY row DESC LIMIT ?");
    collect(db, &sql, [count])
}

/// How many wait.
pub(crate) fn waiting(db: &Connection) -> Result<u32> {
    let sql = "SELECT count(*) FROM outbox WHERE state = 0";
    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn webhook_from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Webhook> {
    Ok(Webhook {
        owner: Owner::from_number(row.get(0)?),
        url: row.get(1)?,
        secret: row.get(2)?,
    })
}

/// An owner's webhook.
pub(crate) fn webhook(db: &Connection, owner: Owner) -> Result<Option<Webhook>> {
    let sql = "SELECT owner, url, secret FROM webhook WHERE owner = ?";
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement
        .query_row([owner.number()], webhook_from_row)
        .optional()?)
}

/// All webhooks.
pub(crate) fn webhooks(db: &Connection) -> Result<Vec<Webhook>> {
    let mut statement = db.prepare("SELECT owner, url, secret FROM webhook ORDER BY owner")?;
    let rows = statement.query_map([], webhook_from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::in_memory;

    fn message(id: &str, owner: Owner) -> NewMessage {
        NewMessage {
            id: id.into(),
            channel: Channel::Webhook,
            owner,
            kind: "alert.raised".into(),
            body: "{}".into(),
            give_up: UnixMillis(100_000),
        }
    }

    const ACME: Owner = Owner::Tenant(TenantRow(1));

    fn ids(messages: Vec<Message>) -> Vec<String> {
        messages.into_iter().map(|message| message.message.id).collect()
    }

    #[test]
    fn a_message_waits_until_it_is_taken_or_given_up() {
        let db = in_memory().unwrap();
        let now = UnixMillis(1_000);
        let posts = [("a", ACME), ("b", Owner::Operators), ("c", ACME)]
            .map(|(id, owner)| OutboxWrite::Post(message(id, owner)));
        write(&db, now, &posts).unwrap();
        let waiting_now = due(&db, now, 10).unwrap();
        assert_eq!(ids(waiting_now.clone()), ["b", "a", "c"], "operators first");
        let row = |at: usize| waiting_now[at].row;
        let failed = |row, next| OutboxWrite::Failed {
            row,
            error: "500".into(),
            next,
        };
        let writes = [
            OutboxWrite::Delivered { row: row(0) },
            failed(row(1), Some(UnixMillis(5_000))),
            failed(row(2), None),
        ];
        write(&db, now, &writes).unwrap();
        assert_eq!(
            ids(due(&db, UnixMillis(4_999), 10).unwrap()),
            Vec::<String>::new()
        );
        let again = due(&db, UnixMillis(5_000), 10).unwrap();
        assert_eq!((again[0].attempts, again[0].error.as_deref()), (1, Some("500")));
        assert_eq!(waiting(&db).unwrap(), 1);
        let states: Vec<_> = list(&db, 10).unwrap().iter().map(|one| one.state).collect();
        let wanted = [
            MessageState::GivenUp,
            MessageState::Delivered,
            MessageState::Waiting,
        ];
        assert_eq!(states, wanted);
    }

    #[test]
    fn a_name_is_posted_once_and_the_box_is_bounded() {
        let db = in_memory().unwrap();
        let now = UnixMillis(1_000);
        for number in 0..OUTBOX_WAITING_MAX {
            post(&db, now, &message(&number.to_string(), ACME)).unwrap();
        }
        let code = |id: &str| post(&db, now, &message(id, ACME)).unwrap_err().refusal().code;
        assert_eq!(code("one more"), Code::Overloaded);
        let row = due(&db, now, 1).unwrap()[0].row;
        write(&db, now, &[OutboxWrite::Delivered { row }]).unwrap();
        post(&db, now, &message("5", ACME)).unwrap();
        assert_eq!(
            waiting(&db).unwrap(),
            OUTBOX_WAITING_MAX - 1,
            "5 is there already"
        );
    }

    #[test]
    fn finished_messages_are_kept_for_a_while_only() {
        let db = in_memory().unwrap();
        let now = UnixMillis(1_000);
        let count = OUTBOX_FINISHED_MAX + 5;
        for number in 0..count {
            post(&db, now, &message(&number.to_string(), ACME)).unwrap();
        }
        for one in due(&db, now, count).unwrap() {
            write(&db, now, &[OutboxWrite::Delivered { row: one.row }]).unwrap();
        }
        let kept = list(&db, count).unwrap();
        assert_eq!(kept.len(), OUTBOX_FINISHED_MAX as usize);
        assert_eq!(kept[0].message.id, (count - 1).to_string());
    }

    #[test]
    fn a_broadcast_reaches_every_tenant_with_a_webhook_and_not_the_operators() {
        let db = in_memory().unwrap();
        for owner in [0, 4, 9] {
            let sql =
                "INSERT INTO webhook (owner, url, secret, created_ms) VALUES (?, 'https://a', x'00', 0)";
            db.execute(sql, [owner]).unwrap();
        }
        let change = OutboxChange::Broadcast {
            id: "notice_n1".into(),
            kind: "maintenance.notice".into(),
            body: "{}".into(),
            give_up: UnixMillis(9_000),
        };
        apply(&db, &Directory::default(), UnixMillis(1), change).unwrap();
        assert_eq!(
            ids(due(&db, UnixMillis(1), 10).unwrap()),
            ["notice_n1_4", "notice_n1_9"]
        );
        assert_eq!(webhooks(&db).unwrap().len(), 3);
        assert!(webhook(&db, Owner::Tenant(TenantRow(5))).unwrap().is_none());
    }
}
