//! Revocation lists: made here and judged by OpenSSL, and the other way round.

use documents::crl::{Crl, Kind, PrepareError, ReadError, Reason, Revoked, Scope, Spec, prepare};
use documents::x509::Profile;
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use crate::profiles::terms;
use crate::support::{Bench, Holder, Key, NOW, kind_for, serial};

const P256: Algorithm = Algorithm::EcdsaP256Sha256;
const AT: &str = "-attime 1800000000";
const HOUR_MS: u64 = 3_600_000;

fn spec(issuer: &Holder, number: u64, kind: Kind) -> Spec<'_> {
    Spec {
        issuer: &issuer.certificate,
        number,
        kind,
        this_update: UnixMillis(NOW.0 - HOUR_MS),
        next_update: UnixMillis(NOW.0 + 24 * HOUR_MS),
        scope: None,
        delta_locations: Vec::new(),
    }
}

fn revoked(serial: &[u8], reason: Reason) -> Revoked<'_> {
    Revoked {
        serial,
        at: UnixMillis(NOW.0 - 2 * HOUR_MS),
        reason,
        invalid_since: None,
    }
}

fn issue(issuer: &Holder, spec: &Spec<'_>, list: &[Revoked<'_>]) -> Vec<u8> {
    let prepared = prepare(spec, list.iter().copied(), issuer.algorithm).unwrap();
    let signature = issuer.key.sign(issuer.algorithm, prepared.to_sign());
    prepared.assemble(&signature).unwrap()
}

#[test]
fn openssl_finds_the_revoked_and_only_them() {
    for algorithm in [
        P256,
        Algorithm::EcdsaP384Sha384,
        Algorithm::RsaPkcs1Sha256,
        Algorithm::Ed25519,
    ] {
        let root = Holder::root(algorithm);
        let good = root.issue("Good", P256, Profile::Signer);
        let bad = root.issue("Bad", P256, Profile::Signer);
        let bad_serial = serial("Bad");
        let list = issue(
            &root,
            &spec(&root, 7, Kind::Full),
            &[
                Revoked {
                    invalid_since: Some(UnixMillis(NOW.0 - 48 * HOUR_MS)),
                    ..revoked(&bad_serial, Reason::KeyCompromise)
                },
                revoked(&[0x80], Reason::Unspecified),
            ],
        );
        let bench = Bench::new();
        bench.write_pem("ca.pem", &root.certificate);
        bench.write_pem("good.pem", &good.certificate);
        bench.write_pem("bad.pem", &bad.certificate);
        bench.write("list.der", &list);
        bench
            .openssl("crl -inform DER -in list.der -out list.pem")
            .accepted();
        bench
            .openssl("crl -inform DER -in list.der -CAfile ca.pem -noout")
            .accepted();
        let verify = format!("verify {AT} -x509_strict -crl_check -CAfile ca.pem -CRLfile list.pem");
        bench.openssl(&format!("{verify} good.pem")).accepted();
        bench
            .openssl(&format!("{verify} bad.pem"))
            .refused("certificate revoked");
        let shown = bench.openssl("crl -inform DER -in list.der -noout -text").text;
        for expected in [
            "X509v3 CRL Number: \n                7",
            "Key Compromise",
            "Invalidity Date",
            "Serial Number: 80\n",
        ] {
            assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
        }
        let ours = Crl::parse(&list).unwrap();
        assert_eq!(ours.verify(&root.certificate), Ok(()), "{algorithm}");
        let entry = ours.find(&bad_serial).unwrap();
        assert_eq!(entry.reason, Reason::KeyCompromise);
        assert_eq!(entry.at, UnixMillis(NOW.0 - 2 * HOUR_MS));
        assert_eq!(entry.invalid_since, Some(UnixMillis(NOW.0 - 48 * HOUR_MS)));
        assert_eq!(ours.find(&[0, 0x80]).unwrap().reason, Reason::Unspecified);
        assert_eq!(ours.find(&serial("Good")), None);
        assert_eq!((ours.number(), ours.base_number()), (Some(&[7][..]), None));
    }
}

