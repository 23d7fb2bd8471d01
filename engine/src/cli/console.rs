//! The console, asked with an operator's own certificate: for what the machine's owner cannot do alone.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use protocol::error_code::{Code, Refusal};
use protocol::json::Problem;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::operate::server_ca;
use crate::config::Config;
use crate::front::tls::Identity;
use crate::outgoing::post::roots;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

fn failed(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Refusal + '_ {
    move |error| Refusal::new(Code::Connection, format!("the console: {what}: {error}"))
}

fn tls(config: &Config, identity: &Identity) -> Result<TlsConnector, Refusal> {
    let wrong =
        |error: &dyn std::fmt::Display| Refusal::new(Code::Usage, format!("the certificate: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots(Some(&server_ca(config)))?)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| wrong(&error))?;
    Ok(TlsConnector::from(Arc::new(client)))
}

/// Posts to the console and returns what it answers.
pub(super) async fn post(
    config: &Config,
    identity: &Identity,
    path: &str,
    body: &Value,
) -> Result<Value, Refusal> {
    let host = config.console.names.first().map_or("localhost", String::as_str);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed("its name")(&error))?;
    let stream = TcpStream::connect(config.console.address).await;
    let stream = stream.map_err(|error| failed("connecting")(&error))?;
    let stream = tls(config, identity)?.connect(name, stream).await;
    let stream = stream.map_err(|error| failed("TLS")(&error))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed("HTTP")(&error))?;
    tokio::spawn(connection);
    let request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| failed("the request")(&error))?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| failed("HTTP")(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(|error| failed("its answer")(&error))?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| failed("its answer")(&error));
    }
    let problem: Problem = serde_json::from_slice(&body).map_err(|error| failed("its answer")(&error))?;
    Err(problem.refusal())
}
