//! The certificate service from outside: time stamps, OCSP and revocation lists, judged by OpenSSL; and what a kill
//! leaves of them.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::ocsp::{CertId, IdHash, Named};
use documents::tsp;
use documents::x509;
use protocol::algorithm::Hash;
use protocol::client::Transport;
use protocol::error_code::Code;
use serde_json::Value;

use crate::support::{Engine, Ran, Setup, block_on, request, run, sign_one, wait_until};

/// An answer over plain HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    /// Lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut all = self.headers.iter();
        all.find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }
}

/// A connection to the pki listener.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        self.ask_with(method, path, "", kind, body)
    }

    /// With more lines of the head.
    pub(crate) fn ask_with(
        &mut self,
        method: &str,
        path: &str,
        lines: &str,
        kind: &str,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}").into_bytes();
        if method == "POST" {
            let length = body.len();
            request.extend(format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n").bytes());
        }
        request.extend(b"\r\n");
        request.extend(body);
        self.send(&request, method == "HEAD")
    }

    /// Sends bytes as they are and reads what comes back.
    pub(crate) fn send(&mut self, request: &[u8], without_body: bool) -> std::io::Result<Answer> {
        self.0.get_mut().write_all(request)?;
        self.read(without_body)
    }

    fn read(&mut self, without_body: bool) -> std::io::Result<Answer> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let (mut kind, mut length, mut headers) = (String::new(), 0, Vec::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match name {
                "content-type" => value.clone_into(&mut kind),
                "content-length" => length = value.parse().unwrap(),
                _ => {}
            }
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let empty = without_body || status == Some(304);
        let mut body = vec![0; if empty { 0 } else { length }];
        self.0.read_exact(&mut body)?;
        Ok(Answer {
            status: status.ok_or(std::io::ErrorKind::InvalidData)?,
            kind,
            headers,
            body,
        })
    }
}

pub(crate) fn post(engine: &Engine, path: &str, kind: &str, body: &[u8]) -> Answer {
    Connection::open(engine.pki)
        .unwrap()
        .ask("POST", path, kind, body)
        .unwrap()
}

pub(crate) fn get(engine: &Engine, path: &str) -> Answer {
    Connection::open(engine.pki)
        .unwrap()
        .ask("GET", path, "", &[])
        .unwrap()
}

pub(crate) fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

pub(crate) fn openssl(engine: &Engine, line: &str) -> Ran {
    run(Command::new("openssl")
        .current_dir(folder(engine))
        .args(line.split_whitespace()))
}

/// The certificates of tenant demo's credentials.
fn certificates(engine: &Engine) -> Vec<Value> {
    serde_json::from_str(&engine.operate("cert list --tenant demo")).unwrap()
}

/// Writes a credential's newest certificate into a file.
pub(crate) fn write_certificate(engine: &Engine, credential: &str) -> Value {
    let all = certificates(engine);
    let mut all = all.into_iter().rev();
    let found = all.find(|one| one["credential"] == credential).unwrap();
    let path = folder(engine).join(format!("{credential}.pem"));
    std::fs::write(path, found["certificate"].as_str().unwrap()).unwrap();
    found
}

pub(crate) fn fetch_list(engine: &Engine, name: &str) {
    let answer = get(engine, &format!("/crl/{name}.crl"));
    assert_eq!((answer.status, &answer.kind[..]), (200, "application/pkix-crl"));
    std::fs::write(folder(engine).join(format!("{name}.crl")), &answer.body).unwrap();
}

/// The number of a list, as OpenSSL reads it.
pub(crate) fn list_number(engine: &Engine, name: &str) -> u64 {
    fetch_list(engine, name);
    let text = openssl(
        engine,
        &format!("crl -inform DER -in {name}.crl -noout -crlnumber"),
    )
    .ok();
    let hexadecimal = text
        .trim()
        .trim_start_matches("crlNumber=")
        .trim_start_matches("0x");
    u64::from_str_radix(hexadecimal, 16).unwrap()
}

