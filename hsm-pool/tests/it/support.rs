//! A pool, the keys it is given, and a SoftHSM2 token of the test's own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use hsm_pool::device::{DeviceConfig, DeviceKey, Kind};
use hsm_pool::elastic::Bounds;
use hsm_pool::job::{Finished, Home, Sink, Work};
use hsm_pool::keys::{KeyMaterial, KeySource, WrappedKey};
use hsm_pool::lanes::Verify;
use hsm_pool::multi::Multi;
use hsm_pool::pool::{Pool, PoolConfig};
use parking_lot::Mutex;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::ids::{KeyRow, TenantRow};
use protocol::verify::{PublicKey, SM2_DEFAULT_USER_ID};
use zeroize::Zeroizing;

pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &str = "123456";

/// Where a job's key is.
#[derive(Clone, Debug)]
pub(crate) enum TestHome {
    Software,
    Devices(Vec<Arc<str>>, Vec<u8>),
    Wrapped(Vec<u8>),
}

pub(crate) struct Job {
    pub(crate) key: KeyRow,
    pub(crate) algorithm: Algorithm,
    pub(crate) input: Vec<u8>,
    pub(crate) home: TestHome,
    pub(crate) deadline: Instant,
}

impl Work for Job {
    fn key(&self) -> KeyRow {
        self.key
    }
    fn kind(&self) -> KeyKind {
        KeyKind::P256
    }
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    fn input(&self) -> &[u8] {
        &self.input
    }
    fn user_id(&self) -> &[u8] {
        SM2_DEFAULT_USER_ID
    }
    fn home(&self) -> Home<'_> {
        match &self.home {
            TestHome::Software => Home::Software,
            TestHome::Devices(names, object) => Home::Devices { names, object },
            TestHome::Wrapped(kek) => Home::Wrapped { kek },
        }
    }
    fn tenant(&self) -> TenantRow {
        TenantRow(1)
    }
    fn deadline(&self) -> Instant {
        self.deadline
    }
}

struct Outbox(Sender<Finished<Job>>);

impl Sink<Job> for Outbox {
    fn finished(&self, batch: Vec<Finished<Job>>) {
        for job in batch {
            self.0.send(job).unwrap();
        }
    }
}

/// A public key, and the private one where it is software or wrapped.
struct Pair {
    public_key: Vec<u8>,
    pkcs8: Option<Vec<u8>>,
    wrapped: Option<WrappedKey>,
}

/// Keys by row, in memory.
#[derive(Default)]
pub(crate) struct Keyring(Mutex<HashMap<KeyRow, Pair>>);

impl Keyring {
    pub(crate) fn add(&self, row: u32, public_key: &[u8], pkcs8: Option<&[u8]>) -> KeyRow {
        let pair = Pair {
            public_key: public_key.to_vec(),
            pkcs8: pkcs8.map(<[u8]>::to_vec),
            wrapped: None,
        };
        self.0.lock().insert(KeyRow(row), pair);
        KeyRow(row)
    }

    pub(crate) fn add_wrapped(&self, row: u32, key: &DeviceKey) -> KeyRow {
        let pair = Pair {
            public_key: key.public_key.clone(),
            pkcs8: None,
            wrapped: key.wrapped.clone(),
        };
        self.0.lock().insert(KeyRow(row), pair);
        KeyRow(row)
    }
}

impl KeySource for Keyring {
    fn load(&self, key: KeyRow) -> Result<KeyMaterial, String> {
        let keys = self.0.lock();
        let pair = keys.get(&key).ok_or("no such key")?;
        Ok(KeyMaterial {
            public_key: pair.public_key.clone(),
            pkcs8: pair.pkcs8.clone().map(Zeroizing::new),
            wrapped: pair.wrapped.clone(),
        })
    }
}

pub(crate) struct World {
    pub(crate) pool: Pool<Job>,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) finished: Receiver<Finished<Job>>,
}

pub(crate) fn world(devices: Vec<DeviceConfig>) -> World {
    world_with(devices, None)
}

pub(crate) fn world_with(devices: Vec<DeviceConfig>, multi: Option<Arc<Multi>>) -> World {
    let (sender, finished) = bounded(10_000);
    let keys = Arc::new(Keyring::default());
    let config = PoolConfig {
        lanes: Bounds { min: 2, max: 2 },
        queue: 1024,
        // The deadlines of jobs are ten seconds; a busy machine is no reason to refuse them.
        queue_ms_max: 10_000,
        verify: Verify::All,
        multi,
        key_cache: 100,
        devices,
    };
    let source: Arc<dyn KeySource> = keys.clone();
    let sink: Arc<dyn Sink<Job>> = Arc::new(Outbox(sender));
    let pool = Pool::start(config, source, &sink).unwrap();
    World { pool, keys, finished }
}

