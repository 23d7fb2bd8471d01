//! What became of certificates, and who gets time stamps: delta lists, kept OCSP answers, tokens that apps pay for, and
//! what the pki listener refuses.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use documents::crl::{Crl, Reason};
use documents::ocsp::{self, CertId, IdHash, Named, Response, Status};
use documents::{tsp, x509};
use protocol::algorithm::Hash;
use protocol::client::{Profile, Transport};
use protocol::error_code::Code;
use serde_json::Value;

use crate::pki::{
    Answer, Connection, folder, get, openssl, post, roots, serial_of, token_in, write_certificate,
};
use crate::strangers::python;
use crate::support::{BINARY, Engine, Ran, Setup, block_on, run, run_in};

fn number(list: &[u8]) -> Vec<u8> {
    Crl::parse(list).unwrap().number().unwrap().to_vec()
}

/// Fetches a list and writes it as PEM.
fn fetch(engine: &Engine, kind: &str) -> Vec<u8> {
    let answer = get(engine, &format!("/{kind}/dev-p256.crl"));
    assert_eq!((answer.status, &answer.kind[..]), (200, "application/pkix-crl"));
    std::fs::write(folder(engine).join(format!("{kind}.crl")), &answer.body).unwrap();
    openssl(engine, &format!("crl -inform DER -in {kind}.crl -out {kind}.pem")).ok();
    answer.body
}

/// What OpenSSL makes of the demo credential with both lists.
fn judge_with_deltas(engine: &Engine) -> Ran {
    fetch(engine, "crl");
    fetch(engine, "delta");
    let pem = |kind: &str| std::fs::read_to_string(folder(engine).join(format!("{kind}.pem"))).unwrap();
    std::fs::write(folder(engine).join("both.pem"), pem("crl") + &pem("delta")).unwrap();
    openssl(
        engine,
        "verify -CAfile var/dev/ca.pem -CRLfile both.pem -crl_check -use_deltas demo-p256.pem",
    )
}

#[test]
fn delta_lists_say_what_has_changed_and_openssl_follows_them() {
    let engine = Setup::default().set("crl_delta_minutes", 5).start();
    write_certificate(&engine, "demo-p256");
    let full = fetch(&engine, "crl");
    let first = fetch(&engine, "delta");
    {
        let delta = Crl::parse(&first).unwrap();
        assert_eq!(delta.base_number().unwrap(), number(&full));
        assert!(delta.entries().is_empty() && delta.number().unwrap() > &number(&full)[..]);
    }
    judge_with_deltas(&engine).ok();

    engine.operate("cert suspend --tenant demo --credential demo-p256");
    assert_eq!(fetch(&engine, "crl"), full, "the full list goes on");
    let judged = judge_with_deltas(&engine);
    assert!(
        judged.code != 0 && judged.stderr.contains("certificate revoked"),
        "{judged:?}"
    );

    // A full list that has it, made by a start in which there are no deltas; then it is taken back in a delta.
    let engine = Setup::default().start_in(engine.stop());
    engine.operate("cert suspend --tenant demo --credential demo-sm2");
    engine.operate("key create --tenant demo --kind p256 other");
    engine.operate("cert revoke --tenant demo --credential other --reason superseded");
    let engine = Setup::default()
        .set("crl_delta_minutes", 5)
        .start_in(engine.stop());
    assert_eq!(get(&engine, "/delta/dev-sm2.crl").status, 200);
    engine.operate("cert resume --tenant demo --credential demo-p256");
    let (full, delta) = (fetch(&engine, "crl"), fetch(&engine, "delta"));
    let (full, delta) = (Crl::parse(&full).unwrap(), Crl::parse(&delta).unwrap());
    let resumed = full
        .entries()
        .iter()
        .find(|entry| entry.reason == Reason::CertificateHold)
        .unwrap();
    let found = delta
        .entries()
        .iter()
        .find(|entry| entry.serial == resumed.serial)
        .unwrap();
    assert_eq!((found.reason, delta.entries().len()), (Reason::RemoveFromCrl, 1));
    delta.verify(&issuer(&engine)).unwrap();
    assert!(delta.number() > full.number());
}

/// The certificate of the authority dev-p256, in DER.
fn issuer(engine: &Engine) -> Vec<u8> {
    let all: Value = serde_json::from_str(&engine.operate("ca list")).unwrap();
    let found = all
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "dev-p256")
        .unwrap();
    pem::parse(found["certificate"].as_str().unwrap())
        .unwrap()
        .into_contents()
}

