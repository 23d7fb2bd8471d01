//! `cinnabar-load`: load with a constant arrival rate that does not slow down when the server does, latencies from the
//! moment each request was meant to leave, and a verdict against the SLA. It knows the engine only as any client does.
//!
//! - [`schedule`]: when each request is meant to leave. Pure.
//! - [`run`]: sends them, and never waits for an answer before sending the next.
//! - [`work`]: what is sent, and the check of what comes back.
//! - [`report`]: histograms, errors by code, the verdict.
//! - [`server`]: the server's own CPU time, where its metrics can be read.

mod args;
mod report;
mod run;
mod schedule;
mod server;
mod work;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use protocol::error_code::Refusal;

/// The run was done and the SLA was not kept.
const NOT_KEPT: u8 = 1;

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
            eprintln!(
                "cinnabar-load: usage: {}",
                text.lines().next().unwrap_or("bad arguments")
            );
            return ExitCode::from(2);
        }
    };
    let args::Command::Run(plan) = arguments.command;
    match run_plan(&plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_KEPT),
        Err(refusal) => {
            eprintln!("cinnabar-load: {refusal}");
            ExitCode::from(refusal.code.exit_code())
        }
    }
}

/// Runs a plan and shows its report. True: the SLA was kept.
fn run_plan(plan: &args::Plan) -> Result<bool, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| report::failed("runtime", error))?;
    let report = runtime.block_on(run::run(plan))?;
    print!("{report}");
    if let Some(path) = &plan.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| report::failed("JSON", error))?;
        std::fs::write(path, text + "\n")
            .map_err(|error| report::failed(&path.display().to_string(), error))?;
    }
    Ok(report.kept)
}
