//! What the minutes since the start amount to: what alerts go by. The verdict of a month is the agreement's own
//! ([`crate::agreement`]); this is the same rule, a minute at a time and as soon as the minute is over.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::{Mutex, MutexGuard};
use sla::calendar::MinuteIndex;
use sla::minute::{Minute, Tally, UserId};
use sla::observed::Sample;
use sla::policy::Policy;

/// Seconds after a minute's end at which it is judged: an answer may be three seconds late.
pub(crate) const GRACE_S: u64 = 5;

/// Beats, of a second each, over which the load of users is seen.
pub const LOAD_BEATS: usize = 10;

/// The minutes under one agreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyMinutes {
    /// The agreement.
    pub name: String,
    /// Minutes in which its services were available.
    pub available: u64,
    /// Minutes in which one was not. Maintenance is not subtracted: that is for its notices to say.
    pub unavailable: u64,
}

/// All minutes.
#[derive(Debug)]
pub struct Judged {
    /// By agreement.
    pub policies: Vec<PolicyMinutes>,
    /// Requests that count, and those with a normal response.
    pub requests: Tally,
    /// The share of the last full minute's requests that were refused with 503.
    pub busy_ratio: f64,
    /// Seconds in which capacity was being extended.
    pub extending_seconds: u64,
    /// Requests by user of the last beats, the latest last.
    load: VecDeque<BTreeMap<UserId, Tally>>,
    rules: Vec<Policy>,
    last: Option<MinuteIndex>,
}

impl Default for Judged {
    fn default() -> Self {
        let rules = Policy::builtin();
        let policies = rules.iter().map(|policy| PolicyMinutes {
            name: policy.name.clone(),
            available: 0,
            unavailable: 0,
        });
        Self {
            policies: policies.collect(),
            requests: Tally::default(),
            busy_ratio: 0.0,
            extending_seconds: 0,
            load: VecDeque::new(),
            rules,
            last: None,
        }
    }
}

impl Judged {
    /// The minute in which an engine begins is not whole, and is left to the agreement.
    pub(crate) fn begin(&mut self, now: MinuteIndex) {
        self.last = Some(now);
    }

    /// Notes what users asked in one beat.
    pub(crate) fn note_load(&mut self, beat: BTreeMap<UserId, Tally>) {
        if self.load.len() == LOAD_BEATS {
            self.load.pop_front();
        }
        self.load.push_back(beat);
    }

    /// What users asked in the last [`LOAD_BEATS`] seconds, as far as it counts under the agreement.
    pub fn load(&self) -> BTreeMap<UserId, Tally> {
        let mut sum: BTreeMap<UserId, Tally> = BTreeMap::new();
        for (user, tally) in self.load.iter().flatten() {
            sum.entry(*user).or_default().merge(*tally);
        }
        sum
    }

    /// Whether this minute is over for long enough and has not been judged.
    pub(crate) fn wants(&self, minute: MinuteIndex) -> bool {
        self.last < Some(minute)
    }

    /// Judges a minute that is over.
    pub(crate) fn judge(&mut self, index: MinuteIndex, minute: &Minute) {
        self.last = Some(index);
        let busy = minute.busy_share();
        self.busy_ratio = busy.part as f64 / busy.whole.max(1) as f64;
        for (rule, count) in self.rules.iter().zip(&mut self.policies) {
            let sample = Sample::of(minute, rule);
            if sample.signing && sample.certificates {
                count.available += 1;
            } else {
                count.unavailable += 1;
            }
        }
    }
}

/// The same, for whoever measures.
#[derive(Debug, Default)]
pub struct JudgedMinutes(Mutex<Judged>);

impl JudgedMinutes {
    /// A short look: the thread that judges waits for it.
    pub fn look(&self) -> MutexGuard<'_, Judged> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use sla::answer::Outcome;
    use sla::minute::{Service, UserId};

    use super::*;

    fn minute(results: u64, busy: u64) -> Minute {
        let mut minute = Minute::default();
        minute.record_probe(Service::Signing, true);
        minute.record_probe(Service::Certificates, true);
        for (count, outcome) in [(results, Outcome::Result), (busy, Outcome::Busy)] {
            for _ in 0..count {
                minute.record(Some(UserId(1)), outcome, 1_000);
            }
        }
        minute
    }

    #[test]
    fn the_load_of_users_is_that_of_the_last_beats() {
        let mut judged = Judged::default();
        let beat = |asked| BTreeMap::from([(UserId(1), Tally { asked, normal: 1 })]);
        judged.note_load(beat(1_000));
        for _ in 0..LOAD_BEATS {
            judged.note_load(beat(2));
        }
        let asked = 2 * LOAD_BEATS as u64;
        let normal = LOAD_BEATS as u64;
        assert_eq!(
            judged.load(),
            BTreeMap::from([(UserId(1), Tally { asked, normal })])
        );
    }

    #[test]
    fn each_minute_is_judged_once_under_each_agreement() {
        let mut judged = Judged::default();
        let at = MinuteIndex::new;
        judged.begin(at(9));
        assert!(judged.wants(at(10)) && !judged.wants(at(9)));
        judged.judge(at(10), &minute(99, 1));
        assert!(!judged.wants(at(10)) && judged.wants(at(11)));
        assert!((judged.busy_ratio - 0.01).abs() < 1e-9);
        judged.judge(at(11), &minute(50, 50));
        judged.judge(at(12), &minute(0, 0));
        let bestsign = judged.policies.iter().find(|policy| policy.name == "bestsign");
        let bestsign = bestsign.unwrap();
        assert_eq!((bestsign.available, bestsign.unavailable), (2, 1));
        assert!(judged.busy_ratio < 1e-9);
    }
}
