//! What a signature costs as the work grows: with 1 to a million credentials, 1 to 10,000 tenants, a journal of 10 to many
//! rows. The way is that of the `shard` bench, everything but wire and TLS; the cost is the CPU time of the process.
//!
//! `cargo bench -p benches --bench growth`. `BENCH_CREDENTIALS` (20,000), `BENCH_TENANTS` (1,000), `BENCH_ROWS` (200,000) are
//! where it ends, `BENCH_SIGNATURES` (20,000) what each figure is measured over, `BENCH_FOLDER` where its stores are (300
//! bytes a row). Credentials share a key pair, because making a million would take an hour; the cache knows them by rows.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where it stopped"
)]

use std::rc::Rc;
use std::sync::Arc;

use actix_rt::System;
use actors::core::Core;
use actors::services::Services;
use actors::vault::Vault;
use benches::path::{Counter, Kept, services, submit};
use benches::{REQUEST, attempt, parties, random_key};
use protocol::algorithm::KeyKind;
use protocol::ids::{AppId, CredentialId, TenantName};
use smallvec::SmallVec;
use store::{App, CHANGES_MAX, Change, Claim, Draft, Environment, NewApp, NewCredential, Place, Released};

const IN_FLIGHT: usize = 256;

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

fn cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10_000.0
}

fn folder() -> tempfile::TempDir {
    match std::env::var_os("BENCH_FOLDER") {
        Some(parent) => tempfile::tempdir_in(parent).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// An engine without fronts.
struct Engine {
    system: actix_rt::SystemRunner,
    services: Arc<Services>,
    core: Rc<Core>,
    kept: Kept,
    number: u64,
    _folder: tempfile::TempDir,
}

impl Engine {
    fn start() -> Self {
        let folder = folder();
        let system = System::new();
        let vault = Arc::new(Vault::new(&[7; 32]).unwrap());
        let kept = Kept::new(&vault, "t");
        let services = services(folder.path(), &vault, &kept);
        let core = system.block_on(async { Core::install(Arc::clone(&services), 0) });
        Self {
            system,
            services,
            core,
            kept,
            number: 0,
            _folder: folder,
        }
    }

    fn credential(&self, tenant: &str, id: &str) -> Change {
        Change::CreateCredential(NewCredential {
            tenant: TenantName::new(tenant).unwrap(),
            id: CredentialId::new(id).unwrap(),
            environment: Environment::Production,
            kind: KeyKind::P256,
            public_key: self.kept.public_key.as_slice().into(),
            place: Place::Software,
            spare: None,
            wrapped: Some(self.kept.wrapped.as_slice().into()),
            chain: Vec::new(),
            validity: None,
        })
    }

    fn change(&self, changes: impl Iterator<Item = Change>) {
        let mut changes = changes.peekable();
        while changes.peek().is_some() {
            let part = changes.by_ref().take(CHANGES_MAX).collect();
            self.services.store.changes("bench", part).unwrap();
        }
    }

    /// CPU microseconds a signature. Each asks for what `pick` says.
    fn cost(&mut self, signatures: usize, pick: impl Fn(u64) -> (Arc<App>, String)) -> f64 {
        self.sign(signatures / 5, &pick);
        let before = cpu_us();
        self.sign(signatures, &pick);
        (cpu_us() - before) / signatures as f64
    }

    fn sign(&mut self, signatures: usize, pick: &impl Fn(u64) -> (Arc<App>, String)) {
        for _ in 0..signatures.div_ceil(IN_FLIGHT) {
            let counter = Counter::new(IN_FLIGHT);
            self.system.block_on(async {
                for _ in 0..IN_FLIGHT {
                    self.number += 1;
                    let (app, credential) = pick(self.number);
                    submit(&self.core, &app, &credential, &counter, self.number);
                }
                counter.done().await;
            });
        }
    }
}

/// 1, 10, 100 … up to and including the end.
fn decades(end: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |n| Some(n * 10))
        .take_while(move |n| *n < end)
        .chain([end])
}

/// Spreads numbers over `0..count` without a pattern.
fn spread(number: u64, count: usize) -> usize {
    ((u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) * count as u128) >> 64) as usize
}

