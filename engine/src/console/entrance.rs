//! Coming in and going out: the login page of a one-time link, the session it becomes, and who one is.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::{HeaderValue, header};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use serde::Deserialize;
use serde_json::json;
use store::{Change, OperatorChange};
use url::form_urlencoded;

use super::guard::{Anybody, COOKIE, session_token};
use super::session::SESSION_MS;
use super::{Console, Shared, dashboard, read_bytes, refuse};
use crate::admin::operator::AsActor;

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/", get(|| async { Redirect::to(dashboard::PATH) }))
        .route("/login", get(page).post(log_in))
        .route("/operator/v1/logout", post(log_out))
        .route("/operator/v1/me", get(me))
}

#[derive(Deserialize)]
struct LinkQuery {
    link: String,
}

/// The characters of a token: nothing of it can end an attribute.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
}

fn bad_link() -> Response {
    refuse(&Refusal::new(Code::MalformedRequest, "this is no login link"))
}

/// A page with a button: what only looks at links (scanners, previews) does not use them up.
async fn page(query: Result<Query<LinkQuery>, QueryRejection>) -> Response {
    let link = match query {
        Ok(Query(LinkQuery { link })) if is_token(&link) => link,
        _ => return bad_link(),
    };
    let page = format!(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Cinnabar</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"/dashboard/icon.svg\"><link rel=\"stylesheet\" href=\"/dashboard/dashboard.css\">\
         <main class=\"login\"><img src=\"/dashboard/icon.svg\" alt=\"\" width=\"40\"><h1>Cinnabar</h1>\
         <form method=\"post\" action=\"/login\"><input type=\"hidden\" name=\"link\" value=\"{link}\">\
         <button autofocus>Log in / <span lang=\"zh-CN\">登录</span></button></form></main></html>"
    );
    Html(page).into_response()
}

async fn log_in(State(console): Shared, request: Request<Body>) -> Response {
    let bytes = match read_bytes(request.into_body()).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refuse(&refusal),
    };
    let mut fields = form_urlencoded::parse(&bytes);
    let Some((_, link)) = fields.find(|(name, _)| name == "link") else {
        return bad_link();
    };
    let token = match begin(&console, &link).await {
        Ok(token) => token,
        Err(refusal) => return refuse(&refusal),
    };
    with_cookie(
        Redirect::to(dashboard::PATH).into_response(),
        &token,
        SESSION_MS / 1_000,
    )
}

/// The session is on record before it is given out.
async fn begin(console: &Arc<Console>, link: &str) -> Result<String, Refusal> {
    let (name, token) = console.sessions.log_in(link, clock::wall())?;
    let record = move |operator: &crate::admin::operator::Operator| {
        let actor = format!("operator {name}");
        let login = Change::Operators(OperatorChange::Login { name });
        use actors::registrar::Ledger;
        AsActor(&operator.store, &actor).change(login)
    };
    if let Err(refusal) = console.run(record).await {
        console.sessions.log_out(&token);
        return Err(refusal);
    }
    Ok(token)
}

/// Sets the session's cookie; for 0 seconds it is taken away.
fn with_cookie(mut response: Response, token: &str, seconds: u64) -> Response {
    let cookie = format!("{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}");
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// Ends the session.
#[utoipa::path(
    post, path = "/operator/v1/logout", tag = "session",
    responses((status = 200, description = "The session has ended."))
)]
pub(super) async fn log_out(State(console): Shared, _: Anybody, request: Request<Body>) -> Response {
    if let Some(token) = session_token(request.headers()) {
        console.sessions.log_out(token);
    }
    with_cookie(axum::Json(json!({})).into_response(), "", 0)
}

/// Who one is, and what one may do.
#[utoipa::path(
    get, path = "/operator/v1/me", tag = "session",
    responses((status = 200, content_type = "application/json", description = "`name` and `roles`."))
)]
pub(super) async fn me(Anybody(asker): Anybody) -> Response {
    axum::Json(json!({ "name": asker.name, "roles": asker.roles.names() })).into_response()
}
