//! What a document is signed with: a credential, or a seal, which brings its picture, its size and its credential.

use protocol::client::{Client, SignRequest, UnderSeal};
use protocol::error_code::{Code, Refusal};
use protocol::message::CredentialInfo;
use protocol::seal::{DocumentKind, SealInfo, SealState};
use serde::{Deserialize, Serialize};
use store::NotSealed;

use super::sign::{find, only_signature, sign_one};
use crate::args::documents::SealOptions;

/// Who signs, by name: all that the step needs which sees neither document nor picture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Signatory {
    credential: String,
    seal: Option<SealName>,
}

/// A seal, what it is put on, and the agent who uses it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SealName {
    id: String,
    document: DocumentKind,
    agent: Option<String>,
}

impl Signatory {
    /// The credential that signs.
    pub(super) fn credential(&self) -> &str {
        &self.credential
    }

    /// The signature of a request with one item.
    pub(super) async fn sign(&self, client: &Client, request: &SignRequest) -> Result<Vec<u8>, Refusal> {
        let Some(name) = &self.seal else {
            return sign_one(client, request).await;
        };
        let under = UnderSeal {
            seal: name.id.clone(),
            document: name.document,
            agent: name.agent.clone(),
        };
        only_signature(request, client.sign_under(request, &under).await?)
    }
}

/// What is signed with, as the engine knows it.
pub(super) struct Source {
    /// The credential that signs.
    pub(super) info: CredentialInfo,
    seal: Option<SealInfo>,
    signatory: Signatory,
}

impl Source {
    /// Those that the options name, in order.
    pub(super) async fn all(
        client: &Client,
        options: &SealOptions,
        on: DocumentKind,
    ) -> Result<Vec<Self>, Refusal> {
        let mut sources = Vec::new();
        for id in &options.credential {
            sources.push(Self::credential(client, id).await?);
        }
        for id in &options.seal {
            sources.push(Self::seal(client, id, on, options.agent.as_deref()).await?);
        }
        Ok(sources)
    }

    async fn credential(client: &Client, id: &str) -> Result<Self, Refusal> {
        let info = find(client, id).await?;
        let signatory = Signatory {
            credential: info.id.clone(),
            seal: None,
        };
        Ok(Self {
            info,
            seal: None,
            signatory,
        })
    }

    /// A seal that is granted to the app, and the agent who uses it.
    async fn seal(
        client: &Client,
        id: &str,
        document: DocumentKind,
        agent: Option<&str>,
    ) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(Code::UnknownSeal, format!("no seal '{id}' for this app"));
        let seal = client.seal(id).await?.ok_or_else(unknown)?;
        let info = find(client, &seal.credential).await?;
        let signatory = Signatory {
            credential: info.id.clone(),
            seal: Some(SealName {
                id: id.to_owned(),
                document,
                agent: agent.map(str::to_owned),
            }),
        };
        Ok(Self {
            info,
            seal: Some(seal),
            signatory,
        })
    }

    /// Who signs, by name.
    pub(super) fn signatory(&self) -> Signatory {
        self.signatory.clone()
    }

    /// The seal's picture, PNG. Only whoever may use the seal has it.
    pub(super) fn picture(&self) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(seal) = &self.seal else {
            return Ok(None);
        };
        let withheld = || match seal.state {
            SealState::Active => NotSealed::NotGranted.refusal(),
            other => NotSealed::State(other).refusal(),
        };
        let png = seal.picture.as_ref().ok_or_else(withheld)?;
        Ok(Some(png.to_vec()))
    }

    /// The electronic seal (GB/T 38540), if it is one.
    pub(super) fn electronic(&self) -> Option<Vec<u8>> {
        self.seal.as_ref()?.ses.as_ref().map(|der| der.to_vec())
    }

    /// The seal's width, in millimetres.
    pub(super) fn width_mm(&self) -> Option<f64> {
        self.seal.as_ref().map(|seal| f64::from(seal.width_mm))
    }
}
