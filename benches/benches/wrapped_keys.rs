//! A million credentials whose keys exist only wrapped, used as names are (Zipf, exponent 1): how long registering takes and
//! what it costs in memory, and for each size of the workers' cache the hit rate and the latency.
//!
//! `make bench-devices`. `BENCH_KEYS` (20,000) and `BENCH_SECONDS` (3, for each size) change its size. It needs
//! `hsm-worker` beside it. The credentials share one key pair, because making a million pairs would take an hour; a
//! cache knows keys by their rows, so that is the same to it.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where it stopped"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actors::vault::{StoredKeys, Vault};
use crossbeam_channel::{Receiver, Sender, bounded};
use hsm_pool::device::{DeviceConfig, DeviceKey, Kind};
use hsm_pool::elastic::Bounds;
use hsm_pool::job::{Finished, Home, Sink, Work};
use hsm_pool::lanes::Verify;
use hsm_pool::pool::{Pool, PoolConfig};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::clock;
use protocol::ids::{CredentialId, KeyRow, TenantName, TenantRow};
use store::{CHANGES_MAX, Change, NewCredential, Place, StoreHandle};

const PIN: &str = "123456";
/// Unwrapped keys that each process keeps.
const CACHES: [usize; 4] = [64, 1_024, 8_192, 65_536];
const PROCESSES: usize = 2;
/// Jobs in flight: as many as keep both processes busy, and few enough for the latency to be the device's.
const WIDTH: usize = 8;

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

struct Job {
    row: KeyRow,
    kek: Arc<[u8]>,
    begun: Instant,
}

impl Work for Job {
    fn key(&self) -> KeyRow {
        self.row
    }
    fn kind(&self) -> KeyKind {
        KeyKind::P256
    }
    fn algorithm(&self) -> Algorithm {
        Algorithm::EcdsaP256Sha256
    }
    fn input(&self) -> &[u8] {
        &[7; 32]
    }
    fn user_id(&self) -> &[u8] {
        &[]
    }
    fn home(&self) -> Home<'_> {
        Home::Wrapped { kek: &self.kek }
    }
    fn tenant(&self) -> TenantRow {
        TenantRow(1)
    }
    fn deadline(&self) -> Instant {
        self.begun + Duration::from_secs(10)
    }
}

struct Done(Sender<Finished<Job>>);

impl Sink<Job> for Done {
    fn finished(&self, batch: Vec<Finished<Job>>) {
        for job in batch {
            // The bench may have its figures and have gone.
            let _ = self.0.send(job);
        }
    }
}

/// A fresh SoftHSM2 token.
fn token(folder: &Path) -> PathBuf {
    let (tokens, settings) = (folder.join("tokens"), folder.join("softhsm2.conf"));
    std::fs::create_dir(&tokens).unwrap();
    let text = format!("directories.tokendir = {}\n", tokens.display());
    std::fs::write(&settings, text).unwrap();
    let line = format!("--init-token --free --label bench --pin {PIN} --so-pin 12345678");
    let mut init = Command::new("softhsm2-util");
    let init = init.args(line.split(' ')).env("SOFTHSM2_CONF", &settings);
    assert!(init.output().unwrap().status.success());
    settings
}

fn device(settings: &Path, cache: usize) -> DeviceConfig {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().and_then(Path::parent).unwrap().join("hsm-worker");
    assert!(program.exists(), "no {}", program.display());
    DeviceConfig {
        name: "bench".into(),
        kind: Kind::Pkcs11,
        module: "/usr/lib/softhsm/libsofthsm2.so".into(),
        token_label: Some("bench".into()),
        token_serial: None,
        pin: PIN.into(),
        processes: PROCESSES,
        processes_max: PROCESSES,
        sessions: 1,
        in_flight_max: None,
        unwrapped_max: cache,
        probe_key: None,
        writable: None,
        environment: vec![("SOFTHSM2_CONF".into(), settings.display().to_string())],
        program,
    }
}

struct Bench {
    store: StoreHandle<()>,
    vault: Arc<Vault>,
    settings: PathBuf,
}

impl Bench {
    /// A pool whose workers keep so many keys.
    fn pool(&self, cache: usize) -> (Pool<Job>, Receiver<Finished<Job>>) {
        let (sender, done) = bounded(10_000);
        let config = PoolConfig {
            lanes: Bounds { min: 1, max: 1 },
            queue: 10_000,
            queue_ms_max: 10_000,
            verify: Verify::All,
            multi: None,
            key_cache: 100_000,
            devices: vec![device(&self.settings, cache)],
        };
        let keys = StoredKeys::new(self.store.reader().unwrap(), Arc::clone(&self.vault));
        let sink: Arc<dyn Sink<Job>> = Arc::new(Done(sender));
        let pool = Pool::start(config, Arc::new(keys), &sink).unwrap();
        while pool.devices()[0].state.workers_up() < PROCESSES {
            std::thread::sleep(Duration::from_millis(5));
        }
        (pool, done)
    }

