//! The report as people read it on a terminal.

use std::fmt;

use crate::report::{Group, Percentiles, Report};
use crate::search::Limit;
use crate::sla::Check;

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            avg,
            p50,
            p90,
            p99,
            p999,
            max,
        } = self;
        write!(
            f,
            "avg {avg:.2}  p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}"
        )
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.kept { "kept" } else { "BROKEN" };
        match self.found {
            Some(found) => write!(f, "{} {found:.4} (limit {}): {sign}", self.name, self.limit),
            None => write!(f, "{} not seen (limit {}): {sign}", self.name, self.limit),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sla => "the SLA",
            Self::Generator => "the generator",
            Self::Ceiling => "the highest rate allowed",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offered,
            ok,
            verified,
            seconds,
            ..
        } = self;
        writeln!(
            f,
            "offered {offered}   ok {ok}   verified {verified}   in {seconds:.2} s"
        )?;
        writeln!(f, "signatures/s {:.0}", self.signatures_per_second)?;
        writeln!(f, "latency ms  {}", self.latency_ms)?;
        if !self.errors.is_empty() {
            writeln!(f, "  with signatures  {}", self.ok_latency_ms)?;
            writeln!(f, "  without          {}", self.failed_latency_ms)?;
        }
        writeln!(f, "send lag ms {}", self.send_lag_ms)?;
        self.costs(f)?;
        groups(f, "phase", &self.phases)?;
        groups(f, "class", &self.classes)?;
        for (code, count) in &self.errors {
            writeln!(f, "error {code}: {count}")?;
        }
        self.search(f)?;
        if self.run.interrupted {
            writeln!(f, "the run was interrupted: this is what came until then")?;
        }
        for check in &self.checks {
            writeln!(f, "{check}")?;
        }
        writeln!(f, "SLA: {}", self.verdict.words())
    }
}

impl Report {
    fn costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cpu) = self.server_cpu_us {
            writeln!(f, "server CPU {cpu:.1} µs per signature")?;
        }
        if let Some(cpu) = self.client_cpu_us {
            writeln!(f, "client CPU {cpu:.1} µs per signature")?;
        }
        if let Some(seconds) = self.extending_seconds.filter(|seconds| *seconds > 0.0) {
            writeln!(
                f,
                "capacity was being extended for {seconds:.0} s: the average may rise then, the maximum may not"
            )?;
        }
        let connections = &self.connections;
        if connections.opened > 0 || connections.failed > 0 {
            let handshake = connections.handshake_ms;
            writeln!(
                f,
                "connections {} opened, {} failed; handshake ms p50 {:.2}  max {:.2}",
                connections.opened, connections.failed, handshake.p50, handshake.max
            )?;
        }
        if let Some(metered) = self.metered {
            writeln!(
                f,
                "booked by the engine {}, received here {}",
                metered.booked, metered.received
            )?;
        }
        Ok(())
    }

    fn search(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for trial in &self.trials {
            let outcome = trial
                .failed_by
                .map_or_else(|| "passed".into(), |limit| format!("failed by {limit}"));
            writeln!(f, "tried {:.0}/s: {outcome}   {}", trial.rate, trial.latency_ms)?;
        }
        if let Some(maximum) = self.maximum {
            writeln!(
                f,
                "maximum {:.0} requests/s, limited by {}",
                maximum.rate, maximum.limited_by
            )?;
        }
        Ok(())
    }
}

/// Groups, where there are several.
fn groups(f: &mut fmt::Formatter<'_>, kind: &str, groups: &[Group]) -> fmt::Result {
    if groups.len() > 1 {
        for group in groups {
            writeln!(
                f,
                "{kind} {}: offered {}  ok {}  {}",
                group.name, group.offered, group.ok, group.latency_ms
            )?;
        }
    }
    Ok(())
}
