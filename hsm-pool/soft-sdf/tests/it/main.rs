//! The library as a C program meets it: loaded by name, called by pointers. Its keys and its script are of the process,
//! so this is one test, in order.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where it stopped"
)]
#![expect(unsafe_code, reason = "the functions under test are C functions")]

mod library;

use library::{KEY, Library, PASSWORD, Signature, World, sm3};

/// Codes of GM/T 0018-2012, annex A, once more and by hand.
const SDR_COMMFAIL: i32 = 0x0100_0003;
const SDR_HARDFAIL: i32 = 0x0100_0004;
const SDR_OPENSESSION: i32 = 0x0100_0006;
const SDR_PARDENY: i32 = 0x0100_0007;
const SDR_KEYNOTEXIST: i32 = 0x0100_0008;
const SDR_VERIFYERR: i32 = 0x0100_000E;
const SDR_PRKRERR: i32 = 0x0100_0018;
const SDR_INARGERR: i32 = 0x0100_001D;
const SDR_OUTARGERR: i32 = 0x0100_001E;

#[test]
fn a_caller_signs_by_sm2_and_sees_what_the_script_says() {
    let world = World::new();
    let sdf = &world.library;
    let device = sdf.open_device().unwrap();
    let session = sdf.open_session(device).unwrap();
    tells_what_it_is(sdf, session);
    signs_for_those_who_may(sdf, session);
    refuses_wrong_arguments(sdf, device, session);
    misbehaves(&world, session);
    loses_sessions(&world, device, session);
    assert_eq!(sdf.close_device(device), 0);
    assert_eq!(sdf.open_session(device), Err(SDR_INARGERR));
}

fn tells_what_it_is(sdf: &Library, session: usize) {
    let info = sdf.device_info(session).unwrap();
    assert_eq!(info[..9], *b"Cinnabar\0");
    assert_eq!(info[40..48], *b"soft-sdf");
    let (one, other) = (
        sdf.random::<32>(session).unwrap(),
        sdf.random::<32>(session).unwrap(),
    );
    assert!(one != other && one != [0; 32]);
}

fn signs_for_those_who_may(sdf: &Library, session: usize) {
    // The public key of GM/T 0003.5-2012, example A.2, on the right of its fields.
    let public = sdf.public_key(session, KEY).unwrap();
    assert_eq!(public[..4], 256u32.to_le_bytes());
    assert!(
        public[4..36]
            .iter()
            .chain(&public[68..100])
            .all(|byte| *byte == 0)
    );
    assert_eq!(public[36..40], [0x09, 0xf9, 0xdf, 0x31]);
    assert_eq!(public[100..104], [0xcc, 0xea, 0x49, 0x0c]);

    // e of the same example: SM3(Z || "message digest").
    let e = library::digest_of_message(&public, b"message digest");
    assert_eq!(e[..4], [0xf0, 0xb4, 0x3e, 0x94]);

    assert_eq!(sdf.sign(session, KEY, &e), Err(SDR_PARDENY));
    assert_eq!(sdf.allow(session, KEY, b"guess"), SDR_PRKRERR);
    assert_eq!(sdf.sign(session, KEY, &e), Err(SDR_PARDENY));
    assert_eq!(sdf.allow(session, KEY, PASSWORD), 0);
    let signature = sdf.sign(session, KEY, &e).unwrap();
    assert!(
        signature[..32]
            .iter()
            .chain(&signature[64..96])
            .all(|byte| *byte == 0)
    );
    assert_eq!(sdf.verify(session, KEY, &e, &signature), 0);
    assert!(library::judge(&public, b"message digest", &signature));
    assert_eq!(
        sdf.verify(session, KEY, &sm3(b"other"), &signature),
        SDR_VERIFYERR
    );

    assert_eq!(sdf.disallow(session, KEY), 0);
    assert_eq!(sdf.sign(session, KEY, &e), Err(SDR_PARDENY));
    assert_eq!(sdf.allow(session, KEY, PASSWORD), 0);
}

fn refuses_wrong_arguments(sdf: &Library, device: usize, session: usize) {
    assert_eq!(sdf.public_key(session, 9), Err(SDR_KEYNOTEXIST));
    assert_eq!(sdf.allow(session, 9, PASSWORD), SDR_KEYNOTEXIST);
    assert_eq!(sdf.sign(session, KEY, &[7; 31]), Err(SDR_INARGERR));
    assert_eq!(
        sdf.sign(device, KEY, &[7; 32]),
        Err(SDR_INARGERR),
        "a device is no session"
    );
    assert_eq!(sdf.sign(0, KEY, &[7; 32]), Err(SDR_INARGERR));
    assert_eq!(sdf.sign_to_nowhere(session, KEY, &[7; 32]), SDR_OUTARGERR);
    // The right belongs to a session, not to the device.
    let other = sdf.open_session(device).unwrap();
    assert_eq!(sdf.sign(other, KEY, &[7; 32]), Err(SDR_PARDENY));
    assert_eq!(sdf.close_session(other), 0);
    assert_eq!(sdf.close_session(other), SDR_INARGERR);
}

fn misbehaves(world: &World, session: usize) {
    let sdf = &world.library;
    let e = [7; 32];
    let check = |signature: &Signature| sdf.verify(session, KEY, &e, signature);
    world.script("times 1 wrong; times 1 slow 1 error SDR_HARDFAIL; times 1 error 0x2000");
    assert_eq!(check(&sdf.sign(session, KEY, &e).unwrap()), SDR_VERIFYERR);
    assert_eq!(sdf.sign(session, KEY, &e), Err(SDR_HARDFAIL));
    assert_eq!(sdf.sign(session, KEY, &e), Err(0x2000));
    assert_eq!(check(&sdf.sign(session, KEY, &e).unwrap()), 0);
    world.script("SDF_Get*: error SDR_COMMFAIL");
    assert_eq!(sdf.allow(session, KEY, PASSWORD), SDR_COMMFAIL);
    assert_eq!(sdf.device_info(session), Err(SDR_COMMFAIL));
    world.script("ok");
}

fn loses_sessions(world: &World, device: usize, session: usize) {
    let sdf = &world.library;
    let fresh = || {
        let session = sdf.open_session(device).unwrap();
        assert_eq!(sdf.allow(session, KEY, PASSWORD), 0);
        session
    };
    world.script("sessions 1");
    assert_eq!(sdf.open_session(device), Err(SDR_OPENSESSION));
    world.script("lost");
    assert_eq!(sdf.sign(session, KEY, &[7; 32]), Err(SDR_COMMFAIL));
    assert_eq!(sdf.sign(session, KEY, &[7; 32]), Err(SDR_COMMFAIL));
    let session = fresh();
    assert!(sdf.sign(session, KEY, &[7; 32]).is_ok());

    world.script("removed");
    assert_eq!(sdf.sign(session, KEY, &[7; 32]), Err(SDR_COMMFAIL));
    assert_eq!(sdf.open_session(device), Err(SDR_COMMFAIL));
    assert_eq!(sdf.open_device(), Err(SDR_COMMFAIL));
    world.script("ok");
    assert_eq!(sdf.sign(session, KEY, &[7; 32]), Err(SDR_COMMFAIL));
    assert!(sdf.sign(fresh(), KEY, &[7; 32]).is_ok());
}
