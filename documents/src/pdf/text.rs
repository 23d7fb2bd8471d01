//! Where text is on a page: content streams read for their text operators (ISO 32000-2 9.4).

use std::collections::HashMap;
use std::rc::Rc;

use super::ReadError;
use super::document::Document;
use super::font::Font;
use super::matrix::Matrix;
use super::object::{Dictionary, Object};
use super::page::{Page, Rectangle};
use super::parse::Parser;

/// A piece of text that one character code shows, and the box it fills in user space.
#[derive(Clone, Debug)]
pub(crate) struct Glyph {
    pub(crate) text: String,
    pub(crate) place: Rectangle,
}

/// Deepest nesting of form XObjects.
const FORM_DEPTH_MAX: usize = 8;
/// Most operators on a page, with all its form XObjects.
const OPERATORS_MAX: usize = 2_000_000;
/// Most character codes on a page.
const GLYPHS_MAX: usize = 500_000;
/// Most operands of one operator.
const OPERANDS_MAX: usize = 64;
/// Deepest nesting of graphics states.
const STATES_MAX: usize = 64;

/// The text of a page, in the order in which it is drawn.
pub(crate) fn glyphs(document: &Document<'_>, page: &Page) -> Result<Vec<Glyph>, ReadError> {
    let mut content = Vec::new();
    let streams = match document.get(&page.dictionary, "Contents")? {
        Object::Array(streams) => streams,
        one => vec![one],
    };
    for stream in streams {
        if let Object::Stream(stream) = document.resolve(&stream)? {
            content.extend(document.data(&stream)?);
            content.push(b'\n');
        }
    }
    let resources = match &page.resources {
        Some(resources) => document
            .resolve(resources)?
            .as_dictionary()
            .cloned()
            .unwrap_or_default(),
        None => Dictionary::default(),
    };
    let mut reader = Reader {
        document,
        glyphs: Vec::new(),
        operators: 0,
        fonts: HashMap::new(),
    };
    reader.read(&content, &resources, Matrix::IDENTITY, FORM_DEPTH_MAX)?;
    Ok(reader.glyphs)
}

/// The part of the graphics state that text depends on (9.3).
#[derive(Clone)]
struct State {
    to_page: Matrix,
    font: Option<Rc<Font>>,
    size: f64,
    character_space: f64,
    word_space: f64,
    scale: f64,
    leading: f64,
    rise: f64,
    text: Matrix,
    line: Matrix,
}

struct Reader<'d, 'a> {
    document: &'d Document<'a>,
    glyphs: Vec<Glyph>,
    operators: usize,
    /// Fonts by the text of the object that they are.
    fonts: HashMap<String, Rc<Font>>,
}

impl Reader<'_, '_> {
    fn read(
        &mut self,
        content: &[u8],
        resources: &Dictionary,
        to_page: Matrix,
        depth: usize,
    ) -> Result<(), ReadError> {
        let mut parser = Parser::of_decoded(content, 0);
        let mut operands: Vec<Object> = Vec::new();
        let mut state = State {
            to_page,
            font: None,
            size: 0.0,
            character_space: 0.0,
            word_space: 0.0,
            scale: 1.0,
            leading: 0.0,
            rise: 0.0,
            text: Matrix::IDENTITY,
            line: Matrix::IDENTITY,
        };
        let mut saved: Vec<State> = Vec::new();
        while let Some(token) = parser.token() {
            let operator = match token {
                Ok(object) if operands.len() < OPERANDS_MAX => {
                    operands.push(object);
                    continue;
                }
                Ok(_) => continue,
                Err(operator) => operator,
            };
            self.operators += 1;
            if self.operators > OPERATORS_MAX || self.glyphs.len() > GLYPHS_MAX {
                return Err(ReadError::Limit("text of a page"));
            }
            match operator {
                b"q" if saved.len() < STATES_MAX => saved.push(state.clone()),
                b"Q" => state = saved.pop().unwrap_or(state),
                b"ID" => parser.skip_inline_image(),
                b"Tf" => self.set_font(&mut state, &operands, resources)?,
                b"Do" => self.show_form(&state, &operands, resources, depth)?,
                b"Tj" => self.show_operand(&mut state, operands.last()),
                b"'" => {
                    state.next_line(0.0, -state.leading);
                    self.show_operand(&mut state, operands.last());
                }
                b"\"" => {
                    if let [word, character, _] = operands.as_slice() {
                        state.word_space = word.as_number().unwrap_or(0.0);
                        state.character_space = character.as_number().unwrap_or(0.0);
                    }
                    state.next_line(0.0, -state.leading);
                    self.show_operand(&mut state, operands.last());
                }
                b"TJ" => self.show_pieces(&mut state, operands.last()),
                _ => state.set(operator, &operands),
            }
            operands.clear();
        }
        Ok(())
    }

