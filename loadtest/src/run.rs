//! Sends a schedule's requests and collects what comes back. The sender never waits for an answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::client::{Client, Profile, Transport};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::message::ItemOutcome;
use tokio::task::LocalSet;

use crate::args::Plan;
use crate::report::{Report, Tally};
use crate::schedule::Schedule;
use crate::server;
use crate::work::Work;

/// How often the sender looks at the clock: far below the latencies it measures.
const TURN: Duration = Duration::from_micros(500);
/// How long answers are waited for after the last request.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Runs a plan.
pub(crate) async fn run(plan: &Plan) -> Result<Report, Refusal> {
    let profile = Profile::read(&plan.profile)?;
    if !profile.address.ip().is_loopback() && !plan.allow_target {
        let text = format!(
            "{} is not loopback; --allow-target says that load is welcome there",
            profile.address
        );
        return Err(Refusal::new(Code::Usage, text));
    }
    let clients = connect(&profile, plan).await?;
    let work = Rc::new(Work::prepare(&clients[0], plan).await?);
    let local = LocalSet::new();
    local.run_until(send_all(plan, &profile, &clients, &work)).await
}

/// QUIC: a session for each connection. HTTPS: one client that spreads over its connections.
async fn connect(profile: &Profile, plan: &Plan) -> Result<Vec<Arc<Client>>, Refusal> {
    let transport: Transport = plan.transport.into();
    let (clients, connections) = match transport {
        Transport::Quic => (plan.connections(), 1),
        Transport::Https => (1, plan.connections()),
    };
    let mut all = Vec::with_capacity(clients);
    for _ in 0..clients {
        all.push(Arc::new(Client::connect(profile, transport, connections).await?));
    }
    Ok(all)
}

/// What the requests of a run report to.
struct Book {
    tally: RefCell<Tally>,
    /// Counted requests that are not answered yet.
    open: RefCell<u64>,
    last_answer: RefCell<Instant>,
}

async fn send_all(
    plan: &Plan,
    profile: &Profile,
    clients: &[Arc<Client>],
    work: &Rc<Work>,
) -> Result<Report, Refusal> {
    let start = clock::monotonic() + Duration::from_millis(20);
    let schedule = Schedule::new(start, plan.rate, plan.warm_up, plan.duration);
    let book = Rc::new(Book {
        tally: RefCell::new(Tally::new()),
        open: RefCell::new(0),
        last_answer: RefCell::new(schedule.counted_from()),
    });
    let mut number = 0;
    let mut cpu_before = None;
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while let Some(intended) = schedule.intended(number) {
        let now = clock::monotonic();
        if intended > now {
            turns.tick().await;
            continue;
        }
        let counted = schedule.counts(intended);
        if counted && cpu_before.is_none() {
            cpu_before = Some(server::cpu_seconds(profile.admin).await);
        }
        let client = Arc::clone(&clients[number as usize % clients.len()]);
        // Counted here and not in the task, which may start after the last one was sent.
        *book.open.borrow_mut() += u64::from(counted);
        let sent = Sent {
            client,
            number,
            intended,
            counted,
        };
        tokio::task::spawn_local(one(sent, Rc::clone(work), Rc::clone(&book)));
        number += 1;
        // A sender that is behind its schedule must still let answers in.
        if number.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
    finish(profile, &schedule, work, &book, cpu_before.flatten()).await
}

async fn finish(
    profile: &Profile,
    schedule: &Schedule,
    work: &Work,
    book: &Book,
    cpu_before: Option<f64>,
) -> Result<Report, Refusal> {
    let until = clock::monotonic() + LAST_ANSWERS;
    while *book.open.borrow() > 0 && clock::monotonic() < until {
        tokio::time::sleep(TURN).await;
    }
    let cpu_after = server::cpu_seconds(profile.admin).await;
    let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after - before);
    let mut tally = book.tally.borrow_mut();
    tally.unanswered(*book.open.borrow() * work.batch());
    let seconds = book
        .last_answer
        .borrow()
        .saturating_duration_since(schedule.counted_from())
        .as_secs_f64();
    Ok(tally.report(seconds.max(0.001), cpu))
}

/// One request on its way.
struct Sent {
    client: Arc<Client>,
    number: u64,
    intended: Instant,
    counted: bool,
}

async fn one(sent: Sent, work: Rc<Work>, book: Rc<Book>) {
    let request = work.request(sent.number);
    if sent.counted {
        let lag = clock::monotonic().saturating_duration_since(sent.intended);
        book.tally.borrow_mut().sent(work.batch(), lag);
    }
    let result = sent.client.sign(&request).await;
    let now = clock::monotonic();
    if !sent.counted {
        return;
    }
    let latency = now.saturating_duration_since(sent.intended);
    let (mut ok, mut failed) = sort(&work, result.as_deref());
    let mut verified = 0;
    if work.is_sampled(sent.number)
        && let Ok(items) = &result
    {
        verified = ok;
        if let Err(refusal) = work.check(sent.number, items) {
            failed.extend(std::iter::repeat_n(refusal.code, ok as usize));
            ok = 0;
        }
    }
    book.tally.borrow_mut().answered(latency, ok, &failed, verified);
    *book.open.borrow_mut() -= 1;
    *book.last_answer.borrow_mut() = now;
}

/// How many items are done, and the codes of those that are not.
fn sort(work: &Work, result: Result<&[ItemOutcome], &Refusal>) -> (u64, Vec<Code>) {
    match result {
        Err(refusal) => (0, vec![refusal.code; work.batch() as usize]),
        Ok(items) => {
            let failed: Vec<Code> = items
                .iter()
                .filter_map(|item| match item {
                    ItemOutcome::Done { .. } => None,
                    ItemOutcome::Pending => Some(Code::OutcomePending),
                    ItemOutcome::Failed(refusal) => Some(refusal.code),
                })
                .collect();
            (items.len() as u64 - failed.len() as u64, failed)
        }
    }
}
