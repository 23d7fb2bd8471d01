//! One key on three devices of two makes: what happens to its jobs while one of the devices is sick, and how it comes
//! back by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hsm_pool::device::life::State;
use hsm_pool::device::{DeviceConfig, DeviceKey, DeviceState, Kek};
use hsm_pool::job::JobError;
use hsm_pool::pool::DeviceError;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::ids::KeyRow;

use crate::support::{
    FaultyKryoptic, Rig, SoftHsm, TestHome, WAIT_MS_MAX, World, assert_verifies, faulty_module, job, load,
    softhsm, soon, wait_until, world,
};
use crate::traffic::{Demand, Tally, under_load};

const LEFT: &str = "left";
const RIGHT: &str = "right";
const THIRD: &str = "third";
const ALL: [&str; 3] = [LEFT, RIGHT, THIRD];
/// What is left of errors this long after a device has died is too much.
const BACK_TO_ZERO: Duration = Duration::from_secs(1);

/// A Kryoptic and a SoftHSM2 token that can be made sick, and a SoftHSM2 that stays well; all three hold one key.
struct Group {
    world: World,
    left: FaultyKryoptic,
    right: SoftHsm,
    _third: Rig,
    /// How the device on the left is configured.
    config: DeviceConfig,
    key: DeviceKey,
    row: KeyRow,
}

impl Group {
    fn new() -> Self {
        let (left, right, third) = (FaultyKryoptic::new(LEFT), SoftHsm::new(), softhsm(THIRD));
        left.script("ok");
        right.script("ok");
        let mut config = left.config.clone();
        config.processes = 2;
        let mut other = right.device(RIGHT, &faulty_module());
        other.processes = 2;
        let world = world(vec![config.clone(), other, third.config.clone()]);
        for name in ALL {
            wait_until("it is active", || state(&world, name).state() == State::Active);
        }
        let key = everywhere(&world);
        let row = world.keys.add(1, &key.public_key, None);
        Self {
            world,
            left,
            right,
            _third: third,
            config,
            key,
            row,
        }
    }

    fn script_both(&self, order: &str) {
        self.left.script(order);
        self.right.script(order);
    }

    fn on(&self, names: &[&str]) -> TestHome {
        let names = names.iter().map(|name| Arc::from(*name)).collect();
        TestHome::Devices(names, self.key.object.clone())
    }

    fn demand(&self, names: &[&str], width: usize) -> Demand {
        Demand {
            row: self.row,
            algorithm: Algorithm::EcdsaP256Sha256,
            public_key: self.key.public_key.clone(),
            home: self.on(names),
            width,
        }
    }

    fn state(&self, name: &str) -> Arc<DeviceState> {
        state(&self.world, name)
    }

    fn signed(&self, name: &str) -> u64 {
        load(&self.state(name).signed)
    }

    /// Waits until a device signs again, from now on.
    fn wait_until_serving(&self, name: &str) {
        let before = self.signed(name);
        let until = soon(WAIT_MS_MAX);
        loop {
            let state = self.state(name);
            let serves = state.state() == State::Active && state.share() == 100;
            if serves && load(&state.signed) > before {
                return;
            }
            assert!(
                soon(0) < until,
                "{name} does not sign again: {state:?}, {:?}",
                self.world.pool.objects(name)
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until every device has signed so many times more.
    fn wait_for_signatures(&self, names: &[&str], more: u64) {
        let until: Vec<u64> = names.iter().map(|name| self.signed(name) + more).collect();
        for (name, until) in names.iter().zip(until) {
            wait_until(&format!("{name} signs"), || self.signed(name) >= until);
        }
    }

    /// kill -9 for every process of the device on the left.
    fn kill_left(&self) {
        for process in processes_of(&self.config.program) {
            let process = rustix::process::Pid::from_raw(process).unwrap();
            // One that has gone already need not be killed.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
}

/// Processes that were started under a name.
fn processes_of(program: &Path) -> Vec<i32> {
    let mut command = program.as_os_str().as_encoded_bytes().to_vec();
    command.push(0);
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(&command))
    })
    .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    .collect()
}

fn state(world: &World, name: &str) -> Arc<DeviceState> {
    let devices = world.pool.devices();
    let view = devices.iter().find(|view| *view.name == *name).unwrap();
    Arc::clone(&view.state)
}

/// A key made in the first device and brought into the others, wrapped; each of them proves it.
fn everywhere(world: &World) -> DeviceKey {
    let kek = shared_kek(world);
    let key = world
        .pool
        .generate(LEFT, KeyKind::P256, "everywhere", Some(&kek.id))
        .unwrap();
    let wrapped = key.wrapped.clone().unwrap();
    for name in [RIGHT, THIRD] {
        world
            .pool
            .unwrap(name, &wrapped, KeyKind::P256, "everywhere", &key.object)
            .unwrap();
    }
    for name in ALL {
        world.pool.prove(name, &key).unwrap();
    }
    key
}

fn shared_kek(world: &World) -> Kek {
    let kek = world.pool.make_kek(LEFT, "group").unwrap();
    for name in [RIGHT, THIRD] {
        let shared = world.pool.share_kek(LEFT, name, &kek.id).unwrap();
        assert_eq!((&shared.id, &shared.label), (&kek.id, &kek.label));
    }
    kek
}

/// Every error says whose fault it was, and none is ours.
fn assert_clear(tally: &Tally) {
    for (_, error) in &tally.failed {
        assert!(
            error.is_device_fault() || matches!(error, JobError::Unavailable),
            "{error:?}"
        );
    }
}

#[test]
fn jobs_are_spread_over_all_devices_and_one_that_dies_costs_no_more_than_a_second() {
    let group = Group::new();
    let (died, tally) = under_load(&group.world, &group.demand(&ALL, 24), || {
        group.wait_for_signatures(&ALL, 200);
        group.left.script("C_*: crash");
        let died = soon(0);
        group.kill_left();
        group.wait_for_signatures(&[RIGHT, THIRD], 50);
        until(died + BACK_TO_ZERO * 3);
        died
    });
    assert_back_to_zero(&tally, died);
    eprintln!(
        "one of three dies: {} signatures, {} errors, the last one {:?} after it",
        tally.signed.len(),
        tally.errors(),
        tally.last_error().map(|at| at.saturating_duration_since(died))
    );
    let ((), tally) = under_load(&group.world, &group.demand(&ALL, 24), || {
        group.left.script("ok");
        group.wait_until_serving(LEFT);
    });
    tally.assert_no_errors("coming back costs nothing");
}

/// Lets the load go on until a moment; nothing is waited for.
fn until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(soon(0)));
}

