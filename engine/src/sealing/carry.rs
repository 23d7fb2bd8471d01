//! A document carried from order to seal: `documents::sealing` asks, and this answers. Signatures take the ordinary road
//! through a core, time stamps come from the platform's authority on the app's own meter, and how certificates stand is
//! what the platform's authorities say.
//!
//! A retry brings the same document, also after a crash: the time that it states and the certificates are written down
//! before anything is signed, signatures are in the journal, and time stamps and revocation information are kept. As long
//! as nothing is signed, a retry begins anew with the time and the certificates of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::document_vault::step_label;
use actors::gate::{self, SignFields};
use actors::questions::{Question, QuestionReply};
use actors::stamp_callers;
use actors::vault::VaultError;
use documents::ocsp::{CertId, IdHash, Named, Request as StatusRequest};
use documents::sealing::{Answer as Given, Evidence, Octets, Sealing, SealingError, Step, Wanted};
use documents::tsp;
use protocol::algorithm::{Algorithm, Format, Hash, KeyKind};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::limits::ANSWER_MS_MAX;
use protocol::message::{Answer, ItemOutcome};
use store::{
    App, Credential, Fingerprint, ItemName, KeptStep, Known, OperationItem, OperationWrite, Proof, State,
};
use tokio::sync::oneshot;

use super::Sealer;
use super::order::SealOrder;
use super::room::{Desk, Room};

/// What a document gets appended, at most, where it is not signed before: room for it spares moving the document.
pub(crate) const SPARE_BYTES: usize = 512 * 1024;

/// What one document needs to be sealed.
#[derive(Clone)]
pub(crate) struct Item {
    /// Who asks, and how that was proved.
    pub(crate) app: Arc<App>,
    pub(crate) proof: Proof,
    /// The idempotency key of the whole operation.
    pub(crate) key: String,
    /// Which document of it.
    pub(crate) of: ItemName,
    /// How many there are.
    pub(crate) items: u32,
    pub(crate) order: Arc<SealOrder>,
    /// Until when an answer is wanted.
    pub(crate) deadline: Instant,
}

/// A document on its way, and what is kept of earlier tries.
pub(crate) struct Begun {
    sealing: Sealing,
    /// Answers by step.
    kept: Vec<(u32, Vec<u8>)>,
    /// The time and the certificates, if they are new; to be written down before anything is signed.
    pub(crate) writes: Option<OperationWrite>,
}

impl Item {
    /// The number of the document's first signature among those of the operation, and how many those are.
    fn place(&self) -> (u16, u16) {
        let each = u32::from(self.order.signatures());
        let number = |count: u32| u16::try_from(count * each).unwrap_or(u16::MAX);
        (number(self.of.item), number(self.items))
    }
}

