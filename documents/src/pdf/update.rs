//! Incremental updates (ISO 32000-2 7.5.6): what is added behind a file that stays as it is, byte for byte.

use std::collections::BTreeMap;

use protocol::algorithm::Hash;

use super::ReadError;
use super::document::Document;
use super::object::{Dictionary, Object, Ref};
use super::write::{push, write_dictionary, write_object};
use super::xref::Kind;

/// What an object number gets.
enum Body {
    Object(Object),
    Stream(Dictionary, Vec<u8>),
    /// Text of an object in which places have to be known.
    Text(Vec<u8>),
}

/// New and changed objects, to be appended to a file.
pub(crate) struct Update<'d, 'a> {
    document: &'d Document<'a>,
    bodies: BTreeMap<u32, (Ref, Body)>,
    next_number: u32,
}

/// The bytes to append, and where in them each object's text begins.
pub(crate) struct Appended {
    pub(crate) bytes: Vec<u8>,
    bodies: BTreeMap<u32, usize>,
}

impl Appended {
    /// Where in the appended bytes the text of an object begins.
    pub(crate) fn body(&self, reference: Ref) -> Option<usize> {
        self.bodies.get(&reference.number).copied()
    }
}

/// Keys of a trailer that belong to one section only (Tables 15 and 17).
const OF_ONE_SECTION: [&str; 11] = [
    "Prev",
    "XRefStm",
    "Size",
    "Index",
    "W",
    "Type",
    "Length",
    "Filter",
    "DecodeParms",
    "ID",
    "DL",
];

impl<'d, 'a> Update<'d, 'a> {
    pub(crate) fn new(document: &'d Document<'a>) -> Self {
        Self {
            document,
            bodies: BTreeMap::new(),
            next_number: document.next_number(),
        }
    }

    /// A number for an object to come.
    pub(crate) fn reserve(&mut self) -> Ref {
        let number = self.next_number;
        self.next_number += 1;
        Ref {
            number,
            generation: 0,
        }
    }

    pub(crate) fn add(&mut self, object: Object) -> Ref {
        let reference = self.reserve();
        self.put(reference, object);
        reference
    }

    pub(crate) fn add_stream(&mut self, dictionary: Dictionary, data: Vec<u8>) -> Ref {
        let reference = self.reserve();
        self.bodies
            .insert(reference.number, (reference, Body::Stream(dictionary, data)));
        reference
    }

    pub(crate) fn put(&mut self, reference: Ref, object: Object) {
        self.bodies
            .insert(reference.number, (reference, Body::Object(object)));
    }

    /// A dictionary with its strings as they have to be written into the object, for text that is put as it is.
    pub(crate) fn encrypted(&self, reference: Ref, dictionary: Dictionary) -> Dictionary {
        match self.document.cipher() {
            Some(cipher) => {
                let encrypted = cipher.encrypted(reference, Object::Dictionary(dictionary));
                encrypted.as_dictionary().cloned().unwrap_or_default()
            }
            None => dictionary,
        }
    }

    pub(crate) fn put_text(&mut self, reference: Ref, text: Vec<u8>) {
        self.bodies
            .insert(reference.number, (reference, Body::Text(text)));
    }

    /// The object as this update leaves it.
    pub(crate) fn load(&self, reference: Ref) -> Result<Object, ReadError> {
        match self.bodies.get(&reference.number) {
            Some((_, Body::Object(object))) => Ok(object.clone()),
            _ => self.document.load(reference),
        }
    }

    /// Changes a dictionary that is an object of its own.
    pub(crate) fn change(
        &mut self,
        reference: Ref,
        what: &'static str,
        change: impl FnOnce(&mut Dictionary),
    ) -> Result<(), ReadError> {
        let Object::Dictionary(mut dictionary) = self.load(reference)? else {
            return Err(ReadError::Wrong(what));
        };
        change(&mut dictionary);
        self.put(reference, Object::Dictionary(dictionary));
        Ok(())
    }

    /// Changes what is under a key of a dictionary object: in place, or in the object that the key refers to.
    pub(crate) fn change_under(
        &mut self,
        holder: Ref,
        key: &'static str,
        change: impl FnOnce(Object) -> Result<Object, ReadError>,
    ) -> Result<(), ReadError> {
        let Object::Dictionary(mut dictionary) = self.load(holder)? else {
            return Err(ReadError::Wrong(key));
        };
        match dictionary.get(key) {
            Some(Object::Reference(reference)) => {
                let reference = *reference;
                let changed = change(self.load(reference)?)?;
                self.put(reference, changed);
            }
            other => {
                let changed = change(other.cloned().unwrap_or(Object::Null))?;
                dictionary.set(key, changed);
                self.put(holder, Object::Dictionary(dictionary));
            }
        }
        Ok(())
    }

