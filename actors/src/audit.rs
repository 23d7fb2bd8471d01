//! The audit log in the engine: the key that signs it, the thread that keeps it behind the journal, and a desk, a thread
//! that reads tiles and makes proofs for whoever asks. Neither a core nor a commit waits for any of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::RwLock;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::Sequence;
use protocol::json::InclusionBody;
use store::audit::{
    AuditError, Folder, FolderNodes, Follower, InclusionProof, Log, Salts, Signed, SigningKey, State,
    TilePath, VerifierKey, inclusion, with_lines_of,
};
use store::{DataEpoch, Reader};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::vault::Vault;

/// Questions that may wait at the desk.
const QUEUE: usize = 256;
/// How long a question for a proof waits for the checkpoint that its entry will be under; there is one a second.
const PATIENCE: Duration = Duration::from_millis(1_500);
const LOOK: Duration = Duration::from_millis(20);

fn failed(error: &AuditError) -> Refusal {
    error.refusal()
}

/// The key of the log in a folder, beside a store of this epoch. A new log gets one, and a name: `origin`, or one that
/// nobody else has. A log from before a restore may have signed for entries that are not there any more, and must not
/// go on.
pub fn signing_key(
    folder: &Folder,
    vault: &Vault,
    origin: Option<&str>,
    epoch: DataEpoch,
) -> Result<SigningKey, Refusal> {
    match folder.key().map_err(|error| failed(&error))? {
        Some((public, wrapped)) => {
            let begun = folder.epoch().map_err(|error| failed(&error))?;
            if begun != epoch {
                let text = format!(
                    "{} holds the audit log of epoch {}, and the data folder was restored and is in epoch {}: move the \
                     log away (it stays valid), and another begins",
                    folder.path().display(),
                    begun.0,
                    epoch.0
                );
                return Err(Refusal::new(Code::DataCorrupt, text));
            }
            unwrap_key(vault, &public, &wrapped)
        }
        None if folder.checkpoint().map_err(|error| failed(&error))?.is_some() => {
            let text = format!(
                "{} holds an audit log without its key; put the key back, or move the folder away to begin another log",
                folder.path().display()
            );
            Err(Refusal::new(Code::DataCorrupt, text))
        }
        None => make_key(folder, vault, origin, epoch),
    }
}

fn label(public: &VerifierKey) -> String {
    format!("audit-key/{public}")
}

fn unwrap_key(vault: &Vault, public: &str, wrapped: &[u8]) -> Result<SigningKey, Refusal> {
    let corrupt = |what: String| Refusal::new(Code::DataCorrupt, format!("the audit log's key: {what}"));
    let public: VerifierKey = public
        .parse()
        .map_err(|error: store::audit::NoteError| corrupt(error.to_string()))?;
    let seed = vault
        .unwrap(wrapped, label(&public).as_bytes())
        .map_err(|error| corrupt(error.to_string()))?;
    let key = SigningKey::new(public.name(), &seed).map_err(|error| corrupt(error.to_string()))?;
    if *key.verifier() != public {
        return Err(corrupt("its halves do not belong together".into()));
    }
    Ok(key)
}

fn make_key(
    folder: &Folder,
    vault: &Vault,
    origin: Option<&str>,
    epoch: DataEpoch,
) -> Result<SigningKey, Refusal> {
    let internal = |_| Refusal::new(Code::Internal, "no randomness");
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut seed[..]).map_err(internal)?;
    let mut id = [0; 8];
    aws_lc_rs::rand::fill(&mut id).map_err(internal)?;
    let name = origin.map_or_else(
        || format!("cinnabar/{:016x}", u64::from_be_bytes(id)),
        str::to_owned,
    );
    let key = SigningKey::new(&name, &seed[..]).map_err(|_| {
        let text = format!("audit_origin: '{name}' cannot name a log: no blanks and no plus sign");
        Refusal::new(Code::Usage, text)
    })?;
    let wrapped = vault
        .wrap(&seed[..], label(key.verifier()).as_bytes())
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    folder
        .write_key(key.verifier(), &wrapped, epoch)
        .map_err(|error| failed(&error))?;
    tracing::info!(key = %key.verifier(), "a new audit log begins");
    Ok(key)
}

/// Takes in what was committed while no engine ran.
pub fn catch_up(folder: &Path, key: SigningKey, reader: &Reader) -> Result<(), AuditError> {
    let mut log = Log::open(folder, Arc::new(key), reader)?;
    while Log::is_behind(log.grow(reader)?) {}
    Ok(())
}

