//! The queue of a group of lanes or of a device: fair between tenants by the time their jobs take, interactive before
//! batch, and short. Pure: costs and bounds in, verdicts out; [`crate::inbox`] adds the lock and the waiting.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) with microseconds of lane time as the unit: each tenant in turn is
//! given a quantum and takes the jobs it can pay for. A tenant that sends ten times its share fills its own place in
//! the queue, not the others': when the queue is as long as it may be, a tenant below its part of it still gets in, and the
//! youngest job of the tenant that has most waiting makes room.

use std::collections::{HashMap, VecDeque};

use protocol::ids::TenantRow;

/// Whether somebody waits for the answer now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// A caller waits.
    #[default]
    Interactive,
    /// A job that is worked off when there is time.
    Batch,
}

/// What a tenant is given in its turn at least, in microseconds of lane time: a few P-256 signatures. While dearer jobs wait it is
/// what the dearest costs, so that one turn pays for any job and a pop does not go round and round.
const QUANTUM_US: u64 = 100;
/// Of each so many turns, this one is batch's while interactive jobs wait: batch gets at least a tenth of the turns and is
/// not starved.
const BATCH_TURN: u64 = 10;

/// What came of offering a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offered<T> {
    /// It waits.
    Taken,
    /// It waits, and this one had to go for it.
    Instead(T),
    /// It would wait too long.
    Refused(T),
}

struct Flow<T> {
    jobs: VecDeque<(u64, T)>,
    waiting_us: u64,
    deficit_us: u64,
}

struct Class<T> {
    flows: HashMap<TenantRow, Flow<T>>,
    /// Tenants that have jobs, in the order of their turns.
    ring: VecDeque<TenantRow>,
    waiting_us: u64,
    quantum_us: u64,
}

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self {
            flows: HashMap::new(),
            ring: VecDeque::new(),
            waiting_us: 0,
            quantum_us: QUANTUM_US,
        }
    }
}

pub(crate) struct FairQueue<T> {
    interactive: Class<T>,
    batch: Class<T>,
    turns: u64,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            interactive: Class::default(),
            batch: Class::default(),
            turns: 0,
            len: 0,
        }
    }
}

/// A job as it is offered.
pub(crate) struct Offer<T> {
    pub(crate) tenant: TenantRow,
    pub(crate) priority: Priority,
    /// What it costs, in microseconds of lane time.
    pub(crate) cost_us: u64,
    /// Whether it belongs to a call whose first job has just been taken: a call is admitted as a whole.
    pub(crate) follows: bool,
    pub(crate) job: T,
}

impl<T> FairQueue<T> {
    /// Takes a job in while what waits costs less than `bound_us`, and fewer than `len_max` wait. A bound of one job is
    /// always kept free: a queue that is empty takes anything.
    pub(crate) fn offer(&mut self, offer: Offer<T>, bound_us: u64, len_max: usize) -> Offered<T> {
        let waiting = self.waiting_us();
        if (waiting < bound_us || offer.follows) && self.len < len_max {
            self.insert(offer);
            return Offered::Taken;
        }
        match self.displace(&offer, bound_us) {
            Some(displaced) => {
                self.insert(offer);
                Offered::Instead(displaced)
            }
            None => Offered::Refused(offer.job),
        }
    }

    fn class(&mut self, priority: Priority) -> &mut Class<T> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }

    fn insert(&mut self, offer: Offer<T>) {
        self.len += 1;
        self.class(offer.priority)
            .push(offer.tenant, offer.cost_us, offer.job);
    }

    /// Makes room for a tenant that is below its part of the queue, at the cost of the one that has most in it.
    fn displace(&mut self, offer: &Offer<T>, bound_us: u64) -> Option<T> {
        // Batch makes room for interactive jobs, and never the other way round.
        if offer.priority == Priority::Interactive && self.batch.waiting_us > 0 {
            self.len -= 1;
            return self.batch.drop_youngest_of_longest(None);
        }
        let waiting_us = self.waiting_us();
        let class = self.class(offer.priority);
        let tenants = class.flows.len() as u64 + u64::from(!class.flows.contains_key(&offer.tenant));
        let part = bound_us / tenants.max(1);
        // Where jobs are dear a part may be less than two of them, and whoever asks evenly has two waiting now and then.
        let may_have = part.max(2 * offer.cost_us);
        let own = class.flows.get(&offer.tenant).map_or(0, |flow| flow.waiting_us);
        let wanted = own + offer.cost_us;
        // What is above a part comes on top of the bound, and all of that together has a bound as well.
        let too_much = wanted > part && waiting_us + offer.cost_us > 2 * bound_us;
        if wanted > may_have || too_much {
            return None;
        }
        let displaced = class.drop_youngest_of_longest(Some((offer.tenant, part.max(wanted))))?;
        self.len -= 1;
        Some(displaced)
    }

    /// The next job in turn.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.turns += 1;
        let batch_first = self.turns.is_multiple_of(BATCH_TURN);
        let (first, second) = if batch_first {
            (&mut self.batch, &mut self.interactive)
        } else {
            (&mut self.interactive, &mut self.batch)
        };
        let job = first.pop().or_else(|| second.pop())?;
        self.len -= 1;
        Some(job)
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// What waits, in microseconds of lane time.
    pub(crate) const fn waiting_us(&self) -> u64 {
        self.interactive.waiting_us + self.batch.waiting_us
    }

    pub(crate) fn drain(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len);
        while let Some(job) = self.pop() {
            all.push(job);
        }
        all
    }
}

