//! SoftHSM2 through the pool, called directly, and through `p11-kit server`, each by as many processes, in one run.
//!
//! `make bench-devices`. `BENCH_SECONDS` (3), `BENCH_PROCESSES` (one for each processor) and `BENCH_ROUNDS` (3, of which the
//! median counts) change its size.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where it stopped"
)]

#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use hsm_pool::device::DeviceKey;
use hsm_pool::elastic::Bounds;
use hsm_pool::job::{Finished, Sink};
use hsm_pool::keys::KeySource;
use hsm_pool::lanes::Verify;
use hsm_pool::pool::{Pool, PoolConfig};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::verify::{PublicKey, pair_to_der};

use support::{Job, Keyring, PIN, SOFTHSM, SoftHsm, job, on, soon, wait_until};

const P11_KIT_CLIENT: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so";
const TARGET: f64 = 0.9;
/// Jobs in flight, for each process: enough that none of them ever waits for us.
const WIDTH: usize = 64;

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "direct") {
        return direct(&arguments[2..]);
    }
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let size = Size {
        processes: setting("BENCH_PROCESSES", processors),
        long: Duration::from_secs(setting("BENCH_SECONDS", 3) as u64),
        rounds: setting("BENCH_ROUNDS", 3),
    };
    for kind in [KeyKind::Rsa2048, KeyKind::P256] {
        compare(kind, &size);
    }
}

struct Size {
    processes: usize,
    long: Duration,
    rounds: usize,
}

/// What one way of calling the token brought.
#[derive(Default)]
struct Way {
    rates: Vec<f64>,
}

impl Way {
    fn median(&mut self) -> f64 {
        self.rates.sort_by(f64::total_cmp);
        self.rates.get(self.rates.len() / 2).copied().unwrap_or_default()
    }
}

fn compare(kind: KeyKind, size: &Size) {
    let token = SoftHsm::new();
    let conf = token.settings();
    let bench = Bench::new(&token, kind, size.processes);
    let (mut pool, mut bare, mut verifying, mut kit) = <(Way, Way, Way, Way)>::default();
    let mut cpu_us = Vec::new();
    let server = P11Kit::start(&conf);
    for _ in 0..size.rounds {
        let (rate, us) = bench.run(size.long);
        pool.rates.push(rate);
        cpu_us.push(us);
        let loops = |module: &str, verify, address: Option<&str>| {
            run_children(&conf, module, &bench.key, size, verify, address)
        };
        bare.rates.push(loops(SOFTHSM, false, None));
        verifying.rates.push(loops(SOFTHSM, true, None));
        if let Some(server) = &server {
            kit.rates
                .push(loops(P11_KIT_CLIENT, false, Some(&server.address)));
        }
    }
    cpu_us.sort_by(f64::total_cmp);
    let verify_us = verify_us(&bench.key);
    let ours = pool.median();
    let rows = [
        ("the pool, each signature verified", ours),
        ("a bare loop in each process", bare.median()),
        ("a loop that verifies with the same verifier", verifying.median()),
        ("a bare loop through p11-kit server", kit.median()),
    ];
    println!(
        "\n{kind}, {} processes, SoftHSM2, median of {} x {:?}",
        size.processes, size.rounds, size.long
    );
    for (name, rate) in rows {
        let share = if rate > 0.0 { ours / rate } else { f64::NAN };
        println!("{name:45} {rate:9.0}/s   the pool does {share:5.2} of it");
    }
    let us = cpu_us[cpu_us.len() / 2];
    println!(
        "CPU of the pool's own process: {us:.1} us a signature, of which {verify_us:.1} us verify; {:.1} us for the hop and this bench",
        us - verify_us
    );
    let against = if kind == KeyKind::P256 {
        rows[2].1
    } else {
        rows[1].1
    };
    let verdict = if ours >= against * TARGET {
        "kept"
    } else {
        "NOT KEPT"
    };
    println!("target, {TARGET} of {against:.0}/s: {verdict}");
}

/// Hands whole batches back, so that the jobs can be sent again.
struct Batches(Sender<Vec<Finished<Job>>>);

