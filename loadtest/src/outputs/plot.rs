//! Plots as inline SVG: lines on two axes, labelled in both languages, told apart by dashes as well as by colour. Pure.

use std::fmt::Write as _;

use super::html::{Words, escape};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;
/// Lines a plot has styles for.
pub(super) const STYLES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Decades; what is below the lowest decade stands on it.
    Log,
}

/// One axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: Words,
    pub(super) scale: Scale,
    /// Places and names; empty: chosen from the values.
    pub(super) ticks: Vec<(f64, String)>,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: Words,
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) id: &'static str,
    pub(super) title: Words,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// A horizontal line that should not be crossed.
    pub(super) limit: Option<(f64, Words)>,
}

/// From values to places in the picture.
struct Ruler {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    scale: Scale,
}

impl Ruler {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0f64);
        for value in values.filter(|value| value.is_finite()) {
            if scale == Scale::Linear || value > 0.0 {
                low = low.min(value);
            }
            high = high.max(value);
        }
        if scale == Scale::Linear {
            low = low.min(0.0);
            high = if high > low { high } else { low + 1.0 };
        } else {
            low = 10f64.powf(low.clamp(0.001, 1e9).log10().floor());
            high = 10f64.powf(high.max(low * 10.0).log10().ceil());
        }
        Self {
            low,
            high,
            from,
            to,
            scale,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => linear_ticks(self.low, self.high),
            Scale::Log => {
                let decades = (self.high / self.low).log10().round() as i32;
                (0..=decades)
                    .map(|n| self.low * 10f64.powi(n))
                    .map(|value| (value, number(value)))
                    .collect()
            }
        }
    }
}

/// Four to ten round numbers.
fn linear_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 6.0;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|n| n * decade)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last)
        .map(|n| n as f64 * step)
        .map(|value| (value, number(value)))
        .collect()
}

/// A number as an axis shows it.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        1e6.. => format!("{}M", trimmed(value / 1e6)),
        1e4.. => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Plot {
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let xs = points()
            .map(|point| point.0)
            .chain(self.x.ticks.iter().map(|tick| tick.0));
        let ys = points()
            .map(|point| point.1)
            .chain(self.limit.iter().map(|limit| limit.0));
        let x = Ruler::new(self.x.scale, xs, LEFT, WIDTH - RIGHT);
        let y = Ruler::new(self.y.scale, ys, HEIGHT - BOTTOM, TOP);
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            out,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{id}-title"><title id="{id}-title">{} / {}</title>"#,
            escape(self.title.en),
            escape(self.title.zh),
            id = self.id,
        );
        self.axes(&mut out, &x, &y);
        self.limit_line(&mut out, &y);
        for (number, series) in self.series.iter().enumerate() {
            let _ = write!(
                out,
                r#"<path class="line s{}" d="{}"/>"#,
                number % STYLES,
                path(&series.points, &x, &y)
            );
        }
        self.legend(&mut out);
        out + "</svg>"
    }

    fn axes(&self, out: &mut String, x: &Ruler, y: &Ruler) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, name) in y.ticks() {
            let at = y.place(value);
            let _ = write!(
                out,
                r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/><text class="tick" x="{}" y="{:.1}" text-anchor="end">{name}</text>"#,
                LEFT - 6.0,
                at + 4.0
            );
        }
        let ticks = if self.x.ticks.is_empty() {
            x.ticks()
        } else {
            self.x.ticks.clone()
        };
        for (value, name) in ticks {
            let at = x.place(value);
            let _ = write!(
                out,
                r#"<path class="grid" d="M{at:.1} {TOP}V{bottom}"/><text class="tick" x="{at:.1}" y="{}" text-anchor="middle">{name}</text>"#,
                bottom + 16.0
            );
        }
        let _ = write!(
            out,
            r#"<text class="label" x="{}" y="{}" text-anchor="middle">{}</text><text class="label" transform="translate(14 {}) rotate(-90)" text-anchor="middle">{}</text>"#,
            f64::midpoint(LEFT, right),
            HEIGHT - 10.0,
            self.x.label.tspans(),
            f64::midpoint(TOP, bottom),
            self.y.label.tspans(),
        );
    }

    fn limit_line(&self, out: &mut String, y: &Ruler) {
        if let Some((value, name)) = &self.limit {
            let at = y.place(*value);
            let right = WIDTH - RIGHT;
            let _ = write!(
                out,
                r#"<path class="limit" d="M{LEFT} {at:.1}H{right}"/><text class="tick" x="{right}" y="{:.1}" text-anchor="end">{}</text>"#,
                at - 5.0,
                name.tspans()
            );
        }
    }

    fn legend(&self, out: &mut String) {
        for (number, series) in self.series.iter().enumerate() {
            let at = LEFT + 195.0 * number as f64;
            let _ = write!(
                out,
                r#"<path class="line s{}" d="M{at} 16h26"/><text class="label" x="{}" y="20">{}</text>"#,
                number % STYLES,
                at + 32.0,
                series.name.tspans()
            );
        }
    }
}

fn path(points: &[(f64, f64)], x: &Ruler, y: &Ruler) -> String {
    let mut out = String::new();
    for (number, (at, value)) in points.iter().enumerate() {
        let command = if number == 0 { 'M' } else { 'L' };
        let _ = write!(out, "{command}{:.1} {:.1}", x.place(*at), y.place(*value));
    }
    if points.len() == 1 {
        // A single point would leave no mark.
        out.push_str("h2");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for high in [0.7, 1.0, 9.9, 60.0, 25_000.0, 1e7] {
            let ticks = linear_ticks(0.0, high);
            assert!((4..=10).contains(&ticks.len()), "{high}: {ticks:?}");
            assert!(ticks.last().unwrap().0 <= high * 1.000_001);
        }
        assert_eq!(
            [0.001, 1.5, 9_999.0, 25_000.0, 2.5e6].map(number),
            ["0.001", "1.5", "9999", "25k", "2.5M"]
        );
    }

    #[test]
    fn values_fall_where_the_axis_says() {
        let log = Ruler::new(Scale::Log, [2.0, 900.0].into_iter(), 0.0, 300.0);
        assert_eq!((log.low, log.high), (1.0, 1000.0));
        assert!((log.place(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(log.place(0.0), 0.0);
        let flat = Ruler::new(Scale::Linear, [0.0].into_iter(), 0.0, 10.0);
        assert!(flat.place(0.0).is_finite());
    }
}
