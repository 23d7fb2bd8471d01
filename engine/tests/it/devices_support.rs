//! Devices of a test's own: tokens of SoftHSM2 and Kryoptic and a software SDF card, in the folder of the engine that uses
//! them, and the text of the configuration that names them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{BINARY, Engine, Ran, Setup, run, wait_until};

pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &str = "87120936";
const SO_PIN: &str = "12345678";
/// The profile that a development engine writes.
pub(crate) const PROFILE: &str = "var/dev/app.toml";

/// A folder with tokens, before an engine starts in it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    config: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            config: String::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// More text of the configuration file: before the devices, or in the last one.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self
    }

    /// A device on a SoftHSM2 token of its own.
    pub(crate) fn softhsm(mut self, name: &str) -> Self {
        let text = self.softhsm_text(name, Path::new(SOFTHSM));
        self.config.push_str(&text);
        self
    }

    /// The same, behind the module that does what [`order`] says.
    pub(crate) fn faulty(mut self, name: &str) -> Self {
        let text = self.softhsm_text(name, &built("faulty-token", "libfaulty_token.so"));
        self.config.push_str(&text);
        order(self.folder.path(), name, "ok");
        self
    }

    /// Makes a SoftHSM2 token; the text that names it.
    pub(crate) fn softhsm_text(&self, name: &str, module: &Path) -> String {
        let (tokens, settings) = (
            self.path(&format!("{name}.tokens")),
            self.path(&format!("{name}.conf")),
        );
        std::fs::create_dir(&tokens).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\n",
            tokens.display()
        );
        std::fs::write(&settings, text).unwrap();
        let line = format!("--init-token --free --label {name} --pin {PIN} --so-pin {SO_PIN}");
        let mut init = Command::new("softhsm2-util");
        run(init.args(line.split(' ')).env("SOFTHSM2_CONF", &settings)).ok();
        let environment = [
            ("SOFTHSM2_CONF", settings),
            ("FAULTY_TOKEN_SCRIPT", self.path(&format!("{name}.script"))),
        ];
        self.text(name, module, &environment, &format!("token_label = \"{name}\"\n"))
    }

    /// A device on a Kryoptic token of its own, which `scripts/install.sh test` has built.
    pub(crate) fn kryoptic(mut self, name: &str) -> Self {
        let (module, settings) = self.kryoptic_token(name);
        let label = format!("token_label = \"{name}\"\n");
        let text = self.text(name, &module, &[("KRYOPTIC_CONF", settings)], &label);
        self.config.push_str(&text);
        self
    }

    /// The same, behind the module that does what [`order`] says.
    pub(crate) fn faulty_kryoptic(mut self, name: &str) -> Self {
        let (module, settings) = self.kryoptic_token(name);
        let environment = [
            ("KRYOPTIC_CONF", settings),
            ("FAULTY_TOKEN_MODULE", module),
            ("FAULTY_TOKEN_SCRIPT", self.path(&format!("{name}.script"))),
        ];
        let label = format!("token_label = \"{name}\"\n");
        let faulty = built("faulty-token", "libfaulty_token.so");
        let text = self.text(name, &faulty, &environment, &label);
        self.config.push_str(&text);
        order(self.folder.path(), name, "ok");
        self
    }

    /// Makes a Kryoptic token: the module and its settings.
    fn kryoptic_token(&self, name: &str) -> (PathBuf, PathBuf) {
        let module = workspace().join("target/kryoptic/release/libkryoptic_token.so");
        assert!(
            module.exists(),
            "no {}; `make test-deps` builds it",
            module.display()
        );
        let (token, settings) = (
            self.path(&format!("{name}.sql")),
            self.path(&format!("{name}.conf")),
        );
        let text = format!(
            "[ec_point_encoding]\nencoding = \"Der\"\n\n[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            token.display()
        );
        std::fs::write(&settings, text).unwrap();
        for line in [
            format!("--init-token --slot 1 --label {name} --so-pin {SO_PIN}"),
            format!("--token-label {name} --login --login-type so --so-pin {SO_PIN} --init-pin --pin {PIN}"),
        ] {
            let mut tool = Command::new("pkcs11-tool");
            tool.env("KRYOPTIC_CONF", &settings).arg("--module").arg(&module);
            run(tool.args(line.split(' '))).ok();
        }
        (module, settings)
    }

    /// A software SDF card with the key of GM/T 0003.5-2012 under index 1.
    pub(crate) fn sdf(mut self, name: &str) -> Self {
        let keys = self.path(&format!("{name}.keys"));
        let first = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8";
        std::fs::write(&keys, format!("1 {PIN} {first}\n")).unwrap();
        let environment = [
            ("SOFT_SDF_CONFIG", keys),
            ("SOFT_SDF_SCRIPT", self.path(&format!("{name}.script"))),
        ];
        let module = built("soft-sdf", "libsoft_sdf.so");
        let text = self.text(name, &module, &environment, "kind = \"sdf\"\n");
        self.config.push_str(&text);
        self
    }

    fn text(&self, name: &str, module: &Path, environment: &[(&str, PathBuf)], more: &str) -> String {
        std::fs::write(self.path(&format!("{name}.pin")), format!("{PIN}\n")).unwrap();
        let module = module.display();
        let environment: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{name} = \"{}\"", value.display()))
            .collect();
        let environment = environment.join(", ");
        format!(
            "[[device]]\nname = \"{name}\"\nmodule = \"{module}\"\npin_file = \"{name}.pin\"\n\
             environment = {{ {environment} }}\n{more}"
        )
    }

    /// The configuration file's text and the folder, to start an engine in another way.
    pub(crate) fn into_parts(self) -> (tempfile::TempDir, String) {
        (self.folder, self.config)
    }

    /// Starts an engine and waits until every device works.
    pub(crate) fn start(self) -> Engine {
        let engine = Setup::default().config(&self.config).start_in(self.folder);
        wait_until_active(&engine);
        engine
    }
}

