//! The HTTPS front of one core: HTTP/1.1 and HTTP/2 over TLS, JSON in and out. The same gate and the same core as the
//! native protocol behind it.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::call::{Arrival, Ask, Call, Page, ReplyTo};
use actors::core::Core;
use actors::gate::{self, SealFields, SignFields};
use actors::latency::{Operation, Transport};
use actors::services::Services;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts as Head;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::json::{
    CredentialBody, CredentialsBody, ItemBody, ItemsBody, Problem, SignBody, UsageBody, operation_path,
};
use protocol::limits::{BATCH_ITEMS_MAX, HTTP_BODY_BYTES_MAX};
use protocol::message::{Answer, ItemOutcome};
use rustls::ServerConfig;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::proof::{self, PeerCertificate};
use super::{FrontContext, Phase, audit, documents, location, openapi, registration, reports, seals};
use crate::config::Location;
use crate::registration::Registration;
use crate::sealing::Sealer;

const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const BODY_MAX: Duration = Duration::from_secs(10);
const STREAMS_MAX: u32 = 256;

/// The routes.
pub(crate) fn router(
    services: Arc<Services>,
    locations: Arc<[Location]>,
    registration_desk: Registration,
    sealer: Arc<Sealer>,
) -> Router {
    Router::new()
        .route("/v1/signatures", post(sign))
        .route("/v1/signatures/{idempotency_key}", get(look_up))
        .route("/v1/credentials", get(credentials))
        .route("/v1/seals", get(seals::seals))
        .route("/v1/seals/{id}", get(seals::seal))
        .route("/v1/grants", get(seals::grants))
        .route("/v1/usage", get(usage))
        .route("/v1/packages", get(reports::packages))
        .route("/v1/statements/{month}", get(reports::statement))
        .route("/v1/sla/{month}", get(reports::agreement))
        .route("/v1/notices", get(reports::notices))
        .route(
            "/v1/certificates",
            get(registration::certificates).post(registration::issue),
        )
        .route("/v1/certificates/{serial}", get(registration::certificate))
        .route(
            "/v1/certificates/calls/{idempotency_key}",
            get(registration::call),
        )
        .route("/v1/certificates/requests", post(registration::make_request))
        .route("/v1/certificates/imports", post(registration::import))
        .route(
            "/v1/certificates/{serial}/suspension",
            post(registration::suspend),
        )
        .route("/v1/certificates/{serial}/resumption", post(registration::resume))
        .route("/v1/certificates/{serial}/renewal", post(registration::renew))
        .route("/v1/certificates/{serial}/revocation", post(registration::revoke))
        .route(
            "/v1/subjects",
            get(registration::subjects).post(registration::submit),
        )
        .route("/v1/subjects/{id}", get(registration::subject_of))
        .route("/v1/subjects/{id}/challenge", post(registration::challenge))
        .route("/v1/subjects/{id}/erasure", post(registration::erase))
        .route("/v1/verifications", post(registration::verify))
        .merge(document_routes())
        .route("/audit/checkpoint", get(audit::checkpoint))
        .route("/audit/cosigned", get(audit::cosigned))
        .route("/audit/tile/{*path}", get(audit::tile))
        .route("/v1/data-location", get(location::data_location))
        .route("/openapi.json", get(openapi::document))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(locations))
        .layer(Extension(registration_desk))
        .layer(Extension(sealer))
        .with_state(services)
}

/// What is done with whole documents.
fn document_routes() -> Router<Arc<Services>> {
    Router::new()
        .route("/v1/documents/seal", post(documents::seal))
        .route("/v1/documents/verify", post(documents::verify))
        .route("/v1/documents/jobs", post(documents::new_job))
        .route(
            "/v1/operations/{id}",
            get(documents::operation).delete(documents::erase),
        )
        .route("/v1/operations/{id}/start", post(documents::start))
        .route("/v1/operations/{id}/cancellation", post(documents::cancel))
        .route(
            "/v1/operations/{id}/documents",
            get(documents::operation_documents),
        )
        .route(
            "/v1/operations/{id}/documents/{number}",
            put(documents::put_document).get(documents::fetch_document),
        )
}

/// Serves a core's listener until it is told to stop.
pub(crate) async fn serve(
    context: Rc<FrontContext>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    mut phase: watch::Receiver<Phase>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        tracing::error!("the HTTPS socket cannot be used");
        return;
    };
    let acceptor = TlsAcceptor::from(tls);
    let router = router(
        Arc::clone(context.core.services()),
        Arc::clone(&context.locations),
        context.registration.clone(),
        Arc::clone(&context.sealer),
    );
    loop {
        let connections = phase.clone();
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => accept(&context, &acceptor, &router, stream, peer, connections),
                // Out of descriptors, say: better to wait a little than to spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
        }
    }
}

