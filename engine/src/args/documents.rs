//! Arguments of what is done with whole documents: `seal`, its three steps, and `verify`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use documents::pdf::Which;
use documents::sealing;
use documents::trust::RevocationRule;
use protocol::algorithm::{Algorithm, Format};
use protocol::ids::{AuthorityName, IdempotencyKey};

use super::{Content, TransportName};
use crate::cli::at::At;

/// A document to be signed.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct DocumentFile {
    /// A PDF; it is not changed.
    #[arg(long, value_name = "FILE")]
    pub(crate) pdf: Option<PathBuf>,
    /// An OFD (GB/T 33190); it is not changed.
    #[arg(long, value_name = "FILE")]
    pub(crate) ofd: Option<PathBuf>,
}

/// How a document is to be sealed.
#[derive(Debug, Args)]
pub(crate) struct SealOptions {
    /// Client profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: PathBuf,
    #[command(flatten)]
    pub(crate) document: DocumentFile,
    /// The credential to seal with. Given twice, a PDF is signed by both, one after the other.
    #[arg(long, value_name = "ID", required_unless_present = "seal")]
    pub(crate) credential: Vec<String>,
    /// The seal to put on it, with its picture, size and credential; it has to be granted to the app. Given twice, a PDF has
    /// both, one after the other.
    #[arg(long, value_name = "ID", conflicts_with = "credential")]
    pub(crate) seal: Vec<String>,
    /// The agent who uses the seal, by subject id, where it is granted to one.
    #[arg(long, value_name = "SUBJECT", requires = "seal")]
    pub(crate) agent: Option<String>,
    /// The electronic seal (GB/T 38540, DER) of the credential with an SM2 key.
    #[arg(long, value_name = "FILE")]
    pub(crate) esl: Option<PathBuf>,
    /// How the first credential signs [default: its first algorithm].
    #[arg(long)]
    pub(crate) algorithm: Option<Algorithm>,
    /// What is seen of the seal: a PNG or JPEG [default: the picture of the electronic seal]. Without picture and place
    /// nothing is seen.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Where it is seen: page=N|last,x=…,y=…[,w=…][,h=…][,unit=pt|mm|fraction][,origin=top-left|bottom-left]
    /// [,anchor=corner|centre]. Without any place, in that of the field.
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["keyword", "paging"])]
    pub(crate) at: Option<At>,
    /// A word that the seal is put on.
    #[arg(long, value_name = "WORD", conflicts_with = "paging")]
    pub(crate) keyword: Option<String>,
    /// On which of the word's places: a number from 1 on, last, or all.
    #[arg(long, value_name = "WHICH", requires = "keyword", default_value = "last", value_parser = which)]
    pub(crate) which: Which,
    /// Put the seal across the edges of all pages, a strip on each (骑缝章).
    #[arg(long)]
    pub(crate) paging: bool,
    /// Width of the seal in millimetres with --keyword and --paging [default: that of --seal, or 42].
    #[arg(long, value_name = "MM", value_parser = millimetres)]
    pub(crate) width: Option<f64>,
    /// The signature field: one that waits for a signature, or the name of a new one [default: a new one].
    #[arg(long, value_name = "NAME")]
    pub(crate) field: Option<String>,
    /// Certify the document: 1 permits no further changes, 2 filling in and signing, 3 annotations besides.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) certify: Option<u8>,
    /// Why it is sealed.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Where it is sealed.
    #[arg(long)]
    pub(crate) location: Option<String>,
    /// Which document of an OFD, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) document_number: usize,
    /// Nobody may sign this OFD any more: its list of signatures is covered as well.
    #[arg(long)]
    pub(crate) last: bool,
    /// The level: with a time stamp (b-t), with what shows how the certificates stood (b-lt), with a time stamp over all
    /// of it (b-lta).
    #[arg(long, value_enum, default_value = "b-b")]
    pub(crate) level: Level,
    /// Bytes to keep for a time stamp.
    #[arg(long, value_name = "BYTES", default_value_t = sealing::TOKEN_BYTES_DEFAULT)]
    pub(crate) token_bytes: usize,
    /// The signing time that the document states, in seconds since 1970 [default: now].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) signing_time: Option<u64>,
    /// Names this call for good: a retry with the same key costs nothing, if it states the same --signing-time
    /// [default: a fresh one].
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<IdempotencyKey>,
}

