//! The proof on HTTPS: HTTP message signatures (RFC 9421), read, checked and made. No sockets and no clock.
//!
//! A signature must cover `@method`, `@authority`, `@path` and `@query`, and `content-digest` and
//! `idempotency-key` where the request has them (SEMANTICS 2.4). The algorithm comes from the key registered for
//! the app, never from the message.

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair};
use aws_lc_rs::{digest, hmac, rand};
use sfv::{BareItem, FieldType, InnerList, List, ListEntry, Parser};

use crate::algorithm::{Algorithm, Hash};
use crate::clock::UnixMillis;
use crate::limits::HTTP_CREATED_SKEW_S_MAX;
use crate::verify::{PublicKey, pair_to_der};

/// The `tag` a signature for us carries (RFC 9421 2.3), so that one made for another service is not taken.
pub const TAG: &str = "cinnabar";

/// Why a request is not proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No `Signature-Input` or no `Signature`.
    #[error("the request carries no Signature-Input and Signature")]
    Absent,
    /// The fields cannot be read.
    #[error("{0} cannot be read")]
    Malformed(&'static str),
    /// A component that must be covered is not.
    #[error("the signature does not cover {0}")]
    NotCovered(&'static str),
    /// A component we do not know, or one that the request lacks.
    #[error("the signature covers '{0}', which the request does not have")]
    UnknownComponent(String),
    /// `created` is too far away, or `expires` has passed.
    #[error("the signature's 'created' or 'expires' is outside the accepted time")]
    Stale,
    /// `alg` contradicts the registered key.
    #[error("'alg' is not the algorithm of the registered key")]
    WrongAlgorithm,
    /// The signature is wrong.
    #[error("the signature does not verify")]
    Bad,
}

/// The parts of a request that a signature can cover.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// Host and port as in the Host header or `:authority`.
    pub authority: &'a str,
    /// The path, percent-encoded as sent.
    pub path: &'a str,
    /// The query without its question mark.
    pub query: Option<&'a str>,
    /// The Content-Digest header (RFC 9530), if the request has one.
    pub content_digest: Option<&'a str>,
    /// The Idempotency-Key header, if the request has one.
    pub idempotency_key: Option<&'a str>,
}

impl Parts<'_> {
    /// Appends the value of a component; false if the request does not have it.
    fn append(&self, name: &str, out: &mut String) -> bool {
        let value = match name {
            "@method" => self.method,
            "@path" if self.path.is_empty() => "/",
            "@path" => self.path,
            "@query" => {
                out.push('?');
                self.query.unwrap_or("")
            }
            "@authority" => {
                out.push_str(
                    &self
                        .authority
                        .strip_suffix(":443")
                        .unwrap_or(self.authority)
                        .to_ascii_lowercase(),
                );
                ""
            }
            "content-digest" => return append_field(self.content_digest, out),
            "idempotency-key" => return append_field(self.idempotency_key, out),
            _ => return false,
        };
        out.push_str(value);
        true
    }
}

fn append_field(value: Option<&str>, out: &mut String) -> bool {
    value.inspect(|text| out.push_str(text.trim())).is_some()
}

/// A signature as presented: read, not yet checked.
#[derive(Debug)]
pub struct Presented {
    /// `keyid`: the app it claims to come from.
    pub keyid: String,
    /// The signature base (RFC 9421 2.5): what the signature is over.
    pub base: String,
    signature: Vec<u8>,
    alg: Option<String>,
    created: i64,
    expires: Option<i64>,
}

/// Reads the signature meant for us from the two header fields and rebuilds its base from the request.
pub fn read(parts: &Parts<'_>, signature_input: &str, signature: &str) -> Result<Presented, ProofError> {
    let (label, inner) = find_ours(signature_input)?;
    check_coverage(parts, &inner)?;
    let base = signature_base(parts, &inner)?;
    Ok(Presented {
        keyid: string_parameter(&inner, "keyid").ok_or(ProofError::Malformed("keyid"))?,
        base,
        signature: find_signature(signature, &label)?,
        alg: string_parameter(&inner, "alg"),
        created: integer_parameter(&inner, "created").ok_or(ProofError::Malformed("created"))?,
        expires: integer_parameter(&inner, "expires"),
    })
}

fn find_ours(signature_input: &str) -> Result<(String, InnerList), ProofError> {
    let unreadable = ProofError::Malformed("Signature-Input");
    let dictionary: sfv::Dictionary = Parser::new(signature_input)
        .parse()
        .map_err(|_| unreadable.clone())?;
    for (label, entry) in dictionary {
        let ListEntry::InnerList(inner) = entry else {
            return Err(unreadable);
        };
        if string_parameter(&inner, "tag").as_deref() == Some(TAG) {
            return Ok((label.as_str().to_owned(), inner));
        }
    }
    Err(ProofError::Malformed("tag"))
}

