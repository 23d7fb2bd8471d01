//! OpenSSL judges what `cinnabar sign` makes, and `cinnabar verify` what OpenSSL makes.

use std::fs::{read, read_to_string, write};
use std::process::Command;

use protocol::algorithm::KeyKind;
use serde_json::Value;

use super::{PROFILE, SIGNING_CA, TLS_CA, cinnabar, folder};
use crate::support::{Engine, Ran, run};

const DISTID: &str = "distid:1234567812345678";
const TRANSPORTS: [&str; 2] = ["quic", "https"];
const CONTENT: &[u8] = b"a text that is signed\r\nas it is\n";

/// Runs OpenSSL in the engine's folder.
fn openssl(engine: &Engine, arguments: &str) -> Ran {
    let mut command = Command::new("openssl");
    run(command
        .current_dir(folder(engine))
        .args(arguments.split_whitespace()))
}

#[track_caller]
pub(super) fn succeeds(engine: &Engine, arguments: &str) -> String {
    let ran = openssl(engine, arguments);
    assert_eq!(ran.code, 0, "openssl {arguments}: {ran:?}");
    ran.stdout
}

#[track_caller]
fn fails(engine: &Engine, arguments: &str) {
    let ran = openssl(engine, arguments);
    assert_ne!(ran.code, 0, "openssl {arguments}: {ran:?}");
}

/// A credential, with its public key in ID.pub and its certificate in ID.pem.
struct Credential {
    id: String,
    kind: KeyKind,
    algorithms: Vec<String>,
}

impl Credential {
    fn signs_pairs(&self) -> bool {
        matches!(self.kind, KeyKind::P256 | KeyKind::P384 | KeyKind::Sm2)
    }

    fn signs_cms(&self) -> bool {
        !matches!(self.kind, KeyKind::Ed25519 | KeyKind::Sm2)
    }
}

/// An engine with credentials of the development kinds and of more, and with the files `content` and `other`.
fn engine_with(more: &[&str]) -> (Engine, Vec<Credential>) {
    let engine = Engine::start();
    for kind in more {
        let line = format!("key create --tenant demo demo-{kind} --kind {kind}");
        cinnabar(&engine, &line).ok();
    }
    write(folder(&engine).join("content"), CONTENT).unwrap();
    write(folder(&engine).join("other"), b"another text").unwrap();
    let listed = cinnabar(&engine, &format!("credentials --profile {PROFILE} --json")).ok();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let entries = listed["credentials"].as_array().unwrap().iter();
    let credentials = entries.map(|entry| take(&engine, entry)).collect();
    (engine, credentials)
}

fn take(engine: &Engine, entry: &Value) -> Credential {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let id = text(&entry["id"]);
    assert_eq!(entry["active"], true);
    assert_eq!(entry["chain"].as_array().unwrap().len(), 1);
    write(
        folder(engine).join(format!("{id}.pub")),
        text(&entry["public_key"]),
    )
    .unwrap();
    write(folder(engine).join(format!("{id}.pem")), text(&entry["chain"][0])).unwrap();
    let algorithms = entry["algorithms"].as_array().unwrap().iter().map(text);
    Credential {
        id,
        kind: text(&entry["kind"]).parse().unwrap(),
        algorithms: algorithms.collect(),
    }
}

fn find<'a>(credentials: &'a [Credential], id: &str) -> &'a Credential {
    credentials.iter().find(|one| one.id == id).unwrap()
}

/// Signs the file `content`, into the file `signature`.
fn sign(engine: &Engine, credential: &Credential, algorithm: &str, more: &str) -> Ran {
    let id = &credential.id;
    let files = "--file content --out signature";
    let line = format!("sign --profile {PROFILE} --credential {id} --algorithm {algorithm} {files} {more}");
    cinnabar(engine, &line)
}

/// What makes OpenSSL check the file `signature` over a file with a credential's public key.
fn check(credential: &Credential, algorithm: &str, file: &str) -> String {
    let key = format!("{}.pub", credential.id);
    let hash = algorithm.rsplit('-').next().unwrap();
    let options = match algorithm {
        "ed25519" => {
            return format!("pkeyutl -verify -pubin -inkey {key} -rawin -in {file} -sigfile signature");
        }
        "sm2-sm3" | "sm2-sm3-e" => format!("-sm3 -sigopt {DISTID}"),
        pss if pss.starts_with("rsa-pss") => {
            let salt = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";
            format!("-{hash} {salt} -sigopt rsa_mgf1_md:{hash}")
        }
        _ => format!("-{hash}"),
    };
    format!("dgst {options} -verify {key} -signature signature {file}")
}

