//! An HDR histogram as the sparse buckets of a Prometheus native histogram: bucket `i` of schema `s` holds what is above
//! 2^((i-1)/2^s) and at most 2^(i/2^s) seconds. What is in one HDR bucket of two digits may straddle a bound; it counts
//! where its middle is, which is off by less than a hundredth of its value.

use protocol::latency::Latencies;

/// Eight buckets for each doubling: bounds 9 % apart.
pub(super) const SCHEMA: i32 = 3;
/// Empty buckets up to so many are written; a longer gap begins another span.
const GAP_MAX: i32 = 2;

/// Spans (distance from the end of the one before, length), and the difference of each count to the one before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) spans: Vec<(i32, u32)>,
    pub(super) deltas: Vec<i64>,
    last: i64,
    next: i32,
}

impl Sparse {
    pub(super) fn of(histogram: &Latencies) -> Self {
        let mut sparse = Self::default();
        let mut open: Option<(i32, i64)> = None;
        for recorded in histogram.iter_recorded() {
            let us = histogram.median_equivalent(recorded.value_iterated_to());
            let index = index(us as f64 / 1e6);
            let count = recorded.count_since_last_iteration().cast_signed();
            open = Some(match open {
                Some((at, sum)) if at == index => (at, sum + count),
                other => {
                    other.into_iter().for_each(|(at, sum)| sparse.push(at, sum));
                    (index, count)
                }
            });
        }
        open.into_iter().for_each(|(at, sum)| sparse.push(at, sum));
        sparse
    }

    fn push(&mut self, index: i32, count: i64) {
        let gap = index - self.next;
        if self.spans.is_empty() || gap > GAP_MAX {
            self.spans.push((gap, 0));
        } else {
            (0..gap).for_each(|_| self.append(0));
        }
        self.append(count);
        self.next = index + 1;
    }

    fn append(&mut self, count: i64) {
        if let Some((_, length)) = self.spans.last_mut() {
            *length += 1;
        }
        self.deltas.push(count - self.last);
        self.last = count;
    }
}

fn index(seconds: f64) -> i32 {
    (seconds.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

#[cfg(test)]
mod tests {
    use protocol::latency::small_histogram;

    use super::*;

    /// What a reader makes of it: bucket and count.
    fn read(sparse: &Sparse) -> Vec<(i32, i64)> {
        let (mut found, mut at, mut count) = (Vec::new(), 0, 0);
        let mut deltas = sparse.deltas.iter();
        for (offset, length) in &sparse.spans {
            at += offset;
            for _ in 0..*length {
                count += deltas.next().unwrap();
                if count > 0 {
                    found.push((at, count));
                }
                at += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        found
    }

    #[test]
    fn every_value_is_in_the_bucket_of_its_bounds() {
        let mut some = small_histogram();
        for (us, count) in [(40, 3), (1_000, 5), (1_050, 2), (100_000, 7), (2_900_000, 1)] {
            some.record_n(us, count).unwrap();
        }
        let found = read(&Sparse::of(&some));
        assert_eq!(found.iter().map(|(_, count)| count).sum::<i64>(), 18);
        let bound = |index: i32| 2f64.powf(f64::from(index) / 8.0);
        for (seconds, count) in [(0.00004, 3), (0.1, 7), (2.9, 1)] {
            let is_there = |(index, found): &&(i32, i64)| {
                *found == count && bound(index - 1) < seconds * 1.01 && seconds <= bound(*index) * 1.01
            };
            assert!(found.iter().find(is_there).is_some(), "{seconds}: {found:?}");
        }
    }

    #[test]
    fn nothing_recorded_has_no_buckets() {
        assert_eq!(Sparse::of(&small_histogram()), Sparse::default());
    }
}