/// The log of a running engine.
#[derive(Debug)]
pub struct Audit {
    follower: Follower,
    desk: Sender<Asked>,
    folder: Folder,
    cosigned: RwLock<Option<Arc<str>>>,
}

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

enum Asked {
    Tile(TilePath, Reply<Vec<u8>>),
    Inclusion(Vec<Sequence>, Reply<Vec<InclusionBody>>),
}

impl Audit {
    /// Opens the log and starts its threads. `readers`: one for each of them.
    pub fn start(folder: Folder, key: SigningKey, readers: [Reader; 2]) -> Result<Self, Refusal> {
        let [behind, reader] = readers;
        let follower = Follower::start(folder.path().into(), Arc::new(key), behind);
        let follower = follower.map_err(|error| error.refusal())?;
        let (sender, asked) = bounded(QUEUE);
        let cosigned = folder.cosigned().map_err(|error| failed(&error))?;
        let desk = Desk {
            folder: folder.clone(),
            state: Arc::clone(follower.state()),
            reader,
        };
        std::thread::Builder::new()
            .name("audit-desk".into())
            .spawn(move || desk.run(&asked))
            .map_err(|error| Refusal::new(Code::Internal, format!("the audit desk's thread: {error}")))?;
        Ok(Self {
            follower,
            desk: sender,
            folder,
            cosigned: RwLock::new(cosigned.map(Arc::from)),
        })
    }

    /// How the log stands.
    pub const fn state(&self) -> &Arc<State> {
        self.follower.state()
    }

    /// The last checkpoint.
    pub fn signed(&self) -> Result<Arc<Signed>, Refusal> {
        let opening =
            || Refusal::new(Code::ProofPending, "the audit log is being opened").retry_after_ms(1_000);
        self.state().signed().ok_or_else(opening)
    }

    /// The last checkpoint that a witness has cosigned.
    pub fn cosigned(&self) -> Result<Arc<str>, Refusal> {
        let none = || Refusal::new(Code::NotFound, "no witness has cosigned a checkpoint");
        self.cosigned.read().clone().ok_or_else(none)
    }

    /// Keeps what witnesses have signed, beside what others have signed of the same checkpoint before.
    pub fn keep_cosigned(&self, note: &str) -> Result<(), AuditError> {
        let mut cosigned = self.cosigned.write();
        let note = match cosigned.as_deref() {
            Some(before) => with_lines_of(note, before),
            None => note.to_owned(),
        };
        self.folder.write_cosigned(&note)?;
        *cosigned = Some(note.into());
        Ok(())
    }

    /// Where the log is.
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// A tile or a bundle, if the log under the last checkpoint has it.
    pub async fn tile(&self, path: TilePath) -> Result<Vec<u8>, Refusal> {
        self.ask(|reply| Asked::Tile(path, reply)).await
    }

    /// Proofs for journal entries. Waits a little where the newest are not under a checkpoint yet.
    pub async fn inclusion(&self, entries: Vec<Sequence>) -> Result<Vec<InclusionBody>, Refusal> {
        let last = entries.iter().map(|entry| entry.0).max().unwrap_or_default();
        let until = clock::monotonic() + PATIENCE;
        while self.state().size() < last {
            if clock::monotonic() > until {
                let text = format!("journal entry {last} is not under a checkpoint of the audit log yet");
                return Err(Refusal::new(Code::ProofPending, text).retry_after_ms(1_000));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.ask(|reply| Asked::Inclusion(entries, reply)).await
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Asked) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.desk.try_send(question(reply)).map_err(|_| {
            Refusal::new(Code::Overloaded, "too much is asked of the audit log").retry_after_ms(1_000)
        })?;
        let lost = |_| Refusal::new(Code::Restarted, "the audit log did not answer").retry_after_ms(1_000);
        answer.await.map_err(lost)?
    }

    /// Takes in the last entries, signs, and ends.
    pub fn stop(&self) {
        self.follower.stop();
    }
}

struct Desk {
    folder: Folder,
    state: Arc<State>,
    reader: Reader,
}

impl Desk {
    fn run(self, asked: &Receiver<Asked>) {
        while let Ok(asked) = asked.recv() {
            // Whoever asked may have gone.
            match asked {
                Asked::Tile(path, reply) => drop(reply.send(self.tile(path))),
                Asked::Inclusion(entries, reply) => drop(reply.send(self.inclusion(&entries))),
            }
        }
    }

