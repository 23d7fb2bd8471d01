//! Certificates and subjects over HTTPS: what an app does about those of its own tenant.

use std::sync::Arc;

use actors::core::Core;
use actors::enrolment;
use actors::gate;
use actors::latency::{Operation, Transport};
use actors::minutes;
use actors::services::Services;
use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{Request, header};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::SubjectId;
use protocol::json::{Problem, certificate_call_path};
use serde::de::DeserializeOwned;
use sla::answer::Outcome;

use super::http::{Proved, Shared, count, json, prove, refuse, refuse_at};
use super::proof;
use crate::admin::subjects::NewSubject;
use crate::registration::{
    ErasureBody, ImportBody, NewCertificate, Question, Registration, RenewalBody, RequestBody, RevocationBody,
};

/// Where a list goes on.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Those after this one: the last of the answer before.
    after: Option<String>,
}

type Page = Result<Query<PageQuery>, QueryRejection>;
type Desk = Extension<Registration>;

fn body<T: DeserializeOwned>(proved: &Proved) -> Result<T, Refusal> {
    let kind = proved.head.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.trim_start().starts_with("application/json") {
        let text = "the body must be application/json";
        return Err(Refusal::new(Code::UnsupportedMediaType, text));
    }
    serde_json::from_slice(&proved.body)
        .map_err(|error| Refusal::new(Code::MalformedRequest, format!("the body: {error}")))
}

/// The call, so that asking again brings the same certificate.
fn asked(proved: &Proved) -> Result<store::Asked, Refusal> {
    let key = gate::idempotency_key(proof::idempotency_key(&proved.head)?)?;
    let parts = [proved.head.uri.path().as_bytes(), &proved.body];
    Ok(enrolment::asked(&proved.app.id, key.as_str(), &parts))
}

/// What a path of this chapter is about.
fn operation(head: &http::request::Parts) -> Operation {
    match head.uri.path().starts_with("/v1/certificates") {
        true => Operation::Certificates,
        false => Operation::Subjects,
    }
}

/// Proves who asks, brings the question to the desk, and notes how that ended.
async fn ask(
    services: &Services,
    desk: &Registration,
    request: Request<Body>,
    changes: bool,
    question: impl FnOnce(&Proved) -> Result<Question, Refusal>,
) -> Response {
    let proved = match prove(services, request).await {
        Ok(proved) => proved,
        Err(refusal) => {
            count(&refusal);
            return refuse(&refusal);
        }
    };
    let place = place(&proved);
    let (app, received) = (Arc::clone(&proved.app), proved.received);
    let operation = operation(&proved.head);
    let answer = async {
        match changes {
            true => gate::admit_change(&proved.app, clock::wall())?,
            false => gate::admit_app(&proved.app).map(|_| ())?,
        }
        let question = question(&proved)?;
        desk.ask(proved.app, question, received).await
    };
    let answer = answer.await;
    if let Some(core) = Core::current() {
        let refused = answer.as_ref().err();
        let outcome = refused.map_or(Outcome::Result, |refusal| minutes::of_code(refusal.code));
        core.note_certificates(&app, outcome, received, (operation, Transport::Https));
    }
    match answer {
        Ok(value) => json(&value),
        Err(refusal) => refuse_at(&refusal, place),
    }
}

/// Where to look when the outcome is not known in time.
fn place(proved: &Proved) -> Option<String> {
    let (head, key) = (&proved.head, proof::idempotency_key(&proved.head).ok());
    match (operation(head), key) {
        (Operation::Certificates, Some(key)) => Some(certificate_call_path(key)),
        _ => None,
    }
}

fn page(query: Page) -> Result<Option<String>, Refusal> {
    let Ok(Query(PageQuery { after })) = query else {
        return Err(Refusal::new(Code::MalformedRequest, "the query takes `after`"));
    };
    Ok(after)
}

/// A name that cannot be anybody's is like one of nobody.
fn subject(text: &str) -> Result<SubjectId, Refusal> {
    SubjectId::new(text).map_err(|_| Refusal::new(Code::NotFound, format!("no subject '{text}'")))
}

/// The certificates of the app's tenant that are or were in force, the oldest first, at most 256.
#[utoipa::path(
    get, path = "/v1/certificates", tag = "certificates", params(PageQuery),
    responses((status = 200, content_type = "application/json", description = "`certificates`: serial, profile, subject, issuer, standing, end, PEM."))
)]
pub(crate) async fn certificates(
    State(services): Shared,
    Extension(desk): Desk,
    query: Page,
    request: Request<Body>,
) -> Response {
    let question = |_: &Proved| {
        let after = page(query)?;
        Ok(Question::Certificates { after })
    };
    ask(&services, &desk, request, false, question).await
}

