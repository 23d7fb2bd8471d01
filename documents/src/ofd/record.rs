//! Signatures.xml and Signature.xml (GB/T 33190-2016 18.1 and 18.2), in whatever order children come.

use protocol::algorithm::Hash;
use roxmltree::Node;

use super::limits::{SIGNATURES_MAX, STAMPS_MAX};
use super::package::Package;
use super::report::SignatureKind;
use super::stamp::{Rect, Stamp};
use super::{ReadError, structure, xml};

/// One signature in the list.
pub(super) struct Record {
    pub(super) id: String,
    pub(super) kind: SignatureKind,
    /// Path of Signature.xml.
    pub(super) path: String,
}

/// The list of signatures of a document.
pub(super) struct List {
    /// The text of Signatures.xml, without a byte order mark.
    pub(super) text: String,
    pub(super) records: Vec<Record>,
    /// The highest number in use among the ids of signatures.
    pub(super) last_number: u64,
}

impl List {
    pub(super) fn read(package: &Package<'_>, path: &str) -> Result<Self, ReadError> {
        let bytes = package.read(path)?;
        let text = xml::text(path, &bytes)?.to_owned();
        let tree = xml::parse(path, &text)?;
        let root = tree.root_element();
        let mut last_number = xml::child_text(root, "MaxSignId").map_or(0, number_in);
        let mut records = Vec::new();
        for node in xml::children(root, "Signature") {
            if records.len() == SIGNATURES_MAX {
                return Err(ReadError::Limit("signatures of a document"));
            }
            let record = read_record(package, path, node)?;
            last_number = last_number.max(number_in(&record.id));
            records.push(record);
        }
        Ok(Self {
            text,
            records,
            last_number,
        })
    }
}

fn read_record(package: &Package<'_>, list: &str, node: Node<'_, '_>) -> Result<Record, ReadError> {
    let location = node
        .attribute("BaseLoc")
        .ok_or_else(|| structure(list, "the BaseLoc of a signature"))?;
    let path = package
        .resolve(list, location)?
        .ok_or_else(|| ReadError::Missing(location.to_owned()))?;
    let kind = match node.attribute("Type") {
        None | Some("Seal") => SignatureKind::Seal,
        Some("Sign") => SignatureKind::Sign,
        Some(_) => return Err(structure(list, "a Type that is Seal or Sign")),
    };
    Ok(Record {
        id: node.attribute("ID").unwrap_or_default().to_owned(),
        kind,
        path,
    })
}

/// The number at the end of an id: 3 in `s003` and in `3`. Anything beyond a million is nobody's counter.
fn number_in(id: &str) -> u64 {
    let digits = id.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits
        .parse()
        .ok()
        .filter(|number| *number < 1_000_000)
        .unwrap_or(0)
}

/// What Signature.xml says.
pub(super) struct Description {
    /// The bytes that are signed.
    pub(super) bytes: Vec<u8>,
    pub(super) provider: String,
    pub(super) date_time: Option<String>,
    pub(super) check_method: Option<Hash>,
    pub(super) references: Vec<FileReference>,
    pub(super) stamps: Vec<Stamp>,
    /// Path of Seal.esl.
    pub(super) seal: Option<String>,
    /// Path of the signature value.
    pub(super) value: String,
}

/// One file and its digest.
pub(super) struct FileReference {
    /// As it is written.
    pub(super) location: String,
    /// The file in the package, if it is there.
    pub(super) path: Option<String>,
    /// Base64.
    pub(super) check_value: String,
}

impl Description {
    pub(super) fn read(package: &Package<'_>, path: &str) -> Result<Self, ReadError> {
        let bytes = package.read(path)?;
        let text = xml::text(path, &bytes)?;
        let tree = xml::parse(path, text)?;
        let root = tree.root_element();
        let info = xml::child(root, "SignedInfo").ok_or_else(|| structure(path, "SignedInfo"))?;
        let references = xml::child(info, "References").ok_or_else(|| structure(path, "References"))?;
        let required = |location: Option<&str>, what| {
            let location = location.ok_or_else(|| structure(path, what))?;
            package
                .resolve(path, location)?
                .ok_or_else(|| ReadError::Missing(location.to_owned()))
        };
        let seal = xml::child(info, "Seal")
            .map(|seal| required(xml::child_text(seal, "BaseLoc"), "the BaseLoc of the seal"))
            .transpose()?;
        Ok(Self {
            provider: xml::child(info, "Provider").map_or_else(String::new, provider),
            date_time: xml::child_text(info, "SignatureDateTime").map(str::to_owned),
            check_method: check_method(references.attribute("CheckMethod")),
            references: read_references(package, path, references)?,
            stamps: read_stamps(path, info)?,
            seal,
            value: required(xml::child_text(root, "SignedValue"), "SignedValue")?,
            bytes: bytes.clone(),
        })
    }
}

fn provider(node: Node<'_, '_>) -> String {
    let words = ["ProviderName", "Version", "Company"].map(|name| node.attribute(name).unwrap_or_default());
    words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The hash that is meant, in the ways that the field spells it. MD5, the default of the standard of 2016, and
/// SHA-1 are not accepted: two files can be made that have one digest.
fn check_method(name: Option<&str>) -> Option<Hash> {
    match name?.trim().to_ascii_uppercase().as_str() {
        "SM3" | "1.2.156.10197.1.401" | "1.2.156.10197.1.401.1" | "1.2.156.10197.1.401.2" => Some(Hash::Sm3),
        "SHA256" | "SHA-256" | "2.16.840.1.101.3.4.2.1" => Some(Hash::Sha256),
        "SHA384" | "SHA-384" | "2.16.840.1.101.3.4.2.2" => Some(Hash::Sha384),
        "SHA512" | "SHA-512" | "2.16.840.1.101.3.4.2.3" => Some(Hash::Sha512),
        _ => None,
    }
}

fn read_references(
    package: &Package<'_>,
    path: &str,
    references: Node<'_, '_>,
) -> Result<Vec<FileReference>, ReadError> {
    let read = |node: Node<'_, '_>| {
        let location = node
            .attribute("FileRef")
            .ok_or_else(|| structure(path, "the FileRef of a reference"))?;
        Ok(FileReference {
            location: location.to_owned(),
            path: package.resolve(path, location)?,
            check_value: xml::child_text(node, "CheckValue").unwrap_or_default().to_owned(),
        })
    };
    let most = package.paths().len().saturating_mul(2);
    let nodes: Vec<_> = xml::children(references, "Reference").take(most + 1).collect();
    if nodes.len() > most {
        return Err(ReadError::Limit("references of a signature"));
    }
    nodes.into_iter().map(read).collect()
}

fn read_stamps(path: &str, info: Node<'_, '_>) -> Result<Vec<Stamp>, ReadError> {
    let read = |node: Node<'_, '_>| {
        let page = node
            .attribute("PageRef")
            .ok_or_else(|| structure(path, "the PageRef of a stamp"))?;
        let boundary = node.attribute("Boundary").and_then(Rect::read);
        let clip = node
            .attribute("Clip")
            .map(|clip| Rect::read(clip).ok_or_else(|| structure(path, "a Clip")));
        Ok(Stamp {
            page_id: page.to_owned(),
            boundary: boundary.ok_or_else(|| structure(path, "the Boundary of a stamp"))?,
            clip: clip.transpose()?,
        })
    };
    let nodes: Vec<_> = xml::children(info, "StampAnnot").take(STAMPS_MAX + 1).collect();
    if nodes.len() > STAMPS_MAX {
        return Err(ReadError::Limit("stamps of a signature"));
    }
    nodes.into_iter().map(read).collect()
}
