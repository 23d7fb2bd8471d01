//! The registry in memory: who may ask for what. Loaded at start, changed by the committing thread after the
//! change's own commit, read by every core. A request finds its credential through its app's tenant, so another
//! tenant's credential cannot even be named.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, AppRow, CredentialId, CredentialRow, KeyRow, SealId, TenantName, TenantRow};
use protocol::verify::PublicKey;

use crate::fence::Fence;
use crate::ledger::book::Standing;
use crate::operators::Operators;
use crate::seals::Seal;
use crate::standings::Standings;
use crate::tenancy::{self, Allowance, Environment, SecretCell};

/// What a tenant may still use of its packages, in one number. The committing thread has the books and is the judge of
/// the last unit; everybody else only reads.
#[derive(Debug)]
pub struct Account {
    /// `UNLIMITED`, or the units of limited packages: used ever, held, and to be used now.
    granted: AtomicU64,
    used: AtomicU64,
    /// Units that came back from pending items and that metering does not know of yet.
    returned: AtomicU64,
    expired: AtomicBool,
}

const UNLIMITED: u64 = u64::MAX;

impl Account {
    pub(crate) fn new(standing: Standing) -> Self {
        let account = Self {
            granted: AtomicU64::new(0),
            used: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            expired: AtomicBool::new(false),
        };
        account.set(standing);
        account
    }

    /// Takes over how the books stand.
    pub(crate) fn set(&self, standing: Standing) {
        let Standing { left, used, expired } = standing;
        let granted = left.map_or(UNLIMITED, |left| used.saturating_add(left));
        self.used.store(used, Ordering::Release);
        self.granted.store(granted, Ordering::Release);
        self.expired.store(expired, Ordering::Release);
    }

    /// Whether the term of every package is over.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    /// Why nothing can be charged: the packages are over, or used up.
    pub fn exhausted(&self) -> Refusal {
        if self.is_expired() {
            Refusal::new(Code::PackageExpired, "the term of every package is over")
        } else {
            Refusal::new(Code::QuotaExhausted, "the prepaid balance is used up")
        }
    }

    /// Units that came back from pending items since the last call of this function.
    pub fn take_returned(&self) -> u64 {
        self.returned.swap(0, Ordering::AcqRel)
    }

    /// Units that were held for pending items are free again.
    pub(crate) fn put_back(&self, units: u64) {
        self.returned.fetch_add(units, Ordering::AcqRel);
    }

    /// Units left, or `None` without a limit.
    pub fn left(&self) -> Option<u64> {
        let granted = self.granted.load(Ordering::Acquire);
        (granted != UNLIMITED).then(|| granted.saturating_sub(self.used.load(Ordering::Acquire)))
    }

    /// Units granted in all, or `None` without a limit.
    pub fn granted(&self) -> Option<u64> {
        let granted = self.granted.load(Ordering::Acquire);
        (granted != UNLIMITED).then_some(granted)
    }

    /// Units of limited packages that are used or held for pending items.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

/// A customer.
#[derive(Debug)]
pub struct Tenant {
    /// Its row.
    pub row: TenantRow,
    /// Its name.
    pub name: TenantName,
    /// What it may still use.
    pub account: Account,
    /// Its state, and from when on it is served.
    pub standing: tenancy::Standing,
    data_key: RwLock<Option<Arc<[u8]>>>,
    credentials: RwLock<HashMap<CredentialId, Arc<Credential>>>,
    /// The same by id, for lists that are read page by page.
    by_id: RwLock<BTreeMap<CredentialId, Arc<Credential>>>,
    seals: RwLock<BTreeMap<SealId, Arc<Seal>>>,
}

impl Tenant {
    pub(crate) fn new(
        row: TenantRow,
        name: TenantName,
        account: Account,
        standing: tenancy::Standing,
        data_key: Option<Vec<u8>>,
    ) -> Self {
        Self {
            row,
            name,
            account,
            standing,
            data_key: RwLock::new(data_key.map(Arc::from)),
            credentials: RwLock::default(),
            by_id: RwLock::default(),
            seals: RwLock::default(),
        }
    }

    /// Its own key, wrapped under the master key; `None`: destroyed.
    pub fn data_key(&self) -> Option<Arc<[u8]>> {
        self.data_key.read().clone()
    }

    pub(crate) fn destroy_data_key(&self) {
        *self.data_key.write() = None;
    }

    /// One of its credentials.
    pub fn credential(&self, id: &str) -> Option<Arc<Credential>> {
        self.credentials.read().get(id).cloned()
    }

    /// All of its credentials, by id.
    pub fn credentials(&self) -> Vec<Arc<Credential>> {
        self.by_id.read().values().cloned().collect()
    }

    /// One of its seals.
    pub fn seal(&self, id: &str) -> Option<Arc<Seal>> {
        self.seals.read().get(id).cloned()
    }

    /// All of its seals, by id.
    pub fn seals(&self) -> Vec<Arc<Seal>> {
        self.seals.read().values().cloned().collect()
    }

