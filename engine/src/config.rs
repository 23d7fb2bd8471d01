//! Configuration: flags over environment over file over defaults; unknown keys are errors; every value knows where it
//! came from. [`Spec`] is what is written down, [`Config`] what has been checked.

mod certificates;
mod operators;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::profiles::Profiles;
use actors::subjects::Verifier;
use actors::time_stamps::ClockRule;
use documents::x509::ObjectIdentifier;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use hsm_pool::device::{DeviceConfig, Kind};
use hsm_pool::elastic::Bounds;
use hsm_pool::lanes::Verify;
use protocol::algorithm::KeyKind;
use protocol::error_code::{Code, Refusal};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::certificates::{ProfileSpec, VerifierSpec};
pub(crate) use self::operators::{
    ConsoleConfig, EmailConfig, Holds, Location, OutgoingConfig, TsaConfig, VouchersConfig, WitnessSpec,
};
use crate::pki::{self, PkiSettings};
use crate::telemetry::LogFormat;

/// One device, `[[device]]` in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceSpec {
    /// What credentials and operators call it.
    name: String,
    /// `pkcs11` or `sdf`.
    #[serde(default)]
    kind: Kind,
    /// Path of the library.
    module: PathBuf,
    /// The token, by label, by serial number, or by both. An SDF library has one device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_serial: Option<String>,
    /// Where the user PIN is: a file, an open file descriptor, or a systemd credential. Exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin_fd: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin_credential: Option<String>,
    /// Worker processes.
    #[serde(default = "two")]
    processes: usize,
    /// Worker processes at most, when load asks for more; as many as `processes` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    processes_max: Option<usize>,
    /// Sessions of each process.
    #[serde(default = "one")]
    sessions: u16,
    /// Calls in flight at most, in all; one for each session if not set, or what calibration has found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_flight_max: Option<u16>,
    /// Unwrapped keys that each process keeps.
    #[serde(default = "thousand")]
    unwrapped_max: usize,
    /// The key of probe signatures, by label or SDF index. If not set: on PKCS#11 a key of its own, made on first use;
    /// on SDF the lowest index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probe_key: Option<String>,
    /// Folders the library may write to. Where this is set, the kernel holds its processes to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writable: Option<Vec<PathBuf>>,
    /// Environment variables for the library.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
}

const fn one() -> u16 {
    1
}

const fn two() -> usize {
    2
}

const fn thousand() -> usize {
    1_024
}

/// Key pairs made ahead of need, `[[key_pool]]` in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPoolSpec {
    /// p256, p384, rsa2048, rsa3072, rsa4096, ed25519 or sm2.
    pub(crate) kind: KeyKind,
    /// The device to make them in; software if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// Fewer than this, and more are made …
    pub(crate) low: usize,
    /// … until there are so many.
    pub(crate) high: usize,
}

