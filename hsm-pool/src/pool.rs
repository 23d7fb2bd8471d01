//! The handle: routes a job to the software lanes or to the least loaded device that holds its key, and never waits.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use protocol::algorithm::{Algorithm, InputKind, KeyKind};
use protocol::clock;
use protocol::ids::KeyRow;
use protocol::verify::PublicKey;

use crate::budget::RetryBudget;
use crate::calibration::Calibration;
use crate::device::life::Life;
use crate::device::rest::Appetite;
use crate::device::seat::{Bell, Seat};
use crate::device::unit::{Queued, Unit};
use crate::device::warden::{Warden, probe_algorithm};
use crate::device::wire::{Order, Ordered};
use crate::device::{DeviceConfig, DeviceKey, DeviceObject, DeviceState, Kek, calibrate, ckr};
use crate::elastic::Bounds;
use crate::growth::Growth;
use crate::job::{Finished, Home, JobError, Sink, Work};
use crate::keys::{KeySource, Keys, WrappedKey};
use crate::lanes::{LaneCounters, Lanes, Verify};
use crate::multi::Multi;
use crate::queue::Offered;

/// How big the pool is.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Software lanes: OS threads. Load moves their number between these bounds, beginning with the first.
    pub lanes: Bounds,
    /// Jobs that may wait for the software lanes, and for each device.
    pub queue: usize,
    /// How long a job may have to wait, in milliseconds, as far as can be told when it comes.
    pub queue_ms_max: u64,
    /// Which signatures of software lanes are verified before they leave.
    pub verify: Verify,
    /// What signs eight at a time on software lanes, if there is something.
    pub multi: Option<Arc<Multi>>,
    /// Keys kept ready.
    pub key_cache: usize,
    /// Devices.
    pub devices: Vec<DeviceConfig>,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full, the wait would be too long, or every device that holds the key is busy.
    #[error("the queue is full")]
    Full,
    /// No device that holds the key works.
    #[error("no device that holds the key is available")]
    Unavailable,
}

