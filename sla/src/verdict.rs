//! The verdict on a month: availability, longest stop, remaining budget, latency, and whether the promise is kept.
//!
//! While a month runs there are two availabilities: of what has passed, and of the whole cycle if nothing more
//! happens. The promise is made for the cycle, so the second decides.

use serde::{Deserialize, Serialize};

use crate::calendar::{MinuteIndex, Month, Span};
use crate::minute::Latency;
use crate::notice::{self, Declared, Judged, Notice};
use crate::observed::{Observed, Sample};
use crate::percent::{Percent, Ratio};
use crate::policy::{Counted, DuringExtension, LatencyPromise, Overlap, Policy};
use crate::run::{self, Down, Run};
use crate::state::{NotCovered, State, Term, Timeline};
use crate::working_days::WorkingDays;

/// What a verdict is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The month.
    pub month: Month,
    /// When the customer is served.
    pub term: Term,
    /// The minute that is running; those before it are over.
    pub now: MinuteIndex,
    /// The minutes, under the policy to be applied. Cover the month and, where a run reaches beyond it, as much
    /// of its neighbours as [`JudgeError::NotCovered`] asks for.
    pub observed: &'a Observed<'a>,
    /// All notices whose window touches what is covered, and those that replace them.
    pub notices: &'a [Notice],
    /// Minutes declared to be excluded.
    pub declared: &'a [Declared],
    /// The calendar of working days.
    pub working_days: &'a WorkingDays,
}

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// The customer is not served in this month.
    #[error("the service of this customer does not touch {0}")]
    OutsideTerm(Month),
    /// The month, or the service in it, has not begun.
    #[error("{0} has not begun")]
    NotBegun(Month),
    /// A minute of the month was not read.
    #[error("minute {0} of the month was not read")]
    Unread(MinuteIndex),
    /// A run reaches beyond what was read.
    #[error(transparent)]
    NotCovered(#[from] NotCovered),
}

/// The verdict on a month under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The month.
    pub month: Month,
    /// The part of it that is judged: from activation, to the end of the contract.
    pub cycle: Span,
    /// Whether the cycle is shorter than the month.
    pub partial: bool,
    /// Whether it can still change: the cycle is not over, or its last run is not.
    pub is_final: bool,
    /// Whether the promises are kept.
    pub promise: Promise,
    /// How many minutes were what.
    pub minutes: Minutes,
    /// Unavailable minutes that count.
    pub down: Down,
    /// Availability in its forms.
    pub availability: Availabilities,
    /// The longest run that counts, in minutes; all of it, where it spans two months.
    pub longest_stop_minutes: u32,
    /// How many runs count.
    pub outages: u32,
    /// Every run with minutes in the cycle, counted or not.
    pub runs: Vec<Run>,
    /// What may still fail.
    pub budget: Budget,
    /// Latency over the month.
    pub latency: LatencyVerdict,
    /// Latency and overload minute by minute.
    pub control: ControlVerdict,
}

/// Whether the promises are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Of availability. None where the cycle does not count, being shorter than its month.
    pub availability: Option<bool>,
    /// Of the average latency. None where the policy promises none.
    pub average_latency: Option<bool>,
    /// Of the longest latency. None where the policy promises none.
    pub maximum_latency: Option<bool>,
    /// None of them is broken.
    pub kept: bool,
}

/// How many minutes of the cycle were what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minutes {
    /// All of the cycle.
    pub cycle: u32,
    /// Those that are over.
    pub elapsed: u32,
    /// Excluded, of those that are over.
    pub excluded: u32,
    /// Available, of those that are over.
    pub available: u32,
    /// Unavailable, counted or not.
    pub unavailable: u32,
    /// Without a record; they are unavailable too.
    pub no_record: u32,
}

/// Availability as exact ratios of minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availabilities {
    /// By the formula of the policy, of the whole cycle if no further minute fails. This one decides.
    pub of_cycle: Ratio,
    /// By the formula of the policy, of what has passed.
    pub so_far: Ratio,
    /// Of the whole cycle, counting a minute in which both services were down twice.
    pub by_sum: Ratio,
    /// Of the whole cycle, counting it once.
    pub by_union: Ratio,
}

