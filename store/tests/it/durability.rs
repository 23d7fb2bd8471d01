//! What was committed is there after the process is gone, exactly once.

use protocol::error_code::{Code, Refusal};
use protocol::ids::Sequence;
use store::{Claim, Draft, Known, Options, Outcome, Record, Settled, State};

use crate::support::{create, open};

#[test]
fn a_recorded_signature_is_replayed_after_a_restart_and_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let Outcome::Done { sequence, signature } = world.sign("k") else {
        panic!("not done")
    };
    assert_eq!(&signature[..], b"signature");
    world.stop();

    let world = open(folder.path(), Options::default());
    assert_eq!(world.claim("k", 1), Claim::Recorded(sequence));
    let entry = world.store.reader().unwrap().entry(sequence).unwrap().unwrap();
    let Record::Signature {
        item, sealed, sha256, ..
    } = entry.record
    else {
        panic!("not a signature")
    };
    assert_eq!((&*item.key, &sealed[..]), ("k", &b"sealed"[..]));
    assert_eq!(sha256, store::sha256(b"signature"));
    assert_eq!(world.used(), 1);
    let credential = world
        .store
        .directory()
        .app("a")
        .unwrap()
        .tenant
        .credential("c")
        .unwrap();
    let chain = world.store.reader().unwrap().chain(credential.row).unwrap();
    assert_eq!(chain, [b"certificate".to_vec(), b"issuer".to_vec()]);
}

#[test]
fn keys_move_to_run_files_and_are_still_known() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        flush_keys: 50,
        ..Options::default()
    };
    let world = create(folder.path(), options.clone(), None);
    for n in 0..500 {
        world.sign(&format!("k{n}"));
    }
    world.stop();
    let world = open(folder.path(), options);
    assert!(std::fs::read_dir(folder.path().join("index")).unwrap().count() > 0);
    assert!(world.store.index().len_in_memory() < 100);
    for n in 0..500 {
        assert!(
            matches!(world.claim(&format!("k{n}"), 1), Claim::Recorded(_)),
            "k{n}"
        );
    }
    assert_eq!(world.claim("new", 1), Claim::Fresh);
    assert_eq!(world.used(), 500);
}

#[test]
fn run_files_can_be_deleted_and_come_back_from_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        flush_keys: 10,
        ..Options::default()
    };
    let world = create(folder.path(), options.clone(), None);
    for n in 0..100 {
        world.sign(&format!("k{n}"));
    }
    world.stop();
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let world = open(folder.path(), options);
    assert!((0..100).all(|n| matches!(world.claim(&format!("k{n}"), 1), Claim::Recorded(_))));
}

#[test]
fn pending_becomes_done_when_the_device_delivers_after_all() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let attempt = world.attempt("k");
    assert_eq!(world.claim("k", 7), Claim::Fresh);
    assert_eq!(world.store.index().ask_pending(attempt.fingerprint), Some(true));
    world.store.commit(vec![Draft::Pending(attempt.clone())]).unwrap();
    assert_eq!(world.next(), Outcome::Pending);
    assert_eq!(world.used(), 0);
    assert_eq!(world.claim("k", 8), Claim::Joined);
    world
        .store
        .commit(vec![crate::support::signed(&attempt)])
        .unwrap();
    assert!(matches!(world.next(), Outcome::Done { .. }));
    assert_eq!(world.used(), 1);
    world.stop();
    let world = open(folder.path(), Options::default());
    assert!(
        matches!(world.claim("k", 1), Claim::Recorded(_)),
        "and a restart does not fail it"
    );
}

#[test]
fn pending_and_its_end_in_one_batch_end_well_in_either_order() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    for (key, pending_first) in [("a", true), ("b", false)] {
        let attempt = world.attempt(key);
        world.claim(key, 7);
        world.store.index().ask_pending(attempt.fingerprint);
        let mut drafts = vec![Draft::Pending(attempt.clone()), crate::support::signed(&attempt)];
        if !pending_first {
            drafts.reverse();
        }
        world.store.commit(drafts).unwrap();
        world.next();
    }
    assert_eq!(world.used(), 2);
    world.stop();
    let world = open(folder.path(), Options::default());
    for key in ["a", "b"] {
        assert!(matches!(world.claim(key, 1), Claim::Recorded(_)), "{key}");
    }
}

#[test]
fn what_was_pending_at_a_crash_is_failed_and_may_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let attempt = world.attempt("k");
    world.claim("k", 7);
    world.store.index().ask_pending(attempt.fingerprint);
    world.store.commit(vec![Draft::Pending(attempt)]).unwrap();
    assert_eq!(world.next(), Outcome::Pending);
    world.stop();

    let world = open(folder.path(), Options::default());
    let Known::Settled(Settled {
        sequence,
        state: State::Failed,
    }) = world.store.index().look_up(world.key("k"))
    else {
        panic!("not failed")
    };
    let entry = world.store.reader().unwrap().entry(sequence).unwrap().unwrap();
    assert!(matches!(entry.record, Record::Failed { code, .. } if code == Code::Restarted.wire()));
    assert!(matches!(world.sign("k"), Outcome::Done { .. }));
    assert_eq!(world.used(), 1);
}

#[test]
fn a_failure_after_pending_is_recorded_and_not_charged() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let attempt = world.attempt("k");
    world.claim("k", 7);
    world.store.index().ask_pending(attempt.fingerprint);
    world.store.commit(vec![Draft::Pending(attempt.clone())]).unwrap();
    world.next();
    world.claim("k", 8);
    let refusal = Refusal::new(Code::DeviceFailed, "the worker was killed");
    world
        .store
        .commit(vec![Draft::Failed(attempt, refusal.clone())])
        .unwrap();
    assert_eq!(world.next(), Outcome::Failed(refusal));
    assert_eq!(world.used(), 0);
    assert_eq!(world.claim("k", 9), Claim::Fresh);
}

#[test]
fn sequence_numbers_are_dense_and_the_chain_holds() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    (0..20).for_each(|n| drop(world.sign(&format!("k{n}"))));
    let entries = world.entries();
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.sequence.0).collect();
    assert_eq!(numbers, (1..=entries.len() as u64).collect::<Vec<_>>());
    assert_eq!(
        world.store.reader().unwrap().check_journal().unwrap(),
        Sequence(numbers.len() as u64)
    );
}