#[test]
fn openssl_takes_deltas_into_account() {
    let root = Holder::root(P256);
    let mut subjects = Vec::new();
    for name in ["Held", "New"] {
        let plan = documents::x509::Spec {
            terms: terms(),
            ..root.spec(name, &Key::signer(kind_for(P256)), Profile::Signer)
        };
        subjects.push((name, root.certify(&plan)));
    }
    let (held, new) = (serial("Held"), serial("New"));
    let full = Spec {
        delta_locations: terms().delta_crl,
        ..spec(&root, 20, Kind::Full)
    };
    let full = issue(&root, &full, &[revoked(&held, Reason::CertificateHold)]);
    let delta = issue(
        &root,
        &spec(&root, 21, Kind::Delta { base: 20 }),
        &[
            revoked(&held, Reason::RemoveFromCrl),
            revoked(&new, Reason::Superseded),
        ],
    );
    let bench = Bench::new();
    bench.write_pem("ca.pem", &root.certificate);
    bench.write("full.der", &full);
    bench.write("delta.der", &delta);
    for name in ["full", "delta"] {
        bench
            .openssl(&format!("crl -inform DER -in {name}.der -out {name}.pem"))
            .accepted();
    }
    let both = [bench.read("full.pem"), bench.read("delta.pem")].concat();
    bench.write("both.pem", &both);
    for (name, certificate) in &subjects {
        bench.write_pem(&format!("{name}.pem"), certificate);
    }
    let verify = format!("verify {AT} -crl_check -CAfile ca.pem");
    let with_full = format!("{verify} -CRLfile full.pem");
    bench
        .openssl(&format!("{with_full} Held.pem"))
        .refused("certificate revoked");
    bench.openssl(&format!("{with_full} New.pem")).accepted();
    let with_both = format!("{verify} -use_deltas -CRLfile both.pem");
    bench.openssl(&format!("{with_both} Held.pem")).accepted();
    bench
        .openssl(&format!("{with_both} New.pem"))
        .refused("certificate revoked");
    let read = Crl::parse(&delta).unwrap();
    assert_eq!(
        (read.number(), read.base_number()),
        (Some(&[21][..]), Some(&[20][..]))
    );
}

#[test]
fn a_list_of_a_scope_says_so() {
    let root = Holder::root(P256);
    let scoped = Spec {
        scope: Some(Scope {
            locations: terms().crl,
            only_subjects: true,
            only_authorities: false,
        }),
        ..spec(&root, 1, Kind::Full)
    };
    let bench = Bench::new();
    bench.write("list.der", &issue(&root, &scoped, &[]));
    let shown = bench.openssl("crl -inform DER -in list.der -noout -text").text;
    for expected in [
        "X509v3 Issuing Distribution Point: critical",
        "URI:http://pki.example/crl/issuing.crl",
        "Only User Certificates",
        "No Revoked Certificates.",
    ] {
        assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
    }
}

#[test]
fn an_sm2_list_is_signed_over_z() {
    let root = Holder::root(Algorithm::Sm2Sm3E);
    let plan = spec(&root, 1, Kind::Full);
    let prepared = prepare(&plan, [revoked(&[5], Reason::Superseded)], root.algorithm).unwrap();
    let bench = Bench::new();
    bench.write("tbs.der", prepared.tbs());
    bench.write("key.der", &root.key.public());
    let signature = root.key.sign(root.algorithm, prepared.to_sign());
    bench.write("signature.der", &signature);
    bench
        .openssl(
            "pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -digest sm3 -in tbs.der -sigfile \
             signature.der -pkeyopt distid:1234567812345678",
        )
        .accepted();
    let list = prepared.assemble(&signature).unwrap();
    assert_eq!(Crl::parse(&list).unwrap().verify(&root.certificate), Ok(()));
}

