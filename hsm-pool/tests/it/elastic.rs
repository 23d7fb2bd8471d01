//! More and fewer lanes and processes while the pool serves: by command and by load, and how soon a new one signs.
//! Devices here have a service time that is waiting, so that their number counts and this machine's does not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use hsm_pool::device::life::State;
use hsm_pool::device::{DeviceConfig, DeviceKey};
use hsm_pool::elastic::Bounds;
use hsm_pool::job::{Finished, Sink};
use hsm_pool::keys::KeySource;
use hsm_pool::lanes::Verify;
use hsm_pool::pool::{Pool, PoolConfig};
use hsm_pool::soft;
use parking_lot::Mutex;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::ids::KeyRow;

use crate::support::{
    Job, Keyring, SoftHsm, TestHome, assert_verifies, faulty_module, job, on, soon, wait_until,
};

/// A job that has ended, and the thread that finished it: each lane and each process has one of its own.
struct Ended {
    job: Finished<Job>,
    by: String,
    at: Instant,
}

struct Recorder(Sender<Ended>);

impl Sink<Job> for Recorder {
    fn finished(&self, batch: Vec<Finished<Job>>) {
        let by = std::thread::current().name().unwrap_or_default().to_owned();
        for job in batch {
            let (by, at) = (by.clone(), soon(0));
            self.0.send(Ended { job, by, at }).unwrap();
        }
    }
}

struct Elastic {
    pool: Pool<Job>,
    keys: Arc<Keyring>,
    ended: Receiver<Ended>,
}

impl Elastic {
    fn new(lanes: Bounds, devices: Vec<DeviceConfig>) -> Self {
        let (sender, ended) = bounded(10_000);
        let keys = Arc::new(Keyring::default());
        let config = PoolConfig {
            lanes,
            queue: 4096,
            queue_ms_max: 60_000,
            verify: Verify::Sampled,
            multi: None,
            key_cache: 100,
            devices,
        };
        let source: Arc<dyn KeySource> = keys.clone();
        let sink: Arc<dyn Sink<Job>> = Arc::new(Recorder(sender));
        let pool = Pool::start(config, source, &sink).unwrap();
        Self { pool, keys, ended }
    }

    fn next(&self) -> Ended {
        self.ended
            .recv_timeout(Duration::from_secs(20))
            .expect("every job ends")
    }
}

type Log = Mutex<Vec<(Instant, String)>>;

/// What is asked for, so many at once; every one must be signed.
struct Load<'a> {
    world: &'a Elastic,
    key: KeyRow,
    algorithm: Algorithm,
    public_key: Vec<u8>,
    home: TestHome,
    width: usize,
}

impl Load<'_> {
    /// Runs `act` under load, which sees who signed, and when.
    fn during<R>(&self, act: impl FnOnce(&Log) -> R) -> R {
        let (log, (end, ending)) = (Log::default(), bounded::<()>(0));
        std::thread::scope(|scope| {
            let driver = scope.spawn(|| self.drive(&log, &ending));
            let done = act(&log);
            drop(end);
            driver.join().expect("every job was signed");
            done
        })
    }

    fn drive(&self, log: &Log, ending: &Receiver<()>) {
        let (mut number, mut open) = (0, 0);
        let wanted = || ending.try_recv() == Err(crossbeam_channel::TryRecvError::Empty);
        loop {
            while open < self.width && wanted() {
                let job = job(number, self.key, self.algorithm, self.home.clone());
                assert!(self.world.pool.submit(job).is_ok(), "nothing is refused");
                (number, open) = (number + 1, open + 1);
            }
            if open == 0 {
                return;
            }
            let Ended { job, by, at } = self.world.next();
            open -= 1;
            let signature = job.result.expect("nothing fails");
            assert_verifies(&self.public_key, &job.work, &signature);
            log.lock().push((at, by));
        }
    }
}

/// Who has signed.
fn signers(log: &Log) -> BTreeSet<String> {
    log.lock().iter().map(|(_, by)| by.clone()).collect()
}

/// Who has signed since.
fn signers_since(log: &Log, since: Instant) -> BTreeSet<String> {
    let log = log.lock();
    let recent = log.iter().filter(|(at, _)| *at >= since);
    recent.map(|(_, by)| by.clone()).collect()
}

/// Waits until somebody signs who has not before, and says how long after `from` that was.
fn first_of_a_new_one(log: &Log, known: &BTreeSet<String>, from: Instant) -> Duration {
    let new = || {
        let log = log.lock();
        let first = log.iter().find(|(_, by)| !known.contains(by));
        first.map(|(at, _)| *at)
    };
    wait_until("a new one signs", || new().is_some());
    new().unwrap_or(from) - from
}

/// Signatures per second over the next moments.
fn rate(log: &Log) -> f64 {
    let (from, before) = (soon(0), log.lock().len());
    std::thread::sleep(Duration::from_millis(1_500));
    (log.lock().len() - before) as f64 / from.elapsed().as_secs_f64()
}