pub(crate) fn verify_with_list(engine: &Engine, credential: &str) -> Ran {
    fetch_list(engine, "dev-p256");
    openssl(engine, "crl -inform DER -in dev-p256.crl -out dev-p256.crl.pem").ok();
    let line = format!("verify -CAfile var/dev/ca.pem -CRLfile dev-p256.crl.pem -crl_check {credential}.pem");
    openssl(engine, &line)
}

fn ocsp(engine: &Engine, credential: &str) -> String {
    let url = format!("http://{}/ocsp", engine.pki);
    let line =
        format!("ocsp -issuer var/dev/ca.pem -cert {credential}.pem -CAfile var/dev/ca.pem -url {url}");
    let ran = openssl(engine, &line);
    assert!(ran.stderr.contains("Response verify OK"), "{ran:?}");
    ran.ok()
}

#[test]
fn openssl_accepts_time_stamps_of_every_authority() {
    let engine = Engine::start();
    std::fs::write(folder(&engine).join("content"), "what existed then").unwrap();
    for (hash, path, judged) in [
        ("sha256", "/tsa", true),
        ("sha512", "/tsa?authority=dev-tsa-rsa2048", true),
        // OpenSSL 3.0 does not verify SM2 in CMS (SEMANTICS 6.3): our own reader does below.
        ("sm3", "/tsa", false),
    ] {
        openssl(
            &engine,
            &format!("ts -query -data content -{hash} -cert -out q.tsq"),
        )
        .ok();
        let query = std::fs::read(folder(&engine).join("q.tsq")).unwrap();
        let answer = post(&engine, path, tsp::QUERY_TYPE, &query);
        assert_eq!(
            (answer.status, &answer.kind[..]),
            (200, tsp::REPLY_TYPE),
            "{hash}"
        );
        std::fs::write(folder(&engine).join("r.tsr"), &answer.body).unwrap();
        if judged {
            let ran = openssl(
                &engine,
                "ts -verify -in r.tsr -queryfile q.tsq -CAfile var/dev/ca.pem",
            );
            assert!(ran.stdout.contains("Verification: OK"), "{ran:?}");
        }
        let request = tsp::Request::parse(&query).unwrap();
        let token = tsp::token_of(&answer.body).unwrap();
        let digest = |hash: Hash| hash.digest(b"what existed then");
        tsp::verify_token(token, &digest, Some(&request), &roots(&engine)).unwrap();
    }
}

/// The development CA's roots, in DER.
pub(crate) fn roots(engine: &Engine) -> Vec<Vec<u8>> {
    let text = std::fs::read(engine.dev("ca.pem")).unwrap();
    let blocks = pem::parse_many(text).unwrap();
    blocks.into_iter().map(pem::Pem::into_contents).collect()
}

#[test]
fn what_is_no_request_is_refused_in_the_standards_words() {
    let engine = Engine::start();
    let answer = post(&engine, "/tsa", tsp::QUERY_TYPE, b"nonsense");
    assert_eq!(
        tsp::token_of(&answer.body).unwrap_err(),
        tsp::ResponseError::Rejected(Some(tsp::Failure::BadDataFormat))
    );
    assert_eq!(post(&engine, "/tsa", "text/plain", b"nonsense").status, 415);
    assert_eq!(post(&engine, "/tsa", tsp::QUERY_TYPE, &[0; 10_000]).status, 413);
    let query = tsp::Request::new(Hash::Sha256, &[7; 32], &[])
        .unwrap()
        .to_der()
        .unwrap();
    assert_eq!(
        post(&engine, "/tsa?authority=nobody", tsp::QUERY_TYPE, &query).status,
        404
    );
    // malformedRequest (RFC 6960 4.2.1).
    let malformed = [0x30, 3, 0x0a, 1, 1];
    let answer = post(&engine, "/ocsp", documents::ocsp::REQUEST_TYPE, b"nonsense");
    assert_eq!(answer.body, malformed);
    assert_eq!(get(&engine, "/ocsp/!!").body, malformed);
    assert_eq!(get(&engine, "/crl/nobody.crl").status, 404);
    assert_eq!(get(&engine, "/crl/dev-p256").status, 404);
}

