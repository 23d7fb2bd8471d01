//! `.hgrm`: the percentile distribution of one histogram as HdrHistogram's own tools print it, in milliseconds, for the
//! plotters that exist for it.

use std::fmt::Write as _;

use crate::tally::Latencies;

/// Lines for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const US_PER_MS: f64 = 1000.0;

pub(super) fn text(latencies: &Latencies) -> String {
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in latencies.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / US_PER_MS;
        let quantile = step.quantile_iterated_to();
        // Writing to a string does not fail.
        let _ = if quantile < 1.0 {
            writeln!(
                out,
                "{value:12.3} {quantile:2.12} {count:10} {:14.2}",
                1.0 / (1.0 - quantile)
            )
        } else {
            writeln!(out, "{value:12.3} {quantile:2.12} {count:10}")
        };
    }
    let (mean, deviation) = (latencies.mean() / US_PER_MS, latencies.stdev() / US_PER_MS);
    let max = latencies.max() as f64 / US_PER_MS;
    let _ = writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(
        out,
        "#[Max     = {max:12.3}, Total count    = {:12}]",
        latencies.len()
    );
    let _ = writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        latencies.buckets(),
        SUB_BUCKETS
    );
    out
}

/// What three significant digits need: the power of two above 2 · 10³.
const SUB_BUCKETS: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::histogram;

    #[test]
    fn the_distribution_rises_to_the_maximum_and_ends_with_every_request() {
        let mut latencies = histogram();
        for value in 1..=1_000u64 {
            latencies.record(value * 1_000).unwrap();
        }
        let text = text(&latencies);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|cell| cell.parse().unwrap())
                    .collect()
            })
            .collect();
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]));
        let half = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert!((half[0] - 500.0).abs() < 1.0 && half[2] == 500.0, "{half:?}");
        assert_eq!((rows.last().unwrap()[1], rows.last().unwrap()[2]), (1.0, 1_000.0));
        assert!(text.contains("#[Max     =     1000.") && text.contains("Total count    =         1000]"));
    }
}
