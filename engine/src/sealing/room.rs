//! The threads that work on documents: reading, hashing and writing them takes as long as it takes, and no core waits for
//! it. They are few, run at a lower priority than the cores, and turn away what would wait too long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use actors::services::Services;
use crossbeam_channel::{Receiver, Sender, bounded};
use documents::trust::Known;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use store::Reader;
use tokio::sync::oneshot;

use crate::pki::Pki;

/// How much lower the priority of these threads is (`nice`).
const NICENESS: i32 = 10;

/// What a thread has at hand.
pub(crate) struct Desk {
    pub(crate) reader: Reader,
    pub(crate) services: Arc<Services>,
    pub(crate) pki: Arc<Pki>,
}

impl Desk {
    /// What the platform knows of whom to believe: its authorities, and their newest revocation lists.
    pub(crate) fn known(&self) -> Result<Known, Refusal> {
        let current = self.pki.current();
        let mut known = Known::default();
        for authority in current.authorities.all() {
            let of_role = match authority.issuer {
                None => &mut known.anchors,
                Some(_) => &mut known.intermediates,
            };
            of_role.push(authority.certificate.clone());
            let list = self
                .reader
                .crl(&authority.name)
                .map_err(|error| error.refusal())?;
            known.crls.extend(list.map(|list| list.der));
        }
        Ok(known)
    }
}

type Work = Box<dyn FnOnce(&Desk) + Send>;

/// Where work is brought.
#[derive(Clone)]
pub(crate) struct Room(Sender<Work>);

/// What has been brought, until the room opens.
pub(crate) struct Waiting(Receiver<Work>);

impl Room {
    /// A room in which so many pieces of work may wait.
    pub(crate) fn new(places: usize) -> (Self, Waiting) {
        let (sender, receiver) = bounded(places);
        (Self(sender), Waiting(receiver))
    }

    /// Has work done by a thread. What has not begun by `deadline` is not done, and nobody waits longer.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Desk) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let job = move |desk: &Desk| {
            if reply.is_closed() || clock::monotonic() >= deadline {
                return;
            }
            let worked = catch_unwind(AssertUnwindSafe(|| work(desk)));
            let worked = worked.unwrap_or_else(|_| {
                tracing::error!("work on a document panicked");
                Err(Refusal::new(
                    Code::Internal,
                    "the document could not be processed",
                ))
            });
            // Whoever asked may have gone.
            drop(reply.send(worked));
        };
        let full = |_| {
            let text = "too many documents are being worked on";
            Refusal::new(Code::Overloaded, text).retry_after_ms(1_000)
        };
        self.0.try_send(Box::new(job)).map_err(full)?;
        let patience = deadline.saturating_duration_since(clock::monotonic());
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(worked)) => worked,
            _ => Err(too_late()),
        }
    }
}

/// A document takes longer than its caller may wait.
fn too_late() -> Refusal {
    let text = "the document could not be worked on within the time that an answer may take; retry with the same key";
    Refusal::new(Code::DeadlineExceeded, text).retry_after_ms(1_000)
}

impl Waiting {
    /// Opens the room with so many threads. They end with the last who could bring something.
    pub(crate) fn open(
        self,
        name: &str,
        threads: usize,
        services: &Arc<Services>,
        pki: &Arc<Pki>,
    ) -> Result<(), Refusal> {
        for number in 0..threads.max(1) {
            let desk = Desk {
                reader: pki.reader()?,
                services: Arc::clone(services),
                pki: Arc::clone(pki),
            };
            let works = self.0.clone();
            let run = move || {
                lower_priority();
                works.iter().for_each(|work| work(&desk));
            };
            let started = std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(run);
            started.map_err(|error| Refusal::new(Code::Internal, format!("the thread {name}: {error}")))?;
        }
        Ok(())
    }
}

/// Of this thread alone, as Linux has it. Without it everything works, only less evenly.
pub(crate) fn lower_priority() {
    let own = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(own), NICENESS) {
        tracing::debug!(%error, "the priority of a document thread could not be lowered");
    }
}
