//! Certificates that end: who is told, and when. Pure: what is known goes in, what is to be told comes out.

use protocol::clock::UnixMillis;
use serde_json::{Value, json};
use store::CertificateRow;

use crate::alerts::Condition;
use crate::bill::moment;

const DAY_MS: u64 = 24 * 3_600_000;
/// What holders' webhooks call it.
pub const KIND: &str = "certificate.ending";

/// The last of `days` (the most first) that a certificate has reached, if it has reached any.
pub fn reached(not_after: UnixMillis, days: &[u32], now: UnixMillis) -> Option<u32> {
    let left = not_after.0.saturating_sub(now.0);
    let within = |days: &&u32| left <= u64::from(**days) * DAY_MS;
    days.iter().rfind(within).copied()
}

/// The same, unless its holder has been told of it.
pub fn due(row: &CertificateRow, days: &[u32], now: UnixMillis) -> Option<u32> {
    reached(row.not_after, days, now).filter(|reached| *reached < row.warned)
}

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

/// What the operators are told: one alert for each of `days` that certificates have reached. `rows` are in the order in
/// which they end.
pub fn conditions(rows: &[CertificateRow], days: &[u32], now: UnixMillis) -> Vec<(Condition, String)> {
    let of = |days_left: &u32| {
        let mut these = rows
            .iter()
            .filter(|row| reached(row.not_after, days, now) == Some(*days_left));
        let first = these.next()?;
        let whose = first.holder.as_ref().map_or_else(
            || format!("an authority under {}", first.issuer),
            ToString::to_string,
        );
        let text = format!(
            "{} certificates end within {days_left} days; the first, of {whose}, at {}",
            these.count() + 1,
            moment(first.not_after)
        );
        Some((Condition::CertificatesEnding(*days_left), text))
    };
    days.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_that_was_set_is_reached_once() {
        let (days, end) = ([30, 7, 1], UnixMillis(100 * DAY_MS));
        let left = |days_left: u64| UnixMillis(end.0 - days_left * DAY_MS);
        assert_eq!(reached(end, &days, left(31)), None);
        for (at, told) in [(30, 30), (8, 30), (7, 7), (2, 7), (1, 1), (0, 1)] {
            assert_eq!(reached(end, &days, left(at)), Some(told), "{at} days left");
        }
        assert_eq!(reached(end, &[], left(0)), None);
    }
}
