//! Documents over HTTPS: sealed, verified, and whole jobs of them. Bodies are read as they come, held against their
//! Content-Digest on the way, and only for apps that have proved who they are.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actors::core::Core;
use actors::gate;
use actors::latency::Operation;
use actors::services::Services;
use axum::Extension;
use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::Stream;
use futures_util::{StreamExt, stream};
use http::request::Parts as Head;
use http::{HeaderValue, Request, StatusCode, header};
use multer::{Field, Multipart};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::http_proof::BodyCheck;
use protocol::ids::IdempotencyKey;
use protocol::json::Problem;
use protocol::limits::{
    ANSWER_MS_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_CALL_BYTES_MAX, DOCUMENT_ORDER_BYTES_MAX,
    DOCUMENT_UPLOAD_MS_MAX,
};
use serde_json::Value;
use store::{App, Proof};

use super::http::{Shared, count, json, prove, refuse};
use super::proof;
use crate::sealing::blobs::BlobReader;
use crate::sealing::call::{SealCall, Sealed};
use crate::sealing::job::{JobBody, Upload, blocking};
use crate::sealing::order::{SealOrder, media_type};
use crate::sealing::verify::{self, VerifyAnswer, VerifyOrder};
use crate::sealing::{SPARE_BYTES, Sealer};

type Desk = Extension<Arc<Sealer>>;

/// What a form's boundaries and headers may take, in bytes.
const FORM_BYTES_MAX: usize = 8 * 1024;
/// How much of a body that is refused is taken all the same, in bytes, and for how long.
const DRAINED_BYTES_MAX: usize = 1024 * 1024;
const DRAINED_FOR: Duration = Duration::from_secs(2);
/// Bytes that are written to a file, or read from one, in one go.
const FILE_BYTES: usize = 1024 * 1024;

/// An app that has proved by its request's head who it is; the body is still to come.
struct Asker {
    app: Arc<App>,
    proof: Proof,
    head: Head,
    body: HeldBody,
    /// Bytes that were announced.
    bytes: usize,
}

/// A body that is held against its Content-Digest while it comes.
struct HeldBody {
    stream: BodyDataStream,
    check: Option<BodyCheck>,
    until: Instant,
}

impl Stream for HeldBody {
    type Item = Result<Bytes, Refusal>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if clock::monotonic() >= self.until {
            let late = Refusal::new(Code::PeerTooSlow, "the body did not arrive in time");
            return Poll::Ready(Some(Err(late)));
        }
        let next = std::task::ready!(self.stream.poll_next_unpin(context));
        let unreadable = |error| {
            Refusal::new(
                Code::MalformedRequest,
                format!("the body cannot be read: {error}"),
            )
        };
        let piece = next.map(|piece| piece.map_err(unreadable));
        if let (Some(Ok(piece)), Some(check)) = (&piece, &mut self.check) {
            check.update(piece);
        }
        Poll::Ready(piece)
    }
}

impl HeldBody {
    /// The next piece. A peer that sends nothing is not waited for.
    async fn piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        let patience = self.until.saturating_duration_since(clock::monotonic());
        let next = tokio::time::timeout(patience, self.next()).await;
        let late = |_| Refusal::new(Code::PeerTooSlow, "the body did not arrive in time");
        next.map_err(late)?.transpose()
    }

    /// Takes some of what is left of a body that is refused: a peer that is still sending hears an answer only then.
    async fn drain(&mut self) {
        self.until = self.until.min(clock::monotonic() + DRAINED_FOR);
        let mut left = DRAINED_BYTES_MAX;
        while let Ok(Some(piece)) = self.piece().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    }

    /// Takes what is left, and says whether all of it was what the Content-Digest is of.
    async fn finish(&mut self) -> Result<(), Refusal> {
        while self.piece().await?.is_some() {}
        let checked = self.check.take().map(BodyCheck::finish);
        checked
            .transpose()
            .map_err(|error| proof::digest_refusal(&error))?;
        Ok(())
    }
}

