//! Jobs of one kind of key, signed together where that is faster.

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

impl<T: Work> Lane<T> {
    /// Signs what is there in groups of one kind, and by itself what is left over.
    pub(super) fn finish_together(
        &self,
        multi: &Multi,
        batch: Vec<Waiting<T>>,
        now: Instant,
        made: &mut u64,
    ) -> Vec<Finished<T>> {
        let mut finished = Vec::with_capacity(batch.len());
        let mut groups: [Vec<Waiting<T>>; KeyKind::ALL.len()] = Default::default();
        for job in batch {
            let kind = job.work.kind();
            let group = &mut groups[kind as usize];
            group.push(job);
            if group.len() == WIDTH {
                let group = std::mem::take(group);
                self.finish_group(multi, kind, group, now, made, &mut finished);
            }
        }
        for (kind, group) in KeyKind::ALL.into_iter().zip(groups) {
            self.finish_group(multi, kind, group, now, made, &mut finished);
        }
        finished
    }

    fn finish_group(
        &self,
        multi: &Multi,
        kind: KeyKind,
        group: Vec<Waiting<T>>,
        now: Instant,
        made: &mut u64,
        finished: &mut Vec<Finished<T>>,
    ) {
        let (group, alone): (Vec<_>, Vec<_>) = if multi.pays(kind, group.len()) {
            group
                .into_iter()
                .partition(|job| !self.is_overdue(job, now) && now < job.work.deadline())
        } else {
            (Vec::new(), group)
        };
        finished.extend(self.finish_each(alone, now, made));
        let begun = clock::monotonic();
        let keys: Vec<_> = group
            .iter()
            .map(|job| self.keys.software(job.work.key()).ok())
            .collect();
        let (ready, keyless): (Vec<_>, Vec<_>) =
            group.into_iter().zip(keys).partition(|(_, key)| key.is_some());
        // What has no key is told so by the road for single jobs.
        finished.extend(self.finish_each(keyless.into_iter().map(|(job, _)| job), now, made));
        let ready: Vec<_> = ready
            .into_iter()
            .filter_map(|(job, key)| Some((job, key?)))
            .collect();
        let signatures = sign(multi, kind, &ready);
        let signed = clock::monotonic();
        for ((job, key), signature) in ready.into_iter().zip(signatures) {
            let Some(signature) = signature else {
                finished.extend(self.finish_each([job], now, made));
                continue;
            };
            job.work.mark(Mark::Begun, begun);
            let result = self.checked(&key, &job.work, signature, made);
            if result.is_ok() {
                self.counters.together.fetch_add(1, Ordering::Relaxed);
                job.work.mark(Mark::Signed, signed);
            }
            finished.push(self.counted(job.work, result));
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

/// A panic costs the call, and its jobs are signed one by one.
fn sign<T: Work>(
    multi: &Multi,
    kind: KeyKind,
    jobs: &[(Waiting<T>, Arc<SoftKey>)],
) -> Vec<Option<SignatureBytes>> {
    if jobs.is_empty() {
        return Vec::new();
    }
    let tasks: Vec<_> = jobs
        .iter()
        .map(|(job, key)| Task {
            key,
            algorithm: job.work.algorithm(),
            input: job.work.input(),
            user_id: job.work.user_id(),
        })
        .collect();
    catch_unwind(AssertUnwindSafe(|| multi.sign(kind, &tasks))).unwrap_or_else(|_| vec![None; jobs.len()])
}
