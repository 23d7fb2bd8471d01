//! Seals and grants. A seal is a picture, a name and a credential that signs under it; a grant says which app may use it,
//! or which agent through an app, from when to when, how often, and on what kinds of document. [`step`] is the whole state
//! machine of a seal; what the gate and the committing thread need is in memory, the rest in [`rows`].
//!
//! A freeze or revocation, of the seal or of the grant, wins by commit order like that of a credential (`fence.rs`). Uses
//! are counted by the committing thread alone, when a signature is committed: a grant of N uses gives N signatures.

pub(crate) mod rows;
pub(crate) mod uses;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, AppRow, CredentialId, GrantId, GrantRow, SealId, SealRow, SubjectId, TenantName};
use protocol::seal::{DocumentKind, DocumentKinds, SealState};
use serde::{Deserialize, Serialize};

use crate::directory::Validity;
use crate::fence::{Epoch, Fence};
use crate::record::{DiscardReason, UnderSeal};
use crate::tenancy::Environment;

/// What is done with a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealStep {
    /// The draft is ready to be looked at.
    Submit,
    /// It is not as it should be, and a draft again.
    Return,
    /// It may be used from now on.
    Approve,
    /// It may not be used for now.
    Freeze,
    /// It may be used again.
    Unfreeze,
    /// It will not be used again.
    Revoke,
    /// It was never used, and goes.
    Destroy,
}

impl SealStep {
    /// Every step.
    pub const ALL: [Self; 7] = [
        Self::Submit,
        Self::Return,
        Self::Approve,
        Self::Freeze,
        Self::Unfreeze,
        Self::Revoke,
        Self::Destroy,
    ];

    /// As the journal calls it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Submit => "seal.submit",
            Self::Return => "seal.return",
            Self::Approve => "seal.approve",
            Self::Freeze => "seal.freeze",
            Self::Unfreeze => "seal.unfreeze",
            Self::Revoke => "seal.revoke",
            Self::Destroy => "seal.destroy",
        }
    }
}

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not in a state for this.
    #[error("it is {}, which does not allow this", .0.name())]
    State(SealState),
    /// It was used, so it has to stay known.
    #[error("it was used {0} times; a seal that was used is revoked, never destroyed")]
    Used(u64),
}

/// What a step makes of a seal that was used so often.
pub const fn step(state: SealState, step: SealStep, uses: u64) -> Result<SealState, SealError> {
    use SealState::{Active, Destroyed, Draft, Frozen, InReview, Revoked};
    match (state, step) {
        (Draft, SealStep::Submit) => Ok(InReview),
        (InReview, SealStep::Return) => Ok(Draft),
        (InReview, SealStep::Approve) | (Frozen, SealStep::Unfreeze) => Ok(Active),
        (Active, SealStep::Freeze) => Ok(Frozen),
        (Draft | InReview | Active | Frozen, SealStep::Revoke) => Ok(Revoked),
        // What is active could be used while it is destroyed: it is frozen or revoked first.
        (Draft | InReview | Frozen | Revoked, SealStep::Destroy) if uses > 0 => Err(SealError::Used(uses)),
        (Draft | InReview | Frozen | Revoked, SealStep::Destroy) => Ok(Destroyed),
        (state, _) => Err(SealError::State(state)),
    }
}

/// Whose seal it is, as GB/T 38540 tells kinds apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum SealKind {
    /// An organisation's (单位印章).
    #[default]
    Organisation = 1,
    /// A person's (个人印章).
    Personal = 2,
}

/// Why a seal is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSealed {
    /// It is not active.
    #[error("the seal is {}", .0.name())]
    State(SealState),
    /// Its validity is over, or has not begun.
    #[error("the seal is not valid now")]
    Seal,
    /// No grant names the app and this agent.
    #[error("the seal is not granted to the app, or not to this agent")]
    NotGranted,
    /// The grant is revoked.
    #[error("the grant is revoked")]
    Revoked,
    /// The grant's time is over, or has not begun.
    #[error("the grant does not count now")]
    Time,
    /// The grant is for other kinds of document.
    #[error("the grant is not for documents of the kind {0}")]
    Document(DocumentKind),
    /// The grant was used as often as it allows.
    #[error("the grant allows {0} uses, and they are used up")]
    UsedUp(u64),
}

