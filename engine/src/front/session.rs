//! How a session begins: hello, welcome, proof, proof (`docs/wire.cddl`, section 3). Until then a peer is nobody: its
//! frames are small, its time is short, and whether its app exists is not told.

use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::rand;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::frame::{self, FrameReader};
use protocol::limits::{BATCH_ITEMS_MAX, FRAME_BYTES_MAX, FRAME_UNPROVED_BYTES_MAX, SESSION_IN_FLIGHT_MAX};
use protocol::message::{self, Binding, ClientFrame, Hello, Proof, VERSION, Welcome};
use protocol::session::{self, Context, EXPORTER_LABEL, SessionKey};
use quinn::{Connection, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use store::App;

use super::FrontContext;
use super::stream::{Session, SessionProof};

/// The first stream while the session is being proved.
pub(super) struct Opening<'a> {
    pub(super) context: &'a FrontContext,
    pub(super) connection: &'a Connection,
    pub(super) send: &'a mut SendStream,
    pub(super) recv: &'a mut RecvStream,
    pub(super) frames: &'a mut FrameReader,
}

fn unauthenticated() -> Refusal {
    Refusal::new(Code::Unauthenticated, "the app or its proof is wrong")
}

fn broken<E>(_: E) -> Refusal {
    Refusal::new(
        Code::Connection,
        "the connection broke while the session was being proved",
    )
}

impl Opening<'_> {
    /// Proves the session, or says why not.
    pub(super) async fn prove(mut self) -> Result<Rc<Session>, Refusal> {
        let hello_bytes = self.read().await?;
        let ClientFrame::Hello(hello) = decode(&hello_bytes)? else {
            return Err(Refusal::new(
                Code::MalformedRequest,
                "a session begins with a hello",
            ));
        };
        if hello.version != VERSION {
            let text = format!("this engine speaks version {VERSION}, not {}", hello.version);
            return Err(Refusal::new(Code::UnsupportedVersion, text));
        }
        let binding = hello
            .binding()
            .ok_or_else(|| Refusal::new(Code::MalformedRequest, "unknown binding"))?;
        let welcome_bytes = self.welcome().await?;
        let prove_bytes = self.read().await?;
        let ClientFrame::Prove(proof) = decode(&prove_bytes)? else {
            return Err(Refusal::new(
                Code::MalformedRequest,
                "a welcome is answered with a proof",
            ));
        };
        let app = self.context.core.services().store.directory().app(&hello.app);
        let transcript = session::transcript(&hello_bytes, &welcome_bytes.1);
        let (session, answer) = match binding {
            Binding::ClientCertificate => (self.check_certificate(app)?, Vec::new()),
            _ => {
                let (app, key) = self.check_mac(app, &hello, &welcome_bytes.0, &transcript, &proof)?;
                let answer = key.server_proof(&transcript);
                (Session::new(app, SessionProof::Mac(key)), answer)
            }
        };
        actors::gate::admit_app(&session.app)?;
        self.write(|out| message::encode_proved(out, &Proof { mac: answer }))
            .await?;
        Ok(Rc::new(session))
    }

    async fn read(&mut self) -> Result<Vec<u8>, Refusal> {
        loop {
            if let Some(frame) = self.frames.next_frame(FRAME_UNPROVED_BYTES_MAX)? {
                return Ok(frame.to_vec());
            }
            let chunk = self
                .recv
                .read_chunk(FRAME_UNPROVED_BYTES_MAX, true)
                .await
                .map_err(broken)?;
            self.frames.extend(&chunk.ok_or_else(|| broken(()))?.bytes);
        }
    }

    async fn write(&mut self, payload: impl FnOnce(&mut Vec<u8>)) -> Result<(), Refusal> {
        let mut out = Vec::new();
        frame::append(&mut out, payload);
        self.send.write_all(&out).await.map_err(broken)
    }

    /// Sends a welcome; returns its nonce and its payload.
    async fn welcome(&mut self) -> Result<([u8; 32], Vec<u8>), Refusal> {
        let mut nonce = [0; 32];
        rand::fill(&mut nonce).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
        let welcome = Welcome {
            version: VERSION,
            nonce,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            batch_items_max: BATCH_ITEMS_MAX as u32,
            in_flight_max: SESSION_IN_FLIGHT_MAX as u32,
        };
        let mut payload = Vec::new();
        message::encode_welcome(&mut payload, &welcome);
        self.write(|out| out.extend_from_slice(&payload)).await?;
        Ok((nonce, payload))
    }

    fn check_mac(
        &self,
        app: Option<Arc<App>>,
        hello: &Hello,
        server_nonce: &[u8; 32],
        transcript: &[u8; 32],
        proof: &Proof,
    ) -> Result<(Arc<App>, SessionKey), Refusal> {
        let bound = hello.binding() == Some(Binding::Exporter);
        let exporter = bound.then(|| self.exporter()).transpose()?;
        let vault = &self.context.core.services().vault;
        let secrets = app
            .as_ref()
            .and_then(|app| vault.secrets(app, clock::wall()).ok())
            .unwrap_or_default();
        // An app that does not exist costs the same work as one whose proof is wrong, and hears the same.
        let nobody = [0; 32];
        let context = Context {
            app: &hello.app,
            client_nonce: &hello.nonce,
            server_nonce,
            certificate_hash: &self.context.certificate_hash,
            exporter: exporter.as_ref(),
        };
        let derive = |secret: &[u8]| {
            let key = SessionKey::derive(secret, &context);
            key.check_client(transcript, &proof.mac).ok().map(|()| key)
        };
        // While a secret is being rotated the one before counts, too.
        let proved = if secrets.is_empty() {
            derive(&nobody).and(None)
        } else {
            secrets.iter().find_map(|secret| derive(&secret.bytes))
        };
        let (app, key) = app.zip(proved).ok_or_else(unauthenticated)?;
        if app.binding_required && !bound {
            return Err(Refusal::new(
                Code::BindingRequired,
                "this app's sessions must be bound to the TLS exporter",
            ));
        }
        Ok((app, key))
    }

    fn exporter(&self) -> Result<[u8; 32], Refusal> {
        let mut out = [0; 32];
        self.connection
            .export_keying_material(&mut out, EXPORTER_LABEL, b"")
            .map_err(|_| Refusal::new(Code::Internal, "TLS exports no key"))?;
        Ok(out)
    }

    fn check_certificate(&self, app: Option<Arc<App>>) -> Result<Session, Refusal> {
        let identity = self.connection.peer_identity();
        let chain = identity
            .as_ref()
            .and_then(|any| any.downcast_ref::<Vec<CertificateDer<'static>>>());
        let certificate = chain
            .and_then(|chain| chain.first())
            .ok_or_else(unauthenticated)?;
        let hash = session::certificate_hash(certificate);
        let registered = |app: &Arc<App>| app.client_certificate == Some(hash);
        let app = app.filter(registered).ok_or_else(unauthenticated)?;
        Ok(Session::new(app, SessionProof::Certificate(hash)))
    }
}

fn decode(payload: &[u8]) -> Result<ClientFrame<'_>, Refusal> {
    ClientFrame::decode(payload).map_err(|error| Refusal::new(Code::MalformedRequest, error.to_string()))
}
