//! Signature files, made here and judged by OpenSSL, and the other way round.

use std::sync::Arc;

use documents::cms::{
    AssembleError, Chain, ChainError, PrepareError, VerifyError, prepare, supports, verify_detached,
};
use documents::x509::{Profile, Spec};
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::clock::UnixMillis;

use crate::support::{Bench, Holder, NOT_AFTER, NOW, content};

/// Judges `signature.der` over `content`, on the day of the tests.
pub(crate) const OPENSSL_VERIFY: &str = "cms -verify -binary -inform DER -in signature.der -content content \
                       -CAfile ca.pem -attime 1800000000 -out verified";

fn hash(algorithm: Algorithm) -> Hash {
    match algorithm.input() {
        InputKind::Digest(hash) => hash,
        InputKind::Message(_) => unreachable!("CMS takes digests"),
    }
}

/// A signature over `content`.
pub(crate) fn sign(signer: &Holder, chain: &Arc<Chain>, content: &[u8]) -> Vec<u8> {
    let digest = hash(signer.algorithm).digest(content);
    let prepared = prepare(&digest, signer.algorithm, chain, NOW).unwrap();
    let signature = signer.key.sign(signer.algorithm, prepared.to_sign());
    prepared.assemble(&signature).unwrap()
}

fn supported() -> impl Iterator<Item = Algorithm> {
    Algorithm::ALL
        .into_iter()
        .filter(|algorithm| supports(*algorithm))
}

#[test]
fn openssl_and_we_accept_every_supported_algorithm() {
    for algorithm in supported() {
        let root = Holder::root(Algorithm::EcdsaP256Sha256);
        let signer = root.signer(algorithm);
        let content = content();
        let cms = sign(&signer, &signer.chain(&[&root]), &content);
        let bench = Bench::new();
        bench.write_pem("ca.pem", &root.certificate);
        bench.write("signature.der", &cms);
        bench.write("content", &content);
        bench.openssl(OPENSSL_VERIFY).accepted();
        bench.openssl(&format!("{OPENSSL_VERIFY} -cades")).accepted();
        let verified = verify_detached(&cms, &|hash| hash.digest(&content), &[&root.certificate]).unwrap();
        assert_eq!(verified.algorithm, algorithm);
        assert_eq!(verified.signer, "CN=Signer,O=朱砂,C=CN");
        assert_eq!(verified.certificate, signer.certificate);
        assert_eq!(verified.signing_time, NOW);
        bench.write("content", b"something else");
        bench.openssl(OPENSSL_VERIFY).refused("verification failure");
        let other = verify_detached(&cms, &|hash| hash.digest(b"something else"), &[&root.certificate]);
        assert_eq!(other, Err(VerifyError::ContentDigest));
    }
}

#[test]
fn the_structure_is_der_with_both_certificates() {
    let root = Holder::root(Algorithm::RsaPkcs1Sha256);
    let signer = root.signer(Algorithm::RsaPssSha384);
    let cms = sign(&signer, &signer.chain(&[&root]), &content());
    let bench = Bench::new();
    bench.write("signature.der", &cms);
    let shown = bench
        .openssl("cms -cmsout -print -inform DER -in signature.der")
        .text;
    assert_eq!(shown.matches("d.certificate:").count(), 2, "{shown}");
    assert!(shown.contains("eContent: <ABSENT>"), "{shown}");
    for expected in [
        "signingTime",
        "messageDigest",
        "contentType",
        "id-smime-aa-signingCertificateV2",
    ] {
        assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
    }
    assert!(shown.contains("algorithm: rsassaPss"), "{shown}");
    assert!(
        shown.contains("INTEGER           :30"),
        "a salt of 48 bytes: {shown}"
    );
    // OpenSSL writes DER: if its encoding of what it read is ours, ours was DER (sets in order included).
    bench
        .openssl("cms -cmsout -inform DER -in signature.der -outform DER -out again.der")
        .accepted();
    assert_eq!(bench.read("again.der"), cms);
}

/// Signs with OpenSSL and verifies here.
fn signed_by_openssl(algorithm: Algorithm, options: &str) -> Result<Algorithm, VerifyError> {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let signer = root.signer(algorithm);
    let content = content();
    let bench = Bench::new();
    bench.write("content", &content);
    bench.write("key.der", &signer.key.private());
    bench.write_pem("signer.pem", &signer.certificate);
    let sign = "cms -sign -binary -in content -signer signer.pem -inkey key.der -keyform DER -outform DER \
                -out signature.der";
    bench.openssl(&format!("{sign} {options}")).accepted();
    let cms = bench.read("signature.der");
    let verified = verify_detached(&cms, &|hash| hash.digest(&content), &[&root.certificate])?;
    Ok(verified.algorithm)
}

#[test]
fn we_accept_what_openssl_signs() {
    use Algorithm as A;
    let pss = "-md sha256 -keyopt rsa_padding_mode:pss -keyopt rsa_pss_saltlen:32";
    for (algorithm, options) in [
        (A::EcdsaP256Sha256, "-md sha256"),
        (A::EcdsaP256Sha256, "-md sha256 -keyid"),
        (A::EcdsaP384Sha384, "-md sha384"),
        (A::RsaPkcs1Sha256, "-md sha256"),
        (A::RsaPkcs1Sha512, "-md sha512"),
        (A::RsaPssSha256, pss),
    ] {
        assert_eq!(
            signed_by_openssl(algorithm, &format!("{options} -cades")),
            Ok(algorithm),
            "{options}"
        );
    }
}

