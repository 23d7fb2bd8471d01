//! A software SDF library (GM/T 0018-2012, the interface of Chinese HSMs) with just what signing by SM2 needs, for tests
//! and rehearsals.
//!
//! `SOFT_SDF_CONFIG` names the file with its keys, a line each: index, password, private key (32 bytes in hexadecimal);
//! what follows `#` is a comment. `SOFT_SDF_SCRIPT` names the file that says what goes wrong; the crate `fault-script`
//! explains its words, and `code.rs` lists the functions and codes that they may name.
//!
//! Handles are numbers, not addresses, so that a stale one gets an answer instead of a crash: `SDR_INARGERR`, or
//! `SDR_COMMFAIL` after the script has said `lost`.
#![expect(
    unsafe_code,
    reason = "this crate is a C library: its interface is C pointers"
)]

mod code;
mod device;
mod gate;
mod keys;
mod structs;

use std::ffi::{c_int, c_uchar, c_uint, c_void};

use code::{Function, SdrResult, answer};
use device::Handle;
use structs::{DeviceInfo, EccPublicKey, EccSignature};

/// The digest that SM2 signs: e = SM3(Z ‖ M).
const DIGEST_BYTES: c_uint = 32;

/// A handle as C sees it. It is never followed.
fn to_pointer(handle: Handle) -> *mut c_void {
    std::ptr::without_provenance_mut(handle.0)
}

fn from_pointer(pointer: *mut c_void) -> Handle {
    Handle(pointer.addr())
}

/// Refuses a null pointer for an answer (SDR_OUTARGERR).
fn place<T>(pointer: *mut T) -> SdrResult<*mut T> {
    if pointer.is_null() {
        Err(code::SDR_OUTARGERR)
    } else {
        Ok(pointer)
    }
}

/// The bytes that a caller gives.
///
/// # Safety
/// `pointer` must be null or point to `length` bytes that stay as they are while the slice lives.
unsafe fn bytes<'a>(pointer: *const c_uchar, length: c_uint) -> SdrResult<&'a [u8]> {
    if pointer.is_null() {
        return Err(code::SDR_INARGERR);
    }
    // SAFETY: not null, and the caller promises the bytes.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length as usize) })
}

/// A digest that a caller gives: nothing but 32 bytes.
///
/// # Safety
/// As for `bytes`.
unsafe fn digest<'a>(pointer: *const c_uchar, length: c_uint) -> SdrResult<&'a [u8]> {
    if length != DIGEST_BYTES {
        return Err(code::SDR_INARGERR);
    }
    // SAFETY: the caller's promise.
    unsafe { bytes(pointer, length) }
}

/// Opens the device: 6.2.1 of GM/T 0018-2012.
///
/// # Safety
/// `device` must be null or point to a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_OpenDevice(device: *mut *mut c_void) -> c_int {
    answer(|| {
        let device = place(device)?;
        gate::enter(Function::SDF_OpenDevice)?;
        let opened = to_pointer(device::open()?);
        // SAFETY: not null, and the caller promises a place for one pointer.
        unsafe { *device = opened };
        Ok(())
    })
}

/// Closes the device and the sessions in it.
///
/// # Safety
/// None: handles are checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_CloseDevice(device: *mut c_void) -> c_int {
    answer(|| {
        gate::enter(Function::SDF_CloseDevice)?;
        device::close(from_pointer(device))
    })
}

/// Opens a session.
///
/// # Safety
/// `session` must be null or point to a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_OpenSession(device: *mut c_void, session: *mut *mut c_void) -> c_int {
    answer(|| {
        let session = place(session)?;
        let verdict = gate::enter(Function::SDF_OpenSession)?;
        let opened = to_pointer(device::open_session(from_pointer(device), verdict.sessions)?);
        // SAFETY: not null, and the caller promises a place for one pointer.
        unsafe { *session = opened };
        Ok(())
    })
}

/// Closes a session; what it was allowed ends with it.
///
/// # Safety
/// None: handles are checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_CloseSession(session: *mut c_void) -> c_int {
    answer(|| {
        gate::enter(Function::SDF_CloseSession)?;
        device::close_session(from_pointer(session))
    })
}

