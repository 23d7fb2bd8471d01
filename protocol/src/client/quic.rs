//! The native protocol over QUIC: one connection, one stream, as many requests at once as the server allows.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::sync::{Notify, oneshot};

use super::profile::Profile;
use super::{Page, SignRequest, UnderSeal, bad_answer, connection_error, tls};
use crate::error_code::{Code, Refusal};
use crate::frame::{self, FrameReader};
use crate::ids::IdempotencyKey;
use crate::limits::FRAME_BYTES_MAX;
use crate::message::{
    self, ALPN, Answer, Ask, AskCredentials, AskSeals, Binding, CredentialInfo, Hello, Inputs, ItemOutcome,
    Lookup, Proof, Query, Request, ServerFrame, Sign, UsageInfo,
};
use crate::seal::SealInfo;
use crate::session::{Context, EXPORTER_LABEL, SessionKey, certificate_hash, transcript};

type Waiting = oneshot::Sender<Result<Answer, Refusal>>;

/// What the tasks share.
struct Shared {
    out: Mutex<Vec<u8>>,
    ready: Notify,
    waiting: Mutex<Option<HashMap<u64, Waiting>>>,
}

impl Shared {
    /// Ends everything: whoever waits hears why.
    fn fail_all(&self, refusal: &Refusal) {
        for (_, waiting) in self.waiting.lock().take().into_iter().flatten() {
            let _ = waiting.send(Err(refusal.clone()));
        }
    }
}

/// A proved session.
pub struct QuicClient {
    connection: Connection,
    endpoint: Endpoint,
    shared: Arc<Shared>,
    key: SessionKey,
    app: String,
    next: AtomicU64,
}

impl std::fmt::Debug for QuicClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicClient")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

/// A connection that is not proved yet: for tests that misbehave.
#[derive(Debug)]
pub struct NotYetProved {
    /// The endpoint, which must live as long as the connection.
    pub endpoint: Endpoint,
    /// The connection.
    pub connection: Connection,
}

/// Opens a connection and proves nothing.
async fn open(profile: &Profile) -> Result<NotYetProved, Refusal> {
    let tls = tls::config(profile, &[ALPN])?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| connection_error("TLS", error))?;
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(10)));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let local: IpAddr = match profile.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut endpoint = Endpoint::client(SocketAddr::new(local, 0))
        .map_err(|error| connection_error("local socket", error))?;
    endpoint.set_default_client_config(config);
    let connection = endpoint
        .connect(profile.address, &profile.server_name)
        .map_err(|error| connection_error("connecting", error))?
        .await
        .map_err(|error| lost(&error))?;
    Ok(NotYetProved { endpoint, connection })
}

/// What a broken connection means: the server's own code where it gave one.
fn lost(error: &quinn::ConnectionError) -> Refusal {
    if let quinn::ConnectionError::ApplicationClosed(close) = error
        && let Some(code) = u16::try_from(close.error_code.into_inner())
            .ok()
            .and_then(Code::from_wire)
    {
        return Refusal::new(code, String::from_utf8_lossy(&close.reason).into_owned());
    }
    connection_error("the connection was lost", error)
}

/// One stream while the session is being proved.
struct Handshake {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    frames: FrameReader,
}

impl Handshake {
    async fn write(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let mut out = Vec::new();
        frame::append(&mut out, |out| out.extend_from_slice(payload));
        let sent = self.send.write_all(&out).await;
        sent.map_err(|error| self.broken(error))
    }

    fn broken(&self, error: impl std::fmt::Display) -> Refusal {
        match self.connection.close_reason() {
            Some(reason) => lost(&reason),
            None => connection_error("the stream broke", error),
        }
    }

    async fn read(&mut self) -> Result<Vec<u8>, Refusal> {
        loop {
            if let Some(frame) = self.frames.next_frame(FRAME_BYTES_MAX).map_err(bad_answer)? {
                return Ok(frame.to_vec());
            }
            let chunk = self
                .recv
                .read_chunk(usize::MAX, true)
                .await
                .map_err(|error| self.broken(error))?;
            let chunk = chunk.ok_or_else(|| self.broken("it ended"))?;
            self.frames.extend(&chunk.bytes);
        }
    }
}

fn random() -> Result<[u8; 32], Refusal> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|error| connection_error("randomness", error))?;
    Ok(bytes)
}

