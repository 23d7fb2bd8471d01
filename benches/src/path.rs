//! The way of a call without wire and TLS: a core with its gate, shard, lane and journal, and calls for it.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use actors::call::{Arrival, Ask, Call, ReplyTo, Stream};
use actors::core::{Core, CoreRemote};
use actors::gate::{self, SignFields};
use actors::services::{Limits, Services, router};
use actors::task::{Said, Task, ToJournal};
use actors::vault::{StoredKeys, Vault};
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

use crate::{random_key, store};

/// Counts answers and wakes whoever waits for the last one.
pub struct Counter {
    left: Cell<usize>,
    done: Notify,
}

impl Counter {
    /// For so many calls.
    pub fn new(calls: usize) -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(calls),
            done: Notify::new(),
        })
    }

    /// Waits for the last answer.
    pub async fn done(&self) {
        self.done.notified().await;
    }
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

/// A key pair, and a tenant's key, as the store keeps them.
#[derive(Debug)]
pub struct Kept {
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The private key, wrapped under the tenant's.
    pub wrapped: Vec<u8>,
    /// The tenant's key, wrapped under the master key.
    pub data_key: Vec<u8>,
}

impl Kept {
    /// A P-256 key of a tenant.
    ///
    /// # Panics
    /// When there is no randomness.
    pub fn new(vault: &Vault, tenant: &str) -> Self {
        let made = soft::generate(KeyKind::P256).expect("a key");
        let tenant = TenantName::new(tenant).expect("a name");
        let data_key = vault.new_data_key(&tenant).expect("a tenant's key");
        let own = vault.open_data_key(&tenant, &data_key).expect("its own key");
        Self {
            wrapped: own.wrap(&made.pkcs8, &made.public_key).expect("wrapped"),
            public_key: made.public_key,
            data_key,
        }
    }
}

/// One core and one lane over a new store in a folder, with the first credential's key.
///
/// # Panics
/// When the folder cannot be used.
pub fn services(folder: &Path, vault: &Arc<Vault>, kept: &Kept) -> Arc<Services> {
    let cores: Arc<[Arc<CoreRemote>]> = Arc::new([Arc::new(CoreRemote::new(0, 65_536))]);
    let store = store(
        folder,
        Some([&kept.public_key, &kept.wrapped, &kept.data_key]),
        router(Arc::clone(&cores)),
    );
    let store = Arc::new(store);
    let keys = Arc::new(StoredKeys::new(
        store.reader().expect("a reader"),
        Arc::clone(vault),
    ));
    let sink: Arc<dyn Sink<Task>> = Arc::new(ToJournal {
        store: Arc::clone(&store),
        cores: Arc::clone(&cores),
        vault: Arc::clone(vault),
        said: Said::default(),
    });
    let config = PoolConfig {
        lanes: hsm_pool::elastic::Bounds { min: 1, max: 1 },
        queue: 65_536,
        queue_ms_max: 2_000,
        verify: Verify::Sampled,
        multi: None,
        key_cache: 65_536,
        devices: Vec::new(),
    };
    let pool = Arc::new(Pool::start(config, keys, &sink).expect("a pool"));
    let limits = Limits {
        calls_per_core_max: 65_536,
        chain_cache: 10,
        trace_every: 0,
    };
    Arc::new(Services::new(store, pool, Arc::clone(vault), cores, limits).expect("services"))
}

/// Hands a call to the core.
///
/// # Panics
/// When the gate does not admit it.
pub fn submit(core: &Core, app: &Arc<App>, credential: &str, counter: &Rc<Counter>, number: u64) {
    let digest = [9; 32];
    let key = random_key(number);
    let fields = SignFields {
        credential,
        seal: None,
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
