//! A new Kryoptic token signs, and brings back keys that it has wrapped, by each mechanism that it has for that.

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use cryptoki_sys::{CK_MECHANISM_TYPE, CKM_AES_KEY_WRAP_KWP};
use p256::ecdsa::signature::hazmat::PrehashVerifier;

const PIN: &str = "123456";
const SO_PIN: &str = "12345678";

/// The object identifier of P-256 as CKA_EC_PARAMS.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Some digest; what it is the digest of does not matter here.
const DIGEST: [u8; 32] = [0x5a; 32];

/// The module beside this test's own folder.
fn module() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("libkryoptic_token.so")
}

/// What `KRYOPTIC_CONF` names: one slot, one file, and points as the standard encodes them.
fn configuration(folder: &Path) -> PathBuf {
    let file = folder.join("kryoptic.conf");
    let token = folder.join("token.sql");
    let text = format!(
        "[ec_point_encoding]\nencoding = \"Der\"\n\n[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
        token.display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// A new token of this module, and a session in which the user is logged in.
fn new_token(path: &Path) -> (Pkcs11, Session) {
    let module = Pkcs11::new(path).unwrap();
    module
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let so_pin = AuthPin::new(SO_PIN.into());
    let pin = AuthPin::new(PIN.into());
    let first = module.get_slots_with_token().unwrap()[0];
    module.init_token(first, &so_pin, "test").unwrap();
    // SoftHSM2 gives a token another slot once it has been initialised.
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    assert_eq!(module.get_token_info(slot).unwrap().label(), "test");
    let officer = module.open_rw_session(slot).unwrap();
    officer.login(UserType::So, Some(&so_pin)).unwrap();
    officer.init_pin(&pin).unwrap();
    officer.logout().unwrap();
    drop(officer);
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&pin)).unwrap();
    (module, session)
}

/// SoftHSM2 in this folder.
fn new_softhsm_token(folder: &Path) -> (Pkcs11, Session) {
    let tokens = folder.join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let text = format!("directories.tokendir = {}\n", tokens.display());
    std::fs::write(folder.join("softhsm2.conf"), text).unwrap();
    new_token(Path::new("/usr/lib/softhsm/libsofthsm2.so"))
}

/// Both libraries find their tokens through the environment.
fn set_environment(folder: &Path) {
    // SAFETY: the one test of this process runs this before anything else reads the environment.
    unsafe {
        std::env::set_var("KRYOPTIC_CONF", configuration(folder));
        std::env::set_var("SOFTHSM2_CONF", folder.join("softhsm2.conf"));
    }
}

fn secret_attributes(in_token: bool) -> Vec<Attribute> {
    vec![
        Attribute::Token(in_token),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::Sign(true),
    ]
}

/// A pair that may be wrapped.
fn pair(session: &Session, kind: KeyType) -> (ObjectHandle, ObjectHandle) {
    let (mechanism, attributes) = if kind == KeyType::RSA {
        let bits = Attribute::ModulusBits(2048.into());
        (
            Mechanism::RsaPkcsKeyPairGen,
            vec![bits, Attribute::PublicExponent(vec![1, 0, 1])],
        )
    } else {
        (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())])
    };
    let public = [vec![Attribute::Token(true), Attribute::Verify(true)], attributes].concat();
    session
        .generate_key_pair(&mechanism, &public, &secret_attributes(true))
        .unwrap()
}

fn assert_p256_signs(session: &Session, private: ObjectHandle, public: ObjectHandle) {
    let signature = session.sign(&Mechanism::Ecdsa, private, &DIGEST).unwrap();
    let point = session.get_attributes(public, &[AttributeType::EcPoint]).unwrap();
    let [Attribute::EcPoint(point)] = &point[..] else {
        panic!("no CKA_EC_POINT")
    };
    assert_eq!(
        point[..3],
        [0x04, 0x41, 0x04],
        "an OCTET STRING with an uncompressed point"
    );
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point[2..]).unwrap();
    key.verify_prehash(&DIGEST, &p256::ecdsa::Signature::from_slice(&signature).unwrap())
        .unwrap();
}

