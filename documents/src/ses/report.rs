//! What verification says of seals and seal signatures.

use protocol::clock::UnixMillis;
use serde::Serialize;

use super::{Generation, Seal};
use crate::x509::{Certificate, Name};

/// A seal that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SealReport {
    /// The standard it is made after.
    pub generation: Generation,
    /// Its unique code.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Of what kind it is.
    pub kind: u64,
    /// The vendor of the software that made it.
    pub vendor: String,
    /// The maker, as RFC 4514 writes names.
    pub maker: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// From when it may be used, in milliseconds since 1970.
    pub valid_from_ms: u64,
    /// Until when it may be used, in milliseconds since 1970.
    pub valid_until_ms: u64,
    /// The type of its picture.
    pub picture_kind: String,
    /// Width in millimetres.
    pub width_mm: u64,
    /// Height in millimetres.
    pub height_mm: u64,
    /// What is odd, but does not make it invalid.
    pub warnings: Vec<String>,
}

impl SealReport {
    pub(super) fn new(seal: &Seal<'_>, maker: &Certificate<'_>, warnings: Vec<String>) -> Self {
        Self {
            generation: seal.generation,
            id: seal.id.clone(),
            name: seal.name.clone(),
            kind: seal.kind,
            vendor: seal.vendor.clone(),
            maker: subject(maker),
            created_ms: seal.created.0,
            valid_from_ms: seal.validity.0.0,
            valid_until_ms: seal.validity.1.0,
            picture_kind: seal.picture.kind.clone(),
            width_mm: seal.picture.width_mm,
            height_mm: seal.picture.height_mm,
            warnings,
        }
    }
}

/// Where a signing time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSource {
    /// The signer says so; nobody proves it.
    Claimed,
    /// A time stamp says so.
    TimeStamp,
}

/// A seal signature that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureReport {
    /// The signer, as RFC 4514 writes names.
    pub signer: String,
    /// When it was signed, in milliseconds since 1970.
    pub signed_ms: u64,
    /// Who says so.
    pub time_source: TimeSource,
    /// What it says is sealed.
    pub property_info: String,
    /// The seal.
    pub seal: SealReport,
    /// What is odd, but does not make it invalid.
    pub warnings: Vec<String>,
}

/// A time and who says so.
#[derive(Clone, Copy)]
pub(super) struct SigningTime {
    pub(super) at: UnixMillis,
    pub(super) source: TimeSource,
}

/// The subject, or words that say that there is none to be read.
pub(crate) fn subject(certificate: &Certificate<'_>) -> String {
    Name::from_der(certificate.subject().0).map_or_else(|_| "(unreadable)".into(), |name| name.to_string())
}
