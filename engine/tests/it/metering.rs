//! Metering from outside: balances over kills, the states of tenants, contracts, sandboxes, statements that add up, and
//! reports that are of nobody else.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::client::{Client, Profile, SignRequest, Transport};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::http_proof::{self, Parts, SignKey};
use protocol::message::ItemOutcome;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::raw::{Heard, Http1};
use crate::support::{Engine, Setup, block_on, request, sign_one, wait_until};

/// Clients, and the calls that each has in flight.
const CLIENTS: usize = 8;
const DEPTH: usize = 16;
/// How often the engine is killed while the balance is drained.
const KILLS: usize = 3;

/// Units of the balance: `TEST_PREPAID_UNITS`; `make crash` takes 100,000.
fn units() -> usize {
    std::env::var("TEST_PREPAID_UNITS").map_or(8_000, |text| text.parse().unwrap())
}

fn seal(key: &str) -> SignRequest {
    let mut wanted = request(key, key);
    wanted.credential = "seal".into();
    wanted
}

/// The keys that all clients share: each is retried until it has its signature, or the balance is used up.
#[derive(Default)]
struct Keys {
    todo: Mutex<Vec<usize>>,
    done: Mutex<HashSet<usize>>,
}

/// Works through the keys until there are none, the connection is lost, or so many are done in all.
async fn drain(client: Arc<Client>, keys: Arc<Keys>, enough: usize) {
    while keys.done.lock().len() < enough {
        let Some(number) = keys.todo.lock().pop() else {
            return;
        };
        match sign_one(&client, &seal(&format!("key-{number}"))).await {
            Ok(ItemOutcome::Done { .. }) => {
                keys.done.lock().insert(number);
            }
            other => {
                keys.todo.lock().push(number);
                if matches!(&other, Err(refusal) if refusal.code == Code::Connection) {
                    return;
                }
            }
        }
    }
}

/// All clients at full speed.
async fn drain_with_all(profile: &Profile, keys: &Arc<Keys>, enough: usize) {
    let mut working = JoinSet::new();
    for _ in 0..CLIENTS {
        let Ok(client) = Client::connect(profile, Transport::Quic, 1).await else {
            continue;
        };
        let client = Arc::new(client);
        for _ in 0..DEPTH {
            working.spawn(drain(Arc::clone(&client), Arc::clone(keys), enough));
        }
    }
    working.join_all().await;
}

/// This month in Shanghai.
fn month() -> String {
    let now = store::month_of(clock::wall());
    format!("{}-{:02}", now / 100, now % 100)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_balance_drained_over_kills_ends_with_exactly_its_units() {
    let units = units();
    let mut engine = Setup::default().set("cores", 2).start();
    engine.make_prepaid(units);
    let keys = Arc::new(Keys::default());
    keys.todo.lock().extend((0..units).rev());
    for round in 1..=KILLS {
        let clients = (engine.prepaid_profile(), Arc::clone(&keys));
        let draining = std::thread::spawn(move || block_on(drain_with_all(&clients.0, &clients.1, units)));
        let wanted = units * round / (KILLS + 1);
        let done = || keys.done.lock().len();
        while done() < wanted {
            let before = done();
            wait_until("more are signed", || done() > before);
        }
        let folder = engine.kill();
        draining.join().unwrap();
        engine = Setup::default().set("cores", 2).start_in(folder);
    }
    block_on(async {
        drain_with_all(&engine.prepaid_profile(), &keys, units).await;
        assert_eq!(keys.done.lock().len(), units);
        let client = Client::connect(&engine.prepaid_profile(), Transport::Quic, 1)
            .await
            .unwrap();
        let refusal = sign_one(&client, &seal("one-too-many")).await.unwrap_err();
        assert_eq!(refusal.code, Code::QuotaExhausted);
    });
    let statement = engine.operate(&format!("statement --tenant acme --month {}", month()));
    assert_eq!(json(&statement)["charged"], units);
    let items = engine.operate(&format!(
        "statement --tenant acme --month {} --format items",
        month()
    ));
    let requests: HashSet<&str> = items
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(7))
        .collect();
    assert_eq!(
        requests.len(),
        units,
        "every unit is traceable to its own request"
    );
    let found = json(&engine.operate("reconcile"));
    assert_eq!(found["differences"], Value::Array(Vec::new()), "{found}");
    assert_eq!(found["charged"], units);
}

/// A proved GET over HTTP/1.1.
async fn get(profile: &Profile, path: &str) -> Heard {
    let authority = format!("{}:{}", profile.server_name, profile.address.port());
    let parts = Parts {
        method: "GET",
        authority: &authority,
        path,
        query: None,
        content_digest: None,
        idempotency_key: None,
    };
    let key = SignKey::from_secret(&profile.secret().unwrap());
    let signed = http_proof::sign(&parts, profile.app_id.as_str(), clock::wall(), &key).unwrap();
    let text = format!(
        "GET {path} HTTP/1.1\r\nhost: {authority}\r\nsignature-input: {}\r\nsignature: {}\r\n\r\n",
        signed.signature_input, signed.signature
    );
    Http1::dial(profile).await.exchange(text.as_bytes()).await
}

