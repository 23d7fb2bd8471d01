//! Seals in the words of both sides: how one stands, for what kinds of document it may be used, and what an app is told
//! of it and of its grants.

use std::fmt;
use std::str::FromStr;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// How a seal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
#[repr(u8)]
pub enum SealState {
    /// Being made: it signs nothing.
    #[n(0)]
    Draft = 0,
    /// Somebody has to approve it.
    #[n(1)]
    InReview = 1,
    /// It may be used by those to whom it is granted.
    #[n(2)]
    Active = 2,
    /// It may not be used until it is unfrozen.
    #[n(3)]
    Frozen = 3,
    /// It will not be used again.
    #[n(4)]
    Revoked = 4,
    /// It was never used, and its picture is gone.
    #[n(5)]
    Destroyed = 5,
}

impl SealState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Draft,
        Self::InReview,
        Self::Active,
        Self::Frozen,
        Self::Revoked,
        Self::Destroyed,
    ];

    /// The name in lists and refusals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::InReview => "in-review",
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Revoked => "revoked",
            Self::Destroyed => "destroyed",
        }
    }

    /// The state of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == number)
    }
}

/// A text that names no kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of document; there are digest, pdf and ofd")]
pub struct UnknownDocument;

/// What a seal is put on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum DocumentKind {
    /// Anything of which the service sees a digest only.
    #[default]
    Digest = 0,
    /// A PDF (ISO 32000).
    Pdf = 1,
    /// An OFD (GB/T 33190).
    Ofd = 2,
}

impl DocumentKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Digest, Self::Pdf, Self::Ofd];

    /// The name in JSON and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Pdf => "pdf",
            Self::Ofd => "ofd",
        }
    }

    /// The number on the wire and in the journal.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The kind of a number.
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == number)
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DocumentKind {
    type Err = UnknownDocument;

    fn from_str(text: &str) -> Result<Self, UnknownDocument> {
        let mut known = Self::ALL.into_iter();
        known.find(|kind| kind.name() == text).ok_or(UnknownDocument)
    }
}

/// Kinds of document, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<DocumentKind>", into = "Vec<DocumentKind>")]
pub struct DocumentKinds(u8);

impl DocumentKinds {
    /// All of them.
    pub const EVERY: Self = Self(0b111);

    /// The kinds in a list; `None` where it is empty.
    pub fn of(kinds: &[DocumentKind]) -> Option<Self> {
        let bits = kinds.iter().fold(0, |bits, kind| bits | 1 << kind.wire());
        Self::from_bits(bits)
    }

    /// As the registry has them, a bit for each kind.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The kinds of some bits; `None` where they are of no kind.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits == 0 || bits & !Self::EVERY.0 != 0 {
            return None;
        }
        Some(Self(bits))
    }

    /// Whether this kind is among them.
    pub const fn contains(self, kind: DocumentKind) -> bool {
        self.0 & 1 << kind.wire() != 0
    }

    /// Each of them.
    pub fn list(self) -> Vec<DocumentKind> {
        let all = DocumentKind::ALL.into_iter();
        all.filter(|kind| self.contains(*kind)).collect()
    }
}

impl TryFrom<Vec<DocumentKind>> for DocumentKinds {
    type Error = UnknownDocument;

    fn try_from(kinds: Vec<DocumentKind>) -> Result<Self, UnknownDocument> {
        Self::of(&kinds).ok_or(UnknownDocument)
    }
}

impl From<DocumentKinds> for Vec<DocumentKind> {
    fn from(kinds: DocumentKinds) -> Self {
        kinds.list()
    }
}

/// What an app is told of a grant of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantInfo {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// Whether it was not revoked.
    #[n(1)]
    pub active: bool,
    /// For which agent of the app, by subject id; `None`: the app itself.
    #[n(2)]
    pub agent: Option<String>,
    /// For what kinds of document, a bit for each ([`DocumentKinds::bits`]).
    #[n(3)]
    pub documents: u8,
    /// From when on, Unix milliseconds.
    #[n(4)]
    pub from_ms: u64,
    /// Until when, Unix milliseconds.
    #[n(5)]
    pub to_ms: u64,
    /// How often at most; `None`: as often as it likes.
    #[n(6)]
    pub uses_max: Option<u64>,
    /// How often it was used.
    #[n(7)]
    pub uses: u64,
}

/// What an app is told of a seal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SealInfo {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// What it is called.
    #[n(1)]
    pub name: String,
    /// How it stands.
    #[n(2)]
    pub state: SealState,
    /// The credential that signs under it.
    #[n(3)]
    pub credential: String,
    /// Displayed width, in millimetres.
    #[n(4)]
    pub width_mm: u32,
    /// Displayed height, in millimetres.
    #[n(5)]
    pub height_mm: u32,
    /// From when on it may be used, Unix milliseconds.
    #[n(6)]
    pub from_ms: u64,
    /// Until when, Unix milliseconds.
    #[n(7)]
    pub to_ms: u64,
    /// What of it is granted to the app.
    #[n(8)]
    pub grants: Vec<GrantInfo>,
    /// The picture, PNG: where one seal is asked for that is granted to the app.
    #[n(9)]
    pub picture: Option<ByteVec>,
    /// The electronic seal as its maker signed it (GB/T 38540, SESeal in DER), where there is one; as the picture.
    #[n(10)]
    pub ses: Option<ByteVec>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_documents_are_a_set_that_is_never_empty() {
        let both = DocumentKinds::of(&[DocumentKind::Ofd, DocumentKind::Pdf, DocumentKind::Pdf]).unwrap();
        assert_eq!(both.list(), [DocumentKind::Pdf, DocumentKind::Ofd]);
        assert_eq!(DocumentKinds::from_bits(both.bits()), Some(both));
        assert!(both.contains(DocumentKind::Pdf) && !both.contains(DocumentKind::Digest));
        assert_eq!(DocumentKinds::of(&[]), None);
        assert_eq!(
            (DocumentKinds::from_bits(0), DocumentKinds::from_bits(8)),
            (None, None)
        );
        assert!("docx".parse::<DocumentKind>().is_err());
        for kind in DocumentKind::ALL {
            assert_eq!(DocumentKind::from_wire(kind.wire()), Some(kind));
            assert_eq!(kind.name().parse(), Ok(kind));
            assert!(DocumentKinds::EVERY.contains(kind));
        }
    }

    #[test]
    fn states_are_told_by_number() {
        for state in SealState::ALL {
            assert_eq!(SealState::from_number(state as u8), Some(state));
        }
        assert_eq!(SealState::from_number(6), None);
    }
}
