//! Where a seal goes on the pages of an OFD: the words of PDF in millimetres from the upper left corner.

use super::{Appearance, SealingError};
use crate::ofd::{self, Page, PagingSide};
use crate::pdf::{Anchor, Origin, PageNumber, Paging, Placement, Position, Unit};
use crate::ses;

/// Points in a millimetre.
const POINTS_PER_MM: f64 = 72.0 / 25.4;

/// The placement of an OFD seal. The seal's own size is the only one that readers show.
pub(super) fn in_ofd(
    ofd: &[u8],
    document: usize,
    seal: &[u8],
    appearance: &Appearance,
) -> Result<ofd::Placement, SealingError> {
    if appearance.picture.is_some() {
        return Err(SealingError::Order(
            "an OFD shows the picture of its electronic seal, no other",
        ));
    }
    let seal = ses::Seal::read(seal).map_err(ses::PrepareError::from)?;
    let pages = ofd::pages(ofd, document).map_err(ofd::PrepareError::from)?;
    match &appearance.placement {
        Placement::At(page, position) => {
            let size = (
                millimetres(seal.picture.width_mm),
                millimetres(seal.picture.height_mm),
            );
            at(&pages, *page, position, size)
        }
        Placement::Paging(paging) => self::paging(&pages, paging, millimetres(seal.picture.height_mm)),
        Placement::InField | Placement::On(_) => Err(SealingError::Order(
            "a seal in an OFD goes to a position or across the pages; fields and words are of PDF",
        )),
    }
}

/// Sizes beyond what can be printed come out as none that fits.
fn millimetres(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

fn at(
    pages: &[Page],
    number: PageNumber,
    position: &Position,
    (width, height): (f64, f64),
) -> Result<ofd::Placement, SealingError> {
    if position.size.width.is_some() || position.size.height.is_some() {
        return Err(SealingError::Order(
            "the size of a seal in an OFD is the one that it was made with",
        ));
    }
    let page = match number {
        PageNumber::Nth(page) => page,
        PageNumber::Last => pages.len(),
    };
    let missing = ofd::PlacementError::Page {
        page,
        pages: pages.len(),
    };
    let index = page.checked_sub(1).filter(|index| *index < pages.len());
    let (page_width, page_height) = match index {
        Some(index) => pages[index].size,
        None => return Err(ofd::PrepareError::from(missing).into()),
    };
    let x = in_millimetres(position.unit, position.x, page_width);
    let y = in_millimetres(position.unit, position.y, page_height);
    let (left, down) = match position.anchor {
        Anchor::Corner => (x, y),
        Anchor::Centre => (x - width / 2.0, y - height / 2.0),
    };
    let y = match position.origin {
        Origin::TopLeft => down,
        Origin::BottomLeft => page_height - down - height,
    };
    Ok(ofd::Placement::At { page, x: left, y })
}

fn in_millimetres(unit: Unit, value: f64, whole: f64) -> f64 {
    match unit {
        Unit::Point => value / POINTS_PER_MM,
        Unit::Millimetre => value,
        Unit::Fraction => value * whole,
    }
}

/// The strips of an OFD lie at one height on all pages: that of the first page.
fn paging(pages: &[Page], paging: &Paging, seal_height: f64) -> Result<ofd::Placement, SealingError> {
    if paging.size.width.is_some() || paging.size.height.is_some() {
        return Err(SealingError::Order(
            "the size of a seal in an OFD is the one that it was made with",
        ));
    }
    let height = pages.first().map_or(0.0, |page| page.size.1);
    Ok(ofd::Placement::Paging {
        side: PagingSide::Right,
        margin: 0.0,
        y: Some(height * (1.0 - paging.middle) - seal_height / 2.0),
        pages_per_seal: paging.pages_max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(position: Position) -> ofd::Placement {
        let page = Page {
            id: "1".into(),
            path: "p".into(),
            size: (200.0, 100.0),
        };
        at(&[page.clone(), page], PageNumber::Last, &position, (40.0, 20.0)).unwrap()
    }

    #[test]
    fn positions_in_every_unit_and_from_every_corner() {
        let expected = ofd::Placement::At {
            page: 2,
            x: 100.0,
            y: 50.0,
        };
        let fraction = Position {
            x: 0.5,
            y: 0.5,
            unit: Unit::Fraction,
            ..Position::default()
        };
        assert_eq!(placed(fraction), expected);
        let from_below = Position {
            x: 100.0,
            y: 30.0,
            unit: Unit::Millimetre,
            origin: Origin::BottomLeft,
            ..Position::default()
        };
        assert_eq!(placed(from_below), expected);
        let middle = Position {
            x: 120.0,
            y: 60.0,
            unit: Unit::Millimetre,
            anchor: Anchor::Centre,
            ..Position::default()
        };
        assert_eq!(placed(middle), expected);
    }
}
