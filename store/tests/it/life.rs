//! Certificates in the store: judged by their time at the commit, renewed with another key, counted once; and the
//! answers about subjects, each of which counts once and in time.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{AppId, AuthorityName, CredentialId, KeyRow, SubjectId, TenantName};
use store::{
    Asked, AuthorityKey, AuthorityRow, By, CertificateChange, CertificateNumber, CertificateStanding, Change,
    DiscardReason, Environment, Holder, LedgerAccount, LedgerChange, Options, Outcome, Place, Prepared,
    Record, Renewal, RenewedKey, Role, StoreError, SubjectChange, SubjectKind, SubjectState, SubjectStep,
    Unit, Validity,
};

use crate::support::{World, create, open, signed};

const T: u64 = 1_800_000_000_000;
static NOW: AtomicU64 = AtomicU64::new(T);

/// A clock that this test alone moves: tests that use it hold the lock.
fn clock() -> UnixMillis {
    UnixMillis(NOW.load(Ordering::SeqCst))
}

static CLOCK: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

fn options() -> Options {
    Options {
        clock,
        ..Options::default()
    }
}

fn tenant() -> TenantName {
    TenantName::new("t").unwrap()
}

fn renewal(seen: (KeyRow, Option<CertificateNumber>), key: Option<RenewedKey>) -> Change {
    Change::Renew(Renewal {
        tenant: tenant(),
        id: CredentialId::new("c").unwrap(),
        seen,
        chain: vec![b"another".to_vec()],
        validity: Validity {
            from: UnixMillis(T - 1_000),
            to: UnixMillis(T + 9_000),
        },
        key,
    })
}

fn find(world: &World) -> std::sync::Arc<store::Credential> {
    let tenant = world.store.directory().tenant("t").unwrap();
    tenant.credential("c").unwrap()
}