fn assert_back_to_zero(tally: &Tally, from: Instant) {
    assert_clear(tally);
    let late = |at: &Instant| *at > from + BACK_TO_ZERO;
    let failed: Vec<_> = tally.failed.iter().filter(|(at, _)| late(at)).collect();
    let refused = tally.refused.iter().filter(|at| late(at)).count();
    assert_eq!((failed.len(), refused), (0, 0), "{failed:?}");
    assert!(tally.signed_since(from + BACK_TO_ZERO) > 0);
}

#[test]
fn processes_that_are_killed_again_and_again_cost_nothing_that_the_retry_budget_does_not_pay() {
    let group = Group::new();
    let (died, tally) = under_load(&group.world, &group.demand(&ALL, 24), || {
        group.wait_for_signatures(&ALL, 300);
        let died = soon(0);
        while soon(0) < died + BACK_TO_ZERO * 3 {
            group.kill_left();
            group.wait_for_signatures(&[RIGHT, THIRD], 20);
        }
        died
    });
    assert_back_to_zero(&tally, died);
    let starts = load(&group.state(LEFT).starts);
    assert!(starts > 5, "{starts} processes");
    let ((), _) = under_load(&group.world, &group.demand(&ALL, 24), || {
        group.wait_until_serving(LEFT);
    });
}

#[test]
fn a_hung_device_costs_the_others_nothing() {
    let group = Group::new();
    let theirs = group.demand(&[RIGHT, THIRD], 4);
    let ((began, hung), tally) = under_load(&group.world, &theirs, || {
        let began = soon(0);
        group.wait_for_signatures(&[RIGHT, THIRD], 200);
        group.left.script("hang");
        let hung = soon(0);
        let stuck = group.world.keys.add(2, &group.key.public_key, None);
        let is_taken = |number| {
            let job = job(number, stuck, Algorithm::EcdsaP256Sha256, group.on(&[LEFT]));
            group.world.pool.submit(job).is_ok()
        };
        assert_eq!((0..16).filter(|number| is_taken(*number)).count(), 16);
        wait_until("it is found out", || {
            group.state(LEFT).state() == State::Quarantined
        });
        (began, hung)
    });
    tally.assert_no_errors("the others know nothing of it");
    for done in &tally.others {
        let error = done.result.as_ref().expect_err("it hangs");
        assert!(
            matches!(error, JobError::WorkerLost | JobError::Unavailable),
            "{error:?}"
        );
    }
    let end = soon(0);
    let slowest = tally.percentile(1.0, hung, end);
    eprintln!(
        "beside a hung device: p99 {:?} before, {:?} while it hangs; the slowest {slowest:?}",
        tally.percentile(0.99, began, hung),
        tally.percentile(0.99, hung, end),
    );
    assert!(
        slowest < Duration::from_secs(1),
        "nobody waited for it: {slowest:?}"
    );
    wait_until("who hung is killed", || load(&group.state(LEFT).kills) > 0);
}

