//! Clients under load that remember: what they asked, what they were told, and what they were never told. Whatever
//! happens to the engine, this ledger and its journal must agree in the end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use protocol::algorithm::Hash;
use protocol::client::{Client, Profile, SignRequest, Transport};
use protocol::error_code::{Code, Refusal};
use protocol::limits::PROMISE_MS_MAX;
use protocol::message::ItemOutcome;
use protocol::verify::PublicKey;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{block_on, now, request, run_in};

/// Later than this is never. The engine answers within its promise; the rest is for a machine that is busy.
const UNANSWERED: Duration = Duration::from_millis(PROMISE_MS_MAX + 2_000);
/// Until when everything must have come to an end after a disturbance.
const SETTLED: Duration = Duration::from_secs(30);

/// A released signature and its journal entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signed {
    signature: Vec<u8>,
    sequence: u64,
}

#[derive(Default)]
struct Memory {
    next: usize,
    requests: HashMap<String, SignRequest>,
    told: HashMap<(String, usize), Signed>,
    /// Calls without a final answer for every item.
    open: HashSet<String>,
    /// Calls to ask again, before anything new.
    again: Vec<String>,
    /// Calls that were refused for good.
    refused: HashSet<String>,
    codes: BTreeMap<Code, usize>,
    moments: Vec<Instant>,
    /// Nothing new is asked any more.
    ending: bool,
}

/// What all clients of one app remember.
pub(crate) struct Ledger {
    name: &'static str,
    credential: String,
    batch_max: usize,
    memory: Mutex<Memory>,
    signed: watch::Sender<usize>,
}