fn refused(outcome: &Outcome) -> Code {
    match outcome {
        Outcome::Failed(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn code(result: store::Result<()>) -> Code {
    match result {
        Err(StoreError::Refused(refusal)) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_signature_whose_certificate_ends_before_its_commit_is_not_released() {
    let _alone = CLOCK.lock();
    NOW.store(T, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), options(), None);
    let seen = (find(&world).key, None);
    world.store.change("test", renewal(seen, None)).unwrap();
    assert!(matches!(world.sign("in time"), Outcome::Done { .. }));
    let attempt = world.attempt("late");
    world.claim("late", 7);
    NOW.store(T + 10_000, Ordering::SeqCst);
    world.store.commit(vec![signed(&attempt)]).unwrap();
    assert_eq!(refused(&world.next()), Code::CertificateExpired);
    assert_eq!(world.used(), 1);
    let last = world.entries().pop().unwrap().record;
    let expected = matches!(
        &last,
        Record::Discarded {
            reason: DiscardReason::Certificate,
            ..
        }
    );
    assert!(expected, "{last:?}");
    // It is so after a restart, too, and with the clock set back it is not the store that forgets.
    world.stop();
    let world = open(folder.path(), options());
    let credential = world
        .store
        .directory()
        .tenant("t")
        .unwrap()
        .credential("c")
        .unwrap();
    assert_eq!(credential.certificate.ends(), Some(UnixMillis(T + 9_000)));
    assert!(credential.certificate.check(clock()).is_err());
    NOW.store(T, Ordering::SeqCst);
    assert!(credential.certificate.check(clock()).is_ok());
}

#[test]
fn a_new_key_keeps_the_fence_and_leaves_nothing_of_the_old_one() {
    let _alone = CLOCK.lock();
    NOW.store(T, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), options(), None);
    let old = find(&world);
    let (running, revoked) = (world.attempt("running"), world.attempt("revoked"));
    world.claim("running", 7);
    world.claim("revoked", 8);
    let key = RenewedKey {
        kind: KeyKind::Ed25519,
        public_key: b"new public".as_slice().into(),
        place: Place::Software,
        wrapped: Some(b"new wrapped".as_slice().into()),
        spare: None,
    };
    world
        .store
        .change("test", renewal((old.key, None), Some(key)))
        .unwrap();
    let new = find(&world);
    assert_ne!(new.key, old.key);
    assert_eq!(
        (new.row, new.kind, new.certificate.version()),
        (old.row, KeyKind::Ed25519, 1)
    );
    let reader = world.store.reader().unwrap();
    assert_eq!(reader.key(old.key).unwrap().unwrap().wrapped, None, "destroyed");
    assert_eq!(
        reader.key(new.key).unwrap().unwrap().wrapped.unwrap(),
        b"new wrapped"
    );
    assert_eq!(reader.chain_of_key(old.row, old.key).unwrap(), None);
    assert!(reader.chain_of_key(new.row, new.key).unwrap().is_some());
    // What the old key was about to sign is released, until the credential is revoked.
    world.store.commit(vec![signed(&running)]).unwrap();
    assert!(matches!(world.next(), Outcome::Done { .. }));
    let (tenant, id) = (tenant(), CredentialId::new("c").unwrap());
    let off = Change::SetCredential {
        tenant,
        id,
        active: false,
    };
    world.store.change("test", off).unwrap();
    world.store.commit(vec![signed(&revoked)]).unwrap();
    assert_eq!(refused(&world.next()), Code::CredentialDisabled);
    world.stop();
    let world = open(folder.path(), options());
    assert_eq!(find(&world).kind, KeyKind::Ed25519);
}

fn certificate(serial: u8, asked: Option<Asked>) -> [Change; 2] {
    let issuer = AuthorityName::new("ca").unwrap();
    let prepared = Prepared {
        issuer: issuer.clone(),
        serial: vec![serial],
        holder: Some(Holder {
            tenant: tenant(),
            credential: None,
        }),
        profile: "tls".into(),
        subject: None,
        environment: Environment::Production,
        key: [serial; 32],
        counted: true,
        tbs: vec![0],
        not_after: UnixMillis(T + 1_000),
    };
    let issue = CertificateChange::Issue {
        issuer,
        serial: vec![serial],
        certificate: vec![1],
        states: Vec::new(),
        asked,
    };
    [CertificateChange::Prepare(prepared), issue].map(Change::Certificates)
}

fn used(world: &World, unit: Unit) -> i64 {
    let reader = world.store.reader().unwrap();
    let row = world.store.directory().tenant("t").unwrap().row;
    let balances = reader
        .packages(row)
        .unwrap()
        .into_iter()
        .flat_map(|(_, balances)| balances);
    balances
        .filter(|balance| (balance.unit, balance.account) == (unit, LedgerAccount::Used))
        .map(|balance| balance.units)
        .sum()
}

#[test]
fn a_call_brings_one_certificate_and_one_unit() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), options(), Some(5));
    let asked = Asked {
        app: AppId::new("a").unwrap(),
        key: "call".into(),
        request: [7; 32],
    };
    world
        .store
        .changes("test", certificate(1, Some(asked.clone())).into())
        .unwrap();
    // Two racers with the same key: the second is refused as a whole.
    let second = world.store.changes("test", certificate(2, Some(asked)).into());
    assert_eq!(code(second), Code::AlreadyExists);
    world.store.changes("test", certificate(3, None).into()).unwrap();
    let reader = world.store.reader().unwrap();
    let found = reader
        .certificate_asked(&AppId::new("a").unwrap(), "call")
        .unwrap()
        .unwrap();
    assert_eq!((found.serial, found.request), (vec![1], Some([7; 32])));
    assert_eq!(used(&world, Unit::Certificate), 2);
    assert_eq!(used(&world, Unit::Signature), 0);
    // Signatures are paid as before, and the books agree.
    for n in 0..5 {
        assert!(matches!(world.sign(&format!("k{n}")), Outcome::Done { .. }));
    }
    assert_eq!(refused(&world.sign("one too many")), Code::QuotaExhausted);
    let months = reader.months().unwrap();
    assert_eq!(reader.reconcile(&months).unwrap().differences, []);
}

/// The same answer about somebody of another name.
fn of_another_name(answer: SubjectChange) -> SubjectChange {
    match answer {
        SubjectChange::Answer {
            nonce,
            subject,
            evidence,
            confirmed,
            by,
            ..
        } => SubjectChange::Answer {
            nonce,
            subject,
            evidence,
            details: [4; 32],
            confirmed,
            by,
        },
        other => panic!("not an answer: {other:?}"),
    }
}

