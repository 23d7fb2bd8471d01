//! Software lanes.

use hsm_pool::job::JobError;
use hsm_pool::soft;
use protocol::algorithm::KeyKind;
use protocol::ids::KeyRow;

use crate::support::{TestHome, assert_verifies, job, soon, world};

#[test]
fn many_jobs_of_every_kind_come_back_once_each() {
    let world = world(Vec::new());
    let mut made = Vec::new();
    for (row, kind) in (1..).zip(KeyKind::ALL) {
        let key = soft::generate(kind).unwrap();
        world.keys.add(row, &key.public_key, Some(&key.pkcs8));
        made.push((KeyRow(row), kind, key));
    }
    let mut sent = 0;
    for round in 0..4 {
        for (row, kind, _) in &made {
            for &algorithm in kind.algorithms() {
                sent += 1;
                assert!(
                    world
                        .pool
                        .submit(job(sent + round, *row, algorithm, TestHome::Software))
                        .is_ok()
                );
            }
        }
    }
    for _ in 0..sent {
        let done = world.next();
        let (_, _, key) = made.iter().find(|(row, ..)| *row == done.work.key).unwrap();
        assert_verifies(&key.public_key, &done.work, &done.result.unwrap());
    }
    world.pool.stop();
    assert!(world.finished.is_empty());
}

#[test]
fn an_expired_job_is_not_started_and_a_missing_key_is_told() {
    let world = world(Vec::new());
    let mut late = job(1, KeyRow(9), KeyKind::P256.algorithms()[0], TestHome::Software);
    late.deadline = soon(0);
    assert!(world.pool.submit(late).is_ok());
    assert_eq!(world.next().result, Err(JobError::Expired));
    assert!(
        world
            .pool
            .submit(job(
                2,
                KeyRow(9),
                KeyKind::P256.algorithms()[0],
                TestHome::Software
            ))
            .is_ok()
    );
    assert_eq!(world.next().result, Err(JobError::Key("no such key".into())));
}
