//! Seals and grants at the committing thread: a freeze and a revocation by commit order, the last use of a grant, and
//! what is written down of all that.

use std::sync::Arc;

use protocol::clock::{UnixMillis, wall};
use protocol::error_code::Code;
use protocol::ids::{AppId, CredentialId, GrantId, SealId, Sequence, SubjectId, TenantName};
use protocol::seal::{DocumentKind, DocumentKinds, SealState};
use store::{
    Attempt, Change, Claim, DiscardReason, Environment, NewGrant, NewSeal, Options, Outcome, Record, Result,
    SealChange, SealKind, SealStep, SubjectChange, SubjectKind, SubjectStep, Validity,
};

use crate::support::{World, create, open, signed};

fn tenant() -> TenantName {
    TenantName::new("t").unwrap()
}

fn seal_id() -> SealId {
    SealId::new("s").unwrap()
}

fn change(world: &World, change: SealChange) -> Result<()> {
    world.store.change("test", Change::Seals(change))
}

fn always() -> Validity {
    Validity {
        from: UnixMillis(0),
        to: UnixMillis(wall().0 + 3_600_000),
    }
}

fn step(world: &World, step: SealStep) -> Result<()> {
    change(
        world,
        SealChange::Step {
            tenant: tenant(),
            id: seal_id(),
            step,
            made: None,
            by: "operator alice".into(),
            reason: "because".into(),
        },
    )
}

fn grant(world: &World, id: &str, agent: Option<&str>, uses_max: Option<u64>) -> Result<()> {
    change(
        world,
        SealChange::Grant(NewGrant {
            tenant: tenant(),
            id: GrantId::new(id).unwrap(),
            seal: seal_id(),
            app: AppId::new("a").unwrap(),
            agent: agent.map(|agent| SubjectId::new(agent).unwrap()),
            documents: DocumentKinds::of(&[DocumentKind::Pdf]).unwrap(),
            validity: always(),
            uses_max,
            by: "operator alice".into(),
        }),
    )
}

fn revoke(world: &World, id: &str) -> Result<()> {
    change(
        world,
        SealChange::RevokeGrant {
            tenant: tenant(),
            id: GrantId::new(id).unwrap(),
            by: "operator alice".into(),
            reason: String::new(),
        },
    )
}

/// A draft of a seal `s` of credential `c`.
fn draft(world: &World) {
    let new = NewSeal {
        tenant: tenant(),
        id: seal_id(),
        kind: SealKind::Organisation,
        credential: CredentialId::new("c").unwrap(),
        maker: None,
        name: b"name".as_slice().into(),
        picture: b"picture".as_slice().into(),
        size_mm: (42, 42),
        validity: always(),
        reserve: true,
        by: "operator alice".into(),
    };
    change(world, SealChange::Create(new)).unwrap();
}

/// The same, active and granted to app `a` by grant `g`.
fn with_seal(folder: &std::path::Path, uses_max: Option<u64>) -> World {
    let world = create(folder, Options::default(), None);
    draft(&world);
    step(&world, SealStep::Submit).unwrap();
    step(&world, SealStep::Approve).unwrap();
    grant(&world, "g", None, uses_max).unwrap();
    world
}

/// An attempt under the seal, as the gate admits it now.
fn sealed(world: &World, key: &str, agent: Option<&str>) -> Arc<Attempt> {
    let app = world.store.directory().app("a").unwrap();
    let used = app.tenant.seal("s").unwrap();
    let used = used.admit(app.row, agent, DocumentKind::Pdf, wall()).unwrap();
    let mut attempt = Arc::into_inner(world.attempt(key)).unwrap();
    attempt.item.seal = Some(used.record());
    attempt.seal = Some(Box::new(used));
    Arc::new(attempt)
}

