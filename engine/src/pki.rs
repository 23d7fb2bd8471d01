//! The certificate service of an engine: its authorities, the threads that sign for them, and the listener in front
//! (`pki/http.rs`). What is decided is decided in `actors::certificates` and `actors::time_stamps`.

pub(crate) mod clock;
pub(crate) mod http;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actors::call::Ticket;
use actors::certificates::Authorities;
use actors::registrar::{Issued, Issuer, Ledger};
use actors::time_stamps::{ClockRule, TimeSource, TimeStamper};
use actors::vault::Vault;
use crossbeam_channel::{Receiver, Sender, bounded, tick};
use documents::x509::ObjectIdentifier;
use documents::{ocsp, tsp};
use parking_lot::RwLock;
use protocol::algorithm::{Hash, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use store::{Holder, Reader, Role, StoreHandle};
use tokio::sync::oneshot;

use crate::admin::operator::AsActor;

/// Questions that may wait for the pki threads; more are turned away.
const QUESTIONS_MAX: usize = 1024;
/// How often the publisher looks whether a list is due.
const PUBLISHER_LOOKS: Duration = Duration::from_secs(60);

/// How the service is set up.
#[derive(Clone, Debug)]
pub(crate) struct PkiSettings {
    /// Where lists and answers are published, without a slash at its end.
    pub(crate) base_url: String,
    /// What the clock must prove before it stamps.
    pub(crate) clock: ClockRule,
    /// The policy of time stamps.
    pub(crate) policy: ObjectIdentifier,
}

/// Authorities and time stampers as they are now.
#[derive(Debug, Default)]
pub(crate) struct Current {
    pub(crate) authorities: Authorities,
    stampers: Vec<Arc<TimeStamper>>,
}

impl Current {
    /// Who stamps: the one named, or the one whose key fits the hash: SM2 for SM3, otherwise P-256 before others.
    fn stamper(&self, named: Option<&str>, hash: Hash) -> Option<&Arc<TimeStamper>> {
        if let Some(name) = named {
            return self
                .stampers
                .iter()
                .find(|stamper| stamper.authority().name.as_str() == name);
        }
        let kind = if hash == Hash::Sm3 {
            KeyKind::Sm2
        } else {
            KeyKind::P256
        };
        let mut all = self.stampers.iter();
        all.find(|stamper| stamper.authority().kind == kind)
            .or_else(|| self.stampers.first())
    }
}

/// The certificate service.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) store: Arc<StoreHandle<Ticket>>,
    pub(crate) vault: Arc<Vault>,
    settings: PkiSettings,
    current: RwLock<Arc<Current>>,
}

impl Pki {
    /// Opens what the store has.
    pub(crate) fn open(
        store: Arc<StoreHandle<Ticket>>,
        vault: Arc<Vault>,
        settings: PkiSettings,
    ) -> Result<Self, Refusal> {
        let pki = Self {
            store,
            vault,
            settings,
            current: RwLock::default(),
        };
        pki.reload()?;
        Ok(pki)
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    pub(crate) fn reader(&self) -> Result<Reader, Refusal> {
        self.store.reader().map_err(|error| error.refusal())
    }

    /// Takes in authorities that were made meanwhile. Time stampers go on with their numbers.
    pub(crate) fn reload(&self) -> Result<(), Refusal> {
        let reader = self.reader()?;
        let authorities = Authorities::load(&reader, &self.vault, &self.settings.base_url)?;
        let known = self.current();
        let mut stampers = Vec::new();
        for authority in authorities
            .all()
            .iter()
            .filter(|one| one.role == Role::TimeStamping)
        {
            let mut kept = known.stampers.iter();
            stampers.push(
                match kept.find(|stamper| stamper.authority().name == authority.name) {
                    Some(stamper) => Arc::clone(stamper),
                    None => Arc::new(TimeStamper::open(
                        &authorities,
                        Arc::clone(authority),
                        &reader,
                        self.settings.clock,
                        self.settings.policy,
                    )?),
                },
            );
        }
        *self.current.write() = Arc::new(Current {
            authorities,
            stampers,
        });
        Ok(())
    }

    /// Publishes the lists that are due.
    pub(crate) fn publish_due(&self, now: UnixMillis) -> Result<(), Refusal> {
        let ledger = AsActor(&self.store, "pki");
        self.current()
            .authorities
            .publish_due(&ledger, &self.reader()?, now)
    }
}

impl Issuer for Pki {
    fn issue(
        &self,
        ledger: &dyn Ledger,
        holder: Holder,
        public_key: &[u8],
        kind: KeyKind,
        now: UnixMillis,
    ) -> Result<Option<Issued>, Refusal> {
        self.current()
            .authorities
            .issue(ledger, holder, public_key, kind, now)
    }
}

/// What the listener asks the pki threads.
#[derive(Debug)]
enum Question {
    Stamp {
        request: tsp::Request,
        authority: Option<String>,
    },
    Status(ocsp::Request),
    Crl(AuthorityName),
}

/// A question and where its answer goes; `None`: there is no such authority.
struct Job {
    question: Question,
    reply: oneshot::Sender<Option<Vec<u8>>>,
}

/// The threads' near end.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Sender<Job>);

impl Desk {
    /// Asks; refused at once where too many wait.
    async fn ask(&self, question: Question) -> Result<Option<Vec<u8>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let full = |_| {
            Refusal::new(
                Code::Overloaded,
                "too many questions wait for the certificate service",
            )
        };
        self.0.try_send(Job { question, reply }).map_err(full)?;
        let gone = |_| Refusal::new(Code::Internal, "the certificate service has not answered");
        answer.await.map_err(gone)
    }
}

