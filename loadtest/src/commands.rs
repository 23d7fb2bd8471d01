//! What each command does: the parts put in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::error_code::{Code, Refusal};

use crate::args::{Closed, Common, Compare, FindMax, Load as LoadArgs, Merge, Outputs, Replay, Run, Share};
use crate::compare::{Tolerance, compare};
use crate::files;
use crate::live::Live;
use crate::merge;
use crate::mix::Mix;
use crate::outputs::{self, html};
use crate::replay;
use crate::report::Report;
use crate::schedule::Schedule;
use crate::search::{Effort, Limit, Search, Step, Trial};
use crate::session::{Load, Session};
use crate::shape::{Outline, ShapeName};
use crate::sla::{Sla, Verdict};
use crate::target;

/// A load that is all its own.
const ALONE: Share = Share { which: 0, of: 1 };
/// Loads that a search may need, for the question what it may cost.
const TRIALS: u64 = 30;

/// Sends one load. The exit code.
pub(crate) fn run(run: &Run) -> Result<u8, Refusal> {
    let outline = Outline {
        shape: run.shape,
        rate: run.load.rate,
        to: run.to,
        steps: run.steps,
        length: run.duration,
    };
    let phases = outline
        .phases()
        .map_err(|error| Refusal::new(Code::Usage, error.to_string()))?;
    let schedule = Schedule::shaped(run.load.warm_up, &phases, run.load.arrivals, run.load.seed);
    let load = Load {
        name: format!("{} load, {:.0} s", run.shape.name(), run.duration.as_secs_f64()),
        phases: phases
            .iter()
            .map(|phase| (phase.name.clone(), phase.length.as_secs_f64()))
            .collect(),
        share: run.agent,
        start_at: run.start_at,
        schedule,
    };
    let mix = mix(&run.common, &run.load)?;
    one_load(&run.common, &mix, &load, &run.outputs, run.shape.name())
}

/// Keeps as many requests in flight as were asked for. The exit code. What a server can do shows so, and not how long its
/// callers would wait: one that stalls is not asked meanwhile.
pub(crate) fn closed(arguments: &Closed) -> Result<u8, Refusal> {
    let common = Common {
        open_max: arguments.in_flight,
        ..arguments.common.clone()
    };
    let mix = Mix::read(&common, &arguments.credential, None)?;
    need_profile(&mix)?;
    let load = Load {
        name: format!("{} requests in flight", arguments.in_flight),
        schedule: Schedule::closed(arguments.warm_up, arguments.duration),
        phases: vec![("closed".into(), arguments.duration.as_secs_f64())],
        share: ALONE,
        start_at: None,
    };
    one_load(&common, &mix, &load, &arguments.outputs, "closed")
}

/// Sends a recorded log. The exit code.
pub(crate) fn replay(arguments: &Replay) -> Result<u8, Refusal> {
    let common = &arguments.common;
    let mut mix = Mix::of_profiles(&common.profile)?;
    need_profile(&mix)?;
    let log = replay::read(common, &mut mix, &arguments.log, arguments.speed)?;
    let schedule = Schedule::recorded(log);
    let load = Load {
        name: format!("replay of {}", arguments.log.display()),
        phases: vec![("replay".into(), schedule.length().as_secs_f64())],
        share: ALONE,
        start_at: None,
        schedule,
    };
    one_load(common, &mix, &load, &arguments.outputs, "replay")
}

fn mix(common: &Common, load: &LoadArgs) -> Result<Mix, Refusal> {
    let mix = Mix::read(common, &load.credential, load.mix.as_deref())?;
    need_profile(&mix)?;
    Ok(mix)
}

fn need_profile(mix: &Mix) -> Result<(), Refusal> {
    if mix.profiles.is_empty() {
        return Err(Refusal::new(Code::Usage, "no --profile is given"));
    }
    Ok(())
}

fn read_sla(path: Option<&Path>) -> Result<Sla, Refusal> {
    Ok(path.map(files::read_toml).transpose()?.unwrap_or_default())
}

