//! Who may come in, and from where. A request is taken under the console's own names only (DNS rebinding); one that a
//! browser sends for another site is refused (cross-site request forgery); and everything but the login page and the dashboard's scripts needs a
//! role.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, Uri, header};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::OperatorName;
use store::{OperatorRole, Roles};

use super::{Console, Refused, read_bytes, refuse};
use crate::front::proof::PeerCertificate;

/// The session's cookie. The prefix makes browsers hold it to this host, this path and TLS (RFC 6265bis 4.1.3.2).
pub(super) const COOKIE: &str = "__Host-cinnabar";

/// What a request says about where it comes from.
#[derive(Clone, Copy, Debug, Default)]
struct Origins<'a> {
    /// `Host`, or `:authority`.
    host: &'a str,
    /// `Origin`, where it is sent.
    origin: Option<&'a str>,
    /// `Sec-Fetch-Site`, where it is sent.
    site: Option<&'a str>,
    /// Whether the method may change something.
    changes: bool,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum OriginError {
    #[error("the console is not reached under this host name (setting console_names)")]
    Host,
    #[error("the request comes from another site")]
    OtherSite,
}

/// The name without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn check(origins: Origins<'_>, names: &[String]) -> Result<(), OriginError> {
    let name = name_of(origins.host);
    if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(OriginError::Host);
    }
    let own = |origin: &str| {
        let host = origin.strip_prefix("https://");
        host.is_some_and(|host| host.eq_ignore_ascii_case(origins.host))
    };
    // A browser says where a request comes from; whoever says nothing is none, and has no cookie (see `identify`).
    let is_other = origins.origin.is_some_and(|origin| !own(origin))
        || origins.changes
            && origins
                .site
                .is_some_and(|site| site != "same-origin" && site != "none");
    if is_other {
        return Err(OriginError::OtherSite);
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn origins<'a>(method: &Method, uri: &'a Uri, headers: &'a HeaderMap) -> Origins<'a> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    Origins {
        host: authority
            .or_else(|| text(headers, header::HOST))
            .unwrap_or_default(),
        origin: text(headers, header::ORIGIN),
        site: headers
            .get("sec-fetch-site")
            .and_then(|value| value.to_str().ok()),
        changes: !matches!(*method, Method::GET | Method::HEAD),
    }
}

/// Stands before every route. The body is read first: over HTTP/2 a refusal in the middle of it is lost on clients that
/// take the reset of the stream for an error.
pub(super) async fn watch(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let bytes = match read_bytes(body).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refuse(&refusal),
    };
    let from = origins(&head.method, &head.uri, &head.headers);
    match check(from, &console.names) {
        Ok(()) => next.run(Request::from_parts(head, bytes.into())).await,
        Err(error) => refuse(&Refusal::new(Code::OriginRefused, error.to_string())),
    }
}

/// The token of a session, from the cookies.
pub(super) fn session_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// By what somebody came in, for answers that go on for long: it is looked at again, and that does not count as a request.
pub(super) struct Standing {
    certificate: Option<[u8; 32]>,
    token: Option<String>,
}

impl Standing {
    fn of(parts: &Parts) -> Self {
        let certificate = parts.extensions.get::<PeerCertificate>();
        Self {
            certificate: certificate.map(|PeerCertificate(hash)| *hash),
            token: session_token(&parts.headers).map(str::to_owned),
        }
    }

    /// Whether this operator may still be here.
    pub(super) fn lasts(&self, console: &Console, now: UnixMillis) -> bool {
        let operators = &console.operator.store.directory().operators;
        let by_certificate = || operators.by_certificate(self.certificate.as_ref()?);
        let by_session = || {
            let name = console.sessions.look(self.token.as_ref()?, now)?;
            operators.get(name.as_str())
        };
        let operator = by_certificate().or_else(by_session);
        operator.is_some_and(|operator| operator.is_active())
    }
}

impl FromRequestParts<Arc<Console>> for Standing {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Console>) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts))
    }
}

/// An operator who asks.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) name: OperatorName,
    pub(crate) roles: Roles,
}

impl Asker {
    /// As the journal names it.
    pub(crate) fn actor(&self) -> String {
        format!("operator {}", self.name)
    }
}

fn unknown() -> Refusal {
    Refusal::new(
        Code::Unauthenticated,
        "the console needs an operator's TLS client certificate or a session; `cinnabar operator login NAME` makes a link",
    )
}

/// Who asks: the operator of the TLS client certificate, or of the session. A session alone changes nothing unless the
/// browser says that the request comes from our own pages.
fn identify(console: &Console, parts: &Parts) -> Result<Asker, Refusal> {
    let directory = console.operator.store.directory();
    let by_certificate = parts
        .extensions
        .get::<PeerCertificate>()
        .and_then(|PeerCertificate(hash)| directory.operators.by_certificate(hash));
    let operator = match by_certificate {
        Some(operator) => operator,
        None => {
            let token = session_token(&parts.headers).ok_or_else(unknown)?;
            let name = console.sessions.find(token, clock::wall()).ok_or_else(unknown)?;
            let from = origins(&parts.method, &parts.uri, &parts.headers);
            if from.changes && from.origin.is_none() {
                let text = "a request that changes something by a session needs Origin";
                return Err(Refusal::new(Code::OriginRefused, text));
            }
            directory.operators.get(name.as_str()).ok_or_else(unknown)?
        }
    };
    if !operator.is_active() {
        return Err(unknown());
    }
    Ok(Asker {
        name: operator.name.clone(),
        roles: operator.roles,
    })
}

