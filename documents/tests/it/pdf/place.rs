//! Where a seal is seen, as poppler draws it.

use documents::pdf::{
    Anchor, Keyword, Origin, Paging, Placement, Position, PrepareError, Request, Seal, Unit, Which,
};

use super::judge::{Picture, pyhanko, qpdf_accepts};
use super::{Signer, at, fixture, seal_image, square};

/// Signs with a seal on a page and draws that page.
fn sealed(signer: &Signer, pdf: &[u8], page: usize, position: Position) -> (Vec<u8>, Picture) {
    let image = seal_image();
    let placement = at(page, position);
    let seal = Some(Seal {
        image: &image,
        placement: &placement,
    });
    let signed = signer.sign(
        pdf,
        &Request {
            seal,
            ..Request::default()
        },
    );
    let picture = Picture::of(&signed, page);
    (signed, picture)
}

#[track_caller]
fn is_near(found: [usize; 4], expected: [usize; 4]) {
    let far = found
        .iter()
        .zip(expected)
        .any(|(found, expected)| found.abs_diff(expected) > 1);
    assert!(!far, "{found:?}, not {expected:?}");
}

#[test]
fn a_seal_is_upright_at_its_place_however_the_page_is_turned_and_cropped() {
    let signer = Signer::p256();
    let pdf = fixture("pikepdf-rotated-cropped");
    for page in 1..=4 {
        let position = Position {
            x: 30.0,
            y: 40.0,
            size: square(60.0),
            ..Position::default()
        };
        let (signed, picture) = sealed(&signer, &pdf, page, position);
        let expected = if page % 2 == 1 { (400, 300) } else { (300, 400) };
        assert_eq!((picture.width, picture.height), expected, "the crop box");
        is_near(picture.red_box().unwrap(), [30, 40, 90, 100]);
        // The mark fills the upper left quarter.
        assert!(picture.is_red(30 + 20, 40 + 20), "page {page}");
        for (x, y) in [(40, 20), (20, 40), (40, 40)] {
            assert!(!picture.is_red(30 + x, 40 + y), "page {page}: {x} {y}");
        }
        qpdf_accepts(&signed);
        assert!(pyhanko(&signed, &signer.root.certificate)[0].contains("bottom_line=True"));
    }
}

#[test]
fn the_same_place_in_other_words() {
    let signer = Signer::p256();
    let pdf = fixture("pikepdf-rotated-cropped");
    // On page 1, 400 by 300 points, a square of 72 points whose top left corner is at (100, 114).
    let mm = |points: f64| points * 25.4 / 72.0;
    for position in [
        Position {
            x: mm(100.0),
            y: mm(114.0),
            size: square(25.4),
            unit: Unit::Millimetre,
            ..Position::default()
        },
        Position {
            x: 0.25,
            y: 0.38,
            size: square(0.18),
            unit: Unit::Fraction,
            origin: Origin::BottomLeft,
            ..Position::default()
        },
        Position {
            x: 136.0,
            y: 150.0,
            size: square(72.0),
            anchor: Anchor::Centre,
            ..Position::default()
        },
    ] {
        let (_, picture) = sealed(&signer, &pdf, 1, position);
        is_near(picture.red_box().unwrap(), [100, 114, 172, 186]);
    }
}

#[test]
fn a_sealed_page_looks_as_it_did_when_it_was_looked_at() {
    let signer = Signer::p256();
    let position = Position {
        x: 100.0,
        y: 60.0,
        size: square(119.0),
        ..Position::default()
    };
    let (_, picture) = sealed(&signer, &fixture("reportlab"), 1, position);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pdf");
    let golden = Picture::decode(&std::fs::read(folder.join("sealed-page.png")).unwrap());
    let difference = picture.difference(&golden);
    assert!(difference < 0.002, "{difference} of the pixels differ");
}

#[test]
fn a_seal_that_is_not_on_the_page_is_refused() {
    let signer = Signer::p256();
    let pdf = fixture("reportlab");
    let image = seal_image();
    let refused = |page, x| {
        let placement = at(
            page,
            Position {
                x,
                ..Position::default()
            },
        );
        let seal = Some(Seal {
            image: &image,
            placement: &placement,
        });
        let request = Request {
            seal,
            ..Request::default()
        };
        signer.prepare(&pdf, &request).unwrap_err()
    };
    assert_eq!(refused(1, 590.0), PrepareError::OffPage(1));
    assert_eq!(refused(1, -1.0), PrepareError::OffPage(1));
    assert_eq!(refused(4, 0.0), PrepareError::NoPage(4));
    assert_eq!(refused(0, 0.0), PrepareError::NoPage(0));
}

