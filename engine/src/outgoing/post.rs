//! A POST to somebody outside: the name is resolved once, an address that it resolves to is checked and connected to, and
//! redirects lead nowhere. Of a webhook's answer the status is all that is read; witnesses and authorities for time stamps
//! answer with something.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use actors::outgoing::destination::{self, Allowed, Destination, DestinationError};
use actors::outgoing::signature::Fields;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use protocol::error_code::{Code, Refusal};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// The name is unknown.
    #[error("the name cannot be resolved: {0}")]
    Resolve(std::io::Error),
    /// It resolves to nothing, or to nothing that may be reached.
    #[error("it resolves to no public address ({0})")]
    NotPublic(String),
    /// Nobody listens, or not as they should.
    #[error("connecting: {0}")]
    Connect(std::io::Error),
    /// Not a name that TLS knows.
    #[error("the host is no server name")]
    ServerName,
    /// The answer is no HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is cut short, or too long.
    #[error("the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The request cannot be written.
    #[error("the request: {0}")]
    Request(#[from] http::Error),
}

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Posts messages.
pub(crate) struct Poster {
    tls: TlsConnector,
    allowed: Allowed,
}

/// The system's CA certificates, and those of a file.
pub(crate) fn roots(file: Option<&Path>) -> Result<RootCertStore, Refusal> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "the system's CA certificates");
    }
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = file {
        let wrong = |error: &dyn std::fmt::Display| {
            Refusal::new(
                Code::Usage,
                format!("CA certificates: {}: {error}", path.display()),
            )
        };
        let text = std::fs::read(path).map_err(|error| wrong(&error))?;
        for block in pem::parse_many(text).map_err(|error| wrong(&error))? {
            let certificate = CertificateDer::from(block.into_contents());
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
    }
    Ok(roots)
}

impl Poster {
    pub(crate) fn new(file: Option<&Path>, allowed: Allowed) -> Result<Self, Refusal> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?
            .with_root_certificates(roots(file)?)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { tls, allowed })
    }

    /// Posts a message and returns the status of the answer.
    pub(crate) async fn post(
        &self,
        destination: &Destination,
        fields: &Fields,
        body: &str,
    ) -> Result<u16, PostError> {
        let request = request(destination, "application/json")
            .header("webhook-id", &fields.id)
            .header("webhook-timestamp", &fields.timestamp)
            .header("webhook-signature", &fields.signature)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        Ok(self.send(destination, request, false).await?.0)
    }

    /// Asks something and returns status and body of the answer.
    pub(crate) async fn ask(
        &self,
        destination: &Destination,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), PostError> {
        let request = request(destination, content_type).body(Full::new(body.into()))?;
        self.send(destination, request, true).await
    }

    async fn send(
        &self,
        destination: &Destination,
        request: Request<Full<Bytes>>,
        reads_body: bool,
    ) -> Result<(u16, Bytes), PostError> {
        let address = self.resolve(destination).await?;
        let stream = TcpStream::connect(address).await.map_err(PostError::Connect)?;
        if !destination.tls {
            return exchange(stream, request, reads_body).await;
        }
        let name = ServerName::try_from(destination.host.clone()).map_err(|_| PostError::ServerName)?;
        let stream = self.tls.connect(name, stream).await;
        exchange(stream.map_err(PostError::Connect)?, request, reads_body).await
    }

    /// The address that is connected to: of those that the name resolves to, the first that may be reached.
    async fn resolve(&self, destination: &Destination) -> Result<SocketAddr, PostError> {
        let target = (destination.host.as_str(), destination.port);
        let addresses = tokio::net::lookup_host(target)
            .await
            .map_err(PostError::Resolve)?;
        let mut refused: Option<DestinationError> = None;
        for address in addresses {
            match destination::check(address.ip(), self.allowed) {
                Ok(()) => return Ok(address),
                Err(error) => refused = Some(error),
            }
        }
        let text = refused.map_or_else(|| "none at all".to_owned(), |error| error.to_string());
        Err(PostError::NotPublic(text))
    }
}

fn request(destination: &Destination, content_type: &'static str) -> http::request::Builder {
    Request::post(&destination.target)
        .header(header::HOST, destination.authority())
        .header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        .header(
            header::USER_AGENT,
            concat!("cinnabar/", env!("CARGO_PKG_VERSION")),
        )
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    reads_body: bool,
) -> Result<(u16, Bytes), PostError> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, which is dropped at the end of the attempt.
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        if !reads_body {
            return Ok((status, Bytes::new()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        Ok((status, body.map_err(PostError::Body)?.to_bytes()))
    };
    let answer = answer.await;
    driver.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(allowed: Allowed) -> Result<SocketAddr, PostError> {
        let poster = Poster::new(None, allowed).unwrap();
        let development = Allowed { loopback: true };
        let destination = Destination::parse("http://localhost:9/", development).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(poster.resolve(&destination))
    }

    #[test]
    fn a_name_that_leads_inside_is_not_followed() {
        let refused = resolve(Allowed { loopback: false });
        assert!(matches!(refused, Err(PostError::NotPublic(_))), "{refused:?}");
        assert!(resolve(Allowed { loopback: true }).unwrap().ip().is_loopback());
    }
}
