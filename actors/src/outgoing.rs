//! Messages to the outside: where they may go ([`destination`]), how they are signed ([`signature`]), when they are tried
//! again ([`schedule`]), and what they say. Pure; whoever owns sockets sends them.

pub mod destination;
pub mod schedule;
pub mod signature;

use aws_lc_rs::rand;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use serde_json::{Value, json};

use crate::bill;

/// A moment to the second, RFC 3339 with the offset of Asia/Shanghai.
pub fn timestamp(at: UnixMillis) -> String {
    let minute = bill::moment(at);
    let (minute, offset) = minute.split_at(minute.len().saturating_sub("+08:00".len()));
    format!("{minute}:{:02}{offset}", at.seconds() % 60)
}

/// A name for a new message. Receivers know repetitions by it.
pub fn new_id() -> Result<String, Refusal> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
    Ok(format!("msg_{:032x}", u128::from_be_bytes(id)))
}

/// The body of a webhook: what it is about, when, and the matter itself (Standard Webhooks 1.0, "payload structure").
pub fn payload(kind: &str, at: UnixMillis, data: &Value) -> String {
    json!({ "type": kind, "timestamp": timestamp(at), "data": data }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_when_and_the_matter() {
        // 2026-11-24T08:00:05Z.
        let at = UnixMillis(1_795_507_205_999);
        assert_eq!(timestamp(at), "2026-11-24T16:00:05+08:00");
        let body = payload("maintenance.notice", at, &json!({ "id": "n1" }));
        let read: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["type"], "maintenance.notice");
        assert_eq!(read["timestamp"], "2026-11-24T16:00:05+08:00");
        assert_eq!(read["data"]["id"], "n1");
    }
}
