//! The console: HTTPS for operators, on a listener and a thread of its own. Each chapter of its API is a file below; a new
//! one adds its `routes()` to [`router`] and its paths to [`openapi`].

mod approvals;
mod books;
mod dashboard;
mod enrolment;
mod entrance;
mod guard;
mod messages;
mod openapi;
mod people;
mod registry;
mod seals;
mod service;
pub(crate) mod session;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use protocol::error_code::{Code, Refusal};
use protocol::json::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use self::dashboard::live::Live;
use self::guard::Asker;
use self::session::Sessions;
use crate::admin::control::Outcome;
use crate::admin::operator::{Operator, Order};
use crate::config::ConsoleConfig;
use crate::front::http::nothing_asked;
use crate::front::proof::PeerCertificate;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Orders and questions at once: each takes a thread while it runs.
const WORK_MAX: usize = 16;
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long a request's head may take, and a connection be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const BODY_MAX: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 64 * 1024;
const STREAMS_MAX: u32 = 64;

/// What the handlers share.
pub(crate) struct Console {
    operator: Arc<Operator>,
    sessions: Arc<Sessions>,
    /// Names under which it is reached, in lower case.
    names: Vec<String>,
    work: Semaphore,
    /// Of a running engine.
    live: Option<Arc<Live>>,
}

type Shared = State<Arc<Console>>;

/// Where the console is reached, as a browser writes it.
pub(crate) fn origin(address: SocketAddr, config: &ConsoleConfig) -> String {
    let name = match config.names.first() {
        Some(name) => name.clone(),
        None if address.ip().is_loopback() || address.ip().is_unspecified() => "localhost".to_owned(),
        None => host(address.ip()),
    };
    match address.port() {
        443 => format!("https://{name}"),
        port => format!("https://{name}:{port}"),
    }
}

/// An address as it stands in a URL.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

impl Console {
    pub(crate) fn new(operator: Arc<Operator>, sessions: Arc<Sessions>, config: &ConsoleConfig) -> Self {
        let mut names = config.names.clone();
        names.push("localhost".to_owned());
        names.push(config.address.ip().to_string());
        let live = operator
            .services
            .clone()
            .map(|services| Arc::new(Live::new(services)));
        Self {
            live,
            operator,
            sessions,
            names,
            work: Semaphore::new(WORK_MAX),
        }
    }

    /// Does something that waits for disks or devices, on a thread where that may be.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Operator) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let busy = |_| Refusal::new(Code::Overloaded, "the console has too much to do").retry_after_ms(1_000);
        let _place = self.work.try_acquire().map_err(busy)?;
        let operator = Arc::clone(&self.operator);
        let ended = |_| Refusal::new(Code::Internal, "what was asked ended early");
        tokio::task::spawn_blocking(move || work(&operator))
            .await
            .map_err(ended)?
    }

    /// Carries an order out for an operator: 200 with its result, or 202 with the proposal that it became.
    async fn order(self: &Arc<Self>, asker: &Asker, order: Order) -> Response {
        let actor = asker.actor();
        match self.run(move |operator| operator.submit(&actor, order)).await {
            Ok(Outcome::Done(value)) => axum::Json(value).into_response(),
            Ok(Outcome::Proposed(proposal)) => (StatusCode::ACCEPTED, axum::Json(proposal)).into_response(),
            Err(refusal) => refuse(&refusal),
        }
    }

    /// Answers a question.
    async fn answer(
        self: &Arc<Self>,
        question: impl FnOnce(&Operator) -> Result<Value, Refusal> + Send + 'static,
    ) -> Response {
        match self.run(question).await {
            Ok(value) => axum::Json(value).into_response(),
            Err(refusal) => refuse(&refusal),
        }
    }

    /// Answers what an order that changes nothing asks.
    async fn list(self: &Arc<Self>, asker: &Asker, order: Order) -> Response {
        let actor = asker.actor();
        self.answer(move |operator| operator.obey(&actor, order)).await
    }
}

/// What the path names.
struct Named<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Console>> for Named<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let named = Path::<T>::from_request_parts(parts, console).await;
        let wrong = |rejection: PathRejection| {
            let text = format!("the path: {}", rejection.body_text());
            refuse(&Refusal::new(Code::MalformedRequest, text))
        };
        named.map(|Path(named)| Self(named)).map_err(wrong)
    }
}

/// A body of JSON.
struct Sent<T>(T);

impl<T: DeserializeOwned> FromRequest<Arc<Console>> for Sent<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &Arc<Console>) -> Result<Self, Response> {
        read(request).await.map(Self).map_err(|refusal| refuse(&refusal))
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A form of another site cannot send this type without asking first.
    if !kind.trim_start().starts_with("application/json") {
        let text = "the body must be application/json";
        return Err(Refusal::new(Code::UnsupportedMediaType, text));
    }
    let bytes = read_bytes(body).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Code::MalformedRequest, format!("the body: {error}")))
}

