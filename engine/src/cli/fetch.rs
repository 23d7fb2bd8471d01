//! Small things over plain HTTP: what certificates name is fetched that way (RFC 5280 4.2.1.13), because all of it is
//! signed.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use protocol::error_code::{Code, Refusal};
use tokio::net::TcpStream;
use url::{Position, Url};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
pub(super) struct Question<'q> {
    /// Who is asked, in errors.
    pub(super) whom: &'q str,
    pub(super) url: &'q Url,
    /// What is posted, and its media type; without it, a GET.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    /// Longest answer that is taken, in bytes.
    pub(super) bytes_max: usize,
}

/// An address that can be asked.
pub(super) fn address(text: &str) -> Result<Url, Refusal> {
    let url: Url = text
        .parse()
        .map_err(|error| Refusal::new(Code::Usage, format!("'{text}': {error}")))?;
    if url.scheme() != "http" || url.host_str().is_none() {
        let text = format!("'{text}': an address begins with http://, what is fetched is signed");
        return Err(Refusal::new(Code::Usage, text));
    }
    Ok(url)
}

impl Question<'_> {
    fn failed(&self, error: impl std::fmt::Display) -> Refusal {
        Refusal::new(Code::Connection, format!("{}: {error}", self.whom))
    }

    /// Asks once, without following anybody elsewhere.
    pub(super) async fn ask(self) -> Result<(StatusCode, Bytes), Refusal> {
        let late = self.failed("no answer within 10 s");
        tokio::time::timeout(PATIENCE, self.asked())
            .await
            .map_err(|_| late)?
    }

    async fn asked(mut self) -> Result<(StatusCode, Bytes), Refusal> {
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let port = self.url.port_or_known_default().unwrap_or(80);
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((address, port))
            .await
            .map_err(|error| self.failed(error))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| self.failed(error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .uri(&self.url[Position::BeforePath..Position::AfterQuery])
            .header(header::HOST, format!("{host}:{port}"));
        let (request, body) = match self.body.take() {
            Some((kind, body)) => (
                request.method(Method::POST).header(header::CONTENT_TYPE, kind),
                body,
            ),
            None => (request, Vec::new()),
        };
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.failed(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.failed(error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), self.bytes_max).collect().await;
        Ok((status, body.map_err(|error| self.failed(error))?.to_bytes()))
    }
}
