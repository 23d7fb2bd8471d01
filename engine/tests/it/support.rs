//! An engine of the test's own: the real binary, in a scratch folder, on ports that the system picks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use protocol::client::{Client, Profile, SignRequest, Transport};
use protocol::error_code::Refusal;
use protocol::ids::IdempotencyKey;
use protocol::message::{CredentialInfo, ItemOutcome};
use protocol::verify::PublicKey;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_cinnabar");
pub(crate) const BOTH: [Transport; 2] = [Transport::Quic, Transport::Https];

/// How an engine is started.
pub(crate) struct Setup {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: String,
    through: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            arguments: vec!["serve".into(), "--dev".into()],
            environment: Vec::new(),
            config: String::new(),
            through: Vec::new(),
        }
    }
}

impl Setup {
    /// One more setting.
    pub(crate) fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.extend(["--set".into(), format!("{key}={value}")]);
        self
    }

    /// An environment variable for the engine and its workers.
    pub(crate) fn environment(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().display().to_string()));
        self
    }

    /// Text of the configuration file.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self
    }

    /// A program, with its arguments, that runs the engine in its own place.
    pub(crate) fn through(mut self, words: &[String]) -> Self {
        self.through = words.to_vec();
        self
    }

    /// Starts it in a new folder.
    pub(crate) fn start(self) -> Engine {
        self.start_in(tempfile::tempdir().unwrap())
    }

    /// Starts it in a folder that may hold the data of an earlier one.
    pub(crate) fn start_in(self, folder: tempfile::TempDir) -> Engine {
        let process = self.spawn(folder.path());
        Engine::wait_ready(folder, process)
    }

    /// Starts the process and does not wait for it to be ready.
    pub(crate) fn spawn(&self, folder: &Path) -> Child {
        let mut command = match self.through.split_first() {
            Some((program, arguments)) => {
                let mut command = clean(Command::new(program));
                command.args(arguments).arg(BINARY);
                command
            }
            None => binary(),
        };
        command.current_dir(folder);
        if !self.config.is_empty() {
            std::fs::write(folder.join("cinnabar.toml"), &self.config).unwrap();
        }
        let loopback = "127.0.0.1:0";
        command
            .args(["--home", "var", "--listen", loopback, "--admin", loopback])
            .args(&self.arguments)
            // Behind the others: what stands before the command is forgotten where more follows it.
            .args(["--set", "pki=127.0.0.1:0", "--console", loopback]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// A running engine; killed when dropped.
pub(crate) struct Engine {
    pub(crate) folder: Option<tempfile::TempDir>,
    pub(crate) process: Child,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) pki: SocketAddr,
    pub(crate) console: SocketAddr,
}

fn address_after(line: &str, words: &str) -> SocketAddr {
    let rest = &line[line.find(words).unwrap() + words.len()..];
    rest.split([',', '\n']).next().unwrap().trim().parse().unwrap()
}

impl Engine {
    fn wait_ready(folder: tempfile::TempDir, mut process: Child) -> Self {
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if !line.starts_with("cinnabar is ready") {
            let mut log = String::new();
            let _ = process.kill();
            process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("the engine does not start: {line}{log}");
        }
        drain(process.stderr.take().unwrap());
        drain(lines.into_inner());
        Self {
            listen: address_after(&line, "QUIC and HTTPS on "),
            admin: address_after(&line, "metrics on "),
            pki: address_after(&line, "PKI on "),
            console: address_after(&line, "console on "),
            folder: Some(folder),
            process,
        }
    }

    pub(crate) fn start() -> Self {
        Setup::default().start()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("var")
    }

    pub(crate) fn dev(&self, name: &str) -> PathBuf {
        self.home().join("dev").join(name)
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile::read(&self.dev("app.toml")).unwrap()
    }

    pub(crate) async fn client(&self, transport: Transport) -> Client {
        Client::connect(&self.profile(), transport, 8).await.unwrap()
    }

    /// kill -9; the data stays.
    pub(crate) fn kill(mut self) -> tempfile::TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.folder.take().unwrap()
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        let status = Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.process.wait().unwrap()
    }

    /// Stopped in order; the data stays.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        let status = self.terminate();
        assert!(status.success(), "{status}");
        self.folder.take().unwrap()
    }

    /// A command of the binary that has to know where this engine listens.
    pub(crate) fn operate(&self, line: &str) -> String {
        let (listen, admin) = (self.listen.to_string(), self.admin.to_string());
        let mut words = vec!["--listen", &listen, "--admin", &admin];
        words.extend(line.split_whitespace());
        self.cli(&words).ok()
    }

    /// Makes a tenant `acme` with a balance, its credential `seal` and its app `erp`.
    pub(crate) fn make_prepaid(&self, units: usize) {
        self.operate(&format!("tenant create acme --prepaid {units}"));
        self.operate("key create --tenant acme --kind p256 seal");
        self.operate("app create --tenant acme erp --profile-out erp.toml");
    }

    /// The profile of the prepaid app. The port is another one after each start.
    pub(crate) fn prepaid_profile(&self) -> Profile {
        let path = self.folder.as_ref().unwrap().path().join("erp.toml");
        let mut profile = Profile::read(&path).unwrap();
        profile.address = self.listen;
        profile
    }

    /// Runs a command of the binary in this engine's folder.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Ran {
        run_in(self.folder.as_ref().unwrap().path(), arguments)
    }

    /// A GET from the admin listener: status line and body.
    pub(crate) fn admin_get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split_whitespace().nth(1).unwrap().parse().unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    /// One number from /metrics, by its full sample name.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let (_, text) = self.admin_get("/metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("{sample} ")));
        line.unwrap_or_else(|| panic!("no {sample}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads what a process says, so that it never waits for us; shown when a test fails.
fn drain(mut from: impl Read + Send + 'static) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 {
                return;
            }
            eprint!("{}", String::from_utf8_lossy(&buffer[..count]));
        }
    });
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary, without the settings and the test variables (TEST_PYTHON …) that are in our own environment:
/// it refuses to start with a variable that is no setting.
fn binary() -> Command {
    clean(Command::new(BINARY))
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CINNABAR_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn run_in(folder: &Path, arguments: &[&str]) -> Ran {
    run(binary()
        .current_dir(folder)
        .args(["--home", "var"])
        .args(arguments))
}

/// Runs any program.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Failed with this exit code, and with one line on standard error that names this error code.
    #[track_caller]
    pub(crate) fn refused(&self, exit: i32, code: &str) {
        assert_eq!(self.code, exit, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(
            self.stderr.starts_with(&format!("cinnabar: {code}: ")),
            "{self:?}"
        );
    }
}

pub(crate) fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).unwrap()
}

