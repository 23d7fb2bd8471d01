//! An agreement as data.
//!
//! Where the text of an agreement leaves something open, the policy has a named option for it; the built-in
//! policies choose what obliges the provider most, and every report prints every option.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::percent::Percent;

/// Why a policy is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not the TOML of a policy.
    #[error("the policy cannot be read")]
    Toml(#[from] toml::de::Error),
    /// A value no agreement can mean.
    #[error("policy {name}: {field} {wrong}")]
    Value {
        /// The policy.
        name: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        wrong: &'static str,
    },
}

/// One dated version of an agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `bjca`, `bestsign`, or a name of your own.
    pub name: String,
    /// The day from which this version binds those who sign.
    pub version: Date,
    /// The title of the agreement.
    pub title: String,
    /// What is promised of availability, and how it is measured.
    pub availability: Availability,
    /// What does not count.
    pub exclusion: Exclusion,
    /// What is promised of latency; agreement B promises nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyPromise>,
    /// Thresholds of our own, for those who run the service.
    pub control: Control,
    /// The two clocks of a fault, by grade.
    #[serde(default)]
    pub fault: Vec<FaultClocks>,
    /// What a broken promise makes eligible.
    pub credit: CreditRule,
}

/// How availability is measured (A 4.3, B 4.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Availability {
    /// The least availability of a cycle.
    pub promise: Percent,
    /// Of whom `share` must get a normal response.
    pub measure: Measure,
    /// The share from which on a minute is available.
    pub share: Percent,
    /// Who is a user of a minute.
    pub users: Users,
    /// When one user gets a normal response.
    pub user_answered: UserAnswered,
    /// Whether the certificate service counts.
    pub certificates: Counted,
    /// What a minute counts in which both services are down.
    pub overlap: Overlap,
    /// What a minute without traffic is.
    pub idle: Idle,
    /// The least number of consecutive unavailable minutes that counts.
    pub run_minutes: u32,
    /// How a run that spans the end of a month is judged.
    pub run_at_month_end: RunAtMonthEnd,
    /// Whether a cycle shorter than its month counts.
    pub partial_month: Counted,
}

/// Of whom a share must get a normal response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Of the users (A 4.3(3)).
    Users,
    /// Of the requests (B 4.8).
    Requests,
}

/// Who is a user of a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Users {
    /// Customers with production traffic in that minute.
    Active,
    /// All customers with a contract; for those without traffic a probe answers.
    Contracted,
}

/// When one user gets a normal response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserAnswered {
    /// Every one of its requests does.
    Every,
    /// The share of its requests that makes a minute available does.
    Share,
    /// One of its requests does.
    Any,
}

/// Whether something counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// It does.
    Counted,
    /// It does not.
    NotCounted,
}

/// What a minute counts in which both services are down (A 4.3(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Once for each service.
    Sum,
    /// Once.
    Union,
}

/// What a minute without traffic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// What a probe of that minute says; without a probe, unavailable.
    Probe,
    /// Unavailable.
    Unavailable,
    /// Available.
    Available,
}

/// How a run that spans the end of a month is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunAtMonthEnd {
    /// Whole; its minutes are booked to the months in which they lie.
    Whole,
    /// Cut at midnight; each part is judged as a run of its own.
    Cut,
}

/// What does not count (A 4.3(4) to (6), 5.1, 7; B 4.8(3), 4.14.1, 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclusion {
    /// The causes, beside announced maintenance, that are excluded when they are declared with evidence.
    pub causes: Vec<Cause>,
    /// What a minute of announced maintenance is of which there is no record.
    pub maintenance_without_record: WithoutRecord,
    /// Working days between announcement and maintenance; 0 means just beforehand.
    pub notice_working_days: u32,
    /// Whether the day on which the maintenance begins is one of them.
    pub notice_start_day: Counted,
}

/// Why minutes may be excluded although nobody announced them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The customer's device, client, network or gateway (A 4.3(5), B 4.14.1(2)).
    Customer,
    /// A third party, such as a cloud or network provider (A 4.3(6)).
    ThirdParty,
    /// Force majeure (A 7(1)e, B 5).
    ForceMajeure,
}

/// What a minute of announced maintenance is of which there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutRecord {
    /// Unavailable, as every minute without a record.
    Unavailable,
    /// Excluded: the notice is taken as the record.
    Excluded,
}

/// What is promised of latency (A 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyPromise {
    /// The longest average of a month, in milliseconds.
    pub average_ms: u32,
    /// The longest of all, in milliseconds.
    pub maximum_ms: u32,
    /// Whether minutes in which capacity was extended count in the average. The maximum always holds.
    pub during_extension: DuringExtension,
    /// How long one extension may be exempt, in minutes.
    pub extension_minutes_max: u32,
}

