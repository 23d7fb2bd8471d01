//! Calls: requests in flight on one core, each with its items, its deadline and the one place its answer goes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::algorithm::{Algorithm, Format};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialRow, IdempotencyKey};
use protocol::limits::ANSWER_HARD_MS_MAX;
use protocol::message::{Answer, ItemOutcome};
use protocol::stages::StageTimes;
use slab::Slab;
use smallvec::SmallVec;
use store::{App, Attempt, Credential, Epoch, Fingerprint, Item, Proof, RequestHash, SealUse};

use crate::latency::{Ending, Operation, Series, Transport};
use crate::wheel::Wheel;

/// Names one item of one call of one core, also after the call has ended: then it is stale and found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The core.
    pub(crate) core: u16,
    /// The item's place in its call.
    pub(crate) item: u16,
    slot: u32,
    generation: u32,
}

impl Ticket {
    pub(crate) const fn with_item(mut self, item: u16) -> Self {
        self.item = item;
        self
    }

    pub(crate) const fn same_call(&self, other: &Self) -> bool {
        self.core == other.core && self.slot == other.slot && self.generation == other.generation
    }
}

/// A stream that many calls are answered on.
pub trait Stream {
    /// Sends one reply. Must not block; called on the core's thread.
    fn reply(&self, request: u64, result: Result<Answer, Refusal>);
}

/// Where the answer of a call goes.
pub enum ReplyTo {
    /// To a stream of the native protocol, with the request's id.
    Stream(Rc<dyn Stream>, u64),
    /// To one waiting HTTP handler.
    Once(tokio::sync::oneshot::Sender<Result<Answer, Refusal>>),
    /// To work on a document, which is measured and judged as a whole.
    Inside(tokio::sync::oneshot::Sender<Result<Answer, Refusal>>),
}

impl ReplyTo {
    /// The way it goes: streams are of the native protocol.
    pub(crate) const fn transport(&self) -> Transport {
        match self {
            Self::Stream(..) => Transport::Quic,
            Self::Once(_) | Self::Inside(_) => Transport::Https,
        }
    }

    pub(crate) fn answer(self, result: Result<Answer, Refusal>) {
        match self {
            Self::Stream(stream, request) => stream.reply(request, result),
            // A client that has gone needs no answer; what was signed is recorded.
            Self::Once(waiting) | Self::Inside(waiting) => drop(waiting.send(result)),
        }
    }
}

/// One digest or message.
pub type Input = SmallVec<[u8; 64]>;

/// A place among the calls in flight that an app's contract allows; given back when it is dropped.
pub(crate) struct Permit(Arc<App>);

impl Permit {
    pub(crate) fn take(app: &Arc<App>) -> Option<Self> {
        app.allowance.enter().then(|| Self(Arc::clone(app)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.allowance.leave();
    }
}

/// A checked signing request.
pub struct SignCall {
    /// Taken over by the call.
    pub(crate) permit: Option<Permit>,
    pub(crate) app: (Arc<App>, Epoch),
    pub(crate) credential: (Arc<Credential>, Epoch),
    /// Under which seal, if under one.
    pub(crate) seal: Option<Box<SealUse>>,
    /// How often the credential's certificate had been renewed when the call was admitted.
    pub(crate) renewals: u32,
    pub(crate) algorithm: Algorithm,
    pub(crate) format: Format,
    pub(crate) key: IdempotencyKey,
    pub(crate) inputs: SmallVec<[Input; 1]>,
    /// The first input's number among the items of the key, and how many those are.
    pub(crate) place: (u16, u16),
    pub(crate) user_id: Option<Box<[u8]>>,
    pub(crate) request: RequestHash,
    pub(crate) proof: Proof,
}

impl SignCall {
    /// One signature of an operation of several: this one's number, and how many there are.
    #[must_use]
    pub fn at_place(mut self, first: u16, of: u16) -> Self {
        self.place = (first, of);
        self
    }

    /// The number of an item in the call.
    pub(crate) const fn index_of(&self, item: &Item) -> u16 {
        item.item.saturating_sub(self.place.0)
    }

    /// Under what its certificate chain is kept.
    pub(crate) fn chain_key(&self) -> (CredentialRow, u32) {
        (self.credential.0.row, self.renewals)
    }
}

/// Which credentials, or seals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those after this id.
    pub after: Option<Box<str>>,
    /// Only this one.
    pub only: Option<Box<str>>,
}

/// What a call asks for.
pub enum Ask {
    /// Signatures.
    Sign(Box<SignCall>),
    /// What became of an earlier call.
    Lookup(Arc<App>, IdempotencyKey),
    /// The app's credentials.
    Credentials(Arc<App>, Page),
    /// The seals of its tenant.
    Seals(Arc<App>, Page),
    /// The app's usage.
    Usage(Arc<App>),
}

impl Ask {
    fn app(&self) -> &Arc<App> {
        match self {
            Self::Sign(sign) => &sign.app.0,
            Self::Lookup(app, _) | Self::Credentials(app, _) | Self::Seals(app, _) | Self::Usage(app) => app,
        }
    }

