//! The panic test: every part that can die alone is made to, under load. No request is left unanswered, none is billed
//! twice, and the service is back within 100 ms.

use std::sync::Arc;
use std::time::Duration;

use protocol::client::{Client, Profile, Transport};
use protocol::error_code::Code;

use crate::ledger::{Ledger, Load, WhenLost, audit, connect};
use crate::support::{Engine, Setup, block_on, now, request, sign_one, wait_until};

/// The promise of a restart.
const BACK: Duration = Duration::from_millis(100);
/// How often each part dies.
const DEATHS: usize = 7;
/// The outage that counts, from the shortest: what is slow in the way back is slow each time, while what the clients and
/// other tests take from a small machine is not.
const COUNTS: usize = DEATHS / 4;
/// More than any core's lease holds (256 units and a call of 64): signing them takes a living metering actor.
const MORE_THAN_A_LEASE: usize = 400;

const ACTORS: &str = "cinnabar_actor_restarts_total";
const CORES: &str = "cinnabar_core_restarts_total";

/// An engine with a single core, and an app whose clients load both of its fronts while its parts die one after the
/// other.
struct Victim {
    engine: Engine,
    ledger: Arc<Ledger>,
    profile: Profile,
}

impl Victim {
    fn signs_more(&self, count: usize) {
        let wanted = self.ledger.signed() + count;
        wait_until("signing goes on", || self.ledger.signed() >= wanted);
    }

    /// Makes a part die and waits until it works again. Returns how long nobody received a signature.
    fn kill(&self, part: &str, counter: &str) -> Duration {
        let from = now();
        let before = self.engine.metric(counter);
        self.engine.operate(&format!("rehearse {part}"));
        wait_until("started anew", || self.engine.metric(counter) > before);
        self.signs_more(MORE_THAN_A_LEASE);
        self.ledger.longest_gap(from)
    }

    /// Kills a part under load again and again. Afterwards every call has its answer and is counted once. Returns how
    /// long the way back took.
    fn survives(self, part: &'static str, counter: &'static str) -> Duration {
        let load = Load {
            profile: self.profile.clone(),
            ledger: Arc::clone(&self.ledger),
            when_lost: WhenLost::ComeBack,
        };
        let asking = load.start_in_background(8);
        self.signs_more(MORE_THAN_A_LEASE);
        let mut outages = [(); DEATHS].map(|()| self.kill(part, counter));
        self.ledger.end();
        asking.join().unwrap();
        outages.sort();
        eprintln!(
            "{part}: out for {outages:?}; refused: {:?}",
            self.ledger.refusals()
        );
        block_on(self.agree_on_what_was_signed());
        assert_eq!(self.engine.metric(counter), DEATHS as f64);
        audit(self.engine.stop().path(), &[&self.ledger]);
        outages[COUNTS]
    }

    async fn agree_on_what_was_signed(&self) {
        let pair = connect(&self.profile).await;
        self.ledger.settle(&pair).await;
        self.ledger.confirm(&pair, 500).await;
        let usage = pair[0].usage().await.unwrap();
        assert_eq!(usage.signatures, self.ledger.signed() as u64);
    }
}

fn victim_of_the_demo_app() -> Victim {
    let engine = Setup::default().set("cores", 1).start();
    let profile = engine.profile();
    Victim {
        engine,
        ledger: Ledger::new("demo", "demo-p256", 8),
        profile,
    }
}

#[test]
fn a_shard_that_panics_costs_no_call() {
    let out = victim_of_the_demo_app().survives("shard", ACTORS);
    assert!(out <= BACK, "back after {out:?}");
}

#[test]
fn a_core_that_ends_costs_no_call() {
    let out = victim_of_the_demo_app().survives("core", CORES);
    assert!(out <= BACK, "back after {out:?}");
}

#[test]
fn a_panic_is_in_the_log_files_whatever_else_is_logged() {
    let engine = Setup::default().set("cores", 1).set("log", "store=info").start();
    engine.operate("rehearse shard");
    wait_until("started anew", || engine.metric(ACTORS) > 0.0);
    let folder = engine.stop();
    let files = std::fs::read_dir(folder.path().join("var/logs"))
        .unwrap()
        .flatten();
    let said = files
        .map(|file| std::fs::read_to_string(file.path()).unwrap())
        .collect::<String>();
    assert!(
        said.contains("\"panic: ") && said.contains("\"place\":"),
        "{said}"
    );
}

/// Batches so large that every fourth call or so waits for units.
fn victim_of_a_prepaid_app() -> Victim {
    let engine = Setup::default().set("cores", 1).start();
    engine.make_prepaid(1_000_000);
    let profile = engine.prepaid_profile();
    Victim {
        engine,
        ledger: Ledger::new("metered", "seal", 64),
        profile,
    }
}

#[test]
fn a_metering_actor_that_panics_costs_no_call_and_no_unit() {
    let out = victim_of_a_prepaid_app().survives("metering", ACTORS);
    assert!(out <= BACK, "back after {out:?}");
}

#[test]
fn a_core_that_ends_leaves_no_key_behind_that_waits_for_units() {
    victim_of_a_prepaid_app().survives("core", CORES);
}

/// Enough connections that each of two cores has some, but once in 30,000 times.
const CONNECTIONS: usize = 16;

async fn signs(client: &Client, key: &str) -> Result<(), Code> {
    let answer = sign_one(client, &request(key, "text")).await;
    answer.map(drop).map_err(|refusal| refusal.code)
}

#[test]
fn when_one_core_ends_the_connections_of_the_others_go_on() {
    let engine = Setup::default().set("cores", 2).start();
    block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(engine.client(Transport::Quic).await);
        }
        engine.operate("rehearse core --core 1");
        wait_until("started anew", || engine.metric(CORES) == 1.0);
        let mut lost = 0;
        for (at, client) in clients.iter().enumerate() {
            match signs(client, &format!("old-{at}")).await {
                Ok(()) => {}
                Err(code) => {
                    // A client that missed the last words hears a stateless reset, which cannot say why.
                    assert!(matches!(code, Code::Restarted | Code::Connection), "{code}");
                    lost += 1;
                }
            }
            let again = engine.client(Transport::Quic).await;
            signs(&again, &format!("old-{at}")).await.unwrap();
        }
        assert!(
            (1..CONNECTIONS).contains(&lost),
            "{lost} of {CONNECTIONS} were lost"
        );
        let usage = engine.client(Transport::Https).await.usage().await.unwrap();
        assert_eq!(usage.signatures, CONNECTIONS as u64);
    });
}
