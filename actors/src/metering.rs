//! Metering: the actor that owns the prepaid balances while they are being spent.
//!
//! A core does not ask for each unit. It has a lease, a number of units in a cell of its own, and asks only when that
//! is empty. The actor grants from what nobody has leased, and recalls idle leases before it says no (SEMANTICS 4.6).
//! The committing thread judges the last unit, so whatever is lost or counted twice here by a crash can refuse a
//! request too early or sign one in vain, but never spend a unit that is not there.
//!
//! Message: [`Lease`]. The cells survive the actor; a successor counts from what they hold.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, Supervised};
use parking_lot::Mutex;
use protocol::error_code::{Code, Refusal};
use protocol::ids::TenantRow;
use store::Tenant;

use crate::call::Ticket;
use crate::core::{Core, Event};

/// Units granted at a time: enough that a busy core asks seldom, few enough that little is idle elsewhere.
const CHUNK: u64 = 256;
/// How long a core waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// One tenant's leases, a cell for each core.
#[derive(Debug)]
pub struct LeaseCells(Box<[AtomicU64]>);

impl LeaseCells {
    fn new(cores: usize) -> Self {
        Self((0..cores).map(|_| AtomicU64::new(0)).collect())
    }

    /// Takes units out of a core's cell, all or none.
    pub(crate) fn take(&self, core: u16, units: u64) -> bool {
        let less = |held: u64| held.checked_sub(units);
        self.0[usize::from(core)]
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .is_ok()
    }

    /// Puts units back.
    pub(crate) fn give_back(&self, core: u16, units: u64) {
        self.0[usize::from(core)].fetch_add(units, Ordering::AcqRel);
    }

    fn held(&self) -> u64 {
        self.0.iter().map(|cell| cell.load(Ordering::Acquire)).sum()
    }

    /// Empties every cell and returns what was in them.
    fn recall(&self) -> u64 {
        self.0.iter().map(|cell| cell.swap(0, Ordering::AcqRel)).sum()
    }
}

type CellMap = Mutex<HashMap<TenantRow, Arc<LeaseCells>>>;

/// Where the cores find metering.
#[derive(Debug)]
pub struct MeteringHandle {
    cells: Arc<CellMap>,
    cores: usize,
    actor: Mutex<Option<Addr<Metering>>>,
}

impl MeteringHandle {
    pub(crate) fn new(cores: usize) -> Self {
        Self {
            cells: Arc::default(),
            cores,
            actor: Mutex::new(None),
        }
    }

    pub(crate) fn cells(&self, tenant: TenantRow) -> Arc<LeaseCells> {
        let mut cells = self.cells.lock();
        Arc::clone(
            cells
                .entry(tenant)
                .or_insert_with(|| Arc::new(LeaseCells::new(self.cores))),
        )
    }

    /// Starts the actor on the current arbiter, at first and whenever the keeper finds it gone.
    pub fn start_here(&self) {
        let actor = Metering {
            accounts: HashMap::new(),
        };
        *self.actor.lock() = Some(actix::Supervisor::start(|_| actor));
    }

    /// Whether the actor takes messages.
    pub fn is_up(&self) -> bool {
        self.actor.lock().as_ref().is_some_and(Addr::connected)
    }

    /// Makes the actor panic, for rehearsals. False: there is none to panic.
    pub fn poison(&self) -> bool {
        self.actor
            .lock()
            .as_ref()
            .is_some_and(|actor| actor.try_send(Poison).is_ok())
    }

    /// Asks for units for a call; the call goes on when the answer comes, whatever it is.
    pub(crate) fn ask_lease(&self, core: &Core, tenant: Arc<Tenant>, units: u64, ticket: Ticket) {
        let lease = Lease {
            cells: self.cells(tenant.row),
            tenant,
            core: core.number,
            units,
        };
        let request = self
            .actor
            .lock()
            .as_ref()
            .map(|actor| actor.send(lease).timeout(PATIENCE));
        actix_rt::spawn(async move {
            let answer = match request {
                Some(request) => request.await.unwrap_or_else(|_| Err(unavailable())),
                None => Err(unavailable()),
            };
            if let Some(core) = Core::current() {
                resume(&core, ticket, answer);
            }
        });
    }
}

