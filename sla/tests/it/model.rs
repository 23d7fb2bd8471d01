//! The verdict against a naive reference, over random histories with their trouble where it hurts: at the ends of
//! the month, around maintenance, in gaps.

use proptest::prelude::*;
use sla::minute::Minute;
use sla::policy::{Counted, Overlap, Policy, RunAtMonthEnd};
use sla::verdict::Verdict;
use sla::working_days::WorkingDays;

use crate::support::{History, MARGIN, Was};

const AHEAD_IN_TIME: u32 = 20 * 1_440;
const AHEAD_LATE: u32 = 60;

#[derive(Clone, Debug)]
enum Stroke {
    Was(Was),
    /// Maintenance that was announced this many minutes before, under way with the service down.
    Maintenance(u32),
    /// An announced window in which nothing happens by itself.
    Window,
}

#[derive(Clone, Debug)]
struct Scene {
    month: &'static str,
    strokes: Vec<(i64, u32, Stroke)>,
    now: i64,
    begins: Option<i64>,
    policy: Policy,
}

/// Offsets from the beginning of a month: near it, near its end (28 to 31 days), or anywhere.
fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => -12..12i64,
        4 => (28..=31i64, -12..12i64).prop_map(|(days, minutes)| days * 1_440 + minutes),
        2 => -1_000..46_000i64,
    ]
}

fn stroke() -> impl Strategy<Value = Stroke> {
    prop_oneof![
        8 => prop::sample::select(vec![
            Was::SigningDown, Was::CertificatesDown, Was::BothDown, Was::Missing, Was::Good,
        ]).prop_map(Stroke::Was),
        2 => prop::sample::select(vec![AHEAD_IN_TIME, AHEAD_LATE]).prop_map(Stroke::Maintenance),
        1 => Just(Stroke::Window),
    ]
}

/// Short stretches one after the other, over the beginning or the end of a month.
fn cluster() -> impl Strategy<Value = Vec<(i64, u32, Stroke)>> {
    let edge = prop_oneof![Just(0i64), (28..=31i64).prop_map(|days| days * 1_440)];
    (edge, prop::collection::vec((1..4u32, stroke()), 3..8)).prop_map(|(edge, stretches)| {
        let mut offset = edge - 7;
        let place = |(minutes, stroke): (u32, Stroke)| {
            let placed = (offset, minutes, stroke);
            offset += i64::from(minutes);
            placed
        };
        stretches.into_iter().map(place).collect()
    })
}

fn strokes() -> impl Strategy<Value = Vec<(i64, u32, Stroke)>> {
    let length = prop_oneof![6 => 1..9u32, 2 => 9..400u32];
    let anywhere = prop::collection::vec((offset(), length, stroke()), 0..10);
    (cluster(), anywhere, cluster()).prop_map(|(first, then, last)| [first, then, last].concat())
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<[bool; 4]>(), 1..8u32).prop_map(|([users, sum, whole, partial], run_minutes)| {
        let mut policy = if users { Policy::bjca() } else { Policy::bestsign() };
        let rule = &mut policy.availability;
        rule.overlap = if sum { Overlap::Sum } else { Overlap::Union };
        rule.run_at_month_end = if whole {
            RunAtMonthEnd::Whole
        } else {
            RunAtMonthEnd::Cut
        };
        rule.partial_month = if partial {
            Counted::Counted
        } else {
            Counted::NotCounted
        };
        rule.run_minutes = run_minutes;
        policy
    })
}

fn scene() -> impl Strategy<Value = Scene> {
    (
        prop::sample::select(vec!["2024-02", "2025-02", "2026-04", "2026-12", "2027-01"]),
        strokes(),
        prop_oneof![Just(48_000i64), 1..48_000i64, offset()],
        prop::option::weighted(0.2, -300..20_000i64),
        policy(),
    )
        .prop_map(|(month, strokes, now, begins, policy)| Scene {
            month,
            strokes,
            now: now.max(1),
            begins,
            policy,
        })
}

/// No holidays, so that an announcement twenty days ahead is in time in every month of the scenes.
fn plain_weeks() -> WorkingDays {
    let year = |year| format!("[[year]]\nyear = {year}\nsource = \"test\"\nholidays = []\nworking = []\n");
    WorkingDays::from_toml(&(2023..2028).map(year).collect::<String>()).unwrap()
}

