//! A root, a seal maker and a signer with keys of SM2, a seal, and the judges.

use std::path::{Path, PathBuf};
use std::process::Command;

use documents::ses::{
    Allowed, Anchors, Generation, PictureSpec, SealSpec, SignatureRequest, prepare_seal, prepare_signature,
};
use documents::x509::{Issuer, Profile, Spec, Terms};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use crate::support::{Bench, Holder, Key, NOT_AFTER, NOT_BEFORE, NOW, name};

/// The smallest PNG: one pixel.
pub(crate) const PNG: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0,
    0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, b'I', b'D', b'A', b'T', 0x78, 0x9c, 0x63,
    0xf8, 0xcf, 0xc0, 0xf0, 0x1f, 0, 5, 0, 1, 0xff, 0x89, 0x99, 0x3d, 0x1d, 0, 0, 0, 0, b'I', b'E', b'N',
    b'D', 0xae, 0x42, 0x60, 0x82,
];

/// A day in milliseconds.
pub(crate) const DAY: u64 = 86_400_000;

/// Everybody who takes part.
pub(crate) struct Parties {
    pub(crate) root: Holder,
    pub(crate) maker: Holder,
    pub(crate) signer: Holder,
}

pub(crate) fn sm2_key(scalar: u8) -> Key {
    Key::Sm2(sm2::dsa::SigningKey::from_slice("", &[scalar; 32]).unwrap())
}

/// A certificate below `root` for the key with this scalar.
pub(crate) fn holder(root: &Holder, common_name: &str, scalar: u8, profile: Profile) -> Holder {
    holder_valid(root, common_name, scalar, profile, (NOT_BEFORE, NOT_AFTER))
}

pub(crate) fn holder_valid(
    root: &Holder,
    common_name: &str,
    scalar: u8,
    profile: Profile,
    (not_before, not_after): (UnixMillis, UnixMillis),
) -> Holder {
    let key = sm2_key(scalar);
    let spec = Spec {
        serial: [0x80].into_iter().chain(common_name.bytes()).collect(),
        issuer: Issuer::Holder(root.certificate.clone()),
        subject: name(common_name),
        not_before,
        not_after,
        subject_public_key: key.public(),
        profile,
        terms: Terms::default(),
    };
    let certificate = root.certify(&spec);
    Holder {
        key,
        algorithm: Algorithm::Sm2Sm3,
        certificate,
    }
}

impl Parties {
    pub(crate) fn new() -> Self {
        let root = Holder::root(Algorithm::Sm2Sm3);
        let maker = holder(&root, "Seal Maker", 3, Profile::Signer);
        let signer = holder(&root, "Sealer", 4, Profile::Signer);
        Self { root, maker, signer }
    }

    pub(crate) fn trust(&self) -> Anchors {
        Anchors {
            anchors: vec![self.root.certificate.clone()],
            intermediates: Vec::new(),
        }
    }

    pub(crate) fn spec(&self) -> SealSpec {
        SealSpec {
            generation: Generation::V4,
            id: "50011200000323".into(),
            vendor: "Cinnabar".into(),
            kind: 1,
            name: "朱砂科技有限公司".into(),
            allowed: Allowed::Certificates(vec![self.signer.certificate.clone()]),
            created: UnixMillis(NOW.0 - 30 * DAY),
            validity: (UnixMillis(NOW.0 - 30 * DAY), UnixMillis(NOW.0 + 300 * DAY)),
            picture: PictureSpec {
                kind: "PNG".into(),
                data: PNG.to_vec(),
                width_mm: 42,
                height_mm: 42,
            },
        }
    }

    pub(crate) fn seal(&self) -> Vec<u8> {
        self.seal_of(&self.spec())
    }

    pub(crate) fn seal_of(&self, spec: &SealSpec) -> Vec<u8> {
        let prepared = prepare_seal(spec, &self.maker.certificate).unwrap();
        let signature = self.maker.key.sign(Algorithm::Sm2Sm3, prepared.message());
        prepared.assemble(&signature, None).unwrap()
    }

    pub(crate) fn request<'a>(&'a self, seal: &'a [u8]) -> SignatureRequest<'a> {
        SignatureRequest {
            seal,
            certificate: &self.signer.certificate,
            data_hash: [7; 32],
            property_info: "/Doc_0/Signs/Sign_0/Signature.xml",
            at: NOW,
        }
    }

    /// A seal signature over the digest `[7; 32]`.
    pub(crate) fn signature(&self, seal: &[u8]) -> Vec<u8> {
        let prepared = prepare_signature(&self.request(seal)).unwrap();
        let signature = self.signer.key.sign(Algorithm::Sm2Sm3E, &prepared.e());
        prepared.assemble(&signature, None).unwrap()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn python() -> PathBuf {
    let given = std::env::var_os("TEST_PYTHON").map(PathBuf::from);
    let path = given.unwrap_or_else(|| workspace().join("target/venv/bin/python"));
    assert!(
        path.exists(),
        "no {}; `scripts/install.sh test target/venv` makes it",
        path.display()
    );
    path
}

/// What one of the judges says of files.
#[track_caller]
pub(crate) fn judge(script: &str, files: &[&Path]) -> String {
    let output = Command::new(python())
        .arg(workspace().join("documents/tests/judges").join(script))
        .args(files)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONIOENCODING", "utf-8")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {text}{errors}");
    text
}

/// Whether gmssl accepts a signature over a message.
#[track_caller]
pub(crate) fn gmssl_accepts(certificate: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let bench = Bench::new();
    let files =
        [("c", certificate), ("m", message), ("s", signature)].map(|(name, bytes)| bench.write(name, bytes));
    let verdict = judge("gmssl_check.py", &[&files[0], &files[1], &files[2]]);
    verdict.contains("gmssl: OK")
}
