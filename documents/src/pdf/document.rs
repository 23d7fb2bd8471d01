//! A file, read as far as it is asked for.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::crypt::Cipher;
use super::limits::{DECODED_TOTAL_BYTES_MAX, FILE_BYTES_MAX};
use super::object::{Dictionary, Object, Ref, Stream};
use super::parse::Parser;
use super::xref::{self, Entry, Section};
use super::{ReadError, filter};

/// An object stream (ISO 32000-2 7.5.7), decoded.
struct ObjectStream {
    decoded: Vec<u8>,
    /// Number and place of each object.
    objects: Vec<(u32, usize)>,
}

/// A PDF file. Only its cross-reference sections are read at once; an object is read when it is needed, so that the
/// memory does not grow with the file.
pub(crate) struct Document<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
    entries: HashMap<u32, Entry>,
    /// The last few object streams.
    streams: RefCell<Vec<(u32, Rc<ObjectStream>)>>,
    decoded_bytes: Cell<usize>,
    cipher: Option<Cipher>,
}

/// Object streams that are kept decoded.
const STREAMS_KEPT: usize = 8;
/// Most references that lead to other references.
const REFERENCE_CHAIN_MAX: usize = 8;

impl<'a> Document<'a> {
    /// Reads the structure of a file. One that asks for a password is refused.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, ReadError> {
        /// Where a header may begin, as readers have always taken it.
        const HEADER_BYTES: usize = 1024;
        let head = &bytes[..bytes.len().min(HEADER_BYTES)];
        if !head.windows(5).any(|window| window == b"%PDF-") {
            return Err(ReadError::NotPdf);
        }
        if bytes.len() > FILE_BYTES_MAX {
            return Err(ReadError::Limit("bytes of the file"));
        }
        let sections = xref::sections(bytes)?;
        let mut document = Self {
            bytes,
            entries: xref::merge(&sections),
            sections,
            streams: RefCell::default(),
            decoded_bytes: Cell::new(0),
            cipher: None,
        };
        document.cipher = document.open_cipher()?;
        document.catalog()?;
        Ok(document)
    }

    /// The key of an encrypted file.
    fn open_cipher(&self) -> Result<Option<Cipher>, ReadError> {
        let Object::Dictionary(dictionary) = self.get(self.trailer(), "Encrypt")? else {
            return Ok(None);
        };
        let id = self.array(self.trailer(), "ID")?;
        let id = id
            .first()
            .and_then(Object::as_string)
            .map_or(&[][..], |first| &first.bytes);
        Cipher::open(&dictionary, id).map(Some)
    }

    pub(crate) const fn cipher(&self) -> Option<&Cipher> {
        self.cipher.as_ref()
    }

    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The newest first.
    pub(crate) fn sections(&self) -> &[Section] {
        &self.sections
    }

    pub(crate) fn trailer(&self) -> &Dictionary {
        &self.sections[0].trailer
    }

    /// The number after the largest that is taken.
    pub(crate) fn next_number(&self) -> u32 {
        let size = self.trailer().get("Size").and_then(Object::as_index);
        let size = size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0);
        let largest = self.entries.keys().max().copied().unwrap_or(0);
        size.max(largest + 1)
    }

    pub(crate) fn root(&self) -> Result<Ref, ReadError> {
        self.trailer()
            .reference("Root")
            .ok_or(ReadError::Wrong("the trailer's /Root"))
    }

    /// The document catalog (7.7.2).
    pub(crate) fn catalog(&self) -> Result<Dictionary, ReadError> {
        match self.load(self.root()?)? {
            Object::Dictionary(catalog) => Ok(catalog),
            _ => Err(ReadError::Wrong("the document catalog")),
        }
    }

    pub(crate) fn entry(&self, number: u32) -> Option<Entry> {
        self.entries.get(&number).copied()
    }

    /// The numbers of all objects.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        let in_use = self.entries.iter().filter(|(_, entry)| **entry != Entry::Free);
        in_use.map(|(number, _)| *number)
    }

    /// Whether there is an object of this number.
    pub(crate) fn has(&self, number: u32) -> bool {
        !matches!(self.entry(number), None | Some(Entry::Free))
    }

    /// The indirect object; null where there is none (7.3.10).
    pub(crate) fn load(&self, reference: Ref) -> Result<Object, ReadError> {
        match self.entry(reference.number) {
            None | Some(Entry::Free) => Ok(Object::Null),
            Some(Entry::At { offset, generation }) if generation == reference.generation => {
                self.load_at(offset, reference)
            }
            Some(Entry::InStream { stream, index }) if reference.generation == 0 => {
                self.load_from_stream(stream, index, reference.number)
            }
            Some(_) => Ok(Object::Null),
        }
    }

    fn load_at(&self, offset: usize, reference: Ref) -> Result<Object, ReadError> {
        let (found, mut object) = xref::indirect_at(self.bytes, offset, &|length| self.length(length))?;
        if found != reference {
            return Err(ReadError::Xref {
                at: offset,
                problem: "another object is there than the one that should be",
            });
        }
        // What says how the file is encrypted is not encrypted itself.
        let is_plain = self.trailer().reference("Encrypt") == Some(reference);
        if let Some(cipher) = self.cipher.as_ref().filter(|_| !is_plain) {
            cipher.decrypt_strings(reference, &mut object)?;
        }
        Ok(object)
    }

    /// A stream's length that is an object of its own; it is a number and asks for nothing in turn.
    fn length(&self, reference: Ref) -> Option<usize> {
        match self.entry(reference.number)? {
            Entry::At { offset, .. } => {
                let (found, object) = xref::indirect_at(self.bytes, offset, &|_| None).ok()?;
                object.as_index().filter(|_| found == reference)
            }
            _ => None,
        }
    }

    fn load_from_stream(&self, stream: u32, index: usize, number: u32) -> Result<Object, ReadError> {
        let stream = self.object_stream(stream)?;
        let wrong = ReadError::Wrong("an object stream");
        let (found, at) = stream.objects.get(index).copied().ok_or_else(|| wrong.clone())?;
        if found != number {
            return Err(wrong);
        }
        Parser::of_decoded(&stream.decoded, at).object()
    }

    fn object_stream(&self, number: u32) -> Result<Rc<ObjectStream>, ReadError> {
        let kept = self
            .streams
            .borrow()
            .iter()
            .find(|(kept, _)| *kept == number)
            .map(|(_, stream)| Rc::clone(stream));
        if let Some(stream) = kept {
            return Ok(stream);
        }
        let stream = Rc::new(self.read_object_stream(number)?);
        let mut streams = self.streams.borrow_mut();
        if streams.len() == STREAMS_KEPT {
            streams.remove(0);
        }
        streams.push((number, Rc::clone(&stream)));
        Ok(stream)
    }

    fn read_object_stream(&self, number: u32) -> Result<ObjectStream, ReadError> {
        let wrong = || ReadError::Wrong("an object stream");
        // An object stream lies in the file itself (7.5.7), so this does not lead to another one.
        let Some(Entry::At { offset, generation }) = self.entry(number) else {
            return Err(wrong());
        };
        let Object::Stream(stream) = self.load_at(offset, Ref { number, generation })? else {
            return Err(wrong());
        };
        if !stream.dictionary.is_name("Type", "ObjStm") {
            return Err(wrong());
        }
        let index = |key: &str| {
            stream
                .dictionary
                .get(key)
                .and_then(Object::as_index)
                .ok_or_else(wrong)
        };
        let (count, first) = (index("N")?, index("First")?);
        let decoded = self.account(filter::decode(&stream.dictionary, &self.plain_data(&stream)?)?)?;
        if count > decoded.len() {
            return Err(wrong());
        }
        let mut parser = Parser::of_decoded(&decoded, 0);
        let mut objects = Vec::with_capacity(count);
        for _ in 0..count {
            let number = u32::try_from(parser.whole()?).map_err(|_| wrong())?;
            let offset = usize::try_from(parser.whole()?).map_err(|_| wrong())?;
            objects.push((number, first.saturating_add(offset)));
        }
        Ok(ObjectStream { decoded, objects })
    }

    /// Counts what was decoded, so that a small file cannot ask for endless work.
    fn account(&self, decoded: Vec<u8>) -> Result<Vec<u8>, ReadError> {
        let total = self.decoded_bytes.get().saturating_add(decoded.len());
        self.decoded_bytes.set(total);
        if total > DECODED_TOTAL_BYTES_MAX {
            return Err(ReadError::Limit("bytes of all decoded streams"));
        }
        Ok(decoded)
    }

    /// The object itself, if what stands there is a reference to it.
    pub(crate) fn resolve(&self, object: &Object) -> Result<Object, ReadError> {
        let mut current = object.clone();
        for _ in 0..REFERENCE_CHAIN_MAX {
            match current {
                Object::Reference(reference) => current = self.load(reference)?,
                other => return Ok(other),
            }
        }
        Err(ReadError::Limit("references that lead to references"))
    }

    /// The value of a key, resolved; null where there is none.
    pub(crate) fn get(&self, dictionary: &Dictionary, key: &str) -> Result<Object, ReadError> {
        dictionary
            .get(key)
            .map_or(Ok(Object::Null), |value| self.resolve(value))
    }

    /// The dictionary under a key; an empty one where there is none.
    pub(crate) fn dictionary(&self, dictionary: &Dictionary, key: &str) -> Result<Dictionary, ReadError> {
        Ok(self
            .get(dictionary, key)?
            .as_dictionary()
            .cloned()
            .unwrap_or_default())
    }

    /// The items of the array under a key; none where there is no array.
    pub(crate) fn array(&self, dictionary: &Dictionary, key: &str) -> Result<Vec<Object>, ReadError> {
        match self.get(dictionary, key)? {
            Object::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// The data of a stream as it is stored.
    pub(crate) fn raw_data(&self, stream: &Stream) -> &'a [u8] {
        self.bytes.get(stream.data.clone()).unwrap_or_default()
    }

    /// The data of a stream as it is stored, decrypted.
    fn plain_data(&self, stream: &Stream) -> Result<Cow<'a, [u8]>, ReadError> {
        let data = self.raw_data(stream);
        match &self.cipher {
            Some(cipher) => cipher
                .decrypt_stream(&stream.dictionary, stream.reference, data)
                .map(Cow::Owned),
            None => Ok(Cow::Borrowed(data)),
        }
    }

    /// The decoded data of a stream.
    pub(crate) fn data(&self, stream: &Stream) -> Result<Vec<u8>, ReadError> {
        let mut dictionary = Dictionary::default();
        for key in ["Filter", "DecodeParms"] {
            let value = match self.get(&stream.dictionary, key)? {
                Object::Array(items) => Object::Array(
                    items
                        .iter()
                        .map(|item| self.resolve(item))
                        .collect::<Result<_, _>>()?,
                ),
                other => other,
            };
            dictionary.set(key, value);
        }
        self.account(filter::decode(&dictionary, &self.plain_data(stream)?)?)
    }
}