#[test]
fn a_seal_across_the_edges_is_one_signature_with_a_strip_on_each_page() {
    let signer = Signer::p256();
    let image = seal_image();
    let placement = Placement::Paging(Paging {
        size: square(90.0),
        ..Paging::default()
    });
    let request = Request {
        seal: Some(Seal {
            image: &image,
            placement: &placement,
        }),
        ..Request::default()
    };
    let signed = signer.sign(&fixture("reportlab"), &request);
    qpdf_accepts(&signed);
    let judged = pyhanko(&signed, &signer.root.certificate);
    assert_eq!(judged.len(), 1);
    assert!(judged[0].contains("bottom_line=True"), "{judged:?}");
    // Strips of 30 points at the right edge of 595; the mark lies in the upper left quarter of the whole.
    let pages: Vec<_> = (1..=3).map(|page| Picture::of(&signed, page)).collect();
    for picture in &pages {
        let [left, top, right, bottom] = picture.red_box().unwrap();
        assert!(left >= 564 && right <= picture.width && top >= 375 && bottom <= 467);
    }
    assert!(pages[0].is_red(566 + 25, 376 + 40), "the mark");
    assert!(!pages[2].is_red(566 + 5, 376 + 40), "no mark");
    let image_again = Request {
        seal: request.seal,
        ..Request::default()
    };
    assert_eq!(
        signer.prepare(&signed, &image_again).unwrap_err(),
        PrepareError::SeveralPlaces
    );
    assert_eq!(
        signer.prepare(&fixture("fpdf2"), &request).unwrap_err(),
        PrepareError::OnePage
    );
}

/// Signs with a small seal on a word.
fn on_word(signer: &Signer, pdf: &[u8], text: &str, which: Which) -> Result<Vec<u8>, PrepareError> {
    let image = seal_image();
    let placement = Placement::On(Keyword {
        text: text.into(),
        which,
        size: square(20.0),
        ..Keyword::default()
    });
    let seal = Some(Seal {
        image: &image,
        placement: &placement,
    });
    let request = Request {
        seal,
        ..Request::default()
    };
    signer.prepare(pdf, &request)?;
    Ok(signer.sign(pdf, &request))
}

/// The middle of the red box on a page.
fn middle(pdf: &[u8], page: usize) -> Option<(usize, usize)> {
    let [left, top, right, bottom] = Picture::of(pdf, page).red_box()?;
    Some((usize::midpoint(left, right), usize::midpoint(top, bottom)))
}

#[test]
fn a_seal_finds_its_word() {
    let signer = Signer::p256();
    let pdf = fixture("reportlab");
    // "Contract, page 1. Party A signs here." at (72, 750), "Party A and Party B" at (72, 500), in 14 points.
    let last = on_word(&signer, &pdf, "Party B", Which::Last).unwrap();
    let (x, y) = middle(&last, 3).unwrap();
    assert!(x.abs_diff(171) <= 2 && y.abs_diff(338) <= 3, "{x} {y}");
    assert_eq!((middle(&last, 1), middle(&last, 2)), (None, None));
    let third = on_word(&signer, &pdf, "PartyA", Which::Nth(3)).unwrap();
    let (x, y) = middle(&third, 2).unwrap();
    assert!(x.abs_diff(205) <= 2 && y.abs_diff(88) <= 3, "{x} {y}");
    let all = on_word(&signer, &pdf, "Party B", Which::All).unwrap();
    qpdf_accepts(&all);
    assert!((1..=3).all(|page| middle(&all, page).is_some()));
    assert!(pyhanko(&all, &signer.root.certificate)[0].contains("bottom_line=True"));
    let refused = |text: &str, which| on_word(&signer, &pdf, text, which).unwrap_err();
    assert_eq!(
        refused("Party C", Which::All),
        PrepareError::NoWord("Party C".into())
    );
    assert_eq!(refused(" ", Which::All), PrepareError::NoWord(" ".into()));
    assert_eq!(
        refused("Party B", Which::Nth(4)),
        PrepareError::FewerWords { nth: 4, found: 3 }
    );
    assert_eq!(
        refused("Party B", Which::Nth(0)),
        PrepareError::FewerWords { nth: 0, found: 3 }
    );
}

#[test]
fn a_word_is_found_in_the_text_of_every_producer() {
    let signer = Signer::p256();
    for (name, page) in [
        ("chromium", 2),
        ("fpdf2", 1),
        ("ghostscript", 2),
        ("latex", 2),
        ("libreoffice", 1),
        ("pdf-writer", 1),
        ("weasyprint", 2),
    ] {
        let sealed = on_word(&signer, &fixture(name), "signs here", Which::Last);
        let sealed = sealed.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (x, y) = middle(&sealed, page).unwrap_or_else(|| panic!("{name}"));
        let words = words(&sealed, page);
        let (left, top, right, bottom) = words.into_iter().rfind(|(word, _)| word == "signs").unwrap().1;
        // The seal lies on the middle of the two words.
        assert!(
            left < x && x < right + 40 && top < y + 6 && y < bottom + 6,
            "{name}: {x} {y} {left} {top} {right} {bottom}"
        );
    }
}

type Word = (String, (usize, usize, usize, usize));

/// The words of a page as `pdftotext` finds them, with left, top, right and bottom.
fn words(pdf: &[u8], page: usize) -> Vec<Word> {
    let text = super::judge::pdftotext(pdf, page);
    let number = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=\"")).unwrap().1;
        rest.split(['.', '"']).next().unwrap().parse().unwrap()
    };
    let lines = text.lines().filter(|line| line.contains("<word"));
    lines
        .map(|line| {
            let word = line.split_once('>').unwrap().1.split('<').next().unwrap();
            let place = (
                number(line, "xMin"),
                number(line, "yMin"),
                number(line, "xMax"),
                number(line, "yMax"),
            );
            (word.to_owned(), place)
        })
        .collect()
}
