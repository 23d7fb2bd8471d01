//! `cinnabar serve`: opens everything in order, serves, and stops in order. Wires, never decides.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle, System};
use actors::audit::{self, Audit};
use actors::call::Ticket;
use actors::core::{Core, CoreRemote};
use actors::keeper::{Keeper, SpawnCore};
use actors::minutes::{MinuteKeeper, Probe};
use actors::services::{Limits, Services, router};
use actors::task::{Said, Task, ToJournal};
use actors::time_stamps::TimeSource;
use actors::vault::{StoredKeys, Vault};
use hsm_pool::device::DeviceConfig;
use hsm_pool::job::Sink;
use hsm_pool::multi::Multi;
use hsm_pool::pool::{Pool, PoolConfig};
use parking_lot::Mutex;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use store::{Options, Store, StoreHandle};
use tokio::sync::watch;

use crate::admin::devices::{DeviceSource, stored_knee};
use crate::admin::http::Shown;
use crate::admin::metrics::Metrics;
use crate::admin::operator::{Operator, Rehearsals};
use crate::admin::{http as admin_http, socket};
use crate::config::{Config, Layers, Location};
use crate::dev::{self, DevCa, DevFiles};
use crate::front::quic::QuicParts;
use crate::front::sockets::Sockets;
use crate::front::tls::{Identity, TlsConfigs};
use crate::front::{FrontContext, FrontLimits, Phase, http, quic, sockets, tls};
use crate::latency_log::LatencyKeeper;
use crate::operations::Operations;
use crate::pki::clock::SystemClock;
use crate::pki::sounding::Sounding;
use crate::pki::{self, Pki};
use crate::registration::{self, Registration};
use crate::sealing::{self, Closed, Sealer};
use crate::shutdown::Books;
use crate::traces::Traces;
use crate::{key_pools, master_key, reconciler, shutdown, telemetry};

/// Runs the engine until it is told to stop.
pub(crate) fn serve(config: Config, layers: Layers, dev: bool) -> Result<(), Refusal> {
    seal_process();
    if dev {
        check_loopback(&config)?;
        if let crate::config::MasterKeySource::File(path) = &config.master_key {
            master_key::make(path)?;
        }
    }
    let vault = Arc::new(master_key::read(&config.master_key)?);
    let store = open_store(&config, false)?;
    master_key::check(&store, &vault)?;
    let dev_ca = if dev {
        Some(Arc::new(DevCa::load_or_make(&store, &vault)?))
    } else {
        None
    };
    let identity = identity(&config, dev_ca.as_deref())?;
    let runtime = new_runtime().map_err(|error| Refusal::new(Code::Internal, format!("runtime: {error}")))?;
    let runner = System::with_tokio_rt(move || runtime);
    let system = System::current();
    let engine = Engine::build(config, store, vault, dev_ca, &identity)?;
    runner.block_on(engine.run(system, layers))
}

