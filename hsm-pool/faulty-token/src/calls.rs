//! The functions that callers get: past the gate, then to the module behind.
#![expect(non_snake_case, reason = "the standard's names")]

use cryptoki_sys::{
    CK_ATTRIBUTE_PTR, CK_BBOOL, CK_BYTE_PTR, CK_FLAGS, CK_FUNCTION_LIST, CK_MECHANISM_INFO_PTR,
    CK_MECHANISM_PTR, CK_MECHANISM_TYPE, CK_MECHANISM_TYPE_PTR, CK_NOTIFY, CK_OBJECT_HANDLE,
    CK_OBJECT_HANDLE_PTR, CK_RV, CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SESSION_INFO_PTR, CK_SLOT_ID,
    CK_SLOT_ID_PTR, CK_SLOT_INFO_PTR, CK_TOKEN_INFO_PTR, CK_ULONG, CK_ULONG_PTR, CK_USER_TYPE,
    CK_UTF8CHAR_PTR, CK_VOID_PTR, CKF_TOKEN_PRESENT, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_OK, CKR_SESSION_COUNT,
};
use fault_script::{Fault, Verdict};

use crate::function::Function;
use crate::gate::{Passage, SESSIONS, enter, keep_sessions};
use crate::{give, module, slots};

/// Calls a function of the module behind with the caller's arguments.
macro_rules! call {
    ($real:expr, $name:ident($($argument:expr),*)) => {
        match $real.$name {
            // SAFETY: the arguments are the caller's, who made its promises to a function of the same meaning.
            Some(function) => unsafe { function($($argument),*) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

/// Functions whose arguments are passed on unchanged.
macro_rules! passed_on {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
            match enter(Function::$name) {
                Ok(passage) => call!(passage.real, $name($($argument),*)),
                Err(code) => code,
            }
        }
    )*};
}

/// Functions of one slot, whose id may be shown as another.
macro_rules! of_a_slot {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        pub(crate) unsafe extern "C" fn $name(slot: CK_SLOT_ID, $($argument: $type),*) -> CK_RV {
            match enter(Function::$name) {
                Ok(passage) => call!(passage.real, $name(real_slot(&passage, slot), $($argument),*)),
                Err(code) => code,
            }
        }
    )*};
}

passed_on! {
    C_Initialize(arguments: CK_VOID_PTR);
    C_InitPIN(session: CK_SESSION_HANDLE, pin: CK_UTF8CHAR_PTR, length: CK_ULONG);
    C_SetPIN(session: CK_SESSION_HANDLE, old: CK_UTF8CHAR_PTR, old_length: CK_ULONG, new: CK_UTF8CHAR_PTR, length: CK_ULONG);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: CK_UTF8CHAR_PTR, length: CK_ULONG);
    C_Logout(session: CK_SESSION_HANDLE);
    C_CreateObject(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, object: CK_OBJECT_HANDLE_PTR);
    C_CopyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, copy: CK_OBJECT_HANDLE_PTR);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_SetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, objects: CK_OBJECT_HANDLE_PTR, most: CK_ULONG, count: CK_ULONG_PTR);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Encrypt(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Decrypt(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_VerifyInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Verify(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG, signature: CK_BYTE_PTR, signature_length: CK_ULONG);
    C_GenerateKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, public: CK_ATTRIBUTE_PTR, public_count: CK_ULONG, private: CK_ATTRIBUTE_PTR, private_count: CK_ULONG, public_key: CK_OBJECT_HANDLE_PTR, private_key: CK_OBJECT_HANDLE_PTR);
    C_WrapKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR);
    C_UnwrapKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, unwrapping: CK_OBJECT_HANDLE, wrapped: CK_BYTE_PTR, length: CK_ULONG, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_DeriveKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, base: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_GenerateRandom(session: CK_SESSION_HANDLE, out: CK_BYTE_PTR, length: CK_ULONG);
}