/// Tells what the device is.
///
/// # Safety
/// `info` must be null or point to a DEVICEINFO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_GetDeviceInfo(session: *mut c_void, info: *mut DeviceInfo) -> c_int {
    answer(|| {
        let info = place(info)?;
        gate::enter(Function::SDF_GetDeviceInfo)?;
        device::check_session(from_pointer(session))?;
        // SAFETY: not null, and the caller promises a DEVICEINFO, wherever it is aligned.
        unsafe { info.write_unaligned(DeviceInfo::of_this_library()) };
        Ok(())
    })
}

/// Random bytes.
///
/// # Safety
/// `out` must be null or point to a place for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_GenerateRandom(
    session: *mut c_void,
    length: c_uint,
    out: *mut c_uchar,
) -> c_int {
    answer(|| {
        let out = place(out)?;
        gate::enter(Function::SDF_GenerateRandom)?;
        device::check_session(from_pointer(session))?;
        let mut random = vec![0; length as usize];
        getrandom::fill(&mut random).map_err(|_| code::SDR_RANDERR)?;
        // SAFETY: not null, and the caller promises a place for as many bytes, which is none of ours.
        unsafe { std::ptr::copy_nonoverlapping(random.as_ptr(), out, random.len()) };
        Ok(())
    })
}

/// Allows a session the use of a private key, for its password.
///
/// # Safety
/// `password` must be null or point to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_GetPrivateKeyAccessRight(
    session: *mut c_void,
    index: c_uint,
    password: *const c_uchar,
    length: c_uint,
) -> c_int {
    answer(|| {
        // SAFETY: the caller promises the bytes.
        let password = unsafe { bytes(password, length) }?;
        gate::enter(Function::SDF_GetPrivateKeyAccessRight)?;
        device::allow(from_pointer(session), index, password)
    })
}

/// Takes that right back.
///
/// # Safety
/// None: handles are checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_ReleasePrivateKeyAccessRight(session: *mut c_void, index: c_uint) -> c_int {
    answer(|| {
        gate::enter(Function::SDF_ReleasePrivateKeyAccessRight)?;
        device::disallow(from_pointer(session), index)
    })
}

/// Gives the public key of an index.
///
/// # Safety
/// `key` must be null or point to an ECCrefPublicKey.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_ExportSignPublicKey_ECC(
    session: *mut c_void,
    index: c_uint,
    key: *mut EccPublicKey,
) -> c_int {
    answer(|| {
        let place = place(key)?;
        gate::enter(Function::SDF_ExportSignPublicKey_ECC)?;
        let key = device::key(from_pointer(session), index)?;
        // SAFETY: not null, and the caller promises an ECCrefPublicKey, wherever it is aligned.
        unsafe { place.write_unaligned(key.public()) };
        Ok(())
    })
}

/// Signs e = SM3(Z ‖ M) with the private key of an index.
///
/// # Safety
/// `data` must be null or point to `length` bytes, `signature` be null or point to an ECCSignature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_InternalSign_ECC(
    session: *mut c_void,
    index: c_uint,
    data: *const c_uchar,
    length: c_uint,
    signature: *mut EccSignature,
) -> c_int {
    answer(|| {
        let signature = place(signature)?;
        // SAFETY: the caller promises the bytes.
        let digest = unsafe { digest(data, length) }?;
        let verdict = gate::enter(Function::SDF_InternalSign_ECC)?;
        let mut signed = device::allowed_key(from_pointer(session), index)?.sign(digest)?;
        if verdict.fault == fault_script::Fault::Wrong {
            signed.flip_a_bit();
        }
        // SAFETY: not null, and the caller promises an ECCSignature, wherever it is aligned.
        unsafe { signature.write_unaligned(signed) };
        Ok(())
    })
}

/// Verifies with the public key of an index; a signature that is not its own gets `SDR_VERIFYERR`.
///
/// # Safety
/// `data` must be null or point to `length` bytes, `signature` be null or point to an ECCSignature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn SDF_InternalVerify_ECC(
    session: *mut c_void,
    index: c_uint,
    data: *const c_uchar,
    length: c_uint,
    signature: *const EccSignature,
) -> c_int {
    answer(|| {
        // SAFETY: the caller promises the bytes.
        let digest = unsafe { digest(data, length) }?;
        if signature.is_null() {
            return Err(code::SDR_INARGERR);
        }
        // SAFETY: not null, and the caller promises an ECCSignature, wherever it is aligned.
        let signature = unsafe { signature.read_unaligned() };
        gate::enter(Function::SDF_InternalVerify_ECC)?;
        device::key(from_pointer(session), index)?.verify(digest, &signature)
    })
}