/// A query about the demo credential without a nonce.
fn about_demo(engine: &Engine) -> (CertId, Vec<u8>) {
    let row = write_certificate(engine, "demo-p256");
    let certificate = pem::parse(row["certificate"].as_str().unwrap()).unwrap();
    let serial = x509::serial_number(certificate.contents()).unwrap();
    let id = CertId::new(&Named::new(&issuer(engine)).unwrap(), &serial, IdHash::Sha1);
    let request = ocsp::Request {
        ids: vec![id.clone()],
        nonce: None,
    };
    (id, request.to_der().unwrap())
}

fn path_of(query: &[u8]) -> String {
    let text = STANDARD.encode(query);
    format!(
        "/ocsp/{}",
        text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    )
}

fn status_in(engine: &Engine, answer: &Answer, id: &CertId) -> Status {
    let response = Response::parse(&answer.body).unwrap();
    response
        .verify(&issuer(engine), id, None, protocol::clock::wall())
        .unwrap()
}

#[test]
fn an_answer_without_a_nonce_is_kept_until_the_certificate_changes() {
    let engine = Engine::start();
    let (id, query) = about_demo(&engine);
    let path = path_of(&query);
    let first = get(&engine, &path);
    assert_eq!(status_in(&engine, &first, &id), Status::Good);
    // An ECDSA signature that is made anew is another one.
    assert_eq!(get(&engine, &path).body, first.body);
    assert_eq!(
        post(&engine, "/ocsp", ocsp::REQUEST_TYPE, &query).body,
        first.body
    );

    engine.operate("cert suspend --tenant demo --credential demo-p256");
    let held = get(&engine, &path);
    let reason = |status| match status {
        Status::Revoked { reason, .. } => Some(reason),
        _ => None,
    };
    assert_eq!(
        reason(status_in(&engine, &held, &id)),
        Some(Reason::CertificateHold)
    );
    engine.operate("cert resume --tenant demo --credential demo-p256");
    assert_eq!(status_in(&engine, &get(&engine, &path), &id), Status::Good);
    engine.operate("cert revoke --tenant demo --credential demo-p256 --reason keyCompromise");
    let revoked = post(&engine, "/ocsp", ocsp::REQUEST_TYPE, &query);
    assert_eq!(
        reason(status_in(&engine, &revoked, &id)),
        Some(Reason::KeyCompromise)
    );

    let url = format!("http://{}/ocsp", engine.pki);
    let told = openssl(
        &engine,
        &format!(
            "ocsp -no_nonce -issuer var/dev/ca.pem -cert demo-p256.pem -CAfile var/dev/ca.pem -url {url}"
        ),
    );
    assert!(told.stderr.contains("Response verify OK"), "{told:?}");
    assert!(told.stdout.contains("demo-p256.pem: revoked"), "{told:?}");
}

#[test]
fn answers_to_get_say_how_long_they_may_be_kept() {
    let engine = Engine::start();
    let (_, query) = about_demo(&engine);
    let path = path_of(&query);
    let mut connection = Connection::open(engine.pki).unwrap();
    let answer = connection.ask("GET", &path, "", &[]).unwrap();
    let tag = answer.header("etag").to_owned();
    let kept = answer.header("cache-control");
    let seconds: u64 = kept
        .strip_prefix("max-age=")
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=1800).contains(&seconds), "{kept}");
    assert!(kept.contains("must-revalidate") && answer.header("expires").ends_with("GMT"));
    assert!(answer.header("last-modified").ends_with("GMT"));
    let again = connection
        .ask_with("GET", &path, &format!("If-None-Match: {tag}\r\n"), "", &[])
        .unwrap();
    assert_eq!(
        (again.status, again.body.len(), again.header("etag")),
        (304, 0, &tag[..])
    );
    let head = connection.ask("HEAD", &path, "", &[]).unwrap();
    assert_eq!((head.status, head.header("etag")), (200, &tag[..]));

    let with_nonce = ocsp::Request {
        nonce: Some(vec![7; 16]),
        ..ocsp::Request::parse(&query).unwrap()
    };
    let live = connection
        .ask("GET", &path_of(&with_nonce.to_der().unwrap()), "", &[])
        .unwrap();
    assert_eq!(live.header("cache-control"), "no-store");
    let list = connection.ask("GET", "/crl/dev-p256.crl", "", &[]).unwrap();
    assert!(list.header("cache-control").starts_with("max-age="));
    let tag = list.header("etag").to_owned();
    let again = connection
        .ask_with(
            "GET",
            "/crl/dev-p256.crl",
            &format!("If-None-Match: \"x\", {tag}\r\n"),
            "",
            &[],
        )
        .unwrap();
    assert_eq!(again.status, 304);
}

