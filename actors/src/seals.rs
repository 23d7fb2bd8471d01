//! Seals as operators make them and as apps see them: from a picture and a credential to a seal that its maker has signed,
//! and who may sign under it. What the states allow is `store::seal_step`'s to say. Blocking, but for [`list`], which
//! belongs to the reader's thread: for operators' threads.

use documents::seal_image;
use documents::ses::{Allowed, Generation, PictureSpec, SealSpec, prepare_seal};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{CredentialId, GrantId, SealId, Sequence, TenantName};
use protocol::limits::{FRAME_BYTES_MAX, SEAL_PICTURE_BYTES_MAX};
use protocol::message::Answer;
use protocol::seal::{DocumentKinds, GrantInfo, SealInfo, SealState};
use serde_json::{Value, json};
use store::{
    App, Change, Credential, Grant, NewGrant, NewSeal, Reader, Seal, SealChange, SealKind, SealRecord,
    SealStep, Tenant, Validity,
};

use crate::bill::moment;
use crate::call::Page;
use crate::enrolment::{Enrolment, is_external};
use crate::vault::{Vault, VaultError};

/// The profile of certificates of seal makers.
const MAKER: &str = "seal-maker";
/// Who has written the software that makes a seal, in the seal's header.
const VENDOR: &str = "Cinnabar";
/// Characters of a seal's name.
const NAME_MAX: usize = 120;
/// Millimetres that a seal may be wide or high.
const SIZE_MM: std::ops::RangeInclusive<u32> = 5..=200;
/// How long a seal may be used whose credential has no certificate.
const YEAR_MS: u64 = 365 * 24 * 3_600_000;
/// Seals in one answer.
const LISTED_MAX: usize = 256;
/// The newest grants that an app is told of each seal.
const GRANTS_TOLD: usize = 200;
/// What a seal and a grant take in an answer at most, beside name and pictures.
const SEAL_BYTES: usize = 512;
const GRANT_BYTES: usize = 256;
/// Uses in one answer.
pub const USES_LISTED_MAX: u32 = 1_000;

fn usage(text: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::Usage, text)
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("seals: {error}"))
}

/// A seal that is to be made.
#[derive(Debug)]
pub struct Draft {
    /// Its id.
    pub id: SealId,
    /// What it is called.
    pub name: String,
    /// Whose seal it is.
    pub kind: SealKind,
    /// The credential that signs under it.
    pub credential: CredentialId,
    /// The credential of its maker, who signs the seal itself after GB/T 38540.
    pub maker: Option<CredentialId>,
    /// Its picture: a PNG or JPEG file.
    pub picture: Vec<u8>,
    /// Whether the picture's background becomes transparent.
    pub remove_background: bool,
    /// Displayed width in millimetres, and height; without the latter, as the picture's proportions have it.
    pub size_mm: (u32, Option<u32>),
    /// When it may be used: from now on and as long as the certificate is valid, where it does not say.
    pub validity: (Option<UnixMillis>, Option<UnixMillis>),
    /// Whether its credential signs only under seals from now on; its maker's does in any case.
    pub reserve: bool,
}

/// A grant that is to be made.
#[derive(Debug)]
pub struct Granting {
    /// Its id; a fresh one where it does not say.
    pub id: Option<GrantId>,
    /// Which seal.
    pub seal: SealId,
    /// To which app.
    pub app: protocol::ids::AppId,
    /// To which agent who acts through it.
    pub agent: Option<protocol::ids::SubjectId>,
    /// On what kinds of document.
    pub documents: DocumentKinds,
    /// From now on and as long as the seal, where it does not say.
    pub validity: (Option<UnixMillis>, Option<UnixMillis>),
    /// How often at most.
    pub uses_max: Option<u64>,
}

/// A part of a seal that is kept under the tenant's key, and what it belongs to.
fn label(tenant: &TenantName, id: &SealId, part: &str) -> String {
    format!("seal/{tenant}/{id}/{part}")
}

