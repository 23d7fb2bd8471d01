//! Seals and grants from outside: from draft to revocation, who may sign under which seal and how often, and that a
//! freeze wins over whatever is in flight.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use documents::ses::{Anchors, Policy, verify_seal};
use parking_lot::Mutex;
use protocol::client::{Client, SignRequest, Transport, UnderSeal};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::Sequence;
use protocol::message::ItemOutcome;
use protocol::seal::{DocumentKind, SealState};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::strangers::workspace;
use crate::support::{BOTH, Engine, Setup, block_on, checked, credential, request, wait_until};

/// AR PL SungtiL GB, from the Debian package fonts-arphic-gbsn00lp.
const FONT: &str = "/usr/share/fonts/truetype/arphic-gbsn00lp/gbsn00lp.ttf";

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

fn under(seal: &str, document: DocumentKind) -> UnderSeal {
    UnderSeal {
        seal: seal.into(),
        document,
        agent: None,
    }
}

/// A request for a P-256 signature that leaves the credential to the seal.
fn wanted(key: &str) -> SignRequest {
    SignRequest {
        credential: String::new(),
        ..request(key, key)
    }
}

async fn sign(client: &Client, wanted: &SignRequest, under: &UnderSeal) -> Result<ItemOutcome, Refusal> {
    Ok(client.sign_under(wanted, under).await?.remove(0))
}

/// The code of a refusal.
async fn refused(client: &Client, wanted: &SignRequest, under: &UnderSeal) -> Code {
    sign(client, wanted, under).await.unwrap_err().code
}

fn parsed(engine: &Engine, line: &str) -> Value {
    serde_json::from_str(&engine.operate(line)).unwrap()
}

/// A seal of a credential of its own, drafted, submitted and approved; granted to nobody.
fn make_seal(engine: &Engine, id: &str) {
    let picture = workspace().join("documents/tests/fixtures/pdf/seal.png");
    engine.operate(&format!("key create --tenant demo --kind p256 {id}-key"));
    let picture = picture.display();
    engine.operate(&format!(
        "seals create --tenant demo {id} --name Contracts --credential {id}-key --picture {picture} --width 42"
    ));
    engine.operate(&format!("seals submit --tenant demo {id}"));
    engine.operate(&format!("seals approve --tenant demo {id} --reason checked"));
}

#[test]
fn the_demo_seals_sign_and_can_be_fetched_over_both_transports() {
    let engine = Engine::start();
    block_on(async {
        for (number, transport) in BOTH.into_iter().enumerate() {
            let client = engine.client(transport).await;
            let listed = client.seals().await.unwrap();
            let ids: Vec<_> = listed.iter().map(|seal| seal.id.as_str()).collect();
            assert_eq!(ids, ["demo-seal", "demo-seal-sm2"]);
            assert!(listed.iter().all(|seal| seal.picture.is_none()));
            let seal = client.seal("demo-seal").await.unwrap().unwrap();
            assert_eq!(
                (seal.state, seal.width_mm, seal.height_mm),
                (SealState::Active, 42, 42)
            );
            assert!(seal.picture.unwrap().starts_with(b"\x89PNG"));
            assert_eq!((seal.ses, seal.credential.as_str()), (None, "demo-p256"));
            assert_eq!(client.seal("nobodys").await.unwrap(), None);
            let key = format!("seal-{number}");
            let outcome = sign(&client, &wanted(&key), &under("demo-seal", DocumentKind::Pdf)).await;
            let info = credential(&client, "demo-p256").await;
            let signature = checked(&wanted(&key), &info, &outcome.unwrap());
            // A retry brings the same; with another kind of document it is another request.
            let again = sign(&client, &wanted(&key), &under("demo-seal", DocumentKind::Pdf)).await;
            assert_eq!(checked(&wanted(&key), &info, &again.unwrap()), signature);
            let other = refused(&client, &wanted(&key), &under("demo-seal", DocumentKind::Ofd)).await;
            assert_eq!(other, Code::IdempotencyKeyReused);
            let plain = client.sign(&request(&key, &key)).await.unwrap_err();
            assert_eq!(plain.code, Code::IdempotencyKeyReused);
        }
    });
    let uses = parsed(&engine, "seals uses --tenant demo demo-seal");
    let uses = uses.as_array().unwrap();
    assert_eq!(uses.len(), 2, "a retry is no use");
    for used in uses {
        assert_eq!(
            (&used["grant"], &used["app"]),
            (&"demo-grant".into(), &"demo-app".into())
        );
        assert_eq!(used["document"], "pdf");
    }
    engine.operate("reconcile");
}