/// Starts `threads` threads that sign, which end with the last [`Desk`], and the publisher.
pub(crate) fn start(pki: &Arc<Pki>, clock: Arc<dyn TimeSource>, threads: usize) -> Result<Desk, Refusal> {
    let (desk, jobs) = bounded(QUESTIONS_MAX);
    for number in 0..threads.max(1) {
        let worker = Worker {
            reader: pki.reader()?,
            pki: Arc::clone(pki),
            clock: Arc::clone(&clock),
        };
        let jobs = jobs.clone();
        spawn(&format!("pki-{number}"), move || worker.run(&jobs))?;
    }
    let publisher = Arc::clone(pki);
    spawn("pki-publish", move || publish(&publisher))?;
    Ok(Desk(desk))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    started
        .map(drop)
        .map_err(|error| Refusal::new(Code::Internal, format!("the thread {name}: {error}")))
}

/// Lives as long as the process.
fn publish(pki: &Pki) {
    for _ in tick(PUBLISHER_LOOKS) {
        if let Err(error) = pki.publish_due(protocol::clock::wall()) {
            tracing::warn!(%error, "a revocation list could not be made; it is tried again");
        }
    }
}

struct Worker {
    pki: Arc<Pki>,
    reader: Reader,
    clock: Arc<dyn TimeSource>,
}

impl Worker {
    fn run(&self, jobs: &Receiver<Job>) {
        for Job { question, reply } in jobs {
            // A panic costs the question at hand, not the thread.
            match catch_unwind(AssertUnwindSafe(|| self.answer(&question))) {
                // Whoever asked may have gone.
                Ok(answer) => drop(reply.send(answer)),
                Err(_) => tracing::error!("a pki thread panicked and goes on"),
            }
        }
    }

    fn answer(&self, question: &Question) -> Option<Vec<u8>> {
        let current = self.pki.current();
        match question {
            Question::Stamp { request, authority } => {
                let stamper = current.stamper(authority.as_deref(), request.hash)?;
                let ledger = AsActor(&self.pki.store, "pki");
                Some(stamper.respond(&ledger, &*self.clock, request))
            }
            Question::Status(request) => Some(current.authorities.answer(
                &self.reader,
                request,
                protocol::clock::wall(),
            )),
            Question::Crl(name) => match self.reader.crl(name) {
                Ok(list) => list.map(|list| list.der),
                Err(error) => {
                    tracing::error!(%error, "a revocation list could not be read");
                    None
                }
            },
        }
    }
}

/// Where this engine publishes, if nothing else is set.
pub(crate) fn default_url(address: SocketAddr) -> String {
    format!("http://{address}")
}