impl<T> Class<T> {
    fn push(&mut self, tenant: TenantRow, cost_us: u64, job: T) {
        self.waiting_us += cost_us;
        self.quantum_us = self.quantum_us.max(cost_us);
        let flow = self.flows.entry(tenant).or_insert_with(|| {
            self.ring.push_back(tenant);
            Flow {
                jobs: VecDeque::new(),
                waiting_us: 0,
                deficit_us: 0,
            }
        });
        flow.waiting_us += cost_us;
        flow.jobs.push_back((cost_us, job));
    }

    fn pop(&mut self) -> Option<T> {
        loop {
            let tenant = *self.ring.front()?;
            let alone = self.ring.len() == 1;
            let Some(flow) = self.flows.get_mut(&tenant) else {
                self.ring.pop_front();
                continue;
            };
            let cost = flow.jobs.front().map_or(0, |(cost, _)| *cost);
            if !alone && flow.deficit_us < cost {
                flow.deficit_us += self.quantum_us;
                self.ring.rotate_left(1);
                continue;
            }
            flow.deficit_us = flow.deficit_us.saturating_sub(cost);
            let (cost, job) = flow.jobs.pop_front()?;
            flow.waiting_us -= cost;
            self.waiting_us -= cost;
            self.forget_if_empty(tenant);
            return Some(job);
        }
    }

    fn forget_if_empty(&mut self, tenant: TenantRow) {
        if self.flows.get(&tenant).is_some_and(|flow| flow.jobs.is_empty()) {
            self.flows.remove(&tenant);
            self.ring.retain(|other| *other != tenant);
        }
        if self.ring.is_empty() {
            self.quantum_us = QUANTUM_US;
        }
    }

    /// Takes out the youngest job of the tenant that has most waiting; with `other_than`, not of that one, and only of one
    /// that has more than is named.
    fn drop_youngest_of_longest(&mut self, other_than: Option<(TenantRow, u64)>) -> Option<T> {
        let fits = |tenant: TenantRow, flow: &Flow<T>| {
            other_than.is_none_or(|(other, part)| tenant != other && flow.waiting_us > part)
        };
        let flows = self.flows.iter().filter(|(tenant, flow)| fits(**tenant, flow));
        let longest = flows
            .max_by_key(|(_, flow)| flow.waiting_us)
            .map(|(tenant, _)| *tenant)?;
        let flow = self.flows.get_mut(&longest)?;
        let (cost, job) = flow.jobs.pop_back()?;
        flow.waiting_us -= cost;
        self.waiting_us -= cost;
        self.forget_if_empty(longest);
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND_US: u64 = 40_000;

    fn offer(tenant: u32, cost_us: u64, job: u32) -> Offer<(u32, u32)> {
        let tenant_row = TenantRow(tenant);
        Offer {
            tenant: tenant_row,
            priority: Priority::Interactive,
            cost_us,
            follows: false,
            job: (tenant, job),
        }
    }

    fn fill(queue: &mut FairQueue<(u32, u32)>, tenant: u32, cost_us: u64, count: u32) -> usize {
        let mut taken = 0;
        for number in 0..count {
            let offered = queue.offer(offer(tenant, cost_us, number), BOUND_US, 100_000);
            taken += usize::from(!matches!(offered, Offered::Refused(_)));
        }
        taken
    }

    #[test]
    fn one_tenant_is_served_in_order_up_to_the_bound() {
        let mut queue = FairQueue::default();
        assert_eq!(fill(&mut queue, 1, 100, 1000), 400);
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|(_, job)| job).collect();
        assert_eq!(order, (0..400).collect::<Vec<_>>());
        assert_eq!((queue.len(), queue.waiting_us()), (0, 0));
        assert_eq!(
            fill(&mut queue, 1, 1_000_000, 2),
            1,
            "an empty queue takes anything, and one is enough"
        );
    }

