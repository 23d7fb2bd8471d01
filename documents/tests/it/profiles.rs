//! Every profile in every kind of key, and the lint that stands before the issuer's key.

use documents::lint::{self, Finding};
use documents::x509::{self, Profile, Spec, SpecError, Terms, prepare, verify_issued_by};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;

use crate::support::{Bench, Holder, Key, NOT_AFTER, kind_for, tls_server};

const P256: Algorithm = Algorithm::EcdsaP256Sha256;
const AT: &str = "-attime 1800000000";

pub(crate) fn terms() -> Terms {
    Terms {
        policies: vec![ObjectIdentifier::new_unwrap("1.3.6.1.4.1.55555.1")],
        crl: vec!["http://pki.example/crl/issuing.crl".into()],
        delta_crl: vec!["http://pki.example/crl/issuing-delta.crl".into()],
        ocsp: vec!["http://pki.example/ocsp".into()],
        issuer_certificate: vec!["http://pki.example/issuing.cer".into()],
    }
}

/// Root, intermediate and issuing, all with the same algorithm.
fn hierarchy(algorithm: Algorithm) -> [Holder; 3] {
    let root = Holder::root(algorithm);
    let intermediate = Profile::Intermediate { authorities_below: 1 };
    let middle = root.issue("Intermediate", algorithm, intermediate);
    let issuing = middle.issue("Issuing", algorithm, Profile::Issuing);
    [root, middle, issuing]
}

#[test]
fn openssl_accepts_every_profile_for_its_purpose() {
    for algorithm in [P256, Algorithm::RsaPkcs1Sha256, Algorithm::Sm2Sm3E] {
        let [root, middle, issuing] = hierarchy(algorithm);
        let bench = Bench::new();
        bench.write_pem("root.pem", &root.certificate);
        let between = x509::to_pem(&middle.certificate) + &x509::to_pem(&issuing.certificate);
        bench.write("between.pem", between.as_bytes());
        for (profile, purpose) in [
            (Profile::Signer, "smimesign"),
            (Profile::Seal, "smimesign"),
            (Profile::SealMaker, "smimesign"),
            (Profile::Agent, "smimesign"),
            (Profile::Agent, "sslclient"),
            (Profile::TimeStamping, "timestampsign"),
            (Profile::OcspResponder, "ocsphelper"),
            (tls_server(), "sslserver"),
        ] {
            let spec = Spec {
                terms: terms(),
                ..issuing.spec("Subject", &Key::signer(kind_for(algorithm)), profile)
            };
            let certificate = issuing.certify(&spec);
            assert_eq!(verify_issued_by(&certificate, &issuing.certificate), Ok(()));
            bench.write_pem("subject.pem", &certificate);
            let verify = format!("verify {AT} -x509_strict -purpose {purpose} -CAfile root.pem");
            let sm2 = if algorithm == Algorithm::Sm2Sm3E {
                "-vfyopt distid:1234567812345678"
            } else {
                ""
            };
            // OpenSSL 3.0 hands the user id to the last certificate of the path only, so an SM2 path is
            // judged one step at a time.
            if algorithm == Algorithm::Sm2Sm3E {
                bench.write_pem("issuing.pem", &issuing.certificate);
                let step = "-partial_chain -trusted issuing.pem";
                let verify = format!("verify {AT} -x509_strict -purpose {purpose} {sm2} {step}");
                bench.openssl(&format!("{verify} subject.pem")).accepted();
            } else {
                bench
                    .openssl(&format!("{verify} -untrusted between.pem subject.pem"))
                    .accepted();
            }
        }
    }
}

#[test]
fn what_the_issuer_says_of_itself_is_in_the_certificate() {
    let root = Holder::root(P256);
    let spec = Spec {
        terms: terms(),
        ..root.spec("Responder", &Key::signer(kind_for(P256)), Profile::OcspResponder)
    };
    let bench = Bench::new();
    bench.write_pem("subject.pem", &root.certify(&spec));
    let shown = bench.openssl("x509 -in subject.pem -noout -text").text;
    for expected in [
        "Policy: 1.3.6.1.4.1.55555.1",
        "URI:http://pki.example/crl/issuing.crl",
        "X509v3 Freshest CRL",
        "URI:http://pki.example/crl/issuing-delta.crl",
        "OCSP - URI:http://pki.example/ocsp",
        "CA Issuers - URI:http://pki.example/issuing.cer",
        "X509v3 Extended Key Usage: \n                OCSP Signing",
        "OCSP No Check",
    ] {
        assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
    }
}

#[test]
fn no_certificate_outlives_its_issuer() {
    let root = Holder::root(P256);
    let key = Key::signer(kind_for(P256));
    let spec = root.spec("Signer", &key, Profile::Signer);
    let later = Spec {
        not_after: UnixMillis(NOT_AFTER.0 + 1000),
        ..spec.clone()
    };
    assert_eq!(prepare(&later, P256).unwrap_err(), SpecError::BeyondIssuer);
    let earlier = Spec {
        not_before: UnixMillis(spec.not_before.0 - 1000),
        ..spec.clone()
    };
    assert_eq!(prepare(&earlier, P256).unwrap_err(), SpecError::BeyondIssuer);
    assert!(prepare(&spec, P256).is_ok(), "as long as the issuer is fine");
}

