//! The HTTPS interface: JSON over HTTP/1.1, each request signed (RFC 9421), over a set of kept-alive connections.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::profile::{Profile, ProfileError};
use super::{Page, SignRequest, UnderSeal, bad_answer, connection_error, tls};
use crate::clock;
use crate::error_code::{Code, Refusal};
use crate::http_proof::{self, Parts, SignKey};
use crate::ids::IdempotencyKey;
use crate::json::{
    CredentialBody, CredentialsBody, ItemBody, ItemsBody, Problem, SealBody, SealsBody, SignBody, UsageBody,
    operation_path,
};
use crate::message::{CredentialInfo, ItemOutcome, UsageInfo};
use crate::seal::SealInfo;

type Connection = SendRequest<Full<Bytes>>;

/// A client over HTTPS.
pub struct HttpsClient {
    profile: Profile,
    authority: String,
    key: SignKey,
    tls: TlsConnector,
    server_name: ServerName<'static>,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl std::fmt::Debug for HttpsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpsClient")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// What a request says beside its path.
struct Outgoing<'a> {
    method: Method,
    path: &'a str,
    key: Option<&'a IdempotencyKey>,
    body: Bytes,
}

impl HttpsClient {
    /// Prepares a client with up to `connections` connections, and opens the first.
    pub async fn connect(profile: &Profile, connections: usize) -> Result<Self, Refusal> {
        let config = tls::config(profile, &[b"http/1.1"])?;
        let server_name =
            ServerName::try_from(profile.server_name.clone()).map_err(|_| ProfileError::Parse {
                path: "profile".into(),
                message: "server_name is no name".into(),
            })?;
        let client = Self {
            authority: format!("{}:{}", profile.server_name, profile.address.port()),
            key: SignKey::from_secret(&profile.secret()?),
            tls: TlsConnector::from(Arc::new(config)),
            server_name,
            idle: Mutex::default(),
            turns: Semaphore::new(connections.max(1)),
            profile: profile.clone(),
        };
        let first = client.open().await?;
        client.idle.lock().push(first);
        Ok(client)
    }

