//! The plots of a page, each with its figures in a table.

use super::super::plot::{Axis, Plot, Scale, Series, number};
use super::{Words, tables, words};
use crate::report::{Point, Report, UnpackError};
use crate::tally::Latencies;

/// Points a line is drawn with, at most; longer runs are drawn in stretches of several seconds.
const POINTS_MAX: usize = 300;
/// Lines for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 4;

const MILLISECONDS: Words = words("milliseconds", "毫秒");
const SECONDS: Words = words("seconds", "秒");
const PER_SECOND: Words = words("signatures per second", "每秒签名");

const fn axis(label: Words, scale: Scale) -> Axis {
    Axis {
        label,
        scale,
        ticks: Vec::new(),
    }
}

/// A plot with its table beneath: the x of the first line, and the y of every line.
fn figure(plot: &Plot, x: fn(f64) -> String) -> String {
    let head: Vec<Words> = std::iter::once(plot.x.label)
        .chain(plot.series.iter().map(|series| series.name))
        .collect();
    let first = plot.series.first().map_or(&[][..], |series| &series.points[..]);
    let row = |(at, point): (usize, &(f64, f64))| {
        let value = |series: &Series| {
            series
                .points
                .get(at)
                .map_or_else(|| "–".into(), |point| format!("{:.2}", point.1))
        };
        std::iter::once(x(point.0))
            .chain(plot.series.iter().map(value))
            .collect()
    };
    let rows: Vec<Vec<String>> = first.iter().enumerate().map(row).collect();
    format!(
        "<figure><h2>{}</h2>{}{}</figure>",
        plot.title.html(),
        plot.svg(),
        tables::folded(&head, &rows)
    )
}

pub(super) fn of_report(report: &Report) -> Result<String, UnpackError> {
    let totals = report.totals()?;
    let lines = [
        (words("latency", "延迟"), report.latencies()?),
        (words("service time", "服务时间"), totals.service),
    ];
    let mut out = curve(&lines);
    let points = thinned(&report.timeline);
    out += &latency_over_time(report, &points);
    out += &throughput(&points);
    out += &errors(&points);
    if !report.trials.is_empty() {
        out += &knee(report);
    }
    Ok(out)
}

pub(super) fn of_two(before: &Report, after: &Report) -> Result<String, UnpackError> {
    Ok(curve(&[
        (words("before", "之前"), before.latencies()?),
        (words("after", "之后"), after.latencies()?),
    ]))
}

/// Latency by percentile, stretched towards 100 % so that the tail can be seen.
fn curve(lines: &[(Words, Latencies)]) -> String {
    let series = lines.iter().map(|(name, latencies)| Series {
        name: *name,
        points: quantiles(latencies),
    });
    let series: Vec<Series> = series.collect();
    let furthest = series
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.0)
        .fold(1.0, f64::max);
    let names = [
        "0 %",
        "90 %",
        "99 %",
        "99.9 %",
        "99.99 %",
        "99.999 %",
        "99.9999 %",
        "99.99999 %",
    ];
    let ticks = (0..)
        .map(f64::from)
        .zip(names)
        .take_while(|(at, _)| *at <= furthest.ceil());
    let plot = Plot {
        id: "percentiles",
        title: words("Latency by percentile", "延迟百分位曲线"),
        x: Axis {
            label: words("percentile", "百分位"),
            scale: Scale::Linear,
            ticks: ticks.map(|(at, name)| (at, name.to_owned())).collect(),
        },
        y: axis(MILLISECONDS, Scale::Log),
        series,
        limit: None,
    };
    figure(&plot, |place| {
        format!("{:.5} %", 100.0 - 100.0 / 10f64.powf(place))
    })
}

/// (log₁₀ 1/(1−q), milliseconds), up to the percentile that only the slowest request is beyond.
fn quantiles(latencies: &Latencies) -> Vec<(f64, f64)> {
    let steps = latencies.iter_quantiles(TICKS_PER_HALF_DISTANCE);
    let last = (latencies.len().max(1) as f64).log10();
    let point =
        |quantile: f64, value: u64| ((1.0 / (1.0 - quantile)).log10().min(last), value as f64 / 1000.0);
    steps
        .map(|step| point(step.quantile_iterated_to(), step.value_iterated_to()))
        .collect()
}