fn need(asker: Asker, roles: &[OperatorRole]) -> Result<Asker, Refusal> {
    if roles.iter().any(|role| asker.roles.has(*role)) {
        return Ok(asker);
    }
    let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
    let text = format!(
        "operator '{}' does not have the role {}",
        asker.name,
        names.join(" or ")
    );
    Err(Refusal::new(Code::RoleMissing, text))
}

fn admit(console: &Console, parts: &Parts, roles: &[OperatorRole]) -> Result<Asker, Refused> {
    let asker = identify(console, parts).and_then(|asker| need(asker, roles));
    asker.map_err(Refused)
}

/// Any operator.
pub(crate) struct Anybody(pub(crate) Asker);
/// Who may read: the roles manage and audit.
pub(crate) struct Reads(pub(crate) Asker);
/// Who may read what only auditors do.
pub(crate) struct Audits(pub(crate) Asker);
/// Who may change something: the role manage.
pub(crate) struct Manages(pub(crate) Asker);

macro_rules! admits {
    ($name:ident, $roles:expr) => {
        impl FromRequestParts<Arc<Console>> for $name {
            type Rejection = Refused;

            async fn from_request_parts(
                parts: &mut Parts,
                console: &Arc<Console>,
            ) -> Result<Self, Self::Rejection> {
                admit(console, parts, $roles).map(Self)
            }
        }
    };
}

admits!(Anybody, &OperatorRole::ALL);
admits!(Reads, &[OperatorRole::Manage, OperatorRole::Audit]);
admits!(Audits, &[OperatorRole::Audit]);
admits!(Manages, &[OperatorRole::Manage]);

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["localhost", "127.0.0.1", "::1", "console.example.com"]
            .map(str::to_owned)
            .to_vec()
    }

    fn get(host: &str) -> Result<(), OriginError> {
        let origins = Origins {
            host,
            ..Origins::default()
        };
        check(origins, &names())
    }

    fn change(origin: Option<&str>, site: Option<&str>) -> Result<(), OriginError> {
        let origins = Origins {
            host: "localhost:9444",
            origin,
            site,
            changes: true,
        };
        check(origins, &names())
    }

    #[test]
    fn the_console_answers_to_its_own_names() {
        for host in [
            "localhost",
            "LOCALHOST:9444",
            "127.0.0.1:9444",
            "[::1]:9444",
            "console.example.com",
        ] {
            assert_eq!(get(host), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9444",
            "[::2]:9444",
            "127.0.0.2",
        ] {
            assert_eq!(get(host), Err(OriginError::Host), "{host}");
        }
    }

    #[test]
    fn what_another_site_sends_is_refused() {
        let other = Err(OriginError::OtherSite);
        assert_eq!(
            change(Some("https://localhost:9444"), Some("same-origin")),
            Ok(())
        );
        assert_eq!(change(None, None), Ok(()), "not a browser");
        assert_eq!(change(Some("https://evil.example"), None), other);
        assert_eq!(change(Some("null"), None), other);
        assert_eq!(change(Some("http://localhost:9444"), None), other);
        // Another port is another origin, and another site's page cannot hide behind a missing Origin.
        assert_eq!(change(Some("https://localhost:8443"), Some("same-site")), other);
        assert_eq!(change(None, Some("cross-site")), other);
        assert_eq!(change(None, Some("same-site")), other);
    }

    #[test]
    fn the_session_is_found_among_cookies() {
        let mut headers = HeaderMap::new();
        let found = |headers: &HeaderMap| session_token(headers).map(str::to_owned);
        assert_eq!(found(&headers), None);
        headers.append(header::COOKIE, "a=b; __Host-cinnabarx=no".parse().unwrap());
        assert_eq!(found(&headers), None);
        headers.append(header::COOKIE, "c=d;__Host-cinnabar=yes; e=f".parse().unwrap());
        assert_eq!(found(&headers).as_deref(), Some("yes"));
    }

    #[test]
    fn a_role_that_is_missing_is_named() {
        let asker = |role: OperatorRole| Asker {
            name: OperatorName::new("alice").unwrap(),
            roles: role.into(),
        };
        assert!(need(asker(OperatorRole::Manage), &[OperatorRole::Manage]).is_ok());
        let refusal = need(asker(OperatorRole::Audit), &[OperatorRole::Manage]).unwrap_err();
        assert_eq!(refusal.code, Code::RoleMissing);
        assert!(refusal.message.contains("alice") && refusal.message.contains("manage"));
        assert!(need(asker(OperatorRole::Use), &OperatorRole::ALL).is_ok());
    }
}
