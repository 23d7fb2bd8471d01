//! TLS 1.3 for both fronts and for the console. Client certificates are optional: they are asked for once an app, or for the console
//! an operator, has registered one, and whom one stands for is decided by its fingerprint, not by a CA.

use std::path::Path;
use std::sync::Arc;

use actors::call::Ticket;
use protocol::error_code::{Code, Refusal};
use protocol::message::ALPN;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use store::StoreHandle;

/// The server's certificate chain and key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From PEM files.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, Refusal> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|error| Refusal::new(Code::File, format!("{}: {error}", path.display())))
        };
        let chain = pem::parse_many(read(certificate)?)
            .map_err(|error| Refusal::new(Code::Usage, format!("{}: {error}", certificate.display())))?
            .into_iter()
            .map(|block| CertificateDer::from(block.into_contents()))
            .collect();
        let block = pem::parse(read(key)?)
            .map_err(|error| Refusal::new(Code::Usage, format!("{}: {error}", key.display())))?;
        if block.tag() != "PRIVATE KEY" {
            let text = format!(
                "{}: a private key in PKCS#8 is needed, not '{}'",
                key.display(),
                block.tag()
            );
            return Err(Refusal::new(Code::Usage, text));
        }
        Ok(Self {
            chain,
            key: PrivatePkcs8KeyDer::from(block.into_contents()).into(),
        })
    }

    /// SHA-256 of the server's own certificate.
    pub(crate) fn certificate_hash(&self) -> [u8; 32] {
        protocol::session::certificate_hash(self.chain.first().map_or(&[], |der| der))
    }
}

/// The configurations of both fronts and of the console.
pub(crate) struct TlsConfigs {
    pub(crate) quic: Arc<QuicServerConfig>,
    pub(crate) https: Arc<ServerConfig>,
    pub(crate) console: Arc<ServerConfig>,
}

/// Builds them.
pub(crate) fn configs(identity: &Identity, store: &Arc<StoreHandle<Ticket>>) -> Result<TlsConfigs, Refusal> {
    let unusable =
        |error: &dyn std::fmt::Display| Refusal::new(Code::Usage, format!("the TLS certificate: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let of = |who: Who| {
        let verifier = Arc::new(PinnedClients {
            who,
            store: Arc::clone(store),
            provider: Arc::clone(&provider),
        });
        ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| unusable(&error))
    };
    let http = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut console = of(Who::Operators)?;
    console.alpn_protocols.clone_from(&http);
    let mut quic = of(Who::Apps)?;
    let mut https = quic.clone();
    https.alpn_protocols = http;
    quic.alpn_protocols = vec![ALPN.to_vec()];
    // Signing is never done in 0-RTT: it can be replayed.
    quic.max_early_data_size = 0;
    let quic = QuicServerConfig::try_from(quic).map_err(|error| unusable(&error))?;
    Ok(TlsConfigs {
        quic: Arc::new(quic),
        https: Arc::new(https),
        console: Arc::new(console),
    })
}

/// Whose client certificates count.
#[derive(Clone, Copy, Debug)]
enum Who {
    Apps,
    Operators,
}

/// Takes any client certificate whose holder proves its key. Trust comes later, by fingerprint.
#[derive(Debug)]
struct PinnedClients {
    who: Who,
    store: Arc<StoreHandle<Ticket>>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PinnedClients {
    fn offer_client_auth(&self) -> bool {
        // Some clients cannot cope with being asked, so nobody is asked for what nobody has registered.
        let directory = self.store.directory();
        match self.who {
            Who::Apps => directory.has_client_certificates(),
            Who::Operators => directory.operators.have_certificates(),
        }
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
