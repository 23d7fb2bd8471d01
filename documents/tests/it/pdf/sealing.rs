//! Whole sealings of PDFs: an order, answers, a document of every level; what strangers say of it; and what brings a
//! sealing to an end.

use documents::crl::{self, Reason, Revoked};
use documents::pdf::{ChangeKind, Placement, Position, RevocationStatus, Unit, Verdict, verify, verify_with};
use documents::sealing::{
    Answer, Appearance, Evidence, EvidenceError, Form, Level, Octets, Order, Paused, PausedError, Sealing,
    SealingError, Signer, Step,
};
use documents::trust::{Known, RevocationRule};
use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::{self, UnixMillis};

use super::fixture;
use super::judge::{Picture, pdfsig, pyhanko_at, pyhanko_long_term, qpdf_accepts};
use super::level::Authority;
use super::verify::is_valid;
use crate::seals::support::{Parties, judge};
use crate::support::{Bench, Holder, serial};

const P256: Algorithm = Algorithm::EcdsaP256Sha256;
const DAY_MS: u64 = 86_400_000;

/// A root with a signer below it, an authority for time stamps, and the root's list. All of it is of today: OpenSSL
/// stamps at the machine's time.
struct Stage {
    root: Holder,
    holder: Holder,
    authority: Authority,
    now: UnixMillis,
}

impl Stage {
    fn new(algorithm: Algorithm) -> Self {
        let root = Holder::root(P256);
        let holder = root.signer(algorithm);
        Self {
            root,
            holder,
            authority: Authority::new(),
            now: clock::wall(),
        }
    }

    fn signer(&self) -> Signer {
        Signer {
            algorithm: self.holder.algorithm,
            chain: vec![self.holder.certificate.clone().into()],
            seal: None,
        }
    }

    fn order(&self, level: Level) -> Order {
        let mut order = Order::new(Form::Pdf, self.signer(), self.now);
        order.level = level;
        order
    }

    /// The root's list, current for a month around `at`.
    fn list(&self, at: UnixMillis, revoked: &[(u64, Reason)]) -> Vec<u8> {
        let spec = crl::Spec {
            issuer: &self.root.certificate,
            number: 7,
            kind: crl::Kind::Full,
            this_update: UnixMillis(at.0 - DAY_MS),
            next_update: UnixMillis(at.0 + 30 * DAY_MS),
            scope: None,
            delta_locations: Vec::new(),
        };
        let name = serial("Signer");
        let revoked = revoked.iter().map(|(at, reason)| Revoked {
            serial: &name,
            at: UnixMillis(*at),
            reason: *reason,
            invalid_since: None,
        });
        let prepared = crl::prepare(&spec, revoked, self.root.algorithm).unwrap();
        let signature = self.root.key.sign(self.root.algorithm, prepared.to_sign());
        prepared.assemble(&signature).unwrap()
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            certificates: vec![self.root.certificate.clone().into()],
            crls: vec![self.list(self.now, &[]).into()],
            ocsps: Vec::new(),
            at_ms: clock::wall().0,
        }
    }

    fn answer(&self, step: &Step) -> Option<Answer> {
        match step {
            Step::Sign { algorithm, input, .. } => Some(Answer::Signature(
                self.holder.key.sign(*algorithm, &input.0).into(),
            )),
            Step::Stamp { hash, imprint } => {
                Some(Answer::Token(self.authority.stamp(*hash, &imprint.0).into()))
            }
            Step::Evidence(_) => Some(Answer::Evidence(self.evidence())),
            Step::Done => None,
        }
    }

    /// The whole way, and the answers on it.
    fn seal(&self, pdf: &[u8], order: &Order) -> (Vec<u8>, Vec<Answer>) {
        let mut sealing = Sealing::start(pdf.to_vec(), order.clone()).unwrap();
        let mut answers = Vec::new();
        while let Some(answer) = self.answer(&sealing.step()) {
            sealing = sealing.answer(&answer).unwrap();
            answers.push(answer);
        }
        (sealing.finish().unwrap(), answers)
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        vec![self.root.certificate.clone(), self.authority.certificate.clone()]
    }

    fn known(&self, revocation: RevocationRule) -> Known {
        Known {
            anchors: self.roots(),
            revocation,
            ..Known::default()
        }
    }
}