impl Sink<Job> for Batches {
    fn finished(&self, batch: Vec<Finished<Job>>) {
        // The bench has its figures and has gone.
        let _ = self.0.send(batch);
    }
}

struct Bench {
    pool: Pool<Job>,
    key: DeviceKey,
    batches: crossbeam_channel::Receiver<Vec<Finished<Job>>>,
    algorithm: Algorithm,
    width: usize,
}

impl Bench {
    fn new(token: &SoftHsm, kind: KeyKind, processes: usize) -> Self {
        let mut device = token.device("bench", Path::new(SOFTHSM));
        (device.processes, device.processes_max) = (processes, processes);
        let (sender, batches) = bounded(10_000);
        let keys = Arc::new(Keyring::default());
        let config = PoolConfig {
            lanes: Bounds { min: 1, max: 1 },
            queue: 100_000,
            queue_ms_max: 60_000,
            verify: Verify::All,
            multi: None,
            key_cache: 10,
            devices: vec![device],
        };
        let source: Arc<dyn KeySource> = keys.clone();
        let sink: Arc<dyn Sink<Job>> = Arc::new(Batches(sender));
        let pool = Pool::start(config, source, &sink).unwrap();
        let state = Arc::clone(&pool.devices()[0].state);
        wait_until("all processes serve", || state.workers_up() == processes);
        let key = pool.generate("bench", kind, "bench", None).unwrap();
        keys.add(1, &key.public_key, None);
        Self {
            pool,
            key,
            batches,
            algorithm: kind.algorithms()[0],
            width: WIDTH * processes,
        }
    }

    /// Signatures per second, and the CPU time of this process for each, in microseconds.
    fn run(&self, long: Duration) -> (f64, f64) {
        let submit = |mut job: Job| {
            job.deadline = soon(10_000);
            assert!(self.pool.submit(job).is_ok());
        };
        for number in 0..self.width {
            let home = on("bench", &self.key.object);
            submit(job(number, protocol::ids::KeyRow(1), self.algorithm, home));
        }
        let (mut open, mut signed) = (self.width, 0u64);
        // The first are for warming up.
        let mut begun: Option<(Instant, f64)> = None;
        let from = soon(0) + long / 5;
        let mut figures = None;
        while open > 0 {
            for finished in self.batches.recv_timeout(Duration::from_secs(10)).unwrap() {
                finished.result.unwrap();
                signed += 1;
                if figures.is_none() {
                    submit(finished.work);
                } else {
                    open -= 1;
                }
            }
            let now = soon(0);
            match begun {
                None if now >= from => {
                    (begun, signed) = (Some((now, cpu_seconds())), 0);
                }
                Some((since, cpu)) if figures.is_none() && now - since >= long => {
                    let rate = signed as f64 / (now - since).as_secs_f64();
                    figures = Some((rate, (cpu_seconds() - cpu) * 1e6 / signed as f64));
                }
                _ => {}
            }
        }
        figures.unwrap()
    }
}

fn cpu_seconds() -> f64 {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9
}

/// What verifying one signature costs here.
fn verify_us(key: &DeviceKey) -> f64 {
    let made = hsm_pool::soft::generate(PublicKey::from_spki(&key.public_key).unwrap().kind()).unwrap();
    let public = PublicKey::from_spki(&made.public_key).unwrap();
    let soft = hsm_pool::soft::SoftKey::new(public.kind(), &made.pkcs8, &made.public_key).unwrap();
    let algorithm = public.kind().algorithms()[0];
    let signature = soft.sign(algorithm, &[7; 32], b"").unwrap();
    let (from, rounds) = (cpu_seconds(), 2_000);
    for _ in 0..rounds {
        public.verify(algorithm, &[7; 32], &signature).unwrap();
    }
    (cpu_seconds() - from) * 1e6 / f64::from(rounds)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Plain processes, each with a session of its own and a loop; signatures per second of all of them.
fn run_children(
    conf: &Path,
    module: &str,
    key: &DeviceKey,
    size: &Size,
    verify: bool,
    address: Option<&str>,
) -> f64 {
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["direct", module, &hex(&key.object), &hex(&key.public_key)])
            .args([size.long.as_millis().to_string(), verify.to_string()])
            .env("SOFTHSM2_CONF", conf);
        if let Some(address) = address {
            command.env("P11_KIT_SERVER_ADDRESS", address);
        }
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        piped.spawn().unwrap()
    };
    // One after another: SoftHSM2 processes that start at the same time do not all see their token.
    let (mut children, mut said) = (Vec::new(), Vec::new());
    for _ in 0..size.processes {
        let mut child: Child = start();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        children.push(child);
        said.push(lines);
    }
    for child in &mut children {
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }
    let mut sum = 0.0;
    for (lines, child) in said.iter_mut().zip(&mut children) {
        let mut text = String::new();
        lines.read_to_string(&mut text).unwrap();
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        sum += said["per_second"].as_f64().unwrap();
        child.wait().unwrap();
    }
    sum
}

