//! The font of a report: which glyph a character is, how wide it is, and the part of the font that a file needs.

use std::cell::RefCell;
use std::collections::BTreeMap;

use subsetter::GlyphRemapper;
use ttf_parser::Face;

use super::PaperError;

/// Largest font file, in bytes.
const FONT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Why a font cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FontError {
    /// Not TrueType.
    #[error("not a font with TrueType outlines")]
    Malformed,
    /// Too large.
    #[error("a font file may have 128 MiB at most")]
    TooLarge,
    /// A character that it does not have.
    #[error("the font has no character '{0}' (U+{code:04X})", code = u32::from(*.0))]
    MissingGlyph(char),
}

/// A TrueType font file.
pub struct PaperFont(Vec<u8>);

impl PaperFont {
    /// Takes a font file.
    pub fn new(bytes: Vec<u8>) -> Result<Self, FontError> {
        if bytes.len() > FONT_BYTES_MAX {
            return Err(FontError::TooLarge);
        }
        let font = Self(bytes);
        font.open()?;
        Ok(font)
    }

    pub(super) fn open(&self) -> Result<Letters<'_>, FontError> {
        let face = Face::parse(&self.0, 0).map_err(|_| FontError::Malformed)?;
        if face.tables().glyf.is_none() {
            return Err(FontError::Malformed);
        }
        Ok(Letters {
            bytes: &self.0,
            face,
            used: RefCell::default(),
        })
    }
}

/// The characters of a font, and those that were used.
pub(super) struct Letters<'f> {
    bytes: &'f [u8],
    pub(super) face: Face<'f>,
    used: RefCell<Used>,
}

#[derive(Default)]
struct Used {
    glyphs: GlyphRemapper,
    /// By number in the file: the character, and its width in thousandths of the size.
    letters: BTreeMap<u16, (char, f32)>,
}

/// A character that looks like one that fonts for Chinese do not always have.
const fn stand_in(letter: char) -> Option<char> {
    match letter {
        '–' | '‑' | '−' => Some('-'),
        '✓' => Some('√'),
        '✗' => Some('×'),
        _ => None,
    }
}

impl Letters<'_> {
    fn glyph(&self, letter: char) -> Result<ttf_parser::GlyphId, FontError> {
        let found = self.face.glyph_index(letter);
        let found = found.or_else(|| self.face.glyph_index(stand_in(letter)?));
        found.ok_or(FontError::MissingGlyph(letter))
    }

    /// The width of a character, for a size of one point.
    pub(super) fn width(&self, letter: char) -> Result<f32, FontError> {
        let advance = self.face.glyph_hor_advance(self.glyph(letter)?);
        Ok(f32::from(advance.unwrap_or(0)) / f32::from(self.face.units_per_em()))
    }

    /// The numbers of a text's glyphs in the file, as a string with Identity-H has them.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u8>, FontError> {
        let mut codes = Vec::with_capacity(2 * text.len());
        for letter in text.chars() {
            let glyph = self.glyph(letter)?;
            let width = self.width(letter)? * 1000.0;
            let mut used = self.used.borrow_mut();
            let code = used.glyphs.remap(glyph.0);
            used.letters.entry(code).or_insert((letter, width));
            codes.extend_from_slice(&code.to_be_bytes());
        }
        Ok(codes)
    }

    /// The characters that were used, by their numbers in the file: each with its width in thousandths.
    pub(super) fn used(&self) -> BTreeMap<u16, (char, f32)> {
        self.used.borrow().letters.clone()
    }

    /// The part of the font that holds them.
    pub(super) fn subset(&self) -> Result<Vec<u8>, PaperError> {
        let used = self.used.borrow();
        subsetter::subset(self.bytes, 0, &used.glyphs).map_err(|error| PaperError::Subset(error.to_string()))
    }
}
