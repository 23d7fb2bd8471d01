//! A real SoftHSM2 token behind a worker process, and the same behind a module that misbehaves.
//! The tests that use the faulty module share its script file, so they are one test, in order.

use std::path::Path;
use std::time::Duration;

use hsm_pool::job::JobError;
use protocol::algorithm::{Algorithm, KeyKind};

use crate::support::{SOFTHSM, SoftHsm, World, assert_verifies, faulty_module, generate, job, soon, world};

#[test]
fn softhsm_signs_with_keys_made_in_it() {
    let token = SoftHsm::shared();
    let world = world(vec![token.device("soft", Path::new(SOFTHSM))]);
    for (row, kind) in (1..).zip([KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Ed25519]) {
        let (key, made) = generate(&world, "soft", row, kind);
        for &algorithm in kind.algorithms() {
            assert!(
                world
                    .pool
                    .submit_device("soft", job(1, key, algorithm, &made.object))
                    .is_ok()
            );
            let done = world.next();
            let signature = done.result.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
            assert_verifies(&made.public_key, &done.work, &signature);
        }
    }
    world.pool.stop();
}

#[test]
fn a_wrong_pin_latches_the_device_and_is_never_tried_again() {
    let token = SoftHsm::shared();
    let mut config = token.device("soft", Path::new(SOFTHSM));
    config.pin = "654321".into();
    let world = world(vec![config]);
    let state = |world: &World| {
        let (_, state, _) = world.pool.devices().next().unwrap();
        (
            state.pin_refused(),
            state.takes_jobs(),
            state.starts.load(std::sync::atomic::Ordering::Relaxed),
        )
    };
    let until = soon(10_000);
    while !state(&world).0 {
        assert!(soon(0) < until, "the device never latches");
        std::thread::yield_now();
    }
    assert_eq!(state(&world), (true, false, 1));
    let refused = world.pool.generate("soft", KeyKind::P256, "x").unwrap_err();
    assert_eq!(refused, JobError::Unavailable);
}

fn sign_one(world: &World, key: protocol::ids::KeyRow, object: &[u8]) -> Result<(), JobError> {
    let until = soon(10_000);
    let mut work = job(1, key, Algorithm::EcdsaP256Sha256, object);
    // While a killed worker is being replaced the device takes no jobs; that is a clear refusal, not a wait.
    while let Err((back, _)) = world.pool.submit_device("faulty", work) {
        assert!(soon(0) < until, "the device does not come back");
        std::thread::sleep(Duration::from_millis(5));
        work = back;
    }
    world.next().result.map(drop)
}

#[test]
fn a_device_that_misbehaves_costs_its_own_jobs_and_comes_back() {
    let token = SoftHsm::shared();
    let world = world(vec![token.device("faulty", &faulty_module())]);
    token.script("ok");
    let (key, made) = generate(&world, "faulty", 1, KeyKind::P256);
    assert_eq!(sign_one(&world, key, &made.object), Ok(()));

    token.script("hang");
    let started = soon(0);
    assert_eq!(sign_one(&world, key, &made.object), Err(JobError::WorkerLost));
    assert!(
        started.elapsed() < Duration::from_millis(2_400),
        "killed at the hang limit, not later"
    );
    token.script("ok");
    assert_eq!(sign_one(&world, key, &made.object), Ok(()));

    token.script("crash");
    assert_eq!(sign_one(&world, key, &made.object), Err(JobError::WorkerLost));
    token.script("ok");
    assert_eq!(sign_one(&world, key, &made.object), Ok(()));

    token.script("wrong");
    assert_eq!(sign_one(&world, key, &made.object), Err(JobError::Rejected));
    token.script("ok");
    assert_eq!(sign_one(&world, key, &made.object), Ok(()));

    // CKR_DATA_LEN_RANGE: the request's fault, so the worker stays.
    token.script("error 21");
    assert!(matches!(
        sign_one(&world, key, &made.object),
        Err(JobError::Device(_))
    ));
    token.script("ok");
    assert_eq!(sign_one(&world, key, &made.object), Ok(()));
    let (_, state, _) = world.pool.devices().next().unwrap();
    assert_eq!(state.kills.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(state.starts.load(std::sync::atomic::Ordering::Relaxed), 4);
}
