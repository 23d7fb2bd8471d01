//! Backups, restores and archives from outside: made while an engine serves, and what is made of them serves on.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use protocol::client::{Client, Transport};
use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::message::ItemOutcome;
use serde_json::Value;

use crate::pki::{list_number, stamp};
use crate::support::{BOTH, Engine, Setup, block_on, request, run, run_in, sign_one, wait_until};

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// Signs under these keys and returns the answers.
fn sign(engine: &Engine, numbers: std::ops::Range<usize>) -> Vec<(Vec<u8>, u64)> {
    block_on(async {
        let client = engine.client(Transport::Quic).await;
        let mut answers = Vec::new();
        for number in numbers {
            let outcome = sign_one(&client, &request(&key(number), &key(number))).await;
            let ItemOutcome::Done { signature, sequence } = outcome.unwrap() else {
                panic!("not done")
            };
            answers.push((signature, sequence.0));
        }
        answers
    })
}

/// Puts the data folder aside and restores a backup in its place, beside the master key.
fn restore(folder: &Path, arguments: &[&str]) -> Value {
    std::fs::rename(folder.join("var"), folder.join("lost")).unwrap();
    std::fs::create_dir(folder.join("var")).unwrap();
    std::fs::copy(folder.join("lost/master.key"), folder.join("var/master.key")).unwrap();
    let words = [&["restore", "--from", "copy"], arguments].concat();
    json(&run_in(folder, &words).ok())
}

#[test]
fn a_backup_made_while_serving_is_restored_and_serves_on_without_using_a_number_twice() {
    let engine = Engine::start();
    let before = sign(&engine, 0..20);
    let stamps: HashSet<Vec<u8>> = (0..5).map(|_| stamp(engine.pki)).collect();
    let made = json(&engine.operate("backup --to copy"));
    let last = made["last_entry"].as_u64().unwrap();
    assert!(last >= before[19].1);
    let after = sign(&engine, 20..30);
    let later: HashSet<Vec<u8>> = (0..5).map(|_| stamp(engine.pki)).collect();
    let list = list_number(&engine, "dev-p256");
    let verified = json(&engine.operate("restore --from copy --verify"));
    assert_eq!(verified["signatures"], 20);
    engine
        .cli(&["restore", "--from", "copy"])
        .refused(2, "already_exists");
    let folder = engine.kill();

    let report = restore(folder.path(), &["--tail", "lost/tail"]);
    assert_eq!(
        (&report["epoch"], &report["last_entry"]),
        (&1.into(), &last.into())
    );
    // Ten signatures, the entry that names the backup, and a block of serial numbers every two seconds.
    let lost = report["lost_entries"].as_u64().unwrap();
    assert!((11..=16).contains(&lost), "{report}");
    let engine = Setup::default().start_in(folder);
    assert_eq!(
        sign(&engine, 0..20),
        before,
        "the recorded bytes, and their entries"
    );
    let first = report["first_entry"].as_u64().unwrap();
    for ((signature, sequence), (lost, _)) in sign(&engine, 20..30).iter().zip(&after) {
        assert!(*sequence > first);
        assert_ne!(signature, lost, "what is lost is signed anew");
    }
    for _ in 0..5 {
        let serial = stamp(engine.pki);
        assert!(!stamps.contains(&serial) && !later.contains(&serial));
        // Behind the tag of the block: its number, beyond all that the lost folder can have used.
        assert_eq!(serial[8..11], [0, 0, 1], "{serial:02x?}");
    }
    let next = list_number(&engine, "dev-p256");
    assert!(next > list && next >= 1 << 32, "{next} after {list}");
    assert_eq!(
        json(&engine.operate("reconcile"))["differences"],
        Value::Array(Vec::new())
    );
    let folder = engine.stop();
    let checked = json(&run_in(folder.path(), &["journal", "check"]).ok());
    assert_eq!(checked["signatures"], 30);
}

