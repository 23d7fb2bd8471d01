//! The command line.

pub(crate) mod documents;
pub(crate) mod operators;
pub(crate) mod seals;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::algorithm::{Algorithm, Format, Hash, KeyKind};
use protocol::client::Transport;
use protocol::ids::{AppId, AuthorityName, CredentialId, IdempotencyKey, SubjectId, TenantName};

use self::documents::{
    AssembleArguments, EvidenceOptions, PrepareArguments, SealArguments, Signed, VerifyArguments,
};
use self::operators::{
    AlertCommand, IncidentCommand, MessageCommand, OperatorCommand, ProposalCommand, WebhookCommand,
};
use self::seals::{GrantsCommand, SealsCommand};
use crate::admin::certificates::NewRole;
use crate::config::Layers;

/// Cinnabar: a signing engine that keeps its promises.
#[derive(Debug, Parser)]
#[command(name = "cinnabar", version, about, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Settings that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Configuration file [default: cinnabar.toml, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder.
    #[arg(long, global = true, value_name = "FOLDER")]
    home: Option<String>,
    /// Address for QUIC (UDP) and HTTPS (TCP).
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address for /livez, /readyz and /metrics.
    #[arg(long, global = true, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Address for time stamps, OCSP and revocation lists.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pki: Option<String>,
    /// Address of the console: HTTPS for operators.
    #[arg(long, global = true, value_name = "ADDRESS")]
    console: Option<String>,
    /// Any other setting, as KEY=VALUE (`cinnabar config print` lists them).
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Settings {
    pub(crate) fn layers(&self) -> Layers {
        let named = [
            ("home", &self.home),
            ("listen", &self.listen),
            ("admin", &self.admin),
            ("pki", &self.pki),
            ("console", &self.console),
        ];
        let named = named
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        Layers {
            file: self.config.clone(),
            flags: self.set.iter().cloned().chain(named).collect(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the engine.
    Serve {
        /// Make a development CA, a tenant, an app and credentials; loopback only.
        #[arg(long)]
        dev: bool,
    },
    /// Makes the data folder and a master key, and nothing else.
    Init,
    /// Shows the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Signs a file or a digest.
    Sign(SignArguments),
    /// Seals a PDF or an OFD. The document stays here: what is sent to be signed is a digest.
    Seal(SealArguments),
    /// Prepares a sealing: writes what has to be signed, and nothing of the document.
    Prepare(PrepareArguments),
    /// Takes the answer of `sign --state` into the document, or tells what is needed next.
    Assemble(AssembleArguments),
    /// Checks a signature, or all signatures of a PDF, without the engine's help.
    Verify(VerifyArguments),
    /// Lists the credentials of the profile's app.
    Credentials(AskArguments),
    /// Shows what the profile's app has used.
    Usage(AskArguments),
    /// Shows what became of an earlier call.
    Lookup {
        #[command(flatten)]
        ask: AskArguments,
        /// The call's idempotency key.
        #[arg(long)]
        idempotency_key: IdempotencyKey,
        /// Print JSON with proofs that the journal entries are in the audit log. Over HTTPS.
        #[arg(long)]
        proof: bool,
    },
    /// Makes and lists tenants.
    Tenant {
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Makes, revokes and lists apps.
    App {
        #[command(subcommand)]
        command: AppCommand,
    },
    /// Makes, disables and lists keys and their credentials.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Makes and lists certificate authorities, time-stamping authorities and OCSP responders.
    Ca {
        #[command(subcommand)]
        command: CaCommand,
    },
    /// Has a time stamp made, verifies one, shows an app's token for time stamps.
    Tsa {
        #[command(subcommand)]
        command: TsaCommand,
    },
    /// Issues, renews, imports, lists, suspends, resumes and revokes certificates.
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Subjects whose identities are checked before they are certified.
    Subject {
        #[command(subcommand)]
        command: SubjectCommand,
    },
    /// Seals from draft to revocation, and the signatures under them.
    Seals {
        #[command(subcommand)]
        command: SealsCommand,
    },
    /// Grants: which app, or agent, may use which seal, how often, and on what.
    Grants {
        #[command(subcommand)]
        command: GrantsCommand,
    },
    /// Lists, calibrates, drains, resumes, adds and removes devices of a running engine.
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// Shows where a running engine's requests spend their time.
    Latency {
        #[command(subcommand)]
        command: LatencyCommand,
    },
    /// Grants, corrects, books and lists packages.
    Package {
        #[command(subcommand)]
        command: PackageCommand,
    },
    /// Makes a tenant's statement of a month, from the journal.
    Statement(StatementArguments),
    /// Holds the journal against ledger and usage counters; a difference freezes the statements.
    Reconcile(ReconcileArguments),
    /// Reports on the service agreement, and says what it has to know.
    Sla {
        #[command(subcommand)]
        command: SlaCommand,
    },
    /// Publishes and lists notices of maintenance.
    Notice {
        #[command(subcommand)]
        command: NoticeCommand,
    },
    /// Verifies the audit log, proves what is in it, takes out evidence, erases.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Makes, disables and lists operators, and lets them log in.
    Operator {
        #[command(subcommand)]
        command: OperatorCommand,
    },
    /// Lists what waits for a second operator.
    Proposal {
        #[command(subcommand)]
        command: ProposalCommand,
    },
    /// Opens, answers, repairs, closes and lists incidents.
    Incident {
        #[command(subcommand)]
        command: IncidentCommand,
    },
    /// Sets, removes and lists webhooks.
    Webhook {
        #[command(subcommand)]
        command: WebhookCommand,
    },
    /// Lists messages to the outside.
    Message {
        #[command(subcommand)]
        command: MessageCommand,
    },
    /// Lists what is wrong now, and tries whether alerts arrive.
    Alert {
        #[command(subcommand)]
        command: AlertCommand,
    },
    /// Checks and exports the journal.
    Journal {
        #[command(subcommand)]
        command: JournalCommand,
    },
    /// Copies the data folder while it is in use: database, key index, archives, and a sealed manifest.
    Backup {
        /// A folder that does not exist yet, or is empty.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
    },
    /// Makes a new data folder of a backup. No number of the lost one is used again.
    Restore(RestoreArguments),
    /// Puts months that are older than `retention_months` into files, lists and checks them.
    Archive {
        #[command(subcommand)]
        command: ArchiveCommand,
    },
    /// Opens a store whose last entries are missing.
    Recover {
        /// Accept that they are missing; this is itself recorded.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Makes a part of a running development engine fail, to see it come back.
    Rehearse {
        /// What shall panic or end.
        #[arg(value_enum)]
        part: Part,
        /// Which core, for `shard` and `core`.
        #[arg(long, default_value_t = 0)]
        core: u16,
        /// How long, in milliseconds, for `disk`.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
        ms: u64,
    },
    /// What the engine runs for each worker process of a device; not for people.
    #[command(hide = true)]
    HsmWorker,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Part {
    /// A core's shard actor panics.
    Shard,
    /// The metering actor panics.
    Metering,
    /// A core's thread ends, with all its connections.
    Core,
    /// The journal's disk does not answer for a while.
    Disk,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Prints every value and where it came from.
    Print,
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

/// What reaches the engine as a client.
#[derive(Clone, Debug, Args)]
pub(crate) struct AskArguments {
    /// Client profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: PathBuf,
    /// Which way to go.
    #[arg(long, value_enum, default_value = "quic")]
    pub(crate) transport: TransportName,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A file or a digest.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Content {
    /// A digest in hexadecimal; for SM2 this is e = SM3(Z ‖ M).
    #[arg(long, value_name = "HEX")]
    pub(crate) digest: Option<String>,
    /// A file: hashed here, or sent whole where the algorithm signs messages.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SignArguments {
    /// Client profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: PathBuf,
    /// The credential to sign with.
    #[arg(long, value_name = "ID", required_unless_present = "state")]
    pub(crate) credential: Option<String>,
    #[command(flatten)]
    pub(crate) what: Signed,
    /// How to sign [default: the credential's first algorithm].
    #[arg(long)]
    pub(crate) algorithm: Option<Algorithm>,
    /// raw (DER for ECDSA and SM2), pair (r and s side by side) or cms (detached CMS).
    #[arg(long, default_value = "raw")]
    pub(crate) format: Format,
    /// SM2 user id [default: 1234567812345678].
    #[arg(long)]
    pub(crate) user_id: Option<String>,
    #[command(flatten)]
    pub(crate) evidence: EvidenceOptions,
    /// Names this call for good: a retry with the same key costs nothing [default: a fresh one].
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    /// Where to write the signature; without it, base64 on standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Makes a tenant.
    Create {
        /// Its name.
        name: TenantName,
        /// Signatures it may make in all; without it, no limit.
        #[arg(long)]
        prepaid: Option<u64>,
    },
    /// Sets how many signatures a tenant may make in all.
    Prepaid {
        /// Its name.
        name: TenantName,
        /// Signatures in all; without it, no limit.
        #[arg(long)]
        units: Option<u64>,
    },
    /// Suspends a tenant: it may look, and sign nothing; what it has in flight is not released either.
    Suspend {
        /// Its name.
        name: TenantName,
    },
    /// Lets a suspended tenant sign again.
    Resume {
        /// Its name.
        name: TenantName,
    },
    /// Closes a tenant, for good.
    Close {
        /// Its name.
        name: TenantName,
        /// Its name once more.
        #[arg(long, value_name = "NAME")]
        confirm: TenantName,
    },
    /// Destroys the keys and secrets of a closed tenant, for good, and writes a signed certificate of that.
    Destroy {
        /// Its name.
        name: TenantName,
        /// The order by which that is done: a contract's clause, a letter's number.
        #[arg(long, value_name = "REFERENCE")]
        order: String,
        /// Where to write the certificate; the signature over it goes into FILE.sig, the signer's certificate into FILE.pem.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
    },
    /// Sets from when on production calls of a tenant are taken.
    Activate {
        /// Its name.
        name: TenantName,
        /// A day, YYYY-MM-DD in Shanghai, or a minute, YYYY-MM-DDThh:mm+08:00 [default: now].
        #[arg(long)]
        at: Option<String>,
    },
    /// Binds a tenant to the version of an agreement that was in force when it signed.
    Agreement {
        /// Its name.
        name: TenantName,
        /// bjca or bestsign.
        #[arg(long)]
        policy: String,
        /// YYYY-MM-DD.
        #[arg(long)]
        signed: String,
        /// The contract's own clause on compensation, which comes before the table.
        #[arg(long)]
        clause: Option<String>,
    },
    /// Lists the tenants.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Makes an app and shows its secret, once.
    Create {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Its id.
        id: AppId,
        /// Public key or certificate for HTTP message signatures, PEM (P-256 or Ed25519).
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
        /// TLS client certificate, PEM.
        #[arg(long, value_name = "FILE")]
        client_certificate: Option<PathBuf>,
        /// Take native sessions that are not bound to the TLS exporter.
        #[arg(long)]
        binding_optional: bool,
        /// For trying only: sandbox credentials, a small rate, nothing charged.
        #[arg(long)]
        sandbox: bool,
        /// Where to write a client profile with the secret (mode 0600); without it, the secret is printed.
        #[arg(long, value_name = "FILE")]
        profile_out: Option<PathBuf>,
    },
    /// Gives an app a new secret and shows it, once; the old one counts a while longer.
    RotateSecret {
        /// Its id.
        id: AppId,
        /// Days for which the old secret counts, too; 0: it ends at once.
        #[arg(long, default_value_t = 7)]
        overlap_days: u32,
    },
    /// Sets what an app may ask for at a time. Beyond it, calls are refused with rate_limited.
    Contract {
        /// Its id.
        id: AppId,
        /// Signatures a second; 0: no limit.
        #[arg(long, default_value_t = 0)]
        rate: u32,
        /// Signatures at once after a pause [default: the rate, at least 64].
        #[arg(long)]
        burst: Option<u32>,
        /// Calls in flight; 0: no limit.
        #[arg(long, default_value_t = 0)]
        concurrency: u32,
    },
    /// Revokes an app: what it has in flight is not released either.
    Revoke {
        /// Its id.
        id: AppId,
    },
    /// Lets a revoked app in again.
    Enable {
        /// Its id.
        id: AppId,
    },
    /// Lists the apps.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a key pair and a credential for it.
    Create {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// The credential's id.
        id: CredentialId,
        /// p256, p384, rsa2048, rsa3072, rsa4096, ed25519 or sm2.
        #[arg(long)]
        kind: KeyKind,
        /// Make it in this device, and bring it into the others named; without it, in software.
        #[arg(long, value_name = "DEVICE")]
        device: Vec<String>,
        /// Let it exist only wrapped under this wrapping key, for any device that has it.
        #[arg(long, value_name = "LABEL", conflicts_with = "device")]
        wrapped: Option<String>,
        /// For sandbox apps only.
        #[arg(long)]
        sandbox: bool,
        /// What its certificate is for [default: the profile `credential`].
        #[arg(long)]
        profile: Option<String>,
        /// The subject whose identity is approved, where the profile asks for one.
        #[arg(long, requires = "profile")]
        subject: Option<SubjectId>,
    },
    /// Makes a credential for a key pair that is in a device already.
    Attach {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// The credential's id.
        id: CredentialId,
        /// p256, p384, rsa2048, rsa3072, rsa4096, ed25519 or sm2.
        #[arg(long)]
        kind: KeyKind,
        /// Where it is.
        #[arg(long)]
        device: String,
        /// Its CKA_LABEL, or in an SDF device its index.
        #[arg(long)]
        name: String,
    },
    /// Makes credentials for wrapped keys: one JSON object a line (docs/devices.md).
    Import {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// The file.
        file: PathBuf,
        /// Prove only the first key of each thousand, not every one.
        #[arg(long)]
        sample: bool,
    },
    /// Brings a key into one more device.
    Replicate {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// The credential's id.
        id: CredentialId,
        /// Into which.
        #[arg(long)]
        device: String,
    },
    /// Destroys a private key, wherever it is. For good.
    Destroy {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// The credential's id.
        id: CredentialId,
        /// The credential's id once more.
        #[arg(long, value_name = "ID")]
        confirm: CredentialId,
    },
    /// Disables a credential: what it has in flight is not released either.
    Disable {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// The credential's id.
        id: CredentialId,
    },
    /// Enables a disabled credential.
    Enable {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// The credential's id.
        id: CredentialId,
    },
    /// Lists the credentials of a tenant.
    List {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Makes an authority's key and certificate, and writes a signed transcript of it.
    Create {
        /// Its name.
        name: AuthorityName,
        /// What it is for.
        #[arg(long, value_enum)]
        role: NewRole,
        /// p256, p384, rsa2048, rsa3072, rsa4096 or sm2.
        #[arg(long)]
        kind: KeyKind,
        /// The name in its certificate, as RFC 4514 writes it [default: made of the name].
        #[arg(long, value_name = "DN")]
        subject: Option<String>,
        /// The authority that certifies it; without it, it certifies itself.
        #[arg(long)]
        issuer: Option<AuthorityName>,
        /// For how long it is valid, never beyond its issuer [default: what the profile says].
        #[arg(long)]
        days: Option<u64>,
        /// The device in which its key is made and stays; for those who certify. Without it, a software key.
        #[arg(long)]
        device: Option<String>,
        /// Where to write what was done; the signature over it goes into FILE.sig.
        #[arg(long, value_name = "FILE")]
        transcript: PathBuf,
    },
    /// Has an authority's key certified again, by the same issuer and for the same name, and writes a signed transcript.
    Renew {
        /// Its name.
        name: AuthorityName,
        /// For how long it is valid, never beyond its issuer [default: what the profile says].
        #[arg(long)]
        days: Option<u64>,
        /// Where to write what was done; the signature over it goes into FILE.sig.
        #[arg(long, value_name = "FILE")]
        transcript: PathBuf,
    },
    /// Revokes an authority for good: no credential that it or one below it has certified signs any more.
    Revoke {
        /// Its name.
        name: AuthorityName,
        /// By its name in RFC 5280 5.3.1, such as cACompromise.
        #[arg(long)]
        reason: String,
    },
    /// Lists the authorities.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TsaCommand {
    /// Has a digest or a file stamped (RFC 3161) and writes the answer.
    Stamp(TsaStampArguments),
    /// Verifies a time stamp of a digest or a file.
    Verify(TsaVerifyArguments),
    /// Shows the token with which an app has times stamped at http://…/tsa/TOKEN. It changes with the app's secret.
    Token {
        /// The app's client profile.
        #[arg(long, value_name = "FILE")]
        profile: PathBuf,
    },
}

/// The hashes of time stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StampHash {
    Sha256,
    Sha384,
    Sha512,
    Sm3,
}

impl From<StampHash> for Hash {
    fn from(hash: StampHash) -> Self {
        match hash {
            StampHash::Sha256 => Self::Sha256,
            StampHash::Sha384 => Self::Sha384,
            StampHash::Sha512 => Self::Sha512,
            StampHash::Sm3 => Self::Sm3,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TsaStampArguments {
    #[command(flatten)]
    pub(crate) content: Content,
    /// The hash of the digest, or by which the file is hashed.
    #[arg(long, value_enum, default_value = "sha256")]
    pub(crate) hash: StampHash,
    /// The address of any RFC 3161 authority over plain HTTP.
    #[arg(long, required_unless_present = "profile")]
    pub(crate) url: Option<String>,
    /// The client profile of the app that asks: over the native protocol, or with its token at --url.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Which authority, where there are several.
    #[arg(long)]
    pub(crate) authority: Option<AuthorityName>,
    /// Where to write the answer.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TsaVerifyArguments {
    #[command(flatten)]
    pub(crate) content: Content,
    /// The answer, or the bare token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token: PathBuf,
    /// The certificates of the authorities to trust, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
}

/// A certificate, by its credential.
#[derive(Debug, Args)]
pub(crate) struct CertName {
    /// Whose.
    #[arg(long)]
    pub(crate) tenant: TenantName,
    /// Its credential.
    #[arg(long, required_unless_present = "serial")]
    pub(crate) credential: Option<CredentialId>,
    /// Which, in hexadecimal [default: the credential's newest].
    #[arg(long, value_name = "HEX")]
    pub(crate) serial: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Lists the certificates of a tenant's credentials.
    List {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
    },
    /// Lists certificates in force that end soon, of all tenants.
    Ending {
        /// Within so many days.
        #[arg(long, default_value_t = 30)]
        days: u32,
    },
    /// Certifies a key by its request (PKCS#10), or the key of a credential.
    Issue {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// What for: enterprise-signing, enterprise-seal, seal-maker, agent, tls or credential.
        #[arg(long)]
        profile: String,
        /// The subject whose identity is approved.
        #[arg(long)]
        subject: Option<SubjectId>,
        /// The authority [default: the first whose key fits].
        #[arg(long)]
        issuer: Option<AuthorityName>,
        /// The request, PEM.
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with = "credential",
            required_unless_present = "credential"
        )]
        csr: Option<PathBuf>,
        /// The credential whose key is certified instead.
        #[arg(long)]
        credential: Option<CredentialId>,
        /// Where to put certificate and chain, PEM [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Renews the certificate of a credential, for the same names.
    Renew {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Which credential.
        #[arg(long)]
        credential: CredentialId,
        /// Make a new key; the old one is destroyed.
        #[arg(long)]
        new_key: bool,
        /// Where to put certificate and chain, PEM [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Makes a request (PKCS#10) for a credential's key, for another authority.
    Request {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Which credential.
        #[arg(long)]
        credential: CredentialId,
        /// The name asked for, as RFC 4514 writes it [default: made of tenant and credential].
        #[arg(long, value_name = "DN")]
        subject: Option<String>,
        /// Where to put it, PEM [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Takes in what another authority has answered; it is the credential's certificate from then on.
    Import {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Which credential.
        #[arg(long)]
        credential: CredentialId,
        /// The certificate, each followed by its issuer's, PEM.
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// The root, PEM, where the chain does not end with it.
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
    },
    /// Suspends a certificate: its credential does not sign until it is resumed.
    Suspend(CertName),
    /// Takes a suspension back.
    Resume(CertName),
    /// Revokes a certificate for good: what its credential has in flight is not released either.
    Revoke {
        #[command(flatten)]
        name: CertName,
        /// Why, by its name in RFC 5280 5.3.1, such as keyCompromise.
        #[arg(long, default_value = "unspecified")]
        reason: String,
    },
}

/// A subject.
#[derive(Debug, Args)]
pub(crate) struct SubjectName {
    /// Whose.
    #[arg(long)]
    pub(crate) tenant: TenantName,
    /// Which.
    pub(crate) id: SubjectId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubjectCommand {
    /// Takes a new subject in.
    Submit {
        #[command(flatten)]
        name: SubjectName,
        /// enterprise, agent or legal-representative.
        #[arg(long, value_parser = read_subject_kind)]
        kind: store::SubjectKind,
        /// A file with `{\"name\":…,\"registration\":…,\"enterprise\":…}`: names do not belong on command lines.
        #[arg(long, value_name = "FILE")]
        details: PathBuf,
        /// The evidence: only its SHA-256 is kept.
        #[arg(long, value_name = "FILE")]
        evidence: PathBuf,
    },
    /// Says that the evidence was checked; another operator has to approve.
    Check(SubjectName),
    /// Approves what another operator has checked.
    Approve(SubjectName),
    /// Rejects.
    Reject {
        #[command(flatten)]
        name: SubjectName,
        /// Why; the journal keeps it.
        #[arg(long)]
        reason: String,
    },
    /// Makes a question that a verification service can answer once, within 10 minutes.
    Challenge(SubjectName),
    /// Erases what is known of a subject.
    Erase {
        #[command(flatten)]
        name: SubjectName,
        /// The order by which it is done; the journal keeps it.
        #[arg(long)]
        order: String,
    },
    /// Lists a tenant's subjects, masked.
    List {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Those after this id.
        #[arg(long)]
        after: Option<SubjectId>,
    },
}

fn read_subject_kind(text: &str) -> Result<store::SubjectKind, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "there are enterprise, agent and legal-representative".into())
}

#[derive(Debug, Subcommand)]
pub(crate) enum LatencyCommand {
    /// Percentiles of the last minute or two, by request and by stage.
    Stages {
        /// Print JSON: also everything since the start.
        #[arg(long)]
        json: bool,
    },
    /// Requests that took longer than 100 ms, with the time each spent in every stage; the latest last.
    Slow {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Shows every device, and the software lanes.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measures what a device can do and promise, and keeps to it from then on.
    Calibrate {
        /// Which.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Adds a device that the configuration file names.
    Add {
        /// Which.
        name: String,
    },
    /// Lets a device finish what it has, and gives it nothing more.
    Drain {
        /// Which.
        name: String,
    },
    /// Lets a drained, quarantined or latched device prove itself again.
    Resume {
        /// Which.
        name: String,
    },
    /// Takes a drained device away.
    Remove {
        /// Which.
        name: String,
    },
    /// Sets the number of a device's worker processes.
    Scale {
        /// Which.
        name: String,
        /// How many.
        #[arg(long)]
        processes: usize,
    },
    /// Sets the number of software lanes.
    Lanes {
        /// How many.
        lanes: usize,
    },
    /// Lists the private keys in a device.
    Objects {
        /// Which.
        name: String,
    },
    /// Makes a wrapping key in a device.
    Kek {
        /// In which.
        name: String,
        /// What to call it.
        #[arg(long)]
        label: String,
    },
    /// Brings a wrapping key from one device into another, wrapped for a key of the second.
    ShareKek {
        /// Which wrapping key.
        #[arg(long)]
        label: String,
        /// The device that has it.
        #[arg(long)]
        from: String,
        /// The device that is to have it.
        #[arg(long)]
        to: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The backup.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: PathBuf,
    /// Only check that it could be restored: every hash, every link of the chain, the books. Nothing is written.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Numbers of journal entries to leave out; more than the lost folder can have used after the backup and its tail.
    #[arg(long, value_name = "COUNT", default_value_t = store::ENTRIES_SKIPPED, value_parser = clap::value_parser!(u64).range(1..1 << 40))]
    pub(crate) skip: u64,
    /// The file `tail` of the lost data folder, if it is left: it says how many entries are lost.
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub(crate) tail: Option<PathBuf>,
    /// The list of erased subjects that the lost engine kept elsewhere (setting `erasures`): what the backup still holds of
    /// them is erased again.
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub(crate) erasures: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Archives what is due. A running engine does so by itself, once an hour.
    Run,
    /// Lists the archives.
    List,
    /// Checks every archive and that the journal goes on where the last one ends.
    Verify {
        /// Only this file, by itself: no store is needed.
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Checks a copy of the log, a receipt or a case, without an engine and without trusting one.
    Verify(AuditVerifyArguments),
    /// Proves that a journal entry is in the log, as JSON.
    Proof {
        /// The entry's number.
        #[arg(long)]
        sequence: u64,
    },
    /// Prints the log's public key, for those who verify.
    Key,
    /// Takes out the records of a tenant and a period, and what operators did, with proofs and a signed manifest.
    Export(AuditExportArguments),
    /// Erases the salts of entries, so that nobody can say any more what their leaves stand for. This cannot be undone.
    Erase {
        /// An entry's number; may be given again.
        #[arg(long = "sequence", required = true)]
        sequences: Vec<u64>,
        /// On whose order.
        #[arg(long)]
        reason: String,
    },
}

/// What is to be verified.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct AuditSubject {
    /// A copy of a data folder, or of the `audit` folder in it. With the database the leaves are made again from it.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// A receipt: an item with its `inclusion`, or that alone, or what `lookup --proof` prints.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// A case that was taken out.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) case: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArguments {
    #[command(flatten)]
    pub(crate) what: AuditSubject,
    /// The log's public key, as `audit key` prints it. Without it the key beside the files is taken, which proves only that
    /// they belong together.
    #[arg(long, value_name = "VKEY")]
    pub(crate) key: Option<String>,
    /// An older checkpoint of the same log: this one must begin with it.
    #[arg(long, value_name = "FILE", requires = "dir")]
    pub(crate) since: Option<PathBuf>,
    /// The key of a witness whose cosignature is looked for; may be given again. Others are named and not checked.
    #[arg(long = "witness", value_name = "VKEY", requires = "dir")]
    pub(crate) witnesses: Vec<String>,
    /// CA certificates (PEM) to trust about time stamps of checkpoints. Without it the stamps are not looked at.
    #[arg(long, value_name = "FILE", requires = "dir")]
    pub(crate) tsa_ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditExportArguments {
    /// What the case is called.
    #[arg(long)]
    pub(crate) case: String,
    /// Whose records.
    #[arg(long)]
    pub(crate) tenant: TenantName,
    /// From when on: a day, YYYY-MM-DD, or a minute, YYYY-MM-DDThh:mm+08:00.
    #[arg(long)]
    pub(crate) from: String,
    /// Until when, without.
    #[arg(long)]
    pub(crate) to: String,
    /// Who has agreed; two different names. Where `audit.export` needs two operators they approve a proposal instead.
    #[arg(long = "operator", conflicts_with = "proposal")]
    pub(crate) operators: Vec<String>,
    /// The approved proposal to take out this case.
    #[arg(long, value_name = "ID")]
    pub(crate) proposal: Option<String>,
    /// A new folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Checks the whole chain and counts usage again from the entries. Needs a stopped engine.
    Check,
    /// Prints every entry as a line of JSON. Needs a stopped engine.
    Export,
}

/// What is counted.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CountedUnit {
    /// Enterprise accounts created.
    User,
    /// Contracts.
    Contract,
    /// Certificates.
    Certificate,
}

impl From<CountedUnit> for store::Unit {
    fn from(unit: CountedUnit) -> Self {
        match unit {
            CountedUnit::User => Self::User,
            CountedUnit::Contract => Self::Contract,
            CountedUnit::Certificate => Self::Certificate,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PackageCommand {
    /// Grants a package to a tenant; the first ends the limitless one it began with.
    Grant {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// by-signature, by-user, by-contract, by-time-stamp, unlimited, credit, or one of your own.
        #[arg(long)]
        kind: String,
        /// Units; none for a package without a limit.
        #[arg(long, default_value_t = 0)]
        units: u64,
        /// When its term begins: a day in Shanghai or a minute [default: now].
        #[arg(long, value_name = "TIME")]
        activated: Option<String>,
        /// A contract's or an incident's number.
        #[arg(long, default_value = "")]
        reference: String,
    },
    /// Puts a package right.
    Correct {
        /// Its number.
        #[arg(long)]
        package: u32,
        /// Units: above zero given, below zero taken.
        #[arg(long, allow_negative_numbers = true)]
        units: i64,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Books units that no signature uses.
    Use {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Which.
        #[arg(long, value_enum)]
        unit: CountedUnit,
        /// How many.
        #[arg(long, default_value_t = 1)]
        units: u64,
        /// What for.
        #[arg(long, default_value = "")]
        reference: String,
    },
    /// Lists a tenant's packages and where their units are.
    List {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
    },
    /// Lists the kinds of packages.
    Kinds,
    /// Sets kinds of packages from `[[package_kind]]` tables.
    SetKinds {
        /// A TOML file.
        file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatementFormat {
    /// Totals as JSON.
    Json,
    /// Totals as CSV.
    Csv,
    /// Every unit with its request, as CSV.
    Items,
}

#[derive(Debug, Args)]
pub(crate) struct StatementArguments {
    /// Whose.
    #[arg(long)]
    pub(crate) tenant: TenantName,
    /// YYYY-MM, Asia/Shanghai.
    #[arg(long)]
    pub(crate) month: String,
    /// In which form.
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) format: StatementFormat,
    /// In English; without it, in Chinese.
    #[arg(long, requires = "pdf")]
    pub(crate) english: bool,
    #[command(flatten)]
    pub(crate) paper: PaperArguments,
}

/// A report as a signed PDF.
#[derive(Debug, Args)]
pub(crate) struct PaperArguments {
    /// Write a PDF that is signed and certified: nothing may be changed in it. Needs `report_font` in the configuration.
    #[arg(long, value_name = "FILE", requires_all = ["profile", "credential"])]
    pub(crate) pdf: Option<PathBuf>,
    /// The client profile of the app that signs it.
    #[arg(long, value_name = "FILE", requires = "pdf")]
    pub(crate) profile: Option<PathBuf>,
    /// The credential that signs it.
    #[arg(long, value_name = "ID", requires = "pdf")]
    pub(crate) credential: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileArguments {
    /// Only this month, YYYY-MM.
    #[arg(long)]
    pub(crate) month: Option<String>,
    /// Where nothing differs, let frozen statements be used again.
    #[arg(long)]
    pub(crate) thaw: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// From now on.
    On,
    /// Not any more.
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SlaCommand {
    /// A tenant's month under its agreement, as JSON.
    Report {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// YYYY-MM, Asia/Shanghai.
        #[arg(long)]
        month: String,
        /// As a page, in Chinese.
        #[arg(long)]
        html: bool,
        /// The page or the PDF in English.
        #[arg(long)]
        english: bool,
        #[command(flatten)]
        paper: PaperArguments,
    },
    /// Says that announced maintenance is under way, or over. Needs a running engine.
    Maintenance {
        /// On or off.
        #[arg(value_enum)]
        state: Switch,
    },
    /// Says that capacity is being extended, or has been. Needs a running engine.
    Extension {
        /// On or off.
        #[arg(value_enum)]
        state: Switch,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NoticeCommand {
    /// Publishes a notice; it counts from now on.
    Create {
        /// Its name.
        id: String,
        /// When the service may be interrupted: YYYY-MM-DDThh:mm+08:00.
        #[arg(long)]
        from: String,
        /// Until when.
        #[arg(long)]
        to: String,
        /// What customers are told.
        #[arg(long, default_value = "")]
        text: String,
        /// The notice whose window this one changes.
        #[arg(long, value_name = "ID")]
        replaces: Option<String>,
    },
    /// Lists the notices.
    List,
}
