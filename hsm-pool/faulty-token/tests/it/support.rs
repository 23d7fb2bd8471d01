//! A SoftHSM2 token of this process's own, the faulty module in front of it, and its script.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

pub(crate) const LABEL: &str = "test";
const PIN: &str = "123456";

/// The object identifier of P-256 as CKA_EC_PARAMS.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The module that cargo has built beside this test.
pub(crate) fn module() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("libfaulty_token.so");
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "-q", "-p", "faulty-token"])
            .status();
        assert!(cargo.unwrap().success());
    });
    assert!(path.exists(), "{}", path.display());
    path
}

/// A folder with a token in it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path("tokens")).unwrap();
        let text = format!("directories.tokendir = {}\n", folder.path("tokens").display());
        std::fs::write(folder.path("softhsm2.conf"), text).unwrap();
        let initialise = [
            "--init-token",
            "--free",
            "--label",
            LABEL,
            "--pin",
            PIN,
            "--so-pin",
            "12345678",
        ];
        let made = folder.command("softhsm2-util").args(initialise).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program that finds the token and, should it load the faulty module, the script.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.env("FAULTY_TOKEN_SCRIPT", self.path("script"));
        command
    }

    /// Says what goes wrong from now on.
    pub(crate) fn script(&self, text: &str) {
        write(&self.path("script"), text);
    }
}

fn write(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// The token of this process, through the faulty module, with a script of its own.
pub(crate) struct World {
    folder: Folder,
    pub(crate) module: Pkcs11,
}

impl World {
    /// A process has one: a PKCS#11 module cannot be initialised twice.
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        // SAFETY: before this no thread of this process reads the environment.
        #[expect(unsafe_code, reason = "SoftHSM2 finds its token through the environment")]
        unsafe {
            std::env::set_var("SOFTHSM2_CONF", folder.path("softhsm2.conf"));
        }
        // The script is found by the name of the link.
        symlink(module(), folder.path("hsm-1.so")).unwrap();
        write(&folder.path("hsm-1.script"), "ok");
        let module = Pkcs11::new(folder.path("hsm-1.so")).unwrap();
        module
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .unwrap();
        Self { folder, module }
    }

    /// The link by which the module was loaded.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path("hsm-1.so")
    }

    pub(crate) fn script(&self, text: &str) {
        write(&self.path().with_extension("script"), text);
    }

    /// The slot in which the token is, found as a caller should: by its label.
    pub(crate) fn slot(&self) -> Option<Slot> {
        let slots = self.module.get_slots_with_initialized_token().unwrap();
        slots
            .into_iter()
            .find(|slot| self.module.get_token_info(*slot).unwrap().label() == LABEL)
    }

    pub(crate) fn open(&self) -> Result<Session, Error> {
        self.module.open_rw_session(self.slot().unwrap())
    }

    /// A session in which the user is logged in, as all of the process's then are.
    pub(crate) fn login(&self) -> Session {
        let session = self.open().unwrap();
        session.login(UserType::User, Some(&pin())).unwrap();
        session
    }
}

pub(crate) fn pair(session: &Session) -> Result<(ObjectHandle, ObjectHandle), Error> {
    let public = [
        Attribute::EcParams(P256.to_vec()),
        Attribute::Token(true),
        Attribute::Verify(true),
    ];
    let private = [Attribute::Token(true), Attribute::Sign(true)];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
}

pub(crate) fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Ecdsa, key, &[0x5a; 32])
}

pub(crate) fn verify(session: &Session, key: ObjectHandle, signature: &[u8]) -> Result<(), Error> {
    session.verify(&Mechanism::Ecdsa, key, &[0x5a; 32], signature)
}

pub(crate) fn pin() -> AuthPin {
    AuthPin::new(PIN.into())
}

/// The code of a call that failed.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> RvError {
    match result.unwrap_err() {
        Error::Pkcs11(code, _) => code,
        other => panic!("{other}"),
    }
}
