//! Where a seal is shown: StampAnnot with Boundary and Clip (GB/T 33190-2016 18.2.4), in millimetres from the
//! upper left corner of a page.

use serde::Serialize;

use super::Page;

/// A rectangle in millimetres; y grows downwards.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rect {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Rect {
    /// Reads ST_Box: four numbers, the last two positive.
    pub(super) fn read(text: &str) -> Option<Self> {
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [x, y, width, height] if text.split_whitespace().count() == 4 => {
                let is_plain = numbers
                    .iter()
                    .all(|number| number.is_finite() && number.abs() < 1e6);
                (is_plain && width > 0.0 && height > 0.0).then_some(Self { x, y, width, height })
            }
            _ => None,
        }
    }

    /// Writes ST_Box, to a thousandth of a millimetre.
    pub(super) fn write(self) -> String {
        let numbers = [self.x, self.y, self.width, self.height].map(|number| {
            let text = format!("{number:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        });
        numbers.join(" ")
    }
}

/// The seal on one page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stamp {
    /// The page, by the ID in Document.xml.
    pub page_id: String,
    /// Where the whole picture lies.
    pub boundary: Rect,
    /// The part of the picture that is shown, measured from the boundary's corner.
    pub clip: Option<Rect>,
}

/// At which edge of the pages a paging seal lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingSide {
    /// The left edge.
    Left,
    /// The right edge.
    Right,
}

/// Where the seal goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    /// On one page, its upper left corner at a point. The seal's own size is taken.
    At {
        /// From 1.
        page: usize,
        /// Millimetres from the left.
        x: f64,
        /// Millimetres from the top.
        y: f64,
    },
    /// Across the edges of all pages (骑缝章), a strip on each.
    Paging {
        /// At which edge.
        side: PagingSide,
        /// Millimetres between the strips and the edge.
        margin: f64,
        /// Millimetres from the top; in the middle if there is none.
        y: Option<f64>,
        /// Most pages that share one seal. A last page that would be alone joins those before it.
        pages_per_seal: usize,
    },
}

/// Why a seal cannot be put there.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlacementError {
    /// No such page.
    #[error("there is no page {page}; the document has {pages}")]
    Page {
        /// The page asked for.
        page: usize,
        /// How many there are.
        pages: usize,
    },
    /// Not on the page as a whole.
    #[error("a seal of {width} mm x {height} mm at ({x}, {y}) is not on page {page} as a whole")]
    Outside {
        /// The page.
        page: usize,
        /// Millimetres from the left.
        x: f64,
        /// Millimetres from the top.
        y: f64,
        /// Millimetres.
        width: f64,
        /// Millimetres.
        height: f64,
    },
    /// A paging seal on a single page, or with one page for each seal.
    #[error("a paging seal needs two pages at least")]
    TooFewPages,
    /// More stamps than one signature may have.
    #[error("too many stamps for one signature")]
    TooMany,
}

/// The stamps of a placement for a seal of `size` (width, height in millimetres).
pub(super) fn stamps(
    placement: &Placement,
    pages: &[Page],
    size: (f64, f64),
) -> Result<Vec<Stamp>, PlacementError> {
    match *placement {
        Placement::At { page, x, y } => at(pages, page, (x, y), size).map(|stamp| vec![stamp]),
        Placement::Paging {
            side,
            margin,
            y,
            pages_per_seal,
        } => {
            if pages.len() < 2 || pages_per_seal < 2 {
                return Err(PlacementError::TooFewPages);
            }
            let mut stamps = Vec::with_capacity(pages.len());
            let mut first = 0;
            for count in groups(pages.len(), pages_per_seal) {
                let group = &pages[first..first + count];
                for (index, page) in group.iter().enumerate() {
                    let stamp = strip(page, (index, count), size, side, margin, y);
                    check_strip(&stamp, page, first + index + 1)?;
                    stamps.push(stamp);
                }
                first += count;
            }
            Ok(stamps)
        }
    }
}

fn at(pages: &[Page], page: usize, (x, y): (f64, f64), size: (f64, f64)) -> Result<Stamp, PlacementError> {
    let found = page.checked_sub(1).and_then(|index| pages.get(index));
    let found = found.ok_or(PlacementError::Page {
        page,
        pages: pages.len(),
    })?;
    let (width, height) = size;
    let inside = x >= 0.0 && y >= 0.0 && x + width <= found.size.0 && y + height <= found.size.1;
    if !inside {
        return Err(PlacementError::Outside {
            page,
            x,
            y,
            width,
            height,
        });
    }
    Ok(Stamp {
        page_id: found.id.clone(),
        boundary: Rect { x, y, width, height },
        clip: None,
    })
}

/// How many pages share each seal.
fn groups(pages: usize, most: usize) -> Vec<usize> {
    let mut groups = vec![most; pages / most];
    match pages % most {
        0 => {}
        1 if !groups.is_empty() => *groups.last_mut().expect("just seen not to be empty") += 1,
        rest => groups.push(rest),
    }
    groups
}

