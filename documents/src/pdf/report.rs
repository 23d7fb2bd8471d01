//! What verification says of a file, for people and for programs.

use serde::Serialize;

use super::permission::Permission;

/// How sure one can be (ETSI EN 319 102-1 5.1.3, in other words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that was looked at is as it should be.
    Valid,
    /// Nothing is wrong, but something that would have to be known is not.
    Indeterminate,
    /// Something is wrong.
    Invalid,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What follows from it. `Valid` is a remark.
    pub verdict: Verdict,
    /// A stable name.
    pub code: &'static str,
    /// One sentence.
    pub text: String,
}

impl Finding {
    pub(crate) fn new(verdict: Verdict, code: &'static str, text: impl ToString) -> Self {
        Self {
            verdict,
            code,
            text: text.to_string(),
        }
    }
}

/// What kind of thing changed after a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Another signature.
    Signature,
    /// A time stamp over the document.
    TimeStamp,
    /// A signature field that is still empty.
    EmptySignatureField,
    /// Certificates and revocation lists for later verification.
    ValidationData,
    /// Information about the document that is not part of what it shows.
    Information,
    /// A form field was filled in or emptied.
    FormField,
    /// An annotation was added.
    Annotation,
    /// Anything else.
    Other,
}

/// Something that changed after a signature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Of what kind.
    pub kind: ChangeKind,
    /// What it is.
    pub what: String,
    /// Whether the signature, or the certification of the document, permits it.
    pub permitted: bool,
}

/// A time stamp that holds: its imprint, its signature and its authority's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeStampReport {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// By whom, as RFC 4514 writes names.
    pub authority: String,
}

/// How the certificates of a signature stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationStatus {
    /// It was not looked at.
    NotLookedAt,
    /// None was revoked at the time that counts.
    Good,
    /// One was.
    Revoked,
    /// Nobody says.
    Unknown,
}

/// One signature or document time stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureReport {
    /// The name of its field.
    pub field: String,
    /// Its /SubFilter.
    pub sub_filter: String,
    /// The worst of the findings.
    pub verdict: Verdict,
    /// Everything that was found.
    pub findings: Vec<Finding>,
    /// The signer, as RFC 4514 writes names.
    pub signer: Option<String>,
    /// How it was signed.
    pub algorithm: Option<String>,
    /// When the document says it was signed, in milliseconds since 1970. Nobody proves it.
    pub claimed_time_ms: Option<u64>,
    /// When it existed at the latest, as a time stamp proves.
    pub time_stamp: Option<TimeStampReport>,
    /// Whether the covered bytes are those that were signed.
    pub digest_ok: Option<bool>,
    /// Whether the signature is the signer's.
    pub signature_ok: Option<bool>,
    /// Whether the signer's certificate leads to a trust anchor.
    pub chain_ok: Option<bool>,
    /// Whether the signer's certificate, or one above it, was revoked.
    pub revocation: RevocationStatus,
    /// When it must have been valid: the earliest time that a time stamp proves, else the time of verification, in
    /// milliseconds since 1970.
    pub judged_at_ms: u64,
    /// The electronic seal, in a signature that is made with one.
    pub seal: Option<crate::ses::SignatureReport>,
    /// The revision it covers, counted from 1, and how many there are.
    pub revision: Option<(usize, usize)>,
    /// Ranges of bytes that it does not cover, from and up to: its own value, and later revisions.
    pub not_covered: Vec<(usize, usize)>,
    /// What it permits from then on, if it certifies the document.
    pub certifies: Option<Permission>,
    /// What changed after it.
    pub later_changes: Vec<Change>,
}

/// All signatures of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of the signatures' verdicts; `None` if there are none.
    pub verdict: Option<Verdict>,
    /// In the order of the form.
    pub signatures: Vec<SignatureReport>,
}
