//! The pki listener: time stamps (RFC 3161 3.4), OCSP (RFC 6960 A) and revocation lists (RFC 5280 4.2.1.13) over plain
//! HTTP, because what is fetched is signed, and because a client that checks a TLS certificate cannot use TLS for it.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use documents::{ocsp, tsp};
use http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use serde::Deserialize;
use tower_service::Service;

use super::{Desk, Question};

/// Connections at once.
const CONNECTIONS_MAX: usize = 512;
/// How long a request's head may take, and a connection be silent.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a request's body may take.
const BODY_MAX: Duration = Duration::from_secs(5);
/// Longest body, in bytes: the longest OCSP request.
const BODY_BYTES_MAX: usize = 8192;
/// The media type of revocation lists (RFC 2585 4.2).
const CRL_TYPE: &str = "application/pkix-crl";

/// What the handlers know.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) desk: Desk,
    /// Whether whoever asks gets a time stamp.
    pub(crate) anonymous_stamps: bool,
}

/// Serves it for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, shown: Shown) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        tracing::error!("the pki socket cannot be used");
        return;
    };
    let router = router(shown);
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: better to wait a little than to spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Latency matters more than packets; a socket that cannot do this still works.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        actix_rt::spawn(async move {
            let service = service_fn(move |request| router.clone().call(request));
            // However a connection ends, there is nobody left to tell.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/tsa", post(stamp))
        .route("/ocsp", post(status))
        .route("/ocsp/{*request}", get(status_by_path))
        .route("/crl/{name}", get(list))
        .with_state(shown)
}

fn refuse(refusal: &Refusal) -> Response {
    let status =
        StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = format!("{refusal}\n");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return (status, [(header::RETRY_AFTER, "1")], text).into_response();
    }
    (status, text).into_response()
}

fn der(kind: &'static str, bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, kind)], bytes).into_response()
}

/// The body, if it is of the media type that the standard names.
async fn read(headers: &HeaderMap, kind: &str, body: Body) -> Result<Bytes, Refusal> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = given.and_then(|given| given.split(';').next()).map(str::trim);
    if !essence.is_some_and(|given| given.eq_ignore_ascii_case(kind)) {
        return Err(Refusal::new(
            Code::UnsupportedMediaType,
            format!("the body must be {kind}"),
        ));
    }
    let slow = |_| Refusal::new(Code::PeerTooSlow, "the body did not arrive in time");
    let long = |_| {
        Refusal::new(
            Code::TooLarge,
            format!("a body has at most {BODY_BYTES_MAX} bytes"),
        )
    };
    let read = tokio::time::timeout(BODY_MAX, Limited::new(body, BODY_BYTES_MAX).collect());
    Ok(read.await.map_err(slow)?.map_err(long)?.to_bytes())
}

/// Which authority is to stamp.
#[derive(Deserialize)]
struct Which {
    authority: Option<String>,
}

async fn stamp(
    State(shown): State<Shown>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !shown.anonymous_stamps {
        let text = "time stamps are not given to everybody here (setting tsa_anonymous)";
        return refuse(&Refusal::new(Code::Unauthenticated, text));
    }
    let body = match read(&headers, tsp::QUERY_TYPE, body).await {
        Ok(body) => body,
        Err(refusal) => return refuse(&refusal),
    };
    let request = match tsp::Request::parse(&body) {
        Ok(request) => request,
        Err(failure) => return der(tsp::REPLY_TYPE, tsp::rejection(failure)),
    };
    let authority = which.authority;
    match shown.desk.ask(Question::Stamp { request, authority }).await {
        Ok(Some(response)) => der(tsp::REPLY_TYPE, response),
        Ok(None) => refuse(&Refusal::new(Code::NotFound, "no such time-stamping authority")),
        Err(refusal) => refuse(&refusal),
    }
}

async fn status(State(shown): State<Shown>, headers: HeaderMap, body: Body) -> Response {
    match read(&headers, ocsp::REQUEST_TYPE, body).await {
        Ok(body) => answer(&shown.desk, ocsp::Request::parse(&body)).await,
        Err(refusal) => refuse(&refusal),
    }
}

async fn status_by_path(State(shown): State<Shown>, uri: Uri) -> Response {
    // The path as it came: `+` and `%2F` mean what RFC 6960 A.1 says.
    let path = uri.path().strip_prefix("/ocsp/").unwrap_or_default();
    answer(&shown.desk, ocsp::Request::from_path(path)).await
}

async fn answer(desk: &Desk, request: Result<ocsp::Request, ocsp::RequestError>) -> Response {
    let Ok(request) = request else {
        return der(
            ocsp::RESPONSE_TYPE,
            ocsp::Refusal::MalformedRequest.to_der().to_vec(),
        );
    };
    let refusal = match desk.ask(Question::Status(request)).await {
        Ok(Some(response)) => return der(ocsp::RESPONSE_TYPE, response),
        Err(refusal) if refusal.code == Code::Overloaded => ocsp::Refusal::TryLater,
        Ok(None) | Err(_) => ocsp::Refusal::InternalError,
    };
    der(ocsp::RESPONSE_TYPE, refusal.to_der().to_vec())
}

async fn list(State(shown): State<Shown>, Path(file): Path<String>) -> Response {
    let unknown = || refuse(&Refusal::new(Code::NotFound, "no such revocation list"));
    let Some(Ok(name)) = file.strip_suffix(".crl").map(AuthorityName::new) else {
        return unknown();
    };
    match shown.desk.ask(Question::Crl(name)).await {
        Ok(Some(list)) => der(CRL_TYPE, list),
        Ok(None) => unknown(),
        Err(refusal) => refuse(&refusal),
    }
}