    /// At most so many of its seals in an environment, or in all, by id, after this id or from the first on.
    pub fn seals_after(
        &self,
        after: Option<&str>,
        environment: Option<Environment>,
        count: usize,
    ) -> Vec<Arc<Seal>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let seals = self.seals.read();
        let all = seals
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(_, seal)| seal);
        all.filter(|one| environment.is_none_or(|wanted| one.environment == wanted))
            .take(count)
            .cloned()
            .collect()
    }

    pub(crate) fn add_seal(&self, seal: Arc<Seal>) {
        self.seals.write().insert(seal.id.clone(), seal);
    }

    /// At most so many of its credentials in an environment, by id, after this id or from the first on; those that sign
    /// only under seals are not among them.
    pub fn credentials_after(
        &self,
        after: Option<&str>,
        environment: Environment,
        count: usize,
    ) -> Vec<Arc<Credential>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let by_id = self.by_id.read();
        let all = by_id
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(_, credential)| credential);
        all.filter(|one| one.environment == environment && !one.is_reserved())
            .take(count)
            .cloned()
            .collect()
    }
}

/// A business system of a tenant.
#[derive(Debug)]
pub struct App {
    /// Its row.
    pub row: AppRow,
    /// Its id.
    pub id: AppId,
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// Whether it may ask.
    pub fence: Fence,
    /// For what it is used.
    pub environment: Environment,
    /// What it may ask for at a time.
    pub allowance: Allowance,
    /// Its shared secrets.
    pub secrets: SecretCell,
    /// Its public key for HTTP message signatures.
    pub public_key: Option<PublicKey>,
    /// SHA-256 of its TLS client certificate.
    pub client_certificate: Option<[u8; 32]>,
    /// Whether its native sessions must be bound to the TLS exporter.
    pub binding_required: bool,
}

/// Where a private key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the store, wrapped under the master key.
    Software,
    /// In devices.
    Device {
        /// Their names in the configuration.
        devices: Arc<[Arc<str>]>,
        /// CKA_ID of the key pair, the same in each.
        object: Arc<[u8]>,
    },
    /// In the store, wrapped under a wrapping key that only devices hold.
    Wrapped {
        /// CKA_ID of the wrapping key.
        kek: Arc<[u8]>,
    },
    /// Nowhere any more.
    Destroyed,
}

/// From when to when a certificate is valid, both included to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// notBefore.
    pub from: UnixMillis,
    /// notAfter.
    pub to: UnixMillis,
}

/// Why a certificate does not count at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotValid {
    /// It is over.
    #[error("the credential's certificate has expired")]
    Expired,
    /// It has not begun.
    #[error("the credential's certificate is not valid yet by the clock of this engine")]
    NotYet,
}

impl NotValid {
    /// What the caller hears.
    pub fn refusal(self) -> Refusal {
        let code = match self {
            Self::Expired => Code::CertificateExpired,
            Self::NotYet => Code::CertificateNotYetValid,
        };
        Refusal::new(code, self.to_string())
    }
}

impl Validity {
    const ALWAYS: Self = Self {
        from: UnixMillis(0),
        to: UnixMillis(u64::MAX),
    };

    /// Whether a certificate of this validity counts at `now`.
    pub const fn check(self, now: UnixMillis) -> Result<(), NotValid> {
        if now.0 < self.from.0 {
            return Err(NotValid::NotYet);
        }
        // The second that begins with notAfter still counts (RFC 5280 4.1.2.5).
        if now.0 >= self.to.0.saturating_add(1_000) {
            return Err(NotValid::Expired);
        }
        Ok(())
    }
}

/// What the gate has to know of a credential's certificate.
#[derive(Debug)]
pub struct CertificateCell {
    from: AtomicU64,
    to: AtomicU64,
    version: AtomicU32,
}

impl CertificateCell {
    pub(crate) fn new(validity: Option<Validity>) -> Self {
        let Validity { from, to } = validity.unwrap_or(Validity::ALWAYS);
        Self {
            from: AtomicU64::new(from.0),
            to: AtomicU64::new(to.0),
            version: AtomicU32::new(0),
        }
    }

    /// Whether the certificate counts at `now`; a credential without one has no end.
    pub fn check(&self, now: UnixMillis) -> Result<(), NotValid> {
        self.validity().check(now)
    }

    fn validity(&self) -> Validity {
        Validity {
            from: UnixMillis(self.from.load(Ordering::Acquire)),
            to: UnixMillis(self.to.load(Ordering::Acquire)),
        }
    }

    /// When the certificate ends, if there is one.
    pub fn ends(&self) -> Option<UnixMillis> {
        Some(self.validity().to).filter(|to| *to != Validity::ALWAYS.to)
    }

