//! Commits of 1, 10, 100 and 1,000 signatures, each with its claim, its sync and its delivery.

use benches::{REQUEST, attempt, parties, random_key, store};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::bounded;
use smallvec::SmallVec;
use store::{Claim, Delivery, Draft, Released};

fn commits(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let (sender, delivered) = bounded(64);
    let deliver = move |batch: Vec<Delivery<u32>>| {
        let _ = sender.send(batch.len());
    };
    let store = store(folder.path(), None, deliver);
    let (app, credential) = parties(&store);
    let mut number = 0;
    let mut group = c.benchmark_group("journal");
    for size in [1usize, 10, 100, 1000] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("commit of {size}"), |b| {
            b.iter_batched(
                || {
                    let one = |_| {
                        number += 1;
                        let attempt = attempt(&app, &credential, &random_key(number));
                        assert_eq!(store.index().claim(attempt.fingerprint, REQUEST, 1), Claim::Fresh);
                        Draft::Signed(
                            attempt,
                            Released::new(SmallVec::from_slice(&[3; 71]), vec![4; 100]),
                        )
                    };
                    (0..size).map(one).collect::<Vec<_>>()
                },
                |drafts| {
                    store.commit(drafts).expect("the store runs");
                    let mut done = 0;
                    while done < size {
                        done += delivered.recv().expect("a delivery");
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    store.stop();
}

criterion_group!(benches, commits);
criterion_main!(benches);
