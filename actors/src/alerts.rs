//! Alerts: what is wrong with the engine now, told once when it begins and once when it is over. Pure: what is seen at a
//! moment goes in, what is to be told comes out.

use std::collections::BTreeMap;
use std::fmt;

use protocol::clock::UnixMillis;
use serde_json::{Value, json};

use crate::outgoing;

/// How long something must not be seen before it is over: what flickers is one alert, not many. In milliseconds.
pub const OVER_AFTER_MS: u64 = 60_000;
/// Things that may be wrong at a time.
pub const RAISED_MAX: usize = 256;

/// Something wrong that somebody has to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// A device does not work and gets no jobs.
    DeviceQuarantined(String),
    /// A device refuses its PIN; only an operator may try again.
    PinLatched(String),
    /// The disk is full.
    StorageFull,
    /// Journal, ledger and counters differ; the statements of a month (YYYYMM) are frozen.
    ReconciliationDifference(u32),
    /// A minute was unavailable under a service agreement, by the name of its policy.
    BadMinute(String),
    /// Certificates end within so many days.
    CertificatesEnding(u32),
    /// In a minute too large a share of the requests was refused with 503, by the name of the policy.
    BusyMinute(String),
}

impl Condition {
    /// Its name: match on this.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DeviceQuarantined(_) => "device-quarantined",
            Self::PinLatched(_) => "pin-latched",
            Self::StorageFull => "storage-full",
            Self::ReconciliationDifference(_) => "reconciliation-difference",
            Self::BadMinute(_) => "bad-minute",
            Self::CertificatesEnding(_) => "certificates-ending",
            Self::BusyMinute(_) => "busy-minute",
        }
    }

    /// What it is about; nothing where there is only one.
    pub fn subject(&self) -> String {
        match self {
            Self::DeviceQuarantined(name)
            | Self::PinLatched(name)
            | Self::BadMinute(name)
            | Self::BusyMinute(name) => name.clone(),
            Self::ReconciliationDifference(month) => format!("{}-{:02}", month / 100, month % 100),
            Self::CertificatesEnding(days) => days.to_string(),
            Self::StorageFull => String::new(),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::StorageFull => Ok(()),
            _ => write!(f, " {}", self.subject()),
        }
    }
}

/// Something that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What.
    pub condition: Condition,
    /// In a sentence.
    pub text: String,
    /// Since when.
    pub since: UnixMillis,
    /// Whether it is over.
    pub is_over: bool,
}

impl Alert {
    /// Its kind, as receivers know it.
    pub const fn kind(&self) -> &'static str {
        if self.is_over {
            "alert.resolved"
        } else {
            "alert.raised"
        }
    }

    /// Its matter, for the body of a webhook.
    pub fn data(&self) -> Value {
        json!({
            "alert": self.condition.name(),
            "subject": self.condition.subject(),
            "text": self.text,
            "since": outgoing::timestamp(self.since),
        })
    }
}

#[derive(Clone, Debug)]
struct Raised {
    text: String,
    since: UnixMillis,
    seen: UnixMillis,
}

/// What is wrong, as far as it has been told.
#[derive(Debug, Default)]
pub struct Watch(BTreeMap<Condition, Raised>);

impl Watch {
    /// Takes what is seen now; returns what is new, and what is over.
    pub fn look(&mut self, seen: Vec<(Condition, String)>, now: UnixMillis) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for (condition, text) in seen {
            if let Some(raised) = self.0.get_mut(&condition) {
                raised.seen = now;
            } else if self.0.len() < RAISED_MAX {
                alerts.push(alert(&condition, &text, now, false));
                let (since, seen) = (now, now);
                self.0.insert(condition, Raised { text, since, seen });
            }
        }
        self.0.retain(|condition, raised| {
            let is_over = now.0.saturating_sub(raised.seen.0) >= OVER_AFTER_MS;
            if is_over {
                alerts.push(alert(condition, &raised.text, raised.since, true));
            }
            !is_over
        });
        alerts
    }

    /// Everything that is wrong now.
    pub fn raised(&self) -> Vec<Alert> {
        let show =
            |(condition, raised): (&Condition, &Raised)| alert(condition, &raised.text, raised.since, false);
        self.0.iter().map(show).collect()
    }
}

fn alert(condition: &Condition, text: &str, since: UnixMillis, is_over: bool) -> Alert {
    Alert {
        condition: condition.clone(),
        text: text.to_owned(),
        since,
        is_over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(alerts: &[Alert]) -> Vec<(String, &'static str)> {
        alerts
            .iter()
            .map(|alert| (alert.condition.to_string(), alert.kind()))
            .collect()
    }

    fn full() -> Vec<(Condition, String)> {
        vec![(Condition::StorageFull, "the disk is full".into())]
    }

    #[test]
    fn something_is_told_when_it_begins_and_when_it_is_over() {
        let mut watch = Watch::default();
        let at = UnixMillis;
        let raised = ("storage-full".to_owned(), "alert.raised");
        assert_eq!(told(&watch.look(full(), at(1_000))), [raised]);
        assert_eq!(watch.look(full(), at(30_000)), []);
        // It flickers: nobody is told again.
        assert_eq!(watch.look(Vec::new(), at(60_000)), []);
        assert_eq!(watch.look(full(), at(80_000)), []);
        assert_eq!(watch.look(Vec::new(), at(139_999)), []);
        assert_eq!(watch.raised().len(), 1);
        let over = watch.look(Vec::new(), at(140_000));
        assert_eq!(told(&over), [("storage-full".to_owned(), "alert.resolved")]);
        assert_eq!(over[0].since, at(1_000));
        assert_eq!(watch.raised(), []);
        assert_eq!(watch.look(full(), at(150_000)).len(), 1);
    }

    #[test]
    fn each_device_and_month_is_a_matter_of_its_own() {
        let mut watch = Watch::default();
        let seen = vec![
            (Condition::DeviceQuarantined("hsm-1".into()), "hangs".into()),
            (Condition::PinLatched("hsm-1".into()), "PIN".into()),
            (Condition::ReconciliationDifference(202_611), "1 and 2".into()),
        ];
        let alerts = watch.look(seen, UnixMillis(5_000));
        let names: Vec<String> = alerts.iter().map(|alert| alert.condition.to_string()).collect();
        let wanted = [
            "device-quarantined hsm-1",
            "pin-latched hsm-1",
            "reconciliation-difference 2026-11",
        ];
        assert_eq!(names, wanted);
        assert_eq!(alerts[2].data()["subject"], "2026-11");
        assert_eq!(alerts[0].data()["since"], "1970-01-01T08:00:05+08:00");
    }

    #[test]
    fn the_number_of_alerts_is_bounded() {
        let mut watch = Watch::default();
        let seen = (0..1_000).map(|number| (Condition::PinLatched(format!("d{number}")), String::new()));
        assert_eq!(watch.look(seen.collect(), UnixMillis(0)).len(), RAISED_MAX);
    }
}
