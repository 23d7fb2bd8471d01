//! What came of a run, as JSON holds it. Everything needed to add reports up again, and to draw them, is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::search::Trial;
use crate::sla::{Check, Sla, Verdict};
use crate::tally::{Connections, Interval, Latencies, Outcomes, Totals, add, histogram};

/// The form of the report; it grows when a member changes its meaning.
pub(crate) const SCHEMA: u32 = 1;

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) avg: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Latencies) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Self {
            avg: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
        }
    }
}

/// A histogram as text: V2, compressed, base64, as one line of a `.hlog` holds it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Packed(String);

/// A histogram in a report that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("a histogram is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("a histogram is damaged: {0}")]
    Histogram(String),
}

impl Packed {
    pub(crate) fn of(histogram: &Latencies) -> Self {
        let mut bytes = Vec::new();
        // Writing into memory fails only for a histogram that is too large to address.
        let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
        written.map(|_| Self(STANDARD.encode(&bytes))).unwrap_or_default()
    }

    pub(crate) fn unpack(&self) -> Result<Latencies, UnpackError> {
        unpack(&self.0)
    }
}

/// Reads a histogram from its text.
pub(crate) fn unpack(text: &str) -> Result<Latencies, UnpackError> {
    let mut found = histogram();
    if !text.is_empty() {
        let read: Latencies = Deserializer::new()
            .deserialize(&mut &STANDARD.decode(text)?[..])
            .map_err(|error| UnpackError::Histogram(error.to_string()))?;
        found
            .add(&read)
            .map_err(|error| UnpackError::Histogram(error.to_string()))?;
    }
    Ok(found)
}

/// A phase or a class of requests.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Length of a phase.
    pub(crate) seconds: Option<f64>,
    pub(crate) offered: u64,
    pub(crate) ok: u64,
    pub(crate) verified: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) latency_ms: Percentiles,
    pub(crate) ok_latency_ms: Percentiles,
    ok_histogram: Packed,
    failed_histogram: Packed,
}

impl Group {
    pub(crate) fn of(name: &str, seconds: Option<f64>, outcomes: &Outcomes) -> Self {
        Self {
            name: name.to_owned(),
            seconds,
            offered: outcomes.offered,
            ok: outcomes.ok,
            verified: outcomes.verified,
            errors: outcomes.errors.clone(),
            latency_ms: Percentiles::of(&outcomes.latency()),
            ok_latency_ms: Percentiles::of(&outcomes.ok_latency),
            ok_histogram: Packed::of(&outcomes.ok_latency),
            failed_histogram: Packed::of(&outcomes.failed_latency),
        }
    }

    pub(crate) fn outcomes(&self) -> Result<Outcomes, UnpackError> {
        Ok(Outcomes {
            offered: self.offered,
            ok: self.ok,
            verified: self.verified,
            errors: self.errors.clone(),
            ok_latency: self.ok_histogram.unpack()?,
            failed_latency: self.failed_histogram.unpack()?,
        })
    }
}

/// One second of the run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) second: u64,
    /// Signatures that were asked for in it.
    pub(crate) offered: u64,
    /// Signatures that came in it.
    pub(crate) ok: u64,
    /// Signatures that failed in it.
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Point {
    pub(crate) fn of(interval: &Interval) -> Self {
        let latency = Percentiles::of(&interval.latency);
        Self {
            second: interval.second,
            offered: interval.offered,
            ok: interval.ok,
            failed: interval.failed,
            p50_ms: latency.p50,
            p99_ms: latency.p99,
            max_ms: latency.max,
        }
    }
}

/// What was done, as opposed to what came of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Facts {
    pub(crate) title: String,
    pub(crate) version: String,
    /// constant, ramp, step, spike, soak, find-max or replay.
    pub(crate) shape: String,
    /// When counting began.
    pub(crate) started_unix_ms: u64,
    pub(crate) warm_up_seconds: f64,
    pub(crate) threads: usize,
    /// Load generators whose figures are in here.
    pub(crate) agents: u32,
    /// It was stopped before its time.
    pub(crate) interrupted: bool,
}

/// Connections made.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct ConnectionsReport {
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    pub(crate) handshake_ms: Percentiles,
}

/// What the engine booked, held against what was received.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Metered {
    /// Signatures the engine booked to these apps while the run lasted, whoever asked.
    pub(crate) booked: u64,
    /// Signatures received here, the warm-up included.
    pub(crate) received: u64,
}

/// Histograms that belong to no group.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Histograms {
    service: Packed,
    lag: Packed,
    handshake: Packed,
}

/// The report.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) run: Facts,
    /// Signatures asked for.
    pub(crate) offered: u64,
    /// Signatures that came back.
    pub(crate) ok: u64,
    /// Signatures that did not, by code.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Signatures that were verified here.
    pub(crate) verified: u64,
    /// From the first counted request to the last answer.
    pub(crate) seconds: f64,
    pub(crate) signatures_per_second: f64,
    /// From the moment a request was meant to leave to its answer: all requests.
    pub(crate) latency_ms: Percentiles,
    /// The same, of those that brought signatures.
    pub(crate) ok_latency_ms: Percentiles,
    /// The same, of those that brought none.
    pub(crate) failed_latency_ms: Percentiles,
    /// From the moment a request left to its answer.
    pub(crate) service_ms: Percentiles,
    /// From the moment a request was meant to leave to the moment it left.
    pub(crate) send_lag_ms: Percentiles,
    /// The server's CPU time for each signature, in microseconds.
    pub(crate) server_cpu_us: Option<f64>,
    /// This tool's own CPU time for each signature, in microseconds.
    pub(crate) client_cpu_us: Option<f64>,
    /// Seconds in which the engine's capacity was being extended: the average may rise then, the maximum may not. None where
    /// it cannot be seen.
    #[serde(default)]
    pub(crate) extending_seconds: Option<f64>,
    pub(crate) connections: ConnectionsReport,
    pub(crate) metered: Option<Metered>,
    pub(crate) phases: Vec<Group>,
    pub(crate) classes: Vec<Group>,
    pub(crate) timeline: Vec<Point>,
    /// What a search for the maximum tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trials: Vec<Trial>,
    /// The highest rate that kept the SLA, and what stood above it.
    pub(crate) maximum: Option<crate::search::Maximum>,
    pub(crate) sla: Sla,
    pub(crate) checks: Vec<Check>,
    /// The generator could not keep its own schedule: the latencies include its own delay.
    pub(crate) saturated: bool,
    /// Every limit of the SLA was kept.
    pub(crate) kept: bool,
    pub(crate) verdict: Verdict,
    histograms: Histograms,
}

