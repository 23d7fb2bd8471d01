//! Paper: reports as PDF files, made of headings, lines, tables and bars, in any script that one TrueType font has. The
//! characters that occur are embedded (ISO 32000-1 9.7: a composite font with Identity-H), so a page looks the same
//! everywhere, and its text can be searched and copied.
//!
//! - [`layout`] says where everything is: pure arithmetic in points, which can be tested without a PDF reader.
//! - [`write`] writes the file; [`font`] knows the characters.

mod font;
mod layout;
mod write;

pub use font::{FontError, PaperFont};

/// A colour: red, green and blue from 0 to 255.
pub type Colour = [u8; 3];

/// A report.
#[derive(Clone, Debug, Default)]
pub struct Paper {
    /// What it is called; the first heading, and the document's title.
    pub title: String,
    /// Language tag (RFC 5646), such as `zh-CN`.
    pub language: &'static str,
    /// What it says, from top to bottom.
    pub blocks: Vec<Block>,
    /// What stands at the foot of each page.
    pub foot: String,
}

/// A part of a report.
#[derive(Clone, Debug)]
pub enum Block {
    /// A heading.
    Heading(String),
    /// Text, wrapped at the width of the page.
    Text(String),
    /// A table. Its headings are repeated on each page.
    Table(Table),
    /// Rows of coloured bars.
    Bars(Bars),
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, a text for each column.
    pub rows: Vec<Vec<String>>,
}

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its heading; where no column has one, there is no row of headings.
    pub heading: String,
    /// Its share of the width, in relation to the other columns.
    pub share: f32,
    /// Whether its texts end at the right: numbers.
    pub right: bool,
}

impl Column {
    /// A column of words.
    pub fn words(heading: impl Into<String>, share: f32) -> Self {
        Self {
            heading: heading.into(),
            share,
            right: false,
        }
    }

    /// A column of numbers.
    pub fn numbers(heading: impl Into<String>, share: f32) -> Self {
        Self {
            right: true,
            ..Self::words(heading, share)
        }
    }
}

/// Rows of coloured bars, such as a day a row and a minute a unit.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// Units of the whole width.
    pub units: u32,
    /// Each row: a label, and its bars from left to right, each so many units long.
    pub rows: Vec<(String, Vec<(Colour, u32)>)>,
    /// What the colours mean.
    pub legend: Vec<(Colour, String)>,
}

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    /// The font.
    #[error(transparent)]
    Font(#[from] FontError),
    /// The font's outlines cannot be taken out of it.
    #[error("the font cannot be embedded: {0}")]
    Subset(String),
}

/// Makes the PDF file.
pub fn make(paper: &Paper, font: &PaperFont) -> Result<Vec<u8>, PaperError> {
    let letters = font.open()?;
    let pages = layout::lay_out(paper, &letters)?;
    write::write(paper, &pages, &letters)
}
