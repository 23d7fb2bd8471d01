//! Pages and what they inherit (ISO 32000-2 7.7.3).

use std::collections::HashSet;

use super::ReadError;
use super::document::Document;
use super::limits::{PAGES_MAX, TREE_DEPTH_MAX};
use super::object::{Dictionary, Object, Ref};

/// A rectangle with its corners in order (7.9.5), in default user space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rectangle {
    pub(crate) left: f64,
    pub(crate) bottom: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
}

impl Rectangle {
    /// ISO A4, for a page without a box.
    const A4: Self = Self {
        left: 0.0,
        bottom: 0.0,
        right: 595.0,
        top: 842.0,
    };

    pub(crate) const fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(crate) const fn height(&self) -> f64 {
        self.top - self.bottom
    }

    fn intersection(&self, other: &Self) -> Self {
        Self {
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.min(other.right),
            top: self.top.min(other.top),
        }
    }

    const fn is_empty(&self) -> bool {
        !(self.width() > 0.0 && self.height() > 0.0)
    }

    pub(crate) fn to_object(self) -> Object {
        Object::numbers([self.left, self.bottom, self.right, self.top])
    }

    pub(crate) fn read(document: &Document<'_>, value: &Object) -> Result<Option<Self>, ReadError> {
        let Object::Array(items) = document.resolve(value)? else {
            return Ok(None);
        };
        let mut corners = [0.0; 4];
        if items.len() != corners.len() {
            return Ok(None);
        }
        for (corner, item) in corners.iter_mut().zip(&items) {
            match document.resolve(item)?.as_number() {
                Some(value) => *corner = value,
                None => return Ok(None),
            }
        }
        let [x, y, x2, y2] = corners;
        Ok(Some(Self {
            left: x.min(x2),
            bottom: y.min(y2),
            right: x.max(x2),
            top: y.max(y2),
        }))
    }
}

/// A page.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) reference: Ref,
    pub(crate) dictionary: Dictionary,
    /// What is shown: the crop box within the media box (14.11.2).
    pub(crate) visible: Rectangle,
    /// How far it is turned clockwise when shown: 0, 90, 180 or 270.
    pub(crate) rotate: u16,
    /// Size of a unit of user space in points (Table 31, UserUnit).
    pub(crate) user_unit: f64,
    pub(crate) resources: Option<Object>,
}

/// Attributes that a page inherits (Table 31).
const INHERITABLE: [&str; 4] = ["Resources", "MediaBox", "CropBox", "Rotate"];

/// A walk over the page tree, in the order of the pages. /Count is not believed.
pub(crate) struct Pages<'d, 'a> {
    document: &'d Document<'a>,
    /// Nodes to visit, the next one last, with what they inherit.
    stack: Vec<(Object, Dictionary, usize)>,
    seen: HashSet<Ref>,
}

impl<'d, 'a> Pages<'d, 'a> {
    pub(crate) fn of(document: &'d Document<'a>) -> Result<Self, ReadError> {
        let root = document.catalog()?.get("Pages").cloned();
        let root = root.ok_or(ReadError::Wrong("the page tree"))?;
        Ok(Self {
            document,
            stack: vec![(root, Dictionary::default(), TREE_DEPTH_MAX)],
            seen: HashSet::new(),
        })
    }

    fn step(&mut self) -> Result<Option<Page>, ReadError> {
        while let Some((node, inherited, depth)) = self.stack.pop() {
            let reference = node.as_reference().ok_or(ReadError::Wrong("the page tree"))?;
            if !self.seen.insert(reference) {
                return Err(ReadError::Wrong("the page tree, in which a node comes twice"));
            }
            if self.seen.len() > PAGES_MAX {
                return Err(ReadError::Limit("nodes of the page tree"));
            }
            let Object::Dictionary(dictionary) = self.document.load(reference)? else {
                return Err(ReadError::Wrong("a page"));
            };
            let attributes = inherit(&dictionary, inherited);
            if dictionary.get("Kids").is_none() {
                return page(self.document, reference, dictionary, &attributes).map(Some);
            }
            let depth = depth
                .checked_sub(1)
                .ok_or(ReadError::Limit("depth of the page tree"))?;
            let kids = self.document.array(&dictionary, "Kids")?;
            self.stack
                .extend(kids.into_iter().rev().map(|kid| (kid, attributes.clone(), depth)));
        }
        Ok(None)
    }
}

impl Iterator for Pages<'_, '_> {
    type Item = Result<Page, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if let Some(Err(_)) = step {
            self.stack.clear();
        }
        step
    }
}

fn inherit(node: &Dictionary, mut inherited: Dictionary) -> Dictionary {
    for key in INHERITABLE {
        if let Some(value) = node.get(key) {
            inherited.set(key, value.clone());
        }
    }
    inherited
}

fn page(
    document: &Document<'_>,
    reference: Ref,
    dictionary: Dictionary,
    attributes: &Dictionary,
) -> Result<Page, ReadError> {
    let rectangle = |key| match attributes.get(key) {
        Some(value) => Rectangle::read(document, value),
        None => Ok(None),
    };
    let media = rectangle("MediaBox")?
        .filter(|found| !found.is_empty())
        .unwrap_or(Rectangle::A4);
    let crop = rectangle("CropBox")?.map(|crop| crop.intersection(&media));
    let turns = document.get(attributes, "Rotate")?.as_integer().unwrap_or(0);
    let rotate = u16::try_from(turns.rem_euclid(360)).unwrap_or(0);
    let user_unit = document.get(&dictionary, "UserUnit")?.as_number();
    Ok(Page {
        reference,
        visible: crop.filter(|crop| !crop.is_empty()).unwrap_or(media),
        rotate: if rotate.is_multiple_of(90) { rotate } else { 0 },
        user_unit: user_unit.filter(|unit| *unit > 0.0).unwrap_or(1.0),
        resources: attributes.get("Resources").cloned(),
        dictionary,
    })
}
