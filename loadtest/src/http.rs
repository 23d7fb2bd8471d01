//! `cinnabar-load http`: one query over and over on connections that stay open, each as soon as the one before it is
//! answered. For what is plain HTTP with a body that never changes: time stamps, OCSP, and other
//! servers to compare with. A closed loop measures what a
//! server can do, not how long its callers would wait; for that there are the other commands.
//!
//! One thread, one epoll set, no allocation on the way: on a machine that client and server share, what the client uses
//! is missing at the server.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};

use crate::args::Http;
use crate::server::Reading;

/// Longest head of an answer, and longest answer.
const HEAD_BYTES_MAX: usize = 8 << 10;
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Events that are taken at a time.
const EVENTS: usize = 64;
/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// How long nothing may come.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// An answer that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum AnswerError {
    #[error("not HTTP/1.1 with a Content-Length")]
    Malformed,
    #[error("an answer longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("status {0}")]
    Status(u16),
    #[error("an answer whose body does not have what it should begin with")]
    Unexpected,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Incomplete,
    /// So many bytes, with a body from here on.
    Complete {
        body: usize,
        end: usize,
    },
}

/// Reads as much of an answer as there is.
fn progress(bytes: &[u8]) -> Result<Progress, AnswerError> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = bytes.windows(END.len()).position(|window| window == END) else {
        return if bytes.len() > HEAD_BYTES_MAX {
            Err(AnswerError::TooLong)
        } else {
            Ok(Progress::Incomplete)
        };
    };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| AnswerError::Malformed)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
    let status: u16 = status.ok_or(AnswerError::Malformed)?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let length: usize = length.ok_or(AnswerError::Malformed)?;
    if status != 200 {
        return Err(AnswerError::Status(status));
    }
    let body = head + END.len();
    match body.checked_add(length) {
        Some(end) if end <= ANSWER_BYTES_MAX && bytes.len() >= end => Ok(Progress::Complete { body, end }),
        Some(end) if end <= ANSWER_BYTES_MAX => Ok(Progress::Incomplete),
        _ => Err(AnswerError::TooLong),
    }
}

/// A connection and the answer that is on its way.
struct Lane {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    asked: Instant,
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> Refusal + '_ {
    move |error| Refusal::new(Code::Usage, format!("{what}: {error}"))
}

impl Lane {
    fn open(address: SocketAddr) -> Result<Self, Refusal> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX).map_err(failed("connect"))?;
        stream.set_nodelay(true).map_err(failed("TCP_NODELAY"))?;
        stream.set_nonblocking(true).map_err(failed("a socket"))?;
        Ok(Self {
            stream,
            buffer: vec![0; 16 << 10],
            filled: 0,
            asked: clock::monotonic(),
        })
    }

    /// Queries are short and the one before is answered, so the socket has room for all of it.
    fn ask(&mut self, query: &[u8]) -> Result<(), Refusal> {
        self.filled = 0;
        self.asked = clock::monotonic();
        self.stream
            .write_all(query)
            .map_err(failed("a query could not be sent"))
    }

    /// Takes what has come. The body, if it is all there.
    fn take(&mut self) -> Result<Option<&[u8]>, Refusal> {
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(Refusal::new(Code::Internal, "the server has closed a connection")),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(failed("an answer could not be read")(error)),
            }
            let wrong = |error: AnswerError| Refusal::new(Code::Internal, error.to_string());
            match progress(&self.buffer[..self.filled]).map_err(wrong)? {
                Progress::Incomplete => {}
                Progress::Complete { body, end } if end == self.filled => {
                    return Ok(Some(&self.buffer[body..end]));
                }
                Progress::Complete { .. } => return Err(wrong(AnswerError::Malformed)),
            }
        }
    }
}

/// Asks until the time is over. The exit code.
pub(crate) fn run(arguments: &Http) -> Result<u8, Refusal> {
    if !arguments.address.ip().is_loopback() && !arguments.allow_target.contains(&arguments.address) {
        let text = format!(
            "{0} is not loopback; --allow-target {0} says that load is welcome there",
            arguments.address
        );
        return Err(Refusal::new(Code::Usage, text));
    }
    let query = query(arguments)?;
    let lanes = (0..arguments.connections.max(1)).map(|_| Lane::open(arguments.address));
    let mut lanes: Vec<Lane> = lanes.collect::<Result<_, _>>()?;
    let admins: Vec<SocketAddr> = arguments.admin.into_iter().collect();
    // What is slow only once is not what is measured.
    turn(&mut lanes, &query, &arguments.expect, arguments.warm_up)?;
    let before = Reading::take(&admins);
    let begun = clock::monotonic();
    let latencies = turn(&mut lanes, &query, &arguments.expect, arguments.duration)?;
    let seconds = clock::monotonic().saturating_duration_since(begun).as_secs_f64();
    let (server, client) = Reading::take(&admins).per_signature(&before, latencies.len());
    let report = show(&latencies, seconds, lanes.len(), (server, client));
    println!("{report}");
    Ok(0)
}

