//! What is recorded of one minute.
//!
//! Everything in it is a sum, a maximum or a flag that once set stays set, so parts of a minute (one a core, one
//! that came late, one written for the time the engine was dead) add up to the same record in any order.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::answer::Outcome;
use crate::percent::{Percent, Ratio};

/// A user of the agreement, that is a customer (A 1.2: 购买企业签章服务的主体), by the number the store gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct UserId(#[n(0)] pub u32);

/// How many were asked, and how many of them got a normal response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Tally {
    /// Requests, or probes, that count.
    #[n(0)]
    pub asked: u64,
    /// Those with a normal response.
    #[n(1)]
    pub normal: u64,
}

impl Tally {
    /// One more.
    pub fn add(&mut self, normal: bool) {
        self.merge(Self {
            asked: 1,
            normal: u64::from(normal),
        });
    }

    /// The sum of both.
    pub fn merge(&mut self, other: Self) {
        self.asked = self.asked.saturating_add(other.asked);
        self.normal = self.normal.saturating_add(other.normal);
    }

    /// Normal over asked.
    pub fn ratio(self) -> Ratio {
        Ratio {
            part: self.normal,
            whole: self.asked,
        }
    }

    /// Whether anything was asked and at least this share of it got a normal response.
    pub fn reaches(self, share: Percent) -> bool {
        self.asked > 0 && self.ratio().is_at_least(share)
    }
}

/// Response times as the agreement measures them, network excluded (A 4.2), in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Latency {
    /// How many are in the sum: answers that were not refusals ([`Outcome::is_averaged`]).
    #[n(0)]
    pub count: u64,
    /// Their sum.
    #[n(1)]
    pub sum_us: u64,
    /// The longest of every answer that counts, refusals included.
    #[n(2)]
    pub max_us: u64,
}

impl Latency {
    /// The sum of both, and the longer maximum.
    pub fn merge(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Whether the average is at most so many microseconds; with nothing measured it is.
    pub fn average_is_within(self, limit_us: u64) -> bool {
        u128::from(self.sum_us) <= u128::from(limit_us) * u128::from(self.count)
    }

    /// The average in microseconds, rounded up.
    pub fn average_us(self) -> Option<u64> {
        (self.count > 0).then(|| self.sum_us.div_ceil(self.count))
    }
}

/// The two services of agreement A (2.1, 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Signing and sealing.
    Signing,
    /// Issuing certificates.
    Certificates,
}

/// The record of one minute. Only production traffic belongs in it (A 7(4): nothing is promised while testing).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Minute {
    /// Requests of everybody, also of callers that could not be told apart.
    #[n(0)]
    pub requests: Tally,
    /// Requests refused with 503; they are in `requests` too.
    #[n(1)]
    pub busy: u64,
    /// The users with traffic in this minute.
    #[n(2)]
    pub users: BTreeMap<UserId, Tally>,
    /// How many users have a contract, where the policy counts those.
    #[n(3)]
    pub contracted: u32,
    /// Probes of the signing service.
    #[n(4)]
    pub signing_probes: Tally,
    /// Probes of the certificate service, and requests of apps to it.
    #[n(5)]
    pub certificates: Tally,
    /// Maintenance was under way. Whether that excludes the minute is for the notices to say.
    #[n(6)]
    pub maintenance: bool,
    /// Capacity was being extended (A 4.2: 服务动态扩容期间).
    #[n(7)]
    pub extension: bool,
    /// Response times.
    #[n(8)]
    pub latency: Latency,
    /// Requests to what the certificate service publishes: time stamps, OCSP, revocation lists. Counted apart, because
    /// whoever asks for a status a million times must not hide that nothing is issued.
    #[n(9)]
    pub published: Tally,
}

/// What was asked of the certificate service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By an app: certificates and subjects.
    ByApp,
    /// By whoever reads what is published.
    Published,
}

