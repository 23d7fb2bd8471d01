//! Packages, statements, months of the service agreement, and notices of maintenance.

use std::sync::Arc;

use actors::bill;
use actors::reports::{self, Question};
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::TenantName;
use serde::Deserialize;
use serde_json::Value;
use sla::calendar::{MinuteIndex, Month, Span};
use utoipa::ToSchema;

use super::guard::{Manages, Reads};
use super::{Console, Named, Sent, Shared};
use crate::admin::ledger::LedgerOrder;
use crate::admin::operator::{Operator, Order};

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route(
            "/operator/v1/tenants/{tenant}/packages",
            get(packages).post(grant),
        )
        .route("/operator/v1/packages/{package}/corrections", post(correct))
        .route("/operator/v1/package-kinds", get(kinds))
        .route("/operator/v1/tenants/{tenant}/statements/{month}", get(statement))
        .route("/operator/v1/tenants/{tenant}/sla/{month}", get(agreement))
        .route("/operator/v1/notices", get(notices).post(announce))
}

/// A package that was bought.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPackage {
    /// `by-signature`, `by-user`, `by-contract`, `unlimited`, `credit`, or one of your own.
    kind: String,
    /// Units; none for a package without a limit.
    #[serde(default)]
    units: u64,
    /// When its term begins, `YYYY-MM-DDThh:mm+08:00`; without it, now.
    #[schema(value_type = Option<String>)]
    activated: Option<MinuteIndex>,
    /// A contract's or an incident's number.
    #[serde(default)]
    reference: String,
}

/// Units given to a package, or taken from it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCorrection {
    /// Above zero given, below zero taken.
    units: i64,
    /// Why.
    reason: String,
}

/// A notice of maintenance.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewNotice {
    /// Its name.
    id: String,
    /// When the service may be interrupted, `YYYY-MM-DDThh:mm+08:00`.
    #[schema(value_type = String)]
    from: MinuteIndex,
    /// Until when.
    #[schema(value_type = String)]
    to: MinuteIndex,
    /// What customers are told.
    #[serde(default)]
    text: String,
    /// The notice whose window this one changes.
    replaces: Option<String>,
}

fn about(operator: &Operator, tenant: &TenantName, question: Question) -> Result<Value, Refusal> {
    let directory = operator.store.directory();
    let missing = || Refusal::new(Code::NotFound, format!("no tenant '{tenant}'"));
    let tenant = directory.tenant(tenant.as_str()).ok_or_else(missing)?;
    let reader = operator.store.reader().map_err(|error| error.refusal())?;
    reports::answer(&reader, directory, &tenant, question)
}

/// The same about one of its months.
async fn about_month(
    console: &Arc<Console>,
    tenant: TenantName,
    month: String,
    question: fn(Month) -> Question,
) -> Response {
    let ask = move |operator: &Operator| {
        let month = bill::read_month(&month, clock::wall())?;
        about(operator, &tenant, question(month))
    };
    console.answer(ask).await
}

/// A tenant's packages, in order of expiry.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/packages", tag = "books",
    params(("tenant" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`packages`: kind, unit, state, term, price and the balance of each account."))
)]
pub(super) async fn packages(State(console): Shared, _: Reads, Named(tenant): Named<TenantName>) -> Response {
    let question = move |operator: &Operator| about(operator, &tenant, Question::Packages);
    console.answer(question).await
}

/// Grants a package.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/packages", tag = "books", request_body = NewPackage,
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Granted."), (status = 202, description = "Proposed."))
)]
pub(super) async fn grant(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(new): Sent<NewPackage>,
) -> Response {
    let order = LedgerOrder::Grant {
        tenant,
        kind: new.kind,
        units: new.units,
        activated_ms: new.activated.map(|minute| u64::from(minute.number()) * 60_000),
        reference: new.reference,
    };
    console.order(&asker, Order::Ledger(order)).await
}

/// The kinds of packages, with their prices and terms.
#[utoipa::path(
    get, path = "/operator/v1/package-kinds", tag = "books",
    responses((status = 200, content_type = "application/json", description = "By name (docs/metering.md)."))
)]
pub(super) async fn kinds(State(console): Shared, _: Reads) -> Response {
    let question = |operator: &Operator| {
        let reader = operator.store.reader().map_err(|error| error.refusal())?;
        let kinds = reader.package_kinds().map_err(|error| error.refusal())?;
        serde_json::to_value(kinds).map_err(|error| Refusal::new(Code::Internal, error.to_string()))
    };
    console.answer(question).await
}

/// Puts a package right.
#[utoipa::path(
    post, path = "/operator/v1/packages/{package}/corrections", tag = "books", request_body = NewCorrection,
    params(("package" = u32, Path, description = "Its number.")),
    responses((status = 200, description = "Booked."), (status = 202, description = "Proposed."))
)]
pub(super) async fn correct(
    State(console): Shared,
    Manages(asker): Manages,
    Named(package): Named<u32>,
    Sent(NewCorrection { units, reason }): Sent<NewCorrection>,
) -> Response {
    let order = LedgerOrder::Correct {
        package,
        units,
        reason,
    };
    console.order(&asker, Order::Ledger(order)).await
}

/// A tenant's statement of a month.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/statements/{month}", tag = "books",
    params(("tenant" = String, Path), ("month" = String, Path, description = "YYYY-MM, Asia/Shanghai.")),
    responses((status = 200, content_type = "application/json", description = "`lines`: units by app, credential, operation and package."))
)]
pub(super) async fn statement(
    State(console): Shared,
    _: Reads,
    Named((tenant, month)): Named<(TenantName, String)>,
) -> Response {
    about_month(&console, tenant, month, Question::Statement).await
}

/// A tenant's month under its service agreement, with its incidents and their clocks.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/sla/{month}", tag = "books",
    params(("tenant" = String, Path), ("month" = String, Path, description = "YYYY-MM, Asia/Shanghai.")),
    responses((status = 200, content_type = "application/json", description = "The report (docs/sla.md)."))
)]
pub(super) async fn agreement(
    State(console): Shared,
    _: Reads,
    Named((tenant, month)): Named<(TenantName, String)>,
) -> Response {
    about_month(&console, tenant, month, Question::Agreement).await
}

/// Notices of maintenance.
#[utoipa::path(
    get, path = "/operator/v1/notices", tag = "books",
    responses((status = 200, content_type = "application/json", description = "In the order in which they were published."))
)]
pub(super) async fn notices(State(console): Shared, _: Reads) -> Response {
    let question = |operator: &Operator| {
        let reader = operator.store.reader().map_err(|error| error.refusal())?;
        let notices = actors::agreement::notices(&reader)?;
        serde_json::to_value(notices).map_err(|error| Refusal::new(Code::Internal, error.to_string()))
    };
    console.answer(question).await
}

/// Publishes a notice; it counts from now on, and goes to every tenant's webhook.
#[utoipa::path(
    post, path = "/operator/v1/notices", tag = "books", request_body = NewNotice,
    responses((status = 200, content_type = "application/json", description = "The notice as published."), (status = 202, description = "Proposed; it counts from its approval on."))
)]
pub(super) async fn announce(
    State(console): Shared,
    Manages(asker): Manages,
    Sent(new): Sent<NewNotice>,
) -> Response {
    let window = Span {
        from: new.from,
        to: new.to,
    };
    let order = LedgerOrder::Announce {
        id: new.id,
        window,
        text: new.text,
        replaces: new.replaces,
    };
    console.order(&asker, Order::Ledger(order)).await
}