/// Stretches of several seconds, where there are too many to draw: averages of what adds up, and the worst of the rest.
fn thinned(timeline: &[Point]) -> Vec<(f64, Point, f64)> {
    let every = timeline.len().div_ceil(POINTS_MAX).max(1);
    let stretch = |points: &[Point]| {
        let worst = |value: fn(&Point) -> f64| points.iter().map(value).fold(0.0, f64::max);
        let sum = Point {
            second: points[0].second,
            offered: points.iter().map(|point| point.offered).sum(),
            ok: points.iter().map(|point| point.ok).sum(),
            failed: points.iter().map(|point| point.failed).sum(),
            p50_ms: points.iter().map(|point| point.p50_ms).sum::<f64>() / points.len() as f64,
            p99_ms: worst(|point| point.p99_ms),
            max_ms: worst(|point| point.max_ms),
        };
        (sum.second as f64, sum, points.len() as f64)
    };
    timeline.chunks(every).map(stretch).collect()
}

fn line(name: Words, points: &[(f64, Point, f64)], value: impl Fn(&Point, f64) -> f64) -> Series {
    Series {
        name,
        points: points
            .iter()
            .map(|(second, point, length)| (*second, value(point, *length)))
            .collect(),
    }
}

fn latency_over_time(report: &Report, points: &[(f64, Point, f64)]) -> String {
    let plot = Plot {
        id: "latency",
        title: words("Latency over time", "延迟随时间的变化"),
        x: axis(SECONDS, Scale::Linear),
        y: axis(MILLISECONDS, Scale::Log),
        series: vec![
            line(words("p50", "p50"), points, |point, _| point.p50_ms),
            line(words("p99", "p99"), points, |point, _| point.p99_ms),
            line(words("max", "最大"), points, |point, _| point.max_ms),
        ],
        limit: report
            .sla
            .max_ms
            .map(|limit| (limit, words("longest promised", "承诺的最大值"))),
    };
    figure(&plot, number)
}

fn throughput(points: &[(f64, Point, f64)]) -> String {
    let plot = Plot {
        id: "throughput",
        title: words("Throughput", "吞吐量"),
        x: axis(SECONDS, Scale::Linear),
        y: axis(PER_SECOND, Scale::Linear),
        series: vec![
            line(words("asked for", "请求"), points, |point, length| {
                point.offered as f64 / length
            }),
            line(words("received", "收到"), points, |point, length| {
                point.ok as f64 / length
            }),
        ],
        limit: None,
    };
    figure(&plot, number)
}

fn errors(points: &[(f64, Point, f64)]) -> String {
    let plot = Plot {
        id: "errors",
        title: words("Errors over time", "错误随时间的变化"),
        x: axis(SECONDS, Scale::Linear),
        y: axis(PER_SECOND, Scale::Linear),
        series: vec![line(words("missing", "未收到"), points, |point, length| {
            point.failed as f64 / length
        })],
        limit: None,
    };
    figure(&plot, number)
}

/// Latency by rate: where it bends, the server has had enough.
fn knee(report: &Report) -> String {
    let mut trials: Vec<_> = report.trials.iter().collect();
    trials.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let series = |name, value: fn(&crate::search::Trial) -> f64| Series {
        name,
        points: trials.iter().map(|trial| (trial.rate, value(trial))).collect(),
    };
    let plot = Plot {
        id: "knee",
        title: words("Latency by rate", "延迟与速率"),
        x: axis(words("requests per second", "每秒请求"), Scale::Linear),
        y: axis(MILLISECONDS, Scale::Log),
        series: vec![
            series(words("average", "平均"), |trial| trial.latency_ms.avg),
            series(words("p99", "p99"), |trial| trial.latency_ms.p99),
            series(words("max", "最大"), |trial| trial.latency_ms.max),
        ],
        limit: report
            .sla
            .max_ms
            .map(|limit| (limit, words("longest promised", "承诺的最大值"))),
    };
    figure(&plot, number)
}
