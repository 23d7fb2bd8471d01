//! SDF (GM/T 0018-2012), the interface of Chinese cryptographic devices: SM2 signatures with keys that the device knows by
//! index. Keys are made with the vendor's tools; this file finds them and signs with them.
#![expect(
    unsafe_code,
    reason = "an SDF library is C: every call goes through a function pointer"
)]

use std::collections::HashSet;
use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::sync::Arc;

use libloading::Library;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::verify::{CURVE_SM2, pair_to_der};
use zeroize::Zeroizing;

use super::module::{Made, ModuleError, Session};
use crate::device::ckr::Class;
use crate::device::wire::{DeviceObject, OpKey, Order, Ordered, Setup, TokenFacts};

/// Numbers of at most 512 bits in fields of 64 bytes; those of SM2 stand on the right (5.3 of the standard).
const FIELD: usize = 64;
const NUMBER: usize = 32;
/// Indexes that are looked at for a list.
const INDEXES: std::ops::RangeInclusive<u32> = 1..=64;

#[repr(C, packed)]
struct DeviceInfo {
    issuer_name: [c_uchar; 40],
    device_name: [c_uchar; 16],
    device_serial: [c_uchar; 16],
    device_version: c_uint,
    standard_version: c_uint,
    asym_alg_ability: [c_uint; 2],
    sym_alg_ability: c_uint,
    hash_alg_ability: c_uint,
    buffer_size: c_uint,
}

#[repr(C, packed)]
struct EccPublicKey {
    bits: c_uint,
    x: [c_uchar; FIELD],
    y: [c_uchar; FIELD],
}

#[repr(C, packed)]
struct EccSignature {
    r: [c_uchar; FIELD],
    s: [c_uchar; FIELD],
}

type Handle = *mut c_void;

/// The functions that are needed, with the types of the standard's annex B.
struct Functions {
    open_device: unsafe extern "C" fn(*mut Handle) -> c_int,
    open_session: unsafe extern "C" fn(Handle, *mut Handle) -> c_int,
    close_session: unsafe extern "C" fn(Handle) -> c_int,
    device_info: unsafe extern "C" fn(Handle, *mut DeviceInfo) -> c_int,
    access_right: unsafe extern "C" fn(Handle, c_uint, *const c_char, c_uint) -> c_int,
    export_public: unsafe extern "C" fn(Handle, c_uint, *mut EccPublicKey) -> c_int,
    sign: unsafe extern "C" fn(Handle, c_uint, *const c_uchar, c_uint, *mut EccSignature) -> c_int,
    // Never unloaded: the pointers above point into it.
    _library: Library,
}

impl Functions {
    fn load(path: &str) -> Result<Self, libloading::Error> {
        // SAFETY: loading runs the library's constructors; the operator has named it as an SDF library.
        let library = unsafe { Library::new(path) }?;
        // SAFETY: the names have these types in the standard, and the library outlives the pointers.
        unsafe {
            Ok(Self {
                open_device: *library.get(b"SDF_OpenDevice\0")?,
                open_session: *library.get(b"SDF_OpenSession\0")?,
                close_session: *library.get(b"SDF_CloseSession\0")?,
                device_info: *library.get(b"SDF_GetDeviceInfo\0")?,
                access_right: *library.get(b"SDF_GetPrivateKeyAccessRight\0")?,
                export_public: *library.get(b"SDF_ExportSignPublicKey_ECC\0")?,
                sign: *library.get(b"SDF_InternalSign_ECC\0")?,
                _library: library,
            })
        }
    }
}

/// The library and the device it has opened, for all sessions of the process.
struct Card {
    functions: Functions,
    device: Handle,
    password: Zeroizing<Vec<u8>>,
    probe: Option<u32>,
}

// SAFETY: the standard has one device handle serve many sessions on many threads; nothing here changes it.
unsafe impl Send for Card {}
// SAFETY: as above.
unsafe impl Sync for Card {}

/// One session.
struct CardSession {
    card: Arc<Card>,
    session: Handle,
    /// Keys that this session may use: the right is a session's (6.2.6 of the standard).
    allowed: HashSet<u32>,
}

// SAFETY: a session is used by one thread at a time, whichever it is.
unsafe impl Send for CardSession {}

/// What a code of annex A calls for.
fn class_of(code: c_int) -> Class {
    match code & 0xff {
        // NOTSUPPORT, KEYNOTEXIST, ALG(MOD)NOTSUPPORT, VERIFYERR, the file's codes, KEYTYPEERR, KEYERR, ENCDATAERR, the
        // arguments' codes.
        0x02 | 0x08..=0x0a | 0x0e | 0x11..=0x16 | 0x1a..=0x1e => Class::Request,
        // COMMFAIL, OPENSESSION, PARDENY (a right that was given is gone), STEPERR.
        0x03 | 0x06 | 0x07 | 0x10 => Class::Session,
        // PRKRERR: the password is wrong.
        0x18 => Class::Auth,
        // UNKNOWERR, HARDFAIL, OPENDEVICE, PKOPERR, SKOPERR, SIGNERR, SYMOPERR, RANDERR, MACERR, and vendors' own.
        _ => Class::Device,
    }
}

