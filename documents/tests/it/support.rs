//! Keys that sign, certificates made with them, and the `openssl` command line as the judge.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature as sig;
use documents::cms::Chain;
use documents::x509::{self, Issuer, Name, NameParts, Profile, Spec, Terms};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::clock::UnixMillis;
use protocol::verify::{import_digest, pair_to_der};
use sm2::dsa::signature::hazmat::PrehashSigner;

/// 2027-01-15, the day on which everything here happens.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
/// 2020-01-01, when everything becomes valid. The validity is long because OpenSSL signs at the machine's
/// time.
pub(crate) const NOT_BEFORE: UnixMillis = UnixMillis(1_577_836_800_000);
/// 2040-01-01.
pub(crate) const NOT_AFTER: UnixMillis = UnixMillis(2_208_988_800_000);

/// A private key of a kind.
pub(crate) enum Key {
    Ecdsa(sig::EcdsaKeyPair),
    Rsa(&'static sig::RsaKeyPair),
    Ed25519(sig::Ed25519KeyPair),
    Sm2(sm2::dsa::SigningKey),
}

/// RSA keys take long to make, so all tests share two: one for authorities, one for signers.
static RSA: LazyLock<[sig::RsaKeyPair; 2]> =
    LazyLock::new(|| [(); 2].map(|()| sig::RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));

impl Key {
    pub(crate) fn authority(kind: KeyKind) -> Self {
        Self::new(kind, 0)
    }

    pub(crate) fn signer(kind: KeyKind) -> Self {
        Self::new(kind, 1)
    }

    fn new(kind: KeyKind, nth: usize) -> Self {
        let ecdsa = |algorithm| Self::Ecdsa(sig::EcdsaKeyPair::generate(algorithm).unwrap());
        match kind {
            KeyKind::P256 => ecdsa(&sig::ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyKind::P384 => ecdsa(&sig::ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Self::Rsa(&RSA[nth]),
            KeyKind::Ed25519 => Self::Ed25519(sig::Ed25519KeyPair::generate().unwrap()),
            KeyKind::Sm2 => {
                let scalar = [u8::try_from(nth).unwrap() + 1; 32];
                Self::Sm2(sm2::dsa::SigningKey::from_slice("", &scalar).unwrap())
            }
        }
    }

    /// SubjectPublicKeyInfo, in DER.
    pub(crate) fn public(&self) -> Vec<u8> {
        use sig::KeyPair;
        match self {
            Self::Ecdsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Rsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Sm2(key) => {
                // SEQUENCE { SEQUENCE { ecPublicKey, 1.2.156.10197.1.301 }, BIT STRING }
                let mut spki = vec![
                    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
                ];
                spki.extend([
                    0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x82, 0x2d, 0x03, 0x42, 0x00,
                ]);
                spki.extend_from_slice(&key.verifying_key().to_sec1_bytes());
                spki
            }
        }
    }

    /// PKCS#8, in DER, for OpenSSL.
    pub(crate) fn private(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Self::Rsa(key) => key.as_der().unwrap().as_ref().to_vec(),
            Self::Ed25519(_) | Self::Sm2(_) => unreachable!("OpenSSL signs with ECDSA and RSA only here"),
        }
    }

    /// Signs as a device does: the digest, e, or the message.
    pub(crate) fn sign(&self, algorithm: Algorithm, input: &[u8]) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key
                .sign_digest(&import_digest(algorithm, input).unwrap())
                .unwrap()
                .as_ref()
                .to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let digest = import_digest(algorithm, input).unwrap();
                key.sign_digest(padding(algorithm), &digest, &mut signature)
                    .unwrap();
                signature
            }
            Self::Ed25519(key) => key.sign(input).as_ref().to_vec(),
            Self::Sm2(key) => {
                let e = match algorithm {
                    Algorithm::Sm2Sm3 => protocol::verify::PublicKey::from_spki(&self.public())
                        .unwrap()
                        .sm2_e(protocol::verify::SM2_DEFAULT_USER_ID, input)
                        .unwrap(),
                    _ => input.try_into().unwrap(),
                };
                let signature: sm2::dsa::Signature = key.sign_prehash(&e).unwrap();
                pair_to_der(&signature.to_bytes()).unwrap().to_vec()
            }
        }
    }
}

fn padding(algorithm: Algorithm) -> &'static dyn sig::RsaEncoding {
    match algorithm {
        Algorithm::RsaPkcs1Sha256 => &sig::RSA_PKCS1_SHA256,
        Algorithm::RsaPkcs1Sha384 => &sig::RSA_PKCS1_SHA384,
        Algorithm::RsaPkcs1Sha512 => &sig::RSA_PKCS1_SHA512,
        Algorithm::RsaPssSha256 => &sig::RSA_PSS_SHA256,
        Algorithm::RsaPssSha384 => &sig::RSA_PSS_SHA384,
        _ => &sig::RSA_PSS_SHA512,
    }
}

/// A certificate and the key in it.
pub(crate) struct Holder {
    pub(crate) key: Key,
    pub(crate) algorithm: Algorithm,
    pub(crate) certificate: Vec<u8>,
}

/// The kind of key that signs with an algorithm; the smallest where there are several.
pub(crate) fn kind_for(algorithm: Algorithm) -> KeyKind {
    KeyKind::ALL
        .into_iter()
        .find(|kind| kind.algorithms().contains(&algorithm))
        .unwrap()
}

