//! Load on a pool, and a judge of what comes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hsm_pool::job::{Finished, JobError};
use protocol::algorithm::Algorithm;
use protocol::ids::KeyRow;

use crate::support::{Job, TestHome, World, assert_verifies, job, soon};

/// What is asked for, again and again.
#[derive(Clone)]
pub(crate) struct Demand {
    pub(crate) row: KeyRow,
    pub(crate) algorithm: Algorithm,
    pub(crate) public_key: Vec<u8>,
    pub(crate) home: TestHome,
    /// Jobs in flight at once.
    pub(crate) width: usize,
}

/// What came of it. A wrong signature never gets as far as here: it fails the test.
#[derive(Default)]
pub(crate) struct Tally {
    /// When each signature came, and how long after its job was handed over.
    pub(crate) signed: Vec<(Instant, Duration)>,
    /// When each job that brought none ended, and why.
    pub(crate) failed: Vec<(Instant, JobError)>,
    /// When a job was not taken.
    pub(crate) refused: Vec<Instant>,
    /// What came of jobs that somebody else handed over, with another key.
    pub(crate) others: Vec<Finished<Job>>,
}

impl Tally {
    /// The last moment at which anybody got something else than a signature.
    pub(crate) fn last_error(&self) -> Option<Instant> {
        let failed = self.failed.last().map(|(at, _)| *at);
        failed.max(self.refused.last().copied())
    }

    pub(crate) fn errors(&self) -> usize {
        self.failed.len() + self.refused.len()
    }

    /// Signatures that came after a moment.
    pub(crate) fn signed_since(&self, from: Instant) -> usize {
        self.signed.iter().filter(|(at, _)| *at >= from).count()
    }

    /// How long a signature took, at this part of all of them, between two moments.
    pub(crate) fn percentile(&self, part: f64, from: Instant, to: Instant) -> Duration {
        let within = self.signed.iter().filter(|(at, _)| *at >= from && *at < to);
        let mut took: Vec<Duration> = within.map(|(_, took)| *took).collect();
        took.sort_unstable();
        let place = (took.len() as f64 * part) as usize;
        took.get(place.min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn assert_no_errors(&self, what: &str) {
        assert_eq!((self.failed.first(), self.refused.len()), (None, 0), "{what}");
        assert!(!self.signed.is_empty(), "{what}");
    }
}

/// Keeps the demand up while `act` runs, and until every job has ended.
pub(crate) fn under_load<R>(world: &World, demand: &Demand, act: impl FnOnce() -> R) -> (R, Tally) {
    /// Ends the load also when `act` fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let driver = scope.spawn(|| drive(world, demand, &ending));
        let done = {
            let _end = End(&ending);
            act()
        };
        (done, driver.join().expect("every answer was in order"))
    })
}

fn drive(world: &World, demand: &Demand, ending: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let (mut number, mut open) = (0, 0);
    loop {
        let wanted = !ending.load(Ordering::Acquire);
        while wanted && open < demand.width {
            number += 1;
            match world
                .pool
                .submit(job(number, demand.row, demand.algorithm, demand.home.clone()))
            {
                Ok(()) => open += 1,
                Err(_) => {
                    tally.refused.push(soon(0));
                    break;
                }
            }
        }
        if open == 0 {
            if !wanted {
                return tally;
            }
            // Like any decent client that is refused, not in a tight loop.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let done = world.next();
        if done.work.key != demand.row {
            tally.others.push(done);
            continue;
        }
        open -= 1;
        let now = soon(0);
        match done.result {
            Ok(signature) => {
                assert_verifies(&demand.public_key, &done.work, &signature);
                let begun = done.work.deadline - Duration::from_secs(10);
                tally.signed.push((now, now - begun));
            }
            Err(error) => tally.failed.push((now, error)),
        }
    }
}
