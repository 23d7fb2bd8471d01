//! Stalls under load: worker processes that stand still, a device that becomes ten times slower. Nothing is answered later
//! than promised, whatever is refused is refused as our fault, and it all works again by itself. And a client that tries
//! again within its budget notices nothing of a device that trips.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::client::{Client, RetryPolicy, RetryingClient, SignRequest, Transport};
use protocol::error_code::Code;
use protocol::message::ItemOutcome;
use tokio::task::JoinSet;

use crate::devices_support::{Site, cinnabar, order};
use crate::support::{Engine, Setup, block_on, request, run, run_in, wait_until};

const PER_SECOND: u32 = 100;

/// What the clients heard, by code; `None`: a signature.
type Heard = BTreeMap<Option<Code>, u64>;

/// Asks in step with a clock, whatever the answers, until `story` has come to its end; then waits for every answer.
async fn under_load(client: &Arc<Client>, credential: &str, story: impl FnOnce() + Send + 'static) -> Heard {
    let heard = Arc::new(Mutex::new(Heard::new()));
    let mut asking = JoinSet::new();
    let mut clock = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let story = tokio::task::spawn_blocking(story);
    let mut number = 0;
    while !story.is_finished() {
        clock.tick().await;
        number += 1;
        let wanted = SignRequest {
            credential: credential.into(),
            ..request(&format!("{credential}-{number}"), "x")
        };
        asking.spawn(ask(Arc::clone(client), wanted, Arc::clone(&heard)));
    }
    story.await.unwrap();
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    let heard = std::mem::take(&mut *heard.lock());
    assert_eq!(
        heard.values().sum::<u64>(),
        number,
        "everybody is answered: {heard:?}"
    );
    heard
}

async fn ask(client: Arc<Client>, wanted: SignRequest, heard: Arc<Mutex<Heard>>) {
    let what = match client.sign(&wanted).await {
        Ok(items) => match &items[..] {
            [ItemOutcome::Done { .. }] => None,
            [ItemOutcome::Pending] => Some(Code::OutcomePending),
            other => panic!("{other:?}"),
        },
        Err(refusal) => Some(refusal.code),
    };
    *heard.lock().entry(what).or_default() += 1;
}

/// Whatever was refused was our fault, and whatever was answered was answered in time, as the engine itself measured it.
fn assert_promise(engine: &Engine, heard: &Heard) {
    let mut ours = 0;
    for (code, count) in heard.iter().filter_map(|(code, count)| Some(((*code)?, count))) {
        assert!(matches!(code.http_status(), 503 | 504), "{heard:?}");
        ours += count;
    }
    let failed = || engine.metric("cinnabar_promise_failed_total") as u64;
    wait_until("every refusal is counted as ours", || failed() == ours);
    let all = heard.values().sum::<u64>();
    wait_until("every latency is collected", || {
        counted(engine, "_count{operation=\"sign\"") == all
    });
    let in_time = counted_upto(engine, "3.0");
    assert_eq!(in_time, all, "answered within 3 s, of all");
}

