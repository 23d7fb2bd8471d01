//! Documents sealed in a second on one core, and the memory that a large one takes.
//!
//! `make bench-documents`, which lets pyHanko sign the same file in the same run. Keys sign in this process; nothing goes
//! over a wire. `BENCH_SECONDS` (3) is for each line.
//!
//! `seal memory whole|prepare FILE` seals one file and tells the most memory that this process has had.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where it stopped"
)]

#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support;

use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use documents::ofd::{self, Coverage, Kind, Provider, SignRequest};
use documents::pdf::{self, PageNumber, Placement, Position, Request, Seal, SealImage};
use documents::sealing::{Answer, Form, Order, Paused, Sealing, Signer, Step};
use documents::ses::{Allowed, Generation, PictureSpec, Policy, SealSpec, prepare_seal};
use documents::trust::Known;
use documents::x509::Profile;
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;
use support::{Holder, NOW};

const DAY_MS: u64 = 86_400_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory", what, file, ..] => memory(what, Path::new(file)),
        _ => speed(),
    }
}

/// How often something can be done in a second.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn rate(name: &str, mut work: impl FnMut()) {
    let seconds = std::env::var("BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let long = Duration::from_secs(seconds.unwrap_or(3));
    work();
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < long {
        work();
        count += 1;
    }
    println!(
        "{name}\t{:.0} a second",
        f64::from(count) / start.elapsed().as_secs_f64()
    );
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pdf");
    std::fs::read(folder.join(name)).unwrap()
}

fn speed() {
    for (kind, algorithm) in [
        ("P-256", Algorithm::EcdsaP256Sha256),
        ("RSA-2048", Algorithm::RsaPkcs1Sha256),
    ] {
        pdfs(kind, algorithm);
    }
    ofds();
}

fn pdfs(kind: &str, algorithm: Algorithm) {
    let pdf = fixture("libreoffice.pdf");
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let signer = root.signer(algorithm);
    let chain = signer.chain(&[&root]);
    let image = SealImage::from_png(&fixture("seal.png")).unwrap();
    let placement = Placement::At(
        PageNumber::Nth(1),
        Position {
            x: 100.0,
            y: 100.0,
            ..Position::default()
        },
    );
    let visible = Request {
        seal: Some(Seal {
            image: &image,
            placement: &placement,
        }),
        ..Request::default()
    };
    let sign = |request: &Request<'_>| {
        let prepared = pdf::prepare(&pdf, request, algorithm, &chain, NOW).unwrap();
        let signature = signer.key.sign(algorithm, prepared.to_sign());
        [&pdf[..], &prepared.assemble(&signature).unwrap()].concat()
    };
    rate(&format!("PDF of one page, {kind}"), || {
        sign(&Request::default());
    });
    rate(&format!("PDF of one page with a visible seal, {kind}"), || {
        sign(&visible);
    });
    let order = Order::new(
        Form::Pdf,
        Signer {
            algorithm,
            chain: vec![signer.certificate.clone().into(), root.certificate.clone().into()],
            seal: None,
        },
        NOW,
    );
    rate(
        &format!("PDF of one page by an order, its signature verified, {kind}"),
        || {
            sealed(pdf.clone(), &order, &signer);
        },
    );
    let (signed, roots) = (sign(&visible), [&root.certificate]);
    rate(&format!("PDF of one page verified, {kind}"), || {
        pdf::verify(&signed, &roots, NOW).unwrap();
    });
}

fn sealed(document: Vec<u8>, order: &Order, signer: &Holder) -> Vec<u8> {
    let sealing = Sealing::start(document, order.clone()).unwrap();
    let Step::Sign { algorithm, input, .. } = sealing.step() else {
        unreachable!("a signature is asked for first")
    };
    let signature = signer.key.sign(algorithm, &input.0);
    sealing
        .answer(&Answer::Signature(signature.into()))
        .unwrap()
        .finish()
        .unwrap()
}

