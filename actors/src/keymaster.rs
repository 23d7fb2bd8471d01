//! The keymaster: makes, brings in, spreads and destroys the keys of credentials, wherever they are. A key is ready only
//! after every device that is to hold it has signed with it. Blocking: for operator threads, never for a core.

use std::sync::Arc;

use hsm_pool::device::{DeviceKey, Kek};
use hsm_pool::job::JobError;
use hsm_pool::keys::WrappedKey;
use hsm_pool::pool::{DeviceError, Pool};
use hsm_pool::soft;
use protocol::algorithm::KeyKind;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, SubjectId, TenantName};
use protocol::verify::PublicKey;
use store::{
    Asked, Change, Credential, Environment, Holder, KeepChange, LeftObject, NewCredential, Place, Reader,
    RenewedKey, SpareKey, SpareRow,
};

use crate::registrar::{Certify, Issuer, Ledger};
use crate::task::Task;
use crate::vault::{Vault, VaultError};

/// Where a new key is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In the store, under the tenant's key.
    Software,
    /// An object in these devices; made in the first.
    Devices(Vec<String>),
    /// In the store, wrapped under the wrapping key of this label.
    Wrapped(String),
}

/// What a new credential is to be.
#[derive(Clone, Debug)]
pub struct CredentialPlan {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: CredentialId,
    /// The kind of its key.
    pub kind: KeyKind,
    /// Where its key is to be.
    pub place: KeyPlace,
    /// For what it is used.
    pub environment: Environment,
    /// What its key is certified for.
    pub certificate: WantedCertificate,
}

/// What a new credential's certificate is to be.
#[derive(Clone, Debug, Default)]
pub struct WantedCertificate {
    /// The profile; `None`: the one of credentials.
    pub profile: Option<String>,
    /// Whose identity it states.
    pub subject: Option<SubjectId>,
    /// The call that asks.
    pub asked: Option<Asked>,
}

/// A wrapped key that was made elsewhere.
#[derive(Clone, Debug)]
pub struct WrappedImport {
    /// The credential's id.
    pub id: CredentialId,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The private key.
    pub wrapped: WrappedKey,
}

/// What it works with.
pub struct Keymaster<'a> {
    /// Where changes go.
    pub ledger: &'a dyn Ledger,
    /// For software keys.
    pub vault: &'a Vault,
    /// For spare pairs.
    pub reader: &'a Reader,
    /// For keys in devices: only a running engine has one.
    pub pool: Option<&'a Pool<Task>>,
    /// Who issues certificates for new credentials.
    pub issuer: Option<&'a dyn Issuer>,
}

/// A key that is ready to be recorded.
struct Ready {
    place: Place,
    public_key: Vec<u8>,
    wrapped: Option<Vec<u8>>,
    spare: Option<SpareRow>,
}