impl Ledger {
    /// The ledger of an app that signs with `credential`, up to `batch_max` digests a call. `name` begins its keys.
    pub(crate) fn new(name: &'static str, credential: &str, batch_max: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            credential: credential.into(),
            batch_max,
            memory: Mutex::default(),
            signed: watch::channel(0).0,
        })
    }

    /// The next call: one to ask again, or a new one; every other one a batch. It is open until heard of.
    pub(crate) fn next(&self) -> Option<SignRequest> {
        let mut memory = self.memory.lock();
        if let Some(key) = memory.again.pop() {
            return Some(memory.requests[&key].clone());
        }
        if memory.ending {
            return None;
        }
        let number = memory.next;
        memory.next += 1;
        let key = format!("{}-{number}", self.name);
        let items = if number.is_multiple_of(2) {
            1
        } else {
            1 + number / 2 % self.batch_max
        };
        let mut wanted = request(&key, "");
        wanted.credential.clone_from(&self.credential);
        wanted.inputs = (0..items)
            .map(|item| Hash::Sha256.digest(format!("{key}/{item}").as_bytes()).to_vec())
            .collect();
        memory.requests.insert(key.clone(), wanted.clone());
        memory.open.insert(key);
        Some(wanted)
    }

    /// Notes an answer. What was told before must be told again, byte by byte.
    #[track_caller]
    pub(crate) fn hear(&self, wanted: &SignRequest, items: Vec<ItemOutcome>) {
        assert_eq!(items.len(), wanted.inputs.len(), "{}", wanted.key);
        let mut memory = self.memory.lock();
        let key = wanted.key.as_str();
        let mut is_final = true;
        for (item, outcome) in items.into_iter().enumerate() {
            let place = (key.to_owned(), item);
            match outcome {
                ItemOutcome::Done { signature, sequence } => {
                    let sequence = sequence.0;
                    let signed = Signed { signature, sequence };
                    let first = memory.told.entry(place).or_insert_with(|| signed.clone());
                    assert_eq!(*first, signed, "{key}, item {item}: told otherwise before");
                }
                other => {
                    assert!(
                        !memory.told.contains_key(&place),
                        "{key}, item {item}: now {other:?}"
                    );
                    is_final &= is_for_good(&other);
                }
            }
        }
        if is_final {
            memory.open.remove(key);
        } else if memory.open.contains(key) {
            memory.again.push(key.to_owned());
        }
        memory.moments.push(now());
        self.signed.send_replace(memory.told.len());
    }

    /// Notes a refusal: it must invite to try again, unless the balance is used up.
    #[track_caller]
    pub(crate) fn hear_refusal(&self, wanted: &SignRequest, refusal: &Refusal) {
        let mut memory = self.memory.lock();
        let key = wanted.key.as_str().to_owned();
        *memory.codes.entry(refusal.code).or_default() += 1;
        if refusal.code == Code::QuotaExhausted {
            memory.open.remove(&key);
            memory.refused.insert(key);
            return;
        }
        assert!(refusal.code.retryable(), "{key}: {refusal}");
        memory.again.push(key);
    }

    /// Signatures received, each counted once.
    pub(crate) fn signed(&self) -> usize {
        self.memory.lock().told.len()
    }

    /// Waits until so many have been received.
    pub(crate) async fn until_signed(&self, count: usize) {
        let mut signed = self.signed.subscribe();
        let waiting = signed.wait_for(|signed| *signed >= count);
        let waited = tokio::time::timeout(SETTLED, waiting).await;
        assert!(waited.is_ok(), "{}: signing does not go on", self.name);
    }

    /// Ends the load: clients stop once what they asked has been answered.
    pub(crate) fn end(&self) {
        self.memory.lock().ending = true;
    }

    /// The longest time since `from` in which nobody received anything.
    pub(crate) fn longest_gap(&self, from: Instant) -> Duration {
        let memory = self.memory.lock();
        let first = memory.moments.partition_point(|moment| *moment < from);
        let moments = &memory.moments[first.saturating_sub(1)..];
        let gaps = moments.windows(2).map(|pair| pair[1].duration_since(pair[0]));
        gaps.max().unwrap_or_default()
    }

    /// What was refused so far, for whoever reads the test's output.
    pub(crate) fn refusals(&self) -> BTreeMap<Code, usize> {
        self.memory.lock().codes.clone()
    }

    /// Calls with a final result, the latest first, at most so many.
    fn finished(&self, count: usize) -> Vec<SignRequest> {
        let memory = self.memory.lock();
        let all = (0..memory.next)
            .rev()
            .map(|number| format!("{}-{number}", self.name));
        all.filter(|key| !memory.open.contains(key) && !memory.refused.contains(key))
            .take(count)
            .map(|key| memory.requests[&key].clone())
            .collect()
    }

    /// Asks everything that is open again until it has its final answer.
    pub(crate) async fn settle(self: &Arc<Self>, clients: &Pair) {
        let until = now() + SETTLED;
        self.end();
        loop {
            {
                let mut memory = self.memory.lock();
                memory.again = memory.open.iter().cloned().collect();
                if memory.again.is_empty() {
                    memory.ending = false;
                    return;
                }
            }
            assert!(now() < until, "{}: some calls come to no end", self.name);
            let mut asking = JoinSet::new();
            for client in clients.iter().cycle().take(32) {
                asking.spawn(ask(Arc::clone(client), Arc::clone(self)));
            }
            join(asking).await;
        }
    }

    /// Retries the latest `count` finished calls, and looks them up: the same bytes must come, on either transport.
    pub(crate) async fn confirm(self: &Arc<Self>, clients: &Pair, count: usize) {
        let calls = Arc::new(Mutex::new(self.finished(count)));
        let mut asking = JoinSet::new();
        for at in 0..16 {
            let (ledger, calls) = (Arc::clone(self), Arc::clone(&calls));
            let one = Arc::clone(&clients[at % 2]);
            let other = Arc::clone(&clients[(at + 1) % 2]);
            asking.spawn(async move {
                loop {
                    let Some(wanted) = calls.lock().pop() else { return };
                    ledger.hear(&wanted, one.sign(&wanted).await.unwrap());
                    ledger.hear(&wanted, other.look_up(&wanted.key).await.unwrap());
                }
            });
        }
        join(asking).await;
    }

    /// Checks every signature received with the credential's public key.
    pub(crate) async fn verify(&self, client: &Client) {
        let info = crate::support::credential(client, &self.credential).await;
        let public_key = PublicKey::from_spki(&info.public_key).unwrap();
        let memory = self.memory.lock();
        for ((key, item), signed) in &memory.told {
            let wanted = &memory.requests[key];
            let input = &wanted.inputs[*item];
            public_key
                .verify(wanted.algorithm, input, &signed.signature)
                .unwrap();
        }
    }
}

/// The balance is used up: asking again is of no use.
fn is_for_good(outcome: &ItemOutcome) -> bool {
    matches!(outcome, ItemOutcome::Failed(refusal) if refusal.code == Code::QuotaExhausted)
}

/// A client for each transport.
pub(crate) type Pair = [Arc<Client>; 2];

/// Connects on both transports.
pub(crate) async fn connect(profile: &Profile) -> Pair {
    let quic = Client::connect(profile, Transport::Quic, 1).await.unwrap();
    let https = Client::connect(profile, Transport::Https, 8).await.unwrap();
    [Arc::new(quic), Arc::new(https)]
}

