//! Where a seal goes: from what people say of a page as they see it to the user space of the page.

use serde::{Deserialize, Serialize};

use super::page::{Page, Rectangle};

/// A unit of length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// 1/72 inch.
    #[default]
    Point,
    /// Millimetre.
    Millimetre,
    /// A fraction of the page's width or height.
    Fraction,
}

/// From which corner of the page positions count, and which corner of the seal is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Down and to the right from the top left corner.
    #[default]
    TopLeft,
    /// Up and to the right from the bottom left corner, as PDF counts itself.
    BottomLeft,
}

/// Which point of the seal lies at the position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// The corner next to the origin.
    #[default]
    Corner,
    /// The middle.
    Centre,
}

/// A width and height, or one of them and the picture's proportions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Width, if it is given.
    pub width: Option<f64>,
    /// Height, if it is given.
    pub height: Option<f64>,
}

/// A position on a page as it is shown: cropped, and turned by its /Rotate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Distance from the left edge.
    pub x: f64,
    /// Distance from the edge of the origin.
    pub y: f64,
    /// How large; 42 mm wide where nothing is said, as company seals are.
    pub size: Size,
    /// What the numbers are in.
    pub unit: Unit,
    /// Where they count from.
    pub origin: Origin,
    /// Which point of the seal they are of.
    pub anchor: Anchor,
}

/// Points in a millimetre.
const POINTS_PER_MM: f64 = 72.0 / 25.4;
/// Width of a round company seal in millimetres.
const SEAL_WIDTH_MM: f64 = 42.0;
/// How far a seal may reach over the edge: the error of a rounded number, in points.
const TOLERANCE: f64 = 0.01;

impl Unit {
    pub(crate) fn points(self, value: f64, whole: f64) -> f64 {
        match self {
            Self::Point => value,
            Self::Millimetre => value * POINTS_PER_MM,
            Self::Fraction => value * whole,
        }
    }
}

