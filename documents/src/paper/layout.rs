//! Where everything of a report is: pages of marks, in points from the lower left corner of an A4 sheet.

use super::font::{FontError, Letters};
use super::{Bars, Block, Colour, Paper, Table};

pub(super) const WIDTH: f32 = 595.0;
pub(super) const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 50.0;
const INNER: f32 = WIDTH - 2.0 * MARGIN;
const TEXT: f32 = 9.5;
const HEADING: f32 = 12.0;
const TITLE: f32 = 18.0;
const FOOT: f32 = 8.0;
/// Distance of lines, in relation to the size.
const LEADING: f32 = 1.45;
/// Room around a table's text.
const PADDING: f32 = 3.0;
const BAR: f32 = 6.0;
const BAR_ROW: f32 = 8.5;
const LABEL: f32 = 26.0;

const BLACK: Colour = [32, 32, 32];
const GREY: Colour = [190, 190, 190];
const SHADE: Colour = [240, 240, 240];

/// Something on a page.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mark {
    /// Text from a point on.
    Text { at: [f32; 2], size: f32, text: String },
    /// A filled rectangle: lower left corner, width and height.
    Fill { area: [f32; 4], colour: Colour },
}

pub(super) const INK: Colour = BLACK;

/// Lays a report out on pages.
pub(super) fn lay_out(paper: &Paper, letters: &Letters<'_>) -> Result<Vec<Vec<Mark>>, FontError> {
    let mut sheet = Sheet {
        letters,
        pages: vec![Vec::new()],
        y: HEIGHT - MARGIN,
    };
    sheet.text(&paper.title, TITLE)?;
    for block in &paper.blocks {
        match block {
            Block::Heading(text) => {
                sheet.y -= HEADING * 0.6;
                // A heading does not stand alone at the foot of a page.
                sheet.need(HEADING * LEADING + 4.0 * TEXT * LEADING);
                sheet.text(text, HEADING)?;
            }
            Block::Text(text) => sheet.text(text, TEXT)?,
            Block::Table(table) => sheet.table(table)?,
            Block::Bars(bars) => sheet.bars(bars)?,
        }
    }
    let count = sheet.pages.len();
    for (number, page) in sheet.pages.iter_mut().enumerate() {
        let text = format!("{}  {}/{count}", paper.foot, number + 1);
        page.push(Mark::Text {
            at: [MARGIN, MARGIN / 2.0],
            size: FOOT,
            text,
        });
    }
    Ok(sheet.pages)
}

struct Sheet<'l> {
    letters: &'l Letters<'l>,
    pages: Vec<Vec<Mark>>,
    /// Where the next mark's upper edge is.
    y: f32,
}

