//! An authority with a million certificates: how fast they are issued, what they take in memory and on disk, how long a
//! revocation list of 50,000 takes, and what one answer about a certificate costs.
//!
//! `cargo bench -p benches --bench million_certificates`. `BENCH_CERTIFICATES` (20,000) is their number, `BENCH_REVOKED`
//! (1,000) how many of them are revoked; `BENCH_FOLDER` is where the store is made. Each certificate is linted, recorded,
//! signed and recorded again, as always; the records of 500 go into one commit.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where it stopped"
)]

use std::hint::black_box;
use std::path::Path;

use actors::answers::{Answers, Sources};
use actors::certificates::{Authorities, AuthorityPlan, found};
use actors::registrar::Ledger;
use actors::vault::Vault;
use documents::crl::Crl;
use documents::ocsp::{self, CertId, IdHash, Named};
use documents::x509::{self, Issuer, NameParts, Profile, Spec, Terms};
use hsm_pool::soft;
use protocol::algorithm::KeyKind;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::Refusal;
use protocol::ids::{AuthorityName, CredentialId, TenantName};
use store::{
    By, CertificateChange, CertificateStanding, Change, Directory, Environment, Holder, Prepared, Reader,
    Role, StoreHandle,
};

const COMMIT: usize = 500;
const DAY_MS: u64 = 24 * 3_600_000;
const SUPERSEDED: u8 = 4;
/// Answers that are measured.
const ANSWERS: usize = 2_000;

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

struct Books<'a>(&'a StoreHandle<u32>);

impl Ledger for Books<'_> {
    fn changes(&self, changes: Vec<Change>) -> Result<(), Refusal> {
        self.0.changes("bench", changes).map_err(|error| error.refusal())
    }

    fn directory(&self) -> &Directory {
        self.0.directory()
    }
}

/// The memory that this process has in use (VmRSS, proc(5)), in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

fn measure<T>(what: &str, run: impl FnOnce() -> T, show: impl FnOnce(&T, f64) -> String) -> T {
    let begun = clock::monotonic();
    let result = run();
    let seconds = begun.elapsed().as_secs_f64();
    let memory = resident_mib();
    println!(
        "| {what:<34} | {seconds:>9.3} s | {memory:>6} MiB | {} |",
        show(&result, seconds)
    );
    result
}

fn name(text: &str) -> AuthorityName {
    AuthorityName::new(text).unwrap()
}

/// A root that issues, and its OCSP responder.
fn make_authorities(store: &StoreHandle<u32>, vault: &Vault) -> Authorities {
    let load = || Authorities::load(&store.reader().unwrap(), vault, &None, "http://pki.example").unwrap();
    let plan = |own: &str, role, issuer: Option<&str>| AuthorityPlan {
        name: name(own),
        role,
        kind: KeyKind::P256,
        subject: subject(own),
        issuer: issuer.map(name),
        days: 3650,
        device: None,
    };
    for plan in [
        plan("root", Role::Root, None),
        plan("ca", Role::Issuing, Some("root")),
        plan("ocsp", Role::Ocsp, Some("ca")),
    ] {
        found(&load(), &Books(store), (vault, &None), plan, clock::wall()).unwrap();
    }
    load()
}

fn subject(common_name: &str) -> x509::Name {
    let parts = NameParts {
        country: Some("CN"),
        organization: Some("Bench"),
        common_name: Some(common_name),
    };
    parts.try_into().unwrap()
}

fn serial(number: usize) -> Vec<u8> {
    // As random ones lie in the index: in no order.
    let mixed = (number as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let mut bytes = mixed.to_be_bytes().to_vec();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    bytes
}

/// Issues the certificates of one commit.
fn issue(
    store: &StoreHandle<u32>,
    authorities: &Authorities,
    public_key: &[u8],
    numbers: std::ops::Range<usize>,
) {
    let issuer = authorities.get("ca").unwrap();
    let now = clock::wall();
    let holder = || Holder {
        tenant: TenantName::new("t").unwrap(),
        credential: Some(CredentialId::new("c").unwrap()),
    };
    let not_after = UnixMillis(now.0 + 365 * DAY_MS);
    let prepare = |number: usize| {
        let spec = Spec {
            serial: serial(number),
            issuer: Issuer::Holder(issuer.certificate.clone()),
            subject: subject(&format!("Subject {number}")),
            not_before: now,
            not_after,
            subject_public_key: public_key.to_vec(),
            profile: Profile::Signer,
            terms: Terms {
                crl: vec!["http://pki.example/crl/ca.crl".into()],
                ocsp: vec!["http://pki.example/ocsp".into()],
                ..Terms::default()
            },
        };
        x509::prepare(&spec, issuer.algorithm).unwrap()
    };
    let prepared: Vec<_> = numbers.clone().map(prepare).collect();
    let record = |(number, prepared): (usize, &x509::PreparedCertificate)| {
        Change::Certificates(CertificateChange::Prepare(Prepared {
            profile: "credential".into(),
            subject: None,
            environment: Environment::Production,
            key: key_hash(number),
            counted: false,
            issuer: issuer.name.clone(),
            serial: serial(number),
            holder: Some(holder()),
            tbs: prepared.tbs().to_vec(),
            not_after,
        }))
    };
    let records = numbers.clone().zip(&prepared).map(record).collect();
    store.changes("bench", records).unwrap();
    let sign = |(number, prepared): (usize, x509::PreparedCertificate)| {
        let signature = issuer.sign(prepared.to_sign()).unwrap();
        Change::Certificates(CertificateChange::Issue {
            states: Vec::new(),
            asked: None,
            issuer: issuer.name.clone(),
            serial: serial(number),
            certificate: prepared.assemble(&signature).unwrap(),
        })
    };
    let issued = numbers.zip(prepared).map(sign).collect();
    store.changes("bench", issued).unwrap();
}

/// As if each had a key of its own.
fn key_hash(number: usize) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
    hash
}

