//! The audit log from outside: a stranger follows it over HTTPS and checks receipts; a copy is verified offline, also after
//! kills; evidence is taken out, checked and found to be forged; erased entries leave the log valid.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::client::{HttpsClient, Profile, Transport};
use protocol::error_code::Code;
use protocol::json::{InclusionBody, ItemsBody};
use serde_json::Value;
use signed_note::{StandardVerifier, VerifierList};
use store::audit::{Salt, commitment};
use tlog_tiles::{Hash, TileHashReader, TileReader};

use crate::raw::{Heard, Http1};
use crate::support::{Engine, Ran, Setup, block_on, key, request, run_in, wait_until};

/// A GET that proves nothing.
async fn get(profile: &Profile, path: &str) -> Heard {
    let authority = format!("{}:{}", profile.server_name, profile.address.port());
    let text = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    Http1::dial(profile).await.exchange(text.as_bytes()).await
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

async fn sign(engine: &Engine, name: &str, count: usize) {
    let client = engine.client(Transport::Quic).await;
    for number in 0..count {
        client
            .sign(&request(&format!("{name}-{number}"), name))
            .await
            .unwrap();
    }
}

async fn receipts(profile: &Profile, name: &str) -> ItemsBody {
    let client = HttpsClient::connect(profile, 1).await.unwrap();
    loop {
        match client.look_up_proved(&key(name)).await {
            // The server has waited; on a busy machine its audit thread may be late.
            Err(refusal) if refusal.code == Code::ProofPending => {}
            answer => return answer.unwrap(),
        }
    }
}

/// What is known of a log: its key, and how large it is with which root.
struct Seen {
    size: u64,
    root: Hash,
}

/// The checkpoint as a stranger reads it.
fn check(note: &[u8], vkey: &str) -> Seen {
    let known = VerifierList::new(vec![Box::new(StandardVerifier::new(vkey).unwrap())]);
    let note = signed_note::Note::from_bytes(note).unwrap();
    note.verify(&known).unwrap();
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    assert!(vkey.starts_with(&format!("{}+", checkpoint.origin())));
    Seen {
        size: checkpoint.size(),
        root: *checkpoint.hash(),
    }
}

/// A stranger's reader of tiles, over HTTPS.
struct OverHttps<'a> {
    profile: &'a Profile,
    read: RefCell<usize>,
}

