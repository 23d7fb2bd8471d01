//! Late data: parts of minutes add up to the same record in any order, and come back from disk as they were.

use proptest::prelude::*;
use sla::answer::Outcome;
use sla::calendar::MinuteIndex;
use sla::minute::{Minute, Service, UserId};
use sla::observed::Sample;
use sla::policy::Policy;

use crate::support::{History, Was};

#[derive(Clone, Copy, Debug)]
enum Event {
    Answer(Option<u32>, Outcome, u64),
    Probe(Service, bool),
    Contracted(u32),
    Maintenance,
    Extension,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Result,
        Outcome::CallerFault,
        Outcome::ThrottledByContract,
        Outcome::ThrottledWithinContract,
        Outcome::Busy,
        Outcome::Failed,
        Outcome::Pending,
        Outcome::Reset,
    ])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (prop::option::of(0..5u32), outcome(), 0..4_000_000u64).prop_map(|(u, o, l)| Event::Answer(u, o, l)),
        2 => any::<(bool, bool)>().prop_map(|(signing, ok)| {
            Event::Probe(if signing { Service::Signing } else { Service::Certificates }, ok)
        }),
        1 => (0..9u32).prop_map(Event::Contracted),
        1 => Just(Event::Maintenance),
        1 => Just(Event::Extension),
    ]
}

fn apply(minute: &mut Minute, event: Event) {
    match event {
        Event::Answer(user, outcome, latency) => minute.record(user.map(UserId), outcome, latency),
        Event::Probe(service, ok) => minute.record_probe(service, ok),
        Event::Contracted(users) => minute.contracted = minute.contracted.max(users),
        Event::Maintenance => minute.maintenance = true,
        Event::Extension => minute.extension = true,
    }
}

proptest! {
    #[test]
    fn parts_add_up_in_any_order(
        events in prop::collection::vec((event(), 0..4usize), 0..60),
        order in Just([0usize, 1, 2, 3]).prop_shuffle(),
    ) {
        let mut whole = Minute::default();
        let mut parts = vec![Minute::default(); 4];
        for (event, part) in &events {
            apply(&mut whole, *event);
            apply(&mut parts[*part], *event);
        }
        let mut merged = Minute::default();
        for part in order {
            merged.merge(&parts[part]);
        }
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(Minute::decode(&whole.encode()).unwrap(), whole.clone());
        for policy in Policy::builtin() {
            prop_assert_eq!(Sample::of(&merged, &policy), Sample::of(&whole, &policy));
        }
    }

    /// Whatever is on disk, reading it fails or gives a record that can be written again.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), at in 0..80usize) {
        let mut damaged = Was::Good.record().unwrap().encode();
        let place = at % damaged.len();
        damaged[place] ^= bytes.first().copied().unwrap_or(1);
        for bytes in [&bytes, &damaged] {
            if let Ok(minute) = Minute::decode(bytes) {
                prop_assert_eq!(Minute::decode(&minute.encode()).unwrap(), minute);
            }
        }
    }
}

/// Answers that arrive after a verdict change it, and only for the better or worse of their minute.
#[test]
fn late_parts_change_the_verdict_of_their_minute() {
    let policy = Policy::bestsign();
    let mut june = History::of("2026-06");
    june.paint(500, 5, Was::SigningDown);
    assert_eq!(june.judge(&policy).outages, 1);
    let late: MinuteIndex = june.at(502);
    let mut part = Minute::default();
    for _ in 0..9 {
        part.record(Some(UserId(2)), Outcome::Result, 1_000);
    }
    june.minutes.get_mut(&late).unwrap().merge(&part);
    let verdict = june.judge(&policy);
    assert_eq!(
        (verdict.outages, verdict.minutes.unavailable),
        (0, 4),
        "9 of 10 were answered in that minute"
    );
}