#[test]
fn an_answer_about_a_subject_counts_once_in_time_and_for_what_was_asked() {
    let _alone = CLOCK.lock();
    NOW.store(T, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), options(), None);
    let id = SubjectId::new("s").unwrap();
    let change = |change| world.store.change("test", Change::Subjects(change));
    change(SubjectChange::Submit {
        tenant: tenant(),
        id: id.clone(),
        environment: Environment::Production,
        kind: SubjectKind::Enterprise,
        sealed: b"sealed".as_slice().into(),
        evidence: [1; 32],
    })
    .unwrap();
    let ask = |nonce: &str| SubjectChange::Challenge {
        nonce: nonce.into(),
        tenant: tenant(),
        subject: id.clone(),
        details: [3; 32],
        expires: UnixMillis(T + 600_000),
    };
    let answer = |nonce: &str, evidence| SubjectChange::Answer {
        nonce: nonce.into(),
        subject: id.clone(),
        evidence,
        details: [3; 32],
        confirmed: true,
        by: "verifier v".into(),
    };
    change(ask("1")).unwrap();
    change(ask("2")).unwrap();
    for (wrong, what) in [
        (answer("1", [2; 32]), "other evidence"),
        (answer("3", [1; 32]), "not asked"),
        (of_another_name(answer("1", [1; 32])), "another name"),
    ] {
        assert_eq!(code(change(wrong)), Code::VerificationRefused, "{what}");
    }
    NOW.store(T + 600_000, Ordering::SeqCst);
    assert_eq!(
        code(change(answer("1", [1; 32]))),
        Code::VerificationRefused,
        "too late"
    );
    NOW.store(T + 599_999, Ordering::SeqCst);
    change(answer("1", [1; 32])).unwrap();
    assert_eq!(
        code(change(answer("1", [1; 32]))),
        Code::VerificationRefused,
        "answered"
    );
    assert_eq!(
        code(change(answer("2", [1; 32]))),
        Code::WrongState,
        "approved by now"
    );
    let reader = world.store.reader().unwrap();
    let row = reader.subject(&tenant(), &id).unwrap().unwrap();
    assert_eq!(
        (row.state, row.decider.as_deref()),
        (SubjectState::Approved, Some("verifier v"))
    );
    assert_eq!(used(&world, Unit::User), 1, "one enterprise account");
}

/// A certificate of credential `c`, or of a key that is not here.
fn of_key(serial: u8, credential: Option<&str>, key: [u8; 32], states: Vec<SubjectId>) -> [Change; 2] {
    let [prepare, issue] = certificate(serial, None);
    let prepare = match prepare {
        Change::Certificates(CertificateChange::Prepare(prepared)) => CertificateChange::Prepare(Prepared {
            holder: Some(Holder {
                tenant: tenant(),
                credential: credential.map(|id| CredentialId::new(id).unwrap()),
            }),
            key,
            not_after: UnixMillis(u64::MAX >> 1),
            ..prepared
        }),
        other => panic!("{other:?}"),
    };
    let issue = match issue {
        Change::Certificates(CertificateChange::Issue {
            issuer,
            serial,
            certificate,
            asked,
            ..
        }) => CertificateChange::Issue {
            issuer,
            serial,
            certificate,
            states,
            asked,
        },
        other => panic!("{other:?}"),
    };
    [prepare, issue].map(Change::Certificates)
}

fn revoke(serial: u8, reason: u8) -> Change {
    Change::Certificates(CertificateChange::SetStanding {
        issuer: AuthorityName::new("ca").unwrap(),
        serial: vec![serial],
        standing: CertificateStanding::Revoked { reason },
        by: By::Operator,
    })
}

fn standing(world: &World, serial: u8) -> CertificateStanding {
    let issuer = AuthorityName::new("ca").unwrap();
    let found = world.store.reader().unwrap().certificate(&issuer, &[serial]);
    found.unwrap().unwrap().standing
}

#[test]
fn a_renewal_does_not_outrun_a_revocation() {
    let _alone = CLOCK.lock();
    NOW.store(T, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), options(), None);
    let change = |changes: Vec<Change>| world.store.changes("test", changes);
    change(of_key(1, Some("c"), [1; 32], vec![]).into()).unwrap();
    let last = || {
        let id = CredentialId::new("c").unwrap();
        let reader = world.store.reader().unwrap();
        reader
            .last_certificate(&tenant(), &id)
            .unwrap()
            .map(|row| row.number)
    };
    let key = find(&world).key;
    // Another certificate was there first.
    assert_eq!(code(change(vec![renewal((key, None), None)])), Code::WrongState);
    let seen = (key, last());
    let other_key = (KeyRow(key.0 + 1), last());
    assert_eq!(code(change(vec![renewal(other_key, None)])), Code::WrongState);
    // It is prepared, then the last one is revoked, then it would be issued.
    let [prepare, issue] = of_key(2, Some("c"), [1; 32], vec![]);
    change(vec![prepare]).unwrap();
    change(vec![revoke(1, 4)]).unwrap();
    assert_eq!(code(change(vec![renewal(seen, None), issue])), Code::WrongState);
    assert_eq!(standing(&world, 2), CertificateStanding::Prepared);
    assert!(find(&world).fence.pass().is_none(), "it stays disabled");
}

