//! Which bad minutes stand together.
//!
//! A run is unbroken by excluded minutes and not made longer by them. One that spans the end of a month is judged
//! whole, and its minutes are booked to the months in which they lie (unless the policy cuts it there).

use serde::{Deserialize, Serialize};

use crate::calendar::{MinuteIndex, Span};
use crate::policy::{Availability, Counted, Overlap, RunAtMonthEnd};
use crate::state::{NotCovered, State, Timeline};

/// Minutes in which something was down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Signing (S).
    pub signing: u32,
    /// The certificate service (C).
    pub certificates: u32,
    /// Either of them (S ∪ C).
    pub either: u32,
}

impl Down {
    fn add(&mut self, state: State, certificates: Counted) {
        let certificates = certificates == Counted::Counted && state.is_certificates_down();
        self.signing += u32::from(state.is_signing_down());
        self.certificates += u32::from(certificates);
        self.either += 1;
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            signing: self.signing + other.signing,
            certificates: self.certificates + other.certificates,
            either: self.either + other.either,
        }
    }

    /// The unavailable time of the formula.
    pub fn by(self, overlap: Overlap) -> u32 {
        match overlap {
            Overlap::Sum => self.signing + self.certificates,
            Overlap::Union => self.either,
        }
    }
}

/// Unavailable minutes that stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its first minute.
    pub first: MinuteIndex,
    /// Its last minute so far.
    pub last: MinuteIndex,
    /// Unavailable minutes in all of it.
    pub minutes: u32,
    /// Those that lie in the month that is judged.
    pub in_month: Down,
    /// Whether it is long enough to count.
    pub counted: bool,
    /// Whether it may still grow.
    pub open: bool,
}

/// The runs of a cycle in order, and with the last one whatever may still grow.
pub(crate) fn runs(line: &Timeline<'_>, cycle: Span) -> Result<Vec<Run>, NotCovered> {
    let rule = &line.observed.policy().availability;
    let reach = match rule.run_at_month_end {
        RunAtMonthEnd::Whole => reach(line, cycle)?,
        RunAtMonthEnd::Cut => cycle,
    };
    let mut builder = Builder::new(cycle, rule);
    for minute in reach.iter() {
        builder.add(minute, line.state(minute)?);
    }
    let may_grow =
        rule.run_at_month_end == RunAtMonthEnd::Whole && reach.to == line.now && is_open_at(line, reach.to);
    builder.close(may_grow);
    Ok(builder.done)
}

/// Whether the term goes on at a minute, so that a run before it may grow.
fn is_open_at(line: &Timeline<'_>, minute: MinuteIndex) -> bool {
    line.term.contains(minute)
}

/// The cycle, and as far beyond its ends as a run reaches.
fn reach(line: &Timeline<'_>, cycle: Span) -> Result<Span, NotCovered> {
    let mut span = cycle;
    if begins_unavailable(line, cycle.iter())? {
        while let Some(before) = span.from.before() {
            if !goes_on(line.state(before)?) {
                break;
            }
            span.from = before;
        }
    }
    if begins_unavailable(line, cycle.iter().rev())? {
        while goes_on(line.state(span.to)?) {
            span.to = span.to.plus(1);
        }
    }
    Ok(span)
}

/// Whether the first of these minutes that is not excluded is unavailable.
fn begins_unavailable(
    line: &Timeline<'_>,
    minutes: impl Iterator<Item = MinuteIndex>,
) -> Result<bool, NotCovered> {
    for minute in minutes {
        match line.state(minute)? {
            State::Excluded => {}
            state => return Ok(state.is_unavailable()),
        }
    }
    Ok(false)
}

fn goes_on(state: State) -> bool {
    state == State::Excluded || state.is_unavailable()
}

struct Builder {
    cycle: Span,
    certificates: Counted,
    run_minutes: u32,
    current: Option<Run>,
    done: Vec<Run>,
}

impl Builder {
    fn new(cycle: Span, rule: &Availability) -> Self {
        Self {
            cycle,
            certificates: rule.certificates,
            run_minutes: rule.run_minutes,
            current: None,
            done: Vec::new(),
        }
    }

    fn add(&mut self, minute: MinuteIndex, state: State) {
        if state == State::Excluded {
            return;
        }
        if !state.is_unavailable() {
            return self.close(state == State::Future);
        }
        let run = self.current.get_or_insert(Run {
            first: minute,
            last: minute,
            minutes: 0,
            in_month: Down::default(),
            counted: false,
            open: false,
        });
        run.last = minute;
        run.minutes += 1;
        if self.cycle.contains(minute) {
            run.in_month.add(state, self.certificates);
        }
    }

    fn close(&mut self, open: bool) {
        let Some(run) = self.current.take().filter(|run| run.in_month.either > 0) else {
            return;
        };
        self.done.push(Run {
            counted: run.minutes >= self.run_minutes,
            open,
            ..run
        });
    }
}
