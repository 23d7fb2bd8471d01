//! Pictures of seals that people bring: decoded within limits and written anew, so that nothing but pixels is kept.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbaImage};

use super::draw::{RenderError, encode};

/// Largest file, in bytes.
const BYTES_MAX: usize = 5 * 1024 * 1024;
/// Largest width and height, in pixels.
const SIDE_MAX: u32 = 4096;
/// Smallest width and height, in pixels: less cannot be printed as a seal.
const SIDE_MIN: u32 = 32;
/// Most memory that decoding may take, in bytes: all pixels at 16 bits a channel, and working space.
const DECODE_BYTES_MAX: u64 = 192 * 1024 * 1024;

/// Why a picture is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// Too large a file.
    #[error("a picture may have 5 MiB at most")]
    TooManyBytes,
    /// Neither PNG nor JPEG.
    #[error("neither PNG nor JPEG")]
    Format,
    /// Too large or too small.
    #[error("{width} x {height} pixels; 32 to 4096 each way are accepted")]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Damaged, or asking for too much memory.
    #[error("the picture cannot be decoded: {0}")]
    Damaged(String),
    /// No light background to take away.
    #[error("the background is not light enough to be taken away")]
    Background,
    /// Nothing to be seen.
    #[error("the picture is empty")]
    Empty,
    /// The encoder failed.
    #[error(transparent)]
    Encoding(#[from] RenderError),
}

/// A picture that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The picture, as PNG.
    pub png: Vec<u8>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Accepts a PNG or JPEG file. With `remove_background` the colour along its edges becomes transparent.
pub fn accept(file: &[u8], remove_background: bool) -> Result<Accepted, UploadError> {
    if file.len() > BYTES_MAX {
        return Err(UploadError::TooManyBytes);
    }
    let mut pixels = decode(file)?;
    if remove_background {
        remove(&mut pixels)?;
    }
    if pixels.pixels().all(|pixel| pixel.0[3] == 0) {
        return Err(UploadError::Empty);
    }
    let (width, height) = pixels.dimensions();
    Ok(Accepted {
        png: encode(&pixels, width, height)?,
        width,
        height,
    })
}

fn decode(file: &[u8]) -> Result<RgbaImage, UploadError> {
    let damaged = |error: image::ImageError| UploadError::Damaged(error.to_string());
    let format = image::guess_format(file).map_err(|_| UploadError::Format)?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg) {
        return Err(UploadError::Format);
    }
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let sides = SIDE_MIN..=SIDE_MAX;
    if !sides.contains(&width) || !sides.contains(&height) {
        return Err(UploadError::Size { width, height });
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgba8())
}

/// Turns a colour into transparency: each pixel is seen as ink over the background, as little of it as explains the
/// pixel, so that edges stay smooth.
fn remove(pixels: &mut RgbaImage) -> Result<(), UploadError> {
    /// Less ink than this is paper.
    const INK_MIN: f32 = 0.12;
    const LIGHT_MIN: f32 = 160.0;
    let background = edge_colour(pixels);
    if background.iter().any(|channel| *channel < LIGHT_MIN) {
        return Err(UploadError::Background);
    }
    for pixel in pixels.pixels_mut() {
        let colour = [0, 1, 2].map(|channel| f32::from(pixel.0[channel]));
        let darker = |channel: usize| (background[channel] - colour[channel]) / background[channel];
        let ink = [0, 1, 2].map(darker).into_iter().fold(0.0, f32::max);
        if ink < INK_MIN {
            pixel.0 = [0; 4];
            continue;
        }
        let own = |channel: usize| (colour[channel] - (1.0 - ink) * background[channel]) / ink;
        let [red, green, blue] = [0, 1, 2].map(|channel| to_byte(own(channel)));
        pixel.0 = [red, green, blue, to_byte(f32::from(pixel.0[3]) * ink)];
    }
    Ok(())
}

/// The median of each channel along the edges. Transparent pixels count as white.
fn edge_colour(pixels: &RgbaImage) -> [f32; 3] {
    let (width, height) = pixels.dimensions();
    let rows = (0..width).flat_map(|x| [(x, 0), (x, height - 1)]);
    let columns = (0..height).flat_map(|y| [(0, y), (width - 1, y)]);
    let edge: Vec<[u8; 4]> = rows
        .chain(columns)
        .map(|(x, y)| pixels.get_pixel(x, y).0)
        .collect();
    [0, 1, 2].map(|channel| {
        let mut values: Vec<u8> = edge
            .iter()
            .map(|pixel| if pixel[3] == 0 { 255 } else { pixel[channel] })
            .collect();
        values.sort_unstable();
        f32::from(values[values.len() / 2])
    })
}

/// Rounded, and kept between 0 and 255.
fn to_byte(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}
