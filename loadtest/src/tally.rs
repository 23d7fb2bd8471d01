//! What came of the requests: HDR histograms, kept by each thread for itself and added up afterwards. Latency counts from
//! the moment a request was meant to leave; service time, from the moment it left; the difference is the generator's own lag.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) use protocol::latency::{Latencies, add, histogram, micros};

/// The name under which requests are counted that never left, because too many were without an answer already.
pub(crate) const NOT_SENT: &str = "not_sent";
/// The name under which requests are counted that had no answer when the run was over.
pub(crate) const UNANSWERED: &str = "unanswered";

/// What came of some of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    /// Signatures asked for.
    pub(crate) offered: u64,
    /// Signatures that came back.
    pub(crate) ok: u64,
    /// Signatures verified here.
    pub(crate) verified: u64,
    /// Signatures that did not come, by code.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Of requests that brought signatures.
    pub(crate) ok_latency: Latencies,
    /// Of requests that brought none, those that were never answered included.
    pub(crate) failed_latency: Latencies,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            offered: 0,
            ok: 0,
            verified: 0,
            errors: BTreeMap::new(),
            ok_latency: histogram(),
            failed_latency: histogram(),
        }
    }
}

impl Outcomes {
    fn fail(&mut self, code: &str, count: u64) {
        match self.errors.get_mut(code) {
            Some(known) => *known += count,
            None => {
                self.errors.insert(code.to_owned(), count);
            }
        }
    }

    fn answered(&mut self, answer: &Answer<'_>) {
        self.ok += answer.ok;
        self.verified += answer.verified;
        let latencies = if answer.ok > 0 {
            &mut self.ok_latency
        } else {
            &mut self.failed_latency
        };
        latencies.saturating_record(micros(answer.latency));
        for code in answer.failed {
            self.fail(code, 1);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.ok += other.ok;
        self.verified += other.verified;
        for (code, count) in &other.errors {
            self.fail(code, *count);
        }
        add(&mut self.ok_latency, &other.ok_latency);
        add(&mut self.failed_latency, &other.failed_latency);
    }

    /// Of every request.
    pub(crate) fn latency(&self) -> Latencies {
        let mut all = self.ok_latency.clone();
        add(&mut all, &self.failed_latency);
        all
    }
}

/// Connections made during a run.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    /// From the first packet to a session that is proved.
    pub(crate) handshake: Latencies,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            opened: 0,
            failed: 0,
            handshake: histogram(),
        }
    }
}

impl Connections {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.opened += other.opened;
        self.failed += other.failed;
        add(&mut self.handshake, &other.handshake);
    }
}

/// Everything about a run, or about one thread's share of it.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) phases: Vec<Outcomes>,
    pub(crate) classes: Vec<Outcomes>,
    pub(crate) service: Latencies,
    pub(crate) lag: Latencies,
    pub(crate) connections: Connections,
    /// Signatures that came back for requests of the warm-up.
    pub(crate) warm_up_ok: u64,
    /// When the last answer came, from the start of counting.
    pub(crate) last_answer: Duration,
}

impl Totals {
    pub(crate) fn new(phases: usize, classes: usize) -> Self {
        Self {
            phases: vec![Outcomes::default(); phases],
            classes: vec![Outcomes::default(); classes],
            service: histogram(),
            lag: histogram(),
            connections: Connections::default(),
            warm_up_ok: 0,
            last_answer: Duration::ZERO,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (to, from) in self.phases.iter_mut().zip(&other.phases) {
            to.merge(from);
        }
        for (to, from) in self.classes.iter_mut().zip(&other.classes) {
            to.merge(from);
        }
        add(&mut self.service, &other.service);
        add(&mut self.lag, &other.lag);
        self.connections.merge(&other.connections);
        self.warm_up_ok += other.warm_up_ok;
        self.last_answer = self.last_answer.max(other.last_answer);
    }

    /// All phases together.
    pub(crate) fn all(&self) -> Outcomes {
        let mut all = Outcomes::default();
        for phase in &self.phases {
            all.merge(phase);
        }
        all
    }
}

/// One second of a run, by when things happened: requests in the second in which they left, answers in the second in
/// which they came.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Counted from the start of counting.
    pub(crate) second: u64,
    pub(crate) offered: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) latency: Latencies,
    pub(crate) service: Latencies,
    pub(crate) lag: Latencies,
}