pub(crate) fn name(common_name: &str) -> Name {
    let parts = NameParts {
        country: Some("CN"),
        organization: Some("朱砂"),
        common_name: Some(common_name),
    };
    Name::try_from(parts).unwrap()
}

impl Holder {
    /// A root that signs with `algorithm`.
    pub(crate) fn root(algorithm: Algorithm) -> Self {
        Self::root_for(algorithm, Profile::Root)
    }

    pub(crate) fn root_for(algorithm: Algorithm, profile: Profile) -> Self {
        let key = Key::authority(kind_for(algorithm));
        let spec = spec("Root", Issuer::Itself, &key, profile);
        let certificate = certify(&spec, algorithm, &key);
        Self {
            key,
            algorithm,
            certificate,
        }
    }

    /// Somebody below this one who signs with `algorithm`.
    pub(crate) fn issue(&self, common_name: &str, algorithm: Algorithm, profile: Profile) -> Self {
        let key = Key::signer(kind_for(algorithm));
        let certificate = self.certify(&self.spec(common_name, &key, profile));
        Self {
            key,
            algorithm,
            certificate,
        }
    }

    pub(crate) fn signer(&self, algorithm: Algorithm) -> Self {
        self.issue("Signer", algorithm, Profile::Signer)
    }

    /// What to certify for `key` under this one.
    pub(crate) fn spec(&self, common_name: &str, key: &Key, profile: Profile) -> Spec {
        let issuer = Issuer::Holder(self.certificate.clone());
        let (earliest, latest) = x509::validity(&self.certificate).unwrap();
        Spec {
            not_before: NOT_BEFORE.max(earliest),
            not_after: NOT_AFTER.min(latest),
            ..spec(common_name, issuer, key, profile)
        }
    }

    pub(crate) fn certify(&self, spec: &Spec) -> Vec<u8> {
        certify(spec, self.algorithm, &self.key)
    }

    /// The same key under another certificate. For certificates that nobody may issue and somebody did: an
    /// honest holder issues what is below it, and is then given a worse certificate.
    pub(crate) fn recertified(
        self,
        issuer: &Self,
        common_name: &str,
        profile: Profile,
        change: impl FnOnce(&mut Spec),
    ) -> Self {
        let mut spec = issuer.spec(common_name, &self.key, profile);
        change(&mut spec);
        let certificate = issuer.certify(&spec);
        Self { certificate, ..self }
    }

    /// The same for a root.
    pub(crate) fn recertified_by_itself(self, profile: Profile) -> Self {
        let spec = spec("Root", Issuer::Itself, &self.key, profile);
        let certificate = certify(&spec, self.algorithm, &self.key);
        Self { certificate, ..self }
    }

    pub(crate) fn chain(&self, others: &[&Self]) -> Arc<Chain> {
        let certificates: Vec<_> = [self]
            .iter()
            .chain(others)
            .map(|holder| holder.certificate.as_slice())
            .collect();
        Arc::new(Chain::new(&certificates).unwrap())
    }
}

/// The serial number is made of the name, so that two certificates of one issuer differ in it.
pub(crate) fn serial(common_name: &str) -> Vec<u8> {
    let mut serial = vec![0x40; 10];
    serial.extend(common_name.bytes().take(10));
    serial
}

fn spec(common_name: &str, issuer: Issuer, key: &Key, profile: Profile) -> Spec {
    Spec {
        serial: serial(common_name),
        issuer,
        subject: name(common_name),
        not_before: NOT_BEFORE,
        not_after: NOT_AFTER,
        subject_public_key: key.public(),
        profile,
        terms: Terms::default(),
    }
}

fn certify(spec: &Spec, algorithm: Algorithm, issuer: &Key) -> Vec<u8> {
    let prepared = x509::prepare(spec, algorithm).unwrap();
    let signature = issuer.sign(algorithm, prepared.to_sign());
    prepared.assemble(&signature).unwrap()
}

pub(crate) fn tls_server() -> Profile {
    Profile::TlsServer {
        dns: vec!["localhost".into()],
        ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    }
}

/// Random bytes to sign.
pub(crate) fn content() -> Vec<u8> {
    let mut bytes = vec![0; 1000];
    aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut bytes).unwrap();
    bytes
}

/// A folder with files for OpenSSL.
pub(crate) struct Bench(tempfile::TempDir);

/// What OpenSSL said.
pub(crate) struct Judgement {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }

    pub(crate) fn write_pem(&self, name: &str, certificate: &[u8]) -> PathBuf {
        self.write(name, x509::to_pem(certificate).as_bytes())
    }

    /// Runs `openssl` in the folder; the words of `arguments` are separated by spaces.
    pub(crate) fn openssl(&self, arguments: &str) -> Judgement {
        self.openssl_words(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// The same with words that may hold spaces.
    pub(crate) fn openssl_words(&self, arguments: &[&str]) -> Judgement {
        run(self.0.path(), arguments)
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Judgement {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Judgement {
        ok: output.status.success(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

impl Judgement {
    #[track_caller]
    pub(crate) fn accepted(&self) -> &Self {
        assert!(self.ok, "OpenSSL refused: {}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn refused(&self, because: &str) {
        assert!(
            !self.ok && self.text.contains(because),
            "expected '{because}': {}",
            self.text
        );
    }
}
