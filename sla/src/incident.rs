//! The two clocks of a fault: until somebody responds, and until it is repaired (A 3.8 and 4.1, B 3.2).

use serde::{Deserialize, Serialize};

use crate::calendar::MinuteIndex;
use crate::policy::Policy;

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Its name.
    pub id: String,
    /// Its grade under the agreement; 1 is the gravest.
    pub grade: u8,
    /// What happened.
    pub text: String,
    /// When it began.
    pub began: MinuteIndex,
    /// When somebody worked on it.
    #[serde(default)]
    pub responded: Option<MinuteIndex>,
    /// When it was repaired.
    #[serde(default)]
    pub repaired: Option<MinuteIndex>,
}

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Clock {
    /// Stopped in time.
    Kept {
        /// Minutes it took.
        minutes: u32,
    },
    /// Stopped too late, or still running beyond its limit.
    Missed {
        /// Minutes it took so far.
        minutes: u32,
    },
    /// Still running, within its limit.
    Running {
        /// Minutes so far.
        minutes: u32,
    },
    /// The policy has no clocks for this grade.
    NoClock,
}

/// A fault and its clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// The fault.
    pub incident: Incident,
    /// Until somebody worked on it.
    pub response: Clock,
    /// Until it was repaired.
    pub repair: Clock,
}

/// Reads the clocks of a fault at a time.
pub fn time(incident: &Incident, policy: &Policy, now: MinuteIndex) -> Timed {
    let clocks = policy.fault.iter().find(|clocks| clocks.grade == incident.grade);
    let read = |end, limit: Option<u32>| {
        limit.map_or(Clock::NoClock, |limit| clock(incident.began, end, now, limit))
    };
    Timed {
        incident: incident.clone(),
        response: read(incident.responded, clocks.map(|clocks| clocks.respond_minutes)),
        repair: read(incident.repaired, clocks.map(|clocks| clocks.repair_minutes)),
    }
}

fn clock(began: MinuteIndex, end: Option<MinuteIndex>, now: MinuteIndex, limit: u32) -> Clock {
    let minutes = end.unwrap_or(now).number().saturating_sub(began.number());
    match end {
        _ if minutes > limit => Clock::Missed { minutes },
        Some(_) => Clock::Kept { minutes },
        None => Clock::Running { minutes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(grade: u8, responded: Option<u32>, repaired: Option<u32>) -> Incident {
        Incident {
            id: "i1".to_owned(),
            grade,
            text: String::new(),
            began: MinuteIndex::new(1_000),
            responded: responded.map(|minutes| MinuteIndex::new(1_000 + minutes)),
            repaired: repaired.map(|minutes| MinuteIndex::new(1_000 + minutes)),
        }
    }

    #[test]
    fn a_core_fault_has_15_minutes_and_2_hours() {
        for policy in Policy::builtin() {
            let at = |minutes: u32| MinuteIndex::new(1_000 + minutes);
            let timed = time(&incident(1, Some(15), Some(121)), &policy, at(500));
            assert_eq!(timed.response, Clock::Kept { minutes: 15 });
            assert_eq!(timed.repair, Clock::Missed { minutes: 121 });
            let timed = time(&incident(1, None, None), &policy, at(16));
            assert_eq!(timed.response, Clock::Missed { minutes: 16 });
            assert_eq!(timed.repair, Clock::Running { minutes: 16 });
        }
    }

    #[test]
    fn grades_are_those_of_the_agreement() {
        let now = MinuteIndex::new(2_000);
        let second = incident(2, Some(30), Some(360));
        assert_eq!(
            time(&second, &Policy::bestsign(), now).repair,
            Clock::Kept { minutes: 360 }
        );
        assert_eq!(time(&second, &Policy::bjca(), now).repair, Clock::NoClock);
    }
}
