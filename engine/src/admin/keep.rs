//! Orders about how the data are kept: backups that were made, months that go into archives, tenants that are destroyed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use actors::call::Ticket;
use actors::certificates::Authority;
use actors::keymaster;
use actors::registrar::Ledger;
use actors::vault::VaultError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::algorithm::KeyKind;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AuthorityName, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Archived, Change, Holdings, KeepChange, LeftObject, Reader, StoreError, StoreHandle, Tenant};

use super::audit::{self, Erased};
use super::operator::Operator;

/// What an operator wants kept.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "keep", rename_all = "kebab-case")]
pub(crate) enum KeepOrder {
    /// A backup was made: it is to be recorded.
    BackedUp { to: String, last: u64 },
    /// The files are written: their entries are to leave the database.
    Archive { archives: Vec<Archived> },
    /// A closed tenant's keys and secrets are to be destroyed.
    Destroy { tenant: TenantName, reference: String },
}

/// How long a destruction waits for the audit log, which takes a second.
const LEAVES_WAITED_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Carries an order out.
pub(crate) fn obey(
    operator: &Operator,
    ledger: &dyn Ledger,
    actor: &str,
    order: KeepOrder,
) -> Result<Value, Refusal> {
    match order {
        KeepOrder::BackedUp { to, last } => {
            ledger.change(Change::Keep(KeepChange::BackedUp { to, last }))?;
        }
        KeepOrder::Archive { archives } => {
            take_over(&operator.store, actor, archives).map_err(|error| error.refusal())?;
        }
        KeepOrder::Destroy { tenant, reference } => {
            let destruction = Destruction {
                operator,
                ledger,
                actor,
            };
            return destruction.carry_out(tenant, reference);
        }
    }
    Ok(json!({}))
}

/// The destruction of a tenant's keys and secrets.
struct Destruction<'a> {
    operator: &'a Operator,
    ledger: &'a dyn Ledger,
    /// Who orders.
    actor: &'a str,
}

