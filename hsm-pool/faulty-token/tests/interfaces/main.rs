//! The interfaces of PKCS#11 3.x in front of Kryoptic, which has them. A process has one module behind, so this is a
//! binary of its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki_sys::{CK_FUNCTION_LIST, CK_INTERFACE, CK_RV, CK_VERSION, CKR_OK};

/// The folder of this test's target, two above the one it is in.
fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().to_owned()
}

fn faulty_module() -> PathBuf {
    let cargo = std::process::Command::new(env!("CARGO"))
        .args(["build", "-q", "-p", "faulty-token"])
        .status();
    assert!(cargo.unwrap().success());
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("libfaulty_token.so")
}

#[expect(
    unsafe_code,
    reason = "both modules are told through the environment what to do"
)]
fn set_environment(folder: &Path) {
    let kryoptic = target().join("kryoptic/release/libkryoptic_token.so");
    assert!(kryoptic.exists(), "{} (make test builds it)", kryoptic.display());
    let slot = format!(
        "[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}/token.sql\"\n",
        folder.display()
    );
    std::fs::write(folder.join("kryoptic.conf"), slot).unwrap();
    // SAFETY: the one test of this process runs this before anything else reads the environment.
    unsafe {
        std::env::set_var("KRYOPTIC_CONF", folder.join("kryoptic.conf"));
        std::env::set_var("FAULTY_TOKEN_MODULE", kryoptic);
        std::env::set_var("FAULTY_TOKEN_SCRIPT", folder.join("script"));
    }
}

/// The version of a list of functions, which it begins with.
#[expect(unsafe_code, reason = "a list of functions is known by a pointer")]
fn version(interface: &CK_INTERFACE) -> (u8, u8) {
    // SAFETY: the module gave it, and each list begins so (PKCS#11 3.0, 3.6).
    let CK_VERSION { major, minor } = unsafe { *interface.pFunctionList.cast() };
    (major, minor)
}

#[expect(unsafe_code, reason = "cryptoki asks for interfaces by itself and shows none")]
fn interfaces(path: &Path) -> Vec<CK_INTERFACE> {
    let mut list = [CK_INTERFACE::default(); 8];
    let mut count = list.len() as u64;
    // SAFETY: there is room for as many interfaces as `count` says.
    let code: CK_RV = unsafe {
        let raw = cryptoki_sys::Pkcs11::new(path).unwrap();
        raw.C_GetInterfaceList(list.as_mut_ptr(), &raw mut count)
    };
    assert_eq!(code, CKR_OK);
    list[..usize::try_from(count).unwrap()].to_vec()
}

/// What the script says holds in each interface: asks each for a slot list with the token away.
#[expect(unsafe_code, reason = "the functions of a list are C functions")]
fn slots_with_token(interface: &CK_INTERFACE) -> u64 {
    let mut count = 99;
    // SAFETY: newer lists begin with the functions of 2.40, in their order.
    unsafe {
        let list = &*interface.pFunctionList.cast::<CK_FUNCTION_LIST>();
        assert_eq!(
            list.C_GetSlotList.unwrap()(1, std::ptr::null_mut(), &raw mut count),
            CKR_OK
        );
    }
    count
}

#[test]
fn every_interface_of_the_module_behind_obeys_the_script() {
    let folder = tempfile::tempdir().unwrap();
    set_environment(folder.path());
    let path = faulty_module();
    let found = interfaces(&path);
    let versions: Vec<(u8, u8)> = found.iter().map(version).collect();
    for wanted in [(2, 40), (3, 0), (3, 2)] {
        assert!(versions.contains(&wanted), "{versions:?}");
    }

    // cryptoki takes the newest interface.
    let module = Pkcs11::new(&path).unwrap();
    let script = |text: &str| std::fs::write(folder.path().join("script"), text).unwrap();
    script("C_Initialize: times 1 error CKR_CANT_LOCK");
    let arguments = || CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    assert!(matches!(
        module.initialize(arguments()),
        Err(Error::Pkcs11(RvError::CantLock, _))
    ));
    module.initialize(arguments()).unwrap();
    assert_eq!(module.get_slots_with_token().unwrap().len(), 1);
    script("removed");
    for interface in &found {
        assert_eq!(slots_with_token(interface), 0, "{:?}", version(interface));
    }
    script("ok");
    for interface in &found {
        assert_eq!(slots_with_token(interface), 1, "{:?}", version(interface));
    }
}
