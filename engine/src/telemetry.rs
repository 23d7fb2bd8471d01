//! Logs: to standard error, and as JSON into a file for each day (`logs/DATE.jsonl` in the data folder, UTC), through
//! `tracing`. No secret, digest or personal data is ever handed to it.

use std::os::unix::fs::DirBuilderExt;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use serde::{Deserialize, Serialize};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// An object a line, for whatever collects logs.
    Json,
}

/// Starts logging with a filter such as `info` or `engine=debug,store=info`. Files are kept for so many days in a data
/// folder; none are written where that is zero.
pub(crate) fn start(filter: &str, format: LogFormat, home: &Path, days: usize) -> Result<(), Refusal> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Panics are logged whatever else is.
    let filter = match format!("{PANIC}=error").parse() {
        Ok(panics) => filter.add_directive(panics),
        Err(_) => filter,
    };
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = match format {
        // People read there what the library says of a panic.
        LogFormat::Text => log.with_filter(filter_fn(|line| line.target() != PANIC)).boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    let files = (days > 0).then(|| files(home, days)).transpose()?;
    match format {
        LogFormat::Json => std::panic::set_hook(Box::new(log_panic)),
        LogFormat::Text if files.is_some() => {
            let say = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                say(panic);
                log_panic(panic);
            }));
        }
        LogFormat::Text => {}
    }
    let files = files.map(|files| fmt::layer().json().with_writer(aside(files)));
    let registry = tracing_subscriber::registry().with(filter).with(log).with(files);
    // A second start in one process (tests) keeps the first.
    let _ = registry.try_init();
    Ok(())
}

/// What the lines about panics are filed under.
const PANIC: &str = concat!(module_path!(), "::panic");

/// Whoever writes the files.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Lets a thread of its own write the files: whoever logs does not wait for the disk, and lines that it does not keep up
/// with are lost.
fn aside(files: RollingFileAppender) -> NonBlocking {
    let (lines, guard) = tracing_appender::non_blocking(files);
    *WRITER.lock() = Some(guard);
    lines
}

/// Writes what waits, before the process ends.
pub(crate) fn stop() {
    drop(WRITER.lock().take());
}

fn folder(home: &Path) -> PathBuf {
    home.join("logs")
}

fn files(home: &Path, days: usize) -> Result<RollingFileAppender, Refusal> {
    let folder = folder(home);
    let builder = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_suffix("jsonl")
        .max_log_files(days);
    let failed =
        |error: &dyn std::fmt::Display| Refusal::new(Code::File, format!("{}: {error}", folder.display()));
    // The library complains on standard error about a folder that is not there yet, and would make the data folder
    // readable for all.
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(&folder).map_err(|error| failed(&error))?;
    builder.build(&folder).map_err(|error| failed(&error))
}

/// The files that are kept, the oldest first.
pub(crate) fn log_files(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(home)).into_iter().flatten().flatten();
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_log).collect();
    files.sort();
    files
}

/// When a line was logged.
pub(crate) fn moment_of(line: &str) -> Option<UnixMillis> {
    #[derive(Deserialize)]
    struct Line<'l> {
        timestamp: &'l str,
    }
    let line: Line<'_> = serde_json::from_str(line).ok()?;
    let at: Timestamp = line.timestamp.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(UnixMillis)
}

/// A panic is a line like any other.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("of another kind");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(target: PANIC, place, "panic: {what}");
}
