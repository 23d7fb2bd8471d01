//! `cinnabar tsa`: has a time stamp made, over the native protocol or by any RFC 3161 authority over HTTP; verifies one;
//! shows an app's token.

use std::io::Write as _;
use std::path::Path;

use actors::stamp_callers;
use bytes::Bytes;
use documents::tsp;
use http::StatusCode;
use protocol::algorithm::Hash;
use protocol::client::{Client, Profile, Transport};
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use serde_json::json;
use url::Url;

use super::{content, fetch, print_json, print_line, read_file};
use crate::args::{Content, TsaCommand, TsaStampArguments, TsaVerifyArguments};

/// Longest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 8;

fn usage(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Usage, error.to_string())
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

/// Whom to ask for a time stamp: an address, the engine of a profile, or that engine's address with the app's token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamper<'s> {
    pub(super) url: Option<&'s str>,
    pub(super) profile: Option<&'s Path>,
    pub(super) authority: Option<&'s AuthorityName>,
}

async fn stamp(arguments: TsaStampArguments) -> Result<(), Refusal> {
    let digest = content::digest_by(&arguments.content, arguments.hash.into())?;
    let stamper = Stamper {
        url: arguments.url.as_deref(),
        profile: arguments.profile.as_deref(),
        authority: arguments.authority.as_ref(),
    };
    let answer = stamper.stamp(arguments.hash.into(), &digest).await?;
    let failed = |error| Refusal::new(Code::File, format!("{}: {error}", arguments.out.display()));
    let mut file = std::fs::File::create(&arguments.out).map_err(failed)?;
    file.write_all(&answer).map_err(failed)
}

impl Stamper<'_> {
    /// The authority's response to a digest, in DER. That it answers this question has been seen; whether the authority is
    /// to be trusted is for whoever verifies.
    pub(super) async fn stamp(&self, hash: Hash, digest: &[u8]) -> Result<Bytes, Refusal> {
        let mut nonce = [0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
        // Without a leading zero it comes back as it was.
        nonce[0] |= 0x40;
        let request = tsp::Request::new(hash, digest, &nonce);
        let request = request.ok_or_else(|| usage("the digest does not have the length of its hash"))?;
        let answer = self.ask(request.to_der().map_err(usage)?).await?;
        let token = tsp::token_of(&answer)
            .map_err(|error| Refusal::new(Code::SignatureRejected, error.to_string()))?;
        match tsp::verify_token(token, &|_| digest.into(), Some(&request), &[] as &[&[u8]]) {
            Ok(_) | Err(tsp::VerifyError::Path(_)) => Ok(answer),
            Err(error) => Err(Refusal::new(Code::SignatureInvalid, error.to_string())),
        }
    }

    async fn ask(&self, query: Vec<u8>) -> Result<Bytes, Refusal> {
        match (self.url, self.profile) {
            (Some(address), _) => post(&self.address(address)?, query).await,
            (None, Some(profile)) => {
                let profile = Profile::read(profile).map_err(usage)?;
                let client = Client::connect(&profile, Transport::Quic, 1).await?;
                let answer = client
                    .stamp(&query, self.authority.map(AuthorityName::as_str))
                    .await;
                client.close().await;
                answer.map(Bytes::from)
            }
            (None, None) => Err(usage("give --url or --profile")),
        }
    }

    fn address(&self, address: &str) -> Result<Url, Refusal> {
        let mut url = fetch::address(address)?;
        if let Some(profile) = self.profile {
            let path = format!("{}/{}", url.path().trim_end_matches('/'), token(profile)?);
            url.set_path(&path);
        }
        if let Some(authority) = self.authority {
            url.query_pairs_mut().append_pair("authority", authority.as_str());
        }
        Ok(url)
    }
}

/// RFC 3161 3.4.
async fn post(url: &Url, query: Vec<u8>) -> Result<Bytes, Refusal> {
    const WHOM: &str = "the time-stamping authority";
    let question = fetch::Question {
        whom: WHOM,
        url,
        body: Some((tsp::QUERY_TYPE, query)),
        bytes_max: ANSWER_BYTES_MAX,
    };
    let (status, body) = question.ask().await?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    // An authority of ours says which code it is.
    let text = String::from_utf8_lossy(&body);
    let (code, rest) = text.trim_end().split_once(": ").unwrap_or(("", text.trim_end()));
    Err(match Code::from_name(code) {
        Some(code) => Refusal::new(code, rest.to_owned()),
        None => Refusal::new(Code::Connection, format!("{WHOM}: status {status}")),
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