/// Proves who asks, by the head, and looks whether the body may come.
async fn ask(services: &Services, request: Request<Body>, bytes_max: usize) -> Result<Asker, Refusal> {
    let (head, body) = request.into_parts();
    let announced = body.size_hint().exact();
    let mut body = HeldBody {
        stream: body.into_data_stream(),
        check: None,
        until: clock::monotonic() + Duration::from_millis(DOCUMENT_UPLOAD_MS_MAX),
    };
    match admit(services, &head, announced, bytes_max) {
        Ok((app, proof, check, bytes)) => {
            body.check = check;
            Ok(Asker {
                app,
                proof,
                head,
                body,
                bytes,
            })
        }
        Err(refusal) => {
            body.drain().await;
            Err(refusal)
        }
    }
}

type Admitted = (Arc<App>, Proof, Option<BodyCheck>, usize);

fn admit(
    services: &Services,
    head: &Head,
    announced: Option<u64>,
    bytes_max: usize,
) -> Result<Admitted, Refusal> {
    let (app, proof, check) = proof::prove_head(services, head)?;
    gate::admit_app(&app)?;
    let unknown = || Refusal::new(Code::LengthRequired, "the body needs a Content-Length");
    let bytes = announced.ok_or_else(unknown)?;
    if bytes > bytes_max as u64 {
        let text = format!("the body has at most {bytes_max} bytes");
        return Err(Refusal::new(Code::TooLarge, text));
    }
    Ok((app, proof, check, bytes as usize))
}

/// The parts of a form.
struct Parts {
    order: Option<Vec<u8>>,
    document: Vec<u8>,
}

/// Reads `order` (JSON) and `document` out of a multipart/form-data body (RFC 7578).
async fn read_form(head: &Head, body: &mut HeldBody, bytes: usize) -> Result<Parts, Refusal> {
    let kind = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let boundary = multer::parse_boundary(kind.unwrap_or_default());
    let boundary = boundary.map_err(|_| {
        let text = "the body must be multipart/form-data with the parts `order` and `document`";
        Refusal::new(Code::UnsupportedMediaType, text)
    })?;
    let (mut order, mut document) = (None, None);
    let patience = body.until.saturating_duration_since(clock::monotonic());
    let parts = async {
        let mut form = Multipart::new(&mut *body, boundary);
        while let Some(field) = form.next_field().await.map_err(form_refusal)? {
            let (place, bytes_max) = match field.name() {
                Some("order") => (&mut order, DOCUMENT_ORDER_BYTES_MAX),
                Some("document") => (&mut document, bytes),
                _ => {
                    let text = "the form has the parts `order` and `document`, and no others";
                    return Err(Refusal::new(Code::MalformedRequest, text));
                }
            };
            if place.is_some() {
                let text = "a part of the form comes twice";
                return Err(Refusal::new(Code::MalformedRequest, text));
            }
            *place = Some(read_part(field, bytes_max).await?);
        }
        Ok(())
    };
    let late = |_| Refusal::new(Code::PeerTooSlow, "the body did not arrive in time");
    tokio::time::timeout(patience, parts).await.map_err(late)??;
    body.finish().await?;
    let missing = || Refusal::new(Code::MalformedRequest, "the form has no part `document`");
    let document = document.ok_or_else(missing)?;
    if document.len() > DOCUMENT_BYTES_MAX {
        let text = format!("a document has at most {DOCUMENT_BYTES_MAX} bytes");
        return Err(Refusal::new(Code::TooLarge, text));
    }
    Ok(Parts { order, document })
}

