//! A PKCS#11 module that stands in front of another one (SoftHSM2 unless told otherwise) and misbehaves on demand.
//! For tests and rehearsals only.
//!
//! `FAULTY_TOKEN_MODULE` names the module behind it. `FAULTY_TOKEN_SCRIPT` names a file that is read at every
//! `C_Sign`; its one line says what happens then:
//!
//! - `ok`, or no file: the call goes through.
//! - `hang`: the call never returns.
//! - `slow MS`: the call goes through after MS milliseconds.
//! - `crash`: the process aborts.
//! - `wrong`: the signature has a flipped bit.
//! - `error CODE`: the call returns this `CKR_*` number, in hexadecimal, without signing.
#![expect(
    unsafe_code,
    reason = "this crate is a C library: its interface is C function pointers"
)]

use std::sync::OnceLock;
use std::time::Duration;

use cryptoki_sys::{
    CK_BYTE_PTR, CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR_PTR, CK_RV, CK_SESSION_HANDLE, CK_ULONG,
    CK_ULONG_PTR, CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_OK,
};

const DEFAULT_MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

struct Tables {
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
}

// SAFETY: function lists are tables of function pointers that are written once, before anybody else sees them.
unsafe impl Sync for Tables {}
// SAFETY: as above.
unsafe impl Send for Tables {}

static TABLES: OnceLock<Option<Tables>> = OnceLock::new();

fn load() -> Option<Tables> {
    let module = std::env::var("FAULTY_TOKEN_MODULE").unwrap_or_else(|_| DEFAULT_MODULE.to_owned());
    // SAFETY: loading a library runs its constructors; the operator of a test names a PKCS#11 module here.
    let library = unsafe { libloading::Library::new(module) }.ok()?;
    type GetFunctionList = unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV;
    let mut list = std::ptr::null_mut();
    {
        // SAFETY: every PKCS#11 module exports this function with this type (PKCS#11 3.0, 5.4).
        let get = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") }.ok()?;
        // SAFETY: the argument is a valid place for one pointer.
        if unsafe { get(&raw mut list) } != CKR_OK || list.is_null() {
            return None;
        }
    }
    // The library stays for the life of the process: its functions are called until the end.
    std::mem::forget(library);
    // SAFETY: the module returned a pointer to its own, permanent list.
    let real = unsafe { *list };
    let ours = CK_FUNCTION_LIST {
        C_Sign: Some(sign),
        C_GetFunctionList: Some(C_GetFunctionList),
        ..real
    };
    Some(Tables { real, ours })
}

fn script() -> String {
    let path = std::env::var("FAULTY_TOKEN_SCRIPT").unwrap_or_default();
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The module's only exported function (PKCS#11 3.0, 5.4).
///
/// # Safety
/// `list` must be null or point to a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    match TABLES.get_or_init(load) {
        Some(tables) => {
            // SAFETY: `list` is not null and the caller promises that it points to a place for one pointer; the
            // table lives in a static.
            unsafe { *list = (&raw const tables.ours).cast_mut() };
            CKR_OK
        }
        None => CKR_GENERAL_ERROR,
    }
}

unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG_PTR,
) -> CK_RV {
    let script = script();
    let mut words = script.split_whitespace();
    let (order, value) = (words.next().unwrap_or("ok"), words.next().unwrap_or("0"));
    match order {
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        "slow" => std::thread::sleep(Duration::from_millis(value.parse().unwrap_or(0))),
        "crash" => std::process::abort(),
        "error" => {
            return CK_RV::from_str_radix(value.trim_start_matches("0x"), 16).unwrap_or(CKR_GENERAL_ERROR);
        }
        _ => {}
    }
    let real = TABLES
        .get()
        .and_then(Option::as_ref)
        .and_then(|tables| tables.real.C_Sign);
    let Some(real) = real else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the arguments are the caller's, passed on unchanged.
    let result = unsafe { real(session, data, data_len, signature, signature_len) };
    // A call with no buffer only asks for the length.
    if order == "wrong" && result == CKR_OK && !signature.is_null() {
        // SAFETY: after CKR_OK the buffer holds `*signature_len` bytes, at least one.
        unsafe { *signature.add(*signature_len as usize - 1) ^= 1 };
    }
    result
}
