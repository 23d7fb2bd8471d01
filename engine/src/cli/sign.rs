//! `cinnabar sign`: a digest or a file; with `--state`, what a sealing asks for (`steps.rs`).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::client::{Client, Profile, SignRequest};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, IdempotencyKey};
use protocol::message::{CredentialInfo, ItemOutcome};
use protocol::verify::PublicKey;

use super::{content, print_line, steps};
use crate::args::SignArguments;

pub(super) async fn run(arguments: SignArguments) -> Result<(), Refusal> {
    if let Some(state) = &arguments.what.state {
        return steps::answer(&arguments, state).await;
    }
    let profile = Profile::read(&arguments.profile)?;
    let client = Client::connect(&profile, arguments.evidence.transport.into(), 1).await?;
    let result = sign(&client, &arguments).await;
    client.close().await;
    let signature = result?;
    match &arguments.out {
        Some(path) => std::fs::write(path, signature)
            .map_err(|error| Refusal::new(Code::File, format!("{}: {error}", path.display()))),
        None => print_line(&STANDARD.encode(signature)),
    }
}

async fn sign(client: &Client, arguments: &SignArguments) -> Result<Vec<u8>, Refusal> {
    let credential = arguments.credential.clone().unwrap_or_default();
    let info = find(client, &credential).await?;
    let key = public_key(&info)?;
    let algorithm = content::pick(&key, arguments.algorithm)?;
    let input = content::read(
        &arguments.what.content(),
        algorithm,
        &key,
        arguments.user_id.as_deref(),
    )?;
    let request = SignRequest {
        credential,
        algorithm: input.algorithm,
        format: arguments.format,
        key: match &arguments.idempotency_key {
            Some(key) => key.clone(),
            None => fresh_key()?,
        },
        inputs: vec![input.bytes],
        user_id: None,
        deadline_ms: None,
    };
    sign_one(client, &request).await
}

/// The signature of a request with one item.
pub(super) async fn sign_one(client: &Client, request: &SignRequest) -> Result<Vec<u8>, Refusal> {
    only_signature(request, client.sign(request).await?)
}

/// The signature of the only item of an answer.
pub(super) fn only_signature(request: &SignRequest, mut items: Vec<ItemOutcome>) -> Result<Vec<u8>, Refusal> {
    match items.pop() {
        Some(ItemOutcome::Done { signature, .. }) => Ok(signature),
        Some(ItemOutcome::Pending) => {
            let text = format!(
                "still running; `cinnabar lookup --idempotency-key {}` tells",
                request.key
            );
            Err(Refusal::new(Code::OutcomePending, text))
        }
        Some(ItemOutcome::Failed(refusal)) => Err(refusal),
        None => Err(Refusal::new(Code::BadAnswer, "no item")),
    }
}

pub(super) fn fresh_key() -> Result<IdempotencyKey, Refusal> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
    IdempotencyKey::new(&format!("cli-{}", URL_SAFE_NO_PAD.encode(bytes)))
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}

pub(super) async fn find(client: &Client, id: &str) -> Result<CredentialInfo, Refusal> {
    let unknown = || {
        Refusal::new(
            Code::UnknownCredential,
            format!("no credential '{id}' for this app"),
        )
    };
    let id = CredentialId::new(id).map_err(|_| unknown())?;
    client.credential(&id).await?.ok_or_else(unknown)
}

pub(super) fn public_key(info: &CredentialInfo) -> Result<PublicKey, Refusal> {
    PublicKey::from_spki(&info.public_key)
        .map_err(|error| Refusal::new(Code::BadAnswer, format!("the credential's public key: {error}")))
}
