//! When requests are meant to leave: an open loop. The times follow from the shape of the load, or from a recorded log,
//! and from nothing that the server does; a server that stalls finds the requests waiting at its door, and their latency
//! counts from the moment they were meant to leave (coordinated omission: Tene, "How NOT to Measure Latency"). Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::shape::Phase;

/// One request that is meant to leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Departure {
    /// Its number in the whole run, over all threads and agents.
    pub(crate) number: u64,
    /// When, from the start of the run.
    pub(crate) at: Duration,
    /// The counted phase it belongs to; `None` during the warm-up.
    pub(crate) phase: Option<usize>,
    /// The class of request, where a recorded log says it.
    pub(crate) class: Option<usize>,
}

/// How requests are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrivals {
    /// At equal distances.
    Even,
    /// At random, as independent callers do (a Poisson process): queues are longer at the same rate.
    Poisson,
}

/// A phase with its place in time and in the order of requests.
#[derive(Clone, Debug)]
struct Span {
    starts: f64,
    first: f64,
    past: f64,
    from: f64,
    slope: f64,
    phase: Option<usize>,
}

/// One request of a recorded log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) at: Duration,
    pub(crate) class: usize,
}

#[derive(Clone, Debug)]
enum Source {
    Spans(Arc<[Span]>, Arrivals, u64),
    Log(Arc<[Recorded]>),
    /// No times: each request follows on an answer.
    Closed,
}

/// The whole of a run's departures, from which each thread of each agent takes its share.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    source: Source,
    warm_up: Duration,
    length: Duration,
    requests: u64,
}

impl Schedule {
    /// A warm-up at the rate of the first phase, then the phases.
    pub(crate) fn shaped(warm_up: Duration, phases: &[Phase], arrivals: Arrivals, seed: u64) -> Self {
        let rate = phases.first().map_or(0.0, |phase| phase.from);
        let warming = Phase {
            name: String::new(),
            from: rate,
            to: rate,
            length: warm_up,
        };
        let mut spans = Vec::with_capacity(phases.len() + 1);
        let (mut starts, mut first) = (0.0, 0.0);
        for (at, phase) in std::iter::once(&warming).chain(phases).enumerate() {
            let seconds = phase.length.as_secs_f64();
            if seconds > 0.0 {
                spans.push(Span {
                    starts,
                    first,
                    past: first + phase.requests(),
                    from: phase.from,
                    slope: (phase.to - phase.from) / seconds,
                    phase: at.checked_sub(1),
                });
            }
            starts += seconds;
            first += phase.requests();
        }
        Self {
            source: Source::Spans(spans.into(), arrivals, seed),
            warm_up,
            length: phases.iter().map(|phase| phase.length).sum(),
            requests: first.round() as u64,
        }
    }

    /// A recorded log, in the order of its times, without a warm-up.
    pub(crate) fn recorded(log: Vec<Recorded>) -> Self {
        Self {
            length: log.last().map_or(Duration::ZERO, |last| last.at),
            requests: log.len() as u64,
            source: Source::Log(log.into()),
            warm_up: Duration::ZERO,
        }
    }

    /// No times of its own, for so long: the sender keeps requests in flight.
    pub(crate) const fn closed(warm_up: Duration, length: Duration) -> Self {
        Self {
            source: Source::Closed,
            warm_up,
            length,
            requests: u64::MAX,
        }
    }

    /// Whether requests follow on answers.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.source, Source::Closed)
    }

    /// When counting begins, from the start.
    pub(crate) const fn warm_up(&self) -> Duration {
        self.warm_up
    }

    /// The counted time.
    pub(crate) const fn length(&self) -> Duration {
        self.length
    }

    /// About how many requests will leave, the warm-up included.
    pub(crate) const fn requests(&self) -> u64 {
        self.requests
    }

    /// Every `of`-th departure, beginning with number `which`.
    pub(crate) fn share(&self, which: u64, of: u64) -> Departures {
        let mut departures = Departures {
            schedule: self.clone(),
            number: 0,
            place: 0.0,
            span: 0,
            random: match self.source {
                Source::Spans(_, Arrivals::Poisson, seed) => Some(seed),
                _ => None,
            },
            stride: of.max(1),
        };
        departures.skip_to_first();
        for _ in 0..which {
            departures.advance();
        }
        departures
    }
}

/// A walk through a share of the departures.
#[derive(Clone, Debug)]
pub(crate) struct Departures {
    schedule: Schedule,
    number: u64,
    /// How many requests should have left before this one: whole numbers when evenly spaced.
    place: f64,
    span: usize,
    random: Option<u64>,
    stride: u64,
}

impl Departures {
    fn skip_to_first(&mut self) {
        if let Some(state) = &mut self.random {
            self.place = exponential(state);
        }
    }

    fn advance(&mut self) {
        self.number += 1;
        match &mut self.random {
            Some(state) => self.place += exponential(state),
            None => self.place = self.number as f64,
        }
    }

    fn current(&mut self) -> Option<Departure> {
        match &self.schedule.source {
            Source::Log(log) => {
                let recorded = log.get(usize::try_from(self.number).ok()?)?;
                Some(Departure {
                    number: self.number,
                    at: recorded.at,
                    phase: Some(0),
                    class: Some(recorded.class),
                })
            }
            Source::Closed => None,
            Source::Spans(spans, ..) => {
                // What adding up the phases rounds away must not bring one request more.
                while self.place >= spans.get(self.span)?.past - 1e-6 {
                    self.span += 1;
                }
                let span = &spans[self.span];
                let seconds = span.starts + span.seconds_to(self.place);
                Some(Departure {
                    number: self.number,
                    at: Duration::from_secs_f64(seconds),
                    phase: span.phase,
                    class: None,
                })
            }
        }
    }
}

