//! Packages, statements, reconciliation and the service agreement on the command line. What only reads reads the data
//! folder itself, beside a running engine; what changes something goes where every change goes.

use std::io::BufWriter;
use std::path::Path;

use actors::{agreement, bill};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, TenantName};
use serde::Deserialize;
use sla::calendar::{MinuteIndex, Month, Span};
use sla::html::Language;
use store::{Contract, Directory, PackageKind, Reader, StoreError, Tenant, TenantState};

use super::operate::send;
use super::{print, print_json, print_line, read_file};
use crate::admin::ledger::{Circumstance, LedgerOrder};
use crate::admin::operator::Order;
use crate::args::{
    NoticeCommand, PackageCommand, ReconcileArguments, SlaCommand, StatementArguments, StatementFormat,
};
use crate::config::Config;

pub(super) fn failed(error: StoreError) -> Refusal {
    error.refusal()
}

fn order(config: &Config, order: LedgerOrder, text: &str) -> Result<(), Refusal> {
    send(config, Order::Ledger(order))?;
    print_line(text)
}

/// The data folder, for reading.
pub(super) struct Books {
    pub(super) reader: Reader,
    pub(super) directory: Directory,
}

impl Books {
    pub(super) fn open(config: &Config) -> Result<Self, Refusal> {
        let reader = Reader::beside(&config.home).map_err(failed)?;
        let directory = reader.directory(clock::wall()).map_err(failed)?;
        Ok(Self { reader, directory })
    }

    pub(super) fn tenant(&self, name: &TenantName) -> Result<std::sync::Arc<Tenant>, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("no tenant '{name}'"));
        self.directory.tenant(name.as_str()).ok_or_else(missing)
    }
}

pub(super) fn month(text: &str) -> Result<Month, Refusal> {
    bill::read_month(text, clock::wall())
}

/// A moment: a minute with its offset, or a day, which begins at midnight in Shanghai.
pub(super) fn moment(text: &str) -> Result<MinuteIndex, Refusal> {
    let minute = text.parse::<MinuteIndex>();
    minute
        .or_else(|_| format!("{text}T00:00+08:00").parse())
        .map_err(|_| {
            let text = format!("'{text}' is neither a day, YYYY-MM-DD, nor a minute, YYYY-MM-DDThh:mm+08:00");
            Refusal::new(Code::Usage, text)
        })
}

pub(super) fn millis(minute: MinuteIndex) -> u64 {
    u64::from(minute.number()) * 60_000
}

pub(super) fn set_state(config: &Config, tenant: TenantName, state: TenantState) -> Result<(), Refusal> {
    let text = format!("tenant {tenant} is {state:?}").to_lowercase();
    order(config, LedgerOrder::SetState { tenant, state }, &text)
}

pub(super) fn activate(config: &Config, tenant: TenantName, at: Option<String>) -> Result<(), Refusal> {
    let at_ms = match at {
        Some(text) => millis(moment(&text)?),
        None => clock::wall().0,
    };
    let text = format!(
        "tenant {tenant} is served from {}",
        bill::moment(UnixMillis(at_ms))
    );
    order(config, LedgerOrder::Activate { tenant, at_ms }, &text)
}

pub(super) fn bind(
    config: &Config,
    tenant: TenantName,
    policy: String,
    signed: String,
    clause: Option<String>,
) -> Result<(), Refusal> {
    let text = format!("tenant {tenant} is bound by {policy} as in force on {signed}");
    let bind = LedgerOrder::BindAgreement {
        tenant,
        policy,
        signed,
        clause,
    };
    order(config, bind, &text)
}

pub(super) fn set_contract(config: &Config, app: AppId, contract: Contract) -> Result<(), Refusal> {
    let text = format!("set the contract of app {app}");
    order(config, LedgerOrder::SetContract { app, contract }, &text)
}

/// The secret goes to standard output, once; until when the old one counts, to standard error.
pub(super) fn rotate_secret(config: &Config, app: AppId, overlap_days: u32) -> Result<(), Refusal> {
    let overlap_ms = u64::from(overlap_days) * 24 * 3_600_000;
    let answer = send(
        config,
        Order::Ledger(LedgerOrder::RotateSecret { app, overlap_ms }),
    )?;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    eprintln!("the old secret counts until {}", text("old_until"));
    print_line(&text("secret"))
}

/// `cinnabar package`.
pub(super) fn package(config: &Config, command: PackageCommand) -> Result<(), Refusal> {
    match command {
        PackageCommand::Grant {
            tenant,
            kind,
            units,
            activated,
            reference,
        } => {
            let activated_ms = activated.as_deref().map(moment).transpose()?.map(millis);
            let text = format!("granted a package '{kind}' to tenant {tenant}");
            let grant = LedgerOrder::Grant {
                tenant,
                kind,
                units,
                activated_ms,
                reference,
            };
            order(config, grant, &text)
        }
        PackageCommand::Correct {
            package,
            units,
            reason,
        } => {
            let text = format!("corrected package {package} by {units}");
            let correct = LedgerOrder::Correct {
                package,
                units,
                reason,
            };
            order(config, correct, &text)
        }
        PackageCommand::Use {
            tenant,
            unit,
            units,
            reference,
        } => {
            let text = format!("booked {units} for tenant {tenant}");
            let unit = unit.into();
            let wanted = LedgerOrder::Use {
                tenant,
                unit,
                units,
                reference,
            };
            order(config, wanted, &text)
        }
        PackageCommand::List { tenant } => {
            let books = Books::open(config)?;
            let tenant = books.tenant(&tenant)?;
            print_json(&bill::packages(&books.reader, &tenant, clock::wall()).map_err(failed)?)
        }
        PackageCommand::Kinds => print_json(&Books::open(config)?.reader.package_kinds().map_err(failed)?),
        PackageCommand::SetKinds { file } => set_kinds(config, &file),
    }
}

