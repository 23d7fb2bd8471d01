//! Keys in a PKCS#11 token, through the whole engine: SoftHSM2 as it is, and behind a module that misbehaves. A device
//! that hangs, dies or lies costs its own requests an answer within the promise, and nobody else anything.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use protocol::algorithm::{Algorithm, Format, InputKind, KeyKind};
use protocol::client::{Client, SignRequest};
use protocol::error_code::Code;
use protocol::limits::PROMISE_MS_MAX;
use protocol::message::ItemOutcome;

use crate::support::{
    BOTH, Engine, Setup, block_on, checked, credential, key, now, request, run, sign_one, wait_until,
};

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// An engine with one device, in a folder that also holds its token.
struct World {
    engine: Engine,
    script: PathBuf,
}

impl World {
    fn start(module: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let (tokens, settings) = (at.join("tokens"), at.join("softhsm2.conf"));
        std::fs::create_dir(&tokens).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\n",
            tokens.display()
        );
        std::fs::write(&settings, text).unwrap();
        let line = "--init-token --free --label production --pin 123456 --so-pin 12345678";
        let mut init = Command::new("softhsm2-util");
        run(init.args(line.split(' ')).env("SOFTHSM2_CONF", &settings)).ok();
        std::fs::write(at.join("pin"), "123456\n").unwrap();
        let script = at.join("script");
        let device = format!(
            "[[device]]\nname = \"hsm-1\"\nmodule = \"{}\"\ntoken_label = \"production\"\npin_file = \"pin\"\n",
            module.display()
        );
        let engine = Setup::default()
            .environment("SOFTHSM2_CONF", &settings)
            .environment("FAULTY_TOKEN_SCRIPT", &script)
            .config(&device)
            .start_in(folder);
        Self { engine, script }
    }

    /// An engine whose device obeys [`Self::order`], with the credential `seal` in it.
    fn faulty() -> Self {
        let world = Self::start(&faulty_module());
        world.create_key(KeyKind::P256, "seal");
        world
    }

    fn create_key(&self, kind: KeyKind, id: &str) {
        let line = format!("key create --tenant demo --kind {kind} --device hsm-1 {id}");
        self.engine.cli(&line.split(' ').collect::<Vec<_>>()).ok();
    }

    /// Tells the module what to do from now on.
    fn order(&self, order: &str) {
        let next = self.script.with_extension("next");
        std::fs::write(&next, order).unwrap();
        std::fs::rename(next, &self.script).unwrap();
    }

    /// Retries a call under its key until the device is back.
    async fn signs_again(&self, client: &Client, wanted: &SignRequest) -> ItemOutcome {
        let until = now() + Duration::from_secs(20);
        loop {
            match sign_one(client, wanted).await {
                Ok(outcome @ ItemOutcome::Done { .. }) => return outcome,
                Ok(ItemOutcome::Pending) => {}
                Ok(ItemOutcome::Failed(refusal)) | Err(refusal) => {
                    assert!(refusal.code.retryable(), "{refusal}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            assert!(now() < until, "the device does not come back");
        }
    }
}

/// The faulty module, built when it is not there yet.
fn faulty_module() -> PathBuf {
    let path = Path::new(crate::support::BINARY).with_file_name("libfaulty_token.so");
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        run(build.args(["build", "-q", "-p", "faulty-token"])).ok();
    });
    assert!(path.exists(), "{}", path.display());
    path
}

/// A request for a signature by the device.
fn by_device(idempotency_key: &str) -> SignRequest {
    SignRequest {
        credential: "seal".into(),
        ..request(idempotency_key, "text")
    }
}

fn with_algorithm(id: &str, algorithm: Algorithm, name: &str) -> SignRequest {
    let input = match algorithm.input() {
        InputKind::Digest(hash) => hash.digest(b"text").to_vec(),
        InputKind::Message(_) => b"text".to_vec(),
    };
    SignRequest {
        credential: id.into(),
        algorithm,
        format: Format::Raw,
        key: key(name),
        inputs: vec![input],
        user_id: None,
        deadline_ms: None,
    }
}

