//! Stream filters (ISO 32000-2 7.4), as far as structure and text need them: Flate with its predictors, LZW is not
//! among them, the two ASCII encodings are.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::ReadError;
use super::limits::{DECODED_BYTES_MAX, FILTERS_MAX};
use super::object::{Dictionary, Object};

/// Decodes the data of a stream whose dictionary has no references in /Filter and /DecodeParms.
pub(crate) fn decode(dictionary: &Dictionary, data: &[u8]) -> Result<Vec<u8>, ReadError> {
    let filters = one_or_more(dictionary.get("Filter").or_else(|| dictionary.get("F")));
    let parameters = one_or_more(dictionary.get("DecodeParms").or_else(|| dictionary.get("DP")));
    if filters.len() > FILTERS_MAX {
        return Err(ReadError::Limit("filters of a stream"));
    }
    let mut decoded = data.to_vec();
    for (at, filter) in filters.iter().enumerate() {
        let name = filter.as_name().ok_or(ReadError::Filter("without a name"))?;
        let parameters = parameters.get(at).and_then(Object::as_dictionary);
        decoded = apply(name, parameters, &decoded)?;
        if decoded.len() > DECODED_BYTES_MAX {
            return Err(ReadError::Limit("bytes of a decoded stream"));
        }
    }
    Ok(decoded)
}

fn one_or_more(value: Option<&Object>) -> &[Object] {
    match value {
        None | Some(Object::Null) => &[],
        Some(Object::Array(items)) => items,
        Some(one) => std::slice::from_ref(one),
    }
}

fn apply(name: &[u8], parameters: Option<&Dictionary>, data: &[u8]) -> Result<Vec<u8>, ReadError> {
    match name {
        b"FlateDecode" | b"Fl" => predicted(inflate(data)?, parameters),
        b"ASCIIHexDecode" | b"AHx" => ascii_hex(data),
        b"ASCII85Decode" | b"A85" => ascii_85(data),
        _ => Err(ReadError::Filter("that is not supported here")),
    }
}

/// Inflates; what was inflated before the data broke off is kept, as all readers do.
fn inflate(data: &[u8]) -> Result<Vec<u8>, ReadError> {
    let mut decoded = Vec::new();
    let most = u64::try_from(DECODED_BYTES_MAX).unwrap_or(u64::MAX);
    let read = ZlibDecoder::new(data).take(most + 1).read_to_end(&mut decoded);
    match read {
        Err(_) if decoded.is_empty() => Err(ReadError::Filter("whose Flate data is broken")),
        _ => Ok(decoded),
    }
}

/// Deflates for a stream of ours.
pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
    use flate2::Compression;
    use flate2::read::ZlibEncoder;
    let mut encoded = Vec::new();
    ZlibEncoder::new(data, Compression::default())
        .read_to_end(&mut encoded)
        .expect("memory does not fail to be read");
    encoded
}

/// What the predictor of Table 8 works with.
struct Predictor {
    kind: usize,
    row_bytes: usize,
    pixel_bytes: usize,
}

impl Predictor {
    fn read(parameters: Option<&Dictionary>) -> Result<Option<Self>, ReadError> {
        let value = |key: &str, default| {
            let found = parameters.and_then(|parameters| parameters.get(key));
            found.map_or(Some(default), Object::as_index)
        };
        let read = || {
            Some((
                value("Predictor", 1)?,
                value("Colors", 1)?,
                value("BitsPerComponent", 8)?,
                value("Columns", 1)?,
            ))
        };
        let (kind, colors, bits, columns) = read().ok_or(ReadError::Filter("with wrong parameters"))?;
        let is_sane =
            (1..=32).contains(&colors) && (1..=16).contains(&bits) && (1..=1 << 20).contains(&columns);
        match kind {
            1 => Ok(None),
            10..=15 if is_sane => Ok(Some(Self {
                kind,
                row_bytes: (columns * colors * bits).div_ceil(8),
                pixel_bytes: (colors * bits).div_ceil(8),
            })),
            2 if is_sane && bits == 8 => Ok(Some(Self {
                kind,
                row_bytes: columns * colors,
                pixel_bytes: colors,
            })),
            _ => Err(ReadError::Filter("with a predictor that is not supported")),
        }
    }
}

fn predicted(data: Vec<u8>, parameters: Option<&Dictionary>) -> Result<Vec<u8>, ReadError> {
    let Some(predictor) = Predictor::read(parameters)? else {
        return Ok(data);
    };
    if predictor.kind == 2 {
        return Ok(tiff(data, &predictor));
    }
    let mut decoded = Vec::with_capacity(data.len());
    let mut above = vec![0; predictor.row_bytes];
    for row in data.chunks(predictor.row_bytes + 1) {
        let (kind, rest) = row.split_first().unwrap_or((&0, &[]));
        let mut row = rest.to_vec();
        row.resize(predictor.row_bytes, 0);
        undo(*kind, &mut row, &above, predictor.pixel_bytes)?;
        decoded.extend_from_slice(&row);
        above = row;
    }
    Ok(decoded)
}

