//! The reader: a thread that reads what a call needs and memory does not have. A core must never wait for the disk.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use documents::cms::Chain;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppRow, IdempotencyKey, Sequence};
use protocol::limits::{FRAME_BYTES_MAX, REPLY_KEPT_MS};
use protocol::message::{Answer, CredentialInfo, ItemOutcome, UsageInfo};
use store::{
    App, Credential, DiscardReason, Entry, Environment, Known, Outcome, Reader, Record, RequestHash, Settled,
    State, StoreError, Tenant,
};

use crate::call::{Page, Ticket};
use crate::core::{CoreRemote, Event};
use crate::seals;
use crate::services::Chains;
use crate::shard::reused;
use crate::vault::Vault;

/// What is to be read.
pub(crate) enum Read {
    /// A recorded signature, for a retry.
    Replay {
        sequence: Sequence,
        key: IdempotencyKey,
        request: RequestHash,
    },
    /// The items of an earlier call.
    Lookup(Vec<Known>),
    /// A credential's certificates as of a renewal, into the cache.
    Chain(Arc<Credential>, u32),
    /// A tenant's credentials.
    Credentials(Arc<Tenant>, Environment, Page),
    /// The seals of an app's tenant.
    Seals(Arc<App>, Page),
    /// An app's usage.
    Usage(AppRow),
}

/// Credentials in one answer.
const CREDENTIALS_MAX: usize = 256;
/// What a credential takes in an answer beside its key and certificates: ids, names, lengths, and room.
const CREDENTIAL_BYTES: usize = 256;
/// Questions that may wait.
const QUEUE: usize = 4096;

/// Where the cores ask.
#[derive(Debug)]
pub(crate) struct ReaderHandle(Sender<(Ticket, Read)>);

impl ReaderHandle {
    pub(crate) fn start(
        reader: Reader,
        (cores, chains, vault): (Arc<[Arc<CoreRemote>]>, Arc<Chains>, Arc<Vault>),
    ) -> Self {
        let (sender, questions) = bounded(QUEUE);
        let thread = ReaderThread {
            reader,
            cores,
            chains,
            vault,
            questions,
        };
        let started = std::thread::Builder::new()
            .name("reader".into())
            .spawn(move || thread.run());
        if let Err(error) = started {
            tracing::error!(%error, "the reader thread could not be started");
        }
        Self(sender)
    }

    pub(crate) fn ask(&self, ticket: Ticket, read: Read) -> Result<(), Refusal> {
        self.0
            .try_send((ticket, read))
            .map_err(|_| Refusal::new(Code::Overloaded, "too much is being read").retry_after_ms(100))
    }
}

struct ReaderThread {
    reader: Reader,
    cores: Arc<[Arc<CoreRemote>]>,
    chains: Arc<Chains>,
    vault: Arc<Vault>,
    questions: Receiver<(Ticket, Read)>,
}

impl ReaderThread {
    fn run(self) {
        while let Ok((ticket, read)) = self.questions.recv() {
            let event = self.read(ticket, read);
            if let Some(core) = self.cores.get(usize::from(ticket.core)) {
                core.send(event);
            }
        }
    }

    fn read(&self, ticket: Ticket, read: Read) -> Event {
        match read {
            Read::Replay {
                sequence,
                key,
                request,
            } => {
                let outcome = self.replay(sequence, &key, request);
                Event::Outcomes(vec![(ticket, outcome.unwrap_or_else(Outcome::Failed))])
            }
            Read::Lookup(known) => Event::Answer(ticket, self.look_up(&known)),
            // Read after the version was: what is kept under it is never older.
            Read::Chain(credential, version) => match self.chain(&credential) {
                Ok(chain) => {
                    self.chains.insert((credential.row, version), chain);
                    Event::Resume(ticket)
                }
                Err(error) => Event::Answer(ticket, Err(failed(&error))),
            },
            Read::Credentials(tenant, environment, page) => {
                let list = self.credentials(&tenant, environment, &page);
                Event::Answer(ticket, list.map_err(|error| failed(&error)))
            }
            Read::Seals(app, page) => {
                Event::Answer(ticket, seals::list(&self.reader, &self.vault, &app, &page))
            }
            Read::Usage(app) => Event::Answer(ticket, self.usage(app).map_err(|error| failed(&error))),
        }
    }

