//! Webhooks, messages to the outside, and alerts.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use protocol::ids::TenantName;
use serde::Deserialize;
use utoipa::ToSchema;

use super::guard::{Manages, Reads};
use super::{Console, Sent, Shared};
use crate::admin::messages::MessageOrder;
use crate::admin::operator::Order;

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/operator/v1/webhooks", get(webhooks).post(set))
        .route("/operator/v1/webhooks/removal", post(remove))
        .route("/operator/v1/messages", get(outbox))
        .route("/operator/v1/alerts", get(alerts))
        .route("/operator/v1/alerts/test", post(test))
}

/// Where messages go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    /// Whose; without it, the operators'.
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// `https`, at a public address.
    url: String,
}

/// Whose webhook goes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    /// Whose; without it, the operators'.
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantName>,
}

/// All webhooks.
#[utoipa::path(
    get, path = "/operator/v1/webhooks", tag = "messages",
    responses((status = 200, content_type = "application/json", description = "`tenant` (null: the operators) and `host`."))
)]
pub(super) async fn webhooks(State(console): Shared, Reads(asker): Reads) -> Response {
    console
        .list(&asker, Order::Messages(MessageOrder::Webhooks))
        .await
}

/// Sets a webhook.
#[utoipa::path(
    post, path = "/operator/v1/webhooks", tag = "messages", request_body = NewWebhook,
    responses((status = 200, content_type = "application/json", description = "`secret`, as Standard Webhooks writes it: told here and never again."), (status = 202, description = "Proposed; whoever approves it is told the secret."))
)]
pub(super) async fn set(
    State(console): Shared,
    Manages(asker): Manages,
    Sent(NewWebhook { tenant, url }): Sent<NewWebhook>,
) -> Response {
    let order = MessageOrder::SetWebhook { tenant, url };
    console.order(&asker, Order::Messages(order)).await
}

/// Removes a webhook.
#[utoipa::path(
    post, path = "/operator/v1/webhooks/removal", tag = "messages", request_body = Removal,
    responses((status = 200, description = "Removed; what waits for it is given up."), (status = 202, description = "Proposed."))
)]
pub(super) async fn remove(
    State(console): Shared,
    Manages(asker): Manages,
    Sent(Removal { tenant }): Sent<Removal>,
) -> Response {
    let order = MessageOrder::RemoveWebhook { tenant };
    console.order(&asker, Order::Messages(order)).await
}

/// The newest messages, sent or not.
#[utoipa::path(
    get, path = "/operator/v1/messages", tag = "messages",
    responses((status = 200, content_type = "application/json", description = "State, attempts, when it is tried next, how the last attempt failed."))
)]
pub(super) async fn outbox(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::Messages(MessageOrder::Outbox)).await
}

/// What is wrong now.
#[utoipa::path(
    get, path = "/operator/v1/alerts", tag = "messages",
    responses((status = 200, content_type = "application/json", description = "`alert`, `subject`, `text`, `since`."))
)]
pub(super) async fn alerts(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::Messages(MessageOrder::Alerts)).await
}

/// Sends the operators a message about nothing.
#[utoipa::path(
    post, path = "/operator/v1/alerts/test", tag = "messages",
    responses((status = 200, description = "On its way."), (status = 409, description = "Nobody to send it to."))
)]
pub(super) async fn test(State(console): Shared, Manages(asker): Manages) -> Response {
    console.order(&asker, Order::Messages(MessageOrder::Test)).await
}