#[test]
fn a_clock_that_nobody_vouches_for_stamps_nothing_unless_it_is_allowed_to() {
    // No machine's clock is known to the millisecond, with or without a source of time.
    let engine = Setup::default()
        .set("tsa_clock", "verified")
        .set("tsa_accuracy_ms", 0)
        .start();
    let query = tsp::Request::new(Hash::Sha256, &[7; 32], &[])
        .unwrap()
        .to_der()
        .unwrap();
    let answer = post(&engine, "/tsa", tsp::QUERY_TYPE, &query);
    assert_eq!(
        tsp::token_of(&answer.body).unwrap_err(),
        tsp::ResponseError::Rejected(Some(tsp::Failure::TimeNotAvailable))
    );
    let closed = Setup::default().set("tsa_anonymous", false).start();
    assert_eq!(post(&closed, "/tsa", tsp::QUERY_TYPE, &query).status, 401);
}

#[test]
fn a_certificates_life_as_openssl_and_the_signer_see_it() {
    let engine = Engine::start();
    let row = write_certificate(&engine, "demo-p256");
    verify_with_list(&engine, "demo-p256").ok();
    assert!(ocsp(&engine, "demo-p256").contains("demo-p256.pem: good"));
    let first = list_number(&engine, "dev-p256");

    engine.operate("cert suspend --tenant demo --credential demo-p256");
    assert!(ocsp(&engine, "demo-p256").contains("Reason: certificateHold"));
    let disabled = |key: &str| {
        block_on(async {
            let client = engine.client(Transport::Quic).await;
            sign_one(&client, &request(key, "text"))
                .await
                .map_err(|refusal| refusal.code)
        })
    };
    assert_eq!(disabled("held").unwrap_err(), Code::CredentialDisabled);
    let enabled = engine.cli(&["key", "enable", "--tenant", "demo", "demo-p256"]);
    enabled.refused(2, "credential_disabled");
    engine.operate("cert resume --tenant demo --credential demo-p256");
    assert!(disabled("held").is_ok());
    verify_with_list(&engine, "demo-p256").ok();

    engine.operate("cert revoke --tenant demo --credential demo-p256 --reason keyCompromise");
    assert_eq!(disabled("revoked").unwrap_err(), Code::CredentialDisabled);
    let judged = verify_with_list(&engine, "demo-p256");
    assert!(
        judged.code != 0 && judged.stderr.contains("certificate revoked"),
        "{judged:?}"
    );
    let told = ocsp(&engine, "demo-p256");
    assert!(
        told.contains("demo-p256.pem: revoked") && told.contains("Reason: keyCompromise"),
        "{told}"
    );
    for order in ["resume", "suspend", "revoke"] {
        let again = engine.cli(&["cert", order, "--tenant", "demo", "--credential", "demo-p256"]);
        again.refused(2, "wrong_state");
    }
    let unknown = engine.cli(&["cert", "revoke", "--tenant", "demo", "--credential", "nobody"]);
    unknown.refused(2, "not_found");
    assert_eq!(
        list_number(&engine, "dev-p256"),
        first + 3,
        "one list for each change"
    );

    // After a restart all of it is still so, and numbers go on.
    let engine = Setup::default().start_in(engine.stop());
    assert!(ocsp(&engine, "demo-p256").contains("demo-p256.pem: revoked"));
    assert!(list_number(&engine, "dev-p256") >= first + 3);
    assert_ne!(verify_with_list(&engine, "demo-p256").code, 0);
    assert_eq!(
        certificates(&engine)
            .iter()
            .find(|one| one["serial"] == row["serial"])
            .unwrap()["standing"],
        "revoked"
    );
}