impl Interval {
    pub(crate) fn new(second: u64) -> Self {
        Self {
            second,
            offered: 0,
            ok: 0,
            failed: 0,
            latency: histogram(),
            service: histogram(),
            lag: histogram(),
        }
    }

    /// Nothing happened in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.offered == 0 && self.ok == 0 && self.failed == 0
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.ok += other.ok;
        self.failed += other.failed;
        add(&mut self.latency, &other.latency);
        add(&mut self.service, &other.service);
        add(&mut self.lag, &other.lag);
    }
}

/// Which of the groups a request belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// `None` during the warm-up: it is not counted.
    pub(crate) phase: Option<usize>,
    pub(crate) class: usize,
    /// Signatures it asks for.
    pub(crate) signatures: u64,
}

/// An answer to one request.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) latency: Duration,
    pub(crate) service: Duration,
    pub(crate) ok: u64,
    pub(crate) verified: u64,
    /// The code of each signature that did not come.
    pub(crate) failed: &'a [&'static str],
}

/// One thread's book.
#[derive(Debug)]
pub(crate) struct Recorder {
    counted_from: Instant,
    interval: Interval,
    totals: Totals,
}

impl Recorder {
    pub(crate) fn new(counted_from: Instant, phases: usize, classes: usize) -> Self {
        Self {
            counted_from,
            interval: Interval::new(0),
            totals: Totals::new(phases, classes),
        }
    }

    /// The groups to count a request in; classes are told apart only where there are several.
    fn each(&mut self, group: Group, mut count: impl FnMut(&mut Outcomes)) {
        if let Some(phase) = group.phase {
            count(&mut self.totals.phases[phase]);
            if self.totals.classes.len() > 1 {
                count(&mut self.totals.classes[group.class]);
            }
        }
    }

    /// A request was meant to leave.
    pub(crate) fn offered(&mut self, group: Group) {
        if group.phase.is_some() {
            self.interval.offered += group.signatures;
            self.each(group, |outcomes| outcomes.offered += group.signatures);
        }
    }

    /// It left, this much later.
    pub(crate) fn left(&mut self, group: Group, lag: Duration) {
        if group.phase.is_some() {
            self.totals.lag.saturating_record(micros(lag));
            self.interval.lag.saturating_record(micros(lag));
        }
    }

    /// It was answered.
    pub(crate) fn answered(&mut self, group: Group, now: Instant, answer: &Answer<'_>) {
        if group.phase.is_none() {
            self.totals.warm_up_ok += answer.ok;
            return;
        }
        self.interval.ok += answer.ok;
        self.interval.failed += answer.failed.len() as u64;
        self.interval.latency.saturating_record(micros(answer.latency));
        self.interval.service.saturating_record(micros(answer.service));
        self.totals.service.saturating_record(micros(answer.service));
        self.totals.last_answer = now.saturating_duration_since(self.counted_from);
        self.each(group, |outcomes| outcomes.answered(answer));
    }

    /// It was given up; `age` is how long it had waited, if it left at all.
    pub(crate) fn lost(&mut self, group: Group, age: Option<Duration>) {
        if group.phase.is_none() {
            return;
        }
        self.interval.failed += group.signatures;
        if let Some(age) = age {
            self.interval.latency.saturating_record(micros(age));
        }
        self.each(group, |outcomes| {
            let code = if age.is_some() { UNANSWERED } else { NOT_SENT };
            outcomes.fail(code, group.signatures);
            if let Some(age) = age {
                outcomes.failed_latency.saturating_record(micros(age));
            }
        });
    }

