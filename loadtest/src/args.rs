//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::algorithm::{Algorithm, Format};
use protocol::client::Transport;

/// Load for Cinnabar, and the truth about what came back.
#[derive(Debug, Parser)]
#[command(name = "cinnabar-load", version, about, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends requests at a constant rate and reports.
    Run(Plan),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TransportName {
    /// The native protocol.
    Quic,
    /// JSON over HTTPS.
    Https,
}

impl From<TransportName> for Transport {
    fn from(name: TransportName) -> Self {
        match name {
            TransportName::Quic => Self::Quic,
            TransportName::Https => Self::Https,
        }
    }
}

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Client profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: PathBuf,
    /// The credential to sign with.
    #[arg(long, value_name = "ID")]
    pub(crate) credential: String,
    /// Requests per second.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: f64,
    /// How long to send, as 500ms, 30s or 5m.
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) duration: Duration,
    /// Which way to go.
    #[arg(long, value_enum, default_value = "quic")]
    pub(crate) transport: TransportName,
    /// How to sign [default: the credential's first algorithm].
    #[arg(long)]
    pub(crate) algorithm: Option<Algorithm>,
    /// raw, pair or cms.
    #[arg(long, default_value = "raw")]
    pub(crate) format: Format,
    /// Digests in each request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) batch: u16,
    /// Connections [default: 4 for QUIC, 64 for HTTPS].
    #[arg(long)]
    pub(crate) connections: Option<usize>,
    /// Seconds of load at the start that are not counted.
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) warm_up: Duration,
    /// Verify one signature in this many; 1 verifies all.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) verify_every: u32,
    /// Send to an address that is not loopback: load costs whoever runs the engine, and signatures are billed.
    #[arg(long)]
    pub(crate) allow_target: bool,
    /// Where to write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl Plan {
    pub(crate) fn connections(&self) -> usize {
        let default = match self.transport {
            TransportName::Quic => 4,
            TransportName::Https => 64,
        };
        self.connections.unwrap_or(default).max(1)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 10_000_000.0 => Ok(rate),
        _ => Err("a rate is a number of requests per second, above 0".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    match number.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds * factor)),
        _ => Err("a duration is a number with ms, s or m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_are_read_strictly() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
        assert!(rate("0").is_err() && rate("-3").is_err() && rate("1e3").is_ok());
    }
}