impl Destruction<'_> {
    fn carry_out(&self, name: TenantName, order: String) -> Result<Value, Refusal> {
        let (store, vault) = (&self.operator.store, &self.operator.vault);
        let missing = || Refusal::new(Code::NotFound, format!("no tenant '{name}'"));
        let tenant = store.directory().tenant(name.as_str()).ok_or_else(missing)?;
        let signer = self.signer()?;
        let reader = store.reader().map_err(|error| error.refusal())?;
        let before = reader.holdings(tenant.row).map_err(|error| error.refusal())?;
        let resumed = tenant.data_key().is_none();
        if !resumed {
            self.check_settled(&tenant)?;
            self.wait_for_leaves(&reader)?;
        }
        let change = KeepChange::DestroyTenant {
            tenant: name,
            order: order.clone(),
        };
        let changed = self.ledger.change(Change::Keep(change));
        let is_done = |refusal: &Refusal| resumed && refusal.code == Code::AlreadyExists;
        let mut refused = match changed {
            Err(refusal) if !is_done(&refusal) => return Err(refusal),
            changed => changed.err(),
        };
        vault.forget(&tenant, store.directory());
        let left = reader.left_objects(tenant.row).map_err(|error| error.refusal())?;
        let had_left = !left.is_empty();
        self.clear_devices(&tenant, left);
        // Entries that were on their way become leaves, too; without an engine there were none.
        if resumed || self.operator.services.is_some() {
            self.wait_for_leaves(&reader)?;
        }
        let erased = audit::erase_tenant(&self.operator.audit, &reader, tenant.row);
        let erased = erased.map_err(|error| error.refusal())?;
        // A crash may have come between the two; what it has left is certified when it is gone.
        if erased.salts == 0
            && !had_left
            && let Some(refusal) = refused.take()
        {
            return Err(refusal);
        }
        // Whoever was reading meanwhile may have unwrapped it once more.
        vault.forget(&tenant, store.directory());
        let still_in = reader.left_objects(tenant.row).map_err(|error| error.refusal())?;
        let after = reader.holdings(tenant.row).map_err(|error| error.refusal())?;
        if after != Holdings::default() || vault.of_tenant(&tenant).err() != Some(VaultError::Destroyed) {
            let text = format!(
                "tenant '{}' is recorded as destroyed, but {after:?} is left",
                tenant.name
            );
            return Err(Refusal::new(Code::Internal, text));
        }
        let text = self.certificate(&tenant, &order, (before, erased), &still_in)?;
        let current = self.operator.pki.current();
        let signer = current.authorities.get(signer.as_str())?;
        let signature = signer.sign_message(text.as_bytes())?;
        Ok(json!({
            "certificate": text,
            "signature": STANDARD.encode(&signature[..]),
            "signer": documents::x509::to_pem(&signer.certificate),
        }))
    }

    /// Whoever is being served may still become an entry, whose salt nobody would erase.
    fn check_settled(&self, tenant: &Tenant) -> Result<(), Refusal> {
        let apps = self.operator.store.directory().apps();
        let own = apps.iter().filter(|app| app.tenant.row == tenant.row);
        let running: u32 = own.map(|app| app.allowance.in_flight()).sum();
        if running > 0 {
            let text = format!(
                "tenant '{}' has {running} calls in flight; it is destroyed when they have ended",
                tenant.name
            );
            return Err(Refusal::new(Code::WrongState, text).retry_after_ms(1_000));
        }
        Ok(())
    }

    /// Waits until the audit log has taken in all that was committed: an entry that is logged later would get a salt that
    /// nobody erases.
    fn wait_for_leaves(&self, reader: &Reader) -> Result<(), Refusal> {
        let last = reader.last_entry().map_err(|error| error.refusal())?;
        let folder = &self.operator.audit;
        let until = clock::monotonic() + LEAVES_WAITED_MAX;
        while folder.stated_size() < last.0 {
            if self.operator.services.is_none() || clock::monotonic() > until {
                let text = format!(
                    "journal entry {} is not in the audit log yet; a running engine takes it in",
                    last.0
                );
                return Err(Refusal::new(Code::ProofPending, text));
            }
            std::thread::sleep(LOOK);
        }
        folder.sync().map_err(|error| error.refusal())
    }

    /// The authority that certifies subjects, the first by name whose signatures need no SM2 to be checked.
    fn signer(&self) -> Result<AuthorityName, Refusal> {
        let current = self.operator.pki.current();
        let able =
            |one: &&std::sync::Arc<Authority>| one.role.certifies_subjects() && one.kind != KeyKind::Sm2;
        let found = current
            .authorities
            .all()
            .iter()
            .find(able)
            .map(|one| one.name.clone());
        let none = "no authority can sign the certificate of destruction; `cinnabar ca create` makes one";
        found.ok_or_else(|| Refusal::new(Code::Usage, none))
    }

    /// Takes the keys out of the lanes and the devices. What is still in a device stays recorded.
    fn clear_devices(&self, tenant: &Tenant, objects: Vec<LeftObject>) {
        let Some(pool) = &self.operator.pool else { return };
        for credential in tenant.credentials() {
            pool.forget(credential.key);
        }
        keymaster::clear_devices(pool, self.ledger, &tenant.name, objects);
    }

    fn certificate(
        &self,
        tenant: &Tenant,
        order: &str,
        (destroyed, erased): (Holdings, Erased),
        still_in: &[LeftObject],
    ) -> Result<String, Refusal> {
        let still_in: BTreeSet<&str> = still_in.iter().map(|left| &*left.device).collect();
        let text = json!({
            "certificate": "destruction of a tenant's keys and secrets",
            "tenant": tenant.name,
            "order": order,
            "operator": self.actor,
            "destroyed_ms": clock::wall().0,
            "completes_an_earlier_one": destroyed == Holdings::default(),
            "destroyed": {
                "tenant_key": destroyed.data_key,
                "private_keys": destroyed.keys,
                "secrets": destroyed.secrets,
                "webhook_secrets": destroyed.webhooks,
                "seal_pictures": destroyed.seals,
                "messages": destroyed.messages,
                "document_operations": destroyed.operations,
                "signatures": erased.signatures,
                "audit_salts": erased.salts,
            },
            "method": "the tenant's own AES-256 key was deleted and its place overwritten: the signatures in the journal \
                       and in archives were encrypted under it and cannot be opened any more; private keys, secrets and \
                       secrets of webhooks that were encrypted under it, messages, and operations on documents were deleted \
                       besides, and with them the keys of the documents' files; the salts of \
                       its entries in the audit log were overwritten, so that their leaves cannot be opened",
            "verified": "nothing of it is left in the store, and nothing that was encrypted under it can be opened",
            "still_in_devices": still_in,
            "kept": "journal entries and ledger, which hold ids, amounts, times, digests, proofs of requests, and SHA-256 of \
                     each signature; the leaves of the audit log; public certificates",
            "copies": "backups made before hold the tenant's key, encrypted under the master key, until they are destroyed",
        });
        let text = serde_json::to_string_pretty(&text);
        text.map_err(|error| Refusal::new(Code::Internal, format!("JSON: {error}")))
    }
}

/// Archives take the place of their entries, which then leave the database piece by piece, between the commits of
/// others. What a crash leaves there is taken out the next time.
fn take_over(store: &StoreHandle<Ticket>, actor: &str, archives: Vec<Archived>) -> Result<(), StoreError> {
    for archived in archives {
        store.change(actor, Change::Keep(KeepChange::Archive(archived)))?;
    }
    while store.trim_journal()? {}
    Ok(())
}

/// Puts the months that are older than the retention into archives, in a running engine.
pub(crate) fn archive_due(
    store: &StoreHandle<Ticket>,
    home: &Path,
    retention: u32,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let archives = store.reader()?.write_archives(home, now, retention)?;
    for archived in &archives {
        tracing::info!(file = archived.path(), "a month of the journal is archived");
    }
    take_over(store, "archivist", archives)
}
