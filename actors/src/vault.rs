//! The vault: what is encrypted at rest, and the keys the pool asks for. Each tenant has a key of its own, wrapped under the
//! master key; its private keys, its secrets and the signatures it was given are wrapped under that, so that destroying it
//! destroys them, wherever copies of them are.
//!
//! AES-256-GCM with a random nonce for each value; what a value belongs to is authenticated with it, so that a
//! wrapped key cannot be moved to another row. Format: one version byte (1 under the master key, 2 under a tenant's, 3
//! under a key for one signature), 12 bytes nonce, ciphertext and tag.
//!
//! Random nonces allow 2^32 values under a key (NIST SP 800-38D, 8.3). Keys and secrets never are that many; signatures
//! may be, so each is sealed under a key of its own: HKDF-Expand (RFC 5869) of the tenant's key for what the signature
//! belongs to.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Prk};
use hsm_pool::keys::{KeyMaterial, KeySource, WrappedKey};
use parking_lot::Mutex;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, KeyRow, TenantName, TenantRow};
use protocol::verify::SignatureBytes;
use quick_cache::sync::Cache;
use smallvec::SmallVec;
use store::{App, Directory, Item, Reader, Tenant};
use zeroize::Zeroizing;

const UNDER_MASTER: u8 = 1;
const UNDER_TENANT: u8 = 2;
const UNDER_OWN: u8 = 3;
const NONCE_BYTES: usize = 12;
/// Bytes of the master key.
pub const MASTER_KEY_BYTES: usize = 32;

/// Why a value cannot be wrapped or unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The master key has the wrong length.
    #[error("the master key must be {MASTER_KEY_BYTES} bytes")]
    KeyLength,
    /// Not wrapped by us, changed since, or wrapped under another master key.
    #[error("the value does not open under this master key")]
    DoesNotOpen,
    /// The library failed.
    #[error("encryption failed")]
    Encrypt,
    /// The tenant's key was destroyed, and nothing that was wrapped under it can be opened ever again.
    #[error("the tenant's key was destroyed")]
    Destroyed,
}

impl VaultError {
    /// The code and sentence an operator hears.
    pub fn refusal(self) -> Refusal {
        let code = match self {
            Self::KeyLength => Code::Usage,
            Self::DoesNotOpen => Code::DataCorrupt,
            Self::Encrypt => Code::Internal,
            Self::Destroyed => Code::TenantClosed,
        };
        Refusal::new(code, self.to_string())
    }
}

/// The master key in use.
pub struct Vault {
    key: RandomizedNonceKey,
    /// By app and generation of the secret.
    secrets: Cache<(AppId, u32), Arc<AppSecret>>,
    tenants: Cache<TenantName, Arc<TenantVault>>,
}

/// A tenant's own key in use.
pub struct TenantVault {
    key: RandomizedNonceKey,
    /// What keys for signatures are derived from.
    signatures: Prk,
}

impl std::fmt::Debug for TenantVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TenantVault(..)")
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

/// An app's shared secret, ready for both proofs.
pub struct AppSecret {
    /// The bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The key for `hmac-sha256` HTTP message signatures.
    pub hmac: aws_lc_rs::hmac::Key,
}

impl std::fmt::Debug for AppSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppSecret(..)")
    }
}

/// App secrets kept unwrapped.
const SECRETS_MAX: usize = 10_000;
/// Keys of tenants kept unwrapped.
const TENANTS_MAX: usize = 10_000;

impl Vault {
    /// Takes the master key.
    pub fn new(master_key: &[u8]) -> Result<Self, VaultError> {
        if master_key.len() != MASTER_KEY_BYTES {
            return Err(VaultError::KeyLength);
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, master_key).map_err(|_| VaultError::KeyLength)?;
        Ok(Self {
            key,
            secrets: Cache::new(SECRETS_MAX),
            tenants: Cache::new(TENANTS_MAX),
        })
    }

    /// Encrypts a value for what it belongs to.
    pub fn wrap(&self, plain: &[u8], belongs_to: &[u8]) -> Result<Vec<u8>, VaultError> {
        seal(&self.key, UNDER_MASTER, plain, belongs_to)
    }

    /// Decrypts a value for what it belongs to.
    pub fn unwrap(&self, wrapped: &[u8], belongs_to: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        open(&self.key, UNDER_MASTER, wrapped, belongs_to)
    }

