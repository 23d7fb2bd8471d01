//! The seal across the edges of the pages (骑缝章): cut into vertical strips, one on the right edge of each page, so that
//! the pages laid out like a fan show it whole and none can be exchanged unseen.

use serde::{Deserialize, Serialize};

use super::appearance::Mark;
use super::document::Document;
use super::page::{Page, Pages, Rectangle};
use super::place::{Shown, Size, Unit};
use super::sign::PrepareError;

/// A seal across the edges of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paging {
    /// How large the whole seal is; 42 mm wide where nothing is said.
    pub size: Size,
    /// What the numbers are in.
    pub unit: Unit,
    /// Height of the seal's middle over the bottom of each page as a fraction of the page's height.
    pub middle: f64,
    /// Most pages that share one seal; the next pages share another.
    pub pages_max: usize,
}

impl Default for Paging {
    fn default() -> Self {
        Self {
            size: Size::default(),
            unit: Unit::default(),
            middle: 0.5,
            pages_max: 20,
        }
    }
}

/// Most pages that are marked in one signature.
const MARKS_MAX: usize = 2_000;

/// One mark on each page.
pub(crate) fn marks(
    document: &Document<'_>,
    paging: &Paging,
    aspect: f64,
) -> Result<Vec<Mark>, PrepareError> {
    let mut pages: Vec<Page> = Vec::new();
    for page in Pages::of(document)? {
        if pages.len() == MARKS_MAX {
            return Err(super::ReadError::Limit("pages under one seal").into());
        }
        pages.push(page?);
    }
    if pages.len() < 2 {
        return Err(PrepareError::OnePage);
    }
    let mut marks = Vec::with_capacity(pages.len());
    for count in groups(pages.len(), paging.pages_max.max(2)) {
        let first = marks.len();
        for (at, page) in pages[first..first + count].iter().enumerate() {
            marks.push(mark(page, paging, aspect, at, count).ok_or(PrepareError::OffPage(first + at + 1))?);
        }
    }
    Ok(marks)
}

/// How many pages share each seal. A page that would be alone joins those before it.
fn groups(pages: usize, most: usize) -> Vec<usize> {
    let mut groups = vec![most; pages / most];
    match (pages % most, groups.last_mut()) {
        (0, _) => {}
        (1, Some(last)) => *last += 1,
        (rest, _) => groups.push(rest),
    }
    groups
}

fn mark(page: &Page, paging: &Paging, aspect: f64, at: usize, count: usize) -> Option<Mark> {
    let shown = Shown::new(page);
    let (width, height) = shown.size(paging.size, paging.unit, aspect);
    #[expect(clippy::cast_precision_loss, reason = "a group has few pages")]
    let (at, count) = (at as f64, count as f64);
    let bottom = shown.height * paging.middle - height / 2.0;
    let strip = Rectangle {
        left: shown.width - width / count,
        bottom,
        right: shown.width,
        top: bottom + height,
    };
    let is_on_page = shown.contains(&strip);
    is_on_page.then(|| Mark::strip(page.clone(), strip, at / count, (at + 1.0) / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_alone_under_a_seal() {
        assert_eq!(groups(5, 20), [5]);
        assert_eq!(groups(20, 10), [10, 10]);
        assert_eq!(groups(21, 10), [10, 11]);
        assert_eq!(groups(22, 10), [10, 10, 2]);
        assert_eq!(groups(3, 2), [3]);
    }
}
