//! `cinnabar`, the engine and its command line. Wires, never decides: the path of a request is in `actors`, and
//! ARCHITECTURE.md is the map.

mod admin;
mod alerts;
mod args;
mod cli;
mod config;
mod console;
mod dev;
mod erasures;
mod front;
mod key_pools;
mod latency_log;
mod master_key;
mod operations;
mod outgoing;
mod pki;
mod reconciler;
mod registration;
mod sealing;
mod serve;
mod shutdown;
mod telemetry;
mod traces;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("cinnabar: {}", one_line(&refusal.to_string()));
            ExitCode::from(refusal.code.exit_code())
        }
    }
}

/// Help and version are answers; everything else is one line and exit code 2.
fn explain(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that has gone away is no error of ours.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("bad arguments");
    let missing: Vec<&str> = text
        .lines()
        .skip(1)
        .map(str::trim)
        .take_while(|line| line.starts_with("--"))
        .collect();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    eprintln!("cinnabar: usage: {} {}", first, missing.join(" "));
    ExitCode::from(2)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
