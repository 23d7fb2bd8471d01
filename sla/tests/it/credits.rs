//! What is eligible: A 5.2 with its holes, and B 4.14.2.

use sla::calendar::MINUTES_A_DAY;
use sla::credit::{Credit, Customer, Purchase, eligible};
use sla::policy::{
    Base, Boundary, Cap, CreditRule, CreditTable, LongestStop, OutageInTwoMonths, Policy, PurchaseTier, Step,
};

use crate::support::{History, Was};

const JUNE: u32 = 30 * MINUTES_A_DAY;

fn customer(purchase: Purchase) -> Customer {
    Customer {
        name: "acme".to_owned(),
        purchase,
        contract_clause: None,
    }
}

fn by_signature() -> Customer {
    customer(Purchase::BySignature {
        package_units: 100_000,
        used_in_month: 9_001,
        used_in_term: 40_001,
        months_in_term: 4,
    })
}

fn bjca(change: impl FnOnce(&mut CreditTable)) -> Policy {
    let mut policy = Policy::bjca();
    let CreditRule::Table(table) = &mut policy.credit else {
        panic!("bjca pays by a table");
    };
    change(table);
    policy
}

/// A June with stops of these lengths, each an hour from the next.
fn stops(lengths: &[u32]) -> History {
    let mut june = History::of("2026-06");
    let mut offset = 60;
    for length in lengths {
        june.paint(offset, *length, Was::SigningDown);
        offset += i64::from(*length) + 60;
    }
    june
}

