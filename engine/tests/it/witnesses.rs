//! Who vouches for the audit log: a witness of the test's own, which judges with `tlog_tiles` and `signed_note` what it is
//! asked to cosign, and a second engine as the outside authority for time stamps.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use protocol::client::Transport;
use serde_json::{Value, json};
use signed_note::{StandardVerifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash};

use crate::receivers::{Heard, Receiver, Said};
use crate::support::{Engine, Ran, Setup, block_on, request, run_in, wait_until};

/// A witness (c2sp.org/tlog-witness) of one log.
struct Witness {
    name: &'static str,
    pair: Ed25519KeyPair,
    /// The log's key; without it no log is known.
    log: Mutex<Option<String>>,
    /// How large the log was last, and its root.
    seen: Mutex<(u64, Hash)>,
}

impl Witness {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            pair: Ed25519KeyPair::from_seed_unchecked(&[name.len() as u8; 32]).unwrap(),
            log: Mutex::default(),
            seen: Mutex::new((0, Hash::default())),
        })
    }

    fn typed_key(&self) -> Vec<u8> {
        [&[4], self.pair.public_key().as_ref()].concat()
    }

    fn id(&self) -> Vec<u8> {
        let text = [self.name.as_bytes(), b"\n", &self.typed_key()].concat();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
        digest.as_ref()[..4].to_vec()
    }

    fn vkey(&self) -> String {
        let id: String = self.id().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}+{id}+{}", self.name, STANDARD.encode(self.typed_key()))
    }

    fn serve(self: &Arc<Self>) -> Receiver {
        let witness = Arc::clone(self);
        Receiver::answering(move |heard| witness.answer(heard))
    }

    fn answer(&self, heard: &Heard) -> Said {
        assert_eq!(heard.target, "POST /add-checkpoint HTTP/1.1");
        let said = |status: &str, body: String| (status.to_owned(), body);
        let Some(log) = self.log.lock().clone() else {
            return said("404 Not Found", String::new());
        };
        let (head, note) = heard.body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let known: u64 = lines
            .next()
            .unwrap()
            .strip_prefix("old ")
            .unwrap()
            .parse()
            .unwrap();
        let proof = lines.map(|line| Hash::parse_hash(line).unwrap()).collect();
        let note = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        let keys = VerifierList::new(vec![Box::new(StandardVerifier::new(&log).unwrap())]);
        note.verify(&keys).unwrap();
        let checkpoint = Checkpoint::from_bytes(note.text()).unwrap();
        let mut seen = self.seen.lock();
        if known != seen.0 {
            return said("409 Conflict", format!("{}\n", seen.0));
        }
        if known > 0 {
            tlog_tiles::check_tree(&proof, checkpoint.size(), *checkpoint.hash(), known, seen.1).unwrap();
        }
        *seen = (checkpoint.size(), *checkpoint.hash());
        said("200 OK", self.line(std::str::from_utf8(note.text()).unwrap()))
    }

    fn line(&self, text: &str) -> String {
        let time = protocol::clock::wall().seconds();
        let signature = self
            .pair
            .sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        let bytes = [&self.id(), &time.to_be_bytes()[..], signature.as_ref()].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

fn sign(engine: &Engine, name: &str) {
    block_on(async {
        let client = engine.client(Transport::Quic).await;
        client.sign(&request(name, name)).await.unwrap();
    });
}

fn verify(folder: &std::path::Path, line: &str) -> Ran {
    let words = format!("audit verify --dir var {line}");
    run_in(folder, &words.split_whitespace().collect::<Vec<_>>())
}

fn cosigned(engine: &Engine) -> u64 {
    let text = std::fs::read_to_string(engine.home().join("audit/cosigned")).unwrap_or_default();
    text.lines().nth(1).map_or(0, |size| size.parse().unwrap())
}

fn configured(witness: &Witness, url: &str) -> String {
    format!("[[witness]]\nkey = \"{}\"\nurl = \"{url}\"\n", witness.vkey())
}

#[test]
fn checkpoints_are_cosigned_by_the_witnesses_that_answer_and_verify_says_by_whom() {
    let (here, gone) = (Witness::new("witness.example/here"), Witness::new("gone.example"));
    let receiver = here.serve();
    let nobody = Receiver::start(&[]).url();
    let setup = || {
        let text = configured(&here, &receiver.url()) + &configured(&gone, &nobody);
        Setup::default().config(&text).set("witness_every_s", 1)
    };
    let engine = setup().start();
    let vkey = engine.operate("audit key").trim().to_owned();
    sign(&engine, "first");
    wait_until("the witness was asked", || !receiver.heard().is_empty());
    assert_eq!(cosigned(&engine), 0, "a witness that knows no log has signed");
    *here.log.lock() = Some(vkey.clone());
    wait_until("it is cosigned", || cosigned(&engine) > 0);
    let first = cosigned(&engine);
    sign(&engine, "second");
    wait_until("what was added is cosigned", || cosigned(&engine) > first);

    // The engine that starts anew has forgotten what the witness knows, and is told.
    let engine = setup().start_in(engine.stop());
    let second = here.seen.lock().0;
    sign(&engine, "third");
    wait_until("it goes on", || cosigned(&engine) > second);
    let folder = engine.stop();
    let line = format!("--key {vkey} --witness {} --witness {}", here.vkey(), gone.vkey());
    let found: Value = serde_json::from_str(&verify(folder.path(), &line).ok()).unwrap();
    let cosigned = &found["cosigned"];
    assert!(cosigned["valid"][here.name].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(cosigned["missing"], json!([gone.name]));
    // Whoever names no witness is told who has signed, and that nobody has checked it.
    let found: Value = serde_json::from_str(&verify(folder.path(), &format!("--key {vkey}")).ok()).unwrap();
    assert_eq!(found["cosigned"]["unchecked"], json!([here.name]));
    // Somebody else's signature in the witness's name.
    let path = folder.path().join("var/audit/cosigned");
    let text = std::fs::read_to_string(&path).unwrap();
    let (note, _) = text.trim_end().rsplit_once('\n').unwrap();
    let (text, _) = note.split_once("\n\n").unwrap();
    let forged = here.line(&format!("{text}\n").replacen('\n', "\n1", 1));
    std::fs::write(&path, format!("{note}\n{forged}")).unwrap();
    verify(folder.path(), &line).refused(2, "signature_invalid");
}

#[test]
fn checkpoints_are_stamped_by_an_outside_authority() {
    let authority = Engine::start();
    let ca = authority.dev("ca.pem").display().to_string();
    let engine = Setup::default()
        .set("audit_tsa", format!("http://{}/tsa", authority.pki))
        .set("audit_tsa_ca", &ca)
        .set("audit_tsa_every_s", 1)
        .start();
    sign(&engine, "first");
    let stamps = || {
        let there = std::fs::read_dir(engine.home().join("audit/stamps"));
        there.map_or(0, |there| {
            there
                .flatten()
                .filter(|file| file.path().extension().is_some_and(|end| end == "json"))
                .count()
        })
    };
    wait_until("a checkpoint is stamped", || stamps() > 0);
    let first = stamps();
    sign(&engine, "second");
    wait_until("so is a later one", || stamps() > first);
    let folder = engine.stop();
    let found: Value = serde_json::from_str(&verify(folder.path(), &format!("--tsa-ca {ca}")).ok()).unwrap();
    let valid = found["time_stamps"]["valid"].as_array().unwrap();
    assert!(valid.len() > first, "{found}");
    assert!(valid[0]["leaves"].as_u64() < found["leaves"].as_u64());
    let unchecked: Value = serde_json::from_str(&verify(folder.path(), "").ok()).unwrap();
    assert_eq!(unchecked["time_stamps"]["checked"], false);
    // The stamp of one checkpoint on another.
    let stamps = std::fs::read_dir(folder.path().join("var/audit/stamps")).unwrap();
    let path = stamps.map(|file| file.unwrap().path()).min().unwrap();
    let mut stamp: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    stamp["checkpoint"] = std::fs::read_to_string(folder.path().join("var/audit/checkpoint"))
        .unwrap()
        .into();
    std::fs::write(&path, stamp.to_string()).unwrap();
    verify(folder.path(), &format!("--tsa-ca {ca}")).refused(2, "signature_invalid");
}