/// Everything that can be set, as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// Data folder.
    home: PathBuf,
    /// UDP for QUIC and TCP for HTTPS.
    listen: SocketAddr,
    /// Plain HTTP for /livez, /readyz and /metrics.
    admin: SocketAddr,
    /// Plain HTTP for time stamps, OCSP and revocation lists.
    pki: SocketAddr,
    /// Under which URL clients reach `pki`; it is in every certificate. `http://` and that address if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pki_url: Option<String>,
    /// `verified`: a clock that the kernel does not vouch for stamps nothing. `unverified`: tokens state no accuracy;
    /// for sandboxes. With `--dev` `unverified` if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    tsa_clock: Option<TsaClock>,
    /// The accuracy of time stamps, in milliseconds.
    tsa_accuracy_ms: u32,
    /// The policy of time stamps, an object identifier. If not set, one for examples (RFC 5612).
    tsa_policy: String,
    /// Whether whoever asks gets a time stamp. With `--dev` yes if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    tsa_anonymous: Option<bool>,
    /// How many time stamps whoever asks gets in a second, in all; 0: no limit. If not set, 100, with `--dev` no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    tsa_anonymous_rate: Option<u32>,
    /// How often delta revocation lists are made, in minutes; 0: none are, and each change makes a full list.
    crl_delta_minutes: u32,
    /// Where the list of erased subjects is kept, outside of the data folder: `restore --erasures` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    erasures: Option<PathBuf>,
    /// HTTPS for operators.
    console: SocketAddr,
    /// Names under which `console` is reached, beside its address and `localhost`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    console_names: Vec<String>,
    /// Actions that need two operators, as the journal calls them: `app.revoke`, `key.destroy`, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dual_control: Vec<String>,
    /// How long a proposal waits for the second operator.
    proposal_hours: u32,
    /// How long a message to the outside is tried, in seconds.
    outgoing_give_up_s: u32,
    /// CA certificates for webhooks and the mail relay beside the system's, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    outgoing_ca: Option<PathBuf>,
    /// The mail relay for alerts: `smtps://relay`, `smtp://relay?tls=required` (STARTTLS), or `smtp://relay` without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp: Option<String>,
    /// User name at the relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp_user: Option<String>,
    /// The file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp_password_file: Option<PathBuf>,
    /// From whom alerts come.
    #[serde(skip_serializing_if = "Option::is_none")]
    email_from: Option<String>,
    /// To whom they go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    email_to: Vec<String>,
    /// Core threads; 0: one for each processor.
    cores: u16,
    /// Software lanes; 0: one for each processor.
    lanes: usize,
    /// Software lanes at most, when load asks for more; 0: never more than `lanes`.
    lanes_max: usize,
    /// `sampled` or `all`: which signatures of software lanes are verified before release.
    verify: Verify,
    /// `libcrypto_mb`, by absolute path: signatures eight at a time (`docs/performance.md`). One at a time if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    crypto_mb: Option<PathBuf>,
    /// The library's SHA-256 digest in hex, where it is another than the pinned one.
    #[serde(skip_serializing_if = "Option::is_none")]
    crypto_mb_sha256: Option<String>,
    /// How long a job may have to wait for a software lane or a device, in milliseconds.
    queue_ms_max: u64,
    /// Calls in flight on one core.
    calls_per_core_max: usize,
    /// Connections on one core.
    connections_per_core_max: usize,
    /// Connections from one address, on one core.
    connections_per_address_max: usize,
    /// How long an HTTPS connection may be silent, and how long a request's head may take, in milliseconds.
    http_silence_ms_max: u64,
    /// Software keys kept unwrapped.
    key_cache: usize,
    /// Bytes the database may take; 0: as many as the disk has.
    store_bytes_max: u64,
    /// A font with TrueType outlines and the characters of the language, for reports as PDF.
    #[serde(skip_serializing_if = "Option::is_none")]
    report_font: Option<PathBuf>,
    /// Whole months before the running one that stay in the database; what is older goes into archives.
    retention_months: u32,
    /// The server's certificate chain, PEM. Not needed with `--dev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_certificate: Option<PathBuf>,
    /// The server's private key, PEM (PKCS#8). Not needed with `--dev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    /// The master key, 32 bytes, mode 0600; `master.key` in the data folder if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key_file: Option<PathBuf>,
    /// An open file descriptor that gives the master key instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key_fd: Option<i32>,
    /// Days whose latencies are kept in `latency/*.hlog` in the data folder; 0: none are written down.
    latency_days: usize,
    /// Where an OpenTelemetry collector takes traces of slow requests, `http://HOST:PORT/v1/traces`. Off if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    traces: Option<String>,
    /// Of the other requests, one in so many is traced as well; 0: none.
    traces_every: u32,
    /// What the audit log is called when it is begun: the URL of `/audit` without its scheme. A name that nobody else has
    /// if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_origin: Option<String>,
    /// How often checkpoints of the audit log are brought to witnesses, in seconds.
    witness_every_s: u32,
    /// An authority for time stamps (RFC 3161) that stamps checkpoints: its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_tsa: Option<String>,
    /// CA certificates (PEM) that certify it.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_tsa_ca: Option<PathBuf>,
    /// How often it is asked, in seconds.
    audit_tsa_every_s: u32,
    /// What is logged, as a `tracing` filter.
    log: String,
    /// `text` or `json`: how a log line looks.
    log_format: LogFormat,
    /// Days whose logs are kept as JSON in `logs/` in the data folder, for cases; 0: none are written there.
    log_days: usize,
    /// Devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    device: Vec<DeviceSpec>,
    /// Key pairs made ahead of need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    key_pool: Vec<KeyPoolSpec>,
    /// Where data and backups lie.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    location: Vec<Location>,
    /// Days before the end of a certificate at which its holder is told.
    certificate_warn_days: Vec<u32>,
    /// What profiles of certificates say instead of the built-in table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    certificate_profile: Vec<ProfileSpec>,
    /// Verification services whose answers about subjects count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    verifier: Vec<VerifierSpec>,
    /// Who cosigns checkpoints of the audit log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    witness: Vec<WitnessSpec>,
}