fn software(world: &Elastic, kind: KeyKind, width: usize) -> Load<'_> {
    let made = soft::generate(kind).unwrap();
    Load {
        key: world.keys.add(1, &made.public_key, Some(&made.pkcs8)),
        algorithm: kind.algorithms()[0],
        public_key: made.public_key,
        home: TestHome::Software,
        width,
        world,
    }
}

#[test]
fn lanes_come_and_go_by_command_and_a_new_one_signs_within_a_second() {
    let world = Elastic::new(Bounds { min: 2, max: 2 }, Vec::new());
    let load = software(&world, KeyKind::Rsa2048, 64);
    let took = load.during(|log| {
        wait_until("two lanes sign", || signers(log).len() == 2);
        let known = signers(log);
        let from = soon(0);
        world.pool.set_lanes(3).unwrap();
        let took = first_of_a_new_one(log, &known, from);
        world.pool.set_lanes(1).unwrap();
        assert_eq!(world.pool.lanes(), 1);
        let (from, before) = (soon(0), log.lock().len());
        wait_until("the last one signs on", || log.lock().len() > before + 200);
        assert!(!signers_since(log, from).is_empty());
        world.pool.set_lanes(2).unwrap();
        took
    });
    eprintln!("from 2 to 3 software lanes: the first signature of the new one after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn lanes_grow_by_load_up_to_their_bound() {
    let world = Elastic::new(Bounds { min: 1, max: 3 }, Vec::new());
    let load = software(&world, KeyKind::Rsa2048, 3_000);
    load.during(|_| {
        wait_until("lanes are added", || world.pool.lanes() == 3);
    });
    assert_eq!(world.pool.lanes(), 3);
}

/// A device whose calls take 20 ms each, one at a time in each process.
fn slow(token: &SoftHsm, processes: usize, processes_max: usize) -> DeviceConfig {
    let mut config = token.device("slow", &faulty_module());
    (config.processes, config.processes_max) = (processes, processes_max);
    config
}

/// The key in that device, once it works.
fn slow_key(world: &Elastic, token: &SoftHsm) -> DeviceKey {
    token.script("ok");
    let state = Arc::clone(&world.pool.devices()[0].state);
    wait_until("it is active", || state.state() == State::Active);
    let key = world
        .pool
        .generate("slow", KeyKind::P256, "elastic", None)
        .unwrap();
    token.script("slow 20");
    key
}

fn in_device<'a>(world: &'a Elastic, key: &DeviceKey, width: usize) -> Load<'a> {
    Load {
        key: world.keys.add(1, &key.public_key, None),
        algorithm: Algorithm::EcdsaP256Sha256,
        public_key: key.public_key.clone(),
        home: on("slow", &key.object),
        width,
        world,
    }
}

#[test]
fn half_as_many_processes_more_bring_half_as_much_more_within_five_seconds() {
    let token = SoftHsm::new();
    let world = Elastic::new(Bounds { min: 1, max: 1 }, vec![slow(&token, 2, 2)]);
    let key = slow_key(&world, &token);
    let load = in_device(&world, &key, 32);
    let (before, after, took) = load.during(|log| {
        wait_until("two processes sign", || signers(log).len() == 2);
        let before = rate(log);
        let known = signers(log);
        let from = soon(0);
        world.pool.scale_device("slow", 3).unwrap();
        let took = first_of_a_new_one(log, &known, from);
        (before, rate(log), took)
    });
    eprintln!(
        "from 2 to 3 processes: {before:.0} to {after:.0} signatures/s (x {:.2}); the first one of the new process after {took:?}",
        after / before
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(after > before * 1.35, "{before:.0} to {after:.0}");
}

#[test]
fn processes_come_and_go_by_command_and_nothing_fails() {
    let token = SoftHsm::new();
    let world = Elastic::new(Bounds { min: 1, max: 1 }, vec![slow(&token, 2, 2)]);
    let key = slow_key(&world, &token);
    token.script("slow 2");
    let load = in_device(&world, &key, 32);
    let up = || world.pool.devices()[0].state.workers_up();
    load.during(|log| {
        for processes in [4, 1, 3, 2] {
            world.pool.scale_device("slow", processes).unwrap();
            wait_until("so many serve", || up() == processes);
            let from = soon(0);
            wait_until("all of them sign", || {
                signers_since(log, from).len() >= processes.min(2)
            });
        }
    });
    assert_eq!(world.pool.devices()[0].processes, 2);
}

#[test]
fn processes_grow_by_load_up_to_their_bound() {
    let token = SoftHsm::new();
    let world = Elastic::new(Bounds { min: 1, max: 1 }, vec![slow(&token, 1, 2)]);
    let key = slow_key(&world, &token);
    let load = in_device(&world, &key, 64);
    load.during(|log| {
        wait_until("there are two", || {
            world.pool.devices()[0].state.workers_up() == 2
        });
        let from = soon(0);
        wait_until("both sign", || signers_since(log, from).len() == 2);
    });
    assert_eq!(world.pool.devices()[0].processes, 2);
}
