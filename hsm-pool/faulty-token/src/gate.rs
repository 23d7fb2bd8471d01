//! What every call passes before it reaches the module behind: the script, and the sessions that are open.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_GENERAL_ERROR, CKR_SESSION_HANDLE_INVALID,
};
use fault_script::{Fault, Verdict, Watch};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::function::{Function, VOCABULARY};
use crate::module;

static SCRIPT: OnceLock<Option<Watch>> = OnceLock::new();

/// Held for reading while a call is in the module behind. Sessions are taken away only when there is no such call:
/// not every module survives the end of a session that is in use.
static CALLS: RwLock<()> = RwLock::new(());

/// The open sessions of this process, and the module's own number of each one's slot.
pub(crate) static SESSIONS: Mutex<Option<HashMap<CK_SESSION_HANDLE, CK_SLOT_ID>>> = Mutex::new(None);

/// Whether the token was away at the last call.
static AWAY: AtomicBool = AtomicBool::new(false);

/// A call that may go through.
pub(crate) struct Passage {
    pub(crate) real: &'static CK_FUNCTION_LIST,
    pub(crate) verdict: Verdict,
    _call: RwLockReadGuard<'static, ()>,
}

/// Does to a call what the script says; a code is the call's answer.
pub(crate) fn enter(function: Function) -> Result<Passage, CK_RV> {
    let real = module::get().ok_or(CKR_GENERAL_ERROR)?.real();
    let verdict = judge(function)?;
    if AWAY.load(Ordering::Relaxed) != verdict.removed.is_some() {
        come_or_go(real, verdict.removed.is_some());
    }
    if let Some(code) = verdict.removed.filter(|_| function.needs_token()) {
        return Err(code);
    }
    if !verdict.delay.is_zero() {
        std::thread::sleep(verdict.delay);
    }
    match verdict.fault {
        Fault::Ok | Fault::Wrong => {}
        Fault::Error(code) => return Err(code),
        Fault::Hang => fault_script::hang(),
        Fault::Crash(how) => fault_script::crash(how),
        Fault::Lost => {
            lose_sessions(real);
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
    }
    Ok(Passage {
        real,
        verdict,
        _call: keep_sessions(),
    })
}

/// Two devices in one engine share its environment, so a script of a module's own comes before that of the environment.
fn find_script() -> Option<Watch> {
    let beside = module::own_path().map(|path| path.with_extension("script"));
    match beside.filter(|path| path.exists()) {
        Some(path) => Some(Watch::new(path, &VOCABULARY)),
        None => Watch::from_environment("FAULTY_TOKEN_SCRIPT", &VOCABULARY),
    }
}

/// Keeps sessions from being taken away; for calls of the module behind that pass no gate.
pub(crate) fn keep_sessions() -> RwLockReadGuard<'static, ()> {
    CALLS.read()
}

/// A script without meaning must be noticed: with it the module does not initialise.
fn judge(function: Function) -> Result<Verdict, CK_RV> {
    let script = SCRIPT.get_or_init(find_script);
    let Some(script) = script else {
        return Ok(Verdict::default());
    };
    if function == Function::C_Initialize && script.is_broken() {
        return Err(CKR_GENERAL_ERROR);
    }
    Ok(script.judge(function as usize))
}

/// A token that is taken away takes its sessions with it (PKCS#11 3.0, 5.6.1).
fn come_or_go(real: &CK_FUNCTION_LIST, away: bool) {
    if !AWAY.swap(away, Ordering::Relaxed) && away {
        lose_sessions(real);
    }
}

/// Closes every session in the module behind, which with the last one also logs out.
fn lose_sessions(real: &CK_FUNCTION_LIST) {
    let _no_calls = CALLS.write();
    let lost = SESSIONS.lock().take().unwrap_or_default();
    let Some(close) = real.C_CloseAllSessions else {
        return;
    };
    let mut slots: Vec<CK_SLOT_ID> = lost.into_values().collect();
    slots.sort_unstable();
    slots.dedup();
    for slot in slots {
        // SAFETY: the number came from the module itself; a slot that is gone is refused by it.
        unsafe { close(slot) };
    }
}