    /// A connection was made, or could not be.
    pub(crate) fn connected(&mut self, handshake: Option<Duration>) {
        let connections = &mut self.totals.connections;
        match handshake {
            Some(length) => {
                connections.opened += 1;
                connections.handshake.saturating_record(micros(length));
            }
            None => connections.failed += 1,
        }
    }

    /// The second that is over, once it is. What was not handed on then goes into the next.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.counted_from).as_secs() > self.interval.second
    }

    /// Takes the interval, and begins the one that holds `now`.
    pub(crate) fn take_interval(&mut self, now: Instant) -> Interval {
        let second = now.saturating_duration_since(self.counted_from).as_secs();
        std::mem::replace(&mut self.interval, Interval::new(second))
    }

    /// Puts an interval back that nobody could take.
    pub(crate) fn put_back(&mut self, interval: &Interval) {
        self.interval.merge(interval);
    }

    pub(crate) fn into_totals(self) -> Totals {
        self.totals
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use protocol::clock;

    pub(crate) const SECOND: Duration = Duration::from_secs(1);

    pub(crate) const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const fn group(phase: Option<usize>) -> Group {
        Group {
            phase,
            class: 0,
            signatures: 1,
        }
    }

    const fn answer(latency: Duration, ok: bool) -> Answer<'static> {
        Answer {
            latency,
            service: latency,
            ok: ok as u64,
            verified: 0,
            failed: if ok { &[] } else { &["overloaded"] },
        }
    }

    /// The totals of requests that took so many milliseconds and succeeded or not.
    pub(crate) fn totals(requests: &[(u64, bool)], lag: Duration) -> Totals {
        let start = clock::monotonic();
        let mut recorder = Recorder::new(start, 1, 1);
        for (latency, ok) in requests {
            recorder.offered(group(Some(0)));
            recorder.left(group(Some(0)), lag);
            recorder.answered(group(Some(0)), start + SECOND, &answer(ms(*latency), *ok));
        }
        recorder.into_totals()
    }

    #[test]
    fn the_warm_up_is_not_counted() {
        let start = clock::monotonic();
        let mut recorder = Recorder::new(start, 1, 1);
        recorder.offered(group(None));
        recorder.left(group(None), ms(90));
        recorder.answered(group(None), start, &answer(ms(900), true));
        recorder.lost(group(None), Some(ms(1)));
        let totals = recorder.into_totals();
        assert_eq!(
            (
                totals.all().offered,
                totals.all().latency().len(),
                totals.lag.len()
            ),
            (0, 0, 0)
        );
        assert_eq!(totals.warm_up_ok, 1);
    }

    #[test]
    fn what_never_came_counts_with_the_time_it_was_waited_for() {
        let mut recorder = Recorder::new(clock::monotonic(), 1, 1);
        for age in [Some(ms(4_000)), None] {
            recorder.offered(group(Some(0)));
            recorder.lost(group(Some(0)), age);
        }
        let all = recorder.into_totals().all();
        assert_eq!((all.errors[UNANSWERED], all.errors[NOT_SENT]), (1, 1));
        assert!(all.latency().max() >= 3_990_000);
    }

    #[test]
    fn intervals_add_up_to_the_totals_even_when_nobody_takes_them() {
        let start = clock::monotonic();
        let mut recorder = Recorder::new(start, 1, 1);
        let mut sum = Interval::new(0);
        for second in 0..5u32 {
            let now = start + SECOND * second + ms(10);
            if recorder.is_over(now) {
                let interval = recorder.take_interval(now);
                if second % 2 == 0 {
                    sum.merge(&interval);
                } else {
                    recorder.put_back(&interval);
                }
            }
            recorder.offered(group(Some(0)));
            recorder.answered(
                group(Some(0)),
                now,
                &answer(ms(u64::from(second) + 1), second != 3),
            );
        }
        sum.merge(&recorder.take_interval(start + SECOND * 9));
        let all = recorder.into_totals().all();
        assert_eq!((sum.offered, sum.ok, sum.failed), (5, 4, 1));
        assert_eq!(sum.latency, all.latency());
    }
}
