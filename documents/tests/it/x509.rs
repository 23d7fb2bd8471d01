//! Certificates, made here and judged by OpenSSL.

use documents::x509::{
    self, AssembleError, Issuer, PathError, Profile, Spec, SpecError, prepare, subject, subject_public_key,
    verify_issued_by,
};
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::clock::UnixMillis;

use crate::support::{Bench, Holder, Key, NOT_BEFORE, kind_for, serial, tls_server};

/// The day of the tests, as `openssl verify` takes it.
const AT: &str = "-attime 1800000000";

/// Options by algorithm. SM2 certificates are signed over Z with the default id (GB/T 20518; SEMANTICS 6.3),
/// which OpenSSL 3.0 applies to the last certificate only; for the others the root's signature over itself is
/// checked too.
fn options(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Sm2Sm3E | Algorithm::Sm2Sm3 => "-vfyopt distid:1234567812345678",
        _ => "-check_ss_sig",
    }
}

#[test]
fn openssl_follows_the_path_for_every_algorithm() {
    for algorithm in Algorithm::ALL {
        let root = Holder::root(algorithm);
        let signer = root.signer(algorithm);
        let bench = Bench::new();
        bench.write_pem("ca.pem", &root.certificate);
        bench.write_pem("signer.pem", &signer.certificate);
        let options = options(algorithm);
        bench
            .openssl(&format!(
                "verify {AT} {options} -x509_strict -CAfile ca.pem signer.pem"
            ))
            .accepted();
        assert_eq!(
            verify_issued_by(&signer.certificate, &root.certificate),
            Ok(()),
            "{algorithm}"
        );
        assert_eq!(
            verify_issued_by(&root.certificate, &root.certificate),
            Ok(()),
            "{algorithm}"
        );
    }
}

#[test]
fn a_signer_may_sign_and_not_deny_it_and_nothing_else() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let signer = root.signer(Algorithm::EcdsaP384Sha384);
    let bench = Bench::new();
    bench.write_pem("signer.pem", &signer.certificate);
    let shown = bench
        .openssl("x509 -in signer.pem -noout -text -nameopt RFC2253,-esc_msb,utf8")
        .text;
    for expected in [
        "Version: 3 (0x2)",
        "40:40:40:40:40:40:40:40:40:40:53:69:67:6e:65:72",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: CN=Root,O=朱砂,C=CN",
        "Not Before: Jan  1 00:00:00 2020 GMT",
        "Subject: CN=Signer,O=朱砂,C=CN",
        "NIST CURVE: P-384",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Key Usage: critical\n                Digital Signature, Non Repudiation\n",
        "X509v3 Subject Key Identifier:",
        "X509v3 Authority Key Identifier:",
    ] {
        assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
    }
    assert!(!shown.contains("Extended Key Usage"), "{shown}");
}

#[test]
fn an_sm2_certificate_follows_gbt_20518() {
    let root = Holder::root(Algorithm::Sm2Sm3E);
    let bench = Bench::new();
    bench.write_pem("ca.pem", &root.certificate);
    bench.write_pem("signer.pem", &root.signer(Algorithm::Sm2Sm3E).certificate);
    let shown = bench.openssl("x509 -in signer.pem -noout -text").text;
    assert!(shown.contains("Signature Algorithm: SM2-with-SM3"), "{shown}");
    assert!(shown.contains("ASN1 OID: SM2"), "{shown}");
    bench
        .openssl(&format!(
            "verify {AT} -vfyopt distid:another -CAfile ca.pem signer.pem"
        ))
        .refused("signature failure");
}

#[test]
fn key_identifiers_are_160_bits_of_sha_256() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let bench = Bench::new();
    bench.write_pem("ca.pem", &root.certificate);
    // The bits of a P-256 key are the last 65 bytes of its SubjectPublicKeyInfo.
    let public = root.key.public();
    let expected: Vec<_> = Hash::Sha256.digest(&public[public.len() - 65..])[..20]
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect();
    let shown = bench
        .openssl("x509 -in ca.pem -noout -ext subjectKeyIdentifier,authorityKeyIdentifier")
        .text;
    assert_eq!(shown.matches(&expected.join(":")).count(), 2, "{shown}");
}

#[test]
fn a_tls_server_is_found_under_its_names_and_no_others() {
    let root = Holder::root_for(Algorithm::EcdsaP256Sha256, Profile::TlsRoot);
    let server = root.issue("server", Algorithm::EcdsaP256Sha256, tls_server());
    let bench = Bench::new();
    bench.write_pem("ca.pem", &root.certificate);
    bench.write_pem("server.pem", &server.certificate);
    let verify = format!("verify {AT} -x509_strict -purpose sslserver -CAfile ca.pem");
    bench
        .openssl(&format!("{verify} -verify_hostname localhost server.pem"))
        .accepted();
    bench
        .openssl(&format!("{verify} -verify_ip 127.0.0.1 server.pem"))
        .accepted();
    bench
        .openssl(&format!("{verify} -verify_hostname example.com server.pem"))
        .refused("hostname mismatch");
}

