//! The courier: a thread that takes messages out of the outbox and brings them to their receivers, at least once, until
//! they are taken or given up. The rules are in `actors::outgoing`; [`post`] and [`mail`] have the sockets. [`witnesses`] is a
//! thread of its own, which has checkpoints of the audit log cosigned and time-stamped.

pub(crate) mod mail;
pub(crate) mod post;
pub(crate) mod stamp;
pub(crate) mod witnesses;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::call::Ticket;
use actors::outgoing::destination::{Allowed, Destination};
use actors::outgoing::schedule::{self, Verdict};
use actors::outgoing::signature;
use actors::services::Services;
use actors::vault::Vault;
use aws_lc_rs::rand;
use crossbeam_channel::Receiver;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use store::{
    Channel, Message, MessageState, NewMessage, OutboxWrite, Owner, Reader, StoreError, StoreHandle,
};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use self::mail::Mailer;
use self::post::Poster;
use crate::admin::messages::secret_label;
use crate::config::OutgoingConfig;

/// How long an attempt may take (SEMANTICS 2.7).
pub(crate) const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// Attempts at a time.
const AT_A_TIME: u32 = 8;
/// How often the outbox is looked into while nothing is due.
const BEAT: Duration = Duration::from_millis(250);
/// Messages held in memory while the disk has no room for them.
pub(crate) const ASIDE_MAX: usize = 64;

/// What has been sent, by channel.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) delivered: [AtomicU64; 2],
    pub(crate) failed: [AtomicU64; 2],
    pub(crate) given_up: [AtomicU64; 2],
    /// Messages that wait, when they were counted last.
    pub(crate) waiting: AtomicU64,
}

/// How an attempt failed.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    text: String,
    /// It is not tried again.
    for_good: bool,
}

impl Failure {
    fn now(text: impl ToString) -> Self {
        let (text, for_good) = (text.to_string(), false);
        Self { text, for_good }
    }

    fn for_good(text: impl ToString) -> Self {
        let (text, for_good) = (text.to_string(), true);
        Self { text, for_good }
    }

    /// A tenant's key that is destroyed or does not open stays so; a store that cannot be read now may be later.
    fn of_key(refusal: Refusal) -> Self {
        match refusal.code {
            Code::TenantClosed | Code::DataCorrupt => Self::for_good(refusal),
            _ => Self::now(refusal),
        }
    }
}

/// A webhook and the secret that signs what goes there.
type Hook = (Destination, Zeroizing<Vec<u8>>);

/// A message with where it goes; by e-mail where there is no webhook.
struct Parcel {
    message: Message,
    webhook: Option<Hook>,
}

/// What brings messages.
struct Courier {
    poster: Poster,
    mailer: Option<Mailer>,
    counters: Arc<Counters>,
}

/// What the thread is made of.
pub(crate) struct Plan {
    pub(crate) services: Arc<Services>,
    pub(crate) allowed: Allowed,
    pub(crate) counters: Arc<Counters>,
    /// What the disk has no room for.
    pub(crate) aside: Receiver<NewMessage>,
}