#[test]
fn a_subject_that_was_erased_after_a_backup_is_erased_again_after_its_restore() {
    let setup = || Setup::default().set("erasures", "erased.jsonl");
    let engine = setup().start();
    engine.operate("backup --to copy");
    engine.operate("subject erase --tenant demo demo-enterprise --order request-18");
    // The list is written when the engine starts, and every ten seconds.
    let engine = setup().start_in(engine.stop());
    let list = engine.folder.as_ref().unwrap().path().join("erased.jsonl");
    wait_until("the list is kept", || {
        std::fs::read_to_string(&list).is_ok_and(|text| text.contains("demo-enterprise"))
    });
    let folder = engine.stop();
    let state = || {
        let listed = json(&run_in(folder.path(), &["subject", "list", "--tenant", "demo"]).ok());
        listed[0]["state"].clone()
    };
    restore(folder.path(), &[]);
    assert_eq!(state(), "approved", "the backup still holds it");
    std::fs::remove_dir_all(folder.path().join("lost")).unwrap();
    restore(folder.path(), &["--erasures", "erased.jsonl"]);
    assert_eq!(state(), "erased");
}

#[test]
fn what_is_no_backup_of_ours_is_not_restored() {
    let engine = Engine::start();
    sign(&engine, 0..3);
    engine.operate("backup --to copy");
    engine
        .cli(&["backup", "--to", "copy"])
        .refused(2, "already_exists");
    let folder = engine.stop();
    let at = |name: &str| folder.path().join(name);
    let ask = |home: &str| run_in(folder.path(), &["restore", "--home", home, "--from", "copy"]);
    // Without the master key, and with another one.
    ask("new").refused(2, "file");
    std::fs::create_dir(at("new")).unwrap();
    run_in(folder.path(), &["init", "--home", "other"]).ok();
    std::fs::copy(at("other/master.key"), at("new/master.key")).unwrap();
    ask("new").refused(2, "usage");
    std::fs::copy(at("var/master.key"), at("new/master.key")).unwrap();
    // A file that was changed.
    let database = at("copy/cinnabar.db");
    let sound = std::fs::read(&database).unwrap();
    let mut changed = sound.clone();
    changed[sound.len() / 2] ^= 1;
    std::fs::write(&database, changed).unwrap();
    ask("new").refused(4, "data_corrupt");
    std::fs::write(&database, sound).unwrap();
    let text = ask("new").ok();
    assert_eq!(json(&text)["lost_entries"], Value::Null);
    let listed = run_in(folder.path(), &["tenant", "list", "--home", "new"]).ok();
    assert_eq!(json(&listed)[0]["name"], "demo");
}

/// The wrapped keys and secrets of a tenant, as a database file has them.
fn wrapped(database: &Path, tenant: &str) -> Vec<Vec<u8>> {
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect('file:' + sys.argv[1] + '?immutable=1', uri=True)\n\
        row, key = db.execute('SELECT row, data_key FROM tenant WHERE name = ?', [sys.argv[2]]).fetchone()\n\
        rest = db.execute('SELECT wrapped FROM key WHERE tenant = ? UNION ALL SELECT secret FROM app WHERE tenant = ? \
            UNION ALL SELECT secret FROM webhook WHERE owner = ?', [row, row, row])\n\
        for value in [key] + [value for value, in rest]: print(value.hex() if value else '')";
    let text = run(Command::new("python3")
        .args(["-c", script])
        .arg(database)
        .arg(tenant))
    .ok();
    let hex = |line: &str| {
        let byte = |at: usize| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap();
        (0..line.len() / 2).map(byte).collect()
    };
    text.lines().map(hex).collect()
}

fn contains(path: &Path, bytes: &[u8]) -> bool {
    let file = std::fs::read(path).unwrap();
    file.windows(bytes.len()).any(|window| window == bytes)
}

