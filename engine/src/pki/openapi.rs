//! The pki listener in the OpenAPI document. Its handlers are no axum's, so the document is written by hand.

use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::server::{Server, ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::{Content, Paths, Required, ResponseBuilder};

use documents::{ocsp, tsp};

use super::http::CRL_TYPE;

/// A path of the listener.
struct Entry {
    path: &'static str,
    method: HttpMethod,
    summary: &'static str,
    /// Its name, and what it is.
    parameter: Option<(&'static str, &'static str)>,
    /// The media type of the body.
    body: Option<&'static str>,
    /// The media type of the answer, and what it is.
    answer: (&'static str, &'static str),
    refusals: &'static [(&'static str, &'static str)],
}

const STAMP_REFUSALS: &[(&str, &str)] = &[
    (
        "401",
        "Time stamps are given to apps here: /tsa/{token}, or HTTP Basic.",
    ),
    (
        "403",
        "The app may not sign now, or nothing is left of its packages.",
    ),
    ("413", "More than 8192 bytes."),
    ("415", "Not application/timestamp-query."),
    ("429", "Too many for nobody in particular; see Retry-After."),
    ("503", "We lack capacity, or the disk is full; see Retry-After."),
];
const STAMPED: (&str, &str) = (
    tsp::REPLY_TYPE,
    "TimeStampResp, DER, granted or rejected with a PKIFailureInfo.",
);
const STATUS: (&str, &str) = (
    ocsp::RESPONSE_TYPE,
    "OCSPResponse, DER, with or without an answer.",
);
const NO_LIST: &[(&str, &str)] = &[
    ("304", "The same as If-None-Match says."),
    ("404", "No such list."),
];

fn entries() -> [Entry; 6] {
    let stamp = |path, parameter, summary| Entry {
        path,
        method: HttpMethod::Post,
        summary,
        parameter,
        body: Some(tsp::QUERY_TYPE),
        answer: STAMPED,
        refusals: STAMP_REFUSALS,
    };
    let list = |path, summary| Entry {
        path,
        method: HttpMethod::Get,
        summary,
        parameter: Some(("name", "The authority.")),
        body: None,
        answer: (
            CRL_TYPE,
            "CertificateList, DER; with ETag, Expires and Cache-Control.",
        ),
        refusals: NO_LIST,
    };
    [
        stamp(
            "/tsa",
            None,
            "A time stamp (RFC 3161 3.4); `?authority=NAME` says by whom.",
        ),
        stamp(
            "/tsa/{token}",
            Some(("token", "The app's: `cinnabar tsa token` shows it.")),
            "The same for an app.",
        ),
        Entry {
            path: "/ocsp",
            method: HttpMethod::Post,
            summary: "How certificates stand (RFC 6960 A.1).",
            parameter: None,
            body: Some(ocsp::REQUEST_TYPE),
            answer: STATUS,
            refusals: &[
                ("413", "More than 8192 bytes."),
                ("415", "Not application/ocsp-request."),
            ],
        },
        Entry {
            path: "/ocsp/{request}",
            method: HttpMethod::Get,
            summary: "The same, for caches (RFC 5019 5).",
            parameter: Some(("request", "OCSPRequest, DER, base64, percent-encoded.")),
            body: None,
            answer: STATUS,
            refusals: &[("304", "The same as If-None-Match says.")],
        },
        list(
            "/crl/{name}.crl",
            "An authority's newest full revocation list (RFC 5280 5).",
        ),
        list(
            "/delta/{name}.crl",
            "Its newest delta to that, where there are deltas (RFC 5280 5.2.4).",
        ),
    ]
}

impl Entry {
    fn item(&self, server: &Server) -> PathItem {
        let binary = || Content::new::<utoipa::openapi::RefOr<utoipa::openapi::Schema>>(None);
        let mut operation = OperationBuilder::new()
            .tag("pki")
            .summary(Some(self.summary))
            // Whatever is fetched here is signed; nothing is proved by a message signature.
            .securities(Some([]))
            .server(server.clone());
        if let Some((name, description)) = self.parameter {
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some(description));
            operation = operation.parameter(parameter);
        }
        if let Some(kind) = self.body {
            let body = RequestBodyBuilder::new().required(Some(Required::True));
            operation = operation.request_body(Some(body.content(kind, binary()).build()));
        }
        let (kind, description) = self.answer;
        let answer = ResponseBuilder::new().description(description);
        operation = operation.response("200", answer.content(kind, binary()).build());
        for (status, description) in self.refusals {
            let refusal = ResponseBuilder::new().description(*description);
            operation = operation.response(*status, refusal.build());
        }
        PathItem::new(self.method.clone(), operation)
    }
}

/// Adds the paths of the listener.
pub(crate) fn add(paths: &mut Paths) {
    let address = ServerVariableBuilder::new()
        .default_value("127.0.0.1:8080")
        .description(Some("The setting `pki`; plain HTTP."));
    let server = ServerBuilder::new()
        .url("http://{address}")
        .description(Some("The pki listener"))
        .parameter("address", address)
        .build();
    for entry in entries() {
        paths.paths.insert(entry.path.to_owned(), entry.item(&server));
    }
}
