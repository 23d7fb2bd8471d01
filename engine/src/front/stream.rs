//! One stream of a proved session: frames in, calls to the core; replies back in whatever order they come.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::call::{Arrival, Ask, Call, Page, ReplyTo, Stream};
use actors::core::Core;
use actors::gate::{self, SealFields, SignFields};
use actors::latency::{Operation, Transport};
use actors::minutes;
use actors::questions::{Question, QuestionReply};
use actors::stamp_callers;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::frame::{self, FrameReader};
use protocol::limits::{ANSWER_MS_MAX, FRAME_BYTES_MAX, FRAME_REST_MS_MAX, SESSION_IN_FLIGHT_MAX};
use protocol::message::{self, Answer, ClientFrame, Request, Sign};
use protocol::session::SessionKey;
use quinn::{RecvStream, SendStream};
use smallvec::SmallVec;
use store::{App, Proof, ProofKind};
use tokio::sync::{Notify, oneshot};

/// Replies that a client has not read yet; above this we stop reading its requests.
const OUT_BYTES_MAX: usize = 1 << 20;

/// What proves the requests of a session.
pub(super) enum SessionProof {
    /// A MAC on each request.
    Mac(SessionKey),
    /// The client's certificate, by its SHA-256.
    Certificate([u8; 32]),
}

/// A proved session, shared by its streams.
pub(super) struct Session {
    pub(super) app: Arc<App>,
    pub(super) proof: SessionProof,
    in_flight: Cell<usize>,
    relief: Notify,
}

impl Session {
    pub(super) fn new(app: Arc<App>, proof: SessionProof) -> Self {
        Self {
            app,
            proof,
            in_flight: Cell::new(0),
            relief: Notify::new(),
        }
    }

    /// Checks a request's proof and returns it as the journal keeps it.
    fn check(&self, body: &[u8], mac: &[u8]) -> Result<Proof, Refusal> {
        let bad = |_| Refusal::new(Code::Unauthenticated, "the request's MAC does not verify");
        let (kind, bytes) = match &self.proof {
            SessionProof::Mac(key) => {
                key.open(body, mac).map_err(bad)?;
                (ProofKind::SessionMac, mac)
            }
            SessionProof::Certificate(hash) => (ProofKind::ClientCertificate, &hash[..]),
        };
        Ok(Proof {
            kind,
            bytes: SmallVec::from_slice(bytes),
            base: None,
        })
    }
}

/// The sending half: replies pile up here and one task writes them.
pub(super) struct Outbox {
    session: Rc<Session>,
    buffer: RefCell<Vec<u8>>,
    ready: Notify,
    open: Cell<usize>,
    ended: Cell<bool>,
}

impl Stream for Outbox {
    fn reply(&self, request: u64, result: Result<Answer, Refusal>) {
        frame::append(&mut self.buffer.borrow_mut(), |out| {
            message::encode_reply(out, request, &result);
        });
        self.open.set(self.open.get() - 1);
        self.session.in_flight.set(self.session.in_flight.get() - 1);
        self.session.relief.notify_waiters();
        self.ready.notify_one();
    }
}

impl Outbox {
    fn begin(&self) {
        self.open.set(self.open.get() + 1);
        self.session.in_flight.set(self.session.in_flight.get() + 1);
    }

    /// Whether the client has to read, or wait, before it may ask for more.
    fn is_crowded(&self) -> bool {
        self.session.in_flight.get() >= SESSION_IN_FLIGHT_MAX || self.buffer.borrow().len() > OUT_BYTES_MAX
    }

    /// Writes what piles up until the reading half has ended and every request has its reply.
    async fn write(self: Rc<Self>, mut send: SendStream) -> Option<SendStream> {
        loop {
            let bytes = std::mem::take(&mut *self.buffer.borrow_mut());
            if !bytes.is_empty() {
                send.write_all(&bytes).await.ok()?;
                self.session.relief.notify_waiters();
                continue;
            }
            if self.ended.get() && self.open.get() == 0 {
                return Some(send);
            }
            self.ready.notified().await;
        }
    }
}

/// Serves a stream until the client ends it, or breaks the protocol: then the reason comes back with the stream's
/// sending half, if it still works.
pub(super) async fn serve(
    core: Rc<Core>,
    session: Rc<Session>,
    mut recv: RecvStream,
    send: SendStream,
    frames: FrameReader,
) -> Option<(SendStream, Refusal)> {
    let outbox = Rc::new(Outbox {
        session,
        buffer: RefCell::default(),
        ready: Notify::new(),
        open: Cell::new(0),
        ended: Cell::new(false),
    });
    let writer = actix_rt::spawn(Rc::clone(&outbox).write(send));
    let end = read(&core, &outbox, &mut recv, frames).await;
    outbox.ended.set(true);
    outbox.ready.notify_one();
    let send = writer.await.ok().flatten();
    match (end, send) {
        (Err(refusal), Some(send)) => Some((send, refusal)),
        (_, Some(mut send)) => {
            // The client may have gone; then there is nobody to hear that we are done.
            let _ = send.finish();
            None
        }
        _ => None,
    }
}