fn accept(
    context: &Rc<FrontContext>,
    acceptor: &TlsAcceptor,
    router: &Router,
    stream: TcpStream,
    peer: SocketAddr,
    phase: watch::Receiver<Phase>,
) {
    let Some(place) = context.admit(peer.ip()) else {
        context.core.stats().count_refusal(Code::TooManyConnections);
        return;
    };
    // Latency matters more than packets; a socket that cannot do this still works.
    let _ = stream.set_nodelay(true);
    let (acceptor, router) = (acceptor.clone(), router.clone());
    let silence = context.limits.http_silence_max;
    actix_rt::spawn(async move {
        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
            connected(router, stream, phase, silence).await;
        }
        drop(place);
    });
}

async fn connected(
    router: Router,
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    mut phase: watch::Receiver<Phase>,
    silence: Duration,
) {
    let first = Arc::new(Notify::new());
    let asked = Arc::clone(&first);
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(|der| PeerCertificate(protocol::session::certificate_hash(der)));
    let service = service_fn(move |mut request: Request<Incoming>| {
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
        .header_read_timeout(silence);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(silence / 2)
        .keep_alive_timeout(silence / 2)
        .max_concurrent_streams(STREAMS_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // However a connection ends, there is nobody left to tell.
        _ = connection.as_mut() => return,
        () = nothing_asked(&first, silence) => return,
        _ = phase.wait_for(|phase| *phase == Phase::Closing) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Returns when a connection has brought no request for too long. The timers of HTTP/1.1 and HTTP/2 begin only once a
/// peer has said which of them it speaks.
pub(crate) async fn nothing_asked(first: &Notify, silence: Duration) {
    if tokio::time::timeout(silence, first.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

pub(super) type Shared = State<Arc<Services>>;

/// A proved request.
pub(super) struct Proved {
    pub(super) app: Arc<store::App>,
    pub(super) proof: store::Proof,
    pub(super) head: Head,
    pub(super) body: Bytes,
    pub(super) received: Instant,
}

/// The whole body. One that is announced as too large is refused before it is sent.
pub(super) async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(
            Code::TooLarge,
            format!("a body has at most {HTTP_BODY_BYTES_MAX} bytes"),
        )
    };
    if body.size_hint().lower() > HTTP_BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(BODY_MAX, Limited::new(body, HTTP_BODY_BYTES_MAX).collect());
    let read = read
        .await
        .map_err(|_| Refusal::new(Code::PeerTooSlow, "the body did not arrive in time"))?;
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Refusal::new(
            Code::MalformedRequest,
            format!("the body cannot be read: {error}"),
        )),
    }
}

pub(super) async fn prove(services: &Services, request: Request<Body>) -> Result<Proved, Refusal> {
    let (head, body) = request.into_parts();
    let body = read_body(body).await?;
    let received = clock::monotonic();
    let (app, proof) = proof::prove(services, &head, &body)?;
    Ok(Proved {
        app,
        proof,
        head,
        body,
        received,
    })
}

/// Hands a call to the core of this thread and waits for its answer.
async fn ask(ask: Ask, arrival: Arrival, deadline_ms: Option<u64>) -> Result<Answer, Refusal> {
    let (sender, answer) = oneshot::channel();
    {
        let core = Core::current().ok_or_else(restarted)?;
        let deadline = gate::deadline(arrival.received, deadline_ms);
        core.submit(Call::new(ReplyTo::Once(sender), ask, arrival, deadline));
    }
    answer.await.unwrap_or_else(|_| Err(restarted()))
}

fn restarted() -> Refusal {
    Refusal::new(
        Code::Restarted,
        "this part of the engine restarts; retry with the same key",
    )
}

/// Signs one digest or up to 64.
#[utoipa::path(
    post, path = "/v1/signatures", tag = "signatures", request_body = SignBody,
    params(("Idempotency-Key" = String, Header, description = "Names the call for good: a retry with the same key and the same request brings the recorded signatures and costs nothing.")),
    responses(
        (status = 200, body = ItemsBody, description = "One item for each digest, in order."),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "The request is wrong; nothing was charged."),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Over the contract; see Retry-After."),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "We lack capacity; see Retry-After."),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Still running; `operation` says where to look."),
    )
)]
pub(crate) async fn sign(State(services): Shared, request: Request<Body>) -> Response {
    let result = sign_request(&services, request).await;
    let key = result.as_ref().ok().map(|(_, key)| key.clone());
    match result.and_then(|(answer, _)| answer) {
        Ok(Answer::Items(items)) => items_response(&items, key.as_deref()),
        Ok(_) => refuse(&Refusal::new(Code::Internal, "an answer of another kind")),
        Err(refusal) => refuse_with_operation(&refusal, key.as_deref()),
    }
}

