//! The pki listener: time stamps (RFC 3161 3.4), OCSP (RFC 6960 A, RFC 5019 5) and revocation lists (RFC 5280 4.2.1.13)
//! over plain HTTP, because what is fetched is signed, and because a client that checks a TLS certificate cannot use TLS
//! for it. A connection belongs to one thread, which reads, signs and answers: there is nothing to hand over.

use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use actors::answers::Answer;
use actors::latency::Operation;
use actors::lists::{ListKind, ServedList};
use actors::minutes;
use actors::questions::{Asked, Question};
use bytes::Bytes;
use documents::{ocsp, tsp};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use sla::answer::Outcome;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::LocalSet;

use super::desk::{self, Caller, Desk};

/// Connections at once.
const CONNECTIONS_MAX: usize = 512;
/// Connections that wait for one thread to take them over.
const ARRIVALS_MAX: usize = 64;
/// How long a request's head may take, and a connection be silent.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a request's body may take.
const BODY_MAX: Duration = Duration::from_secs(5);
/// Longest body, in bytes: the longest OCSP request.
const BODY_BYTES_MAX: usize = 8192;
/// The media type of revocation lists (RFC 2585 4.2).
pub(super) const CRL_TYPE: &str = "application/pkix-crl";
/// A list may be kept by others for so long at most: a newer one may come at any time.
const LIST_KEPT: Duration = Duration::from_secs(3600);

/// A connection on its way to its thread.
struct Arrival {
    stream: std::net::TcpStream,
    open: Counted,
    _place: OwnedSemaphorePermit,
}

/// One of a thread's open connections.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The far end of a thread that serves connections, and answers what the cores ask.
pub(crate) struct Server {
    arrivals: mpsc::Sender<Arrival>,
    open: Arc<AtomicUsize>,
}

impl Server {
    /// A server and what its thread has to run.
    pub(crate) fn new(questions: mpsc::Receiver<Asked>) -> (Self, impl FnOnce(Desk) + Send + 'static) {
        let (arrivals, arriving) = mpsc::channel(ARRIVALS_MAX);
        let open = Arc::new(AtomicUsize::new(0));
        (Self { arrivals, open }, move |desk| {
            run(arriving, questions, desk);
        })
    }
}

/// Serves what arrives, for as long as the process lives.
fn run(mut arriving: mpsc::Receiver<Arrival>, mut questions: mpsc::Receiver<Asked>, desk: Desk) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a pki thread cannot run");
            return;
        }
    };
    let desk = Rc::new(desk);
    LocalSet::new().block_on(&runtime, async {
        loop {
            let desk = Rc::clone(&desk);
            // A panic costs the connection or the question at hand, not the thread.
            tokio::select! {
                Some(arrival) = arriving.recv() => {
                    tokio::task::spawn_local(serve_connection(arrival, desk));
                }
                Some(asked) = questions.recv() => {
                    tokio::task::spawn_local(answer_question(asked, desk));
                }
                else => return,
            }
        }
    });
}

async fn serve_connection(arrival: Arrival, desk: Rc<Desk>) {
    let Ok(stream) = tokio::net::TcpStream::from_std(arrival.stream) else {
        return;
    };
    let service = service_fn(move |request| {
        let desk = Rc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(&desk, request).await) }
    });
    // However a connection ends, there is nobody left to tell.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(arrival.open);
}

async fn answer_question(asked: Asked, desk: Rc<Desk>) {
    let answer = match asked.question {
        Question::Stamp {
            caller,
            query,
            authority,
            kept_for,
        } => match tsp::Request::parse(&query) {
            Ok(request) => {
                desk.stamp(Caller::App(caller), &request, authority.as_deref(), kept_for)
                    .await
            }
            Err(failure) => Ok(desk::reject(failure)),
        },
        Question::Status(query) => {
            let answer = desk.status(ocsp::Request::parse(&query));
            Ok((answer.der.clone(), answer.outcome))
        }
    };
    // Whoever asked may have gone.
    let _ = asked.reply.send(answer);
}

/// Takes connections in and gives each to the thread that has the fewest, for as long as the process lives.
pub(crate) async fn accept(listener: TcpListener, servers: Vec<Server>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        tracing::error!("the pki socket cannot be used");
        return;
    };
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
        // Latency matters more than packets; a socket that cannot do this still works.
        let _ = stream.set_nodelay(true);
        let fewest = servers
            .iter()
            .min_by_key(|server| server.open.load(Ordering::Acquire));
        let (Some(server), Ok(stream)) = (fewest, stream.into_std()) else {
            continue;
        };
        server.open.fetch_add(1, Ordering::AcqRel);
        let open = Counted(Arc::clone(&server.open));
        // A thread that does not take its connections over has no use for more: this one is closed.
        let _ = server.arrivals.try_send(Arrival {
            stream,
            open,
            _place: place,
        });
    }
}

