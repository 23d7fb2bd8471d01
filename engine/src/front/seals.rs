//! Seals and grants over HTTPS, as an app sees those of its own tenant.

use actors::call::{Ask, Page};
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::Request;
use protocol::error_code::{Code, Refusal};
use protocol::json::{GrantBody, GrantsBody, Problem, SealBody, SealsBody};
use protocol::message::Answer;
use protocol::seal::SealInfo;

use super::http::{Shared, ask_about_app, json, refuse};

/// Where a list goes on.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SealsQuery {
    /// Those after this id: the last one of the answer before.
    after: Option<Box<str>>,
}

type Wanted = Result<Query<SealsQuery>, QueryRejection>;

async fn ask(
    services: &actors::services::Services,
    request: Request<Body>,
    page: Page,
) -> Result<Vec<SealInfo>, Refusal> {
    match ask_about_app(services, request, |app| Ask::Seals(app, page)).await? {
        Answer::Seals(list) => Ok(list),
        _ => Err(Refusal::new(Code::Internal, "an answer of another kind")),
    }
}

fn page(query: Wanted) -> Result<Page, Refusal> {
    let Ok(Query(SealsQuery { after })) = query else {
        return Err(Refusal::new(Code::MalformedRequest, "the query takes `after`"));
    };
    Ok(Page { after, only: None })
}

/// The seals of the app's tenant, by id, as many as fit into one answer (at most 256), without their pictures. Ask again
/// with `after` until an answer is empty.
#[utoipa::path(
    get, path = "/v1/seals", tag = "seals", params(SealsQuery),
    responses((status = 200, body = SealsBody, description = "By id: state, credential, size, and the app's own grants."))
)]
pub(crate) async fn seals(State(services): Shared, query: Wanted, request: Request<Body>) -> Response {
    let list = match page(query) {
        Ok(page) => ask(&services, request, page).await,
        Err(refusal) => Err(refusal),
    };
    match list {
        Ok(list) => json(&SealsBody {
            seals: list.iter().map(SealBody::from).collect(),
        }),
        Err(refusal) => refuse(&refusal),
    }
}

/// One of them; with its picture, and the electronic seal as its maker signed it, while a grant of the app counts.
#[utoipa::path(
    get, path = "/v1/seals/{id}", tag = "seals", params(("id" = String, Path)),
    responses(
        (status = 200, body = SealBody, description = "The seal. The certificate is at its credential."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "`unknown_seal`"),
    )
)]
pub(crate) async fn seal(
    State(services): Shared,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let page = Page {
        after: None,
        only: Some(id.into()),
    };
    let missing = || Refusal::new(Code::UnknownSeal, "no such seal");
    let found = ask(&services, request, page).await;
    match found.and_then(|mut list| list.pop().ok_or_else(missing)) {
        Ok(info) => json(&SealBody::from(&info)),
        Err(refusal) => refuse(&refusal),
    }
}

/// What is granted to the app: of the seals of one answer, as `/v1/seals` brings them.
#[utoipa::path(
    get, path = "/v1/grants", tag = "seals", params(SealsQuery),
    responses((status = 200, body = GrantsBody, description = "By seal: kinds of document, from when to when, how often."))
)]
pub(crate) async fn grants(State(services): Shared, query: Wanted, request: Request<Body>) -> Response {
    let list = match page(query) {
        Ok(page) => ask(&services, request, page).await,
        Err(refusal) => Err(refusal),
    };
    let of = |info: &SealInfo| -> Vec<GrantBody> {
        let all = info.grants.iter();
        all.map(|grant| GrantBody::of(&info.id, grant)).collect()
    };
    match list {
        Ok(list) => json(&GrantsBody {
            grants: list.iter().flat_map(of).collect(),
        }),
        Err(refusal) => refuse(&refusal),
    }
}