    fn set_font(
        &mut self,
        state: &mut State,
        operands: &[Object],
        resources: &Dictionary,
    ) -> Result<(), ReadError> {
        let [Object::Name(name), size] = operands else {
            return Ok(());
        };
        state.size = size.as_number().unwrap_or(0.0);
        let fonts = self.document.dictionary(resources, "Font")?;
        let name = String::from_utf8_lossy(name);
        let key = format!("{:?}", fonts.get(&name));
        if !self.fonts.contains_key(&key) {
            let font = Font::read(self.document, &self.document.dictionary(&fonts, &name)?)?;
            self.fonts.insert(key.clone(), Rc::new(font));
        }
        state.font = self.fonts.get(&key).cloned();
        Ok(())
    }

    fn show_form(
        &mut self,
        state: &State,
        operands: &[Object],
        resources: &Dictionary,
        depth: usize,
    ) -> Result<(), ReadError> {
        let (Some(Object::Name(name)), Some(depth)) = (operands.last(), depth.checked_sub(1)) else {
            return Ok(());
        };
        let objects = self.document.dictionary(resources, "XObject")?;
        let Object::Stream(form) = self.document.get(&objects, &String::from_utf8_lossy(name))? else {
            return Ok(());
        };
        if !form.dictionary.is_name("Subtype", "Form") {
            return Ok(());
        }
        let matrix =
            Matrix::read(&self.document.array(&form.dictionary, "Matrix")?).unwrap_or(Matrix::IDENTITY);
        let own = match self.document.get(&form.dictionary, "Resources")? {
            Object::Dictionary(own) => own,
            // Forms of old files use those of the page (7.8.3).
            _ => resources.clone(),
        };
        let content = self.document.data(&form)?;
        self.read(&content, &own, matrix.then(state.to_page), depth)
    }

    fn show_operand(&mut self, state: &mut State, operand: Option<&Object>) {
        if let Some(string) = operand.and_then(Object::as_string) {
            self.show(state, &string.bytes);
        }
    }

    fn show_pieces(&mut self, state: &mut State, operand: Option<&Object>) {
        for piece in operand.and_then(Object::as_array).unwrap_or_default() {
            match piece {
                Object::String(string) => self.show(state, &string.bytes),
                other => {
                    let shift = other.as_number().unwrap_or(0.0);
                    state.advance(-shift / 1000.0 * state.size * state.scale);
                }
            }
        }
    }

    fn show(&mut self, state: &mut State, bytes: &[u8]) {
        let Some(font) = state.font.clone() else { return };
        for code in font.codes(bytes) {
            let word_space = if code.is_space { state.word_space } else { 0.0 };
            let width = code.width / 1000.0 * state.size;
            let place = state.place(width * state.scale);
            self.glyphs.push(Glyph {
                text: code.text,
                place,
            });
            state.advance((width + state.character_space + word_space) * state.scale);
            if self.glyphs.len() > GLYPHS_MAX {
                return;
            }
        }
    }
}

impl State {
    fn set(&mut self, operator: &[u8], operands: &[Object]) {
        let number = |at: usize| operands.get(at).and_then(Object::as_number).unwrap_or(0.0);
        match operator {
            b"cm" => {
                if let Some(matrix) = Matrix::read(operands) {
                    self.to_page = matrix.then(self.to_page);
                }
            }
            b"BT" => (self.text, self.line) = (Matrix::IDENTITY, Matrix::IDENTITY),
            b"Tm" => {
                if let Some(matrix) = Matrix::read(operands) {
                    (self.text, self.line) = (matrix, matrix);
                }
            }
            b"Td" => self.next_line(number(0), number(1)),
            b"TD" => {
                self.leading = -number(1);
                self.next_line(number(0), number(1));
            }
            b"T*" => self.next_line(0.0, -self.leading),
            b"Tc" => self.character_space = number(0),
            b"Tw" => self.word_space = number(0),
            b"Tz" => self.scale = number(0) / 100.0,
            b"TL" => self.leading = number(0),
            b"Ts" => self.rise = number(0),
            _ => {}
        }
    }

    fn next_line(&mut self, x: f64, y: f64) {
        self.line = Matrix::translation(x, y).then(self.line);
        self.text = self.line;
    }

    fn advance(&mut self, x: f64) {
        self.text = Matrix::translation(x, 0.0).then(self.text);
    }

    /// The box of a glyph of some width, from a little under the line to the height of capitals.
    fn place(&self, width: f64) -> Rectangle {
        const BELOW: f64 = -0.2;
        const ABOVE: f64 = 0.8;
        let to_page = self.text.then(self.to_page);
        let corners = [(0.0, BELOW), (width, BELOW), (0.0, ABOVE), (width, ABOVE)]
            .map(|(x, y)| to_page.apply(x, y * self.size + self.rise));
        let mut place = Rectangle {
            left: f64::INFINITY,
            bottom: f64::INFINITY,
            right: f64::NEG_INFINITY,
            top: f64::NEG_INFINITY,
        };
        for (x, y) in corners {
            place.left = place.left.min(x);
            place.bottom = place.bottom.min(y);
            place.right = place.right.max(x);
            place.top = place.top.max(y);
        }
        place
    }
}
