//! The minutes of the service agreement: what each core has answered, brought together once a second with a probe of
//! the engine itself, and kept in the store.
//!
//! A minute is written while it runs, so that a crash loses two seconds of it at most; the time in which no engine lived
//! is written by the next one as probes that failed. A minute that nobody saw has no record, and is unavailable.

pub(crate) mod days;
pub mod judged;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::TenantRow;
use protocol::message::{Answer, ItemOutcome};
use sla::answer::Outcome;
use sla::calendar::MinuteIndex;
use sla::minute::{Asked, Minute, Service, Tally, UserId};
use store::{MinuteRecord, ObservedRecords};

use crate::services::Services;
use days::Days;
use judged::Judged;
use protocol::latency::micros;

/// How often the cores are asked and the engine is probed.
const BEAT: Duration = Duration::from_secs(1);
/// Beats between two writes.
const WRITE_EVERY: u32 = 2;
/// Minutes kept after they are over, for answers that were counted late.
const KEPT: u32 = 2;

/// What one core has counted and nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct MinuteLog(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    minutes: Vec<(MinuteIndex, Minute)>,
    days: Days,
}

impl Counted {
    /// The minute that is counted now: nearly always the last one.
    fn minute(&mut self, index: MinuteIndex) -> &mut Minute {
        if self.minutes.last().is_none_or(|(last, _)| *last != index) {
            self.minutes.push((index, Minute::default()));
        }
        let last = self.minutes.len() - 1;
        &mut self.minutes[last].1
    }
}

impl MinuteLog {
    /// Notes how a request ended.
    pub(crate) fn note(&self, at: UnixMillis, user: Option<TenantRow>, outcome: Outcome, latency: Duration) {
        let index = MinuteIndex::of_unix_seconds(at.seconds());
        let latency_us = micros(latency);
        let user = user.map(|row| UserId(row.0));
        let mut counted = self.0.lock();
        if outcome.is_averaged() {
            counted.days.record(index, latency_us);
        }
        counted.minute(index).record(user, outcome, latency_us);
    }

    /// Notes how a request to the certificate service ended.
    pub(crate) fn note_certificates(
        &self,
        at: UnixMillis,
        asked: Asked,
        outcome: Outcome,
        latency: Duration,
    ) {
        let index = MinuteIndex::of_unix_seconds(at.seconds());
        let mut counted = self.0.lock();
        counted
            .minute(index)
            .record_certificates(asked, outcome, micros(latency));
    }

    fn take(&self) -> Counted {
        std::mem::take(&mut *self.0.lock())
    }
}

/// How an answer counts. A call is one request, whatever it carries; its worst item decides.
pub(crate) fn outcome(result: &Result<Answer, Refusal>) -> Outcome {
    match result {
        Ok(Answer::Items(items)) => {
            let worst = items.iter().map(of_item).max_by_key(|outcome| severity(*outcome));
            worst.unwrap_or(Outcome::Result)
        }
        Ok(_) => Outcome::Result,
        Err(refusal) => of_code(refusal.code),
    }
}

fn of_item(item: &ItemOutcome) -> Outcome {
    match item {
        ItemOutcome::Done { .. } => Outcome::Result,
        ItemOutcome::Pending => Outcome::Pending,
        ItemOutcome::Failed(refusal) => of_code(refusal.code),
    }
}

/// How a refusal with this code counts.
pub fn of_code(code: Code) -> Outcome {
    match code {
        Code::OutcomePending | Code::OutcomeUnknown => Outcome::Pending,
        // A 429 is only ever given for going beyond the contract.
        code => Outcome::of_status(code.http_status(), false),
    }
}

const fn severity(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::ThrottledByContract => 0,
        Outcome::Result => 1,
        Outcome::CallerFault => 2,
        Outcome::ThrottledWithinContract => 3,
        Outcome::Busy => 4,
        Outcome::Pending => 5,
        Outcome::Failed | Outcome::Reset => 6,
    }
}

/// What an operator says about the time being.
#[derive(Debug, Default)]
pub struct Circumstances {
    /// Maintenance is under way.
    pub maintenance: AtomicBool,
    /// Capacity is being extended.
    pub extension: AtomicBool,
}

