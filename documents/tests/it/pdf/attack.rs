//! Attacks on PDF signatures: universal forgery, wrapping, incremental saving ("1 Trillion Dollar Refund", 2019) and
//! shadow attacks (2021). None of them may come out valid, and none may crash.

use std::fmt::Write;

use documents::pdf::{ChangeKind, Permission, Request, SignatureReport, Verdict, verify};

use super::verify::{is_valid, report};
use super::{Signer, fixture};
use crate::support::NOW;

/// Where some text stands.
#[track_caller]
fn find(pdf: &[u8], text: &str) -> usize {
    pdf.windows(text.len())
        .rposition(|window| window == text.as_bytes())
        .unwrap_or_else(|| panic!("no '{text}'"))
}

/// The whole number behind some text.
#[track_caller]
fn number_after(pdf: &[u8], text: &str) -> usize {
    let rest = &pdf[find(pdf, text) + text.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    String::from_utf8(digits.copied().collect())
        .unwrap()
        .parse()
        .unwrap()
}

/// Writes text over other text of the same length.
#[track_caller]
fn replaced(pdf: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let at = find(pdf, old);
    let mut changed = pdf.to_vec();
    changed[at..at + new.len()].copy_from_slice(new.as_bytes());
    changed
}

/// Appends an update to a file with a cross-reference table; an object without text is where it is said to be.
fn updated(pdf: &[u8], objects: &[(usize, Object<'_>)]) -> Vec<u8> {
    let mut out = pdf.to_vec();
    let previous = number_after(pdf, "startxref\n");
    let (root, info) = (number_after(pdf, "/Root "), number_after(pdf, "/Info "));
    let mut lines = String::new();
    let mut size = number_after(pdf, "/Size ");
    for (number, object) in objects {
        let offset = match object {
            Object::At(offset) => *offset,
            Object::Text(_) => out.len(),
        };
        writeln!(lines, "{number} 1\n{offset:010} 00000 n\r").unwrap();
        if let Object::Text(text) = object {
            out.extend(format!("{number} 0 obj\n{text}\nendobj\n").bytes());
        }
        size = size.max(number + 1);
    }
    let start = out.len();
    let trailer = format!("<</Size {size}/Root {root} 0 R/Info {info} 0 R/Prev {previous}>>");
    out.extend(format!("xref\n{lines}trailer\n{trailer}\nstartxref\n{start}\n%%EOF\n").bytes());
    out
}

enum Object<'t> {
    Text(&'t str),
    At(usize),
}

fn stream(content: &str) -> String {
    format!("<</Length {}>>\nstream\n{content}\nendstream", content.len())
}

const EVIL: &str = "BT /F1 30 Tf 72 600 Td (I owe you everything) Tj ET";

/// The first page of ReportLab's file, its content, and the page tree.
const PAGE: usize = 3;
const CONTENT: usize = 9;
const PAGES: usize = 8;

struct Signed {
    signer: Signer,
    pdf: Vec<u8>,
}

impl Signed {
    fn of(pdf: &[u8], request: &Request<'_>) -> Self {
        let signer = Signer::p256();
        let pdf = signer.sign(pdf, request);
        Self { signer, pdf }
    }

    fn new() -> Self {
        Self::of(&fixture("reportlab"), &Request::default())
    }

    fn judge(&self, pdf: &[u8]) -> SignatureReport {
        report(&self.signer, pdf).signatures.remove(0)
    }

    #[track_caller]
    fn is_invalid(&self, pdf: &[u8], code: &str) -> SignatureReport {
        let signature = self.judge(pdf);
        assert_eq!(signature.verdict, Verdict::Invalid, "{signature:#?}");
        assert!(
            signature.findings.iter().any(|finding| finding.code == code),
            "{code}: {signature:#?}"
        );
        signature
    }
}

#[test]
fn the_bench_is_sound() {
    let signed = Signed::new();
    is_valid(&signed.judge(&signed.pdf));
    // An update that changes nothing is found to change nothing.
    let same = updated(&signed.pdf, &[]);
    is_valid(&signed.judge(&same));
    assert!(signed.judge(&same).later_changes.is_empty());
}

#[test]
fn universal_forgery_a_range_that_is_none() {
    let signed = Signed::new();
    let from = find(&signed.pdf, "/ByteRange ");
    let text = String::from_utf8_lossy(&signed.pdf[from..from + 48]).into_owned();
    let numbers: Vec<_> = text["/ByteRange [".len()..text.find(']').unwrap()]
        .split(' ')
        .collect();
    let padded = |mut text: String| {
        text.push_str(&" ".repeat(48 - text.len()));
        text
    };
    for wrong in [
        "/ByteXange [0 1 2 3]".to_owned(),
        "/ByteRange null".into(),
        "/ByteRange []".into(),
        format!("/ByteRange [0 {} {}]", numbers[1], numbers[2]),
        format!("/ByteRange [0 -{} {} {}]", numbers[1], numbers[2], numbers[3]),
        format!("/ByteRange [1 {} {} {}]", numbers[1], numbers[2], numbers[3]),
        format!("/ByteRange [0 {} {} {}]", numbers[1], numbers[2], usize::MAX),
        format!("/ByteRange [0 {} {} 0]", numbers[2], numbers[1]),
        "/ByteRange [0 0 0 0]".into(),
    ] {
        let forged = replaced(&signed.pdf, &text, &padded(wrong));
        signed.is_invalid(&forged, "byte-range");
    }
    signed.is_invalid(&replaced(&signed.pdf, "/Contents <", "/Contints <"), "byte-range");
    let literal = replaced(&signed.pdf, "/Contents <3", "/Contents (3");
    assert!(verify(&literal, &[&signed.signer.root.certificate], NOW).is_err());
}

#[test]
fn wrapping_a_gap_that_is_more_than_the_signature() {
    let signed = Signed::new();
    let start = find(&signed.pdf, "/Contents <") + "/Contents <".len();
    let end = start + signed.pdf[start..].iter().position(|byte| *byte == b'>').unwrap();
    // The room behind the signature is used for another entry, and the gap stays as large as it was.
    let mut wrapped = signed.pdf.clone();
    let entry = b"> /Reason <00";
    // The last ten digits are zeros that nobody needs, or part of the signature; both must be noticed.
    wrapped[end - entry.len()..end].copy_from_slice(entry);
    let signature = signed.is_invalid(&wrapped, "byte-range");
    assert!(
        signature.findings[0].text.contains("leaves out"),
        "{signature:#?}"
    );
    // The same with a second /ByteRange, which lies in what is not covered.
    let mut twice = signed.pdf.clone();
    let entry = b">/ByteRange [0 1 2 3]/X <00";
    twice[end - entry.len()..end].copy_from_slice(entry);
    let signature = signed.is_invalid(&twice, "byte-range");
    assert!(signature.findings[0].text.contains("twice"), "{signature:#?}");
    // White space in the string is not covered by anything.
    let mut spaced = signed.pdf.clone();
    spaced[end - 2..end].copy_from_slice(b"  ");
    signed.is_invalid(&spaced, "byte-range");
    // Room for a time stamp that did not come holds something else.
    let roomy = Request {
        time_stamp_bytes: 100,
        ..Request::default()
    };
    let signed = Signed::of(&fixture("reportlab"), &roomy);
    let at = find(&signed.pdf, "00>>>");
    let mut hidden = signed.pdf.clone();
    hidden[at] = b'4';
    signed.is_invalid(&hidden, "byte-range");
}

#[test]
fn incremental_saving_a_later_revision_shows_something_else() {
    let signed = Signed::new();
    let evil = stream(EVIL);
    let changed = updated(&signed.pdf, &[(CONTENT, Object::Text(&evil))]);
    let signature = signed.is_invalid(&changed, "changed-after-signing");
    assert_eq!(signature.later_changes[0].kind, ChangeKind::Other);
    assert_eq!(signature.digest_ok, Some(true), "what was signed is still there");
    // The page turns to a new content stream.
    let page = "<</Type/Page/MediaBox[0 0 595 842]/Parent 8 0 R/Contents 90 0 R>>";
    let turned = updated(
        &signed.pdf,
        &[(PAGE, Object::Text(page)), (90, Object::Text(&evil))],
    );
    signed.is_invalid(&turned, "changed-after-signing");
    // The catalog is another one.
    let root = number_after(&signed.pdf, "/Root ");
    let catalog = updated(
        &signed.pdf,
        &[(root, Object::Text("<</Type/Catalog/Pages 8 0 R>>"))],
    );
    assert!(
        report(&signed.signer, &catalog).signatures.is_empty(),
        "the form is gone, and so is the signature"
    );
    let removed = updated(&signed.pdf, &[(CONTENT, Object::At(0))]);
    signed.is_invalid(&removed, "changed-after-signing");
}

#[test]
fn incremental_saving_without_a_revision() {
    let signed = Signed::new();
    let evil = format!("{} 0 obj\n{}\nendobj\n", CONTENT, stream(EVIL));
    let appended = [&signed.pdf[..], evil.as_bytes()].concat();
    signed.is_invalid(&appended, "data-behind-the-last-revision");
    let marked = [&signed.pdf[..], evil.as_bytes(), b"%%EOF\n"].concat();
    signed.is_invalid(&marked, "data-behind-the-last-revision");
    let blank = [&signed.pdf[..], b"\n\n"].concat();
    is_valid(&signed.judge(&blank));
}

#[test]
fn shadow_a_hidden_object_is_brought_to_light() {
    // The signed file already holds a second object of the number, which nothing points to.
    let pdf = fixture("reportlab");
    let hidden = format!("{CONTENT} 0 obj\n{}\nendobj\n", stream(EVIL));
    let at = pdf.len();
    let prepared = updated(&[&pdf[..], hidden.as_bytes()].concat(), &[]);
    let signed = Signed::of(&prepared, &Request::default());
    is_valid(&signed.judge(&signed.pdf));
    let shown = updated(&signed.pdf, &[(CONTENT, Object::At(at))]);
    signed.is_invalid(&shown, "changed-after-signing");
}

#[test]
fn shadow_a_dangling_reference_is_a_door_left_open() {
    let pdf = fixture("reportlab");
    let text = "<</Type /Page /MediaBox[0 0 595 842]/Parent 8 0 R/Contents[80 0 R 99 0 R]>>";
    let harmless = stream("q Q");
    let prepared = updated(&pdf, &[(PAGE, Object::Text(text)), (80, Object::Text(&harmless))]);
    let signer = Signer::p256();
    let signed = signer.sign(&prepared, &Request::default());
    let evil = stream(EVIL);
    let opened = updated(&signed, &[(99, Object::Text(&evil))]);
    let signature = report(&signer, &opened).signatures.remove(0);
    assert_eq!(signature.verdict, Verdict::Invalid, "{signature:#?}");
    // The same object as the appearance of a new signature field explains nothing.
    let form = number_after(&signed, "/Root ");
    let field = "<</FT/Sig/T(x)/Subtype/Widget/Rect[0 0 0 0]/AP<</N 99 0 R>>>>";
    let first = number_after(&signed, "/Fields [");
    let catalog = format!(
        "<</Type/Catalog/Pages 8 0 R/PageMode/UseNone/AcroForm<</SigFlags 3/Fields[{first} 0 R 95 0 R]>>>>"
    );
    let objects = [
        (form, Object::Text(catalog.as_str())),
        (99, Object::Text(&evil)),
        (95, Object::Text(field)),
    ];
    let excused = updated(&signed, &objects);
    let signature = report(&signer, &excused).signatures.remove(0);
    let what: Vec<_> = signature
        .later_changes
        .iter()
        .map(|change| change.what.as_str())
        .collect();
    assert!(
        what.iter().any(|what| what.starts_with("object 99")),
        "{signature:#?}"
    );
    assert_eq!(signature.verdict, Verdict::Invalid);
}

#[test]
fn a_form_may_be_filled_in_where_that_is_permitted() {
    let pdf = fixture("reportlab-form");
    let at = find(&pdf, "/FT /Tx");
    let field = pdf[..at]
        .windows(5)
        .rposition(|window| window == b" obj\n")
        .map(|end| {
            let line = pdf[..end].rsplit(|byte| *byte == b'\n').next().unwrap();
            String::from_utf8_lossy(line)
                .split(' ')
                .next()
                .unwrap()
                .parse::<usize>()
                .unwrap()
        });
    let field = field.unwrap();
    let start = find(&pdf, &format!("{field} 0 obj\n")) + format!("{field} 0 obj\n").len();
    let end = start
        + pdf[start..]
            .windows(6)
            .position(|window| window == b"endobj")
            .unwrap();
    let text = String::from_utf8_lossy(&pdf[start..end]).trim_end().to_owned();
    assert!(text.contains("/V ()"), "{text}");
    let filled = text.replace("/V ()", "/V (Alice)");
    let moved = filled.replace("/Rect [ 72", "/Rect [ 73");
    assert_ne!(filled, moved);
    for (certify, is_permitted) in [
        (None, true),
        (Some(Permission::FormFilling), true),
        (Some(Permission::NoChanges), false),
    ] {
        let request = Request {
            certify,
            ..Request::default()
        };
        let signed = Signed::of(&pdf, &request);
        let later = updated(&signed.pdf, &[(field, Object::Text(&filled))]);
        let signature = report(&signed.signer, &later);
        let signature = signature
            .signatures
            .iter()
            .find(|found| found.signer.is_some())
            .unwrap();
        assert_eq!(signature.later_changes[0].kind, ChangeKind::FormField);
        assert_eq!(signature.later_changes[0].what, "name");
        assert_eq!(
            signature.verdict == Verdict::Valid,
            is_permitted,
            "{signature:#?}"
        );
        let elsewhere = updated(&signed.pdf, &[(field, Object::Text(&moved))]);
        let report = report(&signed.signer, &elsewhere);
        assert_eq!(report.verdict, Some(Verdict::Invalid), "{report:#?}");
    }
}

#[test]
fn an_annotation_needs_permission() {
    for (certify, is_permitted) in [
        (None, false),
        (Some(Permission::FormFilling), false),
        (Some(Permission::Annotations), true),
    ] {
        let request = Request {
            certify,
            ..Request::default()
        };
        let signed = Signed::of(&fixture("reportlab"), &request);
        let at = find(&signed.pdf, &format!("\n{} 0 obj\n", PAGE)) + format!("\n{} 0 obj\n", PAGE).len();
        let end = at
            + signed.pdf[at..]
                .windows(7)
                .position(|window| window == b"\nendobj")
                .unwrap();
        let page = String::from_utf8_lossy(&signed.pdf[at..end]).into_owned();
        let (before, after) = page.split_once("/Annots [").unwrap();
        let page = format!("{before}/Annots [96 0 R {after}");
        let note = "<</Type/Annot/Subtype/Text/Rect[0 0 9 9]/Contents(no)>>";
        let later = updated(
            &signed.pdf,
            &[(PAGE, Object::Text(&page)), (96, Object::Text(note))],
        );
        let signature = signed.judge(&later);
        assert_eq!(
            signature.later_changes[0].kind,
            ChangeKind::Annotation,
            "{signature:#?}"
        );
        assert_eq!(
            signature.verdict == Verdict::Valid,
            is_permitted,
            "{signature:#?}"
        );
    }
}

#[test]
fn a_flipped_bit_is_noticed_and_a_cut_is_survived() {
    let signed = Signed::new();
    let start = find(&signed.pdf, "/Contents <") + "/Contents <".len();
    let end = start + signed.pdf[start..].iter().position(|byte| *byte == b'>').unwrap();
    let verdict = |pdf: &[u8]| {
        verify(pdf, &[&signed.signer.root.certificate], NOW)
            .ok()
            .and_then(|report| report.verdict)
    };
    for at in (0..signed.pdf.len()).filter(|at| !(start..end).contains(at)) {
        let mut flipped = signed.pdf.clone();
        flipped[at] ^= 1 << (at % 8);
        assert_ne!(verdict(&flipped), Some(Verdict::Valid), "byte {at}");
    }
    for at in (start..end).step_by(3) {
        let mut flipped = signed.pdf.clone();
        flipped[at] ^= 1 << (at % 3);
        verdict(&flipped);
    }
    for length in (0..signed.pdf.len()).step_by(11) {
        assert_ne!(
            verdict(&signed.pdf[..length]),
            Some(Verdict::Valid),
            "{length} bytes"
        );
    }
}

#[test]
fn loops_and_bombs_are_refused_within_limits() {
    let refused = |pdf: &[u8]| verify(pdf, &[] as &[&[u8]], NOW).unwrap_err().to_string();
    let pdf = fixture("reportlab");
    let start = number_after(&pdf, "startxref\n");
    let body = &pdf[..find(&pdf, "trailer")];
    let looped = format!("trailer\n<</Size 9/Root 5 0 R/Prev {start}>>\nstartxref\n{start}\n%%EOF\n");
    assert!(refused(&[body, looped.as_bytes()].concat()).contains("circles"));
    // A field tree that contains itself, and a page tree that does.
    let root = number_after(&pdf, "/Root ");
    let form = "<</Type/Catalog/Pages 8 0 R/AcroForm<</Fields[90 0 R]>>>>";
    let field = "<</T(a)/Kids[90 0 R]>>";
    let objects = [(root, Object::Text(form)), (90, Object::Text(field))];
    assert!(refused(&updated(&pdf, &objects)).contains("twice"));
    let signer = Signer::p256();
    let own_kid = format!("<</Type/Pages/Kids[{PAGES} 0 R]/Count 1>>");
    let looped = updated(&pdf, &[(PAGES, Object::Text(&own_kid))]);
    let error = signer.prepare(&looped, &Request::default()).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}