#[test]
fn ocsp_by_path_knows_what_was_issued_and_nothing_else() {
    let engine = Engine::start();
    let row = write_certificate(&engine, "demo-sm2");
    let root = roots(&engine).pop().unwrap();
    let issuer = Named::new(&root).unwrap();
    let certificate = pem::parse(row["certificate"].as_str().unwrap()).unwrap();
    let serial = x509::serial_number(certificate.contents()).unwrap();
    for (serial, word) in [(&serial[..], "Good"), (&[0x55; 16], "Unknown")] {
        let id = CertId::new(&issuer, serial, IdHash::Sm3);
        let asked = documents::ocsp::Request {
            ids: vec![id.clone()],
            nonce: Some(vec![9; 32]),
        };
        let path = STANDARD.encode(asked.to_der().unwrap());
        let path = path.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let answer = get(&engine, &format!("/ocsp/{path}"));
        assert_eq!(
            (answer.status, &answer.kind[..]),
            (200, documents::ocsp::RESPONSE_TYPE)
        );
        let status = read_status(&answer.body, &root, &id);
        assert!(status.starts_with(word), "{status}");
    }
}

fn read_status(response: &[u8], issuer: &[u8], id: &CertId) -> String {
    let response = documents::ocsp::Response::parse(response).unwrap();
    let status = response.verify(issuer, id, Some(&[9; 32]), protocol::clock::wall());
    format!("{:?}", status.unwrap())
}

/// Stamps until the engine is gone, and says which serial numbers came.
fn stamp_until_gone(address: SocketAddr) -> Vec<Vec<u8>> {
    let query = tsp::Request::new(Hash::Sha256, &[7; 32], &[])
        .unwrap()
        .to_der()
        .unwrap();
    let digest = |_: Hash| smallvec::SmallVec::from_slice(&[7; 32]);
    let mut serials = Vec::new();
    let Ok(mut connection) = Connection::open(address) else {
        return serials;
    };
    while let Ok(answer) = connection.ask("POST", "/tsa", tsp::QUERY_TYPE, &query) {
        let Some(token) = token_in(&answer) else { continue };
        // Whose it is has been judged elsewhere: without a trust anchor only the path is missing.
        let refused = tsp::verify_token(token, &digest, None, &[] as &[Vec<u8>]).unwrap_err();
        assert!(matches!(refused, tsp::VerifyError::Path(_)), "{refused}");
        serials.push(serial_of(token));
    }
    serials
}

