//! What waits for a second operator, and what operators have done.

use std::sync::Arc;

use actors::bill;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use protocol::error_code::{Code, Refusal};
use protocol::ids::Sequence;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Decision, Entry, Record};
use utoipa::ToSchema;

use super::guard::{Audits, Manages, Reads};
use super::{Console, Named, Sent, Shared, refuse};
use crate::admin::operator::{Operator, Order};

/// Journal entries looked through for one answer.
const LOOKED_AT_MAX: u64 = 10_000;

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/operator/v1/proposals", get(list))
        .route("/operator/v1/proposals/{id}/decision", post(decide))
        .route("/operator/v1/actions", get(actions))
}

/// How a proposal is decided.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDecision {
    /// `approve` or `reject`.
    #[schema(value_type = String)]
    decision: Decision,
}

/// Where to begin.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// The first journal entry to look at; 1 if not given.
    from: Option<u64>,
}

/// The newest proposals.
#[utoipa::path(
    get, path = "/operator/v1/proposals", tag = "approvals",
    responses((status = 200, content_type = "application/json", description = "Action, order, proposer, until when it waits, and what became of it."))
)]
pub(super) async fn list(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::ListProposals).await
}

/// Approves a proposal, which carries it out, or rejects it. Whoever proposed it can only take it back.
#[utoipa::path(
    post, path = "/operator/v1/proposals/{id}/decision", tag = "approvals", request_body = NewDecision,
    params(("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "Approved: what the order answers."),
        (status = 403, description = "Proposed by the same operator."), (status = 409, description = "Decided or expired."))
)]
pub(super) async fn decide(
    State(console): Shared,
    Manages(asker): Manages,
    Named(id): Named<String>,
    Sent(NewDecision { decision }): Sent<NewDecision>,
) -> Response {
    if decision == Decision::Expire {
        let text = "a proposal is approved or rejected; it expires by itself";
        return refuse(&Refusal::new(Code::MalformedRequest, text));
    }
    let actor = asker.actor();
    let question = move |operator: &Operator| operator.decide(&actor, &id, decision);
    console.answer(question).await
}

/// What operators have done, from the journal.
#[utoipa::path(
    get, path = "/operator/v1/actions", tag = "approvals", params(Start),
    responses((status = 200, content_type = "application/json", description = "`actions`: entry, time, actor, action, subject; `next`: where to go on, null at the end."))
)]
pub(super) async fn actions(
    State(console): Shared,
    Audits(asker): Audits,
    query: Result<Query<Start>, QueryRejection>,
) -> Response {
    let Ok(Query(Start { from })) = query else {
        let text = "the query takes `from`, a number";
        return refuse(&Refusal::new(Code::MalformedRequest, text));
    };
    tracing::info!(operator = %asker.name, "the record of actions is read");
    let question = move |operator: &Operator| read(operator, from.unwrap_or(1));
    console.answer(question).await
}

fn read(operator: &Operator, from: u64) -> Result<Value, Refusal> {
    let reader = operator.store.reader().map_err(|error| error.refusal())?;
    let mut actions = Vec::new();
    let visit = |entry: Entry| {
        actions.extend(show(&entry));
        Ok(())
    };
    let next = reader
        .some_entries(Sequence(from), LOOKED_AT_MAX, visit)
        .map_err(|error| error.refusal())?;
    Ok(json!({ "actions": actions, "next": next }))
}

fn show(entry: &Entry) -> Option<Value> {
    let Record::Change {
        actor,
        action,
        subject,
    } = &entry.record
    else {
        return None;
    };
    Some(json!({
        "entry": entry.sequence,
        "time": bill::moment(entry.at),
        "actor": actor,
        "action": action,
        "subject": subject,
    }))
}
