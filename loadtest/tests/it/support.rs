//! An engine of the test's own, and the load tool's binary.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running engine; killed when dropped. It and the load tool work in the same scratch folder.
pub(crate) struct Engine {
    folder: tempfile::TempDir,
    process: Child,
}

/// The engine's binary lies where cargo puts every binary of the workspace.
fn engine_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_cinnabar-load")).with_file_name("cinnabar");
    assert!(
        path.exists(),
        "no {}; `cargo build -p engine` makes it",
        path.display()
    );
    path
}

/// A program without the settings and test variables that are in our own environment.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CINNABAR_") {
            command.env_remove(name);
        }
    }
    command
}

impl Engine {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let loopback = "127.0.0.1:0";
        let mut command = command(&engine_binary());
        command
            .current_dir(folder.path())
            .args([
                "--home",
                "var",
                "--listen",
                loopback,
                "--admin",
                loopback,
                "--set",
                "pki=127.0.0.1:0",
                "--console",
                loopback,
                "serve",
                "--dev",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut errors = process.stderr.take().unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if !line.starts_with("cinnabar is ready") {
            let mut log = String::new();
            let _ = process.kill();
            errors.read_to_string(&mut log).unwrap();
            panic!("the engine does not start: {line}{log}");
        }
        // Whatever else it says must not fill a pipe and hold it up.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { folder, process }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A file of the folder, as JSON.
    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    /// Sends the engine's process a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// The load tool, with a line of arguments.
    pub(crate) fn load(&self, arguments: &str) -> Ran {
        self.spawn(arguments).wait()
    }

    pub(crate) fn spawn(&self, arguments: &str) -> Running {
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_cinnabar-load")));
        command
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        Running {
            errors: BufReader::new(process.stderr.take().unwrap()),
            process,
        }
    }
}

fn signal(process: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name])
        .arg(process.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The load tool at work.
pub(crate) struct Running {
    process: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Reads its progress up to the line that holds some words.
    pub(crate) fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(
                self.errors.read_line(&mut line).unwrap() > 0,
                "it ended before it said '{words}'"
            );
        }
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        signal(&self.process, "INT");
    }

    pub(crate) fn wait(mut self) -> Ran {
        let mut stderr = String::new();
        self.errors.read_to_string(&mut stderr).unwrap();
        let output = self.process.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr,
        }
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Failed with this exit code, and with one line on standard error that names this error code and says this.
    #[track_caller]
    pub(crate) fn refused(&self, exit: i32, code: &str, says: &str) {
        assert_eq!(self.code, exit, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(
            self.stderr.starts_with(&format!("cinnabar-load: {code}: ")),
            "{self:?}"
        );
        assert!(self.stderr.contains(says), "{self:?}");
    }
}

/// The machine of a test may be busy with other tests: how late the generator was is not what is tested.
pub(crate) const PATIENT: &str = "generator_lag_p99_ms = 60000\ngenerator_lag_max_ms = 60000\n";

/// The sum of one member over a list.
pub(crate) fn sum(list: &Value, member: &str) -> u64 {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item[member].as_u64().unwrap())
        .sum()
}