/// Whether the two services work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Signing.
    pub signing: bool,
    /// Issuing certificates.
    pub certificates: bool,
}

/// The minutes that are not over, or not over for long.
#[derive(Debug, Default)]
struct Book {
    minutes: BTreeMap<MinuteIndex, Minute>,
    changed: Vec<MinuteIndex>,
    days: Days,
}

impl Book {
    fn at(&mut self, index: MinuteIndex) -> &mut Minute {
        if !self.changed.contains(&index) {
            self.changed.push(index);
        }
        self.minutes.entry(index).or_default()
    }

    /// What is to be written. Minutes that are long over are let go.
    fn records(&mut self, now: MinuteIndex) -> ObservedRecords {
        let record = |index: &MinuteIndex| {
            let minute = self.minutes.get(index)?;
            Some(MinuteRecord {
                minute: index.number(),
                record: minute.encode(),
            })
        };
        let minutes = self.changed.iter().filter_map(record).collect();
        self.changed.clear();
        self.minutes
            .retain(|index, _| index.plus(KEPT).number() >= now.number());
        let days = self.days.records(now);
        ObservedRecords { minutes, days }
    }

    /// The seconds in which no engine lived, as far as they belong to minutes of which something is known: probes that
    /// failed. Whole minutes in between have no record, which says the same.
    fn note_gap(&mut self, last: UnixMillis, now: UnixMillis) {
        for (minute, seconds) in gap(last, now) {
            let failed = Tally {
                asked: seconds,
                normal: 0,
            };
            let record = self.at(minute);
            record.signing_probes.merge(failed);
            record.certificates.merge(failed);
        }
    }
}

/// The minute in which the last engine was seen, and the one in which the next began, with the seconds in between.
fn gap(last: UnixMillis, now: UnixMillis) -> Vec<(MinuteIndex, u64)> {
    let (last, now) = (last.seconds(), now.seconds());
    if last >= now {
        return Vec::new();
    }
    let (died, began) = (
        MinuteIndex::of_unix_seconds(last),
        MinuteIndex::of_unix_seconds(now),
    );
    if died == began {
        return vec![(died, now - last)];
    }
    let rest = (died, 60 - last % 60);
    let start = (began, now % 60);
    [rest, start]
        .into_iter()
        .filter(|(_, seconds)| *seconds > 0)
        .collect()
}

/// The running collector.
#[derive(Debug)]
pub struct MinuteKeeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl MinuteKeeper {
    /// Starts it. `probe` says each second whether the services work.
    pub fn start(
        services: Arc<Services>,
        probe: impl FnMut(UnixMillis) -> Probe + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut book = Book::default();
        if let Ok(reader) = services.store.reader()
            && let Ok(Some(last)) = reader.last_minute_written()
        {
            book.note_gap(last, clock::wall());
        }
        let first = MinuteIndex::of_unix_seconds(clock::wall().seconds());
        services.minutes.look().begin(first);
        let thread = std::thread::Builder::new()
            .name("minutes".into())
            .spawn(move || keep(&services, book, &stopped, probe))?;
        Ok(Self { stop, thread })
    }

    /// Writes what there is, and ends.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // It only adds up; if it has panicked there is nothing left to write.
        let _ = self.thread.join();
    }
}

fn keep(services: &Services, mut book: Book, stop: &AtomicBool, mut probe: impl FnMut(UnixMillis) -> Probe) {
    let mut beats = 0;
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let now = clock::wall();
        collect(services, &mut book, now, probe(now));
        beats += 1;
        if stopping || beats % WRITE_EVERY == 0 {
            let records = book.records(MinuteIndex::of_unix_seconds(now.seconds()));
            if !services.store.record_minutes(records) {
                tracing::warn!("the committing thread is too far behind to record minutes");
            }
        }
        if stopping {
            return;
        }
        std::thread::park_timeout(BEAT);
    }
}

