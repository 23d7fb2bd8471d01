//! Authorities from outside: their keys in devices, their renewal and their end, judged by OpenSSL.

use std::path::Path;

use protocol::client::{Client, Transport};
use protocol::error_code::Code;

use crate::alerts::FAKETIME;
use crate::devices_support::{Site, cinnabar, json};
use crate::pki::{fetch_list, folder, openssl};
use crate::support::{Engine, Ran, Setup, block_on, request, run_in, sign_one, wait_until};

/// Writes every authority's certificate into `NAME.pem`.
fn write_authorities(engine: &Engine) {
    for one in json(engine, "ca list").as_array().unwrap() {
        let name = one["name"].as_str().unwrap();
        let path = folder(engine).join(format!("{name}.pem"));
        std::fs::write(path, one["certificate"].as_str().unwrap()).unwrap();
    }
}

/// Judges `leaf.pem` under `root` and `issuing`, with the lists of both.
fn verify_all(engine: &Engine, root: &str, issuing: &str, leaf: &str) -> Ran {
    let mut lists = String::new();
    for name in [root, issuing] {
        fetch_list(engine, name);
        lists += &openssl(engine, &format!("crl -inform DER -in {name}.crl")).ok();
    }
    std::fs::write(folder(engine).join("lists.pem"), lists).unwrap();
    let line = format!(
        "verify -CAfile {root}.pem -untrusted {issuing}.pem -CRLfile lists.pem -crl_check_all {leaf}.pem"
    );
    openssl(engine, &line)
}

/// Makes a root and an issuing authority below it, each in the device if one is named.
fn make_hierarchy(engine: &Engine, (root, issuing): (&str, &str), more: &str) {
    for (name, role, issuer) in [
        (root, "root", String::new()),
        (issuing, "issuing", format!("--issuer {root}")),
    ] {
        let line =
            format!("ca create {name} --role {role} --kind p256 {issuer} {more} --transcript {name}.json");
        cinnabar(engine, &line).ok();
    }
    write_authorities(engine);
}

fn issue(engine: &Engine, credential: &str, issuer: &str, out: &str) -> Ran {
    let line = format!(
        "cert issue --tenant demo --profile credential --credential {credential} --issuer {issuer} --out {out}.pem"
    );
    cinnabar(engine, &line)
}

fn sign(engine: &Engine, credential: &str, key: &str) -> Result<(), Code> {
    block_on(async {
        let client = Client::connect(&engine.profile(), Transport::Quic, 1)
            .await
            .unwrap();
        let mut wanted = request(key, key);
        wanted.credential = credential.into();
        let signed = sign_one(&client, &wanted).await;
        signed.map(drop).map_err(|refusal| refusal.code)
    })
}

#[test]
fn authorities_whose_keys_are_in_a_device_certify_and_publish_lists() {
    let engine = Site::new().softhsm("hsm-1").start();
    make_hierarchy(&engine, ("root-d", "issuing-d"), "--device hsm-1");
    for one in json(&engine, "ca list").as_array().unwrap() {
        let is_ours = one["name"].as_str().unwrap().ends_with("-d");
        assert_eq!(one["device"] == "hsm-1", is_ours, "{one}");
    }
    // The transcript is signed in the device, too.
    openssl(&engine, "x509 -in root-d.pem -noout -pubkey -out root-d.pub").ok();
    let judged = "dgst -sha256 -verify root-d.pub -signature issuing-d.json.sig issuing-d.json";
    openssl(&engine, judged).ok();
    cinnabar(&engine, "key create --tenant demo --kind p256 sealed").ok();
    issue(&engine, "sealed", "issuing-d", "leaf").ok();
    verify_all(&engine, "root-d", "issuing-d", "leaf").ok();
    sign(&engine, "sealed", "before").unwrap();
    cinnabar(
        &engine,
        "cert revoke --tenant demo --credential sealed --reason superseded",
    )
    .ok();
    let judged = verify_all(&engine, "root-d", "issuing-d", "leaf");
    assert!(judged.stderr.contains("certificate revoked"), "{judged:?}");

    // Answers and time stamps are signed on the threads that give them.
    let tsa =
        "ca create tsa-d --role tsa --kind p256 --issuer issuing-d --device hsm-1 --transcript tsa.json";
    cinnabar(&engine, tsa).refused(2, "usage");
    let nowhere = "ca create x --role root --kind p256 --device nowhere --transcript x.json";
    cinnabar(&engine, nowhere).refused(2, "not_found");
    assert!(!folder(&engine).join("x.json").exists());

    // Without the engine there is no device; with it, keys are found again.
    let folder = engine.stop();
    let line = "ca renew issuing-d --transcript offline.json";
    run_in(folder.path(), &line.split(' ').collect::<Vec<_>>()).refused(2, "usage");
    let engine = Setup::default().start_in(folder);
    // A new credential is certified by whose certificate ends last: this one.
    wait_until("the device works", || {
        cinnabar(&engine, "key create --tenant demo --kind p256 another").code == 0
    });
    issue(&engine, "another", "issuing-d", "another").ok();
    verify_all(&engine, "root-d", "issuing-d", "another").ok();
}

