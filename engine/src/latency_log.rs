//! The thread that brings latencies together once a second, and writes them down every ten: `latency/DATE.hlog` in the
//! data folder, a file for each day of Asia/Shanghai, as HdrHistogram's tools read it. The oldest go when there are too many.
//!
//! What cannot be written is said once and forgotten: a full disk must not cost the engine its memory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use actors::latency::{Recorded, Series};
use actors::services::Services;
use protocol::clock::{self, UnixMillis};
use protocol::latency::{LogError, LogWriter};
use protocol::stages::Stage;
use sla::calendar::MinuteIndex;

use crate::traces::Traces;

const BEAT: Duration = Duration::from_secs(1);
/// Beats in one interval of the log.
const WRITE_EVERY: u32 = 10;
const COMMENTS: [&str; 2] = [
    concat!("cinnabar ", env!("CARGO_PKG_VERSION")),
    "microseconds; no tag: all requests; OPERATION.TRANSPORT.ALGORITHM.OUTCOME; stage.NAME of signing calls",
];

/// The running thread.
#[derive(Debug)]
pub(crate) struct LatencyKeeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl LatencyKeeper {
    /// Starts it. `days`: how many files are kept; none are written when that is zero.
    pub(crate) fn start(
        services: Arc<Services>,
        home: &Path,
        days: usize,
        traces: Option<Traces>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let log = Log::new(home.join("latency"), days, clock::wall());
        let thread = std::thread::Builder::new()
            .name("latency".into())
            .spawn(move || keep(&services, log, traces.as_ref(), &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Writes what there is, and ends.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // It only adds up; if it has panicked there is nothing left to write.
        let _ = self.thread.join();
    }
}

fn keep(services: &Services, mut log: Log, traces: Option<&Traces>, stop: &AtomicBool) {
    let mut beats = 0;
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let now = clock::wall();
        let second = services.collect_latency(now);
        log.add(&second);
        if let Some(traces) = traces {
            traces.offer(&second);
        }
        beats += 1;
        if stopping || beats % WRITE_EVERY == 0 {
            log.write(now);
        }
        if stopping {
            return;
        }
        std::thread::park_timeout(BEAT);
    }
}

/// The log files.
struct Log {
    folder: PathBuf,
    days: usize,
    open: Option<(PathBuf, LogWriter)>,
    interval: Recorded,
    since: UnixMillis,
    failed: bool,
}

impl Log {
    fn new(folder: PathBuf, days: usize, now: UnixMillis) -> Self {
        Self {
            folder,
            days,
            open: None,
            interval: Recorded::default(),
            since: now,
            failed: false,
        }
    }

    fn add(&mut self, second: &Recorded) {
        if self.days > 0 {
            self.interval.merge(second);
        }
    }

    /// Writes the interval that ends now.
    fn write(&mut self, now: UnixMillis) {
        let interval = std::mem::take(&mut self.interval);
        let since = std::mem::replace(&mut self.since, now);
        if interval.is_empty() {
            return;
        }
        match self.try_write(&interval, since, now) {
            Ok(()) => self.failed = false,
            Err(error) => {
                self.open = None;
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(%error, "latencies are not written down");
                }
            }
        }
    }

    fn try_write(&mut self, interval: &Recorded, since: UnixMillis, now: UnixMillis) -> Result<(), LogError> {
        let (name, midnight) = day(since);
        let path = self.folder.join(name);
        if self.open.as_ref().is_none_or(|(open, _)| *open != path) {
            std::fs::create_dir_all(&self.folder).map_err(|source| LogError {
                path: self.folder.clone(),
                source,
            })?;
            let log = LogWriter::resume(&path, &COMMENTS, midnight.system_time())?;
            self.open = Some((path, log));
            remove_oldest(&self.folder, self.days);
        }
        let Some((_, log)) = &mut self.open else {
            return Ok(());
        };
        let ms = |from: UnixMillis, to: UnixMillis| Duration::from_millis(to.0.saturating_sub(from.0));
        let (at, length) = (ms(midnight, since), ms(since, now));
        log.write(&interval.total(|_| true).histogram, at, length, None)?;
        for (series, distribution) in interval.series() {
            if distribution.count() > 0 {
                log.write(&distribution.histogram, at, length, Some(&tag(series)))?;
            }
        }
        for stage in Stage::ALL {
            let distribution = interval.stage(stage);
            if distribution.count() > 0 {
                let tag = format!("stage.{}", stage.name());
                log.write(&distribution.histogram, at, length, Some(&tag))?;
            }
        }
        log.flush()
    }
}

fn tag(series: &Series) -> String {
    let parts = [
        series.operation.name(),
        series.transport.name(),
        series.algorithm_name(),
        series.ending.name(),
    ];
    parts.join(".")
}

/// The file of a moment's day, and when that day began.
fn day(at: UnixMillis) -> (String, UnixMillis) {
    let minute = MinuteIndex::of_unix_seconds(at.seconds());
    let civil = minute.civil();
    let into = u32::from(civil.hour().unsigned_abs()) * 60 + u32::from(civil.minute().unsigned_abs());
    let midnight = u64::from(minute.number().saturating_sub(into)) * 60_000;
    (format!("{}.hlog", civil.date()), UnixMillis(midnight))
}

/// Removes the files of the earliest days. One that cannot be removed now is tried again the next day.
fn remove_oldest(folder: &Path, days: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "hlog");
    let paths = entries.flatten().map(|entry| entry.path()).filter(is_log);
    let all: BTreeSet<PathBuf> = paths.collect();
    for path in all.iter().take(all.len().saturating_sub(days)) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use actors::latency::{Ending, Operation, Transport};
    use protocol::algorithm::Algorithm;

    use super::*;

    const SERIES: Series = Series {
        operation: Operation::Sign,
        transport: Transport::Quic,
        algorithm: Some(Algorithm::Ed25519),
        ending: Ending::Ok,
    };

    #[test]
    fn a_day_begins_at_midnight_in_shanghai() {
        // 2026-11-23T16:00:00Z is midnight there.
        let midnight = UnixMillis(1_795_449_600_000);
        assert_eq!(day(midnight), ("2026-11-24.hlog".to_owned(), midnight));
        let later = UnixMillis(midnight.0 + 86_399_999);
        assert_eq!(day(later), ("2026-11-24.hlog".to_owned(), midnight));
        assert_eq!(day(UnixMillis(midnight.0 - 1)).0, "2026-11-23.hlog");
    }

    #[test]
    fn days_have_files_of_their_own_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let start = 1_795_449_600_000;
        let mut log = Log::new(folder.path().join("latency"), 2, UnixMillis(start));
        for day in 0..4 {
            let now = UnixMillis(start + day * 86_400_000 + 10_000);
            log.since = UnixMillis(now.0 - 10_000);
            let mut second = Recorded::default();
            second.record(SERIES, Duration::from_millis(7));
            log.add(&second);
            log.write(now);
            log.write(UnixMillis(now.0 + 10_000));
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path().join("latency"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["2026-11-26.hlog", "2026-11-27.hlog"]);
        let text = std::fs::read_to_string(folder.path().join("latency/2026-11-27.hlog")).unwrap();
        assert!(
            text.contains("\nTag=sign.quic.ed25519.ok,0.000,10.000,"),
            "{text}"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_nothing_but_the_log() {
        let mut log = Log::new("/proc/nowhere".into(), 2, UnixMillis(0));
        let mut second = Recorded::default();
        second.record(SERIES, Duration::from_millis(7));
        log.add(&second);
        log.write(UnixMillis(10_000));
        assert!(log.failed && log.interval.is_empty());
    }
}
