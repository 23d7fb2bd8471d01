//! Certificates, time stamps, OCSP responses and revocation lists: everything but the signature.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use documents::crl::{self, Crl, Kind, Reason, Revoked};
use documents::ocsp::{self, CertId, IdHash, Responder, Single, Status};
use documents::tsp::{Accuracy, Authority, Request};
use documents::x509::{self, Issuer, NameParts, ObjectIdentifier, Profile, Spec, Terms};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, Hash, KeyKind};
use protocol::clock::UnixMillis;
use protocol::verify::SM2_DEFAULT_USER_ID;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const YEAR_MS: u64 = 365 * 24 * 3_600_000;
const POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.55555.2.1");

/// A key and the certificate about it.
struct Holder {
    key: SoftKey,
    algorithm: Algorithm,
    public_key: Vec<u8>,
    certificate: Vec<u8>,
}

impl Holder {
    fn new(kind: KeyKind, profile: Profile, issuer: Option<&Self>) -> Self {
        let made = soft::generate(kind).expect("a key");
        let key = SoftKey::new(kind, &made.pkcs8, &made.public_key).expect("its own key");
        let mut holder = Self {
            key,
            algorithm: kind.algorithms()[0],
            public_key: made.public_key.to_vec(),
            certificate: Vec::new(),
        };
        let spec = spec(
            &holder.public_key,
            profile,
            issuer.map(|issuer| &issuer.certificate[..]),
        );
        holder.certificate = issuer.unwrap_or(&holder).certify(&spec);
        holder
    }

    fn certify(&self, spec: &Spec) -> Vec<u8> {
        let prepared = x509::prepare(spec, self.algorithm).expect("a sound specification");
        let signature = self.sign(prepared.to_sign());
        prepared.assemble(&signature).expect("our own signature")
    }

    fn sign(&self, to_sign: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(self.algorithm, to_sign, SM2_DEFAULT_USER_ID);
        signature.expect("a signature").to_vec()
    }
}

fn spec(public_key: &[u8], profile: Profile, issuer: Option<&[u8]>) -> Spec {
    let parts = NameParts {
        country: Some("CN"),
        organization: Some("Bench"),
        common_name: Some(if issuer.is_some() { "Subject" } else { "Root" }),
    };
    Spec {
        serial: vec![0x40; 16],
        issuer: issuer.map_or(Issuer::Itself, |issuer| Issuer::Holder(issuer.to_vec())),
        subject: parts.try_into().expect("a name"),
        not_before: UnixMillis(NOW.0 - YEAR_MS),
        not_after: UnixMillis(NOW.0 + YEAR_MS),
        subject_public_key: public_key.to_vec(),
        profile,
        terms: Terms {
            crl: vec!["http://pki.example/a.crl".into()],
            ocsp: vec!["http://pki.example/ocsp".into()],
            ..Terms::default()
        },
    }
}

fn time_stamps(c: &mut Criterion) {
    let root = Holder::new(KeyKind::P256, Profile::Root, None);
    let query = Request::new(Hash::Sha256, &[7; 32], &[0x81; 8]).expect("a request");
    let query = query.to_der().expect("DER");
    c.bench_function("pki/time stamp: read the request", |b| {
        b.iter(|| Request::parse(black_box(&query)).expect("sound"));
    });
    for kind in [KeyKind::P256, KeyKind::Rsa2048, KeyKind::Sm2] {
        let tsa = Holder::new(kind, Profile::TimeStamping, Some(&root));
        let chain = [&tsa.certificate, &root.certificate];
        let accuracy = Accuracy {
            seconds: 1,
            millis: 0,
            micros: 0,
        };
        let authority = Authority::new(&chain, tsa.algorithm, POLICY, Some(accuracy)).expect("an authority");
        let request = Request::parse(&query).expect("sound");
        let prepare = || authority.prepare(&request, &[0x40; 16], NOW).expect("granted");
        let name = kind.name();
        c.bench_function(&format!("pki/time stamp, {name}: prepare"), |b| {
            b.iter(|| black_box(prepare()));
        });
        let signature = tsa.sign(prepare().to_sign());
        c.bench_function(&format!("pki/time stamp, {name}: assemble"), |b| {
            b.iter_batched(prepare, |p| p.assemble(&signature), BatchSize::SmallInput);
        });
    }
}

fn responses(c: &mut Criterion) {
    let root = Holder::new(KeyKind::P256, Profile::Root, None);
    let delegate = Holder::new(KeyKind::P256, Profile::OcspResponder, Some(&root));
    let responder = Responder::new(&delegate.certificate, &root.certificate, delegate.algorithm);
    let responder = responder.expect("a responder");
    let id = CertId::new(responder.issuer(), &[0x40; 16], IdHash::Sha1);
    let request = ocsp::Request {
        ids: vec![id],
        nonce: Some(vec![1; 16]),
    };
    let query = request.to_der().expect("DER");
    c.bench_function("pki/ocsp: read the request", |b| {
        b.iter(|| ocsp::Request::parse(black_box(&query)).expect("sound"));
    });
    let single = Single {
        id: &request.ids[0],
        status: Status::Good,
        this_update: NOW,
        next_update: Some(UnixMillis(NOW.0 + 3_600_000)),
    };
    let prepare = || {
        responder
            .prepare(&[single], NOW, request.nonce.as_deref())
            .expect("an answer")
    };
    c.bench_function("pki/ocsp: prepare", |b| b.iter(|| black_box(prepare())));
    let signature = delegate.sign(prepare().to_sign());
    c.bench_function("pki/ocsp: assemble", |b| {
        b.iter_batched(prepare, |p| p.assemble(&signature), BatchSize::SmallInput);
    });
}

fn lists(c: &mut Criterion) {
    let root = Holder::new(KeyKind::P256, Profile::Root, None);
    let serials: Vec<[u8; 16]> = (0_u128..50_000)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) | 1).to_be_bytes())
        .collect();
    let revoked = || {
        serials.iter().map(|serial| Revoked {
            serial,
            at: NOW,
            reason: Reason::Superseded,
            invalid_since: None,
        })
    };
    let spec = crl::Spec {
        issuer: &root.certificate,
        number: 1,
        kind: Kind::Full,
        this_update: NOW,
        next_update: UnixMillis(NOW.0 + 3_600_000),
        scope: None,
        delta_locations: Vec::new(),
    };
    let mut group = c.benchmark_group("pki/list of 50,000");
    group.sample_size(20);
    let prepare = || crl::prepare(&spec, revoked(), root.algorithm).expect("a list");
    group.bench_function("prepare", |b| b.iter(|| black_box(prepare())));
    let prepared = prepare();
    let signature = root.sign(prepared.to_sign());
    let list = prepared.assemble(&signature).expect("our own signature");
    group.bench_function("read", |b| {
        b.iter(|| black_box(Crl::parse(&list).expect("sound").entries().len()));
    });
}

fn certificates(c: &mut Criterion) {
    let root = Holder::new(KeyKind::P256, Profile::Root, None);
    let subject = Holder::new(KeyKind::P256, Profile::Signer, Some(&root));
    let spec = spec(&subject.public_key, Profile::Signer, Some(&root.certificate));
    c.bench_function("pki/certificate: prepare and lint", |b| {
        b.iter(|| black_box(x509::prepare(&spec, root.algorithm).expect("sound")));
    });
}

criterion_group!(benches, time_stamps, responses, lists, certificates);
criterion_main!(benches);
