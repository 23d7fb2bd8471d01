//! Backups and restores: what was signed before is there byte for byte, what was signed after is reported as lost, and no
//! number is used twice.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AuthorityName, Sequence};
use store::{
    BackupRequest, CertificateChange, Change, Claim, Depth, ENTRIES_SKIPPED, Options, Outcome, Record,
    RestoreReport, RestoreRequest, StoreError,
};

use crate::support::{World, create, open};

fn options() -> Options {
    Options {
        // Small enough for run files to be there.
        flush_keys: 16,
        ..Options::default()
    }
}

fn seal(text: &[u8]) -> Result<Vec<u8>, Refusal> {
    Ok(text.iter().rev().copied().collect())
}

fn open_seal(text: &[u8], sealed: &[u8]) -> Result<(), Refusal> {
    let same = sealed.iter().rev().eq(text);
    same.then_some(())
        .ok_or_else(|| Refusal::new(Code::Usage, "another seal"))
}

fn back_up(home: &Path, to: &Path) -> Result<store::Manifest, Refusal> {
    let request = BackupRequest {
        home,
        to,
        version: "test",
        now: clock::wall(),
        seal: &seal,
    };
    store::backup(&request).map_err(|error| error.refusal())
}

fn restore(from: &Path, home: &Path, tail: Option<&Path>) -> Result<RestoreReport, Refusal> {
    let request = RestoreRequest {
        from,
        home,
        tail,
        skip: ENTRIES_SKIPPED,
        actor: "test",
        now: clock::wall(),
        open_seal: &open_seal,
    };
    store::restore(&request).map_err(|error| error.refusal())
}

/// A scratch folder with a place for a store, a backup and what is made of it.
struct Places {
    _folder: tempfile::TempDir,
    home: PathBuf,
    copy: PathBuf,
    new: PathBuf,
}

fn places() -> Places {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    Places {
        home: at("home"),
        copy: at("copy"),
        new: at("new"),
        _folder: folder,
    }
}

fn sequence(outcome: &Outcome) -> Sequence {
    let Outcome::Done { sequence, .. } = outcome else {
        panic!("{outcome:?}")
    };
    *sequence
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// Signs on one thread until told to stop, and says how far it came.
fn sign_until(world: &World, stop: &AtomicBool) -> usize {
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        world.sign(&key(number));
        number += 1;
    }
    number
}

#[test]
fn what_was_signed_before_a_backup_is_in_it_and_the_rest_is_lost_and_said_to_be() {
    let places = places();
    let world = create(&places.home, options(), None);
    let stop = AtomicBool::new(false);
    let (signed, manifest) = std::thread::scope(|scope| {
        let signing = scope.spawn(|| sign_until(&world, &stop));
        while world.used() < 100 {
            std::thread::yield_now();
        }
        let manifest = back_up(&places.home, &places.copy);
        stop.store(true, Ordering::Release);
        (signing.join().unwrap(), manifest.unwrap())
    });
    let before = world.entries();
    let lost = before.last().unwrap().sequence.0 - manifest.last_entry;
    world.stop();

    let report = restore(&places.copy, &places.new, Some(&places.home.join("tail"))).unwrap();
    assert_eq!((report.epoch, report.last_entry), (1, manifest.last_entry));
    assert_eq!(report.lost_entries.unwrap_or(0), lost);
    assert_eq!(report.first_entry, report.last_entry + lost + 1 + ENTRIES_SKIPPED);

    let world = open(&places.new, options());
    let restored = world.entries();
    let kept = manifest.last_entry as usize;
    assert_eq!(
        restored[..kept],
        before[..kept],
        "the same entries, byte for byte"
    );
    assert!(
        restored[kept..]
            .iter()
            .all(|entry| entry.sequence.0 >= report.first_entry)
    );
    let gap = Record::LossAccepted {
        first: manifest.last_entry + 1,
        last: report.first_entry - 1,
    };
    assert_eq!(restored.iter().filter(|entry| entry.record == gap).count(), 1);
    let mut recorded = 0;
    for number in 0..signed {
        match world.claim(&key(number), 1) {
            Claim::Recorded(sequence) => {
                assert!(sequence.0 <= manifest.last_entry);
                recorded += 1;
            }
            other => assert_eq!(other, Claim::Fresh),
        }
    }
    assert_eq!(
        recorded,
        world.used(),
        "as many keys are remembered as units are counted"
    );
    assert!(recorded >= 100);
    assert!(sequence(&world.sign("after")).0 > report.first_entry);
    let reader = world.store.reader().unwrap();
    reader.check_journal().unwrap();
    assert_eq!(
        reader.reconcile(&reader.months().unwrap()).unwrap().differences,
        []
    );
    world.stop();
}

#[test]
fn a_backup_of_a_restored_folder_opens_the_epoch_after_the_next() {
    let places = places();
    let world = create(&places.home, options(), None);
    world.sign("first");
    world.stop();
    back_up(&places.home, &places.copy).unwrap();
    restore(&places.copy, &places.new, None).unwrap();
    let world = open(&places.new, options());
    let second = sequence(&world.sign("second"));
    world.stop();
    let (copy, newest) = (places.copy.with_extension("2"), places.new.with_extension("2"));
    back_up(&places.new, &copy).unwrap();
    let report = restore(&copy, &newest, None).unwrap();
    assert_eq!(report.epoch, 2);
    assert!(report.first_entry > second.0 + ENTRIES_SKIPPED);
    let verified = store::verify(&copy, Depth::Everything, &open_seal).unwrap();
    assert_eq!((verified.epoch, verified.signatures), (1, 2));
    let world = open(&newest, options());
    assert!(matches!(world.claim("first", 1), Claim::Recorded(_)));
    assert_eq!(world.claim("second", 1), Claim::Recorded(second));
    world.stop();
}

