//! A software SDF library (GM/T 0018-2012, the interface of Chinese HSMs) with just what signing needs, for tests and
//! rehearsals. Its keys are in the file that `SOFT_SDF_KEYS` names, a line each: key index, private key in hexadecimal,
//! password. `SOFT_SDF_SCRIPT` names a file whose one line says how `SDF_InternalSign_ECC` behaves, read at every call:
//! `ok` (or no file), `hang`, `crash`, `slow MS`, `wrong`, `error CODE` (hexadecimal).
#![expect(unsafe_code, reason = "this crate is a C library: its interface is C pointers")]

use std::collections::HashSet;
use std::ffi::{c_int, c_uchar, c_uint, c_void};
use std::sync::Mutex;
use std::time::Duration;

use sm2::dsa::SigningKey;
use sm2::dsa::signature::hazmat::PrehashSigner;
use sm2::elliptic_curve::sec1::ToSec1Point;

const SDR_OK: c_int = 0;
const SDR_UNKNOWERR: c_int = 0x0100_0001;
const SDR_PARDENY: c_int = 0x0100_0007;
const SDR_KEYNOTEXIST: c_int = 0x0100_0008;
const SDR_SIGNERR: c_int = 0x0100_000D;
const SDR_INARGERR: c_int = 0x0100_001D;
const SDR_OUTARGERR: c_int = 0x0100_001E;

/// Numbers are 64 bytes wide, and those of 256 bits stand on the right.
const FIELD: usize = 64;

/// ECCrefPublicKey.
#[repr(C, packed)]
#[derive(Debug)]
pub struct EccPublicKey {
    bits: c_uint,
    x: [c_uchar; FIELD],
    y: [c_uchar; FIELD],
}

/// ECCSignature.
#[repr(C, packed)]
#[derive(Debug)]
pub struct EccSignature {
    r: [c_uchar; FIELD],
    s: [c_uchar; FIELD],
}

/// An open session: the keys whose password has been given.
#[derive(Default)]
struct Session(Mutex<HashSet<c_uint>>);

struct Key {
    signing: SigningKey,
    password: String,
}

fn find_key(index: c_uint) -> Option<Key> {
    let path = std::env::var("SOFT_SDF_KEYS").ok()?;
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(&index.to_string()))?;
    let mut words = line.split_whitespace().skip(1);
    let hex = words.next()?;
    let bytes: Option<Vec<u8>> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
    let signing = SigningKey::from_slice("", &bytes?).ok()?;
    Some(Key { signing, password: words.next().unwrap_or("").to_owned() })
}

fn right_aligned(number: &[u8]) -> [c_uchar; FIELD] {
    let mut field = [0; FIELD];
    field[FIELD - number.len()..].copy_from_slice(number);
    field
}

/// # Safety
/// `device` must be null or point to a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_OpenDevice(device: *mut *mut c_void) -> c_int {
    if device.is_null() {
        return SDR_OUTARGERR;
    }
    // SAFETY: not null, and the caller promises a place for a pointer. The device needs no state of its own.
    unsafe { *device = std::ptr::dangling_mut::<u64>().cast() };
    SDR_OK
}

/// # Safety
/// `device` must come from `SDF_OpenDevice`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_CloseDevice(device: *mut c_void) -> c_int {
    if device.is_null() { SDR_INARGERR } else { SDR_OK }
}

/// # Safety
/// `device` must come from `SDF_OpenDevice`; `session` must be null or point to a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_OpenSession(device: *mut c_void, session: *mut *mut c_void) -> c_int {
    if device.is_null() {
        return SDR_INARGERR;
    }
    if session.is_null() {
        return SDR_OUTARGERR;
    }
    let opened = Box::into_raw(Box::<Session>::default());
    // SAFETY: not null, and the caller promises a place for a pointer.
    unsafe { *session = opened.cast() };
    SDR_OK
}

/// # Safety
/// `session` must come from `SDF_OpenSession` and not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_CloseSession(session: *mut c_void) -> c_int {
    if session.is_null() {
        return SDR_INARGERR;
    }
    // SAFETY: the pointer was made by `Box::into_raw` in `SDF_OpenSession`, and the caller gives it up.
    drop(unsafe { Box::from_raw(session.cast::<Session>()) });
    SDR_OK
}

