//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::algorithm::{Algorithm, Format, KeyKind};
use protocol::client::Transport;
use protocol::ids::{AppId, AuthorityName, CredentialId, IdempotencyKey, TenantName};

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
    /// Checks a signature, without the engine's help.
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
    /// Lists, suspends, resumes and revokes the certificates of credentials.
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Lists, calibrates, drains, resumes, adds and removes devices of a running engine.
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// Checks and exports the journal.
    Journal {
        #[command(subcommand)]
        command: JournalCommand,
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
    #[arg(long, value_name = "ID")]
    pub(crate) credential: String,
    #[command(flatten)]
    pub(crate) content: Content,
    /// How to sign [default: the credential's first algorithm].
    #[arg(long)]
    pub(crate) algorithm: Option<Algorithm>,
    /// raw (DER for ECDSA and SM2), pair (r and s side by side) or cms (detached CMS).
    #[arg(long, default_value = "raw")]
    pub(crate) format: Format,
    /// SM2 user id [default: 1234567812345678].
    #[arg(long)]
    pub(crate) user_id: Option<String>,
    /// Which way to go.
    #[arg(long, value_enum, default_value = "quic")]
    pub(crate) transport: TransportName,
    /// Names this call for good: a retry with the same key costs nothing [default: a fresh one].
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    /// Where to write the signature; without it, base64 on standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Client profile, to ask for the credential's public key.
    #[arg(long, value_name = "FILE", requires = "credential")]
    pub(crate) profile: Option<PathBuf>,
    /// The credential that signed.
    #[arg(long, value_name = "ID")]
    pub(crate) credential: Option<String>,
    /// The signer's certificate or public key, PEM, instead of a profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: Option<PathBuf>,
    /// CA certificates, PEM: needed for CMS, which brings its own signer.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) content: Content,
    /// How it was signed [default: the key's first algorithm].
    #[arg(long)]
    pub(crate) algorithm: Option<Algorithm>,
    /// raw, pair or cms.
    #[arg(long, default_value = "raw")]
    pub(crate) format: Format,
    /// SM2 user id [default: 1234567812345678].
    #[arg(long)]
    pub(crate) user_id: Option<String>,
    /// The signature, as `sign --out` writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: PathBuf,
    /// Which way to go.
    #[arg(long, value_enum, default_value = "quic")]
    pub(crate) transport: TransportName,
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
        /// Where to write a client profile with the secret (mode 0600); without it, the secret is printed.
        #[arg(long, value_name = "FILE")]
        profile_out: Option<PathBuf>,
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
        /// For how long it is valid, never beyond its issuer.
        #[arg(long, default_value_t = 3650)]
        days: u64,
        /// Where to write what was done; the signature over it goes into FILE.sig.
        #[arg(long, value_name = "FILE")]
        transcript: PathBuf,
    },
    /// Lists the authorities.
    List,
}

/// A certificate, by its credential.
#[derive(Debug, Args)]
pub(crate) struct CertName {
    /// Whose.
    #[arg(long)]
    pub(crate) tenant: TenantName,
    /// Its credential.
    #[arg(long)]
    pub(crate) credential: CredentialId,
    /// Which, in hexadecimal [default: the newest].
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

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Checks the whole chain and counts usage again from the entries. Needs a stopped engine.
    Check,
    /// Prints every entry as a line of JSON. Needs a stopped engine.
    Export,
}
