//! The warden of a device: a thread that probes it on a lane of its own, keeps a warm spare process (the one it probes
//! with), moves its limits once a second, and its size where load may.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use protocol::algorithm::Algorithm;
use protocol::clock;
use protocol::verify::PublicKey;

use super::life::Life;
use super::limiter::Second;
use super::process::{Process, ProcessEnd};
use super::unit::{ProbeKey, Unit};
use super::wire::{FromWorker, Op, OpKey, Order, Ordered, ToWorker, to_frame};
use crate::elastic::{Bounds, Load, Sizer};
use crate::job::Work;
use crate::pool::Inner;

/// A probe that takes longer has failed.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Making the probe key, in a device that has none yet.
const PROBE_KEY_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);
const ADAPT: Duration = Duration::from_secs(1);
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Warden<T> {
    pub(crate) inner: Arc<Inner<T>>,
    pub(crate) unit: Arc<Unit<T>>,
}

/// What the warden remembers between its looks.
struct Memory {
    sizer: Sizer,
    adapted: Instant,
    served: (u64, u64),
    spare_due: Instant,
    back_off: Duration,
}

impl<T: Work> Warden<T> {
    /// Runs until the device is taken away or the pool stops.
    pub(crate) fn run(self) {
        let now = clock::monotonic();
        let config = &self.unit.config;
        let mut memory = Memory {
            sizer: Sizer::new(Bounds {
                min: config.processes,
                max: config.processes_max,
            }),
            adapted: now,
            served: (0, 0),
            spare_due: now,
            back_off: BACK_OFF_MIN,
        };
        while !self.unit.is_stopping() {
            self.look(&mut memory);
            self.unit.wait_for_bell(LOOK);
        }
        self.unit.retire_spares();
    }

    fn look(&self, memory: &mut Memory) {
        let now = clock::monotonic();
        if self.unit.next_probe().is_some_and(|due| now >= due) {
            self.probe();
        }
        if !self.unit.has_spare() && !self.unit.state.is_latched() && now >= memory.spare_due {
            self.keep_spare(memory);
        }
        self.unit.publish(now);
        if now.saturating_duration_since(memory.adapted) >= ADAPT {
            self.adapt(now, memory);
        }
    }