fn find_signature(signature: &str, label: &str) -> Result<Vec<u8>, ProofError> {
    let unreadable = ProofError::Malformed("Signature");
    let mut dictionary: sfv::Dictionary = Parser::new(signature).parse().map_err(|_| unreadable.clone())?;
    match dictionary.swap_remove(label) {
        Some(ListEntry::Item(item)) => match item.bare_item {
            BareItem::ByteSequence(bytes) => Ok(bytes),
            _ => Err(unreadable),
        },
        _ => Err(unreadable),
    }
}

fn string_parameter(inner: &InnerList, name: &str) -> Option<String> {
    inner
        .params
        .get(name)?
        .as_string()
        .map(|text| text.as_str().to_owned())
}

fn integer_parameter(inner: &InnerList, name: &str) -> Option<i64> {
    inner.params.get(name)?.as_integer().map(i64::from)
}

fn components(inner: &InnerList) -> impl Iterator<Item = Option<&str>> {
    // A parameter on a component (;sf, ;req, ;bs …) changes its value in ways we do not offer.
    inner.items.iter().map(|item| match item.bare_item.as_string() {
        Some(name) if item.params.is_empty() => Some(name.as_str()),
        _ => None,
    })
}

fn check_coverage(parts: &Parts<'_>, inner: &InnerList) -> Result<(), ProofError> {
    let always = ["@method", "@authority", "@path", "@query"].into_iter();
    let present = [
        parts.content_digest.map(|_| "content-digest"),
        parts.idempotency_key.map(|_| "idempotency-key"),
    ];
    for name in always.chain(present.into_iter().flatten()) {
        if !components(inner).any(|covered| covered == Some(name)) {
            return Err(ProofError::NotCovered(name));
        }
    }
    Ok(())
}

/// The signature base (RFC 9421 2.5).
fn signature_base(parts: &Parts<'_>, inner: &InnerList) -> Result<String, ProofError> {
    let mut base = String::with_capacity(512);
    let mut seen: Vec<&str> = Vec::with_capacity(inner.items.len());
    for component in components(inner) {
        let name = component.ok_or(ProofError::Malformed("a covered component"))?;
        if seen.contains(&name) {
            return Err(ProofError::Malformed("a component covered twice"));
        }
        seen.push(name);
        base.push('"');
        base.push_str(name);
        base.push_str("\": ");
        if !parts.append(name, &mut base) {
            return Err(ProofError::UnknownComponent(name.chars().take(64).collect()));
        }
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&serialize_inner(inner)?);
    Ok(base)
}

fn serialize_inner(inner: &InnerList) -> Result<String, ProofError> {
    let list: List = vec![ListEntry::InnerList(inner.clone())];
    list.serialize().ok_or(ProofError::Malformed("Signature-Input"))
}

/// The key registered for an app.
#[derive(Debug)]
pub enum VerifyKey<'a> {
    /// `hmac-sha256` with the app's secret.
    Hmac(&'a hmac::Key),
    /// `ecdsa-p256-sha256` or `ed25519` with the app's public key.
    Public(&'a PublicKey),
}

impl Presented {
    /// Checks `created` and `expires` against the server's clock.
    pub fn check_time(&self, now: UnixMillis) -> Result<(), ProofError> {
        let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
        let skew = HTTP_CREATED_SKEW_S_MAX.cast_signed();
        let fresh = (now - skew..=now + skew).contains(&self.created);
        let expired = self.expires.is_some_and(|expires| expires < now);
        if fresh && !expired {
            Ok(())
        } else {
            Err(ProofError::Stale)
        }
    }

    /// Checks the signature with the app's registered key.
    pub fn verify(&self, key: &VerifyKey<'_>) -> Result<(), ProofError> {
        let expected = match key {
            VerifyKey::Hmac(_) => "hmac-sha256",
            VerifyKey::Public(key) => http_algorithm(key)?,
        };
        if self.alg.as_deref().is_some_and(|alg| alg != expected) {
            return Err(ProofError::WrongAlgorithm);
        }
        match key {
            VerifyKey::Hmac(key) => {
                hmac::verify(key, self.base.as_bytes(), &self.signature).map_err(|_| ProofError::Bad)
            }
            VerifyKey::Public(key) => verify_public(key, self.base.as_bytes(), &self.signature),
        }
    }

    /// The bytes of the signature, as evidence of who asked.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// The RFC 9421 algorithm name of a registered public key.
pub fn http_algorithm(key: &PublicKey) -> Result<&'static str, ProofError> {
    use crate::algorithm::KeyKind;
    match key.kind() {
        KeyKind::P256 => Ok("ecdsa-p256-sha256"),
        KeyKind::Ed25519 => Ok("ed25519"),
        _ => Err(ProofError::WrongAlgorithm),
    }
}

fn verify_public(key: &PublicKey, base: &[u8], signature: &[u8]) -> Result<(), ProofError> {
    if http_algorithm(key)? == "ed25519" {
        return key
            .verify(Algorithm::Ed25519, base, signature)
            .map_err(|_| ProofError::Bad);
    }
    // RFC 9421 3.3.4: r ‖ s, 64 bytes.
    let der = pair_to_der(signature)
        .filter(|_| signature.len() == 64)
        .ok_or(ProofError::Bad)?;
    let digest = Hash::Sha256.digest(base);
    key.verify(Algorithm::EcdsaP256Sha256, &digest, &der)
        .map_err(|_| ProofError::Bad)
}

/// A key a client signs its requests with.
pub enum SignKey {
    /// `hmac-sha256`.
    Hmac(Box<hmac::Key>),
    /// `ecdsa-p256-sha256`; the key pair must be one for the fixed-length encoding.
    EcdsaP256(Box<EcdsaKeyPair>),
    /// `ed25519`.
    Ed25519(Box<Ed25519KeyPair>),
}

impl std::fmt::Debug for SignKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignKey(..)")
    }
}

