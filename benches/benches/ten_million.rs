//! A month of many journal entries: how long its statement, the check of the ledger, the reconciliation and a backup take,
//! and the memory that each takes at its peak.
//!
//! `cargo bench -p benches --bench ten_million`. `BENCH_ENTRIES` (100,000) is the number of signatures; the entries are
//! made by the committing thread itself, in commits of a thousand, each with its sync. `BENCH_FOLDER` is where the store
//! is made (a scratch folder that is removed; 300 bytes an entry are needed, and as much again for the backup).
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where it stopped"
)]

use std::path::Path;
use std::time::Duration;

use benches::{REQUEST, attempt, parties, random_key, store};
use crossbeam_channel::{Receiver, bounded};
use protocol::clock;
use protocol::ids::TenantRow;
use smallvec::SmallVec;
use store::{BackupRequest, Claim, Delivery, Draft, Reader, Released, StoreHandle};

const COMMIT: usize = 1_000;

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// The peak of the memory that this process has in use (VmHWM, proc(5)), in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

/// Lets the peak begin anew at what is in use now.
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Runs something and prints a line of the table.
fn measure<T>(what: &str, run: impl FnOnce() -> T, show: impl FnOnce(&T) -> String) -> T {
    reset_peak();
    let before = peak_mib();
    let begun = clock::monotonic();
    let result = run();
    let took: Duration = begun.elapsed();
    let peak = peak_mib();
    println!(
        "| {what:<34} | {:>9.2} s | {:>6} MiB | {:>6} MiB | {} |",
        took.as_secs_f64(),
        peak,
        peak.saturating_sub(before),
        show(&result)
    );
    result
}

/// Signs nothing and commits as many signatures, each under a random key of its own.
fn fill(store: &StoreHandle<u32>, delivered: &Receiver<usize>, entries: usize) {
    let (app, credential) = parties(store);
    let mut number = 0;
    while number < entries {
        let size = COMMIT.min(entries - number);
        let one = |at: usize| {
            let attempt = attempt(&app, &credential, &random_key((number + at) as u64));
            assert_eq!(store.index().claim(attempt.fingerprint, REQUEST, 1), Claim::Fresh);
            Draft::Signed(
                attempt,
                Released::new(SmallVec::from_slice(&[3; 71]), vec![4; 100]),
            )
        };
        store.commit((0..size).map(one).collect()).unwrap();
        let mut done = 0;
        while done < size {
            done += delivered.recv().unwrap();
        }
        number += size;
    }
}

fn report(reader: &Reader, tenant: TenantRow, entries: usize) {
    let month = *reader.months().unwrap().last().unwrap();
    measure(
        "statement of the month",
        || reader.statement(tenant, month).unwrap(),
        |statement| format!("{} units in {} lines", statement.charged(), statement.lines.len()),
    );
    let mut items = 0;
    measure(
        "every unit with its request",
        || {
            let count = |_| {
                items += 1;
                Ok(())
            };
            reader.statement_items(tenant, month, count).unwrap();
        },
        |()| "streamed".to_owned(),
    );
    assert_eq!(items, entries, "the run did not cross a month's end");
    measure(
        "ledger: balances and their sum",
        || reader.reconcile(&[]).unwrap(),
        |found| {
            format!(
                "{} transfers, {} differences",
                found.transfers,
                found.differences.len()
            )
        },
    );
    let months = reader.months().unwrap();
    measure(
        "reconciliation of all months",
        || reader.reconcile(&months).unwrap(),
        |found| {
            format!(
                "{} signatures, {} differences",
                found.signatures,
                found.differences.len()
            )
        },
    );
    measure(
        "chain of the whole journal",
        || reader.check_journal().unwrap(),
        |last| format!("to entry {last}"),
    );
}

fn back_up(home: &Path, to: &Path) {
    let request = BackupRequest {
        home,
        to,
        version: "bench",
        now: clock::wall(),
        seal: &|_| Ok(Vec::new()),
    };
    measure(
        "backup",
        || store::backup(&request).unwrap(),
        |manifest| format!("{} MiB in {} files", manifest.bytes() >> 20, manifest.files.len()),
    );
}

fn main() {
    let entries = setting("BENCH_ENTRIES", 100_000);
    let scratch = match std::env::var_os("BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let home = scratch.path().join("home");
    let (sender, delivered) = bounded(64);
    let deliver = move |batch: Vec<Delivery<u32>>| {
        let _ = sender.send(batch.len());
    };
    let store = store(&home, None, deliver);
    println!("| {entries:<34} | time        | peak       | above      | |");
    println!("|---|---|---|---|---|");
    measure(
        "entries, in commits of 1,000",
        || fill(&store, &delivered, entries),
        |()| String::new(),
    );
    let tenant = parties(&store).0.tenant.row;
    report(&store.reader().unwrap(), tenant, entries);
    back_up(&home, &scratch.path().join("copy"));
    store.stop();
    drop(store);
    measure(
        "opening the store",
        || store::Store::<u32>::open(&home, store::Options::default()).unwrap(),
        |_| String::new(),
    );
}