impl World {
    pub(crate) fn next(&self) -> Finished<Job> {
        self.finished
            .recv_timeout(Duration::from_secs(20))
            .expect("every job ends")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's deadline")]
pub(crate) fn soon(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

pub(crate) fn job(number: usize, key: KeyRow, algorithm: Algorithm, home: TestHome) -> Job {
    let text = format!("text {number}");
    let input = match algorithm.input() {
        protocol::algorithm::InputKind::Digest(hash) => hash.digest(text.as_bytes()).to_vec(),
        protocol::algorithm::InputKind::Message(_) => text.into_bytes(),
    };
    Job {
        key,
        algorithm,
        input,
        home,
        deadline: soon(10_000),
    }
}

pub(crate) fn assert_verifies(public_key: &[u8], job: &Job, signature: &[u8]) {
    let key = PublicKey::from_spki(public_key).unwrap();
    key.verify(job.algorithm, &job.input, signature)
        .expect("the signature verifies");
}

/// A fresh SoftHSM2 token in a folder of its own. Libraries find their tokens through the environment, which each
/// device has of its own.
pub(crate) struct SoftHsm {
    folder: tempfile::TempDir,
}

impl SoftHsm {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\n",
            tokens.display()
        );
        let token = Self { folder };
        std::fs::write(token.settings(), text).unwrap();
        succeeds(
            Command::new("softhsm2-util")
                .env("SOFTHSM2_CONF", token.settings())
                .args([
                    "--init-token",
                    "--free",
                    "--label",
                    "test",
                    "--pin",
                    PIN,
                    "--so-pin",
                    SO_PIN,
                ]),
        );
        token
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.path("softhsm2.conf")
    }

    pub(crate) fn device(&self, name: &str, module: &Path) -> DeviceConfig {
        let mut config = config(name, module, self.folder.path());
        config.environment = vec![
            ("SOFTHSM2_CONF".into(), self.settings().display().to_string()),
            (
                "FAULTY_TOKEN_SCRIPT".into(),
                self.path("script").display().to_string(),
            ),
        ];
        config
    }

    /// Tells the faulty module what to do from now on.
    pub(crate) fn script(&self, order: &str) {
        write_script(self.folder.path(), order);
    }
}

fn write_script(folder: &Path, order: &str) {
    let next = folder.join("script.next");
    std::fs::write(&next, order).unwrap();
    std::fs::rename(next, folder.join("script")).unwrap();
}

/// Kryoptic behind the faulty module. It survives `kill -9` at any moment; SoftHSM2 does not: it empties `token.object`
/// and writes it again at each login, and a process that is killed in between takes the token with it.
pub(crate) struct FaultyKryoptic {
    pub(crate) config: DeviceConfig,
    folder: tempfile::TempDir,
}

impl FaultyKryoptic {
    /// Its worker processes have a name of their own, so that they can be told from others.
    pub(crate) fn new(name: &str) -> Self {
        let (mut config, folder) = kryoptic_token(name);
        let module = std::mem::replace(&mut config.module, faulty_module());
        let worker = folder.path().join("worker");
        std::os::unix::fs::symlink(&config.program, &worker).unwrap();
        config.program = worker;
        config.environment.extend([
            ("FAULTY_TOKEN_MODULE".into(), module.display().to_string()),
            (
                "FAULTY_TOKEN_SCRIPT".into(),
                folder.path().join("script").display().to_string(),
            ),
        ]);
        Self { config, folder }
    }

