//! What was observed, boiled down to what a verdict needs of each minute.
//!
//! Records are read one at a time and let go; a month of samples takes about 4 MB however many users there are.

use std::collections::BTreeMap;

use crate::calendar::{MinuteIndex, Span};
use crate::minute::{Latency, Minute, Tally};
use crate::percent::Ratio;
use crate::policy::{Counted, Idle, Measure, Policy, UserAnswered, Users};

/// Why a record is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObservedError {
    /// It belongs to a minute that the reader did not say it would cover.
    #[error("minute {0} is outside of what is covered")]
    Outside(MinuteIndex),
    /// There is a record of that minute already; parts have to be merged first.
    #[error("minute {0} was given twice; merge its parts first")]
    Twice(MinuteIndex),
}

/// One minute under one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Whether signing was available.
    pub signing: bool,
    /// Whether the certificate service was available; true where the policy does not count it.
    pub certificates: bool,
    /// Whether maintenance was under way.
    pub maintenance: bool,
    /// Whether capacity was being extended.
    pub extension: bool,
    /// The share of requests refused with 503.
    pub busy: Ratio,
    /// Response times.
    pub latency: Latency,
}

impl Sample {
    /// Applies a policy to a record.
    pub fn of(minute: &Minute, policy: &Policy) -> Self {
        let counted = policy.availability.certificates == Counted::Counted;
        Self {
            signing: is_signing_available(minute, policy),
            certificates: !counted || are_certificates_available(minute, policy),
            maintenance: minute.maintenance,
            extension: minute.extension,
            busy: minute.busy_share(),
            latency: minute.latency,
        }
    }

    /// Whether somebody has to be paged for it.
    pub fn pages(&self, policy: &Policy) -> bool {
        self.busy.whole > 0 && self.busy.is_at_least(policy.control.busy_share_page)
    }
}

/// The rule of A 4.3(2): what apps ask and the probes, and, where somebody has asked for it, what is published. Neither can
/// make up for the other.
fn are_certificates_available(minute: &Minute, policy: &Policy) -> bool {
    let share = policy.availability.share;
    let published = minute.published;
    minute.certificates.reaches(share) && (published.asked == 0 || published.reaches(share))
}

/// The rule of A 4.3(3) and B 4.8. Requests whose user is not known, such as those refused before anything was
/// proved, decide where no user is known at all.
fn is_signing_available(minute: &Minute, policy: &Policy) -> bool {
    let rule = &policy.availability;
    if minute.requests.asked == 0 {
        return is_idle_available(minute, policy);
    }
    match rule.measure {
        Measure::Users if !minute.users.is_empty() => users(minute, policy).reaches(rule.share),
        Measure::Users | Measure::Requests => minute.requests.reaches(rule.share),
    }
}

fn is_idle_available(minute: &Minute, policy: &Policy) -> bool {
    match policy.availability.idle {
        Idle::Probe => is_probe_answered(minute, policy),
        Idle::Unavailable => false,
        Idle::Available => true,
    }
}

fn is_probe_answered(minute: &Minute, policy: &Policy) -> bool {
    minute.signing_probes.reaches(policy.availability.share)
}

/// The users of a minute, and those who got a normal response.
fn users(minute: &Minute, policy: &Policy) -> Tally {
    let mut users = Tally::default();
    for tally in minute.users.values() {
        users.add(is_user_answered(*tally, policy));
    }
    let active = users.asked;
    if policy.availability.users == Users::Contracted && u64::from(minute.contracted) > active {
        let silent = u64::from(minute.contracted) - active;
        users.merge(Tally {
            asked: silent,
            normal: if is_probe_answered(minute, policy) {
                silent
            } else {
                0
            },
        });
    }
    users
}

fn is_user_answered(tally: Tally, policy: &Policy) -> bool {
    match policy.availability.user_answered {
        UserAnswered::Every => tally.normal == tally.asked,
        UserAnswered::Share => tally.reaches(policy.availability.share),
        UserAnswered::Any => tally.normal > 0,
    }
}

/// What was observed of a span of time, under one policy.
#[derive(Clone, Debug)]
pub struct Observed<'p> {
    policy: &'p Policy,
    covered: Span,
    samples: BTreeMap<MinuteIndex, Sample>,
}

