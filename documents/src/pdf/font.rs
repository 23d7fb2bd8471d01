//! What a font makes of the bytes of a string: characters and widths (ISO 32000-2 9.6, 9.7, 9.10).

use std::collections::HashMap;

use super::ReadError;
use super::document::Document;
use super::limits::NODES_MAX;
use super::object::{Dictionary, Object};
use super::parse::Parser;

/// A font, as far as finding text needs it.
#[derive(Clone, Debug)]
pub(crate) struct Font {
    code_bytes: usize,
    /// Characters by code, where the font says them (9.10.3).
    to_unicode: HashMap<u32, String>,
    /// Codes are UTF-16 by themselves, as with the predefined CMaps `Uni…-UTF16-H` and `Uni…-UCS2-H`.
    is_utf16: bool,
    widths: HashMap<u32, f64>,
    default_width: f64,
}

/// Widths of Helvetica from the space to the tilde in thousandths, for the standard fonts that come without widths
/// (9.6.2.2); the others of the fourteen are near enough to find a place by.
const HELVETICA: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556,
    556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278,
    500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469,
    556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500,
    278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// One character code of a string.
pub(crate) struct Code {
    pub(crate) text: String,
    /// In thousandths of the font's size.
    pub(crate) width: f64,
    /// Word spacing is for the code 32 of one byte only (9.3.3).
    pub(crate) is_space: bool,
}

impl Font {
    pub(crate) fn read(document: &Document<'_>, font: &Dictionary) -> Result<Self, ReadError> {
        let is_composite = document.get(font, "Subtype")?.is_name("Type0");
        let encoding = document.get(font, "Encoding")?;
        let name = encoding.as_name().unwrap_or_default();
        let mut read = Self {
            code_bytes: if is_composite { 2 } else { 1 },
            to_unicode: HashMap::new(),
            is_utf16: is_composite
                && name.starts_with(b"Uni")
                && !name.windows(4).any(|part| part == b"UTF8"),
            widths: HashMap::new(),
            default_width: 500.0,
        };
        if is_composite {
            read.read_composite_widths(document, font)?;
        } else {
            read.read_simple_widths(document, font)?;
        }
        if let Object::Stream(map) = document.get(font, "ToUnicode")? {
            read.read_to_unicode(&document.data(&map)?);
        }
        Ok(read)
    }

    fn read_simple_widths(&mut self, document: &Document<'_>, font: &Dictionary) -> Result<(), ReadError> {
        let first = document.get(font, "FirstChar")?.as_integer().unwrap_or(0);
        let widths = document.array(font, "Widths")?;
        if widths.is_empty() {
            self.widths = (32..).zip(HELVETICA.map(f64::from)).collect();
        }
        for (code, width) in (first..).zip(&widths) {
            let code = u32::try_from(code).ok();
            if let Some((code, width)) = code.zip(document.resolve(width)?.as_number()) {
                self.widths.insert(code, width);
            }
        }
        Ok(())
    }

    /// /DW and /W of the descendant (9.7.4.3). Codes are taken for CIDs, as with Identity-H.
    fn read_composite_widths(&mut self, document: &Document<'_>, font: &Dictionary) -> Result<(), ReadError> {
        let descendants = document.array(font, "DescendantFonts")?;
        let Some(Object::Dictionary(descendant)) = descendants
            .first()
            .map(|first| document.resolve(first))
            .transpose()?
        else {
            return Ok(());
        };
        self.default_width = document.get(&descendant, "DW")?.as_number().unwrap_or(1000.0);
        let widths = document.array(&descendant, "W")?;
        let mut rest = widths.iter();
        while let Some(first) = rest.next() {
            let first = first.as_integer().and_then(|first| u32::try_from(first).ok());
            let second = rest.next().map(|second| document.resolve(second)).transpose()?;
            match (first, second) {
                (Some(first), Some(Object::Array(list))) => {
                    let list = list
                        .iter()
                        .map(|width| width.as_number().unwrap_or(self.default_width));
                    self.widths.extend((first..).zip(list));
                }
                (Some(first), Some(last)) => {
                    let last = last.as_integer().and_then(|last| u32::try_from(last).ok());
                    let width = rest.next().and_then(Object::as_number);
                    if let (Some(last), Some(width)) = (last.filter(|last| *last <= 0xffff), width) {
                        self.widths.extend((first..=last).map(|code| (code, width)));
                    }
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// The operators bfchar and bfrange of a ToUnicode CMap (9.10.3).
    fn read_to_unicode(&mut self, map: &[u8]) {
        let mut parser = Parser::of_decoded(map, 0);
        let mut operands: Vec<Object> = Vec::new();
        while let Some(token) = parser.token() {
            match token {
                Ok(object) => operands.push(object),
                Err(word) => {
                    match word {
                        b"endcodespacerange" => self.read_code_bytes(&operands),
                        b"endbfchar" => operands
                            .chunks_exact(2)
                            .for_each(|pair| self.map(&pair[0], 0, &pair[1])),
                        b"endbfrange" => operands.chunks_exact(3).for_each(|range| self.map_range(range)),
                        _ => {}
                    }
                    operands.clear();
                }
            }
            if self.to_unicode.len() > NODES_MAX || operands.len() > NODES_MAX {
                return;
            }
        }
    }

    fn read_code_bytes(&mut self, operands: &[Object]) {
        let longest = operands
            .iter()
            .filter_map(Object::as_string)
            .map(|code| code.bytes.len())
            .max();
        self.code_bytes = longest.unwrap_or(self.code_bytes).clamp(1, 4);
    }

    fn map(&mut self, code: &Object, offset: u32, text: &Object) {
        let (Some(code), Some(text)) = (code.as_string(), text.as_string()) else {
            return;
        };
        let mut units: Vec<u16> = text
            .bytes
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        if let Some(last) = units.last_mut() {
            *last = last.wrapping_add(u16::try_from(offset).unwrap_or(0));
        }
        self.to_unicode.insert(
            number(&code.bytes).wrapping_add(offset),
            String::from_utf16_lossy(&units),
        );
    }

    fn map_range(&mut self, range: &[Object]) {
        let (Some(first), Some(last)) = (range[0].as_string(), range[1].as_string()) else {
            return;
        };
        let count = number(&last.bytes)
            .saturating_sub(number(&first.bytes))
            .min(0xffff);
        for offset in 0..=count {
            match &range[2] {
                Object::Array(texts) => {
                    let Some(text) = texts.get(offset as usize) else {
                        return;
                    };
                    let code = number(&first.bytes).wrapping_add(offset);
                    if let Some(text) = text.as_string() {
                        let bytes = [&[0xfe, 0xff][..], &text.bytes].concat();
                        self.to_unicode
                            .insert(code, Object::string(&bytes).as_text().unwrap_or_default());
                    }
                }
                text => self.map(&range[0], offset, text),
            }
        }
    }

    /// The codes of a string.
    pub(crate) fn codes(&self, bytes: &[u8]) -> Vec<Code> {
        bytes
            .chunks(self.code_bytes)
            .map(|code| self.code(code))
            .collect()
    }

    fn code(&self, bytes: &[u8]) -> Code {
        let code = number(bytes);
        let text = match self.to_unicode.get(&code) {
            Some(text) => text.clone(),
            None if self.is_utf16 => char::from_u32(code).map(String::from).unwrap_or_default(),
            None if self.code_bytes == 1 => char::from_u32(code).map(String::from).unwrap_or_default(),
            None => String::new(),
        };
        Code {
            text,
            width: self.widths.get(&code).copied().unwrap_or(self.default_width),
            is_space: bytes == b" ",
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}
