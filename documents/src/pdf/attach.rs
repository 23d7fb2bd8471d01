//! A signature joined to the document: its field, its marks on pages, the form, the certification.

use super::ReadError;
use super::appearance::{Mark, normal};
use super::document::Document;
use super::image::SealImage;
use super::object::{Dictionary, Object, Ref};
use super::page::{Page, Pages};
use super::target::{PRINT_AND_LOCKED, Target, Waiting};
use super::update::Update;

/// Print, ReadOnly, Locked and LockedContents (ISO 32000-2 Table 167).
const PRINT_AND_UNTOUCHED: i64 = 4 | 64 | 128 | 512;

/// Puts the signature into its field, and the field, if it is new, into the form and onto its page. The first mark is
/// the field's own; the others are annotations, because a signature field is in one place (12.7.5.5).
pub(crate) fn add_field(
    update: &mut Update<'_, '_>,
    document: &Document<'_>,
    target: &Target,
    signature: Ref,
    seen: Option<(&[Mark], &SealImage)>,
) -> Result<(), ReadError> {
    let mut forms = Vec::new();
    if let Some((marks, image)) = seen {
        let image = image.add_to(update);
        forms.extend(
            marks
                .iter()
                .map(|mark| (mark, mark.add_appearance(update, image))),
        );
    }
    let first = forms.first().copied();
    match target {
        Target::Existing(waiting) => fill(update, waiting, signature, first)?,
        Target::New(name) => {
            let page = match first {
                Some((mark, _)) => mark.page.clone(),
                None => Pages::of(document)?
                    .next()
                    .ok_or(ReadError::Wrong("a document without pages"))??,
            };
            add_new_field(update, document, name, signature, &page, first)?;
        }
    }
    forms
        .iter()
        .skip(1)
        .try_for_each(|(mark, form)| add_stamp(update, mark, *form))
}

/// The rectangle and the flags of the widget stay as they are: to change them would be to change the document.
fn fill(
    update: &mut Update<'_, '_>,
    waiting: &Waiting,
    signature: Ref,
    seen: Option<(&Mark, Ref)>,
) -> Result<(), ReadError> {
    update.change(waiting.field, "a signature field", |field| {
        field.set("V", Object::Reference(signature));
    })?;
    let Some((_, form)) = seen else { return Ok(()) };
    update.change(waiting.widget, "a widget", |widget| {
        widget.set("AP", normal(form));
    })
}

/// A stamp annotation (12.5.6.12) that nobody can move.
fn add_stamp(update: &mut Update<'_, '_>, mark: &Mark, form: Ref) -> Result<(), ReadError> {
    let stamp = Dictionary::from([
        ("Type", Object::name("Annot")),
        ("Subtype", Object::name("Stamp")),
        ("F", Object::Integer(PRINT_AND_UNTOUCHED)),
        ("P", Object::Reference(mark.page.reference)),
        ("Rect", mark.rectangle().to_object()),
        ("AP", normal(form)),
    ]);
    let stamp = update.add(Object::Dictionary(stamp));
    add_annotation(update, &mark.page, stamp)
}

fn add_new_field(
    update: &mut Update<'_, '_>,
    document: &Document<'_>,
    name: &str,
    signature: Ref,
    page: &Page,
    seen: Option<(&Mark, Ref)>,
) -> Result<(), ReadError> {
    let rectangle = seen.map_or_else(
        || Object::numbers([0.0; 4]),
        |(mark, _)| mark.rectangle().to_object(),
    );
    let mut field = Dictionary::from([
        ("Type", Object::name("Annot")),
        ("Subtype", Object::name("Widget")),
        ("FT", Object::name("Sig")),
        ("T", Object::text(name)),
        ("V", Object::Reference(signature)),
        ("F", Object::Integer(PRINT_AND_LOCKED)),
        ("P", Object::Reference(page.reference)),
        ("Rect", rectangle),
    ]);
    if let Some((_, form)) = seen {
        field.set("AP", normal(form));
    }
    let field = update.add(Object::Dictionary(field));
    add_annotation(update, page, field)?;
    add_to_form(update, document, field)
}

/// Appends to the annotations of a page.
fn add_annotation(update: &mut Update<'_, '_>, page: &Page, annotation: Ref) -> Result<(), ReadError> {
    update.change_under(page.reference, "Annots", |annotations| {
        append(annotations, annotation, "/Annots of a page")
    })
}

fn append(list: Object, item: Ref, what: &'static str) -> Result<Object, ReadError> {
    let mut items = match list {
        Object::Array(items) => items,
        Object::Null => Vec::new(),
        _ => return Err(ReadError::Wrong(what)),
    };
    items.push(Object::Reference(item));
    Ok(Object::Array(items))
}

/// Appends to the fields of the form, which is made if there is none.
fn add_to_form(update: &mut Update<'_, '_>, document: &Document<'_>, field: Ref) -> Result<(), ReadError> {
    /// SignaturesExist and AppendOnly (Table 225).
    const SIGNED_AND_APPEND_ONLY: i64 = 3;
    let root = document.root()?;
    let mut list = None;
    update.change_under(root, "AcroForm", |form| {
        let mut form = match form {
            Object::Dictionary(form) => form,
            Object::Null => Dictionary::default(),
            _ => return Err(ReadError::Wrong("/AcroForm")),
        };
        let flags = form.get("SigFlags").and_then(Object::as_integer).unwrap_or(0);
        form.set("SigFlags", Object::Integer(flags | SIGNED_AND_APPEND_ONLY));
        match form.get("Fields").cloned() {
            // An array that is an object of its own is changed below.
            Some(Object::Reference(reference)) => list = Some(reference),
            fields => form.set(
                "Fields",
                append(fields.unwrap_or(Object::Null), field, "/Fields of the form")?,
            ),
        }
        Ok(Object::Dictionary(form))
    })?;
    if let Some(list) = list {
        let fields = append(update.load(list)?, field, "/Fields of the form")?;
        update.put(list, fields);
    }
    Ok(())
}

/// Makes the signature the certification of the document (12.8.6).
pub(crate) fn certify(
    update: &mut Update<'_, '_>,
    document: &Document<'_>,
    signature: Ref,
) -> Result<(), ReadError> {
    update.change_under(document.root()?, "Perms", |permissions| {
        let mut permissions = match permissions {
            Object::Dictionary(permissions) => permissions,
            _ => Dictionary::default(),
        };
        permissions.set("DocMDP", Object::Reference(signature));
        Ok(Object::Dictionary(permissions))
    })
}
