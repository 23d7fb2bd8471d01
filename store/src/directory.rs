//! The registry in memory: who may ask for what. Loaded at start, changed by the committing thread after the
//! change's own commit, read by every core. A request finds its credential through its app's tenant, so another
//! tenant's credential cannot even be named.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use protocol::algorithm::KeyKind;
use protocol::ids::{AppId, AppRow, CredentialId, CredentialRow, KeyRow, TenantName, TenantRow};
use protocol::verify::PublicKey;

use crate::fence::Fence;

/// A tenant's prepaid units. The committing thread is the judge of the last unit; everybody else only reads.
#[derive(Debug)]
pub struct Account {
    /// `UNLIMITED`, or the units granted.
    granted: AtomicU64,
    used: AtomicU64,
}

const UNLIMITED: u64 = u64::MAX;

impl Account {
    pub(crate) fn new(prepaid: Option<u64>, used: u64) -> Self {
        Self {
            granted: AtomicU64::new(prepaid.unwrap_or(UNLIMITED)),
            used: AtomicU64::new(used),
        }
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

    /// Units used since there is a limit.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn add_used(&self, units: u64) {
        self.used.fetch_add(units, Ordering::AcqRel);
    }

    pub(crate) fn grant(&self, prepaid: Option<u64>) {
        self.granted
            .store(prepaid.unwrap_or(UNLIMITED), Ordering::Release);
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
    credentials: RwLock<HashMap<CredentialId, Arc<Credential>>>,
    /// The same by id, for lists that are read page by page.
    by_id: RwLock<BTreeMap<CredentialId, Arc<Credential>>>,
}

impl Tenant {
    pub(crate) fn new(row: TenantRow, name: TenantName, account: Account) -> Self {
        Self {
            row,
            name,
            account,
            credentials: RwLock::default(),
            by_id: RwLock::default(),
        }
    }

    /// One of its credentials.
    pub fn credential(&self, id: &str) -> Option<Arc<Credential>> {
        self.credentials.read().get(id).cloned()
    }

    /// All of its credentials, by id.
    pub fn credentials(&self) -> Vec<Arc<Credential>> {
        self.by_id.read().values().cloned().collect()
    }

    /// At most so many of its credentials, by id, after this id or from the first on.
    pub fn credentials_after(&self, after: Option<&str>, count: usize) -> Vec<Arc<Credential>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let by_id = self.by_id.read();
        by_id
            .range::<str, _>((from, Bound::Unbounded))
            .take(count)
            .map(|(_, credential)| Arc::clone(credential))
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
    /// Its shared secret, wrapped under the master key.
    pub secret: Option<Box<[u8]>>,
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
    /// Whether it signs.
    pub fence: Fence,
}

impl Credential {
    pub(crate) const fn new(
        row: CredentialRow,
        id: CredentialId,
        (key, kind): (KeyRow, KeyKind),
        place: Place,
        fence: Fence,
    ) -> Self {
        let place = RwLock::new(place);
        Self {
            row,
            id,
            key,
            kind,
            place,
            fence,
        }
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
