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
    /// A key that is wrapped under a device's wrapping key.
    pub wrapped: Option<WrappedKey>,
}

/// A private key, wrapped under a wrapping key that only devices hold.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct WrappedKey {
    /// How it is wrapped, by the mechanism's `CKM_*` number.
    #[n(0)]
    pub mechanism: u64,
    /// Who made the device it was wrapped in: a mechanism's meaning is the vendor's.
    #[n(1)]
    pub vendor: String,
    /// The wrapping key's CKA_ID.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub kek: Vec<u8>,
    /// The wrapping key's CKA_CHECK_VALUE; empty where the device does not show it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub check: Vec<u8>,
    /// The wrapped key.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub blob: Vec<u8>,
}

impl WrappedKey {
    /// The record that a store keeps.
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to a Vec cannot fail")
    }

    /// Reads such a record.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

/// Where keys come from; the store and the master key are somebody else's business. Called on lane threads.
pub trait KeySource: Send + Sync + 'static {
    /// Reads and unwraps a key. The error is one sentence without any secret.
    fn load(&self, key: KeyRow) -> Result<KeyMaterial, String>;
}

/// The caches over a source.
pub(crate) struct Keys {
    source: Arc<dyn KeySource>,
    /// Whether software keys are signed with eight at a time.
    numbers: bool,
    software: Cache<KeyRow, Arc<SoftKey>>,
    devices: Cache<KeyRow, Arc<DeviceKeyFacts>>,
}

/// What is needed of a key that is in a device, or wrapped for one.
pub(crate) struct DeviceKeyFacts {
    pub(crate) public: PublicKey,
    pub(crate) wrapped: Option<WrappedKey>,
}

impl Keys {
    pub(crate) fn new(source: Arc<dyn KeySource>, capacity: usize, numbers: bool) -> Self {
        Self {
            source,
            numbers,
            software: Cache::new(capacity),
            devices: Cache::new(capacity),
        }
    }

    /// A software key; of several lanes that miss at once one loads it.
    pub(crate) fn software(&self, row: KeyRow) -> Result<Arc<SoftKey>, String> {
        self.software.get_or_insert_with(&row, || {
            let material = self.source.load(row)?;
            let kind = kind_of(&material.public_key)?;
            let pkcs8 = material.pkcs8.ok_or("it is not a software key")?;
            let mut key =
                SoftKey::new(kind, &pkcs8, &material.public_key).map_err(|error| error.to_string())?;
            if self.numbers {
                key = key.with_numbers(&pkcs8, &material.public_key);
            }
            Ok(Arc::new(key))
        })
    }

    /// The public half of a device key, and its wrapped private half if it has one.
    pub(crate) fn device(&self, row: KeyRow) -> Result<Arc<DeviceKeyFacts>, String> {
        self.devices.get_or_insert_with(&row, || {
            let material = self.source.load(row)?;
            let public = PublicKey::from_spki(&material.public_key).map_err(|error| error.to_string())?;
            let wrapped = material.wrapped;
            Ok(Arc::new(DeviceKeyFacts { public, wrapped }))
        })
    }

    /// Forgets a key that has been destroyed.
    pub(crate) fn forget(&self, row: KeyRow) {
        self.software.remove(&row);
        self.devices.remove(&row);
    }
}

fn kind_of(public_key: &[u8]) -> Result<KeyKind, String> {
    PublicKey::from_spki(public_key)
        .map(|key| key.kind())
        .map_err(|error| error.to_string())
}
