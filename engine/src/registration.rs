//! The registration desk: threads that do what apps ask about certificates and subjects. It takes as long as keys,
//! signatures and commits take, and no core waits for it. Each tenant has a line of its own for what it changes and one for
//! what it reads. What is decided is decided in `actors::{enrolment, subjects}`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use actors::call::Ticket;
use actors::enrolment::{self, Application, Certified, Enrolment};
use actors::fair::Lines;
use actors::gate;
use actors::keymaster::{CredentialPlan, KeyPlace, Keymaster, WantedCertificate};
use actors::services::Services;
use actors::subjects::Subjects;
use documents::crl::Reason;
use documents::csr;
use parking_lot::{Condvar, Mutex};
use protocol::algorithm::KeyKind;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, CredentialId, SubjectId, TenantRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{App, Asked, By, CertificateRow, CertificateStanding, StoreHandle, SubjectStep};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::admin::certificates::{read_certificates, read_request};
use crate::admin::operator::AsActor;
use crate::admin::subjects::{self, NewSubject};
use crate::pki::{Office, Pki};

/// Threads that work. A tenant keeps two of them busy at most.
const DESKS: usize = 4;
/// Questions that may wait in one line, and in all; more are turned away.
const LINE_MAX: usize = 32;
const WAITING_MAX: usize = 256;
/// Certificates in one answer.
const CERTIFICATES_MAX: u32 = 256;

/// A certificate that an app wants. Either a request, or a credential.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCertificate {
    /// What for: `enterprise-signing`, `enterprise-seal`, `seal-maker`, `agent` or `credential`.
    profile: String,
    /// The subject whose identity is approved.
    #[schema(value_type = Option<String>)]
    subject: Option<SubjectId>,
    /// A request (PKCS#10), PEM, for a key that is not here.
    request: Option<String>,
    /// The credential whose key is certified.
    #[schema(value_type = Option<String>)]
    credential: Option<CredentialId>,
    /// Makes the credential with a new key of this kind.
    #[schema(value_type = Option<String>, example = "p256")]
    kind: Option<KeyKind>,
}

/// How a certificate is renewed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenewalBody {
    /// Whether its credential gets a new key; the old one is destroyed.
    #[serde(default)]
    pub(crate) new_key: bool,
}

/// Why a certificate is revoked.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevocationBody {
    /// By its name in RFC 5280 5.3.1, such as `keyCompromise`.
    pub(crate) reason: String,
}

/// By what order a subject is erased.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErasureBody {
    /// The journal keeps it.
    pub(crate) order: String,
}

/// A request for another authority.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestBody {
    /// The credential whose key is to be certified.
    #[schema(value_type = String)]
    credential: CredentialId,
    /// The name that is asked for (RFC 4514); made of tenant and credential if not given.
    subject: Option<String>,
}

/// What another authority has answered.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportBody {
    /// The credential whose key it is about.
    #[schema(value_type = String)]
    credential: CredentialId,
    /// The certificate, each followed by its issuer's, PEM.
    chain: String,
    /// The root, PEM, where the chain does not end with it.
    root: Option<String>,
}

/// What an app asks. Each is about its own tenant: there is no way to name another.
#[derive(Debug)]
pub(crate) enum Question {
    Certificates {
        after: Option<String>,
    },
    Certificate(String),
    /// What became of a call.
    Call(String),
    Issue(NewCertificate, Asked),
    Renew(String, RenewalBody, Asked),
    Revoke(String, RevocationBody),
    Suspend(String),
    Resume(String),
    Request(RequestBody),
    Import(ImportBody),
    Subjects {
        after: Option<SubjectId>,
    },
    Subject(SubjectId),
    Submit(NewSubject),
    Challenge(SubjectId),
    Erase(SubjectId, ErasureBody),
}

impl Question {
    const fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Certificates { .. }
                | Self::Certificate(_)
                | Self::Call(_)
                | Self::Subjects { .. }
                | Self::Subject(_)
        )
    }

    const fn asked(&self) -> Option<&Asked> {
        match self {
            Self::Issue(_, asked) | Self::Renew(_, _, asked) => Some(asked),
            _ => None,
        }
    }
}

