//! From an object to its text (ISO 32000-2 7.3).

use std::io::Write;

use super::object::{Dictionary, Object, PdfString};

/// Appends the text of an object. The data of a stream is not an object's text and is not written.
pub(crate) fn write_object(out: &mut Vec<u8>, object: &Object) {
    match object {
        Object::Null => out.extend(b"null"),
        Object::Boolean(value) => push(out, format_args!("{value}")),
        Object::Integer(value) => push(out, format_args!("{value}")),
        Object::Real(text) => out.extend_from_slice(text),
        Object::String(string) => write_string(out, string),
        Object::Name(name) => write_name(out, name),
        Object::Array(items) => write_array(out, items),
        Object::Dictionary(dictionary) => write_dictionary(out, dictionary),
        Object::Stream(stream) => write_dictionary(out, &stream.dictionary),
        Object::Reference(reference) => {
            push(
                out,
                format_args!("{} {} R", reference.number, reference.generation),
            );
        }
    }
}

/// Appends formatted text; a vector takes all there is.
pub(crate) fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes all there is");
}

fn write_array(out: &mut Vec<u8>, items: &[Object]) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        write_object(out, item);
    }
    out.push(b']');
}

pub(crate) fn write_dictionary(out: &mut Vec<u8>, dictionary: &Dictionary) {
    out.extend(b"<<");
    for (key, value) in &dictionary.0 {
        write_name(out, key);
        out.push(b' ');
        write_object(out, value);
    }
    out.extend(b">>");
}

fn write_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(b'/');
    for byte in name {
        if byte.is_ascii_alphanumeric() || b"!&'*+,-.:;=?@\\^_`|~$\"".contains(byte) {
            out.push(*byte);
        } else {
            push(out, format_args!("#{byte:02X}"));
        }
    }
}

fn write_string(out: &mut Vec<u8>, string: &PdfString) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !b"()\\".contains(byte);
    if !string.is_hexadecimal && string.bytes.iter().all(is_plain) {
        out.push(b'(');
        out.extend_from_slice(&string.bytes);
        out.push(b')');
        return;
    }
    out.push(b'<');
    write_hexadecimal(out, &string.bytes);
    out.push(b'>');
}

pub(crate) fn write_hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
