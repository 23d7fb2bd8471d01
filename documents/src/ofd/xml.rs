//! XML of a package, read with suspicion: UTF-8 only, no document type, so no entities and nothing outside.

use roxmltree::{Document, Node, ParsingOptions};

use super::ReadError;
use super::limits::{XML_BYTES_MAX, XML_NODES_MAX};

/// The namespace that we write; what others write differs, so reading goes by local names.
pub(super) const NAMESPACE: &str = "http://www.ofdspec.org/2016";

/// The bytes as text, without a byte order mark.
pub(super) fn text<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a str, ReadError> {
    let fault = |what| ReadError::Xml {
        path: path.to_owned(),
        what,
    };
    if bytes.len() > XML_BYTES_MAX {
        return Err(ReadError::Limit("bytes of an XML file"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| fault("not UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if declares_another_encoding(text) {
        return Err(fault("declares an encoding other than UTF-8".to_owned()));
    }
    Ok(text)
}

/// Whether the XML declaration names an encoding, and it is not UTF-8.
fn declares_another_encoding(text: &str) -> bool {
    let declaration = text
        .strip_prefix("<?xml")
        .and_then(|rest| rest.split_once("?>"))
        .map(|(inner, _)| inner);
    let value = declaration
        .and_then(|inner| inner.split_once("encoding"))
        .map(|(_, value)| value);
    value.is_some_and(|value| {
        let value = value.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '=');
        !value
            .get(1..6)
            .is_some_and(|name| name.eq_ignore_ascii_case("utf-8"))
    })
}

pub(super) fn parse<'t>(path: &str, text: &'t str) -> Result<Document<'t>, ReadError> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: XML_NODES_MAX,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).map_err(|error| ReadError::Xml {
        path: path.to_owned(),
        what: error.to_string(),
    })
}

/// The child elements with a local name.
pub(super) fn children<'n, 'i: 'n>(
    node: Node<'n, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'n, 'i>> {
    node.children()
        .filter(move |child| child.is_element() && child.tag_name().name() == name)
}

/// The first child element with a local name.
pub(super) fn child<'n, 'i: 'n>(node: Node<'n, 'i>, name: &'static str) -> Option<Node<'n, 'i>> {
    children(node, name).next()
}

/// The text of the first child element with a local name.
pub(super) fn child_text<'n, 'i: 'n>(node: Node<'n, 'i>, name: &'static str) -> Option<&'n str> {
    child(node, name).and_then(|child| child.text()).map(str::trim)
}

/// The prefix of an element as it is written, with its colon.
pub(super) fn prefix<'t>(text: &'t str, node: Node<'_, '_>) -> &'t str {
    let start = node.range().start + 1;
    let name = text[start..]
        .split(|letter: char| letter.is_whitespace() || matches!(letter, '>' | '/'))
        .next();
    name.and_then(|name| name.split_once(':'))
        .map_or("", |(prefix, _)| &text[start..=start + prefix.len()])
}

/// Text as it may stand in an element or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Other control characters cannot be written in XML at all.
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_they_are_written() {
        for (text, expected) in [
            ("<ofd:A>x</ofd:A>", "ofd:"),
            ("<A/>", ""),
            ("<f:A\n b='1'/>", "f:"),
        ] {
            let text = text.replacen(":A", ":A xmlns:ofd='u' xmlns:f='v'", 1);
            let document = parse("x", &text).unwrap();
            assert_eq!(prefix(&text, document.root_element()), expected, "{text}");
        }
    }

    #[test]
    fn encodings_and_document_types_are_refused() {
        let refused = [
            "<?xml version='1.0' encoding='GBK'?><a/>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
        ];
        for bytes in refused {
            let read = text("x", bytes.as_bytes()).and_then(|text| parse("x", text).map(|_| ()));
            assert!(matches!(read, Err(ReadError::Xml { .. })), "{bytes}");
        }
        let accepted = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><a/>";
        assert!(
            text("x", accepted.as_bytes())
                .and_then(|text| parse("x", text).map(|_| ()))
                .is_ok()
        );
        assert_eq!(escape("a<b>&\"\u{1}"), "a&lt;b&gt;&amp;&quot; ");
    }
}
