//! The service itself: devices, and incidents with their two clocks.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use sla::calendar::MinuteIndex;
use store::IncidentStep;
use utoipa::ToSchema;

use super::guard::{Manages, Reads};
use super::{Console, Named, Sent, Shared};
use crate::admin::devices::DeviceOrder;
use crate::admin::incidents::IncidentOrder;
use crate::admin::operator::Order;

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/operator/v1/devices", get(devices))
        .route("/operator/v1/incidents", get(incidents).post(open))
        .route("/operator/v1/incidents/{id}/steps", post(step))
}

/// A fault.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewIncident {
    /// Its name.
    id: String,
    /// Its grade under the agreement; 1 is the gravest.
    grade: u8,
    /// What happened.
    text: String,
    /// When it began, `YYYY-MM-DDThh:mm+08:00`; without it, now.
    #[schema(value_type = Option<String>)]
    began: Option<MinuteIndex>,
}

/// Something that happens to an incident.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewStep {
    /// `respond` (the first clock stops), `repair` (the second), or `close`.
    #[schema(value_type = String)]
    step: IncidentStep,
    /// When, `YYYY-MM-DDThh:mm+08:00`; without it, now.
    #[schema(value_type = Option<String>)]
    at: Option<MinuteIndex>,
}

/// Every device, and the software lanes.
#[utoipa::path(
    get, path = "/operator/v1/devices", tag = "service",
    responses((status = 200, content_type = "application/json", description = "State, share, processes, counts of each."))
)]
pub(super) async fn devices(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::Device(DeviceOrder::List)).await
}

/// The newest incidents.
#[utoipa::path(
    get, path = "/operator/v1/incidents", tag = "service",
    responses((status = 200, content_type = "application/json", description = "The last to begin first, with the minutes that each clock took."))
)]
pub(super) async fn incidents(State(console): Shared, Reads(asker): Reads) -> Response {
    console.list(&asker, Order::Incidents(IncidentOrder::List)).await
}

/// Opens an incident.
#[utoipa::path(
    post, path = "/operator/v1/incidents", tag = "service", request_body = NewIncident,
    responses((status = 200, description = "On record; its clocks run from when it began."), (status = 202, description = "Proposed."))
)]
pub(super) async fn open(
    State(console): Shared,
    Manages(asker): Manages,
    Sent(new): Sent<NewIncident>,
) -> Response {
    let order = IncidentOrder::Open {
        id: new.id,
        grade: new.grade,
        text: new.text,
        began: new.began,
    };
    console.order(&asker, Order::Incidents(order)).await
}

/// Responds to an incident, repairs it, or closes it.
#[utoipa::path(
    post, path = "/operator/v1/incidents/{id}/steps", tag = "service", request_body = NewStep,
    params(("id" = String, Path)),
    responses((status = 200, description = "On record."), (status = 202, description = "Proposed."), (status = 409, description = "Not in this order."))
)]
pub(super) async fn step(
    State(console): Shared,
    Manages(asker): Manages,
    Named(id): Named<String>,
    Sent(NewStep { step, at }): Sent<NewStep>,
) -> Response {
    let order = IncidentOrder::Step { id, step, at };
    console.order(&asker, Order::Incidents(order)).await
}
