//! What can be seen of the server from its metrics, where the profile says where they are: CPU time, and whether its capacity
//! was being extended. And this tool's own CPU time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const PATIENCE: Duration = Duration::from_secs(1);
/// Metrics are some tens of kilobytes.
const METRICS_BYTES_MAX: u64 = 4 << 20;

/// Seconds so far.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// CPU seconds of each server whose metrics can be read; `None` where one cannot.
    server: Option<f64>,
    own: f64,
    /// Seconds in which the capacity of a server was being extended.
    extending: Option<f64>,
}

impl Reading {
    /// Reads all of them.
    pub(crate) fn take(admins: &[SocketAddr]) -> Self {
        let texts: Option<Vec<String>> = admins.iter().map(|admin| fetch(*admin).ok()).collect();
        let texts = texts.filter(|all| !all.is_empty());
        let sum = |sample: &str| {
            let values: Option<Vec<f64>> = texts.as_ref()?.iter().map(|text| value(text, sample)).collect();
            Some(values?.iter().sum())
        };
        Self {
            server: sum("process_cpu_seconds_total"),
            extending: sum("cinnabar_capacity_extending_seconds_total"),
            own: own_cpu_seconds(),
        }
    }

    /// Microseconds for each signature since an earlier reading: the server's, and ours.
    pub(crate) fn per_signature(&self, before: &Self, signatures: u64) -> (Option<f64>, Option<f64>) {
        if signatures == 0 {
            return (None, None);
        }
        let each = |seconds: f64| seconds * 1e6 / signatures as f64;
        let server = self
            .server
            .zip(before.server)
            .map(|(after, before)| each(after - before));
        (server, Some(each(self.own - before.own)))
    }

    /// Seconds since an earlier reading in which capacity was being extended.
    pub(crate) fn extending_since(&self, before: &Self) -> Option<f64> {
        let (after, before) = self.extending.zip(before.extending)?;
        Some((after - before).max(0.0))
    }
}

/// CPU seconds of this process (`clock_gettime(2)`, CLOCK_PROCESS_CPUTIME_ID).
fn own_cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// One sample without labels.
fn value(text: &str, sample: &str) -> Option<f64> {
    let rest = |line: &'_ str| line.strip_prefix(sample)?.strip_prefix(' ').map(str::to_owned);
    text.lines()
        .find_map(rest)?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn fetch(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.take(METRICS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_by_its_whole_name() {
        let text = "# TYPE a counter\nab_total 1\na_total 2.5\na_total_more 3\n";
        assert_eq!(value(text, "a_total"), Some(2.5));
        assert_eq!(value(text, "b_total"), None);
    }

    #[test]
    fn extension_is_what_was_added_and_unknown_where_it_cannot_be_seen() {
        let reading = |extending| Reading {
            server: None,
            own: 0.0,
            extending,
        };
        let before = reading(Some(2.0));
        assert_eq!(reading(Some(5.0)).extending_since(&before), Some(3.0));
        assert_eq!(
            reading(Some(0.0)).extending_since(&before),
            Some(0.0),
            "it was restarted"
        );
        assert_eq!(reading(None).extending_since(&before), None);
    }
}