    /// Tells the faulty module what to do from now on.
    pub(crate) fn script(&self, order: &str) {
        write_script(self.folder.path(), order);
    }
}

const SO_PIN: &str = "12345678";

fn succeeds(command: &mut Command) {
    let output = command.output().expect("it is installed (make test does it)");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn config(name: &str, module: &Path, writable: &Path) -> DeviceConfig {
    DeviceConfig {
        name: name.into(),
        kind: Kind::Pkcs11,
        module: module.into(),
        token_label: Some("test".into()),
        token_serial: None,
        pin: PIN.into(),
        processes: 1,
        processes_max: 1,
        sessions: 1,
        in_flight_max: None,
        unwrapped_max: 64,
        probe_key: None,
        writable: Some(vec![writable.into()]),
        environment: Vec::new(),
        program: env!("CARGO_BIN_EXE_hsm-worker").into(),
    }
}

/// A device, and the folder that its token lives in.
pub(crate) struct Rig {
    pub(crate) config: DeviceConfig,
    _folder: Box<dyn std::any::Any>,
}

pub(crate) fn softhsm(name: &str) -> Rig {
    let token = SoftHsm::new();
    Rig {
        config: token.device(name, Path::new(SOFTHSM)),
        _folder: Box::new(token),
    }
}

/// A fresh token of Kryoptic, which `scripts/install.sh test` has built.
pub(crate) fn kryoptic(name: &str) -> Rig {
    let (config, folder) = kryoptic_token(name);
    Rig {
        config,
        _folder: Box::new(folder),
    }
}

fn kryoptic_token(name: &str) -> (DeviceConfig, tempfile::TempDir) {
    let module = workspace().join("target/kryoptic/release/libkryoptic_token.so");
    assert!(
        module.exists(),
        "no {}; `scripts/install.sh test target/venv` builds it",
        module.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("kryoptic.conf");
    let text = format!(
        "[ec_point_encoding]\nencoding = \"Der\"\n\n[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
        folder.path().join("token.sql").display()
    );
    std::fs::write(&conf, text).unwrap();
    let tool = || {
        let mut tool = Command::new("pkcs11-tool");
        tool.env("KRYOPTIC_CONF", &conf).arg("--module").arg(&module);
        tool
    };
    succeeds(tool().args([
        "--init-token",
        "--slot",
        "1",
        "--label",
        "test",
        "--so-pin",
        SO_PIN,
    ]));
    let init = [
        "--token-label",
        "test",
        "--login",
        "--login-type",
        "so",
        "--so-pin",
        SO_PIN,
        "--init-pin",
        "--pin",
        PIN,
    ];
    succeeds(tool().args(init));
    let mut config = config(name, &module, folder.path());
    config.environment = vec![("KRYOPTIC_CONF".into(), conf.display().to_string())];
    (config, folder)
}

/// A software SDF device with two keys.
pub(crate) fn sdf(name: &str) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    // The private key of GM/T 0003.5-2012, and another one.
    let first = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8";
    let second = "128b2fa8bd433c6c068c8d803dff79792a519a55171b1b650c23661d15897263";
    std::fs::write(&keys, format!("1 {PIN} {first}\n2 {PIN} {second}\n")).unwrap();
    let mut config = config(name, &built("soft-sdf", "libsoft_sdf.so"), folder.path());
    config.kind = Kind::Sdf;
    config.token_label = None;
    config.environment = vec![
        ("SOFT_SDF_CONFIG".into(), keys.display().to_string()),
        (
            "SOFT_SDF_SCRIPT".into(),
            folder.path().join("script").display().to_string(),
        ),
    ];
    Rig {
        config,
        _folder: Box::new(folder),
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The faulty module.
pub(crate) fn faulty_module() -> PathBuf {
    built("faulty-token", "libfaulty_token.so")
}

/// A library of the workspace, built when it is not there yet.
fn built(package: &str, file: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
    let path = Path::new(env!("CARGO_BIN_EXE_hsm-worker")).with_file_name(file);
    if !path.exists() {
        succeeds(Command::new(env!("CARGO")).args(["build", "-q", "-p", package]));
    }
    assert!(path.exists(), "{}", path.display());
    path
}

pub(crate) fn generate(world: &World, device: &str, row: u32, kind: KeyKind) -> (KeyRow, DeviceKey) {
    let made = world.pool.generate(device, kind, "a label", None).unwrap();
    (world.keys.add(row, &made.public_key, None), made)
}

/// An object in one device.
pub(crate) fn on(device: &str, object: &[u8]) -> TestHome {
    TestHome::Devices(vec![device.into()], object.to_vec())
}

pub(crate) fn load(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(std::sync::atomic::Ordering::Relaxed)
}

/// Waits until something is so. The looks are apart, so that they do not take the processor from what is waited for.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = soon(WAIT_MS_MAX);
    while !is_so() {
        assert!(soon(0) < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A device that is quarantined is probed after pauses of up to 30 s.
pub(crate) const WAIT_MS_MAX: u64 = 40_000;