#[test]
fn openssl_accepts_every_algorithm_of_every_kind_over_both_transports() {
    let (engine, credentials) = engine_with(&["p384", "rsa3072", "rsa4096"]);
    let mut checked = Vec::new();
    for credential in &credentials {
        for algorithm in &credential.algorithms {
            for transport in TRANSPORTS {
                sign(
                    &engine,
                    credential,
                    algorithm,
                    &format!("--transport {transport}"),
                )
                .ok();
                succeeds(&engine, &check(credential, algorithm, "content"));
                fails(&engine, &check(credential, algorithm, "other"));
            }
            checked.push(format!("{} {algorithm}", credential.kind));
        }
    }
    checked.sort();
    assert_eq!(checked, every_algorithm());
}

fn every_algorithm() -> Vec<String> {
    let of_kind = |kind: KeyKind| kind.algorithms().iter().map(move |name| format!("{kind} {name}"));
    let mut all: Vec<_> = KeyKind::ALL.into_iter().flat_map(of_kind).collect();
    all.sort();
    assert_eq!(all.len(), 23);
    all
}

#[test]
fn a_digest_made_by_openssl_can_be_signed_without_the_file() {
    let (engine, credentials) = engine_with(&["p384"]);
    for (id, algorithm, hash) in [
        ("demo-p256", "ecdsa-p256-sha256", "sha256"),
        ("demo-p384", "ecdsa-p384-sha384", "sha384"),
        ("demo-rsa2048", "rsa-pss-sha512", "sha512"),
    ] {
        let said = succeeds(&engine, &format!("dgst -{hash} -r content"));
        let digest = said.split_whitespace().next().unwrap();
        let what = format!("--credential {id} --algorithm {algorithm} --digest {digest}");
        let line = format!("sign --profile {PROFILE} {what} --out signature");
        cinnabar(&engine, &line).ok();
        succeeds(&engine, &check(find(&credentials, id), algorithm, "content"));
    }
}

#[test]
fn openssl_accepts_an_sm2_signature_with_a_user_id_of_ones_own() {
    let (engine, credentials) = engine_with(&[]);
    let sm2 = find(&credentials, "demo-sm2");
    sign(&engine, sm2, "sm2-sm3", "--user-id alice@example.com").ok();
    let by = |id: &str| check(sm2, "sm2-sm3", "content").replace(DISTID, id);
    succeeds(&engine, &by("distid:alice@example.com"));
    fails(&engine, &by(DISTID));
}

/// Makes DER from r and s side by side, with OpenSSL.
fn pair_to_der(engine: &Engine) {
    let pair = read(folder(engine).join("signature")).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (r, s) = pair.split_at(pair.len() / 2);
    let plan = format!(
        "asn1=SEQUENCE:pair\n[pair]\nr=INTEGER:0x{}\ns=INTEGER:0x{}\n",
        hex(r),
        hex(s)
    );
    write(folder(engine).join("plan"), plan).unwrap();
    succeeds(engine, "asn1parse -genconf plan -noout -out signature");
}

#[test]
fn a_pair_is_what_der_holds_and_is_refused_where_there_is_none() {
    let (engine, credentials) = engine_with(&["p384"]);
    for credential in &credentials {
        for algorithm in &credential.algorithms {
            let signed = sign(&engine, credential, algorithm, "--format pair");
            if !credential.signs_pairs() {
                signed.refused(2, "unsupported_format");
                continue;
            }
            signed.ok();
            let length = read(folder(&engine).join("signature")).unwrap().len();
            let is_longer = credential.kind == KeyKind::P384;
            assert_eq!(length, if is_longer { 96 } else { 64 });
            pair_to_der(&engine);
            succeeds(&engine, &check(credential, algorithm, "content"));
        }
    }
}