/// One of them, with the certificates of its issuers.
#[utoipa::path(
    get, path = "/v1/certificates/{serial}", tag = "certificates",
    params(("serial" = String, Path, description = "Its serial number, hexadecimal.")),
    responses(
        (status = 200, content_type = "application/json", description = "As in the list, with `chain`."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The tenant has no such certificate."),
    )
)]
pub(crate) async fn certificate(
    State(services): Shared,
    Extension(desk): Desk,
    Path(serial): Path<String>,
    request: Request<Body>,
) -> Response {
    ask(&services, &desk, request, false, |_| {
        Ok(Question::Certificate(serial))
    })
    .await
}

/// Issues a certificate: for a request (PKCS#10), for the key of a credential, or for a new credential.
#[utoipa::path(
    post, path = "/v1/certificates", tag = "certificates", request_body = NewCertificate,
    params(("Idempotency-Key" = String, Header, description = "Names the call for good: asked again, it brings the same certificate, counted once.")),
    responses(
        (status = 200, content_type = "application/json", description = "The certificate, with `chain`."),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "`subject_not_approved`, `quota_exhausted`."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`certificate_request_refused`: proof of possession, key, names or wishes."),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "`outcome_unknown`: still running after 2.5 s; `operation` says where to look."),
    )
)]
pub(crate) async fn issue(
    State(services): Shared,
    Extension(desk): Desk,
    request: Request<Body>,
) -> Response {
    let question = |proved: &Proved| Ok(Question::Issue(body(proved)?, asked(proved)?));
    ask(&services, &desk, request, true, question).await
}

/// Renews the certificate of a credential, for the same names.
#[utoipa::path(
    post, path = "/v1/certificates/{serial}/renewal", tag = "certificates", request_body = RenewalBody,
    params(
        ("serial" = String, Path, description = "The serial number of one of the credential's certificates, hexadecimal."),
        ("Idempotency-Key" = String, Header, description = "Names the call for good: asked again, it brings the same certificate, counted once.")
    ),
    responses(
        (status = 200, content_type = "application/json", description = "The new certificate, with `chain`."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The last certificate is suspended or revoked, or the key is not here."),
    )
)]
pub(crate) async fn renew(
    State(services): Shared,
    Extension(desk): Desk,
    Path(serial): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |proved: &Proved| Ok(Question::Renew(serial, body(proved)?, asked(proved)?));
    ask(&services, &desk, request, true, question).await
}

/// Revokes a certificate for good: what its credential has in flight is not released either.
#[utoipa::path(
    post, path = "/v1/certificates/{serial}/revocation", tag = "certificates", request_body = RevocationBody,
    params(("serial" = String, Path, description = "Its serial number, hexadecimal.")),
    responses((status = 200, content_type = "application/json", description = "The certificate as it stands."))
)]
pub(crate) async fn revoke(
    State(services): Shared,
    Extension(desk): Desk,
    Path(serial): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |proved: &Proved| Ok(Question::Revoke(serial, body::<RevocationBody>(proved)?));
    ask(&services, &desk, request, true, question).await
}

/// Suspends a certificate (RFC 5280 certificateHold): until it is resumed, its credential signs nothing.
#[utoipa::path(
    post, path = "/v1/certificates/{serial}/suspension", tag = "certificates",
    params(("serial" = String, Path, description = "Its serial number, hexadecimal.")),
    responses(
        (status = 200, content_type = "application/json", description = "The certificate as it stands."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is not in force."),
    )
)]
pub(crate) async fn suspend(
    State(services): Shared,
    Extension(desk): Desk,
    Path(serial): Path<String>,
    request: Request<Body>,
) -> Response {
    ask(&services, &desk, request, true, |_| Ok(Question::Suspend(serial))).await
}

/// Resumes a certificate that an app of the tenant has suspended. What an operator has suspended only an operator resumes.
#[utoipa::path(
    post, path = "/v1/certificates/{serial}/resumption", tag = "certificates",
    params(("serial" = String, Path, description = "Its serial number, hexadecimal.")),
    responses(
        (status = 200, content_type = "application/json", description = "The certificate as it stands."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is not suspended, or an operator has suspended it."),
    )
)]
pub(crate) async fn resume(
    State(services): Shared,
    Extension(desk): Desk,
    Path(serial): Path<String>,
    request: Request<Body>,
) -> Response {
    ask(&services, &desk, request, true, |_| Ok(Question::Resume(serial))).await
}

/// What became of a call that was to bring a certificate.
#[utoipa::path(
    get, path = "/v1/certificates/calls/{idempotency_key}", tag = "certificates",
    params(("idempotency_key" = String, Path, description = "The call's key, percent-encoded.")),
    responses(
        (status = 200, content_type = "application/json", description = "The certificate that it has brought, with `chain`."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing has come of it, and nothing was charged; it may be tried again."),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "`outcome_pending`: it is still running."),
    )
)]
pub(crate) async fn call(
    State(services): Shared,
    Extension(desk): Desk,
    Path(key): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |_: &Proved| {
        gate::idempotency_key(&key)?;
        Ok(Question::Call(key))
    };
    ask(&services, &desk, request, false, question).await
}