#[test]
fn a_job_is_retried_once_at_most_and_retries_are_a_tenth_of_all_jobs() {
    let group = Group::new();
    let jobs = 300;
    // Less than half, so neither device is put aside and every retry is the budget's to allow.
    group.script_both("20% error CKR_DEVICE_ERROR");
    let home = group.on(&[LEFT, RIGHT]);
    for number in 0..jobs {
        let job = job(number, group.row, Algorithm::EcdsaP256Sha256, home.clone());
        assert!(group.world.pool.submit(job).is_ok());
    }
    let signed = (0..jobs).filter(|_| group.world.next().result.is_ok()).count();
    let sum = |of: fn(&DeviceState) -> &std::sync::atomic::AtomicU64| {
        [LEFT, RIGHT]
            .iter()
            .map(|name| load(of(&group.state(name))))
            .sum::<u64>()
    };
    // A device counts a fault after it has given the job back.
    wait_until("each job is tried once, and once more if it is retried", || {
        let (faults, retries) = (sum(|state| &state.faults), sum(|state| &state.failovers));
        signed as u64 + faults == jobs as u64 + retries
    });
    let retries = sum(|state| &state.failovers);
    assert!((1..=jobs as u64 / 10).contains(&retries), "{retries} retries");
}

#[test]
fn a_busy_device_draws_no_jobs_and_one_alone_refuses_at_once() {
    let group = Group::new();
    let ((), tally) = under_load(&group.world, &group.demand(&ALL, 8), || {
        group.wait_for_signatures(&ALL, 100);
        group.left.script("error CKR_DEVICE_MEMORY");
        group.wait_for_signatures(&[RIGHT, THIRD], 500);
        group.left.script("ok");
        group.wait_for_signatures(&[LEFT], 50);
    });
    // What it had in hand, and one on trial after each rest; most of these were retried.
    let faults = load(&group.state(LEFT).faults);
    assert!((1..=100).contains(&faults), "{faults} of {}", tally.signed.len());
    assert!(tally.errors() as u64 <= faults);
    assert_eq!(group.state(LEFT).state(), State::Active, "busy is not sick");

    group.left.script("error CKR_SESSION_COUNT");
    let ((), tally) = under_load(&group.world, &group.demand(&[LEFT], 8), || {
        wait_until("it is known to be busy", || {
            load(&group.state(LEFT).faults) > faults + 5
        });
        group.left.script("ok");
        group.wait_for_signatures(&[LEFT], 50);
    });
    assert!(!tally.refused.is_empty(), "who can wait nowhere is told at once");
}

#[test]
fn a_device_that_lies_is_put_aside_and_its_lies_go_to_nobody() {
    let group = Group::new();
    // That each signature verifies is what the load itself checks.
    let ((), tally) = under_load(&group.world, &group.demand(&ALL, 24), || {
        group.wait_for_signatures(&ALL, 200);
        group.left.script("wrong");
        wait_until("it is found out", || {
            group.state(LEFT).state() == State::Quarantined
        });
        assert_eq!(group.state(LEFT).reason(), "a signature did not verify");
        group.wait_for_signatures(&[RIGHT, THIRD], 100);
        group.left.script("ok");
        group.wait_until_serving(LEFT);
    });
    assert_clear(&tally);
    assert!(load(&group.state(LEFT).rejected) > 0);
}

#[test]
fn what_waits_for_a_device_that_is_put_aside_goes_to_the_others() {
    let group = Group::new();
    let jobs = 40;
    group.script_both("slow 50");
    // Once it is known how slow they are, nothing is sent ahead.
    under_load(&group.world, &group.demand(&[LEFT, RIGHT], 8), || {
        wait_until("they are known to be slow", || {
            [LEFT, RIGHT]
                .iter()
                .all(|name| group.state(name).service_us() > 40_000.0)
        });
    });
    let home = group.on(&[LEFT, RIGHT]);
    for number in 0..jobs {
        let job = job(number, group.row, Algorithm::EcdsaP256Sha256, home.clone());
        assert!(group.world.pool.submit(job).is_ok());
    }
    let waiting = |name: &str| {
        let devices = group.world.pool.devices();
        devices.iter().find(|view| *view.name == *name).unwrap().waiting
    };
    assert!(waiting(LEFT) > 5, "{} wait", waiting(LEFT));
    group.left.script("wrong");
    wait_until("it is found out", || {
        group.state(LEFT).state() == State::Quarantined
    });
    wait_until("nothing waits for it", || waiting(LEFT) == 0);
    let mut rejected = 0;
    for _ in 0..jobs {
        let done = group.world.next();
        match done.result {
            Ok(signature) => assert_verifies(&group.key.public_key, &done.work, &signature),
            Err(error) => {
                assert!(error.is_device_fault(), "{error:?}");
                rejected += 1;
            }
        }
    }
    // Only what it had in hand could fail, and some of that was retried.
    assert!(rejected <= 2, "{rejected}");
}