#[test]
fn fifty_thousand_are_found_one_by_one() {
    let root = Holder::root(P256);
    let serials: Vec<_> = (0_u64..50_000)
        .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes())
        .map(|bytes| [&[0x40; 8][..], &bytes].concat())
        .collect();
    let list: Vec<_> = serials
        .iter()
        .map(|serial| revoked(serial, Reason::Superseded))
        .collect();
    let list = issue(&root, &spec(&root, 1, Kind::Full), &list);
    let read = Crl::parse(&list).unwrap();
    assert_eq!(read.verify(&root.certificate), Ok(()));
    assert_eq!(read.entries().len(), 50_000);
    assert!(serials.iter().all(|serial| read.find(serial).is_some()));
    assert_eq!(read.find(&[0x40; 16]), None);
}

#[test]
fn lists_that_cannot_be_made() {
    let root = Holder::root(P256);
    let signer = root.signer(P256);
    let refused =
        |spec: &Spec<'_>, list: &[Revoked<'_>]| prepare(spec, list.iter().copied(), P256).unwrap_err();
    let good = spec(&root, 5, Kind::Full);
    let one = revoked(&[1], Reason::Unspecified);
    assert_eq!(refused(&good, &[one, one]), PrepareError::Twice);
    let padded = revoked(&[0, 1], Reason::Superseded);
    assert_eq!(refused(&good, &[one, padded]), PrepareError::Twice);
    assert_eq!(
        refused(&good, &[revoked(&[0], Reason::Superseded)]),
        PrepareError::Serial
    );
    assert_eq!(
        refused(&good, &[revoked(&[1; 21], Reason::Superseded)]),
        PrepareError::Serial
    );
    assert_eq!(
        refused(&good, &[revoked(&[1], Reason::RemoveFromCrl)]),
        PrepareError::Removal
    );
    assert_eq!(
        refused(&spec(&root, 5, Kind::Delta { base: 5 }), &[]),
        PrepareError::Base
    );
    assert_eq!(
        refused(&spec(&signer, 5, Kind::Full), &[]),
        PrepareError::NotForLists
    );
    let endless = Spec {
        next_update: good.this_update,
        ..good.clone()
    };
    assert_eq!(refused(&endless, &[]), PrepareError::Updates);
    let nobody = Spec {
        scope: Some(Scope {
            locations: Vec::new(),
            only_subjects: true,
            only_authorities: true,
        }),
        ..good.clone()
    };
    assert_eq!(refused(&nobody, &[]), PrepareError::Scope);
    let other = prepare(&good, [one], Algorithm::Ed25519).unwrap_err();
    assert_eq!(other, PrepareError::Algorithm(Algorithm::Ed25519));
}

#[test]
fn a_list_that_was_tampered_with_does_not_hold() {
    let root = Holder::root(P256);
    let impostor = Holder::root(P256);
    let other = Holder::root_for(P256, Profile::Root);
    let list = issue(
        &root,
        &spec(&root, 1, Kind::Full),
        &[revoked(&[9; 9], Reason::Superseded)],
    );
    let verdict =
        |list: &[u8], issuer: &Holder| Crl::parse(list).and_then(|crl| crl.verify(&issuer.certificate));
    assert_eq!(verdict(&list, &root), Ok(()));
    assert!(matches!(verdict(&list, &impostor), Err(ReadError::Signature(_))));
    assert!(matches!(verdict(&list, &other), Err(ReadError::Signature(_))));
    let subject = root.issue("Other", P256, Profile::Root);
    assert_eq!(verdict(&list, &subject), Err(ReadError::IssuerName));
    for bit in 0..list.len() * 8 {
        let mut flipped = list.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verdict(&flipped, &root).is_err(), "bit {bit}");
    }
    for length in 0..list.len() {
        assert!(Crl::parse(&list[..length]).is_err());
    }
    let crl = Crl::parse(&list).unwrap();
    assert!(crl.is_current(NOW));
    assert!(!crl.is_current(UnixMillis(NOW.0 + 25 * HOUR_MS)));
    assert!(!crl.is_current(UnixMillis(NOW.0 - 2 * HOUR_MS)));
}
