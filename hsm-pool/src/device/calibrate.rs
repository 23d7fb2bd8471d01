//! Measuring a device: a closed loop at each depth, with processes of its own, and the probe key.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ckr::Class;
use super::process::{HANG, Process, ProcessEnd};
use super::unit::{ProbeKey, Unit};
use super::warden::probe_algorithm;
use super::wire::{FromWorker, Op, OpKey, ToWorker, to_frame};
use crate::calibration::{Calibration, DEPTHS, Point, find_knee};
use crate::job::{JobError, Work};

/// How long each depth is measured.
const MEASURE: Duration = Duration::from_millis(500);
/// A depth that has begun is given this long to end.
const DEPTH_MAX: u16 = DEPTHS[DEPTHS.len() - 1];

/// Tries every depth and finds the knee.
pub(crate) fn sweep<T: Work>(unit: &Unit<T>) -> Result<Calibration, JobError> {
    let key = unit.probe_key().ok_or(JobError::Unavailable)?;
    let processes = u16::try_from(unit.config.processes.max(1)).unwrap_or(u16::MAX);
    let sessions = DEPTH_MAX.div_ceil(processes);
    let started: Result<Vec<_>, _> = (0..processes).map(|_| unit.start_with(sessions)).collect();
    let mut crew = started.map_err(|end| failed(&end))?;
    let mut points = Vec::new();
    for depth in DEPTHS {
        let point = measure(&mut crew, &key, depth).map_err(|end| failed(&end))?;
        tracing::info!(
            device = &**unit.name(),
            depth,
            per_second = point.per_second,
            "calibration"
        );
        points.push(point);
    }
    find_knee(points).ok_or(JobError::Internal)
}

fn failed(end: &ProcessEnd) -> JobError {
    JobError::Device {
        text: end.to_string(),
        class: Class::Device,
    }
}

/// Keeps `depth` calls in flight for a while, spread over the processes.
fn measure(crew: &mut [Process], key: &ProbeKey, depth: u16) -> Result<Point, ProcessEnd> {
    let mut sent: Vec<VecDeque<Instant>> = crew.iter().map(|_| VecDeque::new()).collect();
    let begun = clock::monotonic();
    let places = crew.len();
    for number in 0..usize::from(depth) {
        let at = number % places;
        send_one(&mut crew[at], key)?;
        sent[at].push_back(clock::monotonic());
    }
    let mut times = Vec::new();
    let mut ended = begun;
    while sent.iter().any(|waiting| !waiting.is_empty()) {
        for at in ready(crew)? {
            crew[at].read(HANG)?;
            let now = clock::monotonic();
            for _ in 0..take_results(&mut crew[at])? {
                // Calls of one process come back about in order; over many, averages do not care.
                times.extend(sent[at].pop_front().map(|then| now - then));
                if now - begun < MEASURE {
                    send_one(&mut crew[at], key)?;
                    sent[at].push_back(now);
                }
            }
            ended = now;
        }
    }
    Ok(summary(depth, times, ended - begun))
}

fn summary(depth: u16, mut times: Vec<Duration>, long: Duration) -> Point {
    times.sort_unstable();
    let calls = times.len().max(1);
    let sum: Duration = times.iter().sum();
    Point {
        depth,
        per_second: times.len() as f64 / long.as_secs_f64().max(f64::EPSILON),
        average: sum / u32::try_from(calls).unwrap_or(u32::MAX),
        p99: times.get(calls * 99 / 100).copied().unwrap_or_default(),
    }
}

fn send_one(process: &mut Process, key: &ProbeKey) -> Result<(), ProcessEnd> {
    let op = Op {
        id: 0,
        algorithm: probe_algorithm(&key.public).wire(),
        input: &[7; 32],
        key: OpKey::Object(&key.object),
    };
    process.send(&to_frame(&ToWorker::Sign(vec![op])))
}

/// Results that have arrived; one that failed ends the measurement.
fn take_results(process: &mut Process) -> Result<usize, ProcessEnd> {
    let mut count = 0;
    while let Some(message) = process.next()? {
        let FromWorker::Signed(results) = message else {
            return Err(ProcessEnd::Unreadable);
        };
        if let Some(error) = results.iter().find_map(|signed| signed.error.as_ref()) {
            return Err(ProcessEnd::Setup(error.text.clone()));
        }
        count += results.len();
    }
    Ok(count)
}

/// The processes that have something to say.
fn ready(crew: &[Process]) -> Result<Vec<usize>, ProcessEnd> {
    let mut fds: Vec<_> = crew
        .iter()
        .map(|process| PollFd::new(process.socket(), PollFlags::IN))
        .collect();
    let patience = Timespec {
        tv_sec: HANG.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&patience)) {
        Ok(0) => Err(ProcessEnd::Hung),
        Err(error) if error != rustix::io::Errno::INTR => Err(ProcessEnd::Start(error.into())),
        _ => Ok((0..fds.len())
            .filter(|at| !fds[*at].revents().is_empty())
            .collect()),
    }
}