/// Faults that a device has for a while and gets over, each by a script.
const PASSING: [&str; 9] = [
    "lost",
    "times 50 error CKR_DEVICE_ERROR",
    "removed",
    "removed CKR_DEVICE_REMOVED",
    "renumber 100",
    "renumber rotate",
    "sessions 1",
    "times 20 error CKR_SESSION_HANDLE_INVALID",
    "times 20 error CKR_USER_NOT_LOGGED_IN",
];

#[test]
fn a_device_recovers_by_itself_from_whatever_passes() {
    let group = Group::new();
    for script in PASSING {
        let (sick, tally) = under_load(&group.world, &group.demand(&ALL, 24), || {
            group.wait_for_signatures(&[RIGHT, THIRD], 50);
            group.left.script(script);
            // New processes meet it, too.
            group.kill_left();
            let sick = soon(0);
            group.wait_for_signatures(&[RIGHT, THIRD], 200);
            group.left.script("ok");
            group.wait_until_serving(LEFT);
            sick
        });
        assert_clear(&tally);
        eprintln!(
            "{script}: {} errors for {:?}, {} signatures",
            tally.errors(),
            tally
                .last_error()
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(sick)),
            tally.signed.len()
        );
    }
    assert!(!group.state(LEFT).is_latched());
}

#[test]
fn a_refused_pin_latches_until_an_operator_says_otherwise() {
    let group = Group::new();
    let ((), tally) = under_load(&group.world, &group.demand(&ALL, 8), || {
        group.wait_for_signatures(&ALL, 50);
        group.left.script("C_Login: error CKR_PIN_INCORRECT");
        // The next process that starts has to log in.
        group.kill_left();
        wait_until("it latches", || group.state(LEFT).is_latched());
        let starts = load(&group.state(LEFT).starts);
        // Neither an order nor the device's own threads try the PIN again, though it would be right by now.
        group.left.script("ok");
        assert!(matches!(
            group.world.pool.prove(LEFT, &group.key),
            Err(DeviceError::Job(_))
        ));
        group.wait_for_signatures(&[RIGHT, THIRD], 300);
        assert_eq!(load(&group.state(LEFT).starts), starts);
        group.world.pool.resume_device(LEFT).unwrap();
        group.wait_until_serving(LEFT);
    });
    assert_clear(&tally);
}

#[test]
fn a_latched_device_can_be_taken_away_and_added_with_the_right_pin() {
    let group = Group::new();
    under_load(&group.world, &group.demand(&ALL, 8), || {
        group.world.pool.drain_device(LEFT).unwrap();
        group.world.pool.remove_device(LEFT).unwrap();
        let mut wrong = group.config.clone();
        wrong.pin = "654321".into();
        group.world.pool.add_device(wrong, None).unwrap();
        wait_until("it latches", || group.state(LEFT).is_latched());
        assert_eq!(load(&group.state(LEFT).starts), 1, "a wrong PIN is tried once");
        group.world.pool.remove_device(LEFT).unwrap();
        group.world.pool.add_device(group.config.clone(), None).unwrap();
        group.wait_until_serving(LEFT);
    })
    .1
    .assert_no_errors("the others served");
}

#[test]
fn a_device_is_drained_resumed_removed_and_added_while_the_pool_serves() {
    let group = Group::new();
    let pool = &group.world.pool;
    let ((), tally) = under_load(&group.world, &group.demand(&ALL, 24), || {
        for _ in 0..2 {
            group.wait_for_signatures(&ALL, 100);
            pool.drain_device(LEFT).unwrap();
            wait_until("it has finished", || {
                group
                    .state(LEFT)
                    .in_flight
                    .load(std::sync::atomic::Ordering::Relaxed)
                    == 0
            });
            let signed = group.signed(LEFT);
            group.wait_for_signatures(&[RIGHT, THIRD], 100);
            assert_eq!(group.signed(LEFT), signed, "a drained device gets nothing");
            pool.resume_device(LEFT).unwrap();
            group.wait_until_serving(LEFT);
            assert!(matches!(pool.remove_device(LEFT), Err(DeviceError::State(..))));
            pool.drain_device(LEFT).unwrap();
            pool.remove_device(LEFT).unwrap();
            group.wait_for_signatures(&[RIGHT, THIRD], 100);
            pool.add_device(group.config.clone(), None).unwrap();
            group.wait_until_serving(LEFT);
        }
    });
    tally.assert_no_errors("nobody notices");
}