async fn read_part(mut field: Field<'_>, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    // As much as the whole body was announced with, and what will be appended: a document that is not moved in memory is
    // there once.
    let mut part = Vec::with_capacity(bytes_max.min(DOCUMENT_BYTES_MAX) + SPARE_BYTES);
    while let Some(piece) = field.chunk().await.map_err(form_refusal)? {
        if part.len() + piece.len() > bytes_max {
            let text = format!("a part of the form has at most {bytes_max} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        part.extend_from_slice(&piece);
    }
    Ok(part)
}

fn form_refusal(error: multer::Error) -> Refusal {
    if let multer::Error::StreamReadFailed(inner) = error {
        return match inner.downcast::<Refusal>() {
            Ok(refusal) => *refusal,
            Err(other) => Refusal::new(
                Code::MalformedRequest,
                format!("the body cannot be read: {other}"),
            ),
        };
    }
    Refusal::new(Code::MalformedRequest, format!("the form: {error}"))
}

/// Counts the answer to a request about a document.
fn note(app: &App, operation: Operation, received: Instant, result: Result<(), &Refusal>) {
    if let Some(core) = Core::current() {
        core.note_document(app, operation, received, result);
    }
}

/// Seals a document: the answer is the sealed document. Called again with the same key it brings the same bytes and costs
/// nothing.
#[utoipa::path(
    post, path = "/v1/documents/seal", tag = "documents",
    request_body(content = SealForm, content_type = "multipart/form-data"),
    params(("Idempotency-Key" = String, Header, description = "Names the call for good: a retry with the same key, order and document brings the same sealed document and costs nothing.")),
    responses(
        (status = 200, content_type = "application/pdf", description = "The sealed document; application/ofd for an OFD. Each signature was charged as one unit, each time stamp on its own meter."),
        (status = 202, content_type = "application/json", description = "The document is too large to be waited for (32 MiB); `Location` is the operation."),
        (status = 411, body = Problem, content_type = "application/problem+json", description = "`length_required`: documents are announced with their length."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`document_unreadable`, `document_refused`, `image_unusable`, `seal_unusable`, `idempotency_key_reused`: nothing was charged."),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "We lack capacity; see Retry-After."),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "A signature is still running; retry with the same key."),
    )
)]
pub(crate) async fn seal(
    State(services): Shared,
    Extension(sealer): Desk,
    request: Request<Body>,
) -> Response {
    let form_max = DOCUMENT_BYTES_MAX + DOCUMENT_ORDER_BYTES_MAX + FORM_BYTES_MAX;
    let mut asker = match ask(&services, request, form_max).await {
        Ok(asker) => asker,
        Err(refusal) => return refused_unknown(&refusal),
    };
    let (app, mut received) = (Arc::clone(&asker.app), clock::monotonic());
    let answer = seal_asked(&sealer, &mut asker, &mut received).await;
    if answer.is_err() {
        asker.body.drain().await;
    }
    note(&app, Operation::Seal, received, answer.as_ref().map(drop));
    answer.unwrap_or_else(|refusal| refuse(&refusal))
}

fn refused_unknown(refusal: &Refusal) -> Response {
    count(refusal);
    refuse(refusal)
}

/// The two parts of a request to seal.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) struct SealForm {
    /// How, as application/json.
    order: SealOrder,
    /// The PDF or OFD.
    #[schema(value_type = String, format = Binary)]
    document: Vec<u8>,
}

async fn seal_asked(
    sealer: &Arc<Sealer>,
    asker: &mut Asker,
    received: &mut Instant,
) -> Result<Response, Refusal> {
    gate::admit_document(&asker.app, clock::wall())?;
    let key = gate::idempotency_key(proof::idempotency_key(&asker.head)?)?;
    sealer.check_services()?;
    let _memory = sealer.reserve(asker.bytes + SPARE_BYTES)?;
    let parts = read_form(&asker.head, &mut asker.body, asker.bytes).await?;
    *received = clock::monotonic();
    let missing = || Refusal::new(Code::MalformedRequest, "the form has no part `order`");
    let call = SealCall {
        order: SealOrder::read(&parts.order.ok_or_else(missing)?)?,
        app: Arc::clone(&asker.app),
        proof: asker.proof.clone(),
        key,
        document: parts.document,
        received: *received,
    };
    if call.document.len() > DOCUMENT_CALL_BYTES_MAX {
        return Ok(accepted(&sealer.seal_later(call).await?));
    }
    Ok(document_response(sealer.seal(call).await?))
}

fn document_response(sealed: Sealed) -> Response {
    let kind = HeaderValue::from_static(media_type(sealed.form));
    ([(header::CONTENT_TYPE, kind)], sealed.bytes).into_response()
}

