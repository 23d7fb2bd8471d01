//! One suite for every kind of device, and what several of them do together.

use std::collections::HashSet;
use std::sync::Arc;

use hsm_pool::device::DeviceKey;
use hsm_pool::device::life::State;
use hsm_pool::job::JobError;
use hsm_pool::pool::SubmitError;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::ids::KeyRow;

use crate::support::{
    Job, Rig, TestHome, World, assert_verifies, job, kryoptic, load, sdf, softhsm, wait_until, world,
};

/// What a kind of device can do.
struct Abilities {
    kinds: &'static [KeyKind],
    /// It makes keys; if not, it has one under this name.
    finds: Option<&'static str>,
    wraps: bool,
}

#[test]
fn softhsm_passes_the_suite() {
    let abilities = Abilities {
        kinds: &[KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Ed25519],
        finds: None,
        wraps: true,
    };
    suite(softhsm("soft"), &abilities);
}

#[test]
fn kryoptic_passes_the_suite() {
    let abilities = Abilities {
        // OpenSSL 3.0 has no EdDSA that Kryoptic could use.
        kinds: &[KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048],
        finds: None,
        wraps: true,
    };
    suite(kryoptic("kryoptic"), &abilities);
}

#[test]
fn an_sdf_device_passes_the_suite() {
    let abilities = Abilities {
        kinds: &[KeyKind::Sm2],
        finds: Some("1"),
        wraps: false,
    };
    suite(sdf("card"), &abilities);
}

fn suite(rig: Rig, abilities: &Abilities) {
    let config = rig.config.clone();
    let name = Arc::clone(&config.name);
    let world = world(vec![config]);
    wait_until("it is active", || state(&world, &name) == State::Active);
    for (row, &kind) in (1..).zip(abilities.kinds) {
        let key = match abilities.finds {
            None => world
                .pool
                .generate(&name, kind, &format!("suite {kind}"), None)
                .unwrap(),
            Some(label) => world.pool.find(&name, kind, label).unwrap(),
        };
        world.pool.prove(&name, &key).unwrap();
        signs(
            &world,
            &name,
            world.keys.add(row, &key.public_key, None),
            kind,
            &key,
        );
    }
    refuses(&world, &name);
    drains_and_resumes(&world, &name, abilities);
    if abilities.wraps {
        wraps(&world, &name);
    }
    world.pool.stop();
}

fn state(world: &World, name: &str) -> State {
    let devices = world.pool.devices();
    devices
        .iter()
        .find(|view| *view.name == *name)
        .unwrap()
        .state
        .state()
}

fn at(name: &str, key: &DeviceKey) -> TestHome {
    TestHome::Devices(vec![name.into()], key.object.clone())
}

fn signs(world: &World, name: &str, row: KeyRow, kind: KeyKind, key: &DeviceKey) {
    let jobs: Vec<Job> = (0..64)
        .flat_map(|number| {
            kind.algorithms()
                .iter()
                .map(move |&algorithm| (number, algorithm))
        })
        .map(|(number, algorithm)| job(number, row, algorithm, at(name, key)))
        .collect();
    let count = jobs.len();
    for job in jobs {
        assert!(world.pool.submit(job).is_ok());
    }
    let mut inputs = HashSet::new();
    for _ in 0..count {
        let done = world.next();
        let signature = done
            .result
            .unwrap_or_else(|error| panic!("{name} {kind}: {error}"));
        assert_verifies(&key.public_key, &done.work, &signature);
        inputs.insert((done.work.algorithm, done.work.input));
    }
    assert_eq!(inputs.len(), count, "every job comes back once");
}

/// A key that is not there is the request's fault, and the device goes on.
fn refuses(world: &World, name: &str) {
    let missing = DeviceKey {
        object: vec![9, 9, 9, 9],
        public_key: Vec::new(),
        wrapped: None,
    };
    let some = world.keys.add(99, &p256(), None);
    assert!(
        world
            .pool
            .submit(job(1, some, Algorithm::EcdsaP256Sha256, at(name, &missing)))
            .is_ok()
    );
    let refused = world.next().result;
    assert!(matches!(refused, Err(JobError::Device { .. })), "{refused:?}");
    assert_eq!(state(world, name), State::Active);
}

fn p256() -> Vec<u8> {
    hsm_pool::soft::generate(KeyKind::P256).unwrap().public_key
}

fn drains_and_resumes(world: &World, name: &str, abilities: &Abilities) {
    world.pool.drain_device(name).unwrap();
    let home = TestHome::Devices(vec![name.into()], vec![0; 4]);
    let refused = world
        .pool
        .submit(job(1, KeyRow(1), abilities.kinds[0].algorithms()[0], home));
    assert!(matches!(refused, Err((_, SubmitError::Unavailable))));
    world.pool.resume_device(name).unwrap();
    wait_until("it is active again", || state(world, name) == State::Active);
}

/// A key that exists only wrapped signs, is unwrapped once for each process, and a key in the device can be destroyed.
fn wraps(world: &World, name: &str) {
    let kek = world.pool.make_kek(name, "suite").unwrap();
    for (row, kind) in [(200, KeyKind::P256), (201, KeyKind::Rsa2048)] {
        let key = world.pool.generate_wrapped(name, kind, &kek.id).unwrap();
        assert!(key.object.is_empty());
        world.pool.prove(name, &key).unwrap();
        let row = world.keys.add_wrapped(row, &key);
        for number in 0..32 {
            let home = TestHome::Wrapped(kek.id.clone());
            assert!(
                world
                    .pool
                    .submit(job(number, row, kind.algorithms()[0], home))
                    .is_ok()
            );
        }
        for _ in 0..32 {
            let done = world.next();
            assert_verifies(&key.public_key, &done.work, &done.result.unwrap());
        }
    }
    let view = &world.pool.devices()[0];
    assert_eq!(load(&view.state.cache_misses), 2, "each key is unwrapped once");
    assert_eq!(load(&view.state.cache_hits), 62);
}