/// Tells the faulty module behind a device what to do from now on.
pub(crate) fn order(folder: &Path, device: &str, script: &str) {
    let next = folder.join(format!("{device}.next"));
    std::fs::write(&next, script).unwrap();
    std::fs::rename(next, folder.join(format!("{device}.script"))).unwrap();
}

/// Runs a command of the binary in the engine's folder.
pub(crate) fn cinnabar(engine: &Engine, line: &str) -> Ran {
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

/// The same, for its JSON.
#[track_caller]
pub(crate) fn json(engine: &Engine, line: &str) -> Value {
    serde_json::from_str(&cinnabar(engine, line).ok()).unwrap()
}

pub(crate) fn devices(engine: &Engine) -> Vec<Value> {
    let listed = json(engine, "device list --json");
    listed["devices"].as_array().unwrap().clone()
}

#[track_caller]
pub(crate) fn device(engine: &Engine, name: &str) -> Value {
    let all = devices(engine);
    let found = all.iter().find(|device| device["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}")).clone()
}

/// Waits until every device is active and serves.
pub(crate) fn wait_until_active(engine: &Engine) {
    wait_until("every device is active", || {
        devices(engine)
            .iter()
            .all(|device| device["state"] == "active" && device["processes_up"].as_u64() > Some(0))
    });
}

/// Signs `cinnabar.toml`, for want of another file, into the file `signature`.
pub(crate) fn sign(engine: &Engine, credential: &str, more: &str) -> Ran {
    let files = "--file cinnabar.toml --out signature";
    cinnabar(
        engine,
        &format!("sign --profile {PROFILE} --credential {credential} {files} {more}"),
    )
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A library of the workspace, built when it is not there yet.
fn built(package: &str, file: &str) -> PathBuf {
    static BUILDING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
    let path = Path::new(BINARY).with_file_name(file);
    if !path.exists() {
        run(Command::new(env!("CARGO")).args(["build", "-q", "-p", package])).ok();
    }
    assert!(path.exists(), "{}", path.display());
    path
}