fn body(heard: &Heard) -> Value {
    serde_json::from_slice(&heard.body).unwrap()
}

/// Signs once over HTTPS and says how that ended.
async fn try_sign(profile: &Profile, key: &str) -> Result<ItemOutcome, Refusal> {
    let client = Client::connect(profile, Transport::Https, 1).await.unwrap();
    sign_one(&client, &seal(key)).await
}

#[track_caller]
fn refused(result: Result<ItemOutcome, Refusal>) -> Code {
    result.expect_err("it is refused").code
}

#[test]
fn each_state_of_a_tenant_has_a_code_of_its_own() {
    let engine = Engine::start();
    engine.make_prepaid(100);
    let profile = engine.prepaid_profile();
    block_on(async {
        assert!(try_sign(&profile, "a").await.is_ok());
        engine.operate("tenant suspend acme");
        assert_eq!(refused(try_sign(&profile, "b").await), Code::TenantSuspended);
        // It may still look.
        assert_eq!(get(&profile, "/v1/usage").await.status, 200);
        engine.operate("tenant resume acme");
        assert!(try_sign(&profile, "b").await.is_ok());

        engine.operate("tenant activate acme --at 2099-01-01");
        assert_eq!(refused(try_sign(&profile, "c").await), Code::NotActivated);
        engine.operate("tenant activate acme");

        engine.operate("app contract erp --rate 1 --burst 1");
        assert!(try_sign(&profile, "c").await.is_ok());
        let refusal = try_sign(&profile, "d").await.unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert!(
            refusal.retry_after_ms.is_some_and(|ms| (1..=1_000).contains(&ms)),
            "{refusal:?}"
        );
        engine.operate("app contract erp");

        // What is left is taken back; then only a package is there whose term is over.
        engine.operate("tenant prepaid acme --units 3");
        assert_eq!(refused(try_sign(&profile, "e").await), Code::QuotaExhausted);

        engine.operate("tenant close acme --confirm acme");
        assert_eq!(refused(try_sign(&profile, "f").await), Code::TenantClosed);
        let run = engine.cli(&["tenant", "resume", "acme"]);
        run.refused(2, "tenant_closed");
    });
}

#[test]
fn packages_are_used_in_order_of_expiry_and_end_with_their_term() {
    let engine = Engine::start();
    engine.make_prepaid(1);
    engine.operate("package grant --tenant acme --kind credit --units 2 --reference incident-7");
    engine.operate("package grant --tenant acme --kind by-signature --units 10000 --activated 2020-01-01");
    let profile = engine.prepaid_profile();
    block_on(async {
        for key in ["a", "b", "c"] {
            assert!(try_sign(&profile, key).await.is_ok(), "{key}");
        }
        assert_eq!(refused(try_sign(&profile, "d").await), Code::QuotaExhausted);
        let listed = body(&get(&profile, "/v1/packages").await);
        let states = |name: &str| -> Vec<String> {
            let all = listed["packages"].as_array().unwrap().iter();
            all.map(|package| package[name].as_str().unwrap().to_owned())
                .collect()
        };
        let kinds = ["by-signature", "credit", "prepaid", "counted-certificates"];
        assert_eq!(states("kind"), kinds);
        assert_eq!(states("state"), ["expired", "used-up", "used-up", "active"]);
        assert_eq!(listed["packages"][0]["balances"]["signature.lapsed"], 10_000);
        assert_eq!(listed["packages"][1]["balances"]["signature.credited"], -2);
    });
    let run = engine.cli(&[
        "package",
        "grant",
        "--tenant",
        "acme",
        "--kind",
        "by-signature",
        "--units",
        "9999",
    ]);
    run.refused(2, "usage");
    // By user: signatures are free while it lives, and accounts are counted.
    engine.operate("package grant --tenant acme --kind by-user --units 1000");
    block_on(async { assert!(try_sign(&profile, "d").await.is_ok()) });
    engine.operate("package use --tenant acme --unit user --units 999");
    let run = engine.cli(&[
        "package", "use", "--tenant", "acme", "--unit", "user", "--units", "2",
    ]);
    run.refused(2, "quota_exhausted");
    assert_eq!(json(&engine.operate("reconcile"))["charged"], 4);
}