/// One thread a core: a core's work stays on it.
fn new_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// No core dump and no debugger: the process holds keys. Failing to set this is no reason to stop.
fn seal_process() {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

fn check_loopback(config: &Config) -> Result<(), Refusal> {
    for address in [
        config.listen,
        config.admin,
        config.pki.address,
        config.console.address,
    ] {
        if !address.ip().is_loopback() {
            let text = format!(
                "--dev makes credentials that anybody could use; {address} is not a loopback address"
            );
            return Err(Refusal::new(Code::Usage, text));
        }
    }
    Ok(())
}

/// Opens the store as the configuration says.
pub(crate) fn open_store(config: &Config, accept_loss: bool) -> Result<Store<Ticket>, Refusal> {
    let options = Options {
        version: env!("CARGO_PKG_VERSION").into(),
        bytes_max: config.store_bytes_max,
        accept_loss,
        ..Options::default()
    };
    Store::open(&config.home, options).map_err(|error| error.refusal())
}

fn identity(config: &Config, dev_ca: Option<&DevCa>) -> Result<Identity, Refusal> {
    match (&config.tls, dev_ca) {
        (Some((certificate, key)), _) => Identity::read(certificate, key),
        (None, Some(ca)) => ca.tls_identity(),
        (None, None) => {
            let text = "configuration: tls_certificate and tls_key are needed (or --dev, on loopback)";
            Err(Refusal::new(Code::Usage, text))
        }
    }
}

/// A store that has failed must not be written to again: the process ends, and the next start recovers.
fn end_process(error: &store::StoreError) {
    tracing::error!(%error, "the store has failed; the engine stops so that nothing unrecorded is released");
    eprintln!("cinnabar: {}: {error}", error.refusal().code);
    telemetry::stop();
    std::process::exit(4);
}

struct Engine {
    config: Config,
    services: Arc<Services>,
    parts: Arc<FrontParts>,
    dev_ca: Option<Arc<DevCa>>,
    admin: std::net::TcpListener,
    pki_listener: std::net::TcpListener,
    console: (std::net::TcpListener, Arc<rustls::ServerConfig>),
    closed: Closed,
    phase: watch::Sender<Phase>,
}

/// What a core's front is made of.
struct FrontParts {
    services: Arc<Services>,
    sockets: Sockets,
    quic: QuicParts,
    https: Arc<rustls::ServerConfig>,
    certificate_hash: [u8; 32],
    limits: FrontLimits,
    locations: Arc<[Location]>,
    registration: Registration,
    sealer: Arc<Sealer>,
    phase: watch::Receiver<Phase>,
}

impl Engine {
    fn build(
        mut config: Config,
        store: Store<Ticket>,
        vault: Arc<Vault>,
        dev_ca: Option<Arc<DevCa>>,
        identity: &Identity,
    ) -> Result<Self, Refusal> {
        let sockets = sockets::bind(config.listen, config.cores)?;
        let admin = admin_http::bind(config.admin)?;
        let pki_listener = admin_http::bind(config.pki.address)?;
        config.pki.address = pki_listener.local_addr().unwrap_or(config.pki.address);
        let console = admin_http::bind(config.console.address)?;
        config.console.address = console.local_addr().unwrap_or(config.console.address);
        config.listen = sockets.address;
        config.admin = admin.local_addr().unwrap_or(config.admin);
        let services = start_services(&config, store, &vault)?;
        start_audit(&config, &services)?;
        let TlsConfigs {
            quic,
            https,
            console: console_tls,
        } = tls::configs(identity, &services.store)?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let (sealer, closed) = sealing::new(&services, &config.home);
        let mut reset_key = [0; 32];
        aws_lc_rs::rand::fill(&mut reset_key).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
        let reset_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &reset_key);
        let parts = FrontParts {
            services: Arc::clone(&services),
            quic: QuicParts {
                server: quic::server_config(quic),
                reset_key: Arc::new(reset_key),
                cores: u8::try_from(config.cores).unwrap_or(u8::MAX),
            },
            sockets,
            https,
            certificate_hash: identity.certificate_hash(),
            limits: FrontLimits {
                connections_max: config.connections_per_core_max,
                connections_per_address_max: config.connections_per_address_max,
                http_silence_max: Duration::from_millis(config.http_silence_ms_max),
            },
            locations: config.locations.clone().into(),
            registration: Registration::new(),
            sealer,
            phase: phases,
        };
        Ok(Self {
            config,
            services,
            parts: Arc::new(parts),
            dev_ca,
            admin,
            pki_listener,
            console: (console, console_tls),
            closed,
            phase,
        })
    }

    async fn run(self, system: System, layers: Layers) -> Result<(), Refusal> {
        let Self {
            config,
            services,
            parts,
            dev_ca,
            admin,
            pki_listener,
            console,
            closed,
            phase,
        } = self;
        let dev = dev_ca.is_some();
        let pki = Arc::new(open_pki(&services, &config, dev)?);
        let dev_files = match &dev_ca {
            Some(ca) => {
                let (home, listen, admin) = (&config.home, config.listen, config.admin);
                Some(dev::set_up(&pki, ca, home, listen, admin)?)
            }
            None => None,
        };
        registration::open(&parts.registration, &pki, &services)?;
        sealing::open(&parts.sealer, closed, &pki, config.cores)?;
        let arbiters: Arbiters = Arc::new(Mutex::new(vec![None; services.cores.len()]));
        let spawn = spawn_core(system.clone(), Arc::clone(&parts), Arc::clone(&arbiters));
        let keeper = Keeper::start(Arc::clone(&services), system.arbiter().clone(), spawn)
            .map_err(|error| Refusal::new(Code::Internal, format!("the keeper thread: {error}")))?;
        let operations = Operations::new(&config, &services.store, dev);
        let metrics = Metrics::new(Arc::clone(&services), Arc::clone(&keeper.counters));
        let metrics = metrics.with(operations.metrics());
        actix_rt::spawn(admin_http::serve(
            admin,
            Shown {
                services: Arc::clone(&services),
                metrics,
            },
        ));
        let rehearsal = dev.then(|| Rehearsal {
            services: Arc::clone(&services),
            arbiters,
        });
        let operator = operator(&services, &pki, &config, (layers, rehearsal), &operations);
        let operator = Arc::new(operator);
        let (listener, tls) = console;
        operations.open(Arc::clone(&operator), &config, listener, tls)?;
        socket::serve(socket::bind(&config.home)?, operator)
            .map_err(|error| Refusal::new(Code::Internal, format!("the admin thread: {error}")))?;
        start_pki(&pki, &services, pki_listener)?;
        shutdown::wait_until_ready(&services).await;
        key_pools::start(&services, config.key_pools.clone())?;
        let books = Books {
            minutes: keep_minutes(&services, &parts.registration)?,
            latency: keep_latency(&services, &config)?,
        };
        reconciler::start(&services, &config)?;
        let link = match dev {
            true => operations.dev_link(&services.store)?,
            false => None,
        };
        operations.watch(&services, &config)?;
        let stop = shutdown::take_signals()?;
        announce(&config, dev_files.as_ref(), link.as_deref());
        // If whoever waits for signals could not say anything any more, stopping is the right thing, too.
        let _ = stop.await;
        pki.book();
        shutdown::stop(&config, &services, &phase, keeper, books).await;
        Ok(())
    }
}