enum Work {
    OfApp(Arc<App>, Question),
    /// A verification service's answer.
    Answer(String),
    /// A sign of life is wanted.
    Sound,
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Value, Refusal>>,
}

/// In whose line a question waits, and whether it changes something: who reads does not wait for who changes.
type Whose = (Option<TenantRow>, bool);

/// What waits, what is worked on, and who is told.
struct Hall {
    lines: Mutex<Lines<Whose, Job>>,
    arrived: Condvar,
    /// Calls that are worked on now.
    running: Mutex<HashSet<(AppId, String)>>,
}

/// Where to ask.
#[derive(Clone)]
pub(crate) struct Registration(Arc<Hall>);

impl Registration {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Hall {
            lines: Mutex::new(Lines::new(LINE_MAX, WAITING_MAX)),
            arrived: Condvar::new(),
            running: Mutex::default(),
        }))
    }

    /// Asks for an app. At the deadline it is told that the work goes on (SEMANTICS 1.3).
    pub(crate) async fn ask(
        &self,
        app: Arc<App>,
        question: Question,
        received: Instant,
    ) -> Result<Value, Refusal> {
        let (changes, whose) = (question.changes(), (Some(app.tenant.row), question.changes()));
        self.send(whose, Work::OfApp(app, question), received)
            .await
            .unwrap_or_else(|| Err(late(changes)))
    }

    /// Brings a verification service's answer.
    pub(crate) async fn answer(&self, token: String, received: Instant) -> Result<Value, Refusal> {
        let answer = self.send((None, true), Work::Answer(token), received).await;
        answer.unwrap_or_else(|| Err(late(true)))
    }

    /// Asks for a sign of life.
    pub(crate) fn sound(&self) -> Result<oneshot::Receiver<Result<Value, Refusal>>, Refusal> {
        self.push((None, false), Work::Sound)
    }

    fn push(&self, whose: Whose, work: Work) -> Result<oneshot::Receiver<Result<Value, Refusal>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let full = |error| {
            let text = format!("the registration desk: {error}");
            Refusal::new(Code::Overloaded, text).retry_after_ms(1_000)
        };
        self.0
            .lines
            .lock()
            .push(whose, Job { work, reply })
            .map_err(full)?;
        self.0.arrived.notify_one();
        Ok(answer)
    }

    /// `None`: nothing was answered in time.
    async fn send(&self, whose: Whose, work: Work, received: Instant) -> Option<Result<Value, Refusal>> {
        let answer = match self.push(whose, work) {
            Ok(answer) => answer,
            Err(refusal) => return Some(Err(refusal)),
        };
        let lost = |_| {
            let text = "the registration desk has not answered; ask again with the same key";
            Refusal::new(Code::Restarted, text).retry_after_ms(1_000)
        };
        let deadline = gate::deadline(received, None).into();
        let answer = tokio::time::timeout_at(deadline, answer).await.ok()?;
        Some(answer.map_err(lost).and_then(|answer| answer))
    }
}

fn late(changes: bool) -> Refusal {
    match changes {
        true => Refusal::new(
            Code::OutcomeUnknown,
            "still running at the deadline; look it up, or ask again with the same key",
        ),
        false => Refusal::new(
            Code::DeadlineExceeded,
            "the registration desk has not answered in time",
        ),
    }
}

/// Opens the desk. Its threads live as long as the process.
pub(crate) fn open(
    registration: &Registration,
    pki: &Arc<Pki>,
    services: &Arc<Services>,
) -> Result<(), Refusal> {
    for number in 0..DESKS {
        let desk = Desk {
            pki: Arc::clone(pki),
            services: Arc::clone(services),
            hall: Arc::clone(&registration.0),
        };
        std::thread::Builder::new()
            .name(format!("registry-{number}"))
            .spawn(move || desk.run())
            .map_err(|error| Refusal::new(Code::Internal, format!("a registration thread: {error}")))?;
    }
    Ok(())
}

impl Hall {
    /// Waits for the next piece of work.
    fn next(&self) -> (Whose, Job) {
        let mut lines = self.lines.lock();
        loop {
            match lines.pop() {
                Some(next) => return next,
                None => self.arrived.wait(&mut lines),
            }
        }
    }

