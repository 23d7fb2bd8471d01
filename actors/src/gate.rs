//! The gate: from a request's fields to a call, or to the refusal that names what is wrong. Pure, but for reading the
//! directory; costs microseconds; touches no queue. What depends on the idempotency key (replays, quota, a full disk)
//! is decided after the key is claimed, because a recorded signature must be found even when nothing new is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::algorithm::{Algorithm, Format, InputError};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialRow, IdempotencyKey};
use protocol::limits::{ANSWER_MS_MAX, BATCH_ITEMS_MAX, DEADLINE_MS_MIN, SM2_USER_ID_BYTES_MAX};
use protocol::seal::DocumentKind;
use smallvec::SmallVec;
use store::{
    App, Credential, Environment, Epoch, NotSealed, NotValid, Proof, RequestHash, SealUse, TenantState,
};

use crate::call::{Input, Permit, SignCall};

/// A signing request's fields, whichever front read them.
#[derive(Debug)]
pub struct SignFields<'a, I> {
    /// The credential's id; with a seal, empty or the seal's own.
    pub credential: &'a str,
    /// The seal to sign under, if one is named.
    pub seal: Option<SealFields<'a>>,
    /// How to sign; `None`: the credential's default.
    pub algorithm: Option<Algorithm>,
    /// The format of the result.
    pub format: Format,
    /// The idempotency key.
    pub key: &'a str,
    /// Digests or messages.
    pub inputs: I,
    /// SM2 user id.
    pub user_id: Option<&'a [u8]>,
}

/// A signing request's fields about a seal.
#[derive(Clone, Copy, Debug)]
pub struct SealFields<'a> {
    /// The seal's id.
    pub seal: &'a str,
    /// What it is put on.
    pub document: DocumentKind,
    /// The agent who uses it, by subject id.
    pub agent: Option<&'a str>,
}

impl<'a> SealFields<'a> {
    /// Of a request that may name a seal; what belongs to a seal is a mistake where it does not.
    pub fn of(
        seal: Option<&'a str>,
        document: Option<DocumentKind>,
        agent: Option<&'a str>,
    ) -> Result<Option<Self>, Refusal> {
        match (seal, document, agent) {
            (Some(seal), document, agent) => Ok(Some(Self {
                seal,
                document: document.unwrap_or_default(),
                agent,
            })),
            (None, None, None) => Ok(None),
            _ => Err(Refusal::new(
                Code::MalformedRequest,
                "document and agent mean nothing without a seal",
            )),
        }
    }
}

/// When a call is due: the caller's deadline, never later than the limit.
pub fn deadline(received: Instant, asked_ms: Option<u64>) -> Instant {
    let ms = asked_ms
        .unwrap_or(ANSWER_MS_MAX)
        .clamp(DEADLINE_MS_MIN, ANSWER_MS_MAX);
    received + Duration::from_millis(ms)
}

/// Checks an idempotency key.
pub fn idempotency_key(text: &str) -> Result<IdempotencyKey, Refusal> {
    IdempotencyKey::new(text).map_err(|error| {
        Refusal::new(
            Code::IdempotencyKeyInvalid,
            format!("the idempotency key {error}"),
        )
    })
}

/// Whether the app may ask now. A suspended tenant may look, and sign nothing.
pub fn admit_app(app: &App) -> Result<Epoch, Refusal> {
    // The epoch is read first: a suspension moves it after it has set the state, so one of the two is seen.
    let epoch = app
        .fence
        .pass()
        .ok_or_else(|| Refusal::new(Code::AppRevoked, "the app is revoked"))?;
    if app.tenant.standing.state() == TenantState::Closed {
        return Err(Refusal::new(Code::TenantClosed, "the tenant is closed"));
    }
    Ok(epoch)
}

/// Whether the app may sign now.
pub(crate) fn admit_signing(app: &App, now: UnixMillis) -> Result<Epoch, Refusal> {
    let epoch = admit_app(app)?;
    let standing = &app.tenant.standing;
    if standing.state() == TenantState::Suspended {
        return Err(Refusal::new(Code::TenantSuspended, "the tenant is suspended"));
    }
    if app.environment == Environment::Production && now < standing.activated() {
        let text = "production calls are taken from the activation date; until then there is the sandbox";
        return Err(Refusal::new(Code::NotActivated, text));
    }
    Ok(epoch)
}

/// Whether the app may bring a document to be sealed now; its signatures are held against the contract by themselves.
pub fn admit_document(app: &App, now: UnixMillis) -> Result<(), Refusal> {
    admit_signing(app, now).map(drop)
}

/// Whether the app may change something of its tenant's now, at the rate of its contract.
pub fn admit_change(app: &App, now: UnixMillis) -> Result<(), Refusal> {
    admit_signing(app, now)?;
    app.allowance.take_rate(now, 1).map_err(|wait| {
        let text = "the app is above the rate of its contract";
        Refusal::new(Code::RateLimited, text).retry_after_ms(wait)
    })
}