/// Who carries out operators' orders.
fn operator(
    services: &Arc<Services>,
    pki: &Arc<Pki>,
    config: &Config,
    (layers, rehearsal): (Layers, Option<Rehearsal>),
    operations: &Operations,
) -> Operator {
    Operator {
        store: Arc::clone(&services.store),
        vault: Arc::clone(&services.vault),
        pool: Some(Arc::clone(&services.pool)),
        device_source: Some(Arc::new(FromConfig(layers))),
        services: Some(Arc::clone(services)),
        pki: Arc::clone(pki),
        audit: config.audit_log(),
        rehearsals: rehearsal.map(|rehearsal| Arc::new(rehearsal) as Arc<dyn Rehearsals>),
        control: config.console.control(),
        outgoing: operations.outgoing,
        sessions: Some(Arc::clone(&operations.sessions)),
        alarms: Some(Arc::clone(&operations.alarms)),
        deciding: Mutex::default(),
    }
}

/// The minutes of the service agreement, with what the engine finds when it looks at itself.
fn keep_minutes(services: &Arc<Services>, desk: &Registration) -> Result<MinuteKeeper, Refusal> {
    let watched = Arc::clone(services);
    let mut sounding = Sounding::new(Arc::clone(services), desk.clone());
    let probe = move |now: clock::UnixMillis| {
        let ready = admin_http::not_ready(&watched, now.0).is_empty();
        // Certificates are recorded in this store, too; besides, those who issue and answer have to be there.
        Probe {
            signing: ready,
            certificates: sounding.sound() && ready,
        }
    };
    MinuteKeeper::start(Arc::clone(services), probe)
        .map_err(|error| Refusal::new(Code::Internal, format!("the minutes thread: {error}")))
}

fn keep_latency(services: &Arc<Services>, config: &Config) -> Result<LatencyKeeper, Refusal> {
    let traces = config.traces.as_deref().map(Traces::start).transpose()?;
    LatencyKeeper::start(Arc::clone(services), &config.home, config.latency_days, traces)
        .map_err(|error| Refusal::new(Code::Internal, format!("the latency thread: {error}")))
}

