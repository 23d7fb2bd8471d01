//! The device of this process: who has opened it, the sessions, and which keys each may use.

use std::collections::{HashMap, HashSet};
use std::ffi::c_uint;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::code::{
    SDR_COMMFAIL, SDR_INARGERR, SDR_KEYNOTEXIST, SDR_OPENDEVICE, SDR_OPENSESSION, SDR_PARDENY, SDR_PRKRERR,
    SdrResult,
};
use crate::keys::{Key, Keys, parse};

/// A device or a session, by a number that is never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle(pub(crate) usize);

#[derive(Default)]
struct Device {
    given: usize,
    open: HashSet<Handle>,
    sessions: HashMap<Handle, Session>,
    /// Handles up to this one may be those of lost sessions.
    lost: usize,
}

struct Session {
    device: Handle,
    allowed: HashSet<c_uint>,
}

static DEVICE: Mutex<Option<Device>> = Mutex::new(None);
static KEYS: OnceLock<Option<Keys>> = OnceLock::new();

/// The keys, read once; what is wrong with them goes to standard error.
fn keys() -> SdrResult<&'static Keys> {
    KEYS.get_or_init(|| {
        read_keys()
            .map_err(|wrong| eprintln!("SOFT_SDF_CONFIG: {wrong}"))
            .ok()
    })
    .as_ref()
    .ok_or(SDR_OPENDEVICE)
}

fn read_keys() -> Result<Keys, String> {
    let path = std::env::var("SOFT_SDF_CONFIG").map_err(|_| "is not set")?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse(&text).map_err(|error| format!("{path}: {error}"))
}

fn with<T>(work: impl FnOnce(&mut Device) -> T) -> T {
    work(DEVICE.lock().get_or_insert_default())
}

impl Device {
    fn next(&mut self) -> Handle {
        self.given += 1;
        Handle(self.given)
    }

    fn session(&mut self, handle: Handle) -> SdrResult<&mut Session> {
        let unknown = if (1..=self.lost).contains(&handle.0) {
            SDR_COMMFAIL
        } else {
            SDR_INARGERR
        };
        self.sessions.get_mut(&handle).ok_or(unknown)
    }
}

pub(crate) fn open() -> SdrResult<Handle> {
    keys()?;
    Ok(with(|device| {
        let handle = device.next();
        device.open.insert(handle);
        handle
    }))
}

pub(crate) fn close(handle: Handle) -> SdrResult<()> {
    with(|device| {
        device.sessions.retain(|_, session| session.device != handle);
        device.open.remove(&handle).then_some(()).ok_or(SDR_INARGERR)
    })
}

pub(crate) fn open_session(of: Handle, limit: Option<u64>) -> SdrResult<Handle> {
    with(|device| {
        if !device.open.contains(&of) {
            return Err(SDR_INARGERR);
        }
        if limit.is_some_and(|limit| device.sessions.len() as u64 >= limit) {
            return Err(SDR_OPENSESSION);
        }
        let handle = device.next();
        device.sessions.insert(
            handle,
            Session {
                device: of,
                allowed: HashSet::new(),
            },
        );
        Ok(handle)
    })
}

pub(crate) fn close_session(handle: Handle) -> SdrResult<()> {
    with(|device| {
        device.session(handle)?;
        device.sessions.remove(&handle);
        Ok(())
    })
}

/// Ends every session, as a broken connection does.
pub(crate) fn lose_sessions() {
    with(|device| {
        device.sessions.clear();
        device.lost = device.given;
    });
}

pub(crate) fn check_session(handle: Handle) -> SdrResult<()> {
    with(|device| device.session(handle).map(drop))
}

pub(crate) fn allow(handle: Handle, index: c_uint, password: &[u8]) -> SdrResult<()> {
    let key = key(handle, index)?;
    if !key.opens_with(password) {
        return Err(SDR_PRKRERR);
    }
    with(|device| {
        device.session(handle)?.allowed.insert(index);
        Ok(())
    })
}

pub(crate) fn disallow(handle: Handle, index: c_uint) -> SdrResult<()> {
    with(|device| {
        let allowed = &mut device.session(handle)?.allowed;
        allowed.remove(&index).then_some(()).ok_or(SDR_PARDENY)
    })
}

/// The key of an index.
pub(crate) fn key(session: Handle, index: c_uint) -> SdrResult<Arc<Key>> {
    check_session(session)?;
    keys()?.get(&index).cloned().ok_or(SDR_KEYNOTEXIST)
}

/// The key of an index, where the session may use it.
pub(crate) fn allowed_key(session: Handle, index: c_uint) -> SdrResult<Arc<Key>> {
    let key = key(session, index)?;
    with(|device| {
        let allowed = &device.session(session)?.allowed;
        allowed.contains(&index).then_some(key).ok_or(SDR_PARDENY)
    })
}