fn history(scene: &Scene) -> History {
    let mut history = History::of(scene.month);
    history.days = plain_weeks();
    for (offset, minutes, stroke) in &scene.strokes {
        match stroke {
            Stroke::Was(was) => history.paint(*offset, *minutes, *was),
            Stroke::Maintenance(ahead) => history
                .paint(*offset, *minutes, Was::BothDown)
                .maintain(*offset, *minutes)
                .announce(*offset, *minutes, *ahead),
            Stroke::Window => history.announce(*offset, *minutes, AHEAD_IN_TIME),
        };
    }
    // A history that is bad up to the edge of what is covered would rightly be asked for more.
    for edge in [-i64::from(MARGIN), history.end() + i64::from(MARGIN) - 1] {
        history.paint(edge, 1, Was::Good);
    }
    history.now = history.at(scene.now).min(history.covered.to);
    if let Some(begins) = scene.begins {
        history.term.from = history.at(begins.min(scene.now - 1));
    }
    history
}

/// The reference: one letter a minute, and every question answered by looking at all of them again.
struct Naive<'a> {
    history: &'a History,
    policy: &'a Policy,
}

struct Reckoning {
    signing: u32,
    certificates: u32,
    either: u32,
    excluded: u32,
    longest: u32,
    outages: u32,
}

impl Naive<'_> {
    /// `u` up, `s` and `c` one service down, `b` both, `x` excluded, `-` no judgement.
    fn letter(&self, offset: i64) -> char {
        let minute = self.history.at(offset);
        if minute < self.history.term.from || minute >= self.history.now {
            return '-';
        }
        let record = self.history.minutes.get(&minute);
        let announced = self.history.notices.iter().any(|notice| {
            let ahead = notice.window.from.number() - notice.announced.number();
            let lead = if self.policy.name == "bjca" {
                AHEAD_IN_TIME
            } else {
                1
            };
            ahead >= lead && notice.window.from <= minute && minute < notice.window.to
        });
        let down = |minute: &Minute| (minute.requests.normal == 0, minute.certificates.normal == 0);
        match (record, self.policy.name == "bjca") {
            (Some(record), _) if announced && record.maintenance => 'x',
            (None, true) => 'b',
            (None, false) => 's',
            (Some(record), true) => match down(record) {
                (false, false) => 'u',
                (true, false) => 's',
                (false, true) => 'c',
                (true, true) => 'b',
            },
            (Some(record), false) => {
                if down(record).0 {
                    's'
                } else {
                    'u'
                }
            }
        }
    }

    /// Length and first minute of the run a bad minute stands in.
    fn run(&self, letters: &[char], at: usize, low: usize, high: usize) -> (u32, usize) {
        let (mut length, mut first) = (1, at);
        let is_bad = |letter: char| matches!(letter, 's' | 'c' | 'b');
        for place in (low..at)
            .rev()
            .take_while(|place| letters[*place] == 'x' || is_bad(letters[*place]))
        {
            if is_bad(letters[place]) {
                (length, first) = (length + 1, place);
            }
        }
        let after = at + 1..high;
        length += after
            .take_while(|place| letters[*place] == 'x' || is_bad(letters[*place]))
            .filter(|place| is_bad(letters[*place]))
            .count() as u32;
        (length, first)
    }

    fn reckon(&self) -> Reckoning {
        let margin = i64::from(MARGIN);
        let letters: Vec<char> = (-margin..self.history.end() + margin)
            .map(|offset| self.letter(offset))
            .collect();
        let month = MARGIN as usize..MARGIN as usize + self.history.end() as usize;
        let (low, high) = match self.policy.availability.run_at_month_end {
            RunAtMonthEnd::Whole => (0, letters.len()),
            RunAtMonthEnd::Cut => (month.start, month.end),
        };
        let mut sums = Reckoning {
            signing: 0,
            certificates: 0,
            either: 0,
            excluded: 0,
            longest: 0,
            outages: 0,
        };
        let mut firsts = Vec::new();
        for at in month {
            sums.excluded += u32::from(letters[at] == 'x');
            if !matches!(letters[at], 's' | 'c' | 'b') {
                continue;
            }
            let (length, first) = self.run(&letters, at, low, high);
            if length < self.policy.availability.run_minutes {
                continue;
            }
            sums.signing += u32::from(letters[at] != 'c');
            sums.certificates += u32::from(letters[at] != 's');
            sums.either += 1;
            sums.longest = sums.longest.max(length);
            firsts.push(first);
        }
        firsts.dedup();
        sums.outages = firsts.len() as u32;
        sums
    }
}

