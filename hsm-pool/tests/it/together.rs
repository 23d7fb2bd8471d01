//! Signatures eight at a time, judged by the code that makes them one at a time.
//!
//! `TEST_CRYPTO_MB` names the library (`scripts/crypto-mb.sh` makes it); on a machine that cannot run it there is nothing
//! to judge, and the tests say so.

use std::path::PathBuf;
use std::sync::Arc;

use hsm_pool::multi::{Multi, Task, WIDTH};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, InputKind, KeyKind};
use protocol::ids::KeyRow;
use protocol::verify::SM2_DEFAULT_USER_ID;

use crate::support::{TestHome, assert_verifies, job, world_with};

/// The library, where this machine has one.
fn multi() -> Option<Arc<Multi>> {
    let Some(path) = std::env::var_os("TEST_CRYPTO_MB").filter(|path| !path.is_empty()) else {
        eprintln!("no TEST_CRYPTO_MB: nothing is signed eight at a time here");
        return None;
    };
    Some(Arc::new(Multi::load(&PathBuf::from(path), None).unwrap()))
}

fn key(kind: KeyKind) -> SoftKey {
    let made = soft::generate(kind).unwrap();
    SoftKey::new(kind, &made.pkcs8, &made.public_key)
        .unwrap()
        .with_numbers(&made.pkcs8, &made.public_key)
}

fn input(algorithm: Algorithm, number: usize) -> Vec<u8> {
    let text = format!("text {number}");
    match algorithm.input() {
        InputKind::Digest(hash) => hash.digest(text.as_bytes()).to_vec(),
        InputKind::Message(_) => text.into_bytes(),
    }
}

/// How many signatures of the quick kinds: `TEST_MULTI_SIGNATURES` (4,000) for each of P-256 and SM2.
fn count() -> usize {
    std::env::var("TEST_MULTI_SIGNATURES").map_or(4_000, |text| text.parse().unwrap())
}

#[test]
fn every_algorithm_with_every_number_of_jobs_makes_signatures_that_verify() {
    let Some(multi) = multi() else { return };
    for kind in KeyKind::ALL {
        let keys: Vec<_> = (0..3).map(|_| key(kind)).collect();
        for (round, &algorithm) in kind.algorithms().iter().enumerate() {
            for jobs in 1..=WIDTH {
                let inputs: Vec<_> = (0..jobs).map(|at| input(algorithm, 10 * round + at)).collect();
                let task = |at: usize| Task {
                    key: &keys[at % keys.len()],
                    algorithm,
                    input: &inputs[at],
                    user_id: SM2_DEFAULT_USER_ID,
                };
                let tasks: Vec<_> = (0..jobs).map(task).collect();
                let made = multi.sign(kind, &tasks);
                assert_eq!(made.len(), jobs);
                for (task, made) in tasks.iter().zip(made) {
                    let signature = made.unwrap_or_else(|| panic!("{algorithm}, {jobs} jobs"));
                    let good = task.key.check(algorithm, task.input, task.user_id, &signature);
                    assert!(good.is_ok(), "{algorithm}, {jobs} jobs");
                    let other = input(algorithm, 999);
                    assert!(
                        task.key
                            .check(algorithm, &other, task.user_id, &signature)
                            .is_err()
                    );
                }
            }
        }
    }
}

#[test]
fn many_random_signatures_verify_and_no_nonce_comes_twice() {
    let Some(multi) = multi() else { return };
    for (kind, algorithm) in [
        (KeyKind::P256, Algorithm::EcdsaP256Sha256),
        (KeyKind::Sm2, Algorithm::Sm2Sm3E),
    ] {
        let keys: Vec<_> = (0..WIDTH).map(|_| key(kind)).collect();
        let mut seen = std::collections::HashSet::new();
        for call in 0..count().div_ceil(WIDTH) {
            let inputs: Vec<_> = (0..WIDTH).map(|at| input(algorithm, call * WIDTH + at)).collect();
            let tasks: Vec<_> = keys
                .iter()
                .zip(&inputs)
                .map(|(key, input)| Task {
                    key,
                    algorithm,
                    input,
                    user_id: b"",
                })
                .collect();
            for (task, made) in tasks.iter().zip(multi.sign(kind, &tasks)) {
                let signature = made.unwrap();
                assert!(task.key.check(algorithm, task.input, b"", &signature).is_ok());
                let pair = protocol::verify::der_to_pair(&signature, 32).unwrap();
                assert!(seen.insert(pair[..32].to_vec()), "r twice");
            }
        }
    }
}

#[test]
fn the_same_digest_is_never_signed_with_the_same_nonce() {
    let Some(multi) = multi() else { return };
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Sm2] {
        let algorithm = kind.algorithms()[0];
        let (key, input) = (key(kind), input(algorithm, 1));
        let task = Task {
            key: &key,
            algorithm,
            input: &input,
            user_id: b"",
        };
        let made: std::collections::HashSet<_> = multi.sign(kind, &[task; WIDTH]).into_iter().collect();
        assert_eq!(made.len(), WIDTH, "{kind}");
    }
}

#[test]
fn lanes_with_the_library_answer_every_job_once_whatever_the_mixture() {
    let Some(multi) = multi() else { return };
    let world = world_with(Vec::new(), Some(multi));
    let mut made = Vec::new();
    for (row, kind) in (1..).zip(KeyKind::ALL) {
        let key = soft::generate(kind).unwrap();
        world.keys.add(row, &key.public_key, Some(&key.pkcs8));
        made.push((KeyRow(row), kind, key));
    }
    let mut sent = 0;
    for (row, kind, _) in made.iter().cycle().take(300) {
        let algorithms = kind.algorithms();
        sent += 1;
        let job = job(
            sent,
            *row,
            algorithms[sent % algorithms.len()],
            TestHome::Software,
        );
        assert!(world.pool.submit(job).is_ok());
    }
    let (row, ..) = made[0];
    for _ in 0..300 {
        sent += 1;
        let job = job(sent, row, Algorithm::EcdsaP256Sha256, TestHome::Software);
        assert!(world.pool.submit(job).is_ok());
    }
    // A key that does not exist spoils nothing for those it is signed with.
    let missing = job(0, KeyRow(99), Algorithm::EcdsaP256Sha256, TestHome::Software);
    assert!(world.pool.submit(missing).is_ok());
    let mut refused = 0;
    for _ in 0..=sent {
        let done = world.next();
        match made.iter().find(|(row, ..)| *row == done.work.key) {
            Some((_, _, key)) => assert_verifies(&key.public_key, &done.work, &done.result.unwrap()),
            None => refused += usize::from(done.result.is_err()),
        }
    }
    assert_eq!(refused, 1);
    let together = &world.pool.counters().together;
    assert!(together.load(std::sync::atomic::Ordering::Relaxed) > 0);
    world.pool.stop();
    assert!(world.finished.is_empty());
}
