//! Pictures of seals: ours next to what librsvg makes of our SVG, characters that are missing, and uploads that are
//! not what they say.

use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use documents::seal_image::{
    DrawError, Drawing, Font, FontError, RenderError, Shape, Template, UploadError, accept, draw,
};
use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

use crate::support::Bench;

/// AR PL SungtiL GB, from the Debian package fonts-arphic-gbsn00lp.
static FONT: LazyLock<Font> = LazyLock::new(|| {
    let bytes = std::fs::read("/usr/share/fonts/truetype/arphic-gbsn00lp/gbsn00lp.ttf").unwrap();
    Font::new(bytes, 0).unwrap()
});

const RED: [u8; 3] = [200, 16, 32];
const ROUND: Shape = Shape::Round { diameter_mm: 42 };

fn template(shape: Shape, name: &str) -> Template {
    let is_personal = matches!(shape, Shape::Personal { .. });
    let unless_personal = |text: &str| (!is_personal).then(|| text.to_owned());
    Template {
        shape,
        name: name.into(),
        sub_title: unless_personal("合同专用章"),
        code: unless_personal("1101080123456"),
        colour: RED,
    }
}

fn company(shape: Shape) -> Drawing {
    draw(&template(shape, "北京朱砂签章科技有限公司"), &FONT).unwrap()
}

fn shapes() -> [Drawing; 4] {
    [
        company(ROUND),
        company(Shape::Oval {
            width_mm: 40,
            height_mm: 30,
        }),
        company(Shape::Rectangular {
            width_mm: 50,
            height_mm: 20,
        }),
        draw(&template(Shape::Personal { side_mm: 18 }, "王小明"), &FONT).unwrap(),
    ]
}

fn pixels(png: &[u8]) -> RgbaImage {
    image::load_from_memory_with_format(png, ImageFormat::Png)
        .unwrap()
        .into_rgba8()
}

fn rendered_by_librsvg(svg: &str, width: u32, height: u32) -> RgbaImage {
    let bench = Bench::new();
    let input = bench.write("seal.svg", svg.as_bytes());
    let size = [width, height].map(|side| side.to_string());
    let output = Command::new("rsvg-convert")
        .args(["-w", &size[0], "-h", &size[1]])
        .arg(input)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    pixels(&output.stdout)
}

#[test]
fn librsvg_draws_the_same_seal_from_our_svg() {
    for (number, drawing) in shapes().iter().enumerate() {
        // Ten pixels a millimetre, so that neither side rounds.
        let png = drawing.png(254).unwrap();
        // To be looked at.
        std::fs::write(
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seal-{number}.png")),
            &png,
        )
        .unwrap();
        let ours = pixels(&png);
        let theirs = rendered_by_librsvg(&drawing.svg(), ours.width(), ours.height());
        let opacity = |picture: &RgbaImage| {
            picture
                .pixels()
                .map(|pixel| i64::from(pixel.0[3]))
                .collect::<Vec<_>>()
        };
        let (a, b) = (opacity(&ours), opacity(&theirs));
        let inked: i64 = a.iter().sum();
        let differing: i64 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum();
        // Only the edges differ, by the ways of smoothing them.
        assert!(
            differing * 25 < inked,
            "{:?}: {differing} of {inked}",
            drawing.size_mm()
        );
    }
}

#[test]
fn a_round_seal_has_a_star_a_ring_and_air() {
    let picture = pixels(&company(ROUND).png(254).unwrap());
    assert_eq!(picture.dimensions(), (420, 420));
    let at = |x_mm: f32, y_mm: f32| picture.get_pixel((x_mm * 10.0) as u32, (y_mm * 10.0) as u32).0;
    assert_eq!(at(21.0, 21.0), [200, 16, 32, 255], "the star");
    assert_eq!(at(0.6, 21.0), [200, 16, 32, 255], "the ring");
    for (x, y) in [(0.5, 0.5), (41.5, 41.5), (21.0, 12.5), (10.0, 21.0)] {
        assert_eq!(at(x, y)[3], 0, "({x}, {y})");
    }
}

#[test]
fn the_longest_name_stays_inside_the_ring() {
    let name = "中华人民共和国北京市朝阳区某某某某国际信息技术电子签章服务发展有限责任公司分公司";
    let name: String = name.chars().take(40).collect();
    for shape in [
        ROUND,
        Shape::Oval {
            width_mm: 45,
            height_mm: 30,
        },
    ] {
        let drawing = draw(&template(shape, &name), &FONT).unwrap();
        let picture = pixels(&drawing.png(254).unwrap());
        let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
        for (x, y, pixel) in picture.enumerate_pixels() {
            let (dx, dy) = (
                (f64::from(x) + 0.5) / width * 2.0 - 1.0,
                (f64::from(y) + 0.5) / height * 2.0 - 1.0,
            );
            assert!(dx * dx + dy * dy < 1.01 || pixel.0[3] == 0, "ink at ({x}, {y})");
        }
    }
}

#[test]
fn svg_needs_no_font_and_escapes_names() {
    let svg = draw(&template(ROUND, "A&B<C>"), &FONT).unwrap().svg();
    assert!(
        svg.contains("width=\"42mm\"") && svg.contains("viewBox=\"0 0 42 42\"") && svg.contains("#c81020")
    );
    assert!(
        svg.contains("<title>A&amp;B&lt;C&gt;</title>") && !svg.contains("<text"),
        "{}",
        &svg[..300]
    );
}