/// The token of a profile's app, as any client would make it.
fn token(profile: &Profile) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &profile.secret().unwrap());
    let mac = aws_lc_rs::hmac::sign(&key, b"cinnabar/tsa-token/1");
    format!("{}.{}", profile.app_id, URL_SAFE_NO_PAD.encode(mac))
}

fn query() -> Vec<u8> {
    tsp::Request::new(Hash::Sha256, &[7; 32], &[])
        .unwrap()
        .to_der()
        .unwrap()
}

fn is_granted(answer: &Answer) -> bool {
    answer.status == 200 && tsp::token_of(&answer.body).is_ok()
}

fn packages(engine: &Engine) -> Vec<Value> {
    serde_json::from_str(&engine.operate("package list --tenant acme")).unwrap()
}

#[test]
fn time_stamps_of_an_app_are_metered_and_paid_like_signatures() {
    let engine = Setup::default().set("tsa_anonymous", false).start();
    engine.make_prepaid(5);
    let token = token(&engine.prepaid_profile());
    let ask = |path: &str| post(&engine, path, tsp::QUERY_TYPE, &query());
    let path = format!("/tsa/{token}");
    // A balance of signatures pays for no time stamp.
    let refused = ask(&path);
    assert!(
        refused.status != 200 && refused.body.starts_with(b"quota_exhausted"),
        "{refused:?}"
    );
    engine.operate("package grant --tenant acme --kind by-time-stamp --units 1000");
    let paid = packages(&engine)
        .into_iter()
        .find(|one| one["kind"] == "by-time-stamp")
        .unwrap();
    let correct = format!(
        "package correct --package {} --units -997 --reason test",
        paid["package"]
    );
    engine.operate(&correct);

    assert!(is_granted(&ask(&path)));
    let mut connection = Connection::open(engine.pki).unwrap();
    let mac = token.rsplit_once('.').unwrap().1;
    let basic = format!(
        "Authorization: Basic {}\r\n",
        STANDARD.encode(format!("erp:{mac}"))
    );
    let answer = connection
        .ask_with("POST", "/tsa", &basic, tsp::QUERY_TYPE, &query())
        .unwrap();
    assert!(is_granted(&answer));
    assert!(is_granted(&ask(&format!("{path}?authority=dev-tsa-rsa2048"))));
    let over = ask(&path);
    assert!(
        over.body.starts_with(b"quota_exhausted"),
        "three were left: {over:?}"
    );

    refuses_who_has_no_token(&ask);
    let month = protocol::clock::wall();
    let statement = statement(&engine, month.0);
    let lines = statement["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 1, "{statement}");
    assert_eq!(
        (&lines[0]["operation"], &lines[0]["units"]),
        (&"time_stamp".into(), &3.into())
    );
    nothing_differs(&engine);

    engine.operate("app revoke erp");
    let revoked = ask(&path);
    assert!(revoked.body.starts_with(b"app_revoked"), "{revoked:?}");
    let folder = engine.stop();
    let checked = run_in(folder.path(), &["journal", "check"]).ok();
    assert!(checked.contains("agrees"), "{checked}");
}

/// Without a token that is right, a request is nobody's.
fn refuses_who_has_no_token(ask: &impl Fn(&str) -> Answer) {
    for wrong in [
        "/tsa",
        "/tsa/",
        "/tsa/erp",
        "/tsa/nobody.AAAA",
        &format!("/tsa/erp.{}", "A".repeat(43)),
    ] {
        let refused = ask(wrong);
        assert_eq!(refused.status, 401, "{wrong}");
        assert!(
            refused.header("www-authenticate").starts_with("Basic "),
            "{wrong}"
        );
    }
}

fn nothing_differs(engine: &Engine) {
    let reconciled: Value = serde_json::from_str(&engine.operate("reconcile")).unwrap();
    assert_eq!(
        reconciled["differences"],
        Value::Array(Vec::new()),
        "{reconciled}"
    );
}

fn statement(engine: &Engine, now_ms: u64) -> Value {
    let month = store::month_of(protocol::clock::UnixMillis(now_ms));
    let line = format!(
        "statement --tenant acme --month {:04}-{:02}",
        month / 100,
        month % 100
    );
    serde_json::from_str(&engine.operate(&line)).unwrap()
}

#[test]
fn time_stamps_of_nobody_in_particular_are_limited_and_booked_to_the_platform() {
    let engine = Setup::default().set("tsa_anonymous_rate", 3).start();
    let mut connection = Connection::open(engine.pki).unwrap();
    let mut ask = || connection.ask("POST", "/tsa", tsp::QUERY_TYPE, &query()).unwrap();
    let answers: Vec<Answer> = (0..20).map(|_| ask()).collect();
    let granted = answers.iter().filter(|answer| is_granted(answer)).count();
    let limited = answers.iter().filter(|answer| answer.status == 429).count();
    assert!(
        granted >= 3 && limited > 0 && granted + limited == 20,
        "{granted} {limited}"
    );
    let folder = engine.stop();
    let journal = run_in(folder.path(), &["journal", "export"]).ok();
    let booked = journal.lines().filter(|line| line.contains("\"tsa.book\""));
    let units = booked.map(|line| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let subject = entry["subject"].as_str().unwrap().to_owned();
        subject.rsplit_once('=').unwrap().1.parse::<usize>().unwrap()
    });
    assert_eq!(units.sum::<usize>(), granted);
}

