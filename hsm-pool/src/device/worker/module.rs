//! What a worker asks of the library it drives, whatever its interface.

use protocol::algorithm::Algorithm;

use crate::device::ckr::Class;
use crate::device::wire::{OpKey, Order, Ordered, WireError};

/// Why a library did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct ModuleError {
    /// The function and the code.
    pub(crate) text: String,
    /// What it calls for.
    pub(crate) class: Class,
}

impl ModuleError {
    pub(crate) fn new(class: Class, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, class }
    }

    pub(crate) fn to_wire(&self) -> WireError {
        WireError {
            text: self.text.clone(),
            class: self.class,
        }
    }
}

/// A signature, and whether its key had to be unwrapped for it.
pub(crate) struct Made {
    pub(crate) signature: Vec<u8>,
    pub(crate) unwrapped: bool,
}

/// One session with a device. Each lives on a thread of its own.
pub(crate) trait Session: Send {
    /// Signs; the result is in the algorithm's usual encoding.
    fn sign(&mut self, key: &OpKey<'_>, algorithm: Algorithm, input: &[u8]) -> Result<Made, ModuleError>;
    /// Carries out an operator's order.
    fn order(&mut self, order: &Order) -> Result<Ordered, ModuleError>;
    /// Goes on after a failed call, with a session that no operation is active on.
    fn renew(&mut self) -> Result<(), ModuleError>;
}
