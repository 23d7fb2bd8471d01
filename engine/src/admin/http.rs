//! The admin listener: /livez, /readyz, /metrics over plain HTTP, and nothing else (SEMANTICS 2.6).

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actors::services::Services;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use tower_service::Service;

use super::metrics::Metrics;

/// A core that has not looked at its clock for this long is not ready.
const BEAT_MS_MAX: u64 = 1_000;
/// Connections at once; monitoring needs few, and the listener is plain HTTP.
const CONNECTIONS_MAX: usize = 64;

/// What the listener shows.
pub(crate) struct Shown {
    pub(crate) services: Arc<Services>,
    pub(crate) metrics: Metrics,
}

/// Binds the listener.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, Refusal> {
    let failed =
        |error: std::io::Error| Refusal::new(Code::Usage, format!("cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Serves it for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, shown: Shown) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        tracing::error!("the admin socket cannot be used");
        return;
    };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(shown));
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let router = router.clone();
        actix_rt::spawn(async move {
            let service = service_fn(move |request| router.clone().call(request));
            // Monitoring that breaks off is its own business.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

/// Why the engine should not be sent requests now; nothing if it should.
pub(crate) fn not_ready(services: &Services, now_ms: u64) -> Vec<String> {
    let mut reasons = Vec::new();
    if services.closed().is_some() {
        reasons.push("stopping".to_owned());
    }
    if services.store.is_full() {
        reasons.push("the disk is full".to_owned());
    }
    for core in services.cores.iter() {
        let number = core.number();
        if !core.is_alive() || !core.shard_is_up() {
            reasons.push(format!("core {number} is down"));
        } else if now_ms.saturating_sub(core.beat_ms()) > BEAT_MS_MAX {
            reasons.push(format!("core {number} is stalled"));
        }
    }
    reasons
}

async fn ready(State(shown): State<Arc<Shown>>) -> Response {
    let reasons = not_ready(&shown.services, clock::wall().0);
    if reasons.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
    }
}

async fn metrics(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    match shown.metrics.accepted(accept) {
        Ok((kind, bytes)) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