impl SignKey {
    /// The key for an app's shared secret.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    fn sign(&self, base: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Hmac(key) => Some(hmac::sign(key, base).as_ref().to_vec()),
            Self::EcdsaP256(key) => {
                let signature = key.sign(&rand::SystemRandom::new(), base).ok()?;
                Some(signature.as_ref().to_vec())
            }
            Self::Ed25519(key) => Some(key.sign(base).as_ref().to_vec()),
        }
    }
}

/// The two header fields of a signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Signature-Input.
    pub signature_input: String,
    /// Signature.
    pub signature: String,
}

/// Signs a request. `None` if the key fails, which a sound key does not.
pub fn sign(parts: &Parts<'_>, keyid: &str, created: UnixMillis, key: &SignKey) -> Option<Fields> {
    let mut covered = String::from(r#"("@method" "@authority" "@path" "@query""#);
    if parts.content_digest.is_some() {
        covered.push_str(r#" "content-digest""#);
    }
    if parts.idempotency_key.is_some() {
        covered.push_str(r#" "idempotency-key""#);
    }
    let parameters = format!(
        r#"{covered});created={};keyid="{keyid}";tag="{TAG}""#,
        created.seconds()
    );
    let mut base = String::with_capacity(512);
    for name in covered[1..].split(' ') {
        base.push_str(name);
        base.push_str(": ");
        if !parts.append(name.trim_matches('"'), &mut base) {
            return None;
        }
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&parameters);
    let bytes = BareItem::ByteSequence(key.sign(base.as_bytes())?);
    let signature = sfv::Item::new(bytes).serialize();
    Some(Fields {
        signature_input: format!("sig={parameters}"),
        signature: format!("sig={signature}"),
    })
}

/// The Content-Digest field of a body (RFC 9530).
pub fn content_digest(body: &[u8]) -> String {
    let digest = BareItem::ByteSequence(Hash::Sha256.digest(body).to_vec());
    format!("sha-256={}", sfv::Item::new(digest).serialize())
}

/// Checks a body against its Content-Digest; a field without sha-256 or sha-512 does not count.
pub fn check_content_digest(field: &str, body: &[u8]) -> Result<(), ProofError> {
    let mut check = BodyCheck::new(field)?;
    check.update(body);
    check.finish()
}

/// A body that is held against its Content-Digest while it arrives.
pub struct BodyCheck(Vec<(digest::Context, Vec<u8>)>);

impl std::fmt::Debug for BodyCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodyCheck(..)")
    }
}

impl BodyCheck {
    /// Reads the field; one without sha-256 or sha-512 does not count.
    pub fn new(field: &str) -> Result<Self, ProofError> {
        let unreadable = || ProofError::Malformed("Content-Digest");
        let dictionary: sfv::Dictionary = Parser::new(field).parse().map_err(|_| unreadable())?;
        let mut expected = Vec::new();
        for (name, hash) in [("sha-256", &digest::SHA256), ("sha-512", &digest::SHA512)] {
            let Some(entry) = dictionary.get(name) else {
                continue;
            };
            let ListEntry::Item(item) = entry else {
                return Err(unreadable());
            };
            let given = item.bare_item.as_byte_sequence().ok_or_else(unreadable)?;
            expected.push((digest::Context::new(hash), given.to_vec()));
        }
        if expected.is_empty() {
            return Err(unreadable());
        }
        Ok(Self(expected))
    }

    /// Takes the next piece in.
    pub fn update(&mut self, piece: &[u8]) {
        for (context, _) in &mut self.0 {
            context.update(piece);
        }
    }

    /// Whether the pieces were the body that the field is of.
    pub fn finish(self) -> Result<(), ProofError> {
        let mut all = self.0.into_iter();
        match all.all(|(context, given)| context.finish().as_ref() == given) {
            true => Ok(()),
            false => Err(ProofError::Bad),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn parts() -> Parts<'static> {
        Parts {
            method: "POST",
            authority: "Localhost:8443",
            path: "/v1/signatures",
            query: None,
            content_digest: Some("sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"),
            idempotency_key: Some("order-1"),
        }
    }

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"secret")
    }

    fn signed(parts: &Parts<'_>) -> Fields {
        sign(parts, "demo-app", NOW, &SignKey::from_secret(b"secret")).unwrap()
    }

    #[test]
    fn what_we_sign_we_accept() {
        let fields = signed(&parts());
        let presented = read(&parts(), &fields.signature_input, &fields.signature).unwrap();
        assert_eq!(presented.keyid, "demo-app");
        assert_eq!(presented.check_time(NOW), Ok(()));
        assert_eq!(presented.verify(&VerifyKey::Hmac(&key())), Ok(()));
        let expected_base = "\"@method\": POST\n\"@authority\": localhost:8443\n\"@path\": /v1/signatures\n\"@query\": ?\n\
            \"content-digest\": sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:\n\
            \"idempotency-key\": order-1\n\
            \"@signature-params\": (\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\" \"idempotency-key\")\
            ;created=1800000000;keyid=\"demo-app\";tag=\"cinnabar\"";
        assert_eq!(presented.base, expected_base);
    }

    #[test]
    fn every_covered_part_matters() {
        let fields = signed(&parts());
        let changes: [fn(&mut Parts<'static>); 6] = [
            |p| p.method = "PUT",
            |p| p.authority = "localhost:8444",
            |p| p.path = "/v1/signature",
            |p| p.query = Some("x=1"),
            |p| p.content_digest = Some("sha-256=:AAAA:"),
            |p| p.idempotency_key = Some("order-2"),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut changed = parts();
            change(&mut changed);
            let presented = read(&changed, &fields.signature_input, &fields.signature).unwrap();
            assert_eq!(
                presented.verify(&VerifyKey::Hmac(&key())),
                Err(ProofError::Bad),
                "part {at}"
            );
        }
    }

    #[test]
    fn what_must_be_covered_must_be_covered() {
        let mut bare = parts();
        bare.idempotency_key = None;
        let fields = signed(&bare);
        let error = read(&parts(), &fields.signature_input, &fields.signature).unwrap_err();
        assert_eq!(error, ProofError::NotCovered("idempotency-key"));
    }

    #[test]
    fn stale_foreign_and_broken_signatures_are_told_apart() {
        let fields = signed(&parts());
        let presented = read(&parts(), &fields.signature_input, &fields.signature).unwrap();
        assert_eq!(
            presented.check_time(UnixMillis(NOW.0 + 61_000)),
            Err(ProofError::Stale)
        );
        assert_eq!(
            presented.check_time(UnixMillis(NOW.0 - 61_000)),
            Err(ProofError::Stale)
        );
        let foreign = fields.signature_input.replace("cinnabar", "another");
        assert_eq!(
            read(&parts(), &foreign, &fields.signature).unwrap_err(),
            ProofError::Malformed("tag")
        );
        let alg = fields.signature_input.replace(";tag", r#";alg="ed25519";tag"#);
        let presented = read(&parts(), &alg, &fields.signature).unwrap();
        assert_eq!(
            presented.verify(&VerifyKey::Hmac(&key())),
            Err(ProofError::WrongAlgorithm)
        );
        for broken in ["", "sig=1", "sig=(", "sig=(\"@method\")"] {
            assert!(read(&parts(), broken, &fields.signature).is_err(), "{broken}");
        }
    }

    #[test]
    fn content_digests_are_recomputed() {
        let field = content_digest(b"{\"hello\": \"world\"}");
        // The example of RFC 9530, appendix D.
        assert_eq!(field, "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:");
        assert_eq!(check_content_digest(&field, b"{\"hello\": \"world\"}"), Ok(()));
        assert_eq!(check_content_digest(&field, b"{}"), Err(ProofError::Bad));
        assert!(check_content_digest("md5=:AAAA:", b"{}").is_err());
    }
}