fn row_and_days(policy: &Policy, june: &History) -> (usize, u32) {
    match eligible(policy, &june.judge(policy), &customer(Purchase::ByUser)) {
        Credit::Days { row, days, .. } => (row, days),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_rows_of_the_table() {
    let policy = bjca(|_| {});
    // 99.9306 %, 99.4444 %, 97.9167 %, with stops that fit their rows.
    assert_eq!(row_and_days(&policy, &stops(&[30])), (1, 3));
    assert_eq!(row_and_days(&policy, &stops(&[120, 120])), (2, 10));
    assert_eq!(row_and_days(&policy, &stops(&[300, 300, 300])), (3, 20));
    let lowest = bjca(|table| table.step = Step::Lowest);
    assert_eq!(row_and_days(&lowest, &stops(&[30])), (1, 1));
    assert_eq!(row_and_days(&lowest, &stops(&[120, 120])), (2, 5));
    assert_eq!(row_and_days(&lowest, &stops(&[300, 300, 300])), (3, 10));
}

/// The holes: a stop that belongs to another row than availability does.
#[test]
fn a_longest_stop_beyond_its_row_raises_the_credit() {
    let policy = bjca(|_| {});
    let ignored = bjca(|table| table.longest_stop = LongestStop::Ignored);
    // (stops, row by both, row by availability alone)
    for (lengths, raised, chosen) in [
        (&[31][..], 2, 1),
        (&[100, 70], 2, 1),
        (&[121], 3, 1),
        (&[200, 100], 3, 2),
        (&[299], 3, 2),
        (&[10; 90], 3, 3),
    ] {
        assert_eq!(row_and_days(&policy, &stops(lengths)).0, raised, "{lengths:?}");
        assert_eq!(row_and_days(&ignored, &stops(lengths)).0, chosen, "{lengths:?}");
    }
}

/// Exactly 99.5 % and 98 % belong to no row of the text.
#[test]
fn a_boundary_value_takes_the_worse_row() {
    let better = bjca(|table| table.boundary = Boundary::Better);
    let worse = bjca(|_| {});
    let short = |sum: u32| stops(&vec![10; (sum / 10) as usize]);
    for (sum, graver) in [(JUNE / 200, 2), (JUNE / 50 + 6, 3)] {
        assert_eq!(sum % 10, if graver == 2 { 6 } else { 0 });
        let mut june = short(sum);
        june.paint(40_000, sum % 10, Was::SigningDown);
        assert_eq!(row_and_days(&worse, &june).0, graver);
        let at_edge = graver == 2;
        assert_eq!(row_and_days(&better, &june).0, if at_edge { 1 } else { 3 });
    }
    let mut june = short(JUNE / 50);
    june.paint(40_000, (JUNE / 50) % 10, Was::SigningDown);
    assert_eq!(
        (row_and_days(&worse, &june).0, row_and_days(&better, &june).0),
        (3, 2)
    );
}

/// A 5.2: 1 % to 2.5 % of the yearly package, 免费次数不多于每月平均服务次数.
#[test]
fn free_signatures_are_a_share_of_the_package_and_capped() {
    let signatures = |policy: &Policy, june: &History| {
        let credit = eligible(policy, &june.judge(policy), &by_signature());
        let Credit::Signatures {
            base,
            cap,
            signatures,
            ..
        } = credit
        else {
            panic!("{credit:?}");
        };
        (base, cap, signatures)
    };
    let (light, grave) = (stops(&[25]), stops(&[300, 300, 300]));
    // The averages: 40,001 in 4 months is 10,001; a twelfth of the package is 8,334.
    assert_eq!(signatures(&bjca(|_| {}), &light), (100_000, 10_001, 2_500));
    assert_eq!(signatures(&bjca(|_| {}), &grave), (100_000, 10_001, 8_500));
    let twelfth = bjca(|table| table.cap = Cap::PackageTwelfth);
    assert_eq!(signatures(&twelfth, &grave), (100_000, 8_334, 8_334));
    assert_eq!(signatures(&bjca(|table| table.cap = Cap::Used), &light).1, 10_001);
    let used = bjca(|table| table.base = Base::UsedInMonth);
    assert_eq!(
        signatures(&used, &light),
        (9_001, 10_001, 226),
        "225.025 rounded up"
    );
    let tiered = bjca(|table| {
        table.row[0].tier = [(10_000, "1%"), (100_000, "2%"), (1_000_000, "2.5%")]
            .map(|(from_units, percent)| PurchaseTier {
                from_units,
                percent: percent.parse().unwrap(),
            })
            .to_vec();
    });
    assert_eq!(signatures(&tiered, &light).2, 2_000);
}

/// A 5.2: 不含不限次包年客户; they get time, as those who buy by user do.
#[test]
fn unlimited_customers_get_days() {
    let policy = bjca(|_| {});
    let verdict = stops(&[25]).judge(&policy);
    let days = Credit::Days {
        row: 1,
        days: 3,
        valid_months: 12,
    };
    for purchase in [Purchase::Unlimited, Purchase::ByUser] {
        assert_eq!(eligible(&policy, &verdict, &customer(purchase)), days);
    }
}

/// A 5.2: 免费服务时长不大于一个月.
#[test]
fn days_are_capped_at_the_month() {
    let policy = bjca(|table| table.row[2].days.max = 45);
    assert_eq!(row_and_days(&policy, &stops(&[300, 300, 300])), (3, 30));
}

#[test]
fn a_clause_of_the_contract_comes_before_the_table() {
    let policy = bjca(|_| {});
    let clause = "5 % of the monthly fee".to_owned();
    let with_clause = Customer {
        contract_clause: Some(clause.clone()),
        ..by_signature()
    };
    let credit = |june: &History| eligible(&policy, &june.judge(&policy), &with_clause);
    assert_eq!(credit(&stops(&[25])), Credit::ContractClause { clause });
    assert_eq!(credit(&stops(&[21])), Credit::Kept);
}

/// B 4.14.2: 宕机次数一次，延长一个月服务周期, or 当年度月平均签约份数.
#[test]
fn bestsign_pays_each_outage_and_lets_the_customer_choose() {
    let policy = Policy::bestsign();
    let contracts = customer(Purchase::ByContract {
        contracts_this_year: 1_000,
        months_this_year: 6,
    });
    let credit = |june: &History, customer: &Customer| eligible(&policy, &june.judge(&policy), customer);
    let choice = Credit::Choice {
        outages: 2,
        months: 2,
        contracts: Some(334),
    };
    assert_eq!(credit(&stops(&[5, 4, 6]), &contracts), choice);
    let time_only = Credit::Choice {
        outages: 1,
        months: 1,
        contracts: None,
    };
    assert_eq!(credit(&stops(&[5]), &by_signature()), time_only);
    assert_eq!(credit(&stops(&[4, 4, 4, 4]), &contracts), Credit::Kept);
}

/// A month below its promise pays the outage it shares with its neighbour, unless the option says once.
#[test]
fn an_outage_in_two_months_is_paid_by_each_or_by_the_first() {
    let mut policy = Policy::bestsign();
    let mut july = History::of("2026-07");
    july.paint(-2, 12, Was::SigningDown);
    let outages = |policy: &Policy| match eligible(policy, &july.judge(policy), &by_signature()) {
        Credit::Choice { outages, .. } => outages,
        other => panic!("{other:?}"),
    };
    assert_eq!(outages(&policy), 1);
    let CreditRule::PerOutage(rule) = &mut policy.credit else {
        panic!("bestsign pays by outage");
    };
    rule.outage_in_two_months = OutageInTwoMonths::First;
    assert_eq!(outages(&policy), 0);
}

#[test]
fn a_cycle_that_does_not_count_pays_nothing() {
    let policy = Policy::bestsign();
    let mut june = stops(&[600]);
    june.term.from = june.at(30);
    assert_eq!(
        eligible(&policy, &june.judge(&policy), &by_signature()),
        Credit::NotCounted
    );
}