fn open_pki(services: &Services, config: &Config, dev: bool) -> Result<Pki, Refusal> {
    let (store, vault) = (Arc::clone(&services.store), Arc::clone(&services.vault));
    let devices = Some(Arc::clone(&services.pool));
    Pki::open(store, vault, devices, config.pki.settings(dev))
}

/// The certificate service: its threads, its first lists, its listener.
fn start_pki(pki: &Arc<Pki>, services: &Services, listener: std::net::TcpListener) -> Result<(), Refusal> {
    if let Err(error) = pki.publish_due(clock::wall()) {
        tracing::warn!(%error, "revocation lists are not up to date");
    }
    let clock: Arc<dyn TimeSource> = Arc::new(SystemClock::new());
    let lines = pki::start(pki, &clock, &services.answer_logs, listener)?;
    // Nobody else sets it.
    let _ = services.certificates.set(lines);
    Ok(())
}

fn start_services(
    config: &Config,
    store: Store<Ticket>,
    vault: &Arc<Vault>,
) -> Result<Arc<Services>, Refusal> {
    let failed = |error: store::StoreError| error.refusal();
    let remote = |number| Arc::new(CoreRemote::new(number, config.calls_per_core_max));
    let cores: Arc<[Arc<CoreRemote>]> = (0..config.cores).map(remote).collect();
    let store = Arc::new(
        store
            .start(router(Arc::clone(&cores)), end_process)
            .map_err(failed)?,
    );
    let pool = Arc::new(start_pool(config, &store, vault, &cores)?);
    let limits = Limits {
        calls_per_core_max: config.calls_per_core_max,
        chain_cache: config.key_cache,
        trace_every: if config.traces.is_some() {
            config.traces_every
        } else {
            0
        },
    };
    Ok(Arc::new(
        Services::new(store, pool, Arc::clone(vault), cores, limits).map_err(failed)?,
    ))
}

/// The audit log, behind the journal.
fn start_audit(config: &Config, services: &Services) -> Result<(), Refusal> {
    let folder = config.audit_log();
    let reader = || services.store.reader().map_err(|error| error.refusal());
    let epoch = reader()?.epoch().map_err(|error| error.refusal())?;
    let origin = config.audit_origin.as_deref();
    let key = audit::signing_key(&folder, &services.vault, origin, epoch)?;
    let log = Audit::start(folder, key, [reader()?, reader()?])?;
    // Nobody else sets it.
    let _ = services.audit.set(log);
    Ok(())
}

fn start_pool(
    config: &Config,
    store: &Arc<StoreHandle<Ticket>>,
    vault: &Arc<Vault>,
    cores: &Arc<[Arc<CoreRemote>]>,
) -> Result<Pool<Task>, Refusal> {
    let reader = store.reader().map_err(|error| error.refusal())?;
    let keys = Arc::new(StoredKeys::new(reader, Arc::clone(vault)));
    let sink: Arc<dyn Sink<Task>> = Arc::new(ToJournal {
        store: Arc::clone(store),
        cores: Arc::clone(cores),
        vault: Arc::clone(vault),
        said: Said::default(),
    });
    let pool_config = PoolConfig {
        lanes: config.lanes,
        queue: config.calls_per_core_max,
        queue_ms_max: config.queue_ms_max,
        verify: config.verify,
        multi: load_multi(config),
        key_cache: config.key_cache,
        devices: config.devices()?,
    };
    let pool = Pool::start(pool_config, keys, &sink)
        .map_err(|error| Refusal::new(Code::Internal, format!("the pool's threads: {error}")))?;
    set_knees(&pool, &store.reader().map_err(|error| error.refusal())?);
    Ok(pool)
}

/// What signs eight at a time. Without it everything works, only slower; so a library that may not be used is a warning.
fn load_multi(config: &Config) -> Option<Arc<Multi>> {
    let (path, digest) = config.crypto_mb.as_ref()?;
    let multi = Multi::load(path, digest.as_deref())
        .inspect_err(|error| tracing::warn!(%error, "signatures are made one at a time"))
        .ok()?;
    for gain in multi.gains() {
        tracing::info!(
            kind = %gain.kind,
            single_us = gain.single.as_secs_f64() * 1e6,
            eight_us = gain.call.as_secs_f64() * 1e6,
            together_from = gain.from,
            "signatures eight at a time"
        );
    }
    Some(Arc::new(multi))
}

