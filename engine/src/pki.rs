//! The certificate service of an engine: its authorities, the threads that sign for them, the listener in front
//! (`pki/http.rs`) and what its threads answer with (`pki/desk.rs`), and whether they do (`pki/sounding.rs`). What is decided is decided in
//! `actors::{certificates, lists, answers, time_stamps, stamp_callers}`.

pub(crate) mod clock;
mod desk;
mod http;
pub(crate) mod openapi;
pub(crate) mod sounding;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors::answer_log::AnswerLog;
use actors::answers::{Answers, Sources};
use actors::call::Ticket;
use actors::certificates::{Authorities, Devices};
use actors::enrolment::Enrolment;
use actors::lists::Shelf;
use actors::profiles::Profiles;
use actors::questions::Lines;
use actors::registrar::Ledger;
use actors::subjects::Verifier;
use actors::task::Task;
use actors::time_stamps::{ClockRule, TimeSource, TimeStamper};
use actors::vault::Vault;
use crossbeam_channel::tick;
use documents::x509::ObjectIdentifier;
use hsm_pool::pool::Pool;
use parking_lot::RwLock;
use protocol::algorithm::{Hash, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use store::{Allowance, CertificateChange, Change, Contract, Reader, Role, StoreHandle};

use self::desk::Desk;
use self::http::Server;
use crate::admin::operator::AsActor;
use crate::erasures::ErasureList;

/// How often the publisher looks whether a list is due, or an answer.
const PUBLISHER_LOOKS: Duration = Duration::from_secs(10);

/// How the service is set up.
#[derive(Clone, Debug)]
pub(crate) struct PkiSettings {
    /// Where lists and answers are published, without a slash at its end.
    pub(crate) base_url: String,
    /// What the clock must prove before it stamps.
    pub(crate) clock: ClockRule,
    /// The policy of time stamps.
    pub(crate) policy: ObjectIdentifier,
    /// What certificates are for.
    pub(crate) profiles: Arc<Profiles>,
    /// Verification services whose answers count.
    pub(crate) verifiers: Arc<[Verifier]>,
    /// Days before a certificate's end at which its holder is told, the most first.
    pub(crate) warn_days: Arc<[u32]>,
    /// How often delta lists are made, in milliseconds; `None`: there are none.
    pub(crate) delta_ms: Option<u64>,
    /// Whether whoever asks gets a time stamp.
    pub(crate) anonymous: bool,
    /// How many a second, in all.
    pub(crate) anonymous_rate: u32,
    /// Where the list of erased subjects is kept.
    pub(crate) erasures: Option<PathBuf>,
}

/// Authorities and time stampers as they are now.
#[derive(Debug, Default)]
pub(crate) struct Current {
    pub(crate) authorities: Authorities,
    stampers: Vec<Arc<TimeStamper>>,
}

impl Current {
    /// Who stamps: the one named, or the one whose key fits the hash: SM2 for SM3, otherwise P-256 before others; of
    /// several the one that is valid for the longest.
    fn stamper(&self, named: Option<&str>, hash: Hash, now: UnixMillis) -> Option<&Arc<TimeStamper>> {
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
        self.stampers.iter().min_by_key(|stamper| {
            let authority = stamper.authority();
            (authority.kind != kind, authority.preference(now))
        })
    }
}

/// The certificate service.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) store: Arc<StoreHandle<Ticket>>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) settings: PkiSettings,
    /// Where keys of authorities may be; only a running engine has them.
    pub(crate) devices: Devices,
    current: RwLock<Arc<Current>>,
    answers: Answers,
    shelf: Shelf,
    /// How many time stamps whoever asks may still have.
    anonymous: Allowance,
    /// Time stamps that the platform bears and that are not booked yet.
    borne: AtomicU64,
}