#[test]
fn strangers_accept_every_level() {
    for (algorithm, name) in [(P256, "reportlab"), (Algorithm::RsaPssSha256, "latex")] {
        let stage = Stage::new(algorithm);
        let original = fixture(name);
        for level in [Level::BB, Level::BT, Level::BLt, Level::BLta] {
            let (pdf, answers) = stage.seal(&original, &stage.order(level));
            let expected = match level {
                Level::BB => 1,
                Level::BT => 2,
                Level::BLt => 3,
                Level::BLta => 4,
            };
            assert_eq!(answers.len(), expected, "{level:?}");
            assert!(pdf.starts_with(&original));
            qpdf_accepts(&pdf);
            assert!(pdfsig(&pdf).contains("Signature is Valid."), "{level:?}");
            let judged = pyhanko_at(&pdf, &stage.roots().concat(), clock::wall());
            assert!(judged[0].contains("bottom_line=True"), "{level:?}: {judged:?}");
            assert_eq!(
                judged[0].contains("stamp=True"),
                level > Level::BB,
                "{level:?}: {judged:?}"
            );
            let long_term = pyhanko_long_term(&pdf, &stage.roots().concat());
            match level {
                Level::BB | Level::BT => assert!(!long_term.contains("AdESPassed.OK"), "{long_term}"),
                Level::BLt => {}
                Level::BLta => assert!(long_term.contains("AdESPassed.OK"), "{long_term}"),
            }
            let report = verify(&pdf, &stage.roots(), clock::wall()).unwrap();
            report.signatures.iter().for_each(is_valid);
        }
    }
}

#[test]
fn revocation_counts_from_the_document_and_from_outside() {
    let stage = Stage::new(P256);
    let original = fixture("reportlab");
    let required = stage.known(RevocationRule::Required);
    let (plain, _) = stage.seal(&original, &stage.order(Level::BB));
    let verdict = |pdf: &[u8], known: &Known, at: UnixMillis| {
        let report = verify_with(pdf, known, at).unwrap();
        (report.signatures[0].verdict, report.signatures[0].revocation)
    };
    let now = clock::wall();
    assert_eq!(
        verdict(&plain, &required, now),
        (Verdict::Indeterminate, RevocationStatus::Unknown)
    );
    assert_eq!(
        verdict(&plain, &stage.known(RevocationRule::IfKnown), now),
        (Verdict::Valid, RevocationStatus::Unknown)
    );
    let with = |list: Vec<u8>| Known {
        crls: vec![list],
        ..required.clone()
    };
    let good = with(stage.list(now, &[]));
    assert_eq!(
        verdict(&plain, &good, now),
        (Verdict::Valid, RevocationStatus::Good)
    );
    let revoked = with(stage.list(now, &[(now.0 - DAY_MS, Reason::KeyCompromise)]));
    assert_eq!(
        verdict(&plain, &revoked, now),
        (Verdict::Invalid, RevocationStatus::Revoked)
    );
    // What the document holds is enough, also when everything else has expired.
    let later = UnixMillis(crate::support::NOT_AFTER.0 - 1);
    for level in [Level::BLt, Level::BLta] {
        let (long, _) = stage.seal(&original, &stage.order(level));
        assert_eq!(
            verdict(&long, &required, later),
            (Verdict::Valid, RevocationStatus::Good)
        );
    }
    // A signature that is proved to be older than the revocation stays good; one that is not does not.
    let (stamped, _) = stage.seal(&original, &stage.order(Level::BT));
    let tomorrow = UnixMillis(now.0 + DAY_MS);
    let since = with(stage.list(tomorrow, &[(now.0 + DAY_MS / 2, Reason::Superseded)]));
    assert_eq!(
        verdict(&stamped, &since, tomorrow),
        (Verdict::Valid, RevocationStatus::Good)
    );
    assert_eq!(
        verdict(&plain, &since, tomorrow),
        (Verdict::Invalid, RevocationStatus::Revoked)
    );
}

#[test]
fn a_list_from_before_the_signature_does_not_speak_for_it_later() {
    let stage = Stage::new(P256);
    let (plain, _) = stage.seal(&fixture("reportlab"), &stage.order(Level::BB));
    let old = stage.list(UnixMillis(stage.now.0 - 60 * DAY_MS), &[]);
    let known = Known {
        crls: vec![old],
        ..stage.known(RevocationRule::Required)
    };
    let report = verify_with(&plain, &known, clock::wall()).unwrap();
    assert_eq!(report.signatures[0].revocation, RevocationStatus::Unknown);
}

