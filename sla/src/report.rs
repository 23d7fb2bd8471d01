//! The monthly report of one customer: the verdict and everything it rests on, ready to be written as JSON.

use serde::{Deserialize, Serialize};

use crate::calendar::MinuteIndex;
use crate::credit::{self, Credit, Customer};
use crate::incident::{self, Incident, Timed};
use crate::notice::{Declared, Judged};
use crate::percent::Percent;
use crate::policy::Policy;
use crate::state::{State, Term};
use crate::strip;
use crate::verdict::{self, Case, JudgeError, Verdict};

/// The form of the report; a change that a reader has to know of raises it.
pub const FORMAT: u32 = 1;

/// A percentile of latency, from histograms that the records of minutes do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentile {
    /// Of the answers, this share ...
    pub percent: Percent,
    /// ... took at most so many microseconds.
    pub us: u64,
}

/// What a report says beside the verdict.
#[derive(Clone, Copy, Debug)]
pub struct Particulars<'a> {
    /// For whom it is.
    pub customer: &'a Customer,
    /// Percentiles of latency over the month.
    pub percentiles: &'a [Percentile],
    /// Faults of the month.
    pub incidents: &'a [Incident],
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// For whom it is.
    pub customer: Customer,
    /// When the customer is served.
    pub term: Term,
    /// The minute in which it was made.
    pub made: MinuteIndex,
    /// The agreement, with every option as it was applied.
    pub policy: Policy,
    /// The verdict.
    pub verdict: Verdict,
    /// What is eligible.
    pub credit: Credit,
    /// Every minute of the month ([`crate::strip`]).
    pub strip: String,
    /// Percentiles of latency.
    pub percentiles: Vec<Percentile>,
    /// The notices, their lead, and what they excluded.
    pub notices: Vec<Judged>,
    /// Minutes declared to be excluded, whether or not the policy accepts the cause.
    pub declared: Vec<Declared>,
    /// Faults and their clocks.
    pub incidents: Vec<Timed>,
}

/// Judges a month and writes down everything.
pub fn report(case: &Case<'_>, particulars: &Particulars<'_>) -> Result<Report, JudgeError> {
    let policy = case.observed.policy();
    let judgement = verdict::judge_fully(case)?;
    let month = case.month.span();
    let touches = |span: crate::calendar::Span| !span.intersection(month).is_empty();
    let time = |incident: &Incident| incident::time(incident, policy, case.now);
    Ok(Report {
        format: FORMAT,
        customer: particulars.customer.clone(),
        term: case.term,
        made: case.now,
        policy: policy.clone(),
        credit: credit::eligible(policy, &judgement.verdict, particulars.customer),
        strip: strip::encode(&judgement.states),
        percentiles: particulars.percentiles.to_vec(),
        notices: (judgement.notices.into_iter())
            .filter(|judged| touches(judged.notice.window))
            .collect(),
        declared: (case.declared.iter())
            .filter(|declared| touches(declared.window))
            .cloned()
            .collect(),
        incidents: particulars.incidents.iter().map(time).collect(),
        verdict: judgement.verdict,
    })
}

impl Report {
    /// The report as JSON, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has string keys only and writes to memory")
    }

    /// The minutes of the month; none when the strip was tampered with.
    pub fn states(&self) -> Result<Vec<State>, strip::StripError> {
        strip::decode(&self.strip)
    }
}

/// Every option of a policy and its value, by its path, such as `availability.overlap`.
pub fn options(policy: &Policy) -> Vec<(String, String)> {
    let value = serde_json::to_value(policy).expect("a policy has string keys only");
    let mut found = Vec::new();
    flatten("", &value, &mut found);
    found
}

fn flatten(path: &str, value: &serde_json::Value, found: &mut Vec<(String, String)>) {
    let join = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                flatten(&join(name), field, found);
            }
        }
        serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
            for (number, item) in items.iter().enumerate() {
                flatten(&join(&(number + 1).to_string()), item, found);
            }
        }
        serde_json::Value::Array(items) => {
            let words: Vec<String> = items.iter().map(plain).collect();
            found.push((path.to_owned(), words.join(", ")));
        }
        single => found.push((path.to_owned(), plain(single))),
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