/// 202 with the operation's URL.
fn accepted(operation: &Value) -> Response {
    let mut response = (StatusCode::ACCEPTED, axum::Json(operation)).into_response();
    let path = format!(
        "/v1/operations/{}",
        operation["operation"].as_str().unwrap_or_default()
    );
    if let Ok(path) = HeaderValue::from_str(&path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

/// Verifies the signatures of a document, a detached CMS signature, or an electronic seal.
#[utoipa::path(
    post, path = "/v1/documents/verify", tag = "documents",
    request_body(content = VerifyForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = VerifyAnswer, description = "The verdict, with reasons. A document whose signatures are wrong is an answer, no error."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`document_unreadable`"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "We lack capacity; see Retry-After."),
    )
)]
pub(crate) async fn verify(
    State(services): Shared,
    Extension(sealer): Desk,
    request: Request<Body>,
) -> Response {
    let form_max = DOCUMENT_CALL_BYTES_MAX + DOCUMENT_ORDER_BYTES_MAX + FORM_BYTES_MAX;
    let mut asker = match ask(&services, request, form_max).await {
        Ok(asker) => asker,
        Err(refusal) => return refused_unknown(&refusal),
    };
    let (app, mut received) = (Arc::clone(&asker.app), clock::monotonic());
    let answer = verify_asked(&sealer, &mut asker, &mut received).await;
    if answer.is_err() {
        asker.body.drain().await;
    }
    note(&app, Operation::Verify, received, answer.as_ref().map(drop));
    answer.map_or_else(|refusal| refuse(&refusal), |answer| json(&answer))
}

/// The two parts of a request to verify.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) struct VerifyForm {
    /// What and by whom, as application/json; may be left out.
    order: Option<VerifyOrder>,
    /// The PDF or OFD, what a CMS signature is over, or an electronic seal.
    #[schema(value_type = String, format = Binary)]
    document: Vec<u8>,
}

async fn verify_asked(
    sealer: &Arc<Sealer>,
    asker: &mut Asker,
    received: &mut Instant,
) -> Result<VerifyAnswer, Refusal> {
    sealer.check_services()?;
    let _memory = sealer.reserve(asker.bytes + SPARE_BYTES)?;
    let parts = read_form(&asker.head, &mut asker.body, asker.bytes).await?;
    *received = clock::monotonic();
    let order = match &parts.order {
        Some(json) => VerifyOrder::read(json)?,
        None => VerifyOrder::default(),
    };
    let deadline = *received + Duration::from_millis(ANSWER_MS_MAX);
    let work = move |desk: &crate::sealing::room::Desk| {
        verify::verify(&order, &parts.document, desk.known()?, clock::wall())
    };
    sealer.room.work(deadline, work).await
}

/// Asks about a job: the app proves itself with a small body, or none.
async fn about_job<F>(
    services: &Services,
    request: Request<Body>,
    changes: bool,
    question: impl FnOnce(Arc<App>, Proof, Head, Bytes) -> F,
) -> Result<Value, Refusal>
where
    F: Future<Output = Result<Value, Refusal>>,
{
    let proved = prove(services, request).await.inspect_err(count)?;
    let (app, received) = (Arc::clone(&proved.app), clock::monotonic());
    let admitted = match changes {
        true => gate::admit_change(&app, clock::wall()),
        false => gate::admit_app(&app).map(drop),
    };
    let answer = match admitted {
        Ok(()) => question(proved.app, proved.proof, proved.head, proved.body).await,
        Err(refusal) => Err(refusal),
    };
    note(&app, Operation::Job, received, answer.as_ref().map(drop));
    answer
}

fn answered(answer: Result<Value, Refusal>) -> Response {
    answer.map_or_else(|refusal| refuse(&refusal), |value| json(&value))
}

/// Makes a job: one order for up to 1,000 documents, which are put in next.
#[utoipa::path(
    post, path = "/v1/documents/jobs", tag = "documents", request_body = JobBody,
    params(("Idempotency-Key" = String, Header, description = "Names the job for good: its signatures are recorded under it.")),
    responses(
        (status = 202, content_type = "application/json", description = "The operation; `Location` is its URL. It is `open`: documents are put in, then it is started."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`wrong_state`: too many jobs of the tenant have not ended."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`batch_too_large`, `idempotency_key_reused`"),
    )
)]
pub(crate) async fn new_job(
    State(services): Shared,
    Extension(sealer): Desk,
    request: Request<Body>,
) -> Response {
    let question = |app, proof, head, body: Bytes| async move {
        let (key, body) = read_job(&head, &body)?;
        sealer.new_job((app, proof), key, body).await
    };
    match about_job(&services, request, true, question).await {
        Ok(operation) => accepted(&operation),
        Err(refusal) => refuse(&refusal),
    }
}