/// # Safety
/// `session` must come from `SDF_OpenSession`; `password` must point to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_GetPrivateKeyAccessRight(
    session: *mut c_void,
    index: c_uint,
    password: *const c_uchar,
    length: c_uint,
) -> c_int {
    if session.is_null() || password.is_null() {
        return SDR_INARGERR;
    }
    let Some(key) = find_key(index) else { return SDR_KEYNOTEXIST };
    // SAFETY: not null, and the caller promises `length` bytes.
    let given = unsafe { std::slice::from_raw_parts(password, length as usize) };
    if given != key.password.as_bytes() {
        return SDR_PARDENY;
    }
    // SAFETY: the pointer is a live session by the caller's promise.
    let session = unsafe { &*session.cast::<Session>() };
    match session.0.lock() {
        Ok(mut open) => open.insert(index),
        Err(_) => return SDR_UNKNOWERR,
    };
    SDR_OK
}

/// # Safety
/// `session` must come from `SDF_OpenSession`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_ReleasePrivateKeyAccessRight(session: *mut c_void, index: c_uint) -> c_int {
    if session.is_null() {
        return SDR_INARGERR;
    }
    // SAFETY: the pointer is a live session by the caller's promise.
    let session = unsafe { &*session.cast::<Session>() };
    match session.0.lock() {
        Ok(mut open) => open.remove(&index),
        Err(_) => return SDR_UNKNOWERR,
    };
    SDR_OK
}

/// # Safety
/// `session` must come from `SDF_OpenSession`; `out` must be null or point to an ECCrefPublicKey.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_ExportSignPublicKey_ECC(
    session: *mut c_void,
    index: c_uint,
    out: *mut EccPublicKey,
) -> c_int {
    if session.is_null() {
        return SDR_INARGERR;
    }
    if out.is_null() {
        return SDR_OUTARGERR;
    }
    let Some(key) = find_key(index) else { return SDR_KEYNOTEXIST };
    let point = key.signing.verifying_key().to_sec1_point(false);
    let bytes = point.as_bytes();
    let public = EccPublicKey { bits: 256, x: right_aligned(&bytes[1..33]), y: right_aligned(&bytes[33..65]) };
    // SAFETY: not null, and the caller promises an ECCrefPublicKey, which has no alignment.
    unsafe { out.write_unaligned(public) };
    SDR_OK
}

fn script() -> String {
    let path = std::env::var("SOFT_SDF_SCRIPT").unwrap_or_default();
    std::fs::read_to_string(path).unwrap_or_default()
}

/// # Safety
/// `session` must come from `SDF_OpenSession`; `data` must point to `length` bytes; `out` must be null or point to an
/// ECCSignature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_InternalSign_ECC(
    session: *mut c_void,
    index: c_uint,
    data: *const c_uchar,
    length: c_uint,
    out: *mut EccSignature,
) -> c_int {
    if session.is_null() || data.is_null() || length != 32 {
        return SDR_INARGERR;
    }
    if out.is_null() {
        return SDR_OUTARGERR;
    }
    let script = script();
    let mut words = script.split_whitespace();
    let (order, value) = (words.next().unwrap_or("ok"), words.next().unwrap_or("0"));
    match order {
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        "slow" => std::thread::sleep(Duration::from_millis(value.parse().unwrap_or(0))),
        "crash" => std::process::abort(),
        "error" => return c_int::from_str_radix(value.trim_start_matches("0x"), 16).unwrap_or(SDR_UNKNOWERR),
        _ => {}
    }
    // SAFETY: the pointer is a live session by the caller's promise.
    let open = unsafe { &*session.cast::<Session>() }.0.lock().is_ok_and(|open| open.contains(&index));
    if !open {
        return SDR_PARDENY;
    }
    let Some(key) = find_key(index) else { return SDR_KEYNOTEXIST };
    // SAFETY: not null, and the caller promises `length` bytes.
    let e = unsafe { std::slice::from_raw_parts(data, 32) };
    let Ok(signature) = key.signing.sign_prehash(e) else { return SDR_SIGNERR };
    let bytes = signature.to_bytes();
    let mut pair = EccSignature { r: right_aligned(&bytes[..32]), s: right_aligned(&bytes[32..]) };
    if order == "wrong" {
        pair.s[FIELD - 1] ^= 1;
    }
    // SAFETY: not null, and the caller promises an ECCSignature, which has no alignment.
    unsafe { out.write_unaligned(pair) };
    SDR_OK
}

/// # Safety
/// `session` must come from `SDF_OpenSession`; `out` must point to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_GenerateRandom(session: *mut c_void, length: c_uint, out: *mut c_uchar) -> c_int {
    if session.is_null() || out.is_null() {
        return SDR_INARGERR;
    }
    // SAFETY: not null, and the caller promises `length` bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(out, length as usize) };
    if getrandom::fill(bytes).is_ok() { SDR_OK } else { SDR_UNKNOWERR }
}
