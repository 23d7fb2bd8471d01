//! OFD.xml and Document.xml: which documents there are, their pages and where their signatures are listed
//! (GB/T 33190-2016 7.4 and 7.5).

use std::ops::Range;

use super::limits::DOCUMENTS_MAX;
use super::package::Package;
use super::stamp::Rect;
use super::{ReadError, structure, xml};

/// The entry point of every package.
pub(super) const ROOT: &str = "OFD.xml";

/// One DocBody.
pub(super) struct Body {
    /// Path of Document.xml.
    pub(super) document: String,
    /// Path of Signatures.xml.
    pub(super) signatures: Option<String>,
    /// Where in the text of OFD.xml a `Signatures` element may be put, and with which prefix.
    pub(super) insert: (usize, String),
}

/// Reads OFD.xml; gives its text too, as it is parsed (without a byte order mark).
pub(super) fn bodies(package: &Package<'_>) -> Result<(Vec<Body>, String), ReadError> {
    let bytes = package.read(ROOT)?;
    let text = xml::text(ROOT, &bytes)?.to_owned();
    let tree = xml::parse(ROOT, &text)?;
    let mut bodies = Vec::new();
    for node in xml::children(tree.root_element(), "DocBody") {
        if bodies.len() == DOCUMENTS_MAX {
            return Err(ReadError::Limit("documents in a package"));
        }
        let root = xml::child(node, "DocRoot").ok_or_else(|| structure(ROOT, "DocRoot"))?;
        let location = root.text().ok_or_else(|| structure(ROOT, "DocRoot"))?;
        let document = package
            .resolve(ROOT, location)?
            .ok_or_else(|| ReadError::Missing(location.to_owned()))?;
        let after: Range<usize> = xml::child(node, "Versions").unwrap_or(root).range();
        bodies.push(Body {
            document,
            signatures: listed(package, node)?,
            insert: (after.end, xml::prefix(&text, root).to_owned()),
        });
    }
    if bodies.is_empty() {
        Err(structure(ROOT, "DocBody"))
    } else {
        Ok((bodies, text))
    }
}

/// The path of Signatures.xml. One that is named but not there is an error: somebody has taken it away.
fn listed(package: &Package<'_>, body: roxmltree::Node<'_, '_>) -> Result<Option<String>, ReadError> {
    let Some(location) = xml::child_text(body, "Signatures").filter(|location| !location.is_empty()) else {
        return Ok(None);
    };
    let path = package.resolve(ROOT, location)?;
    path.map(Some)
        .ok_or_else(|| ReadError::Missing(location.to_owned()))
}

/// A page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// What stamps name it by.
    pub id: String,
    /// The path of its content in the package.
    pub path: String,
    /// Width and height of its physical box in millimetres.
    pub size: (f64, f64),
}

/// The pages of the document at `index` (from 0) of a package, in order.
pub fn pages(ofd: &[u8], index: usize) -> Result<Vec<Page>, ReadError> {
    let package = Package::open(ofd)?;
    let (bodies, _) = bodies(&package)?;
    let body = bodies
        .get(index)
        .ok_or_else(|| structure(ROOT, "a DocBody for the document asked for"))?;
    pages_of(&package, body)
}

pub(super) fn pages_of(package: &Package<'_>, body: &Body) -> Result<Vec<Page>, ReadError> {
    let path = &body.document;
    let bytes = package.read(path)?;
    let text = xml::text(path, &bytes)?;
    let tree = xml::parse(path, text)?;
    let root = tree.root_element();
    let usual = xml::child(root, "CommonData").and_then(physical_box);
    let list = xml::child(root, "Pages").ok_or_else(|| structure(path, "Pages"))?;
    let mut pages = Vec::new();
    for node in xml::children(list, "Page") {
        let id = node
            .attribute("ID")
            .ok_or_else(|| structure(path, "the ID of a page"))?;
        let location = node
            .attribute("BaseLoc")
            .ok_or_else(|| structure(path, "the BaseLoc of a page"))?;
        let content = package
            .resolve(path, location)?
            .ok_or_else(|| ReadError::Missing(location.to_owned()))?;
        let own = own_box(package, &content)?;
        let area = own.or(usual).ok_or_else(|| structure(path, "a PhysicalBox"))?;
        pages.push(Page {
            id: id.to_owned(),
            path: content,
            size: (area.width, area.height),
        });
    }
    Ok(pages)
}

/// A page's own PageArea, which goes before the document's.
fn own_box(package: &Package<'_>, path: &str) -> Result<Option<Rect>, ReadError> {
    let bytes = package.read(path)?;
    let text = xml::text(path, &bytes)?;
    let tree = xml::parse(path, text)?;
    Ok(area_box(xml::child(tree.root_element(), "Area")))
}

fn physical_box(common: roxmltree::Node<'_, '_>) -> Option<Rect> {
    area_box(xml::child(common, "PageArea"))
}

fn area_box(area: Option<roxmltree::Node<'_, '_>>) -> Option<Rect> {
    Rect::read(xml::child_text(area?, "PhysicalBox")?)
}