impl Keymaster<'_> {
    /// Makes a key and a credential for it, with a certificate if somebody issues one.
    pub fn create(&self, plan: CredentialPlan) -> Result<(), Refusal> {
        let name = format!("{}/{}", plan.tenant, plan.id);
        let ready = match &plan.place {
            KeyPlace::Software => self.software(&plan.tenant, plan.kind)?,
            KeyPlace::Devices(devices) => self.in_devices(devices, plan.kind, &name)?,
            KeyPlace::Wrapped(kek) => self.wrapped(kek, plan.kind)?,
        };
        self.record(plan, ready)
    }

    /// Makes a credential for a key pair that is in a device already.
    pub fn attach(&self, plan: CredentialPlan, device: &str, name: &str) -> Result<(), Refusal> {
        let pool = self.pool()?;
        let found = pool
            .find(device, plan.kind, name)
            .map_err(|error| refuse(&error))?;
        pool.prove(device, &found).map_err(|error| refuse(&error))?;
        let ready = Ready {
            place: at([device], &found.object),
            public_key: found.public_key,
            wrapped: None,
            spare: None,
        };
        self.record(plan, ready)
    }

    /// Makes credentials for wrapped keys that were made elsewhere, all of them or none. Each is proved on every device
    /// that holds its wrapping key, unless `prove` says that a sample is enough.
    pub fn import(&self, tenant: &TenantName, keys: Vec<WrappedImport>, prove: bool) -> Result<(), Refusal> {
        let mut changes = Vec::with_capacity(keys.len());
        for (number, key) in keys.into_iter().enumerate() {
            let public = PublicKey::from_spki(&key.public_key);
            let kind = public
                .map_err(|error| usage(format!("'{}': {error}", key.id)))?
                .kind();
            if prove || number == 0 {
                self.prove_wrapped(&key)?;
            }
            changes.push(Change::CreateCredential(NewCredential {
                tenant: tenant.clone(),
                id: key.id,
                environment: Environment::Production,
                kind,
                public_key: key.public_key.into(),
                place: Place::Wrapped {
                    kek: key.wrapped.kek.as_slice().into(),
                },
                wrapped: Some(key.wrapped.to_bytes().into()),
                spare: None,
                chain: Vec::new(),
                validity: None,
            }));
        }
        self.ledger.changes(changes)
    }

    /// Brings a credential's key into one more device.
    pub fn replicate(
        &self,
        tenant: &TenantName,
        credential: &Credential,
        device: &str,
    ) -> Result<(), Refusal> {
        let pool = self.pool()?;
        let Place::Device { object, .. } = credential.place() else {
            return Err(usage(
                "only a key that is an object in a device can be replicated".into(),
            ));
        };
        let stored = self.reader.key(credential.key).map_err(|error| error.refusal())?;
        let stored = stored.ok_or_else(|| Refusal::new(Code::DataCorrupt, "the credential has no key"))?;
        let wrapped = stored
            .wrapped
            .as_deref()
            .and_then(WrappedKey::from_bytes)
            .ok_or_else(|| {
                usage(
                    "the key was made for one device only; make it with several, or with a wrapping key"
                        .into(),
                )
            })?;
        let key = DeviceKey {
            object: object.to_vec(),
            public_key: stored.public_key,
            wrapped: Some(wrapped.clone()),
        };
        let name = format!("{tenant}/{}", credential.id);
        pool.unwrap(device, &wrapped, credential.kind, &name, &object)
            .map_err(|error| refuse(&error))?;
        pool.prove(device, &key).map_err(|error| refuse(&error))?;
        self.ledger.change(Change::AddHome {
            tenant: tenant.clone(),
            id: credential.id.clone(),
            device: device.to_owned(),
        })
    }

    /// Destroys a credential's private key wherever it is. From the record on it cannot be used, even where a device
    /// could not be reached; which devices those are is told.
    pub fn destroy(&self, tenant: &TenantName, credential: &Credential) -> Result<Vec<String>, Refusal> {
        let place = credential.place();
        let gone = Change::DestroyKey {
            tenant: tenant.clone(),
            id: credential.id.clone(),
        };
        self.ledger.change(gone)?;
        let Some(pool) = self.pool else {
            return Ok(match place {
                Place::Device { devices, .. } => devices.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            });
        };
        pool.forget(credential.key);
        let Place::Device { devices, object } = place else {
            return Ok(Vec::new());
        };
        let places = devices.iter().map(|device| LeftObject {
            device: device.to_string(),
            object: object.to_vec(),
        });
        let left = clear_devices(pool, self.ledger, tenant, places.collect());
        Ok(left.into_iter().map(|left| left.device).collect())
    }

    /// Makes spare pairs of a kind until there are `high`, if there are fewer than `low`. Says how many it made.
    pub fn fill_spares(
        &self,
        kind: KeyKind,
        device: Option<&str>,
        low: usize,
        high: usize,
    ) -> Result<usize, Refusal> {
        let count = || {
            self.reader
                .count_spares(kind, device)
                .map_err(|error| error.refusal())
        };
        let mut made = 0;
        let there = count()?;
        if there >= low {
            return Ok(0);
        }
        while there + made < high {
            self.ledger
                .change(Change::AddSpare(self.make_spare(kind, device)?))?;
            made += 1;
        }
        Ok(made)
    }

    fn make_spare(&self, kind: KeyKind, device: Option<&str>) -> Result<SpareKey, Refusal> {
        let (public_key, object, wrapped) = match device {
            None => {
                let made = soft::generate(kind).map_err(|error| internal(&error.to_string()))?;
                // Nobody's yet: under the master key until it is taken.
                let wrapped = self.vault.wrap(&made.pkcs8, &made.public_key);
                let wrapped = wrapped.map_err(VaultError::refusal)?;
                (made.public_key, None, Some(wrapped))
            }
            Some(device) => {
                let made = self.pool()?.generate(device, kind, "cinnabar-spare", None);
                let made = made.map_err(|error| refuse(&error))?;
                (made.public_key, Some(made.object.into()), None)
            }
        };
        Ok(SpareKey {
            kind,
            device: device.map(str::to_owned),
            public_key: public_key.into(),
            object,
            wrapped: wrapped.map(Into::into),
        })
    }

    fn record(&self, plan: CredentialPlan, ready: Ready) -> Result<(), Refusal> {
        let CredentialPlan {
            tenant,
            id,
            kind,
            environment,
            certificate,
            ..
        } = plan;
        let wanted = Certify {
            holder: Holder {
                tenant: tenant.clone(),
                credential: Some(id.clone()),
            },
            public_key: &ready.public_key,
            profile: certificate.profile.as_deref(),
            subject: certificate.subject.as_ref(),
            environment,
            asked: certificate.asked,
        };
        let issued = match self.issuer {
            Some(issuer) => issuer.issue(wanted, clock::wall())?,
            None => None,
        };
        let validity = issued.as_ref().map(|issued| issued.validity);
        let (chain, recorded) =
            issued.map_or((Vec::new(), None), |issued| (issued.chain, Some(issued.change)));
        let created = Change::CreateCredential(NewCredential {
            tenant,
            id,
            environment,
            kind,
            public_key: ready.public_key.into(),
            place: ready.place,
            wrapped: ready.wrapped.map(Into::into),
            spare: ready.spare,
            chain,
            validity,
        });
        self.ledger
            .changes(std::iter::once(created).chain(recorded).collect())
    }

    /// A new key where a credential's is now, to take its place.
    pub(crate) fn successor(
        &self,
        tenant: &TenantName,
        credential: &Credential,
    ) -> Result<RenewedKey, Refusal> {
        let kind = credential.kind;
        let name = format!("{tenant}/{}", credential.id);
        let ready = match credential.place() {
            Place::Software => self.software(tenant, kind)?,
            Place::Device { devices, .. } => {
                let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
                self.in_devices(&devices, kind, &name)?
            }
            Place::Wrapped { kek } => {
                let holders = holders(self.pool()?, |known| known.id == *kek);
                let (_, kek) = holders
                    .first()
                    .ok_or_else(|| usage("no device that works has the credential's wrapping key".into()))?;
                self.wrapped(&kek.label, kind)?
            }
            Place::Destroyed => {
                let text = format!("the key of '{name}' is destroyed");
                return Err(Refusal::new(Code::CredentialDisabled, text));
            }
        };
        Ok(RenewedKey {
            kind,
            public_key: ready.public_key.into(),
            place: ready.place,
            wrapped: ready.wrapped.map(Into::into),
            spare: ready.spare,
        })
    }

    fn pool(&self) -> Result<&Pool<Task>, Refusal> {
        self.pool
            .ok_or_else(|| Refusal::new(Code::Usage, "keys in devices are made through a running engine"))
    }

    fn spare(&self, kind: KeyKind, device: Option<&str>) -> Result<Option<(SpareRow, SpareKey)>, Refusal> {
        self.reader.spare(kind, device).map_err(|error| error.refusal())
    }

    /// A new key, or a spare one, wrapped under the tenant's key.
    fn software(&self, tenant: &TenantName, kind: KeyKind) -> Result<Ready, Refusal> {
        let owner = self.ledger.tenant(tenant)?;
        let own = self.vault.of_tenant(&owner).map_err(VaultError::refusal)?;
        let (public_key, pkcs8, spare) = match self.spare(kind, None)? {
            Some((row, spare)) => {
                let wrapped = spare.wrapped.unwrap_or_default();
                let pkcs8 = self.vault.unwrap(&wrapped, &spare.public_key);
                let pkcs8 = pkcs8.map_err(VaultError::refusal)?;
                (spare.public_key.into_vec(), pkcs8, Some(row))
            }
            None => {
                let made = soft::generate(kind).map_err(|error| internal(&error.to_string()))?;
                (made.public_key, made.pkcs8, None)
            }
        };
        // A private key is wrapped for its public half, so that it cannot be moved to another row.
        let wrapped = own.wrap(&pkcs8, &public_key).map_err(VaultError::refusal)?;
        Ok(Ready {
            place: Place::Software,
            public_key,
            wrapped: Some(wrapped),
            spare,
        })
    }

    fn in_devices(&self, devices: &[String], kind: KeyKind, name: &str) -> Result<Ready, Refusal> {
        let (first, others) = devices
            .split_first()
            .ok_or_else(|| usage("no device is named".into()))?;
        let pool = self.pool()?;
        let kek = common_kek(pool, devices)?;
        if kek.is_none() {
            if !others.is_empty() {
                return Err(usage(
                    "the devices share no wrapping key; `cinnabar device kek` makes one".into(),
                ));
            }
            if let Some(ready) = self.spare_in(first, kind)? {
                return Ok(ready);
            }
        }
        let key = pool
            .generate(first, kind, name, kek.as_ref().map(|kek| &*kek.id))
            .map_err(|error| refuse(&error))?;
        if let Err(error) = self.spread(&key, devices, kind, name) {
            for device in devices {
                // Best effort: the key was never recorded, so it is never used.
                let _ = pool.destroy(device, &key.object);
            }
            return Err(error);
        }
        Ok(Ready {
            place: at(devices.iter().map(String::as_str), &key.object),
            public_key: key.public_key,
            wrapped: key.wrapped.map(|wrapped| wrapped.to_bytes()),
            spare: None,
        })
    }

    fn spare_in(&self, device: &str, kind: KeyKind) -> Result<Option<Ready>, Refusal> {
        let Some((row, spare)) = self.spare(kind, Some(device))? else {
            return Ok(None);
        };
        let key = DeviceKey {
            object: spare.object.map(Into::into).unwrap_or_default(),
            public_key: spare.public_key.into(),
            wrapped: None,
        };
        self.pool()?.prove(device, &key).map_err(|error| refuse(&error))?;
        Ok(Some(Ready {
            place: at([device], &key.object),
            public_key: key.public_key,
            wrapped: None,
            spare: Some(row),
        }))
    }

    /// Brings a new key into the other devices, and has each of them sign with it.
    fn spread(&self, key: &DeviceKey, devices: &[String], kind: KeyKind, name: &str) -> Result<(), Refusal> {
        let pool = self.pool()?;
        for (number, device) in devices.iter().enumerate() {
            if number > 0
                && let Some(wrapped) = &key.wrapped
            {
                pool.unwrap(device, wrapped, kind, name, &key.object)
                    .map_err(|error| refuse(&error))?;
            }
            pool.prove(device, key).map_err(|error| refuse(&error))?;
        }
        Ok(())
    }

    fn wrapped(&self, label: &str, kind: KeyKind) -> Result<Ready, Refusal> {
        let pool = self.pool()?;
        let holders = holders(pool, |kek| kek.label == label);
        let (first, kek) = holders
            .first()
            .ok_or_else(|| usage(format!("no device that works has a wrapping key '{label}'")))?;
        let key = pool
            .generate_wrapped(first, kind, &kek.id)
            .map_err(|error| refuse(&error))?;
        for (device, _) in &holders {
            pool.prove(device, &key).map_err(|error| refuse(&error))?;
        }
        let wrapped = key
            .wrapped
            .ok_or_else(|| internal("the device wrapped nothing"))?;
        Ok(Ready {
            place: Place::Wrapped {
                kek: kek.id.as_slice().into(),
            },
            public_key: key.public_key,
            wrapped: Some(wrapped.to_bytes()),
            spare: None,
        })
    }

    fn prove_wrapped(&self, key: &WrappedImport) -> Result<(), Refusal> {
        let pool = self.pool()?;
        let holders = holders(pool, |kek| kek.id == key.wrapped.kek);
        if holders.is_empty() {
            return Err(usage(format!(
                "'{}': no device that works has its wrapping key",
                key.id
            )));
        }
        let key = DeviceKey {
            object: Vec::new(),
            public_key: key.public_key.clone(),
            wrapped: Some(key.wrapped.clone()),
        };
        holders
            .iter()
            .try_for_each(|(device, _)| pool.prove(device, &key).map_err(|error| refuse(&error)))
    }
}

