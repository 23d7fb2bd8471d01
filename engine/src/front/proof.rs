//! Who sends an HTTP request: an HTTP message signature (RFC 9421), or the TLS client certificate of the connection.

use std::sync::Arc;

use actors::services::Services;
use http::request::Parts as Head;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::http_proof::{self, BodyCheck, Parts, Presented, ProofError, VerifyKey};
use smallvec::SmallVec;
use store::{App, Proof, ProofKind};

/// SHA-256 of the client certificate of a request's connection; absent where there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerCertificate(pub(crate) [u8; 32]);

/// Proves a request and says who sent it.
pub(crate) fn prove(services: &Services, head: &Head, body: &[u8]) -> Result<(Arc<App>, Proof), Refusal> {
    check_digest(head, body)?;
    match (header(head, "signature-input")?, header(head, "signature")?) {
        (Some(input), Some(signature)) => {
            if !body.is_empty() && header(head, "content-digest")?.is_none() {
                return Err(no_digest());
            }
            by_signature(services, head, input, signature)
        }
        _ => by_certificate(services, head),
    }
}

/// Proves a request by its head alone, before its body is read: who sent it, and what the body has to be.
pub(crate) fn prove_head(
    services: &Services,
    head: &Head,
) -> Result<(Arc<App>, Proof, Option<BodyCheck>), Refusal> {
    let field = header(head, "content-digest")?;
    let check = field
        .map(BodyCheck::new)
        .transpose()
        .map_err(|error| digest_refusal(&error))?;
    let (app, proof) = match (header(head, "signature-input")?, header(head, "signature")?) {
        (Some(_), Some(_)) if check.is_none() => return Err(no_digest()),
        (Some(input), Some(signature)) => by_signature(services, head, input, signature)?,
        _ => by_certificate(services, head)?,
    };
    Ok((app, proof, check))
}

/// Without it the body would be anybody's; with a certificate, TLS says whose it is.
fn no_digest() -> Refusal {
    let text = "a signed request with a body needs a Content-Digest";
    Refusal::new(Code::Unauthenticated, text)
}

/// Of a body that is not the one its Content-Digest is of.
pub(crate) fn digest_refusal(error: &ProofError) -> Refusal {
    let text = match error {
        ProofError::Bad => "the body does not match its Content-Digest".to_owned(),
        other => other.to_string(),
    };
    Refusal::new(Code::ContentDigestMismatch, text)
}

/// One header as text. Two of a kind are refused: which one was signed would be anybody's guess.
fn header<'a>(head: &'a Head, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = head.headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::new(
            Code::MalformedRequest,
            format!("more than one {name} header"),
        ));
    }
    let text = first.to_str();
    text.map(Some)
        .map_err(|_| Refusal::new(Code::MalformedRequest, format!("the {name} header is not ASCII")))
}

/// The Idempotency-Key header: a bare key, or the same as a quoted string (the draft's form).
pub(crate) fn idempotency_key(head: &Head) -> Result<&str, Refusal> {
    let missing = || {
        Refusal::new(
            Code::IdempotencyKeyInvalid,
            "an Idempotency-Key header is required",
        )
    };
    let text = header(head, "idempotency-key")?.ok_or_else(missing)?.trim();
    Ok(text
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'))
        .unwrap_or(text))
}

fn check_digest(head: &Head, body: &[u8]) -> Result<(), Refusal> {
    let Some(field) = header(head, "content-digest")? else {
        return Ok(());
    };
    http_proof::check_content_digest(field, body).map_err(|error| digest_refusal(&error))
}

fn by_signature(
    services: &Services,
    head: &Head,
    input: &str,
    signature: &str,
) -> Result<(Arc<App>, Proof), Refusal> {
    let authority = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => header(head, "host")?.unwrap_or(""),
    };
    let parts = Parts {
        method: head.method.as_str(),
        authority,
        path: head.uri.path(),
        query: head.uri.query(),
        content_digest: header(head, "content-digest")?,
        idempotency_key: header(head, "idempotency-key")?,
    };
    let presented = http_proof::read(&parts, input, signature).map_err(|error| refuse(&error))?;
    let (app, kind) = check(services, &presented)?;
    presented
        .check_time(clock::wall())
        .map_err(|error| refuse(&error))?;
    // What somebody else could check is kept whole; a MAC proves nothing to a third party.
    let base = (kind == ProofKind::HttpSignature).then(|| presented.base.clone().into());
    let bytes = SmallVec::from_slice(presented.signature());
    Ok((app, Proof { kind, bytes, base }))
}

/// Checks a signature with the key registered for its app. An unknown app, an app without a key and a wrong signature
/// are one answer.
fn check(services: &Services, presented: &Presented) -> Result<(Arc<App>, ProofKind), Refusal> {
    let wrong = || Refusal::new(Code::Unauthenticated, "the app or its proof is wrong");
    let app = services
        .store
        .directory()
        .app(&presented.keyid)
        .ok_or_else(wrong)?;
    let kind = if let Some(key) = &app.public_key {
        presented
            .verify(&VerifyKey::Public(key))
            .map_err(|error| refuse(&error))?;
        ProofKind::HttpSignature
    } else {
        let secrets = services.vault.secrets(&app, clock::wall()).map_err(|_| wrong())?;
        // While a secret is being rotated the one before counts, too.
        let verified = secrets
            .iter()
            .map(|secret| presented.verify(&VerifyKey::Hmac(&secret.hmac)));
        let proved = verified.reduce(Result::or).ok_or_else(wrong)?;
        proved.map_err(|error| refuse(&error))?;
        ProofKind::HttpMac
    };
    Ok((app, kind))
}

fn by_certificate(services: &Services, head: &Head) -> Result<(Arc<App>, Proof), Refusal> {
    let absent = || refuse(&ProofError::Absent);
    let PeerCertificate(hash) = head.extensions.get().copied().ok_or_else(absent)?;
    let app = services.store.directory().app_by_certificate(&hash);
    let app = app.ok_or_else(|| Refusal::new(Code::Unauthenticated, "the app or its proof is wrong"))?;
    let proof = Proof {
        kind: ProofKind::ClientCertificate,
        bytes: SmallVec::from_slice(&hash),
        base: None,
    };
    Ok((app, proof))
}

fn refuse(error: &ProofError) -> Refusal {
    match error {
        ProofError::Stale => Refusal::new(Code::StaleRequest, error.to_string()),
        ProofError::Bad => Refusal::new(Code::Unauthenticated, "the app or its proof is wrong"),
        _ => Refusal::new(Code::Unauthenticated, error.to_string()),
    }
}