/// Stamps for an app until the engine is gone, and says which serial numbers came.
fn stamp_until_gone(address: SocketAddr, path: &str) -> Vec<String> {
    let mut serials = Vec::new();
    let Ok(mut connection) = Connection::open(address) else {
        return serials;
    };
    while let Ok(answer) = connection.ask("POST", path, tsp::QUERY_TYPE, &query()) {
        let Some(token) = token_in(&answer) else { continue };
        let serial = serial_of(token);
        serials.push(serial.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    serials
}

/// Serial numbers of the time stamps in the journal of a stopped engine. None may be there twice.
fn recorded(folder: &Path) -> HashSet<String> {
    let mut serials = HashSet::new();
    for line in run_in(folder, &["journal", "export"]).ok().lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        if entry["kind"] == "time-stamp" {
            let serial = entry["serial"].as_str().unwrap().to_owned();
            assert!(serials.insert(serial), "a serial number is recorded twice");
        }
    }
    serials
}

#[test]
fn no_token_that_an_app_has_is_missing_after_a_kill_and_no_list_goes_back() {
    let rounds = std::env::var("TEST_CRASH_ROUNDS").map_or(3, |text| text.parse().unwrap());
    let setup = || Setup::default().set("crl_delta_minutes", 1);
    let mut engine = setup().start();
    engine.operate("tenant create acme");
    engine.operate("app create --tenant acme erp --profile-out erp.toml");
    let path = format!("/tsa/{}", token(&engine.prepaid_profile()));
    let (mut given, mut lists, mut revoked) = (HashSet::new(), (vec![], vec![]), Vec::new());
    for round in 0..rounds {
        let address = engine.pki;
        let stamping = [0, 1].map(|_| {
            let path = path.clone();
            std::thread::spawn(move || stamp_until_gone(address, &path))
        });
        let id = format!("seal-{round}");
        engine.operate(&format!("key create --tenant demo --kind p256 {id}"));
        engine.operate(&format!(
            "cert revoke --tenant demo --credential {id} --reason superseded"
        ));
        revoked.push(certificate_serial(&engine, &id));
        let before = (number(&fetch(&engine, "crl")), number(&fetch(&engine, "delta")));
        assert!(before >= lists, "{before:?} after {lists:?}");
        // One more is made while the engine dies; it may come or not, but not without a record.
        let home = engine.home();
        let racing = std::thread::spawn(move || {
            let order = [
                "--home",
                ".",
                "key",
                "create",
                "--tenant",
                "demo",
                "--kind",
                "p256",
                &format!("late-{round}"),
            ];
            run(Command::new(BINARY).current_dir(home).args(order)).code
        });
        let folder = engine.kill();
        let came = racing.join().unwrap() == 0;
        for thread in stamping {
            for serial in thread.join().unwrap() {
                assert!(given.insert(serial), "a serial number came twice");
            }
        }
        assert!(
            recorded(folder.path()).is_superset(&given),
            "a token without a record"
        );
        engine = setup().start_in(folder);
        lists = (number(&fetch(&engine, "crl")), number(&fetch(&engine, "delta")));
        assert!(lists >= before, "{lists:?} after {before:?}");
        if came {
            certificate_serial(&engine, &format!("late-{round}"));
        }
        for serial in &revoked {
            assert!(is_listed(&engine, serial), "a revocation is lost");
        }
    }
    nothing_differs(&engine);
    eprintln!("{rounds} kills, {} time stamps of an app", given.len());
    assert!(!given.is_empty());
}

fn certificate_serial(engine: &Engine, credential: &str) -> Vec<u8> {
    let row = write_certificate(engine, credential);
    let certificate = pem::parse(row["certificate"].as_str().unwrap()).unwrap();
    x509::serial_number(certificate.contents()).unwrap()
}

/// Whether a certificate is on the full list or on the delta to it.
fn is_listed(engine: &Engine, serial: &[u8]) -> bool {
    ["crl", "delta"]
        .iter()
        .any(|kind| Crl::parse(&fetch(engine, kind)).unwrap().find(serial).is_some())
}

fn refuses_other_methods_and_paths(connection: &mut Connection) {
    for (method, path, status, allowed) in [
        ("GET", "/tsa", 405, "POST"),
        ("PUT", "/ocsp", 405, "POST"),
        ("DELETE", "/crl/dev-p256.crl", 405, "GET, HEAD"),
        ("GET", "/", 404, ""),
        ("GET", "/crl/../etc/passwd", 404, ""),
        ("GET", "/crl/dev%2Dp256.crl", 404, ""),
        ("GET", "/delta/dev-p256.crl", 404, ""),
    ] {
        let answer = connection.ask(method, path, "", &[]).unwrap();
        assert_eq!(
            (answer.status, answer.header("allow")),
            (status, allowed),
            "{method} {path}"
        );
    }
}

#[test]
fn the_listener_refuses_what_is_no_request_in_clear_words() {
    let engine = Engine::start();
    let mut connection = Connection::open(engine.pki).unwrap();
    refuses_other_methods_and_paths(&mut connection);
    // SHA-1 is no hash for a time stamp (badAlg), and a digest has the length of its hash (badDataFormat).
    let sha1 = [
        &[
            0x30, 0x24, 2, 1, 1, 0x30, 0x1f, 0x30, 7, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 4, 0x14,
        ][..],
        &[7; 20],
    ]
    .concat();
    let rejected = |query: &[u8]| {
        let answer = post(&engine, "/tsa", tsp::QUERY_TYPE, query);
        assert_eq!(answer.status, 200);
        tsp::token_of(&answer.body).unwrap_err()
    };
    let failure = |failure| tsp::ResponseError::Rejected(Some(failure));
    assert_eq!(rejected(&sha1), failure(tsp::Failure::BadAlgorithm));
    assert_eq!(rejected(&query()[..20]), failure(tsp::Failure::BadDataFormat));
    assert_eq!(rejected(&[]), failure(tsp::Failure::BadDataFormat));
    // Somebody else's certificate: unauthorized (RFC 6960 4.2.1).
    let stranger = roots(&engine).into_iter().next().unwrap();
    let id = CertId::new(&Named::new(&stranger).unwrap(), &[1], IdHash::Sha256);
    let mut der = ocsp::Request {
        ids: vec![id],
        nonce: None,
    }
    .to_der()
    .unwrap();
    // Another name: a byte of its hash.
    let at = der.len() - 40;
    der[at] ^= 1;
    let answer = post(&engine, "/ocsp", ocsp::REQUEST_TYPE, &der);
    assert_eq!(answer.body, [0x30, 3, 0x0a, 1, 6]);
    assert_eq!(post(&engine, "/ocsp", "text/html", &der).status, 415);
    assert_eq!(post(&engine, "/ocsp", ocsp::REQUEST_TYPE, &[0; 9000]).status, 413);
    // A body of unknown length is cut off where it becomes too long.
    let chunk = [b"1000\r\n".as_slice(), &[0; 0x1000], b"\r\n"].concat();
    let head = b"POST /tsa HTTP/1.1\r\nHost: x\r\nContent-Type: application/timestamp-query\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = [&head[..], &chunk, &chunk, &chunk, b"0\r\n\r\n"].concat();
    let answer = Connection::open(engine.pki)
        .unwrap()
        .send(&chunked, false)
        .unwrap();
    assert_eq!(answer.status, 413);
    let nonsense = Connection::open(engine.pki)
        .unwrap()
        .send(b"\x16\x03\x01\x02\x00\r\n\r\n", false)
        .unwrap();
    assert_eq!(nonsense.status, 400);
    assert!(
        is_granted(&post(&engine, "/tsa", tsp::QUERY_TYPE, &query())),
        "and it goes on"
    );
}

#[test]
fn the_native_protocol_carries_time_stamps_and_status_and_the_command_line_asks_for_them() {
    let engine = Engine::start();
    let (id, about) = about_demo(&engine);
    block_on(async {
        let client = engine.client(Transport::Quic).await;
        let stamped = client.stamp(&query(), None).await.unwrap();
        assert!(tsp::token_of(&stamped).is_ok());
        let named = client.stamp(&query(), Some("nobody")).await.unwrap_err();
        assert_eq!(named.code, Code::NotFound);
        let rejected = client.stamp(&[1, 2, 3], None).await.unwrap();
        assert_eq!(
            tsp::token_of(&rejected).unwrap_err(),
            tsp::ResponseError::Rejected(Some(tsp::Failure::BadDataFormat))
        );
        let told = client.status(&about).await.unwrap();
        let response = Response::parse(&told).unwrap();
        let status = response.verify(&issuer(&engine), &id, None, protocol::clock::wall());
        assert_eq!(status.unwrap(), Status::Good);
        let https = engine.client(Transport::Https).await;
        assert_eq!(https.stamp(&query(), None).await.unwrap_err().code, Code::Usage);
    });
    std::fs::write(folder(&engine).join("content"), "what existed then").unwrap();
    let url = format!("http://{}/tsa", engine.pki);
    for (asked, hash) in [
        ("--profile var/dev/app.toml".to_owned(), "sha256"),
        (format!("--url {url}"), "sha384"),
        (format!("--url {url} --profile var/dev/app.toml"), "sm3"),
    ] {
        engine.operate(&format!(
            "tsa stamp {asked} --file content --hash {hash} --out r.tsr"
        ));
        let told = engine.operate("tsa verify --token r.tsr --file content --ca var/dev/ca.pem");
        assert!(told.contains("\"authority\""), "{told}");
    }
    std::fs::write(folder(&engine).join("content"), "something else").unwrap();
    let other = engine.cli(&[
        "tsa",
        "verify",
        "--token",
        "r.tsr",
        "--file",
        "content",
        "--ca",
        "var/dev/ca.pem",
    ]);
    other.refused(2, "signature_invalid");
    // Two of them were for the app: its usage says so.
    let usage: Value =
        serde_json::from_str(&engine.operate("usage --profile var/dev/app.toml --json")).unwrap();
    assert!(usage.to_string().contains("\"#time_stamp\":3"), "{usage}");
}

/// What pyhanko-certvalidator makes of the path to the demo credential with both lists.
fn judge_by_stranger(engine: &Engine) -> String {
    fetch(engine, "crl");
    fetch(engine, "delta");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/strangers/path_judge.py");
    let files = ["var/dev/ca.pem", "demo-p256.pem", "crl.crl", "delta.crl"];
    let judged = run(Command::new(python())
        .current_dir(folder(engine))
        .arg(script)
        .args(files));
    judged.ok().trim().to_owned()
}

#[test]
fn a_stranger_validates_the_path_with_full_and_delta_lists() {
    let engine = Setup::default().set("crl_delta_minutes", 5).start();
    write_certificate(&engine, "demo-p256");
    assert_eq!(judge_by_stranger(&engine), "valid");
    engine.operate("cert suspend --tenant demo --credential demo-p256");
    assert_eq!(judge_by_stranger(&engine), "revoked certificate_hold");
    engine.operate("cert resume --tenant demo --credential demo-p256");
    assert_eq!(judge_by_stranger(&engine), "valid");
    engine.operate("cert revoke --tenant demo --credential demo-p256 --reason keyCompromise");
    assert_eq!(judge_by_stranger(&engine), "revoked key_compromise");
}