async fn read(
    core: &Core,
    outbox: &Rc<Outbox>,
    recv: &mut RecvStream,
    mut frames: FrameReader,
) -> Result<(), Refusal> {
    let mut waiting_since = clock::monotonic();
    loop {
        if take_frames(core, outbox, &mut frames)? {
            waiting_since = clock::monotonic();
        }
        loop {
            let relief = outbox.session.relief.notified();
            if !outbox.is_crowded() {
                break;
            }
            relief.await;
        }
        match next_chunk(recv, frames.is_partial().then_some(waiting_since)).await? {
            Some(bytes) => {
                if !frames.is_partial() {
                    waiting_since = clock::monotonic();
                }
                frames.extend(&bytes);
            }
            None if frames.is_partial() => {
                return Err(Refusal::new(
                    Code::MalformedRequest,
                    "the stream ended inside a frame",
                ));
            }
            None => return Ok(()),
        }
    }
}

/// The next bytes; `None` at the stream's end. While part of a frame is here the rest must not take too long.
async fn next_chunk(
    recv: &mut RecvStream,
    partial_since: Option<Instant>,
) -> Result<Option<bytes::Bytes>, Refusal> {
    let chunk = recv.read_chunk(usize::MAX, true);
    let chunk = match partial_since {
        None => chunk.await,
        Some(since) => {
            let until = since + Duration::from_millis(FRAME_REST_MS_MAX);
            tokio::time::timeout_at(until.into(), chunk)
                .await
                .map_err(|_| Refusal::new(Code::PeerTooSlow, "the rest of a frame did not arrive in time"))?
        }
    };
    // A reset stream or a lost connection is an end like any other.
    Ok(chunk.ok().flatten().map(|chunk| chunk.bytes))
}

/// Handles every whole frame. True: there was at least one.
fn take_frames(core: &Core, outbox: &Rc<Outbox>, frames: &mut FrameReader) -> Result<bool, Refusal> {
    let received = clock::monotonic();
    let mut any = false;
    while let Some(payload) = frames.next_frame(FRAME_BYTES_MAX)? {
        any = true;
        take_frame(core, outbox, payload, received)?;
    }
    Ok(any)
}

fn malformed(error: &message::MessageError) -> Refusal {
    Refusal::new(Code::MalformedRequest, error.to_string())
}

fn take_frame(core: &Core, outbox: &Rc<Outbox>, payload: &[u8], received: Instant) -> Result<(), Refusal> {
    let ClientFrame::Sealed { body, mac } =
        ClientFrame::decode(payload).map_err(|error| malformed(&error))?
    else {
        return Err(Refusal::new(
            Code::MalformedRequest,
            "the session is proved already",
        ));
    };
    let proof = outbox.session.check(body, mac)?;
    let request = Request::decode(body).map_err(|error| malformed(&error))?;
    let (id, app) = request.head();
    if app != outbox.session.app.id.as_str() {
        return Err(Refusal::new(
            Code::Unauthenticated,
            "the request names another app than the session",
        ));
    }
    outbox.begin();
    let Some(request) = ask_certificates(core, outbox, request, received) else {
        return Ok(());
    };
    let (operation, decoded) = (operation(&request), clock::monotonic());
    match admit(&outbox.session.app, request, proof) {
        Ok((ask, deadline_ms)) => {
            let reply = ReplyTo::Stream(Rc::clone(outbox) as Rc<dyn Stream>, id);
            core.submit(Call::new(
                reply,
                ask,
                Arrival { received, decoded },
                gate::deadline(received, deadline_ms),
            ));
        }
        Err(refusal) => {
            let asked = (operation, Transport::Quic);
            core.count_refused(&outbox.session.app, &refusal, received, asked);
            outbox.reply(id, Err(refusal));
        }
    }
    Ok(())
}