    /// A new key for a tenant, wrapped under the master key.
    pub fn new_data_key(&self, tenant: &TenantName) -> Result<Vec<u8>, VaultError> {
        let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut key[..]).map_err(|_| VaultError::Encrypt)?;
        self.wrap(&key[..], tenant_label(tenant).as_bytes())
    }

    /// A tenant's own key.
    pub fn of_tenant(&self, tenant: &Tenant) -> Result<Arc<TenantVault>, VaultError> {
        let wrapped = tenant.data_key().ok_or(VaultError::Destroyed)?;
        self.open_data_key(&tenant.name, &wrapped)
    }

    /// The same, where it is read from the store.
    pub fn open_data_key(&self, tenant: &TenantName, wrapped: &[u8]) -> Result<Arc<TenantVault>, VaultError> {
        let load = || {
            let key = self.unwrap(wrapped, tenant_label(tenant).as_bytes())?;
            Ok(Arc::new(TenantVault::new(&key)?))
        };
        self.tenants.get_or_insert_with(tenant, load)
    }

    /// Takes what is kept unwrapped of a tenant out of memory.
    pub fn forget(&self, tenant: &Tenant, directory: &Directory) {
        self.tenants.remove(&tenant.name);
        for app in directory.apps().iter().filter(|app| app.tenant.row == tenant.row) {
            for generation in 0..=app.secrets.get().generation {
                self.secrets.remove(&(app.id.clone(), generation));
            }
        }
    }

    /// An app's secret, if it has one.
    pub fn secret(&self, app: &App) -> Result<Option<Arc<AppSecret>>, VaultError> {
        let secrets = app.secrets.get();
        let current = secrets.current.as_deref();
        current
            .map(|wrapped| self.open_secret(app, secrets.generation, wrapped))
            .transpose()
    }

    /// Every secret of an app that counts now: its own, and the one before until its time is over.
    pub fn secrets(&self, app: &App, now: UnixMillis) -> Result<SmallVec<[Arc<AppSecret>; 2]>, VaultError> {
        let secrets = app.secrets.get();
        let mut open = SmallVec::new();
        if let Some(wrapped) = &secrets.current {
            open.push(self.open_secret(app, secrets.generation, wrapped)?);
        }
        if let Some((wrapped, until)) = &secrets.previous
            && now < *until
        {
            open.push(self.open_secret(app, secrets.generation.wrapping_sub(1), wrapped)?);
        }
        Ok(open)
    }

    /// A released signature as the journal keeps it.
    pub fn seal_signature(
        &self,
        tenant: &Tenant,
        item: &Item,
        signature: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        self.of_tenant(tenant)?.seal_signature(item, signature)
    }

    /// A signature as it was released, out of its entry.
    pub fn open_signature(
        &self,
        reader: &Reader,
        item: &Item,
        sealed: &[u8],
    ) -> Result<SignatureBytes, Refusal> {
        let own = self.of_row(reader, item.tenant)?;
        let opened = own.open_signature(item, sealed);
        Ok(SignatureBytes::from_slice(&opened.map_err(VaultError::refusal)?))
    }

    /// A tenant's own key, by its row.
    pub fn of_row(&self, reader: &Reader, tenant: TenantRow) -> Result<Arc<TenantVault>, Refusal> {
        let stored = reader.data_key(tenant).map_err(|error| error.refusal())?;
        let missing = || Refusal::new(Code::DataCorrupt, format!("there is no tenant {}", tenant.0));
        let (name, wrapped) = stored.ok_or_else(missing)?;
        let wrapped = wrapped.ok_or(VaultError::Destroyed);
        let own = wrapped.and_then(|wrapped| self.open_data_key(&name, &wrapped));
        own.map_err(VaultError::refusal)
    }

    fn open_secret(&self, app: &App, generation: u32, wrapped: &[u8]) -> Result<Arc<AppSecret>, VaultError> {
        let load = || {
            let own = self.of_tenant(&app.tenant)?;
            let bytes = own.unwrap(wrapped, app_label(&app.id).as_bytes())?;
            let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &bytes);
            Ok(Arc::new(AppSecret { bytes, hmac }))
        };
        self.secrets
            .get_or_insert_with(&(app.id.clone(), generation), load)
    }
}

