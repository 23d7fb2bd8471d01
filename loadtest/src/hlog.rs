//! `.hlog`: the interval log of HdrHistogram (V2, compressed), lossless, that its tools in every language read. Three
//! histograms a second, in microseconds: latency without a tag, and tagged `service` and `lag`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use protocol::latency::LogWriter;

use crate::files::{self, FileError};
use crate::report::unpack;
use crate::tally::{Interval, add};

const SECOND: Duration = Duration::from_secs(1);

/// A log being written, second by second, so that a long run needs no memory for it.
pub(crate) struct HlogWriter(LogWriter);

impl HlogWriter {
    /// Begins a log whose times count from `start`.
    pub(crate) fn create(path: &Path, title: &str, start: SystemTime) -> Result<Self, FileError> {
        let comments = [
            &format!("cinnabar-load {}: {title}", env!("CARGO_PKG_VERSION"))[..],
            "microseconds; no tag: latency from the intended time; service: from leaving; lag: until leaving",
        ];
        Ok(Self(LogWriter::create(path, &comments, start)?))
    }

    /// Adds one second.
    pub(crate) fn second(&mut self, interval: &Interval) -> Result<(), FileError> {
        let at = SECOND * u32::try_from(interval.second).unwrap_or(u32::MAX);
        self.0.write(&interval.latency, at, SECOND, None)?;
        self.0.write(&interval.service, at, SECOND, Some("service"))?;
        Ok(self.0.write(&interval.lag, at, SECOND, Some("lag"))?)
    }

    /// Writes what is still in memory.
    pub(crate) fn finish(mut self) -> Result<(), FileError> {
        Ok(self.0.flush()?)
    }
}

/// Reads a log that this tool wrote: its seconds, in order.
pub(crate) fn read(path: &Path) -> Result<Vec<Interval>, FileError> {
    let text = files::read(path)?;
    let content = |message: String| FileError::Content {
        path: path.to_owned(),
        message,
    };
    let mut seconds: BTreeMap<u64, Interval> = BTreeMap::new();
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        let LogEntry::Interval(entry) =
            entry.map_err(|error| content(format!("not an interval log: {error:?}")))?
        else {
            continue;
        };
        let histogram = unpack(entry.encoded_histogram()).map_err(|error| content(error.to_string()))?;
        let second = entry.start_timestamp().as_secs_f64().round() as u64;
        let interval = seconds.entry(second).or_insert_with(|| Interval::new(second));
        let series = match entry.tag().map(|tag| tag.as_str()) {
            None => &mut interval.latency,
            Some("service") => &mut interval.service,
            Some("lag") => &mut interval.lag,
            Some(tag) => return Err(content(format!("unknown tag '{tag}'"))),
        };
        add(series, &histogram);
    }
    Ok(seconds.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gives_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.hlog");
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut log = HlogWriter::create(&path, "a test", start).unwrap();
        let mut written = Vec::new();
        for second in [0, 1, 5] {
            let mut interval = Interval::new(second);
            for value in 1..=1_000 {
                interval.latency.record(value * 37 * (second + 1)).unwrap();
                interval.lag.record(value).unwrap();
            }
            log.second(&interval).unwrap();
            written.push(interval);
        }
        log.finish().unwrap();
        let read = read(&path).unwrap();
        assert_eq!(
            read.iter().map(|interval| interval.second).collect::<Vec<_>>(),
            [0, 1, 5]
        );
        for (read, written) in read.iter().zip(&written) {
            assert_eq!((&read.latency, &read.lag), (&written.latency, &written.lag));
            assert_eq!(read.service.len(), 0);
        }
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.hlog");
        for text in ["Tag=other,0.0,1.0,2.0,HISTFAAAAB\n", "0.0,1.0,2.0,%%%\n", "{}\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(FileError::Content { .. })), "{text}");
        }
    }
}
