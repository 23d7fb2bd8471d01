//! Response times of whole days, for the percentiles of a month: the averages and maxima in the records of minutes cannot
//! say them. A histogram for each day of Asia/Shanghai and life of the engine, kept in the store beside the minutes; what
//! is in it is what the agreement's average counts.

use std::collections::BTreeMap;

use protocol::latency::{self, Latencies};
use sla::calendar::{MinuteIndex, Span};
use sla::percent::Percent;
use sla::report::Percentile;
use store::DayRecord;

/// The percentiles that reports state.
const STATED: [&str; 4] = ["50%", "90%", "99%", "99.9%"];
/// Asia/Shanghai is so many minutes ahead of UTC.
const AHEAD: u32 = 8 * 60;
const DAY: u32 = 24 * 60;

/// The number of a minute's day, counted from 1970-01-01.
pub(crate) const fn day_of(minute: MinuteIndex) -> u32 {
    (minute.number() + AHEAD) / DAY
}

/// Days that are not over, or not over for long.
#[derive(Debug, Default)]
pub(crate) struct Days {
    by_day: BTreeMap<u32, Latencies>,
    changed: bool,
}

impl Days {
    pub(crate) fn record(&mut self, minute: MinuteIndex, us: u64) {
        let day = self
            .by_day
            .entry(day_of(minute))
            .or_insert_with(latency::small_histogram);
        day.saturating_record(us.max(1));
    }

    /// Adds what a core has counted.
    pub(crate) fn merge(&mut self, part: Self) {
        for (day, histogram) in part.by_day {
            self.changed = true;
            let sum = self.by_day.entry(day).or_insert_with(latency::small_histogram);
            latency::add(sum, &histogram);
        }
    }

    /// What is to be written. Days that are long over are let go.
    pub(crate) fn records(&mut self, now: MinuteIndex) -> Vec<DayRecord> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let record = |(day, histogram): (&u32, &Latencies)| DayRecord {
            day: *day,
            record: latency::encode(histogram),
        };
        let records = self.by_day.iter().map(record).collect();
        self.by_day.retain(|day, _| day + 1 >= day_of(now));
        records
    }
}

/// The days of a span.
pub(crate) const fn days_of(span: Span) -> (u32, u32) {
    (day_of(span.from), day_of(span.to))
}

/// The percentiles of what the records of some days hold; none where nothing was answered.
pub(crate) fn percentiles<'r>(
    records: impl Iterator<Item = &'r DayRecord>,
) -> Result<Vec<Percentile>, latency::DecodeError> {
    let mut sum = latency::small_histogram();
    for record in records {
        latency::add(&mut sum, &latency::decode(&record.record)?);
    }
    if sum.is_empty() {
        return Ok(Vec::new());
    }
    let of = |percent: Percent, text: &str| {
        let percentile = text.trim_end_matches('%').parse().unwrap_or(100.0);
        Percentile {
            percent,
            us: sum.value_at_percentile(percentile),
        }
    };
    Ok(STATED
        .iter()
        .filter_map(|text| Some(of(text.parse().ok()?, text)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: u32) -> MinuteIndex {
        MinuteIndex::new(minute)
    }

    #[test]
    fn a_day_is_one_of_shanghai() {
        // 16:00 UTC is midnight there.
        assert_eq!((day_of(at(16 * 60 - 1)), day_of(at(16 * 60))), (0, 1));
        let month: sla::calendar::Month = "2026-11".parse().unwrap();
        let (from, to) = days_of(month.span());
        assert_eq!(to - from, 30);
    }

    #[test]
    fn percentiles_are_of_all_lives_and_days_together() {
        let mut lives = Vec::new();
        for life in 0..2 {
            let (mut core, mut days) = (Days::default(), Days::default());
            for us in (1..=5_000).map(|n| n * 2 - life) {
                core.record(at(u32::try_from(life).unwrap() * DAY), us);
            }
            days.merge(core);
            lives.extend(days.records(at(0)));
            assert_eq!(days.records(at(0)), [], "nothing has changed");
        }
        let found = percentiles(lives.iter()).unwrap();
        let texts: Vec<String> = found.iter().map(|one| one.percent.to_string()).collect();
        assert_eq!(texts, STATED);
        // 1 to 10,000 µs, each once; two digits are exact.
        for (one, exact) in found.iter().zip([5_000_u64, 9_000, 9_900, 9_990]) {
            assert!(one.us.abs_diff(exact) <= exact / 100 + 1, "{one:?}");
        }
        assert_eq!(percentiles(std::iter::empty()).unwrap(), []);
    }

    #[test]
    fn a_record_of_something_else_is_refused() {
        let record = DayRecord {
            day: 1,
            record: vec![1, 2, 3],
        };
        assert!(percentiles(std::iter::once(&record)).is_err());
    }
}
