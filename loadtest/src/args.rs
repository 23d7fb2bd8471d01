//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::algorithm::{Algorithm, Format};
use protocol::client::Transport;
use serde::Deserialize;

use crate::schedule::Arrivals;
use crate::shape::ShapeName;

/// Load for Cinnabar, and the truth about what came back.
#[derive(Debug, Parser)]
#[command(name = "cinnabar-load", version, about, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends requests at rates that do not depend on the answers, and reports.
    Run(Box<Run>),
    /// Searches for the highest rate that keeps the SLA.
    FindMax(Box<FindMax>),
    /// Sends a recorded access log again, with its own timing.
    Replay(Box<Replay>),
    /// Adds up the reports of several agents that ran at the same time.
    Merge(Merge),
    /// Holds one report against another.
    Compare(Compare),
    /// Sends one plain HTTP query over and over, each as soon as the one before is answered: time stamps, OCSP.
    Http(Http),
    /// Keeps requests in flight, each followed by the next as soon as it is answered: for comparisons with tools that do so.
    Closed(Box<Closed>),
}

/// One query, and how it is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct Http {
    /// The listener.
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// What is asked for: the path, with the query if there is one.
    #[arg(long, default_value = "/tsa")]
    pub(crate) path: String,
    /// The media type of the body.
    #[arg(
        long = "type",
        value_name = "MEDIA TYPE",
        default_value = "application/timestamp-query"
    )]
    pub(crate) kind: String,
    /// The body, a file; without it the query is a GET.
    #[arg(long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,
    /// Bytes that the body of each answer must begin with, lengths aside; hexadecimal.
    #[arg(long, value_parser = hexadecimal, default_value = "")]
    pub(crate) expect: Hexadecimal,
    /// A header field, as "Name: value"; may be given more than once.
    #[arg(long, value_name = "FIELD", value_parser = header)]
    pub(crate) header: Vec<String>,
    /// Connections.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: usize,
    /// How long.
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) duration: Duration,
    /// How long before that.
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) warm_up: Duration,
    /// Where the engine's metrics are, to read its CPU time.
    #[arg(long)]
    pub(crate) admin: Option<SocketAddr>,
    /// An address that is not loopback and where load is welcome.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) allow_target: Vec<SocketAddr>,
}

/// Bytes in hexadecimal; a name of its own, because clap takes a vector for a list of arguments.
pub(crate) type Hexadecimal = Box<[u8]>;

fn hexadecimal(text: &str) -> Result<Hexadecimal, String> {
    let pairs = text.as_bytes().chunks(2);
    let digits = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    };
    let bytes: Option<Vec<u8>> = pairs.map(digits).collect();
    bytes
        .map(Vec::into_boxed_slice)
        .ok_or_else(|| "not hexadecimal".to_owned())
}

fn header(text: &str) -> Result<String, String> {
    let named = text.split_once(':').is_some_and(|(name, _)| !name.is_empty());
    (named && !text.contains(['\r', '\n']))
        .then(|| text.to_owned())
        .ok_or_else(|| "a header field is like \"Name: value\"".to_owned())
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TransportName {
    /// The native protocol.
    Quic,
    /// JSON over HTTPS.
    Https,
    /// Half of each.
    Both,
}

impl TransportName {
    /// The transports it stands for.
    pub(crate) const fn each(self) -> &'static [Transport] {
        match self {
            Self::Quic => &[Transport::Quic],
            Self::Https => &[Transport::Https],
            Self::Both => &[Transport::Quic, Transport::Https],
        }
    }
}

/// The language a page is first shown in; both are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    En,
    Zh,
}

/// What is shown while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A live view on a terminal, lines elsewhere.
    Auto,
    /// Lines.
    Plain,
    /// Nothing.
    None,
}

/// Who asks whom for what, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Client profile; several are several tenants.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Vec<PathBuf>,
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
    /// The deadline that requests carry, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) deadline_ms: Option<u32>,
    /// Connections for each profile and transport [default: 4 for QUIC, 64 for HTTPS].
    #[arg(long)]
    pub(crate) connections: Option<usize>,
    /// Connections replaced each second.
    #[arg(long, value_name = "RATE", value_parser = rate, default_value = "0")]
    pub(crate) churn: f64,
    /// Threads that send, each with its share of the connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Requests without an answer at once, at most; those beyond count as errors.
    #[arg(long, default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) open_max: u32,
    /// How long answers are waited for at the end.
    #[arg(long, value_parser = duration, default_value = "5s")]
    pub(crate) grace: Duration,
    /// Verify one signature in this many; 1 verifies all.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) verify_every: u32,
    /// The promise to hold it to, a TOML file [default: average 100 ms, longest 3 s, no errors].
    #[arg(long, value_name = "FILE")]
    pub(crate) sla: Option<PathBuf>,
    /// An address that is not loopback and where load is welcome: it costs whoever runs the engine.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) allow_target: Vec<SocketAddr>,
    /// Agree to metered signatures without being asked.
    #[arg(long)]
    pub(crate) yes: bool,
    /// What to show while it runs.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: Progress,
}