fn reserve(world: &World, first: u64) -> Result<(), StoreError> {
    let reserve = CertificateChange::ReserveSerials {
        authority: AuthorityName::new("tsa").unwrap(),
        first,
        count: 10,
    };
    world.store.change("test", Change::Certificates(reserve))
}

#[test]
fn serial_numbers_and_list_numbers_that_the_lost_folder_may_have_used_are_left_out() {
    let places = places();
    let issuer = AuthorityName::new("ca").unwrap();
    let world = create(&places.home, options(), None);
    reserve(&world, 1).unwrap();
    let list = CertificateChange::KeepCrl {
        issuer: issuer.clone(),
        number: 5,
        base: None,
        der: vec![1],
    };
    world.store.change("test", Change::Certificates(list)).unwrap();
    back_up(&places.home, &places.copy).unwrap();
    // What the folder gives out until it is lost.
    reserve(&world, 11).unwrap();
    world.stop();
    let now = clock::wall();
    let report = restore(&places.copy, &places.new, None).unwrap();
    assert_eq!(report.first_serials, [("tsa".to_owned(), 1 << 40)]);
    assert_eq!(report.next_lists, [("ca".to_owned(), 1 << 32)]);
    let world = open(&places.new, options());
    assert!(
        reserve(&world, 11).is_err(),
        "the numbers after the backup's are not given out"
    );
    reserve(&world, 1 << 40).unwrap();
    let reader = world.store.reader().unwrap();
    let known = reader.serial_blocks(&AuthorityName::new("tsa").unwrap()).unwrap();
    assert!(
        known.reserved_at >= now,
        "no time stamp is older than one that may have been made"
    );
    assert_eq!(reader.next_crl(&issuer).unwrap(), 1 << 32);
    world.stop();
}

#[test]
fn what_cannot_be_restored_is_refused_and_nothing_is_written() {
    let places = places();
    let world = create(&places.home, options(), None);
    for number in 0..40 {
        world.sign(&key(number));
    }
    world.stop();
    let manifest = back_up(&places.home, &places.copy).unwrap();
    assert_eq!(
        back_up(&places.home, &places.copy).unwrap_err().code,
        Code::AlreadyExists
    );
    assert_eq!(
        restore(&places.copy, &places.home, None).unwrap_err().code,
        Code::AlreadyExists
    );
    let refused = |what: &str| {
        let refusal = restore(&places.copy, &places.new, None).unwrap_err();
        assert!(!places.new.join("cinnabar.db").exists());
        assert!(refusal.message.contains(what), "{refusal}");
        refusal.code
    };
    for file in &manifest.files {
        let path = places.copy.join(&file.path);
        let sound = std::fs::read(&path).unwrap();
        let mut changed = sound.clone();
        changed[sound.len() / 2] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert_eq!(
            refused("not as the manifest says"),
            Code::DataCorrupt,
            "{}",
            file.path
        );
        std::fs::write(&path, &sound).unwrap();
    }
    let path = places.copy.join("manifest.json");
    let sound = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, sound.replace("\"epoch\": 0", "\"epoch\": 7")).unwrap();
    assert_eq!(refused("not sealed"), Code::Usage);
    std::fs::write(&path, &sound).unwrap();
    std::fs::remove_file(places.copy.join(&manifest.files[0].path)).unwrap();
    assert_eq!(refused(&manifest.files[0].path), Code::File);
}

#[test]
fn a_restore_that_did_not_end_leaves_a_folder_that_does_not_serve() {
    let places = places();
    let world = create(&places.home, options(), None);
    world.sign("a");
    world.stop();
    back_up(&places.home, &places.copy).unwrap();
    restore(&places.copy, &places.new, None).unwrap();
    // The moment before the database gets its name.
    std::fs::remove_file(places.new.join("cinnabar.db")).unwrap();
    let opened = store::Store::<u32>::open(&places.new, options());
    assert!(
        matches!(opened, Err(StoreError::EntriesLost { .. })),
        "{opened:?}"
    );
}

#[test]
fn a_folder_is_restored_beside_its_master_key_and_beside_nothing_else() {
    let places = places();
    create(&places.home, options(), None).stop();
    back_up(&places.home, &places.copy).unwrap();
    std::fs::create_dir(&places.new).unwrap();
    std::fs::write(places.new.join("master.key"), [1; 32]).unwrap();
    std::fs::write(places.new.join("notes"), "mine").unwrap();
    assert_eq!(
        restore(&places.copy, &places.new, None).unwrap_err().code,
        Code::AlreadyExists
    );
    std::fs::remove_file(places.new.join("notes")).unwrap();
    restore(&places.copy, &places.new, None).unwrap();
    assert_eq!(std::fs::read(places.new.join("master.key")).unwrap(), [1; 32]);
}