    /// What it is, and how it is to be signed.
    pub const fn kind(&self) -> (Operation, Option<Algorithm>) {
        match self {
            Self::Sign(sign) => (Operation::Sign, Some(sign.algorithm)),
            Self::Lookup(..) => (Operation::Lookup, None),
            // Both are read in the same way, and neither is promised anything.
            Self::Credentials(..) | Self::Seals(..) => (Operation::Credentials, None),
            Self::Usage(_) => (Operation::Usage, None),
        }
    }
}

/// When a request's last byte was there, and when it had been proved and read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its last byte was there.
    pub received: Instant,
    /// It was proved and read.
    pub decoded: Instant,
}

/// How an item stands.
pub(crate) enum ItemState {
    /// Somebody works on it, or it is being read from the journal.
    Open {
        fingerprint: Fingerprint,
        /// What is or would be recorded; `None` while the item is read from the journal.
        attempt: Option<Arc<Attempt>>,
        /// This call claimed the key, and holds a unit of the balance for it.
        ours: bool,
    },
    /// It has its outcome.
    Final(ItemOutcome),
}

/// How a call stands with its deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not due yet.
    Waiting,
    /// The deadline passed and records of "pending" are on their way to the disk.
    Due,
}

/// A request in flight.
pub struct Call {
    pub(crate) reply: ReplyTo,
    /// Taken out while it is worked on; `None` once it is on its way.
    pub(crate) ask: Option<Ask>,
    pub(crate) received: Instant,
    decoded: Instant,
    kind: (Operation, Option<Algorithm>),
    /// The marks of the item that had its outcome last.
    marks: [Option<Duration>; 4],
    pub(crate) deadline: Instant,
    pub(crate) items: SmallVec<[ItemState; 1]>,
    pub(crate) open: usize,
    pub(crate) patience: Patience,
    /// Whose it is.
    pub(crate) app: Arc<App>,
    _permit: Option<Permit>,
    generation: u32,
}

impl Call {
    /// A new call.
    pub fn new(reply: ReplyTo, mut ask: Ask, arrival: Arrival, deadline: Instant) -> Self {
        let (app, kind) = (Arc::clone(ask.app()), ask.kind());
        let permit = match &mut ask {
            Ask::Sign(sign) => sign.permit.take(),
            _ => None,
        };
        let (ask, items) = (Some(ask), SmallVec::new());
        Self {
            reply,
            ask,
            received: arrival.received,
            decoded: arrival.decoded,
            kind,
            marks: [None; 4],
            deadline,
            items,
            open: 0,
            patience: Patience::Waiting,
            app,
            _permit: permit,
            generation: 0,
        }
    }

    /// Notes an item's outcome. `None`: it had one already. Otherwise whether this call had claimed it.
    pub(crate) fn finish_item(&mut self, item: u16, outcome: ItemOutcome) -> Option<bool> {
        let state = self.items.get_mut(usize::from(item))?;
        let ours = match state {
            ItemState::Final(_) => return None,
            ItemState::Open { ours, attempt, .. } => {
                if let Some(attempt) = attempt {
                    self.marks = attempt.marks.read();
                }
                *ours
            }
        };
        *state = ItemState::Final(outcome);
        self.open -= 1;
        Some(ours)
    }

    /// What it is told apart by, now that it has ended.
    pub(crate) const fn series(&self, ending: Ending) -> Series {
        Series {
            operation: self.kind.0,
            transport: self.reply.transport(),
            algorithm: self.kind.1,
            ending,
        }
    }

    /// Where its time went, when it is answered so long after it was received. One that is answered before its items
    /// have their outcomes is where the first of those is.
    pub(crate) fn stage_times(&self, latency: Duration) -> StageTimes {
        let marks = marks_of_open(&self.items).unwrap_or(self.marks);
        let decoded = self.decoded.saturating_duration_since(self.received);
        StageTimes::of(decoded, marks, latency)
    }