fn check_against_reference(
    history: &History,
    policy: &Policy,
    verdict: &Verdict,
) -> Result<(), TestCaseError> {
    let sums = Naive { history, policy }.reckon();
    let down = verdict.down;
    prop_assert_eq!(
        (
            down.signing,
            down.certificates,
            down.either,
            verdict.minutes.excluded
        ),
        (sums.signing, sums.certificates, sums.either, sums.excluded)
    );
    prop_assert_eq!(
        (verdict.longest_stop_minutes, verdict.outages),
        (sums.longest, sums.outages)
    );
    let begins = history.term.from.number().max(history.month.span().from.number());
    let total = u64::from(history.month.span().to.number() - begins - sums.excluded);
    let up = total - u64::from(sums.either);
    let sum = up + u64::from(sums.signing + sums.certificates);
    let (part, whole) = match policy.availability.overlap {
        Overlap::Sum => (up, sum),
        Overlap::Union => (up, total),
    };
    let ratio = verdict.availability.of_cycle;
    prop_assert_eq!((ratio.part, ratio.whole), (part, whole));
    let promise = u64::from(policy.availability.promise.per_million());
    let partial = begins != history.month.span().from.number();
    let kept = (!partial || policy.availability.partial_month == Counted::Counted)
        .then_some(part * 1_000_000 >= promise * whole);
    prop_assert_eq!(verdict.promise.availability, kept);
    Ok(())
}

/// The same history, so many minutes later, with nothing written down since.
fn dead_for(scene: &Scene, minutes: u32) -> History {
    let mut later = history(scene);
    let died = later.now;
    later.now = died.plus(minutes);
    later.minutes.retain(|minute, _| *minute < died);
    later
}

fn is_kept(history: &History, policy: &Policy) -> bool {
    let ratio = history.judge(policy).availability.of_cycle;
    ratio.is_at_least(policy.availability.promise)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_is_that_of_the_reference(scene in scene()) {
        let history = history(&scene);
        prop_assume!(history.term.from < history.month.span().to);
        prop_assume!(history.now > history.term.from.max(history.month.span().from));
        let verdict = history.judge(&scene.policy);
        check_against_reference(&history, &scene.policy, &verdict)?;
    }

    /// Dying now breaks the promise after exactly as many minutes as the budget says, and not one before.
    #[test]
    fn minutes_until_breach_are_exact(mut scene in scene()) {
        scene.policy.availability.run_at_month_end = RunAtMonthEnd::Whole;
        let now = history(&scene);
        prop_assume!(now.term.from < now.month.span().to && now.now < now.month.span().to);
        prop_assume!(now.now > now.term.from.max(now.month.span().from));
        let left = now.month.span().to.number() - now.now.number();
        match now.judge(&scene.policy).budget.until_breach {
            None => prop_assert!(is_kept(&dead_for(&scene, left), &scene.policy)),
            Some(0) => prop_assert!(!is_kept(&now, &scene.policy)),
            Some(minutes) => {
                prop_assert!(minutes <= left);
                prop_assert!(!is_kept(&dead_for(&scene, minutes), &scene.policy));
                prop_assert!(is_kept(&dead_for(&scene, minutes - 1), &scene.policy));
            }
        }
    }

    /// The remaining budget can be spent to its last minute, and not beyond.
    #[test]
    fn the_remaining_budget_is_exact(scene in scene()) {
        let mut policy = scene.policy.clone();
        policy.availability.run_minutes = 1;
        let mut history = history(&scene);
        history.now = history.at(1);
        history.term.from = history.at(-100_000);
        let budget = history.judge(&policy).budget;
        let kept = is_kept(&history, &policy);
        history.paint(1, budget.remaining, Was::SigningDown);
        history.now = history.at(1 + i64::from(budget.remaining));
        prop_assert_eq!(is_kept(&history, &policy), kept);
        history.paint(1, budget.remaining + 1, Was::SigningDown);
        history.now = history.now.plus(1);
        prop_assert!(!is_kept(&history, &policy));
    }
}
