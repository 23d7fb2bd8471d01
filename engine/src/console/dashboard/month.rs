//! The month under each agreement, for the service as a whole: every minute, what is left of the budget, and every stop.

use actors::agreement::service_report;
use actors::services::Services;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use serde::Serialize;
use sla::calendar::{MinuteIndex, Month};
use sla::policy::Policy;
use sla::report::Report;
use sla::run::Run;
use sla::verdict::{Budget, Minutes};

/// Stops shown, the latest.
const RUNS_MAX: usize = 50;

#[derive(Serialize)]
struct MonthView {
    month: String,
    /// Minutes since 1970 at which it begins.
    from: u32,
    policies: Vec<PolicyView>,
}

/// One agreement.
#[derive(Serialize)]
struct PolicyView {
    name: String,
    /// Percent.
    promise: String,
    /// Of the whole month, if nothing more fails: parts and whole in minutes.
    up: u64,
    of: u64,
    budget: Budget,
    minutes: Minutes,
    /// A letter and a count for each stretch of equal minutes (`sla::strip`).
    strip: String,
    runs: Vec<Run>,
}

fn policy_view(report: Report) -> PolicyView {
    let mut verdict = report.verdict;
    let surplus = verdict.runs.len().saturating_sub(RUNS_MAX);
    verdict.runs.drain(..surplus);
    PolicyView {
        name: report.policy.name,
        promise: report.policy.availability.promise.to_string(),
        up: verdict.availability.of_cycle.part,
        of: verdict.availability.of_cycle.whole,
        budget: verdict.budget,
        minutes: verdict.minutes,
        strip: report.strip,
        runs: verdict.runs,
    }
}

/// The running month as JSON. The service is judged from the day on which its first tenant was activated.
pub(super) fn judged(services: &Services, now: UnixMillis) -> Result<String, Refusal> {
    let minute = MinuteIndex::of_unix_seconds(now.seconds());
    let month = Month::of(minute);
    let tenants = services.store.directory().tenants();
    let from = tenants.iter().map(|tenant| tenant.standing.activated()).min();
    let reader = services.store.reader().map_err(|error| error.refusal())?;
    let judge = |policy: &Policy| {
        match service_report(&reader, from.unwrap_or(now), month, policy, now) {
            Ok(report) => Ok(Some(policy_view(report))),
            // In its first minute there is nothing to judge.
            Err(refusal) if refusal.code == Code::MonthInvalid => Ok(None),
            Err(refusal) => Err(refusal),
        }
    };
    let policies: Vec<Option<PolicyView>> = Policy::builtin()
        .iter()
        .map(judge)
        .collect::<Result<_, Refusal>>()?;
    let view = MonthView {
        month: month.to_string(),
        from: month.span().from.number(),
        policies: policies.into_iter().flatten().collect(),
    };
    serde_json::to_string(&view).map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}
