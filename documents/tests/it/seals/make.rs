//! What we make, and what the judges say of it; what we refuse to make.

use documents::ses::{
    Allowed, AssembleError, Generation, Holders, PrepareError, Seal, SealSpec, SealSpecError, Signature,
    SignatureRequest, SignerError, TimeInfo, prepare_seal, prepare_signature,
};
use documents::x509::Profile;
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use super::support::{DAY, PNG, Parties, gmssl_accepts, holder, judge};
use crate::support::{Bench, Holder, NOW};

#[test]
fn a_seal_reads_back_as_it_was_specified() {
    let parties = Parties::new();
    let der = parties.seal();
    let seal = Seal::read(&der).unwrap();
    let spec = parties.spec();
    assert_eq!(
        (seal.generation, seal.id, seal.name),
        (Generation::V4, spec.id, spec.name)
    );
    assert_eq!(
        (seal.vendor, seal.kind, seal.created, seal.validity),
        (spec.vendor, 1, spec.created, spec.validity)
    );
    assert_eq!(
        seal.holders,
        Holders::Certificates(vec![&parties.signer.certificate])
    );
    assert_eq!((seal.picture.data, seal.picture.width_mm), (PNG, 42));
    assert!(seal.extensions.is_empty() && seal.time_stamp.is_none());
}

#[test]
fn the_judges_accept_our_seals() {
    let parties = Parties::new();
    let bench = Bench::new();
    let digests = SealSpec {
        allowed: Allowed::Digests(vec![parties.signer.certificate.clone()]),
        generation: Generation::V5,
        ..parties.spec()
    };
    for spec in [parties.spec(), digests] {
        let prepared = prepare_seal(&spec, &parties.maker.certificate).unwrap();
        let signature = parties.maker.key.sign(Algorithm::Sm2Sm3E, &prepared.e());
        assert!(gmssl_accepts(
            &parties.maker.certificate,
            prepared.message(),
            &signature
        ));
        let file = bench.write("seal.esl", &prepared.assemble(&signature, None).unwrap());
        let verdict = judge("seal_check.py", &[&file]);
        assert!(verdict.contains("seal sig: OK[info,z=True]"), "{verdict}");
    }
}

#[test]
fn gmssl_refuses_what_was_changed() {
    let parties = Parties::new();
    let prepared = prepare_seal(&parties.spec(), &parties.maker.certificate).unwrap();
    let signature = parties.maker.key.sign(Algorithm::Sm2Sm3, prepared.message());
    let changed = [prepared.message(), b"x"].concat();
    assert!(!gmssl_accepts(&parties.maker.certificate, &changed, &signature));
}

type Change<'a> = &'a dyn Fn(&mut SealSpec);

#[test]
fn seals_that_make_no_sense_are_not_made() {
    let parties = Parties::new();
    let good = parties.spec();
    let broken: [(&str, Change<'_>); 8] = [
        ("code", &|spec| spec.id.clear()),
        ("ASCII", &|spec| spec.id = "印章".into()),
        ("name", &|spec| spec.name.clear()),
        ("certificate that may use it", &|spec| {
            spec.allowed = Allowed::Digests(vec![]);
        }),
        ("a holder's certificate", &|spec| {
            spec.allowed = Allowed::Certificates(vec![vec![0x30, 0]]);
        }),
        ("end after it begins", &|spec| spec.validity.1 = spec.validity.0),
        ("mm wide", &|spec| spec.picture.width_mm = 0),
        ("only", &|spec| spec.generation = Generation::V1),
    ];
    for (words, change) in broken {
        let mut spec = good.clone();
        change(&mut spec);
        let error = prepare_seal(&spec, &parties.maker.certificate)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn makers_need_an_sm2_certificate_for_signing() {
    let parties = Parties::new();
    let p256 = Holder::root(Algorithm::EcdsaP256Sha256);
    let refused = |certificate: &[u8]| prepare_seal(&parties.spec(), certificate).unwrap_err();
    assert_eq!(
        refused(&p256.certificate),
        SealSpecError::Maker(SignerError::NotSm2)
    );
    assert_eq!(
        refused(&parties.root.certificate),
        SealSpecError::Maker(SignerError::KeyUsage)
    );
    assert!(matches!(
        refused(b"x"),
        SealSpecError::Maker(SignerError::Unreadable(_))
    ));
}

#[test]
fn a_signature_reads_back_and_the_judges_accept_it() {
    let parties = Parties::new();
    let seal = parties.seal();
    let der = parties.signature(&seal);
    let signature = Signature::read(&der).unwrap();
    assert_eq!(signature.seal.der(), &seal[..], "the seal goes in byte for byte");
    assert_eq!(signature.time, TimeInfo::Claimed(NOW));
    assert_eq!(
        (signature.data_hash, &signature.property_info[..12]),
        (&[7; 32][..], "/Doc_0/Signs")
    );
    let prepared = prepare_signature(&parties.request(&seal)).unwrap();
    assert!(gmssl_accepts(
        &parties.signer.certificate,
        prepared.message(),
        signature.value
    ));
}

#[test]
fn signing_is_refused_in_the_order_of_the_standard() {
    let parties = Parties::new();
    let seal = parties.seal();
    let good = parties.request(&seal);
    let refused = |request: SignatureRequest<'_>| prepare_signature(&request).unwrap_err();
    let late = UnixMillis(NOW.0 + 301 * DAY);
    assert_eq!(
        refused(SignatureRequest { at: late, ..good }),
        PrepareError::SealNotValidThen
    );
    let root = &parties.root.certificate;
    let not_for_signing = SignatureRequest {
        certificate: root,
        ..good
    };
    assert_eq!(
        refused(not_for_signing),
        PrepareError::Signer(SignerError::KeyUsage)
    );
    let stranger = holder(&parties.root, "Stranger", 5, Profile::Signer);
    let not_allowed = SignatureRequest {
        certificate: &stranger.certificate,
        ..good
    };
    assert_eq!(refused(not_allowed), PrepareError::NotAllowed);
    assert_eq!(
        refused(SignatureRequest {
            property_info: "/文档",
            ..good
        }),
        PrepareError::PropertyInfo
    );
    let mut forged = seal.clone();
    let at = forged
        .windows(6)
        .position(|window| window == "朱砂".as_bytes())
        .unwrap();
    forged[at] ^= 1;
    let forged = prepare_signature(&SignatureRequest {
        seal: &forged,
        ..good
    })
    .unwrap_err();
    assert!(
        matches!(forged, PrepareError::MakerSignature | PrepareError::Seal(_)),
        "{forged}"
    );
}

#[test]
fn signatures_must_be_der_and_time_stamps_have_their_place() {
    let parties = Parties::new();
    let prepared = prepare_seal(&parties.spec(), &parties.maker.certificate).unwrap();
    assert_eq!(
        prepared.clone().assemble(&[1; 64], None),
        Err(AssembleError::Signature)
    );
    let signature = parties.maker.key.sign(Algorithm::Sm2Sm3, prepared.message());
    assert_eq!(
        prepared.assemble(&signature, Some(b"token")),
        Err(AssembleError::TimeStamp)
    );
    let later = SealSpec {
        generation: Generation::V5,
        ..parties.spec()
    };
    let prepared = prepare_seal(&later, &parties.maker.certificate).unwrap();
    let signature = parties.maker.key.sign(Algorithm::Sm2Sm3, prepared.message());
    let seal = prepared.assemble(&signature, Some(b"token")).unwrap();
    assert_eq!(Seal::read(&seal).unwrap().time_stamp, Some(&b"token"[..]));
}
