//! From the text of an object to the object (ISO 32000-2 7.2 and 7.3).

use super::ReadError;
use super::limits::{DEPTH_MAX, NODES_MAX};
use super::object::{Dictionary, Object, PdfString, Ref};

/// Reads objects from bytes, from one place on. What it reads is bounded in depth and in number.
pub(crate) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
    /// Whether the bytes are those of the file, so that places in them mean something.
    is_file: bool,
}

/// White space (Table 1).
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

/// Delimiters (Table 2).
const fn is_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%'
    )
}

const fn is_regular(byte: u8) -> bool {
    !is_space(byte) && !is_delimiter(byte)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

impl<'a> Parser<'a> {
    /// A parser of the file.
    pub(crate) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            nodes: 0,
            is_file: true,
        }
    }

    /// A parser of something that was decoded.
    pub(crate) const fn of_decoded(bytes: &'a [u8], at: usize) -> Self {
        Self {
            is_file: false,
            ..Self::new(bytes, at)
        }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) const fn wrong(&self, expected: &'static str) -> ReadError {
        ReadError::Syntax {
            at: self.at,
            expected,
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips white space and comments (7.2.3, 7.2.4).
    pub(crate) fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'%' {
                let end = self.rest().iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                self.at += end.unwrap_or(self.rest().len());
            } else if is_space(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// Takes a keyword that stands here, or nothing.
    pub(crate) fn take(&mut self, keyword: &str) -> bool {
        self.skip_space();
        let rest = self.rest();
        let ends = rest.get(keyword.len()).is_none_or(|byte| !is_regular(*byte));
        let is_there = rest.starts_with(keyword.as_bytes()) && ends;
        if is_there {
            self.at += keyword.len();
        }
        is_there
    }

    pub(crate) fn expect(&mut self, keyword: &'static str) -> Result<(), ReadError> {
        if self.take(keyword) {
            Ok(())
        } else {
            Err(self.wrong(keyword))
        }
    }

    fn regular(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let length = rest
            .iter()
            .position(|byte| !is_regular(*byte))
            .unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// The next object or, as the error, operator of a content stream or CMap (7.8.2). What is neither is skipped.
    pub(crate) fn token(&mut self) -> Option<Result<Object, &'a [u8]>> {
        loop {
            self.skip_space();
            let first = self.peek()?;
            if is_regular(first) && !matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.') {
                return Some(Err(self.regular()));
            }
            let start = self.at;
            // The bound on nodes is for one object.
            self.nodes = 0;
            match self.object() {
                Ok(object) => return Some(Ok(object)),
                Err(_) => self.at = start + 1,
            }
        }
    }

    /// Skips the data of an inline image, up to `EI` (8.9.7).
    pub(crate) fn skip_inline_image(&mut self) {
        let end = self
            .rest()
            .windows(4)
            .position(|window| is_space(window[0]) && window[1..3] == *b"EI" && is_space(window[3]));
        self.at += end.map_or(self.rest().len(), |end| end + 3);
    }

    /// A whole number that is not negative.
    pub(crate) fn whole(&mut self) -> Result<u64, ReadError> {
        self.skip_space();
        let start = self.at;
        let text = self.regular();
        let number = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok());
        number.ok_or(ReadError::Syntax {
            at: start,
            expected: "a whole number",
        })
    }

    /// `12 0`, as in `12 0 obj` and `12 0 R`.
    pub(crate) fn number_and_generation(&mut self) -> Result<Ref, ReadError> {
        let wrong = self.wrong("an object number and a generation");
        let number = u32::try_from(self.whole()?).map_err(|_| wrong.clone())?;
        let generation = u16::try_from(self.whole()?).map_err(|_| wrong)?;
        Ok(Ref { number, generation })
    }

    /// The object that stands here.
    pub(crate) fn object(&mut self) -> Result<Object, ReadError> {
        self.nested(DEPTH_MAX)
    }

    fn nested(&mut self, depth: usize) -> Result<Object, ReadError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(ReadError::Limit("parts of one object"));
        }
        let depth = depth
            .checked_sub(1)
            .ok_or(ReadError::Limit("depth of an object"))?;
        self.skip_space();
        match self.peek().ok_or_else(|| self.wrong("an object"))? {
            b'/' => self.name().map(Object::Name),
            b'(' => self.literal_string(),
            b'<' if self.rest().starts_with(b"<<") => self.dictionary(depth).map(Object::Dictionary),
            b'<' => self.hexadecimal_string(),
            b'[' => self.array(depth),
            b'0'..=b'9' | b'+' | b'-' | b'.' => self.number_or_reference(),
            _ => self.keyword(),
        }
    }

    fn keyword(&mut self) -> Result<Object, ReadError> {
        for (keyword, object) in [
            ("null", Object::Null),
            ("true", Object::Boolean(true)),
            ("false", Object::Boolean(false)),
        ] {
            if self.take(keyword) {
                return Ok(object);
            }
        }
        Err(self.wrong("an object"))
    }

    fn number_or_reference(&mut self) -> Result<Object, ReadError> {
        let start = self.at;
        let text = self.regular();
        let after = self.at;
        if text.iter().all(u8::is_ascii_digit) {
            self.at = start;
            if let Ok(reference) = self.number_and_generation()
                && self.take("R")
            {
                return Ok(Object::Reference(reference));
            }
            self.at = after;
        }
        let number = std::str::from_utf8(text).ok().and_then(number);
        number.ok_or(ReadError::Syntax {
            at: start,
            expected: "a number",
        })
    }

    pub(crate) fn name(&mut self) -> Result<Box<[u8]>, ReadError> {
        self.at += 1;
        let text = self.regular();
        if !text.contains(&b'#') {
            return Ok(text.into());
        }
        let mut name = Vec::with_capacity(text.len());
        let mut rest = text.iter();
        while let Some(byte) = rest.next() {
            let pair = rest.as_slice().first_chunk::<2>();
            let escaped = pair.and_then(|[high, low]| Some(hex_digit(*high)? << 4 | hex_digit(*low)?));
            match escaped.filter(|_| *byte == b'#') {
                Some(escaped) => {
                    name.push(escaped);
                    rest.nth(1);
                }
                None => name.push(*byte),
            }
        }
        Ok(name.into())
    }

    fn array(&mut self, depth: usize) -> Result<Object, ReadError> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(b']') => {
                    self.at += 1;
                    return Ok(Object::Array(items));
                }
                Some(_) => items.push(self.nested(depth)?),
                None => return Err(self.wrong("]")),
            }
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Dictionary, ReadError> {
        self.at += 2;
        let mut entries = Vec::new();
        loop {
            self.skip_space();
            if self.rest().starts_with(b">>") {
                self.at += 2;
                return Ok(Dictionary(entries));
            }
            if self.peek() != Some(b'/') {
                return Err(self.wrong("a key or >>"));
            }
            let key = self.name()?;
            entries.push((key, self.nested(depth)?));
        }
    }

    fn string(&self, bytes: Vec<u8>, start: usize, is_hexadecimal: bool) -> Object {
        let at = if self.is_file { start..self.at } else { 0..0 };
        Object::String(PdfString {
            bytes,
            at,
            is_hexadecimal,
        })
    }

    fn hexadecimal_string(&mut self) -> Result<Object, ReadError> {
        let start = self.at;
        self.at += 1;
        let end = self.rest().iter().position(|byte| *byte == b'>');
        let text = &self.rest()[..end.ok_or_else(|| self.wrong(">"))?];
        let mut bytes = Vec::with_capacity(text.len() / 2);
        let mut high = None;
        for byte in text.iter().filter(|byte| !is_space(**byte)) {
            let digit = hex_digit(*byte).ok_or_else(|| self.wrong("hexadecimal digits"))?;
            match high.take() {
                None => high = Some(digit),
                Some(high) => bytes.push(high << 4 | digit),
            }
        }
        // A last digit alone counts as if a 0 followed (7.3.4.3).
        bytes.extend(high.map(|high| high << 4));
        self.at += text.len() + 1;
        Ok(self.string(bytes, start, true))
    }

    fn literal_string(&mut self) -> Result<Object, ReadError> {
        let start = self.at;
        let mut open = 0_usize;
        let mut bytes = Vec::new();
        loop {
            let byte = self.peek().ok_or_else(|| self.wrong(")"))?;
            self.at += 1;
            match byte {
                b'(' => open += 1,
                b')' if open == 1 => return Ok(self.string(bytes, start, false)),
                b')' => open -= 1,
                b'\\' => {
                    bytes.extend(self.escape());
                    continue;
                }
                b'\r' => {
                    self.skip_line_feed();
                    bytes.push(b'\n');
                    continue;
                }
                _ => {}
            }
            if open > 1 || byte != b'(' {
                bytes.push(byte);
            }
        }
    }

    fn skip_line_feed(&mut self) {
        self.at += usize::from(self.peek() == Some(b'\n'));
    }

    /// What follows a backslash in a literal string (Table 3).
    fn escape(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'b' => Some(8),
            b'f' => Some(0x0c),
            b'\n' => None,
            b'\r' => {
                self.skip_line_feed();
                None
            }
            b'0'..=b'7' => Some(self.octal(byte - b'0')),
            other => Some(other),
        }
    }

    fn octal(&mut self, first: u8) -> u8 {
        let mut value = first;
        for _ in 0..2 {
            match self.peek() {
                Some(digit @ b'0'..=b'7') => value = value << 3 | (digit - b'0'),
                _ => return value,
            }
            self.at += 1;
        }
        value
    }
}

