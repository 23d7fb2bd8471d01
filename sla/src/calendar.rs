//! Minutes, months and days as China counts them.
//!
//! The civil time of Asia/Shanghai is UTC+8 without exception since 1991-09-15, when daylight saving time last ended;
//! both agreements are younger. So the offset is a constant here and no time zone database is asked. If China
//! ever changes its clocks, this file changes with a dated rule.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// The civil time of the agreements.
const SHANGHAI: Offset = Offset::constant(8);

/// The last minute a civil time can be given for, 9999-12-30 UTC.
const LAST: u32 = 4_223_369_000;

/// Why a text names no minute or month.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Not `YYYY-MM`.
    #[error("{0:?} is not a month; write YYYY-MM")]
    Month(String),
    /// Not a whole minute with its offset.
    #[error("{0:?} is not a minute; write it like 2026-10-01T08:00+08:00")]
    Minute(String),
    /// Outside 1970 to 9999.
    #[error("{0} lies outside the years 1970 to 9999")]
    Range(String),
}

/// A minute of time, counted from 1970-01-01T00:00Z. As text: `2026-10-01T08:00+08:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MinuteIndex(u32);

impl MinuteIndex {
    /// The minute with this number; beyond the year 9999, the last one.
    pub const fn new(number: u32) -> Self {
        Self(if number < LAST { number } else { LAST })
    }

    /// The minute in which a Unix time (seconds) lies.
    pub fn of_unix_seconds(seconds: u64) -> Self {
        Self::new(u32::try_from(seconds / 60).unwrap_or(LAST))
    }

    /// Minutes since 1970-01-01T00:00Z.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The minute at which a day of Asia/Shanghai begins.
    pub fn of_day(date: Date) -> Result<Self, CalendarError> {
        let out_of_range = || CalendarError::Range(date.to_string());
        let begins = SHANGHAI
            .to_timestamp(date.to_datetime(jiff::civil::Time::midnight()))
            .map_err(|_| out_of_range())?;
        let number = u32::try_from(begins.as_second() / 60).map_err(|_| out_of_range())?;
        if begins.as_second() < 0 || number > LAST {
            return Err(out_of_range());
        }
        Ok(Self(number))
    }

    /// The minute so many later; the last one beyond the year 9999.
    #[must_use]
    pub const fn plus(self, minutes: u32) -> Self {
        Self::new(self.0.saturating_add(minutes))
    }

    /// The minute before; none before 1970.
    pub fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// Date and time of day in Asia/Shanghai.
    pub fn civil(self) -> DateTime {
        let at = Timestamp::from_second(i64::from(self.0) * 60)
            .expect("every minute up to LAST is inside the range of timestamps");
        SHANGHAI.to_datetime(at)
    }
}

impl fmt::Display for MinuteIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil();
        write!(f, "{}T{:02}:{:02}+08:00", at.date(), at.hour(), at.minute())
    }
}

impl FromStr for MinuteIndex {
    type Err = CalendarError;
    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let at: Timestamp = text.parse().map_err(|_| CalendarError::Minute(text.to_owned()))?;
        if at.as_second() % 60 != 0 || at.subsec_nanosecond() != 0 {
            return Err(CalendarError::Minute(text.to_owned()));
        }
        let seconds = u64::try_from(at.as_second()).map_err(|_| CalendarError::Range(text.to_owned()))?;
        Ok(Self::of_unix_seconds(seconds))
    }
}

impl TryFrom<String> for MinuteIndex {
    type Error = CalendarError;
    fn try_from(text: String) -> Result<Self, CalendarError> {
        text.parse()
    }
}

impl From<MinuteIndex> for String {
    fn from(minute: MinuteIndex) -> Self {
        minute.to_string()
    }
}

/// Minutes from one (inclusive) to another (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The first minute.
    pub from: MinuteIndex,
    /// The minute after the last.
    pub to: MinuteIndex,
}

impl Span {
    /// How many minutes.
    pub fn minutes(self) -> u32 {
        self.to.0.saturating_sub(self.from.0)
    }

    /// Whether there is no minute in it.
    pub fn is_empty(self) -> bool {
        self.minutes() == 0
    }

