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

/// A trial in which the generator was late says nothing about the server, and on a busy machine nothing about the
/// generator either: it is repeated until it was spoilt so often.
const SPOILT_MAX: u32 = 3;

/// A search under way.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    effort: Effort,
    /// The highest rate that passed.
    passed: Option<f64>,
    /// The lowest rate that failed, and why.
    failed: Option<(f64, Limit)>,
    /// Set when the distance between the two is small.
    proof: Option<Proof>,
    /// Trials in a row that the generator spoilt.
    spoilt: u32,
}

/// The rate found is being tried again. From here on the search only goes down: whoever goes up again until luck lets a
/// rate pass finds luck.
#[derive(Clone, Copy, Debug)]
struct Proof {
    rate: f64,
    /// Passes that are still missing.
    missing: u32,
    /// How far down the next failure leads, as a share; it doubles, so that an unsteady server is not followed in small steps.
    drop: f64,
}

impl Search {
    pub(crate) const fn new(effort: Effort) -> Self {
        Self {
            effort,
            passed: None,
            failed: None,
            proof: None,
            spoilt: 0,
        }
    }

    /// The next rate to try, or the answer.
    pub(crate) fn step(&self) -> Step {
        if let Some(proof) = self.proof {
            return self.prove(proof);
        }
        match (self.passed, self.failed) {
            (None, None) => Step::Try(self.effort.start.min(self.effort.highest)),
            (None, Some((rate, limited_by))) if rate <= LOWEST => Step::Done(Maximum {
                rate: 0.0,
                limited_by,
            }),
            (None, Some((rate, _))) => Step::Try((rate / 2.0).max(LOWEST)),
            (Some(rate), None) => Step::Try((rate * 2.0).min(self.effort.highest)),
            (Some(rate), Some((failed, _))) => Step::Try((rate * failed).sqrt()),
        }
    }

    fn prove(&self, proof: Proof) -> Step {
        let limited_by = self.failed.map_or(Limit::Ceiling, |(_, limit)| limit);
        match proof {
            Proof { rate, .. } if rate < LOWEST => Step::Done(Maximum {
                rate: 0.0,
                limited_by,
            }),
            Proof { rate, missing: 0, .. } => Step::Done(Maximum { rate, limited_by }),
            Proof { rate, .. } => Step::Try(rate),
        }
    }

    /// Takes what came of a trial.
    pub(crate) fn learn(&mut self, rate: f64, failed_by: Option<Limit>) {
        if failed_by == Some(Limit::Generator) && self.spoilt + 1 < SPOILT_MAX {
            self.spoilt += 1;
            return;
        }
        self.spoilt = 0;
        if let Some(limit) = failed_by {
            self.failed = Some((rate, limit));
        }
        if let Some(proof) = &mut self.proof {
            match failed_by {
                None => proof.missing -= 1,
                Some(_) => {
                    proof.rate = rate * (1.0 - proof.drop);
                    proof.drop = (proof.drop * 2.0).min(0.5);
                    proof.missing = self.effort.confirmations + 1;
                }
            }
            return;
        }
        if failed_by.is_none() {
            self.passed = Some(rate);
        }
        let is_close = match (self.passed, self.failed) {
            (Some(passed), Some((failed, _))) => passed >= failed * (1.0 - self.effort.tolerance),
            (Some(passed), None) => passed >= self.effort.highest,
            _ => false,
        };
        if let Some(passed) = self.passed.filter(|_| is_close) {
            self.proof = Some(Proof {
                rate: passed,
                missing: self.effort.confirmations,
                drop: self.effort.tolerance,
            });
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
            assert!(
                maximum.rate <= knee && maximum.rate >= knee * 0.95,
                "{knee}: {maximum:?}"
            );
            assert_eq!(maximum.limited_by, Limit::Sla);
            let same = trials.iter().filter(|rate| **rate == maximum.rate).count();
            assert_eq!(same, 3, "found once, proved twice: {trials:?}");
            assert!(trials.len() < 25, "{knee}: {} trials", trials.len());
        }
    }

    #[test]
    fn a_lucky_trial_is_not_believed() {
        // Everything passes the first time, and nothing above 500 passes again.
        let mut seen = std::collections::HashSet::new();
        let effort = Effort {
            highest: 6_400.0,
            ..EFFORT
        };
        let (maximum, trials) = search(effort, |_, rate| {
            (!seen.insert(rate.to_bits()) && rate > 500.0).then_some(Limit::Sla)
        });
        assert!(maximum.rate <= 500.0 && maximum.rate > 200.0, "{maximum:?}");
        let same = trials.iter().filter(|rate| **rate == maximum.rate).count();
        assert_eq!(same, 3, "passed once, proved twice: {trials:?}");
        // Never two proofs in a row: nothing is found.
        let (maximum, _) = search(EFFORT, |trial, _| (trial % 2 == 1).then_some(Limit::Sla));
        assert_eq!(maximum.rate, 0.0);
    }

    #[test]
    fn it_says_what_stood_in_the_way() {
        let generator = search(EFFORT, |_, rate| (rate > 900.0).then_some(Limit::Generator)).0;
        assert_eq!(generator.limited_by, Limit::Generator);
        // Spoilt now and then, but never three times in a row.
        let noisy = search(EFFORT, |trial, rate| match trial % 3 {
            0 => (rate > 900.0).then_some(Limit::Sla),
            _ => Some(Limit::Generator),
        });
        assert_eq!(noisy.0.limited_by, Limit::Sla);
        assert!(noisy.0.rate >= 855.0, "{noisy:?}");
        let nothing = search(EFFORT, |_, _| Some(Limit::Sla)).0;
        assert_eq!(nothing.rate, 0.0);
        let everything = search(
            Effort {
                highest: 5_000.0,
                ..EFFORT
            },
            |_, _| None,
        )
        .0;
        assert_eq!(
            (everything.rate, everything.limited_by),
            (5_000.0, Limit::Ceiling)
        );
    }
}