/// A first interrupt ends the load early and reports what came until then; a second ends the tool.
fn on_interrupt() -> Result<Arc<AtomicBool>, Refusal> {
    let stop = Arc::new(AtomicBool::new(false));
    let signal = signal_hook::consts::SIGINT;
    signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
        .map_err(|error| files::failed("signals", error))?;
    Ok(stop)
}

/// Signatures a number of requests may ask for, at most.
fn signatures(mix: &Mix, requests: u64) -> u64 {
    let most = mix.classes.iter().map(|class| u64::from(class.batch)).max();
    requests.saturating_mul(most.unwrap_or(1))
}

fn open(
    common: &Common,
    mix: &Mix,
    outputs: &Outputs,
    requests: u64,
) -> Result<(Session, Arc<AtomicBool>), Refusal> {
    target::agree(
        &mix.profiles,
        &common.allow_target,
        signatures(mix, requests),
        common.yes,
    )?;
    let stop = on_interrupt()?;
    let mut session = Session::open(common, mix, Arc::clone(&stop))?;
    if let Some(path) = outputs.path(outputs.hlog.as_ref(), "hlog") {
        session.log_to(path, &outputs.title);
    }
    Ok((session, stop))
}

fn one_load(common: &Common, mix: &Mix, load: &Load, outputs: &Outputs, shape: &str) -> Result<u8, Refusal> {
    let sla = read_sla(common.sla.as_deref())?;
    let (mut session, _) = open(common, mix, outputs, load.schedule.requests() / load.share.of)?;
    let mut live = Live::new(common.progress);
    let sent = session.send(load, &mut live);
    live.end();
    let mut report = sent?;
    report.metered = session.close()?;
    finish(report, &sla, outputs, shape)
}

/// Judges a report, shows it, and writes it down.
fn finish(mut report: Report, sla: &Sla, outputs: &Outputs, shape: &str) -> Result<u8, Refusal> {
    sla.judge(&mut report);
    outputs.title.clone_into(&mut report.run.title);
    shape.clone_into(&mut report.run.shape);
    env!("CARGO_PKG_VERSION").clone_into(&mut report.run.version);
    print!("{report}");
    outputs::write(outputs, &report)?;
    Ok(report.verdict.exit_code())
}

/// Searches for the highest rate that keeps the SLA. The exit code: 0 when one was found that the SLA limits, 1 when
/// no rate keeps it, 5 when the generator stood in the way and the maximum is at least what was found.
pub(crate) fn find_max(arguments: &FindMax) -> Result<u8, Refusal> {
    let common = &arguments.common;
    let mix = mix(common, &arguments.load)?;
    let sla = read_sla(common.sla.as_deref())?;
    let longest = (arguments.duration + arguments.load.warm_up).as_secs_f64() * arguments.highest;
    let (mut session, stop) = open(
        common,
        &mix,
        &arguments.outputs,
        (longest as u64).saturating_mul(TRIALS),
    )?;
    let mut live = Live::new(common.progress);
    let searched = search(arguments, &sla, &mut session, &mut live, &stop);
    live.end();
    let (mut report, trials, found) = searched?;
    report.metered = session.close()?;
    report.trials = trials;
    report.maximum = found;
    finish(report, &sla, &arguments.outputs, "find-max")?;
    Ok(match found {
        Some(maximum) if maximum.limited_by == Limit::Generator => Verdict::Invalid.exit_code(),
        Some(maximum) if maximum.rate > 0.0 => Verdict::Kept.exit_code(),
        _ => Verdict::NotKept.exit_code(),
    })
}

type Found = (Report, Vec<Trial>, Option<crate::search::Maximum>);