impl Default for Spec {
    fn default() -> Self {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            home: "./var".into(),
            listen: address(8443),
            admin: address(9443),
            pki: address(8080),
            pki_url: None,
            tsa_clock: None,
            tsa_accuracy_ms: 1_000,
            tsa_policy: "1.3.6.1.4.1.32473.1".into(),
            tsa_anonymous: None,
            tsa_anonymous_rate: None,
            crl_delta_minutes: 0,
            erasures: None,
            console: address(9444),
            console_names: Vec::new(),
            dual_control: Vec::new(),
            proposal_hours: 72,
            outgoing_give_up_s: 86_400,
            outgoing_ca: None,
            smtp: None,
            smtp_user: None,
            smtp_password_file: None,
            email_from: None,
            email_to: Vec::new(),
            cores: 0,
            lanes: 0,
            lanes_max: 0,
            verify: Verify::Sampled,
            crypto_mb: None,
            crypto_mb_sha256: None,
            queue_ms_max: 40,
            calls_per_core_max: 65_536,
            connections_per_core_max: 10_000,
            connections_per_address_max: 10_000,
            http_silence_ms_max: 60_000,
            key_cache: 100_000,
            store_bytes_max: 0,
            report_font: None,
            retention_months: 37,
            tls_certificate: None,
            tls_key: None,
            master_key_file: None,
            master_key_fd: None,
            latency_days: 14,
            traces: None,
            traces_every: 0,
            audit_origin: None,
            witness_every_s: 10,
            audit_tsa: None,
            audit_tsa_ca: None,
            audit_tsa_every_s: 3_600,
            log: "info".into(),
            log_format: LogFormat::Text,
            log_days: 90,
            device: Vec::new(),
            key_pool: Vec::new(),
            location: Vec::new(),
            certificate_warn_days: vec![30, 7, 1],
            certificate_profile: Vec::new(),
            verifier: Vec::new(),
            witness: Vec::new(),
        }
    }
}

/// How much the clock must prove before it stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TsaClock {
    Verified,
    Unverified,
}

/// Time stamps a second for whoever asks, outside of development.
const ANONYMOUS_RATE: u32 = 100;

/// What is set about certificates and time stamps.
#[derive(Clone, Debug)]
pub(crate) struct PkiConfig {
    pub(crate) address: SocketAddr,
    url: Option<String>,
    clock: Option<TsaClock>,
    accuracy_ms: u32,
    policy: ObjectIdentifier,
    anonymous: Option<bool>,
    profiles: Arc<Profiles>,
    verifiers: Arc<[Verifier]>,
    warn_days: Arc<[u32]>,
    anonymous_rate: Option<u32>,
    delta_minutes: u32,
    erasures: Option<PathBuf>,
}

