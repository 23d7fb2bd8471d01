//! Operators' orders as they travel over the admin socket, and what carries them out: the same code in a running
//! engine and in an offline command that holds the store itself.

use std::sync::Arc;

use actors::bill;
use actors::call::Ticket;
use actors::keymaster::{CredentialPlan, KeyPlace, Keymaster, WrappedImport};
use actors::registrar::{self, AppProof, Issuer, Ledger};
use actors::vault::Vault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsm_pool::keys::WrappedKey;
use hsm_pool::pool::Pool;
use protocol::algorithm::KeyKind;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, CredentialId, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Change, Environment, Place, StoreHandle};

use super::devices::{DeviceOrder, DeviceSource, Devices};
use super::ledger::{Clerk, LedgerOrder};
use crate::dev::DevCa;

/// What an operator wants done.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(crate) enum Order {
    CreateTenant {
        name: TenantName,
        prepaid: Option<u64>,
    },
    SetPrepaid {
        name: TenantName,
        units: Option<u64>,
    },
    ListTenants,
    CreateApp {
        tenant: TenantName,
        id: AppId,
        /// SubjectPublicKeyInfo, base64.
        public_key: Option<String>,
        /// SHA-256 of the certificate.
        client_certificate: Option<[u8; 32]>,
        binding_optional: bool,
        #[serde(default)]
        environment: Environment,
    },
    SetApp {
        id: AppId,
        active: bool,
    },
    ListApps,
    CreateKey {
        tenant: TenantName,
        id: CredentialId,
        kind: KeyKind,
        /// The devices to make it in; none: software, or wrapped.
        devices: Vec<String>,
        /// The label of the wrapping key under which it is to exist only.
        wrapped: Option<String>,
        #[serde(default)]
        environment: Environment,
    },
    AttachKey {
        tenant: TenantName,
        id: CredentialId,
        kind: KeyKind,
        device: String,
        /// CKA_LABEL, or an SDF key's index.
        name: String,
    },
    ImportKeys {
        tenant: TenantName,
        keys: Vec<ImportedKey>,
        /// Prove each key, not only the first.
        prove: bool,
    },
    ReplicateKey {
        tenant: TenantName,
        id: CredentialId,
        device: String,
    },
    DestroyKey {
        tenant: TenantName,
        id: CredentialId,
    },
    Device(DeviceOrder),
    /// Packages, statements, contracts, the service agreement.
    Ledger(LedgerOrder),
    SetKey {
        tenant: TenantName,
        id: CredentialId,
        active: bool,
    },
    ListKeys {
        tenant: TenantName,
    },
    /// Rehearsals, in a development engine only.
    PoisonShard {
        core: u16,
    },
    PoisonMetering,
    EndCore {
        core: u16,
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

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok()
        })
        .collect()
}

/// An answer over the socket.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Done(Value),
    Refused(Refusal),
}

/// What only a running engine can do.
pub(crate) trait Rehearsals: Send + Sync {
    fn poison_shard(&self, core: u16) -> bool;
    fn poison_metering(&self) -> bool;
    fn end_core(&self, core: u16) -> bool;
}

/// Carries orders out.
pub(crate) struct Operator {
    pub(crate) store: Arc<StoreHandle<Ticket>>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) pool: Option<Arc<Pool<actors::task::Task>>>,
    pub(crate) device_source: Option<Arc<dyn DeviceSource>>,
    pub(crate) dev_ca: Option<Arc<DevCa>>,
    /// Of a running engine.
    pub(crate) services: Option<Arc<actors::services::Services>>,
    pub(crate) rehearsals: Option<Arc<dyn Rehearsals>>,
}

/// The store, with the name of whoever makes the change.
struct AsActor<'a>(&'a StoreHandle<Ticket>, &'a str);

impl Ledger for AsActor<'_> {
    fn changes(&self, changes: Vec<Change>) -> Result<(), Refusal> {
        self.0.changes(self.1, changes).map_err(|error| error.refusal())
    }
}