/// One of those processes: MODULE, CKA_ID, public key, milliseconds, whether to verify.
fn direct(arguments: &[String]) {
    let [module, id, public_key, milliseconds, verify] = arguments else {
        panic!("{arguments:?}")
    };
    let module = Pkcs11::new(module).unwrap();
    module
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let is_ours = |slot: &cryptoki::slot::Slot| {
        module
            .get_token_info(*slot)
            .is_ok_and(|info| info.label() == "test")
    };
    // Not those with a token: through p11-kit 0.24, cryptoki asks for these without end at times.
    let slots = module.get_all_slots().unwrap();
    let slot = slots.into_iter().find(is_ours).unwrap();
    let session = module.open_rw_session(slot).unwrap();
    session
        .login(UserType::User, Some(&AuthPin::from(PIN.to_owned())))
        .unwrap();
    let wanted = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Id(unhex(id)),
    ];
    let find = || session.find_objects(&wanted).unwrap()[0];
    let key = std::cell::Cell::new(find());
    let public = PublicKey::from_spki(&unhex(public_key)).unwrap();
    let algorithm = public.kind().algorithms()[0];
    let is_rsa = public.kind() == KeyKind::Rsa2048;
    // DigestInfo of SHA-256 (RFC 8017 9.2, note 1).
    let info = unhex("3031300d060960864801650304020105000420");
    let digest = [7; 32];
    let try_sign = || {
        if is_rsa {
            let input = [&info[..], &digest].concat();
            return session.sign(&Mechanism::RsaPkcs, key.get(), &input);
        }
        let pair = session.sign(&Mechanism::Ecdsa, key.get(), &digest)?;
        Ok(pair_to_der(&pair).unwrap().to_vec())
    };
    // SoftHSM2 forgets handles when another process has changed the token, as the one that made the key did.
    let sign = || {
        try_sign().unwrap_or_else(|_| {
            key.set(find());
            try_sign().unwrap()
        })
    };
    let verify = verify == "true";
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let (from, mut took) = (soon(0), Vec::new());
    let long = Duration::from_millis(milliseconds.parse().unwrap());
    let mut before = from;
    while before - from < long {
        let signature = sign();
        if verify {
            public.verify(algorithm, &digest, &signature).unwrap();
        }
        let now = soon(0);
        took.push((now - before).as_micros() as u64);
        before = now;
    }
    println!("{}", told(&mut took, before - from));
}

fn told(took: &mut [u64], long: Duration) -> serde_json::Value {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    serde_json::json!({
        "per_second": took.len() as f64 / long.as_secs_f64(),
        "latency_us": { "p50": at(0.5), "p99": at(0.99), "max": at(1.0) },
    })
}

/// `p11-kit server`, which forks a process for each of its clients; ended when dropped.
struct P11Kit {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl P11Kit {
    /// `None` where it is not installed.
    fn start(conf: &Path) -> Option<Self> {
        if !Path::new(P11_KIT_CLIENT).exists() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let process = Command::new("p11-kit")
            .args(["server", "--foreground", "--provider", SOFTHSM, "--name"])
            .arg(&socket)
            .arg("pkcs11:token=test")
            .env("SOFTHSM2_CONF", conf)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        wait_until("p11-kit server listens", || socket.exists());
        Some(Self {
            process,
            address: format!("unix:path={}", socket.display()),
            _folder: folder,
        })
    }
}

impl Drop for P11Kit {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
