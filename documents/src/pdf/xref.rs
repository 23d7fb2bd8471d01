//! Where the objects are: cross-reference tables, streams, and both at once (ISO 32000-2 7.5.4, 7.5.8).
//!
//! A file is a chain of sections, each with its trailer, the newest first; each is what one update added. Nothing is
//! repaired: a file whose own map is wrong would be shown by one reader as this and by another as that, and that is
//! nothing to put a signature under.

use std::collections::{HashMap, HashSet};

use super::limits::{OBJECT_NUMBER_MAX, SECTIONS_MAX};
use super::object::{Dictionary, Object, Ref, Stream};
use super::parse::Parser;
use super::{ReadError, filter};

/// Where an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Free,
    At { offset: usize, generation: u16 },
    InStream { stream: u32, index: usize },
}

/// How a section is written, and so how the next one has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Table,
    Stream,
}

/// One section and its trailer.
#[derive(Debug)]
pub(crate) struct Section {
    /// Offset of the section, as `startxref` gives it.
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    pub(crate) trailer: Dictionary,
    pub(crate) entries: HashMap<u32, Entry>,
}

/// The value of the last `startxref` (7.5.5).
pub(crate) fn last_start(bytes: &[u8]) -> Result<usize, ReadError> {
    const KEYWORD: &[u8] = b"startxref";
    /// Some producers leave things behind the end; no reader looks further than this.
    const TAIL_BYTES: usize = 2048;
    let tail = bytes.len().saturating_sub(TAIL_BYTES);
    let found = bytes[tail..]
        .windows(KEYWORD.len())
        .rposition(|window| window == KEYWORD);
    let at = tail + found.ok_or(ReadError::NoStart)? + KEYWORD.len();
    let start = Parser::new(bytes, at).whole()?;
    usize::try_from(start)
        .ok()
        .filter(|start| *start < bytes.len())
        .ok_or(ReadError::Xref {
            at,
            problem: "startxref points outside the file",
        })
}

/// All sections of a file, the newest first.
pub(crate) fn sections(bytes: &[u8]) -> Result<Vec<Section>, ReadError> {
    let mut next = Some(last_start(bytes)?);
    let mut seen = HashSet::new();
    let mut budget = bytes.len();
    let mut sections: Vec<Section> = Vec::new();
    while let Some(at) = next {
        if !seen.insert(at) {
            return Err(ReadError::Xref {
                at,
                problem: "the chain of sections goes round in circles",
            });
        }
        if sections.len() == SECTIONS_MAX {
            return Err(ReadError::Limit("cross-reference sections"));
        }
        let section = section(bytes, at)?;
        // No file has more objects than bytes; a chain that repeats one large section would.
        budget = budget
            .checked_sub(section.entries.len())
            .ok_or(ReadError::Limit("cross-reference entries"))?;
        next = previous(bytes, &section)?;
        sections.push(section);
    }
    Ok(sections)
}

fn previous(bytes: &[u8], section: &Section) -> Result<Option<usize>, ReadError> {
    offset_in(bytes, section.trailer.get("Prev"), section.at)
}

fn offset_in(bytes: &[u8], value: Option<&Object>, at: usize) -> Result<Option<usize>, ReadError> {
    let Some(value) = value else { return Ok(None) };
    match value.as_index().filter(|offset| *offset < bytes.len()) {
        Some(offset) => Ok(Some(offset)),
        None => Err(ReadError::Xref {
            at,
            problem: "it points to a section outside the file",
        }),
    }
}

fn section(bytes: &[u8], at: usize) -> Result<Section, ReadError> {
    let mut parser = Parser::new(bytes, at);
    if !parser.take("xref") {
        return stream_section(bytes, at);
    }
    let (in_use, free) = table_entries(bytes, &mut parser)?;
    let Object::Dictionary(trailer) = parser.object()? else {
        return Err(parser.wrong("a trailer dictionary"));
    };
    let mut entries = in_use;
    // What a hybrid file hides from old readers is free in its table and found in its stream (7.5.8.4).
    if let Some(hidden) = offset_in(bytes, trailer.get("XRefStm"), at)? {
        for (number, entry) in stream_section(bytes, hidden)?.entries {
            entries.entry(number).or_insert(entry);
        }
    }
    for number in free {
        entries.entry(number).or_insert(Entry::Free);
    }
    Ok(Section {
        at,
        kind: Kind::Table,
        trailer,
        entries,
    })
}

/// The entries of a table, in use and free, up to and including the keyword `trailer`.
fn table_entries(
    bytes: &[u8],
    parser: &mut Parser<'_>,
) -> Result<(HashMap<u32, Entry>, Vec<u32>), ReadError> {
    let (mut in_use, mut free) = (HashMap::new(), Vec::new());
    while !parser.take("trailer") {
        let first = parser.whole()?;
        let count = parser.whole()?;
        let last = first
            .checked_add(count)
            .filter(|last| *last <= u64::from(OBJECT_NUMBER_MAX) + 1);
        let last = last.ok_or_else(|| parser.wrong("a possible range of object numbers"))?;
        for number in (first..last).filter_map(|number| u32::try_from(number).ok()) {
            let offset = parser.whole()?;
            let generation = parser.whole()?;
            if parser.take("n") {
                in_use.insert(number, table_entry(bytes, offset, generation));
            } else {
                parser.expect("f")?;
                free.push(number);
            }
        }
    }
    Ok((in_use, free))
}

