//! The interactive form, as far as signatures are in it (ISO 32000-2 12.7).

use std::collections::HashSet;

use super::ReadError;
use super::document::Document;
use super::limits::{FIELDS_MAX, TREE_DEPTH_MAX};
use super::object::{Dictionary, Object, Ref};

/// A terminal field.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Its fully qualified name (12.7.4.2).
    pub(crate) name: String,
    /// Where it is; a field that is no indirect object can neither be filled nor referred to.
    pub(crate) reference: Option<Ref>,
    pub(crate) dictionary: Dictionary,
    pub(crate) is_signature: bool,
    /// Its value, not resolved.
    pub(crate) value: Option<Object>,
}

impl Field {
    /// The signature dictionary in a signature field, resolved.
    pub(crate) fn signature(&self, document: &Document<'_>) -> Result<Option<Dictionary>, ReadError> {
        match self
            .value
            .as_ref()
            .map(|value| document.resolve(value))
            .transpose()?
        {
            Some(Object::Dictionary(signature)) if self.is_signature => Ok(Some(signature)),
            _ => Ok(None),
        }
    }
}

struct Node {
    object: Object,
    prefix: String,
    is_signature: bool,
    value: Option<Object>,
    depth: usize,
}

/// All terminal fields in the order of the field tree.
pub(crate) fn fields(document: &Document<'_>) -> Result<Vec<Field>, ReadError> {
    let form = document.dictionary(&document.catalog()?, "AcroForm")?;
    let roots = document.array(&form, "Fields")?;
    let root = |object| Node {
        object,
        prefix: String::new(),
        is_signature: false,
        value: None,
        depth: TREE_DEPTH_MAX,
    };
    let mut stack: Vec<Node> = roots.into_iter().rev().map(root).collect();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    while let Some(node) = stack.pop() {
        if node
            .object
            .as_reference()
            .is_some_and(|reference| !seen.insert(reference))
        {
            return Err(ReadError::Wrong("the form, in which a field comes twice"));
        }
        if found.len() == FIELDS_MAX || stack.len() > FIELDS_MAX {
            return Err(ReadError::Limit("form fields"));
        }
        visit(document, node, &mut stack, &mut found)?;
    }
    Ok(found)
}

fn visit(
    document: &Document<'_>,
    node: Node,
    stack: &mut Vec<Node>,
    found: &mut Vec<Field>,
) -> Result<(), ReadError> {
    let Object::Dictionary(dictionary) = document.resolve(&node.object)? else {
        return Ok(());
    };
    let own = document.get(&dictionary, "T")?.as_text();
    let name = match &own {
        Some(own) if node.prefix.is_empty() => own.clone(),
        Some(own) => format!("{}.{own}", node.prefix),
        None => node.prefix.clone(),
    };
    let kind = document.get(&dictionary, "FT")?;
    let is_signature = if kind.is_null() {
        node.is_signature
    } else {
        kind.is_name("Sig")
    };
    let value = dictionary.get("V").cloned().or(node.value);
    let kids = field_kids(document, &dictionary)?;
    if kids.is_empty() {
        found.push(Field {
            name,
            reference: node.object.as_reference(),
            dictionary,
            is_signature,
            value,
        });
        return Ok(());
    }
    let depth = node
        .depth
        .checked_sub(1)
        .ok_or(ReadError::Limit("depth of the form"))?;
    stack.extend(kids.into_iter().rev().map(|object| Node {
        object,
        prefix: name.clone(),
        is_signature,
        value: value.clone(),
        depth,
    }));
    Ok(())
}

/// The kids that are fields; those without a name of their own are only widgets (12.7.4.1).
fn field_kids(document: &Document<'_>, dictionary: &Dictionary) -> Result<Vec<Object>, ReadError> {
    let mut kids = Vec::new();
    for kid in document.array(dictionary, "Kids")? {
        let has_name = matches!(document.resolve(&kid)?, Object::Dictionary(kid) if kid.get("T").is_some());
        if has_name {
            kids.push(kid);
        }
    }
    Ok(kids)
}
