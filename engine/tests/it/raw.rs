//! Peers that send exactly the bytes they are told to: for clients that misbehave, and for answers that are compared
//! byte for byte.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::algorithm::{Algorithm, Hash};
use protocol::client::{NotYetProved, Profile, QuicClient};
use protocol::clock::UnixMillis;
use protocol::error_code::Refusal;
use protocol::frame::{self, FrameReader};
use protocol::http_proof::{self, Parts, SignKey};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::message::{self, Binding, Hello, Inputs, Proof, Request, ServerFrame, Sign};
use protocol::session::{Context, EXPORTER_LABEL, SessionKey, certificate_hash, transcript};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// No peer of a test waits longer than this for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wanted).await {
        Ok(value) => value,
        Err(_) => panic!("never: {what}"),
    }
}

/// A TLS connection to the HTTPS front.
pub(crate) async fn dial_tls(profile: &Profile, alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for block in pem::parse_many(&profile.server_ca).unwrap() {
        roots.add(CertificateDer::from(block.into_contents())).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(profile.address).await.unwrap();
    let name = ServerName::try_from(profile.server_name.clone()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap()
}

/// An answer of the HTTPS front. Two answers are equal when a client cannot tell them apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    /// Header lines but for Date, as they came.
    pub(crate) head: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    /// Status and code of a problem document.
    pub(crate) fn problem(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        (self.status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The signature of the only item.
    #[track_caller]
    pub(crate) fn signature(&self) -> Vec<u8> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let text = body["items"][0]["signature"].as_str();
        STANDARD
            .decode(text.unwrap_or_else(|| panic!("no signature: {} {body}", self.status)))
            .unwrap()
    }
}

/// A peer that speaks HTTP/1.1 by hand.
pub(crate) struct Http1(TlsStream<TcpStream>);

impl Http1 {
    pub(crate) async fn dial(profile: &Profile) -> Self {
        Self(dial_tls(profile, b"http/1.1").await)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// The next answer.
    pub(crate) async fn hear(&mut self) -> Heard {
        soon("an answer over HTTP", self.try_hear()).await.unwrap()
    }

    async fn try_hear(&mut self) -> std::io::Result<Heard> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let value = |name: &str| {
            let line = head.lines().find(|line| line.to_lowercase().starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let length = value("content-length:").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        let lines = head
            .lines()
            .filter(|line| !line.to_lowercase().starts_with("date:"));
        Ok(Heard {
            status,
            head: lines.map(str::to_owned).collect(),
            body,
        })
    }

    pub(crate) async fn exchange(&mut self, bytes: &[u8]) -> Heard {
        self.send(bytes).await.unwrap();
        self.hear().await
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset ends it as well.
        let _ = soon("the end of an HTTPS connection", self.0.read_to_end(&mut rest)).await;
    }
}

/// A signed `POST /v1/signatures`.
pub(crate) struct Post<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) idempotency_key: &'a str,
    pub(crate) body: String,
    pub(crate) created: UnixMillis,
}

pub(crate) const PATH: &str = "/v1/signatures";

impl<'a> Post<'a> {
    /// Asks for a P-256 signature over SHA-256 of `text`.
    pub(crate) fn new(profile: &'a Profile, idempotency_key: &'a str, credential: &str, text: &str) -> Self {
        let digest = STANDARD.encode(Hash::Sha256.digest(text.as_bytes()));
        Self {
            profile,
            idempotency_key,
            body: serde_json::json!({ "credential": credential, "digest": digest }).to_string(),
            created: protocol::clock::wall(),
        }
    }

    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.profile.server_name, self.profile.address.port())
    }

    /// Header fields that prove and describe it.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let digest = http_proof::content_digest(self.body.as_bytes());
        let authority = self.authority();
        let parts = Parts {
            method: "POST",
            authority: &authority,
            path: PATH,
            query: None,
            content_digest: Some(&digest),
            idempotency_key: Some(self.idempotency_key),
        };
        let key = SignKey::from_secret(&self.profile.secret().unwrap());
        let signed = http_proof::sign(&parts, self.profile.app_id.as_str(), self.created, &key).unwrap();
        vec![
            ("signature-input", signed.signature_input),
            ("signature", signed.signature),
            ("content-digest", digest),
            ("content-type", "application/json".into()),
            ("idempotency-key", self.idempotency_key.into()),
        ]
    }

    /// The request as HTTP/1.1 has it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("POST {PATH} HTTP/1.1\r\nhost: {}\r\n", self.authority());
        for (name, value) in self.fields() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        [head.as_bytes(), self.body.as_bytes()].concat()
    }
}

/// A peer that speaks the native protocol by hand, on one stream.
pub(crate) struct Native {
    /// Must live as long as the connection.
    _endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    recv: RecvStream,
    frames: FrameReader,
    app: String,
    key: Option<SessionKey>,
}

