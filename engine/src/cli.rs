//! The command line: each command a file of its own, every error one line with a stable code.

mod answers;
mod ask;
pub(crate) mod at;
mod audit;
mod cert;
mod console;
mod content;
mod device;
mod evidence;
mod fetch;
mod journal;
mod keep;
mod key;
mod latency;
mod ledger;
mod operate;
mod operators;
mod order;
mod paper;
mod seal;
mod seal_source;
mod seals;
mod sign;
mod steps;
mod subject;
mod tsa;
mod verify;
mod verify_documents;

pub(crate) use verify::read_anchors;

use std::io::Write;

use protocol::error_code::{Code, Refusal};

use crate::args::{Arguments, Command, ConfigCommand, JournalCommand};
use crate::{config, serve, telemetry};

/// Runs a command.
pub(crate) fn run(arguments: Arguments) -> Result<(), Refusal> {
    let layers = arguments.settings.layers();
    match arguments.command {
        Command::Serve { dev } => {
            let config = config::load(&layers)?;
            telemetry::start(&config.log, config.log_format, &config.home, config.log_days)?;
            let served = serve::serve(config, layers, dev);
            telemetry::stop();
            served
        }
        Command::Init => operate::init(&config::load(&layers)?),
        Command::Config {
            command: ConfigCommand::Print,
        } => print(&config::print(&layers)?),
        Command::Sign(arguments) => block_on(sign::run(arguments)),
        Command::Seal(arguments) => block_on(seal::run(arguments)),
        Command::Prepare(arguments) => block_on(steps::prepare(arguments)),
        Command::Assemble(arguments) => steps::assemble(&arguments),
        Command::Verify(arguments) => block_on(verify::run(arguments)),
        Command::Credentials(arguments) => block_on(ask::credentials(arguments)),
        Command::Usage(arguments) => block_on(ask::usage(arguments)),
        Command::Lookup {
            ask,
            idempotency_key,
            proof,
        } => match proof {
            true => block_on(ask::look_up_proved(ask, idempotency_key)),
            false => block_on(ask::look_up(ask, idempotency_key)),
        },
        Command::Tenant { command } => operate::tenant(&config::load(&layers)?, command),
        Command::App { command } => operate::app(&config::load(&layers)?, command),
        Command::Device { command } => device::run(&config::load(&layers)?, command),
        Command::Latency { command } => latency::run(&config::load(&layers)?, command),
        Command::Key { command } => key::run(&config::load(&layers)?, command),
        Command::Package { command } => ledger::package(&config::load(&layers)?, command),
        Command::Statement(arguments) => match &arguments.paper.pdf {
            Some(_) => paper::statement(&config::load(&layers)?, &arguments),
            None => ledger::statement(&config::load(&layers)?, &arguments),
        },
        Command::Reconcile(arguments) => ledger::reconcile(&config::load(&layers)?, &arguments),
        Command::Sla { command } => ledger::sla(&config::load(&layers)?, &command),
        Command::Notice { command } => ledger::notice(&config::load(&layers)?, command),
        Command::Operator { command } => operators::operator(&config::load(&layers)?, command),
        Command::Proposal { command } => operators::proposal(&config::load(&layers)?, command),
        Command::Incident { command } => operators::incident(&config::load(&layers)?, command),
        Command::Webhook { command } => operators::webhook(&config::load(&layers)?, command),
        Command::Message { command } => operators::message(&config::load(&layers)?, &command),
        Command::Alert { command } => operators::alert(&config::load(&layers)?, &command),
        Command::Ca { command } => cert::authority(&config::load(&layers)?, command),
        Command::Tsa { command } => block_on(tsa::run(command)),
        Command::Cert { command } => cert::certificate(&config::load(&layers)?, command),
        Command::Subject { command } => subject::run(&config::load(&layers)?, command),
        Command::Seals { command } => seals::seals(&config::load(&layers)?, command),
        Command::Grants { command } => seals::grants(&config::load(&layers)?, command),
        Command::Audit { command } => audit::run(&layers, command),
        Command::Journal {
            command: JournalCommand::Check,
        } => journal::check(&config::load(&layers)?),
        Command::Journal {
            command: JournalCommand::Export,
        } => journal::export(&config::load(&layers)?),
        Command::Backup { to } => keep::backup(&config::load(&layers)?, &to),
        Command::Restore(arguments) => keep::restore(&config::load(&layers)?, &arguments),
        Command::Archive { command } => keep::archive(&config::load(&layers)?, &command),
        Command::Recover { accept_loss } => journal::recover(&config::load(&layers)?, accept_loss),
        Command::Rehearse { part, core, ms } => operate::rehearse(&config::load(&layers)?, part, core, ms),
        Command::HsmWorker => hsm_pool::device::worker::main()
            .map_err(|error| Refusal::new(Code::DeviceFailed, error.to_string())),
    }
}

fn block_on<T>(command: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Refusal::new(Code::Internal, format!("runtime: {error}")))?;
    runtime.block_on(command)
}

/// Writes to standard output. A reader that has gone away is no error of ours.
fn print(text: &str) -> Result<(), Refusal> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Refusal::new(Code::File, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn print_line(text: &str) -> Result<(), Refusal> {
    print(&format!("{text}\n"))
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Refusal> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Refusal::new(Code::Internal, format!("JSON: {error}")))?;
    print_line(&text)
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, Refusal> {
    std::fs::read(path).map_err(|error| Refusal::new(Code::File, format!("{}: {error}", path.display())))
}