impl TenantVault {
    fn new(key: &[u8]) -> Result<Self, VaultError> {
        // The key is random, so nothing has to be extracted from it (RFC 5869, 3.3).
        Ok(Self {
            key: RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| VaultError::KeyLength)?,
            signatures: Prk::new_less_safe(HKDF_SHA256, key),
        })
    }

    /// Encrypts a signature under a key for its item alone. An item is signed once, or as often as it failed.
    fn seal_signature(&self, item: &Item, signature: &[u8]) -> Result<Vec<u8>, VaultError> {
        let label = signature_label(item);
        seal(&self.signature_key(&label)?, UNDER_OWN, signature, &label)
    }

    fn open_signature(&self, item: &Item, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let label = signature_label(item);
        open(&self.signature_key(&label)?, UNDER_OWN, sealed, &label)
    }

    fn signature_key(&self, label: &[u8]) -> Result<RandomizedNonceKey, VaultError> {
        let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
        let label = [label];
        let derived = self.signatures.expand(&label, KeyBytes);
        (derived.and_then(|derived| derived.fill(&mut key[..]))).map_err(|_| VaultError::Encrypt)?;
        RandomizedNonceKey::new(&AES_256_GCM, &key[..]).map_err(|_| VaultError::Encrypt)
    }

    /// Encrypts a value for what it belongs to.
    pub fn wrap(&self, plain: &[u8], belongs_to: &[u8]) -> Result<Vec<u8>, VaultError> {
        seal(&self.key, UNDER_TENANT, plain, belongs_to)
    }

    /// Decrypts a value for what it belongs to.
    pub fn unwrap(&self, wrapped: &[u8], belongs_to: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        open(&self.key, UNDER_TENANT, wrapped, belongs_to)
    }

    /// Wraps an app's secret.
    pub fn wrap_secret(&self, app: &AppId, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.wrap(secret, app_label(app).as_bytes())
    }
}

/// The length of a derived key.
struct KeyBytes;

impl hkdf::KeyType for KeyBytes {
    fn len(&self) -> usize {
        MASTER_KEY_BYTES
    }
}

fn seal(
    key: &RandomizedNonceKey,
    version: u8,
    plain: &[u8],
    belongs_to: &[u8],
) -> Result<Vec<u8>, VaultError> {
    let head = 1 + NONCE_BYTES;
    let mut out = Vec::with_capacity(head + plain.len() + AES_256_GCM.tag_len());
    out.push(version);
    out.resize(head, 0);
    out.extend_from_slice(plain);
    let sealed = key.seal_in_place_separate_tag(Aad::from(belongs_to), &mut out[head..]);
    let (nonce, tag) = sealed.map_err(|_| VaultError::Encrypt)?;
    out[1..head].copy_from_slice(nonce.as_ref());
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

fn open(
    key: &RandomizedNonceKey,
    version: u8,
    wrapped: &[u8],
    belongs_to: &[u8],
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let rest = wrapped.strip_prefix(&[version]).ok_or(VaultError::DoesNotOpen)?;
    let (nonce, sealed) = rest
        .split_at_checked(NONCE_BYTES)
        .ok_or(VaultError::DoesNotOpen)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::DoesNotOpen)?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(belongs_to), &mut buffer)
        .map_err(|_| VaultError::DoesNotOpen)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

fn tenant_label(tenant: &TenantName) -> String {
    format!("tenant-key/{tenant}")
}

/// App, item and idempotency key name an entry about a signature.
fn signature_label(item: &Item) -> SmallVec<[u8; 80]> {
    let mut label = SmallVec::from_slice(b"signature/");
    label.extend_from_slice(&item.app.0.to_be_bytes());
    label.extend_from_slice(&item.item.to_be_bytes());
    label.extend_from_slice(item.key.as_bytes());
    label
}

fn app_label(app: &AppId) -> String {
    format!("app-secret/{app}")
}

/// Gives the pool its keys: read from the store, unwrapped here.
pub struct StoredKeys {
    reader: Mutex<Reader>,
    vault: Arc<Vault>,
}

impl StoredKeys {
    /// Takes a reader of its own: lanes load keys on their own threads.
    pub const fn new(reader: Reader, vault: Arc<Vault>) -> Self {
        Self {
            reader: Mutex::new(reader),
            vault,
        }
    }
}

