//! Who vouches for the audit log: a thread that brings checkpoints to witnesses, which cosign them
//! (c2sp.org/tlog-witness), and to an authority that stamps them (RFC 3161). What is signed, and what is not, is the
//! witnesses' own affair; the log grows without them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::audit::Audit;
use actors::outgoing::destination::{Allowed, Destination};
use actors::services::Services;
use aws_lc_rs::rand;
use bytes::Bytes;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use store::audit::{self, AuditError, NoteError, Signed, WitnessKey, add_checkpoint};

use super::ATTEMPT_MAX;
use super::post::{PostError, Poster};
use super::stamp::{self, StampError, Stamped};
use crate::cli::read_anchors;
use crate::config::{Config, TsaConfig};

const BEAT: Duration = Duration::from_millis(250);
/// A witness that knows another checkpoint says so, and is asked once more.
const TRIES: usize = 2;

/// Why a checkpoint was not cosigned or stamped.
#[derive(Debug, thiserror::Error)]
enum VouchError {
    /// Nobody was reached.
    #[error(transparent)]
    Post(#[from] PostError),
    /// Nobody has answered.
    #[error("no answer within {} s", ATTEMPT_MAX.as_secs())]
    Late,
    /// It does not do it.
    #[error("status {0}")]
    Status(u16),
    /// It knows more of the log than there is: this is not the log that it knows.
    #[error("it has seen a checkpoint of {0} leaves, and there are fewer")]
    Ahead(u64),
    /// The answer is none.
    #[error("the answer cannot be read")]
    Answer,
    /// The signature in the answer.
    #[error("the answer: {0}")]
    Note(#[from] NoteError),
    /// The stamp in the answer.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// The log on disk.
    #[error(transparent)]
    Log(#[from] AuditError),
}

/// Somebody who is asked.
struct Voucher {
    url: Destination,
    /// How the last attempt failed, said once.
    failure: Option<String>,
}

struct Witness {
    key: WitnessKey,
    /// Leaves that it has seen.
    known: u64,
    voucher: Voucher,
}

struct Tsa {
    anchors: Vec<Vec<u8>>,
    every: Duration,
    due: Instant,
    /// Leaves that are stamped.
    stamped: u64,
    voucher: Voucher,
}

struct Round {
    services: Arc<Services>,
    poster: Poster,
    witnesses: Vec<Witness>,
    tsa: Option<Tsa>,
    every: Duration,
    /// Leaves that all witnesses have cosigned.
    cosigned: u64,
}

/// Starts the thread, where anybody is to be asked.
pub(crate) fn start(services: &Arc<Services>, config: &Config, allowed: Allowed) -> Result<(), Refusal> {
    let vouchers = &config.vouchers;
    if vouchers.witnesses.is_empty() && vouchers.tsa.is_none() {
        return Ok(());
    }
    let witness = |(key, url): &(WitnessKey, String)| {
        Ok(Witness {
            key: key.clone(),
            known: 0,
            voucher: Voucher::at(url, allowed)?,
        })
    };
    let round = Round {
        services: Arc::clone(services),
        poster: Poster::new(config.outgoing.ca.as_deref(), allowed)?,
        witnesses: vouchers
            .witnesses
            .iter()
            .map(witness)
            .collect::<Result<_, Refusal>>()?,
        tsa: vouchers
            .tsa
            .as_ref()
            .map(|tsa| Tsa::new(tsa, allowed))
            .transpose()?,
        every: vouchers.every,
        cosigned: 0,
    };
    let failed =
        |error: std::io::Error| Refusal::new(Code::Internal, format!("the witnesses' thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    std::thread::Builder::new()
        .name("witnesses".into())
        .spawn(move || runtime.block_on(round.run()))
        .map(drop)
        .map_err(failed)
}

impl Voucher {
    fn at(url: &str, allowed: Allowed) -> Result<Self, Refusal> {
        let wrong = |error| Refusal::new(Code::Usage, format!("configuration: '{url}': {error}"));
        Ok(Self {
            url: Destination::parse(url, allowed).map_err(wrong)?,
            failure: None,
        })
    }

    async fn ask(
        &self,
        poster: &Poster,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), VouchError> {
        let asked = poster.ask(&self.url, content_type, body);
        let answer = tokio::time::timeout(ATTEMPT_MAX, asked).await;
        Ok(answer.map_err(|_| VouchError::Late)??)
    }

    /// Says in the logs when it begins to fail, and when it works again.
    fn note(&mut self, who: &str, failure: Option<String>) {
        match &failure {
            Some(error) if self.failure.as_deref() != Some(error) => {
                tracing::warn!(who, error, "the audit log is not vouched for");
            }
            None if self.failure.is_some() => tracing::info!(who, "the audit log is vouched for again"),
            _ => {}
        }
        self.failure = failure;
    }
}

impl Tsa {
    fn new(config: &TsaConfig, allowed: Allowed) -> Result<Self, Refusal> {
        Ok(Self {
            anchors: read_anchors(&config.ca)?,
            every: config.every,
            due: clock::monotonic(),
            stamped: 0,
            voucher: Voucher::at(&config.url, allowed)?,
        })
    }

    async fn stamp(&self, poster: &Poster, log: &Audit, signed: &Signed) -> Result<(), VouchError> {
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| StampError::Request)?;
        let (request, query) = stamp::request(&signed.note, &nonce)?;
        let answer = self.voucher.ask(poster, documents::tsp::QUERY_TYPE, query);
        let (status, response) = answer.await?;
        if status != 200 {
            return Err(VouchError::Status(status));
        }
        let stamped = Stamped::of_response(&signed.note, &request, &response, &self.anchors)?;
        let text = serde_json::to_string(&stamped).map_err(|_| VouchError::Answer)?;
        Ok(log.folder().write_stamp(signed.checkpoint.size, &text)?)
    }
}

impl Witness {
    /// Its line under a checkpoint.
    async fn cosign(&mut self, poster: &Poster, log: &Audit, signed: &Signed) -> Result<String, VouchError> {
        let size = signed.checkpoint.size;
        for _ in 0..TRIES {
            let proof = match self.known {
                0 => Vec::new(),
                known => audit::consistency(&mut log.folder().nodes(size), known, size)?,
            };
            let body = add_checkpoint(self.known, &proof, &signed.note).into_bytes();
            let (status, answer) = self.voucher.ask(poster, "text/plain", body).await?;
            let answer = std::str::from_utf8(&answer).map_err(|_| VouchError::Answer)?;
            match status {
                200 => {
                    let line = self.key.accept(&signed.note, answer)?;
                    self.known = size;
                    return Ok(line);
                }
                409 => self.known = answer.trim_end().parse().map_err(|_| VouchError::Answer)?,
                status => return Err(VouchError::Status(status)),
            }
            if self.known > size {
                // Another round may have more.
                return Err(VouchError::Ahead(std::mem::take(&mut self.known)));
            }
        }
        Err(VouchError::Status(409))
    }
}

impl Round {
    async fn run(mut self) {
        let mut due = clock::monotonic();
        while self.services.closed().is_none() {
            let now = clock::monotonic();
            let services = Arc::clone(&self.services);
            let log = services.audit.get();
            let signed = log.and_then(|log| log.state().signed());
            if let (Some(log), Some(signed)) = (log, signed)
                && signed.checkpoint.size > 0
            {
                if now >= due {
                    self.cosign(log, &signed).await;
                    due = now + self.every;
                }
                self.stamp(log, &signed, now).await;
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn cosign(&mut self, log: &Audit, signed: &Signed) {
        let size = signed.checkpoint.size;
        if size == self.cosigned || self.witnesses.is_empty() {
            return;
        }
        let (mut note, mut count) = (signed.note.clone(), 0);
        for witness in &mut self.witnesses {
            let cosigned = witness.cosign(&self.poster, log, signed).await;
            let failure = cosigned.as_ref().err().map(ToString::to_string);
            witness.voucher.note(witness.key.name(), failure);
            if let Ok(line) = cosigned {
                note.push_str(&line);
                count += 1;
            }
        }
        if count == 0 {
            return;
        }
        match log.keep_cosigned(&note) {
            Ok(()) if count == self.witnesses.len() => self.cosigned = size,
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "cosignatures cannot be kept"),
        }
    }

    async fn stamp(&mut self, log: &Audit, signed: &Signed, now: Instant) {
        let Some(tsa) = &mut self.tsa else { return };
        if now < tsa.due || signed.checkpoint.size == tsa.stamped {
            return;
        }
        tsa.due = now + tsa.every;
        let stamped = tsa.stamp(&self.poster, log, signed).await;
        let who = tsa.voucher.url.to_string();
        tsa.voucher
            .note(&who, stamped.as_ref().err().map(ToString::to_string));
        if stamped.is_ok() {
            tsa.stamped = signed.checkpoint.size;
        }
    }
}