/// Signs with a key in every way, over both transports, each twice; how many signatures that was.
async fn every_algorithm(engine: &Engine, kind: KeyKind, id: &str) -> u64 {
    let mut count = 0;
    for transport in BOTH {
        let client = engine.client(transport).await;
        let info = credential(&client, id).await;
        for &algorithm in kind.algorithms() {
            let name = format!("{algorithm}-{transport:?}");
            let wanted = with_algorithm(id, algorithm, &name);
            let outcome = sign_one(&client, &wanted).await;
            let outcome = outcome.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            let retried = sign_one(&client, &wanted).await.unwrap();
            let signature = checked(&wanted, &info, &outcome);
            assert_eq!(checked(&wanted, &info, &retried), signature, "{name}");
            count += 1;
        }
    }
    count
}

#[test]
fn keys_in_a_token_sign_over_both_transports_and_are_counted_like_others() {
    let mut world = World::start(Path::new(SOFTHSM));
    let count = block_on(async {
        let mut count = 0;
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Ed25519] {
            let id = format!("seal-{kind}");
            world.create_key(kind, &id);
            count += every_algorithm(&world.engine, kind, &id).await;
        }
        let client = world.engine.client(BOTH[0]).await;
        assert_eq!(client.usage().await.unwrap().signatures, count);
        count
    });
    let counted = world
        .engine
        .metric("cinnabar_device_signatures_total{device=\"hsm-1\"}");
    assert_eq!(counted as u64, count);
    assert!(world.engine.terminate().success());
    let text = world.engine.cli(&["journal", "check"]).ok();
    let checked: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(checked["signatures"], count);
}

/// Keys that are made one after the other are made by different worker processes. SoftHSM2 (2.6.1) then overlooks what
/// another process has made since it last looked: writing its own object moves it past the other's mark.
#[test]
fn every_worker_process_of_a_device_finds_every_key_of_it() {
    let world = World::start(Path::new(SOFTHSM));
    let ids: Vec<String> = (0..4).map(|number| format!("seal-{number}")).collect();
    for id in &ids {
        world.create_key(KeyKind::P256, id);
    }
    block_on(async {
        let client = world.engine.client(BOTH[0]).await;
        for id in &ids {
            // More often than there are processes, one after the other, so that each has its turn.
            for turn in 0..6 {
                let wanted = with_algorithm(id, Algorithm::EcdsaP256Sha256, &format!("{id}-{turn}"));
                let outcome = sign_one(&client, &wanted).await;
                assert!(
                    matches!(outcome, Ok(ItemOutcome::Done { .. })),
                    "{id}, {turn}: {outcome:?}"
                );
            }
        }
    });
}

#[test]
fn a_key_that_cannot_be_made_in_a_device_is_refused_by_name() {
    let world = World::start(Path::new(SOFTHSM));
    let create = |line: &str| world.engine.cli(&line.split(' ').collect::<Vec<_>>());
    let no_device = create("key create --tenant demo --kind p256 --device hsm-2 seal");
    assert_ne!(no_device.code, 0, "{no_device:?}");
    assert_eq!(no_device.stderr.lines().count(), 1, "{no_device:?}");
    let no_sm2 = create("key create --tenant demo --kind sm2 --device hsm-1 seal");
    assert_ne!(no_sm2.code, 0, "{no_sm2:?}");
    assert_eq!(no_sm2.stderr.lines().count(), 1, "{no_sm2:?}");
    block_on(async {
        let list = world.engine.client(BOTH[0]).await.credentials().await.unwrap();
        assert!(list.iter().all(|info| info.id != "seal"));
    });
}

/// Clients that hang together: enough to fill every worker process and the queue behind them.
const CLIENTS: usize = 200;

/// One call to the device; how long its answer took, in milliseconds, and what it was.
async fn timed(client: &Client, wanted: &SignRequest) -> (u128, Result<ItemOutcome, Code>) {
    let since = now();
    let answer = sign_one(client, wanted).await;
    (
        since.elapsed().as_millis(),
        answer.map_err(|refusal| refusal.code),
    )
}

