//! What verification says of a package, for people and for programs.

use serde::Serialize;

use super::stamp::Stamp;
use crate::ses::SignatureReport;

/// How a signature stands, or a finding about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Everything that was looked at is as it should be. A finding of this kind is a remark.
    Valid,
    /// Something is wrong.
    Invalid,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What follows from it.
    pub standing: Standing,
    /// A stable name.
    pub code: &'static str,
    /// One sentence.
    pub text: String,
}

/// The two kinds of signature (GB/T 33190-2016 18.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureKind {
    /// With an electronic seal.
    Seal,
    /// Without one.
    Sign,
}

impl SignatureKind {
    /// As Signatures.xml writes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Seal => "Seal",
            Self::Sign => "Sign",
        }
    }
}

/// How a file stands to its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceState {
    /// As it was signed.
    Intact,
    /// Changed since.
    Changed,
    /// No longer there.
    Missing,
}

/// A file that a signature covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// As Signature.xml names it.
    pub file: String,
    /// How it stands.
    pub state: ReferenceState,
}

/// A stamp, and on which page it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StampPlace {
    /// The page, counted from 1; `None` if there is no such page.
    pub page: Option<usize>,
    /// Where on it.
    #[serde(flatten)]
    pub stamp: Stamp,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SignatureVerdict {
    /// The document of the package, counted from 0.
    pub document: usize,
    /// Its id in Signatures.xml.
    pub id: String,
    /// The path of its Signature.xml.
    pub path: String,
    /// With a seal or without.
    pub kind: SignatureKind,
    /// The worst of the findings.
    pub standing: Standing,
    /// Everything that was found.
    pub findings: Vec<Finding>,
    /// The software that made it.
    pub provider: String,
    /// When Signature.xml says it was made, as it is written there. Nobody proves it.
    pub written_time: Option<String>,
    /// The signer, as RFC 4514 writes names, if the signature holds.
    pub signer: Option<String>,
    /// When it was signed, in milliseconds since 1970, if the signature holds.
    pub signed_ms: Option<u64>,
    /// Seal and signing time, for a seal signature that holds.
    pub seal: Option<SignatureReport>,
    /// The files it covers.
    pub references: Vec<Reference>,
    /// Files of the package that it does not cover, but for its own and those of other signatures.
    pub not_covered: Vec<String>,
    /// Files that came with later signatures.
    pub later: Vec<String>,
    /// Where the seal is shown.
    pub stamps: Vec<StampPlace>,
}

/// All signatures of a package.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The worst of the signatures; `None` if there are none.
    pub standing: Option<Standing>,
    /// In the order of the documents and their lists.
    pub signatures: Vec<SignatureVerdict>,
}