/// Why bytes are not the record of a minute.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the CBOR of a record.
    #[error("the record of the minute cannot be read")]
    Cbor(#[from] minicbor::decode::Error),
    /// Something follows the record.
    #[error("{0} bytes follow the record of the minute")]
    Trailing(usize),
    /// More normal responses than requests, or something like it.
    #[error("the record of the minute contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Minute {
    /// Takes down how a request ended, `latency_us` microseconds after its last byte was there.
    pub fn record(&mut self, user: Option<UserId>, outcome: Outcome, latency_us: u64) {
        if !outcome.counts() {
            return;
        }
        let normal = outcome.is_normal(latency_us);
        self.requests.add(normal);
        if let Some(user) = user {
            self.users.entry(user).or_default().add(normal);
        }
        self.busy += u64::from(outcome == Outcome::Busy);
        let averaged = outcome.is_averaged();
        self.latency.merge(Latency {
            count: u64::from(averaged),
            sum_us: if averaged { latency_us } else { 0 },
            max_us: latency_us,
        });
    }

    /// Takes down how a request to the certificate service ended. Its latency decides whether the answer is a normal one;
    /// it is in no average: that is promised of signatures (A 4.2), and answers from memory would flatter it.
    pub fn record_certificates(&mut self, asked: Asked, outcome: Outcome, latency_us: u64) {
        if !outcome.counts() {
            return;
        }
        let tally = match asked {
            Asked::ByApp => &mut self.certificates,
            Asked::Published => &mut self.published,
        };
        tally.add(outcome.is_normal(latency_us));
    }

    /// Takes down a probe of one of the services.
    pub fn record_probe(&mut self, service: Service, normal: bool) {
        match service {
            Service::Signing => self.signing_probes.add(normal),
            Service::Certificates => self.certificates.add(normal),
        }
    }

    /// Adds another part of the same minute.
    pub fn merge(&mut self, part: &Self) {
        self.requests.merge(part.requests);
        self.busy = self.busy.saturating_add(part.busy);
        for (user, tally) in &part.users {
            self.users.entry(*user).or_default().merge(*tally);
        }
        self.contracted = self.contracted.max(part.contracted);
        self.signing_probes.merge(part.signing_probes);
        self.certificates.merge(part.certificates);
        self.maintenance |= part.maintenance;
        self.extension |= part.extension;
        self.latency.merge(part.latency);
        self.published.merge(part.published);
    }

    /// The share of requests refused with 503.
    pub fn busy_share(&self) -> Ratio {
        Ratio {
            part: self.busy,
            whole: self.requests.asked,
        }
    }

    /// The record as bytes: a CBOR array, about 25 bytes and another 5 to 9 for each user.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 9 * self.users.len());
        minicbor::encode(self, &mut bytes).expect("a vector takes whatever is written to it");
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let minute: Self = decoder.decode()?;
        match bytes.len() - decoder.position() {
            0 => minute.checked(),
            trailing => Err(DecodeError::Trailing(trailing)),
        }
    }

    fn checked(self) -> Result<Self, DecodeError> {
        let tallies = [
            self.requests,
            self.signing_probes,
            self.certificates,
            self.published,
        ];
        let wrong = |tally: &Tally| tally.normal > tally.asked;
        if tallies.iter().any(wrong) || self.users.values().any(wrong) {
            return Err(DecodeError::Contradiction("more normal responses than requests"));
        }
        if self.busy > self.requests.asked - self.requests.normal {
            return Err(DecodeError::Contradiction("more 503 than requests that failed"));
        }
        if self.latency.count > self.requests.asked {
            return Err(DecodeError::Contradiction("more latencies than requests"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_429_inside_the_contract_leaves_no_trace() {
        let mut minute = Minute::default();
        minute.record(Some(UserId(1)), Outcome::ThrottledByContract, 10);
        assert_eq!(minute, Minute::default());
    }

    #[test]
    fn what_is_recorded_is_told_apart() {
        let mut minute = Minute::default();
        minute.record(Some(UserId(1)), Outcome::Result, 2_000);
        minute.record(Some(UserId(1)), Outcome::CallerFault, 50);
        minute.record(None, Outcome::Busy, 10);
        minute.record(Some(UserId(2)), Outcome::Result, 3_000_001);
        assert_eq!(minute.requests, Tally { asked: 4, normal: 2 });
        assert_eq!(minute.users[&UserId(1)], Tally { asked: 2, normal: 2 });
        assert_eq!(minute.users[&UserId(2)], Tally { asked: 1, normal: 0 });
        assert_eq!(minute.busy_share(), Ratio { part: 1, whole: 4 });
        assert_eq!((minute.latency.count, minute.latency.sum_us), (2, 3_002_001));
        assert_eq!(minute.latency.max_us, 3_000_001);
        assert_eq!(minute.latency.average_us(), Some(1_501_001));
    }

    #[test]
    fn bytes_that_contradict_themselves_are_refused() {
        let bad = Minute {
            requests: Tally { asked: 1, normal: 2 },
            ..Minute::default()
        };
        assert!(matches!(
            Minute::decode(&bad.encode()),
            Err(DecodeError::Contradiction(_))
        ));
        let mut longer = Minute::default().encode();
        longer.push(0);
        assert!(matches!(Minute::decode(&longer), Err(DecodeError::Trailing(1))));
        assert!(matches!(Minute::decode(&[]), Err(DecodeError::Cbor(_))));
    }

    #[test]
    fn a_record_is_as_small_as_it_says() {
        let mut minute = Minute::default();
        minute.record_probe(Service::Signing, true);
        minute.record_probe(Service::Certificates, true);
        assert!(minute.encode().len() <= 27, "{}", minute.encode().len());
        for user in 0..1_000 {
            for _ in 0..30 {
                minute.record(Some(UserId(user)), Outcome::Result, 2_000);
            }
        }
        assert!(minute.encode().len() < 9_100, "{}", minute.encode().len());
    }
}
