//! The worker process alone. The engine runs its own binary with `hsm-worker`; this one lets the pool be tested and
//! benchmarked without an engine.

use std::process::ExitCode;

fn main() -> ExitCode {
    match hsm_pool::device::worker::main() {
        Ok(()) => ExitCode::SUCCESS,
        // The engine has been told over the socket and logs it; there is nobody else to tell.
        Err(_) => ExitCode::FAILURE,
    }
}