/// What a client does when its connection is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenLost {
    GiveUp,
    ComeBack,
}

/// Clients at work.
pub(crate) struct Load {
    pub(crate) profile: Profile,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) when_lost: WhenLost,
}

impl Load {
    /// Starts three QUIC connections with `depth` calls in flight each, and `depth` HTTPS connections.
    pub(crate) fn start(&self, into: &mut JoinSet<()>, depth: usize) {
        let quic = std::iter::repeat_n((Transport::Quic, depth), 3);
        let https = std::iter::repeat_n((Transport::Https, 1), depth);
        for (transport, depth) in quic.chain(https) {
            let (profile, ledger) = (self.profile.clone(), Arc::clone(&self.ledger));
            into.spawn(connection(profile, transport, depth, ledger, self.when_lost));
        }
    }

    /// The same on a thread of its own, which ends with the load.
    pub(crate) fn start_in_background(self, depth: usize) -> std::thread::JoinHandle<()> {
        let run = async move {
            let mut asking = JoinSet::new();
            self.start(&mut asking, depth);
            join(asking).await;
        };
        std::thread::spawn(|| block_on(run))
    }
}

async fn connection(
    profile: Profile,
    transport: Transport,
    depth: usize,
    ledger: Arc<Ledger>,
    when_lost: WhenLost,
) {
    loop {
        match Client::connect(&profile, transport, 1).await {
            Ok(client) => {
                let client = Arc::new(client);
                let mut asking = JoinSet::new();
                for _ in 0..depth {
                    asking.spawn(ask(Arc::clone(&client), Arc::clone(&ledger)));
                }
                join(asking).await;
            }
            Err(refusal) => assert!(refusal.code.retryable(), "connecting: {refusal}"),
        }
        if when_lost == WhenLost::GiveUp || ledger.memory.lock().ending {
            return;
        }
        // Like any decent client, not in a tight loop.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Asks one call after the other until there are no more, or the connection is lost. Each must be answered.
pub(crate) async fn ask(client: Arc<Client>, ledger: Arc<Ledger>) {
    while let Some(wanted) = ledger.next() {
        let answer = tokio::time::timeout(UNANSWERED, client.sign(&wanted)).await;
        match answer.unwrap_or_else(|_| panic!("{} was not answered", wanted.key)) {
            Ok(items) => ledger.hear(&wanted, items),
            Err(refusal) => {
                ledger.hear_refusal(&wanted, &refusal);
                if is_lost(&client, refusal.code) {
                    return;
                }
            }
        }
    }
}

fn is_lost(client: &Client, code: Code) -> bool {
    let closed = matches!(client, Client::Quic(client) if client.connection().close_reason().is_some());
    closed || matches!(code, Code::Connection | Code::ShuttingDown | Code::QuotaExhausted)
}

/// Waits for all tasks. A failed assertion in one is one here.
async fn join(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Holds the journal of a stopped engine against the ledgers of all its clients: everything that was received is there,
/// once, with the same bytes; nothing else is there; and the engine's own count says the same.
pub(crate) fn audit(folder: &Path, ledgers: &[&Arc<Ledger>]) {
    let checked: serde_json::Value =
        serde_json::from_str(&run_in(folder, &["journal", "check"]).ok()).unwrap();
    let journal = signatures_in(folder);
    for ledger in ledgers {
        let memory = ledger.memory.lock();
        assert!(memory.open.is_empty(), "settle first");
        for (place, told) in &memory.told {
            assert_eq!(journal.get(place), Some(told), "{place:?}");
        }
    }
    let told: usize = ledgers.iter().map(|ledger| ledger.signed()).sum();
    assert_eq!(journal.len(), told, "signatures that nobody was told of");
    assert_eq!(checked["signatures"], told, "{checked}");
}

/// Every signature in the journal, by idempotency key and item. None may be there twice.
fn signatures_in(folder: &Path) -> HashMap<(String, usize), Signed> {
    let mut signatures = HashMap::new();
    for line in run_in(folder, &["journal", "export"]).ok().lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        if entry["kind"] != "signature" {
            continue;
        }
        let place = (
            entry["key"].as_str().unwrap().to_owned(),
            entry["item"].as_u64().unwrap() as usize,
        );
        let signed = Signed {
            signature: STANDARD.decode(entry["signature"].as_str().unwrap()).unwrap(),
            sequence: entry["sequence"].as_u64().unwrap(),
        };
        assert!(signatures.insert(place, signed).is_none(), "twice: {line}");
    }
    signatures
}
