//! The console's own OpenAPI 3.1 document, made from the handlers' own types.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};

use super::{
    Console, approvals, books, dashboard, enrolment, entrance, guard, messages, people, registry, seals,
    service,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cinnabar, for operators",
        description = "Asked by an operator's TLS client certificate, or by a session that begins with a one-time link. \
            The role manage changes, audit reads everything, use sees the dashboard without tenants. What needs two operators answers \
            202 with a proposal. Errors are problem documents (RFC 9457) with a stable `code`. Times are minutes, \
            `YYYY-MM-DDThh:mm+08:00`. A session that changes something must send Origin."
    ),
    paths(
        entrance::me, entrance::log_out,
        people::list, people::create, people::set, people::link,
        registry::tenants, registry::create_tenant, registry::set_tenant, registry::activate, registry::bind,
        registry::set_prepaid, registry::credentials, registry::set_credential, registry::certificates,
        registry::authorities, registry::apps, registry::create_app, registry::set_app, registry::set_contract,
        registry::rotate_secret,
        enrolment::ending, enrolment::issue, enrolment::renew, enrolment::request, enrolment::import, enrolment::set, enrolment::set_by_serial,
        enrolment::subjects, enrolment::submit, enrolment::step, enrolment::challenge,
        seals::list, seals::show, seals::files, seals::uses, seals::create, seals::step, seals::grants, seals::grant,
        seals::revoke,
        books::packages, books::grant, books::kinds, books::correct, books::statement, books::agreement, books::notices, books::announce,
        dashboard::watch, service::devices, service::incidents, service::open, service::step,
        approvals::list, approvals::decide, approvals::actions,
        messages::webhooks, messages::set, messages::remove, messages::outbox, messages::alerts, messages::test
    ),
    modifiers(&Session),
    security(("session" = []))
)]
struct Api;

struct Session;

impl utoipa::Modify for Session {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let cookie = ApiKeyValue::new(guard::COOKIE);
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/openapi.json", get(|| async { Json(Api::openapi()) }))
}
