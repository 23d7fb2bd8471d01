//! One open PKCS#11 token: a session that is logged in, and the handles it has looked up. The only file that calls
//! the module for signing; it lives in a worker process.

use std::collections::HashMap;

use aws_lc_rs::rand::SecureRandom;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use der::asn1::{BitString, ObjectIdentifier, OctetString, UintRef};
use der::{Decode, Encode, Sequence};
use protocol::algorithm::{Algorithm, Hash, InputKind, KeyKind};
use protocol::verify::pair_to_der;

use super::DeviceKey;
use super::ckr::{Class, classify};

/// Which token.
pub(crate) struct Selector<'a> {
    pub(crate) module: &'a str,
    pub(crate) label: Option<&'a str>,
    pub(crate) serial: Option<&'a str>,
}

/// Why the token did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("{}", short(.0))]
    Call(#[from] Error),
    #[error("no token with label {label:?} and serial {serial:?} in {module}")]
    NoToken {
        module: String,
        label: Option<String>,
        serial: Option<String>,
    },
    #[error("no private key with this CKA_ID")]
    NoKey,
    #[error("the device cannot make or use this kind of key")]
    Unsupported,
    #[error("the device returned something that cannot be read")]
    Unreadable,
}

/// The function and the code; the library's own text is a paragraph of the standard.
fn short(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} answered {code:?}"),
        other => other.to_string(),
    }
}

impl TokenError {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Call(error) => classify(error),
            Self::NoToken { .. } => Class::Token,
            Self::NoKey | Self::Unsupported => Class::Request,
            Self::Unreadable => Class::Device,
        }
    }
}

/// An open token.
pub(crate) struct Token {
    session: Session,
    handles: HashMap<Vec<u8>, ObjectHandle>,
    slot: Slot,
    label: String,
    // Dropped after the session, which belongs to it.
    module: Pkcs11,
}

impl Token {
    pub(crate) fn open(which: &Selector<'_>, pin: &AuthPin) -> Result<Self, TokenError> {
        let module = Pkcs11::new(which.module)?;
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let (slot, label) = find_slot(&module, which)?;
        let session = module.open_rw_session(slot)?;
        match session.login(UserType::User, Some(pin)) {
            // Login is per application, not per session.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            session,
            handles: HashMap::new(),
            slot,
            label,
            module,
        })
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The handle of a private key. Looked up once: searching costs some modules milliseconds.
    fn handle(&mut self, object: &[u8]) -> Result<ObjectHandle, TokenError> {
        if let Some(handle) = self.handles.get(object) {
            return Ok(*handle);
        }
        let template = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Id(object.to_vec()),
        ];
        let found = self.session.find_objects(&template)?;
        let handle = *found.first().ok_or(TokenError::NoKey)?;
        self.handles.insert(object.to_vec(), handle);
        Ok(handle)
    }

    /// Signs; the result is in the algorithm's usual encoding.
    pub(crate) fn sign(
        &mut self,
        object: &[u8],
        algorithm: Algorithm,
        input: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        let handle = self.handle(object)?;
        let result = sign_with(&self.session, handle, algorithm, input);
        if matches!(result, Err(TokenError::Call(_))) {
            // A failed call may leave its operation active, and the next one would fail for it. The new session is
            // opened before the old one closes, so the login lasts.
            self.session = self.module.open_rw_session(self.slot)?;
        }
        result
    }

    /// Makes a key pair that stays in the token.
    pub(crate) fn generate(&mut self, kind: KeyKind, label: &str) -> Result<DeviceKey, TokenError> {
        let mut object = [0; 16];
        aws_lc_rs::rand::SystemRandom::new()
            .fill(&mut object)
            .map_err(|_| TokenError::Unreadable)?;
        let (mechanism, kind_attributes) = generation(kind)?;
        let common = [
            Attribute::Token(true),
            Attribute::Id(object.to_vec()),
            Attribute::Label(label.as_bytes().to_vec()),
        ];
        let public: Vec<_> = common
            .iter()
            .cloned()
            .chain([Attribute::Verify(true)])
            .chain(kind_attributes)
            .collect();
        let private: Vec<_> = common
            .into_iter()
            .chain([
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ])
            .collect();
        let (public, _) = self.session.generate_key_pair(&mechanism, &public, &private)?;
        let public_key = self.read_public(public, kind)?;
        Ok(DeviceKey {
            object: object.to_vec(),
            public_key,
        })
    }

    fn read_public(&self, handle: ObjectHandle, kind: KeyKind) -> Result<Vec<u8>, TokenError> {
        let wanted = [
            AttributeType::EcPoint,
            AttributeType::Modulus,
            AttributeType::PublicExponent,
        ];
        let wanted = if kind.rsa_bits().is_some() {
            &wanted[1..]
        } else {
            &wanted[..1]
        };
        let attributes = self.session.get_attributes(handle, wanted)?;
        match (kind, &attributes[..]) {
            (_, [Attribute::Modulus(n), Attribute::PublicExponent(e)]) => rsa_spki(n, e),
            (KeyKind::Ed25519, [Attribute::EcPoint(point)]) => ed25519_spki(point),
            (_, [Attribute::EcPoint(point)]) => ec_spki(kind, point),
            _ => Err(TokenError::Unreadable),
        }
    }
}

