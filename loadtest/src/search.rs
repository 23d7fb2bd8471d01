//! The highest rate that keeps the SLA: doubling until one fails, halving the distance (on a logarithmic scale) until it
//! is small, and then proving the rate again, because one lucky trial is no promise. Pure.

use serde::{Deserialize, Serialize};

use crate::report::Percentiles;

/// How hard to search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// The first rate tried.
    pub(crate) start: f64,
    /// No rate above this is tried.
    pub(crate) highest: f64,
    /// The answer is at most this share below a rate that failed.
    pub(crate) tolerance: f64,
    /// How often the rate found must pass again.
    pub(crate) confirmations: u32,
}

/// Why a trial did not pass.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// The SLA was not kept.
    Sla,
    /// The generator could not send that fast.
    Generator,
    /// Nothing failed: the search was not allowed to go higher.
    Ceiling,
}

/// One rate that was tried.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Trial {
    /// Requests per second.
    pub(crate) rate: f64,
    /// `None`: it passed.
    pub(crate) failed_by: Option<Limit>,
    pub(crate) signatures_per_second: f64,
    pub(crate) missing_share: f64,
    pub(crate) latency_ms: Percentiles,
}

/// What was found.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Maximum {
    /// Requests per second; 0 when no rate passed.
    pub(crate) rate: f64,
    pub(crate) limited_by: Limit,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    Try(f64),
    Done(Maximum),
}

/// Below this the service is not there at all.
const LOWEST: f64 = 1.0;

/// A search under way.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    effort: Effort,
    /// Rates that passed and have not failed since, rising.
    passed: Vec<f64>,
    /// The lowest rate that failed, and why.
    failed: Option<(f64, Limit)>,
    /// How often the highest of `passed` has passed again.
    confirmed: u32,
}

impl Search {
    pub(crate) const fn new(effort: Effort) -> Self {
        Self {
            effort,
            passed: Vec::new(),
            failed: None,
            confirmed: 0,
        }
    }

    /// The next rate to try, or the answer.
    pub(crate) fn step(&self) -> Step {
        let best = self.passed.last().copied();
        match (best, self.failed) {
            (None, None) => Step::Try(self.effort.start.min(self.effort.highest)),
            (None, Some((rate, limit))) if rate / 2.0 < LOWEST => Step::Done(Maximum {
                rate: 0.0,
                limited_by: limit,
            }),
            (None, Some((rate, _))) => Step::Try(rate / 2.0),
            (Some(rate), None) if rate >= self.effort.highest => self.confirm(rate, Limit::Ceiling),
            (Some(rate), None) => Step::Try((rate * 2.0).min(self.effort.highest)),
            (Some(rate), Some((failed, limit))) if rate >= failed * (1.0 - self.effort.tolerance) => {
                self.confirm(rate, limit)
            }
            (Some(rate), Some((failed, _))) => Step::Try((rate * failed).sqrt()),
        }
    }

    fn confirm(&self, rate: f64, limited_by: Limit) -> Step {
        if self.confirmed < self.effort.confirmations {
            Step::Try(rate)
        } else {
            Step::Done(Maximum { rate, limited_by })
        }
    }

    /// Takes what came of a trial.
    pub(crate) fn learn(&mut self, rate: f64, failed_by: Option<Limit>) {
        match failed_by {
            None if self.passed.last() == Some(&rate) => self.confirmed += 1,
            None => {
                self.passed.push(rate);
                self.confirmed = 0;
            }
            Some(limit) => {
                // A rate that passed once and failed now was luck, and so was every rate above it.
                self.passed.retain(|passed| *passed < rate);
                self.confirmed = 0;
                if self.failed.is_none_or(|(known, _)| rate <= known) {
                    self.failed = Some((rate, limit));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFORT: Effort = Effort {
        start: 100.0,
        highest: 1e6,
        tolerance: 0.05,
        confirmations: 2,
    };

    /// Searches with a server that is told by a rule; gives the answer and the trials.
    fn search(effort: Effort, mut rule: impl FnMut(usize, f64) -> Option<Limit>) -> (Maximum, Vec<f64>) {
        let mut search = Search::new(effort);
        let mut trials = Vec::new();
        loop {
            match search.step() {
                Step::Done(maximum) => return (maximum, trials),
                Step::Try(rate) => {
                    search.learn(rate, rule(trials.len(), rate));
                    trials.push(rate);
                    assert!(trials.len() < 100, "it does not end: {trials:?}");
                }
            }
        }
    }

    #[test]
    fn the_knee_is_found_within_the_tolerance_and_never_above_it() {
        for knee in [1.5, 99.0, 100.0, 101.0, 3_777.0, 52_000.0] {
            let (maximum, trials) = search(EFFORT, |_, rate| (rate > knee).then_some(Limit::Sla));
            assert!(maximum.rate <= knee && maximum.rate >= knee * 0.95, "{knee}: {maximum:?}");
            assert_eq!(maximum.limited_by, Limit::Sla);
            let same = trials.iter().filter(|rate| **rate == maximum.rate).count();
            assert_eq!(same, 3, "found once, proved twice: {trials:?}");
            assert!(trials.len() < 25, "{knee}: {} trials", trials.len());
        }
    }

    #[test]
    fn a_lucky_trial_is_not_believed() {
        let mut first = true;
        let (maximum, _) = search(EFFORT, |_, rate| {
            let lucky = std::mem::take(&mut first) || rate <= 1_000.0 || (rate < 1_700.0 && rate > 1_600.0 && first);
            (!lucky || rate > 1_000.0 && rate != 100.0).then_some(Limit::Sla)
        });
        assert!(maximum.rate <= 1_000.0, "{maximum:?}");
        // Everything passes the first time, and nothing above 500 passes again.
        let mut seen = std::collections::HashSet::new();
        let (maximum, _) = search(Effort { highest: 6_400.0, ..EFFORT }, |_, rate| {
            (!seen.insert(rate.to_bits()) && rate > 500.0).then_some(Limit::Sla)
        });
        assert!(maximum.rate <= 500.0, "{maximum:?}");
    }

    #[test]
    fn it_says_what_stood_in_the_way() {
        let generator = search(EFFORT, |_, rate| (rate > 900.0).then_some(Limit::Generator)).0;
        assert_eq!(generator.limited_by, Limit::Generator);
        let nothing = search(EFFORT, |_, _| Some(Limit::Sla)).0;
        assert_eq!(nothing.rate, 0.0);
        let everything = search(Effort { highest: 5_000.0, ..EFFORT }, |_, _| None).0;
        assert_eq!((everything.rate, everything.limited_by), (5_000.0, Limit::Ceiling));
    }
}