impl Report {
    /// The figures of a run that lasted at least `length`; what they are held to is filled in by [`Sla::judge`].
    pub(crate) fn of(totals: &Totals, length: Duration) -> Self {
        let all = totals.all();
        let seconds = totals.last_answer.max(length).as_secs_f64().max(0.001);
        Self {
            schema: SCHEMA,
            run: Facts::default(),
            offered: all.offered,
            ok: all.ok,
            verified: all.verified,
            seconds,
            signatures_per_second: all.ok as f64 / seconds,
            latency_ms: Percentiles::of(&all.latency()),
            ok_latency_ms: Percentiles::of(&all.ok_latency),
            failed_latency_ms: Percentiles::of(&all.failed_latency),
            service_ms: Percentiles::of(&totals.service),
            send_lag_ms: Percentiles::of(&totals.lag),
            errors: all.errors,
            server_cpu_us: None,
            client_cpu_us: None,
            extending_seconds: None,
            connections: ConnectionsReport {
                opened: totals.connections.opened,
                failed: totals.connections.failed,
                handshake_ms: Percentiles::of(&totals.connections.handshake),
            },
            metered: None,
            phases: Vec::new(),
            classes: Vec::new(),
            timeline: Vec::new(),
            trials: Vec::new(),
            maximum: None,
            sla: Sla::default(),
            checks: Vec::new(),
            saturated: false,
            kept: false,
            verdict: Verdict::NotKept,
            histograms: Histograms {
                service: Packed::of(&totals.service),
                lag: Packed::of(&totals.lag),
                handshake: Packed::of(&totals.connections.handshake),
            },
        }
    }

    /// Names the phases and classes of the totals.
    pub(crate) fn with_groups(
        mut self,
        totals: &Totals,
        phases: &[(String, f64)],
        classes: &[String],
    ) -> Self {
        let phase = |((name, seconds), outcomes): (&(String, f64), &Outcomes)| {
            Group::of(name, Some(*seconds), outcomes)
        };
        self.phases = phases.iter().zip(&totals.phases).map(phase).collect();
        if let [only] = classes {
            self.classes = vec![Group::of(only, None, &totals.all())];
        } else {
            let class = |(name, outcomes): (&String, &Outcomes)| Group::of(name, None, outcomes);
            self.classes = classes.iter().zip(&totals.classes).map(class).collect();
        }
        self
    }

    /// The totals that this report was made of.
    pub(crate) fn totals(&self) -> Result<Totals, UnpackError> {
        let groups = |list: &[Group]| list.iter().map(Group::outcomes).collect::<Result<_, _>>();
        Ok(Totals {
            phases: groups(&self.phases)?,
            classes: groups(&self.classes)?,
            service: self.histograms.service.unpack()?,
            lag: self.histograms.lag.unpack()?,
            connections: Connections {
                opened: self.connections.opened,
                failed: self.connections.failed,
                handshake: self.histograms.handshake.unpack()?,
            },
            warm_up_ok: self
                .metered
                .map_or(0, |metered| metered.received.saturating_sub(self.ok)),
            last_answer: Duration::from_secs_f64(self.seconds),
        })
    }

    /// The latencies of all requests.
    pub(crate) fn latencies(&self) -> Result<Latencies, UnpackError> {
        let mut all = histogram();
        for phase in &self.phases {
            add(&mut all, &phase.outcomes()?.latency());
        }
        Ok(all)
    }

    /// Signatures that did not come, as a share of those asked for.
    pub(crate) fn missing_share(&self) -> f64 {
        self.offered.saturating_sub(self.ok) as f64 / self.offered.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::tests::{SECOND, ms, totals};

    #[test]
    fn a_report_gives_back_the_totals_it_was_made_of() {
        let requests: Vec<(u64, bool)> = (1..=500).map(|ms| (ms, ms % 7 != 0)).collect();
        let totals = totals(&requests, ms(2));
        let report = Report::of(&totals, SECOND).with_groups(&totals, &[("all".into(), 1.0)], &["a".into()]);
        let text = serde_json::to_string(&report).unwrap();
        let again = serde_json::from_str::<Report>(&text).unwrap();
        let back = again.totals().unwrap();
        assert_eq!(back.all().latency(), totals.all().latency());
        assert_eq!(back.all().errors["overloaded"], 71);
        assert_eq!(again.latency_ms.p99, report.latency_ms.p99);
        assert_eq!((report.offered, report.ok), (500, 429));
        assert!(
            (report.latency_ms.p50 - 250.0).abs() < 0.5,
            "{}",
            report.latency_ms.p50
        );
    }

    #[test]
    fn a_damaged_histogram_is_an_error_and_not_a_panic() {
        for text in ["?", "AAAA", "HISTFAAAAB", "HISTFAAAABx42mNgYGBgYAAAAAD//w=="] {
            assert!(unpack(text).is_err(), "{text}");
        }
    }
}
