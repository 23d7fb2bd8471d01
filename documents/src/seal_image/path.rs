//! The fixed parts of a seal, and the curve on which a name runs.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use tiny_skia::{Path, PathBuilder, Rect};

/// A five-pointed star, one tip up, its tips on a circle of `radius` mm.
pub(super) fn star((x, y): (f32, f32), radius: f32) -> Option<Path> {
    // The inner corners of a pentagram: sin 18° / sin 54° of the way out.
    let inner = radius * (PI / 10.0).sin() / (3.0 * PI / 10.0).sin();
    let mut path = PathBuilder::new();
    for corner in 0_u8..10 {
        let angle = -FRAC_PI_2 + f32::from(corner) * PI / 5.0;
        let distance = if corner % 2 == 0 { radius } else { inner };
        let (x, y) = (x + distance * angle.cos(), y + distance * angle.sin());
        if corner == 0 {
            path.move_to(x, y);
        } else {
            path.line_to(x, y);
        }
    }
    path.close();
    path.finish()
}

/// An ellipse, or a circle, by its two radii.
pub(super) fn ellipse((x, y): (f32, f32), (a, b): (f32, f32)) -> Option<Path> {
    PathBuilder::from_oval(Rect::from_xywh(x - a, y - b, 2.0 * a, 2.0 * b)?)
}

/// A rectangle.
pub(super) fn rectangle(x: f32, y: f32, width: f32, height: f32) -> Option<Path> {
    Some(PathBuilder::from_rect(Rect::from_xywh(x, y, width, height)?))
}

/// A point on a curve and the direction in which the outside lies, in radians.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) point: (f32, f32),
    pub(super) outwards: f32,
}

/// An ellipse walked by length, because equal steps of its angle are not equally long.
pub(super) struct Walk {
    centre: (f32, f32),
    radii: (f32, f32),
    /// Length from angle 0 to each of equally many angles.
    lengths: Vec<f32>,
}

const STEPS: u16 = 1440;

impl Walk {
    pub(super) fn new(centre: (f32, f32), radii: (f32, f32)) -> Self {
        let at = |step: u16| {
            let angle = TAU * f32::from(step) / f32::from(STEPS);
            (radii.0 * angle.cos(), radii.1 * angle.sin())
        };
        let mut lengths = vec![0.0];
        for step in 1..=STEPS {
            let ((x0, y0), (x1, y1)) = (at(step - 1), at(step));
            lengths.push(lengths[usize::from(step) - 1] + (x1 - x0).hypot(y1 - y0));
        }
        Self {
            centre,
            radii,
            lengths,
        }
    }

    /// All the way round.
    pub(super) fn length(&self) -> f32 {
        *self.lengths.last().expect("there is one for angle 0 at least")
    }

    /// The spot `along` mm clockwise from the top, or from the bottom.
    pub(super) fn clockwise_of_top(&self, along: f32) -> Spot {
        self.spot(self.length() * 0.75 + along)
    }

    pub(super) fn clockwise_of_bottom(&self, along: f32) -> Spot {
        self.spot(self.length() * 0.25 + along)
    }

    fn spot(&self, along: f32) -> Spot {
        let along = along.rem_euclid(self.length());
        let after = self
            .lengths
            .partition_point(|length| *length < along)
            .clamp(1, usize::from(STEPS));
        let (from, to) = (self.lengths[after - 1], self.lengths[after]);
        let share = if to > from {
            (along - from) / (to - from)
        } else {
            0.0
        };
        let step = f32::from(u16::try_from(after - 1).unwrap_or(STEPS)) + share;
        let angle = TAU * step / f32::from(STEPS);
        let (a, b) = self.radii;
        Spot {
            point: (self.centre.0 + a * angle.cos(), self.centre.1 + b * angle.sin()),
            outwards: (angle.sin() / b).atan2(angle.cos() / a),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_walked_clockwise_from_the_top() {
        let walk = Walk::new((21.0, 21.0), (10.0, 10.0));
        assert!((walk.length() - 20.0 * PI).abs() < 0.01);
        let top = walk.clockwise_of_top(0.0);
        assert!(
            (top.point.0 - 21.0).abs() < 0.01 && (top.point.1 - 11.0).abs() < 0.01,
            "{top:?}"
        );
        let right = walk.clockwise_of_top(5.0 * PI);
        assert!(
            (right.point.0 - 31.0).abs() < 0.01 && right.outwards.abs() < 0.01,
            "{right:?}"
        );
        let bottom = walk.clockwise_of_bottom(0.0);
        assert!(
            (bottom.point.1 - 31.0).abs() < 0.01 && (bottom.outwards - FRAC_PI_2).abs() < 0.01,
            "{bottom:?}"
        );
    }

    #[test]
    fn steps_on_an_ellipse_are_equally_long() {
        let walk = Walk::new((0.0, 0.0), (20.0, 10.0));
        let spots: Vec<_> = (0_u8..40)
            .map(|step| walk.clockwise_of_top(f32::from(step) * walk.length() / 40.0))
            .collect();
        for pair in spots.windows(2) {
            let chord = (pair[1].point.0 - pair[0].point.0).hypot(pair[1].point.1 - pair[0].point.1);
            assert!((chord - walk.length() / 40.0).abs() < 0.05, "{chord}");
        }
    }
}
