//! The shard: the actor that works on the calls of its core. It claims keys, hands tasks to the pool, and brings
//! outcomes back to their calls. It holds no call itself (see [`crate::core`]), so it can be started anew at any time.
//!
//! Talks to: the key index (claims), the pool (tasks), the reader (what must be read), metering (units).
//! Message: [`Work`], "look at your core's queues"; it carries nothing, so none can be lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler, Message, Supervised};
use documents::cms;
use hsm_pool::pool::SubmitError;
use protocol::algorithm::Format;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::message::ItemOutcome;
use protocol::stages::{Mark, Marks};
use smallvec::SmallVec;
use store::{Attempt, Claim, Draft, Environment, Fingerprint, HoldTime, Item, Outcome, Release};

use crate::call::{Ask, Input, ItemState, SignCall, Ticket};
use crate::core::{Core, Event};
use crate::reader::Read;
use crate::services::route;
use crate::task::Task;

/// There is work.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Work;

/// Panic, outside every guard: for rehearsals and tests.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Poison;

/// The actor.
pub(crate) struct Shard {
    core: Rc<Core>,
}

impl Shard {
    pub(crate) const fn new(core: Rc<Core>) -> Self {
        Self { core }
    }
}

impl Actor for Shard {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        // A predecessor may have panicked over a call: that call is answered, and not tried again.
        if let Some(ticket) = self.core.in_hand.take() {
            fail_call(
                &self.core,
                ticket,
                &Refusal::new(Code::Internal, "the request could not be processed"),
            );
        }
    }
}

impl Supervised for Shard {}

impl Handler<Work> for Shard {
    type Result = ();

    fn handle(&mut self, _: Work, _: &mut Self::Context) {
        self.core.begin_work();
        loop {
            let fresh = self.core.fresh.borrow_mut().pop_front();
            let event = self.core.events.borrow_mut().pop_front();
            if fresh.is_none() && event.is_none() {
                return;
            }
            match event {
                // Each on its own, so that a panic over one does not lose the others.
                Some(Event::Outcomes(outcomes)) => {
                    for (ticket, outcome) in outcomes {
                        self.guarded(None, |core| finish(core, ticket, outcome));
                    }
                }
                Some(event) => self.guarded(None, |core| take_event(core, event)),
                None => {}
            }
            if let Some(ticket) = fresh {
                self.guarded(Some(ticket), |core| begin(core, ticket));
            }
        }
    }
}

impl Handler<Poison> for Shard {
    type Result = ();

    fn handle(&mut self, _: Poison, _: &mut Self::Context) {
        panic!("rehearsal: the shard panics");
    }
}

impl Shard {
    /// Runs a step so that a panic in it costs the call in hand and nothing else.
    fn guarded(&self, ticket: Option<Ticket>, step: impl FnOnce(&Core)) {
        self.core.in_hand.set(ticket);
        let result = catch_unwind(AssertUnwindSafe(|| step(&self.core)));
        let in_hand = self.core.in_hand.take();
        if result.is_err() {
            tracing::error!(core = self.core.number, "a step of the shard panicked");
            if let Some(ticket) = in_hand {
                fail_call(
                    &self.core,
                    ticket,
                    &Refusal::new(Code::Internal, "the request could not be processed"),
                );
            }
        }
    }
}

/// Ends a call that cannot go on: keys it had claimed and not handed over are freed.
pub(crate) fn fail_call(core: &Core, ticket: Ticket, refusal: &Refusal) {
    let claimed = match core.table.borrow_mut().get(ticket) {
        Some(call) => call.claimed(),
        None => return,
    };
    core.answer(ticket, Err(refusal.clone()));
    for attempt in claimed {
        release(core, &attempt, refusal);
    }
}

/// Refuses the items of a call that are its own to sign, before a unit was taken for them. The call goes on for the
/// others: what is recorded of them is still brought, because it has been charged.
fn refuse_items(
    core: &Core,
    ticket: Ticket,
    (sign, attempts): (&SignCall, &[Arc<Attempt>]),
    refusal: &Refusal,
) {
    for attempt in attempts {
        let failed = ItemOutcome::Failed(refusal.clone());
        core.finish_item(ticket.with_item(sign.index_of(&attempt.item)), failed);
        release(core, attempt, refusal);
    }
}

