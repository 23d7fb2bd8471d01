//! A call from submission to answer through a real core: gate, shard, lane, journal with its sync, and back. Alone the
//! sync is most of it; with many in flight the sync is shared.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix_rt::System;
use actors::call::{Arrival, Ask, Call, ReplyTo, Stream};
use actors::core::{Core, CoreRemote};
use actors::gate::{self, SignFields};
use actors::services::{Limits, Services, router};
use actors::task::{Said, Task, ToJournal};
use actors::vault::{StoredKeys, Vault};
use benches::{parties, random_key, store};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hsm_pool::job::Sink;
use hsm_pool::lanes::Verify;
use hsm_pool::pool::{Pool, PoolConfig};
use hsm_pool::soft;
use protocol::algorithm::{Format, KeyKind};
use protocol::clock;
use protocol::error_code::Refusal;
use protocol::ids::TenantName;
use protocol::message::Answer;
use smallvec::SmallVec;
use store::{App, Proof, ProofKind};
use tokio::sync::Notify;

/// Counts answers and wakes whoever waits for the last one.
struct Counter {
    left: Cell<usize>,
    done: Notify,
}

impl Stream for Counter {
    fn reply(&self, _: u64, result: Result<Answer, Refusal>) {
        result.expect("signed");
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            self.done.notify_one();
        }
    }
}

fn services(folder: &std::path::Path) -> Arc<Services> {
    let vault = Arc::new(Vault::new(&[7; 32]).expect("a key"));
    let made = soft::generate(KeyKind::P256).expect("a key");
    let tenant = TenantName::new("t").expect("a name");
    let data_key = vault.new_data_key(&tenant).expect("a tenant's key");
    let own = vault.open_data_key(&tenant, &data_key).expect("its own key");
    let wrapped = own.wrap(&made.pkcs8, &made.public_key).expect("wrapped");
    let cores: Arc<[Arc<CoreRemote>]> = Arc::new([Arc::new(CoreRemote::new(0, 65_536))]);
    let store = store(
        folder,
        Some([&made.public_key, &wrapped, &data_key]),
        router(Arc::clone(&cores)),
    );
    let store = Arc::new(store);
    let keys = Arc::new(StoredKeys::new(
        store.reader().expect("a reader"),
        Arc::clone(&vault),
    ));
    let sink: Arc<dyn Sink<Task>> = Arc::new(ToJournal {
        store: Arc::clone(&store),
        cores: Arc::clone(&cores),
        vault: Arc::clone(&vault),
        said: Said::default(),
    });
    let config = PoolConfig {
        lanes: hsm_pool::elastic::Bounds { min: 1, max: 1 },
        queue: 65_536,
        queue_ms_max: 2_000,
        verify: Verify::Sampled,
        multi: None,
        key_cache: 10,
        devices: Vec::new(),
    };
    let pool = Arc::new(Pool::start(config, keys, &sink).expect("a pool"));
    let limits = Limits {
        calls_per_core_max: 65_536,
        chain_cache: 10,
        trace_every: 0,
    };
    Arc::new(Services::new(store, pool, vault, cores, limits).expect("services"))
}

fn submit(core: &Core, app: &Arc<App>, counter: &Rc<Counter>, number: u64) {
    let digest = [9; 32];
    let key = random_key(number);
    let fields = SignFields {
        credential: "c",
        algorithm: None,
        format: Format::Raw,
        key: &key,
        inputs: [&digest[..]].into_iter(),
        user_id: None,
    };
    let proof = Proof {
        kind: ProofKind::SessionMac,
        bytes: SmallVec::from_slice(&[2; 32]),
        base: None,
    };
    let sign = gate::admit_sign(app, fields, proof, clock::wall()).expect("admitted");
    let now = clock::monotonic();
    let reply = ReplyTo::Stream(Rc::clone(counter) as Rc<dyn Stream>, number);
    core.submit(Call::new(
        reply,
        Ask::Sign(Box::new(sign)),
        Arrival {
            received: now,
            decoded: now,
        },
        gate::deadline(now, None),
    ));
}

fn round_trips(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let system = System::new();
    let services = services(folder.path());
    let (app, _) = parties(&services.store);
    let core = system.block_on(async { Core::install(Arc::clone(&services), 0) });
    let mut number = 0;
    let mut group = c.benchmark_group("shard");
    for in_flight in [1usize, 64, 1024] {
        group.throughput(Throughput::Elements(in_flight as u64));
        group.bench_function(format!("p256, {in_flight} in flight"), |b| {
            b.iter(|| {
                system.block_on(async {
                    let counter = Rc::new(Counter {
                        left: Cell::new(in_flight),
                        done: Notify::new(),
                    });
                    for _ in 0..in_flight {
                        number += 1;
                        submit(&core, &app, &counter, number);
                    }
                    counter.done.notified().await;
                });
            });
        });
    }
    group.finish();
    services.store.stop();
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
