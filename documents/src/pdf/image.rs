//! The picture of a seal, made ready for the file once and used as often as you like.

use std::io::Cursor;

use png::{ColorType, Decoder, Limits, Transformations};

use super::filter::deflate;
use super::object::{Dictionary, Object, Ref};
use super::update::Update;

/// Most bytes of a picture's file, and most of one row while it is decoded.
pub const IMAGE_BYTES_MAX: usize = 8 << 20;
/// Most pixels. 4,000 by 4,000 is a seal of 42 mm at 2,400 dots an inch.
pub const IMAGE_PIXELS_MAX: u64 = 16_000_000;

/// Why a picture cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Too large.
    #[error("the picture has more than {IMAGE_BYTES_MAX} bytes or {IMAGE_PIXELS_MAX} pixels")]
    TooLarge,
    /// Not PNG, or broken.
    #[error("the picture is not a PNG that can be read: {0}")]
    Unreadable(String),
}

/// A picture as an image XObject (ISO 32000-2 8.9.5): colours and, where it is not opaque, a soft mask.
#[derive(Clone, Debug)]
pub struct SealImage {
    width: u32,
    height: u32,
    /// Flate-coded rows of RGB.
    colours: Vec<u8>,
    /// Flate-coded rows of opacity.
    opacity: Option<Vec<u8>>,
}

impl SealImage {
    /// Reads a PNG (ISO/IEC 15948) of any kind.
    pub fn from_png(png: &[u8]) -> Result<Self, ImageError> {
        if png.len() > IMAGE_BYTES_MAX {
            return Err(ImageError::TooLarge);
        }
        let unreadable = |error: png::DecodingError| ImageError::Unreadable(error.to_string());
        let limits = Limits {
            bytes: IMAGE_BYTES_MAX,
        };
        let mut decoder = Decoder::new_with_limits(Cursor::new(png), limits);
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let mut reader = decoder.read_info().map_err(unreadable)?;
        let (width, height) = reader.info().size();
        if u64::from(width) * u64::from(height) > IMAGE_PIXELS_MAX {
            return Err(ImageError::TooLarge);
        }
        let size = reader.output_buffer_size().ok_or(ImageError::TooLarge)?;
        let mut pixels = vec![0; size];
        let frame = reader.next_frame(&mut pixels).map_err(unreadable)?;
        pixels.truncate(frame.buffer_size());
        Ok(Self::from_pixels(width, height, &pixels, frame.color_type))
    }

    fn from_pixels(width: u32, height: u32, pixels: &[u8], kind: ColorType) -> Self {
        let samples = kind.samples();
        let has_opacity = matches!(kind, ColorType::GrayscaleAlpha | ColorType::Rgba);
        let mut colours = Vec::with_capacity(pixels.len() / samples * 3);
        let mut opacity = Vec::new();
        for pixel in pixels.chunks_exact(samples) {
            match pixel {
                [grey] | [grey, _] => colours.extend([*grey; 3]),
                _ => colours.extend_from_slice(&pixel[..3]),
            }
            opacity.extend(pixel.last().filter(|_| has_opacity));
        }
        let is_opaque = opacity.iter().all(|value| *value == u8::MAX);
        Self {
            width,
            height,
            colours: deflate(&colours),
            opacity: (!is_opaque).then(|| deflate(&opacity)),
        }
    }

    /// Height divided by width.
    pub(crate) fn aspect(&self) -> f64 {
        f64::from(self.height) / f64::from(self.width)
    }

    /// Adds the image XObject and its mask.
    pub(crate) fn add_to(&self, update: &mut Update<'_, '_>) -> Ref {
        let mask = self.opacity.clone().map(|opacity| {
            let dictionary = self.dictionary("DeviceGray");
            Object::Reference(update.add_stream(dictionary, opacity))
        });
        let mut dictionary = self.dictionary("DeviceRGB");
        if let Some(mask) = mask {
            dictionary.set("SMask", mask);
        }
        update.add_stream(dictionary, self.colours.clone())
    }

    fn dictionary(&self, colour_space: &str) -> Dictionary {
        Dictionary::from([
            ("Type", Object::name("XObject")),
            ("Subtype", Object::name("Image")),
            ("Width", Object::Integer(self.width.into())),
            ("Height", Object::Integer(self.height.into())),
            ("ColorSpace", Object::name(colour_space)),
            ("BitsPerComponent", Object::Integer(8)),
            ("Filter", Object::name("FlateDecode")),
        ])
    }
}