/// Frees a claimed key and tells whoever joined. If one of those was told that it is pending, the journal must be told
/// that it failed.
fn release(core: &Core, attempt: &Arc<Attempt>, refusal: &Refusal) {
    let store = &core.services.store;
    match store.index().release(attempt.fingerprint) {
        Release::Absent(waiters) => {
            let outcome = Outcome::Failed(refusal.clone());
            route(
                &core.services.cores,
                waiters.into_iter().map(|waiter| (waiter, outcome.clone())),
            );
        }
        Release::MustRecord => {
            let failed = Draft::Failed(Arc::clone(attempt), refusal.clone());
            if store.try_commit(vec![failed]).is_err() {
                tracing::error!("the committing thread is too far behind to record a failure");
            }
        }
    }
}

fn take_event(core: &Core, event: Event) {
    match event {
        Event::Outcomes(outcomes) => outcomes
            .into_iter()
            .for_each(|(ticket, outcome)| finish(core, ticket, outcome)),
        Event::Answer(ticket, result) => core.answer(ticket, result),
        Event::Resume(ticket) => {
            core.in_hand.set(Some(ticket));
            begin(core, ticket);
        }
        Event::Leased(ticket, result) => {
            core.in_hand.set(Some(ticket));
            match result {
                // Another core's need may have taken the units back meanwhile; then it asks again.
                Ok(()) => launch(core, ticket),
                Err(refusal) => {
                    if let Some((sign, attempts)) = ready(core, ticket) {
                        refuse_items(core, ticket, (&sign, &attempts), &refusal);
                    }
                }
            }
        }
    }
}

fn finish(core: &Core, ticket: Ticket, outcome: Outcome) {
    let failed = matches!(outcome, Outcome::Failed(_));
    let lease = failed.then(|| core.lease_of(ticket)).flatten();
    let ours = core.finish_item(
        ticket,
        match outcome {
            Outcome::Done { signature, sequence } => ItemOutcome::Done {
                signature: signature.into_vec(),
                sequence,
            },
            Outcome::Pending => ItemOutcome::Pending,
            Outcome::Failed(refusal) => ItemOutcome::Failed(refusal),
        },
    );
    // The unit that was held for it is free again.
    if ours && let Some(lease) = lease {
        lease.give_back(core.number, 1);
    }
}

/// Begins a call, or goes on with one whose certificate chain has been read.
fn begin(core: &Core, ticket: Ticket) {
    let ask = match core.table.borrow_mut().get(ticket) {
        Some(call) => call.ask.take(),
        None => return,
    };
    match ask {
        Some(Ask::Sign(sign)) => begin_sign(core, ticket, sign),
        Some(Ask::Lookup(app, key)) => {
            let known = known_items(core, &app, key.as_str());
            ask_reader(core, ticket, Read::Lookup(known));
        }
        Some(Ask::Credentials(app, page)) => {
            let read = Read::Credentials(Arc::clone(&app.tenant), app.environment, page);
            ask_reader(core, ticket, read);
        }
        Some(Ask::Seals(app, page)) => ask_reader(core, ticket, Read::Seals(app, page)),
        Some(Ask::Usage(app)) => ask_reader(core, ticket, Read::Usage(app.row)),
        None => {}
    }
}

/// What the index knows of a call's items: up to the first item that nobody has heard of.
fn known_items(core: &Core, app: &store::App, key: &str) -> Vec<store::Known> {
    let first = Fingerprint::of_call(app.row, key);
    (0..protocol::limits::BATCH_ITEMS_MAX as u16)
        .map(|item| core.services.store.index().look_up(first.item(item)))
        .collect()
}

fn ask_reader(core: &Core, ticket: Ticket, read: Read) {
    if let Err(refusal) = core.services.reader.ask(ticket, read) {
        core.answer(ticket, Err(refusal));
    }
}

fn begin_sign(core: &Core, ticket: Ticket, sign: Box<SignCall>) {
    if sign.format == Format::Cms && core.services.chains.get(&sign.chain_key()).is_none() {
        let read = Read::Chain(Arc::clone(&sign.credential.0), sign.renewals);
        put_back(core, ticket, sign);
        ask_reader(core, ticket, read);
        return;
    }
    match claim(core, ticket, &sign) {
        Ok(0) => {}
        Ok(_) => {
            put_back(core, ticket, sign);
            launch(core, ticket);
        }
        Err(refusal) => fail_call(core, ticket, &refusal),
    }
}

