//! A seal where a word stands: on all of its places, on one, or on the last.

use serde::{Deserialize, Serialize};

use super::appearance::Mark;
use super::document::Document;
use super::page::{Page, Pages, Rectangle};
use super::place::{Shown, Size, Unit};
use super::sign::PrepareError;
use super::text::{self, Glyph};

/// Which of the places where a word stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// The first, the second, …, counted from 1 in the order of pages and of drawing.
    Nth(usize),
    /// The last.
    #[default]
    Last,
    /// Every one, in one signature.
    All,
}

/// A seal on a word. The middle of the seal lies on the middle of the word; where it would reach over the edge of the
/// page it is moved onto it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Keyword {
    /// The word. White space does not count, neither here nor in the document.
    pub text: String,
    /// Which of its places.
    pub which: Which,
    /// How large; 42 mm wide where nothing is said.
    pub size: Size,
    /// What the numbers are in.
    pub unit: Unit,
    /// How far to the right of the word and how far above it.
    pub offset: (f64, f64),
}

/// Most places of one word.
const PLACES_MAX: usize = 500;

/// The marks of a seal on a word.
pub(crate) fn marks(
    document: &Document<'_>,
    keyword: &Keyword,
    aspect: f64,
) -> Result<Vec<Mark>, PrepareError> {
    let wanted: Vec<char> = keyword
        .text
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .collect();
    let mut places: Vec<(usize, Page, Rectangle)> = Vec::new();
    if wanted.is_empty() {
        return Err(PrepareError::NoWord(keyword.text.clone()));
    }
    for (page, number) in Pages::of(document)?.zip(1..) {
        let page = page?;
        for place in find(&text::glyphs(document, &page)?, &wanted) {
            places.push((number, page.clone(), place));
        }
        if places.len() > PLACES_MAX {
            return Err(super::ReadError::Limit("places of a word").into());
        }
    }
    let found = places.len();
    let chosen = match keyword.which {
        Which::All => places,
        Which::Last => places.into_iter().last().into_iter().collect(),
        Which::Nth(nth) => places.into_iter().nth(nth.wrapping_sub(1)).into_iter().collect(),
    };
    if chosen.is_empty() {
        return Err(match keyword.which {
            Which::Nth(nth) if found > 0 => PrepareError::FewerWords { nth, found },
            _ => PrepareError::NoWord(keyword.text.clone()),
        });
    }
    let mark =
        |(number, page, place)| mark(page, &place, keyword, aspect).ok_or(PrepareError::OffPage(number));
    chosen.into_iter().map(mark).collect()
}

/// The places of a word among the glyphs of a page.
fn find(glyphs: &[Glyph], wanted: &[char]) -> Vec<Rectangle> {
    let letters: Vec<(char, usize)> = glyphs
        .iter()
        .enumerate()
        .flat_map(|(at, glyph)| glyph.text.chars().map(move |letter| (letter, at)))
        .filter(|(letter, _)| !letter.is_whitespace())
        .collect();
    let mut places = Vec::new();
    let mut at = 0;
    while at + wanted.len() <= letters.len() {
        let here = &letters[at..at + wanted.len()];
        if here.iter().map(|(letter, _)| letter).eq(wanted) {
            places.push(around(here.iter().map(|(_, glyph)| &glyphs[*glyph].place)));
            at += wanted.len();
        } else {
            at += 1;
        }
    }
    places
}

fn around<'g>(places: impl Iterator<Item = &'g Rectangle>) -> Rectangle {
    let nothing = Rectangle {
        left: f64::INFINITY,
        bottom: f64::INFINITY,
        right: f64::NEG_INFINITY,
        top: f64::NEG_INFINITY,
    };
    places.fold(nothing, |all, place| Rectangle {
        left: all.left.min(place.left),
        bottom: all.bottom.min(place.bottom),
        right: all.right.max(place.right),
        top: all.top.max(place.top),
    })
}

fn mark(page: Page, place: &Rectangle, keyword: &Keyword, aspect: f64) -> Option<Mark> {
    let shown = Shown::new(&page);
    let (width, height) = shown.size(keyword.size, keyword.unit, aspect);
    let word = shown.seen_from_user_space(place);
    let right = keyword.unit.points(keyword.offset.0, shown.width);
    let up = keyword.unit.points(keyword.offset.1, shown.height);
    let on_page = |wanted: f64, most: f64| wanted.min(most).max(0.0);
    let left = on_page(
        (word.left + word.right - width) / 2.0 + right,
        shown.width - width,
    );
    let bottom = on_page(
        (word.bottom + word.top - height) / 2.0 + up,
        shown.height - height,
    );
    let rectangle = Rectangle {
        left,
        bottom,
        right: left + width,
        top: bottom + height,
    };
    let fits = shown.contains(&rectangle);
    fits.then(|| Mark::whole(page, rectangle))
}