impl PkiConfig {
    /// What the certificate service goes by.
    pub(crate) fn settings(&self, dev: bool) -> PkiSettings {
        let unverified = match self.clock {
            Some(clock) => clock == TsaClock::Unverified,
            None => dev,
        };
        PkiSettings {
            base_url: self.url.clone().unwrap_or_else(|| pki::default_url(self.address)),
            clock: if unverified {
                ClockRule::Unverified
            } else {
                ClockRule::Within {
                    accuracy_ms: self.accuracy_ms,
                }
            },
            policy: self.policy,
            profiles: Arc::clone(&self.profiles),
            verifiers: Arc::clone(&self.verifiers),
            warn_days: Arc::clone(&self.warn_days),
            delta_ms: (self.delta_minutes > 0).then(|| u64::from(self.delta_minutes) * 60_000),
            anonymous: self.anonymous.unwrap_or(dev),
            anonymous_rate: self
                .anonymous_rate
                .unwrap_or(if dev { 0 } else { ANONYMOUS_RATE }),
            erasures: self.erasures.clone(),
        }
    }
}

/// Where the master key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MasterKeySource {
    File(PathBuf),
    Descriptor(i32),
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) home: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) pki: PkiConfig,
    pub(crate) console: ConsoleConfig,
    pub(crate) outgoing: OutgoingConfig,
    pub(crate) locations: Vec<Location>,
    pub(crate) vouchers: VouchersConfig,
    pub(crate) cores: u16,
    pub(crate) lanes: Bounds,
    pub(crate) verify: Verify,
    /// The library that signs eight at a time, and its digest if it is not the pinned one.
    pub(crate) crypto_mb: Option<(PathBuf, Option<String>)>,
    pub(crate) queue_ms_max: u64,
    pub(crate) calls_per_core_max: usize,
    pub(crate) connections_per_core_max: usize,
    pub(crate) connections_per_address_max: usize,
    pub(crate) http_silence_ms_max: u64,
    pub(crate) key_cache: usize,
    pub(crate) store_bytes_max: Option<u64>,
    pub(crate) retention_months: u32,
    pub(crate) report_font: Option<PathBuf>,
    /// Certificate chain and key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) master_key: MasterKeySource,
    pub(crate) latency_days: usize,
    pub(crate) traces: Option<String>,
    pub(crate) traces_every: u32,
    pub(crate) audit_origin: Option<String>,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) log_days: usize,
    pub(crate) key_pools: Vec<KeyPoolSpec>,
    devices: Vec<DeviceSpec>,
}

impl Config {
    /// Where the audit log is.
    pub(crate) fn audit_log(&self) -> store::audit::Folder {
        store::audit::Folder::at(self.home.join("audit"))
    }
}

/// The layers as the command line names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    /// The file; `cinnabar.toml` in the current folder if there is one and none is named.
    pub(crate) file: Option<PathBuf>,
    /// Values of flags, by key.
    pub(crate) flags: BTreeMap<String, String>,
}

fn usage(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::Usage, message.into())
}

fn figment(layers: &Layers) -> Result<Figment, Refusal> {
    let mut figment = Figment::from(Serialized::defaults(Spec::default()));
    let default = Path::new("cinnabar.toml");
    let named = layers
        .file
        .clone()
        .or_else(|| std::env::var_os("CINNABAR_CONFIG").map(PathBuf::from));
    match named {
        Some(file) if !file.is_file() => return Err(usage(format!("{}: no such file", file.display()))),
        Some(file) => figment = figment.merge(Toml::file_exact(file)),
        None if default.is_file() => figment = figment.merge(Toml::file_exact(default)),
        None => {}
    }
    figment = figment.merge(Env::prefixed("CINNABAR_").ignore(&["config"]));
    for (key, value) in &layers.flags {
        let flag = Serialized::default(key, typed(value));
        figment = figment.merge(flag);
    }
    Ok(figment)
}

/// A flag's value as the type it looks like, as the environment's values are read.
fn typed(text: &str) -> figment::value::Value {
    text.parse().unwrap_or_else(|_| figment::value::Value::from(text))
}