/// Where time stamps and the standing of certificates come from.
#[derive(Debug, Args)]
pub(crate) struct EvidenceOptions {
    /// Which way signatures go.
    #[arg(long, value_enum, default_value = "quic")]
    pub(crate) transport: TransportName,
    /// The address of another RFC 3161 authority over plain HTTP [default: the profile's engine].
    #[arg(long, value_name = "URL")]
    pub(crate) tsa_url: Option<String>,
    /// Which authority of the engine, where there are several.
    #[arg(long, value_name = "NAME")]
    pub(crate) tsa_authority: Option<AuthorityName>,
    /// CA certificates, PEM, that are not where certificates say.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,
    /// Revocation lists, DER, that are not where certificates say.
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Vec<PathBuf>,
    /// OCSP responses, DER, gathered before.
    #[arg(long, value_name = "FILE")]
    pub(crate) ocsp: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SealArguments {
    #[command(flatten)]
    pub(crate) wanted: SealOptions,
    #[command(flatten)]
    pub(crate) evidence: EvidenceOptions,
    /// Where to write the sealed document.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PrepareArguments {
    #[command(flatten)]
    pub(crate) wanted: SealOptions,
    /// Which way the certificates come.
    #[arg(long, value_enum, default_value = "quic")]
    pub(crate) transport: TransportName,
    /// Where to write what has to be signed. `sign --state` answers it, `assemble` takes the answer.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AssembleArguments {
    /// What was prepared and signed.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) document: DocumentFile,
    /// Where to write the sealed document.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

fn which(text: &str) -> Result<Which, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(Which::All),
        ("last", _) => Ok(Which::Last),
        (_, Ok(number)) if number > 0 => Ok(Which::Nth(number)),
        _ => Err("a number from 1 on, last or all".to_owned()),
    }
}

fn millimetres(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(width) if width.is_finite() && width > 0.0 => Ok(width),
        _ => Err("a length above 0".to_owned()),
    }
}

/// The levels of PAdES (ETSI EN 319 142-1 6.1); OFD has the first two.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Level {
    /// The signature and the signer's certificates.
    #[value(name = "b-b")]
    BB,
    /// A time stamp besides.
    #[value(name = "b-t")]
    BT,
    /// What shows how the certificates stood besides.
    #[value(name = "b-lt")]
    BLt,
    /// A time stamp over all of it besides.
    #[value(name = "b-lta")]
    BLta,
}

impl From<Level> for sealing::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::BB => Self::BB,
            Level::BT => Self::BT,
            Level::BLt => Self::BLt,
            Level::BLta => Self::BLta,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Client profile: to ask for the credential's public key; for documents, whom to believe.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// The credential that signed.
    #[arg(long, value_name = "ID", requires = "profile")]
    pub(crate) credential: Option<String>,
    /// The signer's certificate or public key, PEM, instead of a profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: Option<PathBuf>,
    /// CA certificates, PEM, to believe: needed for CMS and documents, which bring their own signer [default: those of the
    /// profile].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) what: Verified,
    #[command(flatten)]
    pub(crate) revocation: RevocationOptions,
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
    #[arg(long, value_name = "FILE", required_unless_present_any = ["pdf", "ofd"])]
    pub(crate) signature: Option<PathBuf>,
    /// Print JSON: all that was found of a document.
    #[arg(long)]
    pub(crate) json: bool,
    /// Which way to go.
    #[arg(long, value_enum, default_value = "quic")]
    pub(crate) transport: TransportName,
}

/// What is known of revocations, in verification of a document.
#[derive(Debug, Args)]
pub(crate) struct RevocationOptions {
    /// Whether it must be known how certificates stand. What the document holds counts always.
    #[arg(long, value_enum, default_value = "if-known")]
    pub(crate) revocation: RevocationName,
    /// Revocation lists, DER.
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Vec<PathBuf>,
    /// OCSP responses, DER.
    #[arg(long, value_name = "FILE")]
    pub(crate) ocsp: Vec<PathBuf>,
    /// Ask where the certificates say, if they lead to a CA that is believed.
    #[arg(long)]
    pub(crate) fetch: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RevocationName {
    /// It is not looked at.
    Ignore,
    /// What is known counts, what is not known is said.
    IfKnown,
    /// What is not known is not valid.
    Required,
}

impl From<RevocationName> for RevocationRule {
    fn from(name: RevocationName) -> Self {
        match name {
            RevocationName::Ignore => Self::Ignore,
            RevocationName::IfKnown => Self::IfKnown,
            RevocationName::Required => Self::Required,
        }
    }
}

/// A file, a digest, or a document with its signatures inside.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Verified {
    /// A digest in hexadecimal; for SM2 this is e = SM3(Z ‖ M).
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
    /// A file: hashed here.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// A PDF with its signatures inside.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    pub(crate) pdf: Option<PathBuf>,
    /// An OFD with its signatures inside.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    pub(crate) ofd: Option<PathBuf>,
}

impl Verified {
    /// What a signature beside it is over.
    pub(crate) fn content(&self) -> Content {
        Content {
            digest: self.digest.clone(),
            file: self.file.clone(),
        }
    }
}

/// A file, a digest, or what `prepare` wrote.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Signed {
    /// A digest in hexadecimal; for SM2 this is e = SM3(Z ‖ M).
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
    /// A file: hashed here, or sent whole where the algorithm signs messages.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// What `prepare` or `assemble` wrote: the answer is written into it.
    #[arg(long, value_name = "FILE", conflicts_with = "credential")]
    pub(crate) state: Option<PathBuf>,
}

impl Signed {
    /// What a signature is over.
    pub(crate) fn content(&self) -> Content {
        Content {
            digest: self.digest.clone(),
            file: self.file.clone(),
        }
    }
}