/// What calibration has found before counts from the start.
fn set_knees(pool: &Pool<Task>, reader: &store::Reader) {
    for device in pool.devices() {
        if let Some(knee) = stored_knee(reader, &device.name)
            && let Err(error) = pool.set_knee(&device.name, knee)
        {
            tracing::warn!(device = &*device.name, %error, "its calibration is not used");
        }
    }
}

/// A device that is to be added is configured by the same layers as the others, read anew.
struct FromConfig(Layers);

impl DeviceSource for FromConfig {
    fn device(&self, name: &str) -> Result<DeviceConfig, Refusal> {
        crate::config::load(&self.0)?.device(name)
    }
}

type Arbiters = Arc<Mutex<Vec<Option<ArbiterHandle>>>>;

/// How the keeper starts a core: an arbiter of its own, the core on it, and its fronts.
fn spawn_core(system: System, parts: Arc<FrontParts>, arbiters: Arbiters) -> SpawnCore {
    Box::new(move |number| {
        System::set_current(system.clone());
        let arbiter = match Arbiter::try_with_tokio_rt(new_runtime) {
            Ok(arbiter) => arbiter,
            Err(error) => {
                tracing::error!(%error, core = number, "a core's thread could not be started");
                return None;
            }
        };
        let handle = arbiter.handle();
        let parts = Arc::clone(&parts);
        handle.spawn_fn(move || {
            let core = Core::install(Arc::clone(&parts.services), number);
            if let Err(error) = start_fronts(&parts, &core) {
                tracing::error!(%error, core = number, "a core's front could not be started");
            }
        });
        arbiters.lock()[usize::from(number)] = Some(handle.clone());
        Some(handle)
    })
}

fn start_fronts(parts: &FrontParts, core: &Rc<Core>) -> std::io::Result<()> {
    let number = core.number();
    let (udp, tcp) = &parts.sockets.cores[usize::from(number)];
    let endpoint = quic::endpoint(&parts.quic, number as u8, udp.try_clone()?)?;
    let context = Rc::new(FrontContext::new(
        Rc::clone(core),
        parts.limits,
        parts.certificate_hash,
        (
            Arc::clone(&parts.locations),
            parts.registration.clone(),
            Arc::clone(&parts.sealer),
        ),
    ));
    actix_rt::spawn(quic::serve(Rc::clone(&context), endpoint, parts.phase.clone()));
    let https = Arc::clone(&parts.https);
    actix_rt::spawn(http::serve(context, tcp.try_clone()?, https, parts.phase.clone()));
    Ok(())
}

struct Rehearsal {
    services: Arc<Services>,
    arbiters: Arbiters,
}

impl Rehearsals for Rehearsal {
    fn poison_shard(&self, core: u16) -> bool {
        self.services
            .cores
            .get(usize::from(core))
            .is_some_and(|core| core.poison_shard())
    }

    fn poison_metering(&self) -> bool {
        self.services.metering.poison()
    }

    fn end_core(&self, core: u16) -> bool {
        let arbiters = self.arbiters.lock();
        let Some(Some(arbiter)) = arbiters.get(usize::from(core)) else {
            return false;
        };
        arbiter.spawn_fn(|| {
            if let Some(core) = Core::current() {
                core.end();
            }
        })
    }

    fn stall_journal(&self, long: Duration) -> bool {
        self.services.store.stall(long)
    }
}

/// The one line that says it serves, and a command to copy.
fn announce(config: &Config, dev: Option<&DevFiles>, link: Option<&str>) {
    println!(
        "cinnabar is ready: QUIC and HTTPS on {}, health and metrics on {}, PKI on {}, console on {}",
        config.listen, config.admin, config.pki.address, config.console.address
    );
    if let Some(files) = dev {
        let program = std::env::args().next().unwrap_or_else(|| "cinnabar".into());
        println!("{}", first_command(&program, &files.profile()));
    }
    if let Some(link) = link {
        println!("operators log in here, once: {link}");
    }
}

fn first_command(program: &str, profile: &Path) -> String {
    format!(
        "{program} sign --profile {} --credential demo-p256 --file Cargo.toml",
        profile.display()
    )
}