impl NotSealed {
    /// The code that a caller hears.
    pub const fn code(self) -> Code {
        match self {
            Self::State(SealState::Frozen) => Code::SealFrozen,
            Self::State(SealState::Revoked | SealState::Destroyed) => Code::SealRevoked,
            Self::State(_) => Code::SealNotActive,
            Self::Seal => Code::SealExpired,
            Self::NotGranted => Code::SealNotGranted,
            Self::Revoked => Code::GrantRevoked,
            Self::Time => Code::GrantExpired,
            Self::Document(_) => Code::DocumentNotGranted,
            Self::UsedUp(_) => Code::GrantUsedUp,
        }
    }

    /// What a caller hears.
    pub fn refusal(self) -> Refusal {
        Refusal::new(self.code(), self.to_string())
    }
}

/// What a grant allows, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTerms {
    /// The app.
    pub app: AppRow,
    /// The agent who acts through it; `None`: the app itself.
    pub agent: Option<SubjectId>,
    /// On what kinds of document.
    pub documents: DocumentKinds,
    /// From when to when.
    pub validity: Validity,
    /// How often at most; `None`: no limit.
    pub uses_max: Option<u64>,
}

/// A grant of a seal.
#[derive(Debug)]
pub struct Grant {
    /// Its row.
    pub row: GrantRow,
    /// Its id within the tenant.
    pub id: GrantId,
    /// What it allows.
    pub terms: GrantTerms,
    /// Whether it was not revoked.
    pub fence: Fence,
    uses: AtomicU64,
}

impl Grant {
    pub(crate) fn new(row: GrantRow, id: GrantId, terms: GrantTerms, fence: Fence, uses: u64) -> Self {
        Self {
            row,
            id,
            terms,
            fence,
            uses: AtomicU64::new(uses),
        }
    }

    /// How often it was used.
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Acquire)
    }

    /// Whether it has been used as often as it allows.
    pub fn check_uses(&self) -> Result<(), NotSealed> {
        match self.terms.uses_max {
            Some(max) if self.uses() >= max => Err(NotSealed::UsedUp(max)),
            _ => Ok(()),
        }
    }

    /// Whether it allows a use now, but for how often it was used.
    fn admit(&self, document: DocumentKind, now: UnixMillis) -> Result<Epoch, NotSealed> {
        let epoch = self.fence.pass().ok_or(NotSealed::Revoked)?;
        if !self.terms.documents.contains(document) {
            return Err(NotSealed::Document(document));
        }
        let in_time = self.terms.validity.check(now);
        in_time.map(|()| epoch).map_err(|_| NotSealed::Time)
    }
}

/// A seal, as the gate and the committing thread know it.
#[derive(Debug)]
pub struct Seal {
    /// Its row.
    pub row: SealRow,
    /// Its id within the tenant.
    pub id: SealId,
    /// For what it is used: that of its credential.
    pub environment: Environment,
    /// The credential that signs under it.
    pub credential: CredentialId,
    /// Whether it may be used.
    pub fence: Fence,
    state: AtomicU8,
    from: AtomicU64,
    to: AtomicU64,
    uses: AtomicU64,
    grants: RwLock<Vec<Arc<Grant>>>,
}

impl Seal {
    pub(crate) fn new(
        (row, id): (SealRow, SealId),
        (environment, credential): (Environment, CredentialId),
        (state, epoch): (SealState, u64),
        validity: Validity,
        uses: u64,
    ) -> Self {
        Self {
            row,
            id,
            environment,
            credential,
            fence: Fence::new(epoch, state == SealState::Active),
            state: AtomicU8::new(state as u8),
            from: AtomicU64::new(validity.from.0),
            to: AtomicU64::new(validity.to.0),
            uses: AtomicU64::new(uses),
            grants: RwLock::default(),
        }
    }

    /// How it stands.
    pub fn state(&self) -> SealState {
        // Nothing but states is ever stored.
        SealState::from_number(self.state.load(Ordering::Acquire)).unwrap_or(SealState::Revoked)
    }

    /// When it may be used.
    pub fn validity(&self) -> Validity {
        Validity {
            from: UnixMillis(self.from.load(Ordering::Acquire)),
            to: UnixMillis(self.to.load(Ordering::Acquire)),
        }
    }

