//! One thread's connections: a few to each server for each app and transport, replaced when they break, and on purpose
//! when the run asks for churn.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use protocol::client::{Client, Profile, Transport};
use protocol::clock;
use protocol::error_code::{Code, Refusal};

/// A connection attempt that takes longer has failed.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long the requests of a replaced connection may take to come home.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(10);
const GOODBYE_LOOK: Duration = Duration::from_millis(50);

/// Connections of one app over one transport.
#[derive(Clone, Debug)]
pub(crate) struct LanePlan {
    pub(crate) profile: Arc<Profile>,
    pub(crate) transport: Transport,
    pub(crate) connections: usize,
}

impl LanePlan {
    /// QUIC: a client for each connection. HTTPS: one client that spreads over its connections.
    const fn clients(&self) -> usize {
        match self.transport {
            Transport::Quic => self.connections,
            Transport::Https => 1,
        }
    }

    async fn connect(&self) -> Result<Client, Refusal> {
        let connecting = Client::connect(&self.profile, self.transport, self.connections);
        tokio::time::timeout(CONNECT_PATIENCE, connecting)
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Code::Connection, "no connection within 3 s")))
    }
}

struct Lane {
    plan: LanePlan,
    seats: Vec<Arc<Client>>,
}

/// A client in use, and where it came from.
pub(crate) struct Ride {
    pub(crate) client: Arc<Client>,
    seat: Seat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    lane: usize,
    at: usize,
}

/// All of them.
pub(crate) struct Fleet {
    lanes: RefCell<Vec<Lane>>,
    /// Seats whose connection was seen broken; as many at most as there are seats.
    broken: RefCell<Vec<Seat>>,
    /// The seat that churn takes next.
    turn: Cell<usize>,
}

impl Fleet {
    /// Connects. `connected` hears how long each handshake took.
    pub(crate) async fn connect(
        plans: &[LanePlan],
        mut connected: impl FnMut(Duration),
    ) -> Result<Self, Refusal> {
        let mut lanes = Vec::with_capacity(plans.len());
        for plan in plans {
            let mut seats = Vec::new();
            for _ in 0..plan.clients() {
                let before = clock::monotonic();
                seats.push(Arc::new(plan.connect().await?));
                connected(clock::monotonic().saturating_duration_since(before));
            }
            lanes.push(Lane {
                plan: plan.clone(),
                seats,
            });
        }
        Ok(Self {
            lanes: RefCell::new(lanes),
            broken: RefCell::default(),
            turn: Cell::new(0),
        })
    }

    /// The client for a request of a lane.
    pub(crate) fn ride(&self, lane: usize, number: u64) -> Ride {
        let seats = &self.lanes.borrow()[lane].seats;
        let at = (number % seats.len() as u64) as usize;
        Ride {
            client: Arc::clone(&seats[at]),
            seat: Seat { lane, at },
        }
    }

    /// A request found its connection broken. HTTPS clients heal themselves.
    pub(crate) fn report_broken(&self, ride: &Ride) {
        let lanes = self.lanes.borrow();
        let lane = &lanes[ride.seat.lane];
        let is_current = Arc::ptr_eq(&lane.seats[ride.seat.at], &ride.client);
        let mut broken = self.broken.borrow_mut();
        if is_current && lane.plan.transport == Transport::Quic && !broken.contains(&ride.seat) {
            broken.push(ride.seat);
        }
    }

    /// Replaces one broken connection. `None`: none is broken.
    pub(crate) async fn repair(&self) -> Option<Result<Duration, Refusal>> {
        let seat = self.broken.borrow_mut().pop()?;
        let result = self.replace(seat).await;
        if result.is_err() {
            self.broken.borrow_mut().push(seat);
        }
        Some(result)
    }

    /// Replaces the next connection in turn, whole as it is.
    pub(crate) async fn churn(&self) -> Result<Duration, Refusal> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let seat = {
            let lanes = self.lanes.borrow();
            let seats: Vec<Seat> = (0..lanes.len())
                .flat_map(|lane| (0..lanes[lane].seats.len()).map(move |at| Seat { lane, at }))
                .collect();
            seats[turn % seats.len()]
        };
        self.replace(seat).await
    }

    /// Connects anew, and lets the requests on the old connection come home before it is closed.
    async fn replace(&self, seat: Seat) -> Result<Duration, Refusal> {
        let plan = self.lanes.borrow()[seat.lane].plan.clone();
        let before = clock::monotonic();
        let fresh = Arc::new(plan.connect().await?);
        let length = clock::monotonic().saturating_duration_since(before);
        let old = std::mem::replace(&mut self.lanes.borrow_mut()[seat.lane].seats[seat.at], fresh);
        tokio::spawn(say_goodbye(old));
        Ok(length)
    }

    /// Closes every connection.
    pub(crate) async fn close(self) {
        for lane in self.lanes.into_inner() {
            for seat in lane.seats {
                seat.close().await;
            }
        }
    }
}

async fn say_goodbye(old: Arc<Client>) {
    let until = clock::monotonic() + GOODBYE_PATIENCE;
    while Arc::strong_count(&old) > 1 && clock::monotonic() < until {
        tokio::time::sleep(GOODBYE_LOOK).await;
    }
    old.close().await;
}