impl TileReader for OverHttps<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        *self.read.borrow_mut() += tiles.len();
        let read = |tile: &tlog_tiles::Tile| {
            let path = tile.path().replacen("tile/8/", "/audit/tile/", 1);
            let heard = block_on(get(self.profile, &path));
            assert_eq!(heard.status, 200, "{path}");
            heard.body
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

/// The leaf that a receipt speaks of.
fn leaf(receipt: &InclusionBody) -> Hash {
    let salt = STANDARD.decode(receipt.salt.as_ref().unwrap()).unwrap();
    let record = STANDARD.decode(&receipt.record).unwrap();
    let at = protocol::clock::UnixMillis(receipt.committed_ms);
    tlog_tiles::record_hash(&commitment(Salt(salt.try_into().unwrap()), at, &record))
}

/// A receipt's proof, as a stranger checks it.
fn check_receipt(receipt: &InclusionBody, vkey: &str) {
    let (head, note) = receipt.proof.split_once("\n\n").unwrap();
    let mut lines = head.lines().skip(1);
    let index: u64 = lines
        .next()
        .unwrap()
        .strip_prefix("index ")
        .unwrap()
        .parse()
        .unwrap();
    let path = lines.map(|line| Hash::parse_hash(line).unwrap()).collect();
    let seen = check(note.as_bytes(), vkey);
    tlog_tiles::check_record(&path, seen.size, seen.root, index, leaf(receipt)).unwrap();
}

#[test]
fn a_stranger_follows_the_log_over_https_and_accepts_receipts() {
    let engine = Engine::start();
    let profile = engine.profile();
    let vkey = engine.operate("audit key").trim().to_owned();
    block_on(sign(&engine, "first", 300));
    // The receipt waits for the checkpoint that its entry is under.
    let first = block_on(receipts(&profile, "first-299"));
    let receipt = first.items[0].inclusion.clone().unwrap();
    check_receipt(&receipt, &vkey);
    let note = block_on(get(&profile, "/audit/checkpoint"));
    assert_eq!(note.status, 200);
    let old = check(&note.body, &vkey);
    assert!(old.size > 300);

    block_on(sign(&engine, "second", 5));
    let second = block_on(receipts(&profile, "second-4")).items.remove(0);
    let receipt = second.inclusion.unwrap();
    let now = check(&block_on(get(&profile, "/audit/checkpoint")).body, &vkey);
    let tiles = OverHttps {
        profile: &profile,
        read: RefCell::default(),
    };
    let reader = TileHashReader::new(now.size, now.root, &tiles);
    let path = tlog_tiles::prove_record(now.size, receipt.sequence - 1, &reader).unwrap();
    tlog_tiles::check_record(&path, now.size, now.root, receipt.sequence - 1, leaf(&receipt)).unwrap();
    let path = tlog_tiles::prove_tree(now.size, old.size, &reader).unwrap();
    tlog_tiles::check_tree(&path, now.size, now.root, old.size, old.root).unwrap();
    assert!(*tiles.read.borrow() > 0);
    assert_eq!(engine.metric("cinnabar_audit_stopped"), 0.0);
    assert!(engine.metric("cinnabar_audit_leaves") >= now.size as f64);
}

#[test]
fn tiles_are_served_as_the_specification_has_them_and_nothing_else_is() {
    let engine = Engine::start();
    let profile = engine.profile();
    block_on(async {
        sign(&engine, "k", 300).await;
        receipts(&profile, "k-299").await;
        let tile = get(&profile, "/audit/tile/0/000").await;
        assert_eq!((tile.status, tile.body.len()), (200, 256 * 32));
        let bundle = get(&profile, "/audit/tile/entries/000").await;
        assert_eq!((bundle.status, bundle.body.len()), (200, 256 * 34));
        for (entry, hash) in bundle.body.chunks(34).zip(tile.body.chunks(32)) {
            assert_eq!(entry[..2], [0, 32]);
            assert_eq!(tlog_tiles::record_hash(&entry[2..]).0, hash);
        }
        // A narrower tile is the beginning of a wider one, whichever of them is on disk.
        let narrow = get(&profile, "/audit/tile/0/000.p/7").await;
        assert_eq!(narrow.body, tile.body[..7 * 32]);
        let narrow = get(&profile, "/audit/tile/0/001.p/3").await;
        assert_eq!((narrow.status, narrow.body.len()), (200, 3 * 32));
        for path in [
            "0/001",
            "0/001.p/255",
            "0/002.p/1",
            "1/001.p/1",
            "2/000.p/1",
            "entries/009",
            "0/0",
            "8/000",
            "key",
            "../key",
            "%2e%2e/key",
            "entries/..%2f..%2fkey",
        ] {
            let heard = get(&profile, &format!("/audit/tile/{path}")).await;
            assert_eq!(heard.status, 404, "{path}");
        }
        for path in [
            "/audit",
            "/audit/",
            "/audit/key",
            "/audit/salts",
            "/audit/vkey",
            "/audit/tile",
        ] {
            assert_eq!(get(&profile, path).await.status, 404, "{path}");
        }
    });
}

/// The same question for a key, from an app of its own.
async fn ask(profile: &Profile, idempotency_key: &str) -> Heard {
    let authority = format!("{}:{}", profile.server_name, profile.address.port());
    let path = format!("/v1/signatures/{idempotency_key}");
    let parts = protocol::http_proof::Parts {
        method: "GET",
        authority: &authority,
        path: &path,
        query: Some("proof=inclusion"),
        content_digest: None,
        idempotency_key: None,
    };
    let secret = protocol::http_proof::SignKey::from_secret(&profile.secret().unwrap());
    let now = protocol::clock::wall();
    let signed = protocol::http_proof::sign(&parts, profile.app_id.as_str(), now, &secret).unwrap();
    let text = format!(
        "GET {path}?proof=inclusion HTTP/1.1\r\nhost: {authority}\r\nsignature-input: {}\r\nsignature: {}\r\n\r\n",
        signed.signature_input, signed.signature
    );
    Http1::dial(profile).await.exchange(text.as_bytes()).await
}

#[test]
fn nobody_gets_a_proof_of_another_tenant_s_entry() {
    let engine = Engine::start();
    engine.make_prepaid(10);
    let (own, other) = (engine.profile(), engine.prepaid_profile());
    block_on(async {
        sign(&engine, "mine", 1).await;
        receipts(&own, "mine-0").await;
        assert_eq!(ask(&own, "mine-0").await.status, 200);
        let theirs = ask(&other, "mine-0").await;
        assert_eq!(theirs, ask(&other, "nobodys-0").await);
        assert_eq!(theirs.problem(), (404, "not_found".to_owned()));
    });
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// `audit verify` in the folder of a stopped engine.
fn verify(folder: &Path, more: &str) -> Ran {
    let mut words = vec!["audit", "verify"];
    words.extend(more.split_whitespace());
    run_in(folder, &words)
}

#[test]
fn a_copy_is_verified_offline_and_kills_leave_nothing_that_contradicts_it() {
    let mut engine = Engine::start();
    let vkey = engine.operate("audit key").trim().to_owned();
    let mut checkpoints: Vec<PathBuf> = Vec::new();
    for round in 0..3 {
        block_on(sign(&engine, &format!("round-{round}"), 150));
        if round > 0 {
            block_on(receipts(&engine.profile(), &format!("round-{round}-149")));
        }
        let data = engine.kill();
        let kept = data.path().join(format!("checkpoint-{round}"));
        std::fs::copy(data.path().join("var/audit/checkpoint"), &kept).unwrap();
        checkpoints.push(kept);
        engine = Setup::default().start_in(data);
    }
    let data = engine.stop();
    copy(&data.path().join("var"), &data.path().join("copy"));
    std::fs::remove_dir_all(data.path().join("var")).unwrap();
    for old in &checkpoints {
        let line = format!("--dir copy --key {vkey} --since {}", old.display());
        let found = json(&verify(data.path(), &line).ok());
        assert_eq!(found["signature"]["trust"], "given");
        assert!(found["begins_with"].is_u64());
        let journal = &found["journal"];
        // Every entry of the journal is a leaf, the last ones too: the engine was stopped in order.
        assert_eq!(journal["recomputed"], found["leaves"], "{found}");
        assert!(found["leaves"].as_u64().unwrap() > 450);
    }
    // The log alone says as much about itself.
    let alone = json(&verify(data.path(), &format!("--dir copy/audit --key {vkey}")).ok());
    assert_eq!(alone["journal"], Value::Null);

    let tile = data.path().join("copy/audit/tile/0/000");
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[4_000] ^= 1;
    std::fs::write(&tile, bytes).unwrap();
    verify(data.path(), &format!("--dir copy --key {vkey}")).refused(4, "data_corrupt");
    let other = "other+8d2d3a4b+AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    verify(data.path(), &format!("--dir copy --key {other}")).refused(2, "usage");
    verify(data.path(), "--dir nowhere").refused(2, "file");
}

#[test]
fn a_receipt_is_checked_with_nothing_but_the_log_s_key() {
    let engine = Engine::start();
    let vkey = engine.operate("audit key").trim().to_owned();
    block_on(sign(&engine, "k", 3));
    let line = "lookup --profile var/dev/app.toml --idempotency-key k-2 --proof";
    let receipt = engine.operate(line);
    let path = folder(&engine).join("receipt.json");
    std::fs::write(&path, &receipt).unwrap();
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        verify(
            folder(&engine),
            &format!("--receipt {} --key {vkey}", path.display()),
        )
    };
    let found = json(&check(&receipt).ok());
    let item = &json(&receipt)["items"][0];
    assert_eq!(found["entries"][0]["sequence"], item["sequence"]);
    // The operators' own proof of the same entry.
    let by_operator = engine.operate(&format!("audit proof --sequence {}", item["sequence"]));
    check(&by_operator).ok();
    let committed = item["inclusion"]["committed_ms"].to_string();
    let later = receipt.replace(&committed, &format!("{}", committed.parse::<u64>().unwrap() + 1));
    check(&later).refused(2, "signature_invalid");
    check("{}").refused(2, "malformed_request");
    verify(folder(&engine), &format!("--receipt {}", path.display())).refused(2, "usage");
}

fn export(engine: &Engine, line: &str) -> Ran {
    let words = format!("audit export --from 2020-01-01 --to 2099-01-01 {line}");
    engine.cli(&words.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn evidence_takes_two_operators_and_proves_itself() {
    let engine = Engine::start();
    engine.make_prepaid(10);
    let vkey = engine.operate("audit key").trim().to_owned();
    block_on(async {
        sign(&engine, "ours", 4).await;
        let client = protocol::client::Client::connect(&engine.prepaid_profile(), Transport::Quic, 1)
            .await
            .unwrap();
        for number in 0..3 {
            let mut wanted = request(&format!("theirs-{number}"), "text");
            wanted.credential = "seal".into();
            client.sign(&wanted).await.unwrap();
        }
        receipts(&engine.prepaid_profile(), "theirs-2").await;
    });
    let refused = export(
        &engine,
        "--case c-1 --tenant acme --operator ann --operator ann --out twice",
    );
    refused.refused(2, "usage");
    let line = "--case c-1 --tenant acme --operator ann --operator bob --out case";
    let made = json(&export(&engine, line).ok());
    assert_eq!(made["requests"], 3);
    let case = folder(&engine).join("case");
    let actions = std::fs::read_to_string(case.join("operators.jsonl")).unwrap();
    assert!(actions.contains("tenant.create") && actions.contains("app.create"));
    let subjects: Vec<String> = actions
        .lines()
        .map(|line| json(line)["entry"]["subject"].to_string())
        .collect();
    assert!(
        !subjects.iter().any(|subject| subject.contains("demo")),
        "what was done to others is not in it: {subjects:?}"
    );
    let checked = verify(folder(&engine), &format!("--case case --key {vkey}")).ok();
    assert_eq!(json(&checked)["manifest"]["operators"][1], "bob");
    // That it was taken out is in the journal, with who is said to have agreed.
    wait_until("the export is journaled", || {
        let line = "--case c-2 --tenant acme --operator ann --operator bob --out again";
        let ran = export(&engine, line);
        let again = std::fs::read_to_string(folder(&engine).join("again/operators.jsonl")).unwrap();
        std::fs::remove_dir_all(folder(&engine).join("again")).unwrap();
        // Until the entry about the first is under a checkpoint there is no proof of it.
        let waits = ran.stderr.starts_with("cinnabar: proof_pending: ");
        assert!(waits || ran.code == 0, "{ran:?}");
        ran.code == 0 && again.contains("audit.export") && again.contains("operators=ann,bob")
    });
    let check = |name: &str, from: &str, to: &str| {
        let path = case.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let ran = verify(folder(&engine), &format!("--case case --key {vkey}"));
        std::fs::write(&path, text).unwrap();
        ran
    };
    check("manifest.json", "bob", "eve").refused(2, "signature_invalid");
    check("requests.jsonl", "theirs-0", "theirs-9").refused(2, "signature_invalid");
    check("operators.jsonl", "tenant.create", "tenant.delete").refused(2, "signature_invalid");
    check("manifest.note", "c-1", "c-2").refused(2, "signature_invalid");
}

#[test]
fn an_erased_entry_leaves_the_log_valid_and_is_journaled() {
    let engine = Engine::start();
    let vkey = engine.operate("audit key").trim().to_owned();
    block_on(sign(&engine, "k", 3));
    let item = block_on(receipts(&engine.profile(), "k-1")).items.remove(0);
    let sequence = item.sequence.unwrap();
    engine.operate(&format!("audit erase --sequence {sequence} --reason order-7"));
    let after = block_on(receipts(&engine.profile(), "k-1")).items.remove(0);
    assert_eq!(after.inclusion.unwrap().salt, None);
    let beyond = engine.cli(&["audit", "erase", "--sequence", "999999", "--reason", "x"]);
    beyond.refused(2, "not_found");
    let data = engine.stop();
    let found = json(&verify(data.path(), &format!("--dir var --key {vkey}")).ok());
    assert_eq!(found["journal"]["erased"], 1);
    let leaves = found["leaves"].as_u64().unwrap();
    assert_eq!(found["journal"]["recomputed"], leaves - 1);
    let journal = run_in(data.path(), &["journal", "export"]).ok();
    assert!(journal.contains("audit.erase") && journal.contains("reason=order-7"));
    // What an operator does without an engine is logged, too.
    run_in(data.path(), &["tenant", "create", "later"]).ok();
    let found = json(&verify(data.path(), &format!("--dir var --key {vkey}")).ok());
    assert!(found["leaves"].as_u64().unwrap() > leaves);
}
