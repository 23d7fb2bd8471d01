//! The service agreement of a tenant: which version binds it, and what its months come to. The arithmetic is in crate
//! `sla`; this gathers what it asks for.

use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use sla::calendar::{MinuteIndex, Month, Span};
use sla::credit::{Customer, Purchase};
use sla::incident::Incident;
use sla::minute::Minute;
use sla::notice::Notice;
use sla::observed::{Observed, Sample};
use sla::policy::Policy;
use sla::report::{Particulars, Report, report};
use sla::state::Term;
use sla::verdict::{Case, JudgeError};
use sla::working_days::WorkingDays;
use store::{IncidentRow, LedgerAccount, Package, Reader, StoreError, Tenant, Unit};

use crate::bill::month_number;
use crate::minutes::days;

/// The policy of a tenant that was bound to none: the stricter about who is asked, agreement A.
const DEFAULT_POLICY: &str = "bjca";
/// Minutes read beside the month, for runs that reach beyond it: few at first, more where a run is longer.
const MARGINS: [u32; 4] = [1_440, 31 * 1_440, 366 * 1_440, 10 * 366 * 1_440];

fn failed(error: &StoreError) -> Refusal {
    error.refusal()
}

fn corrupt(what: &str) -> Refusal {
    Refusal::new(Code::DataCorrupt, what.to_owned())
}

/// The version of the agreement that binds a tenant.
pub fn policy(reader: &Reader, tenant: &Tenant, policies: &[Policy]) -> Result<Policy, Refusal> {
    let bound = reader.agreement(tenant.row).map_err(|error| failed(&error))?;
    let (name, signed) = match &bound {
        Some(bound) => (bound.policy.as_str(), bound.signed.parse().ok()),
        None => {
            let activated = MinuteIndex::of_unix_seconds(tenant.standing.activated().seconds());
            (DEFAULT_POLICY, Some(activated.civil().date()))
        }
    };
    let signed = signed.ok_or_else(|| corrupt("the date of an agreement cannot be read"))?;
    Policy::binding(policies, name, signed).cloned().ok_or_else(|| {
        let text = format!("no version of policy '{name}' was in force on {signed}");
        Refusal::new(Code::NotFound, text)
    })
}

/// All notices of maintenance.
pub fn notices(reader: &Reader) -> Result<Vec<Notice>, Refusal> {
    let texts = reader.notices().map_err(|error| failed(&error))?;
    let read = |text: &String| {
        serde_json::from_str(text).map_err(|_| corrupt("a notice of maintenance cannot be read"))
    };
    texts.iter().map(read).collect()
}

/// The incidents that touch a span.
fn incidents(reader: &Reader, span: Span) -> Result<Vec<Incident>, StoreError> {
    let minute = |number: u32| MinuteIndex::new(number);
    let read = |row: IncidentRow| Incident {
        id: row.id,
        grade: row.grade,
        text: row.text,
        began: minute(row.began),
        responded: row.responded.map(minute),
        repaired: row.repaired.map(minute),
    };
    let rows = reader.incidents_during(span.from.number(), span.to.number())?;
    Ok(rows.into_iter().map(read).collect())
}

/// What somebody has to be paged for of a minute that is over, by the names of policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paged {
    /// Under these it was unavailable. Without a record it was under all.
    pub unavailable: Vec<String>,
    /// Under these too large a share of its requests was refused with 503.
    pub busy: Vec<String>,
}

/// Looks at a minute that is over; one in which maintenance was under way is not asked about.
pub fn look_at_minute(reader: &Reader, index: MinuteIndex, policies: &[Policy]) -> Result<Paged, Refusal> {
    let mut minute = Minute::default();
    let mut readable = true;
    let visit = |record: store::MinuteRecord| {
        match Minute::decode(&record.record) {
            Ok(part) => minute.merge(&part),
            Err(_) => readable = false,
        }
        Ok(())
    };
    let read = reader.minutes(index.number(), index.plus(1).number(), visit);
    read.map_err(|error| failed(&error))?;
    if !readable {
        return Err(corrupt("the record of a minute cannot be read"));
    }
    Ok(paged(&minute, policies))
}

