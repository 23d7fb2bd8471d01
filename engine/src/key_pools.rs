//! The thread that keeps key pairs ahead of need: generating RSA in an HSM runs at single digits per second, and nobody
//! who asks for a credential should wait for it.

use std::sync::Arc;
use std::time::Duration;

use actors::keymaster::Keymaster;
use actors::registrar::Ledger;
use actors::services::Services;
use protocol::error_code::{Code, Refusal};
use store::{Change, Directory};

use crate::config::KeyPoolSpec;

const LOOK: Duration = Duration::from_secs(1);
/// After a failure: a device that is away will be away a while.
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(30);

struct AsKeyPool(Arc<Services>);

impl Ledger for AsKeyPool {
    fn changes(&self, changes: Vec<Change>) -> Result<(), Refusal> {
        self.0
            .store
            .changes("key pool", changes)
            .map_err(|error| error.refusal())
    }

    fn directory(&self) -> &Directory {
        self.0.store.directory()
    }
}

/// Starts the thread, if there is anything to keep. It ends with the process.
pub(crate) fn start(services: &Arc<Services>, pools: Vec<KeyPoolSpec>) -> Result<(), Refusal> {
    if pools.is_empty() {
        return Ok(());
    }
    let services = Arc::clone(services);
    std::thread::Builder::new()
        .name("key-pools".into())
        .spawn(move || keep(&services, &pools))
        .map(drop)
        .map_err(|error| Refusal::new(Code::Internal, format!("the key pools' thread: {error}")))
}

fn keep(services: &Arc<Services>, pools: &[KeyPoolSpec]) {
    while services.closed().is_none() {
        let failed = pools.iter().filter(|pool| !fill(services, pool)).count();
        std::thread::sleep(if failed == 0 { LOOK } else { LOOK_AFTER_FAILURE });
    }
}

fn fill(services: &Arc<Services>, pool: &KeyPoolSpec) -> bool {
    let made = services
        .store
        .reader()
        .map_err(|error| error.refusal())
        .and_then(|reader| {
            let keys = Keymaster {
                ledger: &AsKeyPool(Arc::clone(services)),
                vault: &services.vault,
                reader: &reader,
                pool: Some(&services.pool),
                issuer: None,
            };
            keys.fill_spares(pool.kind, pool.device.as_deref(), pool.low, pool.high)
        });
    match made {
        Ok(0) => true,
        Ok(made) => {
            tracing::info!(kind = %pool.kind, device = pool.device.as_deref(), made, "spare key pairs");
            true
        }
        Err(refusal) => {
            tracing::warn!(kind = %pool.kind, device = pool.device.as_deref(), %refusal, "no spare key pairs");
            false
        }
    }
}
