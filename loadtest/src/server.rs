//! CPU time: the server's, read from its metrics where the profile says where they are, and this tool's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const PATIENCE: Duration = Duration::from_secs(1);
/// Metrics are some tens of kilobytes.
const METRICS_BYTES_MAX: u64 = 4 << 20;

/// CPU seconds used so far.
#[derive(Clone, Debug)]
pub(crate) struct CpuReading {
    /// Of each server whose metrics can be read; `None` where one cannot.
    server: Option<f64>,
    own: f64,
}

impl CpuReading {
    /// Reads all of them.
    pub(crate) fn take(admins: &[SocketAddr]) -> Self {
        let seconds: Option<Vec<f64>> = admins.iter().map(|admin| cpu_seconds(*admin)).collect();
        Self {
            server: seconds.filter(|all| !all.is_empty()).map(|all| all.iter().sum()),
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
}

/// CPU seconds of this process (`clock_gettime(2)`, CLOCK_PROCESS_CPUTIME_ID).
fn own_cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// CPU seconds the engine's process has used, if they can be read.
fn cpu_seconds(admin: SocketAddr) -> Option<f64> {
    let text = fetch(admin).ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("process_cpu_seconds_total "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn fetch(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.take(METRICS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
