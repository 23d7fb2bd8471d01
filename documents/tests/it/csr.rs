//! Certificate requests: by OpenSSL, hostile ones among them, and of our own.

use documents::csr::{self, ChainError, Request, RequestError, check_chain};
use documents::x509::{KeyError, NameError, Profile, SignatureError};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use crate::support::{Bench, Holder, Key, NOW, kind_for, name};

const CONFIG: &str = "[req]\ndistinguished_name=dn\nutf8=yes\nstring_mask=utf8only\n[dn]\n";

/// A bench with OpenSSL's own keys.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("config", CONFIG.as_bytes());
    bench
        .openssl("ecparam -name prime256v1 -genkey -noout -out p256.pem")
        .accepted();
    bench
}

/// What we make of a request that OpenSSL made. Words of the subject are separated by `~`.
fn request(bench: &Bench, key: &str, subject: &str, options: &str) -> Result<Request, RequestError> {
    let make = format!("req -new -config config -key {key} -outform DER -out request.der {options} -subj");
    let arguments: Vec<_> = make.split_whitespace().chain([subject]).collect();
    bench.openssl_words(&arguments).accepted();
    Request::parse(&bench.read("request.der"))
}

#[test]
fn sound_requests_of_every_key() {
    let bench = bench();
    for (make, options) in [
        ("ecparam -name prime256v1 -genkey -noout", ""),
        ("ecparam -name secp384r1 -genkey -noout", "-sha384"),
        ("genrsa 2048", ""),
        ("genpkey -algorithm ed25519", ""),
        (
            "ecparam -name SM2 -genkey -noout",
            "-sm3 -sigopt distid:1234567812345678",
        ),
    ] {
        bench
            .openssl(
                &format!("{make} -out key.pem")
                    .replace("genrsa 2048 -out key.pem", "genrsa -out key.pem 2048"),
            )
            .accepted();
        let names = "-addext subjectAltName=DNS:Example.com,DNS:*.example.com,IP:192.0.2.1,IP:2001:db8::1,email:a@example.com";
        let read = request(
            &bench,
            "key.pem",
            "/C=CN/O=北京示例公司/CN=测试",
            &format!(
                "{options} {names} -addext extendedKeyUsage=clientAuth -addext basicConstraints=CA:FALSE"
            ),
        )
        .unwrap();
        assert_eq!(read.subject.to_string(), "CN=测试,O=北京示例公司,C=CN");
        assert_eq!(read.dns, ["example.com", "*.example.com"]);
        assert_eq!(read.ips.len(), 2);
        assert_eq!((read.mail.len(), read.purposes.len()), (1, 1));
        bench
            .openssl("pkey -in key.pem -pubout -outform DER -out public.der")
            .accepted();
        assert_eq!(read.public_key, bench.read("public.der"));
    }
}

#[test]
fn weak_keys_are_refused() {
    let bench = bench();
    let refused = |make: &str, options: &str| {
        bench.openssl(make).accepted();
        match request(&bench, "key.pem", "/CN=a", options) {
            Err(RequestError::Key(error)) => error,
            other => panic!("{make}: {other:?}"),
        }
    };
    assert_eq!(
        refused("genrsa -out key.pem 1024", ""),
        KeyError::RsaTooShort(1024)
    );
    assert_eq!(refused("genrsa -out key.pem 2056", ""), KeyError::RsaLength(2056));
    assert_eq!(refused("genrsa -3 -out key.pem 2048", ""), KeyError::RsaExponent);
    for curve in [
        "secp192k1",
        "secp224r1",
        "secp256k1",
        "brainpoolP256r1",
        "secp521r1",
        "sect233k1",
    ] {
        let error = refused(&format!("ecparam -name {curve} -genkey -noout -out key.pem"), "");
        assert!(matches!(error, KeyError::Curve(_)), "{curve}: {error:?}");
    }
    let explicit = "ecparam -name prime256v1 -genkey -noout -param_enc explicit -out key.pem";
    assert_eq!(refused(explicit, ""), KeyError::ExplicitCurve);
    let error = refused("genpkey -algorithm ed448 -out key.pem", "");
    assert!(matches!(error, KeyError::Algorithm(_)), "{error:?}");
}

