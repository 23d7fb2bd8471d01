//! What a pki thread has at hand to answer with: the authorities, a view of the store, the clock. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actors::answer_log::AnswerLog;
use actors::answers::{Answer, Sources};
use actors::document_vault::step_label;
use actors::lists::{ListKind, ServedList};
use actors::stamp_callers::{self, StampCaller};
use actors::time_stamps::{TimeSource, Token};
use actors::vault::VaultError;
use documents::{ocsp, tsp};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use sla::answer::Outcome;
use smallvec::SmallVec;
use store::{ItemName, KeptStep, Reader, StampDraft, Stamped};
use tokio::sync::oneshot;

use super::Pki;
use crate::admin::operator::AsActor;

/// One thread's desk.
pub(crate) struct Desk {
    pub(super) pki: Arc<Pki>,
    pub(super) reader: Reader,
    pub(super) clock: Arc<dyn TimeSource>,
    /// What this thread has answered.
    pub(super) log: Arc<AnswerLog>,
}

/// A rejection that is our fault: whoever asked has asked rightly.
const fn rejected(failure: tsp::Failure) -> Outcome {
    match failure {
        tsp::Failure::TimeNotAvailable | tsp::Failure::SystemFailure => Outcome::Failed,
        _ => Outcome::CallerFault,
    }
}

/// The rejection of what is no request, and how it counts.
pub(super) fn reject(failure: tsp::Failure) -> (Vec<u8>, Outcome) {
    (tsp::rejection(failure), rejected(failure))
}

/// Who gets a time stamp.
pub(super) enum Caller {
    /// Whoever asks: the platform bears it.
    Anybody,
    App(StampCaller),
}

impl Desk {
    /// Who asks, by the token in the path or the Authorization header.
    pub(super) fn caller(&self, token: Option<&str>, basic: Option<&[u8]>) -> Result<Caller, Refusal> {
        let now = clock::wall();
        let (directory, vault) = (self.pki.store.directory(), &self.pki.vault);
        let admit = |token: &str| stamp_callers::admit(directory, vault, token, now).map(Caller::App);
        match (token, basic) {
            (Some(token), _) => admit(token),
            (None, Some(header)) => {
                let header = std::str::from_utf8(header).unwrap_or_default();
                admit(&stamp_callers::token_of_basic(header)?)
            }
            (None, None) if !self.pki.settings.anonymous => Err(Refusal::new(
                Code::Unauthenticated,
                "time stamps are given to apps: /tsa/TOKEN, or user name and password (setting tsa_anonymous)",
            )),
            (None, None) => {
                let over = |wait| {
                    Refusal::new(Code::RateLimited, "too many time stamps for nobody in particular")
                        .retry_after_ms(wait)
                };
                self.pki.anonymous.take_rate(now, 1).map_err(over)?;
                Ok(Caller::Anybody)
            }
        }
    }

    /// TimeStampResp, in DER, granted or rejected, and how it counts. What an app is given is recorded and charged first.
    pub(super) async fn stamp(
        &self,
        caller: Caller,
        request: &tsp::Request,
        authority: Option<&str>,
        kept_for: Option<(ItemName, u32)>,
    ) -> Result<(Vec<u8>, Outcome), Refusal> {
        let current = self.pki.current();
        let stamper = current.stamper(authority, request.hash, clock::wall());
        let stamper =
            stamper.ok_or_else(|| Refusal::new(Code::NotFound, "no such time-stamping authority"))?;
        if self.pki.store.is_full() {
            return Err(Refusal::new(Code::StorageFull, "the disk is full"));
        }
        let ledger = AsActor(&self.pki.store, "pki");
        let token = match stamper.stamp(&ledger, &*self.clock, request) {
            Ok(token) => token,
            Err(failure) => return Ok(reject(failure)),
        };
        match caller {
            Caller::Anybody => {
                self.pki.borne.fetch_add(1, Ordering::Relaxed);
            }
            Caller::App(caller) => {
                let kept = self.kept(&caller, kept_for, &token)?;
                self.record(&caller, (stamper.authority(), &token), request, kept)
                    .await?;
            }
        }
        Ok((token.response, Outcome::Result))
    }

    /// The answer as it is kept with a document's operation.
    fn kept(
        &self,
        caller: &StampCaller,
        kept_for: Option<(ItemName, u32)>,
        token: &Token,
    ) -> Result<Option<KeptStep>, Refusal> {
        let tenant = &caller.app.0.tenant;
        let keep = |(of, step)| {
            let own = self.pki.vault.of_tenant(tenant)?;
            let answer = own.wrap(&token.response, step_label(of, step).as_bytes())?;
            Ok(KeptStep { of, step, answer })
        };
        let kept = kept_for.map(keep).transpose();
        kept.map_err(|error: VaultError| error.refusal())
    }

    async fn record(
        &self,
        caller: &StampCaller,
        (authority, token): (&actors::certificates::Authority, &Token),
        request: &tsp::Request,
        kept: Option<KeptStep>,
    ) -> Result<(), Refusal> {
        let app = &caller.app.0;
        let (told, heard) = oneshot::channel();
        self.pki.store.stamp(StampDraft {
            app: caller.app.clone(),
            stamp: Stamped {
                tenant: app.tenant.row,
                app: app.row,
                serial: token
                    .serial
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
                    .into(),
                algorithm: authority.algorithm,
                authority: authority.name.as_str().into(),
                imprint: SmallVec::from_slice(request.digest()),
            },
            kept,
            // Whoever asked may have gone; the token is charged all the same.
            reply: Box::new(move |outcome| drop(told.send(outcome))),
        });
        let gone = |_| Refusal::new(Code::Internal, "the time stamp was not recorded");
        heard.await.map_err(gone)?.map(drop)
    }

    /// The answer to an OCSP request, or to what should have been one.
    pub(super) fn status(&self, request: Result<ocsp::Request, ocsp::RequestError>) -> Arc<Answer> {
        let Ok(request) = request else {
            return Arc::new(ocsp::Refusal::MalformedRequest.into());
        };
        let current = self.pki.current();
        let sources = Sources {
            authorities: &current.authorities,
            reader: &self.reader,
            standings: &self.pki.store.directory().standings,
        };
        self.pki.answers.answer(sources, &request, clock::wall())
    }

    /// The newest list of an authority.
    pub(super) fn list(
        &self,
        kind: ListKind,
        issuer: &AuthorityName,
    ) -> Result<Option<Arc<ServedList>>, Refusal> {
        self.pki.shelf.get(&self.reader, issuer, kind).map_err(|error| {
            tracing::error!(%error, "a revocation list could not be read");
            error.refusal()
        })
    }
}
