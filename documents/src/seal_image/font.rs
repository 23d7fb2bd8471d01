//! Outlines of characters.

use tiny_skia::PathBuilder;
use ttf_parser::{Face, GlyphId, OutlineBuilder};

/// Largest font file, in bytes.
const FONT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Why a font cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FontError {
    /// Not TrueType or OpenType.
    #[error("not a TrueType or OpenType font, or no font of that number in the collection")]
    Malformed,
    /// Too large.
    #[error("a font file may have 128 MiB at most")]
    TooLarge,
    /// A character without an outline.
    #[error("the font has no character '{0}' (U+{code:04X})", code = u32::from(*.0))]
    MissingGlyph(char),
}

/// A TrueType or OpenType font.
pub struct Font {
    bytes: Vec<u8>,
    index: u32,
}

/// A character in units of the em: its centre at the origin, y downwards.
pub(super) struct Outline {
    /// Points of the path, as drawing commands.
    pub(super) commands: Vec<Command>,
    /// How far the next character is, in em.
    pub(super) advance: f32,
}

/// A step of an outline, in em.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    Move([f32; 2]),
    Line([f32; 2]),
    Quad([[f32; 2]; 2]),
    Cubic([[f32; 2]; 3]),
    Close,
}

impl Font {
    /// Takes a font file; `index` chooses from a collection, and is 0 where there is one font.
    pub fn new(bytes: Vec<u8>, index: u32) -> Result<Self, FontError> {
        if bytes.len() > FONT_BYTES_MAX {
            return Err(FontError::TooLarge);
        }
        Face::parse(&bytes, index).map_err(|_| FontError::Malformed)?;
        Ok(Self { bytes, index })
    }

    pub(super) fn outlines(&self, text: &str) -> Result<Vec<Outline>, FontError> {
        let face = Face::parse(&self.bytes, self.index).map_err(|_| FontError::Malformed)?;
        text.chars().map(|letter| outline(&face, letter)).collect()
    }
}

fn outline(face: &Face<'_>, letter: char) -> Result<Outline, FontError> {
    let missing = FontError::MissingGlyph(letter);
    let glyph = face
        .glyph_index(letter)
        .filter(|glyph| *glyph != GlyphId(0))
        .ok_or_else(|| missing.clone())?;
    let em = f32::from(face.units_per_em());
    let advance = f32::from(face.glyph_hor_advance(glyph).ok_or_else(|| missing.clone())?);
    let middle = (f32::from(face.ascender()) + f32::from(face.descender())) / 2.0;
    let mut pen = Pen {
        commands: Vec::new(),
        em,
        centre: [advance / 2.0, middle],
    };
    // Only a space may be without an outline.
    if face.outline_glyph(glyph, &mut pen).is_none() && !letter.is_whitespace() {
        return Err(missing);
    }
    Ok(Outline {
        commands: pen.commands,
        advance: advance / em,
    })
}

struct Pen {
    commands: Vec<Command>,
    em: f32,
    centre: [f32; 2],
}

impl Pen {
    fn point(&self, x: f32, y: f32) -> [f32; 2] {
        [(x - self.centre[0]) / self.em, (self.centre[1] - y) / self.em]
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.commands.push(Command::Move(self.point(x, y)));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.commands.push(Command::Line(self.point(x, y)));
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.commands
            .push(Command::Quad([self.point(x1, y1), self.point(x, y)]));
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let points = [self.point(x1, y1), self.point(x2, y2), self.point(x, y)];
        self.commands.push(Command::Cubic(points));
    }

    fn close(&mut self) {
        self.commands.push(Command::Close);
    }
}

impl Outline {
    /// Adds the character to a path, every point moved by `place`.
    pub(super) fn add_to(&self, path: &mut PathBuilder, place: impl Fn([f32; 2]) -> [f32; 2]) {
        for command in &self.commands {
            match *command {
                Command::Move(a) => {
                    let [x, y] = place(a);
                    path.move_to(x, y);
                }
                Command::Line(a) => {
                    let [x, y] = place(a);
                    path.line_to(x, y);
                }
                Command::Quad(points) => {
                    let [[x1, y1], [x, y]] = points.map(&place);
                    path.quad_to(x1, y1, x, y);
                }
                Command::Cubic(points) => {
                    let [[x1, y1], [x2, y2], [x, y]] = points.map(&place);
                    path.cubic_to(x1, y1, x2, y2, x, y);
                }
                Command::Close => path.close(),
            }
        }
    }
}