/// Reads all layers.
pub(crate) fn load(layers: &Layers) -> Result<Config, Refusal> {
    let spec: Spec = figment(layers)?
        .extract()
        .map_err(|error| usage(explain(&error)))?;
    check(spec)
}

fn explain(error: &figment::Error) -> String {
    let origin = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |metadata| format!(" ({})", origin(metadata)));
    format!("configuration{origin}: {error}")
}

fn origin(metadata: &figment::Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        Some(figment::Source::Code(_)) | None if metadata.name.contains("environment") => {
            "environment".into()
        }
        _ if metadata.name.contains("Spec") => "default".into(),
        _ => "flag".into(),
    }
}

fn policy(text: &str) -> Result<ObjectIdentifier, Refusal> {
    let refuse = |_| {
        usage(format!(
            "configuration: tsa_policy '{text}' is not an object identifier"
        ))
    };
    ObjectIdentifier::new(text).map_err(refuse)
}

fn check(mut spec: Spec) -> Result<Config, Refusal> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if spec.cores == 0 {
        u16::try_from(processors).unwrap_or(64)
    } else {
        spec.cores
    };
    let tls = tls(&mut spec)?;
    let master_key = master_key(&spec)?;
    if spec.retention_months == 0 {
        return Err(usage("configuration: retention_months is at least 1"));
    }
    check_devices(&spec.device)?;
    check_key_pools(&spec.key_pool, &spec.device)?;
    let pki = pki_config(&spec)?;
    let lanes = if spec.lanes == 0 { processors } else { spec.lanes };
    Ok(Config {
        console: operators::console(&spec)?,
        outgoing: operators::outgoing(&spec)?,
        locations: operators::locations(&spec)?,
        vouchers: operators::vouchers(&spec)?,
        home: spec.home,
        listen: spec.listen,
        admin: spec.admin,
        pki,
        cores: cores.min(256),
        lanes: Bounds {
            min: lanes,
            max: lanes.max(spec.lanes_max),
        },
        verify: spec.verify,
        // An empty variable means none: so scripts need not tell apart.
        crypto_mb: spec
            .crypto_mb
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| (path, spec.crypto_mb_sha256)),
        queue_ms_max: spec.queue_ms_max,
        calls_per_core_max: spec.calls_per_core_max,
        connections_per_core_max: spec.connections_per_core_max,
        connections_per_address_max: spec.connections_per_address_max,
        http_silence_ms_max: spec.http_silence_ms_max,
        key_cache: spec.key_cache,
        store_bytes_max: (spec.store_bytes_max > 0).then_some(spec.store_bytes_max),
        retention_months: spec.retention_months,
        report_font: spec.report_font,
        tls,
        master_key,
        latency_days: spec.latency_days,
        traces: spec.traces,
        traces_every: spec.traces_every,
        audit_origin: spec.audit_origin,
        log: spec.log,
        log_format: spec.log_format,
        log_days: spec.log_days,
        key_pools: spec.key_pool,
        devices: spec.device,
    })
}

fn pki_config(spec: &Spec) -> Result<PkiConfig, Refusal> {
    let url = spec.pki_url.as_ref();
    Ok(PkiConfig {
        address: spec.pki,
        url: url.map(|url| url.trim_end_matches('/').to_owned()),
        clock: spec.tsa_clock,
        accuracy_ms: spec.tsa_accuracy_ms,
        policy: policy(&spec.tsa_policy)?,
        anonymous: spec.tsa_anonymous,
        profiles: Arc::new(certificates::profiles(&spec.certificate_profile)?),
        verifiers: certificates::verifiers(&spec.verifier)?,
        warn_days: certificates::warn_days(&spec.certificate_warn_days),
        anonymous_rate: spec.tsa_anonymous_rate,
        delta_minutes: spec.crl_delta_minutes,
        erasures: spec.erasures.clone(),
    })
}