#[test]
fn a_sealing_goes_on_in_another_process_byte_for_byte() {
    let stage = Stage::new(P256);
    let original = fixture("latex");
    let mut order = stage.order(Level::BLta);
    order.reason = Some("同意".into());
    order.appearance = Some(Appearance {
        picture: Some(super::png(40, &[200; 40 * 40 * 4]).into()),
        placement: Placement::At(
            documents::pdf::PageNumber::Last,
            Position {
                // Numbers that are not the same in every way of writing them.
                x: 0.1 + 0.2,
                y: 1.0 / 3.0,
                unit: Unit::Fraction,
                ..Position::default()
            },
        ),
    });
    let (mut paused, _) = Paused::start(original.clone(), &order).unwrap();
    let mut answers = Vec::new();
    while let Some(answer) = stage.answer(paused.step()) {
        paused.add(answer.clone());
        answers.push(answer);
        let text = serde_json::to_string(&paused).unwrap();
        paused = serde_json::from_str(&text).unwrap();
        paused.resume(original.clone()).unwrap();
    }
    let pdf = paused.resume(original.clone()).unwrap().finish().unwrap();
    report_is_valid(&stage, &pdf);
    let replayed = Sealing::replay(original, order, &answers)
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(replayed, pdf);
    let other = paused.resume(fixture("reportlab")).err().unwrap();
    assert_eq!(other, PausedError::OtherDocument);
}

fn report_is_valid(stage: &Stage, pdf: &[u8]) {
    let report = verify(pdf, &stage.roots(), clock::wall()).unwrap();
    report.signatures.iter().for_each(is_valid);
}

#[test]
fn answers_that_do_not_fit_end_a_sealing() {
    let stage = Stage::new(P256);
    let original = fixture("reportlab");
    let begin = || Sealing::start(original.clone(), stage.order(Level::BLt)).unwrap();
    let fault = |sealing: Sealing, answer: Answer| sealing.answer(&answer).err().unwrap();
    let Step::Sign { algorithm, input, .. } = begin().step() else {
        panic!("a signature is asked for first")
    };
    let other = stage
        .holder
        .key
        .sign(algorithm, &Hash::Sha256.digest(b"something else"));
    assert_eq!(
        fault(begin(), Answer::Signature(other.into())),
        SealingError::Signature
    );
    let good = Answer::Signature(stage.holder.key.sign(algorithm, &input.0).into());
    assert_eq!(
        fault(begin(), Answer::Evidence(stage.evidence())),
        SealingError::OtherAnswer {
            wanted: "a signature",
            given: "revocation information"
        }
    );
    assert!(matches!(
        begin().finish(),
        Err(SealingError::NotDone("a signature"))
    ));
    let signed = || begin().answer(&good).unwrap();
    let Step::Stamp { hash, imprint } = signed().step() else {
        panic!("then a time stamp")
    };
    let elsewhere = stage.authority.stamp(hash, &[7; 32]);
    assert!(matches!(
        fault(signed(), Answer::Token(elsewhere.into())),
        SealingError::Token(documents::tsp::VerifyError::Imprint)
    ));
    assert!(matches!(
        fault(signed(), Answer::Token(b"no token".to_vec().into())),
        SealingError::Token(_)
    ));
    let token = Answer::Token(stage.authority.stamp(hash, &imprint.0).into());
    let stamped = signed().answer(&token).unwrap();
    assert!(matches!(stamped.step(), Step::Evidence(_)));
}

