//! The JSON of the HTTPS interface, for both sides of it. Binary fields are base64 (RFC 4648 section 4); certificates
//! and public keys are PEM.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, Format, KeyKind};
use crate::error_code::{Code, Refusal};
use crate::ids::Sequence;
use crate::message::{CredentialInfo, ItemOutcome, UsageInfo};
use crate::seal::{DocumentKind, DocumentKinds, GrantInfo, SealInfo, SealState};

/// `POST /v1/signatures`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignBody {
    /// The credential to sign with; may be left out where a seal is named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub credential: String,
    /// How to sign; the credential's first algorithm if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "ecdsa-p256-sha256"))]
    pub algorithm: Option<Algorithm>,
    /// `raw` (DER for ECDSA and SM2), `pair` (r and s side by side) or `cms` (detached CMS SignedData).
    #[serde(default, skip_serializing_if = "is_raw")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "raw"))]
    pub format: Format,
    /// One digest, base64; whole messages for `ed25519` and `sm2-sm3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Up to 64 digests, base64, instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digests: Option<Vec<String>>,
    /// SM2 user id for `sm2-sm3`, base64; `1234567812345678` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Milliseconds after which the answer is of no use; never later than 2500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u32>,
    /// The seal to sign under, which has to be granted to the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
    /// What the seal is put on: `digest` (if absent), `pdf` or `ofd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "pdf"))]
    pub document: Option<DocumentKind>,
    /// The agent who uses the seal, by subject id, where it is granted to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_raw(format: &Format) -> bool {
    *format == Format::Raw
}

/// How an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ItemStatus {
    /// Signed, recorded and charged.
    Done,
    /// Still running; look it up by its idempotency key.
    Pending,
    /// Not signed and not charged.
    Failed,
}

/// One item of a call.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemBody {
    /// How it stands.
    pub status: ItemStatus,
    /// The signature, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The journal entry that records it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// Where it was asked for: that the journal entry is in the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inclusion: Option<InclusionBody>,
}

/// That a journal entry is in the audit log. The leaf is SHA-256 over a zero byte and the commitment; the commitment is
/// SHA-256 over salt, `committed_ms` (64 bits, big-endian) and record.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InclusionBody {
    /// The journal entry; its leaf has the index one below.
    pub sequence: u64,
    /// When it was committed, Unix milliseconds.
    pub committed_ms: u64,
    /// The entry as recorded, CBOR, base64.
    pub record: String,
    /// Sixteen bytes, base64; absent where they were erased, and with them what could be proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Index, inclusion proof and signed checkpoint, as c2sp.org/tlog-proof writes them.
    pub proof: String,
}

/// Why an item failed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The stable code.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "digest_length"))]
    pub code: Code,
    /// One sentence for people.
    pub detail: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