/// What may still fail before the promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Unavailable minutes a cycle of this length bears.
    pub minutes: u32,
    /// Unavailable time that counts so far, by the formula of the policy.
    pub spent: u32,
    /// Further minutes with one service down that it bears, beside what is spent.
    pub remaining: u32,
    /// If everything failed from now on: minutes until the promise is broken. 0 when it is; none when the cycle
    /// ends first.
    pub until_breach: Option<u32>,
}

/// Latency over the month (A 4.2), in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyVerdict {
    /// Answers in the average that is judged.
    pub count: u64,
    /// That average, rounded up.
    pub average_us: Option<u64>,
    /// The average with the minutes of extension, rounded up.
    pub average_with_extension_us: Option<u64>,
    /// The longest, minutes of extension included.
    pub maximum_us: u64,
    /// Minutes exempt from the average because capacity was being extended.
    pub extension_minutes: u32,
}

/// Latency and overload minute by minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlVerdict {
    /// Minutes whose own average was above the promise.
    pub minutes_above_average: u32,
    /// The highest average of a minute, in microseconds, and when.
    pub worst_average: Option<(MinuteIndex, u64)>,
    /// Minutes whose share of 503 had somebody paged.
    pub minutes_paged: u32,
    /// The highest share of 503, and when.
    pub worst_busy: Option<(MinuteIndex, Ratio)>,
}

/// A verdict, and what it was made from.
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) notices: Vec<Judged>,
    /// The states of the month's minutes, those outside the cycle included.
    pub(crate) states: Vec<State>,
}

/// Judges a month.
pub fn judge(case: &Case<'_>) -> Result<Verdict, JudgeError> {
    judge_fully(case).map(|judgement| judgement.verdict)
}

pub(crate) fn judge_fully(case: &Case<'_>) -> Result<Judgement, JudgeError> {
    let policy = case.observed.policy();
    let notices = notice::judge(case.notices, &policy.exclusion, case.working_days);
    let line = Timeline {
        observed: case.observed,
        term: case.term.span(),
        now: case.now,
        notices: &notices,
        declared: case.declared,
    };
    let cycle = cycle(case)?;
    let runs = run::runs(&line, cycle)?;
    let states: Vec<State> = (case.month.span().iter())
        .map(|minute| line.state(minute))
        .collect::<Result<_, _>>()?;
    let verdict = conclude(case, cycle, runs, &states);
    Ok(Judgement {
        verdict,
        notices,
        states,
    })
}

/// The part of the month that is judged; every minute of it that is over has to be covered.
fn cycle(case: &Case<'_>) -> Result<Span, JudgeError> {
    let cycle = case.month.span().intersection(case.term.span());
    if cycle.is_empty() {
        return Err(JudgeError::OutsideTerm(case.month));
    }
    if case.now <= cycle.from {
        return Err(JudgeError::NotBegun(case.month));
    }
    let covered = case.observed.covered();
    match elapsed(cycle, case.now)
        .iter()
        .find(|minute| !covered.contains(*minute))
    {
        Some(minute) => Err(JudgeError::Unread(minute)),
        None => Ok(cycle),
    }
}

fn elapsed(cycle: Span, now: MinuteIndex) -> Span {
    Span {
        from: cycle.from,
        to: cycle.to.min(now),
    }
}