    /// A piece of work is done: the next of the same may be taken.
    fn done(&self, whose: Whose) {
        self.lines.lock().done(whose);
        self.arrived.notify_one();
    }
}

struct Desk {
    pki: Arc<Pki>,
    services: Arc<Services>,
    hall: Arc<Hall>,
}

impl Desk {
    fn run(&self) {
        loop {
            let (whose, Job { work, reply }) = self.hall.next();
            let call = match &work {
                Work::OfApp(app, question) => {
                    question.asked().map(|asked| (app.id.clone(), asked.key.clone()))
                }
                _ => None,
            };
            if let Some(call) = &call {
                self.hall.running.lock().insert(call.clone());
            }
            let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(work)));
            if let Some(call) = &call {
                self.hall.running.lock().remove(call);
            }
            self.hall.done(whose);
            match answered {
                // Whoever asked may have gone.
                Ok(answer) => drop(reply.send(answer)),
                Err(_) => tracing::error!("a registration desk panicked and goes on"),
            }
        }
    }

    fn work(&self, work: Work) -> Result<Value, Refusal> {
        let store: &StoreHandle<Ticket> = &self.services.store;
        let reader = self.pki.reader()?;
        match work {
            Work::Sound => Ok(json!({})),
            Work::Answer(token) => {
                let ledger = AsActor(store, "verification");
                let subjects = self.subjects(&ledger, &reader);
                subjects.answer(&self.pki.settings.verifiers, &token)?;
                Ok(json!({}))
            }
            Work::OfApp(app, question) => {
                let actor = format!("app {}", app.id);
                let ledger = AsActor(store, &actor);
                let office = self.pki.office(Some(&self.services.pool))?;
                let clerk = Clerk {
                    app: &app,
                    ledger: &ledger,
                    office: &office,
                    subjects: self.subjects(&ledger, &reader),
                    desk: self,
                };
                clerk.answer(question)
            }
        }
    }

    fn subjects<'a>(&'a self, ledger: &'a AsActor<'_>, reader: &'a store::Reader) -> Subjects<'a> {
        Subjects {
            ledger,
            vault: &self.services.vault,
            reader,
        }
    }
}

/// Works on a question of an app.
struct Clerk<'a> {
    app: &'a App,
    ledger: &'a AsActor<'a>,
    office: &'a Office<'a>,
    subjects: Subjects<'a>,
    desk: &'a Desk,
}