    /// How often it was used.
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Acquire)
    }

    /// Its grants, as they were made.
    pub fn grants(&self) -> Vec<Arc<Grant>> {
        self.grants.read().clone()
    }

    /// Whether an app, or an agent of it, may use the seal now, and by which grant: the first that allows it and is not
    /// used up. Where all are, one of those is named: an earlier call's signature is found under it all the same.
    pub fn admit(
        self: &Arc<Self>,
        app: AppRow,
        agent: Option<&str>,
        document: DocumentKind,
        now: UnixMillis,
    ) -> Result<SealUse, NotSealed> {
        // The epoch is read first: a freeze moves it after it has set the state, so one of the two is seen.
        let epoch = self.fence.pass();
        let epoch = epoch.ok_or_else(|| NotSealed::State(self.state()))?;
        self.validity().check(now).map_err(|_| NotSealed::Seal)?;
        let grants = self.grants.read();
        let mut found = Err(NotSealed::NotGranted);
        let theirs = |grant: &&Arc<Grant>| {
            grant.terms.app == app && grant.terms.agent.as_ref().map(SubjectId::as_str) == agent
        };
        for grant in grants.iter().filter(theirs) {
            match grant.admit(document, now) {
                Ok(epoch) if grant.check_uses().is_ok() => {
                    found = Ok((Arc::clone(grant), epoch));
                    break;
                }
                Ok(epoch) => found = Ok((Arc::clone(grant), epoch)),
                Err(reason) if found.is_err() => found = Err(reason),
                Err(_) => {}
            }
        }
        Ok(SealUse {
            seal: (Arc::clone(self), epoch),
            grant: found?,
            document,
        })
    }

    pub(crate) fn add_grant(&self, grant: Arc<Grant>) {
        self.grants.write().push(grant);
    }

    /// Takes over a state, after its commit.
    pub(crate) fn turn(&self, state: SealState) {
        self.state.store(state as u8, Ordering::Release);
        self.fence.turn(state == SealState::Active);
    }

    pub(crate) fn set_validity(&self, validity: Validity) {
        self.from.store(validity.from.0, Ordering::Release);
        self.to.store(validity.to.0, Ordering::Release);
    }

    /// Takes seal and grants out of use, of a tenant that is destroyed.
    pub(crate) fn forget(&self) {
        self.turn(SealState::Revoked);
        self.grants
            .read()
            .iter()
            .for_each(|grant| grant.fence.turn(false));
    }
}

/// A use of a seal that the gate has admitted.
#[derive(Clone, Debug)]
pub struct SealUse {
    /// Which seal, and the epoch under which that was allowed.
    pub seal: (Arc<Seal>, Epoch),
    /// By which grant, and the epoch under which that was allowed.
    pub grant: (Arc<Grant>, Epoch),
    /// On what.
    pub document: DocumentKind,
}

impl SealUse {
    /// As the journal names it.
    pub fn record(&self) -> UnderSeal {
        let grant = &self.grant.0;
        UnderSeal {
            seal: self.seal.0.row,
            grant: grant.row,
            document: self.document.wire(),
            agent: grant.terms.agent.as_ref().map(|agent| agent.as_str().into()),
        }
    }

    /// Why a finished signature must not be released, if there is a reason: by now, on the committing thread.
    pub(crate) fn lost(&self, now: UnixMillis) -> Option<DiscardReason> {
        let ((seal, seal_epoch), (grant, grant_epoch)) = (&self.seal, &self.grant);
        if !seal.fence.holds(*seal_epoch) {
            return Some(DiscardReason::Seal);
        }
        if !grant.fence.holds(*grant_epoch) {
            return Some(DiscardReason::Grant);
        }
        if seal.validity().check(now).is_err() || grant.terms.validity.check(now).is_err() {
            return Some(DiscardReason::SealTime);
        }
        grant.check_uses().is_err().then_some(DiscardReason::GrantUses)
    }
}

/// A new seal.
#[derive(Debug)]
pub struct NewSeal {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: SealId,
    /// Whose seal it is.
    pub kind: SealKind,
    /// The credential that signs under it.
    pub credential: CredentialId,
    /// The credential of its maker, who signs it when it is approved; `None`: it is no seal after GB/T 38540.
    pub maker: Option<CredentialId>,
    /// Its name, under the tenant's key.
    pub name: Box<[u8]>,
    /// Its picture (PNG), under the tenant's key.
    pub picture: Box<[u8]>,
    /// Displayed width and height, in millimetres.
    pub size_mm: (u32, u32),
    /// When it may be used.
    pub validity: Validity,
    /// Whether its credential signs only under seals from now on; its maker's does in any case.
    pub reserve: bool,
    /// Who makes it.
    pub by: String,
}

