//! A sealing between two programs: what was ordered and answered so far, without the document.

use protocol::algorithm::Hash;
use serde::{Deserialize, Serialize};

use super::{Answer, Octets, Order, Sealing, SealingError, Step};

/// Why a sealing cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PausedError {
    /// Not what was written.
    #[error("not a paused sealing: {0}")]
    Unreadable(String),
    /// Another document than the one it was begun with.
    #[error("this is not the document that the sealing was begun with")]
    OtherDocument,
    /// The sealing itself.
    #[error(transparent)]
    Sealing(#[from] SealingError),
}

/// Everything that brings a sealing back, but the document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paused {
    /// SHA-256 of the document.
    document_sha256: Octets,
    /// The order, in JSON. It is kept as text: numbers that were read twice need not be the same to the last bit.
    order: String,
    /// What was answered so far.
    answers: Vec<Answer>,
    /// What is needed next.
    step: Step,
}

impl Paused {
    /// Starts a sealing that can be paused.
    pub fn start(document: Vec<u8>, order: &Order) -> Result<(Self, Sealing), PausedError> {
        let unreadable = |error: serde_json::Error| PausedError::Unreadable(error.to_string());
        let text = serde_json::to_string(order).map_err(unreadable)?;
        let order: Order = serde_json::from_str(&text).map_err(unreadable)?;
        let document_sha256 = Hash::Sha256.digest(&document).to_vec().into();
        let sealing = Sealing::start(document, order)?;
        let paused = Self {
            document_sha256,
            order: text,
            answers: Vec::new(),
            step: sealing.step(),
        };
        Ok((paused, sealing))
    }

    /// What is needed next, as far as is known without the document.
    pub const fn step(&self) -> &Step {
        &self.step
    }

    /// Adds an answer to [`Self::step`]. What is needed after it is told by [`Self::resume`].
    pub fn add(&mut self, answer: Answer) {
        self.answers.push(answer);
        self.step = Step::Done;
    }

    /// Brings the sealing back to where it was after the last answer.
    pub fn resume(&mut self, document: Vec<u8>) -> Result<Sealing, PausedError> {
        if Hash::Sha256.digest(&document)[..] != self.document_sha256.0 {
            return Err(PausedError::OtherDocument);
        }
        let order: Order =
            serde_json::from_str(&self.order).map_err(|error| PausedError::Unreadable(error.to_string()))?;
        let sealing = Sealing::replay(document, order, &self.answers)?;
        self.step = sealing.step();
        Ok(sealing)
    }
}