fn read_job(head: &Head, body: &[u8]) -> Result<(IdempotencyKey, JobBody), Refusal> {
    let key = gate::idempotency_key(proof::idempotency_key(head)?)?;
    let malformed = |text: String| Refusal::new(Code::MalformedRequest, text);
    let job: JobBody =
        serde_json::from_slice(body).map_err(|error| malformed(format!("the body: {error}")))?;
    job.order.check()?;
    Ok((key, job))
}

/// How an operation stands.
#[utoipa::path(
    get, path = "/v1/operations/{id}", tag = "documents", params(("id" = String, Path)),
    responses(
        (status = 200, content_type = "application/json", description = "`state` (open, running, ended, cancelled), how many documents stand where, and when it is erased."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The tenant has no such operation, or it is not kept any more."),
    )
)]
pub(crate) async fn operation(
    State(services): Shared,
    Extension(sealer): Desk,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |app, _, _, _| async move { sealer.operation(app, id).await };
    answered(about_job(&services, request, false, question).await)
}

/// Where a list of documents goes on.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FromQuery {
    /// The first document of the list; 0 if absent.
    from: Option<u32>,
}

/// The documents of an operation that were put in, each with its outcome.
#[utoipa::path(
    get, path = "/v1/operations/{id}/documents", tag = "documents", params(("id" = String, Path), FromQuery),
    responses((status = 200, content_type = "application/json", description = "`documents`: number, `state` (waiting, done, failed, cancelled), bytes, and why it failed."))
)]
pub(crate) async fn operation_documents(
    State(services): Shared,
    Extension(sealer): Desk,
    Path(id): Path<String>,
    query: Result<Query<FromQuery>, QueryRejection>,
    request: Request<Body>,
) -> Response {
    let question = |app, _, _, _| async move {
        let Ok(Query(FromQuery { from })) = query else {
            return Err(Refusal::new(
                Code::MalformedRequest,
                "the query takes `from`, a number",
            ));
        };
        sealer.operation_documents(app, id, from.unwrap_or(0)).await
    };
    answered(about_job(&services, request, false, question).await)
}

/// Puts a document in while the operation is open; again, it takes the place of the one before.
#[utoipa::path(
    put, path = "/v1/operations/{id}/documents/{number}", tag = "documents",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("id" = String, Path), ("number" = u32, Path, description = "Counted from 0.")),
    responses(
        (status = 200, content_type = "application/json", description = "Its bytes and its SHA-256."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`wrong_state`: the operation is not open any more."),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "More than 128 MiB, or than the documents of a tenant's jobs may have together."),
    )
)]
pub(crate) async fn put_document(
    State(services): Shared,
    Extension(sealer): Desk,
    Path((id, number)): Path<(String, u32)>,
    request: Request<Body>,
) -> Response {
    let mut asker = match ask(&services, request, DOCUMENT_BYTES_MAX).await {
        Ok(asker) => asker,
        Err(refusal) => return refused_unknown(&refusal),
    };
    let (app, mut received) = (Arc::clone(&asker.app), clock::monotonic());
    let answer = put_asked(&sealer, &mut asker, (id, number), &mut received).await;
    if answer.is_err() {
        asker.body.drain().await;
    }
    note(&app, Operation::Job, received, answer.as_ref().map(drop));
    answered(answer)
}

async fn put_asked(
    sealer: &Arc<Sealer>,
    asker: &mut Asker,
    (id, number): (String, u32),
    received: &mut Instant,
) -> Result<Value, Refusal> {
    gate::admit_change(&asker.app, clock::wall())?;
    let _memory = sealer.reserve(4 * FILE_BYTES)?;
    let mut upload = sealer.begin_upload(Arc::clone(&asker.app), id, number).await?;
    let body = &mut asker.body;
    let mut pieces = Vec::with_capacity(FILE_BYTES);
    while let Some(piece) = body.piece().await? {
        pieces.extend_from_slice(&piece);
        if pieces.len() >= FILE_BYTES {
            (upload, pieces) = write(upload, pieces).await?;
        }
    }
    (upload, _) = write(upload, pieces).await?;
    *received = clock::monotonic();
    body.finish().await?;
    sealer.end_upload(upload).await
}