async fn sign_request(
    services: &Services,
    request: Request<Body>,
) -> Result<(Result<Answer, Refusal>, String), Refusal> {
    let proved = prove(services, request).await.inspect_err(count)?;
    let admitted = admit(&proved).inspect_err(|refusal| count_refused(&proved, refusal))?;
    let key = proof::idempotency_key(&proved.head)?.to_owned();
    let sign = Ask::Sign(Box::new(admitted.call));
    let answer = ask(sign, admitted.arrival, admitted.deadline_ms).await;
    Ok((answer, key))
}

/// Counts a refusal that never became a call.
pub(super) fn count(refusal: &Refusal) {
    if let Some(core) = Core::current() {
        core.count_refusal(refusal);
    }
}

/// The same for a signing request of a proved app.
fn count_refused(proved: &Proved, refusal: &Refusal) {
    if let Some(core) = Core::current() {
        let asked = (Operation::Sign, Transport::Https);
        core.count_refused(&proved.app, refusal, proved.received, asked);
    }
}

/// A signing request that the gate has let in.
struct Admitted {
    call: actors::call::SignCall,
    arrival: Arrival,
    deadline_ms: Option<u64>,
}

fn admit(proved: &Proved) -> Result<Admitted, Refusal> {
    let kind = proved
        .head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.trim_start().starts_with("application/json")) {
        return Err(Refusal::new(
            Code::UnsupportedMediaType,
            "the body must be application/json",
        ));
    }
    let body: SignBody = serde_json::from_slice(&proved.body)
        .map_err(|error| Refusal::new(Code::MalformedRequest, format!("the body: {error}")))?;
    let inputs = decode_inputs(&body)?;
    let user_id = body
        .user_id
        .as_deref()
        .map(|text| from_base64("user_id", text))
        .transpose()?;
    let fields = SignFields {
        credential: &body.credential,
        seal: SealFields::of(body.seal.as_deref(), body.document, body.agent.as_deref())?,
        algorithm: body.algorithm,
        format: body.format,
        key: proof::idempotency_key(&proved.head)?,
        inputs: inputs.iter().map(Vec::as_slice),
        user_id: user_id.as_deref(),
    };
    let arrival = arrival(proved.received);
    Ok(Admitted {
        call: gate::admit_sign(&proved.app, fields, proved.proof.clone(), clock::wall())?,
        arrival,
        deadline_ms: body.deadline_ms.map(u64::from),
    })
}

/// Of a request that has been read by now.
fn arrival(received: Instant) -> Arrival {
    Arrival {
        received,
        decoded: clock::monotonic(),
    }
}

fn from_base64(what: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD
        .decode(text)
        .map_err(|_| Refusal::new(Code::MalformedRequest, format!("{what} is not base64")))
}

fn decode_inputs(body: &SignBody) -> Result<Vec<Vec<u8>>, Refusal> {
    match (&body.digest, &body.digests) {
        (Some(one), None) => Ok(vec![from_base64("digest", one)?]),
        (None, Some(many)) => {
            // One more than allowed is enough to be told so.
            many.iter()
                .take(BATCH_ITEMS_MAX + 1)
                .map(|text| from_base64("digests", text))
                .collect()
        }
        _ => Err(Refusal::new(
            Code::MalformedRequest,
            "give either digest or digests",
        )),
    }
}

/// What an answer shall prove.
#[derive(Clone, Copy, Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    /// That the journal entries are in the audit log.
    Inclusion,
}

/// Of an earlier call.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LookUpQuery {
    /// `inclusion`: each signed item with a proof that its journal entry is in the audit log.
    #[param(inline)]
    proof: Option<Wanted>,
}

/// What became of an earlier call.
#[utoipa::path(
    get, path = "/v1/signatures/{idempotency_key}", tag = "signatures",
    params(("idempotency_key" = String, Path, description = "The call's key, percent-encoded."), LookUpQuery),
    responses(
        (status = 200, body = ItemsBody, description = "The items as they stand: done, pending or failed."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing is known under this key."),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`proof_pending`: not under a checkpoint yet; there is one a second."),
    )
)]
pub(crate) async fn look_up(
    State(services): Shared,
    Path(key): Path<String>,
    query: Result<Query<LookUpQuery>, QueryRejection>,
    request: Request<Body>,
) -> Response {
    let Ok(Query(LookUpQuery { proof: wanted })) = query else {
        let text = "the query takes `proof`, and that `inclusion`";
        return refuse(&Refusal::new(Code::MalformedRequest, text));
    };
    let result = async {
        let proved = prove(&services, request).await.inspect_err(count)?;
        let arrival = arrival(proved.received);
        gate::admit_app(&proved.app)?;
        let key = gate::idempotency_key(&key)?;
        match ask(Ask::Lookup(proved.app, key), arrival, None).await? {
            Answer::Items(items) => Ok(items),
            _ => Err(Refusal::new(Code::Internal, "an answer of another kind")),
        }
    };
    let answer = match (result.await, wanted) {
        (Ok(items), Some(Wanted::Inclusion)) => audit::with_proofs(&services, &items).await,
        (result, _) => result.map(|items| items.iter().map(ItemBody::from).collect()),
    };
    match answer {
        Ok(items) => json(&ItemsBody { items }),
        Err(refusal) => refuse(&refusal),
    }
}

