//! A checkpoint of the audit log and what an authority for time stamps (RFC 3161) has said of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::tsp::{self, Request, Stamp};
use protocol::algorithm::Hash;
use serde::{Deserialize, Serialize};

/// Why there is no stamp.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StampError {
    /// The authority gives none.
    #[error("the time stamp: {0}")]
    Response(#[from] tsp::ResponseError),
    /// It does not hold.
    #[error("the time stamp: {0}")]
    Token(#[from] tsp::VerifyError),
    /// Not base64.
    #[error("the time stamp is not base64")]
    Base64,
    /// The request cannot be written.
    #[error("the request for a time stamp cannot be made")]
    Request,
}

/// As it is kept: the checkpoint and the token over it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Stamped {
    /// The signed note.
    pub(crate) checkpoint: String,
    /// TimeStampToken over SHA-256 of the note, DER, base64.
    pub(crate) token: String,
}

/// The request for a stamp on a checkpoint, and as it is sent.
pub(crate) fn request(checkpoint: &str, nonce: &[u8; 16]) -> Result<(Request, Vec<u8>), StampError> {
    let digest = Hash::Sha256.digest(checkpoint.as_bytes());
    let request = Request::new(Hash::Sha256, &digest, nonce).ok_or(StampError::Request)?;
    let query = request.to_der().map_err(|_| StampError::Request)?;
    Ok((request, query))
}

impl Stamped {
    /// What a response says of a checkpoint, checked.
    pub(crate) fn of_response(
        checkpoint: &str,
        request: &Request,
        response: &[u8],
        anchors: &[Vec<u8>],
    ) -> Result<Self, StampError> {
        let stamped = Self {
            checkpoint: checkpoint.to_owned(),
            token: STANDARD.encode(tsp::token_of(response)?),
        };
        stamped.verify(Some(request), anchors)?;
        Ok(stamped)
    }

    /// What the token says, if it holds for the checkpoint.
    pub(crate) fn verify(&self, request: Option<&Request>, anchors: &[Vec<u8>]) -> Result<Stamp, StampError> {
        let token = STANDARD.decode(&self.token).map_err(|_| StampError::Base64)?;
        let digest = |hash: Hash| hash.digest(self.checkpoint.as_bytes());
        Ok(tsp::verify_token(&token, &digest, request, anchors)?)
    }
}
