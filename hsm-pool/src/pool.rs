//! The handle: routes a job to the software lanes or to a device, and never waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::Mutex;
use protocol::algorithm::KeyKind;

use crate::device::supervisor::{DeviceJob, Supervisor};
use crate::device::{DeviceConfig, DeviceKey, DeviceState};
use crate::job::{JobError, Sink, Work, cost_us};
use crate::keys::{KeySource, Keys};
use crate::lanes::{Lane, LaneCounters, Verify};

/// How big the pool is.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Software lanes: OS threads.
    pub lanes: usize,
    /// Jobs that may wait for the software lanes, and for each device.
    pub queue: usize,
    /// How long a job may have to wait for a software lane, in milliseconds, as far as can be told when it comes.
    pub queue_ms_max: u64,
    /// Which signatures of software lanes are verified before they leave.
    pub verify: Verify,
    /// Software keys kept ready.
    pub key_cache: usize,
    /// Devices.
    pub devices: Vec<DeviceConfig>,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full.
    #[error("the queue is full")]
    Full,
    /// The device is not configured, or no worker of it is up.
    #[error("the device is not available")]
    Unavailable,
}

struct Device<T> {
    jobs: Sender<DeviceJob<T>>,
    state: Arc<DeviceState>,
}

/// The pool.
pub struct Pool<T> {
    software: Sender<T>,
    waiting_us: Arc<AtomicU64>,
    waiting_us_max: u64,
    devices: HashMap<String, Device<T>>,
    counters: Arc<LaneCounters>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<T> std::fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("waiting", &self.software.len())
            .finish_non_exhaustive()
    }
}

impl<T: Work> Pool<T> {
    /// Starts the lanes and a supervisor for each worker process.
    pub fn start(
        config: PoolConfig,
        source: Arc<dyn KeySource>,
        sink: &Arc<dyn Sink<T>>,
    ) -> std::io::Result<Self> {
        let keys = Arc::new(Keys::new(source, config.key_cache));
        let counters = Arc::new(LaneCounters::default());
        let waiting_us = Arc::new(AtomicU64::new(0));
        let lanes = config.lanes.max(1);
        let mut threads = Vec::new();
        let (software, jobs) = bounded(config.queue);
        for number in 0..lanes {
            let lane = Lane {
                jobs: jobs.clone(),
                keys: Arc::clone(&keys),
                sink: Arc::clone(sink),
                verify: config.verify,
                counters: Arc::clone(&counters),
                waiting_us: Arc::clone(&waiting_us),
            };
            threads.push(spawn(format!("lane-{number}"), move || lane.run())?);
        }
        let mut devices = HashMap::new();
        for device in config.devices {
            let (name, device) = start_device(device, config.queue, &keys, sink, &mut threads)?;
            devices.insert(name, device);
        }
        let waiting_us_max = config.queue_ms_max * 1000 * lanes as u64;
        Ok(Self {
            software,
            waiting_us,
            waiting_us_max,
            devices,
            counters,
            threads: Mutex::new(threads),
        })
    }

    /// Hands over a job for the software lanes, or gives it back when the wait would be too long.
    pub fn submit_software(&self, work: T) -> Result<(), (T, SubmitError)> {
        let cost = cost_us(work.kind());
        let before = self.waiting_us.fetch_add(cost, Ordering::Relaxed);
        let result = if before > self.waiting_us_max {
            Err(work)
        } else {
            self.software.try_send(work).map_err(TrySendError::into_inner)
        };
        result.map_err(|work| {
            self.waiting_us.fetch_sub(cost, Ordering::Relaxed);
            (work, SubmitError::Full)
        })
    }

    /// Hands over a job for a device, or gives it back.
    pub fn submit_device(&self, device: &str, work: T) -> Result<(), (T, SubmitError)> {
        let Some(device) = self
            .devices
            .get(device)
            .filter(|device| device.state.takes_jobs())
        else {
            return Err((work, SubmitError::Unavailable));
        };
        device
            .jobs
            .try_send(DeviceJob::Sign(work))
            .map_err(|error| match error {
                TrySendError::Full(DeviceJob::Sign(work)) => (work, SubmitError::Full),
                TrySendError::Disconnected(DeviceJob::Sign(work)) => (work, SubmitError::Unavailable),
                _ => unreachable!("a Sign job was sent, so a Sign job comes back"),
            })
    }

    /// Makes a key pair in a device. Waits: for operators, not for request paths.
    pub fn generate(&self, device: &str, kind: KeyKind, label: &str) -> Result<DeviceKey, JobError> {
        let device = self.devices.get(device).ok_or(JobError::Unavailable)?;
        let (reply, answer) = bounded(1);
        let job = DeviceJob::Generate {
            kind,
            label: label.to_owned(),
            reply,
        };
        device.jobs.send(job).map_err(|_| JobError::Unavailable)?;
        answer.recv().map_err(|_| JobError::Unavailable)?
    }

    /// Jobs waiting for the software lanes.
    pub fn waiting(&self) -> usize {
        self.software.len()
    }

    /// Counters of the software lanes.
    pub fn counters(&self) -> &LaneCounters {
        &self.counters
    }

    /// The devices by name, with how they are doing and what waits for them.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &DeviceState, usize)> {
        self.devices
            .iter()
            .map(|(name, device)| (name.as_str(), &*device.state, device.jobs.len()))
    }

    /// Lets go of the queues and waits until the lanes have finished what was in them.
    pub fn stop(self) {
        let Self {
            software,
            devices,
            threads,
            ..
        } = self;
        drop((software, devices));
        for thread in threads.into_inner() {
            if thread.join().is_err() {
                tracing::error!("a lane's thread panicked");
            }
        }
    }
}

fn start_device<T: Work>(
    config: DeviceConfig,
    queue: usize,
    keys: &Arc<Keys>,
    sink: &Arc<dyn Sink<T>>,
    threads: &mut Vec<JoinHandle<()>>,
) -> std::io::Result<(String, Device<T>)> {
    let config = Arc::new(config);
    let state = Arc::new(DeviceState::starting());
    let (sender, jobs) = bounded(queue);
    for number in 0..config.processes.max(1) {
        let supervisor = Supervisor {
            config: Arc::clone(&config),
            state: Arc::clone(&state),
            jobs: jobs.clone(),
            keys: Arc::clone(keys),
            sink: Arc::clone(sink),
        };
        threads.push(spawn(format!("dev-{}-{number}", config.name), move || {
            supervisor.run();
        })?);
    }
    Ok((config.name.clone(), Device { jobs: sender, state }))
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(run)
}