    /// Another one with each renewal: what is kept of the chain belongs to one of them.
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// Takes over a new certificate, after its commit. Only the committing thread does this, which is also the judge.
    fn set(&self, Validity { from, to }: Validity) {
        self.from.store(from.0, Ordering::Release);
        self.to.store(to.0, Ordering::Release);
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

/// A key and its certificate.
#[derive(Debug)]
pub struct Credential {
    /// Its row.
    pub row: CredentialRow,
    /// Its id within the tenant.
    pub id: CredentialId,
    /// The key's row.
    pub key: KeyRow,
    /// The key's kind.
    pub kind: KeyKind,
    place: RwLock<Place>,
    /// For what it is used: an app finds those of its own environment only.
    pub environment: Environment,
    /// Whether it signs. Shared with the credential that takes its place when the key is changed.
    pub fence: Arc<Fence>,
    /// Until when its certificate is valid.
    pub certificate: Arc<CertificateCell>,
    reserved: Arc<AtomicBool>,
}

impl Credential {
    pub(crate) fn new(
        row: CredentialRow,
        id: CredentialId,
        (key, kind): (KeyRow, KeyKind),
        place: Place,
        (environment, fence): (Environment, Fence),
        validity: Option<Validity>,
    ) -> Self {
        let place = RwLock::new(place);
        Self {
            row,
            id,
            key,
            kind,
            place,
            environment,
            fence: Arc::new(fence),
            certificate: Arc::new(CertificateCell::new(validity)),
            reserved: Arc::default(),
        }
    }

    /// The same credential with another key: what was admitted with the old one may still be released, unless the
    /// credential is revoked meanwhile.
    pub(crate) fn with_key(&self, key: KeyRow, kind: KeyKind, place: Place) -> Self {
        Self {
            row: self.row,
            id: self.id.clone(),
            key,
            kind,
            place: RwLock::new(place),
            environment: self.environment,
            fence: Arc::clone(&self.fence),
            certificate: Arc::clone(&self.certificate),
            reserved: Arc::clone(&self.reserved),
        }
    }

    /// Whether it signs under seals only.
    pub fn is_reserved(&self) -> bool {
        self.reserved.load(Ordering::Acquire)
    }

    pub(crate) fn reserve(&self) {
        self.reserved.store(true, Ordering::Release);
    }

    pub(crate) fn take_certificate(&self, validity: Validity) {
        self.certificate.set(validity);
    }

    /// Where the private key is now.
    pub fn place(&self) -> Place {
        self.place.read().clone()
    }

    pub(crate) fn set_place(&self, place: Place) {
        *self.place.write() = place;
    }
}

/// Everybody.
#[derive(Debug, Default)]
pub struct Directory {
    tenants: RwLock<HashMap<TenantName, Arc<Tenant>>>,
    apps: RwLock<HashMap<AppId, Arc<App>>>,
    by_certificate: RwLock<HashMap<[u8; 32], Arc<App>>>,
    /// The operators.
    pub operators: Operators,
    /// How often the standing of certificates has changed.
    pub standings: Standings,
}

impl Directory {
    /// A tenant by name.
    pub fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.tenants.read().get(name).cloned()
    }

    /// All tenants, by name.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        let mut all: Vec<_> = self.tenants.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// An app by id, active or not.
    pub fn app(&self, id: &str) -> Option<Arc<App>> {
        self.apps.read().get(id).cloned()
    }

    /// All apps, by id.
    pub fn apps(&self) -> Vec<Arc<App>> {
        let mut all: Vec<_> = self.apps.read().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The app that registered a TLS client certificate, by the certificate's SHA-256.
    pub fn app_by_certificate(&self, hash: &[u8; 32]) -> Option<Arc<App>> {
        self.by_certificate.read().get(hash).cloned()
    }

    /// Whether any app has registered a TLS client certificate.
    pub fn has_client_certificates(&self) -> bool {
        !self.by_certificate.read().is_empty()
    }

    pub(crate) fn add_tenant(&self, tenant: Arc<Tenant>) {
        self.tenants.write().insert(tenant.name.clone(), tenant);
    }

    pub(crate) fn add_app(&self, app: Arc<App>) {
        if let Some(hash) = app.client_certificate {
            self.by_certificate.write().insert(hash, Arc::clone(&app));
        }
        self.apps.write().insert(app.id.clone(), app);
    }

    pub(crate) fn add_credential(&self, tenant: &Tenant, credential: Arc<Credential>) {
        let id = credential.id.clone();
        tenant.by_id.write().insert(id.clone(), Arc::clone(&credential));
        tenant.credentials.write().insert(id, credential);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_counts_through_its_last_second() {
        let cell = CertificateCell::new(None);
        let far = UnixMillis(u64::MAX / 2);
        assert_eq!((cell.check(far), cell.ends()), (Ok(()), None));
        let validity = Validity {
            from: UnixMillis(1_000),
            to: UnixMillis(5_000),
        };
        cell.set(validity);
        assert_eq!((cell.version(), cell.ends()), (1, Some(UnixMillis(5_000))));
        assert_eq!(cell.check(UnixMillis(999)), Err(NotValid::NotYet));
        assert_eq!(cell.check(UnixMillis(1_000)), Ok(()));
        assert_eq!(cell.check(UnixMillis(5_999)), Ok(()));
        assert_eq!(cell.check(UnixMillis(6_000)), Err(NotValid::Expired));
        assert_eq!(NotValid::Expired.refusal().code, Code::CertificateExpired);
    }
}
