//! Jobs of one kind of key, signed together where that is faster. Jobs stay where they are; groups are their numbers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use protocol::algorithm::KeyKind;
use protocol::clock;
use protocol::stages::Mark;
use protocol::verify::SignatureBytes;

use super::{Lane, Waiting};
use crate::job::{Finished, JobError, Work};
use crate::multi::{Multi, Task, WIDTH};
use crate::soft::SoftKey;

/// What came of the jobs of a batch; nothing yet for those that are to be signed by themselves.
type Results = Vec<Option<Result<SignatureBytes, JobError>>>;

/// Up to eight jobs of one kind, by number, with their keys.
#[derive(Default)]
struct Group {
    len: usize,
    jobs: [usize; WIDTH],
    keys: [Option<Arc<SoftKey>>; WIDTH],
}

impl Group {
    fn push(&mut self, job: usize, key: Arc<SoftKey>) {
        self.jobs[self.len] = job;
        self.keys[self.len] = Some(key);
        self.len += 1;
    }

    fn members(&self) -> impl Iterator<Item = (usize, &SoftKey)> {
        let keys = self.keys.iter().filter_map(Option::as_deref);
        self.jobs.iter().copied().zip(keys).take(self.len)
    }
}

impl<T: Work> Lane<T> {
    /// Signs what is there in groups of one kind, and by itself what is left over.
    pub(super) fn finish_together(
        &self,
        multi: &Multi,
        batch: Vec<Waiting<T>>,
        now: Instant,
        made: &mut u64,
    ) -> Vec<Finished<T>> {
        let mut results: Results = batch.iter().map(|_| None).collect();
        let mut groups: [Group; KeyKind::ALL.len()] = Default::default();
        for (number, job) in batch.iter().enumerate() {
            let kind = job.work.kind();
            // Who is too late or has no key is told so on the road for single jobs.
            let in_time = now < job.work.deadline() && !self.is_overdue(job, now);
            let key = if in_time {
                self.keys.software(job.work.key()).ok()
            } else {
                None
            };
            let Some(key) = key else { continue };
            let group = &mut groups[kind as usize];
            group.push(number, key);
            if group.len == WIDTH {
                self.sign_group(multi, kind, &std::mem::take(group), &batch, &mut results, made);
            }
        }
        for (kind, group) in KeyKind::ALL.into_iter().zip(&groups) {
            self.sign_group(multi, kind, group, &batch, &mut results, made);
        }
        let single = |(job, result): (Waiting<T>, Option<_>)| match result {
            Some(result) => self.counted(job.work, result),
            None => self.finish_single(job, now, made),
        };
        batch.into_iter().zip(results).map(single).collect()
    }

    /// One call. A panic in it, or a place without a result, leaves the job to be signed by itself.
    fn sign_group(
        &self,
        multi: &Multi,
        kind: KeyKind,
        group: &Group,
        batch: &[Waiting<T>],
        results: &mut Results,
        made: &mut u64,
    ) {
        if !multi.pays(kind, group.len) {
            return;
        }
        let tasks: smallvec::SmallVec<[Task<'_>; WIDTH]> = group
            .members()
            .map(|(number, key)| task(key, &batch[number].work))
            .collect();
        let begun = clock::monotonic();
        let Some(signatures) = caught(|| multi.sign(kind, &tasks)) else {
            return;
        };
        let signed = clock::monotonic();
        for ((number, key), signature) in group.members().zip(signatures) {
            let Some(signature) = signature else { continue };
            let work = &batch[number].work;
            work.mark(Mark::Begun, begun);
            work.mark(Mark::Signed, signed);
            self.counters.together.fetch_add(1, Ordering::Relaxed);
            let checked = caught(|| self.checked(key, work, signature, made));
            results[number] = Some(checked.unwrap_or(Err(JobError::Internal)));
        }
    }

    /// Verifies a signature if it is its turn.
    fn checked(
        &self,
        key: &SoftKey,
        work: &T,
        signature: SignatureBytes,
        made: &mut u64,
    ) -> Result<SignatureBytes, JobError> {
        *made += 1;
        if self.must_verify(work.algorithm(), *made) {
            self.check(key, work, &signature)?;
        }
        Ok(signature)
    }
}

fn task<'a, T: Work>(key: &'a SoftKey, work: &'a T) -> Task<'a> {
    Task {
        key,
        algorithm: work.algorithm(),
        input: work.input(),
        user_id: work.user_id(),
    }
}

/// A panic in a library must cost a job or a call, not the lane.
fn caught<R>(run: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}