type Reply = Response<Full<Bytes>>;

/// What is asked for, by method and path.
enum Route<'p> {
    Stamp { token: Option<&'p str> },
    Status,
    StatusByPath(&'p str),
    List(ListKind, AuthorityName),
}

fn route<'p>(method: &Method, path: &'p str) -> Result<Route<'p>, Box<Reply>> {
    let (route, methods) = if path == "/tsa" {
        (Route::Stamp { token: None }, &[Method::POST][..])
    } else if let Some(token) = path.strip_prefix("/tsa/") {
        (Route::Stamp { token: Some(token) }, &[Method::POST][..])
    } else if path == "/ocsp" || path == "/ocsp/" && method == Method::POST {
        (Route::Status, &[Method::POST][..])
    } else if let Some(request) = path.strip_prefix("/ocsp/") {
        (Route::StatusByPath(request), &[Method::GET, Method::HEAD][..])
    } else {
        (list_route(path)?, &[Method::GET, Method::HEAD][..])
    };
    if methods.contains(method) {
        return Ok(route);
    }
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here\n");
    let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
        reply.headers_mut().insert(header::ALLOW, allowed);
    }
    Err(Box::new(reply))
}

fn list_route(path: &str) -> Result<Route<'_>, Box<Reply>> {
    let full = path.strip_prefix("/crl/").map(|file| (ListKind::Full, file));
    let delta = || path.strip_prefix("/delta/").map(|file| (ListKind::Delta, file));
    let unknown = |what| Box::new(refuse(&Refusal::new(Code::NotFound, what)));
    let (kind, file) = full.or_else(delta).ok_or_else(|| unknown("nothing is here"))?;
    match file.strip_suffix(".crl").map(AuthorityName::new) {
        Some(Ok(name)) => Ok(Route::List(kind, name)),
        _ => Err(unknown("no such revocation list")),
    }
}

impl Route<'_> {
    /// The media type of the body, where there is one.
    const fn body(&self) -> Option<&'static str> {
        match self {
            Self::Stamp { .. } => Some(tsp::QUERY_TYPE),
            Self::Status => Some(ocsp::REQUEST_TYPE),
            Self::StatusByPath(_) | Self::List(..) => None,
        }
    }

    const fn operation(&self) -> Operation {
        match self {
            Self::Stamp { .. } => Operation::TimeStamp,
            Self::Status | Self::StatusByPath(_) => Operation::Status,
            Self::List(..) => Operation::Lists,
        }
    }
}

/// Answers, and notes how and how fast. A request counts from when all of it is there: what never comes is its sender's.
async fn answer(desk: &Desk, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let route = match route(&head.method, head.uri.path()) {
        Ok(route) => route,
        Err(reply) => return *reply,
    };
    let body = match route.body() {
        None => Bytes::new(),
        Some(kind) => match read(&head.headers, kind, body).await {
            Ok(body) => body,
            Err(refusal) => return refuse(&refusal),
        },
    };
    let (received, operation) = (clock::monotonic(), route.operation());
    let answered = serve(desk, route, &head, &body).await;
    let latency = clock::monotonic().saturating_duration_since(received);
    let (reply, outcome) = match answered {
        Ok(answered) => answered,
        Err(refusal) => {
            let outcome = minutes::of_code(refusal.code);
            (refuse(&refusal), outcome)
        }
    };
    desk.log.note(operation, outcome, latency, clock::wall());
    reply
}

/// The reply, and how it counts.
async fn serve(
    desk: &Desk,
    route: Route<'_>,
    head: &http::request::Parts,
    body: &Bytes,
) -> Result<(Reply, Outcome), Refusal> {
    match route {
        Route::Stamp { token } => stamp(desk, token, head, body).await,
        Route::Status => {
            let answer = desk.status(ocsp::Request::parse(body));
            Ok((status(&answer, None), answer.outcome))
        }
        // The path as it came: `+` and `%2F` mean what RFC 6960 A.1 says.
        Route::StatusByPath(path) => {
            let answer = desk.status(ocsp::Request::from_path(path));
            Ok((status(&answer, Some(&head.headers)), answer.outcome))
        }
        Route::List(kind, name) => {
            list(desk, kind, &name, &head.headers).map(|reply| (reply, Outcome::Result))
        }
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(text.into())));
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

