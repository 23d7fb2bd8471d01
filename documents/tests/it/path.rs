//! From a signer to a trust anchor: which paths hold, and which do not.

use documents::cms::{VerifyError, verify_detached};
use documents::x509::{PathError, Profile};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use crate::cms::{OPENSSL_VERIFY, sign};
use crate::support::{Bench, Holder, NOW, content, tls_server};

const P256: Algorithm = Algorithm::EcdsaP256Sha256;

/// Signs something as `signer` with the certificates of `others` enclosed, and verifies it under `anchor`.
fn verdict(signer: &Holder, others: &[&Holder], anchor: &Holder) -> Result<String, VerifyError> {
    let content = content();
    let cms = sign(signer, &signer.chain(others), &content);
    let bench = Bench::new();
    bench.write_pem("ca.pem", &anchor.certificate);
    bench.write("signature.der", &cms);
    bench.write("content", &content);
    let judgement = bench.openssl(OPENSSL_VERIFY);
    let ours = verify_detached(&cms, &|hash| hash.digest(&content), &[&anchor.certificate]);
    assert_eq!(
        judgement.ok,
        ours.is_ok(),
        "OpenSSL thinks otherwise: {} {ours:?}",
        judgement.text
    );
    ours.map(|verified| verified.signer)
}

#[test]
fn authorities_between_signer_and_root() {
    let root = Holder::root(Algorithm::EcdsaP384Sha384);
    let middle = root.issue("Middle", Algorithm::RsaPkcs1Sha256, Profile::Root);
    let lower = middle.issue("Lower", P256, Profile::Root);
    let signer = lower.signer(P256);
    assert_eq!(
        verdict(&signer, &[&lower, &middle, &root], &root).unwrap(),
        "CN=Signer,O=朱砂,C=CN"
    );
    assert!(
        verdict(&signer, &[&lower, &middle], &root).is_ok(),
        "the anchor need not be enclosed"
    );
    let gap = verdict(&signer, &[&lower], &root);
    assert_eq!(gap, Err(VerifyError::Path(PathError::NoTrustAnchor)));
}

#[test]
fn a_root_somebody_made_up() {
    let root = Holder::root(P256);
    let impostor = Holder::root(P256);
    let signer = impostor.signer(P256);
    let verdict = verdict(&signer, &[&impostor], &root);
    assert_eq!(
        verdict,
        Err(VerifyError::Path(PathError::BadSignature)),
        "same name, other key"
    );
}

#[test]
fn an_authority_below_one_that_may_have_none() {
    let root = Holder::root(P256);
    let middle = root.issue("Middle", P256, Profile::Root);
    let signer = middle.signer(P256);
    let root = root.recertified_by_itself(Profile::TlsRoot);
    assert!(verdict(&root.signer(P256), &[], &root).is_ok());
    let too_long = verdict(&signer, &[&middle], &root);
    assert_eq!(too_long, Err(VerifyError::Path(PathError::NotAnAuthority)));
}

#[test]
fn a_signer_that_issues() {
    let root = Holder::root(P256);
    let signer = root.issue("Signer", P256, Profile::Root);
    let below = signer.issue("Below", P256, Profile::Signer);
    let signer = signer.recertified(&root, "Signer", Profile::Signer, |_| {});
    let verdict = verdict(&below, &[&signer], &root);
    assert_eq!(verdict, Err(VerifyError::Path(PathError::NotAnAuthority)));
}

#[test]
fn certificates_for_something_else() {
    let root = Holder::root(P256);
    let server = root.issue("server", P256, tls_server());
    assert_eq!(
        verdict(&server, &[], &root),
        Err(VerifyError::Path(PathError::Purpose))
    );
    let authority = root.issue("Authority", P256, Profile::Root);
    assert_eq!(verdict(&authority, &[], &root), Err(VerifyError::KeyUsage));
}

#[test]
fn an_authority_that_had_expired() {
    let root = Holder::root(P256);
    let middle = root.issue("Middle", P256, Profile::Root);
    let signer = middle.signer(P256);
    let middle = middle.recertified(&root, "Middle", Profile::Root, |spec| {
        spec.not_after = UnixMillis(NOW.0 - 1000);
    });
    let subject = "CN=Middle,O=朱砂,C=CN".to_owned();
    let verdict = verdict(&signer, &[&middle], &root);
    assert_eq!(
        verdict,
        Err(VerifyError::Path(PathError::NotValidThen { subject }))
    );
}