of_a_slot! {
    C_GetMechanismList(list: CK_MECHANISM_TYPE_PTR, count: CK_ULONG_PTR);
    C_GetMechanismInfo(mechanism: CK_MECHANISM_TYPE, info: CK_MECHANISM_INFO_PTR);
    C_InitToken(pin: CK_UTF8CHAR_PTR, length: CK_ULONG, label: CK_UTF8CHAR_PTR);
}

/// The ids of slots as the module behind gives them.
fn slots_behind(real: &CK_FUNCTION_LIST, with_token: CK_BBOOL) -> Result<Vec<CK_SLOT_ID>, CK_RV> {
    let mut count: CK_ULONG = 0;
    let code = call!(
        real,
        C_GetSlotList(with_token, std::ptr::null_mut(), &raw mut count)
    );
    if code != CKR_OK {
        return Err(code);
    }
    let mut list = vec![0; usize::try_from(count).unwrap_or(0)];
    let code = call!(real, C_GetSlotList(with_token, list.as_mut_ptr(), &raw mut count));
    list.truncate(usize::try_from(count).unwrap_or(0));
    if code == CKR_OK { Ok(list) } else { Err(code) }
}

/// All slots, where the script shows them under other ids; without that nobody needs to know.
fn slots_to_renumber(real: &CK_FUNCTION_LIST, verdict: &Verdict) -> Vec<CK_SLOT_ID> {
    let wanted = verdict.renumber.map(|_| slots_behind(real, 0));
    wanted.and_then(Result::ok).unwrap_or_default()
}

fn real_slot(Passage { real, verdict, .. }: &Passage, shown: CK_SLOT_ID) -> CK_SLOT_ID {
    slots::real(verdict.renumber, shown, &slots_to_renumber(real, verdict))
}

fn shown_slot(Passage { real, verdict, .. }: &Passage, slot: CK_SLOT_ID) -> CK_SLOT_ID {
    slots::shown(verdict.renumber, slot, &slots_to_renumber(real, verdict))
}

pub(crate) unsafe extern "C" fn C_GetSlotList(
    with_token: CK_BBOOL,
    list: CK_SLOT_ID_PTR,
    count: CK_ULONG_PTR,
) -> CK_RV {
    if count.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let passage = match enter(Function::C_GetSlotList) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let mut found = match slots_behind(passage.real, with_token) {
        Ok(found) => found,
        Err(code) => return code,
    };
    if passage.verdict.removed.is_some() && with_token != 0 {
        found.clear();
    }
    let all = slots_to_renumber(passage.real, &passage.verdict);
    for slot in &mut found {
        *slot = slots::shown(passage.verdict.renumber, *slot, &all);
    }
    // SAFETY: not null, and the caller promises a number there, and room for as many ids in `list`.
    unsafe { give(&found, list, count) }
}

pub(crate) unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR) -> CK_RV {
    let passage = match enter(Function::C_GetSlotInfo) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let code = call!(passage.real, C_GetSlotInfo(real_slot(&passage, slot), info));
    if code == CKR_OK && passage.verdict.removed.is_some() {
        // SAFETY: after CKR_OK the module behind has filled what the pointer leads to.
        unsafe { (*info).flags &= !CKF_TOKEN_PRESENT };
    }
    code
}

pub(crate) unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    let passage = match enter(Function::C_GetTokenInfo) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let code = call!(passage.real, C_GetTokenInfo(real_slot(&passage, slot), info));
    if let (CKR_OK, Some(limit)) = (code, passage.verdict.sessions) {
        // SAFETY: after CKR_OK the module behind has filled what the pointer leads to.
        let info = unsafe { &mut *info };
        info.ulMaxSessionCount = limit;
        info.ulMaxRwSessionCount = limit;
    }
    code
}