#[test]
fn a_renewed_authority_keeps_its_key_and_what_it_has_certified_holds() {
    let engine = Engine::start();
    make_hierarchy(&engine, ("root-r", "issuing-r"), "");
    issue(&engine, "demo-p256", "issuing-r", "leaf").ok();
    let serial = |name: &str| {
        let list = json(&engine, "ca list");
        let mut all = list.as_array().unwrap().iter();
        all.find(|one| one["name"] == name).unwrap()["serial"].clone()
    };
    let before = [serial("root-r"), serial("issuing-r")];
    let key = |file: &str| openssl(&engine, &format!("x509 -in {file}.pem -noout -pubkey")).ok();
    let old = key("issuing-r");
    for name in ["root-r", "issuing-r"] {
        cinnabar(
            &engine,
            &format!("ca renew {name} --days 900 --transcript {name}-2.json"),
        )
        .ok();
    }
    write_authorities(&engine);
    assert_eq!(key("issuing-r"), old);
    let after = [serial("root-r"), serial("issuing-r")];
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    openssl(&engine, "x509 -in root-r.pem -noout -pubkey -out root-r.pub").ok();
    openssl(
        &engine,
        "dgst -sha256 -verify root-r.pub -signature issuing-r-2.json.sig issuing-r-2.json",
    )
    .ok();
    verify_all(&engine, "root-r", "issuing-r", "leaf").ok();
    issue(&engine, "demo-p256", "issuing-r", "leaf").ok();
    verify_all(&engine, "root-r", "issuing-r", "leaf").ok();
    sign(&engine, "demo-p256", "after").unwrap();
    // Roots are on record before they are signed, as all others are.
    let orders = crate::life::orders(&engine);
    let at = |text: &str| orders.iter().position(|order| order.contains(text));
    let (prepared, made) = (at("certificate.prepare root-r/"), at("ca.create root-r"));
    assert!(prepared.is_some() && prepared < made, "{orders:?}");
    assert!(at("ca.renew issuing-r").is_some());
}

#[test]
fn what_a_revoked_authority_has_certified_signs_nothing_and_is_refused_by_whoever_checks() {
    let engine = Engine::start();
    make_hierarchy(&engine, ("root-x", "issuing-x"), "");
    cinnabar(&engine, "key create --tenant demo --kind p256 below").ok();
    issue(&engine, "below", "issuing-x", "leaf").ok();
    verify_all(&engine, "root-x", "issuing-x", "leaf").ok();
    sign(&engine, "below", "before").unwrap();
    cinnabar(&engine, "ca revoke root-x --reason cACompromise").refused(2, "usage");
    cinnabar(&engine, "ca revoke issuing-x --reason certificateHold").refused(2, "usage");
    let told = json(&engine, "ca revoke issuing-x --reason cACompromise");
    assert!(told["crl_number"].is_u64(), "{told}");

    assert_eq!(sign(&engine, "below", "after"), Err(Code::CredentialDisabled));
    let judged = verify_all(&engine, "root-x", "issuing-x", "leaf");
    assert!(judged.stderr.contains("certificate revoked"), "{judged:?}");
    for (line, code) in [
        ("key enable --tenant demo below", "credential_disabled"),
        ("cert renew --tenant demo --credential below", "refused"),
        ("ca renew issuing-x --transcript x.json", "wrong_state"),
        ("ca revoke issuing-x --reason cACompromise", "wrong_state"),
    ] {
        let ran = cinnabar(&engine, line);
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
        assert!(ran.stderr.contains(code), "{line}: {ran:?}");
    }
    issue(&engine, "below", "issuing-x", "again").refused(2, "certificate_request_refused");
    // Others certify on, and after a restart all of it is still so.
    sign(&engine, "demo-p256", "others").unwrap();
    let engine = Setup::default().start_in(engine.stop());
    assert_eq!(sign(&engine, "below", "later"), Err(Code::CredentialDisabled));
    let list = json(&engine, "ca list");
    let revoked = |name: &str| {
        let mut all = list.as_array().unwrap().iter();
        all.find(|one| one["name"] == name).unwrap()["revoked"].clone()
    };
    assert_eq!(
        (revoked("issuing-x"), revoked("root-x")),
        (true.into(), false.into())
    );
    issue(&engine, "below", "dev-p256", "again").ok();
    cinnabar(&engine, "key enable --tenant demo below").ok();
    sign(&engine, "below", "under-another-authority").unwrap();
}

