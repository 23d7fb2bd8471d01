//! A recorded access log, to be sent again with its own timing. One JSON object a line:
//!
//! ```text
//! {"offset_ms": 12.5, "credential": "demo-p256", "algorithm": "ecdsa-p256-sha256", "items": 3}
//! ```
//!
//! `offset_ms` counts from the start of the log and never goes back; `items` (digests in the call, default 1),
//! `algorithm`, `format`, `transport` and `app` may be left out.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use protocol::algorithm::{Algorithm, Format};
use protocol::error_code::Refusal;
use serde::Deserialize;

use crate::args::{Common, TransportName};
use crate::files::FileError;
use crate::mix::{BATCH_MAX, Class, Mix, plain_class};
use crate::schedule::Recorded;

/// Requests of a log, at most: all of them are held in memory, 24 bytes each.
const REQUESTS_MAX: usize = 20_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    offset_ms: f64,
    credential: String,
    algorithm: Option<Algorithm>,
    format: Option<Format>,
    #[serde(default = "one")]
    items: u16,
    transport: Option<TransportName>,
    app: Option<String>,
}

const fn one() -> u16 {
    1
}

/// A line that cannot be replayed.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("offset_ms {0} is before the line above, or no time")]
    Time(f64),
    #[error("items {0} is not between 1 and {BATCH_MAX}")]
    Items(u16),
    #[error("no profile for app '{0}' was given")]
    App(String),
    #[error("the log has more than {REQUESTS_MAX} requests")]
    TooLong,
}

/// Reads a log; its classes are added to the mix. `speed` 2 replays it in half the time.
pub(crate) fn read(
    common: &Common,
    mix: &mut Mix,
    path: &Path,
    speed: f64,
) -> Result<Vec<Recorded>, Refusal> {
    let wrong = |line, error: LineError| FileError::Line {
        path: path.to_owned(),
        line,
        message: error.to_string(),
    };
    let read = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut log = Vec::new();
    let mut before = 0.0;
    for (number, line) in (1..).zip(BufReader::new(File::open(path).map_err(read)?).lines()) {
        let line = line.map_err(read)?;
        if line.trim().is_empty() {
            continue;
        }
        if log.len() == REQUESTS_MAX {
            return Err(wrong(number, LineError::TooLong).into());
        }
        let (at, class) = parse(common, mix, &line, before).map_err(|error| wrong(number, error))?;
        before = at;
        log.push(Recorded {
            at: Duration::from_secs_f64(at / 1000.0 / speed),
            class: mix.intern(class),
        });
    }
    if log.is_empty() {
        return Err(FileError::Content {
            path: path.to_owned(),
            message: "nothing to replay".into(),
        }
        .into());
    }
    Ok(log)
}

fn parse(common: &Common, mix: &Mix, text: &str, before: f64) -> Result<(f64, Class), LineError> {
    let line: Line = serde_json::from_str(text)?;
    if !(line.offset_ms >= before && line.offset_ms < 1e12) {
        return Err(LineError::Time(line.offset_ms));
    }
    if !(1..=BATCH_MAX).contains(&line.items) {
        return Err(LineError::Items(line.items));
    }
    let profile = match line.app {
        None => 0,
        Some(app) => mix
            .profiles
            .iter()
            .position(|profile| profile.app_id.as_str() == app)
            .ok_or(LineError::App(app))?,
    };
    // A line over both transports has no meaning: the log says which it was, or the first of the run's is taken.
    let transport = line.transport.unwrap_or(common.transport).each()[0];
    let class = Class {
        transport,
        algorithm: line.algorithm.or(common.algorithm),
        format: line.format.unwrap_or(common.format),
        batch: line.items,
        ..plain_class(common, profile, &line.credential)
    };
    Ok((line.offset_ms, class))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, speed: f64) -> Result<(Vec<Recorded>, Mix), Refusal> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, text).unwrap();
        let mut mix = Mix::of_profiles(&[]).unwrap();
        let log = read(&Common::for_tests(), &mut mix, &path, speed)?;
        Ok((log, mix))
    }

    #[test]
    fn a_log_keeps_its_times_and_its_kinds_of_request() {
        let text = r#"{"offset_ms": 0, "credential": "a"}
{"offset_ms": 10.5, "credential": "a", "items": 3}

{"offset_ms": 10.5, "credential": "a"}"#;
        let (log, mix) = read_text(text, 2.0).unwrap();
        assert_eq!(
            log.iter().map(|r| r.at.as_micros()).collect::<Vec<_>>(),
            [0, 5_250, 5_250]
        );
        assert_eq!(log.iter().map(|r| r.class).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(mix.classes[1].batch, 3);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = r#"{"offset_ms": 5, "credential": "a"}"#;
        for (bad, says) in [
            (r#"{"offset_ms": 4, "credential": "a"}"#, "offset_ms 4"),
            (r#"{"offset_ms": 6, "credential": "a", "items": 65}"#, "items 65"),
            (
                r#"{"offset_ms": 6, "credential": "a", "algorithm": "md5"}"#,
                "'md5'",
            ),
            (r#"{"offset_ms": 6, "credential": "a", "size": 1}"#, "size"),
            (r#"{"offset_ms": 6, "credential": "a", "app": "x"}"#, "app 'x'"),
            ("offset", "expected"),
        ] {
            let refusal = read_text(&format!("{good}\n{bad}\n"), 1.0).unwrap_err();
            let message = refusal.message.to_string();
            assert!(message.contains("line 2") && message.contains(says), "{message}");
        }
        assert!(
            read_text("\n", 1.0)
                .unwrap_err()
                .message
                .contains("nothing to replay")
        );
    }
}