/// What the lint finds in a specification that is otherwise sound.
fn found(issuer: &Holder, profile: Profile, change: impl FnOnce(&mut Spec)) -> Vec<Finding> {
    let mut spec = issuer.spec("Subject", &Key::signer(kind_for(P256)), profile);
    change(&mut spec);
    match prepare(&spec, P256) {
        Err(SpecError::Lint(findings)) => findings.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_lint_never_reaches_the_key() {
    let [root, middle, issuing] = hierarchy(P256);
    let short = found(&issuing, Profile::Signer, |spec| spec.serial = vec![0x7f; 7]);
    assert_eq!(short, [Finding::Serial]);
    let below_issuing = found(&issuing, Profile::Issuing, |_| {});
    assert_eq!(below_issuing, [Finding::PathLength]);
    let too_deep = Profile::Intermediate { authorities_below: 1 };
    assert_eq!(found(&middle, too_deep, |_| {}), [Finding::PathLength]);
    assert_eq!(found(&middle, Profile::Root, |_| {}), [Finding::PathLength]);
    let signer = root.signer(P256);
    let by_signer = found(&signer, Profile::Signer, |_| {});
    assert_eq!(by_signer, [Finding::IssuerNotAllowed]);
    let nameless = found(&root, Profile::Signer, |spec| {
        spec.subject = x509::NameParts::default().try_into().unwrap();
    });
    assert_eq!(nameless, [Finding::NoSubject]);
    for dns in ["a_b.example", "1.2.3.4", "xn--aypal-uye.com"] {
        let server = Profile::TlsServer {
            dns: vec![dns.into()],
            ips: Vec::new(),
        };
        let findings = found(&root, server, |_| {});
        assert!(
            matches!(findings[..], [Finding::AlternativeName(_)]),
            "{findings:?}"
        );
    }
    for url in [
        "https://pki.example/a.crl",
        "ldap://x",
        "http://",
        "http:///a",
        "http://a b",
    ] {
        let unreachable = found(&root, Profile::Signer, |spec| spec.terms.crl = vec![url.into()]);
        assert_eq!(unreachable, [Finding::Location(url.into())]);
    }
}

/// Replaces the one place where `from` stands.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at: Vec<_> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(from))
        .collect();
    assert_eq!(at.len(), 1, "{from:02x?} is there {} times", at.len());
    [&bytes[..at[0]], to, &bytes[at[0] + from.len()..]].concat()
}

#[test]
fn a_signed_part_that_was_tampered_with_does_not_pass() {
    let root = Holder::root(P256);
    let key = Key::signer(kind_for(P256));
    let spec = root.spec("Signer", &key, Profile::Signer);
    let sound = prepare(&spec, P256).unwrap().tbs().to_vec();
    let lint = |tbs: Vec<u8>| match lint::certificate(tbs, Some(&root.certificate)) {
        Ok(linted) => panic!("passed: {linted:02x?}"),
        Err(findings) => findings.0,
    };
    assert!(lint::certificate(sound.clone(), Some(&root.certificate)).is_ok());
    // Criticality: TRUE becomes FALSE, which is then written out.
    let usage = [0x55, 0x1d, 0x0f, 1, 1, 0xff];
    let defaulted = replaced(&sound, &usage, &[0x55, 0x1d, 0x0f, 1, 1, 0]);
    assert!(matches!(lint(defaulted)[..], [Finding::NotDer(_)]));
    // A BOOLEAN that is not FF.
    let odd = replaced(&sound, &usage, &[0x55, 0x1d, 0x0f, 1, 1, 1]);
    assert!(matches!(lint(odd)[..], [Finding::NotDer(_)]));
    // digitalSignature and nonRepudiation become keyCertSign.
    let certifies = replaced(&sound, &[3, 2, 6, 0xc0], &[3, 2, 2, 4]);
    assert_eq!(lint(certifies), [Finding::Usage]);
    // The subject key identifier becomes a second key usage.
    let twice = replaced(&sound, &[0x55, 0x1d, 0x0e], &[0x55, 0x1d, 0x0f]);
    let found = lint(twice);
    assert!(
        found.iter().any(|f| matches!(f, Finding::RepeatedExtension(_))),
        "{found:?}"
    );
    // Under another issuer.
    let other = Holder::root(Algorithm::EcdsaP384Sha384);
    let findings = lint::certificate(sound.clone(), Some(&other.certificate)).unwrap_err();
    assert_eq!(findings.0, [Finding::KeyIdentifier]);
    for length in 0..sound.len() {
        assert!(
            matches!(lint(sound[..length].to_vec())[..], [Finding::NotDer(_)]),
            "{length} bytes"
        );
    }
}