    async fn open(&self) -> Result<Connection, Refusal> {
        let stream = TcpStream::connect(self.profile.address)
            .await
            .map_err(|error| connection_error("connecting", error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| connection_error("connecting", error))?;
        let stream = self.tls.connect(self.server_name.clone(), stream).await;
        let stream = stream.map_err(|error| connection_error("TLS", error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| connection_error("HTTP", error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn take(&self) -> Result<Connection, Refusal> {
        loop {
            let kept = self.idle.lock().pop();
            match kept {
                Some(mut connection) if !connection.is_closed() => {
                    if connection.ready().await.is_ok() {
                        return Ok(connection);
                    }
                }
                Some(_) => {}
                None => return self.open().await,
            }
        }
    }

    fn request(&self, outgoing: Outgoing<'_>) -> Result<Request<Full<Bytes>>, Refusal> {
        let digest = (!outgoing.body.is_empty()).then(|| http_proof::content_digest(&outgoing.body));
        let (path, query) = match outgoing.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (outgoing.path, None),
        };
        let parts = Parts {
            method: outgoing.method.as_str(),
            authority: &self.authority,
            path,
            query,
            content_digest: digest.as_deref(),
            idempotency_key: outgoing.key.map(IdempotencyKey::as_str),
        };
        let fields = http_proof::sign(&parts, self.profile.app_id.as_str(), clock::wall(), &self.key)
            .ok_or_else(|| Refusal::new(Code::Usage, "the profile's key does not sign"))?;
        let mut request = Request::builder()
            .method(outgoing.method)
            .uri(outgoing.path)
            .header(header::HOST, &self.authority)
            .header("signature-input", fields.signature_input)
            .header("signature", fields.signature);
        if let Some(digest) = digest {
            request = request
                .header("content-digest", digest)
                .header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = outgoing.key {
            request = request.header("idempotency-key", key.as_str());
        }
        request
            .body(Full::new(outgoing.body))
            .map_err(|error| Refusal::new(Code::Usage, format!("the request cannot be made: {error}")))
    }

    async fn send(&self, outgoing: Outgoing<'_>) -> Result<(StatusCode, Bytes), Refusal> {
        let request = self.request(outgoing)?;
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|error| connection_error("waiting", error))?;
        let mut connection = self.take().await?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| connection_error("the connection was lost", error))?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body
            .map_err(|error| connection_error("the connection was lost", error))?
            .to_bytes();
        self.idle.lock().push(connection);
        Ok((status, body))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        let outgoing = Outgoing {
            method: Method::GET,
            path,
            key: None,
            body: Bytes::new(),
        };
        let (status, body) = self.send(outgoing).await?;
        if status != StatusCode::OK {
            return Err(problem(&body)?.refusal());
        }
        serde_json::from_slice(&body).map_err(bad_answer)
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
        let encode = |bytes: &Vec<u8>| STANDARD.encode(bytes);
        let (digest, digests) = match &wanted.inputs[..] {
            [one] => (Some(encode(one)), None),
            many => (None, Some(many.iter().map(encode).collect())),
        };
        let body = SignBody {
            credential: wanted.credential.clone(),
            algorithm: Some(wanted.algorithm),
            format: wanted.format,
            digest,
            digests,
            user_id: wanted.user_id.as_ref().map(encode),
            deadline_ms: wanted.deadline_ms,
            seal: under.map(|under| under.seal.clone()),
            document: under.map(|under| under.document),
            agent: under.and_then(|under| under.agent.clone()),
        };
        let body = serde_json::to_vec(&body).map_err(bad_answer)?.into();
        let path = "/v1/signatures";
        let outgoing = Outgoing {
            method: Method::POST,
            path,
            key: Some(&wanted.key),
            body,
        };
        let (status, body) = self.send(outgoing).await?;
        if status == StatusCode::OK {
            return outcomes(
                serde_json::from_slice::<ItemsBody>(&body)
                    .map_err(bad_answer)?
                    .items,
            );
        }
        let problem = problem(&body)?;
        match problem.items.clone() {
            Some(items) => outcomes(items),
            None => Err(problem.refusal()),
        }
    }

    /// What became of an earlier call.
    pub async fn look_up(&self, key: &IdempotencyKey) -> Result<Vec<ItemOutcome>, Refusal> {
        let body: ItemsBody = self.get(&operation_path(key.as_str())).await?;
        outcomes(body.items)
    }

    /// The same with proofs that the journal entries are in the audit log.
    pub async fn look_up_proved(&self, key: &IdempotencyKey) -> Result<ItemsBody, Refusal> {
        let path = operation_path(key.as_str());
        self.get(&format!("{path}?proof=inclusion")).await
    }

    /// Some of the app's credentials: those that fit into one answer.
    pub async fn credentials_page(&self, page: Page<'_>) -> Result<Vec<CredentialInfo>, Refusal> {
        // Ids need no escaping in a query.
        let path = match page {
            Page { only: Some(id), .. } => format!("/v1/credentials?id={id}"),
            Page { after: Some(id), .. } => format!("/v1/credentials?after={id}"),
            _ => "/v1/credentials".to_owned(),
        };
        let body: CredentialsBody = self.get(&path).await?;
        let infos = body
            .credentials
            .into_iter()
            .map(CredentialBody::info)
            .collect::<Option<_>>();
        infos.ok_or_else(|| bad_answer("a key or certificate is not PEM"))
    }

    /// Some of the seals of the app's tenant: those that fit into one answer.
    pub async fn seals_page(&self, page: Page<'_>) -> Result<Vec<SealInfo>, Refusal> {
        // Ids need no escaping in paths and queries.
        let bodies = match page {
            Page { only: Some(id), .. } => match self.get::<SealBody>(&format!("/v1/seals/{id}")).await {
                Err(refusal) if refusal.code == Code::UnknownSeal => Vec::new(),
                found => vec![found?],
            },
            Page { after: Some(id), .. } => {
                self.get::<SealsBody>(&format!("/v1/seals?after={id}"))
                    .await?
                    .seals
            }
            _ => self.get::<SealsBody>("/v1/seals").await?.seals,
        };
        let infos = bodies.into_iter().map(SealBody::info).collect::<Option<_>>();
        infos.ok_or_else(|| bad_answer("a picture or a seal is not base64"))
    }

    /// The app's usage.
    pub async fn usage(&self) -> Result<UsageInfo, Refusal> {
        Ok(self.get::<UsageBody>("/v1/usage").await?.into())
    }
}

fn problem(body: &[u8]) -> Result<Problem, Refusal> {
    serde_json::from_slice(body).map_err(bad_answer)
}

fn outcomes(items: Vec<ItemBody>) -> Result<Vec<ItemOutcome>, Refusal> {
    let outcomes = items.into_iter().map(ItemBody::outcome).collect::<Option<_>>();
    outcomes.ok_or_else(|| bad_answer("an item contradicts itself"))
}