/// Starts the thread. It ends when the engine stops taking requests; what waits is sent by the next one.
pub(crate) fn start(plan: Plan, config: &OutgoingConfig) -> Result<(), Refusal> {
    let failed =
        |error: &dyn std::fmt::Display| Refusal::new(Code::Internal, format!("the courier: {error}"));
    let roots = config.ca.as_deref();
    let courier = Arc::new(Courier {
        poster: Poster::new(roots, plan.allowed)?,
        mailer: config
            .email
            .as_ref()
            .map(|email| Mailer::new(email, roots))
            .transpose()?,
        counters: Arc::clone(&plan.counters),
    });
    let store = &plan.services.store;
    let round = Round {
        reader: store.reader().map_err(|error| error.refusal())?,
        store: Arc::clone(store),
        vault: Arc::clone(&plan.services.vault),
        courier,
        plan,
        unwritten: Vec::new(),
        held: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    std::thread::Builder::new()
        .name("courier".into())
        .spawn(move || runtime.block_on(round.run()))
        .map(drop)
        .map_err(|error| failed(&error))
}

/// One round after the other.
struct Round {
    plan: Plan,
    reader: Reader,
    store: Arc<StoreHandle<Ticket>>,
    vault: Arc<Vault>,
    courier: Arc<Courier>,
    /// How attempts ended, as far as that could not be written yet: what was taken is not sent again for it.
    unwritten: Vec<OutboxWrite>,
    /// Messages in memory only.
    held: Vec<Message>,
}

impl Round {
    async fn run(mut self) {
        while self.plan.services.closed().is_none() {
            let sent = match self.once(clock::wall()).await {
                Ok(sent) => sent,
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be read or written");
                    0
                }
            };
            if sent == 0 {
                tokio::time::sleep(BEAT).await;
            }
        }
    }

    /// Sends what is due and returns how much that was.
    async fn once(&mut self, now: UnixMillis) -> Result<usize, StoreError> {
        self.write()?;
        self.take_aside(now);
        let mut due = self.reader.due_messages(now, AT_A_TIME)?;
        let waiting = u64::from(self.reader.waiting_messages()?) + self.held.len() as u64;
        self.courier.counters.waiting.store(waiting, Ordering::Relaxed);
        due.extend(self.held.iter().filter(|message| message.next <= now).cloned());
        let count = due.len();
        let mut attempts = JoinSet::new();
        for message in due {
            match self.way_of(&message) {
                Ok(webhook) => {
                    let courier = Arc::clone(&self.courier);
                    let parcel = Parcel { message, webhook };
                    attempts.spawn(async move {
                        let result = courier.bring(&parcel).await;
                        (parcel.message, result)
                    });
                }
                Err(failure) => self.note(&message, Err(failure)),
            }
        }
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok((message, result)) => self.note(&message, result),
                Err(error) => tracing::error!(%error, "an attempt ended early"),
            }
        }
        self.write()?;
        Ok(count)
    }

    /// Takes messages that the disk has no room for. Their rows are below zero.
    fn take_aside(&mut self, now: UnixMillis) {
        while self.held.len() < ASIDE_MAX
            && let Ok(message) = self.plan.aside.try_recv()
        {
            let lowest = self.held.iter().map(|held| held.row).min().unwrap_or(0);
            self.held.push(Message {
                row: lowest.min(0) - 1,
                message,
                created: now,
                attempts: 0,
                next: now,
                state: MessageState::Waiting,
                error: None,
            });
        }
    }

    /// Where a message goes; `None`: by e-mail.
    fn way_of(&self, message: &Message) -> Result<Option<Hook>, Failure> {
        match message.message.channel {
            Channel::Email => Ok(None),
            Channel::Webhook => self.webhook(message.message.owner).map(Some),
        }
    }

    fn webhook(&self, owner: Owner) -> Result<Hook, Failure> {
        let webhook = self.reader.webhook(owner).map_err(Failure::now)?;
        let webhook = webhook.ok_or_else(|| Failure::for_good("there is no webhook any more"))?;
        let label = secret_label(owner);
        let secret = match owner {
            Owner::Operators => self.vault.unwrap(&webhook.secret, label.as_bytes()),
            Owner::Tenant(row) => {
                let own = self.vault.of_row(&self.reader, row).map_err(Failure::of_key)?;
                own.unwrap(&webhook.secret, label.as_bytes())
            }
        };
        let secret = secret.map_err(Failure::for_good)?;
        let destination = Destination::parse(&webhook.url, self.plan.allowed);
        Ok((destination.map_err(Failure::for_good)?, secret))
    }

    /// Notes how an attempt ended.
    fn note(&mut self, message: &Message, result: Result<(), Failure>) {
        let write = conclude(message, result, clock::wall(), dice());
        self.courier.counters.count(message.message.channel, &write);
        if message.row < 0 {
            self.note_held(message.row, &write);
        } else {
            self.unwritten.push(write);
        }
    }

    fn note_held(&mut self, row: i64, write: &OutboxWrite) {
        match write {
            OutboxWrite::Failed { next: Some(next), .. } => {
                if let Some(held) = self.held.iter_mut().find(|held| held.row == row) {
                    held.attempts += 1;
                    held.next = *next;
                }
            }
            _ => self.held.retain(|held| held.row != row),
        }
    }

    /// Writes what is known. While that fails nothing new is sent.
    fn write(&mut self) -> Result<(), StoreError> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        self.store.write_outbox(self.unwritten.clone())?;
        self.unwritten.clear();
        Ok(())
    }
}

