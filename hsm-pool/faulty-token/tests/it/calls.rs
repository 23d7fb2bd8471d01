//! Faults that a caller lives to see. There is one token, one module and one script in a process, so this is one test.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError as R};
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Limit;
use cryptoki_sys::{CK_FUNCTION_LIST, CK_INTERFACE, CKR_ARGUMENTS_BAD, CKR_OK};

use crate::support::{World, code, pair, pin, sign, verify};

#[test]
fn a_caller_sees_what_the_script_says() {
    let world = World::new();
    let session = world.login();
    let (public, private) = pair(&session).unwrap();
    interfaces(&world);
    signing(&world, &session, public, private);
    other_functions(&world, &session);
    session_limits(&world);
    slots_renumbered(&world);
    sessions_lost(&world, session, private);
    token_removed(&world, private);
    sessions_lost_under_load(&world);
}

/// SoftHSM2 has PKCS#11 2.40 only; a caller that asks for interfaces is told of the one that this amounts to.
#[expect(unsafe_code, reason = "cryptoki asks for interfaces by itself and shows none")]
fn interfaces(world: &World) {
    let mut count = 0;
    let mut list = [CK_INTERFACE::default(); 4];
    let mut newest = std::ptr::null_mut();
    let mut newer = cryptoki_sys::CK_VERSION { major: 3, minor: 0 };
    // SAFETY: the functions get places for their answers, and say in `count` how many interfaces there are.
    let (version, refused) = unsafe {
        let raw = cryptoki_sys::Pkcs11::new(world.path()).unwrap();
        assert_eq!(
            raw.C_GetInterfaceList(std::ptr::null_mut(), &raw mut count),
            CKR_OK
        );
        assert_eq!(raw.C_GetInterfaceList(list.as_mut_ptr(), &raw mut count), CKR_OK);
        let any = std::ptr::null_mut();
        assert_eq!(
            raw.C_GetInterface(any, std::ptr::null_mut(), &raw mut newest, 0),
            CKR_OK
        );
        let refused = raw.C_GetInterface(any, &raw mut newer, &raw mut newest, 0);
        (
            (*(*newest).pFunctionList.cast::<CK_FUNCTION_LIST>()).version,
            refused,
        )
    };
    assert_eq!((count, version.major, version.minor), (1, 2, 40));
    assert_eq!(refused, CKR_ARGUMENTS_BAD);
}

fn signing(world: &World, session: &Session, public: ObjectHandle, private: ObjectHandle) {
    let good = sign(session, private).unwrap();
    verify(session, public, &good).unwrap();

    world.script("wrong");
    let wrong = sign(session, private).unwrap();
    assert_eq!(code(verify(session, public, &wrong)), R::SignatureInvalid);

    // The operation is over after an error, so the same session signs again.
    world.script("times 2 error CKR_DEVICE_ERROR; times 1 error 0x80000001");
    assert_eq!(code(sign(session, private)), R::DeviceError);
    assert_eq!(code(sign(session, private)), R::DeviceError);
    assert_eq!(code(sign(session, private)), R::VendorDefined(0x8000_0001));
    verify(session, public, &sign(session, private).unwrap()).unwrap();

    world.script("slow 1 error CKR_FUNCTION_CANCELED");
    assert_eq!(code(sign(session, private)), R::FunctionCanceled);
    world.script("slow 1..2");
    verify(session, public, &sign(session, private).unwrap()).unwrap();
}

fn other_functions(world: &World, session: &Session) {
    world.script("C_GenerateKeyPair: error CKR_DEVICE_MEMORY; C_FindObjectsInit: error CKR_GENERAL_ERROR");
    assert_eq!(code(pair(session)), R::DeviceMemory);
    assert_eq!(code(session.find_objects(&[])), R::GeneralError);
    world.script("C_Find*: error CKR_HOST_MEMORY; C_OpenSession, C_Login: error CKR_PIN_LOCKED");
    assert_eq!(code(session.find_objects(&[])), R::HostMemory);
    assert_eq!(code(world.open()), R::PinLocked);
    world.script("ok");
    assert_eq!(session.find_objects(&[]).unwrap().len(), 2);
}