#[test]
fn a_compromised_key_is_over_wherever_it_is_certified() {
    let _alone = CLOCK.lock();
    NOW.store(T, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), options(), None);
    let change = |changes: Vec<Change>| world.store.changes("test", changes);
    for (serial, credential, key) in [(1, None, 7), (2, Some("c"), 7), (3, None, 7), (4, None, 8)] {
        change(of_key(serial, credential, [key; 32], vec![]).into()).unwrap();
    }
    change(vec![revoke(1, 4)]).unwrap();
    assert_eq!(
        standing(&world, 2),
        CertificateStanding::Issued,
        "superseded alone"
    );
    change(vec![revoke(3, 1)]).unwrap();
    let revoked = |reason| CertificateStanding::Revoked { reason };
    assert_eq!([1, 2, 3].map(|n| standing(&world, n)), [4, 1, 1].map(revoked));
    assert_eq!(standing(&world, 4), CertificateStanding::Issued, "another key");
    assert!(find(&world).fence.pass().is_none(), "its credential is disabled");
    let again = change(of_key(5, None, [7; 32], vec![]).into());
    assert_eq!(code(again), Code::WrongState, "never certified again");
}

#[test]
fn what_states_a_subject_is_issued_only_while_that_is_approved() {
    let _alone = CLOCK.lock();
    NOW.store(T, Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), options(), None);
    let id = SubjectId::new("s").unwrap();
    let change = |changes: Vec<Change>| world.store.changes("test", changes);
    let step = |step| {
        Change::Subjects(SubjectChange::Step {
            tenant: tenant(),
            id: id.clone(),
            step,
            by: "operator alice".into(),
            reason: String::new(),
        })
    };
    let submit = SubjectChange::Submit {
        tenant: tenant(),
        id: id.clone(),
        environment: Environment::Sandbox,
        kind: SubjectKind::Enterprise,
        sealed: b"sealed".as_slice().into(),
        evidence: [1; 32],
    };
    change(vec![Change::Subjects(submit), step(SubjectStep::Confirm)]).unwrap();
    assert_eq!(used(&world, Unit::User), 0, "nothing is charged on a sandbox");
    change(of_key(1, None, [1; 32], vec![id.clone()]).into()).unwrap();
    change(vec![step(SubjectStep::Reject)]).unwrap();
    let late = change(of_key(2, None, [1; 32], vec![id.clone()]).into());
    assert_eq!(code(late), Code::SubjectNotApproved);
    let reader = world.store.reader().unwrap();
    let listed = |environment| reader.subjects((&tenant(), environment), None, 9).unwrap().len();
    let (production, sandbox) = (Environment::Production, Environment::Sandbox);
    assert_eq!([None, Some(sandbox), Some(production)].map(listed), [1, 1, 0]);
}

fn authority(name: &str, issuer: Option<(&str, u8)>) -> Change {
    Change::Certificates(CertificateChange::AddAuthority(AuthorityRow {
        name: AuthorityName::new(name).unwrap(),
        role: Role::Issuing,
        kind: KeyKind::P256,
        issuer: issuer.map(|(issuer, _)| AuthorityName::new(issuer).unwrap()),
        key: AuthorityKey::Software { wrapped: vec![1] },
        certificate: vec![1],
        serial: vec![issuer.map_or(0, |(_, serial)| serial)],
    }))
}

/// The certificate of an authority, by its issuer.
fn of_authority(issuer: &str, serial: u8) -> Vec<Change> {
    let rename = |change| match change {
        Change::Certificates(CertificateChange::Prepare(prepared)) => CertificateChange::Prepare(Prepared {
            issuer: AuthorityName::new(issuer).unwrap(),
            holder: None,
            counted: false,
            ..prepared
        }),
        Change::Certificates(CertificateChange::Issue {
            serial, certificate, ..
        }) => CertificateChange::Issue {
            issuer: AuthorityName::new(issuer).unwrap(),
            serial,
            certificate,
            states: Vec::new(),
            asked: None,
        },
        other => panic!("{other:?}"),
    };
    certificate(serial, None)
        .into_iter()
        .map(|change| Change::Certificates(rename(change)))
        .collect()
}

fn is_active(world: &World) -> bool {
    find(world).fence.pass().is_some()
}

