//! What a broken promise makes *eligible* (A 5.2, B 4.14.2).
//!
//! Eligible is not granted: both agreements pay on application and after checking. And a clause of the customer's own
//! contract comes before the table (A 5.2: 按照合同中约定的赔偿条款进行赔偿).

use serde::{Deserialize, Serialize};

use crate::percent::{Percent, Ratio};
use crate::policy::{
    Base, Boundary, Cap, CreditRow, CreditRule, CreditTable, LongestStop, OutageInTwoMonths, PerOutage,
    Policy, Step,
};
use crate::verdict::Verdict;

/// What the customer bought, as far as a credit depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Purchase {
    /// By signature (A 2.5).
    BySignature {
        /// Signatures in the yearly package.
        package_units: u64,
        /// Signatures used in the month that is judged.
        used_in_month: u64,
        /// Signatures used in the term up to the end of that month.
        used_in_term: u64,
        /// Months of the term up to the end of that month, the begun one included.
        months_in_term: u32,
    },
    /// By user (A 2.5).
    ByUser,
    /// Unlimited for a term (A 5.2: 不限次包年).
    Unlimited,
    /// By contract (B 4.12).
    ByContract {
        /// Contracts of the current year up to the end of the month that is judged.
        contracts_this_year: u64,
        /// Months of the current year up to the end of that month in which there was a service.
        months_this_year: u32,
    },
}

/// What the credit of a customer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// The name printed on the report.
    pub name: String,
    /// What was bought.
    pub purchase: Purchase,
    /// The clause of the customer's own contract on compensation, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract_clause: Option<String>,
}

/// What is eligible for a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Credit {
    /// Nothing: the promise of availability is kept.
    Kept,
    /// Nothing: the cycle does not count.
    NotCounted,
    /// What the customer's own contract says.
    ContractClause {
        /// The clause.
        clause: String,
    },
    /// Free signatures.
    Signatures {
        /// The row of the table, from 1.
        row: usize,
        /// The share.
        percent: Percent,
        /// Of so many signatures.
        base: u64,
        /// The most that is given.
        cap: u64,
        /// What is eligible.
        signatures: u64,
        /// Valid for so many months from the day it is granted.
        valid_months: u32,
    },
    /// Free days of service.
    Days {
        /// The row of the table, from 1.
        row: usize,
        /// What is eligible.
        days: u32,
        /// Valid for so many months from the day it is granted.
        valid_months: u32,
    },
    /// The customer chooses one of the two.
    Choice {
        /// Outages that are paid.
        outages: u32,
        /// Either: months by which the service is prolonged.
        months: u32,
        /// Or: contracts. None where the customer did not buy by contract.
        contracts: Option<u64>,
    },
}

/// Calculates what is eligible under a policy. For a month that is not over it is what would be.
pub fn eligible(policy: &Policy, verdict: &Verdict, customer: &Customer) -> Credit {
    match verdict.promise.availability {
        None => return Credit::NotCounted,
        Some(true) => return Credit::Kept,
        Some(false) => {}
    }
    if let Some(clause) = customer.contract_clause.clone() {
        return Credit::ContractClause { clause };
    }
    match &policy.credit {
        CreditRule::Table(table) => by_table(table, verdict, &customer.purchase),
        CreditRule::PerOutage(rule) => per_outage(rule, verdict, &customer.purchase),
    }
}

fn by_table(table: &CreditTable, verdict: &Verdict, purchase: &Purchase) -> Credit {
    let index = row(table, verdict.availability.of_cycle, verdict.longest_stop_minutes);
    let row = &table.row[index];
    let valid_months = table.valid_months;
    match purchase {
        Purchase::BySignature {
            package_units,
            used_in_month,
            used_in_term,
            months_in_term,
        } => {
            let base = match table.base {
                Base::YearPackage => *package_units,
                Base::UsedInMonth => *used_in_month,
            };
            let cap = cap(table.cap, *package_units, average(*used_in_term, *months_in_term));
            let percent = percent(table.step, row, *package_units);
            Credit::Signatures {
                row: index + 1,
                percent,
                base,
                cap,
                signatures: percent.of_rounded_up(base).min(cap),
                valid_months,
            }
        }
        // A table that does not name contracts gives their buyers time, as it does to all who do not buy signatures.
        Purchase::ByUser | Purchase::Unlimited | Purchase::ByContract { .. } => Credit::Days {
            row: index + 1,
            days: days(table.step, row).min(verdict.month.days()),
            valid_months,
        },
    }
}

/// The row: availability chooses, and a longest stop beyond it raises.
fn row(table: &CreditTable, availability: Ratio, longest_stop: u32) -> usize {
    let is_below = |row: &CreditRow| match table.boundary {
        Boundary::Worse => !availability.is_above(row.below),
        Boundary::Better => !availability.is_at_least(row.below),
    };
    let chosen = table.row.iter().rposition(is_below).unwrap_or(0);
    let bears = |row: &CreditRow| row.stop_minutes_max.is_none_or(|most| longest_stop <= most);
    match table.longest_stop {
        LongestStop::Ignored => chosen,
        LongestStop::Raises => {
            let raised = table.row.iter().position(bears);
            chosen.max(raised.unwrap_or(table.row.len() - 1))
        }
    }
}

fn percent(step: Step, row: &CreditRow, package_units: u64) -> Percent {
    let reached = row.tier.iter().rfind(|tier| tier.from_units <= package_units);
    let unstated = match step {
        Step::Highest => row.percent.max,
        Step::Lowest => row.percent.min,
    };
    reached.map_or(unstated, |tier| tier.percent)
}

fn days(step: Step, row: &CreditRow) -> u32 {
    match step {
        Step::Highest => row.days.max,
        Step::Lowest => row.days.min,
    }
}

fn cap(cap: Cap, package_units: u64, used: u64) -> u64 {
    let twelfth = package_units.div_ceil(12);
    match cap {
        Cap::Used => used,
        Cap::PackageTwelfth => twelfth,
        Cap::Higher => used.max(twelfth),
    }
}

/// A monthly average, rounded up.
fn average(sum: u64, months: u32) -> u64 {
    sum.div_ceil(u64::from(months.max(1)))
}

fn per_outage(rule: &PerOutage, verdict: &Verdict, purchase: &Purchase) -> Credit {
    let paid = |first| match rule.outage_in_two_months {
        OutageInTwoMonths::Each => true,
        OutageInTwoMonths::First => verdict.cycle.contains(first),
    };
    let outages = verdict.runs.iter().filter(|run| run.counted && paid(run.first));
    let outages = u32::try_from(outages.count()).unwrap_or(u32::MAX);
    let months = outages.saturating_mul(rule.months);
    let contracts = match purchase {
        Purchase::ByContract {
            contracts_this_year,
            months_this_year,
        } => Some(average(*contracts_this_year, *months_this_year).saturating_mul(u64::from(months))),
        _ => None,
    };
    Credit::Choice {
        outages,
        months,
        contracts,
    }
}