fn ok(function: &'static str, code: c_int) -> Result<(), ModuleError> {
    if code == 0 {
        return Ok(());
    }
    Err(ModuleError::new(
        class_of(code),
        format!("{function} answered {code:#010x}"),
    ))
}

/// Opens the device with as many sessions as asked for.
pub(super) fn open(setup: &Setup<'_>) -> Result<(TokenFacts, Vec<Box<dyn Session>>), ModuleError> {
    let functions =
        Functions::load(setup.module).map_err(|error| ModuleError::new(Class::Device, error.to_string()))?;
    let mut device = std::ptr::null_mut();
    // SAFETY: the argument is a place for one handle.
    ok("SDF_OpenDevice", unsafe {
        (functions.open_device)(&raw mut device)
    })?;
    let probe = setup.probe.map(parse_index).transpose()?;
    let password = Zeroizing::new(setup.pin.as_bytes().to_vec());
    let card = Arc::new(Card {
        functions,
        device,
        password,
        probe,
    });
    let sessions: Result<Vec<_>, _> = (0..setup.sessions.max(1))
        .map(|_| CardSession::open(&card))
        .collect();
    let mut sessions = sessions?;
    let facts = sessions[0].facts()?;
    // A wrong password must be found now, once, and not by every request.
    let probe = sessions[0].probe_index()?;
    sessions[0].allow(probe)?;
    let boxed = sessions
        .into_iter()
        .map(|session| Box::new(session) as Box<dyn Session>);
    Ok((facts, boxed.collect()))
}

fn parse_index(text: &str) -> Result<u32, ModuleError> {
    text.parse()
        .map_err(|_| ModuleError::new(Class::Request, format!("'{text}' is no key index")))
}

/// A key's index as the pool keeps it.
fn index_of(object: &[u8]) -> Result<u32, ModuleError> {
    let bytes = object
        .try_into()
        .map_err(|_| ModuleError::new(Class::Request, "no key index"))?;
    Ok(u32::from_be_bytes(bytes))
}

fn unsupported() -> ModuleError {
    ModuleError::new(
        Class::Request,
        "an SDF device does not do this; its keys are made with the vendor's tools",
    )
}

/// A text that ends at its first zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

/// The number in a field; `None` where something stands to the left of it.
fn number(field: &[u8; FIELD]) -> Option<&[u8]> {
    let (left, right) = field.split_at(FIELD - NUMBER);
    left.iter().all(|byte| *byte == 0).then_some(right)
}

impl CardSession {
    fn open(card: &Arc<Card>) -> Result<Self, ModuleError> {
        let mut session = std::ptr::null_mut();
        // SAFETY: the device is open, and the argument is a place for one handle.
        ok("SDF_OpenSession", unsafe {
            (card.functions.open_session)(card.device, &raw mut session)
        })?;
        Ok(Self {
            card: Arc::clone(card),
            session,
            allowed: HashSet::new(),
        })
    }

    fn facts(&self) -> Result<TokenFacts, ModuleError> {
        let mut info = std::mem::MaybeUninit::<DeviceInfo>::zeroed();
        // SAFETY: the session is open, and the argument is a place for one DEVICEINFO.
        ok("SDF_GetDeviceInfo", unsafe {
            (self.card.functions.device_info)(self.session, info.as_mut_ptr())
        })?;
        // SAFETY: it was zeroed, and any bytes are a DeviceInfo.
        let info = unsafe { info.assume_init() };
        let version = info.standard_version;
        Ok(TokenFacts {
            label: text(&info.device_name),
            serial: text(&info.device_serial),
            model: format!("{} {}", text(&info.issuer_name), text(&info.device_name)),
            interface: format!("SDF (GM/T 0018) {version}"),
            sessions_max: 0,
            keks: Vec::new(),
        })
    }

    fn public_key(&self, index: u32) -> Result<Vec<u8>, ModuleError> {
        let mut key = EccPublicKey {
            bits: 0,
            x: [0; FIELD],
            y: [0; FIELD],
        };
        // SAFETY: the session is open, and the argument is a place for one ECCrefPublicKey.
        let code = unsafe { (self.card.functions.export_public)(self.session, index, &raw mut key) };
        ok("SDF_ExportSignPublicKey_ECC", code)?;
        let (x, y) = (key.x, key.y);
        let unreadable = || ModuleError::new(Class::Device, "a public key that is not of 256 bits");
        let (x, y) = (
            number(&x).ok_or_else(unreadable)?,
            number(&y).ok_or_else(unreadable)?,
        );
        sm2_spki(&[&[4], x, y].concat()).ok_or_else(unreadable)
    }

    /// The key of probe signatures: the configured one, or the lowest that there is.
    fn probe_index(&self) -> Result<u32, ModuleError> {
        if let Some(index) = self.card.probe {
            return Ok(index);
        }
        let found = INDEXES.into_iter().find(|index| self.public_key(*index).is_ok());
        found.ok_or_else(|| ModuleError::new(Class::Request, "the device has no signing key"))
    }