fn refuse(refusal: &Refusal) -> Reply {
    let status =
        StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = text(status, format!("{refusal}\n"));
    let headers = reply.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"time stamps\", charset=\"UTF-8\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

fn der(kind: &'static str, bytes: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(bytes));
    let kind = HeaderValue::from_static(kind);
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// The body, if it is of the media type that the standard names.
async fn read(headers: &HeaderMap, kind: &str, body: Incoming) -> Result<Bytes, Refusal> {
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
    let long = || {
        Refusal::new(
            Code::TooLarge,
            format!("a body has at most {BODY_BYTES_MAX} bytes"),
        )
    };
    // Whoever announces too much is told so before it comes.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(long());
    }
    let slow = |_| Refusal::new(Code::PeerTooSlow, "the body did not arrive in time");
    let read = tokio::time::timeout(BODY_MAX, Limited::new(body, BODY_BYTES_MAX).collect());
    Ok(read.await.map_err(slow)?.map_err(|_| long())?.to_bytes())
}

/// The authority that the query names (`authority=NAME`).
fn named(query: Option<&str>) -> Option<&str> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == "authority").map(|(_, value)| value)
}

async fn stamp(
    desk: &Desk,
    token: Option<&str>,
    head: &http::request::Parts,
    body: &Bytes,
) -> Result<(Reply, Outcome), Refusal> {
    let basic = head.headers.get(header::AUTHORIZATION);
    let caller = desk.caller(token, basic.map(HeaderValue::as_bytes))?;
    let (stamped, outcome) = match tsp::Request::parse(body) {
        Ok(request) => {
            desk.stamp(caller, &request, named(head.uri.query()), None)
                .await?
        }
        Err(failure) => desk::reject(failure),
    };
    Ok((der(tsp::REPLY_TYPE, stamped.into()), outcome))
}

/// `asked` is there where the answer may be kept on the way: for GET (RFC 5019 6.2).
fn status(answer: &Arc<Answer>, asked: Option<&HeaderMap>) -> Reply {
    let bytes = Bytes::from_owner(Shared(Arc::clone(answer)));
    match (asked, answer.shelf) {
        (Some(asked), Some(shelf)) => {
            let tag = tag_of(&answer.der);
            shelve(der(ocsp::RESPONSE_TYPE, bytes), asked, &tag, shelf)
        }
        (Some(_), None) => {
            let mut reply = der(ocsp::RESPONSE_TYPE, bytes);
            let never = HeaderValue::from_static("no-store");
            reply.headers_mut().insert(header::CACHE_CONTROL, never);
            reply
        }
        (None, _) => der(ocsp::RESPONSE_TYPE, bytes),
    }
}

/// The bytes of an answer that is shared.
struct Shared(Arc<Answer>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.der
    }
}

/// The bytes of a list that is shared.
struct SharedList(Arc<ServedList>);

impl AsRef<[u8]> for SharedList {
    fn as_ref(&self) -> &[u8] {
        &self.0.list.der
    }
}

/// Half of a SHA-256: an entity tag need not be stronger.
fn tag_of(bytes: &[u8]) -> String {
    let digest = protocol::algorithm::Hash::Sha256.digest(bytes);
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list(desk: &Desk, kind: ListKind, name: &AuthorityName, asked: &HeaderMap) -> Result<Reply, Refusal> {
    let list = desk.list(kind, name)?;
    let list = list.ok_or_else(|| Refusal::new(Code::NotFound, "no such revocation list"))?;
    // Nobody keeps a list for longer than it is good.
    let kept = UnixMillis(clock::wall().0 + LIST_KEPT.as_millis() as u64);
    let until = list.ends.map_or(kept, |ends| ends.min(kept));
    let (number, made) = (list.list.number.to_string(), list.list.made_at);
    let reply = der(CRL_TYPE, Bytes::from_owner(SharedList(list)));
    Ok(shelve(reply, asked, &number, (made, until)))
}

/// Says until when others may keep what this is (RFC 9111), or that they have it already (RFC 9110 13).
fn shelve(mut reply: Reply, asked: &HeaderMap, tag: &str, (made, until): (UnixMillis, UnixMillis)) -> Reply {
    let quoted = format!("\"{tag}\"");
    let theirs = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    if theirs.is_some_and(|theirs| {
        theirs
            .split(',')
            .any(|one| one.trim().trim_start_matches("W/") == quoted)
    }) {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        *reply.body_mut() = Full::default();
        reply.headers_mut().remove(header::CONTENT_TYPE);
    }
    let left = until.0.saturating_sub(clock::wall().0) / 1000;
    let date =
        |at: UnixMillis| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at.seconds()));
    let said: [(HeaderName, String); 4] = [
        (header::ETAG, quoted),
        (header::LAST_MODIFIED, date(made)),
        (header::EXPIRES, date(until)),
        (
            header::CACHE_CONTROL,
            format!("max-age={left}, public, no-transform, must-revalidate"),
        ),
    ];
    for (name, value) in said {
        if let Ok(value) = HeaderValue::from_str(&value) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}
