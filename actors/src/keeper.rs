//! The keeper: a thread outside actix that notices an actor or a core that has died and starts it anew under the same
//! identity. actix's own supervisor restarts an actor that stops; one that panics takes its task with it, and nobody
//! inside the same runtime can be trusted to notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_rt::ArbiterHandle;

use crate::core::{Core, CoreRemote};
use crate::services::Services;

/// How often it looks. A dead actor is back within two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until what was started and is not up is taken for dead: half a second.
const STARTING: u32 = 100;

/// Starts a core's thread: its arbiter, with the core installed and its fronts listening.
pub type SpawnCore = Box<dyn Fn(u16) -> Option<ArbiterHandle> + Send>;

/// What the keeper has done.
#[derive(Debug, Default)]
pub struct KeeperCounters {
    /// Actors started anew.
    pub actors: AtomicU64,
    /// Cores started anew.
    pub cores: AtomicU64,
}

/// The running keeper.
#[derive(Debug)]
pub struct Keeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// What it has done.
    pub counters: Arc<KeeperCounters>,
}

impl Keeper {
    /// Starts every core and the metering actor (on `control`), and from then on keeps them.
    pub fn start(
        services: Arc<Services>,
        control: ArbiterHandle,
        spawn_core: SpawnCore,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(KeeperCounters::default());
        let cores = services
            .cores
            .iter()
            .map(|core| spawn_core(core.number()))
            .collect();
        let watch = Watch {
            services,
            control,
            spawn_core,
            cores,
            stop: Arc::clone(&stop),
            counters: Arc::clone(&counters),
        };
        watch.start_metering();
        let thread = std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || watch.run())?;
        Ok(Self {
            stop,
            thread,
            counters,
        })
    }

    /// Stops keeping: what dies from now on stays dead.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // The keeper only sleeps and looks; if it has panicked there is nothing left to stop.
        let _ = self.thread.join();
    }
}

struct Watch {
    services: Arc<Services>,
    control: ArbiterHandle,
    spawn_core: SpawnCore,
    cores: Vec<Option<ArbiterHandle>>,
    stop: Arc<AtomicBool>,
    counters: Arc<KeeperCounters>,
}

impl Watch {
    fn run(mut self) {
        // The cores and the actor start in their own time; only then can they be missed.
        self.settle(|services| {
            let is_up = |core: &Arc<CoreRemote>| core.is_alive() && core.shard_is_up();
            services.metering.is_up() && services.cores.iter().all(is_up)
        });
        while !self.stop.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
            for number in 0..self.services.cores.len() {
                self.look_at_core(number);
            }
            if !self.services.metering.is_up() {
                tracing::error!("metering has died and is started anew");
                self.counters.actors.fetch_add(1, Ordering::Relaxed);
                self.start_metering();
                self.settle(|services| services.metering.is_up());
            }
        }
    }

    fn start_metering(&self) {
        let services = Arc::clone(&self.services);
        self.control.spawn_fn(move || services.metering.start_here());
    }

    fn look_at_core(&mut self, number: usize) {
        let remote = Arc::clone(&self.services.cores[number]);
        if !remote.is_alive() {
            tracing::error!(core = number, "a core has died and is started anew");
            self.counters.cores.fetch_add(1, Ordering::Relaxed);
            self.cores[number] = (self.spawn_core)(remote.number());
            self.settle(|services| services.cores[number].is_alive());
        } else if !remote.shard_is_up()
            && let Some(arbiter) = &self.cores[number]
        {
            tracing::error!(core = number, "a shard has died and is started anew");
            self.counters.actors.fetch_add(1, Ordering::Relaxed);
            arbiter.spawn_fn(|| {
                if let Some(core) = Core::current() {
                    core.start_shard();
                }
            });
            self.settle(|services| services.cores[number].shard_is_up());
        }
    }

    /// Waits a little for what was just started, so that it is not started twice.
    fn settle(&self, is_up: impl Fn(&Services) -> bool) {
        for _ in 0..STARTING {
            if is_up(&self.services) {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}