    /// Gets the right to use a private key, once a session.
    fn allow(&mut self, index: u32) -> Result<(), ModuleError> {
        if self.allowed.contains(&index) {
            return Ok(());
        }
        let password = &self.card.password;
        let length = c_uint::try_from(password.len()).map_err(|_| unsupported())?;
        // SAFETY: the session is open, and the password is `length` bytes that outlive the call.
        let code = unsafe {
            (self.card.functions.access_right)(self.session, index, password.as_ptr().cast(), length)
        };
        ok("SDF_GetPrivateKeyAccessRight", code)?;
        self.allowed.insert(index);
        Ok(())
    }

    fn sign_e(&mut self, index: u32, e: &[u8]) -> Result<Vec<u8>, ModuleError> {
        self.allow(index)?;
        let length = c_uint::try_from(e.len()).map_err(|_| unsupported())?;
        let mut signature = EccSignature {
            r: [0; FIELD],
            s: [0; FIELD],
        };
        // SAFETY: the session is open, e is `length` bytes, and the last argument is a place for one ECCSignature.
        let code = unsafe {
            (self.card.functions.sign)(self.session, index, e.as_ptr(), length, &raw mut signature)
        };
        ok("SDF_InternalSign_ECC", code)?;
        let (r, s) = (signature.r, signature.s);
        let pair = number(&r).zip(number(&s)).map(|(r, s)| [r, s].concat());
        let der = pair.as_deref().and_then(pair_to_der);
        let unreadable = || ModuleError::new(Class::Device, "a signature that is not of 256 bits");
        der.map(|der| der.to_vec()).ok_or_else(unreadable)
    }

    fn made(&self, index: u32) -> Result<Ordered, ModuleError> {
        Ok(Ordered::Made {
            object: index.to_be_bytes().to_vec(),
            public_key: self.public_key(index)?,
            wrapped: None,
        })
    }

    fn list(&self) -> Vec<DeviceObject> {
        let there = INDEXES.filter(|index| self.public_key(*index).is_ok());
        let show = |index: u32| DeviceObject {
            id: index.to_be_bytes().to_vec(),
            label: index.to_string(),
        };
        there.map(show).collect()
    }
}

impl Session for CardSession {
    fn sign(&mut self, key: &OpKey<'_>, algorithm: Algorithm, input: &[u8]) -> Result<Made, ModuleError> {
        let (OpKey::Object(object), Algorithm::Sm2Sm3E) = (key, algorithm) else {
            return Err(unsupported());
        };
        let signature = self.sign_e(index_of(object)?, input)?;
        Ok(Made {
            signature,
            unwrapped: false,
        })
    }

    fn order(&mut self, order: &Order) -> Result<Ordered, ModuleError> {
        match order {
            Order::List => Ok(Ordered::Objects(self.list())),
            Order::ProbeKey => self.made(self.probe_index()?),
            Order::Find { name, kind } if *kind == KeyKind::Sm2.name() => self.made(parse_index(name)?),
            Order::Prove {
                object,
                wrapped: None,
                input,
                ..
            } => Ok(Ordered::Blob(self.sign_e(index_of(object)?, input)?)),
            _ => Err(unsupported()),
        }
    }

    fn renew(&mut self) -> Result<(), ModuleError> {
        let fresh = Self::open(&self.card)?;
        // The old one closes as it is dropped.
        *self = fresh;
        Ok(())
    }
}

impl Drop for CardSession {
    fn drop(&mut self) {
        // SAFETY: the session was opened by this library and is closed once. One that cannot be closed goes with the
        // process.
        let _ = unsafe { (self.card.functions.close_session)(self.session) };
    }
}

/// SubjectPublicKeyInfo of an SM2 point (GB/T 35276: id-ecPublicKey with the curve of SM2).
fn sm2_spki(point: &[u8]) -> Option<Vec<u8>> {
    use der::Encode;
    spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier {
            oid: der::asn1::ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"),
            parameters: Some(CURVE_SM2),
        },
        subject_public_key: der::asn1::BitString::from_bytes(point).ok()?,
    }
    .to_der()
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_annex_a_has_its_class() {
        let class = |low: c_int| class_of(0x0100_0000 + low);
        for low in [
            0x02, 0x08, 0x09, 0x0a, 0x0e, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e,
        ] {
            assert_eq!(class(low), Class::Request, "{low:#x}");
        }
        for low in [0x03, 0x06, 0x07, 0x10] {
            assert_eq!(class(low), Class::Session, "{low:#x}");
        }
        for low in [0x01, 0x04, 0x05, 0x0b, 0x0c, 0x0d, 0x0f, 0x17, 0x19, 0x7f] {
            assert_eq!(class(low), Class::Device, "{low:#x}");
        }
        assert_eq!(class(0x18), Class::Auth);
    }

    #[test]
    fn numbers_stand_on_the_right_of_their_fields() {
        let mut field = [0; FIELD];
        field[NUMBER..].fill(7);
        assert_eq!(number(&field), Some(&[7; NUMBER][..]));
        field[3] = 1;
        assert_eq!(number(&field), None);
    }
}
