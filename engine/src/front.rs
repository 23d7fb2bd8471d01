//! The fronts: sockets, TLS, the native protocol over QUIC, JSON over HTTPS. Each core has its own; a request is read,
//! proved and admitted on the core's thread and handed to it as a call.

mod audit;
mod documents;
pub(crate) mod http;
mod location;
pub(crate) mod openapi;
pub(crate) mod proof;
pub(crate) mod quic;
mod registration;
mod reports;
mod seals;
mod session;
pub(crate) mod sockets;
mod stream;
pub(crate) mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actors::core::Core;

use crate::config::Location;
use crate::registration::Registration;
use crate::sealing::Sealer;

/// What the engine tells its fronts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serve.
    Serving,
    /// Take no new connections; the open ones go on.
    Draining,
    /// Close every connection.
    Closing,
}

/// Bounds of a front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrontLimits {
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
    /// The head of an HTTP request, the pause between two, and how long a connection may do without a first one.
    pub(crate) http_silence_max: Duration,
}

/// What the connections of one core share.
pub(crate) struct FrontContext {
    pub(crate) core: Rc<Core>,
    pub(crate) limits: FrontLimits,
    /// SHA-256 of the server's certificate, for session keys.
    pub(crate) certificate_hash: [u8; 32],
    /// Where data and backups lie.
    pub(crate) locations: Arc<[Location]>,
    /// Where certificates and subjects are asked for.
    pub(crate) registration: Registration,
    /// Where documents are brought.
    pub(crate) sealer: Arc<Sealer>,
    connections: Cell<usize>,
    addresses: RefCell<HashMap<IpAddr, usize>>,
}

impl FrontContext {
    pub(crate) fn new(
        core: Rc<Core>,
        limits: FrontLimits,
        certificate_hash: [u8; 32],
        (locations, registration, sealer): (Arc<[Location]>, Registration, Arc<Sealer>),
    ) -> Self {
        Self {
            locations,
            registration,
            sealer,
            core,
            limits,
            certificate_hash,
            connections: Cell::new(0),
            addresses: RefCell::default(),
        }
    }

    /// Takes a place for a connection from `address`; `None` when there is none left.
    pub(crate) fn admit(self: &Rc<Self>, address: IpAddr) -> Option<Place> {
        let mut addresses = self.addresses.borrow_mut();
        let from_there = addresses.get(&address).copied().unwrap_or(0);
        if self.connections.get() >= self.limits.connections_max
            || from_there >= self.limits.connections_per_address_max
        {
            return None;
        }
        addresses.insert(address, from_there + 1);
        self.connections.set(self.connections.get() + 1);
        Some(Place {
            context: Rc::clone(self),
            address,
        })
    }
}

/// A connection's place among those that are allowed; given back when dropped.
pub(crate) struct Place {
    context: Rc<FrontContext>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.context.addresses.borrow_mut();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
        self.context.connections.set(self.context.connections.get() - 1);
    }
}