#[test]
fn a_module_that_hangs_leaves_every_client_with_an_answer_and_software_keys_alone() {
    let world = World::faulty();
    block_on(async {
        let clients = [
            world.engine.client(BOTH[0]).await,
            many_connections(&world.engine).await,
        ];
        let before = clients[0].usage().await.unwrap().signatures;
        world.order("hang");
        let wanted: Vec<SignRequest> = (0..CLIENTS).map(|n| by_device(&format!("hang-{n}"))).collect();
        let hung = async {
            let calls = wanted
                .iter()
                .enumerate()
                .map(|(n, wanted)| timed(&clients[n % 2], wanted));
            all(calls).await
        };
        let (answers, slowest) = tokio::join!(hung, software_meanwhile(&world.engine));
        let longest = answers.iter().map(|(ms, _)| *ms).max().unwrap();
        println!("hung: longest answer {longest} ms; software keys meanwhile: {slowest} ms at most");
        assert!(longest < u128::from(PROMISE_MS_MAX), "{longest} ms");
        for (_, answer) in &answers {
            let fair = [
                Code::DeviceFailed,
                Code::DeviceUnavailable,
                Code::DeadlineExceeded,
                Code::Overloaded,
            ];
            match answer {
                Ok(ItemOutcome::Pending) => {}
                Err(code) if fair.contains(code) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(slowest < u128::from(PROMISE_MS_MAX), "{slowest} ms");
        assert_eq!(
            clients[0]
                .usage()
                .await
                .unwrap()
                .by_credential
                .iter()
                .find(|(id, _)| id == "seal"),
            None,
            "nothing was charged"
        );

        // Every call is still its client's to retry: same key, one signature, one charge.
        world.order("ok");
        let info = credential(&clients[0], "seal").await;
        for wanted in &wanted[..20] {
            let outcome = world.signs_again(&clients[0], wanted).await;
            checked(wanted, &info, &outcome);
        }
        let usage = clients[0].usage().await.unwrap();
        let by_seal = usage.by_credential.iter().find(|(id, _)| id == "seal").unwrap().1;
        assert_eq!(by_seal, 20);
        assert!(usage.signatures > before + 20, "software keys signed meanwhile");
    });
    wait_until("nothing in flight", || {
        world.engine.metric("cinnabar_requests_in_flight") == 0.0
    });
}

/// A client over HTTPS that can have half of the calls open at once.
async fn many_connections(engine: &Engine) -> Client {
    Client::connect(&engine.profile(), BOTH[1], CLIENTS / 2)
        .await
        .unwrap()
}

/// Awaits all, at once.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut open: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut done = true;
        for (future, result) in &mut open {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => done = false,
                }
            }
        }
        if done {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    open.into_iter().filter_map(|(_, result)| result).collect()
}

