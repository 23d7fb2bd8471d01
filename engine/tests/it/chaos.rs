//! Chaos: three devices under load at 70 % of what they can do, and every fault there is happens to one of them at a time,
//! at random. Nothing wrong leaves, nothing stays unanswered, nothing is counted twice, and all of it comes back by
//! itself. `make chaos` goes on for longer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::client::{Client, Transport};
use protocol::error_code::Code;
use protocol::limits::PROMISE_MS_MAX;
use protocol::message::ItemOutcome;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::devices_support::{Site, cinnabar, order, wait_until_active};
use crate::ledger::{Ledger, audit, connect};
use crate::support::{Engine, now};

const DEVICES: [&str; 3] = ["hsm-1", "hsm-2", "hsm-3"];
/// Calls of a device take so long, so that the capacity is the devices' and not this machine's.
const SERVICE: &str = "slow 10";
const LOAD: f64 = 0.7;
const PROMISE: Duration = Duration::from_millis(PROMISE_MS_MAX);
/// A device that is quarantined is probed at least this often, and then needs two seconds to warm up.
const RECOVERY: Duration = Duration::from_secs(40);

fn seconds() -> u64 {
    std::env::var("TEST_CHAOS_SECONDS").map_or(20, |text| text.parse().unwrap())
}

/// What can happen to a device. `CODE` is one of [`CODES`].
const FAULTS: [&str; 22] = [
    "hang",
    "2% hang",
    "crash",
    "5% crash segfault",
    "5% crash exit 3",
    "C_*: crash",
    "wrong",
    "3% wrong",
    "lost",
    "2% lost",
    "error CODE",
    "10% error CODE",
    "times 50 error CODE",
    "C_SignInit: error CODE",
    "removed",
    "removed CKR_DEVICE_REMOVED",
    "renumber 100",
    "renumber rotate",
    "sessions 1",
    "slow exp 40",
    "slow lognormal 20 1.5",
    "C_Login: error CKR_PIN_INCORRECT; 20% crash",
];

/// Of each class some, by name; the whole table has a test of its own.
const CODES: [&str; 18] = [
    "CKR_DATA_LEN_RANGE",
    "CKR_KEY_TYPE_INCONSISTENT",
    "CKR_MECHANISM_INVALID",
    "CKR_SESSION_CLOSED",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_KEY_HANDLE_INVALID",
    "CKR_USER_NOT_LOGGED_IN",
    "CKR_OPERATION_ACTIVE",
    "CKR_GENERAL_ERROR",
    "CKR_DEVICE_ERROR",
    "CKR_FUNCTION_FAILED",
    "CKR_VENDOR_DEFINED",
    "CKR_TOKEN_NOT_PRESENT",
    "CKR_DEVICE_REMOVED",
    "CKR_SLOT_ID_INVALID",
    "CKR_SESSION_COUNT",
    "CKR_DEVICE_MEMORY",
    "CKR_HOST_MEMORY",
];

fn below(limit: usize) -> usize {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    usize::from_be_bytes(bytes) % limit
}

fn shuffled<T>(mut list: Vec<T>) -> Vec<T> {
    for at in (1..list.len()).rev() {
        list.swap(at, below(at + 1));
    }
    list
}

/// What the clients were answered.
#[derive(Default)]
struct Answers {
    calls: usize,
    /// When a call, or an item of one, was refused.
    refused: Vec<(Instant, Code)>,
    pending: usize,
    took: Vec<Duration>,
}

impl Answers {
    fn of_code(&self) -> BTreeMap<Code, usize> {
        let mut counts = BTreeMap::new();
        for (_, code) in &self.refused {
            *counts.entry(*code).or_default() += 1;
        }
        counts
    }

    /// Refusals between two moments, and how long after the first moment the last of them was.
    fn refused_in(&self, from: Instant, to: Instant) -> (usize, Duration) {
        let within: Vec<_> = self
            .refused
            .iter()
            .filter(|(at, _)| *at >= from && *at < to)
            .collect();
        let last = within.last().map_or(from, |(at, _)| *at);
        (within.len(), last - from)
    }
}

/// One app's clients, which ask in step with a clock whatever the answers.
struct Crowd {
    clients: Vec<Arc<Client>>,
    ledgers: [Arc<Ledger>; 2],
    answers: Arc<Mutex<Answers>>,
}