    fn tile(&self, path: TilePath) -> Result<Vec<u8>, Refusal> {
        let missing = || Refusal::new(Code::NotFound, "the audit log has no such tile");
        if !path.tile().is_within(self.state.size()) {
            return Err(missing());
        }
        let bytes = self.folder.read(path).map_err(|error| failed(&error))?;
        bytes.ok_or_else(missing)
    }

    fn inclusion(&self, entries: &[Sequence]) -> Result<Vec<InclusionBody>, Refusal> {
        let signed = self
            .state
            .signed()
            .ok_or_else(|| Refusal::new(Code::ProofPending, "the audit log is being opened"))?;
        let prover = Prover::new(&self.folder, &signed, &self.reader);
        let mut prover = prover.map_err(|error| failed(&error))?;
        let proofs = entries.iter().map(|entry| prover.prove(*entry));
        proofs.collect::<Result<_, _>>().map_err(|error| {
            tracing::error!(%error, "a proof could not be made");
            failed(&error)
        })
    }
}

/// Makes proofs under one checkpoint.
#[derive(Debug)]
pub struct Prover<'a> {
    nodes: FolderNodes<'a>,
    salts: Option<Salts>,
    signed: &'a Signed,
    reader: &'a Reader,
}

impl<'a> Prover<'a> {
    /// For the log in `folder`, beside its journal.
    pub fn new(folder: &'a Folder, signed: &'a Signed, reader: &'a Reader) -> Result<Self, AuditError> {
        Ok(Self {
            nodes: folder.nodes(signed.checkpoint.size),
            salts: Salts::existing(folder.path())?,
            signed,
            reader,
        })
    }

    /// The proof of one journal entry.
    pub fn prove(&mut self, entry: Sequence) -> Result<InclusionBody, AuditError> {
        let size = self.signed.checkpoint.size;
        let index = entry.0.checked_sub(1).filter(|index| *index < size);
        let index = index.ok_or(AuditError::NotLogged(entry.0))?;
        let (at, record) = self
            .reader
            .raw_entry(entry)?
            .ok_or(AuditError::EntryMissing(entry.0))?;
        let salt = match &self.salts {
            Some(salts) => salts.get(index)?,
            None => None,
        };
        let proof = InclusionProof {
            index,
            path: inclusion(&mut self.nodes, index, size)?,
            checkpoint: self.signed.note.clone(),
        };
        Ok(InclusionBody {
            sequence: entry.0,
            committed_ms: at.0,
            record: STANDARD.encode(record),
            salt: salt.map(|salt| STANDARD.encode(salt.0)),
            proof: proof.to_text(),
        })
    }
}

/// Checks a receipt with nothing but the log's key; says in a tree of which size it is.
pub fn check_receipt(receipt: &InclusionBody, key: &VerifierKey) -> Result<u64, Refusal> {
    let unreadable = |what: &str| Refusal::new(Code::MalformedRequest, format!("the receipt's {what}"));
    let base64 = |what: &str, text: &str| STANDARD.decode(text).map_err(|_| unreadable(what));
    let record = base64("record is not base64", &receipt.record)?;
    let salt = receipt.salt.as_deref().ok_or_else(|| {
        let text = "the receipt has no salt: it was erased, and nothing can be proved of the entry";
        Refusal::new(Code::SignatureInvalid, text)
    })?;
    let salt = base64("salt is not base64", salt)?;
    let salt: [u8; 16] = salt.try_into().map_err(|_| unreadable("salt is not 16 bytes"))?;
    let proof = InclusionProof::parse(&receipt.proof)
        .map_err(|error| Refusal::new(Code::MalformedRequest, error.to_string()))?;
    if receipt.sequence.checked_sub(1) != Some(proof.index) {
        return Err(unreadable("proof is for another entry"));
    }
    let at = clock::UnixMillis(receipt.committed_ms);
    let leaf = store::audit::leaf_of(&store::audit::commitment(store::audit::Salt(salt), at, &record));
    let checkpoint = proof.verify(leaf, key);
    let checkpoint = checkpoint.map_err(|error| Refusal::new(Code::SignatureInvalid, error.to_string()))?;
    Ok(checkpoint.size)
}
