//! Operators' orders about seals and grants.

use actors::seals::{Draft, Granting, Seals};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, CredentialId, GrantId, SealId, Sequence, SubjectId, TenantName};
use protocol::seal::{DocumentKind, DocumentKinds};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sla::calendar::MinuteIndex;
use store::{SealKind, SealStep};

/// What an operator wants done with seals.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "seal-order", rename_all = "kebab-case")]
pub(crate) enum SealOrder {
    Create {
        tenant: TenantName,
        new: NewSeal,
    },
    Step {
        tenant: TenantName,
        id: SealId,
        step: SealStep,
        #[serde(default)]
        reason: String,
    },
    /// For another certificate, or a longer time.
    Remake {
        tenant: TenantName,
        id: SealId,
        to: Option<MinuteIndex>,
        #[serde(default)]
        reason: String,
    },
    List {
        tenant: TenantName,
        after: Option<SealId>,
    },
    Show {
        tenant: TenantName,
        id: SealId,
    },
    /// The picture, and the seal as its maker has signed it.
    Files {
        tenant: TenantName,
        id: SealId,
    },
    Uses {
        tenant: TenantName,
        id: SealId,
        grant: Option<GrantId>,
        after: u64,
    },
    Grant {
        tenant: TenantName,
        new: NewGrant,
    },
    RevokeGrant {
        tenant: TenantName,
        id: GrantId,
        #[serde(default)]
        reason: String,
    },
    Grants {
        tenant: TenantName,
        seal: Option<SealId>,
    },
}

/// A seal as it is drafted.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSeal {
    /// Its id, unique within the tenant.
    #[schema(value_type = String)]
    pub(crate) id: SealId,
    /// What it is called.
    pub(crate) name: String,
    /// `organisation` or `personal`.
    #[serde(default)]
    #[schema(value_type = String)]
    pub(crate) kind: SealKind,
    /// The credential that signs under it.
    #[schema(value_type = String)]
    pub(crate) credential: CredentialId,
    /// The credential of its maker (profile seal-maker, SM2), who signs the seal itself when it is approved (GB/T 38540).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) maker: Option<CredentialId>,
    /// Its picture, PNG or JPEG, base64.
    pub(crate) picture: String,
    /// Whether the picture's background becomes transparent.
    #[serde(default)]
    pub(crate) remove_background: bool,
    /// Displayed width, in millimetres.
    pub(crate) width_mm: u32,
    /// Displayed height, in millimetres; as the picture's proportions have it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) height_mm: Option<u32>,
    /// From when on it may be used, `YYYY-MM-DDThh:mm+08:00`; from now on if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) from: Option<MinuteIndex>,
    /// Until when; as long as its certificate is valid if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) to: Option<MinuteIndex>,
    /// Leaves its credential as it is; otherwise that signs only under seals from now on. The maker's does in any case.
    #[serde(default)]
    pub(crate) shared: bool,
}

/// A grant as it is given.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGrant {
    /// Its id, unique within the tenant; a fresh one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) id: Option<GrantId>,
    /// Which seal.
    #[schema(value_type = String)]
    pub(crate) seal: SealId,
    /// To which app.
    #[schema(value_type = String)]
    pub(crate) app: AppId,
    /// To which agent who acts through the app: a subject whose identity is approved; to the app itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) agent: Option<SubjectId>,
    /// On what: `digest`, `pdf`, `ofd`; on all of them if empty.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub(crate) documents: Vec<DocumentKind>,
    /// From when on, `YYYY-MM-DDThh:mm+08:00`; from now on if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) from: Option<MinuteIndex>,
    /// Until when; as long as the seal if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) to: Option<MinuteIndex>,
    /// How often at most; without a limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uses_max: Option<u64>,
}

fn millis(minute: Option<MinuteIndex>) -> Option<UnixMillis> {
    minute.map(|minute| UnixMillis(u64::from(minute.number()) * 60_000))
}

impl NewSeal {
    fn draft(self) -> Result<Draft, Refusal> {
        let malformed = |_| Refusal::new(Code::MalformedRequest, "the picture is not base64");
        Ok(Draft {
            picture: STANDARD.decode(&self.picture).map_err(malformed)?,
            id: self.id,
            name: self.name,
            kind: self.kind,
            credential: self.credential,
            maker: self.maker,
            remove_background: self.remove_background,
            size_mm: (self.width_mm, self.height_mm),
            validity: (millis(self.from), millis(self.to)),
            reserve: !self.shared,
        })
    }
}

impl NewGrant {
    fn granting(self) -> Granting {
        Granting {
            id: self.id,
            seal: self.seal,
            app: self.app,
            agent: self.agent,
            documents: DocumentKinds::of(&self.documents).unwrap_or(DocumentKinds::EVERY),
            validity: (millis(self.from), millis(self.to)),
            uses_max: self.uses_max,
        }
    }
}

/// What an order is called; nothing where it only reads, or where somebody else has to approve what comes of it anyway.
pub(crate) const fn action(order: &SealOrder) -> Option<&'static str> {
    Some(match order {
        SealOrder::Step { step, .. } => match step {
            SealStep::Submit | SealStep::Return => return None,
            other => other.action(),
        },
        SealOrder::Remake { .. } => "seal.remake",
        SealOrder::Grant { .. } => "grant.create",
        SealOrder::RevokeGrant { .. } => "grant.revoke",
        SealOrder::Create { .. }
        | SealOrder::List { .. }
        | SealOrder::Show { .. }
        | SealOrder::Files { .. }
        | SealOrder::Uses { .. }
        | SealOrder::Grants { .. } => return None,
    })
}

/// Carries an order out.
pub(crate) fn obey(seals: &Seals<'_>, actor: &str, order: SealOrder) -> Result<Value, Refusal> {
    let now = clock::wall();
    match order {
        SealOrder::Create { tenant, new } => seals.create(&tenant, new.draft()?, actor, now)?,
        SealOrder::Step {
            tenant,
            id,
            step,
            reason,
        } => seals.step(&tenant, &id, step, (actor, &reason), now)?,
        SealOrder::Remake {
            tenant,
            id,
            to,
            reason,
        } => seals.remake(&tenant, &id, millis(to), (actor, &reason), now)?,
        SealOrder::List { tenant, after } => return seals.page(&tenant, after.as_ref()),
        SealOrder::Show { tenant, id } => return seals.show(&tenant, &id),
        SealOrder::Files { tenant, id } => {
            let (picture, made) = seals.files(&tenant, &id)?;
            let made = made.map(|made| STANDARD.encode(made));
            return Ok(json!({ "picture": STANDARD.encode(picture), "ses": made }));
        }
        SealOrder::Uses {
            tenant,
            id,
            grant,
            after,
        } => return seals.uses(&tenant, (&id, grant.as_ref()), Sequence(after)),
        SealOrder::Grant { tenant, new } => {
            let id = seals.grant(&tenant, new.granting(), actor, now)?;
            return Ok(json!({ "grant": id }));
        }
        SealOrder::RevokeGrant { tenant, id, reason } => {
            seals.revoke_grant(&tenant, &id, (actor, &reason))?;
        }
        SealOrder::Grants { tenant, seal } => return seals.grants(&tenant, seal.as_ref()),
    }
    Ok(json!({}))
}
