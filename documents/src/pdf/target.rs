//! The field that a signature goes into: one that waits for it, or a new one.

use super::document::Document;
use super::form::{self, Field};
use super::object::{Dictionary, Object, Ref};
use super::page::{Page, Pages, Rectangle};
use super::permission::{self, Certification, Lock, Permission};
use super::sign::PrepareError;
use super::{FIELD_NAME_BYTES_MAX, ReadError};

/// Print and Locked (ISO 32000-2 Table 167).
pub(crate) const PRINT_AND_LOCKED: i64 = 4 | 128;

/// What is there already.
pub(crate) struct Before {
    pub(crate) fields: Vec<Field>,
    pub(crate) certification: Option<Certification>,
    pub(crate) has_signatures: bool,
}

impl Before {
    pub(crate) fn read(document: &Document<'_>) -> Result<Self, ReadError> {
        let fields = form::fields(document)?;
        let mut has_signatures = false;
        for field in &fields {
            has_signatures |= field.signature(document)?.is_some();
        }
        Ok(Self {
            fields,
            certification: permission::certification(document)?,
            has_signatures,
        })
    }
}

/// Where a signature goes.
pub(crate) enum Target {
    /// A field that is there and empty.
    Existing(Waiting),
    /// A new field of this name.
    New(String),
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Existing(waiting) => &waiting.name,
            Self::New(name) => name,
        }
    }
}

/// A field that waits for a signature.
pub(crate) struct Waiting {
    pub(crate) name: String,
    pub(crate) field: Ref,
    /// Its widget: the field itself, or its only kid.
    pub(crate) widget: Ref,
    pub(crate) lock: Option<Dictionary>,
}

/// Chooses the field. Everything that an earlier signature forbids is refused here.
pub(crate) fn choose(
    document: &Document<'_>,
    before: &Before,
    wanted: Option<&str>,
    is_visible: bool,
) -> Result<Target, PrepareError> {
    if let Some(certification) = &before.certification
        && certification.permission == Permission::NoChanges
    {
        return Err(PrepareError::Certified);
    }
    let name = match wanted {
        Some(name) => name.to_owned(),
        None => free_name(&before.fields, "Signature"),
    };
    if let Some(by) = permission::locked_by(document, &before.fields, &name)? {
        return Err(PrepareError::Locked { field: name, by });
    }
    if let Some(field) = before.fields.iter().find(|field| field.name == name) {
        return existing(document, field);
    }
    check_new_name(&before.fields, &name)?;
    if before.certification.is_some() && is_visible {
        return Err(PrepareError::NewFieldAfterCertification);
    }
    Ok(Target::New(name))
}

/// A name that no field has.
pub(crate) fn free_name(fields: &[Field], stem: &str) -> String {
    let is_free = |name: &String| {
        fields
            .iter()
            .all(|field| field.name != *name && !is_below(&field.name, name))
    };
    let names = (1..=fields.len() + 1).map(|at| format!("{stem}{at}"));
    // Of one name more than there are fields, one is free.
    names.into_iter().find(is_free).unwrap_or_else(|| stem.to_owned())
}

fn is_below(field: &str, name: &str) -> bool {
    field.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

fn check_new_name(fields: &[Field], name: &str) -> Result<(), PrepareError> {
    let is_usable = !name.is_empty()
        && name.len() <= FIELD_NAME_BYTES_MAX
        && !name.contains('.')
        && !name.contains(char::is_control);
    if is_usable && fields.iter().all(|field| !is_below(&field.name, name)) {
        return Ok(());
    }
    Err(PrepareError::FieldName(name.to_owned()))
}

fn existing(document: &Document<'_>, field: &Field) -> Result<Target, PrepareError> {
    let name = || field.name.clone();
    if !field.is_signature {
        return Err(PrepareError::NotASignatureField(name()));
    }
    let has_value = field
        .value
        .as_ref()
        .map(|value| document.resolve(value))
        .transpose()?;
    if has_value.is_some_and(|value| !value.is_null()) {
        return Err(PrepareError::AlreadySigned(name()));
    }
    let reference = field
        .reference
        .ok_or(ReadError::Wrong("a signature field that is no object of its own"))?;
    let kids = document.array(&field.dictionary, "Kids")?;
    let widget = match kids.as_slice() {
        [] => reference,
        [kid] => kid
            .as_reference()
            .ok_or(ReadError::Wrong("a widget that is no object of its own"))?,
        _ => return Err(PrepareError::SeveralWidgets(name())),
    };
    let lock = match document.get(&field.dictionary, "Lock")? {
        Object::Dictionary(lock) => Some(lock),
        _ => None,
    };
    Ok(Target::Existing(Waiting {
        name: name(),
        field: reference,
        widget,
        lock: lock.filter(|lock| matches!(Lock::read(document, lock), Ok(Some(_)))),
    }))
}

impl Waiting {
    /// The page and rectangle of the widget; `None` if it has none to be seen in.
    pub(crate) fn place(&self, document: &Document<'_>) -> Result<Option<(Page, Rectangle)>, ReadError> {
        let Object::Dictionary(widget) = document.load(self.widget)? else {
            return Ok(None);
        };
        let rectangle = match widget.get("Rect") {
            Some(rectangle) => Rectangle::read(document, rectangle)?,
            None => None,
        };
        let Some(rectangle) = rectangle.filter(|found| found.width() > 0.0 && found.height() > 0.0) else {
            return Ok(None);
        };
        for page in Pages::of(document)? {
            let page = page?;
            let is_named = widget.reference("P") == Some(page.reference);
            let is_listed = || -> Result<bool, ReadError> {
                let annotations = document.array(&page.dictionary, "Annots")?;
                Ok(annotations.contains(&Object::Reference(self.widget)))
            };
            if is_named || is_listed()? {
                return Ok(Some((page, rectangle)));
            }
        }
        Ok(None)
    }
}
