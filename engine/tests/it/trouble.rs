//! Bad days of the data folder, as an operator meets them: a full disk, entries that are gone, a changed byte, the
//! wrong master key. What was released is never lost, and nothing is opened that contradicts itself.

mod ramdisk;

use std::path::{Path, PathBuf};
use std::process::Child;

use protocol::client::{Client, SignRequest, Transport};
use protocol::error_code::{Code, Refusal};
use protocol::message::ItemOutcome;
use serde_json::Value;

use crate::receivers::Receiver;
use crate::support::{BOTH, Engine, Ran, Setup, block_on, request, run_in, sign_one, wait_until};
use ramdisk::RamDisk;

/// A batch that fills the journal faster than one signature does.
fn batch(key: &str) -> SignRequest {
    let mut wanted = request(key, "text");
    wanted.inputs = vec![wanted.inputs[0].clone(); 64];
    wanted
}

/// Calls that were made until the disk was full.
struct Filled {
    done: Vec<(SignRequest, Vec<ItemOutcome>)>,
    /// The call that found it full, and why.
    refused: SignRequest,
    refusal: Refusal,
    /// Items of that call that were recorded all the same: each stands alone (SEMANTICS 2.1).
    partly: u64,
}

/// Signs until the disk is full.
async fn fill(client: &Client, name: &str) -> Filled {
    let mut done = Vec::new();
    loop {
        let wanted = batch(&format!("{name}-{}", done.len()));
        let answer = client.sign(&wanted).await;
        let (refusal, partly) = match answer {
            Ok(items) => match first_refusal(&items) {
                None => {
                    done.push((wanted, items));
                    continue;
                }
                Some(refusal) => (refusal, signed(&items)),
            },
            Err(refusal) => (refusal, 0),
        };
        return Filled {
            done,
            refused: wanted,
            refusal,
            partly,
        };
    }
}

fn signed(items: &[ItemOutcome]) -> u64 {
    let is_done = |item: &&ItemOutcome| matches!(item, ItemOutcome::Done { .. });
    items.iter().filter(is_done).count() as u64
}

fn first_refusal(items: &[ItemOutcome]) -> Option<Refusal> {
    items.iter().find_map(|item| match item {
        ItemOutcome::Done { .. } => None,
        ItemOutcome::Pending => panic!("pending for lack of room"),
        ItemOutcome::Failed(refusal) => Some(refusal.clone()),
    })
}

/// Everything that was released can be read, by look-up and by retry, and nothing else was charged.
async fn all_is_readable(client: &Client, filled: &Filled) {
    let done = &filled.done;
    for (wanted, items) in done.iter().rev().take(20).chain(&done[..1]) {
        assert_eq!(client.look_up(&wanted.key).await.unwrap(), *items);
        assert_eq!(client.sign(wanted).await.unwrap(), *items);
    }
    let charged = client.usage().await.unwrap().signatures;
    assert_eq!(charged, done.len() as u64 * 64 + filled.partly);
}

#[test]
fn a_store_that_may_not_grow_refuses_keeps_reading_and_goes_on_with_more_room() {
    // Twice what a development engine needs to begin with.
    let engine = Setup::default().set("store_bytes_max", 1 << 20).start();
    let mut filled = block_on(async {
        let client = engine.client(BOTH[0]).await;
        let filled = fill(&client, "full").await;
        assert_eq!(filled.refusal.code, Code::StorageFull);
        for transport in BOTH {
            let client = engine.client(transport).await;
            // One row may still fit where sixty-four do not; but not many.
            let refusal = fill(&client, &format!("{transport:?}")).await.refusal;
            assert_eq!(refusal.code, Code::StorageFull);
        }
        assert_eq!(engine.admin_get("/livez").0, 200);
        let client = engine.client(BOTH[0]).await;
        let filled = Filled {
            partly: client.usage().await.unwrap().signatures - filled.done.len() as u64 * 64,
            ..filled
        };
        for transport in BOTH {
            all_is_readable(&engine.client(transport).await, &filled).await;
        }
        filled
    });
    let engine = Setup::default().start_in(engine.kill());
    let charged = block_on(async {
        let client = engine.client(BOTH[0]).await;
        all_is_readable(&client, &filled).await;
        let items = client.sign(&filled.refused).await.unwrap();
        assert_eq!(signed(&items), 64);
        filled.done.push((filled.refused.clone(), items));
        client.usage().await.unwrap().signatures
    });
    journal_holds(engine, charged);
}