/// Signs with a software key for as long as a hang lasts; the longest answer in milliseconds.
async fn software_meanwhile(engine: &Engine) -> u128 {
    let client = engine.client(BOTH[0]).await;
    let until = now() + Duration::from_millis(2_500);
    let mut slowest = 0;
    for number in 0.. {
        let (ms, answer) = timed(&client, &request(&format!("software-{number}"), "text")).await;
        assert!(matches!(answer, Ok(ItemOutcome::Done { .. })), "{answer:?}");
        slowest = slowest.max(ms);
        if now() > until {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    slowest
}

#[test]
fn a_module_that_dies_lies_or_fails_is_a_clear_refusal_and_service_resumes() {
    let world = World::faulty();
    block_on(async {
        let client = world.engine.client(BOTH[0]).await;
        let info = credential(&client, "seal").await;
        let charged = async |client: &Client| client.usage().await.unwrap().signatures;
        // 0x30 is CKR_DEVICE_ERROR, 0x21 CKR_DATA_LEN_RANGE (PKCS#11 3.0, 5.1).
        for (order, expected) in [
            ("crash", Code::DeviceFailed),
            ("wrong", Code::SignatureRejected),
            ("error 0x30", Code::DeviceFailed),
            ("error 0x21", Code::DeviceFailed),
        ] {
            for transport in BOTH {
                let client = world.engine.client(transport).await;
                world.order("ok");
                let warm = by_device(&format!("warm {order} {transport:?}").replace(' ', "-"));
                world.signs_again(&client, &warm).await;
                let before = charged(&client).await;

                world.order(order);
                let wanted = by_device(&format!("{order} {transport:?}").replace(' ', "-"));
                let refusal = sign_one(&client, &wanted).await.unwrap_err();
                assert_eq!(refusal.code, expected, "{order}");
                assert!(refusal.code.retryable(), "{order}");
                assert_eq!(charged(&client).await, before, "{order}");

                world.order("ok");
                let outcome = world.signs_again(&client, &wanted).await;
                checked(&wanted, &info, &outcome);
                assert_eq!(charged(&client).await, before + 1, "{order}");
            }
        }
    });
}

#[test]
fn a_call_that_outlives_its_deadline_is_pending_and_becomes_what_the_device_makes_of_it() {
    let world = World::faulty();
    block_on(async {
        let client = world.engine.client(BOTH[1]).await;
        let info = credential(&client, "seal").await;
        // Slow and in the end successful: done, once, with the bytes that a look-up brings.
        world.order("slow 800");
        let slow = SignRequest {
            deadline_ms: Some(100),
            ..by_device("slow")
        };
        assert_eq!(sign_one(&client, &slow).await.unwrap(), ItemOutcome::Pending);
        let outcome = settled(&client, &slow).await;
        let signature = checked(&slow, &info, &outcome);
        let retried = sign_one(&client, &slow).await.unwrap();
        assert_eq!(checked(&slow, &info, &retried), signature);
        assert_eq!(client.usage().await.unwrap().signatures, 1);

        // Hung: failed, uncharged, and free to be tried again.
        world.order("hang");
        let hung = SignRequest {
            deadline_ms: Some(100),
            ..by_device("hung")
        };
        assert_eq!(sign_one(&client, &hung).await.unwrap(), ItemOutcome::Pending);
        let outcome = settled(&client, &hung).await;
        assert!(
            matches!(&outcome, ItemOutcome::Failed(refusal) if refusal.code == Code::DeviceFailed),
            "{outcome:?}"
        );
        assert_eq!(client.usage().await.unwrap().signatures, 1);
        world.order("ok");
        let again = by_device("hung");
        checked(&again, &info, &world.signs_again(&client, &again).await);
        assert_eq!(client.usage().await.unwrap().signatures, 2);
    });
}

/// What a look-up says once the call is no longer pending.
async fn settled(client: &Client, wanted: &SignRequest) -> ItemOutcome {
    let until = now() + Duration::from_secs(10);
    loop {
        let [outcome] = &client.look_up(&wanted.key).await.unwrap()[..] else {
            panic!("not one item")
        };
        if *outcome != ItemOutcome::Pending {
            return outcome.clone();
        }
        assert!(now() < until, "pending for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_revocation_wins_over_a_signature_that_is_already_in_the_device() {
    let mut world = World::faulty();
    block_on(async {
        let client = world.engine.client(BOTH[0]).await;
        let app = world.engine.profile().app_id.to_string();
        // The module is asked for the length first, so this counts twice; together it stays below a hang.
        world.order("slow 700");
        let wanted = by_device("raced");
        let signing = sign_one(&client, &wanted);
        let revoking = async {
            // The call is on its way when it shows among those in flight.
            loop {
                if world.engine.metric("cinnabar_requests_in_flight") >= 1.0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
            world.engine.cli(&["app", "revoke", &app]).ok();
        };
        let (answer, ()) = tokio::join!(signing, revoking);
        assert_eq!(answer.unwrap_err().code, Code::AppRevoked);
        world.engine.cli(&["app", "enable", &app]).ok();
        assert_eq!(client.usage().await.unwrap().signatures, 0);
    });
    assert!(world.engine.terminate().success());
    let entries = world.engine.cli(&["journal", "export"]).ok();
    assert!(entries.contains("\"kind\":\"discarded\""), "{entries}");
    assert!(!entries.contains("\"kind\":\"signature\""), "{entries}");
}