#[test]
fn a_destroyed_tenant_leaves_nothing_that_opens_and_books_that_add_up() {
    let engine = Engine::start();
    engine.make_prepaid(10);
    let mut wanted = request("acme-1", "of acme");
    wanted.credential = "seal".into();
    let profile = engine.prepaid_profile();
    let try_sign = || {
        block_on(async {
            let client = Client::connect(&profile, Transport::Https, 1).await?;
            sign_one(&client, &wanted).await
        })
    };
    let ItemOutcome::Done { signature, .. } = try_sign().unwrap() else {
        panic!("not done")
    };
    engine.operate("webhook set --tenant acme http://127.0.0.1:9/hook");
    engine.operate("webhook set http://127.0.0.1:9/ours");
    engine.operate("backup --to copy");
    let values = wrapped(&folder(&engine).join("copy/cinnabar.db"), "acme");
    assert_eq!(
        values.len(),
        4,
        "its own key, a private key, a secret of an app and one of a webhook"
    );
    let destroy = [
        "tenant",
        "destroy",
        "acme",
        "--order",
        "letter-7",
        "--certificate",
        "gone.json",
    ];
    engine.cli(&destroy).refused(2, "usage");
    engine.operate("tenant close acme --confirm acme");
    engine.cli(&destroy).ok();
    let at = |name: &str| folder(&engine).join(name);
    for file in ["var/cinnabar.db", "var/cinnabar.db-wal"] {
        for value in &values {
            assert!(!contains(&at(file), value), "{file} still holds {value:02x?}");
        }
    }
    assert!(
        contains(&at("copy/cinnabar.db"), &values[0]),
        "the search finds what is there"
    );
    assert!(
        !contains(&at("copy/cinnabar.db"), &signature),
        "a signature is nowhere in the clear"
    );
    only_the_operators_webhook_is_left(&engine);
    certificate_of_destruction_verifies(&engine);
    assert_eq!(try_sign().unwrap_err().code, Code::Unauthenticated);
    std::fs::rename(at("gone.json"), at("first.json")).unwrap();
    std::fs::remove_file(at("gone.json.sig")).unwrap();
    std::fs::remove_file(at("gone.json.pem")).unwrap();
    engine.cli(&destroy).refused(2, "already_exists");
    assert!(
        !at("gone.json").exists(),
        "nothing is certified that was not done"
    );
    sign(&engine, 0..1);

    let engine = Setup::default().start_in(engine.stop());
    books_of_the_destroyed_tenant_add_up(&engine);
    leaves_of_the_destroyed_tenant_are_sealed_and_valid(engine.stop().path());
}

fn only_the_operators_webhook_is_left(engine: &Engine) {
    let hooks = json(&engine.operate("webhook list"));
    let owners: Vec<_> = hooks
        .as_array()
        .unwrap()
        .iter()
        .map(|hook| &hook["tenant"])
        .collect();
    assert_eq!(owners, [&Value::Null]);
}

/// The audit log verifies, the tenant's leaves cannot be opened, nor its signatures; those of others can.
fn leaves_of_the_destroyed_tenant_are_sealed_and_valid(folder: &Path) {
    let words = ["audit", "verify", "--dir", "var"];
    let found = json(&run_in(folder, &words).ok());
    assert_eq!(found["journal"]["erased"], 1, "{found}");
    let text = run_in(folder, &["journal", "export"]).ok();
    let signed = |line: &str| Some(json(line)).filter(|entry| entry["kind"] == "signature");
    let (gone, there): (Vec<_>, Vec<_>) = text
        .lines()
        .filter_map(signed)
        .partition(|entry| entry["key"] == "acme-1");
    assert_eq!(
        (gone.len(), &gone[0]["signature"]),
        (1, &Value::Null),
        "what was sealed under its key is gone"
    );
    assert!(gone[0]["signature_sha256"].is_string());
    assert_eq!(there.len(), 2);
    assert!(there.iter().all(|entry| entry["signature"].is_string()));
}

fn certificate_of_destruction_verifies(engine: &Engine) {
    let gone = json(&std::fs::read_to_string(folder(engine).join("gone.json")).unwrap());
    assert_eq!(
        (&gone["tenant"], &gone["order"]),
        (&"acme".into(), &"letter-7".into())
    );
    for what in [
        "private_keys",
        "secrets",
        "webhook_secrets",
        "signatures",
        "audit_salts",
    ] {
        assert_eq!(gone["destroyed"][what], 1, "{what}: {gone}");
    }
    let openssl = |line: &str| {
        let words = line.split_whitespace();
        run(Command::new("openssl").current_dir(folder(engine)).args(words)).ok()
    };
    openssl("x509 -in gone.json.pem -pubkey -noout -out gone.pub");
    let judged = openssl("dgst -sha256 -verify gone.pub -signature gone.json.sig gone.json");
    assert_eq!(judged.trim(), "Verified OK");
}

fn books_of_the_destroyed_tenant_add_up(engine: &Engine) {
    sign(engine, 1..2);
    assert_eq!(
        json(&engine.operate("reconcile"))["differences"],
        Value::Array(Vec::new())
    );
    let month = store::month_of(protocol::clock::wall());
    let month = format!("{}-{:02}", month / 100, month % 100);
    let statement = json(&engine.operate(&format!("statement --tenant acme --month {month}")));
    assert_eq!(statement["charged"], 1);
    let key = engine.cli(&["key", "enable", "--tenant", "acme", "seal"]);
    key.refused(2, "credential_disabled");
}

