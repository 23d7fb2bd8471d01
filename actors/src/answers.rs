//! Answers about single certificates (RFC 6960). With a nonce they are signed when they are asked for. Without one they
//! are kept for the certificates that are asked for often, signed ahead of need, and given from memory until half of
//! their life is over, but never after the certificate's standing has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use documents::crl::Reason;
use documents::ocsp::{self, CertId};
use protocol::clock::UnixMillis;
use protocol::ids::AuthorityName;
use quick_cache::sync::Cache;
use sla::answer::Outcome;
use store::{CertificateStanding, Reader, Standings, StoreError};

use crate::certificates::{Authorities, Authority};

/// How long an answer is good, in milliseconds.
const ANSWER_MS: u64 = 3_600_000;
/// From this age on an answer is not given from memory any more, in milliseconds.
const KEPT_MS: u64 = ANSWER_MS / 2;
/// From this age on an answer that was asked for is signed anew before anybody has to wait for it, in milliseconds.
const AHEAD_MS: u64 = KEPT_MS - 5 * 60_000;
/// Answers that are kept. About 1.5 KB each.
const KEPT_MAX: usize = 20_000;

/// An answer, and how long others may keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// OCSPResponse, in DER.
    pub der: Vec<u8>,
    /// When it was made and until when others may keep it; `None`: not at all.
    pub shelf: Option<(UnixMillis, UnixMillis)>,
    /// How it counts under the service agreement.
    pub outcome: Outcome,
}

/// What we cannot answer is our fault; the other refusals say what was wrong with the request.
const fn outcome_of(refusal: ocsp::Refusal) -> Outcome {
    match refusal {
        ocsp::Refusal::InternalError | ocsp::Refusal::TryLater => Outcome::Failed,
        ocsp::Refusal::MalformedRequest | ocsp::Refusal::SignatureRequired | ocsp::Refusal::Unauthorized => {
            Outcome::CallerFault
        }
    }
}

impl From<ocsp::Refusal> for Answer {
    fn from(refusal: ocsp::Refusal) -> Self {
        Self {
            der: refusal.to_der().to_vec(),
            shelf: None,
            outcome: outcome_of(refusal),
        }
    }
}

/// An answer that is kept.
#[derive(Debug)]
struct Kept {
    answer: Arc<Answer>,
    made: UnixMillis,
    issuer: AuthorityName,
    serial: Vec<u8>,
    /// The count of the certificate's standing, read before the standing.
    count: u64,
    /// Whether somebody has asked since it was made.
    asked: AtomicBool,
}

impl Kept {
    fn is_good(&self, standings: &Standings, now: UnixMillis) -> bool {
        // A clock that was set back makes it worth nothing: it would come from the future.
        self.made <= now
            && now.0 - self.made.0 < KEPT_MS
            && standings.count(&self.issuer, &self.serial) == self.count
    }

    fn is_due(&self, standings: &Standings, now: UnixMillis) -> bool {
        !self.is_good(standings, now) || now.0 - self.made.0 >= AHEAD_MS
    }
}

/// The answers that are kept, by what was asked.
#[derive(Debug)]
pub struct Answers(Cache<CertId, Arc<Kept>>);

impl Default for Answers {
    fn default() -> Self {
        Self(Cache::new(KEPT_MAX))
    }
}

/// Where the truth is: the authorities, how certificates stand, and how often that has changed.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The authorities.
    pub authorities: &'a Authorities,
    /// The store.
    pub reader: &'a Reader,
    /// Counts of changes.
    pub standings: &'a Standings,
}

impl Answers {
    /// Answers a request.
    pub fn answer(&self, sources: Sources<'_>, request: &ocsp::Request, now: UnixMillis) -> Arc<Answer> {
        let hot = match &request.ids[..] {
            [id] if request.nonce.is_none() => Some(id),
            _ => None,
        };
        if let Some(kept) = hot.and_then(|id| self.0.get(id))
            && kept.is_good(sources.standings, now)
        {
            kept.asked.store(true, Ordering::Relaxed);
            return Arc::clone(&kept.answer);
        }
        let made = match hot {
            Some(id) => self.make(sources, id, now),
            None => sources.sign(request, now).map(|der| {
                Arc::new(Answer {
                    der,
                    shelf: None,
                    outcome: Outcome::Result,
                })
            }),
        };
        made.unwrap_or_else(|refusal| Arc::new(refusal.into()))
    }

    /// Makes an answer that others may have, too, and keeps it if it is about a certificate that we know: of unknown ones
    /// there is no end.
    fn make(&self, sources: Sources<'_>, id: &CertId, now: UnixMillis) -> Result<Arc<Answer>, ocsp::Refusal> {
        let delegate = sources.delegate(id, now)?;
        let serial = id.serial().unwrap_or_default();
        let count = sources.standings.count(&delegate.1, serial);
        let status = sources.status(delegate, id)?;
        let answered = sources.assemble(delegate, &[(id, status)], None, now)?;
        let is_known = status != ocsp::Status::Unknown;
        let answer = Arc::new(Answer {
            der: answered,
            shelf: is_known.then_some((now, UnixMillis(now.0 + KEPT_MS))),
            outcome: Outcome::Result,
        });
        if is_known {
            let kept = Kept {
                answer: Arc::clone(&answer),
                made: now,
                issuer: delegate.1.clone(),
                serial: serial.to_vec(),
                count,
                asked: AtomicBool::new(false),
            };
            self.0.insert(id.clone(), Arc::new(kept));
        }
        Ok(answer)
    }

