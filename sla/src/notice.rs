//! Maintenance notices: what was announced, whether in time, and what that excludes.
//!
//! A notice alone excludes nothing. A minute is excluded when it lies in the window of a notice that was announced
//! in time *and* maintenance was under way in it, so a long window does not hide an outage that had another cause.

use serde::{Deserialize, Serialize};

use crate::calendar::{MinuteIndex, Span};
use crate::policy::{Cause, Counted, Exclusion};
use crate::working_days::{UnknownYear, WorkingDays};

/// An announcement of maintenance to customers (A 3.5, B 4.14.1(1)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Its name, unique among the notices.
    pub id: String,
    /// When it was published.
    pub announced: MinuteIndex,
    /// When the service may be interrupted.
    pub window: Span,
    /// What customers were told.
    #[serde(default)]
    pub text: String,
    /// The notice whose window this one changes. A change is an announcement of its own and needs the same
    /// lead (A 3.5(3)); the old window is void at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// It was called off.
    #[serde(default)]
    pub withdrawn: bool,
}

/// What the lead of a notice is worth under a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Lead {
    /// Announced in time.
    InTime,
    /// Announced too late.
    Late {
        /// Working days it left.
        working_days: u32,
        /// Working days the policy asks for.
        needed: u32,
    },
    /// Another notice changed it, or it was called off.
    Void,
    /// The holidays of a year between announcement and maintenance are not known; it excludes nothing.
    UnknownYear {
        /// The year.
        year: i16,
    },
}

/// Minutes that are excluded for a cause nobody could announce, declared with the evidence for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Whose fault it was.
    pub cause: Cause,
    /// The minutes.
    pub window: Span,
    /// Where the proof lies: an incident, a report of the provider.
    pub evidence: String,
}

/// A notice and what it is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The notice.
    pub notice: Notice,
    /// Its lead.
    pub lead: Lead,
}

/// Says whether a notice was announced in time. The day of the announcement never counts (民法典 art. 201); whether
/// the day on which the maintenance begins does is an option of the policy.
pub fn lead(notice: &Notice, rule: &Exclusion, days: &WorkingDays) -> Lead {
    let needed = rule.notice_working_days;
    let announced = notice.announced.civil().date();
    let begins = notice.window.from.civil().date();
    let until = match rule.notice_start_day {
        Counted::Counted => begins.tomorrow().unwrap_or(begins),
        Counted::NotCounted => begins,
    };
    match days.between(announced, until, needed) {
        Err(UnknownYear(year)) => Lead::UnknownYear { year },
        Ok(found) if found >= needed && notice.announced < notice.window.from => Lead::InTime,
        Ok(working_days) => Lead::Late { working_days, needed },
    }
}

/// What each notice of a list is worth; those that were replaced or called off are void.
pub fn judge(notices: &[Notice], rule: &Exclusion, days: &WorkingDays) -> Vec<Judged> {
    let is_void = |notice: &Notice| {
        let replaced = |other: &Notice| other.replaces.as_ref() == Some(&notice.id);
        notice.withdrawn || notices.iter().any(replaced)
    };
    let judged = |notice: &Notice| Judged {
        notice: notice.clone(),
        lead: if is_void(notice) {
            Lead::Void
        } else {
            lead(notice, rule, days)
        },
    };
    notices.iter().map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn notice(announced: &str, from: &str, to: &str) -> Notice {
        Notice {
            id: "n1".to_owned(),
            announced: announced.parse().unwrap(),
            window: Span {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
            },
            text: String::new(),
            replaces: None,
            withdrawn: false,
        }
    }

    fn night(announced: &str, from: &str) -> Notice {
        let from: MinuteIndex = from.parse().unwrap();
        notice(announced, &from.to_string(), &from.plus(120).to_string())
    }

    fn late(working_days: u32) -> Lead {
        Lead::Late {
            working_days,
            needed: 3,
        }
    }

    #[test]
    fn bjca_wants_three_whole_working_days() {
        let (rule, days) = (Policy::bjca().exclusion, WorkingDays::builtin());
        let lead = |announced, from| lead(&night(announced, from), &rule, &days);
        // Announced on Monday 23 November 2026 at 23:59.
        assert_eq!(
            lead("2026-11-23T23:59+08:00", "2026-11-27T02:00+08:00"),
            Lead::InTime
        );
        assert_eq!(lead("2026-11-23T23:59+08:00", "2026-11-26T23:59+08:00"), late(2));
        // One minute later it is Tuesday.
        assert_eq!(lead("2026-11-24T00:00+08:00", "2026-11-27T02:00+08:00"), late(2));
        // The day is Shanghai's, not UTC's: 16:00Z on the 23rd is the 24th.
        assert_eq!(lead("2026-11-23T16:00Z", "2026-11-27T02:00+08:00"), late(2));
    }

    #[test]
    fn a_golden_week_is_no_notice() {
        let (rule, days) = (Policy::bjca().exclusion, WorkingDays::builtin());
        let lead = |announced, from| lead(&night(announced, from), &rule, &days);
        assert_eq!(lead("2026-09-30T10:00+08:00", "2026-10-08T02:00+08:00"), late(0));
        // 8 and 9 October and the Saturday worked in exchange.
        assert_eq!(
            lead("2026-09-30T10:00+08:00", "2026-10-11T02:00+08:00"),
            Lead::InTime
        );
        assert_eq!(
            lead("2026-12-30T10:00+08:00", "2027-01-08T02:00+08:00"),
            Lead::UnknownYear { year: 2027 }
        );
    }

    #[test]
    fn the_first_day_counts_only_where_the_policy_says_so() {
        let (mut rule, days) = (Policy::bjca().exclusion, WorkingDays::builtin());
        let notice = night("2026-11-23T10:00+08:00", "2026-11-26T22:00+08:00");
        assert_eq!(lead(&notice, &rule, &days), late(2));
        rule.notice_start_day = Counted::Counted;
        assert_eq!(lead(&notice, &rule, &days), Lead::InTime);
    }

    #[test]
    fn bestsign_wants_it_beforehand() {
        let (rule, days) = (Policy::bestsign().exclusion, WorkingDays::builtin());
        let lead = |announced, from| lead(&night(announced, from), &rule, &days);
        assert_eq!(
            lead("2026-11-23T01:59+08:00", "2026-11-23T02:00+08:00"),
            Lead::InTime
        );
        let late = Lead::Late {
            working_days: 0,
            needed: 0,
        };
        assert_eq!(lead("2026-11-23T02:00+08:00", "2026-11-23T02:00+08:00"), late);
    }

    #[test]
    fn a_change_needs_its_own_lead_and_voids_the_old_window() {
        let (rule, days) = (Policy::bjca().exclusion, WorkingDays::builtin());
        let old = night("2026-11-16T10:00+08:00", "2026-11-27T02:00+08:00");
        let mut new = night("2026-11-26T10:00+08:00", "2026-11-27T03:00+08:00");
        (new.id, new.replaces) = ("n2".to_owned(), Some("n1".to_owned()));
        let leads: Vec<Lead> = judge(&[old.clone(), new], &rule, &days)
            .into_iter()
            .map(|j| j.lead)
            .collect();
        assert_eq!(leads, [Lead::Void, late(0)]);
        let withdrawn = Notice {
            withdrawn: true,
            ..old
        };
        assert_eq!(judge(&[withdrawn], &rule, &days)[0].lead, Lead::Void);
    }
}
