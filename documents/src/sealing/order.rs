//! What is wanted of a sealing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SealingError;
use crate::cms::Chain;
use crate::ofd::{Coverage, Provider};
use crate::pdf::{Permission, Placement, SealImage};
use crate::ses;

/// Most signers of one order: RSA or ECDSA for readers abroad, and SM2.
pub const SIGNERS_MAX: usize = 2;
/// Bytes kept for a time-stamp token where the order does not say: an authority with RSA keys and three certificates.
pub const TOKEN_BYTES_DEFAULT: usize = 8 * 1024;
/// Most bytes that can be kept for a time-stamp token.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Bytes; base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Octets(pub Vec<u8>);

impl From<Vec<u8>> for Octets {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Octets {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes());
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

/// The two forms of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// PDF (ISO 32000).
    Pdf,
    /// OFD (GB/T 33190).
    Ofd,
}

/// How long a signature can be verified (ETSI EN 319 142-1 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The signature and the signer's certificates.
    #[default]
    BB,
    /// A time stamp over the signature besides.
    BT,
    /// What shows how the certificates stood besides. PDF only.
    BLt,
    /// A time stamp over all of it besides, to be renewed before its authority's certificate expires. PDF only.
    BLta,
}

/// A signer: a key that is elsewhere, and the certificates for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// How is signed: any of CMS's algorithms in a PDF, `sm2-sm3-e` with a seal.
    pub algorithm: Algorithm,
    /// The certificates, in DER: the signer's first, each followed by its issuer's.
    pub chain: Vec<Octets>,
    /// The electronic seal (GB/T 38540), in DER. With it an SES signature is made, in PDF and OFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Octets>,
}

/// What is seen of the first signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Appearance {
    /// The picture, a PNG of at most 8 MiB. In PDF that of the electronic seal where none is given; an OFD reader takes
    /// no other than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Octets>,
    /// Where it goes.
    pub placement: Placement,
}

/// What is wanted. In JSON every field but `form`, `signers` and `at_ms` may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What the document is.
    pub form: Form,
    /// Who signs, one after the other; at most [`SIGNERS_MAX`]. In an OFD one signer with SM2.
    pub signers: Vec<Signer>,
    /// The level of every signature.
    #[serde(default)]
    pub level: Level,
    /// The signing time that the document states, in milliseconds since 1970.
    pub at_ms: u64,
    /// What is seen; nothing if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appearance: Option<Appearance>,
    /// The field of the first signature: one that waits, or the name of a new one (PDF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The first signature certifies the document (PDF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certify: Option<Permission>,
    /// Why it is signed (PDF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it is signed (PDF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Bytes to keep for each time-stamp token: as many as the authority's tokens have, at most [`TOKEN_BYTES_MAX`].
    #[serde(default = "token_bytes")]
    pub token_bytes: usize,
    /// Which document of the package, counted from 0 (OFD).
    #[serde(default)]
    pub document: usize,
    /// Whether others may sign after this signature (OFD).
    #[serde(default)]
    pub coverage: Coverage,
    /// The software that signs, as the signature names it (OFD).
    #[serde(default = "provider")]
    pub provider: Provider,
}

const fn token_bytes() -> usize {
    TOKEN_BYTES_DEFAULT
}

fn provider() -> Provider {
    Provider {
        name: "Cinnabar".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        company: "Cinnabar".to_owned(),
    }
}

impl Order {
    /// An order of level B-B for one signer, with nothing seen of it.
    pub fn new(form: Form, signer: Signer, at: UnixMillis) -> Self {
        Self {
            form,
            signers: vec![signer],
            level: Level::BB,
            at_ms: at.0,
            appearance: None,
            field: None,
            certify: None,
            reason: None,
            location: None,
            token_bytes: TOKEN_BYTES_DEFAULT,
            document: 0,
            coverage: Coverage::Continue,
            provider: provider(),
        }
    }

    pub(super) const fn at(&self) -> UnixMillis {
        UnixMillis(self.at_ms)
    }

    pub(super) fn check(&self) -> Result<(), SealingError> {
        let pdf_only = self.certify.is_some()
            || self.field.is_some()
            || self.reason.is_some()
            || self.location.is_some();
        let is_ofd = self.form == Form::Ofd;
        let faults = [
            (
                self.signers.is_empty() || self.signers.len() > SIGNERS_MAX,
                "a document is signed by one signer or two",
            ),
            (
                self.token_bytes > TOKEN_BYTES_MAX,
                "a time-stamp token has at most 65536 bytes",
            ),
            (
                is_ofd && self.signers.len() > 1,
                "an OFD is signed by one signer at a time",
            ),
            (
                is_ofd && self.level > Level::BT,
                "an OFD has no place for revocation information; its levels are b-b and b-t",
            ),
            (
                is_ofd && pdf_only,
                "field, certification, reason and location are of PDF",
            ),
        ];
        match faults.iter().find(|(is_fault, _)| *is_fault) {
            Some((_, fault)) => Err(SealingError::Order(fault)),
            None => Ok(()),
        }
    }

    /// The picture for a PDF: the one that is given, or the seal's own.
    pub(super) fn picture(&self) -> Result<Option<SealImage>, SealingError> {
        let Some(appearance) = &self.appearance else {
            return Ok(None);
        };
        if let Some(picture) = &appearance.picture {
            return Ok(Some(SealImage::from_png(&picture.0)?));
        }
        let seal = self.signers.first().and_then(|signer| signer.seal.as_ref());
        let seal = seal.ok_or(SealingError::Order("a seal that is to be seen needs a picture"))?;
        let seal = ses::Seal::read(&seal.0).map_err(ses::PrepareError::from)?;
        Ok(Some(SealImage::from_png(seal.picture.data)?))
    }
}

impl Signer {
    /// The chain, read.
    pub(super) fn chain(&self) -> Result<Arc<Chain>, SealingError> {
        Ok(Arc::new(Chain::new(&self.chain)?))
    }

    pub(super) fn certificate(&self) -> Result<&[u8], SealingError> {
        let first = self.chain.first().map(|certificate| &certificate.0[..]);
        first.ok_or(SealingError::Order("a signer needs a certificate"))
    }
}