fn paged(minute: &Minute, policies: &[Policy]) -> Paged {
    let mut paged = Paged::default();
    for policy in policies.iter().filter(|_| !minute.maintenance) {
        let sample = Sample::of(minute, policy);
        if !sample.signing || !sample.certificates {
            paged.unavailable.push(policy.name.clone());
        }
        if sample.pages(policy) {
            paged.busy.push(policy.name.clone());
        }
    }
    paged
}

/// The records of a span, parts of a minute added up.
fn observe<'p>(reader: &Reader, policy: &'p Policy, covered: Span) -> Result<Observed<'p>, Refusal> {
    let mut observed = Observed::new(policy, covered);
    let mut open: Option<(MinuteIndex, Minute)> = None;
    let mut add = |index: MinuteIndex, minute: &Minute| {
        observed
            .add(index, minute)
            .map_err(|_| corrupt("a minute was recorded twice"))
    };
    let mut result = Ok(());
    let visit = |record: store::MinuteRecord| {
        let index = MinuteIndex::new(record.minute);
        let Ok(part) = Minute::decode(&record.record) else {
            result = Err(corrupt("the record of a minute cannot be read"));
            return Ok(());
        };
        match &mut open {
            Some((same, minute)) if *same == index => minute.merge(&part),
            _ => {
                if let Some((index, minute)) = open.replace((index, part))
                    && result.is_ok()
                {
                    result = add(index, &minute);
                }
            }
        }
        Ok(())
    };
    let read = reader.minutes(covered.from.number(), covered.to.number(), visit);
    read.map_err(|error| failed(&error))?;
    if let Some((index, minute)) = open
        && result.is_ok()
    {
        result = add(index, &minute);
    }
    result.map(|()| observed)
}

/// What the tenant bought, as far as a credit depends on it: the kind of the package that ends last.
fn purchase(reader: &Reader, tenant: &Tenant, month: Month) -> Result<Purchase, StoreError> {
    let packages = reader.packages(tenant.row)?;
    let end = u64::from(month.span().to.number()) * 60_000;
    // The agreement is about signatures.
    let begun = |package: &Package| package.activated.0 < end && package.concerns_signatures();
    let Some((package, balances)) = packages.iter().rev().find(|(package, _)| begun(package)) else {
        return Ok(Purchase::Unlimited);
    };
    let sum = |wanted: &[LedgerAccount]| {
        let of = balances
            .iter()
            .filter(|balance| balance.unit == package.unit && wanted.contains(&balance.account));
        of.map(|balance| balance.units.unsigned_abs()).sum::<u64>()
    };
    let used = sum(&[LedgerAccount::Used]);
    let months = months_until(package.activated, month);
    Ok(match (package.unlimited, package.unit) {
        (true, _) | (_, Unit::Certificate) => Purchase::Unlimited,
        (_, Unit::User) => Purchase::ByUser,
        (_, Unit::Contract) => Purchase::ByContract {
            contracts_this_year: used,
            months_this_year: months.min(12),
        },
        (_, Unit::Signature | Unit::TimeStamp) => Purchase::BySignature {
            package_units: sum(&[LedgerAccount::Sold, LedgerAccount::Credited]),
            used_in_month: reader.statement(tenant.row, month_number(month))?.charged(),
            used_in_term: used,
            months_in_term: months,
        },
    })
}

/// Months from the one in which a term began to `month`, both counted.
fn months_until(activated: UnixMillis, month: Month) -> u32 {
    let (from, to) = (store::month_of(activated), month_number(month));
    let count = |month: u32| month / 100 * 12 + month % 100;
    (count(to) + 1).saturating_sub(count(from)).max(1)
}

/// The report of a tenant's month.
pub fn month_report(
    reader: &Reader,
    tenant: &Tenant,
    month: Month,
    policies: &[Policy],
    now: UnixMillis,
) -> Result<Report, Refusal> {
    let policy = policy(reader, tenant, policies)?;
    let bound = reader.agreement(tenant.row).map_err(|error| failed(&error))?;
    let customer = Customer {
        name: tenant.name.to_string(),
        purchase: purchase(reader, tenant, month).map_err(|error| failed(&error))?,
        contract_clause: bound.and_then(|bound| bound.clause),
    };
    let asked = Asked {
        from: MinuteIndex::of_unix_seconds(tenant.standing.activated().seconds()),
        month,
        now,
        policy: &policy,
        customer: &customer,
    };
    judge(reader, &asked)
}

