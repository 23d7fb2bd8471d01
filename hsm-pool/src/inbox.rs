//! A fair queue that threads wait at: the lanes' one.
//!
//! Waking a thread costs a third of a P-256 signature, and on a busy machine it takes the processor from whoever brings
//! the jobs. So a second thread is woken only when those that are up have more to do than [`ENOUGH_US`] each.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::queue::{FairQueue, Offer, Offered};

pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    /// For whoever wants to know without waiting for the lock.
    waiting_us: AtomicU64,
    len: AtomicUsize,
}

/// Threads that have less than this to do, in microseconds, need no help.
const ENOUGH_US: u64 = 200;

struct State<T> {
    queue: FairQueue<T>,
    /// Threads that wait and have not been woken.
    idle: usize,
    /// Threads that work, or have been woken to.
    up: usize,
    /// What the threads that work had in hand when they last took something.
    in_hand_us: u64,
    /// Threads that are to end.
    surplus: usize,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        let state = State {
            queue: FairQueue::default(),
            idle: 0,
            up: 0,
            in_hand_us: 0,
            surplus: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
            waiting_us: AtomicU64::new(0),
            len: AtomicUsize::new(0),
        }
    }
}

impl<T> State<T> {
    /// Whether another thread is needed; it counts as up from now on.
    fn wake(&mut self) -> bool {
        let work_us = self.queue.waiting_us() + self.in_hand_us;
        let wake = self.idle > 0 && self.queue.len() > 0 && work_us >= ENOUGH_US * self.up as u64;
        if wake {
            self.idle -= 1;
            self.up += 1;
        }
        wake
    }
}

/// What a thread takes out.
pub(crate) struct Taken<T> {
    pub(crate) jobs: Vec<T>,
    /// What they were thought to cost; to be given back with the next [`Inbox::take`].
    pub(crate) cost_us: u64,
}

impl<T> Inbox<T> {
    pub(crate) fn offer(&self, offer: Offer<T>, bound_us: u64, len_max: usize) -> Offered<T> {
        let mut state = self.state.lock();
        if state.closed {
            return Offered::Refused(offer.job);
        }
        let offered = state.queue.offer(offer, bound_us, len_max);
        self.publish(&state.queue);
        let wake = state.wake();
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        offered
    }

    /// A thread begins to serve.
    pub(crate) fn enter(&self) {
        self.state.lock().up += 1;
    }

    /// Takes jobs that cost about `budget_us` together, and more while those taken `want_more`; waits for the first only.
    /// `done_us` is what the thread's last jobs were thought to cost. `None`: this thread is to end.
    pub(crate) fn take(
        &self,
        budget_us: u64,
        want_more: impl Fn(&[T]) -> bool,
        done_us: u64,
    ) -> Option<Taken<T>> {
        let mut state = self.state.lock();
        state.in_hand_us -= done_us;
        loop {
            let ends = state.surplus > 0 || (state.closed && state.queue.len() == 0);
            if ends {
                state.surplus = state.surplus.saturating_sub(1);
                state.up -= 1;
                return None;
            }
            if state.queue.len() > 0 {
                break;
            }
            // Whoever wakes this thread counts it as up again.
            state.idle += 1;
            state.up -= 1;
            self.filled.wait(&mut state);
        }
        let before = state.queue.waiting_us();
        let mut jobs = Vec::new();
        while (before - state.queue.waiting_us() < budget_us || want_more(&jobs))
            && let Some(job) = state.queue.pop()
        {
            jobs.push(job);
        }
        let cost_us = before - state.queue.waiting_us();
        state.in_hand_us += cost_us;
        self.publish(&state.queue);
        let more = state.wake();
        drop(state);
        if more {
            self.filled.notify_one();
        }
        Some(Taken { jobs, cost_us })
    }

    fn publish(&self, queue: &FairQueue<T>) {
        self.waiting_us.store(queue.waiting_us(), Ordering::Relaxed);
        self.len.store(queue.len(), Ordering::Relaxed);
    }

    /// One of the threads ends after what it has in hand.
    pub(crate) fn retire_one(&self) {
        let mut state = self.state.lock();
        state.surplus += 1;
        let idle = state.idle > 0;
        if idle {
            state.idle -= 1;
            state.up += 1;
        }
        drop(state);
        if idle {
            self.filled.notify_one();
        }
    }

    /// Takes such an order back, if no thread has followed it yet.
    pub(crate) fn keep_one(&self) -> bool {
        let mut state = self.state.lock();
        let kept = state.surplus > 0;
        state.surplus -= usize::from(kept);
        kept
    }

    /// Takes nothing more in; the threads end when it is empty.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.up += std::mem::take(&mut state.idle);
        drop(state);
        self.filled.notify_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn waiting_us(&self) -> u64 {
        self.waiting_us.load(Ordering::Relaxed)
    }
}