/// Holds a request against the app's contract.
pub(crate) fn admit_contract(app: &Arc<App>, now: UnixMillis, signatures: usize) -> Result<Permit, Refusal> {
    let over = |text: &'static str, wait| Refusal::new(Code::RateLimited, text).retry_after_ms(wait);
    let Some(permit) = Permit::take(app) else {
        return Err(over(
            "the app has as many calls in flight as its contract allows",
            100,
        ));
    };
    let signatures = u32::try_from(signatures).unwrap_or(u32::MAX);
    app.allowance
        .take_rate(now, signatures)
        .map_err(|wait| over("the app is above the rate of its contract", wait))?;
    Ok(permit)
}

/// Checks a signing request of a proved app.
pub fn admit_sign<'a, I>(
    app: &Arc<App>,
    fields: SignFields<'a, I>,
    proof: Proof,
    now: UnixMillis,
) -> Result<SignCall, Refusal>
where
    I: ExactSizeIterator<Item = &'a [u8]>,
{
    let app_epoch = admit_signing(app, now)?;
    let key = idempotency_key(fields.key)?;
    let (seal, (credential, credential_epoch)) = match &fields.seal {
        None => (None, find_credential(app, fields.credential, now)?),
        Some(wanted) => {
            let (used, found) = find_seal(app, fields.credential, wanted, now)?;
            (Some(used), found)
        }
    };
    let algorithm = pick_algorithm(&credential, fields.algorithm)?;
    check_format(&credential, algorithm, fields.format)?;
    let user_id = check_user_id(algorithm, fields.user_id)?;
    let inputs = check_inputs(algorithm, fields.inputs)?;
    let request = hash_request(credential.row, algorithm, fields.format, user_id, &inputs);
    let request = match &seal {
        None => request,
        Some(used) => hash_sealed(request, used),
    };
    let permit = admit_contract(app, now, inputs.len())?;
    let place = (0, inputs.len() as u16);
    Ok(SignCall {
        place,
        permit: Some(permit),
        app: (Arc::clone(app), app_epoch),
        renewals: credential.certificate.version(),
        credential: (credential, credential_epoch),
        seal,
        algorithm,
        format: fields.format,
        key,
        inputs,
        user_id: user_id.map(Into::into),
        request,
        proof,
    })
}

/// Another tenant's credential is not found here either, nor is one of the other environment, and both get the same
/// answer.
fn find_credential(app: &App, id: &str, now: UnixMillis) -> Result<(Arc<Credential>, Epoch), Refusal> {
    let credential = app
        .tenant
        .credential(id)
        .filter(|credential| credential.environment == app.environment)
        .ok_or_else(|| Refusal::new(Code::UnknownCredential, "no such credential"))?;
    if credential.is_reserved() {
        let text = "the credential signs only under its seals; name the seal";
        return Err(Refusal::new(Code::CredentialReserved, text));
    }
    let epoch = admit_credential(&credential, now)?;
    Ok((credential, epoch))
}

fn admit_credential(credential: &Credential, now: UnixMillis) -> Result<Epoch, Refusal> {
    let epoch = credential
        .fence
        .pass()
        .ok_or_else(|| Refusal::new(Code::CredentialDisabled, "the credential is disabled"))?;
    credential.certificate.check(now).map_err(NotValid::refusal)?;
    Ok(epoch)
}

type Sealed = (Box<SealUse>, (Arc<Credential>, Epoch));

/// A seal of the app's tenant and environment that the app may use now, and the credential that signs under it. Whether
/// its grant is used up is decided after the key is claimed, like a quota.
fn find_seal(
    app: &App,
    credential: &str,
    wanted: &SealFields<'_>,
    now: UnixMillis,
) -> Result<Sealed, Refusal> {
    let seal = app
        .tenant
        .seal(wanted.seal)
        .filter(|seal| seal.environment == app.environment)
        .ok_or_else(|| Refusal::new(Code::UnknownSeal, "no such seal"))?;
    if !credential.is_empty() && credential != seal.credential.as_str() {
        let text = "another credential signs under this seal; leave the credential out";
        return Err(Refusal::new(Code::MalformedRequest, text));
    }
    let used = seal.admit(app.row, wanted.agent, wanted.document, now);
    let used = used.map_err(NotSealed::refusal)?;
    let missing = || Refusal::new(Code::DataCorrupt, "a seal without its credential");
    let credential = app
        .tenant
        .credential(seal.credential.as_str())
        .ok_or_else(missing)?;
    let epoch = admit_credential(&credential, now)?;
    Ok((Box::new(used), (credential, epoch)))
}

fn pick_algorithm(credential: &Credential, asked: Option<Algorithm>) -> Result<Algorithm, Refusal> {
    let possible = credential.kind.algorithms();
    let algorithm = asked.unwrap_or(possible[0]);
    if !possible.contains(&algorithm) {
        let text = format!("a {} key does not sign with {algorithm}", credential.kind);
        return Err(Refusal::new(Code::UnsupportedAlgorithm, text));
    }
    Ok(algorithm)
}

