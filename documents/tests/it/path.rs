//! From a signer to a trust anchor: which paths hold, and which do not.

use documents::cms::{VerifyError, verify_detached};
use documents::crl::{self, Crl, Reason};
use documents::ocsp::{CertId, IdHash, Responder, Response, Single, Status};
use documents::x509::{PathError, PathRules, PolicyRules, Profile, Revocation, ValidPath, validate_path};
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use crate::cms::{OPENSSL_VERIFY, sign};
use crate::support::{Bench, Holder, NOW, content, serial, tls_server};

const P256: Algorithm = Algorithm::EcdsaP256Sha256;

/// Signs something as `signer` with the certificates of `others` enclosed, and verifies it under `anchor`.
fn verdict(signer: &Holder, others: &[&Holder], anchor: &Holder) -> Result<String, VerifyError> {
    let content = content();
    let cms = sign(signer, &signer.chain(others), &content);
    let bench = Bench::new();
    bench.write_pem("ca.pem", &anchor.certificate);
    bench.write("signature.der", &cms);
    bench.write("content", &content);
    let judgement = bench.openssl(OPENSSL_VERIFY);
    let ours = verify_detached(&cms, &|hash| hash.digest(&content), &[&anchor.certificate]);
    assert_eq!(
        judgement.ok,
        ours.is_ok(),
        "OpenSSL thinks otherwise: {} {ours:?}",
        judgement.text
    );
    ours.map(|verified| verified.signer)
}

#[test]
fn authorities_between_signer_and_root() {
    let root = Holder::root(Algorithm::EcdsaP384Sha384);
    let middle = root.issue("Middle", Algorithm::RsaPkcs1Sha256, Profile::Root);
    let lower = middle.issue("Lower", P256, Profile::Root);
    let signer = lower.signer(P256);
    assert_eq!(
        verdict(&signer, &[&lower, &middle, &root], &root).unwrap(),
        "CN=Signer,O=朱砂,C=CN"
    );
    assert!(
        verdict(&signer, &[&lower, &middle], &root).is_ok(),
        "the anchor need not be enclosed"
    );
    let gap = verdict(&signer, &[&lower], &root);
    assert_eq!(gap, Err(VerifyError::Path(PathError::NoTrustAnchor)));
}

#[test]
fn a_root_somebody_made_up() {
    let root = Holder::root(P256);
    let impostor = Holder::root(P256);
    let signer = impostor.signer(P256);
    let verdict = verdict(&signer, &[&impostor], &root);
    assert_eq!(
        verdict,
        Err(VerifyError::Path(PathError::BadSignature)),
        "same name, other key"
    );
}

#[test]
fn an_authority_below_one_that_may_have_none() {
    let root = Holder::root(P256);
    let middle = root.issue("Middle", P256, Profile::Root);
    let signer = middle.signer(P256);
    let root = root.recertified_by_itself(Profile::TlsRoot);
    assert!(verdict(&root.signer(P256), &[], &root).is_ok());
    let too_long = verdict(&signer, &[&middle], &root);
    assert_eq!(too_long, Err(VerifyError::Path(PathError::NotAnAuthority)));
}

#[test]
fn a_signer_that_issues() {
    let root = Holder::root(P256);
    let signer = root.issue("Signer", P256, Profile::Root);
    let below = signer.issue("Below", P256, Profile::Signer);
    let signer = signer.recertified(&root, "Signer", Profile::Signer, |_| {});
    let verdict = verdict(&below, &[&signer], &root);
    assert_eq!(verdict, Err(VerifyError::Path(PathError::NotAnAuthority)));
}

#[test]
fn certificates_for_something_else() {
    let root = Holder::root(P256);
    let server = root.issue("server", P256, tls_server());
    assert_eq!(
        verdict(&server, &[], &root),
        Err(VerifyError::Path(PathError::Purpose))
    );
    let authority = root.issue("Authority", P256, Profile::Root);
    assert_eq!(verdict(&authority, &[], &root), Err(VerifyError::KeyUsage));
}

#[test]
fn an_authority_that_had_expired() {
    let root = Holder::root(P256);
    let middle = root.issue("Middle", P256, Profile::Root);
    let signer = middle.signer(P256);
    let middle = middle.recertified(&root, "Middle", Profile::Root, |spec| {
        spec.not_after = UnixMillis(NOW.0 - 1000);
    });
    let subject = "CN=Middle,O=朱砂,C=CN".to_owned();
    let verdict = verdict(&signer, &[&middle], &root);
    assert_eq!(
        verdict,
        Err(VerifyError::Path(PathError::NotValidThen { subject }))
    );
}

/// A root, an issuing authority and a signer, with lists by both authorities on which `revoked` stands.
struct Revocable {
    root: Holder,
    issuing: Holder,
    signer: Holder,
}

impl Revocable {
    fn new() -> Self {
        let root = Holder::root(P256);
        let issuing = root.issue("Issuing", P256, Profile::Issuing);
        let signer = issuing.signer(P256);
        Self {
            root,
            issuing,
            signer,
        }
    }

