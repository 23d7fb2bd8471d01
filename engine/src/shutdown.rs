//! Stopping, as a list (`docs/shutdown.md`): what is in flight is finished, what is new is refused, nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use actors::keeper::Keeper;
use actors::minutes::MinuteKeeper;
use actors::services::Services;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::limits::PROMISE_MS_MAX;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::sync::{oneshot, watch};

use crate::admin::{http::not_ready, socket};
use crate::config::Config;
use crate::front::Phase;
use crate::latency_log::LatencyKeeper;

const LOOK: Duration = Duration::from_millis(5);
/// How long closing frames may take to leave.
const GOODBYE: Duration = Duration::from_millis(300);

/// A device that has not answered its first probe by then does not hold up the others.
const FIRST_PROBES_MAX: Duration = Duration::from_secs(10);

/// Waits until every core serves, and it is known of every device whether it works.
pub(crate) async fn wait_until_ready(services: &Services) {
    while !not_ready(services, clock::wall().0).is_empty() {
        tokio::time::sleep(LOOK).await;
    }
    let until = clock::monotonic() + FIRST_PROBES_MAX;
    while !services.pool.is_settled() && clock::monotonic() < until {
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes SIGTERM and SIGINT from now on; what is returned is told of the first. Before anybody is told that the engine
/// serves, so that nobody can stop it the hard way by being quick.
pub(crate) fn take_signals() -> Result<oneshot::Receiver<()>, Refusal> {
    let failed = |error: std::io::Error| Refusal::new(Code::Internal, format!("signals: {error}"));
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    let (sender, arrived) = oneshot::channel();
    let wait = move || {
        signals.forever().next();
        let _ = sender.send(());
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .map_err(failed)?;
    Ok(arrived)
}

/// The threads that keep account of what the cores answer.
pub(crate) struct Books {
    pub(crate) minutes: MinuteKeeper,
    pub(crate) latency: LatencyKeeper,
}

/// Stops in order.
pub(crate) async fn stop(
    config: &Config,
    services: &Arc<Services>,
    phase: &watch::Sender<Phase>,
    keeper: Keeper,
    books: Books,
) {
    tracing::info!("stopping");
    // 1. New work is refused and readiness is gone; recorded signatures can still be read.
    services.stop_taking();
    // 2. No new connections.
    phase.send_replace(Phase::Draining);
    // 3. What is in flight is finished; every call has an answer within the promise anyway.
    let until = clock::monotonic() + Duration::from_millis(PROMISE_MS_MAX);
    while services.in_flight() > 0 && clock::monotonic() < until {
        tokio::time::sleep(LOOK).await;
    }
    if services.in_flight() > 0 {
        tracing::warn!(left = services.in_flight(), "requests were cut off");
    }
    // 4. Connections are closed with a code that says why.
    phase.send_replace(Phase::Closing);
    tokio::time::sleep(GOODBYE).await;
    // 5. From here on nothing is started anew.
    keeper.stop();
    books.minutes.stop();
    books.latency.stop();
    // 6. The journal writes what it has been handed, and ends.
    let store = Arc::clone(services);
    let stop = move || {
        store.store.stop();
        // 7. The audit log takes in the last entries and signs them.
        if let Some(audit) = store.audit.get() {
            audit.stop();
        }
    };
    let stopped = tokio::task::spawn_blocking(stop).await;
    if stopped.is_err() {
        tracing::error!("the store did not stop cleanly");
    }
    // 8. The socket's file goes last: until here an operator could still ask.
    let _ = std::fs::remove_file(socket::path(&config.home));
    tracing::info!("stopped");
}