/// Proves the app on a fresh connection (docs/wire.cddl, section 3).
async fn prove(handshake: &mut Handshake, profile: &Profile) -> Result<SessionKey, Refusal> {
    let secret = profile.secret()?;
    let app = profile.app_id.as_str();
    let hello = Hello {
        version: message::VERSION,
        app: app.to_owned(),
        nonce: random()?,
        binding: Binding::Exporter as u8,
    };
    let mut hello_bytes = Vec::new();
    message::encode_hello(&mut hello_bytes, &hello);
    handshake.write(&hello_bytes).await?;
    let welcome_bytes = handshake.read().await?;
    let welcome = match ServerFrame::decode(&welcome_bytes).map_err(bad_answer)? {
        ServerFrame::Welcome(welcome) => welcome,
        ServerFrame::Closing(refusal) => return Err(refusal),
        _ => return Err(bad_answer("no welcome")),
    };
    let (certificate, exporter) = tls_facts(&handshake.connection)?;
    let key = SessionKey::derive(
        &secret,
        &Context {
            app,
            client_nonce: &hello.nonce,
            server_nonce: &welcome.nonce,
            certificate_hash: &certificate,
            exporter: Some(&exporter),
        },
    );
    let transcript = transcript(&hello_bytes, &welcome_bytes);
    let mut proof = Vec::new();
    message::encode_prove(
        &mut proof,
        &Proof {
            mac: key.client_proof(&transcript),
        },
    );
    handshake.write(&proof).await?;
    match ServerFrame::decode(&handshake.read().await?).map_err(bad_answer)? {
        ServerFrame::Proved(proof) => {
            key.check_server(&transcript, &proof.mac).map_err(bad_answer)?;
            Ok(key)
        }
        ServerFrame::Closing(refusal) => Err(refusal),
        _ => Err(bad_answer("no proof")),
    }
}

/// The server certificate's hash, and the exporter's output.
fn tls_facts(connection: &Connection) -> Result<([u8; 32], [u8; 32]), Refusal> {
    let identity = connection.peer_identity();
    let chain = identity
        .as_ref()
        .and_then(|any| any.downcast_ref::<Vec<rustls::pki_types::CertificateDer<'static>>>());
    let certificate = chain
        .and_then(|chain| chain.first())
        .ok_or_else(|| bad_answer("no server certificate"))?;
    let mut exporter = [0; 32];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|_| bad_answer("no TLS exporter"))?;
    Ok((certificate_hash(certificate), exporter))
}

impl QuicClient {
    /// Connects without proving anything: for tests that misbehave.
    pub async fn connect_unproved(profile: &Profile) -> Result<NotYetProved, Refusal> {
        open(profile).await
    }