impl Native {
    /// A connection with a stream on which nothing was said.
    pub(crate) async fn silent(profile: &Profile) -> Self {
        let NotYetProved { endpoint, connection } = QuicClient::connect_unproved(profile).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Self {
            _endpoint: endpoint,
            connection,
            send,
            recv,
            frames: FrameReader::default(),
            app: profile.app_id.to_string(),
            key: None,
        }
    }

    /// A proved session.
    pub(crate) async fn proved(profile: &Profile) -> Self {
        let mut session = Self::silent(profile).await;
        session.prove(profile).await;
        assert!(matches!(session.hear().await, ServerFrame::Proved(_)));
        session
    }

    /// The hello of this session's app.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let hello = Hello {
            version: message::VERSION,
            app: self.app.clone(),
            nonce: [7; 32],
            binding: Binding::Exporter as u8,
        };
        let mut payload = Vec::new();
        message::encode_hello(&mut payload, &hello);
        payload
    }

    /// Says hello, takes the welcome and sends the proof that the profile's secret makes.
    pub(crate) async fn prove(&mut self, profile: &Profile) {
        let hello = self.hello();
        self.send_payload(&hello).await;
        let welcome_bytes = self.hear_payload().await;
        let ServerFrame::Welcome(welcome) = ServerFrame::decode(&welcome_bytes).unwrap() else {
            panic!("no welcome")
        };
        let identity = self.connection.peer_identity().unwrap();
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().unwrap();
        let mut exporter = [0; 32];
        self.connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
            .unwrap();
        let context = Context {
            app: &self.app,
            client_nonce: &[7; 32],
            server_nonce: &welcome.nonce,
            certificate_hash: &certificate_hash(&chain[0]),
            exporter: Some(&exporter),
        };
        let key = SessionKey::derive(&profile.secret().unwrap(), &context);
        let mac = key.client_proof(&transcript(&hello, &welcome_bytes));
        let mut payload = Vec::new();
        message::encode_prove(&mut payload, &Proof { mac });
        self.send_payload(&payload).await;
        self.key = Some(key);
    }

    async fn send_payload(&mut self, payload: &[u8]) {
        self.send.write_all(&framed(payload)).await.unwrap();
    }

    async fn hear_payload(&mut self) -> Vec<u8> {
        soon("a frame", self.try_hear_payload()).await.expect("a frame")
    }

    async fn try_hear_payload(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.frames.next_frame(FRAME_BYTES_MAX).unwrap() {
                return Some(frame.to_vec());
            }
            let chunk = self.recv.read_chunk(usize::MAX, true).await.ok().flatten()?;
            self.frames.extend(&chunk.bytes);
        }
    }

    /// The next frame.
    pub(crate) async fn hear(&mut self) -> ServerFrame {
        ServerFrame::decode(&self.hear_payload().await).unwrap()
    }

    /// Sends frames and returns the payload of the next.
    pub(crate) async fn exchange(&mut self, frames: &[u8]) -> Vec<u8> {
        self.send.write_all(frames).await.unwrap();
        self.hear_payload().await
    }

    /// A sealed frame that asks for a P-256 signature over SHA-256 of `text`.
    pub(crate) fn sign_frame(&self, request: u64, key: &str, credential: &str, text: &str) -> Vec<u8> {
        let digest = Hash::Sha256.digest(text.as_bytes());
        let sign = Sign {
            request,
            app: &self.app,
            credential,
            algorithm: Algorithm::EcdsaP256Sha256.wire(),
            key,
            inputs: Inputs([&digest[..]].into_iter().collect()),
            deadline_ms: None,
            format: None,
            user_id: None,
            seal: None,
            document: None,
            agent: None,
        };
        let mut body = Vec::new();
        Request::Sign(sign).encode(&mut body);
        let mac = self.key.as_ref().unwrap().seal(&body);
        let mut out = Vec::new();
        frame::append(&mut out, |out| message::encode_sealed(out, &body, &mac));
        out
    }

    /// What the server says last: its closing frame, if it gets through, and the code that ends the connection.
    pub(crate) async fn goodbye(&mut self) -> (Option<Refusal>, u64) {
        let mut said = None;
        while let Some(payload) = soon("the end of a stream", self.try_hear_payload()).await {
            if let ServerFrame::Closing(refusal) = ServerFrame::decode(&payload).unwrap() {
                said = Some(refusal);
            }
        }
        (said, self.close_code().await)
    }

    /// The code that ends the connection.
    pub(crate) async fn close_code(&self) -> u64 {
        match soon("the end of a connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("not closed by the server: {other}"),
        }
    }
}

/// A payload with its length in front.
pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::append(&mut out, |out| out.extend_from_slice(payload));
    out
}
