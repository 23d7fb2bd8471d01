//! Adds up what several agents saw of one load. Histograms add up, percentiles do not: everything is made again from the
//! histograms in the reports and in the interval logs beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::error_code::{Code, Refusal};

use crate::files::{self, FileError};
use crate::hlog::{self, HlogWriter};
use crate::report::{Metered, Point, Report, SCHEMA, UnpackError};
use crate::tally::{Interval, Totals};

/// Reports that cannot be added up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("{path}: {source}")]
    Report { path: PathBuf, source: UnpackError },
    #[error("{path}: report schema {found}, this tool knows {SCHEMA}")]
    Schema { path: PathBuf, found: u32 },
    #[error("{path} is not of the same load as {first}: its {what} differ")]
    OtherLoad {
        path: PathBuf,
        first: PathBuf,
        what: &'static str,
    },
}

impl From<MergeError> for Refusal {
    fn from(error: MergeError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

/// Reads a report of this tool's.
pub(crate) fn read_report(path: &Path) -> Result<Report, Refusal> {
    let report: Report = files::read_json(path)?;
    if report.schema != SCHEMA {
        return Err(MergeError::Schema {
            path: path.to_owned(),
            found: report.schema,
        }
        .into());
    }
    Ok(report)
}

/// One agent's part.
struct Part {
    path: PathBuf,
    report: Report,
    totals: Totals,
    seconds: Vec<Interval>,
}

impl Part {
    fn read(path: &Path) -> Result<Self, Refusal> {
        let report = read_report(path)?;
        let totals = report.totals().map_err(|source| MergeError::Report {
            path: path.to_owned(),
            source,
        })?;
        let mut seconds = hlog::read(&path.with_extension("hlog"))?;
        // The counts of a second are in the report; its histograms are in the log.
        let points: BTreeMap<u64, &Point> = report
            .timeline
            .iter()
            .map(|point| (point.second, point))
            .collect();
        for interval in &mut seconds {
            if let Some(point) = points.get(&interval.second) {
                (interval.offered, interval.ok, interval.failed) = (point.offered, point.ok, point.failed);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            report,
            totals,
            seconds,
        })
    }

    fn check_same_load(&self, first: &Self) -> Result<(), MergeError> {
        let names = |report: &Report| -> Vec<Vec<String>> {
            let names =
                |groups: &[crate::report::Group]| groups.iter().map(|group| group.name.clone()).collect();
            vec![names(&report.phases), names(&report.classes)]
        };
        let what = match () {
            () if self.report.run.shape != first.report.run.shape => "shapes",
            () if names(&self.report) != names(&first.report) => "phases or classes",
            () => return Ok(()),
        };
        Err(MergeError::OtherLoad {
            path: self.path.clone(),
            first: first.path.clone(),
            what,
        })
    }
}

/// The sum of several reports, and its seconds.
pub(crate) fn merge(paths: &[PathBuf]) -> Result<(Report, Vec<Interval>), Refusal> {
    let parts = paths
        .iter()
        .map(|path| Part::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let first = &parts[0];
    let mut totals = Totals::new(first.totals.phases.len(), first.totals.classes.len());
    for part in &parts {
        part.check_same_load(first)?;
        totals.merge(&part.totals);
    }
    let phases: Vec<(String, f64)> = first
        .report
        .phases
        .iter()
        .map(|phase| (phase.name.clone(), phase.seconds.unwrap_or_default()))
        .collect();
    let classes: Vec<String> = first
        .report
        .classes
        .iter()
        .map(|class| class.name.clone())
        .collect();
    let mut report = Report::of(&totals, totals.last_answer).with_groups(&totals, &phases, &classes);
    let seconds = merge_seconds(&parts);
    report.timeline = seconds.iter().map(Point::of).collect();
    report.run = first.report.run.clone();
    report.run.started_unix_ms = earliest(&parts);
    report.run.agents = parts.iter().map(|part| part.report.run.agents).sum();
    report.run.interrupted = parts.iter().any(|part| part.report.run.interrupted);
    report.client_cpu_us = weighted(&parts, |report| report.client_cpu_us);
    // Each agent saw the whole server, and divided by its own signatures only.
    report.server_cpu_us = server_cpu(&parts, report.ok);
    // Every agent saw the same extension, the longest of them all of it.
    let extending = parts.iter().filter_map(|part| part.report.extending_seconds);
    report.extending_seconds = extending.max_by(f64::total_cmp);
    report.metered = metered(&parts);
    report.sla = first.report.sla.clone();
    Ok((report, seconds))
}

fn earliest(parts: &[Part]) -> u64 {
    parts
        .iter()
        .map(|part| part.report.run.started_unix_ms)
        .min()
        .unwrap_or_default()
}

fn merge_seconds(parts: &[Part]) -> Vec<Interval> {
    let start = earliest(parts);
    let mut merged: BTreeMap<u64, Interval> = BTreeMap::new();
    for part in parts {
        let late = (part.report.run.started_unix_ms - start + 500) / 1000;
        for interval in &part.seconds {
            let second = interval.second + late;
            merged
                .entry(second)
                .or_insert_with(|| Interval::new(second))
                .merge(interval);
        }
    }
    merged.into_values().collect()
}

/// The average of a figure per signature; unknown when one agent does not know it.
fn weighted(parts: &[Part], figure: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
    let all: Option<Vec<f64>> = parts
        .iter()
        .map(|part| Some(figure(&part.report)? * part.report.ok as f64))
        .collect();
    let signatures: u64 = parts.iter().map(|part| part.report.ok).sum();
    (signatures > 0).then_some(all?.iter().sum::<f64>() / signatures as f64)
}

/// The server's CPU time was seen whole by every agent: the longest view of it, shared by all signatures.
fn server_cpu(parts: &[Part], ok: u64) -> Option<f64> {
    let whole: Option<Vec<f64>> = parts
        .iter()
        .map(|part| Some(part.report.server_cpu_us? * part.report.ok as f64))
        .collect();
    let most = whole?.into_iter().fold(0.0, f64::max);
    (ok > 0).then_some(most / ok as f64)
}

/// What the engine booked was seen whole by every agent; what was received adds up.
fn metered(parts: &[Part]) -> Option<Metered> {
    let all: Option<Vec<Metered>> = parts.iter().map(|part| part.report.metered).collect();
    let all = all?;
    Some(Metered {
        booked: all.iter().map(|metered| metered.booked).max()?,
        received: all.iter().map(|metered| metered.received).sum(),
    })
}

/// Writes the seconds of a sum as an interval log.
pub(crate) fn write_log(
    path: &Path,
    title: &str,
    report: &Report,
    seconds: &[Interval],
) -> Result<(), FileError> {
    let start = std::time::UNIX_EPOCH + std::time::Duration::from_millis(report.run.started_unix_ms);
    let mut log = HlogWriter::create(path, title, start)?;
    for interval in seconds {
        log.second(interval)?;
    }
    log.finish()
}