/// The report of the last trial at the best rate, every trial, and the answer, if the search was not interrupted.
fn search(
    arguments: &FindMax,
    sla: &Sla,
    session: &mut Session,
    live: &mut Live,
    stop: &AtomicBool,
) -> Result<Found, Refusal> {
    let mut search = Search::new(Effort {
        start: arguments.load.rate,
        highest: arguments.highest,
        tolerance: arguments.tolerance,
        confirmations: arguments.confirm,
    });
    let mut trials = Vec::new();
    let mut reports: Vec<(f64, Report)> = Vec::new();
    let mut timeline = Vec::new();
    let found = loop {
        let rate = match search.step() {
            Step::Done(maximum) => break Some(maximum),
            Step::Try(_) if stop.load(Ordering::Relaxed) => break None,
            Step::Try(rate) => rate,
        };
        let mut report = session.send(&trial_load(arguments, rate)?, live)?;
        sla.judge(&mut report);
        timeline.append(&mut report.timeline);
        let trial = tried(rate, &report);
        live.say(&format!(
            "{rate:.0}/s: {}   {}",
            report.verdict.words(),
            report.latency_ms
        ));
        if !report.run.interrupted {
            search.learn(rate, trial.failed_by);
        }
        trials.push(trial);
        // The report shown is the last at the best rate; those at other rates are told by their trials.
        reports.retain(|(known, _)| *known != rate);
        reports.push((rate, report));
    };
    let best = found.map_or(0.0, |maximum| maximum.rate);
    let at = reports.iter().position(|(rate, _)| *rate == best);
    let at = at.or(reports.len().checked_sub(1));
    let mut report = at
        .map(|at| reports.swap_remove(at).1)
        .ok_or_else(|| Refusal::new(Code::Usage, "interrupted"))?;
    report.timeline = timeline;
    Ok((report, trials, found))
}

fn tried(rate: f64, report: &Report) -> Trial {
    Trial {
        rate,
        failed_by: match report.verdict {
            Verdict::Kept => None,
            Verdict::NotKept => Some(Limit::Sla),
            Verdict::Invalid => Some(Limit::Generator),
        },
        signatures_per_second: report.signatures_per_second,
        missing_share: report.missing_share(),
        latency_ms: report.latency_ms,
    }
}

fn trial_load(arguments: &FindMax, rate: f64) -> Result<Load, Refusal> {
    let outline = Outline {
        shape: ShapeName::Constant,
        rate,
        to: None,
        steps: 0,
        length: arguments.duration,
    };
    let phases = outline
        .phases()
        .map_err(|error| Refusal::new(Code::Usage, error.to_string()))?;
    let load = &arguments.load;
    Ok(Load {
        name: format!("trying {rate:.0}/s"),
        schedule: Schedule::shaped(load.warm_up, &phases, load.arrivals, load.seed),
        phases: vec![("constant".into(), arguments.duration.as_secs_f64())],
        share: ALONE,
        start_at: None,
    })
}

/// Adds up reports. The exit code.
pub(crate) fn merge(arguments: &Merge) -> Result<u8, Refusal> {
    let (report, seconds) = merge::merge(&arguments.reports)?;
    let sla = match &arguments.sla {
        Some(path) => read_sla(Some(path))?,
        None => report.sla.clone(),
    };
    let outputs = &arguments.outputs;
    if let Some(path) = outputs.path(outputs.hlog.as_ref(), "hlog") {
        merge::write_log(&path, &outputs.title, &report, &seconds)?;
    }
    let shape = report.run.shape.clone();
    finish(report, &sla, outputs, &shape)
}

/// Holds one report against another. The exit code.
pub(crate) fn compare_reports(arguments: &Compare) -> Result<u8, Refusal> {
    let before = merge::read_report(&arguments.before)?;
    let after = merge::read_report(&arguments.after)?;
    let tolerance = Tolerance {
        ratio: arguments.threshold,
        noise_ms: arguments.noise_ms,
    };
    let comparison = compare(&before, &after, tolerance);
    print!("{comparison}");
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&comparison).map_err(|error| files::failed("JSON", error))?;
        files::write(path, text + "\n")?;
    }
    if let Some(path) = &arguments.html {
        let page = html::comparison_page(&before, &after, &comparison, arguments.language);
        files::write(path, page.map_err(|error| files::failed("report", error))?)?;
    }
    Ok(comparison.exit_code())
}
