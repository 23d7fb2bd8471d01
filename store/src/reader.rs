//! Reading beside the writer: what a request needs that is not in memory. One connection, one thread.

use std::path::Path;

use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::ids::{AppRow, AuthorityName, CredentialRow, KeyRow, Sequence, TenantName};
use rusqlite::Connection;

use crate::certificates::{self, AuthorityRow, CertificateRow, KeptCrl, RevokedRow, SerialBlocks};
use crate::error::Result;
use crate::journal::{self, Entry};
use crate::registry::{self, SpareKey, SpareRow, StoredKey};
use crate::sqlite;
use crate::tail::ChainPoint;
use crate::usage::{self, UsageRow};

/// A read-only view of the store.
#[derive(Debug)]
pub struct Reader(Connection);

impl Reader {
    pub(crate) fn open(database: &Path) -> Result<Self> {
        Ok(Self(sqlite::open_reader(database)?))
    }

    /// One journal entry.
    pub fn entry(&self, sequence: Sequence) -> Result<Option<Entry>> {
        journal::read(&self.0, sequence)
    }

    /// Visits every journal entry from `from` on, in order.
    pub fn entries(&self, from: Sequence, visit: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        journal::scan(&self.0, from, visit)
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

    /// A key as stored.
    pub fn key(&self, key: KeyRow) -> Result<Option<StoredKey>> {
        registry::read_key(&self.0, key)
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

    /// An app's usage.
    pub fn usage(&self, app: AppRow) -> Result<Vec<UsageRow>> {
        usage::read(&self.0, app)
    }

    /// Every authority, by name.
    pub fn authorities(&self) -> Result<Vec<AuthorityRow>> {
        certificates::read_authorities(&self.0)
    }

    /// A certificate by its issuer and serial number.
    pub fn certificate(&self, issuer: &AuthorityName, serial: &[u8]) -> Result<Option<CertificateRow>> {
        certificates::read_certificate(&self.0, issuer, serial)
    }

    /// The certificates of a tenant's credentials, the oldest first.
    pub fn certificates(&self, tenant: &TenantName) -> Result<Vec<CertificateRow>> {
        certificates::read_certificates(&self.0, tenant)
    }

    /// Who of an issuer's certificates is revoked or suspended, of those that are not expired at `now`.
    pub fn revoked(&self, issuer: &AuthorityName, now: UnixMillis) -> Result<Vec<RevokedRow>> {
        certificates::read_revoked(&self.0, issuer, now)
    }

    /// The newest revocation list of an issuer.
    pub fn crl(&self, issuer: &AuthorityName) -> Result<Option<KeptCrl>> {
        certificates::read_crl(&self.0, issuer)
    }

    /// Where an authority's reserved serial numbers end.
    pub fn serial_blocks(&self, authority: &AuthorityName) -> Result<SerialBlocks> {
        certificates::read_serial_blocks(&self.0, authority)
    }
}
