//! A call from submission to answer through a real core: gate, shard, lane, journal with its sync, and back. Alone the
//! sync is most of it; with many in flight the sync is shared.

use std::sync::Arc;

use actix_rt::System;
use actors::core::Core;
use actors::vault::Vault;
use benches::parties;
use benches::path::{Counter, Kept, services, submit};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn round_trips(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let system = System::new();
    let vault = Arc::new(Vault::new(&[7; 32]).expect("a key"));
    let services = services(folder.path(), &vault, &Kept::new(&vault, "t"));
    let (app, _) = parties(&services.store);
    let core = system.block_on(async { Core::install(Arc::clone(&services), 0) });
    let mut number = 0;
    let mut group = c.benchmark_group("shard");
    for in_flight in [1usize, 64, 1024] {
        group.throughput(Throughput::Elements(in_flight as u64));
        group.bench_function(format!("p256, {in_flight} in flight"), |b| {
            b.iter(|| {
                system.block_on(async {
                    let counter = Counter::new(in_flight);
                    for _ in 0..in_flight {
                        number += 1;
                        submit(&core, &app, "c", &counter, number);
                    }
                    counter.done().await;
                });
            });
        });
    }
    group.finish();
    services.store.stop();
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