#[test]
fn whoever_does_not_hold_the_key_gets_nothing() {
    let bench = bench();
    assert!(request(&bench, "p256.pem", "/CN=a", "").is_ok());
    let sound = bench.read("request.der");
    for bit in 0..sound.len() * 8 {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Request::parse(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..sound.len() {
        assert!(Request::parse(&sound[..length]).is_err(), "{length} bytes");
    }
    let mut signature = sound.clone();
    let last = signature.len() - 1;
    signature[last] ^= 1;
    let bad = RequestError::Possession(SignatureError::Bad);
    assert_eq!(Request::parse(&signature), Err(bad.clone()));
    bench
        .openssl("ecparam -name SM2 -genkey -noout -out key.pem")
        .accepted();
    let other_id = request(&bench, "key.pem", "/CN=a", "-sm3 -sigopt distid:somebody");
    assert_eq!(other_id, Err(bad));
    assert_eq!(Request::parse(&vec![0x30; 20_000]), Err(RequestError::TooLong));
}

#[test]
fn names_that_deceive_or_break_limits() {
    let bench = bench();
    let refused = |subject: &str| match request(&bench, "p256.pem", subject, "") {
        Err(RequestError::Subject(error)) => error,
        other => panic!("{subject}: {other:?}"),
    };
    for deceptive in [
        "/CN=p\u{430}ypal",
        "/CN=bank\u{202e}moc",
        "/O=a\u{200b}b",
        "/CN=a\u{e000}",
        "/CN=\u{391}BC Ltd",
    ] {
        assert!(
            matches!(refused(deceptive), NameError::Deceptive(_)),
            "{deceptive:?}"
        );
    }
    // `request` goes through OpenSSL, which keeps its own limits; those are lifted by raw DER below.
    assert!(matches!(refused("/C=cn/CN=a"), NameError::Country(_)));
    assert!(matches!(refused("/CN= "), NameError::Text(_)));
    let many: String = (0..17).map(|n| format!("/OU={n}")).collect();
    assert_eq!(refused(&many), NameError::TooManyAttributes);
    assert_eq!(request(&bench, "p256.pem", "/", ""), Err(RequestError::NoSubject));
    // A NUL in the middle of a name, and one of 65 characters: a request of ours, changed before it is signed.
    let key = Key::signer(kind_for(Algorithm::EcdsaP256Sha256));
    let forged = |from: &[u8], to: &[u8]| {
        let prepared =
            csr::prepare(&name("bank.example"), &key.public(), Algorithm::EcdsaP256Sha256).unwrap();
        let signature = key.sign(Algorithm::EcdsaP256Sha256, prepared.to_sign());
        let mut der = prepared.assemble(&signature).unwrap();
        let at = der.windows(from.len()).position(|window| window == from).unwrap();
        der[at..at + to.len()].copy_from_slice(to);
        Request::parse(&der).unwrap_err()
    };
    let nul = forged(b"bank.example", b"bank\0example");
    assert!(
        matches!(nul, RequestError::Subject(NameError::Deceptive(_))),
        "{nul:?}"
    );
    // A BMPString, in which every second byte is a NUL to others.
    let wide = forged(b"\x0c\x0cbank", b"\x1e\x0cbank");
    assert!(
        matches!(
            wide,
            RequestError::Subject(NameError::Text(_)) | RequestError::Malformed(_)
        ),
        "{wide:?}"
    );
}

#[test]
fn what_is_not_granted_on_request() {
    let bench = bench();
    let refused =
        |extension: &str| request(&bench, "p256.pem", "/CN=a", &format!("-addext {extension}")).unwrap_err();
    for authority in [
        "basicConstraints=CA:TRUE",
        "keyUsage=keyCertSign",
        "keyUsage=digitalSignature,cRLSign",
    ] {
        assert_eq!(refused(authority), RequestError::Authority, "{authority}");
    }
    for purpose in [
        "timeStamping",
        "OCSPSigning",
        "anyExtendedKeyUsage",
        "codeSigning",
    ] {
        let error = refused(&format!("extendedKeyUsage={purpose}"));
        assert!(
            matches!(error, RequestError::ForbiddenPurpose(_)),
            "{purpose}: {error:?}"
        );
    }
    for extension in [
        "nameConstraints=permitted;DNS:a",
        "certificatePolicies=1.2.3",
        "1.2.3.4=DER:0500",
    ] {
        let error = refused(extension);
        assert!(
            matches!(error, RequestError::ForbiddenExtension(_)),
            "{extension}: {error:?}"
        );
    }
    for kind in ["URI:http://a", "otherName:1.2.3;UTF8:a", "RID:1.2.3"] {
        let error = refused(&format!("subjectAltName={kind}"));
        assert_eq!(error, RequestError::AlternativeNames, "{kind}");
    }
    for wrong in [
        "DNS:a_b.example",
        "DNS:*",
        "DNS:*.com.*",
        "DNS:-a.example",
        "DNS:a..example",
        "DNS:1.2.3.4",
        "DNS:xn--a",
        "email:a",
        "email:a@*.example",
    ] {
        let error = refused(&format!("subjectAltName={wrong}"));
        assert!(
            matches!(error, RequestError::AlternativeName(_)),
            "{wrong}: {error:?}"
        );
    }
    // пaypal with a Cyrillic first letter, and an honest name in one script.
    let mixed = refused("subjectAltName=DNS:xn--aypal-uye.com");
    assert!(
        matches!(mixed, RequestError::AlternativeName(NameError::Deceptive(_))),
        "{mixed:?}"
    );
    let honest = request(
        &bench,
        "p256.pem",
        "/CN=a",
        "-addext subjectAltName=DNS:xn--fsqu00a.xn--0zwm56d",
    );
    assert_eq!(honest.unwrap().dns, ["xn--fsqu00a.xn--0zwm56d"]);
}

#[test]
fn our_own_requests_and_what_comes_back() {
    for algorithm in Algorithm::ALL {
        let key = Key::signer(kind_for(algorithm));
        let prepared = csr::prepare(&name("Subject"), &key.public(), algorithm).unwrap();
        let signature = key.sign(algorithm, prepared.to_sign());
        let der = prepared.assemble(&signature).unwrap();
        let bench = Bench::new();
        bench.write("request.pem", csr::to_pem(&der).as_bytes());
        let sm2 = if algorithm.name().starts_with("sm2") {
            "-vfyopt distid:1234567812345678"
        } else {
            ""
        };
        let said = bench.openssl(&format!("req -verify -in request.pem -noout {sm2}"));
        assert!(
            said.ok && said.text.contains("verify OK"),
            "{algorithm}: {}",
            said.text
        );
        let read = Request::parse(&der).unwrap();
        assert_eq!(read.public_key, key.public());
        // Another authority certifies it.
        let root = Holder::root(Algorithm::EcdsaP384Sha384);
        let issuing = root.issue("Issuing", Algorithm::EcdsaP256Sha256, Profile::Issuing);
        let certificate = issuing.certify(&issuing.spec("Subject", &key, Profile::Signer));
        let chain = [&certificate, &issuing.certificate, &root.certificate];
        let imported = check_chain(&der, &chain, NOW).unwrap();
        assert_eq!((imported.subject, imported.reaches_root), (name("Subject"), true));
        assert!(!check_chain(&der, &chain[..2], NOW).unwrap().reaches_root);
        let swapped = check_chain(&der, &[chain[0], chain[2]], NOW);
        assert!(matches!(swapped, Err(ChainError::Link(1, _))));
        assert_eq!(check_chain(&der, &chain[1..], NOW), Err(ChainError::OtherKey));
        assert_eq!(
            check_chain(&der, &chain, UnixMillis(0)),
            Err(ChainError::NotValidNow(1))
        );
        assert_eq!(check_chain(&der, &chain[..0], NOW), Err(ChainError::Count(0)));
    }
}
