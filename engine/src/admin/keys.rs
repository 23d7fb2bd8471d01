//! Operators' orders about keys and their credentials, wherever the keys are.

use std::sync::Arc;

use actors::call::Ticket;
use actors::keymaster::{CredentialPlan, KeyPlace, Keymaster, WantedCertificate, WrappedImport};
use actors::registrar::Ledger;
use actors::task::Task;
use actors::vault::Vault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsm_pool::keys::WrappedKey;
use hsm_pool::pool::Pool;
use protocol::algorithm::KeyKind;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, SubjectId, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Change, Credential, Environment, Place, StoreHandle};

use crate::pki::Pki;

/// What an operator wants done with keys.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "key-order", rename_all = "kebab-case")]
pub(crate) enum KeyOrder {
    Create {
        tenant: TenantName,
        id: CredentialId,
        kind: KeyKind,
        /// The devices to make it in; none: software, or wrapped.
        devices: Vec<String>,
        /// The label of the wrapping key under which it is to exist only.
        wrapped: Option<String>,
        #[serde(default)]
        environment: Environment,
        /// What its certificate is to be for; the profile of credentials if not given.
        #[serde(default)]
        profile: Option<String>,
        #[serde(default)]
        subject: Option<SubjectId>,
    },
    Attach {
        tenant: TenantName,
        id: CredentialId,
        kind: KeyKind,
        device: String,
        /// CKA_LABEL, or an SDF key's index.
        name: String,
    },
    Import {
        tenant: TenantName,
        keys: Vec<ImportedKey>,
        /// Prove each key, not only the first.
        prove: bool,
    },
    Replicate {
        tenant: TenantName,
        id: CredentialId,
        device: String,
    },
    Destroy {
        tenant: TenantName,
        id: CredentialId,
    },
    Set {
        tenant: TenantName,
        id: CredentialId,
        active: bool,
    },
    List {
        tenant: TenantName,
    },
}

/// A wrapped key as it travels: binary fields in base64, ids in hexadecimal.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportedKey {
    id: CredentialId,
    /// SubjectPublicKeyInfo.
    public_key: String,
    /// The private key, wrapped.
    blob: String,
    /// CKA_ID of the wrapping key, hexadecimal.
    kek: String,
    /// The wrapping key's check value, hexadecimal.
    #[serde(default)]
    check_value: String,
    /// The `CKM_*` number of the wrapping mechanism; CKM_AES_KEY_WRAP_PAD unless told otherwise.
    #[serde(default = "aes_key_wrap_pad")]
    mechanism: u64,
    /// Who made the device that wrapped it.
    #[serde(default)]
    vendor: String,
}

const fn aes_key_wrap_pad() -> u64 {
    0x210a
}

impl ImportedKey {
    fn read(self) -> Result<WrappedImport, Refusal> {
        let bad = |what: &str| Refusal::new(Code::MalformedRequest, format!("'{}': {what}", self.id));
        let base64 = |text: &str, what| STANDARD.decode(text).map_err(|_| bad(what));
        let wrapped = WrappedKey {
            mechanism: self.mechanism,
            vendor: self.vendor.clone(),
            kek: unhex(&self.kek).ok_or_else(|| bad("kek is not hexadecimal"))?,
            check: unhex(&self.check_value).ok_or_else(|| bad("check_value is not hexadecimal"))?,
            blob: base64(&self.blob, "blob is not base64")?,
        };
        let public_key = base64(&self.public_key, "public_key is not base64")?;
        Ok(WrappedImport {
            id: self.id,
            public_key,
            wrapped,
        })
    }
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok()
        })
        .collect()
}

/// Carries out orders about keys.
pub(crate) struct Keys<'a> {
    pub(crate) store: &'a StoreHandle<Ticket>,
    pub(crate) vault: &'a Vault,
    pub(crate) pool: Option<&'a Pool<Task>>,
    pub(crate) pki: &'a Pki,
    pub(crate) ledger: &'a dyn Ledger,
}

