//! The registrar: an operator's changes, from words to a durable entry; keys are the [`crate::keymaster`]'s. The same code serves a running engine and an
//! offline command that holds the store itself. Blocking: for operator threads, never for a core.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, SubjectId, TenantName};
use store::{Asked, Change, Directory, Environment, Holder, NewApp, TenancyChange, Tenant, Validity};
use zeroize::Zeroizing;

use crate::vault::{Vault, VaultError};

/// Where changes go.
pub trait Ledger {
    /// Makes a change and returns when it is durable.
    fn change(&self, change: Change) -> Result<(), Refusal> {
        self.changes(vec![change])
    }

    /// Makes changes, all of them or none, and returns when they are durable.
    fn changes(&self, changes: Vec<Change>) -> Result<(), Refusal>;

    /// Who is registered.
    fn directory(&self) -> &Directory;

    /// A tenant by name.
    fn tenant(&self, name: &TenantName) -> Result<Arc<Tenant>, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("no tenant '{name}'"));
        self.directory().tenant(name.as_str()).ok_or_else(missing)
    }
}

/// A certificate that was signed and is not yet given out.
#[derive(Debug)]
pub struct Issued {
    /// The new certificate first, then its issuers', without the root.
    pub chain: Vec<Vec<u8>>,
    /// When all of them are valid.
    pub validity: Validity,
    /// What must be recorded together with whoever gets it.
    pub change: Change,
}

/// A new key that is to be certified.
#[derive(Debug)]
pub struct Certify<'a> {
    /// Whose.
    pub holder: Holder,
    /// SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
    /// The profile; `None`: the one of credentials, if keys of this kind are certified at all.
    pub profile: Option<&'a str>,
    /// Whose identity it states.
    pub subject: Option<&'a SubjectId>,
    /// For what it is used.
    pub environment: Environment,
    /// The call that asks.
    pub asked: Option<Asked>,
}

/// Who issues certificates for new credentials.
pub trait Issuer {
    /// Certifies a new key; `None` where nobody certifies keys of this kind.
    fn issue(&self, wanted: Certify<'_>, now: UnixMillis) -> Result<Option<Issued>, Refusal>;
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
    /// For what the app is used.
    pub environment: Environment,
}

/// Bytes of an app's secret.
pub const SECRET_BYTES: usize = 32;

/// Makes a tenant with a key of its own, under which everything secret of it is wrapped.
pub fn create_tenant(
    ledger: &dyn Ledger,
    vault: &Vault,
    name: TenantName,
    prepaid: Option<u64>,
) -> Result<(), Refusal> {
    let data_key = vault
        .new_data_key(&name)
        .map_err(|error| internal(&error.to_string()))?;
    ledger.change(Change::CreateTenant {
        name,
        prepaid,
        data_key: data_key.into(),
    })
}

/// Makes an app. Its secret is returned here and never again.
pub fn create_app(
    ledger: &dyn Ledger,
    vault: &Vault,
    tenant: TenantName,
    id: AppId,
    proof: AppProof,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let owner = ledger.tenant(&tenant)?;
    let (secret, wrapped) = new_secret(vault, &owner, &id)?;
    ledger.change(Change::CreateApp(NewApp {
        tenant,
        id,
        environment: proof.environment,
        secret: Some(wrapped.into()),
        public_key: proof.public_key.map(Into::into),
        client_certificate: proof.client_certificate,
        binding_required: !proof.binding_optional,
    }))?;
    Ok(secret)
}

/// Gives an app a new secret, returned here and never again. The old one counts until `old_until`.
pub fn rotate_secret(
    ledger: &dyn Ledger,
    vault: &Vault,
    app: AppId,
    old_until: UnixMillis,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let missing = || Refusal::new(Code::NotFound, format!("no app '{app}'"));
    let known = ledger.directory().app(app.as_str()).ok_or_else(missing)?;
    let (secret, wrapped) = new_secret(vault, &known.tenant, &app)?;
    ledger.change(Change::Tenancy(TenancyChange::RotateSecret {
        app,
        secret: wrapped.into(),
        old_until,
    }))?;
    Ok(secret)
}

/// A secret, plain and wrapped.
fn new_secret(vault: &Vault, tenant: &Tenant, id: &AppId) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Refusal> {
    let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| internal("no randomness"))?;
    let wrapped = vault
        .of_tenant(tenant)
        .and_then(|vault| vault.wrap_secret(id, &secret))
        .map_err(VaultError::refusal)?;
    Ok((secret, wrapped))
}

fn internal(text: &str) -> Refusal {
    Refusal::new(Code::Internal, text.to_owned())
}
