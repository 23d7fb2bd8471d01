//! What a device can do: the knee of its throughput over the number of calls in flight, and what that promises.
//!
//! Past the device's own parallelism more calls in flight buy no throughput, only a longer tail (measured on SoftHSM2:
//! RSA-2048 from 8 to 32 threads: no more signatures, p99 from 109 to 692 ms). So the pool never pushes a device past
//! its knee; what waits, waits in our queue, where deadlines and fairness count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Depths that are tried.
pub const DEPTHS: [u16; 7] = [1, 2, 4, 8, 16, 32, 64];
/// The knee is the smallest depth with this part of the best throughput.
const KNEE_OF_BEST: f64 = 0.95;

/// One depth as measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Calls in flight.
    pub depth: u16,
    /// Signatures per second.
    pub per_second: f64,
    /// Average time of a call.
    pub average: Duration,
    /// Its 99th percentile.
    pub p99: Duration,
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Every depth that was tried.
    pub points: Vec<Point>,
    /// The depth to stay at or below.
    pub knee: u16,
    /// Signatures per second at the knee.
    pub per_second: f64,
    /// Signatures per second it can promise at an average of at most 100 ms; `None`: not even one at a time.
    pub promise: Option<f64>,
}

/// What a promise leaves for the device: 100 ms less the queue (40 ms) and the commits (15 ms).
const DEVICE_SHARE: Duration = Duration::from_millis(45);
/// A device that is always busy has an endless queue; this much of its throughput can be promised.
const UTILISATION: f64 = 0.9;

/// Finds the knee. `None` without a single point.
pub fn find_knee(points: Vec<Point>) -> Option<Calibration> {
    let best = points.iter().map(|point| point.per_second).fold(0.0, f64::max);
    let knee = points
        .iter()
        .filter(|point| point.per_second >= best * KNEE_OF_BEST)
        .min_by_key(|point| point.depth)?;
    let (depth, per_second) = (knee.depth, knee.per_second);
    let promised = points
        .iter()
        .filter(|point| point.depth <= depth && point.average <= DEVICE_SHARE);
    let promise = promised
        .map(|point| point.per_second * UTILISATION)
        .fold(None, |most: Option<f64>, one| {
            Some(most.map_or(one, |most| most.max(one)))
        });
    Some(Calibration {
        knee: depth,
        per_second,
        promise,
        points,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(depth: u16, per_second: f64, average_ms: u64) -> Point {
        let average = Duration::from_millis(average_ms);
        Point {
            depth,
            per_second,
            average,
            p99: average * 3,
        }
    }

    #[test]
    fn the_knee_is_where_more_in_flight_buys_nothing() {
        let points = vec![
            point(1, 715.0, 1),
            point(2, 716.0, 3),
            point(8, 768.0, 10),
            point(32, 771.0, 41),
        ];
        let found = find_knee(points).unwrap();
        assert_eq!((found.knee, found.per_second), (8, 768.0));
        assert_eq!(found.promise, Some(768.0 * UTILISATION));
        assert_eq!(find_knee(Vec::new()), None);
    }

    #[test]
    fn a_slow_device_promises_what_its_fast_depths_give_and_a_very_slow_one_nothing() {
        let points = vec![point(1, 30.0, 33), point(4, 100.0, 40), point(8, 160.0, 50)];
        assert_eq!(find_knee(points).unwrap().promise, Some(90.0));
        assert_eq!(find_knee(vec![point(1, 5.0, 200)]).unwrap().promise, None);
    }
}
