//! The library's functions with Rust's types, and SM2 once more by the crate `sm2` from the exported public key alone.

use std::ffi::{c_int, c_uchar, c_uint, c_void};
use std::path::PathBuf;
use std::process::Command;

use libloading::{Library as Loaded, Symbol};
use sm2::dsa::signature::Verifier;
use sm2::dsa::{Signature as Sm2Signature, VerifyingKey};
use sm3::{Digest, Sm3};

pub(crate) const KEY: u32 = 3;
pub(crate) const PASSWORD: &[u8] = b"secret";
/// The private key of GM/T 0003.5-2012, example A.2.
const PRIVATE_KEY: &str = "3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8";
/// The user id of the same example, which is the default one (GM/T 0009-2012).
const USER_ID: &str = "1234567812345678";

/// An ECCSignature: r and s on the right of 64 bytes each.
pub(crate) type Signature = [u8; 128];
/// An ECCrefPublicKey: length in bits, then x and y likewise.
pub(crate) type PublicKey = [u8; 132];
pub(crate) type DeviceInfo = [u8; 100];

/// The library of this process, its keys and its script.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) library: Library,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let password = String::from_utf8_lossy(PASSWORD);
        std::fs::write(
            &keys,
            format!("# index, password, key\n{KEY} {password} {PRIVATE_KEY}\n"),
        )
        .unwrap();
        // SAFETY: the one test of this process runs this before anything else reads the environment.
        unsafe {
            std::env::set_var("SOFT_SDF_CONFIG", keys);
            std::env::set_var("SOFT_SDF_SCRIPT", folder.path().join("script"));
        }
        Self {
            folder,
            library: Library::load(),
        }
    }

    /// Says what goes wrong from now on.
    pub(crate) fn script(&self, text: &str) {
        std::fs::write(self.folder.path().join("script"), text).unwrap();
    }
}

pub(crate) struct Library(Loaded);

fn path() -> PathBuf {
    let cargo = Command::new(env!("CARGO"))
        .args(["build", "-q", "-p", "soft-sdf"])
        .status();
    assert!(cargo.unwrap().success());
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("libsoft_sdf.so")
}

fn pointer(handle: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(handle)
}

fn result<T>(code: c_int, value: T) -> Result<T, c_int> {
    if code == 0 { Ok(value) } else { Err(code) }
}

/// Calls a function by its name in the standard.
macro_rules! call {
    ($library:expr, $name:literal: fn($($type:ty),*), $($argument:expr),*) => {{
        // SAFETY: the types are those of GM/T 0018-2012, and pointers lead to what it asks for.
        unsafe {
            let function: Symbol<'_, unsafe extern "C" fn($($type),*) -> c_int> = $library.0.get($name).unwrap();
            function($($argument),*)
        }
    }};
}

impl Library {
    fn load() -> Self {
        // SAFETY: loading it runs no code of its own.
        Self(unsafe { Loaded::new(path()) }.unwrap())
    }

    pub(crate) fn open_device(&self) -> Result<usize, c_int> {
        let mut handle = std::ptr::null_mut();
        let code = call!(self, b"SDF_OpenDevice": fn(*mut *mut c_void), &raw mut handle);
        result(code, handle.addr())
    }

    pub(crate) fn close_device(&self, device: usize) -> c_int {
        call!(self, b"SDF_CloseDevice": fn(*mut c_void), pointer(device))
    }

    pub(crate) fn open_session(&self, device: usize) -> Result<usize, c_int> {
        let mut handle = std::ptr::null_mut();
        let code = call!(
            self, b"SDF_OpenSession": fn(*mut c_void, *mut *mut c_void), pointer(device), &raw mut handle
        );
        result(code, handle.addr())
    }

    pub(crate) fn close_session(&self, session: usize) -> c_int {
        call!(self, b"SDF_CloseSession": fn(*mut c_void), pointer(session))
    }