fn find_slot(module: &Pkcs11, which: &Selector<'_>) -> Result<(Slot, String), TokenError> {
    for slot in module.get_slots_with_initialized_token()? {
        let info = module.get_token_info(slot)?;
        let label_fits = which.label.is_none_or(|label| label == info.label());
        let serial_fits = which.serial.is_none_or(|serial| serial == info.serial_number());
        if label_fits && serial_fits {
            return Ok((slot, info.label().to_owned()));
        }
    }
    Err(TokenError::NoToken {
        module: which.module.to_owned(),
        label: which.label.map(str::to_owned),
        serial: which.serial.map(str::to_owned),
    })
}

fn sign_with(
    session: &Session,
    key: ObjectHandle,
    algorithm: Algorithm,
    input: &[u8],
) -> Result<Vec<u8>, TokenError> {
    match algorithm {
        Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP384Sha384 => {
            let pair = session.sign(&Mechanism::Ecdsa, key, input)?;
            Ok(pair_to_der(&pair).ok_or(TokenError::Unreadable)?.to_vec())
        }
        Algorithm::RsaPkcs1Sha256 | Algorithm::RsaPkcs1Sha384 | Algorithm::RsaPkcs1Sha512 => {
            Ok(session.sign(&Mechanism::RsaPkcs, key, &digest_info(algorithm, input)?)?)
        }
        Algorithm::RsaPssSha256 | Algorithm::RsaPssSha384 | Algorithm::RsaPssSha512 => {
            Ok(session.sign(&Mechanism::RsaPkcsPss(pss_parameters(algorithm)?), key, input)?)
        }
        Algorithm::Ed25519 => {
            let parameters = EddsaParams::new(EddsaSignatureScheme::Pure);
            Ok(session.sign(&Mechanism::Eddsa(parameters), key, input)?)
        }
        Algorithm::Sm2Sm3 | Algorithm::Sm2Sm3E => Err(TokenError::Unsupported),
    }
}

fn hash_of(algorithm: Algorithm) -> Result<Hash, TokenError> {
    match algorithm.input() {
        InputKind::Digest(hash) => Ok(hash),
        InputKind::Message(_) => Err(TokenError::Unsupported),
    }
}