    /// Whether a minute lies in it.
    pub fn contains(self, minute: MinuteIndex) -> bool {
        self.from <= minute && minute < self.to
    }

    /// What both have; empty where they do not meet.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let from = self.from.max(other.from);
        Self {
            from,
            to: self.to.min(other.to).max(from),
        }
    }

    /// Its minutes in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = MinuteIndex> {
        let numbers: Range<u32> = self.from.0..self.to.0;
        numbers.map(MinuteIndex)
    }
}

/// A calendar month of Asia/Shanghai, the cycle of both agreements (A 4.3(1), B 4.8(1)). As text: `2026-10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month(Date);

impl Month {
    /// The month of a year, both as people count them.
    pub fn new(year: i16, month: i8) -> Result<Self, CalendarError> {
        let text = || format!("{year}-{month:02}");
        if !(1970..=9999).contains(&year) {
            return Err(CalendarError::Range(text()));
        }
        let first = Date::new(year, month, 1).map_err(|_| CalendarError::Month(text()))?;
        let month = Self(first);
        month.checked_span()?;
        Ok(month)
    }

    /// The month in which a minute lies.
    pub fn of(minute: MinuteIndex) -> Self {
        Self(minute.civil().date().first_of_month())
    }

    /// Its minutes.
    pub fn span(self) -> Span {
        self.checked_span()
            .expect("a month is only made when its minutes exist")
    }

    fn checked_span(self) -> Result<Span, CalendarError> {
        let next = self
            .0
            .last_of_month()
            .tomorrow()
            .map_err(|_| CalendarError::Range(self.to_string()))?;
        Ok(Span {
            from: MinuteIndex::of_day(self.0)?,
            to: MinuteIndex::of_day(next)?,
        })
    }

    /// How many days it has.
    pub fn days(self) -> u32 {
        self.span().minutes() / MINUTES_A_DAY
    }
}

/// Minutes of a day; none is longer or shorter at a constant offset.
pub const MINUTES_A_DAY: u32 = 1_440;

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl FromStr for Month {
    type Err = CalendarError;
    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let wrong = || CalendarError::Month(text.to_owned());
        let shape = text.len() == 7 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let (year, month) = text.split_once('-').filter(|_| shape).ok_or_else(wrong)?;
        Self::new(
            year.parse().map_err(|_| wrong())?,
            month.parse().map_err(|_| wrong())?,
        )
    }
}

impl TryFrom<String> for Month {
    type Error = CalendarError;
    fn try_from(text: String) -> Result<Self, CalendarError> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_at_midnight_in_shanghai() {
        let october: Month = "2026-10".parse().unwrap();
        assert_eq!(october.span().from.to_string(), "2026-10-01T00:00+08:00");
        assert_eq!(october.span().from, "2026-09-30T16:00Z".parse().unwrap());
        assert_eq!(october.span().minutes(), 31 * MINUTES_A_DAY);
        assert_eq!(Month::of(october.span().from), october);
        assert_eq!(
            Month::of(october.span().from.before().unwrap()).to_string(),
            "2026-09"
        );
    }

    #[test]
    fn february_follows_the_gregorian_rule() {
        for (month, days) in [("2024-02", 29), ("2025-02", 28), ("2000-02", 29), ("2100-02", 28)] {
            assert_eq!(month.parse::<Month>().unwrap().days(), days, "{month}");
        }
    }

    #[test]
    fn what_is_no_month_or_minute_is_named() {
        for text in [
            "2026-13",
            "2026-00",
            "26-10",
            "2026-1",
            "2026-10-01",
            "",
            "1969-12",
            "9999-12",
        ] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
        for text in [
            "2026-10-01T08:00:01+08:00",
            "2026-10-01",
            "1969-12-31T23:59Z",
            "x",
        ] {
            assert!(text.parse::<MinuteIndex>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_minute_has_a_civil_time() {
        assert_eq!(MinuteIndex::new(u32::MAX).civil().year(), 9999);
        assert_eq!(MinuteIndex::of_unix_seconds(u64::MAX), MinuteIndex::new(u32::MAX));
    }
}
