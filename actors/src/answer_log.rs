//! What a thread of the certificate service has answered to whoever asks, by the minute for the service agreement, and how
//! long it took.

use std::time::Duration;

use protocol::clock::UnixMillis;
use sla::answer::Outcome;
use sla::minute::Asked;

use crate::latency::book::Outbox;
use crate::latency::{Operation, Series, Transport};
use crate::minutes::MinuteLog;

/// The log of one thread. Others empty it once a second.
#[derive(Debug, Default)]
pub struct AnswerLog {
    pub(crate) minutes: MinuteLog,
    pub(crate) latency: Outbox,
}

impl AnswerLog {
    /// Notes an answer over plain HTTP.
    pub fn note(&self, operation: Operation, outcome: Outcome, latency: Duration, now: UnixMillis) {
        self.minutes
            .note_certificates(now, Asked::Published, outcome, latency);
        let series = Series {
            operation,
            transport: Transport::Http,
            algorithm: None,
            ending: outcome.into(),
        };
        self.latency.record(series, latency);
    }
}
