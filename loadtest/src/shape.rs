//! The shape of a load: phases, each with a rate that is constant or changes linearly. Pure.
//!
//! | shape | phases |
//! |---|---|
//! | constant | one |
//! | ramp | from one rate to another, told in ten slices |
//! | step | equal steps from one rate to another |
//! | spike | two fifths at the rate, one fifth at the peak, two fifths of recovery |
//! | soak | constant, told in ten windows so that a drift can be seen |

use std::time::Duration;

/// Slices in which a ramp and a soak are reported.
const SLICES: u32 = 10;

/// What load is like over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ShapeName {
    /// The same rate all the time.
    Constant,
    /// From --rate to --to, evenly.
    Ramp,
    /// From --rate to --to in --steps steps.
    Step,
    /// --rate, with --to for the middle fifth.
    Spike,
    /// The same rate for long, reported in ten windows.
    Soak,
}

impl ShapeName {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Ramp => "ramp",
            Self::Step => "step",
            Self::Spike => "spike",
            Self::Soak => "soak",
        }
    }
}

/// A stretch of time in which the rate changes linearly.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// Requests per second at its start.
    pub(crate) from: f64,
    /// Requests per second at its end.
    pub(crate) to: f64,
    pub(crate) length: Duration,
}

impl Phase {
    fn flat(name: impl Into<String>, rate: f64, length: Duration) -> Self {
        Self {
            name: name.into(),
            from: rate,
            to: rate,
            length,
        }
    }

    /// Requests meant to leave in it.
    pub(crate) fn requests(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.length.as_secs_f64()
    }
}

/// A load that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("a {0} needs --to, the rate it goes to")]
    NoTarget(&'static str),
    #[error("--to has no meaning for a {0} load")]
    NeedlessTarget(&'static str),
}

/// What the phases are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    pub(crate) shape: ShapeName,
    pub(crate) rate: f64,
    pub(crate) to: Option<f64>,
    pub(crate) steps: u32,
    pub(crate) length: Duration,
}

impl Outline {
    /// The counted phases, in order.
    pub(crate) fn phases(&self) -> Result<Vec<Phase>, ShapeError> {
        let Self { rate, length, .. } = *self;
        match self.shape {
            ShapeName::Constant => {
                self.no_target()?;
                Ok(vec![Phase::flat("constant", rate, length)])
            }
            ShapeName::Soak => {
                self.no_target()?;
                let window = |number| Phase::flat(format!("window {number}"), rate, length / SLICES);
                Ok((1..=SLICES).map(window).collect())
            }
            ShapeName::Ramp => Ok(ramp(rate, self.target()?, length)),
            ShapeName::Step => Ok(steps(rate, self.target()?, self.steps, length)),
            ShapeName::Spike => Ok(vec![
                Phase::flat("before", rate, length * 2 / 5),
                Phase::flat("spike", self.target()?, length / 5),
                Phase::flat("recovery", rate, length * 2 / 5),
            ]),
        }
    }

    fn target(&self) -> Result<f64, ShapeError> {
        self.to.ok_or(ShapeError::NoTarget(self.shape.name()))
    }

    fn no_target(&self) -> Result<(), ShapeError> {
        match self.to {
            Some(_) => Err(ShapeError::NeedlessTarget(self.shape.name())),
            None => Ok(()),
        }
    }
}

fn ramp(from: f64, to: f64, length: Duration) -> Vec<Phase> {
    let at = |slice: u32| from + (to - from) * f64::from(slice) / f64::from(SLICES);
    let slice = |number| Phase {
        name: format!("{:.0}–{:.0}/s", at(number), at(number + 1)),
        from: at(number),
        to: at(number + 1),
        length: length / SLICES,
    };
    (0..SLICES).map(slice).collect()
}

fn steps(from: f64, to: f64, count: u32, length: Duration) -> Vec<Phase> {
    let between = f64::from(count.saturating_sub(1).max(1));
    let rate = |step: u32| from + (to - from) * f64::from(step) / between;
    let step = |number| {
        Phase::flat(
            format!("{:.0}/s", rate(number)),
            rate(number),
            length / count.max(1),
        )
    };
    (0..count).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(shape: ShapeName, to: Option<f64>) -> Outline {
        Outline {
            shape,
            rate: 100.0,
            to,
            steps: 5,
            length: Duration::from_secs(10),
        }
    }

    fn requests(phases: &[Phase]) -> f64 {
        phases.iter().map(Phase::requests).sum()
    }

    #[test]
    fn every_shape_fills_its_time_and_offers_its_requests() {
        for (shape, to, expected) in [
            (ShapeName::Constant, None, 1_000.0),
            (ShapeName::Soak, None, 1_000.0),
            (ShapeName::Ramp, Some(300.0), 2_000.0),
            (ShapeName::Step, Some(300.0), 2_000.0),
            (ShapeName::Spike, Some(600.0), 2_000.0),
        ] {
            let phases = outline(shape, to).phases().unwrap();
            let length: Duration = phases.iter().map(|phase| phase.length).sum();
            assert_eq!(length, Duration::from_secs(10), "{shape:?}");
            assert!(
                (requests(&phases) - expected).abs() < 1e-6,
                "{shape:?}: {phases:?}"
            );
        }
    }

    #[test]
    fn a_target_is_given_exactly_where_it_means_something() {
        assert_eq!(
            outline(ShapeName::Spike, None).phases(),
            Err(ShapeError::NoTarget("spike"))
        );
        let needless = outline(ShapeName::Soak, Some(1.0)).phases();
        assert_eq!(needless, Err(ShapeError::NeedlessTarget("soak")));
    }
}