fn at<'a>(devices: impl IntoIterator<Item = &'a str>, object: &[u8]) -> Place {
    Place::Device {
        devices: devices.into_iter().map(Arc::from).collect(),
        object: object.into(),
    }
}

/// Takes key pairs of destroyed keys out of their devices, records which are gone, and returns those that may still be
/// there.
pub fn clear_devices(
    pool: &Pool<Task>,
    ledger: &dyn Ledger,
    tenant: &TenantName,
    objects: Vec<LeftObject>,
) -> Vec<LeftObject> {
    let is_gone = |place: &LeftObject| match pool.destroy(&place.device, &place.object) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(device = place.device, %error, "a destroyed key is still in a device");
            false
        }
    };
    let (gone, left): (Vec<_>, Vec<_>) = objects.into_iter().partition(is_gone);
    if gone.is_empty() {
        return left;
    }
    let change = KeepChange::ObjectsGone {
        tenant: tenant.clone(),
        objects: gone,
    };
    // What is not recorded is looked for once more when the tenant is destroyed.
    if let Err(error) = ledger.change(Change::Keep(change)) {
        tracing::error!(%error, "objects are gone out of devices, and that cannot be recorded");
    }
    left
}

/// The devices that take jobs and have a wrapping key.
fn holders(pool: &Pool<Task>, is_it: impl Fn(&Kek) -> bool) -> Vec<(Arc<str>, Kek)> {
    let devices = pool
        .devices()
        .into_iter()
        .filter(|device| device.state.takes_jobs());
    let kek = |device: hsm_pool::pool::DeviceView| {
        let kek = device.state.facts().keks.into_iter().find(&is_it)?;
        Some((device.name, kek))
    };
    devices.filter_map(kek).collect()
}