fn tls(spec: &mut Spec) -> Result<Option<(PathBuf, PathBuf)>, Refusal> {
    match (spec.tls_certificate.take(), spec.tls_key.take()) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => Err(usage(
            "configuration: tls_certificate and tls_key belong together",
        )),
    }
}

fn master_key(spec: &Spec) -> Result<MasterKeySource, Refusal> {
    Ok(match (&spec.master_key_file, spec.master_key_fd) {
        (Some(_), Some(_)) => return Err(usage("configuration: master_key_file or master_key_fd, not both")),
        (_, Some(descriptor)) => MasterKeySource::Descriptor(descriptor),
        (Some(file), None) => MasterKeySource::File(file.clone()),
        (None, None) => MasterKeySource::File(spec.home.join("master.key")),
    })
}

fn check_devices(devices: &[DeviceSpec]) -> Result<(), Refusal> {
    for (at, device) in devices.iter().enumerate() {
        let name = &device.name;
        if device.kind == Kind::Pkcs11 && device.token_label.is_none() && device.token_serial.is_none() {
            return Err(usage(format!(
                "configuration: device '{name}' names neither token_label nor token_serial"
            )));
        }
        if devices[..at].iter().any(|other| other.name == *name) {
            return Err(usage(format!("configuration: two devices are named '{name}'")));
        }
        let pins = [
            device.pin_file.is_some(),
            device.pin_fd.is_some(),
            device.pin_credential.is_some(),
        ];
        if pins.iter().filter(|given| **given).count() != 1 {
            return Err(usage(format!(
                "configuration: device '{name}' needs exactly one of pin_file, pin_fd and pin_credential"
            )));
        }
        if device.processes == 0 || device.sessions == 0 || device.in_flight_max == Some(0) {
            return Err(usage(format!(
                "configuration: device '{name}': processes, sessions and in_flight_max are at least 1"
            )));
        }
    }
    Ok(())
}

fn check_key_pools(pools: &[KeyPoolSpec], devices: &[DeviceSpec]) -> Result<(), Refusal> {
    for pool in pools {
        if let Some(device) = &pool.device
            && !devices.iter().any(|known| known.name == *device)
        {
            return Err(usage(format!(
                "configuration: key_pool: no device is named '{device}'"
            )));
        }
        if pool.low > pool.high {
            return Err(usage(format!(
                "configuration: key_pool {}: low is above high",
                pool.kind
            )));
        }
    }
    Ok(())
}

impl Config {
    /// The devices with their PINs, which are read now.
    pub(crate) fn devices(&self) -> Result<Vec<DeviceConfig>, Refusal> {
        self.devices.iter().map(DeviceSpec::read).collect()
    }

    /// One of the devices.
    pub(crate) fn device(&self, name: &str) -> Result<DeviceConfig, Refusal> {
        let spec = self.devices.iter().find(|spec| spec.name == name);
        spec.ok_or_else(|| {
            Refusal::new(
                Code::NotFound,
                format!("the configuration has no device '{name}'"),
            )
        })?
        .read()
    }
}

impl DeviceSpec {
    fn read(&self) -> Result<DeviceConfig, Refusal> {
        let program =
            std::env::current_exe().map_err(|error| usage(format!("this program's own path: {error}")))?;
        Ok(DeviceConfig {
            name: self.name.as_str().into(),
            kind: self.kind,
            module: self.module.clone(),
            token_label: self.token_label.clone(),
            token_serial: self.token_serial.clone(),
            pin: self.pin()?.trim_end().into(),
            processes: self.processes,
            processes_max: self.processes_max.unwrap_or(self.processes).max(self.processes),
            sessions: self.sessions,
            in_flight_max: self.in_flight_max,
            unwrapped_max: self.unwrapped_max,
            probe_key: self.probe_key.clone(),
            writable: self.writable.clone(),
            environment: self.environment.clone().into_iter().collect(),
            program,
        })
    }

