//! Bad days: a full disk, a file cut short, a byte changed, two processes.

use protocol::error_code::Code;
use store::{Known, Options, Outcome, Record, Store, StoreError};

use crate::support::{create, open};

fn reopen(folder: &std::path::Path) -> Result<Store<u32>, StoreError> {
    Store::open(folder, Options::default())
}

#[test]
fn a_full_disk_refuses_frees_the_keys_and_keeps_reading() {
    let folder = tempfile::tempdir().unwrap();
    let small = Options {
        bytes_max: Some(400 * 1024),
        ..Options::default()
    };
    let world = create(folder.path(), small, None);
    let mut done = Vec::new();
    let refused = loop {
        let key = format!("k{}", done.len());
        match world.sign(&key) {
            Outcome::Done { sequence, .. } => done.push(sequence),
            Outcome::Failed(refusal) => break (key, refusal),
            Outcome::Pending => panic!("pending"),
        }
        assert!(done.len() < 10_000, "the limit is never reached");
    };
    assert_eq!(refused.1.code, Code::StorageFull);
    assert!(world.store.is_full());
    assert_eq!(world.store.index().look_up(world.key(&refused.0)), Known::Absent);
    assert_eq!(world.used(), done.len() as u64);
    assert!(world.store.reader().unwrap().entry(done[0]).unwrap().is_some());
    world.stop();

    // With room again everything is there and the refused key can be used.
    let world = open(folder.path(), Options::default());
    assert_eq!(world.used(), done.len() as u64);
    assert!(matches!(world.sign(&refused.0), Outcome::Done { .. }));
}

/// Makes a store whose entries are all in the database file, none in the WAL.
fn filled(folder: &std::path::Path) -> u64 {
    let world = create(folder, Options::default(), None);
    let mut last = 0;
    for n in 0..200 {
        let Outcome::Done { sequence, .. } = world.sign(&format!("k{n}")) else {
            panic!("not done")
        };
        last = sequence.0;
    }
    world.stop();
    last
}

#[test]
fn missing_entries_are_noticed_and_only_an_operator_can_accept_that() {
    let folder = tempfile::tempdir().unwrap();
    let last = filled(folder.path());
    let database = rusqlite::Connection::open(folder.path().join("cinnabar.db")).unwrap();
    let lost = database
        .execute("DELETE FROM journal WHERE first > ?", [(last - 50).cast_signed()])
        .unwrap() as u64;
    drop(database);
    let error = reopen(folder.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::EntriesLost { journal, tail } if tail == last && journal == last - lost)
    );
    assert_eq!(error.refusal().code, Code::DataCorrupt);

    let accepted = Options {
        accept_loss: true,
        ..Options::default()
    };
    let world = open(folder.path(), accepted);
    let entries = world.entries();
    let noted = entries.iter().find_map(|entry| match entry.record {
        Record::LossAccepted { first, last } => Some((first, last)),
        _ => None,
    });
    assert_eq!(noted, Some((last - lost + 1, last)));
    let Outcome::Done { sequence, .. } = world.sign("new") else {
        panic!("not done")
    };
    assert!(sequence.0 > last, "numbers of lost entries are not used again");
    world.stop();
    assert!(reopen(folder.path()).is_ok(), "accepted once, for good");
}

#[test]
fn a_database_file_cut_short_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let path = folder.path().join("cinnabar.db");
    let length = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(length / 2).unwrap();
    let error = reopen(folder.path()).unwrap_err();
    assert_eq!(error.refusal().code, Code::DataCorrupt, "{error}");
}

#[test]
fn a_write_ahead_log_cut_short_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    (0..50).for_each(|n| drop(world.sign(&format!("k{n}"))));
    // As after a crash: the files as they are, with the last frames of the log missing.
    for name in ["cinnabar.db", "cinnabar.db-wal", "tail"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let log = std::fs::OpenOptions::new()
        .write(true)
        .open(copy.path().join("cinnabar.db-wal"))
        .unwrap();
    log.set_len(log.metadata().unwrap().len() - 4096 * 3).unwrap();
    assert!(matches!(reopen(copy.path()), Err(StoreError::EntriesLost { .. })));
    world.stop();
}

#[test]
fn a_changed_byte_in_an_entry_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let last = filled(folder.path());
    let database = rusqlite::Connection::open(folder.path().join("cinnabar.db")).unwrap();
    let sql =
        "UPDATE journal SET records = CAST(replace(records, 'sealed', 'sealeD') AS BLOB) WHERE first = ?";
    assert_eq!(database.execute(sql, [(last - 3).cast_signed()]).unwrap(), 1);
    drop(database);
    let error = reopen(folder.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::Corrupt { sequence, .. } if sequence == last - 3),
        "{error}"
    );
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    assert!(matches!(reopen(folder.path()), Err(StoreError::Locked(_))));
    world.stop();
    assert!(reopen(folder.path()).is_ok());
}