    pub(crate) fn device_info(&self, session: usize) -> Result<DeviceInfo, c_int> {
        let mut info = [0xff; 100];
        let code = call!(
            self, b"SDF_GetDeviceInfo": fn(*mut c_void, *mut DeviceInfo), pointer(session), &raw mut info
        );
        result(code, info)
    }

    pub(crate) fn random<const N: usize>(&self, session: usize) -> Result<[u8; N], c_int> {
        let mut out = [0; N];
        let code = call!(
            self, b"SDF_GenerateRandom": fn(*mut c_void, c_uint, *mut c_uchar),
            pointer(session), N as c_uint, out.as_mut_ptr()
        );
        result(code, out)
    }

    pub(crate) fn allow(&self, session: usize, index: u32, password: &[u8]) -> c_int {
        call!(
            self, b"SDF_GetPrivateKeyAccessRight": fn(*mut c_void, c_uint, *const c_uchar, c_uint),
            pointer(session), index, password.as_ptr(), password.len() as c_uint
        )
    }

    pub(crate) fn disallow(&self, session: usize, index: u32) -> c_int {
        call!(self, b"SDF_ReleasePrivateKeyAccessRight": fn(*mut c_void, c_uint), pointer(session), index)
    }

    pub(crate) fn public_key(&self, session: usize, index: u32) -> Result<PublicKey, c_int> {
        let mut key = [0xff; 132];
        let code = call!(
            self, b"SDF_ExportSignPublicKey_ECC": fn(*mut c_void, c_uint, *mut PublicKey),
            pointer(session), index, &raw mut key
        );
        result(code, key)
    }

    fn sign_to(&self, session: usize, index: u32, digest: &[u8], place: *mut Signature) -> c_int {
        call!(
            self,
            b"SDF_InternalSign_ECC": fn(*mut c_void, c_uint, *const c_uchar, c_uint, *mut Signature),
            pointer(session), index, digest.as_ptr(), digest.len() as c_uint, place
        )
    }

    pub(crate) fn sign(&self, session: usize, index: u32, digest: &[u8]) -> Result<Signature, c_int> {
        let mut signature = [0xff; 128];
        let code = self.sign_to(session, index, digest, &raw mut signature);
        result(code, signature)
    }

    pub(crate) fn sign_to_nowhere(&self, session: usize, index: u32, digest: &[u8]) -> c_int {
        self.sign_to(session, index, digest, std::ptr::null_mut())
    }

    pub(crate) fn verify(&self, session: usize, index: u32, digest: &[u8], signature: &Signature) -> c_int {
        call!(
            self,
            b"SDF_InternalVerify_ECC": fn(*mut c_void, c_uint, *const c_uchar, c_uint, *const Signature),
            pointer(session), index, digest.as_ptr(), digest.len() as c_uint, signature
        )
    }
}

pub(crate) fn sm3(data: &[u8]) -> [u8; 32] {
    Sm3::digest(data).into()
}

/// a, b, x and y of the generator: the curve's part of Z (GM/T 0003.5-2012).
const CURVE: &str = "FFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFC\
    28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93\
    32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7\
    BC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0";

/// e = SM3(Z ‖ M), from nothing but the exported public key (GM/T 0009-2012, 8.1 and 8.2).
pub(crate) fn digest_of_message(public: &PublicKey, message: &[u8]) -> [u8; 32] {
    let mut z = vec![0x00, 0x80];
    z.extend_from_slice(USER_ID.as_bytes());
    let hex = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    z.extend(CURVE.as_bytes().chunks(2).map(hex));
    z.extend_from_slice(&public[36..68]);
    z.extend_from_slice(&public[100..132]);
    sm3(&[&sm3(&z)[..], message].concat())
}

/// Whether a stranger who has only the public key accepts the signature of this message.
pub(crate) fn judge(public: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let point = [&[4], &public[36..68], &public[100..132]].concat();
    let key = VerifyingKey::from_sec1_bytes(USER_ID, &point).unwrap();
    let numbers = [&signature[32..64], &signature[96..128]].concat();
    key.verify(message, &Sm2Signature::from_slice(&numbers).unwrap())
        .is_ok()
}