async fn read_bytes(body: axum::body::Body) -> Result<bytes::Bytes, Refusal> {
    let read = tokio::time::timeout(BODY_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let slow = |_| Refusal::new(Code::PeerTooSlow, "the body did not arrive in time");
    match read.map_err(slow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::new(
            Code::TooLarge,
            format!("a body has at most {BODY_BYTES_MAX} bytes"),
        )),
        Err(error) => Err(Refusal::new(
            Code::MalformedRequest,
            format!("the body cannot be read: {error}"),
        )),
    }
}

/// A refusal as a problem document (RFC 9457).
fn refuse(refusal: &Refusal) -> Response {
    let problem = Problem::of(refusal);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(&problem)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if let Some(ms) = problem.retry_after_ms {
        let seconds = HeaderValue::from(ms.div_ceil(1000).max(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// A refusal on its way to becoming a response.
pub(crate) struct Refused(Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        refuse(&self.0)
    }
}

/// All chapters, behind the guard.
fn router(console: Arc<Console>) -> Router {
    Router::new()
        .merge(entrance::routes())
        .merge(dashboard::routes())
        .merge(people::routes())
        .merge(registry::routes())
        .merge(enrolment::routes())
        .merge(seals::routes())
        .merge(books::routes())
        .merge(service::routes())
        .merge(approvals::routes())
        .merge(messages::routes())
        .merge(openapi::routes())
        .fallback(|| async {
            refuse(&Refusal::new(
                Code::UnknownPath,
                "no such path; /openapi.json lists them",
            ))
        })
        .method_not_allowed_fallback(|| async {
            let text = "this path does not take this method";
            refuse(&Refusal::new(Code::MethodNotAllowed, text))
        })
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&console),
            guard::watch,
        ))
        .layer(axum::middleware::map_response(with_headers))
        .with_state(console)
}

/// Nothing is kept by caches, shown in a frame of another site, or told to it.
async fn with_headers(mut response: Response) -> Response {
    let fields = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With no-referrer a browser says `Origin: null` when it sends our own login form.
        (header::REFERRER_POLICY, "same-origin"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
        ),
    ];
    for (name, value) in fields {
        let headers = response.headers_mut();
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Serves the listener on a thread of its own for as long as the process lives.
pub(crate) fn start(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    console: Console,
) -> Result<(), Refusal> {
    let failed =
        |error: std::io::Error| Refusal::new(Code::Internal, format!("the console's thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    std::thread::Builder::new()
        .name("console".into())
        .spawn(move || runtime.block_on(serve(listener, tls, console)))
        .map(drop)
        .map_err(failed)
}

async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, console: Console) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        tracing::error!("the console's socket cannot be used");
        return;
    };
    let acceptor = TlsAcceptor::from(tls);
    if let Some(live) = &console.live {
        tokio::spawn(Arc::clone(live).follow());
        tokio::spawn(Arc::clone(live).follow_month());
    }
    let router = router(Arc::new(console));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: better to wait a little than to spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                connected(router, stream).await;
            }
            drop(place);
        });
    }
}

async fn connected(router: Router, stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(|der| PeerCertificate(protocol::session::certificate_hash(der)));
    let first = Arc::new(Notify::new());
    let asked = Arc::clone(&first);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        asked.notify_one();
        if let Some(certificate) = certificate {
            request.extensions_mut().insert(certificate);
        }
        router.clone().call(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(SILENCE_MAX / 2)
        .keep_alive_timeout(SILENCE_MAX / 2)
        .max_concurrent_streams(STREAMS_MAX);
    tokio::select! {
        // However a connection ends, there is nobody left to tell.
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = nothing_asked(&first, SILENCE_MAX) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(address: &str, names: &[&str]) -> String {
        let address: SocketAddr = address.parse().unwrap();
        let config = ConsoleConfig {
            address,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            dual_control: std::collections::BTreeSet::new(),
            proposal_ms: 1,
        };
        origin(address, &config)
    }

    #[test]
    fn the_console_is_reached_as_its_certificate_may_name_it() {
        assert_eq!(written("127.0.0.1:9444", &[]), "https://localhost:9444");
        assert_eq!(written("0.0.0.0:443", &[]), "https://localhost");
        assert_eq!(
            written("10.0.0.7:9444", &["ops.example.com"]),
            "https://ops.example.com:9444"
        );
        assert_eq!(written("[2001:db8::1]:9444", &[]), "https://[2001:db8::1]:9444");
    }
}