#[test]
fn openssl_accepts_detached_cms_of_ecdsa_and_rsa() {
    let (engine, credentials) = engine_with(&["p384"]);
    let files = |file: &str| format!("-in signature -content {file} -out verified");
    let cms = |file: &str| {
        format!(
            "cms -verify -binary -inform DER {} -CAfile {SIGNING_CA}",
            files(file)
        )
    };
    for credential in &credentials {
        for algorithm in &credential.algorithms {
            for transport in TRANSPORTS {
                let how = format!("--format cms --transport {transport}");
                let signed = sign(&engine, credential, algorithm, &how);
                if !credential.signs_cms() {
                    signed.refused(2, "unsupported_format");
                    continue;
                }
                signed.ok();
                succeeds(&engine, &cms("content"));
                assert_eq!(read(folder(&engine).join("verified")).unwrap(), CONTENT);
                fails(&engine, &cms("other"));
            }
        }
    }
}

#[test]
fn openssl_accepts_the_certificate_of_every_credential() {
    let (engine, credentials) = engine_with(&["p384", "rsa3072", "rsa4096"]);
    for Credential { id, kind, .. } in &credentials {
        let is_sm2 = *kind == KeyKind::Sm2;
        let distid = if is_sm2 {
            format!("-vfyopt {DISTID}")
        } else {
            String::new()
        };
        // Strictly by RFC 5280.
        succeeds(
            &engine,
            &format!("verify -x509_strict {distid} -CAfile {SIGNING_CA} {id}.pem"),
        );
        fails(&engine, &format!("verify {distid} -CAfile {TLS_CA} {id}.pem"));
        let key = succeeds(&engine, &format!("x509 -in {id}.pem -noout -pubkey"));
        let published = read_to_string(folder(&engine).join(format!("{id}.pub"))).unwrap();
        assert_eq!(key.trim(), published.trim());
        let extensions = "-noout -ext keyUsage,extendedKeyUsage";
        let usages = succeeds(&engine, &format!("x509 -in {id}.pem {extensions}"));
        assert!(usages.contains("X509v3 Key Usage: critical"), "{usages}");
        assert!(
            usages.contains("Digital Signature, Non Repudiation\n"),
            "{usages}"
        );
        assert!(!usages.contains("Extended Key Usage"), "{usages}");
    }
}

/// Offset of the last element of a certificate, its signature, as OpenSSL lists them.
fn signature_offset(engine: &Engine, certificate: &str) -> String {
    let listed = succeeds(engine, &format!("asn1parse -in {certificate}"));
    let last = listed.lines().last().unwrap();
    last.split(':').next().unwrap().trim().to_owned()
}

#[test]
fn both_roots_are_signed_by_themselves() {
    let (engine, _) = engine_with(&[]);
    let roots = read_to_string(folder(&engine).join(SIGNING_CA)).unwrap();
    let roots: Vec<_> = roots.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let checks = ["-sha256".to_owned(), format!("-sm3 -sigopt {DISTID}")];
    assert_eq!(roots.len(), checks.len());
    for (root, check) in roots.iter().zip(checks) {
        // By extracted bytes: OpenSSL 3.0 takes a user id for a leaf's signature only.
        write(folder(&engine).join("root.pem"), root).unwrap();
        let at = signature_offset(&engine, "root.pem");
        succeeds(&engine, "asn1parse -in root.pem -strparse 4 -noout -out signed");
        succeeds(
            &engine,
            &format!("asn1parse -in root.pem -strparse {at} -noout -out signature"),
        );
        succeeds(&engine, "x509 -in root.pem -noout -pubkey -out root.pub");
        succeeds(
            &engine,
            &format!("dgst {check} -verify root.pub -signature signature signed"),
        );
    }
}

/// Spoils the last byte of a file.
fn spoil(engine: &Engine, name: &str) {
    let path = folder(engine).join(name);
    let mut bytes = read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    write(path, bytes).unwrap();
}

/// `cinnabar verify` of the file `signature` over a file.
fn verify(engine: &Engine, file: &str, how: &str) -> Ran {
    cinnabar(
        engine,
        &format!("verify --signature signature --file {file} {how}"),
    )
}

/// Good over `content`, wrong over `other`, wrong when spoilt, wrong when it is something else.
#[track_caller]
fn is_told_apart(engine: &Engine, how: &str) {
    let valid = verify(engine, "content", how).ok();
    assert!(valid.starts_with("valid: "), "{valid}");
    verify(engine, "other", how).refused(2, "signature_invalid");
    spoil(engine, "signature");
    verify(engine, "content", how).refused(2, "signature_invalid");
    write(folder(engine).join("signature"), b"no signature at all").unwrap();
    verify(engine, "content", how).refused(2, "signature_invalid");
}

