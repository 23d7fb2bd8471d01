//! The audit log over HTTPS, as c2sp.org/tlog-tiles asks for it: the checkpoint and the tiles, read-only, for everybody.
//! They hold salted commitments and say nothing about anybody's requests; proofs of those go to the app that made them.

use actors::audit::Audit;
use actors::services::Services;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use protocol::error_code::{Code, Refusal};
use protocol::json::{ItemBody, Problem};
use protocol::message::ItemOutcome;
use store::audit::TilePath;

use super::http::{Shared, refuse};

fn log(services: &Services) -> Result<&Audit, Refusal> {
    let opening = || Refusal::new(Code::ProofPending, "the audit log is being opened").retry_after_ms(1_000);
    services.audit.get().ok_or_else(opening)
}

/// The signed checkpoint of the audit log.
#[utoipa::path(
    get, path = "/audit/checkpoint", tag = "audit", security(()),
    responses((status = 200, content_type = "text/plain; charset=utf-8", description = "A signed note: origin, leaves, root (c2sp.org/tlog-checkpoint). A new one each second in which something was recorded."))
)]
pub(crate) async fn checkpoint(State(services): Shared) -> Response {
    let signed = log(&services).and_then(Audit::signed);
    note(signed.map(|signed| signed.note.clone()))
}

/// The last checkpoint that a witness has cosigned, with the cosignatures.
#[utoipa::path(
    get, path = "/audit/cosigned", tag = "audit", security(()),
    responses(
        (status = 200, content_type = "text/plain; charset=utf-8", description = "A signed note as /audit/checkpoint, a little older, with a line for each witness that has signed it (c2sp.org/tlog-cosignature)."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No witness has cosigned a checkpoint."),
    )
)]
pub(crate) async fn cosigned(State(services): Shared) -> Response {
    let cosigned = log(&services).and_then(Audit::cosigned);
    note(cosigned.map(|text| text.to_string()))
}

fn note(text: Result<String, Refusal>) -> Response {
    match text {
        Ok(text) => {
            let head = [
                (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                (header::CACHE_CONTROL, "max-age=1"),
            ];
            (head, text).into_response()
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// A tile of the audit log, or the entries beside one of level 0.
#[utoipa::path(
    get, path = "/audit/tile/{path}", tag = "audit", security(()),
    params(("path" = String, Path, description = "`L/N`, `L/N.p/W`, `entries/N` or `entries/N.p/W`, N in groups of three digits (c2sp.org/tlog-tiles).")),
    responses(
        (status = 200, content_type = "application/octet-stream", description = "Hashes of 32 bytes; of entries, each its length in 16 bits, big-endian, and 32 bytes."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The log under the last checkpoint has no such tile."),
    )
)]
pub(crate) async fn tile(State(services): Shared, Path(path): Path<String>) -> Response {
    let read = async {
        let missing = || Refusal::new(Code::NotFound, "the audit log has no such tile");
        let path = TilePath::parse(&format!("tile/{path}")).ok_or_else(missing)?;
        log(&services)?.tile(path).await
    };
    match read.await {
        Ok(bytes) => {
            let head = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (head, bytes).into_response()
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// The items of an app's own call, each signed one with its proof.
pub(super) async fn with_proofs(
    services: &Services,
    items: &[ItemOutcome],
) -> Result<Vec<ItemBody>, Refusal> {
    let entries = items.iter().filter_map(|item| match item {
        ItemOutcome::Done { sequence, .. } => Some(*sequence),
        _ => None,
    });
    let proofs = log(services)?.inclusion(entries.collect()).await?;
    let mut proofs = proofs.into_iter();
    let bodies = items.iter().map(|item| {
        let inclusion = matches!(item, ItemOutcome::Done { .. }).then(|| proofs.next());
        ItemBody {
            inclusion: inclusion.flatten(),
            ..ItemBody::from(item)
        }
    });
    Ok(bodies.collect())
}
