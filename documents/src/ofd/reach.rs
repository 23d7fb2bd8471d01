//! What a document consists of: every file that can be reached from OFD.xml without going through signatures.

use std::collections::HashSet;

use super::document::{self, Body};
use super::limits::FOLLOWED_MAX;
use super::package::Package;
use super::{ReadError, location, xml};

/// The paths of all files of a document, OFD.xml among them. Whatever an element or attribute names and the package
/// holds counts, so that no kind of reference can be forgotten; a file too many makes verification only stricter.
pub(super) fn files(package: &Package<'_>, body: &Body) -> Result<HashSet<String>, ReadError> {
    let mut reached: HashSet<String> = [document::ROOT.to_owned(), body.document.clone()].into();
    let mut to_follow = vec![body.document.clone()];
    let mut followed = 0;
    while let Some(path) = to_follow.pop() {
        followed += 1;
        if followed > FOLLOWED_MAX {
            return Err(ReadError::Limit("files of a document"));
        }
        for found in named_in(package, &path)? {
            if reached.insert(found.clone()) && found.to_ascii_lowercase().ends_with(".xml") {
                to_follow.push(found);
            }
        }
    }
    Ok(reached)
}

/// The files that an XML file names, from its own folder, from the folder in a `BaseLoc` at its top (resources
/// have one), or from the root.
fn named_in(package: &Package<'_>, path: &str) -> Result<Vec<String>, ReadError> {
    let bytes = package.read(path)?;
    let text = xml::text(path, &bytes)?;
    let tree = xml::parse(path, text)?;
    let base = tree
        .root_element()
        .attribute("BaseLoc")
        .and_then(|base| location::resolve(path, base));
    let mut found = Vec::new();
    let mut look = |value: &str| {
        let value = value.trim();
        // Longer than any name, or empty: text of a page.
        if value.is_empty() || value.len() > super::limits::NAME_BYTES_MAX {
            return;
        }
        let starts = [
            Some(path.to_owned()),
            base.as_ref().map(|base| format!("{base}/-")),
            Some(String::new()),
        ];
        let candidates = starts
            .iter()
            .flatten()
            .filter_map(|start| location::resolve(start, value));
        found.extend(candidates.filter(|candidate| package.contains(candidate)));
    };
    for node in tree.descendants().filter(roxmltree::Node::is_element) {
        node.attributes().for_each(|attribute| look(attribute.value()));
        node.text().into_iter().for_each(&mut look);
    }
    Ok(found)
}