fn resume(core: &Rc<Core>, ticket: Ticket, answer: Result<(), Refusal>) {
    core.events.borrow_mut().push_back(Event::Leased(ticket, answer));
    core.nudge();
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Restarted, "metering restarts; retry with the same key").retry_after_ms(100)
}

/// The actor.
pub struct Metering {
    accounts: HashMap<TenantRow, Balance>,
}

/// What is leased of one balance.
struct Balance {
    /// Units used when counting began.
    base: u64,
    /// Units given to cells since, less those recalled from them.
    leased: u64,
}

impl Balance {
    /// Counts from what is known now. Units in flight are not; the committing thread will judge them.
    fn begin(tenant: &Tenant, cells: &LeaseCells) -> Self {
        Self {
            base: tenant.account.used(),
            leased: cells.held(),
        }
    }

    /// Grants at least `units`, a chunk if there is as much, nothing if there is not enough.
    fn grant(&mut self, granted: u64, units: u64, cells: &LeaseCells) -> Option<u64> {
        let free = |balance: &Self| granted.saturating_sub(balance.base + balance.leased);
        if free(self) < units {
            self.leased = self.leased.saturating_sub(cells.recall());
        }
        let free = free(self);
        let grant = free.min(units.max(CHUNK));
        (grant >= units).then(|| {
            self.leased += grant;
            grant
        })
    }
}

impl Actor for Metering {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

impl Supervised for Metering {}

/// A core's request for units.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
struct Lease {
    tenant: Arc<Tenant>,
    cells: Arc<LeaseCells>,
    core: u16,
    units: u64,
}

impl Handler<Lease> for Metering {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, lease: Lease, _: &mut Self::Context) -> Self::Result {
        let Some(granted) = lease.tenant.account.granted() else {
            return Ok(());
        };
        let balance = self
            .accounts
            .entry(lease.tenant.row)
            .or_insert_with(|| Balance::begin(&lease.tenant, &lease.cells));
        // Units that were held for pending items and came back are nobody's lease any more.
        balance.leased = balance
            .leased
            .saturating_sub(lease.tenant.account.take_returned());
        let units = balance
            .grant(granted, lease.units, &lease.cells)
            .ok_or_else(|| lease.tenant.account.exhausted())?;
        lease.cells.give_back(lease.core, units);
        Ok(())
    }
}

/// Panic: for rehearsals and tests.
#[derive(Message)]
#[rtype(result = "()")]
struct Poison;

impl Handler<Poison> for Metering {
    type Result = ();

    fn handle(&mut self, _: Poison, _: &mut Self::Context) {
        panic!("rehearsal: metering panics");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_leased_once_and_idle_leases_are_recalled() {
        let cells = LeaseCells::new(2);
        let mut balance = Balance { base: 0, leased: 0 };
        cells.give_back(0, balance.grant(300, 1, &cells).unwrap());
        assert_eq!(cells.held(), 256);
        assert!(cells.take(0, 100));
        cells.give_back(1, balance.grant(300, 1, &cells).unwrap());
        assert_eq!(cells.held(), 156 + 44);
        assert!(cells.take(1, 44));
        // Nothing is free, but core 0 has 156 idle ones.
        cells.give_back(1, balance.grant(300, 1, &cells).unwrap());
        assert_eq!((cells.held(), balance.leased), (156, 300));
        assert!(cells.take(1, 156));
        assert_eq!(balance.grant(300, 1, &cells), None);
        // A failed item gives its unit back, and it can be used.
        cells.give_back(0, 1);
        assert_eq!(balance.grant(300, 1, &cells), Some(1));
    }

    #[test]
    fn all_or_none_is_taken() {
        let cells = LeaseCells::new(1);
        cells.give_back(0, 3);
        assert!(!cells.take(0, 4));
        assert!(cells.take(0, 3));
        assert!(!cells.take(0, 1));
    }
}
