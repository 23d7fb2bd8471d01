//! What changed between a signed revision and the file as it is.
//!
//! Every object that a later revision writes is compared with what it was. A change is accepted only for a reason:
//! a rule below explains it as another signature, a filled-in field, data for later verification. What no rule explains
//! is a change of the document (shadow attacks: Mainka, Mladenov and Rohlmann, 2021). New objects are explained only
//! where they hang below something that is explained, and only if nothing in the signed revision referred to their
//! number before: a dangling reference is a door left open.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::ReadError;
use super::document::Document;
use super::form::{self, Field};
use super::limits::NODES_MAX;
use super::object::{Dictionary, Object, Ref};
use super::page::Pages;
use super::permission::{Lock, Permission};
use super::report::{Change, ChangeKind};
use super::xref::Entry;

/// Objects that stand for the trailer among those that refer to others.
const TRAILER: u32 = 0;

/// What may change after a signature.
pub(crate) struct Rules {
    pub(crate) permission: Permission,
    pub(crate) lock: Option<Lock>,
}

/// Compares the signed revision with the whole file.
pub(crate) fn changes(
    old: &Document<'_>,
    new: &Document<'_>,
    rules: &Rules,
) -> Result<Vec<Change>, ReadError> {
    let changed = changed_objects(old, new)?;
    if changed.is_empty() && !is_trailer_changed(old, new) {
        return Ok(Vec::new());
    }
    let mut diff = Diff {
        old,
        new,
        rules,
        referrers: referrers(old, &changed)?,
        unexplained: changed,
        changes: BTreeSet::new(),
    };
    if is_trailer_changed(old, new) {
        diff.report(ChangeKind::Other, "the document catalog was replaced");
    }
    diff.explain_catalog()?;
    diff.explain_pages()?;
    diff.explain_information()?;
    diff.explain_orphans()?;
    diff.report_the_rest();
    Ok(diff.changes.into_iter().collect())
}

fn is_trailer_changed(old: &Document<'_>, new: &Document<'_>) -> bool {
    ["Root", "Encrypt"]
        .iter()
        .any(|key| old.trailer().get(key) != new.trailer().get(key))
}

/// Numbers of the objects that later revisions wrote and that are not what they were.
fn changed_objects(old: &Document<'_>, new: &Document<'_>) -> Result<HashSet<u32>, ReadError> {
    let known: HashSet<usize> = old.sections().iter().map(|section| section.at).collect();
    let later = new
        .sections()
        .iter()
        .filter(|section| !known.contains(&section.at));
    let written: HashSet<u32> = later
        .flat_map(|section| section.entries.keys().copied())
        .collect();
    let mut changed = HashSet::new();
    for number in written {
        if number != 0 && !is_same(old, new, number)? {
            changed.insert(number);
        }
    }
    Ok(changed)
}

fn is_same(old: &Document<'_>, new: &Document<'_>, number: u32) -> Result<bool, ReadError> {
    if old.entry(number) == new.entry(number) && !matches!(new.entry(number), Some(Entry::InStream { .. })) {
        return Ok(true);
    }
    let (before, after) = (load(old, number)?, load(new, number)?);
    Ok(match (&before, &after) {
        (Object::Stream(before), Object::Stream(after)) => {
            before.dictionary == after.dictionary && old.raw_data(before) == new.raw_data(after)
        }
        _ => before == after,
    } && generation(old, number) == generation(new, number))
}

fn generation(document: &Document<'_>, number: u32) -> Option<u16> {
    match document.entry(number)? {
        Entry::Free => None,
        Entry::At { generation, .. } => Some(generation),
        Entry::InStream { .. } => Some(0),
    }
}

/// The object of a number, whatever its generation.
fn load(document: &Document<'_>, number: u32) -> Result<Object, ReadError> {
    match generation(document, number) {
        Some(generation) => document.load(Ref { number, generation }),
        None => Ok(Object::Null),
    }
}

/// Which objects of the signed revision refer to each of these numbers.
fn referrers(old: &Document<'_>, wanted: &HashSet<u32>) -> Result<HashMap<u32, HashSet<u32>>, ReadError> {
    let mut referrers: HashMap<u32, HashSet<u32>> = HashMap::new();
    let mut note = |from: u32, object: &Object| {
        each_reference(object, &mut |to| {
            if wanted.contains(&to.number) {
                referrers.entry(to.number).or_default().insert(from);
            }
        });
    };
    note(TRAILER, &Object::Dictionary(old.trailer().clone()));
    for number in old.numbers() {
        note(number, &without_trailer(load(old, number)?));
    }
    Ok(referrers)
}