/// Integers and reals (7.3.3). There are no exponents.
fn number(text: &str) -> Option<Object> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let has_digit = digits.bytes().any(|byte| byte.is_ascii_digit());
    if !is_plain || !has_digit || digits.matches('.').count() > 1 {
        return None;
    }
    // A whole number beyond 64 bits is a number all the same; nothing that is counted is so large.
    let whole = if digits.contains('.') {
        None
    } else {
        text.parse().ok()
    };
    Some(whole.map_or_else(|| Object::Real(text.as_bytes().into()), Object::Integer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdf::write::write_object;

    fn read(text: &str) -> Result<Object, ReadError> {
        Parser::new(text.as_bytes(), 0).object()
    }

    fn bytes(text: &str) -> Vec<u8> {
        read(text).unwrap().as_string().unwrap().bytes.clone()
    }

    #[test]
    fn every_kind_reads_and_writes() {
        let text = "<</A [1 -2 .5 +3 null true false]/B 12 0 R/C(x)/D<</E#20F/G>>/H<0aFF>>>";
        let object = read(text).unwrap();
        let mut out = Vec::new();
        write_object(&mut out, &object);
        let again = Parser::new(&out, 0).object().unwrap();
        assert_eq!(object, again, "{}", String::from_utf8_lossy(&out));
        let dictionary = object.as_dictionary().unwrap();
        assert_eq!(
            dictionary.reference("B"),
            Some(Ref {
                number: 12,
                generation: 0
            })
        );
        let inner = dictionary.get("D").unwrap().as_dictionary().unwrap();
        assert!(inner.is_name("E F", "G"));
        assert_eq!(dictionary.get("H").unwrap().as_string().unwrap().at, 63..69);
    }

    #[test]
    fn strings_have_all_their_escapes() {
        assert_eq!(bytes(r"(a\(b\)\n\101\7x(nested))"), b"a(b)\nA\x07x(nested)");
        assert_eq!(bytes("(a\\\r\nb\r\nc)"), b"ab\nc");
        assert_eq!(bytes("<4 1 5>"), b"AP");
        assert_eq!(bytes("()"), b"");
    }

    #[test]
    fn numbers_that_are_followed_by_other_things() {
        let items = read("[1 2 3 0 R 4]").unwrap();
        assert_eq!(items.as_array().unwrap().len(), 4);
        assert_eq!(read("12"), Ok(Object::Integer(12)));
        for bad in ["1e5", "--1", ".", "1.2.3", "+"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_cut_off_or_too_deep_is_refused() {
        for bad in [
            "<<", "[1", "(a", "<41", "<</A", "<</A 1", "", "<4z>", ">>", "<<1 2>>",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(read(&deep), Err(ReadError::Limit("depth of an object")));
        let wide = format!("[{}]", "0 ".repeat(NODES_MAX + 1));
        assert_eq!(read(&wide), Err(ReadError::Limit("parts of one object")));
    }
}
