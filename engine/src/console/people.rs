//! Operators.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use protocol::error_code::{Code, Refusal};
use protocol::ids::OperatorName;
use serde::Deserialize;
use store::OperatorRole;
use utoipa::ToSchema;

use super::guard::{Manages, Reads};
use super::{Console, Named, Sent, Shared, refuse};
use crate::admin::operator::Order;
use crate::admin::operators::OperatorOrder;

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/operator/v1/operators", get(list).post(create))
        .route("/operator/v1/operators/{name}/state", post(set))
        .route("/operator/v1/operators/{name}/link", post(link))
}

/// A new operator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOperator {
    #[schema(value_type = String)]
    name: OperatorName,
    /// `manage`, `use` or `audit`.
    #[schema(value_type = String)]
    role: OperatorRole,
    /// TLS client certificate, PEM.
    certificate: Option<String>,
}

/// Whether something is let in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Active {
    pub(super) active: bool,
}

/// All operators.
#[utoipa::path(
    get, path = "/operator/v1/operators", tag = "operators",
    responses((status = 200, content_type = "application/json", description = "By name: roles, whether it has a certificate, whether it is let in."))
)]
pub(super) async fn list(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::Operators(OperatorOrder::List)).await
}

fn certificate_hash(text: &str) -> Result<[u8; 32], Refusal> {
    match pem::parse(text) {
        Ok(block) if block.tag() == "CERTIFICATE" => {
            Ok(protocol::session::certificate_hash(block.contents()))
        }
        _ => Err(Refusal::new(
            Code::MalformedRequest,
            "certificate is not a certificate in PEM",
        )),
    }
}

/// Makes an operator.
#[utoipa::path(
    post, path = "/operator/v1/operators", tag = "operators", request_body = NewOperator,
    responses((status = 200, description = "Made."), (status = 202, description = "Proposed."))
)]
pub(super) async fn create(
    State(console): Shared,
    Manages(asker): Manages,
    Sent(new): Sent<NewOperator>,
) -> Response {
    let certificate = match new.certificate.as_deref().map(certificate_hash).transpose() {
        Ok(certificate) => certificate,
        Err(refusal) => return refuse(&refusal),
    };
    let order = OperatorOrder::Create {
        name: new.name,
        role: new.role,
        certificate,
    };
    console.order(&asker, Order::Operators(order)).await
}

/// Lets an operator in no more, or again.
#[utoipa::path(
    post, path = "/operator/v1/operators/{name}/state", tag = "operators", request_body = Active,
    params(("name" = String, Path)),
    responses((status = 200, description = "Done; its sessions are over at once."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set(
    State(console): Shared,
    Manages(asker): Manages,
    Named(name): Named<OperatorName>,
    Sent(Active { active }): Sent<Active>,
) -> Response {
    let order = OperatorOrder::Set { name, active };
    console.order(&asker, Order::Operators(order)).await
}

/// Makes a login link for an operator.
#[utoipa::path(
    post, path = "/operator/v1/operators/{name}/link", tag = "operators",
    params(("name" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`link`: it serves once, for 15 minutes."), (status = 202, description = "Proposed."))
)]
pub(super) async fn link(
    State(console): Shared,
    Manages(asker): Manages,
    Named(name): Named<OperatorName>,
) -> Response {
    let order = OperatorOrder::Link { name };
    console.order(&asker, Order::Operators(order)).await
}