#[test]
fn the_sm2_seal_is_made_by_its_maker_and_judged_by_the_standard() {
    let engine = Engine::start();
    let seal = block_on(async {
        let client = engine.client(Transport::Quic).await;
        client.seal("demo-seal-sm2").await.unwrap().unwrap()
    });
    let made = seal.ses.unwrap();
    let roots = std::fs::read(engine.dev("ca.pem")).unwrap();
    let trust = Anchors {
        anchors: pem::parse_many(roots)
            .unwrap()
            .into_iter()
            .map(pem::Pem::into_contents)
            .collect(),
        intermediates: Vec::new(),
    };
    let report = verify_seal(&made, &trust, Policy::default(), clock::wall()).unwrap();
    assert_eq!(report.id, "demo-seal-sm2");
    engine.operate("seals image --tenant demo demo-seal-sm2 --out picture.png --ses seal.esl");
    let file = |name: &str| std::fs::read(folder(&engine).join(name)).unwrap();
    assert_eq!(file("seal.esl"), made[..]);
    assert_eq!(file("picture.png"), seal.picture.unwrap()[..]);
    // Its maker signs nothing else.
    let refusal = block_on(async {
        let client = engine.client(Transport::Quic).await;
        let direct = SignRequest {
            credential: "demo-seal-maker".into(),
            algorithm: protocol::algorithm::Algorithm::Sm2Sm3E,
            ..request("maker", "maker")
        };
        client.sign(&direct).await.unwrap_err()
    });
    assert_eq!(refusal.code, Code::CredentialReserved);
}

#[test]
fn a_seal_goes_from_draft_to_revocation_and_every_step_is_on_record() {
    let engine = Engine::start();
    make_seal(&engine, "contracts");
    let pdf = under("contracts", DocumentKind::Pdf);
    let code = |key: &str, under: &UnderSeal| {
        block_on(async { refused(&engine.client(Transport::Quic).await, &wanted(key), under).await })
    };
    assert_eq!(code("none", &pdf), Code::SealNotGranted);
    engine.operate("grants create --tenant demo contracts --app demo-app --document pdf --grant g-1");
    let signs = |key: &str| {
        block_on(async {
            sign(&engine.client(Transport::Https).await, &wanted(key), &pdf)
                .await
                .is_ok()
        })
    };
    assert!(signs("first"));
    assert_eq!(
        code("ofd", &under("contracts", DocumentKind::Ofd)),
        Code::DocumentNotGranted
    );
    assert_eq!(
        code("missing", &under("contract", DocumentKind::Pdf)),
        Code::UnknownSeal
    );
    let agent = UnderSeal {
        agent: Some("li-lei".into()),
        ..pdf.clone()
    };
    assert_eq!(code("agent", &agent), Code::SealNotGranted);
    let mismatched = SignRequest {
        credential: "demo-p256".into(),
        ..wanted("other")
    };
    let other = block_on(async { refused(&engine.client(Transport::Quic).await, &mismatched, &pdf).await });
    assert_eq!(other, Code::MalformedRequest);
    // Nobody goes around the grant by naming the credential.
    let direct = SignRequest {
        credential: "contracts-key".into(),
        ..request("direct", "direct")
    };
    let direct = block_on(async { engine.client(Transport::Quic).await.sign(&direct).await });
    assert_eq!(direct.unwrap_err().code, Code::CredentialReserved);

    engine.operate("seals freeze --tenant demo contracts --reason audit");
    assert_eq!(code("frozen", &pdf), Code::SealFrozen);
    engine.operate("seals unfreeze --tenant demo contracts");
    assert!(signs("second"));
    engine.operate("seals remake --tenant demo contracts");
    assert!(signs("third"));
    engine.operate("grants revoke --tenant demo g-1 --reason left");
    assert_eq!(code("ungranted", &pdf), Code::GrantRevoked);
    engine.operate("seals revoke --tenant demo contracts --reason closed");
    assert_eq!(code("revoked", &pdf), Code::SealRevoked);
    let destroyed = engine.cli(&["seals", "destroy", "--tenant", "demo", "contracts"]);
    destroyed.refused(2, "wrong_state");

    check_record(&engine);
}

