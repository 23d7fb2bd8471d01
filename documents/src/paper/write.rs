//! Pages of marks as a PDF file (ISO 32000-1): one composite font with the characters that occur, a content stream a page.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use super::font::Letters;
use super::layout::{HEIGHT, INK, Mark, WIDTH};
use super::{Colour, FontError, Paper, PaperError};

const FONT: Name<'_> = Name(b"F0");
/// Six letters before the name say that a font is a part of one (9.6.4).
const BASE_FONT: Name<'_> = Name(b"CNBRPT+Report");
const IDENTITY: SystemInfo<'_> = SystemInfo {
    registry: Str(b"Adobe"),
    ordering: Str(b"Identity"),
    supplement: 0,
};

/// Numbers of the objects that are there once.
struct Objects {
    catalog: Ref,
    pages: Ref,
    info: Ref,
    font: Ref,
    cid_font: Ref,
    descriptor: Ref,
    outlines: Ref,
    to_unicode: Ref,
    next: Ref,
}

impl Objects {
    fn new() -> Self {
        let mut next = Ref::new(1);
        let mut take = || next.bump();
        Self {
            catalog: take(),
            pages: take(),
            info: take(),
            font: take(),
            cid_font: take(),
            descriptor: take(),
            outlines: take(),
            to_unicode: take(),
            next,
        }
    }
}

pub(super) fn write(
    paper: &Paper,
    pages: &[Vec<Mark>],
    letters: &Letters<'_>,
) -> Result<Vec<u8>, PaperError> {
    let mut pdf = Pdf::new();
    let mut objects = Objects::new();
    let mut catalog = pdf.catalog(objects.catalog);
    catalog.pages(objects.pages).lang(TextStr(paper.language));
    catalog.finish();
    pdf.document_info(objects.info)
        .title(TextStr(&paper.title))
        .producer(TextStr("Cinnabar"));
    let mut kids = Vec::with_capacity(pages.len());
    for marks in pages {
        kids.push(write_page(&mut pdf, &mut objects, marks, letters)?);
    }
    let count = i32::try_from(kids.len()).unwrap_or(i32::MAX);
    pdf.pages(objects.pages).kids(kids).count(count);
    write_font(&mut pdf, &objects, letters)?;
    Ok(pdf.finish())
}

fn write_page(
    pdf: &mut Pdf,
    objects: &mut Objects,
    marks: &[Mark],
    letters: &Letters<'_>,
) -> Result<Ref, FontError> {
    let mut content = Content::new();
    for mark in marks {
        match mark {
            Mark::Fill { area, colour } => {
                set_fill(&mut content, *colour);
                let [x, y, width, height] = *area;
                content.rect(x, y, width, height).fill_nonzero();
            }
            Mark::Text {
                at: [x, y],
                size,
                text,
            } => {
                set_fill(&mut content, INK);
                content.begin_text().set_font(FONT, *size);
                content.set_text_matrix([1.0, 0.0, 0.0, 1.0, *x, *y]);
                content.show(Str(&letters.encode(text)?)).end_text();
            }
        }
    }
    let (page_id, content_id) = (objects.next.bump(), objects.next.bump());
    let mut page = pdf.page(page_id);
    page.parent(objects.pages)
        .media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT))
        .contents(content_id);
    page.resources().fonts().pair(FONT, objects.font);
    page.finish();
    pdf.stream(content_id, &deflate(&content.finish()))
        .filter(Filter::FlateDecode);
    Ok(page_id)
}

fn set_fill(content: &mut Content, colour: Colour) {
    let [red, green, blue] = colour.map(|part| f32::from(part) / 255.0);
    content.set_fill_rgb(red, green, blue);
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::default());
    out.write_all(bytes).expect(INFALLIBLE);
    out.finish().expect(INFALLIBLE)
}

const INFALLIBLE: &str = "writing to a Vec cannot fail";

/// A Type 0 font over a CIDFont of type 2: a code is the number of a glyph in the embedded part.
fn write_font(pdf: &mut Pdf, objects: &Objects, letters: &Letters<'_>) -> Result<(), PaperError> {
    pdf.type0_font(objects.font)
        .base_font(BASE_FONT)
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(objects.cid_font)
        .to_unicode(objects.to_unicode);
    let used = letters.used();
    let mut cid_font = pdf.cid_font(objects.cid_font);
    cid_font
        .subtype(CidFontType::Type2)
        .base_font(BASE_FONT)
        .system_info(IDENTITY)
        .font_descriptor(objects.descriptor)
        .default_width(0.0)
        .cid_to_gid_map_predefined(Name(b"Identity"));
    let mut widths = cid_font.widths();
    for (code, (_, width)) in &used {
        widths.same(*code, *code, *width);
    }
    widths.finish();
    cid_font.finish();
    write_descriptor(pdf, objects, letters);
    let subset = letters.subset()?;
    let packed = deflate(&subset);
    pdf.stream(objects.outlines, &packed)
        .filter(Filter::FlateDecode)
        .pair(Name(b"Length1"), i32::try_from(subset.len()).unwrap_or(i32::MAX));
    let mut to_unicode = UnicodeCmap::<u16>::new(Name(b"Report"), IDENTITY);
    for (code, (letter, _)) in &used {
        to_unicode.pair(*code, *letter);
    }
    pdf.cmap(objects.to_unicode, &to_unicode.finish());
    Ok(())
}

fn write_descriptor(pdf: &mut Pdf, objects: &Objects, letters: &Letters<'_>) {
    let face = &letters.face;
    let unit = 1000.0 / f32::from(face.units_per_em());
    let scaled = |value: i16| f32::from(value) * unit;
    let bounds = face.global_bounding_box();
    pdf.font_descriptor(objects.descriptor)
        .name(BASE_FONT)
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(
            scaled(bounds.x_min),
            scaled(bounds.y_min),
            scaled(bounds.x_max),
            scaled(bounds.y_max),
        ))
        .italic_angle(0.0)
        .ascent(scaled(face.ascender()))
        .descent(scaled(face.descender()))
        .cap_height(scaled(face.capital_height().unwrap_or_else(|| face.ascender())))
        .stem_v(80.0)
        .font_file2(objects.outlines);
}