/// An OFD of one page: the smallest that GB/T 33190 allows.
fn one_page() -> Vec<u8> {
    let space = "xmlns:ofd=\"http://www.ofdspec.org/2016\"";
    let files = [
        (
            "OFD.xml",
            format!(
                "<ofd:OFD {space} Version=\"1.0\" DocType=\"OFD\"><ofd:DocBody><ofd:DocInfo><ofd:DocID>0</ofd:DocID></ofd:DocInfo><ofd:DocRoot>Doc_0/Document.xml</ofd:DocRoot></ofd:DocBody></ofd:OFD>"
            ),
        ),
        (
            "Doc_0/Document.xml",
            format!(
                "<ofd:Document {space}><ofd:CommonData><ofd:MaxUnitID>4</ofd:MaxUnitID><ofd:PageArea><ofd:PhysicalBox>0 0 210 297</ofd:PhysicalBox></ofd:PageArea></ofd:CommonData><ofd:Pages><ofd:Page ID=\"1\" BaseLoc=\"Pages/Page_0/Content.xml\"/></ofd:Pages></ofd:Document>"
            ),
        ),
        (
            "Doc_0/Pages/Page_0/Content.xml",
            format!("<ofd:Page {space}><ofd:Content/></ofd:Page>"),
        ),
    ];
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        writer
            .start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn electronic_seal(maker: &Holder, signer: &Holder) -> Vec<u8> {
    let spec = SealSpec {
        generation: Generation::V4,
        id: "50011200000323".into(),
        vendor: "Cinnabar".into(),
        kind: 1,
        name: "朱砂科技有限公司".into(),
        allowed: Allowed::Certificates(vec![signer.certificate.clone()]),
        created: UnixMillis(NOW.0 - DAY_MS),
        validity: (UnixMillis(NOW.0 - DAY_MS), UnixMillis(NOW.0 + DAY_MS)),
        picture: PictureSpec {
            kind: "PNG".into(),
            data: fixture("seal.png"),
            width_mm: 42,
            height_mm: 42,
        },
    };
    let prepared = prepare_seal(&spec, &maker.certificate).unwrap();
    let signature = maker.key.sign(Algorithm::Sm2Sm3, prepared.message());
    prepared.assemble(&signature, None).unwrap()
}

fn ofds() {
    let root = Holder::root(Algorithm::Sm2Sm3);
    let maker = root.issue("Seal Maker", Algorithm::Sm2Sm3, Profile::Signer);
    let signer = root.issue("Sealer", Algorithm::Sm2Sm3, Profile::Signer);
    let (ofd, seal) = (one_page(), electronic_seal(&maker, &signer));
    let provider = Provider {
        name: "Cinnabar".into(),
        version: "0.1".into(),
        company: "Cinnabar".into(),
    };
    let placements = [ofd::Placement::At {
        page: 1,
        x: 100.0,
        y: 100.0,
    }];
    let request = SignRequest {
        document: 0,
        kind: Kind::Seal {
            seal: &seal,
            placements: &placements,
        },
        certificate: &signer.certificate,
        coverage: Coverage::Continue,
        provider: &provider,
        at: NOW,
    };
    let sign = || {
        let prepared = ofd::prepare(&ofd, &request).unwrap();
        let signature = signer.key.sign(Algorithm::Sm2Sm3E, &prepared.e());
        prepared.assemble(&signature, None).unwrap()
    };
    rate("OFD of one page with an electronic seal, SM2", || {
        sign();
    });
    let (signed, known) = (sign(), Known::anchored(&[&root.certificate]));
    rate("OFD of one page verified, SM2", || {
        ofd::verify(&signed, &known.judge(NOW), Policy::default(), NOW).unwrap();
    });
}

/// Seals a file, as the command line does: read once, appended to, written.
fn memory(what: &str, path: &Path) {
    let mut document = Vec::new();
    let mut file = std::fs::File::open(path).unwrap();
    let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
    document.reserve_exact(bytes + (1 << 20));
    file.read_to_end(&mut document).unwrap();
    let root = Holder::root(Algorithm::EcdsaP256Sha256);
    let signer = root.signer(Algorithm::EcdsaP256Sha256);
    let order = Order::new(
        Form::Pdf,
        Signer {
            algorithm: signer.algorithm,
            chain: vec![signer.certificate.clone().into()],
            seal: None,
        },
        NOW,
    );
    if what == "prepare" {
        Paused::start(document, &order).unwrap();
    } else {
        let sealed = sealed(document, &order, &signer);
        std::fs::write(path.with_extension("sealed.pdf"), sealed).unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a share of a file's size")]
    let share = (kib * 1024) as f64 / bytes as f64;
    println!(
        "{what}: {} MiB at most for a file of {} MiB: {share:.2} times the file",
        kib >> 10,
        bytes >> 20
    );
}