fn check_format(credential: &Credential, algorithm: Algorithm, format: Format) -> Result<(), Refusal> {
    let fits = match format {
        Format::Raw => true,
        Format::Pair => algorithm.is_pair(),
        Format::Cms => documents::cms::supports(algorithm),
    };
    if fits {
        Ok(())
    } else {
        let text = format!(
            "{algorithm} with a {} key cannot be given as {format}",
            credential.kind
        );
        Err(Refusal::new(Code::UnsupportedFormat, text))
    }
}

fn check_user_id(algorithm: Algorithm, user_id: Option<&[u8]>) -> Result<Option<&[u8]>, Refusal> {
    match user_id {
        Some(_) if algorithm != Algorithm::Sm2Sm3 => Err(Refusal::new(
            Code::MalformedRequest,
            format!("a user id means nothing to {algorithm}"),
        )),
        Some(id) if id.len() > SM2_USER_ID_BYTES_MAX => Err(Refusal::new(
            Code::MalformedRequest,
            format!("a user id has at most {SM2_USER_ID_BYTES_MAX} bytes"),
        )),
        other => Ok(other),
    }
}

fn check_inputs<'a>(
    algorithm: Algorithm,
    inputs: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<SmallVec<[Input; 1]>, Refusal> {
    if inputs.len() == 0 {
        return Err(Refusal::new(Code::MalformedRequest, "nothing to sign"));
    }
    if inputs.len() > BATCH_ITEMS_MAX {
        let text = format!("one call takes at most {BATCH_ITEMS_MAX} digests");
        return Err(Refusal::new(Code::BatchTooLarge, text));
    }
    inputs
        .map(|input| {
            algorithm
                .check_input(input)
                .map_err(|error| refuse_input(&error))?;
            Ok(Input::from_slice(input))
        })
        .collect()
}

fn refuse_input(error: &InputError) -> Refusal {
    let code = match error {
        InputError::DigestLength { .. } => Code::DigestLength,
        InputError::MessageLength { .. } => Code::MessageTooLong,
    };
    Refusal::new(code, error.to_string())
}

/// What makes a request the same request: credential, algorithm, format, user id and every input, in order.
fn hash_request(
    credential: CredentialRow,
    algorithm: Algorithm,
    format: Format,
    user_id: Option<&[u8]>,
    inputs: &[Input],
) -> RequestHash {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    hash.update(&credential.0.to_be_bytes());
    hash.update(&[algorithm.wire(), format.wire(), u8::from(user_id.is_some())]);
    for part in user_id.into_iter().chain(inputs.iter().map(|input| &input[..])) {
        // Lengths first, so that no two lists of parts look alike.
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finish();
    RequestHash(std::array::from_fn(|at| digest.as_ref()[at]))
}

/// The same for a request that names a seal: the seal, the agent, and what it is put on. By which grant is not part of it.
fn hash_sealed(request: RequestHash, used: &SealUse) -> RequestHash {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    hash.update(&request.0);
    hash.update(&used.seal.0.row.0.to_be_bytes());
    hash.update(&[used.document.wire()]);
    if let Some(agent) = &used.grant.0.terms.agent {
        hash.update(agent.as_str().as_bytes());
    }
    let digest = hash.finish();
    RequestHash(std::array::from_fn(|at| digest.as_ref()[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_seal_needs_one() {
        let of = |seal, document, agent| SealFields::of(seal, document, agent);
        assert!(of(None, None, None).unwrap().is_none());
        let fields = of(Some("s"), None, Some("li-lei")).unwrap().unwrap();
        assert_eq!(
            (fields.seal, fields.document, fields.agent),
            ("s", DocumentKind::Digest, Some("li-lei"))
        );
        for bad in [
            of(None, Some(DocumentKind::Pdf), None),
            of(None, None, Some("li-lei")),
        ] {
            assert_eq!(bad.unwrap_err().code, Code::MalformedRequest);
        }
    }

    fn hash(inputs: &[&[u8]], user_id: Option<&[u8]>) -> RequestHash {
        let inputs: Vec<Input> = inputs.iter().map(|input| Input::from_slice(input)).collect();
        hash_request(CredentialRow(1), Algorithm::Sm2Sm3, Format::Raw, user_id, &inputs)
    }

    #[test]
    fn requests_differ_when_any_part_differs() {
        let base = hash(&[b"ab", b"c"], None);
        assert_eq!(base, hash(&[b"ab", b"c"], None));
        for other in [
            hash(&[b"a", b"bc"], None),
            hash(&[b"c", b"ab"], None),
            hash(&[b"ab"], None),
            hash(&[b"ab", b"c"], Some(b"")),
            hash(&[b"c"], Some(b"ab")),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn a_callers_deadline_counts_up_to_the_limit() {
        let now = Instant::now();
        let ms = |asked| (deadline(now, asked) - now).as_millis() as u64;
        assert_eq!(ms(None), ANSWER_MS_MAX);
        assert_eq!(ms(Some(300)), 300);
        assert_eq!(ms(Some(60_000)), ANSWER_MS_MAX);
        assert_eq!(ms(Some(0)), DEADLINE_MS_MIN);
    }
}