pub(crate) fn refuse(error: &SealingError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

fn store_failed(error: store::StoreError) -> Refusal {
    tracing::error!(%error, "the store could not be read");
    error.refusal()
}

/// Prepares a document as it was prepared before, or anew where nothing of it is signed yet.
pub(crate) fn begin(
    desk: &Desk,
    item: &Item,
    known: Option<&OperationItem>,
    document: Vec<u8>,
) -> Result<Begun, Refusal> {
    let form = item.order.form_of(&document)?;
    let credentials = credentials(item)?;
    let kinds: Vec<KeyKind> = credentials.iter().map(|credential| credential.kind).collect();
    let begun = known.and_then(|known| known.begun.as_ref());
    let (at, chains, is_new) = match begun.filter(|_| is_signed(desk, item)) {
        Some((at, digests)) => (*at, kept_chains(desk, digests)?, false),
        None => (clock::wall(), current_chains(desk, &credentials)?, true),
    };
    let order = item
        .order
        .complete(form, at, kinds.into_iter().zip(chains.iter().cloned()))?;
    let sealing = Sealing::start(document, order).map_err(|error| refuse(&error))?;
    if is_new {
        let of = item.of;
        return Ok(Begun {
            sealing,
            kept: Vec::new(),
            writes: Some(OperationWrite::Begin { of, at, chains }),
        });
    }
    Ok(Begun {
        sealing,
        kept: kept_steps(desk, item)?,
        writes: None,
    })
}

/// The credentials of an order, as the gate finds them.
fn credentials(item: &Item) -> Result<Vec<Arc<Credential>>, Refusal> {
    let find = |id: &str| {
        let found = item.app.tenant.credential(id);
        let found = found.filter(|credential| credential.environment == item.app.environment);
        found.ok_or_else(|| Refusal::new(Code::UnknownCredential, format!("no such credential: '{id}'")))
    };
    let signers = item.order.signers.iter();
    signers.map(|signer| find(&signer.credential)).collect()
}

/// Whether the document's first signature is made, or may be in the making.
fn is_signed(desk: &Desk, item: &Item) -> bool {
    let key = Fingerprint::of_call(item.app.row, &item.key).item(item.place().0);
    match desk.services.store.index().look_up(key) {
        Known::Absent => false,
        Known::Running => true,
        Known::Settled(settled) => settled.state != State::Failed,
    }
}

fn current_chains(desk: &Desk, credentials: &[Arc<Credential>]) -> Result<Vec<Vec<Vec<u8>>>, Refusal> {
    let chain = |credential: &Arc<Credential>| {
        let chain = desk.reader.chain_of_key(credential.row, credential.key);
        let replaced = || {
            let text = "the credential's key was replaced while the request ran; retry with the same key";
            Refusal::new(Code::Restarted, text)
        };
        let chain = chain.map_err(store_failed)?.ok_or_else(replaced)?;
        if chain.is_empty() {
            let text = "the credential has no certificate, which a document needs";
            return Err(Refusal::new(Code::UnsupportedFormat, text));
        }
        Ok(chain)
    };
    credentials.iter().map(chain).collect()
}

fn kept_chains(desk: &Desk, digests: &[[u8; 32]]) -> Result<Vec<Vec<Vec<u8>>>, Refusal> {
    let chain = |digest| {
        let missing = || Refusal::new(Code::DataCorrupt, "certificates of a document are missing");
        let chain = desk.reader.operation_chain(digest).map_err(store_failed)?;
        chain.ok_or_else(missing)
    };
    digests.iter().map(chain).collect()
}

fn kept_steps(desk: &Desk, item: &Item) -> Result<Vec<(u32, Vec<u8>)>, Refusal> {
    let own = desk.services.vault.of_tenant(&item.app.tenant);
    let own = own.map_err(VaultError::refusal)?;
    let steps = desk.reader.operation_steps(item.of).map_err(store_failed)?;
    let open = |(step, answer): (u32, Vec<u8>)| {
        let opened = own.unwrap(&answer, step_label(item.of, step).as_bytes());
        opened
            .map(|answer| (step, answer.to_vec()))
            .map_err(VaultError::refusal)
    };
    steps.into_iter().map(open).collect()
}

impl Sealer {
    /// Carries a document that has been begun to its end.
    pub(crate) async fn carry(&self, room: &Room, item: &Item, begun: Begun) -> Result<Vec<u8>, Refusal> {
        let Begun {
            mut sealing, kept, ..
        } = begun;
        for step in 0u32.. {
            let need = sealing.step();
            let known = kept.iter().find(|(number, _)| *number == step);
            let known = known.map(|(_, answer)| &answer[..]);
            let answer = match (need, known) {
                (Step::Done, _) => break,
                (
                    Step::Sign {
                        signer,
                        algorithm,
                        input,
                    },
                    _,
                ) => Given::Signature(self.sign(item, signer, algorithm, &input.0).await?.into()),
                (Step::Stamp { .. }, Some(token)) => Given::Token(token.to_vec().into()),
                (Step::Stamp { hash, imprint }, None) => {
                    Given::Token(self.stamp(item, step, hash, &imprint.0).await?.into())
                }
                (Step::Evidence(_), Some(json)) => Given::Evidence(read_evidence(json)?),
                (Step::Evidence(wanted), None) => {
                    Given::Evidence(self.evidence(room, item, step, wanted).await?)
                }
            };
            let go_on = move |_: &Desk| sealing.answer(&answer).map_err(|error| refuse(&error));
            sealing = room.work(item.deadline, go_on).await?;
        }
        sealing.finish().map_err(|error| refuse(&error))
    }

    async fn sign(
        &self,
        item: &Item,
        signer: usize,
        algorithm: Algorithm,
        input: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let fields = SignFields {
            seal: None,
            credential: &item.order.signers[signer].credential,
            algorithm: Some(algorithm),
            format: Format::Raw,
            key: &item.key,
            inputs: std::iter::once(input),
            user_id: None,
        };
        let call = gate::admit_sign(&item.app, fields, item.proof.clone(), clock::wall())?;
        let (first, of) = item.place();
        let call = call.at_place(first + signer as u16, of);
        let now = clock::monotonic();
        let deadline = item.deadline.min(now + Duration::from_millis(ANSWER_MS_MAX));
        let answer = self.services.sign_inside(call, now, deadline)?.await;
        let restarted = |_| {
            let text = "this part of the engine restarts; retry with the same key";
            Refusal::new(Code::Restarted, text)
        };
        signature_of(answer.map_err(restarted)??)
    }

    async fn stamp(&self, item: &Item, step: u32, hash: Hash, imprint: &[u8]) -> Result<Vec<u8>, Refusal> {
        let caller = stamp_callers::admit_proved(&item.app, clock::wall())?;
        let mut nonce = [0; 8];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
        let query = tsp::Request::new(hash, imprint, &nonce).and_then(|request| request.to_der().ok());
        let query =
            query.ok_or_else(|| Refusal::new(Code::Internal, "the time stamp cannot be asked for"))?;
        self.ask(Question::Stamp {
            caller,
            query,
            authority: None,
            kept_for: Some((item.of, step)),
        })
        .await
    }

    async fn ask(&self, question: Question) -> Result<Vec<u8>, Refusal> {
        let starting = || Refusal::new(Code::Restarted, "the certificate service is starting");
        let lines = self.services.certificates.get().ok_or_else(starting)?;
        let answer: oneshot::Receiver<QuestionReply> = lines.ask(question)?;
        let lost = |_| Refusal::new(Code::Restarted, "the certificate service has not answered");
        Ok(answer.await.map_err(lost)??.0)
    }

    /// How the certificates stand, as the platform's authorities say it; written down, because it is said anew each time.
    async fn evidence(
        &self,
        room: &Room,
        item: &Item,
        step: u32,
        wanted: Wanted,
    ) -> Result<Evidence, Refusal> {
        let (certificates, queries) = room
            .work(item.deadline, move |desk| queries(desk, &wanted))
            .await?;
        let mut ocsps = Vec::new();
        for query in queries {
            ocsps.push(Octets(self.ask(Question::Status(query)).await?));
        }
        let evidence = Evidence {
            certificates: certificates.into_iter().map(Octets).collect(),
            crls: Vec::new(),
            ocsps,
            at_ms: clock::wall().0,
        };
        let json = serde_json::to_vec(&evidence).map_err(|_| unreadable_evidence())?;
        let own = self
            .services
            .vault
            .of_tenant(&item.app.tenant)
            .map_err(VaultError::refusal)?;
        let answer = own.wrap(&json, step_label(item.of, step).as_bytes());
        let answer = answer.map_err(VaultError::refusal)?;
        let of = item.of;
        self.write(vec![OperationWrite::Keep(KeptStep { of, step, answer })])
            .await?;
        Ok(evidence)
    }
}

fn unreadable_evidence() -> Refusal {
    Refusal::new(
        Code::DataCorrupt,
        "what is kept of a document's revocation information cannot be read",
    )
}

fn read_evidence(json: &[u8]) -> Result<Evidence, Refusal> {
    serde_json::from_slice(json).map_err(|_| unreadable_evidence())
}

fn signature_of(answer: Answer) -> Result<Vec<u8>, Refusal> {
    let Answer::Items(items) = answer else {
        return Err(Refusal::new(Code::Internal, "an answer of another kind"));
    };
    match items.into_iter().next() {
        Some(ItemOutcome::Done { signature, .. }) => Ok(signature),
        Some(ItemOutcome::Failed(refusal)) => Err(refusal),
        Some(ItemOutcome::Pending) | None => {
            let text = "a signature is still running at the deadline; retry with the same key";
            Err(Refusal::new(Code::OutcomePending, text))
        }
    }
}

/// Certificates of issuers, and OCSP requests.
type Queries = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// What to ask about certificates (RFC 6960 4.1.1), and the certificates above them.
fn queries(desk: &Desk, wanted: &Wanted) -> Result<Queries, Refusal> {
    let known: Vec<Vec<u8>> = desk.pki.certificates();
    let (mut issuers, mut queries): (Vec<Vec<u8>>, Vec<Vec<u8>>) = Default::default();
    for asked in wanted.sources(&known) {
        // Whose issuer nobody knows is found out where the answers are held against the certificates.
        let Some(issuer) = asked.issuer else { continue };
        let query = query(&asked.certificate, &issuer);
        queries.push(query.ok_or_else(|| Refusal::new(Code::DataCorrupt, "a certificate cannot be read"))?);
        if !issuers.contains(&issuer) {
            issuers.push(issuer);
        }
    }
    Ok((issuers, queries))
}

fn query(certificate: &[u8], issuer: &[u8]) -> Option<Vec<u8>> {
    let serial = documents::x509::serial_number(certificate).ok()?;
    let id = CertId::new(&Named::new(issuer).ok()?, &serial, IdHash::Sha256);
    let request = StatusRequest {
        ids: vec![id],
        nonce: None,
    };
    request.to_der().ok()
}

/// The time that is left until `deadline`, as the wall clock tells it; for waiting.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(clock::monotonic())
}

/// When something that was made now is erased.
pub(crate) fn until(kept_ms: u64) -> UnixMillis {
    UnixMillis(clock::wall().0.saturating_add(kept_ms))
}