fn refused(outcome: &Outcome) -> Code {
    match outcome {
        Outcome::Failed(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn code(result: Result<()>) -> Code {
    result.unwrap_err().refusal().code
}

/// Commits what was admitted before `between`, after it.
fn across(world: &World, between: impl FnOnce()) -> Outcome {
    let attempt = sealed(world, "k", None);
    assert_eq!(world.claim("k", 7), Claim::Fresh);
    between();
    world.store.commit(vec![signed(&attempt)]).unwrap();
    world.next()
}

fn last_reason(world: &World) -> DiscardReason {
    match world.entries().pop().unwrap().record {
        Record::Discarded { reason, item } => {
            assert!(item.seal.is_some());
            reason
        }
        other => panic!("not discarded: {other:?}"),
    }
}

#[test]
fn a_freeze_before_the_commit_takes_the_signature_back_and_does_not_count_it() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_seal(folder.path(), None);
    let outcome = across(&world, || step(&world, SealStep::Freeze).unwrap());
    assert_eq!(refused(&outcome), Code::SealFrozen);
    assert_eq!(last_reason(&world), DiscardReason::Seal);
    let seal = world.store.directory().tenant("t").unwrap().seal("s").unwrap();
    assert_eq!((seal.uses(), world.used()), (0, 0));
    step(&world, SealStep::Unfreeze).unwrap();
    // What was admitted before stays cut off: only what is admitted now counts.
    let attempt = sealed(&world, "k", None);
    assert_eq!(world.claim("k", 8), Claim::Fresh);
    world.store.commit(vec![signed(&attempt)]).unwrap();
    assert!(matches!(world.next(), Outcome::Done { .. }));
    assert_eq!((seal.uses(), world.used()), (1, 1));
}

#[test]
fn a_revoked_grant_wins_by_commit_order_and_stays_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_seal(folder.path(), None);
    let outcome = across(&world, || revoke(&world, "g").unwrap());
    assert_eq!(refused(&outcome), Code::GrantRevoked);
    assert_eq!(last_reason(&world), DiscardReason::Grant);
    assert_eq!(code(revoke(&world, "g")), Code::WrongState);
    world.stop();
    let world = open(folder.path(), Options::default());
    let app = world.store.directory().app("a").unwrap();
    let seal = app.tenant.seal("s").unwrap();
    let again = seal.admit(app.row, None, DocumentKind::Pdf, wall());
    assert_eq!(again.unwrap_err().code(), Code::GrantRevoked);
}

#[test]
fn a_grant_of_n_uses_gives_n_signatures_also_within_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_seal(folder.path(), Some(5));
    let attempts: Vec<_> = (0..9).map(|n| sealed(&world, &format!("k{n}"), None)).collect();
    for n in 0..9 {
        assert_eq!(world.claim(&format!("k{n}"), n), Claim::Fresh);
    }
    world.store.commit(attempts.iter().map(signed).collect()).unwrap();
    let outcomes: Vec<_> = (0..9).map(|_| world.next()).collect();
    let done = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Done { .. }))
        .count();
    assert_eq!((done, world.used()), (5, 5));
    assert_eq!(refused(&outcomes[8]), Code::GrantUsedUp);
    world.stop();
    // Another life counts on from there.
    let world = open(folder.path(), Options::default());
    let seal = world.store.directory().tenant("t").unwrap().seal("s").unwrap();
    assert_eq!((seal.uses(), seal.grants()[0].uses()), (5, 5));
    let late = sealed(&world, "late", None);
    world.claim("late", 1);
    world.store.commit(vec![signed(&late)]).unwrap();
    assert_eq!(refused(&world.next()), Code::GrantUsedUp);
    assert_eq!(last_reason(&world), DiscardReason::GrantUses);
}

#[test]
fn every_use_is_traced_to_its_grant_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_seal(folder.path(), None);
    grant(&world, "h", None, Some(2)).unwrap();
    let mut sequences = Vec::new();
    for n in 0..5 {
        let key = format!("k{n}");
        if n == 3 {
            revoke(&world, "g").unwrap();
        }
        let attempt = sealed(&world, &key, None);
        world.claim(&key, n);
        world.store.commit(vec![signed(&attempt)]).unwrap();
        match world.next() {
            Outcome::Done { sequence, .. } => sequences.push(sequence),
            other => panic!("not signed: {other:?}"),
        }
    }
    let seal = world.store.directory().tenant("t").unwrap().seal("s").unwrap();
    let reader = world.store.reader().unwrap();
    let page = |grant, after, count| reader.seal_uses((seal.row, grant), after, count).unwrap();
    let all = page(None, Sequence(0), 100);
    let found: Vec<_> = all
        .iter()
        .map(|used| (used.sequence, used.grant.as_str()))
        .collect();
    let grants = ["g", "g", "g", "h", "h"];
    assert_eq!(found, sequences.iter().copied().zip(grants).collect::<Vec<_>>());
    assert!(
        all.iter()
            .all(|used| used.document == DocumentKind::Pdf && used.app.as_str() == "a")
    );
    assert_eq!(page(None, sequences[1], 2), all[2..4]);
    let second = seal.grants()[1].row;
    assert_eq!(page(Some(second), Sequence(0), 100), all[3..]);
    let found = reader.reconcile(&reader.months().unwrap()).unwrap();
    assert_eq!(found.differences, []);
}