/// Writes what has come, and gives the room for the next back.
async fn write(mut upload: Upload, mut pieces: Vec<u8>) -> Result<(Upload, Vec<u8>), Refusal> {
    blocking(move || {
        upload.writer.write(&pieces)?;
        pieces.clear();
        Ok((upload, pieces))
    })
    .await
}

/// Fetches a sealed document.
#[utoipa::path(
    get, path = "/v1/operations/{id}/documents/{number}", tag = "documents",
    params(("id" = String, Path), ("number" = u32, Path, description = "Counted from 0.")),
    responses(
        (status = 200, content_type = "application/octet-stream", description = "The sealed document."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`wrong_state`: it is not sealed yet. `operation_cancelled`: it never will be. Where it failed, the code with which it did."),
    )
)]
pub(crate) async fn fetch_document(
    State(services): Shared,
    Extension(sealer): Desk,
    Path((id, number)): Path<(String, u32)>,
    request: Request<Body>,
) -> Response {
    let proved = match prove(&services, request).await {
        Ok(proved) => proved,
        Err(refusal) => return refused_unknown(&refusal),
    };
    let (app, received) = (Arc::clone(&proved.app), clock::monotonic());
    let answer = async {
        gate::admit_app(&proved.app)?;
        let memory = sealer.reserve(2 * FILE_BYTES)?;
        let (reader, bytes) = sealer.result(proved.app, id, number).await?;
        let pieces = stream::try_unfold((reader, memory), |(reader, memory)| async move {
            let next = blocking(move || next_piece(reader)).await?;
            Ok::<_, Refusal>(next.map(|(piece, reader)| (piece, (reader, memory))))
        });
        let kind = HeaderValue::from_static("application/octet-stream");
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_LENGTH, HeaderValue::from(bytes)),
        ];
        Ok((headers, Body::from_stream(pieces)).into_response())
    };
    let answer = answer.await;
    note(&app, Operation::Job, received, answer.as_ref().map(drop));
    answer.unwrap_or_else(|refusal| refuse(&refusal))
}

fn next_piece(mut reader: BlobReader) -> Result<Option<(Bytes, BlobReader)>, Refusal> {
    let mut piece = Vec::new();
    while piece.len() < FILE_BYTES {
        match reader.next()? {
            Some(chunk) => piece.extend_from_slice(&chunk),
            None => break,
        }
    }
    let is_end = piece.is_empty();
    Ok((!is_end).then(|| (Bytes::from(piece), reader)))
}

/// Starts an operation whose documents are all there.
#[utoipa::path(
    post, path = "/v1/operations/{id}/start", tag = "documents", params(("id" = String, Path)),
    responses(
        (status = 202, content_type = "application/json", description = "The operation: `running`."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`wrong_state`: documents are missing, or it is cancelled."),
    )
)]
pub(crate) async fn start(
    State(services): Shared,
    Extension(sealer): Desk,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |app, _, _, _| async move { sealer.start(app, id).await };
    match about_job(&services, request, true, question).await {
        Ok(operation) => accepted(&operation),
        Err(refusal) => refuse(&refusal),
    }
}

/// Cancels an operation: documents whose turn has not come are not sealed and not charged.
#[utoipa::path(
    post, path = "/v1/operations/{id}/cancellation", tag = "documents", params(("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "The operation as it stands."))
)]
pub(crate) async fn cancel(
    State(services): Shared,
    Extension(sealer): Desk,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |app, _, _, _| async move { sealer.cancel(app, id).await };
    answered(about_job(&services, request, false, question).await)
}

/// Erases an operation that is not running, with its documents and what was made of them.
#[utoipa::path(
    delete, path = "/v1/operations/{id}", tag = "documents", params(("id" = String, Path)),
    responses(
        (status = 200, content_type = "application/json", description = "It is gone."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`wrong_state`: it is running."),
    )
)]
pub(crate) async fn erase(
    State(services): Shared,
    Extension(sealer): Desk,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |app, _, _, _| async move { sealer.erase(app, id).await };
    answered(about_job(&services, request, false, question).await)
}