fn conclude(case: &Case<'_>, cycle: Span, runs: Vec<Run>, states: &[State]) -> Verdict {
    let policy = case.observed.policy();
    let minutes = count(cycle, case.now, states);
    let counted = || runs.iter().filter(|run| run.counted);
    let down = counted().fold(Down::default(), |sum, run| sum.plus(run.in_month));
    let account = Account {
        policy,
        total: minutes.cycle - minutes.excluded,
        down,
    };
    let passed = Account {
        total: minutes.elapsed - minutes.excluded,
        ..account
    };
    let partial = cycle != case.month.span();
    let latency = latency(case.observed, elapsed(cycle, case.now));
    let overlap = policy.availability.overlap;
    let availability = Availabilities {
        of_cycle: account.ratio(overlap),
        so_far: passed.ratio(overlap),
        by_sum: account.ratio(Overlap::Sum),
        by_union: account.ratio(Overlap::Union),
    };
    Verdict {
        month: case.month,
        cycle,
        partial,
        is_final: case.now >= cycle.to && !runs.iter().any(|run| run.open),
        promise: promise(policy, partial, availability.of_cycle, &latency),
        minutes,
        down,
        availability,
        longest_stop_minutes: counted().map(|run| run.minutes).max().unwrap_or(0),
        outages: u32::try_from(counted().count()).unwrap_or(u32::MAX),
        budget: account.budget(&runs, cycle, case.now),
        latency: latency.into_verdict(),
        control: control(case.observed, elapsed(cycle, case.now)),
        runs,
    }
}

fn count(cycle: Span, now: MinuteIndex, states: &[State]) -> Minutes {
    let mut minutes = Minutes {
        cycle: cycle.minutes(),
        elapsed: elapsed(cycle, now).minutes(),
        ..Minutes::default()
    };
    for state in states {
        minutes.excluded += u32::from(*state == State::Excluded);
        minutes.available += u32::from(*state == State::Available);
        minutes.unavailable += u32::from(state.is_unavailable());
        minutes.no_record += u32::from(*state == State::NoRecord);
    }
    minutes
}

/// The minutes of a cycle, and what the formula makes of them.
#[derive(Clone, Copy)]
struct Account<'p> {
    policy: &'p Policy,
    /// T: minutes less excluded ones.
    total: u32,
    down: Down,
}

impl Account<'_> {
    /// up / (up + down) with up = T − |S ∪ C|.
    fn ratio(&self, overlap: Overlap) -> Ratio {
        let up = u64::from(self.total - self.down.either);
        Ratio {
            part: up,
            whole: up + u64::from(self.down.by(overlap)),
        }
    }

    fn is_kept(&self) -> bool {
        self.ratio(self.policy.availability.overlap)
            .is_at_least(self.policy.availability.promise)
    }

    fn budget(&self, runs: &[Run], cycle: Span, now: MinuteIndex) -> Budget {
        let promise = self.policy.availability.promise;
        let left = Span {
            from: cycle.from.max(now),
            to: cycle.to,
        };
        Budget {
            minutes: bears(promise, u64::from(self.total), u64::from(self.total)),
            spent: self.down.by(self.policy.availability.overlap),
            remaining: self.remaining(promise),
            until_breach: (0..=left.minutes()).find(|minutes| !self.after(*minutes, runs).is_kept()),
        }
    }

    /// The largest k with (up − k) / (up + down) ≥ promise: a further minute moves from `up` to `down`.
    fn remaining(&self, promise: Percent) -> u32 {
        let ratio = self.ratio(self.policy.availability.overlap);
        bears(promise, ratio.part, ratio.whole)
    }

    /// The account after so many further minutes in which everything fails.
    fn after(&self, minutes: u32, runs: &[Run]) -> Self {
        let rule = &self.policy.availability;
        let open = runs.last().filter(|run| run.open);
        let (length, waiting) = match open {
            Some(run) if run.counted => (rule.run_minutes, Down::default()),
            Some(run) => (run.minutes, run.in_month),
            None => (0, Down::default()),
        };
        if length.saturating_add(minutes) < rule.run_minutes {
            return *self;
        }
        let certificates = if rule.certificates == Counted::Counted {
            minutes
        } else {
            0
        };
        let outage = Down {
            signing: minutes,
            certificates,
            either: minutes,
        };
        Self {
            down: self.down.plus(waiting).plus(outage),
            ..*self
        }
    }
}

