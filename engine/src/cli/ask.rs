//! `cinnabar credentials`, `usage` and `lookup`.

use protocol::client::{Client, HttpsClient, Profile};
use protocol::error_code::{Code, Refusal};
use protocol::ids::IdempotencyKey;
use protocol::json::{CredentialBody, CredentialsBody, ItemBody, ItemsBody, UsageBody};
use protocol::message::ItemOutcome;

use super::{print_json, print_line};
use crate::args::AskArguments;

/// How often it is asked again for a proof that is not ready; each time the server waits a second and a half.
const PROOF_RETRIES: usize = 4;

async fn connect(arguments: &AskArguments) -> Result<Client, Refusal> {
    Client::connect(&Profile::read(&arguments.profile)?, arguments.transport.into(), 1).await
}

pub(super) async fn credentials(arguments: AskArguments) -> Result<(), Refusal> {
    let client = connect(&arguments).await?;
    let list = client.credentials().await;
    client.close().await;
    let list = list?;
    if arguments.json {
        return print_json(&CredentialsBody {
            credentials: list.iter().map(CredentialBody::from).collect(),
        });
    }
    for info in list {
        let state = if info.active { "active" } else { "disabled" };
        let algorithms: Vec<_> = info
            .kind
            .algorithms()
            .iter()
            .map(|algorithm| algorithm.name())
            .collect();
        print_line(&format!(
            "{}\t{}\t{state}\t{}",
            info.id,
            info.kind,
            algorithms.join(" ")
        ))?;
    }
    Ok(())
}

pub(super) async fn usage(arguments: AskArguments) -> Result<(), Refusal> {
    let client = connect(&arguments).await?;
    let usage = client.usage().await;
    client.close().await;
    let usage = UsageBody::from(usage?);
    if arguments.json {
        return print_json(&usage);
    }
    print_line(&format!("signatures\t{}", usage.signatures))?;
    for (month, count) in usage.by_month {
        print_line(&format!("{month}\t{count}"))?;
    }
    Ok(())
}

/// Receipts with their proofs, as JSON; over HTTPS, whatever the profile prefers.
pub(super) async fn look_up_proved(arguments: AskArguments, key: IdempotencyKey) -> Result<(), Refusal> {
    let client = HttpsClient::connect(&Profile::read(&arguments.profile)?, 1).await?;
    let mut answer = client.look_up_proved(&key).await;
    for _ in 0..PROOF_RETRIES {
        // The server has waited before it said so.
        match &answer {
            Err(refusal) if refusal.code == Code::ProofPending => answer = client.look_up_proved(&key).await,
            _ => break,
        }
    }
    print_json(&answer?)
}

pub(super) async fn look_up(arguments: AskArguments, key: IdempotencyKey) -> Result<(), Refusal> {
    let client = connect(&arguments).await?;
    let items = client.look_up(&key).await;
    client.close().await;
    let items = items?;
    if arguments.json {
        return print_json(&ItemsBody {
            items: items.iter().map(ItemBody::from).collect(),
        });
    }
    for (at, item) in items.iter().enumerate() {
        let line = match item {
            ItemOutcome::Done { sequence, .. } => format!("{at}\tdone\tentry {sequence}"),
            ItemOutcome::Pending => format!("{at}\tpending"),
            ItemOutcome::Failed(refusal) => format!("{at}\tfailed\t{refusal}"),
        };
        print_line(&line)?;
    }
    Ok(())
}