/// Which credentials.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CredentialsQuery {
    /// Those after this id: the last one of the answer before.
    after: Option<Box<str>>,
    /// Only this one.
    id: Option<Box<str>>,
}

/// The credentials this app may use, by id, as many as fit into one answer (at most 256). Ask again with `after` until an
/// answer is empty.
#[utoipa::path(
    get, path = "/v1/credentials", tag = "credentials",
    params(CredentialsQuery),
    responses((status = 200, body = CredentialsBody, description = "By id."))
)]
pub(crate) async fn credentials(
    State(services): Shared,
    query: Result<Query<CredentialsQuery>, QueryRejection>,
    request: Request<Body>,
) -> Response {
    let Ok(Query(CredentialsQuery { after, id: only })) = query else {
        let text = "the query takes `after` and `id`";
        return refuse(&Refusal::new(Code::MalformedRequest, text));
    };
    let question = |app| Ask::Credentials(app, Page { after, only });
    match ask_about_app(&services, request, question).await {
        Ok(Answer::Credentials(list)) => json(&CredentialsBody {
            credentials: list.iter().map(CredentialBody::from).collect(),
        }),
        Ok(_) => refuse(&Refusal::new(Code::Internal, "an answer of another kind")),
        Err(refusal) => refuse(&refusal),
    }
}

/// What this app has used.
#[utoipa::path(
    get, path = "/v1/usage", tag = "usage",
    responses((status = 200, body = UsageBody, description = "Completed signatures, from the journal."))
)]
pub(crate) async fn usage(State(services): Shared, request: Request<Body>) -> Response {
    match ask_about_app(&services, request, Ask::Usage).await {
        Ok(Answer::Usage(usage)) => json(&UsageBody::from(usage)),
        Ok(_) => refuse(&Refusal::new(Code::Internal, "an answer of another kind")),
        Err(refusal) => refuse(&refusal),
    }
}

pub(super) async fn ask_about_app(
    services: &Services,
    request: Request<Body>,
    question: impl FnOnce(Arc<store::App>) -> Ask,
) -> Result<Answer, Refusal> {
    let proved = prove(services, request).await.inspect_err(count)?;
    let arrival = arrival(proved.received);
    gate::admit_app(&proved.app)?;
    ask(question(proved.app), arrival, None).await
}

async fn unknown_path() -> Response {
    refuse(&Refusal::new(
        Code::UnknownPath,
        "no such path; /openapi.json lists them",
    ))
}

async fn method_not_allowed() -> Response {
    refuse(&Refusal::new(
        Code::MethodNotAllowed,
        "this path does not take this method",
    ))
}

pub(super) fn json(body: &impl Serialize) -> Response {
    axum::Json(body).into_response()
}

/// Every item done, or each with its own status; while one is pending the whole answer is.
fn items_response(items: &[ItemOutcome], key: Option<&str>) -> Response {
    let bodies: Vec<ItemBody> = items.iter().map(ItemBody::from).collect();
    if !items.iter().any(|item| matches!(item, ItemOutcome::Pending)) {
        return json(&ItemsBody { items: bodies });
    }
    let text = "still running at the deadline; look it up, or retry with the same key";
    let mut problem = Problem::of(&Refusal::new(Code::OutcomePending, text));
    problem.operation = key.map(operation_path);
    problem.items = Some(bodies);
    problem_response(&problem)
}

pub(super) fn refuse(refusal: &Refusal) -> Response {
    problem_response(&Problem::of(refusal))
}

fn refuse_with_operation(refusal: &Refusal, key: Option<&str>) -> Response {
    refuse_at(refusal, key.map(operation_path))
}

/// A refusal with the place where the outcome will be known, if it is not yet.
pub(super) fn refuse_at(refusal: &Refusal, place: Option<String>) -> Response {
    let mut problem = Problem::of(refusal);
    if refusal.code == Code::OutcomeUnknown {
        problem.operation = place;
    }
    problem_response(&problem)
}

fn problem_response(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(ms) = problem.retry_after_ms {
        // Whole seconds (RFC 9110 10.2.3), never fewer than one.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    }
    if let Some(location) = problem
        .operation
        .as_deref()
        .and_then(|path| HeaderValue::from_str(path).ok())
    {
        headers.insert(header::LOCATION, location);
    }
    response
}
