//! The key index with 2,000,000 settled keys, nearly all of them in run files: what a new request's look-up costs, and
//! what a retry's does.

use std::hint::black_box;

use benches::{REQUEST, attempt, parties, random_key, store};
use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam_channel::bounded;
use smallvec::SmallVec;
use store::{Claim, Delivery, Draft, Fingerprint, Known, Released};

const KEYS: u64 = 2_000_000;
/// One in this many is looked up.
const STEP: usize = 37;
const BATCH: u64 = 1_000;

fn look_ups(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let (sender, delivered) = bounded(64);
    let deliver = move |batch: Vec<Delivery<u32>>| {
        let _ = sender.send(batch.len());
    };
    let store = store(folder.path(), None, deliver);
    let (app, credential) = parties(&store);
    for first in (0..KEYS).step_by(BATCH as usize) {
        let one = |number| {
            let attempt = attempt(&app, &credential, &random_key(number));
            assert_eq!(store.index().claim(attempt.fingerprint, REQUEST, 1), Claim::Fresh);
            Draft::Signed(
                attempt,
                Released::new(SmallVec::from_slice(&[3; 71]), vec![4; 100]),
            )
        };
        store
            .commit((first..first + BATCH).map(one).collect())
            .expect("the store runs");
        let mut done = 0;
        while done < BATCH as usize {
            done += delivered.recv().expect("a delivery");
        }
    }
    println!("keys in memory: {} of {KEYS}", store.index().len_in_memory());
    let keys: Vec<Fingerprint> = (0..2 * KEYS)
        .step_by(STEP)
        .map(|number| Fingerprint::of_call(app.row, &random_key(number)))
        .collect();
    let (known, unknown) = keys.split_at((KEYS as usize).div_ceil(STEP));
    for (name, keys) in [("known", known), ("unknown", unknown)] {
        let mut at = 0;
        c.bench_function(&format!("index/{name} key among 2,000,000"), |b| {
            b.iter(|| {
                at = (at + 1) % keys.len();
                let found = store.index().look_up(black_box(keys[at]));
                assert_eq!(found == Known::Absent, name == "unknown");
            });
        });
    }
    store.stop();
}

criterion_group!(benches, look_ups);
criterion_main!(benches);
