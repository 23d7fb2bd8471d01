//! Reports over HTTPS: what an app's tenant has bought, used and was promised. Each is of the app's own tenant: there is no
//! way to name another.

use actors::bill;
use actors::gate;
use actors::reports::Question;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::Request;
use protocol::clock;
use protocol::error_code::Refusal;
use protocol::json::Problem;
use sla::calendar::Month;

use super::http::{Shared, count, json, prove, refuse};

async fn ask(
    services: &actors::services::Services,
    request: Request<Body>,
    question: impl FnOnce() -> Result<Question, Refusal>,
) -> Response {
    let answer = async {
        let proved = prove(services, request).await.inspect_err(count)?;
        gate::admit_app(&proved.app)?;
        let tenant = std::sync::Arc::clone(&proved.app.tenant);
        services.reports.ask(tenant, question()?).await
    };
    match answer.await {
        Ok(report) => json(&report),
        Err(refusal) => refuse(&refusal),
    }
}

fn month(text: &str) -> Result<Month, Refusal> {
    bill::read_month(text, clock::wall())
}

/// The tenant's packages, in order of expiry, and where each of their units is.
#[utoipa::path(
    get, path = "/v1/packages", tag = "usage",
    responses((status = 200, content_type = "application/json", description = "`packages`: kind, unit, state, term, price and the balance of each account."))
)]
pub(crate) async fn packages(State(services): Shared, request: Request<Body>) -> Response {
    ask(&services, request, || Ok(Question::Packages)).await
}

/// The tenant's statement of a month, from the journal.
#[utoipa::path(
    get, path = "/v1/statements/{month}", tag = "usage",
    params(("month" = String, Path, description = "YYYY-MM, Asia/Shanghai.")),
    responses(
        (status = 200, content_type = "application/json", description = "`lines`: units by app, credential, operation and package. `frozen`: why it must not be used, if that is so."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Not a month, or one that has not begun."),
    )
)]
pub(crate) async fn statement(
    State(services): Shared,
    Path(text): Path<String>,
    request: Request<Body>,
) -> Response {
    ask(&services, request, || Ok(Question::Statement(month(&text)?))).await
}

/// The tenant's month under its service agreement.
#[utoipa::path(
    get, path = "/v1/sla/{month}", tag = "sla",
    params(("month" = String, Path, description = "YYYY-MM, Asia/Shanghai.")),
    responses(
        (status = 200, content_type = "application/json", description = "The report: verdict, minutes, notices, what is eligible (docs/sla.md)."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Not a month, one that has not begun, or one in which the tenant was not served."),
    )
)]
pub(crate) async fn agreement(
    State(services): Shared,
    Path(text): Path<String>,
    request: Request<Body>,
) -> Response {
    ask(&services, request, || Ok(Question::Agreement(month(&text)?))).await
}

/// Notices of maintenance.
#[utoipa::path(
    get, path = "/v1/notices", tag = "sla",
    responses((status = 200, content_type = "application/json", description = "`notices`: when announced, the window, what it says, what it replaces."))
)]
pub(crate) async fn notices(State(services): Shared, request: Request<Body>) -> Response {
    ask(&services, request, || Ok(Question::Notices)).await
}
