//! The OpenAPI 3.1 document, made from the handlers' own types.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cinnabar",
        description = "Signatures, durable and metered. Every request is proved by an HTTP message signature (RFC 9421) \
            that covers @method, @authority, @path, @query, and content-digest and idempotency-key where present, \
            with created, keyid = app id and tag = \"cinnabar\"; or by a registered TLS client certificate. \
            Binary fields are base64. Errors are problem documents (RFC 9457) with a stable `code`."
    ),
    paths(super::http::sign, super::http::look_up, super::http::credentials, super::http::usage,
        super::seals::seals, super::seals::seal, super::seals::grants,
        super::reports::packages, super::reports::statement, super::reports::agreement, super::reports::notices,
        super::registration::certificates, super::registration::certificate, super::registration::issue,
        super::registration::renew, super::registration::revoke, super::registration::suspend, super::registration::resume,
        super::registration::call, super::registration::make_request, super::registration::import, super::registration::subjects, super::registration::subject_of,
        super::registration::submit, super::registration::challenge, super::registration::erase, super::registration::verify,
        super::documents::seal, super::documents::verify, super::documents::new_job, super::documents::operation,
        super::documents::erase, super::documents::operation_documents, super::documents::put_document,
        super::documents::fetch_document, super::documents::start, super::documents::cancel,
        super::audit::checkpoint, super::audit::cosigned, super::audit::tile, super::location::data_location),
    modifiers(&Proof),
    security(("http-message-signature" = []))
)]
struct Api;

struct Proof;

impl utoipa::Modify for Proof {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        // OpenAPI has no scheme for HTTP message signatures; the field that carries one comes closest.
        let text = "HTTP message signature (RFC 9421): Signature-Input and Signature";
        let scheme = ApiKeyValue::with_description("Signature-Input", text);
        let components = openapi.components.get_or_insert_with(Default::default);
        components.add_security_scheme(
            "http-message-signature",
            SecurityScheme::ApiKey(ApiKey::Header(scheme)),
        );
    }
}

/// The document.
pub(crate) fn api() -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    crate::pki::openapi::add(&mut api.paths);
    api
}

pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(api())
}