impl<'p> Observed<'p> {
    /// Nothing yet. `covered` is what the reader is going to look at: a minute inside it that is never added
    /// has no record, and that counts as unavailable; about minutes outside of it nothing is said.
    pub fn new(policy: &'p Policy, covered: Span) -> Self {
        Self {
            policy,
            covered,
            samples: BTreeMap::new(),
        }
    }

    /// Adds the complete record of a minute, late parts included.
    pub fn add(&mut self, minute: MinuteIndex, record: &Minute) -> Result<(), ObservedError> {
        if !self.covered.contains(minute) {
            return Err(ObservedError::Outside(minute));
        }
        let sample = Sample::of(record, self.policy);
        match self.samples.insert(minute, sample) {
            None => Ok(()),
            Some(first) => {
                self.samples.insert(minute, first);
                Err(ObservedError::Twice(minute))
            }
        }
    }

    /// The policy.
    pub fn policy(&self) -> &'p Policy {
        self.policy
    }

    /// What the reader looked at.
    pub fn covered(&self) -> Span {
        self.covered
    }

    /// What was seen of a minute.
    pub fn sample(&self, minute: MinuteIndex) -> Option<&Sample> {
        self.samples.get(&minute)
    }

    /// What was seen in a span, in order.
    pub fn samples(&self, span: Span) -> impl Iterator<Item = (MinuteIndex, &Sample)> {
        self.samples
            .range(span.from..span.to)
            .map(|(minute, sample)| (*minute, sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Outcome;
    use crate::minute::{Asked, Service, UserId};

    fn minute(users: &[(u32, u32)]) -> Minute {
        let mut minute = Minute::default();
        for (number, (good, bad)) in (0u32..).zip(users) {
            for _ in 0..*good {
                minute.record(Some(UserId(number)), Outcome::Result, 1_000);
            }
            for _ in 0..*bad {
                minute.record(Some(UserId(number)), Outcome::Failed, 1_000);
            }
        }
        minute.record_probe(Service::Certificates, true);
        minute
    }

    #[test]
    fn nine_of_ten_users_are_enough_and_eight_are_not() {
        let policy = Policy::bjca();
        let mut users = vec![(10, 0); 9];
        users.push((0, 1_000));
        assert!(Sample::of(&minute(&users), &policy).signing);
        users[0] = (0, 1);
        assert!(!Sample::of(&minute(&users), &policy).signing);
    }

    #[test]
    fn the_same_minute_differs_by_requests_and_by_users() {
        let loud_user_fails = minute(&[
            (1, 0),
            (1, 0),
            (1, 0),
            (1, 0),
            (1, 0),
            (1, 0),
            (1, 0),
            (1, 0),
            (1, 0),
            (0, 99),
        ]);
        assert!(Sample::of(&loud_user_fails, &Policy::bjca()).signing);
        assert!(!Sample::of(&loud_user_fails, &Policy::bestsign()).signing);
        let quiet_users_fail = minute(&[(996, 0), (0, 1), (0, 1), (0, 1)]);
        assert!(!Sample::of(&quiet_users_fail, &Policy::bjca()).signing);
        assert!(Sample::of(&quiet_users_fail, &Policy::bestsign()).signing);
    }

    #[test]
    fn exactly_ninety_percent_of_requests_is_available() {
        let policy = Policy::bestsign();
        assert!(Sample::of(&minute(&[(90, 10)]), &policy).signing);
        assert!(!Sample::of(&minute(&[(89, 11)]), &policy).signing);
    }

    #[test]
    fn a_minute_without_traffic_is_for_the_probe_to_judge() {
        let mut policy = Policy::bjca();
        let mut idle = Minute::default();
        assert!(!Sample::of(&idle, &policy).signing, "no probe ran");
        idle.record_probe(Service::Signing, true);
        assert!(Sample::of(&idle, &policy).signing);
        idle.record_probe(Service::Signing, false);
        assert!(!Sample::of(&idle, &policy).signing, "half of the probes failed");
        policy.availability.idle = Idle::Available;
        assert!(Sample::of(&Minute::default(), &policy).signing);
        policy.availability.idle = Idle::Unavailable;
        idle.record_probe(Service::Signing, true);
        assert!(!Sample::of(&idle, &policy).signing);
    }

    #[test]
    fn a_429_inside_the_contract_does_not_make_a_minute_one_with_traffic() {
        let mut minute = Minute::default();
        minute.record(Some(UserId(1)), Outcome::ThrottledByContract, 10);
        minute.record_probe(Service::Signing, true);
        assert!(Sample::of(&minute, &Policy::bjca()).signing);
    }

    #[test]
    fn contracted_users_without_traffic_are_answered_by_the_probe() {
        let mut policy = Policy::bjca();
        policy.availability.users = Users::Contracted;
        let mut minute = minute(&[(0, 1)]);
        minute.contracted = 10;
        assert!(!Sample::of(&minute, &policy).signing, "no probe ran");
        minute.record_probe(Service::Signing, true);
        assert!(Sample::of(&minute, &policy).signing, "nine of ten");
        policy.availability.users = Users::Active;
        assert!(!Sample::of(&minute, &policy).signing, "none of one");
    }

    #[test]
    fn when_one_user_is_answered_is_an_option() {
        let mut policy = Policy::bjca();
        let nine_of_ten = minute(&[(9, 1)]);
        let one_of_ten = minute(&[(1, 9)]);
        for (rule, nine, one) in [
            (UserAnswered::Every, false, false),
            (UserAnswered::Share, true, false),
            (UserAnswered::Any, true, true),
        ] {
            policy.availability.user_answered = rule;
            assert_eq!(Sample::of(&nine_of_ten, &policy).signing, nine, "{rule:?}");
            assert_eq!(Sample::of(&one_of_ten, &policy).signing, one, "{rule:?}");
        }
    }

    #[test]
    fn certificates_count_for_bjca_only() {
        let mut minute = minute(&[(1, 0)]);
        minute.certificates = Tally::default();
        assert!(
            !Sample::of(&minute, &Policy::bjca()).certificates,
            "no evidence that it was up"
        );
        assert!(Sample::of(&minute, &Policy::bestsign()).certificates);
    }

    #[test]
    fn what_is_published_cannot_make_up_for_what_is_not_issued() {
        let mut minute = minute(&[(1, 0)]);
        let is_up = |minute: &Minute| Sample::of(minute, &Policy::bjca()).certificates;
        minute.certificates = Tally::default();
        minute.record_certificates(Asked::ByApp, Outcome::Result, 900_000);
        assert!(is_up(&minute), "nobody has asked for what is published");
        for _ in 0..1_000 {
            minute.record_certificates(Asked::Published, Outcome::Result, 50);
        }
        assert!(is_up(&minute));
        minute.record_certificates(Asked::ByApp, Outcome::Failed, 50);
        assert!(!is_up(&minute), "half of what apps asked has failed");
        let mut silent = minute.clone();
        silent.certificates = Tally { asked: 1, normal: 1 };
        assert!(is_up(&silent));
        for _ in 0..1_000 {
            silent.record_certificates(Asked::Published, Outcome::Result, 3_000_001);
        }
        assert!(!is_up(&silent), "answers that come too late");
        assert_eq!(silent.latency.count, 1, "they are in no average of signatures");
    }

    #[test]
    fn refusals_before_any_proof_decide_where_no_user_is_known() {
        let mut minute = Minute::default();
        for _ in 0..10 {
            minute.record(None, Outcome::Busy, 10);
        }
        minute.record_probe(Service::Signing, true);
        assert!(!Sample::of(&minute, &Policy::bjca()).signing);
    }

    #[test]
    fn five_percent_of_503_pages() {
        let policy = Policy::bjca();
        let mut minute = minute(&[(95, 0)]);
        for _ in 0..4 {
            minute.record(Some(UserId(0)), Outcome::Busy, 10);
        }
        assert!(!Sample::of(&minute, &policy).pages(&policy));
        minute.record(Some(UserId(0)), Outcome::Busy, 10);
        assert!(Sample::of(&minute, &policy).pages(&policy));
        assert!(!Sample::of(&Minute::default(), &policy).pages(&policy));
    }

    #[test]
    fn a_minute_is_added_once_and_only_where_it_was_promised() {
        let policy = Policy::bjca();
        let span = Span {
            from: MinuteIndex::new(10),
            to: MinuteIndex::new(20),
        };
        let mut observed = Observed::new(&policy, span);
        let (good, bad) = (minute(&[(1, 0)]), Minute::default());
        assert_eq!(observed.add(span.from, &good), Ok(()));
        assert_eq!(
            observed.add(span.from, &bad),
            Err(ObservedError::Twice(span.from))
        );
        assert!(observed.sample(span.from).unwrap().signing, "the first stands");
        assert_eq!(observed.add(span.to, &good), Err(ObservedError::Outside(span.to)));
    }
}
