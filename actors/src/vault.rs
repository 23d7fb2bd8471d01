//! The vault: what is encrypted at rest under the master key, and the keys the pool asks for.
//!
//! AES-256-GCM with a random nonce for each value; what a value belongs to is authenticated with it, so that a
//! wrapped key cannot be moved to another row. Format: one version byte, 12 bytes nonce, ciphertext and tag.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use hsm_pool::keys::{KeyMaterial, KeySource, WrappedKey};
use parking_lot::Mutex;
use protocol::clock::UnixMillis;
use protocol::ids::{AppId, KeyRow};
use quick_cache::sync::Cache;
use smallvec::SmallVec;
use store::{App, Reader};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
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
}

/// The master key in use.
pub struct Vault {
    key: RandomizedNonceKey,
    /// By app and generation of the secret.
    secrets: Cache<(AppId, u32), Arc<AppSecret>>,
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
        })
    }

    /// Encrypts a value for what it belongs to.
    pub fn wrap(&self, plain: &[u8], belongs_to: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut sealed = Zeroizing::new(plain.to_vec());
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(belongs_to), &mut *sealed)
            .map_err(|_| VaultError::Encrypt)?;
        let mut out = Vec::with_capacity(1 + NONCE_BYTES + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(nonce.as_ref());
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Decrypts a value for what it belongs to.
    pub fn unwrap(&self, wrapped: &[u8], belongs_to: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let rest = wrapped.strip_prefix(&[VERSION]).ok_or(VaultError::DoesNotOpen)?;
        let (nonce, sealed) = rest
            .split_at_checked(NONCE_BYTES)
            .ok_or(VaultError::DoesNotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::DoesNotOpen)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let length = self
            .key
            .open_in_place(nonce, Aad::from(belongs_to), &mut buffer)
            .map_err(|_| VaultError::DoesNotOpen)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Wraps an app's secret.
    pub fn wrap_secret(&self, app: &AppId, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.wrap(secret, app_label(app).as_bytes())
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

    fn open_secret(&self, app: &App, generation: u32, wrapped: &[u8]) -> Result<Arc<AppSecret>, VaultError> {
        let load = || {
            let bytes = self.unwrap(wrapped, app_label(&app.id).as_bytes())?;
            let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &bytes);
            Ok(Arc::new(AppSecret { bytes, hmac }))
        };
        self.secrets
            .get_or_insert_with(&(app.id.clone(), generation), load)
    }
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
                let pkcs8 = self.vault.unwrap(&sealed, &stored.public_key);
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
}
