//! What every call passes first: the script.

use std::sync::OnceLock;

use fault_script::{Fault, Verdict, Watch};

use crate::code::{Function, SDR_COMMFAIL, SDR_OPENDEVICE, SdrResult, VOCABULARY, from_script};
use crate::device;

static SCRIPT: OnceLock<Option<Watch>> = OnceLock::new();

/// Does to a call what the script says; a code is the call's answer.
pub(crate) fn enter(function: Function) -> SdrResult<Verdict> {
    let verdict = judge(function)?;
    if let Some(code) = verdict.removed {
        device::lose_sessions();
        return Err(from_script(code));
    }
    if !verdict.delay.is_zero() {
        std::thread::sleep(verdict.delay);
    }
    match verdict.fault {
        Fault::Ok | Fault::Wrong => Ok(verdict),
        Fault::Error(code) => Err(from_script(code)),
        Fault::Hang => fault_script::hang(),
        Fault::Crash(how) => fault_script::crash(how),
        Fault::Lost => {
            device::lose_sessions();
            Err(SDR_COMMFAIL)
        }
    }
}

/// A script without meaning must be noticed: with it the device does not open.
fn judge(function: Function) -> SdrResult<Verdict> {
    let script = SCRIPT.get_or_init(|| Watch::from_environment("SOFT_SDF_SCRIPT", &VOCABULARY));
    let Some(script) = script else {
        return Ok(Verdict::default());
    };
    if matches!(function, Function::SDF_OpenDevice) && script.is_broken() {
        return Err(SDR_OPENDEVICE);
    }
    Ok(script.judge(function as usize))
}