/// A new grant.
#[derive(Debug)]
pub struct NewGrant {
    /// Whose.
    pub tenant: TenantName,
    /// Its id.
    pub id: GrantId,
    /// Which seal.
    pub seal: SealId,
    /// To which app.
    pub app: AppId,
    /// To which agent who acts through it; `None`: to the app itself.
    pub agent: Option<SubjectId>,
    /// On what kinds of document.
    pub documents: DocumentKinds,
    /// From when to when.
    pub validity: Validity,
    /// How often at most.
    pub uses_max: Option<u64>,
    /// Who grants.
    pub by: String,
}

/// A change of seals and grants.
#[derive(Debug)]
pub enum SealChange {
    /// A new one, a draft.
    Create(NewSeal),
    /// It goes from one state to another.
    Step {
        /// Whose.
        tenant: TenantName,
        /// Which.
        id: SealId,
        /// How.
        step: SealStep,
        /// Where it is approved: the seal as its maker has signed it, under the tenant's key.
        made: Option<Box<[u8]>>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It was made anew, for another certificate or another time.
    Remake {
        /// Whose.
        tenant: TenantName,
        /// Which.
        id: SealId,
        /// The seal as its maker has signed it, under the tenant's key.
        made: Option<Box<[u8]>>,
        /// When it may be used.
        validity: Validity,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Somebody may use it.
    Grant(NewGrant),
    /// Somebody may not use it any more.
    RevokeGrant {
        /// Whose.
        tenant: TenantName,
        /// Which.
        id: GrantId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

impl SealChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        let with = |name: String, reason: &str| format!("{name} {reason}").trim_end().to_owned();
        match self {
            Self::Create(new) => (
                "seal.create",
                format!("{}/{} credential={}", new.tenant, new.id, new.credential),
            ),
            Self::Step {
                tenant,
                id,
                step,
                reason,
                ..
            } => (step.action(), with(format!("{tenant}/{id}"), reason)),
            Self::Remake {
                tenant, id, reason, ..
            } => ("seal.remake", with(format!("{tenant}/{id}"), reason)),
            Self::Grant(new) => {
                let agent = new.agent.as_ref().map(|agent| format!(" agent={agent}"));
                let text = format!(
                    "{}/{} seal={} app={}{} documents={} from={} to={} uses={}",
                    new.tenant,
                    new.id,
                    new.seal,
                    new.app,
                    agent.unwrap_or_default(),
                    names(new.documents),
                    new.validity.from.0,
                    new.validity.to.0,
                    new.uses_max
                        .map_or_else(|| "any".to_owned(), |max| max.to_string()),
                );
                ("grant.create", text)
            }
            Self::RevokeGrant {
                tenant, id, reason, ..
            } => ("grant.revoke", with(format!("{tenant}/{id}"), reason)),
        }
    }
}

fn names(documents: DocumentKinds) -> String {
    let names: Vec<_> = documents.list().iter().map(|kind| kind.name()).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppRow = AppRow(1);

    #[test]
    fn every_step_in_every_state() {
        use SealState::{Active, Destroyed, Draft, Frozen, InReview, Revoked};
        let allowed = [
            (Draft, SealStep::Submit, InReview),
            (Draft, SealStep::Revoke, Revoked),
            (Draft, SealStep::Destroy, Destroyed),
            (InReview, SealStep::Return, Draft),
            (InReview, SealStep::Approve, Active),
            (InReview, SealStep::Revoke, Revoked),
            (InReview, SealStep::Destroy, Destroyed),
            (Active, SealStep::Freeze, Frozen),
            (Active, SealStep::Revoke, Revoked),
            (Frozen, SealStep::Unfreeze, Active),
            (Frozen, SealStep::Revoke, Revoked),
            (Frozen, SealStep::Destroy, Destroyed),
            (Revoked, SealStep::Destroy, Destroyed),
        ];
        for state in SealState::ALL {
            for what in SealStep::ALL {
                let next = allowed.iter().find(|(from, by, _)| (*from, *by) == (state, what));
                let next = next.map(|(.., to)| *to).ok_or(SealError::State(state));
                assert_eq!(step(state, what, 0), next, "{state:?} {what:?}");
                let used = match next {
                    Ok(Destroyed) => Err(SealError::Used(3)),
                    other => other,
                };
                assert_eq!(step(state, what, 3), used, "{state:?} {what:?}, used");
            }
        }
    }

    fn seal() -> Arc<Seal> {
        let id = (SealId::new("s").unwrap(), CredentialId::new("c").unwrap());
        Arc::new(Seal::new(
            (SealRow(1), id.0),
            (Environment::Production, id.1),
            (SealState::Active, 0),
            during(0, 100_000),
            0,
        ))
    }

    fn during(from: u64, to: u64) -> Validity {
        Validity {
            from: UnixMillis(from),
            to: UnixMillis(to),
        }
    }

    fn grant(row: u32, terms: GrantTerms, uses: u64) -> Arc<Grant> {
        let id = GrantId::new(&format!("g-{row}")).unwrap();
        Arc::new(Grant::new(GrantRow(row), id, terms, Fence::new(0, true), uses))
    }

    fn terms() -> GrantTerms {
        GrantTerms {
            app: APP,
            agent: None,
            documents: DocumentKinds::of(&[DocumentKind::Pdf]).unwrap(),
            validity: during(10_000, 50_000),
            uses_max: Some(2),
        }
    }

    fn refused(seal: &Arc<Seal>, app: AppRow, agent: Option<&str>, kind: DocumentKind, at: u64) -> Code {
        let result = seal.admit(app, agent, kind, UnixMillis(at));
        result.unwrap_err().code()
    }

    #[test]
    fn a_use_needs_a_seal_and_a_grant_that_count_now() {
        use DocumentKind::{Ofd, Pdf};
        let seal = seal();
        assert_eq!(refused(&seal, APP, None, Pdf, 20_000), Code::SealNotGranted);
        seal.add_grant(grant(1, terms(), 0));
        assert_eq!(refused(&seal, AppRow(2), None, Pdf, 20_000), Code::SealNotGranted);
        assert_eq!(
            refused(&seal, APP, Some("li-lei"), Pdf, 20_000),
            Code::SealNotGranted
        );
        assert_eq!(refused(&seal, APP, None, Ofd, 20_000), Code::DocumentNotGranted);
        assert_eq!(refused(&seal, APP, None, Pdf, 9_999), Code::GrantExpired);
        assert_eq!(refused(&seal, APP, None, Pdf, 51_000), Code::GrantExpired);
        assert_eq!(refused(&seal, APP, None, Pdf, 101_000), Code::SealExpired);
        let used = seal.admit(APP, None, Pdf, UnixMillis(20_000)).unwrap();
        assert_eq!(
            used.record(),
            UnderSeal {
                seal: SealRow(1),
                grant: GrantRow(1),
                document: Pdf.wire(),
                agent: None
            }
        );
        seal.turn(SealState::Frozen);
        assert_eq!(refused(&seal, APP, None, Pdf, 20_000), Code::SealFrozen);
        assert_eq!(used.lost(UnixMillis(20_000)), Some(DiscardReason::Seal));
        seal.turn(SealState::Active);
        assert_eq!(used.lost(UnixMillis(20_000)), Some(DiscardReason::Seal));
        seal.turn(SealState::Revoked);
        assert_eq!(refused(&seal, APP, None, Pdf, 20_000), Code::SealRevoked);
    }

    #[test]
    fn a_grant_that_is_revoked_over_or_used_up_loses_what_is_in_flight() {
        let seal = seal();
        let grants = [grant(1, terms(), 0), grant(2, terms(), 2)];
        seal.add_grant(Arc::clone(&grants[1]));
        let at = UnixMillis(20_000);
        let last = seal.admit(APP, None, DocumentKind::Pdf, at).unwrap();
        assert_eq!(last.grant.0.row, GrantRow(2), "only one that is used up");
        assert_eq!(last.lost(at), Some(DiscardReason::GrantUses));
        seal.add_grant(Arc::clone(&grants[0]));
        let used = seal.admit(APP, None, DocumentKind::Pdf, at).unwrap();
        assert_eq!(used.grant.0.row, GrantRow(1), "the one that is not used up");
        assert_eq!(used.lost(at), None);
        assert_eq!(used.lost(UnixMillis(51_000)), Some(DiscardReason::SealTime));
        grants[0].fence.turn(false);
        assert_eq!(used.lost(at), Some(DiscardReason::Grant));
        grants[1].fence.turn(false);
        assert_eq!(
            refused(&seal, APP, None, DocumentKind::Pdf, at.0),
            Code::GrantRevoked
        );
    }
}
