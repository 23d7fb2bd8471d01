//! The proof on the native protocol (SEMANTICS 2.3): a session key that both sides derive from the app's secret,
//! both nonces and the TLS connection, a proof of it in each direction, and a MAC on every request.
//!
//! session key = HKDF-SHA-256(salt = server nonce ‖ client nonce, ikm = app secret,
//!     info = "cinnabar/1 session" ‖ 0 ‖ app id ‖ 0 ‖ SHA-256(server certificate, DER) ‖ exporter or nothing)
//! transcript  = SHA-256(hello payload ‖ welcome payload), as they travelled

use aws_lc_rs::{digest, hkdf, hmac};

/// Label of the TLS exporter (RFC 8446 7.5); its context is empty and its length 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-cinnabar-1";
/// Bytes of the exporter's output, of nonces, of the session key and of every MAC.
pub const KEY_BYTES: usize = 32;

const CLIENT_LABEL: &[u8] = b"cinnabar/1 client";
const SERVER_LABEL: &[u8] = b"cinnabar/1 server";

/// The proof does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not verify")]
pub struct BadProof;

/// What a session key is derived from, beside the secret.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The app id in the hello.
    pub app: &'a str,
    /// The client's nonce.
    pub client_nonce: &'a [u8; KEY_BYTES],
    /// The server's nonce.
    pub server_nonce: &'a [u8; KEY_BYTES],
    /// SHA-256 of the server's certificate in DER.
    pub certificate_hash: &'a [u8; KEY_BYTES],
    /// The exporter's output, where the session is bound to it.
    pub exporter: Option<&'a [u8; KEY_BYTES]>,
}

/// The key of one proved session. Boxed: the expanded HMAC state is more than a kilobyte.
#[derive(Clone)]
pub struct SessionKey(Box<hmac::Key>);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

struct OutputBytes;

impl hkdf::KeyType for OutputBytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl SessionKey {
    /// Derives the key.
    pub fn derive(secret: &[u8], context: &Context<'_>) -> Self {
        let salt = [&context.server_nonce[..], &context.client_nonce[..]].concat();
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(secret);
        let exporter = context.exporter.map_or(&[][..], |bytes| &bytes[..]);
        let info = [
            b"cinnabar/1 session\0",
            context.app.as_bytes(),
            b"\0",
            context.certificate_hash,
            exporter,
        ];
        let mut key = zeroize::Zeroizing::new([0; KEY_BYTES]);
        extracted
            .expand(&info, OutputBytes)
            .and_then(|okm| okm.fill(&mut key[..]))
            .expect("32 bytes are within what HKDF-SHA-256 can expand to");
        Self(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key[..])))
    }

    fn labelled(&self, label: &[u8], transcript: &[u8; KEY_BYTES]) -> Vec<u8> {
        hmac::sign(&self.0, &[label, transcript].concat())
            .as_ref()
            .to_vec()
    }

    fn check(&self, label: &[u8], transcript: &[u8; KEY_BYTES], mac: &[u8]) -> Result<(), BadProof> {
        hmac::verify(&self.0, &[label, transcript].concat(), mac).map_err(|_| BadProof)
    }

    /// The client's proof.
    pub fn client_proof(&self, transcript: &[u8; KEY_BYTES]) -> Vec<u8> {
        self.labelled(CLIENT_LABEL, transcript)
    }

    /// Checks the client's proof.
    pub fn check_client(&self, transcript: &[u8; KEY_BYTES], mac: &[u8]) -> Result<(), BadProof> {
        self.check(CLIENT_LABEL, transcript, mac)
    }

    /// The server's proof.
    pub fn server_proof(&self, transcript: &[u8; KEY_BYTES]) -> Vec<u8> {
        self.labelled(SERVER_LABEL, transcript)
    }

    /// Checks the server's proof.
    pub fn check_server(&self, transcript: &[u8; KEY_BYTES], mac: &[u8]) -> Result<(), BadProof> {
        self.check(SERVER_LABEL, transcript, mac)
    }

    /// The MAC of a request body.
    pub fn seal(&self, body: &[u8]) -> [u8; KEY_BYTES] {
        let mut mac = [0; KEY_BYTES];
        mac.copy_from_slice(hmac::sign(&self.0, body).as_ref());
        mac
    }

    /// Checks the MAC of a request body.
    pub fn open(&self, body: &[u8], mac: &[u8]) -> Result<(), BadProof> {
        hmac::verify(&self.0, body, mac).map_err(|_| BadProof)
    }
}

/// SHA-256 over the hello and welcome payloads.
pub fn transcript(hello: &[u8], welcome: &[u8]) -> [u8; KEY_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(hello);
    context.update(welcome);
    to_array(&context.finish())
}

/// SHA-256 of a certificate in DER.
pub fn certificate_hash(der: &[u8]) -> [u8; KEY_BYTES] {
    to_array(&digest::digest(&digest::SHA256, der))
}

fn to_array(digest: &digest::Digest) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(digest.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context<'a>(app: &'a str, exporter: Option<&'a [u8; 32]>) -> Context<'a> {
        Context {
            app,
            client_nonce: &[1; 32],
            server_nonce: &[2; 32],
            certificate_hash: &[3; 32],
            exporter,
        }
    }

    #[test]
    fn both_sides_agree_and_every_input_matters() {
        let transcript = transcript(b"hello", b"welcome");
        let key = SessionKey::derive(b"secret", &context("app", Some(&[4; 32])));
        let proof = key.client_proof(&transcript);
        let same = SessionKey::derive(b"secret", &context("app", Some(&[4; 32])));
        assert!(same.check_client(&transcript, &proof).is_ok());
        assert_eq!(same.check_server(&transcript, &proof), Err(BadProof), "reflected");
        for other in [
            SessionKey::derive(b"secreT", &context("app", Some(&[4; 32]))),
            SessionKey::derive(b"secret", &context("apq", Some(&[4; 32]))),
            SessionKey::derive(b"secret", &context("app", None)),
        ] {
            assert_eq!(other.check_client(&transcript, &proof), Err(BadProof));
        }
    }

    #[test]
    fn a_mac_covers_every_byte() {
        let key = SessionKey::derive(b"secret", &context("app", None));
        let mac = key.seal(b"body");
        assert!(key.open(b"body", &mac).is_ok());
        assert!(key.open(b"bodY", &mac).is_err());
        assert!(key.open(b"body", &mac[..31]).is_err());
        assert!(key.open(b"body", b"").is_err());
    }

    /// The vector in docs/wire.cddl, so that the page cannot drift from the code.
    #[test]
    fn the_published_vector() {
        let nonce = |first: u8| std::array::from_fn::<u8, 32, _>(|i| first + i as u8);
        let (client, server, certificate) = (nonce(0), nonce(0x20), nonce(0x40));
        let context = Context {
            app: "demo-app",
            client_nonce: &client,
            server_nonce: &server,
            certificate_hash: &certificate,
            exporter: None,
        };
        let mac = SessionKey::derive(&[0x0b; 32], &context).seal(b"cinnabar");
        let page = include_str!("../../docs/wire.cddl");
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(page.contains(&hex), "docs/wire.cddl should hold {hex}");
    }
}
