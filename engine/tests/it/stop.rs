//! Stopping: SIGTERM finishes what is in flight, refuses the rest and ends with 0; the next start finds everything.

use std::sync::Arc;

use protocol::algorithm::{Algorithm, Hash};
use protocol::client::{Client, SignRequest};
use protocol::error_code::{Code, Refusal};
use protocol::limits::BATCH_ITEMS_MAX;
use protocol::message::ItemOutcome;

use crate::ledger::{Ledger, Load, Pair, WhenLost, audit, connect};
use crate::support::{BOTH, Engine, Setup, block_on, key, request, sign_one, wait_until};

/// Calls that are in flight when the order comes, on each transport.
const LONG_CALLS: usize = 2;

/// A call that takes a while: as many RSA-4096 signatures as one call may ask for.
fn long_call(idempotency_key: &str) -> SignRequest {
    let digest = |item: usize| Hash::Sha256.digest(format!("{item}").as_bytes()).to_vec();
    SignRequest {
        credential: "big".into(),
        algorithm: Algorithm::RsaPkcs1Sha256,
        key: key(idempotency_key),
        inputs: (0..BATCH_ITEMS_MAX).map(digest).collect(),
        ..request(idempotency_key, "")
    }
}

async fn long_calls(pair: &Pair) -> Vec<Vec<ItemOutcome>> {
    let mut asking = tokio::task::JoinSet::new();
    for (at, client) in pair.iter().enumerate() {
        for number in 0..LONG_CALLS {
            let client = Arc::clone(client);
            asking.spawn(async move { client.sign(&long_call(&format!("long-{at}-{number}"))).await });
        }
    }
    let answers = asking.join_all().await;
    answers.into_iter().map(Result::unwrap).collect()
}

/// What new calls hear once `stopping` says that the order has been taken.
async fn late_calls(pair: &Pair, stopping: tokio::sync::oneshot::Receiver<()>) -> [Refusal; 2] {
    stopping.await.unwrap();
    let late = request("late", "text");
    let (quic, https) = tokio::join!(sign_one(&pair[0], &late), sign_one(&pair[1], &late));
    [quic.unwrap_err(), https.unwrap_err()]
}

fn is_done(item: &ItemOutcome) -> bool {
    matches!(item, ItemOutcome::Done { .. })
}

#[test]
fn what_is_in_flight_is_finished_and_what_is_new_is_refused() {
    // Seconds of work are to be in flight, so admission must let them in.
    let mut engine = Setup::default().set("queue_ms_max", 2_000).start();
    engine.operate("key create --tenant demo --kind rsa4096 big");
    let profile = engine.profile();
    let (stop, stopping) = tokio::sync::oneshot::channel();
    let clients = std::thread::spawn(move || {
        block_on(async {
            let pair = connect(&profile).await;
            tokio::join!(long_calls(&pair), late_calls(&pair, stopping))
        })
    });
    let all = (LONG_CALLS * BOTH.len()) as f64;
    wait_until("all are in flight", || {
        engine.metric("cinnabar_requests_in_flight") == all
    });
    engine.ask_to_stop();
    wait_until("/readyz says that it stops", || {
        engine.admin_get("/readyz") == (503, "stopping\n".into())
    });
    stop.send(()).unwrap();
    let (answers, [quic, https]) = clients.join().unwrap();
    assert!(answers.iter().flatten().all(is_done), "{answers:?}");
    assert_eq!(answers.iter().flatten().count(), BATCH_ITEMS_MAX * LONG_CALLS * 2);
    // Over QUIC also the close of the connection says why; a closed HTTPS connection cannot.
    assert_eq!(quic.code, Code::ShuttingDown);
    assert!(
        matches!(https.code, Code::ShuttingDown | Code::Connection),
        "{https}"
    );
    assert_eq!(engine.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stop_under_load_loses_nothing_and_the_next_start_finds_it() {
    let mut engine = Engine::start();
    let ledger = Ledger::new("stop", "demo-p256", 8);
    let load = Load {
        profile: engine.profile(),
        ledger: Arc::clone(&ledger),
        when_lost: WhenLost::GiveUp,
    };
    let asking = load.start_in_background(16);
    wait_until("the load is on", || ledger.signed() >= 500);
    assert_eq!(engine.terminate().code(), Some(0));
    // Every client has heard something, and has left of its own accord.
    asking.join().unwrap();
    let refusals = ledger.refusals();
    let ends = [Code::ShuttingDown, Code::Connection];
    assert!(refusals.keys().all(|code| ends.contains(code)), "{refusals:?}");
    assert!(refusals.contains_key(&Code::ShuttingDown), "{refusals:?}");

    let engine = Setup::default().start_in(engine.folder.take().unwrap());
    block_on(async {
        let pair = connect(&engine.profile()).await;
        ledger.confirm(&pair, usize::MAX).await;
        ledger.settle(&pair).await;
        let usage = pair[0].usage().await.unwrap();
        assert_eq!(usage.signatures, ledger.signed() as u64);
    });
    audit(engine.stop().path(), &[&ledger]);
}

async fn signs(client: &Client, key: &str) {
    sign_one(client, &request(key, "text")).await.unwrap();
}

#[test]
fn a_second_process_in_the_same_folder_is_refused_until_the_first_has_ended() {
    let mut engine = Engine::start();
    let any = "127.0.0.1:0";
    let loopback = ["--listen", any, "--admin", any, "--pki", any, "--console", any];
    let serve = [&["serve", "--dev"], &loopback[..]].concat();
    engine.cli(&serve).refused(2, "usage");
    engine.cli(&["journal", "check"]).refused(2, "usage");
    block_on(async {
        signs(&engine.client(BOTH[0]).await, "first").await;
        assert_eq!(engine.terminate().code(), Some(0));
    });
    let second = Setup::default().start_in(engine.folder.take().unwrap());
    block_on(async {
        let client = second.client(BOTH[1]).await;
        signs(&client, "first").await;
        assert_eq!(client.usage().await.unwrap().signatures, 1);
    });
}
