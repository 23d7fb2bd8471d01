//! A drawing, as SVG and as PNG.

use std::fmt::Write;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use tiny_skia::{FillRule, Paint, Path, PathSegment, Pixmap, PremultipliedColorU8, Stroke, Transform};

/// A path that is filled, or drawn with a line of some millimetres.
pub(super) struct Figure {
    pub(super) path: Path,
    pub(super) stroke: Option<f32>,
}

/// A seal as figures in millimetres.
pub struct Drawing {
    pub(super) width_mm: u32,
    pub(super) height_mm: u32,
    pub(super) colour: [u8; 3],
    pub(super) title: String,
    pub(super) figures: Vec<Figure>,
}

/// Why a drawing cannot become pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A resolution out of range.
    #[error("a seal is drawn at 72 to 1200 dots per inch")]
    Resolution,
    /// The encoder failed.
    #[error("the picture cannot be encoded")]
    Encoding,
}

impl Drawing {
    /// Width and height in millimetres.
    pub const fn size_mm(&self) -> (u32, u32) {
        (self.width_mm, self.height_mm)
    }

    /// An SVG file that needs no font.
    pub fn svg(&self) -> String {
        let (width, height, [red, green, blue]) = (self.width_mm, self.height_mm, self.colour);
        let colour = format!("#{red:02x}{green:02x}{blue:02x}");
        let title = self
            .title
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}mm\" height=\"{height}mm\" \
             viewBox=\"0 0 {width} {height}\"><title>{title}</title>"
        );
        for figure in &self.figures {
            let ink = match figure.stroke {
                Some(width) => format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\""),
                None => format!("fill=\"{colour}\""),
            };
            text.push_str(&format!("<path {ink} d=\"{}\"/>", data(&figure.path)));
        }
        text.push_str("</svg>\n");
        text
    }

    /// A PNG file with a transparent background.
    pub fn png(&self, dots_per_inch: u32) -> Result<Vec<u8>, RenderError> {
        if !(72..=1200).contains(&dots_per_inch) {
            return Err(RenderError::Resolution);
        }
        // Tenths of a millimetre in an inch: 254.
        let pixels = |mm: u32| (mm * 10 * dots_per_inch).div_ceil(254);
        let (width, height) = (pixels(self.width_mm), pixels(self.height_mm));
        let mut pixmap = Pixmap::new(width, height).ok_or(RenderError::Resolution)?;
        let scale = f32::from(u16::try_from(dots_per_inch).map_err(|_| RenderError::Resolution)?) / 25.4;
        let [red, green, blue] = self.colour;
        let mut paint = Paint {
            anti_alias: true,
            ..Paint::default()
        };
        paint.set_color_rgba8(red, green, blue, 255);
        let transform = Transform::from_scale(scale, scale);
        for Figure { path, stroke } in &self.figures {
            match stroke {
                Some(width) => {
                    let stroke = Stroke {
                        width: *width,
                        ..Stroke::default()
                    };
                    pixmap.stroke_path(path, &paint, &stroke, transform, None);
                }
                None => pixmap.fill_path(path, &paint, FillRule::Winding, transform, None),
            }
        }
        encode(&straight(&pixmap), width, height)
    }
}

/// Pixels whose colours are not multiplied with their opacity, as PNG has them.
fn straight(pixmap: &Pixmap) -> Vec<u8> {
    let pixels = pixmap.pixels().iter().map(PremultipliedColorU8::demultiply);
    pixels
        .flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue(), pixel.alpha()])
        .collect()
}

/// RGBA as PNG, without any other chunk.
pub(super) fn encode(rgba: &[u8], width: u32, height: u32) -> Result<Vec<u8>, RenderError> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(rgba, width, height, ExtendedColorType::Rgba8)
        .map_err(|_| RenderError::Encoding)?;
    Ok(png)
}

/// Path data, to a thousandth of a millimetre.
fn data(path: &Path) -> String {
    let mut text = String::new();
    let mut put = |command: char, points: &[tiny_skia::Point]| {
        text.push(command);
        for point in points {
            // Writing to a string cannot fail.
            let _ = write!(text, "{:.3} {:.3} ", point.x, point.y);
        }
    };
    for segment in path.segments() {
        match segment {
            PathSegment::MoveTo(a) => put('M', &[a]),
            PathSegment::LineTo(a) => put('L', &[a]),
            PathSegment::QuadTo(a, b) => put('Q', &[a, b]),
            PathSegment::CubicTo(a, b, c) => put('C', &[a, b, c]),
            PathSegment::Close => put('Z', &[]),
        }
    }
    text
}