    #[test]
    fn a_call_is_admitted_as_a_whole() {
        let mut queue = FairQueue::default();
        assert_eq!(queue.offer(offer(1, 1_600, 0), BOUND_US, 100), Offered::Taken);
        for job in 1..64 {
            let next = Offer {
                follows: true,
                ..offer(1, 1_600, job)
            };
            assert_eq!(queue.offer(next, BOUND_US, 100), Offered::Taken);
        }
        assert!(matches!(
            queue.offer(offer(1, 1_600, 64), BOUND_US, 100),
            Offered::Refused(_)
        ));
    }

    #[test]
    fn lane_time_is_shared_not_jobs() {
        let mut queue = FairQueue::default();
        fill(&mut queue, 1, 100, 200);
        fill(&mut queue, 2, 1_000, 20);
        let mut time = HashMap::new();
        for _ in 0..110 {
            let (tenant, _) = queue.pop().unwrap();
            *time.entry(tenant).or_insert(0) += if tenant == 1 { 100 } else { 1_000 };
        }
        let (cheap, dear) = (time[&1], time[&2]);
        assert!(
            (9_000..=11_000).contains(&cheap) && (9_000..=11_000).contains(&dear),
            "{cheap} {dear}"
        );
    }

    #[test]
    fn a_greedy_tenant_makes_room_for_the_others() {
        let mut queue = FairQueue::default();
        fill(&mut queue, 1, 100, 1_000);
        // Nine others at half of their share of the queue: all get in.
        for tenant in 2..=10 {
            assert_eq!(fill(&mut queue, tenant, 100, 20), 20, "tenant {tenant}");
        }
        assert_eq!(fill(&mut queue, 1, 100, 10), 0, "the greedy one is refused");
        let served: Vec<u32> = std::iter::from_fn(|| queue.pop())
            .map(|(tenant, _)| tenant)
            .collect();
        for tenant in 2..=10 {
            assert_eq!(served.iter().filter(|other| **other == tenant).count(), 20);
        }
        assert!(
            served[..100].iter().filter(|tenant| **tenant == 1).count() <= 12,
            "it waits its turn"
        );
    }

    #[test]
    fn two_dear_jobs_of_a_modest_tenant_fit_beside_a_greedy_one() {
        let mut queue = FairQueue::default();
        fill(&mut queue, 1, 10_000, 1_000);
        for tenant in 2..=10 {
            let first = queue.offer(offer(tenant, 10_000, 0), BOUND_US, 100_000);
            let took = !matches!(first, Offered::Refused(_));
            // Four jobs fill this queue; the greedy one's go until it has no more than the others.
            assert_eq!(took, tenant <= 4, "tenant {tenant}");
        }
        let mut queue = FairQueue::default();
        fill(&mut queue, 1, 10_000, 1_000);
        assert_eq!(fill(&mut queue, 2, 10_000, 3), 2, "two, and no third");
    }

    #[test]
    fn batch_waits_for_interactive_jobs_and_is_not_starved() {
        let mut queue = FairQueue::default();
        for job in 0..100 {
            let batch = Offer {
                priority: Priority::Batch,
                ..offer(1, 100, 1_000 + job)
            };
            assert_eq!(queue.offer(batch, BOUND_US, 1_000), Offered::Taken);
        }
        fill(&mut queue, 1, 100, 100);
        let first: Vec<bool> = (0..100).map(|_| queue.pop().unwrap().1 >= 1_000).collect();
        assert_eq!(first.iter().filter(|batch| **batch).count(), 10);
    }

    #[test]
    fn interactive_jobs_push_batch_out_of_a_full_queue() {
        let mut queue = FairQueue::default();
        for job in 0..400 {
            queue.offer(
                Offer {
                    priority: Priority::Batch,
                    ..offer(1, 100, job)
                },
                BOUND_US,
                1_000,
            );
        }
        let batch = Offer {
            priority: Priority::Batch,
            ..offer(1, 100, 999)
        };
        assert!(matches!(queue.offer(batch, BOUND_US, 1_000), Offered::Refused(_)));
        assert_eq!(
            queue.offer(offer(1, 100, 1_000), BOUND_US, 1_000),
            Offered::Instead((1, 399))
        );
        assert_eq!(queue.drain().len(), 400);
    }
}
