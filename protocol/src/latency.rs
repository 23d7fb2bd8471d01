//! Latencies as histograms, and the log that HdrHistogram's tools in every language read (`.hlog`, V2, compressed):
//! the form in which engine and load tool keep them, so that one's can be held against the other's.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

/// Latencies in microseconds.
pub type Latencies = Histogram<u64>;

/// Microseconds a histogram holds; a minute is far beyond any promise, and what is longer counts as a minute.
pub const HIGHEST_US: u64 = 60_000_000;

/// A histogram of three exact digits; 139 KB.
pub fn histogram() -> Latencies {
    of_digits(3)
}

/// A histogram of two exact digits, 20 KB.
pub fn small_histogram() -> Latencies {
    of_digits(2)
}

fn of_digits(digits: u8) -> Latencies {
    Histogram::new_with_bounds(1, HIGHEST_US, digits).expect("bounds and precision are valid")
}

/// A duration in microseconds, at least one.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Adds one histogram to another of the same bounds.
pub fn add(to: &mut Latencies, from: &Latencies) {
    to.add(from).expect("histograms of one kind have the same bounds");
}

/// Bytes that are not a histogram.
#[derive(Debug, thiserror::Error)]
#[error("these bytes are no histogram of latencies")]
pub struct DecodeError;

/// A histogram as HdrHistogram's V2 format has it, compressed; it holds what was recorded and is as small as that.
pub fn encode(histogram: &Latencies) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    written.expect("a vector takes whatever is written to it");
    bytes
}

/// Reads what [`encode`] has written. One of other bounds is none of ours.
pub fn decode(bytes: &[u8]) -> Result<Latencies, DecodeError> {
    let mut bytes = bytes;
    let histogram: Latencies = Deserializer::new()
        .deserialize(&mut bytes)
        .map_err(|_| DecodeError)?;
    if bytes.is_empty() && histogram.high() <= HIGHEST_US {
        Ok(histogram)
    } else {
        Err(DecodeError)
    }
}

/// A log that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

/// A log being written, interval by interval, so that a long one needs no memory.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: BufWriter<File>,
    serializer: Serializer,
}

/// The foreign one does not say what it is.
struct Serializer(V2DeflateSerializer);

impl std::fmt::Debug for Serializer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("V2DeflateSerializer")
    }
}

fn wrong(path: &Path) -> impl Fn(std::io::Error) -> LogError + '_ {
    move |source| LogError {
        path: path.to_owned(),
        source,
    }
}

impl LogWriter {
    /// Begins a log whose times count from `start`.
    pub fn create(path: &Path, comments: &[&str], start: SystemTime) -> Result<Self, LogError> {
        let mut log = Self::over(path, File::create(path).map_err(wrong(path))?);
        let mut header = IntervalLogWriterBuilder::new();
        for comment in comments {
            header.add_comment(comment);
        }
        header.add_comment("[Histogram log format version 1.3]");
        header
            .with_start_time(start)
            .with_base_time(start)
            .begin_log_with(&mut log.file, &mut log.serializer.0)
            .map(|_| ())
            .map_err(wrong(path))?;
        Ok(log)
    }

    /// Goes on with a log of the same start, or begins it. A line that a crash has cut short is taken away.
    pub fn resume(path: &Path, comments: &[&str], start: SystemTime) -> Result<Self, LogError> {
        let failed = wrong(path);
        if !path.exists() {
            return Self::create(path, comments, start);
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(&failed)?;
        match whole_lines(&mut file).map_err(&failed)? {
            0 => return Self::create(path, comments, start),
            length => file.set_len(length).map_err(&failed)?,
        }
        file.seek(SeekFrom::End(0)).map_err(&failed)?;
        Ok(Self::over(path, file))
    }

    fn over(path: &Path, file: File) -> Self {
        Self {
            file: BufWriter::new(file),
            path: path.to_owned(),
            serializer: Serializer(V2DeflateSerializer::new()),
        }
    }

    /// Adds the histogram of an interval that began `at` after the start. A tag has neither commas nor spaces.
    pub fn write(
        &mut self,
        histogram: &Latencies,
        at: Duration,
        length: Duration,
        tag: Option<&str>,
    ) -> Result<(), LogError> {
        let mut write = || -> Result<(), IntervalLogWriterError<_>> {
            let mut log =
                IntervalLogWriterBuilder::new().begin_log_with(&mut self.file, &mut self.serializer.0)?;
            log.write_histogram(histogram, at, length, tag.and_then(Tag::new))
        };
        write().map_err(|error| match error {
            IntervalLogWriterError::IoError(source) => wrong(&self.path)(source),
            IntervalLogWriterError::SerializeError(error) => {
                wrong(&self.path)(std::io::Error::other(format!("{error}")))
            }
        })
    }

    /// Hands what is in memory to the system.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.file.flush().map_err(wrong(&self.path))
    }
}

/// The length of a file up to the end of its last whole line.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    const LINE_MAX: u64 = 1 << 20;
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(LINE_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let last = end.iter().rposition(|byte| *byte == b'\n');
    Ok(last.map_or(0, |at| from + at as u64 + 1))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    fn entries(path: &Path) -> Vec<(Option<String>, Duration, String)> {
        let bytes = std::fs::read(path).unwrap();
        let entry = |entry| match entry {
            Ok(LogEntry::Interval(one)) => Some((
                one.tag().map(|tag| tag.as_str().to_owned()),
                one.start_timestamp(),
                one.encoded_histogram().to_owned(),
            )),
            Ok(_) => None,
            Err(error) => panic!("{error:?}"),
        };
        IntervalLogIterator::new(&bytes).filter_map(entry).collect()
    }

    #[test]
    fn a_log_goes_on_after_a_crash_without_the_line_that_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day.hlog");
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut some = histogram();
        some.record(150_000).unwrap();
        let second = Duration::from_secs(1);
        for at in [3, 4] {
            let mut log = LogWriter::resume(&path, &["a test"], start).unwrap();
            log.write(&some, second * at, second, Some("sign.quic")).unwrap();
            log.flush().unwrap();
            drop(log);
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"Tag=cut,9.0,1.0,1").unwrap();
        }
        drop(LogWriter::resume(&path, &["a test"], start).unwrap());
        let found = entries(&path);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0.as_deref(), Some("sign.quic"));
        assert_eq!((found[0].1, found[1].1), (second * 3, second * 4));
        let header = std::fs::read_to_string(&path).unwrap();
        assert_eq!(header.matches("StartTime").count(), 1, "{header}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = LogWriter::create(Path::new("/nowhere/x.hlog"), &[], SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/x.hlog: "), "{error}");
    }
}
