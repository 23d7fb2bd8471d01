//! Unwrapped keys of one worker process: the least recently used go first, one load at a time for each key, and a
//! bounded share for each tenant while the cache is full, so that one tenant cannot flush it. Handles die with the
//! process, so no entry can outlive the session objects it names.

use std::collections::HashMap;

use parking_lot::{Condvar, Mutex};

/// The part of a full cache that a tenant keeps while others want in: a quarter.
const SHARE: usize = 4;

pub(super) struct Cache<H> {
    state: Mutex<State<H>>,
    settled: Condvar,
    capacity: usize,
}

struct State<H> {
    entries: HashMap<u32, Entry<H>>,
    by_tenant: HashMap<u32, usize>,
    clock: u64,
}

struct Entry<H> {
    /// `None` while somebody loads it.
    handle: Option<H>,
    tenant: u32,
    users: usize,
    used: u64,
}

/// What a caller is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acquired<H> {
    /// Use this, then [`Cache::release`] it.
    Ready(H),
    /// Load it, tell [`Cache::loaded`], and destroy what had to go for it.
    Load { evicted: Option<H> },
}

impl<H: Copy> Cache<H> {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            entries: HashMap::new(),
            by_tenant: HashMap::new(),
            clock: 0,
        };
        Self {
            state: Mutex::new(state),
            settled: Condvar::new(),
            capacity: capacity.max(1),
        }
    }

    pub(super) fn acquire(&self, row: u32, tenant: u32) -> Acquired<H> {
        let mut state = self.state.lock();
        loop {
            state.clock += 1;
            let now = state.clock;
            match state.entries.get_mut(&row) {
                Some(Entry {
                    handle: Some(handle),
                    users,
                    used,
                    ..
                }) => {
                    *users += 1;
                    *used = now;
                    return Acquired::Ready(*handle);
                }
                // Somebody loads it; whatever comes of that, look again.
                Some(_) => self.settled.wait(&mut state),
                None => break,
            }
        }
        let full = state.entries.len() >= self.capacity;
        let evicted = if full {
            state.evict((self.capacity / SHARE).max(1))
        } else {
            None
        };
        state.insert(row, tenant);
        Acquired::Load { evicted }
    }

    /// The load that [`Self::acquire`] asked for has ended. With a handle, the caller is one of its users.
    pub(super) fn loaded(&self, row: u32, handle: Option<H>) {
        let mut state = self.state.lock();
        match (handle, state.entries.get_mut(&row)) {
            (Some(_), Some(entry)) => entry.handle = handle,
            _ => state.remove(row),
        }
        drop(state);
        self.settled.notify_all();
    }

    pub(super) fn release(&self, row: u32) {
        if let Some(entry) = self.state.lock().entries.get_mut(&row) {
            entry.users -= 1;
        }
    }
}

impl<H: Copy> State<H> {
    fn insert(&mut self, row: u32, tenant: u32) {
        let entry = Entry {
            handle: None,
            tenant,
            users: 1,
            used: self.clock,
        };
        self.entries.insert(row, entry);
        *self.by_tenant.entry(tenant).or_insert(0) += 1;
    }

    fn remove(&mut self, row: u32) {
        let Some(entry) = self.entries.remove(&row) else {
            return;
        };
        if let Some(count) = self.by_tenant.get_mut(&entry.tenant) {
            *count -= 1;
            if *count == 0 {
                self.by_tenant.remove(&entry.tenant);
            }
        }
    }

    /// Takes out the entry that goes: of the tenant that is furthest above its share, else of all.
    fn evict(&mut self, share: usize) -> Option<H> {
        let above = self.by_tenant.iter().filter(|(_, count)| **count > share);
        let greedy = above.max_by_key(|(_, count)| **count).map(|(tenant, _)| *tenant);
        let idle = |entry: &Entry<H>| entry.users == 0 && entry.handle.is_some();
        let oldest = |of: Option<u32>| {
            let fits = |entry: &Entry<H>| idle(entry) && of.is_none_or(|tenant| entry.tenant == tenant);
            let candidates = self.entries.iter().filter(|(_, entry)| fits(entry));
            candidates
                .min_by_key(|(_, entry)| entry.used)
                .map(|(row, _)| *row)
        };
        let row = greedy
            .and_then(|tenant| oldest(Some(tenant)))
            .or_else(|| oldest(None))?;
        let handle = self.entries.get(&row).and_then(|entry| entry.handle);
        self.remove(row);
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cache: &Cache<u32>, row: u32, tenant: u32) -> Option<u32> {
        match cache.acquire(row, tenant) {
            Acquired::Ready(handle) => {
                assert_eq!(handle, row * 10);
                cache.release(row);
                None
            }
            Acquired::Load { evicted } => {
                cache.loaded(row, Some(row * 10));
                cache.release(row);
                Some(evicted.unwrap_or(0))
            }
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_keys_in_use_stay() {
        let cache = Cache::new(3);
        for row in 1..=3 {
            assert_eq!(load(&cache, row, row), Some(0));
        }
        assert_eq!(load(&cache, 1, 1), None, "it is there");
        assert_eq!(load(&cache, 4, 4), Some(20), "2 was used longest ago");
        assert_eq!(cache.acquire(3, 3), Acquired::Ready(30));
        assert_eq!(load(&cache, 5, 5), Some(10), "3 is older and in use");
        cache.release(3);
    }

    #[test]
    fn a_greedy_tenant_evicts_its_own() {
        let cache = Cache::new(8);
        load(&cache, 100, 2);
        (1..=7).for_each(|row| assert_eq!(load(&cache, row, 1), Some(0)));
        (8..=50).for_each(|row| assert_ne!(load(&cache, row, 1), Some(1000)));
        assert_eq!(
            load(&cache, 100, 2),
            None,
            "the other tenant's key is still there"
        );
        assert!(load(&cache, 101, 2).is_some_and(|evicted| evicted < 1000));
    }

    #[test]
    fn a_failed_load_leaves_nothing_and_the_next_may_try() {
        let cache: Cache<u32> = Cache::new(2);
        assert_eq!(cache.acquire(1, 1), Acquired::Load { evicted: None });
        cache.loaded(1, None);
        assert_eq!(load(&cache, 1, 1), Some(0));
    }

    #[test]
    fn of_many_that_miss_at_once_one_loads() {
        let cache = Cache::new(4);
        let loads = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    if load(&cache, 7, 1).is_some() {
                        loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }
}