    /// Connects and proves the app.
    pub async fn connect(profile: &Profile) -> Result<Self, Refusal> {
        let NotYetProved { endpoint, connection } = open(profile).await?;
        let (send, recv) = connection.open_bi().await.map_err(|error| lost(&error))?;
        let mut handshake = Handshake {
            connection: connection.clone(),
            send,
            recv,
            frames: FrameReader::default(),
        };
        let key = prove(&mut handshake, profile).await?;
        let shared = Arc::new(Shared {
            out: Mutex::default(),
            ready: Notify::new(),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let Handshake {
            send, recv, frames, ..
        } = handshake;
        tokio::spawn(write(Arc::clone(&shared), send));
        tokio::spawn(read(Arc::clone(&shared), connection.clone(), recv, frames));
        let app = profile.app_id.to_string();
        Ok(Self {
            connection,
            endpoint,
            shared,
            key,
            app,
            next: AtomicU64::new(1),
        })
    }

    /// The connection beneath: for tests that pull the rug.
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The endpoint beneath: for tests that move house.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn ask(&self, request: u64, asked: &Request<'_>) -> Result<Answer, Refusal> {
        let (sender, answer) = oneshot::channel();
        match &mut *self.shared.waiting.lock() {
            Some(waiting) => waiting.insert(request, sender),
            None => return Err(self.gone()),
        };
        let mut body = Vec::with_capacity(256);
        asked.encode(&mut body);
        let mac = self.key.seal(&body);
        frame::append(&mut self.shared.out.lock(), |out| {
            message::encode_sealed(out, &body, &mac);
        });
        self.shared.ready.notify_one();
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> Refusal {
        match self.connection.close_reason() {
            Some(reason) => lost(&reason),
            None => Refusal::new(Code::Connection, "the connection is gone"),
        }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Signs.
    pub async fn sign(&self, wanted: &SignRequest) -> Result<Vec<ItemOutcome>, Refusal> {
        self.sign_under(wanted, None).await
    }

    /// Signs, under a seal if one is given.
    pub async fn sign_under(
        &self,
        wanted: &SignRequest,
        under: Option<&UnderSeal>,
    ) -> Result<Vec<ItemOutcome>, Refusal> {
        let request = self.next();
        let sign = Sign {
            request,
            app: &self.app,
            credential: &wanted.credential,
            algorithm: wanted.algorithm.wire(),
            key: wanted.key.as_str(),
            inputs: Inputs(wanted.inputs.iter().map(Vec::as_slice).collect()),
            deadline_ms: wanted.deadline_ms,
            format: Some(wanted.format.wire()).filter(|format| *format != 0),
            user_id: wanted.user_id.as_deref().map(Into::into),
            seal: under.map(|under| under.seal.as_str()),
            document: under.map(|under| under.document.wire()),
            agent: under.and_then(|under| under.agent.as_deref()),
        };
        match self.ask(request, &Request::Sign(sign)).await? {
            Answer::Items(items) if items.len() == wanted.inputs.len() => Ok(items),
            _ => Err(bad_answer("not one item for each input")),
        }
    }

    /// What became of an earlier call.
    pub async fn look_up(&self, key: &IdempotencyKey) -> Result<Vec<ItemOutcome>, Refusal> {
        let request = self.next();
        let lookup = Lookup {
            request,
            app: &self.app,
            key: key.as_str(),
        };
        match self.ask(request, &Request::Lookup(lookup)).await? {
            Answer::Items(items) => Ok(items),
            _ => Err(bad_answer("no items")),
        }
    }

    /// Some of the app's credentials: those that fit into one answer.
    pub async fn credentials_page(&self, page: Page<'_>) -> Result<Vec<CredentialInfo>, Refusal> {
        let request = self.next();
        let ask = AskCredentials {
            request,
            app: &self.app,
            after: page.after,
            only: page.only,
        };
        match self.ask(request, &Request::Credentials(ask)).await? {
            Answer::Credentials(list) => Ok(list),
            _ => Err(bad_answer("no credentials")),
        }
    }

    /// Some of the seals of the app's tenant: those that fit into one answer.
    pub async fn seals_page(&self, page: Page<'_>) -> Result<Vec<SealInfo>, Refusal> {
        let request = self.next();
        let ask = AskSeals {
            request,
            app: &self.app,
            after: page.after,
            only: page.only,
        };
        match self.ask(request, &Request::Seals(ask)).await? {
            Answer::Seals(list) => Ok(list),
            _ => Err(bad_answer("no seals")),
        }
    }

    /// The app's usage.
    pub async fn usage(&self) -> Result<UsageInfo, Refusal> {
        let request = self.next();
        match self
            .ask(
                request,
                &Request::Usage(Ask {
                    request,
                    app: &self.app,
                }),
            )
            .await?
        {
            Answer::Usage(usage) => Ok(usage),
            _ => Err(bad_answer("no usage")),
        }
    }

    /// A time stamp, recorded and charged: from a TimeStampReq to a TimeStampResp (RFC 3161 2.4), both in DER.
    pub async fn stamp(&self, query: &[u8], authority: Option<&str>) -> Result<Vec<u8>, Refusal> {
        let request = self.next();
        let query = Query {
            request,
            app: &self.app,
            query: query.into(),
            authority,
        };
        self.response(request, &Request::Stamp(query)).await
    }

    /// How certificates stand: from an OCSPRequest to an OCSPResponse (RFC 6960 4), both in DER.
    pub async fn status(&self, query: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = self.next();
        let query = Query {
            request,
            app: &self.app,
            query: query.into(),
            authority: None,
        };
        self.response(request, &Request::Status(query)).await
    }

    async fn response(&self, request: u64, asked: &Request<'_>) -> Result<Vec<u8>, Refusal> {
        match self.ask(request, asked).await? {
            Answer::Response(der) => Ok(der),
            _ => Err(bad_answer("no response")),
        }
    }

    /// Says goodbye and waits until that has left.
    pub async fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"done");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

/// Sends what has piled up.
async fn write(shared: Arc<Shared>, mut send: SendStream) {
    loop {
        shared.ready.notified().await;
        let bytes = std::mem::take(&mut *shared.out.lock());
        if !bytes.is_empty() && send.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Hands replies to those who wait for them.
async fn read(shared: Arc<Shared>, connection: Connection, mut recv: RecvStream, mut frames: FrameReader) {
    let end = loop {
        match recv.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => frames.extend(&chunk.bytes),
            _ => break ended(&connection).await,
        }
        if let Err(refusal) = take_replies(&shared, &mut frames) {
            connection.close(VarInt::from_u32(u32::from(refusal.code.wire())), b"");
            break refusal;
        }
    };
    shared.fail_all(&end);
}

/// Why the stream ended: the connection's own reason, if it has one or is about to.
async fn ended(connection: &Connection) -> Refusal {
    match tokio::time::timeout(Duration::from_millis(200), connection.closed()).await {
        Ok(reason) => lost(&reason),
        Err(_) => Refusal::new(Code::Connection, "the server ended the stream"),
    }
}

fn take_replies(shared: &Shared, frames: &mut FrameReader) -> Result<(), Refusal> {
    while let Some(frame) = frames.next_frame(FRAME_BYTES_MAX).map_err(bad_answer)? {
        match ServerFrame::decode(frame).map_err(bad_answer)? {
            ServerFrame::Reply(reply) => {
                let waiting = shared
                    .waiting
                    .lock()
                    .as_mut()
                    .and_then(|w| w.remove(&reply.request));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(reply.result);
                }
            }
            ServerFrame::Closing(refusal) => return Err(refusal),
            _ => return Err(bad_answer("a frame out of turn")),
        }
    }
    Ok(())
}
