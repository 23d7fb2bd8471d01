//! How long a slow call takes.

use std::time::Duration;

/// A distribution of waiting times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    /// Always the same.
    Fixed(f64),
    /// Even between the two.
    Uniform(f64, f64),
    /// Exponential with this mean.
    Exponential(f64),
    /// Log-normal: its median, and the standard deviation of the natural logarithm.
    LogNormal(f64, f64),
}

/// No call waits longer than a day, whatever the tail of a distribution says.
const DELAY_MS_MAX: f64 = 86_400_000.0;

impl Delay {
    /// One waiting time.
    pub fn draw(self, random: &mut fastrand::Rng) -> Duration {
        let ms = match self {
            Self::Fixed(ms) => ms,
            Self::Uniform(low, high) => low + (high - low) * random.f64(),
            Self::Exponential(mean) => -mean * (1.0 - random.f64()).ln(),
            Self::LogNormal(median, sigma) => median * (sigma * normal(random)).exp(),
        };
        Duration::from_secs_f64(ms.clamp(0.0, DELAY_MS_MAX) / 1000.0)
    }
}

/// A standard normal number (Box and Muller).
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorted milliseconds of many draws.
    fn drawn(delay: Delay) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut all: Vec<f64> = (0..20_000)
            .map(|_| delay.draw(&mut random).as_secs_f64() * 1000.0)
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn near(value: f64, wanted: f64) -> bool {
        (value / wanted - 1.0).abs() < 0.05
    }

    #[test]
    fn each_distribution_has_its_shape() {
        assert_eq!(drawn(Delay::Fixed(5.0))[0], 5.0);
        let uniform = drawn(Delay::Uniform(5.0, 20.0));
        assert!(uniform[0] >= 5.0 && uniform[19_999] <= 20.0 && near(uniform[10_000], 12.5));
        let exponential = drawn(Delay::Exponential(10.0));
        assert!(near(exponential.iter().sum::<f64>() / 20_000.0, 10.0));
        assert!(near(exponential[10_000], 10.0 * std::f64::consts::LN_2));
        let log_normal = drawn(Delay::LogNormal(10.0, 0.5));
        assert!(near(log_normal[10_000], 10.0));
        // One standard deviation above the median: 84.13 % lie below.
        assert!(near(log_normal[16_827], 10.0 * 0.5f64.exp()));
    }

    #[test]
    fn a_mad_tail_is_cut() {
        let mut random = fastrand::Rng::with_seed(1);
        let longest = Delay::LogNormal(1e300, 100.0).draw(&mut random);
        assert!(longest <= Duration::from_secs(86_400));
    }
}