    /// Takes the items out, to answer with. Of one that is still open it is remembered how far it has come.
    pub(crate) fn take_items(&mut self) -> SmallVec<[ItemState; 1]> {
        let items = std::mem::take(&mut self.items);
        if let Some(marks) = marks_of_open(&items) {
            self.marks = marks;
        }
        items
    }

    /// The items whose keys this call has claimed and that have no outcome yet.
    pub(crate) fn claimed(&self) -> Vec<Arc<Attempt>> {
        let claimed = |item: &ItemState| match item {
            ItemState::Open {
                attempt: Some(attempt),
                ours: true,
                ..
            } => Some(Arc::clone(attempt)),
            _ => None,
        };
        self.items.iter().filter_map(claimed).collect()
    }

    /// Whether it has claimed its keys and handed nothing to the pool yet: it waits for units of its balance.
    pub(crate) fn waits_for_units(&self) -> bool {
        self.ask.is_some() && !self.items.is_empty()
    }

    /// The call's answer from its items. One refusal for all when every item was refused for one reason.
    pub(crate) fn result(items: SmallVec<[ItemState; 1]>) -> Result<Answer, Refusal> {
        let outcomes: Vec<ItemOutcome> = items
            .into_iter()
            .map(|item| match item {
                ItemState::Final(outcome) => outcome,
                _ => ItemOutcome::Failed(unknown_outcome()),
            })
            .collect();
        match &outcomes[..] {
            [ItemOutcome::Failed(first), rest @ ..]
                if rest
                    .iter()
                    .all(|item| matches!(item, ItemOutcome::Failed(r) if r.code == first.code)) =>
            {
                Err(first.clone())
            }
            _ => Ok(Answer::Items(outcomes)),
        }
    }
}

fn marks_of_open(items: &[ItemState]) -> Option<[Option<Duration>; 4]> {
    items.iter().find_map(|item| match item {
        ItemState::Open {
            attempt: Some(attempt),
            ..
        } => Some(attempt.marks.read()),
        _ => None,
    })
}

pub(crate) fn unknown_outcome() -> Refusal {
    let text =
        "the request is still running and that could not be recorded; retry with the same idempotency key";
    Refusal::new(Code::OutcomeUnknown, text)
}

/// The calls of one core.
pub(crate) struct CallTable {
    calls: Slab<Call>,
    wheel: Wheel<(u32, u32)>,
    core: u16,
    /// Goes on from the core's previous life, so that tickets of then stay stale.
    generation: u32,
}

impl CallTable {
    pub(crate) fn new(core: u16, generation: u32, now: Instant) -> Self {
        Self {
            calls: Slab::new(),
            wheel: Wheel::new(now),
            core,
            generation,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Takes a call in and sets its timer.
    pub(crate) fn insert(&mut self, mut call: Call) -> Ticket {
        self.generation = self.generation.wrapping_add(1);
        call.generation = self.generation;
        let deadline = call.deadline;
        let slot =
            u32::try_from(self.calls.insert(call)).expect("calls in flight are bounded far below 2^32");
        self.wheel.set(deadline, (slot, self.generation));
        Ticket {
            core: self.core,
            item: 0,
            slot,
            generation: self.generation,
        }
    }

    pub(crate) fn get(&mut self, ticket: Ticket) -> Option<&mut Call> {
        let call = self.calls.get_mut(ticket.slot as usize)?;
        (call.generation == ticket.generation).then_some(call)
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Call> {
        self.get(ticket)?;
        Some(self.calls.remove(ticket.slot as usize))
    }

    /// Calls that are due. Each is due once more, at the hard limit, if it is not answered by then.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Ticket> {
        let hard = Duration::from_millis(ANSWER_HARD_MS_MAX);
        let mut due = Vec::new();
        for (slot, generation) in self.wheel.due(now) {
            let ticket = Ticket {
                core: self.core,
                item: 0,
                slot,
                generation,
            };
            let Some(call) = self.get(ticket) else { continue };
            let received = call.received;
            if call.patience == Patience::Waiting {
                self.wheel.set((received + hard).max(now), (slot, generation));
            }
            due.push(ticket);
        }
        due
    }

    /// Every call, for a core that ends.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        let ticket = |(slot, call): (usize, &Call)| Ticket {
            core: self.core,
            item: 0,
            slot: slot as u32,
            generation: call.generation,
        };
        self.calls.iter().map(ticket).collect()
    }
}
