//! The Rust client: one interface over both transports. A lost connection loses no outcome; ask again with the same
//! idempotency key.

mod https;
mod profile;
mod quic;
mod retry;
mod tls;

use crate::algorithm::{Algorithm, Format};
use crate::error_code::{Code, Refusal};
use crate::ids::{CredentialId, IdempotencyKey};
use crate::message::{CredentialInfo, ItemOutcome, UsageInfo};
use crate::seal::{DocumentKind, SealInfo};

pub use https::HttpsClient;
pub use profile::{Profile, ProfileError};
pub use quic::{NotYetProved, QuicClient};
pub use retry::{Retries, RetryPolicy, RetryingClient, Tried};

/// Which way to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// The native protocol over QUIC.
    #[default]
    Quic,
    /// JSON over HTTPS.
    Https,
}

/// What to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest {
    /// The credential's id.
    pub credential: String,
    /// How.
    pub algorithm: Algorithm,
    /// The format of the result.
    pub format: Format,
    /// Names the call for good.
    pub key: IdempotencyKey,
    /// Digests, or messages where the algorithm takes one.
    pub inputs: Vec<Vec<u8>>,
    /// SM2 user id for `sm2-sm3`.
    pub user_id: Option<Vec<u8>>,
    /// Milliseconds after which the answer is of no use.
    pub deadline_ms: Option<u32>,
}

/// Under which seal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderSeal {
    /// The seal's id.
    pub seal: String,
    /// What it is put on.
    pub document: DocumentKind,
    /// The agent who uses it, by subject id; `None`: the app itself.
    pub agent: Option<String>,
}

/// A connected client.
#[derive(Debug)]
pub enum Client {
    /// Over QUIC.
    Quic(QuicClient),
    /// Over HTTPS.
    Https(HttpsClient),
}

impl Client {
    /// Connects and proves the app. `connections` is how many HTTPS connections may be used at once; QUIC needs one.
    pub async fn connect(
        profile: &Profile,
        transport: Transport,
        connections: usize,
    ) -> Result<Self, Refusal> {
        match transport {
            Transport::Quic => Ok(Self::Quic(QuicClient::connect(profile).await?)),
            Transport::Https => Ok(Self::Https(HttpsClient::connect(profile, connections).await?)),
        }
    }

    /// Signs; one outcome per input, in order.
    pub async fn sign(&self, request: &SignRequest) -> Result<Vec<ItemOutcome>, Refusal> {
        match self {
            Self::Quic(client) => client.sign(request).await,
            Self::Https(client) => client.sign(request).await,
        }
    }

    /// Signs under a seal that is granted to the app. The request's credential is empty, or the seal's own.
    pub async fn sign_under(
        &self,
        request: &SignRequest,
        under: &UnderSeal,
    ) -> Result<Vec<ItemOutcome>, Refusal> {
        match self {
            Self::Quic(client) => client.sign_under(request, Some(under)).await,
            Self::Https(client) => client.sign_under(request, Some(under)).await,
        }
    }

    /// A seal of the app's tenant, with its picture if it is granted to the app.
    pub async fn seal(&self, id: &str) -> Result<Option<SealInfo>, Refusal> {
        let page = Page {
            after: None,
            only: Some(id),
        };
        let found = self.seals_page(page).await?;
        Ok(found.into_iter().find(|info| info.id == id))
    }

    /// The seals of the app's tenant, without their pictures.
    pub async fn seals(&self) -> Result<Vec<SealInfo>, Refusal> {
        let mut all: Vec<SealInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.id.clone());
            let page = Page {
                after: after.as_deref(),
                only: None,
            };
            let more = self.seals_page(page).await?;
            let goes_on = more.first().is_some_and(|info| Some(&info.id) > after.as_ref());
            if !goes_on {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    async fn seals_page(&self, page: Page<'_>) -> Result<Vec<SealInfo>, Refusal> {
        match self {
            Self::Quic(client) => client.seals_page(page).await,
            Self::Https(client) => client.seals_page(page).await,
        }
    }

    /// What became of an earlier call.
    pub async fn look_up(&self, key: &IdempotencyKey) -> Result<Vec<ItemOutcome>, Refusal> {
        match self {
            Self::Quic(client) => client.look_up(key).await,
            Self::Https(client) => client.look_up(key).await,
        }
    }

    /// The app's credentials.
    pub async fn credentials(&self) -> Result<Vec<CredentialInfo>, Refusal> {
        let mut all: Vec<CredentialInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.id.clone());
            let page = Page {
                after: after.as_deref(),
                only: None,
            };
            let more = self.credentials_page(page).await?;
            // A server that does not go on would have us ask for ever.
            let goes_on = more.first().is_some_and(|info| Some(&info.id) > after.as_ref());
            if !goes_on {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// One of the app's credentials.
    pub async fn credential(&self, id: &CredentialId) -> Result<Option<CredentialInfo>, Refusal> {
        let page = Page {
            after: None,
            only: Some(id.as_str()),
        };
        let found = self.credentials_page(page).await?;
        Ok(found.into_iter().find(|info| info.id == id.as_str()))
    }

    async fn credentials_page(&self, page: Page<'_>) -> Result<Vec<CredentialInfo>, Refusal> {
        match self {
            Self::Quic(client) => client.credentials_page(page).await,
            Self::Https(client) => client.credentials_page(page).await,
        }
    }

    /// The app's usage.
    pub async fn usage(&self) -> Result<UsageInfo, Refusal> {
        match self {
            Self::Quic(client) => client.usage().await,
            Self::Https(client) => client.usage().await,
        }
    }

    /// A time stamp, recorded and charged, over the native protocol: from a TimeStampReq to a TimeStampResp (RFC 3161
    /// 2.4), both in DER. Over plain HTTP any RFC 3161 client has one.
    pub async fn stamp(&self, query: &[u8], authority: Option<&str>) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Quic(client) => client.stamp(query, authority).await,
            Self::Https(_) => Err(only_native("time stamps")),
        }
    }

    /// How certificates stand, over the native protocol: from an OCSPRequest to an OCSPResponse (RFC 6960 4), both in
    /// DER. Over plain HTTP any OCSP client is told.
    pub async fn status(&self, query: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Quic(client) => client.status(query).await,
            Self::Https(_) => Err(only_native("the status of certificates")),
        }
    }

    /// Says goodbye.
    pub async fn close(&self) {
        if let Self::Quic(client) = self {
            client.close().await;
        }
    }
}

fn only_native(what: &str) -> Refusal {
    let text = format!("{what}: over the native protocol (QUIC), or at the pki listener, not over HTTPS");
    Refusal::new(Code::Usage, text)
}

/// Which of the app's credentials, or of its tenant's seals.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page<'a> {
    /// Those after this id.
    pub after: Option<&'a str>,
    /// Only this one.
    pub only: Option<&'a str>,
}

fn connection_error(what: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Connection, format!("{what}: {error}"))
}

fn bad_answer(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::BadAnswer,
        format!("the server's answer does not follow the protocol: {what}"),
    )
}
