//! Tenants, their apps, credentials and certificates.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, CredentialId, TenantName};
use serde::Deserialize;
use sla::calendar::MinuteIndex;
use store::{Contract, Environment, TenantState};
use utoipa::ToSchema;

use super::guard::{Manages, Reads};
use super::people::Active;
use super::{Console, Named, Sent, Shared, refuse};
use crate::admin::certificates::CertificateOrder;
use crate::admin::keys::KeyOrder;
use crate::admin::ledger::LedgerOrder;
use crate::admin::operator::Order;

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/operator/v1/tenants", get(tenants).post(create_tenant))
        .route("/operator/v1/tenants/{tenant}/state", post(set_tenant))
        .route("/operator/v1/tenants/{tenant}/activation", post(activate))
        .route("/operator/v1/tenants/{tenant}/agreement", post(bind))
        .route("/operator/v1/tenants/{tenant}/prepaid", post(set_prepaid))
        .route("/operator/v1/tenants/{tenant}/credentials", get(credentials))
        .route(
            "/operator/v1/tenants/{tenant}/credentials/{id}/state",
            post(set_credential),
        )
        .route("/operator/v1/authorities", get(authorities))
        .route("/operator/v1/apps", get(apps).post(create_app))
        .route("/operator/v1/apps/{id}/state", post(set_app))
        .route("/operator/v1/apps/{id}/contract", post(set_contract))
        .route("/operator/v1/apps/{id}/secret", post(rotate_secret))
}

/// A new tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenant {
    #[schema(value_type = String)]
    name: TenantName,
    /// Signatures it may make in all; without it, no limit.
    prepaid: Option<u64>,
}

/// How a tenant stands.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewState {
    /// `active`, `suspended` or `closed`; the last is for good.
    #[schema(value_type = String)]
    state: TenantState,
}

/// From when on production calls are taken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Activation {
    /// `YYYY-MM-DDThh:mm+08:00`; without it, now.
    #[schema(value_type = Option<String>)]
    at: Option<MinuteIndex>,
}

/// The version of an agreement that was in force when it was signed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Binding {
    /// `bjca` or `bestsign`.
    policy: String,
    /// YYYY-MM-DD.
    signed: String,
    /// The contract's own clause on compensation.
    clause: Option<String>,
}

/// A balance.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Prepaid {
    /// Signatures in all; without it, no limit.
    units: Option<u64>,
}

/// A new app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApp {
    #[schema(value_type = String)]
    tenant: TenantName,
    #[schema(value_type = String)]
    id: AppId,
    /// SubjectPublicKeyInfo for HTTP message signatures, base64.
    public_key: Option<String>,
    /// Take native sessions that are not bound to the TLS exporter.
    #[serde(default)]
    binding_optional: bool,
    /// `production` or `sandbox`.
    #[serde(default)]
    #[schema(value_type = String)]
    environment: Environment,
}

/// What an app may ask for at a time. Zero: no limit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewContract {
    /// Signatures a second.
    rate: u32,
    /// Signatures at once after a pause.
    burst: u32,
    /// Calls in flight.
    concurrency: u32,
}

/// A new secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// Hours for which the old secret counts, too.
    overlap_hours: u32,
}

/// All tenants.
#[utoipa::path(
    get, path = "/operator/v1/tenants", tag = "tenants",
    responses((status = 200, content_type = "application/json", description = "By name: state, activation, balance."))
)]
pub(super) async fn tenants(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::ListTenants).await
}

/// Makes a tenant.
#[utoipa::path(
    post, path = "/operator/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 200, description = "Made."), (status = 202, description = "Proposed."))
)]
pub(super) async fn create_tenant(
    State(console): Shared,
    Manages(asker): Manages,
    Sent(NewTenant { name, prepaid }): Sent<NewTenant>,
) -> Response {
    console.order(&asker, Order::CreateTenant { name, prepaid }).await
}

/// Suspends a tenant, closes it, or lets it in again.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/state", tag = "tenants", request_body = NewState,
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Done."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set_tenant(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(NewState { state }): Sent<NewState>,
) -> Response {
    let order = LedgerOrder::SetState { tenant, state };
    console.order(&asker, Order::Ledger(order)).await
}

/// Sets from when on production calls are taken.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/activation", tag = "tenants", request_body = Activation,
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Done."), (status = 202, description = "Proposed."))
)]
pub(super) async fn activate(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(Activation { at }): Sent<Activation>,
) -> Response {
    let at_ms = at.map_or_else(|| clock::wall().0, |minute| u64::from(minute.number()) * 60_000);
    let order = LedgerOrder::Activate { tenant, at_ms };
    console.order(&asker, Order::Ledger(order)).await
}

/// Binds a tenant to a dated version of an agreement.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/agreement", tag = "tenants", request_body = Binding,
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Done."), (status = 202, description = "Proposed."))
)]
pub(super) async fn bind(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(binding): Sent<Binding>,
) -> Response {
    let order = LedgerOrder::BindAgreement {
        tenant,
        policy: binding.policy,
        signed: binding.signed,
        clause: binding.clause,
    };
    console.order(&asker, Order::Ledger(order)).await
}

/// Sets how many signatures a tenant may make in all.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/prepaid", tag = "tenants", request_body = Prepaid,
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Done."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set_prepaid(
    State(console): Shared,
    Manages(asker): Manages,
    Named(name): Named<TenantName>,
    Sent(Prepaid { units }): Sent<Prepaid>,
) -> Response {
    console.order(&asker, Order::SetPrepaid { name, units }).await
}