impl Crowd {
    async fn connect(engine: &Engine) -> Self {
        let profile = engine.profile();
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(Arc::new(
                Client::connect(&profile, Transport::Quic, 1).await.unwrap(),
            ));
        }
        // A call over HTTPS has its connection to itself: enough of them that none waits for one.
        clients.push(Arc::new(
            Client::connect(&profile, Transport::Https, 512).await.unwrap(),
        ));
        Self {
            clients,
            ledgers: [
                Ledger::new("here", "everywhere", 1),
                Ledger::new("there", "wrapped", 1),
            ],
            answers: Arc::default(),
        }
    }

    fn ask(&self, number: usize) -> impl Future<Output = ()> + use<> {
        let client = Arc::clone(&self.clients[number % self.clients.len()]);
        let ledger = Arc::clone(&self.ledgers[number / self.clients.len() % 2]);
        let answers = Arc::clone(&self.answers);
        async move {
            let Some(wanted) = ledger.next() else { return };
            let asked = now();
            let answer = client.sign(&wanted).await;
            let (at, mut answers) = (now(), answers.lock());
            answers.calls += 1;
            answers.took.push(at - asked);
            match answer {
                Ok(items) => {
                    for item in &items {
                        match item {
                            ItemOutcome::Done { .. } => {}
                            ItemOutcome::Pending => answers.pending += 1,
                            ItemOutcome::Failed(refusal) => answers.refused.push((at, refusal.code)),
                        }
                    }
                    ledger.hear(&wanted, items);
                }
                Err(refusal) => {
                    answers.refused.push((at, refusal.code));
                    ledger.hear_refusal(&wanted, &refusal);
                }
            }
        }
    }

    /// Asks so many times a second until told to stop, and waits for every answer.
    async fn load(&self, per_second: f64, ended: impl Fn() -> bool) {
        let mut clock = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
        let mut asking = JoinSet::new();
        let mut number = 0;
        while !ended() {
            clock.tick().await;
            asking.spawn(self.ask(number));
            number += 1;
            while let Some(done) = asking.try_join_next() {
                done.unwrap();
            }
        }
        while let Some(done) = asking.join_next().await {
            done.unwrap();
        }
    }

    /// What the devices can do: so many calls in flight that none of them is ever idle.
    async fn capacity(&self) -> f64 {
        let mut asking = JoinSet::new();
        let (from, mut number) = (now(), 0);
        let mut next = |asking: &mut JoinSet<()>| {
            asking.spawn(self.ask(number));
            number += 1;
        };
        (0..48).for_each(|_| next(&mut asking));
        let signed = || self.ledgers.iter().map(|ledger| ledger.signed()).sum::<usize>();
        let before = signed();
        while now() < from + Duration::from_secs(2) {
            asking.join_next().await.unwrap().unwrap();
            next(&mut asking);
        }
        let rate = (signed() - before) as f64 / from.elapsed().as_secs_f64();
        while let Some(done) = asking.join_next().await {
            done.unwrap();
        }
        rate
    }
}

/// One thing that happened to one device.
struct Event {
    device: &'static str,
    script: String,
    began: Instant,
    ended: Instant,
    /// When it worked again.
    back: Instant,
}

/// The devices as the one who makes them sick sees them.
struct Ward<'a> {
    engine: &'a Engine,
    folder: PathBuf,
}

impl Ward<'_> {
    fn order(&self, device: &str, fault: &str) {
        let script = match fault {
            "ok" => SERVICE.to_owned(),
            _ => format!("{fault}; {SERVICE}"),
        };
        order(&self.folder, device, &script);
    }

    /// Whether a device has all of its share again.
    fn is_well(&self, device: &str) -> bool {
        let (_, text) = self.engine.admin_get("/metrics");
        let has = |family: &str, value: &str| text.contains(&format!("cinnabar_device_{family}}} {value}"));
        has(&format!("state{{device=\"{device}\",state=\"active\""), "1")
            && has(&format!("share_percent{{device=\"{device}\""), "100")
            && !has(&format!("workers{{device=\"{device}\""), "0")
    }

    /// Makes one device sick for a while, and waits until it is well again.
    fn strike(&self, device: &'static str, fault: &str) -> Event {
        let script = fault.replace("CODE", CODES[below(CODES.len())]);
        let began = now();
        self.order(device, &script);
        random_moment(500..3_500);
        self.order(device, "ok");
        let ended = now();
        if script.contains("C_Login") {
            // The one thing that does not pass by itself: a refused PIN waits for an operator.
            cinnabar(self.engine, &format!("device resume {device}")).ok();
        }
        while !self.is_well(device) {
            assert!(
                ended.elapsed() < RECOVERY,
                "{device} does not come back from: {script}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Event {
            device,
            script,
            began,
            ended,
            back: now(),
        }
    }

    /// One fault after the other, at random, each once before any comes again.
    fn rage(&self, long: Duration) -> Vec<Event> {
        let (until, mut events, mut left) = (now() + long, Vec::new(), Vec::new());
        while now() < until {
            random_moment(100..400);
            if left.is_empty() {
                left = shuffled(FAULTS.to_vec());
            }
            let fault = left.pop().unwrap();
            events.push(self.strike(DEVICES[below(DEVICES.len())], fault));
        }
        events
    }
}

