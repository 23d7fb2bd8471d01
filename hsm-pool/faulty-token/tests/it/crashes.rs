//! Faults that end a process: SoftHSM2's own tool loads the module and dies of it.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use crate::support::{Folder, module};

/// The tool's signals and codes (signal(7)).
const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

fn show_slots(folder: &Folder, script: &str) -> Output {
    folder.script(script);
    let mut tool = folder.command("softhsm2-util");
    tool.arg("--show-slots")
        .arg("--module")
        .arg(module())
        .output()
        .unwrap()
}

#[test]
fn a_process_dies_as_the_script_says() {
    let folder = Folder::new();
    let fine = show_slots(&folder, "C_Sign: crash");
    assert!(fine.status.success());
    assert!(String::from_utf8_lossy(&fine.stdout).contains("test"));

    let abort = show_slots(&folder, "C_GetSlotList: crash");
    assert_eq!(abort.status.signal(), Some(SIGABRT));
    let segfault = show_slots(&folder, "C_Initialize: crash segfault");
    assert_eq!(segfault.status.signal(), Some(SIGSEGV));
    let exit = show_slots(&folder, "C_GetSlotInfo: slow 1 crash exit 43");
    assert_eq!(exit.status.code(), Some(43));
}

#[test]
fn a_script_without_meaning_keeps_the_module_from_starting() {
    let folder = Folder::new();
    let refused = show_slots(&folder, "ok; C_Sing: hang");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("in the clause `C_Sing: hang`: there is no function `C_Sing`"),
        "{said}"
    );
}

#[test]
fn a_module_behind_that_cannot_be_loaded_is_named() {
    let folder = Folder::new();
    let mut tool = folder.command("softhsm2-util");
    tool.env("FAULTY_TOKEN_MODULE", folder.path("none.so"));
    let refused = tool
        .arg("--show-slots")
        .arg("--module")
        .arg(module())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("none.so"));
}