    /// The bytes to append. `seed` makes the new half of the file identifier.
    pub(crate) fn finish(mut self, seed: &[u8]) -> Appended {
        let mut out = Vec::new();
        let base = self.document.bytes().len();
        // The file may end without an end of line, and what follows must begin on a line of its own.
        if self.document.bytes().last() != Some(&b'\n') {
            out.push(b'\n');
        }
        let mut offsets = BTreeMap::new();
        let mut bodies = BTreeMap::new();
        for (number, (reference, body)) in &self.bodies {
            offsets.insert(*number, (base + out.len(), reference.generation));
            push(&mut out, format_args!("{number} {} obj\n", reference.generation));
            bodies.insert(*number, out.len());
            write_encrypted(&mut out, self.document, *reference, body);
            out.extend(b"\nendobj\n");
        }
        let start = base + out.len();
        let newest = &self.document.sections()[0];
        let mut trailer = self.trailer(seed);
        trailer.set(
            "Prev",
            Object::Integer(i64::try_from(newest.at).unwrap_or(i64::MAX)),
        );
        match newest.kind {
            Kind::Table => {
                trailer.set("Size", Object::Integer(self.next_number.into()));
                write_table(&mut out, &offsets, &trailer);
            }
            Kind::Stream => {
                let own = self.reserve();
                offsets.insert(own.number, (start, 0));
                trailer.set("Size", Object::Integer(self.next_number.into()));
                write_stream(&mut out, own, &offsets, trailer);
            }
        }
        push(&mut out, format_args!("startxref\n{start}\n%%EOF\n"));
        Appended { bytes: out, bodies }
    }

    /// What the new section's trailer repeats of the one before. The first half of the identifier stays (14.4).
    fn trailer(&self, seed: &[u8]) -> Dictionary {
        let mut trailer = self.document.trailer().clone();
        OF_ONE_SECTION.iter().for_each(|key| trailer.remove(key));
        let new = &Hash::Sha256.digest(seed)[..16];
        let old = self
            .document
            .array(self.document.trailer(), "ID")
            .unwrap_or_default();
        let first = match old.first() {
            Some(Object::String(first)) => first.bytes.clone(),
            _ => new.to_vec(),
        };
        let id = [first.as_slice(), new].map(|half| match Object::string(half) {
            Object::String(mut string) => {
                string.is_hexadecimal = true;
                Object::String(string)
            }
            other => other,
        });
        trailer.set("ID", Object::Array(id.into()));
        trailer
    }
}

/// Encrypts what an encrypted file has encrypted.
fn write_encrypted(out: &mut Vec<u8>, document: &Document<'_>, reference: Ref, body: &Body) {
    let Some(cipher) = document.cipher() else {
        return write_body(out, body);
    };
    match body {
        Body::Object(object) => write_object(out, &cipher.encrypted(reference, object.clone())),
        Body::Stream(dictionary, data) => {
            let data = cipher.encrypt_stream(dictionary, reference, data);
            let dictionary = cipher.encrypted(reference, Object::Dictionary(dictionary.clone()));
            let dictionary = dictionary.as_dictionary().cloned().unwrap_or_default();
            write_body(out, &Body::Stream(dictionary, data));
        }
        // The text of a signature was written with its strings encrypted.
        Body::Text(_) => write_body(out, body),
    }
}

fn write_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::Object(object) => write_object(out, object),
        Body::Text(text) => out.extend_from_slice(text),
        Body::Stream(dictionary, data) => {
            let mut dictionary = dictionary.clone();
            dictionary.set(
                "Length",
                Object::Integer(i64::try_from(data.len()).unwrap_or(i64::MAX)),
            );
            write_dictionary(out, &dictionary);
            out.extend(b"\nstream\n");
            out.extend_from_slice(data);
            out.extend(b"\nendstream");
        }
    }
}

type Offsets = BTreeMap<u32, (usize, u16)>;

/// Runs of consecutive numbers.
fn runs(offsets: &Offsets) -> Vec<(u32, Vec<(usize, u16)>)> {
    let mut runs: Vec<(u32, Vec<(usize, u16)>)> = Vec::new();
    for (number, entry) in offsets {
        match runs.last_mut() {
            Some((first, run)) if *first as usize + run.len() == *number as usize => run.push(*entry),
            _ => runs.push((*number, vec![*entry])),
        }
    }
    runs
}

/// A table (7.5.4): lines of exactly 20 bytes.
fn write_table(out: &mut Vec<u8>, offsets: &Offsets, trailer: &Dictionary) {
    out.extend(b"xref\n");
    for (first, run) in runs(offsets) {
        push(out, format_args!("{first} {}\n", run.len()));
        for (offset, generation) in run {
            push(out, format_args!("{offset:010} {generation:05} n\r\n"));
        }
    }
    out.extend(b"trailer\n");
    write_dictionary(out, trailer);
    out.push(b'\n');
}

/// A cross-reference stream (7.5.8).
fn write_stream(out: &mut Vec<u8>, own: Ref, offsets: &Offsets, mut trailer: Dictionary) {
    let mut index = Vec::new();
    let mut rows = Vec::new();
    for (first, run) in runs(offsets) {
        index.extend([i64::from(first), i64::try_from(run.len()).unwrap_or(i64::MAX)].map(Object::Integer));
        for (offset, generation) in run {
            rows.push(1);
            rows.extend_from_slice(&(offset as u64).to_be_bytes()[3..]);
            rows.extend_from_slice(&generation.to_be_bytes());
        }
    }
    trailer.set("Type", Object::name("XRef"));
    trailer.set("Index", Object::Array(index));
    trailer.set("W", Object::Array([1, 5, 2].map(Object::Integer).into()));
    push(out, format_args!("{} 0 obj\n", own.number));
    write_body(out, &Body::Stream(trailer, rows));
    out.extend(b"\nendobj\n");
}