/// A cross-reference stream without what it says as a trailer, which is counted already.
fn without_trailer(object: Object) -> Object {
    match object {
        Object::Stream(mut stream) if stream.dictionary.is_name("Type", "XRef") => {
            ["Root", "Info"]
                .iter()
                .for_each(|key| stream.dictionary.remove(key));
            Object::Stream(stream)
        }
        other => other,
    }
}

fn each_reference(object: &Object, visit: &mut impl FnMut(Ref)) {
    match object {
        Object::Reference(reference) => visit(*reference),
        Object::Array(items) => items.iter().for_each(|item| each_reference(item, visit)),
        _ => {
            let entries = object.as_dictionary().map_or(&[][..], |dictionary| &dictionary.0);
            entries.iter().for_each(|(_, value)| each_reference(value, visit));
        }
    }
}

struct Diff<'r, 'o, 'n> {
    old: &'r Document<'o>,
    new: &'r Document<'n>,
    rules: &'r Rules,
    referrers: HashMap<u32, HashSet<u32>>,
    unexplained: HashSet<u32>,
    changes: BTreeSet<Change>,
}

impl Diff<'_, '_, '_> {
    fn report(&mut self, kind: ChangeKind, what: impl Into<String>) {
        let what = what.into();
        let at_least = |permission| self.rules.permission >= permission;
        let permitted = match kind {
            ChangeKind::TimeStamp | ChangeKind::ValidationData | ChangeKind::Information => true,
            ChangeKind::Signature | ChangeKind::EmptySignatureField => at_least(Permission::FormFilling),
            ChangeKind::FormField => {
                let is_locked = self.rules.lock.as_ref().is_some_and(|lock| lock.covers(&what));
                at_least(Permission::FormFilling) && !is_locked
            }
            ChangeKind::Annotation => at_least(Permission::Annotations),
            ChangeKind::Other => false,
        };
        self.changes.insert(Change {
            kind,
            what,
            permitted,
        });
    }

    fn is_new(&self, number: u32) -> bool {
        !self.old.has(number)
    }

    fn is_changed(&self, reference: Ref) -> bool {
        self.unexplained.contains(&reference.number)
    }

    /// Explains the new objects that hang below a value.
    fn explain_new_below(&mut self, value: &Object) -> Result<(), ReadError> {
        let mut stack = vec![value.clone()];
        let mut steps = 0;
        while let Some(object) = stack.pop() {
            let mut found = Vec::new();
            each_reference(&object, &mut |to| found.push(to));
            for reference in found {
                let may_be_explained =
                    self.is_new(reference.number) && !self.referrers.contains_key(&reference.number);
                if may_be_explained && self.unexplained.remove(&reference.number) {
                    stack.push(self.new.load(reference)?);
                    steps += 1;
                }
            }
            if steps > NODES_MAX {
                return Err(ReadError::Limit("objects of an update"));
            }
        }
        Ok(())
    }

    /// Keys whose values differ, but for those in `except`.
    fn differing<'k>(old: &'k Dictionary, new: &'k Dictionary, except: &[&str]) -> Vec<String> {
        let is_excepted = |key: &[u8]| except.iter().any(|name| name.as_bytes() == key);
        let keys: BTreeSet<&[u8]> = old
            .keys()
            .chain(new.keys())
            .filter(|key| !is_excepted(key))
            .collect();
        let differs = |key: &&[u8]| {
            let value = |dictionary: &'k Dictionary| {
                std::str::from_utf8(key).ok().and_then(|key| dictionary.get(key))
            };
            std::str::from_utf8(key).is_err() || value(old) != value(new)
        };
        let names = keys.into_iter().filter(differs);
        names
            .map(|key| String::from_utf8_lossy(key).into_owned())
            .collect()
    }

    fn explain_catalog(&mut self) -> Result<(), ReadError> {
        let (before, after) = (self.old.catalog()?, self.new.catalog()?);
        let root = self.new.root()?;
        if self.unexplained.remove(&root.number) {
            for key in Self::differing(&before, &after, &["AcroForm", "DSS", "Extensions", "Metadata"]) {
                self.report(ChangeKind::Other, format!("/{key} of the document catalog"));
            }
            // Which extensions of PDF are used says nothing about the document.
            self.explain_new_below(after.get("Extensions").unwrap_or(&Object::Null))?;
            if before.get("AcroForm").is_some() && after.get("AcroForm").is_none() {
                self.report(ChangeKind::Other, "the form was removed");
            }
        }
        self.explain_form(&before, &after)?;
        self.explain_dss(root.number, &before, &after)?;
        self.explain_metadata(root.number, &before, &after)
    }

    fn explain_form(&mut self, before: &Dictionary, after: &Dictionary) -> Result<(), ReadError> {
        if let Some(form) = after.reference("AcroForm") {
            let is_same_place = before
                .get("AcroForm")
                .is_none_or(|old| old.as_reference() == Some(form));
            if is_same_place {
                self.unexplained.remove(&form.number);
            }
        }
        let old_form = self.old.dictionary(before, "AcroForm")?;
        let new_form = self.new.dictionary(after, "AcroForm")?;
        for key in Self::differing(&old_form, &new_form, &["Fields", "SigFlags"]) {
            self.report(ChangeKind::Other, format!("/{key} of the form"));
        }
        if let Some(list) = new_form.reference("Fields")
            && (old_form.reference("Fields") == Some(list) || self.is_new(list.number))
        {
            self.unexplained.remove(&list.number);
        }
        let old_roots = self.old.array(&old_form, "Fields")?;
        let new_roots = self.new.array(&new_form, "Fields")?;
        if old_roots.iter().any(|root| !new_roots.contains(root)) {
            self.report(ChangeKind::Other, "a form field was removed");
        }
        let fields = form::fields(self.new)?;
        let added: HashSet<_> = new_roots
            .iter()
            .filter(|root| !old_roots.contains(root))
            .filter_map(Object::as_reference)
            .collect();
        for field in &fields {
            let Some(reference) = field.reference else {
                continue;
            };
            if added.contains(&reference) {
                self.explain_added_field(field, reference)?;
            } else if self.is_changed(reference) {
                self.explain_changed_field(field, reference)?;
            }
            self.explain_widgets(field)?;
            self.explain_value(field, reference)?;
        }
        Ok(())
    }

    /// The widgets of a field that has them beside it: filling it in changes how they look.
    fn explain_widgets(&mut self, field: &Field) -> Result<(), ReadError> {
        for kid in self.new.array(&field.dictionary, "Kids")? {
            let Some(reference) = kid.as_reference().filter(|kid| self.is_changed(*kid)) else {
                continue;
            };
            let (before, after) = (self.old.load(reference)?, self.new.load(reference)?);
            let (Object::Dictionary(before), Object::Dictionary(after)) = (before, after) else {
                continue;
            };
            if Self::differing(&before, &after, &["AP", "AS", "MK"]).is_empty() {
                self.unexplained.remove(&reference.number);
                self.explain_new_below(&Object::Dictionary(after))?;
                if !field.is_signature {
                    self.report(ChangeKind::FormField, field.name.clone());
                }
            }
        }
        Ok(())
    }

    /// A new field is explained if it is for a signature.
    fn explain_added_field(&mut self, field: &Field, reference: Ref) -> Result<(), ReadError> {
        let may_be_explained = field.is_signature
            && self.is_new(reference.number)
            && !self.referrers.contains_key(&reference.number);
        if !may_be_explained {
            return Ok(());
        }
        self.unexplained.remove(&reference.number);
        let mut without_value = field.dictionary.clone();
        without_value.remove("V");
        self.explain_new_below(&Object::Dictionary(without_value))?;
        if field.signature(self.new)?.is_none() {
            self.report(ChangeKind::EmptySignatureField, field.name.clone());
        }
        Ok(())
    }

    /// Filling in a field changes these keys and no others.
    fn explain_changed_field(&mut self, field: &Field, reference: Ref) -> Result<(), ReadError> {
        const OF_VALUES: [&str; 7] = ["V", "AP", "AS", "M", "I", "MK", "Ff"];
        let Object::Dictionary(before) = self.old.load(reference)? else {
            return Ok(());
        };
        let was_signed = field.is_signature && before.get("V").is_some_and(|value| !value.is_null());
        if was_signed || !Self::differing(&before, &field.dictionary, &OF_VALUES).is_empty() {
            return Ok(());
        }
        self.unexplained.remove(&reference.number);
        let mut without_value = field.dictionary.clone();
        without_value.remove("V");
        self.explain_new_below(&Object::Dictionary(without_value))?;
        if !field.is_signature {
            if let Some(value) = field.dictionary.get("V").cloned() {
                self.explain_new_below(&value)?;
            }
            self.report(ChangeKind::FormField, field.name.clone());
        }
        Ok(())
    }

    /// A signature in a field that had none.
    fn explain_value(&mut self, field: &Field, reference: Ref) -> Result<(), ReadError> {
        let was = self.old.load(reference)?;
        let had_value = was
            .as_dictionary()
            .and_then(|was| was.get("V"))
            .is_some_and(|value| !value.is_null());
        let Some(signature) = field.signature(self.new)?.filter(|_| !had_value) else {
            return Ok(());
        };
        self.explain_new_below(field.value.as_ref().unwrap_or(&Object::Null))?;
        let kind = if signature.is_name("Type", "DocTimeStamp") {
            ChangeKind::TimeStamp
        } else {
            ChangeKind::Signature
        };
        self.report(kind, field.name.clone());
        Ok(())
    }

    /// The document security store (ETSI EN 319 142-1 5.4.2). Its objects may change where nothing else refers to them.
    fn explain_dss(&mut self, root: u32, before: &Dictionary, after: &Dictionary) -> Result<(), ReadError> {
        let (old_dss, new_dss) = (before.get("DSS"), after.get("DSS"));
        let Some(new_dss) = new_dss else {
            if old_dss.is_some() {
                self.report(ChangeKind::Other, "the document security store was removed");
            }
            return Ok(());
        };
        let mut own: HashSet<u32> = HashSet::from([root]);
        let mut changed = Vec::new();
        let mut stack = vec![new_dss.clone()];
        while let Some(object) = stack.pop() {
            let mut found = Vec::new();
            each_reference(&object, &mut |to| found.push(to));
            for to in found {
                if own.insert(to.number) && !self.is_new(to.number) {
                    changed.extend(Some(to).filter(|to| self.is_changed(*to)));
                    stack.push(self.new.load(to)?);
                }
            }
        }
        let before_count = self.unexplained.len();
        self.explain_new_below(new_dss)?;
        for reference in changed {
            let is_container = !matches!(self.new.load(reference)?, Object::Stream(_));
            let referrers = self.referrers.get(&reference.number);
            if is_container && referrers.is_none_or(|from| from.is_subset(&own)) {
                self.unexplained.remove(&reference.number);
                self.explain_new_below(&self.new.load(reference)?)?;
            }
        }
        if self.unexplained.len() != before_count || old_dss != Some(new_dss) {
            self.report(ChangeKind::ValidationData, "the document security store");
        }
        Ok(())
    }

    fn explain_metadata(
        &mut self,
        root: u32,
        before: &Dictionary,
        after: &Dictionary,
    ) -> Result<(), ReadError> {
        let (old, new) = (before.get("Metadata"), after.get("Metadata"));
        let Some(reference) = new.and_then(Object::as_reference) else {
            if old != new {
                self.report(ChangeKind::Other, "/Metadata of the document catalog");
            }
            return Ok(());
        };
        let is_metadata = self
            .new
            .load(reference)?
            .as_dictionary()
            .is_some_and(|stream| stream.is_name("Type", "Metadata"));
        self.explain_exclusive(reference, root, is_metadata)
    }

    /// Information about the document (14.3.3) is not shown with it.
    fn explain_information(&mut self) -> Result<(), ReadError> {
        let Some(reference) = self.new.trailer().reference("Info") else {
            return Ok(());
        };
        let is_dictionary = matches!(self.new.load(reference)?, Object::Dictionary(_));
        self.explain_exclusive(reference, TRAILER, is_dictionary)
    }

    /// Explains an object of information to which nothing else referred.
    fn explain_exclusive(
        &mut self,
        reference: Ref,
        from: u32,
        is_as_expected: bool,
    ) -> Result<(), ReadError> {
        let only = self.referrers.get(&reference.number);
        let is_exclusive = only.is_none_or(|referrers| referrers.iter().all(|referrer| *referrer == from));
        if is_as_expected && is_exclusive && self.unexplained.remove(&reference.number) {
            self.explain_new_below(&self.new.load(reference)?)?;
            self.report(ChangeKind::Information, "information about the document");
        }
        Ok(())
    }

    /// The pages of the signed revision: only annotations may have come, and which depends on what they are.
    fn explain_pages(&mut self) -> Result<(), ReadError> {
        for (page, number) in Pages::of(self.old)?.zip(1..) {
            let page = page?;
            let Object::Dictionary(after) = self.new.load(page.reference)? else {
                continue;
            };
            let list = after.reference("Annots");
            let is_list_changed = list.is_some_and(|list| self.is_changed(list));
            if !self.is_changed(page.reference) && !is_list_changed {
                continue;
            }
            if !Self::differing(&page.dictionary, &after, &["Annots"]).is_empty() {
                continue;
            }
            self.unexplained.remove(&page.reference.number);
            if let Some(list) = list
                && (page.dictionary.reference("Annots") == Some(list) || self.is_new(list.number))
            {
                self.unexplained.remove(&list.number);
            }
            self.explain_annotations(number, &page.dictionary, &after)?;
        }
        Ok(())
    }

    fn explain_annotations(
        &mut self,
        page: usize,
        before: &Dictionary,
        after: &Dictionary,
    ) -> Result<(), ReadError> {
        let (old, new) = (
            self.old.array(before, "Annots")?,
            self.new.array(after, "Annots")?,
        );
        if old.iter().any(|annotation| !new.contains(annotation)) {
            self.report(
                ChangeKind::Other,
                format!("an annotation was removed from page {page}"),
            );
        }
        for annotation in new.iter().filter(|annotation| !old.contains(annotation)) {
            let is_explained = match annotation.as_reference() {
                Some(reference) => !self.is_changed(reference) && self.is_new(reference.number),
                None => false,
            };
            if is_explained {
                continue;
            }
            let is_widget = self
                .new
                .resolve(annotation)?
                .as_dictionary()
                .is_some_and(|found| found.is_name("Subtype", "Widget"));
            if is_widget {
                self.report(ChangeKind::Other, format!("a form field on page {page}"));
                continue;
            }
            self.explain_new_below(&Object::Array(vec![annotation.clone()]))?;
            self.report(ChangeKind::Annotation, format!("an annotation on page {page}"));
        }
        Ok(())
    }

    /// New objects to which nothing leads: what a file is packed in (object streams, cross-reference streams), and what
    /// an update in between left behind. Nothing that cannot be reached can be seen.
    fn explain_orphans(&mut self) -> Result<(), ReadError> {
        if self.unexplained.is_empty() {
            return Ok(());
        }
        let leading = referrers(self.new, &self.unexplained)?;
        let mut candidates: Vec<u32> = self.unexplained.iter().copied().collect();
        candidates.retain(|number| self.is_new(*number) && !self.referrers.contains_key(number));
        let mut orphans = HashSet::new();
        loop {
            let before = orphans.len();
            candidates.retain(|number| {
                let is_orphan = leading.get(number).is_none_or(|from| from.is_subset(&orphans));
                if is_orphan {
                    orphans.insert(*number);
                }
                !is_orphan
            });
            if orphans.len() == before {
                break;
            }
        }
        self.unexplained.retain(|number| !orphans.contains(number));
        Ok(())
    }

    fn report_the_rest(&mut self) {
        let mut rest: Vec<u32> = self.unexplained.drain().collect();
        rest.sort_unstable();
        for number in rest {
            let object = load(self.new, number).unwrap_or(Object::Null);
            let what = describe(&object);
            self.report(ChangeKind::Other, format!("object {number}, {what}"));
        }
    }
}

fn describe(object: &Object) -> String {
    let kind = match object {
        Object::Null => return "which was removed".to_owned(),
        Object::Stream(_) => "a stream",
        Object::Dictionary(_) => "a dictionary",
        Object::Array(_) => "an array",
        _ => "a simple value",
    };
    let named = ["Type", "Subtype"].iter().filter_map(|key| {
        let name = object.as_dictionary()?.get(key)?.as_name()?;
        Some(format!(" /{}", String::from_utf8_lossy(name)))
    });
    format!("{kind}{}", named.collect::<String>())
}
