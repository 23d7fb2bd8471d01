//! Promises and shares as exact numbers: a verdict at the fourth nine must not depend on floating point.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const WHOLE: u32 = 1_000_000;

/// Why a text is not a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a percentage from 0% to 100% with at most four decimals, like 99.95%")]
pub struct PercentError(String);

/// A percentage from 0 to 100, exact to a ten-thousandth of a percent. As text: `99.95%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(u32);

impl Percent {
    /// All of it.
    pub const HUNDRED: Self = Self(WHOLE);

    /// Parts per million.
    pub const fn per_million(self) -> u32 {
        self.0
    }

    /// The largest whole number that is at most this share of `whole`.
    pub fn of_rounded_down(self, whole: u64) -> u64 {
        let share = u128::from(whole) * u128::from(self.0) / u128::from(WHOLE);
        u64::try_from(share).unwrap_or(whole)
    }

    /// The smallest whole number that is at least this share of `whole`.
    pub fn of_rounded_up(self, whole: u64) -> u64 {
        whole - Self(WHOLE - self.0).of_rounded_down(whole)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:04}", self.0 % 10_000);
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{}%", self.0 / 10_000),
            decimals => write!(f, "{}.{decimals}%", self.0 / 10_000),
        }
    }
}

impl FromStr for Percent {
    type Err = PercentError;
    fn from_str(text: &str) -> Result<Self, PercentError> {
        let wrong = || PercentError(text.to_owned());
        let number = text.strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (units, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(units) || !digits(decimals) || units.len() > 3 || decimals.len() > 4 {
            return Err(wrong());
        }
        let parts: u32 = format!("{units}{decimals:0<4}").parse().map_err(|_| wrong())?;
        if parts > WHOLE {
            return Err(wrong());
        }
        Ok(Self(parts))
    }
}

impl TryFrom<String> for Percent {
    type Error = PercentError;
    fn try_from(text: String) -> Result<Self, PercentError> {
        text.parse()
    }
}

impl From<Percent> for String {
    fn from(percent: Percent) -> Self {
        percent.to_string()
    }
}

/// A part of a whole, kept as it was counted: 43178/43200 says more than its quotient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RatioText", from = "RatioText")]
pub struct Ratio {
    /// The numerator.
    pub part: u64,
    /// The denominator. Zero means that nothing was counted; such a ratio meets every promise.
    pub whole: u64,
}

impl Ratio {
    /// Whether it is at least `promise`; exactly `promise` is (民法典 art. 1259: 以上 includes the number itself).
    pub fn is_at_least(self, promise: Percent) -> bool {
        self.scaled_part() >= u128::from(promise.0) * u128::from(self.whole)
    }

    /// Whether it is more than `promise`.
    pub fn is_above(self, promise: Percent) -> bool {
        self.scaled_part() > u128::from(promise.0) * u128::from(self.whole)
    }

    fn scaled_part(self) -> u128 {
        u128::from(self.part) * u128::from(WHOLE)
    }

    /// Whether it is less than another; nothing counted is the largest.
    pub fn is_less_than(self, other: Self) -> bool {
        match (self.whole, other.whole) {
            (0, _) => false,
            (_, 0) => true,
            _ => {
                u128::from(self.part) * u128::from(other.whole)
                    < u128::from(other.part) * u128::from(self.whole)
            }
        }
    }
}

impl fmt::Display for Ratio {
    /// As a percentage with four decimals, rounded down: a broken promise never looks kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scaled_part().checked_div(u128::from(self.whole)) {
            None => f.write_str("–"),
            Some(parts) => write!(f, "{}.{:04}%", parts / 10_000, parts % 10_000),
        }
    }
}

/// A ratio in a report: the exact numbers, and the percentage people read.
#[derive(Serialize, Deserialize)]
struct RatioText {
    part: u64,
    whole: u64,
    percent: String,
}

impl From<Ratio> for RatioText {
    fn from(ratio: Ratio) -> Self {
        Self {
            part: ratio.part,
            whole: ratio.whole,
            percent: ratio.to_string(),
        }
    }
}

impl From<RatioText> for Ratio {
    fn from(text: RatioText) -> Self {
        Self {
            part: text.part,
            whole: text.whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_exactly() {
        for (text, parts) in [
            ("99.95%", 999_500),
            ("100%", 1_000_000),
            ("0.0001%", 1),
            ("2.5 %", 25_000),
        ] {
            assert_eq!(text.parse::<Percent>().unwrap().per_million(), parts);
        }
        for text in ["100.0001%", "99.95", "-1%", "1.00001%", ".5%", "5.%", "%", "1e1%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn display_and_parse_agree() {
        for parts in [0, 1, 10, 9_999, 10_000, 985_000, 999_900, WHOLE] {
            assert_eq!(Percent(parts).to_string().parse(), Ok(Percent(parts)));
        }
    }

    #[test]
    fn a_promise_is_met_exactly_at_its_edge() {
        let promise: Percent = "99.95%".parse().unwrap();
        let at = |part| Ratio { part, whole: 20_000 };
        assert!(at(19_990).is_at_least(promise) && !at(19_990).is_above(promise));
        assert!(!at(19_989).is_at_least(promise));
        assert_eq!(at(19_989).to_string(), "99.9450%");
        assert_eq!(
            Ratio {
                part: 999_999_999,
                whole: 1_000_000_000
            }
            .to_string(),
            "99.9999%"
        );
    }

    #[test]
    fn shares_round_as_they_say() {
        let share: Percent = "2.5%".parse().unwrap();
        assert_eq!(
            (share.of_rounded_down(10_001), share.of_rounded_up(10_001)),
            (250, 251)
        );
        assert_eq!(
            (share.of_rounded_down(10_000), share.of_rounded_up(10_000)),
            (250, 250)
        );
        assert_eq!(Percent::HUNDRED.of_rounded_up(u64::MAX), u64::MAX);
    }
}