#[test]
fn we_refuse_what_openssl_signs_in_other_ways() {
    use VerifyError as E;
    let refused = |options: &str| signed_by_openssl(Algorithm::EcdsaP256Sha256, options).unwrap_err();
    assert_eq!(refused("-md sha256"), E::Attribute("signingCertificateV2"));
    assert_eq!(refused("-md sha256 -cades -nodetach"), E::NotDetached);
    assert_eq!(refused("-md sha256 -cades -nocerts"), E::NoCertificate);
    assert_eq!(refused("-md sha256 -noattr"), E::Attribute("signedAttrs"));
    assert_eq!(
        refused("-md sha384 -cades"),
        E::UnsupportedAlgorithm,
        "P-256 goes with SHA-256"
    );
    let salt = "-md sha256 -cades -keyopt rsa_padding_mode:pss -keyopt rsa_pss_saltlen:20";
    assert_eq!(
        signed_by_openssl(Algorithm::RsaPssSha256, salt),
        Err(E::UnsupportedAlgorithm)
    );
}

#[test]
fn two_signers_are_one_too_many() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let bench = Bench::new();
    bench.write("content", b"content");
    for (name, algorithm) in [
        ("a", Algorithm::EcdsaP256Sha256),
        ("b", Algorithm::RsaPkcs1Sha256),
    ] {
        let signer = root.issue(name, algorithm, Profile::Signer);
        bench.write_pem(name, &signer.certificate);
        bench.write(&format!("{name}.der"), &signer.key.private());
    }
    let sign = "cms -sign -binary -in content -keyform DER -outform DER -out signature.der -cades";
    bench
        .openssl(&format!("{sign} -signer a -inkey a.der -signer b -inkey b.der"))
        .accepted();
    let cms = bench.read("signature.der");
    let verdict = verify_detached(&cms, &|hash| hash.digest(b"content"), &[&root.certificate]);
    assert_eq!(verdict, Err(VerifyError::NotOneSigner));
}

#[test]
fn what_cannot_be_signed_is_refused_with_the_reason() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let signer = root.signer(Algorithm::EcdsaP256Sha256);
    let chain = signer.chain(&[]);
    let refused = |digest: &[u8], algorithm, at| prepare(digest, algorithm, &chain, at).unwrap_err();
    let unsupported = refused(&[0; 32], Algorithm::Sm2Sm3E, NOW);
    assert_eq!(
        unsupported,
        PrepareError::UnsupportedAlgorithm(Algorithm::Sm2Sm3E)
    );
    assert_eq!(
        unsupported.to_string(),
        "CMS signatures are not made with sm2-sm3-e yet; the supported ones are ECDSA and RSA"
    );
    let key = refused(&[0; 32], Algorithm::RsaPssSha256, NOW);
    assert_eq!(key, PrepareError::Key(Algorithm::RsaPssSha256));
    assert!(matches!(
        refused(&[0; 31], signer.algorithm, NOW),
        PrepareError::Digest(_)
    ));
    assert_eq!(
        refused(&[0; 32], signer.algorithm, UnixMillis(NOT_AFTER.0 + 1000)),
        PrepareError::NotValidThen
    );
    assert_eq!(
        refused(&[0; 32], signer.algorithm, UnixMillis(0)),
        PrepareError::NotValidThen
    );
}

#[test]
fn a_signature_of_the_wrong_form_is_not_assembled() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    for (algorithm, wrong) in [(Algorithm::EcdsaP256Sha256, 64), (Algorithm::RsaPkcs1Sha256, 255)] {
        let chain = root.signer(algorithm).chain(&[]);
        let prepared = prepare(&[0; 32], algorithm, &chain, NOW).unwrap();
        assert_eq!(
            prepared.assemble(&vec![1; wrong]),
            Err(AssembleError::Signature(algorithm))
        );
    }
}

#[test]
fn a_chain_is_in_order() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let signer = root.signer(Algorithm::EcdsaP256Sha256);
    let chain = |certificates: &[&Vec<u8>]| Chain::new(certificates).map(|_| ()).unwrap_err();
    assert_eq!(chain(&[]), ChainError::Count(0));
    assert_eq!(chain(&[&root.certificate; 11]), ChainError::Count(11));
    assert_eq!(
        chain(&[&root.certificate, &signer.certificate]),
        ChainError::Order(1)
    );
    assert!(matches!(chain(&[&vec![0x30, 0]]), ChainError::Unreadable(_)));
    let good = signer.chain(&[&root]);
    assert_eq!(good.public_key().spki(), signer.key.public());
    assert_eq!(*good.leaf_digest(), *Hash::Sha256.digest(&signer.certificate));
    assert_eq!(
        good.certificates().len(),
        signer.certificate.len() + root.certificate.len()
    );
}

#[test]
fn a_key_with_two_certificates_cannot_swap_them() {
    // Fixed-length signatures and names, so that one certificate takes the place of the other byte for byte.
    let root = Holder::root(Algorithm::RsaPkcs1Sha256);
    let clerk = root.issue("Clerk", Algorithm::EcdsaP256Sha256, Profile::Signer);
    let serial = root.spec("Clerk", &clerk.key, Profile::Signer).serial;
    let chief = root.certify(&Spec {
        serial,
        ..root.spec("Chief", &clerk.key, Profile::Signer)
    });
    let content = content();
    let mut cms = sign(&clerk, &clerk.chain(&[]), &content);
    let at = cms
        .windows(chief.len())
        .position(|window| window == clerk.certificate)
        .unwrap();
    cms[at..at + chief.len()].copy_from_slice(&chief);
    let verdict = verify_detached(&cms, &|hash| hash.digest(&content), &[&root.certificate]);
    assert_eq!(verdict, Err(VerifyError::OtherCertificate));
}