/// The strip on page `index` of `count`: the whole picture is placed so that just this strip lies on the page, and
/// clipped to it.
fn strip(
    page: &Page,
    (index, count): (usize, usize),
    (width, height): (f64, f64),
    side: PagingSide,
    margin: f64,
    y: Option<f64>,
) -> Stamp {
    let as_number = |index: usize| f64::from(u32::try_from(index).unwrap_or(u32::MAX));
    let slice = width / as_number(count);
    let (x, strip) = match side {
        PagingSide::Right => (page.size.0 - slice * as_number(index + 1) - margin, index),
        PagingSide::Left => {
            let from_the_right = count - 1 - index;
            (margin - slice * as_number(from_the_right), from_the_right)
        }
    };
    let y = y.unwrap_or((page.size.1 - height) / 2.0);
    Stamp {
        page_id: page.id.clone(),
        boundary: Rect { x, y, width, height },
        clip: Some(Rect {
            x: slice * as_number(strip),
            y: 0.0,
            width: slice,
            height,
        }),
    }
}

fn check_strip(stamp: &Stamp, page: &Page, number: usize) -> Result<(), PlacementError> {
    let Rect { x, y, width, height } = stamp.boundary;
    let strip = stamp.clip.unwrap_or(stamp.boundary);
    // Rounding may carry a strip a hair beyond the edge.
    let left = x + strip.x;
    let inside =
        left >= -0.01 && left + strip.width <= page.size.0 + 0.01 && y >= 0.0 && y + height <= page.size.1;
    if inside {
        Ok(())
    } else {
        Err(PlacementError::Outside {
            page: number,
            x,
            y,
            width,
            height,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(count: usize) -> Vec<Page> {
        let page = |index: usize| Page {
            id: (index + 1).to_string(),
            path: String::new(),
            size: (210.0, 297.0),
        };
        (0..count).map(page).collect()
    }

    fn paging(side: PagingSide, pages_per_seal: usize) -> Placement {
        Placement::Paging {
            side,
            margin: 0.0,
            y: None,
            pages_per_seal,
        }
    }

    /// The figures of a file in the field: 210 mm, five pages, a seal of 40 mm.
    #[test]
    fn strips_lie_at_the_right_edge() {
        let stamps = stamps(&paging(PagingSide::Right, 100), &pages(5), (40.0, 40.0)).unwrap();
        for (index, stamp) in stamps.iter().enumerate() {
            let clip = stamp.clip.unwrap();
            let expected = [202.0, 194.0, 186.0, 178.0, 170.0][index];
            assert!((stamp.boundary.x - expected).abs() < 1e-9, "{stamp:?}");
            assert!(
                (clip.x - [0.0, 8.0, 16.0, 24.0, 32.0][index]).abs() < 1e-9
                    && (clip.width - 8.0).abs() < 1e-9
            );
            assert!(
                (stamp.boundary.x + clip.x - 202.0).abs() < 1e-9,
                "every strip ends at the edge"
            );
        }
    }

    #[test]
    fn strips_lie_at_the_left_edge() {
        let stamps = stamps(&paging(PagingSide::Left, 100), &pages(4), (40.0, 40.0)).unwrap();
        for stamp in &stamps {
            assert!(
                (stamp.boundary.x + stamp.clip.unwrap().x).abs() < 1e-9,
                "{stamp:?}"
            );
        }
        assert!(
            (stamps[0].clip.unwrap().x - 30.0).abs() < 1e-9,
            "the first page has the last strip"
        );
    }

    #[test]
    fn a_page_is_not_left_alone() {
        assert_eq!(groups(7, 3), [3, 4]);
        assert_eq!(groups(6, 3), [3, 3]);
        assert_eq!(groups(8, 3), [3, 3, 2]);
        assert_eq!(groups(2, 50), [2]);
    }

    #[test]
    fn what_is_not_on_a_page_is_refused() {
        let a = |page, x, y| stamps(&Placement::At { page, x, y }, &pages(1), (40.0, 40.0));
        assert!(a(1, 170.0, 257.0).is_ok());
        assert!(matches!(a(1, 170.1, 0.0), Err(PlacementError::Outside { .. })));
        assert!(matches!(a(1, f64::NAN, 0.0), Err(PlacementError::Outside { .. })));
        assert_eq!(a(2, 0.0, 0.0), Err(PlacementError::Page { page: 2, pages: 1 }));
        assert_eq!(a(0, 0.0, 0.0), Err(PlacementError::Page { page: 0, pages: 1 }));
        let alone = stamps(&paging(PagingSide::Right, 9), &pages(1), (40.0, 40.0));
        assert_eq!(alone, Err(PlacementError::TooFewPages));
    }

    #[test]
    fn boxes_are_read_and_written() {
        let rect = Rect {
            x: -1.5,
            y: 0.0,
            width: 40.0,
            height: 8.125,
        };
        assert_eq!(rect.write(), "-1.5 0 40 8.125");
        assert_eq!(Rect::read(" -1.5  0 40\n8.125"), Some(rect));
        for text in [
            "",
            "1 2 3",
            "1 2 3 4 5",
            "1 2 0 4",
            "1 2 NaN 4",
            "1 2 inf 4",
            "a b c d",
        ] {
            assert_eq!(Rect::read(text), None, "{text}");
        }
    }
}