#[test]
fn a_seal_is_used_within_its_validity_only() {
    let engine = Engine::start();
    let picture = workspace().join("documents/tests/fixtures/pdf/seal.png");
    engine.operate(&format!(
        "seals create --tenant demo old --name Old --credential demo-p256 --shared --picture {} \
         --from 2020-01-01T00:00+08:00 --to 2021-01-01T00:00+08:00",
        picture.display()
    ));
    engine.operate("seals submit --tenant demo old");
    let old = under("old", DocumentKind::Digest);
    let code = |key: &str| {
        block_on(async { refused(&engine.client(Transport::Quic).await, &wanted(key), &old).await })
    };
    assert_eq!(code("review"), Code::SealNotActive);
    engine.operate("seals approve --tenant demo old");
    assert_eq!(code("over"), Code::SealExpired);
    engine.operate("seals remake --tenant demo old");
    assert_eq!(code("ungranted"), Code::SealNotGranted);
}

/// What is on record of the seal of the test before.
fn check_record(engine: &Engine) {
    let shown = parsed(engine, "seals show --tenant demo contracts");
    assert_eq!((&shown["state"], &shown["uses"]), (&"revoked".into(), &3.into()));
    let history: Vec<_> = shown["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["action"].as_str().unwrap())
        .collect();
    let steps = [
        "seal.create",
        "seal.submit",
        "seal.approve",
        "grant.create",
        "seal.freeze",
        "seal.unfreeze",
        "seal.remake",
        "grant.revoke",
        "seal.revoke",
    ];
    assert_eq!(history, steps);
    let frozen = &shown["history"][4];
    assert_eq!(
        (&frozen["reason"], &frozen["state"]),
        (&"audit".into(), &"frozen".into())
    );
    assert!(frozen["by"].as_str().unwrap().starts_with("uid "));
    let page = parsed(engine, "seals uses --tenant demo contracts --grant g-1");
    let first = page[0]["sequence"].as_u64().unwrap();
    let rest = parsed(
        engine,
        &format!("seals uses --tenant demo contracts --after {first}"),
    );
    assert_eq!(
        (page.as_array().unwrap().len(), rest.as_array().unwrap().len()),
        (3, 2)
    );
    engine.operate("reconcile");
}

#[test]
fn a_picture_is_drawn_or_brought_and_what_cannot_be_a_seal_is_refused() {
    let engine = Engine::start();
    engine.operate("key create --tenant demo --kind p256 a");
    let draw = |rest: &str| {
        let line =
            format!("seals create --tenant demo drawn --credential a --template round --font {FONT} {rest}");
        engine.cli(&line.split_whitespace().collect::<Vec<_>>())
    };
    draw("--name 北京示例有限公司😀").refused(2, "image_unusable");
    draw("--name 北京示例有限公司 --sub-title 合同专用章 --code 1101010000001 --width 300")
        .refused(2, "image_unusable");
    draw("--name 北京示例有限公司 --sub-title 合同专用章 --code 1101010000001").ok();
    draw("--name 北京示例有限公司").refused(2, "already_exists");
    engine.operate("seals image --tenant demo drawn --out drawn.png");
    let png = std::fs::read(folder(&engine).join("drawn.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let shown = parsed(&engine, "seals show --tenant demo drawn");
    assert_eq!(
        (&shown["name"], &shown["state"]),
        (&"北京示例有限公司".into(), &"draft".into())
    );
    let none = engine.cli(&[
        "seals", "image", "--tenant", "demo", "drawn", "--out", "d.png", "--ses", "d.esl",
    ]);
    none.refused(2, "not_found");
    let bring = |file: &str, rest: &str| {
        let line =
            format!("seals create --tenant demo brought --name B --credential a --picture {file} {rest}");
        engine.cli(&line.split_whitespace().collect::<Vec<_>>())
    };
    std::fs::write(folder(&engine).join("none.png"), b"no picture").unwrap();
    bring("none.png", "").refused(2, "image_unusable");
    bring("drawn.png", "--width 1").refused(2, "usage");
    bring("drawn.png", "--maker demo-seal-maker").refused(2, "usage");
    // A credential that is no maker, though its key would do.
    let line =
        "seals create --tenant demo sm2 --name B --credential demo-sm2 --picture drawn.png --maker demo-sm2";
    let maker = engine.cli(&line.split_whitespace().collect::<Vec<_>>());
    maker.refused(2, "usage");
    bring("drawn.png", "--width 30").ok();
    engine.operate("seals destroy --tenant demo brought");
    let gone = engine.cli(&[
        "seals", "image", "--tenant", "demo", "brought", "--out", "gone.png",
    ]);
    gone.refused(2, "seal_revoked");
}

#[test]
fn what_needs_two_operators_is_proposed_and_not_done() {
    let engine = Setup::default()
        .config("dual_control = [\"seal.freeze\"]\n")
        .start();
    let freeze = engine.cli(&["seals", "freeze", "--tenant", "demo", "demo-seal"]);
    freeze.refused(2, "approval_needed");
    let shown = parsed(&engine, "seals show --tenant demo demo-seal");
    assert_eq!(shown["state"], "active");
    engine.operate("seals revoke --tenant demo demo-seal");
    let shown = parsed(&engine, "seals show --tenant demo demo-seal");
    assert_eq!(shown["state"], "revoked");
}

/// Signs until it is refused for good; returns how often it was not.
fn sign_until_refused(engine: &Engine, transport: Transport, name: usize) -> (usize, Code) {
    block_on(async {
        let client = engine.client(transport).await;
        let mut signed = 0;
        loop {
            let key = format!("race-{name}-{signed}");
            match sign(&client, &wanted(&key), &under("demo-seal", DocumentKind::Digest)).await {
                Ok(_) => signed += 1,
                Err(refusal) if refusal.code.retryable() => {}
                Err(refusal) => return (signed, refusal.code),
            }
        }
    })
}

#[test]
fn after_a_freeze_is_on_record_no_signature_under_the_seal_follows_it_at_any_shard() {
    let engine = Setup::default().set("cores", 2).start();
    let told: Vec<(usize, Code)> = std::thread::scope(|scope| {
        let engine = &engine;
        let clients = [BOTH, BOTH].concat().into_iter().enumerate();
        let running: Vec<_> = clients
            .map(|(name, transport)| scope.spawn(move || sign_until_refused(engine, transport, name)))
            .collect();
        wait_until("signatures are made", || {
            let usage = engine.operate("usage --profile var/dev/app.toml --json");
            serde_json::from_str::<Value>(&usage).unwrap()["signatures"].as_u64() > Some(50)
        });
        engine.operate("seals freeze --tenant demo demo-seal");
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(told.iter().all(|(_, code)| *code == Code::SealFrozen), "{told:?}");
    // The journal is in the order of the commits.
    let (mut signed, mut after, mut frozen) = (0, 0, false);
    let reader = store::Reader::beside(&engine.home()).unwrap();
    let visit = |entry: store::Entry| {
        match entry.record {
            store::Record::Change { action, .. } if &*action == "seal.freeze" => frozen = true,
            store::Record::Signature { .. } if frozen => after += 1,
            store::Record::Signature { item, .. } => {
                assert!(item.seal.is_some());
                signed += 1;
            }
            _ => {}
        }
        Ok(())
    };
    reader.entries(Sequence(1), visit).unwrap();
    let sum: usize = told.iter().map(|(signed, _)| signed).sum();
    assert_eq!(
        (after, signed),
        (0, sum),
        "every client was told of what is on record, and nothing came later"
    );
    // The credential itself was not frozen.
    let plain = block_on(async {
        let client = engine.client(Transport::Quic).await;
        client.sign(&request("plain", "plain")).await
    });
    plain.unwrap();
    engine.operate("reconcile");
}

/// What clients were told, by idempotency key.
#[derive(Default)]
struct Told {
    next: usize,
    signed: BTreeMap<String, Vec<u8>>,
    /// Asked, and not heard of.
    open: Vec<String>,
}

/// A client that asks, what was not answered first, until the grant is used up or the connection is gone.
async fn spend(client: Client, told: Arc<Mutex<Told>>, seal: &'static str) {
    loop {
        let key = {
            let mut told = told.lock();
            told.open.pop().unwrap_or_else(|| {
                told.next += 1;
                format!("use-{}", told.next)
            })
        };
        match sign(&client, &wanted(&key), &under(seal, DocumentKind::Pdf)).await {
            Ok(ItemOutcome::Done { signature, .. }) => {
                let mut told = told.lock();
                let first = told.signed.entry(key).or_insert_with(|| signature.clone());
                assert_eq!(*first, signature);
            }
            Err(refusal) if refusal.code == Code::GrantUsedUp => return,
            Err(refusal) if refusal.code == Code::Connection => {
                told.lock().open.push(key);
                return;
            }
            Ok(_) | Err(_) => told.lock().open.push(key),
        }
    }
}

fn spend_all(engine: &Engine, told: &Arc<Mutex<Told>>, kill_at: Option<usize>) -> bool {
    block_on(async {
        let mut asking = JoinSet::new();
        for _ in 0..4 {
            for transport in BOTH {
                let client = engine.client(transport).await;
                asking.spawn(spend(client, Arc::clone(told), "contracts"));
            }
        }
        let Some(kill_at) = kill_at else {
            while let Some(ended) = asking.join_next().await {
                ended.unwrap();
            }
            return false;
        };
        while told.lock().signed.len() < kill_at {
            tokio::task::yield_now().await;
        }
        let pid = engine.process.id().to_string();
        let killed = std::process::Command::new("kill").args(["-9", &pid]).status();
        assert!(killed.unwrap().success());
        // What had left the engine is in the clients' sockets: let them have it. The rest will never come.
        let _ = tokio::time::timeout(Duration::from_millis(50), async {
            while let Some(ended) = asking.join_next().await {
                ended.unwrap();
            }
        })
        .await;
        asking.shutdown().await;
        let mut told = told.lock();
        let unheard = (1..=told.next).map(|n| format!("use-{n}"));
        told.open = unheard.filter(|key| !told.signed.contains_key(key)).collect();
        true
    })
}

#[test]
fn a_grant_of_n_uses_gives_n_signatures_over_many_clients_and_a_kill() {
    const USES: usize = 300;
    let engine = Setup::default().set("cores", 2).start();
    make_seal(&engine, "contracts");
    engine.operate(&format!(
        "grants create --tenant demo contracts --app demo-app --uses {USES} --grant g-1"
    ));
    let told = Arc::new(Mutex::new(Told::default()));
    assert!(spend_all(&engine, &told, Some(100)));
    let engine = Setup::default().set("cores", 2).start_in(engine.kill());
    spend_all(&engine, &told, None);
    let mut told = Arc::into_inner(told).unwrap().into_inner();
    // What was signed and not heard of can be had again, though the grant is used up.
    block_on(async {
        let client = engine.client(Transport::Quic).await;
        let keys: Vec<String> = (1..=told.next).map(|n| format!("use-{n}")).collect();
        for key in keys {
            match sign(&client, &wanted(&key), &under("contracts", DocumentKind::Pdf)).await {
                Ok(ItemOutcome::Done { signature, .. }) => {
                    let first = told.signed.entry(key).or_insert_with(|| signature.clone());
                    assert_eq!(*first, signature);
                }
                Ok(other) => panic!("{key}: {other:?}"),
                Err(refusal) => {
                    assert_eq!(refusal.code, Code::GrantUsedUp, "{key}: {refusal}");
                    assert!(!told.signed.contains_key(&key), "{key} was signed");
                }
            }
        }
    });
    assert_eq!(told.signed.len(), USES);
    let grants = parsed(&engine, "grants list --tenant demo --seal contracts");
    assert_eq!(
        (&grants[0]["uses"], &grants[0]["uses_max"]),
        (&USES.into(), &USES.into())
    );
    let uses = parsed(&engine, "seals uses --tenant demo contracts");
    assert_eq!(uses.as_array().unwrap().len(), USES);
    engine.operate("reconcile");
}

#[test]
fn a_pdf_is_sealed_by_naming_the_seal_and_strangers_accept_it() {
    let engine = Engine::start();
    let fixtures = workspace().join("documents/tests/fixtures/pdf");
    std::fs::copy(fixtures.join("latex.pdf"), folder(&engine).join("in.pdf")).unwrap();
    let seal = |options: &str| {
        let line = format!("seal --profile var/dev/app.toml --pdf in.pdf --out out.pdf {options}");
        engine.cli(&line.split_whitespace().collect::<Vec<_>>())
    };
    seal("--seal demo-seal --at page=1,x=100,y=100,unit=mm").ok();
    let line = "verify --pdf out.pdf --ca var/dev/ca.pem";
    engine.cli(&line.split_whitespace().collect::<Vec<_>>()).ok();
    let uses = parsed(&engine, "seals uses --tenant demo demo-seal");
    assert_eq!(
        (uses.as_array().unwrap().len(), &uses[0]["document"]),
        (1, &"pdf".into())
    );
    seal("--seal nobodys").refused(2, "unknown_seal");
    seal("--seal demo-seal --agent li-lei --at page=1,x=1,y=1").refused(2, "seal_not_granted");
    engine.operate("seals freeze --tenant demo demo-seal");
    seal("--seal demo-seal --at page=1,x=1,y=1").refused(2, "seal_frozen");
}
