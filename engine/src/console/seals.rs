//! Seals and grants, for those who administer them.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use protocol::ids::{GrantId, SealId, TenantName};
use serde::Deserialize;
use store::SealStep;
use utoipa::ToSchema;

use super::guard::{Manages, Reads};
use super::{Console, Named, Sent, Shared};
use crate::admin::operator::Order;
use crate::admin::seals::{NewGrant, NewSeal, SealOrder};

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/operator/v1/tenants/{tenant}/seals", get(list).post(create))
        .route("/operator/v1/tenants/{tenant}/seals/{id}", get(show))
        .route("/operator/v1/tenants/{tenant}/seals/{id}/files", get(files))
        .route("/operator/v1/tenants/{tenant}/seals/{id}/uses", get(uses))
        .route("/operator/v1/tenants/{tenant}/seals/{id}/step", post(step))
        .route("/operator/v1/tenants/{tenant}/grants", get(grants).post(grant))
        .route(
            "/operator/v1/tenants/{tenant}/grants/{id}/revocation",
            post(revoke),
        )
}

/// What is done with a seal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSealStep {
    /// `submit`, `return`, `approve`, `freeze`, `unfreeze`, `revoke` or `destroy`.
    #[schema(value_type = String)]
    step: SealStep,
    /// Why; the journal keeps it.
    #[serde(default)]
    reason: String,
}

/// Why a grant is revoked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantRevocation {
    /// The journal keeps it.
    #[serde(default)]
    reason: String,
}

/// A tenant's seals.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/seals", tag = "seals", params(("tenant" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "By id, at most 256: state, credential, maker, size, validity, uses."))
)]
pub(super) async fn list(
    State(console): Shared,
    Reads(asker): Reads,
    Named(tenant): Named<TenantName>,
) -> Response {
    let order = SealOrder::List { tenant, after: None };
    console.list(&asker, Order::Seal(order)).await
}

/// One of them, its grants, and what was done with both.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/seals/{id}", tag = "seals",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "With `history` and `grants`."))
)]
pub(super) async fn show(
    State(console): Shared,
    Reads(asker): Reads,
    Named((tenant, id)): Named<(TenantName, SealId)>,
) -> Response {
    console
        .list(&asker, Order::Seal(SealOrder::Show { tenant, id }))
        .await
}

/// Its picture, and the seal as its maker has signed it.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/seals/{id}/files", tag = "seals",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`picture` (PNG) and `ses` (SESeal in DER, or null), base64."))
)]
pub(super) async fn files(
    State(console): Shared,
    Reads(asker): Reads,
    Named((tenant, id)): Named<(TenantName, SealId)>,
) -> Response {
    console
        .list(&asker, Order::Seal(SealOrder::Files { tenant, id }))
        .await
}

/// The first signatures under it, with the grant of each.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/seals/{id}/uses", tag = "seals",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "At most 1,000; `cinnabar seals uses --after` goes on."))
)]
pub(super) async fn uses(
    State(console): Shared,
    Reads(asker): Reads,
    Named((tenant, id)): Named<(TenantName, SealId)>,
) -> Response {
    let order = SealOrder::Uses {
        tenant,
        id,
        grant: None,
        after: 0,
    };
    console.list(&asker, Order::Seal(order)).await
}

/// Makes a draft of a seal.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/seals", tag = "seals", request_body = NewSeal,
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Made."))
)]
pub(super) async fn create(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(new): Sent<NewSeal>,
) -> Response {
    console
        .order(&asker, Order::Seal(SealOrder::Create { tenant, new }))
        .await
}

/// Takes a seal from one state to another.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/seals/{id}/step", tag = "seals", request_body = NewSealStep,
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "Done; what is in flight under a frozen or revoked seal is not released either."), (status = 202, description = "Proposed."))
)]
pub(super) async fn step(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, id)): Named<(TenantName, SealId)>,
    Sent(NewSealStep { step, reason }): Sent<NewSealStep>,
) -> Response {
    let order = SealOrder::Step {
        tenant,
        id,
        step,
        reason,
    };
    console.order(&asker, Order::Seal(order)).await
}

/// The grants of a tenant's seals.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/grants", tag = "seals", params(("tenant" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "By seal: app, agent, kinds of document, validity, uses."))
)]
pub(super) async fn grants(
    State(console): Shared,
    Reads(asker): Reads,
    Named(tenant): Named<TenantName>,
) -> Response {
    let order = SealOrder::Grants { tenant, seal: None };
    console.list(&asker, Order::Seal(order)).await
}

/// Grants a seal.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/grants", tag = "seals", request_body = NewGrant,
    params(("tenant" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`grant`: its id."), (status = 202, description = "Proposed."))
)]
pub(super) async fn grant(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(new): Sent<NewGrant>,
) -> Response {
    console
        .order(&asker, Order::Seal(SealOrder::Grant { tenant, new }))
        .await
}

/// Revokes a grant.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/grants/{id}/revocation", tag = "seals", request_body = GrantRevocation,
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "Done; what is in flight by it is not released either."), (status = 202, description = "Proposed."))
)]
pub(super) async fn revoke(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, id)): Named<(TenantName, GrantId)>,
    Sent(GrantRevocation { reason }): Sent<GrantRevocation>,
) -> Response {
    let order = SealOrder::RevokeGrant { tenant, id, reason };
    console.order(&asker, Order::Seal(order)).await
}