impl Clerk<'_> {
    fn answer(&self, question: Question) -> Result<Value, Refusal> {
        match question {
            Question::Certificates { after } => self.list(after.as_deref()),
            Question::Certificate(serial) => Ok(self.show(&self.find(&serial)?)),
            Question::Call(key) => self.call(&key),
            Question::Issue(new, asked) => self.once(asked, |asked| self.issue(new, asked)),
            Question::Renew(serial, body, asked) => {
                self.once(asked, |asked| self.renew(&serial, body.new_key, asked))
            }
            Question::Revoke(serial, body) => self.revoke(&serial, &body.reason),
            Question::Suspend(serial) => self.set(&serial, CertificateStanding::Suspended),
            Question::Resume(serial) => self.set(&serial, CertificateStanding::Issued),
            Question::Request(body) => self.request(&body),
            Question::Import(body) => self.import(&body),
            about_subjects => self.answer_about_subjects(about_subjects),
        }
    }

    fn answer_about_subjects(&self, question: Question) -> Result<Value, Refusal> {
        let (tenant, environment) = (&self.app.tenant.name, self.app.environment);
        match question {
            Question::Subjects { after } => {
                let list = subjects::list(&self.subjects, (tenant, Some(environment)), after.as_ref())?;
                Ok(json!({ "subjects": list }))
            }
            Question::Subject(id) => self.show_subject(&id),
            Question::Submit(new) => {
                let id = new.id.clone();
                self.subjects.submit(tenant, new.submission(environment)?)?;
                self.show_subject(&id)
            }
            Question::Challenge(id) => {
                self.subjects.find_in(tenant, &id, environment)?;
                self.subjects.challenge(tenant, &id, clock::wall())
            }
            Question::Erase(id, body) => {
                self.subjects.find_in(tenant, &id, environment)?;
                let by = format!("app {}", self.app.id);
                self.subjects
                    .step(tenant, &id, SubjectStep::Erase, (&by, &body.order))?;
                self.show_subject(&id)
            }
            _ => Err(Refusal::new(Code::Internal, "a question of another kind")),
        }
    }

    /// What became of a call for a certificate.
    fn call(&self, key: &str) -> Result<Value, Refusal> {
        let (app, enrolment) = (&self.app.id, self.enrolment());
        let is_running = self
            .desk
            .hall
            .running
            .lock()
            .contains(&(app.clone(), key.to_owned()));
        let found = enrolment.reader.certificate_asked(app, key);
        match found.map_err(|error| error.refusal())? {
            Some(row) => Ok(self.show(&row)),
            None if is_running => Err(Refusal::new(Code::OutcomePending, "the call is still running")),
            None => Err(Refusal::new(
                Code::NotFound,
                "no certificate has come of this key: nothing was charged, and it may be tried again",
            )),
        }
    }

    fn show_subject(&self, id: &SubjectId) -> Result<Value, Refusal> {
        let app = self.app;
        let row = self.subjects.find_in(&app.tenant.name, id, app.environment)?;
        self.subjects.show(&row)
    }

    fn enrolment(&self) -> Enrolment<'_> {
        self.office.enrolment(self.ledger)
    }

    /// The same call brings the same certificate, and it is counted once.
    fn once(&self, asked: Asked, work: impl FnOnce(Asked) -> Result<(), Refusal>) -> Result<Value, Refusal> {
        if let Some(row) = self.enrolment().asked_before(&asked)? {
            return Ok(self.show(&row));
        }
        let worked = work(asked.clone());
        let missing = || Refusal::new(Code::Internal, "the certificate is not on record");
        let row = match (worked, self.enrolment().asked_before(&asked)?) {
            // The same call may have come through another front, and been faster.
            (_, Some(row)) => row,
            (worked, None) => return worked.and_then(|()| Err(missing())),
        };
        Ok(self.show(&row))
    }

    fn issue(&self, new: NewCertificate, asked: Asked) -> Result<(), Refusal> {
        let malformed = |text: &'static str| Refusal::new(Code::MalformedRequest, text);
        let enrolment = self.enrolment();
        enrolment.authorities.profiles().check_for_apps(&new.profile)?;
        let application = Application {
            tenant: self.app.tenant.name.clone(),
            profile: new.profile,
            subject: new.subject,
            issuer: None,
            asked: Some(asked),
            environment: self.app.environment,
        };
        match (new.request, new.credential, new.kind) {
            (Some(request), None, None) => {
                let request = read_request(&request)?;
                enrolment.issue_for_request(application, &request, clock::wall())?;
            }
            (None, Some(id), None) => {
                self.own_credential(&id)?;
                enrolment.issue_for_credential(application, &id, false, clock::wall())?;
            }
            (None, Some(id), Some(kind)) => self.enrol(&enrolment, application, id, kind)?,
            _ => {
                return Err(malformed(
                    "give a request, or a credential, or a credential and a kind of key",
                ));
            }
        }
        Ok(())
    }

    /// Makes a credential with a key in the pool's software lanes.
    fn enrol(
        &self,
        enrolment: &Enrolment<'_>,
        application: Application,
        id: CredentialId,
        kind: KeyKind,
    ) -> Result<(), Refusal> {
        let keys = Keymaster {
            ledger: self.ledger,
            vault: enrolment.vault,
            reader: enrolment.reader,
            pool: enrolment.pool,
            issuer: Some(enrolment),
        };
        keys.create(CredentialPlan {
            tenant: application.tenant,
            id,
            kind,
            place: KeyPlace::Software,
            environment: self.app.environment,
            certificate: WantedCertificate {
                profile: Some(application.profile),
                subject: application.subject,
                asked: application.asked,
            },
        })
    }

    fn renew(&self, serial: &str, new_key: bool, asked: Asked) -> Result<(), Refusal> {
        let row = self.find(serial)?;
        let id = row.holder.and_then(|holder| holder.credential).ok_or_else(|| {
            let text = "its key is not here: send a new request for a new certificate";
            Refusal::new(Code::WrongState, text)
        })?;
        let tenant = &self.app.tenant.name;
        self.enrolment()
            .renew(tenant, &id, (new_key, Some(asked)), clock::wall())?;
        Ok(())
    }

    fn revoke(&self, serial: &str, reason: &str) -> Result<Value, Refusal> {
        let row = self.find(serial)?;
        let mut all = Reason::ALL.into_iter();
        let known = all.find(|known| known.name() == reason);
        let known = known.filter(|known| !matches!(known, Reason::CertificateHold | Reason::RemoveFromCrl));
        let known = known.ok_or_else(|| {
            let text =
                format!("'{reason}' is not a reason to revoke (RFC 5280 5.3.1), such as keyCompromise");
            Refusal::new(Code::MalformedRequest, text)
        })?;
        let reason = known.number();
        self.set_row(&row, CertificateStanding::Revoked { reason })
    }

    fn set(&self, serial: &str, standing: CertificateStanding) -> Result<Value, Refusal> {
        self.set_row(&self.find(serial)?, standing)
    }

    fn set_row(&self, row: &CertificateRow, standing: CertificateStanding) -> Result<Value, Refusal> {
        let enrolment = self.enrolment();
        let change = (standing, By::Tenant);
        enrolment
            .authorities
            .set_standing(self.ledger, enrolment.reader, row, change, clock::wall())?;
        let found = enrolment.reader.certificate(&row.issuer, &row.serial);
        let missing = || Refusal::new(Code::Internal, "the certificate is not on record");
        let row = found.map_err(|error| error.refusal())?.ok_or_else(missing)?;
        Ok(self.show(&row))
    }

    fn request(&self, body: &RequestBody) -> Result<Value, Refusal> {
        self.own_credential(&body.credential)?;
        let named = |text: &String| text.parse();
        let subject = body.subject.as_ref().map(named).transpose();
        let subject = subject.map_err(|error| {
            Refusal::new(Code::MalformedRequest, format!("`subject` (RFC 4514): {error}"))
        })?;
        let tenant = &self.app.tenant.name;
        let request = self.enrolment().request(tenant, &body.credential, subject)?;
        Ok(json!({ "request": csr::to_pem(&request) }))
    }

    fn import(&self, body: &ImportBody) -> Result<Value, Refusal> {
        self.own_credential(&body.credential)?;
        let chain = read_certificates(&body.chain)?;
        let root = body.root.as_deref().map(read_certificates).transpose()?;
        let root = root.and_then(|mut root| root.pop());
        let (tenant, enrolment) = (&self.app.tenant.name, self.enrolment());
        let imported = enrolment.import(tenant, &body.credential, (chain, root), clock::wall())?;
        Ok(imported.show(None))
    }

    fn list(&self, after: Option<&str>) -> Result<Value, Refusal> {
        let malformed = || Refusal::new(Code::MalformedRequest, "`after` is a serial number, hexadecimal");
        let after = after.map(|text| crate::admin::keys::unhex(text).ok_or_else(malformed));
        let after = after.transpose()?;
        let enrolment = self.enrolment();
        let tenant = &self.app.tenant.name;
        let rows = enrolment.reader.certificate_page(
            (tenant, Some(self.app.environment)),
            after.as_deref(),
            CERTIFICATES_MAX,
        );
        let rows = rows.map_err(|error| error.refusal())?;
        let list: Vec<Value> = rows.iter().map(enrolment::show).collect();
        Ok(json!({ "certificates": list }))
    }

    /// An app sees certificates of its own environment only.
    fn find(&self, serial: &str) -> Result<CertificateRow, Refusal> {
        let of = (&self.app.tenant.name, Some(self.app.environment));
        self.enrolment().by_serial(of, serial)
    }

    fn own_credential(&self, id: &CredentialId) -> Result<(), Refusal> {
        let known = self.app.tenant.credential(id.as_str());
        match known.filter(|known| known.environment == self.app.environment) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(Code::UnknownCredential, "no such credential")),
        }
    }

    fn show(&self, row: &CertificateRow) -> Value {
        let current = self.desk.pki.current();
        let mut chain = vec![row.der.clone()];
        if let Ok(issuer) = current.authorities.get(row.issuer.as_str()) {
            chain.extend(current.authorities.chain(issuer));
        }
        Certified { chain }.show(Some(row))
    }
}
