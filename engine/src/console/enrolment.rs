//! Certificates and subjects, for operators.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use documents::crl::Reason;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AuthorityName, CredentialId, SubjectId, TenantName};
use serde::Deserialize;
use store::SubjectStep;
use utoipa::ToSchema;

use super::guard::{Manages, Reads};
use super::registry::{After, after};
use super::{Console, Named, Sent, Shared, refuse};
use crate::admin::certificates::{Certifiable, CertificateOrder, NewStanding};
use crate::admin::operator::Order;
use crate::admin::subjects::{NewSubject, SubjectOrder};
use crate::registration::RenewalBody;

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/operator/v1/certificates/ending/{days}", get(ending))
        .route(
            "/operator/v1/tenants/{tenant}/certificates",
            get(super::registry::certificates).post(issue),
        )
        .route(
            "/operator/v1/tenants/{tenant}/certificates/{serial}",
            post(set_by_serial),
        )
        .route(
            "/operator/v1/tenants/{tenant}/credentials/{id}/renewal",
            post(renew),
        )
        .route(
            "/operator/v1/tenants/{tenant}/credentials/{id}/request",
            get(request),
        )
        .route(
            "/operator/v1/tenants/{tenant}/credentials/{id}/chain",
            post(import),
        )
        .route(
            "/operator/v1/tenants/{tenant}/credentials/{id}/certificate",
            post(set),
        )
        .route(
            "/operator/v1/tenants/{tenant}/subjects",
            get(subjects).post(submit),
        )
        .route("/operator/v1/tenants/{tenant}/subjects/{id}/step", post(step))
        .route(
            "/operator/v1/tenants/{tenant}/subjects/{id}/challenge",
            post(challenge),
        )
}

/// A certificate for a request, or for a credential.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCertificate {
    /// What for.
    profile: String,
    /// The subject whose identity is approved.
    #[schema(value_type = Option<String>)]
    subject: Option<SubjectId>,
    /// The authority; without it, the first whose key fits.
    #[schema(value_type = Option<String>)]
    issuer: Option<AuthorityName>,
    /// A request (PKCS#10), PEM.
    request: Option<String>,
    /// The credential whose key is certified.
    #[schema(value_type = Option<String>)]
    credential: Option<CredentialId>,
}

/// What another authority has answered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    /// The certificate, each followed by its issuer's, PEM.
    chain: String,
    /// The root, PEM, where the chain does not end with it.
    root: Option<String>,
}

/// How a certificate is to stand.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewState {
    /// `suspended`, `resumed` or `revoked`.
    state: String,
    /// Why it is revoked, by its name in RFC 5280 5.3.1.
    reason: Option<String>,
    /// Which of the credential's certificates, hexadecimal; the newest if not given.
    serial: Option<String>,
}

/// What an operator does with a subject.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StepBody {
    /// `check`, `approve`, `reject` or `erase`.
    #[schema(value_type = String)]
    step: SubjectStep,
    /// Why, or by what order; the journal keeps it.
    #[serde(default)]
    reason: String,
}

/// How one certificate is to stand.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewStateOfOne {
    /// `suspended`, `resumed` or `revoked`.
    state: String,
    /// Why it is revoked, by its name in RFC 5280 5.3.1.
    reason: Option<String>,
}

fn standing(state: &str, reason: Option<&str>) -> Result<NewStanding, &'static str> {
    let reason = reason.unwrap_or("unspecified");
    let known = Reason::ALL.into_iter().find(|known| known.name() == reason);
    match (state, known) {
        ("suspended", _) => Ok(NewStanding::Suspended),
        ("resumed", _) => Ok(NewStanding::Resumed),
        ("revoked", Some(reason)) => Ok(NewStanding::Revoked(reason.number())),
        ("revoked", None) => Err("not a reason of RFC 5280 5.3.1, such as keyCompromise"),
        _ => Err("`state` is suspended, resumed or revoked"),
    }
}

fn malformed(text: &'static str) -> Response {
    refuse(&Refusal::new(Code::MalformedRequest, text))
}

/// Certificates in force of all tenants that end within so many days.
#[utoipa::path(
    get, path = "/operator/v1/certificates/ending/{days}", tag = "credentials", params(("days" = u32, Path)),
    responses((status = 200, content_type = "application/json", description = "The first first."))
)]
pub(super) async fn ending(State(console): Shared, Reads(asker): Reads, Named(days): Named<u32>) -> Response {
    let order = CertificateOrder::Ending { days };
    console.list(&asker, Order::Certificate(order)).await
}

/// Issues a certificate.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/certificates", tag = "credentials", request_body = NewCertificate,
    params(("tenant" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`certificate` and `chain`, PEM."), (status = 202, description = "Proposed."))
)]
pub(super) async fn issue(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(new): Sent<NewCertificate>,
) -> Response {
    let what = match (new.request, new.credential) {
        (Some(request), None) => Certifiable::Request(request),
        (None, Some(credential)) => Certifiable::Credential(credential),
        _ => return malformed("give either a request or a credential"),
    };
    let order = CertificateOrder::Issue {
        tenant,
        profile: new.profile,
        subject: new.subject,
        issuer: new.issuer,
        what,
    };
    console.order(&asker, Order::Certificate(order)).await
}