/// Takes out what the certificate service answers, on threads of its own; the reply comes when it is ready.
fn ask_certificates<'b>(
    core: &Core,
    outbox: &Rc<Outbox>,
    request: Request<'b>,
    received: Instant,
) -> Option<Request<'b>> {
    let app = &outbox.session.app;
    let (id, operation, question) = match request {
        Request::Stamp(query) => {
            let caller = stamp_callers::admit_proved(app, clock::wall());
            let question = caller.map(|caller| Question::Stamp {
                caller,
                query: query.query.to_vec(),
                authority: query.authority.map(Into::into),
                kept_for: None,
            });
            (query.request, Operation::TimeStamp, question)
        }
        Request::Status(query) => {
            let question = gate::admit_app(app).map(|_| Question::Status(query.query.to_vec()));
            (query.request, Operation::Status, question)
        }
        other => return Some(other),
    };
    let services = core.services();
    let starting = || Refusal::new(Code::Restarted, "the certificate service is starting");
    let asked = question.and_then(|question| match services.closed() {
        Some(refusal) => Err(refusal),
        None => services.certificates.get().ok_or_else(starting)?.ask(question),
    });
    let answer = CertificatesAnswer {
        outbox: Rc::clone(outbox),
        id,
        operation,
        received,
    };
    match asked {
        Ok(reply) => drop(actix_rt::spawn(answer.wait(reply))),
        Err(refusal) => answer.give(Err(refusal)),
    }
    None
}

/// Where an answer of the certificate service goes, and what is noted of it.
struct CertificatesAnswer {
    outbox: Rc<Outbox>,
    id: u64,
    operation: Operation,
    received: Instant,
}

impl CertificatesAnswer {
    async fn wait(self, reply: oneshot::Receiver<QuestionReply>) {
        let text = "the certificate service has not answered in time";
        let late = |_| Refusal::new(Code::DeadlineExceeded, text);
        let gone = |_| Refusal::new(Code::Internal, "the certificate service has not answered");
        let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), reply).await;
        self.give(answer.map_err(late).and_then(|answer| answer.map_err(gone)?));
    }

    fn give(self, answer: QuestionReply) {
        let outcome = match &answer {
            Ok((_, outcome)) => *outcome,
            Err(refusal) => minutes::of_code(refusal.code),
        };
        if let Some(core) = Core::current() {
            let asked = (self.operation, Transport::Quic);
            core.note_certificates(&self.outbox.session.app, outcome, self.received, asked);
        }
        let answer = answer.map(|(der, _)| Answer::Response(der));
        self.outbox.reply(self.id, answer);
    }
}

const fn operation(request: &Request<'_>) -> Operation {
    match request {
        Request::Sign(_) => Operation::Sign,
        Request::Lookup(_) => Operation::Lookup,
        Request::Credentials(_) | Request::Seals(_) => Operation::Credentials,
        // The others do not come here.
        Request::Usage(_) | Request::Stamp(_) | Request::Status(_) => Operation::Usage,
    }
}

fn admit(app: &Arc<App>, request: Request<'_>, proof: Proof) -> Result<(Ask, Option<u64>), Refusal> {
    if let Request::Sign(sign) = &request {
        let deadline = sign.deadline_ms.map(u64::from);
        return Ok((Ask::Sign(Box::new(admit_sign(app, sign, proof)?)), deadline));
    }
    gate::admit_app(app)?;
    let app = Arc::clone(app);
    let ask = match request {
        Request::Lookup(lookup) => Ask::Lookup(app, gate::idempotency_key(lookup.key)?),
        Request::Credentials(ask) => Ask::Credentials(
            app,
            Page {
                after: ask.after.map(Into::into),
                only: ask.only.map(Into::into),
            },
        ),
        Request::Seals(ask) => Ask::Seals(
            app,
            Page {
                after: ask.after.map(Into::into),
                only: ask.only.map(Into::into),
            },
        ),
        _ => Ask::Usage(app),
    };
    Ok((ask, None))
}

fn admit_sign(app: &Arc<App>, sign: &Sign<'_>, proof: Proof) -> Result<actors::call::SignCall, Refusal> {
    let unknown = |code: Code| {
        let what = if code == Code::UnsupportedFormat {
            "format"
        } else {
            "algorithm"
        };
        Refusal::new(code, format!("unknown {what} number"))
    };
    let (algorithm, format) = message::algorithm_and_format(sign).map_err(unknown)?;
    let fields = SignFields {
        credential: sign.credential,
        seal: seal_fields(sign)?,
        algorithm: Some(algorithm),
        format,
        key: sign.key,
        inputs: sign.inputs.0.iter().copied(),
        user_id: sign.user_id.map(|id| &**id),
    };
    gate::admit_sign(app, fields, proof, clock::wall())
}

fn seal_fields<'b>(sign: &Sign<'b>) -> Result<Option<SealFields<'b>>, Refusal> {
    let unknown = || Refusal::new(Code::MalformedRequest, "unknown number of a kind of document");
    let document = match sign.document {
        Some(_) => Some(message::document_kind(sign).ok_or_else(unknown)?),
        None => None,
    };
    SealFields::of(sign.seal, document, sign.agent)
}
