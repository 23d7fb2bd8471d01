//! What is shown while a run lasts: a view that redraws itself on a terminal, lines elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Progress;
use crate::report::Point;

/// Seconds of history in the view.
const HISTORY: usize = 60;
/// Lines are written each second in short runs, and this seldom in long ones.
const SECONDS_BETWEEN_LINES: u64 = 10;
const LONG: Duration = Duration::from_secs(120);

/// The view.
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    lines: bool,
    name: String,
    every: u64,
    history: VecDeque<Point>,
    sums: Sums,
}

#[derive(Default)]
struct Sums {
    offered: u64,
    ok: u64,
    failed: u64,
    max_ms: f64,
}

impl Live {
    pub(crate) fn new(progress: Progress) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (progress == Progress::Auto && terminal).then(|| {
            let bar = ProgressBar::new(1);
            let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %\n{msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            lines: progress != Progress::None && bar.is_none(),
            bar,
            name: String::new(),
            every: 1,
            history: VecDeque::new(),
            sums: Sums::default(),
        }
    }

    /// A load begins that takes so long, the warm-up included.
    pub(crate) fn begin(&mut self, name: &str, length: Duration) {
        name.clone_into(&mut self.name);
        self.every = if length > LONG { SECONDS_BETWEEN_LINES } else { 1 };
        self.history.clear();
        self.sums = Sums::default();
        if let Some(bar) = &self.bar {
            bar.set_length(u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1));
            bar.set_position(0);
            bar.set_message(format!("{name}: warming up"));
        }
        self.say(name);
    }

    /// Time goes by.
    pub(crate) fn tick(&self, elapsed: Duration) {
        if let Some(bar) = &self.bar {
            let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            bar.set_position(elapsed.min(bar.length().unwrap_or(elapsed)));
        }
    }

    /// A second is whole.
    pub(crate) fn second(&mut self, point: &Point) {
        self.sums.offered += point.offered;
        self.sums.ok += point.ok;
        self.sums.failed += point.failed;
        self.sums.max_ms = self.sums.max_ms.max(point.max_ms);
        self.history.push_back(*point);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.view(point));
        } else if (point.second + 1).is_multiple_of(self.every) {
            self.say(&line(point));
        }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.lines => eprintln!("{text}"),
            None => {}
        }
    }

    /// Clears the view.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn view(&self, point: &Point) -> String {
        let Sums {
            offered,
            ok,
            failed,
            max_ms,
        } = self.sums;
        let series = |value: fn(&Point) -> f64| sparkline(self.history.iter().map(value));
        format!(
            "{}\n{}\nso far  offered {offered}  ok {ok}  errors {failed}  max {max_ms:.1} ms\n\
             ok/s    {}\np99     {}\nmax     {}",
            self.name,
            line(point),
            series(|point| point.ok as f64),
            series(|point| point.p99_ms),
            series(|point| point.max_ms),
        )
    }
}

fn line(point: &Point) -> String {
    let Point {
        second,
        offered,
        ok,
        failed,
        p50_ms,
        p99_ms,
        max_ms,
    } = point;
    format!(
        "{:>5} s  offered {offered:>6}/s  ok {ok:>6}/s  errors {failed:>5}/s  p50 {p50_ms:>7.2}  p99 {p99_ms:>7.2}  max {max_ms:>8.2} ms",
        second + 1
    )
}

/// Eight heights, from zero to the greatest value.
fn sparkline(values: impl Iterator<Item = f64> + Clone) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let greatest = values.clone().fold(0.0, f64::max);
    let height = |value: f64| {
        if greatest > 0.0 {
            HEIGHTS[((value / greatest) * 7.0).round() as usize]
        } else {
            HEIGHTS[0]
        }
    };
    values.map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_reaches_from_zero_to_the_greatest() {
        assert_eq!(sparkline([0.0, 3.5, 7.0].into_iter()), "▁▅█");
        assert_eq!(sparkline([0.0, 0.0].into_iter()), "▁▁");
    }
}
