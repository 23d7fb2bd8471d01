//! What a signature looks like: the picture of a seal, or a part of it, as the appearance of an annotation
//! (ISO 32000-2 12.5.5, 8.10).

use super::object::{Dictionary, Object, Ref};
use super::page::{Page, Rectangle};
use super::place::Shown;
use super::update::Update;
use super::write::push;

/// A picture in a box on a page; what of it lies outside the box is not seen.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) page: Page,
    /// The box on the page as it is shown.
    pub(crate) shown: Rectangle,
    /// The picture, counted from the lower left corner of the box.
    picture: Rectangle,
}

impl Mark {
    /// The whole picture fills the box.
    pub(crate) const fn whole(page: Page, shown: Rectangle) -> Self {
        let picture = Rectangle {
            left: 0.0,
            bottom: 0.0,
            right: shown.width(),
            top: shown.height(),
        };
        Self { page, shown, picture }
    }

    /// A vertical strip of the picture fills the box: from `from` to `to` of its width.
    pub(crate) fn strip(page: Page, shown: Rectangle, from: f64, to: f64) -> Self {
        let width = shown.width() / (to - from);
        let left = -from * width;
        let picture = Rectangle {
            left,
            bottom: 0.0,
            right: left + width,
            top: shown.height(),
        };
        Self { page, shown, picture }
    }

    /// The picture, whose height is `aspect` times its width, in the middle of the box and as large as fits.
    pub(crate) fn fitted(page: Page, shown: Rectangle, aspect: f64) -> Self {
        let width = shown.width().min(shown.height() / aspect);
        let height = width * aspect;
        let (left, bottom) = ((shown.width() - width) / 2.0, (shown.height() - height) / 2.0);
        let picture = Rectangle {
            left,
            bottom,
            right: left + width,
            top: bottom + height,
        };
        Self { page, shown, picture }
    }

    /// Its rectangle in the page's user space.
    pub(crate) fn rectangle(&self) -> Rectangle {
        Shown::new(&self.page).to_user_space(&self.shown)
    }

    /// Adds the form XObject that shows it.
    pub(crate) fn add_appearance(&self, update: &mut Update<'_, '_>, image: Ref) -> Ref {
        let (width, height) = (self.shown.width(), self.shown.height());
        let mut content = Vec::new();
        push(
            &mut content,
            format_args!(
                "q /Blend gs {:.4} 0 0 {:.4} {:.4} {:.4} cm /Seal Do Q",
                self.picture.width(),
                self.picture.height(),
                self.picture.left,
                self.picture.bottom
            ),
        );
        update.add_stream(self.form(image, width, height), content)
    }

    fn form(&self, image: Ref, width: f64, height: f64) -> Dictionary {
        // Ink lets the text under it show through.
        let blend = Dictionary::from([("BM", Object::name("Multiply"))]);
        let resources = Dictionary::from([
            ("XObject", nested("Seal", Object::Reference(image))),
            ("ExtGState", nested("Blend", Object::Dictionary(blend))),
        ]);
        Dictionary::from([
            ("Type", Object::name("XObject")),
            ("Subtype", Object::name("Form")),
            ("BBox", Object::numbers([0.0, 0.0, width, height])),
            ("Matrix", Object::numbers(Shown::new(&self.page).upright())),
            ("Resources", Object::Dictionary(resources)),
        ])
    }
}

fn nested(key: &str, value: Object) -> Object {
    Object::Dictionary(Dictionary::from([(key, value)]))
}

/// An appearance dictionary with only a normal appearance (Table 170).
pub(crate) fn normal(form: Ref) -> Object {
    nested("N", Object::Reference(form))
}