#[test]
fn evidence_that_is_not_enough_ends_a_sealing() {
    let stage = Stage::new(P256);
    let stamped = || {
        let mut sealing = Sealing::start(fixture("reportlab"), stage.order(Level::BLt)).unwrap();
        for _ in 0..2 {
            let answer = stage.answer(&sealing.step()).unwrap();
            sealing = sealing.answer(&answer).unwrap();
        }
        sealing
    };
    let fault = |sealing: Sealing, answer: Answer| sealing.answer(&answer).err().unwrap();
    let evidence = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = stage.evidence();
        change(&mut evidence);
        match fault(stamped(), Answer::Evidence(evidence)) {
            SealingError::Evidence(error) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(
        evidence(&|evidence| evidence.certificates.clear()),
        EvidenceError::NoIssuer(_)
    ));
    assert!(matches!(
        evidence(&|evidence| evidence.crls.clear()),
        EvidenceError::Path(documents::x509::PathError::RevocationUnknown { .. })
    ));
    let revoked = stage.list(stage.now, &[(stage.now.0 - DAY_MS, Reason::KeyCompromise)]);
    assert!(matches!(
        evidence(&|evidence| evidence.crls = vec![revoked.clone().into()]),
        EvidenceError::Path(documents::x509::PathError::Revoked { .. })
    ));
    assert!(matches!(
        evidence(&|evidence| evidence.crls.push(b"none".to_vec().into())),
        EvidenceError::List(_)
    ));
    assert!(matches!(
        evidence(&|evidence| evidence.ocsps = vec![Octets::default(); 65]),
        EvidenceError::TooMany
    ));
}

#[test]
fn orders_that_contradict_themselves_are_refused() {
    let stage = Stage::new(P256);
    let original = fixture("reportlab");
    let refused = |order: Order| Sealing::start(original.clone(), order).err().unwrap();
    let mut nobody = stage.order(Level::BB);
    nobody.signers.clear();
    assert!(matches!(refused(nobody), SealingError::Order(_)));
    let mut unseen = stage.order(Level::BB);
    unseen.appearance = Some(Appearance {
        picture: None,
        placement: Placement::InField,
    });
    assert!(matches!(refused(unseen), SealingError::Order(_)));
    let mut endless = stage.order(Level::BT);
    endless.token_bytes = usize::MAX;
    assert!(matches!(refused(endless), SealingError::Order(_)));
    let mut small = stage.order(Level::BT);
    small.token_bytes = 100;
    let mut sealing = Sealing::start(original.clone(), small).unwrap();
    let signature = stage.answer(&sealing.step()).unwrap();
    sealing = sealing.answer(&signature).unwrap();
    let token = stage.answer(&sealing.step()).unwrap();
    let error = sealing.answer(&token).err().unwrap();
    assert!(error.to_string().contains("there is room for"), "{error}");
}

/// A sealer with an electronic seal, and the picture in it.
fn sealer(parties: &Parties) -> Signer {
    let mut spec = parties.spec();
    spec.picture.data = super::png(60, &[180, 20, 20, 255].repeat(60 * 60));
    let now = clock::wall().0;
    spec.created = UnixMillis(now - 30 * DAY_MS);
    spec.validity = (spec.created, UnixMillis(now + 300 * DAY_MS));
    Signer {
        algorithm: Algorithm::Sm2Sm3E,
        chain: vec![parties.signer.certificate.clone().into()],
        seal: Some(parties.seal_of(&spec).into()),
    }
}

fn placed() -> Option<Appearance> {
    Some(Appearance {
        picture: None,
        placement: super::at(
            1,
            Position {
                x: 100.0,
                y: 100.0,
                ..Position::default()
            },
        ),
    })
}

/// Signs with the keys of several parties.
fn seal_by(keys: &[&Holder], stage: &Stage, pdf: &[u8], order: &Order) -> Vec<u8> {
    let mut sealing = Sealing::start(pdf.to_vec(), order.clone()).unwrap();
    loop {
        let answer = match sealing.step() {
            Step::Sign {
                signer,
                algorithm,
                input,
            } => Answer::Signature(keys[signer].key.sign(algorithm, &input.0).into()),
            step => match stage.answer(&step) {
                Some(answer) => answer,
                None => return sealing.finish().unwrap(),
            },
        };
        sealing = sealing.answer(&answer).unwrap();
    }
}