    /// Registers credentials, a thousand in a commit, and says which rows their keys have.
    fn register(&self, count: usize, key: &DeviceKey) -> Vec<KeyRow> {
        let wrapped = key.wrapped.as_ref().unwrap();
        let tenant = TenantName::new("t").unwrap();
        let (from, before) = (clock::monotonic(), resident_mb());
        let new = |number: usize| {
            Change::CreateCredential(NewCredential {
                environment: store::Environment::Production,
                tenant: tenant.clone(),
                id: CredentialId::new(&format!("w{number}")).unwrap(),
                kind: KeyKind::P256,
                public_key: key.public_key.as_slice().into(),
                place: Place::Wrapped {
                    kek: wrapped.kek.as_slice().into(),
                },
                wrapped: Some(wrapped.to_bytes().into()),
                spare: None,
                chain: Vec::new(),
                validity: None,
            })
        };
        let numbers: Vec<usize> = (0..count).collect();
        for part in numbers.chunks(CHANGES_MAX) {
            let changes = part.iter().map(|number| new(*number)).collect();
            self.store.changes("bench", changes).unwrap();
        }
        let took = from.elapsed().as_secs_f64();
        println!(
            "{count} credentials registered in {took:.1} s ({:.0}/s), {:.0} bytes of memory for each",
            count as f64 / took,
            (resident_mb() - before) * 1e6 / count as f64
        );
        let tenant = self.store.directory().tenant("t").unwrap();
        let row = |number| tenant.credential(&format!("w{number}")).unwrap().key;
        (0..count).map(row).collect()
    }
}

fn resident_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}

/// Zipf with exponent 1: the n-th name is used 1/n as often as the first.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(names: usize) -> Self {
        let sum = |sum: &mut f64, name: usize| {
            *sum += 1.0 / (name + 1) as f64;
            Some(*sum)
        };
        Self((0..names).scan(0.0, sum).collect())
    }

    fn pick(&self, dice: &mut fastrand::Rng) -> usize {
        let at = dice.f64() * self.0.last().copied().unwrap_or_default();
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1)
    }
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let settings = token(folder.path());
    let bench = Bench {
        store: benches::store(&folder.path().join("store"), None, |_| {}),
        vault: Arc::new(Vault::new(&[1; 32]).unwrap()),
        settings,
    };
    let (pool, _) = bench.pool(1);
    let kek = pool.make_kek("bench", "bench").unwrap();
    let key = pool.generate_wrapped("bench", KeyKind::P256, &kek.id).unwrap();
    pool.stop();
    let rows = bench.register(setting("BENCH_KEYS", 20_000), &key);
    let zipf = Zipf::new(rows.len());
    let long = Duration::from_secs(setting("BENCH_SECONDS", 3) as u64);
    println!(
        "keys kept by each of {PROCESSES} processes, hit rate, signatures/s, and latency in ms (median, p99)"
    );
    for cache in CACHES {
        measure(&bench, cache, &rows, &zipf, &kek.id.clone().into(), long);
    }
}

fn measure(bench: &Bench, cache: usize, rows: &[KeyRow], zipf: &Zipf, kek: &Arc<[u8]>, long: Duration) {
    let (pool, done) = bench.pool(cache);
    let mut dice = fastrand::Rng::with_seed(7);
    let mut next = || {
        let job = Job {
            row: rows[zipf.pick(&mut dice)],
            kek: Arc::clone(kek),
            begun: clock::monotonic(),
        };
        assert!(pool.submit(job).is_ok());
    };
    (0..WIDTH).for_each(|_| next());
    let state = Arc::clone(&pool.devices()[0].state);
    let counts = || {
        (
            state.cache_hits.load(Ordering::Relaxed),
            state.cache_misses.load(Ordering::Relaxed),
        )
    };
    // As long for filling the cache as for measuring.
    let (from, mut took, mut before) = (clock::monotonic(), Vec::new(), None);
    while from.elapsed() < long * 2 {
        let finished = done.recv_timeout(Duration::from_secs(10)).unwrap();
        finished.result.unwrap();
        if from.elapsed() >= long {
            before.get_or_insert_with(counts);
            took.push(finished.work.begun.elapsed());
        }
        next();
    }
    let (before, after) = (before.unwrap(), counts());
    let (hits, misses) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
    took.sort_unstable();
    let ms = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{cache:8} {:6.1} % {:9.0}/s {:8.2} {:8.2}",
        hits * 100.0 / (hits + misses),
        took.len() as f64 / long.as_secs_f64(),
        ms(0.5),
        ms(0.99)
    );
}