/// Whether minutes in which capacity was extended count in the average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuringExtension {
    /// They do not.
    Exempt,
    /// They do.
    Counted,
}

/// Thresholds of our own, for those who run the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The share of 503 in a minute from which on somebody is paged.
    pub busy_share_page: Percent,
}

/// The two clocks of a fault (A 3.8 and 4.1, B 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultClocks {
    /// 1 is the gravest.
    pub grade: u8,
    /// What the agreement calls it.
    pub name: String,
    /// Minutes until somebody works on it.
    pub respond_minutes: u32,
    /// Minutes until it is repaired.
    pub repair_minutes: u32,
}

/// What a broken promise makes eligible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CreditRule {
    /// By availability and longest stop (A 5.2).
    Table(CreditTable),
    /// For each outage (B 4.14.2).
    PerOutage(PerOutage),
}

/// The table of A 5.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreditTable {
    /// What a longest stop beyond its row does.
    pub longest_stop: LongestStop,
    /// The row of an availability that is exactly the edge between two.
    pub boundary: Boundary,
    /// Which end of a row's range holds where no tier of purchase is given.
    pub step: Step,
    /// Of what the percentages are.
    pub base: Base,
    /// What 每月平均服务次数, the cap, is.
    pub cap: Cap,
    /// How long a granted credit is valid, in months.
    pub valid_months: u32,
    /// The rows, from the least grave.
    pub row: Vec<CreditRow>,
}

/// A row of the table: availability below this, down to the next row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreditRow {
    /// The upper edge of the row.
    pub below: Percent,
    /// The longest stop that still belongs here, in minutes; none for the gravest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_minutes_max: Option<u32>,
    /// For customers who buy by signature: the range of the share of the base.
    pub percent: PercentRange,
    /// For the others: the range of days.
    pub days: DayRange,
    /// The share by yearly purchase, where the price list states it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tier: Vec<PurchaseTier>,
}

/// A range of shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PercentRange {
    /// The least.
    pub min: Percent,
    /// The most.
    pub max: Percent,
}

/// A range of days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayRange {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
}

/// The share for customers who bought so many signatures a year, or more (按照客户年购买阶梯分档).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurchaseTier {
    /// Signatures in the yearly package.
    pub from_units: u64,
    /// The share.
    pub percent: Percent,
}

/// What a longest stop beyond its row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongestStop {
    /// It raises the credit to the row it belongs to.
    Raises,
    /// Nothing: availability alone chooses.
    Ignored,
}

/// The row of an availability that is exactly the edge between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// The graver.
    Worse,
    /// The less grave.
    Better,
}

/// Which end of a row's range holds where no tier of purchase is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The most.
    Highest,
    /// The least.
    Lowest,
}

/// Of what the percentages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// The signatures of the yearly package.
    YearPackage,
    /// The signatures used in the month.
    UsedInMonth,
}

/// What 每月平均服务次数 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cap {
    /// The signatures used in the term so far, a month.
    Used,
    /// A twelfth of the yearly package.
    PackageTwelfth,
    /// The higher of both.
    Higher,
}

/// B 4.14.2: for each outage in a month below its promise, the customer chooses time or contracts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerOutage {
    /// Months of service, or of average contracts, for one outage.
    pub months: u32,
    /// In which month an outage that spans two is paid.
    pub outage_in_two_months: OutageInTwoMonths,
}

/// In which month an outage that spans two is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageInTwoMonths {
    /// In each that is below its promise.
    Each,
    /// In the one in which it began.
    First,
}

impl Policy {
    /// The agreement of a certificate authority: by users, 99.95 %.
    pub fn bjca() -> Self {
        Self::from_toml(include_str!("../data/bjca.toml"))
            .expect("the policy in the repository is read by the tests")
    }

    /// The agreement of an e-contract platform: by requests, 99.99 %, runs of five minutes.
    pub fn bestsign() -> Self {
        Self::from_toml(include_str!("../data/bestsign.toml"))
            .expect("the policy in the repository is read by the tests")
    }

    /// Every version of every agreement that is built in.
    pub fn builtin() -> Vec<Self> {
        vec![Self::bjca(), Self::bestsign()]
    }

