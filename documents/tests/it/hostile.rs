//! Bytes that somebody has tampered with: never a panic, and never another meaning.

use documents::cms::{VerifiedCms, VerifyError, verify_detached};
use documents::x509::{issuer_and_serial, subject, subject_public_key, validity, verify_issued_by};
use protocol::algorithm::{Algorithm, Hash};

use crate::cms::sign;
use crate::support::{Holder, content};

/// Every way to flip one bit.
fn bit_flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit, flipped)
    })
}

struct Signed {
    cms: Vec<u8>,
    content: Vec<u8>,
    root: Holder,
}

impl Signed {
    fn new() -> Self {
        let root = Holder::root(Algorithm::EcdsaP256Sha256);
        let signer = root.signer(Algorithm::EcdsaP256Sha256);
        let content = content();
        let cms = sign(&signer, &signer.chain(&[&root]), &content);
        Self { cms, content, root }
    }

    fn verify(&self, cms: &[u8]) -> Result<VerifiedCms, VerifyError> {
        verify_detached(cms, &|hash| hash.digest(&self.content), &[&self.root.certificate])
    }
}

#[test]
fn a_signature_cut_off_anywhere_is_refused() {
    let signed = Signed::new();
    for length in 0..signed.cms.len() {
        assert!(signed.verify(&signed.cms[..length]).is_err(), "{length} bytes");
    }
    let longer = [&signed.cms[..], &[0]].concat();
    assert!(signed.verify(&longer).is_err(), "a byte too many");
}

#[test]
fn a_flipped_bit_never_changes_what_a_signature_says() {
    let signed = Signed::new();
    let genuine = signed.verify(&signed.cms).unwrap();
    let mut harmless = 0;
    for (bit, flipped) in bit_flips(&signed.cms) {
        // Some bits are signed by nobody: versions, the list of digest algorithms, the root that was
        // enclosed.
        if let Ok(verified) = signed.verify(&flipped) {
            assert_eq!(verified, genuine, "bit {bit}");
            harmless += 1;
        }
    }
    assert!(
        harmless < signed.cms.len() * 4,
        "{harmless} bits make no difference"
    );
}

/// The signature with the last byte of the last place where `oid` stands raised by one.
fn with_next_oid(cms: &[u8], oid: &[u8]) -> Vec<u8> {
    let at = cms.windows(oid.len()).rposition(|window| window == oid).unwrap();
    let mut changed = cms.to_vec();
    changed[at + oid.len() - 1] += 1;
    changed
}

#[test]
fn hash_and_signature_algorithm_must_agree() {
    let signed = Signed::new();
    // The signer's SHA-256 becomes SHA-384, and the content's digest is the one signed, whatever is asked.
    let changed = with_next_oid(
        &signed.cms,
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
    );
    let content_digest = |_| Hash::Sha256.digest(&signed.content);
    let verdict = verify_detached(&changed, &content_digest, &[&signed.root.certificate]);
    assert_eq!(verdict, Err(VerifyError::UnsupportedAlgorithm));
}

#[test]
fn content_type_and_its_attribute_must_agree() {
    let signed = Signed::new();
    // id-data in the signed attribute becomes id-signedData.
    let id_data = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    let verdict = signed.verify(&with_next_oid(&signed.cms, &id_data));
    assert_eq!(verdict, Err(VerifyError::ContentType));
}

#[test]
fn a_flipped_bit_breaks_a_certificate() {
    for algorithm in [
        Algorithm::EcdsaP256Sha256,
        Algorithm::Ed25519,
        Algorithm::RsaPssSha256,
    ] {
        let root = Holder::root(algorithm);
        let signer = root.signer(Algorithm::EcdsaP256Sha256);
        for (bit, flipped) in bit_flips(&signer.certificate) {
            assert!(
                verify_issued_by(&flipped, &root.certificate).is_err(),
                "{algorithm}, bit {bit}"
            );
        }
    }
}

#[test]
fn reading_a_broken_certificate_does_not_panic() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let cut = (0..root.certificate.len()).map(|length| root.certificate[..length].to_vec());
    for (at, broken) in cut.enumerate() {
        assert!(subject_public_key(&broken).is_err(), "{at} bytes");
    }
    for (_, broken) in bit_flips(&root.certificate) {
        let _ = (subject(&broken), validity(&broken), issuer_and_serial(&broken));
        let _ = verify_issued_by(&root.certificate, &broken);
    }
}