/// Stops the engine and checks its journal, which must hold so many signatures.
fn journal_holds(mut engine: Engine, signatures: u64) {
    assert!(engine.terminate().success());
    let checked: Value = serde_json::from_str(&engine.cli(&["journal", "check"]).ok()).unwrap();
    assert_eq!(checked["signatures"], signatures);
    assert_eq!(
        (&checked["chain"], &checked["usage"]),
        (&"holds".into(), &"agrees".into())
    );
}

fn hears_of_a_full_disk(receiver: &Receiver) -> bool {
    let heard = receiver.heard();
    heard
        .iter()
        .any(|one| one.body.contains("alert.raised") && one.body.contains("storage-full"))
}

#[test]
fn a_full_disk_refuses_keeps_reading_and_goes_on_by_itself_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RamDisk::mount(&folder.path().join("var"), 40);
    let mut engine = Setup::default().through(&disk.enter()).start_in(folder);
    let profile = disk.read_profile("dev/app.toml");
    let receiver = Receiver::start(&[]);
    let place = engine.folder.as_ref().unwrap().path();
    disk.cinnabar(place, &["webhook", "set", &receiver.url()]).ok();
    let done = block_on(async {
        let client = Client::connect(&profile, Transport::Quic, 1).await.unwrap();
        disk.fill();
        let mut filled = fill(&client, "full").await;
        assert_eq!(filled.refusal.code, Code::StorageFull);
        wait_until("the operators hear of it", || hears_of_a_full_disk(&receiver));
        assert_eq!(engine.metric("cinnabar_storage_full"), 1.0);
        assert_eq!(engine.admin_get("/readyz"), (503, "the disk is full\n".into()));
        assert_eq!(engine.admin_get("/livez").0, 200);
        for transport in BOTH {
            let client = Client::connect(&profile, transport, 1).await.unwrap();
            let refusal = sign_one(&client, &request("new", "text")).await.unwrap_err();
            assert_eq!(refusal.code, Code::StorageFull);
            assert!(refusal.retry_after_ms.is_some());
            all_is_readable(&client, &filled).await;
        }

        disk.make_room();
        wait_until("the disk has room", || {
            engine.metric("cinnabar_storage_full") == 0.0
        });
        assert_eq!(engine.admin_get("/readyz").0, 200);
        let items = client.sign(&filled.refused).await.unwrap();
        assert_eq!(signed(&items), 64);
        filled.done.push((filled.refused.clone(), items));
        filled.partly = 0;
        all_is_readable(&client, &filled).await;
        client.usage().await.unwrap().signatures
    });
    assert!(engine.terminate().success());
    let checked = disk
        .cinnabar(engine.folder.as_ref().unwrap().path(), &["journal", "check"])
        .ok();
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["signatures"], done);
}

/// The files of a database, which belong together.
const DATABASE: [&str; 2] = ["cinnabar.db", "cinnabar.db-wal"];