fn dice() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness all come back at the same moment, which is no reason not to come back.
    let _ = rand::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}

/// What an attempt means for its message.
fn conclude(message: &Message, result: Result<(), Failure>, now: UnixMillis, dice: u32) -> OutboxWrite {
    let row = message.row;
    let Err(failure) = result else {
        return OutboxWrite::Delivered { row };
    };
    let next = schedule::next(message.attempts + 1, now, message.message.give_up, dice);
    OutboxWrite::Failed {
        row,
        error: failure.text,
        next: next.filter(|_| !failure.for_good),
    }
}

impl Counters {
    fn count(&self, channel: Channel, write: &OutboxWrite) {
        let counter = match write {
            OutboxWrite::Failed { next: Some(_), .. } => &self.failed,
            OutboxWrite::Failed { next: None, .. } => &self.given_up,
            _ => &self.delivered,
        };
        counter[channel as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Courier {
    async fn bring(&self, parcel: &Parcel) -> Result<(), Failure> {
        let attempt = tokio::time::timeout(ATTEMPT_MAX, self.attempt(parcel));
        let late = |_| Failure::now(format!("no answer within {} s", ATTEMPT_MAX.as_secs()));
        attempt.await.map_err(late)?
    }

    async fn attempt(&self, parcel: &Parcel) -> Result<(), Failure> {
        let message = &parcel.message.message;
        let Some((destination, secret)) = &parcel.webhook else {
            let mailer = self.mailer.as_ref();
            let mailer = mailer.ok_or_else(|| Failure::for_good("no mail relay is configured any more"))?;
            return mailer.send(message).await.map_err(Failure::now);
        };
        let fields = signature::sign(secret, &message.id, clock::wall(), &message.body);
        let status = self.poster.post(destination, &fields, &message.body).await;
        let status = status.map_err(Failure::now)?;
        match schedule::judge(status) {
            Verdict::Delivered => Ok(()),
            Verdict::Later => Err(Failure::now(format!("status {status}"))),
            Verdict::Never => Err(Failure::for_good(format!("status {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attempts: u32) -> Message {
        Message {
            row: 7,
            message: NewMessage {
                id: "msg_1".into(),
                channel: Channel::Webhook,
                owner: Owner::Operators,
                kind: "alert.test".into(),
                body: "{}".into(),
                give_up: UnixMillis(100_000),
            },
            created: UnixMillis(0),
            attempts,
            next: UnixMillis(0),
            state: MessageState::Waiting,
            error: None,
        }
    }

    fn next(attempts: u32, failure: Failure) -> Option<u64> {
        match conclude(&message(attempts), Err(failure), UnixMillis(10_000), 0) {
            OutboxWrite::Failed { next, .. } => next.map(|at| at.0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failure_is_tried_again_until_its_time_is_over_or_it_is_for_good() {
        assert_eq!(next(0, Failure::now("500")), Some(10_500));
        assert_eq!(next(1, Failure::now("500")), Some(11_000));
        assert_eq!(
            next(20, Failure::now("500")),
            None,
            "its time is over before the next try"
        );
        assert_eq!(next(0, Failure::for_good("410")), None);
        let of_key = |code| next(0, Failure::of_key(Refusal::new(code, "its key")));
        assert_eq!(of_key(Code::TenantClosed), None, "it is destroyed");
        assert_eq!(of_key(Code::DataCorrupt), None, "it does not open");
        assert_eq!(of_key(Code::Internal), Some(10_500), "it could not be read");
        let done = conclude(&message(0), Ok(()), UnixMillis(0), 0);
        assert!(matches!(done, OutboxWrite::Delivered { row: 7 }));
    }
}