    fn pin(&self) -> Result<Zeroizing<String>, Refusal> {
        let failed = |what: &str, error: std::io::Error| {
            Refusal::new(Code::File, format!("device '{}': {what}: {error}", self.name))
        };
        if let Some(path) = &self.pin_file {
            let pin = std::fs::read_to_string(path);
            return pin
                .map(Zeroizing::new)
                .map_err(|error| failed(&path.display().to_string(), error));
        }
        if let Some(name) = &self.pin_credential {
            // systemd.exec(5), LoadCredential=: a file of this name in a folder that only the service can read.
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| usage(format!("device '{}': systemd passes no credentials", self.name)))?;
            let pin = std::fs::read_to_string(Path::new(&folder).join(name));
            return pin.map(Zeroizing::new).map_err(|error| failed(name, error));
        }
        let descriptor = self.pin_fd.unwrap_or(-1);
        let pin = std::fs::read_to_string(format!("/proc/self/fd/{descriptor}"));
        pin.map(Zeroizing::new)
            .map_err(|error| failed(&format!("descriptor {descriptor}"), error))
    }
}

/// Every value and where it came from, a line each.
pub(crate) fn print(layers: &Layers) -> Result<String, Refusal> {
    load(layers)?;
    let figment = figment(layers)?;
    let values: BTreeMap<String, figment::value::Value> =
        figment.extract().map_err(|error| usage(explain(&error)))?;
    let mut out = String::new();
    for (key, value) in values {
        let origin = figment
            .find_metadata(&key)
            .map_or_else(|| "default".into(), origin);
        let value = serde_json::to_string(&value).unwrap_or_default();
        out.push_str(&format!("{key} = {value}  # {origin}\n"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(file: Option<&Path>, flags: &[(&str, &str)]) -> Layers {
        let flags = flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Layers {
            file: file.map(Into::into),
            flags,
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let file = file("listen = \"127.0.0.1:1000\"\nlanes = 7\n");
        let config = load(&layers(Some(file.path()), &[("listen", "127.0.0.1:2000")])).unwrap();
        assert_eq!(config.listen.port(), 2000);
        assert_eq!(config.lanes, Bounds { min: 7, max: 7 });
        assert_eq!(config.admin.port(), 9443);
        let printed = print(&layers(Some(file.path()), &[("listen", "127.0.0.1:2000")])).unwrap();
        assert!(
            printed.contains("listen = \"127.0.0.1:2000\"  # flag"),
            "{printed}"
        );
        assert!(
            printed.contains(&format!("lanes = 7  # {}", file.path().display())),
            "{printed}"
        );
        assert!(
            printed.contains("admin = \"127.0.0.1:9443\"  # default"),
            "{printed}"
        );
    }

    #[test]
    fn unknown_keys_and_bad_values_are_errors_that_name_them() {
        let unknown = file("lisen = \"127.0.0.1:1\"\n");
        let error = load(&layers(Some(unknown.path()), &[])).unwrap_err();
        assert!(error.message.contains("lisen"), "{error}");
        let bad = load(&layers(None, &[("listen", "nowhere")])).unwrap_err();
        assert!(bad.message.contains("listen"), "{bad}");
        let half = load(&layers(None, &[("tls_key", "k.pem")])).unwrap_err();
        assert!(half.message.contains("belong together"), "{half}");
    }

    #[test]
    fn a_device_needs_a_token_and_a_name_of_its_own() {
        let device = "[[device]]\nname = \"a\"\nmodule = \"m.so\"\npin_file = \"p\"\n";
        let error = load(&layers(Some(file(device).path()), &[])).unwrap_err();
        assert!(error.message.contains("token_label"), "{error}");
        let labelled = format!("{device}token_label = \"t\"\n");
        assert!(load(&layers(Some(file(&labelled).path()), &[])).is_ok());
        let twice = format!("{labelled}{labelled}");
        let error = load(&layers(Some(file(&twice).path()), &[])).unwrap_err();
        assert!(error.message.contains("two devices"), "{error}");
    }
}