fn session_limits(world: &World) {
    world.script("sessions 3");
    let slot = world.slot().unwrap();
    let told = world.module.get_token_info(slot).unwrap().max_session_count();
    assert!(matches!(told, Limit::Max(3)), "{told:?}");
    // One is open already.
    let (_second, third) = (world.open().unwrap(), world.open().unwrap());
    assert_eq!(code(world.open()), R::SessionCount);
    drop(third);
    drop(world.open().unwrap());
    world.script("ok");
}

fn slots_renumbered(world: &World) {
    let before = world.slot().unwrap();
    for how in ["renumber 100", "renumber rotate"] {
        world.script(how);
        let shown = world.slot().unwrap();
        assert_ne!(shown, before, "{how}");
        let session = world.module.open_ro_session(shown).unwrap();
        assert_eq!(session.get_session_info().unwrap().slot_id(), shown, "{how}");
    }
    // Whoever kept the number now meets the slot that has no token in it yet.
    assert!(!world.module.get_token_info(before).unwrap().token_initialized());
    world.script("renumber 100");
    assert_eq!(code(world.module.get_token_info(before)), R::SlotIdInvalid);
    world.script("ok");
    assert_eq!(world.slot(), Some(before));
}

fn sessions_lost(world: &World, session: Session, private: ObjectHandle) {
    let other = world.open().unwrap();
    world.script("lost");
    assert_eq!(code(sign(&session, private)), R::SessionHandleInvalid);
    assert_eq!(code(sign(&session, private)), R::SessionHandleInvalid);
    assert_eq!(code(other.get_session_info()), R::SessionHandleInvalid);
    // With the last session the login went, too.
    let fresh = world.open().unwrap();
    assert!(fresh.find_objects(&[]).unwrap().len() < 2);
    drop(fresh);
    let again = world.login();
    let found = again.find_objects(&[Attribute::Sign(true)]).unwrap();
    sign(&again, found[0]).unwrap();
}

fn token_removed(world: &World, private: ObjectHandle) {
    let slot = world.slot().unwrap();
    let session = world.open().unwrap();
    world.script("removed");
    assert_eq!(code(sign(&session, private)), R::TokenNotPresent);
    assert_eq!(world.module.get_slots_with_token().unwrap(), []);
    assert!(world.module.get_all_slots().unwrap().contains(&slot));
    assert!(!world.module.get_slot_info(slot).unwrap().token_present());
    assert_eq!(code(world.module.get_token_info(slot)), R::TokenNotPresent);
    assert_eq!(code(world.module.open_ro_session(slot)), R::TokenNotPresent);

    world.script("ok");
    assert_eq!(world.slot(), Some(slot));
    assert_eq!(code(sign(&session, private)), R::SessionHandleInvalid);
    let session = world.login();
    let found = session.find_objects(&[Attribute::Sign(true)]).unwrap();
    sign(&session, found[0]).unwrap();
}

/// Sessions end while other threads have calls in theirs, and the process lives on.
fn sessions_lost_under_load(world: &World) {
    world.script("C_SignInit, C_Sign: 3% lost");
    let signed_by_one = || {
        (0..200)
            .filter(|_| sign_with_what_there_is(world).is_ok())
            .count()
    };
    let signed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(signed_by_one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!((1..800).contains(&signed), "{signed}");
    world.script("ok");
    sign_with_what_there_is(world).unwrap();
}

fn sign_with_what_there_is(world: &World) -> Result<Vec<u8>, Error> {
    let session = world.open()?;
    // Another thread may have logged in, which counts for all of a process.
    let _already = session.login(UserType::User, Some(&pin()));
    let found = session.find_objects(&[Attribute::Sign(true)])?;
    let key = found
        .first()
        .ok_or(Error::Pkcs11(R::ObjectHandleInvalid, Function::FindObjects))?;
    sign(&session, *key)
}
