//! Times as they are written in seals and in OFD files.
//!
//! `SignatureDateTime` of OFD and `timeInfo` of version 1 are free text. Seen in the field: `20200817111329Z`,
//! `2026-08-04 10:08:09`, `20200723130907.763Z`, `2020-01-25T07:31:56.377Z`.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use protocol::clock::UnixMillis;

/// Reads a date and time of day in any of these forms. Without a `Z` it is taken as Chinese standard time
/// (UTC+8), which is what its writers meant.
pub(crate) fn from_text(text: &str) -> Option<UnixMillis> {
    let text = text.trim();
    let (text, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(text) => (text, 0),
        None => (text, 8),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_separator = |letter: char| matches!(letter, '-' | '/' | ':' | ' ' | 'T');
    let digits: String = whole.chars().filter(|letter| !is_separator(*letter)).collect();
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.len() != 14 || !all_digits(&digits) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    at(&digits, zone)
}

/// UTCTime, `yymmddhhmmssZ`; years from 50 on are of the 20th century (RFC 5280 4.1.2.5.1).
pub(super) fn from_utc_time(text: &str) -> Option<UnixMillis> {
    let digits = text.strip_suffix('Z')?;
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let century = if digits < "50" { "20" } else { "19" };
    at(&format!("{century}{digits}"), 0)
}

/// Fourteen digits, `hours` east of UTC.
fn at(digits: &str, hours: i8) -> Option<UnixMillis> {
    let part = |from: usize| digits[from..from + 2].parse::<i8>().ok();
    let year = digits[..4].parse().ok()?;
    let civil = DateTime::new(year, part(4)?, part(6)?, part(8)?, part(10)?, part(12)?, 0).ok()?;
    let zone = TimeZone::fixed(Offset::from_hours(hours).ok()?);
    let millis = zone.to_timestamp(civil).ok()?.as_millisecond();
    u64::try_from(millis).ok().map(UnixMillis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_field_are_read() {
        let expected = Some(UnixMillis(1_800_000_000_000));
        for text in [
            "20270115080000Z",
            "20270115080000.763Z",
            "2027-01-15T08:00:00.377Z",
            "2027-01-15 16:00:00",
            " 20270115160000 ",
        ] {
            assert_eq!(from_text(text), expected, "{text}");
        }
        assert_eq!(from_utc_time("270115080000Z"), expected);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "Z",
            "2027-02-30 00:00:00",
            "2027011508000",
            "二〇二七年一月",
            "19000101000000Z",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
        assert_eq!(from_utc_time("27011508000Z"), None);
        assert_eq!(from_utc_time("270115080000"), None);
    }
}