#[test]
fn a_missing_character_is_an_error() {
    for (name, missing) in [("北京한公司", '한'), ("北京😀公司", '😀')] {
        let error = draw(&template(ROUND, name), &FONT).err().unwrap();
        assert_eq!(error, DrawError::Font(FontError::MissingGlyph(missing)));
        assert!(error.to_string().contains("U+"), "{error}");
    }
    let mut seal = template(ROUND, "北京公司");
    seal.sub_title = Some("한".into());
    assert!(matches!(
        draw(&seal, &FONT),
        Err(DrawError::Font(FontError::MissingGlyph('한')))
    ));
    assert_eq!(
        Font::new(b"no font".to_vec(), 0).err(),
        Some(FontError::Malformed)
    );
}

#[test]
fn seals_that_nobody_has_are_refused() {
    let refused = |template: &Template| draw(template, &FONT).err().unwrap();
    assert_eq!(
        refused(&template(Shape::Round { diameter_mm: 9 }, "公司")),
        DrawError::Size
    );
    assert_eq!(
        refused(&template(
            Shape::Oval {
                width_mm: 101,
                height_mm: 30
            },
            "公司"
        )),
        DrawError::Size
    );
    assert!(matches!(refused(&template(ROUND, "")), DrawError::Text(_)));
    assert!(matches!(
        refused(&template(ROUND, &"长".repeat(41))),
        DrawError::Text(_)
    ));
    assert!(matches!(
        refused(&template(Shape::Personal { side_mm: 18 }, "王")),
        DrawError::Text(_)
    ));
    let mut personal = template(Shape::Personal { side_mm: 18 }, "王小明");
    personal.code = Some("1".into());
    assert!(matches!(refused(&personal), DrawError::Text(_)));
    assert_eq!(company(ROUND).png(71), Err(RenderError::Resolution));
    assert_eq!(company(ROUND).png(1201), Err(RenderError::Resolution));
}

/// A red disc on paper that is not quite white.
fn scanned() -> RgbImage {
    RgbImage::from_fn(200, 100, |x, y| {
        let (dx, dy) = (i64::from(x) - 100, i64::from(y) - 50);
        if dx * dx + dy * dy < 900 {
            Rgb([190, 20, 30])
        } else {
            Rgb([240, 236, 225])
        }
    })
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn the_background_of_a_scan_goes_and_the_ink_stays() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let accepted = accept(&encoded(&scanned(), format), true).unwrap();
        assert_eq!((accepted.width, accepted.height), (200, 100));
        let picture = pixels(&accepted.png);
        assert_eq!(picture.get_pixel(5, 5).0[3], 0, "{format:?}");
        let Rgba([red, green, _, opacity]) = *picture.get_pixel(100, 50);
        assert!(
            red > 150 && green < 40 && opacity > 200,
            "{format:?}: {:?}",
            picture.get_pixel(100, 50)
        );
    }
    let kept = pixels(&accept(&encoded(&scanned(), ImageFormat::Png), false).unwrap().png);
    assert_eq!(kept.get_pixel(5, 5).0, [240, 236, 225, 255]);
}

#[test]
fn only_pixels_are_kept() {
    let mut file = encoded(&scanned(), ImageFormat::Png);
    file.extend_from_slice(b"<script>and so on</script>");
    let accepted = accept(&file, false).unwrap();
    assert!(!accepted.png.windows(8).any(|window| window == b"<script>"));
    assert_eq!(pixels(&accepted.png), pixels(&file));
    let again = accept(&accepted.png, false).unwrap();
    assert_eq!(again, accepted, "what we wrote is written the same again");
}

#[test]
fn pictures_that_cannot_be_seals_are_refused() {
    let small = encoded(&RgbImage::new(31, 40), ImageFormat::Png);
    assert_eq!(
        accept(&small, false),
        Err(UploadError::Size {
            width: 31,
            height: 40
        })
    );
    assert_eq!(accept(b"GIF89a and so on", false), Err(UploadError::Format));
    assert_eq!(accept(b"<svg/>", false), Err(UploadError::Format));
    assert_eq!(
        accept(&vec![0; 5 * 1024 * 1024 + 1], false),
        Err(UploadError::TooManyBytes)
    );
    let dark = RgbImage::from_pixel(64, 64, Rgb([20, 20, 20]));
    assert_eq!(
        accept(&encoded(&dark, ImageFormat::Png), true),
        Err(UploadError::Background)
    );
    let blank = RgbImage::from_pixel(64, 64, Rgb([250, 250, 250]));
    assert_eq!(
        accept(&encoded(&blank, ImageFormat::Png), true),
        Err(UploadError::Empty)
    );
}

/// A header that promises four thousand million pixels, with a checksum that is right.
#[test]
fn a_bomb_is_refused_by_its_header() {
    let mut file = encoded(&scanned(), ImageFormat::Png);
    file[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let sum = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&sum.to_be_bytes());
    let verdict = accept(&file, false);
    assert!(
        matches!(verdict, Err(UploadError::Size { .. } | UploadError::Damaged(_))),
        "{verdict:?}"
    );
}

/// CRC-32 of PNG (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                0xedb8_8320 ^ (sum >> 1)
            } else {
                sum >> 1
            }
        })
    })
}

#[test]
fn broken_pictures_do_not_panic() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let file = encoded(
            &RgbImage::from_fn(40, 40, |x, y| Rgb([u8::try_from(x * y % 256).unwrap(), 0, 200])),
            format,
        );
        let mut refused = 0;
        for at in 0..file.len() {
            refused += usize::from(accept(&file[..at], false).is_err());
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            // JPEG has no checksums: other pixels may come out, but pixels.
            if let Ok(accepted) = accept(&flipped, false) {
                assert_eq!(
                    pixels(&accepted.png).dimensions(),
                    (accepted.width, accepted.height)
                );
            }
        }
        assert!(
            refused > file.len() / 4,
            "{format:?}: {refused} of {}",
            file.len()
        );
    }
}