#[test]
fn with_an_authority_ends_what_those_below_it_have_certified() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let make = |changes: Vec<Change>| world.store.changes("test", changes);
    make(vec![authority("root", None)]).unwrap();
    make(of_authority("root", 50)).unwrap();
    make(vec![authority("mid", Some(("root", 50)))]).unwrap();
    make(of_authority("mid", 51)).unwrap();
    make(vec![authority("ca", Some(("mid", 51)))]).unwrap();
    make(of_key(1, Some("c"), [1; 32], Vec::new()).into()).unwrap();
    assert!(is_active(&world));
    let [prepare, issue] = of_key(2, Some("c"), [2; 32], Vec::new());
    make(vec![prepare]).unwrap();
    let end = |issuer: &str, serial| {
        Change::Certificates(CertificateChange::SetStanding {
            issuer: AuthorityName::new(issuer).unwrap(),
            serial: vec![serial],
            standing: CertificateStanding::Revoked { reason: 2 },
            by: By::Operator,
        })
    };
    make(vec![end("root", 50)]).unwrap();
    assert!(!is_active(&world), "its issuer's issuer is revoked");
    assert_eq!(
        code(make(vec![issue])),
        Code::WrongState,
        "what was being signed is not given out"
    );
    let on = Change::SetCredential {
        tenant: tenant(),
        id: CredentialId::new("c").unwrap(),
        active: true,
    };
    assert_eq!(code(make(vec![on])), Code::CredentialDisabled);
    let again = CertificateChange::RenewAuthority {
        name: AuthorityName::new("ca").unwrap(),
        certificate: vec![2],
        serial: vec![52],
    };
    assert_eq!(code(make(vec![Change::Certificates(again)])), Code::WrongState);
    world.stop();
    let world = open(folder.path(), Options::default());
    assert!(!is_active(&world), "also after a restart");
}

#[test]
fn what_could_not_be_counted_is_not_even_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    let grant = LedgerChange::Grant {
        tenant: tenant(),
        kind: "by-certificate".into(),
        units: 1,
        activated: None,
        reference: "c-1".into(),
    };
    world.store.change("test", Change::Ledger(grant)).unwrap();
    world.store.changes("test", certificate(1, None).into()).unwrap();
    let [prepare, _] = certificate(2, None);
    assert_eq!(code(world.store.change("test", prepare)), Code::QuotaExhausted);
    let issuer = AuthorityName::new("ca").unwrap();
    let found = world.store.reader().unwrap().certificate(&issuer, &[2]);
    assert!(found.unwrap().is_none(), "nothing went to the key");
}

#[test]
fn certificates_and_users_are_what_the_ledger_says_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    world.store.changes("test", certificate(1, None).into()).unwrap();
    let used = LedgerChange::Use {
        tenant: tenant(),
        unit: Unit::Certificate,
        units: 3,
        reference: "by hand".into(),
    };
    world.store.change("test", Change::Ledger(used)).unwrap();
    let differences = || world.store.reader().unwrap().reconcile(&[]).unwrap().differences;
    assert_eq!(differences(), []);
    let db = rusqlite::Connection::open(folder.path().join("cinnabar.db")).unwrap();
    db.execute("UPDATE certificate SET counted = FALSE", []).unwrap();
    let found = differences();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].between, found[0].first, found[0].second),
        ("registry = ledger", 3, 4)
    );
}

#[test]
fn certificates_that_end_are_told_of_once_for_each_number_of_days() {
    let folder = tempfile::tempdir().unwrap();
    let world = create(folder.path(), Options::default(), None);
    for serial in 1..=5 {
        world
            .store
            .changes("test", certificate(serial, None).into())
            .unwrap();
    }
    let reader = world.store.reader().unwrap();
    let span = (UnixMillis(T), UnixMillis(T + 2_000));
    assert_eq!(reader.count_ending(span).unwrap(), 5);
    let unwarned = |days| reader.certificates_unwarned(span, days, 2).unwrap();
    let mut told = 0;
    while let rows @ [_, ..] = &unwarned(7)[..] {
        for row in rows {
            let warned = CertificateChange::Warn {
                issuer: row.issuer.clone(),
                serial: row.serial.clone(),
                days: 7,
            };
            world.store.change("test", Change::Certificates(warned)).unwrap();
            told += 1;
        }
    }
    assert_eq!(told, 5);
    assert!(
        unwarned(30).is_empty(),
        "who was told of a week is not told of a month"
    );
    assert_eq!(unwarned(1).len(), 2, "but of a day");
}
