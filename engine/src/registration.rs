//! The registration desk: a thread that does what apps ask about certificates and subjects. It takes as long as keys,
//! signatures and commits take, and no core waits for it. What is decided is decided in `actors::{enrolment, subjects}`.

use std::sync::Arc;

use actors::call::Ticket;
use actors::enrolment::{self, Application, Certified, Enrolment};
use actors::keymaster::{CredentialPlan, KeyPlace, Keymaster, WantedCertificate};
use actors::services::Services;
use actors::subjects::Subjects;
use crossbeam_channel::{Receiver, Sender, bounded};
use documents::crl::Reason;
use protocol::algorithm::KeyKind;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, SubjectId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{App, Asked, CertificateRow, CertificateStanding, StoreHandle, SubjectStep};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::admin::certificates::read_request;
use crate::admin::operator::AsActor;
use crate::admin::subjects::{self, NewSubject};
use crate::pki::{Office, Pki};

/// Questions that may wait; more are turned away.
const QUEUE: usize = 64;
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

/// What an app asks. Each is about its own tenant: there is no way to name another.
#[derive(Debug)]
pub(crate) enum Question {
    Certificates { after: Option<String> },
    Certificate(String),
    Issue(NewCertificate, Asked),
    Renew(String, RenewalBody, Asked),
    Revoke(String, RevocationBody),
    Subjects { after: Option<SubjectId> },
    Subject(SubjectId),
    Submit(NewSubject),
    Challenge(SubjectId),
    Erase(SubjectId, ErasureBody),
}

enum Work {
    OfApp(Arc<App>, Question),
    /// A verification service's answer.
    Answer(String),
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Value, Refusal>>,
}

/// Where to ask.
#[derive(Clone)]
pub(crate) struct Registration(Sender<Job>);

/// What has been asked, until the desk opens.
pub(crate) struct Waiting(Receiver<Job>);

impl Registration {
    pub(crate) fn new() -> (Self, Waiting) {
        let (sender, jobs) = bounded(QUEUE);
        (Self(sender), Waiting(jobs))
    }

    /// Asks for an app.
    pub(crate) async fn ask(&self, app: Arc<App>, question: Question) -> Result<Value, Refusal> {
        self.send(Work::OfApp(app, question)).await
    }

    /// Brings a verification service's answer.
    pub(crate) async fn answer(&self, token: String) -> Result<Value, Refusal> {
        self.send(Work::Answer(token)).await
    }

    async fn send(&self, work: Work) -> Result<Value, Refusal> {
        let (reply, answer) = oneshot::channel();
        let full = |_| {
            let text = "too much waits for the registration desk";
            Refusal::new(Code::Overloaded, text).retry_after_ms(1_000)
        };
        self.0.try_send(Job { work, reply }).map_err(full)?;
        let lost = |_| {
            let text = "the registration desk has not answered; ask again with the same key";
            Refusal::new(Code::Restarted, text).retry_after_ms(1_000)
        };
        answer.await.map_err(lost)?
    }
}

/// Opens the desk. Its thread ends with the last who could ask.
pub(crate) fn open(waiting: Waiting, pki: &Arc<Pki>, services: &Arc<Services>) -> Result<(), Refusal> {
    let desk = Desk {
        pki: Arc::clone(pki),
        services: Arc::clone(services),
    };
    std::thread::Builder::new()
        .name("registration".into())
        .spawn(move || desk.run(&waiting.0))
        .map(drop)
        .map_err(|error| Refusal::new(Code::Internal, format!("the registration thread: {error}")))
}

struct Desk {
    pki: Arc<Pki>,
    services: Arc<Services>,
}

impl Desk {
    fn run(&self, jobs: &Receiver<Job>) {
        for Job { work, reply } in jobs {
            let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work(work)));
            match answered {
                // Whoever asked may have gone.
                Ok(answer) => drop(reply.send(answer)),
                Err(_) => tracing::error!("the registration desk panicked and goes on"),
            }
        }
    }

    fn work(&self, work: Work) -> Result<Value, Refusal> {
        let store: &StoreHandle<Ticket> = &self.services.store;
        let office = self.pki.office(Some(&self.services.pool))?;
        let reader = self.pki.reader()?;
        match work {
            Work::Answer(token) => {
                let ledger = AsActor(store, "verification");
                let subjects = self.subjects(&ledger, &reader);
                subjects.answer(&self.pki.settings.verifiers, &token)?;
                Ok(json!({}))
            }
            Work::OfApp(app, question) => {
                let actor = format!("app {}", app.id);
                let ledger = AsActor(store, &actor);
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
        let (tenant, environment) = (&self.app.tenant.name, self.app.environment);
        match question {
            Question::Certificates { after } => self.list(after.as_deref()),
            Question::Certificate(serial) => Ok(self.show(&self.find(&serial)?)),
            Question::Issue(new, asked) => self.once(asked, |asked| self.issue(new, asked)),
            Question::Renew(serial, body, asked) => {
                self.once(asked, |asked| self.renew(&serial, body.new_key, asked))
            }
            Question::Revoke(serial, body) => self.revoke(&serial, &body.reason),
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
        work(asked.clone())?;
        let missing = || Refusal::new(Code::Internal, "the certificate is not on record");
        let row = self.enrolment().asked_before(&asked)?.ok_or_else(missing)?;
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
        let standing = CertificateStanding::Revoked {
            reason: known.number(),
        };
        let enrolment = self.enrolment();
        enrolment
            .authorities
            .set_standing(self.ledger, enrolment.reader, &row, standing, clock::wall())?;
        Ok(self.show(&self.find(serial)?))
    }

    fn list(&self, after: Option<&str>) -> Result<Value, Refusal> {
        let malformed = || Refusal::new(Code::MalformedRequest, "`after` is a serial number, hexadecimal");
        let after = after.map(|text| crate::admin::keys::unhex(text).ok_or_else(malformed));
        let after = after.transpose()?;
        let enrolment = self.enrolment();
        let tenant = &self.app.tenant.name;
        let rows = enrolment.reader.certificate_page(
            (tenant, self.app.environment),
            after.as_deref(),
            CERTIFICATES_MAX,
        );
        let rows = rows.map_err(|error| error.refusal())?;
        let list: Vec<Value> = rows.iter().map(enrolment::show).collect();
        Ok(json!({ "certificates": list }))
    }

    /// An app sees certificates of its own environment only.
    fn find(&self, serial: &str) -> Result<CertificateRow, Refusal> {
        let of = (&self.app.tenant.name, self.app.environment);
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