/// The clock of a store that was written to an hour ahead of now.
fn ahead() -> protocol::clock::UnixMillis {
    protocol::clock::UnixMillis(protocol::clock::wall().0 + 3_600_000)
}

/// Reserves a number as if it were an hour later.
fn write_ahead(home: &Path) {
    let options = store::Options {
        clock: ahead,
        ..store::Options::default()
    };
    let store = store::Store::<u32>::open(home, options).unwrap();
    let running = store.start(|_| {}, |error| panic!("{error}")).unwrap();
    let authority: protocol::ids::AuthorityName = "dev-tsa-p256".parse().unwrap();
    let known = running.reader().unwrap().serial_blocks(&authority).unwrap();
    let change = store::CertificateChange::ReserveSerials {
        authority,
        first: known.next,
        count: 1,
    };
    running
        .change("test", store::Change::Certificates(change))
        .unwrap();
    running.stop();
}

#[test]
fn nothing_is_certified_while_the_clock_is_behind_what_is_on_record() {
    let engine = Engine::start();
    make_hierarchy(&engine, ("root-c", "issuing-c"), "");
    let home = engine.home();
    let folder = engine.stop();
    write_ahead(&home);
    let cli = |line: &str| run_in(folder.path(), &line.split(' ').collect::<Vec<_>>());
    for line in [
        "cert renew --tenant demo --credential demo-p256",
        "ca renew issuing-c --transcript again.json",
        "ca create late --role root --kind p256 --transcript late.json",
    ] {
        cli(line).refused(4, "clock_behind");
    }
    // What is revoked is revoked all the same, and a list says so.
    cli("cert revoke --tenant demo --credential demo-p256 --reason superseded").ok();
}

#[test]
fn what_the_configuration_says_of_authorities_is_what_they_get() {
    let text = "[[certificate_profile]]\nname = \"intermediate\"\npath_length = 3\ndays = 700\n\
                [[certificate_profile]]\nname = \"issuing\"\nenabled = false\n";
    let engine = Setup::default().config(text).start();
    cinnabar(
        &engine,
        "ca create top --role root --kind p256 --transcript top.json",
    )
    .ok();
    cinnabar(
        &engine,
        "ca create mid --role intermediate --kind p256 --issuer top --transcript mid.json",
    )
    .ok();
    write_authorities(&engine);
    let shown = openssl(&engine, "x509 -in mid.pem -noout -ext basicConstraints").ok();
    assert!(shown.contains("pathlen:3"), "{shown}");
    let days = |name: &str| -> u64 {
        let list = json(&engine, "ca list");
        let one = list.as_array().unwrap().iter().find(|one| one["name"] == name);
        let end = one.unwrap()["not_after_ms"].as_u64().unwrap();
        end.saturating_sub(protocol::clock::wall().0)
            .div_ceil(24 * 3_600_000)
    };
    assert_eq!(days("mid"), 700);
    cinnabar(
        &engine,
        "ca create none --role issuing --kind p256 --issuer top --transcript none.json",
    )
    .refused(2, "usage");
}

#[test]
fn an_authority_that_has_expired_certifies_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let engine = Setup::default()
        .environment("LD_PRELOAD", FAKETIME)
        .environment("FAKETIME_TIMESTAMP_FILE", &clock)
        .environment("FAKETIME_NO_CACHE", Path::new("1"))
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1"))
        .start_in(folder);
    cinnabar(
        &engine,
        "ca create short --role root --kind p256 --days 1 --transcript short.json",
    )
    .ok();
    let below = "ca create NAME --role intermediate --kind p256 --issuer short --transcript NAME.json";
    cinnabar(&engine, &below.replace("NAME", "in-time")).ok();
    std::fs::write(&clock, "+172800").unwrap();
    cinnabar(&engine, &below.replace("NAME", "too-late")).refused(4, "authority_unavailable");
    // The engine does not outlive the file that its clock reads.
    drop(engine);
}