#[test]
fn a_server_without_a_subject_has_a_critical_alternative_name() {
    let root = Holder::root_for(Algorithm::EcdsaP256Sha256, Profile::TlsRoot);
    let spec = root.spec("nobody", &Key::signer(kind_for(root.algorithm)), tls_server());
    let nobody = Spec {
        subject: x509::NameParts::default().try_into().unwrap(),
        ..spec
    };
    let bench = Bench::new();
    bench.write_pem("ca.pem", &root.certificate);
    bench.write_pem("server.pem", &root.certify(&nobody));
    bench
        .openssl(&format!("verify {AT} -x509_strict -CAfile ca.pem server.pem"))
        .accepted();
    let shown = bench
        .openssl("x509 -in server.pem -noout -ext subjectAltName")
        .text;
    assert!(shown.contains("Alternative Name: critical"), "{shown}");
}

#[test]
fn we_issue_under_an_authority_that_openssl_made() {
    let mut root = Holder::root(Algorithm::EcdsaP256Sha256);
    let bench = Bench::new();
    bench.write("key.der", &root.key.private());
    let make =
        "req -x509 -new -key key.der -keyform DER -subj /O=Foreign/CN=Authority -days 7300 -outform DER";
    bench.openssl(&format!("{make} -out ca.der")).accepted();
    root.certificate = bench.read("ca.der");
    let signer = root.signer(Algorithm::EcdsaP256Sha256);
    assert_eq!(verify_issued_by(&signer.certificate, &root.certificate), Ok(()));
    bench.write_pem("ca.pem", &root.certificate);
    bench.write_pem("signer.pem", &signer.certificate);
    // The authority's key identifier is of OpenSSL's making (SHA-1), and ours must name it so.
    bench.openssl("verify -CAfile ca.pem signer.pem").accepted();
    // A critical extension nobody knows.
    bench
        .openssl(&format!("{make} -out ca.der -addext 1.2.3.4=critical,DER:0500"))
        .accepted();
    let verdict = verify_issued_by(&signer.certificate, &bench.read("ca.der"));
    assert!(matches!(verdict, Err(PathError::CriticalExtension(oid)) if oid.to_string() == "1.2.3.4"));
}

#[test]
fn an_authority_needs_both_the_constraint_and_the_usage() {
    let mut root = Holder::root(Algorithm::EcdsaP256Sha256);
    let bench = Bench::new();
    bench.write("key.der", &root.key.private());
    bench.write("config", b"[req]\ndistinguished_name=dn\n[dn]\n");
    let make = "req -x509 -new -config config -key key.der -keyform DER -subj /CN=Authority -outform DER \
                -out ca.der";
    let mut signer = None;
    for (constraints, usage, expected) in [
        ("CA:TRUE", "keyCertSign,cRLSign", Ok(())),
        ("CA:FALSE", "keyCertSign", Err(PathError::NotAnAuthority)),
        ("CA:TRUE", "digitalSignature", Err(PathError::NotAnAuthority)),
    ] {
        let extensions = format!("-addext basicConstraints={constraints} -addext keyUsage={usage}");
        bench.openssl(&format!("{make} {extensions}")).accepted();
        root.certificate = bench.read("ca.der");
        // The honest authority comes first: under the others we would not issue.
        let signer = signer.get_or_insert_with(|| root.signer(Algorithm::EcdsaP256Sha256));
        assert_eq!(
            verify_issued_by(&signer.certificate, &root.certificate),
            expected,
            "{constraints} {usage}"
        );
    }
}

#[test]
fn two_extensions_of_a_kind_are_refused() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let mut twice = root.certificate.clone();
    // The subject key identifier (2.5.29.14) becomes a second key usage (2.5.29.15).
    let at = twice
        .windows(3)
        .position(|oid| oid == [0x55, 0x1d, 0x0e])
        .unwrap();
    twice[at + 2] = 0x0f;
    let verdict = verify_issued_by(&root.certificate, &twice).unwrap_err();
    assert_eq!(verdict.to_string(), "a certificate with two extensions 2.5.29.15");
}