impl Sheet<'_> {
    fn put(&mut self, mark: Mark) {
        if let Some(page) = self.pages.last_mut() {
            page.push(mark);
        }
    }

    /// Begins a new page unless so much room is left. True: it did.
    fn need(&mut self, room: f32) -> bool {
        let full = self.y - room < MARGIN;
        if full {
            self.pages.push(Vec::new());
            self.y = HEIGHT - MARGIN;
        }
        full
    }

    fn text(&mut self, text: &str, size: f32) -> Result<(), FontError> {
        for line in wrap(self.letters, text, size, INNER)? {
            self.need(size * LEADING);
            self.y -= size * LEADING;
            self.put(Mark::Text {
                at: [MARGIN, self.y + size * (LEADING - 1.0)],
                size,
                text: line,
            });
        }
        Ok(())
    }

    fn table(&mut self, table: &Table) -> Result<(), FontError> {
        self.y -= PADDING;
        let headings: Vec<String> = table
            .columns
            .iter()
            .map(|column| column.heading.clone())
            .collect();
        let has_headings = headings.iter().any(|heading| !heading.is_empty());
        let mut begun = false;
        for row in &table.rows {
            let cells = self.cells(table, row)?;
            let begins = self.need(height(&cells));
            if has_headings && (begins || !begun) {
                let head = self.cells(table, &headings)?;
                self.need(height(&head) + height(&cells));
                self.row(table, head, true)?;
            }
            begun = true;
            self.row(table, cells, false)?;
        }
        self.y -= PADDING;
        Ok(())
    }

    fn cells(&self, table: &Table, row: &[String]) -> Result<Vec<Vec<String>>, FontError> {
        let widths = widths(table);
        let cells = row.iter().zip(widths);
        cells
            .map(|(text, width)| wrap(self.letters, text, TEXT, width - 2.0 * PADDING))
            .collect()
    }

    fn row(&mut self, table: &Table, cells: Vec<Vec<String>>, shaded: bool) -> Result<(), FontError> {
        let tall = height(&cells);
        let below = self.y - tall;
        if shaded {
            let area = [MARGIN, below, INNER, tall];
            self.put(Mark::Fill { area, colour: SHADE });
        }
        let mut left = MARGIN;
        for ((lines, width), column) in cells.into_iter().zip(widths(table)).zip(&table.columns) {
            let mut y = self.y - PADDING - TEXT;
            for text in lines {
                let end = left + width - PADDING;
                let x = if column.right {
                    end - measure(self.letters, &text, TEXT)?
                } else {
                    left + PADDING
                };
                self.put(Mark::Text {
                    at: [x, y + TEXT * 0.15],
                    size: TEXT,
                    text,
                });
                y -= TEXT * LEADING;
            }
            left += width;
        }
        let area = [MARGIN, below, INNER, 0.4];
        self.put(Mark::Fill { area, colour: GREY });
        self.y = below;
        Ok(())
    }

    fn bars(&mut self, bars: &Bars) -> Result<(), FontError> {
        self.y -= PADDING;
        let unit = (INNER - LABEL) / bars.units.max(1) as f32;
        for (label, parts) in &bars.rows {
            self.need(BAR_ROW);
            self.y -= BAR_ROW;
            self.put(Mark::Text {
                at: [MARGIN, self.y + 0.5],
                size: BAR,
                text: label.clone(),
            });
            let mut begins = 0;
            for (colour, units) in parts {
                let left = MARGIN + LABEL + begins as f32 * unit;
                let area = [left, self.y, *units as f32 * unit, BAR];
                self.put(Mark::Fill {
                    area,
                    colour: *colour,
                });
                begins += units;
            }
        }
        self.y -= PADDING;
        self.legend(bars)
    }

    fn legend(&mut self, bars: &Bars) -> Result<(), FontError> {
        let mut left = f32::INFINITY;
        for (colour, text) in &bars.legend {
            let width = BAR + 4.0 + measure(self.letters, text, TEXT)? + 12.0;
            if left + width > MARGIN + INNER {
                self.need(TEXT * LEADING);
                self.y -= TEXT * LEADING;
                left = MARGIN;
            }
            let area = [left, self.y + 1.0, BAR, BAR];
            self.put(Mark::Fill {
                area,
                colour: *colour,
            });
            self.put(Mark::Text {
                at: [left + BAR + 4.0, self.y + 1.0],
                size: TEXT,
                text: text.clone(),
            });
            left += width;
        }
        Ok(())
    }
}

/// The widths of a table's columns.
fn widths(table: &Table) -> impl Iterator<Item = f32> {
    let whole: f32 = table.columns.iter().map(|column| column.share).sum();
    table
        .columns
        .iter()
        .map(move |column| INNER * column.share / whole)
}

/// The height of a row.
fn height(cells: &[Vec<String>]) -> f32 {
    let lines = cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
    lines as f32 * TEXT * LEADING + 2.0 * PADDING - TEXT * (LEADING - 1.0)
}

fn measure(letters: &Letters<'_>, text: &str, size: f32) -> Result<f32, FontError> {
    let mut width = 0.0;
    for letter in text.chars() {
        width += letters.width(letter)? * size;
    }
    Ok(width)
}