/// A tenant's credentials.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/credentials", tag = "credentials",
    params(("tenant" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "By id: kind, where the key is, whether it signs."))
)]
pub(super) async fn credentials(
    State(console): Shared,
    Reads(asker): Reads,
    Named(tenant): Named<TenantName>,
) -> Response {
    console.list(&asker, Order::Key(KeyOrder::List { tenant })).await
}

/// Disables a credential, or enables it again.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/credentials/{id}/state", tag = "credentials", request_body = Active,
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "Done; what it has in flight is not released either."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set_credential(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, id)): Named<(TenantName, CredentialId)>,
    Sent(Active { active }): Sent<Active>,
) -> Response {
    let order = KeyOrder::Set { tenant, id, active };
    console.order(&asker, Order::Key(order)).await
}

/// The certificates of a tenant's credentials.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/certificates", tag = "credentials",
    params(("tenant" = String, Path), After),
    responses((status = 200, content_type = "application/json", description = "The oldest first, at most 256, with their standing. Ask again with `after`, the last serial number, until there are fewer."))
)]
pub(super) async fn certificates(
    State(console): Shared,
    Reads(asker): Reads,
    Named(tenant): Named<TenantName>,
    query: Result<Query<After>, QueryRejection>,
) -> Response {
    let after = match after(query) {
        Ok(after) => after,
        Err(refusal) => return refuse(&refusal),
    };
    let order = CertificateOrder::List { tenant, after };
    console.list(&asker, Order::Certificate(order)).await
}

/// Where a list goes on.
#[derive(Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct After {
    /// Those after this one: the last of the answer before.
    after: Option<String>,
}

pub(super) fn after(query: Result<Query<After>, QueryRejection>) -> Result<Option<String>, Refusal> {
    let Ok(Query(After { after })) = query else {
        return Err(Refusal::new(Code::MalformedRequest, "the query takes `after`"));
    };
    Ok(after)
}

/// Certificate authorities, time-stamping authorities and OCSP responders.
#[utoipa::path(
    get, path = "/operator/v1/authorities", tag = "credentials",
    responses((status = 200, content_type = "application/json", description = "By name."))
)]
pub(super) async fn authorities(State(console): Shared, Reads(asker): Reads) -> Response {
    let order = CertificateOrder::Authorities;
    console.list(&asker, Order::Certificate(order)).await
}

/// All apps.
#[utoipa::path(
    get, path = "/operator/v1/apps", tag = "apps",
    responses((status = 200, content_type = "application/json", description = "By id: tenant, environment, contract, how it proves its requests."))
)]
pub(super) async fn apps(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::ListApps).await
}

/// Makes an app.
#[utoipa::path(
    post, path = "/operator/v1/apps", tag = "apps", request_body = NewApp,
    responses((status = 200, content_type = "application/json", description = "`secret`, base64: told here and never again."), (status = 202, description = "Proposed; whoever approves it is told the secret."))
)]
pub(super) async fn create_app(
    State(console): Shared,
    Manages(asker): Manages,
    Sent(new): Sent<NewApp>,
) -> Response {
    let order = Order::CreateApp {
        tenant: new.tenant,
        id: new.id,
        public_key: new.public_key,
        client_certificate: None,
        binding_optional: new.binding_optional,
        environment: new.environment,
    };
    console.order(&asker, order).await
}

/// Revokes an app, or lets it in again.
#[utoipa::path(
    post, path = "/operator/v1/apps/{id}/state", tag = "apps", request_body = Active,
    params(("id" = String, Path)),
    responses((status = 200, description = "Done; what it has in flight is not released either."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set_app(
    State(console): Shared,
    Manages(asker): Manages,
    Named(id): Named<AppId>,
    Sent(Active { active }): Sent<Active>,
) -> Response {
    console.order(&asker, Order::SetApp { id, active }).await
}

/// Sets what an app may ask for at a time.
#[utoipa::path(
    post, path = "/operator/v1/apps/{id}/contract", tag = "apps", request_body = NewContract,
    params(("id" = String, Path)),
    responses((status = 200, description = "Done."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set_contract(
    State(console): Shared,
    Manages(asker): Manages,
    Named(app): Named<AppId>,
    Sent(new): Sent<NewContract>,
) -> Response {
    let contract = Contract {
        rate: new.rate,
        burst: new.burst,
        concurrency: new.concurrency,
    };
    let order = LedgerOrder::SetContract { app, contract };
    console.order(&asker, Order::Ledger(order)).await
}

/// Gives an app a new secret; the old one counts a while longer.
#[utoipa::path(
    post, path = "/operator/v1/apps/{id}/secret", tag = "apps", request_body = Rotation,
    params(("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`secret`, base64, and `old_until`."), (status = 202, description = "Proposed; whoever approves it is told the secret."))
)]
pub(super) async fn rotate_secret(
    State(console): Shared,
    Manages(asker): Manages,
    Named(app): Named<AppId>,
    Sent(Rotation { overlap_hours }): Sent<Rotation>,
) -> Response {
    let overlap_ms = u64::from(overlap_hours) * 3_600_000;
    let order = LedgerOrder::RotateSecret { app, overlap_ms };
    console.order(&asker, Order::Ledger(order)).await
}