#[test]
fn times_after_2049_are_generalized() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let spec = root.spec("Root", &root.key, Profile::Root);
    let certificate = root.certify(&Spec {
        issuer: Issuer::Itself,
        not_after: UnixMillis(2_524_608_000_999),
        ..spec
    });
    let bench = Bench::new();
    bench.write("signer.der", &certificate);
    let shown = bench.openssl("asn1parse -inform DER -in signer.der").text;
    assert!(shown.contains("UTCTIME           :200101000000Z"), "{shown}");
    assert!(shown.contains("GENERALIZEDTIME   :20500101000000Z"), "{shown}");
    assert_eq!(
        x509::validity(&certificate).unwrap().1,
        UnixMillis(2_524_608_000_000)
    );
}

#[test]
fn what_was_certified_reads_back() {
    let root = Holder::root(Algorithm::Ed25519);
    let signer = root.signer(Algorithm::EcdsaP256Sha256);
    assert_eq!(
        subject_public_key(&signer.certificate).unwrap(),
        signer.key.public()
    );
    assert_eq!(subject(&signer.certificate).unwrap(), "CN=Signer,O=朱砂,C=CN");
    assert_eq!(x509::validity(&signer.certificate).unwrap().0, NOT_BEFORE);
    assert_eq!(
        x509::serial_number(&signer.certificate).unwrap(),
        serial("Signer")
    );
    let id = x509::issuer_and_serial(&signer.certificate).unwrap();
    assert!(id.ends_with(b"\x02\x10@@@@@@@@@@Signer"), "{id:?}");
}

#[test]
fn what_cannot_be_certified_is_refused_with_the_reason() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let refused = |change: fn(&mut Spec)| {
        let mut spec = root.spec("Signer", &root.key, Profile::Signer);
        change(&mut spec);
        prepare(&spec, Algorithm::EcdsaP256Sha256).unwrap_err()
    };
    assert_eq!(refused(|spec| spec.serial = vec![0]), SpecError::Serial);
    assert_eq!(
        refused(|spec| spec.not_after = UnixMillis(0)),
        SpecError::Validity
    );
    let endless = refused(|spec| {
        spec.issuer = Issuer::Itself;
        spec.not_after = UnixMillis(u64::MAX);
    });
    assert!(matches!(endless, SpecError::Encoding(_)));
    let key = refused(|spec| spec.subject_public_key = vec![0x30, 0]);
    assert!(matches!(key, SpecError::SubjectKey(_)));
    let issuer = refused(|spec| spec.issuer = Issuer::Holder(vec![0x30, 0]));
    assert!(matches!(issuer, SpecError::IssuerCertificate(_)));
    let nameless = refused(|spec| {
        spec.profile = Profile::TlsServer {
            dns: vec![],
            ips: vec![],
        }
    });
    assert_eq!(nameless, SpecError::NoServerName);
    let chinese = refused(|spec| {
        spec.profile = Profile::TlsServer {
            dns: vec!["例子".into()],
            ips: vec![],
        }
    });
    assert_eq!(chinese, SpecError::DnsName("例子".into()));
    let spec = root.spec("Signer", &root.key, Profile::Signer);
    let other = prepare(&spec, Algorithm::Ed25519).unwrap_err();
    assert_eq!(other, SpecError::IssuerAlgorithm(Algorithm::Ed25519));
}

#[test]
fn no_certificate_leaves_with_a_signature_that_does_not_verify() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let spec = root.spec("Signer", &root.key, Profile::Signer);
    let other = Key::signer(kind_for(root.algorithm));
    let prepared = prepare(&spec, root.algorithm).unwrap();
    assert_eq!(root.algorithm.input(), InputKind::Digest(Hash::Sha256));
    assert_eq!(*prepared.to_sign(), *Hash::Sha256.digest(prepared.tbs()));
    let signature = other.sign(root.algorithm, prepared.to_sign());
    assert_eq!(
        prepared.assemble(&signature),
        Err(AssembleError::Signature(root.algorithm))
    );
}

#[test]
fn a_certificate_is_not_accepted_under_another_issuer() {
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let impostor = Holder::root(Algorithm::EcdsaP256Sha256);
    let other_kind = Holder::root(Algorithm::EcdsaP384Sha384);
    let signer = root.issue("Signer", Algorithm::EcdsaP256Sha256, Profile::Root);
    let below = signer.issue("Below", Algorithm::EcdsaP256Sha256, Profile::Signer);
    let signer = signer.recertified(&root, "Signer", Profile::Signer, |_| {});
    let verdict = |issuer: &Holder| verify_issued_by(&signer.certificate, &issuer.certificate);
    assert_eq!(verdict(&impostor), Err(PathError::BadSignature));
    assert_eq!(verdict(&other_kind), Err(PathError::UnsupportedAlgorithm));
    assert_eq!(verdict(&below), Err(PathError::IssuerName));
    let by_signer = verify_issued_by(&below.certificate, &signer.certificate);
    assert_eq!(by_signer, Err(PathError::NotAnAuthority));
}
