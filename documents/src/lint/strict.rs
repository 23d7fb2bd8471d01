//! Whether bytes are DER and not merely BER (X.690 10 and 11), whatever they mean.

/// Deepest nesting that is followed; certificates need about ten levels.
const DEPTH_MAX: usize = 32;

const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const ENUMERATED: u8 = 10;
const UTC_TIME: u8 = 23;
const GENERALIZED_TIME: u8 = 24;
const SET: u8 = 0x31;
const CONSTRUCTED: u8 = 0x20;

/// What is wrong with the encoding, and nothing if nothing is.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let rest = element(bytes, 0)?.rest;
    if rest.is_empty() {
        Ok(())
    } else {
        Err("bytes after the end")
    }
}

struct Split<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
}

fn element(bytes: &[u8], depth: usize) -> Result<Split<'_>, &'static str> {
    if depth > DEPTH_MAX {
        return Err("nested too deeply");
    }
    let (&tag, after_tag) = bytes.split_first().ok_or("an element that is cut off")?;
    if tag & 0x1f == 0x1f {
        return Err("a tag above 30");
    }
    let (length, after_length) = length(after_tag)?;
    if length > after_length.len() {
        return Err("an element that is cut off");
    }
    let (value, rest) = after_length.split_at(length);
    if tag & CONSTRUCTED == 0 {
        primitive(tag, value)?;
    } else {
        members(tag, value, depth)?;
    }
    let whole = &bytes[..bytes.len() - rest.len()];
    Ok(Split { whole, rest })
}

fn length(bytes: &[u8]) -> Result<(usize, &[u8]), &'static str> {
    let (&first, rest) = bytes.split_first().ok_or("an element that is cut off")?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 || rest.len() < count {
        return Err("an indefinite or impossible length");
    }
    let (digits, rest) = rest.split_at(count);
    let length = digits.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if digits[0] == 0 || length < 0x80 {
        return Err("a length that is not the shortest");
    }
    Ok((length, rest))
}

fn members(tag: u8, mut value: &[u8], depth: usize) -> Result<(), &'static str> {
    let mut previous: &[u8] = &[];
    while !value.is_empty() {
        let Split { whole, rest } = element(value, depth + 1)?;
        if tag == SET && whole < previous {
            return Err("a SET that is out of order");
        }
        previous = whole;
        value = rest;
    }
    Ok(())
}

fn primitive(tag: u8, value: &[u8]) -> Result<(), &'static str> {
    match tag {
        BOOLEAN if value != [0] && value != [0xff] => Err("a BOOLEAN that is neither 00 nor FF"),
        INTEGER | ENUMERATED => number(value),
        BIT_STRING => bits(value),
        UTC_TIME => time(value, 13),
        GENERALIZED_TIME => time(value, 15),
        _ => Ok(()),
    }
}

fn number(value: &[u8]) -> Result<(), &'static str> {
    match value {
        [] => Err("an INTEGER without bytes"),
        [0, next, ..] if *next < 0x80 => Err("an INTEGER that is not the shortest"),
        [0xff, next, ..] if *next >= 0x80 => Err("an INTEGER that is not the shortest"),
        _ => Ok(()),
    }
}

fn bits(value: &[u8]) -> Result<(), &'static str> {
    match value {
        [0, ..] => Ok(()),
        [unused @ 1..=7, .., last] if last & ((1 << unused) - 1) == 0 => Ok(()),
        _ => Err("a BIT STRING whose unused bits are wrong"),
    }
}

/// YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ; certificates have no fractions (RFC 5280 4.1.2.5.2).
fn time(value: &[u8], length: usize) -> Result<(), &'static str> {
    match value.split_last() {
        Some((b'Z', digits)) if value.len() == length && digits.iter().all(u8::is_ascii_digit) => Ok(()),
        _ => Err("a time without seconds, or with fractions, or not in UTC"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ber_is_not_der() {
        for good in [
            &[0x30, 3, 2, 1, 5][..],
            &[1, 1, 0xff],
            &[3, 2, 7, 0x80],
            &[0x31, 6, 2, 1, 1, 2, 1, 2],
            b"\x17\x0d250101000000Z",
        ] {
            assert_eq!(check(good), Ok(()), "{good:02x?}");
        }
        for bad in [
            &[0x30, 0x81, 3, 2, 1, 5][..],
            &[0x30, 0x80, 0, 0],
            &[0x30, 3, 2, 1],
            &[2, 1, 5, 0],
            &[1, 1, 1],
            &[2, 2, 0, 5],
            &[2, 2, 0xff, 0x80],
            &[2, 0],
            &[3, 2, 7, 0x81],
            &[3, 1, 8],
            &[0x31, 6, 2, 1, 2, 2, 1, 1],
            &[0x1f, 1, 0],
            b"\x17\x0b2501010000Z",
            b"\x18\x1120250101000000.5Z",
        ] {
            assert!(check(bad).is_err(), "{bad:02x?}");
        }
        let deep = (0..40).fold(vec![5, 0], |inner, _| crate::element::element(0x30, &[&inner]));
        assert_eq!(check(&deep), Err("nested too deeply"));
    }
}
