//! PKCS#11: sessions with one token, and the handles they have looked up. With `keys.rs` the only place that calls a
//! module; it lives in a worker process.

mod keys;
mod mechanism;
mod public_key;
mod wrapping;

use std::collections::HashMap;
use std::sync::Arc;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::UserType;
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki::types::AuthPin;
use protocol::algorithm::{Algorithm, KeyKind};

use self::wrapping::Wrapping;
use super::cache::{Acquired, Cache};
use super::module::{Made, ModuleError, Session};
use crate::device::ckr::{Class, classify};
use crate::device::wire::{OpKey, Order, Ordered, Setup, TokenFacts};

/// Of the sessions a token allows, this part is ours, in percent: others may need some, and a killed process's are
/// freed late.
const SESSIONS_PERCENT: u64 = 80;

/// Why the token did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("{}", short(.0))]
    Call(#[from] Error),
    #[error("no token with label {label:?} and serial {serial:?} in {module}")]
    NoToken {
        module: String,
        label: Option<String>,
        serial: Option<String>,
    },
    #[error("no {0} with this CKA_ID")]
    NoObject(&'static str),
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

impl From<TokenError> for ModuleError {
    fn from(error: TokenError) -> Self {
        let class = match &error {
            TokenError::Call(error) => classify(error),
            TokenError::NoToken { .. } => Class::Token,
            TokenError::NoObject(_) | TokenError::Unsupported => Class::Request,
            TokenError::Unreadable => Class::Device,
        };
        Self::new(class, error.to_string())
    }
}

/// What the sessions of one process share.
struct Token {
    module: Pkcs11,
    slot: Slot,
    vendor: String,
    wrapping: Option<Wrapping>,
    /// CKA_LABEL of the probe key, where the configuration names one.
    probe: Option<String>,
    unwrapped: Cache<ObjectHandle>,
}

/// One session.
struct TokenSession {
    session: cryptoki::session::Session,
    handles: HashMap<Vec<u8>, ObjectHandle>,
    token: Arc<Token>,
}

/// Opens the token with as many sessions as asked for and allowed.
pub(super) fn open(setup: &Setup<'_>) -> Result<(TokenFacts, Vec<Box<dyn Session>>), ModuleError> {
    let opened = open_token(setup)?;
    Ok(opened)
}

fn open_token(setup: &Setup<'_>) -> Result<(TokenFacts, Vec<Box<dyn Session>>), TokenError> {
    let module = Pkcs11::new(setup.module)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let (slot, info) = find_slot(&module, setup)?;
    let first = module.open_rw_session(slot)?;
    match first.login(UserType::User, Some(&AuthPin::from(setup.pin.to_owned()))) {
        // Login is per application, not per session.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut facts = facts(&module, &info)?;
    let token = Arc::new(Token {
        vendor: info.manufacturer_id().to_owned(),
        wrapping: Wrapping::of(&module, slot, info.manufacturer_id()),
        probe: setup.probe.map(str::to_owned),
        unwrapped: Cache::new(setup.cache as usize),
        slot,
        module,
    });
    let mut sessions = vec![TokenSession::new(first, &token)];
    facts.keks = sessions[0].list_keks()?;
    for _ in 1..allowed_sessions(setup.sessions, facts.sessions_max) {
        match token.module.open_rw_session(slot) {
            Ok(session) => sessions.push(TokenSession::new(session, &token)),
            // The token has fewer than it said; what is open serves.
            Err(Error::Pkcs11(RvError::SessionCount, _)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let sessions = sessions
        .into_iter()
        .map(|session| Box::new(session) as Box<dyn Session>);
    Ok((facts, sessions.collect()))
}

fn allowed_sessions(asked: u16, limit: u64) -> u64 {
    let asked = u64::from(asked.max(1));
    if limit == 0 {
        asked
    } else {
        asked.min((limit * SESSIONS_PERCENT / 100).max(1))
    }
}

fn find_slot(module: &Pkcs11, setup: &Setup<'_>) -> Result<(Slot, TokenInfo), TokenError> {
    for slot in module.get_slots_with_initialized_token()? {
        let info = module.get_token_info(slot)?;
        let label_fits = setup.label.is_none_or(|label| label == info.label());
        let serial_fits = setup.serial.is_none_or(|serial| serial == info.serial_number());
        if label_fits && serial_fits {
            return Ok((slot, info));
        }
    }
    Err(TokenError::NoToken {
        module: setup.module.to_owned(),
        label: setup.label.map(str::to_owned),
        serial: setup.serial.map(str::to_owned),
    })
}

fn facts(module: &Pkcs11, info: &TokenInfo) -> Result<TokenFacts, TokenError> {
    let version = module.get_library_info()?.cryptoki_version();
    Ok(TokenFacts {
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        model: format!("{} {}", info.manufacturer_id(), info.model()),
        interface: format!("PKCS#11 {}.{}", version.major(), version.minor()),
        sessions_max: match info.max_session_count() {
            Limit::Max(sessions) => sessions,
            Limit::Unavailable | Limit::Infinite => 0,
        },
        keks: Vec::new(),
    })
}

impl TokenSession {
    fn new(session: cryptoki::session::Session, token: &Arc<Token>) -> Self {
        Self {
            session,
            handles: HashMap::new(),
            token: Arc::clone(token),
        }
    }

    /// The handle of an object. Looked up once: searching costs some modules milliseconds.
    fn handle(&mut self, class: ObjectClass, id: &[u8]) -> Result<ObjectHandle, TokenError> {
        if let Some(handle) = self.handles.get(id) {
            return Ok(*handle);
        }
        let found = self
            .session
            .find_objects(&[Attribute::Class(class), Attribute::Id(id.to_vec())])?;
        let what = if class == ObjectClass::SECRET_KEY {
            "wrapping key"
        } else {
            "private key"
        };
        let handle = *found.first().ok_or(TokenError::NoObject(what))?;
        self.handles.insert(id.to_vec(), handle);
        Ok(handle)
    }

    fn sign_object(&mut self, id: &[u8], algorithm: Algorithm, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        let handle = self.handle(ObjectClass::PRIVATE_KEY, id)?;
        mechanism::sign_with(&self.session, handle, algorithm, input)
    }

    /// Signs with a key that is unwrapped first, if it is not there already.
    fn sign_wrapped(
        &mut self,
        key: &OpKey<'_>,
        algorithm: Algorithm,
        input: &[u8],
    ) -> Result<Made, TokenError> {
        let OpKey::Wrapped { row, tenant, .. } = *key else {
            return Err(TokenError::Unsupported);
        };
        let token = Arc::clone(&self.token);
        let (handle, unwrapped) = match token.unwrapped.acquire(row, tenant) {
            Acquired::Ready(handle) => (handle, false),
            Acquired::Load { evicted } => {
                if let Some(old) = evicted {
                    // One that cannot be destroyed dies with the process.
                    let _ = self.session.destroy_object(old);
                }
                let loaded = self.load(key);
                token.unwrapped.loaded(row, loaded.as_ref().ok().copied());
                (loaded?, true)
            }
        };
        let signature = mechanism::sign_with(&self.session, handle, algorithm, input);
        token.unwrapped.release(row);
        Ok(Made {
            signature: signature?,
            unwrapped,
        })
    }

    fn load(&mut self, key: &OpKey<'_>) -> Result<ObjectHandle, TokenError> {
        let OpKey::Wrapped {
            kind,
            mechanism,
            vendor,
            kek,
            blob,
            ..
        } = *key
        else {
            return Err(TokenError::Unsupported);
        };
        let kind: KeyKind = kind.parse().map_err(|_| TokenError::Unsupported)?;
        let key = keys::Wrapped {
            mechanism,
            vendor,
            kek,
            blob,
        };
        self.unwrap(&key, &keys::session_key(kind)?)
    }
}

/// Whether a call failed because its handle is not one any more.
const fn is_stale_handle(error: &TokenError) -> bool {
    matches!(
        error,
        TokenError::Call(Error::Pkcs11(
            RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid,
            _
        ))
    )
}

impl Session for TokenSession {
    fn sign(&mut self, key: &OpKey<'_>, algorithm: Algorithm, input: &[u8]) -> Result<Made, ModuleError> {
        let OpKey::Object(id) = *key else {
            return Ok(self.sign_wrapped(key, algorithm, input)?);
        };
        let mut signature = self.sign_object(id, algorithm, input);
        if signature.as_ref().is_err_and(is_stale_handle) {
            // Some modules (SoftHSM2) forget handles when another process has changed the token. Looked up again it is the
            // right key or none: whatever it is, its signature is verified.
            self.renew()?;
            signature = self.sign_object(id, algorithm, input);
        }
        Ok(Made {
            signature: signature?,
            unwrapped: false,
        })
    }

    fn order(&mut self, order: &Order) -> Result<Ordered, ModuleError> {
        Ok(self.obey(order)?)
    }

    fn renew(&mut self) -> Result<(), ModuleError> {
        // A failed call may leave its operation active, and the next one would fail for it. The new session is opened
        // before the old one closes, so the login and the session objects of other sessions last.
        self.session = self
            .token
            .module
            .open_rw_session(self.token.slot)
            .map_err(TokenError::from)?;
        self.handles.clear();
        Ok(())
    }
}
