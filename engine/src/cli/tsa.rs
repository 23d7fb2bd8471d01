//! `cinnabar tsa`: has a time stamp made, over the native protocol or by any RFC 3161 authority over HTTP; verifies one;
//! shows an app's token.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use actors::stamp_callers;
use bytes::Bytes;
use documents::tsp;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use protocol::algorithm::Hash;
use protocol::client::{Client, Profile, Transport};
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use serde_json::json;
use tokio::net::TcpStream;
use url::Url;

use super::{content, print_json, print_line, read_file};
use crate::args::{Content, TsaCommand, TsaStampArguments, TsaVerifyArguments};

/// Longest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long an authority may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a nonce.
const NONCE_BYTES: usize = 8;

fn usage(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Usage, error.to_string())
}

fn unreachable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Connection, format!("the time-stamping authority: {error}"))
}

pub(super) async fn run(command: TsaCommand) -> Result<(), Refusal> {
    match command {
        TsaCommand::Stamp(arguments) => stamp(arguments).await,
        TsaCommand::Verify(arguments) => verify(&arguments),
        TsaCommand::Token { profile } => print_line(&token(&profile)?),
    }
}

fn token(profile: &Path) -> Result<String, Refusal> {
    let profile = Profile::read(profile).map_err(usage)?;
    let secret = profile.secret().map_err(usage)?;
    Ok(stamp_callers::token(profile.app_id.as_str(), &secret))
}

async fn stamp(arguments: TsaStampArguments) -> Result<(), Refusal> {
    let digest = content::digest_by(&arguments.content, arguments.hash.into())?;
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
    // Without a leading zero it comes back as it was.
    nonce[0] |= 0x40;
    let request = tsp::Request::new(arguments.hash.into(), &digest, &nonce);
    let request = request.ok_or_else(|| usage("the digest does not have the length of its hash"))?;
    let query = request.to_der().map_err(usage)?;
    let answer = tokio::time::timeout(PATIENCE, ask(&arguments, query)).await;
    let answer = answer.map_err(|_| unreachable("no answer within 10 s"))??;
    let token =
        tsp::token_of(&answer).map_err(|error| Refusal::new(Code::SignatureRejected, error.to_string()))?;
    // Whether the authority is to be trusted is for `verify`; that this answers our question is for us.
    match tsp::verify_token(token, &|_| digest[..].into(), Some(&request), &[] as &[&[u8]]) {
        Ok(_) | Err(tsp::VerifyError::Path(_)) => {}
        Err(error) => return Err(Refusal::new(Code::SignatureInvalid, error.to_string())),
    }
    let failed = |error| Refusal::new(Code::File, format!("{}: {error}", arguments.out.display()));
    let mut file = std::fs::File::create(&arguments.out).map_err(failed)?;
    file.write_all(&answer).map_err(failed)
}

async fn ask(arguments: &TsaStampArguments, query: Vec<u8>) -> Result<Bytes, Refusal> {
    match (&arguments.url, &arguments.profile) {
        (Some(address), _) => post(&url(address, arguments)?, query).await,
        (None, Some(profile)) => {
            let profile = Profile::read(profile).map_err(usage)?;
            let client = Client::connect(&profile, Transport::Quic, 1).await?;
            let authority = arguments.authority.as_ref().map(AuthorityName::as_str);
            let answer = client.stamp(&query, authority).await;
            client.close().await;
            answer.map(Bytes::from)
        }
        (None, None) => Err(usage("give --url or --profile")),
    }
}

fn url(address: &str, arguments: &TsaStampArguments) -> Result<Url, Refusal> {
    let mut url: Url = address.parse().map_err(usage)?;
    if url.scheme() != "http" {
        return Err(usage("--url begins with http://: what is fetched is signed"));
    }
    if let Some(profile) = &arguments.profile {
        let path = format!("{}/{}", url.path().trim_end_matches('/'), token(profile)?);
        url.set_path(&path);
    }
    if let Some(authority) = &arguments.authority {
        url.query_pairs_mut().append_pair("authority", authority.as_str());
    }
    Ok(url)
}

/// RFC 3161 3.4.
async fn post(url: &Url, query: Vec<u8>) -> Result<Bytes, Refusal> {
    let host = url.host_str().ok_or_else(|| usage("--url names no host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((address, port)).await.map_err(unreachable)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    tokio::spawn(connection);
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let query = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, tsp::QUERY_TYPE)
        .body(Full::new(Bytes::from(query)))
        .map_err(usage)?;
    let response = sender.send_request(query).await.map_err(unreachable)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(unreachable)?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    // An authority of ours says which code it is.
    let text = String::from_utf8_lossy(&body);
    let (code, rest) = text.trim_end().split_once(": ").unwrap_or(("", text.trim_end()));
    Err(match Code::from_name(code) {
        Some(code) => Refusal::new(code, rest.to_owned()),
        None => unreachable(format!("status {status}")),
    })
}

fn verify(arguments: &TsaVerifyArguments) -> Result<(), Refusal> {
    let bytes = read_file(&arguments.token)?;
    // A whole response, as `stamp` writes it, or the bare token.
    let token = tsp::token_of(&bytes).unwrap_or(&bytes);
    let blocks = pem::parse_many(read_file(&arguments.ca)?).map_err(usage)?;
    let anchors: Vec<Vec<u8>> = blocks.into_iter().map(pem::Pem::into_contents).collect();
    let stamp = tsp::verify_token(token, &digest_of(&arguments.content)?, None, &anchors)
        .map_err(|error| Refusal::new(Code::SignatureInvalid, error.to_string()))?;
    print_json(&json!({
        "time_ms": stamp.time.0,
        "serial": stamp.serial.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "policy": stamp.policy.to_string(),
        "algorithm": stamp.algorithm,
        "authority": stamp.authority,
    }))
}

/// The digest by whichever hash the token turns out to have.
fn digest_of(content: &Content) -> Result<impl Fn(Hash) -> smallvec::SmallVec<[u8; 64]> + use<>, Refusal> {
    let file = content.file.as_deref().map(read_file).transpose()?;
    let given = match &file {
        Some(_) => Vec::new(),
        None => content::digest_by(content, Hash::Sha256)?,
    };
    Ok(move |hash: Hash| match &file {
        Some(file) => hash.digest(file),
        None => given[..].into(),
    })
}
