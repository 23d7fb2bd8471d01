//! What authorities for time stamps have said of checkpoints, checked on a copy.

use protocol::error_code::{Code, Refusal};
use serde_json::{Value, json};
use store::audit::{Checkpoint, Folder, VerifierKey, begins_with};

use super::failed;
use crate::outgoing::stamp::Stamped;

/// Checks every stamp: the token, the checkpoint it is about, and that the log begins with that.
pub(super) fn verify(
    folder: &Folder,
    now: &Checkpoint,
    key: &VerifierKey,
    anchors: &[Vec<u8>],
) -> Result<Value, Refusal> {
    let stamps = folder.stamps().map_err(failed)?;
    let check = |text: &String| {
        let stamped: Stamped = serde_json::from_str(text)
            .map_err(|error| Refusal::new(Code::MalformedRequest, format!("a time stamp: {error}")))?;
        let stamp = stamped.verify(None, anchors);
        let stamp = stamp.map_err(|error| Refusal::new(Code::SignatureInvalid, error.to_string()))?;
        let checkpoint = begins_with(folder, now, &stamped.checkpoint, key).map_err(failed)?;
        Ok(json!({
            "leaves": checkpoint.size,
            "time": actors::outgoing::timestamp(stamp.time),
            "authority": stamp.authority,
        }))
    };
    let checked: Vec<Value> = stamps.iter().map(check).collect::<Result<_, Refusal>>()?;
    Ok(json!({ "there": checked.len(), "checked": true, "valid": checked }))
}
