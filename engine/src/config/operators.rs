//! Settings of the operators' side: the console, what needs two operators, messages to the outside, and where data lies.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use protocol::error_code::Refusal;
use serde::{Deserialize, Serialize};
use store::audit::WitnessKey;
use url::Url;

use super::{Spec, usage};
use crate::admin::control::{self, Control};

/// A place where data or backups lie, `[[location]]` in the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Location {
    /// What lies there.
    pub(crate) holds: Holds,
    /// Where it is, in words: city, data centre.
    pub(crate) place: String,
    /// The country, ISO 3166-1 alpha-2.
    pub(crate) country: String,
    /// How many copies lie there.
    pub(crate) copies: u32,
}

/// What lies at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Holds {
    /// What the engine works with.
    Data,
    /// Backups of it.
    Backup,
}

/// The console.
#[derive(Clone, Debug)]
pub(crate) struct ConsoleConfig {
    pub(crate) address: SocketAddr,
    /// Names under which it is reached, beside its own address and `localhost`.
    pub(crate) names: Vec<String>,
    /// Actions that need two operators.
    pub(crate) dual_control: BTreeSet<String>,
    /// How long a proposal waits.
    pub(crate) proposal_ms: u64,
}

impl ConsoleConfig {
    /// What needs two operators.
    pub(crate) fn control(&self) -> Control {
        Control {
            dual: self.dual_control.clone(),
            proposal_ms: self.proposal_ms,
        }
    }
}

/// E-mail to operators.
#[derive(Clone, Debug)]
pub(crate) struct EmailConfig {
    /// The relay, as lettre reads it: `smtps://relay`, `smtp://relay?tls=required`, `smtp://relay`.
    pub(crate) relay: String,
    /// User name, and the file that holds the password.
    pub(crate) login: Option<(String, PathBuf)>,
    pub(crate) from: Mailbox,
    pub(crate) to: Vec<Mailbox>,
}

/// Messages to the outside.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingConfig {
    /// How long a message is tried.
    pub(crate) give_up_ms: u64,
    /// CA certificates beside the system's.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) email: Option<EmailConfig>,
}

/// Checks the settings of the console.
pub(super) fn console(spec: &Spec) -> Result<ConsoleConfig, Refusal> {
    for action in &spec.dual_control {
        if !control::ACTIONS.contains(&action.as_str()) {
            let known = control::ACTIONS.join(", ");
            return Err(usage(format!(
                "configuration: dual_control: no action is called '{action}'; there are {known}"
            )));
        }
    }
    if spec.proposal_hours == 0 {
        return Err(usage("configuration: proposal_hours is at least 1"));
    }
    Ok(ConsoleConfig {
        address: spec.console,
        names: spec
            .console_names
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
        dual_control: spec.dual_control.iter().cloned().collect(),
        proposal_ms: u64::from(spec.proposal_hours) * 3_600_000,
    })
}

/// Checks the settings of messages to the outside.
pub(super) fn outgoing(spec: &Spec) -> Result<OutgoingConfig, Refusal> {
    if spec.outgoing_give_up_s == 0 {
        return Err(usage("configuration: outgoing_give_up_s is at least 1"));
    }
    Ok(OutgoingConfig {
        give_up_ms: u64::from(spec.outgoing_give_up_s) * 1_000,
        ca: spec.outgoing_ca.clone(),
        email: email(spec)?,
    })
}

fn email(spec: &Spec) -> Result<Option<EmailConfig>, Refusal> {
    let (Some(relay), Some(from)) = (&spec.smtp, &spec.email_from) else {
        return if spec.smtp.is_none() && spec.email_from.is_none() && spec.email_to.is_empty() {
            Ok(None)
        } else {
            Err(usage(
                "configuration: smtp, email_from and email_to belong together",
            ))
        };
    };
    if spec.email_to.is_empty() {
        return Err(usage(
            "configuration: smtp, email_from and email_to belong together",
        ));
    }
    let mailbox = |text: &String| {
        let parsed = text.parse::<Mailbox>();
        parsed.map_err(|error| usage(format!("configuration: '{text}' is no e-mail address: {error}")))
    };
    let url = Url::parse(relay).map_err(|error| usage(format!("configuration: smtp: {error}")))?;
    if url.password().is_some() {
        return Err(usage(
            "configuration: smtp: the password belongs into smtp_password_file, not into the URL",
        ));
    }
    let login = match (&spec.smtp_user, &spec.smtp_password_file) {
        (Some(user), Some(file)) => Some((user.clone(), file.clone())),
        (None, None) => None,
        _ => {
            return Err(usage(
                "configuration: smtp_user and smtp_password_file belong together",
            ));
        }
    };
    Ok(Some(EmailConfig {
        relay: relay.clone(),
        login,
        from: mailbox(from)?,
        to: spec.email_to.iter().map(mailbox).collect::<Result<_, _>>()?,
    }))
}

/// A witness of the audit log, `[[witness]]` in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WitnessSpec {
    /// Its public key, `NAME+ID+BASE64` (c2sp.org/tlog-cosignature).
    key: String,
    /// Its submission prefix (c2sp.org/tlog-witness): what stands before `/add-checkpoint`.
    url: String,
}

/// Who vouches for checkpoints of the audit log.
#[derive(Clone, Debug)]
pub(crate) struct VouchersConfig {
    /// Keys, and where they are asked.
    pub(crate) witnesses: Vec<(WitnessKey, String)>,
    pub(crate) every: Duration,
    pub(crate) tsa: Option<TsaConfig>,
}

/// An authority that stamps checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct TsaConfig {
    pub(crate) url: String,
    /// CA certificates, PEM.
    pub(crate) ca: PathBuf,
    pub(crate) every: Duration,
}

/// Checks who vouches for the audit log.
pub(super) fn vouchers(spec: &Spec) -> Result<VouchersConfig, Refusal> {
    if spec.witness_every_s == 0 || spec.audit_tsa_every_s == 0 {
        return Err(usage(
            "configuration: witness_every_s and audit_tsa_every_s are at least 1",
        ));
    }
    let witness = |witness: &WitnessSpec| {
        let wrong = |error| usage(format!("configuration: witness '{}': {error}", witness.key));
        let key = witness.key.parse::<WitnessKey>().map_err(wrong)?;
        Ok((
            key,
            format!("{}/add-checkpoint", witness.url.trim_end_matches('/')),
        ))
    };
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    let tsa = match (&spec.audit_tsa, &spec.audit_tsa_ca) {
        (Some(url), Some(ca)) => Some(TsaConfig {
            url: url.clone(),
            ca: ca.clone(),
            every: seconds(spec.audit_tsa_every_s),
        }),
        (None, None) => None,
        _ => return Err(usage("configuration: audit_tsa and audit_tsa_ca belong together")),
    };
    Ok(VouchersConfig {
        witnesses: spec.witness.iter().map(witness).collect::<Result<_, Refusal>>()?,
        every: seconds(spec.witness_every_s),
        tsa,
    })
}

/// Checks what is said of where data lies.
pub(super) fn locations(spec: &Spec) -> Result<Vec<Location>, Refusal> {
    for location in &spec.location {
        let is_country =
            location.country.len() == 2 && location.country.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_country {
            return Err(usage(format!(
                "configuration: location '{}': country is two capital letters, not '{}'",
                location.place, location.country
            )));
        }
        if location.copies == 0 {
            return Err(usage(format!(
                "configuration: location '{}': copies is at least 1",
                location.place
            )));
        }
    }
    Ok(spec.location.clone())
}