const DAY_MS: u64 = 24 * 3_600_000;

/// Lets everything in a stopped engine's data folder have happened so many days earlier. When something was committed is not
/// part of the chain.
fn age(folder: &Path, days: u64) -> u32 {
    let month = store::month_of(UnixMillis(protocol::clock::wall().0 - days * DAY_MS));
    let script = "import sqlite3, sys\n\
        db, ms, month = sqlite3.connect(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])\n\
        for table in ['journal', 'transfer']: db.execute(f'UPDATE {table} SET at_ms = at_ms - ?', [ms])\n\
        for table in ['journal_span', 'usage']: db.execute(f'UPDATE {table} SET month = ?', [month])\n\
        db.commit()";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(folder.join("var/cinnabar.db"));
    run(python.args([(days * DAY_MS).to_string(), month.to_string()])).ok();
    month
}

#[test]
fn a_reply_is_given_out_for_30_days_and_its_key_stays_used_up() {
    let engine = Engine::start();
    let before = sign(&engine, 0..2);
    let folder = engine.stop();
    age(folder.path(), 29);
    let engine = Setup::default().start_in(folder);
    assert_eq!(sign(&engine, 0..2), before);
    let folder = engine.stop();
    age(folder.path(), 2);
    let engine = Setup::default().start_in(folder);
    block_on(async {
        for transport in BOTH {
            let client = engine.client(transport).await;
            for (text, code) in [
                (&*key(0), Code::ReplyExpired),
                ("other", Code::IdempotencyKeyReused),
            ] {
                match sign_one(&client, &request(&key(0), text)).await {
                    Ok(ItemOutcome::Failed(refusal)) | Err(refusal) => assert_eq!(refusal.code, code),
                    done => panic!("{done:?}"),
                }
            }
        }
    });
    let folder = engine.stop();
    let checked = json(&run_in(folder.path(), &["journal", "check"]).ok());
    assert_eq!(checked["signatures"], 2, "nothing was signed twice");
}

#[test]
fn a_month_beyond_the_retention_is_archived_beside_a_serving_engine() {
    let engine = Engine::start();
    sign(&engine, 0..5);
    let folder = engine.stop();
    let month = age(folder.path(), 39 * 31);
    let engine = Setup::default().start_in(folder);
    sign(&engine, 5..7);
    let made = json(&engine.operate("archive run"));
    let listed = json(&engine.operate("archive list"));
    assert_eq!((&made, made.as_array().unwrap().len()), (&listed, 1));
    let month = format!("{}-{:02}", month / 100, month % 100);
    assert_eq!(
        (&made[0]["month"], &made[0]["first_entry"]),
        (&month.clone().into(), &1.into())
    );
    assert_eq!(json(&engine.operate("archive verify")), made);
    let file = format!("var/{}", made[0]["file"].as_str().unwrap());
    let alone = json(&engine.operate(&format!("archive verify {file}")));
    assert_eq!(alone["chain_after"], made[0]["chain_after"]);
    let run = engine.cli(&["statement", "--tenant", "demo", "--month", &month]);
    run.refused(2, "month_invalid");
    assert!(run.stderr.contains(".arc"), "{run:?}");
    assert_eq!(
        json(&engine.operate("reconcile"))["differences"],
        Value::Array(Vec::new())
    );
    // Its keys are forgotten: a request under one of them is a new one.
    let last = made[0]["last_entry"].as_u64().unwrap();
    assert!(sign(&engine, 0..1)[0].1 > last);
    let folder = engine.stop();
    let checked = json(&run_in(folder.path(), &["journal", "check"]).ok());
    assert_eq!(checked["signatures"], 3);
    let path = folder.path().join(&file);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    run_in(folder.path(), &["archive", "verify"]).refused(4, "data_corrupt");
}

/// Entries of the journal, and leaves of the log as a copy of it is verified.
fn leaves(folder: &Path) -> Value {
    json(&run_in(folder, &["audit", "verify", "--dir", "var"]).ok())
}