/// Why a device could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device.
    #[error("no device '{0}'")]
    Unknown(String),
    /// Another device has this name.
    #[error("there is a device '{0}' already")]
    Exists(String),
    /// It is in a state in which this cannot be done.
    #[error("device '{0}' is {1}")]
    State(String, &'static str),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The device said no.
    #[error(transparent)]
    Job(#[from] JobError),
    /// It was asked for what it does not do.
    #[error("the device answered an order with something else")]
    Answer,
}

type Units<T> = BTreeMap<Arc<str>, Arc<Unit<T>>>;

/// What the pool's threads share.
pub(crate) struct Inner<T> {
    units: RwLock<Units<T>>,
    pub(crate) keys: Arc<Keys>,
    sink: Arc<dyn Sink<T>>,
    budget: RetryBudget,
    wait_us_max: f64,
    growth: Arc<Growth>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The pool.
pub struct Pool<T: Work> {
    inner: Arc<Inner<T>>,
    lanes: Lanes<T>,
    queue: usize,
}

impl<T: Work> std::fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// A device as it is listed.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// Its name.
    pub name: Arc<str>,
    /// How it is doing.
    pub state: Arc<DeviceState>,
    /// Jobs that wait for it.
    pub waiting: usize,
    /// Worker processes it should have.
    pub processes: usize,
}

impl<T: Work> Pool<T> {
    /// Starts the lanes and the threads of the devices.
    pub fn start(
        config: PoolConfig,
        source: Arc<dyn KeySource>,
        sink: &Arc<dyn Sink<T>>,
    ) -> std::io::Result<Self> {
        let keys = Arc::new(Keys::new(source, config.key_cache, config.multi.is_some()));
        let growth = Arc::default();
        let lanes = Lanes::start(&config, &keys, sink, Arc::clone(&growth))?;
        let inner = Arc::new(Inner {
            units: RwLock::default(),
            keys,
            sink: Arc::clone(sink),
            budget: RetryBudget::default(),
            wait_us_max: config.queue_ms_max as f64 * 1e3,
            growth,
            threads: Mutex::default(),
        });
        let pool = Self {
            inner,
            lanes,
            queue: config.queue,
        };
        for device in config.devices {
            // Two of one name are a mistake that the configuration finds; the first one counts here.
            if let Err(DeviceError::Thread(error)) = pool.add_device(device, None) {
                return Err(error);
            }
        }
        // What it begins with is no extension.
        let units = pool.inner.units.read();
        units.values().for_each(|unit| unit.set_growing(false));
        drop(units);
        Ok(pool)
    }

    /// Hands over a job, or gives it back.
    pub fn submit(&self, work: T) -> Result<(), (T, SubmitError)> {
        if matches!(work.home(), Home::Software) {
            return self.lanes.submit(work);
        }
        self.inner.budget.earn();
        let job = Queued { work, tried: false };
        self.inner
            .route(job, None)
            .map_err(|(job, error)| (job.work, error))
    }

    /// Jobs waiting for the software lanes.
    pub fn waiting(&self) -> usize {
        self.lanes.waiting()
    }

    /// Counters of the software lanes.
    pub fn counters(&self) -> &LaneCounters {
        self.lanes.counters()
    }

    /// Software lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.size()
    }

    /// Sets the number of software lanes; those that are too many end after what they have in hand.
    pub fn set_lanes(&self, lanes: usize) -> std::io::Result<()> {
        self.lanes.resize(lanes)
    }

    /// Whether it is being extended: there are to be more lanes or processes than a moment ago, or a device was added,
    /// and not everything new serves yet.
    pub fn is_extending(&self, now: Instant) -> bool {
        let units = self.inner.units.read();
        self.inner.growth.is_recent(now) || units.values().any(|unit| unit.is_growing())
    }

    /// The devices by name.
    pub fn devices(&self) -> Vec<DeviceView> {
        let view = |unit: &Arc<Unit<T>>| DeviceView {
            name: Arc::clone(unit.name()),
            state: Arc::clone(&unit.state),
            waiting: unit.waiting(),
            processes: unit.seats(),
        };
        self.inner.units.read().values().map(view).collect()
    }

    /// Whether it is known of every device if it works.
    pub fn is_settled(&self) -> bool {
        self.inner
            .units
            .read()
            .values()
            .all(|unit| unit.state.is_settled())
    }

    fn unit(&self, name: &str) -> Result<Arc<Unit<T>>, DeviceError> {
        let unit = self.inner.units.read().get(name).cloned();
        unit.ok_or_else(|| DeviceError::Unknown(name.to_owned()))
    }

    // ── devices, while the pool serves ──

    /// Adds a device. `knee`: what calibration has found.
    pub fn add_device(&self, config: DeviceConfig, knee: Option<u16>) -> Result<(), DeviceError> {
        let unit = Arc::new(Unit::new(config, self.queue, knee));
        let name = Arc::clone(unit.name());
        {
            let mut units = self.inner.units.write();
            if units.contains_key(&name) {
                return Err(DeviceError::Exists(name.to_string()));
            }
            units.insert(Arc::clone(&name), Arc::clone(&unit));
        }
        unit.set_growing(true);
        self.inner.scale_unit(&unit, unit.config.processes.max(1))?;
        let warden = Warden {
            inner: Arc::clone(&self.inner),
            unit,
        };
        self.inner.spawn(format!("dev-{name}"), move || warden.run())?;
        Ok(())
    }

    /// Lets a device finish what it has, and gives it nothing more. What waits for it goes to others.
    pub fn drain_device(&self, name: &str) -> Result<(), DeviceError> {
        let unit = self.unit(name)?;
        if unit.live(|life, _| life.command_drain()) {
            self.inner.reroute(&unit);
        }
        Ok(())
    }

    /// Lets a drained, quarantined or latched device prove itself again.
    pub fn resume_device(&self, name: &str) -> Result<(), DeviceError> {
        self.unit(name)?.live(Life::command_resume);
        Ok(())
    }

    /// Takes a drained device away.
    pub fn remove_device(&self, name: &str) -> Result<(), DeviceError> {
        let unit = self.unit(name)?;
        if unit.state.takes_jobs() {
            return Err(DeviceError::State(
                name.to_owned(),
                "still taking jobs; drain it first",
            ));
        }
        self.inner.units.write().remove(name);
        unit.stop();
        self.inner.reroute(&unit);
        Ok(())
    }

    /// Sets the number of a device's worker processes.
    pub fn scale_device(&self, name: &str, processes: usize) -> Result<(), DeviceError> {
        let unit = self.unit(name)?;
        Ok(self.inner.scale_unit(&unit, processes.max(1))?)
    }

    /// Measures what a device can do, with processes of its own. Blocking, for some seconds.
    pub fn calibrate_device(&self, name: &str) -> Result<Calibration, DeviceError> {
        let unit = self.unit(name)?;
        let found = calibrate::sweep(&unit)?;
        unit.set_knee(found.knee);
        Ok(found)
    }

    /// Sets the knee that an earlier calibration has found.
    pub fn set_knee(&self, name: &str, knee: u16) -> Result<(), DeviceError> {
        self.unit(name)?.set_knee(knee);
        Ok(())
    }

    // ── keys in devices; blocking, for operators ──

    fn order(&self, device: &str, order: Order) -> Result<Ordered, DeviceError> {
        Ok(self.unit(device)?.order(order)?)
    }

    /// Makes a key pair that stays in the device. With `kek`: one that can be replicated under that wrapping key.
    pub fn generate(
        &self,
        device: &str,
        kind: KeyKind,
        label: &str,
        kek: Option<&[u8]>,
    ) -> Result<DeviceKey, DeviceError> {
        self.make(device, kind, label, true, kek)
    }

    /// Makes a key pair that exists only wrapped.
    pub fn generate_wrapped(
        &self,
        device: &str,
        kind: KeyKind,
        kek: &[u8],
    ) -> Result<DeviceKey, DeviceError> {
        self.make(device, kind, "", false, Some(kek))
    }

    fn make(
        &self,
        device: &str,
        kind: KeyKind,
        label: &str,
        keep: bool,
        kek: Option<&[u8]>,
    ) -> Result<DeviceKey, DeviceError> {
        let order = Order::Generate {
            kind: kind.name().to_owned(),
            label: label.to_owned(),
            keep,
            kek: kek.map(<[u8]>::to_vec),
        };
        made(self.order(device, order)?)
    }

    /// Makes an object of a wrapped key in a device.
    pub fn unwrap(
        &self,
        device: &str,
        key: &WrappedKey,
        kind: KeyKind,
        label: &str,
        object: &[u8],
    ) -> Result<(), DeviceError> {
        let order = Order::Unwrap {
            key: key.clone(),
            kind: kind.name().to_owned(),
            label: label.to_owned(),
            object: object.to_vec(),
        };
        match self.order(device, order)? {
            Ordered::Done => Ok(()),
            _ => Err(DeviceError::Answer),
        }
    }

    /// Finds a key pair that is in the device already: by label in PKCS#11, by index in SDF.
    pub fn find(&self, device: &str, kind: KeyKind, name: &str) -> Result<DeviceKey, DeviceError> {
        let (name, kind) = (name.to_owned(), kind.name().to_owned());
        made(self.order(device, Order::Find { name, kind })?)
    }

    /// Has a device sign once with a key, and verifies it: only then is the key ready there.
    pub fn prove(&self, device: &str, key: &DeviceKey) -> Result<(), DeviceError> {
        let public = PublicKey::from_spki(&key.public_key).map_err(|_| DeviceError::Answer)?;
        let algorithm = probe_algorithm(&public);
        let mut input = match algorithm.input() {
            InputKind::Digest(hash) => vec![0; hash.bytes()],
            InputKind::Message(_) => vec![0; 32],
        };
        aws_lc_rs::rand::fill(&mut input).map_err(|_| DeviceError::Answer)?;
        self.sign_once(device, key, algorithm, &input).map(drop)
    }

    /// Has a device sign something that is no request: a certificate request, say. What comes back is verified.
    pub fn sign_once(
        &self,
        device: &str,
        key: &DeviceKey,
        algorithm: Algorithm,
        input: &[u8],
    ) -> Result<Vec<u8>, DeviceError> {
        let public = PublicKey::from_spki(&key.public_key).map_err(|_| DeviceError::Answer)?;
        let order = Order::Prove {
            object: key.object.clone(),
            wrapped: key.wrapped.clone().filter(|_| key.object.is_empty()),
            kind: public.kind().name().to_owned(),
            algorithm: algorithm.wire(),
            input: input.to_vec(),
        };
        let Ordered::Blob(signature) = self.order(device, order)? else {
            return Err(DeviceError::Answer);
        };
        let verified = public.verify(algorithm, input, &signature);
        verified.map_err(|_| JobError::Rejected)?;
        Ok(signature)
    }

    /// Destroys a key pair in a device.
    pub fn destroy(&self, device: &str, object: &[u8]) -> Result<(), DeviceError> {
        match self.order(device, Order::Destroy(object.to_vec()))? {
            Ordered::Done => Ok(()),
            _ => Err(DeviceError::Answer),
        }
    }

    /// Forgets a key that has been destroyed.
    pub fn forget(&self, key: KeyRow) {
        self.inner.keys.forget(key);
    }

    /// The private keys in a device.
    pub fn objects(&self, device: &str) -> Result<Vec<DeviceObject>, DeviceError> {
        match self.order(device, Order::List)? {
            Ordered::Objects(objects) => Ok(objects),
            _ => Err(DeviceError::Answer),
        }
    }

    /// Makes a wrapping key in a device. It never leaves it but for another device's transport key.
    pub fn make_kek(&self, device: &str, label: &str) -> Result<Kek, DeviceError> {
        let unit = self.unit(device)?;
        let kek = one_kek(unit.order(Order::MakeKek(label.to_owned()))?)?;
        unit.refresh()?;
        Ok(kek)
    }

    /// Brings a wrapping key from one device into another, wrapped for a transport key of the second.
    pub fn share_kek(&self, from: &str, to: &str, id: &[u8]) -> Result<Kek, DeviceError> {
        let (from, to) = (self.unit(from)?, self.unit(to)?);
        let known = from.state.facts().keks.into_iter().find(|kek| kek.id == id);
        let known = known.ok_or_else(|| DeviceError::Unknown("wrapping key".into()))?;
        let transport = made(to.order(Order::MakeTransport)?)?;
        let export = Order::ExportKek {
            kek: id.to_vec(),
            transport: transport.public_key,
        };
        let Ordered::Blob(blob) = from.order(export)? else {
            return Err(DeviceError::Answer);
        };
        let import = Order::ImportKek {
            kek: id.to_vec(),
            label: known.label,
            transport: transport.object,
            blob,
        };
        let kek = one_kek(to.order(import)?)?;
        to.refresh()?;
        Ok(kek)
    }

    /// Ends the threads after what they have been handed. What can go nowhere fails.
    pub fn stop(self) {
        drop(self);
    }
}

