//! A device that misbehaves: SoftHSM2 behind a module that does what a script says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hsm_pool::device::DeviceState;
use hsm_pool::device::ckr::Class;
use hsm_pool::device::life::State;
use hsm_pool::job::JobError;
use protocol::algorithm::{Algorithm, KeyKind};

use crate::support::{
    SOFTHSM, SoftHsm, World, faulty_module, generate, job, load, on, soon, wait_until, world,
};

#[test]
fn a_wrong_pin_latches_the_device_and_is_never_tried_again() {
    let token = SoftHsm::new();
    let mut config = token.device("soft", Path::new(SOFTHSM));
    config.pin = "654321".into();
    let world = world(vec![config]);
    wait_until("the device latches", || state(&world).is_latched());
    // An operator's order does not try it either.
    assert!(world.pool.generate("soft", KeyKind::P256, "x", None).is_err());
    assert_eq!(state(&world).state(), State::Quarantined);
    assert!(!state(&world).takes_jobs());
    assert_eq!(load(&state(&world).starts), 1);
}

fn state(world: &World) -> Arc<DeviceState> {
    Arc::clone(&world.pool.devices()[0].state)
}

fn sign_one(world: &World, key: protocol::ids::KeyRow, object: &[u8]) -> Result<(), JobError> {
    let until = soon(10_000);
    loop {
        assert!(soon(0) < until, "the device does not come back");
        // While the device has to prove itself it takes no jobs; that is a clear refusal, not a wait. One that it had
        // taken before anybody knew that its next process does not live is refused in the same words.
        let work = job(1, key, Algorithm::EcdsaP256Sha256, on("faulty", object));
        if world.pool.submit(work).is_ok() {
            let result = world.next().result.map(drop);
            if result != Err(JobError::Unavailable) {
                return result;
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_device_that_misbehaves_costs_its_own_jobs_and_comes_back() {
    let token = SoftHsm::new();
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
    let refused = sign_one(&world, key, &made.object);
    assert!(
        matches!(
            refused,
            Err(JobError::Device {
                class: Class::Request,
                ..
            })
        ),
        "{refused:?}"
    );
    token.script("ok");
    assert_eq!(sign_one(&world, key, &made.object), Ok(()));
    let state = state(&world);
    assert_eq!(
        (load(&state.kills), load(&state.rejected), load(&state.refused)),
        (1, 1, 1)
    );
}