#[test]
fn verify_tells_a_good_signature_from_every_other() {
    let (engine, credentials) = engine_with(&["p384"]);
    for credential in &credentials {
        let id = &credential.id;
        for algorithm in &credential.algorithms {
            sign(&engine, credential, algorithm, "").ok();
            is_told_apart(&engine, &format!("--algorithm {algorithm} --signer {id}.pub"));
        }
        // The signer may also be a certificate, or the engine is asked.
        for signer in [
            format!("--signer {id}.pem"),
            format!("--profile {PROFILE} --credential {id}"),
        ] {
            sign(&engine, credential, &credential.algorithms[0], "").ok();
            is_told_apart(&engine, &signer);
        }
    }
}

#[test]
fn verify_does_not_take_another_credentials_signature() {
    let (engine, credentials) = engine_with(&[]);
    cinnabar(&engine, "key create --tenant demo another --kind p256").ok();
    sign(&engine, find(&credentials, "demo-p256"), "ecdsa-p256-sha256", "").ok();
    let by = |id: &str| {
        verify(
            &engine,
            "content",
            &format!("--profile {PROFILE} --credential {id}"),
        )
    };
    by("demo-p256").ok();
    by("another").refused(2, "signature_invalid");
}

#[test]
fn verify_reads_pairs_and_cms() {
    let (engine, credentials) = engine_with(&["p384"]);
    for credential in &credentials {
        let algorithm = credential.algorithms.last().unwrap();
        if credential.signs_pairs() {
            sign(&engine, credential, algorithm, "--format pair").ok();
            is_told_apart(&engine, &format!("--format pair --signer {}.pub", credential.id));
        }
        if credential.signs_cms() {
            sign(&engine, credential, algorithm, "--format cms").ok();
            // Not by any CA but the one that is named.
            let by_another = format!("--format cms --ca {TLS_CA}");
            verify(&engine, "content", &by_another).refused(2, "signature_invalid");
            is_told_apart(&engine, &format!("--format cms --ca {SIGNING_CA}"));
        }
    }
}

#[test]
fn verify_takes_what_openssl_signs() {
    let (engine, _) = engine_with(&[]);
    let dgst = |options: &str| format!("dgst {options} -sign own.key -out signature content");
    let pss = "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";
    let ed25519 = "pkeyutl -sign -inkey own.key -rawin -in content -out signature".to_owned();
    let sm2 = format!("-sm3 -sigopt {DISTID}");
    for (make, algorithm, sign) in [
        (
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "ecdsa-p256-sha256",
            dgst("-sha256"),
        ),
        (
            "EC -pkeyopt ec_paramgen_curve:P-384",
            "ecdsa-p384-sha384",
            dgst("-sha384"),
        ),
        ("EC -pkeyopt ec_paramgen_curve:SM2", "sm2-sm3", dgst(&sm2)),
        (
            "RSA -pkeyopt rsa_keygen_bits:2048",
            "rsa-pkcs1-sha512",
            dgst("-sha512"),
        ),
        ("RSA -pkeyopt rsa_keygen_bits:3072", "rsa-pss-sha256", dgst(pss)),
        ("ED25519", "ed25519", ed25519),
    ] {
        succeeds(&engine, &format!("genpkey -algorithm {make} -out own.key"));
        succeeds(&engine, "pkey -in own.key -pubout -out own.pub");
        succeeds(&engine, &sign);
        is_told_apart(&engine, &format!("--signer own.pub --algorithm {algorithm}"));
    }
}

#[test]
fn verify_takes_detached_cms_that_openssl_makes() {
    let (engine, _) = engine_with(&[]);
    for make in ["ec -pkeyopt ec_paramgen_curve:P-256", "rsa:2048"] {
        let about = "-subj /CN=own -days 2 -addext keyUsage=critical,digitalSignature";
        succeeds(
            &engine,
            &format!("req -x509 -newkey {make} -nodes -keyout own.key -out own.pem {about}"),
        );
        let files = "-signer own.pem -inkey own.key -in content -outform DER -out signature";
        succeeds(&engine, &format!("cms -sign -cades -binary -md sha256 {files}"));
        is_told_apart(&engine, "--format cms --ca own.pem");
    }
}