#[test]
fn steps_are_written_down_with_who_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    draft(&world);
    assert_eq!(code(step(&world, SealStep::Approve)), Code::WrongState);
    let seal = world.store.directory().tenant("t").unwrap().seal("s").unwrap();
    assert_eq!(seal.state(), SealState::Draft);
    assert!(
        world
            .store
            .directory()
            .tenant("t")
            .unwrap()
            .credential("c")
            .unwrap()
            .is_reserved()
    );
    for (what, state) in [
        (SealStep::Submit, SealState::InReview),
        (SealStep::Return, SealState::Draft),
        (SealStep::Submit, SealState::InReview),
        (SealStep::Approve, SealState::Active),
        (SealStep::Freeze, SealState::Frozen),
        (SealStep::Destroy, SealState::Destroyed),
    ] {
        step(&world, what).unwrap();
        assert_eq!(seal.state(), state);
    }
    assert_eq!(code(grant(&world, "g", None, None)), Code::WrongState);
    let reader = world.store.reader().unwrap();
    let record = reader.seal(seal.row, true).unwrap();
    assert_eq!((record.picture, record.name), (None, None));
    let steps = reader.seal_steps(seal.row).unwrap();
    assert_eq!(steps.len(), 7);
    assert_eq!(
        (&*steps[0].action, steps[0].state),
        ("seal.create", SealState::Draft)
    );
    let last = steps.last().unwrap();
    assert_eq!((&*last.actor, &*last.reason), ("operator alice", "because"));
    let journal = world.entries();
    let last = &journal.last().unwrap().record;
    let wanted = matches!(last, Record::Change { action, subject, .. } if &**action == "seal.destroy" && &**subject == "t/s because");
    assert!(wanted, "{last:?}");
    world.stop();
    let world = open(folder.path(), Options::default());
    let tenant = world.store.directory().tenant("t").unwrap();
    assert_eq!(tenant.seal("s").unwrap().state(), SealState::Destroyed);
    assert!(tenant.credential("c").unwrap().is_reserved());
}

#[test]
fn what_was_used_is_never_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_seal(folder.path(), None);
    assert!(matches!(across(&world, || {}), Outcome::Done { .. }));
    step(&world, SealStep::Revoke).unwrap();
    assert_eq!(code(step(&world, SealStep::Destroy)), Code::WrongState);
    let seal = world.store.directory().tenant("t").unwrap().seal("s").unwrap();
    assert_eq!(seal.state(), SealState::Revoked);
}

fn subject_step(world: &World, step: SubjectStep) {
    world
        .store
        .change(
            "test",
            Change::Subjects(SubjectChange::Step {
                tenant: tenant(),
                id: SubjectId::new("li-lei").unwrap(),
                step,
                by: "operator alice".into(),
                reason: String::new(),
            }),
        )
        .unwrap();
}

#[test]
fn an_agent_uses_a_seal_as_long_as_its_identity_is_approved() {
    let folder = tempfile::tempdir().unwrap();
    let world = with_seal(folder.path(), None);
    assert_eq!(code(grant(&world, "h", Some("li-lei"), None)), Code::NotFound);
    let submit = SubjectChange::Submit {
        tenant: tenant(),
        id: SubjectId::new("li-lei").unwrap(),
        environment: Environment::Production,
        kind: SubjectKind::Agent,
        sealed: b"details".as_slice().into(),
        evidence: [3; 32],
    };
    world.store.change("test", Change::Subjects(submit)).unwrap();
    assert_eq!(
        code(grant(&world, "h", Some("li-lei"), None)),
        Code::SubjectNotApproved
    );
    subject_step(&world, SubjectStep::Confirm);
    grant(&world, "h", Some("li-lei"), None).unwrap();
    let attempt = sealed(&world, "k", Some("li-lei"));
    world.claim("k", 1);
    subject_step(&world, SubjectStep::Reject);
    world.store.commit(vec![signed(&attempt)]).unwrap();
    assert_eq!(refused(&world.next()), Code::GrantRevoked);
    let app = world.store.directory().app("a").unwrap();
    let seal = app.tenant.seal("s").unwrap();
    let now = seal.admit(app.row, Some("li-lei"), DocumentKind::Pdf, wall());
    assert_eq!(now.unwrap_err().code(), Code::GrantRevoked);
    // The app's own grant goes on.
    assert!(seal.admit(app.row, None, DocumentKind::Pdf, wall()).is_ok());
}
