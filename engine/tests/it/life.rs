//! The life of certificates from outside: requests, renewals, other authorities, ends; subjects and who approves them.
//! OpenSSL makes what comes from elsewhere, and judges what comes from us.

mod subjects;

use std::path::Path;
use std::process::Command;

use documents::x509::{self, Issuer, Name, Profile, Spec, Terms};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::client::{Client, Profile as AppProfile, SignRequest, Transport};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::http_proof::{self, Parts, SignKey};
use protocol::message::{CredentialInfo, ItemOutcome};
use protocol::verify::SM2_DEFAULT_USER_ID;
use serde_json::{Value, json};

use crate::raw::Http1;
use crate::support::{
    Engine, Ran, Setup, block_on, checked, credential, request, run, run_in, sign_one, wait_until,
};

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

fn openssl(engine: &Engine, line: &str) -> Ran {
    openssl_in(folder(engine), &line.split_whitespace().collect::<Vec<_>>())
}

fn openssl_in(folder: &Path, words: &[&str]) -> Ran {
    run(Command::new("openssl").current_dir(folder).args(words))
}

/// How OpenSSL makes a key of a kind, and what SM2 needs besides.
pub(crate) const KINDS: [(&str, &str, &str); 4] = [
    ("p256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256", ""),
    (
        "p384",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        "-sha384",
    ),
    ("rsa2048", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", ""),
    ("sm2", "-algorithm SM2", "-sm3 -sigopt distid:1234567812345678"),
];

/// Makes a key and a request for it: `NAME.key` and `NAME.csr`.
pub(crate) fn make_request(
    engine: &Engine,
    name: &str,
    (key, sign): (&str, &str),
    subject: &str,
    more: &[&str],
) -> Ran {
    openssl(engine, &format!("genpkey {key} -out {name}.key")).ok();
    let (key, out) = (format!("{name}.key"), format!("{name}.csr"));
    let mut words = vec![
        "req", "-new", "-utf8", "-key", &key, "-subj", subject, "-out", &out,
    ];
    words.extend(sign.split_whitespace());
    words.extend(more);
    openssl_in(folder(engine), &words)
}

const ENTERPRISE: &str = "--tenant demo --profile enterprise-signing --subject demo-enterprise";

/// Signs once, over a connection of its own.
fn sign(profile: &AppProfile, wanted: &SignRequest) -> Result<ItemOutcome, Refusal> {
    block_on(async {
        let client = Client::connect(profile, Transport::Quic, 1).await?;
        sign_one(&client, wanted).await
    })
}

/// What is published of a credential of tenant demo.
fn info(engine: &Engine, id: &str) -> CredentialInfo {
    block_on(async {
        let client = engine.client(Transport::Https).await;
        credential(&client, id).await
    })
}

/// Judges `NAME.pem`, and the certificates in it after the first, under the development authorities.
fn verify(engine: &Engine, name: &str, more: &str) -> Ran {
    // Only SM2 knows it.
    let distid = if name == "sm2" {
        "-vfyopt distid:1234567812345678"
    } else {
        ""
    };
    let line = format!("verify {distid} -CAfile var/dev/ca.pem -untrusted {name}.pem {more} {name}.pem");
    openssl(engine, &line)
}

#[test]
fn a_key_of_each_kind_is_certified_by_its_request() {
    let engine = Engine::start();
    for (kind, key, sign) in KINDS {
        make_request(&engine, kind, (key, sign), "/C=CN/O=Anybody/CN=anybody", &[]).ok();
        engine.operate(&format!(
            "cert issue {ENTERPRISE} --csr {kind}.csr --out {kind}.pem"
        ));
        verify(&engine, kind, "").ok();
        let shown = openssl(
            &engine,
            &format!("x509 -in {kind}.pem -noout -subject -pubkey -ext keyUsage"),
        )
        .ok();
        assert!(
            shown.contains("CN = Cinnabar Demo Ltd"),
            "whoever is approved: {shown}"
        );
        assert!(!shown.contains("Anybody"), "not what the request says: {shown}");
        let public = openssl(&engine, &format!("pkey -in {kind}.key -pubout")).ok();
        assert!(shown.contains(public.trim()), "{kind}: {shown}");
    }
    // Revoked by its number, which is all there is of a key that is not here.
    let serial = openssl(&engine, "x509 -in p256.pem -noout -serial").ok();
    let serial = serial.trim().trim_start_matches("serial=").to_owned();
    engine.operate(&format!(
        "cert revoke --tenant demo --serial {serial} --reason keyCompromise"
    ));
    let list = "crl -inform DER -in p256.crl -out p256.crl.pem";
    fetch_list(&engine, "dev-p256", "p256.crl");
    openssl(&engine, list).ok();
    let judged = verify(&engine, "p256", "-CRLfile p256.crl.pem -crl_check");
    assert!(
        judged.code != 0 && judged.stderr.contains("certificate revoked"),
        "{judged:?}"
    );
    verify(&engine, "p384", "-CRLfile p256.crl.pem -crl_check").ok();
}

fn fetch_list(engine: &Engine, authority: &str, file: &str) {
    let url = format!("http://{}/crl/{authority}.crl", engine.pki);
    let path = folder(engine).join(file);
    run(Command::new("curl").args(["-sSf", &url, "-o"]).arg(path)).ok();
}

#[test]
fn a_server_is_certified_for_the_names_of_its_request() {
    let engine = Engine::start();
    let names = "subjectAltName=DNS:www.example.com,IP:192.0.2.7";
    make_request(
        &engine,
        "tls",
        (KINDS[0].1, ""),
        "/CN=ignored",
        &["-addext", names],
    )
    .ok();
    engine.operate("cert issue --tenant demo --profile tls --csr tls.csr --out tls.pem");
    verify(
        &engine,
        "tls",
        "-purpose sslserver -verify_hostname www.example.com",
    )
    .ok();
    verify(&engine, "tls", "-purpose sslserver -verify_ip 192.0.2.7").ok();
    let other = verify(&engine, "tls", "-purpose sslserver -verify_hostname example.com");
    assert_ne!(other.code, 0);
    make_request(&engine, "nameless", (KINDS[0].1, ""), "/CN=www.example.com", &[]).ok();
    let refused = issue(&engine, "--tenant demo --profile tls", "nameless");
    refused.refused(2, "certificate_request_refused");
}

fn issue(engine: &Engine, what: &str, name: &str) -> Ran {
    let line = format!("cert issue {what} --csr {name}.csr --out {name}.pem");
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

/// Puts bytes in place of others in a request, which its signature then does not cover any more.
fn forge(engine: &Engine, name: &str, from: &[u8], to: &[u8]) {
    let path = folder(engine).join(format!("{name}.csr"));
    let mut block = pem::parse(std::fs::read(&path).unwrap()).unwrap().into_contents();
    let at = block
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    block[at..at + from.len()].copy_from_slice(to);
    std::fs::write(path, pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", block))).unwrap();
}

#[test]
fn requests_that_must_not_be_certified_are_each_refused_for_their_own_reason() {
    let engine = Engine::start();
    let (p256, subject) = (KINDS[0].1, "/C=CN/O=Example/CN=example");
    let ext = |value: &'static str| ["-addext", value];
    let secp256k1 = "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1";
    let explicit = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit";
    let cases: [(&str, &str, &str, &[&str], &str); 9] = [
        (
            "short",
            "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
            subject,
            &[],
            "1024 bits is too weak",
        ),
        (
            "odd",
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2056",
            subject,
            &[],
            "2056 bits is not certified",
        ),
        ("curve", secp256k1, subject, &[], "1.3.132.0.10"),
        ("explicit", explicit, subject, &[], "not given by its name"),
        (
            "authority",
            p256,
            subject,
            &ext("basicConstraints=critical,CA:TRUE"),
            "cannot ask for an authority",
        ),
        (
            "certsign",
            p256,
            subject,
            &ext("keyUsage=keyCertSign"),
            "cannot ask for an authority",
        ),
        (
            "foreign",
            p256,
            subject,
            &ext("nameConstraints=permitted;DNS:example.com"),
            "2.5.29.30",
        ),
        (
            "stamping",
            p256,
            subject,
            &ext("extendedKeyUsage=timeStamping"),
            "1.3.6.1.5.5.7.3.8",
        ),
        // A Cyrillic letter among Latin ones.
        (
            "homograph",
            p256,
            "/CN=p\u{0430}ypal",
            &[],
            "not written together",
        ),
    ];
    for (name, key, subject, more, word) in cases {
        make_request(&engine, name, (key, ""), subject, more).ok();
        let refused = issue(&engine, ENTERPRISE, name);
        refused.refused(2, "certificate_request_refused");
        assert!(refused.stderr.contains(word), "{name}: {refused:?}");
    }
}

#[test]
fn what_is_forged_or_not_allowed_is_refused_too() {
    let engine = Engine::start();
    let (p256, subject) = (KINDS[0].1, "/C=CN/O=Example/CN=example");
    for (name, from, to, word) in [
        ("unproved", &b"example"[..], &b"exbmple"[..], "signature"),
        ("nul", b"example", b"exam\0le", "invisible"),
        ("bidi", b"example", b"e\xe2\x80\xaemle", "invisible"),
    ] {
        make_request(&engine, name, (p256, ""), subject, &[]).ok();
        forge(&engine, name, from, to);
        let refused = issue(&engine, ENTERPRISE, name);
        refused.refused(2, "certificate_request_refused");
        assert!(refused.stderr.contains(word), "{name}: {refused:?}");
    }
    let path = folder(&engine).join("nonsense.csr");
    std::fs::write(path, "nonsense").unwrap();
    issue(&engine, ENTERPRISE, "nonsense").refused(2, "certificate_request_refused");
    // And what is asked for besides.
    make_request(&engine, "good", (p256, ""), subject, &[]).ok();
    issue(&engine, "--tenant demo --profile nobody", "good").refused(2, "not_found");
    issue(&engine, "--tenant demo --profile issuing", "good").refused(2, "certificate_request_refused");
    issue(&engine, "--tenant demo --profile enterprise-seal", "good").refused(2, "subject_not_approved");
    issue(&engine, &ENTERPRISE.replace("demo-enterprise", "nobody"), "good").refused(2, "not_found");
    issue(
        &engine,
        &ENTERPRISE.replace("enterprise-signing", "agent"),
        "good",
    )
    .refused(2, "certificate_request_refused");
    issue(&engine, ENTERPRISE, "good").ok();
}

#[test]
fn profiles_are_what_the_configuration_says() {
    let engine = Setup::default()
        .config(
            "[[certificate_profile]]\nname = \"enterprise-seal\"\ndays = 90\nkinds = [\"sm2\", \"p256\"]\n\
             policies = [\"1.3.6.1.4.1.32473.7\"]\ncrl = [\"http://crl.example.com/seals.crl\"]\n\
             key_usage = [\"nonRepudiation\"]\ncommon_name = \"Seal of {organization}\"\n\
             [[certificate_profile]]\nname = \"credential\"\nenabled = false\n",
        )
        .start();
    let seal = ENTERPRISE.replace("signing", "seal");
    make_request(&engine, "seal", (KINDS[0].1, ""), "/CN=a", &[]).ok();
    issue(&engine, &seal, "seal").ok();
    let shown = openssl(&engine, "x509 -in seal.pem -noout -text").ok();
    for word in [
        "CN = Seal of Cinnabar Demo Ltd",
        "Policy: 1.3.6.1.4.1.32473.7",
        "URI:http://crl.example.com/seals.crl",
        "Non Repudiation",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(!shown.contains("Digital Signature"), "{shown}");
    openssl(&engine, "x509 -in seal.pem -noout -checkend 7689600").ok();
    assert_ne!(
        openssl(&engine, "x509 -in seal.pem -noout -checkend 7862400").code,
        0,
        "91 days"
    );
    make_request(&engine, "rsa", (KINDS[2].1, ""), "/CN=a", &[]).ok();
    issue(&engine, &seal, "rsa").refused(2, "certificate_request_refused");
    // Nobody certifies plain credentials here.
    engine.operate("key create --tenant demo --kind p256 plain");
    issue_for(&engine, "plain", "credential").refused(2, "certificate_request_refused");
    issue_for(&engine, "plain", "enterprise-seal --subject demo-enterprise").ok();
}

fn issue_for(engine: &Engine, credential: &str, profile: &str) -> Ran {
    let line = format!("cert issue --tenant demo --credential {credential} --profile {profile}");
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

fn sign_file(engine: &Engine, credential: &str, out: &str) -> Ran {
    let line = format!(
        "sign --profile var/dev/app.toml --credential {credential} --file content --format cms --transport https --out {out}"
    );
    engine.cli(&line.split_whitespace().collect::<Vec<_>>())
}

fn cms(engine: &Engine, file: &str, more: &str) -> Ran {
    openssl(
        engine,
        &format!("cms -verify -binary -inform DER -in {file} -content content -out content.out {more}"),
    )
}

fn signer_serial(engine: &Engine, file: &str) -> String {
    cms(
        engine,
        file,
        &format!("-CAfile var/dev/ca.pem -signer {file}.pem"),
    )
    .ok();
    openssl(engine, &format!("x509 -in {file}.pem -noout -serial")).ok()
}

#[test]
fn a_renewed_credential_signs_under_its_new_certificate_and_with_its_new_key() {
    let engine = Engine::start();
    std::fs::write(folder(&engine).join("content"), "content").unwrap();
    let published = || info(&engine, "demo-p256");
    let first = published();
    sign_file(&engine, "demo-p256", "1.p7s").ok();
    let renew =
        |more: &str| engine.operate(&format!("cert renew --tenant demo --credential demo-p256 {more}"));
    renew("--out renewed.pem");
    verify(&engine, "renewed", "").ok();
    let second = published();
    assert_eq!(first.public_key, second.public_key);
    assert_ne!(first.chain[0], second.chain[0]);
    sign_file(&engine, "demo-p256", "2.p7s").ok();
    renew("--new-key");
    let third = published();
    assert_ne!(third.public_key, second.public_key);
    sign_file(&engine, "demo-p256", "3.p7s").ok();
    let serials: std::collections::BTreeSet<_> = ["1.p7s", "2.p7s", "3.p7s"]
        .iter()
        .map(|file| signer_serial(&engine, file))
        .collect();
    assert_eq!(serials.len(), 3);
    let wanted = request("new-key", "text");
    let outcome = sign(&engine.profile(), &wanted).unwrap();
    checked(&wanted, &third, &outcome);
    // It is all still so after a restart; and a retry of an older call brings what was signed then.
    let engine = Setup::default().start_in(engine.stop());
    assert_eq!(info(&engine, "demo-p256").chain, third.chain);
    assert_eq!(sign(&engine.profile(), &wanted).unwrap(), outcome);
    checked(
        &request("after", "after"),
        &third,
        &sign(&engine.profile(), &request("after", "after")).unwrap(),
    );
    // A renewal does not bring back what is suspended or revoked.
    engine.operate("cert suspend --tenant demo --credential demo-p256");
    let refused = engine.cli(&["cert", "renew", "--tenant", "demo", "--credential", "demo-p256"]);
    refused.refused(2, "wrong_state");
    let nobody = engine.cli(&["cert", "renew", "--tenant", "demo", "--credential", "nobody"]);
    nobody.refused(2, "not_found");
    let none = engine.cli(&[
        "cert",
        "renew",
        "--tenant",
        "demo",
        "--credential",
        "demo-p256",
        "--new-key",
    ]);
    none.refused(2, "wrong_state");
}

/// An authority of the test's own.
struct Authority {
    key: SoftKey,
    certificate: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let made = soft::generate(KeyKind::P256).unwrap();
        let key = SoftKey::new(KeyKind::P256, &made.pkcs8, &made.public_key).unwrap();
        let spec = spec(name, Issuer::Itself, &made.public_key, (Profile::Root, 3_600_000));
        let certificate = signed(&key, &spec);
        Self { key, certificate }
    }

    /// Certifies a key for so many milliseconds.
    fn certify(&self, public_key: &[u8], milliseconds: u64) -> Vec<u8> {
        let issuer = Issuer::Holder(self.certificate.clone());
        signed(
            &self.key,
            &spec("External", issuer, public_key, (Profile::Signer, milliseconds)),
        )
    }
}

pub(crate) fn spec(
    name: &str,
    issuer: Issuer,
    public_key: &[u8],
    (profile, milliseconds): (Profile, u64),
) -> Spec {
    let mut serial = vec![0; 16];
    aws_lc_rs::rand::fill(&mut serial).unwrap();
    serial[0] = serial[0] & 0x3f | 0x40;
    let now = clock::wall().0;
    Spec {
        serial,
        issuer,
        subject: format!("CN={name}").parse::<Name>().unwrap(),
        not_before: UnixMillis(now - 60_000),
        not_after: UnixMillis(now + milliseconds),
        subject_public_key: public_key.to_vec(),
        profile,
        terms: Terms::default(),
    }
}

pub(crate) fn signed(key: &SoftKey, spec: &Spec) -> Vec<u8> {
    let prepared = x509::prepare(spec, Algorithm::EcdsaP256Sha256).unwrap();
    let signature = key.sign(
        Algorithm::EcdsaP256Sha256,
        prepared.to_sign(),
        SM2_DEFAULT_USER_ID,
    );
    prepared.assemble(&signature.unwrap()).unwrap()
}

fn import(engine: &Engine, credential: &str, chain: &[&[u8]]) -> Ran {
    let text: String = chain.iter().map(|der| x509::to_pem(der)).collect();
    std::fs::write(folder(engine).join("chain.pem"), text).unwrap();
    engine.cli(&[
        "cert",
        "import",
        "--tenant",
        "demo",
        "--credential",
        credential,
        "--chain",
        "chain.pem",
    ])
}

#[test]
fn another_authority_certifies_a_key_of_the_pool() {
    let engine = Engine::start();
    std::fs::write(folder(&engine).join("content"), "content").unwrap();
    for credential in ["demo-p256", "demo-rsa2048", "demo-ed25519", "demo-sm2"] {
        let line = format!("cert request --tenant demo --credential {credential} --out {credential}.csr");
        engine.operate(&line);
        let line = format!("req -in {credential}.csr -verify -noout -vfyopt distid:1234567812345678");
        let judged = match credential {
            "demo-sm2" => openssl(&engine, &line),
            _ => openssl(&engine, line.trim_end_matches(" -vfyopt distid:1234567812345678")),
        };
        assert!(judged.stderr.contains("verify OK"), "{judged:?}");
    }
    // An authority of two levels, made by OpenSSL.
    let ca = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
    openssl(
        &engine,
        &format!("req -x509 {ca} -subj /CN=Their-root -keyout root.key -out root.pem"),
    )
    .ok();
    let line =
        format!("req {ca} -subj /CN=Their-issuing -keyout ca.key -out ca.csr").replace(" -days 30", "");
    openssl(&engine, &line).ok();
    std::fs::write(
        folder(&engine).join("ca.ext"),
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign,cRLSign\n",
    )
    .unwrap();
    openssl(&engine, "x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -days 20 -extfile ca.ext -out ca.pem").ok();
    openssl(
        &engine,
        "x509 -req -in demo-p256.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 10 -out leaf.pem",
    )
    .ok();
    let parts =
        ["leaf.pem", "ca.pem"].map(|name| std::fs::read_to_string(folder(&engine).join(name)).unwrap());
    std::fs::write(folder(&engine).join("chain.pem"), parts.concat()).unwrap();
    let take = |credential: &str, more: &str| {
        let line = format!("cert import --tenant demo --credential {credential} --chain chain.pem {more}");
        engine.cli(&line.split_whitespace().collect::<Vec<_>>())
    };
    take("demo-p256", "").refused(2, "certificate_chain_refused");
    take("demo-rsa2048", "--root root.pem").refused(2, "certificate_chain_refused");
    take("demo-p256", "--root var/dev/tls-ca.pem").refused(2, "certificate_chain_refused");
    take("demo-p256", "--root root.pem").ok();
    let info = info(&engine, "demo-p256");
    let leaf = pem::parse(&parts[0]).unwrap().into_contents();
    assert_eq!(
        (info.chain.len(), &info.chain[0]),
        (2, &leaf),
        "published, without the root"
    );
    sign_file(&engine, "demo-p256", "external.p7s").ok();
    cms(&engine, "external.p7s", "-CAfile root.pem").ok();
    assert_ne!(cms(&engine, "external.p7s", "-CAfile var/dev/ca.pem").code, 0);
    // Ours cannot renew what is theirs; what is told of it here still counts here.
    let renewed = engine.cli(&["cert", "renew", "--tenant", "demo", "--credential", "demo-p256"]);
    renewed.refused(2, "wrong_state");
    engine.operate("cert suspend --tenant demo --credential demo-p256");
    let refused = sign(&engine.profile(), &request("held", "held")).unwrap_err();
    assert_eq!(refused.code, Code::CredentialDisabled);
    engine.operate("cert resume --tenant demo --credential demo-p256");
    sign(&engine.profile(), &request("held", "held")).unwrap();
}

#[test]
fn a_credential_signs_only_while_its_certificate_is_valid() {
    let engine = Engine::start();
    let info = info(&engine, "demo-p256");
    let authority = Authority::new("Short-lived");
    let leaf = authority.certify(&info.public_key, 3_000);
    import(&engine, "demo-p256", &[&leaf, &authority.certificate]).ok();
    let mut number = 0;
    let mut sign_next = || {
        number += 1;
        sign(&engine.profile(), &request(&format!("call-{number}"), "text"))
    };
    sign_next().unwrap();
    wait_until("the certificate ends", || sign_next().is_err());
    assert_eq!(sign_next().unwrap_err().code, Code::CertificateExpired);
    let cli = |line: &str| engine.cli(&line.split_whitespace().collect::<Vec<_>>());
    let line = "sign --profile var/dev/app.toml --credential demo-p256 --file cinnabar.sig --out x";
    std::fs::write(folder(&engine).join("cinnabar.sig"), "x").unwrap();
    cli(line).refused(2, "certificate_expired");
    // What was signed before is still to be had; an expired certificate is not taken in; another one brings it back.
    let looked_up = engine.operate("lookup --profile var/dev/app.toml --idempotency-key call-1 --json");
    assert!(looked_up.contains("signature"), "{looked_up}");
    import(&engine, "demo-p256", &[&leaf, &authority.certificate]).refused(2, "certificate_chain_refused");
    let leaf = authority.certify(&info.public_key, 3_000_000);
    import(&engine, "demo-p256", &[&leaf, &authority.certificate]).ok();
    sign_next().unwrap();

    // That it ends within a day is told: to the operators, and once to the tenant.
    engine.operate("webhook set --tenant demo http://127.0.0.1:9/");
    let ending: Value = serde_json::from_str(&engine.operate("cert ending --days 1")).unwrap();
    let mine = ending.as_array().unwrap();
    assert_eq!(mine.len(), 1, "{ending}");
    assert_eq!(
        (&mine[0]["tenant"], &mine[0]["credential"]),
        (&json!("demo"), &json!("demo-p256"))
    );
    let engine = Setup::default().start_in(engine.stop());
    wait_until("the alert", || {
        engine.operate("alert list").contains("certificates-ending")
    });
    let told = |engine: &Engine| {
        engine
            .operate("message list")
            .matches("certificate.ending")
            .count()
    };
    assert_eq!(told(&engine), 1);
    let engine = Setup::default().start_in(engine.stop());
    wait_until("the alert", || {
        engine.operate("alert list").contains("certificates-ending")
    });
    assert_eq!(told(&engine), 1, "told of once");
    assert!(sign(&engine.profile(), &request("again", "text")).is_ok());
}

#[test]
fn hierarchies_of_three_levels_hold_for_every_kind_of_authority() {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), &["init"]).ok();
    let cli = |line: &str| run_in(folder.path(), &line.split_whitespace().collect::<Vec<_>>());
    cli("tenant create acme").ok();
    for kind in ["p256", "rsa2048", "sm2"] {
        for (role, issuer) in [
            ("root", ""),
            ("intermediate", "root"),
            ("issuing", "intermediate"),
        ] {
            let issuer = match issuer {
                "" => String::new(),
                issuer => format!("--issuer {issuer}-{kind}"),
            };
            cli(&format!(
                "ca create {role}-{kind} --role {role} --kind {kind} {issuer} --transcript {role}-{kind}.json"
            ))
            .ok();
        }
    }
    cli("ca create x --role intermediate --kind p256 --issuer issuing-p256 --transcript x.json")
        .refused(2, "usage");
    let all: Value = serde_json::from_str(&cli("ca list").ok()).unwrap();
    for one in all.as_array().unwrap() {
        let path = folder
            .path()
            .join(format!("{}.pem", one["name"].as_str().unwrap()));
        std::fs::write(path, one["certificate"].as_str().unwrap()).unwrap();
    }
    for (kind, subject) in [("p256", "rsa3072"), ("rsa2048", "p256"), ("sm2", "sm2")] {
        cli(&format!("key create --tenant acme --kind {subject} for-{kind}")).ok();
        let line = format!(
            "cert issue --tenant acme --profile credential --credential for-{kind} --issuer issuing-{kind} --out {kind}.pem"
        );
        cli(&line).ok();
        if kind != "sm2" {
            let line = format!("verify -CAfile root-{kind}.pem -untrusted {kind}.pem {kind}.pem");
            openssl_in(folder.path(), &line.split_whitespace().collect::<Vec<_>>()).ok();
            continue;
        }
        // OpenSSL 3.0 gives the user id to the last certificate only: a step at a time.
        for (certificate, issuer) in [
            ("sm2", "issuing-sm2"),
            ("issuing-sm2", "intermediate-sm2"),
            ("intermediate-sm2", "root-sm2"),
        ] {
            let distid = "-vfyopt distid:1234567812345678";
            let line = format!("verify {distid} -partial_chain -trusted {issuer}.pem {certificate}.pem");
            openssl_in(folder.path(), &line.split_whitespace().collect::<Vec<_>>()).ok();
        }
    }
}

/// A request over HTTPS, as an app proves it.
pub(crate) fn call(
    profile: &AppProfile,
    line: &str,
    key: Option<&str>,
    body: Option<&Value>,
) -> (u16, Value) {
    let (method, path) = line.split_once(' ').unwrap();
    let authority = format!("{}:{}", profile.server_name, profile.address.port());
    let body = body.map(Value::to_string).unwrap_or_default();
    let digest = (!body.is_empty()).then(|| http_proof::content_digest(body.as_bytes()));
    let parts = Parts {
        method,
        authority: &authority,
        path,
        query: None,
        content_digest: digest.as_deref(),
        idempotency_key: key,
    };
    let secret = SignKey::from_secret(&profile.secret().unwrap());
    let proof = http_proof::sign(&parts, profile.app_id.as_str(), clock::wall(), &secret).unwrap();
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nsignature-input: {}\r\nsignature: {}\r\n",
        proof.signature_input, proof.signature
    );
    text.extend(key.map(|key| format!("idempotency-key: {key}\r\n")));
    text.extend(digest.map(|digest| format!("content-digest: {digest}\r\n")));
    if !body.is_empty() {
        text.push_str("content-type: application/json\r\n");
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let heard = block_on(async { Http1::dial(profile).await.exchange(text.as_bytes()).await });
    (heard.status, serde_json::from_slice(&heard.body).unwrap())
}

/// Every order on record, as `actor action subject`.
pub(crate) fn orders(engine: &Engine) -> Vec<String> {
    let mut orders = Vec::new();
    let reader = store::Reader::beside(&engine.home()).unwrap();
    let visit = |entry: store::Entry| {
        if let store::Record::Change {
            actor,
            action,
            subject,
        } = entry.record
        {
            orders.push(format!("{actor} {action} {subject}"));
        }
        Ok(())
    };
    reader.entries(protocol::ids::Sequence(1), visit).unwrap();
    orders
}

pub(crate) fn counted(engine: &Engine, tenant: &str, kind: &str) -> i64 {
    let text = engine.operate(&format!("package list --tenant {tenant}"));
    let packages: Value = serde_json::from_str(&text).unwrap();
    let mut all = packages.as_array().unwrap().iter();
    let package = all.find(|package| package["kind"] == kind);
    let balances = package.and_then(|package| package["balances"].as_object());
    let used = balances
        .into_iter()
        .flatten()
        .filter(|(account, _)| account.ends_with("used"));
    used.map(|(_, units)| units.as_i64().unwrap()).sum()
}

#[test]
fn a_call_for_a_certificate_brings_the_same_one_again_and_counts_once() {
    let engine = Engine::start();
    let profile = engine.profile();
    make_request(&engine, "app", (KINDS[0].1, ""), "/CN=a", &[]).ok();
    let before = counted(&engine, "demo", "counted-certificates");
    let csr = std::fs::read_to_string(folder(&engine).join("app.csr")).unwrap();
    let wanted = json!({ "profile": "enterprise-signing", "subject": "demo-enterprise", "request": csr });
    let post = |key: &str, body: &Value| call(&profile, "POST /v1/certificates", Some(key), Some(body));
    let (status, first) = post("issue-1", &wanted);
    assert_eq!(status, 200, "{first}");
    let (_, again) = post("issue-1", &wanted);
    assert_eq!(first, again, "the same call");
    let other = json!({ "profile": "credential", "request": csr });
    assert_eq!(post("issue-1", &other).1["code"], "idempotency_key_reused");
    let (status, none) = call(&profile, "POST /v1/certificates", None, Some(&wanted));
    assert_eq!((status, &none["code"]), (400, &json!("idempotency_key_invalid")));
    std::fs::write(
        folder(&engine).join("app.pem"),
        first["certificate"].as_str().unwrap(),
    )
    .unwrap();
    verify(&engine, "app", "").ok();
    assert_eq!(counted(&engine, "demo", "counted-certificates"), before + 1);
    engine.operate("reconcile");
}

#[test]
fn an_app_enrols_renews_and_revokes_for_itself() {
    let engine = Engine::start();
    let profile = engine.profile();
    let before = counted(&engine, "demo", "counted-certificates");
    let post = |key: &str, body: &Value| call(&profile, "POST /v1/certificates", Some(key), Some(body));
    // A new credential, whose key never leaves.
    let enrolled = json!({ "profile": "enterprise-seal", "subject": "demo-enterprise", "credential": "own", "kind": "sm2" });
    let (status, made) = post("enrol-1", &enrolled);
    assert_eq!((status, &made["credential"]), (200, &json!("own")), "{made}");
    assert_eq!(post("enrol-1", &enrolled).1["serial"], made["serial"]);
    assert_eq!(post("enrol-2", &enrolled).1["code"], "already_exists");
    let renewal = format!(
        "POST /v1/certificates/{}/renewal",
        made["serial"].as_str().unwrap()
    );
    let (status, renewed) = call(&profile, &renewal, Some("renew-1"), Some(&json!({})));
    assert_eq!(
        (status, &renewed["profile"]),
        (200, &json!("enterprise-seal")),
        "{renewed}"
    );
    assert_ne!(renewed["serial"], made["serial"]);
    assert_eq!(counted(&engine, "demo", "counted-certificates"), before + 2);
    // Its list has them all, and one can be asked for.
    let (_, list) = call(&profile, "GET /v1/certificates", None, None);
    assert_eq!(list["certificates"].as_array().unwrap().len(), 7, "{list}");
    let one = format!("/v1/certificates/{}", renewed["serial"].as_str().unwrap());
    assert_eq!(
        call(&profile, &format!("GET {one}"), None, None).1["serial"],
        renewed["serial"]
    );
    let missing = call(&profile, "GET /v1/certificates/00ff", None, None);
    assert_eq!((missing.0, &missing.1["code"]), (404, &json!("not_found")));
    // What it revokes does not sign any more.
    let wanted = |key: &str| {
        let mut wanted = request(key, key);
        wanted.credential = "own".into();
        wanted.algorithm = Algorithm::Sm2Sm3E;
        wanted
    };
    sign(&engine.profile(), &wanted("before")).unwrap();
    let bad = json!({ "reason": "certificateHold" });
    let revocation = format!("POST {one}/revocation");
    assert_eq!(
        call(&profile, &revocation, None, Some(&bad)).1["code"],
        "malformed_request"
    );
    let (_, revoked) = call(
        &profile,
        &revocation,
        None,
        Some(&json!({ "reason": "superseded" })),
    );
    assert_eq!(
        (&revoked["standing"], &revoked["reason"]),
        (&json!("revoked"), &json!("superseded"))
    );
    let refused = sign(&engine.profile(), &wanted("after")).unwrap_err();
    assert_eq!(refused.code, Code::CredentialDisabled);
    // The books agree.
    engine.operate("reconcile");
}

#[test]
fn a_tenant_that_has_bought_certificates_gets_as_many() {
    let engine = Engine::start();
    engine.operate("tenant create acme");
    engine.operate("package grant --tenant acme --kind by-certificate --units 2 --reference c-1");
    engine.operate("key create --tenant acme --kind p256 one");
    engine.operate("cert renew --tenant acme --credential one");
    let refused = engine.cli(&["cert", "renew", "--tenant", "acme", "--credential", "one"]);
    refused.refused(2, "quota_exhausted");
    assert_eq!(counted(&engine, "acme", "by-certificate"), 2);
    // Signatures are a matter of their own.
    engine.operate("app create --tenant acme erp --profile-out erp.toml");
    let profile = engine.prepaid_profile();
    let mut wanted = request("signs", "signs");
    wanted.credential = "one".into();
    sign(&profile, &wanted).unwrap();
}

/// Signs until it is refused for good; returns how often it was not.
fn sign_until_refused(engine: &Engine, transport: Transport, name: usize) -> (usize, Code) {
    block_on(async {
        let client = engine.client(transport).await;
        let mut signed = 0;
        loop {
            match sign_one(&client, &request(&format!("race-{name}-{signed}"), "race")).await {
                Ok(_) => signed += 1,
                Err(refusal) if refusal.code.retryable() => {}
                Err(refusal) => return (signed, refusal.code),
            }
        }
    })
}

#[test]
fn after_a_revocation_is_on_record_no_signature_follows_it_at_any_shard() {
    nothing_follows(
        "cert revoke --tenant demo --credential demo-p256 --reason keyCompromise",
        "certificate.revoke",
    );
}

#[test]
fn after_a_suspension_is_on_record_no_signature_follows_it_at_any_shard() {
    nothing_follows(
        "cert suspend --tenant demo --credential demo-p256",
        "certificate.suspend",
    );
}

/// Four clients sign on two shards while the order is given. What is on record is in the order of the commits.
fn nothing_follows(order: &str, ended: &str) {
    let engine = Setup::default().set("cores", 2).start();
    let transports = [
        Transport::Quic,
        Transport::Https,
        Transport::Quic,
        Transport::Https,
    ];
    let told: Vec<(usize, Code)> = std::thread::scope(|scope| {
        let engine = &engine;
        let clients = transports.into_iter().enumerate();
        let running: Vec<_> = clients
            .map(|(name, transport)| scope.spawn(move || sign_until_refused(engine, transport, name)))
            .collect();
        wait_until("signatures are made", || {
            let usage = engine.operate("usage --profile var/dev/app.toml --json");
            serde_json::from_str::<Value>(&usage).unwrap()["signatures"].as_u64() > Some(50)
        });
        engine.operate(order);
        running.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(
        told.iter().all(|(_, code)| *code == Code::CredentialDisabled),
        "{told:?}"
    );
    let (signed, after, discarded) = on_record(&engine, ended);
    let sum: usize = told.iter().map(|(signed, _)| signed).sum();
    assert_eq!(
        (after, signed),
        (0, sum),
        "every client was told of what is on record, and nothing came later"
    );
    // Early: from the confirmation on it is refused where it comes in, at every shard, and nothing is signed in vain.
    for (number, transport) in transports.into_iter().enumerate() {
        let refused = sign_until_refused(&engine, transport, 10 + number);
        assert_eq!(refused, (0, Code::CredentialDisabled));
    }
    assert_eq!(on_record(&engine, ended), (signed, 0, discarded));
}

/// Signatures in the journal before and after an action, and those that were discarded.
fn on_record(engine: &Engine, ended: &str) -> (usize, usize, usize) {
    let (mut signed, mut after, mut discarded, mut over) = (0, 0, 0, false);
    let reader = store::Reader::beside(&engine.home()).unwrap();
    let visit = |entry: store::Entry| {
        match entry.record {
            store::Record::Change { action, .. } if &*action == ended => over = true,
            store::Record::Signature { .. } if over => after += 1,
            store::Record::Signature { .. } => signed += 1,
            store::Record::Discarded { .. } => discarded += 1,
            _ => {}
        }
        Ok(())
    };
    reader.entries(protocol::ids::Sequence(1), visit).unwrap();
    (signed, after, discarded)
}