impl Iterator for Departures {
    type Item = Departure;

    fn next(&mut self) -> Option<Departure> {
        let departure = self.current()?;
        for _ in 0..self.stride {
            self.advance();
        }
        Some(departure)
    }
}

impl Span {
    /// Where `from · t + slope · t² / 2` reaches the requests that lie before `place`, in the form that does not lose
    /// digits when the slope is small.
    fn seconds_to(&self, place: f64) -> f64 {
        let requests = (place - self.first).max(0.0);
        let root = 2.0f64
            .mul_add(self.slope * requests, self.from * self.from)
            .max(0.0)
            .sqrt();
        if requests == 0.0 {
            0.0
        } else {
            2.0 * requests / (self.from + root)
        }
    }
}

/// The distance to the next arrival of a Poisson process of rate 1.
fn exponential(state: &mut u64) -> f64 {
    let uniform = (splitmix(state) >> 11) as f64 / (1u64 << 53) as f64;
    -(-uniform).ln_1p()
}

/// splitmix64 (Steele, Lea, Flood 2014): repeatable, and random enough for arrivals.
pub(crate) const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn phase(from: f64, to: f64, seconds: u64) -> Phase {
        Phase {
            name: String::new(),
            from,
            to,
            length: SECOND * u32::try_from(seconds).unwrap(),
        }
    }

    fn even(warm_up: Duration, phases: &[Phase]) -> Vec<Departure> {
        Schedule::shaped(warm_up, phases, Arrivals::Even, 1)
            .share(0, 1)
            .collect()
    }

    #[test]
    fn requests_leave_evenly_and_the_warm_up_is_not_counted() {
        let all = even(SECOND, &[phase(200.0, 200.0, 2)]);
        assert_eq!(all.len(), 600);
        assert_eq!(all[1].at - all[0].at, Duration::from_millis(5));
        assert_eq!(all[599].at, Duration::from_millis(2_995));
        assert_eq!(
            all.iter().filter(|departure| departure.phase.is_some()).count(),
            400
        );
        assert_eq!((all[199].phase, all[200].phase), (None, Some(0)));
    }

    #[test]
    fn a_ramp_leaves_when_the_integral_of_its_rate_says_so() {
        let all = even(Duration::ZERO, &[phase(0.0, 100.0, 10)]);
        assert_eq!(all.len(), 500);
        // The integral of 10 t is 5 t²: request 125 leaves at 5 s, request 320 at 8 s.
        assert!((all[125].at.as_secs_f64() - 5.0).abs() < 1e-9);
        assert!((all[320].at.as_secs_f64() - 8.0).abs() < 1e-9);
        assert!(all.is_sorted_by(|a, b| a.at < b.at));
    }

    #[test]
    fn each_phase_has_the_requests_of_its_rate() {
        let all = even(
            SECOND,
            &[phase(10.0, 10.0, 4), phase(50.0, 50.0, 2), phase(10.0, 10.0, 4)],
        );
        let count = |wanted| all.iter().filter(|departure| departure.phase == wanted).count();
        assert_eq!([None, Some(0), Some(1), Some(2)].map(count), [10, 40, 100, 40]);
    }

    #[test]
    fn shares_make_up_the_whole_and_do_not_overlap() {
        for arrivals in [Arrivals::Even, Arrivals::Poisson] {
            let schedule = Schedule::shaped(SECOND, &[phase(100.0, 300.0, 3)], arrivals, 7);
            let whole: Vec<_> = schedule.share(0, 1).collect();
            let mut parts: Vec<_> = (0..3).flat_map(|which| schedule.share(which, 3)).collect();
            parts.sort_by_key(|departure| departure.number);
            assert_eq!(whole, parts, "{arrivals:?}");
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_variance_of_a_poisson_process() {
        let schedule = Schedule::shaped(
            Duration::ZERO,
            &[phase(1_000.0, 1_000.0, 100)],
            Arrivals::Poisson,
            3,
        );
        let mut per_second = [0.0f64; 100];
        for departure in schedule.share(0, 1) {
            per_second[departure.at.as_secs() as usize] += 1.0;
        }
        let mean = per_second.iter().sum::<f64>() / 100.0;
        let variance = per_second.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 100.0;
        // Four standard errors of each: 4 √(1000/100) and 4 · 1000 √(2/100).
        assert!((mean - 1_000.0).abs() < 13.0, "{mean}");
        assert!((variance - 1_000.0).abs() < 570.0, "{variance}");
    }

    #[test]
    fn a_recorded_log_leaves_as_it_came() {
        let log = [0, 3, 3, 900].map(|ms| Recorded {
            at: Duration::from_millis(ms),
            class: ms as usize % 2,
        });
        let schedule = Schedule::recorded(log.to_vec());
        let all: Vec<_> = schedule.share(0, 1).collect();
        assert_eq!(
            all.iter().map(|d| d.at.as_millis()).collect::<Vec<_>>(),
            [0, 3, 3, 900]
        );
        assert_eq!(all[1].class, Some(1));
        assert!(all.iter().all(|departure| departure.phase == Some(0)));
    }
}