fn put_back(core: &Core, ticket: Ticket, sign: Box<SignCall>) {
    if let Some(call) = core.table.borrow_mut().get(ticket) {
        call.ask = Some(Ask::Sign(sign));
    }
}

/// Claims the key of every item. Returns how many are ours to sign.
fn claim(core: &Core, ticket: Ticket, sign: &SignCall) -> Result<usize, Refusal> {
    let first = Fingerprint::of_call(sign.app.0.row, sign.key.as_str());
    let of = sign.inputs.len() as u16;
    let Some(received) = core.table.borrow_mut().get(ticket).map(|call| call.received) else {
        return Ok(0);
    };
    let mut fresh = 0;
    let mut replays: SmallVec<[(u16, protocol::ids::Sequence); 1]> = SmallVec::new();
    for item in 0..of {
        let fingerprint = first.item(sign.place.0 + item);
        let claimed = core
            .services
            .store
            .index()
            .claim(fingerprint, sign.request, ticket.with_item(item));
        match claimed {
            Claim::Fresh => fresh += 1,
            Claim::Joined => {}
            Claim::Recorded(sequence) => replays.push((item, sequence)),
            Claim::Reused => return Err(reused()),
            Claim::Crowded => return Err(Refusal::new(Code::Overloaded, "too many wait for this key")),
        }
        let read_only = matches!(claimed, Claim::Recorded(_));
        let attempt = (!read_only).then(|| attempt(sign, fingerprint, item, received));
        open_item(
            core,
            ticket,
            ItemState::Open {
                fingerprint,
                attempt,
                ours: claimed == Claim::Fresh,
            },
        );
    }
    for (item, sequence) in replays {
        let read = Read::Replay {
            sequence,
            key: sign.key.clone(),
            request: sign.request,
        };
        core.services.reader.ask(ticket.with_item(item), read)?;
    }
    Ok(fresh)
}

pub(crate) fn reused() -> Refusal {
    Refusal::new(
        Code::IdempotencyKeyReused,
        "the idempotency key was used for another request",
    )
}

fn open_item(core: &Core, ticket: Ticket, state: ItemState) {
    if let Some(call) = core.table.borrow_mut().get(ticket) {
        call.items.push(state);
        call.open += 1;
    }
}

fn attempt(sign: &SignCall, fingerprint: Fingerprint, at: u16, received: Instant) -> Arc<Attempt> {
    let (app, credential) = (&sign.app, &sign.credential);
    let input = &sign.inputs[usize::from(at)];
    Arc::new(Attempt {
        fingerprint,
        item: Item {
            tenant: app.0.tenant.row,
            app: app.0.row,
            credential: credential.0.row,
            key: sign.key.as_str().into(),
            item: sign.place.0 + at,
            of: sign.place.1,
            request: sign.request,
            algorithm: sign.algorithm,
            format: sign.format,
            digest: digest_of(sign, input),
            proof: sign.proof.clone(),
            seal: sign.seal.as_ref().map(|used| used.record()),
        },
        app: (Arc::clone(&app.0), app.1),
        credential: (Arc::clone(&credential.0), credential.1),
        seal: sign.seal.clone(),
        held: HoldTime::default(),
        marks: Marks::new(received),
    })
}

/// What the journal keeps of an input: the digest itself, or the digest of a whole message.
fn digest_of(sign: &SignCall, input: &Input) -> Input {
    use protocol::algorithm::{Algorithm, Hash, InputKind};
    match (sign.algorithm, sign.algorithm.input()) {
        (_, InputKind::Digest(_)) => input.clone(),
        (Algorithm::Sm2Sm3, _) => Hash::Sm3.digest(input),
        _ => Hash::Sha256.digest(input),
    }
}

