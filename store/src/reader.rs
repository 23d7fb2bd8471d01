//! Reading beside the writer: what a request needs that is not in memory. One connection, one thread.

use std::path::{Path, PathBuf};

use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::ids::{
    AppId, AppRow, AuthorityName, CredentialId, CredentialRow, GrantRow, KeyRow, SealRow, Sequence,
    SubjectId, TenantName, TenantRow,
};
use rusqlite::{Connection, OptionalExtension};

use crate::approvals::{self, Proposal};
use crate::archive::{self, Archived};
use crate::audit::{Folder, LeafReconciliation, count};
use crate::certificates::{self, AuthorityRow, CertificateRow, KeptCrl, RevokedRow, SerialBlocks};
use crate::directory::Directory;
use crate::epoch::{self, DataEpoch};
use crate::error::{Result, StoreError};
use crate::incidents::{self, IncidentRow};
use crate::journal::{self, Entry};
use crate::keep::{self, Holdings, LeftObject};
use crate::ledger::kind::PackageKind;
use crate::ledger::{Balance, Package, rows};
use crate::minutes::{self, DayRecord, MinuteRecord};
use crate::operations::{self, ItemName, OperationCounts, OperationItem, OperationRow};
use crate::outbox::{self, Message, Owner, Webhook};
use crate::registry::{self, SpareKey, SpareRow, StoredKey};
use crate::seals::rows::{self as seal_rows, SealRecord, SealStepRow, SealUseRow};
use crate::sqlite;
use crate::statement::{self, Reconciliation, Statement, StatementItem};
use crate::subjects::{self, Challenge, SubjectRow};
use crate::tail::ChainPoint;
use crate::tenancy::{self, Agreement, Environment};
use crate::usage::{self, UsageRow};

/// A read-only view of the store.
#[derive(Debug)]
pub struct Reader(Connection);

impl Reader {
    pub(crate) fn open(database: &Path) -> Result<Self> {
        Ok(Self(sqlite::open_reader(database)?))
    }

