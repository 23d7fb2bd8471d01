//! Where data and backups lie, as those who run the engine have stated it.

use std::sync::Arc;

use actors::gate;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::Request;
use protocol::error_code::{Code, Refusal};
use protocol::json::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::http::{Shared, count, json, prove, refuse};
use crate::config::{Holds, Location};

/// Where data and backups lie.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LocationsBody {
    locations: Vec<Location>,
    /// Copies of what the engine works with, in all.
    data_copies: u32,
    /// Copies of backups, in all.
    backup_copies: u32,
}

fn body(locations: &[Location]) -> Result<LocationsBody, Refusal> {
    if locations.is_empty() {
        let text = "it has not been stated where data lies (setting location)";
        return Err(Refusal::new(Code::NotFound, text));
    }
    let copies = |holds: Holds| {
        let there = locations.iter().filter(|location| location.holds == holds);
        there.fold(0, |sum: u32, location| sum.saturating_add(location.copies))
    };
    Ok(LocationsBody {
        data_copies: copies(Holds::Data),
        backup_copies: copies(Holds::Backup),
        locations: locations.to_vec(),
    })
}

/// Where data and backups lie, and how many copies there are.
#[utoipa::path(
    get, path = "/v1/data-location", tag = "sla",
    responses(
        (status = 200, body = LocationsBody, description = "As those who run the service have stated it."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It has not been stated."),
    )
)]
pub(crate) async fn data_location(
    State(services): Shared,
    Extension(locations): Extension<Arc<[Location]>>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let proved = prove(&services, request).await.inspect_err(count)?;
        gate::admit_app(&proved.app)?;
        body(&locations)
    };
    match answer.await {
        Ok(body) => json(&body),
        Err(refusal) => refuse(&refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(holds: Holds, copies: u32) -> Location {
        Location {
            holds,
            place: "Beijing".into(),
            country: "CN".into(),
            copies,
        }
    }

    #[test]
    fn copies_are_counted_by_what_they_hold() {
        let stated = [
            location(Holds::Data, 1),
            location(Holds::Backup, 2),
            location(Holds::Backup, 3),
        ];
        let body = body(&stated).unwrap();
        assert_eq!((body.data_copies, body.backup_copies), (1, 5));
        assert_eq!(super::body(&[]).unwrap_err().code, Code::NotFound);
    }
}
