//! Working days of mainland China (工作日): the week, less public holidays, with the weekends worked in exchange.
//!
//! The holidays are data (`sla/data/holidays-cn.toml`) and change every year by a notice of the State Council.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, Weekday};
use serde::Deserialize;

/// Why a table of holidays is refused.
#[derive(Debug, thiserror::Error)]
pub enum HolidaysError {
    /// Not the TOML of such a table.
    #[error("the table of holidays cannot be read")]
    Toml(#[from] toml::de::Error),
    /// The same year twice.
    #[error("the year {0} has two tables of holidays")]
    TwoTables(i16),
    /// A date outside the year it is listed under.
    #[error("{date} is listed under the year {year}")]
    OtherYear {
        /// The date.
        date: Date,
        /// The year of the table.
        year: i16,
    },
    /// A holiday that ends before it begins.
    #[error("the holiday from {0} ends before it begins")]
    Backwards(Date),
    /// A day worked in exchange that is no weekend day, or a holiday too.
    #[error("{0} is listed as worked in exchange, but is no weekend day outside the holidays")]
    NoExchange(Date),
}

/// A year for which no holidays are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public holidays of {0} are not in the table")]
pub struct UnknownYear(pub i16);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    year: Vec<Year>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Year {
    year: i16,
    #[serde(rename = "source")]
    _source: String,
    holidays: Vec<Holiday>,
    working: Vec<Date>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Holiday {
    #[serde(rename = "name")]
    _name: String,
    from: Date,
    to: Date,
}

/// The calendar of working days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkingDays {
    /// Days off and days worked in exchange, by year.
    years: BTreeMap<i16, Exceptions>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Exceptions {
    off: BTreeSet<Date>,
    working: BTreeSet<Date>,
}

impl WorkingDays {
    /// The years the house knows.
    pub fn builtin() -> Self {
        Self::from_toml(include_str!("../data/holidays-cn.toml"))
            .expect("the table in the repository is read by the tests")
    }

    /// A table of the same form, for other years.
    pub fn from_toml(text: &str) -> Result<Self, HolidaysError> {
        let table: Table = toml::from_str(text)?;
        let mut years = BTreeMap::new();
        for year in table.year {
            let number = year.year;
            if years.insert(number, year.check()?).is_some() {
                return Err(HolidaysError::TwoTables(number));
            }
        }
        Ok(Self { years })
    }

    /// Whether people work on a day.
    pub fn is_working(&self, date: Date) -> Result<bool, UnknownYear> {
        let year = self.years.get(&date.year()).ok_or(UnknownYear(date.year()))?;
        Ok(year.working.contains(&date) || !(is_weekend(date) || year.off.contains(&date)))
    }

    /// How many working days lie after `from` and before `to`, neither counted; counting stops at `enough`.
    pub fn between(&self, from: Date, to: Date, enough: u32) -> Result<u32, UnknownYear> {
        let mut count = 0;
        for date in from.series(jiff::Span::new().days(1)).skip(1) {
            if date >= to || count >= enough {
                break;
            }
            count += u32::from(self.is_working(date)?);
        }
        Ok(count)
    }
}

fn is_weekend(date: Date) -> bool {
    matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

impl Year {
    fn check(self) -> Result<Exceptions, HolidaysError> {
        let mut off = BTreeSet::new();
        for holiday in &self.holidays {
            self.check_date(holiday.from)?;
            self.check_date(holiday.to)?;
            if holiday.to < holiday.from {
                return Err(HolidaysError::Backwards(holiday.from));
            }
            let days = holiday.from.series(jiff::Span::new().days(1));
            off.extend(days.take_while(|date| *date <= holiday.to));
        }
        for date in &self.working {
            self.check_date(*date)?;
            if !is_weekend(*date) || off.contains(date) {
                return Err(HolidaysError::NoExchange(*date));
            }
        }
        Ok(Exceptions {
            off,
            working: self.working.into_iter().collect(),
        })
    }

    fn check_date(&self, date: Date) -> Result<(), HolidaysError> {
        if date.year() == self.year {
            return Ok(());
        }
        Err(HolidaysError::OtherYear {
            date,
            year: self.year,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn the_notices_of_the_state_council_are_followed() {
        let days = WorkingDays::builtin();
        let working = |year, month, day| days.is_working(date(year, month, day)).unwrap();
        assert!(
            working(2026, 2, 14) && !working(2026, 2, 15) && !working(2026, 2, 23) && working(2026, 2, 24)
        );
        assert!(working(2026, 10, 10) && !working(2026, 10, 7) && !working(2026, 10, 11));
        assert!(!working(2025, 10, 8) && working(2025, 10, 9) && working(2025, 9, 28));
        assert_eq!(days.is_working(date(2024, 5, 6)), Err(UnknownYear(2024)));
    }

    #[test]
    fn each_year_has_as_many_days_off_as_its_notice_says() {
        let days = WorkingDays::builtin();
        // The lengths in the notices: 1+8+3+5+3+8 and 3+9+3+5+3+3+7 days.
        for (year, off, working) in [(2025, 28, 5), (2026, 33, 6)] {
            assert_eq!(
                (days.years[&year].off.len(), days.years[&year].working.len()),
                (off, working)
            );
        }
    }

    #[test]
    fn neither_end_is_counted() {
        let days = WorkingDays::builtin();
        // Monday 2026-11-23 to Friday 27: Tuesday, Wednesday, Thursday.
        assert_eq!(days.between(date(2026, 11, 23), date(2026, 11, 27), 9), Ok(3));
        assert_eq!(days.between(date(2026, 11, 23), date(2026, 11, 24), 9), Ok(0));
        assert_eq!(days.between(date(2026, 11, 23), date(2026, 11, 20), 9), Ok(0));
        // From Wednesday 2026-09-30 over the holiday week: 8 and 9 October, and Saturday 10, worked in exchange.
        assert_eq!(days.between(date(2026, 9, 30), date(2026, 10, 12), 9), Ok(3));
    }

    #[test]
    fn a_wrong_table_is_refused_by_name() {
        let table = |holidays: &str, working: &str| {
            let text = format!(
                "[[year]]\nyear = 2026\nsource = \"x\"\nholidays = [{holidays}]\nworking = [{working}]\n"
            );
            WorkingDays::from_toml(&text)
        };
        let off = |from: &str, to: &str| format!("{{ name = \"x\", from = \"{from}\", to = \"{to}\" }}");
        assert!(table(&off("2026-01-01", "2026-01-03"), "\"2026-01-04\"").is_ok());
        assert!(matches!(
            table(&off("2025-12-31", "2026-01-03"), ""),
            Err(HolidaysError::OtherYear { .. })
        ));
        assert!(matches!(
            table(&off("2026-01-03", "2026-01-01"), ""),
            Err(HolidaysError::Backwards(_))
        ));
        assert!(matches!(
            table("", "\"2026-01-05\""),
            Err(HolidaysError::NoExchange(_))
        ));
        assert!(matches!(table("", "2026"), Err(HolidaysError::Toml(_))));
    }
}
