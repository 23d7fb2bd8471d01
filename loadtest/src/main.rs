//! `cinnabar-load`: load at rates that do not slow down when the server does, latencies from the moment each request was
//! meant to leave, and a verdict against the SLA. It knows the engine only as any client does.
//!
//! What is sent when, all of it pure: [`shape`] (rates over time), [`schedule`] (the time of each request), [`mix`] (what
//! is asked for), [`replay`] (a recorded log), [`search`] (the highest rate), [`target`] (where load may go).
//!
//! How it is sent: [`session`] starts a [`worker`] on each thread, which sends over its [`fleet`] of connections what
//! [`work`] makes, woken by [`timer`]; [`server`] reads CPU times.
//!
//! What came of it: [`tally`] (histograms of each thread), [`collect`] (seconds put together), [`hlog`] (interval logs),
//! [`report`], [`sla`] (the verdict), [`merge`], [`compare`]; [`live`] shows it while it lasts, [`outputs`] afterwards.
//!
//! Beside all that, [`http`]: one plain HTTP query over and over, for what a certificate service can do.

mod args;
mod collect;
mod commands;
mod compare;
mod files;
mod fleet;
mod hlog;
mod http;
mod live;
mod merge;
mod mix;
mod outputs;
mod replay;
mod report;
mod schedule;
mod search;
mod server;
mod session;
mod shape;
mod sla;
mod tally;
mod target;
mod timer;
mod work;
mod worker;

use std::process::ExitCode;

use args::Command;
use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A reader that has gone away is no error of ours.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or("bad arguments");
            eprintln!("cinnabar-load: usage: {}", first.trim_start_matches("error: "));
            return ExitCode::from(2);
        }
    };
    let done = match &arguments.command {
        Command::Run(run) => commands::run(run),
        Command::FindMax(find) => commands::find_max(find),
        Command::Replay(replay) => commands::replay(replay),
        Command::Merge(merge) => commands::merge(merge),
        Command::Compare(compare) => commands::compare_reports(compare),
        Command::Closed(closed) => commands::closed(closed),
        Command::Http(arguments) => http::run(arguments),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(refusal) => {
            eprintln!("cinnabar-load: {refusal}");
            ExitCode::from(refusal.code.exit_code())
        }
    }
}