    /// Signs anew what was asked for and will soon be too old, or is not true any more; forgets what nobody has asked for
    /// and is. Returns how many were signed.
    pub fn refresh(&self, sources: Sources<'_>, now: UnixMillis) -> usize {
        let due: Vec<_> = self
            .0
            .iter()
            .filter(|(_, kept)| kept.is_due(sources.standings, now))
            .collect();
        let mut signed = 0;
        for (id, kept) in due {
            if kept.asked.load(Ordering::Relaxed) {
                signed += usize::from(self.make(sources, &id, now).is_ok());
            } else if !kept.is_good(sources.standings, now) {
                self.0.remove(&id);
            }
        }
        signed
    }

    /// Forgets everything: the authorities have changed.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// How many are kept.
    pub fn kept(&self) -> usize {
        self.0.len()
    }
}

type Delegate = (Arc<Authority>, AuthorityName, ocsp::Responder);

impl<'a> Sources<'a> {
    /// Who answers for the issuer of a certificate.
    fn delegate(self, id: &CertId, now: UnixMillis) -> Result<&'a Delegate, ocsp::Refusal> {
        let all = self.authorities.responders.iter();
        all.filter(|(_, _, responder)| id.is_of(responder.issuer()))
            .min_by_key(|(authority, ..)| authority.preference(now))
            .ok_or(ocsp::Refusal::Unauthorized)
    }

    /// How a certificate stands, if it is one of the delegate's issuer.
    fn status(self, (_, issuer, responder): &Delegate, id: &CertId) -> Result<ocsp::Status, ocsp::Refusal> {
        let serial = id.serial().filter(|_| id.is_of(responder.issuer()));
        let known = serial.map(|serial| status(self.reader, issuer, serial));
        known
            .unwrap_or(Ok(ocsp::Status::Unknown))
            .map_err(|error| failed(&error))
    }

    /// The answer to a request that nobody else has put.
    fn sign(self, request: &ocsp::Request, now: UnixMillis) -> Result<Vec<u8>, ocsp::Refusal> {
        let first = request.ids.first().ok_or(ocsp::Refusal::MalformedRequest)?;
        let delegate = self.delegate(first, now)?;
        let told = |id| self.status(delegate, id).map(|status| (id, status));
        let singles: Vec<_> = request.ids.iter().map(told).collect::<Result<_, _>>()?;
        self.assemble(delegate, &singles, request.nonce.as_deref(), now)
    }

    fn assemble(
        self,
        (delegate, _, responder): &Delegate,
        told: &[(&CertId, ocsp::Status)],
        nonce: Option<&[u8]>,
        now: UnixMillis,
    ) -> Result<Vec<u8>, ocsp::Refusal> {
        let single = |&(id, status)| ocsp::Single {
            id,
            status,
            this_update: now,
            next_update: Some(UnixMillis(now.0 + ANSWER_MS)),
        };
        let singles: Vec<_> = told.iter().map(single).collect();
        let prepared = responder
            .prepare(&singles, now, nonce)
            .map_err(|error| failed(&error))?;
        let signature = delegate
            .sign(prepared.to_sign())
            .map_err(|error| failed(&error))?;
        prepared.assemble(&signature).map_err(|error| failed(&error))
    }
}

fn failed(error: &dyn std::fmt::Display) -> ocsp::Refusal {
    tracing::error!(%error, "OCSP");
    ocsp::Refusal::InternalError
}

/// What is only prepared was never given out, and is as unknown as what never was.
fn status(reader: &Reader, issuer: &AuthorityName, serial: &[u8]) -> Result<ocsp::Status, StoreError> {
    let Some(found) = reader.certificate(issuer, serial)? else {
        return Ok(ocsp::Status::Unknown);
    };
    let reason = match found.standing {
        CertificateStanding::Prepared => return Ok(ocsp::Status::Unknown),
        CertificateStanding::Issued => return Ok(ocsp::Status::Good),
        CertificateStanding::Suspended => Reason::CertificateHold,
        CertificateStanding::Revoked { reason } => Reason::from_number(reason).unwrap_or(Reason::Unspecified),
    };
    Ok(ocsp::Status::Revoked {
        at: found.since,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ages_and_is_never_from_the_future() {
        let standings = Standings::default();
        let made = UnixMillis(1_800_000_000_000);
        let kept = Kept {
            answer: Arc::new(ocsp::Refusal::TryLater.into()),
            made,
            issuer: AuthorityName::new("ca").unwrap(),
            serial: vec![1],
            count: 0,
            asked: AtomicBool::new(false),
        };
        let at = |ms: u64| UnixMillis(made.0 + ms);
        assert!(kept.is_good(&standings, made) && !kept.is_due(&standings, made));
        assert!(!kept.is_due(&standings, at(AHEAD_MS - 1)));
        assert!(kept.is_due(&standings, at(AHEAD_MS)) && kept.is_good(&standings, at(AHEAD_MS)));
        assert!(kept.is_good(&standings, at(KEPT_MS - 1)) && !kept.is_good(&standings, at(KEPT_MS)));
        assert!(!kept.is_good(&standings, UnixMillis(made.0 - 1)));
        let changed = Kept { count: 1, ..kept };
        assert!(!changed.is_good(&standings, made), "another standing");
    }
}
