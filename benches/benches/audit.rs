//! What the audit log costs: an entry taken in from the journal (read, salted, committed to, hashed, written), alone and in
//! rounds; and a proof.

use std::sync::Arc;

use benches::{REQUEST, attempt, parties, random_key, store};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::bounded;
use protocol::clock::UnixMillis;
use smallvec::SmallVec;
use store::audit::{Edge, Folder, Log, Salt, SigningKey, commitment, inclusion, leaf_of};
use store::{Claim, Delivery, Draft, Reader, Released};

const ENTRIES: usize = 100_000;
const COMMIT: usize = 200;

/// A journal of [`ENTRIES`] signatures, in commits of [`COMMIT`].
fn journal(folder: &std::path::Path) {
    let (sender, delivered) = bounded(64);
    let deliver = move |batch: Vec<Delivery<u32>>| {
        let _ = sender.send(batch.len());
    };
    let store = store(folder, None, deliver);
    let (app, credential) = parties(&store);
    for commit in 0..ENTRIES / COMMIT {
        let one = |at| {
            let attempt = attempt(&app, &credential, &random_key((commit * COMMIT + at) as u64));
            assert_eq!(store.index().claim(attempt.fingerprint, REQUEST, 1), Claim::Fresh);
            Draft::Signed(
                attempt,
                Released::new(SmallVec::from_slice(&[3; 71]), vec![4; 100]),
            )
        };
        store
            .commit((0..COMMIT).map(one).collect())
            .expect("the store runs");
        let mut done = 0;
        while done < COMMIT {
            done += delivered.recv().expect("a delivery");
        }
    }
    store.stop();
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::new("bench", &[1; 32]).expect("a key"))
}

fn arithmetic(c: &mut Criterion) {
    let record = [5; 260];
    let mut group = c.benchmark_group("audit");
    group.throughput(Throughput::Elements(1));
    group.bench_function("leaf: commitment, hash and nodes", |b| {
        let mut edge = Edge::default();
        b.iter(|| {
            let commitment = commitment(Salt([1; 16]), UnixMillis(1), &record);
            edge.push(leaf_of(&commitment), |_, _| -> Result<(), ()> { Ok(()) })
        });
    });
    group.finish();
}

fn growing(c: &mut Criterion) {
    let home = tempfile::tempdir().expect("a folder");
    journal(home.path());
    let reader = Reader::beside(home.path()).expect("the journal");
    let mut group = c.benchmark_group("audit");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.sample_size(10);
    let open = || {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open(folder.path(), key(), &reader).expect("a log");
        (folder, log)
    };
    group.bench_function(format!("grow by {ENTRIES} in commits of {COMMIT}"), |b| {
        b.iter_batched(
            open,
            |(folder, mut log)| {
                while log.grow(&reader).expect("it grows") > 0 {}
                (folder, log)
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(1));
    let (folder, mut log) = open();
    while log.grow(&reader).expect("it grows") > 0 {}
    let size = log.signed().checkpoint.size;
    let files = Folder::at(folder.path());
    let mut index = 0;
    group.bench_function("proof out of the tiles", |b| {
        b.iter(|| {
            index = (index + 7_919) % size;
            inclusion(&mut files.nodes(size), index, size).expect("the tiles")
        });
    });
    group.finish();
}

criterion_group!(benches, arithmetic, growing);
criterion_main!(benches);