#[test]
fn a_sandbox_has_keys_of_its_own_a_small_rate_and_costs_nothing() {
    let engine = Engine::start();
    engine.make_prepaid(1);
    engine.operate("app create --tenant acme trial --sandbox --profile-out trial.toml");
    let path = engine.folder.as_ref().unwrap().path().join("trial.toml");
    let mut profile = Profile::read(&path).unwrap();
    profile.address = engine.listen;
    block_on(async {
        assert_eq!(refused(try_sign(&profile, "a").await), Code::UnknownCredential);
        engine.operate("key create --tenant acme --kind p256 toy --sandbox");
        let mut wanted = seal("a");
        wanted.credential = "toy".into();
        let client = Client::connect(&profile, Transport::Quic, 1).await.unwrap();
        // A full batch is more than six seconds' worth; the next call comes too early.
        wanted.inputs = vec![wanted.inputs[0].clone(); 64];
        assert!(sign_one(&client, &wanted).await.is_ok());
        wanted.key = crate::support::key("b");
        assert_eq!(refused(sign_one(&client, &wanted).await), Code::RateLimited);
        // And production does not see the sandbox's keys.
        let mut other = wanted.clone();
        other.key = crate::support::key("production");
        let production = Client::connect(&engine.prepaid_profile(), Transport::Quic, 1)
            .await
            .unwrap();
        assert_eq!(
            refused(sign_one(&production, &other).await),
            Code::UnknownCredential
        );
    });
    let statement = json(&engine.operate(&format!("statement --tenant acme --month {}", month())));
    assert_eq!(statement["charged"], 0);
    assert_eq!(statement["free"], 64);
}

#[test]
fn a_rotated_secret_counts_beside_the_old_one_until_its_time_is_over() {
    let engine = Engine::start();
    engine.make_prepaid(100);
    let old = engine.prepaid_profile();
    let secret = engine.operate("app rotate-secret erp --overlap-days 1");
    let mut new = old.clone();
    new.secret = secret.trim().to_owned();
    block_on(async {
        for (number, profile) in [&old, &new].into_iter().enumerate() {
            for transport in [Transport::Quic, Transport::Https] {
                let client = Client::connect(profile, transport, 1).await.unwrap();
                let key = format!("{number}-{transport:?}");
                assert!(sign_one(&client, &seal(&key)).await.is_ok(), "{key}");
            }
        }
        let newest = engine.operate("app rotate-secret erp --overlap-days 0");
        assert_eq!(refused(try_sign(&new, "late").await), Code::Unauthenticated);
        new.secret = newest.trim().to_owned();
        assert!(try_sign(&new, "in-time").await.is_ok());
    });
}

#[test]
fn reports_are_of_the_apps_own_tenant_only() {
    let engine = Engine::start();
    engine.make_prepaid(10);
    let (acme, demo) = (engine.prepaid_profile(), engine.profile());
    let month = month();
    engine
        .operate("notice create n1 --from 2099-01-02T02:00+08:00 --to 2099-01-02T04:00+08:00 --text upgrade");
    for tenant in ["acme", "demo"] {
        engine.operate(&format!("tenant activate {tenant} --at {month}-01"));
    }
    engine.operate("tenant agreement acme --policy bestsign --signed 2026-01-01");
    block_on(async {
        assert!(try_sign(&acme, "only-one").await.is_ok());
        let statement = body(&get(&acme, &format!("/v1/statements/{month}")).await);
        assert_eq!(
            (&statement["tenant"], &statement["charged"]),
            (&"acme".into(), &1.into())
        );
        let other = get(&demo, &format!("/v1/statements/{month}")).await;
        assert_eq!(body(&other)["charged"], 0);
        for path in ["/v1/packages", "/v1/usage", "/v1/credentials"] {
            let heard = get(&demo, path).await;
            let text = String::from_utf8(heard.body).unwrap();
            assert_eq!(heard.status, 200, "{path}: {text}");
            assert!(
                !text.contains("seal") && !text.contains("acme") && !text.contains("erp"),
                "{path}: {text}"
            );
        }
        let report = body(&get(&acme, &format!("/v1/sla/{month}")).await);
        assert_eq!(report["policy"]["name"], "bestsign");
        assert_eq!(
            body(&get(&demo, &format!("/v1/sla/{month}")).await)["policy"]["name"],
            "bjca"
        );
        assert_eq!(body(&get(&demo, "/v1/notices").await)["notices"][0]["id"], "n1");
        // A month that cannot be asked for, and what is no month, are told apart from a missing path.
        for bad in ["2099-01", "2026-13", "acme"] {
            let heard = get(&acme, &format!("/v1/statements/{bad}")).await;
            assert_eq!(heard.problem(), (422, "month_invalid".to_owned()), "{bad}");
        }
    });
    // What was measured is written every two seconds, and is there after a kill.
    let percentiles = |engine: &Engine| {
        let report = json(&engine.operate(&format!("sla report --tenant acme --month {month}")));
        let list = report["percentiles"].as_array().unwrap().clone();
        let times = list.iter().map(|one| one["us"].as_u64().unwrap());
        times.collect::<Vec<_>>()
    };
    wait_until("percentiles are written", || percentiles(&engine).len() == 4);
    let before = percentiles(&engine);
    assert!(before.is_sorted() && before[0] > 0, "{before:?}");
    let engine = Setup::default().start_in(engine.kill());
    let after = percentiles(&engine);
    assert!(after.is_sorted() && after[3] >= before[3], "{after:?}");
    let page = engine.operate(&format!(
        "sla report --tenant acme --month {month} --html --english"
    ));
    assert!(page.contains("acme") && page.contains("p99.9") && page.contains("</html>"));
}
