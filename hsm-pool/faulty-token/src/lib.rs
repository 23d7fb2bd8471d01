//! A PKCS#11 module that stands in front of another one (SoftHSM2 unless told otherwise) and misbehaves on demand.
//! For tests and rehearsals only; `docs/rehearsals.md` shows an operator how.
//!
//! `FAULTY_TOKEN_MODULE` names the module behind it, `FAULTY_TOKEN_SCRIPT` the file that says what goes wrong. A file
//! beside this module, with its name and the ending `.script`, comes before that of the environment, so that each of
//! several devices can have a link to this module and a script of its own. The crate `fault-script` explains the words,
//! and `function.rs` lists the functions and codes that they may name. Each process reads the file for itself, so counts
//! and limits are those of a process.
//!
//! What the module behind has is shown: PKCS#11 2.40, and the interfaces of 3.x where there are some. Functions that no
//! script can name (multi-part operations, messages) go straight through.
#![expect(
    unsafe_code,
    reason = "this crate is a C library: its interface is C function pointers"
)]

mod calls;
mod function;
mod gate;
mod module;
mod slots;

use cryptoki_sys::{
    CK_FLAGS, CK_FUNCTION_LIST_PTR_PTR, CK_INTERFACE_PTR, CK_INTERFACE_PTR_PTR, CK_RV, CK_ULONG_PTR,
    CK_UTF8CHAR_PTR, CK_VERSION_PTR, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL, CKR_GENERAL_ERROR, CKR_OK,
};

/// The functions of PKCS#11 2.40 (PKCS#11 3.0, 5.4).
///
/// # Safety
/// `list` must be null or point to a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let Some(module) = module::get() else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: not null, and the caller promises a place for one pointer; what it gets lives as long as the process.
    unsafe { *list = std::ptr::from_ref(module.list()).cast_mut() };
    CKR_OK
}

/// The interfaces of the module behind, each with our functions in it (PKCS#11 3.0, 5.4). A module that knows none has
/// the one that 2.40 amounts to.
///
/// # Safety
/// `count` must be null or point to a number, which says how many interfaces `list`, unless null, has room for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterfaceList(list: CK_INTERFACE_PTR, count: CK_ULONG_PTR) -> CK_RV {
    if count.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let Some(module) = module::get() else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: not null, and the caller promises a number there, and room for as many interfaces in `list`.
    unsafe { give(module.interfaces(), list, count) }
}

/// One interface, by name and version (PKCS#11 3.0, 5.4).
///
/// # Safety
/// `name` must be null or end with a zero byte, `version` be null or point to a version, `interface` be null or point to
/// a place for one pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    name: CK_UTF8CHAR_PTR,
    version: CK_VERSION_PTR,
    interface: CK_INTERFACE_PTR_PTR,
    flags: CK_FLAGS,
) -> CK_RV {
    if interface.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let Some(module) = module::get() else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: the caller's promises about `name` and `version` are those that are asked for here.
    match unsafe { module.interface(name, version, flags) } {
        Ok(found) => {
            // SAFETY: not null, and the caller promises a place for one pointer.
            unsafe { *interface = found };
            CKR_OK
        }
        Err(code) => code,
    }
}

/// Gives a list to a caller by the convention of PKCS#11 3.0, 5.2: without a place for it only its length is told, and a
/// place that is too small gets nothing.
///
/// # Safety
/// `count` must point to a number; `place` must be null or have room for as many items as it says.
unsafe fn give<T: Copy>(items: &[T], place: *mut T, count: CK_ULONG_PTR) -> CK_RV {
    // SAFETY: the caller promises a number there.
    let room = unsafe { std::mem::replace(&mut *count, items.len() as u64) };
    if place.is_null() {
        return CKR_OK;
    }
    if room < items.len() as u64 {
        return CKR_BUFFER_TOO_SMALL;
    }
    // SAFETY: there is room for all of them, and a list of ours does not lie in the caller's memory.
    unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), place, items.len()) };
    CKR_OK
}