fn collect(services: &Services, book: &mut Book, now: UnixMillis, probe: Probe) {
    let mut judged = services.minutes.look();
    let mut beat = Minute::default();
    let cores = services.cores.iter().map(|core| &core.minutes);
    let desks = services.answer_logs.iter().map(|log| &log.minutes);
    for log in cores.chain(desks) {
        let Counted { minutes, days } = log.take();
        book.days.merge(days);
        for (index, part) in minutes {
            beat.merge(&part);
            book.at(index).merge(&part);
        }
    }
    judged.requests.merge(beat.requests);
    judged.note_load(beat.users);
    let extending = services.is_extending(clock::monotonic());
    judged.extending_seconds += u64::from(extending);
    judge(&mut judged, book, now);
    drop(judged);
    let minute = book.at(MinuteIndex::of_unix_seconds(now.seconds()));
    minute.record_probe(Service::Signing, probe.signing);
    minute.record_probe(Service::Certificates, probe.certificates);
    minute.maintenance |= services.circumstances.maintenance.load(Ordering::Acquire);
    minute.extension |= extending;
    let tenants = services.store.directory().tenants().len();
    minute.contracted = u32::try_from(tenants).unwrap_or(u32::MAX);
}

/// Judges the minute before this one, once nothing more is to be expected of it.
fn judge(judged: &mut Judged, book: &Book, now: UnixMillis) {
    let index = MinuteIndex::of_unix_seconds(now.seconds().saturating_sub(judged::GRACE_S));
    if let Some(over) = index.before()
        && judged.wants(over)
        && let Some(minute) = book.minutes.get(&over)
    {
        judged.judge(over, minute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_item_decides_how_a_call_counts() {
        let failed = |code| ItemOutcome::Failed(Refusal::new(code, ""));
        let done = || ItemOutcome::Done {
            signature: Vec::new(),
            sequence: protocol::ids::Sequence(1),
        };
        let of = |items| outcome(&Ok(Answer::Items(items)));
        assert_eq!(of(vec![done(), done()]), Outcome::Result);
        assert_eq!(of(vec![done(), ItemOutcome::Pending]), Outcome::Pending);
        assert_eq!(of(vec![done(), failed(Code::Overloaded)]), Outcome::Busy);
        assert_eq!(of(vec![failed(Code::QuotaExhausted)]), Outcome::CallerFault);
        let refused = |code| outcome(&Err(Refusal::new(code, "")));
        assert_eq!(refused(Code::RateLimited), Outcome::ThrottledByContract);
        assert_eq!(refused(Code::OutcomeUnknown), Outcome::Pending);
        assert_eq!(refused(Code::Internal), Outcome::Failed);
    }

    #[test]
    fn the_time_without_an_engine_belongs_to_its_minutes() {
        let at = |seconds: u64| UnixMillis(seconds * 1000);
        let minute = MinuteIndex::of_unix_seconds;
        assert_eq!(gap(at(125), at(140)), [(minute(120), 15)]);
        assert_eq!(gap(at(125), at(190)), [(minute(120), 55), (minute(180), 10)]);
        assert_eq!(gap(at(125), at(600)), [(minute(120), 55)]);
        assert_eq!(gap(at(125), at(125)), []);
        assert_eq!(gap(at(125), at(60)), [], "a clock that was set back");
    }

    #[test]
    fn a_minute_is_written_again_when_it_changes_and_let_go_when_it_is_long_over() {
        let log = MinuteLog::default();
        let at = UnixMillis(600_000);
        log.note(at, Some(TenantRow(3)), Outcome::Result, Duration::from_millis(2));
        log.note(at, None, Outcome::CallerFault, Duration::ZERO);
        log.note(UnixMillis(660_000), None, Outcome::Busy, Duration::ZERO);
        let mut book = Book::default();
        for (index, part) in log.take().minutes {
            book.at(index).merge(&part);
        }
        let now = MinuteIndex::new(11);
        let records = book.records(now).minutes;
        assert_eq!(
            records.iter().map(|record| record.minute).collect::<Vec<_>>(),
            [10, 11]
        );
        let first = Minute::decode(&records[0].record).unwrap();
        assert_eq!((first.requests.asked, first.latency.sum_us), (2, 2_000));
        assert_eq!(book.records(now), ObservedRecords::default());
        book.at(MinuteIndex::new(10)).record_probe(Service::Signing, true);
        assert_eq!(book.records(MinuteIndex::new(14)).minutes.len(), 1);
        assert!(book.minutes.is_empty());
    }
}
