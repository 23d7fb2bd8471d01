//! The strangers: pyHanko on signatures, `pdfsig` and `qpdf --check` on files, `pdftoppm` on what is seen.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Bench;

fn python() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let given = std::env::var_os("TEST_PYTHON").map(PathBuf::from);
    given.unwrap_or_else(|| workspace.join("target/venv/bin/python"))
}

fn run(bench: &Bench, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .current_dir(bench.folder())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// `qpdf --check` finds nothing to complain about.
#[track_caller]
pub(crate) fn qpdf_accepts(pdf: &[u8]) {
    let bench = Bench::new();
    bench.write("file.pdf", pdf);
    let (ok, text) = run(&bench, "qpdf", &["--check", "file.pdf"]);
    assert!(ok && !text.contains("WARNING"), "{text}");
}

/// What pyHanko says of each signature, on the day of the tests: the lines that `pyhanko_judge.py` prints.
pub(crate) fn pyhanko(pdf: &[u8], root: &[u8]) -> Vec<String> {
    pyhanko_at(pdf, root, crate::support::NOW)
}

/// The same on another day.
pub(crate) fn pyhanko_at(pdf: &[u8], root: &[u8], day: protocol::clock::UnixMillis) -> Vec<String> {
    let bench = Bench::new();
    bench.write("file.pdf", pdf);
    bench.write("root.der", root);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/pyhanko_judge.py");
    let day = day.seconds().to_string();
    let arguments = [script.to_str().unwrap(), "file.pdf", "root.der", &day];
    let (ok, text) = run(&bench, python(), &arguments);
    assert!(ok, "{text}");
    text.lines()
        .filter(|line| line.contains('\t'))
        .map(str::to_owned)
        .collect()
}

/// What pyHanko says of the first signature from nothing but the validation data in the file.
pub(crate) fn pyhanko_long_term(pdf: &[u8], roots: &[u8]) -> String {
    let bench = Bench::new();
    bench.write("file.pdf", pdf);
    bench.write("roots.der", roots);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/pyhanko_long_term.py");
    run(
        &bench,
        python(),
        &[script.to_str().unwrap(), "file.pdf", "roots.der"],
    )
    .1
}

/// What `pdfsig` says, without trusting anybody.
pub(crate) fn pdfsig(pdf: &[u8]) -> String {
    let bench = Bench::new();
    bench.write("file.pdf", pdf);
    run(&bench, "pdfsig", &["-nocert", "file.pdf"]).1
}

/// A page as `pdftoppm` draws it: width, height and grey-free RGB.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) rgb: Vec<u8>,
}

impl Picture {
    /// Draws a page at 72 dots an inch: a point is a pixel.
    pub(crate) fn of(pdf: &[u8], page: usize) -> Self {
        let bench = Bench::new();
        bench.write("file.pdf", pdf);
        let page = page.to_string();
        let arguments = [
            "-r",
            "72",
            "-cropbox",
            "-png",
            "-singlefile",
            "-f",
            &page,
            "-l",
            &page,
            "file.pdf",
            "page",
        ];
        let (ok, text) = run(&bench, "pdftoppm", &arguments);
        assert!(ok, "{text}");
        Self::decode(&bench.read("page.png"))
    }

    pub(crate) fn decode(png: &[u8]) -> Self {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut rgb).unwrap();
        assert_eq!(frame.color_type, png::ColorType::Rgb);
        Self {
            width: frame.width as usize,
            height: frame.height as usize,
            rgb,
        }
    }

    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// The smallest box around everything as red as a seal: left, top, right, bottom in pixels.
    pub(crate) fn red_box(&self) -> Option<[usize; 4]> {
        let mut found: Option<[usize; 4]> = None;
        for y in 0..self.height {
            for x in 0..self.width {
                if is_seal(self.pixel(x, y)) {
                    let [left, top, right, bottom] = found.unwrap_or([x, y, x, y]);
                    found = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
                }
            }
        }
        found
    }

    /// Whether a point is as red as a seal.
    pub(crate) fn is_red(&self, x: usize, y: usize) -> bool {
        is_seal(self.pixel(x, y))
    }

    /// Share of pixels that differ visibly from another picture of the same size.
    pub(crate) fn difference(&self, other: &Self) -> f64 {
        assert_eq!((self.width, self.height), (other.width, other.height));
        let visible = |(a, b): &(&[u8], &[u8])| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > 48);
        let different = self
            .rgb
            .chunks(3)
            .zip(other.rgb.chunks(3))
            .filter(visible)
            .count();
        #[expect(clippy::cast_precision_loss, reason = "pictures are small")]
        let share = different as f64 / (self.width * self.height) as f64;
        share
    }
}

fn is_seal([red, green, blue]: [u8; 3]) -> bool {
    red > 120 && green < 90 && blue < 90
}

/// Signs with pyHanko.
pub(crate) fn pyhanko_signs(signer: &super::Signer, pdf: &[u8], field: &str) -> Vec<u8> {
    let bench = Bench::new();
    bench.write("in.pdf", pdf);
    bench.write("key.der", &signer.holder.key.private());
    bench.write_pem("signer.pem", &signer.holder.certificate);
    bench.write_pem("root.pem", &signer.root.certificate);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/pyhanko_sign.py");
    // pyHanko takes PKCS#8 only, which is what OpenSSL makes of the key.
    bench
        .openssl("pkcs8 -topk8 -nocrypt -inform DER -in key.der -outform DER -out pkcs8.der")
        .accepted();
    let files = ["in.pdf", "out.pdf", field, "pkcs8.der", "signer.pem", "root.pem"];
    let arguments: Vec<&str> = [script.to_str().unwrap()].into_iter().chain(files).collect();
    let (ok, text) = run(&bench, python(), &arguments);
    assert!(ok, "{text}");
    bench.read("out.pdf")
}

/// The words of a page and where they are, as `pdftotext -bbox` writes them.
pub(crate) fn pdftotext(pdf: &[u8], page: usize) -> String {
    let bench = Bench::new();
    bench.write("file.pdf", pdf);
    let page = page.to_string();
    let (ok, text) = run(
        &bench,
        "pdftotext",
        &["-bbox", "-f", &page, "-l", &page, "file.pdf", "-"],
    );
    assert!(ok, "{text}");
    text
}
