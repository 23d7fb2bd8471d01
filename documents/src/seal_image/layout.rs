//! Lines of characters: straight, and on a curve.

use std::f32::consts::{FRAC_PI_2, PI};

use tiny_skia::{Path, PathBuilder};

use super::font::{Font, FontError};
use super::path::{Spot, Walk};

/// A character's box: where its centre is, how large it is, and how it is turned (radians, clockwise).
struct Place {
    centre: (f32, f32),
    width: f32,
    height: f32,
    turn: f32,
}

impl Place {
    fn map(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let (x, y) = (x * self.width, y * self.height);
        let (sine, cosine) = self.turn.sin_cos();
        [
            self.centre.0 + x * cosine - y * sine,
            self.centre.1 + x * sine + y * cosine,
        ]
    }
}

/// A name on the upper part of a curve, as seals have it: all characters as wide as each other and as their share
/// of the curve, feet inwards. `height` is that of the characters; the curve runs through their middles.
pub(super) fn upper_arc(
    font: &Font,
    text: &str,
    walk: &Walk,
    height: f32,
) -> Result<Option<Path>, FontError> {
    // The rest of the round is left for the code, or for air.
    const SHARE: f32 = 0.68;
    let outlines = font.outlines(text)?;
    let count = as_number(outlines.len());
    // Few characters stand apart, but not as if they did not belong together.
    let step = (walk.length() * SHARE / count).min(height * 1.5);
    let width = (step * 0.92).min(height);
    let mut path = PathBuilder::new();
    for (index, outline) in outlines.iter().enumerate() {
        let Spot { point, outwards } = walk.clockwise_of_top((as_number(index) - (count - 1.0) / 2.0) * step);
        let place = Place {
            centre: point,
            width,
            height,
            turn: outwards + FRAC_PI_2,
        };
        outline.add_to(&mut path, |point| place.map(point));
    }
    Ok(path.finish())
}

/// A code on the lower part of a curve, read from left to right, heads inwards.
pub(super) fn lower_arc(
    font: &Font,
    text: &str,
    walk: &Walk,
    height: f32,
) -> Result<Option<Path>, FontError> {
    const SHARE: f32 = 0.25;
    let outlines = font.outlines(text)?;
    let natural: f32 = outlines
        .iter()
        .map(|outline| outline.advance * height * 1.15)
        .sum();
    let squeeze = (walk.length() * SHARE / natural).min(1.0);
    let mut path = PathBuilder::new();
    let mut along = natural * squeeze / 2.0;
    for outline in &outlines {
        let share = outline.advance * height * 1.15 * squeeze;
        let Spot { point, outwards } = walk.clockwise_of_bottom(along - share / 2.0);
        let place = Place {
            centre: point,
            width: height * squeeze,
            height,
            turn: outwards + FRAC_PI_2 - PI,
        };
        outline.add_to(&mut path, |point| place.map(point));
        along -= share;
    }
    Ok(path.finish())
}

/// A straight line of at most `width` mm in the middle of which is `centre`.
pub(super) fn line(
    font: &Font,
    text: &str,
    centre: (f32, f32),
    width: f32,
    height: f32,
) -> Result<Option<Path>, FontError> {
    let outlines = font.outlines(text)?;
    let natural: f32 = outlines.iter().map(|outline| outline.advance * height).sum();
    let squeeze = (width / natural).min(1.0);
    let mut path = PathBuilder::new();
    let mut x = centre.0 - natural * squeeze / 2.0;
    for outline in &outlines {
        let share = outline.advance * height * squeeze;
        let place = Place {
            centre: (x + share / 2.0, centre.1),
            width: height * squeeze,
            height,
            turn: 0.0,
        };
        outline.add_to(&mut path, |point| place.map(point));
        x += share;
    }
    Ok(path.finish())
}

/// Four characters in two columns, the right one first, in a square of `side` mm with its corner at `corner`.
pub(super) fn square(font: &Font, text: &str, corner: f32, side: f32) -> Result<Option<Path>, FontError> {
    let half = side / 2.0;
    let mut path = PathBuilder::new();
    for (index, outline) in font.outlines(text)?.iter().enumerate() {
        let (column, row) = (1.0 - as_number(index / 2), as_number(index % 2));
        let centre = (corner + half * (column + 0.5), corner + half * (row + 0.5));
        let place = Place {
            centre,
            width: half * 0.95,
            height: half * 0.95,
            turn: 0.0,
        };
        outline.add_to(&mut path, |point| place.map(point));
    }
    Ok(path.finish())
}

pub(super) fn as_number(count: usize) -> f32 {
    f32::from(u16::try_from(count).unwrap_or(u16::MAX))
}