/// A page as it is shown, in points.
pub(crate) struct Shown<'p> {
    page: &'p Page,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl<'p> Shown<'p> {
    pub(crate) fn new(page: &'p Page) -> Self {
        let (width, height) = (page.visible.width(), page.visible.height());
        let is_turned = page.rotate % 180 == 90;
        let (width, height) = if is_turned {
            (height, width)
        } else {
            (width, height)
        };
        Self {
            page,
            width: width * page.user_unit,
            height: height * page.user_unit,
        }
    }

    /// Width and height in points of a picture whose height is `aspect` times its width.
    pub(crate) fn size(&self, size: Size, unit: Unit, aspect: f64) -> (f64, f64) {
        let width = size.width.map(|width| unit.points(width, self.width));
        let height = size.height.map(|height| unit.points(height, self.height));
        match (width, height) {
            (Some(width), Some(height)) => (width, height),
            (Some(width), None) => (width, width * aspect),
            (None, Some(height)) => (height / aspect, height),
            (None, None) => (
                SEAL_WIDTH_MM * POINTS_PER_MM,
                SEAL_WIDTH_MM * POINTS_PER_MM * aspect,
            ),
        }
    }

    /// The rectangle of a picture at a position, counted in points from the bottom left corner of the page as it is
    /// shown. `None` if it is not on the page.
    pub(crate) fn rectangle(&self, position: &Position, aspect: f64) -> Option<Rectangle> {
        let (width, height) = self.size(position.size, position.unit, aspect);
        let mut left = position.unit.points(position.x, self.width);
        let mut bottom = position.unit.points(position.y, self.height);
        if position.anchor == Anchor::Centre {
            left -= width / 2.0;
            bottom -= height / 2.0;
        }
        if position.origin == Origin::TopLeft {
            bottom = self.height - bottom - height;
        }
        let rectangle = Rectangle {
            left,
            bottom,
            right: left + width,
            top: bottom + height,
        };
        self.contains(&rectangle).then_some(rectangle)
    }

    pub(crate) fn contains(&self, rectangle: &Rectangle) -> bool {
        rectangle.width() > 0.0
            && rectangle.height() > 0.0
            && rectangle.left >= -TOLERANCE
            && rectangle.bottom >= -TOLERANCE
            && rectangle.right <= self.width + TOLERANCE
            && rectangle.top <= self.height + TOLERANCE
    }

    /// The same rectangle in the page's user space.
    pub(crate) fn to_user_space(&self, shown: &Rectangle) -> Rectangle {
        let (x, y) = self.point(shown.left, shown.bottom);
        let (x2, y2) = self.point(shown.right, shown.top);
        Rectangle {
            left: x.min(x2),
            bottom: y.min(y2),
            right: x.max(x2),
            top: y.max(y2),
        }
    }

    /// A point of the page in user space. The page is turned clockwise, so its user space is turned back.
    fn point(&self, x: f64, y: f64) -> (f64, f64) {
        let box_ = &self.page.visible;
        let (x, y) = (x / self.page.user_unit, y / self.page.user_unit);
        let (across, up) = match self.page.rotate {
            90 => (box_.width() - y, x),
            180 => (box_.width() - x, box_.height() - y),
            270 => (y, box_.height() - x),
            _ => (x, y),
        };
        (box_.left + across, box_.bottom + up)
    }

    /// The rectangle in user space seen from the page as it is shown: the other way round.
    pub(crate) fn seen_from_user_space(&self, user: &Rectangle) -> Rectangle {
        let box_ = &self.page.visible;
        let shown = |x: f64, y: f64| {
            let (x, y) = (x - box_.left, y - box_.bottom);
            let (x, y) = match self.page.rotate {
                90 => (y, box_.width() - x),
                180 => (box_.width() - x, box_.height() - y),
                270 => (box_.height() - y, x),
                _ => (x, y),
            };
            (x * self.page.user_unit, y * self.page.user_unit)
        };
        let (x, y) = shown(user.left, user.bottom);
        let (x2, y2) = shown(user.right, user.top);
        Rectangle {
            left: x.min(x2),
            bottom: y.min(y2),
            right: x.max(x2),
            top: y.max(y2),
        }
    }

    /// The matrix that keeps a picture upright on the turned page: a turn against the clock (8.3.3).
    pub(crate) const fn upright(&self) -> [f64; 6] {
        match self.page.rotate {
            90 => [0.0, 1.0, -1.0, 0.0, 0.0, 0.0],
            180 => [-1.0, 0.0, 0.0, -1.0, 0.0, 0.0],
            270 => [0.0, -1.0, 1.0, 0.0, 0.0, 0.0],
            _ => [1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdf::object::{Dictionary, Ref};

    /// A page of 200 by 100 units with a corner at (10, 20).
    fn page(rotate: u16) -> Page {
        Page {
            reference: Ref {
                number: 1,
                generation: 0,
            },
            dictionary: Dictionary::default(),
            visible: Rectangle {
                left: 10.0,
                bottom: 20.0,
                right: 210.0,
                top: 120.0,
            },
            rotate,
            user_unit: 1.0,
            resources: None,
        }
    }

    fn user_space(rotate: u16, position: Position) -> [f64; 4] {
        let page = page(rotate);
        let shown = Shown::new(&page);
        let rectangle = shown.rectangle(&position, 0.5).unwrap();
        let user = shown.to_user_space(&rectangle);
        let back = shown.seen_from_user_space(&user);
        assert!((back.left - rectangle.left).abs() < 1e-9 && (back.top - rectangle.top).abs() < 1e-9);
        [user.left, user.bottom, user.right, user.top].map(f64::round)
    }

    #[test]
    fn the_top_left_corner_is_where_people_see_it() {
        let size = Size {
            width: Some(20.0),
            height: None,
        };
        let at = Position {
            x: 5.0,
            y: 3.0,
            size,
            ..Position::default()
        };
        assert_eq!(user_space(0, at), [15.0, 107.0, 35.0, 117.0]);
        // Turned clockwise, the bottom left corner of user space is the top left one of the page.
        assert_eq!(user_space(90, at), [13.0, 25.0, 23.0, 45.0]);
        assert_eq!(user_space(180, at), [185.0, 23.0, 205.0, 33.0]);
        assert_eq!(user_space(270, at), [197.0, 95.0, 207.0, 115.0]);
    }

    #[test]
    fn units_origins_and_anchors() {
        let size = Size {
            width: Some(0.5),
            height: Some(0.5),
        };
        let middle = Position {
            x: 0.5,
            y: 0.5,
            size,
            unit: Unit::Fraction,
            origin: Origin::BottomLeft,
            anchor: Anchor::Centre,
        };
        assert_eq!(user_space(0, middle), [60.0, 45.0, 160.0, 95.0]);
        let size = Size {
            width: None,
            height: Some(25.4),
        };
        let mm = Position {
            unit: Unit::Millimetre,
            origin: Origin::BottomLeft,
            size,
            ..Position::default()
        };
        assert_eq!(user_space(0, mm), [10.0, 20.0, 154.0, 92.0]);
    }

    #[test]
    fn a_seal_beside_the_page_is_noticed() {
        let page = page(0);
        let at = |x| Position {
            x,
            size: Size {
                width: Some(20.0),
                height: None,
            },
            ..Position::default()
        };
        assert!(Shown::new(&page).rectangle(&at(180.0), 1.0).is_some());
        assert!(Shown::new(&page).rectangle(&at(181.0), 1.0).is_none());
        assert!(Shown::new(&page).rectangle(&at(-1.0), 1.0).is_none());
        assert!(Shown::new(&page).rectangle(&at(f64::NAN), 1.0).is_none());
    }
}
