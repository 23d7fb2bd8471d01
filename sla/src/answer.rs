//! Whether an answer is normal, and whether it counts at all (`docs/sla.md`, "A normal response").

/// An answer later than this, in microseconds, is not a normal one whatever it says (A 4.2: 最长处理时间不超过 3s).
pub const NORMAL_US_MAX: u64 = 3_000_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With what was asked for.
    Result,
    /// Refused for the caller's fault: 4xx except 429.
    CallerFault,
    /// 429 because the caller went beyond its published contract.
    ThrottledByContract,
    /// 429 although the caller kept to its contract.
    ThrottledWithinContract,
    /// 503: we lacked capacity.
    Busy,
    /// 500, 504, or anything else that is our fault.
    Failed,
    /// The caller was told that the outcome is not known yet.
    Pending,
    /// We broke the connection before we answered.
    Reset,
}

impl Outcome {
    /// The outcome of an HTTP status; a job that was taken over (202) is a result. A 429 has to be told apart by
    /// whether the caller had kept to its published limits. `Pending` has no status of its own: it leaves as a
    /// 504. 1xx and 3xx are no answers of this service and count as our failure.
    pub fn of_status(status: u16, caller_kept_its_limits: bool) -> Self {
        match status {
            200..300 => Self::Result,
            429 if caller_kept_its_limits => Self::ThrottledWithinContract,
            429 => Self::ThrottledByContract,
            400..500 => Self::CallerFault,
            503 => Self::Busy,
            _ => Self::Failed,
        }
    }

    /// Whether the request is in the denominator. Only a 429 inside the contract is in neither.
    pub fn counts(self) -> bool {
        self != Self::ThrottledByContract
    }

    /// Whether an answer after `latency_us` microseconds is a normal one.
    pub fn is_normal(self, latency_us: u64) -> bool {
        matches!(self, Self::Result | Self::CallerFault) && latency_us <= NORMAL_US_MAX
    }

    /// Whether its latency goes into the average. A refusal takes microseconds and would only flatter it.
    pub fn is_averaged(self) -> bool {
        matches!(self, Self::Result | Self::Failed | Self::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_is_a_result_or_the_callers_fault_in_time() {
        for status in [200, 201, 202, 400, 401, 404, 422] {
            assert!(
                Outcome::of_status(status, true).is_normal(NORMAL_US_MAX),
                "{status}"
            );
            assert!(
                !Outcome::of_status(status, true).is_normal(NORMAL_US_MAX + 1),
                "{status}"
            );
        }
        for status in [101, 302, 429, 500, 502, 503, 504] {
            assert!(!Outcome::of_status(status, true).is_normal(0), "{status}");
        }
        assert!(!Outcome::Reset.is_normal(0) && !Outcome::Pending.is_normal(0));
    }

    #[test]
    fn only_a_429_inside_the_contract_counts_nowhere() {
        assert!(!Outcome::of_status(429, false).counts());
        assert!(Outcome::of_status(429, true).counts());
        for status in [200, 400, 500, 503, 504] {
            assert!(Outcome::of_status(status, false).counts(), "{status}");
        }
    }

    #[test]
    fn refusals_do_not_flatter_the_average() {
        for outcome in [
            Outcome::CallerFault,
            Outcome::Busy,
            Outcome::ThrottledWithinContract,
        ] {
            assert!(!outcome.is_averaged());
        }
        assert!(Outcome::Result.is_averaged() && Outcome::Pending.is_averaged());
    }
}