impl Operator {
    /// Carries an order out for `actor` and returns when it is durable.
    pub(crate) fn obey(&self, actor: &str, order: Order) -> Result<Value, Refusal> {
        let ledger = AsActor(&self.store, actor);
        match order {
            Order::CreateTenant { name, prepaid } => {
                ledger.change(Change::CreateTenant { name, prepaid })?;
            }
            Order::SetPrepaid { name, units } => {
                ledger.change(Change::SetPrepaid {
                    tenant: name,
                    prepaid: units,
                })?;
            }
            Order::CreateApp {
                tenant,
                id,
                public_key,
                client_certificate,
                binding_optional,
                environment,
            } => {
                let public_key = public_key.map(|text| decode(&text)).transpose()?;
                let proof = AppProof {
                    public_key,
                    client_certificate,
                    binding_optional,
                    environment,
                };
                let secret = registrar::create_app(&ledger, &self.vault, tenant, id, proof)?;
                return Ok(json!({ "secret": STANDARD.encode(&secret[..]) }));
            }
            Order::SetApp { id, active } => ledger.change(Change::SetApp { id, active })?,
            Order::CreateKey {
                tenant,
                id,
                kind,
                devices,
                wrapped,
                environment,
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
                };
                self.with_keys(&ledger, |keys| keys.create(plan))?;
            }
            Order::AttachKey {
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
                };
                self.with_keys(&ledger, |keys| keys.attach(plan, &device, &name))?;
            }
            Order::ImportKeys { tenant, keys, prove } => {
                let list: Result<Vec<_>, _> = keys.into_iter().map(ImportedKey::read).collect();
                self.with_keys(&ledger, |keys| keys.import(&tenant, list?, prove))?;
            }
            Order::ReplicateKey { tenant, id, device } => {
                let credential = self.credential(&tenant, &id)?;
                self.with_keys(&ledger, |keys| keys.replicate(&tenant, &credential, &device))?;
            }
            Order::DestroyKey { tenant, id } => {
                let credential = self.credential(&tenant, &id)?;
                let left = self.with_keys(&ledger, |keys| keys.destroy(&tenant, &credential))?;
                return Ok(json!({ "still_in": left }));
            }
            Order::Device(order) => return self.device(&ledger, order),
            Order::Ledger(order) => return self.book(&ledger, order),
            Order::SetKey { tenant, id, active } => {
                ledger.change(Change::SetCredential { tenant, id, active })?;
            }
            Order::ListTenants => return Ok(self.tenants()),
            Order::ListApps => return Ok(self.apps()),
            Order::ListKeys { tenant } => return self.keys(&tenant),
            Order::PoisonShard { core } => return self.rehearse(|engine| engine.poison_shard(core)),
            Order::PoisonMetering => return self.rehearse(|engine| engine.poison_metering()),
            Order::EndCore { core } => return self.rehearse(|engine| engine.end_core(core)),
        }
        Ok(json!({}))
    }

    fn book(&self, ledger: &dyn Ledger, order: LedgerOrder) -> Result<Value, Refusal> {
        let clerk = Clerk {
            store: &self.store,
            vault: &self.vault,
            services: self.services.as_deref(),
            ledger,
        };
        clerk.obey(order)
    }

    fn with_keys<T>(
        &self,
        ledger: &dyn Ledger,
        work: impl FnOnce(&Keymaster<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let reader = self.store.reader().map_err(|error| error.refusal())?;
        work(&Keymaster {
            ledger,
            vault: &self.vault,
            reader: &reader,
            pool: self.pool.as_deref(),
            issuer: self.dev_ca.as_deref().map(|ca| ca as &dyn Issuer),
        })
    }

    fn device(&self, ledger: &dyn Ledger, order: DeviceOrder) -> Result<Value, Refusal> {
        match (&self.pool, &self.device_source) {
            (Some(pool), Some(source)) => Devices {
                pool,
                source: &**source,
                ledger,
            }
            .obey(order),
            _ => Err(Refusal::new(
                Code::Usage,
                "devices are in a running engine; none runs in this data folder",
            )),
        }
    }

    fn credential(&self, tenant: &TenantName, id: &CredentialId) -> Result<Arc<store::Credential>, Refusal> {
        let known = self
            .store
            .directory()
            .tenant(tenant.as_str())
            .and_then(|tenant| tenant.credential(id.as_str()));
        known.ok_or_else(|| Refusal::new(Code::NotFound, format!("no credential '{tenant}/{id}'")))
    }

    fn tenants(&self) -> Value {
        let list = self.store.directory().tenants();
        let show = |tenant: &Arc<store::Tenant>| json!({ "name": tenant.name, "state": tenant.standing.state(), "activated": bill::moment(tenant.standing.activated()), "prepaid": tenant.account.granted(), "left": tenant.account.left(), "expired": tenant.account.is_expired() });
        Value::Array(list.iter().map(show).collect())
    }

    fn apps(&self) -> Value {
        let list = self.store.directory().apps();
        let show = |app: &Arc<store::App>| {
            json!({
                "id": app.id,
                "tenant": app.tenant.name,
                "active": app.fence.pass().is_some(),
                "environment": app.environment,
                "contract": app.allowance.contract(),
                "secret": app.secrets.is_set(),
                "public_key": app.public_key.is_some(),
                "client_certificate": app.client_certificate.is_some(),
                "binding_required": app.binding_required,
            })
        };
        Value::Array(list.iter().map(show).collect())
    }

    fn keys(&self, tenant: &TenantName) -> Result<Value, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("no tenant '{tenant}'"));
        let tenant = self
            .store
            .directory()
            .tenant(tenant.as_str())
            .ok_or_else(missing)?;
        let show = |credential: &Arc<store::Credential>| {
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

    fn rehearse(&self, what: impl FnOnce(&dyn Rehearsals) -> bool) -> Result<Value, Refusal> {
        let Some(engine) = &self.rehearsals else {
            return Err(Refusal::new(
                Code::Usage,
                "rehearsals need a running engine with --dev",
            ));
        };
        if what(&**engine) {
            Ok(json!({}))
        } else {
            Err(Refusal::new(Code::NotFound, "there is no such part to make fail"))
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD
        .decode(text)
        .map_err(|_| Refusal::new(Code::MalformedRequest, "the public key is not base64"))
}