    /// Opens the store of a data folder for reading, beside the engine that may run in it.
    pub fn beside(folder: &Path) -> Result<Self> {
        let database = folder.join(crate::open::DATABASE);
        if !database.exists() {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StoreError::file(database)(missing));
        }
        let reader = Self::open(&database)?;
        sqlite::check_readable(&reader.0)?;
        Ok(reader)
    }

    /// A named value that the engine keeps beside the registry.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT value FROM meta WHERE name = ?";
        Ok(self.0.query_row(sql, [name], |row| row.get(0)).optional()?)
    }

    /// The registry as it is on disk.
    pub fn directory(&self, now: UnixMillis) -> Result<Directory> {
        registry::load(&self.0, now)
    }

    /// One journal entry.
    pub fn entry(&self, sequence: Sequence) -> Result<Option<Entry>> {
        journal::read(&self.0, sequence)
    }

    /// Visits every journal entry from `from` on, in order.
    pub fn entries(&self, from: Sequence, visit: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        journal::scan(&self.0, from, visit)
    }

    /// Visits the encoded records from `from` on, in order, until the visitor has enough.
    pub fn follow<E: From<StoreError>>(
        &self,
        from: Sequence,
        visit: impl FnMut(Sequence, UnixMillis, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        journal::follow(&self.0, from, visit)
    }

    /// The same, with the entries that are in archives beside the database.
    pub fn follow_all<E: From<StoreError>>(
        &self,
        from: Sequence,
        visit: impl FnMut(Sequence, UnixMillis, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        self.follow_archives(from, |_| true, visit)
    }

    /// The same for a copy: archives that are not in it are passed over.
    pub fn follow_there<E: From<StoreError>>(
        &self,
        from: Sequence,
        visit: impl FnMut(Sequence, UnixMillis, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        self.follow_archives(from, Path::is_file, visit)
    }

    fn follow_archives<E: From<StoreError>>(
        &self,
        from: Sequence,
        is_wanted: impl Fn(&Path) -> bool,
        mut visit: impl FnMut(Sequence, UnixMillis, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        let archives = self.archives()?;
        for archived in archives.iter().filter(|archived| archived.last >= from.0) {
            let path = self.home().join(archived.path());
            if !is_wanted(&path) {
                continue;
            }
            let more = archive::follow(&path, from, &mut visit)?;
            if !more {
                return Ok(());
            }
        }
        let after = archives.last().map_or(0, |archived| archived.last);
        self.follow(Sequence(from.0.max(after + 1)), visit)
    }

    /// The data folder.
    fn home(&self) -> PathBuf {
        let database = Path::new(self.0.path().unwrap_or_default());
        database.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// How often the data folder was restored.
    pub fn epoch(&self) -> Result<DataEpoch> {
        epoch::read(&self.0)
    }

    /// One entry as it is encoded, and when it was committed.
    pub fn raw_entry(&self, sequence: Sequence) -> Result<Option<(UnixMillis, Vec<u8>)>> {
        journal::read_raw(&self.0, sequence)
    }

    /// The number of the last entry.
    pub fn last_entry(&self) -> Result<Sequence> {
        Ok(Sequence(journal::end(&self.0)?.sequence))
    }

    /// Visits at most so many journal entries from `from` on, in order; returns where to go on, if there are more.
    pub fn some_entries(
        &self,
        from: Sequence,
        count: u64,
        visit: impl FnMut(Entry) -> Result<()>,
    ) -> Result<Option<Sequence>> {
        let to = Sequence(from.0.saturating_add(count));
        journal::scan_until(&self.0, from, to, visit)?;
        Ok((journal::end(&self.0)?.sequence >= to.0).then_some(to))
    }

    /// Checks the whole chain of the journal and says where it ends.
    pub fn check_journal(&self) -> Result<Sequence> {
        journal::check_chain(&self.0, u32::MAX, &ChainPoint::default())?;
        Ok(Sequence(journal::end(&self.0)?.sequence))
    }

    /// A credential's certificates, its own first.
    pub fn chain(&self, credential: CredentialRow) -> Result<Vec<Vec<u8>>> {
        registry::read_chain(&self.0, credential)
    }

    /// The same, if the credential still has this key.
    pub fn chain_of_key(&self, credential: CredentialRow, key: KeyRow) -> Result<Option<Vec<Vec<u8>>>> {
        registry::read_chain_of_key(&self.0, credential, key)
    }

    /// A key as stored.
    pub fn key(&self, key: KeyRow) -> Result<Option<StoredKey>> {
        registry::read_key(&self.0, key)
    }

    /// A tenant's name, and its own key as stored; `None` in its place: destroyed.
    pub fn data_key(&self, tenant: TenantRow) -> Result<Option<(TenantName, Option<Vec<u8>>)>> {
        registry::read_data_key(&self.0, tenant)
    }

    /// A spare pair made ahead of need, the oldest.
    pub fn spare(&self, kind: KeyKind, device: Option<&str>) -> Result<Option<(SpareRow, SpareKey)>> {
        registry::read_spare(&self.0, kind, device)
    }

    /// How many spare pairs there are.
    pub fn count_spares(&self, kind: KeyKind, device: Option<&str>) -> Result<usize> {
        registry::count_spares(&self.0, kind, device)
    }

    /// What calibration has found out about a device, as JSON.
    pub fn calibration(&self, device: &str) -> Result<Option<String>> {
        registry::read_calibration(&self.0, device)
    }

    /// A tenant's packages, in order of expiry, each with its balances.
    pub fn packages(&self, tenant: TenantRow) -> Result<Vec<(Package, Vec<Balance>)>> {
        let with_balances = |package: Package| {
            let balances = rows::balances(&self.0, package.row)?;
            Ok((package, balances))
        };
        rows::packages(&self.0, tenant)?
            .into_iter()
            .map(with_balances)
            .collect()
    }

    /// All kinds of packages, by name.
    pub fn package_kinds(&self) -> Result<Vec<PackageKind>> {
        rows::kinds(&self.0)
    }

    /// A tenant's month (YYYYMM), from the journal.
    pub fn statement(&self, tenant: TenantRow, month: u32) -> Result<Statement> {
        statement::statement(&self.0, tenant, month)
    }

    /// Visits every unit of a tenant's month.
    pub fn statement_items(
        &self,
        tenant: TenantRow,
        month: u32,
        visit: impl FnMut(StatementItem) -> Result<()>,
    ) -> Result<()> {
        statement::items(&self.0, tenant, month, visit)
    }

    /// The months (YYYYMM) in which something was recorded.
    pub fn months(&self) -> Result<Vec<u32>> {
        statement::months(&self.0)
    }

    /// Holds the journal of some months against the ledger and the usage counters.
    pub fn reconcile(&self, months: &[u32]) -> Result<Reconciliation> {
        statement::reconcile(&self.0, months)
    }

    /// Holds the journal against the audit log in `folder`. Entries that were committed before `logged_by` must be in it.
    pub fn reconcile_leaves(
        &self,
        folder: &Folder,
        logged_by: Option<UnixMillis>,
    ) -> Result<LeafReconciliation> {
        count::reconcile(&self.0, folder, logged_by)
    }

    /// Why a month's statements are not to be used.
    pub fn frozen(&self, month: u32) -> Result<Option<String>> {
        statement::frozen(&self.0, month)
    }

    /// Every month whose statements are not to be used, and why.
    pub fn all_frozen(&self) -> Result<Vec<(u32, String)>> {
        statement::all_frozen(&self.0)
    }

    /// The agreement that binds a tenant.
    pub fn agreement(&self, tenant: TenantRow) -> Result<Option<Agreement>> {
        tenancy::agreement(&self.0, tenant)
    }

    /// All notices of maintenance, as JSON.
    pub fn notices(&self) -> Result<Vec<String>> {
        tenancy::notices(&self.0)
    }

    /// Visits the records of a span of minutes; those of one minute follow each other.
    pub fn minutes(&self, from: u32, to: u32, visit: impl FnMut(MinuteRecord) -> Result<()>) -> Result<()> {
        minutes::visit(&self.0, from, to, visit)
    }

    /// The response times of a span of days, a record for each life of the engine.
    pub fn latency_days(&self, from: u32, to: u32) -> Result<Vec<DayRecord>> {
        minutes::days(&self.0, from, to)
    }

    /// Until when an engine is known to have lived.
    pub fn last_minute_written(&self) -> Result<Option<UnixMillis>> {
        minutes::last_written(&self.0)
    }

    /// An app's usage.
    pub fn usage(&self, app: AppRow) -> Result<Vec<UsageRow>> {
        usage::read(&self.0, app)
    }

    /// A proposal that waits for a second operator, or has waited.
    pub fn proposal(&self, id: &str) -> Result<Option<Proposal>> {
        approvals::read(&self.0, id)
    }

    /// The newest proposals, at most so many.
    pub fn proposals(&self, count: u32) -> Result<Vec<Proposal>> {
        approvals::list(&self.0, count)
    }

    /// Open proposals whose time is over.
    pub fn overdue_proposals(&self, now: UnixMillis) -> Result<Vec<String>> {
        approvals::overdue(&self.0, now)
    }

    /// The newest incidents, at most so many.
    pub fn incidents(&self, count: u32) -> Result<Vec<IncidentRow>> {
        incidents::list(&self.0, count)
    }

    /// Incidents that were not over before the minute `from` and began before the minute `to`.
    pub fn incidents_during(&self, from: u32, to: u32) -> Result<Vec<IncidentRow>> {
        incidents::during(&self.0, from, to)
    }

    /// Messages that are to be sent now, at most so many.
    pub fn due_messages(&self, now: UnixMillis, count: u32) -> Result<Vec<Message>> {
        outbox::due(&self.0, now, count)
    }

    /// The newest messages, at most so many.
    pub fn messages(&self, count: u32) -> Result<Vec<Message>> {
        outbox::list(&self.0, count)
    }

    /// How many messages wait.
    pub fn waiting_messages(&self) -> Result<u32> {
        outbox::waiting(&self.0)
    }

    /// An owner's webhook.
    pub fn webhook(&self, owner: Owner) -> Result<Option<Webhook>> {
        outbox::webhook(&self.0, owner)
    }

    /// An operation on documents by its app and idempotency key.
    pub fn operation_by_key(&self, app: AppRow, key: &str) -> Result<Option<OperationRow>> {
        operations::by_key(&self.0, app, key)
    }

    /// An operation by its number.
    pub fn operation(&self, row: i64) -> Result<Option<OperationRow>> {
        operations::by_row(&self.0, row)
    }

    /// Jobs with documents that have no outcome, the oldest first.
    pub fn unfinished_operations(&self, limit: u32) -> Result<Vec<OperationRow>> {
        operations::unfinished(&self.0, limit)
    }

    /// Operations whose time is over.
    pub fn expired_operations(&self, now: UnixMillis, limit: u32) -> Result<Vec<OperationRow>> {
        operations::expired(&self.0, now, limit)
    }

    /// The numbers of all jobs.
    pub fn jobs(&self) -> Result<std::collections::HashSet<i64>> {
        operations::jobs(&self.0)
    }

    /// How many documents of an operation stand where.
    pub fn operation_counts(&self, operation: i64) -> Result<OperationCounts> {
        operations::counts(&self.0, operation)
    }

    /// One document of an operation.
    pub fn operation_item(&self, of: ItemName) -> Result<Option<OperationItem>> {
        operations::item(&self.0, of)
    }

    /// Documents of an operation from a number on.
    pub fn operation_items(&self, operation: i64, from: u32, limit: u32) -> Result<Vec<OperationItem>> {
        operations::items(&self.0, operation, from, limit)
    }

    /// The numbers of an operation's documents without an outcome.
    pub fn operation_waiting(&self, operation: i64) -> Result<Vec<u32>> {
        operations::waiting(&self.0, operation)
    }

    /// What is kept of a document's steps, by number, wrapped under the tenant's key.
    pub fn operation_steps(&self, of: ItemName) -> Result<Vec<(u32, Vec<u8>)>> {
        operations::steps(&self.0, of)
    }

    /// A certificate chain that documents were prepared for.
    pub fn operation_chain(&self, sha256: &[u8; 32]) -> Result<Option<Vec<Vec<u8>>>> {
        operations::chain(&self.0, sha256)
    }

    /// All webhooks.
    pub fn webhooks(&self) -> Result<Vec<Webhook>> {
        outbox::webhooks(&self.0)
    }

    /// Every authority, by name.
    pub fn authorities(&self) -> Result<Vec<AuthorityRow>> {
        certificates::read_authorities(&self.0)
    }

    /// A certificate by its issuer and serial number.
    pub fn certificate(&self, issuer: &AuthorityName, serial: &[u8]) -> Result<Option<CertificateRow>> {
        certificates::read_certificate(&self.0, issuer, serial)
    }

    /// When the last certificate of an issuer was suspended or revoked.
    pub fn last_revocation(&self, issuer: &AuthorityName) -> Result<Option<UnixMillis>> {
        certificates::last_revocation(&self.0, issuer)
    }

    /// The latest time at which a certificate was prepared or numbers for time stamps were reserved, as far as the last of
    /// each tell.
    pub fn last_certified(&self) -> Result<UnixMillis> {
        certificates::last_certified(&self.0)
    }

    /// Whether an authority's certificate, or that of one above it, is revoked.
    pub fn is_revoked(&self, authority: &AuthorityName) -> Result<bool> {
        certificates::is_revoked(&self.0, authority)
    }

    /// At most `count` certificates of a tenant that are or were in force, after the one of this serial number.
    pub fn certificate_page(
        &self,
        (tenant, environment): (&TenantName, Option<Environment>),
        after: Option<&[u8]>,
        count: u32,
    ) -> Result<Vec<CertificateRow>> {
        certificates::read_page(&self.0, tenant, environment, after, count)
    }

    /// A tenant's certificates with a serial number, of an environment or of all.
    pub fn certificates_by_serial(
        &self,
        (tenant, environment): (&TenantName, Option<Environment>),
        serial: &[u8],
    ) -> Result<Vec<CertificateRow>> {
        certificates::read_by_serial(&self.0, tenant, environment, serial)
    }

    /// The newest certificate of a credential that was ever in force.
    pub fn last_certificate(
        &self,
        tenant: &TenantName,
        credential: &CredentialId,
    ) -> Result<Option<CertificateRow>> {
        certificates::read_last(&self.0, tenant, credential)
    }

    /// The certificate that a call of an app has brought.
    pub fn certificate_asked(&self, app: &AppId, key: &str) -> Result<Option<CertificateRow>> {
        certificates::read_asked(&self.0, app, key)
    }

    /// At most `count` certificates in force that end in a span of time and have no successor at their credential.
    pub fn certificates_ending(
        &self,
        from: UnixMillis,
        to: UnixMillis,
        count: u32,
    ) -> Result<Vec<CertificateRow>> {
        certificates::read_ending(&self.0, from, to, count)
    }

    /// The same of which nobody was told that they end in so few days.
    pub fn certificates_unwarned(
        &self,
        span: (UnixMillis, UnixMillis),
        days: u32,
        count: u32,
    ) -> Result<Vec<CertificateRow>> {
        certificates::read_unwarned(&self.0, span, days, count)
    }

    /// How many certificates in force end in a span of time and have no successor at their credential.
    pub fn count_ending(&self, span: (UnixMillis, UnixMillis)) -> Result<u64> {
        certificates::count_ending(&self.0, span)
    }

    /// A subject.
    pub fn subject(&self, tenant: &TenantName, id: &SubjectId) -> Result<Option<SubjectRow>> {
        subjects::read(&self.0, tenant, id)
    }

    /// At most `count` subjects of a tenant, by id, after this one.
    pub fn subjects(
        &self,
        (tenant, environment): (&TenantName, Option<Environment>),
        after: Option<&SubjectId>,
        count: u32,
    ) -> Result<Vec<SubjectRow>> {
        subjects::list(&self.0, tenant, environment, after, count)
    }

    /// All subjects that were erased, and when.
    pub fn erased_subjects(&self) -> Result<Vec<(TenantName, SubjectId, UnixMillis)>> {
        subjects::erased(&self.0)
    }

    /// A question to a verification service.
    pub fn challenge(&self, nonce: &str) -> Result<Option<Challenge>> {
        subjects::read_challenge(&self.0, nonce)
    }

    /// What the registry keeps of a seal; without its pictures where only a list is made.
    pub fn seal(&self, seal: SealRow, whole: bool) -> Result<SealRecord> {
        seal_rows::read(&self.0, seal, whole)
    }

    /// What was done with a seal and its grants, the first first.
    pub fn seal_steps(&self, seal: SealRow) -> Result<Vec<SealStepRow>> {
        seal_rows::steps(&self.0, seal)
    }

    /// At most `count` uses of a seal, or of one of its grants, after a journal entry.
    pub fn seal_uses(
        &self,
        of: (SealRow, Option<GrantRow>),
        after: Sequence,
        count: u32,
    ) -> Result<Vec<SealUseRow>> {
        seal_rows::uses(&self.0, of, after, count)
    }

    /// Who of an issuer's certificates is revoked or suspended, of those that are not expired at `now`.
    pub fn revoked(&self, issuer: &AuthorityName, now: UnixMillis) -> Result<Vec<RevokedRow>> {
        certificates::read_revoked(&self.0, issuer, now)
    }

    /// The newest delta list of an issuer to the full list with this number.
    pub fn delta(&self, issuer: &AuthorityName, base: u64) -> Result<Option<KeptCrl>> {
        certificates::read_delta(&self.0, issuer, base)
    }

    /// The newest full revocation list of an issuer.
    pub fn crl(&self, issuer: &AuthorityName) -> Result<Option<KeptCrl>> {
        certificates::read_crl(&self.0, issuer)
    }

    /// The number of the revocation list that an issuer publishes next.
    pub fn next_crl(&self, issuer: &AuthorityName) -> Result<u64> {
        certificates::next_list(&self.0, issuer)
    }

    /// What there is of a tenant that can be destroyed.
    pub fn holdings(&self, tenant: TenantRow) -> Result<Holdings> {
        keep::holdings(&self.0, tenant)
    }

    /// Key pairs of a tenant's destroyed keys that may still be in devices.
    pub fn left_objects(&self, tenant: TenantRow) -> Result<Vec<LeftObject>> {
        keep::left_objects(&self.0, tenant)
    }

    /// The parts of the journal that are in files.
    pub fn archives(&self) -> Result<Vec<Archived>> {
        archive::list(&self.0)
    }

    /// Writes the files of the months that are older than `retention` whole months, and returns what they hold. The
    /// store must then be told ([`crate::KeepChange::Archive`]).
    pub fn write_archives(&self, home: &Path, now: UnixMillis, retention: u32) -> Result<Vec<Archived>> {
        archive::write_due(&self.0, home, now, retention)
    }

    /// Checks every archive, and that the journal goes on where the last one ends.
    pub fn verify_archives(&self, home: &Path) -> Result<Vec<Archived>> {
        let archives = archive::verify_all(&self.0, home)?;
        self.check_journal()?;
        Ok(archives)
    }

    /// Where an authority's reserved serial numbers end.
    pub fn serial_blocks(&self, authority: &AuthorityName) -> Result<SerialBlocks> {
        certificates::read_serial_blocks(&self.0, authority)
    }
}
