//! The XML that we write: Signature.xml, and what is added to Signatures.xml and OFD.xml. What was there before is
//! kept letter for letter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;

use super::prepare::Provider;
use super::record::List;
use super::report::SignatureKind;
use super::stamp::Stamp;
use super::xml::{self, NAMESPACE, escape};
use super::{ReadError, structure};

/// SM3, as CheckMethod names it.
const CHECK_METHOD: &str = "1.2.156.10197.1.401";
/// SM2 with SM3.
const SIGNATURE_METHOD: &str = "1.2.156.10197.1.501";

/// What goes into Signature.xml.
pub(super) struct Contents<'a> {
    pub(super) provider: &'a Provider,
    pub(super) at: UnixMillis,
    /// Paths without a leading `/`, and SM3 of the files.
    pub(super) digests: &'a [(String, Vec<u8>)],
    pub(super) stamps: &'a [Stamp],
    /// The number of the first stamp; those that follow count on.
    pub(super) first_stamp: u64,
    pub(super) seal_path: Option<&'a str>,
    pub(super) value_path: &'a str,
}

/// Signature.xml, in the order of children that the schema has.
pub(super) fn signature(contents: &Contents<'_>) -> String {
    let Contents {
        provider, digests, ..
    } = contents;
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ofd:Signature xmlns:ofd=\"{NAMESPACE}\"><ofd:SignedInfo>\
         <ofd:Provider ProviderName=\"{}\" Version=\"{}\" Company=\"{}\"/>\
         <ofd:SignatureMethod>{SIGNATURE_METHOD}</ofd:SignatureMethod>\
         <ofd:SignatureDateTime>{}</ofd:SignatureDateTime><ofd:References CheckMethod=\"{CHECK_METHOD}\">",
        escape(&provider.name),
        escape(&provider.version),
        escape(&provider.company),
        date_time(contents.at),
    );
    for (path, digest) in *digests {
        let (path, value) = (escape(path), STANDARD.encode(digest));
        text.push_str(&format!(
            "<ofd:Reference FileRef=\"/{path}\"><ofd:CheckValue>{value}</ofd:CheckValue></ofd:Reference>"
        ));
    }
    text.push_str("</ofd:References>");
    for (number, stamp) in (contents.first_stamp..).zip(contents.stamps) {
        text.push_str(&stamp_annotation(number, stamp));
    }
    if let Some(path) = contents.seal_path {
        text.push_str(&format!(
            "<ofd:Seal><ofd:BaseLoc>/{}</ofd:BaseLoc></ofd:Seal>",
            escape(path)
        ));
    }
    let value = escape(contents.value_path);
    text.push_str(&format!(
        "</ofd:SignedInfo><ofd:SignedValue>/{value}</ofd:SignedValue></ofd:Signature>"
    ));
    text
}

fn stamp_annotation(number: u64, stamp: &Stamp) -> String {
    let clip = stamp
        .clip
        .map_or_else(String::new, |clip| format!(" Clip=\"{}\"", clip.write()));
    let (page, boundary) = (escape(&stamp.page_id), stamp.boundary.write());
    format!("<ofd:StampAnnot ID=\"s{number:03}\" PageRef=\"{page}\" Boundary=\"{boundary}\"{clip}/>")
}

/// `yyyyMMddHHmmssZ`, to the second.
fn date_time(at: UnixMillis) -> String {
    let second = i64::try_from(at.seconds())
        .ok()
        .and_then(|second| Timestamp::from_second(second).ok());
    second.map_or_else(String::new, |second| second.strftime("%Y%m%d%H%M%SZ").to_string())
}

/// A line for Signatures.xml.
pub(super) struct NewRecord<'a> {
    pub(super) number: u64,
    pub(super) kind: SignatureKind,
    pub(super) path: &'a str,
    /// The highest number in use afterwards, stamps included.
    pub(super) last_number: u64,
}

impl NewRecord<'_> {
    fn element(&self, prefix: &str) -> String {
        let (number, kind, path) = (self.number, self.kind.name(), escape(self.path));
        format!("<{prefix}Signature ID=\"s{number:03}\" Type=\"{kind}\" BaseLoc=\"/{path}\"/>")
    }

    fn last(&self, prefix: &str) -> String {
        format!("<{prefix}MaxSignId>s{:03}</{prefix}MaxSignId>", self.last_number)
    }
}

/// Signatures.xml with one signature.
pub(super) fn new_list(record: &NewRecord<'_>) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ofd:Signatures xmlns:ofd=\"{NAMESPACE}\">{}{}</ofd:Signatures>",
        record.last("ofd:"),
        record.element("ofd:"),
    )
}

/// Signatures.xml with one signature more.
pub(super) fn longer_list(path: &str, list: &List, record: &NewRecord<'_>) -> Result<String, ReadError> {
    let text = &list.text;
    let tree = xml::parse(path, text)?;
    let root = tree.root_element();
    let prefix = xml::prefix(text, root);
    let whole = root.range();
    let mut changed = text.clone();
    // From the end to the beginning, so that positions stay right.
    match text[..whole.end].strip_suffix("/>") {
        Some(open) => {
            let close = format!("></{prefix}Signatures>");
            changed.replace_range(open.len()..whole.end, &close);
            changed.insert_str(open.len() + 1, &record.element(prefix));
        }
        None => {
            let close = text[..whole.end]
                .rfind("</")
                .ok_or_else(|| structure(path, "an end of Signatures"))?;
            changed.insert_str(close, &record.element(prefix));
        }
    }
    if let Some(last) = xml::child(root, "MaxSignId") {
        let own = xml::prefix(text, last);
        changed.replace_range(last.range(), &record.last(own));
    }
    Ok(changed)
}

/// OFD.xml with the path of a new Signatures.xml.
pub(super) fn with_list(root: &str, (at, prefix): &(usize, String), path: &str) -> String {
    let mut changed = root.to_owned();
    changed.insert_str(
        *at,
        &format!("<{prefix}Signatures>/{}</{prefix}Signatures>", escape(path)),
    );
    changed
}

/// SM3 of a file.
pub(super) fn digest(bytes: &[u8]) -> Vec<u8> {
    Hash::Sm3.digest(bytes).to_vec()
}
