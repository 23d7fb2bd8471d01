//! Months that are kept no longer: they leave the database for a file, their keys are forgotten, and everything still
//! adds up and is one chain, also after a restart and in a backup.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::Sequence;
use store::{Change, Claim, Depth, KeepChange, Options, StoreError};

use crate::support::{World, create, open};

const DAY: u64 = 24 * 3_600_000;
/// Noon of 15 January 2020 in Shanghai.
static NOW: AtomicU64 = AtomicU64::new(1_579_060_800_000);

fn now() -> UnixMillis {
    UnixMillis(NOW.load(Ordering::Acquire))
}

fn options() -> Options {
    Options {
        flush_keys: 8,
        clock: now,
        ..Options::default()
    }
}

fn key(month: usize, number: usize) -> String {
    format!("{month}-{number}")
}

fn archive(world: &World, home: &std::path::Path) -> Vec<u32> {
    let reader = world.store.reader().unwrap();
    let written = reader.write_archives(home, now(), 37).unwrap();
    for archived in &written {
        let change = Change::Keep(KeepChange::Archive(archived.clone()));
        world.store.change("test", change).unwrap();
    }
    while world.store.trim_journal().unwrap() {}
    written.iter().map(|archived| archived.month).collect()
}

fn check(world: &World, home: &std::path::Path) {
    let reader = world.store.reader().unwrap();
    assert_eq!(reader.verify_archives(home).unwrap().len(), 2);
    assert_eq!(reader.months().unwrap(), [202_003, 202_004, 202_304]);
    assert_eq!(
        reader.reconcile(&reader.months().unwrap()).unwrap().differences,
        []
    );
    let tenant = world.store.directory().tenant("t").unwrap().row;
    let refused = reader.statement(tenant, 202_002);
    let Err(StoreError::Refused(refusal)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.code, Code::MonthInvalid);
    assert!(refusal.message.contains("archive/202002-"), "{refusal}");
    assert_eq!(reader.statement(tenant, 202_003).unwrap().charged(), 20);
    assert_eq!(reader.entry(Sequence(1)).unwrap(), None);
    for number in 0..20 {
        assert!(
            matches!(world.claim(&key(2, number), 1), Claim::Recorded(_)),
            "{number}"
        );
    }
    assert_eq!(world.used(), 80, "what was used stays counted");
}

#[test]
fn months_beyond_the_retention_leave_the_database_and_stay_provable() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let world = create(&home, options(), None);
    for month in 0..4 {
        for number in 0..20 {
            world.sign(&key(month, number));
        }
        NOW.fetch_add(31 * DAY, Ordering::AcqRel);
    }
    assert!(archive(&world, &home).is_empty());
    // To April 2023: 37 whole months before it begin with March 2020.
    NOW.fetch_add(1_070 * DAY, Ordering::AcqRel);
    assert_eq!(archive(&world, &home), [202_001, 202_002]);
    check(&world, &home);
    assert_eq!(world.claim(&key(0, 3), 1), Claim::Fresh, "its key is forgotten");
    world.stop();

    let world = open(&home, options());
    check(&world, &home);
    assert!(archive(&world, &home).is_empty());
    let copy = folder.path().join("copy");
    let request = store::BackupRequest {
        home: &home,
        to: &copy,
        version: "test",
        now: now(),
        seal: &|_| Ok(Vec::new()),
    };
    store::backup(&request).unwrap();
    world.stop();
    let verified = store::verify(&copy, Depth::Everything, &|_, _| Ok(())).unwrap();
    assert_eq!((verified.archives, verified.signatures), (2, 40));

    let new = folder.path().join("new");
    let request = store::RestoreRequest {
        from: &copy,
        home: &new,
        tail: None,
        skip: 10,
        actor: "test",
        now: now(),
        open_seal: &|_, _| Ok(()),
    };
    store::restore(&request).unwrap();
    let world = open(&new, options());
    check(&world, &new);
    world.stop();
}