    /// The recorded signature, if it was recorded for the same request.
    fn replay(
        &self,
        sequence: Sequence,
        key: &IdempotencyKey,
        request: RequestHash,
    ) -> Result<Outcome, Refusal> {
        let entry = self.entry(sequence)?;
        let kept = is_kept(entry.at, clock::wall());
        Ok(match entry.record {
            Record::Signature { item, sealed, .. }
                if item.request == request && &*item.key == key.as_str() =>
            {
                if kept {
                    let signature = self.vault.open_signature(&self.reader, &item, &sealed)?;
                    Outcome::Done { sequence, signature }
                } else {
                    Outcome::Failed(expired())
                }
            }
            _ => Outcome::Failed(reused()),
        })
    }

    fn entry(&self, sequence: Sequence) -> Result<Entry, Refusal> {
        let missing = StoreError::Corrupt {
            sequence: sequence.0,
            what: "an entry that the key index names is missing",
        };
        let entry = self.reader.entry(sequence).map_err(|error| failed(&error))?;
        entry.ok_or_else(|| failed(&missing))
    }

    fn look_up(&self, known: &[Known]) -> Result<Answer, Refusal> {
        let mut items = Vec::new();
        let mut of = 0;
        for (at, known) in known.iter().enumerate() {
            let item = match known {
                Known::Absent if at < of => ItemOutcome::Failed(Refusal::new(Code::NotFound, "not signed")),
                Known::Absent => continue,
                Known::Running => ItemOutcome::Pending,
                Known::Settled(settled) => {
                    let (item, count) = self.settled(*settled)?;
                    of = of.max(usize::from(count));
                    item
                }
            };
            // Items before this one that nobody has heard of were never begun.
            items.resize_with(at, || {
                ItemOutcome::Failed(Refusal::new(Code::NotFound, "not signed"))
            });
            items.push(item);
        }
        if items.is_empty() {
            return Err(Refusal::new(
                Code::NotFound,
                "nothing is known under this idempotency key",
            ));
        }
        items.resize_with(items.len().max(of), || {
            ItemOutcome::Failed(Refusal::new(Code::NotFound, "not signed"))
        });
        Ok(Answer::Items(items))
    }

    /// One item as the journal has it, and how many items its call has.
    fn settled(&self, settled: Settled) -> Result<(ItemOutcome, u16), Refusal> {
        let Settled { sequence, state } = settled;
        let entry = self.entry(sequence)?;
        let of = entry.record.item().map_or(1, |item| item.of);
        let kept = is_kept(entry.at, clock::wall());
        let outcome = match entry.record {
            Record::Signature { .. } if !kept => ItemOutcome::Failed(expired()),
            Record::Signature { item, sealed, .. } => ItemOutcome::Done {
                signature: (self.vault.open_signature(&self.reader, &item, &sealed)?).into_vec(),
                sequence,
            },
            Record::Failed { code, .. } => {
                let code = Code::from_wire(code).unwrap_or(Code::Internal);
                ItemOutcome::Failed(Refusal::new(code, "it was pending and then failed; not charged"))
            }
            Record::Discarded { reason, .. } => ItemOutcome::Failed(discarded(reason)),
            _ if state == State::Pending => ItemOutcome::Pending,
            _ => ItemOutcome::Failed(Refusal::new(
                Code::DataCorrupt,
                "the journal entry is of another kind",
            )),
        };
        Ok((outcome, of))
    }