/// Makes a request (PKCS#10) for the key of a credential, for another authority. The journal says so.
#[utoipa::path(
    post, path = "/v1/certificates/requests", tag = "certificates", request_body = RequestBody,
    responses((status = 200, content_type = "application/json", description = "`request`, PEM."))
)]
pub(crate) async fn make_request(
    State(services): Shared,
    Extension(desk): Desk,
    request: Request<Body>,
) -> Response {
    let question = |proved: &Proved| Ok(Question::Request(body(proved)?));
    ask(&services, &desk, request, true, question).await
}

/// Takes in what another authority has answered. It is what the credential is certified by from then on.
#[utoipa::path(
    post, path = "/v1/certificates/imports", tag = "certificates", request_body = ImportBody,
    responses(
        (status = 200, content_type = "application/json", description = "`certificate` and `chain`, PEM."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`certificate_chain_refused`: another key, a chain that does not hold, not valid now, no root."),
    )
)]
pub(crate) async fn import(
    State(services): Shared,
    Extension(desk): Desk,
    request: Request<Body>,
) -> Response {
    let question = |proved: &Proved| Ok(Question::Import(body(proved)?));
    ask(&services, &desk, request, true, question).await
}

/// The subjects of the app's tenant, by id, at most 256: names and numbers are masked.
#[utoipa::path(
    get, path = "/v1/subjects", tag = "subjects", params(PageQuery),
    responses((status = 200, content_type = "application/json", description = "`subjects`: kind, state, who checked and decided."))
)]
pub(crate) async fn subjects(
    State(services): Shared,
    Extension(desk): Desk,
    query: Page,
    request: Request<Body>,
) -> Response {
    let question = |_: &Proved| {
        let after = page(query)?.map(|text| subject(&text)).transpose()?;
        Ok(Question::Subjects { after })
    };
    ask(&services, &desk, request, false, question).await
}

/// One of them.
#[utoipa::path(
    get, path = "/v1/subjects/{id}", tag = "subjects", params(("id" = String, Path)),
    responses(
        (status = 200, content_type = "application/json", description = "Masked."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The tenant has no such subject."),
    )
)]
pub(crate) async fn subject_of(
    State(services): Shared,
    Extension(desk): Desk,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    ask(&services, &desk, request, false, |_| {
        Ok(Question::Subject(subject(&id)?))
    })
    .await
}

/// Submits a subject, whose identity is checked before it is certified.
#[utoipa::path(
    post, path = "/v1/subjects", tag = "subjects", request_body = NewSubject,
    responses((status = 200, content_type = "application/json", description = "The subject, masked: `submitted`."))
)]
pub(crate) async fn submit(
    State(services): Shared,
    Extension(desk): Desk,
    request: Request<Body>,
) -> Response {
    let question = |proved: &Proved| Ok(Question::Submit(body(proved)?));
    ask(&services, &desk, request, true, question).await
}

/// Makes a question that a verification service can answer once, within 10 minutes.
#[utoipa::path(
    post, path = "/v1/subjects/{id}/challenge", tag = "subjects", params(("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`nonce`, `subject`, `evidence_sha256`, `expires`: what the service has to repeat and sign."))
)]
pub(crate) async fn challenge(
    State(services): Shared,
    Extension(desk): Desk,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    ask(&services, &desk, request, true, |_| {
        Ok(Question::Challenge(subject(&id)?))
    })
    .await
}

/// Erases what is known of a subject. That it was is recorded.
#[utoipa::path(
    post, path = "/v1/subjects/{id}/erasure", tag = "subjects", request_body = ErasureBody, params(("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "The subject: `erased`."))
)]
pub(crate) async fn erase(
    State(services): Shared,
    Extension(desk): Desk,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let question = |proved: &Proved| Ok(Question::Erase(subject(&id)?, body(proved)?));
    ask(&services, &desk, request, true, question).await
}

/// What a verification service says.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerificationBody {
    /// A JWS in compact form (RFC 7515), `kid` the service's name, over JSON: `nonce`, `subject`, `evidence_sha256`,
    /// `confirmed`.
    token: String,
}

/// Takes a verification service's signed answer to a question. The signature is all the proof there is.
#[utoipa::path(
    post, path = "/v1/verifications", tag = "subjects", security(()), request_body = VerificationBody,
    responses(
        (status = 200, content_type = "application/json", description = "It counts."),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "`verification_refused`: not signed by a service that is known, not asked for, too late, or given before."),
    )
)]
pub(crate) async fn verify(Extension(desk): Desk, request: Request<Body>) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let bytes = super::http::read_body(body).await?;
        let received = clock::monotonic();
        let kind = head.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.trim_start().starts_with("application/json") {
            let text = "the body must be application/json";
            return Err(Refusal::new(Code::UnsupportedMediaType, text));
        }
        let sent: VerificationBody = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::new(Code::MalformedRequest, format!("the body: {error}")))?;
        desk.answer(sent.token, received).await
    };
    match answer.await {
        Ok(value) => json(&value),
        Err(refusal) => {
            count(&refusal);
            refuse(&refusal)
        }
    }
}
