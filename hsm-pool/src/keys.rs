//! Keys by row: read and unwrapped when first used, kept in a bounded cache.

use std::sync::Arc;

use protocol::algorithm::KeyKind;
use protocol::ids::KeyRow;
use protocol::verify::PublicKey;
use quick_cache::sync::Cache;
use zeroize::Zeroizing;

use crate::soft::SoftKey;

/// A key as its owner hands it over.
pub struct KeyMaterial {
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// PKCS#8 of a software key.
    pub pkcs8: Option<Zeroizing<Vec<u8>>>,
}

/// Where keys come from; the store and the master key are somebody else's business. Called on lane threads.
pub trait KeySource: Send + Sync + 'static {
    /// Reads and unwraps a key. The error is one sentence without any secret.
    fn load(&self, key: KeyRow) -> Result<KeyMaterial, String>;
}

/// The caches over a source.
pub(crate) struct Keys {
    source: Arc<dyn KeySource>,
    software: Cache<KeyRow, Arc<SoftKey>>,
    public: Cache<KeyRow, Arc<PublicKey>>,
}

impl Keys {
    pub(crate) fn new(source: Arc<dyn KeySource>, capacity: usize) -> Self {
        Self {
            source,
            software: Cache::new(capacity),
            public: Cache::new(capacity),
        }
    }

    /// A software key; of several lanes that miss at once one loads it.
    pub(crate) fn software(&self, row: KeyRow) -> Result<Arc<SoftKey>, String> {
        self.software.get_or_insert_with(&row, || {
            let material = self.source.load(row)?;
            let kind = kind_of(&material.public_key)?;
            let pkcs8 = material.pkcs8.ok_or("it is not a software key")?;
            let key = SoftKey::new(kind, &pkcs8, &material.public_key).map_err(|error| error.to_string())?;
            Ok(Arc::new(key))
        })
    }

    /// The public half of a device key.
    pub(crate) fn public(&self, row: KeyRow) -> Result<Arc<PublicKey>, String> {
        self.public.get_or_insert_with(&row, || {
            let material = self.source.load(row)?;
            let key = PublicKey::from_spki(&material.public_key).map_err(|error| error.to_string())?;
            Ok(Arc::new(key))
        })
    }
}

fn kind_of(public_key: &[u8]) -> Result<KeyKind, String> {
    PublicKey::from_spki(public_key)
        .map(|key| key.kind())
        .map_err(|error| error.to_string())
}
