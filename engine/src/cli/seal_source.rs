//! What `cinnabar seal` signs with: a credential, or a seal, which brings its picture, its size and its credential.

use documents::pdf::SealImage;
use protocol::client::{Client, SignRequest, UnderSeal};
use protocol::error_code::{Code, Refusal};
use protocol::message::CredentialInfo;
use protocol::seal::{DocumentKind, SealInfo, SealState};
use store::NotSealed;

use super::sign::{find, only_signature, sign_one};

/// What is signed with.
pub(super) struct Source {
    /// The credential that signs.
    pub(super) info: CredentialInfo,
    /// The seal that it signs under.
    seal: Option<(SealInfo, UnderSeal)>,
}

impl Source {
    /// A credential.
    pub(super) async fn credential(client: &Client, id: &str) -> Result<Self, Refusal> {
        let info = find(client, id).await?;
        Ok(Self { info, seal: None })
    }

    /// A seal that is granted to the app, and the agent who uses it.
    pub(super) async fn seal(
        client: &Client,
        id: &str,
        document: DocumentKind,
        agent: Option<&str>,
    ) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(Code::UnknownSeal, format!("no seal '{id}' for this app"));
        let seal = client.seal(id).await?.ok_or_else(unknown)?;
        let under = UnderSeal {
            seal: id.to_owned(),
            document,
            agent: agent.map(str::to_owned),
        };
        Ok(Self {
            info: find(client, &seal.credential).await?,
            seal: Some((seal, under)),
        })
    }

    /// The seal's picture. Only whoever may use the seal has it.
    pub(super) fn picture(&self) -> Result<Option<SealImage>, Refusal> {
        let Some((seal, _)) = &self.seal else {
            return Ok(None);
        };
        let withheld = || match seal.state {
            SealState::Active => NotSealed::NotGranted.refusal(),
            other => NotSealed::State(other).refusal(),
        };
        let png = seal.picture.as_ref().ok_or_else(withheld)?;
        let image = SealImage::from_png(png);
        let unusable = |error| {
            Refusal::new(
                Code::ImageUnusable,
                format!("the picture of seal '{}': {error}", seal.id),
            )
        };
        image.map(Some).map_err(unusable)
    }

    /// The seal's width, in millimetres.
    pub(super) fn width_mm(&self) -> Option<f64> {
        self.seal.as_ref().map(|(seal, _)| f64::from(seal.width_mm))
    }

    /// The signature of a request with one item.
    pub(super) async fn sign(&self, client: &Client, request: &SignRequest) -> Result<Vec<u8>, Refusal> {
        match &self.seal {
            None => sign_one(client, request).await,
            Some((_, under)) => only_signature(request, client.sign_under(request, under).await?),
        }
    }
}
