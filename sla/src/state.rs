//! What each minute was.

use serde::{Deserialize, Serialize};

use crate::calendar::{MinuteIndex, Span};
use crate::notice::{Declared, Judged, Lead};
use crate::observed::{Observed, Sample};
use crate::policy::WithoutRecord;

/// What a minute was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both services were available.
    Available,
    /// Signing was not.
    Signing,
    /// The certificate service was not.
    Certificates,
    /// Neither was.
    Both,
    /// Nobody wrote down what it was, so it was unavailable, and both services with it.
    NoRecord,
    /// Announced maintenance, or a declared cause: counts nowhere.
    Excluded,
    /// Before the service of this customer began, or after it ended.
    OutsideTerm,
    /// It is not over yet.
    Future,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Available,
        Self::Signing,
        Self::Certificates,
        Self::Both,
        Self::NoRecord,
        Self::Excluded,
        Self::OutsideTerm,
        Self::Future,
    ];

    /// Whether signing was down.
    pub fn is_signing_down(self) -> bool {
        matches!(self, Self::Signing | Self::Both | Self::NoRecord)
    }

    /// Whether the certificate service was down.
    pub fn is_certificates_down(self) -> bool {
        matches!(self, Self::Certificates | Self::Both | Self::NoRecord)
    }

    /// Whether it belongs to an unavailable run.
    pub fn is_unavailable(self) -> bool {
        self.is_signing_down() || self.is_certificates_down()
    }

    fn of(sample: &Sample) -> Self {
        match (sample.signing, sample.certificates) {
            (true, true) => Self::Available,
            (false, true) => Self::Signing,
            (true, false) => Self::Certificates,
            (false, false) => Self::Both,
        }
    }
}

/// The time in which a customer is served: from the minute of activation (A 3.2, 4.3(1)) to the end of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The minute of activation.
    pub from: MinuteIndex,
    /// The minute after the last; none where no end is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<MinuteIndex>,
}

impl Term {
    /// As a span of minutes.
    pub fn span(self) -> Span {
        Span {
            from: self.from,
            to: self.to.unwrap_or(MinuteIndex::new(u32::MAX)),
        }
    }
}

/// A verdict depends on a minute that was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an unavailable run reaches {0}, which was not read; cover it and judge again")]
pub struct NotCovered(pub MinuteIndex);

/// All that says what a minute was.
#[derive(Clone, Copy)]
pub(crate) struct Timeline<'a> {
    pub(crate) observed: &'a Observed<'a>,
    pub(crate) term: Span,
    pub(crate) now: MinuteIndex,
    pub(crate) notices: &'a [Judged],
    pub(crate) declared: &'a [Declared],
}

impl Timeline<'_> {
    /// What a minute was. The order matters: what is outside the term or not over yet needs no record.
    pub(crate) fn state(&self, minute: MinuteIndex) -> Result<State, NotCovered> {
        if !self.term.contains(minute) {
            return Ok(State::OutsideTerm);
        }
        if minute >= self.now {
            return Ok(State::Future);
        }
        if !self.observed.covered().contains(minute) {
            return Err(NotCovered(minute));
        }
        let sample = self.observed.sample(minute);
        if self.is_declared(minute) || self.is_maintenance(minute, sample) {
            return Ok(State::Excluded);
        }
        Ok(sample.map_or(State::NoRecord, State::of))
    }

    fn is_declared(&self, minute: MinuteIndex) -> bool {
        let causes = &self.observed.policy().exclusion.causes;
        let holds =
            |declared: &Declared| declared.window.contains(minute) && causes.contains(&declared.cause);
        self.declared.iter().any(holds)
    }

    fn is_maintenance(&self, minute: MinuteIndex, sample: Option<&Sample>) -> bool {
        let without_record = self.observed.policy().exclusion.maintenance_without_record;
        let under_way = sample.map_or(without_record == WithoutRecord::Excluded, |sample| {
            sample.maintenance
        });
        let holds = |judged: &Judged| judged.lead == Lead::InTime && judged.notice.window.contains(minute);
        under_way && self.notices.iter().any(holds)
    }
}
