//! The audit log behind a real journal: it grows, survives crashes and lost files, never contradicts itself, and a copy of
//! it is judged without the store's help.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::ids::Sequence;
use store::audit::{
    AuditError, Checkpoint, Folder, Follower, InclusionProof, LeafCount, Log, Nodes, Salts, SigningKey,
    Verified, commitment, inclusion, leaf_of, verify,
};
use store::{Options, Reader, StoreError};

use crate::support::{World, create, open};

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::new("log.example/audit", &[3; 32]).unwrap())
}

fn reader(home: &Path) -> Reader {
    Reader::beside(home).unwrap()
}

fn audit(home: &Path) -> PathBuf {
    home.join("audit")
}

/// Opens the log, takes in everything, and gives its checkpoint.
fn grow(home: &Path) -> String {
    let reader = reader(home);
    let mut log = Log::open(&audit(home), key(), &reader).unwrap();
    while log.grow(&reader).unwrap() > 0 {}
    log.signed().note.clone()
}

fn judge(home: &Path, since: Option<&str>) -> Result<Verified, AuditError> {
    let folder = Folder::at(audit(home));
    verify(&folder, key().verifier(), since, Some(&reader(home)), &[])
}

fn sign_many(world: &World, name: &str, count: usize) {
    for n in 0..count {
        world.sign(&format!("{name}{n}"));
    }
}

/// A store with so many signatures, stopped.
fn home_with(signatures: usize) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let world = create(home.path(), Options::default(), None);
    sign_many(&world, "k", signatures);
    world.stop();
    home
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_entry_is_a_leaf_and_a_copy_proves_it() {
    let home = home_with(600);
    let first = grow(home.path());
    let last = reader(home.path()).last_entry().unwrap().0;
    let found = judge(home.path(), None).unwrap();
    assert_eq!(found.checkpoint.size, last);
    let all = LeafCount {
        recomputed: last,
        ..LeafCount::default()
    };
    assert_eq!(found.leaves, Some(all));

    let world = open(home.path(), Options::default());
    sign_many(&world, "more", 300);
    world.stop();
    let second = grow(home.path());
    let found = judge(home.path(), Some(&first)).unwrap();
    assert_eq!(found.since.unwrap().size, last);
    // Nothing new: nothing is signed.
    assert_eq!(grow(home.path()), second);
    // Of partial tiles only those of the last checkpoint are left.
    let partials = files(&audit(home.path()).join("tile"));
    let partials = partials
        .iter()
        .filter(|path| path.to_string_lossy().contains(".p/"));
    assert_eq!(partials.count(), 3);
}

#[test]
fn an_entry_is_proved_from_its_record_and_salt_alone() {
    let home = home_with(700);
    let note = grow(home.path());
    let folder = Folder::at(audit(home.path()));
    let size = Checkpoint::verify(&note, key().verifier()).unwrap().size;
    let salts = Salts::existing(folder.path()).unwrap().unwrap();
    for index in [0, 255, 256, 600, size - 1] {
        let text = InclusionProof {
            index,
            path: inclusion(&mut folder.nodes(size), index, size).unwrap(),
            checkpoint: note.clone(),
        }
        .to_text();
        let (at, record) = reader(home.path())
            .raw_entry(Sequence(index + 1))
            .unwrap()
            .unwrap();
        let salt = salts.get(index).unwrap().unwrap();
        let proof = InclusionProof::parse(&text).unwrap();
        let leaf = leaf_of(&commitment(salt, at, &record));
        assert_eq!(proof.verify(leaf, key().verifier()).unwrap().size, size);
        let mut forged = record.clone();
        *forged.last_mut().unwrap() ^= 1;
        let leaf = leaf_of(&commitment(salt, at, &forged));
        assert!(proof.verify(leaf, key().verifier()).is_err());
    }
}

#[test]
fn a_log_that_lost_files_is_made_again_and_has_the_same_root() {
    let home = home_with(1_100);
    let note = grow(home.path());
    let complete = files(&audit(home.path()));
    for path in &complete {
        let name = path.file_name().unwrap().to_string_lossy();
        if name == "salts" {
            continue;
        }
        // Lost, cut short, and with another byte in it.
        let bytes = std::fs::read(path).unwrap();
        for damage in 0..3 {
            let mut changed = bytes.clone();
            match (damage, name == "checkpoint") {
                (0, _) => std::fs::remove_file(path).unwrap(),
                (1, false) => std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap(),
                (2, false) => {
                    changed[bytes.len() / 2] ^= 1;
                    std::fs::write(path, &changed).unwrap();
                }
                _ => continue,
            }
            assert_eq!(grow(home.path()), note, "{}, {damage}", path.display());
            judge(home.path(), Some(&note)).unwrap();
            assert_eq!(files(&audit(home.path())), complete);
        }
    }
}