/// A request for a P-256 signature over SHA-256 of `text`.
pub(crate) fn request(idempotency_key: &str, text: &str) -> SignRequest {
    let algorithm = protocol::algorithm::Algorithm::EcdsaP256Sha256;
    SignRequest {
        credential: "demo-p256".into(),
        algorithm,
        format: protocol::algorithm::Format::Raw,
        key: key(idempotency_key),
        inputs: vec![protocol::algorithm::Hash::Sha256.digest(text.as_bytes()).to_vec()],
        user_id: None,
        deadline_ms: None,
    }
}

pub(crate) async fn credential(client: &Client, id: &str) -> CredentialInfo {
    client
        .credentials()
        .await
        .unwrap()
        .into_iter()
        .find(|info| info.id == id)
        .unwrap()
}

/// The signature of the only item, checked with the credential's public key.
#[track_caller]
pub(crate) fn checked(request: &SignRequest, info: &CredentialInfo, outcome: &ItemOutcome) -> Vec<u8> {
    let ItemOutcome::Done { signature, .. } = outcome else {
        panic!("not done: {outcome:?}")
    };
    let public_key = PublicKey::from_spki(&info.public_key).unwrap();
    public_key
        .verify(request.algorithm, &request.inputs[0], signature)
        .unwrap();
    signature.clone()
}

pub(crate) async fn sign_one(client: &Client, wanted: &SignRequest) -> Result<ItemOutcome, Refusal> {
    Ok(client.sign(wanted).await?.remove(0))
}

#[expect(clippy::disallowed_methods, reason = "tests measure and wait in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = now() + Duration::from_secs(10);
    while !is_so() {
        assert!(now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs an async test on a runtime of its own.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}
