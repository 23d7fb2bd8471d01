//! Verification step by step: each fault is named by the step that finds it.

use documents::ses::{
    Allowed, Anchors, CertificateFault, Generation, Policy, Revocation, SealFault, SealSpec, SignatureFault,
    TimeSource, TimeStampFault, Trust, prepare_seal, prepare_signature, verify_seal, verify_signature,
};
use documents::tsp::{Request, token_of};
use documents::x509::{PathError, Profile};
use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::UnixMillis;

use super::support::{DAY, Parties, holder_valid};
use crate::support::{NOT_BEFORE, NOW};
use crate::tsp::Tsa;

const HASH: [u8; 32] = [7; 32];

/// Somebody who knows more than anchors: revocations, and a time stamp authority whose tokens are the words
/// `stamp` and the number of milliseconds, over a signature that is not looked at.
struct Knowing {
    anchors: Anchors,
    revoked: Vec<(Vec<u8>, UnixMillis)>,
}

impl Trust for Knowing {
    fn path(&self, certificate: &[u8], at: UnixMillis) -> Result<(), PathError> {
        self.anchors.path(certificate, at)
    }

    fn revocation(&self, certificate: &[u8], _at: UnixMillis) -> Revocation {
        let found = self.revoked.iter().find(|(revoked, _)| revoked == certificate);
        found.map_or(Revocation::Good, |(_, since)| Revocation::Since(*since))
    }

    fn time_stamp(&self, token: &[u8], _stamped: &[u8]) -> Result<UnixMillis, TimeStampFault> {
        let text = std::str::from_utf8(token).unwrap();
        let number = text.strip_prefix("stamp ").and_then(|number| number.parse().ok());
        number
            .map(UnixMillis)
            .ok_or_else(|| TimeStampFault::Refused("no stamp".into()))
    }
}

fn knowing(parties: &Parties, revoked: &[(&[u8], u64)]) -> Knowing {
    Knowing {
        anchors: parties.trust(),
        revoked: revoked
            .iter()
            .map(|(certificate, at)| (certificate.to_vec(), UnixMillis(*at)))
            .collect(),
    }
}

#[test]
fn seals_of_both_kinds_of_list_hold() {
    let parties = Parties::new();
    let digests = Allowed::Digests(vec![parties.signer.certificate.clone()]);
    for allowed in [parties.spec().allowed, digests] {
        let seal = parties.seal_of(&SealSpec {
            allowed,
            ..parties.spec()
        });
        let report = verify_seal(&seal, &parties.trust(), Policy::default(), NOW).unwrap();
        assert_eq!(
            (report.name.as_str(), report.generation),
            ("朱砂科技有限公司", Generation::V4)
        );
        assert!(report.maker.contains("Seal Maker"), "{}", report.maker);
        let signature = parties.signature(&seal);
        let report = verify_signature(&signature, &HASH, &parties.trust(), Policy::default(), NOW).unwrap();
        assert!(
            report.signer.contains("Sealer") && report.signed_ms == NOW.0,
            "{report:?}"
        );
        assert_eq!(report.time_source, TimeSource::Claimed);
        assert_eq!(
            report.warnings.len(),
            2,
            "unproved time, unknown revocation: {:?}",
            report.warnings
        );
    }
}

#[test]
fn a_seal_is_judged_in_steps() {
    let parties = Parties::new();
    let seal = parties.seal();
    let verify = |trust: &dyn Trust, at: u64| verify_seal(&seal, trust, Policy::default(), UnixMillis(at));
    let trust = parties.trust();
    assert_eq!(verify(&trust, NOW.0 + 301 * DAY), Err(SealFault::NotValidThen));
    assert_eq!(verify(&trust, NOW.0 - 31 * DAY), Err(SealFault::NotValidThen));
    let nobody = Anchors::default();
    let fault = SealFault::MakerCertificate(CertificateFault::Path(PathError::NoTrustAnchor));
    assert_eq!(verify(&nobody, NOW.0), Err(fault));
    let before = knowing(&parties, &[(&parties.maker.certificate, NOW.0 - 40 * DAY)]);
    let fault = SealFault::MakerCertificate(CertificateFault::RevokedBefore);
    assert_eq!(verify(&before, NOW.0), Err(fault));
    let after = knowing(&parties, &[(&parties.maker.certificate, NOW.0 - DAY)]);
    let report = verify(&after, NOW.0).unwrap();
    assert_eq!(
        report.warnings,
        ["the seal maker's certificate was revoked later"]
    );
}