/// How many minutes `part` can lose and still be at least `promise` of `whole`.
fn bears(promise: Percent, part: u64, whole: u64) -> u32 {
    let spare = part.saturating_sub(promise.of_rounded_up(whole));
    u32::try_from(spare).unwrap_or(u32::MAX)
}

fn promise(policy: &Policy, partial: bool, availability: Ratio, latency: &Latencies) -> Promise {
    let counts = !partial || policy.availability.partial_month == Counted::Counted;
    let availability = counts.then(|| availability.is_at_least(policy.availability.promise));
    let judged = |judge: &dyn Fn(&LatencyPromise) -> bool| policy.latency.as_ref().map(judge);
    let average_latency = judged(&|promise| latency.judged.average_is_within(micros(promise.average_ms)));
    let maximum_latency = judged(&|promise| latency.all.max_us <= micros(promise.maximum_ms));
    let all = [availability, average_latency, maximum_latency];
    Promise {
        availability,
        average_latency,
        maximum_latency,
        kept: !all.contains(&Some(false)),
    }
}

fn micros(milliseconds: u32) -> u64 {
    u64::from(milliseconds) * 1_000
}

/// Response times of a month: those that are judged, and all of them.
#[derive(Default)]
struct Latencies {
    judged: Latency,
    all: Latency,
    exempt_minutes: u32,
}

impl Latencies {
    fn into_verdict(self) -> LatencyVerdict {
        LatencyVerdict {
            count: self.judged.count,
            average_us: self.judged.average_us(),
            average_with_extension_us: self.all.average_us(),
            maximum_us: self.all.max_us,
            extension_minutes: self.exempt_minutes,
        }
    }
}

fn latency(observed: &Observed<'_>, span: Span) -> Latencies {
    let mut latencies = Latencies::default();
    let mut extension = ExtensionClock::default();
    for (minute, sample) in observed.samples(span) {
        latencies.all.merge(sample.latency);
        if extension.is_exempt(minute, sample, observed.policy()) {
            latencies.exempt_minutes += 1;
        } else {
            latencies.judged.merge(sample.latency);
        }
    }
    latencies
}

/// How long the current extension has been going on. One that takes longer than the agreement allows is no longer
/// an excuse.
#[derive(Default)]
struct ExtensionClock {
    last: Option<MinuteIndex>,
    minutes: u32,
}

impl ExtensionClock {
    fn is_exempt(&mut self, minute: MinuteIndex, sample: &Sample, policy: &Policy) -> bool {
        let Some(promise) = policy.latency.as_ref().filter(|_| sample.extension) else {
            return false;
        };
        let goes_on = self.last.is_some() && self.last == minute.before();
        self.minutes = if goes_on { self.minutes + 1 } else { 1 };
        self.last = Some(minute);
        promise.during_extension == DuringExtension::Exempt && self.minutes <= promise.extension_minutes_max
    }
}

fn control(observed: &Observed<'_>, span: Span) -> ControlVerdict {
    let mut control = ControlVerdict::default();
    for (minute, sample) in observed.samples(span) {
        control.add(minute, sample, observed.policy());
    }
    control
}

impl ControlVerdict {
    fn add(&mut self, minute: MinuteIndex, sample: &Sample, policy: &Policy) {
        let limit = policy.latency.as_ref().map(|promise| micros(promise.average_ms));
        let above = limit.is_some_and(|limit| !sample.latency.average_is_within(limit));
        self.minutes_above_average += u32::from(above);
        self.minutes_paged += u32::from(sample.pages(policy));
        if let Some(average) = sample.latency.average_us()
            && self.worst_average.is_none_or(|(_, worst)| average > worst)
        {
            self.worst_average = Some((minute, average));
        }
        let worst = self
            .worst_busy
            .map_or(Ratio { part: 0, whole: 1 }, |(_, worst)| worst);
        if worst.is_less_than(sample.busy) && sample.busy.whole > 0 {
            self.worst_busy = Some((minute, sample.busy));
        }
    }
}