/// Renews the certificate of a credential.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/credentials/{id}/renewal", tag = "credentials", request_body = RenewalBody,
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`certificate` and `chain`, PEM."), (status = 202, description = "Proposed."))
)]
pub(super) async fn renew(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, credential)): Named<(TenantName, CredentialId)>,
    Sent(RenewalBody { new_key }): Sent<RenewalBody>,
) -> Response {
    let order = CertificateOrder::Renew {
        tenant,
        credential,
        new_key,
    };
    console.order(&asker, Order::Certificate(order)).await
}

/// A request (PKCS#10) for a credential's key, for another authority.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/credentials/{id}/request", tag = "credentials",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`request`, PEM."))
)]
pub(super) async fn request(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, credential)): Named<(TenantName, CredentialId)>,
) -> Response {
    let order = CertificateOrder::Request {
        tenant,
        credential,
        subject: None,
    };
    console.list(&asker, Order::Certificate(order)).await
}

/// Takes in what another authority has answered.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/credentials/{id}/chain", tag = "credentials", request_body = Chain,
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`certificate` and `chain`, PEM."), (status = 202, description = "Proposed."))
)]
pub(super) async fn import(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, credential)): Named<(TenantName, CredentialId)>,
    Sent(Chain { chain, root }): Sent<Chain>,
) -> Response {
    let order = CertificateOrder::Import {
        tenant,
        credential,
        chain,
        root,
    };
    console.order(&asker, Order::Certificate(order)).await
}

/// Suspends, resumes or revokes a credential's certificate.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/credentials/{id}/certificate", tag = "credentials", request_body = NewState,
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "Serial, standing and the number of the revocation list that says so."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, credential)): Named<(TenantName, CredentialId)>,
    Sent(new): Sent<NewState>,
) -> Response {
    let to = match standing(&new.state, new.reason.as_deref()) {
        Ok(to) => to,
        Err(text) => return malformed(text),
    };
    let order = CertificateOrder::Set {
        tenant,
        credential: Some(credential),
        serial: new.serial,
        to,
    };
    console.order(&asker, Order::Certificate(order)).await
}

/// Suspends, resumes or revokes a certificate by its serial number: one whose key is not here has no credential.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/certificates/{serial}", tag = "credentials", request_body = NewStateOfOne,
    params(("tenant" = String, Path), ("serial" = String, Path, description = "Hexadecimal.")),
    responses((status = 200, content_type = "application/json", description = "Serial, standing and the number of the revocation list that says so."), (status = 202, description = "Proposed."))
)]
pub(super) async fn set_by_serial(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, serial)): Named<(TenantName, String)>,
    Sent(new): Sent<NewStateOfOne>,
) -> Response {
    let to = match standing(&new.state, new.reason.as_deref()) {
        Ok(to) => to,
        Err(text) => return malformed(text),
    };
    let order = CertificateOrder::Set {
        tenant,
        credential: None,
        serial: Some(serial),
        to,
    };
    console.order(&asker, Order::Certificate(order)).await
}

/// A tenant's subjects: names and numbers are masked.
#[utoipa::path(
    get, path = "/operator/v1/tenants/{tenant}/subjects", tag = "subjects", params(("tenant" = String, Path), After),
    responses((status = 200, content_type = "application/json", description = "By id, at most 256. Ask again with `after`, the last id, until there are fewer."))
)]
pub(super) async fn subjects(
    State(console): Shared,
    Reads(asker): Reads,
    Named(tenant): Named<TenantName>,
    query: Result<Query<After>, QueryRejection>,
) -> Response {
    let after = after(query).and_then(|after| {
        let bad = |_| Refusal::new(Code::MalformedRequest, "`after` is a subject's id");
        after.map(|after| SubjectId::new(&after).map_err(bad)).transpose()
    });
    let after = match after {
        Ok(after) => after,
        Err(refusal) => return refuse(&refusal),
    };
    let order = SubjectOrder::List { tenant, after };
    console.list(&asker, Order::Subject(order)).await
}

/// Takes a subject in.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/subjects", tag = "subjects", request_body = NewSubject,
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Done: it is `submitted`."))
)]
pub(super) async fn submit(
    State(console): Shared,
    Manages(asker): Manages,
    Named(tenant): Named<TenantName>,
    Sent(new): Sent<NewSubject>,
) -> Response {
    let order = SubjectOrder::Submit { tenant, new };
    console.order(&asker, Order::Subject(order)).await
}

/// Checks, approves (by another operator than the one who checked), rejects or erases a subject.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/subjects/{id}/step", tag = "subjects", request_body = StepBody,
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, description = "Done."), (status = 202, description = "Proposed."))
)]
pub(super) async fn step(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, id)): Named<(TenantName, SubjectId)>,
    Sent(StepBody { step, reason }): Sent<StepBody>,
) -> Response {
    let order = SubjectOrder::Step {
        tenant,
        id,
        step,
        reason,
    };
    console.order(&asker, Order::Subject(order)).await
}

/// Makes a question that a verification service can answer once, within 10 minutes.
#[utoipa::path(
    post, path = "/operator/v1/tenants/{tenant}/subjects/{id}/challenge", tag = "subjects",
    params(("tenant" = String, Path), ("id" = String, Path)),
    responses((status = 200, content_type = "application/json", description = "`nonce`, `subject`, `evidence_sha256`, `expires`."))
)]
pub(super) async fn challenge(
    State(console): Shared,
    Manages(asker): Manages,
    Named((tenant, id)): Named<(TenantName, SubjectId)>,
) -> Response {
    let order = SubjectOrder::Challenge { tenant, id };
    console.order(&asker, Order::Subject(order)).await
}
