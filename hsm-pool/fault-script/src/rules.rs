//! What a script says about one call. No clock and no file: the time since the script was read and the dice are given.

use std::time::Duration;

use crate::script::{Clause, Fault, Renumber, Script, State};

/// A script at work: how often and since when each of its clauses has fitted.
#[derive(Debug)]
pub struct Rules {
    faults: Vec<Running<(Option<crate::Delay>, Fault)>>,
    states: Vec<Running<State>>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// To be waited before anything else.
    pub delay: Duration,
    /// What the call then does.
    pub fault: Fault,
    /// The token is away, and calls that need it answer this.
    pub removed: Option<u64>,
    /// How many sessions a process may have.
    pub sessions: Option<u64>,
    /// How slot ids are shown.
    pub renumber: Option<Renumber>,
}

#[derive(Debug)]
struct Running<T> {
    clause: Clause<T>,
    calls: u64,
    fitted: u64,
    since: Option<Duration>,
}

impl<T> Running<T> {
    fn new(clause: Clause<T>) -> Self {
        Self {
            clause,
            calls: 0,
            fitted: 0,
            since: None,
        }
    }

    /// Counts a call; true when it is one of the clause's functions and `after` is over.
    fn counts(&mut self, function: usize, age: Duration) -> bool {
        if !self.clause.functions.contains(function) {
            return false;
        }
        self.calls += 1;
        let begun = self.calls > self.clause.when.after;
        if begun && self.since.is_none() {
            // Without `after`, `for` is counted from the reading of the script, not from the first call.
            self.since = Some(if self.clause.when.after == 0 {
                Duration::ZERO
            } else {
                age
            });
        }
        begun
    }

    /// Whether a call that counts fits.
    fn fits(&mut self, age: Duration, random: &mut fastrand::Rng) -> bool {
        let when = &self.clause.when;
        let since = self.since.unwrap_or_default();
        let over = when.lasts.is_some_and(|lasts| age.saturating_sub(since) > lasts);
        let used_up = when.times.is_some_and(|times| self.fitted >= times);
        let missed = |percent: f64, random: &mut fastrand::Rng| random.f64() * 100.0 >= percent;
        if over || used_up || when.percent.is_some_and(|percent| missed(percent, random)) {
            return false;
        }
        self.fitted += 1;
        true
    }
}

impl Rules {
    /// A script that has just been read.
    pub fn new(script: Script) -> Self {
        Self {
            faults: script.faults.into_iter().map(Running::new).collect(),
            states: script.states.into_iter().map(Running::new).collect(),
        }
    }

    /// Judges a call of the function at this place of the vocabulary, `age` after the script was read.
    pub fn judge(&mut self, function: usize, age: Duration, random: &mut fastrand::Rng) -> Verdict {
        let mut verdict = Verdict::default();
        for state in &mut self.states {
            if state.counts(function, age) && state.fits(age, random) {
                state.clause.then.put_into(&mut verdict);
            }
        }
        let mut decided = false;
        for fault in &mut self.faults {
            if fault.counts(function, age) && !decided && fault.fits(age, random) {
                let (delay, then) = fault.clause.then;
                verdict.delay = delay.map_or(Duration::ZERO, |delay| delay.draw(random));
                verdict.fault = then;
                decided = true;
            }
        }
        verdict
    }
}