    fn list(issuer: &Holder, revoked: Option<(&[u8], UnixMillis)>) -> Vec<u8> {
        let spec = crl::Spec {
            issuer: &issuer.certificate,
            number: 1,
            kind: crl::Kind::Full,
            this_update: UnixMillis(NOW.0 - 1000),
            next_update: UnixMillis(NOW.0 + 1000),
            scope: None,
            delta_locations: Vec::new(),
        };
        let revoked = revoked.map(|(serial, at)| crl::Revoked {
            serial,
            at,
            reason: Reason::KeyCompromise,
            invalid_since: None,
        });
        let prepared = crl::prepare(&spec, revoked, P256).unwrap();
        let signature = issuer.key.sign(P256, prepared.to_sign());
        prepared.assemble(&signature).unwrap()
    }

    fn response(&self, status: Status) -> Vec<u8> {
        let responder = Responder::new(&self.issuing.certificate, &self.issuing.certificate, P256).unwrap();
        let id = CertId::new(responder.issuer(), &serial("Signer"), IdHash::Sha1);
        let single = Single {
            id: &id,
            status,
            this_update: NOW,
            next_update: None,
        };
        let prepared = responder.prepare(&[single], NOW, None).unwrap();
        let signature = self.issuing.key.sign(P256, prepared.to_sign());
        prepared.assemble(&signature).unwrap()
    }

    fn verdict(&self, at: UnixMillis, lists: &[&[u8]], responses: &[&[u8]]) -> Result<ValidPath, PathError> {
        let lists: Vec<_> = lists.iter().map(|der| Crl::parse(der).unwrap()).collect();
        let responses: Vec<_> = responses
            .iter()
            .map(|der| Response::parse(der).unwrap())
            .collect();
        let rules = PathRules {
            at,
            purposes: &[],
            policies: PolicyRules::default(),
            revocation: Some(Revocation {
                lists: &lists,
                responses: &responses,
                now: NOW,
            }),
        };
        let others = [&self.issuing.certificate];
        validate_path(
            &self.signer.certificate,
            &others,
            &[&self.root.certificate],
            &rules,
        )
    }
}

#[test]
fn the_revoked_are_found_in_lists_and_responses() {
    let pki = Revocable::new();
    let issuing_is_good = Revocable::list(&pki.root, None);
    let signer_is_good = Revocable::list(&pki.issuing, None);
    let lists = [&issuing_is_good[..], &signer_is_good];
    let valid = pki.verdict(NOW, &lists, &[]).unwrap();
    assert_eq!(valid.certificates.len(), 3);
    let signer = "CN=Signer,O=朱砂,C=CN".to_owned();
    let unknown = PathError::RevocationUnknown {
        subject: signer.clone(),
    };
    assert_eq!(pki.verdict(NOW, &lists[..1], &[]), Err(unknown.clone()));
    let since = UnixMillis(NOW.0 - 5000);
    let revoked = PathError::Revoked {
        subject: signer,
        at: since,
        reason: Reason::KeyCompromise,
    };
    let on_list = Revocable::list(&pki.issuing, Some((&serial("Signer"), since)));
    let lists = [&issuing_is_good[..], &on_list];
    assert_eq!(pki.verdict(NOW, &lists, &[]), Err(revoked.clone()));
    assert!(
        pki.verdict(UnixMillis(since.0 - 1000), &lists, &[]).is_ok(),
        "before it was revoked"
    );
    // A response says it too, and is newer than the list.
    let good = pki.response(Status::Good);
    assert!(pki.verdict(NOW, &lists[..1], &[&good]).is_ok());
    let bad = pki.response(Status::Revoked {
        at: since,
        reason: Reason::KeyCompromise,
    });
    assert_eq!(pki.verdict(NOW, &lists[..1], &[&bad]), Err(revoked));
    let nothing = pki.response(Status::Unknown);
    assert_eq!(pki.verdict(NOW, &lists[..1], &[&nothing]), Err(unknown));
    // The authority in between.
    let on_root_list = Revocable::list(&pki.root, Some((&serial("Issuing"), since)));
    let verdict = pki.verdict(NOW, &[&on_root_list, &signer_is_good], &[]);
    assert!(matches!(verdict, Err(PathError::Revoked { subject, .. }) if subject.starts_with("CN=Issuing")));
    // Somebody else's list of the same name.
    let impostor = Revocable::new();
    let foreign = Revocable::list(&impostor.issuing, None);
    let verdict = pki.verdict(NOW, &[&issuing_is_good, &foreign], &[]);
    assert!(matches!(verdict, Err(PathError::RevocationUnknown { .. })));
}

#[test]
fn a_mesh_of_certificates_costs_little() {
    // Authorities of one name and many keys, each of which certified all the others.
    let root = Holder::root(P256);
    let mesh: Vec<_> = (0..12).map(|_| root.issue("Mesh", P256, Profile::Root)).collect();
    let others: Vec<_> = mesh
        .iter()
        .flat_map(|issuer| {
            mesh.iter()
                .map(|subject| issuer.certify(&issuer.spec("Mesh", &subject.key, Profile::Root)))
        })
        .collect();
    let signer = mesh[0].signer(P256);
    let elsewhere = Holder::root(Algorithm::EcdsaP384Sha384);
    let rules = PathRules {
        at: NOW,
        purposes: &[],
        policies: PolicyRules::default(),
        revocation: None,
    };
    let verdict = validate_path(&signer.certificate, &others, &[&elsewhere.certificate], &rules);
    assert_eq!(verdict, Err(PathError::TooComplex));
    let verdict = validate_path(
        &signer.certificate,
        &[&mesh[0].certificate],
        &[&root.certificate],
        &rules,
    );
    assert!(verdict.is_ok());
}