    fn chain(&self, credential: &Credential) -> Result<Option<Arc<Chain>>, StoreError> {
        let Some(certificates) = self.reader.chain_of_key(credential.row, credential.key)? else {
            let text = "the credential's key was replaced while the request ran";
            return Err(StoreError::Refused(Refusal::new(Code::Restarted, text)));
        };
        if certificates.is_empty() {
            return Ok(None);
        }
        let corrupt = |_| StoreError::Corrupt {
            sequence: 0,
            what: "a credential's certificates cannot be read",
        };
        Ok(Some(Arc::new(Chain::new(&certificates).map_err(corrupt)?)))
    }

    /// As many credentials as fit into one answer, at least one if there is one.
    fn credentials(
        &self,
        tenant: &Tenant,
        environment: Environment,
        page: &Page,
    ) -> Result<Answer, StoreError> {
        let asked = match &page.only {
            Some(id) => tenant
                .credential(id)
                .into_iter()
                .filter(|one| one.environment == environment)
                .collect(),
            None => tenant.credentials_after(page.after.as_deref(), environment, CREDENTIALS_MAX),
        };
        let mut list = Vec::new();
        let mut bytes = 0;
        for credential in asked {
            let info = self.credential(&credential)?;
            bytes +=
                info.public_key.len() + info.chain.iter().map(Vec::len).sum::<usize>() + CREDENTIAL_BYTES;
            if bytes > FRAME_BYTES_MAX && !list.is_empty() {
                break;
            }
            list.push(info);
        }
        Ok(Answer::Credentials(list))
    }

    fn credential(&self, credential: &Credential) -> Result<CredentialInfo, StoreError> {
        let missing = StoreError::Corrupt {
            sequence: 0,
            what: "a credential without its key",
        };
        Ok(CredentialInfo {
            id: credential.id.to_string(),
            kind: credential.kind,
            active: credential.fence.pass().is_some(),
            public_key: self.reader.key(credential.key)?.ok_or(missing)?.public_key,
            chain: self.reader.chain(credential.row)?,
        })
    }

    fn usage(&self, app: AppRow) -> Result<Answer, StoreError> {
        let mut usage = UsageInfo::default();
        for row in self.reader.usage(app)? {
            usage.signatures += row.units;
            add(&mut usage.by_credential, row.credential, row.units);
            add(
                &mut usage.by_month,
                format!("{:04}-{:02}", row.month / 100, row.month % 100),
                row.units,
            );
        }
        Ok(Answer::Usage(usage))
    }
}

/// What became of an item that was not released.
fn discarded(reason: DiscardReason) -> Refusal {
    let (code, text) = match reason {
        DiscardReason::Seal => (
            Code::SealFrozen,
            "signed after its seal was frozen or revoked; not released, not charged",
        ),
        DiscardReason::Grant => (
            Code::GrantRevoked,
            "signed after its grant was revoked; not released, not charged",
        ),
        DiscardReason::SealTime => (
            Code::GrantExpired,
            "signed after the end of its seal or grant; not released, not charged",
        ),
        DiscardReason::GrantUses => (
            Code::GrantUsedUp,
            "signed after its grant was used up; not released, not charged",
        ),
        DiscardReason::App
        | DiscardReason::Credential
        | DiscardReason::Balance
        | DiscardReason::Tenant
        | DiscardReason::Certificate => (
            Code::CredentialDisabled,
            "signed after a revocation; not released, not charged",
        ),
    };
    Refusal::new(code, text)
}

/// Whether a reply of this time can still be had.
const fn is_kept(at: UnixMillis, now: UnixMillis) -> bool {
    now.0.saturating_sub(at.0) <= REPLY_KEPT_MS
}

fn expired() -> Refusal {
    let text =
        "signed and counted once; its signature is given out for 30 days only, and this key is used up";
    Refusal::new(Code::ReplyExpired, text)
}

fn add(counts: &mut Vec<(String, u64)>, name: String, units: u64) {
    match counts.iter_mut().find(|(known, _)| *known == name) {
        Some((_, count)) => *count += units,
        None => counts.push((name, units)),
    }
}

fn failed(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the store could not be read");
    error.refusal()
}
