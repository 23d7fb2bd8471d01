//! Commands about operators, incidents and messages.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use protocol::ids::{OperatorName, TenantName};

/// What an operator may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleName {
    /// Reads and changes the registry.
    Manage,
    /// Uses what others have set up.
    Use,
    /// Reads everything and changes nothing.
    Audit,
}

impl From<RoleName> for store::OperatorRole {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Manage => Self::Manage,
            RoleName::Use => Self::Use,
            RoleName::Audit => Self::Audit,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Makes an operator. Roles are kept apart: each has one.
    Create {
        /// Its name.
        name: OperatorName,
        /// What it may do.
        #[arg(long, value_enum)]
        role: RoleName,
        /// TLS client certificate, PEM; without it, it logs in by links.
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
    },
    /// Prints a link that logs an operator in at the console, once. Needs a running engine.
    Login {
        /// Its name.
        name: OperatorName,
    },
    /// Lets an operator in no more; its sessions are over at once.
    Disable {
        /// Its name.
        name: OperatorName,
    },
    /// Lets a disabled operator in again.
    Enable {
        /// Its name.
        name: OperatorName,
    },
    /// Lists the operators.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProposalCommand {
    /// Lists what waits for a second operator, and what has waited.
    List,
    /// Approves a proposal, which carries it out, and prints the result. Asks the console.
    Approve(Decided),
    /// Rejects a proposal, or takes one's own back. Asks the console.
    Reject(Decided),
}

/// A proposal, and who decides it.
#[derive(Debug, Args)]
pub(crate) struct Decided {
    /// Its name; only its own characters, so that it cannot name another path.
    #[arg(value_parser = proposal_id)]
    pub(crate) id: String,
    /// The operator's TLS client certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM (PKCS#8).
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
}

fn proposal_id(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id
        .then(|| text.to_owned())
        .ok_or_else(|| "not the name of a proposal".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum IncidentCommand {
    /// Opens an incident; its clocks run from when it began.
    Open {
        /// Its name.
        id: String,
        /// Its grade under the agreement; 1 is the gravest.
        #[arg(long)]
        grade: u8,
        /// What happened.
        #[arg(long)]
        text: String,
        /// When it began: YYYY-MM-DDThh:mm+08:00 [default: now].
        #[arg(long, value_name = "TIME")]
        began: Option<String>,
    },
    /// Says that somebody works on it: the first clock stops.
    Respond {
        /// Its name.
        id: String,
        /// When [default: now].
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Says that it is repaired: the second clock stops.
    Repair {
        /// Its name.
        id: String,
        /// When [default: now].
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Closes it; nothing about it changes any more.
    Close {
        /// Its name.
        id: String,
        /// When [default: now].
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Lists the incidents, the last to begin first.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Sets where messages go, and prints the secret that signs them, once.
    Set {
        /// Whose; without it, the operators'.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// An https URL at a public address.
        url: String,
    },
    /// Removes a webhook.
    Remove {
        /// Whose; without it, the operators'.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
    /// Lists the webhooks.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Lists the newest messages: state, attempts, how the last one failed.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertCommand {
    /// Lists what is wrong now. Needs a running engine.
    List,
    /// Sends the operators a message about nothing. Needs a running engine.
    Test,
}