/// `[[package_kind]]` tables.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kinds {
    package_kind: Vec<PackageKind>,
}

fn set_kinds(config: &Config, file: &Path) -> Result<(), Refusal> {
    let refuse = |text: String| Refusal::new(Code::Usage, format!("{}: {text}", file.display()));
    let text = String::from_utf8(read_file(file)?).map_err(|_| refuse("not text".into()))?;
    let kinds: Kinds = toml::from_str(&text).map_err(|error| refuse(error.message().to_owned()))?;
    for kind in kinds.package_kind {
        let text = format!("set package kind '{}'", kind.name);
        order(config, LedgerOrder::SetKind { kind }, &text)?;
    }
    Ok(())
}

/// `cinnabar statement`.
pub(super) fn statement(config: &Config, arguments: &StatementArguments) -> Result<(), Refusal> {
    let books = Books::open(config)?;
    let tenant = books.tenant(&arguments.tenant)?;
    let month = month(&arguments.month)?;
    if arguments.format == StatementFormat::Items {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let written = bill::write_items(&mut out, &books.reader, &books.directory, &tenant, month);
        return match written {
            // Whoever reads may stop reading.
            Err(StoreError::File { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(failed),
        };
    }
    let made = bill::statement(&books.reader, &books.directory, &tenant, month, clock::wall());
    let made = made.map_err(failed)?;
    match arguments.format {
        StatementFormat::Csv => print(&made.to_csv()),
        _ => print_json(&made),
    }
}

/// `cinnabar reconcile`.
pub(super) fn reconcile(config: &Config, arguments: &ReconcileArguments) -> Result<(), Refusal> {
    let reader = Books::open(config)?.reader;
    let months = match &arguments.month {
        Some(text) => vec![bill::month_number(month(text)?)],
        None => reader.months().map_err(failed)?,
    };
    let mut found = reader.reconcile(&months).map_err(failed)?;
    crate::reconciler::add_leaves(&mut found, &reader, &config.audit_log(), None).map_err(failed)?;
    print_json(&found)?;
    if found.differences.is_empty() {
        return if arguments.thaw {
            thaw(config, &reader, &months)
        } else {
            Ok(())
        };
    }
    let reason = found
        .differences
        .first()
        .map(|first| format!("{}: {}", first.between, first.subject));
    let reason = reason.unwrap_or_default();
    for month in crate::reconciler::frozen_by(&found) {
        let reason = reason.clone();
        send(config, Order::Ledger(LedgerOrder::Freeze { month, reason }))?;
    }
    let text = format!(
        "{} differences; the statements are frozen",
        found.differences.len()
    );
    Err(Refusal::new(Code::DataCorrupt, text))
}

fn thaw(config: &Config, reader: &Reader, months: &[u32]) -> Result<(), Refusal> {
    for &month in months {
        if reader.frozen(month).map_err(failed)?.is_some() {
            send(config, Order::Ledger(LedgerOrder::Thaw { month }))?;
        }
    }
    Ok(())
}

/// `cinnabar sla`.
pub(super) fn sla(config: &Config, command: &SlaCommand) -> Result<(), Refusal> {
    let circumstance = |what, state: crate::args::Switch| {
        let on = state == crate::args::Switch::On;
        order(config, LedgerOrder::Circumstance { what, on }, "done")
    };
    match command {
        SlaCommand::Maintenance { state } => circumstance(Circumstance::Maintenance, *state),
        SlaCommand::Extension { state } => circumstance(Circumstance::Extension, *state),
        SlaCommand::Report {
            tenant,
            month: text,
            html,
            english,
            paper,
        } => {
            let books = Books::open(config)?;
            let tenant = books.tenant(tenant)?;
            let policies = sla::policy::Policy::builtin();
            let report =
                agreement::month_report(&books.reader, &tenant, month(text)?, &policies, clock::wall())?;
            let language = language(*english);
            if paper.pdf.is_some() {
                return super::paper::agreement(config, &report, language, paper);
            }
            if !html {
                return print_line(&report.to_json());
            }
            let page = sla::html::page(&report, language);
            print(&page.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?)
        }
    }
}

pub(super) const fn language(english: bool) -> Language {
    if english {
        Language::English
    } else {
        Language::Chinese
    }
}

/// `cinnabar notice`.
pub(super) fn notice(config: &Config, command: NoticeCommand) -> Result<(), Refusal> {
    match command {
        NoticeCommand::Create {
            id,
            from,
            to,
            text,
            replaces,
        } => {
            let window = Span {
                from: moment(&from)?,
                to: moment(&to)?,
            };
            let announce = LedgerOrder::Announce {
                id,
                window,
                text,
                replaces,
            };
            print_json(&send(config, Order::Ledger(announce))?)
        }
        NoticeCommand::List => print_json(&agreement::notices(&Books::open(config)?.reader)?),
    }
}