/// An entry that cannot be is an object that is not there.
fn table_entry(bytes: &[u8], offset: u64, generation: u64) -> Entry {
    match (usize::try_from(offset), u16::try_from(generation)) {
        (Ok(offset), Ok(generation)) if offset > 0 && offset < bytes.len() => {
            Entry::At { offset, generation }
        }
        _ => Entry::Free,
    }
}

fn stream_section(bytes: &[u8], at: usize) -> Result<Section, ReadError> {
    let wrong = |problem| ReadError::Xref { at, problem };
    let (_, object) = indirect_at(bytes, at, &|_| None).map_err(|_| wrong("there is no section there"))?;
    let Object::Stream(stream) = object else {
        return Err(wrong("there is no section there"));
    };
    let Stream { dictionary, data, .. } = *stream;
    if !dictionary.is_name("Type", "XRef") {
        return Err(wrong("the stream there is no cross-reference stream"));
    }
    let decoded = filter::decode(&dictionary, &bytes[data])?;
    let entries = stream_entries(&dictionary, &decoded, bytes.len())
        .ok_or_else(|| wrong("its entries are malformed"))?;
    Ok(Section {
        at,
        kind: Kind::Stream,
        trailer: dictionary,
        entries,
    })
}

/// The entries of a cross-reference stream (7.5.8.2, 7.5.8.3).
fn stream_entries(dictionary: &Dictionary, decoded: &[u8], file_bytes: usize) -> Option<HashMap<u32, Entry>> {
    let indices = |object: &Object| {
        object
            .as_array()?
            .iter()
            .map(Object::as_index)
            .collect::<Option<Vec<_>>>()
    };
    let widths = indices(dictionary.get("W")?)?;
    let [kind, second, third] = *widths.as_slice() else {
        return None;
    };
    if kind > 8 || second > 8 || third > 8 || second == 0 {
        return None;
    }
    let index = match dictionary.get("Index") {
        Some(index) => indices(index)?,
        None => vec![0, dictionary.get("Size")?.as_index()?],
    };
    let mut rows = decoded.chunks_exact(kind + second + third);
    let mut entries = HashMap::new();
    for range in index.chunks_exact(2) {
        let last = range[0].checked_add(range[1])?;
        if u32::try_from(last).ok()? > OBJECT_NUMBER_MAX + 1 {
            return None;
        }
        for number in range[0]..last {
            let row = rows.next()?;
            let (first, rest) = row.split_at(kind);
            let (middle, end) = rest.split_at(second);
            let entry = stream_entry(first, middle, end, file_bytes);
            entries.entry(u32::try_from(number).ok()?).or_insert(entry);
        }
    }
    Some(entries)
}

fn stream_entry(kind: &[u8], second: &[u8], third: &[u8], file_bytes: usize) -> Entry {
    let value = |field: &[u8]| {
        field
            .iter()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let kind = if kind.is_empty() { 1 } else { value(kind) };
    let (second, third) = (value(second), value(third));
    let entry = match kind {
        1 => usize::try_from(second)
            .ok()
            .filter(|offset| (1..file_bytes).contains(offset))
            .zip(u16::try_from(third).ok())
            .map(|(offset, generation)| Entry::At { offset, generation }),
        2 => u32::try_from(second)
            .ok()
            .zip(usize::try_from(third).ok())
            .map(|(stream, index)| Entry::InStream { stream, index }),
        _ => None,
    };
    entry.unwrap_or(Entry::Free)
}

/// The indirect object at an offset (7.3.10). `length_of` says what a /Length that is a reference means.
pub(crate) fn indirect_at(
    bytes: &[u8],
    offset: usize,
    length_of: &dyn Fn(Ref) -> Option<usize>,
) -> Result<(Ref, Object), ReadError> {
    let mut parser = Parser::new(bytes, offset);
    let reference = parser.number_and_generation()?;
    parser.expect("obj")?;
    let object = parser.object()?;
    let Object::Dictionary(dictionary) = object else {
        parser.expect("endobj")?;
        return Ok((reference, object));
    };
    if !parser.take("stream") {
        parser.expect("endobj")?;
        return Ok((reference, Object::Dictionary(dictionary)));
    }
    let length = match dictionary.get("Length") {
        Some(Object::Reference(length)) => length_of(*length),
        Some(length) => length.as_index(),
        None => None,
    };
    let length = length.ok_or_else(|| parser.wrong("a stream with a length"))?;
    let start = data_start(bytes, parser.at());
    let data = start..start.saturating_add(length);
    if data.end > bytes.len() {
        return Err(parser.wrong("a stream that ends in the file"));
    }
    let mut end = Parser::new(bytes, data.end);
    end.expect("endstream")?;
    Ok((
        reference,
        Object::Stream(Box::new(Stream {
            reference,
            dictionary,
            data,
        })),
    ))
}

/// Behind the end of line after the keyword `stream` (7.3.8.1).
fn data_start(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).unwrap_or_default() {
        [b'\r', b'\n', ..] => at + 2,
        [b'\n' | b'\r', ..] => at + 1,
        _ => at,
    }
}

/// Every object, as the newest section that knows it says.
pub(crate) fn merge(sections: &[Section]) -> HashMap<u32, Entry> {
    let mut merged = HashMap::new();
    for section in sections {
        for (number, entry) in &section.entries {
            merged.entry(*number).or_insert(*entry);
        }
    }
    merged
}