#[test]
fn what_a_crashed_round_left_is_made_again_the_same() {
    let home = home_with(300);
    let old = grow(home.path());
    let world = open(home.path(), Options::default());
    sign_many(&world, "more", 500);
    world.stop();
    let new = grow(home.path());
    // The process died before the checkpoint was renamed: salts and tiles are ahead of it.
    std::fs::write(audit(home.path()).join("checkpoint"), &old).unwrap();
    assert_eq!(grow(home.path()), new);
    judge(home.path(), Some(&old)).unwrap();
}

#[test]
fn a_changed_tile_is_noticed_by_whoever_has_a_copy() {
    let home = home_with(600);
    grow(home.path());
    for path in files(&audit(home.path()).join("tile")) {
        let bytes = std::fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            std::fs::write(&path, changed).unwrap();
            assert!(judge(home.path(), None).is_err(), "{}, byte {at}", path.display());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(judge(home.path(), None).is_err(), "{}", path.display());
        std::fs::write(&path, bytes).unwrap();
    }
    judge(home.path(), None).unwrap();
}

fn sql(home: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(home.join("cinnabar.db")).unwrap()
}

#[test]
fn a_changed_journal_is_noticed_and_nothing_is_signed_over_it() {
    let home = home_with(50);
    grow(home.path());
    let last = reader(home.path()).last_entry().unwrap().0;
    let changed = sql(home.path())
        .execute(
            "UPDATE journal SET at_ms = at_ms + 1 WHERE first = ?",
            [last.cast_signed()],
        )
        .unwrap();
    assert_eq!(changed, 1);
    assert!(matches!(judge(home.path(), None), Err(AuditError::Entry(at)) if at == last));
    let error = Log::open(&audit(home.path()), key(), &reader(home.path())).unwrap_err();
    assert!(matches!(error, AuditError::Contradiction { size } if size == last));
    assert!(error.is_for_good());
}

#[test]
fn a_removed_entry_is_missed() {
    let home = home_with(50);
    grow(home.path());
    sql(home.path())
        .execute("DELETE FROM journal WHERE first = 30", [])
        .unwrap();
    assert!(matches!(
        judge(home.path(), None),
        Err(AuditError::EntryMissing(30))
    ));
    sql(home.path())
        .execute("DELETE FROM journal WHERE first > 30", [])
        .unwrap();
    assert!(matches!(
        judge(home.path(), None),
        Err(AuditError::EntryMissing(30))
    ));
}

#[test]
fn entries_that_moved_to_an_archive_are_taken_on_the_log_s_word() {
    let home = home_with(50);
    let note = grow(home.path());
    sql(home.path())
        .execute("DELETE FROM journal WHERE first < 30", [])
        .unwrap();
    let missing = judge(home.path(), None);
    assert!(matches!(missing, Err(AuditError::EntryMissing(1))), "{missing:?}");
    sql(home.path())
        .execute(
            "INSERT INTO archive VALUES (1, 29, 202601, zeroblob(32), zeroblob(32), 0, zeroblob(32), 0)",
            [],
        )
        .unwrap();
    let leaves = judge(home.path(), None).unwrap().leaves.unwrap();
    assert_eq!(leaves.archived, 29);
    // And the log can still be made again, as long as there are its bundles.
    std::fs::remove_dir_all(audit(home.path()).join("tile/0")).unwrap();
    assert_eq!(grow(home.path()), note);
}

#[test]
fn erased_entries_leave_the_tree_valid_and_cannot_be_opened() {
    let home = home_with(400);
    let note = grow(home.path());
    let folder = Folder::at(audit(home.path()));
    folder.sync().unwrap();
    let salts = Salts::writable(folder.path()).unwrap();
    salts.erase([9, 10, 300]).unwrap();
    assert_eq!(salts.get(9).unwrap(), None);
    let leaves = judge(home.path(), Some(&note)).unwrap().leaves.unwrap();
    assert_eq!(leaves.erased, 3);
    // What was erased is not made again, and need not be.
    std::fs::remove_dir_all(folder.path().join("tile/0")).unwrap();
    assert_eq!(grow(home.path()), note);
    judge(home.path(), Some(&note)).unwrap();
    // Without its bundle there is nothing left that says what was logged: then nothing is signed any more.
    std::fs::remove_dir_all(folder.path().join("tile")).unwrap();
    let error = Log::open(folder.path(), key(), &reader(home.path())).unwrap_err();
    assert!(matches!(error, AuditError::EntryMissing(10)), "{error}");
    assert!(error.is_for_good());
}

