//! Certificates that end: who is told, and when. Pure: what is known goes in, what is to be told comes out.

use serde_json::{Value, json};
use store::CertificateRow;

use crate::alerts::Condition;
use crate::bill::moment;

/// What holders' webhooks call it.
pub const KIND: &str = "certificate.ending";

/// What the holder is told.
pub fn message(row: &CertificateRow, days: u32) -> Value {
    let serial: String = row.serial.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "serial": serial,
        "issuer": row.issuer,
        "credential": row.holder.as_ref().and_then(|holder| holder.credential.as_ref()),
        "profile": row.profile,
        "not_after": moment(row.not_after),
        "days": days,
    })
}

/// What the operators are told: one alert for each number of days that was set, of those that have reached it and not yet
/// the next. `first` is the one of them that ends first.
pub fn condition(days: u32, count: u64, first: Option<&CertificateRow>) -> Option<(Condition, String)> {
    let first = first?;
    let whose = first.holder.as_ref().map_or_else(
        || format!("an authority under {}", first.issuer),
        ToString::to_string,
    );
    let text = format!(
        "{count} certificates end within {days} days; the first, of {whose}, at {}",
        moment(first.not_after)
    );
    Some((Condition::CertificatesEnding(days), text))
}