    /// Reads a policy and refuses what no agreement can mean.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = toml::from_str(text)?;
        policy.check()?;
        Ok(policy)
    }

    /// The version that binds who signed, or renewed, on a day: the latest of that name that is not younger (A 8).
    pub fn binding<'a>(policies: &'a [Self], name: &str, signed: Date) -> Option<&'a Self> {
        policies
            .iter()
            .filter(|policy| policy.name == name && policy.version <= signed)
            .max_by_key(|policy| policy.version)
    }

    fn check(&self) -> Result<(), PolicyError> {
        let zero = self.availability.share.per_million() == 0;
        self.refuse(zero, "availability.share", "must be above 0%")?;
        let zero = self.availability.promise.per_million() == 0;
        self.refuse(zero, "availability.promise", "must be above 0%")?;
        let run = self.availability.run_minutes;
        self.refuse(run == 0, "availability.run_minutes", "must be at least 1")?;
        let mut grades: Vec<u8> = self.fault.iter().map(|clocks| clocks.grade).collect();
        grades.sort_unstable();
        grades.dedup();
        self.refuse(grades.len() != self.fault.len(), "fault.grade", "is given twice")?;
        match &self.credit {
            CreditRule::Table(table) => self.check_table(table),
            CreditRule::PerOutage(_) => Ok(()),
        }
    }

    fn check_table(&self, table: &CreditTable) -> Result<(), PolicyError> {
        let promise = self.availability.promise;
        let first = table.row.first().map(|row| row.below);
        self.refuse(first != Some(promise), "credit.row", "must begin at the promise")?;
        let falling = table.row.windows(2).all(|two| {
            let longer = match (two[0].stop_minutes_max, two[1].stop_minutes_max) {
                (Some(less), Some(more)) => less < more,
                (less, _) => less.is_some(),
            };
            two[0].below > two[1].below && longer
        });
        self.refuse(
            !falling,
            "credit.row",
            "must go from the least grave to the gravest",
        )?;
        let last = table.row.last().and_then(|row| row.stop_minutes_max);
        self.refuse(last.is_some(), "credit.row", "must end without stop_minutes_max")?;
        table.row.iter().try_for_each(|row| self.check_row(row))
    }

    fn check_row(&self, row: &CreditRow) -> Result<(), PolicyError> {
        let range = row.percent.min > row.percent.max || row.days.min > row.days.max;
        self.refuse(range, "credit.row", "has a range that ends before it begins")?;
        let outside = |tier: &PurchaseTier| !(row.percent.min..=row.percent.max).contains(&tier.percent);
        self.refuse(
            row.tier.iter().any(outside),
            "credit.row.tier",
            "is outside the range of its row",
        )?;
        let rising = row
            .tier
            .windows(2)
            .all(|two| two[0].from_units < two[1].from_units);
        self.refuse(!rising, "credit.row.tier", "must rise by from_units")
    }

    fn refuse(&self, is_wrong: bool, field: &'static str, wrong: &'static str) -> Result<(), PolicyError> {
        if !is_wrong {
            return Ok(());
        }
        Err(PolicyError::Value {
            name: self.name.clone(),
            field,
            wrong,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn the_version_in_force_at_signing_binds_until_renewal() {
        let mut newer = Policy::bjca();
        newer.version = date(2026, 7, 1);
        let policies = [newer, Policy::bjca(), Policy::bestsign()];
        let version = |name, signed| Policy::binding(&policies, name, signed).map(|policy| policy.version);
        assert_eq!(version("bjca", date(2026, 6, 30)), Some(date(2020, 10, 1)));
        assert_eq!(version("bjca", date(2026, 7, 1)), Some(date(2026, 7, 1)));
        assert_eq!(version("bestsign", date(2026, 7, 1)), Some(date(2019, 5, 10)));
        assert_eq!(version("bestsign", date(2019, 5, 9)), None);
        assert_eq!(version("other", date(2026, 7, 1)), None);
    }

    #[test]
    fn a_policy_is_the_same_after_it_was_written() {
        for policy in Policy::builtin() {
            let text = toml::to_string(&policy).unwrap();
            assert_eq!(Policy::from_toml(&text).unwrap(), policy);
        }
    }

    #[test]
    fn what_no_agreement_can_mean_is_refused_by_field() {
        let bjca = include_str!("../data/bjca.toml");
        for (from, to, field) in [
            ("share = \"90%\"", "share = \"0%\"", "availability.share"),
            ("run_minutes = 1", "run_minutes = 0", "availability.run_minutes"),
            ("below = \"99.95%\"", "below = \"99.9%\"", "credit.row"),
            ("stop_minutes_max = 120", "stop_minutes_max = 20", "credit.row"),
            ("min = \"3%\"", "min = \"7%\"", "credit.row"),
        ] {
            let Err(PolicyError::Value { field: named, .. }) = Policy::from_toml(&bjca.replace(from, to))
            else {
                panic!("{to} was accepted");
            };
            assert_eq!(named, field);
        }
        let unknown = bjca.replace("idle = ", "idel = ");
        assert!(
            Policy::from_toml(&unknown)
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
    }
}