fn rsa_public(session: &Session, public: ObjectHandle) -> rsa::RsaPublicKey {
    let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
    let found = session.get_attributes(public, &wanted).unwrap();
    let [Attribute::Modulus(n), Attribute::PublicExponent(e)] = &found[..] else {
        panic!("no key")
    };
    rsa::RsaPublicKey::new(rsa::BigUint::from_bytes_be(n), rsa::BigUint::from_bytes_be(e)).unwrap()
}

/// DigestInfo of SHA-256 (RFC 8017 9.2, note 1), which CKM_RSA_PKCS pads but does not make.
fn digest_info() -> Vec<u8> {
    let mut info = vec![
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
    ];
    info.extend_from_slice(&[0x05, 0x00, 0x04, 0x20]);
    info.extend_from_slice(&DIGEST);
    info
}

fn assert_rsa_signs(session: &Session, private: ObjectHandle, public: ObjectHandle) {
    use rsa::sha2::Sha256;
    let key = rsa_public(session, public);
    let signature = session
        .sign(&Mechanism::RsaPkcs, private, &digest_info())
        .unwrap();
    key.verify(rsa::Pkcs1v15Sign::new::<Sha256>(), &DIGEST, &signature)
        .unwrap();
    let pss = PkcsPssParams {
        hash_alg: MechanismType::SHA256,
        mgf: PkcsMgfType::MGF1_SHA256,
        s_len: 32.into(),
    };
    let signature = session
        .sign(&Mechanism::RsaPkcsPss(pss), private, &DIGEST)
        .unwrap();
    key.verify(rsa::Pss::new_with_salt::<Sha256>(32), &DIGEST, &signature)
        .unwrap();
}

/// CKM_AES_KEY_WRAP_KWP (RFC 5649) for cryptoki 0.12, whose list of mechanisms has no name for it.
fn key_wrap_kwp() -> Mechanism<'static> {
    // SAFETY: MechanismType is `repr(transparent)` over CK_MECHANISM_TYPE and any number is a value of it.
    let kwp = unsafe { std::mem::transmute::<CK_MECHANISM_TYPE, MechanismType>(CKM_AES_KEY_WRAP_KWP) };
    Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(kwp, None))
}

/// Wraps a private key, and unwraps what comes of it into a session object.
fn round_trip(
    session: &Session,
    mechanism: &Mechanism,
    wrapping: ObjectHandle,
    (private, kind): (ObjectHandle, KeyType),
) -> Result<ObjectHandle, Error> {
    let blob = session.wrap_key(mechanism, wrapping, private)?;
    let mut template = secret_attributes(false);
    template.extend([
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(kind),
    ]);
    session.unwrap_key(mechanism, wrapping, &blob, &template)
}

#[test]
fn signs_and_brings_back_wrapped_keys() {
    let folder = tempfile::tempdir().unwrap();
    set_environment(folder.path());
    let (module, session) = new_token(&module());
    let (ec_public, ec) = pair(&session, KeyType::EC);
    let (rsa_public, rsa) = pair(&session, KeyType::RSA);
    assert_p256_signs(&session, ec, ec_public);
    assert_rsa_signs(&session, rsa, rsa_public);

    let wrapping = wrapping_key(&session);
    wraps_private_keys(&session, wrapping, (ec, ec_public), (rsa, rsa_public));
    sends_the_wrapping_key(&session, wrapping);
    has_the_mechanisms(&module);
    let (_softhsm, other) = new_softhsm_token(folder.path());
    takes_keys_from_softhsm(&session, &other);
}