/// What is asked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// The credential to sign with; several are used in turn.
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "mix",
        conflicts_with = "mix"
    )]
    pub(crate) credential: Vec<String>,
    /// Classes of requests with weights, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) mix: Option<PathBuf>,
    /// Requests per second [find-max: the first rate tried].
    #[arg(long, value_parser = positive_rate)]
    pub(crate) rate: f64,
    /// Load at the start that is not counted.
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) warm_up: Duration,
    /// How requests are spaced.
    #[arg(long, value_enum, default_value = "even")]
    pub(crate) arrivals: Arrivals,
    /// Makes random spacing repeatable.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Where reports go.
#[derive(Clone, Debug, Args)]
pub(crate) struct Outputs {
    /// Write everything: PREFIX.json, .hlog, .hgrm, .html and .xml.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) out: Option<PathBuf>,
    /// The report as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A histogram for each second, as HdrHistogram tools read it.
    #[arg(long, value_name = "FILE")]
    pub(crate) hlog: Option<PathBuf>,
    /// The percentile distribution, as HdrHistogram plotters read it.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    /// The report as one page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// The verdict as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// What the run is called in its reports.
    #[arg(long, default_value = "cinnabar-load")]
    pub(crate) title: String,
    /// The language the page is first shown in.
    #[arg(long, value_enum, default_value = "en")]
    pub(crate) language: Language,
}

impl Outputs {
    /// Where one kind of report goes: its own flag, or the common prefix.
    pub(crate) fn path(&self, own: Option<&PathBuf>, extension: &str) -> Option<PathBuf> {
        own.cloned().or_else(|| {
            let mut name = self.out.as_ref()?.clone().into_os_string();
            name.push(".");
            name.push(extension);
            Some(name.into())
        })
    }
}

/// One agent's share of a load that several send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// From 0.
    pub(crate) which: u64,
    pub(crate) of: u64,
}

/// `cinnabar-load run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// How long to send, as 500ms, 30s, 5m or 2h.
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) duration: Duration,
    /// What the load is like over time.
    #[arg(long, value_enum, default_value = "constant")]
    pub(crate) shape: ShapeName,
    /// The rate that a ramp or steps end at, or the peak of a spike.
    #[arg(long, value_parser = positive_rate, value_name = "RATE")]
    pub(crate) to: Option<f64>,
    /// Steps of a step load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(crate) steps: u32,
    /// Send this share of the load, as 2/3: the second of three agents with otherwise equal arguments.
    #[arg(long, value_parser = share, default_value = "1/1")]
    pub(crate) agent: Share,
    /// Start at this time, in seconds since 1970, so that agents start together.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) start_at: Option<f64>,
}

/// `cinnabar-load find-max`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FindMax {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// How long each rate is tried.
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) duration: Duration,
    /// No rate above this is tried.
    #[arg(long, value_parser = positive_rate, default_value = "1000000")]
    pub(crate) highest: f64,
    /// How close to a rate that failed the answer must be, as a share.
    #[arg(long, default_value = "0.05", value_parser = tolerance)]
    pub(crate) tolerance: f64,
    /// How often the rate found must pass again.
    #[arg(long, default_value_t = 2)]
    pub(crate) confirm: u32,
}

/// `cinnabar-load closed`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Closed {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The credential to sign with; several are used in turn.
    #[arg(long, value_name = "ID", required = true)]
    pub(crate) credential: Vec<String>,
    /// Requests that are always on their way.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// How long.
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) duration: Duration,
    /// How long before that, not counted.
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) warm_up: Duration,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

/// `cinnabar-load replay`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// The log: JSON lines with offset_ms, credential, and if wanted algorithm, format, items, transport, app.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: PathBuf,
    /// 2 replays it in half the time.
    #[arg(long, default_value = "1", value_parser = positive_rate)]
    pub(crate) speed: f64,
}

/// `cinnabar-load merge`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Merge {
    /// Reports (.json) of the agents; the .hlog of each lies beside it.
    #[arg(required = true, value_name = "REPORT")]
    pub(crate) reports: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// The promise to hold it to [default: that of the first report].
    #[arg(long, value_name = "FILE")]
    pub(crate) sla: Option<PathBuf>,
}