impl<T: Work> Drop for Pool<T> {
    fn drop(&mut self) {
        self.lanes.stop();
        let units = std::mem::take(&mut *self.inner.units.write());
        units.values().for_each(|unit| unit.stop());
        for thread in std::mem::take(&mut *self.inner.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the pool panicked");
            }
        }
        units
            .values()
            .for_each(|unit| self.inner.fail(unit.empty_queue(), &JobError::Unavailable));
    }
}

fn made(answer: Ordered) -> Result<DeviceKey, DeviceError> {
    match answer {
        Ordered::Made {
            object,
            public_key,
            wrapped,
        } => Ok(DeviceKey {
            object,
            public_key,
            wrapped,
        }),
        _ => Err(DeviceError::Answer),
    }
}

fn one_kek(answer: Ordered) -> Result<Kek, DeviceError> {
    match answer {
        Ordered::Kek(kek) => Ok(kek),
        _ => Err(DeviceError::Answer),
    }
}

/// A retry needs this many usual service times before its deadline.
const RETRY_ROOM: f64 = 4.0;

impl<T: Work> Inner<T> {
    fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Gives a device more seats, or takes some away.
    pub(crate) fn scale_unit(self: &Arc<Self>, unit: &Arc<Unit<T>>, seats: usize) -> std::io::Result<()> {
        if (1..seats).contains(&unit.seats()) {
            self.growth.note(clock::monotonic());
            unit.set_growing(true);
        }
        while unit.seats() > seats {
            // Its thread finishes what its process has, and ends.
            if let Some(bell) = unit.remove_bell() {
                bell.ring();
            }
        }
        while unit.seats() < seats {
            let bell = Arc::new(Bell::new()?);
            unit.add_bell(Arc::clone(&bell));
            let seat = Seat {
                inner: Arc::clone(self),
                unit: Arc::clone(unit),
                bell,
                up: Cell::new(false),
            };
            self.spawn(format!("dev-{}-{}", unit.name(), unit.seats()), move || {
                seat.run();
            })?;
        }
        unit.resized();
        Ok(())
    }