/// The items of a call, in order.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemsBody {
    /// One for each digest.
    pub items: Vec<ItemBody>,
}

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:cinnabar:error:` and the code.
    pub r#type: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// One sentence that names what was wrong.
    pub detail: String,
    /// The stable code: match on this.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "digest_length"))]
    pub code: Code,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When a retry makes sense, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// Where to ask what became of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The items as far as they are known, where the call is only partly done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<ItemBody>>,
}

impl Problem {
    /// The document for a refusal.
    pub fn of(refusal: &Refusal) -> Self {
        let code = refusal.code;
        Self {
            r#type: format!("urn:cinnabar:error:{code}"),
            title: code.name().replace('_', " "),
            status: code.http_status(),
            detail: refusal.message.clone().into_owned(),
            code,
            retryable: code.retryable(),
            retry_after_ms: refusal.retry_after_ms,
            operation: None,
            items: None,
        }
    }

    /// The refusal a document tells of.
    pub fn refusal(&self) -> Refusal {
        let message = self.detail.clone().into();
        Refusal {
            code: self.code,
            message,
            retry_after_ms: self.retry_after_ms,
        }
    }
}

impl From<&ItemOutcome> for ItemBody {
    fn from(outcome: &ItemOutcome) -> Self {
        let empty = Self {
            status: ItemStatus::Pending,
            signature: None,
            sequence: None,
            error: None,
            inclusion: None,
        };
        match outcome {
            ItemOutcome::Done { signature, sequence } => Self {
                status: ItemStatus::Done,
                signature: Some(STANDARD.encode(signature)),
                sequence: Some(sequence.0),
                ..empty
            },
            ItemOutcome::Pending => empty,
            ItemOutcome::Failed(refusal) => Self {
                status: ItemStatus::Failed,
                error: Some(ErrorBody {
                    code: refusal.code,
                    detail: refusal.message.clone().into_owned(),
                    retryable: refusal.code.retryable(),
                }),
                ..empty
            },
        }
    }
}

impl ItemBody {
    /// The outcome it tells of; `None` if it contradicts itself.
    pub fn outcome(self) -> Option<ItemOutcome> {
        match self.status {
            ItemStatus::Done => Some(ItemOutcome::Done {
                signature: STANDARD.decode(self.signature?).ok()?,
                sequence: Sequence(self.sequence?),
            }),
            ItemStatus::Pending => Some(ItemOutcome::Pending),
            ItemStatus::Failed => {
                let error = self.error?;
                Some(ItemOutcome::Failed(Refusal::new(error.code, error.detail)))
            }
        }
    }
}

/// One of the app's credentials.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialBody {
    /// Its id.
    pub id: String,
    /// The kind of its key.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "p256"))]
    pub kind: KeyKind,
    /// The algorithms it signs with, the default first.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub algorithms: Vec<Algorithm>,
    /// Whether it signs now.
    pub active: bool,
    /// Its public key, PEM.
    pub public_key: String,
    /// Its certificate and the issuers of it without the root, PEM each.
    pub chain: Vec<String>,
}

/// `GET /v1/credentials`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialsBody {
    /// All of them, by id.
    pub credentials: Vec<CredentialBody>,
}

impl From<&CredentialInfo> for CredentialBody {
    fn from(info: &CredentialInfo) -> Self {
        Self {
            id: info.id.clone(),
            kind: info.kind,
            algorithms: info.kind.algorithms().to_vec(),
            active: info.active,
            public_key: to_pem("PUBLIC KEY", &info.public_key),
            chain: info.chain.iter().map(|der| to_pem("CERTIFICATE", der)).collect(),
        }
    }
}

impl CredentialBody {
    /// The same with its binary parts decoded; `None` if they are not PEM.
    pub fn info(self) -> Option<CredentialInfo> {
        let chain = self
            .chain
            .iter()
            .map(|text| from_pem(text))
            .collect::<Option<_>>()?;
        let public_key = from_pem(&self.public_key)?;
        Some(CredentialInfo {
            id: self.id,
            kind: self.kind,
            active: self.active,
            public_key,
            chain,
        })
    }
}

/// A grant: that the app may use a seal.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantBody {
    /// Its id.
    pub id: String,
    /// Which seal.
    pub seal: String,
    /// Whether it was not revoked.
    pub active: bool,
    /// For which agent of the app, by subject id; absent: for the app itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// For what kinds of document.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub documents: Vec<DocumentKind>,
    /// From when on, Unix milliseconds.
    pub from_ms: u64,
    /// Until when, Unix milliseconds.
    pub to_ms: u64,
    /// How often at most; absent: as often as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_max: Option<u64>,
    /// How often it was used.
    pub uses: u64,
}

/// `GET /v1/grants`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantsBody {
    /// By seal, the newest first.
    pub grants: Vec<GrantBody>,
}

/// A seal of the app's tenant.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SealBody {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// `draft`, `in-review`, `active`, `frozen`, `revoked` or `destroyed`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "active"))]
    pub state: SealState,
    /// The credential that signs under it: its certificate is at `/v1/credentials?id=…`.
    pub credential: String,
    /// Displayed width, in millimetres.
    pub width_mm: u32,
    /// Displayed height, in millimetres.
    pub height_mm: u32,
    /// From when on it may be used, Unix milliseconds.
    pub from_ms: u64,
    /// Until when, Unix milliseconds.
    pub to_ms: u64,
    /// What of it is granted to the app.
    pub grants: Vec<GrantBody>,
    /// The picture, PNG, base64: of one seal, where it is granted to the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// The electronic seal as its maker signed it (GB/T 38540, DER, base64), where there is one; as the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ses: Option<String>,
}

/// `GET /v1/seals`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SealsBody {
    /// By id.
    pub seals: Vec<SealBody>,
}

impl GrantBody {
    /// A grant of a seal.
    pub fn of(seal: &str, info: &GrantInfo) -> Self {
        Self {
            id: info.id.clone(),
            seal: seal.to_owned(),
            active: info.active,
            agent: info.agent.clone(),
            documents: DocumentKinds::from_bits(info.documents).map_or_else(Vec::new, DocumentKinds::list),
            from_ms: info.from_ms,
            to_ms: info.to_ms,
            uses_max: info.uses_max,
            uses: info.uses,
        }
    }

    fn info(self) -> GrantInfo {
        GrantInfo {
            id: self.id,
            active: self.active,
            agent: self.agent,
            documents: DocumentKinds::of(&self.documents).map_or(0, DocumentKinds::bits),
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            uses_max: self.uses_max,
            uses: self.uses,
        }
    }
}

impl From<&SealInfo> for SealBody {
    fn from(info: &SealInfo) -> Self {
        let grants = info.grants.iter().map(|grant| GrantBody::of(&info.id, grant));
        let encode = |bytes: &minicbor::bytes::ByteVec| STANDARD.encode(&bytes[..]);
        Self {
            id: info.id.clone(),
            name: info.name.clone(),
            state: info.state,
            credential: info.credential.clone(),
            width_mm: info.width_mm,
            height_mm: info.height_mm,
            from_ms: info.from_ms,
            to_ms: info.to_ms,
            grants: grants.collect(),
            picture: info.picture.as_ref().map(encode),
            ses: info.ses.as_ref().map(encode),
        }
    }
}

impl SealBody {
    /// The same with its binary parts decoded; `None` if they are not base64.
    pub fn info(self) -> Option<SealInfo> {
        let decode = |text: Option<String>| match text {
            Some(text) => STANDARD.decode(text).ok().map(|bytes| Some(bytes.into())),
            None => Some(None),
        };
        Some(SealInfo {
            picture: decode(self.picture)?,
            ses: decode(self.ses)?,
            id: self.id,
            name: self.name,
            state: self.state,
            credential: self.credential,
            width_mm: self.width_mm,
            height_mm: self.height_mm,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            grants: self.grants.into_iter().map(GrantBody::info).collect(),
        })
    }
}

/// Lines end in a line feed, which every reader takes.
fn to_pem(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

fn from_pem(text: &str) -> Option<Vec<u8>> {
    pem::parse(text).ok().map(pem::Pem::into_contents)
}

/// `GET /v1/usage`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsageBody {
    /// Completed signatures of this app.
    pub signatures: u64,
    /// By credential.
    pub by_credential: BTreeMap<String, u64>,
    /// By month, YYYY-MM, Asia/Shanghai.
    pub by_month: BTreeMap<String, u64>,
}

impl From<UsageInfo> for UsageBody {
    fn from(usage: UsageInfo) -> Self {
        Self {
            signatures: usage.signatures,
            by_credential: usage.by_credential.into_iter().collect(),
            by_month: usage.by_month.into_iter().collect(),
        }
    }
}

impl From<UsageBody> for UsageInfo {
    fn from(body: UsageBody) -> Self {
        Self {
            signatures: body.signatures,
            by_credential: body.by_credential.into_iter().collect(),
            by_month: body.by_month.into_iter().collect(),
        }
    }
}

/// Where to ask what became of a call: its idempotency key as one percent-encoded path segment (RFC 3986 2.1).
pub fn operation_path(key: &str) -> String {
    path_of_call("/v1/signatures/", key)
}

/// The same of a call for a certificate.
pub fn certificate_call_path(key: &str) -> String {
    path_of_call("/v1/certificates/calls/", key)
}

fn path_of_call(of: &str, key: &str) -> String {
    let mut path = of.to_owned();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_the_journey_through_json() {
        for outcome in [
            ItemOutcome::Done {
                signature: vec![1, 2, 255],
                sequence: Sequence(7),
            },
            ItemOutcome::Pending,
            ItemOutcome::Failed(Refusal::new(Code::Overloaded, "queue")),
        ] {
            let text = serde_json::to_string(&ItemBody::from(&outcome)).unwrap();
            let back: ItemBody = serde_json::from_str(&text).unwrap();
            assert_eq!(back.outcome(), Some(outcome), "{text}");
        }
    }

    #[test]
    fn unknown_members_and_names_are_refused() {
        let read = |text: &str| serde_json::from_str::<SignBody>(text);
        assert!(read(r#"{"credential":"a","digest":"AA=="}"#).is_ok());
        assert!(read(r#"{"credential":"a","digset":"AA=="}"#).is_err());
        let error = read(r#"{"credential":"a","algorithm":"md5"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("'md5' is not a known algorithm"), "{error}");
    }
}