impl Pki {
    /// Opens what the store has.
    pub(crate) fn open(
        store: Arc<StoreHandle<Ticket>>,
        vault: Arc<Vault>,
        devices: Devices,
        settings: PkiSettings,
    ) -> Result<Self, Refusal> {
        let rate = settings.anonymous_rate;
        let pki = Self {
            store,
            vault,
            settings,
            devices,
            current: RwLock::default(),
            answers: Answers::default(),
            shelf: Shelf::default(),
            anonymous: Allowance::new(Contract {
                rate,
                burst: rate,
                concurrency: 0,
            }),
            borne: AtomicU64::new(0),
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

    /// The certificates of all authorities, DER.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        let current = self.current();
        let all = current.authorities.all().iter();
        all.map(|authority| authority.certificate.clone()).collect()
    }

    /// Takes in authorities that were made meanwhile. Time stampers go on with their numbers.
    pub(crate) fn reload(&self) -> Result<(), Refusal> {
        let reader = self.reader()?;
        let authorities = Authorities::load(&reader, &self.vault, &self.devices, &self.settings.base_url)?
            .with_profiles(Arc::clone(&self.settings.profiles))
            .with_deltas(self.settings.delta_ms);
        let known = self.current();
        let terms = (self.settings.clock, self.settings.policy);
        let mut stampers = Vec::new();
        for authority in authorities.all().iter() {
            if authority.role != Role::TimeStamping {
                continue;
            }
            let mut kept = known.stampers.iter();
            let stamper = match kept.find(|stamper| stamper.authority().name == authority.name) {
                Some(known) => known.again(&authorities, Arc::clone(authority), terms)?,
                None => TimeStamper::open(&authorities, Arc::clone(authority), &reader, terms)?,
            };
            stampers.push(Arc::new(stamper));
        }
        *self.current.write() = Arc::new(Current {
            authorities,
            stampers,
        });
        self.answers.clear();
        Ok(())
    }

    /// Books the time stamps that the platform bears. What a crash loses of it was given within [`PUBLISHER_LOOKS`].
    pub(crate) fn book(&self) {
        let units = self.borne.swap(0, Ordering::AcqRel);
        if units == 0 {
            return;
        }
        let booked = self.store.change(
            "pki",
            Change::Certificates(CertificateChange::BookStamps { units }),
        );
        if let Err(error) = booked {
            self.borne.fetch_add(units, Ordering::AcqRel);
            tracing::warn!(%error, units, "time stamps could not be booked; it is tried again");
        }
    }

    /// Publishes the lists that are due.
    pub(crate) fn publish_due(&self, now: UnixMillis) -> Result<(), Refusal> {
        let ledger = AsActor(&self.store, "pki");
        self.current()
            .authorities
            .publish_due(&ledger, &self.reader()?, now)
    }
}

/// Everything that a piece of work on subjects' certificates needs.
pub(crate) struct Office<'a> {
    pki: &'a Pki,
    current: Arc<Current>,
    reader: Reader,
    pool: Option<&'a Pool<Task>>,
}

impl Office<'_> {
    /// What certifies, for whoever makes the changes.
    pub(crate) fn enrolment<'e>(&'e self, ledger: &'e dyn Ledger) -> Enrolment<'e> {
        Enrolment {
            authorities: &self.current.authorities,
            ledger,
            reader: &self.reader,
            vault: &self.pki.vault,
            pool: self.pool,
        }
    }
}

impl Pki {
    /// Opens what work on subjects' certificates needs.
    pub(crate) fn office<'a>(&'a self, pool: Option<&'a Pool<Task>>) -> Result<Office<'a>, Refusal> {
        Ok(Office {
            pki: self,
            current: self.current(),
            reader: self.reader()?,
            pool,
        })
    }
}

/// Starts a thread for each log that answers what comes to the listener, and the publisher. Returns how the cores ask them.
pub(crate) fn start(
    pki: &Arc<Pki>,
    clock: &Arc<dyn TimeSource>,
    logs: &[Arc<AnswerLog>],
    listener: TcpListener,
) -> Result<Lines, Refusal> {
    let mut servers = Vec::new();
    let (lines, questions) = Lines::new(logs.len());
    for (number, (questions, log)) in questions.into_iter().zip(logs).enumerate() {
        let desk = Desk {
            reader: pki.reader()?,
            pki: Arc::clone(pki),
            clock: Arc::clone(clock),
            log: Arc::clone(log),
        };
        let (server, run) = Server::new(questions);
        spawn(&format!("pki-{number}"), move || run(desk))?;
        servers.push(server);
    }
    actix_rt::spawn(http::accept(listener, servers));
    let (publisher, reader) = (Arc::clone(pki), pki.reader()?);
    spawn("pki-publish", move || publish(&publisher, &reader))?;
    Ok(lines)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    started
        .map(drop)
        .map_err(|error| Refusal::new(Code::Internal, format!("the thread {name}: {error}")))
}

/// Lives as long as the process.
fn publish(pki: &Pki, reader: &Reader) {
    let mut erasures = pki.settings.erasures.clone().map(ErasureList::new);
    let mut keep_erasures = || {
        if let Some(Err(error)) = erasures.as_mut().map(|list| list.keep(reader)) {
            tracing::error!(%error, "the list of erased subjects could not be kept; it is tried again");
        }
    };
    keep_erasures();
    for _ in tick(PUBLISHER_LOOKS) {
        keep_erasures();
        let now = protocol::clock::wall();
        if let Err(error) = pki.publish_due(now) {
            tracing::warn!(%error, "a revocation list could not be made; it is tried again");
        }
        let current = pki.current();
        let sources = Sources {
            authorities: &current.authorities,
            reader,
            standings: &pki.store.directory().standings,
        };
        let signed = pki.answers.refresh(sources, now);
        if signed > 0 {
            tracing::debug!(
                signed,
                kept = pki.answers.kept(),
                "OCSP answers were signed ahead"
            );
        }
        pki.book();
    }
}

/// Where this engine publishes, if nothing else is set.
pub(crate) fn default_url(address: SocketAddr) -> String {
    format!("http://{address}")
}