/// The sum of all samples of request durations that begin so.
fn counted(engine: &Engine, begin: &str) -> u64 {
    let (_, text) = engine.admin_get("/metrics");
    let begin = format!("cinnabar_request_duration_seconds{begin}");
    let lines = text.lines().filter(|line| line.starts_with(&begin));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn counted_upto(engine: &Engine, bound: &str) -> u64 {
    let (_, text) = engine.admin_get("/metrics");
    let lines = text.lines().filter(|line| {
        line.starts_with("cinnabar_request_duration_seconds_bucket{")
            && line.contains("operation=\"sign\"")
            && line.contains(&format!("le=\"{bound}\""))
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// The engine's worker processes.
fn workers(engine: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_worker = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything, are the state and the parent.
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        parent == Some(&engine.to_string())
    };
    numbers.filter(is_worker).collect()
}

fn signal(name: &str, processes: &[u32]) {
    for process in processes {
        // One that has been killed meanwhile is no matter.
        let _ = run(Command::new("kill").args([name, &process.to_string()]));
    }
}

/// A device with a key, and calls that take so long.
fn start(script: &str) -> Engine {
    let engine = Site::new().faulty("hsm-1").config("processes = 4\n").start();
    cinnabar(
        &engine,
        "key create --tenant demo --kind p256 --device hsm-1 seal",
    )
    .ok();
    order(engine.folder.as_ref().unwrap().path(), "hsm-1", script);
    engine
}

/// One signature, when it works again.
fn wait_until_it_signs(engine: &Engine) {
    wait_until("it signs again", || {
        let line = "sign --profile var/dev/app.toml --credential seal --file cinnabar.toml --out signature";
        cinnabar(engine, line).code == 0
    });
}

#[test]
fn worker_processes_that_stand_still_for_two_seconds_break_no_promise() {
    let engine = start("slow 5");
    let process = engine.process.id();
    let heard = block_on(async {
        let client = Arc::new(engine.client(Transport::Quic).await);
        under_load(&client, "seal", move || {
            std::thread::sleep(Duration::from_secs(1));
            let stopped = workers(process);
            assert!(stopped.len() >= 4, "{stopped:?}");
            signal("-STOP", &stopped);
            std::thread::sleep(Duration::from_secs(2));
            signal("-CONT", &stopped);
            std::thread::sleep(Duration::from_secs(1));
        })
        .await
    });
    assert!(heard[&None] >= u64::from(PER_SECOND) / 2, "{heard:?}");
    assert!(heard.len() > 1, "two seconds of nothing are noticed: {heard:?}");
    assert_promise(&engine, &heard);
    wait_until_it_signs(&engine);
}

#[test]
fn a_device_that_becomes_ten_times_slower_breaks_no_promise() {
    let engine = start("slow 20");
    let folder = engine.folder.as_ref().unwrap().path().to_owned();
    let heard = block_on(async {
        let client = Arc::new(engine.client(Transport::Quic).await);
        under_load(&client, "seal", move || {
            std::thread::sleep(Duration::from_secs(1));
            order(&folder, "hsm-1", "slow 200");
            std::thread::sleep(Duration::from_secs(4));
            order(&folder, "hsm-1", "slow 20");
            std::thread::sleep(Duration::from_secs(1));
        })
        .await
    });
    assert!(heard[&None] >= u64::from(PER_SECOND), "{heard:?}");
    assert!(
        heard.contains_key(&Some(Code::Overloaded)),
        "a fifth of what comes fits: {heard:?}"
    );
    assert_promise(&engine, &heard);
    wait_until_it_signs(&engine);
}

/// Load on software lanes while the journal's disk does not answer for a while.
fn with_a_stalled_disk(engine: &Engine, ms: u64) -> Heard {
    let folder = engine.folder.as_ref().unwrap().path().to_owned();
    block_on(async {
        let client = Arc::new(engine.client(Transport::Quic).await);
        under_load(&client, "demo-p256", move || {
            std::thread::sleep(Duration::from_millis(500));
            run_in(&folder, &["rehearse", "disk", "--ms", &ms.to_string()]).ok();
            std::thread::sleep(Duration::from_millis(ms + 1_000));
        })
        .await
    })
}

#[test]
fn a_journal_disk_that_blocks_for_a_second_breaks_no_promise() {
    let engine = Engine::start();
    let heard = with_a_stalled_disk(&engine, 1_000);
    assert!(heard[&None] >= u64::from(PER_SECOND), "{heard:?}");
    assert_promise(&engine, &heard);
    let all = heard.values().sum::<u64>();
    assert!(
        counted_upto(&engine, "0.5") < all,
        "nobody has felt it: {heard:?}"
    );
}

#[test]
fn a_journal_disk_that_blocks_for_longer_than_an_answer_may_take_is_our_fault_and_loses_nothing() {
    let engine = Engine::start();
    let heard = with_a_stalled_disk(&engine, 4_000);
    assert_promise(&engine, &heard);
    let late = |code: &Option<Code>| matches!(code, Some(Code::OutcomeUnknown | Code::OutcomePending));
    assert!(heard.keys().any(late), "somebody waited for too long: {heard:?}");
    // Each key has one outcome, and that is a signature: what was late is on the disk, what was refused is signed now.
    let all = heard.values().sum::<u64>();
    block_on(async {
        let client = engine.client(Transport::Quic).await;
        for number in 1..=all {
            let again = client
                .sign(&request(&format!("demo-p256-{number}"), "x"))
                .await
                .unwrap();
            assert!(
                matches!(again[..], [ItemOutcome::Done { .. }]),
                "{number}: {again:?}"
            );
        }
        assert_eq!(
            client.usage().await.unwrap().signatures,
            all,
            "each is counted once"
        );
    });
}

/// How often a signature was refused because the device failed.
fn device_failures(engine: &Engine) -> u64 {
    engine.metric("cinnabar_requests_refused_total{code=\"device_failed\"}") as u64
}

#[test]
fn a_client_that_tries_again_gets_its_signature_once() {
    let engine = Site::new().faulty("hsm-1").start();
    cinnabar(
        &engine,
        "key create --tenant demo --kind p256 --device hsm-1 seal",
    )
    .ok();
    let folder = engine.folder.as_ref().unwrap().path();
    // Waits that are long for a test, so that the device is well again before the last try.
    let policy = RetryPolicy {
        tries_max: 8,
        base: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    let wanted = |key: &str| SignRequest {
        credential: "seal".into(),
        ..request(key, "x")
    };
    block_on(async {
        for (transport, key) in [(Transport::Quic, "quic"), (Transport::Https, "https")] {
            let client = Arc::new(RetryingClient::new(engine.profile(), transport, 1, policy));
            let before = device_failures(&engine);
            order(folder, "hsm-1", "error CKR_FUNCTION_FAILED");
            let (asking, asked) = (Arc::clone(&client), wanted(key));
            let answer = tokio::spawn(async move { asking.sign(&asked).await });
            while device_failures(&engine) == before && !answer.is_finished() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            order(folder, "hsm-1", "ok");
            let first = answer.await.unwrap().unwrap();
            assert!(matches!(first[..], [ItemOutcome::Done { .. }]), "{first:?}");
            assert_eq!(
                client.sign(&wanted(key)).await.unwrap(),
                first,
                "a retry is a replay"
            );
        }
        let plain = engine.client(Transport::Quic).await;
        assert_eq!(plain.usage().await.unwrap().signatures, 2);
    });
}

#[test]
fn a_client_that_tries_again_connects_anew() {
    let engine = Setup::default().set("cores", 2).start();
    block_on(async {
        let client = RetryingClient::new(engine.profile(), Transport::Quic, 1, RetryPolicy::default());
        client.sign(&request("before", "x")).await.unwrap();
        engine.operate("rehearse core --core 0");
        engine.operate("rehearse core --core 1");
        let after = client.sign(&request("after", "x")).await.unwrap();
        assert!(matches!(after[..], [ItemOutcome::Done { .. }]), "{after:?}");
    });
}