/// Puts the database of one folder into another.
fn copy_database(from: &Path, to: &Path) {
    for name in DATABASE {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// The engine's only line on standard error when it does not start, with its exit code.
fn fails_to_start(folder: &Path) -> Ran {
    let process: Child = Setup::default().set("log", "off").spawn(folder);
    let output = process.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn sign_some(engine: &Engine, name: &str, count: usize) {
    block_on(async {
        let client = engine.client(BOTH[0]).await;
        for number in 0..count {
            sign_one(&client, &request(&format!("{name}-{number}"), "text"))
                .await
                .unwrap();
        }
    });
}

fn export(folder: &Path) -> Vec<Value> {
    let text = run_in(folder, &["journal", "export"]).ok();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_older_database_is_not_served_until_an_operator_accepts_the_loss_which_is_recorded() {
    let mut engine = Engine::start();
    sign_some(&engine, "kept", 5);
    assert!(engine.terminate().success());
    let older = tempfile::tempdir().unwrap();
    copy_database(&engine.home(), older.path());
    let engine = Setup::default().start_in(engine.kill());
    sign_some(&engine, "lost", 7);
    let folder = engine.kill();
    let path = folder.path();
    let before = export(path);
    copy_database(older.path(), &path.join("var"));

    for refused in [
        fails_to_start(path),
        run_in(path, &["journal", "check"]),
        run_in(path, &["recover"]),
    ] {
        refused.refused(4, "data_corrupt");
        assert!(refused.stderr.contains("entries are missing"), "{refused:?}");
    }
    run_in(path, &["recover", "--accept-loss"]).ok();

    let entries = export(path);
    let accepted: Vec<&Value> = entries
        .iter()
        .filter(|entry| entry["kind"] == "loss-accepted")
        .collect();
    let last = before.last().unwrap()["sequence"].as_u64().unwrap();
    assert_eq!(accepted.len(), 1, "{entries:#?}");
    assert_eq!(accepted[0]["last"], last);
    let first = accepted[0]["first"].as_u64().unwrap();
    assert!(last - first >= 7, "{first} to {last}");
    // No number of a lost entry stands for another now.
    let numbers = entries.iter().map(|entry| entry["sequence"].as_u64().unwrap());
    assert!(numbers.into_iter().all(|number| number < first || number > last));
    run_in(path, &["recover"]).ok();

    let engine = Setup::default().start_in(folder);
    block_on(async {
        let client = engine.client(BOTH[0]).await;
        client.look_up(&request("kept-0", "text").key).await.unwrap();
        let lost = request("lost-0", "text");
        assert_eq!(client.look_up(&lost.key).await.unwrap_err().code, Code::NotFound);
        sign_one(&client, &lost).await.unwrap();
    });
    journal_holds(engine, 6);
}

#[test]
fn a_journal_file_cut_short_is_not_served() {
    let mut engine = Engine::start();
    sign_some(&engine, "cut", 200);
    assert!(engine.terminate().success());
    // This also copies what is in the write-ahead log into the file, so that nothing can be restored from there.
    engine.cli(&["journal", "check"]).ok();
    let database = engine.home().join("cinnabar.db");
    let folder = engine.kill();
    let file = std::fs::OpenOptions::new().write(true).open(&database).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    for refused in [
        fails_to_start(folder.path()),
        run_in(folder.path(), &["journal", "check"]),
    ] {
        refused.refused(4, "data_corrupt");
        assert_eq!(refused.stdout, "");
    }
}

/// Changes a text wherever it stands: a page that was split keeps what moved away in its free space.
fn flip(path: &PathBuf, text: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let found = |at: &usize| bytes[*at..].starts_with(text);
    let places: Vec<usize> = (0..bytes.len()).filter(found).collect();
    assert!(!places.is_empty(), "the text is in the file");
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_changed_byte_in_the_journal_is_noticed() {
    let mut engine = Engine::start();
    sign_some(&engine, "flipped", 3);
    assert!(engine.terminate().success());
    engine.cli(&["journal", "check"]).ok();
    flip(&engine.home().join("cinnabar.db"), b"flipped-1");
    let folder = engine.kill();
    for noticed in [
        run_in(folder.path(), &["journal", "check"]),
        fails_to_start(folder.path()),
    ] {
        noticed.refused(4, "data_corrupt");
        assert!(noticed.stderr.contains("corrupt at entry"), "{noticed:?}");
    }
}

#[test]
fn the_master_key_must_be_there_be_ours_and_be_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut engine = Engine::start();
    sign_some(&engine, "before", 1);
    assert!(engine.terminate().success());
    let folder = engine.kill();
    let key = folder.path().join("var/master.key");
    let right = std::fs::read(&key).unwrap();
    let list = || run_in(folder.path(), &["app", "list"]);

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    list().refused(2, "usage");
    assert!(list().stderr.contains("must be 0600"), "{:?}", list());
    std::fs::remove_file(&key).unwrap();
    list().refused(2, "file");

    for (wrong, says) in [(vec![7; 32], "not the master key"), (right[1..].to_vec(), "32")] {
        std::fs::write(&key, wrong).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        for ran in [list(), fails_to_start(folder.path())] {
            ran.refused(2, "usage");
            assert!(ran.stderr.contains(says), "{ran:?}");
        }
    }
    std::fs::write(&key, right).unwrap();
    let engine = Setup::default().start_in(folder);
    sign_some(&engine, "after", 1);
    journal_holds(engine, 2);
}