#[test]
fn a_seal_outlives_its_makers_certificate_with_a_warning() {
    let mut parties = Parties::new();
    let validity = (NOT_BEFORE, UnixMillis(NOW.0 - DAY));
    parties.maker = holder_valid(&parties.root, "Seal Maker", 3, Profile::Signer, validity);
    let report = verify_seal(&parties.seal(), &knowing(&parties, &[]), Policy::default(), NOW).unwrap();
    assert_eq!(
        report.warnings,
        ["the seal maker's certificate has expired since"]
    );
}

#[test]
fn a_signature_is_judged_in_steps() {
    let parties = Parties::new();
    let signature = parties.signature(&parties.seal());
    let verify = |trust: &dyn Trust, hash: &[u8], now| {
        verify_signature(&signature, hash, trust, Policy::default(), UnixMillis(now))
    };
    let trust = parties.trust();
    assert_eq!(verify(&trust, &[8; 32], NOW.0), Err(SignatureFault::DataHash));
    assert_eq!(verify(&trust, &HASH, NOW.0 - DAY), Err(SignatureFault::InFuture));
    let before = knowing(&parties, &[(&parties.signer.certificate, NOW.0 - 1)]);
    let fault = SignatureFault::SignerCertificate(CertificateFault::RevokedBefore);
    assert_eq!(verify(&before, &HASH, NOW.0), Err(fault));
    let after = knowing(&parties, &[(&parties.signer.certificate, NOW.0 + 1)]);
    assert!(
        verify(&after, &HASH, NOW.0 + DAY)
            .unwrap()
            .warnings
            .iter()
            .any(|text| text.contains("revoked later"))
    );
    // Long after seal and certificates have expired, it was still valid when it was made.
    let report = verify(&trust, &HASH, NOW.0 + 20_000 * DAY).unwrap();
    assert!(
        report.warnings.iter().any(|text| text.contains("expired since")),
        "{report:?}"
    );
}

#[test]
fn a_seal_does_not_serve_others() {
    let parties = Parties::new();
    let signature = parties.signature(&parties.seal());
    // The signer's certificate is not in this seal; only prepare would have refused it.
    let mut other = Parties::new();
    other.signer = holder_valid(
        &other.root,
        "Else",
        6,
        Profile::Signer,
        (NOT_BEFORE, UnixMillis(NOW.0 + DAY)),
    );
    let foreign_seal = other.seal();
    let tbs = prepare_signature(&parties.request(&parties.seal()))
        .unwrap()
        .message()
        .to_vec();
    let forged = super::support_swap(&tbs, &parties.seal(), &foreign_seal);
    let value = parties.signer.key.sign(Algorithm::Sm2Sm3, &forged);
    let forged = super::support_signature(&forged, &parties.signer.certificate, &value);
    let verdict = verify_signature(&forged, &HASH, &parties.trust(), Policy::default(), NOW);
    assert_eq!(verdict, Err(SignatureFault::NotAllowed));
    assert!(verify_signature(&signature, &HASH, &parties.trust(), Policy::default(), NOW).is_ok());
}

