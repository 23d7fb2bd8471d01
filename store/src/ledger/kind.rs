//! Package kinds as data: what is counted, how many at least, for how long, at what price.

use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan};
use protocol::clock::UnixMillis;
use serde::{Deserialize, Serialize};

use super::Unit;

/// Asia/Shanghai, UTC+8 without daylight saving since 1991 (SEMANTICS 4.4).
const SHANGHAI: Offset = Offset::constant(8);

/// Why a kind cannot be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// No name, or one that is too long.
    #[error("a kind's name has 1 to 64 bytes")]
    Name,
    /// Prices out of order.
    #[error("price tiers must begin at 0 units and rise")]
    Tiers,
    /// A term of nothing.
    #[error("a term has 1 to 1200 months")]
    Term,
}

/// From so many units on, a unit costs so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Units of the package.
    pub from_units: u64,
    /// Price of each, in li (0.001 yuan).
    pub unit_price_li: u64,
}

/// A kind of package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageKind {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Whether it counts without a limit.
    #[serde(default)]
    pub unlimited: bool,
    /// The least that can be bought.
    #[serde(default)]
    pub units_min: u64,
    /// Months from activation to the end; without it, no end.
    #[serde(default)]
    pub term_months: Option<u32>,
    /// Prices; without them, none is known.
    #[serde(default)]
    pub tiers: Vec<Tier>,
}

impl PackageKind {
    /// Checks what the types do not say.
    pub fn check(&self) -> Result<(), KindError> {
        if self.name.is_empty() || self.name.len() > 64 {
            return Err(KindError::Name);
        }
        let rises = self.tiers.is_sorted_by(|a, b| a.from_units < b.from_units);
        if !rises || self.tiers.first().is_some_and(|tier| tier.from_units != 0) {
            return Err(KindError::Tiers);
        }
        if self
            .term_months
            .is_some_and(|months| !(1..=1200).contains(&months))
        {
            return Err(KindError::Term);
        }
        Ok(())
    }

    /// The price of so many units: all of them at the price of the tier they reach.
    pub fn price_li(&self, units: u64) -> Option<u64> {
        let tier = self.tiers.iter().rev().find(|tier| tier.from_units <= units)?;
        tier.unit_price_li.checked_mul(units)
    }

    /// The end of a term that begins at `activated`: the same day and time so many months later in Shanghai, or the
    /// last day of that month where it has no such day.
    pub fn expires(&self, activated: UnixMillis) -> Option<UnixMillis> {
        let begins = Timestamp::from_millisecond(activated.0.cast_signed()).ok()?;
        let ends = SHANGHAI
            .to_datetime(begins)
            .checked_add(i64::from(self.term_months?).months())
            .ok()?;
        let ends = SHANGHAI.to_timestamp(ends).ok()?;
        Some(UnixMillis(ends.as_millisecond().cast_unsigned()))
    }
}

/// The kinds of a new store: those of the two agreements, without prices, and two without a term for tenants that pay
/// by other rules.
pub(crate) fn builtin() -> Vec<PackageKind> {
    let kind = |name: &str, unit, units_min, term_months| PackageKind {
        name: name.to_owned(),
        unit,
        unlimited: false,
        units_min,
        term_months,
        tiers: Vec::new(),
    };
    vec![
        kind("by-signature", Unit::Signature, 10_000, Some(12)),
        kind("by-user", Unit::User, 1_000, Some(12)),
        kind("by-contract", Unit::Contract, 1, Some(12)),
        kind("by-time-stamp", Unit::TimeStamp, 1_000, Some(12)),
        kind("by-certificate", Unit::Certificate, 1, Some(12)),
        kind(CREDIT, Unit::Signature, 1, Some(12)),
        kind(PREPAID, Unit::Signature, 0, None),
        PackageKind {
            unlimited: true,
            ..kind("unlimited", Unit::Signature, 0, Some(12))
        },
        PackageKind {
            unlimited: true,
            ..kind(OPEN, Unit::Signature, 0, None)
        },
        PackageKind {
            unlimited: true,
            ..kind(COUNTED_USERS, Unit::User, 0, None)
        },
        PackageKind {
            unlimited: true,
            ..kind(COUNTED_CERTIFICATES, Unit::Certificate, 0, None)
        },
    ]
}

/// The package in which a unit is counted for a tenant that has bought none of it: no limit, no term.
pub(crate) const fn counting(unit: Unit) -> Option<&'static str> {
    match unit {
        Unit::User => Some(COUNTED_USERS),
        Unit::Certificate => Some(COUNTED_CERTIFICATES),
        Unit::Signature | Unit::Contract | Unit::TimeStamp => None,
    }
}

const COUNTED_USERS: &str = "counted-users";
const COUNTED_CERTIFICATES: &str = "counted-certificates";

/// Free units, valid for a year from the day they are granted (A 5.2).
pub(crate) const CREDIT: &str = "credit";
/// A balance without a term: `tenant create --prepaid`.
pub(crate) const PREPAID: &str = "prepaid";
/// No limit and no term: a tenant that was given no package.
pub(crate) const OPEN: &str = "open";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        let at: Timestamp = text.parse().unwrap();
        UnixMillis(at.as_millisecond().cast_unsigned())
    }

    #[test]
    fn a_term_ends_on_the_same_day_of_the_next_year_in_shanghai() {
        let kind = &builtin()[0];
        let ends = |text| kind.expires(at(text)).unwrap();
        assert_eq!(ends("2026-11-24T10:00:00+08:00"), at("2027-11-24T10:00:00+08:00"));
        // 29 February in Shanghai is still the 28th in Greenwich.
        assert_eq!(ends("2028-02-28T17:00:00Z"), at("2029-02-28T01:00:00+08:00"));
        assert_eq!(builtin()[6].expires(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn all_units_cost_what_the_tier_says_that_they_reach() {
        let mut kind = builtin().remove(0);
        assert_eq!(kind.price_li(10_000), None);
        let tier = |from_units, unit_price_li| Tier {
            from_units,
            unit_price_li,
        };
        kind.tiers = vec![tier(0, 500), tier(50_000, 300)];
        kind.check().unwrap();
        assert_eq!(kind.price_li(49_999), Some(24_999_500));
        assert_eq!(kind.price_li(50_000), Some(15_000_000));
        kind.tiers.reverse();
        assert_eq!(kind.check(), Err(KindError::Tiers));
    }
}