/// AES-256 that may wrap, and be wrapped itself.
fn wrapping_key(session: &Session) -> ObjectHandle {
    let template = [
        Attribute::Token(true),
        Attribute::ValueLen(32.into()),
        Attribute::Extractable(true),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap()
}

fn wraps_private_keys(
    session: &Session,
    wrapping: ObjectHandle,
    (ec, ec_public): (ObjectHandle, ObjectHandle),
    (rsa, rsa_public): (ObjectHandle, ObjectHandle),
) {
    for mechanism in [key_wrap_kwp(), Mechanism::AesCbcPad([7; 16])] {
        let key = round_trip(session, &mechanism, wrapping, (ec, KeyType::EC)).unwrap();
        assert_p256_signs(session, key, ec_public);
        let key = round_trip(session, &mechanism, wrapping, (rsa, KeyType::RSA)).unwrap();
        assert_rsa_signs(session, key, rsa_public);
    }
    // RFC 3394 takes multiples of eight bytes, and a PKCS#8 of P-256 is none.
    let refused = round_trip(session, &Mechanism::AesKeyWrap, wrapping, (ec, KeyType::EC)).unwrap_err();
    assert!(
        matches!(refused, Error::Pkcs11(RvError::DataLenRange, _)),
        "{refused}"
    );
    // The ambiguous mechanism, by which SoftHSM2 means RFC 5649, is not there.
    let refused = round_trip(session, &Mechanism::AesKeyWrapPad, wrapping, (ec, KeyType::EC)).unwrap_err();
    assert!(
        matches!(refused, Error::Pkcs11(RvError::MechanismInvalid, _)),
        "{refused}"
    );
}

/// An AES key goes to another token under that one's RSA key: RSA-OAEP, here with SHA-256.
fn sends_the_wrapping_key(session: &Session, wrapping: ObjectHandle) {
    let public = [
        Attribute::ModulusBits(2048.into()),
        Attribute::PublicExponent(vec![1, 0, 1]),
        Attribute::Wrap(true),
    ];
    let private = [Attribute::Unwrap(true), Attribute::Private(true)];
    let (public, private) = session
        .generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)
        .unwrap();
    let source = PkcsOaepSource::empty();
    let oaep = Mechanism::RsaPkcsOaep(PkcsOaepParams::new(
        MechanismType::SHA256,
        PkcsMgfType::MGF1_SHA256,
        source,
    ));
    let blob = session.wrap_key(&oaep, public, wrapping).unwrap();
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Extractable(true),
        Attribute::Encrypt(true),
    ];
    let back = session.unwrap_key(&oaep, private, &blob, &template).unwrap();
    let check = |key| session.get_attributes(key, &[AttributeType::CheckValue]).unwrap();
    assert_eq!(format!("{:?}", check(back)), format!("{:?}", check(wrapping)));
}

fn has_the_mechanisms(module: &Pkcs11) {
    let slot = module.get_slots_with_token().unwrap()[0];
    let has = module.get_mechanism_list(slot).unwrap();
    for wanted in [
        MechanismType::ECDSA,
        MechanismType::RSA_PKCS,
        MechanismType::RSA_PKCS_PSS,
        MechanismType::AES_KEY_WRAP,
    ] {
        assert!(has.contains(&wanted), "{wanted}");
    }
    for absent in [MechanismType::EDDSA, MechanismType::AES_KEY_WRAP_PAD] {
        assert!(!has.contains(&absent), "{absent}");
    }
}

/// What SoftHSM2 calls CKM_AES_KEY_WRAP_PAD is CKM_AES_KEY_WRAP_KWP, so keys can go from one to the other.
fn takes_keys_from_softhsm(kryoptic: &Session, softhsm: &Session) {
    let shared = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Value(vec![0x42; 32]),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
    ];
    let here = kryoptic.create_object(&shared).unwrap();
    let there = softhsm.create_object(&shared).unwrap();
    let (public, private) = pair(softhsm, KeyType::EC);
    let blob = softhsm
        .wrap_key(&Mechanism::AesKeyWrapPad, there, private)
        .unwrap();
    let mut template = secret_attributes(false);
    template.extend([
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
    ]);
    let key = kryoptic
        .unwrap_key(&key_wrap_kwp(), here, &blob, &template)
        .unwrap();
    let signature = kryoptic.sign(&Mechanism::Ecdsa, key, &DIGEST).unwrap();
    softhsm
        .verify(&Mechanism::Ecdsa, public, &DIGEST, &signature)
        .unwrap();

    let (public, private) = pair(kryoptic, KeyType::EC);
    let blob = kryoptic.wrap_key(&key_wrap_kwp(), here, private).unwrap();
    let key = softhsm
        .unwrap_key(&Mechanism::AesKeyWrapPad, there, &blob, &template)
        .unwrap();
    let signature = softhsm.sign(&Mechanism::Ecdsa, key, &DIGEST).unwrap();
    kryoptic
        .verify(&Mechanism::Ecdsa, public, &DIGEST, &signature)
        .unwrap();
}