/// DigestInfo (RFC 8017 9.2, note 1): CKM_RSA_PKCS pads it but does not make it.
fn digest_info(algorithm: Algorithm, digest: &[u8]) -> Result<Vec<u8>, TokenError> {
    let last = match hash_of(algorithm)? {
        Hash::Sha256 => 1,
        Hash::Sha384 => 2,
        Hash::Sha512 => 3,
        Hash::Sm3 => return Err(TokenError::Unsupported),
    };
    let length = u8::try_from(digest.len()).map_err(|_| TokenError::Unsupported)?;
    let mut info = vec![0x30, 17 + length, 0x30, 0x0d, 0x06, 0x09];
    info.extend_from_slice(&[
        0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last, 0x05, 0x00, 0x04, length,
    ]);
    info.extend_from_slice(digest);
    Ok(info)
}

fn pss_parameters(algorithm: Algorithm) -> Result<PkcsPssParams, TokenError> {
    let hash = hash_of(algorithm)?;
    let (hash_alg, mgf) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
        Hash::Sm3 => return Err(TokenError::Unsupported),
    };
    Ok(PkcsPssParams {
        hash_alg,
        mgf,
        s_len: (hash.bytes() as u64).into(),
    })
}

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

fn curve(kind: KeyKind) -> Result<ObjectIdentifier, TokenError> {
    match kind {
        KeyKind::P256 => Ok(P256),
        KeyKind::P384 => Ok(P384),
        _ => Err(TokenError::Unsupported),
    }
}

fn to_der(value: &impl Encode) -> Result<Vec<u8>, TokenError> {
    value.to_der().map_err(|_| TokenError::Unreadable)
}

/// The mechanism and the public template's attributes for a new pair of this kind.
fn generation(kind: KeyKind) -> Result<(Mechanism<'static>, Vec<Attribute>), TokenError> {
    if let Some(bits) = kind.rsa_bits() {
        let attributes = vec![
            Attribute::ModulusBits(u64::from(bits).into()),
            Attribute::PublicExponent(vec![1, 0, 1]),
        ];
        return Ok((Mechanism::RsaPkcsKeyPairGen, attributes));
    }
    if kind == KeyKind::Ed25519 {
        let attributes = vec![
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::EcParams(to_der(&ED25519)?),
        ];
        return Ok((Mechanism::EccEdwardsKeyPairGen, attributes));
    }
    Ok((
        Mechanism::EccKeyPairGen,
        vec![Attribute::EcParams(to_der(&curve(kind)?)?)],
    ))
}

fn ec_spki(kind: KeyKind, point: &[u8]) -> Result<Vec<u8>, TokenError> {
    // CKA_EC_POINT is the point in an OCTET STRING (PKCS#11 3.0, 6.3.3).
    let point = OctetString::from_der(point).map_err(|_| TokenError::Unreadable)?;
    to_der(&spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier {
            oid: EC_PUBLIC_KEY,
            parameters: Some(curve(kind)?),
        },
        subject_public_key: bits(point.as_bytes())?,
    })
}

fn ed25519_spki(point: &[u8]) -> Result<Vec<u8>, TokenError> {
    let point = OctetString::from_der(point).map_err(|_| TokenError::Unreadable)?;
    to_der(&spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier::<der::asn1::Null> {
            oid: ED25519,
            parameters: None,
        },
        subject_public_key: bits(point.as_bytes())?,
    })
}

/// RSAPublicKey (RFC 8017 A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>, TokenError> {
    let number = |bytes| UintRef::new(bytes).map_err(|_| TokenError::Unreadable);
    let key = RsaPublicKey {
        modulus: number(modulus)?,
        public_exponent: number(exponent)?,
    };
    to_der(&spki::SubjectPublicKeyInfo {
        algorithm: spki::AlgorithmIdentifier {
            oid: RSA_ENCRYPTION,
            parameters: Some(der::asn1::Null),
        },
        subject_public_key: bits(&to_der(&key)?)?,
    })
}

fn bits(bytes: &[u8]) -> Result<BitString, TokenError> {
    BitString::from_bytes(bytes).map_err(|_| TokenError::Unreadable)
}