/// Sends the items that are ours to the pool, once there is room on the disk and in the balance. Whether the balance
/// is used up is for metering to say; until it has, or until the deadline, the call asks.
fn launch(core: &Core, ticket: Ticket) {
    let Some((sign, attempts)) = ready(core, ticket) else {
        return;
    };
    let closed = core.services.closed().or_else(|| storage_full(core));
    if let Some(refusal) = closed.or_else(|| used_up(&sign)) {
        refuse_items(core, ticket, (&sign, &attempts), &refusal);
        return;
    }
    let units = attempts.len() as u64;
    if sign.app.0.environment == Environment::Production && !core.take_units(&sign.app.0.tenant, units) {
        let tenant = Arc::clone(&sign.app.0.tenant);
        put_back(core, ticket, sign);
        core.services.metering.ask_lease(core, tenant, units, ticket);
        return;
    }
    let Some(deadline) = core.table.borrow_mut().get(ticket).map(|call| call.deadline) else {
        return;
    };
    let now = clock::wall();
    let mut attempts = attempts.into_iter();
    let mut follows = false;
    while let Some(attempt) = attempts.next() {
        attempt.held.set(now);
        let made = task(core, &sign, attempt, deadline).map(|task| Task { follows, ..task });
        let Err((attempt, refusal)) = made.and_then(|task| submit(core, task)) else {
            follows = true;
            continue;
        };
        // This tells our own call as well, and brings back the unit that was held.
        release(core, &attempt, &refusal);
        if !follows {
            // A call is admitted as a whole.
            attempts
                .by_ref()
                .for_each(|other| release(core, &other, &refusal));
        }
    }
}

/// The call's request, and the attempts that are ours.
fn ready(core: &Core, ticket: Ticket) -> Option<(Box<SignCall>, Vec<Arc<Attempt>>)> {
    let mut table = core.table.borrow_mut();
    let call = table.get(ticket)?;
    let Some(Ask::Sign(sign)) = call.ask.take() else {
        return None;
    };
    Some((sign, call.claimed()))
}

fn storage_full(core: &Core) -> Option<Refusal> {
    core.services.store.is_full().then(|| {
        Refusal::new(
            Code::StorageFull,
            "the disk is full; recorded signatures can still be read",
        )
        .retry_after_ms(5_000)
    })
}

/// The grant may have been used up since; the committing thread counts, and has the last word.
fn used_up(sign: &SignCall) -> Option<Refusal> {
    let checked = sign.seal.as_ref()?.grant.0.check_uses();
    checked.err().map(store::NotSealed::refusal)
}

type NotSent = (Arc<Attempt>, Refusal);

fn task(core: &Core, sign: &SignCall, attempt: Arc<Attempt>, deadline: Instant) -> Result<Task, NotSent> {
    let content = &sign.inputs[usize::from(sign.index_of(&attempt.item))];
    let user_id = sign.user_id.clone();
    if sign.format != Format::Cms {
        return Ok(Task {
            input: content.clone(),
            place: attempt.credential.0.place(),
            attempt,
            user_id,
            deadline,
            cms: None,
            follows: false,
        });
    }
    let refuse = |text: String| (Arc::clone(&attempt), Refusal::new(Code::UnsupportedFormat, text));
    let chain = core
        .services
        .chains
        .get(&sign.chain_key())
        .flatten()
        .ok_or_else(|| refuse("the credential has no certificate, which CMS needs".into()))?;
    let prepared = cms::prepare(content, sign.algorithm, &chain, clock::wall())
        .map_err(|error| refuse(error.to_string()))?;
    let input = Input::from_slice(prepared.to_sign());
    Ok(Task {
        input,
        place: attempt.credential.0.place(),
        attempt,
        user_id,
        deadline,
        cms: Some(Box::new(prepared)),
        follows: false,
    })
}

fn submit(core: &Core, task: Task) -> Result<(), NotSent> {
    task.attempt.marks.set(Mark::Queued, clock::monotonic());
    core.services.pool.submit(task).map_err(|(task, error)| {
        let refusal = match error {
            SubmitError::Full => {
                Refusal::new(Code::Overloaded, "the queue for this kind of key is full").retry_after_ms(100)
            }
            SubmitError::Unavailable => Refusal::new(
                Code::DeviceUnavailable,
                "the device that holds the key is not available",
            )
            .retry_after_ms(1_000),
        };
        (task.attempt, refusal)
    })
}
