//! A fair queue that threads wait at: the lanes' one.

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

struct State<T> {
    queue: FairQueue<T>,
    /// Threads that wait.
    idle: usize,
    /// Threads that are to end.
    surplus: usize,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        let state = State {
            queue: FairQueue::default(),
            idle: 0,
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

impl<T> Inbox<T> {
    pub(crate) fn offer(&self, offer: Offer<T>, bound_us: u64, len_max: usize) -> Offered<T> {
        let mut state = self.state.lock();
        if state.closed {
            return Offered::Refused(offer.job);
        }
        let offered = state.queue.offer(offer, bound_us, len_max);
        self.publish(&state.queue);
        let wake = state.idle > 0 && !matches!(offered, Offered::Refused(_));
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        offered
    }

    /// Takes jobs that cost about `budget_us` together, at least one; waits for the first. `None`: this thread is to end.
    pub(crate) fn take(&self, budget_us: u64) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        loop {
            if state.surplus > 0 {
                state.surplus -= 1;
                return None;
            }
            if state.queue.len() > 0 {
                break;
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            self.filled.wait(&mut state);
            state.idle -= 1;
        }
        let before = state.queue.waiting_us();
        let mut taken = Vec::new();
        while before - state.queue.waiting_us() < budget_us
            && let Some(job) = state.queue.pop()
        {
            taken.push(job);
        }
        self.publish(&state.queue);
        Some(taken)
    }

    fn publish(&self, queue: &FairQueue<T>) {
        self.waiting_us.store(queue.waiting_us(), Ordering::Relaxed);
        self.len.store(queue.len(), Ordering::Relaxed);
    }

    /// One of the threads ends after what it has in hand.
    pub(crate) fn retire_one(&self) {
        self.state.lock().surplus += 1;
        self.filled.notify_one();
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
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn waiting_us(&self) -> u64 {
        self.waiting_us.load(Ordering::Relaxed)
    }
}