/// The token in an answer; none for the first two seconds after a start, in which an earlier life may have stamped.
pub(crate) fn token_in(answer: &Answer) -> Option<&[u8]> {
    match tsp::token_of(&answer.body) {
        Ok(token) => Some(token),
        Err(tsp::ResponseError::Rejected(Some(tsp::Failure::TimeNotAvailable))) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Stamps once and returns the serial number.
pub(crate) fn stamp(address: SocketAddr) -> Vec<u8> {
    let query = tsp::Request::new(Hash::Sha256, &[7; 32], &[])
        .unwrap()
        .to_der()
        .unwrap();
    let mut connection = Connection::open(address).unwrap();
    let mut serial = None;
    wait_until("a time stamp", || {
        let answer = connection.ask("POST", "/tsa", tsp::QUERY_TYPE, &query).unwrap();
        serial = token_in(&answer).map(serial_of);
        serial.is_some()
    });
    serial.unwrap()
}

/// The serial number in a token: 16 bytes behind the imprint of 32.
pub(crate) fn serial_of(token: &[u8]) -> Vec<u8> {
    let imprint = [&[4, 32][..], &[7; 32], &[2, 16]].concat();
    let at = token.windows(imprint.len()).position(|window| window == imprint);
    let from = at.unwrap() + imprint.len();
    token[from..from + 16].to_vec()
}

#[test]
fn no_serial_is_used_twice_and_no_revocation_lost_by_a_kill() {
    let rounds = std::env::var("TEST_CRASH_ROUNDS").map_or(4, |text| text.parse().unwrap());
    let mut engine = Engine::start();
    let mut stamped = HashSet::new();
    let (mut number, mut revoked) = (0, Vec::new());
    for round in 0..rounds {
        let address = engine.pki;
        let stamping = [0, 1].map(|_| std::thread::spawn(move || stamp_until_gone(address)));
        // Certificates are made and revoked while time is stamped; the last revocation races with the kill.
        for made in 0..3 {
            let id = format!("seal-{round}-{made}");
            engine.operate(&format!("key create --tenant demo --kind p256 {id}"));
            engine.operate(&format!(
                "cert revoke --tenant demo --credential {id} --reason superseded"
            ));
            revoked.push(id);
        }
        let published = list_number(&engine, "dev-p256");
        assert!(published >= number + 3, "{published} after {number}");
        let home = engine.home();
        let racing = std::thread::spawn(move || {
            let order = [
                "--home",
                ".",
                "cert",
                "suspend",
                "--tenant",
                "demo",
                "--credential",
                "demo-p256",
            ];
            run(Command::new(crate::support::BINARY).current_dir(home).args(order)).code
        });
        let folder = engine.kill();
        let suspended = racing.join().unwrap() == 0;
        for thread in stamping {
            for serial in thread.join().unwrap() {
                assert!(stamped.insert(serial), "a serial number came twice");
            }
        }
        engine = Setup::default().start_in(folder);
        number = list_number(&engine, "dev-p256");
        assert!(
            number >= published,
            "lists are numbered {number} after {published}"
        );
        let all = certificates(&engine);
        let standing =
            |id: &str| all.iter().rev().find(|one| one["credential"] == id).unwrap()["standing"].clone();
        for id in &revoked {
            assert_eq!(standing(id), "revoked", "{id}");
        }
        let serials: HashSet<_> = all.iter().map(|one| one["serial"].to_string()).collect();
        assert_eq!(serials.len(), all.len());
        if standing("demo-p256") == "suspended" {
            engine.operate("cert resume --tenant demo --credential demo-p256");
        } else {
            assert!(!suspended, "a suspension that was confirmed is lost");
        }
    }
    assert!(!stamped.is_empty());
    eprintln!(
        "{rounds} kills, {} time stamps, {} revocations",
        stamped.len(),
        revoked.len()
    );
}

#[test]
fn a_hierarchy_outside_development_has_a_transcript_that_openssl_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let cli = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        crate::support::run_in(folder.path(), &words)
    };
    cli("init").ok();
    cli("ca create root-1 --role root --kind p256 --transcript root.json").ok();
    cli("ca create ca-1 --role issuing --kind p256 --issuer root-1 --days 365 --transcript ca.json").ok();
    cli("ca create tsa-1 --role tsa --kind rsa2048 --issuer ca-1 --transcript tsa.json").ok();
    cli("ca create root-1 --role root --kind p256 --transcript again.json").refused(2, "already_exists");
    cli("ca create x --role issuing --kind p256 --issuer tsa-1 --transcript x.json").refused(2, "usage");
    cli("ca create x --role root --kind ed25519 --transcript x.json").refused(2, "usage");
    cli("ca create x --role tsa --kind p256 --transcript x.json").refused(2, "usage");
    assert!(!folder.path().join("x.json").exists());
    let all: Value = serde_json::from_str(&cli("ca list").ok()).unwrap();
    let pem = |name: &str| {
        let mut all = all.as_array().unwrap().iter();
        all.find(|one| one["name"] == name).unwrap()["certificate"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for name in ["root-1", "ca-1", "tsa-1"] {
        std::fs::write(folder.path().join(format!("{name}.pem")), pem(name)).unwrap();
    }
    let openssl = |line: &str| {
        let words = line.split_whitespace();
        run(Command::new("openssl").current_dir(folder.path()).args(words))
    };
    openssl("verify -CAfile root-1.pem -untrusted ca-1.pem tsa-1.pem").ok();
    openssl("x509 -in root-1.pem -noout -pubkey -out root.pub").ok();
    for transcript in ["root.json", "ca.json"] {
        openssl(&format!(
            "dgst -sha256 -verify root.pub -signature {transcript}.sig {transcript}"
        ))
        .ok();
    }
    // A credential made under it brings its chain, up to the root.
    cli("tenant create acme").ok();
    cli("key create --tenant acme --kind p256 seal").ok();
    let list: Value = serde_json::from_str(&cli("cert list --tenant acme").ok()).unwrap();
    std::fs::write(
        folder.path().join("seal.pem"),
        list[0]["certificate"].as_str().unwrap(),
    )
    .unwrap();
    openssl("verify -CAfile root-1.pem -untrusted ca-1.pem seal.pem").ok();
}
