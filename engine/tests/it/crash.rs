//! The kill test: `kill -9` at random moments, a restart in the same folder, and again. What a client received is in the
//! journal once, a retry brings the same bytes, and nothing is counted twice. `make crash` does more rounds.

use std::sync::Arc;
use std::time::Duration;

use protocol::client::Client;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::ledger::{Ledger, Load, Pair, WhenLost, ask, audit, connect};
use crate::support::{Engine, Setup, block_on};

/// Signatures between a start and a kill, at most.
const SIGNED_MAX: usize = 600;
/// Calls in flight on each connection.
const DEPTH: usize = 8;
/// Units of the prepaid tenant for each round: it runs dry before the end.
const PREPAID_A_ROUND: usize = 20;

fn rounds() -> usize {
    std::env::var("TEST_CRASH_ROUNDS").map_or(25, |text| text.parse().unwrap())
}

fn below(limit: usize) -> usize {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    usize::from_be_bytes(bytes) % limit
}

/// A moment nobody has chosen.
fn random_moment(max: Duration) {
    std::thread::sleep(max.mul_f64(below(1000) as f64 / 1000.0));
}

/// The clients of two apps: one without a limit, one that spends a prepaid balance.
struct Clients {
    open: Arc<Ledger>,
    prepaid: Arc<Ledger>,
}

impl Clients {
    fn both(&self) -> [&Arc<Ledger>; 2] {
        [&self.open, &self.prepaid]
    }
}

/// After a start: everything open gets its end, what was told is told again, and the count is right.
async fn come_back(engine: &Engine, clients: &Clients, confirm: usize) -> [Pair; 2] {
    let pairs = [
        connect(&engine.profile()).await,
        connect(&engine.prepaid_profile()).await,
    ];
    for (ledger, pair) in clients.both().into_iter().zip(&pairs) {
        ledger.settle(pair).await;
        ledger.confirm(pair, confirm).await;
        for client in pair {
            assert_eq!(client.usage().await.unwrap().signatures, ledger.signed() as u64);
        }
    }
    pairs
}

/// Loads both fronts, and kills the engine in the middle of it.
async fn load_and_kill(engine: Engine, clients: &Clients) -> TempDir {
    let profiles = [engine.profile(), engine.prepaid_profile()];
    let mut asking = JoinSet::new();
    for ((ledger, profile), depth) in clients.both().into_iter().zip(profiles).zip([DEPTH, 1]) {
        let load = Load {
            profile,
            ledger: Arc::clone(ledger),
            when_lost: WhenLost::GiveUp,
        };
        load.start(&mut asking, depth);
    }
    let wanted = clients.open.signed() + below(SIGNED_MAX);
    clients.open.until_signed(wanted).await;
    // From another thread, so that it strikes whatever the clients are doing.
    let kill = move || {
        random_moment(Duration::from_millis(5));
        engine.kill()
    };
    let folder = tokio::task::spawn_blocking(kill).await.unwrap();
    // What had left the engine is in the clients' sockets: let them have it. The rest will never come.
    let _ = tokio::time::timeout(Duration::from_millis(50), async {
        while let Some(ended) = asking.join_next().await {
            ended.unwrap();
        }
    })
    .await;
    folder
}

/// A start that is not allowed to get far.
fn kill_a_start(folder: &TempDir, max: Duration) {
    let mut process = Setup::default().spawn(folder.path());
    random_moment(max);
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn what_a_client_was_told_survives_every_kill() {
    let rounds = rounds();
    let units = PREPAID_A_ROUND * rounds;
    let clients = Clients {
        open: Ledger::new("open", "demo-p256", 8),
        prepaid: Ledger::new("prepaid", "seal", 4),
    };
    let mut engine = Engine::start();
    engine.make_prepaid(units);
    for round in 1..=rounds {
        let folder = block_on(load_and_kill(engine, &clients));
        if round % 5 == 0 {
            kill_a_start(&folder, Duration::from_millis(100));
        }
        engine = Setup::default().start_in(folder);
        block_on(come_back(&engine, &clients, 100));
    }
    let rest = block_on(async {
        let [open, prepaid] = come_back(&engine, &clients, usize::MAX).await;
        clients.open.verify(&open[0]).await;
        clients.prepaid.verify(&prepaid[1]).await;
        spend_the_rest(&prepaid[0], clients.prepaid.signed(), units).await
    });
    audit(engine.kill().path(), &[&clients.open, &clients.prepaid, &rest]);
    let signed = clients.open.signed() + units;
    eprintln!(
        "{rounds} kills, {signed} signatures received, refused: {:?}",
        clients.open.refusals()
    );
}

/// A balance of N ends with exactly N signatures: what is left goes one by one, so that the last unit finds its taker.
async fn spend_the_rest(client: &Arc<Client>, spent: usize, units: usize) -> Arc<Ledger> {
    assert!(spent <= units, "{spent} signatures for {units} units");
    let rest = Ledger::new("rest", "seal", 1);
    ask(Arc::clone(client), Arc::clone(&rest)).await;
    assert_eq!(spent + rest.signed(), units);
    rest
}

#[test]
fn a_kill_during_the_first_start_leaves_a_folder_that_starts() {
    for _ in 0..rounds().div_ceil(5) {
        let folder = tempfile::tempdir().unwrap();
        kill_a_start(&folder, Duration::from_millis(300));
        let engine = Setup::default().start_in(folder);
        let ledger = Ledger::new("first", "demo-p256", 1);
        block_on(async {
            for client in connect(&engine.profile()).await {
                let wanted = ledger.next().unwrap();
                ledger.hear(&wanted, client.sign(&wanted).await.unwrap());
            }
        });
        audit(engine.kill().path(), &[&ledger]);
    }
}
