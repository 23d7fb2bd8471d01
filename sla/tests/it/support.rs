//! A history of minutes, easy to write down.

use std::collections::BTreeMap;

use sla::answer::Outcome;
use sla::calendar::{MinuteIndex, Month, Span};
use sla::minute::{Minute, Service, UserId};
use sla::notice::{Declared, Notice};
use sla::observed::Observed;
use sla::policy::Policy;
use sla::state::Term;
use sla::verdict::{Case, JudgeError, Verdict, judge};
use sla::working_days::WorkingDays;

/// What a test says of a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Was {
    Good,
    SigningDown,
    CertificatesDown,
    BothDown,
    Missing,
}

impl Was {
    /// Its record.
    pub(crate) fn record(self) -> Option<Minute> {
        let mut minute = Minute::default();
        let (signing, certificates) = match self {
            Self::Good => (true, true),
            Self::SigningDown => (false, true),
            Self::CertificatesDown => (true, false),
            Self::BothDown => (false, false),
            Self::Missing => return None,
        };
        let outcome = if signing { Outcome::Result } else { Outcome::Failed };
        minute.record(Some(UserId(1)), outcome, 2_000);
        minute.record_probe(Service::Certificates, certificates);
        Some(minute)
    }
}

/// A month with its neighbourhood: everything is good until a test says otherwise.
pub(crate) struct History {
    pub(crate) month: Month,
    pub(crate) covered: Span,
    pub(crate) minutes: BTreeMap<MinuteIndex, Minute>,
    pub(crate) term: Term,
    pub(crate) now: MinuteIndex,
    pub(crate) notices: Vec<Notice>,
    pub(crate) declared: Vec<Declared>,
    pub(crate) days: WorkingDays,
}

/// Minutes covered on either side of the month.
pub(crate) const MARGIN: u32 = 4_000;

impl History {
    /// A month that is over, and a customer served since long before.
    pub(crate) fn of(month: &str) -> Self {
        let month: Month = month.parse().unwrap();
        let covered = Span {
            from: MinuteIndex::new(month.span().from.number() - MARGIN),
            to: month.span().to.plus(MARGIN),
        };
        let good = Was::Good.record().unwrap();
        Self {
            month,
            covered,
            minutes: covered.iter().map(|minute| (minute, good.clone())).collect(),
            term: Term {
                from: MinuteIndex::new(covered.from.number() - 500_000),
                to: None,
            },
            now: covered.to,
            notices: Vec::new(),
            declared: Vec::new(),
            days: WorkingDays::builtin(),
        }
    }

    /// The minute so far from the beginning of the month.
    pub(crate) fn at(&self, offset: i64) -> MinuteIndex {
        let number = i64::from(self.month.span().from.number()) + offset;
        MinuteIndex::new(u32::try_from(number).unwrap())
    }

    pub(crate) fn span(&self, offset: i64, minutes: u32) -> Span {
        Span {
            from: self.at(offset),
            to: self.at(offset).plus(minutes),
        }
    }

    /// The offset of the end of the month.
    pub(crate) fn end(&self) -> i64 {
        i64::from(self.month.span().minutes())
    }

    /// Says what some minutes were.
    pub(crate) fn paint(&mut self, offset: i64, minutes: u32, was: Was) -> &mut Self {
        for minute in self.span(offset, minutes).intersection(self.covered).iter() {
            match was.record() {
                Some(record) => self.minutes.insert(minute, record),
                None => self.minutes.remove(&minute),
            };
        }
        self
    }

    /// Says that maintenance was under way.
    pub(crate) fn maintain(&mut self, offset: i64, minutes: u32) -> &mut Self {
        let span = self.span(offset, minutes);
        for (_, minute) in self.minutes.range_mut(span.from..span.to) {
            minute.maintenance = true;
        }
        self
    }

    /// Announces maintenance so many minutes before it begins.
    pub(crate) fn announce(&mut self, offset: i64, minutes: u32, ahead: u32) -> &mut Self {
        let window = self.span(offset, minutes);
        self.notices.push(Notice {
            id: format!("n{}", self.notices.len()),
            announced: MinuteIndex::new(window.from.number() - ahead),
            window,
            text: "upgrade".to_owned(),
            replaces: None,
            withdrawn: false,
        });
        self
    }

    pub(crate) fn observed<'p>(&self, policy: &'p Policy) -> Observed<'p> {
        let mut observed = Observed::new(policy, self.covered);
        for (minute, record) in self.minutes.range(..self.now) {
            observed.add(*minute, record).unwrap();
        }
        observed
    }

    pub(crate) fn case<'a>(&'a self, observed: &'a Observed<'a>) -> Case<'a> {
        Case {
            month: self.month,
            term: self.term,
            now: self.now,
            observed,
            notices: &self.notices,
            declared: &self.declared,
            working_days: &self.days,
        }
    }

    pub(crate) fn try_judge(&self, policy: &Policy) -> Result<Verdict, JudgeError> {
        judge(&self.case(&self.observed(policy)))
    }

    pub(crate) fn judge(&self, policy: &Policy) -> Verdict {
        self.try_judge(policy).unwrap()
    }
}