fn revoke(store: &StoreHandle<u32>, numbers: std::ops::Range<usize>) {
    let change = |number| {
        Change::Certificates(CertificateChange::SetStanding {
            issuer: name("ca"),
            serial: serial(number),
            standing: CertificateStanding::Revoked { reason: SUPERSEDED },
            by: By::Operator,
        })
    };
    store.changes("bench", numbers.map(change).collect()).unwrap();
}

fn in_commits(count: usize, mut each: impl FnMut(std::ops::Range<usize>)) {
    for from in (0..count).step_by(COMMIT) {
        each(from..(from + COMMIT).min(count));
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let sizes = files.map(|entry| {
        let known = entry.metadata().unwrap();
        if known.is_dir() {
            bytes_in(&entry.path())
        } else {
            known.len()
        }
    });
    sizes.sum()
}

fn answer(store: &StoreHandle<u32>, authorities: &Authorities, reader: &Reader, certificates: usize) {
    let answers = Answers::default();
    let issuer = Named::new(&authorities.get("ca").unwrap().certificate).unwrap();
    let sources = Sources {
        authorities,
        reader,
        standings: &store.directory().standings,
    };
    let request = |number: usize| ocsp::Request {
        ids: vec![CertId::new(
            &issuer,
            &serial(number * 7919 % certificates),
            IdHash::Sha1,
        )],
        nonce: None,
    };
    let requests: Vec<_> = (0..ANSWERS).map(request).collect();
    for what in ["OCSP: signed", "OCSP: from memory"] {
        measure(
            what,
            || {
                for request in &requests {
                    black_box(answers.answer(sources, request, clock::wall()));
                }
            },
            |(), seconds| format!("{:.1} µs an answer", seconds * 1e6 / ANSWERS as f64),
        );
    }
}

/// Makes a full list, reads it, and makes a delta to it.
fn publish(store: &StoreHandle<u32>, vault: &Vault, authorities: &Authorities, reader: &Reader) {
    let ca = authorities.get("ca").unwrap();
    measure(
        "revocation list: make and keep",
        || {
            authorities
                .publish(&Books(store), reader, ca, clock::wall())
                .unwrap()
        },
        |number, _| format!("number {number}"),
    );
    let list = reader.crl(&ca.name).unwrap().unwrap();
    measure(
        "revocation list: read",
        || Crl::parse(&list.der).unwrap().entries().len(),
        |entries, _| format!("{entries} entries, {} KiB", list.der.len() >> 10),
    );
    let deltas = Authorities::load(reader, vault, &None, "http://pki.example")
        .unwrap()
        .with_deltas(Some(3_600_000));
    measure(
        "delta list to it: make and keep",
        || {
            deltas
                .publish_change(&Books(store), reader, ca, clock::wall())
                .unwrap()
        },
        |number, _| format!("number {number}"),
    );
}

fn main() {
    let certificates = setting("BENCH_CERTIFICATES", 20_000);
    let revoked = setting("BENCH_REVOKED", 1_000).min(certificates);
    let scratch = match std::env::var_os("BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let home = scratch.path().join("home");
    let vault = Vault::new(&[7; 32]).unwrap();
    let store = benches::store::<u32>(&home, None, |_| {});
    let authorities = make_authorities(&store, &vault);
    let public_key = soft::generate(KeyKind::P256).unwrap().public_key;
    println!(
        "| {:<34} | {:>11} | {:>10} | |\n|---|---|---|---|",
        "what", "took", "memory"
    );
    measure(
        "issue",
        || {
            in_commits(certificates, |numbers| {
                issue(&store, &authorities, &public_key, numbers);
            });
        },
        |(), seconds| {
            format!(
                "{certificates} certificates, {:.0}/s",
                certificates as f64 / seconds
            )
        },
    );
    let bytes = bytes_in(&home);
    println!(
        "store: {} MiB, {} bytes a certificate",
        bytes >> 20,
        bytes / certificates as u64
    );
    measure(
        "revoke",
        || in_commits(revoked, |numbers| revoke(&store, numbers)),
        |(), seconds| format!("{revoked} certificates, {:.0}/s", revoked as f64 / seconds),
    );
    let reader = store.reader().unwrap();
    publish(&store, &vault, &authorities, &reader);
    answer(&store, &authorities, &reader, certificates);
    store.stop();
}