impl Keys<'_> {
    pub(crate) fn obey(&self, order: KeyOrder) -> Result<Value, Refusal> {
        match order {
            KeyOrder::Create {
                tenant,
                id,
                kind,
                devices,
                wrapped,
                environment,
                profile,
                subject,
            } => {
                let place = match wrapped {
                    Some(kek) => KeyPlace::Wrapped(kek),
                    None if devices.is_empty() => KeyPlace::Software,
                    None => KeyPlace::Devices(devices),
                };
                let plan = CredentialPlan {
                    tenant,
                    id,
                    kind,
                    place,
                    environment,
                    certificate: WantedCertificate {
                        profile,
                        subject,
                        asked: None,
                    },
                };
                self.with_master(|keys| keys.create(plan))?;
            }
            KeyOrder::Attach {
                tenant,
                id,
                kind,
                device,
                name,
            } => {
                let place = KeyPlace::Devices(vec![device.clone()]);
                let plan = CredentialPlan {
                    tenant,
                    id,
                    kind,
                    place,
                    environment: Environment::Production,
                    certificate: WantedCertificate::default(),
                };
                self.with_master(|keys| keys.attach(plan, &device, &name))?;
            }
            KeyOrder::Import { tenant, keys, prove } => {
                let list = keys
                    .into_iter()
                    .map(ImportedKey::read)
                    .collect::<Result<_, _>>()?;
                self.with_master(|keys| keys.import(&tenant, list, prove))?;
            }
            KeyOrder::Replicate { tenant, id, device } => {
                let credential = self.credential(&tenant, &id)?;
                self.with_master(|keys| keys.replicate(&tenant, &credential, &device))?;
            }
            KeyOrder::Destroy { tenant, id } => return self.destroy(&tenant, &id),
            KeyOrder::Set { tenant, id, active } => {
                self.ledger.change(Change::SetCredential { tenant, id, active })?;
            }
            KeyOrder::List { tenant } => return self.list(&tenant),
        }
        Ok(json!({}))
    }

    fn with_master<T>(&self, work: impl FnOnce(&Keymaster<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let reader = self.store.reader().map_err(|error| error.refusal())?;
        let office = self.pki.office(self.pool)?;
        work(&Keymaster {
            ledger: self.ledger,
            vault: self.vault,
            reader: &reader,
            pool: self.pool,
            issuer: Some(&office.enrolment(self.ledger)),
        })
    }

    fn destroy(&self, tenant: &TenantName, id: &CredentialId) -> Result<Value, Refusal> {
        let credential = self.credential(tenant, id)?;
        let left = self.with_master(|keys| keys.destroy(tenant, &credential))?;
        Ok(json!({ "still_in": left }))
    }

    fn credential(&self, tenant: &TenantName, id: &CredentialId) -> Result<Arc<Credential>, Refusal> {
        let tenants = self.store.directory();
        let known = tenants
            .tenant(tenant.as_str())
            .and_then(|tenant| tenant.credential(id.as_str()));
        known.ok_or_else(|| Refusal::new(Code::NotFound, format!("no credential '{tenant}/{id}'")))
    }

    fn list(&self, tenant: &TenantName) -> Result<Value, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("no tenant '{tenant}'"));
        let tenant = self
            .store
            .directory()
            .tenant(tenant.as_str())
            .ok_or_else(missing)?;
        let show = |credential: &Arc<Credential>| {
            let (place, devices) = match credential.place() {
                Place::Software => ("software", Vec::new()),
                Place::Device { devices, .. } => {
                    ("device", devices.iter().map(ToString::to_string).collect())
                }
                Place::Wrapped { .. } => ("wrapped", Vec::new()),
                Place::Destroyed => ("destroyed", Vec::new()),
            };
            let active = credential.fence.pass().is_some();
            json!({ "id": credential.id, "environment": credential.environment, "kind": credential.kind, "place": place, "devices": devices, "active": active })
        };
        Ok(Value::Array(tenant.credentials().iter().map(show).collect()))
    }
}
