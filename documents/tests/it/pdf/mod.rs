//! Signatures in PDF files of many producers, judged by pyHanko, poppler and qpdf.

mod attack;
mod judge;
mod level;
mod place;
mod sealing;
mod sign;
mod verify;

use std::path::Path;

use documents::pdf::{Placement, Position, PreparedPdf, Request, SealImage, Size, prepare};

use crate::support::{Holder, NOW};

/// Files of other producers; `documents/tests/fixtures/pdf/README.md` says which.
const PRODUCERS: [&str; 14] = [
    "chromium",
    "fpdf2",
    "ghostscript",
    "hybrid",
    "latex",
    "libreoffice",
    "pdf-writer",
    "pikepdf-rotated-cropped",
    "pyhanko-fields",
    "qpdf-linearized",
    "qpdf-objstm",
    "reportlab",
    "reportlab-form",
    "weasyprint",
];

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pdf");
    std::fs::read(folder.join(format!("{name}.pdf"))).unwrap()
}

/// A CA and a signer below it.
struct Signer {
    root: Holder,
    holder: Holder,
}

impl Signer {
    fn new(algorithm: protocol::algorithm::Algorithm) -> Self {
        let root = Holder::root(protocol::algorithm::Algorithm::EcdsaP256Sha256);
        let holder = root.signer(algorithm);
        Self { root, holder }
    }

    fn p256() -> Self {
        Self::new(protocol::algorithm::Algorithm::EcdsaP256Sha256)
    }

    fn prepare(
        &self,
        pdf: &[u8],
        request: &Request<'_>,
    ) -> Result<PreparedPdf, documents::pdf::PrepareError> {
        let chain = self.holder.chain(&[&self.root]);
        prepare(pdf, request, self.holder.algorithm, &chain, NOW)
    }

    /// The whole signed file.
    fn sign(&self, pdf: &[u8], request: &Request<'_>) -> Vec<u8> {
        let prepared = self.prepare(pdf, request).unwrap();
        let signature = self.holder.key.sign(self.holder.algorithm, prepared.to_sign());
        let update = prepared.assemble(&signature).unwrap();
        [pdf, &update].concat()
    }
}

/// A picture: a red ring on nothing, with a mark that tells left from right and up from down.
fn seal_image() -> SealImage {
    const SIDE: u32 = 120;
    let mut pixels = Vec::new();
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (across, down) = (f64::from(x) - 59.5, f64::from(y) - 59.5);
            let is_ring = (50.0..60.0).contains(&across.hypot(down));
            let is_mark = x < 60 && y < 60 && across.hypot(down) < 40.0;
            pixels.extend(if is_ring || is_mark {
                [200, 20, 20, 255]
            } else {
                [0; 4]
            });
        }
    }
    SealImage::from_png(&png(SIDE, &pixels)).unwrap()
}

fn png(side: u32, rgba: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(rgba).unwrap();
    out
}

fn square(side: f64) -> Size {
    Size {
        width: Some(side),
        height: None,
    }
}

fn at(page: usize, position: Position) -> Placement {
    Placement::At(documents::pdf::PageNumber::Nth(page), position)
}