/// The query as it goes over the wire.
fn query(arguments: &Http) -> Result<Vec<u8>, Refusal> {
    let Http {
        address, path, kind, ..
    } = arguments;
    let fields: String = arguments
        .header
        .iter()
        .map(|line| format!("{line}\r\n"))
        .collect();
    let Some(file) = &arguments.body else {
        return Ok(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").into_bytes());
    };
    let body = std::fs::read(file)
        .map_err(|error| Refusal::new(Code::Usage, format!("{}: {error}", file.display())))?;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{fields}\r\n"
    );
    Ok([head.into_bytes(), body].concat())
}

/// Asks on all connections for a while; returns how long each answer took, in microseconds.
fn turn(
    lanes: &mut [Lane],
    query: &[u8],
    expected: &[u8],
    length: Duration,
) -> Result<Histogram<u64>, Refusal> {
    let system = |error: rustix::io::Errno| failed("epoll")(error.into());
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
    for (number, lane) in lanes.iter_mut().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&set, &lane.stream, data, epoll::EventFlags::IN).map_err(system)?;
        lane.ask(query)?;
    }
    let mut latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    let end = clock::monotonic() + length;
    let mut waiting = lanes.len();
    let mut events = [MaybeUninit::uninit(); EVENTS];
    let patience = Timespec {
        tv_sec: SILENCE_MAX.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    while waiting > 0 {
        let (ready, _) = epoll::wait(&set, &mut events, Some(&patience)).map_err(system)?;
        if ready.is_empty() {
            return Err(Refusal::new(Code::DeadlineExceeded, "no answer has come for 5 s"));
        }
        for event in ready.iter() {
            // Ours, and below their number.
            let lane = &mut lanes[event.data.u64() as usize];
            let Some(body) = lane.take()? else { continue };
            if !is_expected(body, expected) {
                return Err(Refusal::new(Code::Internal, AnswerError::Unexpected.to_string()));
            }
            let now = clock::monotonic();
            let took = now.saturating_duration_since(lane.asked).as_micros();
            latencies.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
            if now < end {
                lane.ask(query)?;
            } else {
                waiting -= 1;
            }
        }
    }
    Ok(latencies)
}

/// Whether the bytes are there within the first sixteen: after the lengths, which differ.
fn is_expected(body: &[u8], expected: &[u8]) -> bool {
    const WITHIN: usize = 16;
    let begin = &body[..body.len().min(WITHIN + expected.len())];
    expected.is_empty() || begin.windows(expected.len()).any(|window| window == expected)
}

fn show(
    latencies: &Histogram<u64>,
    seconds: f64,
    connections: usize,
    (server, client): (Option<f64>, Option<f64>),
) -> Value {
    let at = |quantile| latencies.value_at_quantile(quantile);
    json!({
        "answers": latencies.len(),
        "answers_per_second": latencies.len() as f64 / seconds,
        "connections": connections,
        "latency_us": { "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": latencies.max() },
        "server_cpu_us": server,
        "client_cpu_us": client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_has_come() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 0..answer.len() {
            assert_eq!(progress(&answer[..cut]), Ok(Progress::Incomplete), "{cut}");
        }
        let end = answer.len();
        assert_eq!(progress(answer), Ok(Progress::Complete { body: end - 3, end }));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let refused = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(progress(refused), Err(AnswerError::Status(429)));
        let endless = b"HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(progress(endless), Err(AnswerError::Malformed));
        let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
        assert_eq!(progress(huge), Err(AnswerError::TooLong));
        assert_eq!(progress(b"SSH-2.0\r\n\r\n"), Err(AnswerError::Malformed));
        assert_eq!(progress(&[b'x'; HEAD_BYTES_MAX + 1]), Err(AnswerError::TooLong));
    }

    #[test]
    fn a_body_begins_as_it_should() {
        let granted = [0x30, 0x82, 1, 2, 0x30, 3, 2, 1, 0, 0x30];
        assert!(is_expected(&granted, &[0x30, 3, 2, 1, 0]));
        assert!(!is_expected(&granted, &[0x30, 3, 2, 1, 2]));
        assert!(is_expected(&[], &[]) && !is_expected(&[], &[1]));
    }
}
