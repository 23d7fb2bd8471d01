//! The registrar: an operator's changes, from words to a durable entry. The same code serves a running engine and an
//! offline command that holds the store itself. Blocking: for operator threads, never for a core.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use hsm_pool::soft;
use protocol::algorithm::KeyKind;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, CredentialId, TenantName};
use store::{Change, NewApp, NewCredential, Place};
use zeroize::Zeroizing;

use crate::vault::Vault;

/// Where changes go.
pub trait Ledger {
    /// Makes a change and returns when it is durable.
    fn change(&self, change: Change) -> Result<(), Refusal>;
}

/// Who issues certificates for new credentials.
pub trait Issuer {
    /// A chain for a new key, the new certificate first, without the root.
    fn issue(&self, subject: &str, public_key: &[u8], kind: KeyKind) -> Result<Vec<Vec<u8>>, Refusal>;
}

/// Makes key pairs in devices.
pub trait DeviceKeys {
    /// A new key pair in a device.
    fn generate(
        &self,
        device: &str,
        kind: KeyKind,
        label: &str,
    ) -> Result<hsm_pool::device::DeviceKey, Refusal>;
}

/// How an app proves its requests.
#[derive(Clone, Debug, Default)]
pub struct AppProof {
    /// Its public key for HTTP message signatures, SubjectPublicKeyInfo.
    pub public_key: Option<Vec<u8>>,
    /// SHA-256 of its TLS client certificate.
    pub client_certificate: Option<[u8; 32]>,
    /// Whether its native sessions need not be bound to the TLS exporter.
    pub binding_optional: bool,
}

/// Bytes of an app's secret.
pub const SECRET_BYTES: usize = 32;

/// Makes an app. Its secret is returned here and never again.
pub fn create_app(
    ledger: &dyn Ledger,
    vault: &Vault,
    tenant: TenantName,
    id: AppId,
    proof: AppProof,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| internal("no randomness"))?;
    let wrapped = vault
        .wrap_secret(&id, &secret)
        .map_err(|error| internal(&error.to_string()))?;
    ledger.change(Change::CreateApp(NewApp {
        tenant,
        id,
        secret: Some(wrapped.into()),
        public_key: proof.public_key.map(Into::into),
        client_certificate: proof.client_certificate,
        binding_required: !proof.binding_optional,
    }))?;
    Ok(secret)
}

/// What a new credential is to be.
#[derive(Debug)]
pub struct CredentialPlan {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: CredentialId,
    /// The kind of its key.
    pub kind: KeyKind,
    /// The device to make the key in; `None`: software.
    pub device: Option<String>,
}

/// Makes a key and a credential for it, with a certificate if somebody issues one.
pub fn create_credential(
    ledger: &dyn Ledger,
    vault: &Vault,
    devices: Option<&dyn DeviceKeys>,
    issuer: Option<&dyn Issuer>,
    plan: CredentialPlan,
) -> Result<(), Refusal> {
    let (place, public_key, wrapped) = match &plan.device {
        None => software_key(vault, plan.kind)?,
        Some(device) => device_key(devices, device, &plan)?,
    };
    let subject = format!("{} {}", plan.tenant, plan.id);
    let chain = issuer
        .map(|issuer| issuer.issue(&subject, &public_key, plan.kind))
        .transpose()?;
    ledger.change(Change::CreateCredential(NewCredential {
        tenant: plan.tenant,
        id: plan.id,
        kind: plan.kind,
        public_key: public_key.into(),
        place,
        wrapped: wrapped.map(Into::into),
        chain: chain.unwrap_or_default(),
    }))
}

type NewKey = (Place, Vec<u8>, Option<Vec<u8>>);

fn software_key(vault: &Vault, kind: KeyKind) -> Result<NewKey, Refusal> {
    let made = soft::generate(kind).map_err(|error| internal(&error.to_string()))?;
    // A private key is wrapped for its public half, so that it cannot be moved to another row.
    let wrapped = vault
        .wrap(&made.pkcs8, &made.public_key)
        .map_err(|error| internal(&error.to_string()))?;
    Ok((Place::Software, made.public_key, Some(wrapped)))
}

fn device_key(
    devices: Option<&dyn DeviceKeys>,
    device: &str,
    plan: &CredentialPlan,
) -> Result<NewKey, Refusal> {
    let devices = devices
        .ok_or_else(|| Refusal::new(Code::Usage, "keys in devices are made through a running engine"))?;
    let made = devices.generate(device, plan.kind, &format!("{}/{}", plan.tenant, plan.id))?;
    let place = Place::Device {
        device: Arc::from(device),
        object: made.object.into(),
    };
    Ok((place, made.public_key, None))
}

fn internal(text: &str) -> Refusal {
    Refusal::new(Code::Internal, text.to_owned())
}