/// Breaks a text into lines: at spaces, beside characters of scripts that have none, and within a word only where it is
/// wider than the line.
fn wrap(letters: &Letters<'_>, text: &str, size: f32, width: f32) -> Result<Vec<String>, FontError> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0.0;
    // Where the line may be broken, in bytes.
    let mut chance = 0;
    for letter in text.chars() {
        if letter == '\n' {
            lines.push(std::mem::take(&mut line));
            (length, chance) = (0.0, 0);
            continue;
        }
        let wide = letters.width(letter)? * size;
        if length + wide > width && !line.is_empty() && letter != ' ' {
            let at = if chance > 0 { chance } else { line.len() };
            let rest = line.split_off(at);
            lines.push(line.trim_end().to_owned());
            line = rest.trim_start().to_owned();
            length = measure(letters, &line, size)?;
            chance = 0;
        }
        line.push(letter);
        length += wide;
        if letter == ' ' || !letter.is_ascii() {
            chance = line.len();
        }
    }
    lines.push(line.trim_end().to_owned());
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::{Column, PaperFont};
    use super::*;

    /// AR PL SungtiL GB, from the Debian package fonts-arphic-gbsn00lp.
    fn font() -> PaperFont {
        let bytes = std::fs::read("/usr/share/fonts/truetype/arphic-gbsn00lp/gbsn00lp.ttf").unwrap();
        PaperFont::new(bytes).unwrap()
    }

    #[test]
    fn lines_are_broken_between_words_and_between_characters_that_need_no_space() {
        let font = font();
        let letters = font.open().unwrap();
        for text in [
            "a rather long line of words that does not fit",
            "可用性按月计算的不可用分钟数之和与总分钟数之比",
            "averyveryverylongwordthatfitsnowhereatallandisbroken",
            "混合 mixed 文字 and words 的一行",
        ] {
            let lines = wrap(&letters, text, 10.0, 80.0).unwrap();
            assert!(lines.len() > 1, "{lines:?}");
            for line in &lines {
                assert!(measure(&letters, line, 10.0).unwrap() <= 80.0, "{line}");
            }
            let joined: String = lines.concat().split(' ').collect();
            assert_eq!(joined, text.split(' ').collect::<String>(), "nothing is lost");
        }
        assert_eq!(wrap(&letters, "one two", 10.0, 400.0).unwrap(), ["one two"]);
        assert_eq!(wrap(&letters, "", 10.0, 400.0).unwrap(), [""]);
    }

    #[test]
    fn a_long_table_goes_over_pages_and_repeats_its_headings() {
        let font = font();
        let letters = font.open().unwrap();
        let row = |number: usize| vec![format!("row {number}"), number.to_string()];
        let paper = Paper {
            title: "表".into(),
            blocks: vec![Block::Table(Table {
                columns: vec![Column::words("名称", 3.0), Column::numbers("数量", 1.0)],
                rows: (0..150).map(row).collect(),
            })],
            ..Paper::default()
        };
        let pages = lay_out(&paper, &letters).unwrap();
        let texts = |page: &Vec<Mark>| -> Vec<String> {
            let text = |mark: &Mark| match mark {
                Mark::Text { text, .. } => Some(text.clone()),
                Mark::Fill { .. } => None,
            };
            page.iter().filter_map(text).collect()
        };
        assert!(pages.len() >= 3, "{}", pages.len());
        for page in &pages {
            assert_eq!(texts(page).iter().filter(|text| *text == "名称").count(), 1);
        }
        let all: Vec<String> = pages.iter().flat_map(|page| texts(page)).collect();
        for number in 0..150 {
            assert_eq!(
                all.iter()
                    .filter(|text| **text == format!("row {number}"))
                    .count(),
                1
            );
        }
        for mark in pages.iter().flatten() {
            if let Mark::Text {
                at: [x, y],
                size,
                text,
            } = mark
            {
                assert!(
                    *y > 0.0 && y + size < HEIGHT && *x >= MARGIN,
                    "{text} at {x}, {y}"
                );
                assert!(
                    x + measure(&letters, text, *size).unwrap() <= WIDTH - MARGIN + 0.1,
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_character_that_the_font_has_not_is_named() {
        let font = font();
        let paper = Paper {
            title: "\u{1F600}".into(),
            ..Paper::default()
        };
        let refused = lay_out(&paper, &font.open().unwrap());
        assert_eq!(refused, Err(FontError::MissingGlyph('\u{1F600}')));
        assert_eq!(
            PaperFont::new(b"no font".to_vec()).err(),
            Some(FontError::Malformed)
        );
    }
}