fn tiff(mut data: Vec<u8>, predictor: &Predictor) -> Vec<u8> {
    for row in data.chunks_mut(predictor.row_bytes) {
        for at in predictor.pixel_bytes..row.len() {
            row[at] = row[at].wrapping_add(row[at - predictor.pixel_bytes]);
        }
    }
    data
}

/// The filters of PNG (ISO/IEC 15948 9.2).
fn undo(kind: u8, row: &mut [u8], above: &[u8], pixel_bytes: usize) -> Result<(), ReadError> {
    for at in 0..row.len() {
        let before = |row: &[u8]| at.checked_sub(pixel_bytes).map_or(0, |before| row[before]);
        let (left, up, corner) = (before(row), above[at], before(above));
        let predicted = match kind {
            0 => 0,
            1 => left,
            2 => up,
            3 => left.midpoint(up),
            4 => paeth(left, up, corner),
            _ => return Err(ReadError::Filter("with a PNG predictor that does not exist")),
        };
        row[at] = row[at].wrapping_add(predicted);
    }
    Ok(())
}

fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(up), i16::from(corner));
    let guess = a + b - c;
    let distance = |value: i16| (guess - value).abs();
    if distance(a) <= distance(b) && distance(a) <= distance(c) {
        left
    } else if distance(b) <= distance(c) {
        up
    } else {
        corner
    }
}

fn ascii_hex(data: &[u8]) -> Result<Vec<u8>, ReadError> {
    let digits = data
        .iter()
        .take_while(|byte| **byte != b'>')
        .filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u8>> = digits
        .map(|byte| {
            char::from(*byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let digits = digits.ok_or(ReadError::Filter("whose hexadecimal data is broken"))?;
    Ok(digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0))
        .collect())
}

fn ascii_85(data: &[u8]) -> Result<Vec<u8>, ReadError> {
    const BROKEN: ReadError = ReadError::Filter("whose ASCII85 data is broken");
    let mut decoded = Vec::new();
    let mut group = Vec::with_capacity(5);
    for byte in data
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace() && **byte != 0)
    {
        match byte {
            b'~' => break,
            b'z' if group.is_empty() => decoded.extend([0; 4]),
            b'!'..=b'u' => group.push(u32::from(byte - b'!')),
            _ => return Err(BROKEN),
        }
        if group.len() == 5 {
            decoded.extend(group_of_85(&group).ok_or(BROKEN)?);
            group.clear();
        }
    }
    if group.len() > 1 {
        let count = group.len() - 1;
        group.resize(5, 84);
        decoded.extend(&group_of_85(&group).ok_or(BROKEN)?[..count]);
    }
    Ok(decoded)
}

fn group_of_85(group: &[u32]) -> Option<[u8; 4]> {
    let value = group
        .iter()
        .try_fold(0_u32, |value, digit| value.checked_mul(85)?.checked_add(*digit));
    value.map(u32::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flate(parameters: &[(&str, i64)]) -> Dictionary {
        let parameters = parameters
            .iter()
            .map(|(key, value)| (key.as_bytes().into(), Object::Integer(*value)));
        Dictionary::from([
            ("Filter", Object::name("FlateDecode")),
            (
                "DecodeParms",
                Object::Dictionary(Dictionary(parameters.collect())),
            ),
        ])
    }

    #[test]
    fn flate_goes_both_ways() {
        let data = b"a stream of bytes, a stream of bytes".repeat(10);
        assert_eq!(decode(&flate(&[]), &deflate(&data)).unwrap(), data);
        assert!(decode(&flate(&[]), b"not deflated").is_err());
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_memory() {
        let bomb = deflate(&vec![0; DECODED_BYTES_MAX + 1]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(
            decode(&flate(&[]), &bomb),
            Err(ReadError::Limit("bytes of a decoded stream"))
        );
    }

    #[test]
    fn png_predictors_are_undone() {
        // One row each of None, Sub, Up, Average and Paeth, by hand.
        let rows = [
            [0, 1, 2, 3],
            [1, 1, 1, 1],
            [2, 1, 1, 1],
            [3, 1, 1, 1],
            [4, 1, 1, 1],
        ]
        .concat();
        let decoded = decode(&flate(&[("Predictor", 15), ("Columns", 3)]), &deflate(&rows)).unwrap();
        assert_eq!(decoded, [1, 2, 3, 1, 2, 3, 2, 3, 4, 2, 3, 4, 3, 4, 5]);
        let wrong = decode(
            &flate(&[("Predictor", 15), ("Columns", 3)]),
            &deflate(&[9, 1, 1, 1]),
        );
        assert!(wrong.is_err());
        let absurd = flate(&[("Predictor", 15), ("Columns", i64::MAX)]);
        assert!(decode(&absurd, &deflate(&rows)).is_err());
    }

    #[test]
    fn the_ascii_encodings_are_read() {
        assert_eq!(ascii_hex(b"48 65 6C6c6F7>").unwrap(), b"Hellop");
        assert_eq!(ascii_85(b"87cURD]i,\"Ebo80~>").unwrap(), b"Hello World!");
        assert_eq!(ascii_85(b"z~>").unwrap(), [0; 4]);
        assert!(ascii_85(b"uuuuu~>").is_err());
    }
}