/// A moment nobody has chosen, in milliseconds from now.
fn random_moment(within: std::ops::Range<usize>) {
    let milliseconds = within.start + below(within.len());
    std::thread::sleep(Duration::from_millis(milliseconds as u64));
}

/// Three devices, two of SoftHSM2 and one of Kryoptic; a key on all of them, and one that each can unwrap.
fn start() -> Engine {
    let more = "processes = 2\nsessions = 1\n";
    let site = Site::new()
        .faulty("hsm-1")
        .config(more)
        .faulty("hsm-2")
        .config(more);
    let engine = site.faulty_kryoptic("hsm-3").config(more).start();
    let run = |line: &str| cinnabar(&engine, line).ok();
    run("device kek hsm-1 --label group");
    run("device share-kek --label group --from hsm-1 --to hsm-2");
    run("device share-kek --label group --from hsm-1 --to hsm-3");
    run("key create --tenant demo --kind p256 --device hsm-1 --device hsm-2 --device hsm-3 everywhere");
    run("key create --tenant demo --kind p256 --wrapped group wrapped");
    engine
}

#[test]
fn whatever_happens_to_one_device_at_a_time_nothing_is_wrong_unanswered_or_counted_twice() {
    let engine = start();
    let ward = Ward {
        engine: &engine,
        folder: engine.folder.as_ref().unwrap().path().to_owned(),
    };
    DEVICES.iter().for_each(|device| ward.order(device, "ok"));
    // One runtime for all of it: the clients' connections live on it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let crowd = runtime.block_on(Crowd::connect(&engine));
    let capacity = runtime.block_on(crowd.capacity());
    std::mem::take(&mut *crowd.answers.lock());
    let events = rage_under(&runtime, &crowd, capacity * LOAD, &ward);
    report(&crowd.answers.lock(), &events, capacity);
    runtime.block_on(settle(&engine, &crowd));
    let slowest = crowd
        .answers
        .lock()
        .took
        .iter()
        .max()
        .copied()
        .unwrap_or_default();
    assert!(slowest < PROMISE, "an answer took {slowest:?}");
    wait_until_active(&engine);
    let [here, there] = &crowd.ledgers;
    audit(engine.stop().path(), &[here, there]);
}

/// Sets when it is dropped: the load ends also when a device does not come back.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Makes devices sick on a thread of its own while the crowd asks.
fn rage_under(runtime: &Runtime, crowd: &Crowd, per_second: f64, ward: &Ward<'_>) -> Vec<Event> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let rage = scope.spawn(|| {
            let _end = End(&ended);
            ward.rage(Duration::from_secs(seconds()))
        });
        runtime.block_on(crowd.load(per_second, || ended.load(Ordering::Acquire)));
        rage.join().expect("every device came back")
    })
}

/// Every call gets its end; each signature is checked; and what was told, counted and written down is the same.
async fn settle(engine: &Engine, crowd: &Crowd) {
    let pair = connect(&engine.profile()).await;
    for ledger in &crowd.ledgers {
        ledger.settle(&pair).await;
        ledger.confirm(&pair, 200).await;
        ledger.verify(&pair[0]).await;
    }
    let told: usize = crowd.ledgers.iter().map(|ledger| ledger.signed()).sum();
    assert_eq!(pair[0].usage().await.unwrap().signatures, told as u64);
}

fn report(answers: &Answers, events: &[Event], capacity: f64) {
    let mut took = answers.took.clone();
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    let share = |count: usize| count as f64 * 100.0 / answers.calls as f64;
    eprintln!(
        "capacity {capacity:.0}/s, load {:.0}/s: {} calls, {} refused ({:.2} %), {} pending ({:.2} %); p50 {:?}, p99 {:?}, slowest {:?}",
        capacity * LOAD,
        answers.calls,
        answers.refused.len(),
        share(answers.refused.len()),
        answers.pending,
        share(answers.pending),
        at(0.5),
        at(0.99),
        at(1.0),
    );
    eprintln!("refused: {:?}", answers.of_code());
    for event in events {
        let (refused, long) = answers.refused_in(event.began, event.back);
        eprintln!(
            "{}: {:45} for {:4} ms, back {:5} ms later; {refused:4} refused, the last {:4} ms after it began",
            event.device,
            event.script,
            (event.ended - event.began).as_millis(),
            (event.back - event.ended).as_millis(),
            long.as_millis()
        );
    }
}
