//! Dates (ISO 32000-2 7.9.4).

use std::time::Duration;

use der::DateTime;
use protocol::clock::UnixMillis;

use super::ReadError;

/// A date in UTC: `D:20261123075040Z`.
pub(crate) fn write(at: UnixMillis) -> Result<String, ReadError> {
    let date = DateTime::from_unix_duration(Duration::from_secs(at.seconds()));
    let date = date.map_err(|_| ReadError::Wrong("a date after the year 9999"))?;
    Ok(format!(
        "D:{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        date.month(),
        date.day(),
        date.hour(),
        date.minutes(),
        date.seconds()
    ))
}

/// Reads a date; parts that are left out are the first of their kind, and a date without a zone is in UTC.
pub(crate) fn read(text: &str) -> Option<UnixMillis> {
    let text = text.strip_prefix("D:").unwrap_or(text);
    let digits = text.len()
        - text
            .trim_start_matches(|letter: char| letter.is_ascii_digit())
            .len();
    let (local, zone) = text.split_at(digits);
    let part = |from: usize, to: usize, default: u16| match local.get(from..to) {
        Some(part) => part.parse().ok(),
        None => Some(default),
    };
    let small = |from, to, default| part(from, to, default).and_then(|value| u8::try_from(value).ok());
    let year = local.get(..4)?.parse().ok()?;
    let date = DateTime::new(
        year,
        small(4, 6, 1)?,
        small(6, 8, 1)?,
        small(8, 10, 0)?,
        small(10, 12, 0)?,
        small(12, 14, 0)?,
    );
    let local = i64::try_from(date.ok()?.unix_duration().as_secs()).ok()?;
    let seconds = u64::try_from(local - offset_seconds(zone)?).ok()?;
    Some(UnixMillis(seconds * 1000))
}

/// `Z`, `+08'00'`, `-05'00`, or nothing.
fn offset_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next() {
        Some('+') => 1,
        Some('-') => -1,
        _ => return Some(0),
    };
    let mut parts = zone[1..].split('\'').filter(|part| !part.is_empty());
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next().map_or(Some(0), |part| part.parse().ok())?;
    let is_sane = (0..24).contains(&hours) && (0..60).contains(&minutes);
    is_sane.then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_both_ways() {
        let at = UnixMillis(1_800_000_000_000);
        assert_eq!(write(at).unwrap(), "D:20270115080000Z");
        for text in [
            "D:20270115080000Z",
            "D:20270115160000+08'00'",
            "D:20270115030000-05'00",
            "20270115080000",
        ] {
            assert_eq!(read(text), Some(at), "{text}");
        }
        assert_eq!(read("D:2027"), Some(UnixMillis(1_798_761_600_000)));
        for bad in [
            "",
            "D:",
            "D:20271399",
            "D:19600101",
            "D:20270115080000+99'00'",
            "D:20270115080000+x",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