    /// Hands a job to the least loaded device that holds its key and works.
    pub(crate) fn route(
        &self,
        job: Queued<T>,
        but_not: Option<&str>,
    ) -> Result<(), (Queued<T>, SubmitError)> {
        let mut candidates = self.candidates(&job, but_not);
        if candidates.is_empty() {
            return Err((job, SubmitError::Unavailable));
        }
        candidates.sort_by(|a, b| a.load().total_cmp(&b.load()));
        let mut job = job;
        for unit in candidates {
            if matches!(unit.appetite(), Appetite::None(_)) {
                continue;
            }
            match unit.push(job, self.wait_us_max) {
                Offered::Refused(back) => {
                    job = back;
                    continue;
                }
                Offered::Instead(displaced) => self.fail([displaced], &JobError::Shed),
                Offered::Taken => {}
            }
            // Its life may have ended between the look and the push.
            if !unit.state.takes_jobs() {
                self.reroute(&unit);
            }
            return Ok(());
        }
        Err((job, SubmitError::Full))
    }

    fn candidates(&self, job: &Queued<T>, but_not: Option<&str>) -> Vec<Arc<Unit<T>>> {
        let units = self.units.read();
        let fits = |unit: &&Arc<Unit<T>>| but_not != Some(&**unit.name()) && unit.state.takes_jobs();
        match job.work.home() {
            Home::Software => Vec::new(),
            Home::Devices { names, .. } => names
                .iter()
                .filter_map(|name| units.get(name))
                .filter(fits)
                .cloned()
                .collect(),
            Home::Wrapped { kek } => units
                .values()
                .filter(fits)
                .filter(|unit| unit.state.has_kek(kek))
                .cloned()
                .collect(),
        }
    }