#[test]
fn a_seal_signature_stands_in_a_pdf_as_chinese_readers_expect_it() {
    let (parties, stage) = (Parties::new(), Stage::new(P256));
    for name in ["reportlab", "latex", "qpdf-encrypted-256"] {
        let original = fixture(name);
        let mut order = Order::new(Form::Pdf, sealer(&parties), stage.now);
        order.appearance = placed();
        let pdf = seal_by(&[&parties.signer], &stage, &original, &order);
        assert!(pdf.starts_with(&original));
        qpdf_accepts(&pdf);
        assert!(
            Picture::of(&pdf, 1).red_box().is_some(),
            "{name}: the seal's own picture is seen"
        );
        let bench = Bench::new();
        let judged = judge("pdf_seal_check.py", &[&bench.write("sealed.pdf", &pdf)]);
        for words in [
            "gap is one hexadecimal string: True",
            "data hash is SM3 of the ranges: True",
            "range agrees: True",
            "SIG: OK[tbs,z=True]",
            "gmssl: OK",
            "seal sig: OK[info,z=True]",
        ] {
            assert!(judged.contains(words), "{name}: {words}: {judged}");
        }
        let report = verify(&pdf, &[&parties.root.certificate], clock::wall()).unwrap();
        is_valid(&report.signatures[0]);
        let seal = report.signatures[0].seal.as_ref().unwrap();
        assert_eq!(seal.seal.name, "朱砂科技有限公司");
        let mut changed = pdf.clone();
        changed[original.len() / 2] ^= 1;
        if let Ok(report) = verify(&changed, &[&parties.root.certificate], clock::wall()) {
            assert_ne!(report.verdict, Some(Verdict::Valid), "{name}");
        }
        let nobody = verify(&pdf, &[&stage.authority.certificate], clock::wall()).unwrap();
        assert_eq!(nobody.verdict, Some(Verdict::Indeterminate), "{name}");
    }
}

#[test]
fn readers_abroad_and_at_home_each_find_a_signature() {
    let (parties, stage) = (Parties::new(), Stage::new(P256));
    let original = fixture("libreoffice");
    let roots = [stage.roots(), vec![parties.root.certificate.clone()]].concat();
    for level in [Level::BB, Level::BT] {
        let mut order = stage.order(level);
        order.signers.push(sealer(&parties));
        order.appearance = Some(Appearance {
            picture: Some(super::png(60, &[180, 20, 20, 255].repeat(60 * 60)).into()),
            ..placed().unwrap()
        });
        let pdf = seal_by(&[&stage.holder, &parties.signer], &stage, &original, &order);
        qpdf_accepts(&pdf);
        // pyHanko does not know the second kind of signature; the first stands, and the second is a permitted change.
        let judged = pyhanko_at(&pdf, &roots.concat(), clock::wall());
        assert!(judged[0].contains("bottom_line=True"), "{judged:?}");
        assert!(
            judged[0].contains("changes=LTA_UPDATES") || judged[0].contains("changes=FORM_FILLING"),
            "{judged:?}"
        );
        let report = verify(&pdf, &roots, clock::wall()).unwrap();
        assert_eq!(report.signatures.len(), 2);
        report.signatures.iter().for_each(is_valid);
        let kinds: Vec<_> = report.signatures[0]
            .later_changes
            .iter()
            .map(|change| change.kind)
            .collect();
        assert_eq!(kinds, [ChangeKind::Signature]);
        assert_eq!(report.signatures[1].sub_filter, "GM.sm2seal");
        let bench = Bench::new();
        let judged = judge("pdf_seal_check.py", &[&bench.write("dual.pdf", &pdf)]);
        assert!(judged.contains("gmssl: OK"), "{judged}");
        assert_eq!(
            judged.contains("time stamp bytes 0"),
            level == Level::BB,
            "{judged}"
        );
    }
}

#[test]
fn a_seal_that_is_not_ours_is_refused() {
    let (parties, stage) = (Parties::new(), Stage::new(P256));
    let refused = |signer: Signer| {
        let order = Order::new(Form::Pdf, signer, stage.now);
        Sealing::start(fixture("reportlab"), order).err().unwrap()
    };
    let mut other = sealer(&parties);
    other.chain = vec![parties.maker.certificate.clone().into()];
    assert_eq!(refused(other).code(), protocol::error_code::Code::SealUnusable);
    let mut broken = sealer(&parties);
    broken.seal = Some(b"no seal".to_vec().into());
    assert_eq!(refused(broken).code(), protocol::error_code::Code::SealUnusable);
    let mut wrong = sealer(&parties);
    wrong.algorithm = P256;
    assert!(matches!(refused(wrong), SealingError::Order(_)));
}