/// A wrapping key that all these devices have.
fn common_kek(pool: &Pool<Task>, devices: &[String]) -> Result<Option<Kek>, Refusal> {
    let all = pool.devices();
    let mut common: Option<Vec<Kek>> = None;
    for name in devices {
        let device = all.iter().find(|device| *device.name == **name);
        let device = device.ok_or_else(|| refuse(&DeviceError::Unknown(name.clone())))?;
        let keks = device.state.facts().keks;
        common = Some(match common {
            None => keks,
            Some(known) => known
                .into_iter()
                .filter(|kek| keks.iter().any(|other| other.id == kek.id))
                .collect(),
        });
    }
    Ok(common.unwrap_or_default().into_iter().next())
}

/// What an operator hears when a device says no. Operators may hear its own words.
pub fn refuse(error: &DeviceError) -> Refusal {
    let code = match error {
        DeviceError::Unknown(_) => Code::NotFound,
        DeviceError::Exists(_) => Code::AlreadyExists,
        DeviceError::State(..) => Code::Usage,
        DeviceError::Job(JobError::Unavailable) => Code::DeviceUnavailable,
        DeviceError::Job(JobError::Rejected) => Code::SignatureRejected,
        DeviceError::Job(_) | DeviceError::Answer => Code::DeviceFailed,
        DeviceError::Thread(_) => Code::Internal,
    };
    Refusal::new(code, error.to_string())
}

fn usage(text: String) -> Refusal {
    Refusal::new(Code::Usage, text)
}

fn internal(text: &str) -> Refusal {
    Refusal::new(Code::Internal, text.to_owned())
}