fn open(
    vault: &Vault,
    tenant: &Tenant,
    (id, part): (&SealId, &str),
    wrapped: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let opened = vault
        .of_tenant(tenant)
        .and_then(|own| own.unwrap(wrapped, label(&tenant.name, id, part).as_bytes()));
    Ok(opened.map_err(VaultError::refusal)?.to_vec())
}

fn name_of(vault: &Vault, tenant: &Tenant, seal: &Seal, record: &SealRecord) -> Result<String, Refusal> {
    let Some(wrapped) = &record.name else {
        return Ok(String::new());
    };
    let name = open(vault, tenant, (&seal.id, "name"), wrapped)?;
    String::from_utf8(name).map_err(|_| Refusal::new(Code::DataCorrupt, "a seal's name is not UTF-8"))
}

/// Works on seals.
pub struct Seals<'a> {
    /// Who signs, what is known, where changes go.
    pub enrolment: &'a Enrolment<'a>,
}

impl Seals<'_> {
    fn vault(&self) -> &Vault {
        self.enrolment.vault
    }

    fn reader(&self) -> &Reader {
        self.enrolment.reader
    }

    fn change(&self, change: SealChange) -> Result<(), Refusal> {
        self.enrolment.ledger.change(Change::Seals(change))
    }

    fn wrap(&self, owner: &Tenant, id: &SealId, part: &str, plain: &[u8]) -> Result<Box<[u8]>, Refusal> {
        let wrapped = self
            .vault()
            .of_tenant(owner)
            .and_then(|own| own.wrap(plain, label(&owner.name, id, part).as_bytes()));
        Ok(wrapped.map_err(VaultError::refusal)?.into())
    }

    /// Makes a draft.
    pub fn create(
        &self,
        tenant: &TenantName,
        draft: Draft,
        by: &str,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let owner = self.enrolment.ledger.tenant(tenant)?;
        let credential = self.enrolment.credential(tenant, &draft.credential)?;
        if let Some(maker) = &draft.maker {
            self.check_maker(tenant, maker, &credential)?;
        }
        if draft.name.is_empty() || draft.name.chars().count() > NAME_MAX {
            return Err(usage(format!("a seal's name has 1 to {NAME_MAX} characters")));
        }
        let (picture, size_mm) = picture(&draft)?;
        let validity = (draft.validity.0.unwrap_or(now), draft.validity.1);
        self.change(SealChange::Create(NewSeal {
            tenant: tenant.clone(),
            name: self.wrap(&owner, &draft.id, "name", draft.name.as_bytes())?,
            picture: self.wrap(&owner, &draft.id, "picture", &picture)?,
            id: draft.id,
            kind: draft.kind,
            credential: draft.credential,
            maker: draft.maker,
            size_mm,
            validity: Validity {
                from: validity.0,
                to: validity.1.unwrap_or_else(|| end_of(&credential, now)),
            },
            reserve: draft.reserve,
            by: by.to_owned(),
        }))
    }

    /// A maker has an SM2 key and a certificate for making seals, and is not the one who uses them.
    fn check_maker(
        &self,
        tenant: &TenantName,
        maker: &CredentialId,
        credential: &Credential,
    ) -> Result<(), Refusal> {
        let found = self.enrolment.credential(tenant, maker)?;
        if found.kind != KeyKind::Sm2 || credential.kind != KeyKind::Sm2 {
            let text =
                "seals after GB/T 38540 are made with SM2 keys: both the maker's and the one that signs";
            return Err(usage(text));
        }
        if found.row == credential.row {
            return Err(usage("whoever signs under a seal cannot have made it"));
        }
        let last = self.enrolment.last_certificate(tenant, maker)?;
        match last.filter(|last| last.profile == MAKER || is_external(&last.issuer)) {
            Some(_) => Ok(()),
            None => Err(usage(format!(
                "the certificate of '{maker}' is not of the profile {MAKER}"
            ))),
        }
    }

    /// Takes a step. What is approved is made: its maker signs it, if it has one.
    pub fn step(
        &self,
        tenant: &TenantName,
        id: &SealId,
        step: SealStep,
        (by, reason): (&str, &str),
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let seal = self.find(tenant, id)?;
        let refused =
            |error: store::SealError| Refusal::new(Code::WrongState, format!("seal '{id}': {error}"));
        store::seal_step(seal.state(), step, seal.uses()).map_err(refused)?;
        let made = match step {
            SealStep::Approve => self.make(tenant, &seal, seal.validity(), now)?,
            _ => None,
        };
        self.change(SealChange::Step {
            tenant: tenant.clone(),
            id: id.clone(),
            step,
            made,
            by: by.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// Makes a seal anew that is in use: its credential has another certificate, or it shall be valid longer.
    pub fn remake(
        &self,
        tenant: &TenantName,
        id: &SealId,
        to: Option<UnixMillis>,
        (by, reason): (&str, &str),
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let seal = self.find(tenant, id)?;
        let credential = self.enrolment.credential(tenant, &seal.credential)?;
        let validity = Validity {
            from: seal.validity().from,
            to: to.unwrap_or_else(|| end_of(&credential, now)),
        };
        self.change(SealChange::Remake {
            tenant: tenant.clone(),
            id: id.clone(),
            made: self.make(tenant, &seal, validity, now)?,
            validity,
            by: by.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// The seal as its maker signs it (GB/T 38540, version 4), under the tenant's key; `None`: it has no maker.
    fn make(
        &self,
        tenant: &TenantName,
        seal: &Seal,
        validity: Validity,
        now: UnixMillis,
    ) -> Result<Option<Box<[u8]>>, Refusal> {
        let record = self.record(seal, true)?;
        let Some(maker) = &record.maker else {
            return Ok(None);
        };
        let owner = self.enrolment.ledger.tenant(tenant)?;
        let maker = self.enrolment.credential(tenant, maker)?;
        let credential = self.enrolment.credential(tenant, &seal.credential)?;
        let missing = || Refusal::new(Code::DataCorrupt, format!("seal '{}' has no picture", seal.id));
        let wrapped = record.picture.as_deref().ok_or_else(missing)?;
        let spec = SealSpec {
            generation: Generation::V4,
            id: seal.id.to_string(),
            vendor: VENDOR.to_owned(),
            kind: record.kind as u32,
            name: name_of(self.vault(), &owner, seal, &record)?,
            allowed: Allowed::Certificates(vec![self.certificate(&credential)?]),
            created: now,
            validity: (validity.from, validity.to),
            picture: PictureSpec {
                kind: "PNG".to_owned(),
                data: open(self.vault(), &owner, (&seal.id, "picture"), wrapped)?,
                width_mm: record.size_mm.0,
                height_mm: record.size_mm.1,
            },
        };
        maker.certificate.check(now).map_err(store::NotValid::refusal)?;
        let prepared = prepare_seal(&spec, &self.certificate(&maker)?)
            .map_err(|error| usage(format!("the seal cannot be made: {error}")))?;
        let public_key = self.enrolment.public_key(&maker)?;
        let algorithm = Algorithm::Sm2Sm3E;
        let signature = self
            .enrolment
            .sign(tenant, &maker, &public_key, algorithm, &prepared.e())?;
        let made = prepared.assemble(&signature, None).map_err(internal)?;
        Ok(Some(self.wrap(&owner, &seal.id, "made", &made)?))
    }

    fn certificate(&self, credential: &Credential) -> Result<Vec<u8>, Refusal> {
        let chain = self.reader().chain(credential.row);
        let none = || usage(format!("credential '{}' has no certificate", credential.id));
        let chain = chain.map_err(|error| error.refusal())?;
        chain.into_iter().next().ok_or_else(none)
    }

    /// Grants a seal. Says by which grant.
    pub fn grant(
        &self,
        tenant: &TenantName,
        new: Granting,
        by: &str,
        now: UnixMillis,
    ) -> Result<GrantId, Refusal> {
        let seal = self.find(tenant, &new.seal)?;
        let id = match new.id {
            Some(id) => id,
            None => fresh_grant()?,
        };
        self.change(SealChange::Grant(NewGrant {
            tenant: tenant.clone(),
            id: id.clone(),
            seal: new.seal,
            app: new.app,
            agent: new.agent,
            documents: new.documents,
            validity: Validity {
                from: new.validity.0.unwrap_or(now),
                to: new.validity.1.unwrap_or(seal.validity().to),
            },
            uses_max: new.uses_max,
            by: by.to_owned(),
        }))?;
        Ok(id)
    }

    /// Revokes a grant.
    pub fn revoke_grant(
        &self,
        tenant: &TenantName,
        id: &GrantId,
        (by, reason): (&str, &str),
    ) -> Result<(), Refusal> {
        self.change(SealChange::RevokeGrant {
            tenant: tenant.clone(),
            id: id.clone(),
            by: by.to_owned(),
            reason: reason.to_owned(),
        })
    }

    fn find(&self, tenant: &TenantName, id: &SealId) -> Result<std::sync::Arc<Seal>, Refusal> {
        let found = self.enrolment.ledger.tenant(tenant)?.seal(id.as_str());
        found.ok_or_else(|| Refusal::new(Code::UnknownSeal, format!("no seal '{id}'")))
    }

    fn record(&self, seal: &Seal, whole: bool) -> Result<SealRecord, Refusal> {
        let record = self.reader().seal(seal.row, whole);
        record.map_err(|error| error.refusal())
    }

    /// A page of a tenant's seals.
    pub fn page(&self, tenant: &TenantName, after: Option<&SealId>) -> Result<Value, Refusal> {
        let owner = self.enrolment.ledger.tenant(tenant)?;
        let seals = owner.seals_after(after.map(SealId::as_str), None, LISTED_MAX);
        let shown = seals.iter().map(|seal| self.summary(&owner, seal));
        Ok(Value::Array(shown.collect::<Result<_, _>>()?))
    }

    fn summary(&self, owner: &Tenant, seal: &Seal) -> Result<Value, Refusal> {
        let record = self.record(seal, false)?;
        let validity = seal.validity();
        Ok(json!({
            "id": seal.id,
            "name": name_of(self.vault(), owner, seal, &record)?,
            "kind": record.kind,
            "state": seal.state(),
            "environment": seal.environment,
            "credential": seal.credential,
            "maker": record.maker,
            "width_mm": record.size_mm.0,
            "height_mm": record.size_mm.1,
            "from": moment(validity.from),
            "to": moment(validity.to),
            "uses": seal.uses(),
            "created": moment(record.created),
            "changed": moment(record.changed),
        }))
    }

    /// A seal, its grants, and what was done with both.
    pub fn show(&self, tenant: &TenantName, id: &SealId) -> Result<Value, Refusal> {
        let owner = self.enrolment.ledger.tenant(tenant)?;
        let seal = self.find(tenant, id)?;
        let mut value = self.summary(&owner, &seal)?;
        let steps = self.reader().seal_steps(seal.row);
        let steps = steps.map_err(|error| error.refusal())?;
        let step = |step: &store::SealStepRow| {
            json!({
                "action": step.action,
                "grant": step.grant,
                "state": step.state,
                "by": step.actor,
                "reason": step.reason,
                "at": moment(step.at),
                "at_ms": step.at.0,
            })
        };
        value["history"] = steps.iter().map(step).collect();
        value["grants"] = self.grants_of(&seal);
        Ok(value)
    }

    /// The grants of a tenant's seals, or of one of them.
    pub fn grants(&self, tenant: &TenantName, seal: Option<&SealId>) -> Result<Value, Refusal> {
        let owner = self.enrolment.ledger.tenant(tenant)?;
        let seals = match seal {
            Some(id) => vec![self.find(tenant, id)?],
            None => owner.seals(),
        };
        let mut all = Vec::new();
        for seal in seals {
            if let Value::Array(grants) = self.grants_of(&seal) {
                all.extend(grants);
            }
        }
        Ok(Value::Array(all))
    }

    fn grants_of(&self, seal: &Seal) -> Value {
        let apps = self.enrolment.ledger.directory().apps();
        let show = |grant: &std::sync::Arc<Grant>| {
            let app = apps.iter().find(|app| app.row == grant.terms.app);
            let validity = grant.terms.validity;
            json!({
                "id": grant.id,
                "seal": seal.id,
                "app": app.map(|app| &app.id),
                "agent": grant.terms.agent,
                "documents": grant.terms.documents,
                "from": moment(validity.from),
                "to": moment(validity.to),
                "uses_max": grant.terms.uses_max,
                "uses": grant.uses(),
                "active": grant.fence.pass().is_some(),
            })
        };
        seal.grants().iter().map(show).collect()
    }

    /// The uses of a seal, or of one of its grants, after a journal entry: at most [`USES_LISTED_MAX`].
    pub fn uses(
        &self,
        tenant: &TenantName,
        (id, grant): (&SealId, Option<&GrantId>),
        after: Sequence,
    ) -> Result<Value, Refusal> {
        let seal = self.find(tenant, id)?;
        let row = match grant {
            None => None,
            Some(wanted) => {
                let found = seal.grants().into_iter().find(|known| known.id == *wanted);
                let missing = || Refusal::new(Code::NotFound, format!("seal '{id}' has no grant '{wanted}'"));
                Some(found.ok_or_else(missing)?.row)
            }
        };
        let uses = self.reader().seal_uses((seal.row, row), after, USES_LISTED_MAX);
        let uses = uses.map_err(|error| error.refusal())?;
        let show = |used: &store::SealUseRow| {
            json!({
                "sequence": used.sequence,
                "grant": used.grant,
                "agent": used.agent,
                "app": used.app,
                "document": used.document,
                "at": moment(used.at),
                "at_ms": used.at.0,
            })
        };
        Ok(uses.iter().map(show).collect())
    }

    /// The picture (PNG), and the seal as its maker has signed it.
    pub fn files(&self, tenant: &TenantName, id: &SealId) -> Result<(Vec<u8>, Option<Vec<u8>>), Refusal> {
        let owner = self.enrolment.ledger.tenant(tenant)?;
        let seal = self.find(tenant, id)?;
        let (picture, made) = files(self.vault(), &owner, &seal, &self.record(&seal, true)?)?;
        let gone = || {
            Refusal::new(
                Code::SealRevoked,
                format!("the picture of seal '{id}' is destroyed"),
            )
        };
        Ok((picture.ok_or_else(gone)?, made))
    }
}

fn fresh_grant() -> Result<GrantId, Refusal> {
    let mut id = [0; 8];
    aws_lc_rs::rand::fill(&mut id).map_err(internal)?;
    GrantId::new(&format!("g-{:016x}", u64::from_be_bytes(id))).map_err(internal)
}

/// When a seal ends that does not say: with the certificate of its credential.
fn end_of(credential: &Credential, now: UnixMillis) -> UnixMillis {
    let ends = credential.certificate.ends();
    ends.unwrap_or(UnixMillis(now.0.saturating_add(YEAR_MS)))
}

/// The picture as it is kept, and its size in millimetres.
fn picture(draft: &Draft) -> Result<(Vec<u8>, (u32, u32)), Refusal> {
    let accepted = seal_image::accept(&draft.picture, draft.remove_background)
        .map_err(|error| Refusal::new(Code::ImageUnusable, error.to_string()))?;
    if accepted.png.len() > SEAL_PICTURE_BYTES_MAX {
        let text = format!(
            "the picture takes {} bytes as PNG, and a seal's at most {SEAL_PICTURE_BYTES_MAX}: make it smaller",
            accepted.png.len()
        );
        return Err(Refusal::new(Code::ImageUnusable, text));
    }
    let (width, height) = (u64::from(accepted.width), u64::from(accepted.height));
    let proportional = || (u64::from(draft.size_mm.0) * height + width / 2) / width;
    let height_mm = match draft.size_mm.1 {
        Some(height_mm) => height_mm,
        None => u32::try_from(proportional()).unwrap_or(u32::MAX),
    };
    let size = (draft.size_mm.0, height_mm);
    if !SIZE_MM.contains(&size.0) || !SIZE_MM.contains(&size.1) {
        let text = format!(
            "a seal is {} to {} mm wide and high",
            SIZE_MM.start(),
            SIZE_MM.end()
        );
        return Err(usage(text));
    }
    Ok((accepted.png, size))
}

type Files = (Option<Vec<u8>>, Option<Vec<u8>>);

fn files(vault: &Vault, owner: &Tenant, seal: &Seal, record: &SealRecord) -> Result<Files, Refusal> {
    let part = |part: &str, wrapped: &Option<Vec<u8>>| {
        let wrapped = wrapped.as_deref();
        wrapped
            .map(|wrapped| open(vault, owner, (&seal.id, part), wrapped))
            .transpose()
    };
    Ok((part("picture", &record.picture)?, part("made", &record.made)?))
}

/// The seals of an app's tenant and environment; one of them with its picture, if it is granted to the app.
pub(crate) fn list(reader: &Reader, vault: &Vault, app: &App, page: &Page) -> Result<Answer, Refusal> {
    let tenant = &app.tenant;
    let seals = match &page.only {
        Some(id) => {
            let found = tenant.seal(id).into_iter();
            found.filter(|seal| seal.environment == app.environment).collect()
        }
        None => tenant.seals_after(page.after.as_deref(), Some(app.environment), LISTED_MAX),
    };
    let whole = page.only.is_some();
    let mut infos = Vec::new();
    let mut bytes = 0;
    for seal in &seals {
        let info = info((reader, vault), app, seal, whole)?;
        bytes += info.name.len() + SEAL_BYTES + info.grants.len() * GRANT_BYTES;
        if bytes > FRAME_BYTES_MAX && !infos.is_empty() {
            break;
        }
        infos.push(info);
    }
    Ok(Answer::Seals(infos))
}

fn info(
    (reader, vault): (&Reader, &Vault),
    app: &App,
    seal: &Seal,
    whole: bool,
) -> Result<SealInfo, Refusal> {
    let grants = seal.grants();
    let theirs = grants.iter().rev().filter(|grant| grant.terms.app == app.row);
    let grants: Vec<GrantInfo> = theirs.take(GRANTS_TOLD).map(|grant| grant_info(grant)).collect();
    // Whoever may not put a seal on anything does not get its picture either.
    let is_shown = whole && seal.state() == SealState::Active && grants.iter().any(|grant| grant.active);
    let record = reader.seal(seal.row, is_shown).map_err(|error| error.refusal())?;
    let (picture, made) = match is_shown {
        true => files(vault, &app.tenant, seal, &record)?,
        false => (None, None),
    };
    let validity = seal.validity();
    Ok(SealInfo {
        id: seal.id.to_string(),
        name: name_of(vault, &app.tenant, seal, &record)?,
        state: seal.state(),
        credential: seal.credential.to_string(),
        width_mm: record.size_mm.0,
        height_mm: record.size_mm.1,
        from_ms: validity.from.0,
        to_ms: validity.to.0,
        grants,
        picture: picture.map(Into::into),
        ses: made.map(Into::into),
    })
}

fn grant_info(grant: &Grant) -> GrantInfo {
    let terms = &grant.terms;
    GrantInfo {
        id: grant.id.to_string(),
        active: grant.fence.pass().is_some(),
        agent: terms.agent.as_ref().map(ToString::to_string),
        documents: terms.documents.bits(),
        from_ms: terms.validity.from.0,
        to_ms: terms.validity.to.0,
        uses_max: terms.uses_max,
        uses: grant.uses(),
    }
}