#[test]
fn a_journal_that_ends_before_the_log_is_not_opened_and_lost_numbers_become_empty_leaves() {
    let home = home_with(50);
    let old = grow(home.path());
    let logged = Checkpoint::verify(&old, key().verifier()).unwrap().size;
    sql(home.path())
        .execute(
            "DELETE FROM journal WHERE first > ?",
            [(logged - 5).cast_signed()],
        )
        .unwrap();
    // Even the tail has forgotten.
    std::fs::remove_file(home.path().join("tail")).unwrap();
    let refused = store::Store::<u32>::open(home.path(), Options::default()).unwrap_err();
    assert!(
        matches!(refused, StoreError::EntriesLost { journal, tail } if journal == logged - 5 && tail == logged)
    );
    let accepted = Options {
        accept_loss: true,
        ..Options::default()
    };
    let world = open(home.path(), accepted);
    world.sign("after");
    world.stop();
    grow(home.path());
    // The leaves of the lost entries are as they were: the old checkpoint still holds. What they were is missing.
    let folder = Folder::at(audit(home.path()));
    verify(&folder, key().verifier(), Some(&old), None, &[]).unwrap();
    assert!(matches!(judge(home.path(), Some(&old)), Err(AuditError::EntryMissing(n)) if n == logged - 4));
}

#[test]
fn numbers_that_were_lost_before_they_were_logged_become_empty_leaves() {
    let home = home_with(50);
    let last = reader(home.path()).last_entry().unwrap().0;
    sql(home.path())
        .execute("DELETE FROM journal WHERE first > ?", [(last - 5).cast_signed()])
        .unwrap();
    let accepted = Options {
        accept_loss: true,
        ..Options::default()
    };
    open(home.path(), accepted).stop();
    grow(home.path());
    let leaves = judge(home.path(), None).unwrap().leaves.unwrap();
    assert_eq!(leaves.lost, 5);
}

#[test]
fn the_journal_has_a_leaf_for_each_entry_and_a_difference_is_named() {
    let home = home_with(50);
    let folder = Folder::at(audit(home.path()));
    let differences = |by: u64| {
        let by = Some(protocol::clock::UnixMillis(by));
        let found = reader(home.path()).reconcile_leaves(&folder, by).unwrap();
        let named = found.differences.into_iter();
        named
            .map(|one| (one.subject, one.first, one.second))
            .collect::<Vec<_>>()
    };
    let last = reader(home.path()).last_entry().unwrap().0.cast_signed();
    let waiting = "entries that wait for their leaves".to_owned();
    assert_eq!(differences(0), []);
    assert_eq!(differences(u64::MAX / 2), [(waiting, last, 0)]);
    grow(home.path());
    assert_eq!(differences(u64::MAX / 2), []);
    sql(home.path())
        .execute("DELETE FROM journal WHERE first = 30", [])
        .unwrap();
    assert_eq!(differences(0), [("entries 30 to 30".to_owned(), 0, 1)]);
    sql(home.path())
        .execute("DELETE FROM journal WHERE first >= 30", [])
        .unwrap();
    assert_eq!(differences(0), [("the last entry and leaf".to_owned(), 29, last)]);
    // Accepted by an operator, the gap is none that has to be explained.
    let accepted = Options {
        accept_loss: true,
        ..Options::default()
    };
    open(home.path(), accepted).stop();
    assert_eq!(differences(0), []);
}

#[test]
fn another_key_s_log_is_not_continued() {
    let home = home_with(5);
    grow(home.path());
    let other = Arc::new(SigningKey::new("log.example/audit", &[4; 32]).unwrap());
    let error = Log::open(&audit(home.path()), other, &reader(home.path())).unwrap_err();
    assert!(
        matches!(error, AuditError::Checkpoint(_)) && error.is_for_good(),
        "{error}"
    );
}

#[test]
fn the_thread_follows_a_running_store_and_ends_with_the_last_entry() {
    let home = tempfile::tempdir().unwrap();
    let world = create(home.path(), Options::default(), None);
    let reader = world.store.reader().unwrap();
    let follower = Follower::start(audit(home.path()), key(), reader).unwrap();
    sign_many(&world, "k", 20);
    let last = world.store.reader().unwrap().last_entry().unwrap().0;
    let patience = std::time::Duration::from_millis(5);
    for _ in 0..4_000 {
        if follower.state().size() >= last {
            break;
        }
        std::thread::sleep(patience);
    }
    assert!(follower.state().size() >= last, "{:?}", follower.state().fault());
    sign_many(&world, "late", 3);
    world.stop();
    follower.stop();
    assert_eq!(follower.state().size(), last + 3);
    judge(home.path(), None).unwrap();
}

#[test]
fn subtrees_of_an_older_size_are_found_in_the_tiles_of_a_larger_one() {
    let home = home_with(300);
    grow(home.path());
    let folder = Folder::at(audit(home.path()));
    for size in [1, 77, 256, 300] {
        let root = store::audit::root(&mut folder.nodes(size), size).unwrap();
        let mut now = folder.nodes(folder.stated_size());
        assert_eq!(store::audit::root(&mut now, size).unwrap(), root);
        let leaf = now.node(0, 0).unwrap();
        let path = inclusion(&mut folder.nodes(size), 0, size).unwrap();
        store::audit::check_inclusion(leaf, 0, &path, size, root).unwrap();
    }
}