impl KeySource for StoredKeys {
    fn load(&self, row: KeyRow) -> Result<KeyMaterial, String> {
        let stored = self
            .reader
            .lock()
            .key(row)
            .map_err(|error| error.to_string())?
            .ok_or("no such key")?;
        let (pkcs8, wrapped) = match stored.wrapped {
            None => (None, None),
            // A private key is wrapped for its public half: that is what it belongs to.
            Some(sealed) if stored.software => {
                let data_key = stored.data_key.as_deref().ok_or(VaultError::Destroyed);
                let own = data_key.and_then(|key| self.vault.open_data_key(&stored.tenant, key));
                let pkcs8 = own.and_then(|own| own.unwrap(&sealed, &stored.public_key));
                (Some(pkcs8.map_err(|error| error.to_string())?), None)
            }
            Some(record) => {
                let wrapped = WrappedKey::from_bytes(&record).ok_or("its wrapped key cannot be read")?;
                (None, Some(wrapped))
            }
        };
        Ok(KeyMaterial {
            public_key: stored.public_key,
            pkcs8,
            wrapped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_opens_only_with_its_key_and_for_its_owner() {
        let vault = Vault::new(&[1; 32]).unwrap();
        let wrapped = vault.wrap(b"secret", b"owner").unwrap();
        assert_eq!(&vault.unwrap(&wrapped, b"owner").unwrap()[..], b"secret");
        assert_eq!(
            vault.unwrap(&wrapped, b"other").unwrap_err(),
            VaultError::DoesNotOpen
        );
        assert_eq!(
            Vault::new(&[2; 32])
                .unwrap()
                .unwrap(&wrapped, b"owner")
                .unwrap_err(),
            VaultError::DoesNotOpen
        );
        for cut in 0..wrapped.len() {
            assert!(vault.unwrap(&wrapped[..cut], b"owner").is_err());
        }
        assert_ne!(
            wrapped,
            vault.wrap(b"secret", b"owner").unwrap(),
            "a nonce of its own each time"
        );
        assert!(Vault::new(&[1; 31]).is_err());
    }

    #[test]
    fn what_is_wrapped_under_a_tenants_key_opens_with_that_alone() {
        let vault = Vault::new(&[1; 32]).unwrap();
        let names = ["a", "b"].map(|name| TenantName::new(name).unwrap());
        let keys = [0, 1].map(|at| vault.new_data_key(&names[at]).unwrap());
        let own = [0, 1].map(|at| vault.open_data_key(&names[at], &keys[at]).unwrap());
        let wrapped = own[0].wrap(b"secret", b"owner").unwrap();
        assert_eq!(&own[0].unwrap(&wrapped, b"owner").unwrap()[..], b"secret");
        let refused = own[1].unwrap(&wrapped, b"owner").unwrap_err();
        assert_eq!(refused, VaultError::DoesNotOpen);
        assert_eq!(
            vault.unwrap(&wrapped, b"owner").unwrap_err(),
            VaultError::DoesNotOpen
        );
        // A tenant's key is for that tenant.
        let anew = Vault::new(&[1; 32]).unwrap();
        assert!(anew.open_data_key(&names[1], &keys[0]).is_err());
        assert!(anew.open_data_key(&names[0], &keys[0]).is_ok());
    }

    fn item(app: u32, key: &str, at: u16) -> Item {
        Item {
            tenant: TenantRow(1),
            app: protocol::ids::AppRow(app),
            credential: protocol::ids::CredentialRow(1),
            key: key.into(),
            item: at,
            of: 1,
            request: store::RequestHash([7; 16]),
            algorithm: protocol::algorithm::Algorithm::EcdsaP256Sha256,
            format: protocol::algorithm::Format::Raw,
            digest: SmallVec::from_slice(&[5; 32]),
            proof: store::Proof {
                kind: store::ProofKind::SessionMac,
                bytes: SmallVec::from_slice(&[1; 32]),
                base: None,
            },
            seal: None,
        }
    }

    #[test]
    fn a_signature_is_sealed_under_a_key_of_its_own() {
        let own = TenantVault::new(&[3; 32]).unwrap();
        let sealed = own.seal_signature(&item(1, "k", 0), b"signature").unwrap();
        assert_eq!(
            &own.open_signature(&item(1, "k", 0), &sealed).unwrap()[..],
            b"signature"
        );
        for other in [item(2, "k", 0), item(1, "l", 0), item(1, "k", 1)] {
            let refused = own.open_signature(&other, &sealed).unwrap_err();
            assert_eq!(refused, VaultError::DoesNotOpen);
        }
        // HKDF-Expand-SHA256 of the tenant's key for the label, and nothing else.
        let label = signature_label(&item(1, "k", 0));
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[3; 32]);
        let derived = aws_lc_rs::hmac::sign(&mac, &[&label[..], &[1]].concat());
        let key = RandomizedNonceKey::new(&AES_256_GCM, derived.as_ref()).unwrap();
        assert_eq!(&open(&key, UNDER_OWN, &sealed, &label).unwrap()[..], b"signature");
        let other = TenantVault::new(&[4; 32]).unwrap();
        assert!(other.open_signature(&item(1, "k", 0), &sealed).is_err());
        assert!(
            own.unwrap(&sealed, &label).is_err(),
            "not under the tenant's key itself"
        );
    }
}