    /// A job has failed on a device: it is tried once more on another one, where that makes sense.
    pub(crate) fn again(&self, unit: &Unit<T>, job: Queued<T>, error: JobError) {
        if !error.is_device_fault() || job.tried || !self.has_time(unit, &job) {
            return self.fail([job], &error);
        }
        if self.candidates(&job, Some(unit.name())).is_empty() || !self.budget.spend() {
            return self.fail([job], &error);
        }
        match self.route(Queued { tried: true, ..job }, Some(unit.name())) {
            Ok(()) => {
                unit.state.failovers.fetch_add(1, Ordering::Relaxed);
            }
            Err((job, _)) => self.fail([job], &error),
        }
    }

    fn has_time(&self, unit: &Unit<T>, job: &Queued<T>) -> bool {
        let need = Duration::from_micros((unit.state.service_us() * RETRY_ROOM) as u64);
        clock::monotonic() + need < job.work.deadline()
    }

    /// Jobs that a device has not begun, and will not.
    pub(crate) fn route_again(&self, unit: &Unit<T>, jobs: impl IntoIterator<Item = Queued<T>>) {
        for job in jobs {
            // The same device is as good as any while it works.
            let but_not = (!unit.state.takes_jobs()).then(|| &**unit.name());
            if let Err((job, error)) = self.route(job, but_not) {
                let error = match error {
                    SubmitError::Full => JobError::Device {
                        text: "the queues of the other devices are full".into(),
                        class: ckr::Class::Busy,
                    },
                    SubmitError::Unavailable => JobError::Unavailable,
                };
                self.fail([job], &error);
            }
        }
    }

    /// A device takes no jobs any more: what waits for it goes elsewhere.
    pub(crate) fn reroute(&self, unit: &Unit<T>) {
        self.route_again(unit, unit.empty_queue());
    }

    pub(crate) fn fail(&self, jobs: impl IntoIterator<Item = Queued<T>>, error: &JobError) {
        let failed = |job: Queued<T>| Finished {
            work: job.work,
            result: Err(error.clone()),
        };
        self.deliver(jobs.into_iter().map(failed).collect());
    }

    pub(crate) fn deliver(&self, finished: Vec<Finished<T>>) {
        if !finished.is_empty() {
            self.sink.finished(finished);
        }
    }
}
