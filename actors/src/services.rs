//! What the cores share: the store, the pool, the reader, the vault, and each other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use documents::cms::Chain;
use hsm_pool::pool::Pool;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::CredentialRow;
use protocol::message::Answer;
use quick_cache::sync::Cache;
use store::{Delivery, Outcome, StoreHandle};
use tokio::sync::oneshot;

use crate::answer_log::AnswerLog;
use crate::audit::Audit;
use crate::call::{SignCall, Ticket};
use crate::core::{CoreRemote, Event, InsideCall};
use crate::latency::Recorded;
use crate::latency::book::LatencyBook;
use crate::metering::MeteringHandle;
use crate::minutes::Circumstances;
use crate::minutes::judged::JudgedMinutes;
use crate::questions::Lines;
use crate::reader::ReaderHandle;
use crate::reports::Reports;
use crate::task::Task;
use crate::vault::Vault;

/// Bounds that an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls in flight on one core.
    pub calls_per_core_max: usize,
    /// Certificate chains kept parsed.
    pub chain_cache: usize,
    /// One answer in so many is kept for a trace; 0: none.
    pub trace_every: u32,
}

/// Certificate chains of credentials, parsed, by credential and how often it was renewed; `None` where one has none.
pub(crate) type Chains = Cache<(CredentialRow, u32), Option<Arc<Chain>>>;

/// What reconciliation has found last: journal = ledger = counters.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Differences; it stays until one finds none.
    pub differences: AtomicU64,
    /// When that was, in milliseconds since 1970; zero: never.
    pub at_ms: AtomicU64,
}

impl Reconciled {
    /// Notes what was found.
    pub fn note(&self, differences: usize, now: UnixMillis) {
        self.differences.store(differences as u64, Ordering::Relaxed);
        self.at_ms.store(now.0, Ordering::Relaxed);
    }
}

/// What the cores share.
#[derive(Debug)]
pub struct Services {
    /// The store.
    pub store: Arc<StoreHandle<Ticket>>,
    /// The pool.
    pub pool: Arc<Pool<Task>>,
    /// The master key.
    pub vault: Arc<Vault>,
    /// The cores, by number.
    pub cores: Arc<[Arc<CoreRemote>]>,
    /// The metering actor.
    pub metering: MeteringHandle,
    /// How long requests take.
    pub latency: LatencyBook,
    /// How the minutes stand with the agreements.
    pub minutes: JudgedMinutes,
    /// What reconciliation has found last.
    pub reconciled: Reconciled,
    /// Bounds.
    pub limits: Limits,
    /// What an operator says about the time being.
    pub circumstances: Circumstances,
    /// Answers to questions that take a while.
    pub reports: Reports,
    /// The audit log, once it has been opened.
    pub audit: OnceLock<Audit>,
    /// The certificate service, once it has been started.
    pub certificates: OnceLock<Lines>,
    /// What its threads have answered, one for each.
    pub answer_logs: Arc<[Arc<AnswerLog>]>,
    pub(crate) reader: ReaderHandle,
    pub(crate) chains: Arc<Chains>,
    stopping: AtomicBool,
    /// Whose turn it is to sign for a document.
    turn: AtomicUsize,
}

impl Services {
    /// Puts them together.
    pub fn new(
        store: Arc<StoreHandle<Ticket>>,
        pool: Arc<Pool<Task>>,
        vault: Arc<Vault>,
        cores: Arc<[Arc<CoreRemote>]>,
        limits: Limits,
    ) -> Result<Self, store::StoreError> {
        let chains = Arc::new(Cache::new(limits.chain_cache));
        let shared = (Arc::clone(&cores), Arc::clone(&chains), Arc::clone(&vault));
        let reader = ReaderHandle::start(store.reader()?, shared);
        let reports = Reports::start(store.reader()?, Arc::clone(store.directory()));
        let metering = MeteringHandle::new(cores.len());
        let stopping = AtomicBool::new(false);
        let answer_logs = cores.iter().map(|_| Arc::default()).collect();
        Ok(Self {
            store,
            pool,
            vault,
            cores,
            metering,
            latency: LatencyBook::default(),
            minutes: JudgedMinutes::default(),
            reconciled: Reconciled::default(),
            limits,
            circumstances: Circumstances::default(),
            reports,
            audit: OnceLock::new(),
            certificates: OnceLock::new(),
            answer_logs,
            reader,
            chains,
            stopping,
            turn: AtomicUsize::new(0),
        })
    }

    /// New requests are refused from now on.
    pub fn stop_taking(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Why no new request can be taken, if that is so.
    pub fn closed(&self) -> Option<Refusal> {
        self.stopping
            .load(Ordering::Acquire)
            .then(|| Refusal::new(Code::ShuttingDown, "the engine is stopping").retry_after_ms(1_000))
    }

    /// Brings together what the cores have measured; once a second, by one thread.
    pub fn collect_latency(&self, now: UnixMillis) -> Arc<Recorded> {
        let cores = self.cores.iter().map(|core| &core.latency);
        let desks = self.answer_logs.iter().map(|log| &log.latency);
        self.latency.collect(cores.chain(desks), now)
    }

    /// Whether capacity is being extended: by the pool itself, or because an operator says so.
    pub fn is_extending(&self, now: Instant) -> bool {
        self.circumstances.extension.load(Ordering::Acquire) || self.pool.is_extending(now)
    }

    /// Hands a signature that work on a document needs to a core that runs, one after the other.
    pub fn sign_inside(
        &self,
        sign: SignCall,
        received: Instant,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Result<Answer, Refusal>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let mut call = InsideCall {
            sign: Box::new(sign),
            received,
            deadline,
            reply,
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.cores.len() {
            let core = &self.cores[turn.wrapping_add(step) % self.cores.len()];
            if !core.is_alive() {
                continue;
            }
            match core.send_inside(call) {
                Ok(()) => return Ok(answer),
                Err(back) => call = back,
            }
        }
        Err(Refusal::new(Code::Overloaded, "too many signatures wait for a core").retry_after_ms(100))
    }

    /// Calls in flight on all cores.
    pub fn in_flight(&self) -> usize {
        self.cores.iter().map(|core| core.in_flight()).sum()
    }
}

/// Brings what the committing thread delivers to the cores it is for.
pub fn router(cores: Arc<[Arc<CoreRemote>]>) -> impl FnMut(Vec<Delivery<Ticket>>) + Send + 'static {
    move |deliveries| {
        route(
            &cores,
            deliveries
                .into_iter()
                .map(|delivery| (delivery.waiter, delivery.outcome)),
        );
    }
}

/// Sends outcomes to their cores, one event a core.
pub(crate) fn route(cores: &[Arc<CoreRemote>], outcomes: impl Iterator<Item = (Ticket, Outcome)>) {
    let mut by_core: Vec<Vec<(Ticket, Outcome)>> = cores.iter().map(|_| Vec::new()).collect();
    for (ticket, outcome) in outcomes {
        if let Some(list) = by_core.get_mut(usize::from(ticket.core)) {
            list.push((ticket, outcome));
        }
    }
    for (core, list) in cores.iter().zip(by_core) {
        if !list.is_empty() {
            core.send(Event::Outcomes(list));
        }
    }
}