/// `cinnabar-load compare`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Compare {
    /// The report to compare with.
    pub(crate) before: PathBuf,
    /// The report to judge.
    pub(crate) after: PathBuf,
    /// How many times worse a figure may be.
    #[arg(long, default_value = "1.1", value_parser = threshold)]
    pub(crate) threshold: f64,
    /// Differences of latency below this are noise, in milliseconds.
    #[arg(long, default_value = "0.5", value_parser = rate)]
    pub(crate) noise_ms: f64,
    /// Both percentile curves on one page.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// The comparison as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The language the page is first shown in.
    #[arg(long, value_enum, default_value = "en")]
    pub(crate) language: Language,
}

impl Common {
    /// Connections of one profile over one transport, on one thread.
    pub(crate) fn connections(&self, transport: Transport) -> usize {
        let default = match transport {
            Transport::Quic => 4,
            Transport::Https => 64,
        };
        self.connections
            .unwrap_or(default)
            .div_ceil(usize::from(self.threads))
            .max(1)
    }
}

fn number(text: &str, accept: impl Fn(f64) -> bool, says: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if accept(number) => Ok(number),
        _ => Err(says.into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    number(
        text,
        |rate| (0.0..=10_000_000.0).contains(&rate),
        "a number, 0 or above",
    )
}

fn positive_rate(text: &str) -> Result<f64, String> {
    let accept = |rate| rate > 0.0 && rate <= 10_000_000.0;
    number(text, accept, "a rate is a number above 0")
}

fn tolerance(text: &str) -> Result<f64, String> {
    number(
        text,
        |share| (0.001..=0.5).contains(&share),
        "a share between 0.001 and 0.5",
    )
}

fn threshold(text: &str) -> Result<f64, String> {
    number(
        text,
        |ratio| (1.0..=1000.0).contains(&ratio),
        "a ratio is a number, 1 or above",
    )
}

fn share(text: &str) -> Result<Share, String> {
    let numbers = text
        .split_once('/')
        .and_then(|(which, of)| Some((which.parse::<u64>().ok()?, of.parse().ok()?)));
    match numbers {
        Some((which, of)) if (1..=of).contains(&which) => Ok(Share { which: which - 1, of }),
        _ => Err("a share is like 2/3: the second of three".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let found = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = found.unwrap_or((text, 1.0));
    match number.parse::<f64>() {
        Ok(count) if (0.0..=1e6).contains(&(count * factor)) => Ok(Duration::from_secs_f64(count * factor)),
        _ => Err("a duration is a number with ms, s, m or h".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        common: Common,
    }

    impl Common {
        /// What applies when nothing is said.
        pub(crate) fn for_tests() -> Self {
            Only::parse_from(["test"]).common
        }
    }

    #[test]
    fn durations_rates_and_shares_are_read_strictly() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        assert!(duration("-1s").is_err() && duration("soon").is_err() && duration("NaN").is_err());
        assert!(positive_rate("0").is_err() && positive_rate("-3").is_err() && positive_rate("1e3").is_ok());
        assert!(header("X-Token: a").is_ok() && header("none").is_err() && header("A: b\r\nC: d").is_err());
        assert_eq!(share("2/3"), Ok(Share { which: 1, of: 3 }));
        assert!(
            ["0/3", "4/3", "1", "a/b", "1/0"]
                .iter()
                .all(|text| share(text).is_err())
        );
    }

    #[test]
    fn the_command_line_that_scripts_rely_on_is_understood() {
        let line = "cinnabar-load run --profile a.toml --credential demo-p256 --rate 100 --duration 30s --transport https --json out.json";
        let Command::Run(run) = Arguments::parse_from(line.split(' ')).command else {
            panic!("not a run")
        };
        assert_eq!((run.load.rate, run.duration), (100.0, Duration::from_secs(30)));
        assert_eq!(run.common.transport, TransportName::Https);
        assert_eq!(
            run.outputs.path(run.outputs.json.as_ref(), "json"),
            Some("out.json".into())
        );
        assert_eq!(run.outputs.path(None, "html"), None);
    }

    #[test]
    fn a_prefix_names_every_report_and_a_flag_goes_before_it() {
        let line = "cinnabar-load run --profile a --credential c --rate 1 --out night.1 --html page.html";
        let Command::Run(run) = Arguments::parse_from(line.split(' ')).command else {
            panic!("not a run")
        };
        let outputs = run.outputs;
        assert_eq!(
            outputs.path(outputs.json.as_ref(), "json"),
            Some("night.1.json".into())
        );
        assert_eq!(
            outputs.path(outputs.html.as_ref(), "html"),
            Some("page.html".into())
        );
    }
}