    /// One probe signature, and what the device's life makes of it.
    fn probe(&self) {
        let state = &self.unit.state;
        let worked = match self.try_probe() {
            Ok(process) => {
                self.unit.put_spare(process);
                self.unit.rest_or_go_on(true, false);
                true
            }
            Err(end) => {
                if !state.is_latched() {
                    tracing::warn!(device = &*self.unit.config.name, reason = %end, "probe failed");
                }
                match end {
                    ProcessEnd::Lied => self.unit.live(Life::handle_lie),
                    ProcessEnd::Pin(_) => self.unit.live(Life::handle_pin_refused),
                    _ => false,
                };
                false
            }
        };
        let counter = if worked {
            &state.probes
        } else {
            &state.probes_failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut jitter = [0];
        // Without randomness there is no jitter, which is no reason not to probe.
        let _ = aws_lc_rs::rand::fill(&mut jitter);
        let closed = self
            .unit
            .live(|life, now| life.handle_probe(now, worked, jitter[0]));
        state.set_probed();
        // Jobs that came while nobody knew whether the device works must not wait for the next probe.
        if closed || !state.takes_jobs() && state.state() != super::life::State::Active {
            self.inner.reroute(&self.unit);
        }
    }

    /// A probe in the spare process; what it returns is the spare again.
    fn try_probe(&self) -> Result<Process, ProcessEnd> {
        let mut process = self.spare_or_new()?;
        let known = self.unit.probe_key().is_some();
        let key = self.probe_key(&mut process)?;
        if !known {
            // It may just have made the key, and a process of SoftHSM2 that has written to a token overlooks what others
            // write at about that time. Only processes that have written nothing serve.
            process.retire();
            process = self.unit.start_process()?;
        }
        sign_once(&mut process, &key)?;
        Ok(process)
    }

    fn spare_or_new(&self) -> Result<Process, ProcessEnd> {
        match self.unit.take_spare() {
            Some(process) => Ok(process),
            None => self.unit.start_process(),
        }
    }

    fn probe_key(&self, process: &mut Process) -> Result<ProbeKey, ProcessEnd> {
        if let Some(key) = self.unit.probe_key() {
            return Ok(key);
        }
        match process.order(Order::ProbeKey, PROBE_KEY_MAX)? {
            Ordered::Made {
                object, public_key, ..
            } => {
                let public = PublicKey::from_spki(&public_key).map_err(|_| ProcessEnd::Unreadable)?;
                let key = ProbeKey {
                    object,
                    public: Arc::new(public),
                };
                self.unit.set_probe_key(key.clone());
                Ok(key)
            }
            Ordered::Failed(error) => Err(ProcessEnd::Setup(format!("no probe key: {}", error.text))),
            _ => Err(ProcessEnd::Unreadable),
        }
    }

    fn keep_spare(&self, memory: &mut Memory) {
        match self.unit.start_process() {
            Ok(process) => {
                self.unit.put_spare(process);
                memory.back_off = BACK_OFF_MIN;
            }
            Err(_) => {
                memory.spare_due = clock::monotonic() + memory.back_off;
                memory.back_off = (memory.back_off * 2).min(BACK_OFF_MAX);
            }
        }
    }

    fn adapt(&self, now: Instant, memory: &mut Memory) {
        let served = self.unit.state.served();
        let calls = served.0 - memory.served.0;
        let us = (served.1 - memory.served.1) as f64;
        if calls > 0 {
            self.unit.adapt(Second {
                calls,
                average_us: us / calls as f64,
            });
        }
        let seconds = now.saturating_duration_since(memory.adapted).as_secs_f64();
        let places = f64::from(self.unit.state.limit.load(Ordering::Relaxed));
        let load = Load {
            size: self.unit.seats(),
            busy: us / 1e6 / seconds / places.max(1.0),
            wait: Duration::from_micros(self.unit.wait_us() as u64),
        };
        (memory.adapted, memory.served) = (now, served);
        if let Some(size) = memory.sizer.decide(now, load) {
            tracing::info!(
                device = &*self.unit.config.name,
                from = load.size,
                to = size,
                "device processes"
            );
            if let Err(error) = self.inner.scale_unit(&self.unit, size) {
                tracing::error!(%error, "a device's thread could not be started");
            }
        }
    }
}

/// The algorithm a probe key signs with.
pub(crate) fn probe_algorithm(key: &PublicKey) -> Algorithm {
    let all = key.kind().algorithms();
    *all.iter()
        .find(|algorithm| **algorithm != Algorithm::Sm2Sm3)
        .unwrap_or(&all[0])
}

/// One signature with the probe key, verified.
pub(crate) fn sign_once(process: &mut Process, key: &ProbeKey) -> Result<(), ProcessEnd> {
    let mut digest = [0; 32];
    aws_lc_rs::rand::fill(&mut digest).map_err(|_| ProcessEnd::Unreadable)?;
    let algorithm = probe_algorithm(&key.public);
    let op = Op {
        id: 0,
        algorithm: algorithm.wire(),
        input: &digest,
        key: OpKey::Object(&key.object),
    };
    process.send(&to_frame(&ToWorker::Sign(vec![op])))?;
    let signed = match process.receive(PROBE_MAX)? {
        FromWorker::Signed(mut results) => results.pop().ok_or(ProcessEnd::Unreadable)?,
        _ => return Err(ProcessEnd::Unreadable),
    };
    match signed.error {
        Some(error) if error.class == super::ckr::Class::Auth => Err(ProcessEnd::Pin(error.text)),
        Some(error) => Err(ProcessEnd::Setup(error.text)),
        None => key
            .public
            .verify(algorithm, &digest, &signed.signature)
            .map_err(|_| ProcessEnd::Lied),
    }
}