pub(crate) unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: CK_VOID_PTR,
    notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    let passage = match enter(Function::C_OpenSession) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let slot = real_slot(&passage, slot);
    // Held until the session is entered, so that no two callers open the last one.
    let mut sessions = SESSIONS.lock();
    let sessions = sessions.get_or_insert_default();
    if passage
        .verdict
        .sessions
        .is_some_and(|limit| sessions.len() as u64 >= limit)
    {
        return CKR_SESSION_COUNT;
    }
    let code = call!(
        passage.real,
        C_OpenSession(slot, flags, application, notify, session)
    );
    if code == CKR_OK {
        // SAFETY: after CKR_OK the module behind has written a handle there.
        sessions.insert(unsafe { *session }, slot);
    }
    code
}

pub(crate) unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    let passage = match enter(Function::C_CloseSession) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let code = call!(passage.real, C_CloseSession(session));
    if let (CKR_OK, Some(sessions)) = (code, &mut *SESSIONS.lock()) {
        sessions.remove(&session);
    }
    code
}

pub(crate) unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    let passage = match enter(Function::C_CloseAllSessions) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let slot = real_slot(&passage, slot);
    let code = call!(passage.real, C_CloseAllSessions(slot));
    if let (CKR_OK, Some(sessions)) = (code, &mut *SESSIONS.lock()) {
        sessions.retain(|_, of| *of != slot);
    }
    code
}

pub(crate) unsafe extern "C" fn C_Finalize(reserved: CK_VOID_PTR) -> CK_RV {
    let passage = match enter(Function::C_Finalize) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let code = call!(passage.real, C_Finalize(reserved));
    if code == CKR_OK {
        *SESSIONS.lock() = None;
    }
    code
}

pub(crate) unsafe extern "C" fn C_GetSessionInfo(
    session: CK_SESSION_HANDLE,
    info: CK_SESSION_INFO_PTR,
) -> CK_RV {
    let passage = match enter(Function::C_GetSessionInfo) {
        Ok(passage) => passage,
        Err(code) => return code,
    };
    let code = call!(passage.real, C_GetSessionInfo(session, info));
    if code == CKR_OK {
        // SAFETY: after CKR_OK the module behind has filled what the pointer leads to.
        let info = unsafe { &mut *info };
        info.slotID = shown_slot(&passage, info.slotID);
    }
    code
}

pub(crate) unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG_PTR,
) -> CK_RV {
    // Without a place for the signature only its length is asked for, which no device needs time or luck for.
    if signature.is_null() {
        return sign_behind(session, data, data_len, signature, signature_len);
    }
    let passage = match enter(Function::C_Sign) {
        Ok(passage) => passage,
        Err(CKR_BUFFER_TOO_SMALL) => return CKR_BUFFER_TOO_SMALL,
        Err(code) => {
            end_signing(session, data, data_len);
            return code;
        }
    };
    let code = call!(
        passage.real,
        C_Sign(session, data, data_len, signature, signature_len)
    );
    if code == CKR_OK && passage.verdict.fault == Fault::Wrong {
        // SAFETY: after CKR_OK the buffer holds `*signature_len` bytes, at least one.
        unsafe { *signature.add(*signature_len as usize - 1) ^= 1 };
    }
    code
}

/// Longer than any signature that the engine asks for; that of RSA-4096 has 512 bytes.
const SIGNATURE_LEN_MAX: usize = 1024;

/// Ends the signing operation in the module behind, for a C_Sign that fails ends it (PKCS#11 3.0, 5.13.2).
fn end_signing(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, data_len: CK_ULONG) {
    let mut scratch = [0; SIGNATURE_LEN_MAX];
    let mut length = scratch.len() as CK_ULONG;
    let _unused = sign_behind(session, data, data_len, scratch.as_mut_ptr(), &raw mut length);
}

/// C_Sign of the module behind, past the gate.
fn sign_behind(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG_PTR,
) -> CK_RV {
    let _sessions_stay = keep_sessions();
    let Some(module) = module::get() else {
        return CKR_GENERAL_ERROR;
    };
    call!(
        module.real(),
        C_Sign(session, data, data_len, signature, signature_len)
    )
}