#[test]
fn a_time_stamp_says_when() {
    let parties = Parties::new();
    let seal = parties.seal();
    let stamped = |token: &str| {
        let prepared = prepare_signature(&parties.request(&seal)).unwrap();
        let value = parties.signer.key.sign(Algorithm::Sm2Sm3E, &prepared.e());
        let signature = prepared.assemble(&value, Some(token.as_bytes())).unwrap();
        verify_signature(
            &signature,
            &HASH,
            &knowing(&parties, &[]),
            Policy::default(),
            UnixMillis(NOW.0 + DAY),
        )
    };
    let report = stamped(&format!("stamp {}", NOW.0 + 1000)).unwrap();
    assert_eq!(
        (report.signed_ms, report.time_source),
        (NOW.0 + 1000, TimeSource::TimeStamp)
    );
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(
        stamped(&format!("stamp {}", NOW.0 - DAY)),
        Err(SignatureFault::StampedBefore)
    );
    assert!(matches!(
        stamped("nonsense"),
        Err(SignatureFault::TimeStamp(TimeStampFault::Refused(_)))
    ));
}

/// A real token, over the signature's bytes, by an authority that is believed.
#[test]
fn a_token_of_an_authority_proves_the_signing_time() {
    let parties = Parties::new();
    let seal = parties.seal();
    for algorithm in [Algorithm::EcdsaP256Sha256, Algorithm::Sm2Sm3E] {
        let tsa = Tsa::new(algorithm);
        let mut trust = parties.trust();
        let prepared = prepare_signature(&parties.request(&seal)).unwrap();
        let value = parties.signer.key.sign(Algorithm::Sm2Sm3E, &prepared.e());
        let token_over = |stamped: &[u8]| {
            let request = Request::new(Hash::Sm3, &Hash::Sm3.digest(stamped), &[]).unwrap();
            token_of(&tsa.respond(&request, &[1])).unwrap().to_vec()
        };
        let stamped = prepared
            .clone()
            .assemble(&value, Some(&token_over(&value)))
            .unwrap();
        let other = prepared
            .assemble(&value, Some(&token_over(b"something else")))
            .unwrap();
        let now = UnixMillis(NOW.0 + DAY);
        let verify = |trust: &Anchors, signature: &[u8]| {
            verify_signature(signature, &HASH, trust, Policy::default(), now)
        };
        let refused = |verdict| {
            matches!(
                verdict,
                Err(SignatureFault::TimeStamp(TimeStampFault::Refused(_)))
            )
        };
        assert!(
            refused(verify(&trust, &stamped)),
            "an authority that nobody knows"
        );
        trust.anchors.push(tsa.root.certificate.clone());
        let report = verify(&trust, &stamped).unwrap();
        assert_eq!(
            (report.signed_ms, report.time_source),
            (NOW.0, TimeSource::TimeStamp)
        );
        assert!(refused(verify(&trust, &other)), "a token over something else");
    }
}

#[test]
fn the_time_stamp_of_a_seal_is_looked_at() {
    let parties = Parties::new();
    let spec = SealSpec {
        generation: Generation::V5,
        ..parties.spec()
    };
    let stamped = |at: u64| {
        let prepared = prepare_seal(&spec, &parties.maker.certificate).unwrap();
        let value = parties.maker.key.sign(Algorithm::Sm2Sm3, prepared.message());
        let seal = prepared
            .assemble(&value, Some(format!("stamp {at}").as_bytes()))
            .unwrap();
        verify_seal(&seal, &knowing(&parties, &[]), Policy::default(), NOW)
    };
    assert!(stamped(spec.created.0).is_ok());
    assert_eq!(stamped(spec.created.0 - 1000), Err(SealFault::StampedBefore));
}

#[test]
fn raw_pairs_are_a_matter_of_policy() {
    let parties = Parties::new();
    let tbs = prepare_signature(&parties.request(&parties.seal()))
        .unwrap()
        .message()
        .to_vec();
    let value = parties.signer.key.sign(Algorithm::Sm2Sm3, &tbs);
    let pair = protocol::verify::der_to_pair(&value, 32).unwrap();
    let signature = super::support_signature(&tbs, &parties.signer.certificate, &pair);
    let verify = |policy| verify_signature(&signature, &HASH, &parties.trust(), policy, NOW);
    assert_eq!(verify(Policy::default()), Err(SignatureFault::SignerSignature));
    assert!(
        verify(Policy {
            accept_raw_pairs: true,
            ..Policy::default()
        })
        .is_ok()
    );
}