/// A month of the service as a whole under an agreement, as if one customer had been served since `from`.
pub fn service_report(
    reader: &Reader,
    from: UnixMillis,
    month: Month,
    policy: &Policy,
    now: UnixMillis,
) -> Result<Report, Refusal> {
    let customer = Customer {
        name: String::new(),
        purchase: Purchase::Unlimited,
        contract_clause: None,
    };
    let asked = Asked {
        from: MinuteIndex::of_unix_seconds(from.seconds()),
        month,
        now,
        policy,
        customer: &customer,
    };
    judge(reader, &asked)
}

/// A month that is to be judged.
struct Asked<'a> {
    /// Since when the customer is served.
    from: MinuteIndex,
    month: Month,
    now: UnixMillis,
    policy: &'a Policy,
    customer: &'a Customer,
}

fn judge(reader: &Reader, asked: &Asked<'_>) -> Result<Report, Refusal> {
    let mut result = Err(JudgeError::NotBegun(asked.month));
    for margin in MARGINS {
        result = with_margin(reader, asked, margin)?;
        if !matches!(result, Err(JudgeError::NotCovered(_))) {
            break;
        }
    }
    result.map_err(|error| Refusal::new(Code::MonthInvalid, error.to_string()))
}

fn with_margin(
    reader: &Reader,
    asked: &Asked<'_>,
    margin: u32,
) -> Result<Result<Report, JudgeError>, Refusal> {
    let span = asked.month.span();
    let covered = Span {
        from: MinuteIndex::new(span.from.number().saturating_sub(margin)),
        to: span.to.plus(margin),
    };
    let observed = observe(reader, asked.policy, covered)?;
    let case = Case {
        month: asked.month,
        term: Term {
            from: asked.from,
            to: None,
        },
        now: MinuteIndex::of_unix_seconds(asked.now.seconds()),
        observed: &observed,
        notices: &notices(reader)?,
        declared: &[],
        working_days: &WorkingDays::builtin(),
    };
    let incidents = incidents(reader, span).map_err(|error| failed(&error))?;
    let (from, to) = days::days_of(span);
    let records = reader.latency_days(from, to).map_err(|error| failed(&error))?;
    let percentiles = days::percentiles(records.iter());
    let particulars = Particulars {
        customer: asked.customer,
        percentiles: &percentiles.map_err(|_| corrupt("the response times of a day cannot be read"))?,
        incidents: &incidents,
    };
    Ok(report(&case, &particulars))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_of_a_hundred_refused_as_busy_page_before_the_minute_is_lost() {
        use sla::answer::Outcome;
        use sla::minute::Service;
        let policies = Policy::builtin();
        let judge = |results: u32, busy: u32, maintenance| {
            let mut minute = Minute {
                maintenance,
                ..Minute::default()
            };
            minute.record_probe(Service::Certificates, true);
            let answers = [(results, Outcome::Result), (busy, Outcome::Busy)];
            for (count, outcome) in answers {
                (0..count).for_each(|_| minute.record(None, outcome, 1_000));
            }
            paged(&minute, &policies)
        };
        let all: Vec<_> = policies.iter().map(|policy| policy.name.clone()).collect();
        assert_eq!(judge(96, 4, false), Paged::default());
        let at_five = judge(95, 5, false);
        assert_eq!((at_five.unavailable.len(), at_five.busy), (0, all));
        assert_eq!(judge(50, 50, true), Paged::default(), "maintenance");
    }

    #[test]
    fn a_term_has_begun_in_its_first_month() {
        // 2026-11-24 in Shanghai.
        let activated = UnixMillis(1_795_500_000_000);
        let months = |text: &str| months_until(activated, text.parse().unwrap());
        assert_eq!(
            (months("2026-11"), months("2026-12"), months("2027-10")),
            (1, 2, 12)
        );
    }
}