#[test]
fn a_lost_audit_log_is_begun_anew_from_archives_and_journal() {
    let engine = Engine::start();
    sign(&engine, 0..5);
    let folder = engine.stop();
    age(folder.path(), 39 * 31);
    // What was logged has another time now: this log cannot go on either.
    std::fs::remove_dir_all(folder.path().join("var/audit")).unwrap();
    let engine = Setup::default().start_in(folder);
    sign(&engine, 5..7);
    let made = json(&engine.operate("archive run"));
    let folder = engine.stop();
    let old = leaves(folder.path());
    std::fs::remove_dir_all(folder.path().join("var/audit")).unwrap();
    let engine = Setup::default().start_in(folder);
    let folder = engine.stop();
    let new = leaves(folder.path());
    assert_ne!(new["log"], old["log"], "another log, with another name");
    let archived = made[0]["last_entry"].as_u64().unwrap();
    let count = |found: &Value, what: &str| found["journal"][what].as_u64().unwrap();
    assert_eq!((count(&new, "archived"), count(&new, "lost")), (0, 0));
    let away = folder.path().join("away");
    std::fs::rename(folder.path().join("var/archive"), &away).unwrap();
    let without = leaves(folder.path());
    assert_eq!(count(&without, "archived"), archived, "they are not in the copy");
    assert_eq!(
        count(&without, "recomputed") + archived,
        count(&new, "recomputed")
    );
    // Without its archives no log is begun: nothing may be said of entries that are not there.
    std::fs::remove_dir_all(folder.path().join("var/audit")).unwrap();
    let engine = Setup::default().start_in(folder);
    wait_until("the log says that it stands still", || {
        engine.metric("cinnabar_audit_stopped") > 0.0
    });
    wait_until("its files say why", || {
        let logs = std::fs::read_dir(engine.home().join("logs")).unwrap().flatten();
        let said = logs
            .map(|file| std::fs::read_to_string(file.path()).unwrap())
            .collect::<String>();
        said.contains("audit_log_stopped") && said.contains(".arc")
    });
}

#[test]
fn a_journal_that_has_lost_its_beginning_is_not_taken_for_archived() {
    let engine = Engine::start();
    sign(&engine, 0..3);
    let folder = engine.stop();
    leaves(folder.path());
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute('DELETE FROM journal WHERE first = (SELECT min(first) FROM journal)')\n\
        db.commit()";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .arg(folder.path().join("var/cinnabar.db"));
    run(&mut python).ok();
    let checked = run_in(folder.path(), &["audit", "verify", "--dir", "var"]);
    checked.refused(4, "data_corrupt");
}

#[test]
fn an_audit_log_from_before_a_restore_is_refused_and_a_new_one_verifies() {
    let engine = Engine::start();
    sign(&engine, 0..3);
    engine.operate("backup --to copy");
    sign(&engine, 3..5);
    let folder = engine.stop();
    restore(folder.path(), &[]);
    let at = |name: &str| folder.path().join(name);
    std::fs::rename(at("lost/audit"), at("var/audit")).unwrap();
    // Beside an old log nothing is restored over, and no engine goes on with it.
    std::fs::create_dir(at("beside")).unwrap();
    std::fs::create_dir(at("beside/audit")).unwrap();
    std::fs::copy(at("var/master.key"), at("beside/master.key")).unwrap();
    let beside = run_in(folder.path(), &["restore", "--home", "beside", "--from", "copy"]);
    beside.refused(2, "already_exists");
    let mut refused = Setup::default().spawn(folder.path());
    let code = refused.wait().unwrap().code();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut refused.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("audit log of epoch 0") && said.contains("epoch 1"),
        "{said}"
    );
    std::fs::rename(at("var/audit"), at("old")).unwrap();
    let engine = Setup::default().start_in(folder);
    sign(&engine, 5..6);
    let folder = engine.stop();
    let found = leaves(folder.path());
    assert!(found["journal"]["lost"].as_u64().unwrap() >= 1 << 20, "{found}");
    // The old log verifies as it did.
    run_in(folder.path(), &["audit", "verify", "--dir", "old"]).ok();
}

#[test]
fn nothing_is_archived_before_its_time() {
    let engine = Engine::start();
    sign(&engine, 0..3);
    assert_eq!(
        engine.operate("archive run").trim(),
        "nothing is older than 37 months"
    );
    assert_eq!(json(&engine.operate("archive list")), Value::Array(Vec::new()));
    assert_eq!(json(&engine.operate("archive verify")), Value::Array(Vec::new()));
    let run = engine.cli(&["--set", "retention_months=0", "archive", "run"]);
    run.refused(2, "usage");
}
