//! The committing thread's last word: revocations by commit order, and the last unit of a balance.

use protocol::error_code::Code;
use protocol::ids::{AppId, CredentialId, TenantName};
use store::{Change, Claim, DiscardReason, Options, Outcome, Record};

use crate::support::{World, create, open, signed};

fn refused(outcome: &Outcome) -> Code {
    match outcome {
        Outcome::Failed(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn disable(world: &World, active: bool) {
    let (tenant, id) = (TenantName::new("t").unwrap(), CredentialId::new("c").unwrap());
    world
        .store
        .change("test", Change::SetCredential { tenant, id, active })
        .unwrap();
}

#[test]
fn a_signature_admitted_before_a_revocation_is_not_released_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let attempt = world.attempt("k");
    world.claim("k", 7);
    disable(&world, false);
    world.store.commit(vec![signed(&attempt)]).unwrap();
    assert_eq!(refused(&world.next()), Code::CredentialDisabled);
    assert_eq!(world.used(), 0);
    let last = world.entries().pop().unwrap().record;
    assert!(
        matches!(
            last,
            Record::Discarded {
                reason: DiscardReason::Credential,
                ..
            }
        ),
        "{last:?}"
    );

    // Enabled again: what was admitted before stays cut off, what is admitted now is signed.
    disable(&world, true);
    assert!(matches!(world.sign("k"), Outcome::Done { .. }));
}

#[test]
fn a_revoked_app_loses_what_is_in_flight_and_stays_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let attempt = world.attempt("k");
    world.claim("k", 7);
    let id = AppId::new("a").unwrap();
    world
        .store
        .change("test", Change::SetApp { id, active: false })
        .unwrap();
    world.store.commit(vec![signed(&attempt)]).unwrap();
    assert_eq!(refused(&world.next()), Code::AppRevoked);
    world.stop();
    let world = open(folder.path(), Options::default());
    assert_eq!(world.store.directory().app("a").unwrap().fence.pass(), None);
}

#[test]
fn a_prepaid_balance_ends_with_exactly_its_units() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), Some(10));
    let attempts: Vec<_> = (0..16).map(|n| world.attempt(&format!("k{n}"))).collect();
    for n in 0..16 {
        assert_eq!(world.claim(&format!("k{n}"), n), Claim::Fresh);
    }
    // All at once, so that the limit falls inside one batch.
    world.store.commit(attempts.iter().map(signed).collect()).unwrap();
    let outcomes: Vec<_> = (0..16).map(|_| world.next()).collect();
    let done = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Done { .. }))
        .count();
    assert_eq!((done, world.used()), (10, 10));
    assert_eq!(refused(&outcomes[15]), Code::QuotaExhausted);
    world.stop();
    let world = open(folder.path(), Options::default());
    let account = &world.store.directory().tenant("t").unwrap().account;
    assert_eq!(account.left(), Some(0));
}

#[test]
fn of_two_racers_with_one_key_one_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let attempt = world.attempt("k");
    world.claim("k", 1);
    world.claim("k", 2);
    world
        .store
        .commit(vec![signed(&attempt), signed(&attempt)])
        .unwrap();
    world.store.commit(vec![signed(&attempt)]).unwrap();
    let Outcome::Done { sequence, .. } = world.next() else {
        panic!("not done")
    };
    assert!(matches!(world.next(), Outcome::Done { sequence: second, .. } if second == sequence));
    assert!(matches!(world.sign("later"), Outcome::Done { .. }));
    assert_eq!(world.used(), 2);
}

#[test]
fn what_exists_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let name = TenantName::new("t").unwrap();
    let error = world
        .store
        .change(
            "test",
            Change::CreateTenant {
                name,
                prepaid: None,
                data_key: b"data key".as_slice().into(),
            },
        )
        .unwrap_err();
    assert_eq!(error.refusal().code, Code::AlreadyExists);
    let id = AppId::new("nobody").unwrap();
    let error = world
        .store
        .change("test", Change::SetApp { id, active: false })
        .unwrap_err();
    assert_eq!(error.refusal().code, Code::NotFound);
    assert!(
        matches!(world.sign("k"), Outcome::Done { .. }),
        "and work goes on"
    );
}