fn credentials(end: usize, signatures: usize) {
    println!("| credentials | a thousand of them in use, µs | any of them, µs |\n|---|---|---|");
    let mut engine = Engine::start();
    let mut made = 0;
    for count in decades(end) {
        engine.change((made..count).map(|n| engine.credential("t", &format!("w{n}"))));
        made = count;
        let (app, _) = parties(&engine.services.store);
        let busy = engine.cost(signatures, |n| {
            let one = spread(n, count.min(1_000)) * (count / count.min(1_000));
            (Arc::clone(&app), format!("w{one}"))
        });
        let any = engine.cost(signatures, |n| {
            (Arc::clone(&app), format!("w{}", spread(n, count)))
        });
        println!("| {count} | {busy:.1} | {any:.1} |");
    }
    engine.services.store.stop();
}

fn tenants(end: usize, signatures: usize) {
    println!("\n| tenants | CPU µs |\n|---|---|");
    let mut engine = Engine::start();
    let mut apps = vec![parties(&engine.services.store).0];
    for count in decades(end) {
        let vault = Vault::new(&[7; 32]).unwrap();
        let new = (apps.len()..count).flat_map(|n| new_tenant(&vault, n));
        engine.change(new.collect::<Vec<_>>().into_iter());
        let directory = engine.services.store.directory();
        apps.extend((apps.len()..count).map(|n| directory.app(&format!("a{n}")).unwrap()));
        let cost = engine.cost(signatures, |n| {
            (Arc::clone(&apps[spread(n, count)]), "c".to_owned())
        });
        println!("| {count} | {cost:.1} |");
    }
    engine.services.store.stop();
}

/// A tenant with a key of its own, an app and a credential.
fn new_tenant(vault: &Vault, number: usize) -> [Change; 3] {
    let name = format!("t{number}");
    let kept = Kept::new(vault, &name);
    let tenant = TenantName::new(&name).unwrap();
    [
        Change::CreateTenant {
            name: tenant.clone(),
            prepaid: None,
            data_key: kept.data_key.into(),
        },
        Change::CreateApp(NewApp {
            tenant: tenant.clone(),
            id: AppId::new(&format!("a{number}")).unwrap(),
            environment: Environment::Production,
            secret: None,
            public_key: None,
            client_certificate: None,
            binding_required: true,
        }),
        Change::CreateCredential(NewCredential {
            tenant,
            id: CredentialId::new("c").unwrap(),
            environment: Environment::Production,
            kind: KeyKind::P256,
            public_key: kept.public_key.into(),
            place: Place::Software,
            spare: None,
            wrapped: Some(kept.wrapped.into()),
            chain: Vec::new(),
            validity: None,
        }),
    ]
}

/// What the committing thread, the key index and their files need for a row, in commits of a thousand.
fn rows(end: usize) {
    const COMMIT: usize = 1_000;
    println!("\n| journal rows | CPU µs a row, in commits of 1,000 |\n|---|---|");
    let folder = folder();
    let (tell, delivered) = crossbeam_channel::bounded(1_024);
    let deliver = move |all: Vec<store::Delivery<u32>>| {
        // The bench waits for each of them.
        let _ = tell.send(all.len());
    };
    let store = benches::store(folder.path(), None, deliver);
    let (app, credential) = parties(&store);
    let mut number = 0;
    let mut mark = (0, cpu_us());
    for upto in decades(end.max(100_000)).filter(|upto| *upto >= 100_000) {
        while number < upto {
            let one = |at: usize| {
                let attempt = attempt(&app, &credential, &random_key((number + at) as u64));
                assert_eq!(store.index().claim(attempt.fingerprint, REQUEST, 1), Claim::Fresh);
                Draft::Signed(
                    attempt,
                    Released::new(SmallVec::from_slice(&[3; 71]), vec![4; 100]),
                )
            };
            store.commit((0..COMMIT).map(one).collect()).unwrap();
            let mut done = 0;
            while done < COMMIT {
                done += delivered.recv().unwrap();
            }
            number += COMMIT;
            // The last hundred thousand before each mark count.
            if number == upto - upto.min(100_000) {
                mark = (number, cpu_us());
            }
        }
        println!(
            "| {upto} | {:.2} |",
            (cpu_us() - mark.1) / (number - mark.0) as f64
        );
        mark = (number, cpu_us());
    }
    store.stop();
}

fn main() {
    let signatures = setting("BENCH_SIGNATURES", 20_000);
    credentials(setting("BENCH_CREDENTIALS", 20_000), signatures);
    tenants(setting("BENCH_TENANTS", 1_000), signatures);
    rows(setting("BENCH_ROWS", 200_000));
}
