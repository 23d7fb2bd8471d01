//! What must survive: the journal, the key index beside it, the registry, usage. Embedded: one SQLite database with
//! one writer.
//!
//! - [`Store`] opens the data folder and runs the two threads: [`committer`] writes, [`background`] tidies up.
//! - [`record`] says what a journal entry is; [`journal`] how batches of them lie on disk, chained by hash.
//! - [`index`] knows every idempotency key: running in memory, settled in memory or in sorted runs on disk.
//! - [`registry`] holds tenants, apps, keys and credentials; [`directory`] is the same in memory, for the gate.
//! - [`ledger`]: packages and where each of their units is; [`statement`]: a month added up, and reconciled.
//! - [`tenancy`]: states, contracts and secrets; [`minutes`]: what was observed for the service agreement.
//! - [`operators`]: who may do what here; [`approvals`]: what needs two of them; [`incidents`]: faults and their clocks.
//! - [`outbox`]: messages to the outside, until they have arrived. [`operations`]: documents on their way.
//! - [`certificates`] is what authorities have issued, revoked and published; [`renewal`] what a credential gets anew;
//!   [`subjects`] whose identities were checked.
//! - [`seals`]: who may sign under which seal, how often, and how a freeze wins over them.
//! - [`certificates`] is what authorities have issued, revoked and published; [`standings`] tells whose answers are out of
//!   date; [`stamps`] records and charges time stamps.
//! - [`audit`] is a Merkle tree over the journal: tiles, signed checkpoints, proofs.
//! - [`backup`], [`archive`] and [`epoch`]: copies, months that are kept elsewhere, and what a restore leaves out.
//! - [`fence`] is how a revocation wins over signatures already in flight.
//! - [`tail`] and [`space`] are for bad days: lost entries, a full disk.
//!
//! `docs/store-format.md` says what is on disk and what a crash at each step leaves. This crate knows nothing of
//! wires, keys or devices, and releases nothing before its commit.

mod archive;
pub mod audit;

mod approvals;
mod background;
mod backup;
mod certificates;
mod committer;
mod directory;
mod epoch;
mod error;
mod fence;
mod incidents;
mod index;
mod journal;
mod keep;
mod ledger;
mod lock;
mod minutes;
mod open;
mod operations;
mod operators;
mod outbox;
mod reader;
mod record;
mod registry;
mod renewal;
mod seals;
mod space;
mod sqlite;
mod stamps;
mod standings;
mod statement;
mod subjects;
mod tail;
mod tenancy;
mod usage;

pub use approvals::{ApprovalChange, ApprovalError, Decision, Proposal, ProposalState};
pub use archive::{Archived, check_file as check_archive};
pub use backup::{
    BackupError, BackupRequest, Depth, ENTRIES_SKIPPED, Manifest, OpenSeal, RestoreReport, RestoreRequest,
    SealManifest, Verified, backup, restore, verify,
};
pub use certificates::{
    Asked, AuthorityKey, AuthorityRow, By, CertificateChange, CertificateNumber, CertificateRow,
    CertificateStanding, Holder, KeptCrl, Prepared, RevokedRow, Role, SerialBlocks,
};
pub use committer::{Attempt, Draft, HoldTime};
pub use directory::{
    Account, App, CertificateCell, Credential, Directory, NotValid, Place, Tenant, Validity,
};
pub use epoch::DataEpoch;
pub use error::{Result, StoreError};
pub use fence::{Epoch, Fence};
pub use incidents::{IncidentChange, IncidentError, IncidentRow, IncidentStep};
pub use index::{Claim, Delivery, KeyIndex, Known, Outcome, Release, Settled, State, Waiters};
pub use journal::Entry;
pub use keep::{Holdings, KeepChange, LeftObject};
pub use ledger::change::LedgerChange;
pub use ledger::kind::{KindError, PackageKind, Tier};
pub use ledger::{Balance, LedgerAccount, Package, PackageRow, Unit};
pub use minutes::{DayRecord, MinuteRecord, ObservedRecords};
pub use open::{CHANGES_MAX, Options, Store, StoreHandle};
pub use operations::{
    ItemName, ItemState, JOB_BYTES_MAX, JOBS_OPEN_MAX, KeptStep, NewOperation, OPERATION_ITEMS_MAX,
    OperationCounts, OperationItem, OperationRow, OperationState, OperationWrite, chain_digest,
};
pub use operators::{Operator, OperatorChange, OperatorRole, Operators, Roles};
pub use outbox::{Channel, Message, MessageState, NewMessage, OutboxChange, OutboxWrite, Owner, Webhook};
pub use reader::Reader;
pub use record::{
    DiscardReason, Fingerprint, Item, Proof, ProofKind, Record, Released, RequestHash, Stamped, TIME_STAMP,
    UnderSeal, month_of, sha256, tenant_of,
};
pub use registry::{Change, NewApp, NewCredential, SpareKey, SpareRow, StoredKey};
pub use renewal::{Renewal, RenewedKey};
pub use seals::rows::{SealRecord, SealStepRow, SealUseRow};
pub use seals::{
    Grant, GrantTerms, NewGrant, NewSeal, NotSealed, Seal, SealChange, SealError, SealKind, SealStep,
    SealUse, step as seal_step,
};
pub use stamps::StampDraft;
pub use standings::Standings;
pub use statement::{Difference, Reconciliation, Statement, StatementItem, StatementKey};
pub use subjects::{
    Challenge, SubjectChange, SubjectError, SubjectKind, SubjectRow, SubjectState, SubjectStep,
};
pub use tail::ChainPoint;
pub use tenancy::{
    Agreement, Allowance, Contract, Environment, SANDBOX_RATE, SecretCell, Secrets, Standing, TenancyChange,
    TenantState,
};
pub use usage::UsageRow;