impl State {
    fn put_into(self, verdict: &mut Verdict) {
        match self {
            Self::Removed(code) => verdict.removed = Some(code),
            Self::Sessions(limit) => verdict.sessions = Some(limit),
            Self::Renumber(how) => verdict.renumber = Some(how),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tests::{LOGIN, SIGN, VOCABULARY};

    struct Bench(Rules, fastrand::Rng);

    impl Bench {
        fn new(script: &str) -> Self {
            Self(
                Rules::new(Script::parse(script, &VOCABULARY).unwrap()),
                fastrand::Rng::with_seed(3),
            )
        }

        fn judge(&mut self, function: usize, age_ms: u64) -> Verdict {
            self.0.judge(function, Duration::from_millis(age_ms), &mut self.1)
        }

        fn faults(&mut self, function: usize, calls: usize) -> Vec<Fault> {
            (0..calls).map(|_| self.judge(function, 0).fault).collect()
        }
    }

    #[test]
    fn a_clause_without_functions_means_signing() {
        let mut bench = Bench::new("hang");
        assert_eq!(bench.judge(LOGIN, 0).fault, Fault::Ok);
        assert_eq!(bench.judge(SIGN, 0).fault, Fault::Hang);
    }

    #[test]
    fn the_first_clause_that_fits_decides() {
        let mut bench = Bench::new("C_Login: error CKR_PIN_LOCKED; error 0x30; wrong");
        assert_eq!(bench.judge(LOGIN, 0).fault, Fault::Error(0xa4));
        assert_eq!(bench.judge(SIGN, 0).fault, Fault::Error(0x30));
    }

    #[test]
    fn after_and_times_count_calls() {
        let mut bench = Bench::new("after 2 times 1 wrong");
        assert_eq!(
            bench.faults(SIGN, 4),
            [Fault::Ok, Fault::Ok, Fault::Wrong, Fault::Ok]
        );
    }

    #[test]
    fn for_is_counted_from_the_reading_or_from_the_end_of_after() {
        let mut bench = Bench::new("for 100 wrong");
        assert_eq!(bench.judge(SIGN, 100).fault, Fault::Wrong);
        assert_eq!(bench.judge(SIGN, 101).fault, Fault::Ok);
        let mut bench = Bench::new("after 1 for 100 wrong");
        let faults = [0, 500, 600, 601].map(|age| bench.judge(SIGN, age).fault);
        assert_eq!(faults, [Fault::Ok, Fault::Wrong, Fault::Wrong, Fault::Ok]);
    }

    #[test]
    fn shares_are_kept_and_a_seed_repeats_them() {
        let script = "5% error 0x30; 1% hang; slow 2..4";
        let (mut one, mut other) = (Bench::new(script), Bench::new(script));
        let faults = one.faults(SIGN, 20_000);
        assert_eq!(faults, other.faults(SIGN, 20_000));
        let share = |wanted| faults.iter().filter(|fault| **fault == wanted).count() as f64 / 20_000.0;
        assert!((0.045..0.055).contains(&share(Fault::Error(0x30))));
        assert!((0.007..0.012).contains(&share(Fault::Hang)));
    }

    #[test]
    fn a_slow_call_may_do_something_else_afterwards() {
        let verdict = Bench::new("slow 7 error 0x30").judge(SIGN, 0);
        assert_eq!(
            (verdict.delay, verdict.fault),
            (Duration::from_millis(7), Fault::Error(0x30))
        );
    }

    #[test]
    fn sessions_are_lost_once_unless_told_otherwise() {
        assert_eq!(
            Bench::new("lost").faults(SIGN, 3),
            [Fault::Lost, Fault::Ok, Fault::Ok]
        );
        assert_eq!(
            Bench::new("times 2 lost").faults(SIGN, 3),
            [Fault::Lost, Fault::Lost, Fault::Ok]
        );
        assert_eq!(Bench::new("100% lost").faults(SIGN, 3), [Fault::Lost; 3]);
    }

    #[test]
    fn states_hold_beside_faults() {
        let mut bench = Bench::new("sessions 4; renumber 100; for 50 removed; slow 1");
        let verdict = bench.judge(SIGN, 50);
        assert_eq!((verdict.sessions, verdict.removed), (Some(4), Some(0xe0)));
        assert_eq!(verdict.renumber, Some(Renumber::Offset(100)));
        assert_eq!(verdict.delay, Duration::from_millis(1));
        assert_eq!(bench.judge(LOGIN, 51).removed, None);
    }
}
